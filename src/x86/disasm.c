/* Disassembly by Zydis, which is optional: without it a line holds the bytes. Any thread. */
#include "x86/disasm.h"

#include <stdio.h>

static unsigned print_bytes(const u8 *bytes, unsigned len, char *out, size_t out_len)
{
	int n = snprintf(out, out_len, "bytes");

	for (unsigned k = 0; k < len && n > 0 && (size_t)n + 4 < out_len; k++)
		n += snprintf(out + n, out_len - (size_t)n, " %02x", bytes[k]);
	return 0;
}

#if HAVE_ZYDIS
#include <Zydis/Zydis.h>
#include <pthread.h>

#include "base/lazy.h"

static struct {
	__typeof__(ZydisDecoderInit) *decoder_init;
	__typeof__(ZydisDecoderDecodeFull) *decode_full;
	__typeof__(ZydisFormatterInit) *formatter_init;
	__typeof__(ZydisFormatterFormatInstruction) *format;
} lib;
static bool lib_there;

static void load(void)
{
	static const struct lazy_function functions[] = {
		{ "ZydisDecoderInit", &lib.decoder_init },
		{ "ZydisDecoderDecodeFull", &lib.decode_full },
		{ "ZydisFormatterInit", &lib.formatter_init },
		{ "ZydisFormatterFormatInstruction", &lib.format },
	};

	lib_there = !lazy_load("libZydis.so.4.0", functions, ARRAY_SIZE(functions), NULL);
}

static bool there(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return lib_there;
}

static bool decode(const u8 *bytes, unsigned len, unsigned mode, ZydisDecodedInstruction *insn,
		   ZydisDecodedOperand *ops)
{
	ZydisDecoder decoder;

	lib.decoder_init(&decoder,
			 mode == 64   ? ZYDIS_MACHINE_MODE_LONG_64
			 : mode == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
				      : ZYDIS_MACHINE_MODE_REAL_16,
			 mode == 64   ? ZYDIS_STACK_WIDTH_64
			 : mode == 32 ? ZYDIS_STACK_WIDTH_32
				      : ZYDIS_STACK_WIDTH_16);
	return ZYAN_SUCCESS(lib.decode_full(&decoder, bytes, len, insn, ops));
}

unsigned disasm(const u8 *bytes, unsigned len, unsigned mode, u64 rip, char *out, size_t out_len)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction insn;
	ZydisFormatter formatter;

	if (!there())
		return print_bytes(bytes, len, out, out_len);
	if (!decode(bytes, len, mode, &insn, ops)) {
		snprintf(out, out_len, "%s", len ? "(not an instruction)" : "(not mapped)");
		return 0;
	}
	lib.formatter_init(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	lib.format(&formatter, &insn, ops, insn.operand_count_visible, out, out_len, rip, NULL);
	return insn.length;
}

bool disasm_ends_block(const u8 *bytes, unsigned len, unsigned mode)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction insn;

	if (!there() || !decode(bytes, len, mode, &insn, ops))
		return true;
	switch (insn.meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET: return true;
	default: return false;
	}
}
#else
unsigned disasm(const u8 *bytes, unsigned len, unsigned mode, u64 rip, char *out, size_t out_len)
{
	return print_bytes(bytes, len, out, out_len);
}

bool disasm_ends_block(const u8 *bytes, unsigned len, unsigned mode)
{
	return true;
}
#endif
