/* The option parser: each kind of value, every way to be wrong, and the sentence that says so. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/params.h"
#include "cli/opts_file.h"

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

/* ---- options in a file ---- */

static int parse_file(const char *text, struct target *t, struct err *err)
{
	static char copies[2][1024]; /* what the last two calls gave stays */
	static unsigned turn;
	char *copy = copies[turn++ % 2];
	bool seen[16] = { false };

	snprintf(copy, sizeof(copies[0]), "%s", text);
	memset(t, 0, sizeof(*t));
	memset(err, 0, sizeof(*err));
	return opts_file_parse(table, "x.conf", copy, strlen(copy), t, seen, err);
}

static void test_file(void **state)
{
	char *text = NULL, again[1024];
	struct target t, u;
	struct err err;
	size_t len;
	FILE *f;

	assert_int_equal(
		parse_file("# for people\n\n text = a b = c # d \r\nlist = x\nlist=y\n number=7\nsize = 2M\n"
			   "flag = on\nformat = green",
			   &t, &err),
		0);
	assert_string_equal(t.text, "a b = c # d");
	assert_int_equal(t.nr_list, 2);
	assert_string_equal(t.list[1], "y");
	assert_true(t.flag && t.number == 7 && t.size == 2 * MiB);
	assert_string_equal(t.format, "green");
	assert_int_equal(parse_file("text = \" \\\"a\\\\\\n\\t\\x41 \"  \nflag = off\n", &t, &err), 0);
	assert_string_equal(t.text, " \"a\\\n\tA ");
	assert_false(t.flag);
	/* What is printed is read as the same. */
	t.list[t.nr_list++] = "";
	t.list[t.nr_list++] = "\x01 \"";
	t.number = 3;
	t.flag = true;
	f = open_memstream(&text, &len);
	opts_file_print(table, &t, f);
	fclose(f);
	snprintf(again, sizeof(again), "%s", text);
	assert_int_equal(parse_file(again, &u, &err), 0);
	assert_string_equal(u.text, t.text);
	assert_int_equal(u.nr_list, 2);
	assert_string_equal(u.list[0], "");
	assert_string_equal(u.list[1], t.list[1]);
	assert_true(u.number == 3 && u.flag && !u.size && !u.format);
	free(text);
}

static void test_file_refusals(void **state)
{
	static const char *const cases[][2] = {
		{ "txet = a", "x.conf, line 1: unknown option 'txet'; did you mean --text?" },
		{ "text = a\n\nxyzzy = 3\n", "x.conf, line 3: unknown option 'xyzzy'" },
		{ "text", "x.conf, line 1: 'text' is no NAME = VALUE" },
		{ "= 3", "x.conf, line 1: unknown option ''" },
		{ "--text = 3", "unknown option '--text'" },
		{ "number = 65", "x.conf, line 1: --number: 65 is out of range" },
		{ "number = 1\nnumber = 2", "x.conf, line 2: 'number' is given twice" },
		{ "list=1\nlist=2\nlist=3\nlist=4", "x.conf, line 4: --list: given more than 3 times" },
		{ "flag = yes", "give on or off" },
		{ "flag =", "give on or off" },
		{ "format = blue", "valid are red, green" },
		{ "text = \"a", "has no end" },
		{ "text = \"a\" b", "behind the closing quote" },
		{ "text = \"\\q\"", "a backslash is followed" },
		{ "text = \"\\x0g\"", "a backslash is followed" },
		{ "text = \"\\x00\"", "a backslash is followed" },
		{ "text = \"\\", "a backslash is followed" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct target t;
		struct err err;

		if (parse_file(cases[i][0], &t, &err) >= 0 || !strstr(err.msg, cases[i][1]))
			fail_msg("%s: \"%s\", wanted \"%s\"", cases[i][0], err.msg, cases[i][1]);
	}
}

/* A table with a file, and what is given on the command line too. */
static void test_file_and_words(void **state)
{
	struct {
		struct target t;
		char *text;
	} both = { 0 };
	struct opt with[ARRAY_SIZE(table) + 1];
	char path[] = "/tmp/opts-XXXXXX", *argv[] = { "--list", "z", "--config", path, "--number=5" };
	char *twice[] = { "--config", path, "--config", path }, *none[] = { "--config=/nowhere/x" };
	static const char text[] = "text = a\nlist = x\nlist = y\nnumber = 4\nsize = 3M\n";
	int fd = mkstemp(path);
	struct err err = { 0 };

	memcpy(with, table, sizeof(table));
	with[ARRAY_SIZE(table) - 1] = (struct opt){ .name = "config",
						    .kind = OPT_CONFIG,
						    .arg = "FILE",
						    .offset = (size_t)((char *)&both.text - (char *)&both) };
	with[ARRAY_SIZE(table)] = (struct opt){ .name = NULL };
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	close(fd);
	assert_int_equal(opts_parse(with, ARRAY_SIZE(argv), argv, &both, &err), 0);
	assert_string_equal(both.t.text, "a"); /* required, and in the file */
	assert_int_equal(both.t.nr_list, 1);
	assert_string_equal(both.t.list[0], "z");
	assert_int_equal(both.t.number, 5);
	assert_int_equal(both.t.size, 3 * MiB);
	free(both.text);
	memset(&both, 0, sizeof(both));
	assert_int_equal(opts_parse(with, 4, twice, &both, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "--config is given twice"));
	assert_int_equal(opts_parse(with, 1, none, &both, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "/nowhere/x"));
	free(both.text);
	unlink(path);
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
		cmocka_unit_test(test_values),         cmocka_unit_test(test_optional_value),
		cmocka_unit_test(test_refusals),       cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_file),           cmocka_unit_test(test_file_refusals),
		cmocka_unit_test(test_file_and_words), cmocka_unit_test(test_nearest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
