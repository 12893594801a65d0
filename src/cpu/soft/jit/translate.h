/* Inside the translator: one block while it is being translated. */
#pragma once

#include "cpu/soft/decode.h"
#include "cpu/soft/jit/jit.h"

/* What an instruction is to the translator. */
enum xkind {
	XK_STEP, /* the interpreter executes it */
	XK_BAIL, /* it, and nothing follows in the block */
	XK_NOP,
	XK_RM,     /* integer with ModRM: encoded anew with other registers and operands */
	XK_IMM,    /* MOV r, imm */
	XK_OPREG,  /* BSWAP */
	XK_XCHG_A, /* XCHG rAX, r */
	XK_PLAIN,  /* no operands but rAX, rDX: copied */
	XK_LEA,
	XK_NATIVE, /* by a row of the vector, x87 or natively executed tables */
	XK_VZERO,
	XK_PUSH,
	XK_PUSH_IMM,
	XK_POP,
	XK_PUSH_MEM,
	XK_LEAVE,
	XK_FENCE,
	/* xsys.c */
	XK_CLI,
	XK_STI,
	XK_RDTSC,
	XK_SWAPGS,
	XK_CLD,
	XK_CLAC,
	XK_STAC,
	XK_PUSHF,
	XK_MOV_SREG, /* to a general register */
	XK_STRING,   /* MOVS, STOS */
	/* they end a block */
	XK_JCC,
	XK_JMP,
	XK_CALL,
	XK_RET,
	XK_JMP_IND,
	XK_CALL_IND,
};

/* What it does with the six arithmetic flags. */
enum xflags {
	XF_READ = 1 << 0,
	XF_ALL = 1 << 1,  /* writes all, whatever they were */
	XF_SOME = 1 << 2, /* writes some, or none */
};

struct xinsn {
	const struct insn *i;
	const struct native_row *row;
	u8 kind;
	u8 fl;                         /* XF_* */
	u8 acc;                        /* ACC_* of the memory operand; 0: none */
	u8 msz;                        /* its size */
	u8 reg, rm;                    /* by ModRM and REX, or the opcode */
	bool reg_r, reg_w, rm_r, rm_w; /* general registers; rm when no memory */
	bool byte_reg, byte_rm;
	u8 imm;     /* bytes of immediate to copy */
	bool fault; /* the host may fault on it */
	bool exposes; /* the flags from before it must be known in it: it may fault, or its code changes RFLAGS */
	bool vec, avx, avx512; /* needs the vector state */
	bool stash;            /* the operand of a shift was stored, to find its flags again */
	bool high;             /* names AH, CH, DH or BH */
	bool bits;             /* a bit in memory by a register: beyond msz bytes it is the interpreter's */
	bool moffs;            /* its memory operand is at the address in its immediate, not ModRM's */
	u16 wr;                /* guest registers written, all kinds */
	s32 sp_delta;          /* PUSH, POP: change of RSP */
	u8 base;               /* access to [base + disp] and nothing else: for grouping; NO_REG: none */
	u8 seg;
	s64 disp;
};

/* How lost flags are computed again. */
enum xrecipe { RC_NONE, RC_AGAIN /* CMP, TEST */, RC_LOGIC, RC_ADD, RC_SUB, RC_NEG, RC_SHIFT };
struct recipe {
	u8 kind;
	u8 size; /* of operands */
	u8 op;   /* CMP or TEST: GRP1_CMP, else the shift's digit */
	u8 a, b; /* guest registers; b NO_REG: imm */
	s64 imm;
	s64 delta; /* a, as it was, is the register plus this */
};

struct xflstate {
	bool host, saved;
	struct recipe rc;
};

/* A probed range that later accesses of the block use. */
struct xgroup {
	u8 base, seg;
	bool write;
	u8 slot;    /* SLOT_WINDOW + n: that window */
	s64 lo, hi; /* from the base's value at the probe */
	s64 delta;  /* what has been added to the base since */
};

/* A loop of one block: xloop.c. */
struct xloop_group {
	u8 base, index, scale;
	u8 reg; /* the guest register in whose place the addend is */
	bool write;
	bool with_base; /* the base is added to it */
	s64 lo, hi;     /* of all iterations, from the address' registers as they are at first */
	s64 stride;
};

#define X_LOOP_GROUPS 6
#define X_LOOP_UNROLL 8
struct xloop {
	bool active; /* the fast part is being emitted */
	unsigned nr, unroll;
	u8 count; /* the guest register in whose place the number of rounds is; NO_REG: one round per check */
	struct xloop_group group[X_LOOP_GROUPS];
	const u8 *slow;
	u8 *out[X_LOOP_UNROLL]; /* jumps */
	unsigned nr_out;
};

#define X_MAX_GROUPS 8
#define SLOT_WINDOW  0x40
#define X_MAX_LATE   160

/* Code that is put behind the block. */
struct xlate_late {
	u8 *jump;
	struct xrec *rec;
	struct xflstate fl; /* where the jump is */
	struct xexit *exit,
		*other; /* LATE_POLL: the other one where the condition is false; NULL: there is none */
	u8 what, k, cc;
	bool loop; /* guest registers are to be put back first */
	/* LATE_WINDOW */
	const u8 *back;
	u16 span;
	u8 window;
	bool write, bail;
	bool rest; /* goes on in translate_rest() */
};
enum { LATE_STEP, LATE_BAIL, LATE_EXIT, LATE_JUMP_OUT, LATE_WINDOW, LATE_SLOW, LATE_POLL, LATE_REST };

struct xlate {
	struct soft_cpu *c;
	struct jit *j;
	struct block *b;
	struct xblock *x;
	struct emit e;
	gva_t at; /* where the block is: for any address, one of them */
	/* Of addresses, of what PUSH, POP, CALL and RET move, and of RIP: 8, or 4 in flat 32-bit code (KEY_FLAT), whose
	 * addresses wrap; and as a flag for the assembler. */
	u8 word;
	u32 w;
	unsigned n, k; /* instructions; the current one */
	struct xinsn in[CODE_MAX_INSNS];
	struct xflstate fl;
	bool ends_saved; /* the block's end wants the flags in c->fl, and nothing sets them anew from last_writer on */
	int last_writer;
	bool sse_ok, avx_ok, avx512_ok;
	struct xgroup group[X_MAX_GROUPS];
	unsigned nr_groups, next_slot;
	bool has_rest, in_rest; /* a check has one; it is being emitted: each access is checked by itself */
	const struct xgroup *in_t1; /* whose addend T1 still has; NULL: none */
	s32 entry;                  /* the TLB entry of the last check, from T1 */
	s32 sp_late;                /* the guest's RSP is HOST_SP plus this: translate_sp() */
	struct xlate_late late[X_MAX_LATE];
	unsigned nr_late;
	struct xfault faults[3 * CODE_MAX_INSNS];
	struct xloop lp;
	unsigned half;        /* of the TLB, as a guess */
	struct xrec *step[4]; /* of the current instruction's slow paths: resume after it */
	unsigned nr_steps;
	bool no_room; /* more places than the tables have: not translated */
};

/* Is the guest register in a host register; which. */
static inline bool x_pinned(unsigned reg)
{
	return reg < R_9 || reg > R_11;
}

static inline unsigned x_host(unsigned reg)
{
	return reg == R_SP ? HOST_SP : reg;
}

/* The guest register where it is. */
static inline struct opnd x_opnd(unsigned reg)
{
	return x_pinned(reg) ? op_reg(x_host(reg)) : op_cpu(gpr[reg]);
}

/* Of the block's page, if it is translated for any address. */
static inline u64 x_rip(const struct xlate *t, const struct insn *i)
{
	return t->x->rip + i->off;
}

/* An address of code or data, cut to the mode's. */
static inline u64 x_wrap(const struct xlate *t, u64 addr)
{
	return t->word == 4 ? (u32)addr : addr;
}

/* --- xclass.c --- */
void xclass_insn(struct xlate *t, const struct insn *i, struct xinsn *ret);

/* --- xflags.c --- */
/* The next code changes RFLAGS: afterwards they can still be found. Changes T0. */
void xflags_clobber(struct xlate *t);
/* Puts them into RFLAGS. Changes T0. */
void xflags_need(struct xlate *t);
/* Into c->fl, for what goes to an entry B. Changes T0. */
void xflags_save(struct xlate *t);
/* Instruction k has set them; all, or some after xflags_need(). */
void xflags_set(struct xlate *t, const struct xinsn *xi);
/* Before code that changes the guest registers in the mask, by more than a constant. RFLAGS may be set. */
void xflags_before_write(struct xlate *t, u16 regs);
/* A constant is added to a register. */
void xflags_moved(struct xlate *t, unsigned reg, s64 by);
/* Does anything look at the flags that instruction k leaves alone or sets, before all are set anew? */
bool xflags_wanted_after(const struct xlate *t, unsigned k);
void xflags_stash(struct xlate *t, struct xinsn *x);
/* Out of line, in the state fl: flags into c->fl unless they are there; true: they are in RFLAGS and to be saved. */
bool xflags_late(struct xlate *t, const struct xflstate *fl);

/* --- memop.c --- */
/* The constant that the instruction adds to a register, or false. */
bool memop_delta(const struct xlate *t, const struct xinsn *x, unsigned reg, s64 *ret_by);
/* Emits the check for the memory operand of t->in[t->k] and yields the operand as the host has it, which
 * may be of T1, and of T0 unless free_t0. need_flags: RFLAGS are the guest's afterwards. Changes T0, T1. */
struct opnd memop_operand(struct xlate *t, u16 writes, bool need_flags, bool free_t0);
/* dst = the effective address of the memory operand, without its segment's base, cut to size bytes. Changes T1, no
 * flags. A 16-bit one is not of RIP. */
void memop_lea(struct xlate *t, unsigned size, unsigned dst);
/* The same for an access of t->word bytes that is not ModRM's: base register, displacement. */
struct opnd memop_access(struct xlate *t, unsigned base, s64 disp, unsigned acc, u16 writes, bool free_t0);
/* What a PUSH stores to. */
static inline struct opnd memop_push(struct xlate *t, bool free_t0)
{
	return memop_access(t, R_SP, -(s64)t->word, ACC_W, 0, free_t0);
}
/* The check of an access whose first byte is at T1, the last at T0: T1 = the TLB entry that is to have the tag of acc. any_half: it
 * may be in either half of the addresses, else in the half that t->half guesses. Yields the jump of a failure. Changes T0, flags. */
u8 *memop_probe(struct xlate *t, unsigned acc, bool any_half);
/* Out of line: an access is not in its window. What follows is for when the TLB does not have it either. */
void memop_window(struct xlate *t, const struct xlate_late *l);
/* A constant was added to a register; it was changed otherwise. */
void memop_moved(struct xlate *t, unsigned reg, s64 by);
void memop_killed(struct xlate *t, u16 regs);
void memop_forget(struct xlate *t);

/* The check of a group of a loop; the TLB entry is in T1 then. */
u8 *memop_check_loop(struct xlate *t, const struct xloop_group *g);
/* dst = the address of the first byte of the range that one round accesses. Changes T0. */
void memop_ea_loop(struct xlate *t, const struct xloop_group *g, unsigned dst);

/* --- xloop.c --- */
/* Is the block such a loop? Fills t->lp. */
bool xloop_plan(struct xlate *t);
void xloop_translate(struct xlate *t);
/* The group whose register has the addend for the operand of i, NULL: none. */
const struct xloop_group *xloop_find(const struct xlate *t, const struct insn *i);
/* The guest's registers back in their places; the addends. Change no flags. */
void xloop_restore(struct xlate *t);
void xloop_reload(struct xlate *t);

/* --- xsys.c --- */
void xsys_translate(struct xlate *t, const struct xinsn *x);

/* --- translate.c --- */
struct xexit *translate_exit(struct xlate *t, gva_t rip);
/* reg = the linear address of `rip`, as x_rip() has it. Changes no flags. */
void translate_rip(struct xlate *t, unsigned reg, gva_t rip);
/* Several PUSHes and POPs in a row that share a check move RSP once: it is late meanwhile. Now it is to be right, as it has to
 * be wherever the block may be left. Changes T0, no flags that are in RFLAGS. */
void translate_sp(struct xlate *t);
void translate_gate(struct xlate *t, const struct xinsn *x);
void translate_insn(struct xlate *t, struct xinsn *x);
/* The interpreter executes the instruction; bail: and what follows in the block. */
void translate_step(struct xlate *t, bool bail);
/* It does so where the jump is taken, of which nothing has been done yet. Up to four places of an instruction. */
void translate_slow(struct xlate *t, u8 *jump);
/* Does it then go on to the block's end? Where the instruction ends the block, or has a second access, which may begin a group
 * that later instructions count on. */
bool translate_bails(const struct xlate *t);
/* A constant is added to RSP, late. */
void translate_move_sp(struct xlate *t, s32 by);
/* The end of the block: on to rip. */
void translate_leave(struct xlate *t, gva_t rip);
struct xrec *translate_rec(struct xlate *t, bool group);
void translate_late(struct xlate *t, unsigned what, u8 *jump, struct xrec *rec, struct xexit *exit);
