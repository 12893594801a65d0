/* Translated code: what the files of this folder share, and what the interpreter's loop calls.
 *
 *   emit.c       an assembler
 *   translate.c  a decoded block -> host code; memop.c operands in memory, xflags.c flags
 *   glue.c       the code around translated code: entry, ways out
 *   jit.c        the cache of translations, links between them, running them
 *   jit_host.c   memory, signals, the timer
 *   lockstep.c   a mode that compares each translation's work with the interpreter's
 *
 * Host registers while translated code runs. The guest's rAX..rDI, R8, R12..R15 are in the registers of the
 * same number; its RSP is in R11; its R9, R10, R11 stay in c->gpr. R9 and R10 are the translator's own
 * (T0, T1). RSP is a stack for host CALLs; GS.base is the soft_cpu.
 *
 * Arithmetic flags between instructions are in RFLAGS, or saved in c->fl, or can be computed again; each
 * place in the code knows which. A translation has two entries: A with the flags in RFLAGS, B with the flags
 * in c->fl. */
#pragma once

#include <signal.h>
#include <time.h>

#include "cpu/soft/code.h"
#include "cpu/soft/jit/emit.h"

#define T0      R_9
#define T1      R_10
#define HOST_SP R_11

#define JIT_STACK_SIZE (64 * KiB)
#define JIT_GUARD_SIZE (4 * KiB)
#define JIT_SIGNAL     SIGRTMIN /* of the timer */
#define JIT_REGIONS    8u
#define JIT_CODE       (3 * MiB) /* of a region */
#define JIT_DATA       (3 * MiB)
#define JIT_CODE_SIZE  (JIT_REGIONS * JIT_CODE)
#define JIT_DATA_SIZE  (JIT_REGIONS * JIT_DATA)
/* The most that one block can need of either. */
#define JIT_BLOCK_CODE (40 * KiB)
#define JIT_BLOCK_DATA (16 * KiB)
#define JIT_MAX_BLOCKS (1u << 14) /* of a region */

/* Executions on trial, and misses of all windows until the next trial, by jit->warm; a window pays when it misses less
 * than once in TRIAL_MISSES: a miss costs some 25 cycles, a hit saves two or three. */
#define TRIAL_RUNS   21u
#define TRIAL_LATER  4096u
#define TRIAL_MISSES 16

struct xblock;
struct xlate;

/* A way out of a translation to a known address, linked to the translation there or not yet. */
struct xexit {
	u8 *jump; /* the displacement to set */
	u8 *key;  /* other page: the 8 bytes compared with the key in the TLB for code; NULL: same page */
	const u8 *stub; /* where the jump goes while it is not linked */
	struct xblock *from, *to;
	struct xexit *next_in; /* in the list of `to` */
	gva_t rip;
	bool saved; /* goes to entry B */
};

/* A place where the interpreter helps: instruction k of the block. */
struct xrec {
	struct xblock *x;
	const u8 *resume; /* where translated code goes on after it; NULL: it does not */
	u16 k;
	bool vec;   /* which counts on vector state in the host's registers */
	bool group; /* a probe for several accesses failed */
};

/* Where an instruction that the host may fault on lies. */
struct xfault {
	u32 off; /* from the block's code */
	u16 k;
	bool saved; /* flags are in c->fl, else in RFLAGS */
	bool loop;  /* guest registers are to be put back first: xloop.c */
};

/* An access through a window: of instruction k. From `from` on, until the next of these, the host may fault on what
 * passed the check of an empty window; then it goes on at `to`. Both from the block's code. */
struct xwindow {
	u32 from, to;
	u32 misses; /* while the translation is on trial */
	u16 k;
};

/* One translation of a block, for one linear address. */
struct xblock {
	gva_t rip;
	struct block *block;
	struct xblock *next; /* of the same block, at other addresses */
	const u8 *code, *code_end, *entry_a, *entry_b;
	struct xexit *in;
	struct xexit *exit[CODE_MAX_INNER + 3];
	u32 nr_exits;
	u32 nr_faults, nr_windows;
	struct xfault *faults;
	struct xwindow *windows; /* in order of `from` */
	/* A translation is on trial at first: `left` counts its executions down, then it comes back by `again`, and the
	 * block is translated anew without the windows that missed often. That one's `left` counts misses, and
	 * then there is a new trial. */
	u32 left, trial_misses;
	struct xexit *again; /* NULL: not on trial */
	struct xrec fault;   /* of the last fault of the host in it */
	const u8 *loop_bail[2];
	u16 nr_bails;
	bool dead;
};

/* By linear address. It may have come to mean other memory unless gen is that of the TLB for code, c->code_gen[]. */
struct jcache {
	gva_t rip; /* ~0: free, and gen is 0 then: a guest may go to that address */
	u64 gen;
	const u8 *code; /* entry B */
	struct xblock *x;
};
#define JCACHE_FREE ((struct jcache){ .rip = ~0ull })
#define JCACHE_BITS 12
#define JCACHE_MUL  0x9e3779b1u

static inline u32 jcache_hash(gva_t rip)
{
	return (u32)rip * JCACHE_MUL >> (32 - JCACHE_BITS);
}

/* Why translated code came back. */
enum jit_end {
	JIT_EXIT, /* c->jit_rec is an xexit */
	JIT_STEP, /* c->rip is set */
	JIT_BAIL, /* c->jit_rec is an xrec: interpret from there to the block's end */
	JIT_JUMP, /* an indirect jump to c->jit_target, c->jit_rec its record */
	JIT_RET,  /* RET to c->jit_target, c->jit_ret its record */
};

struct jit {
	u8 *rw;       /* JIT_CODE_SIZE, to write */
	const u8 *rx; /* the same, to execute; JIT_DATA_SIZE of data follow */
	u8 *data;
	/* Filled one after the other; a full one makes room by giving up the next. The first begins with glue. */
	u32 region;
	struct jit_region {
		u32 code_used, data_used;
		u32 nr_blocks;
		struct xblock **blocks; /* by address of their code */
	} regions[JIT_REGIONS];
	u32 glue_used;
	struct jcache *jcache, *no_jcache; /* the latter stays empty */
	struct xblock **blocks;            /* of all regions */
	struct xlate *xlate;               /* the translator's own */
	u8 *stack;                         /* the guard, then the stack */
	timer_t timer;
	bool has_timer;
	u32 warm, trial_runs, trial_later;
	bool lockstep, perf_map;
	bool trials; /* translations are on trial at first */
	void *map;   /* FILE: the perf map */

	/* glue.c */
	u64 (*enter)(struct soft_cpu *c, const u8 *code);
	u64 (*enter_host)(struct soft_cpu *c, const u8 *code, u64 fl); /* to an entry A */
	const u8 *window[2][NR_WINDOWS][2]; /* [half of the code][window][write]: make_window() */
	const u8 *step_host, *step_saved, *exit_host, *exit_saved, *bail_host, *bail_saved, *jump_out,
		*ret_miss, *ret_top;

	u64 nr_translated, nr_insns, nr_dropped, nr_evicted, nr_links, nr_entries, nr_steps, nr_bails,
		nr_misses;
};

/* --- jit.c --- */
/* Runs translated code at c->rip, 64-bit mode: the first if the cache knows the address, the second if block b there
 * is translated, or now is. False: nothing was done. Afterwards events are to be looked at. */
bool jit_try(struct soft_cpu *c);
bool jit_block(struct soft_cpu *c, struct block *b);
/* Translated code came back. */
void jit_left(struct soft_cpu *c, enum jit_end end);
/* What follows the one instruction that jit_step() executes. */
void jit_op_stepped(struct soft_cpu *c, const struct insn *i);
/* A block is dropped, and its translations with it; what is executed of it ends with the current instruction. */
void jit_drop(struct soft_cpu *c, struct block *b);
/* The block of a list of translations is elsewhere now. */
void jit_moved(struct xblock *x, struct block *to);
/* All of them; no translated code is running. */
void jit_flush(struct soft_cpu *c);
/* Where the host's signal handler sends a thread that faulted at rx; 0: not in translated code. */
u64 jit_fault(struct soft_cpu *c, u64 rx);
/* Where it sends one that is to come back and whose CALL at rx found the stack for calls full; 0: on, with an empty one. */
u64 jit_stack_full(struct soft_cpu *c, u64 rx);
/* Drops x, so that its block is translated anew; extend: a longer one, by code_extend(). */
void jit_again(struct soft_cpu *c, struct xblock *x, bool extend);
/* From glue: one instruction by its handler; where to go on, NULL: leave. */
const u8 *jit_step(struct soft_cpu *c, const struct xrec *rec);

/* --- glue.c --- */
void glue_make(struct jit *j);
/* The parts of a lookup of the address in T0, for glue and translations. T1 = its entry in the cache of addresses,
 * compared with T0. Changes flags. */
void glue_jcache_compare(struct emit *e);
/* c->fl = the six flags of RFLAGS. Changes RAX. */
void glue_save_flags(struct emit *e);
/* RFLAGS, from AX as glue_save_flags() leaves it in c->fl. Changes RAX. */
void glue_load_flags(struct emit *e);

/* --- translate.c --- */
/* Needs room: JIT_BLOCK_CODE, JIT_BLOCK_DATA. NULL: not worth it. */
struct xblock *translate_block(struct soft_cpu *c, struct block *b, gva_t rip);

static inline void *jit_alloc(struct jit *j, u64 size)
{
	struct jit_region *r = &j->regions[j->region];
	void *p = j->data + j->region * JIT_DATA + r->data_used;

	r->data_used += (u32)ALIGN_UP(size, 8ull);
	soft_zero(p, size);
	return p;
}

/* Bytes of code that translations take. */
static inline u64 jit_code_bytes(const struct jit *j)
{
	u64 sum = 0;

	for (u32 k = 0; k < JIT_REGIONS; k++)
		sum += j->regions[k].code_used;
	return sum;
}

/* --- jit_host.c --- */
int jit_init(struct soft_cpu *c, struct err *err);
void jit_fini(struct soft_cpu *c);
/* A thread begins to run c: signals. The host's timer to vcpu->timer_tsc, after fpu_spill(). */
void jit_host_thread(struct soft_cpu *c);
void jit_host_arm(struct soft_cpu *c);
/* Tells perf the name of a translation, after fpu_spill(). */
void jit_host_map(const struct soft_cpu *c, const struct xblock *x);
