/* The 8042, keyboard, mouse, port 92H: what a probing driver does, and the ways to reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fakeboard.h"

static struct board b;
static struct device *ps2;

static int setup(void **state)
{
	board_init(&b, 0, 0);
	ps2 = board_add(&b, "ps2", NULL);
	return 0;
}

static int teardown(void **state)
{
	board_fini(&b);
	return 0;
}

static u8 status(void)
{
	return board_inb(&b, 0x64);
}

static void command(u8 cmd)
{
	board_outb(&b, 0x64, cmd);
}

static void command_with(u8 cmd, u8 byte)
{
	board_outb(&b, 0x64, cmd);
	board_outb(&b, 0x60, byte);
}

/* The next byte, which must be there and come from the mouse or not. */
static u8 next(bool aux)
{
	assert_int_equal(status() & 0x21, aux ? 0x21 : 0x01);
	return board_inb(&b, 0x60);
}

static void nothing(void)
{
	assert_int_equal(status() & 0x01, 0);
}

static void kbd(u8 byte)
{
	board_outb(&b, 0x60, byte);
}

static void aux(u8 byte)
{
	command_with(0xd4, byte);
}

static void test_controller(void **state)
{
	nothing();
	assert_int_equal(status(), 0x14);
	command(0xaa);
	assert_int_equal(status() & 0x08, 0x08); /* the last byte was a command */
	assert_int_equal(next(false), 0x55);
	command(0xab);
	assert_int_equal(next(false), 0x00);
	command(0xa9);
	assert_int_equal(next(false), 0x00);
	command(0x20);
	assert_int_equal(next(false), 0x65);
	command_with(0x60, 0x47);
	assert_int_equal(status() & 0x08, 0);
	command(0x20);
	assert_int_equal(next(false), 0x47);
	/* Interfaces off and on are bits of the command byte. */
	command(0xa7);
	command(0xad);
	command(0x20);
	assert_int_equal(next(false), 0x77);
	command(0xa8);
	command(0xae);
	command(0x20);
	assert_int_equal(next(false), 0x47);
	/* The controller's RAM, input port. */
	command_with(0x7f, 0xa5);
	command(0x3f);
	assert_int_equal(next(false), 0xa5);
	command(0xc0);
	assert_int_equal(next(false), 0x80);
	/* Unknown commands do nothing. */
	command(0x00);
	command(0xb5);
	nothing();
}

static void test_keyboard(void **state)
{
	kbd(0xff);
	assert_int_equal(next(false), 0xfa);
	assert_int_equal(next(false), 0xaa);
	nothing();
	kbd(0xf2);
	assert_int_equal(next(false), 0xfa);
	assert_int_equal(next(false), 0xab);
	assert_int_equal(next(false), 0x41); /* 83H, translated */
	command_with(0x60, 0x05);            /* translation off */
	kbd(0xf2);
	next(false);
	next(false);
	assert_int_equal(next(false), 0x83);
	kbd(0xed);
	assert_int_equal(next(false), 0xfa);
	kbd(0x07);
	assert_int_equal(next(false), 0xfa);
	kbd(0xf0);
	next(false);
	kbd(0x01);
	assert_int_equal(next(false), 0xfa);
	kbd(0xf0);
	next(false);
	kbd(0x00);
	assert_int_equal(next(false), 0xfa);
	assert_int_equal(next(false), 0x01);
	command_with(0x60, 0x45);
	for (u8 set = 2; set <= 3; set++) {
		kbd(0xf0);
		next(false);
		kbd(set);
		next(false);
		kbd(0xf0);
		next(false);
		kbd(0);
		next(false);
		assert_int_equal(next(false), set == 2 ? 0x41 : 0x3f); /* as translated */
	}
	command_with(0x60, 0x05);
	kbd(0xf0);
	next(false);
	kbd(0x09);
	assert_int_equal(next(false), 0xfe);
	kbd(0xee);
	assert_int_equal(next(false), 0xee);
	kbd(0xfe);
	assert_int_equal(next(false), 0xee);
	static const u8 simple[] = { 0xf4, 0xf5, 0xf6, 0xf7, 0xfa };
	for (unsigned i = 0; i < ARRAY_SIZE(simple); i++) {
		kbd(simple[i]);
		assert_int_equal(next(false), 0xfa);
		nothing();
	}
	kbd(0xf3);
	next(false);
	kbd(0x20);
	assert_int_equal(next(false), 0xfa);
	kbd(0x12); /* not a command */
	assert_int_equal(next(false), 0xfe);
	/* A command instead of a parameter. */
	kbd(0xf3);
	next(false);
	kbd(0xf2);
	assert_int_equal(next(false), 0xfa);
	assert_int_equal(next(false), 0xab);
}

static void test_mouse(void **state)
{
	command(0xa8);
	aux(0xff);
	assert_int_equal(next(true), 0xfa);
	assert_int_equal(next(true), 0xaa);
	assert_int_equal(next(true), 0x00);
	nothing();
	aux(0xf2);
	assert_int_equal(next(true), 0xfa);
	assert_int_equal(next(true), 0x00);
	aux(0xe8);
	next(true);
	aux(0x03);
	assert_int_equal(next(true), 0xfa);
	aux(0xf3);
	next(true);
	aux(200);
	assert_int_equal(next(true), 0xfa);
	aux(0xf4);
	next(true);
	aux(0xe7);
	next(true);
	aux(0xe9);
	assert_int_equal(next(true), 0xfa);
	assert_int_equal(next(true), 0x30);
	assert_int_equal(next(true), 3);
	assert_int_equal(next(true), 200);
	aux(0xeb);
	assert_int_equal(next(true), 0xfa);
	assert_int_equal(next(true), 0x08);
	assert_int_equal(next(true), 0);
	assert_int_equal(next(true), 0);
	aux(0xf0); /* remote mode, reporting off, scaling as it was */
	next(true);
	aux(0xf5);
	next(true);
	aux(0xe9);
	next(true);
	assert_int_equal(next(true), 0x50);
	next(true);
	assert_int_equal(next(true), 200);
	aux(0xfe);
	assert_int_equal(next(true), 200); /* the last byte again */
	aux(0xea);
	next(true);
	aux(0xf6); /* defaults */
	next(true);
	aux(0xe9);
	next(true);
	assert_int_equal(next(true), 0x00);
	assert_int_equal(next(true), 2);
	assert_int_equal(next(true), 100);
	aux(0xee);
	next(true);
	aux(0x42);
	assert_int_equal(next(true), 0x42); /* wrap mode */
	aux(0xec);
	assert_int_equal(next(true), 0xfa);
	aux(0x42);
	assert_int_equal(next(true), 0xfe);
	nothing();
}

static void test_interrupts(void **state)
{
	command_with(0x60, 0x47); /* both interrupts */
	kbd(0xff);
	assert_true(b.level[1]);
	assert_int_equal(b.rises[1], 1);
	next(false);
	assert_int_equal(b.rises[1], 2); /* an edge for each byte */
	next(false);
	assert_false(b.level[1]);
	aux(0xf4);
	assert_true(b.level[12]);
	assert_false(b.level[1]);
	next(true);
	assert_false(b.level[12]);
	/* Linux tests the line with a byte that poses as the mouse's. */
	command_with(0xd3, 0xa5);
	assert_true(b.level[12]);
	assert_int_equal(b.rises[12], 2);
	assert_int_equal(next(true), 0xa5);
	command_with(0xd2, 0x5a);
	assert_true(b.level[1]);
	assert_int_equal(next(false), 0x5a);
	/* Off: polled. */
	command_with(0x60, 0x44);
	kbd(0xee);
	assert_false(b.level[1]);
	assert_int_equal(next(false), 0xee);
}

static void test_interface_off(void **state)
{
	kbd(0xff);
	command(0xad);
	assert_int_equal(next(false), 0xfa); /* was in the buffer already */
	nothing();                           /* the rest waits */
	command(0xae);
	assert_int_equal(next(false), 0xaa);
	command(0xad);
	kbd(0xee); /* speaking to the keyboard switches it on */
	assert_int_equal(next(false), 0xee);
	command(0xa8);
	aux(0xf2);
	command(0xa7);
	assert_int_equal(next(true), 0xfa);
	nothing();
	command(0xa8);
	assert_int_equal(next(true), 0x00);
}

static void test_mux_probe(void **state)
{
	/* A controller with one mouse port gives back what it is sent. */
	static const u8 probe[] = { 0xf0, 0x56, 0xa4, 0x5a };

	for (unsigned i = 0; i < ARRAY_SIZE(probe); i++) {
		command_with(0xd3, probe[i]);
		assert_int_equal(next(true), probe[i]);
	}
}

static void test_a20(void **state)
{
	command(0xd0);
	assert_int_equal(next(false) & 0x03, 0x03);
	assert_int_equal(board_inb(&b, 0x92), 0x02);
	command_with(0xd1, 0xdd);
	assert_int_equal(board_inb(&b, 0x92), 0x00);
	board_outb(&b, 0x92, 0x02);
	command(0xd0);
	assert_int_equal(next(false) & 0x02, 0x02);
	assert_int_equal(ram_gate(&b.vm.ram, 0x12345678), 0x12345678);
	command(0xdd);
	assert_int_equal(board_inb(&b, 0x92), 0x00);
	assert_int_equal(ram_gate(&b.vm.ram, 0x12345678), 0x12245678);
	command(0xdf);
	assert_int_equal(board_inb(&b, 0x92), 0x02);
	board_outb(&b, 0x92, 0x00);
	assert_int_equal(ram_gate(&b.vm.ram, 0x1fffff), 0x0fffff);
	ps2->ops->reset(ps2, RESET_WARM);
	assert_int_equal(ram_gate(&b.vm.ram, 0x1fffff), 0x1fffff);
	assert_int_equal(b.vm.request, VM_REQ_NONE);
}

static void expect_reset(void)
{
	assert_int_equal(b.vm.request, VM_REQ_RESET);
	b.vm.request = VM_REQ_NONE;
	ps2->ops->reset(ps2, RESET_WARM);
}

static void test_reset_line(void **state)
{
	command(0xff); /* pulses nothing */
	assert_int_equal(b.vm.request, VM_REQ_NONE);
	command(0xfe);
	expect_reset();
	command(0xf0);
	expect_reset();
	command_with(0xd1, 0x02);
	expect_reset();
	board_outb(&b, 0x92, 0x01);
	expect_reset();
	board_outb(&b, 0x92, 0x03);
	expect_reset();
}

/* However many bytes are provoked and not read, the queues stay what they are. */
static void test_flood(void **state)
{
	command(0xa8);
	for (unsigned i = 0; i < 10000; i++) {
		kbd(0xf2);
		aux(0xe9);
		command(0xaa);
	}
	unsigned n = 0;
	while ((status() & 1) && n < 1000) {
		board_inb(&b, 0x60);
		n++;
	}
	assert_in_range(n, 40, 3 * 16 + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_controller), T(test_keyboard),      T(test_mouse),
		T(test_interrupts), T(test_interface_off), T(test_mux_probe),
		T(test_a20),        T(test_reset_line),    T(test_flood),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
