/* The decoder: bytes of guest code -> struct insn. Tables, no behaviour; needs only the mode, no CPU. */
#pragma once

#include "cpu/soft/soft.h"

enum decode_result {
	DECODE_OK,
	DECODE_MORE, /* the len bytes given are a proper prefix of an instruction: page end */
	DECODE_UD,   /* #UD (ret_insn->len bytes looked at) */
	DECODE_GP,   /* longer than 15 bytes: #GP(0) */
};

struct decode_info {
	bool ends_block; /* control flow, or the mode may change: the next instruction starts a new block */
};

/* Decodes one instruction of at most len bytes. key: KEY_* (mode). features as in struct cpuid_table:
 * instructions of features that are off are #UD. Fills all of insn but off and thunk (disp of a
 * RIP-relative operand is relative to the end of the instruction: the caller adds off + len). */
enum decode_result decode_insn(const u8 *bytes, unsigned len, unsigned key, const u64 *features,
			       struct insn *ret_insn, struct decode_info *ret_info);

/* What a vector, x87 or other natively executed row needs; see thunk.h for the meaning. */
struct native_row {
	u8 msz; /* memory operand in bytes; NR_VL: by vector length (16 or 32); NR_OSZ: by operand size; 0 no memory form */
	u16 flags;  /* NR_* */
	u8 feature; /* enum x86_feature; 0 = FPU always there */
	u32 evex;   /* EV_*: an instruction of AVX-512; 0 in all others */
	insn_fn fn; /* a special handler instead of the generic ones (and no thunk); NULL otherwise. In simd_row()'s
		      * rows op_native_mem means: only general registers, prefixes are part of the opcode */
};

#define NR_VL         0xff
#define NR_OSZ        0xfe
#define NR_HALF_VL    0xfd /* half / quarter / eighth of the vector length */
#define NR_QUARTER_VL 0xfc
#define NR_EIGHTH_VL  0xfb
#define NR_W          0xfa /* 4, or 8 with REX.W / VEX.W (general registers: only in 64-bit mode, so by osz) */
#define NR_DDUP       0xf9 /* VMOVDDUP: 8, or 32 with VEX.L */

enum native_flags {
	NR_VALID = 1 << 0,
	NR_LOAD = 1 << 1,  /* the memory operand is read */
	NR_STORE = 1 << 2, /* written (both: read-modify-write) */
	NR_IMM8 = 1 << 3,
	NR_GPR_REG = 1 << 4, /* ModRM.reg names a general register */
	NR_GPR_RM = 1 << 5,  /* ModRM.rm, when a register, names a general register */
	NR_GPR_VVVV = 1 << 6,
	NR_FLAGS_OUT = 1 << 7, /* writes arithmetic flags */
	NR_FLAGS_IN = 1 << 8,  /* reads them */
	NR_MEM_ONLY = 1 << 9,  /* #UD with a register */
	NR_REG_ONLY = 1 << 10,
	NR_MMX = 1 << 11, /* uses MMX registers: x87 state rules (#NM by TS/EM, #MF pending) */
	NR_X87 = 1 << 12,
	NR_IMPL_AXDX = 1 << 13, /* also reads and writes rAX, rDX (MUL, DIV, CMPXCHG, ...) */
	NR_IMPL_CX = 1 << 14,   /* also uses rCX (shift by CL) */
	NR_VEX_ONLY = 1 << 15,
};

/* What EVEX adds: which of its fields the instruction knows, and what a mask is to its memory operand. */
enum evex_flags {
	EV_ELEMENT = 3 << 0, /* log2 of the bytes that one bit of the mask stands for */
	EV_AVX512 = 1 << 2,  /* in every row */
	EV_V = 1 << 3,       /* vvvv is an operand, else it must be 11111 */
	EV_V_REG = 1 << 4,   /* of the register form only */
	EV_MASK = 1 << 5,    /* a mask may be named: it merges */
	EV_ZERO = 1 << 6,    /* or zeroes, where the destination is no memory */
	EV_MASK_MUST = 1 << 7,
	EV_BROADCAST = 1 << 8, /* b with a memory operand: one element of 4 or 8 bytes (W), for all */
	EV_ROUND = 1 << 9,     /* b with registers: L'L is the rounding mode */
	EV_SAE = 1 << 10,      /* b with registers: exceptions are suppressed */
	EV_SCALAR = 1 << 11,   /* L'L is ignored, and one bit of the mask counts */
	EV_L128 = 1 << 12,     /* L'L must be 0; not an instruction of AVX512VL for all that */
	EV_L256_UP = 1 << 13,
	EV_L512 = 1 << 14,
	EV_ALL = 1 << 15,    /* the memory operand is accessed whole, whatever the mask (classes named NF) */
	EV_TUPLE = 1 << 16,  /* it is some elements, repeated */
	EV_PACKED = 1 << 17, /* it is as many elements as the mask has bits, one after the other */
	EV_VSIB = 1 << 18,
	EV_K_REG = 1 << 19, /* ModRM.reg, ModRM.rm name mask registers */
	EV_K_RM = 1 << 20,
	EV_VEX = 1 << 21,                   /* of mask registers, encoded by VEX */
#define EV_DIGITS(mask) ((u32)(mask) << 24) /* which ModRM.reg exist; none said: all */
};

/* Bytes of the memory operand of i under row. */
unsigned native_operand_size(const struct insn *i, const struct native_row *row);

/* evex_table.c: the same as simd_row() for EVEX, and for the instructions of mask registers, which are VEX. */
const struct native_row *evex_row(const struct insn *i);
const struct native_row *evex_opmask_row(const struct insn *i);
/* Is it an instruction of AVX512VL too? */
bool evex_needs_vl(const struct insn *i, const struct native_row *row);
/* The masks' bits that count, and what each stands for in memory. */
struct evex_elements {
	u8 nr;     /* of the mask */
	u8 nr_mem; /* bit k is element k % nr_mem of memory */
	u8 size;   /* of that in bytes */
};
struct evex_elements evex_elements(const struct insn *i, const struct native_row *row);

/* simd_table.c: the row for a vector, MMX or x87-free native instruction outside the integer tables;
 * NULL = #UD. map 1..3, opcode, insn->pfx/rex/vvvv/modrm are filled (modrm: the byte after the opcode). */
const struct native_row *simd_row(const struct insn *i);
/* x87: opcode D8..DF with modrm; NULL = #UD. */
const struct native_row *x87_row(const struct insn *i);
