/* AVX, AVX2, FMA, F16C: three operands, 256 bits, upper halves, gathers, masked moves. */
#include "families.h"

static void rounding(struct insn_rng *r, struct insn_state *s)
{
	u64 k = insn_rnd(r);
	u32 masks = k & 7 ? 0x1f80 : (u32)(k >> 16 & 0x1f80);
	st32(s->xsave + 24, masks | (u32)(k >> 32 & 0xe040));
}

/* Index vectors of small numbers in xmm1/ymm1. */
#define INDEX  "vpsrld ymm1, ymm1, 24;"
#define INDEXQ "vpsrlq ymm1, ymm1, 56;"

#define OP3(op)                        \
	I(op " xmm0, xmm1, xmm2");     \
	I(op " ymm9, ymm10, ymm11");   \
	I(op " xmm3, xmm13, [rdi+1]"); \
	I(op " ymm12, ymm4, [rsi+3]"); \
	I(op " ymm5, ymm5, ymm5")
#define OP3I(op, n)                      \
	I(op " xmm0, xmm1, xmm2, " n);   \
	I(op " ymm9, ymm10, ymm11, " n); \
	I(op " ymm12, ymm4, [rsi+3], " n)
#define OP3X(op)                   \
	I(op " xmm0, xmm1, xmm2"); \
	I(op " xmm9, xmm10, [rdi+5]")
#define OP3XI(op, n)                   \
	I(op " xmm0, xmm1, xmm2, " n); \
	I(op " xmm9, xmm10, [rdi+5], " n)
#define OP2(op)                 \
	I(op " xmm0, xmm1");    \
	I(op " ymm9, ymm10");   \
	I(op " xmm3, [rdi+1]"); \
	I(op " ymm12, [rsi+3]")
#define OP2I(op, n)               \
	I(op " xmm0, xmm1, " n);  \
	I(op " ymm9, ymm10, " n); \
	I(op " ymm12, [rsi+3], " n)
#define SC3(op, size)              \
	I(op " xmm0, xmm1, xmm2"); \
	I(op " xmm9, xmm10, " size " ptr [rdi]")
#define SC2(op, size)        \
	I(op " xmm0, xmm1"); \
	I(op " xmm9, " size " ptr [rdi]")
#define SHIFT(op)                     \
	I(op " ymm0, ymm1, xmm2");    \
	I(op " xmm9, xmm1, [rsi+1]"); \
	I(op " ymm3, ymm11, 7");      \
	I(op " xmm3, xmm11, 70")

static void floats(struct insn_test *t)
{
	EACH(OP3, "vaddps", "vaddpd", "vsubps", "vsubpd", "vmulps", "vmulpd", "vdivps", "vdivpd", "vminps",
	     "vmaxpd", "vandps", "vandnpd", "vorps", "vxorpd", "vhaddps", "vhsubpd");
	EACH(OP3, "vaddsubps", "vunpcklps", "vunpckhpd");
	EACH(OP2, "vsqrtps", "vsqrtpd", "vrcpps", "vrsqrtps");
	SC3("vaddss", "dword");
	SC3("vsubsd", "qword");
	SC3("vmulss", "dword");
	SC3("vdivsd", "qword");
	SC3("vsqrtss", "dword");
	SC3("vminsd", "qword");
	SC3("vcvtss2sd", "dword");
	SC3("vcvtsd2ss", "qword");
	SC2("vucomiss", "dword");
	SC2("vcomisd", "qword");
	OP3I("vcmpps", "0x1e");
	OP3I("vcmppd", "9");
	OP3I("vshufps", "0x1b");
	OP3I("vshufpd", "5");
	OP3I("vblendps", "0x5a");
	OP3I("vdpps", "0xf1");
	OP2I("vroundps", "1");
	OP2I("vroundpd", "2");
	OP3XI("vroundss", "3");
	OP3XI("vcmpsd", "0x11");
	I("vblendvps xmm0, xmm1, xmm2, xmm3");
	I("vblendvpd ymm0, ymm1, [rsi], ymm9");
	I("vpblendvb xmm8, xmm9, xmm10, xmm11");
	EACH(OP2, "vmovaps", "vmovups", "vmovdqu", "vmovddup", "vmovshdup");
	I("vlddqu ymm0, [rsi+5]; vmovdqa xmm1, xmm2; vmovdqa ymm3, ymm4");
	I("vmovups [rdi+3], ymm1; vmovdqu [rsi+1], xmm9");
	I("vmovaps [rsi], ymm1");
	I("vmovntps [rsi], ymm2");
	I("vmovss xmm0, xmm1, xmm2; vmovss xmm3, dword ptr [rsi]; vmovsd qword ptr [rdi], xmm4; vmovhps xmm5, xmm6, [rsi]");
	I("vmovlhps xmm0, xmm1, xmm2; vmovhlps xmm3, xmm4, xmm5; vmovlpd [rsi], xmm6; vmovmskps eax, ymm7; vmovmskpd ecx, xmm8");
	EACH(OP2, "vcvtdq2ps", "vcvtps2dq", "vcvttps2dq");
	I("vcvtps2pd ymm0, xmm1; vcvtdq2pd ymm2, [rsi]");
	I("vcvtpd2ps xmm0, ymm1");
	I("vcvtpd2dq xmm0, ymm1");
	I("vcvttpd2dq xmm0, ymmword ptr [rsi]");
	I("vcvtsi2ss xmm0, xmm1, eax; vcvtsi2sd xmm2, xmm3, r9; vcvtsi2sd xmm4, xmm5, dword ptr [rsi]");
	I("vcvtss2si eax, xmm1");
	I("vcvttsd2si r9, xmm2");
	I("vbroadcastss ymm0, dword ptr [rsi]; vbroadcastsd ymm1, qword ptr [rdi]; vbroadcastf128 ymm2, [rsi]; vbroadcastss xmm3, dword ptr [rdi]");
	I("vinsertf128 ymm0, ymm1, xmm2, 1; vinsertf128 ymm3, ymm4, [rsi], 0; vextractf128 xmm5, ymm6, 1; vextractf128 [rdi], ymm7, 0");
	I("vperm2f128 ymm0, ymm1, ymm2, 0x13; vperm2f128 ymm3, ymm4, [rsi], 0x88; vpermilps ymm5, ymm6, ymm7; vpermilpd ymm8, ymm9, 5");
	I("vtestps xmm0, xmm1; setc al; vtestpd ymm2, [rsi]");
	I("vptest ymm3, ymm4");
	I("vzeroupper");
	I("vzeroall");
	I("vmaskmovps xmm0, xmm1, [rsi]; vmaskmovpd ymm2, ymm3, [rdi+1]; vmaskmovps [rsi+8], ymm4, ymm5; vmaskmovpd [rdi+4], xmm6, xmm7");
	I("vpxor xmm1, xmm1, xmm1; vmaskmovps xmm0, xmm1, [rax]; vmaskmovps [rbx], xmm1, xmm2"); /* nothing is touched */
	I("vpcmpeqd xmm1, xmm1, xmm1; vpsrldq xmm1, xmm1, 8; vmaskmovps xmm0, xmm1, [0x20002ff8]; vmaskmovps [0x20001ff8], xmm1, xmm0");
	I("vpcmpeqd xmm1, xmm1, xmm1; vmaskmovps [0x20001ff8], xmm1, xmm0"); /* the second half may not be written */
	I("vldmxcsr [rsi]");
	I("vstmxcsr [rsi]");
	/* What the legacy encodings leave of the upper halves, and VEX ones do not. */
	I("addps xmm0, xmm1; vaddps xmm2, xmm2, xmm3; movaps xmm4, xmm5; vmovaps xmm6, xmm7; movd xmm8, eax; vmovd xmm9, eax");
	I(".byte 0xc5, 0xf8, 0x77");
	I(".byte 0xc4, 0xe1, 0x78, 0x58, 0xc1");
	I(".byte 0xc5, 0x80, 0x58, 0xc1");
	I(".byte 0x66, 0xc5, 0xf8, 0x58, 0xc1"); /* #UD: prefix before VEX */
	I(".byte 0x40, 0xc5, 0xf8, 0x58, 0xc1");
	I(".byte 0xf0, 0xc5, 0xf8, 0x58, 0x06");
	I(".byte 0xc5, 0x88, 0x51, 0xc1");       /* #UD: vvvv in a two-operand instruction */
	I(".byte 0xc4, 0xe4, 0x78, 0x58, 0xc1"); /* #UD: no such map */
}

static void integers(struct insn_test *t)
{
	EACH(OP3, "vpaddb", "vpaddw", "vpaddd", "vpaddq", "vpsubb", "vpsubsw", "vpaddusb", "vpmullw",
	     "vpmulhrsw", "vpmuludq", "vpmuldq", "vpmaddubsw", "vpmaddwd", "vpsadbw", "vpavgb", "vpand");
	EACH(OP3, "vpandn", "vpor", "vpxor", "vpcmpeqb", "vpcmpeqq", "vpcmpgtw", "vpcmpgtq", "vpminsb",
	     "vpmaxud", "vpackssdw", "vpackusdw", "vpunpcklbw", "vpunpckhqdq", "vpshufb", "vphaddw",
	     "vphsubsw");
	OP3("vpsignd");
	EACH(OP2, "vpabsb", "vpabsd");
	OP3I("vpalignr", "21");
	OP3I("vpblendw", "0x3c");
	OP3I("vpblendd", "0xa5");
	OP3I("vmpsadbw", "0x2c");
	OP2I("vpshufd", "0x39");
	OP2I("vpshufhw", "0x4e");
	OP2I("vpshuflw", "0x72");
	EACH(SHIFT, "vpsllw", "vpslld", "vpsllq", "vpsrlw", "vpsrld", "vpsrlq", "vpsraw", "vpsrad");
	EACH(OP3, "vpsllvd", "vpsllvq", "vpsrlvd", "vpsrlvq", "vpsravd");
	I("vpslldq ymm0, ymm1, 5; vpsrldq xmm9, xmm10, 9; vpmovmskb eax, ymm11");
	I("vpmovsxbw ymm0, xmm1; vpmovsxbd ymm2, [rsi]; vpmovzxwq ymm3, xmm4; vpmovzxdq xmm5, [rdi]; vpmovsxbq ymm6, xmm7");
	I("vpbroadcastb ymm0, xmm1; vpbroadcastw xmm2, [rsi]; vpbroadcastd ymm3, [rdi]; vpbroadcastq xmm4, xmm5; vbroadcasti128 ymm6, [rsi]");
	I("vinserti128 ymm0, ymm1, xmm2, 0; vextracti128 [rsi], ymm3, 1; vperm2i128 ymm4, ymm5, ymm6, 0x31; vpermq ymm7, ymm8, 0x1b");
	I("vpermd ymm0, ymm1, ymm2; vpermps ymm3, ymm4, [rsi]; vpermpd ymm5, [rdi], 0x93");
	I("vpmaskmovd xmm0, xmm1, [rsi]; vpmaskmovq ymm2, ymm3, [rdi]; vpmaskmovd [rsi+4], ymm4, ymm5; vpmaskmovq [rdi+4], xmm6, xmm7");
	I("vpinsrb xmm0, xmm1, eax, 5; vpinsrw xmm2, xmm3, [rsi], 1; vpinsrd xmm4, xmm5, ecx, 2; vpinsrq xmm6, xmm7, r9, 1");
	I("vpextrb eax, xmm1, 3; vpextrw ecx, xmm2, 4; vpextrd [rsi], xmm3, 1; vpextrq r9, xmm4, 0; vextractps eax, xmm5, 2; vinsertps xmm6, xmm7, xmm8, 0x5a");
	I(INDEX "vpgatherdd xmm0, [rsi+xmm1*4], xmm2");
	I(INDEX "vpgatherdd ymm0, [rsi+ymm1*2+8], ymm2");
	I(INDEX "vpgatherdq ymm0, [rsi+xmm1*4], ymm2");
	I(INDEXQ "vpgatherqd xmm0, [rsi+ymm1*4], xmm2");
	I(INDEXQ "vpgatherqq ymm10, [rdi+ymm1*1], ymm12");
	I(INDEX "vgatherdps ymm0, [rsi+ymm1*4], ymm2");
	I(INDEX "vgatherdpd ymm0, [rsi+xmm1*8], ymm2");
	I(INDEXQ "vgatherqps xmm0, [rsi+xmm1*4], xmm2");
	I(INDEXQ "vgatherqpd ymm0, [rsi+ymm1*8], ymm2");
	I(INDEX "vmovdqa ymm4, ymm1; vpgatherdd ymm0, [rsi+ymm4*4], ymm2");
	I(INDEX "vmovdqa ymm12, ymm1; vpcmpeqd ymm3, ymm3, ymm3; vpgatherdd ymm0, [rbp+ymm12*8-100], ymm3");
	I(".byte 0xc4, 0xe2, 0x69, 0x90, 0x04, 0x86"); /* vpgatherdd xmm0, [rsi+xmm0*4], xmm2: #UD, the same register twice */
	I("vpcmpeqd ymm2, ymm2, ymm2; vpslld ymm1, ymm2, 2; vpgatherdd ymm0, [rsi+ymm1*8], ymm2");
	/* Element 0 is there, element 1 is not: what has been gathered stays. */
	I("vpcmpeqd xmm2, xmm2, xmm2; mov eax, 0x1000000; vmovd xmm1, eax; vpslldq xmm1, xmm1, 4; vpgatherdd xmm0, [rsi+xmm1*8], xmm2");
}

#define FMA(op, ps, pd, ss, sd) \
	OP3(op ps);             \
	OP3(op pd);             \
	SC3(op ss, "dword");    \
	SC3(op sd, "qword")
#define FMA3(op)                               \
	FMA(op "132", "ps", "pd", "ss", "sd"); \
	FMA(op "213", "ps", "pd", "ss", "sd"); \
	FMA(op "231", "ps", "pd", "ss", "sd")

static void fused(struct insn_test *t)
{
	EACH(FMA3, "vfmadd", "vfmsub", "vfnmadd", "vfnmsub");
	EACH(OP3, "vfmaddsub132ps", "vfmaddsub213pd", "vfmaddsub231ps", "vfmsubadd132pd", "vfmsubadd213ps",
	     "vfmsubadd231pd");
}

void family_avx(struct insn_test *t)
{
	if (!insn_has(X86_FEATURE_AVX))
		return;
	t->setup = rounding;
	floats(t);
	if (insn_has(X86_FEATURE_AVX2))
		integers(t);
	if (insn_has(X86_FEATURE_FMA))
		fused(t);
	if (insn_has(X86_FEATURE_F16C)) {
		I("vcvtph2ps xmm0, xmm1");
		I("vcvtph2ps ymm2, [rsi]");
		I("vcvtps2ph xmm3, ymm4, 0");
		I("vcvtps2ph [rdi], xmm5, 3");
		I("vcvtps2ph [rdi], ymm5, 4");
	}
	t->mode = INSN_32;
	I32("vzeroupper");
	I32("vzeroall");
	I32("vaddps ymm0, ymm1, [esi]; vmovups [edi], ymm7; vpblendvb xmm1, xmm2, xmm3, xmm4");
	I32(".byte 0xc4, 0xe3, 0x69, 0x4c, 0xcb, 0xc0"); /* vpblendvb with bit 7 of the last register number set */
	t->mode = INSN_64;
}
