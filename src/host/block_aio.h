/* How a disk's files are read and written in the background: by io_uring, or by threads that block.
 *
 * Both run the requests of one disk, under the lock of the device (*lock, see vm/block.h). completed() is called under
 * it, on the main thread or inside commit(), with bytes transferred or a negative errno in req->result.
 */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "vm/block.h"

/* AUTO: io_uring where the host allows it, else threads. */
enum block_aio_kind { BLOCK_AIO_AUTO, BLOCK_AIO_URING, BLOCK_AIO_THREADS };

struct block_aio {
	const struct block_aio_ops *ops;
	pthread_mutex_t **lock; /* where the device's lock will stand */
	void (*completed)(void *opaque, struct block_req *req);
	/* By threads: does a request instead of the file's own calls; any of them, no lock. Bytes or a negative errno. NULL:
	 * the request is for req->fd. */
	s64 (*perform)(void *opaque, struct block_req *req);
	void *opaque;
	unsigned inflight; /* submitted and not completed; *lock */
};

struct block_aio_ops {
	const char *name;
	/* As in struct block_ops; to req->fd, at req->at plus req->progress. req->rest, if there, instead of req->iov. */
	void (*submit)(struct block_aio *aio, struct block_req *req);
	void (*commit)(struct block_aio *aio);
	void (*drain)(struct block_aio *aio);
	void (*free)(struct block_aio *aio); /* nothing in flight */
};

/* Main thread. lock, completed, perform and opaque are copied from conf. -errno where the host does not allow io_uring, or
 * this program was built without it. */
int block_uring_new(struct loop *loop, const struct block_aio *conf, struct block_aio **ret_aio,
		    struct err *err);
int block_threads_new(struct loop *loop, const struct block_aio *conf, struct block_aio **ret_aio,
		      struct err *err);
