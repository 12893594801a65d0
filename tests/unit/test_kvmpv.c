/* KVM's paravirtual interface (dev/kvmpv.c): the record of stolen time, and the hypercalls. */
#include "fakevm.h"

#include "base/bits.h"
#include "dev/lapic.h"
#include "vm/pv.h"

#define RECORD 0x2000ull
#define STATE  16 /* offset of "preempted" */

static const struct pv_ops *pv;

static int setup(void **state)
{
	fake_vm(3);
	fake_controllers();
	fake_add("kvmpv", NULL);
	fake.b.vm.tsc_khz = 1000000;
	pv = fake.b.vm.pv;
	assert_non_null(pv);
	return 0;
}

static u8 *record(void)
{
	return ram_ptr(&fake.b.vm.ram, RECORD, 64);
}

static s64 call(u64 nr, u64 a, u64 b, u64 c, u64 d)
{
	const u64 arg[4] = { a, b, c, d };

	return pv->call(fake.b.vm.pv_opaque, cpu(0), nr, arg, true);
}

static void off(void)
{
	pv->off(fake.b.vm.pv_opaque, cpu(0));
}

static void on(void)
{
	pv->on(fake.b.vm.pv_opaque, cpu(0));
}

static u32 posted(unsigned id, u32 bits)
{
	return atomic_fetch_and(&cpu(id)->requests, ~bits) & bits;
}

static void test_msr(void **state)
{
	u64 v;

	assert_true(msr_rd(0, MSR_KVM_STEAL_TIME, &v));
	assert_int_equal(v, 0);
	assert_true(msr_wr(0, MSR_KVM_STEAL_TIME, RECORD | 1));
	assert_true(msr_rd(0, MSR_KVM_STEAL_TIME, &v));
	assert_int_equal(v, RECORD | 1);
	assert_true(msr_rd(1, MSR_KVM_STEAL_TIME, &v));
	assert_int_equal(v, 0);
	/* Reserved bits, and addresses that are not RAM [G60]. */
	for (unsigned bit = 1; bit < 6; bit++)
		assert_false(msr_wr(0, MSR_KVM_STEAL_TIME, RECORD | 1 | BIT(bit)));
	assert_false(msr_wr(0, MSR_KVM_STEAL_TIME, fake.b.vm.ram.end | 1));
	assert_false(msr_wr(0, MSR_KVM_STEAL_TIME, LAPIC_BASE | 1));
	assert_false(msr_wr(0, MSR_KVM_STEAL_TIME, ~63ull | 1));
	assert_true(msr_rd(0, MSR_KVM_STEAL_TIME, &v));
	assert_int_equal(v, RECORD | 1);
	/* Without the enable bit the address is of no interest. */
	assert_true(msr_wr(0, MSR_KVM_STEAL_TIME, ~63ull));
}

static void test_record(void **state)
{
	memset(record(), 0, 64);
	assert_true(msr_wr(0, MSR_KVM_STEAL_TIME, RECORD | 1));
	assert_int_equal(ld32(record() + 8), 2);
	off();
	assert_int_equal(record()[STATE], 1);
	on();
	assert_int_equal(record()[STATE], 0);
	assert_int_equal(posted(0, ~0u), 0);
	/* Somebody wants its TLB flushed while it is off. */
	off();
	record()[STATE] |= 2;
	on();
	assert_int_equal(record()[STATE], 0);
	assert_int_equal(posted(0, ~0u), VCPU_REQ_FLUSH);
	assert_int_equal(ld32(record() + 8) & 1, 0);
	/* Switched off: left alone. */
	assert_true(msr_wr(0, MSR_KVM_STEAL_TIME, 0));
	memset(record(), 0x55, 64);
	off();
	on();
	pv->tick(fake.b.vm.pv_opaque, cpu(0));
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(record()[i], 0x55);
}

static void test_reset(void **state)
{
	u64 v;

	assert_true(msr_wr(0, MSR_KVM_STEAL_TIME, RECORD | 1));
	device_reset_all(&fake.b.vm, RESET_WARM);
	assert_true(msr_rd(0, MSR_KVM_STEAL_TIME, &v));
	assert_int_equal(v, 0);
	memset(record(), 0x55, 64);
	off();
	assert_int_equal(record()[STATE], 0x55);
}

static void test_kick(void **state)
{
	assert_int_equal(call(5, 0, 2, 0, 0), 0);
	assert_int_equal(posted(2, ~0u), VCPU_REQ_KICK);
	assert_int_equal(posted(1, ~0u), 0);
	assert_true(call(5, 0, 3, 0, 0) < 0);
	assert_true(call(5, 0, ~0ull, 0, 0) < 0);
}

static bool irr(unsigned id, u8 vector)
{
	u64 v;

	fake.b.self = cpu(id);
	v = bus_read(&fake.b.vm.bus, BUS_MMIO, LAPIC_BASE + 0x200 + vector / 32 * 16, 4);
	return v >> vector % 32 & 1;
}

static void enable_apics(void)
{
	for (unsigned i = 0; i < 3; i++) {
		fake.b.self = cpu(i);
		bus_write(&fake.b.vm.bus, BUS_MMIO, LAPIC_BASE + 0xf0, 4, 0x1ff);
	}
}

static void test_ipi(void **state)
{
	enable_apics();
	assert_int_equal(call(10, 6, 0, 0, 0x41), 2);
	assert_true(!irr(0, 0x41) && irr(1, 0x41) && irr(2, 0x41));
	/* The bitmap may begin anywhere, and name those that do not exist. */
	assert_int_equal(call(10, ~0ull, ~0ull, 1, 0x42), 2);
	assert_true(!irr(0, 0x42) && irr(1, 0x42) && irr(2, 0x42));
	assert_int_equal(call(10, ~0ull, ~0ull, 3, 0x43), 0);
	assert_int_equal(call(10, ~0ull, ~0ull, ~0ull, 0x43), 0);
	/* The second word's first bit is the 64th. */
	assert_int_equal(call(10, 0, 1, 0, 0x44), 0);
	const u64 narrow[4] = { 0, 0, 0, 0x45 };
	assert_int_equal(pv->call(fake.b.vm.pv_opaque, cpu(0), 10, narrow, false), 0);
	posted(1, ~0u);
	assert_int_equal(call(10, 2, 0, 0, 0x400), 1); /* NMI */
	assert_int_equal(posted(1, ~0u), VCPU_REQ_NMI);
	/* Shorthands, logical destinations, what is reserved */
	for (unsigned bit = 0; bit < 64; bit++)
		if (bit >= 11 && bit != 14)
			assert_true(call(10, 2, 0, 0, 0x41 | BIT(bit)) < 0);
	assert_int_equal(call(10, 2, 0, 0, 0x05), 0); /* no such vector */
}

static void test_state(void **state)
{
	assert_true(msr_wr(0, MSR_KVM_STEAL_TIME, RECORD | 1));
	fake_state(device_find(&fake.b.vm, "kvmpv"));
}

static void test_others(void **state)
{
	assert_int_equal(call(11, 1, 0, 0, 0), 0);
	assert_true(call(11, 3, 0, 0, 0) < 0);
	for (u64 nr = 0; nr < 64; nr++)
		if (nr != 5 && nr != 10 && nr != 11)
			assert_int_equal(call(nr, 0, 0, 0, 0), -1000);
	assert_int_equal(call(~0ull, 0, 0, 0, 0), -1000);
}

/* An engine that keeps the record by itself, and goes. */
static void test_record_elsewhere(void **state)
{
	assert_true(msr_wr(0, MSR_KVM_STEAL_TIME, RECORD | 1));
	assert_int_equal(pv->get_record(fake.b.vm.pv_opaque, cpu(0)), RECORD | 1);
	assert_int_equal(pv->get_record(fake.b.vm.pv_opaque, cpu(1)), 0);
	st64(record(), 123456789);
	st32(record() + 8, 777);
	record()[STATE] = 3; /* off, and somebody has left a flush */
	posted(0, ~0u);
	pv->set_record(fake.b.vm.pv_opaque, cpu(0), RECORD | 1);
	assert_int_equal(record()[STATE], 0);
	assert_int_equal(posted(0, VCPU_REQ_FLUSH), VCPU_REQ_FLUSH);
	assert_true(ld64(record()) >= 123456789);
	assert_true(ld32(record() + 8) >= 776 && !(ld32(record() + 8) & 1));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, fake_done)
	const struct CMUnitTest tests[] = {
		T(test_msr), T(test_record), T(test_reset),  T(test_kick),
		T(test_ipi), T(test_state),  T(test_others), T(test_record_elsewhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
