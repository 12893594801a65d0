/* The state directory.
 *
 * It is only written by runtimes of the user whose containers these are, and refused when it belongs to somebody else or
 * others may write to it. All the same what is read from state.json is checked: its pid decides who is killed [O32], so
 * it counts only together with the inode of that process's pidfd, which the kernel gives to no other process, and with
 * the boot in which that holds; before Linux 6.9, which has no such inodes, with the time at which the process began.
 * The control group's path goes through the same check as one from a configuration.
 *
 * Which phase a container is in is not written down, but seen: the process is there or not, start.sock is there or not, the
 * control group is frozen or not. So nothing has to be repaired after a crash.
 */
#include "oci/status.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "jail/cgroup.h"
#include "jail/systemd.h"
#include "oci/jtable.h"

#define LOCK_PATIENCE_NS (10 * 1000000000ull)
#ifndef PID_FS_MAGIC
#define PID_FS_MAGIC 0x50494446 /* of Linux 6.9 and later */
#endif

int status_open_root(const char *path, int *ret_root, struct err *err)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char own[4096];
	struct stat st;
	int fd;

	if (!path) {
		if (geteuid() == 0)
			runtime = "/run";
		else if (!runtime || runtime[0] != '/')
			return err_set(
				err, -ENOENT,
				"XDG_RUNTIME_DIR is not set; give --root a folder for the state of containers");
		if (snprintf(own, sizeof(own), "%s/bothy-oci", runtime) >= (int)sizeof(own))
			return err_set(err, -ENAMETOOLONG, "XDG_RUNTIME_DIR is too long");
		path = own;
	}
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		char part[4096];

		if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
			return err_set(err, -ENAMETOOLONG, "--root: the path is too long");
		for (char *p = part + 1; *p; p++) {
			if (*p != '/')
				continue;
			*p = 0;
			if (mkdir(part, 0711) < 0 && errno != EEXIST)
				return err_sys(err, -errno, "cannot make the folder '%s'", part);
			*p = '/';
		}
		if (mkdir(part, 0700) < 0 && errno != EEXIST)
			return err_sys(err, -errno, "cannot make the folder '%s'", part);
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (fd < 0)
		return err_sys(err, -errno, "cannot open the folder '%s' of the containers' state", path);
	if (fstat(fd, &st) < 0 || st.st_uid != geteuid() || st.st_mode & (S_IWGRP | S_IWOTH)) {
		close(fd);
		return err_set(
			err, -EPERM,
			"the folder '%s' belongs to somebody else, or others may write to it; give --root another",
			path);
	}
	*ret_root = fd;
	return 0;
}

int status_check_id(const char *id, struct err *err)
{
	size_t len = strlen(id);

	if (!len || len > STATUS_MAX_ID)
		return err_set(err, -EINVAL, "a container's id has 1 to %d characters, not %zu",
			       STATUS_MAX_ID, len);
	if (id[strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.@")] ||
	    id[0] == '.' || id[0] == '-')
		return err_set(
			err, -EINVAL,
			"'%.64s' is no container id; use letters, digits and _ + - . @, with a letter, digit, _, + or "
			"@ first",
			id);
	return 0;
}

static int take_lock(int dir, const char *id, struct err *err)
{
	u64 end = os_now_ns() + LOCK_PATIENCE_NS;

	while (flock(dir, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_sys(err, -errno, "cannot lock the state of container '%s'", id);
		if (os_now_ns() > end)
			return err_set(err, -EBUSY,
				       "another process is working on container '%s'; try again later", id);
		usleep(2000);
	}
	return 0;
}

int status_create(int root, const char *id, struct status *ret_status, struct err *err)
{
	struct status *s = ret_status;
	int rc = status_check_id(id, err);
	struct timespec now;
	struct tm tm;
	size_t n;

	if (rc)
		return rc;
	if (mkdirat(root, id, 0700) < 0)
		return errno == EEXIST
			       ? err_set(err, -EEXIST,
					 "there is a container '%s' already; delete it, or give another id",
					 id)
			       : err_sys(err, -errno, "cannot make the state of container '%s'", id);
	memset(s, 0, sizeof(*s));
	memcpy(s->id, id, strlen(id) + 1);
	s->owner = geteuid();
	s->dir = openat(root, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (s->dir < 0)
		return err_sys(err, -errno, "cannot open the state of container '%s'", id);
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(s->created, sizeof(s->created), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(s->created + n, sizeof(s->created) - n, ".%09ldZ", now.tv_nsec);
	rc = take_lock(s->dir, id, err);
	if (rc)
		close(s->dir);
	return rc;
}

/* state.json is itself read by a table. */
struct state_file {
	const char *version, *id, *bundle, *rootfs, *cgroup, *unit, *created, *boot;
	s64 pid;
	u64 pid_start, pid_inode;
	bool complete, hooks;
	struct rdt_made rdt;
	u32 owner;
};

#define FIELD(n, k, m)                                                             \
	{                                                                          \
		.name = (n), .kind = (k), .offset = offsetof(struct state_file, m) \
	}
static const struct jtable state_table[] = {
	FIELD("ociVersion", JTABLE_STRING, version),
	FIELD("id", JTABLE_STRING, id),
	FIELD("bundle", JTABLE_STRING, bundle),
	FIELD("rootfs", JTABLE_STRING, rootfs),
	FIELD("cgroup", JTABLE_STRING, cgroup),
	FIELD("unit", JTABLE_STRING, unit),
	FIELD("created", JTABLE_STRING, created),
	{ .name = "pid",
	  .kind = JTABLE_S64,
	  .offset = offsetof(struct state_file, pid),
	  .min = 0,
	  .max = 4194304 },
	FIELD("pidStart", JTABLE_U64, pid_start),
	FIELD("pidInode", JTABLE_U64, pid_inode),
	FIELD("boot", JTABLE_STRING, boot),
	FIELD("complete", JTABLE_BOOL, complete),
	FIELD("hooks", JTABLE_BOOL, hooks),
	FIELD("rdtClass", JTABLE_BOOL, rdt.clos),
	FIELD("rdtMonitoring", JTABLE_BOOL, rdt.monitoring),
	FIELD("owner", JTABLE_U32, owner),
	{ .name = NULL },
};

static int copy_text(char *out, size_t size, const char *text, const char *name, struct err *err)
{
	if (text && strlen(text) >= size)
		return err_set(err, -ENAMETOOLONG, "%s is longer than %zu bytes", name, size - 1);
	snprintf(out, size, "%s", text ? text : "");
	return 0;
}

static int read_state(struct status *s, const char *text, size_t len, struct err *err)
{
	struct state_file f = { 0 };
	struct jtable_document doc;
	struct cgroup *check;
	int rc = jtable_open(&doc, "state.json", text, len, err);

	if (rc)
		return rc;
	rc = jtable_read(&doc, doc.root, state_table, "", &f, err);
	if (!rc)
		rc = copy_text(s->bundle, sizeof(s->bundle), f.bundle, "bundle", err);
	if (!rc)
		rc = copy_text(s->rootfs, sizeof(s->rootfs), f.rootfs, "rootfs", err);
	if (!rc)
		rc = copy_text(s->cgroup, sizeof(s->cgroup), f.cgroup, "cgroup", err);
	if (!rc)
		rc = copy_text(s->unit, sizeof(s->unit), f.unit, "unit", err);
	/* One that was edited to be a service would be stopped. */
	if (!rc && s->unit[0] && !systemd_is_scope(s->unit))
		rc = err_set(err, -EINVAL, "unit: '%.64s' is no scope", s->unit);
	if (!rc)
		rc = copy_text(s->created, sizeof(s->created), f.created, "created", err);
	if (!rc)
		rc = copy_text(s->boot, sizeof(s->boot), f.boot, "boot", err);
	if (!rc && f.id && strcmp(f.id, s->id) != 0)
		rc = err_set(err, -EINVAL, "id: '%.64s' is another container's", f.id);
	/* A group that was edited to be another's would be killed with the container. */
	if (!rc && s->cgroup[0]) {
		check = malloc(sizeof(*check));
		rc = check ? s->cgroup[0] == '/' ? cgroup_init(check, s->cgroup, s->id, err)
						 : err_set(err, -EINVAL, "cgroup: is not absolute")
			   : err_set(err, -ENOMEM, "no memory");
		free(check);
	}
	s->pid = (pid_t)f.pid;
	s->pid_start = f.pid_start;
	s->pid_inode = f.pid_inode;
	s->complete = f.complete;
	s->hooks = f.hooks;
	s->rdt = f.rdt;
	s->owner = f.owner;
	jtable_close(&doc);
	return rc;
}

int status_read_file(const struct status *s, const char *name, char **ret_data, size_t *ret_len,
		     struct err *err)
{
	int fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	char *data;
	ssize_t n;

	if (fd < 0)
		return err_sys(err, -errno, "cannot read %s of container '%s'", name, s->id);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)(16 * MiB)) {
		close(fd);
		return err_set(err, -EINVAL, "%s of container '%s' is no file, or larger than 16 MiB", name,
			       s->id);
	}
	data = malloc((size_t)st.st_size + 1);
	n = data ? read(fd, data, (size_t)st.st_size) : -1;
	close(fd);
	if (n < 0) {
		free(data);
		return err_set(err, -EIO, "cannot read %s of container '%s'", name, s->id);
	}
	data[n] = 0;
	*ret_data = data;
	*ret_len = (size_t)n;
	return 0;
}

int status_write_file(const struct status *s, const char *name, const void *data, size_t len, struct err *err)
{
	char temporary[64];
	int fd, rc;

	snprintf(temporary, sizeof(temporary), ".%s.new", name);
	fd = openat(s->dir, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(err, -errno, "cannot write %s of container '%s'", name, s->id);
	rc = os_write_all(fd, data, len);
	if (close(fd) < 0 && !rc)
		rc = -errno;
	if (!rc && renameat(s->dir, temporary, s->dir, name) < 0)
		rc = -errno;
	return rc ? err_sys(err, rc, "cannot write %s of container '%s'", name, s->id) : 0;
}

int status_open(int root, const char *id, bool lock, struct status *ret_status, struct err *err)
{
	struct status *s = ret_status;
	int rc = status_check_id(id, err);
	struct stat st;
	char *text = NULL;
	size_t len = 0;

	if (rc)
		return rc;
	memset(s, 0, sizeof(*s));
	memcpy(s->id, id, strlen(id) + 1);
	s->dir = openat(root, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (s->dir < 0)
		return errno == ENOENT ? err_set(err, -ENOENT, "container '%s' does not exist", id)
				       : err_sys(err, -errno, "cannot open the state of container '%s'", id);
	rc = lock ? take_lock(s->dir, id, err) : 0;
	/* Whoever held the lock may have deleted it. */
	if (!rc && (fstat(s->dir, &st) < 0 || !st.st_nlink))
		rc = err_set(err, -ENOENT, "container '%s' does not exist", id);
	if (!rc && !faccessat(s->dir, "state.json", F_OK, 0)) {
		rc = status_read_file(s, "state.json", &text, &len, err);
		if (!rc && read_state(s, text, len, err) < 0)
			rc = err_wrap(err, "the state of container '%s' cannot be used", id);
	}
	free(text);
	if (rc)
		close(s->dir);
	return rc;
}

void status_close(struct status *s)
{
	close(s->dir);
	s->dir = -1;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

unsigned status_list(int root, char ***ret_ids)
{
	int copy = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	unsigned count = 0, room = 0;
	char **names = NULL;
	struct dirent *e;

	while (d && (e = readdir(d))) {
		if (status_check_id(e->d_name, NULL))
			continue;
		if (count == room) {
			char **more = realloc(names, (room = room ? 2 * room : 16) * sizeof(*names));

			if (!more)
				break;
			names = more;
		}
		names[count] = strdup(e->d_name);
		if (!names[count])
			break;
		count++;
	}
	if (d)
		closedir(d);
	if (count)
		qsort(names, count, sizeof(*names), compare);
	*ret_ids = names;
	return count;
}

int status_save(const struct status *s, struct err *err)
{
	json_t *o =
		json_pack("{s:s,s:s,s:i,s:s,s:s,s:s,s:s,s:s,s:b,s:b,s:I}", "ociVersion", "1.2.0", "id", s->id,
			  "pid", (int)s->pid, "bundle", s->bundle, "rootfs", s->rootfs, "cgroup", s->cgroup,
			  "created", s->created, "status", s->complete ? "created" : "creating", "complete",
			  s->complete, "hooks", s->hooks, "owner", (json_int_t)s->owner);
	char *text;
	int rc;

	/* Ticks and numbers that are counted up from 1 fit. */
	if (o) {
		json_object_set_new(o, "pidStart", json_integer((json_int_t)s->pid_start));
		json_object_set_new(o, "pidInode", json_integer((json_int_t)s->pid_inode));
		json_object_set_new(o, "boot", json_string(s->boot));
		if (s->rdt.clos)
			json_object_set_new(o, "rdtClass", json_true());
		if (s->rdt.monitoring)
			json_object_set_new(o, "rdtMonitoring", json_true());
		if (s->unit[0])
			json_object_set_new(o, "unit", json_string(s->unit));
	}
	text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	/* Paths that are no UTF-8 are no JSON. */
	if (!text)
		return err_set(err, -EINVAL, "the bundle's path '%s' is no UTF-8", s->bundle);
	rc = status_write_file(s, "state.json", text, strlen(text), err);
	free(text);
	return rc;
}

int status_delete(int root, const struct status *s, struct err *err)
{
	int copy = openat(s->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			unlinkat(s->dir, e->d_name, 0);
	if (d)
		closedir(d);
	if (unlinkat(root, s->id, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return err_sys(err, -errno, "cannot remove the state of container '%s'", s->id);
	return 0;
}

/* --- which process --- */

/* When a process was started, by its folder in /proc; false: it is no more, or a zombie. */
static bool read_start(int folder, u64 *ret_start)
{
	char text[1024], state;
	unsigned long long start;
	const char *p;
	ssize_t n;
	int fd;

	fd = openat(folder, "stat", O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	/* The name in parentheses may hold anything; fields count from its end: 3 is the state, 22 the start. */
	p = strrchr(text, ')');
	if (!p ||
	    sscanf(p + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
		   &state, &start) != 2)
		return false;
	*ret_start = start;
	return state != 'Z' && state != 'X';
}

static int open_folder(pid_t pid)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static u64 pidfd_inode(int pidfd)
{
	struct statfs fs;
	struct stat st;

	/* Before 6.9 all of them were one anonymous inode. */
	return !fstatfs(pidfd, &fs) && (unsigned long)fs.f_type == PID_FS_MAGIC && !fstat(pidfd, &st)
		       ? st.st_ino
		       : 0;
}

static void read_boot(char *out, size_t size)
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

	if (fd >= 0)
		close(fd);
	out[n < 0 ? 0 : n] = 0;
}

void status_remember(struct status *s, pid_t pid)
{
	int folder = open_folder(pid), pidfd = pidfd_open(pid, 0);

	s->pid = pid;
	if (folder < 0 || !read_start(folder, &s->pid_start))
		s->pid_start = 0;
	s->pid_inode = pidfd < 0 ? 0 : pidfd_inode(pidfd);
	read_boot(s->boot, sizeof(s->boot));
	if (folder >= 0)
		close(folder);
	if (pidfd >= 0)
		close(pidfd);
}

/* Whether what the descriptor stands for is the container's process. The start alone does not say so: another process may
 * have been made in the same hundredth of a second. */
static bool is_it(const struct status *s, int pidfd, int folder)
{
	u64 inode = pidfd_inode(pidfd), start;
	char boot[sizeof(s->boot)];

	read_boot(boot, sizeof(boot));
	return (!s->boot[0] || !strcmp(boot, s->boot)) &&
	       (!inode || !s->pid_inode || inode == s->pid_inode) && read_start(folder, &start) &&
	       start == s->pid_start;
}

int status_pidfd(const struct status *s, int *ret_pidfd, struct err *err)
{
	int fd = s->pid > 0 ? pidfd_open(s->pid, 0) : -1, failure = errno, folder = -1;
	bool same;

	/* A folder of /proc stands for one process as well, and takes signals [pidfd_send_signal(2)]. */
	if (fd >= 0 || failure == ENOSYS)
		folder = open_folder(s->pid);
	if (fd < 0 && failure == ENOSYS)
		fd = folder < 0 ? -1 : fcntl(folder, F_DUPFD_CLOEXEC, 0);
	else if (fd < 0 && s->pid > 0 && failure != ESRCH)
		return err_sys(err, -failure, "cannot open the process of container '%s'", s->id);
	/* Both descriptors stand for whatever has the pid now: only then may it be compared. */
	same = fd >= 0 && folder >= 0 && is_it(s, fd, folder);
	if (folder >= 0)
		close(folder);
	if (!same) {
		if (fd >= 0)
			close(fd);
		return err_set(err, -ESRCH, "container not running: the process of '%s' has ended", s->id);
	}
	*ret_pidfd = fd;
	return 0;
}

int status_signal(const struct status *s, int pidfd, int signal)
{
	if (!pidfd_send_signal(pidfd, signal, NULL, 0))
		return 0;
	/* Linux before 5.1. It has just been looked at who has the pid. */
	return errno == ENOSYS && !kill(s->pid, signal) ? 0 : -errno;
}

enum status_phase status_phase(const struct status *s)
{
	struct cgroup *cg;
	bool frozen = false;
	int pidfd = -1;

	if (!s->complete) {
		/* Somebody holds the lock while the container is being made; otherwise who made it has died. */
		if (flock(s->dir, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
			return STATUS_CREATING;
		return STATUS_STOPPED;
	}
	if (status_pidfd(s, &pidfd, NULL))
		return STATUS_STOPPED;
	close(pidfd);
	if (!faccessat(s->dir, "start.sock", F_OK, AT_SYMLINK_NOFOLLOW))
		return STATUS_CREATED;
	cg = s->cgroup[0] ? malloc(sizeof(*cg)) : NULL;
	if (cg && !cgroup_find(cg, s->cgroup, NULL))
		frozen = cgroup_is_frozen(cg);
	free(cg);
	return frozen ? STATUS_PAUSED : STATUS_RUNNING;
}

const char *status_phase_name(enum status_phase phase)
{
	static const char *const names[] = { "creating", "created", "running", "paused", "stopped" };

	return names[phase];
}

int status_wait(int pidfd, u64 patience_ns)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	u64 end = os_now_ns() + patience_ns, now, start;
	struct stat st;

	/* A folder of /proc does not tell when. */
	if (!fstat(pidfd, &st) && S_ISDIR(st.st_mode)) {
		while (read_start(pidfd, &start)) {
			if (os_now_ns() > end)
				return -ETIMEDOUT;
			usleep(500);
		}
		return 0;
	}
	while ((now = os_now_ns()) < end) {
		int n = poll(&p, 1, (int)((end - now) / 1000000) + 1);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
	return -ETIMEDOUT;
}

static void socket_address(const struct status *s, struct sockaddr_un *a)
{
	a->sun_family = AF_UNIX;
	snprintf(a->sun_path, sizeof(a->sun_path), "/proc/self/fd/%d/start.sock", s->dir);
}

int status_listen(const struct status *s, int *ret_fd, struct err *err)
{
	struct sockaddr_un a = { 0 };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	socket_address(s, &a);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0) {
		int rc = err_sys(err, -errno, "cannot make the socket by which container '%s' is started",
				 s->id);

		if (fd >= 0)
			close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

int status_connect(const struct status *s, int *ret_fd, struct err *err)
{
	struct sockaddr_un a = { 0 };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	socket_address(s, &a);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		int rc = err_sys(err, -errno, "cannot reach the process of container '%s'", s->id);

		if (fd >= 0)
			close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}
