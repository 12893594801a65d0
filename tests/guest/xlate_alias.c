/* Warm code and what linear addresses mean: the same code at several addresses, pages of code that are mapped elsewhere,
 * taken away or forbidden while others lead into them by linked branches, address spaces that change in the middle. And
 * the same for data: what a warm load or store reaches after the mapping has changed. [SDM3 4.10] */
#include "lib/guest.h"
#include "lib/emit.h"
#include "lib/paging.h"

#define NO_FLUSH (1ul << 63)
#define FL_ZF    0x40ul

/* The window of 4 KiB pages; again in the upper half. Page n is physical page n at first. */
#define WINDOW 0x40000000ul
#define HIGH   0xffff800040000000ul
#define PHYS   0x4000000ul
/* The image is a supervisor's at its own address and the user's here. */
#define ALIAS 0x80000000ul

#define VA(n) (WINDOW + (n)*4096ul)
#define PA(n) (PHYS + (n)*4096ul)

#define WARM 200

static u64 page_table[512] __attribute__((aligned(4096)));
static u64 high_pdpt[512] __attribute__((aligned(4096)));
static u64 high_pd[512] __attribute__((aligned(4096)));
/* A second address space, which differs in the window. */
static u64 other_pml4[512] __attribute__((aligned(4096)));
static u64 other_pdpt[512] __attribute__((aligned(4096)));
static u64 other_pd[512] __attribute__((aligned(4096)));
static u64 other_table[512] __attribute__((aligned(4096)));
static bool has_nx, has_smep, has_smap, has_pcid, has_invpcid;

typedef u64 (*code_fn)(u64 a, u64 b, u64 c);

static u64 call(uptr code, u64 a, u64 b, u64 c)
{
	return ((code_fn)code)(a, b, c);
}

static void call_it(uptr code)
{
	call(code, 0, 0, 0);
}

static void map(unsigned n, unsigned physical, u64 bits)
{
	((volatile u64 *)page_table)[n] = PA(physical) | bits;
}

static void invpcid(u64 type, u64 pcid, u64 address)
{
	struct {
		u64 pcid, address;
	} d = { pcid, address };
	__asm__ volatile("invpcid %0, %1" : : "m"(d), "r"(type) : "memory");
}

/* --- ways to drop a translation --- */

enum drop {
	DROP_INVLPG,
	DROP_CR3,
	DROP_PGE,
	DROP_INVPCID_ADDRESS,
	DROP_INVPCID_CONTEXT,
	DROP_INVPCID_ALL,
	DROP_INVPCID_BUT_GLOBAL,
	DROPS
};
static const char *const drop_names[] = { "INVLPG",
					  "MOV to CR3",
					  "CR4.PGE",
					  "INVPCID of an address",
					  "INVPCID of a context",
					  "INVPCID of all",
					  "INVPCID of all but global ones" };

static bool can_drop(enum drop how)
{
	return how < DROP_INVPCID_ADDRESS || has_invpcid;
}

static void drop(enum drop how, uptr va)
{
	switch (how) {
	case DROP_INVLPG: invlpg((void *)va); break;
	case DROP_CR3: write_cr3(read_cr3()); break;
	case DROP_PGE:
		write_cr4(read_cr4() ^ CR4_PGE);
		write_cr4(read_cr4() ^ CR4_PGE);
		break;
	case DROP_INVPCID_ADDRESS: invpcid(0, 0, va); break;
	case DROP_INVPCID_CONTEXT: invpcid(1, 0, 0); break;
	case DROP_INVPCID_ALL: invpcid(2, 0, 0); break;
	default: invpcid(3, 0, 0);
	}
}

/* --- ways from page 0 into page 1 --- */

enum link {
	LINK_CALL,
	LINK_JMP,
	LINK_JCC,
	LINK_FALL,
	LINK_CROSS,
	LINK_RET,
	LINK_INDIRECT_CALL,
	LINK_INDIRECT_JMP,
	LINK_MEMORY,
	LINKS
};
static const char *const link_names[] = { "CALL",
					  "JMP",
					  "Jcc",
					  "falling through",
					  "an instruction over the end of the page",
					  "RET",
					  "CALL of a register",
					  "JMP to a register",
					  "JMP through memory" };

/* The code at page 0; its entry's linear address. Entered at page 1 its first byte, or for LINK_CROSS two bytes before. */
static uptr put_link(enum link how, uptr base)
{
	uptr entry = base + 0x100;

	if (how == LINK_FALL)
		entry = base + 4096 - 8;
	if (how == LINK_CROSS)
		entry = base + 4096 - 3 - 4;
	emit_to(PA(0) + (entry - base), entry);
	switch (how) {
	case LINK_CALL:
		emit_call(base + 4096);
		emit("\x83\xc0\x00\xc3", 4); /* add $0, %eax; ret */
		break;
	case LINK_JMP: emit_jmp(base + 4096); break;
	case LINK_JCC:
		emit("\x31\xc0", 2); /* xor %eax, %eax */
		emit_jcc(0x4, base + 4096);
		emit("\x0f\x0b", 2);
		break;
	case LINK_FALL: emit("\x90\x90\x90\x90\x48\x8d\x49\x01", 8); break; /* lea 1(%rcx), %rcx */
	case LINK_CROSS: emit("\x48\x8d\x49\x01\xb8\x34\x12", 7); break;    /* mov $imm, %eax */
	default:
		emit("\x48\x8d\x05", 3); /* lea page1(%rip), %rax */
		emit_relative(base + 4096);
		if (how == LINK_RET)
			emit("\x50\xc3", 2);
		else if (how == LINK_INDIRECT_CALL)
			emit("\xff\xd0\xc3", 3);
		else if (how == LINK_INDIRECT_JMP)
			emit("\xff\xe0", 2);
		else
			emit("\x50\x48\x83\xc4\x08\xff\x64\x24\xf8",
			     9); /* push %rax; add $8, %rsp; jmp *-8(%rsp) */
	}
	return entry;
}

/* What lies at the start of the target; returns what the whole then returns. */
static u32 put_target(enum link how, unsigned physical, u16 v)
{
	emit_at(PA(physical));
	if (how == LINK_CROSS) {
		emit8((u8)v);
		emit8((u8)(v >> 8));
		emit8(0xc3);
		return (u32)v << 16 | 0x1234;
	}
	emit8(0xb8);
	emit32(v * 0x10001u);
	emit8(0xc3);
	return v * 0x10001u;
}

static unsigned warm_up(uptr entry, u32 want)
{
	unsigned bad = 0;

	for (unsigned k = 0; k < WARM; k++)
		bad += (u32)call(entry, 0, 0, 0) != want;
	return bad;
}

/* --- code pages that move, go and come back --- */

static void remap(enum link how, uptr base)
{
	uptr entry = put_link(how, base);

	for (enum drop d = 0; d < DROPS; d++) {
		unsigned bad = 0;
		u32 want[2];

		if (!can_drop(d))
			continue;
		for (unsigned k = 0; k < 2; k++)
			want[k] = put_target(how, 10 + k, (u16)(0x1111 + k * 0x2222 + how));
		for (unsigned n = 0; n < 20; n++) {
			map(1, 10 + n % 2, P | W);
			drop(d, base + 4096);
			/* at once, then often */
			bad += (u32)call(entry, 0, 0, 0) != want[n % 2];
			if (n % 3)
				bad += warm_up(entry, want[n % 2]);
		}
		check(!bad, "%s into a page that is mapped elsewhere, after %s: %u wrong", link_names[how],
		      drop_names[d], bad);
	}
}

/* The same page at addresses that a TLB of 2^k entries, in order, keeps at the same place: they put each other out. The one that
 * is dropped is not there then. */
static void crowd(enum link how, uptr base)
{
	uptr entry = put_link(how, base);
	u64 *pd = base == WINDOW ? guest_pd + (WINDOW >> 21) : high_pd;

	for (unsigned shift = 21; shift < 28; shift++) {
		uptr other = base + (1ul << shift) + 4096 + (how == LINK_CROSS ? 2 : 0); /* a RET */
		unsigned bad = 0;
		u32 want[2];

		pd[1ul << (shift - 21)] = (uptr)page_table | P | W | U;
		for (unsigned k = 0; k < 2; k++)
			want[k] = put_target(how, 10 + k, (u16)(0x1357 + k * 0x2222 + how));
		for (unsigned n = 0; n < 40; n++) {
			map(1, 10 + n % 2, P | W);
			invlpg((void *)(base + 4096));
			bad += n < 3 ? warm_up(entry, want[n % 2]) : (u32)call(entry, 0, 0, 0) != want[n % 2];
			for (unsigned k = 0; k < 3; k++) {
				call(other, 0, 0, 0); /* either, as it was not dropped */
				bad += (u32)call(entry, 0, 0, 0) != want[n % 2];
			}
			if (n % 4 > 1)
				call(other, 0, 0, 0);
		}
		check(!bad, "%s into a page that is mapped elsewhere, with another one %lu MiB on: %u wrong",
		      link_names[how], 1ul << (shift - 20), bad);
		pd[1ul << (shift - 21)] = 0;
		write_cr3(read_cr3());
	}
	map(1, 10, P | W);
	invlpg((void *)(base + 4096));
}

static void forbid(enum link how, uptr base)
{
	uptr entry = put_link(how, base);
	u32 want = put_target(how, 10, 0x7531);
	static const struct {
		const char *name;
		u64 bits;
		unsigned error;
	} ways[] = { { "not present", 0, 0x10 },
		     { "not executable", P | W | NX, 0x11 },
		     { "a user's, with SMEP", P | W | U, 0x11 } };

	for (unsigned w = 0; w < 3; w++) {
		bool smep = w == 2, ok = true;

		if ((w == 1 && !has_nx) || (smep && !has_smep))
			continue;
		for (unsigned n = 0; n < 6; n++) {
			map(1, 10, smep ? P | W | U : P | W);
			invlpg((void *)(base + 4096));
			ok &= !warm_up(entry, want);
			if (smep) {
				write_cr4(read_cr4() | CR4_SMEP);
			} else {
				map(1, 10, ways[w].bits);
				drop(n % 3, base + 4096);
			}
			ok &= guest_try(call_it, entry) && fault.vector == PF &&
			      fault.error == ways[w].error && fault.cr2 == base + 4096 &&
			      fault.ip == base + 4096 - (how == LINK_CROSS ? 3 : 0);
			if (smep)
				write_cr4(read_cr4() & ~CR4_SMEP);
		}
		map(1, 10, P | W);
		invlpg((void *)(base + 4096));
		ok &= !warm_up(entry, want);
		check(ok, "%s into a page that is %s", link_names[how], ways[w].name);
	}
}

/* Warm for both privilege levels, then a supervisor's only. */
static void forbid_user(enum link how)
{
	uptr entry = put_link(how, WINDOW);
	bool ok = true;

	put_target(how, 10, 0x7531);
	for (unsigned n = 0; n < 4; n++) {
		map(0, 0, P | W | U);
		map(1, 10, P | W | U);
		write_cr3(read_cr3());
		for (unsigned k = 0; k < WARM; k++) {
			ok &= !guest_try_user(call_it, entry, 0) && fault.vector == 0x30;
			call_it(entry);
		}
		map(1, 10, P | W);
		invlpg((void *)VA(1));
		call_it(entry);
		ok &= guest_try_user(call_it, entry, 0) && fault.vector == PF && fault.error == 0x15 &&
		      fault.cr2 == VA(1);
		call_it(entry);
	}
	map(0, 0, P | W);
	write_cr3(read_cr3());
	check(ok, "%s from user code into a page that is a supervisor's", link_names[how]);
}

/* Page 1 calls page 0, which maps page 1 elsewhere and returns into it. */
static void return_into(void)
{
	for (enum drop d = 0; d < DROPS; d++) {
		unsigned bad = 0;

		if (!can_drop(d) || d == DROP_PGE)
			continue;
		/* page 0: mov %rsi, (%rdi), and the drop */
		emit_to(PA(0), VA(0));
		emit("\x48\x89\x37", 3);
		if (d == DROP_INVLPG)
			emit("\x0f\x01\x3a", 3); /* invlpg (%rdx) */
		else if (d == DROP_CR3)
			emit("\x0f\x20\xd8\x0f\x22\xd8", 6); /* by way of %rax */
		else
			emit("\x66\x41\x0f\x38\x82\x08", 6); /* invpcid (%r8), %rcx */
		emit8(0xc3);
		for (unsigned k = 0; k < 2; k++) {
			emit_to(PA(10 + k), VA(1));
			emit_call(VA(0));
			emit8(0xb8);
			emit32(100 + k);
			emit8(0xc3);
		}
		struct {
			u64 pcid, address;
		} descriptor = { 0, VA(1) };
		map(1, 10, P | W);
		write_cr3(read_cr3());
		for (unsigned n = 0; n < 2000; n++) {
			unsigned other = n % 50 == 49 || n % 64 == 0; /* mostly the same again */
			static unsigned now;
			now = n ? now ^ other : 0;
			u64 got;
			register u64 r8 __asm__("r8") = (uptr)&descriptor;
			__asm__ volatile("call *%5"
					 : "=a"(got), "+r"(r8)
					 : "D"(&page_table[1]), "S"(PA(10 + now) | P | W), "d"(VA(1)),
					   "r"(VA(1)), "c"((u64)(d - DROP_INVPCID_ADDRESS))
					 : "memory", "cc");
			bad += got != 100 + now;
		}
		check(!bad, "RET into a page that is mapped elsewhere since the CALL, by %s: %u wrong",
		      drop_names[d], bad);
	}
}

/* --- one piece of code at several addresses --- */

static void aliases(void)
{
	static const uptr bases[] = { WINDOW, WINDOW + 0x6000, HIGH, HIGH + 0x6000 };
	unsigned bad = 0;

	/* Page 0 and page 6 are the same; behind them are different ones, of code and of data. */
	map(6, 0, P | W);
	map(1, 10, P | W);
	map(7, 11, P | W);
	map(2, 12, P | W);
	map(8, 13, P | W);
	write_cr3(read_cr3());
	*(u64 *)PA(12) = 0x1000;
	*(u64 *)PA(13) = 0x2000;
	for (unsigned k = 0; k < 2; k++) {
		emit_to(PA(10 + k), VA(1)); /* page 1: lea 5(%rcx) or 9(%rcx), %rcx; ret */
		emit("\x48\x8d\x49", 3);
		emit8(k ? 9 : 5);
		emit8(0xc3);
	}
	/* RAX: its own address; RCX: what data and code behind it say, %rdi times */
	emit_to(PA(0), VA(0));
	emit("\x31\xc9", 2);
	uptr again = emit_here();
	emit("\x48\x03\x0d", 3); /* add page2(%rip), %rcx */
	emit_relative(VA(2));
	emit_call(VA(1));
	emit("\x48\xff\xcf", 3);
	emit_jcc(0x5, again);
	emit("\xe8\x00\x00\x00\x00\x58", 6); /* call next; pop %rax */
	uptr popped = emit_here() - 1;
	emit("\x4c\x8d\x05\x00\x00\x00\x00\x49\x29\xc0", 10); /* lea (%rip), %r8; sub %rax, %r8 */
	emit("\x48\x8d\x04\x08\x4c\x01\xc0\xc3", 8);          /* lea (%rax,%rcx), %rax; add %r8, %rax; ret */
	for (unsigned n = 0; n < 4000; n++) {
		unsigned k = n & 64 ? n & 3 : n >> 7 & 3;
		u64 each = k & 1 ? 0x2009 : 0x1005;
		u64 want = bases[k] + (popped - WINDOW) + 8 + each * (1 + n % 7);

		bad += call(bases[k], 1 + n % 7, 0, 0) != want;
	}
	check(!bad, "the same code at four addresses: %u wrong", bad);

	/* Changed through one address, executed at the others. */
	bad = 0;
	emit_at(PA(0) + 0x800);
	emit("\xb8\x00\x00\x00\x00\xc3", 6);
	for (u32 n = 0; n < 4000; n++) {
		if (n % 16 == 0)
			*(volatile u32 *)((n & 16 ? PA(0) : bases[n >> 5 & 3]) + 0x801) = n;
		bad += call(bases[n >> 1 & 3] + 0x800, 0, 0, 0) != (n & ~15u);
	}
	check(!bad, "changed through one address and executed at another: %u wrong", bad);

	/* The same, where the code itself stores into its alias, ahead. */
	bad = 0;
	emit_to(PA(0) + 0xa00, VA(0) + 0xa00);
	emit("\x89\x37\x90\xb8\x00\x00\x00\x00\xc3", 9); /* mov %esi, (%rdi); nop; mov $imm, %eax; ret */
	for (u32 n = 0; n < 3000; n++) {
		bool change = n % 100 > 90;
		static u32 now;
		now = change ? n : n ? now : 0;
		bad += call(bases[n & 3] + 0xa00, change ? bases[n >> 2 & 3] + 0xa04 : PA(14), n, 0) != now;
	}
	check(!bad, "a store ahead through another address: %u wrong", bad);
	map(6, 6, P | W);
	map(7, 7, P | W);
	map(8, 8, P | W);
	write_cr3(read_cr3());
}

/* --- address spaces --- */

static u64 spaces_loop(uptr loop, u64 cr3a, u64 cr3b, u64 n)
{
	return call(loop, cr3a, cr3b, n);
}

static void spaces(bool pcid, uptr base, unsigned bits)
{
	const char *what = pcid ? "PCIDs" : "address spaces";
	uptr loop = PHYS + 0x100000;
	u64 a = (uptr)guest_pml4, b = (uptr)other_pml4;
	unsigned bad = 0;

	if (pcid) {
		write_cr3(a);
		write_cr4(read_cr4() | CR4_PCIDE);
		a |= 5 | NO_FLUSH;
		b |= 6 | NO_FLUSH;
	}
	for (enum link how = 0; how < LINKS; how++) {
		uptr entry = put_link(how, base);
		u32 want[2] = { put_target(how, 10, 0x1357), put_target(how, 11, 0x2468) };

		map(1, 10, P | W | bits);
		other_table[1] = PA(11) | P | W | bits;
		write_cr3(a & ~NO_FLUSH);
		write_cr3(b & ~NO_FLUSH);
		bad = 0;
		for (unsigned n = 0; n < 1200; n++) {
			unsigned k = n < 400 ? n & 1 : n / 100 & 1;
			write_cr3(k ? b : a);
			bad += (u32)call(entry, 0, 0, 0) != want[k];
		}
		check(!bad, "%s: %s into a page that is another one in each: %u wrong", what, link_names[how],
		      bad);
	}
	/* mov %rdi, %cr3; call page 1; the same with %rsi; %rdx times */
	map(1, 10, P | W | bits);
	put_target(LINK_CALL, 10, 1);
	put_target(LINK_CALL, 11, 2);
	emit_at(loop);
	emit("\x45\x31\xc0\x49\xb9", 5); /* xor %r8d, %r8d; mov $page1, %r9 */
	emit32((u32)(base + 4096));
	emit32((u32)((base + 4096) >> 32));
	uptr again = emit_here();
	emit("\x0f\x22\xdf\x41\xff\xd1\x49\x01\xc0", 9); /* call *%r9; add %rax, %r8 */
	emit("\x0f\x22\xde\x41\xff\xd1\x49\xc1\xe0\x01\x49\x01\xc0\x49\xd1\xe8",
	     16); /* shl $1, %r8; add %rax, %r8; shr %r8 */
	emit("\x48\xff\xca", 3);
	emit_jcc(0x5, again);
	emit("\x4c\x89\xc0\xc3", 4);
	u64 want = 0;
	for (unsigned n = 0; n < 700; n++)
		want = ((want + 0x10001) * 2 + 0x20002) / 2;
	u64 got = spaces_loop(loop, a, b, 700);
	check(got == want, "%s that change in a loop: %llx", what, got);
	/* data: a load in the same page at once */
	*(u64 *)(PA(10) + 0x800) = 3;
	*(u64 *)(PA(11) + 0x800) = 7;
	emit_at(loop);
	emit("\x45\x31\xc0\x49\xb9", 5);
	emit32((u32)(base + 4096 + 0x800));
	emit32((u32)((base + 4096 + 0x800) >> 32));
	again = emit_here();
	emit("\x0f\x22\xdf\x4d\x03\x01\x0f\x22\xde\x4d\x03\x01\x49\xff\x01",
	     15); /* add (%r9), %r8 twice; incq (%r9) */
	emit("\x48\xff\xca", 3);
	emit_jcc(0x5, again);
	emit("\x4c\x89\xc0\xc3", 4);
	got = call(loop, a, b, 600);
	check(got == 600 * 3 + 600 * 7 + 599 * 300 && *(u64 *)(PA(10) + 0x800) == 3 &&
		      *(u64 *)(PA(11) + 0x800) == 607,
	      "%s that change between loads: %llu", what, got);

	if (pcid) {
		uptr entry = put_link(LINK_JMP, base);
		bad = 0;
		put_target(LINK_JMP, 10, 1);
		put_target(LINK_JMP, 11, 2);
		put_target(LINK_JMP, 12, 3);
		write_cr3(b & ~NO_FLUSH);
		for (unsigned n = 0; n < 60; n++) {
			unsigned now = n % 2 ? 12 : 11, how = n % 5;

			if (how < 4 && !has_invpcid)
				continue;
			write_cr3(b);
			bad += warm_up(entry, (now == 12 ? 2 : 3) * 0x10001) && n;
			write_cr3(a);
			bad += warm_up(entry, 0x10001);
			other_table[1] = PA(now) | P | W | bits;
			if (how == 0)
				invpcid(0, 6, base + 4096);
			else if (how == 1)
				invpcid(1, 6, 0);
			else if (how == 2)
				invpcid(2, 0, 0);
			else if (how == 3)
				invpcid(3, 0, 0);
			bad += (u32)call(entry, 0, 0, 0) != 0x10001;
			write_cr3(how == 4 ? b & ~NO_FLUSH : b);
			bad += (u32)call(entry, 0, 0, 0) != (now == 12 ? 3u : 2u) * 0x10001;
		}
		check(!bad, "another PCID's page mapped elsewhere: %u wrong", bad);
		write_cr3((uptr)guest_pml4);
		write_cr4(read_cr4() & ~CR4_PCIDE);
	}
	write_cr3((uptr)guest_pml4);
}

/* --- data --- */

/* (%rdi): a load, a read-modify-write, a store; all three are one group. */
static uptr put_group(void)
{
	emit_to(PA(0) + 0xc00, VA(0) + 0xc00);
	emit("\x48\x8b\x07\x48\x01\x77\x08\x48\x89\x47\x10\x48\x8b\x47\x08\xc3", 16);
	return VA(0) + 0xc00;
}

static void group_it(uptr address)
{
	call(VA(0) + 0xc00, address, 1, 0);
}

static void data(void)
{
	uptr group = put_group();
	unsigned bad = 0;

	map(0, 0, P | W | U);
	for (enum drop d = 0; d < DROPS; d++) {
		if (!can_drop(d))
			continue;
		bad = 0;
		for (unsigned k = 0; k < 2; k++) {
			*(u64 *)PA(20 + k) = 0x100 + k;
			*(u64 *)(PA(20 + k) + 8) = 0;
			*(u64 *)(PA(20 + k) + 16) = 0;
		}
		u64 sum[2] = { 0, 0 };
		for (unsigned n = 0; n < 20; n++) {
			unsigned k = n & 1;
			map(2, 20 + k, P | W);
			drop(d, VA(2));
			for (unsigned m = 0; m < 1 + (n % 3) * WARM; m++) {
				sum[k] += n + 1;
				bad += call(group, VA(2), n + 1, 0) != sum[k];
			}
			bad += *(u64 *)(PA(20 + k) + 8) != sum[k] || *(u64 *)(PA(20 + k) + 16) != 0x100 + k;
		}
		check(!bad, "data mapped elsewhere, after %s: %u wrong", drop_names[d], bad);
	}

	static const struct {
		const char *name;
		u64 bits;
		unsigned error, user_error; /* ~0: no fault */
	} ways[] = {
		{ "not present", 0, 0, 4 },
		{ "read-only", P | U, 3, 7 },
		{ "a supervisor's", P | W, ~0u, 5 },
		{ "a user's with SMAP", P | W | U, 1, ~0u },
	};
	write_cr0(read_cr0() | 0x10000);
	for (unsigned w = 0; w < 4; w++) {
		bool ok = true;

		if (w == 3 && !has_smap)
			continue;
		for (unsigned n = 0; n < 12; n++) {
			bool user = n & 1;
			unsigned error = user ? ways[w].user_error : ways[w].error;
			u64 before;

			map(2, 20, P | W | U);
			write_cr3(read_cr3());
			for (unsigned k = 0; k < WARM; k++) {
				ok &= user ? !guest_try_user(group_it, VA(2), 0)
					   : !guest_try(group_it, VA(2));
				if (k % 16 == 0)
					call(group, VA(2), 1, 0);
			}
			if (w == 3)
				write_cr4(read_cr4() | CR4_SMAP);
			map(2, 20, ways[w].bits);
			drop(n / 2 % 3, VA(2));
			before = *(u64 *)(PA(20) + 8);
			*(u64 *)(PA(20) + 16) = 0;
			bool faulted = user ? guest_try_user(group_it, VA(2), 0) : guest_try(group_it, VA(2));
			if (w == 3)
				write_cr4(read_cr4() & ~CR4_SMAP);
			if (error == ~0u) {
				ok &= !faulted && *(u64 *)(PA(20) + 8) == before + 1;
				continue;
			}
			/* read-only: the load is done, the read-modify-write is not */
			ok &= faulted && fault.vector == PF && fault.error == error;
			ok &= fault.cr2 == VA(2) + (error & 2 ? 8 : 0) &&
			      fault.ip == group + (error & 2 ? 3 : 0);
			ok &= *(u64 *)(PA(20) + 8) == before && *(u64 *)(PA(20) + 16) == 0;
		}
		check(ok, "data that is %s", ways[w].name);
	}
	write_cr0(read_cr0() & ~0x10000ul);

	/* The mapping changes in the middle of a run: mov (%rdi), %rax; mov %rsi, (%rdx); invlpg (%rdi); add 8(%rdi), %rax; ret */
	bad = 0;
	emit_to(PA(0) + 0xd00, VA(0) + 0xd00);
	emit("\x48\x8b\x07\x48\x89\x32\x0f\x01\x3f\x48\x03\x47\x08\xc3", 14);
	for (unsigned k = 0; k < 2; k++) {
		*(u64 *)PA(20 + k) = 1 + k;
		*(u64 *)(PA(20 + k) + 8) = 100 + 100 * k;
	}
	map(2, 20, P | W);
	invlpg((void *)VA(2));
	for (unsigned n = 0, now = 0; n < 3000; n++) {
		unsigned next = n % 37 > 30 ? 1 : 0;
		bad += call(VA(0) + 0xd00, VA(2), PA(20 + next) | P | W, (uptr)&page_table[2]) !=
		       1 + now + 100 + 100 * next;
		now = next;
	}
	check(!bad, "INVLPG between two loads: %u wrong", bad);

	/* The same with a store that follows, to a page that is no longer to be written. */
	bool ok = true;
	emit_to(PA(0) + 0xd00, VA(0) + 0xd00);
	emit("\x48\x89\x07\x48\x89\x32\x0f\x01\x3f\x48\x89\x77\x08\xc3", 14);
	write_cr0(read_cr0() | 0x10000);
	for (unsigned n = 0; n < 1500; n++) {
		bool last = n % 500 == 499;
		u64 entry = PA(20) | (last ? P : P | W);
		map(2, 20, P | W);
		invlpg((void *)VA(2));
		*(u64 *)(PA(20) + 8) = 0;
		fault.happened = false;
		if (last) {
			static uptr args[3];
			args[0] = VA(2), args[1] = entry, args[2] = (uptr)&page_table[2];
			/* guest_try() has one argument: a stub at d80 loads the three */
			emit_to(PA(0) + 0xd80, VA(0) + 0xd80);
			emit("\x48\x8b\x77\x08\x48\x8b\x57\x10\x48\x8b\x3f\xe9", 12);
			emit_relative(VA(0) + 0xd00);
			ok &= guest_try((void (*)(uptr))(VA(0) + 0xd80), (uptr)args) && fault.vector == PF &&
			      fault.error == 3 && fault.cr2 == VA(2) + 8 && *(u64 *)(PA(20) + 8) == 0;
		} else {
			call(VA(0) + 0xd00, VA(2), entry, (uptr)&page_table[2]);
			ok &= *(u64 *)(PA(20) + 8) == entry;
		}
	}
	write_cr0(read_cr0() & ~0x10000ul);
	check(ok, "INVLPG between two stores, the second to a page that has become read-only");
	map(0, 0, P | W);
	write_cr3(read_cr3());
}

/* --- the stack --- */

/* %rdi: the stack's top; %rdx rounds with %rsi on it; twice the sum. */
__asm__(".text\n"
	"st_run: mov %rsp, %r8; mov %rdi, %rsp; xor %eax, %eax\n"
	"1: push %rsi; add (%rsp), %rax; call 2f; pop %rcx; dec %rdx; jnz 1b; mov %r8, %rsp; ret\n"
	"2: add 8(%rsp), %rax; ret\n"
	/* once, for guest_try_user() */
	"st_once: mov %rsp, %r8; mov %rdi, %rsp\n"
	"st_push: push %r8; pop %r8; mov %r8, %rsp; ret\n"
	/* the page changes under the stack: the PTE at %rdx becomes %rsi; what is then there, below the top */
	"st_change: mov %rsp, %r8; mov %rdi, %rsp; push %rdx; push %rdx; mov %rsi, (%rdx); invlpg -8(%rdi); pop %rax; mov (%rsp), %rax; push %rax; pop %rcx;"
	"add %rcx, %rax; mov %r8, %rsp; ret\n"
	/* the same by INVPCID of the type %rcx */
	"st_invpcid: mov %rsp, %r8; mov %rdi, %rsp; push %rdx; push %rdx; mov %rsi, (%rdx); invpcid (%r9), %rcx; pop %rax; mov (%rsp), %rax; push %rax; pop %rcx;"
	"add %rcx, %rax; mov %r8, %rsp; ret\n"
	/* address spaces %rdi and %rsi in turns, %rdx rounds, the stack's top in %rcx: %rdx is pushed in the first one; what is there in the second one */
	"st_spaces: mov %rsp, %r8; mov %rcx, %rsp; xor %r9d, %r9d\n"
	"1: mov %rdi, %cr3; push %rdx; mov %rsi, %cr3; mov (%rsp), %rax; add %rax, %r9; pop %rax; add %rax, %r9; dec %rdx; jnz 1b;"
	"mov %r8, %rsp; mov %r9, %rax; ret\n");
extern const u8 st_run[], st_once[], st_push[], st_change[], st_invpcid[], st_spaces[];

static void stack_pages(uptr base)
{
	uptr top = base + 0x2000 + 0x800;
	u64 *slot[2] = { (u64 *)(PA(20) + 0x7f8), (u64 *)(PA(21) + 0x7f8) };
	unsigned bad;

	for (enum drop d = 0; d < DROPS; d++) {
		if (!can_drop(d))
			continue;
		bad = 0;
		*slot[0] = *slot[1] = 0;
		for (u64 n = 1; n <= 40; n++) {
			unsigned k = n & 1;
			u64 other = *slot[!k];
			map(2, 20 + k, P | W);
			drop(d, base + 0x2000);
			bad += call((uptr)st_run, top, n, 1 + n % 3 * 100) != 2 * n * (1 + n % 3 * 100);
			bad += *slot[k] != n || *slot[!k] != other;
		}
		check(!bad, "a stack that is mapped elsewhere, after %s: %u wrong", drop_names[d], bad);
	}
	bad = 0;
	map(2, 20, P | W);
	invlpg((void *)(base + 0x2000));
	for (unsigned n = 0, now = 0; n < 2000; n++) {
		unsigned next = n % 50 > 40 ? n & 1 : 0;
		u64 want;
		*slot[!now] = 0x1000 + n;
		want = next == now ? 2 * (uptr)&page_table[2] : 2 * (0x1000ull + n);
		bad += call((uptr)st_change, top, PA(20 + next) | P | W, (uptr)&page_table[2]) != want;
		now = next;
	}
	for (unsigned n = 0, now = 0; has_invpcid && n < 2000; n++) {
		unsigned next = n & 1;
		u64 want = 2 * (0x1000ull + n), got;
		struct {
			u64 pcid, address;
		} descriptor = { 0, base + 0x2000 };
		register u64 r9 __asm__("r9") = (uptr)&descriptor;
		*slot[!now] = 0x1000 + n;
		__asm__ volatile("call *%4"
				 : "=a"(got), "+r"(r9)
				 : "D"(top), "S"(PA(20 + next) | P | W), "r"(st_invpcid), "d"(&page_table[2]),
				   "c"((u64)(n / 16 % 4))
				 : "r8", "memory", "cc");
		bad += got != (next == now ? 2 * (uptr)&page_table[2] : want);
		now = next;
	}
	check(!bad, "a stack that is mapped elsewhere while it is in use: %u wrong", bad);

	map(2, 20, P | W);
	other_table[2] = PA(21) | P | W;
	for (unsigned pcid = 0; pcid < 1u + has_pcid; pcid++) {
		u64 a = (uptr)guest_pml4, b = (uptr)other_pml4, v;
		if (pcid) {
			write_cr3(a);
			write_cr4(read_cr4() | CR4_PCIDE);
			a |= 5 | NO_FLUSH;
			b |= 6 | NO_FLUSH;
		}
		*slot[1] = 7;
		__asm__ volatile("call *%4"
				 : "=a"(v)
				 : "D"(a), "S"(b), "c"(top), "r"(st_spaces), "d"(500ul)
				 : "r8", "r9", "memory", "cc");
		check(v == 2 * 7 * 500 && *slot[0] == 1 && *slot[1] == 7, "a stack in two %s: %llu",
		      pcid ? "PCIDs" : "address spaces", v);
		write_cr3((uptr)guest_pml4);
		write_cr4(read_cr4() & ~CR4_PCIDE);
	}

	static const struct {
		const char *name;
		u64 bits;
		unsigned error;
	} ways[] = { { "not present", 0, 6 }, { "read-only", P | U, 7 }, { "a supervisor's", P | W, 7 } };
	if (base != WINDOW)
		return;
	for (unsigned w = 0; w < 3; w++) {
		bool ok = true;

		for (unsigned n = 0; n < 12; n++) {
			map(2, 20, P | W | U);
			write_cr3(read_cr3());
			for (unsigned k = 0; k < WARM / 2; k++) {
				ok &= !guest_try_user((void (*)(uptr))st_once, top, 0);
				if (n & 1)
					call((uptr)st_run, top, 1, 2);
			}
			map(2, 20, ways[w].bits);
			drop(n / 2 % 3, base + 0x2000);
			if (w == 2 && n & 1)
				call((uptr)st_run, top, 1, 2); /* still the supervisor's */
			*slot[0] = 0x77;
			ok &= guest_try_user((void (*)(uptr))st_once, top, 0) && fault.vector == PF &&
			      fault.error == ways[w].error;
			ok &= fault.cr2 == top - 8 && fault.ip == (uptr)st_push + ALIAS && *slot[0] == 0x77;
		}
		check(ok, "a stack that is %s", ways[w].name);
	}
}

static void features(void)
{
	u32 r[4];

	cpuid(1, 0, r);
	has_pcid = r[2] & 1u << 17;
	cpuid(7, 0, r);
	has_smep = r[1] & 1u << 7;
	has_smap = r[1] & 1u << 20;
	has_invpcid = r[1] & 1u << 10;
	cpuid(0x80000001, 0, r);
	has_nx = r[3] & 1u << 20;
}

static void build(void)
{
	for (unsigned k = 0; k < 512; k++) {
		guest_pd[k] &= ~U;
		guest_pd[(ALIAS >> 21) + k] = (u64)k << 21 | PS | P | W | U;
		page_table[k] = PA(k) | P | W;
		other_table[k] = PA(k) | P | W;
	}
	guest_pd[WINDOW >> 21] = (uptr)page_table | P | W | U;
	high_pd[0] = (uptr)page_table | P | W | U;
	high_pdpt[1] = (uptr)high_pd | P | W | U;
	guest_pml4[256] = (uptr)high_pdpt | P | W | U;
	memcpy_(other_pml4, guest_pml4, 4096);
	memcpy_(other_pdpt, guest_pdpt, 4096);
	memcpy_(other_pd, guest_pd + 512, 4096);
	other_pml4[0] = (uptr)other_pdpt | P | W | U;
	other_pml4[256] = (uptr)other_pdpt | P | W | U; /* has the window where high_pdpt has it */
	other_pdpt[1] = (uptr)other_pd | P | W | U;
	other_pd[0] = (uptr)other_table | P | W | U;
	write_cr3((uptr)guest_pml4);
}

void guest_main(void)
{
	static const uptr bases[] = { WINDOW, HIGH };

	cli();
	features();
	user_alias = ALIAS;
	build();
	aliases();
	for (enum link how = 0; how < LINKS; how++)
		for (unsigned k = 0; k < 2; k++) {
			remap(how, bases[k]);
			crowd(how, bases[k]);
			forbid(how, bases[k]);
		}
	for (enum link how = 0; how < LINKS; how++)
		forbid_user(how);
	return_into();
	for (unsigned k = 0; k < 2; k++) {
		spaces(false, bases[k], 0);
		if (has_pcid)
			spaces(true, bases[k], 0);
	}
	data();
	for (unsigned k = 0; k < 2; k++)
		stack_pages(bases[k]);
}
