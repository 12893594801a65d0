/* The main thread's event loop: file descriptors, timers, posted calls.
 *
 * All callbacks run on the thread that is in loop_run(). loop_post(), loop_stop()
 * and the loop_timer_*() functions may be called from any thread; the rest only
 * from the loop's own thread, or before it runs. epoll and one timerfd underneath.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct loop;
struct loop_fd;
struct loop_timer;

int loop_new(struct loop **ret_loop, struct err *err);
void loop_free(struct loop *loop);

/* Runs until loop_stop(); returns the code given there. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop, int code);

/* events: EPOLLIN / EPOLLOUT as in epoll_ctl(2), level-triggered. The loop does not own fd. */
int loop_fd_add(struct loop *loop, int fd, u32 events, void (*fn)(void *opaque, u32 events), void *opaque,
		struct loop_fd **ret_handle, struct err *err);
void loop_fd_mod(struct loop_fd *handle, u32 events);
void loop_fd_del(struct loop_fd *handle); /* NULL is allowed */

/* A one-shot timer; the callback may arm it again. */
struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *opaque), void *opaque);
/* NULL is allowed. Not from another thread than the loop's while it runs. */
void loop_timer_free(struct loop_timer *timer);
/* CLOCK_MONOTONIC; a past one fires at once. */
void loop_timer_arm(struct loop_timer *timer, u64 deadline_ns);
void loop_timer_cancel(struct loop_timer *timer);
bool loop_timer_armed(const struct loop_timer *timer);

/* Runs fn(opaque) on the loop's thread. A call equal to one that still waits is not queued again, so that
 * the queue cannot grow by what a guest provokes; a call that has begun does not count. */
void loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque);
