/* The six arithmetic flags while a block is translated.
 *
 * They live in RFLAGS, as the copied instructions leave them there. The code that checks addresses changes
 * RFLAGS, at a place where the guest's flags are rarely looked at again, but must not be lost: the access may
 * fault, and the fault pushes them. So before such code the translator knows one of two ways to find them
 * again: they are saved in c->fl (five instructions), or a recipe says how to compute them from registers
 * that have not changed, which costs nothing unless they are wanted:
 *
 *	CMP, TEST      the same again
 *	AND, OR, XOR   TEST of the result (all four clear CF, OF, AF)
 *	ADD, SUB, NEG  the operation undone and done again
 *	SHL, SHR, SAR  from the operand, which is stored before the shift
 *
 * A recipe ends when one of its registers changes, unless by a known constant (PUSH, POP).
 *
 * On the vCPU's thread. */
#include "cpu/soft/jit/translate.h"

/* op T0 or a register, with the recipe's second operand; op by its group-1 number. */
static void alu_b(struct xlate *t, const struct recipe *r, unsigned op, unsigned dst)
{
	struct emit *e = &t->e;
	u32 wide = r->size != 1;

	if (r->b == NO_REG) {
		emit_rm(e, emit_size(r->size) | E_BRM * !wide | 0x80 | wide, op, op_reg(dst));
		emit_bytes(e, (u64)r->imm, r->size == 8 ? 4 : r->size);
	} else {
		struct opnd b = x_opnd(r->b);

		emit_op(e, emit_size(r->size) | (E_BREG | E_BRM) * !wide | (op << 3) | 2 | wide, dst, &b);
	}
}

/* The recipe's first operand, as it was, in T0. */
static void load_a(struct xlate *t, const struct recipe *r)
{
	struct opnd a = x_opnd(r->a);

	if (r->delta && x_pinned(r->a)) {
		emit_rm(&t->e, E_W | OP_LEA, T0, op_mem(x_host(r->a), (s32)r->delta));
		return;
	}
	emit_op(&t->e, E_W | OP_MOV_R_RM, T0, &a);
	if (r->delta)
		emit_rm(&t->e, E_W | OP_LEA, T0, op_mem(T0, (s32)r->delta));
}

static void cook(struct xlate *t, const struct recipe *r)
{
	struct emit *e = &t->e;
	u32 wide = r->size != 1;
	unsigned a = x_host(r->a);

	switch (r->kind) {
	case RC_AGAIN:
		if (!x_pinned(r->a) || r->delta) {
			load_a(t, r);
			a = T0;
		}
		if (r->op == GRP1_CMP) {
			alu_b(t, r, GRP1_CMP, a);
		} else if (r->b == NO_REG) {
			emit_rm(e, emit_size(r->size) | E_BRM * !wide | 0xf6 | wide, 0, op_reg(a));
			emit_bytes(e, (u64)r->imm, r->size == 8 ? 4 : r->size);
		} else if (x_pinned(r->b) || r->a != r->b) {
			struct opnd b = x_opnd(r->b);

			emit_op(e, emit_size(r->size) | (E_BREG | E_BRM) * !wide | 0x84 | wide, a, &b);
		} else {
			emit_rm(e, emit_size(r->size) | (E_BREG | E_BRM) * !wide | 0x84 | wide, a, op_reg(a));
		}
		break;
	case RC_LOGIC:
		if (!x_pinned(r->a) || r->delta) {
			load_a(t, r);
			a = T0;
		}
		emit_rm(e, emit_size(r->size) | (E_BREG | E_BRM) * !wide | 0x84 | wide, a, op_reg(a));
		break;
	case RC_ADD:
	case RC_SUB:
		load_a(t, r);
		alu_b(t, r, r->kind == RC_ADD ? GRP1_SUB : GRP1_ADD, T0);
		alu_b(t, r, r->kind == RC_ADD ? GRP1_ADD : GRP1_SUB, T0);
		break;
	case RC_NEG:
		load_a(t, r);
		for (unsigned k = 0; k < 2; k++)
			emit_rm(e, emit_size(r->size) | 0xf6 | wide, 3, op_reg(T0));
		break;
	case RC_SHIFT:
		emit_load_cpu(e, T0, jit_stash);
		emit_rm(e, emit_size(r->size) | 0xc0 | wide, r->op, op_reg(T0));
		emit1(e, (u8)r->imm);
		break;
	}
}

static bool uses(const struct recipe *r, u16 regs)
{
	if (r->kind == RC_NONE || r->kind == RC_SHIFT)
		return false;
	return regs >> r->a & 1 || (r->b != NO_REG && regs >> r->b & 1);
}

static void save(struct xlate *t)
{
	struct emit *e = &t->e;

	emit_mov(e, T0, R_AX);
	glue_save_flags(e);
	emit_mov(e, R_AX, T0);
	t->fl.saved = true;
}

static void restore(struct xlate *t)
{
	struct emit *e = &t->e;

	emit_mov(e, T0, R_AX);
	emit_rm(e, E_0F | 0xb7, R_AX, op_cpu(fl));
	glue_load_flags(e);
	emit_mov(e, R_AX, T0);
	t->fl.host = true;
}

void xflags_clobber(struct xlate *t)
{
	struct xflstate *f = &t->fl;

	if (f->host && !f->saved && (f->rc.kind == RC_NONE || (t->ends_saved && (int)t->k > t->last_writer)))
		save(t);
	f->host = false;
}

void xflags_need(struct xlate *t)
{
	struct xflstate *f = &t->fl;

	if (f->host)
		return;
	if (f->rc.kind != RC_NONE) {
		cook(t, &f->rc);
		f->host = true;
	} else {
		restore(t);
	}
}

void xflags_save(struct xlate *t)
{
	if (t->fl.saved)
		return;
	xflags_need(t);
	save(t);
}

static bool same_low(const struct insn *i, unsigned reg)
{
	return i->osz != 1 || i->pfx & PFX_REX || reg < 4;
}

/* The recipe of an instruction with register operands. */
static void make_recipe(struct xlate *t, const struct xinsn *x)
{
	const struct insn *i = x->i;
	struct recipe *r = &t->fl.rc;
	unsigned op = i->opcode, n = i->modrm >> 3 & 7, kind = 8;

	*r = (struct recipe){ .kind = RC_NONE, .size = i->osz, .b = NO_REG };
	if (x->kind != XK_RM || i->mem || i->map || !same_low(i, x->rm))
		return;
	r->a = x->rm;
	switch (op) {
	case 0x00 ... 0x3d:
		kind = op >> 3;
		if ((op & 7) >= 4) {
			r->imm = (s64)i->imm;
		} else {
			r->a = op & 2 ? x->reg : x->rm;
			r->b = op & 2 ? x->rm : x->reg;
			if (!same_low(i, x->reg))
				return;
		}
		break;
	case 0x80 ... 0x83:
		kind = n;
		r->imm = (s64)i->imm;
		break;
	case 0x84:
	case 0x85:
		if (!same_low(i, x->reg))
			return;
		r->b = x->reg;
		kind = 9;
		break;
	case 0xa8:
	case 0xa9:
		r->imm = (s64)i->imm;
		kind = 9;
		break;
	case 0xf6:
	case 0xf7:
		if (n <= 1) {
			r->imm = (s64)i->imm;
			kind = 9;
		} else if (n == 3) {
			r->kind = RC_NEG;
		}
		break;
	case 0xc0:
	case 0xc1:
	case 0xd0:
	case 0xd1:
		if (!x->stash)
			return;
		r->kind = RC_SHIFT;
		r->op = (u8)n;
		r->a = 0;
		r->imm = (s64)i->imm;
		break;
	}
	switch (kind) {
	case GRP1_ADD: r->kind = RC_ADD; break;
	case GRP1_SUB: r->kind = RC_SUB; break;
	case GRP1_OR:
	case GRP1_AND:
	case GRP1_XOR: r->kind = RC_LOGIC; break;
	case GRP1_CMP:
		r->kind = RC_AGAIN;
		r->op = GRP1_CMP;
		break;
	case 9: r->kind = RC_AGAIN; break;
	}
	/* add r, r and sub r, r cannot be undone by the register; a subtraction from itself is no riddle, but rare */
	if ((r->kind == RC_ADD || r->kind == RC_SUB) && r->b == r->a)
		r->kind = RC_NONE;
	if (r->kind == RC_LOGIC)
		r->b = NO_REG;
}

void xflags_set(struct xlate *t, const struct xinsn *x)
{
	if (!(x->fl & (XF_ALL | XF_SOME)))
		return;
	t->fl = (struct xflstate){ .host = true };
	if (x->fl & XF_ALL)
		make_recipe(t, x);
}

void xflags_before_write(struct xlate *t, u16 regs)
{
	struct xflstate *f = &t->fl;

	if (!uses(&f->rc, regs))
		return;
	if (!f->host && !f->saved && xflags_wanted_after(t, t->k))
		xflags_need(t);
	f->rc.kind = RC_NONE;
	if (!f->host && !f->saved)
		f->saved = true; /* nobody looks */
}

void xflags_moved(struct xlate *t, unsigned reg, s64 by)
{
	struct recipe *r = &t->fl.rc;

	if (r->kind == RC_NONE || r->kind == RC_SHIFT)
		return;
	if (r->b != NO_REG && r->b == reg) {
		xflags_before_write(t, (u16)BIT(reg));
		return;
	}
	if (r->a == reg) {
		r->delta -= by;
		if (r->delta != (s32)r->delta)
			xflags_before_write(t, (u16)BIT(reg));
	}
}

static bool wanted_from(const struct xlate *t, unsigned k)
{
	for (unsigned n = k; n < t->n; n++) {
		const struct xinsn *x = &t->in[n];

		if (x->fl & XF_READ || x->exposes)
			return true;
		if (x->fl & XF_ALL)
			return false;
	}
	return true;
}

bool xflags_wanted_after(const struct xlate *t, unsigned k)
{
	return !(t->in[k].fl & XF_ALL) && wanted_from(t, k + 1);
}

/* Shifts by a constant of a register: is the operand worth storing, as an access to memory follows before the
 * flags are set anew? */
void xflags_stash(struct xlate *t, struct xinsn *x)
{
	const struct insn *i = x->i;

	if (x->kind != XK_RM || i->mem || i->map || !(x->fl & XF_ALL) || x->high ||
	    !((i->opcode | 1) == 0xc1 || (i->opcode | 1) == 0xd1))
		return;
	for (unsigned n = t->k + 1; n < t->n && !x->stash; n++) {
		if (t->in[n].fl & XF_ALL)
			return;
		x->stash = t->in[n].acc;
	}
	if (!x->stash)
		return;
	if (x_pinned(x->rm)) {
		emit_store_cpu(&t->e, x_host(x->rm), jit_stash);
	} else {
		emit_rm(&t->e, E_W | OP_MOV_R_RM, T0, op_cpu(gpr[x->rm]));
		emit_store_cpu(&t->e, T0, jit_stash);
	}
}

bool xflags_late(struct xlate *t, const struct xflstate *fl)
{
	if (fl->saved)
		return false;
	if (!fl->host)
		cook(t, &fl->rc);
	return true;
}
