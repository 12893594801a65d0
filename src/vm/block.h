/* Disks: the contract between a device with sectors and what holds them on the host.
 *
 * All requests go to the back end at once and come back in any order. The device's lock is the back end's too: it is
 * held by whoever calls submit() and commit(), and done() runs under it, on the main thread or inside commit(). So
 * neither side needs a lock of its own for what they share.
 */
#pragma once

#include <pthread.h>
#include <sys/uio.h>

#include "base/types.h"

#define BLOCK_SECTOR 512ull

enum block_op {
	BLOCK_READ,
	BLOCK_WRITE,
	BLOCK_FLUSH,   /* what was written and completed is on stable storage */
	BLOCK_DISCARD, /* contents are of no interest any more; may do nothing */
	BLOCK_ZERO,    /* reads zero afterwards */
};

/* In the device's memory until done(). */
struct block_req {
	enum block_op op;
	bool unmap;              /* BLOCK_ZERO: space may be given back to the host */
	u64 offset, len;         /* bytes, multiples of BLOCK_SECTOR, inside the disk; a flush has neither */
	const struct iovec *iov; /* reads and writes: len bytes in all; not changed */
	unsigned nr_iov;         /* at most 1024 */
	/* Once per request. result: 0 or a negative errno of the host. The back end does not touch req after. */
	void (*done)(struct block_req *req, int result);

	/* The back end's own. */
	struct block_req *next;
	int fd;             /* of the file that the data is in, */
	u64 at;             /* and where in it */
	void *place;        /* what keeps that place the request's */
	struct iovec *rest; /* what is still to do after a short transfer; NULL: iov */
	unsigned nr_rest;
	u64 progress;
	int mode;
	s64 result;
};

struct block {
	const struct block_ops *ops;
	u64 size; /* bytes, a multiple of BLOCK_SECTOR */
	bool read_only;
	const char *name; /* of the file, for messages */
	/* Set by the device in its init: its lock. */
	pthread_mutex_t *lock;
	/* Told of each read, on the thread and under the lock of submit(), until it says that it has heard enough (false) or
	 * is taken away; NULL: nobody asks. Set while no vCPU runs. */
	bool (*on_read)(void *opaque, u64 offset);
	void *on_read_opaque;
};

struct block_ops {
	/* Any thread, *lock held. The request may wait for commit(). Requests that were submitted and are not done are
	 * under way at the same time; the device does not rely on an order between them. */
	void (*submit)(struct block *b, struct block_req *req);
	/* Any thread, *lock held: begins what was submitted; may call done(). */
	void (*commit)(struct block *b);
	/* Main thread, *lock not held: returns when all requests are done. */
	void (*drain)(struct block *b);
	/* Main thread, after drain(): everything to stable storage, unlocks, frees. A failure is logged. */
	void (*close)(struct block *b);
};

/* What the guest sees of a disk besides its contents; from the user. */
struct block_conf {
	const char *serial; /* at most 20 bytes; NULL or "": none */
	u64 iops;           /* requests per second, 0: no limit */
	u64 bytes_per_s;
	unsigned queues; /* 0: one */
};

/* For submit(): tells who asks. */
static inline void block_tell(struct block *b, const struct block_req *req)
{
	if (b->on_read && req->op == BLOCK_READ && !b->on_read(b->on_read_opaque, req->offset))
		b->on_read = NULL;
}
