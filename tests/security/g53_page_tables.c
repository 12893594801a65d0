/* Page tables that point to themselves, into devices, ROM, nothing and beyond the physical address width, with
 * reserved bits, and accessed and dirty bits that have nowhere to go [G53]. Each access gives #PF, or data. */
#include "hostile.h"

#define P        1ull
#define W        2ull
#define PS       0x80ull
#define SLOT     200 /* of the PML4: free */
#define VA(slot) ((u64)(slot) << 39)

static u64 pdpt[512] __attribute__((aligned(4096)));
static u64 pd[512] __attribute__((aligned(4096)));
static u64 pt[512] __attribute__((aligned(4096)));

static void flush(void)
{
	write_cr3(read_cr3());
}

/* #PF or nothing, for reads, writes, fetches, and what runs on the host's own unit. */
static void touch_sse(uptr a)
{
	__asm__ volatile("movups (%0), %%xmm0; movups %%xmm0, (%0)" : : "r"(a));
}
static void touch_locked(uptr a)
{
	__asm__ volatile("lock incq (%0)" : : "r"(a) : "memory", "cc");
}
static void touch_stack(uptr a)
{
	__asm__ volatile("mov %%rsp, %%rcx; mov %0, %%rsp; push %%rax; pop %%rax; mov %%rcx, %%rsp"
			 :
			 : "r"(a + 64)
			 : "rcx", "memory");
}

static void access(const char *what, u64 va)
{
	static void (*const fns[])(uptr) = { try_read8, try_read64, try_write64, touch_sse, touch_locked };
	unsigned bad = 0;

	flush();
	for (unsigned k = 0; k < sizeof(fns) / sizeof(fns[0]); k++)
		for (unsigned off = 0; off < 0x1000; off += 0x3fd)
			if (guest_try(fns[k], (uptr)(va + off)) && fault.vector != PF)
				bad++;
	check(!bad, "%s: %u strange", what, bad);
}

/* Code is different: what it fetches from a device is no instruction. */
static void fetch(const char *what, u64 va)
{
	flush();
	guest_try(try_call, (uptr)va);
	check(fault.happened && (fault.vector == PF || fault.vector == UD || fault.vector == GP),
	      "%s, fetch: vector %u", what, fault.vector);
}

static void set_all(u64 leaf)
{
	memset_(pt, 0, 4096);
	guest_pml4[SLOT] = (uptr)pdpt | P | W;
	pdpt[0] = (uptr)pd | P | W;
	pd[0] = (uptr)pt | P | W;
	pt[0] = leaf;
	pt[1] = leaf;
}

static const u64 places[] = { HPET,    IOAPIC,         0xfee00000, HOLE,      ROM,
			      0xff000, RAM_END - 4096, RAM_END,    0xfffff000 };

void guest_main(void)
{
	u64 max, id;
	u32 r[4];
	char what[] = "table at place 0, level 0";

	cli();
	cpuid(0x80000008, 0, r);
	max = 1ull << (r[0] & 0xff);

	/* recursive: a table as the page it maps, and every table at once */
	guest_pml4[SLOT] = (uptr)guest_pml4 | P | W;
	flush();
	id = VA(SLOT) | (u64)SLOT << 30 | (u64)SLOT << 21 | (u64)SLOT << 12;
	if (id & 1ull << 47)
		id |= 0xffffull << 48;
	check(*(volatile u64 *)(id + 8 * SLOT) == guest_pml4[SLOT], "a recursive entry shows its own table");
	/* a table that removes itself by being written through itself */
	*(volatile u64 *)(id + 8 * (SLOT + 1)) = (uptr)guest_pml4 | P | W;
	check(guest_pml4[SLOT + 1] == ((uptr)guest_pml4 | P | W), "and is written through it");
	guest_pml4[SLOT + 1] = 0;
	set_all(0);
	pt[0] = (uptr)pt | P | W;
	flush();
	*(volatile u64 *)VA(SLOT) = 0;
	check(pt[0] == 0, "a page of entries unmaps itself");
	expect("after the flush", (flush(), guest_try(try_read8, VA(SLOT))), PF, 0);

	/* tables in devices, ROM and nothing, at each level: accessed and dirty bits go nowhere */
	for (unsigned p = 0; p < sizeof(places) / sizeof(places[0]); p++)
		for (unsigned level = 0; level < 4; level++) {
			set_all(HOLE | P | W);
			*(level == 0   ? &guest_pml4[SLOT]
			  : level == 1 ? &pdpt[0]
			  : level == 2 ? &pd[0]
				       : &pt[0]) = places[p] | P | W;
			what[15] = (char)('0' + p);
			what[24] = (char)('0' + level);
			access(what, VA(SLOT));
			/* RAM and ROM hold data that may be code. */
			if (level == 3 && places[p] != ROM && places[p] != 0xff000 &&
			    places[p] != RAM_END - 4096)
				fetch(what, VA(SLOT));
		}
	/* reserved bits at each level */
	for (unsigned level = 0; level < 4; level++) {
		static u64 *const at[] = { &guest_pml4[SLOT], pdpt, pd, pt };
		unsigned bad = 0;

		for (unsigned b = 12; b < 52; b++) {
			if (1ull << b < max)
				continue;
			set_all((uptr)pt | P | W);
			*at[level] |= 1ull << b;
			flush();
			bad += !guest_try(try_read8, VA(SLOT)) || fault.vector != PF || fault.error != 9;
		}
		check(!bad, "reserved address bits, level %u", level);
	}
	set_all((uptr)pt | P | W);
	guest_pml4[SLOT] |= PS;
	flush();
	expect("PS in the PML4", guest_try(try_read8, VA(SLOT)), PF, 9);
	set_all((uptr)pt | P | W);
	pd[0] = 0x2000 | PS | P | W; /* bit 12 is the PAT's */
	flush();
	expect("a 2 MiB page that is not aligned", guest_try(try_read8, VA(SLOT)), PF, -1);
	/* the stack in a device, and across its end */
	set_all(HPET | P | W);
	flush();
	guest_try(touch_stack, VA(SLOT));
	pt[1] = 0;
	flush();
	expect("8 bytes, from a device into nothing", guest_try(try_read64, VA(SLOT) + 0xffc), PF, 0);
	check(fault.cr2 == VA(SLOT) + 0x1000, "CR2 %lx", fault.cr2);
	/* 57-bit addresses are not there */
	guest_pml4[SLOT] = 0;
	flush();
}
