/* The lock-step mode: each translation's work is compared with the interpreter's. See lockstep.c. */
#pragma once

#include "cpu/soft/code.h"
#include "cpu/soft/jit/storelog.h"
#include "vm/engine.h"

#define LOCKSTEP_XSAVE X86_XSAVE_SIZE

/* What a run of a block starts from or leads to. Of the soft_cpu only the guest's part. */
struct lockstep_state {
	struct soft_cpu c;
	u8 xsave[LOCKSTEP_XSAVE];
	bool fault;
};

/* How the translation is run. */
enum lockstep_how {
	LOCKSTEP_A = 1 << 0,      /* by entry A, with the flags in RFLAGS */
	LOCKSTEP_DEAD = 1 << 1,   /* vector state is not in the host's registers */
	LOCKSTEP_MISS = 1 << 2,   /* no access finds the TLB */
	LOCKSTEP_WINDOW = 1 << 3, /* the stack's page is known */
};

struct lockstep {
	struct block *block;
	struct xblock *xblock;
	struct lockstep_state before, interpreted, translated;
	unsigned how;
	unsigned limit;  /* the instruction that both stop before */
	unsigned rounds; /* of a loop, by the interpreter */
	bool long_loop;  /* it did not see the end of it */
	bool other_exit; /* the translation alone did something that cannot be done twice */
	bool running;    /* the translation runs */
	bool crashed;    /* it touched what is not there: at crash_rip of the host, address crash_addr */
	bool vec_used;   /* the interpreter needed the vector state */
	u32 shadow;      /* ATT_SHADOW that the block ends with */
	u64 crash_rip, crash_addr;
	void *jb[5]; /* the loop's */

	struct storelog log;  /* of the interpreter */
	struct storelog seen; /* when they differ: the same places after the translation */

	u64 nr_equal, nr_again;               /* runs compared; of them more than once */
	u64 nr_once, nr_long, nr_interrupted; /* not compared: see soft_stats.c */
};

/* A part of soft_cpu that is compared, for people. */
struct lockstep_field {
	const char *name;
	u16 offset, size;
};
extern const struct lockstep_field lockstep_fields[];
extern const unsigned lockstep_nr_fields;

/* Runs block b at c->rip by the interpreter and by its translation x, and compares. False: nothing was done,
 * as it cannot be done twice. May raise what the block raises. */
bool lockstep_block(struct soft_cpu *c, struct block *b, struct xblock *x);

/* The signal handler: the host faulted at rip. True: in a translation that is being compared; then it goes on in
 * lockstep_recover(), which does not return. */
bool lockstep_fault(struct soft_cpu *c, u64 rip, u64 addr);
_Noreturn void lockstep_recover(struct soft_cpu *c);

/* --- lockstep_host.c --- */
int lockstep_init(struct soft_cpu *c, struct err *err);
void lockstep_fini(struct soft_cpu *c);
/* The sentence when the mode does not fit. Main thread. */
int lockstep_check(const struct vm *vm, struct err *err);
/* They differ: says how on standard error, and ends the machine. After fpu_spill(). */
void lockstep_report(struct soft_cpu *c);
