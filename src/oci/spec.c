/* The tables of config.json [runtime-spec config.md, config-linux.md, version 1.2].
 *
 * A member that has no row here is ignored, as the specification says; so are the sections of other systems. What the
 * tables cannot say, because it takes two members or a meaning, is in spec_check.c.
 *
 * Omitted: the VM section is not looked at.
 */
#include "oci/spec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oci/spec_check.h"

#define END                  \
	{                    \
		.name = NULL \
	}
#define AT(s, m) offsetof(struct s, m)
#define STRING(n, s, m)                                                \
	{                                                              \
		.name = (n), .kind = JTABLE_STRING, .offset = AT(s, m) \
	}
#define NEEDED(n, s, m)                                                                  \
	{                                                                                \
		.name = (n), .kind = JTABLE_STRING, .offset = AT(s, m), .required = true \
	}
#define CHOICE(n, s, m, c)                                                            \
	{                                                                             \
		.name = (n), .kind = JTABLE_STRING, .offset = AT(s, m), .choice = (c) \
	}
#define BOOL(n, s, m)                                                \
	{                                                            \
		.name = (n), .kind = JTABLE_BOOL, .offset = AT(s, m) \
	}
#define U32(n, s, m)                                                \
	{                                                           \
		.name = (n), .kind = JTABLE_U32, .offset = AT(s, m) \
	}
#define S64(n, s, m)                                                \
	{                                                           \
		.name = (n), .kind = JTABLE_S64, .offset = AT(s, m) \
	}
#define S64_IN(n, s, m, l, h)                                                                \
	{                                                                                    \
		.name = (n), .kind = JTABLE_S64, .offset = AT(s, m), .min = (l), .max = (h), \
		.required = true                                                             \
	}
#define U64(n, s, m)                                                \
	{                                                           \
		.name = (n), .kind = JTABLE_U64, .offset = AT(s, m) \
	}
#define VALUE(n, s, m)                                                \
	{                                                             \
		.name = (n), .kind = JTABLE_VALUE, .offset = AT(s, m) \
	}
#define VALUE_IN(n, s, m, l, h)                                                               \
	{                                                                                     \
		.name = (n), .kind = JTABLE_VALUE, .offset = AT(s, m), .min = (l), .max = (h) \
	}
#define STRINGS(n, s, m, c)                                                                       \
	{                                                                                         \
		.name = (n), .kind = JTABLE_STRINGS, .offset = AT(s, m), .count_offset = AT(s, c) \
	}
#define PAIRS(n, s, m, c)                                                                       \
	{                                                                                       \
		.name = (n), .kind = JTABLE_PAIRS, .offset = AT(s, m), .count_offset = AT(s, c) \
	}
#define OBJECT(n, s, m, t)                                                         \
	{                                                                          \
		.name = (n), .kind = JTABLE_OBJECT, .offset = AT(s, m), .sub = (t) \
	}
#define OPTIONAL(n, s, m, t)                                                          \
	{                                                                             \
		.name = (n), .kind = JTABLE_OPTIONAL, .offset = AT(s, m), .sub = (t), \
		.sub_size = sizeof(*((struct s *)0)->m)                               \
	}
#define OBJECTS(n, s, m, c, t)                                                                     \
	{                                                                                          \
		.name = (n), .kind = JTABLE_OBJECTS, .offset = AT(s, m), .count_offset = AT(s, c), \
		.sub = (t), .sub_size = sizeof(*((struct s *)0)->m)                                \
	}

/* --- process --- */

static const char *policy_name(unsigned i)
{
	static const char *const names[] = { "SCHED_OTHER", "SCHED_FIFO", "SCHED_RR",      "SCHED_BATCH",
					     "SCHED_ISO",   "SCHED_IDLE", "SCHED_DEADLINE" };

	return i < ARRAY_SIZE(names) ? names[i] : NULL;
}

static const char *io_class_name(unsigned i)
{
	static const char *const names[] = { "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE" };

	return i < ARRAY_SIZE(names) ? names[i] : NULL;
}

static const struct jtable capabilities_table[] = {
	STRINGS("bounding", spec_capabilities, bounding, bounding_count),
	STRINGS("effective", spec_capabilities, effective, effective_count),
	STRINGS("permitted", spec_capabilities, permitted, permitted_count),
	STRINGS("inheritable", spec_capabilities, inheritable, inheritable_count),
	STRINGS("ambient", spec_capabilities, ambient, ambient_count),
	END,
};

static const struct jtable rlimit_table[] = {
	{ .name = "type",
	  .kind = JTABLE_STRING,
	  .offset = AT(spec_rlimit, type),
	  .choice = spec_check_rlimit,
	  .required = true },
	{ .name = "soft", .kind = JTABLE_U64, .offset = AT(spec_rlimit, soft), .required = true },
	{ .name = "hard", .kind = JTABLE_U64, .offset = AT(spec_rlimit, hard), .required = true },
	END,
};

static const struct jtable scheduler_table[] = {
	{ .name = "policy",
	  .kind = JTABLE_STRING,
	  .offset = AT(spec_scheduler, policy),
	  .choice = policy_name,
	  .required = true },
	{ .name = "nice", .kind = JTABLE_S64, .offset = AT(spec_scheduler, nice), .min = -20, .max = 19 },
	{ .name = "priority",
	  .kind = JTABLE_S64,
	  .offset = AT(spec_scheduler, priority),
	  .min = 0,
	  .max = 99 },
	STRINGS("flags", spec_scheduler, flags, flag_count),
	U64("runtime", spec_scheduler, runtime),
	U64("deadline", spec_scheduler, deadline),
	U64("period", spec_scheduler, period),
	END,
};

static const struct jtable io_priority_table[] = {
	{ .name = "class",
	  .kind = JTABLE_STRING,
	  .offset = AT(spec_io_priority, class),
	  .choice = io_class_name,
	  .required = true },
	{ .name = "priority",
	  .kind = JTABLE_S64,
	  .offset = AT(spec_io_priority, priority),
	  .min = 0,
	  .max = 7 },
	END,
};

static const struct jtable console_table[] = {
	{ .name = "height", .kind = JTABLE_U32, .offset = 0, .min = 0, .max = 65535 },
	{ .name = "width", .kind = JTABLE_U32, .offset = sizeof(u32), .min = 0, .max = 65535 },
	END,
};

static const struct jtable user_table[] = {
	U32("uid", spec_process, user.uid),
	U32("gid", spec_process, user.gid),
	{ .name = "umask",
	  .kind = JTABLE_U32,
	  .offset = AT(spec_process, user.umask),
	  .min = 0,
	  .max = 0777,
	  .present_offset = AT(spec_process, user.has_umask) },
	{ .name = "additionalGids",
	  .kind = JTABLE_U32S,
	  .offset = AT(spec_process, user.groups),
	  .count_offset = AT(spec_process, user.group_count) },
	END,
};

static const struct jtable affinity_table[] = {
	STRING("initial", spec_process, cpu_affinity.initial),
	STRING("final", spec_process, cpu_affinity.final),
	END,
};

static const struct jtable process_table[] = {
	BOOL("terminal", spec_process, terminal),
	OBJECT("consoleSize", spec_process, console, console_table),
	/* Their tables are of the whole process, so they begin where it begins. */
	{ .name = "user", .kind = JTABLE_OBJECT, .offset = 0, .sub = user_table },
	{ .name = "execCPUAffinity", .kind = JTABLE_OBJECT, .offset = 0, .sub = affinity_table },
	STRINGS("args", spec_process, args, arg_count),
	STRINGS("env", spec_process, env, env_count),
	NEEDED("cwd", spec_process, cwd),
	OPTIONAL("capabilities", spec_process, capabilities, capabilities_table),
	OBJECTS("rlimits", spec_process, rlimits, rlimit_count, rlimit_table),
	BOOL("noNewPrivileges", spec_process, no_new_privileges),
	STRING("apparmorProfile", spec_process, apparmor),
	STRING("selinuxLabel", spec_process, selinux),
	VALUE_IN("oomScoreAdj", spec_process, oom_score, -1000, 1000),
	OPTIONAL("scheduler", spec_process, scheduler, scheduler_table),
	OPTIONAL("ioPriority", spec_process, io_priority, io_priority_table),
	END,
};

/* --- mounts, hooks --- */

static const struct jtable range_table[] = {
	{ .name = "containerID", .kind = JTABLE_U32, .offset = AT(idmap_range, inside), .required = true },
	{ .name = "hostID", .kind = JTABLE_U32, .offset = AT(idmap_range, outside), .required = true },
	{ .name = "size", .kind = JTABLE_U32, .offset = AT(idmap_range, count), .required = true },
	END,
};

static const struct jtable mount_table[] = {
	NEEDED("destination", spec_mount, destination),
	STRING("type", spec_mount, type),
	STRING("source", spec_mount, source),
	STRINGS("options", spec_mount, words, word_count),
	OBJECTS("uidMappings", spec_mount, uids, uid_count, range_table),
	OBJECTS("gidMappings", spec_mount, gids, gid_count, range_table),
	END,
};

static const struct jtable hook_table[] = {
	NEEDED("path", spec_hook, path),
	STRINGS("args", spec_hook, args, arg_count),
	STRINGS("env", spec_hook, env, env_count),
	VALUE_IN("timeout", spec_hook, timeout, 1, 86400),
	END,
};

const char *const spec_hook_names[SPEC_HOOK_KINDS] = { "prestart",       "createRuntime", "createContainer",
						       "startContainer", "poststart",     "poststop" };

#define HOOKS(n, k)                                                                     \
	{                                                                               \
		.name = (n), .kind = JTABLE_OBJECTS, .offset = AT(spec, hooks[k].list), \
		.count_offset = AT(spec, hooks[k].count), .sub = hook_table,            \
		.sub_size = sizeof(struct spec_hook)                                    \
	}
static const struct jtable hooks_table[] = {
	HOOKS("prestart", SPEC_PRESTART),
	HOOKS("createRuntime", SPEC_CREATE_RUNTIME),
	HOOKS("createContainer", SPEC_CREATE_CONTAINER),
	HOOKS("startContainer", SPEC_START_CONTAINER),
	HOOKS("poststart", SPEC_POSTSTART),
	HOOKS("poststop", SPEC_POSTSTOP),
	END,
};

/* --- linux --- */

const char *spec_namespace_name(unsigned i)
{
	return i < NS_KINDS ? ns_types[i].name : NULL;
}

static const char *device_type(unsigned i)
{
	static const char *const names[] = { "c", "b", "u", "p" };

	return i < ARRAY_SIZE(names) ? names[i] : NULL;
}

static const char *rule_type(unsigned i)
{
	static const char *const names[] = { "a", "c", "b", "" };

	return i < ARRAY_SIZE(names) ? names[i] : NULL;
}

static const char *propagation_name(unsigned i)
{
	static const char *const names[] = { "",        "shared", "slave",    "private",    "unbindable",
					     "rshared", "rslave", "rprivate", "runbindable" };

	return i < ARRAY_SIZE(names) ? names[i] : NULL;
}

static const struct jtable namespace_table[] = {
	{ .name = "type",
	  .kind = JTABLE_STRING,
	  .offset = AT(spec_namespace, type),
	  .choice = spec_namespace_name,
	  .required = true },
	STRING("path", spec_namespace, path),
	END,
};

static const struct jtable device_table[] = {
	NEEDED("path", spec_device, path),
	{ .name = "type",
	  .kind = JTABLE_STRING,
	  .offset = AT(spec_device, type),
	  .choice = device_type,
	  .required = true },
	{ .name = "major", .kind = JTABLE_S64, .offset = AT(spec_device, major), .min = -1, .max = 4095 },
	{ .name = "minor", .kind = JTABLE_S64, .offset = AT(spec_device, minor), .min = -1, .max = 1048575 },
	/* Some writers put the file type's bits in front, as stat(2) has them. */
	{ .name = "fileMode",
	  .kind = JTABLE_U32,
	  .offset = AT(spec_device, mode),
	  .min = 0,
	  .max = 0177777,
	  .present_offset = AT(spec_device, has_mode) },
	U32("uid", spec_device, uid),
	U32("gid", spec_device, gid),
	END,
};

static const struct jtable rule_table[] = {
	{ .name = "allow", .kind = JTABLE_BOOL, .offset = AT(spec_device_rule, allow), .required = true },
	CHOICE("type", spec_device_rule, type, rule_type),
	VALUE_IN("major", spec_device_rule, major, -1, 4095),
	VALUE_IN("minor", spec_device_rule, minor, -1, 1048575),
	STRING("access", spec_device_rule, access),
	END,
};

static const struct jtable memory_table[] = {
	VALUE_IN("limit", limits, memory, -1, INT64_MAX),
	VALUE_IN("reservation", limits, memory_reservation, -1, INT64_MAX),
	VALUE_IN("swap", limits, memory_swap, -1, INT64_MAX),
	VALUE_IN("kernel", limits, kernel_memory, -1, INT64_MAX),
	VALUE_IN("kernelTCP", limits, kernel_memory_tcp, -1, INT64_MAX),
	VALUE_IN("swappiness", limits, swappiness, 0, 200),
	BOOL("disableOOMKiller", limits, disable_oom_killer),
	BOOL("checkBeforeUpdate", limits, check_before_update),
	END,
};

static const struct jtable cpu_table[] = {
	VALUE_IN("shares", limits, cpu_shares, 0, INT64_MAX),
	VALUE_IN("quota", limits, cpu_quota, -1, INT64_MAX),
	VALUE_IN("burst", limits, cpu_burst, 0, INT64_MAX),
	VALUE_IN("period", limits, cpu_period, 0, INT64_MAX),
	VALUE_IN("realtimeRuntime", limits, cpu_rt_runtime, -1, INT64_MAX),
	VALUE_IN("realtimePeriod", limits, cpu_rt_period, 0, INT64_MAX),
	STRING("cpus", limits, cpus),
	STRING("mems", limits, mems),
	VALUE_IN("idle", limits, cpu_idle, 0, 1),
	END,
};

static const struct jtable pids_table[] = {
	VALUE_IN("limit", limits, pids, -1, INT64_MAX),
	END,
};

static const struct jtable weight_table[] = {
	S64_IN("major", limits_weight, major, 0, 4095),
	S64_IN("minor", limits_weight, minor, 0, 1048575),
	VALUE_IN("weight", limits_weight, weight, 0, 1000),
	VALUE_IN("leafWeight", limits_weight, leaf_weight, 0, 1000),
	END,
};

static const struct jtable rate_table[] = {
	S64_IN("major", limits_rate, major, 0, 4095),
	S64_IN("minor", limits_rate, minor, 0, 1048575),
	S64_IN("rate", limits_rate, rate, 0, INT64_MAX),
	END,
};

static const struct jtable io_table[] = {
	VALUE_IN("weight", limits, io_weight, 0, 1000),
	VALUE_IN("leafWeight", limits, io_leaf_weight, 0, 1000),
	OBJECTS("weightDevice", limits, io_weights, io_weight_count, weight_table),
	OBJECTS("throttleReadBpsDevice", limits, read_bps.list, read_bps.count, rate_table),
	OBJECTS("throttleWriteBpsDevice", limits, write_bps.list, write_bps.count, rate_table),
	OBJECTS("throttleReadIOPSDevice", limits, read_iops.list, read_iops.count, rate_table),
	OBJECTS("throttleWriteIOPSDevice", limits, write_iops.list, write_iops.count, rate_table),
	END,
};

static const struct jtable page_table[] = {
	NEEDED("pageSize", limits_pages, size),
	S64_IN("limit", limits_pages, limit, 0, INT64_MAX),
	END,
};

static const struct jtable interface_table[] = {
	NEEDED("name", limits_interface, name),
	{ .name = "priority",
	  .kind = JTABLE_U32,
	  .offset = AT(limits_interface, priority),
	  .required = true },
	END,
};

static const struct jtable network_table[] = {
	VALUE_IN("classID", limits, net_class, 0, UINT32_MAX),
	OBJECTS("priorities", limits, interfaces, interface_count, interface_table),
	END,
};

static const struct jtable rdma_table[] = {
	VALUE_IN("hcaHandles", limits_rdma, handles, 0, UINT32_MAX),
	VALUE_IN("hcaObjects", limits_rdma, objects, 0, UINT32_MAX),
	END,
};

static const struct jtable limits_table[] = {
	{ .name = "memory", .kind = JTABLE_OBJECT, .offset = 0, .sub = memory_table },
	{ .name = "cpu", .kind = JTABLE_OBJECT, .offset = 0, .sub = cpu_table },
	{ .name = "pids", .kind = JTABLE_OBJECT, .offset = 0, .sub = pids_table },
	{ .name = "blockIO", .kind = JTABLE_OBJECT, .offset = 0, .sub = io_table },
	{ .name = "network", .kind = JTABLE_OBJECT, .offset = 0, .sub = network_table },
	OBJECTS("hugepageLimits", limits, pages, page_count, page_table),
	{ .name = "rdma",
	  .kind = JTABLE_NAMED,
	  .offset = AT(limits, rdma),
	  .count_offset = AT(limits, rdma_count),
	  .sub = rdma_table,
	  .sub_size = sizeof(struct limits_rdma),
	  .name_offset = AT(limits_rdma, device) },
	PAIRS("unified", limits, unified, unified_count),
	END,
};

static const struct jtable arg_table[] = {
	{ .name = "index",
	  .kind = JTABLE_U32,
	  .offset = AT(filter_arg, index),
	  .min = 0,
	  .max = 5,
	  .required = true },
	{ .name = "op",
	  .kind = JTABLE_STRING,
	  .offset = AT(filter_arg, op),
	  .choice = filter_operator_name,
	  .required = true },
	{ .name = "value", .kind = JTABLE_U64, .offset = AT(filter_arg, value), .required = true },
	U64("valueTwo", filter_arg, value_two),
	END,
};

static const struct jtable syscall_table[] = {
	{ .name = "names",
	  .kind = JTABLE_STRINGS,
	  .offset = AT(filter_rule, names),
	  .count_offset = AT(filter_rule, name_count),
	  .required = true },
	{ .name = "action",
	  .kind = JTABLE_STRING,
	  .offset = AT(filter_rule, action),
	  .choice = filter_action_name,
	  .required = true },
	{ .name = "errnoRet",
	  .kind = JTABLE_U32,
	  .offset = AT(filter_rule, errno_ret),
	  .present_offset = AT(filter_rule, has_errno) },
	OBJECTS("args", filter_rule, args, arg_count, arg_table),
	END,
};

static const struct jtable seccomp_table[] = {
	{ .name = "defaultAction",
	  .kind = JTABLE_STRING,
	  .offset = AT(filter_spec, default_action),
	  .choice = filter_action_name,
	  .required = true },
	{ .name = "defaultErrnoRet",
	  .kind = JTABLE_U32,
	  .offset = AT(filter_spec, default_errno),
	  .present_offset = AT(filter_spec, has_default_errno) },
	{ .name = "architectures",
	  .kind = JTABLE_STRINGS,
	  .offset = AT(filter_spec, architectures),
	  .count_offset = AT(filter_spec, architecture_count),
	  .choice = filter_arch_name },
	{ .name = "flags",
	  .kind = JTABLE_STRINGS,
	  .offset = AT(filter_spec, flags),
	  .count_offset = AT(filter_spec, flag_count),
	  .choice = filter_flag_name },
	STRING("listenerPath", filter_spec, listener_path),
	STRING("listenerMetadata", filter_spec, listener_metadata),
	OBJECTS("syscalls", filter_spec, rules, rule_count, syscall_table),
	END,
};

static const struct jtable rules_table[] = {
	OBJECTS("devices", spec, device_rules, device_rule_count, rule_table),
	END,
};

static const char *personality_name(unsigned i)
{
	static const char *const names[] = { "LINUX", "LINUX32" };

	return i < ARRAY_SIZE(names) ? names[i] : NULL;
}

static const struct jtable personality_table[] = {
	{ .name = "domain",
	  .kind = JTABLE_STRING,
	  .offset = AT(spec, personality),
	  .choice = personality_name,
	  .required = true },
	END,
};

static const struct jtable offset_table[] = {
	S64("secs", spec_offset, seconds),
	{ .name = "nanosecs",
	  .kind = JTABLE_S64,
	  .offset = AT(spec_offset, nanoseconds),
	  .min = 0,
	  .max = 999999999 },
	END,
};

static const struct jtable rdt_table[] = {
	STRING("closID", rdt, clos),
	STRING("l3CacheSchema", rdt, l3_cache),
	STRING("memBwSchema", rdt, bandwidth),
	STRINGS("schemata", rdt, schemata, schema_count),
	/* Older ones for the same. */
	BOOL("enableCMT", rdt, monitoring_cmt),
	BOOL("enableMBM", rdt, monitoring_mbm),
	BOOL("enableMonitoring", rdt, monitoring),
	END,
};

static const struct jtable linux_table[] = {
	OBJECTS("namespaces", spec, namespaces, namespace_count, namespace_table),
	OBJECTS("uidMappings", spec, uids, uid_count, range_table),
	OBJECTS("gidMappings", spec, gids, gid_count, range_table),
	OBJECTS("devices", spec, devices, device_count, device_table),
	STRING("cgroupsPath", spec, cgroups_path),
	{ .name = "resources", .kind = JTABLE_OBJECT, .offset = AT(spec, limits), .sub = limits_table },
	PAIRS("sysctl", spec, sysctl, sysctl_count),
	OPTIONAL("seccomp", spec, seccomp, seccomp_table),
	CHOICE("rootfsPropagation", spec, propagation, propagation_name),
	STRINGS("maskedPaths", spec, masked, masked_count),
	STRINGS("readonlyPaths", spec, read_only, read_only_count),
	STRING("mountLabel", spec, mount_label),
	{ .name = "personality", .kind = JTABLE_OBJECT, .offset = 0, .sub = personality_table },
	OPTIONAL("intelRdt", spec, intel_rdt, rdt_table),
	{ .name = "timeOffsets",
	  .kind = JTABLE_NAMED,
	  .offset = AT(spec, offsets),
	  .count_offset = AT(spec, offset_count),
	  .sub = offset_table,
	  .sub_size = sizeof(struct spec_offset),
	  .name_offset = AT(spec_offset, clock) },
	END,
};

static const struct jtable root_table[] = {
	NEEDED("path", spec, root.path),
	BOOL("readonly", spec, root.read_only),
	END,
};

static const struct jtable spec_table[] = {
	NEEDED("ociVersion", spec, version),
	{ .name = "root",
	  .kind = JTABLE_OBJECT,
	  .offset = 0,
	  .sub = root_table,
	  .present_offset = AT(spec, has_root) },
	STRING("hostname", spec, hostname),
	STRING("domainname", spec, domainname),
	OPTIONAL("process", spec, process, process_table),
	OBJECTS("mounts", spec, mounts, mount_count, mount_table),
	{ .name = "hooks", .kind = JTABLE_OBJECT, .offset = 0, .sub = hooks_table },
	PAIRS("annotations", spec, annotations, annotation_count),
	{ .name = "linux", .kind = JTABLE_OBJECT, .offset = 0, .sub = linux_table },
	END,
};

int spec_open(struct spec *spec, const char *text, size_t len, struct err *err)
{
	const json_t *resources;
	int rc;

	memset(spec, 0, sizeof(*spec));
	rc = jtable_open(&spec->doc, "config.json", text, len, err);
	if (rc)
		return rc;
	rc = jtable_read(&spec->doc, spec->doc.root, spec_table, "", spec, err);
	/* The device rules of resources become those of limits, which look different. */
	resources = json_object_get(json_object_get(spec->doc.root, "linux"), "resources");
	if (!rc && resources && !json_is_null(resources))
		rc = jtable_read(&spec->doc, resources, rules_table, "linux.resources", spec, err);
	if (!rc)
		rc = spec_check(spec, err);
	if (rc)
		spec_close(spec);
	return rc ? err_wrap(err, "config.json") : 0;
}

void spec_close(struct spec *spec)
{
	jtable_close(&spec->doc);
	memset(spec, 0, sizeof(*spec));
}

int spec_open_process(struct jtable_document *doc, const char *text, size_t len,
		      struct spec_process *ret_process, struct err *err)
{
	struct spec_process process = { 0 };
	int rc = jtable_open(doc, "the process", text, len, err);

	if (rc)
		return rc;
	rc = jtable_read(doc, doc->root, process_table, "process", &process, err);
	if (!rc)
		rc = spec_check_process(&process, err);
	if (rc)
		jtable_close(doc);
	else
		*ret_process = process;
	return rc;
}

int spec_open_limits(struct jtable_document *doc, const char *text, size_t len, struct limits *ret_limits,
		     struct err *err)
{
	struct limits limits = { 0 };
	struct spec rules = { 0 };
	int rc = jtable_open(doc, "the resources", text, len, err);

	if (rc)
		return rc;
	rc = jtable_read(doc, doc->root, limits_table, "", &limits, err);
	if (!rc)
		rc = jtable_read(doc, doc->root, rules_table, "", &rules, err);
	if (!rc)
		rc = spec_check_rules(doc, rules.device_rules, rules.device_rule_count, &limits, err);
	if (rc)
		jtable_close(doc);
	else
		*ret_limits = limits;
	return rc;
}
