/* A level-triggered line that never goes away, with an EOI for each interrupt, and the redirection entry and its remote
 * IRR rewritten inside the handler [G41]. For ever. */
#include "hostile.h"

#define PIN    11
#define VECTOR 0x60

static volatile u32 count;

static void on_level(struct frame *f)
{
	/* Nothing else is ever executed again. */
	if (++count == 1000) {
		check(true, "the storm comes");
		ready();
	}
	switch (count & 7) {
	case 1: /* to edge and back: drops the remote IRR */
		ioapic_write(0x10 + 2 * PIN, VECTOR);
		ioapic_write(0x10 + 2 * PIN, 1u << 15 | VECTOR);
		break;
	case 2: /* all bits, the read-only ones too */
		ioapic_write(0x11 + 2 * PIN, ~0u);
		ioapic_write(0x11 + 2 * PIN, 0);
		break;
	case 3: /* EOI twice, and of what is not in service */ apic_write(APIC_EOI, 0); break;
	case 4: /* the I/O APIC's own EOI register */ *(volatile u32 *)(IOAPIC + 0x40) = VECTOR; break;
	case 5:
		outb(LINES + PIN, 0);
		outb(LINES + PIN, 1);
		break;
	}
	apic_write(APIC_EOI, 0);
}

void guest_main(void)
{
	pic_init(0);
	apic_enable();
	interrupt_handler[VECTOR] = on_level;
	for (unsigned reg = 0; reg < 256; reg++) {
		ioapic_write(reg, 1u << 16);
		ioapic_read(reg);
	}
	ioapic_write(0x11 + 2 * PIN, 0);
	ioapic_write(0x10 + 2 * PIN, 1u << 15 | VECTOR);
	outb(LINES + PIN, 1);
	for (;;)
		sti_hlt();
}
