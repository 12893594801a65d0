#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>

#include <cmocka.h>

#include "blockuser.h"

pthread_mutex_t blockuser_lock = PTHREAD_MUTEX_INITIALIZER;

static struct block *block;
static struct loop *loop;
static unsigned open_requests;
static u64 seed = 1;

void blockuser_attach(struct block *b, struct loop *l)
{
	block = b;
	loop = l;
	block->lock = &blockuser_lock;
}

static void done(struct block_req *req, int result)
{
	struct one *o = container_of(req, struct one, req);

	/* The lock is held: errors of the other kind would be EDEADLK or 0. */
	assert_int_equal(pthread_mutex_trylock(&blockuser_lock), EBUSY);
	assert_false(o->done);
	o->done = true;
	o->result = result;
	if (!--open_requests)
		loop_stop(loop, 0);
}

void blockuser_submit(struct one *o, enum block_op op, u64 offset, u64 len)
{
	o->req = (struct block_req){ .op = op, .offset = offset, .len = len, .iov = o->iov, .done = done };
	o->done = false;
	if (op == BLOCK_READ || op == BLOCK_WRITE) {
		/* in up to two parts, of odd lengths */
		u64 a = 1 + (seed = seed * 6364136223846793005ull + 1442695040888963407ull) % (len - 1);

		if (!o->buf)
			o->buf = malloc(len);
		o->iov[0] = (struct iovec){ o->buf, a };
		o->iov[1] = (struct iovec){ o->buf + a, len - a };
		o->req.nr_iov = 2;
	}
	open_requests++;
	block->ops->submit(block, &o->req);
}

void blockuser_finish(void)
{
	block->ops->commit(block);
	bool wait = open_requests;
	pthread_mutex_unlock(&blockuser_lock);
	/* What was stopped by a drain or inside commit() is not this run. */
	while (wait && __atomic_load_n(&open_requests, __ATOMIC_ACQUIRE))
		loop_run(loop);
}

int blockuser_run(enum block_op op, u64 offset, u64 len, void *buf, bool unmap)
{
	struct one o = { .buf = buf };

	pthread_mutex_lock(&blockuser_lock);
	blockuser_submit(&o, op, offset, len);
	o.req.unmap = unmap;
	blockuser_finish();
	assert_true(o.done);
	return o.result;
}

void blockuser_close(void)
{
	block->ops->drain(block);
	assert_int_equal(open_requests, 0);
	block->ops->close(block);
}
