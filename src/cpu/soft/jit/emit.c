/* The assembler's encoding: prefixes, REX, VEX or EVEX, ModRM, SIB, displacement [SDM2 2.1-2.3]. See emit.h. */
#include "cpu/soft/jit/emit.h"

#include "cpu/soft/decode.h"

static unsigned rex_bits(unsigned reg, const struct opnd *rm)
{
	unsigned rex = reg & 8 ? REX_R : 0;

	if (!rm->is_mem)
		return rex | (rm->reg & 8 ? REX_B : 0);
	if (rm->base != NO_REG && rm->base & 8)
		rex |= REX_B;
	if (rm->index != NO_REG && rm->index & 8)
		rex |= REX_X;
	return rex;
}

/* disp8: a displacement of one byte means what it says; with EVEX it is in units of the operand. */
static void put_modrm(struct emit *e, unsigned reg, const struct opnd *rm, bool disp8)
{
	unsigned r = (reg & 7) << 3, mod;

	if (!rm->is_mem) {
		emit1(e, 0xc0 | r | (rm->reg & 7));
		return;
	}
	if (rm->base == NO_REG) { /* with a SIB, lest it be relative to RIP */
		emit1(e, r | 4);
		emit1(e, rm->index == NO_REG ? 0x25 : (unsigned)rm->scale << 6 | (rm->index & 7u) << 3 | 5);
		emit4(e, (u32)rm->disp);
		return;
	}
	mod = rm->disp == 0 && (rm->base & 7) != R_BP                ? 0
	      : rm->disp == 0 || (disp8 && rm->disp == (s8)rm->disp) ? 0x40
								     : 0x80;
	if (rm->index != NO_REG || (rm->base & 7) == R_SP) {
		unsigned index = rm->index == NO_REG ? R_SP : rm->index & 7u;

		emit1(e, mod | r | 4);
		emit1(e, (unsigned)rm->scale << 6 | index << 3 | (rm->base & 7));
	} else {
		emit1(e, mod | r | (rm->base & 7));
	}
	if (mod == 0x40)
		emit1(e, (u8)rm->disp);
	else if (mod == 0x80)
		emit4(e, (u32)rm->disp);
}

void emit_op(struct emit *e, u32 op, unsigned reg, const struct opnd *rm)
{
	unsigned rex = rex_bits(reg, rm) | (op & E_W ? REX_W : 0);

	if (rm->is_mem && rm->gs)
		emit1(e, 0x65);
	if (op & E_LOCK)
		emit1(e, 0xf0);
	if (op & E_66)
		emit1(e, 0x66);
	if (op & (E_F2 | E_F3))
		emit1(e, op & E_F2 ? 0xf2 : 0xf3);
	if (rex || (op & E_BREG && reg >= 4) || (op & E_BRM && !rm->is_mem && rm->reg >= 4))
		emit1(e, 0x40 | rex);
	if (op & E_MAP)
		emit1(e, 0x0f);
	if ((op & E_MAP) == E_0F38)
		emit1(e, 0x38);
	else if ((op & E_MAP) == E_0F3A)
		emit1(e, 0x3a);
	emit1(e, (u8)op);
	put_modrm(e, reg, rm, true);
}

void emit_vex(struct emit *e, u32 op, unsigned pp, bool l, unsigned vvvv, unsigned reg, const struct opnd *rm)
{
	unsigned rex = rex_bits(reg, rm);

	if (rm->is_mem && rm->gs)
		emit1(e, 0x65);
	emit1(e, 0xc4);
	emit1(e, (~(rex << 5) & 0xe0) | (op & E_MAP) >> 8);
	emit1(e, (op & E_W ? 0x80u : 0) | (~vvvv & 15) << 3 | (l ? 4u : 0) | pp);
	emit1(e, (u8)op);
	put_modrm(e, reg, rm, true);
}

void emit_evex(struct emit *e, u32 op, unsigned pp, unsigned fields, unsigned vvvv, unsigned reg,
	       const struct opnd *rm)
{
	unsigned rex = rex_bits(reg, rm) | (!rm->is_mem && rm->reg & 16 ? REX_X : 0);

	if (rm->is_mem && rm->gs)
		emit1(e, 0x65);
	emit1(e, 0x62);
	emit1(e, (~(rex << 5) & 0xe0) | (reg & 16 ? 0 : 0x10) | (op & E_MAP) >> 8);
	emit1(e, (op & E_W ? 0x80u : 0) | (~vvvv & 15) << 3 | 4 | pp);
	emit1(e,
	      (fields & EVEX_Z ? 0x80u : 0) | (fields & (EVEX_LL | EVEX_B | EVEX_AAA)) | (vvvv & 16 ? 0 : 8));
	emit1(e, (u8)op);
	put_modrm(e, reg, rm, false);
}

void emit_imm(struct emit *e, unsigned reg, u64 v)
{
	if (v == (u32)v) {
		if (reg & 8)
			emit1(e, 0x40 | REX_B);
		emit1(e, 0xb8 | (reg & 7));
		emit4(e, (u32)v);
	} else if ((u64)(s64)(s32)v == v) {
		emit_rm(e, E_W | 0xc7, 0, op_reg(reg));
		emit4(e, (u32)v);
	} else {
		emit1(e, 0x40 | REX_W | (reg & 8 ? REX_B : 0));
		emit1(e, 0xb8 | (reg & 7));
		emit8(e, v);
	}
}

void emit_alu_imm(struct emit *e, unsigned op, unsigned reg, s32 imm)
{
	if (imm == (s8)imm) {
		emit_rm(e, E_W | OP_GRP1_IMM8, op, op_reg(reg));
		emit1(e, (u8)imm);
	} else {
		emit_rm(e, E_W | OP_GRP1_IMM, op, op_reg(reg));
		emit4(e, (u32)imm);
	}
}

void emit_align(struct emit *e, unsigned skip, unsigned size)
{
	static const u8 nop[][7] = { { 0x90 },
				     { 0x66, 0x90 },
				     { 0x0f, 0x1f, 0x00 },
				     { 0x0f, 0x1f, 0x40, 0x00 },
				     { 0x0f, 0x1f, 0x44, 0x00, 0x00 },
				     { 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 },
				     { 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00 } };
	unsigned at = (unsigned)((u64)(uintptr_t)(e->p + skip) & 7), n = at + size > 8 ? 8 - at : 0;

	for (unsigned k = 0; k < n; k++)
		emit1(e, nop[n - 1][k]);
}

void emit_set_jump(u8 *at, s64 rx_off, const u8 *target_rx)
{
	*(volatile any_u32 *)at = (u32)(target_rx - (at + rx_off + 4));
}

u8 *emit_jump(struct emit *e, unsigned cc, const u8 *target_rx)
{
	u8 *at;

	if (cc == CC_JMP) {
		emit1(e, 0xe9);
	} else if (cc == CC_CALL) {
		emit1(e, 0xe8);
	} else {
		emit1(e, 0x0f);
		emit1(e, 0x80 | cc);
	}
	at = e->p;
	e->p += 4;
	emit_set_jump(at, e->rx_off, target_rx ? target_rx : emit_rx(e));
	return at;
}

u8 *emit_jrcxz(struct emit *e)
{
	emit1(e, 0xe3);
	emit1(e, 0);
	return e->p - 1;
}
