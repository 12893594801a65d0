/* Disassembly by Zydis, which is optional: without it a line holds the bytes. */
#include "x86/disasm.h"

#include <stdio.h>

#if HAVE_ZYDIS
#include <Zydis/Zydis.h>

static bool decode(const u8 *bytes, unsigned len, unsigned mode, ZydisDecodedInstruction *insn,
		   ZydisDecodedOperand *ops)
{
	ZydisDecoder decoder;

	ZydisDecoderInit(&decoder,
			 mode == 64   ? ZYDIS_MACHINE_MODE_LONG_64
			 : mode == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
				      : ZYDIS_MACHINE_MODE_REAL_16,
			 mode == 64   ? ZYDIS_STACK_WIDTH_64
			 : mode == 32 ? ZYDIS_STACK_WIDTH_32
				      : ZYDIS_STACK_WIDTH_16);
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, len, insn, ops));
}

unsigned disasm(const u8 *bytes, unsigned len, unsigned mode, u64 rip, char *out, size_t out_len)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction insn;
	ZydisFormatter formatter;

	if (!decode(bytes, len, mode, &insn, ops)) {
		snprintf(out, out_len, "%s", len ? "(not an instruction)" : "(not mapped)");
		return 0;
	}
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisFormatterFormatInstruction(&formatter, &insn, ops, insn.operand_count_visible, out, out_len, rip,
					NULL);
	return insn.length;
}

bool disasm_ends_block(const u8 *bytes, unsigned len, unsigned mode)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction insn;

	if (!decode(bytes, len, mode, &insn, ops))
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
	int n = snprintf(out, out_len, "bytes");

	for (unsigned k = 0; k < len && n > 0 && (size_t)n + 4 < out_len; k++)
		n += snprintf(out + n, out_len - (size_t)n, " %02x", bytes[k]);
	return 0;
}

bool disasm_ends_block(const u8 *bytes, unsigned len, unsigned mode)
{
	return true;
}
#endif
