/* A virtual CPU's thread: mailbox, execution, waiting, local timer.
 *
 * Mailbox. `requests` holds bits that other threads set. The thread looks at it before each run(), the
 * engine between blocks. INTR, NMI, NMI_AGAIN, TIMER, KICK and FLUSH are the engine's; STOP, PAUSE, OFF, INIT and SIPI make run() return.
 *
 * Waiting, and why no wake-up is lost. The waiter does (1) sleeping = 1, (2) read requests, and only
 * when nothing of interest is set (3) futex wait while sleeping is 1. The poster does (A) set its bits in
 * requests, (B) read sleeping, and when it is 1 (C) sleeping = 0 and futex wake. 1, 2, A and B are
 * sequentially consistent, so they have one order. If A comes before 2, the waiter sees the bits
 * and does not sleep. Else 1 < 2 < A < B: the poster sees sleeping = 1 and does C. Then either the waiter has
 * not reached (3), and the kernel, which compares under its own lock, finds sleeping = 0 and returns at once;
 * or it sleeps, and the wake ends that. A waiter may also wake for nothing; it looks again.
 * While a poster might be between B and C of an earlier wait, a late C only causes such a wake for nothing.
 *
 * Before it sleeps, the thread looks at the mailbox for some microseconds: waking a thread on another
 * CPU costs tens of microseconds, and a guest's idle loop is often left sooner. How long it looks follows what the waits of
 * late were: longer where a bit more would have saved the sleep, less where nothing would, down to not at all, so that
 * an idle guest costs nothing (vcpu_poll_us()).
 *
 * Parking. A paused thread waits for a semaphore between two runs, with its engine's state as it is: a vCPU that was halted is
 * halted still when it goes on, since the engine comes back with RUN_HLT again. Bits that are posted meanwhile stay set. The
 * time does not count as the vCPU's. Meanwhile the main thread may have it call a function (vcpu_call()): what an engine does
 * only on a vCPU's own thread.
 *
 * The local timer's deadline is the thread's own: it bounds the time in the futex and is checked
 * after it, so the local APIC's timer costs no other thread.
 *
 * INIT and start-up IPI [SDM3 8.4, 10.4.7]: INIT puts the processor into the state of x86_state_reset(),
 * after which vCPU 0 executes from the reset vector and the others wait for a SIPI. A SIPI to a
 * processor that does not wait for one is ignored. Shutdown ends by INIT (or STOP) only; NMI could end
 * it on hardware, but the machine ends at a triple fault, so nothing would be left to take it.
 *
 * All signals but the synchronous ones are blocked on these threads; the main thread has the rest.
 */
#include "vm/vcpu.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/pv.h"
#include "vm/vm.h"

/* The longest is that of KVM's halt_poll_ns: where the host is a virtual machine itself, a wake-up alone takes 50 us and more. */
#define VCPU_POLL_FIRST_US 10
#define VCPU_POLL_MAX_US   200
#define VCPU_NEVER         (~0ull)
#define VCPU_MAX_SLEEP_NS  60000000000ull /* then look again; keeps the arithmetic far from overflow */
/* On hosts that give large pages unasked, one of 8 MiB would have one of those. */
#define STACK_SIZE (1 * MiB)

static _Thread_local struct vcpu *vcpu_current;

struct vcpu *vcpu_self(void)
{
	return vcpu_current;
}

/* ---- mailbox ---- */

static void vcpu_futex(struct vcpu *vcpu, int op, u32 val, const struct timespec *timeout)
{
	/* EAGAIN (the word has changed), EINTR and ETIMEDOUT all mean: look again. */
	syscall(SYS_futex, &vcpu->sleeping, op | FUTEX_PRIVATE_FLAG, val, timeout, NULL, 0);
}

void vcpu_post(struct vcpu *vcpu, u32 bits)
{
	const struct engine_ops *engine;

	atomic_fetch_or(&vcpu->requests, bits);
	if (vcpu == vcpu_current)
		return; /* looks by itself before it goes on */
	if (atomic_load(&vcpu->sleeping)) {
		if (atomic_exchange(&vcpu->sleeping, 0))
			vcpu_futex(vcpu, FUTEX_WAKE, 1, NULL);
		return;
	}
	engine = vcpu->vm->engine;
	if (engine && engine->kick)
		engine->kick(vcpu);
}

/* Who takes the first one out between the look and the post finds the second one alone, and counts the same. */
void vcpu_nmi(struct vcpu *vcpu)
{
	vcpu_post(vcpu, atomic_load(&vcpu->requests) & VCPU_REQ_NMI ? VCPU_REQ_NMI_AGAIN : VCPU_REQ_NMI);
}

u32 vcpu_take(struct vcpu *vcpu, u32 bits)
{
	/* Nothing set is the common case; a plain load then saves the locked operation. */
	if (!(atomic_load_explicit(&vcpu->requests, memory_order_relaxed) & bits))
		return 0;
	return atomic_fetch_and(&vcpu->requests, ~bits) & bits;
}

void vcpu_timer_check(struct vcpu *vcpu)
{
	if (vcpu->timer_tsc == VCPU_NEVER || vcpu_rdtsc() < vcpu->timer_tsc)
		return;
	vcpu->timer_tsc = VCPU_NEVER;
	if (vcpu->timer_fn)
		vcpu->timer_fn(vcpu->timer_opaque);
	if (vcpu->vm->pv)
		vcpu->vm->pv->tick(vcpu->vm->pv_opaque, vcpu);
}

/* ---- waiting ---- */

static void vcpu_off(struct vcpu *vcpu)
{
	if (vcpu->vm->pv)
		vcpu->vm->pv->off(vcpu->vm->pv_opaque, vcpu);
}

static void vcpu_on(struct vcpu *vcpu)
{
	if (vcpu->vm->pv)
		vcpu->vm->pv->on(vcpu->vm->pv_opaque, vcpu);
}

void vcpu_yield(struct vcpu *vcpu)
{
	vcpu_off(vcpu);
	sched_yield();
	vcpu_on(vcpu);
}

/* [proc(5) /proc/PID/schedstat]: the second figure. */
u64 vcpu_delay_ns(struct vcpu *vcpu)
{
	char text[64], *end;
	ssize_t n = vcpu->delay_fd > 0 ? pread(vcpu->delay_fd, text, sizeof(text) - 1, 0) : 0;

	if (n <= 0)
		return vcpu->delay_before;
	text[n] = 0;
	strtoull(text, &end, 10);
	return vcpu->delay_before + strtoull(end, NULL, 10);
}

static bool vcpu_wanted(struct vcpu *vcpu, u32 mask, bool timer)
{
	if (atomic_load(&vcpu->requests) & mask)
		return true;
	return timer && vcpu->timer_tsc != VCPU_NEVER && vcpu_rdtsc() >= vcpu->timer_tsc;
}

/* Sleeps once, until posted to, until the timer is due (if `timer`), or for nothing. */
static void vcpu_sleep(struct vcpu *vcpu, u32 mask, bool timer)
{
	struct timespec ts;
	u64 ns = VCPU_MAX_SLEEP_NS;

	vcpu_off(vcpu);
	atomic_store(&vcpu->sleeping, 1);
	if (!vcpu_wanted(vcpu, mask, timer)) {
		if (timer && vcpu->timer_tsc != VCPU_NEVER) {
			u64 now = vcpu_rdtsc();
			u64 ticks = vcpu->timer_tsc > now ? vcpu->timer_tsc - now : 0;
			u64 max_ticks = vcpu->vm->tsc_khz * (VCPU_MAX_SLEEP_NS / 1000000);

			if (ticks < max_ticks)
				ns = ticks * 1000000 / vcpu->vm->tsc_khz + 1;
		}
		ts.tv_sec = (time_t)(ns / 1000000000);
		ts.tv_nsec = (long)(ns % 1000000000);
		vcpu_futex(vcpu, FUTEX_WAIT, 1, &ts);
	}
	atomic_store(&vcpu->sleeping, 0);
	vcpu_on(vcpu);
}

u32 vcpu_poll_us(u32 poll_us, u64 waited_us)
{
	if (waited_us <= poll_us)
		return poll_us;
	if (waited_us <= VCPU_POLL_MAX_US)
		return MIN(MAX(2 * poll_us, (u32)VCPU_POLL_FIRST_US), (u32)VCPU_POLL_MAX_US);
	return poll_us > VCPU_POLL_FIRST_US ? poll_us / 2 : 0;
}

/* Waits for a bit of mask, or the local timer (if `timer`); books idle time. Returns when it began. */
static u64 vcpu_wait(struct vcpu *vcpu, u32 mask, bool timer)
{
	u64 t0 = vcpu_rdtsc(), poll_end = t0 + vcpu->vm->tsc_khz * vcpu->poll_us / 1000, spent;

	while (!vcpu_wanted(vcpu, mask, timer)) {
		if (vcpu_rdtsc() < poll_end)
			__builtin_ia32_pause();
		else
			vcpu_sleep(vcpu, mask, timer);
	}
	/* A host whose TSCs differ between CPUs may yield a negative time. */
	spent = vcpu_rdtsc() - t0;
	if ((s64)spent > 0) {
		__atomic_store_n(&vcpu->stats.idle_tsc, vcpu->stats.idle_tsc + spent, __ATOMIC_RELAXED);
		vcpu->poll_us = vcpu_poll_us(vcpu->poll_us, spent * 1000 / vcpu->vm->tsc_khz);
	}
	return t0;
}

/* ---- the thread ---- */

enum vcpu_mode { VCPU_RUNS, VCPU_WAITS_SIPI, VCPU_SHUT_DOWN };

static enum vcpu_mode vcpu_mode_of(const struct x86_state *state)
{
	switch (state->activity) {
	case X86_WAIT_SIPI: return VCPU_WAITS_SIPI;
	case X86_SHUTDOWN: return VCPU_SHUT_DOWN;
	default: return VCPU_RUNS; /* a halted one says RUN_HLT itself */
	}
}

/* Loads a state that this file made; an engine that refuses it is broken, and so is the machine. */
static enum vcpu_mode vcpu_load(struct vcpu *vcpu, const struct x86_state *state)
{
	struct err err = { 0 };
	char text[1200];

	if (!vcpu->vm->engine->set_state(vcpu, state, &err))
		return vcpu_mode_of(state);
	snprintf(text, sizeof(text), "vCPU %u cannot be reset: %s\n", vcpu->id, err.msg);
	vm_crash(vcpu->vm, text);
	return VCPU_SHUT_DOWN;
}

/* False: the host failed, and the machine ends. */
static bool vcpu_save(struct vcpu *vcpu, struct x86_state *ret_state)
{
	struct err err = { 0 };
	char text[1200];

	if (!vcpu->vm->engine->get_state(vcpu, ret_state, &err))
		return true;
	snprintf(text, sizeof(text), "vCPU %u does not give its state: %s\n", vcpu->id, err.msg);
	vm_crash(vcpu->vm, text);
	return false;
}

static enum vcpu_mode vcpu_do_init(struct vcpu *vcpu)
{
	u64 t0 = vcpu_rdtsc();
	struct x86_state state;
	enum vcpu_mode mode;

	vcpu->kicked = false;
	if (!vcpu_save(vcpu, &state))
		return VCPU_SHUT_DOWN;
	x86_state_reset(&state, true, vcpu->id == 0, vcpu->vm->cpuid.signature);
	mode = vcpu_load(vcpu, &state);
	exit_account(vcpu, EXIT_INIT, EXIT_NO_KEY, t0);
	return mode;
}

static enum vcpu_mode vcpu_do_sipi(struct vcpu *vcpu)
{
	u64 t0 = vcpu_rdtsc();
	u8 vector = atomic_load(&vcpu->sipi_vector);
	struct x86_state state;
	enum vcpu_mode mode;

	timeline_started(vcpu);
	if (!vcpu_save(vcpu, &state))
		return VCPU_SHUT_DOWN;
	state.seg[SEG_CS].sel = (u16)(vector << 8);
	state.seg[SEG_CS].base = (u64)vector << 12;
	state.rip = 0;
	state.activity = X86_ACTIVE;
	mode = vcpu_load(vcpu, &state);
	exit_account(vcpu, EXIT_SIPI, EXIT_NO_KEY, t0);
	return mode;
}

static void vcpu_park(struct vcpu *vcpu)
{
	struct exit_stats *stats = &vcpu->stats;
	u64 t0 = vcpu_rdtsc();

	__atomic_store_n(&stats->stop_tsc, t0, __ATOMIC_RELAXED);
	for (;;) {
		sem_post(&vcpu->parked);
		while (sem_wait(&vcpu->unpark) < 0 && errno == EINTR)
			;
		if (!vcpu->call)
			break;
		vcpu->call(vcpu, vcpu->call_opaque);
		vcpu->call = NULL;
	}
	__atomic_store_n(&stats->start_tsc, stats->start_tsc + (vcpu_rdtsc() - t0), __ATOMIC_RELAXED);
	__atomic_store_n(&stats->stop_tsc, 0, __ATOMIC_RELAXED);
}

static void vcpu_loop(struct vcpu *vcpu, enum vcpu_mode mode)
{
	const struct engine_ops *engine = vcpu->vm->engine;
	u64 t0;

	while (!(atomic_load(&vcpu->requests) & VCPU_REQ_STOP)) {
		if (atomic_load(&vcpu->requests) & VCPU_REQ_PAUSE) {
			vcpu_park(vcpu);
			continue;
		}
		if (atomic_load(&vcpu->requests) & VCPU_REQ_OFF) {
			vcpu_wait(vcpu, VCPU_REQ_STOP | VCPU_REQ_PAUSE, false);
			continue;
		}
		/* Until it has been paused, and the debugger has said what is next. */
		if (vcpu->debug.action == DEBUG_HOLD || vcpu->debug.why) {
			vcpu_wait(vcpu, VCPU_REQ_STOP | VCPU_REQ_PAUSE, false);
			continue;
		}
		if (vcpu_take(vcpu, VCPU_REQ_INIT))
			mode = vcpu_do_init(vcpu);
		if (vcpu_take(vcpu, VCPU_REQ_SIPI) && mode == VCPU_WAITS_SIPI)
			mode = vcpu_do_sipi(vcpu);
		/* An engine with local APICs of its own sees by itself who is to start. */
		if (mode == VCPU_WAITS_SIPI && vcpu->vm->apics)
			mode = VCPU_RUNS;
		if (mode != VCPU_RUNS) {
			vcpu_wait(vcpu, VCPU_REQ_STOP | VCPU_REQ_PAUSE | VCPU_REQ_INIT | VCPU_REQ_SIPI,
				  false);
			continue;
		}
		switch (engine->run(vcpu)) {
		case RUN_REQUEST: break;
		case RUN_HLT:
			timeline_note(vcpu->vm, TIMELINE_IDLE);
			t0 = vcpu_wait(vcpu, ~0u, true);
			exit_account(vcpu, EXIT_HLT, EXIT_NO_KEY, t0);
			vcpu_timer_check(vcpu);
			break;
		case RUN_SHUTDOWN: mode = VCPU_SHUT_DOWN; break;
		case RUN_DEBUG: debug_stopped(vcpu); break;
		}
	}
}

/* On the stack of vcpu_start(), which waits until the thread has used it. */
struct vcpu_birth {
	struct vcpu *vcpu;
	const struct x86_state *state;
	struct err *err;
	int rc;
	sem_t done;
};

/* On the thread itself, before it takes memory of its own: that then lies near these processors. */
static int vcpu_bind(struct vcpu *vcpu, struct err *err)
{
	if (!CPU_COUNT(&vcpu->host_cpus))
		return 0;
	if (sched_setaffinity(0, sizeof(vcpu->host_cpus), &vcpu->host_cpus) < 0)
		return err_sys(err, -errno, "its processors of the host are not to be had");
	return 0;
}

static void *vcpu_main(void *arg)
{
	struct vcpu_birth *birth = arg;
	struct vcpu *vcpu = birth->vcpu;
	enum vcpu_mode mode = vcpu_mode_of(birth->state);
	struct exit_stats *stats = &vcpu->stats;
	u64 before = stats->stop_tsc - stats->start_tsc; /* in earlier lives of the thread */
	char name[16];
	int rc;

	vcpu_current = vcpu;
	snprintf(name, sizeof(name), "vcpu%u", vcpu->id);
	pthread_setname_np(pthread_self(), name);
	/* The kernel may delay a sleeper by this much to save wake-ups; the default is 50 us. */
	prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);
	rc = vcpu_bind(vcpu, birth->err);
	if (!rc)
		rc = vcpu->vm->engine->set_state(vcpu, birth->state, birth->err);
	birth->rc = rc;
	if (!rc) {
		__atomic_store_n(&stats->start_tsc, vcpu_rdtsc() - before, __ATOMIC_RELAXED);
		__atomic_store_n(&stats->stop_tsc, 0, __ATOMIC_RELAXED);
	}
	sem_post(&birth->done); /* birth is gone from here on */
	if (rc)
		return NULL;
	if (!vcpu->id)
		timeline_first(vcpu);
	vcpu->delay_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	vcpu_loop(vcpu, mode);
	vcpu->delay_before = vcpu_delay_ns(vcpu);
	if (vcpu->delay_fd > 0)
		close(vcpu->delay_fd);
	vcpu->delay_fd = 0;
	__atomic_store_n(&stats->stop_tsc, vcpu_rdtsc(), __ATOMIC_RELAXED);
	return NULL;
}

/* What the thread leaves unblocked: signals that its own instructions raise. */
static void vcpu_signal_mask(sigset_t *ret_set)
{
	static const int synchronous[] = { SIGSEGV, SIGFPE, SIGILL, SIGBUS, SIGTRAP };

	sigfillset(ret_set);
	for (size_t i = 0; i < ARRAY_SIZE(synchronous); i++)
		sigdelset(ret_set, synchronous[i]);
}

int vcpu_start(struct vcpu *vcpu, const struct x86_state *state, struct err *err)
{
	struct vcpu_birth birth = { .vcpu = vcpu, .state = state, .err = err };
	pthread_attr_t attr;
	sigset_t mask, old;
	int rc;

	atomic_fetch_and(&vcpu->requests, ~(u32)(VCPU_REQ_STOP | VCPU_REQ_OFF));
	if (!vcpu->vm->tsc_khz)
		return err_set(err, -EINVAL, "the machine has no TSC rate");
	sem_init(&birth.done, 0, 0);
	sem_init(&vcpu->parked, 0, 0);
	sem_init(&vcpu->unpark, 0, 0);
	/* The mask is inherited, so there is no moment in which the thread could take a signal. */
	vcpu_signal_mask(&mask);
	pthread_sigmask(SIG_SETMASK, &mask, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	rc = -pthread_create(&vcpu->thread, &attr, vcpu_main, &birth);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc) {
		sem_destroy(&birth.done);
		return err_sys(err, rc, "cannot start the thread of vCPU %u", vcpu->id);
	}
	while (sem_wait(&birth.done) < 0 && errno == EINTR)
		;
	rc = birth.rc;
	if (rc) {
		pthread_join(vcpu->thread, NULL);
		err_wrap(err, "vCPU %u cannot start", vcpu->id);
	} else {
		vcpu->thread_started = true;
	}
	sem_destroy(&birth.done);
	return rc;
}

void vcpu_join(struct vcpu *vcpu)
{
	if (!vcpu->thread_started)
		return;
	vcpu_post(vcpu, VCPU_REQ_STOP);
	vcpu_resume(vcpu);
	pthread_join(vcpu->thread, NULL);
	vcpu->thread_started = false;
	sem_destroy(&vcpu->parked);
	sem_destroy(&vcpu->unpark);
}

void vcpu_pause(struct vcpu *vcpu)
{
	if (!vcpu->thread_started || vcpu->paused)
		return;
	vcpu_post(vcpu, VCPU_REQ_PAUSE);
	while (sem_wait(&vcpu->parked) < 0 && errno == EINTR)
		;
	vcpu->paused = true;
}

void vcpu_resume(struct vcpu *vcpu)
{
	if (!vcpu->paused)
		return;
	vcpu->paused = false;
	atomic_fetch_and(&vcpu->requests, ~(u32)VCPU_REQ_PAUSE);
	/* The TSC's offset may be another one now. */
	if (vcpu->timer_tsc != VCPU_NEVER)
		vcpu->timer_tsc = 0;
	sem_post(&vcpu->unpark);
}

void vcpu_call(struct vcpu *vcpu, void (*fn)(struct vcpu *vcpu, void *opaque), void *opaque)
{
	assert(vcpu->paused);
	vcpu->call_opaque = opaque;
	vcpu->call = fn;
	sem_post(&vcpu->unpark);
	while (sem_wait(&vcpu->parked) < 0 && errno == EINTR)
		;
}

u64 vcpu_cpu_ns(const struct vcpu *vcpu)
{
	struct timespec ts;
	clockid_t clock;

	if (!vcpu->thread_started || pthread_getcpuclockid(vcpu->thread, &clock) ||
	    clock_gettime(clock, &ts) < 0)
		return 0;
	return (u64)ts.tv_sec * 1000000000 + (u64)ts.tv_nsec;
}
