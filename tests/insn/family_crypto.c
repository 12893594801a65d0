/* AES, PCLMULQDQ, SHA, GFNI, VAES, VPCLMULQDQ, VNNI. */
#include "families.h"

#define OP(op)               \
	I(op " xmm0, xmm1"); \
	I(op " xmm9, xmm9"); \
	I(op " xmm2, [rsi]")
#define OPI(op, n)               \
	I(op " xmm0, xmm1, " n); \
	I(op " xmm9, [rsi], " n)
#define OP3(op)                    \
	I(op " xmm0, xmm1, xmm2"); \
	I(op " xmm9, xmm10, [rdi+1]")
#define OP3Y(op)                   \
	I(op " ymm0, ymm1, ymm2"); \
	I(op " ymm9, ymm10, [rdi+1]")

void family_crypto(struct insn_test *t)
{
	if (insn_has(X86_FEATURE_AES)) {
		EACH(OP, "aesenc", "aesenclast", "aesdec", "aesdeclast", "aesimc");
		OPI("aeskeygenassist", "0x1b");
		if (insn_has(X86_FEATURE_AVX)) {
			EACH(OP3, "vaesenc", "vaesdeclast");
			I("vaesimc xmm0, xmm1; vaeskeygenassist xmm2, [rsi+1], 4");
		}
	}
	if (insn_has(X86_FEATURE_PCLMULQDQ)) {
		OPI("pclmulqdq", "0");
		OPI("pclmulqdq", "1");
		OPI("pclmulqdq", "0x10");
		OPI("pclmulqdq", "0x11");
	}
	if (insn_has(X86_FEATURE_SHA)) {
		EACH(OP, "sha1nexte", "sha1msg1", "sha1msg2");
		OPI("sha1rnds4", "0");
		OPI("sha1rnds4", "3");
		EACH(OP, "sha256msg1", "sha256msg2", "sha256rnds2");
	}
	if (insn_has(X86_FEATURE_GFNI)) {
		OP("gf2p8mulb");
		OPI("gf2p8affineqb", "0x5a");
		OPI("gf2p8affineinvqb", "1");
		if (insn_has(X86_FEATURE_AVX)) {
			OP3Y("vgf2p8mulb");
		}
	}
	if (insn_has(X86_FEATURE_VAES)) {
		EACH(OP3Y, "vaesenc", "vaesenclast", "vaesdec", "vaesdeclast");
	}
	if (insn_has(X86_FEATURE_VPCLMULQDQ)) {
		I("vpclmulqdq ymm0, ymm1, ymm2, 0x11");
		I("vpclmulqdq ymm0, ymm1, [rsi+1], 0");
	}
	if (insn_has(X86_FEATURE_AVX_VNNI)) {
		I(".byte 0xc4, 0xe2, 0x75, 0x50, 0xc2"); /* vpdpbusd ymm0, ymm1, ymm2 */
		I(".byte 0xc4, 0xe2, 0x59, 0x53, 0x1e"); /* vpdpwssds xmm3, xmm4, [rsi] */
	}
}
