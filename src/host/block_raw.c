/* Raw disks.
 *
 * Requests are for the file as they come, through the page cache; a flush is fdatasync(2). Space is given back and
 * zeroed by fallocate(2); where the file system cannot, a discard does nothing, and zeroes are written.
 *
 * The lock is an open file description's [fcntl(2), F_OFD_SETLK] on the whole file: it goes with the descriptor,
 * whatever else this process opens and closes, and other programs that lock images that way see it.
 *
 * What the host leaves undone is done again: short transfers, and requests that io_uring cancelled because their
 * thread ended. A transfer of nothing is the end of a file that somebody has shortened: an I/O error.
 *
 * Threads: see vm/block.h.
 */
#include "host/block_raw.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "host/block_aio.h"

#define ZERO_LEN  (64 * KiB)
#define MAX_IOV   1024
#define MAX_MAGIC 8

struct raw {
	struct block block;
	struct block_aio *aio;
	int fd;
	bool no_discard, no_zero; /* the file system has said so */
	char *path;
};

static const u8 zeroes[ZERO_LEN] __attribute__((aligned(4096)));

static void finish(struct block_req *req, int result)
{
	free(req->rest);
	req->rest = NULL;
	req->done(req, result);
}

/* iov[] without its first `skip` bytes, in req->rest. */
static bool set_rest(struct block_req *req, const struct iovec *iov, unsigned nr, u64 skip)
{
	struct iovec *rest = malloc(nr * sizeof(*rest));
	unsigned n = 0;

	if (!rest)
		return false;
	for (unsigned i = 0; i < nr; i++) {
		u64 drop = MIN(skip, iov[i].iov_len);

		skip -= drop;
		if (drop < iov[i].iov_len)
			rest[n++] = (struct iovec){ (u8 *)iov[i].iov_base + drop, iov[i].iov_len - drop };
	}
	free(req->rest);
	req->rest = rest;
	req->nr_rest = n;
	return true;
}

static void transferred(struct raw *r, struct block_req *req)
{
	u64 n = (u64)req->result;

	if (!n) {
		finish(req, -EIO);
		return;
	}
	if (req->progress + n >= req->len) {
		finish(req, 0);
		return;
	}
	if (!set_rest(req, req->rest ? req->rest : req->iov, req->rest ? req->nr_rest : req->nr_iov, n)) {
		finish(req, -ENOMEM);
		return;
	}
	req->progress += n;
	r->aio->ops->submit(r->aio, req);
}

/* BLOCK_ZERO by writing, a piece after the other where it is long. */
static void write_zeroes(struct raw *r, struct block_req *req)
{
	u64 left = req->len - req->progress;
	unsigned nr = (unsigned)MIN((left + ZERO_LEN - 1) / ZERO_LEN, (u64)MAX_IOV);
	struct iovec *iov = malloc(nr * sizeof(*iov));

	if (!iov) {
		finish(req, -ENOMEM);
		return;
	}
	for (unsigned i = 0; i < nr; i++) {
		iov[i] = (struct iovec){ (void *)zeroes, MIN(left, ZERO_LEN) };
		left -= iov[i].iov_len;
	}
	free(req->rest);
	req->rest = iov;
	req->nr_rest = nr;
	req->op = BLOCK_WRITE;
	req->mode = 1; /* zeroes, not req->iov */
	r->aio->ops->submit(r->aio, req);
}

static void zeroes_written(struct raw *r, struct block_req *req)
{
	req->progress += (u64)req->result;
	if (req->result == 0)
		finish(req, -EIO);
	else if (req->progress >= req->len)
		finish(req, 0);
	else
		write_zeroes(r, req);
}

static bool unsupported(s64 result)
{
	return result == -EOPNOTSUPP || result == -ENOSYS || result == -ENODEV || result == -EINVAL;
}

static void completed(void *opaque, struct block_req *req)
{
	struct raw *r = opaque;

	if (req->result == -ECANCELED || req->result == -EINTR || req->result == -EAGAIN) {
		r->aio->ops->submit(r->aio, req);
	} else if (req->op == BLOCK_DISCARD && unsupported(req->result)) {
		r->no_discard = true;
		finish(req, 0);
	} else if (req->op == BLOCK_ZERO && unsupported(req->result)) {
		r->no_zero = true;
		write_zeroes(r, req);
	} else if (req->result < 0) {
		finish(req, (int)req->result);
	} else if (req->op == BLOCK_WRITE && req->mode) {
		zeroes_written(r, req);
	} else if (req->op == BLOCK_READ || req->op == BLOCK_WRITE) {
		transferred(r, req);
	} else {
		finish(req, 0);
	}
	/* Inside a completion this only notes that there is more; in the main loop it begins it. */
	r->aio->ops->commit(r->aio);
}

static void raw_submit(struct block *b, struct block_req *req)
{
	struct raw *r = container_of(b, struct raw, block);

	req->rest = NULL;
	req->nr_rest = 0;
	req->progress = 0;
	req->mode = 0;
	if (req->op == BLOCK_DISCARD)
		req->mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	else if (req->op == BLOCK_ZERO)
		req->mode = req->unmap ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
				       : FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	if (b->read_only && req->op != BLOCK_READ && req->op != BLOCK_FLUSH)
		finish(req, -EROFS);
	else if ((req->op == BLOCK_DISCARD && r->no_discard) || (req->op == BLOCK_FLUSH && b->read_only))
		finish(req, 0);
	else if (req->op == BLOCK_ZERO && r->no_zero)
		write_zeroes(r, req);
	else
		r->aio->ops->submit(r->aio, req);
}

static void raw_commit(struct block *b)
{
	struct raw *r = container_of(b, struct raw, block);

	r->aio->ops->commit(r->aio);
}

static void raw_drain(struct block *b)
{
	struct raw *r = container_of(b, struct raw, block);

	if (b->lock)
		r->aio->ops->drain(r->aio);
}

static void raw_close(struct block *b)
{
	struct raw *r = container_of(b, struct raw, block);

	if (r->aio)
		r->aio->ops->free(r->aio);
	if (r->fd >= 0) {
		if (r->aio && !b->read_only && fdatasync(r->fd) < 0)
			log_error("disk %s: what was written last may be lost: %s", r->path, strerror(errno));
		close(r->fd);
	}
	free(r->path);
	free(r);
}

static const struct block_ops raw_ops = {
	.submit = raw_submit,
	.commit = raw_commit,
	.drain = raw_drain,
	.close = raw_close,
};

const char *block_raw_aio_name(const struct block *block)
{
	return container_of(block, struct raw, block)->aio->ops->name;
}

/* ---- opening ---- */

static int find_size(struct raw *r, struct err *err)
{
	struct stat st;
	u64 size = 0;

	if (fstat(r->fd, &st) < 0)
		return err_sys(err, -errno, "disk %s cannot be examined", r->path);
	if (S_ISREG(st.st_mode))
		size = (u64)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		return err_set(err, -EINVAL, "disk %s is %s; give a file or a block device", r->path,
			       S_ISDIR(st.st_mode) ? "a directory" : "neither a file nor a block device");
	else if (ioctl(r->fd, BLKGETSIZE64, &size) < 0)
		return err_sys(err, -errno, "the size of disk %s cannot be found", r->path);
	if (!size)
		return err_set(err, -EINVAL,
			       "disk %s is empty; make it larger, for instance with truncate -s 10G",
			       r->path);
	if (size % BLOCK_SECTOR)
		return err_set(
			err, -EINVAL,
			"disk %s has %llu bytes, which is no multiple of 512: it was cut off, or is no raw image",
			r->path, (unsigned long long)size);
	r->block.size = size;
	return 0;
}

static int lock_image(struct raw *r, struct err *err)
{
	struct flock lock = {
		.l_type = r->block.read_only ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
	};

	if (fcntl(r->fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return err_sys(err, -errno, "disk %s cannot be locked", r->path);
	if (r->block.read_only)
		return err_set(err, -EBUSY,
			       "disk %s is in use by another virtual machine, which may write to it",
			       r->path);
	return err_set(err, -EBUSY,
		       "disk %s is in use by another virtual machine; end that one, or use a copy", r->path);
}

/* Formats that a user may take for a disk as it is. */
static int probe(const struct raw *r, struct err *err)
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

	if (pread(r->fd, head, sizeof(head), 0) < 0)
		return err_sys(err, -errno, "disk %s cannot be read", r->path);
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
		if (!memcmp(head, formats[i].magic, formats[i].len))
			return err_set(
				err, -EINVAL,
				"disk %s is a %s image, which this version cannot read; convert it to raw, or give format=raw if its bytes are meant",
				r->path, formats[i].name);
	return 0;
}

static int start_aio(struct raw *r, enum block_raw_aio kind, struct loop *loop, struct err *err)
{
	const struct block_aio conf = {
		.fd = r->fd,
		.lock = &r->block.lock,
		.completed = completed,
		.opaque = r,
	};
	int rc;

	if (kind == BLOCK_RAW_THREADS)
		return block_threads_new(loop, &conf, &r->aio, err);
	rc = block_uring_new(loop, &conf, &r->aio, err);
	if (rc < 0 && kind == BLOCK_RAW_AUTO)
		rc = block_threads_new(loop, &conf, &r->aio, err);
	return rc;
}

static int open_file(struct raw *r, struct err *err)
{
	/* Not to wait for the other end of a pipe. */
	r->fd = open(r->path, (r->block.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (r->fd >= 0) {
		/* Transfers may wait. */
		fcntl(r->fd, F_SETFL, fcntl(r->fd, F_GETFL) & ~O_NONBLOCK);
		return 0;
	}
	if ((errno == EACCES || errno == EROFS || errno == EPERM) && !r->block.read_only &&
	    access(r->path, R_OK) == 0)
		return err_sys(err, -errno, "disk %s cannot be written; add ,ro to use it read-only",
			       r->path);
	if (errno == EISDIR)
		return err_set(err, -EISDIR, "disk %s is a directory; give a file or a block device",
			       r->path);
	return err_sys(err, -errno, "disk %s cannot be opened", r->path);
}

int block_raw_open(const struct block_raw_conf *conf, struct loop *loop, struct block **ret_block,
		   struct err *err)
{
	struct raw *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return err_set(err, -ENOMEM, "no memory for disk %s", conf->path);
	r->fd = -1;
	r->block.ops = &raw_ops;
	r->block.read_only = conf->read_only;
	r->path = strdup(conf->path);
	if (!r->path) {
		free(r);
		return err_set(err, -ENOMEM, "no memory for disk %s", conf->path);
	}
	r->block.name = r->path;
	rc = open_file(r, err);
	if (rc == 0)
		rc = find_size(r, err);
	if (rc == 0)
		rc = lock_image(r, err);
	if (rc == 0 && conf->probe)
		rc = probe(r, err);
	if (rc == 0) {
		rc = start_aio(r, conf->aio, loop, err);
		if (rc < 0)
			err_wrap(err, "disk %s", r->path);
	}
	if (rc < 0) {
		raw_close(&r->block);
		return rc;
	}
	*ret_block = &r->block;
	return 0;
}
