/* The HPET: counter, comparators, routes, hostile use. Interrupts are seen at the I/O APIC's vCPU 0. */
#include "fakevm.h"

#include "base/bits.h"
#include "dev/hpet.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"

#define T_LEVEL    BIT(1)
#define T_INT      BIT(2)
#define T_PERIODIC BIT(3)
#define T_SET      BIT(6)
#define T_32       BIT(8)
#define T_ROUTE(n) ((u64)(n) << 9)

static u64 rd(u64 reg)
{
	return mmio_rd(HPET_BASE + reg, 8);
}

static void wr(u64 reg, u64 val)
{
	mmio_wr(HPET_BASE + reg, 8, val);
}

static u64 timer(unsigned n)
{
	return 0x100 + 0x20 * n;
}

static void redirect(unsigned pin, u32 low)
{
	mmio_wr(IOAPIC_BASE, 4, 0x10 + 2 * pin);
	mmio_wr(IOAPIC_BASE + 0x10, 4, low);
}

/* Takes and ends one interrupt; -1: none. */
static int take(void)
{
	int v = irq_ack(cpu(0));

	if (v >= 0)
		mmio_wr(LAPIC_BASE + 0xb0, 4, 0);
	return v;
}

static int setup(void **state)
{
	fake_vm(1);
	fake_controllers();
	fake_add("hpet", NULL);
	mmio_wr(LAPIC_BASE + 0xf0, 4, 0x1ff);
	for (unsigned pin = 0; pin < 24; pin++)
		redirect(pin, 0x40 + pin);
	return 0;
}

static void test_registers(void **state)
{
	assert_int_equal(rd(0), 0x009896808086a201);
	assert_int_equal(mmio_rd(HPET_BASE + 4, 4), 10000000);
	wr(0, 0);
	assert_int_equal(rd(0), 0x009896808086a201);
	for (unsigned n = 0; n < 3; n++) {
		assert_int_equal(rd(timer(n)), 0x00f0000000000020 | (n == 0 ? 0x10 : 0));
		assert_int_equal(rd(timer(n) + 8), ~0ull);
		assert_int_equal(rd(timer(n) + 0x10), 0);
		wr(timer(n), ~0ull & ~T_ROUTE(31)); /* only what exists sticks; route 0 does not */
		assert_int_equal(rd(timer(n)), 0x00f0000000000126 | (n == 0 ? 0x18 : 0));
		wr(timer(n), T_ROUTE(22));
		assert_int_equal(rd(timer(n)) & 0x3e00, T_ROUTE(22));
		wr(timer(n), T_ROUTE(5));
		assert_int_equal(rd(timer(n)) & 0x3e00, T_ROUTE(22));
	}
	assert_int_equal(rd(timer(3)), 0);
	assert_int_equal(rd(0x3f8), 0);
	wr(0x10, ~0ull);
	assert_int_equal(rd(0x10), 3);
}

static void test_counter(void **state)
{
	fake_advance(5000);
	assert_int_equal(rd(0xf0), 0);
	wr(0x10, 1);
	fake_advance(1000);
	assert_int_equal(rd(0xf0), 100);
	wr(0x10, 0);
	fake_advance(1000);
	assert_int_equal(rd(0xf0), 100);
	wr(0xf0, 0xfffffff0);
	wr(0x10, 1);
	fake_advance(200);
	assert_int_equal(rd(0xf0), 0x100000004);
	assert_int_equal(mmio_rd(HPET_BASE + 0xf0, 4), 4);
	assert_int_equal(mmio_rd(HPET_BASE + 0xf4, 4), 1);
	assert_int_equal(mmio_rd(HPET_BASE + 0xf1, 1), 0);
	mmio_wr(HPET_BASE + 0xf4, 4, 7); /* halves */
	assert_int_equal(rd(0xf0), 0x700000004);
	mmio_wr(HPET_BASE + 0xf0, 1, 0x55); /* bytes are not written */
	assert_int_equal(rd(0xf0), 0x700000004);
}

static void test_one_shot_edge(void **state)
{
	wr(0x10, 1);
	wr(timer(1), T_INT | T_ROUTE(21));
	wr(timer(1) + 8, rd(0xf0) + 1000);
	fake_advance(9990);
	assert_int_equal(take(), -1);
	fake_advance(10);
	assert_int_equal(take(), 0x40 + 21);
	assert_int_equal(rd(0x20), 0); /* edges leave no status */
	fake_advance(1000000000);
	assert_int_equal(take(), -1);
	/* In the past: after the counter has been round, which takes 64 bits five thousand years. */
	wr(timer(1) + 8, rd(0xf0) - 1);
	fake_advance(1000000000);
	assert_int_equal(take(), -1);
	/* 32 bits come round in 42.9 s, again and again. */
	wr(timer(1), T_INT | T_32 | T_ROUTE(21));
	wr(timer(1) + 8, (u32)(rd(0xf0) - 1));
	fake_advance(42949672950);
	assert_int_equal(take(), 0x40 + 21);
	fake_advance(42949672950);
	assert_int_equal(take(), -1);
	fake_advance(20);
	assert_int_equal(take(), 0x40 + 21);
	/* This very tick */
	wr(timer(1) + 8, (u32)rd(0xf0));
	assert_int_equal(take(), 0x40 + 21);
}

static void test_level(void **state)
{
	redirect(20, BIT(15) | 0x50);
	wr(0x10, 1);
	wr(timer(2), T_LEVEL | T_INT | T_ROUTE(20));
	wr(timer(1), T_LEVEL | T_ROUTE(20)); /* not enabled: status only */
	wr(timer(2) + 8, rd(0xf0) + 100);
	wr(timer(1) + 8, rd(0xf0) + 100);
	fake_advance(1000);
	assert_int_equal(rd(0x20), 6);
	assert_int_equal(take(), 0x50);
	assert_int_equal(take(), 0x50); /* until it is cleared */
	wr(0x20, 2);
	assert_int_equal(take(), 0x50);
	wr(timer(1), T_LEVEL | T_INT | T_ROUTE(20));
	wr(0x20, 4);
	assert_int_equal(rd(0x20), 0);
	assert_int_equal(take(), 0x50); /* the one that was in the local APIC already */
	assert_int_equal(take(), -1);
}

static void test_periodic(void **state)
{
	/* As an operating system sets it up: comparator, then period. */
	wr(0x10, 1);
	wr(timer(0), T_INT | T_PERIODIC | T_SET | T_ROUTE(23));
	assert_false(rd(timer(0)) & T_SET);
	u64 first = rd(0xf0) + 50000;
	wr(timer(0) + 8, first);
	wr(timer(0) + 8, 100000); /* 1 ms */
	assert_int_equal(rd(timer(0) + 8), first);
	fake_advance(500000);
	assert_int_equal(take(), 0x40 + 23);
	assert_int_equal(rd(timer(0) + 8), first + 100000);
	for (unsigned i = 0; i < 10; i++) {
		fake_advance(999990);
		assert_int_equal(take(), -1);
		fake_advance(10);
		assert_int_equal(take(), 0x40 + 23);
	}
	wr(0x10, 0);
	fake_advance(5000000);
	assert_int_equal(take(), -1);
	wr(0x10, 1);
	fake_advance(1000000);
	assert_int_equal(take(), 0x40 + 23);
	wr(timer(1), T_PERIODIC | T_SET); /* cannot */
	assert_false(rd(timer(1)) & T_PERIODIC);
}

/* Nobody is woken for matches that interrupt nobody; who looks finds what they have left. */
static void test_no_interrupt(void **state)
{
	wr(0x10, 1);
	wr(timer(0), T_INT | T_PERIODIC | T_SET | T_ROUTE(23));
	u64 first = rd(0xf0) + 100000;
	wr(timer(0) + 8, first);
	wr(timer(0) + 8, 100000); /* 1 ms */
	assert_int_not_equal(board_next_timer(), ~0ull);
	wr(timer(0), T_PERIODIC | T_ROUTE(23));
	wr(timer(2), T_LEVEL | T_ROUTE(20));
	wr(timer(2) + 8, rd(0xf0) + 100);
	assert_int_equal(board_next_timer(), ~0ull);
	fake_advance(10500000);
	assert_int_equal(rd(timer(0) + 8), first + 1000000);
	assert_int_equal(rd(0x20), 4);
	assert_int_equal(take(), -1);
	/* Only what comes from now on. */
	wr(timer(0), T_INT | T_PERIODIC | T_ROUTE(23));
	assert_int_equal(take(), -1);
	fake_advance(500000);
	assert_int_equal(take(), 0x40 + 23);
	assert_int_equal(take(), -1);
}

static void test_legacy_route(void **state)
{
	wr(timer(0), T_INT | T_PERIODIC | T_SET);
	wr(timer(0) + 8, 100000);
	wr(timer(1), T_INT);
	wr(timer(1) + 8, 150000);
	wr(0x10, 3);
	irq_pulse(&fake.b.vm, 0); /* the PIT is cut off */
	irq_pulse(&fake.b.vm, 8);
	assert_int_equal(take(), -1);
	fake_advance(1000000);
	assert_int_equal(take(), 0x42);
	fake_advance(500000);
	assert_int_equal(take(), 0x48);
	/* A level in the legacy route, and the way back */
	wr(timer(1), T_INT | T_LEVEL);
	wr(timer(1) + 8, rd(0xf0));
	assert_int_equal(take(), 0x48);
	assert_int_equal(rd(0x20), 2);
	wr(0x10, 1);
	irq_pulse(&fake.b.vm, 8);
	assert_int_equal(take(), 0x48);
	wr(0x10, 3);
	assert_int_equal(take(), 0x48); /* its line again, still high */
	device_reset_all(&fake.b.vm, RESET_COLD);
	assert_false(fake.intc.legacy);
}

static void test_G40_storm(void **state)
{
	u64 before;

	wr(0x10, 1);
	for (unsigned period = 0; period < 4; period++) {
		wr(timer(0), T_INT | T_PERIODIC | T_SET | T_ROUTE(23) | (period & 1 ? T_32 : 0));
		wr(timer(0) + 8, rd(0xf0) + 1);
		wr(timer(0) + 8, period);
		before = fake.b.fired;
		fake_advance(100000000);
		assert_true(fake.b.fired - before <= 1002); /* 100 ms, at most one in 100 us */
		if (period)
			assert_true(fake.b.fired - before >= 990);
	}
	/* The comparator stays ahead of the counter and on its grid. */
	assert_in_range(rd(timer(0) + 8), rd(0xf0) & 0xffffffff, (rd(0xf0) & 0xffffffff) + 10003);
	/* Periods for which the arithmetic could run over */
	static const u64 periods[] = {
		~0ull, 1ull << 63, 1ull << 59, (1ull << 59) - 1, 0xffffffff, 1ull << 32
	};
	for (unsigned i = 0; i < ARRAY_SIZE(periods); i++) {
		wr(timer(0), T_INT | T_PERIODIC | T_SET | T_ROUTE(23));
		wr(timer(0) + 8, rd(0xf0) + 1);
		wr(timer(0) + 8, periods[i]);
		before = fake.b.fired;
		fake_advance(1000000);
		assert_true(fake.b.fired - before <= 1);
	}
}

static void test_G42_storm(void **state)
{
	for (unsigned i = 0; i < 50; i++) {
		u64 before = fake.b.fired, t = fake.b.now;
		fake_storm(BUS_MMIO, HPET_BASE, 0x170, 400);
		/* One firing for each access at most, besides the periodic ones. */
		assert_true(fake.b.fired - before <= 400 * 3 + (fake.b.now - t) / 100000);
	}
	device_reset_all(&fake.b.vm, RESET_COLD);
	test_registers(NULL);
}

static void test_state(void **state)
{
	wr(timer(0), T_INT | T_PERIODIC | T_SET | T_ROUTE(23));
	wr(timer(0) + 8, 100000);
	wr(timer(2), T_INT | T_LEVEL | T_ROUTE(20));
	wr(timer(2) + 8, 10);
	wr(0x10, 1);
	fake_advance(500000);
	fake_state(device_find(&fake.b.vm, "hpet"));
	take();
	fake_advance(500000);
	assert_int_equal(rd(0x20), 4);
	assert_int_equal(rd(0xf0), 0xffffffff & rd(0xf0));
	assert_true(take() >= 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, fake_done)
		T(test_registers), T(test_counter),      T(test_one_shot_edge), T(test_level),
		T(test_periodic),  T(test_legacy_route), T(test_no_interrupt),  T(test_G40_storm),
		T(test_G42_storm), T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
