/* --affinity (machine/affinity.c), against what this process may use; and that a vCPU's set reaches the kernel is for
 * tests/system/affinity to see. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "machine/affinity.h"

static cpu_set_t sets[4];
static struct err err;
static int lowest, highest; /* of this process */

static int fresh(void **state)
{
	cpu_set_t mine;

	memset(sets, 0, sizeof(sets));
	memset(&err, 0, sizeof(err));
	assert_int_equal(sched_getaffinity(0, sizeof(mine), &mine), 0);
	for (lowest = 0; !CPU_ISSET(lowest, &mine); lowest++)
		;
	for (highest = CPU_SETSIZE - 1; !CPU_ISSET(highest, &mine); highest--)
		;
	return 0;
}

static int parse(const char *fmt, int a, int b)
{
	char text[128];

	snprintf(text, sizeof(text), fmt, a, b);
	return affinity_parse(text, 4, sets, &err);
}

static void test_nothing(void **state)
{
	assert_int_equal(affinity_parse(NULL, 4, sets, &err), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(CPU_COUNT(&sets[i]), 0);
}

static void test_single(void **state)
{
	assert_int_equal(parse("0=%d,3=%d", lowest, highest), 0);
	assert_int_equal(CPU_COUNT(&sets[0]), 1);
	assert_true(CPU_ISSET(lowest, &sets[0]));
	assert_int_equal(CPU_COUNT(&sets[1]), 0);
	assert_int_equal(CPU_COUNT(&sets[3]), 1);
	assert_true(CPU_ISSET(highest, &sets[3]));
}

static void test_adds_up(void **state)
{
	assert_int_equal(parse("2=%d,2=%d", lowest, highest), 0);
	assert_int_equal(CPU_COUNT(&sets[2]), lowest == highest ? 1 : 2);
	assert_int_equal(parse("1=%1$d-%1$d", lowest, 0), 0);
	assert_int_equal(CPU_COUNT(&sets[1]), 1);
}

static void test_range(void **state)
{
	cpu_set_t mine;

	sched_getaffinity(0, sizeof(mine), &mine);
	if (CPU_COUNT(&mine) != highest - lowest + 1)
		skip();
	assert_int_equal(parse("1=%d-%d", lowest, highest), 0);
	assert_true(CPU_EQUAL(&mine, &sets[1]));
}

static void refused(const char *text, const char *why)
{
	assert_int_equal(affinity_parse(text, 4, sets, &err), -EINVAL);
	if (!strstr(err.msg, why))
		fail_msg("'%s' is not in: %s", why, err.msg);
}

static void test_bad(void **state)
{
	static const char *const no_lists[] = { "",
						"0",
						"=",
						"0=",
						"=0",
						"a=0",
						"0=a",
						"0=0,",
						"0=0;",
						"0=0-",
						"0=-1",
						"0=1-0",
						"0=0,,1",
						" 0=0",
						"0= 0",
						"-1=0",
						"0=0x1",
						"0:0",
						"99999999999999999999=0" };

	for (size_t i = 0; i < sizeof(no_lists) / sizeof(no_lists[0]); i++)
		refused(no_lists[i], "as in 0=1");
	refused("4=0", "no processor 4");
	refused("0=99999", "processor 99999 of the host");
	refused("0=1024", "processor 1024 of the host");
	refused("0=0-99999", "of the host is not there");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_nothing, fresh), cmocka_unit_test_setup(test_single, fresh),
		cmocka_unit_test_setup(test_adds_up, fresh), cmocka_unit_test_setup(test_range, fresh),
		cmocka_unit_test_setup(test_bad, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
