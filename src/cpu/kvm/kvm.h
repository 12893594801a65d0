/* The KVM engine: what its files share. Nothing outside this folder includes it, and no other folder speaks to
 * /dev/kvm [Linux Documentation/virt/kvm/api.rst, cited as KVM api].
 *
 *   kvm_engine.c  the contract's table: a VM, its memory slots, its vCPUs
 *   kvm_sys.c     the device: what it offers, every ioctl
 *   kvm_memory.c  slots of memory
 *   kvm_bus.c     writes that the kernel takes
 *   kvm_dirty.c   which of its pages the guest has written
 *   kvm_cpuid.c   the CPU model's features and leaves
 *   kvm_vcpu.c    the run loop: requests, interrupts, exits
 *   kvm_apic.c    KVM's local APICs, where the guest has those
 *   kvm_irqchip.c its other interrupt controllers, likewise
 *   kvm_irqfd.c   messages to them by eventfd
 *   kvm_state.c   struct x86_state in and out
 *   kvm_msr.c     which MSRs are KVM's, which the machine's, which this engine's
 *   kvm_nested.c  a guest that runs guests itself: what of that is in no register
 *   kvm_stats.c   what KVM has counted
 *   kvm_trial.c   how fast this host's KVM is
 *
 * Whose interrupt controllers. With irqchip=user all are bothy's own: a line, a message or a timer takes the same way on both engines,
 * and KVM is told which vector to deliver, once the guest can take it. With irqchip=split (kvm_apic.c) the local APICs are
 * KVM's, and timers, ends of interrupts, messages between processors and waiting do not leave the kernel. With irqchip=full
 * (kvm_irqchip.c) so are the 8259A pair and the I/O APIC, and their registers do not, either.
 */
#pragma once

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/err.h"
#include "base/types.h"
#include "vm/vcpu.h"
#include "vm/vm.h"

#define KVM_MAX_MSRS 72

/* An argument of an ioctl that ends in a list of up to n entries: head.entries[]. Zeroed by { .room = { 0 } }. */
#define KVM_ROOM(header, entry, n)                                           \
	{                                                                    \
		struct header head;                                          \
		u8 room[sizeof(struct header) + (n) * sizeof(struct entry)]; \
	}
union kvm_msr_args KVM_ROOM(kvm_msrs, kvm_msr_entry, KVM_MAX_MSRS);

union kvm_routes KVM_ROOM(kvm_irq_routing, kvm_irq_routing_entry, IRQ_NR_INPUTS);

/* A part of memory that KVM knows. */
struct kvm_slot {
	gpa_t start, end; /* equal: free */
	bool rom;
};
#define KVM_MAX_SLOTS 48 /* sixteen of the shadow, two for each of RAM_MAX_ROMS, and what lies between */

/* What of struct ram changes while the guest runs. */
struct kvm_layout {
	u32 shadow;
	u64 rom_len, hole_end;
};

/* A message that has an eventfd. */
struct kvm_message {
	u64 addr;
	u32 data;
	int fd;
};
#define KVM_MAX_MESSAGES 64

struct kvm_vm {
	struct vm *vm;
	int fd;
	u32 run_size;   /* of the mapping of a vCPU */
	u32 xsave_size; /* of KVM_GET_XSAVE2, or of KVM_GET_XSAVE */
	bool xsave2;    /* there is KVM_GET_XSAVE2 */
	bool xcrs;      /* there is XCR0 */
	bool split;     /* the local APICs are KVM's */
	bool full;      /* and so are the 8259A pair and the I/O APIC */
	bool steal;     /* and so is the record of stolen time */
	u32 nested;     /* the guest has SVM or VMX: bytes of KVM's nested state at most; 0: it has not */
	u32 nr_msrs;    /* rows of kvm_msr.c that this host's KVM keeps, known with the first vCPU */
	u8 msr[KVM_MAX_MSRS];
	bool msrs_known;
	struct kvm_bus *bus;         /* kvm_bus.c's */
	pthread_mutex_t memory_lock; /* of what follows */
	struct kvm_slot slot[KVM_MAX_SLOTS];
	bool memory_laid; /* the slots are those of: */
	struct kvm_layout layout;
	bool dirty_on; /* RAM's slots are logged */
	bool rings;    /* by a ring for each vCPU, else by KVM's bitmaps; does not change */
	/* Under intc_lock: */
	bool learns_messages; /* new ones get an eventfd */
	u32 nr_messages;
	u64 nr_rung; /* statistics: of their eventfds */
	struct kvm_message message[KVM_MAX_MESSAGES];
	union kvm_routes routes; /* of inputs, as KVM was told last; last, for its size */
};

struct kvm_cpu {
	struct vcpu *vcpu;
	struct kvm_vm *kvm;
	int fd;
	struct kvm_run *run; /* shared with the kernel */
	/* The thread is in KVM_RUN, or has looked at the mailbox for the last time before it: a kick is a signal. */
	_Atomic bool in_run;
	int tid;                     /* of the thread that runs it; 0: none did */
	bool unfinished;             /* the last exit's instruction ends in the next KVM_RUN */
	bool look;                   /* the controllers may have a vector */
	bool tsc_exact;              /* KVM takes the TSC's offset as such */
	bool tsc_known;              /* KVM has tsc_offset */
	s64 tsc_offset;              /* that KVM has */
	bool apic_off;               /* as KVM's CPUID has it */
	u8 activity;                 /* enum x86_activity */
	u64 tsc_adjust;              /* IA32_TSC_ADJUST */
	u64 msr_given[KVM_MAX_MSRS]; /* by row of kvm_msr.c: as last set, for those that KVM does not keep */
	timer_t timer;               /* of that thread, for the local APIC's deadline */
	bool has_timer;
	u64 armed_tsc;              /* when it will ring; ~0: never */
	u8 *xsave;                  /* kvm->xsave_size bytes */
	struct kvm_nested *nested;  /* kvm_nested.c's; NULL: the guest has neither SVM nor VMX */
	struct kvm_dirty_gfn *ring; /* shared with the kernel; NULL: there is none */
	u32 ring_at;                /* what is read next; under memory_lock */
	void *carrier; /* of the other engine, for instructions that KVM cannot execute; NULL: none was needed yet */
	u64 looked_tsc;               /* when look_around() last looked */
	u64 waits;                    /* in the kernel, as look_around() saw them last; ~0: it did not */
	u64 nr_runs, nr_interrupted;  /* statistics */
	u64 nr_posted[BUS_NR_SPACES]; /* writes that came with another exit */
	struct kvm_stats *stats;      /* KVM's own; NULL: this one has none */
};

/* --- kvm_sys.c --- */
/* The signal that ends KVM_RUN: kicks, and the timer of the local APIC. */
#define KVM_SYS_SIGNAL (SIGRTMIN + 1)

/* Every ioctl of this engine. what: for the sentence, as "KVM_SET_REGS". The result, or -errno with a sentence (err may
 * be NULL). */
int kvm_sys_ioctl(int fd, unsigned long request, void *arg, const char *what, struct err *err);
#define KVM_CALL(fd, request, arg, err) kvm_sys_ioctl(fd, request, (void *)(arg), #request, err)

/* Opens /dev/kvm and checks version and needed capabilities. The descriptor, the caller's to close, or -errno. */
int kvm_sys_open(struct err *err);
/* What KVM says of a capability; 0: not offered. fd: of the device or of a VM. */
int kvm_sys_cap(int fd, int cap);
/* VMCALL can be left to the machine. */
bool kvm_sys_hypercalls(int fd);
/* Installs the handler of KVM_SYS_SIGNAL, once for the process. */
int kvm_sys_signals(struct err *err);
/* On a vCPU's thread: its signal ends this run; NULL: none. */
void kvm_sys_thread(struct kvm_run *run);

/* --- kvm_memory.c --- */
/* Gives KVM what is RAM and ROM now, if that is something else than before. Main thread, or a vCPU's between two runs. */
int kvm_memory_follow(struct kvm_vm *kvm, struct err *err);

/* Gives KVM the flags that the slots of RAM are to have now. With memory_lock held. */
int kvm_memory_set_flags(struct kvm_vm *kvm, struct err *err);

/* --- kvm_bus.c --- */
/* Before there are vCPUs. */
int kvm_bus_init(struct kvm_vm *kvm, struct err *err);
void kvm_bus_fini(struct kvm_vm *kvm); /* accepts a half-built one */
/* The vCPU's mapping is there, or goes. */
void kvm_bus_vcpu_init(struct kvm_cpu *k);
void kvm_bus_vcpu_fini(struct kvm_cpu *k);
/* Writes that the kernel has kept reach their devices, and are booked under vcpu, whose thread it is; NULL: are not booked, any
 * thread. */
void kvm_bus_settle(struct kvm_vm *kvm, struct vcpu *vcpu);
/* A write to addr has left the guest: the kernel may take the next ones. */
void kvm_bus_learn(struct kvm_vm *kvm, enum bus_space space, u64 addr);
/* Before KVM_RUN: the kernel forgets what may not come late any more. */
void kvm_bus_follow(struct kvm_vm *kvm);

/* --- kvm_dirty.c --- */
/* Before there are vCPUs. */
int kvm_dirty_init(struct kvm_vm *kvm, struct err *err);
int kvm_dirty_vcpu_init(struct kvm_cpu *k, struct err *err);
void kvm_dirty_vcpu_fini(struct kvm_cpu *k);
/* For engine_ops. */
int kvm_dirty_set(struct kvm_vm *kvm, bool on, struct err *err);
int kvm_dirty_sync(struct kvm_vm *kvm, struct err *err);
/* On the vCPU's thread: the run has ended because its ring has no room. */
int kvm_dirty_ring_full(struct kvm_cpu *k, struct err *err);

/* --- kvm_cpuid.c --- */
void kvm_cpuid_features(const struct engine_conf *conf, u64 ret_features[4]);
/* Does the model fit what this KVM shows of the processor? */
int kvm_cpuid_check(int sys_fd, const struct cpuid_table *t, struct err *err);
/* Does KVM keep the record of stolen time? */
bool kvm_cpuid_keeps_record(int sys_fd);
int kvm_cpuid_set(struct kvm_cpu *k, struct err *err);
/* For engine_ops. */
const char *kvm_cpuid_nested(const struct engine_conf *conf, struct err *err);

/* --- kvm_apic.c --- */
/* Before there are vCPUs: decides who has the local APICs. */
int kvm_apic_init(struct kvm_vm *kvm, int sys_fd, struct err *err);
/* fd: of the device or of a VM. */
bool kvm_apic_offered(int fd);
/* For engine_ops. */
int kvm_apic_move(struct vm *vm, bool inside, struct err *err);
/* What the vCPU waits for, as KVM has it. */
int kvm_apic_get_activity(struct kvm_cpu *k, struct err *err);
int kvm_apic_set_activity(struct kvm_cpu *k, struct err *err);
/* The TSC's offset is another one: the deadline is as far away as that says. */
int kvm_apic_rearm(struct kvm_cpu *k, struct err *err);
/* A vector of the 8259A pair, which the guest can take now. */
int kvm_apic_extint(struct kvm_cpu *k, u8 vector, struct err *err);

/* --- kvm_irqchip.c --- */
/* Before there are vCPUs: makes them KVM's. */
int kvm_irqchip_init(struct kvm_vm *kvm, struct err *err);
/* fd: of the device or of a VM. */
bool kvm_irqchip_offered(int fd);
/* With intc_lock held, while no vCPU runs. */
struct irq_chips;
int kvm_irqchip_set(struct kvm_vm *kvm, const struct irq_chips *chips, struct err *err);
int kvm_irqchip_get(struct kvm_vm *kvm, struct irq_chips *ret_chips, struct err *err);
/* For apic_ops. */
void kvm_irqchip_set_input(struct vm *vm, unsigned input, bool level);

/* --- kvm_irqfd.c --- */
int kvm_irqfd_init(struct kvm_vm *kvm, struct err *err);
/* A message's row in a table that has room, and was zeroed. */
void kvm_irqfd_add_route(struct kvm_irq_routing *t, u32 gsi, u64 addr, u32 data);
/* All with intc_lock held. Gives KVM the table: kvm->routes, and those of messages. */
int kvm_irqfd_set_routes(const struct kvm_vm *kvm, struct err *err);
/* False: it does not go by eventfd. */
bool kvm_irqfd_send(struct kvm_vm *kvm, u64 addr, u32 data);
/* What was sent is delivered, and there are no eventfds any more; these are closed, whatever KVM says. */
int kvm_irqfd_drop(struct kvm_vm *kvm, struct err *err);

/* --- kvm_state.c --- */
int kvm_state_get(struct kvm_cpu *k, struct x86_state *ret_state, struct err *err);
int kvm_state_set(struct kvm_cpu *k, const struct x86_state *state, struct err *err);
/* The same where KVM has `before`, as kvm_state_get() gave it: only what differs is set. */
int kvm_state_change(struct kvm_cpu *k, const struct x86_state *before, const struct x86_state *state,
		     struct err *err);
/* Gives KVM the TSC's offset that vcpu has. */
int kvm_state_set_tsc(struct kvm_cpu *k, struct err *err);
/* Finds out, on the first vCPU, whether KVM does what it is told there: vm->tsc_fixed. */
int kvm_state_try_tsc(struct kvm_cpu *k, struct err *err);

/* --- kvm_nested.c --- */
/* Before there are vCPUs, after kvm_apic_init(). */
int kvm_nested_init(struct kvm_vm *kvm, struct err *err);
int kvm_nested_vcpu_init(struct kvm_cpu *k, struct err *err);
void kvm_nested_vcpu_fini(struct kvm_cpu *k); /* accepts a half-built one */
/* Fills state->virt.nested; before the vCPU's state is set, leaves what it is in of that; and enters what state is in, once control
 * registers and MSRs are set. Nothing where the guest has neither SVM nor VMX. */
int kvm_nested_get(struct kvm_cpu *k, struct x86_state *state, struct err *err);
int kvm_nested_leave(struct kvm_cpu *k, struct err *err);
int kvm_nested_set(struct kvm_cpu *k, const struct x86_state *state, struct err *err);
/* The events in flight of a guest's guest, if state is in one; NULL: it is not. */
const struct kvm_vcpu_events *kvm_nested_events(const struct x86_state *state);
/* 1: a guest's guest runs; 0: the guest itself. */
int kvm_nested_inside(struct kvm_cpu *k, struct err *err);
/* The guest's guest gets #UD, by what the guest says of that. */
int kvm_nested_undefined(struct kvm_cpu *k, struct err *err);

/* --- kvm_msr.c --- */
/* Which accesses leave the guest. */
int kvm_msr_filter(const struct kvm_vm *kvm, struct err *err);
/* The first vCPU says which MSRs KVM keeps. */
int kvm_msr_learn(struct kvm_cpu *k, struct err *err);
int kvm_msr_get(struct kvm_cpu *k, struct x86_state *state, struct err *err);
int kvm_msr_set(struct kvm_cpu *k, const struct x86_state *state, struct err *err);
/* Answers KVM_EXIT_X86_RDMSR and _WRMSR. */
void kvm_msr_exit(struct kvm_cpu *k);

/* --- kvm_vcpu.c --- */
enum run_end kvm_vcpu_run(struct kvm_cpu *k);
void kvm_vcpu_kick(struct kvm_cpu *k);
/* An instruction that has left the guest is brought to its end, so that the state is one between two instructions. */
int kvm_vcpu_finish(struct kvm_cpu *k, struct err *err);
void kvm_vcpu_drop_timer(struct kvm_cpu *k);

/* --- kvm_stats.c --- */
#define KVM_OWN_STATS 5 /* rows in front of KVM's */
/* NULL where KVM has none. */
struct kvm_stats *kvm_stats_open(int vcpu_fd);
void kvm_stats_close(struct kvm_stats *stats); /* NULL is allowed */
/* Rows into ret, at most ENGINE_MAX_STATS - KVM_OWN_STATS; how many. Any thread. */
unsigned kvm_stats_read(const struct kvm_stats *stats, struct engine_stat *ret);

/* How often and how long the vCPU has waited in the kernel. False: KVM does not say. Any thread. */
bool kvm_stats_wait(const struct kvm_stats *stats, struct engine_wait *ret_wait);

/* --- kvm_trial.c --- */
/* A small guest, run to its exit: picoseconds an instruction. -errno with a sentence. */
int kvm_trial_run(u64 *ret_ps, struct err *err);
