/* Generator of random instruction sequences.
 *
 * Bytes are drawn opcode map by opcode map, with random prefixes and operands, and Zydis says what they are. Kept is what a
 * program may execute and whose result depends on nothing but the registers and memory of the case; not kept are
 * system calls and interrupts, what reads clocks, random numbers, CPUID or the system's tables, segment loads, far
 * transfers, and the instructions of features that the VM or the host lacks.
 *
 * So that most instructions do not fault, memory operands are steered: MOVs in front give their base and index registers values
 * that lead into the data pages, mostly aligned, sometimes across a page or its end. Branches go forward to
 * the start of an instruction.
 */
#include "gen.h"
#include "../avx512_sets.h"

#include <string.h>

#include <Zydis/Zydis.h>

#include "x86/cpuid.h"

#define NO_FEATURE (-1)

static const struct {
	ZydisISASet set;
	int feature;
} allowed_sets[] = {
	{ ZYDIS_ISA_SET_I86, NO_FEATURE },
	{ ZYDIS_ISA_SET_I186, NO_FEATURE },
	{ ZYDIS_ISA_SET_I286REAL, NO_FEATURE },
	{ ZYDIS_ISA_SET_I286PROTECTED, NO_FEATURE },
	{ ZYDIS_ISA_SET_I386, NO_FEATURE },
	{ ZYDIS_ISA_SET_I486, NO_FEATURE },
	{ ZYDIS_ISA_SET_I486REAL, NO_FEATURE },
	{ ZYDIS_ISA_SET_PENTIUMREAL, NO_FEATURE },
	{ ZYDIS_ISA_SET_LONGMODE, NO_FEATURE },
	{ ZYDIS_ISA_SET_PPRO, NO_FEATURE },
	{ ZYDIS_ISA_SET_FAT_NOP, NO_FEATURE },
	{ ZYDIS_ISA_SET_PAUSE, NO_FEATURE },
	{ ZYDIS_ISA_SET_PREFETCH_NOP, NO_FEATURE },
	{ ZYDIS_ISA_SET_CMOV, X86_FEATURE_CMOV },
	{ ZYDIS_ISA_SET_LAHF, X86_FEATURE_LAHF_LM },
	{ ZYDIS_ISA_SET_CMPXCHG16B, X86_FEATURE_CX16 },
	{ ZYDIS_ISA_SET_CLFSH, X86_FEATURE_CLFSH },
	{ ZYDIS_ISA_SET_CLFLUSHOPT, X86_FEATURE_CLFLUSHOPT },
	{ ZYDIS_ISA_SET_CLWB, X86_FEATURE_CLWB },
	{ ZYDIS_ISA_SET_X87, X86_FEATURE_FPU },
	{ ZYDIS_ISA_SET_FCMOV, X86_FEATURE_CMOV },
	{ ZYDIS_ISA_SET_PENTIUMMMX, X86_FEATURE_MMX },
	{ ZYDIS_ISA_SET_SSE, X86_FEATURE_SSE },
	{ ZYDIS_ISA_SET_SSEMXCSR, X86_FEATURE_SSE },
	{ ZYDIS_ISA_SET_SSE_PREFETCH, X86_FEATURE_SSE },
	{ ZYDIS_ISA_SET_SSE2, X86_FEATURE_SSE2 },
	{ ZYDIS_ISA_SET_SSE2MMX, X86_FEATURE_SSE2 },
	{ ZYDIS_ISA_SET_SSE3, X86_FEATURE_SSE3 },
	{ ZYDIS_ISA_SET_SSE3X87, X86_FEATURE_SSE3 },
	{ ZYDIS_ISA_SET_SSSE3, X86_FEATURE_SSSE3 },
	{ ZYDIS_ISA_SET_SSSE3MMX, X86_FEATURE_SSSE3 },
	{ ZYDIS_ISA_SET_SSE4, X86_FEATURE_SSE4_1 },
	{ ZYDIS_ISA_SET_SSE42, X86_FEATURE_SSE4_2 },
	{ ZYDIS_ISA_SET_POPCNT, X86_FEATURE_POPCNT },
	{ ZYDIS_ISA_SET_LZCNT, X86_FEATURE_ABM },
	{ ZYDIS_ISA_SET_MOVBE, X86_FEATURE_MOVBE },
	{ ZYDIS_ISA_SET_ADOX_ADCX, X86_FEATURE_ADX },
	{ ZYDIS_ISA_SET_BMI1, X86_FEATURE_BMI1 },
	{ ZYDIS_ISA_SET_BMI2, X86_FEATURE_BMI2 },
	{ ZYDIS_ISA_SET_AES, X86_FEATURE_AES },
	{ ZYDIS_ISA_SET_PCLMULQDQ, X86_FEATURE_PCLMULQDQ },
	{ ZYDIS_ISA_SET_SHA, X86_FEATURE_SHA },
	{ ZYDIS_ISA_SET_AVX, X86_FEATURE_AVX },
	{ ZYDIS_ISA_SET_AVXAES, X86_FEATURE_AES },
	{ ZYDIS_ISA_SET_AVX2, X86_FEATURE_AVX2 },
	{ ZYDIS_ISA_SET_AVX2GATHER, X86_FEATURE_AVX2 },
	{ ZYDIS_ISA_SET_F16C, X86_FEATURE_F16C },
	{ ZYDIS_ISA_SET_FMA, X86_FEATURE_FMA },
	{ ZYDIS_ISA_SET_GFNI, X86_FEATURE_GFNI },
	{ ZYDIS_ISA_SET_AVX_GFNI, X86_FEATURE_GFNI },
	{ ZYDIS_ISA_SET_VAES, X86_FEATURE_VAES },
	{ ZYDIS_ISA_SET_VPCLMULQDQ, X86_FEATURE_VPCLMULQDQ },
	{ ZYDIS_ISA_SET_AVX_VNNI, X86_FEATURE_AVX_VNNI },
};

/* How often (percent) an instruction that was drawn is kept; those not named: always. */
static const struct {
	ZydisMnemonic mnemonic;
	u8 keep;
} weights[] = {
	/* They leave the program, or tell of the system. */
	{ ZYDIS_MNEMONIC_INT, 0 },
	{ ZYDIS_MNEMONIC_INT1, 0 },
	{ ZYDIS_MNEMONIC_INT3, 0 },
	{ ZYDIS_MNEMONIC_SYSCALL, 0 },
	{ ZYDIS_MNEMONIC_SYSRET, 0 },
	{ ZYDIS_MNEMONIC_SYSENTER, 0 },
	{ ZYDIS_MNEMONIC_SYSEXIT, 0 },
	{ ZYDIS_MNEMONIC_IRET, 0 },
	{ ZYDIS_MNEMONIC_IRETD, 0 },
	{ ZYDIS_MNEMONIC_IRETQ, 0 },
	{ ZYDIS_MNEMONIC_CPUID, 0 },
	{ ZYDIS_MNEMONIC_RDTSC, 0 },
	{ ZYDIS_MNEMONIC_RDPMC, 0 },
	{ ZYDIS_MNEMONIC_SWAPGS, 0 },
	{ ZYDIS_MNEMONIC_RDMSR, 0 },
	{ ZYDIS_MNEMONIC_WRMSR, 0 },
	{ ZYDIS_MNEMONIC_SGDT, 0 },
	{ ZYDIS_MNEMONIC_SIDT, 0 },
	{ ZYDIS_MNEMONIC_SLDT, 0 },
	{ ZYDIS_MNEMONIC_STR, 0 },
	{ ZYDIS_MNEMONIC_SMSW, 0 },
	{ ZYDIS_MNEMONIC_LAR, 0 },
	{ ZYDIS_MNEMONIC_LSL, 0 },
	{ ZYDIS_MNEMONIC_VERR, 0 },
	{ ZYDIS_MNEMONIC_VERW, 0 },
	{ ZYDIS_MNEMONIC_LDS, 0 },
	{ ZYDIS_MNEMONIC_LES, 0 },
	{ ZYDIS_MNEMONIC_LFS, 0 },
	{ ZYDIS_MNEMONIC_LGS, 0 },
	{ ZYDIS_MNEMONIC_LSS, 0 },
	{ ZYDIS_MNEMONIC_LWPVAL, 0 },
	/* TF and AC would trap or check alignment from then on. */
	{ ZYDIS_MNEMONIC_POPF, 0 },
	{ ZYDIS_MNEMONIC_POPFD, 0 },
	{ ZYDIS_MNEMONIC_POPFQ, 0 },
	/* Bit 17, misaligned mode, exists on AMD's processors and is not offered: the families have the other bits. */
	{ ZYDIS_MNEMONIC_LDMXCSR, 0 },
	{ ZYDIS_MNEMONIC_VLDMXCSR, 0 },
	/* They store the x87 pointers, which no two processors do alike. */
	{ ZYDIS_MNEMONIC_FNSTENV, 0 },
	{ ZYDIS_MNEMONIC_FNSAVE, 0 },
	/* Random values here mostly mean a fault now or at the next instruction of the kind. */
	{ ZYDIS_MNEMONIC_FLDENV, 10 },
	{ ZYDIS_MNEMONIC_FRSTOR, 10 },
	{ ZYDIS_MNEMONIC_FLDCW, 15 },
	{ ZYDIS_MNEMONIC_DIV, 15 },
	{ ZYDIS_MNEMONIC_IDIV, 15 },
	{ ZYDIS_MNEMONIC_AAM, 50 },
	{ ZYDIS_MNEMONIC_BOUND, 5 },
	{ ZYDIS_MNEMONIC_INTO, 10 },
	/* They end the sequence. */
	{ ZYDIS_MNEMONIC_UD0, 2 },
	{ ZYDIS_MNEMONIC_UD1, 2 },
	{ ZYDIS_MNEMONIC_UD2, 5 },
	{ ZYDIS_MNEMONIC_HLT, 2 },
	{ ZYDIS_MNEMONIC_CLI, 2 },
	{ ZYDIS_MNEMONIC_STI, 2 },
	{ ZYDIS_MNEMONIC_IN, 1 },
	{ ZYDIS_MNEMONIC_OUT, 1 },
	{ ZYDIS_MNEMONIC_INSB, 1 },
	{ ZYDIS_MNEMONIC_INSW, 1 },
	{ ZYDIS_MNEMONIC_INSD, 1 },
	{ ZYDIS_MNEMONIC_OUTSB, 1 },
	{ ZYDIS_MNEMONIC_OUTSW, 1 },
	{ ZYDIS_MNEMONIC_OUTSD, 1 },
	{ ZYDIS_MNEMONIC_RET, 3 },
	{ ZYDIS_MNEMONIC_CLTS, 2 },
	{ ZYDIS_MNEMONIC_INVD, 2 },
	{ ZYDIS_MNEMONIC_WBINVD, 2 },
	{ ZYDIS_MNEMONIC_INVLPG, 2 },
	{ ZYDIS_MNEMONIC_LGDT, 2 },
	{ ZYDIS_MNEMONIC_LIDT, 2 },
	{ ZYDIS_MNEMONIC_LLDT, 2 },
	{ ZYDIS_MNEMONIC_LTR, 2 },
	{ ZYDIS_MNEMONIC_LMSW, 2 },
};

static ZydisDecoder decoder64, decoder32;
static u8 weight[ZYDIS_MNEMONIC_MAX_VALUE + 1];
static bool set_ok[ZYDIS_ISA_SET_MAX_VALUE + 1];

void gen_init(void)
{
	ZydisDecoderInit(&decoder64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderInit(&decoder32, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
	/* Where the host lacks LZCNT and TZCNT they are BSR and BSF with a prefix: not what Zydis says. */
	memset(weight, 100, sizeof(weight));
	for (unsigned k = 0; k < ARRAY_SIZE(weights); k++)
		weight[weights[k].mnemonic] = weights[k].keep;
	for (unsigned k = 0; k < ARRAY_SIZE(allowed_sets); k++)
		set_ok[allowed_sets[k].set] =
			allowed_sets[k].feature == NO_FEATURE || insn_has((unsigned)allowed_sets[k].feature);
	for (unsigned set = 0; set <= ZYDIS_ISA_SET_MAX_VALUE && insn_has(X86_FEATURE_AVX512F); set++) {
		const char *name = ZydisISASetGetString((ZydisISASet)set);
		for (unsigned k = 0; k < ARRAY_SIZE(avx512_sets); k++) {
			size_t n = strlen(avx512_sets[k].prefix);
			if (!name || strncmp(name, avx512_sets[k].prefix, n))
				continue;
			bool vl = !strcmp(name + n, "128") || !strcmp(name + n, "256");
			set_ok[set] =
				insn_has(avx512_sets[k].feature) && (!vl || insn_has(X86_FEATURE_AVX512VL));
		}
	}
}

bool gen_exclude(const char *mnemonic)
{
	for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
		const char *name = ZydisMnemonicGetString((ZydisMnemonic)m);
		if (name && !strcmp(name, mnemonic)) {
			weight[m] = 0;
			return true;
		}
	}
	return false;
}

struct gen {
	struct insn_rng r;
	struct insn_case *c;
	struct gen_seq *seq;
	u32 at;    /* bytes of code so far */
	bool wild; /* the current instruction keeps its random operands */
	/* Branches whose target is not known yet. */
	struct {
		u16 field, end;
		u8 size;
	} branch[GEN_MAX_INSNS];
	unsigned nr_branches;
};

static u32 pick(struct gen *g, u32 n)
{
	return (u32)((insn_rnd(&g->r) >> 33) % n);
}

static bool chance(struct gen *g, unsigned percent)
{
	return pick(g, 100) < percent;
}

static bool is64(const struct gen *g)
{
	return g->c->mode == INSN_64;
}

/* --- bytes --- */

static unsigned draw_vex(struct gen *g, u8 *b)
{
	unsigned n = 0;
	u64 v = insn_rnd(&g->r);
	if (chance(g, 25)) {
		b[n++] = 0xc5;
		b[n++] = (u8)v | (is64(g) ? 0 : 0xc0);
	} else {
		b[n++] = 0xc4;
		b[n++] = (u8)((v & 0xe0) | (is64(g) ? 0 : 0xc0) | (1 + pick(g, 3)));
		b[n++] = (u8)(v >> 8) & (chance(g, 50) ? 0x7f : 0xff);
	}
	if (chance(g, 30))
		b[n - 1] |= 0x78; /* vvvv unused */
	return n;
}

static unsigned draw_evex(struct gen *g, u8 *b)
{
	u64 v = insn_rnd(&g->r);

	b[0] = 0x62;
	b[1] = (u8)((v & 0xf0) | (is64(g) ? 0 : 0xd0) | (1 + pick(g, 3)));
	b[2] = (u8)(v >> 8) | 4;
	b[3] = (u8)(v >> 16) & 7;
	if (chance(g, 30))
		b[3] = 0;
	if (b[3] && chance(g, 30))
		b[3] |= 0x80; /* z */
	b[3] |= (u8)(pick(g, 3) << 5 | (chance(g, 25) ? 0x10 : 0) | (is64(g) && chance(g, 40) ? 0 : 8));
	if (chance(g, 2))
		b[3] |= 0x60;
	if (chance(g, 30)) { /* vvvv unused */
		b[2] |= 0x78;
		b[3] |= 8;
	}
	return 4;
}

/* Up to 15 random bytes that begin like an instruction of some map. */
static void draw(struct gen *g, u8 b[16])
{
	static const u8 prefixes[] = { 0x66, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x65, 0x67 };
	static const u8 odds[] = { 18, 10, 10, 3, 1, 1, 1, 1, 2, 3 };
	unsigned n = 0, map = pick(g, 100);
	bool vex = map >= 70 && map < 90 && insn_has(X86_FEATURE_AVX);

	for (unsigned k = 0; k < 16; k++)
		b[k] = (u8)(insn_rnd(&g->r) >> 40);
	for (unsigned k = 0; k < ARRAY_SIZE(prefixes); k++)
		if (chance(g, map >= 35 && k < 3 ? 25 : odds[k]) && !(vex && k < 4))
			b[n++] = prefixes[k];
	if (is64(g) && !vex && chance(g, 55)) {
		b[n] = 0x40 | (b[n] & 15);
		n++;
	}
	if (vex && insn_has(X86_FEATURE_AVX512F) && chance(g, 60)) {
		draw_evex(g, b + n);
	} else if (vex) {
		draw_vex(g, b + n);
	} else if (map >= 90) { /* x87 */
		b[n] = 0xd8 | (b[n] & 7);
	} else if (map >= 35) {
		b[n++] = 0x0f;
		if (map >= 62)
			b[n++] = map >= 66 ? 0x3a : 0x38;
		else if (map < 40)
			b[n] = 0x40 + (b[n] & 0x1f);
	} else if (map >= 32) { /* string instructions are few among 256 */
		static const u8 strings[] = { 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf };
		b[n] = strings[pick(g, sizeof(strings))];
	}
}

/* --- preparation --- */

static void emit(struct gen *g, const void *bytes, unsigned n)
{
	memcpy(g->c->code + g->at, bytes, n);
	g->at += n;
}

static void emit_mov(struct gen *g, unsigned reg, u64 val)
{
	u8 b[10];
	unsigned n = 0;
	if (!is64(g) || val >> 32 == 0) {
		if (reg >= 8)
			b[n++] = 0x41;
		b[n++] = (u8)(0xb8 | (reg & 7));
		st32(b + n, (u32)val);
		n += 4;
	} else {
		b[n++] = reg >= 8 ? 0x49 : 0x48;
		b[n++] = (u8)(0xb8 | (reg & 7));
		st64(b + n, val);
		n += 8;
	}
	emit(g, b, n);
}

/* A linear address for an operand of size bytes. */
static u64 target(struct gen *g, unsigned size)
{
	unsigned k = pick(g, 100);
	if (k < 78)
		return INSN_DATA + (pick(g, INSN_DATA_RW - 1024) & ~63u);
	if (k < 88)
		return INSN_DATA + pick(g, INSN_DATA_RW - 1024);
	if (k < 94)
		return INSN_DATA + 4096 - pick(g, size + 1);
	if (k < 96)
		return INSN_DATA + INSN_DATA_RW - pick(g, size + 1);
	if (k < 98)
		return INSN_DATA + INSN_DATA_SIZE - pick(g, size + 1);
	return INSN_DATA + pick(g, INSN_DATA_SIZE);
}

static int gpr_number(ZydisRegister r)
{
	ZydisRegisterClass k = ZydisRegisterGetClass(r);
	if (k == ZYDIS_REGCLASS_GPR64 || k == ZYDIS_REGCLASS_GPR32 || k == ZYDIS_REGCLASS_GPR16)
		return ZydisRegisterGetId(r);
	return -1;
}

/* VPSRLD / VPSRLQ of an index vector, so that it holds small numbers. */
static void emit_small_indexes(struct gen *g, unsigned reg, bool quads, bool evex)
{
	if (evex) {
		u8 z[7] = { 0x62,
			    (u8)(0x91 | (reg & 8 ? 0 : 0x20) | (reg & 16 ? 0 : 0x40)),
			    (u8)(0x05 | (~reg & 15) << 3 | (quads ? 0x80 : 0)),
			    (u8)(0x40 | (reg & 16 ? 0 : 8)),
			    quads ? 0x73 : 0x72,
			    (u8)(0xd0 | (reg & 7)),
			    quads ? 56 : 24 };
		emit(g, z, sizeof(z));
		return;
	}
	u8 b[6] = { 0xc4,
		    (u8)(reg >= 8 ? 0xc1 : 0xe1),
		    (u8)(0x05 | (~reg & 15) << 3),
		    quads ? 0x73 : 0x72,
		    (u8)(0xd0 | (reg & 7)),
		    quads ? 56 : 24 };
	emit(g, b, sizeof(b));
}

static bool is_gather(const ZydisDecodedInstruction *zi)
{
	return zi->meta.category == ZYDIS_CATEGORY_AVX2GATHER || zi->meta.category == ZYDIS_CATEGORY_GATHER ||
	       zi->meta.category == ZYDIS_CATEGORY_SCATTER;
}

/* A masked move with a short address: where that ends some processors cut the address of each element (AMD's Zen 3), others go on
 * behind it. */
static bool may_wrap(const struct gen *g, const ZydisDecodedInstruction *zi)
{
	return (zi->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS || zi->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD ||
		zi->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD || zi->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ) &&
	       zi->address_width < (is64(g) ? 64 : 32);
}

/* Gives the registers of a memory operand values, or patches a displacement; false: not with this operand. */
static bool steer(struct gen *g, u8 *b, const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op)
{
	const ZydisDecodedOperandMem *m = &op->mem;
	unsigned size = op->size / 8;
	int base = gpr_number(m->base), index = gpr_number(m->index);
	u64 t = target(g, size ? size : 1);
	u64 disp = m->disp.has_displacement ? (u64)m->disp.value : 0;

	if (g->wild)
		return true;
	/* Zydis 4.0 takes R13 for the base of a VSIB byte that has none but a displacement, where VEX.B is set. */
	if (is_gather(zi) && zi->raw.modrm.mod == 0 && zi->raw.sib.base == 5)
		base = -1;
	if (is_gather(zi))
		t = INSN_DATA + pick(g, INSN_DATA_RW / 2); /* its indexes will be below 256 */
	if (m->segment == ZYDIS_REGISTER_GS)
		t -= INSN_GS_BASE;
	if (zi->address_width == 16)
		return !may_wrap(g, zi) && chance(g, 20);
	if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP) {
		st32(b + zi->raw.disp.offset, (u32)(t - (INSN_CODE + g->at + zi->length)));
		return true;
	}
	ZydisRegisterClass ic = ZydisRegisterGetClass(m->index);
	if (ic == ZYDIS_REGCLASS_XMM || ic == ZYDIS_REGCLASS_YMM || ic == ZYDIS_REGCLASS_ZMM) {
		/* Gathers and scatters: odd opcodes have indexes of 64 bits. */
		emit_small_indexes(g, (unsigned)ZydisRegisterGetId(m->index), zi->opcode & 1,
				   zi->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX);
		index = -1;
	}
	u64 high = zi->address_width == 32 && is64(g) ? insn_rnd(&g->r) << 32 : 0;
	if (index >= 0 && index == base) {
		emit_mov(g, (unsigned)base, high | (u32)((t - disp) / (1u + m->scale)));
		return true;
	}
	if (index >= 0) {
		u64 k = pick(g, 64);
		emit_mov(g, (unsigned)index, high | k);
		t -= k * m->scale;
	}
	if (base >= 0)
		emit_mov(g, (unsigned)base, zi->address_width == 32 ? high | (u32)(t - disp) : t - disp);
	else if (zi->raw.disp.size == 32)
		st32(b + zi->raw.disp.offset, (u32)t);
	else if (zi->raw.disp.size == 64)
		st64(b + zi->raw.disp.offset, t);
	return true;
}

/* Stores that may change the x87 state before they fault, or not. */
static bool is_masked_store(const ZydisDecodedInstruction *zi)
{
	return zi->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || zi->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
	       zi->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

static bool is_string(const ZydisDecodedInstruction *zi)
{
	return zi->meta.category == ZYDIS_CATEGORY_STRINGOP || zi->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

static void prepare_string(struct gen *g)
{
	bool far = chance(g, 8);
	emit_mov(g, R_SI, target(g, 8));
	emit_mov(g, R_DI, target(g, 8));
	emit_mov(g, R_CX, far ? insn_value(&g->r) : pick(g, 40));
}

static bool is_popa(const ZydisDecodedInstruction *zi)
{
	return zi->mnemonic == ZYDIS_MNEMONIC_POPA || zi->mnemonic == ZYDIS_MNEMONIC_POPAD;
}

/* Many accesses in one instruction. */
static bool is_large(const ZydisDecodedInstruction *zi)
{
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD:
	case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD:
	case ZYDIS_MNEMONIC_ENTER: return true;
	default: return false;
	}
}

/* Its operand is accessed in parts, so that over the end of a segment either fault may come first: the #PF of one part,
 * or the #GP of another. */
static bool is_in_parts(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
	for (unsigned k = 0; k < zi->operand_count_visible; k++)
		if (ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY && ops[k].size == 80)
			return true;
	return zi->mnemonic == ZYDIS_MNEMONIC_BOUND;
}

static void prepare_implicit(struct gen *g, const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
	if (is_string(zi)) {
		prepare_string(g);
		return;
	}
	if (is_masked_store(zi)) {
		emit_mov(g, R_DI, INSN_DATA + pick(g, INSN_DATA_RW - 16));
		return;
	}
	if (is_popa(zi)) {
		/* A fault in the middle leaves some registers loaded on some processors. */
		emit_mov(g, R_SP, INSN_STACK - 4 * pick(g, 64));
		return;
	}
	if (zi->mnemonic == ZYDIS_MNEMONIC_LEAVE || zi->mnemonic == ZYDIS_MNEMONIC_ENTER)
		emit_mov(g, R_BP, INSN_STACK + 8 * pick(g, 32));
	for (unsigned k = zi->operand_count_visible; k < zi->operand_count; k++) {
		const ZydisDecodedOperand *op = &ops[k];
		int base = op->type == ZYDIS_OPERAND_TYPE_MEMORY ? gpr_number(op->mem.base) : -1;
		if (base == R_SP)
			emit_mov(g, R_SP, chance(g, 90) ? INSN_STACK - 8 * pick(g, 64) : target(g, 8));
		else if (base >= 0)
			emit_mov(g, (unsigned)base, target(g, 16));
	}
}

/* --- one instruction --- */

static bool is_branch(const ZydisDecodedInstruction *zi)
{
	return zi->meta.category == ZYDIS_CATEGORY_COND_BR || zi->meta.category == ZYDIS_CATEGORY_UNCOND_BR ||
	       zi->meta.category == ZYDIS_CATEGORY_CALL || zi->meta.category == ZYDIS_CATEGORY_RET;
}

static bool has_prefix(const ZydisDecodedInstruction *zi, u8 byte)
{
	for (unsigned k = 0; k < zi->raw.prefix_count; k++)
		if (zi->raw.prefixes[k].value == byte)
			return true;
	return false;
}

/* Where processors of different makers do different things, and software does nothing. */
static bool is_vendor_specific(struct gen *g, const ZydisDecodedInstruction *zi,
			       const ZydisDecodedOperand *ops)
{
	/* 66H at a near branch in 64-bit mode cuts RIP to 16 bits on AMD, nothing on Intel. */
	if (is_branch(zi) && is64(g) && has_prefix(zi, 0x66))
		return true;
	/* F2H and F3H change the condition of LOOPE and LOOPNE on AMD. */
	if ((zi->mnemonic == ZYDIS_MNEMONIC_LOOPE || zi->mnemonic == ZYDIS_MNEMONIC_LOOPNE) &&
	    (has_prefix(zi, 0xf2) || has_prefix(zi, 0xf3)))
		return true;
	/* The 16-bit form reads two bytes on Intel, four on AMD. */
	if (zi->mnemonic == ZYDIS_MNEMONIC_MOVSXD && zi->operand_width == 16)
		return true;
	/* With REX.B, F3 90 is XCHG on AMD, PAUSE on Intel. */
	if (zi->opcode == 0x90 && zi->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && has_prefix(zi, 0xf3) &&
	    zi->raw.rex.B)
		return true;
	/* VEX.W at a 32-bit general register outside 64-bit mode is ignored, or #UD. */
	if (!is64(g) && zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && zi->raw.vex.W &&
	    (zi->mnemonic == ZYDIS_MNEMONIC_VPINSRD || zi->mnemonic == ZYDIS_MNEMONIC_VPEXTRD))
		return true;
	/* Zydis counts it as AVX alone. */
	if (zi->mnemonic == ZYDIS_MNEMONIC_VPCLMULQDQ && !insn_has(X86_FEATURE_PCLMULQDQ))
		return true;
	/* Zen 5 reads an old RSP where EVEX.X is 0, which does not count for general registers. */
	for (unsigned k = 0; k < zi->operand_count_visible; k++)
		if (zi->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && !zi->raw.evex.X &&
		    ops[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM &&
		    gpr_number(ops[k].reg.value) == R_SP)
			return true;
	/* PREFETCH of a register: #UD or NOP. */
	if (zi->meta.isa_set == ZYDIS_ISA_SET_PREFETCH_NOP && ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER)
		return true;
	return false;
}

static bool wanted(struct gen *g, const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
	if (!set_ok[zi->meta.isa_set] || !chance(g, weight[zi->mnemonic]))
		return false;
	if (zi->meta.isa_set == ZYDIS_ISA_SET_I286PROTECTED && zi->mnemonic != ZYDIS_MNEMONIC_ARPL &&
	    !chance(g, 5))
		return false;
	if (zi->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX)
		return false;
	if (is_branch(zi) && zi->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return false;
	/* FS is the host's own; in 32-bit mode GS is null. */
	if (is_masked_store(zi) && (has_prefix(zi, 0x65) || has_prefix(zi, 0x67) || has_prefix(zi, 0x2e)))
		return false;
	if (has_prefix(zi, 0x64) || (!is64(g) && has_prefix(zi, 0x65)) || is_vendor_specific(g, zi, ops))
		return false;
	for (unsigned k = 0; k < zi->operand_count; k++) {
		if (ops[k].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		ZydisRegisterClass rc = ZydisRegisterGetClass(ops[k].reg.value);
		if (rc == ZYDIS_REGCLASS_CONTROL || rc == ZYDIS_REGCLASS_DEBUG || rc == ZYDIS_REGCLASS_TEST)
			return false;
		if (rc == ZYDIS_REGCLASS_SEGMENT && ops[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			return false;
	}
	return true;
}

/* false: what was drawn is of no use. */
static bool gen_insn(struct gen *g)
{
	u8 b[16];
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	u32 start = g->at;

	draw(g, b);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(is64(g) ? &decoder64 : &decoder32, b, 15, &zi, ops)) ||
	    !wanted(g, &zi, ops))
		return false;
	/* A gather that faults, a base added to an address that is not canonical, and large operands or those in parts
	 * over the end of a segment differ between processors. */
	bool fixed = is_masked_store(&zi) || is_large(&zi) || is_in_parts(&zi, ops) ||
		     has_prefix(&zi, 0x65) || is_gather(&zi) || may_wrap(g, &zi);
	g->wild = !fixed && chance(g, 1);
	g->c->loose_cr2 |= is_large(&zi);
	unsigned field = 0, field_size = 0;
	if (is_branch(&zi) && zi.raw.imm[0].is_relative) {
		if (zi.operand_width == 16 && !chance(g, 5))
			return false; /* cuts EIP to 16 bits */
		field = zi.raw.imm[0].offset;
		field_size = zi.raw.imm[0].size / 8;
	} else if (is_branch(&zi) && zi.mnemonic != ZYDIS_MNEMONIC_RET && !chance(g, 3)) {
		return false; /* to a random address */
	}
	if (zi.mnemonic == ZYDIS_MNEMONIC_ENTER && !chance(g, 5)) { /* a frame that fits into the data */
		b[zi.raw.imm[0].offset + 1] &= 1;
		b[zi.raw.imm[1].offset] &= 0xe3;
	}
	if (!g->wild || chance(g, 50))
		prepare_implicit(g, &zi, ops);
	/* Bit strings: the register may name a bit far away. */
	bool bits = zi.mnemonic == ZYDIS_MNEMONIC_BT || zi.mnemonic == ZYDIS_MNEMONIC_BTS ||
		    zi.mnemonic == ZYDIS_MNEMONIC_BTR || zi.mnemonic == ZYDIS_MNEMONIC_BTC;
	if (bits && ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY && ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    !g->wild)
		emit_mov(g, (unsigned)gpr_number(ops[1].reg.value), pick(g, 4096));
	for (unsigned k = 0; k < zi.operand_count_visible; k++)
		if (ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY && !is_string(&zi) &&
		    !steer(g, b, &zi, &ops[k])) {
			g->at = start;
			return false;
		}
	struct gen_seq *s = g->seq;
	s->start[s->n] = (u16)start;
	s->body[s->n] = (u16)g->at;
	emit(g, b, zi.length);
	if (zi.meta.category == ZYDIS_CATEGORY_DECIMAL)
		emit(g, "\x85\xc0",
		     2); /* TEST: some flags were left undefined, and the host's 64-bit code cannot do the same */
	s->end[s->n] = (u16)g->at;
	if (field_size) {
		g->branch[g->nr_branches].field = (u16)(s->body[s->n] + field);
		g->branch[g->nr_branches].size = (u8)field_size;
		g->branch[g->nr_branches++].end = (u16)g->at;
	}
	s->n++;
	return true;
}

static bool is_prefix(const struct gen *g, u8 b)
{
	switch (b) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3: return true;
	default: return is64(g) && (b & 0xf0) == 0x40;
	}
}

/* Maps and groups where bytes that Zydis does not know may be an instruction of this very processor, or of the system: EVEX
 * with maps of its own, XOP, 3DNow!, 0F 00, 0F 01, 0F AE, 0F C7; MPX, which are NOPs where it is missing; LOCK MOV CR0, on AMD another
 * name of CR8; VPERMQ and VPERMPD with W = 0, which AMD takes. */
static bool may_be_something(const struct gen *g, const u8 *b)
{
	static const u8 second[] = { 0x00, 0x01, 0x0f, 0x1a, 0x1b, 0x20, 0x22, 0xae, 0xc7 };

	while (is_prefix(g, *b))
		b++;
	if (b[0] == 0x62)
		return (b[1] & 7) == 0 || (b[1] & 7) > 3 || !insn_has(X86_FEATURE_AVX512F);
	if (b[0] == 0x8f)
		return true;
	if (b[0] == 0xc4)
		return (b[1] & 0x1f) == 3 && b[3] <= 1;
	for (unsigned k = 0; k < sizeof(second); k++)
		if (b[0] == 0x0f && b[1] == second[k])
			return true;
	return false;
}

/* Some processors first see that such bytes would be too long (#GP), others that they are no instruction (#UD). Behind four
 * prefixes nothing is too long: opcode, ModRM, SIB, displacement and immediate have 11 bytes at most. */
static bool may_be_too_long(const struct gen *g, const u8 *b)
{
	unsigned n = 0;

	while (is_prefix(g, b[n]))
		n++;
	return n > 4;
}

/* Bytes that are no instruction, as the end of a sequence. */
static void gen_invalid(struct gen *g)
{
	u8 b[20] = { 0 };
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	struct gen_seq *s = g->seq;

	for (unsigned tries = 0; tries < 30; tries++) {
		draw(g, b);
		b[15] = 0; /* ends a run of prefixes; the bytes behind are 0 as well */
		ZyanStatus st = ZydisDecoderDecodeFull(is64(g) ? &decoder64 : &decoder32, b, 15, &zi, ops);
		if (ZYAN_SUCCESS(st) || st == ZYDIS_STATUS_NO_MORE_DATA || may_be_something(g, b) ||
		    may_be_too_long(g, b))
			continue;
		s->start[s->n] = s->body[s->n] = (u16)g->at;
		emit(g, b, 15);
		s->end[s->n++] = (u16)g->at;
		return;
	}
}

static void aim_branches(struct gen *g)
{
	for (unsigned k = 0; k < g->nr_branches; k++) {
		/* One of the next few instructions, or the end. */
		u32 goal = g->branch[k].end;
		unsigned skip = pick(g, 4);
		for (unsigned n = 0; n < g->seq->n && skip; n++)
			if (g->seq->start[n] > goal && g->seq->start[n] - g->branch[k].end < 128) {
				goal = g->seq->start[n];
				skip--;
			}
		u32 rel = goal - g->branch[k].end;
		memcpy(g->c->code + g->branch[k].field, &rel, g->branch[k].size);
	}
}

void gen_case(u64 seed, struct insn_case *c, struct gen_seq *ret_seq)
{
	struct gen g = { .c = c, .seq = ret_seq };
	insn_seed(&g.r, seed);
	insn_random_state(&g.r, &c->in);
	c->loose_cr2 = false;
	c->mode = chance(&g, 80) ? INSN_64 : INSN_32;
	if (!is64(&g))
		for (unsigned k = 0; k < X86_NR_GPR; k++)
			c->in.gpr[k] = (u32)c->in.gpr[k];
	ret_seq->n = 0;
	unsigned want = 1 + pick(&g, GEN_MAX_INSNS);
	while (ret_seq->n < want && g.at < INSN_MAX_CODE - 64)
		gen_insn(&g);
	if (chance(&g, 20) && ret_seq->n < GEN_MAX_INSNS)
		gen_invalid(&g);
	aim_branches(&g);
	c->len = g.at;
}
