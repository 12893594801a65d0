/* Mounts by mount(2), with paths that are descriptors: /proc/self/fd/N names what N stands for, whatever has become of its
 * path. A mount that is not attached yet is one on a file or folder of the parking place.
 *
 * The parking place is a tmpfs mounted on "/". The process's root stays where it is, below; ".." of the root, unlike "/", leads
 * to what is mounted on it [path_resolution(7); handle_dots() of Linux]. It goes with the old root when the root is changed.
 *
 * Attributes of a tree are set mount by mount, found in mountinfo by the numbers of mounts; between two of them the tree has
 * both, which nobody sees before it is attached.
 */
#include "jail/mounts_classic.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif
#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif
#ifndef ST_NOSYMFOLLOW
#define ST_NOSYMFOLLOW 8192
#endif
#define MS_ATIME (MS_NOATIME | MS_RELATIME | MS_STRICTATIME)

static const struct {
	u64 attribute;
	unsigned long flag, seen; /* of mount(2), and of statvfs(3) */
} rows[] = {
	{ MOUNT_ATTR_RDONLY, MS_RDONLY, ST_RDONLY },
	{ MOUNT_ATTR_NOSUID, MS_NOSUID, ST_NOSUID },
	{ MOUNT_ATTR_NODEV, MS_NODEV, ST_NODEV },
	{ MOUNT_ATTR_NOEXEC, MS_NOEXEC, ST_NOEXEC },
	{ MOUNT_ATTR_NODIRATIME, MS_NODIRATIME, ST_NODIRATIME },
	{ MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW, ST_NOSYMFOLLOW },
};

static int parking = -1;

bool mounts_classic(void)
{
	static int known = -1;

	/* With arguments that each of them refuses. */
	if (known < 0)
		known = (syscall(SYS_mount_setattr, -1, "", ~0u, NULL, 0) < 0 && errno == ENOSYS) ||
			(syscall(SYS_open_tree, -1, "", ~0u) < 0 && errno == ENOSYS) ||
			(syscall(SYS_move_mount, -1, "", -1, "", ~0u) < 0 && errno == ENOSYS) ||
			(syscall(SYS_fsopen, NULL, ~0u) < 0 && errno == ENOSYS) ||
			(syscall(SYS_fsconfig, -1, ~0u, NULL, NULL, 0) < 0 && errno == ENOSYS) ||
			(syscall(SYS_fsmount, -1, ~0u, ~0u) < 0 && errno == ENOSYS);
	return known;
}

static const char *fd_path(int fd, char *out, size_t size)
{
	snprintf(out, size, "/proc/self/fd/%d", fd);
	return out;
}

static int open_parking(void)
{
	if (parking >= 0)
		return 0;
	if (mount("tmpfs", "/", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=700") < 0)
		return -errno;
	parking = open("/..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return parking < 0 ? -errno : 0;
}

/* A new file or folder of the parking place. */
static int make_place(bool directory, char name[16], int *ret_fd)
{
	static unsigned number;
	int rc = open_parking(), fd;

	if (rc)
		return rc;
	snprintf(name, 16, "%u", number++);
	if (directory ? mkdirat(parking, name, 0700) < 0 : mknodat(parking, name, S_IFREG | 0600, 0) < 0)
		return -errno;
	fd = openat(parking, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

/* What has been mounted there. */
static int open_place(int place, const char *name, int *ret_fd)
{
	int fd = openat(parking, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	close(place);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int mounts_classic_new(const char *type, const char *source, unsigned long flags, const char *data,
		       int *ret_fd)
{
	char name[16], path[32];
	int place = -1, rc = make_place(true, name, &place);

	if (rc)
		return rc;
	if (mount(source ? source : type, fd_path(place, path, sizeof(path)), type, flags, data) < 0) {
		rc = -errno;
		close(place);
		return rc;
	}
	return open_place(place, name, ret_fd);
}

int mounts_classic_copy(int dirfd, const char *path, bool tree, int *ret_fd)
{
	char name[16], from_path[32], to_path[32];
	int from = *path ? openat(dirfd, path, O_PATH | O_CLOEXEC) : dirfd, place = -1, rc;
	struct stat st;

	if (from < 0 || fstat(from, &st) < 0)
		return -errno;
	rc = make_place(S_ISDIR(st.st_mode), name, &place);
	if (!rc) {
		fd_path(from, from_path, sizeof(from_path));
		fd_path(place, to_path, sizeof(to_path));
		if (mount(from_path, to_path, NULL, MS_BIND | (tree ? MS_REC : 0), NULL) < 0) {
			rc = -errno;
			close(place);
		} else {
			rc = open_place(place, name, ret_fd);
		}
	}
	if (from != dirfd)
		close(from);
	if (!rc && mount(NULL, fd_path(*ret_fd, to_path, sizeof(to_path)), NULL,
			 MS_SLAVE | (tree ? MS_REC : 0), NULL) < 0) {
		rc = -errno;
		close(*ret_fd);
	}
	return rc;
}

int mounts_classic_attach(int mnt, int target)
{
	char from[32], to[32] = "/";

	fd_path(mnt, from, sizeof(from));
	if (target != AT_FDCWD)
		fd_path(target, to, sizeof(to));
	return mount(from, to, NULL, MS_MOVE, NULL) < 0 ? -errno : 0;
}

/* --- attributes --- */

static int set_one(int mnt, u64 set, u64 clear)
{
	unsigned long flags = MS_REMOUNT | MS_BIND;
	struct statvfs now;
	char path[32];

	if (fstatvfs(mnt, &now) < 0)
		return -errno;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		bool on = now.f_flag & rows[i].seen;

		if (clear & rows[i].attribute)
			on = false;
		if (set & rows[i].attribute)
			on = true;
		flags |= on ? rows[i].flag : 0;
	}
	if (clear & MOUNT_ATTR__ATIME)
		flags |= (set & MOUNT_ATTR__ATIME) == MOUNT_ATTR_NOATIME       ? MS_NOATIME
			 : (set & MOUNT_ATTR__ATIME) == MOUNT_ATTR_STRICTATIME ? MS_STRICTATIME
									       : MS_RELATIME;
	else
		flags |= now.f_flag & ST_NOATIME    ? MS_NOATIME
			 : now.f_flag & ST_RELATIME ? MS_RELATIME
						    : MS_STRICTATIME;
	return mount(NULL, fd_path(mnt, path, sizeof(path)), NULL, flags, NULL) < 0 ? -errno : 0;
}

/* The number of the mount that a descriptor is in; -1: not told. */
static int mount_number(int fd)
{
	char path[48], *line = NULL;
	size_t size = 0;
	int id = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	while (f && id < 0 && getline(&line, &size, f) > 0)
		sscanf(line, "mnt_id: %d", &id);
	free(line);
	if (f)
		fclose(f);
	return id;
}

struct seen_mount {
	int id, parent;
	char *point;
};

/* mountinfo writes ' ', tab, newline and '\\' as three octal digits. */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (text[0] == '\\' && text[1] && text[2] && text[3]) {
			*to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
			text += 3;
		} else {
			*to++ = *text;
		}
	}
	*to = 0;
}

static int read_mounts(struct seen_mount **ret_list, unsigned *ret_count)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	struct seen_mount *list = NULL;
	unsigned count = 0, room = 0;
	char *line = NULL;
	size_t size = 0;
	int rc = f ? 0 : -errno;

	while (!rc && getline(&line, &size, f) > 0) {
		struct seen_mount m;

		if (sscanf(line, "%d %d %*s %*s %ms", &m.id, &m.parent, &m.point) != 3)
			continue;
		if (count == room) {
			struct seen_mount *more =
				realloc(list, (room = room ? 2 * room : 64) * sizeof(*list));

			if (!more) {
				free(m.point);
				rc = -ENOMEM;
				break;
			}
			list = more;
		}
		unescape(m.point);
		list[count++] = m;
	}
	free(line);
	if (f)
		fclose(f);
	*ret_list = list;
	*ret_count = count;
	return rc;
}

static int set_below(int mnt, const struct seen_mount *list, unsigned count, const struct seen_mount *top,
		     const struct seen_mount *at, u64 set, u64 clear)
{
	size_t len = strcmp(top->point, "/") ? strlen(top->point) : 0;
	int rc = 0;

	for (unsigned i = 0; i < count && !rc; i++) {
		const struct seen_mount *m = &list[i];
		int fd;

		if (m->parent != at->id || m == at || strncmp(m->point, top->point, len) != 0 ||
		    m->point[len] != '/' || !m->point[len + 1])
			continue;
		fd = openat(mnt, m->point + len + 1, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		/* Covered by another one: it is not to be reached in the container either. */
		if (fd >= 0 && mount_number(fd) == m->id)
			rc = set_one(fd, set, clear);
		if (fd >= 0)
			close(fd);
		if (!rc)
			rc = set_below(mnt, list, count, top, m, set, clear);
	}
	return rc;
}

static int set_tree(int mnt, u64 set, u64 clear)
{
	struct seen_mount *list;
	unsigned count;
	int id = mount_number(mnt), rc = read_mounts(&list, &count);

	for (unsigned i = 0; i < count && !rc; i++)
		if (list[i].id == id)
			rc = set_below(mnt, list, count, &list[i], &list[i], set, clear);
	for (unsigned i = 0; i < count; i++)
		free(list[i].point);
	free(list);
	return rc;
}

int mounts_classic_set(int mnt, bool tree, u64 set, u64 clear, u64 propagation)
{
	char path[32];
	int rc = 0;

	if (set || clear)
		rc = set_one(mnt, set, clear);
	if (!rc && tree && (set || clear))
		rc = set_tree(mnt, set, clear);
	if (!rc && propagation &&
	    mount(NULL, fd_path(mnt, path, sizeof(path)), NULL, propagation | (tree ? MS_REC : 0), NULL) < 0)
		rc = -errno;
	return rc;
}
