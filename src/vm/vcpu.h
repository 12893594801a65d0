/* A virtual CPU: its thread, its mailbox, its local timer.
 *
 * The thread runs: take requests from the mailbox; engine->run(); on HLT wait. Everything
 * that another thread wants from a vCPU is a bit in `requests`, set by vcpu_post().
 */
#pragma once

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "base/err.h"
#include "base/types.h"
#include "vm/debug.h"
#include "vm/exit.h"
#include "x86/regs.h"

struct vm;

enum vcpu_request {
	VCPU_REQ_INTR = 1 << 0, /* the interrupt controller may have a vector: look (irq_pending) */
	VCPU_REQ_NMI = 1 << 1,  /* posted by vcpu_nmi() */
	VCPU_REQ_INIT = 1 << 2,
	VCPU_REQ_SIPI = 1 << 3,  /* vector in vcpu->sipi_vector */
	VCPU_REQ_STOP = 1 << 4,  /* leave run() and end the thread */
	VCPU_REQ_TIMER = 1 << 5, /* the local timer's deadline changed */
	VCPU_REQ_KICK =
		1 << 6, /* wake from HLT, the present or the next one, as if by an interrupt: vcpu->kicked */
	VCPU_REQ_FLUSH = 1 << 7,     /* drop every translation of addresses before the next instruction */
	VCPU_REQ_PAUSE = 1 << 8,     /* leave run() and park until vcpu_resume() */
	VCPU_REQ_NMI_AGAIN = 1 << 9, /* a second NMI, before the first was taken out */
	VCPU_REQ_NMIS = VCPU_REQ_NMI | VCPU_REQ_NMI_AGAIN,
	VCPU_REQ_OFF = 1 << 10, /* leave run() and execute nothing more in this life of the thread */
};

struct vcpu {
	/* First, because every engine polls it between blocks; one cache line. */
	_Atomic u32 requests;
	u64 timer_tsc;  /* host TSC at which timer_fn is due, ~0 = never; written by the vCPU's own thread
			* or while it does not run */
	s64 tsc_offset; /* guest TSC = host TSC + tsc_offset */

	struct vm *vm;
	u32 id;        /* also its initial APIC id */
	void *engine;  /* the engine's own state */
	void *lapic;   /* the local APIC's, for its file only */
	bool apic_off; /* set by it: IA32_APIC_BASE.EN is 0, so CPUID.1:EDX.APIC reads 0 [SDM3 10.4.3] */
	/* Where this processor sees its local APIC's page, and where the bus has it; the same unless the guest has moved it. Set by
	 * the local APIC, on this vCPU's thread or while it does not run. */
	u64 apic_page, apic_home;
	_Atomic u8 sipi_vector;
	bool kicked; /* a kick that no HLT has used up; for the engine, on the vCPU's thread */

	/* The local timer (the local APIC's): called on this thread when due, without locks held. */
	void (*timer_fn)(void *opaque);
	void *timer_opaque;

	cpu_set_t
		host_cpus; /* where its thread may run, set before that starts; empty: wherever this process may */
	pthread_t thread;
	bool thread_started;
	int delay_fd;         /* the kernel's figures on the thread; 0: not to be had */
	u64 delay_before;     /* vcpu_delay_ns() of earlier lives of the thread */
	bool paused;          /* the thread is parked; main thread only */
	sem_t parked, unpark; /* while the thread exists */
	void (*call)(struct vcpu *vcpu, void *opaque); /* what the parked thread is to do: vcpu_call() */
	void *call_opaque;
	struct debug_vcpu debug;
	_Atomic u32 sleeping; /* futex word: 1 while waiting in HLT or stopped */
	u32 poll_us; /* how long the next wait looks at the mailbox before it sleeps; the thread's own */
	struct exit_stats stats;
};

/* The vCPU whose thread this is, NULL on other threads. Devices that are per CPU
 * (local APIC) ask this in their region callbacks. */
struct vcpu *vcpu_self(void);

/* Any thread. Sets bits and wakes or kicks the vCPU. */
void vcpu_post(struct vcpu *vcpu, u32 bits);

/* Any thread, but one at a time for each vCPU (vm->intc_lock does). Posts an NMI. A processor takes one and remembers one more
 * that comes while the handler of the first runs [SDM3 6.7.1], so the mailbox holds two; who takes them out counts them with
 * vcpu_nmis() and knows whether the first one is to be taken still. */
void vcpu_nmi(struct vcpu *vcpu);

/* How many NMIs bits from the mailbox stand for, together with `pending` ones taken out before; blocked: a handler of one runs. */
static inline u8 vcpu_nmis(u32 bits, u8 pending, bool blocked)
{
	unsigned n = pending + !!(bits & VCPU_REQ_NMI) + !!(bits & VCPU_REQ_NMI_AGAIN);

	return (u8)MIN(n, blocked ? 1u : 2u);
}

/* vCPU's own thread: takes and clears the given bits, returns those that were set. */
u32 vcpu_take(struct vcpu *vcpu, u32 bits);

/* vCPU's own thread: gives its processor to other threads of the host. */
void vcpu_yield(struct vcpu *vcpu);

/* vCPU's own thread: how long it was ready to run and the host did not let it, in ns since the first start; 0 where the host
 * does not say. */
u64 vcpu_delay_ns(struct vcpu *vcpu);

/* How long the next wait is to look at the mailbox before it sleeps, after one that looked for poll_us and took waited_us in all. */
u32 vcpu_poll_us(u32 poll_us, u64 waited_us);

/* Calls timer_fn if due. vCPU's own thread. */
void vcpu_timer_check(struct vcpu *vcpu);

/* Starts the thread in state (loaded on the thread itself; returns when that is done). The mailbox keeps what
 * was posted before, but for STOP and OFF: who starts over after a reset empties it first, and where PAUSE was posted the thread
 * parks before it executes anything: vcpu_pause() then waits for that. Needs vm->tsc_khz. */
int vcpu_start(struct vcpu *vcpu, const struct x86_state *state, struct err *err);
/* Posts STOP for good and joins, paused or not. */
void vcpu_join(struct vcpu *vcpu);

/* Main thread. pause returns when the thread is between two runs and stays there: nothing of the vCPU's changes, and what is
 * posted waits. Who pauses several posts VCPU_REQ_PAUSE to all of them first, so that they stop at the same time. Without a
 * thread, or paused already, it does nothing. resume: it goes on, first with a look at the local timer. */
void vcpu_pause(struct vcpu *vcpu);
void vcpu_resume(struct vcpu *vcpu);
/* Runs fn on the thread of a paused vCPU, which stays paused, and returns when that is done. */
void vcpu_call(struct vcpu *vcpu, void (*fn)(struct vcpu *vcpu, void *opaque), void *opaque);

/* Any thread: nanoseconds of processor time that the thread has used so far, in this life; 0 without one. */
u64 vcpu_cpu_ns(const struct vcpu *vcpu);

static inline u64 vcpu_rdtsc(void)
{
	return __builtin_ia32_rdtsc();
}
