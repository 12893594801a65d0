/* FUSE requests about open files.
 *
 * Data goes between the guest's memory and the file by one call, without a copy. A file is opened with no more than the
 * access and the synchronity that the guest asks for: to append is asked for with each write (RWF_APPEND), so that the host
 * finds the end, whoever else writes; O_DIRECT is between the guest's programs and its own cache, since the parts of its buffers
 * need not lie as the host's disks would have them.
 *
 * Threads: the server's.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/iov.h"
#include "host/fuse_int.h"

#define MAX_COPY   (64u << 20) /* by one request; who wants more asks again */
#define FALLOCATES (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)

int fuse_file_open_node(struct fuse_op *op, const struct fuse_node *n, u32 flags, bool kill)
{
	int fd;

	if (n->type != S_IFREG)
		return n->type == S_IFDIR ? -EISDIR : -ENXIO;
	if ((flags & O_ACCMODE) == O_ACCMODE)
		return -EINVAL;
	if (op->f->read_only && ((flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC))
		return -EROFS;
	fuse_cred_drop_fsetid(op, kill);
	fd = fuse_node_reopen(op->f, n, (int)(flags & (O_ACCMODE | O_TRUNC | FUSE_SYNC_FLAGS)));
	fuse_cred_restore(op, kill);
	return fd;
}

int fuse_file_opened(struct fuse_op *op, struct fuse_node *n, int fd, struct fuse_open_out *ret)
{
	u64 id;
	int rc = fuse_handle_new(op->f, n, fd, false, &id);

	if (rc)
		return rc;
	*ret = (struct fuse_open_out){
		.fh = id,
		.open_flags = op->f->cache == FUSE_CACHE_ALWAYS ? FOPEN_KEEP_CACHE : 0,
	};
	return 0;
}

int fuse_file_open(struct fuse_op *op)
{
	const struct fuse_open_in *in = op->arg;
	int fd = fuse_file_open_node(op, op->node, in->flags, in->open_flags & FUSE_OPEN_KILL_SUIDGID);

	op->reply_len = sizeof(struct fuse_open_out);
	return fd < 0 ? fd : fuse_file_opened(op, op->node, fd, (struct fuse_open_out *)op->reply);
}

int fuse_file_read(struct fuse_op *op)
{
	const struct fuse_read_in *in = op->arg;
	const struct fs_req *req = op->req;
	struct fuse_handle *h = fuse_handle_get(op->f, in->fh, false);
	u64 head = sizeof(struct fuse_out_header), room = req->in_len - MIN(req->in_len, head);
	unsigned nr;
	ssize_t n;

	if (!h)
		return -EBADF;
	nr = iov_cut(req->iov + req->nr_out, req->nr_in, head,
		     MIN(MIN((u64)in->size, room), (u64)FUSE_MAX_WRITE), op->iov);
	n = preadv(h->fd, op->iov, (int)nr, (off_t)in->offset);
	n = n < 0 ? -errno : n;
	fuse_handle_put(op->f, h);
	if (n < 0)
		return (int)n;
	op->in_place = true;
	op->reply_len = (u32)n;
	return 0;
}

int fuse_file_write(struct fuse_op *op)
{
	const struct fuse_write_in *in = op->arg;
	const struct fs_req *req = op->req;
	/* What the guest's cache writes has its place, however the file was opened. */
	bool append = in->flags & O_APPEND && !(in->write_flags & FUSE_WRITE_CACHE);
	bool kill = in->write_flags & FUSE_WRITE_KILL_SUIDGID;
	u64 from = sizeof(op->h) + sizeof(*in);
	struct fuse_handle *h;
	unsigned nr;
	ssize_t n;

	if (in->size > FUSE_MAX_WRITE || in->size > op->h.len - from)
		return -EINVAL;
	h = fuse_handle_get(op->f, in->fh, false);
	if (!h)
		return -EBADF;
	nr = iov_cut(req->iov, req->nr_out, from, in->size, op->iov);
	fuse_cred_drop_fsetid(op, kill);
	n = pwritev2(h->fd, op->iov, (int)nr, (off_t)in->offset, append ? RWF_APPEND : 0);
	n = n < 0 ? -errno : n;
	fuse_cred_restore(op, kill);
	fuse_handle_put(op->f, h);
	if (n < 0)
		return (int)n;
	*(struct fuse_write_out *)op->reply = (struct fuse_write_out){ .size = (u32)n };
	op->reply_len = sizeof(struct fuse_write_out);
	return 0;
}

/* A program closes the file: its locks end. */
int fuse_file_flush(struct fuse_op *op)
{
	const struct fuse_flush_in *in = op->arg;
	struct fuse_handle *h = fuse_handle_get(op->f, in->fh, false);

	if (!h)
		return -EBADF;
	fuse_lock_drop(op->f, h->node, &in->lock_owner);
	fuse_handle_put(op->f, h);
	return 0;
}

int fuse_file_release(struct fuse_op *op)
{
	const struct fuse_release_in *in = op->arg;
	int rc = fuse_handle_release(op->f, in->fh, false, false);

	/* flock() ends with the file. */
	fuse_retry_parked(op->f);
	return rc;
}

int fuse_file_fsync(struct fuse_op *op)
{
	const struct fuse_fsync_in *in = op->arg;
	struct fuse_handle *h = fuse_handle_get(op->f, in->fh, false);
	int rc;

	if (!h)
		return -EBADF;
	rc = in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(h->fd) : fsync(h->fd);
	rc = rc < 0 ? -errno : 0;
	fuse_handle_put(op->f, h);
	return rc;
}

int fuse_file_fallocate(struct fuse_op *op)
{
	const struct fuse_fallocate_in *in = op->arg;
	struct fuse_handle *h;
	int rc;

	if (in->mode & ~(u32)FALLOCATES)
		return -EOPNOTSUPP;
	h = fuse_handle_get(op->f, in->fh, false);
	if (!h)
		return -EBADF;
	rc = fallocate(h->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) < 0 ? -errno : 0;
	fuse_handle_put(op->f, h);
	return rc;
}

int fuse_file_lseek(struct fuse_op *op)
{
	const struct fuse_lseek_in *in = op->arg;
	struct fuse_handle *h;
	off_t at;
	int rc = 0;

	/* All others the guest knows by itself. */
	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL;
	h = fuse_handle_get(op->f, in->fh, false);
	if (!h)
		return -EBADF;
	at = lseek(h->fd, (off_t)in->offset, (int)in->whence);
	if (at < 0)
		rc = -errno;
	fuse_handle_put(op->f, h);
	*(struct fuse_lseek_out *)op->reply = (struct fuse_lseek_out){ .offset = (u64)at };
	op->reply_len = sizeof(struct fuse_lseek_out);
	return rc;
}

int fuse_file_copy(struct fuse_op *op)
{
	const struct fuse_copy_file_range_in *in = op->arg;
	struct fuse_handle *from, *to;
	off64_t off_in = (off64_t)in->off_in, off_out = (off64_t)in->off_out;
	ssize_t n = -EBADF;

	if (in->flags)
		return -EINVAL;
	from = fuse_handle_get(op->f, in->fh_in, false);
	to = fuse_handle_get(op->f, in->fh_out, false);
	if (from && to) {
		n = copy_file_range(from->fd, &off_in, to->fd, &off_out, MIN(in->len, (u64)MAX_COPY), 0);
		n = n < 0 ? -errno : n;
	}
	if (from)
		fuse_handle_put(op->f, from);
	if (to)
		fuse_handle_put(op->f, to);
	if (n < 0)
		return (int)n;
	*(struct fuse_write_out *)op->reply = (struct fuse_write_out){ .size = (u32)n };
	op->reply_len = sizeof(struct fuse_write_out);
	return 0;
}
