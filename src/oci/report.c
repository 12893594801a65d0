/* Reports: the JSON has the members that podman, containerd and Docker read from other runtimes, in the same places
 * [runtime-spec runtime.md#state, features.md].
 */
#include "oci/report.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jail/systemd.h"
#include "oci/container.h"

static char *finish(json_t *o, size_t flags, struct err *err)
{
	char *text = o ? json_dumps(o, flags) : NULL;

	json_decref(o);
	if (!text)
		err_set(err, -ENOMEM, "no memory for a report");
	return text;
}

/* --- stats --- */

static json_int_t read_number(const struct cgroup *cg, const struct cgroup_hierarchy *h, const char *file)
{
	char text[64] = "";

	if (!h || cgroup_read(cg, h, file, text, sizeof(text)))
		return 0;
	/* No limit: the largest number, which is what others say. */
	return !strcmp(text, "max") ? INT64_MAX : strtoll(text, NULL, 10);
}

/* The value behind a key at the beginning of a line. */
static json_int_t find_number(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (const char *p = text; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
		if (!strncmp(p, key, len) && p[len] == ' ')
			return strtoll(p + len + 1, NULL, 10);
	return 0;
}

static void read_text(const struct cgroup *cg, const struct cgroup_hierarchy *h, const char *file, char *text,
		      size_t size)
{
	if (!h || cgroup_read(cg, h, file, text, size))
		text[0] = 0;
}

static json_t *cpu_stats(const struct cgroup *cg)
{
	const struct cgroup_hierarchy *acct = cgroup_v1(cg, "cpuacct"), *cpu = cgroup_v1(cg, "cpu"),
				      *v2 = cgroup_v2(cg);
	char stat[4096] = "", percpu[8192] = "";
	json_int_t total, user, kernel;
	json_t *list = json_array();
	long tick = sysconf(_SC_CLK_TCK);

	if (acct) {
		total = read_number(cg, acct, "cpuacct.usage");
		read_text(cg, acct, "cpuacct.stat", stat, sizeof(stat));
		user = find_number(stat, "user") * (1000000000 / tick);
		kernel = find_number(stat, "system") * (1000000000 / tick);
		read_text(cg, acct, "cpuacct.usage_percpu", percpu, sizeof(percpu));
		for (char *save = NULL, *w = strtok_r(percpu, " ", &save); w; w = strtok_r(NULL, " ", &save))
			json_array_append_new(list, json_integer(strtoll(w, NULL, 10)));
		read_text(cg, cpu, "cpu.stat", stat, sizeof(stat));
	} else {
		read_text(cg, v2, "cpu.stat", stat, sizeof(stat));
		total = find_number(stat, "usage_usec") * 1000;
		user = find_number(stat, "user_usec") * 1000;
		kernel = find_number(stat, "system_usec") * 1000;
	}
	return json_pack("{s:{s:I,s:o,s:I,s:I},s:{s:I,s:I,s:I}}", "usage", "total", total, "percpu", list,
			 "kernel", kernel, "user", user, "throttling", "periods",
			 find_number(stat, "nr_periods"), "throttledPeriods",
			 find_number(stat, "nr_throttled"), "throttledTime",
			 acct ? find_number(stat, "throttled_time")
			      : find_number(stat, "throttled_usec") * 1000);
}

/* The four files of version 1 that count one kind of memory. */
static json_t *memory_v1(const struct cgroup *cg, const struct cgroup_hierarchy *h, const char *kind)
{
	static const char *const members[] = { "limit", "usage", "max", "failcnt" }, *const files[] = {
		"limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt"
	};
	json_t *o = json_object();

	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		char file[64];

		snprintf(file, sizeof(file), "memory.%s%s", kind, files[i]);
		json_object_set_new(o, members[i], json_integer(read_number(cg, h, file)));
	}
	return o;
}

static json_t *memory_stats(const struct cgroup *cg)
{
	const struct cgroup_hierarchy *v1 = cgroup_v1(cg, "memory"), *v2 = cgroup_v2(cg);
	json_t *raw = json_object(), *usage, *swap;
	char stat[8192] = "", *save = NULL;

	read_text(cg, v1 ? v1 : v2, "memory.stat", stat, sizeof(stat));
	for (char *line = strtok_r(stat, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *space = strchr(line, ' ');

		if (space) {
			*space = 0;
			json_object_set_new(raw, line, json_integer(strtoll(space + 1, NULL, 10)));
		}
	}
	if (v1) {
		usage = memory_v1(cg, v1, "");
		swap = memory_v1(cg, v1, "memsw.");
	} else {
		usage = json_pack("{s:I,s:I,s:I}", "limit", read_number(cg, v2, "memory.max"), "usage",
				  read_number(cg, v2, "memory.current"), "max",
				  read_number(cg, v2, "memory.peak"));
		swap = json_pack("{s:I,s:I}", "limit", read_number(cg, v2, "memory.swap.max"), "usage",
				 read_number(cg, v2, "memory.swap.current"));
	}
	return json_pack("{s:o,s:o,s:I,s:o*,s:o*,s:o}", "usage", usage, "swap", swap, "cache",
			 json_integer_value(json_object_get(raw, v1 ? "cache" : "file")), "kernel",
			 v1 ? memory_v1(cg, v1, "kmem.") : NULL, "kernelTCP",
			 v1 ? memory_v1(cg, v1, "kmem.tcp.") : NULL, "raw", raw);
}

/* By the sizes of pages that the group's files are named after. */
static json_t *page_stats(const struct cgroup *cg)
{
	const struct cgroup_hierarchy *v1 = cgroup_v1(cg, "hugetlb"), *h = v1 ? v1 : cgroup_v2(cg);
	json_t *sizes = json_object();
	char path[4096];
	struct dirent *e;
	DIR *d = NULL;

	if (h) {
		snprintf(path, sizeof(path), "%.300s%.3700s", h->mount, cg->path);
		d = opendir(path);
	}
	while (d && (e = readdir(d))) {
		char size[32], end[32], file[80];

		/* "hugetlb.2MB.current"; what is reserved has a further word. */
		if (sscanf(e->d_name, "hugetlb.%31[0-9A-Z].%31s", size, end) != 2 ||
		    strcmp(end, v1 ? "usage_in_bytes" : "current") != 0)
			continue;
		json_t *one = json_pack("{s:I}", "usage", read_number(cg, h, e->d_name));

		snprintf(file, sizeof(file), "hugetlb.%s.max_usage_in_bytes", size);
		if (v1)
			json_object_set_new(one, "max", json_integer(read_number(cg, h, file)));
		snprintf(file, sizeof(file), "hugetlb.%s.failcnt", size);
		if (v1)
			json_object_set_new(one, "failcnt", json_integer(read_number(cg, h, file)));
		json_object_set_new(sizes, size, one);
	}
	if (d)
		closedir(d);
	return sizes;
}

/* "MAJOR:MINOR Read N" of version 1, "MAJOR:MINOR rbytes=N wbytes=N ..." of version 2. */
static json_t *io_list(const struct cgroup *cg, const char *v1_file, const char *const v2_keys[2])
{
	static const char *const ops[] = { "Read", "Write" };
	const struct cgroup_hierarchy *v1 = cgroup_v1(cg, "blkio"), *v2 = cgroup_v2(cg);
	json_t *list = json_array();
	char text[8192] = "", *save = NULL;

	read_text(cg, v1 ? v1 : v2, v1 ? v1_file : "io.stat", text, sizeof(text));
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		int major, minor;
		long long value;
		char op[16];

		if (v1 && sscanf(line, "%d:%d %15s %lld", &major, &minor, op, &value) == 4) {
			json_array_append_new(list, json_pack("{s:i,s:i,s:s,s:I}", "major", major, "minor",
							      minor, "op", op, "value", (json_int_t)value));
			continue;
		}
		for (unsigned i = 0; !v1 && i < 2; i++) {
			const char *at = strstr(line, v2_keys[i]);

			if (at && sscanf(line, "%d:%d", &major, &minor) == 2)
				json_array_append_new(list,
						      json_pack("{s:i,s:i,s:s,s:I}", "major", major, "minor",
								minor, "op", ops[i], "value",
								(json_int_t)strtoll(at + strlen(v2_keys[i]),
										    NULL, 10)));
		}
	}
	return list;
}

char *report_stats(const struct status *s, struct err *err)
{
	static const char *const bytes[] = { "rbytes=", "wbytes=" }, *const counts[] = { "rios=", "wios=" };
	struct cgroup *cg = malloc(sizeof(*cg));
	const struct cgroup_hierarchy *pids;
	json_t *o;

	if (!cg) {
		err_set(err, -ENOMEM, "no memory for a report");
		return NULL;
	}
	if (container_cgroup(s, cg, err)) {
		free(cg);
		return NULL;
	}
	pids = cgroup_v1(cg, "pids") ? cgroup_v1(cg, "pids") : cgroup_v2(cg);
	o = json_pack("{s:s,s:s,s:{s:o,s:o,s:{s:I,s:I},s:{s:o,s:o},s:o}}", "type", "stats", "id", s->id,
		      "data", "cpu", cpu_stats(cg), "memory", memory_stats(cg), "pids", "current",
		      read_number(cg, pids, "pids.current"), "limit",
		      read_number(cg, pids, "pids.max") == INT64_MAX ? 0 : read_number(cg, pids, "pids.max"),
		      "blkio", "ioServiceBytesRecursive",
		      io_list(cg, "blkio.throttle.io_service_bytes_recursive", bytes), "ioServicedRecursive",
		      io_list(cg, "blkio.throttle.io_serviced_recursive", counts), "hugetlb", page_stats(cg));
	free(cg);
	return finish(o, JSON_COMPACT, err);
}

/* --- state, list, ps --- */

static void owner_name(u32 uid, char *out, size_t size)
{
	const struct passwd *pw = getpwuid(uid);

	if (pw)
		snprintf(out, size, "%s", pw->pw_name);
	else
		snprintf(out, size, "#%u", uid);
}

static json_t *state_object(const struct status *s, const struct spec *spec)
{
	enum status_phase phase = status_phase(s);
	json_t *annotations = json_object(), *o;
	char owner[64];

	owner_name(s->owner, owner, sizeof(owner));
	for (unsigned i = 0; spec && i < spec->annotation_count; i++)
		json_object_set_new(annotations, spec->annotations[i].name,
				    json_string(spec->annotations[i].value));
	o = json_pack("{s:s,s:s,s:i,s:s,s:s,s:s,s:s,s:s}", "ociVersion", SPEC_VERSION, "id", s->id, "pid",
		      phase == STATUS_STOPPED ? 0 : (int)s->pid, "status", status_phase_name(phase), "bundle",
		      s->bundle, "rootfs", s->rootfs, "created", s->created, "owner", owner);
	if (o && json_object_size(annotations))
		json_object_set(o, "annotations", annotations);
	json_decref(annotations);
	return o;
}

char *report_state(const struct status *s, struct err *err)
{
	struct spec spec;
	bool has_spec = !container_config(s, &spec, NULL);
	json_t *o = state_object(s, has_spec ? &spec : NULL);

	if (has_spec)
		spec_close(&spec);
	return finish(o, JSON_INDENT(2), err);
}

char *report_list(int root, bool json, bool quiet, struct err *err)
{
	json_t *list = json_array();
	char **names, *text = NULL;
	unsigned count = status_list(root, &names);
	size_t size = 0;
	FILE *f;

	for (unsigned i = 0; i < count; i++) {
		struct status s;

		if (!status_open(root, names[i], false, &s, NULL)) {
			json_array_append_new(list, state_object(&s, NULL));
			status_close(&s);
		}
		free(names[i]);
	}
	free(names);
	if (json)
		return finish(list, JSON_COMPACT, err);
	f = open_memstream(&text, &size);
	if (f && !quiet)
		fprintf(f, "%-30s %-10s %-10s %-40s %-32s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED",
			"OWNER");
	for (size_t i = 0; f && i < json_array_size(list); i++) {
		const json_t *o = json_array_get(list, i);

		if (quiet)
			fprintf(f, "%s\n", json_string_value(json_object_get(o, "id")));
		else
			fprintf(f, "%-30s %-10lld %-10s %-40s %-32s %s\n",
				json_string_value(json_object_get(o, "id")),
				(long long)json_integer_value(json_object_get(o, "pid")),
				json_string_value(json_object_get(o, "status")),
				json_string_value(json_object_get(o, "bundle")),
				json_string_value(json_object_get(o, "created")),
				json_string_value(json_object_get(o, "owner")));
	}
	json_decref(list);
	if (!f || fclose(f)) {
		err_set(err, -ENOMEM, "no memory for a report");
		return NULL;
	}
	return text;
}

/* The lines of ps that are about one of the pids; ps itself may not know how to select them. */
static int filter_ps(const pid_t *pids, unsigned count, const char *const *args, FILE *out, struct err *err)
{
	const char *argv[32] = { "ps" }, *const *a = args;
	int ends[2], status = 0, column = -1;
	char *line = NULL;
	unsigned n = 1;
	size_t room = 0;
	FILE *in;
	pid_t child;

	if (!a || !*a)
		argv[n++] = "-ef";
	for (; a && *a && n < ARRAY_SIZE(argv) - 1; a++)
		argv[n++] = *a;
	if (pipe2(ends, O_CLOEXEC) < 0 || (child = fork()) < 0)
		return err_sys(err, -errno, "cannot run ps");
	if (child == 0) {
		dup2(ends[1], 1);
		execvp("ps", (char **)argv);
		_exit(127);
	}
	close(ends[1]);
	in = fdopen(ends[0], "r");
	while (in && getline(&line, &room, in) > 0) {
		char *copy = strdup(line), *save = NULL, *w;
		int i = 0, pid = 0;

		for (w = copy ? strtok_r(copy, " \n", &save) : NULL; w;
		     w = strtok_r(NULL, " \n", &save), i++) {
			if (column < 0 && !strcmp(w, "PID")) {
				column = i;
				pid = -1;
				break;
			}
			if (i == column)
				pid = atoi(w);
		}
		free(copy);
		if (pid == -1)
			fputs(line, out);
		for (unsigned k = 0; k < count; k++)
			if (pid == pids[k])
				fputs(line, out);
	}
	free(line);
	if (in)
		fclose(in);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (status || column < 0)
		return err_set(err, -EINVAL,
			       "ps has failed or shows no column PID; --format json needs no ps");
	return 0;
}

char *report_processes(const struct status *s, bool json, const char *const *ps_args, struct err *err)
{
	struct cgroup *cg = malloc(sizeof(*cg));
	pid_t *pids = NULL;
	unsigned count = 0;
	char *text = NULL;
	size_t size = 0;
	FILE *f;
	int rc = cg ? container_cgroup(s, cg, err) : err_set(err, -ENOMEM, "no memory");

	if (!rc)
		rc = cgroup_processes(cg, &pids, &count, err);
	free(cg);
	if (rc)
		return NULL;
	f = open_memstream(&text, &size);
	if (f && json) {
		fputc('[', f);
		for (unsigned i = 0; i < count; i++)
			fprintf(f, "%s%d", i ? "," : "", (int)pids[i]);
		fputs("]\n", f);
	} else if (f) {
		rc = filter_ps(pids, count, ps_args, f, err);
	}
	free(pids);
	if (!f || fclose(f))
		rc = err_set(err, -ENOMEM, "no memory for a report");
	if (rc) {
		free(text);
		return NULL;
	}
	return text;
}

s64 report_oom_kills(const struct status *s)
{
	struct cgroup *cg = malloc(sizeof(*cg));
	const struct cgroup_hierarchy *v1, *v2;
	char text[4096] = "";
	s64 kills = -1;

	if (cg && !container_cgroup(s, cg, NULL)) {
		v1 = cgroup_v1(cg, "memory");
		v2 = cgroup_v2(cg);
		if (v1 && !cgroup_read(cg, v1, "memory.oom_control", text, sizeof(text)))
			kills = find_number(text, "oom_kill");
		else if (!v1 && v2 && !cgroup_read(cg, v2, "memory.events", text, sizeof(text)))
			kills = find_number(text, "oom_kill");
	}
	free(cg);
	return kills;
}

char *report_oom(const struct status *s, struct err *err)
{
	return finish(json_pack("{s:s,s:s}", "type", "oom", "id", s->id), JSON_COMPACT, err);
}

/* --- features --- */

static json_t *names(const char *(*next)(unsigned i))
{
	json_t *list = json_array();

	for (unsigned i = 0; next && next(i); i++)
		json_array_append_new(list, json_string(next(i)));
	return list;
}

static const char *hook_name(unsigned i)
{
	return i < SPEC_HOOK_KINDS ? spec_hook_names[i] : NULL;
}

char *report_features(void)
{
	json_t *lin = json_pack(
		"{s:o,s:o,s:{s:b,s:b,s:b,s:b,s:b},s:{s:b,s:o,s:o,s:o,s:o,s:o},s:{s:b},s:{s:b},s:{s:b},s:{s:{s:b}}}",
		"namespaces", names(spec_namespace_name), "capabilities", names(caps_name), "cgroup", "v1", 1,
		"v2", 1, "systemd", systemd_available(), "systemdUser", systemd_available(), "rdma", 1,
		"seccomp", "enabled", filter_available(), "actions", names(filter_action_name), "operators",
		names(filter_operator_name), "archs", names(filter_arch_name), "knownFlags",
		names(filter_flag_name), "supportedFlags", names(filter_flag_name), "apparmor", "enabled", 1,
		"selinux", "enabled", 1, "intelRdt", "enabled", 1, "mountExtensions", "idmap", "enabled", 1);
	json_t *o =
		json_pack("{s:s,s:s,s:o,s:o,s:o}", "ociVersionMin", "1.0.0", "ociVersionMax", SPEC_VERSION,
			  "hooks", names(hook_name), "mountOptions", names(mounts_option_name), "linux", lin);

	return finish(o, JSON_INDENT(2), NULL);
}
