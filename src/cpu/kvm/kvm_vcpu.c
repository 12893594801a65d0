/* A vCPU under KVM: requests, interrupts, KVM_RUN, and what made it come back.
 *
 * Mailbox. The thread says in_run, looks at the mailbox, and enters KVM_RUN; who posts afterwards sees in_run and sends
 * the signal (kvm_sys.c). Both are sequentially consistent, so a post is either seen here or ends the run. The
 * local APIC's deadline rings as the same signal, from a timer of the host's.
 *
 * Interrupts. While `look` is set the controllers may have a vector. It is acknowledged and given to KVM only when KVM
 * has said that the guest can take one now; until then KVM is asked to come back as soon as that is so
 * (an interrupt window). CR8 is in the run structure in both directions.
 *
 * With KVM's own local APICs (kvm_apic.c) only vectors of the 8259A pair go that way, or none (kvm_irqchip.c); HLT and the wait for a start-up IPI are inside of
 * KVM_RUN, which a request ends as well.
 *
 * Unfinished instructions. KVM completes what has left the guest (a port's value into its register, the step over the
 * instruction) at the next KVM_RUN. So before the state is looked at there is one more, which immediate_exit ends at once.
 *
 * Fallback. KVM has an emulator of its own for instructions that touch devices, and on some hosts for whole modes of
 * the guest. What that does not know is executed by the other engine, one instruction on the same state.
 *
 * On the vCPU's thread, but for the kick.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "cpu/kvm/kvm.h"
#include "vm/irq.h"
#include "vm/pv.h"
#include "x86/defs.h"

enum next { GO_ON, HALTED, FAILED };

#define LEAVING (VCPU_REQ_STOP | VCPU_REQ_PAUSE | VCPU_REQ_OFF | VCPU_REQ_INIT | VCPU_REQ_SIPI)
#define OURS    (VCPU_REQ_INTR | VCPU_REQ_NMIS | VCPU_REQ_TIMER | VCPU_REQ_KICK | VCPU_REQ_FLUSH)

#define KVM_EPERM 1 /* of hypercalls [Linux Documentation/virt/kvm/x86/hypercalls.rst] */

/* --- the end of a guest --- */
/* The host's KVM, or what it was asked to do, cannot go on. */
static enum next broken(struct kvm_cpu *k, const char *why)
{
	char text[4096];
	struct x86_state s;
	int n = snprintf(text, sizeof(text), "vCPU %u cannot go on under KVM: %s\n", k->vcpu->id, why);

	if (!kvm_state_get(k, &s, NULL))
		x86_state_describe(&s, text + n, sizeof(text) - (size_t)n);
	vm_crash(k->vcpu->vm, text);
	return FAILED;
}

static enum next triple_fault(struct kvm_cpu *k)
{
	char text[4096];
	struct x86_state s;
	int n = snprintf(text, sizeof(text), "triple fault on vCPU %u\n", k->vcpu->id);

	exit_account(k->vcpu, EXIT_TRIPLE_FAULT, EXIT_NO_KEY, 0);
	if (!kvm_state_get(k, &s, NULL))
		x86_state_describe(&s, text + n, sizeof(text) - (size_t)n);
	vm_crash(k->vcpu->vm, text);
	return FAILED;
}

/* --- time --- */
void kvm_vcpu_drop_timer(struct kvm_cpu *k)
{
	if (k->has_timer)
		timer_delete(k->timer);
	k->has_timer = false;
	k->armed_tsc = ~0ull;
}

/* So that KVM_RUN ends at the local APIC's deadline. One that moves away costs a signal for nothing. */
static void arm_timer(struct kvm_cpu *k)
{
	u64 deadline = k->vcpu->timer_tsc, now = vcpu_rdtsc(), ticks = deadline > now ? deadline - now : 0,
	    ns;
	struct itimerspec its = { 0 };

	if (deadline >= k->armed_tsc && k->armed_tsc > now)
		return;
	k->armed_tsc = deadline;
	if (deadline == ~0ull)
		return;
	if (!k->has_timer) {
		struct sigevent sev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KVM_SYS_SIGNAL };

		sev._sigev_un._tid = k->tid;
		k->has_timer = timer_create(CLOCK_MONOTONIC, &sev, &k->timer) == 0;
	}
	ns = (u64)((unsigned __int128)ticks * 1000000 / k->vcpu->vm->tsc_khz) + 1;
	its.it_value.tv_sec = (time_t)(ns / 1000000000);
	its.it_value.tv_nsec = (long)(ns % 1000000000);
	if (k->has_timer)
		timer_settime(k->timer, 0, &its, NULL);
}

/* --- requests and interrupts --- */
/* What is memory may have changed. KVM drops what it has cached of the guest's page tables when CR4.PGE changes
 * [SDM3 4.10.4.1]. */
static int flush(struct kvm_cpu *k, struct err *err)
{
	struct kvm_sregs sregs = { 0 };
	int r = kvm_memory_follow(k->kvm, err);

	if (r >= 0)
		r = KVM_CALL(k->fd, KVM_GET_SREGS, &sregs, err);
	for (unsigned i = 0; i < 2 && r >= 0; i++) {
		sregs.cr4 ^= CR4_PGE;
		r = KVM_CALL(k->fd, KVM_SET_SREGS, &sregs, err);
	}
	return r;
}

static int take_requests(struct kvm_cpu *k, struct err *err)
{
	u32 bits = vcpu_take(k->vcpu, OURS);
	int r = 0;

	if (bits & VCPU_REQ_INTR)
		k->look = true;
	if (bits & VCPU_REQ_KICK)
		k->vcpu->kicked = true;
	if (bits & VCPU_REQ_NMIS && !k->kvm->split) /* else KVM wakes it, if it waits for that */
		k->activity = X86_ACTIVE;
	for (u8 n = vcpu_nmis(bits, 0, false); n-- && r >= 0;) /* KVM knows how many a processor remembers */
		r = KVM_CALL(k->fd, KVM_NMI, NULL, err);
	if (r >= 0 && bits & VCPU_REQ_FLUSH)
		r = flush(k, err);
	return r;
}

/* Gives KVM a vector, if there is one and the guest can take it; else asks for the moment when it can. */
static int offer_interrupt(struct kvm_cpu *k, struct err *err)
{
	struct kvm_run *run = k->run;
	struct kvm_interrupt intr;
	u64 t0 = vcpu_rdtsc();
	int vector, r = 0;

	run->request_interrupt_window = 0;
	if (!k->look || k->kvm->full)
		return 0;
	/* A guest's guest may have IF = 0, and be left for an interrupt. */
	if (run->ready_for_interrupt_injection && (run->if_flag || k->nested)) {
		vector = irq_ack(k->vcpu);
		if (vector >= 0) {
			intr.irq = (u32)vector;
			r = kvm_nested_inside(k, err);
			if (r >= 0)
				r = k->kvm->split && !r ? kvm_apic_extint(k, (u8)vector, err)
							: KVM_CALL(k->fd, KVM_INTERRUPT, &intr, err);
			run->ready_for_interrupt_injection = 0;
			k->activity = X86_ACTIVE;
			exit_account(k->vcpu, EXIT_EXTINT, (u64)vector, t0);
		}
	}
	k->look = irq_pending(k->vcpu) >= 0;
	run->request_interrupt_window = k->look;
	return r;
}

/* --- exits --- */
static void exit_io(struct kvm_cpu *k)
{
	struct kvm_run *run = k->run;
	u8 *data = (u8 *)run + run->io.data_offset, size = run->io.size;
	bool write = run->io.direction == KVM_EXIT_IO_OUT;

	for (u32 i = 0; i < run->io.count; i++, data += size) {
		struct vm_exit exit = {
			.reason = EXIT_IO, .write = write, .size = size, .addr = run->io.port
		};

		if (write)
			memcpy(&exit.data, data, size);
		exit_dispatch(k->vcpu, &exit);
		if (!write)
			memcpy(data, &exit.data, size);
	}
	if (write)
		kvm_bus_learn(k->kvm, BUS_PIO, run->io.port);
}

/* The bus knows powers of two; what KVM makes of an access across an edge may be none. */
static void exit_mmio(struct kvm_cpu *k)
{
	struct kvm_run *run = k->run;
	u32 len = MIN(run->mmio.len, 8u), size = len & (len - 1) ? 1 : len;

	for (u32 at = 0; at < len; at += size) {
		struct vm_exit exit = {
			.reason = EXIT_EPT_VIOLATION,
			.write = run->mmio.is_write,
			.size = (u8)size,
			.addr = run->mmio.phys_addr + at,
		};

		if (exit.write)
			memcpy(&exit.data, run->mmio.data + at, size);
		exit_dispatch(k->vcpu, &exit);
		if (!exit.write)
			memcpy(run->mmio.data + at, &exit.data, size);
	}
	if (run->mmio.is_write)
		kvm_bus_learn(k->kvm, BUS_MMIO, run->mmio.phys_addr);
	k->look = true; /* it may have been the local APIC */
}

/* VMCALL and VMMCALL, in the registers of KVM's protocol; KVM hands them over as if they were Xen's. */
static int exit_hypercall(struct kvm_cpu *k, struct err *err)
{
	struct kvm_run *run = k->run;
	bool is_long = run->xen.u.hcall.longmode;
	u64 mask = is_long ? ~0ull : 0xffffffff;
	struct kvm_regs regs;
	int r = KVM_CALL(k->fd, KVM_GET_REGS, &regs, err);
	struct vm_exit exit = { .reason = EXIT_VMCALL, .is_long = is_long };

	if (r < 0)
		return r;
	exit.addr = regs.rax & mask;
	memcpy(exit.arg, (const u64[]){ regs.rbx & mask, regs.rcx & mask, regs.rdx & mask, regs.rsi & mask },
	       sizeof(exit.arg));
	if (run->xen.u.hcall.cpl == 0) {
		exit_dispatch(k->vcpu, &exit);
	} else {
		exit.data = (u64)-KVM_EPERM;
		exit_account(k->vcpu, EXIT_VMCALL, exit.addr, 0);
	}
	run->xen.u.hcall.result = exit.data & mask;
	return 0;
}

/* The instruction at RIP by the other engine. */
static enum next carry(struct kvm_cpu *k, struct err *err)
{
	u64 t0 = vcpu_rdtsc(), rip;
	enum run_end end = RUN_REQUEST;
	struct x86_state before, s;
	int r = kvm_state_get(k, &before, err);

	if (r < 0)
		return FAILED;
	s = before;
	rip = s.rip;
	if (kvm_nested_events(&s)) { /* the other engine would not find the guest's guest's memory */
		r = kvm_nested_undefined(k, err);
		exit_account(k->vcpu, EXIT_EXCEPTION, EXC_UD, t0);
		return r < 0 ? FAILED : GO_ON;
	}
	s.virt.nested = NULL; /* which that one has not */
	r = soft_engine.carry(k->vcpu, &k->carrier, &s, &end, err);
	s.virt = before.virt;
	kvm_sys_thread(k->run); /* the other engine has its own signals */
	if (r >= 0)
		r = kvm_state_change(k, &before, &s, err);
	if (r < 0)
		return FAILED;
	exit_account(k->vcpu, EXIT_CARRIED, rip, t0);
	return end == RUN_SHUTDOWN ? FAILED : GO_ON; /* a triple fault has been described */
}

static enum next exit_internal(struct kvm_cpu *k, struct err *err)
{
	const struct kvm_run *run = k->run;
	char why[120];

	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
		return carry(k, err);
	snprintf(why, sizeof(why), "its internal error %u (data %#llx, %#llx)", run->internal.suberror,
		 run->internal.ndata > 0 ? (unsigned long long)run->internal.data[0] : 0,
		 run->internal.ndata > 1 ? (unsigned long long)run->internal.data[1] : 0);
	return broken(k, why);
}

static void exit_eoi(struct kvm_cpu *k)
{
	u64 t0 = vcpu_rdtsc();
	u8 vector = k->run->eoi.vector;

	irq_eoi(k->vcpu->vm, vector);
	exit_account(k->vcpu, EXIT_EOI, vector, t0);
}

static enum next handle_exit(struct kvm_cpu *k, struct err *err)
{
	struct kvm_run *run = k->run;
	char why[120];

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		k->unfinished = true;
		exit_io(k);
		return GO_ON;
	case KVM_EXIT_MMIO:
		k->unfinished = true;
		exit_mmio(k);
		return GO_ON;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		k->unfinished = true;
		kvm_msr_exit(k);
		return GO_ON;
	case KVM_EXIT_XEN: k->unfinished = true; return exit_hypercall(k, err) < 0 ? FAILED : GO_ON;
	case KVM_EXIT_HLT: k->activity = X86_HLT; return GO_ON;
	case KVM_EXIT_IRQ_WINDOW_OPEN: exit_account(k->vcpu, EXIT_INTR_WINDOW, EXIT_NO_KEY, 0); return GO_ON;
	case KVM_EXIT_DIRTY_RING_FULL:
		exit_account(k->vcpu, EXIT_PML_FULL, EXIT_NO_KEY, 0);
		return kvm_dirty_ring_full(k, err) < 0 ? FAILED : GO_ON;
	case KVM_EXIT_SET_TPR: exit_account(k->vcpu, EXIT_CR, 8, 0); return GO_ON;
	case KVM_EXIT_IOAPIC_EOI: exit_eoi(k); return GO_ON;
	case KVM_EXIT_INTR: k->nr_interrupted++; return GO_ON;
	case KVM_EXIT_SHUTDOWN: return triple_fault(k);
	case KVM_EXIT_INTERNAL_ERROR: return exit_internal(k, err);
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(why, sizeof(why), "the processor does not enter the guest (reason %#llx)",
			 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		return broken(k, why);
	default:
		snprintf(why, sizeof(why), "an exit for reason %u, which bothy did not ask for",
			 run->exit_reason);
		return broken(k, why);
	}
}

/* --- running --- */
/* KVM_RUN. 0: handle the exit; 1: it was interrupted; or -errno. */
static int enter(struct kvm_cpu *k, struct err *err)
{
	int r = kvm_sys_ioctl(k->fd, KVM_RUN, NULL, "KVM_RUN", NULL);

	kvm_bus_settle(k->kvm, k->vcpu);
	/* EAGAIN: it has been started, or reset, by another processor. */
	if (r == -EINTR || r == -EAGAIN) {
		k->nr_interrupted++;
		return 1;
	}
	if (r < 0)
		return err_sys(err, r, "the host's KVM cannot run the guest (KVM_RUN)");
	return 0;
}

int kvm_vcpu_finish(struct kvm_cpu *k, struct err *err)
{
	while (k->unfinished) {
		int r;

		k->unfinished = false;
		__atomic_store_n(&k->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		r = enter(k, err);
		__atomic_store_n(&k->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		if (r < 0)
			return r;
		/* The rest of a long access. */
		if (r == 0 && k->run->exit_reason == KVM_EXIT_MMIO) {
			k->unfinished = true;
			exit_mmio(k);
		} else if (r == 0 && k->run->exit_reason == KVM_EXIT_IO) {
			k->unfinished = true;
			exit_io(k);
		}
	}
	return 0;
}

/* CR8 may have been written by the guest; a lower one lets more vectors in. */
static void take_cr8(struct kvm_cpu *k, u64 before)
{
	if (k->run->cr8 == before)
		return;
	irq_set_cr8(k->vcpu, k->run->cr8);
	k->look = true;
}

/* What the device of hypercalls and the timeline do where the thread comes by when the guest halts, or a start-up IPI
 * arrives. */
static void look_around(struct kvm_cpu *k)
{
	struct vm *vm = k->vcpu->vm;
	struct engine_wait wait;
	u64 now = vcpu_rdtsc();

	if (k->vcpu->id)
		timeline_started(k->vcpu);
	if (now - k->looked_tsc < vm->tsc_khz)
		return;
	k->looked_tsc = now;
	if (vm->pv && !k->kvm->steal)
		vm->pv->tick(vm->pv_opaque, k->vcpu);
	if (timeline_wants(&vm->timeline, TIMELINE_IDLE) && kvm_stats_wait(k->stats, &wait)) {
		if (wait.count > k->waits)
			timeline_note(vm, TIMELINE_IDLE);
		k->waits = wait.count;
	}
}

static enum next run_once(struct kvm_cpu *k, struct err *err)
{
	u64 cr8 = k->kvm->split ? 0 : irq_get_cr8(k->vcpu);
	int r;

	k->run->cr8 = cr8;
	k->unfinished = false;
	k->nr_runs++;
	r = enter(k, err);
	atomic_store(&k->in_run, false);
	__atomic_store_n(&k->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	if (!k->kvm->split)
		take_cr8(k, cr8);
	if (r < 0)
		return FAILED;
	if (r)
		return GO_ON;
	if (k->kvm->split)
		look_around(k);
	return handle_exit(k, err);
}

/* The thread may be another one than that of the last run. */
static void enter_thread(struct kvm_cpu *k)
{
	int tid = (int)syscall(SYS_gettid);

	if (tid == k->tid)
		return;
	kvm_vcpu_drop_timer(k);
	k->tid = tid;
	kvm_sys_thread(k->run);
}

/* KVM waits by itself, but a kick may have come before it had the vCPU. */
static int wake_kicked(struct kvm_cpu *k, struct err *err)
{
	int r;

	if (!k->vcpu->kicked)
		return 0;
	k->vcpu->kicked = false;
	r = kvm_apic_get_activity(k, err);
	if (r < 0 || k->activity != X86_HLT)
		return r;
	k->activity = X86_ACTIVE;
	return kvm_apic_set_activity(k, err);
}

/* Between two runs: GO_ON, HALTED (it waits) or FAILED. */
static enum next prepare(struct kvm_cpu *k, struct err *err)
{
	struct vcpu *vcpu = k->vcpu;
	int r;

	if (vcpu->timer_tsc <= vcpu_rdtsc())
		vcpu_timer_check(vcpu);
	r = take_requests(k, err);
	if (r >= 0 && unlikely(!k->tsc_known || k->tsc_offset != vcpu->tsc_offset))
		r = kvm_state_set_tsc(k, err);
	if (r >= 0 && !k->kvm->split && unlikely(k->apic_off != vcpu->apic_off)) {
		struct kvm_sregs sregs = { 0 };

		r = KVM_CALL(k->fd, KVM_GET_SREGS, &sregs, err);
		sregs.apic_base ^= BIT(11);
		k->apic_off = vcpu->apic_off;
		if (r >= 0)
			r = KVM_CALL(k->fd, KVM_SET_SREGS, &sregs, err);
	}
	if (r >= 0)
		r = offer_interrupt(k, err);
	if (r < 0)
		return FAILED;
	kvm_bus_follow(k->kvm);
	if (k->kvm->split)
		return wake_kicked(k, err) < 0 ? FAILED : GO_ON;
	if (k->activity == X86_HLT) {
		if (!vcpu->kicked)
			return HALTED;
		vcpu->kicked = false;
		k->activity = X86_ACTIVE;
	}
	arm_timer(k);
	return GO_ON;
}

enum run_end kvm_vcpu_run(struct kvm_cpu *k)
{
	struct vcpu *vcpu = k->vcpu;
	struct err err = { 0 };
	enum next next = GO_ON;

	enter_thread(k);
	if (k->activity == X86_SHUTDOWN)
		return RUN_SHUTDOWN;
	if (k->activity == X86_WAIT_SIPI && !k->kvm->split)
		return RUN_HLT;
	while (next == GO_ON) {
		next = prepare(k, &err);
		if (next != GO_ON)
			break;
		atomic_store(&k->in_run, true);
		if (atomic_load(&vcpu->requests)) {
			atomic_store(&k->in_run, false);
			if (atomic_load(&vcpu->requests) & LEAVING)
				break;
			continue;
		}
		next = run_once(k, &err);
	}
	if (next != FAILED && kvm_vcpu_finish(k, &err) < 0)
		next = FAILED;
	if (next == FAILED) {
		if (err.code)
			broken(k, err.msg);
		k->activity = X86_SHUTDOWN;
		return RUN_SHUTDOWN;
	}
	return next == HALTED ? RUN_HLT : RUN_REQUEST;
}

/* Any thread. */
void kvm_vcpu_kick(struct kvm_cpu *k)
{
	if (atomic_exchange(&k->in_run, false))
		syscall(SYS_tgkill, getpid(), k->tid, KVM_SYS_SIGNAL);
}
