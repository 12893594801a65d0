/* The glue between the interrupt controllers: GSI routing, MSI, the 8259A's way to the local APICs.
 *
 * The board creates the PIC, the I/O APIC and one local APIC per vCPU, then calls intc_init(), and only
 * then creates what raises interrupts. Routing: GSI n below 16 drives PIC input n and I/O APIC pin n; GSI
 * 0 (the timer) drives PIC input 0 and I/O APIC pin 2, which the MADT must tell by an interrupt source
 * override (bus ISA, source 0, GSI 2, flags 0); GSI 2 has no source of its own. The PIC's output goes to
 * LINT0 of every local APIC and to I/O APIC pin 0. The SCI is level, active high by the flags of its
 * override (source 9, GSI 9, flags 0xd); PCI interrupts use GSIs 16..19 (see pci.h), level, active low on
 * real boards: levels here are logical.
 */
#pragma once

#include "base/types.h"
#include "dev/lapic.h"
#include "vm/device.h"
#include "vm/irq.h"

struct vm;

#define INTC_TIMER_PIN 2 /* the I/O APIC pin of ISA interrupt 0 */
#define INTC_ISA_TIMER 0
#define INTC_ISA_RTC   8

/* The caller's memory, for as long as the VM. */
struct intc {
	struct vm *vm;
	struct device *pic, *ioapic;
	struct lapic_board board;
	bool legacy;   /* the HPET has taken the lines of PIT and RTC */
	u32 isa_level; /* levels of GSI 0..15 as their own devices drive them */
	u32 pic_level; /* of the 8259A's inputs alone, as intc_set_pic() drives them beside */
};

/* Main thread, vCPUs not running. Sets vm->intc and vm->intc_opaque, wires the controllers. */
void intc_init(struct intc *intc, struct vm *vm, struct device *pic, struct device *ioapic);

/* For the HPET. Any thread, without intc_lock. With the legacy replacement route on, the lines that the
 * PIT (ISA 0) and the RTC (ISA 8) drive are cut off and intc_legacy_irq() drives them instead. */
void intc_set_legacy(struct vm *vm, bool on);
void intc_legacy_irq(struct vm *vm, unsigned isa_irq, bool level);

/* For a chip set that leads lines of PCI to the 8259A. Any thread, without intc_lock. levels: of its inputs 0..15; each is high
 * while its own device or this says so. Nothing of it reaches the I/O APIC. */
void intc_set_pic(struct vm *vm, u32 levels);
