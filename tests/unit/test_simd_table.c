/* The rows of simd_table.c, evex_table.c and x87_table.c against Zydis: which encodings exist, how many bytes of memory each touches and
 * in which direction, immediate, general registers, flags, feature.
 *
 * Two walks: every opcode of the maps 0F, 0F38, 0F3A and D8-DF with every mandatory prefix, W, L, two values of
 * vvvv, register and memory forms and every ModRM.reg, in 16-, 32- and 64-bit mode; and random prefixes and bytes. The
 * instructions go through decode_insn(), so that what the decoder tells the rows is tested as well.
 *
 * What a thunk runs natively with a wrong size or register would corrupt this process, so Zydis' view must be
 * met exactly; where it is not, exceptions[] says why.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <Zydis/Zydis.h>

#include "cpu/soft/decode.h"
#include "cpu/soft/thunk.h"
#include "x86/cpuid.h"
#include "../avx512_sets.h"

#define RANDOM_ROUNDS 3000000
#define MAX_REPORTS   40

enum aspect {
	A_MISSING = 1 << 0, /* Zydis has it, the rows do not */
	A_EXTRA = 1 << 1,
	A_SIZE = 1 << 2,
	A_DIRECTION = 1 << 3,
	A_IMM = 1 << 4,
	A_GPR = 1 << 5,
	A_IMPLICIT = 1 << 6,
	A_FLAGS = 1 << 7,
	A_FEATURE = 1 << 8,
	A_REGISTERS = 1 << 9,
	A_DISPLACEMENT = 1 << 10,
	A_ELEMENTS = 1 << 11,
};

/* What is different on purpose. map 0..3 and opcode; prefix: the PFX_ bits that must be there. */
static const struct exception {
	u8 map, opcode_lo, opcode_hi;
	unsigned prefix, aspects;
	const char *why;
} exceptions[] = {
#define SSE_ON_MMX "SSE brought it, on MMX registers [SDM1 5.5.4]; Zydis calls it MMX"
	{ 1, 0x70, 0x70, 0, A_FEATURE, SSE_ON_MMX }, /* PSHUFW */
	{ 1, 0xc4, 0xc5, 0, A_FEATURE, SSE_ON_MMX }, /* PINSRW, PEXTRW */
	{ 1, 0xda, 0xda, 0, A_FEATURE, SSE_ON_MMX }, /* PMINUB */
	{ 1, 0xde, 0xde, 0, A_FEATURE, SSE_ON_MMX }, /* PMAXUB */
	{ 1, 0xe0, 0xe0, 0, A_FEATURE, SSE_ON_MMX }, /* PAVGB */
	{ 1, 0xe3, 0xe4, 0, A_FEATURE, SSE_ON_MMX }, /* PAVGW, PMULHUW */
	{ 1, 0xe7, 0xe7, 0, A_FEATURE, SSE_ON_MMX }, /* MOVNTQ */
	{ 1, 0xea, 0xea, 0, A_FEATURE, SSE_ON_MMX }, /* PMINSW */
	{ 1, 0xee, 0xee, 0, A_FEATURE, SSE_ON_MMX }, /* PMAXSW */
	{ 1, 0xf6, 0xf7, 0, A_FEATURE, SSE_ON_MMX }, /* PSADBW, MASKMOVQ */
	{ 3, 0x44, 0x44, PFX_VEX, A_FEATURE, "VEX.128 needs PCLMULQDQ and AVX only [SDM2 PCLMULQDQ]" },
	{ 2, 0x90, 0x93, PFX_VEX, A_EXTRA, "equal registers are #UD in the handler" },
	{ 2, 0xa0, 0xa3, PFX_VEX, A_EXTRA, "16-bit addresses are #UD in the handler" },
	{ 1, 0x2a, 0x2a, PFX_VEX, A_EXTRA, "a rounding mode with W, which does not count in 32-bit code" },
	{ 1, 0x7b, 0x7b, PFX_VEX, A_EXTRA, "the same" },
};

static const struct {
	ZydisISASet set;
	u8 feature;
} scope[] = {
	{ ZYDIS_ISA_SET_PENTIUMMMX, X86_FEATURE_MMX },
	{ ZYDIS_ISA_SET_SSE, X86_FEATURE_SSE },
	{ ZYDIS_ISA_SET_SSE2, X86_FEATURE_SSE2 },
	{ ZYDIS_ISA_SET_SSE2MMX, X86_FEATURE_SSE2 },
	{ ZYDIS_ISA_SET_SSE3, X86_FEATURE_SSE3 },
	{ ZYDIS_ISA_SET_SSSE3, X86_FEATURE_SSSE3 },
	{ ZYDIS_ISA_SET_SSSE3MMX, X86_FEATURE_SSSE3 },
	{ ZYDIS_ISA_SET_SSE4, X86_FEATURE_SSE4_1 },
	{ ZYDIS_ISA_SET_SSE42, X86_FEATURE_SSE4_2 },
	{ ZYDIS_ISA_SET_AES, X86_FEATURE_AES },
	{ ZYDIS_ISA_SET_PCLMULQDQ, X86_FEATURE_PCLMULQDQ },
	{ ZYDIS_ISA_SET_SHA, X86_FEATURE_SHA },
	{ ZYDIS_ISA_SET_GFNI, X86_FEATURE_GFNI },
	{ ZYDIS_ISA_SET_AVX_GFNI, X86_FEATURE_GFNI },
	{ ZYDIS_ISA_SET_F16C, X86_FEATURE_F16C },
	{ ZYDIS_ISA_SET_AVX, X86_FEATURE_AVX },
	{ ZYDIS_ISA_SET_AVX2, X86_FEATURE_AVX2 },
	{ ZYDIS_ISA_SET_AVX2GATHER, X86_FEATURE_AVX2 },
	{ ZYDIS_ISA_SET_AVXAES, X86_FEATURE_AES },
	{ ZYDIS_ISA_SET_FMA, X86_FEATURE_FMA },
	{ ZYDIS_ISA_SET_VAES, X86_FEATURE_VAES },
	{ ZYDIS_ISA_SET_VPCLMULQDQ, X86_FEATURE_VPCLMULQDQ },
	{ ZYDIS_ISA_SET_AVX_VNNI, X86_FEATURE_AVX_VNNI },
	{ ZYDIS_ISA_SET_BMI1, X86_FEATURE_BMI1 },
	{ ZYDIS_ISA_SET_BMI2, X86_FEATURE_BMI2 },
	{ ZYDIS_ISA_SET_MOVBE, X86_FEATURE_MOVBE },
	{ ZYDIS_ISA_SET_ADOX_ADCX, X86_FEATURE_ADX },
	{ ZYDIS_ISA_SET_POPCNT, X86_FEATURE_POPCNT },
	{ ZYDIS_ISA_SET_LZCNT, X86_FEATURE_ABM },
	{ ZYDIS_ISA_SET_X87, 0 },
	{ ZYDIS_ISA_SET_PPRO, X86_FEATURE_CMOV },
	{ ZYDIS_ISA_SET_FCMOV, X86_FEATURE_CMOV },
	{ ZYDIS_ISA_SET_SSE3X87, X86_FEATURE_SSE3 },
};

static ZydisDecoder decoders[3]; /* by MODE_* */
static u64 all_features[4];
static unsigned reports, shown, compared, valid;

/* The feature, or -1. */
static int in_scope(const ZydisDecodedInstruction *z)
{
	const char *name = ZydisISASetGetString(z->meta.isa_set);

	for (unsigned k = 0; k < ARRAY_SIZE(avx512_sets); k++)
		if (!strncmp(name, avx512_sets[k].prefix, strlen(avx512_sets[k].prefix)))
			return avx512_sets[k].feature;
	/* PREFETCHh and the fences are the integer tables'; so is group 15 without VEX. */
	if (z->meta.category == ZYDIS_CATEGORY_PREFETCH ||
	    (z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode == 0xae &&
	     z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY))
		return -1;
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
	    z->opcode == 0x9b)
		return -1;
	/* Of the Pentium Pro's, FCOMI and FUCOMI. */
	if (z->meta.isa_set == ZYDIS_ISA_SET_PPRO && z->meta.category != ZYDIS_CATEGORY_X87_ALU)
		return -1;
	for (unsigned k = 0; k < ARRAY_SIZE(scope); k++)
		if (scope[k].set == z->meta.isa_set)
			return scope[k].feature;
	return -1;
}

static bool excused(const struct insn *i, unsigned map, unsigned opcode, enum aspect aspect)
{
	for (unsigned k = 0; k < ARRAY_SIZE(exceptions); k++) {
		const struct exception *e = &exceptions[k];

		if (e->aspects & aspect && e->map == map && opcode >= e->opcode_lo &&
		    opcode <= e->opcode_hi && (i->pfx & e->prefix) == e->prefix)
			return true;
	}
	return false;
}

/* Once for each opcode, prefix and aspect. */
static void report(const struct insn *i, enum aspect aspect, const u8 *bytes, unsigned mode, const char *what,
		   unsigned ours, unsigned theirs)
{
	static u16 seen[4][32][256];
	u16 *s = &seen[i->map & 3][(i->pfx & 7) | (i->pfx & PFX_VEX ? 8 : 0) | (i->evex ? 16 : 0)][i->opcode];

	reports++;
	if (*s & aspect || shown++ >= MAX_REPORTS)
		return;
	*s |= (u16)aspect;
	print_error("%s: rows say %#x, Zydis %#x:", what, ours, theirs);
	for (unsigned k = 0; k < 10; k++)
		print_error(" %02x", bytes[k]);
	print_error(" (%u-bit)\n", 16u << mode);
}

static bool is_gpr(ZydisRegister r, ZydisRegister *ret_64)
{
	*ret_64 = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
	return *ret_64 >= ZYDIS_REGISTER_RAX && *ret_64 <= ZYDIS_REGISTER_R15;
}

#define CHECK(aspect, what, ours, theirs)                              \
	do {                                                           \
		unsigned o_ = (ours), t_ = (theirs);                   \
		if (o_ != t_ && !excused(&i, i.map, i.opcode, aspect)) \
			report(&i, aspect, bytes, mode, what, o_, t_); \
	} while (0)

/* Zydis 4.0 takes R13 for the base of a SIB byte that has none but a displacement, where EVEX.B is set. */
static bool no_base(const ZydisDecodedInstruction *z)
{
	return z->raw.modrm.mod == 0 && z->raw.modrm.rm == 4 && z->raw.sib.base == 5;
}

/* Of AVX-512: register numbers, the displacement, the need for VL, what a bit of the mask stands for. */
static void compare_evex(const struct insn *insn, const struct native_row *row, const u8 *bytes,
			 unsigned mode, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	const struct insn i = *insn;
	const char *set = ZydisISASetGetString(z->meta.isa_set), *end = strrchr(set, '_') + 1;

	CHECK(A_FEATURE, "VL", evex_needs_vl(&i, row), !strcmp(end, "128") || !strcmp(end, "256"));
	for (unsigned k = 0; k < z->operand_count_visible; k++) {
		const ZydisDecodedOperand *op = &ops[k];
		unsigned id;

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			if (op->mem.base != ZYDIS_REGISTER_RIP && op->mem.base != ZYDIS_REGISTER_EIP &&
			    !no_base(z))
				CHECK(A_DISPLACEMENT, "displacement", (unsigned)i.disp,
				      (unsigned)op->mem.disp.value);
			if (row->evex & (EV_MASK | EV_ZERO) && !(row->evex & EV_ALL))
				CHECK(A_ELEMENTS, "element", evex_elements(&i, row).size,
				      op->element_size / 8);
			continue;
		}
		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		id = (unsigned)ZydisRegisterGetId(op->reg.value);
		switch (op->encoding) {
		case ZYDIS_OPERAND_ENCODING_MODRM_REG: CHECK(A_REGISTERS, "reg", i.reg, id); break;
		case ZYDIS_OPERAND_ENCODING_MODRM_RM: CHECK(A_REGISTERS, "rm", i.rm, id); break;
		case ZYDIS_OPERAND_ENCODING_NDSNDD: CHECK(A_REGISTERS, "vvvv", i.vvvv, id); break;
		case ZYDIS_OPERAND_ENCODING_MASK: CHECK(A_REGISTERS, "mask", i.evex & EVEX_AAA, id); break;
		default: break;
		}
	}
}

static void compare(const u8 *bytes, unsigned mode)
{
	const struct native_row *row = NULL;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	struct decode_info info;
	struct insn i;
	enum decode_result r = decode_insn(bytes, 15, mode, all_features, &i, &info);
	bool z_ok = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[mode], bytes, 15, &z, ops));
	int s = z_ok ? in_scope(&z) : -1;
	unsigned gpr = 0, implicit = 0, direction = 0, size = 0, flags = 0;
	const ZydisAccessedFlags *f;

	compared++;
	if (i.map == 0 ? i.opcode >= 0xd8 && i.opcode <= 0xdf : i.map <= 3 && !(i.pfx & PFX_LOCK))
		row = i.map ? simd_row(&i) : x87_row(&i);
	if (r != DECODE_OK || !row) {
		if (s >= 0)
			CHECK(A_MISSING, "exists", 0, z.meta.isa_set);
		return;
	}
	if (s < 0) {
		CHECK(A_EXTRA, "exists", 1, 0);
		return;
	}
	valid++;
	CHECK(A_FEATURE, "feature", row->feature, (unsigned)s);
	CHECK(A_IMM, "immediate", !!(row->flags & NR_IMM8), z.raw.imm[0].size != 0);

	for (unsigned k = 0; k < z.operand_count; k++) {
		const ZydisDecodedOperand *op = &ops[k];
		ZydisRegister big;

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			size = op->size / 8;
			direction |= op->actions & ZYDIS_OPERAND_ACTION_MASK_READ ? NR_LOAD : 0;
			direction |= op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? NR_STORE : 0;
		}
		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || !is_gpr(op->reg.value, &big))
			continue;
		switch (op->encoding) {
		case ZYDIS_OPERAND_ENCODING_MODRM_REG: gpr |= NR_GPR_REG; break;
		case ZYDIS_OPERAND_ENCODING_MODRM_RM: gpr |= NR_GPR_RM; break;
		case ZYDIS_OPERAND_ENCODING_NDSNDD: gpr |= NR_GPR_VVVV; break;
		default:
			if (big == ZYDIS_REGISTER_RAX || big == ZYDIS_REGISTER_RDX)
				implicit |= NR_IMPL_AXDX;
			else if (big == ZYDIS_REGISTER_RCX)
				implicit |= NR_IMPL_CX;
			else
				implicit |= 1u << 31;
		}
	}
	CHECK(A_GPR, "general registers", row->flags & (NR_GPR_REG | NR_GPR_VVVV | (i.mem ? 0 : NR_GPR_RM)),
	      gpr);
	CHECK(A_IMPLICIT, "implicit registers", row->flags & (NR_IMPL_AXDX | NR_IMPL_CX), implicit);
	/* A handler in C knows by itself. */
	if (!row->fn || row->fn == op_native_mem) {
		CHECK(A_SIZE, "memory size", i.msz, size);
		CHECK(A_DIRECTION, "memory direction", i.mem ? i.aux : 0, direction);
	}

	if (row->evex && !row->fn)
		compare_evex(&i, row, bytes, mode, &z, ops);
	f = z.cpu_flags;
	if (f) {
		const unsigned arith = (unsigned)FL_ARITH;

		flags |= f->tested & arith ? NR_FLAGS_IN : 0;
		flags |= (f->modified | f->set_0 | f->set_1 | f->undefined) & arith ? NR_FLAGS_OUT : 0;
	}
	CHECK(A_FLAGS, "flags", row->flags & (NR_FLAGS_IN | NR_FLAGS_OUT), flags);
}

/* --- the walks --------------------------------------------------------------------------- */
static const u8 tail[8] = { 0x21, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77 };

static unsigned put_escape(u8 *p, unsigned map)
{
	unsigned n = 0;

	p[n++] = 0x0f;
	if (map == 2)
		p[n++] = 0x38;
	else if (map == 3)
		p[n++] = 0x3a;
	return n;
}

static void all_modrm(u8 *bytes, unsigned n, unsigned mode)
{
	/* [rcx], [rcx + 21H] with a SIB, register */
	static const u8 forms[] = { 0x01, 0x44, 0xc1, 0xc4 };

	for (unsigned k = 0; k < ARRAY_SIZE(forms); k++) {
		for (unsigned reg = 0; reg < 8; reg++) {
			bytes[n] = (u8)(forms[k] | reg << 3);
			memcpy(bytes + n + 1, tail, sizeof(tail));
			compare(bytes, mode);
		}
	}
}

static void test_legacy(void **state)
{
	static const u8 prefixes[][2] = {
		{ 0 }, { 0x66 }, { 0xf3 }, { 0xf2 }, { 0x66, 0xf3 }, { 0x66, 0xf2 }
	};

	reports = 0;
	for (unsigned mode = MODE_16; mode <= MODE_64; mode++)
		for (unsigned map = 1; map <= 3; map++)
			for (unsigned op = 0; op < 256; op++)
				for (unsigned p = 0; p < ARRAY_SIZE(prefixes); p++)
					for (unsigned rex = 0; rex < (mode == MODE_64 ? 4 : 1); rex++) {
						static const u8 rexes[] = { 0, 0x48, 0x45, 0x40 };
						u8 bytes[32] = { 0 };
						unsigned n = 0;

						for (unsigned k = 0; k < 2; k++)
							if (prefixes[p][k])
								bytes[n++] = prefixes[p][k];
						if (rexes[rex])
							bytes[n++] = rexes[rex];
						n += put_escape(bytes + n, map);
						bytes[n++] = (u8)op;
						all_modrm(bytes, n, mode);
					}
	assert_int_equal(reports, 0);
}

static void test_vex(void **state)
{
	reports = 0;
	for (unsigned mode = MODE_16; mode <= MODE_64; mode++)
		for (unsigned map = 1; map <= 3; map++)
			for (unsigned op = 0; op < 256; op++)
				for (unsigned k = 0; k < 64; k++) {
					/* bits of k: pp, L, W, and four values of vvvv */
					static const u8 vvvv[] = { 0, 2, 3, 6 };
					u8 bytes[32] = { 0xc4, (u8)(0xe0 | map) };

					bytes[2] = (u8)((k & 7) | (k & 8 ? 0x80 : 0) |
							(~vvvv[k >> 4] & 15) << 3);
					bytes[3] = (u8)op;
					all_modrm(bytes, 4, mode);
				}
	assert_int_equal(reports, 0);
}

static void test_evex(void **state)
{
	reports = 0;
	for (unsigned map = 1; map <= 3; map++)
		for (unsigned op = 0; op < 256; op++)
			for (unsigned k = 0; k < 1024; k++) {
				/* bits of k: pp, W, vvvv, L'L, b, aaa, z, R', V' */
				u8 bytes[32] = { 0x62, (u8)(0xe0 | (k & 256 ? 0 : 0x10) | map) };

				if ((k & 512) && (k & 256)) /* some of all is enough */
					continue;
				bytes[2] = (u8)((k & 3) | 4 | (k & 4 ? 0x80 : 0) | (k & 8 ? 0x28 : 0x78));
				bytes[3] = (u8)((k >> 4 & 3) << 5 | (k & 64 ? 0x10 : 0) |
						(k & 128 ? 0x03 : 0) | (k & 512 ? 0 : 8));
				if (k & 128 && op & 1)
					bytes[3] |= 0x80;
				bytes[4] = (u8)op;
				all_modrm(bytes, 5, MODE_64);
				if (k < 256)
					all_modrm(bytes, 5, op & 2 ? MODE_32 : MODE_16);
			}
	assert_int_equal(reports, 0);
}

static void test_x87(void **state)
{
	reports = 0;
	for (unsigned mode = MODE_16; mode <= MODE_64; mode++)
		for (unsigned op = 0xd8; op <= 0xdf; op++)
			for (unsigned modrm = 0; modrm < 256; modrm++)
				for (unsigned small = 0; small < 2; small++) {
					u8 bytes[32] = { 0 };
					unsigned n = 0;

					if (small)
						bytes[n++] = 0x66;
					bytes[n++] = (u8)op;
					bytes[n++] = (u8)modrm;
					memcpy(bytes + n, tail, sizeof(tail));
					compare(bytes, mode);
				}
	assert_int_equal(reports, 0);
}

static u64 seed = 0x1d872b41f3a5c96bull;

static u64 rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dull >> 16;
}

static void test_random(void **state)
{
	static const u8 prefixes[] = { 0x66, 0xf2, 0xf3, 0x67, 0x64, 0x2e };

	reports = 0;
	for (unsigned k = 0; k < RANDOM_ROUNDS; k++) {
		u8 bytes[32];
		unsigned n = 0, map = 1 + (unsigned)(rnd() % 3), mode = (unsigned)(rnd() % 3);

		for (unsigned b = 0; b < sizeof(bytes); b++)
			bytes[b] = (u8)rnd();
		for (unsigned c = (unsigned)(rnd() % 3); c--;)
			bytes[n++] = prefixes[rnd() % ARRAY_SIZE(prefixes)];
		switch (rnd() % 6) {
		case 4:
		case 5:
			bytes[n] = 0x62;
			bytes[n + 1] = (u8)((bytes[n + 1] & 0xf0) | map | (mode == MODE_64 ? 0 : 0xc0));
			bytes[n + 2] |= 4;
			bytes[n + 3] |= 8;
			break;
		case 0: /* VEX, three bytes */
			bytes[n] = 0xc4;
			bytes[n + 1] = (u8)((bytes[n + 1] & 0xe0) | map | (mode == MODE_64 ? 0 : 0xc0));
			break;
		case 1: /* two bytes */
			bytes[n] = 0xc5;
			bytes[n + 1] |= mode == MODE_64 ? 0 : 0xc0;
			break;
		case 2:
			if (mode == MODE_64)
				bytes[n++] = (u8)(0x40 | (rnd() & 15));
			/* fall through */
		default:
			if (rnd() % 8)
				put_escape(bytes + n, map);
		}
		compare(bytes, mode);
	}
	assert_int_equal(reports, 0);
	print_message("%u encodings compared, %u of them valid\n", compared, valid);
	assert_true(valid > 100000);
}

static int setup(void **state)
{
	memset(all_features, 0xff, sizeof(all_features));
	ZydisDecoderInit(&decoders[MODE_16], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
	ZydisDecoderInit(&decoders[MODE_32], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	ZydisDecoderInit(&decoders[MODE_64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	/* Only what is offered; MPX and the like would take over hint encodings. */
	for (unsigned k = 0; k < 3; k++) {
		ZydisDecoderEnableMode(&decoders[k], ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
		ZydisDecoderEnableMode(&decoders[k], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
		ZydisDecoderEnableMode(&decoders[k], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_legacy), cmocka_unit_test(test_vex),    cmocka_unit_test(test_evex),
		cmocka_unit_test(test_x87),    cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
