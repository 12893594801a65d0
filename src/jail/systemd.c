/* Transient scopes by sd-bus.
 *
 * libsystemd is loaded with the first call (base/lazy.h): most containers need none. Its calls are synchronous; the one thing
 * that is waited for besides is the manager's signal that a job has ended. root speaks to the system's manager, others to
 * their own.
 *
 * Limits are given to the manager as properties, and written to the group's files as well (limits.c), since not every limit
 * of a container has a property. Those that have one say the same in both places.
 *
 * Omitted: containers as slices, which no engine asks for; rules for devices as properties: the container's own program for
 * devices is in force beside that of systemd, which has none for a unit without such properties.
 */
#include "jail/systemd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/lazy.h"
#include "base/os.h"

#define PATIENCE_NS (30 * 1000000000ull)

static bool is_name(const char *text, size_t len)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@";

	return len && len < 200 && strspn(text, good) >= len && text[0] != '.';
}

bool systemd_is_scope(const char *name)
{
	size_t len = strlen(name);

	return len > 6 && is_name(name, len) && !strcmp(name + len - 6, ".scope");
}

int systemd_parse(const char *path, const char *id, struct systemd_unit *ret_unit, struct err *err)
{
	const char *prefix, *name, *slice = path;
	char usual[300];
	size_t slice_len, prefix_len;

	if (!path || !*path) {
		snprintf(usual, sizeof(usual), ":bothy:%.250s", id);
		slice = usual;
	}
	prefix = strchr(slice, ':');
	name = prefix ? strchr(prefix + 1, ':') : NULL;
	if (!name || strchr(name + 1, ':') || strchr(slice, '/'))
		return err_set(
			err, -EINVAL,
			"linux.cgroupsPath: '%.200s' is not of the form SLICE:PREFIX:NAME, which --systemd-cgroup needs",
			path ? path : "");
	slice_len = (size_t)(prefix - slice);
	prefix_len = (size_t)(name - prefix - 1);
	if (!slice_len) {
		const char *mine = geteuid() == 0 ? "system.slice" : "user.slice";

		memcpy(ret_unit->slice, mine, strlen(mine) + 1);
	} else {
		/* Each '-' is a level: one at an end, or two, would be a level without a name. */
		if (!is_name(slice, slice_len) || slice_len < 7 || strncmp(prefix - 6, ".slice", 6) != 0 ||
		    (slice_len > 7 && (slice[0] == '-' || prefix[-7] == '-')) ||
		    memmem(slice, slice_len, "--", 2))
			return err_set(err, -EINVAL,
				       "linux.cgroupsPath: '%.*s' is no slice, as machine.slice",
				       (int)MIN(slice_len, (size_t)200), slice);
		memcpy(ret_unit->slice, slice, slice_len);
		ret_unit->slice[slice_len] = 0;
	}
	if (!is_name(name + 1, strlen(name + 1)) || (prefix_len && !is_name(prefix + 1, prefix_len)) ||
	    prefix_len + strlen(name) > 240)
		return err_set(
			err, -EINVAL,
			"linux.cgroupsPath: '%.200s' makes no name of a unit: letters, digits and ':-_.\\@'",
			prefix + 1);
	snprintf(ret_unit->name, sizeof(ret_unit->name), "%.*s%s%s.scope", (int)prefix_len, prefix + 1,
		 prefix_len ? "-" : "", name + 1);
	return 0;
}

#if HAVE_SYSTEMD
#include <systemd/sd-bus.h>

#define SERVICE "org.freedesktop.systemd1"
#define OBJECT  "/org/freedesktop/systemd1"
#define MANAGER "org.freedesktop.systemd1.Manager"

static struct {
	__typeof__(sd_bus_open_system) *open_system;
	__typeof__(sd_bus_open_user) *open_user;
	__typeof__(sd_bus_flush_close_unref) *close;
	__typeof__(sd_bus_call_method) *call_method;
	__typeof__(sd_bus_call) *call;
	__typeof__(sd_bus_message_new_method_call) *new_call;
	__typeof__(sd_bus_message_append) *append;
	__typeof__(sd_bus_message_append_array) *append_array;
	__typeof__(sd_bus_message_open_container) *enter;
	__typeof__(sd_bus_message_close_container) *leave;
	__typeof__(sd_bus_message_read) *read;
	__typeof__(sd_bus_message_unref) *unref;
	__typeof__(sd_bus_match_signal) *match_signal;
	__typeof__(sd_bus_process) *process;
	__typeof__(sd_bus_wait) *wait;
	__typeof__(sd_bus_get_property_string) *get_string;
	__typeof__(sd_bus_error_free) *error_free;
	__typeof__(sd_bus_error_has_name) *error_has_name;
} lib;

static const struct lazy_function lib_functions[] = {
	{ "sd_bus_open_system", &lib.open_system },
	{ "sd_bus_open_user", &lib.open_user },
	{ "sd_bus_flush_close_unref", &lib.close },
	{ "sd_bus_call_method", &lib.call_method },
	{ "sd_bus_call", &lib.call },
	{ "sd_bus_message_new_method_call", &lib.new_call },
	{ "sd_bus_message_append", &lib.append },
	{ "sd_bus_message_append_array", &lib.append_array },
	{ "sd_bus_message_open_container", &lib.enter },
	{ "sd_bus_message_close_container", &lib.leave },
	{ "sd_bus_message_read", &lib.read },
	{ "sd_bus_message_unref", &lib.unref },
	{ "sd_bus_match_signal", &lib.match_signal },
	{ "sd_bus_process", &lib.process },
	{ "sd_bus_wait", &lib.wait },
	{ "sd_bus_get_property_string", &lib.get_string },
	{ "sd_bus_error_free", &lib.error_free },
	{ "sd_bus_error_has_name", &lib.error_has_name },
};

bool systemd_available(void)
{
	return true;
}

static int open_bus(sd_bus **ret_bus, struct err *err)
{
	int rc = lazy_load("libsystemd.so.0", lib_functions, ARRAY_SIZE(lib_functions), err);

	if (rc)
		return err_wrap(err, "--systemd-cgroup");
	rc = geteuid() == 0 ? lib.open_system(ret_bus) : lib.open_user(ret_bus);
	return rc < 0 ? err_sys(err, rc,
				"--systemd-cgroup: cannot reach systemd over D-Bus; where it does not run, have the "
				"engine use cgroupfs")
		      : 0;
}

/* Of a call that has failed. */
static int bus_error(int rc, sd_bus_error *e, const char *what, const char *unit, struct err *err)
{
	err_set(err, rc < 0 ? rc : -EIO, "systemd does not %s the unit '%.200s': %.200s", what, unit,
		e->message ? e->message : "no answer");
	lib.error_free(e);
	return rc < 0 ? rc : -EIO;
}

int systemd_group(const struct systemd_unit *unit, char *ret_path, size_t size, struct err *err)
{
	sd_bus_error e = SD_BUS_ERROR_NULL;
	char *own = NULL, at[1024];
	sd_bus *bus = NULL;
	size_t n;
	int rc = open_bus(&bus, err);

	if (rc)
		return rc;
	rc = lib.get_string(bus, SERVICE, OBJECT, MANAGER, "ControlGroup", &e, &own);
	lib.close(bus);
	if (rc < 0)
		return bus_error(rc, &e, "say where its control groups are, for", unit->name, err);
	n = (size_t)snprintf(at, sizeof(at), "%s", own);
	free(own);
	if (n >= sizeof(at) - 2 * sizeof(unit->name))
		return err_set(err, -ENAMETOOLONG, "systemd's control group has a path of %zu bytes", n);
	while (n && at[n - 1] == '/')
		at[--n] = 0;
	/* a-b.slice is a.slice/a-b.slice; -.slice is the root. */
	for (const char *p = unit->slice; strcmp(unit->slice, "-.slice") != 0 && *p; p++) {
		if (*p == '-' || *p == '.')
			n += (size_t)snprintf(at + n, sizeof(at) - n, "/%.*s.slice", (int)(p - unit->slice),
					      unit->slice);
		if (n >= sizeof(at) - sizeof(unit->name))
			return err_set(err, -ENAMETOOLONG, "the slice '%s' is too deep", unit->slice);
		if (*p == '.')
			break;
	}
	if (snprintf(ret_path, size, "%s/%s", at, unit->name) >= (int)size)
		return err_set(err, -ENAMETOOLONG, "the unit's path is longer than %zu bytes", size - 1);
	return 0;
}

/* "0-3,7" as a mask of bits, least significant byte first. */
static int add_list(sd_bus_message *m, const char *name, const char *list)
{
	u8 mask[128] = { 0 };
	size_t len = 0;
	int rc;

	for (const char *p = list; *p;) {
		char *end;
		unsigned long first = strtoul(p, &end, 10), last = first;

		if (end != p && *end == '-')
			last = strtoul(end + 1, &end, 10);
		/* What is no list is refused by the kernel, with a sentence (limits.c). */
		if (end == p || last < first || last >= 8 * sizeof(mask))
			return 0;
		for (; first <= last; first++) {
			mask[first / 8] |= (u8)(1u << first % 8);
			len = MAX(len, first / 8 + 1);
		}
		p = end + strspn(end, ",\n ");
	}
	rc = lib.enter(m, 'r', "sv");
	if (rc >= 0)
		rc = lib.append(m, "s", name);
	if (rc >= 0)
		rc = lib.enter(m, 'v', "ay");
	if (rc >= 0)
		rc = lib.append_array(m, 'y', mask, len);
	if (rc >= 0)
		rc = lib.leave(m);
	return rc < 0 ? rc : lib.leave(m);
}

static int add_number(sd_bus_message *m, const char *name, s64 value)
{
	return lib.append(m, "(sv)", name, "t", value < 0 ? UINT64_MAX : (u64)value);
}

static int add_limits(sd_bus_message *m, const struct limits *l)
{
	const struct {
		const char *name;
		struct limits_value value;
	} rows[] = {
		{ "MemoryMax", l->memory },
		{ "MemoryLow", l->memory_reservation },
		{ "TasksMax", l->pids },
	};
	int rc = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(rows) && rc >= 0; i++)
		if (rows[i].value.set && rows[i].value.v)
			rc = add_number(m, rows[i].name, rows[i].value.v);
	/* Memory and swap together, as version 1 has it. */
	if (rc >= 0 && l->memory_swap.set && l->memory_swap.v && l->memory.set && l->memory.v > 0)
		rc = add_number(m, "MemorySwapMax",
				l->memory_swap.v < 0 ? -1 : MAX(l->memory_swap.v - l->memory.v, 0));
	if (rc >= 0 && l->cpu_shares.set && l->cpu_shares.v)
		rc = add_number(m, "CPUWeight", limits_cpu_weight(l->cpu_shares.v));
	if (rc >= 0 && l->io_weight.set && l->io_weight.v)
		rc = add_number(m, "IOWeight", limits_io_weight(l->io_weight.v));
	if (rc >= 0 && l->cpu_period.set && l->cpu_period.v)
		rc = add_number(m, "CPUQuotaPeriodUSec", l->cpu_period.v);
	if (rc >= 0 && l->cpu_quota.set && l->cpu_quota.v) {
		s64 period = l->cpu_period.set && l->cpu_period.v ? l->cpu_period.v : 100000;

		rc = add_number(m, "CPUQuotaPerSecUSec",
				l->cpu_quota.v <= 0
					? -1
					: (s64)MIN((double)l->cpu_quota.v * 1e6 / (double)period, 1e18));
	}
	if (rc >= 0 && l->cpus)
		rc = add_list(m, "AllowedCPUs", l->cpus);
	if (rc >= 0 && l->mems)
		rc = add_list(m, "AllowedMemoryNodes", l->mems);
	return rc;
}

/* What a job has come to. */
struct job {
	const char *path;
	char result[64]; /* "": not yet */
};

static int job_removed(sd_bus_message *m, void *opaque, sd_bus_error *ret_error)
{
	struct job *job = opaque;
	const char *path, *unit, *result;
	u32 id;

	if (lib.read(m, "uoss", &id, &path, &unit, &result) >= 0 && job->path && !strcmp(path, job->path))
		snprintf(job->result, sizeof(job->result), "%s", result);
	return 0;
}

static int wait_job(sd_bus *bus, struct job *job, const char *unit, struct err *err)
{
	u64 end = os_now_ns() + PATIENCE_NS;
	int rc = 0;

	while (rc >= 0 && !job->result[0]) {
		rc = lib.process(bus, NULL);
		if (rc == 0)
			rc = lib.wait(bus, 1000000);
		if (os_now_ns() > end)
			return err_set(err, -ETIMEDOUT,
				       "systemd does not finish with the unit '%.200s' within 30 seconds",
				       unit);
	}
	if (rc < 0)
		return err_sys(err, rc, "systemd has gone while it worked on the unit '%.200s'", unit);
	return !strcmp(job->result, "done")
		       ? 0
		       : err_set(err, -EIO, "systemd's job for the unit '%.200s' ends with '%.60s'", unit,
				 job->result);
}

static int fill_start(sd_bus_message *m, const struct systemd_unit *unit, const char *description, pid_t pid,
		      const struct limits *limits)
{
	int rc = lib.append(m, "ss", unit->name, "replace");

	if (rc >= 0)
		rc = lib.enter(m, 'a', "(sv)");
	/* Without the usual dependencies: those stop what runs at a shutdown before its engine could. */
	if (rc >= 0)
		rc = lib.append(m, "(sv)(sv)(sv)(sv)(sv)(sv)", "Description", "s", description, "Slice", "s",
				unit->slice, "Delegate", "b", 1, "DefaultDependencies", "b", 0, "PIDs", "au",
				1, (u32)pid, "CollectMode", "s", "inactive-or-failed");
	if (rc >= 0 && limits)
		rc = add_limits(m, limits);
	if (rc >= 0)
		rc = lib.leave(m);
	return rc < 0 ? rc : lib.append(m, "a(sa(sv))", 0);
}

/* *ret_exists: there is a unit of that name. */
static int try_start(sd_bus *bus, const struct systemd_unit *unit, const char *description, pid_t pid,
		     const struct limits *limits, struct job *job, bool *ret_exists, struct err *err)
{
	sd_bus_error e = SD_BUS_ERROR_NULL;
	sd_bus_message *m = NULL, *reply = NULL;
	int rc = lib.new_call(bus, &m, SERVICE, OBJECT, MANAGER, "StartTransientUnit");

	if (rc >= 0)
		rc = fill_start(m, unit, description, pid, limits);
	if (rc >= 0)
		rc = lib.call(bus, m, PATIENCE_NS / 1000, &e, &reply);
	if (rc >= 0)
		rc = lib.read(reply, "o", &job->path);
	*ret_exists = lib.error_has_name(&e, SERVICE ".UnitExists");
	rc = rc < 0 ? bus_error(rc, &e, "start", unit->name, err) : wait_job(bus, job, unit->name, err);
	lib.unref(m);
	lib.unref(reply);
	return rc;
}

int systemd_start(const struct systemd_unit *unit, const char *description, pid_t pid,
		  const struct limits *limits, struct err *err)
{
	struct job job = { 0 };
	struct err first = { 0 };
	bool exists;
	sd_bus *bus = NULL;
	int rc = open_bus(&bus, err);

	if (rc)
		return rc;
	/* Without this the manager sends no signals; it may have been asked before. */
	lib.call_method(bus, SERVICE, OBJECT, MANAGER, "Subscribe", NULL, NULL, "");
	rc = lib.match_signal(bus, NULL, SERVICE, OBJECT, MANAGER, "JobRemoved", job_removed, &job);
	if (rc < 0) {
		err_sys(err, rc, "cannot listen to systemd");
	} else {
		rc = try_start(bus, unit, description, pid, limits, &job, &exists, &first);
		if (rc && exists) {
			/* Failed, and still remembered? One that is alive stays, and is refused again. */
			lib.call_method(bus, SERVICE, OBJECT, MANAGER, "ResetFailedUnit", NULL, NULL, "s",
					unit->name);
			rc = try_start(bus, unit, description, pid, limits, &job, &exists, &first);
		}
		if (rc && err)
			*err = first;
	}
	lib.close(bus);
	return rc < 0 ? rc : 0;
}

int systemd_update(const char *name, const struct limits *limits, struct err *err)
{
	sd_bus_error e = SD_BUS_ERROR_NULL;
	sd_bus_message *m = NULL;
	sd_bus *bus = NULL;
	int rc = open_bus(&bus, err);

	if (rc)
		return rc;
	rc = lib.new_call(bus, &m, SERVICE, OBJECT, MANAGER, "SetUnitProperties");
	/* Until the next start alone, which is never. */
	if (rc >= 0)
		rc = lib.append(m, "sb", name, 1);
	if (rc >= 0)
		rc = lib.enter(m, 'a', "(sv)");
	if (rc >= 0)
		rc = add_limits(m, limits);
	if (rc >= 0)
		rc = lib.leave(m);
	if (rc >= 0)
		rc = lib.call(bus, m, PATIENCE_NS / 1000, &e, NULL);
	rc = rc < 0 ? bus_error(rc, &e, "change", name, err) : 0;
	lib.unref(m);
	lib.close(bus);
	return rc;
}

int systemd_stop(const char *name, struct err *err)
{
	sd_bus_error e = SD_BUS_ERROR_NULL;
	sd_bus *bus = NULL;
	int rc = open_bus(&bus, err);

	if (rc)
		return rc;
	rc = lib.call_method(bus, SERVICE, OBJECT, MANAGER, "StopUnit", &e, NULL, "ss", name, "replace");
	if (rc < 0 && lib.error_has_name(&e, SERVICE ".NoSuchUnit")) {
		lib.error_free(&e);
		rc = 0;
	}
	rc = rc < 0 ? bus_error(rc, &e, "stop", name, err) : 0;
	lib.call_method(bus, SERVICE, OBJECT, MANAGER, "ResetFailedUnit", NULL, NULL, "s", name);
	lib.close(bus);
	return rc;
}
#else
bool systemd_available(void)
{
	return false;
}

static int refuse(struct err *err)
{
	return err_set(
		err, -ENOTSUP,
		"--systemd-cgroup: this bothy was built without libsystemd; have the engine use cgroupfs "
		"(podman: --cgroup-manager cgroupfs)");
}

int systemd_group(const struct systemd_unit *unit, char *ret_path, size_t size, struct err *err)
{
	return refuse(err);
}

int systemd_start(const struct systemd_unit *unit, const char *description, pid_t pid,
		  const struct limits *limits, struct err *err)
{
	return refuse(err);
}

int systemd_update(const char *name, const struct limits *limits, struct err *err)
{
	return refuse(err);
}

int systemd_stop(const char *name, struct err *err)
{
	return refuse(err);
}
#endif
