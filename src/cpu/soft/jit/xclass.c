/* What each instruction is to the translator: which registers and memory it touches, what it does with the
 * flags, how it is encoded anew [SDM2]. What is not recognised here is left to the interpreter.
 *
 * Shifts by a constant set all six flags, the undefined ones by their operands alone; multiplications, rotates,
 * bit tests and the rest may leave some as they were, as the host's processor does. */
#include "cpu/soft/fpu.h"
#include "cpu/soft/jit/translate.h"
#include "cpu/soft/ops.h"
#include "cpu/soft/ops_int.h"
#include "cpu/soft/thunk.h"
#include "x86/cpuid.h"

static bool is_high(const struct insn *i, unsigned reg)
{
	return !(i->pfx & (PFX_REX | PFX_VEX)) && reg >= 4;
}

static void roles(struct xinsn *x, const char *reg, const char *rm, unsigned fl)
{
	x->kind = XK_RM;
	for (; *reg; reg++)
		*(*reg == 'r' ? &x->reg_r : &x->reg_w) = true;
	for (; *rm; rm++)
		*(*rm == 'r' ? &x->rm_r : &x->rm_w) = true;
	x->fl = (u8)fl;
}

/* Group 1 and its like: ADD OR ADC SBB AND SUB XOR CMP. */
static unsigned alu_flags(unsigned op)
{
	return XF_ALL | (op == GRP1_ADC || op == GRP1_SBB ? XF_READ : 0);
}

static void class_shift(struct xinsn *x, const struct insn *i, bool by_cl)
{
	unsigned op = i->modrm >> 3 & 7, count = (unsigned)i->imm & (i->osz == 8 ? 63 : 31);

	roles(x, "", "rw", 0);
	if (by_cl)
		x->fl = XF_SOME | (op == 2 || op == 3 ? XF_READ : 0);
	else if (count)
		x->fl = (u8)(op >= 4 ? XF_ALL : XF_SOME | (op == 2 || op == 3 ? XF_READ : 0));
}

static void class_group3(struct xinsn *x, const struct insn *i)
{
	switch (i->modrm >> 3 & 7) {
	case 0:
	case 1:
		roles(x, "", "r", XF_ALL);
		x->imm = i->osz == 1 ? 1 : i->osz == 2 ? 2 : 4;
		break;
	case 2: roles(x, "", "rw", 0); break;
	case 3: roles(x, "", "rw", XF_ALL); break;
	default:
		roles(x, "", "r", XF_SOME);
		x->wr |= BIT(R_AX) | (i->osz == 1 ? 0 : BIT(R_DX));
		x->fault = (i->modrm >> 3 & 7) >= 6;
	}
}

/* What PUSH and CALL store. */
static void class_push(const struct xlate *t, struct xinsn *x)
{
	x->acc = ACC_W;
	x->msz = t->word;
	x->base = R_SP;
	x->disp = -t->word;
	x->sp_delta = -t->word;
}

/* One that cuts RIP to 16 bits is not known; one out of the canonical addresses faults, and nothing is pushed. */
static void class_jump(const struct xlate *t, struct xinsn *x, const struct insn *i, unsigned kind)
{
	u64 target = t->at + i->off + i->len + i->imm;
	bool known = t->word == 4 ? i->osz != 2 : bits_sext(target, 48) == target;

	x->kind = known ? (u8)kind : XK_BAIL;
	x->fl = kind == XK_JCC ? XF_READ : 0;
}

/* Is the memory operand's linear address what translated code makes it, within all limits? */
static bool is_flat(const struct xlate *t, const struct insn *i)
{
	if (t->word == 8)
		return i->flat;
	return i->asz == 4 && (i->seg == SEG_DS || i->seg == SEG_SS || i->seg == SEG_ES);
}

/* In lock-step the interpreter does them in pieces. */
static void class_string(const struct xlate *t, struct xinsn *x, const struct insn *i)
{
	if (t->j->lockstep || !is_flat(t, i) || (t->word == 8 && i->seg != SEG_FLAT))
		return;
	x->kind = XK_STRING;
	x->acc = ACC_W;
	x->wr = (u16)(BIT(R_DI) | (i->opcode < 0xa6 ? BIT(R_SI) : 0) |
		      (i->pfx & (PFX_F2 | PFX_F3) ? BIT(R_CX) : 0));
}

static void class_map0(const struct xlate *t, struct xinsn *x, const struct insn *i)
{
	unsigned op = i->opcode, imm_z = i->osz == 2 ? 2 : 4;
	bool byte = false;

	switch (op) {
	case 0x00 ... 0x3d:
		if ((op & 7) >= 6)
			return;
		byte = !(op & 1);
		if ((op & 7) >= 4) { /* op rAX, imm: as group 1 */
			roles(x, "", op >> 3 == GRP1_CMP ? "r" : "rw", alu_flags(op >> 3));
			x->rm = R_AX;
			x->imm = (u8)(byte ? 1 : imm_z);
		} else if (op & 2) {
			roles(x, op >> 3 == GRP1_CMP ? "r" : "rw", "r", alu_flags(op >> 3));
		} else {
			roles(x, "r", op >> 3 == GRP1_CMP ? "r" : "rw", alu_flags(op >> 3));
		}
		break;
	case 0x40 ... 0x4f: /* INC, DEC: outside of 64-bit mode */ roles(x, "", "rw", XF_SOME); break;
	case 0x50 ... 0x57:
	case 0x58 ... 0x5f:
		if (i->osz != t->word)
			return;
		x->kind = op < 0x58 ? XK_PUSH : XK_POP;
		if (op < 0x58) {
			class_push(t, x);
			return;
		}
		x->acc = ACC_R;
		x->msz = t->word;
		x->base = R_SP;
		x->sp_delta = t->word;
		x->wr = (u16)BIT(x->rm);
		return;
	case 0x63:
		if (t->word == 4) /* ARPL */
			return;
		roles(x, "w", "r", 0);
		x->msz = i->osz == 2 ? 2 : 4;
		break;
	case 0x68:
	case 0x6a:
		if (i->osz != t->word)
			return;
		x->kind = XK_PUSH_IMM;
		class_push(t, x);
		return;
	case 0x69:
	case 0x6b:
		roles(x, "w", "r", XF_SOME);
		x->imm = (u8)(op == 0x6b ? 1 : imm_z);
		break;
	case 0x70 ... 0x7f: class_jump(t, x, i, XK_JCC); return;
	case 0x80:
	case 0x81:
	case 0x83: {
		unsigned n = i->modrm >> 3 & 7;

		byte = op == 0x80;
		roles(x, "", n == GRP1_CMP ? "r" : "rw", alu_flags(n));
		x->imm = (u8)(op == 0x81 ? imm_z : 1);
		break;
	}
	case 0x84:
	case 0x85:
		byte = op == 0x84;
		roles(x, "r", "r", XF_ALL);
		break;
	case 0x86:
	case 0x87:
		byte = op == 0x86;
		roles(x, "rw", "rw", 0);
		break;
	case 0x88:
	case 0x89:
		byte = op == 0x88;
		roles(x, "r", "w", 0);
		break;
	case 0x8a:
	case 0x8b:
		byte = op == 0x8a;
		roles(x, "w", "r", 0);
		break;
	case 0x8c:
		if (i->mem || i->osz < 4 || (i->modrm >> 3 & 7) >= X86_NR_SEG)
			return;
		x->kind = XK_MOV_SREG;
		x->wr = (u16)BIT(x->rm);
		return;
	case 0x8d:
		if (i->asz != t->word || (i->osz == 2 && (!x_pinned(x->reg) || i->base == RIPB)))
			return;
		x->kind = XK_LEA;
		x->wr = (u16)BIT(x->reg);
		return;
	case 0x90 ... 0x97:
		if (i->fn == int_nop) {
			x->kind = XK_NOP;
		} else if (i->fn != int_pause) {
			x->kind = XK_XCHG_A;
			x->wr = (u16)(BIT(R_AX) | BIT(x->rm));
		}
		return;
	case 0x98:
	case 0x99:
		x->kind = XK_PLAIN;
		x->wr = (u16)(op == 0x98 ? BIT(R_AX) : BIT(R_DX));
		return;
	case 0x9c:
		if (i->osz != t->word)
			return;
		x->kind = XK_PUSHF;
		x->fl = XF_READ;
		class_push(t, x);
		return;
	case 0x9e: /* SAHF leaves OF */
	case 0x9f:
	case 0xf5:
	case 0xf8:
	case 0xf9:
		x->kind = XK_PLAIN;
		x->fl = op == 0x9f ? XF_READ : XF_SOME | XF_READ;
		x->wr = (u16)(op == 0x9f ? BIT(R_AX) : 0);
		return;
	case 0xa0 ... 0xa3: /* MOV with an address for an immediate; as 88H to 8BH */
		if (t->word == 8 || i->asz != t->word)
			return;
		roles(x, op & 2 ? "r" : "w", op & 2 ? "w" : "r", 0);
		x->reg = R_AX;
		x->moffs = true;
		byte = !(op & 1);
		break;
	case 0xa4:
	case 0xa5:
	case 0xaa:
	case 0xab: class_string(t, x, i); return;
	case 0xa8:
	case 0xa9: /* as group 3 */
		byte = op == 0xa8;
		roles(x, "", "r", XF_ALL);
		x->rm = R_AX;
		x->imm = (u8)(byte ? 1 : imm_z);
		break;
	case 0xb0 ... 0xb7: byte = true; /* fallthrough */
	case 0xb8 ... 0xbf:
		x->kind = XK_IMM;
		x->wr = (u16)BIT(is_high(i, x->rm) && byte ? x->rm & 3 : x->rm);
		x->high = byte && is_high(i, x->rm);
		x->byte_rm = byte;
		return;
	case 0xc0:
	case 0xc1:
		byte = op == 0xc0;
		class_shift(x, i, false);
		x->imm = 1;
		break;
	case 0xd0 ... 0xd3:
		byte = !(op & 1);
		class_shift(x, i, op >= 0xd2);
		break;
	case 0xc6:
	case 0xc7:
		byte = op == 0xc6;
		roles(x, "", "w", 0);
		x->imm = (u8)(byte ? 1 : imm_z);
		break;
	case 0xc2:
	case 0xc3:
		if (i->osz != t->word)
			return;
		x->kind = XK_RET;
		x->acc = ACC_R;
		x->msz = t->word;
		x->base = R_SP;
		return;
	case 0xc9:
		if (i->osz != t->word)
			return;
		x->kind = XK_LEAVE;
		x->acc = ACC_R;
		x->msz = t->word;
		x->base = R_BP;
		x->wr = (u16)(BIT(R_BP) | BIT(R_SP));
		return;
	case 0xe8:
		class_jump(t, x, i, XK_CALL);
		if (x->kind == XK_CALL)
			class_push(t, x);
		return;
	case 0xe9:
	case 0xeb: class_jump(t, x, i, XK_JMP); return;
	case 0xf6:
	case 0xf7:
		byte = op == 0xf6;
		class_group3(x, i);
		break;
	case 0xfa: x->kind = XK_CLI; return;
	case 0xfb: x->kind = XK_STI; return;
	case 0xfc: x->kind = XK_CLD; return;
	case 0xfe:
	case 0xff: {
		unsigned n = i->modrm >> 3 & 7;

		byte = op == 0xfe;
		if (n <= 1) {
			roles(x, "", "rw", XF_SOME);
			break;
		}
		if (op == 0xff && (n == 2 || n == 4)) {
			class_jump(t, x, i, n == 2 ? XK_CALL_IND : XK_JMP_IND);
			if (x->kind == XK_BAIL)
				return;
			x->rm_r = true;
			x->msz = t->word;
			if (i->mem)
				x->acc = ACC_R;
			return;
		}
		if (op == 0xff && n == 6 && i->mem && i->osz == t->word) {
			x->kind = XK_PUSH_MEM;
			x->acc = ACC_R;
			x->msz = t->word;
			x->sp_delta = -t->word;
		}
		return;
	}
	default: return;
	}
	x->byte_reg = x->byte_rm = byte;
}

static void class_map1(struct xlate *t, struct xinsn *x, const struct insn *i)
{
	unsigned op = i->opcode;

	switch (op) {
	case 0x01:
		if (i->fn == op_swapgs)
			x->kind = XK_SWAPGS;
		else if (i->fn == op_clac || i->fn == op_stac)
			x->kind = i->fn == op_clac ? XK_CLAC : XK_STAC;
		return;
	case 0x31:
		x->kind = XK_RDTSC;
		x->wr = (u16)(BIT(R_AX) | BIT(R_DX));
		return;
	case 0x0d:
	case 0x18 ... 0x1f:
		if (i->fn == int_nop)
			x->kind = XK_NOP;
		return;
	case 0xae:
		if (i->fn == int_nop)
			x->kind = XK_FENCE;
		return;
	case 0x40 ... 0x4f: roles(x, "rw", "r", XF_READ); return;
	case 0x80 ... 0x8f: class_jump(t, x, i, XK_JCC); return;
	case 0x90 ... 0x9f:
		roles(x, "", "w", XF_READ);
		x->byte_rm = x->byte_reg = true;
		return;
	case 0xa3:
	case 0xab:
	case 0xb3:
	case 0xbb:
		roles(x, "r", op == 0xa3 ? "r" : "rw", XF_SOME);
		x->bits = i->mem;
		return;
	case 0xc7:
		if (i->fn != op_cmpxchg8b && i->fn != op_cmpxchg16b)
			return;
		roles(x, "", "rw", XF_SOME);
		x->msz = i->fn == op_cmpxchg16b ? 16 : 8;
		x->wr = (u16)(BIT(R_AX) | BIT(R_DX));
		x->fault = true; /* not aligned */
		return;
	case 0xba:
		roles(x, "", (i->modrm >> 3 & 7) == 4 ? "r" : "rw", XF_SOME);
		x->imm = 1;
		return;
	case 0xa4:
	case 0xac:
	case 0xa5:
	case 0xad:
		roles(x, "r", "rw", XF_SOME);
		x->imm = op & 1 ? 0 : 1;
		return;
	case 0xaf: roles(x, "rw", "r", XF_SOME); return;
	case 0xb0:
	case 0xb1:
		roles(x, "r", "rw", XF_ALL);
		x->wr |= BIT(R_AX);
		x->byte_rm = x->byte_reg = op == 0xb0;
		return;
	case 0xc0:
	case 0xc1:
		roles(x, "rw", "rw", XF_ALL);
		x->byte_rm = x->byte_reg = op == 0xc0;
		return;
	case 0xb6:
	case 0xbe:
		roles(x, "w", "r", 0);
		x->byte_rm = true;
		x->msz = 1;
		return;
	case 0xb7:
	case 0xbf:
		roles(x, "w", "r", 0);
		x->msz = 2;
		return;
	case 0xbc:
	case 0xbd:
		roles(x, "rw", "r", XF_SOME); /* a source of 0 leaves the destination */
		return;
	case 0xc8 ... 0xcf:
		if (i->osz == 2)
			return;
		x->kind = XK_OPREG;
		x->wr = (u16)BIT(x->rm);
		return;
	}
}

static bool is_mulx(const struct insn *i)
{
	return i->map == 2 && i->opcode == 0xf6 && i->pfx & PFX_F2 && i->pfx & PFX_VEX;
}

/* Rows of simd_row() and x87_row(). */
static void class_native(struct xlate *t, struct xinsn *x, const struct insn *i, const struct native_row *row)
{
	bool integer = thunk_is_int(i, row);

	if (!(row->flags & NR_VALID) || (row->fn && row->fn != op_native_mem))
		return;
	x->kind = XK_NATIVE;
	x->row = row;
	x->msz = i->msz;
	if (row->evex) { /* registers 16 to 31, and mask registers, where not all bits count */
		x->reg = i->reg;
		x->rm = i->rm;
	}
	if (i->mem)
		x->acc = (u8)((i->aux & NR_LOAD ? ACC_R : 0) | (i->aux & NR_STORE ? ACC_W : 0));
	x->reg_r = x->reg_w = row->flags & NR_GPR_REG;
	x->rm_r = x->rm_w = row->flags & NR_GPR_RM && !i->mem;
	if (row->flags & NR_IMPL_AXDX)
		x->wr |= BIT(R_AX) | BIT(R_DX);
	if (row->flags & NR_IMPL_CX)
		x->wr |= BIT(R_CX);
	if (row->flags & NR_GPR_VVVV && is_mulx(i) && !x_pinned(i->vvvv) && !x_pinned(x->reg)) {
		x->kind = XK_STEP; /* two results, and one register for them */
		return;
	}
	if (row->flags & NR_GPR_VVVV && (is_mulx(i) || (i->map == 2 && i->opcode == 0xf3)))
		x->wr |= (u16)BIT(i->vvvv); /* else it is a source */
	if (row->flags & NR_IMM8)
		x->imm = 1;
	if (row->flags & NR_FLAGS_OUT)
		x->fl |= integer ? XF_SOME : XF_ALL;
	if (row->flags & NR_FLAGS_IN)
		x->fl |= XF_READ;
	x->byte_rm = i->map == 2 && i->opcode == 0xf0 && i->pfx & PFX_F2; /* CRC32 r, r/m8 */
	x->vec = !integer;
	x->avx = i->pfx & PFX_VEX;
	x->avx512 = row->evex;
	x->fault = x->vec;
}

/* Does the integer table of the decoder have this opcode, so that simd_row() is not to be asked? */
static bool is_table_native(const struct insn *i)
{
	if (i->map == 0)
		return i->opcode < 0xd8 || i->opcode > 0xdf;
	if (i->map != 1 || i->pfx & PFX_VEX)
		return false;
	switch (i->opcode) {
	case 0xa4:
	case 0xa5:
	case 0xac:
	case 0xad:
	case 0xb0:
	case 0xb1:
	case 0xc0:
	case 0xc1:
	case 0xc7: return true;
	case 0xbc:
	case 0xbd: return !(i->pfx & PFX_F3);
	default: return false;
	}
}

/* Through FS or GS, of any base: if that is writable and has 4 GiB, see memop.c. */
static bool is_wide(const struct xlate *t, const struct insn *i)
{
	return t->word == 4 && i->asz == 4 && (i->seg == SEG_FS || i->seg == SEG_GS) && i->index == RZERO;
}

void xclass_insn(struct xlate *t, const struct insn *i, struct xinsn *x)
{
	bool mem;

	soft_zero(x, sizeof(*x));
	x->i = i;
	x->kind = XK_STEP;
	x->base = NO_REG;
	x->seg = SEG_FLAT;
	x->reg = (u8)((i->modrm >> 3 & 7) | (i->rex & REX_R ? 8 : 0));
	x->rm = (u8)((i->modrm & 7) | (i->rex & REX_B ? 8 : 0));
	if (i->fn == op_ud || i->fn == op_gp0 || i->fn == op_stop) {
		x->kind = XK_BAIL;
		x->exposes = true;
		return;
	}
	if (i->map == 0 && (i->opcode & 0xe0) == 0x40)
		x->rm = (u8)((i->opcode & 7) | (i->rex & REX_B ? 8 : 0));
	if ((i->map == 0 && ((i->opcode & 0xf8) == 0x90 || (i->opcode & 0xf0) == 0xb0)) ||
	    (i->map == 1 && (i->opcode & 0xf8) == 0xc8))
		x->rm = (u8)((i->opcode & 7) | (i->rex & REX_B ? 8 : 0));
	if (i->fn == op_simd_vzero && t->word == 8) { /* else it is of eight registers only */
		x->kind = XK_VZERO;
		x->vec = x->avx = x->exposes = true;
		return;
	}
	if (i->thunk && !is_table_native(i)) {
		const struct native_row *row = i->map == 0 ? x87_row(i) : simd_row(i);

		if (row)
			class_native(t, x, i, row);
		else if (i->map == 1 && (i->opcode | 1) == 0xbd)
			class_map1(t, x, i); /* F3 means nothing without BMI1, ABM */
	} else if (i->map == 0) {
		class_map0(t, x, i);
	} else if (i->map == 1 && !(i->pfx & PFX_VEX)) {
		class_map1(t, x, i);
	}
	mem = i->mem || x->moffs;
	if (x->kind == XK_RM) {
		if (!x->msz)
			x->msz = i->osz;
		if (x->byte_rm && x->byte_reg)
			x->msz = 1;
		if (mem)
			x->acc = (u8)((x->rm_r ? ACC_R : 0) | (x->rm_w ? ACC_W : 0));
	}
	if (x->kind == XK_RM || x->kind == XK_NATIVE) {
		if ((x->reg_r || x->reg_w) && x->byte_reg && is_high(i, x->reg))
			x->high = true;
		if ((x->rm_r || x->rm_w) && !mem && x->byte_rm && is_high(i, x->rm))
			x->high = true;
		/* MOVZX ESP, AH: ESP needs the REX that AH must not have. */
		if (x->high && !x->byte_reg && (x->reg_r || x->reg_w) && x->reg == R_SP) {
			x->kind = XK_STEP;
			return;
		}
		if (x->reg_w)
			x->wr |= (u16)BIT(x->byte_reg && is_high(i, x->reg) ? x->reg & 3 : x->reg);
		if (x->rm_w && !mem)
			x->wr |= (u16)BIT(x->byte_rm && is_high(i, x->rm) ? x->rm & 3 : x->rm);
	}
	if (x->acc && mem) {
		if ((!is_flat(t, i) && !is_wide(t, i)) ||
		    (x->high && x->kind != XK_IMM)) { /* AH with R10 in the address cannot be encoded */
			x->kind = i->fn == int_jmp_rm || i->fn == int_call_rm ? XK_BAIL : XK_STEP;
			x->acc = 0;
		} else if (i->index == RZERO && !is_wide(t, i)) {
			x->base = i->base;
			x->disp = i->disp;
			x->seg = t->word == 8 ? i->seg : SEG_FLAT;
		}
	}
	x->exposes = x->acc || x->kind == XK_STEP || x->kind == XK_BAIL || x->fault || x->vec ||
		     (x->kind >= XK_CLI && x->kind <= XK_STRING) || x->kind >= XK_JCC;
}
