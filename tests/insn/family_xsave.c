/* FXSAVE and the XSAVE family as user programs use them: with all components that both sides have. */
#include "families.h"

/* The image without what differs between processors: x87 pointers, MXCSR mask, the legacy part's free bytes. */
#define CUT \
	"mov word ptr [rsi+6], 0; mov qword ptr [rsi+8], 0; mov qword ptr [rsi+16], 0; mov dword ptr [rsi+28], 0;"

static void aligned(struct insn_rng *r, struct insn_state *s)
{
	s->gpr[R_SI] = INSN_DATA + 64 * (1 + insn_rnd(r) % 32);
	s->gpr[R_DI] = INSN_DATA + 4096 + 64 * (insn_rnd(r) % 32);
	/* A header that XRSTOR takes, and MXCSR too, mostly. */
	u8 *p = s->data + (s->gpr[R_DI] - INSN_DATA);
	u64 k = insn_rnd(r);
	for (unsigned n = 0; n < 64; n += 8) {
		st64(p + 512 + n, 0);
		st64(s->data + (s->gpr[R_SI] - INSN_DATA) + 512 + n, 0);
	}
	st64(p + 512, k & 7);
	if (insn_has(X86_FEATURE_AVX512F) && k & 8)
		st64(p + 512, k & 0xe7);
	if (k >> 8 & 7)
		st32(p + 24, (u32)(k >> 16) & 0xffff);
	if ((k >> 11 & 7) == 0)
		st64(p + 512 + 8 * (k >> 14 & 7), BIT(k >> 17 & 63));
	/* Valid x87 contents: the tags are abridged, the reserved bytes of registers zero. */
	st16(p, 0x37f);
	for (unsigned n = 0; n < 8; n++)
		st32(p + 32 + 16 * n + 10, 0), st16(p + 32 + 16 * n + 14, 0);
}

void family_xsave(struct insn_test *t)
{
	t->setup = aligned;
	t->loose_cr2 = true;
	I("fxsave [rsi];" CUT);
	I("fxsave64 [rsi];" CUT);
	I("fxrstor [rdi]");
	I("fxsave64 [rsi]; vzeroall; fninit; fxrstor64 [rsi];" CUT);
	I("fxsave [rsi+8]");
	I("fxrstor [rdi+1]");
	if (!insn_has(X86_FEATURE_XSAVE))
		return;
#define MASK(m)  "mov eax, " m "; xor edx, edx;"
#define ROUND(m) I(MASK(m) "xsave [rsi]; vzeroall; fninit; xrstor [rsi];" CUT)
	ROUND("7");
	ROUND("3");
	ROUND("1");
	ROUND("2");
	ROUND("4");
	ROUND("6");
	ROUND("0");
	I(MASK("7") "xsave64 [rsi]; xrstor64 [rsi];" CUT);
	I(MASK("7") "xrstor [rdi]; mov rcx, [rdi+512]");
	I(MASK("3") "xrstor [rdi]");
	I(MASK("4") "xrstor [rdi]");
	I(MASK("2") "xrstor [rdi]");
	I(MASK("7") "xsave [rsi+8]");
	I(MASK("7") "xrstor [rsi+32]");
	I(MASK("7") "xrstor [0x30000000]");
	I(MASK("7") "xsave [0x20001e00]"); /* into the read-only page */
	I("xor eax, eax; xor edx, edx; mov qword ptr [rsi+512], 0; xsave [rsi];" CUT);
	if (insn_has(X86_FEATURE_XSAVEOPT)) {
		I(MASK("7") "xsave [rsi]; xsaveopt [rsi]; vaddps ymm0, ymm1, ymm2; xsaveopt [rsi];" CUT);
	}
	if (insn_has(X86_FEATURE_XSAVEC)) {
		I(MASK("7") "xsavec [rsi]; vzeroall; fninit; xrstor [rsi]; mov rcx, [rsi+520];" CUT);
		I(MASK("6") "xsavec [rsi]; vzeroall; xrstor [rsi]; mov rcx, [rsi+520];" CUT);
		I(MASK("5") "xsavec [rsi]; vzeroall; fninit; xrstor [rsi]; mov rcx, [rsi+520];" CUT);
		/* A processor may say of SSE's and x87's registers that are initial that they are in use, and whether it does so
		 * hangs on when the host last switched to this process [SDM1 13.6]: only AVX's are. */
		I(MASK("7") "vzeroall; movq xmm3, rsp; xsavec [rsi]; mov rcx, [rsi+512]; mov rdx, [rsi+520];" CUT);
	}
	if (insn_has(X86_FEATURE_AVX512F)) {
		ROUND("0xe7");
		ROUND("0xe6");
		ROUND("0x20");
		ROUND("0x40");
		ROUND("0x80");
		ROUND("0xe0");
		I(MASK("0xe7") "xsave64 [rsi]; vpxord zmm0, zmm0, zmm0; vpxord zmm17, zmm17, zmm17; kxorq k3, k3, k3; xrstor64 [rsi];" CUT);
		/* Without the bit of SSE, as above. */
		I(MASK("0xe7") "vzeroall; vpxord zmm16, zmm16, zmm16; xsave [rsi]; and byte ptr [rsi+512], 0xfd; mov rcx, [rsi+512]; and rcx, 0x21;" CUT);
		I(MASK("0xe7") "xrstor [rdi]");
		I(MASK("0xe0") "xrstor [rdi]; mov rcx, [rdi+512]");
		I(MASK("0xe7") "xsave [0x20001a00]"); /* its end in the read-only page */
		if (insn_has(X86_FEATURE_XSAVEC)) {
			I(MASK("0xe7") "xsavec [rsi]; vzeroall; kxorq k1, k1, k1; vpxord zmm17, zmm17, zmm17; xrstor [rsi]; mov rcx, [rsi+520];" CUT);
			I(MASK("0xe0") "xsavec [rsi]; vpxord zmm17, zmm17, zmm17; xrstor [rsi]; mov rcx, [rsi+520];" CUT);
			I(MASK("0xa4") "xsavec [rsi]; vzeroall; xrstor [rsi]; mov rcx, [rsi+520];" CUT);
			I(MASK("0x40") "xsavec [rsi]; vzeroall; xrstor [rsi]; mov rcx, [rsi+520];" CUT);
		}
		if (insn_has(X86_FEATURE_XSAVEOPT))
			I(MASK("0xe7") "xsave [rsi]; vaddps zmm17, zmm18, zmm19; xsaveopt [rsi];" CUT);
	}
	I("xor ecx, ecx; xgetbv; and eax, 0xe7; xor edx, edx");
	I("mov ecx, 7; xgetbv");
	I("xor ecx, ecx; mov eax, 7; xor edx, edx; xsetbv"); /* #GP at CPL 3 */
}
