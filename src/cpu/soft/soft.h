/* The software engine: what its files share. Nothing outside this folder includes it.
 *
 *   decode.c   bytes -> struct insn, blocks of them; simd_table.c, evex_table.c the vector rows
 *   share.c    how the vCPUs of a VM share what follows
 *   code.c     decoded blocks: kept and dropped; code_find.c found and made
 *   interp.c   the loop, events between blocks
 *   ops_*.c    one handler per instruction form, grouped by family
 *   excp.c     faults, interrupts and their delivery through IVT, IDT and TSS
 *   seg.c      segment registers, descriptors, far transfers, task switch
 *   mmu.c      page walk, TLB, slow path of every memory access
 *   thunk.c    runs one guest instruction natively; fpu.c vector state, XSAVE
 *
 * Two rules that everything here obeys:
 *
 * 1. Guest vector, x87 and MXCSR state may be live in the host's registers
 *    (cpu->vec_live). So this folder is compiled with general registers only, and calls
 *    nothing outside itself (not even memcpy) without fpu_spill() first; soft_exit() and the other
 *    soft_out_*() wrappers do that.
 * 2. Probe before any architectural write. A handler that may fault does so (soft_raise() does not
 *    return) before it changes registers, flags or memory, so that every fault is precise.
 *
 * A handler gets the CPU and its decoded instruction and ends with NEXT (go on in the block), END (leave the
 * block after this instruction: events are looked at) or by setting cpu->rip and returning. RIP inside
 * a block is not stored: it is gpr[RIPB] (RIP of the block's first byte) + insn->off.
 */
#pragma once

#include <setjmp.h>
#include <sys/syscall.h>

#include "base/bits.h"
#include "base/types.h"
#include "vm/exit.h"
#include "vm/ram.h"
#include "vm/vcpu.h"
#include "vm/vm.h"
#include "x86/defs.h"
#include "x86/regs.h"

struct soft_cpu;
struct insn;
struct block;
struct lockstep;
struct storelog;
struct soft_vm;
typedef void (*insn_fn)(struct soft_cpu *c, const struct insn *i);

/* Pseudo registers behind the sixteen, so that an effective address is always base + index << scale +
 * disp. */
enum { RIPB = X86_NR_GPR, RZERO, NR_REGS };
/* Behind the six: base 0, for 64-bit mode. */
#define SEG_FLAT X86_NR_SEG

enum insn_prefix {
	PFX_66 = 1 << 0,
	PFX_F2 = 1 << 1,
	PFX_F3 = 1 << 2,
	PFX_LOCK = 1 << 3,
	PFX_REX = 1 << 4, /* any REX, even 40H */
	PFX_VEX = 1 << 5, /* or EVEX: then insn->evex is not 0 */
	PFX_67 = 1 << 6,
	PFX_VEX_L = 1 << 7, /* VEX.L = 1 */
};

#define REX_W  8
#define REX_R  4
#define REX_X  2
#define REX_B  1
#define REX_R2 16 /* EVEX.R': bit 4 of ModRM.reg */

enum evex_prefix {
	EVEX_AAA = 7, /* the mask register, 0: none */
	EVEX_Z = 1 << 3,
	EVEX_B = 1 << 4,
	EVEX_LL = 3 << 5,
	EVEX_ON = 1 << 7, /* there is an EVEX prefix */
};
#define EVEX_LL_SHIFT 5

/* One decoded instruction. */
struct insn {
	insn_fn fn;
	u16 off; /* of the first byte from the block's start */
	u8 len;
	u8 osz; /* operand size in bytes: 1, 2, 4, 8 */
	u8 asz; /* address size: 2, 4, 8 */
	u8 reg; /* ModRM.reg with REX.R / VEX.R: register number (or /digit) */
	u8 rm;  /* register number of ModRM.rm with REX.B when !mem, or from the opcode's low bits */
	u8 map; /* 0 one-byte, 1 0F, 2 0F38, 3 0F3A */
	/* Up to here also what ends a block has: INSN_END bytes. */
	u8 reg_b, rm_b;             /* the same as byte registers: byte offset into cpu->gpr (AH = 1, ...) */
	u8 base, index, scale, seg; /* memory operand; base/index may be RZERO, base RIPB */
	u8 mem;                     /* ModRM names memory */
	u8 flat;                    /* 64-bit address size in 64-bit mode: no mask, no limits */
	u8 opcode;
	u8 modrm;
	u8 pfx;  /* PFX_*; for VEX the implied 66/F2/F3 */
	u8 rex;  /* REX_W..B, from REX, VEX or EVEX */
	u8 vvvv; /* VEX.vvvv (not inverted any more), 0..15; with EVEX.V' 0..31 */
	u8 evex; /* EVEX_* */
	u8 msz;  /* bytes of the memory operand, for thunk and vector forms; 0: none */
	u8 aux;  /* for the handler: condition code, ... */
	u64 imm; /* sign-extended immediate or branch displacement; far pointer: selector << 32 | offset; moffs */
	void *thunk; /* native code for it, see thunk.h */
	s64 disp;    /* RIP-relative: from the block's start; moffs: the address */
};
#define INSN_END offsetof(struct insn, reg_b)

/* Mode of decoding: part of a block's identity. */
enum { MODE_16, MODE_32, MODE_64 };
#define KEY_MODE   3u     /* MODE_* from CS.L, CS.D */
#define KEY_SS32   BIT(2) /* stack size: SS.B (64-bit mode: always 0) */
#define KEY_SINGLE BIT(3) /* one instruction only: TF, interrupt shadow, breakpoints */
#define KEY_FLAT   BIT(5) /* 32-bit protected mode with CS, SS, DS and ES flat: base 0, 4 GiB, data writable */

/* TLB of data. An entry's tags are the page's linear address where that access is allowed and goes
 * straight to RAM, else TLB_NEVER; so A is set for every entry, D for every w tag, MMIO, ROM and
 * code pages have no w tag. la + addend is the host address. */
#define TLB_BITS  11
#define TLB_SIZE  (1u << TLB_BITS)
#define TLB_NEVER (~0ull)

struct tlb_entry {
	u64 r, w;
	u64 addend;
	u64 unused; /* 32 bytes: an index is a shift away */
};

/* A flush clears what was filled since the last one, so that its cost is a part of theirs. */
#define TLB_LIST 192

struct tlb_table {
	struct tlb_entry e[TLB_SIZE];
	u32 used;           /* entries filled since the last flush */
	u16 list[TLB_LIST]; /* which, unless there are more */
};

/* TLB of code: tlb_key() of pages that may be executed, else TLB_NEVER. A translated jump into another page checks by
 * one comparison that this page is still mapped to the same memory. */
#define TLB_CODE_BITS 13
#define TLB_CODE_SIZE (1u << TLB_CODE_BITS)
#define TLB_CODE_LIST 96

struct tlb_code {
	u64 key[TLB_CODE_SIZE];
	/* Another one whenever what a key said that was there may not be so any more: the page is dropped, or any page is after keys
	 * made room for others; no two tables have the same. */
	u64 gen;
	u16 list[TLB_CODE_LIST]; /* which are in use, unless there are more */
	u32 nr;
	bool lost; /* keys have made room for others since gen changed */
};

/* Linear page (36 bits) and physical page (28 bits) in one word; never TLB_NEVER, as RAM ends before the last page
 * (soft_vm_init()). */
#define TLB_KEY_PFN_BITS 28
static inline u64 tlb_key(gva_t la, gpa_t gpa)
{
	return la >> 12 << TLB_KEY_PFN_BITS | gpa >> 12;
}

/* In front of the TLB: the page that the accesses through one base register went to last. Translated code finds with
 * two instructions whether an access lies in it, and takes the addend from a fixed place, so that the address does
 * not wait for the check. There are two sets, one for code in each half of the linear addresses: in Linux and its
 * like, user and kernel, so that neither drops the other's. */
struct window {
	u64 r, w;   /* the page where that access is allowed, as in struct tlb_entry, else WINDOW_NONE */
	u64 addend; /* valid if either is */
};
/* Its page is not canonical, for an address in it passes the check: the host faults (jit_fault()). */
#define WINDOW_NONE BIT(62)
/* By base register, RIPB and RZERO included; and for operands whose segment has a base. */
enum { WINDOW_SEG = NR_REGS, NR_WINDOWS };
enum { WINDOWS_SPLIT, WINDOWS_MIXED, WINDOWS_MIXED_ENDS };

/* Whose rights an access has. */
enum tlb_mode {
	TLB_USER,   /* CPL 3 */
	TLB_SUP,    /* CPL < 3 (SMAP, if on, is enforced: AC = 0, or implicit supervisor access) */
	TLB_SUP_AC, /* CPL < 3 with AC = 1 or SMAP off */
	TLB_NR_MODES
};

/* Large pages with entries in a set of tables (an entry is 4 KiB whatever the page's size), so that
 * INVLPG finds all of them: base | log2 of the size. nr > TLB_MAX_LARGE: too many to list, INVLPG drops
 * a whole GiB. */
#define TLB_MAX_LARGE 24
struct tlb_large {
	u32 nr;
	gva_t page[TLB_MAX_LARGE];
};

/* The translations of one address-space identifier; the lower half of the linear addresses. The upper half
 * has one set for all PCIDs: entries there that are not global are listed and dropped at a CR3 write. */
#define TLB_NR_ASIDS 8
struct tlb_asid {
	u16 pcid;
	bool valid;
	u32 gen; /* of its entries in the second-level TLB */
	u64 last_used;
	struct tlb_large large;
	struct tlb_table half[TLB_NR_MODES];
	struct tlb_code code[2]; /* CPL < 3, CPL 3 */
};

#define TLB_MAX_NONGLOBAL 64

enum { ACC_R = 1, ACC_W = 2, ACC_X = 4 };

#define SOFT_TRAIL 8

struct soft_cpu {
	/* --- hot --- */
	u64 gpr[NR_REGS];
	struct tlb_table *tlb[2]; /* current tables for the lower and upper half of the linear addresses */
	struct tlb_code *tlb_code[2];
	u64 code_gen[2]; /* of these two and the mode: mmu_code_gen() */
	u64 rip;         /* valid between blocks only */
	u16 fl;          /* arithmetic flags as LAHF (high byte) and SETO (low byte) leave them in AX */
	u8 cpl;
	u8 vec_live; /* guest vector and x87 state is in the host's registers */
	u32 sse_gate, avx_gate,
		avx512_gate; /* not 0: an instruction of that class cannot be executed just so, see fpu.h */
	u32 flags;           /* RFLAGS without the arithmetic ones; bit 1 set */
	u32 key;             /* KEY_* of the current mode */
	u32 wide; /* with KEY_FLAT: which of FS and GS (BIT()) are writable data of 4 GiB, at whatever base */
	u32 attention;               /* ATT_*: something to do before the next block */
	s32 budget;                  /* blocks until the clock is looked at */
	u64 icount;                  /* instructions begun */
	u64 pause_first, pause_last; /* TSC of the first and the last PAUSE of a loop */
	struct vcpu *vcpu;
	const struct vm_debug *debug; /* a debugger has set points; NULL: none */
	bool debug_begun;             /* the step it wants has begun */
	bool user_news;               /* the first CPL 3 is still to be told */
	struct block *cur;            /* the block being executed */
	u64 trail[SOFT_TRAIL];        /* RIPs of the last blocks, for the description of a crash */
	u32 trail_next;
	struct x86_segreg seg[X86_NR_SEG + 1]; /* [SEG_FLAT] has base 0 */

	/* --- system registers --- */
	struct x86_segreg ldtr, tr;
	struct x86_dtr gdtr, idtr;
	u64 cr0, cr2, cr3, cr4, efer, xcr0;
	u64 dr[4], dr6, dr7;
	u64 star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 pat, mtrr_def_type, mtrr_fixed[11], mtrr_base[X86_NR_MTRR_VAR], mtrr_mask[X86_NR_MTRR_VAR];
	u64 misc_enable, spec_ctrl, xss, tsc_adjust;
	u64 pdpte[4]; /* PAE: loaded with CR3 [SDM3 4.4.1] */
	u8 activity;
	bool nmi_blocked;
	u8 nmi_pending;  /* how many: see vcpu_nmi() */
	u8 taken_vector; /* with ATT_TAKEN */

	/* --- exception in flight --- */
	struct {
		u8 vector;
		bool has_error;
		u32 error;
		u64 rip; /* of the faulting instruction, or after a trap */
	} exc;
	_Atomic bool in_run; /* between entry to and return from the loop, see share.h */
	s16 delivering;      /* vector being delivered, -1: none; -2: #DF */
	void *jb[5];         /* __builtin_setjmp of the loop */
	void *jb_deliver[5]; /* of the delivery in progress */

	/* --- fpu --- */
	u8 simd_off; /* FPU_OFF_* for the current CR0/CR4/XCR0: why vector classes fault */
	u64 x87_fip, x87_fdp;
	u16 x87_fop, x87_fcs, x87_fds;
	u64 mxcsr_host; /* the host's own, to go back to */
	u8 *xsave; /* X86_XSAVE_SIZE bytes, 64-aligned, the host's standard format: the state while !vec_live */
	u8 *bounce; /* two pages for operands that cross a page or lie in MMIO; equal offset below 64 */
	const struct insn *native; /* what a thunk runs: for the signal handler */

	/* --- mmu --- */
	u64 maxphy_mask;                  /* reserved physical address bits of a page-table entry */
	struct tlb_asid *asid;            /* current */
	struct tlb_asid *asids;           /* [TLB_NR_ASIDS] */
	struct tlb_table *upper;          /* [TLB_NR_MODES] */
	struct tlb_code *upper_code;      /* [2], as in struct tlb_asid */
	bool upper_code_nonglobal;        /* some entry of these is not global */
	struct tlb_table *no_tlb;         /* always empty: every access takes the slow path */
	bool align_checks;                /* #AC is on */
	u16 nonglobal[TLB_MAX_NONGLOBAL]; /* mode << TLB_BITS | index of non-global entries in upper */
	u32 nr_nonglobal;                 /* > TLB_MAX_NONGLOBAL: too many, flush all */
	bool lower_global;                /* some lower-half entry is global */
	struct tlb_large upper_large;
	u64 tlb_role;        /* the control bits that the entries were made under; other ones flush all */
	struct tlb_rev *rev; /* physical page -> its w tags, see mmu.c */
	struct tlb2 *tlb2;   /* second level, see mmu.h */
	u32 gen, gen_global; /* the last generation given out; that of global entries */
	u64 code_gens;       /* the last gen of a struct tlb_code given out */
	u64 tlb_clock;
	u64 nr_misses, nr_walks, nr_flushes; /* first-level misses; of which walked; flushes of a PCID */

	/* --- shared with the other vCPUs, see share.h --- */
	struct soft_vm *svm;
	_Atomic u64 seen; /* svm->epoch when c was last between two blocks */
	bool refetch;     /* serialize before the next block; set by one who is alone */

	/* --- code cache, see code.h --- */
	struct code_cache *code; /* of svm */
	struct code_temp *temp;
	u64 restless;                  /* a page frame number + 1, for code_settle(); 0: none */
	const struct insn *stopped_at; /* the last place in a block where op_stop() ended it */

	/* --- translated code, see jit/jit.h --- */
	struct insn *jit_insn; /* one, and the end after it */
	struct jit *jit;       /* of svm; NULL: interpret only */
	struct jit_cpu *jit_cpu;
	struct soft_cpu *self;
	/* Translated code comes back at its next backward jump when jit_go is 0, at its next indirect jump that is not
	 * a return when jit_jcache leads to an empty table: soft_recall(). */
	_Atomic u32 jit_go;
	void *_Atomic jit_jcache;
	void *jit_full, *jit_empty; /* the tables: jit_cpu->jcache, jit->no_jcache */
	u32 jit_stop;               /* a block that may be executing was dropped */
	u32 jit_ret;                /* the last RET: offset of its record */
	bool jit_stepped;           /* the handler of a single instruction went on to the next */
	void *jit_rec;              /* why translated code was left: a record */
	u64 jit_target;             /* of an indirect jump */
	u64 jit_page;           /* where the page is that the translation runs at, if it is for any address */
	u64 jit_next, jit_to;   /* of one CALL: the address behind it; where it goes, or a key */
	u64 jit_rsp, jit_c_rsp; /* the other stack's pointer: of calls in translated code, of C */
	u64 jit_stack;          /* top of the former */
	struct window window[2][NR_WINDOWS];
	u64 nr_windows;         /* how often one moved */
	u8 windows_mixed;       /* WINDOWS_*: may code of either privilege run in either half? */
	bool windows_user;      /* CPL is 3, when mmu_select() looked last */
	u32 windows_held;       /* not 0: what is accessed now is not to be left to a window */
	u64 jit_spill[2];       /* of glue's registers */
	u64 jit_slot[8];        /* addends that several accesses of a block share */
	u64 jit_stash;          /* an operand from which flags can be computed again */
	u64 armed_tsc;          /* when the host's timer will make jit_go 0, ~0: never */
	volatile u32 jit_alarm; /* it has */

	/* --- the lock-step mode, see jit/lockstep.h --- */
	struct lockstep *lockstep; /* NULL: off */
	struct storelog *log;      /* stores are noted there, and every access takes the slow path */
	bool once;                 /* something happened that cannot be done a second time */
	bool loaded;               /* vector state went to the host's registers */

	const u64 *features; /* vm->cpuid.features; a carrier's are svm->features */
	bool amd;            /* the guest sees an AMD (or Hygon) processor: where the two makers differ */
	struct ram *ram;
};

enum {
	ATT_SHADOW = 1 << 0, /* STI or MOV SS just executed: one instruction without interrupts */
	ATT_MOVSS = 1 << 1,  /* by MOV SS / POP SS: debug traps too */
	ATT_TF = 1 << 2,     /* TF is set: single-step */
	ATT_DB = 1 << 3,     /* a debug trap is due (dr6 bits are set) */
	ATT_INTR = 1 << 4,   /* the controller may have a vector; taken when IF allows */
	ATT_NMI = 1 << 5,
	ATT_BREAK = 1 << 6, /* code breakpoints armed: single-step and compare */
	ATT_DEBUG = 1 << 8, /* a debugger wants one step, or to hear of a watchpoint */
	ATT_TAKEN = 1 << 7, /* an interrupt was taken before this engine took over: taken_vector */
};

/* What is to be attended to now: an interrupt that IF holds off is not. */
static inline u32 soft_attention(const struct soft_cpu *c)
{
	return c->flags & FL_IF ? c->attention : c->attention & ~(u32)ATT_INTR;
}

/* --- control flow of handlers --- */
#define NEXT(c, i) return (i)[1].fn((c), (i) + 1)
#define END(c, i)                   \
	do {                        \
		soft_advance(c, i); \
		return;             \
	} while (0)

/* RIP of insn, and of the one after it. Outside of 64-bit mode it has 32 bits, in 16-bit code too, of which only branches cut
 * it to 16: a segment with a larger limit goes on beyond 64 KiB, and in others the fetch faults there. */
static inline u64 soft_rip(const struct soft_cpu *c, const struct insn *i)
{
	return c->gpr[RIPB] + i->off;
}

static inline u64 soft_rip_mask(const struct soft_cpu *c, u64 rip)
{
	return (c->key & KEY_MODE) == MODE_64 ? rip : (u32)rip;
}

static inline u64 soft_next_rip(const struct soft_cpu *c, const struct insn *i)
{
	return soft_rip_mask(c, c->gpr[RIPB] + i->off + i->len);
}

static inline void soft_advance(struct soft_cpu *c, const struct insn *i)
{
	c->rip = soft_next_rip(c, i);
}

/* --- exceptions (excp.c) --- */
#define NO_ERROR (-1)
/* A fault of insn i (NULL: between instructions, at c->rip). error: NO_ERROR or the code. Vectors that
 * push an error code: 8 10-14 17 21. Does not return. */
_Noreturn void soft_raise(struct soft_cpu *c, const struct insn *i, unsigned vector, s64 error);
#define soft_ud(c, i)      soft_raise(c, i, EXC_UD, NO_ERROR)
#define soft_gp(c, i, err) soft_raise(c, i, EXC_GP, err)

/* --- flags --- */
static inline u64 soft_get_flags(const struct soft_cpu *c)
{
	return c->flags | (c->fl >> 8 & (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF)) | (u64)(c->fl & 1) << 11;
}

/* Sets everything; the caller has already checked who may change what. Updates what hangs on
 * TF, AC (SMAP) and VM. */
void soft_set_flags(struct soft_cpu *c, u64 flags);

static inline void soft_set_arith(struct soft_cpu *c, u64 flags)
{
	c->fl = (u16)((flags & 0xff) << 8 | (flags >> 11 & 1));
}

/* Recomputes what is derived from CR0/CR3/CR4/EFER/CS/SS/CPL/flags: key, tlb[], simd_off. Call after any
 * change of these. */
void soft_mode_changed(struct soft_cpu *c);
/* A data segment register changed: KEY_FLAT, wide. */
void soft_data_changed(struct soft_cpu *c);

static inline bool soft_real(const struct soft_cpu *c)
{
	return !(c->cr0 & CR0_PE);
}
static inline bool soft_vm86(const struct soft_cpu *c)
{
	return c->flags & FL_VM;
}
/* Real-address or virtual-8086 mode: selectors are paragraphs. */
static inline bool soft_real_or_vm86(const struct soft_cpu *c)
{
	return soft_real(c) || soft_vm86(c);
}
static inline bool soft_long(const struct soft_cpu *c)
{
	return c->efer & EFER_LMA;
}
static inline bool soft_mode64(const struct soft_cpu *c)
{
	return (c->key & KEY_MODE) == MODE_64;
}
/* Code that the translator knows. */
static inline bool soft_translates(u32 key)
{
	return key & KEY_FLAT || (key & KEY_MODE) == MODE_64;
}
static inline unsigned soft_iopl(const struct soft_cpu *c)
{
	return c->flags >> FL_IOPL_SHIFT & 3;
}
static inline bool soft_has(const struct soft_cpu *c, unsigned feature)
{
	return cpuid_bit(c->features, feature);
}

/* --- memory ---
 * la is linear. All raise #PF (or #GP/#SS for a non-canonical la) through insn i. */
static inline struct tlb_entry *tlb_slot(const struct soft_cpu *c, gva_t la)
{
	return &c->tlb[la >> 63]->e[la >> 12 & (TLB_SIZE - 1)];
}

/* The host address of size bytes at la when the TLB allows the access and no page is crossed, else NULL. */
static inline void *tlb_read(const struct soft_cpu *c, gva_t la, u64 size)
{
	const struct tlb_entry *e = tlb_slot(c, la);
	return likely(e->r == ((la + size - 1) & ~0xfffull)) ? (void *)(la + e->addend) : NULL;
}

static inline void *tlb_write(const struct soft_cpu *c, gva_t la, u64 size)
{
	const struct tlb_entry *e = tlb_slot(c, la);
	return likely(e->w == ((la + size - 1) & ~0xfffull)) ? (void *)(la + e->addend) : NULL;
}

static inline u64 tlb_code_key(const struct soft_cpu *c, gva_t la)
{
	return c->tlb_code[la >> 63]->key[la >> 12 & (TLB_CODE_SIZE - 1)];
}

/* The host address of code at la when the TLB allows to execute it, else NULL. */
static inline u8 *tlb_exec(const struct soft_cpu *c, gva_t la)
{
	u64 key = tlb_code_key(c, la);

	/* The whole of the page's number, so that a non-canonical address is none. */
	if (unlikely((s64)key >> TLB_KEY_PFN_BITS != (s64)la >> 12 || key == TLB_NEVER))
		return NULL;
	return c->ram->base + ((key & (BIT(TLB_KEY_PFN_BITS) - 1)) << 12 | (la & 0xfff));
}

/* The slow paths (mmu.c): TLB miss, page crossing, MMIO, ROM, code pages. size 1..8. The load with
 * acc = ACC_R|ACC_W checks that the store that follows cannot fault. */
u64 mmu_load(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, unsigned acc);
void mmu_store(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, u64 val);
/* For a LOCKed read-modify-write: the host address of size bytes of RAM, all permissions checked, or
 * NULL when they cross a page or are not writable RAM (then a load and a store have to do).
 * mmu_atomic_done() follows the operation. */
void *mmu_atomic(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, gpa_t *ret_gpa);
void mmu_atomic_done(struct soft_cpu *c, gpa_t gpa, unsigned size);
/* Fills the TLB for [la, la+len) or raises; len up to 4096 bytes; nothing is accessed. After it a load
 * or store there by the same mode does not fault. */
void mmu_probe(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len, unsigned acc);
/* Any length up to 4096, page crossing and MMIO included. The write probes everything first. */
void mmu_read_buf(struct soft_cpu *c, const struct insn *i, gva_t la, void *buf, unsigned len);
void mmu_write_buf(struct soft_cpu *c, const struct insn *i, gva_t la, const void *buf, unsigned len);
/* Implicit supervisor accesses, whatever the CPL: descriptor tables, TSS, IDT, stacks of a delivery. */
u64 mmu_sys_load(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size);
void mmu_sys_store(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, u64 val);
void mmu_sys_probe(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len, unsigned acc);
/* Host address of a RAM page for fetching at la (la + addend form), or NULL with the fetch having to
 * be done bytewise (MMIO: as #GP-free all-ones read of the bus). Raises #PF with i = NULL. */
const u8 *mmu_fetch(struct soft_cpu *c, gva_t la);
/* Like a supervisor read that cannot fault, for diagnostics: false when not mapped or not RAM. */
bool mmu_peek(struct soft_cpu *c, gva_t la, void *buf, unsigned len);

/* Invalidation. A change of a control bit that entries depend on (CR0.PG WP, CR4.PSE PAE PGE PCIDE SMEP SMAP,
 * EFER.NXE LMA) flushes everything in the next mmu_select(). A write of DR0-3 or DR7 needs mmu_flush_all(). */
void mmu_flush_all(struct soft_cpu *c);        /* everything, global too */
void mmu_flush_nonglobal(struct soft_cpu *c);  /* all PCIDs' non-global entries */
void mmu_set_cr3(struct soft_cpu *c, u64 cr3); /* MOV to CR3: bit 63, PCID; no checks */
void mmu_invlpg(struct soft_cpu *c, gva_t la);
void mmu_invpcid(struct soft_cpu *c, unsigned type, u16 pcid, gva_t la); /* operands already checked */
void mmu_write_protect(struct soft_cpu *c,
		       gpa_t page);                /* a page got its first code: no w tag for it any more */
void mmu_select(struct soft_cpu *c);               /* sets c->tlb[] for the current CPL, AC, PCID */
bool mmu_load_pdptes(struct soft_cpu *c, u64 cr3); /* PAE; false: reserved bits, nothing changed */
int mmu_init(struct soft_cpu *c, struct err *err); /* host code: allocates */
void mmu_fini(struct soft_cpu *c);

/* Guest memory of any alignment and type. */
typedef u8 any_u8 __attribute__((may_alias));
typedef u16 any_u16 __attribute__((aligned(1), may_alias));
typedef u32 any_u32 __attribute__((aligned(1), may_alias));
typedef u64 any_u64 __attribute__((aligned(1), may_alias));

#define SOFT_LD(n)                                                                                \
	static inline u##n ld##n##_la(struct soft_cpu *c, const struct insn *i, gva_t la)         \
	{                                                                                         \
		const void *p = tlb_read(c, la, n / 8);                                           \
		if (likely(p))                                                                    \
			return *(const volatile any_u##n *)p;                                     \
		return (u##n)mmu_load(c, i, la, n / 8, ACC_R);                                    \
	}                                                                                         \
	static inline void st##n##_la(struct soft_cpu *c, const struct insn *i, gva_t la, u##n v) \
	{                                                                                         \
		void *p = tlb_write(c, la, n / 8);                                                \
		if (likely(p))                                                                    \
			*(volatile any_u##n *)p = v;                                              \
		else                                                                              \
			mmu_store(c, i, la, n / 8, v);                                            \
	}
SOFT_LD(8)
SOFT_LD(16)
SOFT_LD(32)
SOFT_LD(64)
#undef SOFT_LD

#define LOCK_FAST (~0ull)

/* mmu_atomic() with the TLB asked first; then *ret_gpa is LOCK_FAST. */
static inline void *lock_begin(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size,
			       gpa_t *ret_gpa)
{
	void *p = tlb_write(c, la, size);

	*ret_gpa = LOCK_FAST;
	return likely(p) ? p : mmu_atomic(c, i, la, size, ret_gpa);
}

static inline void lock_end(struct soft_cpu *c, gpa_t gpa, unsigned size)
{
	if (unlikely(gpa != LOCK_FAST))
		mmu_atomic_done(c, gpa, size);
}

/* --- effective and linear addresses --- */
static inline u64 insn_ea_raw(const struct soft_cpu *c, const struct insn *i)
{
	return c->gpr[i->base] + (c->gpr[i->index] << i->scale) + (u64)(s64)i->disp;
}

static inline u64 insn_ea(const struct soft_cpu *c, const struct insn *i)
{
	u64 ea = insn_ea_raw(c, i);
	return i->asz == 8 ? ea : i->asz == 4 ? (u32)ea : (u16)ea;
}

/* Linear address of [seg:off, size), with the limit, type and canonical checks of the current mode;
 * raises #GP or #SS. acc: ACC_R and/or ACC_W. (64-bit mode: only adds the base; a non-canonical sum
 * faults in the access.) */
gva_t seg_linear(struct soft_cpu *c, const struct insn *i, unsigned seg, u64 off, unsigned size,
		 unsigned acc);

static inline gva_t insn_la(struct soft_cpu *c, const struct insn *i, unsigned size, unsigned acc)
{
	if (likely(i->flat))
		return insn_ea_raw(c, i) + c->seg[i->seg].base;
	return seg_linear(c, i, i->seg, insn_ea(c, i), size, acc);
}

/* --- stack: SS:rSP in the current stack width --- */
static inline unsigned soft_stack_size(const struct soft_cpu *c) /* 2, 4, 8 */
{
	return soft_mode64(c) ? 8 : c->key & KEY_SS32 ? 4 : 2;
}

static inline u64 soft_sp_mask(const struct soft_cpu *c)
{
	return soft_mode64(c) ? ~0ull : c->key & KEY_SS32 ? 0xffffffffull : 0xffffull;
}

static inline void soft_set_sp(struct soft_cpu *c, u64 sp)
{
	u64 m = soft_sp_mask(c);
	c->gpr[R_SP] = m == 0xffff ? (c->gpr[R_SP] & ~m) | (sp & m) : sp & m;
}

/* Reads / writes size bytes at SS:(rSP + delta); do not move rSP. */
u64 seg_stack_load(struct soft_cpu *c, const struct insn *i, s64 delta, unsigned size);
void seg_stack_store(struct soft_cpu *c, const struct insn *i, s64 delta, unsigned size, u64 val);

/* --- segments (seg.c) --- */
/* Loads a data segment register / SS with all checks of the mode (MOV, POP, LxS); does not touch shadow. */
void seg_load(struct soft_cpu *c, const struct insn *i, unsigned seg, u16 sel);
/* Code segment caches for real and vm86 mode. */
void seg_set_real(struct soft_cpu *c, unsigned seg, u16 sel);
/* Far JMP/CALL to sel:off (osz = operand size in bytes); RETF / IRET pop their own. All set c->rip. */
void seg_far_jmp(struct soft_cpu *c, const struct insn *i, u16 sel, u64 off);
void seg_far_call(struct soft_cpu *c, const struct insn *i, u16 sel, u64 off);
void seg_far_ret(struct soft_cpu *c, const struct insn *i, unsigned pop_bytes);
void seg_iret(struct soft_cpu *c, const struct insn *i);
/* Why a task switch happens [SDM3 7.3]. error_code as for soft_raise, pushed on the new stack. */
enum task_switch_kind { TASK_JMP, TASK_CALL, TASK_IRET, TASK_EXC };
void seg_task_switch(struct soft_cpu *c, const struct insn *i, u16 sel, enum task_switch_kind kind,
		     s64 error_code, u64 next_rip);
/* Reads a descriptor (8 bytes, system descriptors in long mode 16) by implicit supervisor access; false
 * when the selector is beyond the table. */
bool seg_descriptor(struct soft_cpu *c, const struct insn *i, u16 sel, u64 *ret_lo, u64 *ret_hi);

/* --- delivery (excp.c) --- */
enum excp_kind { EXCP_FAULT, EXCP_INTR, EXCP_NMI, EXCP_SOFT_INT /* INT n */, EXCP_INT3_INTO, EXCP_INT1 };
/* Delivers vector; return_rip is what is pushed. May raise; excp_deliver_pending() resolves double and
 * triple faults. */
void excp_deliver(struct soft_cpu *c, const struct insn *i, unsigned vector, enum excp_kind kind, s64 error,
		  u64 return_rip);
/* Delivers c->exc; false = triple fault (c->activity = X86_SHUTDOWN, the state is that of the first
 * fault). */
bool excp_deliver_pending(struct soft_cpu *c);
/* External interrupt or NMI between blocks at c->rip; same result. */
bool excp_deliver_async(struct soft_cpu *c, unsigned vector, enum excp_kind kind);
/* Raises #DB as a trap after an instruction (single-step, data breakpoint); dr6 bits to set. */
_Noreturn void excp_debug_trap(struct soft_cpu *c, u64 dr6_bits);
/* Does a code breakpoint stop the instruction at c->rip? Never while RF is set. The loop then sets the
 * DR6 bits and raises #DB (i = NULL), and clears RF after the instruction that RF let pass. */
bool excp_code_breakpoint(struct soft_cpu *c, u64 *ret_dr6);
/* DR6 bits of the data breakpoints, of the I/O breakpoints, that an access hits. */
u64 excp_data_breakpoint(struct soft_cpu *c, gva_t la, unsigned len, bool write);
u64 excp_io_breakpoint(struct soft_cpu *c, u16 port, unsigned len);
/* DR0-3 or DR7 changed: ATT_BREAK, TLB. */
void excp_debug_changed(struct soft_cpu *c);

/* --- leaving the engine --- */
void fpu_spill(struct soft_cpu *c); /* host registers -> c->xsave, host MXCSR back; nothing when not live */
void fpu_load(struct soft_cpu *c);  /* c->xsave -> host registers */
void soft_exit(struct soft_cpu *c, struct vm_exit *exit); /* spill + exit_dispatch */
void soft_account(struct soft_cpu *c, enum exit_reason reason, u64 key, u64 t0);
int soft_out_irq_pending(struct soft_cpu *c);
int soft_out_irq_ack(struct soft_cpu *c);
u64 soft_out_get_cr8(struct soft_cpu *c);
void soft_out_set_cr8(struct soft_cpu *c, u64 cr8);
void soft_out_yield(struct soft_cpu *c);

/* IRET: from here on an NMI may be taken; what came until now is the one that a processor remembers meanwhile. */
void soft_unblock_nmi(struct soft_cpu *c);
void soft_out_timeline(struct soft_cpu *c, enum timeline_event event);

/* Any thread, signal handlers: translated code comes back soon. */
static inline void soft_recall(struct soft_cpu *c)
{
	atomic_store(&c->jit_go, 0);
	atomic_store(&c->jit_jcache, c->jit_empty);
}

/* The vCPU's thread: it may run on again. Who recalls it at the same moment is seen, since the first store is ordered
 * before the exchange; at worst the table stays empty, which the loop sees. */
static inline void soft_let_go(struct soft_cpu *c)
{
	atomic_store_explicit(&c->jit_jcache, c->jit_full, memory_order_relaxed);
	atomic_exchange(&c->jit_go, 1);
}

static inline bool soft_recalled(const struct soft_cpu *c)
{
	return !atomic_load_explicit(&c->jit_go, memory_order_relaxed) ||
	       atomic_load_explicit(&c->jit_jcache, memory_order_relaxed) != c->jit_full;
}

/* Lets other threads of the host have this processor. The kernel keeps vector registers as they are. */
static inline void soft_yield(void)
{
	long nr = SYS_sched_yield;

	__asm__ volatile("syscall" : "+a"(nr) : : "rcx", "r11", "memory");
}

/* --- bytes without libc --- */
static inline void soft_copy(void *dst, const void *src, u64 n)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

static inline void soft_zero(void *dst, u64 n)
{
	__asm__ volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(0) : "memory");
}

/* --- code cache (interp.c, code.c) --- */
void code_invalidate(struct soft_cpu *c, gpa_t gpa,
		     u64 len); /* drops blocks that overlap; stops the current one after this instruction */
void code_beside(struct soft_cpu *c, gpa_t gpa); /* a store has hit a page with code, and none of it */
void code_stop(struct soft_cpu *c);              /* the current block ends after this instruction */
