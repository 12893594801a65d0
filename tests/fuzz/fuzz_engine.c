/* Hostile guests in one vCPU of the software engine [G44, G51-G55, G58, G59]: random code, page tables,
 * segments, control registers, gates and descriptors, run for a bounded number of blocks. Whatever
 * the guest does, nothing outside its RAM is touched (pages next to it cannot be accessed, the rest is the
 * sanitizers' business), the host's own state survives, the run ends, and the state it
 * ends in is one that the engine accepts again.
 *
 * The input is a script of choices; where it ends, pseudo-random numbers made of it go on. So a short input is a
 * whole case. The vCPU's timer, which the engine looks at every so many blocks, counts down to the end.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../engine_env.h"
#include "base/bits.h"
#include "vm/vm.h"
#include "x86/regs.h"

#define RAM_SIZE MiB
#define GUARD    MiB
#define NR_TICKS 6  /* looks at the clock per case */
#define MAX_RUNS 4  /* with the waits in between */
#define SECONDS  30 /* for one case, whatever the host's load */
/* Of the process, in KiB: the code cache, and with a sanitizer what it keeps of freed memory. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define MAX_GROWTH (1024 * KiB)
#else
#define MAX_GROWTH (64 * KiB)
#endif

/* Guest-physical. The rest of the first MiB is data; ROM_PAGE is read-only, MMIO and the hole are outside RAM. */
enum {
	IVT = 0x0,
	GDT = 0x2000,
	LDT = 0x3000,
	IDT = 0x4000,
	TSS = 0x5000,
	TABLES = 0x10000,
	NR_TABLES = 16,
	CODE = 0x40000,
	CODE_SIZE = 0x2000,
	HANDLERS = 0x44000,
	DATA = 0x50000,
	STACK = 0x60000,
	ROM_PAGE = 0x70000,
};
#define MMIO 0xfed00000ull

/* Selectors: 08 code, 10 data, 18 and 20 the same for CPL 3, 28 TSS (two entries), 38 LDT (two), 48 code of the other
 * width, 50 another TSS; those behind are random. */
enum {
	S_CODE = 0x08,
	S_DATA = 0x10,
	S_UCODE = 0x18,
	S_UDATA = 0x20,
	S_TSS = 0x28,
	S_LDT = 0x38,
	S_OTHER = 0x48,
	S_TSS2 = 0x50
};

enum kind { REAL16, PROT16, PROT32, PAGED32, PAE32, VM86, COMPAT32, LONG64, NR_KINDS };

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

static struct vm vm;
static struct vcpu vcpu;
static unsigned ticks;
static u64 cases;

/* --- the script --- */
static const u8 *script, *script_end;
static u64 rng;

static u64 next_random(void)
{
	u64 x = rng += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static u64 take(unsigned bytes)
{
	u64 v = 0;

	for (unsigned k = 0; k < bytes; k++)
		v |= (script < script_end ? *script++ : next_random() & 0xff) << 8 * k;
	return v;
}

static bool one_in(unsigned n)
{
	return take(1) % n == 0;
}

static u64 pick(const u64 *values, unsigned n)
{
	return values[take(1) % n];
}

#define PICK(...) pick((const u64[]){ __VA_ARGS__ }, ARRAY_SIZE(((const u64[]){ __VA_ARGS__ })))

static u64 canonical(u64 v)
{
	return bits_sext(v, 48);
}

/* An address or a number that is likely to be at an edge of something. */
static u64 number(void)
{
	u64 v = PICK(0, CODE, CODE + 0x1000, DATA, STACK, TABLES, GDT, TSS, ROM_PAGE, ROM_PAGE + 0x1000,
		     RAM_SIZE, MMIO, 0xfffff000, 1ull << 32, 0x7ffffffff000, 0x800000000000,
		     0xffff800000000000, ~0ull << 12, IDT, 0x8000);

	switch (take(1) % 8) {
	case 0: return take(8);
	case 1: return take(1);
	case 2: return -take(1);
	case 3: return v + take(2);
	case 4: return v + 0x1000 - take(1) % 40;
	default: return v + take(1);
	}
}

/* --- code --- */
static unsigned put_insn(u8 *p)
{
	static const u8 prefixes[] = { 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36,
				       0x3e, 0x26, 0x64, 0x65, 0x48, 0x4f, 0x41 };
	static const u8 system[] = { 0x00, 0x01, 0x01, 0x02, 0x03, 0x05, 0x06, 0x07, 0x08, 0x09,
				     0x20, 0x21, 0x22, 0x23, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35,
				     0xa0, 0xa1, 0xa2, 0xa8, 0xa9, 0xae, 0xb2, 0xb4, 0xc7, 0xb0,
				     0xb1, 0xc0, 0xc1, 0xa3, 0xab, 0xba, 0x78, 0x79 };
	static const u8 busy[] = { 0x8e, 0x9a, 0xea, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf, 0xf1, 0xe4, 0xe6,
				   0xec, 0xee, 0x6c, 0x6d, 0x6e, 0x6f, 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab,
				   0xac, 0xad, 0xae, 0xaf, 0x9d, 0x9c, 0x17, 0x07, 0x1f, 0xc8, 0xc9, 0x60,
				   0x61, 0x62, 0x63, 0xfa, 0xfb, 0xf4, 0xff, 0x88, 0x89, 0x8a, 0x8b, 0xc6,
				   0xc7, 0xe8, 0xe9, 0xeb, 0xc3, 0x8f, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd,
				   0xde, 0xdf, 0x9b, 0xf6, 0xf7, 0xe2, 0x0f };
	unsigned n = 0;

	while (n < 4 && one_in(3))
		p[n++] = prefixes[take(1) % sizeof(prefixes)];
	switch (take(1) % 6) {
	case 0: p[n++] = (u8)take(1); break;
	case 1:
		p[n++] = 0x0f;
		p[n++] = (u8)take(1);
		break;
	case 2:
		p[n++] = 0x0f;
		p[n++] = system[take(1) % sizeof(system)];
		break;
	case 3: /* VEX */
		p[n++] = 0xc5 - one_in(2);
		p[n++] = (u8)take(1);
		p[n++] = (u8)take(1);
		p[n++] = (u8)take(1);
		break;
	case 4:
		p[n++] = 0x0f;
		p[n++] = one_in(2) ? 0x38 : 0x3a;
		p[n++] = (u8)take(1);
		break;
	default: p[n++] = busy[take(1) % sizeof(busy)];
	}
	/* ModRM: a register, (reg), disp32 or what comes */
	p[n++] = one_in(2) ? (u8)take(1) : (u8)(take(1) & 0x3f);
	while (n < 12 && !one_in(3))
		p[n++] = (u8)take(1);
	return n;
}

static void put_code(u8 *p, unsigned size)
{
	unsigned n = 0;

	while (n + 16 < size) {
		if (one_in(8))
			p[n++] = (u8)take(1);
		else
			n += put_insn(p + n);
	}
	while (n < size)
		p[n++] = (u8)next_random();
	if (one_in(2)) { /* a loop, back to the beginning */
		p[size - 2] = 0xeb;
		p[size - 1] = (u8) - (int)MIN(size, 100u);
	}
}

static void put_handlers(enum kind kind)
{
	static const u8 next16[] = { 0x89, 0xe5, 0xff, 0x46, 0x00, 0xcf };        /* BP = SP; ++[BP]; IRET */
	static const u8 next32[] = { 0xff, 0x04, 0x24, 0xcf };                    /* ++[ESP]; IRET */
	static const u8 next32e[] = { 0x83, 0xc4, 0x04, 0xff, 0x04, 0x24, 0xcf }; /* with an error code */
	static const u8 next64[] = { 0x48, 0xff, 0x04, 0x24, 0x48, 0xcf };
	static const u8 next64e[] = { 0x48, 0x83, 0xc4, 0x08, 0x48, 0xff, 0x04, 0x24, 0x48, 0xcf };
	u8 *h = vm.ram.base + HANDLERS;

	for (unsigned v = 0; v < 256; v++, h += 32) {
		bool error = v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21;

		if (one_in(16))
			put_code(h, 32);
		else if (kind == REAL16 || kind == PROT16)
			memcpy(h, next16, sizeof(next16));
		else if (kind >= COMPAT32)
			memcpy(h, error ? next64e : next64, error ? sizeof(next64e) : sizeof(next64));
		else
			memcpy(h, error ? next32e : next32, error ? sizeof(next32e) : sizeof(next32));
	}
}

/* --- descriptors --- */
static u64 descriptor(u32 base, u32 limit, u8 access, u8 flags)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
	       (u64)(limit >> 16 & 15) << 48 | (u64)flags << 52 | (u64)(base >> 24) << 56;
}

/* Code and data segments that are nearly right, gates, system segments, or anything. */
static u64 random_descriptor(void)
{
	u8 access = (u8)(take(1) | (one_in(4) ? 0 : 0x80));
	u16 sel = (u16)(take(1) & 0xfb);

	if (one_in(2)) /* a gate */
		return (HANDLERS + (take(1) << 5)) | (u64)sel << 16 | (take(1) & 31) << 32 |
		       (u64)(access & 0xef) << 40;
	return descriptor(one_in(2) ? 0 : (u32)number(), one_in(2) ? 0xfffff : (u32)take(2), access,
			  (u8)(take(1) & 15));
}

static void put_tables(enum kind kind)
{
	u8 *r = vm.ram.base;
	bool lm = kind >= COMPAT32;
	u8 flags = kind == PROT16 ? 0 : kind == LONG64 ? 0xa : 0xc;

	for (unsigned k = 0; k < 512; k++) {
		st64(r + GDT + 8 * k, random_descriptor());
		st64(r + LDT + 8 * k, random_descriptor());
	}
	st64(r + GDT, 0);
	st64(r + GDT + S_CODE, descriptor(0, 0xfffff, 0x9b, lm ? 0xa : flags));
	st64(r + GDT + S_DATA, descriptor(0, 0xfffff, 0x93, kind == PROT16 ? 0 : 0xc));
	st64(r + GDT + S_UCODE, descriptor(0, 0xfffff, 0xfb, flags));
	st64(r + GDT + S_UDATA, descriptor(0, 0xfffff, 0xf3, kind == PROT16 ? 0 : 0xc));
	st64(r + GDT + S_TSS, descriptor(TSS, one_in(8) ? (u32)take(2) : 0x2fff, 0x8b, 0));
	st64(r + GDT + S_TSS + 8, 0);
	st64(r + GDT + S_LDT, descriptor(LDT, (u32)take(2), 0x82, 0));
	st64(r + GDT + S_LDT + 8, 0);
	st64(r + GDT + S_OTHER, descriptor(0, 0xfffff, 0x9b, lm ? 0xc : 0));
	st64(r + GDT + S_TSS2, descriptor(TSS + 0x800, 0x2fff, one_in(2) ? 0x89 : 0x81, 0));
	for (unsigned k = 0; k < 0x1000; k += 8)
		st64(r + TSS + k, one_in(4) ? take(8) : number());
	if (lm) {
		for (unsigned k = 0; k < 10; k++)
			st64(r + TSS + 4 + 8 * k, one_in(8) ? number() : STACK + 0x1000);
	} else {
		for (unsigned k = 0; k < 3; k++) {
			st32(r + TSS + 4 + 8 * k, one_in(8) ? (u32)number() : STACK + 0x1000);
			st32(r + TSS + 8 + 8 * k, one_in(8) ? (u32)take(2) : S_DATA);
		}
	}
	st16(r + TSS + 102, (u16)PICK(104, 0x1000, 0x2ffe, 0xffff, 0x88));
	for (unsigned v = 0; v < 256; v++) {
		u32 to = HANDLERS + 32 * v;
		u8 type = (u8)(kind == PROT16 ? 0x86 : 0x8e) | (one_in(4) ? 0x60 : 0);
		u64 gate = (to & 0xffff) | S_CODE << 16 | (u64)type << 40 | (u64)(to >> 16) << 48;

		if (one_in(24))
			gate = one_in(2) ? random_descriptor() : (u64)S_TSS2 << 16 | 0x850000000000;
		st32(r + IVT + 4 * v, (u32)(one_in(24) ? take(4) : (HANDLERS >> 4) << 16 | 32 * v));
		if (lm) {
			st64(r + IDT + 16 * v, gate | (one_in(16) ? take(1) % 8 << 32 : 0));
			st64(r + IDT + 16 * v + 8, one_in(64) ? number() : 0);
		} else {
			st64(r + IDT + 8 * v, gate);
		}
	}
}

/* --- page tables: everything below the end of RAM (and more) one to one, with faults --- */
static u64 mutate(u64 entry)
{
	switch (take(1) % 8) {
	case 0: return entry ^ 1ull << take(1) % 64;
	case 1: return (entry & 0xfff) | (number() & ~0xfffull);
	case 2: return entry & ~PTE_P;
	case 3: return (entry & 0xfff) | MMIO;
	case 4: return (entry & 0xfff) | ROM_PAGE;
	case 5: return (entry & 0xfff) | (TABLES + (take(1) % NR_TABLES << 12)); /* recursive */
	case 6: return entry ^ (1ull << take(1) % 12);
	default: return take(8);
	}
}

static u64 entry_of(u64 gpa, unsigned odds, bool wide)
{
	u64 e = gpa | PTE_P | PTE_W | PTE_U;

	if (one_in(odds))
		e = mutate(e);
	return wide ? e : (u32)e;
}

static void put_pages(enum kind kind)
{
	u8 *t = vm.ram.base + TABLES;
	bool wide = kind >= PAE32 && kind != VM86;
	unsigned n = wide ? 512 : 1024;
	/* 0: the root; 1, 2: the levels below; 3: the tables of the first 2 or 4 MiB; 4: of others */
	bool leaf_only = !one_in(4);

	memset(t, 0, NR_TABLES << 12);
	for (unsigned k = 0; k < 256; k++) {
		u64 e = entry_of(k << 12, 24, wide);

		if (wide)
			st64(t + 0x3000 + 8 * k, e);
		else
			st32(t + 0x3000 + 4 * k, (u32)e);
	}
	for (unsigned level = 0; level < 3; level++) {
		for (unsigned k = 0; k < n; k++) {
			u64 next = level == 2 ? TABLES + 0x3000 : TABLES + (level + 1) * 0x1000;
			u64 e = 0;

			if (k < 4 || k > n - 3)
				e = entry_of(next, leaf_only ? 255 : 8, wide);
			else if (one_in(32))
				e = mutate(one_in(2) ? next | PTE_P : (u64)k << 21 | PTE_P | PTE_PS);
			if (wide)
				st64(t + level * 0x1000 + 8 * k, e);
			else
				st32(t + level * 0x1000 + 4 * k, (u32)e);
		}
	}
	if (kind == PAE32) /* these have fewer bits that may be set */
		for (unsigned k = 0; k < 4; k++)
			st64(t + 0x1000 + 8 * k, (TABLES + 0x2000) | PTE_P);
	if (!wide) /* two levels: root and tables */
		for (unsigned k = 0; k < 1024; k++)
			if (k < 4 || k > 1020)
				st32(t + 4 * k, (u32)entry_of(TABLES + 0x3000, leaf_only ? 255 : 8, false));
}

/* --- the processor --- */
static void segment(struct x86_segreg *s, u16 sel, u64 base, u32 limit, u32 attr)
{
	*s = (struct x86_segreg){ .sel = sel, .base = base, .limit = limit, .attr = attr };
}

static void put_segments(struct x86_state *s, enum kind kind, unsigned cpl)
{
	u32 size = kind == PROT16 ? 0 : SA_DB | SA_G,
	    data = SA_P | SA_S | 3 | (u32)cpl << SA_DPL_SHIFT | size;
	u32 code = SA_P | SA_S | 0xb | (u32)cpl << SA_DPL_SHIFT | (kind == LONG64 ? SA_L | SA_G : size);

	if (kind == REAL16 || kind == VM86) {
		for (unsigned k = 0; k < X86_NR_SEG; k++) {
			u16 sel = (u16)PICK(0, DATA >> 4, STACK >> 4, CODE >> 4, ROM_PAGE >> 4, 0xffff);

			segment(&s->seg[k], sel, (u64)sel << 4, 0xffff,
				SA_P | SA_S | 3 | (kind == VM86 ? SA_DPL : 0));
		}
		segment(&s->seg[SEG_CS], CODE >> 4, CODE, 0xffff,
			SA_P | SA_S | 0xb | (kind == VM86 ? SA_DPL : 0));
		segment(&s->seg[SEG_SS], STACK >> 4, STACK, 0xffff,
			SA_P | SA_S | 3 | (kind == VM86 ? SA_DPL : 0));
		if (kind == REAL16 && one_in(8)) /* "unreal" */
			s->seg[SEG_DS].limit = 0xffffffff;
		return;
	}
	for (unsigned k = 0; k < X86_NR_SEG; k++) {
		segment(&s->seg[k], cpl ? S_UDATA | 3 : S_DATA, 0, 0xffffffff, data);
		if (k != SEG_SS && one_in(6)) {
			s->seg[k].base = kind == LONG64 ? number() : (u32)number();
			s->seg[k].limit = (u32)number();
			s->seg[k].attr = one_in(2) ? data ^ 1u << take(1) % 16 : SA_UNUSABLE;
		}
	}
	if (one_in(8))
		s->seg[SEG_SS].limit = (u32)number();
	segment(&s->seg[SEG_CS], cpl ? S_UCODE | 3 : S_CODE, 0, one_in(12) ? (u32)number() : 0xffffffff,
		code);
}

static void put_state(struct x86_state *s, enum kind kind, unsigned cpl)
{
	x86_state_reset(s, false, true, vm.cpuid.signature);
	s->cr0 = CR0_ET | CR0_NE | CR0_MP | (take(1) % 4 ? CR0_WP : 0) | (one_in(2) ? CR0_AM : 0);
	if (one_in(12))
		s->cr0 |= PICK(CR0_TS, CR0_EM, CR0_TS | CR0_MP, CR0_CD, 0);
	s->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	s->cr4 ^= take(4) & take(4) &
		  (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PGE | CR4_UMIP | CR4_FSGSBASE |
		   CR4_SMEP | CR4_SMAP | CR4_OSFXSR | CR4_PCE | CR4_MCE | CR4_OSXSAVE);
	s->xcr0 = vm.cpuid.xcr0_mask & (one_in(8) ? 1 : one_in(4) ? 3 : 7);
	if (kind != REAL16)
		s->cr0 |= CR0_PE;
	if (kind >= PAGED32)
		s->cr0 |= CR0_PG;
	s->cr3 = TABLES;
	if (kind == PAE32)
		s->cr3 = TABLES + 0x1000;
	if (kind == PAE32 || kind >= COMPAT32)
		s->cr4 |= CR4_PAE;
	if (kind >= COMPAT32) {
		s->efer = EFER_LME | EFER_LMA | EFER_SCE;
		if (one_in(3))
			s->cr4 |= CR4_PCIDE;
	}
	s->efer |= one_in(2) ? EFER_NXE : 0;
	s->star = (u64)S_CODE << 32 | (u64)(S_OTHER | 3) << 48;
	s->lstar = one_in(4) ? canonical(number()) : HANDLERS;
	s->cstar = one_in(4) ? canonical(number()) : HANDLERS;
	s->sfmask = take(4);
	s->kernel_gs_base = canonical(number());
	s->sysenter_cs = one_in(4) ? take(2) : S_CODE;
	s->sysenter_esp = one_in(4) ? canonical(number()) : STACK;
	s->sysenter_eip = one_in(4) ? canonical(number()) : HANDLERS;
	s->gdtr = (struct x86_dtr){ one_in(8) ? (u16)take(2) : 0xfff, one_in(32) ? number() : GDT };
	s->idtr = (struct x86_dtr){ one_in(16) ? (u16)take(2) : 0xfff, one_in(32)       ? number()
								       : kind == REAL16 ? IVT
											: IDT };
	segment(&s->tr, S_TSS, TSS, one_in(8) ? (u32)take(2) : 0x2fff,
		SA_P | (one_in(8) && kind < COMPAT32 ? 3 : 0xb));
	segment(&s->ldtr, S_LDT, LDT, (u32)take(2), one_in(4) ? SA_UNUSABLE : SA_P | 2);
	put_segments(s, kind, cpl);
	for (unsigned k = 0; k < X86_NR_GPR; k++)
		s->gpr[k] = kind == LONG64 ? number() : (u32)number();
	if (!one_in(6))
		s->gpr[R_SP] = kind == REAL16 || kind == VM86 ? 0x1000 : STACK + 0x800;
	if (one_in(2))
		s->gpr[R_CX] = PICK(0, 1, 5, 0x10, 0x1000, 0x10000, 0xffffffff, ~0ull, 0xc0000080, 0x1b,
				    0x6e0, 0x277);
	s->rip = kind == REAL16 || kind == VM86 ? 0 : CODE;
	s->rflags = FL_RES1 | (take(4) & take(4) &
			       (FL_ARITH | FL_IF | FL_DF | FL_IOPL | FL_AC | FL_NT | FL_ID | FL_RF));
	if (kind == VM86)
		s->rflags |= FL_VM;
	if (one_in(16))
		s->rflags |= FL_TF;
	if (one_in(8)) {
		for (unsigned k = 0; k < 4; k++)
			s->dr[k] = one_in(2) ? CODE + take(1) : number();
		s->dr7 = (take(4) & 0xffff03ff) | 0x400;
	}
	for (unsigned k = 0; k < 512; k += 8)
		st64(s->xsave + k, take(8));
	for (unsigned k = X86_XSAVE_AVX_OFFSET; k < X86_XSAVE_AVX_OFFSET + 256; k += 8)
		st64(s->xsave + k, next_random());
	if (!one_in(4)) {
		st16(s->xsave, 0x37f);
		st16(s->xsave + 2, 0);
		st32(s->xsave + 24, 0x1f80);
	}
	st64(s->xsave + 512, one_in(8) ? take(8) : 7);
	s->activity = X86_ACTIVE;
	s->nmi_blocked = one_in(8);
	s->sti_shadow = one_in(16);
	s->movss_shadow = one_in(16);
}

/* --- the machine around it --- */
static u64 io_read(void *opaque, u64 offset, unsigned size)
{
	return next_random();
}

static void io_write(void *opaque, u64 offset, unsigned size, u64 val)
{
}

static const struct region_ops io_ops = { .read = io_read, .write = io_write, .max_size = 4 };
static struct region mmio = {
	.name = "mmio", .ops = &io_ops, .space = BUS_MMIO, .base = MMIO, .len = 0x1800
};
static struct region pio = { .name = "pio", .ops = &io_ops, .space = BUS_PIO, .base = 0x60, .len = 0x300 };

static int intc_pending(void *opaque, struct vcpu *v)
{
	return (int)(next_random() & 0xff);
}

static int intc_ack(void *opaque, struct vcpu *v)
{
	return next_random() % 4 ? (int)(next_random() & 0xff) : -1;
}

static u64 intc_get_cr8(void *opaque, struct vcpu *v)
{
	return next_random() & 15;
}

static void intc_set_cr8(void *opaque, struct vcpu *v, u64 cr8)
{
	if (cr8 > 15)
		abort();
}

static const struct intc_ops intc_ops = {
	.pending = intc_pending,
	.ack = intc_ack,
	.get_cr8 = intc_get_cr8,
	.set_cr8 = intc_set_cr8,
};

static void on_tick(void *opaque)
{
	if (!ticks--) {
		atomic_fetch_or(&vcpu.requests, VCPU_REQ_STOP);
		return;
	}
	vcpu.timer_tsc = 0;
	if (next_random() % 2)
		atomic_fetch_or(&vcpu.requests, next_random() % 8 ? VCPU_REQ_INTR : VCPU_REQ_NMI);
}

static void on_alarm(int sig)
{
	static const char text[] = "this case does not end\n";
	ssize_t n = write(STDERR_FILENO, text, sizeof(text) - 1);

	(void)n;
	abort();
}

static _Noreturn void fail(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	abort();
}

static void start(void)
{
	struct err err = { 0 };
	u64 features[4];

	vm.engine = &soft_engine;
	if (engine_env_parse(&vm.engine_conf, &err) < 0)
		fail("no machine", err.msg);
	vm.nr_vcpus = 1;
	vm.tsc_khz = 1000000;
	vm.vcpu[0] = &vcpu;
	vm.intc = &intc_ops;
	vcpu.vm = &vm;
	vcpu.timer_fn = on_tick;
	pthread_mutex_init(&vm.intc_lock, NULL);
	vm.engine->features(&vm.engine_conf, features);
	struct cpuid_params params = { .nr_vcpus = 1, .tsc_khz = vm.tsc_khz, .engine_features = features };
	if (vm.engine->probe(&err) < 0) {
		fprintf(stderr, "skipped: %s\n", err.msg);
		exit(77);
	}
	/* RAM comes to lie below it. */
	if (mmap(NULL, GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
		fail("no machine", "mmap");
	if (ram_init(&vm.ram, RAM_SIZE, &err) < 0 || cpuid_build(&vm.cpuid, &params, &err) < 0 ||
	    vm.engine->vm_init(&vm, &err) < 0 || vm.engine->vcpu_init(&vcpu, &err) < 0)
		fail("no machine", err.msg);
	ram_add_rom(&vm.ram, ROM_PAGE, ROM_PAGE + 0x1000);
	bus_add(&vm.bus, &mmio);
	bus_add(&vm.bus, &pio);
	signal(SIGALRM, on_alarm);
}

static void check_host(void)
{
	u32 mxcsr;
	u16 fcw;
	u64 flags;

	__asm__ volatile("stmxcsr %0; fnstcw %1; pushfq; popq %2" : "=m"(mxcsr), "=m"(fcw), "=r"(flags));
	if ((mxcsr & ~0x3fu) != 0x1f80 || fcw != 0x37f || flags & (FL_DF | FL_AC | FL_TF)) {
		fprintf(stderr, "mxcsr %#x fcw %#x flags %#llx\n", mxcsr, fcw, (unsigned long long)flags);
		fail("the host's own state", "changed");
	}
}

static void check_growth(void)
{
	static long first;
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	if (cases == 500)
		first = u.ru_maxrss;
	if (cases > 500 && u.ru_maxrss - first > (long)MAX_GROWTH)
		fail("the process", "grows");
}

/* A state that a guest can get into is one that set_state() takes. */
static void check_state(struct x86_state *s)
{
	struct err err;

	if (s->cr0 & CR0_PG && s->cr4 & CR4_PAE && !(s->efer & EFER_LMA))
		return; /* its PDPTEs may have changed in memory since */
	if (vm.engine->set_state(&vcpu, s, &err) < 0)
		fail("the engine refuses its own state", err.msg);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static struct x86_state s;
	struct err err;
	enum run_end end = RUN_REQUEST;

	if (!vm.engine)
		start();
	script = data;
	script_end = data + len;
	rng = len;
	for (size_t k = 0; k < len; k++)
		rng = (rng ^ data[k]) * 0x100000001b3ull;

	enum kind kind = take(1) % NR_KINDS;
	unsigned cpl = kind == REAL16 ? 0 : kind == VM86 || one_in(2) ? 3 : 0;
	u8 *r = vm.ram.base;

	memset(r, 0, RAM_SIZE);
	ram_code_written(&vm.ram, 0, RAM_SIZE);
	put_tables(kind);
	put_handlers(kind);
	put_pages(kind);
	for (unsigned k = 0; k < 0x1000; k += 8)
		st64(r + DATA + k, number());
	for (unsigned k = 0; k < 0x1000; k += 8)
		st64(r + STACK + k, number());
	put_state(&s, kind, cpl);
	/* At the beginning of a page, or before its end; sometimes at the end of RAM, in ROM or in MMIO. */
	u64 at = one_in(2) ? 0 : 0x1000 - take(1) % 64;
	unsigned size = 16 + (unsigned)take(1);
	put_code(r + CODE + at, size);
	s.rip += at;
	if (one_in(32)) {
		u64 to = PICK(ROM_PAGE, ROM_PAGE + 0xff8, MMIO, MMIO + 0xffe, RAM_SIZE - 8, RAM_SIZE - 1,
			      RAM_SIZE);

		put_code(r + ROM_PAGE, 256);
		put_code(r + RAM_SIZE - 64, 64);
		if (kind != REAL16 && kind != VM86)
			s.rip = to;
	}
	atomic_store(&vcpu.requests, one_in(4) ? VCPU_REQ_INTR : 0);
	atomic_store(&vm.request, VM_REQ_NONE);
	vcpu.timer_tsc = 0;
	ticks = NR_TICKS;
	if (vm.engine->set_state(&vcpu, &s, &err) < 0)
		return 0;
	alarm(SECONDS);
	for (unsigned run = 0; run < MAX_RUNS; run++) {
		end = vm.engine->run(&vcpu);
		check_host();
		if (end != RUN_HLT)
			break;
		atomic_fetch_or(&vcpu.requests, VCPU_REQ_INTR | (one_in(4) ? VCPU_REQ_NMI : 0));
	}
	alarm(0);
	vm.engine->get_state(&vcpu, &s, NULL);
	if (end == RUN_SHUTDOWN && (atomic_load(&vm.request) != VM_REQ_CRASH || !vm.crash[0]))
		fail("a triple fault", "not described");
	check_state(&s);
	cases++;
	check_growth();
	return 0;
}
