/* The decoder against Zydis, on random and on enumerated bytes in all three modes: what both accept has
 * the same length; what only one accepts must be among the exceptions below, each with its reason.
 *
 *   test_decode [SEED [COUNT]]       COUNT random cases per mode
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <Zydis/Zydis.h>

#include "cpu/soft/decode.h"
#include "cpu/soft/code.h"
#include "cpu/soft/fpu.h"
#include "cpu/soft/thunk.h"
#include "x86/cpuid.h"

static u64 seed = 1, count = 2000000;

static u64 next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dull;
}

/* All features on: the table decides. */
static const u64 features[4] = { ~0ull, ~0ull, ~0ull, ~0ull };

struct oracle {
	bool valid;
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
};

static void ask_zydis(struct oracle *o, const u8 *bytes, unsigned len, unsigned mode)
{
	static ZydisDecoder decoders[3];
	static bool ready;

	if (!ready) {
		ZydisDecoderInit(&decoders[MODE_16], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
		ZydisDecoderInit(&decoders[MODE_32], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
		ZydisDecoderInit(&decoders[MODE_64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
		for (unsigned m = 0; m < 3; m++) {
			/* What a processor without these extensions sees. */
			ZydisDecoderEnableMode(&decoders[m], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
			ZydisDecoderEnableMode(&decoders[m], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
			ZydisDecoderEnableMode(&decoders[m], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
			ZydisDecoderEnableMode(&decoders[m], ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
			ZydisDecoderEnableMode(&decoders[m], ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
		}
		ready = true;
	}
	o->valid = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[mode], bytes, len, &o->insn, o->ops));
}

/* Instructions of extensions that bothy does not offer: #UD here, an instruction to Zydis. */
static bool not_offered(const ZydisDecodedInstruction *z)
{
	switch (z->encoding) {
	case ZYDIS_INSTRUCTION_ENCODING_3DNOW:
	case ZYDIS_INSTRUCTION_ENCODING_XOP:
	case ZYDIS_INSTRUCTION_ENCODING_MVEX: return true;
	default: break;
	}
	/* Of AVX-512: what only Xeon Phi had, and half precision. */
	switch (z->meta.isa_set) {
	case ZYDIS_ISA_SET_AVX512ER_512:
	case ZYDIS_ISA_SET_AVX512ER_SCALAR:
	case ZYDIS_ISA_SET_AVX512PF_512:
	case ZYDIS_ISA_SET_AVX512_4FMAPS_512:
	case ZYDIS_ISA_SET_AVX512_4FMAPS_SCALAR:
	case ZYDIS_ISA_SET_AVX512_4VNNIW_512:
	case ZYDIS_ISA_SET_AVX512_FP16_128:
	case ZYDIS_ISA_SET_AVX512_FP16_128N:
	case ZYDIS_ISA_SET_AVX512_FP16_256:
	case ZYDIS_ISA_SET_AVX512_FP16_512:
	case ZYDIS_ISA_SET_AVX512_FP16_SCALAR: return true;
	default: break;
	}
	switch (z->meta.category) {
	case ZYDIS_CATEGORY_VTX:
	case ZYDIS_CATEGORY_SMAP: /* CLAC and STAC with prefixes */
	case ZYDIS_CATEGORY_SGX:
	case ZYDIS_CATEGORY_MPX:
	case ZYDIS_CATEGORY_CET:
	case ZYDIS_CATEGORY_PKU:
	case ZYDIS_CATEGORY_KEYLOCKER:
	case ZYDIS_CATEGORY_KEYLOCKER_WIDE:
	case ZYDIS_CATEGORY_UINTR:
	case ZYDIS_CATEGORY_WAITPKG:
	case ZYDIS_CATEGORY_ENQCMD:
	case ZYDIS_CATEGORY_MOVDIR:
	case ZYDIS_CATEGORY_SERIALIZE:
	case ZYDIS_CATEGORY_TSX_LDTRK:
	case ZYDIS_CATEGORY_AMX_TILE:
	case ZYDIS_CATEGORY_PCONFIG:
	case ZYDIS_CATEGORY_CLZERO:
	case ZYDIS_CATEGORY_FMA4:
	case ZYDIS_CATEGORY_XOP:
	case ZYDIS_CATEGORY_TBM:
	case ZYDIS_CATEGORY_PADLOCK:
	case ZYDIS_CATEGORY_HRESET: return true;
	default: break;
	}
	/* TDX's calls. */
	if (!strncmp(ZydisMnemonicGetString(z->mnemonic), "seam", 4))
		return true;
	switch (z->meta.isa_ext) {
	case ZYDIS_ISA_EXT_KNC:
	case ZYDIS_ISA_EXT_KNCE:
	case ZYDIS_ISA_EXT_KNCV: return true;
	default: break;
	}
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_PTWRITE:
	case ZYDIS_MNEMONIC_TDCALL:
	case ZYDIS_MNEMONIC_MONITOR:
	case ZYDIS_MNEMONIC_MWAIT:
	case ZYDIS_MNEMONIC_MONITORX:
	case ZYDIS_MNEMONIC_MWAITX:
	case ZYDIS_MNEMONIC_XBEGIN:
	case ZYDIS_MNEMONIC_XEND:
	case ZYDIS_MNEMONIC_XABORT:
	case ZYDIS_MNEMONIC_XTEST:
	case ZYDIS_MNEMONIC_EXTRQ:
	case ZYDIS_MNEMONIC_INSERTQ:
	case ZYDIS_MNEMONIC_MOVNTSD:
	case ZYDIS_MNEMONIC_MOVNTSS:
	case ZYDIS_MNEMONIC_GETSEC:
	case ZYDIS_MNEMONIC_RSM:
	case ZYDIS_MNEMONIC_FEMMS:
	case ZYDIS_MNEMONIC_RDPRU:
	case ZYDIS_MNEMONIC_PSMASH:
	case ZYDIS_MNEMONIC_PVALIDATE:
	case ZYDIS_MNEMONIC_RMPADJUST:
	case ZYDIS_MNEMONIC_RMPUPDATE:
	case ZYDIS_MNEMONIC_INVLPGB:
	case ZYDIS_MNEMONIC_TLBSYNC:
	case ZYDIS_MNEMONIC_MCOMMIT:
	case ZYDIS_MNEMONIC_VMRUN:
	case ZYDIS_MNEMONIC_VMLOAD:
	case ZYDIS_MNEMONIC_VMSAVE:
	case ZYDIS_MNEMONIC_STGI:
	case ZYDIS_MNEMONIC_CLGI:
	case ZYDIS_MNEMONIC_SKINIT:
	case ZYDIS_MNEMONIC_INVLPGA:
	case ZYDIS_MNEMONIC_LLWPCB:
	case ZYDIS_MNEMONIC_SLWPCB:
	case ZYDIS_MNEMONIC_VMMCALL: return true;
	default: return false;
	}
}

/* Lengths or validity that processors and Zydis see differently. */
static bool known_difference(const struct oracle *o, const struct insn *i, enum decode_result result,
			     unsigned mode, const u8 *bytes)
{
	if (o->valid) {
		const ZydisDecodedInstruction *z = &o->insn;

		/* Near branches with 66H in 64-bit mode: Intel ignores the prefix, and so does bothy;
		 * Zydis follows Intel too, so only the operand size of others differs. */
		if (not_offered(z))
			return result == DECODE_UD;
		/* bothy faults when CR0.PE = 0 is known, at execution. */
		(void)bytes;
		return false;
	}
	/* Zydis refuses an illegal register or operand that the handler refuses when it runs: control
	 * and debug registers that do not exist, MOV to CS, segment registers 6 and 7, LOCK where the
	 * handler says so. */
	if (result == DECODE_OK && i->map == 1 && i->opcode >= 0x20 && i->opcode <= 0x23)
		return true;
	if (result == DECODE_OK && i->map == 0 && (i->opcode == 0x8e || i->opcode == 0x8c))
		return true;
	/* PCOMMIT, which Zydis has forgotten. */
	if (result == DECODE_OK && i->map == 1 && i->opcode == 0xae && i->modrm == 0xf8 && i->pfx & PFX_66)
		return true;
	/* VEX forms that the host itself refuses with SIGILL in the thunk: reserved vvvv, L and W. */
	if (result == DECODE_OK && i->thunk && !i->evex)
		return true;
	/* VCVTSI2SD and VCVTUSI2SD with W and a rounding mode, where W does not count. */
	if (result == DECODE_OK && i->evex && mode != MODE_64 && i->map == 1 && i->rex & REX_W &&
	    (i->opcode == 0x2a || i->opcode == 0x7b))
		return true;
	/* The handler refuses a gather into its own indexes. */
	if (result == DECODE_OK && i->fn == op_evex_gather &&
	    i->reg == ((i->index == RZERO ? R_SP : i->index) | (i->vvvv & 16)))
		return true;
	(void)mode;
	return false;
}

struct tally {
	u64 both, same_ud, excused, wrong;
	u64 stores, missed; /* instructions that write to memory; that code_store_possible() does not know */
};

/* Blocks of pages to which writes are not tracked end after what can write. */
static void check_store(const struct oracle *o, const struct insn *i, unsigned mode, struct tally *t)
{
	bool writes = false;

	for (unsigned k = 0; k < o->insn.operand_count; k++)
		writes |= o->ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
			  o->ops[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	if (!writes)
		return;
	t->stores++;
	if (!code_store_possible(i, mode) && t->missed++ < 20)
		print_message("mode %u: %s writes to memory: opcode %x, map %u, modrm %02x\n", mode,
			      ZydisMnemonicGetString(o->insn.mnemonic), i->opcode, i->map, i->modrm);
}

static void compare(const u8 *bytes, unsigned mode, struct tally *t)
{
	static const char *const results[] = { "accepts", "wants more", "refuses (#UD)", "refuses (#GP)" };
	struct decode_info info;
	struct oracle o;
	struct insn i;
	enum decode_result result = decode_insn(bytes, 15, mode, features, &i, &info);

	ask_zydis(&o, bytes, 15, mode);
	if (o.valid && result == DECODE_OK && o.insn.length == i.len) {
		t->both++;
		check_store(&o, &i, mode, t);
		return;
	}
	if (!o.valid && result != DECODE_OK) {
		t->same_ud++;
		return;
	}
	if (known_difference(&o, &i, result, mode, bytes)) {
		t->excused++;
		return;
	}
	if (t->wrong++ >= 20)
		return;
	print_message("mode %d: bytes", mode == MODE_64 ? 64 : mode == MODE_32 ? 32 : 16);
	for (unsigned k = 0; k < 15; k++)
		print_message(" %02x", bytes[k]);
	print_message("\n  bothy %s, length %u; Zydis: ", results[result], i.len);
	if (o.valid)
		print_message("%s, length %u\n", ZydisMnemonicGetString(o.insn.mnemonic), o.insn.length);
	else
		print_message("not an instruction\n");
}

static void finish(const struct tally *t)
{
	print_message("same length %llu, both refuse %llu, explained %llu, different %llu\n",
		      (unsigned long long)t->both, (unsigned long long)t->same_ud,
		      (unsigned long long)t->excused, (unsigned long long)t->wrong);
	assert_int_equal(t->wrong, 0);
	print_message("%llu write to memory\n", (unsigned long long)t->stores);
	assert_int_equal(t->missed, 0);
}

/* Random bytes, biased to prefixes and the 0F maps. */
static void random_bytes(u8 *bytes)
{
	static const u8 prefixes[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36,
				       0x64, 0x65, 0x48, 0x41, 0x4f, 0x40 };
	unsigned n = 0;

	while (n < 4 && next_random() % 3 == 0)
		bytes[n++] = prefixes[next_random() % ARRAY_SIZE(prefixes)];
	switch (next_random() % 8) {
	case 0: bytes[n++] = 0x0f; break;
	case 3:
		bytes[n++] = 0x62;
		bytes[n++] = (u8)((next_random() & 0xf0) | (1 + next_random() % 3));
		bytes[n++] = (u8)(next_random() | 4);
		break;
	case 1:
		bytes[n++] = 0x0f;
		bytes[n++] = next_random() & 1 ? 0x38 : 0x3a;
		break;
	case 2: bytes[n++] = next_random() & 1 ? 0xc4 : 0xc5; break;
	}
	while (n < 15)
		bytes[n++] = (u8)next_random();
}

static void random_lengths(void **state)
{
	struct tally t = { 0 };

	print_message("seed %llu, %llu cases per mode\n", (unsigned long long)seed,
		      (unsigned long long)count);
	for (unsigned mode = MODE_16; mode <= MODE_64; mode++)
		for (u64 n = 0; n < count; n++) {
			u8 bytes[16];

			random_bytes(bytes);
			compare(bytes, mode, &t);
		}
	finish(&t);
	assert_true(t.both > count);
}

/* Every opcode of the four maps, with every ModRM, under no and each mandatory prefix. */
static void enumerated(void **state)
{
	static const u8 prefix[4] = { 0, 0x66, 0xf3, 0xf2 };
	struct tally t = { 0 };

	for (unsigned mode = MODE_16; mode <= MODE_64; mode++)
		for (unsigned map = 0; map < 4; map++)
			for (unsigned p = 0; p < 4; p++)
				for (unsigned op = 0; op < 256; op++)
					for (unsigned modrm = 0; modrm < 256; modrm++) {
						u8 bytes[16] = { 0 };
						unsigned n = 0;

						if (prefix[p])
							bytes[n++] = prefix[p];
						if (map)
							bytes[n++] = 0x0f;
						if (map > 1)
							bytes[n++] = map == 2 ? 0x38 : 0x3a;
						bytes[n++] = (u8)op;
						bytes[n++] = (u8)modrm;
						for (; n < 15; n++)
							bytes[n] = (u8)(n * 0x11);
						compare(bytes, mode, &t);
					}
	finish(&t);
}

/* EVEX: every opcode with register and memory, all lengths, masks, b and z. */
static void enumerated_evex(void **state)
{
	static const u8 forms[] = { 0x01, 0x44, 0xc1 };
	struct tally t = { 0 };

	for (unsigned n = 0; n < 3u * 256 * 8 * 4 * 2 * 4 * 2; n++) {
		unsigned map = n % 3, op = n / 3 % 256, ppw = n / 768 % 8, ll = n / 6144 % 4,
			 b = n / 24576 % 2, mask = n / 49152 % 4, v = n / 196608;

		for (unsigned f = 0; f < ARRAY_SIZE(forms); f++)
			for (unsigned reg = 0; reg < 8; reg++) {
				u8 bytes[16] = { 0x62,
						 (u8)(0xf1 + map),
						 (u8)((ppw & 3) | 4 | (ppw & 4) << 5 | (v ? 0x28 : 0x78)),
						 (u8)(8 | ll << 5 | b << 4 | (mask & 1) | (mask & 2) << 6),
						 (u8)op,
						 (u8)(forms[f] | reg << 3),
						 0x21,
						 0x11,
						 0x22,
						 0x33,
						 0x44,
						 0x55 };

				compare(bytes, MODE_64, &t);
				compare(bytes, MODE_32, &t);
			}
	}
	finish(&t);
}

/* Bytes that end early are asked for more, never read beyond. */
static void prefixes_of_instructions(void **state)
{
	for (unsigned mode = MODE_16; mode <= MODE_64; mode++)
		for (unsigned n = 0; n < 200000; n++) {
			struct decode_info info;
			struct insn whole, part;
			u8 bytes[16];

			random_bytes(bytes);
			if (decode_insn(bytes, 15, mode, features, &whole, &info) != DECODE_OK)
				continue;
			for (unsigned len = 0; len < whole.len; len++) {
				u8 *exact =
					malloc(len ? len : 1); /* so that the sanitizer sees a read beyond */

				memcpy(exact, bytes, len);
				assert_int_equal(decode_insn(exact, len, mode, features, &part, &info),
						 DECODE_MORE);
				free(exact);
			}
		}
}

/* An instruction of a part of AVX-512 that the CPU model has not is none. */
static void avx512_features(void **state)
{
	static const struct {
		const char *bytes;
		u8 feature; /* besides AVX512F */
		bool vl;
	} rows[] = {
		{ "\x62\xf1\x7d\x48\xfe\xc1", 0, false }, /* vpaddd zmm */
		{ "\x62\xf1\x7d\x28\xfe\xc1", 0, true },  /* ymm */
		{ "\x62\xf1\x7d\x08\xfe\xc1", 0, true },
		{ "\x62\xf1\x7e\x08\x58\xc1", 0, false }, /* vaddss: a scalar */
		{ "\x62\xf1\x74\x18\x58\xc1", 0, false }, /* vaddps with a rounding mode: 512 bits */
		{ "\x62\xf1\x7d\x08\x6e\xc1", 0, false }, /* vmovd */
		{ "\x62\xf1\x7d\x48\xfc\xc1", X86_FEATURE_AVX512BW, false },
		{ "\x62\xf1\x7c\x48\x54\xc1", X86_FEATURE_AVX512DQ, false },
		{ "\x62\xf2\x7d\x48\xc4\xc1", X86_FEATURE_AVX512CD, false },
		{ "\x62\xf2\xfd\x48\xb4\xc1", X86_FEATURE_AVX512IFMA, false },
		{ "\x62\xf2\x7d\x48\x8d\xc1", X86_FEATURE_AVX512_VBMI, false },
		{ "\x62\xf2\x7d\x48\x63\xc1", X86_FEATURE_AVX512_VBMI2, false },
		{ "\x62\xf2\x7d\x48\x50\xc1", X86_FEATURE_AVX512_VNNI, false },
		{ "\x62\xf2\x7d\x48\x54\xc1", X86_FEATURE_AVX512_BITALG, false },
		{ "\x62\xf2\x7d\x48\x55\xc1", X86_FEATURE_AVX512_VPOPCNTDQ, false },
		{ "\x62\xf2\x7e\x48\x52\xc1", X86_FEATURE_AVX512_BF16, false },
		{ "\x62\xf2\x7f\x48\x68\xc1", X86_FEATURE_AVX512_VP2INTERSECT, false },
		{ "\x62\xf2\x7d\x28\xcf\xc1", X86_FEATURE_GFNI, true },
		{ "\x62\xf2\x7d\x48\xdc\xc1", X86_FEATURE_VAES, false },
		{ "\xc5\xf8\x92\xc8\x90\x90", 0, false }, /* kmovw */
		{ "\xc5\xf9\x92\xc8\x90\x90", X86_FEATURE_AVX512DQ, false },
		{ "\xc5\xfb\x92\xc8\x90\x90", X86_FEATURE_AVX512BW, false },
	};

	for (unsigned k = 0; k < ARRAY_SIZE(rows); k++)
		for (unsigned without = 0; without < X86_NR_FEATURES; without++) {
			u64 some[4] = { ~0ull, ~0ull, ~0ull, ~0ull };
			const u8 *bytes = (const u8 *)rows[k].bytes;
			bool exists = without != X86_FEATURE_AVX512F &&
				      !(without && without == rows[k].feature) &&
				      !(rows[k].vl && without == X86_FEATURE_AVX512VL);
			struct decode_info info;
			struct insn i;

			some[without / 64] &= ~BIT(without % 64);
			if ((decode_insn(bytes, 6, MODE_64, some, &i, &info) == DECODE_OK) != exists)
				fail_msg("row %u without feature %u", k, without);
		}
}

static void too_long(void **state)
{
	struct decode_info info;
	struct insn i;
	u8 bytes[16];

	memset(bytes, 0x66, sizeof(bytes));
	assert_int_equal(decode_insn(bytes, 15, MODE_64, features, &i, &info), DECODE_GP);
	bytes[14] = 0x90;
	assert_int_equal(decode_insn(bytes, 15, MODE_64, features, &i, &info), DECODE_OK);
	assert_int_equal(i.len, 15);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(enumerated),      cmocka_unit_test(enumerated_evex),
		cmocka_unit_test(random_lengths),  cmocka_unit_test(prefixes_of_instructions),
		cmocka_unit_test(avx512_features), cmocka_unit_test(too_long),
	};

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0) | 1;
	if (argc > 2)
		count = strtoull(argv[2], NULL, 0);
	return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
