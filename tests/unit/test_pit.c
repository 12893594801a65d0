/* The 8254: modes, gates, latches, BCD, the interrupt of channel 0, port 61H. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fakeboard.h"

#define HZ 1193182ull

static struct board b;
static struct device *pit;

static int setup(void **state)
{
	board_init(&b, 0, 0);
	pit = board_add(&b, "pit", NULL);
	return 0;
}

static int teardown(void **state)
{
	board_fini(&b);
	return 0;
}

/* To the middle of the n-th tick of the 8254's clock. */
static void to_tick(u64 n)
{
	u64 ns = (u64)(((unsigned __int128)n * 1000000000 * 2 + 1000000000) / (2 * HZ));

	assert_true(ns >= b.now);
	board_advance(&b, ns - b.now);
}

static void program(unsigned c, unsigned mode, u16 count)
{
	board_outb(&b, 0x43, (u8)(c << 6 | 0x30 | mode << 1));
	board_outb(&b, (u16)(0x40 + c), (u8)count);
	board_outb(&b, (u16)(0x40 + c), (u8)(count >> 8));
}

static u16 read16(unsigned c)
{
	u8 low = board_inb(&b, (u16)(0x40 + c));

	return (u16)(low | board_inb(&b, (u16)(0x40 + c)) << 8);
}

static u16 latched(unsigned c)
{
	board_outb(&b, 0x43, (u8)(c << 6));
	return read16(c);
}

static u8 status(unsigned c)
{
	board_outb(&b, 0x43, (u8)(0xe0 | 2u << c));
	return board_inb(&b, (u16)(0x40 + c));
}

static bool out(unsigned c)
{
	return status(c) & 0x80;
}

static void gate2(bool on)
{
	board_outb(&b, 0x61, on);
}

static void test_mode0(void **state)
{
	to_tick(100);
	board_outb(&b, 0x43, 0x30);
	assert_int_equal(status(0), 0x40 | 0x30); /* OUT low, null count */
	board_outb(&b, 0x40, 10);
	board_outb(&b, 0x40, 0);
	assert_int_equal(status(0) & 0x40, 0x40); /* loaded at the next tick */
	to_tick(101);
	assert_int_equal(status(0), 0x30);
	assert_int_equal(latched(0), 10);
	to_tick(105);
	assert_int_equal(latched(0), 6);
	assert_false(b.level[0]);
	to_tick(110);
	assert_int_equal(latched(0), 1);
	assert_false(out(0));
	to_tick(111);
	assert_int_equal(latched(0), 0);
	assert_true(out(0));
	assert_true(b.level[0]);
	assert_int_equal(b.rises[0], 1);
	to_tick(113);
	assert_int_equal(latched(0), 0xfffe); /* goes on below zero */
	/* A new count starts over; its first byte already stops the old one. */
	board_outb(&b, 0x40, 5);
	assert_false(out(0));
	assert_false(b.level[0]);
	to_tick(200);
	assert_false(out(0));
	assert_int_equal(latched(0), 0xfffe);
	board_outb(&b, 0x40, 0);
	to_tick(206);
	assert_true(out(0));
	to_tick(70000);
	assert_int_equal(b.rises[0], 2); /* once per count */
}

static void test_mode0_gate(void **state)
{
	gate2(true);
	to_tick(10);
	program(2, 0, 100);
	to_tick(31);
	assert_int_equal(latched(2), 80);
	gate2(false);
	to_tick(500);
	assert_int_equal(latched(2), 80);
	assert_false(board_inb(&b, 0x61) & 0x20);
	gate2(true);
	to_tick(579);
	assert_false(board_inb(&b, 0x61) & 0x20);
	to_tick(580);
	assert_true(board_inb(&b, 0x61) & 0x20);
	/* Loaded while the gate is low: waits. */
	gate2(false);
	program(2, 0, 7);
	to_tick(700);
	assert_int_equal(latched(2), 7);
	gate2(true);
	to_tick(707);
	assert_true(out(2));
}

static void test_mode1(void **state)
{
	program(2, 1, 5);
	to_tick(50);
	assert_true(out(2));
	assert_int_equal(status(2) & 0x40, 0x40); /* waits for a trigger */
	gate2(true);
	to_tick(51);
	assert_false(out(2));
	assert_int_equal(status(2) & 0x40, 0);
	gate2(false); /* no effect */
	to_tick(55);
	assert_false(out(2));
	to_tick(56);
	assert_true(out(2));
	/* Retriggered in the middle, the pulse grows. */
	gate2(true);
	to_tick(59);
	gate2(false);
	gate2(true);
	to_tick(64);
	assert_false(out(2));
	to_tick(65);
	assert_true(out(2));
	/* Channel 0 has no trigger. */
	program(0, 1, 5);
	to_tick(100000);
	assert_true(out(0));
}

static void test_mode2(void **state)
{
	to_tick(1000);
	program(0, 2, 1000);
	assert_true(out(0));
	to_tick(1001);
	assert_int_equal(latched(0), 1000);
	to_tick(1999);
	assert_int_equal(latched(0), 2);
	assert_true(out(0));
	to_tick(2000);
	assert_int_equal(latched(0), 1);
	assert_false(out(0));
	unsigned rises = b.rises[0];
	to_tick(2001);
	assert_int_equal(latched(0), 1000);
	assert_true(out(0));
	assert_int_equal(b.rises[0], rises + 1);
	/* A new count takes over at the end of the period. */
	to_tick(2500);
	board_outb(&b, 0x40, 0xb8);
	board_outb(&b, 0x40, 0x0b); /* 3000 */
	assert_int_equal(status(0) & 0x40, 0x40);
	assert_int_equal(latched(0), 501);
	to_tick(3000);
	assert_int_equal(latched(0), 1);
	to_tick(3001);
	assert_int_equal(latched(0), 3000);
	assert_int_equal(status(0) & 0x40, 0);
	assert_int_equal(b.rises[0], rises + 2);
	to_tick(6000);
	assert_int_equal(b.rises[0], rises + 2);
	to_tick(6001);
	assert_int_equal(b.rises[0], rises + 3);
}

static void test_mode2_gate(void **state)
{
	gate2(true);
	program(2, 2, 100);
	to_tick(61);
	assert_int_equal(latched(2), 40);
	gate2(false);
	assert_true(out(2));
	to_tick(300);
	assert_int_equal(latched(2), 40);
	gate2(true);
	to_tick(301);
	assert_int_equal(latched(2), 100);
	to_tick(400);
	assert_false(out(2));
}

static void test_mode3(void **state)
{
	gate2(true);
	program(2, 3, 6);
	static const u16 even[] = { 6, 4, 2, 6, 4, 2, 6 };
	static const bool even_out[] = { 1, 1, 1, 0, 0, 0, 1 };
	for (unsigned i = 0; i < ARRAY_SIZE(even); i++) {
		to_tick(1 + i);
		assert_int_equal(latched(2), even[i]);
		assert_int_equal(out(2), even_out[i]);
	}
	to_tick(100);
	program(2, 3, 5);
	static const u16 odd[] = { 4, 2, 0, 4, 2, 4, 2, 0, 4, 2 };
	static const bool odd_out[] = { 1, 1, 1, 0, 0, 1, 1, 1, 0, 0 };
	for (unsigned i = 0; i < ARRAY_SIZE(odd); i++) {
		to_tick(101 + i);
		assert_int_equal(latched(2), odd[i]);
		assert_int_equal(out(2), odd_out[i]);
	}
	/* A new count takes over at the end of a half. */
	to_tick(200);
	program(2, 3, 100);
	to_tick(211);
	board_outb(&b, 0x42, 20);
	board_outb(&b, 0x42, 0);
	to_tick(250);
	assert_true(out(2));
	to_tick(251);
	assert_false(out(2));
	assert_int_equal(latched(2), 20);
	to_tick(260);
	assert_false(out(2));
	to_tick(261);
	assert_true(out(2));
	to_tick(271);
	assert_false(out(2));
}

static void test_mode4(void **state)
{
	to_tick(10);
	program(0, 4, 20);
	assert_true(out(0));
	unsigned rises = b.rises[0];
	to_tick(30);
	assert_true(out(0));
	to_tick(31);
	assert_false(out(0));
	to_tick(32);
	assert_true(out(0));
	to_tick(300); /* the guard against short periods may hold the edge back, but not lose it */
	assert_int_equal(b.rises[0], rises + 1);
	to_tick(200000);
	assert_int_equal(b.rises[0], rises + 1);
}

static void test_mode5(void **state)
{
	program(2, 5, 20);
	to_tick(100);
	assert_true(out(2));
	gate2(true);
	to_tick(120);
	assert_true(out(2));
	to_tick(121);
	assert_false(out(2));
	to_tick(122);
	assert_true(out(2));
}

static void test_latches(void **state)
{
	gate2(true);
	program(2, 2, 1000);
	to_tick(101);
	board_outb(&b, 0x43, 0x80);
	to_tick(201);
	board_outb(&b, 0x43, 0x80); /* ignored: one is waiting */
	assert_int_equal(read16(2), 900);
	assert_int_equal(read16(2), 800);
	/* Read-back of status and count: the status comes first. */
	board_outb(&b, 0x43, 0xc8);
	to_tick(301);
	assert_int_equal(board_inb(&b, 0x42), 0x80 | 0x34);
	assert_int_equal(read16(2), 800);
	/* Of several channels. */
	program(1, 2, 500);
	to_tick(401);
	board_outb(&b, 0x43, 0xdc); /* counts of 1 and 2 */
	to_tick(410);
	assert_int_equal(read16(1), 401);
	assert_int_equal(read16(2), 600);
	assert_int_equal(read16(2), 591);
	/* Programming throws a latch away. */
	board_outb(&b, 0x43, 0x80);
	program(2, 2, 50);
	to_tick(412);
	assert_int_equal(read16(2), 49);
	assert_int_equal(board_inb(&b, 0x43), 0xff);
}

static void test_byte_modes(void **state)
{
	gate2(true);
	board_outb(&b, 0x43, 0x94); /* channel 2, LSB, mode 2 */
	board_outb(&b, 0x42, 100);
	to_tick(11);
	assert_int_equal(board_inb(&b, 0x42), 90);
	assert_int_equal(board_inb(&b, 0x42), 90);
	board_outb(&b, 0x43, 0xa4); /* MSB */
	board_outb(&b, 0x42, 2);
	to_tick(12);
	assert_int_equal(board_inb(&b, 0x42), 2);
	to_tick(13);
	assert_int_equal(board_inb(&b, 0x42), 1);
	board_outb(&b, 0x43, 0x80);
	assert_int_equal(board_inb(&b, 0x42), 1);
	/* 0 stands for 65536, read as 0. */
	program(2, 2, 0);
	to_tick(14);
	assert_int_equal(latched(2), 0);
	to_tick(15);
	assert_int_equal(latched(2), 0xffff);
}

static void test_bcd(void **state)
{
	gate2(true);
	board_outb(&b, 0x43, 0xb5); /* channel 2, both bytes, mode 2, BCD */
	board_outb(&b, 0x42, 0x00);
	board_outb(&b, 0x42, 0x12);
	to_tick(1);
	assert_int_equal(latched(2), 0x1200);
	to_tick(2);
	assert_int_equal(latched(2), 0x1199);
	assert_int_equal(status(2) & 0x3f, 0x35);
	board_outb(&b, 0x43, 0xb1); /* mode 0 wraps to 9999 */
	board_outb(&b, 0x42, 0x01);
	board_outb(&b, 0x42, 0x00);
	to_tick(5);
	assert_int_equal(latched(2), 0x9999);
	/* Digits above 9 are no reason to fail. */
	board_outb(&b, 0x43, 0xb5);
	board_outb(&b, 0x42, 0xff);
	board_outb(&b, 0x42, 0xff);
	to_tick(50000);
	latched(2);
}

/* 1000 Hz for an hour: not one edge more or less, and no drift. */
static void test_no_drift(void **state)
{
	program(0, 2, 1193);
	unsigned first = b.rises[0];
	u64 start = 1;

	to_tick(start + 1193ull * 3600000 - 1);
	assert_int_equal(b.rises[0] - first, 3599999);
	to_tick(start + 1193ull * 3600000);
	assert_int_equal(b.rises[0] - first, 3600000);
}

/* G40: the shortest periods cost at most one callback per 100 us. */
static void test_storm(void **state)
{
	static const u16 counts[] = { 1, 2, 3, 10, 100 };

	for (unsigned mode = 2; mode <= 3; mode++) {
		for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
			program(0, mode, counts[i]);
			b.fired = 0;
			unsigned rises = b.rises[0];
			board_advance(&b, 1000000000);
			assert_in_range(b.fired, 9000, 10001);
			assert_in_range(b.rises[0] - rises, 9000, 10001);
		}
	}
	/* One-shots programmed in a loop: each write is the guest's own work. */
	b.fired = 0;
	u64 start = b.now;
	for (unsigned i = 0; i < 10000; i++) {
		program(0, 0, 1);
		board_advance(&b, 5000);
	}
	assert_in_range(b.fired, 0, (b.now - start) / 100000 + 1);
}

/* Late by three periods: one edge, then the grid again. */
static void test_late_host(void **state)
{
	program(0, 2, 11932); /* 10 ms */
	to_tick(1);
	unsigned rises = b.rises[0];
	b.now += 35000000; /* nobody ran timers */
	board_advance(&b, 0);
	assert_int_equal(b.rises[0], rises + 1);
	to_tick(1 + 4 * 11932 - 1);
	assert_int_equal(b.rises[0], rises + 1);
	to_tick(1 + 4 * 11932);
	assert_int_equal(b.rises[0], rises + 2);
}

/* An edge that was due is delivered although the guest reprograms the channel first. */
static void test_due_edge_survives(void **state)
{
	program(0, 0, 1000);
	unsigned rises = b.rises[0];
	b.now += 2000000;
	program(0, 0, 1000);
	assert_int_equal(b.rises[0], rises + 1);
	assert_false(b.level[0]);
}

static void test_port61(void **state)
{
	assert_int_equal(board_inb(&b, 0x61) & 0x0f, 0);
	board_outb(&b, 0x61, 0xff);
	assert_int_equal(board_inb(&b, 0x61) & 0xcf, 0x0f);
	/* The refresh toggle: about 33 kHz. */
	unsigned toggles = 0;
	u8 last = board_inb(&b, 0x61) & 0x10;
	for (unsigned i = 0; i < 1000; i++) {
		board_advance(&b, 1000);
		u8 now = board_inb(&b, 0x61) & 0x10;
		toggles += now != last;
		last = now;
	}
	assert_in_range(toggles, 64, 68);
	/* Linux's calibration: mode 0 on channel 2 for 50 ms, speaker off. */
	board_outb(&b, 0x61, 1);
	program(2, 0, 59659);
	u64 start = b.now;
	while (!(board_inb(&b, 0x61) & 0x20))
		board_advance(&b, 500);
	assert_in_range(b.now - start, 49990000, 50010000);
}

static void test_idle_costs_nothing(void **state)
{
	board_advance(&b, 3600ull * 1000000000);
	assert_int_equal(b.fired, 0);
	assert_int_equal(b.rises[0], 0);
	program(0, 2, 100);
	pit->ops->reset(pit, RESET_WARM);
	b.fired = 0;
	board_advance(&b, 1000000000);
	assert_int_equal(b.fired, 0);
	assert_false(b.level[0]);
}

/* Saved in the middle of a period and loaded elsewhere, the edges stay on their grid. */
static void test_state(void **state)
{
	size_t len = state_size(pit->ops->state);
	u8 *saved = malloc(len);
	struct err err;
	u64 then;

	program(0, 2, 11932);
	to_tick(15000);
	state_save(pit->ops->state, pit, saved);
	then = b.now;
	board_fini(&b);

	board_init(&b, 0, 0);
	pit = board_add(&b, "pit", NULL);
	b.now = then;
	assert_int_equal(state_load(pit->ops->state, pit, saved, len, &err), 0);
	assert_int_equal(pit->ops->post_load(pit, &err), 0);
	free(saved);
	assert_int_equal(latched(0), 11932 - (15000 - 1 - 11932));
	unsigned rises = b.rises[0];
	to_tick(1 + 2 * 11932 - 1);
	assert_int_equal(b.rises[0], rises);
	to_tick(1 + 2 * 11932);
	assert_int_equal(b.rises[0], rises + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_mode0),
		T(test_mode0_gate),
		T(test_mode1),
		T(test_mode2),
		T(test_mode2_gate),
		T(test_mode3),
		T(test_mode4),
		T(test_mode5),
		T(test_latches),
		T(test_byte_modes),
		T(test_bcd),
		T(test_no_drift),
		T(test_storm),
		T(test_late_host),
		T(test_due_edge_survives),
		T(test_port61),
		T(test_idle_costs_nothing),
		T(test_state),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
