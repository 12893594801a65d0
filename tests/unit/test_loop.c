/* The event loop: descriptors, timers, posted calls, stop, also from other threads. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/loop.h"
#include "base/os.h"

#define MS 1000000ull

static struct loop *the_loop;
static struct loop_timer *guard;

static void too_late(void *opaque)
{
	loop_stop(the_loop, -1);
}

static int setup(void **state)
{
	if (loop_new(&the_loop, NULL))
		return -1;
	guard = loop_timer_new(the_loop, too_late, NULL);
	loop_timer_arm(guard, os_now_ns() + 20000 * MS);
	return 0;
}

static int teardown(void **state)
{
	loop_timer_free(guard);
	loop_free(the_loop);
	return 0;
}

static void stop_with(void *opaque)
{
	loop_stop(the_loop, *(int *)opaque);
}

static void test_stop(void **state)
{
	int code = 42;

	/* Before it runs; the first stands. */
	loop_stop(the_loop, 7);
	loop_stop(the_loop, 8);
	assert_int_equal(loop_run(the_loop), 7);
	/* It runs again, and a posted call runs on this thread. */
	loop_post(the_loop, stop_with, &code);
	assert_int_equal(loop_run(the_loop), 42);
}

/* ---- timers ---- */

static struct {
	char order[64];
	unsigned n;
} trace;

struct tick {
	char name;
	struct loop_timer *timer;
	u64 again_ns; /* arm again this much later; 0: in the distant past; ~0: not */
	unsigned times, stop_after;
	u64 fired_at;
};

static void on_tick(void *opaque)
{
	struct tick *t = opaque;

	t->fired_at = os_now_ns();
	if (trace.n < sizeof(trace.order) - 1)
		trace.order[trace.n++] = t->name;
	t->times++;
	if (t->stop_after && t->times >= t->stop_after)
		loop_stop(the_loop, 1);
	else if (t->again_ns != ~0ull)
		loop_timer_arm(t->timer, t->again_ns ? os_now_ns() + t->again_ns : 0);
}

static void test_timer_order(void **state)
{
	struct tick t[4] = {
		{ 'a', .again_ns = ~0ull },
		{ 'b', .again_ns = ~0ull },
		{ 'c', .again_ns = ~0ull },
		{ 'd', .again_ns = ~0ull, .stop_after = 1 },
	};
	u64 now = os_now_ns();

	trace.n = 0;
	for (int i = 0; i < 4; i++)
		t[i].timer = loop_timer_new(the_loop, on_tick, &t[i]);
	loop_timer_arm(t[3].timer, now + 30 * MS);
	loop_timer_arm(t[1].timer, now + 10 * MS);
	loop_timer_arm(t[0].timer, 0);
	loop_timer_arm(t[2].timer, now + 5 * MS);
	loop_timer_arm(t[2].timer, now + 20 * MS); /* moved */
	assert_true(loop_timer_armed(t[0].timer));
	assert_int_equal(loop_run(the_loop), 1);
	trace.order[trace.n] = 0;
	assert_string_equal(trace.order, "abcd");
	assert_false(loop_timer_armed(t[0].timer));
	for (int i = 1; i < 4; i++)
		assert_true(t[i].fired_at >= now + 10 * MS * (unsigned)i);
	for (int i = 0; i < 4; i++)
		loop_timer_free(t[i].timer);
}

static void test_timer_cancel(void **state)
{
	struct tick t[2] = { { 'a', .again_ns = ~0ull }, { 'b', .again_ns = ~0ull, .stop_after = 1 } };

	trace.n = 0;
	t[0].timer = loop_timer_new(the_loop, on_tick, &t[0]);
	t[1].timer = loop_timer_new(the_loop, on_tick, &t[1]);
	loop_timer_arm(t[0].timer, os_now_ns() + 5 * MS);
	loop_timer_arm(t[1].timer, os_now_ns() + 15 * MS);
	loop_timer_cancel(t[0].timer);
	loop_timer_cancel(t[0].timer);
	assert_int_equal(loop_run(the_loop), 1);
	assert_int_equal(t[0].times, 0);
	/* ~0 never fires and does not disturb. */
	loop_timer_arm(t[0].timer, ~0ull);
	t[1].times = 0;
	loop_timer_arm(t[1].timer, os_now_ns() + 1 * MS);
	assert_int_equal(loop_run(the_loop), 1);
	assert_int_equal(t[0].times, 0);
	loop_timer_free(t[0].timer);
	loop_timer_free(t[1].timer);
}

/* Hostile case G40: a timer that is always due does not starve the descriptors. */
static void on_pipe_stop(void *opaque, u32 events)
{
	loop_stop(the_loop, 2);
}

static void test_G40_timer_storm(void **state)
{
	struct tick t = { 'a', .again_ns = 0 };
	struct loop_fd *h;
	int fd[2];

	assert_int_equal(pipe(fd), 0);
	t.timer = loop_timer_new(the_loop, on_tick, &t);
	loop_timer_arm(t.timer, 0);
	assert_int_equal(loop_fd_add(the_loop, fd[0], EPOLLIN, on_pipe_stop, NULL, &h, NULL), 0);
	assert_int_equal(write(fd[1], "x", 1), 1);
	assert_int_equal(loop_run(the_loop), 2);
	assert_true(t.times <= 3);
	/* Only with a timer of its own does it fire often, once a turn. */
	loop_fd_del(h);
	t.stop_after = 1000;
	assert_int_equal(loop_run(the_loop), 1);
	assert_int_equal(t.times, 1000);
	loop_timer_free(t.timer);
	close(fd[0]);
	close(fd[1]);
}

static void free_self(void *opaque)
{
	struct loop_timer **t = opaque;

	loop_timer_free(*t);
	*t = NULL;
	loop_stop(the_loop, 3);
}

static void test_timer_frees_itself(void **state)
{
	struct loop_timer *t = loop_timer_new(the_loop, free_self, &t);

	loop_timer_arm(t, 0);
	assert_int_equal(loop_run(the_loop), 3);
	assert_null(t);
	loop_timer_free(NULL);
}

/* ---- descriptors ---- */

struct reader {
	int fd[2];
	struct loop_fd *h;
	struct reader *kill; /* deletes this one's handle when it is called */
	unsigned calls;
};

static void on_read(void *opaque, u32 events)
{
	struct reader *r = opaque;
	char c;

	r->calls++;
	assert_true(events & EPOLLIN);
	assert_int_equal(read(r->fd[0], &c, 1), 1);
	if (r->kill) {
		loop_fd_del(r->kill->h);
		r->kill->h = NULL;
	}
	loop_stop(the_loop, 4);
}

/* Both are ready in the same turn; the first deletes the second, which must not be called. */
static void test_fd_deleted_in_turn(void **state)
{
	struct reader a = { .calls = 0 }, b = { .calls = 0 };

	assert_int_equal(pipe(a.fd), 0);
	assert_int_equal(pipe(b.fd), 0);
	assert_int_equal(loop_fd_add(the_loop, a.fd[0], EPOLLIN, on_read, &a, &a.h, NULL), 0);
	assert_int_equal(loop_fd_add(the_loop, b.fd[0], EPOLLIN, on_read, &b, &b.h, NULL), 0);
	a.kill = &b;
	b.kill = &a;
	assert_int_equal(write(a.fd[1], "x", 1), 1);
	assert_int_equal(write(b.fd[1], "x", 1), 1);
	assert_int_equal(loop_run(the_loop), 4);
	assert_int_equal(a.calls + b.calls, 1);
	loop_fd_del(a.h);
	loop_fd_del(b.h);
	loop_fd_del(NULL);
	for (int i = 0; i < 2; i++) {
		close(a.fd[i]);
		close(b.fd[i]);
	}
}

static void test_fd_mod(void **state)
{
	struct reader a = { .calls = 0 };
	struct tick t = { 'a', .again_ns = ~0ull, .stop_after = 1 };
	struct err err = { 0 };

	assert_int_equal(pipe(a.fd), 0);
	assert_int_equal(loop_fd_add(the_loop, a.fd[0], 0, on_read, &a, &a.h, NULL), 0);
	assert_int_equal(write(a.fd[1], "xy", 2), 2);
	t.timer = loop_timer_new(the_loop, on_tick, &t);
	loop_timer_arm(t.timer, os_now_ns() + 5 * MS);
	assert_int_equal(loop_run(the_loop), 1);
	assert_int_equal(a.calls, 0);
	loop_fd_mod(a.h, EPOLLIN);
	assert_int_equal(loop_run(the_loop), 4);
	assert_int_equal(a.calls, 1);
	/* A regular file cannot be watched. */
	assert_true(loop_fd_add(the_loop, -1, EPOLLIN, on_read, &a, &a.h, &err) < 0);
	assert_true(err.code < 0);
	/* a.h stays: loop_free() must release it. */
	loop_timer_free(t.timer);
	close(a.fd[0]);
	close(a.fd[1]);
}

/* ---- threads ---- */

static unsigned posted;

static void count_post(void *opaque)
{
	posted++;
}

static void test_post_coalesces(void **state)
{
	int code = 5;

	posted = 0;
	for (int i = 0; i < 1000; i++)
		loop_post(the_loop, count_post, NULL);
	loop_post(the_loop, count_post, &posted);
	loop_post(the_loop, stop_with, &code);
	assert_int_equal(loop_run(the_loop), 5);
	assert_int_equal(posted, 2);
}

struct sum {
	unsigned calls[4];
	unsigned ready;
};

static struct sum sum;

static void on_sum(void *opaque)
{
	unsigned i = *(unsigned *)opaque;

	sum.calls[i]++;
}

static void on_done(void *opaque)
{
	if (++sum.ready == 4)
		loop_stop(the_loop, 6);
}

static struct loop_timer *shared[8];

static void *hammer(void *arg)
{
	unsigned *index = arg;

	for (unsigned i = 0; i < 3000; i++) {
		struct loop_timer *t = shared[(i + *index) % 8];

		loop_post(the_loop, on_sum, index);
		loop_timer_arm(t, os_now_ns() + (i % 7) * 1000);
		if (i % 3 == 0)
			loop_timer_cancel(t);
		if (loop_timer_armed(t))
			loop_timer_arm(t, 0);
	}
	loop_post(the_loop, on_done, index);
	return NULL;
}

static void nothing(void *opaque)
{
}

static void test_threads(void **state)
{
	pthread_t thread[4];
	unsigned index[4] = { 0, 1, 2, 3 };

	sum = (struct sum){ 0 };
	for (int i = 0; i < 8; i++)
		shared[i] = loop_timer_new(the_loop, nothing, NULL);
	for (int i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, hammer, &index[i]);
	assert_int_equal(loop_run(the_loop), 6);
	for (int i = 0; i < 4; i++) {
		pthread_join(thread[i], NULL);
		assert_in_range(sum.calls[i], 1, 3000);
	}
	for (int i = 0; i < 8; i++)
		loop_timer_free(shared[i]);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_stop),
		T(test_timer_order),
		T(test_timer_cancel),
		T(test_G40_timer_storm),
		T(test_timer_frees_itself),
		T(test_fd_deleted_in_turn),
		T(test_fd_mod),
		T(test_post_coalesces),
		T(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
