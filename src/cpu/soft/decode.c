/* The decoder: prefixes, opcode tables, ModRM, displacement, immediate [SDM2 2.1-2.3, appendix A;
 * EVEX: 2.7].
 *
 * Four maps: one byte, 0F, 0F38, 0F3A. The integer and system instructions are in the tables here; what
 * the tables leave out in maps 0F, 0F38, 0F3A and under VEX and EVEX is asked of simd_row(), x87 of
 * x87_row(). A row says which bytes follow (ModRM, immediate), how the operand size comes about, and names
 * the handlers by form and size; handlers never look at prefixes that the row has already digested.
 *
 * Called for cold code only (a block is decoded once), with at most 15 bytes that were copied or that
 * lie in one page of guest RAM: another vCPU may change them meanwhile, so every byte is read once.
 */
#include "cpu/soft/decode.h"

#include "cpu/soft/ops.h"
#include "cpu/soft/ops_int.h"
#include "cpu/soft/thunk.h"
#include "x86/cpuid.h"

#define MAX_INSN 15

/* What follows the opcode besides ModRM. */
enum imm_kind {
	IMM_NONE,
	IMM_8,     /* sign-extended */
	IMM_U8,    /* zero-extended */
	IMM_Z,     /* 16 bits, or 32 sign-extended, by operand size */
	IMM_V,     /* full operand size (MOV r, imm) */
	IMM_16,    /* zero-extended */
	IMM_ENTER, /* 16, then 8 into bits 16..23 */
	IMM_FAR,   /* offset by operand size, then selector: selector << 32 | offset */
	IMM_MOFFS, /* an address of the address size */
};

enum row_flags {
	R_VALID = 1 << 0,
	R_MODRM = 1 << 1,
	R_BYTE = 1 << 2,    /* operand size 1 */
	R_DEF64 = 1 << 3,   /* 64-bit mode: operand size 8 unless 66 */
	R_FORCE64 = 1 << 4, /* 64-bit mode: operand size 8 */
	R_OPREG = 1 << 5,   /* register in the opcode's low three bits */
	R_SWAP = 1 << 6,    /* register form: reg is the destination, so rm and reg change places */
	R_LOCK = 1 << 7,    /* LOCK allowed with a memory operand */
	R_ENDS = 1 << 8,
	R_NO64 = 1 << 9, /* #UD in 64-bit mode */
	R_ONLY64 = 1 << 10,
	R_MEM = 1 << 11,    /* #UD with a register */
	R_REG = 1 << 12,    /* #UD with memory */
	R_NP = 1 << 13,     /* #UD with F2/F3 (66 too) */
	R_CRDR = 1 << 14,   /* ModRM.mod is ignored: always registers; operand size is the mode's */
	R_AUXREG = 1 << 15, /* aux comes from ModRM.reg */
};

struct row {
	u16 flags;
	u8 imm;
	u8 aux;
	u8 feature;
	insn_fn one;              /* one handler for all, or: */
	const insn_fn *reg, *mem; /* by size */
	const insn_fn *lock;      /* by size, when LOCK is there */
	const struct row *group;  /* eight rows by ModRM.reg */
	const struct native_row *native;
};

/* --- rows run natively ------------------------------------------------------------------- */
#define NAT(name, ...) static const struct native_row name = { __VA_ARGS__ }
NAT(nat_muldiv, .msz = NR_OSZ,
    .flags = NR_VALID | NR_LOAD | NR_GPR_RM | NR_FLAGS_OUT | NR_FLAGS_IN | NR_IMPL_AXDX);
NAT(nat_shxd_i, .msz = NR_OSZ,
    .flags = (u16)(NR_VALID | NR_LOAD | NR_STORE | NR_IMM8 | NR_GPR_RM | NR_GPR_REG | NR_FLAGS_OUT |
		   NR_FLAGS_IN));
NAT(nat_shxd_c, .msz = NR_OSZ,
    .flags = (u16)(NR_VALID | NR_LOAD | NR_STORE | NR_GPR_RM | NR_GPR_REG | NR_FLAGS_OUT | NR_FLAGS_IN |
		   NR_IMPL_CX));
NAT(nat_bsx, .msz = NR_OSZ,
    .flags = NR_VALID | NR_LOAD | NR_GPR_RM | NR_GPR_REG | NR_FLAGS_OUT | NR_FLAGS_IN);
NAT(nat_cmpxchg, .msz = NR_OSZ,
    .flags = (u16)(NR_VALID | NR_LOAD | NR_STORE | NR_GPR_RM | NR_GPR_REG | NR_FLAGS_OUT | NR_FLAGS_IN |
		   NR_IMPL_AXDX));
NAT(nat_xadd, .msz = NR_OSZ,
    .flags = NR_VALID | NR_LOAD | NR_STORE | NR_GPR_RM | NR_GPR_REG | NR_FLAGS_OUT | NR_FLAGS_IN);
NAT(nat_rdrand, .flags = NR_VALID | NR_GPR_RM | NR_FLAGS_OUT | NR_FLAGS_IN | NR_REG_ONLY);

/* --- groups ------------------------------------------------------------------------------ */
#define V (R_VALID | R_MODRM)

#define ALU_GROUP(name, extra, immk)                                                          \
	static const struct row name[8] = {                                                   \
		ALU_GROUP_ROW(0, extra, immk, R_LOCK), ALU_GROUP_ROW(1, extra, immk, R_LOCK), \
		ALU_GROUP_ROW(2, extra, immk, R_LOCK), ALU_GROUP_ROW(3, extra, immk, R_LOCK), \
		ALU_GROUP_ROW(4, extra, immk, R_LOCK), ALU_GROUP_ROW(5, extra, immk, R_LOCK), \
		ALU_GROUP_ROW(6, extra, immk, R_LOCK), ALU_GROUP_ROW(7, extra, immk, 0),      \
	}
#define ALU_GROUP_ROW(n, extra, immk, lk)    \
	[n] = { .flags = V | (extra) | (lk), \
		.imm = (immk),               \
		.reg = alu_ri[n],            \
		.mem = alu_mi[n],            \
		.lock = alu_lock_mi[n] }
ALU_GROUP(group_80, R_BYTE, IMM_8);
ALU_GROUP(group_81, 0, IMM_Z);
ALU_GROUP(group_83, 0, IMM_8);
ALU_GROUP(group_82, R_BYTE | R_NO64, IMM_8);

static const struct row group_8f[8] = { [0] = { .flags = V | R_DEF64, .reg = pop_r, .mem = pop_m } };

#define SHIFT_GROUP(name, extra, immk, aux_, r, m)                                            \
	static const struct row name[8] = {                                                   \
		SHIFT_ROW(0, extra, immk, aux_, r, m), SHIFT_ROW(1, extra, immk, aux_, r, m), \
		SHIFT_ROW(2, extra, immk, aux_, r, m), SHIFT_ROW(3, extra, immk, aux_, r, m), \
		SHIFT_ROW(4, extra, immk, aux_, r, m), SHIFT_ROW(5, extra, immk, aux_, r, m), \
		SHIFT_ROW(6, extra, immk, aux_, r, m), SHIFT_ROW(7, extra, immk, aux_, r, m), \
	}
#define SHIFT_ROW(n, extra, immk, aux_, r, m) \
	[n] = { .flags = V | (extra), .imm = (immk), .aux = (aux_), .reg = r[n], .mem = m[n] }
SHIFT_GROUP(group_c0, R_BYTE, IMM_U8, 0, shift_ri, shift_mi);
SHIFT_GROUP(group_c1, 0, IMM_U8, 0, shift_ri, shift_mi);
SHIFT_GROUP(group_d0, R_BYTE, IMM_NONE, 1, shift_ri, shift_mi); /* by 1: decode_insn sets imm = aux */
SHIFT_GROUP(group_d1, 0, IMM_NONE, 1, shift_ri, shift_mi);
SHIFT_GROUP(group_d2, R_BYTE, IMM_NONE, 0, shift_rc, shift_mc);
SHIFT_GROUP(group_d3, 0, IMM_NONE, 0, shift_rc, shift_mc);

static const struct row group_c6[8] = {
	[0] = { .flags = V | R_BYTE, .imm = IMM_8, .reg = mov_ri, .mem = mov_mi }
};
static const struct row group_c7[8] = { [0] = { .flags = V, .imm = IMM_Z, .reg = mov_ri, .mem = mov_mi } };

#define GROUP_F6(name, extra, immk)                                                            \
	static const struct row name[8] = {                                                    \
		[0] = { .flags = V | (extra), .imm = (immk), .reg = test_ri, .mem = test_mi }, \
		[1] = { .flags = V | (extra), .imm = (immk), .reg = test_ri, .mem = test_mi }, \
		[2] = { .flags = V | (extra) | R_LOCK,                                         \
			.reg = unary_r[2],                                                     \
			.mem = unary_m[2],                                                     \
			.lock = unary_lock_m[2] },                                             \
		[3] = { .flags = V | (extra) | R_LOCK,                                         \
			.reg = unary_r[3],                                                     \
			.mem = unary_m[3],                                                     \
			.lock = unary_lock_m[3] },                                             \
		[4] = { .flags = V | (extra), .native = &nat_muldiv },                         \
		[5] = { .flags = V | (extra), .native = &nat_muldiv },                         \
		[6] = { .flags = V | (extra), .native = &nat_muldiv },                         \
		[7] = { .flags = V | (extra), .native = &nat_muldiv },                         \
	}
GROUP_F6(group_f6, R_BYTE, IMM_8);
GROUP_F6(group_f7, 0, IMM_Z);

static const struct row group_fe[8] = {
	[0] = { .flags = V | R_BYTE | R_LOCK, .reg = unary_r[0], .mem = unary_m[0], .lock = unary_lock_m[0] },
	[1] = { .flags = V | R_BYTE | R_LOCK, .reg = unary_r[1], .mem = unary_m[1], .lock = unary_lock_m[1] },
};
static const struct row group_ff[8] = {
	[0] = { .flags = V | R_LOCK, .reg = unary_r[0], .mem = unary_m[0], .lock = unary_lock_m[0] },
	[1] = { .flags = V | R_LOCK, .reg = unary_r[1], .mem = unary_m[1], .lock = unary_lock_m[1] },
	[2] = { .flags = V | R_FORCE64 | R_ENDS, .one = int_call_rm },
	[3] = { .flags = V | R_MEM | R_ENDS, .one = op_call_far_mem },
	[4] = { .flags = V | R_FORCE64 | R_ENDS, .one = int_jmp_rm },
	[5] = { .flags = V | R_MEM | R_ENDS, .one = op_jmp_far_mem },
	[6] = { .flags = V | R_DEF64, .reg = push_r, .mem = push_m },
};

/* 0F 00 */
static const struct row group_0f00[8] = {
	[0] = { .flags = V, .one = op_sldt },          [1] = { .flags = V, .one = op_str },
	[2] = { .flags = V | R_ENDS, .one = op_lldt }, [3] = { .flags = V | R_ENDS, .one = op_ltr },
	[4] = { .flags = V, .one = op_verr },          [5] = { .flags = V, .one = op_verw },
};
/* 0F 01, memory forms; the register forms are in rows_0f01_reg. */
static const struct row group_0f01[8] = {
	[0] = { .flags = V | R_MEM, .one = op_sgdt },
	[1] = { .flags = V | R_MEM, .one = op_sidt },
	[2] = { .flags = V | R_MEM, .one = op_lgdt },
	[3] = { .flags = V | R_MEM, .one = op_lidt },
	[4] = { .flags = V, .one = op_smsw },
	[6] = { .flags = V | R_ENDS, .one = op_lmsw },
	[7] = { .flags = V | R_MEM | R_ENDS, .one = op_invlpg },
};
static const struct row group_0fae[8] = {
	[0] = { .flags = V | R_MEM | R_NP, .feature = X86_FEATURE_FXSR, .one = op_fxsave },
	[1] = { .flags = V | R_MEM | R_NP, .feature = X86_FEATURE_FXSR, .one = op_fxrstor },
	[2] = { .flags = V | R_MEM | R_NP, .feature = X86_FEATURE_SSE, .one = op_ldmxcsr },
	[3] = { .flags = V | R_MEM | R_NP, .feature = X86_FEATURE_SSE, .one = op_stmxcsr },
	[4] = { .flags = V | R_MEM | R_NP, .feature = X86_FEATURE_XSAVE, .one = op_xsave },
	[5] = { .flags = V | R_MEM | R_NP, .feature = X86_FEATURE_XSAVE, .one = op_xrstor },
	[6] = { .flags = V | R_MEM | R_NP, .feature = X86_FEATURE_XSAVEOPT, .one = op_xsaveopt },
	[7] = { .flags = V | R_MEM | R_NP, .feature = X86_FEATURE_CLFSH, .one = int_nop_m },
};
static const struct row group_0fae_reg[8] = {
	[5] = { .flags = V | R_NP, .feature = X86_FEATURE_SSE2, .one = int_nop }, /* LFENCE */
	[6] = { .flags = V | R_NP, .feature = X86_FEATURE_SSE2, .one = int_nop }, /* MFENCE: see int_nop */
	[7] = { .flags = V | R_NP, .feature = X86_FEATURE_SSE, .one = int_nop },  /* SFENCE */
};
static const struct row group_0fae_66[8] = {
	[6] = { .flags = V | R_MEM, .feature = X86_FEATURE_CLWB, .one = int_nop_m },
	[7] = { .flags = V | R_MEM, .feature = X86_FEATURE_CLFLUSHOPT, .one = int_nop_m },
};
/* PCOMMIT: all RAM is as persistent as it gets. */
static const struct row row_pcommit = { .flags = V, .feature = X86_FEATURE_PCOMMIT, .one = int_nop };
static const struct row group_0fae_f3[8] = {
	[0] = { .flags = V | R_REG | R_ONLY64, .feature = X86_FEATURE_FSGSBASE, .one = op_rdfsbase },
	[1] = { .flags = V | R_REG | R_ONLY64, .feature = X86_FEATURE_FSGSBASE, .one = op_rdgsbase },
	[2] = { .flags = V | R_REG | R_ONLY64, .feature = X86_FEATURE_FSGSBASE, .one = op_wrfsbase },
	[3] = { .flags = V | R_REG | R_ONLY64, .feature = X86_FEATURE_FSGSBASE, .one = op_wrgsbase },
};
static const struct row group_0fba[8] = {
	[4] = { .flags = V, .imm = IMM_U8, .reg = bt_ri[0], .mem = bt_mi[0] },
	[5] = { .flags = V | R_LOCK, .imm = IMM_U8, .reg = bt_ri[1], .mem = bt_mi[1], .lock = bt_lock_mi[1] },
	[6] = { .flags = V | R_LOCK, .imm = IMM_U8, .reg = bt_ri[2], .mem = bt_mi[2], .lock = bt_lock_mi[2] },
	[7] = { .flags = V | R_LOCK, .imm = IMM_U8, .reg = bt_ri[3], .mem = bt_mi[3], .lock = bt_lock_mi[3] },
};
static const struct row group_0fc7[8] = {
	[1] = { .flags = V | R_MEM | R_LOCK, .feature = X86_FEATURE_CX8, .one = op_cmpxchg8b },
	[3] = { .flags = V | R_MEM | R_NP, .feature = X86_FEATURE_XSAVES, .one = op_xrstors },
	[4] = { .flags = V | R_MEM | R_NP, .feature = X86_FEATURE_XSAVEC, .one = op_xsavec },
	[5] = { .flags = V | R_MEM | R_NP, .feature = X86_FEATURE_XSAVES, .one = op_xsaves },
};
static const struct row group_0fc7_reg[8] = {
	[6] = { .flags = V, .feature = X86_FEATURE_RDRAND, .native = &nat_rdrand },
	[7] = { .flags = V, .feature = X86_FEATURE_RDSEED, .native = &nat_rdrand },
};
static const struct row group_prefetch[8] = {
	[0] = { .flags = V, .one = int_nop }, [1] = { .flags = V, .one = int_nop },
	[2] = { .flags = V, .one = int_nop }, [3] = { .flags = V, .one = int_nop },
	[4] = { .flags = V, .one = int_nop }, [5] = { .flags = V, .one = int_nop },
	[6] = { .flags = V, .one = int_nop }, [7] = { .flags = V, .one = int_nop },
};

/* 0F 01 with a register: by the whole ModRM byte. */
struct modrm_row {
	u8 modrm;
	struct row row;
};
static const struct modrm_row rows_0f01_reg[] = {
	{ 0xc1, { .flags = V | R_NP | R_ENDS, .one = op_vmcall } },
	{ 0xca, { .flags = V | R_NP, .feature = X86_FEATURE_SMAP, .one = op_clac } },
	{ 0xcb, { .flags = V | R_NP, .feature = X86_FEATURE_SMAP, .one = op_stac } },
	{ 0xd0, { .flags = V | R_NP, .feature = X86_FEATURE_XSAVE, .one = op_xgetbv } },
	{ 0xd1, { .flags = V | R_NP | R_ENDS, .feature = X86_FEATURE_XSAVE, .one = op_xsetbv } },
	{ 0xd9, { .flags = V | R_NP | R_ENDS, .one = op_vmcall } },
	{ 0xf8, { .flags = V | R_ONLY64, .one = op_swapgs } },
	{ 0xf9, { .flags = V, .feature = X86_FEATURE_RDTSCP, .one = op_rdtscp } },
};

/* --- the one-byte map -------------------------------------------------------------------- */
#define ALU(n)                                                                                       \
	[(n)*8 + 0] = { .flags = V | R_BYTE | ((n) != 7 ? R_LOCK : 0),                               \
			.reg = alu_rr[n],                                                            \
			.mem = alu_mr[n],                                                            \
			.lock = alu_lock_mr[n] },                                                    \
		 [(n)*8 + 1] = { .flags = V | ((n) != 7 ? R_LOCK : 0),                               \
				 .reg = alu_rr[n],                                                   \
				 .mem = alu_mr[n],                                                   \
				 .lock = alu_lock_mr[n] },                                           \
		 [(n)*8 + 2] = { .flags = V | R_BYTE | R_SWAP, .reg = alu_rr[n], .mem = alu_rm[n] }, \
		 [(n)*8 + 3] = { .flags = V | R_SWAP, .reg = alu_rr[n], .mem = alu_rm[n] },          \
		 [(n)*8 + 4] = { .flags = R_VALID | R_BYTE, .imm = IMM_8, .reg = alu_ri[n] },        \
		 [(n)*8 + 5] = { .flags = R_VALID, .imm = IMM_Z, .reg = alu_ri[n] }

#define OPREG8(op, ...)                                                                                   \
	[(op) + 0] = { __VA_ARGS__ }, [(op) + 1] = { __VA_ARGS__ }, [(op) + 2] = { __VA_ARGS__ },         \
		[(op) + 3] = { __VA_ARGS__ }, [(op) + 4] = { __VA_ARGS__ }, [(op) + 5] = { __VA_ARGS__ }, \
		[(op) + 6] = { __VA_ARGS__ }, [(op) + 7] = { __VA_ARGS__ }

#define JCC_ROWS(op, immk)                                                                                \
	JCC_ROW(op, 0, immk), JCC_ROW(op, 1, immk), JCC_ROW(op, 2, immk), JCC_ROW(op, 3, immk),           \
		JCC_ROW(op, 4, immk), JCC_ROW(op, 5, immk), JCC_ROW(op, 6, immk), JCC_ROW(op, 7, immk),   \
		JCC_ROW(op, 8, immk), JCC_ROW(op, 9, immk), JCC_ROW(op, 10, immk), JCC_ROW(op, 11, immk), \
		JCC_ROW(op, 12, immk), JCC_ROW(op, 13, immk), JCC_ROW(op, 14, immk), JCC_ROW(op, 15, immk)
/* The handler comes from jcc[] by the low four bits of the opcode (aux). */
#define JCC_ROW(op, n, immk) \
	[(op) + (n)] = { .flags = R_VALID | R_FORCE64 | R_ENDS, .imm = (immk), .aux = 0x80 | (n) }

static const struct row map0[256] = {
	ALU(0),
	ALU(1),
	ALU(2),
	ALU(3),
	ALU(4),
	ALU(5),
	ALU(6),
	ALU(7),
	[0x06] = { .flags = R_VALID | R_NO64, .aux = SEG_ES, .one = op_push_sreg },
	[0x07] = { .flags = R_VALID | R_NO64 | R_ENDS, .aux = SEG_ES, .one = op_pop_sreg },
	[0x0e] = { .flags = R_VALID | R_NO64, .aux = SEG_CS, .one = op_push_sreg },
	[0x16] = { .flags = R_VALID | R_NO64, .aux = SEG_SS, .one = op_push_sreg },
	[0x17] = { .flags = R_VALID | R_NO64 | R_ENDS, .aux = SEG_SS, .one = op_pop_sreg },
	[0x1e] = { .flags = R_VALID | R_NO64, .aux = SEG_DS, .one = op_push_sreg },
	[0x1f] = { .flags = R_VALID | R_NO64 | R_ENDS, .aux = SEG_DS, .one = op_pop_sreg },
	[0x27] = { .flags = R_VALID | R_NO64, .one = op_daa },
	[0x2f] = { .flags = R_VALID | R_NO64, .one = op_das },
	[0x37] = { .flags = R_VALID | R_NO64, .one = op_aaa },
	[0x3f] = { .flags = R_VALID | R_NO64, .one = op_aas },
	OPREG8(0x40, .flags = R_VALID | R_OPREG | R_NO64, .reg = unary_r[0]),
	OPREG8(0x48, .flags = R_VALID | R_OPREG | R_NO64, .reg = unary_r[1]),
	OPREG8(0x50, .flags = R_VALID | R_OPREG | R_DEF64, .reg = push_r),
	OPREG8(0x58, .flags = R_VALID | R_OPREG | R_DEF64, .reg = pop_r),
	[0x60] = { .flags = R_VALID | R_NO64, .one = op_pusha },
	[0x61] = { .flags = R_VALID | R_NO64, .one = op_popa },
	[0x62] = { .flags = V | R_NO64 | R_MEM, .one = op_bound },
	/* 63: by mode, in find_row() */
	[0x68] = { .flags = R_VALID | R_DEF64, .imm = IMM_Z, .reg = push_i },
	[0x69] = { .flags = V, .imm = IMM_Z, .reg = imul_rri, .mem = imul_rmi },
	[0x6a] = { .flags = R_VALID | R_DEF64, .imm = IMM_8, .reg = push_i },
	[0x6b] = { .flags = V, .imm = IMM_8, .reg = imul_rri, .mem = imul_rmi },
	[0x6c] = { .flags = R_VALID | R_BYTE, .one = op_ins },
	[0x6d] = { .flags = R_VALID, .one = op_ins },
	[0x6e] = { .flags = R_VALID | R_BYTE, .one = op_outs },
	[0x6f] = { .flags = R_VALID, .one = op_outs },
	JCC_ROWS(0x70, IMM_8),
	[0x80] = { .flags = V, .group = group_80 },
	[0x81] = { .flags = V, .group = group_81 },
	[0x82] = { .flags = V, .group = group_82 },
	[0x83] = { .flags = V, .group = group_83 },
	[0x84] = { .flags = V | R_BYTE, .reg = test_rr, .mem = test_mr },
	[0x85] = { .flags = V, .reg = test_rr, .mem = test_mr },
	[0x86] = { .flags = V | R_BYTE | R_LOCK, .reg = xchg_rr, .mem = xchg_mr, .lock = xchg_mr },
	[0x87] = { .flags = V | R_LOCK, .reg = xchg_rr, .mem = xchg_mr, .lock = xchg_mr },
	[0x88] = { .flags = V | R_BYTE, .reg = mov_rr, .mem = mov_mr },
	[0x89] = { .flags = V, .reg = mov_rr, .mem = mov_mr },
	[0x8a] = { .flags = V | R_BYTE | R_SWAP, .reg = mov_rr, .mem = mov_rm },
	[0x8b] = { .flags = V | R_SWAP, .reg = mov_rr, .mem = mov_rm },
	[0x8c] = { .flags = V, .one = op_mov_rm_sreg },
	[0x8d] = { .flags = V | R_MEM, .mem = lea_m },
	[0x8e] = { .flags = V | R_ENDS, .one = op_mov_sreg_rm },
	[0x8f] = { .flags = V, .group = group_8f },
	OPREG8(0x90, .flags = R_VALID | R_OPREG, .reg = xchg_rr), /* 90: NOP, PAUSE in find_row() */
	[0x98] = { .flags = R_VALID, .reg = cbw },
	[0x99] = { .flags = R_VALID, .reg = cwd },
	[0x9a] = { .flags = R_VALID | R_NO64 | R_ENDS, .imm = IMM_FAR, .one = op_call_far_imm },
	[0x9b] = { .flags = R_VALID, .one = op_fwait },
	[0x9c] = { .flags = R_VALID | R_DEF64, .one = op_pushf },
	[0x9d] = { .flags = R_VALID | R_DEF64 | R_ENDS, .one = op_popf },
	[0x9e] = { .flags = R_VALID, .one = int_sahf },
	[0x9f] = { .flags = R_VALID, .one = int_lahf },
	[0xa0] = { .flags = R_VALID | R_BYTE, .imm = IMM_MOFFS, .reg = mov_load_moffs },
	[0xa1] = { .flags = R_VALID, .imm = IMM_MOFFS, .reg = mov_load_moffs },
	[0xa2] = { .flags = R_VALID | R_BYTE, .imm = IMM_MOFFS, .reg = mov_store_moffs },
	[0xa3] = { .flags = R_VALID, .imm = IMM_MOFFS, .reg = mov_store_moffs },
	[0xa4] = { .flags = R_VALID | R_BYTE, .one = op_movs },
	[0xa5] = { .flags = R_VALID, .one = op_movs },
	[0xa6] = { .flags = R_VALID | R_BYTE, .one = op_cmps },
	[0xa7] = { .flags = R_VALID, .one = op_cmps },
	[0xa8] = { .flags = R_VALID | R_BYTE, .imm = IMM_8, .reg = test_ri },
	[0xa9] = { .flags = R_VALID, .imm = IMM_Z, .reg = test_ri },
	[0xaa] = { .flags = R_VALID | R_BYTE, .one = op_stos },
	[0xab] = { .flags = R_VALID, .one = op_stos },
	[0xac] = { .flags = R_VALID | R_BYTE, .one = op_lods },
	[0xad] = { .flags = R_VALID, .one = op_lods },
	[0xae] = { .flags = R_VALID | R_BYTE, .one = op_scas },
	[0xaf] = { .flags = R_VALID, .one = op_scas },
	OPREG8(0xb0, .flags = R_VALID | R_OPREG | R_BYTE, .imm = IMM_8, .reg = mov_ri),
	OPREG8(0xb8, .flags = R_VALID | R_OPREG, .imm = IMM_V, .reg = mov_ri),
	[0xc0] = { .flags = V, .group = group_c0 },
	[0xc1] = { .flags = V, .group = group_c1 },
	[0xc2] = { .flags = R_VALID | R_FORCE64 | R_ENDS, .imm = IMM_16, .one = int_ret },
	[0xc3] = { .flags = R_VALID | R_FORCE64 | R_ENDS, .one = int_ret },
	[0xc4] = { .flags = V | R_NO64 | R_MEM | R_ENDS, .aux = SEG_ES, .one = op_lxs },
	[0xc5] = { .flags = V | R_NO64 | R_MEM | R_ENDS, .aux = SEG_DS, .one = op_lxs },
	[0xc6] = { .flags = V, .group = group_c6 },
	[0xc7] = { .flags = V, .group = group_c7 },
	[0xc8] = { .flags = R_VALID | R_DEF64, .imm = IMM_ENTER, .one = op_enter },
	[0xc9] = { .flags = R_VALID | R_DEF64, .one = op_leave },
	[0xca] = { .flags = R_VALID | R_ENDS, .imm = IMM_16, .one = op_retf },
	[0xcb] = { .flags = R_VALID | R_ENDS, .one = op_retf },
	[0xcc] = { .flags = R_VALID | R_ENDS, .one = op_int3 },
	[0xcd] = { .flags = R_VALID | R_ENDS, .imm = IMM_U8, .one = op_int_n },
	[0xce] = { .flags = R_VALID | R_NO64 | R_ENDS, .one = op_into },
	[0xcf] = { .flags = R_VALID | R_ENDS, .one = op_iret },
	[0xd0] = { .flags = V, .group = group_d0 },
	[0xd1] = { .flags = V, .group = group_d1 },
	[0xd2] = { .flags = V, .group = group_d2 },
	[0xd3] = { .flags = V, .group = group_d3 },
	[0xd4] = { .flags = R_VALID | R_NO64, .imm = IMM_U8, .one = op_aam },
	[0xd5] = { .flags = R_VALID | R_NO64, .imm = IMM_U8, .one = op_aad },
	[0xd6] = { .flags = R_VALID | R_NO64, .one = op_salc },
	[0xd7] = { .flags = R_VALID, .one = op_xlat },
	[0xe0] = { .flags = R_VALID | R_FORCE64 | R_ENDS, .imm = IMM_8, .aux = 0, .one = int_loop },
	[0xe1] = { .flags = R_VALID | R_FORCE64 | R_ENDS, .imm = IMM_8, .aux = 1, .one = int_loop },
	[0xe2] = { .flags = R_VALID | R_FORCE64 | R_ENDS, .imm = IMM_8, .aux = 2, .one = int_loop },
	[0xe3] = { .flags = R_VALID | R_FORCE64 | R_ENDS, .imm = IMM_8, .aux = 3, .one = int_loop },
	[0xe4] = { .flags = R_VALID | R_BYTE, .imm = IMM_U8, .one = op_in },
	[0xe5] = { .flags = R_VALID, .imm = IMM_U8, .one = op_in },
	[0xe6] = { .flags = R_VALID | R_BYTE, .imm = IMM_U8, .one = op_out },
	[0xe7] = { .flags = R_VALID, .imm = IMM_U8, .one = op_out },
	[0xe8] = { .flags = R_VALID | R_FORCE64 | R_ENDS, .imm = IMM_Z, .one = int_call_rel },
	[0xe9] = { .flags = R_VALID | R_FORCE64 | R_ENDS, .imm = IMM_Z, .one = int_jmp_rel },
	[0xea] = { .flags = R_VALID | R_NO64 | R_ENDS, .imm = IMM_FAR, .one = op_jmp_far_imm },
	[0xeb] = { .flags = R_VALID | R_FORCE64 | R_ENDS, .imm = IMM_8, .one = int_jmp_rel },
	[0xec] = { .flags = R_VALID | R_BYTE, .aux = 1, .one = op_in },
	[0xed] = { .flags = R_VALID, .aux = 1, .one = op_in },
	[0xee] = { .flags = R_VALID | R_BYTE, .aux = 1, .one = op_out },
	[0xef] = { .flags = R_VALID, .aux = 1, .one = op_out },
	[0xf1] = { .flags = R_VALID | R_ENDS, .one = op_int1 },
	[0xf4] = { .flags = R_VALID | R_ENDS, .one = op_hlt },
	[0xf5] = { .flags = R_VALID, .one = int_cmc },
	[0xf6] = { .flags = V, .group = group_f6 },
	[0xf7] = { .flags = V, .group = group_f7 },
	[0xf8] = { .flags = R_VALID, .one = int_clc },
	[0xf9] = { .flags = R_VALID, .one = int_stc },
	[0xfa] = { .flags = R_VALID, .one = op_cli },
	[0xfb] = { .flags = R_VALID, .one = op_sti },
	[0xfc] = { .flags = R_VALID, .one = int_cld },
	[0xfd] = { .flags = R_VALID, .one = int_std },
	[0xfe] = { .flags = V, .group = group_fe },
	[0xff] = { .flags = V, .group = group_ff },
};

/* --- 0F ---------------------------------------------------------------------------------- */
static const struct row row_arpl = { .flags = V, .one = op_arpl };
static const struct row row_movsxd = { .flags = V | R_SWAP, .reg = movsxd_r, .mem = movsxd_m };
static const struct row row_nop = { .flags = R_VALID, .one = int_nop };
static const struct row row_pause = { .flags = R_VALID | R_ENDS, .one = int_pause };
static const struct row row_invpcid = { .flags = V | R_MEM | R_ENDS,
					.feature = X86_FEATURE_INVPCID,
					.one = op_invpcid };
static const struct row row_cmpxchg16b = { .flags = V | R_MEM | R_LOCK,
					   .feature = X86_FEATURE_CX16,
					   .one = op_cmpxchg16b };
static const struct row row_rdpid = { .flags = V | R_REG, .feature = X86_FEATURE_RDPID, .one = op_rdpid };
static const struct row row_ud = { .flags = 0 };

#define CC16(op, ...) CC8(op, 0, __VA_ARGS__), CC8(op, 8, __VA_ARGS__)
#define CC8(op, b, ...)                                                   \
	[(op) + (b) + 0] = { .aux = (b) + 0, __VA_ARGS__ },               \
		      [(op) + (b) + 1] = { .aux = (b) + 1, __VA_ARGS__ }, \
		      [(op) + (b) + 2] = { .aux = (b) + 2, __VA_ARGS__ }, \
		      [(op) + (b) + 3] = { .aux = (b) + 3, __VA_ARGS__ }, \
		      [(op) + (b) + 4] = { .aux = (b) + 4, __VA_ARGS__ }, \
		      [(op) + (b) + 5] = { .aux = (b) + 5, __VA_ARGS__ }, \
		      [(op) + (b) + 6] = { .aux = (b) + 6, __VA_ARGS__ }, \
		      [(op) + (b) + 7] = { .aux = (b) + 7, __VA_ARGS__ }

static const struct row map1[256] = {
	[0x00] = { .flags = V, .group = group_0f00 },
	[0x01] = { .flags = V, .group = group_0f01 },
	[0x02] = { .flags = V, .one = op_lar },
	[0x03] = { .flags = V, .one = op_lsl },
	[0x05] = { .flags = R_VALID | R_ENDS, .feature = X86_FEATURE_SYSCALL, .one = op_syscall },
	[0x06] = { .flags = R_VALID | R_ENDS, .one = op_clts },
	[0x07] = { .flags = R_VALID | R_ENDS, .feature = X86_FEATURE_SYSCALL, .one = op_sysret },
	[0x08] = { .flags = R_VALID, .one = op_invd },
	[0x09] = { .flags = R_VALID, .one = op_wbinvd },
	[0x0b] = { .flags = R_VALID | R_ENDS, .one = op_ud },
	[0x0d] = { .flags = V, .group = group_prefetch },
	[0x18] = { .flags = V, .group = group_prefetch },
	[0x19] = { .flags = V, .group = group_prefetch },
	[0x1a] = { .flags = V, .group = group_prefetch },
	[0x1b] = { .flags = V, .group = group_prefetch },
	[0x1c] = { .flags = V, .group = group_prefetch },
	[0x1d] = { .flags = V, .group = group_prefetch },
	[0x1e] = { .flags = V, .group = group_prefetch },
	[0x1f] = { .flags = V, .group = group_prefetch },
	[0x20] = { .flags = V | R_CRDR, .one = op_mov_r_cr },
	[0x21] = { .flags = V | R_CRDR, .one = op_mov_r_dr },
	[0x22] = { .flags = V | R_CRDR | R_ENDS, .one = op_mov_cr_r },
	[0x23] = { .flags = V | R_CRDR | R_ENDS, .one = op_mov_dr_r },
	[0x30] = { .flags = R_VALID | R_ENDS, .one = op_wrmsr },
	[0x31] = { .flags = R_VALID, .one = op_rdtsc },
	[0x32] = { .flags = R_VALID, .one = op_rdmsr },
	[0x33] = { .flags = R_VALID, .one = op_rdpmc },
	[0x34] = { .flags = R_VALID | R_ENDS, .feature = X86_FEATURE_SEP, .one = op_sysenter },
	[0x35] = { .flags = R_VALID | R_ENDS, .feature = X86_FEATURE_SEP, .one = op_sysexit },
	CC16(0x40, .flags = V | R_SWAP, .feature = X86_FEATURE_CMOV, .reg = cmov_rr, .mem = cmov_rm),
	JCC_ROWS(0x80, IMM_Z),
	CC16(0x90, .flags = V | R_BYTE, .reg = setcc_r, .mem = setcc_m),
	[0xa0] = { .flags = R_VALID | R_DEF64, .aux = SEG_FS, .one = op_push_sreg },
	[0xa1] = { .flags = R_VALID | R_DEF64 | R_ENDS, .aux = SEG_FS, .one = op_pop_sreg },
	[0xa2] = { .flags = R_VALID, .one = op_cpuid },
	[0xa3] = { .flags = V, .reg = bt_rr[0], .mem = bt_mr[0] },
	[0xa4] = { .flags = V, .imm = IMM_U8, .native = &nat_shxd_i },
	[0xa5] = { .flags = V, .native = &nat_shxd_c },
	[0xa8] = { .flags = R_VALID | R_DEF64, .aux = SEG_GS, .one = op_push_sreg },
	[0xa9] = { .flags = R_VALID | R_DEF64 | R_ENDS, .aux = SEG_GS, .one = op_pop_sreg },
	[0xab] = { .flags = V | R_LOCK, .reg = bt_rr[1], .mem = bt_mr[1], .lock = bt_lock_mr[1] },
	[0xac] = { .flags = V, .imm = IMM_U8, .native = &nat_shxd_i },
	[0xad] = { .flags = V, .native = &nat_shxd_c },
	[0xae] = { .flags = V, .group = group_0fae },
	[0xaf] = { .flags = V | R_SWAP, .reg = imul_rr, .mem = imul_rm },
	[0xb0] = { .flags = V | R_BYTE | R_LOCK, .native = &nat_cmpxchg },
	[0xb1] = { .flags = V | R_LOCK, .native = &nat_cmpxchg },
	[0xb2] = { .flags = V | R_MEM | R_ENDS, .aux = SEG_SS, .one = op_lxs },
	[0xb3] = { .flags = V | R_LOCK, .reg = bt_rr[2], .mem = bt_mr[2], .lock = bt_lock_mr[2] },
	[0xb4] = { .flags = V | R_MEM | R_ENDS, .aux = SEG_FS, .one = op_lxs },
	[0xb5] = { .flags = V | R_MEM | R_ENDS, .aux = SEG_GS, .one = op_lxs },
	[0xb6] = { .flags = V | R_SWAP, .reg = movzx8_r, .mem = movzx8_m },
	[0xb7] = { .flags = V | R_SWAP, .reg = movzx16_r, .mem = movzx16_m },
	[0xb9] = { .flags = V | R_ENDS, .one = op_ud },
	[0xba] = { .flags = V, .group = group_0fba },
	[0xbb] = { .flags = V | R_LOCK, .reg = bt_rr[3], .mem = bt_mr[3], .lock = bt_lock_mr[3] },
	[0xbc] = { .flags = V, .native = &nat_bsx }, /* F3: TZCNT, LZCNT from simd_row() */
	[0xbd] = { .flags = V, .native = &nat_bsx },
	[0xbe] = { .flags = V | R_SWAP, .reg = movsx8_r, .mem = movsx8_m },
	[0xbf] = { .flags = V | R_SWAP, .reg = movsx16_r, .mem = movsx16_m },
	[0xc0] = { .flags = V | R_BYTE | R_LOCK, .native = &nat_xadd },
	[0xc1] = { .flags = V | R_LOCK, .native = &nat_xadd },
	[0xc7] = { .flags = V, .group = group_0fc7 },
	OPREG8(0xc8, .flags = R_VALID | R_OPREG, .reg = bswap_r),
	[0xff] = { .flags = V | R_ENDS, .one = op_ud },
};

/* --- decoding ---------------------------------------------------------------------------- */
struct cursor {
	const u8 *bytes;
	unsigned len, pos;
	enum decode_result fail; /* DECODE_OK while bytes last */
};

static u8 next8(struct cursor *cu)
{
	if (cu->pos >= MAX_INSN) {
		cu->fail = DECODE_GP;
		return 0;
	}
	if (cu->pos >= cu->len) {
		if (cu->fail == DECODE_OK)
			cu->fail = DECODE_MORE;
		return 0;
	}
	return cu->bytes[cu->pos++];
}

static u64 next_le(struct cursor *cu, unsigned n)
{
	const u8 *p = cu->bytes + cu->pos;

	/* By one load: another vCPU's store gives the old value or the new one, no mixture. */
	if ((n == 2 || n == 4 || n == 8) && cu->pos + n <= MIN(cu->len, (unsigned)MAX_INSN)) {
		cu->pos += n;
		return n == 2   ? *(const volatile any_u16 *)p
		       : n == 4 ? *(const volatile any_u32 *)p
				: *(const volatile any_u64 *)p;
	}
	u64 v = 0;

	for (unsigned k = 0; k < n; k++)
		v |= (u64)next8(cu) << 8 * k;
	return v;
}

static u8 byte_reg(const struct insn *i, unsigned reg)
{
	if (i->pfx & (PFX_REX | PFX_VEX) || reg < 4)
		return (u8)(reg * 8);
	return (u8)((reg - 4) * 8 + 1);
}

/* Memory operand with 16-bit addressing [SDM2 table 2-1]. */
static void modrm16(struct insn *i, struct cursor *cu, int override)
{
	static const u8 bases[8] = { R_BX, R_BX, R_BP, R_BP, R_SI, R_DI, R_BP, R_BX };
	static const u8 indexes[8] = { R_SI, R_DI, R_SI, R_DI, RZERO, RZERO, RZERO, RZERO };
	unsigned mod = i->modrm >> 6, rm = i->modrm & 7;

	i->base = bases[rm];
	i->index = indexes[rm];
	if (mod == 0 && rm == 6) {
		i->base = RZERO;
		i->disp = (s16)next_le(cu, 2);
	} else if (mod == 1) {
		i->disp = (s8)next8(cu);
	} else if (mod == 2) {
		i->disp = (s16)next_le(cu, 2);
	}
	i->seg = override >= 0 ? (u8) override : i->base == R_BP ? SEG_SS : SEG_DS;
}

/* With 32- and 64-bit addressing [SDM2 tables 2-2, 2-3]. */
static void modrm32(struct insn *i, struct cursor *cu, int override, unsigned mode)
{
	unsigned mod = i->modrm >> 6, rm = i->modrm & 7;

	if (rm == 4) {
		u8 sib = next8(cu);
		unsigned index = (sib >> 3 & 7) | (i->rex & REX_X ? 8 : 0);

		i->scale = sib >> 6;
		i->index = index == 4 ? RZERO : (u8)index;
		rm = sib & 7;
		if (rm == 5 && mod == 0)
			i->base = RZERO;
		else
			i->base = (u8)(rm | (i->rex & REX_B ? 8 : 0));
	} else if (rm == 5 && mod == 0) {
		i->base = mode == MODE_64 ? RIPB : RZERO;
	} else {
		i->base = (u8)(rm | (i->rex & REX_B ? 8 : 0));
	}
	if (mod == 1)
		i->disp = (s8)next8(cu);
	else if (mod == 2 || i->base == RZERO || i->base == RIPB)
		i->disp = (s32)next_le(cu, 4);
	if (override >= 0)
		i->seg = (u8) override;
	else if (mode == MODE_64)
		i->seg = SEG_FLAT;
	else
		i->seg = i->base == R_SP || i->base == R_BP ? SEG_SS : SEG_DS;
}

static bool feature_on(const u64 *features, unsigned f)
{
	return !f || cpuid_bit(features, f);
}

/* VEX: C5 with two, C4 with three bytes [SDM2 2.3.5]. The first byte is consumed. */
static bool vex(struct insn *i, struct cursor *cu, u8 first, unsigned mode)
{
	static const u8 pps[4] = { 0, PFX_66, PFX_F3, PFX_F2 };
	u8 b1 = next8(cu), last = b1;

	if (i->pfx & (PFX_66 | PFX_F2 | PFX_F3 | PFX_LOCK | PFX_REX))
		return false;
	i->map = 1;
	i->rex = b1 & 0x80 ? 0 : REX_R;
	if (first == 0xc4) {
		i->map = b1 & 0x1f;
		i->rex |= (u8)((b1 & 0x40 ? 0 : REX_X) | (b1 & 0x20 ? 0 : REX_B));
		last = next8(cu);
		if (last & 0x80)
			i->rex |= REX_W;
	}
	i->vvvv = ~last >> 3 & 15;
	i->pfx |= (u8)(PFX_VEX | pps[last & 3] | (last & 4 ? PFX_VEX_L : 0));
	if (mode != MODE_64) {
		/* Only eight registers: R, X are 1 by the escape; B is ignored; vvvv's high bit too, but
		 * see decode_native(). */
		i->rex &= REX_W;
	}
	i->osz = mode == MODE_64 && i->rex & REX_W ? 8 : 4;
	i->opcode = next8(cu);
	return i->map >= 1 && i->map <= 3;
}

/* EVEX, four bytes [SDM2 2.7.1]. The first is consumed. What depends on the instruction evex_row() checks. */
static bool evex(struct insn *i, struct cursor *cu, unsigned mode)
{
	static const u8 pps[4] = { 0, PFX_66, PFX_F3, PFX_F2 };
	u8 p0 = next8(cu), p1 = next8(cu), p2 = next8(cu);

	i->opcode = next8(cu);
	if (cu->fail != DECODE_OK)
		return false;
	if (i->pfx & (PFX_66 | PFX_F2 | PFX_F3 | PFX_LOCK | PFX_REX) || p0 & 8 || !(p1 & 4))
		return false;
	i->map = p0 & 7;
	i->pfx |= (u8)(PFX_VEX | pps[p1 & 3]);
	i->evex = (u8)(EVEX_ON | (p2 & (EVEX_AAA | EVEX_LL | EVEX_B)) | (p2 & 0x80 ? EVEX_Z : 0));
	i->rex = (u8)((p0 & 0x80 ? 0 : REX_R) | (p0 & 0x40 ? 0 : REX_X) | (p0 & 0x20 ? 0 : REX_B) |
		      (p0 & 0x10 ? 0 : REX_R2) | (p1 & 0x80 ? REX_W : 0));
	i->vvvv = (u8)((~p1 >> 3 & 15) | (p2 & 8 ? 0 : 16));
	if (mode != MODE_64) {
		/* Only eight registers, as with VEX. */
		if (i->vvvv & 16)
			return false;
		i->rex &= REX_W;
	}
	i->osz = mode == MODE_64 && i->rex & REX_W ? 8 : 4;
	return i->map >= 1 && i->map <= 3;
}

/* The row for opcodes that are not plain table entries; NULL: look in simd_row(). *ret_done = false: use
 * the table. */
static const struct row *special_row(const struct insn *i, unsigned mode, const u64 *features, bool *ret_done)
{
	unsigned reg = i->modrm >> 3 & 7;
	bool is_mem = i->modrm < 0xc0;

	*ret_done = true;
	if (i->map == 0) {
		if (i->opcode == 0x63)
			return mode == MODE_64 ? &row_movsxd : &row_arpl;
		if (i->opcode == 0x90 && !(i->rex & REX_B))
			return i->pfx & PFX_F3 ? &row_pause : &row_nop;
	} else if (i->map == 1) {
		switch (i->opcode) {
		case 0x01:
			if (is_mem || reg == 4 || reg == 6)
				return &group_0f01[reg];
			for (unsigned k = 0; k < ARRAY_SIZE(rows_0f01_reg); k++)
				if (rows_0f01_reg[k].modrm == i->modrm)
					return &rows_0f01_reg[k].row;
			return &row_ud;
		case 0xae:
			if (i->pfx & PFX_F3)
				return &group_0fae_f3[reg];
			if (i->pfx & PFX_F2)
				return &row_ud;
			if (i->pfx & PFX_66)
				return i->modrm == 0xf8 ? &row_pcommit : &group_0fae_66[reg];
			return is_mem ? &group_0fae[reg] : &group_0fae_reg[reg];
		case 0xc7:
			if (!is_mem)
				return reg == 7 && i->pfx & PFX_F3 ? &row_rdpid : &group_0fc7_reg[reg];
			return reg == 1 && i->rex & REX_W ? &row_cmpxchg16b : &group_0fc7[reg];
		case 0xb8: return NULL;
		case 0xbc:
			if (i->pfx & PFX_F3 && feature_on(features, X86_FEATURE_BMI1))
				return NULL;
			break;
		case 0xbd:
			if (i->pfx & PFX_F3 && feature_on(features, X86_FEATURE_ABM))
				return NULL;
			break;
		}
	} else if (i->map == 2 && i->opcode == 0x82 && (i->pfx & (PFX_66 | PFX_F2 | PFX_F3)) == PFX_66) {
		return &row_invpcid;
	}
	*ret_done = false;
	return NULL;
}

static unsigned size_log2(unsigned size)
{
	return size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
}

static void read_imm(struct insn *i, struct cursor *cu, unsigned kind)
{
	switch (kind) {
	case IMM_8: i->imm = (u64)(s64)(s8)next8(cu); break;
	case IMM_U8: i->imm = next8(cu); break;
	case IMM_Z:
		i->imm = i->osz == 2 ? (u64)(s64)(s16)next_le(cu, 2) : (u64)(s64)(s32)next_le(cu, 4);
		break;
	case IMM_V: i->imm = next_le(cu, i->osz); break;
	case IMM_16: i->imm = next_le(cu, 2); break;
	case IMM_ENTER: i->imm = next_le(cu, 3); break;
	case IMM_MOFFS:
		i->imm = next_le(cu, i->asz);
		i->disp = (s64)i->imm;
		break;
	case IMM_FAR:
		i->imm = next_le(cu, i->osz == 2 ? 2 : 4);
		i->imm |= next_le(cu, 2) << 32;
		break;
	}
}

/* Registers from ModRM, and its memory operand's bytes. */
static void read_modrm(struct insn *i, struct cursor *cu, int override, unsigned mode)
{
	i->reg = (u8)((i->modrm >> 3 & 7) | (i->rex & REX_R ? 8 : 0));
	i->rm = (u8)((i->modrm & 7) | (i->rex & REX_B ? 8 : 0));
	i->reg_b = byte_reg(i, i->reg);
	i->rm_b = byte_reg(i, i->rm);
	i->mem = i->modrm < 0xc0;
	if (!i->mem)
		return;
	if (i->asz == 2)
		modrm16(i, cu, override);
	else
		modrm32(i, cu, override, mode);
	i->flat = mode == MODE_64 && i->asz == 8;
}

/* Registers 16 to 31, mask registers, and the displacement that counts in operands [SDM2 2.7.5]. */
static void evex_operands(struct insn *i, const struct native_row *row)
{
	if (i->rex & REX_R2)
		i->reg |= 16;
	if (i->rex & REX_X && !i->mem && !(row->flags & NR_GPR_RM))
		i->rm |= 16;
	if (row->evex & EV_K_RM)
		i->rm &= 7;
	if (i->evex && i->mem && i->modrm >> 6 == 1)
		i->disp *= row->evex & EV_PACKED ? 1 << (row->evex & EV_ELEMENT)
						 : (s64)native_operand_size(i, row);
}

static enum decode_result decode_native(struct insn *i, struct cursor *cu, int override, unsigned mode,
					const u64 *features, const struct native_row *row)
{
	if (!row || !(row->flags & NR_VALID) || !feature_on(features, row->feature) || i->pfx & PFX_LOCK)
		return DECODE_UD;
	if (row->evex && (!feature_on(features, X86_FEATURE_AVX512F) ||
			  (i->evex && evex_needs_vl(i, row) && !feature_on(features, X86_FEATURE_AVX512VL))))
		return DECODE_UD;
	if (row->evex & EV_VEX && row->evex & EV_V && mode == MODE_64 && i->vvvv > 7)
		return DECODE_UD; /* no such mask register */
	read_modrm(i, cu, override, mode);
	if (row->evex)
		evex_operands(i, row);
	if (row->flags & NR_IMM8)
		i->imm = next8(cu);
	if (mode != MODE_64 && i->pfx & PFX_VEX) {
		/* The row has seen all of vvvv: it must be 1111 where it is no operand. Of an operand,
		 * in vvvv or in the immediate (VBLENDV), the high bit is ignored. */
		i->vvvv &= 7;
		if (!i->evex && i->map == 3 && i->opcode >= 0x4a && i->opcode <= 0x4c)
			i->imm &= 0x7f;
	}
	/* PCMPESTRM, PCMPESTRI: W widens the lengths in rAX and rDX, in 64-bit mode only. */
	if (mode != MODE_64 && i->map == 3 && (i->opcode | 1) == 0x61)
		i->rex &= (u8)~REX_W;
	if (cu->fail != DECODE_OK)
		return cu->fail;
	if (row->flags & (i->mem ? NR_REG_ONLY : NR_MEM_ONLY))
		return DECODE_UD;
	i->len = (u8)cu->pos;
	native_bind(i, row);
	return DECODE_OK;
}

/* EMMS, VZEROUPPER, VZEROALL: the only ones of their maps without ModRM. */
static enum decode_result decode_emms(struct insn *i, struct cursor *cu, const u64 *features)
{
	const struct native_row *row = simd_row(i);

	if (!row || !feature_on(features, row->feature) || i->pfx & PFX_LOCK)
		return DECODE_UD;
	i->len = (u8)cu->pos;
	native_bind(i, row);
	return DECODE_OK;
}

/* The instruction under a table row. */
static enum decode_result decode_row(struct insn *i, struct cursor *cu, int override, unsigned mode,
				     const struct row *row, struct decode_info *info)
{
	unsigned f = row->flags;
	insn_fn fn;

	if (mode == MODE_64) {
		if (f & R_NO64)
			return DECODE_UD;
		if (f & R_FORCE64 || (f & R_DEF64 && i->osz == 4) || f & R_CRDR)
			i->osz = 8;
	} else if (f & R_ONLY64) {
		return DECODE_UD;
	} else if (f & R_CRDR) {
		i->osz = 4;
	}
	if (f & R_BYTE)
		i->osz = 1;
	if (f & R_NP && i->pfx & (PFX_66 | PFX_F2 | PFX_F3))
		return DECODE_UD;
	if (f & R_CRDR)
		i->modrm |= 0xc0;
	if (f & R_MODRM)
		read_modrm(i, cu, override, mode);
	if (f & R_OPREG) {
		i->rm = (u8)((i->opcode & 7) | (i->rex & REX_B ? 8 : 0));
		i->rm_b = byte_reg(i, i->rm);
	}
	i->aux = row->aux;
	if (row->imm)
		read_imm(i, cu, row->imm);
	else if (row->aux == 1 && (i->opcode == 0xd0 || i->opcode == 0xd1) && i->map == 0)
		i->imm = 1;
	if (cu->fail != DECODE_OK)
		return cu->fail;
	if (f & (i->mem ? R_REG : R_MEM) && f & R_MODRM)
		return DECODE_UD;
	i->len = (u8)cu->pos;
	info->ends_block = f & R_ENDS;
	if (i->pfx & PFX_LOCK && !(f & R_LOCK && i->mem))
		return DECODE_UD;
	if (row->native) {
		native_bind(i, row->native);
		return DECODE_OK;
	}
	if (f & R_SWAP && !i->mem) {
		u8 t = i->reg, tb = i->reg_b;

		i->reg = i->rm;
		i->rm = t;
		i->reg_b = i->rm_b;
		i->rm_b = tb;
	}
	if (row->aux & 0x80) {
		i->aux = row->aux & 15;
		fn = jcc[i->aux];
	} else if (row->one) {
		fn = row->one;
	} else {
		const insn_fn *fns = i->pfx & PFX_LOCK ? row->lock : i->mem ? row->mem : row->reg;

		fn = fns ? fns[size_log2(i->osz)] : NULL;
	}
	if (!fn)
		return DECODE_UD;
	i->fn = fn;
	return DECODE_OK;
}

/* What a string instruction or XLAT uses as source segment, and moffs. */
static void implicit_segment(struct insn *i, int override, unsigned mode)
{
	i->base = i->index = RZERO;
	i->seg = override >= 0 ? (u8) override : mode == MODE_64 ? SEG_FLAT : SEG_DS;
	i->flat = mode == MODE_64 && i->asz == 8;
}

enum decode_result decode_insn(const u8 *bytes, unsigned len, unsigned key, const u64 *features,
			       struct insn *i, struct decode_info *info)
{
	struct cursor cu = { .bytes = bytes, .len = len };
	unsigned mode = key & KEY_MODE;
	int override = -1;
	const struct row *row;
	bool done;
	u8 b;

	*i = (struct insn){ .base = RZERO, .index = RZERO, .seg = SEG_FLAT };
	info->ends_block = false;

	for (;;) {
		b = next8(&cu);
		if (cu.fail != DECODE_OK)
			return cu.fail;
		switch (b) {
		case 0x66: i->pfx |= PFX_66; break;
		case 0x67: i->pfx |= PFX_67; break;
		case 0xf0: i->pfx |= PFX_LOCK; break;
		case 0xf2: i->pfx = (u8)((i->pfx & ~PFX_F3) | PFX_F2); break;
		case 0xf3: i->pfx = (u8)((i->pfx & ~PFX_F2) | PFX_F3); break;
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
			if (mode != MODE_64)
				override = b >> 3 & 3;
			break;
		case 0x64: override = SEG_FS; break;
		case 0x65: override = SEG_GS; break;
		default:
			if (mode == MODE_64 && (b & 0xf0) == 0x40) {
				i->rex = b & 15;
				i->pfx |= PFX_REX;
				b = next8(&cu);
				if (cu.fail != DECODE_OK)
					return cu.fail;
				/* A REX that a legacy prefix follows is void. */
				switch (b) {
				case 0x66:
				case 0x67:
				case 0xf0:
				case 0xf2:
				case 0xf3:
				case 0x26:
				case 0x2e:
				case 0x36:
				case 0x3e:
				case 0x64:
				case 0x65:
				case 0x40 ... 0x4f:
					i->rex = 0;
					i->pfx &= (u8)~PFX_REX;
					cu.pos--;
					continue;
				}
			}
			goto opcode;
		}
	}
opcode:
	if (mode == MODE_64) {
		i->asz = i->pfx & PFX_67 ? 4 : 8;
		i->osz = i->rex & REX_W ? 8 : i->pfx & PFX_66 ? 2 : 4;
	} else {
		bool small = mode == MODE_16;

		i->asz = small ^ !!(i->pfx & PFX_67) ? 2 : 4;
		i->osz = small ^ !!(i->pfx & PFX_66) ? 2 : 4;
	}
	implicit_segment(i, override, mode);

	i->opcode = b;
	if (b == 0x0f) {
		i->map = 1;
		i->opcode = next8(&cu);
		if (i->opcode == 0x38 || i->opcode == 0x3a) {
			i->map = i->opcode == 0x38 ? 2 : 3;
			i->opcode = next8(&cu);
		}
	} else if (b == 0xc4 || b == 0xc5 || b == 0x62) {
		/* LES, LDS and BOUND cannot have a register operand: then it is VEX or EVEX outside 64-bit mode. */
		bool is_vex = mode == MODE_64;

		if (!is_vex) {
			u8 peek = next8(&cu);

			if (cu.fail != DECODE_OK)
				return cu.fail;
			cu.pos--;
			is_vex = peek >= 0xc0;
		}
		if (is_vex) {
			bool ok = b == 0x62 ? evex(i, &cu, mode) : vex(i, &cu, b, mode);

			if (cu.fail != DECODE_OK)
				return cu.fail;
			if (!ok)
				return DECODE_UD;
		}
	}
	if (cu.fail != DECODE_OK)
		return cu.fail;

	/* ModRM is needed to choose among rows; whether it exists is known from map and opcode. */
	bool table_modrm = i->pfx & PFX_VEX ? true
			   : i->map == 0 ? (map0[b].flags & R_MODRM) || b == 0x63 || (b >= 0xd8 && b <= 0xdf)
			   : i->map == 1
				   ? !(map1[i->opcode].flags & R_VALID) || map1[i->opcode].flags & R_MODRM
				   : true;
	if (i->map == 1 && i->opcode == 0x77 && !i->evex)
		table_modrm = false;
	if (i->map == 1 && !(i->pfx & PFX_VEX)) {
		/* Opcodes that do not exist have no ModRM to wait for. */
		switch (i->opcode) {
		case 0x04:
		case 0x0a:
		case 0x0c:
		case 0x0e:
		case 0x0f:
		case 0x36:
		case 0x37:
		case 0xa6:
		case 0xa7:
		case 0x24 ... 0x27:
		case 0x39:
		case 0x3b ... 0x3f:
		case 0x7a:
		case 0x7b:
		case 0xaa: return DECODE_UD;
		}
	}
	if (table_modrm) {
		i->modrm = next8(&cu);
		if (cu.fail != DECODE_OK)
			return cu.fail;
	}

	if (i->map == 1 && i->opcode == 0x77 && !i->evex)
		return decode_emms(i, &cu, features);
	if (i->pfx & PFX_VEX)
		return decode_native(i, &cu, override, mode, features, simd_row(i));
	if (i->map == 0 && b >= 0xd8 && b <= 0xdf)
		return decode_native(i, &cu, override, mode, features, x87_row(i));

	row = special_row(i, mode, features, &done);
	if (!done) {
		row = i->map == 0 ? &map0[i->opcode] : i->map == 1 ? &map1[i->opcode] : NULL;
		if (row && row->group)
			row = &row->group[i->modrm >> 3 & 7];
		else if (row && !(row->flags & R_VALID) && i->map != 0)
			row = NULL;
	}
	if (!row)
		return decode_native(i, &cu, override, mode, features, simd_row(i));
	if (!(row->flags & R_VALID) || !feature_on(features, row->feature))
		return DECODE_UD;
	return decode_row(i, &cu, override, mode, row, info);
}
