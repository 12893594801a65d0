/* A guest under KVM that runs guests itself, by SVM or VMX (nested=on) [KVM api 4.114, 4.115].
 *
 * While its guest runs, a vCPU's registers are that guest's. What else there is (who runs, what it is to be left for, where the guest
 * itself goes on, GIF, VMXON) KVM gives as a block of its own form, which struct x86_state carries without a look into it. With it go
 * the events in flight, as KVM has them: other than the guest's own they cannot be told from the registers, as the guest has put
 * them there.
 *
 * An order that holds for SVM and VMX alike: leave all of that; set control registers, for EFER.SVME must be there, and MSRs, for
 * what VMX can is fixed while it is in use; enter; then set general registers, which are the running guest's now, and events.
 *
 * Interrupts. KVM knows whom one is for if it comes from its local APICs; one that it is told to deliver (irqchip=user) it gives to
 * whoever runs. So nested=on is to be had with those only.
 *
 * DEVIATION: a vector of the 8259A's that comes while the guest's guest runs, with irqchip=split, is KVM's until the guest takes it, and in
 * no state that KVM gives. Interrupts and exceptions by instruction (INT n) that a guest puts into its guest, and which are in
 * flight, KVM does not give, either. Last-branch records are not offered with SVM.
 *
 * On the vCPU's thread, or while it is stopped.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/kvm/kvm.h"
#include "x86/defs.h"

#define NO_VMXON (~0ull)

/* What state->virt.nested is. */
struct kvm_nested {
	struct kvm_vcpu_events events; /* of the guest's guest, if one runs */
	struct kvm_nested_state state; /* and what follows it */
};
#define EVENTS_SIZE offsetof(struct kvm_nested, state)

_Static_assert(sizeof(struct kvm_nested) == EVENTS_SIZE + sizeof(struct kvm_nested_state), "nested state");

/* --- a VM, a vCPU --- */
/* Without these KVM gives an exception that is yet to be told to the guest as one that its guest gets, and loses a triple fault
 * of that. */
static const int wanted[] = { KVM_CAP_EXCEPTION_PAYLOAD, KVM_CAP_X86_TRIPLE_FAULT_EVENT };

int kvm_nested_init(struct kvm_vm *kvm, struct err *err)
{
	const struct cpuid_table *t = &kvm->vm->cpuid;
	int size, r = 0;

	if (!cpuid_has(t, X86_FEATURE_SVM) && !cpuid_has(t, X86_FEATURE_VMX))
		return 0;
	size = kvm_sys_cap(kvm->fd, KVM_CAP_NESTED_STATE);
	if (size < (int)sizeof(struct kvm_nested_state))
		return err_set(
			err, -ENOTSUP,
			"this host's KVM does not give the state of guests that run guests; leave out nested=on");
	kvm->nested = (u32)size;
	for (unsigned i = 0; i < ARRAY_SIZE(wanted) && r >= 0; i++) {
		const struct kvm_enable_cap cap = { .cap = (u32)wanted[i], .args[0] = 1 };

		if (kvm_sys_cap(kvm->fd, wanted[i]))
			r = KVM_CALL(kvm->fd, KVM_ENABLE_CAP, &cap, err);
	}
	return r;
}

int kvm_nested_vcpu_init(struct kvm_cpu *k, struct err *err)
{
	if (!k->kvm->nested)
		return 0;
	k->nested = calloc(1, EVENTS_SIZE + k->kvm->nested);
	return k->nested ? 0 : err_set(err, -ENOMEM, "no memory for vCPU %u", k->vcpu->id);
}

void kvm_nested_vcpu_fini(struct kvm_cpu *k)
{
	free(k->nested);
	k->nested = NULL;
}

/* --- state --- */
/* What a vCPU has after a reset. */
static struct kvm_nested_state idle(const struct kvm_cpu *k)
{
	bool svm = cpuid_has(&k->vcpu->vm->cpuid, X86_FEATURE_SVM);
	struct kvm_nested_state s = { .size = sizeof(s) };

	s.format = svm ? KVM_STATE_NESTED_FORMAT_SVM : KVM_STATE_NESTED_FORMAT_VMX;
	s.flags = svm ? KVM_STATE_NESTED_GIF_SET : 0;
	if (!svm)
		s.hdr.vmx.vmxon_pa = s.hdr.vmx.vmcs12_pa = NO_VMXON;
	return s;
}

static bool is_idle(const struct kvm_nested_state *s)
{
	return s->format == KVM_STATE_NESTED_FORMAT_SVM ? s->flags == KVM_STATE_NESTED_GIF_SET
							: !s->flags && s->hdr.vmx.vmxon_pa == NO_VMXON;
}

/* Into k->nested. */
static int ask(struct kvm_cpu *k, struct err *err)
{
	memset(k->nested, 0, EVENTS_SIZE + k->kvm->nested);
	k->nested->state.size = k->kvm->nested;
	return KVM_CALL(k->fd, KVM_GET_NESTED_STATE, &k->nested->state, err);
}

int kvm_nested_inside(struct kvm_cpu *k, struct err *err)
{
	int r = k->nested ? ask(k, err) : 0;

	return r < 0 ? r : k->nested && k->nested->state.flags & KVM_STATE_NESTED_GUEST_MODE;
}

int kvm_nested_get(struct kvm_cpu *k, struct x86_state *s, struct err *err)
{
	int inside = kvm_nested_inside(k, err), r = MIN(inside, 0);

	if (inside > 0)
		r = KVM_CALL(k->fd, KVM_GET_VCPU_EVENTS, &k->nested->events, err);
	if (r < 0 || !k->nested || is_idle(&k->nested->state))
		return r;
	s->virt.nested = k->nested;
	s->virt.nested_size = (u32)EVENTS_SIZE + k->nested->state.size;
	return 0;
}

int kvm_nested_leave(struct kvm_cpu *k, struct err *err)
{
	const struct kvm_nested_state none = idle(k);

	return k->nested ? KVM_CALL(k->fd, KVM_SET_NESTED_STATE, &none, err) : 0;
}

int kvm_nested_set(struct kvm_cpu *k, const struct x86_state *s, struct err *err)
{
	const struct kvm_nested *n = s->virt.nested;

	if (!n)
		return 0;
	if (!k->nested)
		return err_set(
			err, -ENOTSUP,
			"the CPU state is one in a guest's guest, and this machine has neither SVM nor VMX; "
			"use --engine kvm,nested=on");
	if (s->virt.nested_size < sizeof(*n) || n->state.size != s->virt.nested_size - EVENTS_SIZE)
		return err_set(err, -EINVAL,
			       "the CPU state has %u bytes on a guest's guest, which are not in KVM's form",
			       s->virt.nested_size);
	return KVM_CALL(k->fd, KVM_SET_NESTED_STATE, &n->state, err);
}

const struct kvm_vcpu_events *kvm_nested_events(const struct x86_state *s)
{
	const struct kvm_nested *n = s->virt.nested;

	return n && n->state.flags & KVM_STATE_NESTED_GUEST_MODE ? &n->events : NULL;
}

/* --- an instruction that KVM's emulator does not know --- */
int kvm_nested_undefined(struct kvm_cpu *k, struct err *err)
{
	struct kvm_vcpu_events e;
	int r = KVM_CALL(k->fd, KVM_GET_VCPU_EVENTS, &e, err);

	if (r < 0)
		return r;
	memset(&e.exception, 0, sizeof(e.exception));
	e.exception.nr = EXC_UD;
	e.exception_has_payload = 0;
	/* Pending, it is looked at by the guest first; a KVM without payloads has no such thing. */
	if (e.flags & KVM_VCPUEVENT_VALID_PAYLOAD)
		e.exception.pending = 1;
	else
		e.exception.injected = 1;
	return KVM_CALL(k->fd, KVM_SET_VCPU_EVENTS, &e, err);
}
