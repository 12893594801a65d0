/* Raw disks.
 *
 * Requests are for the file as they come, through the page cache; a flush is fdatasync(2). Space is given back and
 * zeroed by fallocate(2); where the file system cannot, a discard does nothing, and zeroes are written.
 *
 * What the host leaves undone is done again: short transfers, and requests that io_uring cancelled because their
 * thread ended. A transfer of nothing is the end of a file that somebody has shortened: an I/O error.
 *
 * Threads: see vm/block.h.
 */
#include "host/block_raw.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "base/log.h"
#include "host/block_aio.h"
#include "host/image_file.h"

#define ZERO_LEN (64 * KiB)
#define MAX_IOV  1024

struct raw {
	struct block block;
	struct block_aio *aio;
	struct image_file file;
	bool no_discard, no_zero; /* the file system has said so */
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

	if (!rest)
		return false;
	req->nr_rest = iov_cut(iov, nr, skip, UINT64_MAX, rest);
	free(req->rest);
	req->rest = rest;
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
	} else if (req->op == BLOCK_FLUSH) {
		finish(req, image_file_synced(&r->file, (int)req->result));
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

	block_tell(b, req);
	req->fd = r->file.fd;
	req->at = req->offset;
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
	if (r->aio && !b->read_only && image_file_sync(&r->file) < 0)
		log_error("disk %s: what was written last may be lost: %s", r->file.path,
			  strerror(-r->file.sync_error));
	image_file_close(&r->file);
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

static int check_size(const struct image_file *file, struct err *err)
{
	if (!file->size)
		return err_set(err, -EINVAL,
			       "disk %s is empty; make it larger, for instance with truncate -s 10G",
			       file->path);
	if (file->size % BLOCK_SECTOR)
		return err_set(
			err, -EINVAL,
			"disk %s has %llu bytes, which is no multiple of 512: it was cut off, or is no raw image",
			file->path, (unsigned long long)file->size);
	return 0;
}

/* Formats that a user may take for a disk as it is. */
static int check_format(const struct image_file *file, struct err *err)
{
	const char *format;
	int rc = image_file_probe(file, &format, err);

	if (rc < 0 || !format)
		return rc;
	if (!strcmp(format, "qcow2"))
		return err_set(
			err, -EINVAL,
			"disk %s is a qcow2 image, or a raw one whose guest has written such a header; give format=qcow2 or format=raw",
			file->path);
	return err_set(
		err, -EINVAL,
		"disk %s is a %s image, which bothy cannot read; convert it, or give format=raw if its bytes are meant",
		file->path, format);
}

static int start_aio(struct raw *r, enum block_aio_kind kind, struct loop *loop, struct err *err)
{
	const struct block_aio conf = {
		.lock = &r->block.lock,
		.completed = completed,
		.opaque = r,
	};
	int rc;

	if (kind == BLOCK_AIO_THREADS)
		return block_threads_new(loop, &conf, &r->aio, err);
	rc = block_uring_new(loop, &conf, &r->aio, err);
	if (rc < 0 && kind == BLOCK_AIO_AUTO)
		rc = block_threads_new(loop, &conf, &r->aio, err);
	return rc;
}

int block_raw_open(const struct block_raw_conf *conf, struct loop *loop, struct block **ret_block,
		   struct err *err)
{
	struct raw *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return err_set(err, -ENOMEM, "no memory for disk %s", conf->path);
	rc = image_file_open(&r->file, conf->path, conf->read_only, IMAGE_FILE_LOCKED, err);
	if (rc < 0) {
		free(r);
		return rc;
	}
	r->block = (struct block){
		.ops = &raw_ops,
		.read_only = conf->read_only,
		.size = r->file.size,
		.name = r->file.path,
	};
	rc = check_size(&r->file, err);
	if (rc == 0 && conf->probe)
		rc = check_format(&r->file, err);
	if (rc == 0) {
		rc = start_aio(r, conf->aio, loop, err);
		if (rc < 0)
			err_wrap(err, "disk %s", r->file.path);
	}
	if (rc < 0) {
		raw_close(&r->block);
		return rc;
	}
	*ret_block = &r->block;
	return 0;
}
