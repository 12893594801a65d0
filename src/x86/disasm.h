/* Disassembly for messages and traces. Zydis where it was built in, else bytes in hexadecimal. */
#pragma once

#include "base/types.h"

/* One instruction of at most len bytes at address rip (for relative targets), in mode 16, 32 or 64.
 * Writes a line into out and returns the instruction's length, 0 when the bytes are none (the line then
 * says so). Any thread. */
unsigned disasm(const u8 *bytes, unsigned len, unsigned mode, u64 rip, char *out, size_t out_len);

/* Is it a jump, call, return or interrupt? */
bool disasm_ends_block(const u8 *bytes, unsigned len, unsigned mode);
