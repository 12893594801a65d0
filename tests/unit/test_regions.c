/* How many regions a cache of code has (cpu/soft/regions.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/soft/regions.h"

static struct regions r;

static int setup(void **state)
{
	memset(&r, 0, sizeof(r));
	regions_init(&r, 3, 6);
	return 0;
}

/* Of which one in sixteen counts. */
#define BLOCKS 100u

/* The region being filled gets so many times BLOCKS, from hva on, and is full. */
static u32 fill(u64 hva, u32 n)
{
	for (u32 k = 0; k < n * BLOCKS; k++)
		regions_made(&r, hva + 16ull * k);
	return regions_next(&r);
}

static void gone(u64 hva, u32 n)
{
	for (u32 k = 0; k < n * BLOCKS; k++)
		regions_gone(&r, hva + 16ull * k);
}

static void test_in_turns(void **state)
{
	for (u32 k = 0; k < 12; k++) {
		assert_int_equal(r.at, k % 3);
		assert_int_equal(fill((u64)k << 24, 100), (k + 1) % 3);
	}
	assert_int_equal(r.nr, 3);
	assert_int_equal(r.nr_grown, 0);
	assert_int_equal(regions_give_back(&r), REGIONS_MOST);
}

/* What was given up comes back: in one region that says nothing yet, in two it does. */
static void test_grows(void **state)
{
	gone(0x1000000, 100);
	assert_int_equal(fill(0x1000000, 60), 1);
	assert_int_equal(fill(0x2000000, 60), 2); /* new ones */
	assert_int_equal(fill(0x1000000, 60), 0);
	assert_int_equal(r.nr, 3);
	assert_int_equal(fill(0x1000000, 60), 3);
	assert_int_equal(r.nr, 4);
	/* From now on all four are in turns, by age: 1, 2, 0, 3. */
	for (u32 k = 0; k < 8; k++) {
		static const u32 order[] = { 1, 2, 0, 3 };

		assert_int_equal(fill(0x900000000 + ((u64)k << 24), 10), order[k % 4]);
	}
	/* One of two is enough, less is not. */
	for (u32 k = 0; k < 8; k++) {
		for (u32 m = 0; m < 55 * BLOCKS; m++)
			regions_made(&r, 0x500000000 + ((u64)k << 24) + 16ull * m);
		fill(0x1000000, 45);
	}
	assert_int_equal(r.nr, 4);
	for (u32 k = 0; k < 20; k++)
		fill(0x1000000, 60);
	assert_int_equal(r.nr, 6); /* the bound */
	assert_int_equal(r.nr_grown, 3);
}

/* They go back, the first begun first, but for the one that is filled and the least number; and may come again. */
static void test_gives_back(void **state)
{
	gone(0x1000000, 100);
	for (u32 k = 0; k < 20; k++)
		fill(0x1000000, 60);
	assert_int_equal(r.nr, 6);
	for (u32 k = 0; k < 3; k++) {
		u64 first = ~0ull;
		u32 want = 0, got;

		for (u32 m = 0; m < REGIONS_MOST; m++)
			if (r.begun[m] && r.begun[m] < first)
				first = r.begun[want = m];
		got = regions_give_back(&r);
		assert_int_equal(got, want);
		assert_int_not_equal(got, r.at);
		assert_int_equal(r.begun[got], 0);
	}
	assert_int_equal(r.nr, 3);
	assert_int_equal(regions_give_back(&r), REGIONS_MOST);
	assert_int_equal(r.nr_given_back, 3);
	for (u32 k = 0; k < 20; k++)
		fill(0x1000000, 60);
	assert_int_equal(r.nr, 6);
}

/* What was given up long ago is forgotten. */
static void test_forgets(void **state)
{
	gone(0x1000000, 100);
	gone(1ull << 32, 1u << REGIONS_GONE_BITS);
	for (u32 k = 0; k < 20; k++)
		fill(0x1000000, 60);
	assert_int_equal(r.nr, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_in_turns, setup),
		cmocka_unit_test_setup(test_grows, setup),
		cmocka_unit_test_setup(test_gives_back, setup),
		cmocka_unit_test_setup(test_forgets, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
