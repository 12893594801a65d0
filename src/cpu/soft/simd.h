/* What simd_table.c knows besides the rows. */
#pragma once

#include "cpu/soft/decode.h"

/* The memory operand must be aligned to its size, else #GP(0) before any other fault [SDM2 2.4]; of SHA's instructions this is said
 * for Intel's processors only, on AMD's the thunk finds out. i->msz is set. */
bool simd_aligned(const struct insn *i, bool amd);
