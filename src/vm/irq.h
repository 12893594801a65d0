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

#define IRQ_NR_GSI   24
#define IRQ_APIC_REG 64
#define IRQ_NR_ISA   16

/* An input of the controllers below the local APICs: pin n of the I/O APIC is n, this is input n of the 8259A pair. Each has a level of
 * its own, as the board leads lines to either or both. */
#define IRQ_INPUT_PIC(n) (IRQ_NR_GSI + (n))
#define IRQ_NR_INPUTS    IRQ_INPUT_PIC(IRQ_NR_ISA)

/* A local APIC, in one form for the device and for an engine that has its own. */
struct apic_state {
	u64 base;     /* IA32_APIC_BASE */
	u64 deadline; /* IA32_TSC_DEADLINE; 0: not armed */
	u64 eoi_msr;  /* MSR_KVM_PV_EOI */
	/* By offset in the page / 16 [SDM3 table 10-1], in x2APIC mode too, where the upper half of the ICR is where the page
	 * has it and the id in bits 31..24; with the current count. */
	u32 reg[IRQ_APIC_REG];
};

/* One 8259A. The cascade is no pin of anybody's: where the second one asks, its input of the first has irr. */
struct pic_state {
	u8 lines, irr, isr, imr, elcr;
	u8 vector; /* ICW2 */
	u8 lowest; /* the input with the lowest priority */
	u8 icw;    /* the initialization word expected next: 0 none, 2, 3, 4 */
	bool icw4_due, aeoi, sfnm, smm, rotate, read_isr, poll;
};

/* The 8259A pair (0: the first) and the I/O APIC, likewise. */
struct irq_chips {
	struct pic_state pic[2];
	u8 select;           /* IOREGSEL */
	u32 id;              /* IOAPICID */
	u32 lines;           /* levels of its pins */
	u64 red[IRQ_NR_GSI]; /* the redirection table, with remote IRR */
};

/* The local APICs of an engine, which has them instead of the devices while vm->apics is set (engine_ops.apics). The devices of
 * them then hold nothing that is true. All with vm->intc_lock held, any thread. */
struct apic_ops {
	/* A message, as MSI has it [SDM3 10.11]; how many took it. Of an edge-triggered one the engine may not know, and say 1. */
	unsigned (*send)(struct vm *vm, u64 addr, u32 data);
	/* What intc_ops.route() says may have changed. NULL: it has the other controllers as well, */
	void (*rerouted)(struct vm *vm);
	/* which then learn by this that an input (0 to IRQ_NR_INPUTS - 1) has another level. NULL: the devices have those. */
	void (*set_input)(struct vm *vm, unsigned input, bool level);
};

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
	/* The local APIC of a vCPU, which does not run, to and from an engine that has its own. get: its timer rings no more. set
	 * arms it. */
	void (*get_apic)(void *opaque, struct vcpu *vcpu, struct apic_state *ret_apic);
	void (*set_apic)(void *opaque, struct vcpu *vcpu, const struct apic_state *apic);
	/* The message of a GSI if it is level-triggered, so that the end of its interrupt matters: irq_eoi(). False: it is not. */
	bool (*route)(void *opaque, unsigned gsi, u64 *ret_addr, u32 *ret_data);
	/* The other controllers, to and from an engine that has those, too. The levels of their inputs are always the devices', which
	 * take no others. set goes by what they say now. */
	void (*get_chips)(void *opaque, struct irq_chips *ret_chips);
	void (*set_chips)(void *opaque, const struct irq_chips *chips);
	/* A local APIC of the engine's has ended an interrupt of a vector that is routed so. */
	void (*eoi)(void *opaque, u8 vector);
};

/* Any thread, without intc_lock. A controller that makes a vector deliverable calls
 * vcpu_post(vcpu, VCPU_REQ_INTR). */
void irq_set(struct vm *vm, unsigned gsi, bool level);
void irq_pulse(struct vm *vm, unsigned gsi); /* edge: 0, 1, 0 */
void irq_msi(struct vm *vm, u64 addr, u32 data);

/* For the devices of 8259A and I/O APIC, with intc_lock held: an engine has what they stand for. They then hold nothing that is true
 * but the levels of their inputs, and answer to no access: what comes here that the engine has refused. */
bool irq_chips_away(const struct vm *vm);

/* For engines, on the vCPU's thread, without intc_lock. */
int irq_pending(struct vcpu *vcpu);
int irq_ack(struct vcpu *vcpu);
u64 irq_get_cr8(struct vcpu *vcpu);
void irq_set_cr8(struct vcpu *vcpu, u64 cr8);
void irq_eoi(struct vm *vm, u8 vector);
