/* Native execution of one guest instruction.
 *
 * thunk_get() makes (or finds) a small function that loads the guest's general registers that the instruction names
 * from cpu->gpr, its flags if it reads them, executes the guest's own instruction with its memory operand
 * replaced by a plain pointer, stores back what it wrote (registers, flags) and returns. Vector, x87 and MXCSR state
 * is the host's own at that moment (fpu_load()). Handlers: op_native (below) is the generic one for all rows
 * without a handler of their own. A fault inside (SIGFPE, SIGSEGV, SIGILL at a thunk's address) becomes the guest's #DE/#MF/#XM,
 * #GP(0) or #UD.
 */
#pragma once

#include "cpu/soft/decode.h"

typedef void (*thunk_fn)(u64 *gpr, void *mem, u16 *fl);

/* Code for i under row; NULL when the arena is full (caller flushes all code and retries). The arena is per VM-wide
 * engine, mapped twice (write view, execute view), capped; equal instructions share a thunk. */
thunk_fn thunk_get(const struct insn *i, const struct native_row *row);

/* Host code, once per process: arena and signal handlers. The sentence says when executable memory is refused. */
int thunk_init(struct err *err);
/* Per vCPU thread: alternate signal stack, which cpu this thread runs. */
void thunk_thread_init(struct soft_cpu *c);

/* Generic handlers. aux holds NR_LOAD | NR_STORE bits (low byte of the row's flags) */
void op_native_reg(struct soft_cpu *c, const struct insn *i); /* integer, no memory: no FPU state needed */
void op_native_mem(struct soft_cpu *c, const struct insn *i); /* integer with memory */
void op_native_simd(struct soft_cpu *c, const struct insn *i); /* SSE/AVX, either form: checks CR0/CR4/XCR0, loads the state */
void op_native_mmx(struct soft_cpu *c, const struct insn *i);
void op_native_x87(struct soft_cpu *c, const struct insn *i);
/* Sets i->fn, i->msz, i->aux for a row. */
void native_bind(struct insn *i, const struct native_row *row);
