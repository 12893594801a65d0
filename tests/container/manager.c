/* manager: what a container's runtime asks of systemd, on the bus that $DBUS_SYSTEM_BUS_ADDRESS says: transient scopes. Makes the
 * group in the hierarchies that systemd has for itself, moves the process in, and ends the unit when it is told to. Prints what it
 * is asked: "start UNIT SLICE", "set UNIT", "stop UNIT", "reset UNIT", and "NAME=VALUE" for each property before it.
 * With an argument each job ends with that result instead of "done".
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

static const char *result = "done";
static char units[16][256], paths[16][1024];
static unsigned unit_count, job_count;

/* Where systemd is of itself: all of version 2, and of a mixed machine its own hierarchy. */
static const char *root(unsigned i)
{
	static const char *const mixed[] = { "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd" };
	static const char *const pure[] = { "/sys/fs/cgroup" };
	struct stat st;

	if (!stat("/sys/fs/cgroup/cgroup.controllers", &st))
		return i ? NULL : pure[0];
	return i < 2 ? mixed[i] : NULL;
}

static void make_group(const char *path, unsigned pid)
{
	const char *base;

	for (unsigned i = 0; (base = root(i)); i++) {
		char full[2048];
		int fd;

		for (const char *p = path; *p; p += *p ? 1 + strcspn(p + 1, "/") : 0) {
			snprintf(full, sizeof(full), "%s%.*s", base, (int)(p - path), path);
			mkdir(full, 0755);
		}
		snprintf(full, sizeof(full), "%s%s", base, path);
		mkdir(full, 0755);
		snprintf(full, sizeof(full), "%s%s/cgroup.procs", base, path);
		fd = open(full, O_WRONLY);
		if (fd < 0 || dprintf(fd, "%u", pid) < 0)
			perror(full);
		if (fd >= 0)
			close(fd);
	}
}

/* The group and the slices above it, as far as they are empty. */
static void remove_group(const char *path)
{
	const char *base;

	for (unsigned i = 0; (base = root(i)); i++) {
		char full[2048];

		snprintf(full, sizeof(full), "%s%s", base, path);
		while (strlen(full) > strlen(base) && (!rmdir(full) || errno == ENOENT))
			*strrchr(full, '/') = 0;
	}
}

static void group_path(const char *slice, const char *unit, char *out, size_t size)
{
	size_t n = 0;

	for (const char *p = slice; *p; p++) {
		if (*p == '-' || *p == '.')
			n += (size_t)snprintf(out + n, size - n, "/%.*s.slice", (int)(p - slice), slice);
		if (*p == '.')
			break;
	}
	snprintf(out + n, size - n, "/%s", unit);
}

static void read_properties(sd_bus_message *m, const char **ret_slice, unsigned *ret_pid)
{
	const char *name, *text, *type;
	unsigned long long number;
	unsigned pid;
	char kind;
	int flag;

	sd_bus_message_enter_container(m, 'a', "(sv)");
	while (sd_bus_message_enter_container(m, 'r', "sv") > 0) {
		sd_bus_message_read(m, "s", &name);
		sd_bus_message_peek_type(m, &kind, &type);
		printf("%s=", name);
		if (!strcmp(type, "s") && sd_bus_message_read(m, "v", "s", &text) > 0) {
			puts(text);
			if (!strcmp(name, "Slice"))
				*ret_slice = text;
		} else if (!strcmp(type, "t") && sd_bus_message_read(m, "v", "t", &number) > 0) {
			printf("%llu\n", number);
		} else if (!strcmp(type, "b") && sd_bus_message_read(m, "v", "b", &flag) > 0) {
			printf("%d\n", flag);
		} else if (!strcmp(type, "au") && sd_bus_message_read(m, "v", "au", 1, &pid) > 0) {
			*ret_pid = pid;
			puts("one");
		} else if (!strcmp(type, "ay")) {
			const unsigned char *bytes;
			size_t len;

			sd_bus_message_enter_container(m, 'v', "ay");
			sd_bus_message_read_array(m, 'y', (const void **)&bytes, &len);
			for (size_t i = 0; i < len; i++)
				printf("%02x", bytes[i]);
			putchar('\n');
			sd_bus_message_exit_container(m);
		} else {
			puts("?");
			sd_bus_message_skip(m, "v");
		}
		sd_bus_message_exit_container(m);
	}
	sd_bus_message_exit_container(m);
}

static int reply_job(sd_bus_message *m, const char *unit)
{
	char path[64];

	snprintf(path, sizeof(path), "/org/freedesktop/systemd1/job/%u", ++job_count);
	sd_bus_reply_method_return(m, "o", path);
	return sd_bus_emit_signal(sd_bus_message_get_bus(m), "/org/freedesktop/systemd1",
				  "org.freedesktop.systemd1.Manager", "JobRemoved", "uoss", job_count, path,
				  unit, result);
}

static int find(const char *unit)
{
	for (unsigned i = 0; i < unit_count; i++)
		if (!strcmp(units[i], unit))
			return (int)i;
	return -1;
}

static int on_start(sd_bus_message *m, void *opaque, sd_bus_error *e)
{
	const char *unit, *mode, *slice = "system.slice";
	unsigned pid = 0;

	sd_bus_message_read(m, "ss", &unit, &mode);
	read_properties(m, &slice, &pid);
	printf("start %s %s\n", unit, slice);
	fflush(stdout);
	if (find(unit) >= 0 || unit_count == 16)
		return sd_bus_error_set(e, "org.freedesktop.systemd1.UnitExists",
					"the unit is there already");
	if (!strcmp(result, "done")) {
		snprintf(units[unit_count], sizeof(units[0]), "%s", unit);
		group_path(slice, unit, paths[unit_count], sizeof(paths[0]));
		make_group(paths[unit_count++], pid);
	}
	return reply_job(m, unit);
}

static int on_stop(sd_bus_message *m, void *opaque, sd_bus_error *e)
{
	const char *unit, *mode;
	int i;

	sd_bus_message_read(m, "ss", &unit, &mode);
	printf("stop %s\n", unit);
	fflush(stdout);
	i = find(unit);
	if (i < 0)
		return sd_bus_error_set(e, "org.freedesktop.systemd1.NoSuchUnit", "there is no such unit");
	remove_group(paths[i]);
	memmove(units[i], units[i + 1], (size_t)(15 - i) * sizeof(units[0]));
	memmove(paths[i], paths[i + 1], (size_t)(15 - i) * sizeof(paths[0]));
	unit_count--;
	return reply_job(m, unit);
}

static int on_set(sd_bus_message *m, void *opaque, sd_bus_error *e)
{
	const char *unit, *slice;
	unsigned pid;
	int runtime;

	sd_bus_message_read(m, "sb", &unit, &runtime);
	read_properties(m, &slice, &pid);
	printf("set %s\n", unit);
	fflush(stdout);
	return sd_bus_reply_method_return(m, "");
}

static int on_reset(sd_bus_message *m, void *opaque, sd_bus_error *e)
{
	const char *unit;

	sd_bus_message_read(m, "s", &unit);
	printf("reset %s\n", unit);
	fflush(stdout);
	return sd_bus_reply_method_return(m, "");
}

static int on_subscribe(sd_bus_message *m, void *opaque, sd_bus_error *e)
{
	return sd_bus_reply_method_return(m, "");
}

static int get_group(sd_bus *bus, const char *path, const char *interface, const char *property,
		     sd_bus_message *reply, void *opaque, sd_bus_error *e)
{
	return sd_bus_message_append(reply, "s", "");
}

static const sd_bus_vtable table[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("ControlGroup", "s", get_group, 0, 0),
	SD_BUS_METHOD("Subscribe", "", "", on_subscribe, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("StartTransientUnit", "ssa(sv)a(sa(sv))", "o", on_start, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("StopUnit", "ss", "o", on_stop, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("SetUnitProperties", "sba(sv)", "", on_set, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("ResetFailedUnit", "s", "", on_reset, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_SIGNAL("JobRemoved", "uoss", 0),
	SD_BUS_VTABLE_END,
};

int main(int argc, char **argv)
{
	sd_bus *bus;
	int rc = sd_bus_open_system(&bus);

	if (argc > 1)
		result = argv[1];
	if (rc >= 0)
		rc = sd_bus_add_object_vtable(bus, NULL, "/org/freedesktop/systemd1",
					      "org.freedesktop.systemd1.Manager", table, NULL);
	if (rc >= 0)
		rc = sd_bus_request_name(bus, "org.freedesktop.systemd1", 0);
	if (rc < 0) {
		fprintf(stderr, "manager: %s\n", strerror(-rc));
		return 1;
	}
	puts("ready");
	fflush(stdout);
	while (rc >= 0) {
		rc = sd_bus_process(bus, NULL);
		if (rc == 0)
			rc = sd_bus_wait(bus, UINT64_MAX);
	}
	while (unit_count)
		remove_group(paths[--unit_count]);
	return 0;
}
