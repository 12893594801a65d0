/* SSE to SSE4.2: 128-bit instructions in their legacy encoding, registers and memory, aligned and not. */
#include "families.h"

static void rounding(struct insn_rng *r, struct insn_state *s)
{
	u64 k = insn_rnd(r);
	/* All rounding modes, DAZ and FTZ; in one of eight runs an exception is not masked. */
	u32 masks = k & 7 ? 0x1f80 : (u32)(k >> 16 & 0x1f80);
	st32(s->xsave + 24, masks | (u32)(k >> 32 & 0xe040));
	s->gpr[R_SI] &= k & 0x700000 ? ~15ull : ~0ull;
}

#define OP(op)                \
	I(op " xmm0, xmm1");  \
	I(op " xmm9, xmm9");  \
	I(op " xmm14, xmm3"); \
	I(op " xmm2, [rsi]"); \
	I(op " xmm12, [rsi+32]")
#define OPI(op, n)               \
	I(op " xmm0, xmm1, " n); \
	I(op " xmm9, [rsi], " n)
/* Scalar memory operands need no alignment. */
#define SC(op, size)                       \
	I(op " xmm0, xmm1");               \
	I(op " xmm9, xmm8");               \
	I(op " xmm2, " size " ptr [rdi]"); \
	I(op " xmm11, " size " ptr [rsi+3]")
#define SHIFT(op)           \
	OP(op);             \
	I(op " xmm2, 1");   \
	I(op " xmm10, 15"); \
	I(op " xmm2, 200"); \
	I("mov eax, 9; movd xmm1, eax; " op " xmm4, xmm1")

static void sse(struct insn_test *t)
{
	EACH(OP, "addps", "subps", "mulps", "divps", "minps", "maxps", "sqrtps", "rcpps", "rsqrtps");
	SC("addss", "dword");
	SC("subss", "dword");
	SC("mulss", "dword");
	SC("divss", "dword");
	SC("minss", "dword");
	SC("maxss", "dword");
	SC("sqrtss", "dword");
	SC("rcpss", "dword");
	SC("rsqrtss", "dword");
	SC("ucomiss", "dword");
	SC("comiss", "dword");
	EACH(OP, "andps", "andnps", "orps", "xorps", "unpcklps", "unpckhps");
	OPI("cmpps", "0");
	OPI("cmpps", "1");
	OPI("cmpps", "5");
	OPI("cmpps", "7");
	OPI("shufps", "0x1b");
	OPI("shufps", "0xe1");
	I("cmpss xmm0, xmm1, 2");
	I("cmpss xmm9, dword ptr [rsi], 6");
	EACH(OP, "movaps", "movups", "movshdup", "movsldup");
	I("movaps [rsi], xmm1");
	I("movups [rdi+1], xmm9");
	I("movntps [rsi], xmm3");
	I("movss xmm0, xmm1; movss xmm2, dword ptr [rsi]; movss dword ptr [rdi], xmm3");
	I("movlps xmm0, [rsi]; movhps xmm1, [rdi]; movlps [rbp], xmm2; movhps [rsi+8], xmm3; movhlps xmm4, xmm5; movlhps xmm6, xmm7");
	I("movmskps eax, xmm1; movmskps r9d, xmm10");
	SC("cvtss2sd", "dword");
	I("cvtsi2ss xmm0, eax");
	I("cvtsi2ss xmm9, r9");
	I("cvtsi2ss xmm1, dword ptr [rsi]");
	I("cvtsi2ss xmm1, qword ptr [rsi]");
	I("cvtss2si eax, xmm0");
	I("cvtss2si r9, xmm9");
	I("cvttss2si eax, dword ptr [rsi]");
	I("cvttss2si rdx, xmm0");
	EACH(OP, "cvtps2dq", "cvttps2dq", "cvtdq2ps");
	I("cvtps2pd xmm0, xmm1");
	I("cvtps2pd xmm9, [rdi]");
	I("stmxcsr [rsi]; and dword ptr [rsi], 0xffbf; ldmxcsr [rsi]; addps xmm0, xmm1");
	I("ldmxcsr [rsi]");
	I("mov dword ptr [rsi], 0x10000; ldmxcsr [rsi]");
}

static void sse2(struct insn_test *t)
{
	EACH(OP, "addpd", "subpd", "mulpd", "divpd", "minpd", "maxpd", "sqrtpd");
	SC("addsd", "qword");
	SC("subsd", "qword");
	SC("mulsd", "qword");
	SC("divsd", "qword");
	SC("minsd", "qword");
	SC("maxsd", "qword");
	SC("sqrtsd", "qword");
	SC("ucomisd", "qword");
	SC("comisd", "qword");
	SC("cvtsd2ss", "qword");
	EACH(OP, "andpd", "andnpd", "orpd", "xorpd", "unpcklpd", "unpckhpd");
	OPI("cmppd", "0");
	OPI("cmppd", "3");
	OPI("cmppd", "6");
	OPI("shufpd", "1");
	OPI("shufpd", "2");
	I("cmpsd xmm0, xmm1, 4");
	I("cmpsd xmm9, qword ptr [rsi], 1");
	EACH(OP, "movapd", "movupd", "movdqa", "movdqu", "movddup");
	I("movdqa [rsi], xmm1");
	I("movdqu [rdi+5], xmm9");
	I("movntdq [rsi], xmm3");
	I("movntpd [rsi+16], xmm3");
	I("movsd xmm0, xmm1; movsd xmm2, qword ptr [rsi]; movsd qword ptr [rdi], xmm3; movlpd xmm4, [rsi]; movhpd [rdi], xmm5");
	I("movd xmm0, eax; movd ecx, xmm1; movq xmm2, r9; movq r10, xmm3; movd xmm4, [rsi]; movd [rdi], xmm5");
	I("movq xmm2, [rsi]; movq [rdi], xmm3; movq xmm8, xmm9; movmskpd eax, xmm10; pmovmskb edx, xmm11");
	I("cvtsi2sd xmm0, eax");
	I("cvtsi2sd xmm9, r9");
	I("cvtsd2si eax, xmm0");
	I("cvtsd2si r9, qword ptr [rsi]");
	I("cvttsd2si ecx, xmm1");
	I("cvttsd2si rdx, xmm2");
	EACH(OP, "cvtpd2ps", "cvtpd2dq", "cvttpd2dq");
	I("cvtdq2pd xmm0, xmm1");
	I("cvtdq2pd xmm9, [rdi]");
	EACH(OP, "paddb", "paddw", "paddd", "paddq", "paddsb", "paddsw", "paddusb", "paddusw", "psubb",
	     "psubw", "psubd", "psubq", "psubsb", "psubsw", "psubusb", "psubusw");
	EACH(OP, "pmullw", "pmulhw", "pmulhuw", "pmaddwd", "pmuludq", "psadbw", "pavgb", "pavgw", "pand",
	     "pandn", "por", "pxor", "pcmpeqb", "pcmpeqw", "pcmpeqd", "pcmpgtb");
	EACH(OP, "pcmpgtw", "pcmpgtd", "pmaxub", "pmaxsw", "pminub", "pminsw", "packsswb", "packssdw",
	     "packuswb", "punpcklbw", "punpcklwd", "punpckldq", "punpcklqdq", "punpckhbw", "punpckhwd",
	     "punpckhdq");
	OP("punpckhqdq");
	EACH(SHIFT, "psllw", "pslld", "psllq", "psrlw", "psrld", "psrlq", "psraw", "psrad");
	I("pslldq xmm0, 3; psrldq xmm9, 11; pslldq xmm2, 16");
	OPI("pshufd", "0x1b");
	OPI("pshuflw", "0x93");
	OPI("pshufhw", "0x2d");
	I("pinsrw xmm0, eax, 5; pinsrw xmm1, word ptr [rsi], 9; pextrw ecx, xmm2, 7; maskmovdqu xmm3, xmm4");
}

static void later(struct insn_test *t)
{
	if (insn_has(X86_FEATURE_SSE3)) {
		EACH(OP, "haddps", "haddpd", "hsubps", "hsubpd", "addsubps", "addsubpd");
		I("lddqu xmm0, [rdi+3]");
	}
	if (insn_has(X86_FEATURE_SSSE3)) {
		EACH(OP, "phaddw", "phaddd", "phaddsw", "phsubw", "phsubd", "phsubsw", "pmaddubsw",
		     "pmulhrsw", "pshufb", "psignb", "psignw", "psignd", "pabsb", "pabsw", "pabsd");
		OPI("palignr", "5");
		OPI("palignr", "19");
	}
	if (insn_has(X86_FEATURE_SSE4_1)) {
		EACH(OP, "pblendvb", "blendvps", "blendvpd");
		OPI("blendps", "5");
		OPI("blendpd", "2");
		OPI("pblendw", "0x5a");
		OPI("dpps", "0xf1");
		OPI("dppd", "0x31");
		OPI("mpsadbw", "5");
		OPI("insertps", "0x4a");
		OPI("roundps", "1");
		OPI("roundpd", "4");
		OPI("roundss", "2");
		OPI("roundsd", "3");
		EACH(OP, "pmulld", "pmuldq", "pminsb", "pminsd", "pminuw", "pminud", "pmaxsb", "pmaxsd",
		     "pmaxuw", "pmaxud", "packusdw", "pcmpeqq", "phminposuw", "ptest");
		I("pmovsxbw xmm0, [rdi+1]; pmovsxbd xmm1, xmm2; pmovsxbq xmm3, [rsi]; pmovsxwd xmm4, xmm5; pmovsxwq xmm6, [rdi]; pmovsxdq xmm7, xmm8");
		I("pmovzxbw xmm0, [rdi+1]; pmovzxbd xmm1, xmm2; pmovzxbq xmm3, [rsi]; pmovzxwd xmm4, xmm5; pmovzxwq xmm6, [rdi]; pmovzxdq xmm7, xmm8");
		I("pextrb eax, xmm1, 5; pextrb [rsi], xmm2, 15; pextrw [rsi+2], xmm3, 6; pextrd ecx, xmm4, 3; pextrq r9, xmm5, 1");
		I("pinsrb xmm0, eax, 7; pinsrb xmm1, [rsi], 2; pinsrd xmm2, ecx, 1; pinsrd xmm3, [rdi], 3; pinsrq xmm4, r9, 1");
		I("extractps eax, xmm1, 2; extractps [rsi], xmm9, 1; movntdqa xmm2, [rsi]");
	}
	if (insn_has(X86_FEATURE_SSE4_2)) {
		OP("pcmpgtq");
		OPI("pcmpistri", "0");
		OPI("pcmpistri", "0x0c");
		OPI("pcmpistri", "0x45");
		OPI("pcmpistrm", "0x4a");
		OPI("pcmpestri", "0x19");
		OPI("pcmpestrm", "0x78");
		I("mov eax, 5; mov edx, -3; pcmpestri xmm0, xmm1, 0x1a; mov eax, ecx; pcmpestrm xmm2, [rsi], 0x44");
		I(".byte 0x66, 0x48, 0x0f, 0x3a, 0x61, 0xc1, 0x08"); /* 64-bit lengths */
	}
}

void family_sse(struct insn_test *t)
{
	t->setup = rounding;
	sse(t);
	sse2(t);
	later(t);
	I("addps xmm0, [0x20001ff8]; movaps xmm1, [0x20001ff0]; movups xmm2, [0x20002ff1]");
	I("movups [0x20000ff3], xmm1; movups [0x20001ff1], xmm2");
	I("movaps xmm0, [0x30000000]");
	I("mov rax, 0x800000000000; movups xmm0, [rax]");
	I("mov rax, 0x800000000001; movaps xmm0, [rax]");
	I("mov rsp, 0x20001008; movaps [rsp], xmm0");
}
