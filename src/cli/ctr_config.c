/* From the options of `bothy container run` to a config.json, which the OCI runtime then checks like any other.
 *
 * It begins with the configuration that `bothy oci spec` writes, or with the bundle's own, whose relative paths are made
 * absolute because ours lies in another folder. The capabilities are those that programs of distributions are used to; with
 * --system also those that an init needs for its own namespaces, and control groups that it may write.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "base/params.h"
#include "cli/ctr_run.h"
#include "oci/spec.h"

static const char *const usual_caps[] = {
	"CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_FSETID",           "CAP_FOWNER",  "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP",      "CAP_SETFCAP",          "CAP_KILL",    "CAP_SYS_CHROOT",
	"CAP_MKNOD",  "CAP_AUDIT_WRITE",  "CAP_NET_BIND_SERVICE", "CAP_NET_RAW",
};
/* Not CAP_SYS_ADMIN: without a user namespace that is the host's. */
static const char *const system_caps[] = { "CAP_NET_ADMIN",    "CAP_SYS_PTRACE", "CAP_SYS_NICE",
					   "CAP_SYS_RESOURCE", "CAP_SYS_BOOT",   "CAP_LEASE" };

static json_t *member(json_t *o, const char *name, bool list)
{
	json_t *m = json_object_get(o, name);

	if (list ? json_is_array(m) : json_is_object(m))
		return m;
	m = list ? json_array() : json_object();
	json_object_set_new(o, name, m);
	return json_object_get(o, name);
}

static json_t *read_bundle(const char *root, struct err *err)
{
	char path[4096];
	json_error_t bad;
	size_t len;
	void *text;
	json_t *o;
	int rc;

	snprintf(path, sizeof(path), "%s/config.json", root);
	rc = os_read_file(path, 16 * MiB, &text, &len, err);
	if (rc)
		return NULL;
	o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &bad);
	free(text);
	if (!json_is_object(o)) {
		json_decref(o);
		err_set(err, -EINVAL, "'%s' is no JSON object", path);
		return NULL;
	}
	return o;
}

/* A path of the bundle's configuration, relative to it. */
static void make_absolute(json_t *o, const char *name, const char *root)
{
	const char *path = json_string_value(json_object_get(o, name));
	char full[8192];

	if (path && path[0] != '/' && snprintf(full, sizeof(full), "%s/%s", root, path) < (int)sizeof(full))
		json_object_set_new(o, name, json_string(full));
}

static bool is_bind(json_t *mount)
{
	json_t *options = json_object_get(mount, "options"), *word;
	size_t i;

	json_array_foreach(options, i, word) if (json_is_string(word) &&
						 (!strcmp(json_string_value(word), "bind") ||
						  !strcmp(json_string_value(word), "rbind"))) return true;
	return false;
}

static json_t *begin(const struct ctr_plan *p, bool *ret_bundle, struct err *err)
{
	bool rootless = geteuid() != 0;
	char path[4096], *text;
	json_t *o, *mounts, *m;
	size_t i;

	snprintf(path, sizeof(path), "%s/config.json", p->root);
	*ret_bundle = !access(path, F_OK);
	if (!*ret_bundle) {
		text = spec_default(rootless, geteuid(), getegid());
		o = text ? json_loads(text, 0, NULL) : NULL;
		free(text);
		if (!o) {
			err_set(err, -ENOMEM, "no memory for a configuration");
			return NULL;
		}
		json_object_set_new(member(o, "root", false), "path", json_string(p->root));
		json_object_set_new(member(o, "root", false), "readonly",
				    json_boolean(p->options->read_only));
		return o;
	}
	o = read_bundle(p->root, err);
	if (!o)
		return NULL;
	/* Hooks are programs that run outside of the container, as whoever calls [O23]. */
	if (!p->options->hooks && json_object_size(json_object_get(o, "hooks"))) {
		json_decref(o);
		err_set(err, -EPERM,
			"'%.200s' has hooks: programs that would run on this host, outside of the container; look at them, "
			"and use --bundle-hooks to run them",
			path);
		return NULL;
	}
	make_absolute(member(o, "root", false), "path", p->root);
	mounts = member(o, "mounts", true);
	json_array_foreach(mounts, i, m) if (is_bind(m)) make_absolute(m, "source", p->root);
	return o;
}

static void set_network(json_t *o, const struct ctr_plan *p, const struct ctr *c)
{
	json_t *list = member(member(o, "linux", false), "namespaces", true);
	char path[2800];

	for (size_t i = json_array_size(list); i-- > 0;) {
		const char *type = json_string_value(json_object_get(json_array_get(list, i), "type"));

		if (type && !strcmp(type, "network"))
			json_array_remove(list, i);
	}
	if (p->network != CTR_HOST)
		json_array_append_new(list, json_pack("{s:s}", "type", "network"));
	if (p->network != CTR_USER)
		return;
	snprintf(path, sizeof(path), "%s/resolv.conf", c->path);
	json_array_append_new(member(o, "mounts", true),
			      json_pack("{s:s,s:s,s:s,s:[s,s]}", "destination", "/etc/resolv.conf", "type",
					"none", "source", path, "options", "bind", "ro"));
	/* The tap device comes from inside (ctr_net.c), where the rules for devices hold already. A container that made one for
	 * itself would have it in its own network, if it had CAP_NET_ADMIN. */
	if (geteuid() == 0)
		json_array_append_new(member(member(member(o, "linux", false), "resources", false), "devices",
					     true),
				      json_pack("{s:b,s:s,s:i,s:i,s:s}", "allow", 1, "type", "c", "major", 10,
						"minor", 200, "access", "rw"));
	snprintf(path, sizeof(path), "%s/tap", c->path);
	json_array_append_new(member(member(o, "hooks", false), "createContainer", true),
			      json_pack("{s:s,s:[s,s,s,s]}", "path", "/proc/self/exe", "args", "bothy",
					"container", CTR_HOOK, path));
}

static int add_volume(json_t *mounts, const char *text, struct err *err)
{
	const char *colon = strchr(text, ':'), *more = colon ? strchr(colon + 1, ':') : NULL;
	char source[4096], destination[4096], *full;
	bool read_only = more && !strcmp(more, ":ro");

	if (!colon || colon == text || colon[1] != '/' || (more && !read_only) ||
	    strlen(text) >= sizeof(source))
		return err_set(
			err, -EINVAL,
			"--volume: '%.200s' is not HOSTPATH:PATH or HOSTPATH:PATH:ro, with a PATH from '/'",
			text);
	snprintf(source, sizeof(source), "%.*s", (int)(colon - text), text);
	snprintf(destination, sizeof(destination), "%.*s",
		 (int)(more ? more - colon - 1 : (ptrdiff_t)strlen(colon + 1)), colon + 1);
	full = realpath(source, NULL);
	if (!full)
		return err_sys(err, -errno, "--volume: cannot find '%.200s'", source);
	json_array_append_new(mounts,
			      json_pack("{s:s,s:s,s:s,s:[s,s]}", "destination", destination, "type", "none",
					"source", full, "options", "rbind", read_only ? "rro" : "rw"));
	free(full);
	return 0;
}

/* UID[:GID] */
static int set_user(json_t *process, const char *text, struct err *err)
{
	unsigned long uid, gid = 0;
	char *end;

	errno = 0;
	uid = strtoul(text, &end, 10);
	if (end != text && *end == ':' && end[1] >= '0' && end[1] <= '9')
		gid = strtoul(end + 1, &end, 10);
	if (end == text || *end || text[0] == '-' || errno || uid >= UINT32_MAX || gid >= UINT32_MAX)
		return err_set(err, -EINVAL, "--user: '%.64s' is not UID or UID:GID, as numbers", text);
	json_object_set_new(process, "user",
			    json_pack("{s:I,s:I}", "uid", (json_int_t)uid, "gid", (json_int_t)gid));
	return 0;
}

static int set_limits(json_t *lin, const struct ctr_run_options *o, struct err *err)
{
	json_t *resources = member(lin, "resources", false);
	char *end;
	u64 size;

	if ((o->memory || o->cpus || o->pids) && geteuid() != 0)
		return err_set(err, -EPERM,
			       "--memory, --cpus and --pids need control groups, which only root gets here");
	if (o->memory) {
		if (params_parse_size(o->memory, &size) || !size || size > INT64_MAX)
			return err_set(err, -EINVAL,
				       "--memory: '%.32s' is no size; give bytes, or a number with K, M, G",
				       o->memory);
		json_object_set_new(member(resources, "memory", false), "limit",
				    json_integer((json_int_t)size));
	}
	if (o->cpus) {
		double cpus = strtod(o->cpus, &end);

		if (end == o->cpus || *end || !(cpus >= 0.01 && cpus <= 4096))
			return err_set(
				err, -EINVAL,
				"--cpus: '%.32s' is no number of processors; give one such as 0.5 or 2",
				o->cpus);
		json_object_set_new(member(resources, "cpu", false), "period", json_integer(100000));
		json_object_set_new(member(resources, "cpu", false), "quota",
				    json_integer((json_int_t)(cpus * 100000)));
	}
	if (o->pids) {
		long n = strtol(o->pids, &end, 10);

		if (end == o->pids || *end || n < 1 || n > 4194304)
			return err_set(err, -EINVAL, "--pids: '%.32s' is no number from 1 to 4194304",
				       o->pids);
		json_object_set_new(member(resources, "pids", false), "limit", json_integer(n));
	}
	return 0;
}

static void set_capabilities(json_t *process, const struct ctr_run_options *o)
{
	static const char *const sets[] = { "bounding", "effective", "permitted" };
	json_t *list = json_array(), *caps = json_object();

	for (unsigned i = 0; i < ARRAY_SIZE(usual_caps); i++)
		json_array_append_new(list, json_string(usual_caps[i]));
	for (unsigned i = 0; o->system && i < ARRAY_SIZE(system_caps); i++)
		json_array_append_new(list, json_string(system_caps[i]));
	for (unsigned i = 0; i < o->cap_count; i++)
		json_array_append_new(list, json_string(o->caps[i]));
	for (unsigned i = 0; i < ARRAY_SIZE(sets); i++)
		json_object_set(caps, sets[i], list);
	json_decref(list);
	json_object_set_new(process, "capabilities", caps);
	json_object_set_new(process, "noNewPrivileges", json_false());
}

/* An init wants to write its control groups, and fresh /run and /tmp. */
static void set_system(json_t *o)
{
	static const char *const fresh[] = { "/run", "/tmp" };
	json_t *mounts = member(o, "mounts", true), *m;
	size_t i;

	json_array_foreach(mounts, i, m)
	{
		const char *type = json_string_value(json_object_get(m, "type"));

		if (type && !strcmp(type, "cgroup"))
			json_object_set_new(m, "options",
					    json_pack("[s,s,s,s]", "nosuid", "noexec", "nodev", "relatime"));
	}
	for (i = 0; i < ARRAY_SIZE(fresh); i++)
		json_array_append_new(mounts, json_pack("{s:s,s:s,s:s,s:[s,s,s]}", "destination", fresh[i],
							"type", "tmpfs", "source", "tmpfs", "options",
							"nosuid", "nodev", i ? "mode=1777" : "mode=755"));
	json_array_append_new(member(member(o, "process", false), "env", true),
			      json_string("container=bothy"));
}

static int fill(json_t *o, const struct ctr_plan *p, const struct ctr *c, bool bundle, struct err *err)
{
	const struct ctr_run_options *opt = p->options;
	json_t *process = member(o, "process", false), *lin = member(o, "linux", false);
	char text[400];
	int rc;

	if (p->args[0] || !bundle) {
		json_t *args = json_array();

		for (char **a = p->args; *a; a++)
			json_array_append_new(args, json_string(*a));
		if (!p->args[0])
			json_array_append_new(args, json_string(opt->system ? "/sbin/init" : "/bin/sh"));
		json_object_set_new(process, "args", args);
	}
	json_object_set_new(process, "terminal", json_boolean(p->tty));
	if (!bundle)
		set_capabilities(process, opt);
	for (unsigned i = 0; i < opt->env_count; i++)
		json_array_append_new(member(process, "env", true), json_string(opt->env[i]));
	if (opt->cwd)
		json_object_set_new(process, "cwd", json_string(opt->cwd));
	if (opt->hostname || !bundle)
		json_object_set_new(o, "hostname", json_string(opt->hostname ? opt->hostname : c->name));
	if (geteuid() == 0) {
		snprintf(text, sizeof(text), "/bothy/%s", c->name);
		json_object_set_new(lin, "cgroupsPath", json_string(text));
	}
	if (opt->system)
		set_system(o);
	set_network(o, p, c);
	rc = ctr_seccomp_set(lin, process, opt->seccomp, bundle, err);
	if (!rc && opt->user)
		rc = set_user(process, opt->user, err);
	if (!rc)
		rc = set_limits(lin, opt, err);
	for (unsigned i = 0; !rc && i < opt->volume_count; i++)
		rc = add_volume(member(o, "mounts", true), opt->volumes[i], err);
	return rc;
}

/* JSON takes no other text, and would lose it without a word. */
static int check_text(const struct ctr_plan *p, struct err *err)
{
	const struct ctr_run_options *o = p->options;
	const char *const single[] = { p->root, o->cwd, o->hostname };
	const struct {
		const char *const *list;
		unsigned count;
	} lists[] = { { single, ARRAY_SIZE(single) },
		      { o->env, o->env_count },
		      { o->volumes, o->volume_count },
		      { o->caps, o->cap_count },
		      { (const char *const *)p->args, UINT32_MAX } };

	for (unsigned i = 0; i < ARRAY_SIZE(lists); i++) {
		for (unsigned k = 0; k < lists[i].count; k++) {
			const char *text = lists[i].list[k];
			json_t *checked = text ? json_string(text) : NULL;

			if (!text && lists[i].list != single)
				break;
			if (text && !checked)
				return err_set(err, -EINVAL,
					       "'%.200s' is no UTF-8; other text cannot be handed on", text);
			json_decref(checked);
		}
	}
	return 0;
}

static int write_text(const struct ctr *c, const char *name, const char *text, struct err *err)
{
	/* The container's users read resolv.conf. */
	int fd = openat(c->dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	int rc = fd < 0 ? -errno : os_write_all(fd, text, strlen(text));

	if (fd >= 0)
		close(fd);
	return rc ? err_sys(err, rc, "cannot write '%s/%s'", c->path, name) : 0;
}

int ctr_config_write(const struct ctr_plan *p, const struct ctr *c, struct err *err)
{
	bool bundle = false;
	char *text = NULL;
	json_t *o = NULL;
	int rc = check_text(p, err);

	if (!rc && !(o = begin(p, &bundle, err)))
		rc = err->code;
	if (!rc)
		rc = fill(o, p, c, bundle, err);
	if (!rc && !(text = json_dumps(o, JSON_INDENT(2))))
		rc = err_set(err, -ENOMEM, "no memory for a configuration");
	json_decref(o);
	if (!rc)
		rc = write_text(c, "config.json", text, err);
	free(text);
	if (!rc && p->network == CTR_USER)
		rc = write_text(c, "resolv.conf", "nameserver 10.0.2.3\n", err);
	return rc;
}

static bool is_port(const char *text, size_t len)
{
	return len && len <= 5 && strspn(text, "0123456789") >= len && atol(text) >= 1 && atol(text) <= 65535;
}

int ctr_config_port(const char *text, char *ret_text, struct err *err)
{
	const char *end = strchr(text, '/'), *inner, *outer, *address = "127.0.0.1";
	size_t len = end ? (size_t)(end - text) : strlen(text), address_len = strlen(address);

	if (!end)
		end = text + len;
	inner = memrchr(text, ':', len);
	outer = inner ? memrchr(text, ':', (size_t)(inner - text)) : NULL;
	if (outer) {
		address = text;
		address_len = (size_t)(outer - text);
	}
	outer = outer ? outer + 1 : text;
	if (!inner || address_len > 15 || !is_port(outer, (size_t)(inner - outer)) ||
	    !is_port(inner + 1, (size_t)(end - inner - 1)) ||
	    (*end && strcmp(end, "/tcp") != 0 && strcmp(end, "/udp") != 0))
		return err_set(
			err, -EINVAL,
			"--publish: '%.64s' is not [ADDRESS:]PORT:PORT or that with /udp, the host's port first",
			text);
	snprintf(ret_text, 64, "%s:%.*s:%.*s-:%.*s", !strcmp(end, "/udp") ? "udp" : "tcp", (int)address_len,
		 address, (int)(inner - outer), outer, (int)(end - inner - 1), inner + 1);
	return 0;
}
