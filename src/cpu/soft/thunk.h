/* Native execution of one guest instruction.
 *
 * thunk_get() makes (or finds) a small function that loads the guest's general registers that the
 * instruction names from cpu->gpr, its flags if it reads them, executes the guest's own instruction with
 * its memory operand replaced by a plain pointer, stores back what it wrote (registers, flags) and
 * returns. Vector, x87 and MXCSR state is the host's own at that moment (fpu_load()). Handlers:
 * op_native (below) is the generic one for all rows without a handler of their own. A fault inside
 * (SIGFPE, SIGSEGV, SIGILL at a thunk's address) becomes the guest's #DE/#MF/#XM, #GP(0) or #UD.
 *
 * Life of a native instruction: decode_insn() -> native_bind() leaves the row in i->thunk; whoever builds the
 * block calls thunk_attach(), which puts the code there. When that fails the arena is full: drop all
 * blocks, thunk_reset(), begin again.
 */
#pragma once

#include "cpu/soft/decode.h"

typedef void (*thunk_fn)(u64 *gpr, void *mem, u16 *fl);

/* A VM has one arena for all of its vCPUs, which changes under the lock of share.h. It is mapped twice, to be written
 * and to be executed. Equal instructions share a thunk. */
#define THUNK_CODE_SIZE (1 * MiB)
#define THUNK_SLOTS     (1u << 14)
#define THUNK_MAX_NR    (THUNK_SLOTS / 4 * 3)

struct thunk_slot {
	u64 key[2]; /* the instruction as it is executed */
	u32 off;    /* of its thunk, 0: free */
	u32 flags;  /* of its row, and which register stands for which */
};

struct thunk_arena {
	u8 *rw;                   /* THUNK_CODE_SIZE bytes, to write */
	const u8 *rx;             /* the same memory, to execute */
	struct thunk_slot *slots; /* [THUNK_SLOTS], all free at first */
	u32 used, nr;
	unsigned index; /* which of the process's arenas it is */
};

/* Code for i under row (which has no handler of its own); NULL when the arena is full. */
thunk_fn thunk_get(struct thunk_arena *a, const struct insn *i, const struct native_row *row);
/* After decoding: if native_bind() left a row in i->thunk, puts the code there. False: the arena is full
 * and i as it was. */
bool thunk_attach(struct thunk_arena *a, struct insn *i);
/* Forgets all thunks. No block may hold one any more, and nobody may be executing one; then all serialize. */
void thunk_reset(struct thunk_arena *a);
/* Only general registers: needs no vector or x87 state. */
bool thunk_is_int(const struct insn *i, const struct native_row *row);

/* How the host executes i: prefixes, opcode, operand size. */
struct thunk_encoding {
	u8 opcode, pp; /* pp: of VEX */
	bool one_byte; /* of map 0, whatever i->map */
	bool p66, f2, f3, w;
};
struct thunk_encoding thunk_encoding(const struct insn *i, const struct native_row *row);
bool thunk_has_modrm(const struct insn *i);
/* ops_native.c: FLDCW and its like, which leave the x87 pointers alone. */
bool native_x87_control(const struct insn *i);

/* Host code, once per process (again: nothing): memory, signal handlers, what the host's FPU can do. The
 * sentence says when executable memory is refused. */
int thunk_init(struct err *err);
/* After it, main thread: an arena for a VM. */
int thunk_arena_new(struct thunk_arena **ret_arena, struct err *err);
void thunk_arena_free(struct thunk_arena *a); /* NULL: nothing */
/* Per vCPU thread: alternate signal stack, which cpu this thread runs (again: only that). */
void thunk_thread_init(struct soft_cpu *c);
/* Before the thread ends. */
void thunk_thread_fini(void);
/* c is about to be freed: this thread does not run it any more, if it did. */
void thunk_thread_forget(const struct soft_cpu *c);
/* Where the signal handler goes on. */
_Noreturn void thunk_recover(struct soft_cpu *c, const struct insn *i, unsigned vector);

/* Generic handlers. aux holds NR_LOAD | NR_STORE bits (low byte of the row's flags) */
void op_native_reg(struct soft_cpu *c, const struct insn *i); /* integer, no memory: no FPU state needed */
void op_native_mem(struct soft_cpu *c, const struct insn *i); /* integer with memory */
void op_native_simd(struct soft_cpu *c,
		    const struct insn *i); /* SSE/AVX, either form: checks CR0/CR4/XCR0, loads the state */
void op_native_mmx(struct soft_cpu *c, const struct insn *i);
void op_native_x87(struct soft_cpu *c, const struct insn *i);
/* Sets i->fn, i->msz, i->aux for a row, and i->thunk = row when it needs code. Needs i->osz: for VEX 8
 * only with VEX.W in 64-bit mode. */
void native_bind(struct insn *i, const struct native_row *row);
