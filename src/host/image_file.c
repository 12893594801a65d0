/* The files of disk images.
 *
 * The lock is an open file description's [fcntl(2), F_OFD_SETLK] on the whole file: it goes with the descriptor,
 * whatever else this process opens and closes, and other programs that lock images that way see it. Such a lock names no
 * owner, so who has it is looked for in /proc.
 *
 * Threads: see image_file.h.
 */
#include "host/image_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/iov.h"

#define MAX_MAGIC 8
#define MAX_IOV   1024
#define ZEROES    MiB

/* ---- who has it ---- */

static bool has_open(const struct image_file *file, const char *pid)
{
	char path[300];
	struct dirent *d;
	struct stat st;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (d = readdir(dir)))
		found = fstatat(dirfd(dir), d->d_name, &st, 0) == 0 && st.st_dev == file->dev &&
			st.st_ino == file->ino && d->d_name[0] != '.';
	closedir(dir);
	return found;
}

bool image_file_user(const struct image_file *file, char *ret_text, size_t len)
{
	char path[300], name[32] = "";
	bool found = false;
	struct dirent *d;
	DIR *proc = opendir("/proc");
	FILE *f;

	while (proc && !found && (d = readdir(proc))) {
		if (d->d_name[0] < '0' || d->d_name[0] > '9' || atol(d->d_name) == getpid() ||
		    !has_open(file, d->d_name))
			continue;
		found = true;
		snprintf(path, sizeof(path), "/proc/%s/comm", d->d_name);
		f = fopen(path, "re");
		if (f && fgets(name, sizeof(name), f))
			name[strcspn(name, "\n")] = 0;
		if (f)
			fclose(f);
		snprintf(ret_text, len, "process %s (%s)", d->d_name, name);
	}
	if (proc)
		closedir(proc);
	return found;
}

int image_file_lock(const struct image_file *file, struct err *err)
{
	struct flock lock = {
		.l_type = file->read_only ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
	};
	char user[64] = "";

	if (fcntl(file->fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return err_sys(err, -errno, "disk %s cannot be locked", file->path);
	if (!image_file_user(file, user, sizeof(user)))
		snprintf(user, sizeof(user), "another virtual machine");
	if (file->read_only)
		return err_set(err, -EBUSY, "disk %s is in use by %s, which may write to it", file->path,
			       user);
	return err_set(err, -EBUSY, "disk %s is in use by %s; end that one, or use a copy", file->path, user);
}

/* ---- opening ---- */

static int measure(struct image_file *file, struct err *err)
{
	struct stat st;

	if (fstat(file->fd, &st) < 0)
		return err_sys(err, -errno, "disk %s cannot be examined", file->path);
	file->dev = st.st_dev;
	file->ino = st.st_ino;
	if (S_ISREG(st.st_mode))
		file->size = (u64)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		return err_set(err, -EINVAL, "disk %s is %s; give a file or a block device", file->path,
			       S_ISDIR(st.st_mode) ? "a directory" : "neither a file nor a block device");
	else if (ioctl(file->fd, BLKGETSIZE64, &file->size) < 0)
		return err_sys(err, -errno, "the size of disk %s cannot be found", file->path);
	return 0;
}

static int open_fd(struct image_file *file, int flags, struct err *err)
{
	/* Not to wait for the other end of a pipe. */
	file->fd =
		open(file->path,
		     (file->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags, 0666);
	if (file->fd >= 0) {
		/* Transfers may wait. */
		fcntl(file->fd, F_SETFL, fcntl(file->fd, F_GETFL) & ~O_NONBLOCK);
		return 0;
	}
	if (errno == EEXIST)
		return err_set(err, -EEXIST, "%s is there already; remove it first, or choose another name",
			       file->path);
	if (errno == EISDIR)
		return err_set(err, -EISDIR, "disk %s is a directory; give a file or a block device",
			       file->path);
	if (flags & O_CREAT)
		return err_sys(err, -errno, "%s cannot be made", file->path);
	if ((errno == EACCES || errno == EROFS || errno == EPERM) && !file->read_only &&
	    access(file->path, R_OK) == 0)
		return err_sys(err, -errno, "disk %s cannot be written; add ,ro to use it read-only",
			       file->path);
	return err_sys(err, -errno, "disk %s cannot be opened", file->path);
}

static int open_with(struct image_file *ret_file, const char *path, bool read_only, int flags,
		     enum image_file_lock lock, struct err *err)
{
	struct image_file file = { .fd = -1, .read_only = read_only, .path = strdup(path) };
	int rc;

	if (!file.path)
		return err_set(err, -ENOMEM, "no memory for disk %s", path);
	rc = open_fd(&file, flags, err);
	if (rc == 0)
		rc = measure(&file, err);
	if (rc == 0 && lock == IMAGE_FILE_LOCKED)
		rc = image_file_lock(&file, err);
	if (rc < 0) {
		image_file_close(&file);
		return rc;
	}
	*ret_file = file;
	return 0;
}

int image_file_open(struct image_file *ret_file, const char *path, bool read_only, enum image_file_lock lock,
		    struct err *err)
{
	return open_with(ret_file, path, read_only, 0, lock, err);
}

int image_file_create(struct image_file *ret_file, const char *path, bool replace, struct err *err)
{
	/* Emptied only once it is locked. */
	int rc = open_with(ret_file, path, false, O_CREAT | (replace ? 0 : O_EXCL), IMAGE_FILE_LOCKED, err);

	if (rc < 0 || !ret_file->size)
		return rc;
	if (ftruncate(ret_file->fd, 0) < 0) {
		rc = err_sys(err, -errno, "%s cannot be emptied", path);
		image_file_close(ret_file);
		return rc;
	}
	ret_file->size = 0;
	return 0;
}

void image_file_close(struct image_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	free(file->path);
	*file = (struct image_file){ .fd = -1 };
}

int image_file_probe(const struct image_file *file, const char **ret_format, struct err *err)
{
	static const struct {
		const char *magic;
		unsigned len;
		const char *name;
	} formats[] = {
		{ "QFI\xfb", 4, "qcow2" },
		{ "KDMV", 4, "VMDK" },
		{ "vhdxfile", 8, "VHDX" },
		{ "conectix", 8, "VHD" },
	};
	char head[MAX_MAGIC] = { 0 };
	int rc = image_file_read(file, head, sizeof(head), 0);

	if (rc < 0)
		return err_sys(err, rc, "disk %s cannot be read", file->path);
	*ret_format = NULL;
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
		if (!memcmp(head, formats[i].magic, formats[i].len))
			*ret_format = formats[i].name;
	return 0;
}

/* ---- transfers ---- */

/* As much as one call does; the number of bytes, 0 at the end of the file. */
static s64 once(const struct image_file *file, bool write, const struct iovec *iov, unsigned nr, u64 done,
		u64 len, u64 offset)
{
	struct iovec part[MAX_IOV];
	ssize_t n;

	/* Most transfers are done by the first call. */
	if (done || nr > MAX_IOV) {
		unsigned skip = 0;

		while (done >= iov[skip].iov_len)
			done -= iov[skip++].iov_len;
		nr = iov_cut(iov + skip, MIN(nr - skip, (unsigned)MAX_IOV), done, len, part);
		iov = part;
	}
	do
		n = write ? pwritev(file->fd, iov, (int)nr, (off_t)offset)
			  : preadv(file->fd, iov, (int)nr, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static int transfer(const struct image_file *file, bool write, const struct iovec *iov, unsigned nr, u64 len,
		    u64 offset)
{
	u64 done = 0;

	if (offset > INT64_MAX - len)
		return -EFBIG;
	while (done < len) {
		s64 n = once(file, write, iov, nr, done, len - done, offset + done);

		if (n < 0)
			return (int)n;
		if (!n && write)
			return -EIO;
		if (!n) {
			iov_zero(iov, nr, done, len - done);
			break;
		}
		done += (u64)n;
	}
	return 0;
}

int image_file_readv(const struct image_file *file, const struct iovec *iov, unsigned nr, u64 len, u64 offset)
{
	return transfer(file, false, iov, nr, len, offset);
}

int image_file_writev(const struct image_file *file, const struct iovec *iov, unsigned nr, u64 len,
		      u64 offset)
{
	return transfer(file, true, iov, nr, len, offset);
}

int image_file_read(const struct image_file *file, void *buf, u64 len, u64 offset)
{
	const struct iovec iov = { buf, len };

	return transfer(file, false, &iov, 1, len, offset);
}

int image_file_write(const struct image_file *file, const void *buf, u64 len, u64 offset)
{
	const struct iovec iov = { (void *)buf, len };

	return transfer(file, true, &iov, 1, len, offset);
}

void image_file_punch(const struct image_file *file, u64 offset, u64 len)
{
	/* A file system that cannot keeps the space. */
	(void)!fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len);
}

int image_file_take_space(const struct image_file *file, enum image_file_space space, u64 offset, u64 len,
			  void (*progress)(void *opaque, u64 done), void *opaque)
{
	u8 *zeroes;
	int rc = 0;

	if (space == IMAGE_FILE_RESERVED)
		return -posix_fallocate(file->fd, (off_t)offset, (off_t)len);
	zeroes = space == IMAGE_FILE_WRITTEN ? calloc(1, ZEROES) : NULL;
	if (space == IMAGE_FILE_WRITTEN && !zeroes)
		return -ENOMEM;
	for (u64 done = 0, n; zeroes && rc == 0 && done < len; done += n) {
		n = MIN(len - done, ZEROES);
		rc = image_file_write(file, zeroes, n, offset + done);
		if (progress)
			progress(opaque, done + n);
	}
	free(zeroes);
	return rc;
}

int image_file_synced(struct image_file *file, int rc)
{
	int none = 0;

	if (rc < 0)
		__atomic_compare_exchange_n(&file->sync_error, &none, rc, false, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED);
	return __atomic_load_n(&file->sync_error, __ATOMIC_RELAXED);
}

int image_file_sync(struct image_file *file)
{
	return image_file_synced(file, fdatasync(file->fd) < 0 ? -errno : 0);
}
