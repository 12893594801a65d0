/* The translator: a decoded block becomes host code, instruction by instruction.
 *
 * The guest's instruction set is the host's, so an instruction that touches registers only is copied, with other
 * numbers where guest registers are elsewhere (jit.h); one with a memory operand gets its address checked
 * (memop.c) and a host address; control flow is replaced. Everything else the interpreter does, one
 * instruction (STEP) or the rest of the block (BAIL) at a time, so that what an instruction means is said once.
 *
 * Precision. An instruction changes guest state only after all checks that can fail. The way to the
 * interpreter leads out of line with nothing of the instruction done, and the interpreter does it, fault
 * included. Where the host itself faults (division, alignment, numeric exceptions), the signal handler finds
 * the instruction in a table and goes the same way.
 *
 * Interrupts are looked for (c->jit_go) at jumps backward, and (an empty table of addresses) at indirect jumps and
 * returns that do not go back to their call; and a CALL fills the host's stack, which is looked for when it is full. No
 * loop is without one of them: soft_recall().
 *
 * Jumps to known addresses: within a page, target and jump are mapped by the same translation. To another page,
 * the TLB's entry is compared with what it was when the jump was linked. CALL leaves the guest's return address
 * on the guest's stack and calls on the host's; RET takes the guest's, returns on the host's, and the
 * code there compares what was taken with what it expects.
 *
 * On a vCPU's thread, outside translated code, under the lock of share.h. */
#include "cpu/soft/jit/translate.h"
#include "cpu/soft/thunk.h"

#define PAGE_OF(la) ((la) & ~0xfffull)

struct xrec *translate_rec(struct xlate *t, bool group)
{
	struct xrec *r = jit_alloc(t->j, sizeof(*r));

	r->x = t->x;
	r->k = (u16)t->k;
	r->vec = t->sse_ok || t->avx_ok || t->avx512_ok;
	r->group = group;
	return r;
}

void translate_late(struct xlate *t, unsigned what, u8 *jump, struct xrec *rec, struct xexit *exit)
{
	if (t->nr_late == X_MAX_LATE) {
		t->no_room = true;
		return;
	}
	t->late[t->nr_late++] = (struct xlate_late){ .jump = jump,
						     .rec = rec,
						     .fl = t->fl,
						     .exit = exit,
						     .what = (u8)what,
						     .k = (u8)t->k,
						     .loop = t->lp.active };
}

/* --- general registers --- */
static void load_guest(struct xlate *t, unsigned tmp, unsigned reg)
{
	emit_rm(&t->e, E_W | OP_MOV_R_RM, tmp, op_cpu(gpr[reg]));
}

static void store_guest(struct xlate *t, unsigned tmp, unsigned reg)
{
	emit_rm(&t->e, E_W | OP_MOV_RM_R, tmp, op_cpu(gpr[reg]));
}

/* A register changed: what was known by it. */
static void regs_changed(struct xlate *t, const struct xinsn *x)
{
	for (unsigned r = 0; r < X86_NR_GPR; r++) {
		s64 by;

		if (memop_delta(t, x, r, &by))
			memop_moved(t, r, by);
		else if (x->wr >> r & 1)
			memop_killed(t, (u16)BIT(r));
	}
}

static bool needs_flags(const struct xlate *t, const struct xinsn *x)
{
	return x->fl & XF_READ || (x->fl & XF_SOME && xflags_wanted_after(t, t->k));
}

/* An instruction that the host may fault on starts here. */
static void note_fault(struct xlate *t, const struct xinsn *x)
{
	if (!x->fault)
		return;
	t->faults[t->x->nr_faults++] = (struct xfault){ .off = (u16)(emit_rx(&t->e) - t->x->code),
							.k = (u8)t->k,
							.saved = !t->fl.host,
							.loop = t->lp.active };
}

/* Registers of an instruction with ModRM: where its operands are. */
struct operands {
	unsigned reg;
	struct opnd rm;
	unsigned vvvv;
};

/* Loads what lies in memory into T0 and T1, and makes the memory operand. vvvv: NO_REG. */
static struct operands get_operands(struct xlate *t, const struct xinsn *x, unsigned vvvv)
{
	bool reg = x->reg_r || x->reg_w, need = needs_flags(t, x);
	bool reg_out = reg && !(x->byte_reg && x->high) && !x_pinned(x->reg);
	bool v_out = vvvv != NO_REG && !x_pinned(vvvv);
	struct operands o;

	/* The table of faults knows two states; the check of an operand leaves a third. */
	if (x->fault && !t->fl.saved)
		need = true;
	if (x->acc) {
		o.rm = memop_operand(t, x->wr, need, reg_out || v_out);
	} else {
		if (need)
			xflags_need(t);
		xflags_before_write(t, x->wr);
		o.rm = op_reg(x->rm_r || x->rm_w
				      ? (x->high && x->byte_rm && x->rm >= 4 ? x->rm : x_host(x->rm))
				      : x->rm);
		if ((x->rm_r || x->rm_w) && !x_pinned(x->rm)) {
			o.rm = op_reg(T1);
			load_guest(t, T1, x->rm);
		}
	}
	o.reg = reg ? (x->high && x->byte_reg && x->reg >= 4 ? x->reg : x_host(x->reg)) : x->reg & 7u;
	o.vvvv = vvvv == NO_REG ? 0 : x_host(vvvv);
	if (reg_out) {
		o.reg = !x->acc && (x->rm_r || x->rm_w) && x->rm == x->reg ? T1 : T0;
		if (o.reg == T0)
			load_guest(t, T0, x->reg);
	}
	if (v_out) {
		/* Three of them in one instruction: T0 serves the second source and then the destination. */
		o.vvvv = !x->acc && (x->rm_r || x->rm_w) && x->rm == vvvv ? T1 : T0;
		if (o.vvvv == T0)
			load_guest(t, T0, vvvv);
	}
	return o;
}

static void put_operands(struct xlate *t, const struct xinsn *x, const struct operands *o, unsigned vvvv)
{
	if (x->reg_w && !(x->byte_reg && x->high) && !x_pinned(x->reg) && (o->reg == T0 || o->reg == T1))
		store_guest(t, o->reg, x->reg);
	if (!x->acc && x->rm_w && !x_pinned(x->rm))
		store_guest(t, T1, x->rm);
	if (vvvv != NO_REG && x->wr >> vvvv & 1 && !x_pinned(vvvv) && !(x->reg == vvvv && x->reg_w))
		store_guest(t, o->vvvv, vvvv);
}

static void xlate_rm(struct xlate *t, struct xinsn *x)
{
	const struct insn *i = x->i;
	struct operands o;
	u32 op = i->opcode | (u32)i->map << 8 | emit_size(i->osz) | (i->pfx & PFX_LOCK ? E_LOCK : 0);
	unsigned digit = NO_REG;

	xflags_stash(t, x);
	if (x->bits) { /* the bit's number may lead beyond the operand */
		struct opnd bit = x_opnd(x->reg);

		xflags_clobber(t);
		emit_op(&t->e, emit_size(i->osz) | OP_GRP1_IMM8, GRP1_CMP, &bit);
		emit1(&t->e, i->osz * 8u - 1);
		translate_slow(t, emit_jump(&t->e, 7, NULL)); /* ja */
	}
	o = get_operands(t, x, NO_REG);
	if (i->map == 0 && i->opcode < 0x40 && (i->opcode & 7) >= 4) {
		op = (op & ~0xffu) | (i->osz == 1 ? 0x80 : 0x81);
		digit = i->opcode >> 3;
	} else if (i->map == 0 && (i->opcode | 1) == 0xa9) {
		op = (op & ~0xffu) | 0xf6 | (i->opcode & 1);
		digit = 0;
	} else if (i->map == 0 && (i->opcode & 0xf0) == 0x40) { /* INC, DEC: REX in 64-bit mode */
		op = (op & ~0xffu) | 0xff;
		digit = i->opcode >> 3 & 1;
	} else if (x->moffs) {
		op = (op & ~0xffu) | 0x88 | (i->opcode & 1) | (i->opcode & 2 ? 0 : 2);
	}
	if (x->byte_reg && (x->reg_r || x->reg_w) && !(x->high && x->reg >= 4))
		op |= E_BREG;
	if (x->byte_rm && !(x->high && x->rm >= 4))
		op |= E_BRM;
	note_fault(t, x);
	emit_op(&t->e, op, digit != NO_REG ? digit : o.reg, &o.rm);
	emit_bytes(&t->e, i->imm, x->imm);
	put_operands(t, x, &o, NO_REG);
}

static void xlate_imm(struct xlate *t, const struct xinsn *x)
{
	const struct insn *i = x->i;
	struct emit *e = &t->e;
	unsigned reg = x_pinned(x->rm) ? x_host(x->rm) : T0;

	xflags_before_write(t, x->wr);
	if (i->osz >= 4) {
		emit_imm(e, reg, i->osz == 4 ? (u32)i->imm : i->imm);
	} else {
		if (reg == T0)
			load_guest(t, T0, x->rm);
		emit_rm(e, emit_size(i->osz) | (i->osz == 1 ? 0xc6 | (x->high ? 0 : E_BRM) : 0xc7), 0,
			op_reg(x->high ? x->rm : reg));
		emit_bytes(e, i->imm, i->osz);
	}
	if (reg == T0)
		store_guest(t, T0, x->rm);
}

static void xlate_lea(struct xlate *t, const struct xinsn *x)
{
	unsigned dst = x_pinned(x->reg) ? x_host(x->reg) : T0;
	s64 by;

	if (memop_delta(t, x, x->reg, &by))
		xflags_moved(t, x->reg, by);
	else
		xflags_before_write(t, x->wr);
	memop_lea(t, x->i->osz, dst);
	if (dst == T0)
		store_guest(t, T0, x->reg);
}

static void xlate_opreg(struct xlate *t, const struct xinsn *x)
{
	const struct insn *i = x->i;
	struct emit *e = &t->e;
	unsigned reg = x_pinned(x->rm) ? x_host(x->rm) : T0;

	xflags_before_write(t, x->wr);
	if (reg == T0)
		load_guest(t, T0, x->rm);
	if (x->kind == XK_XCHG_A) {
		emit_rm(e, emit_size(i->osz) | 0x87, R_AX, op_reg(reg));
	} else { /* BSWAP */
		emit1(e, 0x40 | (i->osz == 8 ? REX_W : 0) | (reg & 8 ? REX_B : 0));
		emit1(e, 0x0f);
		emit1(e, 0xc8 | (reg & 7));
	}
	if (reg == T0)
		store_guest(t, T0, x->rm);
}

/* CBW, CWD and their like; LAHF, SAHF, CMC, CLC, STC. */
static void xlate_plain(struct xlate *t, const struct xinsn *x)
{
	const struct insn *i = x->i;

	if (needs_flags(t, x))
		xflags_need(t);
	xflags_before_write(t, x->wr);
	if (i->opcode <= 0x99) {
		if (i->osz == 2)
			emit1(&t->e, 0x66);
		else if (i->osz == 8)
			emit1(&t->e, 0x40 | REX_W);
	}
	emit1(&t->e, i->opcode);
}

/* --- vector and x87 --- */
/* Is that class's state in the host's registers, and the class on? Changes no flags. */
void translate_gate(struct xlate *t, const struct xinsn *x)
{
	struct emit *e = &t->e;
	bool *is_ok = x->avx512 ? &t->avx512_ok : x->avx ? &t->avx_ok : &t->sse_ok;
	u8 *ok, *no;
	struct xrec *rec;

	if (*is_ok)
		return;
	rec = translate_rec(t, false);
	rec->vec = true;
	emit_mov(e, T0, R_CX);
	emit_rm(e, OP_MOV_R_RM, R_CX,
		x->avx512 ? op_cpu(avx512_gate)
		: x->avx  ? op_cpu(avx_gate)
			  : op_cpu(sse_gate));
	ok = emit_jrcxz(e);
	emit_mov(e, R_CX, T0);
	no = emit_jump(e, CC_JMP, NULL);
	translate_late(t, LATE_BAIL, no, rec, NULL);
	emit_land8(e, ok);
	emit_mov(e, R_CX, T0);
	*is_ok = true;
	if (x->avx512) /* what turns AVX off turns this off too */
		t->avx_ok = true;
}

static void x87_pointers(struct xlate *t, const struct xinsn *x)
{
	const struct insn *i = x->i;
	struct emit *e = &t->e;

	translate_rip(t, T0, x_rip(t, i));
	emit_store_cpu(e, T0, x87_fip);
	emit_rm(e, E_66 | 0xc7, 0, op_cpu(x87_fop));
	emit_bytes(e, (i->opcode & 7u) << 8 | i->modrm, 2);
	emit_rm(e, E_0F | 0xb7, T0, op_cpu(seg[SEG_CS].sel));
	emit_rm(e, E_66 | OP_MOV_RM_R, T0, op_cpu(x87_fcs));
}

static void xlate_native(struct xlate *t, const struct xinsn *x)
{
	const struct insn *i = x->i;
	const struct native_row *row = x->row;
	struct emit *e = &t->e;
	/* FLDCW, FNSTCW, FNSTSW, FNCLEX, and the like leave the x87 pointers alone. */
	bool x87 = row->flags & NR_X87, pointers = x87 && !native_x87_control(i);
	unsigned vvvv = row->flags & NR_GPR_VVVV ? i->vvvv : NO_REG;
	struct thunk_encoding enc = thunk_encoding(i, row);
	struct operands o;
	u32 op = enc.opcode | (enc.one_byte ? 0 : (u32)i->map << 8) | (enc.w ? E_W : 0);

	if (x->vec)
		translate_gate(t, x);
	if (pointers && i->mem) { /* the data pointer, before the instruction changes what it is made of */
		memop_lea(t, t->word, T0);
		emit_store_cpu(e, T0, jit_target);
	}
	o = get_operands(t, x, vvvv);
	if (i->mem && !x->acc) /* cannot be: a form with memory that is not accessed */
		t->no_room = true;
	if (!(x->reg_r || x->reg_w))
		o.reg = x87 ? (i->modrm >> 3 & 7u) : x->reg;
	note_fault(t, x);
	if (i->evex) {
		emit_evex(e, op, enc.pp, i->evex, i->vvvv, o.reg, &o.rm);
	} else if (i->pfx & PFX_VEX) {
		emit_vex(e, op, enc.pp, i->pfx & PFX_VEX_L, vvvv == NO_REG ? i->vvvv : o.vvvv, o.reg, &o.rm);
	} else {
		op |= (enc.p66 ? E_66 : 0) | (enc.f2 ? E_F2 : 0) | (enc.f3 ? E_F3 : 0);
		if (x->byte_rm && !(x->high && x->rm >= 4))
			op |= E_BRM;
		if (thunk_has_modrm(i)) {
			emit_op(e, op, o.reg, &o.rm);
		} else { /* EMMS */
			emit1(e, 0x0f);
			emit1(e, i->opcode);
		}
	}
	emit_bytes(e, i->imm, x->imm);
	put_operands(t, x, &o, vvvv);
	if (!pointers)
		return;
	x87_pointers(t, x);
	if (i->mem) {
		emit_load_cpu(e, T0, jit_target);
		emit_store_cpu(e, T0, x87_fdp);
		/* What the interpreter stores: the selector, 0 without an override. */
		if (i->seg == SEG_FLAT) {
			emit_rm(e, E_66 | 0xc7, 0, op_cpu(x87_fds));
			emit_bytes(e, 0, 2);
		} else {
			emit_rm(e, E_0F | 0xb7, T0, op_cpu(seg[i->seg].sel));
			emit_rm(e, E_66 | OP_MOV_RM_R, T0, op_cpu(x87_fds));
		}
	}
}

static void xlate_vzero(struct xlate *t, const struct xinsn *x)
{
	translate_gate(t, x);
	emit1(&t->e, 0xc5);
	emit1(&t->e, x->i->pfx & PFX_VEX_L ? 0xfc : 0xf8);
	emit1(&t->e, 0x77);
}

/* --- the stack --- */
void translate_move_sp(struct xlate *t, s32 by)
{
	t->sp_late += by;
}

void translate_sp(struct xlate *t)
{
	s32 by = t->sp_late;

	if (!by)
		return;
	t->sp_late = 0;
	xflags_moved(t, R_SP, by); /* first: it may have to compute with the old one */
	emit_rm(&t->e, t->w | OP_LEA, HOST_SP, op_mem(HOST_SP, by));
}

/* Is it MOV r, RSP? That is a LEA when RSP is late. */
static bool copies_sp(const struct xlate *t, const struct xinsn *x)
{
	const struct insn *i = x->i;

	return x->kind == XK_RM && !i->map && !i->mem && i->osz == t->word &&
	       ((i->opcode == 0x89 && x->reg == R_SP && x->rm != R_SP && x_pinned(x->rm)) ||
		(i->opcode == 0x8b && x->rm == R_SP && x->reg != R_SP && x_pinned(x->reg)));
}

static void xlate_copy_sp(struct xlate *t, const struct xinsn *x)
{
	xflags_before_write(t, x->wr);
	emit_rm(&t->e, t->w | OP_LEA, x->i->opcode == 0x89 ? x->rm : x->reg, op_mem(HOST_SP, t->sp_late));
}

/* Does its code neither look at RSP, but by memop_access() and copies_sp(), nor leave the block? */
static bool spares_sp(const struct xlate *t, const struct xinsn *x)
{
	const struct insn *i = x->i;

	switch (x->kind) {
	case XK_NOP:
	case XK_PUSH_IMM:
	case XK_CALL:
	case XK_RET: return true;
	case XK_IMM:
	case XK_PUSH:
	case XK_POP: return x->rm != R_SP;
	case XK_LEA: return x->reg != R_SP && i->base != R_SP && i->index != R_SP;
	case XK_RM:
		return copies_sp(t, x) ||
		       (!x->acc && !x->fault && !(x->reg == R_SP && (x->reg_r || x->reg_w)) &&
			!(x->rm == R_SP && (x->rm_r || x->rm_w)));
	default: return false;
	}
}

static void xlate_push(struct xlate *t, const struct xinsn *x)
{
	struct opnd o = memop_push(t, !x_pinned(x->rm));

	if (x->kind == XK_PUSH_IMM) {
		emit_op(&t->e, t->w | 0xc7, 0, &o);
		emit4(&t->e, (u32)x->i->imm);
	} else if (x_pinned(x->rm)) {
		emit_op(&t->e, t->w | OP_MOV_RM_R, x_host(x->rm), &o);
	} else {
		load_guest(t, T0, x->rm);
		emit_op(&t->e, t->w | OP_MOV_RM_R, T0, &o);
	}
	translate_move_sp(t, -t->word);
}

/* The value first, then the check of the stack: until that has passed nothing is done. */
static void xlate_push_mem(struct xlate *t, const struct xinsn *x)
{
	struct opnd o = memop_operand(t, 0, false, false);

	emit_op(&t->e, t->w | OP_MOV_R_RM, T0, &o);
	emit_store_cpu(&t->e, T0, jit_target);
	o = memop_push(t, true);
	emit_load_cpu(&t->e, T0, jit_target);
	emit_op(&t->e, t->w | OP_MOV_RM_R, T0, &o);
	translate_move_sp(t, -t->word);
}

static void xlate_pop(struct xlate *t, const struct xinsn *x)
{
	struct opnd o = memop_access(t, R_SP, 0, ACC_R, x->wr, false);

	if (x_pinned(x->rm)) {
		emit_op(&t->e, t->w | OP_MOV_R_RM, x_host(x->rm), &o);
	} else {
		emit_op(&t->e, t->w | OP_MOV_R_RM, T0, &o);
		store_guest(t, T0, x->rm);
	}
	if (x->rm != R_SP)
		translate_move_sp(t, t->word);
}

static void xlate_leave(struct xlate *t, const struct xinsn *x)
{
	struct opnd o = memop_access(t, R_BP, 0, ACC_R, x->wr, false);

	emit_op(&t->e, t->w | OP_MOV_R_RM, T0, &o);
	emit_rm(&t->e, t->w | OP_LEA, HOST_SP, op_mem(R_BP, t->word));
	emit_mov(&t->e, R_BP, T0);
}

/* --- control flow --- */
struct xexit *translate_exit(struct xlate *t, gva_t rip)
{
	struct xexit *x = jit_alloc(t->j, sizeof(*x));

	x->from = t->x;
	x->rip = rip;
	x->next = t->x->exits;
	t->x->exits = x;
	return x;
}

void translate_rip(struct xlate *t, unsigned reg, gva_t rip)
{
	if (!t->x->pic) {
		emit_imm(&t->e, reg, rip);
		return;
	}
	emit_load_cpu(&t->e, reg, jit_page);
	emit_rm(&t->e, E_W | OP_LEA, reg, op_mem(reg, (s32)rip));
	if (!emit_fits((s64)rip))
		t->no_room = true;
}

/* Does one instruction find the flags again? */
static bool are_cheap(const struct xflstate *fl)
{
	return (fl->rc.kind == RC_AGAIN || fl->rc.kind == RC_LOGIC) && !fl->rc.delta;
}

/* Leaves the loop when somebody wants that: before a jump backward, with the flags in RFLAGS afterwards, if it has a condition.
 * other: where that is false. Changes T0. */
static void emit_poll(struct xlate *t, struct xexit *taken, unsigned cc, struct xexit *other)
{
	struct emit *e = &t->e;
	u8 *go, *on;

	if (are_cheap(&t->fl) || (!t->fl.host && t->fl.saved && !other)) {
		t->fl.host = false;
		emit_rm(e, OP_GRP1_IMM8, GRP1_CMP, op_cpu(jit_go));
		emit1(e, 0);
		translate_late(t, LATE_POLL, emit_jump(e, 4, NULL), NULL, taken);
		if (!t->no_room) {
			struct xlate_late *l = &t->late[t->nr_late - 1];

			l->cc = (u8)cc;
			l->other = other;
			l->fl.saved &= !other; /* they decide where to */
		}
		if (other)
			xflags_need(t);
		return;
	}
	if (other)
		xflags_need(t);
	emit_mov(e, T0, R_CX);
	emit_rm(e, OP_MOV_R_RM, R_CX, op_cpu(jit_go));
	go = emit_jrcxz(e);
	emit_mov(e, R_CX, T0);
	on = emit_jump(e, CC_JMP, NULL);
	emit_land8(e, go);
	emit_mov(e, R_CX, T0);
	translate_late(t, LATE_EXIT, emit_jump(e, cc, NULL), NULL, taken);
	if (other)
		translate_late(t, LATE_EXIT, emit_jump(e, CC_JMP, NULL), NULL, other);
	emit_land(e, on);
}

/* T0 with the key that the TLB for code has for the page of an address. Changes T1. */
static void emit_cmp_key(struct emit *e, gva_t rip)
{
	emit_rm(e, E_W | OP_MOV_R_RM, T1, op_cpu(tlb_code[rip >> 63]));
	emit_rm(e, E_W | OP_CMP_RM_R, T0,
		op_mem(T1, (s32)((rip >> 12 & (TLB_CODE_SIZE - 1)) * 8 + offsetof(struct tlb_code, key))));
}

/* Looks up the translation at T0; flags are saved. Leaves its jcache entry in T1. Where there is none: LATE_JUMP_OUT,
 * or LATE_BAIL, with rec; or LATE_EXIT. */
static void emit_lookup(struct xlate *t, unsigned what, struct xrec *rec, struct xexit *exit)
{
	struct emit *e = &t->e;

	t->in_t1 = NULL;
	glue_jcache_compare(e);
	translate_late(t, what, emit_jump(e, 5, NULL), rec, exit);
	emit_load_cpu(e, T0, code_gen[t->half]);
	emit_rm(e, E_W | OP_CMP_R_RM, T0, op_mem(T1, offsetof(struct jcache, gen)));
	emit_rm(e, E_W | OP_MOV_R_RM, T0, op_mem(T1, offsetof(struct jcache, rip)));
	translate_late(t, what, emit_jump(e, 5, NULL), rec, exit);
}

/* Below the host's return address: where the guest's RET is to come back to, for emit_landing(). */
static void emit_push_next(struct xlate *t)
{
	if (t->x->pic)
		emit_rm(&t->e, 0xff, 6, op_cpu(jit_next));
}

/* The jump of exit x to another page than the block's, whose address is not known. */
static void emit_far_exit(struct xlate *t, struct xexit *x, unsigned cc)
{
	struct emit *e = &t->e;

	xflags_save(t);
	t->fl.host = false;
	translate_rip(t, T0, x->rip);
	emit_lookup(t, LATE_EXIT, NULL, x);
	if (cc == CC_CALL)
		emit_push_next(t);
	emit_rm(e, 0xff, cc == CC_CALL ? 2 : 4, op_mem(T1, offsetof(struct jcache, code)));
}

/* The jump of exit x (CC_JMP, CC_CALL or conditional), to be linked. */
static void emit_exit(struct xlate *t, struct xexit *x, unsigned cc)
{
	bool far = PAGE_OF(x->rip) != PAGE_OF(t->x->rip);
	struct emit *e = &t->e;
	u8 *over = NULL;

	if (far && cc < CC_JMP) {
		over = emit_jump(e, cc ^ 1, NULL);
		cc = CC_JMP;
	}
	if (far && t->x->pic) {
		emit_far_exit(t, x, cc);
		if (over)
			emit_land(e, over);
		return;
	}
	if (far) {
		xflags_clobber(t);
		emit_align(e, 2, 8);
		emit1(e, 0x40 | REX_W | REX_B); /* mov T0, imm64 */
		emit1(e, 0xb8 | (T0 & 7));
		x->key = jit_alloc(t->j, sizeof(*x->key));
		x->key->last = TLB_NEVER - 1;
		x->key->place = e->p;
		emit8(e, TLB_NEVER - 1);
		emit_cmp_key(e, x->rip);
		translate_late(t, LATE_EXIT, emit_jump(e, 5, NULL), NULL, x);
		x->saved = t->fl.saved;
		if (!x->saved) {
			if (!t->half)
				emit_store_cpu(e, T0, jit_to);
			xflags_need(t);
		}
	} else {
		/* What holds them in both places has the choice of the shorter way in. */
		x->saved = !t->fl.host && t->fl.saved;
		if (!x->saved)
			xflags_need(t);
	}
	if (cc == CC_CALL && t->x->pic) {
		emit_align(e, JIT_PUSH_NEXT + 1, 4);
		emit_push_next(t);
	} else {
		emit_align(e, cc < CC_JMP ? 2 : 1, 4);
	}
	x->jump = emit_jump(e, cc, NULL);
	translate_late(t, LATE_EXIT, x->jump, NULL, x);
	if (over)
		emit_land(e, over);
}

/* Where the host's RET comes back to: T0 has the guest's return address; flags saved. */
static void emit_landing(struct xlate *t, gva_t rip)
{
	struct emit *e = &t->e;

	if (t->x->pic) {
		emit1(e, 0x40 | REX_B); /* pop T1 */
		emit1(e, 0x58 | (T1 & 7));
		emit_rm(e, E_W | OP_CMP_R_RM, T0, op_reg(T1));
	} else if ((u64)(s64)(s32)rip == rip) {
		emit_alu_imm(e, GRP1_CMP, T0, (s32)rip);
	} else {
		emit_imm(e, T1, rip);
		emit_rm(e, E_W | OP_CMP_R_RM, T0, op_reg(T1));
	}
	emit_jump(e, 5, t->j->ret_miss);
	if (t->x->pic) {
		emit_rm(e, E_W | OP_LEA, T0, op_mem(T0, -(s32)rip));
		emit_store_cpu(e, T0, jit_page);
	}
	t->fl = (struct xflstate){ .saved = true };
	translate_leave(t, rip);
}

static void emit_push_rip(struct xlate *t, const struct opnd *o, gva_t rip)
{
	struct emit *e = &t->e;

	if ((t->word == 4 || emit_fits((s64)rip)) && !t->x->pic) {
		emit_op(e, t->w | 0xc7, 0, o);
		emit4(e, (u32)rip);
	} else {
		translate_rip(t, T0, rip);
		emit_op(e, t->w | OP_MOV_RM_R, T0, o);
	}
	if (t->x->pic)
		emit_store_cpu(e, T0, jit_next);
	translate_move_sp(t, -t->word);
}

static gva_t next_rip(const struct xlate *t, const struct insn *i)
{
	return x_wrap(t, x_rip(t, i) + i->len);
}

static gva_t target_rip(const struct xlate *t, const struct insn *i)
{
	return x_wrap(t, x_rip(t, i) + i->len + i->imm);
}

static void xlate_jcc(struct xlate *t, const struct xinsn *x)
{
	const struct insn *i = x->i;
	gva_t next = next_rip(t, i), target = target_rip(t, i);
	struct xexit *taken = translate_exit(t, target), *other;
	struct xflstate fl;

	if (t->k + 1 < t->n) { /* out of the middle */
		xflags_need(t);
		fl = t->fl;
		emit_exit(t, taken, i->opcode & 15);
		t->fl = fl;
		return;
	}
	other = translate_exit(t, next);
	if (target <= x_rip(t, i) || next < x_rip(t, i)) /* or from the end of all addresses */
		emit_poll(t, taken, i->opcode & 15, other);
	xflags_need(t);
	fl = t->fl;
	emit_exit(t, taken, i->opcode & 15);
	t->fl = fl;
	emit_exit(t, other, CC_JMP);
}

static void xlate_jmp(struct xlate *t, const struct xinsn *x)
{
	gva_t target = target_rip(t, x->i);
	struct xexit *exit = translate_exit(t, target);

	if (target <= x_rip(t, x->i))
		emit_poll(t, exit, CC_JMP, NULL);
	emit_exit(t, exit, CC_JMP);
}

static void xlate_call(struct xlate *t, const struct xinsn *x)
{
	gva_t next = next_rip(t, x->i);
	struct opnd o = memop_push(t, true);
	struct xexit *exit = translate_exit(t, target_rip(t, x->i));

	emit_push_rip(t, &o, next);
	translate_sp(t);
	emit_exit(t, exit, CC_CALL);
	emit_landing(t, next);
}

static void xlate_ret(struct xlate *t, const struct xinsn *x)
{
	struct emit *e = &t->e;
	struct xrec *rec = translate_rec(t, false);
	struct opnd o = memop_access(t, R_SP, 0, ACC_R, 0, true);

	xflags_save(t);
	emit_op(e, t->w | OP_MOV_R_RM, T0, &o);
	translate_move_sp(t, (s32)(t->word + x->i->imm));
	translate_sp(t);
	emit_rm(e, 0xc7, 0, op_cpu(jit_ret));
	emit4(e, (u32)((u8 *)rec - t->j->data));
	emit1(e, 0xc3);
}

/* The target of an indirect jump or call to T0; then flags are saved. */
static void emit_target(struct xlate *t, const struct xinsn *x)
{
	struct emit *e = &t->e;

	if (x->acc) {
		struct opnd o = memop_operand(t, 0, false, true);

		xflags_save(t);
		emit_op(e, t->w | OP_MOV_R_RM, T0, &o);
	} else {
		struct opnd o = x_opnd(x->rm);

		xflags_save(t);
		emit_op(e, t->w | OP_MOV_R_RM, T0, &o);
	}
	t->fl.host = false;
}

/* On trial: notes the target in T0. Changes RFLAGS. */
static void emit_note_target(struct xlate *t)
{
	struct xblock *x = t->x;
	struct emit *e = &t->e;
	u8 *same;

	if (!x->again || x->pic)
		return;
	emit_rm_data(e, E_W | OP_CMP_R_RM, T0, &x->target);
	same = emit_jump(e, 4, NULL);
	emit_rm_data(e, E_W | OP_MOV_RM_R, T0, &x->target);
	emit_rm_data(e, 0xff, 0, &x->nr_targets); /* inc */
	emit_land(e, same);
}

/* Is the target in T0 the one that it was whenever it was looked at? Then it goes on here, without a lookup; else at the
 * jump that this yields. NULL: there is no such target. Changes T1. */
static u8 *emit_if_target(struct xlate *t)
{
	struct emit *e = &t->e;
	u64 target = t->b->target;

	if (!target || t->x->pic)
		return NULL;
	if ((u64)(s64)(s32)target == target) {
		emit_alu_imm(e, GRP1_CMP, T0, (s32)target);
	} else {
		emit_imm(e, T1, target);
		emit_rm(e, E_W | OP_CMP_R_RM, T0, op_reg(T1));
	}
	t->in_t1 = NULL;
	return emit_jump(e, 5, NULL);
}

static void xlate_jmp_ind(struct xlate *t, const struct xinsn *x)
{
	struct xrec *rec = translate_rec(t, false);
	u8 *other;

	emit_target(t, x);
	emit_note_target(t);
	/* Backward only where it is looked whether somebody wants the loop. */
	other = t->b->target > x_rip(t, x->i) ? emit_if_target(t) : NULL;
	if (other) {
		struct xflstate fl = t->fl;

		emit_exit(t, translate_exit(t, t->b->target), CC_JMP);
		t->fl = fl;
		emit_land(&t->e, other);
	}
	emit_lookup(t, LATE_JUMP_OUT, rec, NULL);
	emit_rm(&t->e, 0xff, 4, op_mem(T1, offsetof(struct jcache, code)));
}

/* The translation of the target is found first: what is not canonical has none, and the interpreter makes the CALL
 * fault, before it pushes. */
static void xlate_call_ind(struct xlate *t, const struct xinsn *x)
{
	struct emit *e = &t->e;
	struct opnd o;
	u8 *other;

	emit_target(t, x);
	emit_note_target(t);
	other = emit_if_target(t);
	if (other) {
		struct xflstate fl = t->fl;

		o = memop_push(t, true);
		emit_push_rip(t, &o, next_rip(t, x->i));
		translate_sp(t);
		emit_exit(t, translate_exit(t, t->b->target), CC_CALL);
		emit_landing(t, next_rip(t, x->i));
		t->fl = fl;
		t->in_t1 = NULL;
		emit_land(e, other);
	}
	emit_lookup(t, LATE_BAIL, translate_rec(t, false), NULL);
	emit_store_cpu(e, T0, jit_to);
	emit_rm(e, E_W | OP_MOV_R_RM, T0, op_mem(T1, offsetof(struct jcache, code)));
	emit_store_cpu(e, T0, jit_target);
	o = memop_push(t, true);
	emit_push_rip(t, &o, next_rip(t, x->i));
	translate_sp(t);
	emit_load_cpu(e, T0, jit_to);
	emit_push_next(t);
	emit_rm(e, 0xff, 2, op_cpu(jit_target));
	emit_landing(t, next_rip(t, x->i));
}

/* --- what the interpreter does --- */
bool translate_bails(const struct xlate *t)
{
	return t->in[t->k].kind >= XK_JCC || t->in[t->k].kind == XK_PUSH_MEM;
}

void translate_slow(struct xlate *t, u8 *jump)
{
	struct xrec *rec = translate_rec(t, false);
	bool bail = translate_bails(t);

	translate_late(t, bail ? LATE_BAIL : LATE_STEP, jump, rec, NULL);
	if (!bail)
		t->step[t->nr_steps++] = rec;
}

void translate_step(struct xlate *t, bool bail)
{
	struct xrec *rec = translate_rec(t, false);

	/* What it leaves in vector registers is looked at anew. */
	rec->vec = false;
	t->sse_ok = t->avx_ok = t->avx512_ok = false;
	translate_late(t, bail ? LATE_BAIL : LATE_STEP, emit_jump(&t->e, CC_JMP, NULL), rec, NULL);
	if (!bail) {
		t->step[t->nr_steps++] = rec;
		/* The interpreter leaves them in c->fl, and glue in RFLAGS. */
		t->fl = (struct xflstate){ .host = true, .saved = true };
	}
	memop_forget(t);
}

void translate_leave(struct xlate *t, gva_t rip)
{
	struct xexit *exit = translate_exit(t, rip);

	translate_sp(t);
	if (rip < t->x->rip) /* from the end of all addresses */
		emit_poll(t, exit, CC_JMP, NULL);
	emit_exit(t, exit, CC_JMP);
}

/* Behind the last instruction. */
static void translate_end(struct xlate *t)
{
	t->k = t->n - 1;
	if (t->in[t->k].kind < XK_JCC && t->in[t->k].kind != XK_BAIL)
		translate_leave(t, next_rip(t, t->in[t->k].i));
}

/* --- instructions --- */
/* Is T1 after it what memop.c left there? */
static bool keeps_t1(const struct xinsn *x)
{
	switch (x->kind) {
	case XK_NOP:
	case XK_IMM:
	case XK_OPREG:
	case XK_XCHG_A:
	case XK_PLAIN:
	case XK_LEA:
	case XK_PUSH:
	case XK_PUSH_IMM:
	case XK_POP: return true;
	case XK_RM:
	case XK_NATIVE:
		return (!(x->reg_r || x->reg_w) || x_pinned(x->reg)) &&
		       (!(x->rm_r || x->rm_w) || x->acc || x_pinned(x->rm)) &&
		       !(x->row && x->row->flags & NR_GPR_VVVV);
	default: return false;
	}
}

void translate_insn(struct xlate *t, struct xinsn *x)
{
	if (!spares_sp(t, x))
		translate_sp(t);
	switch (x->kind) {
	case XK_STEP: translate_step(t, false); break;
	case XK_BAIL: translate_step(t, true); break;
	case XK_NOP: break;
	case XK_RM:
		if (t->sp_late && copies_sp(t, x))
			xlate_copy_sp(t, x);
		else
			xlate_rm(t, x);
		break;
	case XK_IMM: xlate_imm(t, x); break;
	case XK_OPREG:
	case XK_XCHG_A: xlate_opreg(t, x); break;
	case XK_PLAIN: xlate_plain(t, x); break;
	case XK_LEA: xlate_lea(t, x); break;
	case XK_NATIVE: xlate_native(t, x); break;
	case XK_VZERO: xlate_vzero(t, x); break;
	case XK_PUSH:
	case XK_PUSH_IMM: xlate_push(t, x); break;
	case XK_POP: xlate_pop(t, x); break;
	case XK_PUSH_MEM: xlate_push_mem(t, x); break;
	case XK_CLI ... XK_STRING: xsys_translate(t, x); break;
	case XK_LEAVE: xlate_leave(t, x); break;
	case XK_FENCE: /* mfence, as the interpreter has it for all */
		emit1(&t->e, 0x0f);
		emit1(&t->e, 0xae);
		emit1(&t->e, 0xf0);
		break;
	case XK_JCC: xlate_jcc(t, x); break;
	case XK_JMP: xlate_jmp(t, x); break;
	case XK_CALL: xlate_call(t, x); break;
	case XK_RET: xlate_ret(t, x); break;
	case XK_JMP_IND: xlate_jmp_ind(t, x); break;
	case XK_CALL_IND: xlate_call_ind(t, x); break;
	}
	if (x->kind < XK_JCC) {
		regs_changed(t, x);
		xflags_set(t, x);
	}
	if (t->nr_steps) /* where the interpreter did it, RSP is as it is to be */
		translate_sp(t);
	if (t->nr_steps || !keeps_t1(x))
		t->in_t1 = NULL;
	while (t->nr_steps)
		t->step[--t->nr_steps]->resume = (u32)(emit_rx(&t->e) - t->j->rx);
}

/* --- out of line --- */
/* The block from the instruction on where a check of several accesses failed. */
static void translate_rest(struct xlate *t, const struct xlate_late *l)
{
	t->fl = l->fl;
	t->sse_ok = t->avx_ok = t->avx512_ok = false;
	memop_forget(t);
	t->in_rest = true;
	for (t->k = l->k; t->k < t->n; t->k++)
		translate_insn(t, &t->in[t->k]);
	translate_end(t);
	t->in_rest = false;
}

static void emit_late(struct xlate *t, const struct xlate_late *l)
{
	struct emit *e = &t->e;
	struct jit *j = t->j;
	bool host, step = l->what == LATE_STEP;

	emit_land(e, l->jump);
	t->k = l->k;
	if (l->what == LATE_WINDOW) {
		memop_window(t, l);
		step = !l->bail;
	}
	if (l->what == LATE_REST || l->rest) {
		translate_rest(t, l);
		return;
	}
	if (l->loop)
		xloop_restore(t);
	switch (l->what) {
	case LATE_WINDOW:
	case LATE_STEP:
	case LATE_BAIL:
		host = xflags_late(t, &l->fl);
		emit_rm_data(e, E_W | OP_LEA, T0, l->rec);
		emit_jump(e, CC_JMP,
			  step ? (host ? j->step_host : j->step_saved)
			       : (host ? j->bail_host : j->bail_saved));
		if (l->loop && step) {
			const u8 *resume = emit_rx(e);

			xloop_reload(t);
			emit_jump(e, CC_JMP, j->rx + l->rec->resume);
			l->rec->resume = (u32)(resume - j->rx);
		}
		break;
	case LATE_SLOW: emit_jump(e, CC_JMP, t->lp.slow); break;
	case LATE_EXIT:
		if (l->jump == l->exit->jump)
			l->exit->stub = emit_rx(e);
		host = xflags_late(t, &l->fl);
		emit_rm_data(e, E_W | OP_LEA, T0, l->exit);
		emit_jump(e, CC_JMP, host ? j->exit_host : j->exit_saved);
		break;
	case LATE_POLL:
		host = xflags_late(t, &l->fl);
		if (l->other) {
			u8 *is_taken = emit_jump(e, l->cc, NULL);

			emit_rm_data(e, E_W | OP_LEA, T0, l->other);
			emit_jump(e, CC_JMP, j->exit_host);
			emit_land(e, is_taken);
		}
		emit_rm_data(e, E_W | OP_LEA, T0, l->exit);
		emit_jump(e, CC_JMP, host ? j->exit_host : j->exit_saved);
		break;
	case LATE_JUMP_OUT:
		emit_rm_data(e, E_W | OP_LEA, T1, l->rec);
		emit_store_cpu(e, T1, jit_rec);
		emit_jump(e, CC_JMP, j->jump_out);
		break;
	}
}

/* --- the block --- */
/* What its flags are at first: wanted in RFLAGS, or to be kept, or of no interest. */
enum first_flags { FIRST_HOST, FIRST_SAVED, FIRST_ANY };

static enum first_flags first_flags(const struct xlate *t)
{
	for (unsigned k = 0; k < t->n; k++) {
		const struct xinsn *x = &t->in[k];

		if (x->fl & XF_READ || x->kind == XK_JMP || (x->fl & XF_SOME && xflags_wanted_after(t, k)))
			return x->acc ? FIRST_SAVED : FIRST_HOST;
		if (x->exposes)
			return FIRST_SAVED;
		if (x->fl & XF_ALL)
			return FIRST_ANY;
	}
	return FIRST_HOST;
}

static void classify(struct xlate *t)
{
	const struct xinsn *last;

	t->last_writer = -1;
	for (unsigned k = 0; k < t->n; k++) {
		xclass_insn(t, &t->b->insn[k], &t->in[k]);
		if (t->in[k].fl & (XF_ALL | XF_SOME))
			t->last_writer = (int)k;
	}
	last = &t->in[t->n - 1];
	t->ends_saved = last->kind == XK_RET || last->kind == XK_JMP_IND || last->kind == XK_CALL_IND;
}

/* Are the bytes at p still those? Else out, by the exit. */
static void emit_bytes_check(struct xlate *t, const u8 *p, const u8 *want, unsigned n, struct xexit *out)
{
	struct emit *e = &t->e;
	u8 *check = emit_jump(e, CC_JMP, NULL);
	const u8 *differs = emit_rx(e);

	translate_late(t, LATE_EXIT, emit_jump(e, CC_JMP, NULL), NULL, out);
	emit_land(e, check);
	emit_imm(e, T0, (u64)(uintptr_t)p);
	for (unsigned k = 0, size; k < n; k += size) {
		size = n - k >= 4 ? 4 : n - k >= 2 ? 2 : 1;
		emit_rm(e, size == 1 ? 0x80 : emit_size(size) | OP_GRP1_IMM, GRP1_CMP, op_mem(T0, (s32)k));
		for (unsigned b = 0; b < size; b++)
			emit1(e, want[k + b]);
		emit_jump(e, 5, differs);
	}
}

/* An instruction that ends in the next page is in no list that a write looks at: it looks for itself whether that
 * page is still mapped to the same memory and all bytes are what they were. Flags are saved. */
static void emit_crossing_check(struct xlate *t)
{
	const struct code_source *src = code_source(t->b);
	struct xexit *out = translate_exit(t, t->x->rip);
	gva_t next = PAGE_OF(t->x->rip) + RAM_PAGE_SIZE;
	gpa_t gpa = (gpa_t)(src->second - t->c->ram->base);
	struct emit *e = &t->e;

	if (t->x->pic) {
		translate_rip(t, T0, next);
		emit_mov(e, T1, T0);
		emit_rm(e, 0xc1, 5, op_reg(T1)); /* shr T1d, 9 */
		emit1(e, 12 - 3);
		emit_rm(e, OP_GRP1_IMM, GRP1_AND, op_reg(T1));
		emit4(e, (TLB_CODE_SIZE - 1) * 8);
		emit_rm(e, E_W | OP_ADD_R_RM, T1, op_cpu(tlb_code[0]));
		emit_rm(e, E_W | 0xc1, 4, op_reg(T0)); /* shl */
		emit1(e, TLB_KEY_PFN_BITS - 12);
		emit_rm(e, E_W | OP_GRP1_IMM, GRP1_OR, op_reg(T0));
		emit4(e, (u32)(gpa >> 12));
		emit_rm(e, E_W | OP_CMP_RM_R, T0, op_mem(T1, offsetof(struct tlb_code, key)));
	} else {
		emit_imm(e, T0, tlb_key(next, gpa));
		emit_cmp_key(e, next);
	}
	translate_late(t, LATE_EXIT, emit_jump(e, 5, NULL), NULL, out);
	emit_bytes_check(t, (const u8 *)t->b->hva, src->byte, src->in_first, out);
	emit_bytes_check(t, src->second, src->byte + src->in_first, t->b->bytes - src->in_first, out);
}

/* A block of a restless page: are the bytes what they were, and has that not been so for long? Flags are saved. */
static void emit_self_check(struct xlate *t)
{
	const struct code_source *src = code_source(t->b);
	struct xexit *out = translate_exit(t, t->x->rip), *quiet;
	struct emit *e = &t->e;
	u32 *left;

	out->why = XEXIT_CHANGED;
	emit_bytes_check(t, (const u8 *)t->b->hva, src->byte, t->b->bytes, out);
	if (t->j->lockstep) /* it would leave in one run and not in the other */
		return;
	quiet = translate_exit(t, t->x->rip);
	quiet->why = XEXIT_QUIET;
	left = jit_alloc(t->j, sizeof(*left));
	*left = code_entries(t->c->code, t->b);
	emit_rm_data(e, E_W | OP_LEA, T0, left);
	emit_rm(e, OP_GRP1_IMM8, GRP1_SUB, op_mem(T0, 0));
	emit1(e, 1);
	translate_late(t, LATE_EXIT, emit_jump(e, 2, NULL), NULL, quiet); /* jb */
}

/* On trial: counts the execution, and leaves at the last. Changes no flags. */
static void emit_trial(struct xlate *t)
{
	struct xblock *x = t->x;
	struct emit *e = &t->e;
	u8 *last, *on;

	emit_mov(e, T1, R_CX);
	emit_rm_data(e, OP_MOV_R_RM, R_CX, &x->left);
	emit_rm(e, OP_LEA, R_CX, op_mem(R_CX, -1));
	emit_rm_data(e, OP_MOV_RM_R, R_CX, &x->left);
	last = emit_jrcxz(e);
	on = emit_jump(e, CC_JMP, NULL);
	emit_land8(e, last);
	emit_mov(e, R_CX, T1);
	translate_late(t, LATE_EXIT, emit_jump(e, CC_JMP, NULL), NULL, x->again);
	emit_land(e, on);
	emit_mov(e, R_CX, T1);
}

/* This translation is on trial: of so many runs, of so many iterations each. */
static void begin_trial(struct xlate *t, unsigned iterations)
{
	struct xblock *x = t->x;

	x->left = t->j->trial_runs;
	x->trial_misses = t->j->trial_runs * iterations / TRIAL_MISSES;
	x->again = jit_alloc(t->j, sizeof(*x->again));
	x->again->from = x;
	x->again->rip = x->rip;
	x->again->why = XEXIT_AGAIN;
}

/* Does it access memory in a way that may go through windows, or call by address? */
static bool has_accesses(const struct xlate *t)
{
	for (unsigned k = 0; k < t->n; k++)
		if (t->in[k].acc || t->in[k].sp_delta || t->in[k].kind == XK_CALL ||
		    t->in[k].kind == XK_RET || t->in[k].kind == XK_CALL_IND)
			return true;
	return false;
}

/* The ways into a translation for any address. Out of line. */
static void emit_entries(struct xlate *t)
{
	struct xblock *x = t->x;
	struct emit *e = &t->e;

	x->pic->by_key_a = emit_rx(e);
	t->fl = (struct xflstate){ .host = true };
	xflags_save(t);
	emit_load_cpu(e, T0, jit_to);
	x->pic->by_key = emit_rx(e);
	emit_rm(e, E_W | 0xc1, 7, op_reg(T0)); /* sar: bit 47 of the address is the key's sign */
	emit1(e, TLB_KEY_PFN_BITS);
	emit_rm(e, E_W | 0xc1, 4, op_reg(T0)); /* shl */
	emit1(e, 12);
	emit_store_cpu(e, T0, jit_page);
	emit_jump(e, CC_JMP, x->entry_b);
	emit_align(e, 1, 4);
	x->pic->by_address = emit_rx(e);
	x->pic->jump = emit_jump(e, CC_JMP, NULL);
	emit_land(e, x->pic->jump);
	emit_alu_imm(e, GRP1_AND, T0, -4096);
	emit_store_cpu(e, T0, jit_page);
	emit_jump(e, CC_JMP, x->entry_b);
}

struct xblock *translate_block(struct soft_cpu *c, struct block *b, gva_t rip, bool pic)
{
	struct jit *j = c->jit;
	struct xlate *t = j->xlate;
	struct xblock *x;
	enum first_flags first;
	unsigned windows = 0;
	bool loop, trial;

	soft_zero(t, offsetof(struct xlate, late));
	t->nr_late = 0;
	t->c = c;
	t->j = j;
	t->b = b;
	t->n = b->n;
	t->at = rip;
	t->half = rip >> 63;
	t->word = b->key & KEY_FLAT ? 4 : 8;
	t->w = t->word == 8 ? E_W : 0;
	t->e = (struct emit){ .p = j->rw + j->use.at * JIT_CODE + j->regions[j->use.at].code_used,
			      .rx_off = j->rx - j->rw };
	classify(t);
	if (t->in[0].kind == XK_BAIL)
		return NULL;
	t->x = x = jit_alloc(j, sizeof(*x));
	x->pic = pic ? jit_alloc(j, sizeof(*x->pic)) : NULL;
	x->rip = pic ? rip & (RAM_PAGE_SIZE - 1) : rip;
	x->block = b;
	x->hva = b->hva;
	x->mode = b->key & (KEY_MODE | KEY_FLAT);
	x->code = emit_rx(&t->e);

	loop = !code_checks(b) && xloop_plan(t);
	trial = j->trials && !t->half && !b->tried && !code_checks(b) && has_accesses(t);
	first = code_checks(b) ? FIRST_SAVED : first_flags(t);
	/* These may leave before anything is done, and an interrupt comes there. */
	if (first == FIRST_ANY && (loop || trial))
		first = FIRST_SAVED;
	if (first == FIRST_HOST) {
		x->entry_b = emit_rx(&t->e);
		t->fl.saved = true;
		xflags_need(t);
		x->entry_a = emit_rx(&t->e);
		t->fl = (struct xflstate){ .host = true };
	} else {
		x->entry_a = emit_rx(&t->e);
		t->fl.host = true;
		if (first == FIRST_SAVED)
			xflags_save(t);
		x->entry_b = emit_rx(&t->e);
		t->fl = (struct xflstate){ .saved = true };
	}
	x->left = j->trial_later << b->trials;
	if (code_crosses(b))
		emit_crossing_check(t);
	else if (code_checks(b))
		emit_self_check(t);
	if (trial)
		begin_trial(t, loop ? t->lp.unroll : 1);
	b->loop = loop;
	if (loop) {
		xloop_translate(t);
	} else {
		if (x->again)
			emit_trial(t);
		for (t->k = 0; t->k < t->n; t->k++)
			translate_insn(t, &t->in[t->k]);
		translate_end(t);
	}
	for (unsigned k = 0; k < t->nr_late; k++)
		windows += t->late[k].what == LATE_WINDOW;
	if (t->has_rest)
		windows += 3 * t->n;
	x->windows = jit_alloc(j, windows * sizeof(*x->windows));
	for (unsigned k = 0; k < t->nr_late; k++)
		emit_late(t, &t->late[k]);
	if (pic)
		emit_entries(t);
	if (t->no_room)
		return NULL;
	x->code_end = emit_rx(&t->e);
	x->faults = jit_alloc(j, x->nr_faults * sizeof(*x->faults));
	if (x->nr_faults)
		soft_copy(x->faults, t->faults, x->nr_faults * sizeof(*x->faults));
	j->regions[j->use.at].code_used = (u32)(ALIGN_UP((u64)(t->e.p - j->rw), 16) - j->use.at * JIT_CODE);
	j->nr_translated++;
	j->nr_insns += t->n;
	return x;
}
