/* Timer interrupts: 8254 through the 8259A (periodic, one-shot, masking, EOI, HLT), local APIC timer (one-shot, periodic,
 * masked, TSC deadline). [8254; 8259A; SDM3 10.5.4] */
#include "lib/irq.h"

#define PIT_HZ       1193182u
#define TIMER_VECTOR 0x50

static volatile u32 ticks, apic_ticks;
static bool send_eoi = true;

static void on_irq0(struct frame *f)
{
	ticks++;
	if (send_eoi)
		pic_eoi(0);
}

static void on_apic_timer(struct frame *f)
{
	apic_ticks++;
	apic_write(APIC_EOI, 0);
}

static void pit(unsigned mode, unsigned count)
{
	outb(0x43, (u8)(0x30 | mode << 1));
	outb(0x40, (u8)count);
	outb(0x40, (u8)(count >> 8));
}

static u64 measure(unsigned hz, u32 n)
{
	u64 start;

	pit(2, PIT_HZ / hz);
	ticks = 0;
	if (!wait_for(&ticks, 1))
		return 0;
	start = rdtsc();
	if (!wait_for(&ticks, n + 1))
		return 0;
	return rdtsc() - start;
}

static void test_pit(void)
{
	u64 a = 0, b = 0, tick;

	pic_init(1);
	interrupt_handler[IRQ_BASE] = on_irq0;
	/* A busy host may delay some: one good run of five is enough. */
	for (unsigned k = 0; k < 5 && !(a && a < 2 * b && b < 2 * a); k++) {
		a = measure(100, 20);
		b = measure(200, 40);
	}
	check(a && b, "8254 mode 2 interrupts come");
	check(a < 2 * b && b < 2 * a, "20 ticks of 100 Hz last as long as 40 of 200 Hz");
	tick = a / 20;

	ticks = 0;
	for (unsigned k = 0; k < 5; k++)
		sti_hlt();
	check(ticks >= 4, "HLT wakes up for interrupts: %u", ticks);

	pic_mask(0);
	let_in(tick);
	ticks = 0;
	let_in(10 * tick);
	check(ticks == 0, "a masked line does not interrupt");
	check(pic_read(0x0a) & 1, "but IRR has it");
	pic_mask(1);
	check(wait_for(&ticks, 1), "and it comes when unmasked");

	send_eoi = false;
	ticks = 0;
	wait_for(&ticks, 1);
	ticks = 0;
	let_in(3 * tick);
	check(ticks == 0 && pic_read(0x0b) & 1, "without EOI there is no further interrupt: %u", ticks);
	send_eoi = true;
	pic_eoi(0);
	check(wait_for(&ticks, 2), "after the EOI there is");

	ticks = 0;
	cli();
	for (u64 start = rdtsc(); rdtsc() - start < 3 * tick;)
		;
	check(ticks == 0, "nothing comes while IF = 0");

	pit(0, PIT_HZ / 200);
	let_in(10 * tick);
	ticks = 0;
	pit(0, PIT_HZ / 200);
	check(wait_for(&ticks, 1), "mode 0 interrupts at its terminal count");
	let_in(5 * tick);
	check(ticks == 1, "once: %u", ticks);

	/* STI holds interrupts off for one instruction: CLI is that one */
	pit(2, PIT_HZ / 1000);
	for (u64 start = rdtsc(); !(pic_read(0x0a) & 1) && rdtsc() - start < 200 * tick;)
		;
	ticks = 0;
	for (unsigned k = 0; k < 20; k++)
		__asm__ volatile("sti; cli" : : : "memory");
	check(ticks == 0, "STI, CLI lets nothing in");
	__asm__ volatile("sti; nop; cli" : : : "memory");
	/* One, or more where the handler takes longer than a period. */
	check(ticks >= 1, "STI, NOP, CLI does: %u", ticks);
	pit(0, 0);
	pic_mask(0);
}

static void timer(u32 lvt, u32 count)
{
	apic_write(APIC_TIMER_DIV, 3); /* by 16 */
	apic_write(APIC_LVT_TIMER, lvt | TIMER_VECTOR);
	apic_write(APIC_TIMER_INIT, count);
}

static void test_apic_timer(void)
{
	u32 r[4], a, b;
	u64 t;

	interrupt_handler[TIMER_VECTOR] = on_apic_timer;
	apic_enable();

	timer(LVT_MASKED, 0xffffffff);
	a = apic_read(APIC_TIMER_CUR);
	for (t = rdtsc(); rdtsc() - t < 1000000;)
		;
	b = apic_read(APIC_TIMER_CUR);
	check(b < a, "the current count runs down: %x, %x", a, b);

	apic_ticks = 0;
	timer(0, 1000000);
	check(apic_ticks == 0, "not yet");
	check(wait_for(&apic_ticks, 1), "one-shot interrupt");
	check(apic_read(APIC_TIMER_CUR) == 0, "the count has stopped at 0");
	let_in(20000000);
	check(apic_ticks == 1, "once: %u", apic_ticks);

	apic_ticks = 0;
	timer(1 << 17, 100000);
	check(wait_for(&apic_ticks, 20), "periodic interrupts: %u", apic_ticks);
	apic_write(APIC_LVT_TIMER, 1 << 17 | LVT_MASKED | TIMER_VECTOR);
	let_in(1000000);
	apic_ticks = 0;
	let_in(50000000);
	check(apic_ticks == 0, "none while masked: %u", apic_ticks);
	apic_write(APIC_LVT_TIMER, 1 << 17 | TIMER_VECTOR);
	check(wait_for(&apic_ticks, 1), "again when unmasked");
	apic_write(APIC_TIMER_INIT, 0);
	let_in(1000000);
	apic_ticks = 0;
	let_in(20000000);
	check(apic_ticks == 0, "a count of 0 stops it");

	cpuid(1, 0, r);
	if (!(r[2] & 1u << 24)) {
		skip("TSC deadline: not offered");
		return;
	}
	apic_ticks = 0;
	apic_write(APIC_LVT_TIMER, 2 << 17 | TIMER_VECTOR);
	t = rdtsc();
	wrmsr(0x6e0, t + 300000000);
	check(apic_ticks == 0 && rdmsr(0x6e0) != 0, "armed");
	check(wait_for(&apic_ticks, 1), "TSC deadline interrupt");
	check(rdtsc() >= t + 300000000, "not before the deadline");
	check(rdmsr(0x6e0) == 0, "the MSR is 0 afterwards");
	apic_ticks = 0;
	wrmsr(0x6e0, 1);
	check(wait_for(&apic_ticks, 1), "a deadline in the past comes at once");
	apic_ticks = 0;
	wrmsr(0x6e0, rdtsc() + 300000000);
	wrmsr(0x6e0, 0);
	let_in(400000000);
	check(apic_ticks == 0, "0 disarms");
	apic_write(APIC_TIMER_INIT, 1000);
	check(apic_read(APIC_TIMER_CUR) == 0, "no count in deadline mode");
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	wrmsr(0x6e0, rdtsc() + 1000000);
	check(rdmsr(0x6e0) == 0, "the MSR stays 0 outside deadline mode");
}

void guest_main(void)
{
	test_pit();
	test_apic_timer();
}
