/* MMX, SSE, AVX and the general-register instructions of maps 0F, 0F38, 0F3A that run natively, as rows
 * [SDM2 A.3, the instructions' own pages].
 *
 * One line of ROWS is one opcode under one mandatory prefix: the feature it needs in its legacy form, as
 * VEX.128 (VEX.L = 0) and as VEX.256 (NO: that form does not exist), the size of its memory operand and
 * which way that goes, what it does with general registers and flags, and how VEX.vvvv and VEX.W must
 * be. What a line does not say (the semantics) the host's processor knows.
 *
 * The mandatory prefix is F2 or F3 if there is one, else 66 [SDM2 2.1.2]. A prefix that selects no line
 * is #UD. XOP, 3DNow! and SSE4A are not offered: no lines, #UD. EVEX and mask registers: evex_table.c.
 *
 * Called by the decoder. Tables only; no state.
 */
#include "cpu/soft/simd.h"

#include "cpu/soft/fpu.h"
#include "cpu/soft/ops.h"
#include "cpu/soft/thunk.h"
#include "x86/cpuid.h"

enum mandatory { P0, P66, PF3, PF2, NR_PP };

/* clang-format off */
/* Columns legacy, VEX.128, VEX.256. */
enum {
	NO = 0xff,
	MMX = X86_FEATURE_MMX, SSE = X86_FEATURE_SSE, SSE2 = X86_FEATURE_SSE2, SSE3 = X86_FEATURE_SSE3,
	SSSE3 = X86_FEATURE_SSSE3, SSE41 = X86_FEATURE_SSE4_1, SSE42 = X86_FEATURE_SSE4_2, AES = X86_FEATURE_AES,
	CLMUL = X86_FEATURE_PCLMULQDQ, SHA = X86_FEATURE_SHA, GFNI = X86_FEATURE_GFNI, F16C = X86_FEATURE_F16C,
	AVX = X86_FEATURE_AVX, AVX2 = X86_FEATURE_AVX2, FMA = X86_FEATURE_FMA, VAES = X86_FEATURE_VAES,
	VCLMUL = X86_FEATURE_VPCLMULQDQ, VNNI = X86_FEATURE_AVX_VNNI, BMI1 = X86_FEATURE_BMI1,
	BMI2 = X86_FEATURE_BMI2, ADX = X86_FEATURE_ADX, MOVBE = X86_FEATURE_MOVBE, ABM = X86_FEATURE_ABM,
	POPCNT = X86_FEATURE_POPCNT,
};
_Static_assert((int)X86_NR_FEATURES < (int)NO, "features fit in a byte");

/* Operand sizes and flags, short. */
enum {
	VL = NR_VL, HALF = NR_HALF_VL, QUARTER = NR_QUARTER_VL, EIGHTH = NR_EIGHTH_VL, OSZ = NR_OSZ, W48 = NR_W,
	LD = NR_LOAD, ST = NR_STORE, I8 = NR_IMM8, GREG = NR_GPR_REG, GRM = NR_GPR_RM, GV = NR_GPR_VVVV,
	FLO = NR_FLAGS_OUT, FLI = NR_FLAGS_IN, MEM = NR_MEM_ONLY, REG = NR_REG_ONLY, MM = NR_MMX,
	AXDX = NR_IMPL_AXDX, CX = NR_IMPL_CX,
};

/* How VEX.vvvv and VEX.W must be; which ModRM.reg exist (none said: all). */
enum {
	V = 1 << 0,  /* vvvv is an operand, else it must be 1111 */
	VR = 1 << 1, /* vvvv is an operand of the register form only */
	W0 = 1 << 2,
	W1 = 1 << 3,
	VSIB = 1 << 4,
#define DIGITS(mask) ((mask) << 8)
};

#define GPR_ROW .fn = op_native_mem /* general registers only */

/* Packed integers with an MMX form; f: the MMX form's feature. */
#define INT2(X, name, op, f)                                                                       \
	X(name##_mm, 1, P0, op, f, NO, NO, 8, LD | MM, 0)                                          \
	X(name, 1, P66, op, SSE2, AVX, AVX2, VL, LD, V)
#define INT2_S3(X, name, op, v)                                                                    \
	X(name##_mm, 2, P0, op, SSSE3, NO, NO, 8, LD | MM, 0)                                      \
	X(name, 2, P66, op, SSSE3, AVX, AVX2, VL, LD, v)
/* Shifts by a count that is always 128 bits in memory. */
#define SHIFT2(X, name, op)                                                                        \
	X(name##_mm, 1, P0, op, MMX, NO, NO, 8, LD | MM, 0)                                        \
	X(name, 1, P66, op, SSE2, AVX, AVX2, 16, LD, V)
#define PUNPCKL(X, name, op)                                                                       \
	X(name##_mm, 1, P0, op, MMX, NO, NO, 4, LD | MM, 0)                                        \
	X(name, 1, P66, op, SSE2, AVX, AVX2, VL, LD, V)
#define SHIFT_IMM(X, name, op, mm, xmm)                                                            \
	X(name##_mm, 1, P0, op, MMX, NO, NO, 0, REG | I8 | MM, DIGITS(mm))                         \
	X(name, 1, P66, op, SSE2, AVX, AVX2, 0, REG | I8, V | DIGITS(xmm))
#define FLOAT2(X, name, op, fl, v)                                                                 \
	X(name##PS, 1, P0, op, SSE, AVX, AVX, VL, LD | (fl), v)                                    \
	X(name##PD, 1, P66, op, SSE2, AVX, AVX, VL, LD | (fl), v)
#define FLOAT4(X, name, op, fl, v)                                                                 \
	FLOAT2(X, name, op, fl, v)                                                                 \
	X(name##SS, 1, PF3, op, SSE, AVX, AVX, 4, LD | (fl), V)                                    \
	X(name##SD, 1, PF2, op, SSE2, AVX, AVX, 8, LD | (fl), V)
#define SSE41_2(X, name, op) X(name, 2, P66, op, SSE41, AVX, AVX2, VL, LD, V)
#define PMOVX(X, name, op, size) X(name, 2, P66, op, SSE41, AVX, AVX2, size, LD, 0)
#define FMA_P(X, name, op) X(name##P, 2, P66, op, NO, FMA, FMA, VL, LD, V)
#define FMA_PS(X, name, op)                                                                        \
	FMA_P(X, name, op)                                                                         \
	X(name##S, 2, P66, (op) + 1, NO, FMA, FMA, W48, LD, V)
#define FMA_ROUND(X, n, op)                                                                        \
	FMA_P(X, VFMADDSUB##n, op) FMA_P(X, VFMSUBADD##n, (op) + 1)                                \
	FMA_PS(X, VFMADD##n, (op) + 2) FMA_PS(X, VFMSUB##n, (op) + 4)                              \
	FMA_PS(X, VFNMADD##n, (op) + 6) FMA_PS(X, VFNMSUB##n, (op) + 8)

/* X(name, map, prefix, opcode, legacy, VEX.128, VEX.256, memory size, flags, VEX rules, more fields of
 * the row) */
#define ROWS_0F(X)                                                                                 \
	X(MOVUPS_L, 1, P0, 0x10, SSE, AVX, AVX, VL, LD, 0)                                         \
	X(MOVUPD_L, 1, P66, 0x10, SSE2, AVX, AVX, VL, LD, 0)                                       \
	X(MOVSS_L, 1, PF3, 0x10, SSE, AVX, AVX, 4, LD, VR)                                         \
	X(MOVSD_L, 1, PF2, 0x10, SSE2, AVX, AVX, 8, LD, VR)                                        \
	X(MOVUPS_S, 1, P0, 0x11, SSE, AVX, AVX, VL, ST, 0)                                         \
	X(MOVUPD_S, 1, P66, 0x11, SSE2, AVX, AVX, VL, ST, 0)                                       \
	X(MOVSS_S, 1, PF3, 0x11, SSE, AVX, AVX, 4, ST, VR)                                         \
	X(MOVSD_S, 1, PF2, 0x11, SSE2, AVX, AVX, 8, ST, VR)                                        \
	X(MOVLPS_L, 1, P0, 0x12, SSE, AVX, NO, 8, LD, V)                                           \
	X(MOVLPD_L, 1, P66, 0x12, SSE2, AVX, NO, 8, LD | MEM, V)                                   \
	X(MOVSLDUP, 1, PF3, 0x12, SSE3, AVX, AVX, VL, LD, 0)                                       \
	X(MOVDDUP, 1, PF2, 0x12, SSE3, AVX, AVX, NR_DDUP, LD, 0)                                   \
	X(MOVLPS_S, 1, P0, 0x13, SSE, AVX, NO, 8, ST | MEM, 0)                                     \
	X(MOVLPD_S, 1, P66, 0x13, SSE2, AVX, NO, 8, ST | MEM, 0)                                   \
	FLOAT2(X, UNPCKL, 0x14, 0, V) FLOAT2(X, UNPCKH, 0x15, 0, V)                                \
	X(MOVHPS_L, 1, P0, 0x16, SSE, AVX, NO, 8, LD, V)                                           \
	X(MOVHPD_L, 1, P66, 0x16, SSE2, AVX, NO, 8, LD | MEM, V)                                   \
	X(MOVSHDUP, 1, PF3, 0x16, SSE3, AVX, AVX, VL, LD, 0)                                       \
	X(MOVHPS_S, 1, P0, 0x17, SSE, AVX, NO, 8, ST | MEM, 0)                                     \
	X(MOVHPD_S, 1, P66, 0x17, SSE2, AVX, NO, 8, ST | MEM, 0)                                   \
	FLOAT2(X, MOVA_L, 0x28, 0, 0)                                                              \
	X(MOVAPS_S, 1, P0, 0x29, SSE, AVX, AVX, VL, ST, 0)                                         \
	X(MOVAPD_S, 1, P66, 0x29, SSE2, AVX, AVX, VL, ST, 0)                                       \
	X(CVTPI2PS, 1, P0, 0x2a, SSE, NO, NO, 8, LD | MM, 0)                                       \
	X(CVTPI2PD, 1, P66, 0x2a, SSE2, NO, NO, 8, LD | MM, 0)                                     \
	X(CVTSI2SS, 1, PF3, 0x2a, SSE, AVX, AVX, W48, LD | GRM, V)                                 \
	X(CVTSI2SD, 1, PF2, 0x2a, SSE2, AVX, AVX, W48, LD | GRM, V)                                \
	X(MOVNTPS, 1, P0, 0x2b, SSE, AVX, AVX, VL, ST | MEM, 0)                                    \
	X(MOVNTPD, 1, P66, 0x2b, SSE2, AVX, AVX, VL, ST | MEM, 0)                                  \
	X(CVTTPS2PI, 1, P0, 0x2c, SSE, NO, NO, 8, LD | MM, 0)                                      \
	X(CVTTPD2PI, 1, P66, 0x2c, SSE2, NO, NO, 16, LD | MM, 0)                                   \
	X(CVTTSS2SI, 1, PF3, 0x2c, SSE, AVX, AVX, 4, LD | GREG, 0)                                 \
	X(CVTTSD2SI, 1, PF2, 0x2c, SSE2, AVX, AVX, 8, LD | GREG, 0)                                \
	X(CVTPS2PI, 1, P0, 0x2d, SSE, NO, NO, 8, LD | MM, 0)                                       \
	X(CVTPD2PI, 1, P66, 0x2d, SSE2, NO, NO, 16, LD | MM, 0)                                    \
	X(CVTSS2SI, 1, PF3, 0x2d, SSE, AVX, AVX, 4, LD | GREG, 0)                                  \
	X(CVTSD2SI, 1, PF2, 0x2d, SSE2, AVX, AVX, 8, LD | GREG, 0)                                 \
	X(UCOMISS, 1, P0, 0x2e, SSE, AVX, AVX, 4, LD | FLO, 0)                                     \
	X(UCOMISD, 1, P66, 0x2e, SSE2, AVX, AVX, 8, LD | FLO, 0)                                   \
	X(COMISS, 1, P0, 0x2f, SSE, AVX, AVX, 4, LD | FLO, 0)                                      \
	X(COMISD, 1, P66, 0x2f, SSE2, AVX, AVX, 8, LD | FLO, 0)                                    \
	X(MOVMSKPS, 1, P0, 0x50, SSE, AVX, AVX, 0, GREG | REG, 0)                                  \
	X(MOVMSKPD, 1, P66, 0x50, SSE2, AVX, AVX, 0, GREG | REG, 0)                                \
	FLOAT4(X, SQRT, 0x51, 0, 0)                                                                \
	X(RSQRTPS, 1, P0, 0x52, SSE, AVX, AVX, VL, LD, 0)                                          \
	X(RSQRTSS, 1, PF3, 0x52, SSE, AVX, AVX, 4, LD, V)                                          \
	X(RCPPS, 1, P0, 0x53, SSE, AVX, AVX, VL, LD, 0)                                            \
	X(RCPSS, 1, PF3, 0x53, SSE, AVX, AVX, 4, LD, V)                                            \
	FLOAT2(X, AND, 0x54, 0, V) FLOAT2(X, ANDN, 0x55, 0, V)                                     \
	FLOAT2(X, OR, 0x56, 0, V) FLOAT2(X, XOR, 0x57, 0, V)                                       \
	FLOAT4(X, ADD, 0x58, 0, V) FLOAT4(X, MUL, 0x59, 0, V)                                      \
	X(CVTPS2PD, 1, P0, 0x5a, SSE2, AVX, AVX, HALF, LD, 0)                                      \
	X(CVTPD2PS, 1, P66, 0x5a, SSE2, AVX, AVX, VL, LD, 0)                                       \
	X(CVTSS2SD, 1, PF3, 0x5a, SSE2, AVX, AVX, 4, LD, V)                                        \
	X(CVTSD2SS, 1, PF2, 0x5a, SSE2, AVX, AVX, 8, LD, V)                                        \
	X(CVTDQ2PS, 1, P0, 0x5b, SSE2, AVX, AVX, VL, LD, 0)                                        \
	X(CVTPS2DQ, 1, P66, 0x5b, SSE2, AVX, AVX, VL, LD, 0)                                       \
	X(CVTTPS2DQ, 1, PF3, 0x5b, SSE2, AVX, AVX, VL, LD, 0)                                      \
	FLOAT4(X, SUB, 0x5c, 0, V) FLOAT4(X, MIN, 0x5d, 0, V)                                      \
	FLOAT4(X, DIV, 0x5e, 0, V) FLOAT4(X, MAX, 0x5f, 0, V)                                      \
	PUNPCKL(X, PUNPCKLBW, 0x60) PUNPCKL(X, PUNPCKLWD, 0x61) PUNPCKL(X, PUNPCKLDQ, 0x62)        \
	INT2(X, PACKSSWB, 0x63, MMX) INT2(X, PCMPGTB, 0x64, MMX) INT2(X, PCMPGTW, 0x65, MMX)       \
	INT2(X, PCMPGTD, 0x66, MMX) INT2(X, PACKUSWB, 0x67, MMX) INT2(X, PUNPCKHBW, 0x68, MMX)     \
	INT2(X, PUNPCKHWD, 0x69, MMX) INT2(X, PUNPCKHDQ, 0x6a, MMX) INT2(X, PACKSSDW, 0x6b, MMX)   \
	X(PUNPCKLQDQ, 1, P66, 0x6c, SSE2, AVX, AVX2, VL, LD, V)                                    \
	X(PUNPCKHQDQ, 1, P66, 0x6d, SSE2, AVX, AVX2, VL, LD, V)                                    \
	X(MOVD_mm_L, 1, P0, 0x6e, MMX, NO, NO, W48, LD | GRM | MM, 0)                              \
	X(MOVD_L, 1, P66, 0x6e, SSE2, AVX, NO, W48, LD | GRM, 0)                                   \
	X(MOVQ_mm_L, 1, P0, 0x6f, MMX, NO, NO, 8, LD | MM, 0)                                      \
	X(MOVDQA_L, 1, P66, 0x6f, SSE2, AVX, AVX, VL, LD, 0)                                       \
	X(MOVDQU_L, 1, PF3, 0x6f, SSE2, AVX, AVX, VL, LD, 0)                                       \
	X(PSHUFW, 1, P0, 0x70, SSE, NO, NO, 8, LD | I8 | MM, 0)                                    \
	X(PSHUFD, 1, P66, 0x70, SSE2, AVX, AVX2, VL, LD | I8, 0)                                   \
	X(PSHUFHW, 1, PF3, 0x70, SSE2, AVX, AVX2, VL, LD | I8, 0)                                  \
	X(PSHUFLW, 1, PF2, 0x70, SSE2, AVX, AVX2, VL, LD | I8, 0)                                  \
	SHIFT_IMM(X, PSxxW_I, 0x71, 0x54, 0x54) SHIFT_IMM(X, PSxxD_I, 0x72, 0x54, 0x54)            \
	SHIFT_IMM(X, PSxxQ_I, 0x73, 0x44, 0xcc)                                                    \
	INT2(X, PCMPEQB, 0x74, MMX) INT2(X, PCMPEQW, 0x75, MMX) INT2(X, PCMPEQD, 0x76, MMX)        \
	X(EMMS, 1, P0, 0x77, MMX, NO, NO, 0, MM, 0)                                                \
	X(HADDPD, 1, P66, 0x7c, SSE3, AVX, AVX, VL, LD, V)                                         \
	X(HADDPS, 1, PF2, 0x7c, SSE3, AVX, AVX, VL, LD, V)                                         \
	X(HSUBPD, 1, P66, 0x7d, SSE3, AVX, AVX, VL, LD, V)                                         \
	X(HSUBPS, 1, PF2, 0x7d, SSE3, AVX, AVX, VL, LD, V)                                         \
	X(MOVD_mm_S, 1, P0, 0x7e, MMX, NO, NO, W48, ST | GRM | MM, 0)                              \
	X(MOVD_S, 1, P66, 0x7e, SSE2, AVX, NO, W48, ST | GRM, 0)                                   \
	X(MOVQ_L, 1, PF3, 0x7e, SSE2, AVX, NO, 8, LD, 0)                                           \
	X(MOVQ_mm_S, 1, P0, 0x7f, MMX, NO, NO, 8, ST | MM, 0)                                      \
	X(MOVDQA_S, 1, P66, 0x7f, SSE2, AVX, AVX, VL, ST, 0)                                       \
	X(MOVDQU_S, 1, PF3, 0x7f, SSE2, AVX, AVX, VL, ST, 0)                                       \
	X(POPCNT_, 1, PF3, 0xb8, POPCNT, NO, NO, OSZ, LD | GREG | GRM | FLO, 0, GPR_ROW)           \
	X(TZCNT, 1, PF3, 0xbc, BMI1, NO, NO, OSZ, LD | GREG | GRM | FLO, 0, GPR_ROW)               \
	X(LZCNT, 1, PF3, 0xbd, ABM, NO, NO, OSZ, LD | GREG | GRM | FLO, 0, GPR_ROW)                \
	FLOAT4(X, CMP, 0xc2, I8, V)                                                                \
	X(MOVNTI, 1, P0, 0xc3, SSE2, NO, NO, W48, ST | GREG | MEM, 0, GPR_ROW)                     \
	X(PINSRW_mm, 1, P0, 0xc4, SSE, NO, NO, 2, LD | GRM | I8 | MM, 0)                           \
	X(PINSRW, 1, P66, 0xc4, SSE2, AVX, NO, 2, LD | GRM | I8, V)                                \
	X(PEXTRW_mm, 1, P0, 0xc5, SSE, NO, NO, 0, GREG | REG | I8 | MM, 0)                         \
	X(PEXTRW, 1, P66, 0xc5, SSE2, AVX, NO, 0, GREG | REG | I8, 0)                              \
	FLOAT2(X, SHUF, 0xc6, I8, V)                                                               \
	X(ADDSUBPD, 1, P66, 0xd0, SSE3, AVX, AVX, VL, LD, V)                                       \
	X(ADDSUBPS, 1, PF2, 0xd0, SSE3, AVX, AVX, VL, LD, V)                                       \
	SHIFT2(X, PSRLW, 0xd1) SHIFT2(X, PSRLD, 0xd2) SHIFT2(X, PSRLQ, 0xd3)                       \
	INT2(X, PADDQ, 0xd4, SSE2) INT2(X, PMULLW, 0xd5, MMX)                                      \
	X(MOVQ_S, 1, P66, 0xd6, SSE2, AVX, NO, 8, ST, 0)                                           \
	X(MOVQ2DQ, 1, PF3, 0xd6, SSE2, NO, NO, 0, REG | MM, 0)                                     \
	X(MOVDQ2Q, 1, PF2, 0xd6, SSE2, NO, NO, 0, REG | MM, 0)                                     \
	X(PMOVMSKB_mm, 1, P0, 0xd7, SSE, NO, NO, 0, GREG | REG | MM, 0)                            \
	X(PMOVMSKB, 1, P66, 0xd7, SSE2, AVX, AVX2, 0, GREG | REG, 0)                               \
	INT2(X, PSUBUSB, 0xd8, MMX) INT2(X, PSUBUSW, 0xd9, MMX) INT2(X, PMINUB, 0xda, SSE)         \
	INT2(X, PAND, 0xdb, MMX) INT2(X, PADDUSB, 0xdc, MMX) INT2(X, PADDUSW, 0xdd, MMX)           \
	INT2(X, PMAXUB, 0xde, SSE) INT2(X, PANDN, 0xdf, MMX) INT2(X, PAVGB, 0xe0, SSE)             \
	SHIFT2(X, PSRAW, 0xe1) SHIFT2(X, PSRAD, 0xe2)                                              \
	INT2(X, PAVGW, 0xe3, SSE) INT2(X, PMULHUW, 0xe4, SSE) INT2(X, PMULHW, 0xe5, MMX)           \
	X(CVTTPD2DQ, 1, P66, 0xe6, SSE2, AVX, AVX, VL, LD, 0)                                      \
	X(CVTDQ2PD, 1, PF3, 0xe6, SSE2, AVX, AVX, HALF, LD, 0)                                     \
	X(CVTPD2DQ, 1, PF2, 0xe6, SSE2, AVX, AVX, VL, LD, 0)                                       \
	X(MOVNTQ, 1, P0, 0xe7, SSE, NO, NO, 8, ST | MEM | MM, 0)                                   \
	X(MOVNTDQ, 1, P66, 0xe7, SSE2, AVX, AVX, VL, ST | MEM, 0)                                  \
	INT2(X, PSUBSB, 0xe8, MMX) INT2(X, PSUBSW, 0xe9, MMX) INT2(X, PMINSW, 0xea, SSE)           \
	INT2(X, POR, 0xeb, MMX) INT2(X, PADDSB, 0xec, MMX) INT2(X, PADDSW, 0xed, MMX)              \
	INT2(X, PMAXSW, 0xee, SSE) INT2(X, PXOR, 0xef, MMX)                                        \
	X(LDDQU, 1, PF2, 0xf0, SSE3, AVX, AVX, VL, LD | MEM, 0)                                    \
	SHIFT2(X, PSLLW, 0xf1) SHIFT2(X, PSLLD, 0xf2) SHIFT2(X, PSLLQ, 0xf3)                       \
	INT2(X, PMULUDQ, 0xf4, SSE2) INT2(X, PMADDWD, 0xf5, MMX) INT2(X, PSADBW, 0xf6, SSE)        \
	X(MASKMOVQ, 1, P0, 0xf7, SSE, NO, NO, 0, REG | MM, 0, .fn = op_simd_maskmovq)              \
	X(MASKMOVDQU, 1, P66, 0xf7, SSE2, AVX, NO, 0, REG, 0, .fn = op_simd_maskmovdqu)            \
	INT2(X, PSUBB, 0xf8, MMX) INT2(X, PSUBW, 0xf9, MMX) INT2(X, PSUBD, 0xfa, MMX)              \
	INT2(X, PSUBQ, 0xfb, SSE2) INT2(X, PADDB, 0xfc, MMX) INT2(X, PADDW, 0xfd, MMX)             \
	INT2(X, PADDD, 0xfe, MMX)

#define ROWS_0F38(X)                                                                               \
	INT2_S3(X, PSHUFB, 0x00, V) INT2_S3(X, PHADDW, 0x01, V) INT2_S3(X, PHADDD, 0x02, V)        \
	INT2_S3(X, PHADDSW, 0x03, V) INT2_S3(X, PMADDUBSW, 0x04, V) INT2_S3(X, PHSUBW, 0x05, V)    \
	INT2_S3(X, PHSUBD, 0x06, V) INT2_S3(X, PHSUBSW, 0x07, V) INT2_S3(X, PSIGNB, 0x08, V)       \
	INT2_S3(X, PSIGNW, 0x09, V) INT2_S3(X, PSIGND, 0x0a, V) INT2_S3(X, PMULHRSW, 0x0b, V)      \
	X(VPERMILPS, 2, P66, 0x0c, NO, AVX, AVX, VL, LD, V | W0)                                   \
	X(VPERMILPD, 2, P66, 0x0d, NO, AVX, AVX, VL, LD, V | W0)                                   \
	X(VTESTPS, 2, P66, 0x0e, NO, AVX, AVX, VL, LD | FLO, W0)                                   \
	X(VTESTPD, 2, P66, 0x0f, NO, AVX, AVX, VL, LD | FLO, W0)                                   \
	X(PBLENDVB, 2, P66, 0x10, SSE41, NO, NO, 16, LD, 0)                                        \
	X(VCVTPH2PS, 2, P66, 0x13, NO, F16C, F16C, HALF, LD, W0)                                   \
	X(BLENDVPS, 2, P66, 0x14, SSE41, NO, NO, 16, LD, 0)                                        \
	X(BLENDVPD, 2, P66, 0x15, SSE41, NO, NO, 16, LD, 0)                                        \
	X(VPERMPS, 2, P66, 0x16, NO, NO, AVX2, VL, LD, V | W0)                                     \
	X(PTEST, 2, P66, 0x17, SSE41, AVX, AVX, VL, LD | FLO, 0)                                   \
	X(VBROADCASTSS, 2, P66, 0x18, NO, AVX, AVX, 4, LD, W0)                                     \
	X(VBROADCASTSD, 2, P66, 0x19, NO, NO, AVX, 8, LD, W0)                                      \
	X(VBROADCASTF128, 2, P66, 0x1a, NO, NO, AVX, 16, LD | MEM, W0)                             \
	INT2_S3(X, PABSB, 0x1c, 0) INT2_S3(X, PABSW, 0x1d, 0) INT2_S3(X, PABSD, 0x1e, 0)           \
	PMOVX(X, PMOVSXBW, 0x20, HALF) PMOVX(X, PMOVSXBD, 0x21, QUARTER) PMOVX(X, PMOVSXBQ, 0x22, EIGHTH) \
	PMOVX(X, PMOVSXWD, 0x23, HALF) PMOVX(X, PMOVSXWQ, 0x24, QUARTER) PMOVX(X, PMOVSXDQ, 0x25, HALF) \
	SSE41_2(X, PMULDQ, 0x28) SSE41_2(X, PCMPEQQ, 0x29)                                         \
	X(MOVNTDQA, 2, P66, 0x2a, SSE41, AVX, AVX2, VL, LD | MEM, 0)                               \
	SSE41_2(X, PACKUSDW, 0x2b)                                                                 \
	X(VMASKMOVPS_L, 2, P66, 0x2c, NO, AVX, AVX, VL, LD | MEM, V | W0, .fn = op_simd_vmaskmov_load) \
	X(VMASKMOVPD_L, 2, P66, 0x2d, NO, AVX, AVX, VL, LD | MEM, V | W0, .fn = op_simd_vmaskmov_load) \
	X(VMASKMOVPS_S, 2, P66, 0x2e, NO, AVX, AVX, VL, ST | MEM, V | W0, .fn = op_simd_vmaskmov_store) \
	X(VMASKMOVPD_S, 2, P66, 0x2f, NO, AVX, AVX, VL, ST | MEM, V | W0, .fn = op_simd_vmaskmov_store) \
	PMOVX(X, PMOVZXBW, 0x30, HALF) PMOVX(X, PMOVZXBD, 0x31, QUARTER) PMOVX(X, PMOVZXBQ, 0x32, EIGHTH) \
	PMOVX(X, PMOVZXWD, 0x33, HALF) PMOVX(X, PMOVZXWQ, 0x34, QUARTER) PMOVX(X, PMOVZXDQ, 0x35, HALF) \
	X(VPERMD, 2, P66, 0x36, NO, NO, AVX2, VL, LD, V | W0)                                      \
	X(PCMPGTQ, 2, P66, 0x37, SSE42, AVX, AVX2, VL, LD, V)                                      \
	SSE41_2(X, PMINSB, 0x38) SSE41_2(X, PMINSD, 0x39) SSE41_2(X, PMINUW, 0x3a)                 \
	SSE41_2(X, PMINUD, 0x3b) SSE41_2(X, PMAXSB, 0x3c) SSE41_2(X, PMAXSD, 0x3d)                 \
	SSE41_2(X, PMAXUW, 0x3e) SSE41_2(X, PMAXUD, 0x3f) SSE41_2(X, PMULLD, 0x40)                 \
	X(PHMINPOSUW, 2, P66, 0x41, SSE41, AVX, NO, 16, LD, 0)                                     \
	X(VPSRLV, 2, P66, 0x45, NO, AVX2, AVX2, VL, LD, V)                                         \
	X(VPSRAVD, 2, P66, 0x46, NO, AVX2, AVX2, VL, LD, V | W0)                                   \
	X(VPSLLV, 2, P66, 0x47, NO, AVX2, AVX2, VL, LD, V)                                         \
	X(VPDPBUSD, 2, P66, 0x50, NO, VNNI, VNNI, VL, LD, V | W0)                                  \
	X(VPDPBUSDS, 2, P66, 0x51, NO, VNNI, VNNI, VL, LD, V | W0)                                 \
	X(VPDPWSSD, 2, P66, 0x52, NO, VNNI, VNNI, VL, LD, V | W0)                                  \
	X(VPDPWSSDS, 2, P66, 0x53, NO, VNNI, VNNI, VL, LD, V | W0)                                 \
	X(VPBROADCASTD, 2, P66, 0x58, NO, AVX2, AVX2, 4, LD, W0)                                   \
	X(VPBROADCASTQ, 2, P66, 0x59, NO, AVX2, AVX2, 8, LD, W0)                                   \
	X(VBROADCASTI128, 2, P66, 0x5a, NO, NO, AVX2, 16, LD | MEM, W0)                            \
	X(VPBROADCASTB, 2, P66, 0x78, NO, AVX2, AVX2, 1, LD, W0)                                   \
	X(VPBROADCASTW, 2, P66, 0x79, NO, AVX2, AVX2, 2, LD, W0)                                   \
	X(VPMASKMOV_L, 2, P66, 0x8c, NO, AVX2, AVX2, VL, LD | MEM, V, .fn = op_simd_vmaskmov_load) \
	X(VPMASKMOV_S, 2, P66, 0x8e, NO, AVX2, AVX2, VL, ST | MEM, V, .fn = op_simd_vmaskmov_store) \
	X(VPGATHERDx, 2, P66, 0x90, NO, AVX2, AVX2, W48, LD | MEM, V | VSIB, .fn = op_simd_gather) \
	X(VPGATHERQx, 2, P66, 0x91, NO, AVX2, AVX2, W48, LD | MEM, V | VSIB, .fn = op_simd_gather) \
	X(VGATHERDPx, 2, P66, 0x92, NO, AVX2, AVX2, W48, LD | MEM, V | VSIB, .fn = op_simd_gather) \
	X(VGATHERQPx, 2, P66, 0x93, NO, AVX2, AVX2, W48, LD | MEM, V | VSIB, .fn = op_simd_gather) \
	FMA_ROUND(X, 132, 0x96) FMA_ROUND(X, 213, 0xa6) FMA_ROUND(X, 231, 0xb6)                    \
	X(SHA1NEXTE, 2, P0, 0xc8, SHA, NO, NO, 16, LD, 0)                                          \
	X(SHA1MSG1, 2, P0, 0xc9, SHA, NO, NO, 16, LD, 0)                                           \
	X(SHA1MSG2, 2, P0, 0xca, SHA, NO, NO, 16, LD, 0)                                           \
	X(SHA256RNDS2, 2, P0, 0xcb, SHA, NO, NO, 16, LD, 0)                                        \
	X(SHA256MSG1, 2, P0, 0xcc, SHA, NO, NO, 16, LD, 0)                                         \
	X(SHA256MSG2, 2, P0, 0xcd, SHA, NO, NO, 16, LD, 0)                                         \
	X(GF2P8MULB, 2, P66, 0xcf, GFNI, GFNI, GFNI, VL, LD, V | W0)                               \
	X(AESIMC, 2, P66, 0xdb, AES, AES, NO, 16, LD, 0)                                           \
	X(AESENC, 2, P66, 0xdc, AES, AES, VAES, VL, LD, V)                                         \
	X(AESENCLAST, 2, P66, 0xdd, AES, AES, VAES, VL, LD, V)                                     \
	X(AESDEC, 2, P66, 0xde, AES, AES, VAES, VL, LD, V)                                         \
	X(AESDECLAST, 2, P66, 0xdf, AES, AES, VAES, VL, LD, V)                                     \
	X(MOVBE_L, 2, P0, 0xf0, MOVBE, NO, NO, OSZ, LD | GREG | MEM, 0, GPR_ROW)                   \
	X(MOVBE_L16, 2, P66, 0xf0, MOVBE, NO, NO, OSZ, LD | GREG | MEM, 0, GPR_ROW)                \
	X(CRC32_8, 2, PF2, 0xf0, SSE42, NO, NO, 1, LD | GREG | GRM, 0, GPR_ROW)                    \
	X(MOVBE_S, 2, P0, 0xf1, MOVBE, NO, NO, OSZ, ST | GREG | MEM, 0, GPR_ROW)                   \
	X(MOVBE_S16, 2, P66, 0xf1, MOVBE, NO, NO, OSZ, ST | GREG | MEM, 0, GPR_ROW)                \
	X(CRC32, 2, PF2, 0xf1, SSE42, NO, NO, OSZ, LD | GREG | GRM, 0, GPR_ROW)                    \
	X(ANDN, 2, P0, 0xf2, NO, BMI1, NO, W48, LD | GREG | GRM | GV | FLO, V, GPR_ROW)            \
	X(BLSx, 2, P0, 0xf3, NO, BMI1, NO, W48, LD | GRM | GV | FLO, V | DIGITS(0x0e), GPR_ROW)    \
	X(BZHI, 2, P0, 0xf5, NO, BMI2, NO, W48, LD | GREG | GRM | GV | FLO, V, GPR_ROW)            \
	X(PEXT, 2, PF3, 0xf5, NO, BMI2, NO, W48, LD | GREG | GRM | GV, V, GPR_ROW)                 \
	X(PDEP, 2, PF2, 0xf5, NO, BMI2, NO, W48, LD | GREG | GRM | GV, V, GPR_ROW)                 \
	X(ADCX, 2, P66, 0xf6, ADX, NO, NO, W48, LD | GREG | GRM | FLO | FLI, 0, GPR_ROW)           \
	X(ADOX, 2, PF3, 0xf6, ADX, NO, NO, W48, LD | GREG | GRM | FLO | FLI, 0, GPR_ROW)           \
	X(MULX, 2, PF2, 0xf6, NO, BMI2, NO, W48, LD | GREG | GRM | GV | AXDX, V, GPR_ROW)          \
	X(BEXTR, 2, P0, 0xf7, NO, BMI1, NO, W48, LD | GREG | GRM | GV | FLO, V, GPR_ROW)           \
	X(SHLX, 2, P66, 0xf7, NO, BMI2, NO, W48, LD | GREG | GRM | GV, V, GPR_ROW)                 \
	X(SARX, 2, PF3, 0xf7, NO, BMI2, NO, W48, LD | GREG | GRM | GV, V, GPR_ROW)                 \
	X(SHRX, 2, PF2, 0xf7, NO, BMI2, NO, W48, LD | GREG | GRM | GV, V, GPR_ROW)

#define ROWS_0F3A(X)                                                                               \
	X(VPERMQ, 3, P66, 0x00, NO, NO, AVX2, VL, LD | I8, W1)                                     \
	X(VPERMPD, 3, P66, 0x01, NO, NO, AVX2, VL, LD | I8, W1)                                    \
	X(VPBLENDD, 3, P66, 0x02, NO, AVX2, AVX2, VL, LD | I8, V | W0)                             \
	X(VPERMILPS_I, 3, P66, 0x04, NO, AVX, AVX, VL, LD | I8, W0)                                \
	X(VPERMILPD_I, 3, P66, 0x05, NO, AVX, AVX, VL, LD | I8, W0)                                \
	X(VPERM2F128, 3, P66, 0x06, NO, NO, AVX, VL, LD | I8, V | W0)                              \
	X(ROUNDPS, 3, P66, 0x08, SSE41, AVX, AVX, VL, LD | I8, 0)                                  \
	X(ROUNDPD, 3, P66, 0x09, SSE41, AVX, AVX, VL, LD | I8, 0)                                  \
	X(ROUNDSS, 3, P66, 0x0a, SSE41, AVX, AVX, 4, LD | I8, V)                                   \
	X(ROUNDSD, 3, P66, 0x0b, SSE41, AVX, AVX, 8, LD | I8, V)                                   \
	X(BLENDPS, 3, P66, 0x0c, SSE41, AVX, AVX, VL, LD | I8, V)                                  \
	X(BLENDPD, 3, P66, 0x0d, SSE41, AVX, AVX, VL, LD | I8, V)                                  \
	X(PBLENDW, 3, P66, 0x0e, SSE41, AVX, AVX2, VL, LD | I8, V)                                 \
	X(PALIGNR_mm, 3, P0, 0x0f, SSSE3, NO, NO, 8, LD | I8 | MM, 0)                              \
	X(PALIGNR, 3, P66, 0x0f, SSSE3, AVX, AVX2, VL, LD | I8, V)                                 \
	X(PEXTRB, 3, P66, 0x14, SSE41, AVX, NO, 1, ST | GRM | I8, 0)                               \
	X(PEXTRW_M, 3, P66, 0x15, SSE41, AVX, NO, 2, ST | GRM | I8, 0)                             \
	X(PEXTRDQ, 3, P66, 0x16, SSE41, AVX, NO, W48, ST | GRM | I8, 0)                            \
	X(EXTRACTPS, 3, P66, 0x17, SSE41, AVX, NO, 4, ST | GRM | I8, 0)                            \
	X(VINSERTF128, 3, P66, 0x18, NO, NO, AVX, 16, LD | I8, V | W0)                             \
	X(VEXTRACTF128, 3, P66, 0x19, NO, NO, AVX, 16, ST | I8, W0)                                \
	X(VCVTPS2PH, 3, P66, 0x1d, NO, F16C, F16C, HALF, ST | I8, W0)                              \
	X(PINSRB, 3, P66, 0x20, SSE41, AVX, NO, 1, LD | GRM | I8, V)                               \
	X(INSERTPS, 3, P66, 0x21, SSE41, AVX, NO, 4, LD | I8, V)                                   \
	X(PINSRDQ, 3, P66, 0x22, SSE41, AVX, NO, W48, LD | GRM | I8, V)                            \
	X(VINSERTI128, 3, P66, 0x38, NO, NO, AVX2, 16, LD | I8, V | W0)                            \
	X(VEXTRACTI128, 3, P66, 0x39, NO, NO, AVX2, 16, ST | I8, W0)                               \
	X(DPPS, 3, P66, 0x40, SSE41, AVX, AVX, VL, LD | I8, V)                                     \
	X(DPPD, 3, P66, 0x41, SSE41, AVX, NO, 16, LD | I8, V)                                      \
	X(MPSADBW, 3, P66, 0x42, SSE41, AVX, AVX2, VL, LD | I8, V)                                 \
	X(PCLMULQDQ_, 3, P66, 0x44, CLMUL, CLMUL, VCLMUL, VL, LD | I8, V)                          \
	X(VPERM2I128, 3, P66, 0x46, NO, NO, AVX2, VL, LD | I8, V | W0)                             \
	X(VBLENDVPS, 3, P66, 0x4a, NO, AVX, AVX, VL, LD | I8, V | W0)                              \
	X(VBLENDVPD, 3, P66, 0x4b, NO, AVX, AVX, VL, LD | I8, V | W0)                              \
	X(VPBLENDVB, 3, P66, 0x4c, NO, AVX, AVX2, VL, LD | I8, V | W0)                             \
	X(PCMPESTRM, 3, P66, 0x60, SSE42, AVX, NO, 16, LD | I8 | AXDX | FLO, 0)                    \
	X(PCMPESTRI, 3, P66, 0x61, SSE42, AVX, NO, 16, LD | I8 | AXDX | CX | FLO, 0)               \
	X(PCMPISTRM, 3, P66, 0x62, SSE42, AVX, NO, 16, LD | I8 | FLO, 0)                           \
	X(PCMPISTRI, 3, P66, 0x63, SSE42, AVX, NO, 16, LD | I8 | CX | FLO, 0)                      \
	X(SHA1RNDS4, 3, P0, 0xcc, SHA, NO, NO, 16, LD | I8, 0)                                     \
	X(GF2P8AFFINEQB, 3, P66, 0xce, GFNI, GFNI, GFNI, VL, LD | I8, V | W1)                      \
	X(GF2P8AFFINEINVQB, 3, P66, 0xcf, GFNI, GFNI, GFNI, VL, LD | I8, V | W1)                   \
	X(AESKEYGENASSIST, 3, P66, 0xdf, AES, AES, NO, 16, LD | I8, 0)                             \
	X(RORX, 3, PF2, 0xf0, NO, BMI2, NO, W48, LD | GREG | GRM | I8, 0, GPR_ROW)

#define ROWS(X) ROWS_0F(X) ROWS_0F38(X) ROWS_0F3A(X)

enum row_id {
	ROW_NONE,
#define ROW_ID(name, ...) ROW_##name,
	ROWS(ROW_ID)
#undef ROW_ID
};

struct simd_entry {
	struct native_row row[3]; /* legacy, VEX.128, VEX.256 */
	u16 rules;
};

#define FORM(feature_, msz_, flags_, ...)                                                          \
	{ .msz = (msz_), .flags = (u16)((feature_) == NO ? 0 : NR_VALID | (flags_)),               \
	  .feature = (feature_) == NO ? 0 : (feature_), __VA_ARGS__ }
#define ENTRY(name, map, pp, op, legacy, v128, v256, msz, flags, rules_, ...)                      \
	[ROW_##name] = { .row = { FORM(legacy, msz, flags, __VA_ARGS__), FORM(v128, msz, flags, __VA_ARGS__), \
				  FORM(v256, msz, flags, __VA_ARGS__) }, .rules = (rules_) },
static const struct simd_entry entries[] = { ROWS(ENTRY) };

#define INDEX(name, map, pp, op, ...) [map - 1][pp][op] = ROW_##name,
static const u16 index_of[3][NR_PP][256] = { ROWS(INDEX) };
/* clang-format on */

/* VBROADCASTSS and SD came with AVX from memory, with AVX2 from a register. */
static const struct native_row broadcast_reg = { .flags = NR_VALID | NR_LOAD, .feature = X86_FEATURE_AVX2 };
/* VLDMXCSR, VSTMXCSR: in group 15, which is the integer tables' otherwise. */
static const struct native_row vldmxcsr = {
	.msz = 4, .flags = NR_VALID | NR_LOAD | NR_MEM_ONLY, .feature = X86_FEATURE_AVX, .fn = op_ldmxcsr
};
static const struct native_row vstmxcsr = {
	.msz = 4, .flags = NR_VALID | NR_STORE | NR_MEM_ONLY, .feature = X86_FEATURE_AVX, .fn = op_stmxcsr
};

/* VZEROUPPER, VZEROALL: where EMMS is without VEX. */
static const struct native_row vzero = { .flags = NR_VALID, .feature = X86_FEATURE_AVX, .fn = op_simd_vzero };

static enum mandatory mandatory_prefix(const struct insn *i)
{
	return i->pfx & PFX_F3 ? PF3 : i->pfx & PFX_F2 ? PF2 : i->pfx & PFX_66 ? P66 : P0;
}

static const struct native_row *vex_group15(const struct insn *i)
{
	unsigned digit = i->modrm >> 3 & 7;

	if (i->pfx & (PFX_66 | PFX_F3 | PFX_F2 | PFX_VEX_L) || i->vvvv || i->modrm >= 0xc0)
		return NULL;
	return digit == 2 ? &vldmxcsr : digit == 3 ? &vstmxcsr : NULL;
}

const struct native_row *simd_row(const struct insn *i)
{
	bool vex = i->pfx & PFX_VEX, mem = i->modrm < 0xc0;
	const struct native_row *row;
	const struct simd_entry *e;
	unsigned rules;

	if (i->map < 1 || i->map > 3 || i->pfx & PFX_LOCK)
		return NULL;
	if (i->evex)
		return evex_row(i);
	if (vex && i->map == 1 && i->opcode == 0xae)
		return vex_group15(i);
	if (vex && i->map == 1 && i->opcode == 0x77)
		return i->pfx & (PFX_66 | PFX_F3 | PFX_F2) || i->vvvv ? NULL : &vzero;
	e = &entries[index_of[i->map - 1][mandatory_prefix(i)][i->opcode]];
	row = &e->row[!vex ? 0 : i->pfx & PFX_VEX_L ? 2 : 1];
	rules = e->rules;
	if (!(row->flags & NR_VALID))
		return vex ? evex_opmask_row(i) : NULL;
	if (row->flags & (mem ? NR_REG_ONLY : NR_MEM_ONLY))
		return NULL;
	if (rules >> 8 && !(rules >> 8 >> (i->modrm >> 3 & 7) & 1))
		return NULL;
	if (!vex)
		return row;
	if (i->vvvv && !(rules & V) && !(rules & VR && !mem))
		return NULL;
	if (rules & (i->rex & REX_W ? W0 : W1))
		return NULL;
	if (rules & VSIB && (i->modrm & 7) != 4)
		return NULL;
	if (!mem && (e == &entries[ROW_VBROADCASTSS] || e == &entries[ROW_VBROADCASTSD]))
		return &broadcast_reg;
	return row;
}

bool simd_aligned(const struct insn *i, bool amd)
{
	enum mandatory pp = mandatory_prefix(i);

	if (i->pfx & PFX_VEX) {
		/* Only the moves that say so. */
		if (i->map == 2)
			return i->opcode == 0x2a;
		return i->map == 1 && !(i->evex & EVEX_B) &&
		       (i->opcode == 0x28 || i->opcode == 0x29 || i->opcode == 0x2b || i->opcode == 0xe7 ||
			(pp == P66 && (i->opcode == 0x6f || i->opcode == 0x7f)));
	}
	if (i->msz != 16 || (amd && i->map >= 2 && pp == P0))
		return false;
	if (i->map == 3)
		return i->opcode < 0x60 || i->opcode > 0x63;
	return !(i->map == 1 && (i->opcode == 0x10 || i->opcode == 0x11 || i->opcode == 0xf0 ||
				 (pp == PF3 && (i->opcode == 0x6f || i->opcode == 0x7f))));
}
