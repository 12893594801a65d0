/* Disk requests by a few threads that do blocking calls.
 *
 * Submitted requests wait in a list under the device's lock until commit() moves them to the queue of the threads,
 * which has its own lock, a leaf. A thread that has done one puts it into the list of the done and rings an eventfd;
 * the main loop then completes them under the device's lock.
 *
 * Threads: as in the header; the workers touch nothing but the file and the two lists.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "host/block_aio.h"

#define NR_THREADS 4

struct list {
	struct block_req *head, **tail;
};

struct threads {
	struct block_aio aio;
	struct loop_fd *handle;
	int eventfd;
	struct list waiting; /* for commit(); the device's lock */

	pthread_mutex_t guard;
	pthread_cond_t more;
	struct list todo, done;
	bool stop;
	unsigned nr_threads;
	pthread_t thread[NR_THREADS];
};

static void list_init(struct list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static void list_add(struct list *l, struct block_req *req)
{
	req->next = NULL;
	*l->tail = req;
	l->tail = &req->next;
}

static struct block_req *list_take(struct list *l)
{
	struct block_req *req = l->head;

	if (req) {
		l->head = req->next;
		if (!l->head)
			l->tail = &l->head;
	}
	return req;
}

static s64 perform(const struct block_req *req)
{
	const struct iovec *iov = req->rest ? req->rest : req->iov;
	int nr = (int)(req->rest ? req->nr_rest : req->nr_iov);
	off_t at = (off_t)(req->at + req->progress);
	ssize_t n = 0;

	switch (req->op) {
	case BLOCK_READ: n = preadv(req->fd, iov, nr, at); break;
	case BLOCK_WRITE: n = pwritev(req->fd, iov, nr, at); break;
	case BLOCK_FLUSH: n = fdatasync(req->fd); break;
	case BLOCK_DISCARD:
	case BLOCK_ZERO: n = fallocate(req->fd, req->mode, at, (off_t)req->len); break;
	}
	return n < 0 ? -errno : n;
}

static void *work(void *opaque)
{
	struct threads *t = opaque;
	u64 one = 1;

	pthread_mutex_lock(&t->guard);
	while (!t->stop) {
		struct block_req *req = list_take(&t->todo);

		if (!req) {
			pthread_cond_wait(&t->more, &t->guard);
			continue;
		}
		pthread_mutex_unlock(&t->guard);
		req->result = t->aio.perform ? t->aio.perform(t->aio.opaque, req) : perform(req);
		pthread_mutex_lock(&t->guard);
		list_add(&t->done, req);
		/* Fails only when it has rung already. */
		if (write(t->eventfd, &one, sizeof(one)) < 0)
			continue;
	}
	pthread_mutex_unlock(&t->guard);
	return NULL;
}

static void threads_submit(struct block_aio *aio, struct block_req *req)
{
	struct threads *t = container_of(aio, struct threads, aio);

	aio->inflight++;
	list_add(&t->waiting, req);
}

static void threads_commit(struct block_aio *aio)
{
	struct threads *t = container_of(aio, struct threads, aio);
	struct block_req *req;

	if (!t->waiting.head)
		return;
	pthread_mutex_lock(&t->guard);
	while ((req = list_take(&t->waiting))) {
		list_add(&t->todo, req);
		pthread_cond_signal(&t->more);
	}
	pthread_mutex_unlock(&t->guard);
}

/* Main thread, with the device's lock. */
static void complete(struct threads *t)
{
	struct block_req *req;

	for (;;) {
		pthread_mutex_lock(&t->guard);
		req = list_take(&t->done);
		pthread_mutex_unlock(&t->guard);
		if (!req)
			break;
		t->aio.inflight--;
		t->aio.completed(t->aio.opaque, req);
	}
	threads_commit(&t->aio);
}

static void on_event(void *opaque, u32 events)
{
	struct threads *t = opaque;
	u64 count;

	if (read(t->eventfd, &count, sizeof(count)) < 0)
		return;
	pthread_mutex_lock(*t->aio.lock);
	complete(t);
	pthread_mutex_unlock(*t->aio.lock);
}

static void threads_drain(struct block_aio *aio)
{
	struct threads *t = container_of(aio, struct threads, aio);
	struct pollfd pfd = { .fd = t->eventfd, .events = POLLIN };
	unsigned left;

	for (;;) {
		pthread_mutex_lock(*aio->lock);
		threads_commit(aio);
		left = aio->inflight;
		pthread_mutex_unlock(*aio->lock);
		if (!left)
			return;
		if (poll(&pfd, 1, -1) > 0)
			on_event(t, EPOLLIN);
	}
}

static void threads_free(struct block_aio *aio)
{
	struct threads *t = container_of(aio, struct threads, aio);

	pthread_mutex_lock(&t->guard);
	t->stop = true;
	pthread_cond_broadcast(&t->more);
	pthread_mutex_unlock(&t->guard);
	for (unsigned i = 0; i < t->nr_threads; i++)
		pthread_join(t->thread[i], NULL);
	loop_fd_del(t->handle);
	if (t->eventfd >= 0)
		close(t->eventfd);
	pthread_cond_destroy(&t->more);
	pthread_mutex_destroy(&t->guard);
	free(t);
}

static const struct block_aio_ops threads_ops = {
	.name = "threads",
	.submit = threads_submit,
	.commit = threads_commit,
	.drain = threads_drain,
	.free = threads_free,
};

/* Signals are for the threads that wait for them. */
static int start(struct threads *t)
{
	sigset_t all, old;
	int r = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (t->nr_threads < NR_THREADS && r == 0) {
		r = -pthread_create(&t->thread[t->nr_threads], NULL, work, t);
		if (r == 0)
			t->nr_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return t->nr_threads ? 0 : r;
}

int block_threads_new(struct loop *loop, const struct block_aio *conf, struct block_aio **ret_aio,
		      struct err *err)
{
	struct threads *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_set(err, -ENOMEM, "no memory for a disk's threads");
	t->aio = *conf;
	t->aio.ops = &threads_ops;
	list_init(&t->waiting);
	list_init(&t->todo);
	list_init(&t->done);
	pthread_mutex_init(&t->guard, NULL);
	pthread_cond_init(&t->more, NULL);
	t->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (t->eventfd < 0)
		r = err_sys(err, -errno, "cannot make an eventfd for a disk");
	else
		r = loop_fd_add(loop, t->eventfd, EPOLLIN, on_event, t, &t->handle, err);
	if (r == 0) {
		r = start(t);
		if (r < 0)
			err_sys(err, r, "cannot start threads for a disk");
	}
	if (r < 0) {
		threads_free(&t->aio);
		return r;
	}
	*ret_aio = &t->aio;
	return 0;
}
