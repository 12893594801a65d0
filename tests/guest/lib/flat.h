/* For the tests of flat 32-bit code (xlate_flat*.c): paging with scratch pages at both ends of the 4 GiB, and code that runs at
 * CPL 3 from one state of all registers to another. The same code runs flat, warm, and with a CS without the last page: then it
 * is not flat, so that a translator of flat code leaves it to the interpreter. What is different then is wrong. */
#pragma once

#include "guest.h"
#include "paging.h"

/* Linear addresses. The first and the last four pages of the 4 GiB are scratch pages in one piece; so are four at LOW. A page
 * lies on each side of a hole. */
#define LOW    0x2000000u
#define WRAP   0u          /* the middle of the piece that wraps */
#define WINDOW 0x40000000u /* 1024 pages, all mapped one to one from PHYS on, to be mapped elsewhere */
#define PHYS   0x4000000u
#define HOLE   (WINDOW + 0x3ff000u) /* not mapped */

/* DPL 3 */
#define SEL_TWIN  0x43 /* code, all but the last page */
#define SEL_LIMIT 0x4b /* 64 KiB */
#define SEL_BASE  0x53 /* base 1000H */
#define SEL_RONLY 0x5b
#define SEL_DOWN  0x63 /* expands down over all from 64 KiB on */
#define SEL_SP16  0x6b /* B is 0 */
#define SEL_CODEL 0x73 /* code, 16 MiB */
#define SEL_CODEB 0x7b /* code, base 1000H */
#define SEL_FS    0x83 /* base LOW + 100H, limit FFH */
#define SEL_GS    0x8b /* base FFFFFF00H */
#define SEL_CODE1 0x93 /* 16-bit code */
#define SEL_EMPTY 0xab /* expands down over nothing */
#define SEL_UP    0x98 /* data that no return to CPL 3 leaves; DPL 0 */

#define FL_CF  1u
#define FL_ZF  0x40u
#define FL_TF  0x100u
#define FL_IF  0x200u
#define FL_DF  0x400u
#define FL_OF  0x800u
#define FL_ALL 0x8d5u

enum { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI };
struct state {
	u32 reg[8];
	u32 eip, flags;
	u32 cs, ss, ds, es, fs, gs;
	/* how it ended */
	u32 vector, error, cr2;
};

static u32 page_dir[1024] __attribute__((aligned(4096)));
static u32 page_low[1024] __attribute__((aligned(4096)));
static u32 page_high[1024] __attribute__((aligned(4096)));
static u32 page_window[1024] __attribute__((aligned(4096)));

static struct state end_state;
static uptr end_jump[10];

static inline void on_end(struct frame *f)
{
	const u32 gpr[8] = { f->eax, f->ecx, f->edx, f->ebx, f->sp, f->ebp, f->esi, f->edi };

	memcpy_(end_state.reg, gpr, sizeof(gpr));
	end_state.eip = f->ip;
	end_state.flags = f->flags;
	end_state.cs = f->cs & 0xffff;
	end_state.ss = f->ss & 0xffff;
	end_state.ds = f->ds & 0xffff;
	end_state.es = f->es & 0xffff;
	end_state.fs = f->fs & 0xffff;
	end_state.gs = f->gs & 0xffff;
	end_state.vector = f->vector;
	end_state.error = f->error;
	end_state.cr2 = f->vector == PF ? read_cr2() : 0;
	guest_longjmp(end_jump);
}

void flat_enter(const struct state *s) __attribute__((noreturn));
__asm__(".pushsection .text; .globl flat_enter; flat_enter:\n"
	"mov 4(%esp), %ebp\n"
	"push 44(%ebp); push 16(%ebp); push 36(%ebp); push 40(%ebp); push 32(%ebp)\n" /* SS ESP EFLAGS CS EIP */
	"mov 56(%ebp), %fs; mov 60(%ebp), %gs\n"
	"mov 0(%ebp), %eax; mov 4(%ebp), %ecx; mov 8(%ebp), %edx; mov 12(%ebp), %ebx; mov 24(%ebp), %esi; mov 28(%ebp), %edi\n"
	"mov 52(%ebp), %es; mov 48(%ebp), %ds\n"
	"mov 20(%ebp), %ebp; iret\n"
	".popsection");

/* Runs from s until INT 30H or a fault; how it ended is in end_state. */
static inline void run(const struct state *s)
{
	for (unsigned v = 0; v <= VECTOR_USER_RETURN; v++)
		if (!interrupt_handler[v])
			interrupt_handler[v] = on_end;
	if (!guest_setjmp(end_jump))
		flat_enter(s);
}

/* The state at the beginning of code: flat, CPL 3. */
static inline struct state begin(u32 eip)
{
	return (struct state){ .eip = eip,
			       .flags = 2,
			       .reg = { [ESP] = LOW + 0x2800 },
			       .cs = SEL_UCODE,
			       .ss = SEL_UDATA,
			       .ds = SEL_UDATA,
			       .es = SEL_UDATA,
			       .fs = SEL_FS,
			       .gs = SEL_GS };
}

static inline bool same(const struct state *a, const struct state *b)
{
	for (unsigned k = 0; k < 8; k++)
		if (a->reg[k] != b->reg[k])
			return false;
	return a->eip == b->eip && a->flags == b->flags && a->cs == b->cs && a->ss == b->ss &&
	       a->ds == b->ds && a->es == b->es && a->vector == b->vector && a->error == b->error &&
	       a->cr2 == b->cr2;
}

static inline void print_state(const char *what, const struct state *s)
{
	static const char *const name[] = { "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi" };

	print("  %s: #%u(%x) cr2 %x eip %x flags %x cs %x ss %x ds %x es %x", what, s->vector, s->error,
	      s->cr2, s->eip, s->flags, s->cs, s->ss, s->ds, s->es);
	for (unsigned k = 0; k < 8; k++)
		print(" %s %x", name[k], s->reg[k]);
	print("\n");
}

static inline void map(u32 la, u32 physical, u32 bits)
{
	volatile u32 *table = la >> 22 == 0 ? page_low : la >> 22 == 1023 ? page_high : page_window;

	table[la >> 12 & 1023] = physical | bits;
	invlpg((void *)la);
}

static inline void flat_init(void)
{
	for (u32 k = 0; k < 1024; k++) {
		page_dir[k] = k << 22 | (u32)(PS | P | W | U);
		page_low[k] = k << 12 | 7;
		page_high[k] = (0xffc00000u + (k << 12)) | 7;
		page_window[k] = (PHYS + (k << 12)) | 7;
	}
	for (u32 k = 0; k < 4; k++) {
		page_low[k] = (PHYS + 0x404000 + (k << 12)) | 7;
		page_high[1020 + k] = (PHYS + 0x400000 + (k << 12)) | 7;
	}
	page_window[1023] = 0;
	page_dir[0] = (u32)page_low | 7;
	page_dir[WINDOW >> 22] = (u32)page_window | 7;
	page_dir[1023] = (u32)page_high | 7;
	write_cr4(read_cr4() | CR4_PSE);
	write_cr3((uptr)page_dir);
	write_cr0(read_cr0() | CR0_PG | CR0_WP);

	gdt[SEL_TWIN / 8] = make_desc(0, 0xffffe, 0xfa, 0xc);
	gdt[SEL_LIMIT / 8] = make_desc(0, 0xffff, 0xf2, 0x4);
	gdt[SEL_BASE / 8] = make_desc(0x1000, 0xfffff, 0xf2, 0xc);
	gdt[SEL_RONLY / 8] = make_desc(0, 0xfffff, 0xf0, 0xc);
	gdt[SEL_DOWN / 8] = make_desc(0, 0xffff, 0xf6, 0x4);
	gdt[SEL_EMPTY / 8] = make_desc(0, 0xfffff, 0xf6, 0xc);
	gdt[SEL_SP16 / 8] = make_desc(0, 0xfffff, 0xf2, 0x8);
	gdt[SEL_CODEL / 8] = make_desc(0, 0xfff, 0xfa, 0xc);
	gdt[SEL_CODEB / 8] = make_desc(0x1000, 0xfffff, 0xfa, 0xc);
	gdt[SEL_FS / 8] = make_desc(LOW + 0x100, 0xff, 0xf2, 0x4);
	gdt[SEL_GS / 8] = make_desc(0xffffff00, 0xfffff, 0xf2, 0xc);
	gdt[SEL_CODE1 / 8] = make_desc(0, 0xffff, 0xfa, 0);
	gdt[SEL_UP / 8] = make_desc(0, 0xfffff, 0x92, 0xc);
}
