/* KVM's local APICs for a guest: irqchip=split [KVM api 7.5, KVM_CAP_SPLIT_IRQCHIP], or with all the others, irqchip=full
 * (kvm_irqchip.c).
 *
 * With them the kernel answers accesses to the local APIC, delivers its timer and messages between processors, waits in HLT and
 * for start-up IPIs, all without a return from KVM_RUN. With irqchip=split the 8259A pair and the I/O APIC stay the machine's devices;
 * what is said below of ends of interrupts and of the 8259A's vectors is for that.
 *
 * Whose state. While vCPUs run (vm->apics is set) KVM has the local APICs, else the devices: kvm_apic_move() carries all of
 * them over, with intc_lock held, so that no message falls between. So whoever looks at a machine that stands still (a reset,
 * another engine, whoever saves its state) finds it in the devices, as with any other engine.
 *
 * The record of stolen time goes with them (vm/pv.h).
 *
 * Messages. Whatever sends one (MSI, I/O APIC) comes to send(), and KVM_SIGNAL_MSI has delivered it when it returns. With
 * irqfd=on an eventfd may take its place (kvm_irqfd.c), which is no faster; its interrupt may still be under way then, and is there
 * before the state is read.
 *
 * Ends of interrupts. The I/O APIC must hear of those of its level-triggered entries. KVM leaves the guest for vectors that
 * are in its table of routes among the first IRQ_NR_GSI, so the table has those entries' messages and no others [KVM api 4.52].
 *
 * The 8259A's vectors are put into the queue of what is being delivered, not handed over by KVM_INTERRUPT: a vector that was
 * given so, and which the guest has not got yet, would be in no state that KVM gives.
 *
 * DEVIATION: pin LINT0 is the 8259A's (ExtINT) or nothing; a message of delivery mode ExtINT is lost; version registers show
 * that EOIs can be kept from the I/O APIC while KVM has the local APICs. An MSR of the deadline, of the APIC's base or of the EOI without an
 * exit is not accounted, as it does not leave the guest; KVM's own figures have the sum.
 *
 * Main thread, or with intc_lock held; the last four functions of kvm.h's list on the vCPU's thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/kvm/kvm.h"
#include "vm/irq.h"
#include "vm/pv.h"
#include "x86/defs.h"

#define REG_STRIDE 16 /* bytes from one register to the next in the page */
#define REG_ISR    0x10
#define REG_IRR    0x20
#define NR_MSRS    3

_Static_assert(sizeof(struct kvm_lapic_state) == IRQ_APIC_REG * REG_STRIDE, "registers of a local APIC");

/* --- one local APIC, between KVM and struct apic_state --- */
/* The base says which mode the registers are of, so it goes first; the deadline is one in that mode of the timer, so it
 * goes last. */
static int set_msr(struct kvm_cpu *k, u32 nr, u64 val, struct err *err)
{
	union kvm_msr_args m = { .room = { 0 } };
	int r;

	m.head.nmsrs = 1;
	m.head.entries[0].index = nr;
	m.head.entries[0].data = val;
	r = KVM_CALL(k->fd, KVM_SET_MSRS, &m, err);
	if (r == 0)
		return err_set(err, -EINVAL, "the host's KVM refuses to take MSR %#x (%#llx)", nr,
			       (unsigned long long)val);
	return MIN(r, 0);
}

static int set_apic(struct kvm_cpu *k, const struct apic_state *apic, struct err *err)
{
	struct kvm_lapic_state page = { 0 };
	int r = set_msr(k, MSR_APIC_BASE, apic->base, err);

	for (unsigned i = 0; i < IRQ_APIC_REG; i++)
		memcpy(page.regs + i * REG_STRIDE, &apic->reg[i], sizeof(apic->reg[i]));
	if (r >= 0)
		r = KVM_CALL(k->fd, KVM_SET_LAPIC, &page, err);
	if (r >= 0)
		r = set_msr(k, MSR_KVM_PV_EOI, apic->eoi_msr, err);
	if (r >= 0 && apic->deadline)
		r = set_msr(k, MSR_TSC_DEADLINE, apic->deadline, err);
	return r;
}

/* --- the record of stolen time, which the thread that waits in the kernel cannot keep --- */
static int set_record(struct kvm_cpu *k, struct err *err)
{
	struct vm *vm = k->vcpu->vm;

	return k->kvm->steal && vm->pv
		       ? set_msr(k, MSR_KVM_STEAL_TIME, vm->pv->get_record(vm->pv_opaque, k->vcpu), err)
		       : 0;
}

static int get_record(struct kvm_cpu *k, struct err *err)
{
	struct vm *vm = k->vcpu->vm;
	union kvm_msr_args m = { .room = { 0 } };
	int r;

	if (!k->kvm->steal || !vm->pv)
		return 0;
	m.head.nmsrs = 1;
	m.head.entries[0].index = MSR_KVM_STEAL_TIME;
	r = KVM_CALL(k->fd, KVM_GET_MSRS, &m, err);
	if (r > 0)
		vm->pv->set_record(vm->pv_opaque, k->vcpu, m.head.entries[0].data);
	return MIN(r, 0);
}

static int get_apic(struct kvm_cpu *k, struct apic_state *ret_apic, struct err *err)
{
	union kvm_msr_args m = { .room = { 0 } };
	struct kvm_lapic_state page;
	const u32 msr[NR_MSRS] = { MSR_APIC_BASE, MSR_TSC_DEADLINE, MSR_KVM_PV_EOI };
	int r;

	m.head.nmsrs = NR_MSRS;
	for (unsigned i = 0; i < NR_MSRS; i++)
		m.head.entries[i].index = msr[i];
	r = KVM_CALL(k->fd, KVM_GET_MSRS, &m, err);
	if (r >= 0 && r < NR_MSRS)
		r = err_set(err, -EINVAL, "the host's KVM refuses to read MSR %#x", msr[r]);
	if (r >= 0)
		r = KVM_CALL(k->fd, KVM_GET_LAPIC, &page, err);
	if (r < 0)
		return r;
	ret_apic->base = m.head.entries[0].data;
	ret_apic->deadline = m.head.entries[1].data;
	ret_apic->eoi_msr = m.head.entries[2].data;
	for (unsigned i = 0; i < IRQ_APIC_REG; i++)
		memcpy(&ret_apic->reg[i], page.regs + i * REG_STRIDE, sizeof(ret_apic->reg[i]));
	return 0;
}

/* --- messages --- */
static unsigned send(struct vm *vm, u64 addr, u32 data)
{
	struct kvm_vm *kvm = vm->engine_vm;
	const struct kvm_msi msi = { .address_lo = (u32)addr, .address_hi = (u32)(addr >> 32), .data = data };
	int r = kvm_irqfd_send(kvm, addr, data) ? 1 : KVM_CALL(kvm->fd, KVM_SIGNAL_MSI, &msi, NULL);

	return r > 0 ? (unsigned)r : 0; /* -1: nobody is addressed */
}

/* --- ends of interrupts --- */
static int route(struct kvm_vm *kvm, struct err *err)
{
	const struct vm *vm = kvm->vm;
	union kvm_routes *old = &kvm->routes, new = { .room = { 0 } };

	for (unsigned gsi = 0; gsi < IRQ_NR_GSI; gsi++) {
		u64 addr;
		u32 data;

		if (vm->intc->route(vm->intc_opaque, gsi, &addr, &data))
			kvm_irqfd_add_route(&new.head, gsi, addr, data);
	}
	if (!memcmp(old->room, new.room, sizeof(new.room)))
		return 0;
	*old = new;
	return kvm_irqfd_set_routes(kvm, err);
}

static void rerouted(struct vm *vm)
{
	struct kvm_vm *kvm = vm->engine_vm;
	struct err err = { 0 };

	if (route(kvm, &err) < 0)
		vm_crash(vm, err.msg);
}

static const struct apic_ops split_ops = { .send = send, .rerouted = rerouted };
static const struct apic_ops full_ops = { .send = send, .set_input = kvm_irqchip_set_input };

/* --- to and fro --- */
static int move_in(struct kvm_vm *kvm, struct err *err)
{
	struct vm *vm = kvm->vm;
	struct irq_chips chips = { 0 };
	int r = kvm->full ? 0 : route(kvm, err);

	for (u32 i = 0; i < vm->nr_vcpus && r >= 0; i++) {
		struct apic_state apic = { 0 };

		vm->intc->get_apic(vm->intc_opaque, vm->vcpu[i], &apic);
		/* The deadline is one of that TSC. */
		r = kvm_state_set_tsc(vm->vcpu[i]->engine, err);
		if (r >= 0)
			r = set_apic(vm->vcpu[i]->engine, &apic, err);
		if (r >= 0)
			r = set_record(vm->vcpu[i]->engine, err);
	}
	if (r >= 0 && kvm->full) { /* after them, to which it sends */
		vm->intc->get_chips(vm->intc_opaque, &chips);
		r = kvm_irqchip_set(kvm, &chips, err);
	}
	if (r < 0)
		return r;
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		vm->vcpu[i]->timer_tsc = ~0ull;
	vm->apics = kvm->full ? &full_ops : &split_ops;
	return 0;
}

/* Ends of interrupts that KVM has not come to report before the run ended: vectors of routes that are neither waiting nor in
 * service any more. For one that was not even sent that says nothing new. */
static void report_ends(struct kvm_vm *kvm, const u32 busy[8])
{
	for (u32 i = 0; i < kvm->routes.head.nr; i++) {
		u8 vector = (u8)kvm->routes.head.entries[i].u.msi.data;

		if (!(busy[vector / 32] >> vector % 32 & 1))
			kvm->vm->intc->eoi(kvm->vm->intc_opaque, vector);
	}
}

static int move_out(struct kvm_vm *kvm, struct err *err)
{
	struct vm *vm = kvm->vm;
	u32 busy[8] = { 0 };
	struct irq_chips chips = { 0 };
	int r = kvm_irqfd_drop(kvm, err);

	if (r >= 0 && kvm->full)
		r = kvm_irqchip_get(kvm, &chips, err);
	vm->apics = NULL;
	for (u32 i = 0; i < vm->nr_vcpus && r >= 0; i++) {
		struct apic_state apic;

		r = get_apic(vm->vcpu[i]->engine, &apic, err);
		if (r >= 0)
			vm->intc->set_apic(vm->intc_opaque, vm->vcpu[i], &apic);
		for (unsigned k = 0; k < ARRAY_SIZE(busy) && r >= 0; k++)
			busy[k] |= apic.reg[REG_ISR + k] | apic.reg[REG_IRR + k];
		if (r >= 0)
			r = get_record(vm->vcpu[i]->engine, err);
	}
	if (r < 0)
		return r;
	if (kvm->full)
		vm->intc->set_chips(vm->intc_opaque, &chips);
	else
		report_ends(kvm, busy);
	return 0;
}

int kvm_apic_move(struct vm *vm, bool inside, struct err *err)
{
	struct kvm_vm *kvm = vm->engine_vm;
	int r;

	if (!kvm->split || !vm->intc || inside == (vm->apics != NULL))
		return 0;
	pthread_mutex_lock(&vm->intc_lock);
	r = inside ? move_in(kvm, err) : move_out(kvm, err);
	pthread_mutex_unlock(&vm->intc_lock);
	return r;
}

/* --- a VM --- */
static const int needed[] = { KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_SIGNAL_MSI, KVM_CAP_IRQ_ROUTING,
			      KVM_CAP_MP_STATE, KVM_CAP_TSC_DEADLINE_TIMER };

bool kvm_apic_offered(int fd)
{
	for (unsigned i = 0; i < ARRAY_SIZE(needed); i++)
		if (!kvm_sys_cap(fd, needed[i]))
			return false;
	return true;
}

int kvm_apic_init(struct kvm_vm *kvm, int sys_fd, struct err *err)
{
	const struct kvm_enable_cap cap = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args[0] = IRQ_NR_GSI };
	enum engine_irqchip wanted = kvm->vm->engine_conf.irqchip;
	int r;

	if (wanted == IRQCHIP_USER)
		return 0;
	if (!kvm_apic_offered(kvm->fd))
		return wanted == IRQCHIP_AUTO
			       ? 0
			       : err_set(err, -ENOTSUP,
					 "this host's KVM has no local APICs for a guest whose other interrupt controllers "
					 "it has not; use --engine kvm,irqchip=user");
	r = wanted == IRQCHIP_FULL ? kvm_irqchip_init(kvm, err)
				   : KVM_CALL(kvm->fd, KVM_ENABLE_CAP, &cap, err);
	kvm->split = r >= 0;
	kvm->steal = kvm->split && kvm_cpuid_keeps_record(sys_fd);
	return r < 0 ? r : kvm_irqfd_init(kvm, err);
}

/* --- a vCPU --- */
static const u8 activity_of[] = {
	[KVM_MP_STATE_RUNNABLE] = X86_ACTIVE,         [KVM_MP_STATE_UNINITIALIZED] = X86_WAIT_SIPI,
	[KVM_MP_STATE_INIT_RECEIVED] = X86_WAIT_SIPI, [KVM_MP_STATE_HALTED] = X86_HLT,
	[KVM_MP_STATE_SIPI_RECEIVED] = X86_ACTIVE, /* KVM goes by it before it says so */
};

int kvm_apic_get_activity(struct kvm_cpu *k, struct err *err)
{
	struct kvm_mp_state mp;
	int r;

	if (!k->kvm->split)
		return 0;
	r = KVM_CALL(k->fd, KVM_GET_MP_STATE, &mp, err);
	if (r < 0 || k->activity == X86_SHUTDOWN) /* KVM has no such state */
		return r;
	if (mp.mp_state >= ARRAY_SIZE(activity_of))
		return err_set(err, -EINVAL,
			       "the host's KVM has vCPU %u in state %u, which bothy does not know",
			       k->vcpu->id, mp.mp_state);
	k->activity = activity_of[mp.mp_state];
	return 0;
}

int kvm_apic_set_activity(struct kvm_cpu *k, struct err *err)
{
	static const u8 state_of[] = {
		[X86_ACTIVE] = KVM_MP_STATE_RUNNABLE,
		[X86_HLT] = KVM_MP_STATE_HALTED,
		[X86_WAIT_SIPI] = KVM_MP_STATE_INIT_RECEIVED,
		[X86_SHUTDOWN] = KVM_MP_STATE_RUNNABLE,
	};
	const struct kvm_mp_state mp = { .mp_state = state_of[k->activity] };

	return k->kvm->split ? KVM_CALL(k->fd, KVM_SET_MP_STATE, &mp, err) : 0;
}

int kvm_apic_rearm(struct kvm_cpu *k, struct err *err)
{
	union kvm_msr_args m = { .room = { 0 } };
	int r;

	if (!k->kvm->split || !k->vcpu->vm->apics)
		return 0;
	m.head.nmsrs = 1;
	m.head.entries[0].index = MSR_TSC_DEADLINE;
	r = KVM_CALL(k->fd, KVM_GET_MSRS, &m, err);
	if (r > 0 && m.head.entries[0].data)
		r = KVM_CALL(k->fd, KVM_SET_MSRS, &m, err);
	return MIN(r, 0);
}

int kvm_apic_extint(struct kvm_cpu *k, u8 vector, struct err *err)
{
	struct kvm_vcpu_events e;
	int r = KVM_CALL(k->fd, KVM_GET_VCPU_EVENTS, &e, err);

	e.interrupt.injected = 1;
	e.interrupt.nr = vector;
	e.interrupt.soft = 0;
	e.flags = 0;
	if (r >= 0)
		r = KVM_CALL(k->fd, KVM_SET_VCPU_EVENTS, &e, err);
	k->activity = X86_ACTIVE;
	return r < 0 ? r : kvm_apic_set_activity(k, err);
}
