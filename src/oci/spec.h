/* config.json: what a container is to be [runtime-spec config.md, config-linux.md], as structs.
 *
 * Everything is checked that can be without looking at the host. Strings and arrays live until spec_close().
 */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "jail/caps.h"
#include "jail/filter.h"
#include "jail/idmap.h"
#include "jail/limits.h"
#include "jail/mounts.h"
#include "jail/ns.h"
#include "jail/rdt.h"
#include "oci/jtable.h"

#define SPEC_VERSION "1.2.0"

struct spec_rlimit {
	const char *type;
	u64 soft, hard;
	int resource; /* RLIMIT_... */
};

struct spec_capabilities {
	const char **bounding, **effective, **permitted, **inheritable, **ambient;
	unsigned bounding_count, effective_count, permitted_count, inheritable_count, ambient_count;
};

struct spec_scheduler {
	const char *policy;
	s64 nice, priority;
	const char **flags;
	unsigned flag_count;
	u64 runtime, deadline, period; /* nanoseconds */
};

struct spec_io_priority {
	const char *class;
	s64 priority;
};

struct spec_process {
	bool terminal;
	struct {
		u32 height, width; /* in characters; 0: not given */
	} console;
	struct {
		u32 uid, gid, umask;
		bool has_umask;
		u32 *groups;
		unsigned group_count;
	} user;
	const char **args, **env;
	unsigned arg_count, env_count;
	const char *cwd;
	struct spec_capabilities *capabilities; /* NULL: none given */
	struct caps caps;                       /* what those names are, without unknown ones */
	struct spec_rlimit *rlimits;
	unsigned rlimit_count;
	bool no_new_privileges;
	const char *apparmor, *selinux;
	struct limits_value oom_score;
	struct spec_scheduler *scheduler;
	struct spec_io_priority *io_priority;
	struct {
		const char *initial, *final;
	} cpu_affinity;
};

struct spec_mount {
	const char *destination, *type, *source;
	const char **words;
	unsigned word_count;
	struct idmap_range *uids, *gids;
	unsigned uid_count, gid_count;
	struct mounts_options options;
};

struct spec_hook {
	const char *path;
	const char **args, **env;
	unsigned arg_count, env_count;
	struct limits_value timeout; /* seconds */
};

struct spec_hooks {
	struct spec_hook *list;
	unsigned count;
};

/* In the order in which they run. */
enum spec_hook_kind {
	SPEC_PRESTART,
	SPEC_CREATE_RUNTIME,
	SPEC_CREATE_CONTAINER,
	SPEC_START_CONTAINER,
	SPEC_POSTSTART,
	SPEC_POSTSTOP,
	SPEC_HOOK_KINDS
};

extern const char *const spec_hook_names[SPEC_HOOK_KINDS];

struct spec_namespace {
	const char *type, *path;
};

struct spec_device {
	const char *path, *type;
	s64 major, minor;
	u32 mode;
	bool has_mode;
	u32 uid, gid;
};

struct spec_device_rule {
	bool allow;
	const char *type, *access;
	struct limits_value major, minor;
};

struct spec_offset {
	const char *clock;
	s64 seconds, nanoseconds;
};

struct spec {
	struct jtable_document doc;
	const char *version;
	struct {
		const char *path;
		bool read_only;
	} root;
	bool has_root;
	const char *hostname, *domainname;
	struct spec_process *process; /* NULL: the container cannot be started */
	struct spec_mount *mounts;
	unsigned mount_count;
	struct spec_hooks hooks[SPEC_HOOK_KINDS];
	struct limits_pair *annotations;
	unsigned annotation_count;

	struct spec_namespace *namespaces;
	unsigned namespace_count;
	bool has_namespace[NS_KINDS];
	const char *namespace_path[NS_KINDS]; /* NULL: a new one */
	struct idmap_range *uids, *gids;
	unsigned uid_count, gid_count;
	struct spec_device *devices;
	unsigned device_count;
	struct spec_device_rule *device_rules;
	unsigned device_rule_count;
	const char *cgroups_path;
	struct limits limits;
	struct limits_pair *sysctl;
	unsigned sysctl_count;
	struct filter_spec *seccomp;
	const char *propagation;
	const char **masked, **read_only;
	unsigned masked_count, read_only_count;
	const char *mount_label;
	const char *personality;
	struct rdt *intel_rdt; /* NULL: none */
	struct spec_offset *offsets;
	unsigned offset_count;
};

/* Parses and checks a configuration. */
int spec_open(struct spec *spec, const char *text, size_t len, struct err *err);
void spec_close(struct spec *spec); /* of a zeroed one too */

/* A process object alone, for exec. doc owns it. */
int spec_open_process(struct jtable_document *doc, const char *text, size_t len,
		      struct spec_process *ret_process, struct err *err);

/* A resources object alone, for update. doc owns it. The device rules are in limits->devices. */
int spec_open_limits(struct jtable_document *doc, const char *text, size_t len, struct limits *ret_limits,
		     struct err *err);

/* The i-th kind of namespace, NULL past the end. */
const char *spec_namespace_name(unsigned i);

/* A configuration to begin with, as JSON text for free(). */
char *spec_default(bool rootless, u32 uid, u32 gid);
