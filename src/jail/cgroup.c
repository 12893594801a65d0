/* The life of a control group: find the hierarchies, make the group, put a process in, signal, freeze, remove.
 *
 * What is removed or killed must be the container's own. The path comes from a configuration, which may name "/" or
 * another service's group; so a group that exists before must have neither processes nor groups below it, and ".." is
 * refused. Directories above the group are made where they are missing, and stay: others may have come to use them.
 *
 * Freezing and killing use version 2's hierarchy wherever there is one, on hybrid hosts too: a frozen process of
 * version 1 cannot be killed, one of version 2 can. A process is in the group of every hierarchy, so it does not matter
 * which is asked.
 *
 * A path of systemd's form (slice:prefix:name) is refused here: systemd.c makes groups of such names.
 */
#include "jail/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os.h"

#define PATIENCE_NS (10 * 1000000000ull)
#define MAX_NESTING 64

static const char *const v1_controllers[] = { "cpu",      "cpuacct",    "cpuset", "memory",  "devices",
					      "freezer",  "blkio",      "pids",   "hugetlb", "net_cls",
					      "net_prio", "perf_event", "rdma",   "misc" };

/* Keeps those words of a mount's options that say which hierarchy it is. */
static void pick_controllers(const char *options, char *out, size_t size)
{
	size_t n = 0;

	out[0] = 0;
	while (*options) {
		size_t len = strcspn(options, ",");
		bool keep = len > 5 && !strncmp(options, "name=", 5);

		for (unsigned i = 0; !keep && i < ARRAY_SIZE(v1_controllers); i++)
			keep = strlen(v1_controllers[i]) == len && !strncmp(options, v1_controllers[i], len);
		if (keep && n + len + 2 < size)
			n += (size_t)snprintf(out + n, size - n, "%s%.*s", n ? "," : "", (int)len, options);
		options += len + (options[len] == ',');
	}
}

static void add_mount(struct cgroup *cg, const char *mount, const char *type, const char *options)
{
	struct cgroup_hierarchy h = { .v2 = !strcmp(type, "cgroup2") };

	if (strlen(mount) >= sizeof(h.mount) || strchr(mount, '\\') || cg->count == CGROUP_MAX_HIERARCHIES)
		return;
	memcpy(h.mount, mount, strlen(mount) + 1);
	if (!h.v2)
		pick_controllers(options, h.controllers, sizeof(h.controllers));
	if (!h.v2 && !h.controllers[0])
		return;
	/* The same hierarchy may be mounted again, for a container's own view: the first one is the host's. */
	for (unsigned i = 0; i < cg->count; i++)
		if (cg->at[i].v2 == h.v2 && !strcmp(cg->at[i].controllers, h.controllers))
			return;
	cg->at[cg->count++] = h;
}

static int find_hierarchies(struct cgroup *cg, struct err *err)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;

	if (!f)
		return err_sys(err, -errno, "cannot read /proc/self/mountinfo");
	while (getline(&line, &size, f) > 0) {
		char *dash = strstr(line, " - cgroup"), mount[256], type[32], options[512];

		if (dash && sscanf(line, "%*s %*s %*s %*s %255s", mount) == 1 &&
		    sscanf(dash + 3, "%31s %*s %511s", type, options) == 2)
			add_mount(cg, mount, type, options);
	}
	free(line);
	fclose(f);
	return 0;
}

static int check_path(const char *path, struct err *err)
{
	if (!path[strspn(path, "/")])
		return err_set(err, -EINVAL,
			       "linux.cgroupsPath: '%s' is the root of all groups; give a path below it",
			       path);
	for (const char *p = path; *p;) {
		size_t len = strcspn(p, "/");

		if ((len == 2 && !strncmp(p, "..", 2)) || (len == 1 && *p == '.') || len > NAME_MAX)
			return err_set(
				err, -EINVAL,
				"linux.cgroupsPath: '%.200s' has a component that is '..', '.' or too long",
				path);
		p += len + (p[len] == '/');
	}
	if (strpbrk(path, "\n\\"))
		return err_set(err, -EINVAL, "linux.cgroupsPath: a newline or backslash is not accepted");
	return 0;
}

/* The caller's own group, of version 2 or else the first that /proc/self/cgroup names; "" for the root. */
static void own_group(char *out, size_t size)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char *line = NULL;
	size_t room = 0;

	out[0] = 0;
	while (f && getline(&line, &room, f) > 0) {
		const char *path = strchr(line, ':');

		path = path ? strchr(path + 1, ':') : NULL;
		if (!path || strlen(path + 1) >= size)
			continue;
		line[strcspn(line, "\n")] = 0;
		/* "/.." : of another cgroup namespace. */
		if (path[1] == '/' && path[2] && strncmp(path + 1, "/..", 3) != 0)
			snprintf(out, size, "%s", path + 1);
		if (!strncmp(line, "0::", 3))
			break;
	}
	free(line);
	if (f)
		fclose(f);
}

int cgroup_init(struct cgroup *cg, const char *path, const char *id, struct err *err)
{
	char own[512];
	int rc, n;

	memset(cg, 0, sizeof(*cg));
	if (path && path[0] != '/' && strchr(path, ':'))
		return err_set(
			err, -ENOTSUP,
			"linux.cgroupsPath: '%.200s' has the form of systemd's groups; use --systemd-cgroup, or give "
			"a path that begins with '/'",
			path);
	if (!path || !*path) {
		n = snprintf(cg->path, sizeof(cg->path), "/%s", id);
	} else if (path[0] == '/') {
		n = snprintf(cg->path, sizeof(cg->path), "%s", path);
	} else {
		own_group(own, sizeof(own));
		n = snprintf(cg->path, sizeof(cg->path), "%s/%s", own, path);
	}
	if (n < 0 || (size_t)n >= sizeof(cg->path) - 256)
		return err_set(err, -ENAMETOOLONG, "linux.cgroupsPath has more than %zu bytes",
			       sizeof(cg->path) - 256);
	while (n > 1 && cg->path[n - 1] == '/')
		cg->path[--n] = 0;
	rc = check_path(path && *path ? path : cg->path, err);
	return rc ? rc : find_hierarchies(cg, err);
}

static void group_dir(const struct cgroup *cg, const struct cgroup_hierarchy *h, char *out, size_t size)
{
	snprintf(out, size, "%s%s", h->mount, cg->path);
}

int cgroup_find(struct cgroup *cg, const char *full_path, struct err *err)
{
	char dir[PATH_MAX];
	int rc = cgroup_init(cg, full_path, "", err);

	for (unsigned i = 0; !rc && i < cg->count; i++) {
		group_dir(cg, &cg->at[i], dir, sizeof(dir));
		cg->at[i].joined = !access(dir, F_OK);
	}
	return rc;
}

int cgroup_write(const struct cgroup *cg, const struct cgroup_hierarchy *h, const char *file,
		 const char *text)
{
	char path[PATH_MAX];
	ssize_t n;
	int fd, rc;

	snprintf(path, sizeof(path), "%s%s/%s", h->mount, cg->path, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	rc = n < 0 ? -errno : 0;
	close(fd);
	return rc;
}

int cgroup_read(const struct cgroup *cg, const struct cgroup_hierarchy *h, const char *file, char *buf,
		size_t size)
{
	char path[PATH_MAX];
	size_t got = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s%s/%s", h->mount, cg->path, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (got < size - 1 && (n = read(fd, buf + got, size - 1 - got)) > 0)
		got += (size_t)n;
	close(fd);
	while (got && buf[got - 1] == '\n')
		got--;
	buf[got] = 0;
	return 0;
}

const struct cgroup_hierarchy *cgroup_v1(const struct cgroup *cg, const char *controller)
{
	size_t len = strlen(controller);

	for (unsigned i = 0; i < cg->count; i++) {
		for (const char *p = cg->at[i].controllers; *p;) {
			size_t n = strcspn(p, ",");

			if (n == len && !strncmp(p, controller, n) && cg->at[i].joined)
				return &cg->at[i];
			p += n + (p[n] == ',');
		}
	}
	return NULL;
}

const struct cgroup_hierarchy *cgroup_v2(const struct cgroup *cg)
{
	for (unsigned i = 0; i < cg->count; i++)
		if (cg->at[i].v2 && cg->at[i].joined)
			return &cg->at[i];
	return NULL;
}

bool cgroup_is_unified(const struct cgroup *cg)
{
	return cg->count == 1 && cg->at[0].v2;
}

/* A new group of cpuset (version 1) has no processors and memory nodes, and takes no process until it has. */
static void inherit_cpuset(const char *dir)
{
	static const char *const files[] = { "cpuset.cpus", "cpuset.mems" };

	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		char path[PATH_MAX], text[512];
		ssize_t n = -1;
		int fd;

		snprintf(path, sizeof(path), "%.3800s/%s", dir, files[i]);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (read(fd, text, sizeof(text)) <= 1) {
			char above[PATH_MAX];
			int up;

			snprintf(above, sizeof(above), "%.3800s/../%s", dir, files[i]);
			up = open(above, O_RDONLY | O_CLOEXEC);
			n = up < 0 ? -1 : read(up, text, sizeof(text));
			if (up >= 0)
				close(up);
		}
		/* What fails here shows when a process joins. */
		if (n > 0 && pwrite(fd, text, (size_t)n, 0) < 0)
			errno = 0;
		close(fd);
	}
}

/* Version 2: what the groups below dir may limit. One by one: a controller that is not there must not keep the others off. */
static void delegate(const char *dir)
{
	static const char *const words[] = { "+cpu", "+cpuset",  "+memory", "+pids",
					     "+io",  "+hugetlb", "+rdma",   "+misc" };
	char path[PATH_MAX];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%.3900s/cgroup.subtree_control", dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	for (unsigned i = 0; fd >= 0 && i < ARRAY_SIZE(words); i++) {
		n = write(fd, words[i], strlen(words[i]));
		(void)n;
	}
	if (fd >= 0)
		close(fd);
}

static bool has_controllers(const char *mount)
{
	char path[256], byte;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.controllers", mount);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, &byte, 1);
	close(fd);
	return n == 1 && byte != '\n';
}

/* Whether a group that was there before is nobody's: no process, no group below. */
static bool is_empty(const char *dir)
{
	char path[PATH_MAX], byte;
	bool empty = true;
	struct dirent *e;
	DIR *d;
	int fd;

	snprintf(path, sizeof(path), "%.3900s/cgroup.procs", dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, &byte, 1) != 0)
		empty = false;
	if (fd >= 0)
		close(fd);
	d = opendir(dir);
	while (d && (e = readdir(d)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.')
			empty = false;
	if (d)
		closedir(d);
	return empty;
}

static int create_in(const struct cgroup *cg, const struct cgroup_hierarchy *h, struct err *err)
{
	bool cpuset = strstr(h->controllers, "cpuset") != NULL,
	     controllers = h->v2 && has_controllers(h->mount);
	char dir[PATH_MAX];
	size_t at = strlen(h->mount);

	group_dir(cg, h, dir, sizeof(dir));
	for (;;) {
		char was;
		bool last;

		if (controllers) {
			was = dir[at];
			dir[at] = 0;
			delegate(dir);
			dir[at] = was;
		}
		at += strspn(dir + at, "/");
		at += strcspn(dir + at, "/");
		was = dir[at];
		last = !was;
		dir[at] = 0;
		if (mkdir(dir, 0755) < 0) {
			if (errno != EEXIST)
				return err_sys(err, -errno, "cannot make the control group '%s'", dir);
			if (last && !is_empty(dir))
				return err_set(
					err, -EBUSY,
					"the control group '%s' is in use; give another linux.cgroupsPath",
					dir);
		}
		if (cpuset)
			inherit_cpuset(dir);
		if (last)
			return 0;
		dir[at] = was;
	}
}

int cgroup_create(struct cgroup *cg, struct err *err)
{
	for (unsigned i = 0; i < cg->count; i++) {
		struct cgroup_hierarchy *h = &cg->at[i];
		int rc = h->joined ? 0 : create_in(cg, h, err);

		if (rc == -EBUSY || (rc && geteuid() == 0 && rc != -EROFS))
			return rc;
		h->joined = !rc;
	}
	if (err)
		err->code = 0;
	return 0;
}

int cgroup_join(const struct cgroup *cg, pid_t pid, struct err *err)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", (int)pid);
	for (unsigned i = 0; i < cg->count; i++) {
		int rc = cg->at[i].joined ? cgroup_write(cg, &cg->at[i], "cgroup.procs", text) : 0;

		if (rc)
			return err_sys(err, rc, "cannot put process %d into the control group '%s%s'",
				       (int)pid, cg->at[i].mount, cg->path);
	}
	return 0;
}

void cgroup_descend(struct cgroup *cg, pid_t pid)
{
	char text[256] = "", path[64], line[1200];
	size_t len = strlen(cg->path);
	FILE *f;

	if (!cgroup_is_unified(cg) ||
	    cgroup_read(cg, &cg->at[0], "cgroup.subtree_control", text, sizeof(text)) || !text[0])
		return;
	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	f = fopen(path, "re");
	/* "0::/box/init.scope" */
	if (f && fgets(line, sizeof(line), f) && !strncmp(line, "0::", 3)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line + 3, cg->path, len) && line[3 + len] == '/' &&
		    strlen(line + 3) < sizeof(cg->path))
			memcpy(cg->path, line + 3, strlen(line + 3) + 1);
	}
	if (f)
		fclose(f);
}

int cgroup_door_open(const struct cgroup *cg, struct cgroup_door *ret_door, struct err *err)
{
	struct cgroup_door d = { .v2 = -1, .v2_procs = -1 };
	int rc = 0;

	for (unsigned i = 0; i < cg->count && !rc; i++) {
		const struct cgroup_hierarchy *h = &cg->at[i];
		char path[PATH_MAX];
		int dir;

		if (!h->joined)
			continue;
		group_dir(cg, h, path, sizeof(path));
		dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0) {
			rc = -errno;
		} else if (h->v2) {
			d.v2 = dir;
			d.v2_procs = openat(dir, "cgroup.procs", O_WRONLY | O_CLOEXEC);
			rc = d.v2_procs < 0 ? -errno : 0;
		} else {
			/* By this file a thread that moves itself is moved at once [cgroup1_tasks_write() of Linux]. */
			d.v1[d.v1_count] = openat(dir, "tasks", O_WRONLY | O_CLOEXEC);
			rc = d.v1[d.v1_count] < 0 ? -errno : 0;
			d.v1_count += !rc;
			close(dir);
		}
		if (rc)
			err_sys(err, rc, "cannot open the control group '%s'", path);
	}
	if (rc)
		cgroup_door_close(&d);
	else
		*ret_door = d;
	return rc;
}

void cgroup_door_close(struct cgroup_door *d)
{
	for (unsigned i = 0; i < d->v1_count; i++)
		close(d->v1[i]);
	if (d->v2 >= 0)
		close(d->v2);
	if (d->v2_procs >= 0)
		close(d->v2_procs);
	*d = (struct cgroup_door){ .v2 = -1, .v2_procs = -1 };
}

int cgroup_door_enter(struct cgroup_door *d, bool made_inside, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < d->v1_count && !rc; i++)
		rc = os_write_all(d->v1[i], "0", 1);
	if (!rc && d->v2_procs >= 0 && !made_inside)
		rc = os_write_all(d->v2_procs, "0", 1);
	cgroup_door_close(d);
	return rc ? err_sys(err, rc, "cannot go into the container's control group") : 0;
}

/* The hierarchy to ask for processes. */
static const struct cgroup_hierarchy *any(const struct cgroup *cg)
{
	const struct cgroup_hierarchy *h = cgroup_v2(cg);

	for (unsigned i = 0; !h && i < cg->count; i++)
		if (cg->at[i].joined)
			h = &cg->at[i];
	return h;
}

struct pids {
	pid_t *list;
	unsigned count, room;
};

static int collect(const char *dir, unsigned depth, struct pids *pids)
{
	char path[PATH_MAX];
	struct dirent *e;
	int pid, rc = 0;
	FILE *f;
	DIR *d;

	snprintf(path, sizeof(path), "%.3900s/cgroup.procs", dir);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? 0 : -errno;
	while (!rc && fscanf(f, "%d", &pid) == 1) {
		if (pids->count == pids->room) {
			unsigned room = pids->room ? 2 * pids->room : 64;
			pid_t *list = realloc(pids->list, room * sizeof(*list));

			if (!list) {
				rc = -ENOMEM;
				break;
			}
			pids->list = list;
			pids->room = room;
		}
		if (pid > 0) /* 0: of another pid namespace */
			pids->list[pids->count++] = pid;
	}
	fclose(f);
	d = !rc && depth ? opendir(dir) : NULL;
	while (d && !rc && (e = readdir(d))) {
		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%.3700s/%s", dir, e->d_name);
		rc = collect(path, depth - 1, pids);
	}
	if (d)
		closedir(d);
	return rc;
}

int cgroup_processes(const struct cgroup *cg, pid_t **ret_pids, unsigned *ret_count, struct err *err)
{
	const struct cgroup_hierarchy *h = any(cg);
	struct pids pids = { 0 };
	char dir[PATH_MAX];
	int rc = 0;

	if (h) {
		group_dir(cg, h, dir, sizeof(dir));
		rc = collect(dir, MAX_NESTING, &pids);
	}
	if (rc) {
		free(pids.list);
		return err_sys(err, rc, "cannot list the processes of the control group '%s'", cg->path);
	}
	*ret_pids = pids.list;
	*ret_count = pids.count;
	return 0;
}

static void nap(void)
{
	usleep(1000);
}

int cgroup_kill(const struct cgroup *cg, int signal, struct err *err)
{
	const struct cgroup_hierarchy *v2 = cgroup_v2(cg);
	u64 end = os_now_ns() + PATIENCE_NS;
	bool whole = signal == SIGKILL && v2 && !cgroup_write(cg, v2, "cgroup.kill", "1");

	for (;;) {
		pid_t *pids = NULL;
		unsigned count = 0;
		int rc = cgroup_processes(cg, &pids, &count, err);

		if (rc)
			return rc;
		for (unsigned i = 0; !whole && i < count; i++)
			kill(pids[i], signal);
		free(pids);
		if (!count || signal != SIGKILL)
			return 0;
		if (os_now_ns() > end)
			return err_set(err, -EBUSY,
				       "%u processes of the control group '%s' do not end within 10 seconds",
				       count, cg->path);
		nap();
	}
}

int cgroup_freeze(const struct cgroup *cg, bool freeze, struct err *err)
{
	const struct cgroup_hierarchy *v2 = cgroup_v2(cg), *v1 = cgroup_v1(cg, "freezer");
	u64 end = os_now_ns() + PATIENCE_NS;
	char text[256];
	int rc = -ENOENT;

	if (v2)
		rc = cgroup_write(cg, v2, "cgroup.freeze", freeze ? "1" : "0");
	if (!rc) {
		/* cgroup.events says when the last process has stopped. */
		while (!(rc = cgroup_read(cg, v2, "cgroup.events", text, sizeof(text))) &&
		       !strstr(text, freeze ? "frozen 1" : "frozen 0") && os_now_ns() < end)
			nap();
		return rc ? err_sys(err, rc, "cannot read the state of the control group '%s'", cg->path) : 0;
	}
	if (!v1)
		return err_set(err, -ENOTSUP, "the container has no control group that can be frozen");
	rc = cgroup_write(cg, v1, "freezer.state", freeze ? "FROZEN" : "THAWED");
	while (!rc && os_now_ns() < end) {
		rc = cgroup_read(cg, v1, "freezer.state", text, sizeof(text));
		if (rc || !strcmp(text, freeze ? "FROZEN" : "THAWED"))
			break;
		nap();
		/* A process that has been made meanwhile needs telling again. */
		rc = cgroup_write(cg, v1, "freezer.state", freeze ? "FROZEN" : "THAWED");
	}
	return rc ? err_sys(err, rc, "cannot %s the control group '%s'", freeze ? "freeze" : "thaw", cg->path)
		  : 0;
}

bool cgroup_is_frozen(const struct cgroup *cg)
{
	const struct cgroup_hierarchy *v2 = cgroup_v2(cg), *v1 = cgroup_v1(cg, "freezer");
	char text[64] = "";

	if (v2 && !cgroup_read(cg, v2, "cgroup.freeze", text, sizeof(text)))
		return text[0] == '1';
	return v1 && !cgroup_read(cg, v1, "freezer.state", text, sizeof(text)) && strcmp(text, "THAWED") != 0;
}

/* Deepest first. */
static int remove_tree(const char *dir, unsigned depth)
{
	char path[PATH_MAX];
	struct dirent *e;
	DIR *d;

	if (!rmdir(dir) || errno == ENOENT)
		return 0;
	if (errno != EBUSY && errno != ENOTEMPTY)
		return -errno;
	d = depth ? opendir(dir) : NULL;
	while (d && (e = readdir(d))) {
		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%.3700s/%s", dir, e->d_name);
		remove_tree(path, depth - 1);
	}
	if (d)
		closedir(d);
	return !rmdir(dir) || errno == ENOENT ? 0 : -errno;
}

int cgroup_delete(const struct cgroup *cg, struct err *err)
{
	u64 end = os_now_ns() + PATIENCE_NS;

	for (unsigned i = 0; i < cg->count; i++) {
		char dir[PATH_MAX];
		int rc = 0;

		if (!cg->at[i].joined)
			continue;
		group_dir(cg, &cg->at[i], dir, sizeof(dir));
		while ((rc = remove_tree(dir, MAX_NESTING)) == -EBUSY && os_now_ns() < end)
			nap();
		if (rc)
			return err_sys(err, rc, "cannot remove the control group '%s'", dir);
	}
	return 0;
}
