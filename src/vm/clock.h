/* Time as the machine's devices see it, and their timers.
 *
 * Guest time is nanoseconds since the VM started, and stands still while the VM is paused.
 * A device timer fires on the main thread with the device's lock held. (The local APIC's timer is the
 * vCPU's own, see vcpu.h: it must not cost a thread switch.)
 */
#pragma once

#include <pthread.h>

#include "base/types.h"

struct vm;
struct clock_timer;

u64 clock_now(struct vm *vm); /* ns of guest time; any thread */

/* Main thread, at device init. lock: the device's, may be NULL. */
struct clock_timer *clock_timer_new(struct vm *vm, pthread_mutex_t *lock, void (*fn)(void *opaque),
				    void *opaque);
void clock_timer_free(struct clock_timer *t); /* NULL is allowed */
/* Any thread, with the device's lock held. deadline in guest time; a past one fires soon. */
void clock_timer_arm(struct clock_timer *t, u64 deadline);
void clock_timer_cancel(struct clock_timer *t);

void clock_pause(struct vm *vm);
void clock_resume(struct vm *vm);
