/* Disk requests by io_uring.
 *
 * Requests wait in a list until commit(), which puts as many as the ring has room for into it and enters the kernel once.
 * What the page cache has is then complete already and is handed over at once, on the caller's thread; during that
 * the eventfd is silent, so that the main loop does not wake up for nothing. The rest rings the eventfd later.
 *
 * A request belongs to the thread that entered it: where that one ends (a vCPU that is stopped), the kernel may
 * cancel what is still queued; who has submitted it does so again.
 *
 * Threads: any, under the device's lock.
 */
#include <errno.h>

#include "host/block_aio.h"

#if HAVE_LIBURING
#include <liburing.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"

#define ENTRIES    256
#define REAP_BATCH 32

struct uring {
	struct block_aio aio;
	struct loop *loop;
	struct loop_fd *handle;
	int eventfd;
	struct io_uring ring;
	bool ring_made;
	bool turning; /* in turn(), below it on the stack */
	unsigned in_kernel;
	struct block_req *head, **tail; /* not yet in the ring */
};

static void prepare(struct uring *u, struct io_uring_sqe *sqe, struct block_req *req)
{
	const struct iovec *iov = req->rest ? req->rest : req->iov;
	unsigned nr = req->rest ? req->nr_rest : req->nr_iov;
	u64 at = req->at + req->progress;

	switch (req->op) {
	case BLOCK_READ: io_uring_prep_readv(sqe, req->fd, iov, nr, at); break;
	case BLOCK_WRITE: io_uring_prep_writev(sqe, req->fd, iov, nr, at); break;
	case BLOCK_FLUSH: io_uring_prep_fsync(sqe, req->fd, IORING_FSYNC_DATASYNC); break;
	case BLOCK_DISCARD:
	case BLOCK_ZERO: io_uring_prep_fallocate(sqe, req->fd, req->mode, (off_t)at, (off_t)req->len); break;
	}
	io_uring_sqe_set_data(sqe, req);
}

static void uring_commit(struct block_aio *aio);

static void again(void *opaque)
{
	struct uring *u = opaque;

	pthread_mutex_lock(*u->aio.lock);
	uring_commit(&u->aio);
	pthread_mutex_unlock(*u->aio.lock);
}

static void enter(struct uring *u)
{
	int r;

	while (u->head && u->in_kernel < ENTRIES) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
		struct block_req *req = u->head;

		if (!sqe)
			break;
		u->head = req->next;
		if (!u->head)
			u->tail = &u->head;
		prepare(u, sqe, req);
		u->in_kernel++;
	}
	if (!io_uring_sq_ready(&u->ring))
		return;
	do
		r = io_uring_submit(&u->ring);
	while (r == -EINTR);
	/* Short of memory: what is still in the ring is submitted by a later call. */
	if (io_uring_sq_ready(&u->ring))
		loop_post(u->loop, again, u);
}

/* Completes what the kernel has done; how many that were. */
static unsigned reap(struct uring *u)
{
	struct io_uring_cqe *cqe[REAP_BATCH];
	struct block_req *req[REAP_BATCH];
	unsigned n = io_uring_peek_batch_cqe(&u->ring, cqe, REAP_BATCH);

	for (unsigned i = 0; i < n; i++) {
		req[i] = io_uring_cqe_get_data(cqe[i]);
		req[i]->result = cqe[i]->res;
	}
	io_uring_cq_advance(&u->ring, n);
	u->in_kernel -= n;
	u->aio.inflight -= n;
	for (unsigned i = 0; i < n; i++)
		u->aio.completed(u->aio.opaque, req[i]);
	return n;
}

static void uring_commit(struct block_aio *aio)
{
	struct uring *u = container_of(aio, struct uring, aio);

	/* From inside completed(): the loop below goes on. */
	if (u->turning)
		return;
	u->turning = true;
	do {
		io_uring_cq_eventfd_toggle(&u->ring, false);
		do
			enter(u);
		while (reap(u));
		io_uring_cq_eventfd_toggle(&u->ring, true);
		/* What came in between has not rung. */
		atomic_thread_fence(memory_order_seq_cst);
	} while (io_uring_cq_ready(&u->ring));
	u->turning = false;
}

static void uring_submit(struct block_aio *aio, struct block_req *req)
{
	struct uring *u = container_of(aio, struct uring, aio);

	aio->inflight++;
	req->next = NULL;
	*u->tail = req;
	u->tail = &req->next;
}

static void on_event(void *opaque, u32 events)
{
	struct uring *u = opaque;
	u64 count;

	if (read(u->eventfd, &count, sizeof(count)) == (ssize_t)sizeof(count))
		again(u);
}

static void uring_drain(struct block_aio *aio)
{
	struct uring *u = container_of(aio, struct uring, aio);

	pthread_mutex_lock(*aio->lock);
	while (aio->inflight) {
		uring_commit(aio);
		if (u->in_kernel)
			io_uring_submit_and_wait(&u->ring, 1);
	}
	pthread_mutex_unlock(*aio->lock);
}

static void uring_free(struct block_aio *aio)
{
	struct uring *u = container_of(aio, struct uring, aio);

	loop_fd_del(u->handle);
	if (u->ring_made)
		io_uring_queue_exit(&u->ring);
	if (u->eventfd >= 0)
		close(u->eventfd);
	free(u);
}

static const struct block_aio_ops uring_ops = {
	.name = "io_uring",
	.submit = uring_submit,
	.commit = uring_commit,
	.drain = uring_drain,
	.free = uring_free,
};

int block_uring_new(struct loop *loop, const struct block_aio *conf, struct block_aio **ret_aio,
		    struct err *err)
{
	struct uring *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return err_set(err, -ENOMEM, "no memory for a disk's ring");
	u->aio = *conf;
	u->aio.ops = &uring_ops;
	u->loop = loop;
	u->tail = &u->head;
	u->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (u->eventfd < 0) {
		r = err_sys(err, -errno, "cannot make an eventfd for a disk");
		goto fail;
	}
	r = io_uring_queue_init(ENTRIES, &u->ring, 0);
	if (r < 0) {
		err_sys(err, r, "this host does not allow io_uring; use aio=threads");
		goto fail;
	}
	u->ring_made = true;
	r = io_uring_register_eventfd(&u->ring, u->eventfd);
	if (r < 0) {
		err_sys(err, r, "this host's io_uring has no events; use aio=threads");
		goto fail;
	}
	r = loop_fd_add(loop, u->eventfd, EPOLLIN, on_event, u, &u->handle, err);
	if (r < 0)
		goto fail;
	*ret_aio = &u->aio;
	return 0;
fail:
	uring_free(&u->aio);
	return r;
}

#else

int block_uring_new(struct loop *loop, const struct block_aio *conf, struct block_aio **ret_aio,
		    struct err *err)
{
	return err_set(err, -ENOSYS, "this bothy was built without liburing; use aio=threads");
}

#endif
