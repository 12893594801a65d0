/* Checks of a configuration that take more than one member, or the meaning of one [runtime-spec config.md,
 * config-linux.md]. The host is not asked: a configuration is right or wrong everywhere.
 */
#include "oci/spec_check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"

static const struct {
	const char *name;
	int resource;
} rlimit_names[] = {
	{ "RLIMIT_CPU", RLIMIT_CPU },           { "RLIMIT_FSIZE", RLIMIT_FSIZE },
	{ "RLIMIT_DATA", RLIMIT_DATA },         { "RLIMIT_STACK", RLIMIT_STACK },
	{ "RLIMIT_CORE", RLIMIT_CORE },         { "RLIMIT_RSS", RLIMIT_RSS },
	{ "RLIMIT_NPROC", RLIMIT_NPROC },       { "RLIMIT_NOFILE", RLIMIT_NOFILE },
	{ "RLIMIT_MEMLOCK", RLIMIT_MEMLOCK },   { "RLIMIT_AS", RLIMIT_AS },
	{ "RLIMIT_LOCKS", RLIMIT_LOCKS },       { "RLIMIT_SIGPENDING", RLIMIT_SIGPENDING },
	{ "RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE }, { "RLIMIT_NICE", RLIMIT_NICE },
	{ "RLIMIT_RTPRIO", RLIMIT_RTPRIO },     { "RLIMIT_RTTIME", RLIMIT_RTTIME },
};

const char *spec_check_rlimit(unsigned i)
{
	return i < ARRAY_SIZE(rlimit_names) ? rlimit_names[i].name : NULL;
}

static u64 resolve_set(const char **names, unsigned count)
{
	const char *unknown = NULL;
	unsigned more = 0;
	u64 set = 0;

	for (unsigned i = 0; i < count; i++) {
		int n = caps_number(names[i]);

		if (n >= 0)
			set |= BIT(n);
		else if (!unknown)
			unknown = names[i];
		else
			more++;
	}
	/* One line, however many there are. */
	if (unknown)
		log_warn("there is no capability '%.64s' (and %u more such names); left out", unknown, more);
	return set;
}

void spec_check_capabilities(struct spec_process *p)
{
	const struct spec_capabilities *c = p->capabilities;

	if (!c)
		return;
	p->caps = (struct caps){
		.bounding = resolve_set(c->bounding, c->bounding_count),
		.effective = resolve_set(c->effective, c->effective_count),
		.permitted = resolve_set(c->permitted, c->permitted_count),
		.inheritable = resolve_set(c->inheritable, c->inheritable_count),
		.ambient = resolve_set(c->ambient, c->ambient_count),
	};
}

int spec_check_process(struct spec_process *p, struct err *err)
{
	u32 seen = 0;

	if (p->cwd[0] != '/')
		return err_set(err, -EINVAL,
			       "process.cwd: '%.200s' is not absolute; give a path that begins with '/'",
			       p->cwd);
	if (!p->arg_count)
		return err_set(err, -EINVAL,
			       "process.args: is missing or empty; give the program and its arguments");
	if (!p->args[0][0])
		return err_set(err, -EINVAL, "process.args[0]: is empty; give a program");
	for (unsigned i = 0; i < p->env_count; i++) {
		if (!strchr(p->env[i], '=') || p->env[i][0] == '=')
			return err_set(err, -EINVAL, "process.env[%u]: '%.64s' is not of the form NAME=VALUE",
				       i, p->env[i]);
	}
	for (unsigned i = 0; i < p->rlimit_count; i++) {
		struct spec_rlimit *r = &p->rlimits[i];
		unsigned k = 0;

		while (strcmp(rlimit_names[k].name, r->type) !=
		       0) /* the table of spec.c knows no other names */
			k++;
		r->resource = rlimit_names[k].resource;
		if (seen & BIT(k))
			return err_set(err, -EINVAL, "process.rlimits[%u].type: %s is given twice", i,
				       r->type);
		seen |= (u32)BIT(k);
		if (r->soft > r->hard)
			return err_set(
				err, -EINVAL,
				"process.rlimits[%u]: the soft limit %llu of %s is above the hard one, %llu",
				i, (unsigned long long)r->soft, r->type, (unsigned long long)r->hard);
	}
	if (p->user.uid == UINT32_MAX || p->user.gid == UINT32_MAX)
		return err_set(err, -ERANGE, "process.user: %u is no user or group id", UINT32_MAX);
	spec_check_capabilities(p);
	return 0;
}

static int check_namespaces(struct spec *s, struct err *err)
{
	for (unsigned i = 0; i < s->namespace_count; i++) {
		const struct spec_namespace *n = &s->namespaces[i];
		enum ns_kind kind = ns_find(n->type);

		if (s->has_namespace[kind])
			return err_set(err, -EINVAL, "linux.namespaces[%u].type: %s is given twice", i,
				       n->type);
		s->has_namespace[kind] = true;
		if (n->path && *n->path) {
			if (n->path[0] != '/')
				return err_set(err, -EINVAL,
					       "linux.namespaces[%u].path: '%.200s' is not absolute", i,
					       n->path);
			s->namespace_path[kind] = n->path;
		}
	}
	if (!s->has_namespace[NS_MNT])
		return err_set(
			err, -EINVAL,
			"linux.namespaces: one of type mount is needed; without it the container's mounts would be "
			"the host's");
	return 0;
}

/* A new user namespace needs maps, and only it takes them. */
static int check_maps(const struct spec *s, struct err *err)
{
	const struct idmap uids = { s->uids, s->uid_count }, gids = { s->gids, s->gid_count };
	bool new_user = s->has_namespace[NS_USER] && !s->namespace_path[NS_USER];
	int rc = idmap_check(&uids, "linux.uidMappings", err);

	if (!rc)
		rc = idmap_check(&gids, "linux.gidMappings", err);
	if (rc)
		return rc;
	if (new_user && (!uids.count || !gids.count))
		return err_set(err, -EINVAL, "linux.%s: a new user namespace needs at least one range",
			       uids.count ? "gidMappings" : "uidMappings");
	if (!s->has_namespace[NS_USER] && (uids.count || gids.count))
		return err_set(
			err, -EINVAL,
			"linux.%s: ids are mapped only in a user namespace; add one to linux.namespaces",
			uids.count ? "uidMappings" : "gidMappings");
	if (new_user && s->process &&
	    (idmap_outside(&uids, s->process->user.uid) < 0 ||
	     idmap_outside(&gids, s->process->user.gid) < 0))
		return err_set(
			err, -EINVAL,
			"process.user: %u:%u is not mapped in the container; add it to linux.uidMappings and "
			"linux.gidMappings",
			s->process->user.uid, s->process->user.gid);
	return 0;
}

static int check_mounts(struct spec *s, struct err *err)
{
	if (s->mount_count > 4096)
		return err_set(err, -E2BIG, "mounts: %u are too many; at most 4096 are accepted",
			       s->mount_count);
	for (unsigned i = 0; i < s->mount_count; i++) {
		struct spec_mount *m = &s->mounts[i];
		const char **data = jtable_alloc(&s->doc, (m->word_count + 3) * sizeof(*data));
		struct idmap uids = { m->uids, m->uid_count }, gids = { m->gids, m->gid_count };
		char name[64];
		int rc;

		if (!data)
			return err_set(err, -ENOMEM, "no memory");
		if (strlen(m->destination) >= 4096)
			return err_set(err, -ENAMETOOLONG,
				       "mounts[%u].destination: is longer than 4095 bytes", i);
		if (!m->destination[strspn(m->destination, "/.")])
			return err_set(
				err, -EINVAL,
				"mounts[%u].destination: '%.64s' is the root itself; give a path below it", i,
				m->destination);
		mounts_options_parse(m->words, m->word_count, data, &m->options);
		if (m->type && !strcmp(m->type, "bind") && !m->options.bind)
			m->options.bind = m->options.bind_tree = true;
		if (m->options.bind && (!m->source || !*m->source))
			return err_set(err, -EINVAL, "mounts[%u].source: is missing; a bind mount needs one",
				       i);
		if (m->options.bind && m->options.data_count)
			return err_set(err, -EINVAL,
				       "mounts[%u].options: '%.64s' is not known for a bind mount", i,
				       m->options.data[0]);
		if (!m->options.bind && !m->options.remount && (!m->type || !*m->type))
			return err_set(
				err, -EINVAL,
				"mounts[%u].type: is missing; give a file system, or bind among the options",
				i);
		/* One word of JSON is one option: a comma must not make two of it [O10]. Overlay's may have escaped ones. */
		for (unsigned k = 0; k < m->options.data_count; k++) {
			if (strchr(m->options.data[k], ',') && (!m->type || strcmp(m->type, "overlay") != 0))
				return err_set(
					err, -EINVAL,
					"mounts[%u].options: '%.64s' has a comma; give each option for itself",
					i, m->options.data[k]);
			if (!m->options.data[k][0])
				return err_set(err, -EINVAL, "mounts[%u].options: one is empty", i);
		}
		snprintf(name, sizeof(name), "mounts[%u].uidMappings", i);
		rc = idmap_check(&uids, name, err);
		snprintf(name, sizeof(name), "mounts[%u].gidMappings", i);
		if (!rc)
			rc = idmap_check(&gids, name, err);
		if (rc)
			return rc;
		if (!uids.count != !gids.count)
			return err_set(err, -EINVAL, "mounts[%u]: uidMappings and gidMappings go together",
				       i);
		if (m->options.idmap && !uids.count && !s->uid_count && !s->namespace_path[NS_USER])
			return err_set(err, -EINVAL, "mounts[%u]: idmap needs uidMappings and gidMappings",
				       i);
		if ((uids.count || m->options.idmap) && !m->options.bind)
			return err_set(err, -EINVAL, "mounts[%u]: only bind mounts can map ids", i);
	}
	return 0;
}

/* Which namespace makes a sysctl the container's own [O12]; NS_KINDS: none does. */
static enum ns_kind sysctl_namespace(const char *key)
{
	static const char *const ipc[] = { "kernel.msgmax", "kernel.msgmnb",         "kernel.msgmni",
					   "kernel.sem",    "kernel.shmall",         "kernel.shmmax",
					   "kernel.shmmni", "kernel.shm_rmid_forced" };

	for (unsigned i = 0; i < ARRAY_SIZE(ipc); i++)
		if (!strcmp(key, ipc[i]))
			return NS_IPC;
	if (!strncmp(key, "fs.mqueue.", 10))
		return NS_IPC;
	if (!strncmp(key, "net.", 4))
		return NS_NET;
	if (!strcmp(key, "kernel.domainname") || !strcmp(key, "kernel.hostname"))
		return NS_UTS;
	return NS_KINDS;
}

static int check_sysctl(const struct spec *s, struct err *err)
{
	for (unsigned i = 0; i < s->sysctl_count; i++) {
		const char *key = s->sysctl[i].name;
		enum ns_kind kind;
		char dotted[128];

		if (snprintf(dotted, sizeof(dotted), "%s", key) >= (int)sizeof(dotted) || strstr(key, ".."))
			return err_set(err, -EINVAL, "linux.sysctl: '%.64s' is no name of a setting", key);
		/* Both separators are in use, and the first one says which [sysctl(8)]. */
		if (strcspn(key, "/") < strcspn(key, "."))
			for (char *p = dotted; *p; p++)
				*p = *p == '/' ? '.' : *p == '.' ? '/' : *p;
		kind = sysctl_namespace(dotted);
		if (kind == NS_KINDS)
			return err_set(
				err, -EPERM,
				"linux.sysctl: %.64s belongs to the host, not to any namespace; set it there",
				key);
		if (!s->has_namespace[kind])
			return err_set(err, -EPERM,
				       "linux.sysctl: %.64s needs a %s namespace of the container's own", key,
				       ns_types[kind].name);
	}
	return 0;
}

static int check_linux(struct spec *s, struct err *err)
{
	int rc;

	if (s->intel_rdt && s->intel_rdt->clos &&
	    (!s->intel_rdt->clos[0] || s->intel_rdt->clos[0] == '.' || strchr(s->intel_rdt->clos, '/') ||
	     strchr(s->intel_rdt->clos, '\n') || strlen(s->intel_rdt->clos) > 255))
		return err_set(err, -EINVAL, "linux.intelRdt.closID: '%.64s' is no name of a folder",
			       s->intel_rdt->clos);
	if (s->intel_rdt && s->intel_rdt->clos &&
	    (!strcmp(s->intel_rdt->clos, "info") || !strncmp(s->intel_rdt->clos, "mon_", 4)))
		return err_set(err, -EINVAL, "linux.intelRdt.closID: '%.64s' is a folder of the kernel's",
			       s->intel_rdt->clos);
	for (unsigned i = 0; i < s->device_count; i++) {
		const struct spec_device *d = &s->devices[i];
		char type = d->type[0];
		u32 file_type = d->mode & 0170000, wanted = type == 'b'   ? 0060000
							    : type == 'p' ? 0010000
									  : 0020000;

		if (d->path[0] != '/')
			return err_set(err, -EINVAL, "linux.devices[%u].path: '%.200s' is not absolute", i,
				       d->path);
		if (type != 'p' && (d->major < 0 || d->minor < 0))
			return err_set(err, -EINVAL,
				       "linux.devices[%u]: a device of type %c needs major and minor", i,
				       type);
		if (file_type && file_type != wanted)
			return err_set(err, -EINVAL,
				       "linux.devices[%u].fileMode: 0%o is of another type than '%s'", i,
				       d->mode, d->type);
	}
	for (unsigned i = 0; i < s->offset_count; i++) {
		if (strcmp(s->offsets[i].clock, "monotonic") != 0 &&
		    strcmp(s->offsets[i].clock, "boottime") != 0)
			return err_set(
				err, -EINVAL,
				"linux.timeOffsets: there is no offset of the clock '%.64s'; valid are monotonic, "
				"boottime",
				s->offsets[i].clock);
		if (!s->has_namespace[NS_TIME] || s->namespace_path[NS_TIME])
			return err_set(
				err, -EINVAL,
				"linux.timeOffsets: they need a new time namespace; add one to linux.namespaces");
	}
	for (unsigned i = 0; i < s->masked_count + s->read_only_count; i++) {
		bool masked = i < s->masked_count;
		unsigned k = masked ? i : i - s->masked_count;
		const char *path = masked ? s->masked[k] : s->read_only[k];

		if (path[0] != '/' || !path[strspn(path, "/.")])
			return err_set(err, -EINVAL,
				       "linux.%s[%u]: '%.200s' is not an absolute path below the root",
				       masked ? "maskedPaths" : "readonlyPaths", k, path);
	}
	/* More than the kernel takes is found when the filter is made; this keeps making it short [O18]. */
	if (s->seccomp && s->seccomp->rule_count > 4096)
		return err_set(err, -E2BIG,
			       "linux.seccomp.syscalls: %u rules are too many; at most 4096 are accepted",
			       s->seccomp->rule_count);
	rc = check_sysctl(s, err);
	return rc ? rc : spec_check_rules(&s->doc, s->device_rules, s->device_rule_count, &s->limits, err);
}

int spec_check_rules(struct jtable_document *doc, const struct spec_device_rule *rules, unsigned count,
		     struct limits *limits, struct err *err)
{
	/* What every container may use [runtime-spec config-linux.md#default-devices]: all nodes may be made, and those of
	 * memory, random numbers and terminals used. */
	static const struct devfilter_rule defaults[] = {
		{ true, 'c', -1, -1, false, false, true }, { true, 'b', -1, -1, false, false, true },
		{ true, 'c', 1, 3, true, true, true },     { true, 'c', 1, 5, true, true, true },
		{ true, 'c', 1, 7, true, true, true },     { true, 'c', 1, 8, true, true, true },
		{ true, 'c', 1, 9, true, true, true },     { true, 'c', 5, 0, true, true, true },
		{ true, 'c', 5, 1, true, true, true },     { true, 'c', 5, 2, true, true, true },
		{ true, 'c', 136, -1, true, true, true },
	};
	struct devfilter_rule *out = jtable_alloc(doc, (count + ARRAY_SIZE(defaults)) * sizeof(*out));

	if (!out)
		return err_set(err, -ENOMEM, "no memory");
	for (unsigned i = 0; i < count; i++) {
		const struct spec_device_rule *r = &rules[i];
		const char *access = r->access && *r->access ? r->access : "rwm";

		if (access[strspn(access, "rwm")])
			return err_set(
				err, -EINVAL,
				"linux.resources.devices[%u].access: '%.16s' is made of other letters than r, w, m",
				i, access);
		out[i] = (struct devfilter_rule){
			.allow = r->allow,
			.type = r->type && *r->type ? r->type[0] : 'a',
			.major = r->major.set ? r->major.v : -1,
			.minor = r->minor.set ? r->minor.v : -1,
			.read = strchr(access, 'r') != NULL,
			.write = strchr(access, 'w') != NULL,
			.mknod = strchr(access, 'm') != NULL,
		};
		/* Version 1 knows all devices or one kind of them; "all of major 8" is two rules that nobody writes. */
		if (out[i].type == 'a' && (out[i].major >= 0 || out[i].minor >= 0))
			return err_set(
				err, -EINVAL,
				"linux.resources.devices[%u]: type a is every device; give b or c with a number",
				i);
	}
	memcpy(out + count, defaults, sizeof(defaults));
	limits->devices = out;
	limits->device_count = count + (unsigned)ARRAY_SIZE(defaults);
	return 0;
}

static int check_hooks(const struct spec *s, struct err *err)
{
	for (unsigned k = 0; k < SPEC_HOOK_KINDS; k++)
		for (unsigned i = 0; i < s->hooks[k].count; i++)
			if (s->hooks[k].list[i].path[0] != '/')
				return err_set(err, -EINVAL, "hooks.%s[%u].path: '%.200s' is not absolute",
					       spec_hook_names[k], i, s->hooks[k].list[i].path);
	return 0;
}

/* A mount namespace that is there has its mounts. What would be made in it would be seen by all who are in it, and stay. */
static int check_joined_mounts(const struct spec *s, struct err *err)
{
	const struct {
		const char *member;
		bool given;
	} rows[] = {
		{ "mounts", s->mount_count },
		{ "root.readonly", s->root.read_only },
		{ "process.terminal", s->process && s->process->terminal },
		{ "hooks.createContainer", s->hooks[SPEC_CREATE_CONTAINER].count },
		{ "linux.devices", s->device_count },
		{ "linux.sysctl", s->sysctl_count },
		{ "linux.maskedPaths", s->masked_count },
		{ "linux.readonlyPaths", s->read_only_count },
		{ "linux.rootfsPropagation", s->propagation && *s->propagation },
	};

	if (!s->namespace_path[NS_MNT])
		return 0;
	if (s->root.path[0] != '/')
		return err_set(
			err, -EINVAL,
			"root.path: '%.200s' is not absolute; with a mount namespace that is joined it is a "
			"path in there",
			s->root.path);
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].given)
			return err_set(
				err, -EINVAL,
				"%s: the mount namespace that is joined has its own; take it out, or give that "
				"namespace no path",
				rows[i].member);
	return 0;
}

int spec_check(struct spec *s, struct err *err)
{
	int rc;

	/* 1.x of any x: new members are ignored. */
	if (strncmp(s->version, "1.", 2) != 0)
		return err_set(err, -EINVAL, "ociVersion: '%.32s' is not supported; versions 1.x are",
			       s->version);
	if (!s->has_root || !s->root.path[0])
		return err_set(
			err, -EINVAL,
			"root.path: is missing; give the folder with the container's root file system");
	rc = s->process ? spec_check_process(s->process, err) : 0;
	if (!rc)
		rc = check_namespaces(s, err);
	if (!rc)
		rc = check_maps(s, err);
	if (!rc)
		rc = check_mounts(s, err);
	if (!rc)
		rc = check_linux(s, err);
	if (!rc)
		rc = check_hooks(s, err);
	if (!rc)
		rc = check_joined_mounts(s, err);
	if (!rc && (s->hostname || s->domainname) && !s->has_namespace[NS_UTS])
		return err_set(
			err, -EINVAL,
			"%s: a name of the container's own needs a uts namespace; add one to linux.namespaces",
			s->hostname ? "hostname" : "domainname");
	if (!rc &&
	    ((s->hostname && strlen(s->hostname) > 64) || (s->domainname && strlen(s->domainname) > 64)))
		return err_set(err, -ENAMETOOLONG, "hostname, domainname: at most 64 bytes are accepted");
	return rc;
}
