/* MMX, and the MMX forms that came with SSE, SSE2 and SSSE3. */
#include "families.h"

#define OP(op)               \
	I(op " mm0, mm1");   \
	I(op " mm7, mm7");   \
	I(op " mm3, [rsi]"); \
	I(op " mm5, [rdi+4]")
#define SHIFT(op)          \
	OP(op);            \
	I(op " mm2, 1");   \
	I(op " mm2, 15");  \
	I(op " mm2, 200"); \
	I("mov eax, 9; movd mm1, eax; " op " mm4, mm1")

void family_mmx(struct insn_test *t)
{
	EACH(OP, "paddb", "paddw", "paddd", "paddq", "paddsb", "paddsw", "paddusb", "paddusw", "psubb",
	     "psubw", "psubd", "psubq", "psubsb", "psubsw", "psubusb", "psubusw");
	EACH(OP, "pmullw", "pmulhw", "pmulhuw", "pmaddwd", "pmuludq", "psadbw", "pavgb", "pavgw", "pand",
	     "pandn", "por", "pxor", "pcmpeqb", "pcmpeqw", "pcmpeqd", "pcmpgtb");
	EACH(OP, "pcmpgtw", "pcmpgtd", "pmaxub", "pmaxsw", "pminub", "pminsw", "packsswb", "packssdw",
	     "packuswb", "punpckhbw", "punpckhwd", "punpckhdq");
	I("punpcklbw mm0, mm1; punpcklwd mm2, dword ptr [rsi]; punpckldq mm3, dword ptr [rdi]");
	EACH(SHIFT, "psllw", "pslld", "psllq", "psrlw", "psrld", "psrlq", "psraw", "psrad");
	I("movd mm0, eax; movd mm1, [rsi]; movd ecx, mm2; movd [rdi], mm3");
	I("movq mm0, rax; movq r9, mm1; movq mm2, [rsi]; movq [rdi], mm3; movq mm4, mm5");
	I("movntq [rsi], mm1; maskmovq mm2, mm3");
	I("pinsrw mm0, eax, 1; pinsrw mm1, word ptr [rsi], 3; pextrw ecx, mm2, 2; pmovmskb edx, mm3");
	I("pshufw mm0, mm1, 0x1b; pshufw mm2, [rsi], 0x93");
	I("movq2dq xmm1, mm2; movdq2q mm3, xmm4");
	I("cvtpi2ps xmm0, mm1; cvtpi2ps xmm2, [rsi]; cvtpi2pd xmm3, mm4; cvtpi2pd xmm5, [rdi]");
	I("cvtps2pi mm0, xmm1; cvttps2pi mm2, [rsi]");
	I("cvtpd2pi mm0, xmm1; cvttpd2pi mm2, xmm3");
	I("cvtpi2pd xmm3, [rdi]");
	I("emms");
	I("movq mm0, mm1; fld1; emms; fld1");
	if (insn_has(X86_FEATURE_SSSE3)) {
		EACH(OP, "phaddw", "phaddd", "phaddsw", "phsubw", "phsubd", "phsubsw", "pmaddubsw",
		     "pmulhrsw", "pshufb", "psignb", "psignw", "psignd", "pabsb", "pabsw", "pabsd");
		I("palignr mm0, mm1, 3; palignr mm2, [rsi], 9; palignr mm3, mm4, 20");
	}
	I("paddb mm0, [0x20001ffd]; movq [0x20000ffc], mm0");
	I("movq [0x20001ffc], mm0");
	I("paddb mm0, [0x30000000]");
}
