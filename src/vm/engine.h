/* An engine executes guest instructions: `soft` everywhere, `kvm` where the host has it.
 * An engine never sees a device; it asks exit_dispatch(), irq_*() and vm->ram. */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "x86/regs.h"

struct vm;
struct vcpu;
struct engine_conf;

/* Why run() came back. */
enum run_end {
	RUN_REQUEST,  /* a mailbox bit the common loop handles (STOP, PAUSE, INIT, SIPI) is set */
	RUN_HLT,      /* waits; the state is after HLT */
	RUN_SHUTDOWN, /* triple fault; the engine has described it through vm_crash() */
	RUN_DEBUG,    /* vcpu->debug.why says why */
};

/* A figure; the name is of lower-case letters, digits and underscores. */
struct engine_stat {
	const char *name;
	u64 value;
};
#define ENGINE_MAX_STATS 64

struct engine_wait {
	u64 count, ns;
};

struct engine_ops {
	const char *name;
	bool large_pages; /* guest memory should be in large pages of the host's */
	/* Can this host run it? 0, or -errno with one sentence why not. Any thread. */
	int (*probe)(struct err *err);
	/* The features (bitmap of enum x86_feature, 4 words) this engine can execute on this host, run like that. */
	void (*features)(const struct engine_conf *conf, u64 ret_features[4]);
	/* vm->ram, vm->cpuid exist; vCPUs do not. Sets vm->engine_vm. Main thread. */
	int (*vm_init)(struct vm *vm, struct err *err);
	void (*vm_fini)(struct vm *vm); /* accepts a half-built one */
	/* Main thread. Sets vcpu->engine. */
	int (*vcpu_init)(struct vcpu *vcpu, struct err *err);
	void (*vcpu_fini)(struct vcpu *vcpu);
	/* On the vCPU's thread: executes until something in enum run_end. Takes INTR, NMI,
	 * and TIMER requests itself. */
	enum run_end (*run)(struct vcpu *vcpu);
	/* The only call from other threads: makes run() look at the mailbox soon. NULL: it polls. */
	void (*kick)(struct vcpu *vcpu);
	/* The whole architectural state. On the vCPU's thread, or while it is stopped.
	 * get fails only where the host does. set checks the combination (-EINVAL with a sentence) and drops every cached
	 * translation of addresses. */
	int (*get_state)(struct vcpu *vcpu, struct x86_state *ret_state, struct err *err);
	int (*set_state)(struct vcpu *vcpu, const struct x86_state *state, struct err *err);
	/* Notes of which pages the guest writes (vm/dirty.h): begins, or ends. vCPUs are paused, or there are none. On failure nothing
	 * has changed. Main thread. NULL: nothing to do, this engine calls ram_mark_dirty() at the first write to a
	 * page after VCPU_REQ_FLUSH. */
	int (*dirty_set)(struct vm *vm, bool on, struct err *err);
	/* Brings what it knows of such pages to ram_mark_dirty(), and notes their next writes anew. vCPUs are paused. Main thread. NULL
	 * with dirty_set. */
	int (*dirty_sync)(struct vm *vm, struct err *err);
	/* An engine may have local APICs of its own, and the other interrupt controllers, too. inside: it takes them from the devices, and
	 * vm->apics is set; its run() then waits for interrupts and start-up IPIs by itself. Else they go back as they are now. vCPUs
	 * are parked or have no thread, and whatever state they were given last is in the engine. Main thread. NULL: it has none. */
	int (*apics)(struct vm *vm, bool inside, struct err *err);
	/* Writes that the engine may have kept (bus_late()) have reached their devices when it returns. Any thread, without a
	 * device's lock. NULL: it keeps none. */
	void (*settle)(struct vm *vm);
	/* Would it have them on this host, or, all: all interrupt controllers? Any thread. NULL with apics */
	bool (*own_apics)(bool all);
	/* What a guest finds with conf's nested=on, to run guests itself: "SVM" or "VMX"; NULL with a sentence if this host has neither for
	 * it. Any thread. NULL: this engine never has. */
	const char *(*nested)(const struct engine_conf *conf, struct err *err);
	/* What the engine counted of its own work on a vCPU: rows for the table of exits; how many. Any thread.
	 * May be NULL. */
	unsigned (*stats)(struct vcpu *vcpu, struct engine_stat ret[ENGINE_MAX_STATS]);
	/* How it has waited in HLT by itself, inside of run(), since the vCPU was made. False: it comes back to wait, or does not know. Any
	 * thread, a little old. NULL: it comes back. */
	bool (*waited)(struct vcpu *vcpu, struct engine_wait *ret_wait);
	/* Instructions begun so far; *ret_exact: that is all of them, else at least so many. Any thread, a little old. NULL: not
	 * known. */
	u64 (*insns)(struct vcpu *vcpu, bool *ret_exact);
	/* Main thread, while the vCPU is paused: vm->debug or vcpu->debug.action is another one now. NULL: this engine cannot be
	 * debugged. */
	void (*debug)(struct vcpu *vcpu);
	/* Where the linear address la is, by the vCPU's page tables, whatever their rights; no side effect. False: nowhere. While
	 * the vCPU is paused. NULL with debug. */
	bool (*translate)(struct vcpu *vcpu, gva_t la, gpa_t *ret_gpa);
	/* The speed of this host, for the choice by --engine auto: a small guest is run, and what an instruction took
	 * given in picoseconds. -errno with a sentence where that does not work. Main thread. NULL: as fast as it is. */
	int (*trial)(u64 *ret_ps, struct err *err);
	/* Carries a vCPU of another engine over an instruction that that one cannot execute: begins with the one at
	 * state's RIP and leaves in state what comes after it, an exception's delivery included. Devices, exits
	 * and interrupts are the vCPU's own; the guest's memory may change in any way between two calls. *carrier is
	 * NULL at the first call, then this engine's. *ret_end: RUN_REQUEST (go on), RUN_HLT or RUN_SHUTDOWN. On
	 * the vCPU's thread. Features that the CPU model lacks are no reason for #UD. carry_end frees a carrier. NULL: this engine
	 * cannot. */
	int (*carry)(struct vcpu *vcpu, void **carrier, struct x86_state *state, enum run_end *ret_end,
		     struct err *err);
	void (*carry_end)(void *carrier);
};

/* Whose interrupt controllers a guest under KVM has. */
enum engine_irqchip {
	IRQCHIP_AUTO,  /* split where the host offers it */
	IRQCHIP_USER,  /* all are the machine's devices */
	IRQCHIP_SPLIT, /* the local APICs are KVM's */
	IRQCHIP_FULL,  /* all are */
};

/* How an engine runs, from `--engine NAME,KEY=VALUE,...`. */
struct engine_conf {
	bool translate; /* soft: translate warm code (else interpret only); default true */
	/* soft: run every translated block in the interpreter too, stop at the first difference; default false */
	bool lockstep;
	bool pic; /* soft: translate all code of the lower half for any address, not just what is met at several; default false */
	bool perf_map; /* soft: write /tmp/perf-PID.map, so that perf names translated code; default false */
	u32 cache; /* soft: MiB for decoded and translated code, at most; 0: the engine's own choice (default) */
	enum engine_irqchip irqchip; /* kvm; default auto */
	/* kvm: doorbells (struct bus_late) are taken by the kernel and answered by the main thread, while the vCPU goes on; default false */
	bool ioeventfd;
	bool irqfd; /* kvm: messages go to its local APICs, where the guest has those, by eventfd; default false */
	bool nested; /* kvm: the guest's processor has SVM or VMX, as KVM offers it; default false */
	u32 warm; /* soft: executions after which a block is translated; 0: the engine's own choice (default) */
};

extern const struct engine_ops soft_engine, kvm_engine;

void engine_conf_init(struct engine_conf *ret_conf); /* the defaults */

/* Takes `NAME` or `NAME,KEY=VALUE,...` apart; of a key given twice the last one stands. Whether there is such an
 * engine is for engine_select() to say. -EINVAL for a key or a value that is not known. */
int engine_conf_parse(const char *text, char *ret_name, size_t name_len, struct engine_conf *ret_conf,
		      struct err *err);

/* Has `engine` what conf asks for and a guest would miss? -ENOTSUP with a sentence if not. why: of its choice, by engine_select(). */
int engine_conf_check(const struct engine_conf *conf, const struct engine_ops *engine, const char *why,
		      struct err *err);

/* Does an engine whose trial() finds this take longer than the software engine? A processor that runs guests takes a fraction of it,
 * an emulator many times as much; the software engine, when it has translated the code, about a third. */
#define ENGINE_SLOW_PS 3000u

/* `name`: auto, soft or kvm. The engine, and in ret_why one line on why this one (empty when asked for by
 * name). auto takes kvm where its trial says that the host's processor runs guests, else soft. An unknown name, or an
 * engine that this host does not have, is an error. */
const struct engine_ops *engine_select(const char *name, char *ret_why, size_t why_len, struct err *err);
