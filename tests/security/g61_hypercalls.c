/* Hypercalls that do not exist, interrupts to processors that do not exist, INIT and start-up messages to nobody, in any
 * order [G61]. */
#include "hostile.h"

static u64 result;

static void call_intel(uptr n)
{
	u64 a = n;

	__asm__ volatile("vmcall" : "+a"(a) : "b"(~0ull), "c"(~0ull), "d"(HOLE), "S"(1ull << 63) : "memory");
	result = a;
}

static void call_amd(uptr n)
{
	u64 a = n;

	__asm__ volatile("vmmcall" : "+a"(a) : "b"(~0ull), "c"(~0ull), "d"(HOLE), "S"(1ull << 63) : "memory");
	result = a;
}

static void hypercalls(void (*fn)(uptr), const char *name)
{
	unsigned taken = 0, bad = 0;

	for (unsigned k = 0; k < 2000; k++) {
		uptr n = k < 1000 ? k : next_random();

		if (guest_try(fn, n))
			bad += fault.vector != UD;
		else
			taken += (long)result >= 0;
	}
	check(!bad && !taken, "%s: %u succeed, %u strange", name, taken, bad);
	if (guest_try_user(fn, 5, 0))
		check(fault.vector == UD || fault.vector == GP, "%s at CPL 3", name);
}

static void messages(void)
{
	apic_enable();
	for (unsigned k = 0; k < 20000; k++) {
		/* to one that is absent: fixed, lowest priority, SMI, NMI, INIT, start-up; edge and level, asserted or not */
		u32 mode = (u32)(next_random() & 7), bits = (u32)(next_random() & 0xc800);

		apic_write(APIC_ICR2, (u32)(1 + next_random() % 254) << 24);
		apic_write(APIC_ICR, bits | mode << 8 | (u32)(next_random() & 0xff));
	}
	/* to all others, of whom there are none */
	for (unsigned mode = 0; mode < 8; mode++)
		apic_write(APIC_ICR, 3u << 18 | 1u << 14 | mode << 8 | 0x99);
	/* vectors below 16, to itself */
	for (unsigned v = 0; v < 16; v++)
		apic_write(APIC_ICR, 1u << 18 | v);
	apic_write(APIC_ESR, 0);
	check(apic_read(APIC_ESR) & 0x20, "illegal vectors are reported: %x", apic_read(APIC_ESR));
	check(true, "messages to nobody");
}

void guest_main(void)
{
	cli();
	hypercalls(call_intel, "VMCALL");
	hypercalls(call_amd, "VMMCALL");
	messages();
}
