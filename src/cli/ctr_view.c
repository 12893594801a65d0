/* Tables and JSON about containers. Text that a container or its root's path brings is printed with control characters replaced,
 * for a terminal would obey them.
 */
#include "cli/ctr_view.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jail/nsview.h"

static const char *text_of(const json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	return text ? text : "";
}

static void print_text(const char *text, int width)
{
	int n = 0;

	for (; *text; text++, n++)
		putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
	for (; n < width; n++)
		putchar(' ');
	putchar(width ? ' ' : '\n');
}

static int print_json(json_t *o, struct err *err)
{
	int rc = o ? json_dumpf(o, stdout, JSON_INDENT(2)) : -1;

	json_decref(o);
	if (rc)
		return err_set(err, -ENOMEM, "no memory for a report");
	putchar('\n');
	return 0;
}

/* What the record says, and what is seen. */
static json_t *describe(const struct ctr_store *store, const struct ctr *c)
{
	json_t *o = json_deep_copy(c->record);
	struct status s;
	bool has;
	const char *phase = ctr_store_phase(store, c, &s, &has);
	int pid = has && strcmp(phase, "exited") != 0 && strcmp(phase, "dead") != 0 ? (int)s.pid : 0;

	json_object_set_new(o, "name", json_string(c->name));
	json_object_set_new(o, "status", json_string(phase));
	json_object_set_new(o, "pid", json_integer(pid));
	json_object_set_new(o, "folder", json_string(c->path));
	if (has && s.cgroup[0])
		json_object_set_new(o, "cgroup", json_string(s.cgroup));
	if (has)
		status_close(&s);
	return o;
}

int ctr_view_list(const struct ctr_store *store, bool json, bool quiet, struct err *err)
{
	json_t *list = json_array();
	char **names;
	unsigned count = status_list(store->dir, &names);

	for (unsigned i = 0; i < count; i++) {
		struct ctr c = { .dir = -1 };

		/* It may have been removed meanwhile. */
		if (!ctr_store_find(store, names[i], &c, NULL)) {
			json_array_append_new(list, describe(store, &c));
			ctr_store_put(&c);
		}
		free(names[i]);
	}
	free(names);
	if (json)
		return print_json(list, err);
	if (!quiet)
		printf("%-20s %-9s %-8s %-12s %s\n", "NAME", "STATUS", "PID", "ADDRESS", "ROOT");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *o = json_array_get(list, i);
		const char *phase = text_of(o, "status");
		char status[24], pid[16];

		if (quiet) {
			print_text(text_of(o, "name"), 0);
			continue;
		}
		snprintf(status, sizeof(status), "%s", phase);
		if (!strcmp(phase, "exited"))
			snprintf(status, sizeof(status), "exited %d",
				 (int)json_integer_value(json_object_get(o, "exit")));
		snprintf(pid, sizeof(pid), "%d", (int)json_integer_value(json_object_get(o, "pid")));
		print_text(text_of(o, "name"), 20);
		print_text(status, 9);
		print_text(strcmp(pid, "0") ? pid : "-", 8);
		print_text(*text_of(o, "address") ? text_of(o, "address") : "-", 12);
		print_text(text_of(o, "root"), 0);
	}
	json_decref(list);
	return 0;
}

int ctr_view_container(const struct ctr_store *store, const struct ctr *c, struct err *err)
{
	return print_json(describe(store, c), err);
}

/* --- namespaces --- */

/* What was noted when the container was made; 0: nothing. */
static void read_noted(const struct ctr *c, u64 *inodes)
{
	int fd = openat(c->dir, "namespaces", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	unsigned long long inode;
	char name[16];

	while (f && fscanf(f, "%15s %llu", name, &inode) == 2) {
		enum ns_kind k = ns_find(name);

		if (k < NS_KINDS)
			inodes[k] = inode;
	}
	if (f)
		fclose(f);
}

static void add_holder(void *opaque, enum nsview_holder holder, pid_t number, const char *text)
{
	json_t *o = opaque;

	switch (holder) {
	case NSVIEW_PROCESS:
		json_array_append_new(json_object_get(o, "processes"), json_integer(number));
		break;
	case NSVIEW_DESCRIPTOR:
		json_array_append_new(json_object_get(o, "descriptors"),
				      json_pack("{s:i,s:i}", "pid", (int)number, "fd", atoi(text)));
		break;
	case NSVIEW_MOUNT: json_array_append_new(json_object_get(o, "mounts"), json_string(text)); break;
	}
}

static json_t *read_map(pid_t pid, const char *file)
{
	unsigned inside, outside, count;
	json_t *list = json_array();
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	f = fopen(path, "re");
	while (f && fscanf(f, "%u %u %u", &inside, &outside, &count) == 3)
		json_array_append_new(list,
				      json_pack("{s:I,s:I,s:I}", "inside", (json_int_t)inside, "outside",
						(json_int_t)outside, "count", (json_int_t)count));
	if (f)
		fclose(f);
	return list;
}

static json_t *collect(const struct ctr_store *store, const struct ctr *c)
{
	json_t *o = json_object(), *list = json_array();
	u64 inodes[NS_KINDS] = { 0 };
	struct status s;
	bool has;
	pid_t pid = 0;
	int pidfd = -1;

	ctr_store_phase(store, c, &s, &has);
	if (has && !status_pidfd(&s, &pidfd, NULL)) {
		pid = s.pid;
		for (enum ns_kind k = 0; k < NS_KINDS; k++)
			inodes[k] = nsview_inode(pid, k);
		/* What has been read is that of the process only if it is still there. */
		close(pidfd);
		if (status_pidfd(&s, &pidfd, NULL))
			pid = 0;
		else
			close(pidfd);
	}
	if (has)
		status_close(&s);
	if (!pid)
		read_noted(c, inodes);
	json_object_set_new(o, "pid", json_integer(pid));
	for (enum ns_kind k = 0; k < NS_KINDS; k++) {
		json_t *one;

		if (!inodes[k])
			continue;
		one = json_pack("{s:s,s:I,s:b,s:[],s:[],s:[]}", "type", ns_types[k].name, "inode",
				(json_int_t)inodes[k], "host", inodes[k] == nsview_inode(0, k), "processes",
				"descriptors", "mounts");
		/* The host's is held by all. */
		if (inodes[k] != nsview_inode(0, k))
			nsview_holders(k, inodes[k], add_holder, one);
		if (k == NS_USER && pid) {
			json_object_set_new(one, "uids", read_map(pid, "uid_map"));
			json_object_set_new(one, "gids", read_map(pid, "gid_map"));
		}
		json_array_append_new(list, one);
	}
	json_object_set_new(o, "namespaces", list);
	return o;
}

static void print_ids(const json_t *one, const char *key, const char *what)
{
	const json_t *list = json_object_get(one, key);

	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *r = json_array_get(list, i);
		long long in = json_integer_value(json_object_get(r, "inside")),
			  out = json_integer_value(json_object_get(r, "outside")),
			  n = json_integer_value(json_object_get(r, "count"));

		printf("  %s %lld-%lld in the container are %lld-%lld of the host\n", what, in, in + n - 1,
		       out, out + n - 1);
	}
}

static void print_holders(const json_t *one)
{
	const json_t *processes = json_object_get(one, "processes"),
		     *descriptors = json_object_get(one, "descriptors"),
		     *mounts = json_object_get(one, "mounts");
	size_t count = json_array_size(processes);

	if (json_is_true(json_object_get(one, "host"))) {
		puts("the host's");
		return;
	}
	if (!count && !json_array_size(descriptors) && !json_array_size(mounts)) {
		puts("nobody; it has ended, or something in the kernel keeps it");
		return;
	}
	printf("%zu process%s", count, count == 1 ? "" : "es");
	for (size_t i = 0; i < count && i < 8; i++)
		printf("%s%lld", i ? "," : " ", (long long)json_integer_value(json_array_get(processes, i)));
	fputs(count > 8 ? ",..." : "", stdout);
	for (size_t i = 0; i < json_array_size(descriptors); i++) {
		const json_t *d = json_array_get(descriptors, i);

		printf("; descriptor %lld of process %lld",
		       (long long)json_integer_value(json_object_get(d, "fd")),
		       (long long)json_integer_value(json_object_get(d, "pid")));
	}
	for (size_t i = 0; i < json_array_size(mounts); i++) {
		fputs("; mount ", stdout);
		print_text(json_string_value(json_array_get(mounts, i)), 1);
	}
	putchar('\n');
}

int ctr_view_namespaces(const struct ctr_store *store, const struct ctr *c, bool json, struct err *err)
{
	json_t *o = collect(store, c);
	const json_t *list = json_object_get(o, "namespaces");

	if (json)
		return print_json(o, err);
	if (!json_array_size(list)) {
		json_decref(o);
		return err_set(err, -ESRCH, "container '%s' has not had namespaces yet", c->name);
	}
	printf("%-8s %-11s %s\n", "TYPE", "INODE", "HELD BY");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *one = json_array_get(list, i);

		printf("%-8s %-11lld ", text_of(one, "type"),
		       (long long)json_integer_value(json_object_get(one, "inode")));
		print_holders(one);
		print_ids(one, "uids", "user ids");
		print_ids(one, "gids", "group ids");
	}
	json_decref(o);
	return 0;
}
