/* Interrupt lines and messages: the one door to the interrupt controllers, under their one lock.
 *
 * vm->intc_lock is a leaf: a device calls here with its own lock held; a controller never calls a
 * device. While the machine has no controller, lines lead nowhere and nothing is ever pending. A GSI out of
 * range is ignored, because test devices take it from the guest.
 */
#include "vm/irq.h"

#include "vm/vm.h"

void irq_set(struct vm *vm, unsigned gsi, bool level)
{
	if (gsi >= IRQ_NR_GSI || !vm->intc)
		return;
	pthread_mutex_lock(&vm->intc_lock);
	vm->intc->set_gsi(vm->intc_opaque, gsi, level);
	pthread_mutex_unlock(&vm->intc_lock);
}

void irq_pulse(struct vm *vm, unsigned gsi)
{
	if (gsi >= IRQ_NR_GSI || !vm->intc)
		return;
	pthread_mutex_lock(&vm->intc_lock);
	vm->intc->set_gsi(vm->intc_opaque, gsi, false);
	vm->intc->set_gsi(vm->intc_opaque, gsi, true);
	vm->intc->set_gsi(vm->intc_opaque, gsi, false);
	pthread_mutex_unlock(&vm->intc_lock);
}

void irq_msi(struct vm *vm, u64 addr, u32 data)
{
	if (!vm->intc)
		return;
	pthread_mutex_lock(&vm->intc_lock);
	vm->intc->msi(vm->intc_opaque, addr, data);
	pthread_mutex_unlock(&vm->intc_lock);
}

bool irq_chips_away(const struct vm *vm)
{
	return vm->apics && vm->apics->set_input;
}

int irq_pending(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	int vector;

	if (!vm->intc)
		return -1;
	pthread_mutex_lock(&vm->intc_lock);
	vector = vm->intc->pending(vm->intc_opaque, vcpu);
	pthread_mutex_unlock(&vm->intc_lock);
	return vector;
}

int irq_ack(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	int vector;

	if (!vm->intc)
		return -1;
	pthread_mutex_lock(&vm->intc_lock);
	vector = vm->intc->ack(vm->intc_opaque, vcpu);
	pthread_mutex_unlock(&vm->intc_lock);
	return vector;
}

u64 irq_get_cr8(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	u64 cr8;

	if (!vm->intc)
		return 0;
	pthread_mutex_lock(&vm->intc_lock);
	cr8 = vm->intc->get_cr8(vm->intc_opaque, vcpu);
	pthread_mutex_unlock(&vm->intc_lock);
	return cr8;
}

void irq_set_cr8(struct vcpu *vcpu, u64 cr8)
{
	struct vm *vm = vcpu->vm;

	if (!vm->intc)
		return;
	pthread_mutex_lock(&vm->intc_lock);
	vm->intc->set_cr8(vm->intc_opaque, vcpu, cr8);
	pthread_mutex_unlock(&vm->intc_lock);
}

void irq_eoi(struct vm *vm, u8 vector)
{
	if (!vm->intc)
		return;
	pthread_mutex_lock(&vm->intc_lock);
	vm->intc->eoi(vm->intc_opaque, vector);
	pthread_mutex_unlock(&vm->intc_lock);
}
