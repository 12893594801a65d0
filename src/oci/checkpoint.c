/* What CRIU has to be told about a container, and what is checked of what it makes [criu(8)].
 *
 * CRIU writes all that is in the container's own namespaces. What comes from outside is named in both directions: bind mounts,
 * null devices over masked files, namespaces that were joined by path, pipes that standard input and output lead to (in
 * descriptors.json beside the images, as other runtimes have it).
 *
 * Images are not trusted more than any other program from a bundle [O39]: their folder may hold files alone, no links; and when
 * the processes are there, before one of them has run, each of them must be no more than the configuration allows: its
 * namespaces, its bounding capabilities, no_new_privs, a filter of system calls where there is to be one. The rest, as which
 * files are open, is as CRIU restores it: images are to be kept like the programs that they are.
 *
 * The control group is the runtime's: CRIU works inside of it and leaves groups alone, unless it is told a mode.
 */
#include "oci/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jail/inroot.h"
#include "jail/nsview.h"
#include "oci/criu.h"
#include "oci/hooks.h"
#include "oci/wire.h"

#define DESCRIPTORS "descriptors.json"

/* One dump or restore. */
struct work {
	const struct checkpoint_options *options;
	const struct spec *spec;
	const struct status *status;
	const struct cgroup *cg;
	struct container *c; /* of a restore */
	int images, folder;  /* folders of images and of the log */
	struct criu_job job;
	const char *log;
	bool refused; /* by us, at a step */
	pid_t first;  /* of a restored tree; 0: not there yet */
	struct cgroup_door door;
	unsigned kept;
	json_t *descriptors;
};

/* The kinds of namespaces that CRIU takes from outside by a name. */
static const struct {
	enum ns_kind kind;
	const char *name, *key;
} external_ns[] = { { NS_NET, "net", "extRootNetNS" }, { NS_PID, "pid", "extRootPidNS" } };

static int open_folder(const char *path, const char *option, bool make, int *ret_fd, struct err *err)
{
	if (make && mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_sys(err, -errno, "%s: cannot make '%.200s'", option, path);
	*ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *ret_fd < 0 ? err_sys(err, -errno, "%s: cannot open '%.200s'", option, path) : 0;
}

/* --- options --- */

static void add_pair(struct work *w, enum criu_option option, const char *first, const char *second)
{
	struct criu_message part = { 0 };

	criu_text(&part, 1, first);
	criu_text(&part, 2, second);
	criu_part(&w->job.options, option, &part);
}

static int add_page_server(struct work *w, const char *text, struct err *err)
{
	const char *colon = strrchr(text, ':');
	struct criu_message part = { 0 };
	char address[128];
	unsigned long port;
	char *end;

	port = colon ? strtoul(colon + 1, &end, 10) : 0;
	if (!colon || colon == text || *end || !port || port > 65535 ||
	    colon - text >= (ptrdiff_t)sizeof(address))
		return err_set(err, -EINVAL, "--page-server: '%.100s' is not ADDRESS:PORT", text);
	snprintf(address, sizeof(address), "%.*s", (int)(colon - text), text);
	criu_text(&part, 1, address);
	criu_number(&part, 2, (s64)port);
	criu_part(&w->job.options, CRIU_PAGE_SERVER, &part);
	return 0;
}

static int add_status_fd(struct work *w, const char *text, struct err *err)
{
	char *end;
	long fd = strtol(text, &end, 10);

	if (end == text || *end || fd < 0 || fd > 65535 || fcntl((int)fd, F_GETFD) < 0)
		return err_set(err, -EBADF, "--status-fd: '%.32s' is no open descriptor", text);
	criu_number(&w->job.options, CRIU_STATUS_FD, fd);
	w->job.keep[w->kept++] = (int)fd;
	return 0;
}

static int add_options(struct work *w, struct err *err)
{
	static const char *const modes[] = { "ignore", NULL, NULL, "soft", "full", "strict" };
	const struct checkpoint_options *o = w->options;
	struct criu_message *m = &w->job.options;
	const struct {
		enum criu_option option;
		bool value;
	} flags[] = {
		{ CRIU_LEAVE_RUNNING, o->leave_running }, { CRIU_TCP_ESTABLISHED, o->tcp_established },
		{ CRIU_EXT_UNIX_SK, o->ext_unix_sk },     { CRIU_SHELL_JOB, o->shell_job },
		{ CRIU_FILE_LOCKS, o->file_locks },       { CRIU_AUTO_DEDUP, o->auto_dedup },
		{ CRIU_LAZY_PAGES, o->lazy_pages },
	};
	unsigned mode = 0;
	int rc = 0;

	criu_number(m, CRIU_IMAGES_FD, w->images);
	criu_number(m, CRIU_WORK_FD, w->folder);
	criu_number(m, CRIU_LOG_LEVEL, 4);
	criu_text(m, CRIU_LOG_FILE, w->log);
	criu_text(m, CRIU_ROOT, w->status->rootfs);
	criu_number(m, CRIU_NOTIFY, 1);
	criu_number(m, CRIU_ORPHAN_TERMINAL, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++)
		if (flags[i].value)
			criu_number(m, flags[i].option, 1);
	if (o->parent && (o->parent[0] == '/' || !o->parent[0]))
		return err_set(
			err, -EINVAL,
			"--parent-path: '%.200s' is not relative; give it from the folder of --image-path",
			o->parent);
	if (o->parent)
		criu_text(m, CRIU_PARENT, o->parent);
	if (o->parent || o->pre_dump)
		criu_number(m, CRIU_TRACK_MEMORY, 1);
	if (o->lsm_profile)
		criu_text(m, CRIU_LSM_PROFILE, o->lsm_profile);
	if (o->lsm_mount_context)
		criu_text(m, CRIU_LSM_MOUNT_CONTEXT, o->lsm_mount_context);
	if (o->empty_ns && strcmp(o->empty_ns, "network") != 0)
		return err_set(err, -EINVAL, "--empty-ns: '%.32s' cannot be left empty; network can",
			       o->empty_ns);
	if (o->empty_ns)
		criu_number(m, CRIU_EMPTY_NS, CLONE_NEWNET);
	while (o->cgroup_mode && mode < ARRAY_SIZE(modes) &&
	       (!modes[mode] || strcmp(modes[mode], o->cgroup_mode) != 0))
		mode++;
	if (mode == ARRAY_SIZE(modes))
		return err_set(err, -EINVAL,
			       "--manage-cgroups-mode: there is no mode '%.32s'; valid are soft, full, "
			       "strict, ignore",
			       o->cgroup_mode);
	criu_number(m, CRIU_CGROUP_MODE, mode);
	if (o->page_server)
		rc = add_page_server(w, o->page_server, err);
	if (!rc && o->status_fd)
		rc = add_status_fd(w, o->status_fd, err);
	return rc;
}

/* --- what comes from outside --- */

/* "//a//b/" as "/a/b", which is how a mount's place is known to CRIU. */
static void clean_path(const char *path, char *out, size_t size)
{
	size_t n = 0;

	out[0] = 0;
	for (path += strspn(path, "/"); *path; path += strspn(path, "/")) {
		size_t len = strcspn(path, "/");

		if (n + len + 2 < size)
			n += (size_t)snprintf(out + n, size - n, "/%.*s", (int)len, path);
		path += len;
	}
}

/* Each mount from outside: in a dump under its own name, in a restore with what is mounted there. */
static void add_mount(struct work *w, const char *where, const char *what)
{
	char place[4096];

	clean_path(where, place, sizeof(place));
	add_pair(w, CRIU_EXTERNAL_MOUNT, place, w->c ? what : place);
}

/* root: a folder to look below, the container's as it runs, or its root file system. */
static int add_mounts(struct work *w, int root, struct err *err)
{
	static const char *const nodes[] = { "/dev/null",   "/dev/zero",    "/dev/full",
					     "/dev/random", "/dev/urandom", "/dev/tty" };
	const struct spec *s = w->spec;
	struct stat st;

	for (unsigned i = 0; i < s->mount_count; i++) {
		const struct spec_mount *m = &s->mounts[i];
		char *real;
		int fd, rc;

		if (!m->options.bind || m->options.remount)
			continue;
		real = w->c ? realpath(m->source, NULL) : NULL;
		if (w->c && (!real || stat(real, &st) < 0)) {
			free(real);
			return err_sys(err, -errno, "mounts[%u].source: cannot find '%.200s'", i, m->source);
		}
		/* The image may have come from elsewhere, without the place. */
		if (w->c) {
			rc = inroot_make(root, m->destination, S_ISDIR(st.st_mode), 0, &fd, err);
			if (rc) {
				free(real);
				return err_wrap(err, "mounts[%u]", i);
			}
			close(fd);
		}
		add_mount(w, m->destination, real);
		free(real);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(nodes) && s->has_namespace[NS_USER]; i++)
		add_mount(w, nodes[i], nodes[i]);
	for (unsigned i = 0; i < s->masked_count; i++) {
		int fd = inroot_open(root, s->masked[i], O_PATH, 0);

		/* In the root file system /proc and /sys are empty: what is masked there is known from the host. */
		if (fd < 0 && w->c &&
		    (!strncmp(s->masked[i], "/proc/", 6) || !strncmp(s->masked[i], "/sys/", 5)))
			fd = open(s->masked[i], O_PATH | O_CLOEXEC);
		if (fd >= 0 && !fstat(fd, &st) && !S_ISDIR(st.st_mode))
			add_mount(w, s->masked[i], "/dev/null");
		if (fd >= 0)
			close(fd);
	}
	return 0;
}

static int add_namespaces(struct work *w, struct err *err)
{
	const struct spec *s = w->spec;

	for (unsigned i = 0; i < ARRAY_SIZE(external_ns); i++) {
		const char *path = s->namespace_path[external_ns[i].kind];
		struct criu_message part = { 0 };
		char text[128];
		int fd, rc;

		if (!path)
			continue;
		if (!w->c) {
			snprintf(text, sizeof(text), "%s[%llu]:%s", external_ns[i].name,
				 (unsigned long long)nsview_inode(w->status->pid, external_ns[i].kind),
				 external_ns[i].key);
			criu_text(&w->job.options, CRIU_EXTERNAL, text);
			continue;
		}
		rc = ns_open(external_ns[i].kind, path, &fd, err);
		if (rc)
			return rc;
		criu_text(&part, 1, external_ns[i].key);
		criu_number(&part, 2, fd);
		criu_part(&w->job.options, CRIU_INHERIT, &part);
		w->job.keep[w->kept++] = fd;
	}
	for (enum ns_kind k = 0; w->c && k < NS_KINDS; k++)
		if (s->namespace_path[k] && (k == NS_UTS || k == NS_IPC))
			add_pair(w, CRIU_JOIN_NS, ns_types[k].file, s->namespace_path[k]);
	return 0;
}

/* --- dump --- */

/* Where standard input, output and error lead, for the restore. */
static int write_descriptors(const struct work *w, struct err *err)
{
	json_t *list = json_array();
	int fd, rc;

	for (int i = 0; i < 3; i++) {
		char path[64], text[4096];
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)w->status->pid, i);
		n = readlink(path, text, sizeof(text));
		json_array_append_new(list, json_stringn(text, n < 0 ? 0 : (size_t)n) ?: json_string(""));
	}
	fd = openat(w->images, DESCRIPTORS, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	rc = fd < 0 ? -errno : json_dumpfd(list, fd, JSON_COMPACT) < 0 ? -EIO : 0;
	json_decref(list);
	if (fd >= 0)
		close(fd);
	return rc ? err_sys(err, rc, "--image-path: cannot write " DESCRIPTORS) : 0;
}

static void add_freezer(struct work *w)
{
	const struct cgroup_hierarchy *h = w->cg ? cgroup_v1(w->cg, "freezer") : NULL;
	char path[2048];

	if (!h && w->cg)
		h = cgroup_v2(w->cg);
	if (!h)
		return;
	snprintf(path, sizeof(path), "%s%s", h->mount, w->cg->path);
	criu_text(&w->job.options, CRIU_FREEZER, path);
}

/* What CRIU has said first of all that went wrong: the rest follows from it. */
static int explain(const struct work *w, int rc, const char *what, struct err *err)
{
	char said[200] = "", *line = NULL;
	size_t room = 0;
	int fd = openat(w->folder, w->log, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	const char *where = w->options->work ? w->options->work : w->options->images;

	/* "(00.012345) Error (criu/file.c:123): ..." */
	while (f && !said[0] && getline(&line, &room, f) > 0) {
		const char *at = strstr(line, "Error (");

		if (at)
			snprintf(said, sizeof(said), "%.*s", (int)strcspn(at, "\n"), at);
	}
	free(line);
	if (f)
		fclose(f);
	for (char *p = said; *p; p++)
		if ((u8)*p < 0x20 || *p == 0x7f)
			*p = '?';
	if (said[0])
		return err_set(err, rc, "cannot %s container '%s': %s; more is in %.200s/%s", what,
			       w->status->id, said, where, w->log);
	return err_wrap(err, "cannot %s container '%s'", what, w->status->id);
}

static int ask(struct work *w, pid_t *ret_pid, const char *what, struct err *err)
{
	int rc = criu_run(&w->job, ret_pid, err);

	/* Without a log it has not come to anything. */
	return !rc || w->refused || faccessat(w->folder, w->log, F_OK, 0) < 0 ? rc
									      : explain(w, rc, what, err);
}

static void finish(struct work *w)
{
	/* The descriptors of namespaces; that of --status-fd is the caller's, and nobody's from now on. */
	for (unsigned i = 0; i < w->kept; i++)
		close(w->job.keep[i]);
	free(w->job.options.data);
	if (w->images >= 0)
		close(w->images);
	if (w->folder >= 0)
		close(w->folder);
	json_decref(w->descriptors);
}

static int begin(struct work *w, bool make, struct err *err)
{
	const struct checkpoint_options *o = w->options;
	int rc;

	w->images = w->folder = -1;
	memset(w->job.keep, 0xff, sizeof(w->job.keep));
	if (geteuid() != 0)
		return err_set(err, -EPERM, "checkpoint and restore need root");
	rc = open_folder(o->images, "--image-path", make, &w->images, err);
	if (!rc)
		rc = open_folder(o->work ? o->work : o->images, "--work-path", o->work, &w->folder, err);
	/* What an earlier attempt has said is not about this one. */
	if (!rc && unlinkat(w->folder, w->log, 0) < 0 && errno != ENOENT)
		rc = err_sys(err, -errno, "--work-path: cannot remove '%s'", w->log);
	return rc ? rc : add_options(w, err);
}

int checkpoint_dump(const struct checkpoint_options *options, const struct status *status,
		    const struct spec *spec, const struct cgroup *cg, struct err *err)
{
	struct work w = { .options = options, .spec = spec, .status = status, .cg = cg, .log = "dump.log" };
	char path[64];
	int root = -1, rc = begin(&w, true, err);

	w.job.request = options->pre_dump ? CRIU_PRE_DUMP : CRIU_DUMP;
	criu_number(&w.job.options, CRIU_PID, status->pid);
	add_freezer(&w);
	if (!rc) {
		snprintf(path, sizeof(path), "/proc/%d/root", (int)status->pid);
		root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		rc = root < 0 ? err_sys(err, -errno, "cannot open the root of container '%s'", status->id)
			      : add_mounts(&w, root, err);
	}
	if (root >= 0)
		close(root);
	if (!rc)
		rc = add_namespaces(&w, err);
	if (!rc && !options->pre_dump)
		rc = write_descriptors(&w, err);
	if (!rc)
		rc = ask(&w, NULL, "checkpoint", err);
	finish(&w);
	return rc;
}

/* --- restore --- */

static int check_images(const struct work *w, struct err *err)
{
	int copy = openat(w->images, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	struct stat st;

	if (!d)
		return err_sys(err, -errno, "--image-path: cannot list '%.200s'", w->options->images);
	while (!rc && (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    fstatat(w->images, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		/* CRIU's own link to the images of a pre-dump. */
		if (S_ISLNK(st.st_mode) && !strcmp(e->d_name, "parent"))
			continue;
		if (!S_ISREG(st.st_mode) && !(S_ISDIR(st.st_mode) && w->options->work))
			rc = err_set(
				err, -EINVAL,
				"--image-path: '%.200s/%.100s' is no file; a folder of images holds files alone",
				w->options->images, e->d_name);
	}
	closedir(d);
	return rc;
}

static int read_descriptors(struct work *w, struct err *err)
{
	int fd = openat(w->images, DESCRIPTORS, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	json_error_t bad;

	w->descriptors = fd < 0 ? NULL : json_loadfd(fd, JSON_REJECT_DUPLICATES, &bad);
	if (fd >= 0)
		close(fd);
	if (!json_is_array(w->descriptors) || json_array_size(w->descriptors) > 3)
		return err_set(err, -EINVAL,
			       "--image-path: '%.200s' has no usable " DESCRIPTORS
			       "; it is no checkpoint of a container",
			       w->options->images);
	for (size_t i = 0; i < json_array_size(w->descriptors); i++) {
		const char *text = json_string_value(json_array_get(w->descriptors, i));
		struct criu_message part = { 0 };

		if (!text || strncmp(text, "pipe:", 5) != 0)
			continue;
		criu_text(&part, 1, text);
		criu_number(&part, 2, (s64)i);
		criu_part(&w->job.options, CRIU_INHERIT, &part);
	}
	return 0;
}

static u64 status_number(pid_t pid, const char *name, int base)
{
	char path[64], line[256];
	size_t len = strlen(name);
	u64 value = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, len) && line[len] == ':')
			value = strtoull(line + len + 1, NULL, base);
	if (f)
		fclose(f);
	return value;
}

/* No process may be more than the configuration makes of one. */
static int check_process(const struct work *w, pid_t pid, struct err *err)
{
	const struct spec *s = w->spec;
	const struct spec_process *p = s->process;

	for (enum ns_kind k = 0; k < NS_KINDS; k++)
		if (s->has_namespace[k] && !s->namespace_path[k] &&
		    nsview_inode(pid, k) == nsview_inode(0, k))
			return err_set(err, -EPERM,
				       "process %d of the images would be in the host's %s namespace",
				       (int)pid, ns_types[k].name);
	if (status_number(pid, "CapBnd", 16) & ~(p->caps.bounding | p->caps.permitted))
		return err_set(err, -EPERM,
			       "process %d of the images has more capabilities than process.capabilities",
			       (int)pid);
	if (p->no_new_privileges && !status_number(pid, "NoNewPrivs", 10))
		return err_set(err, -EPERM, "process %d of the images is without process.noNewPrivileges",
			       (int)pid);
	if (s->seccomp && status_number(pid, "Seccomp", 10) != 2)
		return err_set(err, -EPERM, "process %d of the images is without a filter of system calls",
			       (int)pid);
	return 0;
}

static int check_processes(struct work *w, pid_t first, struct err *err)
{
	enum ns_kind kind = w->spec->has_namespace[NS_PID] ? NS_PID : NS_MNT;
	pid_t *pids = NULL;
	unsigned count = 0;
	int rc = check_process(w, first, err);

	if (!rc && w->cg)
		rc = cgroup_processes(w->cg, &pids, &count, err);
	for (unsigned i = 0; i < count && !rc; i++) {
		/* CRIU is there too, in the host's. A user namespace that the container has made has capabilities of its own. */
		if (nsview_inode(pids[i], kind) != nsview_inode(0, kind) &&
		    nsview_inode(pids[i], NS_USER) == nsview_inode(first, NS_USER)) {
			rc = check_process(w, pids[i], err);
			if (rc)
				kill(pids[i], SIGKILL);
		}
	}
	free(pids);
	return rc;
}

static int on_step(void *opaque, const char *step, pid_t pid, int fd, struct err *err)
{
	struct work *w = opaque;
	struct container *c = w->c;
	int rc = 0;

	if (!strcmp(step, "setup-namespaces") && pid) {
		w->first = pid;
		rc = hooks_run(w->spec, SPEC_PRESTART, w->status, "creating", pid, err);
		if (!rc)
			rc = hooks_run(w->spec, SPEC_CREATE_RUNTIME, w->status, "creating", pid, err);
	} else if (!strcmp(step, "orphan-pts-master") && fd >= 0 && c->console_socket >= 0) {
		rc = wire_send_fd(c->console_socket, fd, "/dev/ptmx", strlen("/dev/ptmx"), err);
	} else if (!strcmp(step, "post-restore") && pid) {
		w->first = pid;
	} else if (!strcmp(step, "pre-resume")) {
		/* The last before they run, and the first at which they are what they will be. CRIU goes on after a failure here. */
		rc = w->first > 0 ? check_processes(w, w->first, err)
				  : err_set(err, -EPROTO, "CRIU does not say which process it has made");
		if (rc && w->first > 0)
			kill(w->first, SIGKILL);
	}
	if (fd >= 0)
		close(fd);
	w->refused |= rc != 0;
	return rc;
}

/* What a CRIU that has died has left [O40]. What else it has made is found in the control group. */
static void end_first(const struct work *w)
{
	siginfo_t info;

	/* Nobody else's, whatever CRIU has said. */
	if (w->first <= 0 || waitid(P_PID, (id_t)w->first, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
		return;
	kill(w->first, SIGKILL);
	while (waitpid(w->first, NULL, 0) < 0 && errno == EINTR)
		;
}

int checkpoint_restore(const struct checkpoint_options *options, struct container *c, struct err *err)
{
	struct work w = {
		.options = options,
		.spec = &c->spec,
		.status = &c->status,
		.cg = c->has_cgroup ? &c->cgroup : NULL,
		.c = c,
		.log = "restore.log",
		.job = { .request = CRIU_RESTORE, .root = c->status.rootfs, .notify = on_step, .opaque = &w },
	};
	char path[4096];
	pid_t pid = 0;
	int root = -1, rc = begin(&w, false, err);

	w.job.no_new_privs = c->spec.process->no_new_privileges;
	criu_number(&w.job.options, CRIU_SIBLING, 1);
	if (!rc)
		rc = check_images(&w, err);
	if (!rc)
		rc = read_descriptors(&w, err);
	if (!rc)
		rc = rootfs_find(&c->spec, path, &root, err);
	if (!rc)
		rc = add_mounts(&w, root, err);
	if (root >= 0)
		close(root);
	if (!rc)
		rc = add_namespaces(&w, err);
	if (!rc && w.cg && !(rc = cgroup_door_open(w.cg, &w.door, err)))
		w.job.door = &w.door;
	/* Where CRIU leaves groups alone, it leaves their namespace too: all that it makes gets its own. */
	if (!options->cgroup_mode || !strcmp(options->cgroup_mode, "ignore"))
		w.job.cgroup_ns = c->spec.has_namespace[NS_CGROUP] && !c->spec.namespace_path[NS_CGROUP];
	else
		for (unsigned i = 0; w.cg && i < w.cg->count; i++)
			if (w.cg->at[i].joined)
				add_pair(&w, CRIU_CGROUP_ROOT, w.cg->at[i].controllers, w.cg->path);
	if (!rc)
		rc = ask(&w, &pid, "restore", err);
	if (!rc && pid <= 0)
		rc = err_set(err, -EPROTO, "CRIU does not say which process it has made");
	if (rc)
		end_first(&w);
	else
		status_remember(&c->status, pid);
	if (w.job.door)
		cgroup_door_close(w.job.door);
	finish(&w);
	return rc;
}
