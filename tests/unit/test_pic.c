/* The 8259A pair: initialization, priorities, end of interrupt, special modes, cascade, spurious vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/pic.h"
#include "fakeboard.h"

static struct board b;
static struct device *pic;
static bool intr;
static unsigned intr_changes;

static void output(void *opaque, bool level)
{
	intr = level;
	intr_changes++;
}

static void irq(unsigned n, bool level)
{
	pthread_mutex_lock(&b.vm.intc_lock);
	pic_set_irq(pic, n, level);
	pthread_mutex_unlock(&b.vm.intc_lock);
}

static int ack(void)
{
	pthread_mutex_lock(&b.vm.intc_lock);
	int v = pic_ack(pic);
	pthread_mutex_unlock(&b.vm.intc_lock);
	return v;
}

/* The usual set-up: vectors 20H and 28H, everything unmasked, with these ICW4s. */
static void program(u8 master_icw4, u8 slave_icw4)
{
	board_outb(&b, 0x20, 0x11);
	board_outb(&b, 0x21, 0x20);
	board_outb(&b, 0x21, 0x04);
	board_outb(&b, 0x21, master_icw4);
	board_outb(&b, 0xa0, 0x11);
	board_outb(&b, 0xa1, 0x28);
	board_outb(&b, 0xa1, 0x02);
	board_outb(&b, 0xa1, slave_icw4);
}

static int setup(void **state)
{
	board_init(&b, 0, 0);
	pic = board_add(&b, "pic", NULL);
	intr_changes = 0;
	pic_set_output(pic, output, NULL);
	program(0x01, 0x01);
	return 0;
}

static int teardown(void **state)
{
	board_fini(&b);
	return 0;
}

static u8 isr(u16 port)
{
	board_outb(&b, port, 0x0b);
	return board_inb(&b, port);
}

static u8 irr(u16 port)
{
	board_outb(&b, port, 0x0a);
	return board_inb(&b, port);
}

static void test_silent_before_setup(void **state)
{
	pic->ops->reset(pic, RESET_COLD);
	irq(1, true);
	assert_false(intr);
	/* Nor between the initialization words. */
	board_outb(&b, 0x20, 0x11);
	irq(1, false);
	irq(1, true);
	assert_false(intr);
	assert_int_equal(pic_pending(pic), -1);
	board_outb(&b, 0x21, 0x40);
	board_outb(&b, 0x21, 0x04);
	board_outb(&b, 0x21, 0x01);
	assert_true(intr);
	assert_int_equal(pic_pending(pic), 0x41);
}

static void test_edge(void **state)
{
	irq(4, true);
	assert_true(intr);
	assert_int_equal(pic_pending(pic), 0x24);
	assert_int_equal(pic_pending(pic), 0x24); /* no side effect */
	assert_int_equal(irr(0x20), 0x10);
	assert_int_equal(ack(), 0x24);
	assert_false(intr);
	assert_int_equal(irr(0x20), 0);
	assert_int_equal(isr(0x20), 0x10);
	/* A line that stays high does not ask again. */
	board_outb(&b, 0x20, 0x20);
	assert_int_equal(isr(0x20), 0);
	assert_false(intr);
	irq(4, false);
	irq(4, true);
	assert_true(intr);
	/* A pulse is kept. */
	irq(4, false);
	assert_int_equal(ack(), 0x24);
}

static void test_level(void **state)
{
	board_outb(&b, 0x4d0, 0xff);
	board_outb(&b, 0x4d1, 0xff);
	assert_int_equal(board_inb(&b, 0x4d0), 0xf8); /* 0, 1, 2 are edge for good */
	assert_int_equal(board_inb(&b, 0x4d1), 0xde); /* so are 8 and 13 */
	irq(5, true);
	assert_int_equal(ack(), 0x25);
	assert_false(intr);
	board_outb(&b, 0x20, 0x20);
	assert_true(intr); /* still high */
	irq(5, false);
	assert_false(intr);
	assert_int_equal(pic_pending(pic), -1);
	/* Turning a high line from edge to level makes it a request; back again clears it. */
	board_outb(&b, 0x4d0, 0);
	irq(6, true);
	assert_int_equal(ack(), 0x26);
	board_outb(&b, 0x20, 0x20);
	board_outb(&b, 0x4d0, 0x40);
	assert_true(intr);
	board_outb(&b, 0x4d0, 0);
	assert_false(intr);
}

static void test_mask(void **state)
{
	board_outb(&b, 0x21, 0x10);
	irq(4, true);
	assert_false(intr);
	assert_int_equal(irr(0x20), 0x10);
	board_outb(&b, 0x21, 0x00);
	assert_true(intr);
	assert_int_equal(board_inb(&b, 0x21), 0x00);
}

static void test_priority(void **state)
{
	irq(4, true);
	irq(3, true);
	irq(0, true);
	assert_int_equal(ack(), 0x20);
	assert_false(intr); /* lower ones wait */
	board_outb(&b, 0x20, 0x20);
	assert_int_equal(ack(), 0x23);
	irq(1, true);
	assert_int_equal(ack(), 0x21); /* nests */
	assert_int_equal(isr(0x20), 0x0a);
	board_outb(&b, 0x20, 0x20); /* ends the highest */
	assert_int_equal(isr(0x20), 0x08);
	assert_false(intr);
	board_outb(&b, 0x20, 0x63); /* specific, level 3 */
	assert_int_equal(isr(0x20), 0);
	assert_int_equal(ack(), 0x24);
}

static void test_rotation(void **state)
{
	irq(3, true);
	assert_int_equal(ack(), 0x23);
	board_outb(&b, 0x20, 0xa0); /* rotate on EOI: 3 is lowest now, 4 highest */
	irq(0, true);
	irq(4, true);
	assert_int_equal(ack(), 0x24);
	board_outb(&b, 0x20, 0x20);
	board_outb(&b, 0x20, 0xc7); /* set priority: 7 lowest, 0 highest */
	irq(4, false);
	irq(4, true);
	assert_int_equal(ack(), 0x20);
	board_outb(&b, 0x20, 0xe0); /* rotate on specific EOI: 0 lowest */
	irq(0, false);
	irq(0, true);
	assert_int_equal(ack(), 0x24);
	board_outb(&b, 0x20, 0x20);
	assert_int_equal(ack(), 0x20);
}

static void test_aeoi(void **state)
{
	program(0x03, 0x03);
	irq(3, true);
	assert_int_equal(ack(), 0x23);
	assert_int_equal(isr(0x20), 0);
	irq(12, true);
	irq(14, true);
	assert_int_equal(ack(), 0x2c);
	assert_true(intr); /* the slave's second request makes its own edge */
	assert_int_equal(ack(), 0x2e);
	assert_false(intr);
	/* Rotating: who was served goes to the end. */
	board_outb(&b, 0x20, 0x80);
	irq(1, true);
	assert_int_equal(ack(), 0x21);
	irq(1, false);
	irq(1, true);
	irq(3, false);
	irq(3, true);
	assert_int_equal(ack(), 0x23);
	board_outb(&b, 0x20, 0x00);
	assert_int_equal(ack(), 0x21);
}

static void test_cascade(void **state)
{
	irq(10, true);
	assert_true(intr);
	assert_int_equal(pic_pending(pic), 0x2a);
	assert_int_equal(ack(), 0x2a);
	assert_int_equal(isr(0x20), 0x04);
	assert_int_equal(isr(0xa0), 0x04);
	irq(9, true); /* higher at the slave, but the master serves the cascade */
	assert_false(intr);
	irq(1, true); /* higher at the master */
	assert_int_equal(ack(), 0x21);
	board_outb(&b, 0x20, 0x20);
	board_outb(&b, 0xa0, 0x20);
	assert_false(intr);
	board_outb(&b, 0x20, 0x20);
	assert_int_equal(ack(), 0x29);
	/* Input 2 has no pin. */
	irq(2, true);
	assert_int_equal(irr(0x20), 0);
}

static void test_special_fully_nested(void **state)
{
	program(0x11, 0x01);
	irq(10, true);
	assert_int_equal(ack(), 0x2a);
	irq(9, true);
	assert_int_equal(ack(), 0x29); /* nests within the slave */
	assert_int_equal(isr(0xa0), 0x06);
	irq(3, true);
	assert_false(intr); /* below the cascade */
	board_outb(&b, 0xa0, 0x20);
	board_outb(&b, 0xa0, 0x20);
	board_outb(&b, 0x20, 0x20);
	assert_int_equal(ack(), 0x23);
}

static void test_special_mask(void **state)
{
	irq(1, true);
	assert_int_equal(ack(), 0x21);
	irq(5, true);
	assert_false(intr);
	board_outb(&b, 0x21, 0x02);
	assert_false(intr);
	board_outb(&b, 0x20, 0x68); /* special mask mode: the masked service blocks nobody */
	assert_int_equal(ack(), 0x25);
	board_outb(&b, 0x20, 0x20); /* a plain EOI does not mean a masked one */
	assert_int_equal(isr(0x20), 0x02);
	board_outb(&b, 0x20, 0x48); /* off */
	board_outb(&b, 0x20, 0x20);
	assert_int_equal(isr(0x20), 0);
}

static void test_poll(void **state)
{
	board_outb(&b, 0x20, 0x0c);
	assert_int_equal(board_inb(&b, 0x20), 0x00);
	irq(6, true);
	board_outb(&b, 0x20, 0x0c);
	assert_int_equal(board_inb(&b, 0x21), 0x86);
	assert_int_equal(isr(0x20), 0x40);
	assert_false(intr);
	/* The slave through the master's poll. */
	irq(8, true);
	board_outb(&b, 0x20, 0x0c);
	assert_int_equal(board_inb(&b, 0x20), 0x82);
	board_outb(&b, 0xa0, 0x0c);
	assert_int_equal(board_inb(&b, 0xa0), 0x80);
	assert_int_equal(isr(0xa0), 0x01);
	/* One read only. */
	assert_int_equal(irr(0x20), 0);
}

static void test_spurious(void **state)
{
	assert_int_equal(ack(), 0x27);
	assert_int_equal(isr(0x20), 0);
	/* The slave takes its request back after the master has noted it. */
	irq(11, true);
	board_outb(&b, 0xa1, 0x08);
	assert_int_equal(pic_pending(pic), 0x2f);
	assert_int_equal(ack(), 0x2f);
	assert_int_equal(isr(0x20), 0x04); /* the master does serve the cascade */
	assert_int_equal(isr(0xa0), 0);
}

static void test_reinitialization(void **state)
{
	irq(4, true);
	assert_int_equal(ack(), 0x24);
	irq(3, true);
	board_outb(&b, 0x21, 0x55);
	program(0x01, 0x01);
	assert_int_equal(isr(0x20), 0);
	assert_int_equal(irr(0x20), 0); /* edges are forgotten */
	assert_int_equal(board_inb(&b, 0x21), 0);
	assert_false(intr);
	/* Without ICW4, its functions are off. */
	program(0x03, 0x03);
	board_outb(&b, 0x20, 0x10);
	board_outb(&b, 0x21, 0x60);
	board_outb(&b, 0x21, 0x04);
	board_outb(&b, 0x21, 0x80); /* the mask already */
	assert_int_equal(board_inb(&b, 0x21), 0x80);
	irq(3, false);
	irq(3, true);
	assert_int_equal(ack(), 0x63);
	assert_int_equal(isr(0x20), 0x08);
	/* Single: no ICW3, and input 2 is like any other (nothing is connected to it). */
	board_outb(&b, 0x20, 0x13);
	board_outb(&b, 0x21, 0x70);
	board_outb(&b, 0x21, 0x01);
	irq(9, true);
	assert_int_equal(ack(), 0x72);
}

static void test_output_is_told_once(void **state)
{
	intr_changes = 0;
	irq(3, true);
	irq(4, true);
	irq(5, true);
	assert_int_equal(intr_changes, 1);
	ack();
	assert_int_equal(intr_changes, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_silent_before_setup),
		T(test_edge),
		T(test_level),
		T(test_mask),
		T(test_priority),
		T(test_rotation),
		T(test_aeoi),
		T(test_cascade),
		T(test_special_fully_nested),
		T(test_special_mask),
		T(test_poll),
		T(test_spurious),
		T(test_reinitialization),
		T(test_output_is_told_once),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
