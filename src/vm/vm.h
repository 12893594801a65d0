/* A virtual machine: what its parts share. Built and torn down by machine/. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/types.h"
#include "vm/bus.h"
#include "vm/debug.h"
#include "vm/engine.h"
#include "vm/irq.h"
#include "vm/ram.h"
#include "vm/timeline.h"
#include "vm/vcpu.h"
#include "x86/cpuid.h"

#define VM_MAX_VCPUS 64

/* How a VM ends, or goes on. */
enum vm_request {
	VM_REQ_NONE,
	VM_REQ_POWEROFF, /* ACPI S5 */
	VM_REQ_RESET,    /* 8042, port CF9H, ACPI reset register, triple fault where the board resets */
	VM_REQ_CRASH,    /* triple fault; vm->crash says what the guest was doing */
	VM_REQ_EXIT,     /* a test device ended the VM; status in vm->exit_status */
	VM_REQ_QUIT,     /* the user or a signal ended it */
	VM_REQ_SLEEP,    /* ACPI S3: the vCPUs stop, devices lose power, RAM stays */
	VM_REQ_WAKE,     /* the end of that */
};

struct device;
struct clock_timer;
struct pv_ops;

struct vm {
	char name[64];
	struct loop *loop;
	struct ram ram;
	struct bus bus;
	struct cpuid_table cpuid;
	const struct engine_ops *engine;
	struct engine_conf engine_conf;
	void *engine_vm;
	u32 nr_vcpus;
	struct vcpu *vcpu[VM_MAX_VCPUS];
	struct device *devices;

	pthread_mutex_t intc_lock; /* see irq.h */
	const struct intc_ops *intc;
	void *intc_opaque;
	const struct apic_ops
		*apics;          /* the engine has the local APICs; NULL: the devices have. Under intc_lock */
	struct vm_debug *debug;  /* see debug.h; NULL: nobody can */
	const struct pv_ops *pv; /* see pv.h */
	void *pv_opaque;

	u64 tsc_khz;
	/* Set by an engine that cannot give the guest another TSC than the host's: all offsets are 0, for good. */
	bool tsc_fixed;
	u64 clock_base_ns; /* os_now_ns() - guest time, while running */
	u64 clock_paused_ns;
	bool clock_paused;
	struct clock_timer *clock_timers; /* for clock.c */

	_Atomic int request; /* enum vm_request, the first one wins */
	_Atomic int exit_status;
	struct timeline timeline;
	char crash[8192]; /* a description of the crash: registers, last instructions */
};

/* Any thread: asks the main loop to act. The first request stands, but QUIT replaces RESET, SLEEP and WAKE. The vCPU that
 * asks goes on until it is stopped, so a device that powers off should not count on not being called again.
 */
void vm_request(struct vm *vm, enum vm_request req);

/* A vCPU's thread, or any while no vCPU runs: what ram_ptr() or ram_is_rom() say has changed. The vCPU whose thread this is goes
 * by it from its next access on, the others soon. */
void vm_memory_changed(struct vm *vm);

/* Writes of vCPUs that the engine has kept (bus_late()) have reached their devices when it returns. Any thread, without a device's
 * lock. */
void vm_settle(struct vm *vm);

/* Engines: a guest crash, described by text (copied), then VM_REQ_CRASH, or a stop of this vCPU for a debugger. */
void vm_crash(struct vm *vm, const char *text);
