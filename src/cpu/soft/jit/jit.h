/* Translated code: what the files of this folder share, and what the interpreter's loop calls.
 *
 *   emit.c       an assembler
 *   translate.c  a decoded block -> host code; memop.c operands in memory, xflags.c flags, xsys.c system and string instructions
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
 * in c->fl.
 *
 * Translations are shared by the vCPUs of a VM; nothing in the code is of one vCPU but what it finds through GS. They are
 * made, linked and dropped under the lock of share.h, while others execute them:
 *
 * - A translation is complete, and so is what the signal handler looks up (struct jit_region), before anything
 *   leads to it. Ways to it are data (a jcache entry, a block's list), loaded before it is jumped to, or jumps
 *   that are patched after it is there.
 * - A jump is linked and unlinked by one store to its displacement, which lies within eight aligned bytes. Who
 *   executes it goes to the old or to the new target. Both are there until one vCPU alone gives up their memory, after
 *   which everybody serializes [SDM3 8.1.3]; so it does not matter when a processor takes notice of the store.
 * - A jump to another page compares a key, eight aligned bytes, and then jumps, two places that a processor may
 *   read at different times. An exit that is not linked has a key that never compares equal. So, from unlinked to
 *   linked: an old key does not get to the jump; with the new key an old displacement is that of the stub, which leaves
 *   by the record of the exit. From linked to unlinked: an old key with the new displacement is the stub again, with the
 *   old one the translation as it was a moment ago. From one key to another is not done at once: a vCPU that has compared
 *   the old key may be put off before its jump. Only when each vCPU has been between two blocks since the exit was
 *   unlinked (share_settled()) it may get another key; the same key at once, as what it leads to is the same memory.
 * - A translation that is dropped is unlinked and disappears from the jcaches of all vCPUs. Those that are in it go on
 *   to its end, or to jit_go; a host return address may still lead to its code behind a CALL, which ends with unlinked
 *   exits.
 */
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
#define JIT_SIGNAL     SIGRTMIN  /* of the timer */
#define JIT_LEAST      2u        /* regions */
#define JIT_CODE       (2 * MiB) /* of a region */
#define JIT_DATA       (2 * MiB)
#define JIT_CODE_SIZE  (REGIONS_MOST * JIT_CODE)
#define JIT_DATA_SIZE  (REGIONS_MOST * JIT_DATA)
/* The most that one block can need of either. */
#define JIT_BLOCK_CODE (40 * KiB) /* places in it are of 16 bits */
#define JIT_BLOCK_DATA (16 * KiB)
#define JIT_PUSH_NEXT  8          /* bytes of the PUSH of c->jit_next in front of a CALL */
#define JIT_MAX_BLOCKS (1u << 14) /* of a region */

/* Executions on trial, and misses of all windows until the next trial, by jit->warm; a window pays when it misses less
 * than once in TRIAL_MISSES: a miss costs some 25 cycles, a hit saves two or three. */
#define TRIAL_RUNS   21u
#define TRIAL_LATER  4096u
#define TRIAL_MISSES 16

/* The longest block of which a part is translated twice, so that the translator's tables hold it. */
#define X_SPLIT_MOST 24

struct xblock;
struct xlate;

/* What an exit says besides where it goes: the block is not what it was made of; nor has it been for long. */
enum { XEXIT_GO, XEXIT_CHANGED, XEXIT_QUIET, XEXIT_AGAIN };

/* The key of an exit to another page. */
struct xkey {
	u8 *place; /* the 8 bytes compared with the key in the TLB for code */
	u64 last;  /* what was there last */
	u64 epoch; /* when the exit was unlinked last: see share_settled() */
};

/* A way out of a translation to a known address, linked to the translation there or not yet. */
struct xexit {
	struct xblock *from, *to;
	struct xexit *next;    /* of `from`; the last is the first in the list */
	struct xexit *next_in; /* in the list of `to` */
	gva_t rip;             /* as those of its translation */
	u8 *jump;              /* the displacement to set; NULL: it is not linked */
	const u8 *stub;        /* where the jump goes while it is not linked */
	struct xkey *key;      /* NULL: same page */
	bool saved;            /* goes to entry B */
	u8 why;                /* XEXIT_* */
};

/* A place where the interpreter helps: instruction k of the block. */
struct xrec {
	struct xblock *x;
	u32 resume; /* where translated code goes on after it, from j->rx; 0: it does not */
	u16 k;
	bool vec;   /* which counts on vector state in the host's registers */
	bool group; /* a probe for several accesses failed */
};

/* Where an instruction that the host may fault on lies. */
struct xfault {
	u16 off; /* from the block's code */
	u8 k;
	bool saved : 1; /* flags are in c->fl, else in RFLAGS */
	bool loop : 1;  /* guest registers are to be put back first: xloop.c */
};

/* An access through a window: of instruction k. From `from` on, until the next of these, the host may fault on what
 * passed the check of an empty window; then it goes on at `to`. Both from the block's code. */
struct xwindow {
	u16 from, to;
	u32 misses; /* while the translation is on trial */
	u8 k;
};

/* How translated code that comes from elsewhere gets into a translation for any address. */
struct xpic {
	const u8 *by_address; /* T0 has the address: by the table of addresses */
	u8 *jump;             /* the first there; leads nowhere when the translation is dropped */
	const u8 *
		by_key; /* T0 has the page's key in the TLB for code: by an exit of another page; flags are saved */
	const u8 *by_key_a; /* the same, the key is in c->jit_to: flags are in RFLAGS */
};

/* One translation of a block: for one linear address, or, where the page was met at several of the lower half (the libraries of
 * many processes), for any of these. The latter finds the page's address in c->jit_page; all addresses in its records are
 * relative to that. Within the page its ways out are linked as any; what leads to another page is looked up by address. Who
 * comes from elsewhere sets c->jit_page: C before it enters, translated code by one of the ways of struct xpic. */
struct xblock {
	gva_t rip; /* pic: of the page */
	struct block *block;
	struct xblock *next; /* of the same block, at other addresses */
	const u8 *code, *code_end, *entry_a, *entry_b;
	struct xpic *pic; /* NULL: for one address */
	u64 hva;          /* of the block, as long as it is there */
	u32 mode;         /* its KEY_MODE and KEY_FLAT */
	bool dead;
	u16 nr_bails;
	u16 nr_faults, nr_windows;
	struct xexit *in, *exits;
	struct xfault *faults;
	struct xwindow *windows; /* in order of `from` */
	/* A translation is on trial at first: `left` counts its executions down, then it comes back by `again`, and the
	 * block is translated anew without the windows that missed often. That one's `left` counts misses, and
	 * then there is a new trial. */
	u32 left, trial_misses;
	struct xexit *again; /* NULL: not on trial */
	u64 target;          /* on trial: where its indirect jump or call went last */
	u32 nr_targets;      /* how often that was another one than before */
	const u8 *loop_bail[2];
};

/* An address in a record of x, which runs or has just come back. */
static inline gva_t jit_rip(const struct soft_cpu *c, const struct xblock *x, gva_t rip)
{
	return x->pic ? c->jit_page + rip : rip;
}

/* By linear address. It may have come to mean other memory unless gen is that of the TLB for code, c->code_gen[]. */
struct jcache {
	gva_t rip; /* ~0: free, and gen is 0 then: a guest may go to that address */
	u64 gen;
	const u8 *code; /* entry B, or C */
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

/* A vCPU's own. */
struct jit_cpu {
	struct jcache *jcache;
	struct xrec fault; /* of the last fault of the host in translated code */
	u8 *stack;         /* the guard, then the stack */
	timer_t timer;
	bool has_timer;
	u64 nr_entries, nr_steps, nr_bails, nr_misses;
};

/* The VM's. */
struct jit {
	u8 *rw;       /* JIT_CODE_SIZE, to write */
	const u8 *rx; /* the same, to execute; JIT_DATA_SIZE of data follow */
	u8 *data;
	struct regions use; /* of the regions; the first begins with glue */
	struct jit_region {
		u32 code_used, data_used;
		/* By address of their code. The signal handler reads it without the lock: an entry is there before
		 * it is counted. */
		_Atomic u32 nr_blocks;
		struct xblock **blocks;
	} regions[REGIONS_MOST];
	u32 glue_used;
	struct jcache *no_jcache; /* stays empty: all 0, which is no generation, so that it takes no memory */
	struct xblock **blocks;   /* of all regions */
	struct xlate *xlate;      /* the translator's own */
	u32 warm, trial_runs, trial_later;
	bool lockstep, perf_map;
	bool pic;    /* all translations of the lower half are for any address */
	bool trials; /* translations are on trial at first */
	void *map;   /* FILE: the perf map */

	/* glue.c */
	u64 (*enter)(struct soft_cpu *c, const u8 *code);
	u64 (*enter_host)(struct soft_cpu *c, const u8 *code, u64 fl); /* to an entry A */
	const u8 *window[2][NR_WINDOWS][2]; /* [half of the code][window][write]: make_window() */
	const u8 *step_host, *step_saved, *exit_host, *exit_saved, *bail_host, *bail_saved, *jump_out,
		*ret_miss, *ret_top, *dead;

	u64 nr_translated, nr_insns, nr_dropped, nr_evicted, nr_links;
};

/* c->rip is about to be entered, by an entry A or B. */
static inline void jit_set_page(struct soft_cpu *c)
{
	c->jit_page = c->rip & ~(RAM_PAGE_SIZE - 1);
}

/* --- jit.c --- */
/* Runs translated code at c->rip in a mode of soft_translates(): the first if the cache knows the address, the second if block b there
 * is translated, or now is. False: nothing was done. Afterwards events are to be looked at. */
bool jit_try(struct soft_cpu *c);
bool jit_block(struct soft_cpu *c, struct block *b);
/* Translated code came back. */
void jit_left(struct soft_cpu *c, enum jit_end end);
/* What follows the one instruction that jit_step() executes. */
void jit_op_stepped(struct soft_cpu *c, const struct insn *i);
/* A block is dropped, and its translations with it. Under the lock. */
void jit_drop(struct soft_vm *s, struct block *b);
/* The block of a list of translations is elsewhere now. Alone. */
void jit_moved(struct xblock *x, struct block *to);
/* What a region has is given up. Alone, under the lock. */
void jit_give_up(struct soft_vm *s, u32 region);
/* All of them. Alone. */
void jit_flush(struct soft_vm *s);
/* c forgets which addresses are translated. On its thread, or alone. */
void jit_forget(struct soft_cpu *c);
/* Where the host's signal handler sends a thread that faulted at rx; 0: not in translated code. */
u64 jit_fault(struct soft_cpu *c, u64 rx);
/* Where it sends one whose CALL at rx, or the PUSH before it, found the stack for calls full, with an empty one; leave: it is to
 * come back. */
u64 jit_stack_full(struct soft_cpu *c, u64 rx, bool leave);
/* Drops x, so that its block is translated anew; extend: a longer one, by code_find_longer(). */
void jit_again(struct soft_cpu *c, struct xblock *x, bool extend);
/* From glue: one instruction by its handler; where to go on, NULL: leave. */
const u8 *jit_step(struct soft_cpu *c, const struct xrec *rec);

/* --- glue.c --- */
void glue_make(struct jit *j);
/* The parts of a lookup of the address in T0, for glue and translations. T1 = its entry in the cache of addresses,
 * compared with T0. Changes flags. */
void glue_jcache_compare(struct emit *e);
/* op reg, with the field of the half of the linear addresses that T0 lies in. Changes flags. */
void glue_by_half(struct emit *e, u32 op, unsigned reg, struct opnd lower, struct opnd upper);
/* c->fl = the six flags of RFLAGS. Changes RAX. */
void glue_save_flags(struct emit *e);
/* RFLAGS, from AX as glue_save_flags() leaves it in c->fl. Changes RAX. */
void glue_load_flags(struct emit *e);

/* --- translate.c --- */
/* Needs room: JIT_BLOCK_CODE, JIT_BLOCK_DATA. pic: for any address of the lower half. NULL: not worth it. */
struct xblock *translate_block(struct soft_cpu *c, struct block *b, gva_t rip, bool pic);

static inline void *jit_alloc(struct jit *j, u64 size)
{
	struct jit_region *r = &j->regions[j->use.at];
	void *p = j->data + j->use.at * JIT_DATA + r->data_used;

	r->data_used += (u32)ALIGN_UP(size, 8ull);
	soft_zero(p, size);
	return p;
}

/* Bytes of code that translations take. */
static inline u64 jit_code_bytes(const struct jit *j)
{
	u64 sum = 0;

	for (u32 k = 0; k < REGIONS_MOST; k++)
		sum += j->regions[k].code_used;
	return sum;
}

/* --- jit_host.c --- */
int jit_vm_init(struct soft_vm *s, struct err *err);
void jit_vm_fini(struct soft_vm *s); /* accepts a half-built one */
int jit_init(struct soft_cpu *c, struct err *err);
void jit_fini(struct soft_cpu *c);
/* A thread begins to run c: signals. The host's timer to vcpu->timer_tsc, after fpu_spill(). */
void jit_host_thread(struct soft_cpu *c);
void jit_host_arm(struct soft_cpu *c);
/* Gives back a region's memory where there are more than the guest needs. Alone, outside of translated code. */
void jit_give_back(struct soft_vm *s);
/* Tells perf the name of a translation, after fpu_spill(). */
void jit_host_map(struct jit *j, const struct xblock *x, gva_t rip);
