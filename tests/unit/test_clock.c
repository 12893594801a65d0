/* Guest time and device timers, with arming and cancelling from other threads. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/os.h"
#include "vm/clock.h"
#include "vm/vm.h"

#define MS 1000000ull

static struct vm vm;
static struct loop_timer *guard;

static void too_late(void *opaque)
{
	loop_stop(vm.loop, -1);
}

static int setup(void **state)
{
	memset(&vm, 0, sizeof(vm));
	vm.clock_paused = true;
	if (loop_new(&vm.loop, NULL))
		return -1;
	guard = loop_timer_new(vm.loop, too_late, NULL);
	loop_timer_arm(guard, os_now_ns() + 60000 * MS);
	clock_resume(&vm);
	return 0;
}

static int teardown(void **state)
{
	loop_timer_free(guard);
	loop_free(vm.loop);
	return 0;
}

struct alarm {
	pthread_mutex_t lock;
	struct clock_timer *timer;
	unsigned fired, stop_after;
	u64 at;
	u64 period;
	bool forbidden; /* it must not fire now */
};

static void on_alarm(void *opaque)
{
	struct alarm *a = opaque;

	assert_int_not_equal(pthread_mutex_trylock(&a->lock), 0);
	assert_false(a->forbidden);
	a->fired++;
	a->at = clock_now(&vm);
	if (a->period)
		clock_timer_arm(a->timer, a->at + a->period);
	if (a->fired == a->stop_after)
		loop_stop(vm.loop, 1);
}

static void stop_loop(void *opaque)
{
	loop_stop(vm.loop, 2);
}

/* Runs the loop for some milliseconds. */
static int run_for(unsigned ms)
{
	struct loop_timer *t = loop_timer_new(vm.loop, stop_loop, NULL);
	int code;

	loop_timer_arm(t, os_now_ns() + ms * MS);
	code = loop_run(vm.loop);
	loop_timer_free(t);
	return code;
}

static void test_time_and_pause(void **state)
{
	u64 a = clock_now(&vm), b;

	assert_true(a < 5000 * MS);
	usleep(2000);
	b = clock_now(&vm);
	assert_true(b >= a + 2 * MS);
	clock_pause(&vm);
	clock_pause(&vm);
	a = clock_now(&vm);
	assert_true(a >= b);
	usleep(300000);
	assert_true(clock_now(&vm) == a);
	clock_resume(&vm);
	clock_resume(&vm);
	b = clock_now(&vm);
	assert_true(b >= a && b < a + 250 * MS);
}

static void test_fires(void **state)
{
	struct alarm a = { .lock = PTHREAD_MUTEX_INITIALIZER, .stop_after = 1 };
	u64 due = clock_now(&vm) + 10 * MS;

	a.timer = clock_timer_new(&vm, &a.lock, on_alarm, &a);
	clock_timer_arm(a.timer, due);
	assert_int_equal(loop_run(vm.loop), 1);
	assert_true(a.at >= due);
	/* In the past: soon. */
	a.stop_after = 2;
	clock_timer_arm(a.timer, 0);
	assert_int_equal(loop_run(vm.loop), 1);
	/* Periodic by itself. */
	a.stop_after = 12;
	a.period = 100000;
	clock_timer_arm(a.timer, 0);
	assert_int_equal(loop_run(vm.loop), 1);
	a.period = 0;
	clock_timer_cancel(a.timer);
	assert_int_equal(run_for(3), 2);
	assert_int_equal(a.fired, 12);
	clock_timer_free(a.timer);
	clock_timer_free(NULL);
	assert_null(vm.clock_timers);
}

/* Hostile case M14: deadlines at the ends of the range. */
static void test_M14_far_deadlines(void **state)
{
	struct alarm a = { .lock = PTHREAD_MUTEX_INITIALIZER };

	a.timer = clock_timer_new(&vm, &a.lock, on_alarm, &a);
	clock_timer_arm(a.timer, ~0ull);
	assert_int_equal(run_for(3), 2);
	clock_timer_arm(a.timer, ~0ull - vm.clock_base_ns);
	assert_int_equal(run_for(3), 2);
	clock_timer_arm(a.timer, 1ull << 63);
	assert_int_equal(run_for(3), 2);
	assert_int_equal(a.fired, 0);
	clock_timer_free(a.timer);
}

static void test_paused_timer(void **state)
{
	struct alarm a = { .lock = PTHREAD_MUTEX_INITIALIZER }, b = { .lock = PTHREAD_MUTEX_INITIALIZER };

	a.timer = clock_timer_new(&vm, &a.lock, on_alarm, &a);
	b.timer = clock_timer_new(&vm, &b.lock, on_alarm, &b);
	clock_timer_arm(a.timer, clock_now(&vm) + 5 * MS);
	clock_pause(&vm);
	clock_timer_arm(b.timer, clock_now(&vm)); /* armed while paused */
	assert_int_equal(run_for(20), 2);
	assert_int_equal(a.fired + b.fired, 0);
	clock_resume(&vm);
	a.stop_after = 1;
	assert_int_equal(loop_run(vm.loop), 1);
	assert_int_equal(b.fired, 1);
	clock_timer_free(b.timer);
	clock_timer_free(a.timer);
}

static struct alarm raced = { .lock = PTHREAD_MUTEX_INITIALIZER };
static _Atomic bool racing;

/* Arms in the past, so that the alarm is on its way, then cancels under the lock. */
static void *racer(void *arg)
{
	for (unsigned i = 0; i < 20000; i++) {
		pthread_mutex_lock(&raced.lock);
		raced.forbidden = false;
		clock_timer_arm(raced.timer, clock_now(&vm));
		pthread_mutex_unlock(&raced.lock);
		if (i % 5 == 0)
			usleep(i % 50);
		pthread_mutex_lock(&raced.lock);
		if (i % 2)
			clock_timer_cancel(raced.timer);
		else
			clock_timer_arm(raced.timer, ~0ull); /* moved away is as good */
		raced.forbidden = true;
		pthread_mutex_unlock(&raced.lock);
	}
	racing = false;
	loop_stop(vm.loop, 3);
	return NULL;
}

static void test_cancelled_never_fires(void **state)
{
	pthread_t t;

	raced.timer = clock_timer_new(&vm, &raced.lock, on_alarm, &raced);
	racing = true;
	pthread_create(&t, NULL, racer, NULL);
	assert_int_equal(loop_run(vm.loop), 3);
	pthread_join(t, NULL);
	/* Some did fire in between, so the race took place. */
	assert_true(raced.fired > 10);
	clock_timer_free(raced.timer);
}

/* Readers see time that never goes back while the main thread pauses and resumes. */
static void *reader(void *arg)
{
	u64 last = 0;

	while (racing) {
		u64 now = clock_now(&vm);

		if (now < last) {
			*(bool *)arg = true;
			break;
		}
		last = now;
	}
	return NULL;
}

static void test_pause_races(void **state)
{
	bool back[2] = { false, false };
	pthread_t t[2];

	racing = true;
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, reader, &back[i]);
	for (int i = 0; i < 20000; i++) {
		clock_pause(&vm);
		clock_resume(&vm);
	}
	racing = false;
	for (int i = 0; i < 2; i++) {
		pthread_join(t[i], NULL);
		assert_false(back[i]);
	}
}

static unsigned free_calls;

static void no_lock(void *opaque)
{
	free_calls++;
	loop_stop(vm.loop, 4);
}

static void test_without_lock(void **state)
{
	struct clock_timer *t = clock_timer_new(&vm, NULL, no_lock, NULL);

	clock_timer_arm(t, clock_now(&vm));
	assert_int_equal(loop_run(vm.loop), 4);
	assert_int_equal(free_calls, 1);
	clock_timer_arm(t, clock_now(&vm) + 1000);
	/* Freed while armed. */
	clock_timer_free(t);
	assert_int_equal(run_for(3), 2);
	assert_int_equal(free_calls, 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_time_and_pause),        T(test_fires),
		T(test_M14_far_deadlines),     T(test_paused_timer),
		T(test_cancelled_never_fires), T(test_pause_races),
		T(test_without_lock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
