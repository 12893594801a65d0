/* All of KVM's interrupt controllers for a guest: irqchip=full [KVM api 4.24, KVM_CREATE_IRQCHIP]. The local APICs are as in
 * kvm_apic.c; here is the rest, the 8259A pair and the I/O APIC. PIT, RTC and all that has a line stay the machine's devices.
 *
 * Lines. The board leads a line to inputs of either or both, of which each has a level of its own (vm/irq.h). So it has with KVM: each
 * input is one "GSI" of KVM's table of routes, and the device, which keeps the levels, tells of a change by KVM_IRQ_LINE. What is done
 * when that returns is done: an edge is in a local APIC or a request of the 8259A's, or was masked and is forgotten. An eventfd
 * would leave it under way.
 *
 * Whose state. As that of the local APICs, with them and under the same lock (kvm_apic_move()): KVM's while vCPUs run. Levels
 * do not move, which makes what is KVM's irr of the I/O APIC nothing but a consequence: it is written, not read.
 *  - In: a level-triggered pin that is high is in irr, and KVM sends for it unless its remote IRR says that this was done. One that is
 *    edge-triggered and high is in irr if it is masked, that is, was not sent and will not be; else KVM would send again.
 *  - Out: read before the local APICs, as KVM may be about to send for a pin by itself some time after its EOI: then it is in both, that
 *    is once, else in none.
 * The 8259A's edges are its requests (irr) on both sides.
 *
 * Vectors of the 8259A need nobody here: KVM acknowledges it in KVM_RUN, and one that the guest has not got yet is in what is being
 * delivered (struct x86_state). Nor do ends of interrupts.
 *
 * DEVIATION: while KVM has them the I/O APIC is of version 11H, without the EOI register; the 8259A's output is not led to its pin
 * 0, nor to a LINT0 that does not say ExtINT; special mask mode is kept, but does nothing; a chip does interrupt while it waits for its
 * initialization words; there is no single chip. A pin that is high, edge-triggered and not masked is low to KVM until its next
 * edge, also where the guest makes it level-triggered meanwhile, if it was that when KVM got it.
 *
 * All with intc_lock held, but kvm_irqchip_init(): main thread.
 */
#include <errno.h>

#include "cpu/kvm/kvm.h"
#include "vm/irq.h"

#define IOAPIC_BASE     0xfec00000ull
#define IOAPIC_PIN_8259 0
#define ID_SHIFT        24

/* Redirection entry [82093AA 3.2.4] */
#define RED_NO_LEVEL (BIT(9) | BIT(10)) /* of the delivery mode */
#define RED_LEVEL    BIT(15)
#define RED_MASKED   BIT(16)

/* Edge for good, as with the machine's own [PIIX4 ELCR1]. */
static const u8 elcr_mask[2] = { 0xf8, 0xde };

/* --- an 8259A --- */
static struct kvm_pic_state pic_to_kvm(const struct pic_state *s, unsigned c)
{
	return (struct kvm_pic_state){
		.last_irr = s->lines,
		.irr = s->irr,
		.imr = s->imr,
		.isr = s->isr,
		.priority_add = (s->lowest + 1) & 7,
		.irq_base = s->vector,
		.read_reg_select = s->read_isr,
		.poll = s->poll,
		.special_mask = s->smm,
		.init_state = s->icw ? s->icw - 1 : 0,
		.auto_eoi = s->aeoi,
		.rotate_on_auto_eoi = s->rotate,
		.special_fully_nested_mode = s->sfnm,
		.init4 = s->icw4_due,
		.elcr = s->elcr,
		.elcr_mask = elcr_mask[c],
	};
}

static struct pic_state pic_from_kvm(const struct kvm_pic_state *s)
{
	return (struct pic_state){
		.lines = s->last_irr,
		.irr = s->irr,
		.imr = s->imr,
		.isr = s->isr,
		.lowest = (s->priority_add + 7) & 7,
		.vector = s->irq_base & 0xf8,
		.read_isr = s->read_reg_select,
		.poll = s->poll,
		.smm = s->special_mask,
		.icw = s->init_state ? (s->init_state & 3) + 1 : 0,
		.aeoi = s->auto_eoi,
		.rotate = s->rotate_on_auto_eoi,
		.sfnm = s->special_fully_nested_mode,
		.icw4_due = s->init4,
		.elcr = s->elcr,
	};
}

/* --- the I/O APIC --- */
/* Fixed and lowest priority; the others know no levels, whatever the entry says. */
static bool is_level(u64 red)
{
	return red & RED_LEVEL && !(red & RED_NO_LEVEL);
}

static u32 to_irr(const struct irq_chips *chips)
{
	u32 irr = 0;

	for (unsigned pin = 0; pin < IRQ_NR_GSI; pin++)
		if (pin != IOAPIC_PIN_8259 && (is_level(chips->red[pin]) || chips->red[pin] & RED_MASKED))
			irr |= chips->lines & (u32)BIT(pin);
	return irr;
}

static struct kvm_ioapic_state ioapic_to_kvm(const struct irq_chips *chips)
{
	struct kvm_ioapic_state s = {
		.base_address = IOAPIC_BASE,
		.ioregsel = chips->select,
		.id = chips->id >> ID_SHIFT,
		.irr = to_irr(chips),
	};

	for (unsigned pin = 0; pin < IRQ_NR_GSI; pin++)
		s.redirtbl[pin].bits = chips->red[pin];
	return s;
}

static void ioapic_from_kvm(const struct kvm_ioapic_state *s, struct irq_chips *ret_chips)
{
	ret_chips->select = (u8)s->ioregsel;
	ret_chips->id = s->id << ID_SHIFT;
	ret_chips->lines = s->irr;
	for (unsigned pin = 0; pin < IRQ_NR_GSI; pin++)
		ret_chips->red[pin] = s->redirtbl[pin].bits;
}

/* --- to and fro --- */
int kvm_irqchip_set(struct kvm_vm *kvm, const struct irq_chips *chips, struct err *err)
{
	/* After each KVM sees who asks: the second 8259A as it is now before the first, which hears of it. */
	static const u8 order[] = { KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_IOAPIC };
	int r = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(order) && r >= 0; i++) {
		u32 id = order[i];
		struct kvm_irqchip chip = { .chip_id = id };

		if (id == KVM_IRQCHIP_IOAPIC)
			chip.chip.ioapic = ioapic_to_kvm(chips);
		else
			chip.chip.pic = pic_to_kvm(&chips->pic[id], id);
		r = KVM_CALL(kvm->fd, KVM_SET_IRQCHIP, &chip, err);
	}
	return r;
}

int kvm_irqchip_get(struct kvm_vm *kvm, struct irq_chips *ret_chips, struct err *err)
{
	int r = 0;

	for (u32 id = KVM_IRQCHIP_PIC_MASTER; id <= KVM_IRQCHIP_IOAPIC && r >= 0; id++) {
		struct kvm_irqchip chip = { .chip_id = id };

		r = KVM_CALL(kvm->fd, KVM_GET_IRQCHIP, &chip, err);
		if (r >= 0 && id == KVM_IRQCHIP_IOAPIC)
			ioapic_from_kvm(&chip.chip.ioapic, ret_chips);
		else if (r >= 0)
			ret_chips->pic[id] = pic_from_kvm(&chip.chip.pic);
	}
	return r;
}

void kvm_irqchip_set_input(struct vm *vm, unsigned input, bool level)
{
	const struct kvm_vm *kvm = vm->engine_vm;
	const struct kvm_irq_level line = { .irq = input, .level = level };
	struct err err = { 0 };

	if (input != IOAPIC_PIN_8259 && KVM_CALL(kvm->fd, KVM_IRQ_LINE, &line, &err) < 0)
		vm_crash(vm, err.msg);
}

/* --- a VM --- */
bool kvm_irqchip_offered(int fd)
{
	return kvm_apic_offered(fd) && kvm_sys_cap(fd, KVM_CAP_IRQCHIP);
}

/* In the place of the routes that KVM makes, which lead a line to both. */
static int route(struct kvm_vm *kvm, struct err *err)
{
	struct kvm_irq_routing *t = &kvm->routes.head;

	for (unsigned input = 0; input < IRQ_NR_INPUTS; input++) {
		struct kvm_irq_routing_entry *e = &t->entries[t->nr++];

		e->gsi = input;
		e->type = KVM_IRQ_ROUTING_IRQCHIP;
		e->u.irqchip.irqchip = input < IRQ_NR_GSI         ? KVM_IRQCHIP_IOAPIC
				       : input < IRQ_INPUT_PIC(8) ? KVM_IRQCHIP_PIC_MASTER
								  : KVM_IRQCHIP_PIC_SLAVE;
		e->u.irqchip.pin = input < IRQ_NR_GSI ? input : (input - IRQ_NR_GSI) % 8;
	}
	return kvm_irqfd_set_routes(kvm, err);
}

int kvm_irqchip_init(struct kvm_vm *kvm, struct err *err)
{
	int r;

	if (!kvm_irqchip_offered(kvm->fd))
		return err_set(
			err, -ENOTSUP,
			"this host's KVM has no 8259A and I/O APIC for a guest; use --engine kvm,irqchip=auto");
	r = KVM_CALL(kvm->fd, KVM_CREATE_IRQCHIP, NULL, err);
	if (r >= 0)
		r = route(kvm, err);
	kvm->full = r >= 0;
	return r;
}
