/* All timers at their shortest periods at once [G40], and TSC deadlines that lie in the past or beyond 2^63, armed again
 * in each interrupt [G63]. Goes on for ever; each source must have come a few times before. */
#include "hostile.h"

#define V_APIC           0x51
#define V_HPET           0x52
#define MSR_TSC_ADJUST   0x3b
#define MSR_TSC_DEADLINE 0x6e0

static volatile u32 pits, rtcs, apics, hpets;
static bool deadline;

static void on_pit(struct frame *f)
{
	pits++;
	pic_eoi(0);
}

static void on_rtc(struct frame *f)
{
	rtcs++;
	outb(0x70, 0x0c);
	inb(0x71);
	pic_eoi(8);
}

static void on_apic(struct frame *f)
{
	static const u64 past[4] = { 1, 1000, 2, 3 };

	apics++;
	apic_write(APIC_EOI, 0);
	if (!deadline)
		return;
	/* From here on nothing but this is executed. */
	if (apics == 100) {
		check(true, "deadlines in the past come at once");
		ready();
	}
	wrmsr(MSR_TSC_DEADLINE, past[apics & 3]);
}

static void on_hpet(struct frame *f)
{
	hpets++;
	apic_write(APIC_EOI, 0);
}

static void start_timers(void)
{
	pic_init(0x101);
	outb(0x43, 0x34);
	outb(0x40, 2); /* mode 2 has no shorter one */
	outb(0x40, 0);
	outb(0x70, 0x0a);
	outb(0x71, 0x23); /* 8192 Hz */
	outb(0x70, 0x0b);
	outb(0x71, inb(0x71) | 0x42);
	outb(0x70, 0x0c);
	inb(0x71);
	apic_enable();
	apic_write(APIC_LVT_LINT0, 0x700);
	apic_write(APIC_TIMER_DIV, 0xb);
	apic_write(APIC_LVT_TIMER, 1u << 17 | V_APIC);
	apic_write(APIC_TIMER_INIT, 1);
	/* HPET: timer 0 periodic, one tick, through the highest pin of the I/O APIC that it can have */
	u32 pin = 31;
	while (pin && !(*(volatile u32 *)(HPET + 0x104) >> pin & 1))
		pin--;
	ioapic_write(0x10 + 2 * pin, V_HPET);
	ioapic_write(0x11 + 2 * pin, 0);
	*(volatile u32 *)(HPET + 0x100) = pin << 9 | 1 << 6 | 1 << 3 | 1 << 2;
	*(volatile u64 *)(HPET + 0x108) = 1000000; /* first */
	*(volatile u64 *)(HPET + 0x108) = 1;       /* then each tick */
	*(volatile u32 *)(HPET + 0x10) = 1;
}

void guest_main(void)
{
	u32 r[4];

	interrupt_handler[IRQ_BASE] = on_pit;
	interrupt_handler[IRQ_BASE + 8] = on_rtc;
	interrupt_handler[V_APIC] = on_apic;
	interrupt_handler[V_HPET] = on_hpet;
	start_timers();
	check(wait_for(&pits, 3), "8254");
	check(wait_for(&rtcs, 3), "real-time clock");
	check(wait_for(&apics, 3), "local APIC's timer");
	check(wait_for(&hpets, 3), "HPET");
	cpuid(1, 0, r);
	if (r[2] & 1u << 24) {
		/* Never due, at the end of all time, in the past; and a TSC that wraps. */
		apic_write(APIC_LVT_TIMER, 2u << 17 | V_APIC);
		wrmsr(MSR_TSC_DEADLINE, 1ull << 63);
		wrmsr(MSR_TSC_DEADLINE, ~0ull);
		wrmsr(MSR_TSC_ADJUST, rdmsr(MSR_TSC_ADJUST) + (1ull << 63));
		wrmsr(MSR_TSC_DEADLINE, ~0ull - 1);
		wrmsr(MSR_TSC_ADJUST, rdmsr(MSR_TSC_ADJUST) + (1ull << 63));
		deadline = true;
		apics = 0;
		wrmsr(MSR_TSC_DEADLINE, 1);
	} else {
		ready();
	}
	for (;;)
		sti_hlt();
}
