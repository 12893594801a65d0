/* LOCKed operations on devices, on nothing, across pages, and across the end of RAM [G58]: they do what they do on RAM, or
 * raise an exception, and tear nothing. */
#include "hostile.h"

static u8 pages[3 * 4096] __attribute__((aligned(4096)));

static void inc64(uptr a)
{
	__asm__ volatile("lock incq (%0)" : : "r"(a) : "memory", "cc");
}
static void xadd32(uptr a)
{
	u32 v = 1;

	__asm__ volatile("lock xaddl %0, (%1)" : "+r"(v) : "r"(a) : "memory", "cc");
}
static void xchg16(uptr a)
{
	u16 v = 1;

	__asm__ volatile("xchgw %0, (%1)" : "+r"(v) : "r"(a) : "memory");
}
static void cmpxchg8(uptr a)
{
	__asm__ volatile("lock cmpxchg8b (%0)" : : "r"(a), "a"(0), "d"(0), "b"(1), "c"(2) : "memory", "cc");
}
static void cmpxchg16(uptr a)
{
	__asm__ volatile("lock cmpxchg16b (%0)"
			 :
			 : "r"(a), "a"(0ul), "d"(0ul), "b"(1ul), "c"(2ul)
			 : "memory", "cc");
}
static void bts(uptr a)
{
	__asm__ volatile("lock btsq %1, (%0)" : : "r"(a), "r"(12345ul) : "memory", "cc");
}
static void cmpxchg64(uptr a)
{
	u64 ax = 0;

	__asm__ volatile("lock cmpxchgq %2, (%1)" : "+a"(ax) : "r"(a), "r"(5ul) : "memory", "cc");
}

static void (*const fns[])(uptr) = { inc64, xadd32, xchg16, cmpxchg8, cmpxchg16, bts, cmpxchg64 };

static void all(const char *what, uptr at)
{
	unsigned bad = 0;

	for (unsigned k = 0; k < sizeof(fns) / sizeof(fns[0]); k++)
		for (unsigned off = 0; off < 17; off++)
			if (guest_try(fns[k], at + off) && fault.vector != GP && fault.vector != PF &&
			    fault.vector != AC)
				bad++;
	check(!bad, "%s: %u strange", what, bad);
}

void guest_main(void)
{
	u32 r[4];

	cli();
	all("nothing", HOLE);
	all("across pages of nothing", HOLE + 0xff8);
	all("HPET", HPET + 0x100);
	all("across the end of the HPET", HPET + 0x3f8);
	all("I/O APIC", IOAPIC);
	all("local APIC", 0xfee00380);
	all("ROM", ROM);
	all("the last bytes of ROM", 0x100000 - 32);
	all("from nothing to RAM", RAM_END - 8);
	all("to the end of RAM", RAM_END - 24);

	*(u64 *)(pages + 4093) = 0x00ffffffffffffff;
	inc64((uptr)pages + 4093);
	check(*(u64 *)(pages + 4093) == 0x0100000000000000, "LOCK INC across pages");
	cpuid(1, 0, r);
	if (r[2] & 1u << 13) {
		expect("CMPXCHG16B unaligned", guest_try(cmpxchg16, (uptr)pages + 8), GP, 0);
		memset_(pages, 0, 16);
		cmpxchg16((uptr)pages);
		check(((u64 *)pages)[0] == 1 && ((u64 *)pages)[1] == 2, "CMPXCHG16B");
	}
}
