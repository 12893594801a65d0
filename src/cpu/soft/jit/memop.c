/* Operands in memory: the check of the TLB, and how the host addresses them.
 *
 * A check is eight instructions: the page of the last byte must be the tag of the entry of the first, so that an
 * access that crosses a page fails too. What fails goes out of line, where the interpreter executes the
 * instruction. What succeeds has the entry's addend in T1: the operand is at the guest's address + T1.
 *
 * Accesses through the same register with different displacements (stack frames, members of a structure) share
 * one check over the range of all of them that follow in the block, if it is small: the addend goes to a
 * slot of soft_cpu, from which the later ones take it. When such a check fails, the rest of the block is
 * interpreted, or, where that happened often and it is the stack that crosses a page, translated a second time with
 * each access checked by itself. The register may change by constants meanwhile. A translation that was in the TLB holds until
 * the end of the block: nothing in it can drop it for good (what could ends a block or forgets the groups,
 * and other vCPUs wait for a block's end, see share.h).
 *
 * On the vCPU's thread. */
#include "cpu/soft/jit/translate.h"

#define MAX_SPAN 256

struct ea {
	u8 base, index, scale, seg;
	s64 disp;
};

/* Relative to RIP, in a block translated for any address. */
static bool is_relative(const struct xlate *t, const struct ea *a)
{
	return a->base == RIPB && t->x->pic;
}

/* Of 32-bit code, whose sum with the segment's base has to be cut. */
static bool is_wide(const struct xlate *t, const struct ea *a)
{
	return t->word == 4 && a->seg != SEG_FLAT;
}

static bool is_const(const struct xlate *t, const struct ea *a)
{
	return (a->base == RIPB || a->base == RZERO) && a->index == RZERO && !is_relative(t, a) &&
	       !is_wide(t, a);
}

/* A pinned base register, and a displacement; and the sum needs not be cut. */
static bool is_simple(const struct xlate *t, const struct ea *a)
{
	return t->word == 8 && a->base < X86_NR_GPR && x_pinned(a->base) && a->index == RZERO &&
	       a->seg == SEG_FLAT;
}

static u64 const_of(const struct xlate *t, const struct ea *a)
{
	return x_wrap(t, (u64)a->disp + (a->base == RIPB ? t->x->rip : 0));
}

/* dst = the effective address, for is_wide() the linear one; dst and T0 are free; changes no flags. */
static void emit_ea(struct xlate *t, unsigned dst, const struct ea *a)
{
	struct emit *e = &t->e;
	unsigned base = NO_REG, index = NO_REG;

	if (is_const(t, a)) {
		emit_imm(e, dst, const_of(t, a));
		return;
	}
	if (is_wide(t, a)) {
		emit_rm(e, OP_MOV_R_RM, dst, op_cpu(seg[a->seg].base));
		emit_rm(e, OP_LEA, dst,
			op_idx(dst, a->base == RZERO ? NO_REG : x_host(a->base), 0, (s32)a->disp));
		return;
	}
	if (is_relative(t, a)) {
		translate_rip(t, dst, const_of(t, a));
		return;
	}
	if (a->base != RZERO) {
		base = x_host(a->base);
		if (!x_pinned(a->base)) {
			struct opnd o = op_cpu(gpr[a->base]);

			base = a->index != RZERO && !x_pinned(a->index) ? T0 : dst;
			emit_op(e, E_W | OP_MOV_R_RM, base, &o);
		}
	}
	if (a->index != RZERO) {
		index = x_host(a->index);
		if (!x_pinned(a->index)) {
			struct opnd o = op_cpu(gpr[a->index]);

			index = dst;
			emit_op(e, E_W | OP_MOV_R_RM, index, &o);
		}
	}
	emit_rm(e, t->w | OP_LEA, dst, op_idx(base, index, a->scale, (s32)a->disp));
}

void memop_lea(struct xlate *t, unsigned size, unsigned dst)
{
	const struct insn *i = t->in[t->k].i;
	struct ea a = { .base = i->base, .index = i->index, .scale = i->scale, .disp = i->disp };
	bool base = a.base != RZERO && a.base != RIPB, index = a.index != RZERO;
	u32 bits = emit_size(size);

	if ((base && !x_pinned(a.base)) || (index && !x_pinned(a.index)) || is_relative(t, &a)) {
		t->in_t1 = NULL;
		emit_ea(t, T1, &a);
		emit_rm(&t->e, bits | OP_MOV_R_RM, dst, op_reg(T1));
	} else if (is_const(t, &a) && size != 2) { /* a 16-bit result leaves the rest of the register */
		emit_imm(&t->e, dst, const_of(t, &a) & bits_mask(size));
	} else {
		emit_rm(&t->e, bits | OP_LEA, dst,
			op_idx(base ? x_host(a.base) : NO_REG, index ? x_host(a.index) : NO_REG, a.scale,
			       (s32)a.disp));
	}
}

static s32 tag_of(unsigned acc)
{
	return acc & ACC_W ? (s32)offsetof(struct tlb_entry, w) : (s32)offsetof(struct tlb_entry, r);
}

/* The check of an address that is known: so is the entry's place in its table, and what the tag is to be. */
static u8 *emit_check_const(struct xlate *t, u64 la, unsigned acc)
{
	struct emit *e = &t->e;
	u64 page = la & -4096ull;

	t->entry = (s32)((la >> 12 & (TLB_SIZE - 1)) * sizeof(struct tlb_entry));
	emit_load_cpu(e, T1, tlb[la >> 63]);
	if (emit_fits((s64)page)) {
		emit_rm(e, E_W | OP_GRP1_IMM, GRP1_CMP, op_mem(T1, t->entry + tag_of(acc)));
		emit4(e, (u32)page);
	} else {
		emit_imm(e, T0, page);
		emit_rm(e, E_W | OP_CMP_R_RM, T0, op_mem(T1, t->entry + tag_of(acc)));
	}
	return emit_jump(e, 5, NULL); /* jne */
}

/* The check of [a + lo, a + lo + size) for acc; leaves the TLB entry at t->entry from T1. Changes T0 and flags. */
static u8 *emit_check(struct xlate *t, const struct ea *a, s64 lo, u64 size, unsigned acc)
{
	struct emit *e = &t->e;
	struct ea first = *a;

	first.disp += lo;
	t->in_t1 = NULL;
	if (is_const(t, a) && a->seg == SEG_FLAT &&
	    !((const_of(t, &first) ^ (const_of(t, &first) + size - 1)) >> 12))
		return emit_check_const(t, const_of(t, &first), acc);
	t->entry = 0;
	emit_ea(t, T1, &first);
	if (a->seg != SEG_FLAT && !is_wide(t, a))
		emit_rm(e, E_W | OP_ADD_R_RM, T1, op_cpu(seg[a->seg].base));
	if (is_simple(t, a))
		emit_rm(e, E_W | OP_LEA, T0, op_mem(x_host(a->base), (s32)(first.disp + (s64)size - 1)));
	else if (size == 1)
		emit_mov(e, T0, T1);
	else
		emit_rm(e, E_W | OP_LEA, T0, op_mem(T1, (s32)size - 1));
	return memop_probe(t, acc, false);
}

u8 *memop_probe(struct xlate *t, unsigned acc, bool any_half)
{
	struct emit *e = &t->e;

	emit_rm(e, 0xc1, 5, op_reg(T1)); /* shr T1d, 7 */
	emit1(e, 7);
	emit_alu_imm(e, GRP1_AND, T0, -4096);
	emit_rm(e, OP_GRP1_IMM, GRP1_AND, op_reg(T1));
	emit4(e, (TLB_SIZE - 1) << 5);
	if (any_half)
		glue_by_half(e, E_W | OP_ADD_R_RM, T1, op_cpu(tlb[0]), op_cpu(tlb[1]));
	else
		emit_rm(e, E_W | OP_ADD_R_RM, T1, op_cpu(tlb[t->half]));
	emit_rm(e, E_W | OP_CMP_R_RM, T0, op_mem(T1, tag_of(acc)));
	return emit_jump(e, 5, NULL); /* jne */
}

/* The operand, when T1 has the addend (and the segment's base). Changes no flags. */
static struct opnd emit_operand(struct xlate *t, const struct ea *a, bool free_t0)
{
	struct emit *e = &t->e;
	struct opnd o;

	if (is_const(t, a)) {
		u64 la = const_of(t, a);

		if (emit_fits((s64)la))
			return op_mem(T1, (s32)la);
		emit_imm(e, T0, la);
		o = op_idx(T0, T1, 0, 0);
	} else if (is_relative(t, a)) {
		translate_rip(t, T0, const_of(t, a));
		o = op_idx(T0, T1, 0, 0);
	} else if (t->word == 8 && a->index == RZERO && x_pinned(a->base)) {
		/* T1 as the base, lest it be the stack segment's, whose faults are of another kind. */
		return op_idx(T1, x_host(a->base), 0, (s32)a->disp);
	} else if (a->index == RZERO && !x_pinned(a->base)) {
		struct opnd base = op_cpu(gpr[a->base]);

		emit_op(e, E_W | OP_MOV_R_RM, T0, &base);
		o = op_idx(T0, T1, 0, (s32)a->disp);
	} else if (a->base != RZERO && !x_pinned(a->base) && !x_pinned(a->index)) {
		struct opnd base = op_cpu(gpr[a->base]), index = op_cpu(gpr[a->index]);

		emit_op(e, E_W | OP_MOV_R_RM, T0, &base);
		emit_rm(e, E_W | OP_LEA, T1, op_idx(T1, T0, 0, 0));
		emit_op(e, E_W | OP_MOV_R_RM, T0, &index);
		emit_rm(e, E_W | OP_LEA, T0, op_idx(NO_REG, T0, a->scale, (s32)a->disp));
		o = op_idx(T0, T1, 0, 0);
	} else {
		emit_ea(t, T0, a);
		o = op_idx(T0, T1, 0, 0);
	}
	if (free_t0) {
		emit_op(e, E_W | OP_LEA, T1, &o);
		o = op_mem(T1, 0);
	}
	return o;
}

/* --- groups --- */
bool memop_delta(const struct xlate *t, const struct xinsn *x, unsigned reg, s64 *ret_by)
{
	const struct insn *i = x->i;
	unsigned n = i->modrm >> 3 & 7;

	if (x->sp_delta) {
		*ret_by = x->sp_delta;
		return reg == R_SP && !(x->wr >> R_SP & 1);
	}
	if (i->osz != t->word)
		return false;
	if (x->kind == XK_LEA && x->reg == reg && i->base == reg && i->index == RZERO) {
		*ret_by = i->disp;
		return true;
	}
	if (x->kind != XK_RM || i->mem || i->map || x->rm != reg)
		return false;
	if ((i->opcode == 0x81 || i->opcode == 0x83) && (n == GRP1_ADD || n == GRP1_SUB)) {
		*ret_by = n == GRP1_ADD ? (s64)i->imm : -(s64)i->imm;
		return true;
	}
	if ((i->opcode == 0xff && n <= 1) || (i->opcode & 0xf0) == 0x40) {
		*ret_by = (i->opcode == 0xff ? n : i->opcode & 8) ? -1 : 1;
		return true;
	}
	return false;
}

/* The range that the accesses from instruction t->k on have in common with it; how many there are. */
static unsigned gather(const struct xlate *t, const struct ea *a, unsigned size, unsigned acc, s64 *ret_lo,
		       s64 *ret_hi, bool *ret_write)
{
	s64 lo = a->disp, hi = a->disp + size, delta = 0;
	unsigned nr = 1;

	*ret_write = acc & ACC_W;
	for (unsigned n = t->k;; n++) {
		const struct xinsn *x = &t->in[n];
		s64 by;

		if (n > t->k && x->acc && x->base == a->base && x->seg == a->seg) {
			s64 first = x->disp + delta, l = MIN(lo, first), h = MAX(hi, first + x->msz);

			if (h - l <= MAX_SPAN) {
				lo = l;
				hi = h;
				*ret_write |= x->acc & ACC_W;
				nr++;
			}
		}
		if (a->base < X86_NR_GPR) {
			if (memop_delta(t, x, a->base, &by))
				delta += by;
			else if (x->wr >> a->base & 1)
				break;
		}
		if (n + 1 >= t->n || x->kind == XK_STEP || x->kind == XK_BAIL || !emit_fits(delta))
			break;
	}
	*ret_lo = lo;
	*ret_hi = hi;
	return nr;
}

static struct xgroup *find_group(struct xlate *t, const struct ea *a, unsigned size, unsigned acc)
{
	for (unsigned k = 0; k < t->nr_groups; k++) {
		struct xgroup *g = &t->group[k];
		s64 first = a->disp + g->delta;

		if (g->base == a->base && g->seg == a->seg && first >= g->lo && first + size <= g->hi &&
		    (g->write || !(acc & ACC_W)))
			return g;
	}
	return NULL;
}

static struct xgroup *new_group(struct xlate *t)
{
	struct xgroup *g;

	if (t->nr_groups < X_MAX_GROUPS) {
		g = &t->group[t->nr_groups++];
	} else {
		g = &t->group[t->next_slot++ % X_MAX_GROUPS];
	}
	g->slot = (u8)(g - t->group);
	return g;
}

static struct opnd slot_of(const struct xlate *t, const struct xgroup *g)
{
	if (g->slot >= SLOT_WINDOW)
		return op_cpu(window[t->half][g->slot - SLOT_WINDOW].addend);
	return op_cpu(jit_slot[g->slot]);
}

void memop_moved(struct xlate *t, unsigned reg, s64 by)
{
	for (unsigned k = 0; k < t->nr_groups; k++)
		if (t->group[k].base == reg)
			t->group[k].delta += by;
}

void memop_killed(struct xlate *t, u16 regs)
{
	for (unsigned k = 0; k < t->nr_groups; k++)
		if (t->group[k].base < X86_NR_GPR && regs >> t->group[k].base & 1)
			t->group[k].base = NO_REG;
}

void memop_forget(struct xlate *t)
{
	t->in_t1 = NULL;
	t->nr_groups = 0;
}

/* --- windows --- */
static bool unpinned(unsigned reg)
{
	return reg < X86_NR_GPR && !x_pinned(reg);
}

static unsigned window_of(const struct ea *a)
{
	return a->seg == SEG_FLAT ? a->base : WINDOW_SEG;
}

/* The access through its window: five instructions, and the address does not wait for them. It is one with nothing but a
 * pinned base register (then T1 has the addend), or its linear address is left in T0. Not while another group has its
 * addend there. */
static void emit_window(struct xlate *t, const struct ea *a, s64 lo, unsigned span, unsigned acc, bool group)
{
	struct emit *e = &t->e;
	unsigned n = window_of(a);
	struct ea first = *a;
	u8 *jump;

	first.disp += lo;
	t->in_t1 = NULL;
	if (is_simple(t, a)) {
		emit_rm(e, E_W | OP_LEA, T1, op_mem(x_host(a->base), (s32)first.disp));
	} else {
		emit_ea(t, T0, &first);
		if (a->seg != SEG_FLAT && !is_wide(t, a))
			emit_rm(e, E_W | OP_ADD_R_RM, T0, op_cpu(seg[a->seg].base));
		emit_mov(e, T1, T0);
	}
	if (acc & ACC_W)
		emit_rm(e, E_W | OP_SUB_R_RM, T1, op_cpu(window[t->half][n].w));
	else
		emit_rm(e, E_W | OP_SUB_R_RM, T1, op_cpu(window[t->half][n].r));
	emit_rm(e, E_W | OP_GRP1_IMM, GRP1_CMP, op_reg(T1));
	emit4(e, 4096 - span);
	jump = emit_jump(e, 7, NULL); /* ja */
	translate_late(t, LATE_WINDOW, jump, translate_rec(t, group), NULL);
	if (!t->no_room) {
		struct xlate_late *l = &t->late[t->nr_late - 1];

		l->back = emit_rx(e);
		l->span = (u16)span;
		l->window = (u8)n;
		l->write = acc & ACC_W;
		l->bail = group || translate_bails(t);
		if (!l->bail)
			t->step[t->nr_steps++] = l->rec;
	}
	emit_load_cpu(e, T1, window[t->half][n].addend);
}

void memop_window(struct xlate *t, const struct xlate_late *l)
{
	struct emit *e = &t->e;

	struct xwindow *w = &t->x->windows[t->x->nr_windows++];
	u8 *enough = NULL;

	if (t->x->again) {
		emit_rm_data(e, 0xff, 0, &w->misses); /* inc */
	} else {
		emit_rm_data(e, 0xff, 1, &t->x->left); /* dec */
		enough = emit_jump(e, 4, NULL);        /* je */
	}
	emit_imm(e, T0, l->span - 1u);
	emit_jump(e, CC_CALL, t->j->window[t->half][l->window][l->write]);
	emit_jump(e, 4, l->back); /* je */
	if (enough)
		emit_land(e, enough);
	*w = (struct xwindow){ .from = (u16)(l->back - t->x->code),
			       .to = (u16)(emit_rx(e) - t->x->code),
			       .k = l->k };
}

static bool window_taken(const struct xlate *t, unsigned window)
{
	for (unsigned k = 0; k < t->nr_groups; k++)
		if (t->group[k].slot == SLOT_WINDOW + window && t->group[k].base != NO_REG)
			return true;
	return false;
}

/* --- an access --- */
static struct opnd emit_access(struct xlate *t, const struct ea *a, unsigned size, unsigned acc, u16 writes,
			       bool need_flags, bool free_t0)
{
	struct emit *e = &t->e;
	bool groups = a->index == RZERO && !is_wide(t, a), write, rest;
	struct xgroup *g = groups ? find_group(t, a, size, acc) : NULL;
	s64 lo, hi;
	u8 *jump;

	if (g) {
		if (need_flags)
			xflags_need(t);
		xflags_before_write(t, writes);
		struct opnd slot = slot_of(t, g);
		struct ea at = *a;

		if (a->base == R_SP)
			at.disp += t->sp_late;
		if (t->in_t1 != g)
			emit_op(e, E_W | OP_MOV_R_RM, T1, &slot);
		t->in_t1 = free_t0 ? NULL : g;
		return emit_operand(t, &at, free_t0);
	}
	translate_sp(t);
	xflags_clobber(t);
	if (is_wide(t, a)) {
		emit_rm(e, 0xf6, 0, op_cpu(wide)); /* test */
		emit1(e, BIT(a->seg));
		translate_slow(t, emit_jump(e, 4, NULL)); /* je */
	}
	/* For code of the upper half, kernels as a rule, only the stack's: others miss there too often to pay. */
	bool window = (!t->half || a->base == R_SP) && !(t->b->no_window >> t->k & 1) &&
		      !(unpinned(a->base) && unpinned(a->index)) && !window_taken(t, window_of(a));
	unsigned nr = 1;

	/* One of a bit by its number may be skipped, and the check with it. */
	if (groups && !t->b->no_groups && !t->lp.nr && !t->in_rest && !t->in[t->k].bits)
		nr = gather(t, a, size, acc, &lo, &hi, &write);
	if (nr > 1) {
		struct ea from = *a;

		if (write)
			acc |= ACC_W;
		from.disp = 0;
		window = window && a->seg == SEG_FLAT;
		rest = t->b->split && !t->x->again && !t->has_rest && a->base == R_SP;
		t->has_rest |= rest;
		if (window) {
			emit_window(t, &from, lo, (unsigned)(hi - lo), acc, true);
			if (!t->no_room)
				t->late[t->nr_late - 1].rest = rest;
		} else {
			jump = emit_check(t, &from, lo, (u64)(hi - lo), acc);
			translate_late(t, rest ? LATE_REST : LATE_BAIL, jump, translate_rec(t, true), NULL);
		}
		g = new_group(t);
		g->base = a->base;
		g->seg = a->seg;
		g->lo = lo;
		g->hi = hi;
		g->write = write;
		g->delta = 0;
		if (window)
			g->slot = (u8)(SLOT_WINDOW + window_of(a));
		t->in_t1 = free_t0 ? NULL : g;
	} else if (window) {
		emit_window(t, a, 0, size, acc, false);
	} else {
		translate_slow(t, emit_check(t, a, 0, size, acc));
	}
	if (!window) {
		emit_rm(e, E_W | OP_MOV_R_RM, T1,
			op_mem(T1, t->entry + (s32)offsetof(struct tlb_entry, addend)));
		if (a->seg != SEG_FLAT && !is_wide(t, a))
			emit_rm(e, E_W | OP_ADD_R_RM, T1, op_cpu(seg[a->seg].base));
		if (g) {
			struct opnd slot = slot_of(t, g);

			emit_op(e, E_W | OP_MOV_RM_R, T1, &slot);
		}
	}
	if (window && !g && !is_simple(t, a)) { /* the linear address is in T0 */
		struct opnd o = op_idx(T0, T1, 0, 0);

		/* The flags' code uses T0. */
		if (free_t0 || need_flags || writes) {
			emit_op(e, E_W | OP_LEA, T1, &o);
			o = op_mem(T1, 0);
		}
		if (need_flags)
			xflags_need(t);
		xflags_before_write(t, writes);
		return o;
	}
	if (need_flags)
		xflags_need(t);
	xflags_before_write(t, writes);
	return emit_operand(t, a, free_t0);
}

u8 *memop_check_loop(struct xlate *t, const struct xloop_group *g)
{
	struct ea a = { .base = g->base, .index = g->index, .scale = g->scale, .seg = SEG_FLAT };

	return emit_check(t, &a, g->lo, (u64)(g->hi - g->lo), g->write ? ACC_W : ACC_R);
}

void memop_ea_loop(struct xlate *t, const struct xloop_group *g, unsigned dst)
{
	struct ea a = { .base = g->base, .index = g->index, .scale = g->scale, .disp = g->lo };

	emit_ea(t, dst, &a);
}

/* The operand with the addend in the register of a loop's group. */
static struct opnd loop_operand(struct xlate *t, const struct xloop_group *g, const struct insn *i,
				bool free_t0)
{
	bool by_index = g->with_base || i->base == RZERO;
	unsigned addend = x_host(g->reg), from = by_index ? i->index : i->base, reg = T0;
	unsigned scale = by_index ? i->scale : 0;
	struct opnd o;

	if (i->base == RIPB)
		return op_mem(addend, (s32)(t->x->rip + (u64)i->disp));
	if (from == RZERO)
		return op_mem(addend, (s32)i->disp);
	if (x_pinned(from)) {
		reg = x_host(from);
	} else {
		emit_rm(&t->e, E_W | OP_MOV_R_RM, T0, op_cpu(gpr[from]));
	}
	o = op_idx(addend, reg, scale, (s32)i->disp);
	if (free_t0 && reg == T0) {
		emit_op(&t->e, E_W | OP_LEA, T1, &o);
		o = op_mem(T1, 0);
	}
	return o;
}

struct opnd memop_operand(struct xlate *t, u16 writes, bool need_flags, bool free_t0)
{
	const struct xinsn *x = &t->in[t->k];
	const struct insn *i = x->i;
	const struct xloop_group *g = xloop_find(t, i);

	if (g) {
		if (need_flags)
			xflags_need(t);
		xflags_before_write(t, writes);
		return loop_operand(t, g, i, free_t0);
	}
	struct ea a = {
		.base = i->base,
		.index = i->index,
		.scale = i->scale,
		.seg = t->word == 8 || i->seg >= SEG_FS ? i->seg : SEG_FLAT,
		.disp = i->disp,
	};

	return emit_access(t, &a, x->msz, x->acc, writes, need_flags, free_t0);
}

struct opnd memop_access(struct xlate *t, unsigned base, s64 disp, unsigned acc, u16 writes, bool free_t0)
{
	struct ea a = { .base = (u8)base, .index = RZERO, .seg = SEG_FLAT, .disp = disp };

	return emit_access(t, &a, t->word, acc, writes, false, free_t0);
}
