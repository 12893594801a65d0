/* Guest time and device timers, on the event loop's timers.
 *
 * Guest time is the host's monotonic clock minus clock_base_ns; pausing keeps the value, resuming moves
 * the base. A timer remembers its deadline in guest time; the loop's timer underneath is only the alarm
 * that makes the main thread look. When it rings, the main thread takes the device's lock and then looks
 * whether the timer is still armed and due. Cancelling and arming happen under that lock, so an alarm
 * that had already rung finds the timer disarmed or its deadline in the future: a timer cancelled under
 * the lock never fires afterwards, one moved to later does not fire early.
 *
 * Locks: device lock, then the timer's guard, then the loop's. The guard protects armed and deadline for
 * timers whose device needs no lock, and against pausing.
 *
 * clock_now, arm, cancel: any thread. The rest: main thread.
 */
#include "vm/clock.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/os.h"
#include "vm/vm.h"

#define CLOCK_UNDECIDED (~0ull) /* clock_paused_ns while clock_pause() is between flag and value */

struct clock_timer {
	struct vm *vm;
	struct clock_timer *next; /* in vm->clock_timers, main thread only */
	pthread_mutex_t *lock;    /* the device's, or NULL */
	void (*fn)(void *opaque);
	void *opaque;
	struct loop_timer *alarm;
	pthread_mutex_t guard;
	bool armed;
	u64 deadline; /* guest time */
};

static bool clock_is_paused(struct vm *vm)
{
	return __atomic_load_n(&vm->clock_paused, __ATOMIC_ACQUIRE);
}

/* Never goes back, whoever pauses meanwhile. A running clock is read between two looks at the flag: what it
 * shows is older than the pause, and the pause takes its value only after it has raised the flag. */
u64 clock_now(struct vm *vm)
{
	for (;;) {
		u64 base = __atomic_load_n(&vm->clock_base_ns, __ATOMIC_ACQUIRE);
		u64 now;

		if (clock_is_paused(vm)) {
			now = __atomic_load_n(&vm->clock_paused_ns, __ATOMIC_ACQUIRE);
			if (now != CLOCK_UNDECIDED)
				return now;
			continue;
		}
		now = os_now_ns();
		/* The clock is read by RDTSC, which later loads may overtake. */
		__builtin_ia32_lfence();
		if (!clock_is_paused(vm) && __atomic_load_n(&vm->clock_base_ns, __ATOMIC_ACQUIRE) == base)
			return now - base;
	}
}

/* With the guard held. */
static void clock_set_alarm(struct clock_timer *t)
{
	u64 at;

	if (clock_is_paused(t->vm))
		return; /* clock_resume() does it */
	at = __atomic_load_n(&t->vm->clock_base_ns, __ATOMIC_ACQUIRE);
	at = t->deadline > ~0ull - at ? ~0ull : t->deadline + at;
	loop_timer_arm(t->alarm, at);
}

static void clock_ring(void *opaque)
{
	struct clock_timer *t = opaque;
	pthread_mutex_t *lock = t->lock;
	bool due = false;

	if (lock)
		pthread_mutex_lock(lock);
	pthread_mutex_lock(&t->guard);
	if (t->armed && !clock_is_paused(t->vm)) {
		due = clock_now(t->vm) >= t->deadline;
		if (due)
			t->armed = false;
		else
			clock_set_alarm(t);
	}
	pthread_mutex_unlock(&t->guard);
	if (due)
		t->fn(t->opaque);
	if (lock)
		pthread_mutex_unlock(lock);
}

struct clock_timer *clock_timer_new(struct vm *vm, pthread_mutex_t *lock, void (*fn)(void *opaque),
				    void *opaque)
{
	struct clock_timer *t = calloc(1, sizeof(*t));

	if (!t) {
		log_error("no memory for a device timer");
		abort();
	}
	t->vm = vm;
	t->lock = lock;
	t->fn = fn;
	t->opaque = opaque;
	pthread_mutex_init(&t->guard, NULL);
	t->alarm = loop_timer_new(vm->loop, clock_ring, t);
	t->next = vm->clock_timers;
	vm->clock_timers = t;
	return t;
}

void clock_timer_free(struct clock_timer *t)
{
	struct clock_timer **at;

	if (!t)
		return;
	for (at = &t->vm->clock_timers; *at != t; at = &(*at)->next)
		;
	*at = t->next;
	loop_timer_free(t->alarm);
	pthread_mutex_destroy(&t->guard);
	free(t);
}

void clock_timer_arm(struct clock_timer *t, u64 deadline)
{
	pthread_mutex_lock(&t->guard);
	t->armed = true;
	t->deadline = deadline;
	clock_set_alarm(t);
	pthread_mutex_unlock(&t->guard);
}

void clock_timer_cancel(struct clock_timer *t)
{
	pthread_mutex_lock(&t->guard);
	t->armed = false;
	loop_timer_cancel(t->alarm);
	pthread_mutex_unlock(&t->guard);
}

void clock_pause(struct vm *vm)
{
	if (vm->clock_paused)
		return;
	__atomic_store_n(&vm->clock_paused_ns, CLOCK_UNDECIDED, __ATOMIC_RELEASE);
	/* A full barrier: the flag must be seen before the clock is read. */
	__atomic_store_n(&vm->clock_paused, true, __ATOMIC_SEQ_CST);
	__atomic_store_n(&vm->clock_paused_ns, os_now_ns() - vm->clock_base_ns, __ATOMIC_RELEASE);
	/* Who arms a timer from here on sees the pause; who did before has let go of the guard. */
	for (struct clock_timer *t = vm->clock_timers; t; t = t->next) {
		pthread_mutex_lock(&t->guard);
		loop_timer_cancel(t->alarm);
		pthread_mutex_unlock(&t->guard);
	}
}

void clock_resume(struct vm *vm)
{
	if (!vm->clock_paused)
		return;
	__atomic_store_n(&vm->clock_base_ns, os_now_ns() - vm->clock_paused_ns, __ATOMIC_RELEASE);
	__atomic_store_n(&vm->clock_paused, false, __ATOMIC_RELEASE);
	for (struct clock_timer *t = vm->clock_timers; t; t = t->next) {
		pthread_mutex_lock(&t->guard);
		if (t->armed)
			clock_set_alarm(t);
		pthread_mutex_unlock(&t->guard);
	}
}
