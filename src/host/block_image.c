/* Disks in images.
 *
 * Where the image can say at once in which place of a file a read or a write belongs, and a write changes nothing else,
 * io_uring does it, as on a raw disk; what reads zero is done at once. Everything else, which is what changes the image's
 * tables or needs parts of them that are not in memory, is one blocking call of image.h on one of the threads of
 * block_threads.c, and so is all of it where there is no io_uring. So the order of writes that a crash must not break
 * is the image's own business, in one place, and only what has no part in it goes another way.
 *
 * A transfer that io_uring did not do whole (it was cancelled because its thread ended, or the file ends early) is done
 * again from its beginning by a thread.
 *
 * Threads: see vm/block.h.
 */
#include "host/block_image.h"

#include <errno.h>
#include <stdlib.h>

#include "base/iov.h"

struct disk {
	struct block block;
	struct image *image;
	struct block_aio *threads, *uring;     /* uring: NULL where it is not to be had, or not wanted */
	struct block_req *ready, **ready_tail; /* read zero; for commit() */
	bool completing;                       /* those, below on the stack */
	u64 direct;
};

/* ---- by threads ---- */

static s64 perform(void *opaque, struct block_req *req)
{
	struct image *im = ((struct disk *)opaque)->image;

	switch (req->op) {
	case BLOCK_READ: return im->ops->read(im, req->iov, req->nr_iov, req->offset, req->len);
	case BLOCK_WRITE: return im->ops->write(im, req->iov, req->nr_iov, req->offset, req->len);
	case BLOCK_FLUSH: return im->ops->flush(im);
	case BLOCK_DISCARD: return im->ops->discard(im, req->offset, req->len);
	case BLOCK_ZERO: return im->ops->zero(im, req->offset, req->len, req->unmap);
	}
	return -EINVAL;
}

static void performed(void *opaque, struct block_req *req)
{
	req->done(req, (int)req->result);
}

/* ---- by io_uring ---- */

static void transferred(void *opaque, struct block_req *req)
{
	struct disk *d = opaque;
	s64 n = req->result;

	d->image->ops->leave(d->image, req->place);
	if (n == (s64)req->len) {
		req->done(req, 0);
	} else if (n >= 0 || n == -ECANCELED || n == -EINTR || n == -EAGAIN) {
		d->threads->ops->submit(d->threads, req);
		d->threads->ops->commit(d->threads);
	} else {
		req->done(req, (int)n);
	}
}

static bool submit_direct(struct disk *d, struct block_req *req)
{
	struct image_place place;

	if (!d->uring || (req->op != BLOCK_READ && req->op != BLOCK_WRITE) ||
	    d->image->ops->place(d->image, req->op == BLOCK_WRITE, req->offset, req->len, &place) < 0)
		return false;
	d->direct++;
	if (place.kind == IMAGE_ZERO) {
		iov_zero(req->iov, req->nr_iov, 0, req->len);
		req->next = NULL;
		*d->ready_tail = req;
		d->ready_tail = &req->next;
		return true;
	}
	req->fd = place.fd;
	req->at = place.offset;
	req->place = place.hold;
	req->rest = NULL;
	req->progress = 0;
	d->uring->ops->submit(d->uring, req);
	return true;
}

/* ---- the disk ---- */

static void disk_submit(struct block *b, struct block_req *req)
{
	struct disk *d = container_of(b, struct disk, block);

	block_tell(b, req);
	if (b->read_only && req->op != BLOCK_READ && req->op != BLOCK_FLUSH)
		req->done(req, -EROFS);
	else if (!submit_direct(d, req))
		d->threads->ops->submit(d->threads, req);
}

static void disk_commit(struct block *b)
{
	struct disk *d = container_of(b, struct disk, block);
	struct block_req *req;

	d->threads->ops->commit(d->threads);
	if (d->uring)
		d->uring->ops->commit(d->uring);
	/* From inside done(): the loop below goes on. */
	if (d->completing)
		return;
	d->completing = true;
	while ((req = d->ready)) {
		d->ready = req->next;
		if (!d->ready)
			d->ready_tail = &d->ready;
		req->done(req, 0);
	}
	d->completing = false;
}

static bool is_busy(struct disk *d)
{
	bool busy;

	pthread_mutex_lock(*d->threads->lock);
	disk_commit(&d->block);
	busy = d->threads->inflight || d->uring->inflight;
	pthread_mutex_unlock(*d->threads->lock);
	return busy;
}

static void disk_drain(struct block *b)
{
	struct disk *d = container_of(b, struct disk, block);

	if (!b->lock)
		return;
	/* What one of them ends may begin something for the other. */
	do {
		if (d->uring)
			d->uring->ops->drain(d->uring);
		d->threads->ops->drain(d->threads);
	} while (d->uring && is_busy(d));
}

static void disk_close(struct block *b)
{
	struct disk *d = container_of(b, struct disk, block);

	if (d->uring)
		d->uring->ops->free(d->uring);
	if (d->threads)
		d->threads->ops->free(d->threads);
	if (d->image)
		d->image->ops->close(d->image);
	free(d);
}

static const struct block_ops disk_ops = {
	.submit = disk_submit,
	.commit = disk_commit,
	.drain = disk_drain,
	.close = disk_close,
};

u64 block_image_direct(const struct block *block)
{
	return container_of(block, struct disk, block)->direct;
}

/* ---- opening ---- */

static int start_aio(struct disk *d, enum block_aio_kind kind, struct loop *loop, struct err *err)
{
	struct block_aio conf = {
		.lock = &d->block.lock,
		.completed = performed,
		.perform = perform,
		.opaque = d,
	};
	int rc = block_threads_new(loop, &conf, &d->threads, err);

	if (rc < 0 || kind == BLOCK_AIO_THREADS)
		return rc;
	conf.completed = transferred;
	conf.perform = NULL;
	rc = block_uring_new(loop, &conf, &d->uring, kind == BLOCK_AIO_URING ? err : NULL);
	return kind == BLOCK_AIO_URING ? rc : 0;
}

int block_image_open(const struct image_conf *conf, enum block_aio_kind aio, struct loop *loop,
		     struct block **ret_block, struct err *err)
{
	struct disk *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return err_set(err, -ENOMEM, "no memory for disk %s", conf->path);
	d->ready_tail = &d->ready;
	rc = image_open(conf, &d->image, err);
	if (rc == 0 && !d->image->size)
		rc = err_set(err, -EINVAL,
			     "disk %s has a size of 0; make a larger one with bothy image create",
			     conf->path);
	if (rc == 0) {
		rc = start_aio(d, aio, loop, err);
		if (rc < 0)
			err_wrap(err, "disk %s", conf->path);
	}
	if (rc < 0) {
		disk_close(&d->block);
		return rc;
	}
	d->block.ops = &disk_ops;
	d->block.size = d->image->size;
	d->block.read_only = conf->read_only;
	d->block.name = d->image->path;
	*ret_block = &d->block;
	return 0;
}
