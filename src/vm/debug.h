/* Debugging a guest from outside, unseen by it: breakpoints, watchpoints, single steps.
 *
 * The debugger is on the main thread. While all vCPUs are paused it changes vm->debug and the debug.action of each vCPU, and
 * tells the engine by engine->debug(). A vCPU with a reason to stop writes it into its debug.why, leaves run() with
 * RUN_DEBUG, and waits until it is paused; the debugger hears of it through stopped(). Nothing of the guest's is used for this:
 * no byte of its memory, no debug register, no flag. Addresses are linear, in whatever address space is the current one.
 */
#pragma once

#include <stdatomic.h>

#include "base/types.h"

struct vcpu;

#define DEBUG_MAX_CODE     1024
#define DEBUG_MAX_DATA     64
#define DEBUG_MAX_DATA_LEN MiB

enum debug_kind { DEBUG_WRITE = 1, DEBUG_READ = 2, DEBUG_ACCESS = 3 };

struct debug_data {
	gva_t addr;
	u64 len; /* 1..DEBUG_MAX_DATA_LEN; the range does not wrap */
	enum debug_kind kind;
};

struct vm_debug {
	gva_t code[DEBUG_MAX_CODE]; /* ascending */
	u32 nr_code;
	struct debug_data data[DEBUG_MAX_DATA];
	u32 nr_data;
	_Atomic bool crash_stops;      /* a triple fault stops its vCPU instead of ending the machine */
	void (*stopped)(void *opaque); /* on any vCPU's thread: some debug.why was set */
	void *opaque;
};

enum debug_action {
	DEBUG_GO,
	DEBUG_STEP, /* one instruction, or the beginning of what an event leads to; interrupts wait unless the vCPU does */
	DEBUG_HOLD, /* stay where it is */
};

enum debug_why { DEBUG_NONE, DEBUG_AT_CODE, DEBUG_AT_DATA, DEBUG_STEPPED, DEBUG_CRASHED };

/* A vCPU's. Written by its thread while it runs, by the main thread while it is paused. */
struct debug_vcpu {
	enum debug_action action;
	enum debug_why why;
	enum debug_kind kind; /* AT_DATA: of the watchpoint, and where the access met it */
	gva_t addr;
};

/* The index of the first breakpoint at or above la. */
static inline u32 debug_code_from(const struct vm_debug *d, gva_t la)
{
	u32 lo = 0, hi = d->nr_code;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (d->code[mid] < la)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static inline bool debug_has_code(const struct vm_debug *d, gva_t la)
{
	u32 k = debug_code_from(d, la);

	return k < d->nr_code && d->code[k] == la;
}

/* Is there a breakpoint in la's 4 KiB page? */
static inline bool debug_code_in_page(const struct vm_debug *d, gva_t la)
{
	u32 k = debug_code_from(d, la & ~0xfffull);

	return k < d->nr_code && !((d->code[k] ^ la) >> 12);
}

/* The first watchpoint of one of the kinds that [la, la + len) touches, or NULL. */
static inline const struct debug_data *debug_find_data(const struct vm_debug *d, gva_t la, u64 len,
						       unsigned kinds)
{
	for (u32 k = 0; k < d->nr_data; k++) {
		const struct debug_data *p = &d->data[k];

		if (p->kind & kinds && (la - p->addr < p->len || p->addr - la < len))
			return p;
	}
	return NULL;
}

/* On the vCPU's thread, after debug.why was set. */
void debug_stopped(struct vcpu *vcpu);

/* Main thread, all vCPUs paused. -EINVAL: such a watchpoint cannot be; -ENOSPC: no more of these. What is there already, or is
 * not there to be deleted, is no error. */
int debug_add_code(struct vm_debug *d, gva_t addr);
void debug_del_code(struct vm_debug *d, gva_t addr);
int debug_add_data(struct vm_debug *d, const struct debug_data *data);
void debug_del_data(struct vm_debug *d, const struct debug_data *data);
