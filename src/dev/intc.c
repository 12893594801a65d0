/* Which line goes to which input: global system interrupts, messages, and the 8259A's output.
 *
 * Documents: ACPI 6.4, 5.2.12 (MADT) for the numbering of GSIs and the override of the timer; SDM volume
 * 3, 10.11 (message-signalled interrupts); MultiProcessor Specification 1.4, 3.6.2 for the way from the
 * 8259A to the processors; IA-PC HPET 1.0a, 2.3.5 for the legacy replacement route.
 *
 * How it works: the intc_ops of the VM, in front of pic.c, ioapic.c and lapic.c. The 8259A drives I/O APIC
 * pin 0 (mixed mode) and LINT0 of all local APICs (virtual wire mode); which of them listens is the
 * guest's choice. Lines of PCI are pins of the I/O APIC, and where the chip set routes them so (pci.c) inputs of the 8259A too.
 *
 * Omitted, and why that is safe: the IMCR of MP systems in PIC mode (the MADT says there is none);
 * level-triggered messages have no de-assert, as no device sends one; destination ids above 255 (no
 * remapping hardware yet, at most 64 processors).
 *
 * Threads: any, under vm->intc_lock, which the callers in vm/irq.c and the functions for the HPET take.
 */
#include "dev/intc.h"

#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "dev/pic.h"
#include "vm/vcpu.h"
#include "vm/vm.h"

#define PIC_CASCADE 2
#define EXTINT_PIN  0

/* MSI address and data [SDM3 10.11] */
#define MSI_WINDOW      0xfee00000ull
#define MSI_WINDOW_MASK 0xfffffffffff00000ull
#define MSI_RH          BIT(3)
#define MSI_LOGICAL     BIT(2)
#define MSI_LEVEL       BIT(15)
#define MSI_ASSERT      BIT(14)

static void isa_drive(struct intc *intc, unsigned line, bool level)
{
	pic_set_irq(intc->pic, line, level || intc->pic_level >> line & 1);
	ioapic_set_pin(intc->ioapic, line == INTC_ISA_TIMER ? INTC_TIMER_PIN : line, level);
}

static bool legacy_line(unsigned line)
{
	return line == INTC_ISA_TIMER || line == INTC_ISA_RTC;
}

static void intc_set_gsi(void *opaque, unsigned gsi, bool level)
{
	struct intc *intc = opaque;

	if (gsi >= IRQ_NR_ISA) {
		ioapic_set_pin(intc->ioapic, gsi, level);
		return;
	}
	if (gsi == PIC_CASCADE) /* its input belongs to the second 8259A, its pin to the timer */
		return;
	intc->isa_level = (intc->isa_level & ~(1u << gsi)) | (u32)level << gsi;
	if (!intc->legacy || !legacy_line(gsi))
		isa_drive(intc, gsi, level);
}

static void intc_msi(void *opaque, u64 addr, u32 data)
{
	struct intc *intc = opaque;
	struct apic_msg msg = {
		.dest = (u32)(addr >> 12 & 0xff),
		.logical = addr & MSI_LOGICAL,
		.one = addr & MSI_RH,
		.level = data & MSI_LEVEL,
		.mode = (u8)(data >> 8 & 7),
		.vector = (u8)data,
	};

	if ((addr & MSI_WINDOW_MASK) != MSI_WINDOW) /* a write to memory: not an interrupt */
		return;
	if (data & MSI_LEVEL && !(data & MSI_ASSERT))
		return;
	lapic_deliver(intc->vm, &msg);
}

static int intc_pending(void *opaque, struct vcpu *vcpu)
{
	return lapic_pending(vcpu);
}

static int intc_ack(void *opaque, struct vcpu *vcpu)
{
	return lapic_ack(vcpu);
}

static u64 intc_get_cr8(void *opaque, struct vcpu *vcpu)
{
	return lapic_get_cr8(vcpu);
}

static void intc_set_cr8(void *opaque, struct vcpu *vcpu, u64 cr8)
{
	lapic_set_cr8(vcpu, cr8);
}

static void intc_get_apic(void *opaque, struct vcpu *vcpu, struct apic_state *ret_apic)
{
	lapic_get_apic(vcpu, ret_apic);
}

static void intc_set_apic(void *opaque, struct vcpu *vcpu, const struct apic_state *apic)
{
	lapic_set_apic(vcpu, apic);
}

static bool intc_route(void *opaque, unsigned gsi, u64 *ret_addr, u32 *ret_data)
{
	struct intc *intc = opaque;
	struct apic_msg msg;

	if (!ioapic_message(intc->ioapic, gsi, &msg) || !msg.level)
		return false;
	*ret_addr = lapic_msi_addr(&msg);
	*ret_data = lapic_msi_data(&msg);
	return true;
}

static void intc_get_chips(void *opaque, struct irq_chips *ret_chips)
{
	struct intc *intc = opaque;

	pic_get_chips(intc->pic, ret_chips);
	ioapic_get_chips(intc->ioapic, ret_chips);
}

static void intc_set_chips(void *opaque, const struct irq_chips *chips)
{
	struct intc *intc = opaque;

	ioapic_set_chips(intc->ioapic, chips);
	pic_set_chips(intc->pic, chips); /* whose output is one of its pins */
}

static void intc_eoi(void *opaque, u8 vector)
{
	struct intc *intc = opaque;

	ioapic_eoi(intc->ioapic, vector);
}

static const struct intc_ops intc_ops = {
	.set_gsi = intc_set_gsi,
	.msi = intc_msi,
	.pending = intc_pending,
	.ack = intc_ack,
	.get_cr8 = intc_get_cr8,
	.set_cr8 = intc_set_cr8,
	.get_apic = intc_get_apic,
	.set_apic = intc_set_apic,
	.route = intc_route,
	.get_chips = intc_get_chips,
	.set_chips = intc_set_chips,
	.eoi = intc_eoi,
};

static void pic_output(void *opaque, bool level)
{
	struct intc *intc = opaque;

	ioapic_set_pin(intc->ioapic, EXTINT_PIN, level);
	for (u32 id = 0; id < intc->vm->nr_vcpus; id++)
		lapic_set_lint(intc->vm, id, 0, level);
}

static int board_extint_pending(void *opaque)
{
	struct intc *intc = opaque;

	return pic_pending(intc->pic);
}

static int board_extint_ack(void *opaque)
{
	struct intc *intc = opaque;

	return pic_ack(intc->pic);
}

void intc_init(struct intc *intc, struct vm *vm, struct device *pic, struct device *ioapic)
{
	*intc = (struct intc){ .vm = vm, .pic = pic, .ioapic = ioapic };
	intc->board = (struct lapic_board){ intc_eoi, board_extint_pending, board_extint_ack, intc };

	pthread_mutex_lock(&vm->intc_lock);
	vm->intc = &intc_ops;
	vm->intc_opaque = intc;
	lapic_connect(vm, &intc->board);
	pic_set_output(pic, pic_output, intc);
	pthread_mutex_unlock(&vm->intc_lock);
}

/* NULL on a board with other interrupt controllers, or none. */
static struct intc *intc_of(struct vm *vm)
{
	return vm->intc == &intc_ops ? vm->intc_opaque : NULL;
}

/* The lines change hands: each goes to the level of its new driver, the HPET's being low. */
void intc_set_legacy(struct vm *vm, bool on)
{
	struct intc *intc = intc_of(vm);

	if (!intc)
		return;
	pthread_mutex_lock(&vm->intc_lock);
	if (intc->legacy != on) {
		intc->legacy = on;
		for (unsigned line = 0; line < IRQ_NR_ISA; line++)
			if (legacy_line(line))
				isa_drive(intc, line, !on && intc->isa_level >> line & 1);
	}
	pthread_mutex_unlock(&vm->intc_lock);
}

void intc_set_pic(struct vm *vm, u32 levels)
{
	struct intc *intc = intc_of(vm);

	if (!intc)
		return;
	pthread_mutex_lock(&vm->intc_lock);
	for (unsigned line = 0; line < IRQ_NR_ISA; line++)
		if ((levels ^ intc->pic_level) >> line & 1)
			pic_set_irq(intc->pic, line, (levels | intc->isa_level) >> line & 1);
	intc->pic_level = levels;
	pthread_mutex_unlock(&vm->intc_lock);
}

void intc_legacy_irq(struct vm *vm, unsigned isa_irq, bool level)
{
	struct intc *intc = intc_of(vm);

	if (!intc)
		return;
	pthread_mutex_lock(&vm->intc_lock);
	if (intc->legacy && legacy_line(isa_irq))
		isa_drive(intc, isa_irq, level);
	pthread_mutex_unlock(&vm->intc_lock);
}
