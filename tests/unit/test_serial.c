/* The 16550A: registers, FIFOs, interrupts and their priorities, loopback, slow and dead readers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fakeboard.h"

#define COM1 0x3f8
#define MS   1000000ull

static struct board b;
static struct device *com1;
static struct fake_chr chr;

static int setup(void **state)
{
	const struct device_conf conf = { .id = "com1", .base = COM1, .gsi = 4, .chr = &chr.chr };

	board_init(&b, 0, 0);
	fake_chr_init(&chr);
	com1 = board_add(&b, "serial", &conf);
	return 0;
}

static int teardown(void **state)
{
	board_fini(&b);
	assert_null(chr.chr.on_input);
	return 0;
}

static u8 in(unsigned reg)
{
	return board_inb(&b, (u16)(COM1 + reg));
}

static void out(unsigned reg, u8 val)
{
	board_outb(&b, (u16)(COM1 + reg), val);
}

static void test_reset_values(void **state)
{
	assert_int_equal(in(1), 0x00);
	assert_int_equal(in(2), 0x01);
	assert_int_equal(in(3), 0x00);
	assert_int_equal(in(4), 0x00);
	assert_int_equal(in(5), 0x60);
	assert_int_equal(in(6), 0xb0);
	assert_false(b.level[4]);
	/* Scratch and divisor survive the reset line, not a power cycle. */
	out(7, 0x5a);
	out(3, 0x80);
	out(0, 0x0c);
	out(1, 0x01);
	out(3, 0x03);
	out(1, 0x0f);
	com1->ops->reset(com1, RESET_WARM);
	assert_int_equal(in(1), 0);
	assert_int_equal(in(7), 0x5a);
	out(3, 0x80);
	assert_int_equal(in(0), 0x0c);
	assert_int_equal(in(1), 0x01);
	com1->ops->reset(com1, RESET_COLD);
	assert_int_equal(in(7), 0);
}

static void test_register_bits(void **state)
{
	out(1, 0xff);
	assert_int_equal(in(1), 0x0f);
	out(4, 0xff);
	assert_int_equal(in(4), 0x1f);
	out(3, 0x7f);
	assert_int_equal(in(3), 0x7f);
	/* The divisor latch hides data and IER, and nothing is sent. */
	out(3, 0x83);
	out(0, 'x');
	assert_int_equal(in(0), 'x');
	assert_int_equal(chr.out_len, 0);
	out(3, 0x03);
	assert_int_equal(in(1), 0x0f);
	/* LSR and MSR cannot be written. */
	out(4, 0);
	in(6);
	out(5, 0xff);
	out(6, 0xff);
	assert_int_equal(in(5), 0x60);
	assert_int_equal(in(6), 0xb0);
	/* FIFOs show in IIR; FCR without its bit 0 does nothing else. */
	out(1, 0);
	out(2, 0xc1);
	assert_int_equal(in(2), 0xc1);
	out(2, 0xc0);
	assert_int_equal(in(2), 0x01);
}

static void test_output(void **state)
{
	const char *text = "hello, world\n";

	for (const char *p = text; *p; p++) {
		assert_int_equal(in(5) & 0x60, 0x60);
		out(0, (u8)*p);
	}
	assert_int_equal(chr.out_len, strlen(text));
	assert_memory_equal(chr.out, text, strlen(text));
}

static void test_thre_interrupt(void **state)
{
	out(1, 0x02);
	assert_true(b.level[4]); /* enabling it with an empty transmitter raises it */
	assert_int_equal(in(2), 0x02);
	assert_false(b.level[4]); /* reading IIR ends it */
	assert_int_equal(in(2), 0x01);
	/* Each byte makes its own edge, though it leaves at once. */
	unsigned rises = b.rises[4];
	out(0, 'a');
	out(0, 'b');
	assert_int_equal(b.rises[4], rises + 2);
	assert_true(b.level[4]);
	/* Reading something else does not end it; disabling does, enabling raises it again. */
	in(5);
	assert_true(b.level[4]);
	out(1, 0x00);
	assert_false(b.level[4]);
	assert_int_equal(in(2), 0x01);
	out(1, 0x02);
	assert_true(b.level[4]);
}

static void test_input_16450(void **state)
{
	assert_int_equal(fake_chr_type(&chr, "abc", 3), 1); /* one at a time */
	assert_int_equal(in(5) & 0x01, 0x01);
	out(1, 0x01);
	assert_true(b.level[4]);
	assert_int_equal(in(2), 0x04);
	unsigned ready = chr.ready;
	assert_int_equal(in(0), 'a');
	assert_int_equal(chr.ready, ready + 1); /* asks for more */
	assert_false(b.level[4]);
	assert_int_equal(in(5) & 0x01, 0);
	assert_int_equal(fake_chr_type(&chr, "b", 1), 1);
	assert_int_equal(in(0), 'b');
	assert_int_equal(in(0), in(0)); /* an empty one can be read */
}

static void test_triggers(void **state)
{
	static const u8 level[4] = { 1, 4, 8, 14 };

	out(1, 0x01);
	for (unsigned t = 0; t < 4; t++) {
		out(2, (u8)(t << 6 | 0x07));
		for (unsigned i = 0; i < level[t]; i++) {
			assert_false(b.level[4]);
			assert_int_equal(fake_chr_type(&chr, "x", 1), 1);
		}
		assert_true(b.level[4]);
		assert_int_equal(in(2), 0xc4);
		in(0);
		assert_false(b.level[4]); /* below the trigger level */
	}
	out(2, 0x07);
	assert_int_equal(fake_chr_type(&chr, "0123456789abcdefgh", 18), 16);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(in(0), "0123456789abcdef"[i]);
	assert_int_equal(in(5), 0x60); /* no overrun */
}

static void test_timeout(void **state)
{
	out(3, 0x83);
	out(0, 1); /* 115200 baud: 4 characters are 347 us */
	out(1, 0);
	out(3, 0x03);
	out(2, 0xc7);
	out(1, 0x01);
	fake_chr_type(&chr, "ab", 2);
	board_advance(&b, 340000);
	assert_false(b.level[4]);
	fake_chr_type(&chr, "c", 1); /* begins again */
	board_advance(&b, 340000);
	assert_false(b.level[4]);
	board_advance(&b, 10000);
	assert_true(b.level[4]);
	assert_int_equal(in(2), 0xcc);
	assert_int_equal(in(2), 0xcc); /* until data is read */
	assert_int_equal(in(0), 'a');
	assert_int_equal(in(2), 0xc1);
	board_advance(&b, 350000);
	assert_int_equal(in(2), 0xcc); /* two are left */
	in(0);
	in(0);
	assert_int_equal(in(2), 0xc1);
	board_advance(&b, 100 * MS);
	assert_int_equal(in(2), 0xc1); /* nothing is left */
	/* A divisor of 0 or ffffH does not make it wait for ever. */
	out(3, 0x83);
	out(0, 0);
	out(1, 0);
	out(3, 0x1f);
	fake_chr_type(&chr, "a", 1);
	board_advance(&b, 50 * MS);
	assert_int_equal(in(2), 0xcc);
	/* Clearing the FIFO ends it. */
	out(2, 0xc3);
	assert_int_equal(in(2), 0xc1);
}

static void test_loopback_data(void **state)
{
	out(3, 0x03);
	out(2, 0x07);
	out(4, 0x10);
	assert_int_equal(fake_chr_type(&chr, "x", 1), 0); /* the line is cut */
	for (unsigned i = 0; i < 16; i++)
		out(0, (u8)(0xa0 + i));
	assert_int_equal(chr.out_len, 0);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(in(0), 0xa0 + i);
	/* Overrun: the FIFO keeps what it has. */
	for (unsigned i = 0; i < 18; i++)
		out(0, (u8)i);
	assert_int_equal(in(5), 0x63);
	assert_int_equal(in(5), 0x61); /* cleared by reading */
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(in(0), i);
	/* Without FIFOs the character is overwritten. */
	out(2, 0x00);
	out(0, 1);
	out(0, 2);
	assert_int_equal(in(5), 0x63);
	assert_int_equal(in(0), 2);
	/* Five-bit words. */
	out(3, 0x00);
	out(0, 0xff);
	assert_int_equal(in(0), 0x1f);
	/* Opening the loop asks for input. */
	unsigned ready = chr.ready;
	out(4, 0x00);
	assert_true(chr.ready > ready);
}

static void test_loopback_modem(void **state)
{
	out(4, 0x10);
	in(6);
	out(4, 0x11); /* DTR -> DSR */
	assert_int_equal(in(6), 0x22);
	assert_int_equal(in(6), 0x20);
	out(4, 0x13); /* RTS -> CTS */
	assert_int_equal(in(6), 0x31);
	out(4, 0x17); /* OUT1 -> RI: no flag when it rises */
	assert_int_equal(in(6), 0x70);
	out(4, 0x1f); /* OUT2 -> DCD */
	assert_int_equal(in(6), 0xf8);
	out(4, 0x1b); /* RI falls: TERI */
	assert_int_equal(in(6), 0xb4);
	out(1, 0x08);
	assert_false(b.level[4]);
	out(4, 0x19);
	assert_true(b.level[4]);
	assert_int_equal(in(2), 0x00);
	assert_int_equal(in(6), 0xa1);
	assert_false(b.level[4]);
}

static void test_priorities(void **state)
{
	out(3, 0x03);
	out(4, 0x10);
	out(2, 0x01);
	out(1, 0x0f); /* THRE is pending, and the loop changed the modem lines */
	for (unsigned i = 0; i < 17; i++)
		out(0, 'x');
	assert_int_equal(in(2), 0xc6); /* overrun: line status */
	in(5);
	assert_int_equal(in(2), 0xc4); /* data */
	assert_true(b.level[4]);
	for (unsigned i = 0; i < 16; i++)
		in(0);
	assert_int_equal(in(2), 0xc2); /* THRE, which ends by this */
	assert_true(b.level[4]);
	assert_int_equal(in(2), 0xc0); /* modem status */
	in(6);
	assert_int_equal(in(2), 0xc1);
	assert_false(b.level[4]);
}

static void test_break(void **state)
{
	out(2, 0x07);
	out(1, 0x04);
	fake_chr_type(&chr, "a", 1);
	chr.chr.on_break(chr.chr.opaque);
	assert_int_equal(in(5), 0xe1); /* an error is in the FIFO, but not at its top */
	assert_false(b.level[4]);
	assert_int_equal(in(0), 'a');
	assert_true(b.level[4]);
	assert_int_equal(in(2), 0xc6);
	assert_int_equal(in(5), 0xf1);
	assert_int_equal(in(5), 0x61);
	assert_false(b.level[4]);
	assert_int_equal(in(0), 0);
}

static void test_slow_reader(void **state)
{
	out(2, 0x07);
	in(2);
	out(1, 0x02);
	in(2);
	chr.room = 0;
	for (unsigned i = 0; i < 16; i++)
		out(0, (u8)('a' + i));
	assert_int_equal(in(5) & 0x60, 0);
	assert_false(b.level[4]);
	out(0, '!'); /* against THRE: lost */
	board_advance(&b, 50 * MS);
	chr.room = 100;
	chr.chr.on_writable(chr.chr.opaque);
	assert_int_equal(chr.out_len, 16);
	assert_memory_equal(chr.out, "abcdefghijklmnop", 16);
	assert_int_equal(in(5) & 0x60, 0x60);
	assert_true(b.level[4]);
	board_advance(&b, 1000 * MS);
	assert_int_equal(in(5) & 0x60, 0x60);
	/* Taken in part. */
	chr.room = 0;
	for (unsigned i = 0; i < 16; i++)
		out(0, (u8)('A' + i));
	chr.room = 5;
	chr.chr.on_writable(chr.chr.opaque);
	assert_int_equal(chr.out_len, 21);
	assert_int_equal(in(5) & 0x60, 0);
	chr.room = 100;
	chr.chr.on_writable(chr.chr.opaque);
	assert_memory_equal(chr.out + 16, "ABCDEFGHIJKLMNOP", 16);
}

/* G37: nobody reads; the guest loses 100 ms, not its life. */
static void test_dead_reader(void **state)
{
	u64 start = b.now, sent = 0;

	chr.room = 0;
	out(2, 0x07);
	while (sent < 100000) {
		if (in(5) & 0x20) {
			out(0, 'x');
			sent++;
		} else {
			board_advance(&b, 1000);
		}
	}
	assert_in_range(b.now - start, 100 * MS, 101 * MS);
	assert_int_equal(chr.total, 0);
	/* The reader comes back. */
	chr.room = 1000;
	chr.chr.on_writable(chr.chr.opaque);
	out(0, 'y');
	assert_int_equal(chr.out_len, 1);
	assert_int_equal(chr.out[0], 'y');
	/* Clearing the FIFO while it is held ends the wait. */
	chr.room = 0;
	out(0, 'z');
	assert_int_equal(in(5) & 0x60, 0);
	out(2, 0x05);
	assert_int_equal(in(5) & 0x60, 0x60);
	chr.room = 10;
	chr.chr.on_writable(chr.chr.opaque);
	assert_int_equal(chr.out_len, 1);
}

static void test_without_backend(void **state)
{
	const struct device_conf conf = { .id = "com2", .base = 0x2f8, .gsi = 3 };

	board_add(&b, "serial", &conf);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(board_inb(&b, 0x2fd), 0x60);
		board_outb(&b, 0x2f8, 'x');
	}
}

static void test_state(void **state)
{
	u8 saved[1024], again[1024];
	size_t len = state_size(com1->ops->state);
	struct err err;

	assert_true(len <= sizeof(saved));
	out(3, 0x03);
	out(2, 0x87);
	out(1, 0x01);
	fake_chr_type(&chr, "0123456789", 10);
	assert_true(b.level[4]);
	state_save(com1->ops->state, com1, saved);
	com1->ops->reset(com1, RESET_COLD);
	assert_false(b.level[4]);
	assert_int_equal(state_load(com1->ops->state, com1, saved, len, &err), 0);
	assert_int_equal(com1->ops->post_load(com1, &err), 0);
	assert_true(b.level[4]);
	state_save(com1->ops->state, com1, again);
	assert_memory_equal(saved, again, len);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(in(0), '0' + i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_reset_values),   T(test_register_bits),   T(test_output),  T(test_thre_interrupt),
		T(test_input_16450),    T(test_triggers),        T(test_timeout), T(test_loopback_data),
		T(test_loopback_modem), T(test_priorities),      T(test_break),   T(test_slow_reader),
		T(test_dead_reader),    T(test_without_backend), T(test_state),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
