/* AVX-512: lengths, registers 16 to 31, masks, broadcasts, embedded rounding, mask registers; masked operands over the edge of
 * what is mapped; gathers and scatters that fault in the middle. */
#include "families.h"

/* Braces mean something in a template of inline assembly. */
#define K(n) "%{k" n "%}"
#define Z    "%{z%}"
#define B(n) "%{1to" n "%}"
#define E(m) "%{" m "%}"

static void rounding(struct insn_rng *r, struct insn_state *s)
{
	u64 k = insn_rnd(r);
	u32 masks = k & 7 ? 0x1f80 : (u32)(k >> 16 & 0x1f80);
	st32(s->xsave + 24, masks | (u32)(k >> 32 & 0xe040));
}

/* Three operands: all lengths; registers, memory; merging, zeroing, no mask; displacements in units of the operand or not. */
#define OP3(op)                                     \
	I(op " zmm0" K("1") ", zmm1, zmm2");        \
	I(op " ymm17" K("2") Z ", ymm18, ymm5");    \
	I(op " xmm3" K("3") ", xmm29, xmm30");      \
	I(op " zmm31, zmm20, [rsi+64]");            \
	I(op " zmm8" K("4") ", zmm24, [rdi+1]");    \
	I(op " ymm9" K("5") Z ", ymm10, [rsi-96]"); \
	I(op " xmm16, xmm16, [rbp+0x1f0]")
#define OP3D(op)                                                    \
	OP3(op);                                                    \
	I(op " zmm7" K("6") ", zmm21, dword ptr [rsi+4]" B("16"));  \
	I(op " ymm22" K("7") Z ", ymm1, dword ptr [rdi-8]" B("8")); \
	I(op " xmm2, xmm23, dword ptr [rbp+508]" B("4"))
#define OP3Q(op)                                                     \
	OP3(op);                                                     \
	I(op " zmm7" K("6") ", zmm21, qword ptr [rsi+8]" B("8"));    \
	I(op " ymm22" K("7") Z ", ymm1, qword ptr [rdi-16]" B("4")); \
	I(op " xmm2, xmm23, qword ptr [rbp+1016]" B("2"))
#define ROUND(op)                                             \
	I(op " zmm0" K("1") ", zmm1, zmm2" E("rn-sae"));      \
	I(op " zmm20" K("2") Z ", zmm21, zmm22" E("rd-sae")); \
	I(op " zmm3, zmm4, zmm5" E("ru-sae"));                \
	I(op " zmm6, zmm7, zmm29" E("rz-sae"))
#define OP3S(op, size)                                           \
	I(op " xmm0" K("1") ", xmm1, xmm2");                     \
	I(op " xmm20" K("2") Z ", xmm21, " size " ptr [rsi+4]"); \
	I(op " xmm3, xmm29, " size " ptr [rdi]");                \
	I(op " xmm3" K("3") ", xmm29, " size " ptr [rdi+0x3f8]")
#define OP2(op)                             \
	I(op " zmm0" K("1") ", zmm1");      \
	I(op " ymm17" K("2") Z ", ymm18");  \
	I(op " xmm3, xmm29");               \
	I(op " zmm31" K("3") ", [rsi+64]"); \
	I(op " zmm8" K("4") Z ", [rdi+3]"); \
	I(op " ymm9, [rsi-32]")
#define OP2D(op)                                            \
	OP2(op);                                            \
	I(op " zmm7" K("6") ", dword ptr [rsi+4]" B("16")); \
	I(op " ymm22, dword ptr [rdi-8]" B("8"))
#define OP2Q(op)                                           \
	OP2(op);                                           \
	I(op " zmm7" K("6") ", qword ptr [rsi+8]" B("8")); \
	I(op " xmm22, qword ptr [rdi-8]" B("2"))
/* The comparison with a mask as destination. */
#define CMP(op)                                 \
	I(op " k1, zmm1, zmm2");                \
	I(op " k2" K("3") ", ymm17, [rsi+32]"); \
	I(op " k3" K("3") ", zmm30, [rdi+7]");  \
	I(op " k7" K("1") ", xmm3, xmm20")
#define CMPI(op, n)                                 \
	I(op " k1, zmm1, zmm2, " n);                \
	I(op " k2" K("3") ", ymm17, [rsi+32], " n); \
	I(op " k7" K("1") ", xmm3, xmm20, " n)
#define STORE(op)                          \
	I(op " [rsi+64]" K("1") ", zmm1"); \
	I(op " [rdi+1]" K("2") ", ymm17"); \
	I(op " [rbp]" K("3") ", xmm30");   \
	I(op " [rsi-128], zmm20");         \
	I(op " zmm2" K("4") ", zmm30");    \
	I(op " ymm3" K("5") Z ", ymm4")

static void floats(struct insn_test *t)
{
	EACH(OP3D, "vaddps", "vsubps", "vmulps", "vdivps", "vminps", "vmaxps", "vunpcklps", "vscalefps",
	     "vfmadd132ps", "vfnmsub231ps", "vfmaddsub213ps");
	EACH(OP3Q, "vaddpd", "vdivpd", "vmaxpd", "vunpckhpd", "vscalefpd", "vfmsub213pd", "vfnmadd231pd",
	     "vfmsubadd132pd");
	EACH(ROUND, "vaddps", "vmulpd", "vdivps", "vscalefpd", "vfmadd213ps");
	OP3S("vaddss", "dword");
	OP3S("vmulsd", "qword");
	OP3S("vdivss", "dword");
	OP3S("vmaxsd", "qword");
	OP3S("vcvtss2sd", "dword");
	OP3S("vcvtsd2ss", "qword");
	OP3S("vfmadd231sd", "qword");
	OP3S("vrcp14ss", "dword");
	OP3S("vgetexpsd", "qword");
	OP3S("vscalefss", "dword");
	OP3S("vsqrtsd", "qword");
	EACH(OP2D, "vsqrtps", "vrcp14ps", "vrsqrt14ps", "vgetexpps", "vcvtdq2ps", "vcvtps2dq", "vcvttps2dq",
	     "vcvtps2udq", "vcvtudq2ps");
	EACH(OP2Q, "vsqrtpd", "vrcp14pd", "vgetexppd");
	I("vcvtps2pd zmm0" K("1") ", ymm1; vcvtps2pd ymm20, [rsi+16]; vcvtps2pd zmm2" K("2") Z
	  ", dword ptr [rdi+4]" B("8"));
	I("vcvtpd2ps ymm0" K("1") ", zmm1; vcvtpd2ps xmm20, ymmword ptr [rsi+32]; vcvtpd2dq xmm2" K("2") Z
	  ", qword ptr [rdi+8]" B("4"));
	I("vcvtdq2pd zmm0" K("1") ", [rsi]; vcvtudq2pd zmm20, ymm5; vcvttpd2udq ymm6" K("3") ", zmm7");
	I("vcvtps2pd zmm0, ymm1" E("sae") "; vcvtpd2ps ymm2, zmm3" E("rz-sae"));
	I("vcvtph2ps zmm0" K("1") ", [rsi+32]; vcvtps2ph [rdi+32]" K(
		"2") ", zmm1, 0; vcvtps2ph ymm20, zmm3" E("sae") ", 1");
	CMPI("vcmpps", "0x1e");
	CMPI("vcmppd", "9");
	I("vcmpps k3" K("2") ", zmm1, dword ptr [rsi+8]" B("16") ", 2; vcmpss k4, xmm1, xmm30" E(
		"sae") ", 5; vcmpsd k5" K("1") ", xmm2, qword ptr [rdi+8], 0x11");
	I("vrndscaleps zmm0" K(
		"1") ", zmm1, 0x14; vrndscalepd ymm20, [rsi], 3; vrndscaless xmm2, xmm3, dword ptr [rdi], 0x21");
	I("vgetmantps zmm0" K("1") Z ", [rsi+64], 7; vgetmantsd xmm20, xmm21, xmm22" E("sae") ", 4");
	I("vfixupimmps zmm0" K("1") ", zmm1, [rsi], 0x5a; vfixupimmsd xmm20" K(
		"2") ", xmm21, qword ptr [rdi], 0x81");
	I("vshufps zmm0" K("1") ", zmm1, [rsi+64], 0x1b; vshufpd ymm20" K("2") Z
	  ", ymm21, ymm22, 5; vpermilps zmm3, zmm4, 0x39");
	I("vpermilpd zmm0" K("1") ", zmm1, [rsi]; vpermpd zmm20, zmm21, 0x93; vpermi2ps zmm3" K(
		"2") ", zmm4, zmm5; vpermt2pd ymm6, ymm17, [rdi]");
	I("vshuff32x4 zmm0" K("1") ", zmm1, zmm2, 0x4e; vshuff64x2 ymm20, ymm21, [rsi], 1; vblendmps zmm3" K(
		"2") ", zmm4, [rdi]");
	I("vucomiss xmm17, dword ptr [rsi+4]; seta al; setp ah");
	I("vcomisd xmm1, xmm30" E("sae") "; setb cl; lahf");
	EACH(OP2, "vmovaps", "vmovups", "vmovddup", "vmovshdup", "vmovsldup");
	EACH(STORE, "vmovaps", "vmovups", "vmovupd");
	I("vmovss xmm0" K("1") ", xmm17, xmm2; vmovss xmm3" K("2") Z
	  ", dword ptr [rsi+4]; vmovsd qword ptr [rdi+8]" K("3") ", xmm20; vmovsd xmm21, qword ptr [rbp]");
	I("vmovlps xmm17, xmm18, [rsi+8]; vmovhpd [rdi+16], xmm19; vmovhlps xmm20, xmm21, xmm22; vmovlhps xmm3, xmm24, xmm5");
	I("vmovntps [rsi-64], zmm20; vmovntpd [rdi], ymm17; vmovntdq [rbp+128], zmm1; vmovntdqa zmm30, [rsi]");
	I("vbroadcastss zmm0" K("1") ", dword ptr [rsi+4]; vbroadcastsd zmm20" K("2") Z
	  ", xmm21; vbroadcastf32x4 zmm3" K("3") ", [rdi+16]; vbroadcastf64x4 zmm4, [rsi+32]");
	I("vinsertf32x4 zmm0" K("1") ", zmm1, [rsi+16], 2; vextractf32x4 [rdi+16]" K(
		"2") ", zmm20, 3; vextractf64x4 ymm3" K("3") Z
	  ", zmm4, 1; vinsertps xmm20, xmm21, dword ptr [rsi+4], 0x5a");
	if (insn_has(X86_FEATURE_AVX512DQ)) {
		EACH(OP3D, "vandps", "vandnps", "vorps", "vxorps");
		OP3Q("vxorpd");
		EACH(OP2Q, "vcvtqq2pd", "vcvtpd2qq", "vcvttpd2uqq");
		I("vcvtqq2ps ymm0" K("1") ", zmm1; vcvttps2qq zmm20" K("2") Z
		  ", [rsi+32]; vcvtps2uqq zmm3, dword ptr [rdi+4]" B("8"));
		I("vrangeps zmm0" K("1") ", zmm1, [rsi], 3; vrangesd xmm20, xmm21, qword ptr [rdi], 9; vreducepd zmm3" K(
			"2") ", zmm4, 0x31; vreducess xmm5, xmm6, xmm27, 0x12");
		I("vfpclassps k1" K("2") ", zmm1, 0x3c; vfpclasspd k3, qword ptr [rsi]" B(
			"8") ", 0xff; vfpclassss k4, dword ptr [rdi+4], 0x18");
		I("vbroadcastf32x2 zmm0" K("1") ", qword ptr [rsi+8]; vinsertf64x2 ymm20, ymm21, [rdi], 1; vextractf64x2 [rbp+16]" K(
			"3") ", zmm4, 2; vextractf32x8 [rsi+64]" K("2") ", zmm5, 1");
	}
}

static void integers(struct insn_test *t)
{
	EACH(OP3D, "vpaddd", "vpsubd", "vpandd", "vpandnd", "vpord", "vpxord", "vpmulld", "vpminsd",
	     "vpmaxud", "vpsllvd", "vpsravd", "vprolvd", "vpunpckldq");
	EACH(OP3Q, "vpaddq", "vpsubq", "vpandq", "vpxorq", "vpmuludq", "vpmuldq", "vpminsq", "vpmaxuq",
	     "vpsrlvq", "vpsravq", "vprorvq", "vpunpckhqdq");
	EACH(OP2D, "vpabsd");
	EACH(OP2Q, "vpabsq");
	EACH(OP2, "vmovdqa32", "vmovdqu32", "vmovdqu64");
	EACH(STORE, "vmovdqa64", "vmovdqu32", "vmovdqu64");
	EACH(CMP, "vpcmpeqd", "vpcmpgtq", "vptestmd", "vptestnmq");
	CMPI("vpcmpd", "1");
	CMPI("vpcmpuq", "6");
	I("vpternlogd zmm0" K("1") ", zmm1, [rsi+64], 0x96; vpternlogq ymm20" K("2") Z
	  ", ymm21, qword ptr [rdi+8]" B("4") ", 0xca; vpternlogd xmm3, xmm29, xmm30, 0x1e");
	I("vpslld zmm0" K("1") ", [rsi], 5; vpsraq ymm20, qword ptr [rdi]" B("4") ", 63; vprold zmm3" K("2") Z
	  ", zmm4, 9; vpsrlq xmm5, xmm26, 70");
	I("vpslld zmm0" K("1") ", zmm1, xmm2; vpsraq ymm20, ymm21, [rsi]; vpsrlq zmm3" K("2") Z
	  ", zmm4, xmm30");
	I("vpshufd zmm0" K("1") ", [rsi], 0x39; valignd zmm20" K(
		"2") ", zmm21, zmm22, 5; valignq ymm3, ymm4, [rdi], 2; vpermq zmm5, [rbp], 0x1b");
	I("vpermd zmm0" K("1") ", zmm1, [rsi]; vpermq ymm20, ymm21, ymm22; vpermi2d zmm3" K(
		"2") ", zmm4, zmm5; vpermt2q zmm6, zmm17, qword ptr [rdi]" B("8"));
	I("vshufi32x4 zmm0" K("1") ", zmm1, [rsi], 0x93; vshufi64x2 ymm20, ymm21, ymm22, 2; vpblendmd zmm3" K(
		"2") ", zmm4, dword ptr [rdi]" B("16"));
	I("vpmovsxbd zmm0" K("1") ", [rsi+16]; vpmovzxwq zmm20, xmm21; vpmovsxdq ymm3" K("2") Z
	  ", [rdi+16]; vpmovzxbq zmm4" K("3") ", [rsi+8]");
	I("vpmovqb [rsi+8]" K("1") ", zmm1; vpmovsdw [rdi+32]" K("2") ", zmm20; vpmovusqd ymm3" K("3") Z
	  ", zmm4; vpmovdb xmm5, ymm6; vpmovqw [rbp], ymm17");
	I("vpbroadcastd zmm0" K("1") ", dword ptr [rsi+4]; vpbroadcastq zmm20" K("2") Z
	  ", xmm21; vbroadcasti32x4 zmm3" K("3") ", [rdi+16]; vbroadcasti64x4 zmm4, [rsi]");
	I("vinserti32x4 zmm0" K("1") ", zmm1, [rsi+16], 2; vextracti32x4 [rdi+16]" K(
		"2") ", zmm20, 3; vinserti64x4 zmm3, zmm4, ymm25, 1; vextracti64x4 [rbp]" K("3") ", zmm5, 0");
	I("vpbroadcastd zmm0" K("1") ", eax; vpbroadcastq ymm20, r9; vpbroadcastd xmm21" K("2") Z
	  ", r11d; vpbroadcastq zmm3, rsp");
	I("vmovd xmm17, r10d; vmovq xmm18, rsp; vmovd eax, xmm19; vmovq r11, xmm20; vmovd dword ptr [rsi+4], xmm21; vmovq xmm22, qword ptr [rdi+8]; vmovq qword ptr [rbp], xmm23");
	I("vcvtsi2ss xmm17, xmm1, eax; vcvtsi2sd xmm18, xmm3, r9; vcvtusi2sd xmm4, xmm5, dword ptr [rsi+4]; vcvtusi2ss xmm20, xmm21, r10; vcvtusi2sd xmm6, xmm7, rsp");
	I("vcvtss2si eax, xmm17; vcvttsd2si r9, xmm18; vcvtss2usi r10d, dword ptr [rsi]; vcvttsd2usi r11, qword ptr [rdi]");
	I("vcvtsi2ss xmm0, xmm1, r9d" E("rz-sae") "; vcvtsd2si rcx, xmm20" E(
		"ru-sae") "; vcvttss2usi r9d, xmm21" E("sae"));
	/* Packing by mask. */
	I("vpcompressd [rsi]" K("1") ", zmm1");
	I("vpcompressq [rdi+1]" K("2") ", ymm17; vcompressps xmm3" K("3") Z ", xmm20");
	I("vcompresspd [rsi+8]" K("4") ", zmm30; vpcompressd zmm4" K("5") ", zmm5");
	I("vpexpandd zmm0" K("1") ", [rsi+4]; vpexpandq ymm20" K("2") Z
	  ", [rdi]; vexpandps zmm3" K("3") ", zmm4; vexpandpd xmm5, [rbp+8]");
	if (insn_has(X86_FEATURE_AVX512CD))
		I("vpconflictd zmm0" K("1") ", [rsi]; vpconflictq ymm20, ymm21; vplzcntd zmm3, dword ptr [rdi]" B(
			"16") "; vplzcntq zmm4" K("2") Z
		  ", zmm5; vpbroadcastmb2q zmm6, k3; vpbroadcastmw2d ymm17, k5");
	if (insn_has(X86_FEATURE_AVX512DQ)) {
		OP3Q("vpmullq");
		I("vpmovm2d zmm0, k1; vpmovm2q ymm20, k2; vpmovd2m k3, zmm21; vpmovq2m k4, xmm5");
		I("vpinsrd xmm17, xmm18, r9d, 1; vpinsrq xmm19, xmm20, [rsi+8], 1; vpextrd r10d, xmm21, 2; vpextrq [rdi+8], xmm22, 0; vpextrq rsp, xmm23, 1");
	}
}

static void bytes(struct insn_test *t)
{
	EACH(OP3, "vpaddb", "vpsubw", "vpaddusb", "vpsubsw", "vpmullw", "vpmulhuw", "vpmulhrsw", "vpmaddwd",
	     "vpmaddubsw", "vpavgb", "vpminub", "vpmaxsw", "vpackssdw", "vpackuswb");
	EACH(OP3, "vpunpcklbw", "vpunpckhwd", "vpshufb", "vpsllvw", "vpsravw", "vpermw", "vpermi2w",
	     "vpermt2w", "vpblendmb", "vpblendmw");
	I("vpsadbw zmm0, zmm1, [rsi]; vpsadbw ymm20, ymm21, ymm22");
	EACH(OP2, "vpabsb", "vpabsw", "vmovdqu8", "vmovdqu16");
	EACH(STORE, "vmovdqu8", "vmovdqu16");
	EACH(CMP, "vpcmpeqb", "vpcmpgtw", "vptestmb", "vptestnmw");
	CMPI("vpcmpb", "5");
	CMPI("vpcmpuw", "1");
	I("vpshufhw zmm0" K("1") ", [rsi], 0x4e; vpshuflw ymm20, ymm21, 0x72; vpalignr zmm3" K("2") Z
	  ", zmm4, [rdi], 21; vdbpsadbw zmm5" K("3") ", zmm6, zmm7, 0x93");
	I("vpsllw zmm0" K("1") ", [rsi], 5; vpsraw ymm20, ymm21, xmm22; vpslldq zmm3, [rdi], 7; vpsrldq zmm24, zmm5, 3; vpsrlw zmm6" K(
		"2") Z ", zmm7, [rbp]");
	I("vpmovsxbw zmm0" K("1") ", [rsi+32]; vpmovzxbw zmm20, ymm21; vpmovwb [rdi+32]" K(
		"2") ", zmm3; vpmovuswb ymm4" K("3") Z ", zmm25; vpmovswb [rbp]" K("4") ", ymm6");
	I("vpbroadcastb zmm0" K("1") ", byte ptr [rsi+1]; vpbroadcastw ymm20" K("2") Z
	  ", xmm21; vpbroadcastb zmm3" K("3") ", r9d; vpbroadcastw zmm4, esp");
	I("vpinsrb xmm17, xmm18, r9d, 5; vpinsrw xmm19, xmm20, [rsi+2], 1; vpextrb r10d, xmm21, 3; vpextrw [rdi+2], xmm22, 4; vpextrw r11d, xmm23, 7; vpextrb [rsi+1], xmm24, 9");
	I("vpmovm2b zmm0, k1; vpmovm2w ymm20, k2; vpmovb2m k3, zmm21; vpmovw2m k4, xmm5");
	if (insn_has(X86_FEATURE_AVX512_VBMI))
		EACH(OP3, "vpermb", "vpermi2b", "vpermt2b", "vpmultishiftqb");
	if (insn_has(X86_FEATURE_AVX512_VBMI2)) {
		EACH(OP3D, "vpshldvd", "vpshrdvd");
		OP3("vpshldvw");
		I("vpshldd zmm0" K("1") ", zmm1, [rsi], 7; vpshrdq ymm20, ymm21, qword ptr [rdi]" B(
			"4") ", 33; vpshldw zmm3" K("2") Z ", zmm4, zmm5, 9");
		I("vpcompressb [rsi+1]" K("1") ", zmm1; vpcompressw [rdi]" K(
			"2") ", ymm20; vpcompressb zmm3" K("3") Z
		  ", zmm4; vpexpandb zmm5" K("4") ", [rbp]; vpexpandw zmm26" K("5") ", zmm7");
	}
	if (insn_has(X86_FEATURE_AVX512_BITALG)) {
		EACH(OP2, "vpopcntb", "vpopcntw");
		CMP("vpshufbitqmb");
	}
	if (insn_has(X86_FEATURE_AVX512_VPOPCNTDQ)) {
		OP2D("vpopcntd");
		OP2Q("vpopcntq");
	}
	if (insn_has(X86_FEATURE_AVX512IFMA))
		EACH(OP3Q, "vpmadd52luq", "vpmadd52huq");
	if (insn_has(X86_FEATURE_AVX512_VNNI))
		EACH(OP3D, "vpdpbusd", "vpdpwssds");
	if (insn_has(X86_FEATURE_AVX512_BF16)) {
		OP3D("vdpbf16ps");
		OP3D("vcvtne2ps2bf16");
		I("vcvtneps2bf16 ymm0" K("1") ", zmm1; vcvtneps2bf16 xmm20, ymmword ptr [rsi]");
	}
	if (insn_has(X86_FEATURE_AVX512_VP2INTERSECT))
		I("vp2intersectd k2, zmm0, [rsi]; vp2intersectq k5, ymm20, ymm21; vp2intersectd k6, zmm1, dword ptr [rdi]" B(
			"16"));
	if (insn_has(X86_FEATURE_GFNI)) {
		OP3("vgf2p8mulb");
		I("vgf2p8affineqb zmm0" K(
			"1") ", zmm1, [rsi], 0x63; vgf2p8affineinvqb ymm20, ymm21, qword ptr [rdi]" B("4") ", 5");
	}
	if (insn_has(X86_FEATURE_VAES))
		I("vaesenc zmm0, zmm1, [rsi]; vaesdeclast ymm20, ymm21, ymm22; vaesdec zmm3, zmm4, zmm5");
	if (insn_has(X86_FEATURE_VPCLMULQDQ))
		I("vpclmulqdq zmm0, zmm1, [rsi], 0x11; vpclmulqdq xmm20, xmm21, xmm22, 1");
}

#define KOP3(op)      I(op " k1, k2, k3; " op " k4, k4, k5")
#define KOP2(op)      I(op " k1, k2; " op " k4, k4")
#define KSIZES(m, op) EACH(m, op "b", op "w", op "d", op "q")
#define KSHIFT(op)    I(op " k1, k2, 3; " op " k3, k4, 31; " op " k5, k6, 200")
#define KTEST(op)                          \
	I(op " k1, k2; seta al; setc ah"); \
	I(op " k3, k3; setz cl; lahf")

static void masks(struct insn_test *t)
{
	KSIZES(KOP3, "kand");
	KSIZES(KOP3, "kandn");
	KSIZES(KOP3, "kor");
	KSIZES(KOP3, "kxor");
	KSIZES(KOP3, "kxnor");
	KSIZES(KOP3, "kadd");
	KSIZES(KOP2, "knot");
	KSIZES(KOP2, "kmov");
	KSIZES(KSHIFT, "kshiftl");
	KSIZES(KSHIFT, "kshiftr");
	KSIZES(KTEST, "kortest");
	KSIZES(KTEST, "ktest");
	I("kunpckbw k1, k2, k3; kunpckwd k4, k5, k6; kunpckdq k7, k0, k1");
	I("kmovb k1, [rsi+1]; kmovw k2, [rdi+3]; kmovd k3, [rbp]; kmovq k4, [rsi+7]");
	I("kmovb [rsi+1], k1; kmovw [rdi+3], k2; kmovd [rbp], k3; kmovq [rsi+7], k4");
	I("kmovb k1, eax; kmovw k2, r9d; kmovd k3, r10d; kmovq k4, r11; kmovq k5, rsp; kmovq k6, r15");
	I("kmovb eax, k1; kmovw r9d, k2; kmovd r10d, k3; kmovq r11, k4; kmovq rdx, k5; kmovd r12d, k6");
	I("kmovq rsp, k7");
	I("kmovq k1, [0x20001ffc]; kmovd k2, [0x20002ffd]; kmovq [0x20000ffc], k3"); /* over a page, off the end */
	I("kmovq [0x20001ffc], k3"); /* into the read-only page */
	/* Flags live across them, in both ways. */
	I("add eax, ebx; kortestw k1, k1; adc ecx, edx; kmovd r9d, k1; adc r9d, 0");
	I("cmp eax, ebx; vpaddd zmm0" K("1") ", zmm1, [rsi]; kmovq k2, [rdi]; setb al; setg ah");
}

/* Masks that let through what is on one side of an edge, or a little more. */
static void few_bits(struct insn_rng *r, struct insn_state *s)
{
	static const u64 few[] = { 0,     1,    3,      0xf,          0xff,  0xffff,
				   0x1ff, 0x80, 0x8000, 0xfffffffful, ~0ull, 0x5555 };

	for (unsigned k = 0; k < 8; k++) {
		u64 v = insn_rnd(r);
		st64(s->xsave + X86_XSAVE_OPMASK_OFFSET + 8 * k,
		     few[v % ARRAY_SIZE(few)] ^ (v & BIT(20) ? BIT(v >> 32 & 63) : 0));
	}
}

/* Operands at the end of what is mapped (20003000H), of what may be written (20002000H), and over a page's end. */
static void edges(struct insn_test *t)
{
#define AT(at)                                                                                           \
	I("mov r8d, " at "; vmovdqu8 zmm0" K("1") ", [r8]");                                             \
	I("mov r8d, " at "; vmovdqu32 zmm20" K("2") Z ", [r8]; vmovdqu64 ymm3" K("3") ", [r8+8]");       \
	I("mov r8d, " at "; vmovdqu8 [r8]" K("1") ", zmm0");                                             \
	I("mov r8d, " at "; vmovdqu32 [r8]" K("2") ", zmm20");                                           \
	I("mov r8d, " at "; vmovdqu16 [r8+1]" K("3") ", zmm20; vmovdqu64 [r8]" K("4") ", ymm1");         \
	I("mov r8d, " at "; vaddps zmm0" K("1") ", zmm1, [r8]");                                         \
	I("mov r8d, " at "; vaddpd zmm0" K("3") ", zmm1, qword ptr [r8+60]" B("8"));                     \
	I("mov r8d, " at "; vpunpckldq zmm0" K("1") ", zmm1, [r8]"); /* the mask spares nothing */       \
	I("mov r8d, " at "; vpmovzxbd zmm0" K("5") ", [r8+24]; vcvtps2pd zmm1" K("6") ", [r8+16]");      \
	I("mov r8d, " at "; vpmovqb [r8+27]" K("5") ", zmm0; vpmovdw [r8+16]" K("3") ", zmm20");         \
	I("mov r8d, " at                                                                                 \
	  "; vbroadcastf32x4 zmm0" K("5") ", [r8+24]; vbroadcastss zmm1" K("3") ", dword ptr [r8+30]");  \
	I("mov r8d, " at                                                                                 \
	  "; vmovss xmm0" K("1") ", dword ptr [r8+30]; vaddsd xmm1" K("3") ", xmm2, qword ptr [r8+28]"); \
	I("mov r8d, " at "; vmovsd qword ptr [r8+28]" K("5") ", xmm0");                                  \
	I("mov r8d, " at "; vextracti32x4 [r8+24]" K("7") ", zmm0, 1");                                  \
	I("mov r8d, " at "; vpcompressd [r8]" K("1") ", zmm0");                                          \
	I("mov r8d, " at "; vpcompressq [r8]" K("2") ", zmm0");                                          \
	I("mov r8d, " at "; vpexpandd zmm0" K("3") ", [r8]");                                            \
	I("mov r8d, " at "; vpcmpeqd k1" K("5") ", zmm0, [r8]; vptestmb k2" K("7") ", zmm1, [r8]");      \
	I("mov r8d, " at "; vmovups zmm0, [r8]");                                                        \
	I("mov r8d, " at "; vmovups [r8], zmm0");                                                        \
	I("mov r8d, " at "; vcvtps2ph [r8+16]" K("5") ", zmm0, 0; vcvtph2ps zmm1" K("3") ", [r8+16]");   \
	I("mov r8d, " at "; vmovdqa32 zmm0" K("5") ", [r8+0x3e0]")
	AT("0x20000fe0");
	AT("0x20001fe0");
	AT("0x20002fe0");
	AT("0x20003000");
	/* Nothing is touched at all. */
	I("kxorq k1, k1, k1; vmovdqu8 zmm0" K("1") ", [rax]; vmovdqu32 [rbx]" K(
		"1") ", zmm1; vpcompressd [rcx]" K("1") ", zmm2; vpexpandd zmm3" K("1") Z ", [rdx]");
	I("kxorq k1, k1, k1; vaddps zmm0" K("1") ", zmm1, dword ptr [r8]" B("16") "; vmovaps zmm2" K(
		"1") ", [r12+1]");
	/* Code that goes on with what a fault left. */
	I("mov r8d, 0x20002fe0; mov eax, 0xff; kmovd k1, eax; vmovdqu32 zmm0" K("1") ", [r8]; vmovdqu32 [r8-4096]" K(
		"1") ", zmm0; mov eax, 0x1ff; kmovd k1, eax; vmovdqu32 zmm1" K("1") ", [r8]");
	I("mov r8d, 0x20001fe0; mov eax, 0xff; kmovd k1, eax; vmovdqu32 [r8]" K(
		"1") ", zmm0; mov eax, 0x1ff; kmovd k1, eax; vmovdqu32 [r8]" K("1") ", zmm1");
}

#define INDEX  "vpsrld zmm1, zmm1, 24;"
#define INDEXQ "vpsrlq zmm17, zmm17, 56;"
#define GATHER(op)                                      \
	I(INDEX op " zmm0" K("1") ", [rsi+zmm1*4]");    \
	I(INDEX op " ymm20" K("2") ", [rdi+ymm1*2+8]"); \
	I(INDEX "vmovdqa32 zmm30, zmm1;" op " xmm3" K("3") ", [rbp+xmm30*1-12]")
#define SCATTER(op)                                     \
	I(INDEX op " [rsi+zmm1*4]" K("1") ", zmm0");    \
	I(INDEX op " [rdi+ymm1*2+8]" K("2") ", ymm20"); \
	I(INDEX "vmovdqa32 zmm30, zmm1;" op " [rbp+xmm30*1-12]" K("3") ", xmm3")

static void gathers(struct insn_test *t)
{
	EACH(GATHER, "vpgatherdd", "vgatherdps");
	EACH(SCATTER, "vpscatterdd", "vscatterdps");
	I(INDEX "vpgatherdq zmm0" K("1") ", [rsi+ymm1*8]; vgatherdpd ymm20" K("2") ", [rdi+xmm1*4]");
	I(INDEXQ "vpgatherqd ymm0" K("1") ", [rsi+zmm17*4]; vgatherqps xmm20" K("2") ", [rdi+xmm17*4]");
	I(INDEXQ "vpgatherqq zmm0" K("1") ", [rsi+zmm17*8]; vgatherqpd ymm20" K("2") ", [rdi+ymm17*1]");
	I(INDEX "vpscatterdq [rsi+ymm1*8]" K("1") ", zmm0; vscatterdpd [rdi+xmm1*4]" K("2") ", ymm20");
	I(INDEXQ "vpscatterqd [rsi+zmm17*4]" K("1") ", ymm0; vscatterqps [rdi+xmm17*4]" K("2") ", xmm20");
	I(INDEXQ "vpscatterqq [rsi+zmm17*8]" K("1") ", zmm0; vscatterqpd [rdi+ymm17*1]" K("2") ", ymm20");
	/* Several to one place: the last stays. */
	I("vpxord zmm1, zmm1, zmm1; vpscatterdd [rsi+zmm1*4]" K("1") ", zmm0");
	/* Elements 0 to 4 are there, 5 is not: what has been done stays, its mask bits are clear. */
#define HOLE                                                                                            \
	"kxnorw k1, k1, k1; vpxord zmm1, zmm1, zmm1; mov eax, 0x20; kmovd k2, eax; mov eax, 0x1000000;" \
	"vpbroadcastd zmm1" K("2") ", eax;"
	I(HOLE "vpgatherdd zmm0" K("1") ", [rsi+zmm1*8]");
	I(HOLE "vpscatterdd [rsi+zmm1*8]" K("1") ", zmm0");
	I(HOLE "vpgatherdd ymm0" K("1") ", [rsi+ymm1*8]; vpgatherdd xmm2" K("1") ", [rsi+xmm1*8]");
	I(HOLE "vpsrldq xmm1, xmm1, 4; vpgatherdd xmm0" K("1") ", [rsi+xmm1*8]");
	I("vpternlogd zmm17, zmm17, zmm17, 0xff;" INDEX "vpmovzxdq zmm17" K("3") Z
	  ", ymm1; vpgatherqd ymm0" K("1") ", [rsi+zmm17*8]");
	I("vpternlogd zmm17, zmm17, zmm17, 0xff; vpmovzxdq zmm17" K("3") Z
	  ", ymm1; vpgatherqq zmm0" K("1") ", [rsi+zmm17*8]");
	I(HOLE "vpgatherdq zmm0" K("1") ", [rsi+ymm1*8]");
	I(HOLE "vpscatterdq [rsi+ymm1*8]" K("1") ", zmm0");
	I("mov eax, 0x0ff0; kmovd k3, eax;" HOLE "kmovq k1, k3; vpscatterdd [rsi+zmm1*8]" K("1") ", zmm0");
	/* The element's mask bit is not set: no access. */
	I("mov eax, 0xffdf; kmovd k3, eax;" HOLE "kmovq k1, k3; vpgatherdd zmm0" K("1") ", [rsi+zmm1*8]");
	I(".byte 0x62, 0xf2, 0x7d, 0x49, 0x90, 0x0c, 0x0e"); /* #UD: into its own indexes */
	I(".byte 0x62, 0xf2, 0x7d, 0x48, 0x90, 0x04, 0x0e"); /* #UD: no mask */
}

/* What an instruction leaves of the parts it does not write. */
static void uppers(struct insn_test *t)
{
	I("addps xmm0, xmm1; vaddps xmm2, xmm2, xmm3; vaddps ymm4, ymm5, ymm6; vaddps xmm17, xmm18, xmm19; vaddps ymm20, ymm21, ymm22; movaps xmm8, xmm9; vmovd xmm10, eax; vmovd xmm30, eax");
	I("vzeroupper");
	I("vzeroall");
	I("vzeroupper; vaddps zmm0, zmm16, zmm17; movaps [rsi], xmm0");
	I("vmaskmovps ymm0, ymm1, [rsi]; vmovntdqa ymm2, [rdi]");
	I("vpcmpeqd ymm2, ymm2, ymm2; vpsrld ymm1, ymm1, 24; vpgatherdd ymm0, [rsi+ymm1*4], ymm2");
	I("cvtsi2sd xmm0, rax; vcvtsi2sd xmm1, xmm2, rax; fld qword ptr [rsi]; vaddpd zmm3, zmm4, [rdi]; fstp qword ptr [rsi]; movq mm0, [rdi]; vpaddd zmm5, zmm6, zmm7; movq [rsi+8], mm0; emms");
}

static void undefined(struct insn_test *t)
{
	I(".byte 0x62, 0xf1, 0x7c, 0xc8, 0x10, 0x06"); /* z without a mask */
	I(".byte 0x62, 0xf1, 0x7c, 0xc9, 0x11, 0x06"); /* z with a store */
	I(".byte 0x62, 0xf1, 0x75, 0xc9, 0x76, 0x06"); /* z with a mask as destination */
	I(".byte 0x62, 0xf1, 0x7c, 0x68, 0x10, 0xc0"); /* L'L = 3 */
	I(".byte 0x62, 0xf1, 0x76, 0x68, 0x58, 0xc0");
	I(".byte 0x62, 0xf1, 0x76, 0x78, 0x58, 0xc0"); /* there it is a rounding mode */
	I(".byte 0x62, 0xf1, 0x74, 0x18, 0x5d, 0xc0"); /* {sae} of 512 bits */
	I(".byte 0x62, 0xf1, 0x7c, 0x58, 0x10, 0xc0"); /* b where it means nothing */
	I(".byte 0x62, 0xf1, 0x75, 0x58, 0xfc, 0x06");
	I(".byte 0x62, 0xf1, 0x7c, 0x40, 0x10, 0x06"); /* vvvv, V' where there is no operand */
	I(".byte 0x62, 0xf1, 0x74, 0x48, 0x10, 0x06");
	I(".byte 0x62, 0x71, 0x75, 0x48, 0x76, 0x06"); /* mask register 8 */
	I(".byte 0x62, 0xe1, 0x75, 0x48, 0x76, 0x06");
	I(".byte 0x62, 0xb2, 0x7e, 0x48, 0x38, 0xc1"); /* of ModRM.rm the high bits do not count */
	I(".byte 0x62, 0xd2, 0x7e, 0x48, 0x38, 0xc1");
	I(".byte 0x62, 0xe1, 0x7e, 0x08, 0x2d, 0xc1"); /* general register 16 */
	I(".byte 0x62, 0xb1, 0x7d, 0x08, 0x6e, 0xc1");
	I(".byte 0x62, 0xf9, 0x7c, 0x48, 0x10, 0xc0"); /* reserved bits */
	I(".byte 0x62, 0xf1, 0x78, 0x48, 0x10, 0xc0");
	I(".byte 0x62, 0xf0, 0x7c, 0x48, 0x10, 0xc0");       /* map 0 */
	I(".byte 0x66, 0x62, 0xf1, 0x7c, 0x48, 0x10, 0xc0"); /* prefixes before it */
	I(".byte 0x48, 0x62, 0xf1, 0x7c, 0x48, 0x10, 0xc0");
	I(".byte 0xf0, 0x62, 0xf1, 0x7c, 0x48, 0x11, 0x06");
	I(".byte 0x62, 0xf1, 0x74, 0x28, 0x12, 0xc1"); /* VMOVHLPS of 256 bits */
	I(".byte 0x62, 0xf2, 0x7e, 0x49, 0x38, 0xc1"); /* a mask where there is none */
	I(".byte 0xc5, 0xb4, 0x41, 0xc1");             /* KANDW: vvvv, R, B, L */
	I(".byte 0xc5, 0x74, 0x41, 0xc1");
	I(".byte 0xc4, 0xc1, 0x74, 0x41, 0xc1");
	I(".byte 0xc5, 0xf0, 0x41, 0xc1");
	I(".byte 0xc5, 0xfc, 0x90, 0xc1");
}

void family_avx512(struct insn_test *t)
{
	if (!insn_has(X86_FEATURE_AVX512F) || !insn_has(X86_FEATURE_AVX512VL) ||
	    !insn_has(X86_FEATURE_AVX512BW) || !insn_has(X86_FEATURE_AVX512DQ))
		return;
	t->setup = rounding;
	floats(t);
	integers(t);
	bytes(t);
	masks(t);
	t->loose_cr2 = true;
	t->setup = few_bits;
	edges(t);
	gathers(t);
	t->loose_cr2 = false;
	t->setup = rounding;
	uppers(t);
	undefined(t);
	t->mode = INSN_32;
	I32("vaddps zmm0" K("1") ", zmm1, [esi+64]; vmovups [edi]" K("2") ", zmm7; vpgatherdd ymm1" K(
		"3") ", [esi+ymm2*1]");
	I32("vzeroupper");
	I32("vzeroall");
	I32("kmovd k1, eax; kmovd ecx, k2; kandq k3, k4, k5; vmovd xmm0, edx; vpbroadcastd zmm1" K(
		"1") ", ecx");
	I32("vcvtsi2sd xmm0, xmm1, eax; vcvttss2usi ecx, xmm2; vpinsrd xmm3, xmm4, edx, 1");
	I32(".byte 0x62, 0xf1, 0x7c, 0x40, 0x10, 0x06"); /* V' */
	I32(".byte 0x62, 0xe1, 0x7c, 0x48, 0x10, 0xc1"); /* R' and B do not count */
	I32(".byte 0x62, 0xd1, 0x7c, 0x48, 0x10, 0xc1");
	I32("bound eax, [esi]");
	t->mode = INSN_64;
}
