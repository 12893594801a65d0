/* Lookups inside a root, by openat2(2) with RESOLVE_IN_ROOT, or by hand where the kernel has none (before 5.6).
 *
 * By hand: components are taken one by one with O_PATH | O_NOFOLLOW from a descriptor of the directory reached so
 * far. The way from the root is kept as a stack of descriptors, so ".." takes one off and never asks the kernel,
 * which would follow a directory that somebody has moved out meanwhile. A symbolic link's text is put in front of what is
 * left of the path. Magic links of procfs are refused, as by RESOLVE_NO_MAGICLINKS: their text is not where they lead.
 *
 * openat2() fails with EAGAIN when somebody renames or mounts while ".." is looked at; it is tried again a number of
 * times and then reported.
 */
#include "jail/inroot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MAX_LINKS 40  /* as the kernel's own limit */
#define MAX_DEPTH 256 /* directories below the root, by hand */
#define MAX_TRIES 128

bool inroot_by_hand;

struct walk {
	int stack[MAX_DEPTH]; /* [0] is the root, which belongs to the caller */
	unsigned depth;
	char rest[2 * PATH_MAX]; /* what is left of the path */
	unsigned links;
};

static void walk_up(struct walk *w)
{
	if (w->depth)
		close(w->stack[w->depth--]);
}

static bool is_magic(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && fs.f_type == PROC_SUPER_MAGIC;
}

/* The link fd is read; its text and "/" go in front of the rest. */
static int walk_link(struct walk *w, int fd, unsigned how)
{
	char text[PATH_MAX + 1], joined[sizeof(w->rest)];
	ssize_t n;
	int len;

	if (how & INROOT_NO_SYMLINKS || ++w->links > MAX_LINKS)
		return -ELOOP;
	n = readlinkat(fd, "", text, PATH_MAX);
	if (n < 0)
		return -errno;
	text[n] = 0;
	/* Those of procfs lead elsewhere than their text says, except where the text is all there is ("self"). */
	if (is_magic(fd) && text[0] == '/')
		return -ELOOP;
	if (text[0] == '/')
		while (w->depth)
			walk_up(w);
	len = snprintf(joined, sizeof(joined), "%s/%s", text, w->rest);
	if (len < 0 || (size_t)len >= sizeof(joined))
		return -ENAMETOOLONG;
	memcpy(w->rest, joined, (size_t)len + 1);
	return 0;
}

static int walk_component(struct walk *w, const char *name, int oflags, unsigned how)
{
	bool last = !w->rest[strspn(w->rest, "/")];
	struct stat st;
	int fd, rc;

	if (!strcmp(name, "."))
		return 0;
	if (!strcmp(name, "..")) {
		walk_up(w);
		return 0;
	}
	fd = openat(w->stack[w->depth], name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		st.st_mode = 0;
	if (S_ISLNK(st.st_mode) && !(last && oflags & O_NOFOLLOW)) {
		rc = walk_link(w, fd, how);
		close(fd);
		return rc;
	}
	if ((!last && !S_ISDIR(st.st_mode)) || w->depth + 1 == MAX_DEPTH) {
		close(fd);
		return S_ISDIR(st.st_mode) ? -ENAMETOOLONG : -ENOTDIR;
	}
	w->stack[++w->depth] = fd;
	return 0;
}

/* What the walk has found, opened for more than O_PATH. */
static int reopen(int fd, int oflags)
{
	char path[64];
	int opened;

	if (oflags & O_PATH) {
		opened = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	} else {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		opened = open(path, (oflags & ~O_NOFOLLOW) | O_CLOEXEC);
	}
	return opened < 0 ? -errno : opened;
}

static int open_by_hand(int root, const char *path, int oflags, unsigned how)
{
	struct walk *w = malloc(sizeof(*w));
	struct stat st;
	int rc = 0;

	if (!w)
		return -ENOMEM;
	w->stack[0] = root;
	w->depth = w->links = 0;
	if (snprintf(w->rest, sizeof(w->rest), "%s", path) >= PATH_MAX)
		rc = -ENAMETOOLONG;
	while (!rc && w->rest[strspn(w->rest, "/")]) {
		char name[NAME_MAX + 1];
		size_t skip = strspn(w->rest, "/"), len = strcspn(w->rest + skip, "/");

		if (len > NAME_MAX) {
			rc = -ENAMETOOLONG;
			break;
		}
		memcpy(name, w->rest + skip, len);
		name[len] = 0;
		memmove(w->rest, w->rest + skip + len, strlen(w->rest + skip + len) + 1);
		rc = walk_component(w, name, oflags, how);
	}
	if (!rc && oflags & O_DIRECTORY && (fstat(w->stack[w->depth], &st) < 0 || !S_ISDIR(st.st_mode)))
		rc = -ENOTDIR;
	if (!rc)
		rc = reopen(w->stack[w->depth], oflags);
	while (w->depth)
		walk_up(w);
	free(w);
	return rc;
}

int inroot_open(int root, const char *path, int oflags, unsigned how)
{
	struct open_how oh = {
		.flags = (u64)oflags | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS |
			   (how & INROOT_NO_SYMLINKS ? RESOLVE_NO_SYMLINKS : 0),
	};

	if (!*path)
		path = "/";
	for (unsigned i = 0; !inroot_by_hand && i < MAX_TRIES; i++) {
		int fd = (int)syscall(SYS_openat2, root, path, &oh, sizeof(oh));

		if (fd >= 0)
			return fd;
		/* EPERM: what seccomp profiles of older container managers answer. */
		if (errno == ENOSYS || errno == EPERM)
			break;
		if (errno != EAGAIN)
			return -errno;
		if (i == MAX_TRIES - 1)
			return -EAGAIN;
	}
	return open_by_hand(root, path, oflags, how);
}

/* Splits "a/b/c/" into "a/b" and "c"; both buffers of PATH_MAX. The name may be "", for the root itself. */
static int split(const char *path, char *dir, char *name, size_t name_size)
{
	size_t end = strlen(path), start;

	if (end >= PATH_MAX)
		return -ENAMETOOLONG;
	while (end && path[end - 1] == '/')
		end--;
	start = end;
	while (start && path[start - 1] != '/')
		start--;
	if (end - start >= name_size)
		return -ENAMETOOLONG;
	memcpy(name, path + start, end - start);
	name[end - start] = 0;
	memcpy(dir, path, start);
	dir[start] = 0;
	return 0;
}

/* As inroot_mkdirs, by recursion over the missing ones from the end; depth bounds it. */
static int mkdirs(int root, const char *path, unsigned how, unsigned depth)
{
	char *dir, name[NAME_MAX + 1];
	int fd = inroot_open(root, path, O_PATH | O_DIRECTORY, how), parent, rc;

	if (fd != -ENOENT)
		return fd;
	if (!depth)
		return -ENAMETOOLONG;
	dir = malloc(PATH_MAX);
	if (!dir)
		return -ENOMEM;
	rc = split(path, dir, name, sizeof(name));
	if (!rc && (!*name || !strcmp(name, ".") || !strcmp(name, "..")))
		rc = -ENOENT;
	parent = rc ? rc : mkdirs(root, dir, how, depth - 1);
	free(dir);
	if (parent < 0)
		return parent;
	/* A symbolic link to nothing at that name gives EEXIST, and the lookup below ENOENT again. */
	rc = mkdirat(parent, name, 0755) < 0 && errno != EEXIST ? -errno : 0;
	close(parent);
	return rc ? rc : inroot_open(root, path, O_PATH | O_DIRECTORY, how);
}

static int failure(struct err *err, int rc, const char *path, unsigned how)
{
	if (rc == -ELOOP && how & INROOT_NO_SYMLINKS)
		return err_set(err, rc,
			       "'%s' has a symbolic link in the container's root; that is not followed",
			       path);
	return err_sys(err, rc, "cannot make '%s' in the container's root", path);
}

int inroot_mkdirs(int root, const char *path, unsigned how, int *ret_fd, struct err *err)
{
	int fd = mkdirs(root, path, how, MAX_DEPTH);

	if (fd < 0)
		return failure(err, fd, path, how);
	*ret_fd = fd;
	return 0;
}

int inroot_parent(int root, const char *path, char *name, int *ret_fd, struct err *err)
{
	char dir[PATH_MAX];
	int rc = split(path, dir, name, NAME_MAX + 1);

	if (!rc && (!*name || !strcmp(name, ".") || !strcmp(name, "..")))
		rc = -EINVAL;
	if (rc)
		return err_sys(err, rc, "'%s' names no file", path);
	return inroot_mkdirs(root, dir, 0, ret_fd, err);
}

int inroot_make(int root, const char *path, bool directory, unsigned how, int *ret_fd, struct err *err)
{
	char dir[PATH_MAX], name[NAME_MAX + 1];
	int fd = inroot_open(root, path, O_PATH, how), parent = -1, made, rc;

	if (fd == -ENOENT && directory)
		return inroot_mkdirs(root, path, how, ret_fd, err);
	if (fd == -ENOENT) {
		rc = split(path, dir, name, sizeof(name));
		if (rc)
			return failure(err, rc, path, how);
		rc = inroot_mkdirs(root, dir, how, &parent, err);
		if (rc)
			return rc;
		made = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
		rc = made < 0 && errno != EEXIST ? -errno : 0;
		close(parent);
		if (made >= 0)
			close(made);
		fd = rc ? rc : inroot_open(root, path, O_PATH, how);
	}
	if (fd < 0)
		return failure(err, fd, path, how);
	*ret_fd = fd;
	return 0;
}
