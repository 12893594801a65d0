/* Which instructions can write to memory: a block that checks its own bytes ends after the first of them, since
 * nothing else would notice that it writes over itself. What is not known not to write does. */
#include "cpu/soft/code.h"
#include "cpu/soft/thunk.h"

/* Bit n: the form with a memory operand and /n in ModRM only reads it. */
static bool digit_reads(const struct insn *i, u8 digits)
{
	return digits >> (i->modrm >> 3 & 7) & 1;
}

static bool one_byte_reads(const struct insn *i, u32 key)
{
	u8 op = i->opcode;

	if (op < 0x40) /* ALU: r/m, r; r, r/m; rAX, imm; then segment registers and prefixes */
		return (op & 7) < 6 && (!i->mem || (op & 7) >= 2 || op >> 3 == 7 /* CMP */);
	switch (op) {
	case 0x40 ... 0x4f: /* INC, DEC */
	case 0x58 ... 0x5f: /* POP r */
	case 0x69:
	case 0x6b:          /* IMUL */
	case 0x70 ... 0x7f: /* Jcc */
	case 0x84:
	case 0x85: /* TEST */
	case 0x8a:
	case 0x8b:          /* MOV r, r/m */
	case 0x8d:          /* LEA */
	case 0x90 ... 0x99: /* XCHG rAX, r; CBW, CWD */
	case 0x9e:
	case 0x9f: /* SAHF, LAHF */
	case 0xa0:
	case 0xa1: /* MOV rAX, moffs */
	case 0xa8:
	case 0xa9:          /* TEST */
	case 0xb0 ... 0xbf: /* MOV r, imm */
	case 0xc2:
	case 0xc3:          /* RET */
	case 0xe0 ... 0xe3: /* LOOP, JCXZ */
	case 0xe9:
	case 0xeb: /* JMP */
	case 0xf5:
	case 0xf8:
	case 0xf9:
	case 0xfc:
	case 0xfd: return true;                        /* flags */
	case 0x63: return (key & KEY_MODE) == MODE_64; /* MOVSXD, elsewhere ARPL */
	case 0x80 ... 0x83: return !i->mem || digit_reads(i, 1 << 7);
	case 0x86 ... 0x89: /* XCHG, MOV r/m, r */
	case 0xc0:
	case 0xc1:
	case 0xc6:
	case 0xc7:
	case 0xd0 ... 0xd3: return !i->mem; /* shifts, MOV r/m, imm */
	case 0xf6:
	case 0xf7: return !i->mem || digit_reads(i, 0xf3); /* not NOT, NEG */
	case 0xfe:
	case 0xff:
		return i->mem ? op == 0xff && digit_reads(i, 1 << 4)
			      : !digit_reads(i, 0xec); /* JMP; INC, DEC */
	default: return false;
	}
}

static bool two_byte_reads(const struct insn *i)
{
	switch (i->opcode) {
	case 0x1f:          /* NOP */
	case 0x40 ... 0x4f: /* CMOVcc */
	case 0x80 ... 0x8f: /* Jcc */
	case 0xa3:          /* BT */
	case 0xaf:          /* IMUL */
	case 0xb6:
	case 0xb7:
	case 0xbe:
	case 0xbf:                       /* MOVZX, MOVSX */
	case 0xc8 ... 0xcf: return true; /* BSWAP */
	case 0x90 ... 0x9f:              /* SETcc */
	case 0xa4:
	case 0xa5:
	case 0xab:
	case 0xac:
	case 0xad:
	case 0xb3:
	case 0xbb: return !i->mem; /* SHLD, SHRD, BTS, BTR, BTC */
	case 0xba: return !i->mem || digit_reads(i, 1 << 4);
	default: return false;
	}
}

bool code_store_possible(const struct insn *i, u32 key)
{
	if (i->fn == op_native_reg || i->fn == op_native_mem || i->fn == op_native_simd ||
	    i->fn == op_native_mmx || i->fn == op_native_x87)
		return i->mem && i->aux & NR_STORE;
	if (i->pfx & PFX_VEX)
		return true;
	return !(i->map == 0 ? one_byte_reads(i, key) : i->map == 1 && two_byte_reads(i));
}
