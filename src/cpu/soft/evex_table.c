/* AVX-512: the instructions with an EVEX prefix, and those of mask registers, as rows [SDM2 2.7, the
 * instructions' own pages].
 *
 * One line of ROWS is one opcode under one mandatory prefix and EVEX.W: the feature it needs, the size of its
 * memory operand and which way that goes, general registers, flags, and what of EVEX's fields it knows. The
 * length is L'L's, all three unless the line says otherwise; with 128 or 256 bits AVX512VL is needed too, but
 * for scalars and what exists with 128 bits only. What a line does not say the host's processor knows.
 *
 * A mask spares masked-off elements of a memory operand, faults included, except where the line says
 * ALL: there the whole operand is accessed.
 *
 * Called by the decoder and the translator. Tables only; no state.
 */
#include "cpu/soft/fpu.h"
#include "cpu/soft/ops.h"
#include "cpu/soft/simd.h"
#include "x86/cpuid.h"

/* clang-format off */
enum mandatory { P0, P66, PF3, PF2, NR_PP };

enum {
	F = X86_FEATURE_AVX512F, BW = X86_FEATURE_AVX512BW, DQ = X86_FEATURE_AVX512DQ, CD = X86_FEATURE_AVX512CD,
	IFMA = X86_FEATURE_AVX512IFMA, VBMI = X86_FEATURE_AVX512_VBMI, VBMI2 = X86_FEATURE_AVX512_VBMI2,
	VNNI = X86_FEATURE_AVX512_VNNI, BITALG = X86_FEATURE_AVX512_BITALG,
	VPOPCNT = X86_FEATURE_AVX512_VPOPCNTDQ, VP2I = X86_FEATURE_AVX512_VP2INTERSECT,
	BF16 = X86_FEATURE_AVX512_BF16, GFNI = X86_FEATURE_GFNI, VAES = X86_FEATURE_VAES,
	VCLMUL = X86_FEATURE_VPCLMULQDQ,
};

/* Operand sizes, flags and EV_*, short. */
enum {
	VL = NR_VL, HALF = NR_HALF_VL, QUARTER = NR_QUARTER_VL, EIGHTH = NR_EIGHTH_VL, W48 = NR_W, DDUP = NR_DDUP,
	LD = NR_LOAD, ST = NR_STORE, I8 = NR_IMM8, GREG = NR_GPR_REG, GRM = NR_GPR_RM, FLO = NR_FLAGS_OUT,
	MEM = NR_MEM_ONLY, REG = NR_REG_ONLY,
	E1 = 0, E2 = 1, E4 = 2, E8 = 3, /* bytes that a bit of the mask stands for */
	V = EV_V, VR = EV_V_REG, M = EV_MASK, MZ = EV_MASK | EV_ZERO, MUST = EV_MASK_MUST, BC = EV_BROADCAST,
	ER = EV_ROUND, SAE = EV_SAE, SC = EV_SCALAR, L128 = EV_L128, L256 = EV_L256_UP, L512 = EV_L512,
	ALL = EV_ALL, TUP = EV_TUPLE, PACK = EV_PACKED, VSIB = EV_VSIB, K = EV_K_REG, KRM = EV_K_RM,
};
#define DIGITS EV_DIGITS

/* Two rows that differ in W and the size of their elements. */
#define BY_DQ(X, name, map, pp, op, f, msz, flags, ev)                                             \
	X(name##_W0, map, pp, W0, op, f, msz, flags, E4 | (ev))                                    \
	X(name##_W1, map, pp, W1, op, f, msz, flags, E8 | (ev))
#define BY_BW(X, name, map, pp, op, f, msz, flags, ev)                                             \
	X(name##_W0, map, pp, W0, op, f, msz, flags, E1 | (ev))                                    \
	X(name##_W1, map, pp, W1, op, f, msz, flags, E2 | (ev))
#define SCALAR(X, name, map, op, f, flags, ev)                                                     \
	X(name##S, map, P66, W0, op, f, 4, flags, SC | (ev))                                       \
	X(name##D, map, P66, W1, op, f, 8, flags, SC | (ev))
/* The same of map 0F, where the mandatory prefix differs as well. */
#define PSD(X, name, op, f, msz, flags, ev)                                                        \
	X(name##S, 1, P0, W0, op, f, msz, flags, E4 | (ev))                                        \
	X(name##D, 1, P66, W1, op, f, msz, flags, E8 | (ev))
#define SSD(X, name, op, flags, ev)                                                                \
	X(name##S, 1, PF3, W0, op, F, 4, flags, SC | (ev))                                         \
	X(name##D, 1, PF2, W1, op, F, 8, flags, SC | (ev))

/* X(name, map, prefix, W, opcode, feature, memory size, flags, EVEX rules, more fields of the row) */
#define ROWS_0F(X)                                                                                 \
	PSD(X, VMOVUP, 0x10, F, VL, LD, MZ) PSD(X, VMOVUP_S, 0x11, F, VL, ST, MZ)                  \
	X(VMOVLPS, 1, P0, W0, 0x12, F, 8, LD, V | L128) PSD(X, VMOVLP_S, 0x13, F, 8, ST | MEM, L128) \
	PSD(X, VUNPCKLP, 0x14, F, VL, LD, V | MZ | BC | ALL)                                       \
	PSD(X, VUNPCKHP, 0x15, F, VL, LD, V | MZ | BC | ALL)                                       \
	X(VMOVHPS, 1, P0, W0, 0x16, F, 8, LD, V | L128) PSD(X, VMOVHP_S, 0x17, F, 8, ST | MEM, L128) \
	PSD(X, VMOVAP, 0x28, F, VL, LD, MZ) PSD(X, VMOVAP_S, 0x29, F, VL, ST, MZ)                  \
	PSD(X, VMOVNTP_S, 0x2b, F, VL, ST | MEM, 0)                                                \
	X(VUCOMISS, 1, P0, W0, 0x2e, F, 4, LD | FLO, SAE | SC)                                     \
	X(VCOMISS, 1, P0, W0, 0x2f, F, 4, LD | FLO, SAE | SC)                                      \
	PSD(X, VSQRTP, 0x51, F, VL, LD, MZ | BC | ER) PSD(X, VANDP, 0x54, DQ, VL, LD, V | MZ | BC) \
	PSD(X, VANDNP, 0x55, DQ, VL, LD, V | MZ | BC) PSD(X, VORP, 0x56, DQ, VL, LD, V | MZ | BC)  \
	PSD(X, VXORP, 0x57, DQ, VL, LD, V | MZ | BC) PSD(X, VADDP, 0x58, F, VL, LD, V | MZ | BC | ER) \
	PSD(X, VMULP, 0x59, F, VL, LD, V | MZ | BC | ER)                                           \
	X(VCVTPS2PD, 1, P0, W0, 0x5a, F, HALF, LD, E8 | MZ | BC | SAE)                             \
	X(VCVTDQ2PS, 1, P0, W0, 0x5b, F, VL, LD, E4 | MZ | BC | ER)                                \
	X(VCVTQQ2PS, 1, P0, W1, 0x5b, DQ, VL, LD, E8 | MZ | BC | ER)                               \
	PSD(X, VSUBP, 0x5c, F, VL, LD, V | MZ | BC | ER)                                           \
	PSD(X, VMINP, 0x5d, F, VL, LD, V | MZ | BC | SAE)                                          \
	PSD(X, VDIVP, 0x5e, F, VL, LD, V | MZ | BC | ER)                                           \
	PSD(X, VMAXP, 0x5f, F, VL, LD, V | MZ | BC | SAE)                                          \
	BY_DQ(X, VCVTTPx2UDQ, 1, P0, 0x78, F, VL, LD, MZ | BC | SAE)                               \
	BY_DQ(X, VCVTPx2UDQ, 1, P0, 0x79, F, VL, LD, MZ | BC | ER)                                 \
	PSD(X, VCMPP, 0xc2, F, VL, LD | I8, V | M | BC | SAE | K)                                  \
	PSD(X, VSHUFP, 0xc6, F, VL, LD | I8, V | MZ | BC | ALL)                                    \
	X(VMOVLPD, 1, P66, W1, 0x12, F, 8, LD | MEM, V | L128)                                     \
	X(VMOVHPD, 1, P66, W1, 0x16, F, 8, LD | MEM, V | L128)                                     \
	X(VUCOMISD, 1, P66, W1, 0x2e, F, 8, LD | FLO, SAE | SC)                                    \
	X(VCOMISD, 1, P66, W1, 0x2f, F, 8, LD | FLO, SAE | SC)                                     \
	X(VCVTPD2PS, 1, P66, W1, 0x5a, F, VL, LD, E8 | MZ | BC | ER)                               \
	X(VCVTPS2DQ, 1, P66, W0, 0x5b, F, VL, LD, E4 | MZ | BC | ER)                               \
	X(VPUNPCKLBW, 1, P66, WIG, 0x60, BW, VL, LD, E1 | V | MZ | ALL)                            \
	X(VPUNPCKLWD, 1, P66, WIG, 0x61, BW, VL, LD, E2 | V | MZ | ALL)                            \
	X(VPUNPCKLDQ, 1, P66, W0, 0x62, F, VL, LD, E4 | V | MZ | BC | ALL)                         \
	X(VPACKSSWB, 1, P66, WIG, 0x63, BW, VL, LD, E1 | V | MZ | ALL)                             \
	X(VPCMPGTB, 1, P66, WIG, 0x64, BW, VL, LD, E1 | V | M | K)                                 \
	X(VPCMPGTW, 1, P66, WIG, 0x65, BW, VL, LD, E2 | V | M | K)                                 \
	X(VPCMPGTD, 1, P66, W0, 0x66, F, VL, LD, E4 | V | M | BC | K)                              \
	X(VPACKUSWB, 1, P66, WIG, 0x67, BW, VL, LD, E1 | V | MZ | ALL)                             \
	X(VPUNPCKHBW, 1, P66, WIG, 0x68, BW, VL, LD, E1 | V | MZ | ALL)                            \
	X(VPUNPCKHWD, 1, P66, WIG, 0x69, BW, VL, LD, E2 | V | MZ | ALL)                            \
	X(VPUNPCKHDQ, 1, P66, W0, 0x6a, F, VL, LD, E4 | V | MZ | BC | ALL)                         \
	X(VPACKSSDW, 1, P66, W0, 0x6b, BW, VL, LD, E2 | V | MZ | BC | ALL)                         \
	X(VPUNPCKLQDQ, 1, P66, W1, 0x6c, F, VL, LD, E8 | V | MZ | BC | ALL)                        \
	X(VPUNPCKHQDQ, 1, P66, W1, 0x6d, F, VL, LD, E8 | V | MZ | BC | ALL)                        \
	X(VMOVx, 1, P66, WIG, 0x6e, F, W48, LD | GRM, L128) BY_DQ(X, VMOVDQA, 1, P66, 0x6f, F, VL, LD, MZ) \
	X(VPSHUFD, 1, P66, W0, 0x70, F, VL, LD | I8, E4 | MZ | BC | ALL)                           \
	X(VPSxxW_I, 1, P66, WIG, 0x71, BW, VL, LD | I8, E2 | V | MZ | DIGITS(0x54))                \
	X(VPSxxD_I, 1, P66, W0, 0x72, F, VL, LD | I8, E4 | V | MZ | BC | DIGITS(0x57))             \
	X(VPSRAQ_I, 1, P66, W1, 0x72, F, VL, LD | I8, E8 | V | MZ | BC | DIGITS(0x13))             \
	X(VPSxxQ_I, 1, P66, W1, 0x73, F, VL, LD | I8, E8 | V | MZ | BC | DIGITS(0x44))             \
	X(VPCMPEQB, 1, P66, WIG, 0x74, BW, VL, LD, E1 | V | M | K)                                 \
	X(VPCMPEQW, 1, P66, WIG, 0x75, BW, VL, LD, E2 | V | M | K)                                 \
	X(VPCMPEQD, 1, P66, W0, 0x76, F, VL, LD, E4 | V | M | BC | K)                              \
	X(VCVTTPS2UQQ, 1, P66, W0, 0x78, DQ, HALF, LD, E8 | MZ | BC | SAE)                         \
	X(VCVTTPD2UQQ, 1, P66, W1, 0x78, DQ, VL, LD, E8 | MZ | BC | SAE)                           \
	X(VCVTPS2UQQ, 1, P66, W0, 0x79, DQ, HALF, LD, E8 | MZ | BC | ER)                           \
	X(VCVTPD2UQQ, 1, P66, W1, 0x79, DQ, VL, LD, E8 | MZ | BC | ER)                             \
	X(VCVTTPS2QQ, 1, P66, W0, 0x7a, DQ, HALF, LD, E8 | MZ | BC | SAE)                          \
	X(VCVTTPD2QQ, 1, P66, W1, 0x7a, DQ, VL, LD, E8 | MZ | BC | SAE)                            \
	X(VCVTPS2QQ, 1, P66, W0, 0x7b, DQ, HALF, LD, E8 | MZ | BC | ER)                            \
	X(VCVTPD2QQ, 1, P66, W1, 0x7b, DQ, VL, LD, E8 | MZ | BC | ER)                              \
	X(VMOVx_S, 1, P66, WIG, 0x7e, F, W48, ST | GRM, L128)                                      \
	BY_DQ(X, VMOVDQA_S, 1, P66, 0x7f, F, VL, ST, MZ)                                           \
	X(VPINSRW, 1, P66, WIG, 0xc4, BW, 2, LD | I8 | GRM, V | L128)                              \
	X(VPEXTRW, 1, P66, WIG, 0xc5, BW, 0, REG | I8 | GREG, L128)                                \
	X(VPSRLW, 1, P66, WIG, 0xd1, BW, 16, LD, E2 | V | MZ | ALL)                                \
	X(VPSRLD, 1, P66, W0, 0xd2, F, 16, LD, E4 | V | MZ | ALL)                                  \
	X(VPSRLQ, 1, P66, W1, 0xd3, F, 16, LD, E8 | V | MZ | ALL)                                  \
	X(VPADDQ, 1, P66, W1, 0xd4, F, VL, LD, E8 | V | MZ | BC)                                   \
	X(VPMULLW, 1, P66, WIG, 0xd5, BW, VL, LD, E2 | V | MZ)                                     \
	X(VMOVQ_S, 1, P66, W1, 0xd6, F, 8, ST, L128)                                               \
	X(VPSUBUSB, 1, P66, WIG, 0xd8, BW, VL, LD, E1 | V | MZ)                                    \
	X(VPSUBUSW, 1, P66, WIG, 0xd9, BW, VL, LD, E2 | V | MZ)                                    \
	X(VPMINUB, 1, P66, WIG, 0xda, BW, VL, LD, E1 | V | MZ)                                     \
	BY_DQ(X, VPAND, 1, P66, 0xdb, F, VL, LD, V | MZ | BC)                                      \
	X(VPADDUSB, 1, P66, WIG, 0xdc, BW, VL, LD, E1 | V | MZ)                                    \
	X(VPADDUSW, 1, P66, WIG, 0xdd, BW, VL, LD, E2 | V | MZ)                                    \
	X(VPMAXUB, 1, P66, WIG, 0xde, BW, VL, LD, E1 | V | MZ)                                     \
	BY_DQ(X, VPANDN, 1, P66, 0xdf, F, VL, LD, V | MZ | BC)                                     \
	X(VPAVGB, 1, P66, WIG, 0xe0, BW, VL, LD, E1 | V | MZ)                                      \
	X(VPSRAW, 1, P66, WIG, 0xe1, BW, 16, LD, E2 | V | MZ | ALL)                                \
	BY_DQ(X, VPSRA, 1, P66, 0xe2, F, 16, LD, V | MZ | ALL)                                     \
	X(VPAVGW, 1, P66, WIG, 0xe3, BW, VL, LD, E2 | V | MZ)                                      \
	X(VPMULHUW, 1, P66, WIG, 0xe4, BW, VL, LD, E2 | V | MZ)                                    \
	X(VPMULHW, 1, P66, WIG, 0xe5, BW, VL, LD, E2 | V | MZ)                                     \
	X(VCVTTPD2DQ, 1, P66, W1, 0xe6, F, VL, LD, E8 | MZ | BC | SAE)                             \
	X(VMOVNTDQ_S, 1, P66, W0, 0xe7, F, VL, ST | MEM, 0)                                        \
	X(VPSUBSB, 1, P66, WIG, 0xe8, BW, VL, LD, E1 | V | MZ)                                     \
	X(VPSUBSW, 1, P66, WIG, 0xe9, BW, VL, LD, E2 | V | MZ)                                     \
	X(VPMINSW, 1, P66, WIG, 0xea, BW, VL, LD, E2 | V | MZ)                                     \
	BY_DQ(X, VPOR, 1, P66, 0xeb, F, VL, LD, V | MZ | BC)                                       \
	X(VPADDSB, 1, P66, WIG, 0xec, BW, VL, LD, E1 | V | MZ)                                     \
	X(VPADDSW, 1, P66, WIG, 0xed, BW, VL, LD, E2 | V | MZ)                                     \
	X(VPMAXSW, 1, P66, WIG, 0xee, BW, VL, LD, E2 | V | MZ)                                     \
	BY_DQ(X, VPXOR, 1, P66, 0xef, F, VL, LD, V | MZ | BC)                                      \
	X(VPSLLW, 1, P66, WIG, 0xf1, BW, 16, LD, E2 | V | MZ | ALL)                                \
	X(VPSLLD, 1, P66, W0, 0xf2, F, 16, LD, E4 | V | MZ | ALL)                                  \
	X(VPSLLQ, 1, P66, W1, 0xf3, F, 16, LD, E8 | V | MZ | ALL)                                  \
	X(VPMULUDQ, 1, P66, W1, 0xf4, F, VL, LD, E8 | V | MZ | BC)                                 \
	X(VPMADDWD, 1, P66, WIG, 0xf5, BW, VL, LD, E4 | V | MZ | ALL)                              \
	X(VPSADBW, 1, P66, WIG, 0xf6, BW, VL, LD, V)                                               \
	X(VPSUBB, 1, P66, WIG, 0xf8, BW, VL, LD, E1 | V | MZ)                                      \
	X(VPSUBW, 1, P66, WIG, 0xf9, BW, VL, LD, E2 | V | MZ)                                      \
	X(VPSUBD, 1, P66, W0, 0xfa, F, VL, LD, E4 | V | MZ | BC)                                   \
	X(VPSUBQ, 1, P66, W1, 0xfb, F, VL, LD, E8 | V | MZ | BC)                                   \
	X(VPADDB, 1, P66, WIG, 0xfc, BW, VL, LD, E1 | V | MZ)                                      \
	X(VPADDW, 1, P66, WIG, 0xfd, BW, VL, LD, E2 | V | MZ)                                      \
	X(VPADDD, 1, P66, W0, 0xfe, F, VL, LD, E4 | V | MZ | BC) SSD(X, VMOVS, 0x10, LD, VR | MZ)  \
	SSD(X, VMOVS_S, 0x11, ST, VR | MZ) X(VMOVSLDUP, 1, PF3, W0, 0x12, F, VL, LD, E4 | MZ | ALL) \
	X(VMOVSHDUP, 1, PF3, W0, 0x16, F, VL, LD, E4 | MZ | ALL)                                   \
	X(VCVTSI2SS, 1, PF3, WIG, 0x2a, F, W48, LD | GRM, V | ER | SC)                             \
	X(VCVTTSS2SI, 1, PF3, WIG, 0x2c, F, 4, LD | GREG, SAE | SC)                                \
	X(VCVTSS2SI, 1, PF3, WIG, 0x2d, F, 4, LD | GREG, ER | SC) SSD(X, VSQRTS, 0x51, LD, V | MZ | ER) \
	SSD(X, VADDS, 0x58, LD, V | MZ | ER) SSD(X, VMULS, 0x59, LD, V | MZ | ER)                  \
	X(VCVTSS2SD, 1, PF3, W0, 0x5a, F, 4, LD, V | MZ | SAE | SC)                                \
	X(VCVTTPS2DQ, 1, PF3, W0, 0x5b, F, VL, LD, E4 | MZ | BC | SAE)                             \
	SSD(X, VSUBS, 0x5c, LD, V | MZ | ER) SSD(X, VMINS, 0x5d, LD, V | MZ | SAE)                 \
	SSD(X, VDIVS, 0x5e, LD, V | MZ | ER) SSD(X, VMAXS, 0x5f, LD, V | MZ | SAE)                 \
	BY_DQ(X, VMOVDQU, 1, PF3, 0x6f, F, VL, LD, MZ)                                             \
	X(VPSHUFHW, 1, PF3, WIG, 0x70, BW, VL, LD | I8, E2 | MZ | ALL)                             \
	X(VCVTTSS2USI, 1, PF3, WIG, 0x78, F, 4, LD | GREG, SAE | SC)                               \
	X(VCVTSS2USI, 1, PF3, WIG, 0x79, F, 4, LD | GREG, ER | SC)                                 \
	X(VCVTUDQ2PD, 1, PF3, W0, 0x7a, F, HALF, LD, E8 | MZ | BC | ER)                            \
	X(VCVTUQQ2PD, 1, PF3, W1, 0x7a, DQ, VL, LD, E8 | MZ | BC | ER)                             \
	X(VCVTUSI2SS, 1, PF3, WIG, 0x7b, F, W48, LD | GRM, V | ER | SC)                            \
	X(VMOVQ, 1, PF3, W1, 0x7e, F, 8, LD, L128) BY_DQ(X, VMOVDQU_S, 1, PF3, 0x7f, F, VL, ST, MZ) \
	SSD(X, VCMPS, 0xc2, LD | I8, V | M | SAE | K)                                              \
	X(VCVTDQ2PD, 1, PF3, W0, 0xe6, F, HALF, LD, E8 | MZ | BC | ER)                             \
	X(VCVTQQ2PD, 1, PF3, W1, 0xe6, DQ, VL, LD, E8 | MZ | BC | ER)                              \
	X(VMOVDDUP, 1, PF2, W1, 0x12, F, DDUP, LD, E8 | MZ | ALL)                                  \
	X(VCVTSI2SD, 1, PF2, WIG, 0x2a, F, W48, LD | GRM, V | ER | SC)                                     \
	X(VCVTTSD2SI, 1, PF2, WIG, 0x2c, F, 8, LD | GREG, SAE | SC)                                \
	X(VCVTSD2SI, 1, PF2, WIG, 0x2d, F, 8, LD | GREG, ER | SC)                                  \
	X(VCVTSD2SS, 1, PF2, W1, 0x5a, F, 8, LD, V | MZ | ER | SC)                                 \
	BY_BW(X, VMOVDQU_BW, 1, PF2, 0x6f, BW, VL, LD, MZ)                                         \
	X(VPSHUFLW, 1, PF2, WIG, 0x70, BW, VL, LD | I8, E2 | MZ | ALL)                             \
	X(VCVTTSD2USI, 1, PF2, WIG, 0x78, F, 8, LD | GREG, SAE | SC)                               \
	X(VCVTSD2USI, 1, PF2, WIG, 0x79, F, 8, LD | GREG, ER | SC)                                 \
	X(VCVTUDQ2PS, 1, PF2, W0, 0x7a, F, VL, LD, E4 | MZ | BC | ER)                              \
	X(VCVTUQQ2PS, 1, PF2, W1, 0x7a, DQ, VL, LD, E8 | MZ | BC | ER)                             \
	X(VCVTUSI2SD, 1, PF2, WIG, 0x7b, F, W48, LD | GRM, V | ER | SC)                                    \
	BY_BW(X, VMOVDQU_BW_S, 1, PF2, 0x7f, BW, VL, ST, MZ)                                       \
	X(VCVTPD2DQ, 1, PF2, W1, 0xe6, F, VL, LD, E8 | MZ | BC | ER)

#define ROWS_0F38(X)                                                                               \
	X(VPSHUFB, 2, P66, WIG, 0x00, BW, VL, LD, E1 | V | MZ | ALL)                               \
	X(VPMADDUBSW, 2, P66, WIG, 0x04, BW, VL, LD, E2 | V | MZ | ALL)                            \
	X(VPMULHRSW, 2, P66, WIG, 0x0b, BW, VL, LD, E2 | V | MZ)                                   \
	X(VPERMILPS, 2, P66, W0, 0x0c, F, VL, LD, E4 | V | MZ | BC | ALL)                          \
	X(VPERMILPD, 2, P66, W1, 0x0d, F, VL, LD, E8 | V | MZ | BC | ALL)                          \
	X(VPSRLVW, 2, P66, W1, 0x10, BW, VL, LD, E2 | V | MZ)                                      \
	X(VPSRAVW, 2, P66, W1, 0x11, BW, VL, LD, E2 | V | MZ)                                      \
	X(VPSLLVW, 2, P66, W1, 0x12, BW, VL, LD, E2 | V | MZ)                                      \
	X(VCVTPH2PS, 2, P66, W0, 0x13, F, HALF, LD, E4 | MZ | SAE)                                 \
	BY_DQ(X, VPRORV, 2, P66, 0x14, F, VL, LD, V | MZ | BC)                                     \
	BY_DQ(X, VPROLV, 2, P66, 0x15, F, VL, LD, V | MZ | BC)                                     \
	BY_DQ(X, VPERMP_V, 2, P66, 0x16, F, VL, LD, V | MZ | BC | ALL | L256)                      \
	X(VBROADCASTSS, 2, P66, W0, 0x18, F, 4, LD, E4 | MZ | TUP)                                 \
	X(VBROADCASTF32X2, 2, P66, W0, 0x19, DQ, 8, LD, E4 | MZ | L256 | TUP)                      \
	X(VBROADCASTSD, 2, P66, W1, 0x19, F, 8, LD, E8 | MZ | L256 | TUP)                          \
	X(VBROADCASTF32X4, 2, P66, W0, 0x1a, F, 16, LD | MEM, E4 | MZ | L256 | TUP)                \
	X(VBROADCASTF64X2, 2, P66, W1, 0x1a, DQ, 16, LD | MEM, E8 | MZ | L256 | TUP)               \
	X(VBROADCASTF32X8, 2, P66, W0, 0x1b, DQ, 32, LD | MEM, E4 | MZ | L512 | TUP)               \
	X(VBROADCASTF64X4, 2, P66, W1, 0x1b, F, 32, LD | MEM, E8 | MZ | L512 | TUP)                \
	X(VPABSB, 2, P66, WIG, 0x1c, BW, VL, LD, E1 | MZ)                                          \
	X(VPABSW, 2, P66, WIG, 0x1d, BW, VL, LD, E2 | MZ)                                          \
	X(VPABSD, 2, P66, W0, 0x1e, F, VL, LD, E4 | MZ | BC)                                       \
	X(VPABSQ, 2, P66, W1, 0x1f, F, VL, LD, E8 | MZ | BC)                                       \
	X(VPMOVSXBW, 2, P66, WIG, 0x20, BW, HALF, LD, E2 | MZ)                                     \
	X(VPMOVSXBD, 2, P66, WIG, 0x21, F, QUARTER, LD, E4 | MZ)                                   \
	X(VPMOVSXBQ, 2, P66, WIG, 0x22, F, EIGHTH, LD, E8 | MZ)                                    \
	X(VPMOVSXWD, 2, P66, WIG, 0x23, F, HALF, LD, E4 | MZ)                                      \
	X(VPMOVSXWQ, 2, P66, WIG, 0x24, F, QUARTER, LD, E8 | MZ)                                   \
	X(VPMOVSXDQ, 2, P66, W0, 0x25, F, HALF, LD, E8 | MZ)                                       \
	BY_BW(X, VPTESTM, 2, P66, 0x26, BW, VL, LD, V | M | K)                                     \
	BY_DQ(X, VPTESTM_DQ, 2, P66, 0x27, F, VL, LD, V | M | BC | K)                              \
	X(VPMULDQ, 2, P66, W1, 0x28, F, VL, LD, E8 | V | MZ | BC)                                  \
	X(VPCMPEQQ, 2, P66, W1, 0x29, F, VL, LD, E8 | V | M | BC | K)                              \
	X(VMOVNTDQA, 2, P66, W0, 0x2a, F, VL, LD | MEM, 0)                                         \
	X(VPACKUSDW, 2, P66, W0, 0x2b, BW, VL, LD, E2 | V | MZ | BC | ALL)                         \
	BY_DQ(X, VSCALEFP, 2, P66, 0x2c, F, VL, LD, V | MZ | BC | ER)                              \
	SCALAR(X, VSCALEFS, 2, 0x2d, F, LD, V | MZ | ER)                                           \
	X(VPMOVZXBW, 2, P66, WIG, 0x30, BW, HALF, LD, E2 | MZ)                                     \
	X(VPMOVZXBD, 2, P66, WIG, 0x31, F, QUARTER, LD, E4 | MZ)                                   \
	X(VPMOVZXBQ, 2, P66, WIG, 0x32, F, EIGHTH, LD, E8 | MZ)                                    \
	X(VPMOVZXWD, 2, P66, WIG, 0x33, F, HALF, LD, E4 | MZ)                                      \
	X(VPMOVZXWQ, 2, P66, WIG, 0x34, F, QUARTER, LD, E8 | MZ)                                   \
	X(VPMOVZXDQ, 2, P66, W0, 0x35, F, HALF, LD, E8 | MZ)                                       \
	BY_DQ(X, VPERM_V, 2, P66, 0x36, F, VL, LD, V | MZ | BC | ALL | L256)                       \
	X(VPCMPGTQ, 2, P66, W1, 0x37, F, VL, LD, E8 | V | M | BC | K)                              \
	X(VPMINSB, 2, P66, WIG, 0x38, BW, VL, LD, E1 | V | MZ)                                     \
	BY_DQ(X, VPMINS, 2, P66, 0x39, F, VL, LD, V | MZ | BC)                                     \
	X(VPMINUW, 2, P66, WIG, 0x3a, BW, VL, LD, E2 | V | MZ)                                     \
	BY_DQ(X, VPMINU, 2, P66, 0x3b, F, VL, LD, V | MZ | BC)                                     \
	X(VPMAXSB, 2, P66, WIG, 0x3c, BW, VL, LD, E1 | V | MZ)                                     \
	BY_DQ(X, VPMAXS, 2, P66, 0x3d, F, VL, LD, V | MZ | BC)                                     \
	X(VPMAXUW, 2, P66, WIG, 0x3e, BW, VL, LD, E2 | V | MZ)                                     \
	BY_DQ(X, VPMAXU, 2, P66, 0x3f, F, VL, LD, V | MZ | BC)                                     \
	X(VPMULLD, 2, P66, W0, 0x40, F, VL, LD, E4 | V | MZ | BC)                                  \
	X(VPMULLQ, 2, P66, W1, 0x40, DQ, VL, LD, E8 | V | MZ | BC)                                 \
	BY_DQ(X, VGETEXPP, 2, P66, 0x42, F, VL, LD, MZ | BC | SAE)                                 \
	SCALAR(X, VGETEXPS, 2, 0x43, F, LD, V | MZ | SAE)                                          \
	BY_DQ(X, VPLZCNT, 2, P66, 0x44, CD, VL, LD, MZ | BC)                                       \
	BY_DQ(X, VPSRLV, 2, P66, 0x45, F, VL, LD, V | MZ | BC)                                     \
	BY_DQ(X, VPSRAV, 2, P66, 0x46, F, VL, LD, V | MZ | BC)                                     \
	BY_DQ(X, VPSLLV, 2, P66, 0x47, F, VL, LD, V | MZ | BC)                                     \
	BY_DQ(X, VRCP14P, 2, P66, 0x4c, F, VL, LD, MZ | BC) SCALAR(X, VRCP14S, 2, 0x4d, F, LD, V | MZ) \
	BY_DQ(X, VRSQRT14P, 2, P66, 0x4e, F, VL, LD, MZ | BC) SCALAR(X, VRSQRT14S, 2, 0x4f, F, LD, V | MZ) \
	X(VPDPBUSD, 2, P66, W0, 0x50, VNNI, VL, LD, E4 | V | MZ | BC)                              \
	X(VPDPBUSDS, 2, P66, W0, 0x51, VNNI, VL, LD, E4 | V | MZ | BC)                             \
	X(VPDPWSSD, 2, P66, W0, 0x52, VNNI, VL, LD, E4 | V | MZ | BC)                              \
	X(VPDPWSSDS, 2, P66, W0, 0x53, VNNI, VL, LD, E4 | V | MZ | BC)                             \
	BY_BW(X, VPOPCNT, 2, P66, 0x54, BITALG, VL, LD, MZ)                                        \
	BY_DQ(X, VPOPCNT_DQ, 2, P66, 0x55, VPOPCNT, VL, LD, MZ | BC)                               \
	X(VPBROADCASTD, 2, P66, W0, 0x58, F, 4, LD, E4 | MZ | TUP)                                 \
	X(VBROADCASTI32X2, 2, P66, W0, 0x59, DQ, 8, LD, E4 | MZ | TUP)                             \
	X(VPBROADCASTQ, 2, P66, W1, 0x59, F, 8, LD, E8 | MZ | TUP)                                 \
	X(VBROADCASTI32X4, 2, P66, W0, 0x5a, F, 16, LD | MEM, E4 | MZ | L256 | TUP)                \
	X(VBROADCASTI64X2, 2, P66, W1, 0x5a, DQ, 16, LD | MEM, E8 | MZ | L256 | TUP)               \
	X(VBROADCASTI32X8, 2, P66, W0, 0x5b, DQ, 32, LD | MEM, E4 | MZ | L512 | TUP)               \
	X(VBROADCASTI64X4, 2, P66, W1, 0x5b, F, 32, LD | MEM, E8 | MZ | L512 | TUP)                \
	BY_BW(X, VPEXPAND, 2, P66, 0x62, VBMI2, VL, LD, MZ | PACK)                                 \
	BY_BW(X, VPCOMPRESS_S, 2, P66, 0x63, VBMI2, VL, ST, MZ | PACK)                             \
	BY_DQ(X, VPBLENDM, 2, P66, 0x64, F, VL, LD, V | MZ | BC)                                   \
	BY_DQ(X, VBLENDMP, 2, P66, 0x65, F, VL, LD, V | MZ | BC)                                   \
	BY_BW(X, VPBLENDM_BW, 2, P66, 0x66, BW, VL, LD, V | MZ)                                    \
	X(VPSHLDVW, 2, P66, W1, 0x70, VBMI2, VL, LD, E2 | V | MZ)                                  \
	BY_DQ(X, VPSHLDV, 2, P66, 0x71, VBMI2, VL, LD, V | MZ | BC)                                \
	X(VPSHRDVW, 2, P66, W1, 0x72, VBMI2, VL, LD, E2 | V | MZ)                                  \
	BY_DQ(X, VPSHRDV, 2, P66, 0x73, VBMI2, VL, LD, V | MZ | BC)                                \
	X(VPERMI2B, 2, P66, W0, 0x75, VBMI, VL, LD, E1 | V | MZ | ALL)                             \
	X(VPERMI2W, 2, P66, W1, 0x75, BW, VL, LD, E2 | V | MZ | ALL)                               \
	BY_DQ(X, VPERMI2, 2, P66, 0x76, F, VL, LD, V | MZ | BC | ALL)                              \
	BY_DQ(X, VPERMI2P, 2, P66, 0x77, F, VL, LD, V | MZ | BC | ALL)                             \
	X(VPBROADCASTB, 2, P66, W0, 0x78, BW, 1, LD, E1 | MZ | TUP)                                \
	X(VPBROADCASTW, 2, P66, W0, 0x79, BW, 2, LD, E2 | MZ | TUP)                                \
	X(VPBROADCASTB_G, 2, P66, W0, 0x7a, BW, 0, REG | GRM, E1 | MZ)                             \
	X(VPBROADCASTW_G, 2, P66, W0, 0x7b, BW, 0, REG | GRM, E2 | MZ)                             \
	BY_DQ(X, VPBROADCAST_G, 2, P66, 0x7c, F, 0, REG | GRM, MZ)                                 \
	X(VPERMT2B, 2, P66, W0, 0x7d, VBMI, VL, LD, E1 | V | MZ | ALL)                             \
	X(VPERMT2W, 2, P66, W1, 0x7d, BW, VL, LD, E2 | V | MZ | ALL)                               \
	BY_DQ(X, VPERMT2, 2, P66, 0x7e, F, VL, LD, V | MZ | BC | ALL)                              \
	BY_DQ(X, VPERMT2P, 2, P66, 0x7f, F, VL, LD, V | MZ | BC | ALL)                             \
	X(VPMULTISHIFTQB, 2, P66, W1, 0x83, VBMI, VL, LD, E1 | V | MZ | BC | ALL)                  \
	BY_DQ(X, VEXPANDP, 2, P66, 0x88, F, VL, LD, MZ | PACK)                                     \
	BY_DQ(X, VPEXPAND_DQ, 2, P66, 0x89, F, VL, LD, MZ | PACK)                                  \
	BY_DQ(X, VCOMPRESSP_S, 2, P66, 0x8a, F, VL, ST, MZ | PACK)                                 \
	BY_DQ(X, VPCOMPRESS_DQ_S, 2, P66, 0x8b, F, VL, ST, MZ | PACK)                              \
	X(VPERMB, 2, P66, W0, 0x8d, VBMI, VL, LD, E1 | V | MZ | ALL)                               \
	X(VPERMW, 2, P66, W1, 0x8d, BW, VL, LD, E2 | V | MZ | ALL)                                 \
	X(VPSHUFBITQMB, 2, P66, W0, 0x8f, BITALG, VL, LD, E1 | V | M | K)                          \
	X(VPGATHERDx, 2, P66, WIG, 0x90, F, W48, LD | MEM, MUST | VSIB, .fn = op_evex_gather)      \
	X(VPGATHERQx, 2, P66, WIG, 0x91, F, W48, LD | MEM, MUST | VSIB, .fn = op_evex_gather)      \
	X(VGATHERDPx, 2, P66, WIG, 0x92, F, W48, LD | MEM, MUST | VSIB, .fn = op_evex_gather)      \
	X(VGATHERQPx, 2, P66, WIG, 0x93, F, W48, LD | MEM, MUST | VSIB, .fn = op_evex_gather)      \
	BY_DQ(X, VFMADDSUB132P, 2, P66, 0x96, F, VL, LD, V | MZ | BC | ER)                         \
	BY_DQ(X, VFMSUBADD132P, 2, P66, 0x97, F, VL, LD, V | MZ | BC | ER)                         \
	BY_DQ(X, VFMADD132P, 2, P66, 0x98, F, VL, LD, V | MZ | BC | ER)                            \
	SCALAR(X, VFMADD132S, 2, 0x99, F, LD, V | MZ | ER)                                         \
	BY_DQ(X, VFMSUB132P, 2, P66, 0x9a, F, VL, LD, V | MZ | BC | ER)                            \
	SCALAR(X, VFMSUB132S, 2, 0x9b, F, LD, V | MZ | ER)                                         \
	BY_DQ(X, VFNMADD132P, 2, P66, 0x9c, F, VL, LD, V | MZ | BC | ER)                           \
	SCALAR(X, VFNMADD132S, 2, 0x9d, F, LD, V | MZ | ER)                                        \
	BY_DQ(X, VFNMSUB132P, 2, P66, 0x9e, F, VL, LD, V | MZ | BC | ER)                           \
	SCALAR(X, VFNMSUB132S, 2, 0x9f, F, LD, V | MZ | ER)                                        \
	X(VPSCATTERDx, 2, P66, WIG, 0xa0, F, W48, ST | MEM, MUST | VSIB, .fn = op_evex_scatter)    \
	X(VPSCATTERQx, 2, P66, WIG, 0xa1, F, W48, ST | MEM, MUST | VSIB, .fn = op_evex_scatter)    \
	X(VSCATTERDPx, 2, P66, WIG, 0xa2, F, W48, ST | MEM, MUST | VSIB, .fn = op_evex_scatter)    \
	X(VSCATTERQPx, 2, P66, WIG, 0xa3, F, W48, ST | MEM, MUST | VSIB, .fn = op_evex_scatter)    \
	BY_DQ(X, VFMADDSUB213P, 2, P66, 0xa6, F, VL, LD, V | MZ | BC | ER)                         \
	BY_DQ(X, VFMSUBADD213P, 2, P66, 0xa7, F, VL, LD, V | MZ | BC | ER)                         \
	BY_DQ(X, VFMADD213P, 2, P66, 0xa8, F, VL, LD, V | MZ | BC | ER)                            \
	SCALAR(X, VFMADD213S, 2, 0xa9, F, LD, V | MZ | ER)                                         \
	BY_DQ(X, VFMSUB213P, 2, P66, 0xaa, F, VL, LD, V | MZ | BC | ER)                            \
	SCALAR(X, VFMSUB213S, 2, 0xab, F, LD, V | MZ | ER)                                         \
	BY_DQ(X, VFNMADD213P, 2, P66, 0xac, F, VL, LD, V | MZ | BC | ER)                           \
	SCALAR(X, VFNMADD213S, 2, 0xad, F, LD, V | MZ | ER)                                        \
	BY_DQ(X, VFNMSUB213P, 2, P66, 0xae, F, VL, LD, V | MZ | BC | ER)                           \
	SCALAR(X, VFNMSUB213S, 2, 0xaf, F, LD, V | MZ | ER)                                        \
	X(VPMADD52LUQ, 2, P66, W1, 0xb4, IFMA, VL, LD, E8 | V | MZ | BC)                           \
	X(VPMADD52HUQ, 2, P66, W1, 0xb5, IFMA, VL, LD, E8 | V | MZ | BC)                           \
	BY_DQ(X, VFMADDSUB231P, 2, P66, 0xb6, F, VL, LD, V | MZ | BC | ER)                         \
	BY_DQ(X, VFMSUBADD231P, 2, P66, 0xb7, F, VL, LD, V | MZ | BC | ER)                         \
	BY_DQ(X, VFMADD231P, 2, P66, 0xb8, F, VL, LD, V | MZ | BC | ER)                            \
	SCALAR(X, VFMADD231S, 2, 0xb9, F, LD, V | MZ | ER)                                         \
	BY_DQ(X, VFMSUB231P, 2, P66, 0xba, F, VL, LD, V | MZ | BC | ER)                            \
	SCALAR(X, VFMSUB231S, 2, 0xbb, F, LD, V | MZ | ER)                                         \
	BY_DQ(X, VFNMADD231P, 2, P66, 0xbc, F, VL, LD, V | MZ | BC | ER)                           \
	SCALAR(X, VFNMADD231S, 2, 0xbd, F, LD, V | MZ | ER)                                        \
	BY_DQ(X, VFNMSUB231P, 2, P66, 0xbe, F, VL, LD, V | MZ | BC | ER)                           \
	SCALAR(X, VFNMSUB231S, 2, 0xbf, F, LD, V | MZ | ER)                                        \
	BY_DQ(X, VPCONFLICT, 2, P66, 0xc4, CD, VL, LD, MZ | BC | ALL)                              \
	X(VGF2P8MULB, 2, P66, W0, 0xcf, GFNI, VL, LD, E1 | V | MZ)                                 \
	X(VAESENC, 2, P66, WIG, 0xdc, VAES, VL, LD, V) X(VAESENCLAST, 2, P66, WIG, 0xdd, VAES, VL, LD, V) \
	X(VAESDEC, 2, P66, WIG, 0xde, VAES, VL, LD, V) X(VAESDECLAST, 2, P66, WIG, 0xdf, VAES, VL, LD, V) \
	X(VPMOVUSWB_S, 2, PF3, W0, 0x10, BW, HALF, ST, E2 | MZ)                                    \
	X(VPMOVUSDB_S, 2, PF3, W0, 0x11, F, QUARTER, ST, E4 | MZ)                                  \
	X(VPMOVUSQB_S, 2, PF3, W0, 0x12, F, EIGHTH, ST, E8 | MZ)                                   \
	X(VPMOVUSDW_S, 2, PF3, W0, 0x13, F, HALF, ST, E4 | MZ)                                     \
	X(VPMOVUSQW_S, 2, PF3, W0, 0x14, F, QUARTER, ST, E8 | MZ)                                  \
	X(VPMOVUSQD_S, 2, PF3, W0, 0x15, F, HALF, ST, E8 | MZ)                                     \
	X(VPMOVSWB_S, 2, PF3, W0, 0x20, BW, HALF, ST, E2 | MZ)                                     \
	X(VPMOVSDB_S, 2, PF3, W0, 0x21, F, QUARTER, ST, E4 | MZ)                                   \
	X(VPMOVSQB_S, 2, PF3, W0, 0x22, F, EIGHTH, ST, E8 | MZ)                                    \
	X(VPMOVSDW_S, 2, PF3, W0, 0x23, F, HALF, ST, E4 | MZ)                                      \
	X(VPMOVSQW_S, 2, PF3, W0, 0x24, F, QUARTER, ST, E8 | MZ)                                   \
	X(VPMOVSQD_S, 2, PF3, W0, 0x25, F, HALF, ST, E8 | MZ)                                      \
	BY_BW(X, VPTESTNM, 2, PF3, 0x26, BW, VL, LD, V | M | K)                                    \
	BY_DQ(X, VPTESTNM_DQ, 2, PF3, 0x27, F, VL, LD, V | M | BC | K)                             \
	X(VPMOVM2B, 2, PF3, W0, 0x28, BW, 0, REG, KRM) X(VPMOVM2W, 2, PF3, W1, 0x28, BW, 0, REG, KRM) \
	X(VPMOVB2M, 2, PF3, W0, 0x29, BW, 0, REG, K) X(VPMOVW2M, 2, PF3, W1, 0x29, BW, 0, REG, K)  \
	X(VPBROADCASTMB2Q, 2, PF3, W1, 0x2a, CD, 0, REG, KRM)                                      \
	X(VPMOVWB_S, 2, PF3, W0, 0x30, BW, HALF, ST, E2 | MZ)                                      \
	X(VPMOVDB_S, 2, PF3, W0, 0x31, F, QUARTER, ST, E4 | MZ)                                    \
	X(VPMOVQB_S, 2, PF3, W0, 0x32, F, EIGHTH, ST, E8 | MZ)                                     \
	X(VPMOVDW_S, 2, PF3, W0, 0x33, F, HALF, ST, E4 | MZ)                                       \
	X(VPMOVQW_S, 2, PF3, W0, 0x34, F, QUARTER, ST, E8 | MZ)                                    \
	X(VPMOVQD_S, 2, PF3, W0, 0x35, F, HALF, ST, E8 | MZ)                                       \
	X(VPMOVM2D, 2, PF3, W0, 0x38, DQ, 0, REG, KRM) X(VPMOVM2Q, 2, PF3, W1, 0x38, DQ, 0, REG, KRM) \
	X(VPMOVD2M, 2, PF3, W0, 0x39, DQ, 0, REG, K) X(VPMOVQ2M, 2, PF3, W1, 0x39, DQ, 0, REG, K)  \
	X(VPBROADCASTMW2D, 2, PF3, W0, 0x3a, CD, 0, REG, KRM)                                      \
	X(VDPBF16PS, 2, PF3, W0, 0x52, BF16, VL, LD, E4 | V | MZ | BC)                             \
	X(VCVTNEPS2BF16, 2, PF3, W0, 0x72, BF16, VL, LD, E4 | MZ | BC)                             \
	X(VP2INTERSECTD, 2, PF2, W0, 0x68, VP2I, VL, LD, V | BC | K)                               \
	X(VP2INTERSECTQ, 2, PF2, W1, 0x68, VP2I, VL, LD, V | BC | K)                               \
	X(VCVTNE2PS2BF16, 2, PF2, W0, 0x72, BF16, VL, LD, E2 | V | MZ | BC | ALL)

#define ROWS_0F3A(X)                                                                               \
	X(VPERMQ_I, 3, P66, W1, 0x00, F, VL, LD | I8, E8 | MZ | BC | ALL | L256)                   \
	X(VPERMPD_I, 3, P66, W1, 0x01, F, VL, LD | I8, E8 | MZ | BC | ALL | L256)                  \
	BY_DQ(X, VALIGN, 3, P66, 0x03, F, VL, LD | I8, V | MZ | BC | ALL)                          \
	X(VPERMILPS_I, 3, P66, W0, 0x04, F, VL, LD | I8, E4 | MZ | BC | ALL)                       \
	X(VPERMILPD_I, 3, P66, W1, 0x05, F, VL, LD | I8, E8 | MZ | BC | ALL)                       \
	X(VRNDSCALEPS, 3, P66, W0, 0x08, F, VL, LD | I8, E4 | MZ | BC | SAE)                       \
	X(VRNDSCALEPD, 3, P66, W1, 0x09, F, VL, LD | I8, E8 | MZ | BC | SAE)                       \
	X(VRNDSCALESS, 3, P66, W0, 0x0a, F, 4, LD | I8, V | MZ | SAE | SC)                         \
	X(VRNDSCALESD, 3, P66, W1, 0x0b, F, 8, LD | I8, V | MZ | SAE | SC)                         \
	X(VPALIGNR, 3, P66, WIG, 0x0f, BW, VL, LD | I8, E1 | V | MZ | ALL)                         \
	X(VPEXTRB_S, 3, P66, WIG, 0x14, BW, 1, ST | I8 | GRM, L128)                                \
	X(VPEXTRW_S, 3, P66, WIG, 0x15, BW, 2, ST | I8 | GRM, L128)                                \
	X(VPEXTRD_S, 3, P66, WIG, 0x16, DQ, W48, ST | I8 | GRM, L128)                              \
	X(VEXTRACTPS_S, 3, P66, WIG, 0x17, F, 4, ST | I8 | GRM, L128)                              \
	X(VINSERTF32X4, 3, P66, W0, 0x18, F, 16, LD | I8, E4 | V | MZ | ALL | L256)                \
	X(VINSERTF64X2, 3, P66, W1, 0x18, DQ, 16, LD | I8, E8 | V | MZ | ALL | L256)               \
	X(VEXTRACTF32X4_S, 3, P66, W0, 0x19, F, 16, ST | I8, E4 | MZ | ALL | TUP | L256)                 \
	X(VEXTRACTF64X2_S, 3, P66, W1, 0x19, DQ, 16, ST | I8, E8 | MZ | ALL | TUP | L256)                \
	X(VINSERTF32X8, 3, P66, W0, 0x1a, DQ, 32, LD | I8, E4 | V | MZ | ALL | L512)               \
	X(VINSERTF64X4, 3, P66, W1, 0x1a, F, 32, LD | I8, E8 | V | MZ | ALL | L512)                \
	X(VEXTRACTF32X8_S, 3, P66, W0, 0x1b, DQ, 32, ST | I8, E4 | MZ | ALL | TUP | L512)                \
	X(VEXTRACTF64X4_S, 3, P66, W1, 0x1b, F, 32, ST | I8, E8 | MZ | ALL | TUP | L512)                 \
	X(VCVTPS2PH_S, 3, P66, W0, 0x1d, F, HALF, ST | I8, E4 | MZ | SAE)                          \
	BY_DQ(X, VPCMPU, 3, P66, 0x1e, F, VL, LD | I8, V | M | BC | K)                             \
	BY_DQ(X, VPCMP, 3, P66, 0x1f, F, VL, LD | I8, V | M | BC | K)                              \
	X(VPINSRB, 3, P66, WIG, 0x20, BW, 1, LD | I8 | GRM, V | L128)                              \
	X(VINSERTPS, 3, P66, W0, 0x21, F, 4, LD | I8, V | L128)                                    \
	X(VPINSRD, 3, P66, WIG, 0x22, DQ, W48, LD | I8 | GRM, V | L128)                            \
	BY_DQ(X, VSHUFF, 3, P66, 0x23, F, VL, LD | I8, V | MZ | BC | ALL | L256)                   \
	BY_DQ(X, VPTERNLOG, 3, P66, 0x25, F, VL, LD | I8, V | MZ | BC)                             \
	BY_DQ(X, VGETMANTP, 3, P66, 0x26, F, VL, LD | I8, MZ | BC | SAE)                           \
	SCALAR(X, VGETMANTS, 3, 0x27, F, LD | I8, V | MZ | SAE)                                    \
	X(VINSERTI32X4, 3, P66, W0, 0x38, F, 16, LD | I8, E4 | V | MZ | ALL | L256)                \
	X(VINSERTI64X2, 3, P66, W1, 0x38, DQ, 16, LD | I8, E8 | V | MZ | ALL | L256)               \
	X(VEXTRACTI32X4_S, 3, P66, W0, 0x39, F, 16, ST | I8, E4 | MZ | ALL | TUP | L256)                 \
	X(VEXTRACTI64X2_S, 3, P66, W1, 0x39, DQ, 16, ST | I8, E8 | MZ | ALL | TUP | L256)                \
	X(VINSERTI32X8, 3, P66, W0, 0x3a, DQ, 32, LD | I8, E4 | V | MZ | ALL | L512)               \
	X(VINSERTI64X4, 3, P66, W1, 0x3a, F, 32, LD | I8, E8 | V | MZ | ALL | L512)                \
	X(VEXTRACTI32X8_S, 3, P66, W0, 0x3b, DQ, 32, ST | I8, E4 | MZ | ALL | TUP | L512)                \
	X(VEXTRACTI64X4_S, 3, P66, W1, 0x3b, F, 32, ST | I8, E8 | MZ | ALL | TUP | L512)                 \
	BY_BW(X, VPCMPU_BW, 3, P66, 0x3e, BW, VL, LD | I8, V | M | K)                              \
	BY_BW(X, VPCMP_BW, 3, P66, 0x3f, BW, VL, LD | I8, V | M | K)                               \
	X(VDBPSADBW, 3, P66, W0, 0x42, BW, VL, LD | I8, E2 | V | MZ | ALL)                         \
	BY_DQ(X, VSHUFI, 3, P66, 0x43, F, VL, LD | I8, V | MZ | BC | ALL | L256)                   \
	X(VPCLMULQDQ, 3, P66, WIG, 0x44, VCLMUL, VL, LD | I8, V)                                   \
	BY_DQ(X, VRANGEP, 3, P66, 0x50, DQ, VL, LD | I8, V | MZ | BC | SAE)                        \
	SCALAR(X, VRANGES, 3, 0x51, DQ, LD | I8, V | MZ | SAE)                                     \
	BY_DQ(X, VFIXUPIMMP, 3, P66, 0x54, F, VL, LD | I8, V | MZ | BC | SAE)                      \
	SCALAR(X, VFIXUPIMMS, 3, 0x55, F, LD | I8, V | MZ | SAE)                                   \
	BY_DQ(X, VREDUCEP, 3, P66, 0x56, DQ, VL, LD | I8, MZ | BC | SAE)                           \
	SCALAR(X, VREDUCES, 3, 0x57, DQ, LD | I8, V | MZ | SAE)                                    \
	BY_DQ(X, VFPCLASSP, 3, P66, 0x66, DQ, VL, LD | I8, M | BC | K)                             \
	SCALAR(X, VFPCLASSS, 3, 0x67, DQ, LD | I8, M | K)                                          \
	X(VPSHLDW, 3, P66, W1, 0x70, VBMI2, VL, LD | I8, E2 | V | MZ)                              \
	BY_DQ(X, VPSHLD, 3, P66, 0x71, VBMI2, VL, LD | I8, V | MZ | BC)                            \
	X(VPSHRDW, 3, P66, W1, 0x72, VBMI2, VL, LD | I8, E2 | V | MZ)                              \
	BY_DQ(X, VPSHRD, 3, P66, 0x73, VBMI2, VL, LD | I8, V | MZ | BC)                            \
	X(VGF2P8AFFINEQB, 3, P66, W1, 0xce, GFNI, VL, LD | I8, E1 | V | MZ | BC | ALL)             \
	X(VGF2P8AFFINEINVQB, 3, P66, W1, 0xcf, GFNI, VL, LD | I8, E1 | V | MZ | BC | ALL)

#define ROWS(X) ROWS_0F(X) ROWS_0F38(X) ROWS_0F3A(X)

enum row_id {
	ROW_NONE,
#define ROW_ID(name, ...) ROW_##name,
	ROWS(ROW_ID)
#undef ROW_ID
};

#define ROW(msz_, flags_, feature_, evex_, ...)                                                    \
	{ .msz = (msz_), .flags = NR_VALID | (flags_), .feature = (feature_), .evex = EV_AVX512 | (evex_), __VA_ARGS__ }
#define ENTRY(name, map, pp, w, op, feature, msz, flags, evex, ...)                                \
	[ROW_##name] = ROW(msz, flags, feature, evex, __VA_ARGS__),
static const struct native_row rows[] = { ROWS(ENTRY) };

#define INDEX_W0(map, pp, op, id)  [map - 1][pp][0][op] = id,
#define INDEX_W1(map, pp, op, id)  [map - 1][pp][1][op] = id,
#define INDEX_WIG(map, pp, op, id) INDEX_W0(map, pp, op, id) INDEX_W1(map, pp, op, id)
#define INDEX(name, map, pp, w, op, ...) INDEX_##w(map, pp, op, ROW_##name)
static const u16 index_of[3][NR_PP][2][256] = { ROWS(INDEX) };

/* VPSLLDQ and VPSRLDQ share an opcode with shifts of elements. */
static const struct native_row shift_bytes = ROW(VL, LD | I8, BW, V | DIGITS(0x88));

/* Of mask registers: opcode, prefix, W; with L = 1 vvvv is an operand. */
struct opmask_row {
	u8 map, opcode, pp, w, l;
	struct native_row row;
};
#define OPMASK(map_, op, pp_, w_, l_, feature, msz, flags, ev)                                     \
	{ map_, op, pp_, w_, l_, ROW(msz, flags, feature, EV_VEX | EV_L128 | (ev)) }
/* By size: byte 66 W0, word W0, doubleword 66 W1, quadword W1. */
#define BY_SIZE(map, op, l, fb, fw, flags, ev)                                                     \
	OPMASK(map, op, P66, 0, l, fb, 0, flags, ev), OPMASK(map, op, P0, 0, l, fw, 0, flags, ev), \
	OPMASK(map, op, P66, 1, l, BW, 0, flags, ev), OPMASK(map, op, P0, 1, l, BW, 0, flags, ev)
#define KKK (V | K | KRM)
static const struct opmask_row opmask_rows[] = {
	BY_SIZE(1, 0x41, 1, DQ, F, REG, KKK), /* KAND */
	BY_SIZE(1, 0x42, 1, DQ, F, REG, KKK), /* KANDN */
	BY_SIZE(1, 0x44, 0, DQ, F, REG, K | KRM), /* KNOT */
	BY_SIZE(1, 0x45, 1, DQ, F, REG, KKK), /* KOR */
	BY_SIZE(1, 0x46, 1, DQ, F, REG, KKK), /* KXNOR */
	BY_SIZE(1, 0x47, 1, DQ, F, REG, KKK), /* KXOR */
	BY_SIZE(1, 0x4a, 1, DQ, DQ, REG, KKK), /* KADD */
	/* KUNPCKBW, WD, DQ */
	OPMASK(1, 0x4b, P66, 0, 1, F, 0, REG, KKK), OPMASK(1, 0x4b, P0, 0, 1, BW, 0, REG, KKK),
	OPMASK(1, 0x4b, P0, 1, 1, BW, 0, REG, KKK),
	/* KMOV: load or register, store, from and to a general register */
	OPMASK(1, 0x90, P66, 0, 0, DQ, 1, LD, K | KRM), OPMASK(1, 0x90, P0, 0, 0, F, 2, LD, K | KRM),
	OPMASK(1, 0x90, P66, 1, 0, BW, 4, LD, K | KRM), OPMASK(1, 0x90, P0, 1, 0, BW, 8, LD, K | KRM),
	OPMASK(1, 0x91, P66, 0, 0, DQ, 1, ST | MEM, K), OPMASK(1, 0x91, P0, 0, 0, F, 2, ST | MEM, K),
	OPMASK(1, 0x91, P66, 1, 0, BW, 4, ST | MEM, K), OPMASK(1, 0x91, P0, 1, 0, BW, 8, ST | MEM, K),
	OPMASK(1, 0x92, P66, 0, 0, DQ, 0, REG | GRM, K), OPMASK(1, 0x92, P0, 0, 0, F, 0, REG | GRM, K),
	OPMASK(1, 0x92, PF2, 0, 0, BW, 0, REG | GRM, K), OPMASK(1, 0x92, PF2, 1, 0, BW, 0, REG | GRM, K),
	OPMASK(1, 0x93, P66, 0, 0, DQ, 0, REG | GREG, KRM), OPMASK(1, 0x93, P0, 0, 0, F, 0, REG | GREG, KRM),
	OPMASK(1, 0x93, PF2, 0, 0, BW, 0, REG | GREG, KRM), OPMASK(1, 0x93, PF2, 1, 0, BW, 0, REG | GREG, KRM),
	BY_SIZE(1, 0x98, 0, DQ, F, REG | FLO, K | KRM), /* KORTEST */
	BY_SIZE(1, 0x99, 0, DQ, DQ, REG | FLO, K | KRM), /* KTEST */
	/* KSHIFTR, KSHIFTL: B and W, D and Q */
	OPMASK(3, 0x30, P66, 0, 0, DQ, 0, REG | I8, K | KRM), OPMASK(3, 0x30, P66, 1, 0, F, 0, REG | I8, K | KRM),
	OPMASK(3, 0x31, P66, 0, 0, BW, 0, REG | I8, K | KRM), OPMASK(3, 0x31, P66, 1, 0, BW, 0, REG | I8, K | KRM),
	OPMASK(3, 0x32, P66, 0, 0, DQ, 0, REG | I8, K | KRM), OPMASK(3, 0x32, P66, 1, 0, F, 0, REG | I8, K | KRM),
	OPMASK(3, 0x33, P66, 0, 0, BW, 0, REG | I8, K | KRM), OPMASK(3, 0x33, P66, 1, 0, BW, 0, REG | I8, K | KRM),
};
/* clang-format on */

static enum mandatory mandatory_prefix(const struct insn *i)
{
	return i->pfx & PFX_F3 ? PF3 : i->pfx & PFX_F2 ? PF2 : i->pfx & PFX_66 ? P66 : P0;
}

static unsigned length_code(const struct insn *i)
{
	return (i->evex & EVEX_LL) >> EVEX_LL_SHIFT;
}

/* Are L'L and b as the instruction knows them? With b, registers have 512 bits, and L'L may round. */
static bool length_ok(const struct insn *i, u32 ev, bool mem)
{
	unsigned ll = length_code(i);

	if (i->evex & EVEX_B && !mem)
		return ev & (EV_ROUND | EV_SAE);
	if (ll == 3 || (i->evex & EVEX_B && !(ev & EV_BROADCAST)))
		return false;
	if (ev & EV_SCALAR)
		return true;
	return ev & EV_L128 ? ll == 0 : ev & EV_L256_UP ? ll >= 1 : ev & EV_L512 ? ll == 2 : true;
}

static bool mask_ok(const struct insn *i, const struct native_row *row, bool mem)
{
	u32 ev = row->evex;

	if (i->evex & EVEX_Z && (!(i->evex & EVEX_AAA) || !(ev & EV_ZERO) || (mem && row->flags & NR_STORE)))
		return false;
	return i->evex & EVEX_AAA ? ev & (EV_MASK | EV_MASK_MUST) : !(ev & EV_MASK_MUST);
}

const struct native_row *evex_row(const struct insn *i)
{
	bool mem = i->modrm < 0xc0;
	unsigned digit = i->modrm >> 3 & 7;
	const struct native_row *row;
	u32 ev;

	if (i->map < 1 || i->map > 3)
		return NULL;
	row = &rows[index_of[i->map - 1][mandatory_prefix(i)][!!(i->rex & REX_W)][i->opcode]];
	if (i->map == 1 && i->opcode == 0x73 && mandatory_prefix(i) == P66 && (digit & 3) == 3)
		row = &shift_bytes;
	ev = row->evex;
	if (!(row->flags & NR_VALID) || row->flags & (mem ? NR_REG_ONLY : NR_MEM_ONLY))
		return NULL;
	if (ev >> 24 && !(ev >> 24 >> digit & 1))
		return NULL;
	if (ev & EV_VSIB ? i->vvvv & 15 || (i->modrm & 7) != 4 /* V' is the index register's */
			 : i->vvvv && !(ev & EV_V) && !(ev & EV_V_REG && !mem))
		return NULL;
	if (!length_ok(i, ev, mem) || !mask_ok(i, row, mem))
		return NULL;
	if ((ev & EV_K_REG && i->rex & (REX_R | REX_R2)) || (row->flags & NR_GPR_REG && i->rex & REX_R2))
		return NULL;
	return row;
}

const struct native_row *evex_opmask_row(const struct insn *i)
{
	bool mem = i->modrm < 0xc0, l = i->pfx & PFX_VEX_L, w = i->rex & REX_W;
	enum mandatory pp = mandatory_prefix(i);

	for (unsigned k = 0; k < ARRAY_SIZE(opmask_rows); k++) {
		const struct opmask_row *o = &opmask_rows[k];

		if (o->opcode != i->opcode || o->map != i->map || o->pp != pp || o->w != w)
			continue;
		if (o->l != l || o->row.flags & (mem ? NR_REG_ONLY : NR_MEM_ONLY) ||
		    (i->vvvv && !(o->row.evex & EV_V)))
			return NULL;
		return o->row.evex & EV_K_REG && i->rex & REX_R ? NULL : &o->row;
	}
	return NULL;
}

bool evex_needs_vl(const struct insn *i, const struct native_row *row)
{
	if (row->evex & (EV_SCALAR | EV_L128) || (i->evex & EVEX_B && i->modrm >= 0xc0))
		return false;
	return length_code(i) < 2;
}

struct evex_elements evex_elements(const struct insn *i, const struct native_row *row)
{
	unsigned element = 1u << (row->evex & EV_ELEMENT), nr = (16u << length_code(i)) / element;
	unsigned msz = native_operand_size(i, row), size;

	if (row->evex & EV_SCALAR)
		return (struct evex_elements){ .nr = 1, .nr_mem = 1, .size = (u8)msz };
	if (row->evex & EV_TUPLE && row->flags & NR_STORE)
		nr = msz / element; /* part of a register, and of the mask */
	size = i->evex & EVEX_B ? msz : row->evex & EV_TUPLE ? element : msz / nr;
	return (struct evex_elements){ .nr = (u8)nr, .nr_mem = (u8)(msz / size), .size = (u8)size };
}
