/* The local APICs, one device per vCPU, and the bus of interrupt messages between them.
 *
 * The board creates one "lapic" per vCPU with conf->index = the vCPU's id (which is its APIC id), index 0
 * first: that one adds the MMIO page and the MSRs for all. Unless stated otherwise the functions want
 * vm->intc_lock held and are for any thread.
 */
#pragma once

#include "base/types.h"
#include "vm/device.h"

struct apic_state;
struct vcpu;
struct vm;

#define LAPIC_BASE 0xfee00000ull
#define LAPIC_SIZE 0x1000ull
#define LAPIC_CLOCK_HZ \
	1000000000ull /* input of the timer's divider; so CPUID 40000010H:EBX says 1000000 kHz */

/* Delivery modes [SDM3 10.6.1], in ICR, LVT, I/O APIC entries and MSI data. */
enum apic_mode {
	APIC_FIXED = 0,
	APIC_LOWEST = 1,
	APIC_SMI = 2,
	APIC_NMI = 4,
	APIC_INIT = 5,
	APIC_SIPI = 6,
	APIC_EXTINT = 7,
};

/* One interrupt message. */
struct apic_msg {
	u32 dest;
	bool wide;    /* dest is an x2APIC destination (broadcast FFFFFFFFH), else 8 bits (broadcast FFH) */
	bool logical; /* destination mode */
	bool one;     /* redirection hint: to one of the processors named */
	bool level;   /* trigger mode */
	u8 mode;      /* enum apic_mode */
	u8 vector;
};

/* Sends it; returns how many local APICs took it. */
unsigned lapic_deliver(struct vm *vm, const struct apic_msg *msg);
/* The same, edge-triggered, to the vCPUs whose bits are set in ids; those that do not exist are left out. */
unsigned lapic_deliver_ids(struct vm *vm, u64 ids, u8 mode, u8 vector);

/* The same message as MSI has it [SDM3 10.11]; dest has 8 bits. Without a lock. */
u64 lapic_msi_addr(const struct apic_msg *msg);
u32 lapic_msi_data(const struct apic_msg *msg);

/* What the local APICs need from the rest of the board; every member is called with vm->intc_lock held. */
struct lapic_board {
	void (*eoi)(void *opaque, u8 vector); /* EOI message of a level-triggered vector */
	int (*extint_pending)(void *opaque);  /* vector of the external controller, or -1 */
	int (*extint_ack)(void *opaque);      /* the INTA cycle: its vector, or -1 */
	void *opaque;
};

/* Before the vCPUs run, when all local APICs exist; board stays the caller's. */
void lapic_connect(struct vm *vm, const struct lapic_board *board);

/* Level of the pin LINT0 or LINT1. */
void lapic_set_lint(struct vm *vm, u32 vcpu_id, unsigned pin, bool level);

/* intc_ops, for one vCPU (see vm/irq.h). */
int lapic_pending(struct vcpu *vcpu);
int lapic_ack(struct vcpu *vcpu);
u64 lapic_get_cr8(struct vcpu *vcpu);
void lapic_set_cr8(struct vcpu *vcpu, u64 cr8);
void lapic_get_apic(struct vcpu *vcpu, struct apic_state *ret_apic);
void lapic_set_apic(struct vcpu *vcpu, const struct apic_state *apic);
