/* The event loop of the main thread, on epoll(7), one timerfd and one eventfd.
 *
 * Timers stand in a list ordered by deadline; a machine has a few dozen. The timerfd is set
 * lazily: `programmed` is the time at which it will fire, and is never later than the first
 * deadline. So arming a later timer and cancelling cost no system call, at the price of a
 * spurious wake-up now and then; while timers are being fired `programmed` is 0, so that callbacks which
 * arm again cost none either. One turn fires each timer at most once: a callback that arms in the past
 * cannot keep the loop from its file descriptors.
 *
 * A handle that is deleted while its turn is under way (its event may already have been fetched)
 * goes to a graveyard that is emptied when the turn is over.
 *
 * The lock guards timers, the queue of posted calls and the stop flag; no callback runs under it.
 * loop_post(), loop_stop() and loop_timer_arm/cancel/armed may be called from any thread.
 */
#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"

#define LOOP_NEVER (~0ull)

struct loop_fd {
	struct loop *loop;
	struct loop_fd *next, **pprev; /* all handles, or the graveyard (next only) */
	int fd;
	void (*fn)(void *opaque, u32 events); /* NULL once deleted */
	void *opaque;
};

struct loop_timer {
	struct loop *loop;
	struct loop_timer *next, **pprev; /* pprev NULL: not armed */
	u64 deadline;
	u64 fired_turn; /* the turn in which it fired last */
	void (*fn)(void *opaque);
	void *opaque;
};

struct loop_call {
	struct loop_call *next;
	void (*fn)(void *opaque);
	void *opaque;
};

struct loop {
	int epoll, timerfd, eventfd;
	struct loop_fd *fds, *graveyard;
	bool in_turn;
	u64 turn;

	pthread_mutex_t lock;
	struct loop_timer *timers;
	u64 programmed;
	struct loop_call *calls, **calls_tail;
	bool stopped;
	int stop_code;
};

static int loop_watch(struct loop *loop, int fd, void *tag, struct err *err)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = tag };

	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
		return err_sys(err, -errno, "cannot watch the event loop's own descriptors");
	return 0;
}

int loop_new(struct loop **ret_loop, struct err *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int rc;

	if (!loop)
		return err_set(err, -ENOMEM, "no memory for the event loop");
	pthread_mutex_init(&loop->lock, NULL);
	loop->programmed = LOOP_NEVER;
	loop->calls_tail = &loop->calls;
	loop->timerfd = loop->eventfd = -1;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll >= 0)
		loop->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (loop->timerfd >= 0)
		loop->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (loop->eventfd < 0) {
		rc = err_sys(err, -errno, "cannot create the event loop");
		loop_free(loop);
		return rc;
	}
	rc = loop_watch(loop, loop->timerfd, &loop->timerfd, err);
	if (!rc)
		rc = loop_watch(loop, loop->eventfd, &loop->eventfd, err);
	if (rc) {
		loop_free(loop);
		return rc;
	}
	*ret_loop = loop;
	return 0;
}

static void loop_bury(struct loop *loop)
{
	while (loop->graveyard) {
		struct loop_fd *h = loop->graveyard;

		loop->graveyard = h->next;
		free(h);
	}
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	for (struct loop_fd *h = loop->fds, *next; h; h = next) {
		next = h->next;
		epoll_ctl(loop->epoll, EPOLL_CTL_DEL, h->fd, NULL);
		free(h);
	}
	loop_bury(loop);
	while (loop->calls) {
		struct loop_call *c = loop->calls;

		loop->calls = c->next;
		free(c);
	}
	if (loop->epoll >= 0)
		close(loop->epoll);
	if (loop->timerfd >= 0)
		close(loop->timerfd);
	if (loop->eventfd >= 0)
		close(loop->eventfd);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

static void loop_wake(struct loop *loop)
{
	u64 one = 1;

	/* It fails only when the counter is full, and then the loop is awake anyway. */
	if (write(loop->eventfd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error("cannot wake the event loop: errno %d", errno);
}

/* ---- file descriptors ---- */

int loop_fd_add(struct loop *loop, int fd, u32 events, void (*fn)(void *opaque, u32 events), void *opaque,
		struct loop_fd **ret_handle, struct err *err)
{
	struct loop_fd *h = calloc(1, sizeof(*h));
	struct epoll_event ev = { .events = events, .data.ptr = h };

	if (!h)
		return err_set(err, -ENOMEM, "no memory to watch a file descriptor");
	h->loop = loop;
	h->fd = fd;
	h->fn = fn;
	h->opaque = opaque;
	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
		int rc = -errno;

		free(h);
		return err_sys(err, rc, "cannot watch file descriptor %d", fd);
	}
	h->next = loop->fds;
	h->pprev = &loop->fds;
	if (h->next)
		h->next->pprev = &h->next;
	loop->fds = h;
	*ret_handle = h;
	return 0;
}

void loop_fd_mod(struct loop_fd *handle, u32 events)
{
	struct epoll_event ev = { .events = events, .data.ptr = handle };

	if (epoll_ctl(handle->loop->epoll, EPOLL_CTL_MOD, handle->fd, &ev) < 0)
		log_error("cannot change what to watch on descriptor %d: errno %d", handle->fd, errno);
}

void loop_fd_del(struct loop_fd *handle)
{
	struct loop *loop;

	if (!handle)
		return;
	loop = handle->loop;
	/* Fails when the owner has closed fd already; then there is nothing left to remove. */
	epoll_ctl(loop->epoll, EPOLL_CTL_DEL, handle->fd, NULL);
	*handle->pprev = handle->next;
	if (handle->next)
		handle->next->pprev = handle->pprev;
	if (!loop->in_turn) {
		free(handle);
		return;
	}
	handle->fn = NULL;
	handle->next = loop->graveyard;
	loop->graveyard = handle;
}

/* ---- timers ---- */

struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
	struct loop_timer *t = calloc(1, sizeof(*t));

	if (!t) {
		log_error("no memory for a timer");
		abort();
	}
	t->loop = loop;
	t->fn = fn;
	t->opaque = opaque;
	return t;
}

static void loop_timer_unlink(struct loop_timer *t)
{
	if (!t->pprev)
		return;
	*t->pprev = t->next;
	if (t->next)
		t->next->pprev = t->pprev;
	t->pprev = NULL;
}

void loop_timer_free(struct loop_timer *timer)
{
	if (!timer)
		return;
	loop_timer_cancel(timer);
	free(timer);
}

/* With the lock held. */
static void loop_program(struct loop *loop, u64 deadline)
{
	struct itimerspec its = { 0 };

	if (deadline != LOOP_NEVER) {
		u64 ns = deadline ? deadline : 1; /* 0 would disarm */

		its.it_value.tv_sec = (time_t)(ns / 1000000000);
		its.it_value.tv_nsec = (long)(ns % 1000000000);
	}
	if (timerfd_settime(loop->timerfd, TFD_TIMER_ABSTIME, &its, NULL) < 0)
		log_error("cannot set the event loop's timer: errno %d", errno);
	loop->programmed = deadline;
}

void loop_timer_arm(struct loop_timer *timer, u64 deadline_ns)
{
	struct loop *loop = timer->loop;
	struct loop_timer **at;

	pthread_mutex_lock(&loop->lock);
	loop_timer_unlink(timer);
	timer->deadline = deadline_ns;
	for (at = &loop->timers; *at && (*at)->deadline <= deadline_ns; at = &(*at)->next)
		;
	timer->next = *at;
	timer->pprev = at;
	if (timer->next)
		timer->next->pprev = &timer->next;
	*at = timer;
	if (deadline_ns < loop->programmed)
		loop_program(loop, deadline_ns);
	pthread_mutex_unlock(&loop->lock);
}

void loop_timer_cancel(struct loop_timer *timer)
{
	pthread_mutex_lock(&timer->loop->lock);
	loop_timer_unlink(timer);
	pthread_mutex_unlock(&timer->loop->lock);
}

bool loop_timer_armed(const struct loop_timer *timer)
{
	bool armed;

	pthread_mutex_lock(&timer->loop->lock);
	armed = timer->pprev;
	pthread_mutex_unlock(&timer->loop->lock);
	return armed;
}

static void loop_fire_timers(struct loop *loop)
{
	u64 now = os_now_ns();
	u64 expirations;

	if (read(loop->timerfd, &expirations, sizeof(expirations)) < 0 && errno != EAGAIN)
		log_error("cannot read the event loop's timer: errno %d", errno);
	pthread_mutex_lock(&loop->lock);
	loop->programmed = 0;
	for (;;) {
		struct loop_timer *t = loop->timers;
		void (*fn)(void *opaque);
		void *opaque;

		/* Those that fired and were armed in the past again wait for the next turn. */
		while (t && t->deadline <= now && t->fired_turn == loop->turn)
			t = t->next;
		if (!t || t->deadline > now)
			break;
		loop_timer_unlink(t);
		t->fired_turn = loop->turn;
		fn = t->fn;
		opaque = t->opaque;
		pthread_mutex_unlock(&loop->lock);
		fn(opaque); /* may free t */
		pthread_mutex_lock(&loop->lock);
	}
	loop_program(loop, loop->timers ? loop->timers->deadline : LOOP_NEVER);
	pthread_mutex_unlock(&loop->lock);
}

/* ---- posted calls, stop ---- */

void loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
	struct loop_call *c;

	pthread_mutex_lock(&loop->lock);
	/* One that still waits stands for both: a guest that provokes a call faster than the loop
	 * runs it cannot make the queue grow. */
	for (c = loop->calls; c; c = c->next)
		if (c->fn == fn && c->opaque == opaque) {
			pthread_mutex_unlock(&loop->lock);
			return;
		}
	c = calloc(1, sizeof(*c));
	if (!c) {
		log_error("no memory to post a call to the main thread");
		abort();
	}
	c->fn = fn;
	c->opaque = opaque;
	*loop->calls_tail = c;
	loop->calls_tail = &c->next;
	pthread_mutex_unlock(&loop->lock);
	loop_wake(loop);
}

/* The calls queued up to now; one that posts itself again runs in the next turn. */
static void loop_run_calls(struct loop *loop)
{
	struct loop_call *c, *next;
	u64 count;

	if (read(loop->eventfd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		log_error("cannot read the event loop's wake-up counter: errno %d", errno);
	pthread_mutex_lock(&loop->lock);
	c = loop->calls;
	loop->calls = NULL;
	loop->calls_tail = &loop->calls;
	pthread_mutex_unlock(&loop->lock);
	for (; c; c = next) {
		next = c->next;
		c->fn(c->opaque);
		free(c);
	}
}

void loop_stop(struct loop *loop, int code)
{
	pthread_mutex_lock(&loop->lock);
	if (!loop->stopped) {
		loop->stopped = true;
		loop->stop_code = code;
	}
	pthread_mutex_unlock(&loop->lock);
	loop_wake(loop);
}

static bool loop_take_stop(struct loop *loop, int *ret_code)
{
	bool stopped;

	pthread_mutex_lock(&loop->lock);
	stopped = loop->stopped;
	if (stopped)
		*ret_code = loop->stop_code;
	loop->stopped = false;
	pthread_mutex_unlock(&loop->lock);
	return stopped;
}

static void loop_turn(struct loop *loop)
{
	struct epoll_event ev[32];
	bool timers = false;
	int n;

	n = epoll_wait(loop->epoll, ev, ARRAY_SIZE(ev), -1);
	if (n < 0) {
		if (errno != EINTR) {
			log_error("the event loop cannot wait: errno %d", errno);
			abort();
		}
		return;
	}
	loop->in_turn = true;
	loop->turn++;
	for (int i = 0; i < n; i++) {
		struct loop_fd *h = ev[i].data.ptr;

		if (ev[i].data.ptr == &loop->timerfd)
			timers = true;
		else if (ev[i].data.ptr == &loop->eventfd)
			loop_run_calls(loop);
		else if (h->fn)
			h->fn(h->opaque, ev[i].events);
	}
	if (timers)
		loop_fire_timers(loop);
	loop->in_turn = false;
	loop_bury(loop);
}

int loop_run(struct loop *loop)
{
	int code = 0;

	while (!loop_take_stop(loop, &code))
		loop_turn(loop);
	return code;
}
