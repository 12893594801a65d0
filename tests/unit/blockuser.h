/* The device's part for tests of disks' back ends: requests go in, in parts, and are waited for in the main loop. One disk at
 * a time. */
#pragma once

#include <pthread.h>

#include "base/loop.h"
#include "vm/block.h"

struct one {
	struct block_req req;
	struct iovec iov[2];
	u8 *buf; /* NULL: blockuser_submit() makes one; the caller frees it */
	int result;
	bool done;
};

extern pthread_mutex_t blockuser_lock; /* the device's */

/* The disk that the others work on. */
void blockuser_attach(struct block *block, struct loop *loop);
/* The lock is held. */
void blockuser_submit(struct one *o, enum block_op op, u64 offset, u64 len);
/* The lock is held, and is not afterwards: begins what was submitted and returns when all is done. */
void blockuser_finish(void);
/* One request, without the lock; its result. */
int blockuser_run(enum block_op op, u64 offset, u64 len, void *buf, bool unmap);
/* Nothing may be left after the drain. */
void blockuser_close(void);
