/* The configuration that `bothy oci spec` writes: a shell in a container of its own, to be edited. With `rootless` it is one
 * that a user without privileges can start.
 */
#include <stdlib.h>
#include <string.h>

#include "oci/spec.h"

static json_t *strings(const char *const *list)
{
	json_t *array = json_array();

	for (; *list; list++)
		json_array_append_new(array, json_string(*list));
	return array;
}

#define STRINGS(...) strings((const char *const[]){ __VA_ARGS__, NULL })

static json_t *mount(const char *destination, const char *type, const char *source, json_t *options)
{
	return json_pack("{s:s,s:s,s:s,s:o*}", "destination", destination, "type", type, "source", source,
			 "options", options);
}

static json_t *mounts(bool rootless)
{
	json_t *list = json_array(),
	       *pts = STRINGS("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620");

	/* Group 5 (tty) is not mapped for a user without privileges. */
	if (!rootless)
		json_array_append_new(pts, json_string("gid=5"));
	json_array_append_new(list, mount("/proc", "proc", "proc", NULL));
	json_array_append_new(list, mount("/dev", "tmpfs", "tmpfs",
					  STRINGS("nosuid", "strictatime", "mode=755", "size=65536k")));
	json_array_append_new(list, mount("/dev/pts", "devpts", "devpts", pts));
	json_array_append_new(list, mount("/dev/shm", "tmpfs", "shm",
					  STRINGS("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")));
	json_array_append_new(list,
			      mount("/dev/mqueue", "mqueue", "mqueue", STRINGS("nosuid", "noexec", "nodev")));
	if (rootless)
		json_array_append_new(list, mount("/sys", "none", "/sys",
						  STRINGS("rbind", "nosuid", "noexec", "nodev", "ro")));
	else
		json_array_append_new(list, mount("/sys", "sysfs", "sysfs",
						  STRINGS("nosuid", "noexec", "nodev", "ro")));
	if (!rootless)
		json_array_append_new(list, mount("/sys/fs/cgroup", "cgroup", "cgroup",
						  STRINGS("nosuid", "noexec", "nodev", "relatime", "ro")));
	return list;
}

static json_t *process(void)
{
	json_t *caps = STRINGS("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE");

	return json_pack("{s:b,s:{s:i,s:i},s:o,s:o,s:s,s:{s:O,s:O,s:o},s:[{s:s,s:i,s:i}],s:b}", "terminal", 1,
			 "user", "uid", 0, "gid", 0, "args", STRINGS("sh"), "env",
			 STRINGS("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
				 "TERM=xterm"),
			 "cwd", "/", "capabilities", "bounding", caps, "effective", caps, "permitted", caps,
			 "rlimits", "type", "RLIMIT_NOFILE", "hard", 1024, "soft", 1024, "noNewPrivileges",
			 1);
}

char *spec_default(bool rootless, u32 uid, u32 gid)
{
	json_t *namespaces = json_array(), *lin, *root;
	const char *const kinds[] = { "pid", "ipc", "uts", "mount", "cgroup", rootless ? "user" : "network" };
	char *text;

	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		json_array_append_new(namespaces, json_pack("{s:s}", "type", kinds[i]));
	lin = json_pack(
		"{s:o,s:o,s:o}", "namespaces", namespaces, "maskedPaths",
		/* What tells about the host, or about what others do on it: energy and interrupts do. */
		STRINGS("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
			"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
			"/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"),
		"readonlyPaths",
		STRINGS("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"));
	if (rootless) {
		json_object_set_new(lin, "uidMappings",
				    json_pack("[{s:i,s:I,s:i}]", "containerID", 0, "hostID", (json_int_t)uid,
					      "size", 1));
		json_object_set_new(lin, "gidMappings",
				    json_pack("[{s:i,s:I,s:i}]", "containerID", 0, "hostID", (json_int_t)gid,
					      "size", 1));
	} else {
		json_object_set_new(lin, "resources",
				    json_pack("{s:[{s:b,s:s}]}", "devices", "allow", 0, "access", "rwm"));
	}
	root = json_pack("{s:s,s:o,s:{s:s,s:b},s:s,s:o,s:o}", "ociVersion", SPEC_VERSION, "process",
			 process(), "root", "path", "rootfs", "readonly", 1, "hostname", "bothy", "mounts",
			 mounts(rootless), "linux", lin);
	text = root ? json_dumps(root, JSON_INDENT(4)) : NULL;
	json_decref(root);
	return text;
}
