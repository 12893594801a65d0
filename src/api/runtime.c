/* Folders of running machines.
 *
 * How it works: the lock is flock(2)'s, which ends with the process whatever ends it. A folder is removed by a holder of its
 * lock only, so nobody removes what another one has just made: who gets a lock then looks whether lock and folder still are
 * what their names lead to, and begins anew where they are not.
 *
 * BASE and the folders must belong to the user and be closed to others; what somebody else has put there, or a link, is refused
 * (hostile case A20). Files are reached through descriptors only.
 */
#include "api/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_NAME  "lock"
#define BASE_MAX   4096
#define MAX_LISTED 1000
#define BUSY_TRIES 20 /* a lock may be held for a moment by somebody who removes the folder */
#define BUSY_NS    5000000
#define RACE_TRIES 100
#define MAX_CHOSEN 1000

/* All that is ever made in a folder. */
static const char *const files[] = { RUNTIME_API_SOCK, "serial.sock", "console.sock", LOCK_NAME };

int runtime_check_name(const char *what, const char *name, struct err *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
	size_t len = strlen(name), good = strspn(name, allowed);

	if (!len || len > RUNTIME_MAX_NAME)
		return err_set(err, -EINVAL, "%s: a name has 1 to %d characters, not %zu", what,
			       RUNTIME_MAX_NAME, len);
	if (good < len || strchr("-_.", name[0]))
		return err_set(
			err, -EINVAL,
			"%s: character %zu of the name is not allowed; use letters, digits and -_. with "
			"a letter or digit in front",
			what, good < len ? good + 1 : 1);
	return 0;
}

static int base_path(char *buf, size_t size, struct err *err)
{
	const char *own = getenv("BOTHY_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
	int n;

	if (own && *own)
		n = snprintf(buf, size, "%s", own);
	else if (xdg && *xdg)
		n = snprintf(buf, size, "%s/bothy", xdg);
	else
		n = snprintf(buf, size, "/run/bothy");
	if (n < 0 || (size_t)n >= size)
		return err_set(err, -ENAMETOOLONG, "the path of the runtime folder is too long");
	return 0;
}

/* Is it ours alone? */
static int check_owner(int dir, const char *what, struct err *err)
{
	struct stat st;

	if (fstat(dir, &st) < 0)
		return err_sys(err, -errno, "the folder %s cannot be examined", what);
	if (st.st_uid != geteuid())
		return err_set(
			err, -EPERM,
			"the folder %s belongs to user %u; set BOTHY_RUNTIME_DIR to a folder of your own",
			what, (unsigned)st.st_uid);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return err_set(err, -EPERM,
			       "the folder %s can be written by others; take that away with chmod go-w",
			       what);
	return 0;
}

/* *ret_base: -1 where there is none and `make` is not set. */
static int open_base(bool make, int *ret_base, struct err *err)
{
	char path[BASE_MAX];
	int fd, rc = base_path(path, sizeof(path), err);

	if (rc)
		return rc;
	if (make && mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_sys(
			err, -errno,
			"the runtime folder %s cannot be made; set BOTHY_RUNTIME_DIR to a folder of your own, "
			"or give --api none",
			path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && !make) {
		*ret_base = -1;
		return 0;
	}
	if (fd < 0)
		return err_sys(
			err, -errno,
			"the runtime folder %s cannot be opened; set BOTHY_RUNTIME_DIR to a folder of your own",
			path);
	rc = check_owner(fd, path, err);
	if (rc) {
		close(fd);
		return rc;
	}
	*ret_base = fd;
	return 0;
}

static bool same_file(int fd, int dir, const char *name)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && fstatat(dir, name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Takes the lock of a folder: *ret_lock. -EBUSY: somebody has it; -EAGAIN: the folder is another one by now. */
static int take_lock(int base, int dir, const char *name, int *ret_lock)
{
	int rc, fd = openat(dir, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return errno == ENOENT ? -EAGAIN : -errno;
	rc = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
	if (rc == -EWOULDBLOCK)
		rc = -EBUSY;
	if (!rc && (!same_file(dir, base, name) || !same_file(fd, dir, LOCK_NAME)))
		rc = -EAGAIN;
	if (rc) {
		close(fd);
		return rc;
	}
	*ret_lock = fd;
	return 0;
}

static void remove_files(int dir, bool lock_too)
{
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
		if (lock_too || strcmp(files[i], LOCK_NAME) != 0)
			unlinkat(dir, files[i], 0);
}

static void write_pid(int lock)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%d\n", getpid());

	/* For people; nothing depends on it. */
	if (ftruncate(lock, 0) < 0 || pwrite(lock, text, (size_t)n, 0) < 0)
		return;
}

static int open_folder(int base, const char *name, int *ret_dir, struct err *err)
{
	int dir = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc;

	if (dir < 0)
		return -errno;
	rc = check_owner(dir, name, err);
	if (rc) {
		close(dir);
		return rc;
	}
	*ret_dir = dir;
	return 0;
}

/* As runtime_open(), of a name that is right. */
static int open_named(struct runtime *r, struct err *err)
{
	const struct timespec pause = { .tv_nsec = BUSY_NS };
	unsigned busy = 0;

	for (unsigned i = 0; i < RACE_TRIES; i++) {
		int rc;

		if (mkdirat(r->base, r->name, 0700) < 0 && errno != EEXIST)
			return err_sys(err, -errno, "the runtime folder of '%s' cannot be made", r->name);
		rc = open_folder(r->base, r->name, &r->dir, err);
		if (rc == -ENOENT)
			continue;
		if (rc)
			return rc == -EPERM ? rc
					    : err_sys(err, rc, "the runtime folder of '%s' cannot be opened",
						      r->name);
		rc = take_lock(r->base, r->dir, r->name, &r->lock);
		if (!rc) {
			remove_files(r->dir, false);
			write_pid(r->lock);
			return 0;
		}
		close(r->dir);
		r->dir = -1;
		if (rc == -EBUSY && ++busy < BUSY_TRIES)
			nanosleep(&pause, NULL);
		else if (rc == -EBUSY)
			return err_set(
				err, -EEXIST,
				"a machine named '%s' runs already; choose another --name, or end that one with "
				"'bothy stop %s'",
				r->name, r->name);
		else if (rc != -EAGAIN)
			return err_sys(err, rc, "the runtime folder of '%s' cannot be locked", r->name);
	}
	return err_set(err, -EBUSY, "the runtime folder of '%s' changes all the time; try again", r->name);
}

static int open_chosen(struct runtime *r, struct err *err)
{
	int rc = -EEXIST;

	for (unsigned i = 1; i < MAX_CHOSEN && rc == -EEXIST; i++) {
		if (i == 1)
			snprintf(r->name, sizeof(r->name), "vm-%d", getpid());
		else
			snprintf(r->name, sizeof(r->name), "vm-%d-%u", getpid(), i);
		rc = open_named(r, err);
	}
	return rc;
}

int runtime_open(const char *name, struct runtime *ret_runtime, struct err *err)
{
	struct runtime r = { .base = -1, .dir = -1, .lock = -1 };
	int rc = name ? runtime_check_name("--name", name, err) : 0;

	if (!rc)
		rc = open_base(true, &r.base, err);
	if (rc)
		return rc;
	if (name)
		memcpy(r.name, name, strlen(name));
	rc = name ? open_named(&r, err) : open_chosen(&r, err);
	if (rc) {
		close(r.base);
		return rc;
	}
	*ret_runtime = r;
	return 0;
}

void runtime_close(struct runtime *r)
{
	if (r->dir >= 0) {
		remove_files(r->dir, true);
		unlinkat(r->base, r->name, AT_REMOVEDIR);
		close(r->dir);
		close(r->lock);
		close(r->base);
	}
	r->dir = r->lock = r->base = -1;
}

bool runtime_alive(int dir)
{
	int fd = openat(dir, LOCK_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool alive;

	if (fd < 0)
		return false;
	alive = flock(fd, LOCK_SH | LOCK_NB) < 0;
	close(fd);
	return alive;
}

/* 0 and a descriptor where the machine runs; -ENOENT where it does not, and then nothing is left of it. */
static int open_alive(int base, const char *name, int *ret_dir)
{
	int dir = -1, lock = -1, rc = open_folder(base, name, &dir, NULL);

	if (rc)
		return rc;
	if (runtime_alive(dir)) {
		*ret_dir = dir;
		return 0;
	}
	if (!take_lock(base, dir, name, &lock)) {
		remove_files(dir, true);
		unlinkat(base, name, AT_REMOVEDIR);
		close(lock);
	}
	close(dir);
	return -ENOENT;
}

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int list_base(int base, struct runtime_list *list, struct err *err)
{
	struct dirent *e;
	int fd = openat(base, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), dir = -1;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		if (fd >= 0)
			close(fd);
		return err_sys(err, -errno, "the runtime folder cannot be read");
	}
	list->name = calloc(MAX_LISTED, sizeof(*list->name));
	while (list->name && list->nr < MAX_LISTED && (e = readdir(d))) {
		if (runtime_check_name("", e->d_name, NULL) || open_alive(base, e->d_name, &dir))
			continue;
		close(dir);
		memcpy(list->name[list->nr++], e->d_name, strlen(e->d_name));
	}
	closedir(d);
	if (!list->name)
		return err_set(err, -ENOMEM, "no memory for a list of machines");
	qsort(list->name, list->nr, sizeof(*list->name), compare);
	return 0;
}

int runtime_list(struct runtime_list *ret_list, struct err *err)
{
	struct runtime_list list = { 0 };
	int base = -1, rc = open_base(false, &base, err);

	if (!rc && base >= 0)
		rc = list_base(base, &list, err);
	if (base >= 0)
		close(base);
	if (rc)
		runtime_list_free(&list);
	else
		*ret_list = list;
	return rc;
}

void runtime_list_free(struct runtime_list *list)
{
	free(list->name);
	*list = (struct runtime_list){ 0 };
}

static int not_found(const char *name, struct err *err)
{
	struct runtime_list list = { 0 };
	char names[512] = "";
	size_t n = 0;

	if (runtime_list(&list, err))
		return err->code;
	for (unsigned i = 0; i < list.nr && n < sizeof(names); i++)
		n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s", i ? ", " : "", list.name[i]);
	err_set(err, -ENOENT,
		list.nr ? "no machine named '%s' runs; there are %s"
			: "no machine named '%s' runs, nor any other",
		name, names);
	runtime_list_free(&list);
	return -ENOENT;
}

int runtime_find(const char *name, int *ret_dir, struct err *err)
{
	struct err own = { 0 };
	int base = -1, rc = runtime_check_name("NAME", name, err);

	if (!rc)
		rc = open_base(false, &base, err);
	if (rc)
		return rc;
	rc = base < 0 ? -ENOENT : open_alive(base, name, ret_dir);
	if (base >= 0)
		close(base);
	if (!rc)
		return 0;
	not_found(name, &own);
	return err_set(err, own.code, "%s", own.msg);
}
