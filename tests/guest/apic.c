/* Local APIC and I/O APIC: identity, IPIs to itself, priorities, IRR and ISR, NMI, x2APIC mode, CR8, redirection of a pin.
 * [SDM3 chapter 10; 82093AA] */
#include "lib/irq.h"

#define IOAPIC        0xfec00000ul
#define MSR_APIC_BASE 0x1b

static volatile u32 count[256];
static volatile u32 order[8], nr_order;
static bool x2apic, no_eoi;

static u32 ioapic_read(u32 r)
{
	*(volatile u32 *)IOAPIC = r;
	return *(volatile u32 *)(IOAPIC + 0x10);
}

static void ioapic_write(u32 r, u32 v)
{
	*(volatile u32 *)IOAPIC = r;
	*(volatile u32 *)(IOAPIC + 0x10) = v;
}

static void eoi(void)
{
	if (x2apic)
		wrmsr(0x80b, 0);
	else
		apic_write(APIC_EOI, 0);
}

static void on_vector(struct frame *f)
{
	count[f->vector]++;
	if (nr_order < 8)
		order[nr_order++] = (u32)f->vector;
	if (!no_eoi)
		eoi();
}

static volatile u32 nmis, nmis_more;
static void ipi(u32 icr);
static void on_nmi(struct frame *f)
{
	nmis++;
	while (nmis_more) {
		nmis_more--;
		ipi(4 << 8);
	}
}

static void ipi(u32 icr)
{
	apic_write(APIC_ICR2, 0);
	apic_write(APIC_ICR, icr);
}

#define SELF (1u << 18)

#define MOVED 0xfed40000ul

static void test_moved(void)
{
	u32 version = apic_read(APIC_VER);
	u64 base = rdmsr(MSR_APIC_BASE);

	wrmsr(MSR_APIC_BASE, (base & 0xfff) | MOVED);
	check(*(volatile u32 *)(MOVED + APIC_VER) == version, "its page moves");
	check(apic_read(APIC_VER) == 0xffffffff, "and leaves nothing behind: %x", apic_read(APIC_VER));
	wrmsr(MSR_APIC_BASE, base);
	check(apic_read(APIC_VER) == version, "and comes back");
}

static void test_local(void)
{
	u32 r[4];

	cpuid(1, 0, r);
	check((rdmsr(MSR_APIC_BASE) & ~0x400ull) == (APIC_BASE | 0x900),
	      "APIC_BASE: enabled, bootstrap processor");
	check(apic_read(APIC_ID) >> 24 == r[1] >> 24, "APIC ID as in CPUID");
	check((apic_read(APIC_VER) & 0xff) >= 0x10 && (apic_read(APIC_VER) >> 16 & 0xff) >= 3, "version %x",
	      apic_read(APIC_VER));

	for (unsigned v = 0x40; v < 0x100; v++)
		interrupt_handler[v] = on_vector;
	interrupt_handler[0x30] = NULL;
	interrupt_handler[NMI] = on_nmi;

	ipi(SELF | 0x60);
	check(apic_bit(APIC_IRR, 0x60) && count[0x60] == 0, "an IPI to itself is in IRR while IF = 0");
	check(wait_for(&count[0x60], 1) && !apic_bit(APIC_IRR, 0x60), "and is delivered");
	ipi(0x61);
	check(wait_for(&count[0x61], 1), "an IPI by physical destination 0");

	/* two at once: the higher vector first */
	nr_order = 0;
	ipi(SELF | 0x62);
	ipi(SELF | 0x92);
	wait_for(&nr_order, 2);
	check(nr_order == 2 && order[0] == 0x92 && order[1] == 0x62,
	      "the higher priority comes first: %u of them, %x, %x", nr_order, order[0], order[1]);

	/* in service: lower classes wait for the EOI */
	no_eoi = true;
	ipi(SELF | 0x93);
	wait_for(&count[0x93], 1);
	no_eoi = false;
	check(apic_bit(APIC_ISR, 0x93) && apic_read(APIC_PPR) == 0x90, "in service: ISR, PPR %x",
	      apic_read(APIC_PPR));
	ipi(SELF | 0x94);
	let_in(1000000);
	check(count[0x94] == 0, "the same class waits");
	ipi(SELF | 0xa0);
	check(wait_for(&count[0xa0], 1), "a higher class does not");
	eoi();
	check(wait_for(&count[0x94], 1), "EOI lets it in");

	apic_write(APIC_TPR, 0x70);
	ipi(SELF | 0x65);
	ipi(SELF | 0x85);
	let_in(1000000);
	check(count[0x65] == 0 && count[0x85] == 1, "TPR holds off its class and lower ones: %u, %u",
	      count[0x65], count[0x85]);
#if BITS == 64
	u64 cr8;
	__asm__ volatile("mov %%cr8, %0" : "=r"(cr8));
	check(cr8 == 7, "CR8 is TPR's upper half");
	__asm__ volatile("mov %0, %%cr8" : : "r"(5ul));
	check(apic_read(APIC_TPR) == 0x50, "and writes it: %x", apic_read(APIC_TPR));
	check(wait_for(&count[0x65], 1), "lowering CR8 lets it in");
	__asm__ volatile("mov %0, %%cr8" : : "r"(0ul));
#else
	apic_write(APIC_TPR, 0);
	check(wait_for(&count[0x65], 1), "lowering TPR lets it in");
#endif

	nmis = 0;
	ipi(SELF | 4 << 8);
	let_in(100000);
	if (nmis == 0) { /* the shorthand `self' is not valid with NMI: by destination, then */
		ipi(4 << 8);
		let_in(1000000);
	}
	check(nmis == 1, "NMI to itself, with IF = 0 or 1: %u", nmis);
	nmis = 0;
	ipi(4 << 8);
	ipi(4 << 8);
	let_in(100000);
	check(nmis == 2, "two NMIs behind each other: %u", nmis);
	nmis = 0;
	nmis_more = 10;
	ipi(4 << 8);
	let_in(100000);
	check(nmis == 2, "ten NMIs in the handler of one are one more: %u", nmis - 1);
	test_moved();

	apic_write(APIC_SVR, 0xff);
	ipi(SELF | 0x66);
	let_in(1000000);
	check(count[0x66] == 0, "a disabled APIC accepts nothing");
	check(apic_read(APIC_LVT_TIMER) & LVT_MASKED, "and masks its LVT");
	apic_write(APIC_SVR, 0x1ff);
}

static void test_ioapic(void)
{
	u32 n, version = ioapic_read(1);

	n = (version >> 16 & 0xff) + 1;
	check((version & 0xff) >= 0x11 && n >= 24, "I/O APIC version %x, %u pins", version & 0xff, n);
	ioapic_write(0x10 + 2 * 20 + 1, 0);
	ioapic_write(0x10 + 2 * 20, 0x1a5a5);
	check((ioapic_read(0x10 + 2 * 20) & ~0x5000u) == 0x1a5a5 - 0x1000 + 0x1000 - (0x1a5a5 & 0x5000),
	      "redirection entry keeps its writable bits: %x", ioapic_read(0x10 + 2 * 20));
	ioapic_write(0x10 + 2 * 20, 0x10000);

	/* the 8254 is on pin 2 */
	pic_init(0);
	ioapic_write(0x10 + 2 * 2 + 1, 0);
	ioapic_write(0x10 + 2 * 2, 0x10070);
	outb(0x43, 0x34);
	outb(0x40, 0);
	outb(0x40, 0x10);
	let_in(20000000);
	check(count[0x70] == 0, "a masked pin does nothing");
	ioapic_write(0x10 + 2 * 2, 0x70);
	check(wait_for(&count[0x70], 3), "8254 through the I/O APIC: %u", count[0x70]);
	ioapic_write(0x10 + 2 * 2, 0x10070);
	outb(0x43, 0x30);
}

static void to_msr(uptr v)
{
	wrmsr((u32)(v >> 16), v & 0xffff);
}

static void set_base(uptr v)
{
	wrmsr(MSR_APIC_BASE, v);
}

static void test_x2apic(void)
{
	u32 r[4];

	cpuid(1, 0, r);
	if (!(r[2] & 1u << 21)) {
		skip("x2APIC: not offered");
		return;
	}
	expect("x2APIC MSR in xAPIC mode", guest_try(to_msr, 0x808 << 16), GP, 0);
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0xc00);
	x2apic = true;
	cpuid(0xb, 0, r);
	check(rdmsr(0x802) == r[3], "x2APIC ID as in CPUID");
	wrmsr(0x80f, 0x1ff);
	wrmsr(0x83f, 0x68);
	check(wait_for(&count[0x68], 1), "SELF IPI register");
	wrmsr(0x830, SELF | 0x69);
	check(wait_for(&count[0x69], 1), "ICR by one MSR");
	wrmsr(0x830, (u64)rdmsr(0x802) << 32 | 0x6a);
	check(wait_for(&count[0x6a], 1), "32-bit physical destination");
	expect("reserved TPR bit", guest_try(to_msr, 0x808ul << 16 | 0x100), GP, 0);
	expect("EOI of something else than 0", guest_try(to_msr, 0x80bul << 16 | 1), GP, 0);
	expect("write to the version", guest_try(to_msr, 0x803ul << 16), GP, 0);
	expect("x2APIC to xAPIC", guest_try(set_base, APIC_BASE | 0x900), GP, 0);
	wrmsr(MSR_APIC_BASE, APIC_BASE | 0x100);
	wrmsr(MSR_APIC_BASE, APIC_BASE | 0x900);
	x2apic = false;
	check(apic_read(APIC_SVR) == 0xff, "xAPIC again, by way of off: SVR %x", apic_read(APIC_SVR));
}

void guest_main(void)
{
	pic_init(0);
	apic_enable();
	test_local();
	test_ioapic();
	test_x2apic();
}
