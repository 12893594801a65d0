/* The runtime's side of a container's life.
 *
 * Create writes down what it is about to make before it makes it (the control group's path, then the pid), so that delete
 * can undo the work of a create that was killed at any point: there is never a mount in the host's namespace, the
 * container's process dies with the runtime (container_init.c), and the rest is in state.json.
 *
 * What a failure leaves is undone in the opposite order by abandon(), the same function that deletes.
 */
#include "oci/container.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "jail/systemd.h"
#include "oci/checkpoint.h"
#include "oci/container_init.h"
#include "oci/hooks.h"
#include "oci/process.h"
#include "oci/spawn.h"
#include "oci/terminal.h"
#include "oci/wire.h"

#define PATIENCE_NS (10 * 1000000000ull)

int container_cgroup(const struct status *status, struct cgroup *ret_cgroup, struct err *err)
{
	if (!status->cgroup[0])
		return err_set(err, -ENOTSUP, "container '%s' has no control group", status->id);
	return cgroup_find(ret_cgroup, status->cgroup, err);
}

int container_config(const struct status *status, struct spec *ret_spec, struct err *err)
{
	size_t len;
	char *text;
	int rc = status_read_file(status, "config.json", &text, &len, err);

	if (rc)
		return rc;
	rc = spec_open(ret_spec, text, len, err);
	free(text);
	return rc;
}

int container_write_pid(const char *path, pid_t pid, struct err *err)
{
	char temporary[4096], text[16];
	int fd, rc, n;

	if (!path)
		return 0;
	if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
		return err_set(err, -ENAMETOOLONG, "--pid-file: the path is too long");
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_sys(err, -errno, "--pid-file: cannot write '%s'", path);
	n = snprintf(text, sizeof(text), "%d", (int)pid);
	rc = os_write_all(fd, text, (size_t)n);
	close(fd);
	if (!rc && rename(temporary, path) < 0)
		rc = -errno;
	return rc ? err_sys(err, rc, "--pid-file: cannot write '%s'", path) : 0;
}

static int leave_rdt(const struct status *s, struct err *err)
{
	struct spec spec;
	char root[1024];
	int rc = container_config(s, &spec, err);

	if (rc)
		return rc;
	/* Not mounted any more, it has no classes. */
	if (spec.intel_rdt && !rdt_find(root, sizeof(root), NULL))
		rc = rdt_delete(root, spec.intel_rdt, s->id, s->rdt, err);
	spec_close(&spec);
	return rc;
}

/* Undoes everything. Goes on after a failure; the first one is reported, and the state is kept then. */
static int destroy(int root, struct status *s, struct cgroup *cg, struct err *err)
{
	int pidfd, rc = 0;

	if (status_pidfd(s, &pidfd, NULL))
		pidfd = -1;
	else
		status_signal(s, pidfd, SIGKILL);
	if (cg) {
		if (cgroup_is_frozen(cg))
			cgroup_freeze(cg, false, NULL);
		rc = cgroup_kill(cg, SIGKILL, err);
	}
	if (!rc && pidfd >= 0 && status_wait(pidfd, PATIENCE_NS))
		rc = err_set(err, -EBUSY, "the process of container '%s' does not end within 10 seconds",
			     s->id);
	if (pidfd >= 0)
		close(pidfd);
	if (!rc && cg)
		rc = cgroup_delete(cg, err);
	if (!rc && s->unit[0]) {
		struct err stop = { 0 };

		/* It has nothing any more; a manager that is not there has forgotten it. */
		if (systemd_stop(s->unit, &stop))
			log_warn("%s", stop.msg);
	}
	if (!rc && (s->rdt.clos || s->rdt.monitoring))
		rc = leave_rdt(s, err);
	if (!rc && s->hooks) {
		struct spec spec;
		struct err hook = { 0 };

		/* What poststop hooks do wrong is said, and nothing else [runtime-spec runtime.md#lifecycle]. */
		if (!container_config(s, &spec, &hook)) {
			hooks_run(&spec, SPEC_POSTSTOP, s, "stopped", 0, &hook);
			spec_close(&spec);
		}
		if (hook.code)
			log_warn("%s", hook.msg);
	}
	return rc ? rc : status_delete(root, s, err);
}

/* --- create --- */

static int check_terminal(const struct container *c, struct err *err)
{
	const struct container_options *o = c->options;

	if (c->spec.process->terminal && !o->console_socket && !o->stay)
		return err_set(
			err, -EINVAL,
			"process.terminal: a terminal needs --console-socket, by which somebody gets its other end");
	if (!c->spec.process->terminal && o->console_socket)
		return err_set(
			err, -EINVAL,
			"--console-socket: the container has no terminal; set process.terminal, or leave it out");
	for (u32 i = 0; i < o->preserve_fds; i++)
		if (fcntl(3 + (int)i, F_GETFD) < 0)
			return err_set(err, -EBADF, "--preserve-fds %u: descriptor %u is not open",
				       o->preserve_fds, 3 + i);
	return 0;
}

static int read_config(struct container *c, const char *bundle, struct err *err)
{
	size_t len;
	void *text;
	int rc;

	if (bundle && chdir(bundle) < 0)
		return err_sys(err, -errno, "--bundle: cannot enter '%s'", bundle);
	if (!getcwd(c->status.bundle, sizeof(c->status.bundle)))
		return err_sys(err, -errno, "--bundle: cannot tell where it is");
	rc = os_read_file("config.json", 16 * MiB, &text, &len, err);
	if (rc)
		return rc;
	rc = spec_open(&c->spec, text, len, err);
	free(text);
	if (rc)
		return rc;
	if (!c->spec.process)
		return err_set(err, -EINVAL, "config.json: process: is missing; a container needs a program");
	return check_terminal(c, err);
}

/* systemd takes no unit without a process, and ends one whose last process has gone. So there is one that waits, until the
 * container's is made in the group like in any other. It dies with the runtime. */
static int start_unit(struct container *c, const struct systemd_unit *unit, struct err *err)
{
	char description[STATUS_MAX_ID + 32];
	pid_t runtime = getpid();
	int rc;

	c->keeper = fork();
	if (c->keeper == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		while (getppid() == runtime)
			pause();
		_exit(0);
	}
	if (c->keeper < 0) {
		c->keeper = 0;
		return err_sys(err, -errno, "cannot make a process");
	}
	snprintf(description, sizeof(description), "bothy container %s", c->status.id);
	rc = systemd_start(unit, description, c->keeper, &c->spec.limits, err);
	if (rc)
		return rc;
	rc = cgroup_find(&c->cgroup, c->status.cgroup, err);
	for (unsigned i = 0; !rc && i < c->cgroup.count; i++)
		if (c->cgroup.at[i].joined)
			return 0;
	return rc ? rc
		  : err_set(err, -ENOENT,
			    "systemd has started the unit '%s', but there is no control group '%s'",
			    unit->name, c->status.cgroup);
}

static void end_keeper(struct container *c)
{
	if (!c->keeper)
		return;
	kill(c->keeper, SIGKILL);
	while (waitpid(c->keeper, NULL, 0) < 0 && errno == EINTR)
		;
	c->keeper = 0;
}

static int prepare_cgroup(struct container *c, struct err *err)
{
	const char *path = c->spec.cgroups_path;
	bool systemd = c->options->systemd;
	struct systemd_unit unit = { "", "" };
	char group[sizeof(c->status.cgroup)];
	int rc = 0;

	if (c->options->no_cgroup)
		return 0;
	if (systemd) {
		rc = systemd_parse(path, c->status.id, &unit, err);
		if (!rc)
			rc = systemd_group(&unit, group, sizeof(group), err);
		path = group;
	}
	if (!rc)
		rc = cgroup_init(&c->cgroup, path, c->status.id, err);
	if (rc)
		return rc;
	memcpy(c->status.cgroup, c->cgroup.path, sizeof(c->status.cgroup));
	memcpy(c->status.unit, unit.name, sizeof(c->status.unit));
	rc = status_save(&c->status, err);
	if (!rc && systemd && (rc = start_unit(c, &unit, err)) < 0) {
		/* There is none, or it is somebody else's. */
		c->status.cgroup[0] = c->status.unit[0] = 0;
		return rc;
	}
	if (!rc)
		rc = cgroup_create(&c->cgroup, err);
	if (rc) {
		/* What is there is somebody else's: it must not be touched by the clean-up. */
		if (rc == -EBUSY)
			c->status.cgroup[0] = 0;
		return rc;
	}
	c->has_cgroup = true;
	return 0;
}

static int join_rdt(struct container *c, struct err *err)
{
	char root[1024];
	int rc;

	if (!c->spec.intel_rdt)
		return 0;
	rc = rdt_find(root, sizeof(root), err);
	if (!rc)
		rc = rdt_create(root, c->spec.intel_rdt, c->status.id, &c->status.rdt, err);
	if (!rc)
		rc = rdt_join(root, c->spec.intel_rdt, c->status.id, c->status.pid, err);
	return rc;
}

static int apply_limits(struct container *c, struct err *err)
{
	const struct limits *l = &c->spec.limits;
	int rc = c->has_cgroup ? limits_apply(&c->cgroup, l, err) : 0;

	/* Without privileges nodes cannot be made anyway, and the rules cannot be set. */
	if (!rc && c->has_cgroup && l->devices &&
	    (cgroup_v1(&c->cgroup, "devices") || (geteuid() == 0 && cgroup_v2(&c->cgroup))))
		rc = devfilter_apply(&c->cgroup, l->devices, l->device_count, err);
	return rc;
}

static int open_sockets(struct container *c, int foreground, struct err *err)
{
	const struct filter_spec *f = c->spec.seccomp;
	int rc = 0;

	if (foreground >= 0)
		c->console_socket = foreground;
	else if (c->options->console_socket)
		rc = wire_connect(c->options->console_socket, &c->console_socket, err);
	if (!rc && f && f->listener_path && *f->listener_path)
		rc = wire_connect(f->listener_path, &c->agent, err);
	return rc ? rc : status_listen(&c->status, &c->listen, err);
}

static void child(void *opaque, int wire)
{
	container_init(opaque, wire);
}

static int start_child(struct container *c, int *ret_wire, struct err *err)
{
	const struct spec *s = &c->spec;
	struct spawn how = {
		.uids = { s->uids, s->uid_count },
		.gids = { s->gids, s->gid_count },
		.offsets = s->offsets,
		.offset_count = s->offset_count,
		.child = child,
		.opaque = c,
	};
	struct cgroup_door door;
	pid_t pid;
	int rc = 0;

	if (c->has_cgroup) {
		rc = cgroup_door_open(&c->cgroup, &door, err);
		if (rc)
			return rc;
		how.door = &door;
	}
	for (enum ns_kind k = 0; k < NS_KINDS; k++) {
		how.join[k] = -1;
		if (!s->has_namespace[k] || rc)
			continue;
		if (s->namespace_path[k])
			rc = ns_open(k, s->namespace_path[k], &how.join[k], err);
		else if (k != NS_CGROUP)
			how.create |= ns_types[k].flag;
	}
	if (!rc)
		rc = spawn(&how, &pid, ret_wire, err);
	for (enum ns_kind k = 0; k < NS_KINDS; k++)
		if (how.join[k] >= 0)
			close(how.join[k]);
	if (how.door)
		cgroup_door_close(how.door);
	if (!rc)
		status_remember(&c->status, pid);
	return rc;
}

static int send_filter(const struct container *c, int wire, struct err *err)
{
	struct filter f;
	char *message;
	int rc;

	if (!c->spec.seccomp)
		return 0;
	rc = filter_compile(c->spec.seccomp, &f, err);
	if (rc)
		return rc;
	message = malloc(sizeof(f) + f.size);
	if (!message || sizeof(f) + f.size > WIRE_MAX_DATA) {
		rc = err_set(err, -E2BIG,
			     "linux.seccomp: the filter has %zu bytes, more than can be handed on", f.size);
	} else {
		memcpy(message, &f, sizeof(f));
		memcpy(message + sizeof(f), f.code, f.size);
		/* A failure here means that the other side has ended, and it says why. */
		wire_send(wire, WIRE_FILTER, message, sizeof(f) + f.size);
	}
	free(message);
	free(f.code);
	return rc;
}

/* From the making of the process to its last wait. */
static int bring_up(struct container *c, int wire, struct err *err)
{
	const struct spec_process *p = c->spec.process;
	bool left = false; /* limits that the process could not set itself */
	int rc = join_rdt(c, err);

	if (!rc)
		rc = status_save(&c->status, err);
	if (!rc)
		rc = process_set_oom_score(c->status.pid, p, err);
	if (rc)
		return rc;
	wire_send(wire, WIRE_GO, &c->status.pid, sizeof(c->status.pid));
	if (c->runtime_hooks) {
		rc = wire_expect(wire, WIRE_HOOKS, NULL, 0, NULL, err);
		if (!rc)
			rc = hooks_run(&c->spec, SPEC_PRESTART, &c->status, "creating", c->status.pid, err);
		if (!rc)
			rc = hooks_run(&c->spec, SPEC_CREATE_RUNTIME, &c->status, "creating", c->status.pid,
				       err);
		if (rc)
			return rc;
		wire_send(wire, WIRE_GO, NULL, 0);
	}
	/* The process makes its mounts meanwhile. */
	rc = send_filter(c, wire, err);
	if (!rc)
		rc = wire_expect(wire, WIRE_READY, &left, sizeof(left), NULL, err);
	if (!rc && left)
		rc = process_set_rlimits(c->status.pid, p, err);
	if (rc)
		return rc;
	c->status.complete = true;
	rc = status_save(&c->status, err);
	if (!rc)
		rc = container_write_pid(c->options->pid_file, c->status.pid, err);
	if (!rc && wire_send(wire, WIRE_GO, NULL, 0) < 0)
		rc = err_set(err, -EPIPE, "the container's process has ended");
	return rc;
}

static void close_child_fds(struct container *c)
{
	int *const fds[] = { &c->console_socket, &c->agent, &c->listen };

	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	rootfs_close(&c->rootfs);
}

/* The processes come from images: what is between create and start is not there. */
static int restore(struct container *c, int foreground, struct err *err)
{
	int rc = 0;

	if (foreground >= 0)
		c->console_socket = foreground;
	else if (c->options->console_socket)
		rc = wire_connect(c->options->console_socket, &c->console_socket, err);
	if (!rc)
		rc = checkpoint_restore(c->options->restore, c, err);
	close_child_fds(c);
	if (!rc && c->keeper) {
		end_keeper(c);
		rc = apply_limits(c, err);
	}
	c->status.complete = true;
	if (!rc)
		rc = status_save(&c->status, err);
	if (!rc)
		rc = container_write_pid(c->options->pid_file, c->status.pid, err);
	if (rc && c->status.pid) {
		kill(c->status.pid, SIGKILL);
		while (waitpid(c->status.pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	return rc;
}

static int make(struct container *c, int foreground, struct err *err)
{
	bool kept;
	size_t len;
	void *text;
	int root_fd, wire, rc;

	rc = os_read_file("config.json", 16 * MiB, &text, &len, err);
	if (!rc) {
		rc = status_write_file(&c->status, "config.json", text, len, err);
		free(text);
	}
	if (!rc && c->spec.namespace_path[NS_MNT])
		snprintf(c->status.rootfs, sizeof(c->status.rootfs), "%s", c->spec.root.path);
	else if (!rc && !(rc = rootfs_find(&c->spec, c->status.rootfs, &root_fd, err)))
		close(root_fd);
	if (rc)
		return rc;
	c->status.hooks = c->spec.hooks[SPEC_POSTSTART].count || c->spec.hooks[SPEC_POSTSTOP].count;
	c->runtime_hooks = c->spec.hooks[SPEC_PRESTART].count || c->spec.hooks[SPEC_CREATE_RUNTIME].count;
	rc = prepare_cgroup(c, err);
	/* Some limits are for an empty group only; others would count the process that keeps systemd's. */
	if (!rc && !c->keeper)
		rc = apply_limits(c, err);
	if (c->options->restore) {
		rc = rc ? rc : restore(c, foreground, err);
		end_keeper(c);
		return rc;
	}
	rootfs_init(&c->rootfs, &c->spec, c->has_cgroup ? &c->cgroup : NULL);
	if (!rc)
		rc = open_sockets(c, foreground, err);
	/* Sources may be closed to the users that the container's are mapped to: they are opened here, if we may. */
	if (!rc && geteuid() == 0 && mounts_detached() && !c->spec.namespace_path[NS_MNT])
		rc = rootfs_open(&c->rootfs, err);
	if (!rc)
		rc = start_child(c, &wire, err);
	close_child_fds(c);
	kept = c->keeper != 0;
	end_keeper(c);
	if (rc)
		return rc;
	if (kept)
		rc = apply_limits(c, err);
	if (!rc)
		rc = bring_up(c, wire, err);
	close(wire);
	if (rc) {
		kill(c->status.pid, SIGKILL);
		while (waitpid(c->status.pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	return rc;
}

/* foreground: a socket for the other end of the terminal, -1: none; it is closed. */
static int create(const struct container_options *options, const char *id, int foreground,
		  struct status *ret_status, struct err *err)
{
	struct container *c = calloc(1, sizeof(*c));
	char bundle[sizeof(c->status.bundle)];
	int root, rc;

	if (!c)
		return err_set(err, -ENOMEM, "no memory");
	c->options = options;
	c->console_socket = c->agent = c->listen = -1;
	rootfs_init(&c->rootfs, &c->spec, NULL);
	rc = status_check_id(id, err);
	if (!rc)
		rc = status_open_root(options->root, &root, err);
	if (rc) {
		free(c);
		return rc;
	}
	c->state_root = root;
	rc = read_config(c, options->bundle, err);
	if (!rc) {
		memcpy(bundle, c->status.bundle, sizeof(bundle));
		rc = status_create(root, id, &c->status, err);
	}
	if (!rc) {
		memcpy(c->status.bundle, bundle, sizeof(bundle));
		rc = make(c, foreground, err);
		if (rc) {
			struct err ignored;

			destroy(root, &c->status,
				c->status.cgroup[0] && !cgroup_find(&c->cgroup, c->status.cgroup, NULL)
					? &c->cgroup
					: NULL,
				&ignored);
		}
		status_close(&c->status);
	}
	*ret_status = c->status;
	spec_close(&c->spec);
	close(root);
	free(c);
	return rc;
}

int container_create(const struct container_options *options, const char *id, struct err *err)
{
	struct status status;

	return create(options, id, -1, &status, err);
}

/* --- start --- */

static int wake(struct status *s, struct err *err)
{
	struct err answer = { 0 };
	int conn, rc;

	rc = status_connect(s, &conn, err);
	if (rc)
		return rc;
	unlinkat(s->dir, "start.sock", 0);
	if (send(conn, "", 1, MSG_NOSIGNAL) != 1)
		rc = err_sys(err, -errno, "cannot wake the process of container '%s'", s->id);
	/* The end of the connection is the program's beginning. */
	if (!rc && wire_expect(conn, WIRE_GO, NULL, 0, NULL, &answer) != -EPIPE) {
		if (err)
			*err = answer;
		rc = answer.code;
	}
	close(conn);
	return rc;
}

int container_start(const struct container_options *options, const char *id, struct err *err)
{
	struct status s;
	int root, rc = status_open_root(options->root, &root, err);
	enum status_phase phase;

	if (rc)
		return rc;
	rc = status_open(root, id, true, &s, err);
	close(root);
	if (rc)
		return rc;
	phase = status_phase(&s);
	if (phase != STATUS_CREATED)
		rc = err_set(err, -EINVAL, "cannot start container '%s', which is %s", id,
			     status_phase_name(phase));
	if (!rc)
		rc = wake(&s, err);
	if (!rc && s.hooks) {
		struct spec spec;
		struct err hook = { 0 };

		if (!container_config(&s, &spec, &hook)) {
			hooks_run(&spec, SPEC_POSTSTART, &s, "running", s.pid, &hook);
			spec_close(&spec);
		}
		if (hook.code)
			log_warn("%s", hook.msg);
	}
	status_close(&s);
	return rc;
}

int container_run(const struct container_options *options, const char *id, int *ret_status, struct err *err)
{
	int pair[2] = { -1, -1 }, master = -1, rc = 0, status;
	struct status s = { 0 };

	*ret_status = 0;
	if (options->stay && !options->console_socket)
		rc = terminal_pair(pair, err);
	if (!rc)
		rc = create(options, id, pair[1], &s, err);
	if (rc)
		return rc;
	if (!options->restore)
		rc = container_start(options, id, err);
	if (!rc && options->stay) {
		/* Nothing has come where the container has no terminal. */
		if (pair[0] >= 0)
			terminal_receive(pair[0], &master, NULL);
		status = terminal_stay(s.pid, master, err);
		rc = status < 0 ? status : 0;
		*ret_status = status;
		if (master >= 0)
			close(master);
	}
	if (pair[0] >= 0)
		close(pair[0]);
	if ((options->stay && !options->keep) || rc) {
		struct err ignored = { 0 };
		int deleted = container_delete(options, id, true, rc ? &ignored : err);

		rc = rc ? rc : deleted;
	}
	return rc;
}

/* --- what is done to one that exists --- */

/* A container's state, and its control group where it has one. */
struct existing {
	int root;
	struct status status;
	struct cgroup cgroup;
	bool has_cgroup;
};

static void close_existing(struct existing *e)
{
	status_close(&e->status);
	close(e->root);
	free(e);
}

/* NULL: it could not be, for the reason in *ret_rc and err. */
static struct existing *open_existing(const struct container_options *options, const char *id, bool lock,
				      int *ret_rc, struct err *err)
{
	struct existing *e = calloc(1, sizeof(*e));
	int rc;

	if (!e) {
		*ret_rc = err_set(err, -ENOMEM, "no memory");
		return NULL;
	}
	rc = status_open_root(options->root, &e->root, err);
	if (!rc) {
		rc = status_open(e->root, id, lock, &e->status, err);
		if (rc)
			close(e->root);
	}
	*ret_rc = rc;
	if (rc) {
		free(e);
		return NULL;
	}
	if (e->status.cgroup[0]) {
		rc = container_cgroup(&e->status, &e->cgroup, err);
		e->has_cgroup = true;
	}
	*ret_rc = rc;
	if (!rc)
		return e;
	close_existing(e);
	return NULL;
}

static int need_cgroup(const struct existing *e, struct err *err)
{
	return e->has_cgroup ? 0
			     : err_set(err, -ENOTSUP, "container '%s' has no control group", e->status.id);
}

/* A frozen process of version 1 gets the signal when it goes on. */
static int let_die(struct existing *e, int signal, struct err *err)
{
	return signal == SIGKILL && e->has_cgroup && cgroup_is_frozen(&e->cgroup)
		       ? cgroup_freeze(&e->cgroup, false, err)
		       : 0;
}

static int kill_all(struct existing *e, int signal, struct err *err)
{
	int rc = need_cgroup(e, err);

	if (!rc)
		rc = cgroup_kill(&e->cgroup, signal, err);
	return rc ? rc : let_die(e, signal, err);
}

static int kill_first(struct existing *e, int signal, struct err *err)
{
	int pidfd = -1, rc = status_pidfd(&e->status, &pidfd, err);

	if (rc)
		return rc;
	rc = status_signal(&e->status, pidfd, signal);
	if (rc)
		rc = err_sys(err, rc, "cannot send signal %d to container '%s'", signal, e->status.id);
	close(pidfd);
	return rc ? rc : let_die(e, signal, err);
}

int container_kill(const struct container_options *options, const char *id, int signal, bool all,
		   struct err *err)
{
	int rc;
	struct existing *e = open_existing(options, id, false, &rc, err);

	if (!e)
		return rc;
	rc = all ? kill_all(e, signal, err) : kill_first(e, signal, err);
	close_existing(e);
	return rc;
}

int container_delete(const struct container_options *options, const char *id, bool force, struct err *err)
{
	struct err missing = { 0 };
	enum status_phase phase;
	int rc;
	struct existing *e = open_existing(options, id, true, &rc, &missing);

	if (!e) {
		if (rc == -ENOENT && force)
			return 0;
		if (err)
			*err = missing;
		return rc;
	}
	phase = status_phase(&e->status);
	if (!force && phase != STATUS_STOPPED && phase != STATUS_CREATED)
		rc = err_set(err, -EBUSY,
			     "cannot delete container '%s', which is %s; stop it, or use --force", id,
			     status_phase_name(phase));
	if (!rc)
		rc = destroy(e->root, &e->status, e->has_cgroup ? &e->cgroup : NULL, err);
	close_existing(e);
	return rc;
}

int container_checkpoint(const struct container_options *options, const char *id,
			 const struct checkpoint_options *checkpoint, struct err *err)
{
	struct spec spec = { 0 };
	enum status_phase phase;
	int rc;
	struct existing *e = open_existing(options, id, true, &rc, err);

	if (!e)
		return rc;
	phase = status_phase(&e->status);
	if (phase != STATUS_RUNNING)
		rc = err_set(err, -EINVAL, "cannot checkpoint container '%s', which is %s", id,
			     status_phase_name(phase));
	if (!rc)
		rc = container_config(&e->status, &spec, err);
	if (!rc)
		rc = checkpoint_dump(checkpoint, &e->status, &spec, e->has_cgroup ? &e->cgroup : NULL, err);
	/* Its processes have ended with the dump. */
	if (!rc && !checkpoint->leave_running && !checkpoint->pre_dump)
		rc = destroy(e->root, &e->status, e->has_cgroup ? &e->cgroup : NULL, err);
	spec_close(&spec);
	close_existing(e);
	return rc;
}

int container_freeze(const struct container_options *options, const char *id, bool freeze, struct err *err)
{
	enum status_phase phase;
	int rc;
	struct existing *e = open_existing(options, id, true, &rc, err);

	if (!e)
		return rc;
	phase = status_phase(&e->status);
	if (freeze ? phase != STATUS_RUNNING && phase != STATUS_CREATED : phase != STATUS_PAUSED)
		rc = err_set(err, -EINVAL, "cannot %s container '%s', which is %s",
			     freeze ? "pause" : "resume", id, status_phase_name(phase));
	if (!rc)
		rc = need_cgroup(e, err);
	if (!rc)
		rc = cgroup_freeze(&e->cgroup, freeze, err);
	close_existing(e);
	return rc;
}

int container_update(const struct container_options *options, const char *id, const struct limits *limits,
		     bool devices, struct err *err)
{
	enum status_phase phase;
	int rc;
	struct existing *e = open_existing(options, id, true, &rc, err);

	if (!e)
		return rc;
	phase = status_phase(&e->status);
	if (phase == STATUS_STOPPED || phase == STATUS_CREATING)
		rc = err_set(err, -EINVAL, "cannot update container '%s', which is %s", id,
			     status_phase_name(phase));
	if (!rc)
		rc = need_cgroup(e, err);
	if (!rc)
		rc = limits_apply(&e->cgroup, limits, err);
	if (!rc && e->status.unit[0])
		rc = systemd_update(e->status.unit, limits, err);
	if (!rc && devices)
		rc = devfilter_apply(&e->cgroup, limits->devices, limits->device_count, err);
	close_existing(e);
	return rc;
}
