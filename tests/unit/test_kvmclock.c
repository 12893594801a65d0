/* The KVM clock: what a guest computes from the structures must be guest time. */
#include "fakevm.h"

#include "base/bits.h"
#include "base/os.h"
#include "dev/kvmclock.h"

static struct device *clk;

static int setup(void **state)
{
	fake_vm(2);
	clk = fake_add("kvmclock", NULL);
	return 0;
}

static void ram_get(u64 gpa, void *buf, size_t len)
{
	memcpy(buf, ram_ptr(&fake.b.vm.ram, gpa, len), len);
}

/* What a guest does to read the clock, at guest TSC tsc. */
static u64 guest_ns(u64 gpa, u64 tsc)
{
	u8 b[32];

	ram_get(gpa, b, sizeof(b));
	assert_int_equal(ld32(b) & 1, 0);
	s8 shift = (s8)b[28];
	u64 delta = tsc - ld64(b + 8);
	delta = shift < 0 ? delta >> -shift : delta << shift;
	return ld64(b + 16) + (u64)((unsigned __int128)delta * ld32(b + 24) >> 32);
}

static void test_system_time(void **state)
{
	static const u64 khz[] = { 1000,    500000,  1000000, 1000001, 1999999,
				   2000000, 2000001, 2893123, 6000000, 100000000 };
	u64 v;
	u8 b[32];

	for (unsigned i = 0; i < ARRAY_SIZE(khz); i++) {
		device_reset_all(&fake.b.vm, RESET_COLD);
		fake.b.vm.tsc_khz = khz[i];
		cpu(0)->tsc_offset = -(s64)vcpu_rdtsc();
		fake_advance(1000000);
		assert_true(msr_wr(0, MSR_KVM_SYSTEM_TIME_NEW, 0x2000 | 1));
		assert_true(msr_rd(0, MSR_KVM_SYSTEM_TIME, &v));
		assert_int_equal(v, 0x2001);
		ram_get(0x2000, b, sizeof(b));
		assert_int_equal(ld32(b), 2);
		assert_int_equal(b[29], 1);
		u64 tsc = ld64(b + 8);
		assert_true(tsc < vcpu_rdtsc() + (u64)cpu(0)->tsc_offset);
		assert_int_equal(guest_ns(0x2000, tsc), fake.b.now);
		/* An hour later, to a microsecond */
		u64 later = guest_ns(0x2000, tsc + khz[i] * 1000 * 3600);
		assert_in_range(later, fake.b.now + 3600000000000 - 3000, fake.b.now + 3600000000000 + 3000);
	}
}

static void test_vcpus_agree(void **state)
{
	cpu(1)->tsc_offset = 1000000;
	assert_true(msr_wr(0, MSR_KVM_SYSTEM_TIME_NEW, 0x2000 | 1));
	fake_advance(777777777); /* the second comes later, and clocks are never equally fast */
	assert_true(msr_wr(1, MSR_KVM_SYSTEM_TIME, 0x2040 | 1));
	u64 tsc = vcpu_rdtsc();
	assert_int_equal(guest_ns(0x2000, tsc), guest_ns(0x2040, tsc + 1000000));
	/* Guest time was set anew. */
	fake_advance(1000000000);
	kvmclock_refresh(clk);
	tsc = vcpu_rdtsc();
	assert_int_equal(guest_ns(0x2000, tsc), guest_ns(0x2040, tsc + 1000000));
	assert_in_range(guest_ns(0x2000, tsc), fake.b.now, fake.b.now + 1000000000);
	u8 b[4];
	ram_get(0x2000, b, 4);
	assert_int_equal(ld32(b), 4);
	/* One that is switched off is left alone. */
	assert_true(msr_wr(0, MSR_KVM_SYSTEM_TIME_NEW, 0));
	kvmclock_refresh(clk);
	ram_get(0x2000, b, 4);
	assert_int_equal(ld32(b), 4);
}

static void test_wall_clock(void **state)
{
	u8 b[12];
	u64 v;

	fake_advance(5000000000);
	u64 before = os_realtime_ns() - fake.b.now;
	assert_true(msr_wr(1, MSR_KVM_WALL_CLOCK_NEW, 0x3004));
	u64 after = os_realtime_ns() - fake.b.now;
	ram_get(0x3004, b, sizeof(b));
	assert_int_equal(ld32(b), 2);
	assert_in_range(ld32(b + 4) * 1000000000ull + ld32(b + 8), before, after);
	assert_true(msr_wr(0, MSR_KVM_WALL_CLOCK, 0x3004));
	ram_get(0x3004, b, sizeof(b));
	assert_int_equal(ld32(b), 4);
	assert_true(msr_rd(0, MSR_KVM_WALL_CLOCK_NEW, &v));
	assert_int_equal(v, 0x3004);
	st32(ram_ptr(&fake.b.vm.ram, 0x3004, 4), 0xffffffff); /* what the guest left there does not matter */
	assert_true(msr_wr(0, MSR_KVM_WALL_CLOCK, 0x3004));
	ram_get(0x3004, b, sizeof(b));
	assert_int_equal(ld32(b) & 1, 0);
}

static void test_G60_gpa(void **state)
{
	static const u64 bad[] = { FAKE_RAM, FAKE_RAM - 16, FAKE_RAM - 4,  0xfee00000, 0xfed00000, 0xe0000000,
				   BIT(32),  BIT(63),       ~0ull & ~3ull, 0x101000,   0x100ff0 };
	u64 v;

	assert_int_equal(ram_add_rom(&fake.b.vm.ram, 0x101000, 0x102000), 0);
	assert_true(msr_wr(0, MSR_KVM_SYSTEM_TIME, 0x2001));
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_false(msr_wr(0, MSR_KVM_SYSTEM_TIME, bad[i] | 1));
		assert_false(msr_wr(0, MSR_KVM_SYSTEM_TIME_NEW, bad[i] | 1));
		if (bad[i] != 0x100ff0 && bad[i] != FAKE_RAM - 16) {
			assert_false(msr_wr(0, MSR_KVM_WALL_CLOCK, bad[i]));
			assert_false(msr_wr(0, MSR_KVM_WALL_CLOCK_NEW, bad[i]));
		}
		assert_true(msr_rd(0, MSR_KVM_SYSTEM_TIME, &v));
		assert_int_equal(v, 0x2001); /* as it was */
		assert_true(
			msr_wr(0, MSR_KVM_SYSTEM_TIME, bad[i] & ~1ull)); /* not enabled: never looked at */
		assert_true(msr_wr(0, MSR_KVM_SYSTEM_TIME, 0x2001));
	}
	assert_false(msr_wr(0, MSR_KVM_SYSTEM_TIME, 0x2003)); /* alignment */
	assert_false(msr_wr(0, MSR_KVM_WALL_CLOCK, 0x2001));
	assert_true(msr_wr(0, MSR_KVM_SYSTEM_TIME, FAKE_RAM - 31)); /* the last that fits */
}

static void test_state(void **state)
{
	assert_true(msr_wr(0, MSR_KVM_SYSTEM_TIME, 0x2001));
	assert_true(msr_wr(1, MSR_KVM_SYSTEM_TIME, 0x2041));
	assert_true(msr_wr(1, MSR_KVM_WALL_CLOCK, 0x3000));
	/* Loading writes the structures again, so their versions move on: not the generic round trip. */
	size_t len;
	u8 *buf = fake_save(clk, &len);
	clk->ops->reset(clk, RESET_COLD);
	memset(ram_ptr(&fake.b.vm.ram, 0x2000, 0x80), 0, 0x80);
	fake_advance(1000);
	assert_int_equal(fake_load(clk, buf, len), 0);
	assert_int_equal(guest_ns(0x2000, 5), guest_ns(0x2040, 5));
	u8 b[4];
	ram_get(0x2000, b, 4);
	assert_int_equal(ld32(b), 4);
	for (size_t cut = 0; cut < len; cut++)
		assert_true(fake_load(clk, buf, cut) < 0);
	u8 *bad = malloc(len);
	assert_non_null(bad);
	for (size_t i = 0; i < len * 4; i++) {
		memcpy(bad, buf, len);
		bad[i % len] ^= (u8)(1u << fake_random() % 8);
		fake_load(clk, bad, len);
		clk->ops->reset(clk, RESET_COLD);
	}
	free(bad);
	free(buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, fake_done)
		T(test_system_time), T(test_vcpus_agree), T(test_wall_clock), T(test_G60_gpa), T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
