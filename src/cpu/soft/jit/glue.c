/* The code between C and translated code, made once per vCPU.
 *
 *   enter       from C: the guest's registers into the host's, onto the stack for calls, to an entry B; enter_host
 *               to an entry A
 *   step_*      one instruction by its handler in C (jit_step()), and back
 *   exit_*      out to C with the record of an exit, to be linked
 *   bail_*      out to C with the place from which to interpret
 *   jump_out    out to C with the target of an indirect jump
 *   ret_miss    a RET that does not return to where the host's stack says: looks its target up
 *   dead        out to C from the address in T0, whose translation is dropped
 *
 * T0 has the record, or the target. _host: the flags are in RFLAGS; _saved: in c->fl. */
#include "cpu/soft/jit/jit.h"

static const u8 pinned[] = { R_AX, R_CX, R_DX, R_BX, R_BP, R_SI, R_DI, R_8, R_12, R_13, R_14, R_15 };
static const u8 callee_saved[] = { R_BX, R_BP, R_12, R_13, R_14, R_15 };

static void load_regs(struct emit *e)
{
	emit_rm(e, E_W | OP_MOV_R_RM, HOST_SP, op_cpu(gpr[R_SP]));
	for (unsigned k = 0; k < sizeof(pinned); k++)
		emit_rm(e, E_W | OP_MOV_R_RM, pinned[k], op_cpu(gpr[pinned[k]]));
}

static void store_regs(struct emit *e)
{
	emit_rm(e, E_W | OP_MOV_RM_R, HOST_SP, op_cpu(gpr[R_SP]));
	for (unsigned k = 0; k < sizeof(pinned); k++)
		emit_rm(e, E_W | OP_MOV_RM_R, pinned[k], op_cpu(gpr[pinned[k]]));
}

void glue_save_flags(struct emit *e)
{
	emit1(e, 0x9f); /* lahf */
	emit_rm(e, E_0F | 0x90, 0, op_reg(R_AX));
	emit_rm(e, E_66 | OP_MOV_RM_R, R_AX, op_cpu(fl));
}

static void push_pop(struct emit *e, bool push)
{
	for (unsigned k = 0; k < sizeof(callee_saved); k++) {
		unsigned r = callee_saved[push ? k : sizeof(callee_saved) - 1 - k];

		if (r & 8)
			emit1(e, 0x41);
		emit1(e, (push ? 0x50 : 0x58) | (r & 7));
	}
}

void glue_load_flags(struct emit *e)
{
	emit1(e, 0x04); /* add al, 7FH: OF if al was 1 */
	emit1(e, 0x7f);
	emit1(e, 0x9e); /* sahf */
}

/* A function of the code's address, and of the flags if it is an entry A. */
static void make_enter(struct emit *e, bool flags)
{
	push_pop(e, true);
	emit_alu_imm(e, GRP1_SUB, R_SP, 8);
	emit_store_cpu(e, R_SP, jit_c_rsp);
	emit_load_cpu(e, R_SP, jit_stack);
	emit_mov(e, T1, R_SI);
	if (flags) {
		emit_mov(e, R_AX, R_DX);
		glue_load_flags(e);
	}
	load_regs(e);
	emit_rm(e, 0xff, 4, op_reg(T1));
}

/* Back in C, with `why` as the result. */
static void leave(struct emit *e, enum jit_end why)
{
	emit_load_cpu(e, R_SP, jit_c_rsp);
	emit_alu_imm(e, GRP1_ADD, R_SP, 8);
	push_pop(e, false);
	emit_imm(e, R_AX, why);
	emit1(e, 0xc3);
}

static void leave_with_record(struct emit *e, enum jit_end why)
{
	emit_store_cpu(e, T0, jit_rec);
	leave(e, why);
}

static void make_step(struct emit *e)
{
	u8 *out;

	emit_store_cpu(e, R_SP, jit_rsp);
	emit_load_cpu(e, R_SP, jit_c_rsp);
	emit_load_cpu(e, R_DI, self);
	emit_mov(e, R_SI, T0);
	emit_imm(e, R_AX, (u64)(uintptr_t)jit_step);
	emit_rm(e, 0xff, 2, op_reg(R_AX));
	emit_rm(e, E_W | 0x85, R_AX, op_reg(R_AX));
	out = emit_jump(e, 4, NULL); /* je */
	emit_load_cpu(e, R_SP, jit_rsp);
	emit_mov(e, T0, R_AX);
	emit_rm(e, E_0F | 0xb7, R_AX, op_cpu(fl)); /* movzx eax, word */
	glue_load_flags(e);
	load_regs(e);
	emit_rm(e, 0xff, 4, op_reg(T0));
	emit_land(e, out);
	leave(e, JIT_STEP);
}

void glue_jcache_compare(struct emit *e)
{
	emit_rm(e, 0x69, T1, op_reg(T0)); /* imul T1d, T0d, imm32 */
	emit4(e, JCACHE_MUL);
	emit_rm(e, 0xc1, 5, op_reg(T1)); /* shr */
	emit1(e, 32 - JCACHE_BITS);
	emit_rm(e, 0xc1, 4, op_reg(T1)); /* shl */
	emit1(e, 5);
	emit_rm(e, E_W | OP_ADD_R_RM, T1, op_cpu(jit_jcache));
	emit_rm(e, E_W | OP_CMP_R_RM, T0, op_mem(T1, offsetof(struct jcache, rip)));
}

void glue_by_half(struct emit *e, u32 op, unsigned reg, struct opnd lower, struct opnd upper)
{
	u8 *is_upper, *both;

	emit_rm(e, E_W | 0x85, T0, op_reg(T0)); /* test */
	is_upper = emit_jump(e, 8, NULL);       /* js */
	emit_op(e, op, reg, &lower);
	both = emit_jump(e, CC_JMP, NULL);
	emit_land(e, is_upper);
	emit_op(e, op, reg, &upper);
	emit_land(e, both);
}

/* RET's way when the host's stack does not know its target: T0 -> entry B of its translation, or out. */
static void make_ret_miss(struct emit *e)
{
	u8 *out[2];

	glue_jcache_compare(e);
	out[0] = emit_jump(e, 5, NULL);
	emit_store_cpu(e, T0, jit_target);
	glue_by_half(e, E_W | OP_MOV_R_RM, T0, op_cpu(code_gen[0]), op_cpu(code_gen[1]));
	emit_rm(e, E_W | OP_CMP_R_RM, T0, op_mem(T1, offsetof(struct jcache, gen)));
	out[1] = emit_jump(e, 5, NULL);
	emit_rm(e, E_W | OP_MOV_R_RM, T0, op_mem(T1, offsetof(struct jcache, rip)));
	emit_rm(e, 0xff, 4, op_mem(T1, offsetof(struct jcache, code)));
	emit_land(e, out[0]);
	emit_store_cpu(e, T0, jit_target);
	emit_land(e, out[1]);
	store_regs(e);
	leave(e, JIT_RET);
}

/* Moves a window to the page of an access that the check did not find in it, if the TLB lets it: T1 has the linear
 * address less the window's page, T0 the size less 1. Called; returns with ZF set, the window's addend filled and the
 * linear address in T0; or with ZF clear. Keeps the rest. */
static const u8 *make_window(struct emit *e, unsigned half, unsigned n, bool write)
{
	const struct opnd r = op_cpu(window[half][n].r), w = op_cpu(window[half][n].w),
			  addend = op_cpu(window[half][n].addend);
	const struct opnd *tag = write ? &w : &r, *other = write ? &r : &w;
	s32 e_r = (s32)offsetof(struct tlb_entry, r), e_w = (s32)offsetof(struct tlb_entry, w);
	u8 *fail, *held, *same, *done;
	const u8 *start = emit_rx(e);

	emit_store_cpu(e, R_AX, jit_spill[0]);
	emit_store_cpu(e, R_CX, jit_spill[1]);
	emit_op(e, E_W | OP_ADD_R_RM, T1, tag);
	emit_rm(e, E_W | OP_LEA, R_CX, op_idx(T1, T0, 0, 0));
	emit_mov(e, T0, T1);
	emit_alu_imm(e, GRP1_AND, R_CX, -4096); /* the page of the last byte */
	emit_mov(e, R_AX, T0);
	emit_rm(e, 0xc1, 5, op_reg(R_AX)); /* shr eax, 7 */
	emit1(e, 7);
	emit_rm(e, OP_GRP1_IMM, GRP1_AND, op_reg(R_AX));
	emit4(e, (TLB_SIZE - 1) << 5);
	glue_by_half(e, E_W | OP_ADD_R_RM, R_AX, op_cpu(tlb[0]), op_cpu(tlb[1]));
	emit_rm(e, E_W | OP_CMP_R_RM, R_CX, op_mem(R_AX, write ? e_w : e_r));
	fail = emit_jump(e, 5, NULL); /* jne */
	emit_rm(e, E_W | OP_MOV_R_RM, T1, op_mem(R_AX, (s32)offsetof(struct tlb_entry, addend)));
	emit_op(e, E_W | OP_MOV_RM_R, T1, &addend);
	emit_imm(e, T1, WINDOW_NONE);
	emit_rm(e, OP_GRP1_IMM8, GRP1_CMP, op_cpu(windows_held));
	emit1(e, 0);
	held = emit_jump(e, 5, NULL);
	emit_op(e, E_W | OP_MOV_RM_R, R_CX, tag);
	emit_rm(e, E_W | OP_CMP_R_RM, R_CX, op_mem(R_AX, write ? e_r : e_w));
	same = emit_jump(e, 4, NULL); /* je */
	emit_mov(e, R_CX, T1);
	emit_land(e, same);
	emit_op(e, E_W | OP_MOV_RM_R, R_CX, other);
	emit_rm(e, E_W | 0xff, 0, op_cpu(nr_windows)); /* inc */
	done = emit_jump(e, CC_JMP, NULL);
	emit_land(e, held);
	emit_op(e, E_W | OP_MOV_RM_R, T1, tag);
	emit_op(e, E_W | OP_MOV_RM_R, T1, other);
	emit_land(e, done);
	emit_load_cpu(e, R_AX, jit_spill[0]);
	emit_load_cpu(e, R_CX, jit_spill[1]);
	emit_rm(e, E_W | OP_CMP_R_RM, T0, op_reg(T0)); /* ZF */
	emit1(e, 0xc3);
	emit_land(e, fail);
	emit_load_cpu(e, R_AX, jit_spill[0]);
	emit_load_cpu(e, R_CX, jit_spill[1]);
	emit1(e, 0xc3);
	return start;
}

static const u8 *align(struct emit *e)
{
	while ((u64)(uintptr_t)e->p & 15)
		emit1(e, 0xcc);
	return emit_rx(e);
}

void glue_make(struct jit *j)
{
	struct emit e = { .p = j->rw, .rx_off = j->rx - j->rw };
	const u8 *enter = align(&e);
	u8 *join;

	make_enter(&e, false);
	j->enter = (u64(*)(struct soft_cpu *, const u8 *))(uintptr_t)enter;
	enter = align(&e);
	make_enter(&e, true);
	j->enter_host = (u64(*)(struct soft_cpu *, const u8 *, u64))(uintptr_t)enter;

	j->step_host = align(&e);
	store_regs(&e);
	glue_save_flags(&e);
	join = emit_jump(&e, CC_JMP, NULL);
	j->step_saved = align(&e);
	store_regs(&e);
	emit_land(&e, join);
	make_step(&e);

	j->exit_host = align(&e);
	store_regs(&e);
	glue_save_flags(&e);
	leave_with_record(&e, JIT_EXIT);
	j->exit_saved = align(&e);
	store_regs(&e);
	leave_with_record(&e, JIT_EXIT);

	j->bail_host = align(&e);
	store_regs(&e);
	glue_save_flags(&e);
	leave_with_record(&e, JIT_BAIL);
	j->bail_saved = align(&e);
	store_regs(&e);
	leave_with_record(&e, JIT_BAIL);

	for (unsigned half = 0; half < 2; half++)
		for (unsigned n = 0; n < NR_WINDOWS; n++)
			for (unsigned w = 0; w < 2; w++)
				j->window[half][n][w] = make_window(&e, half, n, w);

	j->jump_out = align(&e);
	emit_store_cpu(&e, T0, jit_target);
	store_regs(&e);
	leave(&e, JIT_JUMP);

	j->dead = align(&e);
	emit_store_cpu(&e, T0, rip);
	store_regs(&e);
	emit_rm(&e, E_W | 0xc7, 0, op_cpu(jit_rec));
	emit4(&e, 0);
	leave(&e, JIT_STEP);

	/* The last entry of the stack leads here; it stays. */
	j->ret_top = align(&e);
	emit_rm(&e, E_W | OP_LEA, R_SP, op_mem(R_SP, -8));
	j->ret_miss = emit_rx(&e);
	make_ret_miss(&e);
	j->glue_used = (u32)ALIGN_UP((u64)(e.p - j->rw), 16);
}
