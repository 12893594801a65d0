/* The registers that a debugger sees: their description as XML [GDB G], and their place in struct x86_state. Main thread. */
#pragma once

#include "base/types.h"
#include "x86/regs.h"

struct cpuid_table;

/* What of a vCPU can be seen: its state, and the one register that lives elsewhere. */
struct gdb_cpu {
	struct x86_state state;
	u64 cr8;
};

#define GDBREGS_MAX      320
#define GDBREGS_MAX_SIZE 64 /* bytes of one */

struct gdb_reg {
	const char *type;
	char name[16];
	u8 feature, source;
	u8 size; /* bytes as sent */
	u16 at;
};

struct gdb_regs {
	unsigned bits; /* of the code that the description is for: 16, 32, 64 */
	unsigned nr;
	unsigned nr_group; /* how many of them are sent together, in `g` */
	struct gdb_reg reg[GDBREGS_MAX];
};

/* The table for code of so many bits. avx, avx512: whether the processor has them. */
void gdbregs_init(struct gdb_regs *ret_regs, unsigned bits, bool avx, bool avx512);

/* Register n, little-endian, reg[n].size bytes. The program counter is a linear address: of 16- and 32-bit code it has the code
 * segment's base in it. */
void gdbregs_get(const struct gdb_regs *regs, unsigned n, const struct gdb_cpu *cpu, u8 *ret_value);
/* False: this register cannot have that value; nothing changed. An engine may still refuse the whole. */
bool gdbregs_set(const struct gdb_regs *regs, unsigned n, struct gdb_cpu *cpu, const u8 *value);

/* The description; free(). NULL: no memory. */
char *gdbregs_xml(const struct gdb_regs *regs);
