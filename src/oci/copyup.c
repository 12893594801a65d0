/* A recursive copy by descriptors, which follows no symbolic link. What it reads belongs to an image and may be anything:
 * depth is bounded, special files are left out, and what does not fit into the new file system is an error.
 */
#include "oci/copyup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DEPTH 64

static int copy_file(int from, const char *name, int to, const struct stat *st)
{
	int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK), out, rc = 0;
	ssize_t n;

	if (in < 0)
		return -errno;
	out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0) {
		rc = -errno;
		close(in);
		return rc;
	}
	while ((n = sendfile(out, in, NULL, 1 << 20)) > 0)
		;
	if (n < 0 || fchown(out, st->st_uid, st->st_gid) < 0 || fchmod(out, st->st_mode & 07777) < 0)
		rc = -errno;
	close(out);
	close(in);
	return rc;
}

static int copy_link(int from, const char *name, int to, const struct stat *st)
{
	char text[PATH_MAX];
	ssize_t n = readlinkat(from, name, text, sizeof(text) - 1);

	if (n < 0)
		return -errno;
	text[n] = 0;
	if (symlinkat(text, to, name) < 0 ||
	    fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

static int copy_dir(int from, int to, unsigned depth)
{
	int fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d)
		return -errno;
	while (!rc && (e = readdir(d))) {
		struct stat st;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    fstatat(from, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISREG(st.st_mode)) {
			rc = copy_file(from, e->d_name, to, &st);
		} else if (S_ISLNK(st.st_mode)) {
			rc = copy_link(from, e->d_name, to, &st);
		} else if (S_ISDIR(st.st_mode) && depth) {
			int sub_from = openat(from, e->d_name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
			    sub_to = -1;

			if (sub_from < 0 || mkdirat(to, e->d_name, 0700) < 0 ||
			    (sub_to = openat(to, e->d_name,
					     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
				rc = -errno;
			else
				rc = copy_dir(sub_from, sub_to, depth - 1);
			if (!rc && (fchown(sub_to, st.st_uid, st.st_gid) < 0 ||
				    fchmod(sub_to, st.st_mode & 07777) < 0))
				rc = -errno;
			if (sub_from >= 0)
				close(sub_from);
			if (sub_to >= 0)
				close(sub_to);
		}
	}
	closedir(d);
	return rc;
}

int copyup(int from, int to, struct err *err)
{
	int rc = copy_dir(from, to, MAX_DEPTH);

	return rc ? err_sys(err, rc, "cannot copy what a tmpfs with tmpcopyup covers") : 0;
}
