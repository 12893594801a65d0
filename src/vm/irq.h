/* Interrupt lines, message-signalled interrupts, and the contract of the interrupt
 * controllers (8259A pair, I/O APIC, local APICs) with the rest.
 *
 * A global system interrupt (GSI) is the number of an I/O APIC pin; GSIs below 16 also reach the
 * 8259A. The controllers share one lock, vm->intc_lock, a leaf below every device's lock: irq_set() and
 * irq_msi() take it, so a device may call them with its own lock held.
 */
#pragma once

#include "base/types.h"

struct vm;
struct vcpu;

#define IRQ_NR_GSI 24

struct intc_ops {
	/* All with vm->intc_lock held. */
	void (*set_gsi)(void *opaque, unsigned gsi, bool level);
	void (*msi)(void *opaque, u64 addr, u32 data);
	/* The vector that the vCPU would take now if IF were 1, or -1. Takes nothing. */
	int (*pending)(void *opaque, struct vcpu *vcpu);
	/* Takes it (moves IRR to ISR, or acknowledges the 8259A); -1 when it has gone away. */
	int (*ack)(void *opaque, struct vcpu *vcpu);
	/* CR8, that is TPR bits 7..4. */
	u64 (*get_cr8)(void *opaque, struct vcpu *vcpu);
	void (*set_cr8)(void *opaque, struct vcpu *vcpu, u64 cr8);
};

/* Any thread, without intc_lock. A controller that makes a vector deliverable calls
 * vcpu_post(vcpu, VCPU_REQ_INTR). */
void irq_set(struct vm *vm, unsigned gsi, bool level);
void irq_pulse(struct vm *vm, unsigned gsi); /* edge: 0, 1, 0 */
void irq_msi(struct vm *vm, u64 addr, u32 data);

/* For engines, on the vCPU's thread, without intc_lock. */
int irq_pending(struct vcpu *vcpu);
int irq_ack(struct vcpu *vcpu);
u64 irq_get_cr8(struct vcpu *vcpu);
void irq_set_cr8(struct vcpu *vcpu, u64 cr8);
