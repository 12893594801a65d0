/* Instruction tests: the same machine code with the same state on the host CPU and on the software engine; everything
 * that a program can see afterwards is compared. The host is the oracle.
 *
 * A case is up to 512 bytes of code, run at CPL 3 at INSN_CODE in 64-bit, 32-bit or 16-bit
 * mode. It ends by falling off its end (INT3 bytes follow), or by a fault; both are results. The host runs cases in a
 * child process (native_child.c), the engine runs them in a small VM whose page tables map the same
 * linear addresses (machine.c).
 */
#pragma once

#include <stdio.h>

#include "base/bits.h"
#include "x86/defs.h"
#include "x86/regs.h"

#define INSN_CODE      0x10000000ull
#define INSN_CODE_SIZE 4096u
/* Two pages that can be written, one that can only be read; unmapped ones around. None can be executed. */
#define INSN_DATA      0x20000000ull
#define INSN_DATA_RW   (2 * 4096u)
#define INSN_DATA_SIZE (3 * 4096u)
/* The stack pointer of insn_random_state(): inside the data, with room both ways. */
#define INSN_STACK (INSN_DATA + INSN_DATA_RW - 1024)
/* GS is a window on the data; FS is the host's, so leave it alone. */
#define INSN_GS_BASE (INSN_DATA + 2048)

/* Selectors, as Linux has them, so that a program which looks sees the same. */
#define INSN_CS64 0x33
#define INSN_CS32 0x23
#define INSN_DS   0x2b

enum insn_mode { INSN_64, INSN_32 };

#define INSN_XSAVE X86_XSAVE_SIZE /* in the layout of x86_state */

struct insn_state {
	u64 gpr[X86_NR_GPR];
	u64 rip, flags;
	_Alignas(64) u8 xsave[INSN_XSAVE]; /* header: not compared */
	u8 data[INSN_DATA_SIZE];
};

enum {
	INSN_END = 3,    /* #BP: ran to its end */
	INSN_LOST = 256, /* the engine ended in a strange way */
	INSN_ENDLESS,    /* on the host; then it is not run on the engine */
};

struct insn_result {
	int vector;
	u32 error;
	u64 cr2;
	struct insn_state state;
};

#define INSN_MAX_CODE 512
struct insn_case {
	enum insn_mode mode;
	bool loose_cr2; /* compare only the page of CR2: which part of a large operand is touched first differs */
	u32 len;
	u8 code[INSN_MAX_CODE];
	struct insn_state in;
	struct insn_result native, soft;
};

#define INSN_BATCH 128
/* The batch, shared with the child; insn_run() fills .native and .soft of the first n. */
extern struct insn_case *insn_batch;

/* Starts the child and the VM; exits with a sentence on failure, and with status 77 (skipped) when this host cannot do it.
 * A case that takes the host longer than patience_ms is INSN_ENDLESS. */
void insn_start(const char *cpu_model, unsigned patience_ms);
void insn_stop(void);
int insn_run(unsigned n);        /* -1, or the case whose code the host does not survive: said on stderr */
bool insn_has(unsigned feature); /* enum x86_feature, of the VM and the host both */

/* Do the two results agree? The x87 pointers (FIP, FDP, FOP) are not compared: which of them survive a save
 * differs between processors. Otherwise says how on out (NULL: says nothing). */
bool insn_compare(const struct insn_case *c, FILE *out);
void insn_print_state(const struct insn_state *s, FILE *out);
/* Disassembles one instruction into text; its length, or 0. */
unsigned insn_disasm(const u8 *code, unsigned len, enum insn_mode mode, u64 rip, char *text, size_t text_len);

/* --- random numbers and states --- */
struct insn_rng {
	u64 s[2];
};
void insn_seed(struct insn_rng *r, u64 seed);
u64 insn_rnd(struct insn_rng *r);
/* Numbers as they make trouble: 0, 1, -1, powers of two and their neighbours, small, random. */
u64 insn_value(struct insn_rng *r);
void insn_random_state(struct insn_rng *r, struct insn_state *s);

/* --- families: the tables of instructions in the family files --- */
struct insn_test {
	struct insn_rng rng;
	enum insn_mode mode;
	bool loose_cr2;
	unsigned states; /* random states per instruction */
	/* Changes each random state before the run; NULL: nothing. */
	void (*setup)(struct insn_rng *r, struct insn_state *s);
	unsigned tried, faulted, failed;
};

struct insn_family {
	const char *name;
	void (*run)(struct insn_test *t);
};

/* Runs the code on t->states random states. In each, RSI, RDI, RBP and RSP point into the data, aligned to 64 bytes or by
 * chance to less, with at least 1 KiB on either side. */
void insn_try(struct insn_test *t, const char *text, const u8 *code, unsigned len);

/* The assembler's work: I("add eax, ebx") assembles the text and runs it. Several instructions may be
 * given, separated by semicolons. */
#define I_(text, before, after)                                                                        \
	do {                                                                                           \
		const u8 *begin_, *end_;                                                               \
		__asm__ volatile(".pushsection .rodata\n771:\n" before ".intel_syntax noprefix\n" text \
				 "\n.att_syntax prefix\n" after "772:\n.popsection\n\t"                \
				 "lea 771b(%%rip), %0\n\tlea 772b(%%rip), %1"                          \
				 : "=r"(begin_), "=r"(end_));                                          \
		insn_try(t, text, begin_, (unsigned)(end_ - begin_));                                  \
	} while (0)
#define I(text)   I_(text, "", "")
#define I32(text) I_(text, ".code32\n", ".code64\n")

/* --- the two sides --- */
struct insn_case *native_start(unsigned patience_ms); /* the batch */
void native_stop(void);
/* The case that ended the child, or made it hang, or -1. */
int native_run(unsigned n);
void machine_start(const char *cpu_model);
void machine_stop(void);
void machine_run(struct insn_case *c);
bool machine_has(unsigned feature);
