/* System instructions that are frequent in kernels, and MOVS and STOS.
 *
 * Each does the frequent case, and leaves the rest to the interpreter before anything is done: another privilege,
 * something pending, operands that are not wholly in one page of RAM. What they change beside registers is what the handler of
 * the instruction changes.
 *
 * On the vCPU's thread. */
#include "cpu/soft/jit/translate.h"

/* Goes on when the comparison of a field with a constant finds them equal. */
static void emit_unless(struct xlate *t, struct opnd field, bool byte, u8 value)
{
	emit_op(&t->e, byte ? 0x80 : OP_GRP1_IMM8, GRP1_CMP, &field);
	emit1(&t->e, value);
	translate_slow(t, emit_jump(&t->e, 5, NULL)); /* jne */
}

/* TEST of a field: the interpreter when it has any of the bits (cc 5), or none (4). */
static void emit_test(struct xlate *t, struct opnd field, u32 bits, unsigned cc)
{
	emit_op(&t->e, 0xf7, 0, &field);
	emit4(&t->e, bits);
	translate_slow(t, emit_jump(&t->e, cc, NULL));
}

static void set_flags(struct xlate *t, u32 bits)
{
	emit_rm(&t->e, OP_GRP1_IMM, GRP1_OR, op_cpu(flags));
	emit4(&t->e, bits);
}

static void clear_flags(struct xlate *t, u32 bits)
{
	emit_rm(&t->e, OP_GRP1_IMM, GRP1_AND, op_cpu(flags));
	emit4(&t->e, ~bits);
}

static void xlate_cli(struct xlate *t)
{
	xflags_clobber(t);
	emit_unless(t, op_cpu(cpl), true, 0);
	clear_flags(t, FL_IF);
}

/* With nothing pending. What comes up from now on is looked at before the next jump backward at the earliest, so after
 * the instruction that follows. */
static void xlate_sti(struct xlate *t)
{
	/* At the end what follows may not be reached without looking: the interpreter makes the shadow. */
	if (t->k + 1 == t->n) {
		translate_step(t, false);
		return;
	}
	xflags_clobber(t);
	emit_unless(t, op_cpu(cpl), true, 0);
	emit_unless(t, op_cpu(attention), false, 0);
	set_flags(t, FL_IF);
}

static void xlate_cld(struct xlate *t)
{
	xflags_clobber(t);
	clear_flags(t, FL_DF);
}

static void xlate_rdtsc(struct xlate *t, const struct xinsn *x)
{
	struct emit *e = &t->e;

	xflags_before_write(t, x->wr);
	xflags_clobber(t);
	emit_test(t, op_cpu(cr4), CR4_TSD, 5);
	emit1(e, 0x0f);
	emit1(e, 0x31);
	emit_load_cpu(e, T0, vcpu);
	emit_rm(e, E_W | 0xc1, 4, op_reg(R_DX)); /* shl rdx, 32 */
	emit1(e, 32);
	emit_rm(e, E_W | OP_ADD_R_RM, R_AX, op_reg(R_DX));
	emit_rm(e, E_W | OP_ADD_R_RM, R_AX, op_mem(T0, offsetof(struct vcpu, tsc_offset)));
	emit_mov(e, R_DX, R_AX);
	emit_rm(e, E_W | 0xc1, 5, op_reg(R_DX)); /* shr */
	emit1(e, 32);
	emit_rm(e, OP_MOV_RM_R, R_AX, op_reg(R_AX));
}

static void xlate_swapgs(struct xlate *t)
{
	struct emit *e = &t->e;
	struct opnd base = op_cpu(seg[SEG_GS].base);

	xflags_clobber(t);
	emit_unless(t, op_cpu(cpl), true, 0);
	emit_op(e, E_W | OP_MOV_R_RM, T0, &base);
	emit_load_cpu(e, T1, kernel_gs_base);
	emit_store_cpu(e, T0, kernel_gs_base);
	emit_op(e, E_W | OP_MOV_RM_R, T1, &base);
	memop_forget(t);
}

/* The tables of data as mmu_select() chooses them, at CPL 0 with SMAP on. */
static void xlate_smap(struct xlate *t, bool ac)
{
	struct emit *e = &t->e;
	u32 table = (ac ? TLB_SUP_AC : TLB_SUP) * (u32)sizeof(struct tlb_table);

	xflags_clobber(t);
	emit_unless(t, op_cpu(cpl), true, 0);
	emit_test(t, op_cpu(cr4), CR4_SMAP, 4);
	if (ac)
		set_flags(t, FL_AC);
	else
		clear_flags(t, FL_AC);
	emit_load_cpu(e, T0, asid);
	emit_rm(e, E_W | OP_LEA, T0, op_mem(T0, (s32)(offsetof(struct tlb_asid, half) + table)));
	emit_store_cpu(e, T0, tlb[0]);
	emit_load_cpu(e, T0, upper);
	emit_rm(e, E_W | OP_LEA, T0, op_mem(T0, (s32)table));
	emit_store_cpu(e, T0, tlb[1]);
	emit_rm(e, 0xc7, 0, op_cpu(windows_held));
	emit4(e, ac);
	memop_forget(t);
}

/* RFLAGS without RF; where this runs VM and TF are 0. */
static void xlate_pushf(struct xlate *t)
{
	struct emit *e = &t->e;
	struct opnd o, high = op_cpu(fl);

	high.disp++;
	xflags_save(t);
	t->fl.host = false;
	emit_rm(e, E_0F | 0xb6, T0, op_cpu(fl)); /* movzx: OF */
	emit_rm(e, 0xc1, 4, op_reg(T0));         /* shl */
	emit1(e, 11);
	emit_op(e, E_0F | 0xb6, T1, &high); /* movzx: as LAHF has them */
	emit_alu_imm(e, GRP1_AND, T1, FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF);
	emit_rm(e, 0x0b, T0, op_reg(T1)); /* or */
	emit_rm(e, OP_MOV_R_RM, T1, op_cpu(flags));
	emit_alu_imm(e, GRP1_AND, T1, ~(s32)(FL_RF | FL_VM));
	emit_rm(e, 0x0b, T0, op_reg(T1));
	emit_store_cpu(e, T0, jit_target);
	t->in_t1 = NULL;
	o = memop_push(t, true);
	emit_load_cpu(e, T0, jit_target);
	emit_op(e, t->w | OP_MOV_RM_R, T0, &o);
	translate_move_sp(t, -t->word);
}

static void xlate_mov_sreg(struct xlate *t, const struct xinsn *x)
{
	unsigned dst = x_pinned(x->rm) ? x_host(x->rm) : T0;

	xflags_before_write(t, x->wr);
	emit_rm(&t->e, E_0F | 0xb7, dst, op_cpu(seg[x->i->modrm >> 3 & 7].sel)); /* movzx */
	if (dst == T0)
		emit_store_cpu(&t->e, T0, gpr[x->rm]);
}

/* --- strings --- */
/* T1 = the host's address of what RSI or RDI leads to, less that address. */
static void emit_string_probe(struct xlate *t, const struct insn *i, unsigned reg, unsigned acc)
{
	struct emit *e = &t->e;
	bool rep = i->pfx & (PFX_F2 | PFX_F3);
	struct opnd end =
		op_idx(reg, rep ? R_CX : NO_REG, (unsigned)__builtin_ctz(i->osz), rep ? -1 : i->osz - 1);

	emit_mov(e, T1, reg);
	emit_op(e, E_W | OP_LEA, T0, &end);
	translate_slow(t, memop_probe(t, acc, true));
	emit_rm(e, E_W | OP_MOV_R_RM, T1, op_mem(T1, (s32)offsetof(struct tlb_entry, addend)));
}

static void emit_zero_extend(struct xlate *t, unsigned reg)
{
	if (t->word == 4)
		emit_rm(&t->e, OP_MOV_RM_R, reg, op_reg(reg));
}

/* Forward, and what is accessed lies in a page (for MOVS two) that the TLB has. The host's instruction does it, where the guest's
 * registers are: with the addends added for as long. A count of 0 ends before it begins, which is in the page before perhaps. */
static void xlate_string(struct xlate *t, const struct xinsn *x)
{
	const struct insn *i = x->i;
	struct emit *e = &t->e;
	bool movs = i->opcode < 0xa6, rep = i->pfx & (PFX_F2 | PFX_F3);

	xflags_before_write(t, x->wr);
	xflags_clobber(t);
	emit_test(t, op_cpu(flags), FL_DF, 5);
	emit_zero_extend(t, R_DI);
	if (movs)
		emit_zero_extend(t, R_SI);
	if (rep) {
		emit_zero_extend(t, R_CX);
		emit_rm(e, E_W | OP_GRP1_IMM, GRP1_CMP, op_reg(R_CX));
		emit4(e, RAM_PAGE_SIZE / i->osz);
		translate_slow(t, emit_jump(e, 7, NULL)); /* ja */
	}
	if (movs) {
		emit_string_probe(t, i, R_SI, ACC_R);
		emit_store_cpu(e, T1, jit_target);
	}
	emit_string_probe(t, i, R_DI, ACC_W);
	if (movs)
		emit_rm(e, E_W | OP_ADD_R_RM, R_SI, op_cpu(jit_target));
	emit_rm(e, E_W | OP_ADD_R_RM, R_DI, op_reg(T1));
	if (rep)
		emit1(e, 0xf3);
	if (i->osz == 2)
		emit1(e, 0x66);
	if (i->osz == 8)
		emit1(e, 0x40 | REX_W);
	emit1(e, i->opcode);
	if (movs)
		emit_rm(e, E_W | OP_SUB_R_RM, R_SI, op_cpu(jit_target));
	emit_rm(e, E_W | OP_SUB_R_RM, R_DI, op_reg(T1));
	emit_zero_extend(t, R_DI);
	if (movs)
		emit_zero_extend(t, R_SI);
}

void xsys_translate(struct xlate *t, const struct xinsn *x)
{
	switch (x->kind) {
	case XK_CLI: xlate_cli(t); break;
	case XK_STI: xlate_sti(t); break;
	case XK_RDTSC: xlate_rdtsc(t, x); break;
	case XK_SWAPGS: xlate_swapgs(t); break;
	case XK_CLD: xlate_cld(t); break;
	case XK_CLAC: xlate_smap(t, false); break;
	case XK_STAC: xlate_smap(t, true); break;
	case XK_PUSHF: xlate_pushf(t); break;
	case XK_MOV_SREG: xlate_mov_sreg(t, x); break;
	case XK_STRING: xlate_string(t, x); break;
	}
}
