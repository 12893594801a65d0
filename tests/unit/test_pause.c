/* PAUSE (cpu/soft/ops_flow.c): a loop of them gives the host's processor away, once in a while, if there are other vCPUs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cpu/soft/ops_int.h"
#include "cpu/soft/soft.h"

#define TICKS_PER_US 1000ull /* of the TSC, says the machine; the true rate does not matter here */

static struct vm vm;
static struct vcpu vcpu;
static struct soft_cpu cpu;

static int fresh(void **state)
{
	vm.tsc_khz = TICKS_PER_US * 1000;
	vm.nr_vcpus = 2;
	vcpu = (struct vcpu){ .vm = &vm };
	cpu = (struct soft_cpu){ .vcpu = &vcpu, .key = MODE_64 };
	return 0;
}

static u64 yields(void)
{
	return vcpu.stats.reason[EXIT_PAUSE].count;
}

/* PAUSEs for so many ticks, that many apart at least; how many. */
static u64 pauses(u64 ticks, u64 apart)
{
	static const struct insn pause = { .len = 2 };
	u64 n = 0, start = vcpu_rdtsc(), last;

	do {
		last = vcpu_rdtsc();
		cpu.rip = 0;
		int_pause(&cpu, &pause);
		assert_int_equal(cpu.rip, 2);
		n++;
		while (vcpu_rdtsc() - last < apart)
			;
	} while (vcpu_rdtsc() - start < ticks);
	return n;
}

static void test_loop(void **state)
{
	u64 n = 0;

	/* More than once, since a busy host may stop the thread early in a loop. */
	for (unsigned k = 0; k < 100 && !yields(); k++)
		n += pauses(2000 * TICKS_PER_US, 0);
	assert_in_range(yields(), 1, n - 1);
}

static void test_short(void **state)
{
	pauses(1, 0);
	assert_int_equal(yields(), 0);
}

static void test_far_apart(void **state)
{
	pauses(2000 * TICKS_PER_US, 6 * TICKS_PER_US);
	assert_int_equal(yields(), 0);
}

static void test_alone(void **state)
{
	vm.nr_vcpus = 1;
	pauses(2000 * TICKS_PER_US, 0);
	assert_int_equal(yields(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_loop, fresh),
		cmocka_unit_test_setup(test_short, fresh),
		cmocka_unit_test_setup(test_far_apart, fresh),
		cmocka_unit_test_setup(test_alone, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
