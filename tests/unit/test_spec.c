/* config.json and other JSON by tables: what is read, what is refused and with which sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "oci/spec.h"

#define HEAD    "{\"ociVersion\":\"1.2.0\",\"root\":{\"path\":\"rootfs\"},"
#define PROCESS "\"process\":{\"cwd\":\"/\",\"args\":[\"sh\"]%s},"
#define LINUX   "\"linux\":{\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"pid\"}]%s}}"

/* A small configuration with additions to the process and to the linux section. */
static int read_spec(struct spec *s, const char *process, const char *lin, struct err *err)
{
	char text[8192];

	snprintf(text, sizeof(text), HEAD PROCESS LINUX, process, lin);
	return spec_open(s, text, strlen(text), err);
}

static void refused(const char *process, const char *lin, const char *word)
{
	struct spec s;
	struct err err = { 0 };

	assert_true(read_spec(&s, process, lin, &err) < 0);
	if (!strstr(err.msg, word))
		fail_msg("'%s' is not in '%s'", word, err.msg);
	assert_ptr_equal(strstr(err.msg, "config.json"), err.msg);
}

static void test_default(void **state)
{
	for (int rootless = 0; rootless < 2; rootless++) {
		char *text = spec_default(rootless, 1000, 1001);
		struct err err = { 0 };
		struct spec s;

		assert_non_null(text);
		if (spec_open(&s, text, strlen(text), &err))
			fail_msg("%s", err.msg);
		assert_int_equal(s.has_namespace[NS_USER], rootless);
		assert_string_equal(s.process->args[0], "sh");
		assert_null(s.process->args[1]);
		assert_int_equal(s.process->caps.bounding, BIT(29) | BIT(5) | BIT(10));
		assert_true(s.process->no_new_privileges && s.process->terminal && s.root.read_only);
		if (rootless)
			assert_int_equal(s.uids[0].outside, 1000);
		/* The rules every container has come after those given. */
		assert_int_equal(s.limits.device_count, rootless ? 11 : 12);
		spec_close(&s);
		free(text);
	}
}

static void test_numbers(void **state)
{
	struct err err = { 0 };
	struct spec s;

	assert_int_equal(
		read_spec(
			&s,
			",\"rlimits\":[{\"type\":\"RLIMIT_CORE\",\"soft\":18446744073709551615,\"hard\":18446744073709551615},"
			"{\"type\":\"RLIMIT_CPU\",\"soft\":9223372036854775807,\"hard\":9223372036854775808}],\"oomScoreAdj\":-1000",
			",\"resources\":{\"memory\":{\"limit\":1e6,\"swap\":-1}}", &err),
		0);
	assert_true(s.process->rlimits[0].soft == UINT64_MAX);
	assert_true(s.process->rlimits[1].soft == INT64_MAX && s.process->rlimits[1].hard == 1ull << 63);
	assert_int_equal(s.process->rlimits[1].resource, RLIMIT_CPU);
	assert_true(s.process->oom_score.set && s.process->oom_score.v == -1000);
	assert_true(s.limits.memory.set && s.limits.memory.v == 1000000 && s.limits.memory_swap.v == -1 &&
		    !s.limits.pids.set);
	spec_close(&s);
	refused(",\"rlimits\":[{\"type\":\"RLIMIT_CORE\",\"soft\":18446744073709551616,\"hard\":1}]", "", "");
	refused(",\"oomScoreAdj\":1001", "", "process.oomScoreAdj: 1001 is out of range; give -1000 to 1000");
	refused(",\"oomScoreAdj\":1.5", "", "process.oomScoreAdj: a whole number is needed");
	refused("", ",\"resources\":{\"memory\":{\"limit\":9223372036854775808}}",
		"linux.resources.memory.limit");
	/* A string is no number, big or small, and the same text in a string stays one. */
	refused(",\"oomScoreAdj\":\"5\"", "", "process.oomScoreAdj: a whole number is needed");
	assert_int_equal(read_spec(&s, ",\"env\":[\"A=18446744073709551615\",\"B=\\\"9999999999999999999\"]",
				   "", &err),
			 0);
	assert_string_equal(s.process->env[0], "A=18446744073709551615");
	assert_string_equal(s.process->env[1], "B=\"9999999999999999999");
	spec_close(&s);
}

static void test_unknown_and_null(void **state)
{
	struct err err = { 0 };
	struct spec s;

	assert_int_equal(read_spec(&s, ",\"unknown\":{\"x\":[1,2,{}]},\"user\":null,\"capabilities\":null",
				   ",\"new\":5,\"sysctl\":null", &err),
			 0);
	assert_null(s.process->capabilities);
	spec_close(&s);
}

static void test_refusals(void **state)
{
	refused("", ",\"uidMappings\":[{\"containerID\":0,\"hostID\":0,\"size\":1}]", "user namespace");
	refused("", ",\"sysctl\":{\"kernel.core_pattern\":\"|/x\"}", "linux.sysctl: kernel.core_pattern");
	refused("", ",\"maskedPaths\":[\"/ok\",\"relative\"]", "linux.maskedPaths[1]");
	refused("", ",\"devices\":[{\"path\":\"/dev/x\",\"type\":\"q\"}]",
		"linux.devices[0].type: 'q' is not known; valid are c, b, u, p");
	refused("", ",\"resources\":{\"devices\":[{\"allow\":true,\"access\":\"rwx\"}]}",
		"linux.resources.devices[0].access");
	refused("", ",\"timeOffsets\":{\"monotonic\":{\"secs\":1}}", "time namespace");
	refused("", ",\"timeOffsets\":{\"monotonic\":{\"nanosecs\":1000000000}}",
		"linux.timeOffsets.monotonic.nanosecs");
	refused("", ",\"seccomp\":{}", "linux.seccomp.defaultAction: is missing");
	refused("", ",\"intelRdt\":{\"closID\":\"../x\"}", "intelRdt.closID");
	refused("", ",\"intelRdt\":{\"closID\":\"mon_groups\"}", "intelRdt.closID");
	refused(",\"env\":[\"PATH=/\",\"x\"]", "", "process.env[1]");
	refused(",\"user\":{\"uid\":4294967296}", "", "process.user.uid");
	refused(",\"user\":{\"additionalGids\":[1,\"x\"]}", "", "process.user.additionalGids[1]");
	refused(",\"apparmorProfile\":5", "", "process.apparmorProfile: a string is needed");
	refused(",\"selinuxLabel\":5", "", "selinuxLabel");
}

static void test_documents(void **state)
{
	static const char *const bad[] = { "",
					   "[]",
					   "null",
					   "{",
					   "{}",
					   "{\"ociVersion\":1}",
					   "{\"a\":1,\"a\":2}",
					   "{\"ociVersion\":\"\\u0000\"}" };
	char *deep = malloc(1 << 20);
	struct err err;
	struct spec s;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		err = (struct err){ 0 };
		assert_true(spec_open(&s, bad[i], strlen(bad[i]), &err) < 0);
		assert_true(err.msg[0]);
	}
	memset(deep, '[', 1 << 20);
	assert_int_equal(spec_open(&s, deep, 1 << 20, &err), -E2BIG);
	assert_non_null(strstr(err.msg, "nested"));
	/* Brackets in strings are none. */
	memset(deep, '"', 1 << 20);
	assert_true(spec_open(&s, deep, 1 << 20, &err) < 0);
	assert_null(strstr(err.msg, "nested"));
	free(deep);
}

static void test_process_alone(void **state)
{
	static const char text[] =
		"{\"cwd\":\"/x\",\"args\":[\"a\",\"b\"],\"user\":{\"uid\":5,\"gid\":6,\"umask\":63},\"terminal\":true}";
	struct jtable_document doc;
	struct spec_process p;
	struct err err = { 0 };

	assert_int_equal(spec_open_process(&doc, text, strlen(text), &p, &err), 0);
	assert_true(p.terminal && p.user.uid == 5 && p.user.gid == 6 && p.user.has_umask &&
		    p.user.umask == 077 && p.arg_count == 2);
	jtable_close(&doc);
	assert_true(spec_open_process(&doc, "{}", 2, &p, &err) < 0);
	assert_non_null(strstr(err.msg, "process.cwd: is missing"));
}

static void test_resources_alone(void **state)
{
	static const char text[] =
		"{\"pids\":{\"limit\":7},\"cpu\":{\"shares\":512},\"blockIO\":{\"throttleReadBpsDevice\":[{\"major\":8,"
		"\"minor\":0,\"rate\":5}]},\"unified\":{\"memory.high\":\"1\"},\"rdma\":{\"m\":{\"hcaHandles\":3}}}";
	struct jtable_document doc;
	struct limits l;
	struct err err = { 0 };

	assert_int_equal(spec_open_limits(&doc, text, strlen(text), &l, &err), 0);
	assert_true(l.pids.v == 7 && l.cpu_shares.v == 512 && l.read_bps.count == 1 &&
		    l.read_bps.list[0].rate == 5);
	assert_string_equal(l.unified[0].name, "memory.high");
	assert_string_equal(l.rdma[0].device, "m");
	assert_int_equal(l.rdma[0].handles.v, 3);
	jtable_close(&doc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_default),          cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_unknown_and_null), cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_documents),        cmocka_unit_test(test_process_alone),
		cmocka_unit_test(test_resources_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
