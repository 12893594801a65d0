/* Odd instructions: decimal adjust and the other 16/32-bit ones, ENTER and LEAVE, CMPXCHG8B/16B, and the two
 * pseudo instructions that end a block [SDM2]. On the vCPU's thread only.
 */
#include "cpu/soft/ops.h"

#include "cpu/soft/code.h"

static u8 al(const struct soft_cpu *c)
{
	return (u8)c->gpr[R_AX];
}
static u8 ah(const struct soft_cpu *c)
{
	return (u8)(c->gpr[R_AX] >> 8);
}

static void set_ax(struct soft_cpu *c, u8 hi, u8 lo)
{
	st16(&c->gpr[R_AX], (u16)(hi << 8 | lo));
}

/* SF, ZF and PF of v, with the given CF and AF; OF = 0. */
static void set_result_flags(struct soft_cpu *c, u8 v, bool cf, bool af)
{
	u64 f = FL_RES1 | (cf ? FL_CF : 0) | (af ? FL_AF : 0) | (v ? 0 : FL_ZF) | (v & 0x80 ? FL_SF : 0);

	if (!__builtin_parity(v))
		f |= FL_PF;
	soft_set_arith(c, f);
}

void op_ud(struct soft_cpu *c, const struct insn *i)
{
	soft_ud(c, i);
}

static void ascii_adjust(struct soft_cpu *c, const struct insn *i, int sign)
{
	bool adjust = (al(c) & 15) > 9 || c->fl & FL_AF << 8;

	if (adjust)
		st16(&c->gpr[R_AX], (u16)(c->gpr[R_AX] + (u64)(s64)(sign * 0x106)));
	set_ax(c, ah(c), al(c) & 15);
	set_result_flags(c, al(c), adjust, adjust);
	NEXT(c, i);
}

void op_aaa(struct soft_cpu *c, const struct insn *i)
{
	ascii_adjust(c, i, 1);
}

void op_aas(struct soft_cpu *c, const struct insn *i)
{
	ascii_adjust(c, i, -1);
}

static void decimal_adjust(struct soft_cpu *c, const struct insn *i, bool add)
{
	u8 old = al(c), v = old;
	bool old_cf = c->fl & FL_CF << 8, cf = false, af = false;

	if ((old & 15) > 9 || c->fl & FL_AF << 8) {
		v = (u8)(add ? v + 6 : v - 6);
		cf = old_cf || (add ? old > 0xf9 : old < 6);
		af = true;
	}
	if (old > 0x99 || old_cf) {
		v = (u8)(add ? v + 0x60 : v - 0x60);
		cf = true;
	}
	set_ax(c, ah(c), v);
	set_result_flags(c, v, cf, af);
	NEXT(c, i);
}

void op_daa(struct soft_cpu *c, const struct insn *i)
{
	decimal_adjust(c, i, true);
}

void op_das(struct soft_cpu *c, const struct insn *i)
{
	decimal_adjust(c, i, false);
}

void op_aam(struct soft_cpu *c, const struct insn *i)
{
	u8 base = (u8)i->imm;

	if (!base)
		soft_raise(c, i, EXC_DE, NO_ERROR);
	set_ax(c, al(c) / base, al(c) % base);
	set_result_flags(c, al(c), false, false);
	NEXT(c, i);
}

void op_aad(struct soft_cpu *c, const struct insn *i)
{
	set_ax(c, 0, (u8)(al(c) + ah(c) * i->imm));
	set_result_flags(c, al(c), false, false);
	NEXT(c, i);
}

static s64 load_bound(struct soft_cpu *c, const struct insn *i, gva_t la)
{
	return i->osz == 2 ? (s16)ld16_la(c, i, la) : (s32)ld32_la(c, i, la);
}

void op_bound(struct soft_cpu *c, const struct insn *i)
{
	gva_t la = insn_la(c, i, i->osz * 2, ACC_R);
	s64 v = i->osz == 2 ? (s16)c->gpr[i->reg] : (s32)c->gpr[i->reg];
	bool below = v < load_bound(c, i, la);

	/* Intel's processors do not read the upper bound then. */
	if ((below && !c->amd) || v > load_bound(c, i, (u32)(la + i->osz)) || below)
		soft_raise(c, i, EXC_BR, NO_ERROR);
	NEXT(c, i);
}

void op_salc(struct soft_cpu *c, const struct insn *i)
{
	set_ax(c, ah(c), c->fl & FL_CF << 8 ? 0xff : 0);
	NEXT(c, i);
}

void op_xlat(struct soft_cpu *c, const struct insn *i)
{
	u64 ea = c->gpr[R_BX] + al(c);
	u8 v;

	ea = i->asz == 8 ? ea : i->asz == 4 ? (u32)ea : (u16)ea;
	v = ld8_la(c, i, i->flat ? ea + c->seg[i->seg].base : seg_linear(c, i, i->seg, ea, 1, ACC_R));
	*(u8 *)&c->gpr[R_AX] = v;
	NEXT(c, i);
}

void op_pusha(struct soft_cpu *c, const struct insn *i)
{
	/* A fault leaves the pushes before it in memory, as on processors; the registers are unchanged,
	 * so it can be restarted. */
	for (int r = 0; r < 8; r++)
		seg_stack_store(c, i, -(s64)((r + 1) * i->osz), i->osz, c->gpr[r]);
	soft_set_sp(c, c->gpr[R_SP] - 8 * i->osz);
	NEXT(c, i);
}

void op_popa(struct soft_cpu *c, const struct insn *i)
{
	u64 v[8];

	for (int r = 0; r < 8; r++)
		v[r] = seg_stack_load(c, i, (7 - r) * i->osz, i->osz);
	for (int r = 0; r < 8; r++) {
		if (r == R_SP)
			continue;
		if (i->osz == 2)
			st16(&c->gpr[r], (u16)v[r]);
		else
			c->gpr[r] = (u32)v[r];
	}
	soft_set_sp(c, c->gpr[R_SP] + 8 * i->osz);
	NEXT(c, i);
}

static void set_bp(struct soft_cpu *c, unsigned size, u64 v)
{
	if (size == 2)
		st16(&c->gpr[R_BP], (u16)v);
	else
		c->gpr[R_BP] = size == 4 ? (u32)v : v;
}

/* [SDM2 ENTER]; imm = bytes of locals, then the nesting level. */
void op_enter(struct soft_cpu *c, const struct insn *i)
{
	unsigned locals = (u16)i->imm, level = i->imm >> 16 & 31, size = i->osz;
	u64 sp_mask = soft_sp_mask(c), sp = c->gpr[R_SP], bp = c->gpr[R_BP];
	u64 frame = (sp & ~sp_mask) |
		    ((sp - size) & sp_mask); /* ESP whole, whatever part of it addresses the stack */
	s64 delta = -(s64)size;

	seg_stack_store(c, i, delta, size, bp);
	if (level) {
		for (unsigned k = 1; k < level; k++) {
			s64 from = (s64)(((bp - k * size) & sp_mask) - (sp & sp_mask));
			u64 v = seg_stack_load(c, i, from, size);

			delta -= size;
			seg_stack_store(c, i, delta, size, v);
		}
		delta -= size;
		seg_stack_store(c, i, delta, size, frame);
	}
	/* The new top of the stack must be writable [SDM2 ENTER: a write to it, without changing it]. */
	delta -= locals;
	mmu_probe(c, i,
		  seg_linear(c, i, soft_mode64(c) ? SEG_FLAT : SEG_SS, (sp + (u64)delta) & sp_mask, size,
			     ACC_W),
		  size, ACC_W);
	set_bp(c, size, frame);
	soft_set_sp(c, sp + (u64)delta);
	NEXT(c, i);
}

void op_leave(struct soft_cpu *c, const struct insn *i)
{
	u64 mask = soft_sp_mask(c), v;
	s64 delta = (s64)((c->gpr[R_BP] & mask) - (c->gpr[R_SP] & mask));

	v = seg_stack_load(c, i, delta, i->osz);
	soft_set_sp(c, c->gpr[R_BP] + i->osz);
	set_bp(c, i->osz, v);
	NEXT(c, i);
}

static void set_zf(struct soft_cpu *c, bool zf)
{
	c->fl = (u16)((c->fl & ~(FL_ZF << 8)) | (zf ? FL_ZF << 8 : 0));
}

void op_cmpxchg8b(struct soft_cpu *c, const struct insn *i)
{
	gva_t la = insn_la(c, i, 8, ACC_R | ACC_W);
	gpa_t gpa;
	u64 *p = lock_begin(c, i, la, 8, &gpa), old;
	u64 want = (u32)c->gpr[R_AX] | c->gpr[R_DX] << 32, next = (u32)c->gpr[R_BX] | c->gpr[R_CX] << 32;

	if (likely(p)) {
		old = want;
		__asm__ volatile("lock cmpxchgq %2, %1" : "+a"(old), "+m"(*p) : "r"(next) : "cc", "memory");
		lock_end(c, gpa, 8);
	} else {
		old = mmu_load(c, i, la, 8, ACC_R | ACC_W);
		mmu_store(c, i, la, 8, old == want ? next : old);
	}
	set_zf(c, old == want);
	if (old != want) {
		c->gpr[R_AX] = (u32)old;
		c->gpr[R_DX] = old >> 32;
	}
	NEXT(c, i);
}

void op_cmpxchg16b(struct soft_cpu *c, const struct insn *i)
{
	gva_t la = insn_la(c, i, 16, ACC_R | ACC_W);
	u64 lo = c->gpr[R_AX], hi = c->gpr[R_DX];
	unsigned __int128 *p;
	gpa_t gpa;

	if (la & 15)
		soft_gp(c, i, 0);
	p = lock_begin(c, i, la, 16, &gpa);
	if (likely(p)) {
		__asm__ volatile("lock cmpxchg16b %2"
				 : "+a"(lo), "+d"(hi), "+m"(*p)
				 : "b"(c->gpr[R_BX]), "c"(c->gpr[R_CX])
				 : "cc", "memory");
		lock_end(c, gpa, 16);
	} else {
		bool same;

		lo = mmu_load(c, i, la, 8, ACC_R | ACC_W);
		hi = mmu_load(c, i, la + 8, 8, ACC_R | ACC_W);
		same = lo == c->gpr[R_AX] && hi == c->gpr[R_DX];
		mmu_store(c, i, la, 8, same ? c->gpr[R_BX] : lo);
		mmu_store(c, i, la + 8, 8, same ? c->gpr[R_CX] : hi);
	}
	set_zf(c, lo == c->gpr[R_AX] && hi == c->gpr[R_DX]);
	c->gpr[R_AX] = lo;
	c->gpr[R_DX] = hi;
	NEXT(c, i);
}

/* Behind the last instruction of a block that was cut by length or page end. */
void op_end_of_block(struct soft_cpu *c, const struct insn *i)
{
	c->rip = soft_rip_mask(c, soft_rip(c, i));
}

/* Takes the place of every instruction of a block that has just been overwritten: what follows is
 * decoded anew. */
void op_stop(struct soft_cpu *c, const struct insn *i)
{
	c->stopped_at = i;
	c->icount -= code_insns_from(c->cur, i);
	c->rip = soft_rip_mask(c, soft_rip(c, i));
}

/* An instruction longer than 15 bytes, or beyond the segment limit. */
void op_gp0(struct soft_cpu *c, const struct insn *i)
{
	soft_gp(c, i, 0);
}
