/* Loops of one block: a block that jumps back to its own beginning is translated several times in a row.
 *
 * Where the addresses of its memory operands move by constants from one iteration to the next, one check
 * serves all accesses of several iterations: the range that they cover together must lie in one page. Its
 * addend stays in a host register whose guest register the loop does not touch (that one waits in c->gpr), so
 * that in between an access is as long as the guest's.
 *
 *	spill:	the registers for addends and the count are freed
 *	top:	anything to do outside? the checks; the addends; how many rounds stay in these pages
 *	round:	the block, U times; where it does not jump back: out
 *		flags saved; back to round, or to top
 *	slow:	the block once, as any other; back to spill
 *
 * A check fails where the range of one round crosses a page, at a TLB miss, or at what is not plain memory; then one
 * iteration goes the slow way, whose accesses are checked one by one. Everything that leaves the fast
 * part puts the guest's registers back first. At top and round the flags are in c->fl.
 *
 * On the vCPU's thread. */
#include "cpu/soft/jit/translate.h"

#define MAX_INSNS  112 /* of all iterations */
#define MAX_RANGE  256 /* bytes of a round: of each page so many, less one iteration's, go the slow way */
#define MAX_ROUNDS 64  /* between two looks at what is to do outside */

static bool is_loopable(const struct xinsn *x)
{
	switch (x->kind) {
	case XK_NOP:
	case XK_RM:
	case XK_IMM:
	case XK_OPREG:
	case XK_XCHG_A:
	case XK_PLAIN:
	case XK_LEA:
	case XK_NATIVE: return true;
	default: return false;
	}
}

/* What register `reg` gains in one iteration; false: not a constant. */
static bool stride(const struct xlate *t, unsigned reg, s64 *ret_by)
{
	s64 sum = 0, by;

	for (unsigned k = 0; reg < X86_NR_GPR && k < t->n; k++) {
		if (memop_delta(t, &t->in[k], reg, &by))
			sum += by;
		else if (t->in[k].wr >> reg & 1)
			return false;
	}
	*ret_by = sum;
	return true;
}

/* How far a register has moved in an iteration before instruction k. */
static s64 moved_before(const struct xlate *t, unsigned reg, unsigned k)
{
	s64 sum = 0, by;

	for (unsigned n = 0; reg < X86_NR_GPR && n < k; n++)
		if (memop_delta(t, &t->in[n], reg, &by))
			sum += by;
	return sum;
}

/* Enters the access of instruction k into a group of the plan; false: it is to be checked by itself. */
static bool add_access(struct xlate *t, unsigned k)
{
	struct xloop *lp = &t->lp;
	const struct xinsn *x = &t->in[k];
	const struct insn *i = x->i;
	struct xloop_group *g;
	s64 db, di = 0, lo;

	if (!i->mem || i->seg != SEG_FLAT || !stride(t, i->base, &db) || !stride(t, i->index, &di))
		return false;
	if (i->index != RZERO && (db || moved_before(t, i->base, t->n)))
		return false; /* base and index would both move */
	if (i->base == RIPB &&
	    (t->x->pic || i->index != RZERO || !emit_fits((s64)(t->x->rip + (u64)i->disp))))
		return false;
	lo = i->disp + moved_before(t, i->base, k) + moved_before(t, i->index, k) * (s64)BIT(i->scale);
	for (g = lp->group; g < lp->group + lp->nr; g++)
		if (g->base == i->base && g->index == i->index && g->scale == i->scale)
			break;
	if (g == lp->group + lp->nr) {
		if (lp->nr == X_LOOP_GROUPS)
			return false;
		*g = (struct xloop_group){ .base = i->base,
					   .index = i->index,
					   .scale = i->scale,
					   .lo = lo,
					   .hi = lo + x->msz,
					   .stride = db + di * (s64)BIT(i->scale) };
		lp->nr++;
	}
	g->lo = MIN(g->lo, lo);
	g->hi = MAX(g->hi, lo + x->msz);
	g->write |= x->acc & ACC_W;
	return true;
}

/* Pinned guest registers that the loop does not name. RAX, RCX and RDX serve too much that is not said. */
static u16 free_regs(const struct xlate *t)
{
	u16 used = BIT(R_AX) | BIT(R_CX) | BIT(R_DX) | BIT(R_9) | BIT(R_10) | BIT(R_11);

	for (unsigned k = 0; k < t->n; k++) {
		const struct xinsn *x = &t->in[k];
		const struct insn *i = x->i;

		used |= x->wr;
		if (x->reg_r || x->reg_w || x->kind == XK_LEA)
			used |= (u16)BIT(x->reg);
		if (x->rm_r || x->rm_w || x->kind == XK_OPREG || x->kind == XK_XCHG_A)
			used |= (u16)BIT(x->rm);
		if (i->mem && i->base < X86_NR_GPR)
			used |= (u16)BIT(i->base);
		if (i->mem && i->index < X86_NR_GPR)
			used |= (u16)BIT(i->index);
		if (x->row && x->row->flags & NR_GPR_VVVV)
			used |= (u16)BIT(i->vvvv);
	}
	return (u16)~used;
}

static u64 bytes_of_round(const struct xloop *lp, const struct xloop_group *g)
{
	return (u64)(g->stride < 0 ? -g->stride : g->stride) * lp->unroll;
}

/* How many rounds more than one fit into a page depends on the address, by a shift. */
static bool by_shift(const struct xloop *lp, const struct xloop_group *g)
{
	return bits_is_pow2(bytes_of_round(lp, g));
}

static unsigned take_reg(u16 *regs)
{
	unsigned reg = 31 - (unsigned)__builtin_clz(*regs); /* R15 first, RBX last */

	*regs &= (u16)~BIT(reg);
	return reg;
}

bool xloop_plan(struct xlate *t)
{
	struct xloop *lp = &t->lp;
	const struct xinsn *last = &t->in[t->n - 1];
	unsigned unroll = MIN(X_LOOP_UNROLL, MAX_INSNS / t->n), keep = 0;
	u16 regs;

	soft_zero(lp, sizeof(*lp));
	if (t->word != 8 || last->kind != XK_JCC || (u64)last->i->off + last->i->len + last->i->imm != 0 ||
	    unroll < 2)
		return false;
	for (unsigned k = 0; k + 1 < t->n; k++)
		if (!is_loopable(&t->in[k]))
			return false;
	for (unsigned k = 0; k + 1 < t->n; k++)
		if (t->in[k].acc)
			add_access(t, k);
	regs = free_regs(t);
	for (unsigned n = 0; n < lp->nr; n++) {
		struct xloop_group *g = &lp->group[n];
		u64 step = (u64)(g->stride < 0 ? -g->stride : g->stride), span = (u64)(g->hi - g->lo);
		/* Two iterations at least, or it does not pay. */
		if (span + step > MAX_RANGE || !regs)
			continue;
		if (step)
			unroll = (unsigned)MIN((u64)unroll, 1 + (MAX_RANGE - span) / step);
		g->reg = (u8)take_reg(&regs);
		g->with_base = g->base < X86_NR_GPR && (g->index != RZERO || !g->stride);
		lp->group[keep++] = *g;
	}
	lp->nr = keep;
	if (unroll > 1)
		unroll = 1u << (31 - (unsigned)__builtin_clz(unroll));
	lp->unroll = unroll;
	lp->count = regs ? (u8)take_reg(&regs) : NO_REG;
	for (unsigned n = 0; n < lp->nr; n++) {
		struct xloop_group *g = &lp->group[n];
		s64 far = g->stride * (s64)(unroll - 1);

		if (g->stride && !by_shift(lp, g))
			lp->count = NO_REG;

		if (far < 0)
			g->lo += far;
		else
			g->hi += far;
	}
	return lp->nr;
}

const struct xloop_group *xloop_find(const struct xlate *t, const struct insn *i)
{
	if (!t->lp.active || !i->mem || i->seg != SEG_FLAT)
		return NULL;
	for (unsigned n = 0; n < t->lp.nr; n++) {
		const struct xloop_group *g = &t->lp.group[n];

		if (g->base == i->base && g->index == i->index && g->scale == i->scale)
			return g;
	}
	return NULL;
}

static void load_reg(struct xlate *t, unsigned reg)
{
	emit_rm(&t->e, E_W | OP_MOV_R_RM, x_host(reg), op_cpu(gpr[reg]));
}

static void spill_reg(struct xlate *t, unsigned reg)
{
	emit_rm(&t->e, E_W | OP_MOV_RM_R, x_host(reg), op_cpu(gpr[reg]));
}

void xloop_restore(struct xlate *t)
{
	for (unsigned n = 0; n < t->lp.nr; n++)
		load_reg(t, t->lp.group[n].reg);
	if (t->lp.count != NO_REG)
		load_reg(t, t->lp.count);
}

void xloop_reload(struct xlate *t)
{
	for (unsigned n = 0; n < t->lp.nr; n++) {
		emit_rm(&t->e, E_W | OP_MOV_R_RM, x_host(t->lp.group[n].reg), op_cpu(jit_slot[n]));
	}
	if (t->lp.count != NO_REG) /* this round is the last: the interpreter was here */
		emit_imm(&t->e, x_host(t->lp.count), 0);
}

static void emit_spill(struct xlate *t)
{
	for (unsigned n = 0; n < t->lp.nr; n++)
		spill_reg(t, t->lp.group[n].reg);
	if (t->lp.count != NO_REG)
		spill_reg(t, t->lp.count);
}

/* reg = where in its page the first byte of a round's range of group n is. */
static void emit_place(struct xlate *t, const struct xloop_group *g, unsigned reg)
{
	memop_ea_loop(t, g, reg);
	emit_rm(&t->e, OP_GRP1_IMM, GRP1_AND, op_reg(reg));
	emit4(&t->e, 4095);
}

/* reg = how many rounds more there are from a place in it before the accesses leave their page. */
static void emit_rounds(struct xlate *t, unsigned reg, const struct xloop_group *g)
{
	struct emit *e = &t->e;

	if (g->stride > 0) {
		emit_rm(e, 0xf7, 3, op_reg(reg)); /* neg */
		emit_rm(e, OP_GRP1_IMM, GRP1_ADD, op_reg(reg));
		emit4(e, 4096 - (unsigned)(g->hi - g->lo));
	}
	emit_rm(e, 0xc1, 5, op_reg(reg)); /* shr */
	emit1(e, (unsigned)__builtin_ctzll(bytes_of_round(&t->lp, g)));
}

/* reg = the less of it and `other`, or the greater. */
static void emit_least(struct emit *e, unsigned reg, unsigned other, bool greater)
{
	emit_rm(e, OP_CMP_R_RM, reg, op_reg(other));
	emit_rm(e, E_0F | (greater ? 0x42 : 0x47), reg, op_reg(other)); /* cmovb, cmova */
}

/* Do both leave their pages after the same number of rounds, when they are at the same places in them? */
static bool is_alike(const struct xloop_group *a, const struct xloop_group *b)
{
	return a->stride == b->stride && a->hi - a->lo == b->hi - b->lo;
}

/* The count: of the rounds for which all accesses stay in their pages, but at most MAX_ROUNDS, less one. */
static void emit_count(struct xlate *t)
{
	struct xloop *lp = &t->lp;
	unsigned count = x_host(lp->count);
	const struct xloop_group *first = NULL;
	struct emit *e = &t->e;
	bool bounded = false;

	for (unsigned n = 0; n < lp->nr; n++) {
		const struct xloop_group *g = &lp->group[n];

		if (!g->stride)
			continue;
		bounded |= 4095 / bytes_of_round(lp, g) < MAX_ROUNDS;
		if (first && !is_alike(first, g))
			continue;
		/* Of those alike the one that is nearest to its page's end decides. */
		emit_place(t, g, first ? T1 : count);
		if (first)
			emit_least(e, count, T1, g->stride > 0);
		else
			first = g;
	}
	if (first)
		emit_rounds(t, count, first);
	for (unsigned n = 0; n < lp->nr; n++) {
		const struct xloop_group *g = &lp->group[n];

		if (!g->stride || is_alike(first, g))
			continue;
		emit_place(t, g, T1);
		emit_rounds(t, T1, g);
		emit_least(e, count, T1, false);
	}
	if (!first)
		emit_imm(e, count, MAX_ROUNDS - 1);
	if (!first || bounded)
		return;
	emit_imm(e, T0, MAX_ROUNDS - 1);
	emit_least(e, count, T0, false);
}

/* The check of a group, and its addend into the group's register and slot. */
static void emit_group(struct xlate *t, unsigned n)
{
	struct xloop_group *g = &t->lp.group[n];
	struct emit *e = &t->e;
	unsigned reg = x_host(g->reg);
	struct opnd o = op_cpu(jit_slot[n]);

	translate_late(t, LATE_SLOW, memop_check_loop(t, g), NULL, NULL);
	emit_rm(e, E_W | OP_MOV_R_RM, reg, op_mem(T1, t->entry + (s32)offsetof(struct tlb_entry, addend)));
	if (g->with_base) {
		struct opnd base = x_opnd(g->base);

		emit_op(e, E_W | OP_ADD_R_RM, reg, &base);
	}
	emit_op(e, E_W | OP_MOV_RM_R, reg, &o);
}

void xloop_translate(struct xlate *t)
{
	struct emit *e = &t->e;
	struct xloop *lp = &t->lp;
	const struct insn *jcc = t->in[t->n - 1].i;
	unsigned cc = jcc->opcode & 15;
	const u8 *spill, *top, *round;

	/* State of the vector registers is looked at once, before anything is done. */
	t->k = 0;
	for (unsigned n = 0; n < t->n; n++)
		if (t->in[n].vec)
			translate_gate(t, &t->in[n]);
	xflags_save(t);
	spill = emit_rx(e);
	emit_spill(t);
	top = emit_rx(e);
	lp->active = true;
	t->fl = (struct xflstate){ .saved = true };
	emit_rm(e, OP_GRP1_IMM8, GRP1_CMP, op_cpu(jit_go));
	emit1(e, 0);
	translate_late(t, LATE_EXIT, emit_jump(e, 4, NULL), NULL, translate_exit(t, t->x->rip));
	for (unsigned n = 0; n < lp->nr; n++)
		emit_group(t, n);
	if (lp->count != NO_REG)
		emit_count(t);
	round = emit_rx(e);
	if (t->x->again) {                             /* on trial */
		emit_rm_data(e, 0xff, 1, &t->x->left); /* dec */
		translate_late(t, LATE_EXIT, emit_jump(e, 4, NULL), NULL, t->x->again);
	}
	for (unsigned u = 0; u < lp->unroll; u++) {
		for (t->k = 0; t->k + 1 < t->n; t->k++)
			translate_insn(t, &t->in[t->k]);
		xflags_need(t);
		lp->out[lp->nr_out++] = emit_jump(e, cc ^ 1, NULL);
	}
	xflags_save(t);
	if (lp->count != NO_REG) {
		emit_rm(e, 0xff, 1, op_reg(x_host(lp->count))); /* dec */
		emit_jump(e, 9, round);                         /* jns */
	}
	emit_jump(e, CC_JMP, top);
	lp->active = false;
	memop_forget(t);

	lp->slow = emit_rx(e);
	t->fl = (struct xflstate){ .saved = true };
	for (t->k = 0; t->k + 1 < t->n; t->k++)
		translate_insn(t, &t->in[t->k]);
	xflags_need(t);
	u8 *out = emit_jump(e, cc ^ 1, NULL);

	xflags_save(t);
	emit_jump(e, CC_JMP, spill);
	while (lp->nr_out)
		emit_land(e, lp->out[--lp->nr_out]);
	xloop_restore(t);
	emit_land(e, out);
	t->fl = (struct xflstate){ .host = true };
	translate_leave(t, x_rip(t, jcc) + jcc->len);

	/* Where a fault of the host in the fast part goes on. */
	t->x->loop_bail[0] = emit_rx(e);
	xloop_restore(t);
	emit_jump(e, CC_JMP, t->j->bail_host);
	t->x->loop_bail[1] = emit_rx(e);
	xloop_restore(t);
	emit_jump(e, CC_JMP, t->j->bail_saved);
}
