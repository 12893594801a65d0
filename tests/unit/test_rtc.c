/* The MC146818: time of day in all formats, setting it, update cycle, the three interrupts, CMOS RAM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/rtc.h"
#include "fakeboard.h"

#define S  1000000000ull
#define MS 1000000ull

static struct board b;
static struct device *rtc;

/* The board's time begins at 2023-11-14 22:13:20 UTC, a Tuesday. */
static int setup(void **state)
{
	const struct device_conf conf = { .gsi = 8 };

	board_init(&b, 0, 0);
	rtc = board_add(&b, "rtc", &conf);
	return 0;
}

static int teardown(void **state)
{
	board_fini(&b);
	return 0;
}

static u8 get(u8 index)
{
	board_outb(&b, 0x70, index);
	return board_inb(&b, 0x71);
}

static void set(u8 index, u8 val)
{
	board_outb(&b, 0x70, index);
	board_outb(&b, 0x71, val);
}

/* century, year, month, day, weekday, hour, minute, second */
static void check_time(const u8 want[8])
{
	static const u8 index[8] = { 0x32, 9, 8, 7, 6, 4, 2, 0 };

	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(get(index[i]), want[i]);
}

static void test_reads_host_time(void **state)
{
	check_time((const u8[8]){ 0x20, 0x23, 0x11, 0x14, 3, 0x22, 0x13, 0x20 });
	board_advance(&b, 40 * S);
	check_time((const u8[8]){ 0x20, 0x23, 0x11, 0x14, 3, 0x22, 0x14, 0x00 });
	board_advance(&b, 2 * 3600 * S);
	check_time((const u8[8]){ 0x20, 0x23, 0x11, 0x15, 4, 0x00, 0x14, 0x00 });
	assert_int_equal(get(0x0d), 0x80);
	assert_int_equal(board_inb(&b, 0x70), 0xff);
	assert_int_equal(b.fired, 0); /* a clock that nobody listens to costs nothing */
}

static void test_formats(void **state)
{
	set(0x0b, 0x06); /* binary, 24 h */
	check_time((const u8[8]){ 20, 23, 11, 14, 3, 22, 13, 20 });
	set(0x0b, 0x04); /* binary, 12 h */
	check_time((const u8[8]){ 20, 23, 11, 14, 3, 0x80 | 10, 13, 20 });
	set(0x0b, 0x00); /* BCD, 12 h */
	check_time((const u8[8]){ 0x20, 0x23, 0x11, 0x14, 3, 0x90, 0x13, 0x20 });
	board_advance(&b, 2 * 3600 * S);
	assert_int_equal(get(4), 0x12); /* 12 AM */
	board_advance(&b, 12 * 3600 * S);
	assert_int_equal(get(4), 0x92); /* 12 PM */
}

static void test_set(void **state)
{
	board_advance(&b, 300 * MS);
	set(0x0b, 0x82);
	set(0x32, 0x19);
	set(9, 0x99);
	set(8, 0x12);
	set(7, 0x31);
	set(6, 6);
	set(4, 0x23);
	set(2, 0x59);
	set(0, 0x58);
	board_advance(&b, 10 * S); /* stands still */
	check_time((const u8[8]){ 0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x58 });
	assert_int_equal(get(0x0a) & 0x80, 0);
	set(0x0b, 0x02);
	check_time((const u8[8]){ 0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x58 });
	board_advance(&b, 699 * MS); /* the phase of the second is what it was */
	assert_int_equal(get(0), 0x58);
	board_advance(&b, 2 * MS);
	assert_int_equal(get(0), 0x59);
	board_advance(&b, 1 * S);
	check_time((const u8[8]){ 0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00 });
	/* A reset keeps the time. */
	rtc->ops->reset(rtc, RESET_COLD);
	check_time((const u8[8]){ 0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00 });
}

static void test_set_running(void **state)
{
	set(4, 0x05);
	set(6, 1); /* somebody's week begins elsewhere */
	check_time((const u8[8]){ 0x20, 0x23, 0x11, 0x14, 1, 0x05, 0x13, 0x20 });
	board_advance(&b, 24 * 3600 * S);
	check_time((const u8[8]){ 0x20, 0x23, 0x11, 0x15, 2, 0x05, 0x13, 0x20 });
	/* The ends of what a clock can show. */
	set(0x0b, 0x86);
	static const u8 index[] = { 0x32, 9, 8, 7, 6, 4, 2, 0 };
	for (unsigned i = 0; i < ARRAY_SIZE(index); i++)
		set(index[i], 0xff);
	set(0x0b, 0x06);
	check_time((const u8[8]){ 99, 99, 12, 31, 7, 23, 59, 59 });
	board_advance(&b, S);
	get(0);
	set(0x0b, 0x86);
	for (unsigned i = 0; i < ARRAY_SIZE(index); i++)
		set(index[i], 0);
	set(0x0b, 0x06);
	check_time((const u8[8]){ 0, 0, 1, 1, 1, 0, 0, 0 });
	/* 29 February of a leap year. */
	set(0x0b, 0x86);
	set(0x32, 20);
	set(9, 24);
	set(8, 2);
	set(7, 29);
	set(0x0b, 0x06);
	assert_int_equal(get(7), 29);
	board_advance(&b, 24 * 3600 * S);
	assert_int_equal(get(7), 1);
	assert_int_equal(get(8), 3);
}

static void test_offset(void **state)
{
	rtc_set_offset(rtc, -3600 * (s64)S);
	assert_int_equal(get(4), 0x21);
	rtc_set_offset(rtc, 500 * (s64)MS);
	board_advance(&b, 499 * MS);
	assert_int_equal(get(0), 0x20);
	board_advance(&b, 1 * MS);
	assert_int_equal(get(0), 0x21);
}

static void test_uip(void **state)
{
	unsigned uip = 0;

	for (unsigned i = 0; i < 20000; i++) {
		board_advance(&b, 100000);
		uip += get(0x0a) >> 7;
	}
	assert_in_range(uip, 43, 46); /* 2.228 ms in each of two seconds */
	/* The time changes at its end, never within it. */
	board_advance(&b, S - b.now % S - MS);
	u8 before = get(0);
	assert_int_equal(get(0x0a) & 0x80, 0x80);
	board_advance(&b, MS);
	assert_int_equal(get(0x0a) & 0x80, 0);
	assert_int_not_equal(get(0), before);
}

static void test_update_interrupt(void **state)
{
	set(0x0a, 0x20); /* no periodic flag */
	board_advance(&b, 100 * MS);
	assert_int_equal(get(0x0c), 0x00);
	set(0x0b, 0x12);
	board_advance(&b, 899 * MS);
	assert_false(b.level[8]);
	board_advance(&b, 1 * MS);
	assert_true(b.level[8]);
	board_advance(&b, 10 * S); /* held until register C is read; and no timer meanwhile */
	assert_int_equal(b.rises[8], 1);
	assert_int_equal(b.fired, 1);
	assert_int_equal(get(0x0c), 0x90);
	assert_false(b.level[8]);
	assert_int_equal(get(0x0c), 0);
	board_advance(&b, S);
	assert_true(b.level[8]);
	/* SET ends it. */
	set(0x0b, 0x92);
	assert_int_equal(get(0x0b), 0x82);
	assert_false(b.level[8]);
	get(0x0c);
	board_advance(&b, 5 * S);
	assert_int_equal(get(0x0c), 0);
	/* The flag without the interrupt. */
	set(0x0b, 0x02);
	board_advance(&b, S);
	assert_int_equal(get(0x0c), 0x10);
	assert_false(b.level[8]);
}

static void test_alarm(void **state)
{
	set(0x0a, 0x20);
	set(5, 0x22);
	set(3, 0x14);
	set(1, 0x05);
	set(0x0b, 0x22);
	board_advance(&b, 44 * S);
	assert_false(b.level[8]);
	board_advance(&b, 1 * S);
	assert_true(b.level[8]);
	assert_int_equal(get(0x0c), 0xb0); /* IRQF, AF, and UF */
	board_advance(&b, 24 * 3600 * S - S);
	assert_false(b.level[8]);
	board_advance(&b, S);
	assert_true(b.level[8]);
	get(0x0c);
	assert_int_equal(b.fired, 2);
	/* Every minute, at second 30; then every second. */
	set(5, 0xc0);
	set(3, 0xff);
	set(1, 0x30);
	unsigned rises = b.rises[8];
	for (unsigned i = 0; i < 600; i++) {
		board_advance(&b, S);
		get(0x0c);
	}
	assert_int_equal(b.rises[8] - rises, 10);
	set(1, 0xc0);
	rises = b.rises[8];
	for (unsigned i = 0; i < 10; i++) {
		board_advance(&b, S);
		get(0x0c);
	}
	assert_int_equal(b.rises[8] - rises, 10);
	/* No such time: never, and no search without end. */
	set(5, 0x99);
	get(0x0c);
	board_advance(&b, 48 * 3600 * S);
	assert_int_equal(get(0x0c) & 0x20, 0);
	/* The flag is found although nobody was looking, in 12 h mode too. */
	set(0x0b, 0x00);
	set(5, 0x83); /* 3 PM */
	set(3, 0x00);
	set(1, 0x00);
	get(0x0c);
	board_advance(&b, 25 * 3600 * S);
	assert_int_equal(get(0x0c) & 0x20, 0x20);
}

static void test_periodic(void **state)
{
	/* Rate 6: 1024 Hz. Read C each time. */
	set(0x0b, 0x42);
	for (unsigned i = 0; i < 20480; i++) {
		board_advance(&b, S / 20480);
		if (b.level[8])
			assert_int_equal(get(0x0c) & 0xc0, 0xc0);
	}
	assert_in_range(b.rises[8], 1023, 1025);
	/* All rates. */
	for (unsigned rate = 1; rate < 16; rate++) {
		unsigned hz = rate == 1 ? 256 : rate == 2 ? 128 : 32768u >> (rate - 1);

		set(0x0a, (u8)(0x20 | rate));
		get(0x0c);
		unsigned rises = b.rises[8];
		u64 end = b.now + 2 * S;
		while (b.now < end) {
			board_advance(&b, 61035);
			get(0x0c);
		}
		assert_in_range(b.rises[8] - rises, 2 * hz - 2, 2 * hz + 2);
	}
	/* G40: at the fastest rate, the host works only as often as the guest answers. */
	set(0x0a, 0x23);
	get(0x0c);
	b.fired = 0;
	board_advance(&b, 10 * S);
	assert_in_range(b.fired, 0, 2);
	/* Rate 0: none. Disabled: the flag only. */
	set(0x0a, 0x20);
	get(0x0c);
	board_advance(&b, S);
	assert_int_equal(get(0x0c) & 0x40, 0);
	set(0x0b, 0x02);
	set(0x0a, 0x26);
	board_advance(&b, S);
	assert_int_equal(get(0x0c) & 0xc0, 0x40);
}

static void test_divider_reset(void **state)
{
	board_advance(&b, 200 * MS);
	set(0x0a, 0x76);
	board_advance(&b, 5 * S);
	assert_int_equal(get(0), 0x20);
	set(0x0a, 0x26);
	board_advance(&b, 499 * MS);
	assert_int_equal(get(0), 0x20);
	board_advance(&b, 2 * MS);
	assert_int_equal(get(0), 0x21); /* half a second after its release */
}

static void test_host_clock_set_back(void **state)
{
	set(0x0b, 0x12);
	b.realtime -= 3600 * S;
	board_advance(&b, 3 * S);
	get(0x0c);
	unsigned rises = b.rises[8];
	board_advance(&b, S);
	assert_int_equal(b.rises[8], rises + 1);
	assert_int_equal(get(4), 0x21);
}

static void test_cmos(void **state)
{
	for (unsigned i = 0x0e; i < 0x80; i++)
		if (i != 0x32)
			set((u8)i, (u8)(i * 7));
	rtc->ops->reset(rtc, RESET_WARM);
	for (unsigned i = 0x0e; i < 0x80; i++)
		if (i != 0x32)
			assert_int_equal(get((u8)i), (u8)(i * 7));
	board_outb(&b, 0x70, 0x80 | 0x40); /* with the NMI mask */
	assert_int_equal(board_inb(&b, 0x71), (u8)(0x40 * 7));
	/* A word to port 70H sets the index and the byte. */
	bus_write(&b.vm.bus, BUS_PIO, 0x70, 2, 0x5a40);
	assert_int_equal(get(0x40), 0x5a);

	rtc_set_memory(rtc, 3 * GiB, 5 * GiB);
	assert_int_equal(get(0x15) | get(0x16) << 8, 640);
	assert_int_equal(get(0x17) | get(0x18) << 8, 0xffff);
	assert_int_equal(get(0x30) | get(0x31) << 8, 0xffff);
	assert_int_equal(get(0x34) | get(0x35) << 8, (3072 - 16) * 16);
	assert_int_equal(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 5 * 1024 * 16);
	rtc_set_memory(rtc, 8 * MiB, 0);
	assert_int_equal(get(0x17) | get(0x18) << 8, 7 * 1024);
	assert_int_equal(get(0x34) | get(0x35) << 8, 0);
	rtc_set_byte(rtc, 0x38, 0x12);
	assert_int_equal(get(0x38), 0x12);
	rtc_set_byte(rtc, 0x0a, 0xff); /* not a RAM byte */
	assert_int_equal(get(0x0a) & 0x7f, 0x26);
}

static void count_alarm(void *opaque)
{
	++*(unsigned *)opaque;
}

/* Told once for each alarm that raises an interrupt; a sleep leaves it armed. */
static void test_alarm_wakes(void **state)
{
	unsigned alarms = 0;

	rtc_set_alarm(rtc, count_alarm, &alarms);
	for (u8 reg = 1; reg <= 5; reg += 2)
		set(reg, 0xc0); /* each second */
	board_advance(&b, 3 * S);
	assert_int_equal(alarms, 0);
	get(0x0c);
	set(0x0b, 0x22);
	rtc->ops->reset(rtc, RESET_SLEEP);
	assert_int_equal(get(0x0b), 0x22);
	board_advance(&b, 3 * S);
	assert_int_equal(alarms, 1); /* the flag has not been read */
	rtc->ops->reset(rtc, RESET_SLEEP);
	assert_int_equal(alarms, 1);
	assert_int_equal(get(0x0c) & 0xa0, 0xa0);
	board_advance(&b, S);
	assert_int_equal(alarms, 2);
	rtc->ops->reset(rtc, RESET_WARM);
	board_advance(&b, 3 * S);
	assert_int_equal(alarms, 2);
	rtc_set_alarm(rtc, NULL, NULL);
}

static void test_reset(void **state)
{
	set(0x0b, 0x76);
	board_advance(&b, S);
	assert_true(b.level[8]);
	rtc->ops->reset(rtc, RESET_WARM);
	assert_false(b.level[8]);
	assert_int_equal(get(0x0b), 0x06); /* the data mode stays */
	assert_int_equal(get(0x0c), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_reads_host_time),
		T(test_formats),
		T(test_set),
		T(test_set_running),
		T(test_offset),
		T(test_uip),
		T(test_update_interrupt),
		T(test_alarm),
		T(test_periodic),
		T(test_divider_reset),
		T(test_host_clock_set_back),
		T(test_cmos),
		T(test_alarm_wakes),
		T(test_reset),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
