/* Disks in images: each request is one blocking call of image.h on one of the threads of block_threads.c, so several are
 * under way at once.
 *
 * Threads: see vm/block.h.
 */
#include "host/block_image.h"

#include <errno.h>
#include <stdlib.h>

#include "host/block_aio.h"

struct disk {
	struct block block;
	struct image *image;
	struct block_aio *aio;
};

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

static void completed(void *opaque, struct block_req *req)
{
	req->done(req, (int)req->result);
}

static void disk_submit(struct block *b, struct block_req *req)
{
	struct disk *d = container_of(b, struct disk, block);

	block_tell(b, req);
	if (b->read_only && req->op != BLOCK_READ && req->op != BLOCK_FLUSH)
		req->done(req, -EROFS);
	else
		d->aio->ops->submit(d->aio, req);
}

static void disk_commit(struct block *b)
{
	struct disk *d = container_of(b, struct disk, block);

	d->aio->ops->commit(d->aio);
}

static void disk_drain(struct block *b)
{
	struct disk *d = container_of(b, struct disk, block);

	if (b->lock)
		d->aio->ops->drain(d->aio);
}

static void disk_close(struct block *b)
{
	struct disk *d = container_of(b, struct disk, block);

	if (d->aio)
		d->aio->ops->free(d->aio);
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

int block_image_open(const struct image_conf *conf, struct loop *loop, struct block **ret_block,
		     struct err *err)
{
	struct disk *d = calloc(1, sizeof(*d));
	const struct block_aio aio = {
		.fd = -1,
		.lock = d ? &d->block.lock : NULL,
		.completed = completed,
		.perform = perform,
		.opaque = d,
	};
	int rc;

	if (!d)
		return err_set(err, -ENOMEM, "no memory for disk %s", conf->path);
	rc = image_open(conf, &d->image, err);
	if (rc == 0 && !d->image->size)
		rc = err_set(err, -EINVAL,
			     "disk %s has a size of 0; make a larger one with bothy image create",
			     conf->path);
	if (rc == 0)
		rc = block_threads_new(loop, &aio, &d->aio, err);
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
