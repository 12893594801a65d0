/* The option parser: each kind of value, every way to be wrong, and the sentence that says so. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/params.h"
#include "cli/opts.h"

struct target {
	bool flag;
	const char *text;
	const char *list[3];
	unsigned nr_list;
	u32 number;
	u64 size;
	const char *format;
};

static const char *color(unsigned i, const char **ret_help)
{
	static const char *const names[] = { "red", "green" };

	return i < ARRAY_SIZE(names) ? names[i] : NULL;
}

static const struct opt table[] = {
	{ .name = "flag", .kind = OPT_FLAG, .offset = offsetof(struct target, flag) },
	{ .name = "text",
	  .kind = OPT_STRING,
	  .arg = "T",
	  .required = true,
	  .offset = offsetof(struct target, text) },
	{ .name = "list",
	  .kind = OPT_LIST,
	  .arg = "L",
	  .max_count = 3,
	  .offset = offsetof(struct target, list),
	  .count_offset = offsetof(struct target, nr_list) },
	{ .name = "number",
	  .kind = OPT_U32,
	  .arg = "N",
	  .min = 1,
	  .max = 64,
	  .offset = offsetof(struct target, number) },
	{ .name = "size",
	  .kind = OPT_SIZE,
	  .arg = "S",
	  .min = MiB,
	  .max = 64 * GiB,
	  .offset = offsetof(struct target, size) },
	{ .name = "format",
	  .kind = OPT_STRING,
	  .arg = "F",
	  .choice = color,
	  .optional = "red",
	  .offset = offsetof(struct target, format) },
	{ .name = NULL },
};

/* Words separated by spaces; the copy lives until the next call. */
static int parse(const char *words, struct target *t, struct err *err)
{
	static char copy[512];
	char *argv[32], *save = NULL;
	int argc = 0;

	snprintf(copy, sizeof(copy), "%s", words);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	memset(t, 0, sizeof(*t));
	memset(err, 0, sizeof(*err));
	return opts_parse(table, argc, argv, t, err);
}

static void test_values(void **state)
{
	struct target t;
	struct err err;

	assert_int_equal(parse("--text a", &t, &err), 0);
	assert_string_equal(t.text, "a");
	assert_false(t.flag);
	assert_int_equal(parse("--text=a=b --flag --number 64 --size=3M --list x --list=y --list z", &t,
			       &err),
			 0);
	assert_string_equal(t.text, "a=b");
	assert_true(t.flag);
	assert_int_equal(t.number, 64);
	assert_int_equal(t.size, 3 * MiB);
	assert_int_equal(t.nr_list, 3);
	assert_string_equal(t.list[0], "x");
	assert_string_equal(t.list[2], "z");
	/* The value of --text may look like an option. */
	assert_int_equal(parse("--text --flag", &t, &err), 0);
	assert_string_equal(t.text, "--flag");
	assert_false(t.flag);
	assert_int_equal(parse("--text= --number=7 --number=8", &t, &err), 0);
	assert_string_equal(t.text, "");
	assert_int_equal(t.number, 8);
}

static void test_optional_value(void **state)
{
	struct target t;
	struct err err;

	assert_int_equal(parse("--format --text a", &t, &err), 0);
	assert_string_equal(t.format, "red");
	assert_string_equal(t.text, "a");
	assert_int_equal(parse("--text a --format=green", &t, &err), 0);
	assert_string_equal(t.format, "green");
}

static void test_refusals(void **state)
{
	static const char *const cases[][2] = {
		{ "", "--text T is missing" },
		{ "--flag", "--text T is missing" },
		{ "--text", "--text needs a value" },
		{ "--text a --flag=1", "--flag takes no value" },
		{ "--text a --flagg", "did you mean --flag?" },
		{ "--text a --numbre 3", "did you mean --number?" },
		{ "--text a --xyzzy", "unknown option '--xyzzy'" },
		{ "--text a -f", "unknown option '-f'" },
		{ "--text a --", "unknown option '--'" },
		{ "--text a --=5", "unknown option '--=5'" },
		{ "--text a stray", "unexpected argument 'stray'" },
		{ "--text a --number x", "--number: 'x' is not a number" },
		{ "--text a --number -1", "--number: '-1' is not a number" },
		{ "--text a --number 3x", "--number: '3x' is not a number" },
		{ "--text a --number=", "--number: '' is not a number" },
		{ "--text a --number 0", "--number: 0 is out of range; give 1 to 64" },
		{ "--text a --number 65", "--number: 65 is out of range" },
		{ "--text a --number 4294967297", "--number: 4294967297 is out of range" },
		{ "--text a --number 99999999999999999999999", "is out of range" },
		{ "--text a --size 1", "--size: 1 is out of range; give 1 MiB to 64 GiB" },
		{ "--text a --size 65G", "--size: 65G is out of range" },
		{ "--text a --size 1Q", "--size: '1Q' is not a size" },
		{ "--text a --size M", "--size: 'M' is not a size" },
		{ "--text a --format=blue", "--format: 'blue' is not known; valid are red, green" },
		{ "--text a --list 1 --list 2 --list 3 --list 4", "--list: given more than 3 times, at '4'" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct target t;
		struct err err;
		int rc = parse(cases[i][0], &t, &err);

		assert_true(rc < 0);
		assert_int_equal(rc, err.code);
		if (!strstr(err.msg, cases[i][1]))
			fail_msg("'%s' gives '%s'", cases[i][0], err.msg);
	}
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		int rc;
		u64 size;
	} cases[] = {
		{ "0", 0, 0 },
		{ "4096", 0, 4096 },
		{ "1k", 0, KiB },
		{ "1K", 0, KiB },
		{ "512M", 0, 512 * MiB },
		{ "512MiB", 0, 512 * MiB },
		{ "512MB", 0, 512 * MiB },
		{ "2g", 0, 2 * GiB },
		{ "3T", 0, 3072 * GiB },
		{ "18446744073709551615", 0, ~0ull },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "16777216T", -ERANGE, 0 },
		{ "17179869184G", -ERANGE, 0 },
		{ "", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1.5G", -EINVAL, 0 },
		{ "1GG", -EINVAL, 0 },
		{ "0x10", -EINVAL, 0 },
		{ "1B", -EINVAL, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		u64 size = 0;

		if (params_parse_size(cases[i].text, &size) != cases[i].rc || size != cases[i].size)
			fail_msg("'%s' gives %llu", cases[i].text, (unsigned long long)size);
	}
}

static const char *word(const void *opaque, unsigned i)
{
	return ((const char *const *)opaque)[i];
}

static void test_nearest(void **state)
{
	static const char *const words[] = { "memory", "kernel", "cpu", "cpus", NULL };

	assert_string_equal(opts_nearest("memroy", word, words), "memory");
	assert_string_equal(opts_nearest("mem", word, words), "memory");
	assert_string_equal(opts_nearest("kernal", word, words), "kernel");
	assert_string_equal(opts_nearest("cpus", word, words), "cpus");
	assert_null(opts_nearest("engine", word, words));
	assert_null(opts_nearest("", word, words + 4));
	assert_null(opts_nearest("a-name-that-is-much-longer-than-any-option-will-ever-be", word, words));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),   cmocka_unit_test(test_optional_value),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_nearest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
