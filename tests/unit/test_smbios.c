/* SMBIOS: the entry point's sums, structures that can be walked, what they say, for small and large machines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "boot/smbios.h"

#define T(f) cmocka_unit_test(f)

static u8 anchor[SMBIOS_ANCHOR], tables[SMBIOS_MAX];
static u32 used;

static struct smbios_board board = {
	.nr_cpus = 4,
	.memory = 512 * MiB,
	.low_memory = 512 * MiB,
	.signature = 0x806f8,
	.features = 0x0f8bfbff,
	.mhz = 2100,
	.bios = "7",
};

static u8 sum(const u8 *p, unsigned len)
{
	u8 s = 0;

	while (len--)
		s = (u8)(s + *p++);
	return s;
}

static const u8 *next(const u8 *p)
{
	p += p[1];
	while (p[0] || p[1])
		p++;
	return p + 2;
}

/* Structure n of this type, NULL: there is none. */
static const u8 *find(u8 type, unsigned n)
{
	for (const u8 *p = tables; p < tables + used; p = next(p))
		if (p[0] == type && n-- == 0)
			return p;
	return NULL;
}

static const char *string(const u8 *p, unsigned at)
{
	const char *s = (const char *)p + p[1];

	assert_int_not_equal(p[at], 0);
	for (unsigned n = p[at]; n > 1; n--)
		s += strlen(s) + 1;
	return s;
}

static void build(u32 gpa)
{
	memset(tables, 0xee, sizeof(tables));
	used = smbios_build(&board, gpa, anchor, tables);
}

static void test_entry(void **state)
{
	unsigned nr = 0;
	u32 largest = 0;

	build(0xf0020);
	assert_memory_equal(anchor, "_SM_", 4);
	assert_memory_equal(anchor + 16, "_DMI_", 5);
	assert_int_equal(sum(anchor, SMBIOS_ANCHOR), 0);
	assert_int_equal(sum(anchor + 16, SMBIOS_ANCHOR - 16), 0);
	assert_int_equal(ld32(anchor + 24), 0xf0020);
	assert_int_equal(ld16(anchor + 22), used);
	for (const u8 *p = tables, *q; p < tables + used; p = q, nr++) {
		q = next(p);
		largest = MAX(largest, (u32)(q - p));
		assert_int_equal(ld16(p + 2) >> 8, p[0]);
		assert_true(q < tables + used ? p[0] != 127 : q == tables + used && p[0] == 127);
	}
	assert_int_equal(ld16(anchor + 28), nr);
	assert_int_equal(ld16(anchor + 8), largest);
	assert_int_equal(tables[used], 0xee);
}

static void test_contents(void **state)
{
	const u8 *p;

	build(0);
	assert_string_equal(string(find(0, 0), 5), "7");
	assert_int_equal(find(0, 0)[19] & 0x10, 0x10);
	assert_string_equal(string(find(1, 0), 4), "bothy");
	p = find(4, 0);
	assert_int_equal(ld32(p + 8), 0x806f8);
	assert_int_equal(ld16(p + 22), 2100);
	assert_int_equal(p[35], 4);
	assert_null(find(4, 1));
	assert_int_equal(ld32(find(16, 0) + 7), 512 * 1024);
	assert_int_equal(ld16(find(17, 0) + 12), 512);
	p = find(19, 0);
	assert_int_equal(ld32(p + 4), 0);
	assert_int_equal(ld32(p + 8), 512 * 1024 - 1);
	assert_null(find(19, 1));
	board.bios = NULL;
	build(0);
	assert_null(find(0, 0));
	assert_non_null(find(1, 0));
	board.bios = "7";
}

/* Memory in two parts, and numbers that do not fit into the old fields. */
static void test_large(void **state)
{
	const struct smbios_board small = board;
	const u8 *p;

	board.low_memory = 0xb0000000;
	board.memory = 64 * GiB;
	board.nr_cpus = 300;
	build(0);
	assert_int_equal(find(4, 0)[35], 255);
	p = find(17, 0);
	assert_int_equal(ld16(p + 12), 0x7fff);
	assert_int_equal(ld32(p + 28), 64 * 1024);
	p = find(19, 1);
	assert_int_equal(ld32(p + 4), 4 * MiB);
	assert_int_equal(ld32(p + 8), (64 * GiB + 4 * GiB - 0xb0000000) / KiB - 1);

	board.memory = 6 * 1024 * GiB;
	build(0);
	p = find(16, 0);
	assert_int_equal(ld32(p + 7), 0x80000000);
	assert_int_equal(ld64(p + 15), 6 * 1024 * GiB);
	p = find(19, 1);
	assert_int_equal(ld32(p + 4), 0xffffffff);
	assert_int_equal(ld64(p + 15), 4 * GiB);
	assert_int_equal(ld64(p + 23), 6 * 1024 * GiB + 4 * GiB - 0xb0000000 - 1);
	board = small;
}

int main(void)
{
	const struct CMUnitTest tests[] = { T(test_entry), T(test_contents), T(test_large) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
