/* Classes of Intel RDT, in folders that look like resctrl's: in those the kernel would make the files of a new class. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/types.h"
#include "jail/rdt.h"

static char root[64];

static void put(const char *path, const char *text)
{
	char full[256];
	FILE *f;

	snprintf(full, sizeof(full), "%s/%s", root, path);
	f = fopen(full, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static const char *get(const char *path)
{
	static char text[256];
	char full[256];
	int fd;
	ssize_t n;

	snprintf(full, sizeof(full), "%s/%s", root, path);
	fd = open(full, O_RDONLY);
	assert_true(fd >= 0);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n] = 0;
	return text;
}

static void make(const char *path)
{
	char full[256];

	snprintf(full, sizeof(full), "%s/%s", root, path);
	assert_int_equal(mkdir(full, 0755), 0);
}

static bool there(const char *path)
{
	char full[256];

	snprintf(full, sizeof(full), "%s/%s", root, path);
	return !access(full, F_OK);
}

static int set_up(void **state)
{
	strcpy(root, "/tmp/unit-rdt-XXXXXX");
	assert_non_null(mkdtemp(root));
	put("schemata", "    L3:0=ff;1=ff\n");
	put("tasks", "");
	make("mon_groups");
	make("gold");
	put("gold/schemata", "    MB:0=70\n    L3:0=00ff;1=0f\n");
	put("gold/tasks", "");
	make("gold/mon_groups");
	return 0;
}

static int tear_down(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command);
}

static void test_a_class_of_others(void **state)
{
	const char *lines[] = { "MB:0=70", "L3:1=f" };
	struct rdt r = { .clos = "gold" };
	struct rdt_made made;
	struct err err;

	/* Without a schema whatever it has is good. */
	assert_int_equal(rdt_create(root, &r, "x", &made, &err), 0);
	assert_false(made.clos || made.monitoring);
	assert_int_equal(rdt_join(root, &r, "x", 1234, &err), 0);
	assert_string_equal(get("gold/tasks"), "1234");
	/* The same, written otherwise. */
	r.l3_cache = "L3:0=ff;1=f\n";
	r.bandwidth = "MB:0=70";
	assert_int_equal(rdt_create(root, &r, "x", &made, &err), 0);
	assert_false(made.clos);
	r.l3_cache = "L3:0=ff;1=ff";
	assert_int_equal(rdt_create(root, &r, "x", &made, &err), -EEXIST);
	assert_non_null(strstr(err.msg, "l3CacheSchema"));
	r.l3_cache = NULL;
	r.schemata = lines;
	r.schema_count = 2;
	assert_int_equal(rdt_create(root, &r, "x", &made, &err), -EEXIST);
	assert_non_null(strstr(err.msg, "schemata"));
	assert_int_equal(rdt_delete(root, &r, "x", made, &err), 0);
	assert_true(there("gold/tasks"));
}

static void test_not_there(void **state)
{
	struct rdt r = { .clos = "silver" };
	struct rdt_made made;
	struct err err;

	assert_int_equal(rdt_create(root, &r, "x", &made, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "silver"));
	assert_false(there("silver"));
	/* With a schema it is made; this is no resctrl, so its files do not come. */
	r.l3_cache = "L3:0=f";
	assert_int_equal(rdt_create(root, &r, "x", &made, &err), -ENOENT);
	assert_true(made.clos && there("silver"));
	assert_int_equal(rdt_delete(root, &r, "x", made, &err), 0);
	assert_false(there("silver"));
	/* Named after the container. */
	r.clos = NULL;
	rdt_create(root, &r, "box", &made, &err);
	assert_true(made.clos && there("box"));
	assert_int_equal(rdt_delete(root, &r, "box", made, &err), 0);
	assert_false(there("box"));
}

static void test_monitoring(void **state)
{
	struct rdt r = { .clos = "gold", .monitoring_mbm = true }, plain = { .monitoring = true };
	struct rdt_made made, again;
	struct err err;

	assert_int_equal(rdt_create(root, &r, "x", &made, &err), 0);
	assert_true(made.monitoring && !made.clos && there("gold/mon_groups/x"));
	put("gold/mon_groups/x/tasks", "");
	assert_int_equal(rdt_join(root, &r, "x", 77, &err), 0);
	assert_string_equal(get("gold/mon_groups/x/tasks"), "77");
	/* Somebody else's stays. */
	assert_int_equal(rdt_create(root, &r, "x", &again, &err), -EEXIST);
	assert_false(again.monitoring);
	unlink("gold/mon_groups/x/tasks");
	/* In the class that all are in. */
	assert_int_equal(rdt_create(root, &plain, "y", &again, &err), 0);
	assert_true(there("mon_groups/y"));
	assert_int_equal(rdt_delete(root, &plain, "y", again, &err), 0);
	assert_false(there("mon_groups/y"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_class_of_others, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_not_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_monitoring, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
