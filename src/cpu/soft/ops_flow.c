/* Near control flow: Jcc, JMP, CALL, RET, LOOP [SDM2]; PAUSE, which ends a block so that the mailbox is
 * looked at.
 *
 * A loop of PAUSEs waits for another vCPU, whose thread the host may have put off for this one: to wake
 * a thread can put it on the waker's own processor, at once. So such a loop gives the processor away now
 * and then, which is VT-x's PAUSE-loop exiting [SDM3 25.1.3], though at every CPL, and its terms: gap
 * and window.
 *
 * A target is checked before anything changes: canonical in 64-bit mode, within CS otherwise.
 * On the vCPU's thread only.
 */
#include "cpu/soft/code.h"
#include "cpu/soft/ops.h"
#include "cpu/soft/ops_int.h"

static inline u64 checked_target(struct soft_cpu *c, const struct insn *i, u64 target)
{
	if (likely(soft_mode64(c))) {
		if (unlikely(bits_sext(target, 48) != target))
			soft_gp(c, i, 0);
		return target;
	}
	target = i->osz == 2 ? (u16)target : (u32)target;
	if (unlikely(target > c->seg[SEG_CS].limit))
		soft_gp(c, i, 0);
	return target;
}

static inline u64 relative_target(struct soft_cpu *c, const struct insn *i)
{
	return checked_target(c, i, c->gpr[RIPB] + i->off + i->len + i->imm);
}

/* clang-format off */
#define JCC(cc)                                                        \
	static void jcc_##cc(struct soft_cpu *c, const struct insn *i) \
	{                                                              \
		if (!int_cond(c->fl, cc))                              \
			NEXT(c, i);                                    \
		c->rip = relative_target(c, i);                        \
		c->icount -= code_insns_from(c->cur, i + 1);           \
	}
JCC(0) JCC(1) JCC(2) JCC(3) JCC(4) JCC(5) JCC(6) JCC(7)
JCC(8) JCC(9) JCC(10) JCC(11) JCC(12) JCC(13) JCC(14) JCC(15)
const insn_fn jcc[16] = {
	jcc_0, jcc_1, jcc_2,  jcc_3,  jcc_4,  jcc_5,  jcc_6,  jcc_7,
	jcc_8, jcc_9, jcc_10, jcc_11, jcc_12, jcc_13, jcc_14, jcc_15,
};
/* clang-format on */

void int_jmp_rel(struct soft_cpu *c, const struct insn *i)
{
	c->rip = relative_target(c, i);
}

/* The stack is checked before the target, as on processors, and written after it; on Intel's before it where that is not canonical. */
static inline void call(struct soft_cpu *c, const struct insn *i, u64 target)
{
	u64 ret = soft_next_rip(c, i);

	if (likely(i->osz == 8)) {
		if (unlikely(bits_sext(target, 48) != target)) {
			if (c->amd)
				mmu_probe(c, i, c->gpr[R_SP] - 8, 8, ACC_W);
			else
				st64_la(c, i, c->gpr[R_SP] - 8, ret);
		}
		target = checked_target(c, i, target);
		st64_la(c, i, c->gpr[R_SP] - 8, ret);
		c->gpr[R_SP] -= 8;
	} else {
		target = checked_target(c, i, target);
		seg_stack_store(c, i, -(s64)i->osz, i->osz, ret);
		soft_set_sp(c, c->gpr[R_SP] - i->osz);
	}
	c->rip = target;
}

void int_call_rel(struct soft_cpu *c, const struct insn *i)
{
	call(c, i, c->gpr[RIPB] + i->off + i->len + i->imm);
}

static u64 rm_operand(struct soft_cpu *c, const struct insn *i)
{
	if (!i->mem)
		return i->osz == 8 ? c->gpr[i->rm] : i->osz == 4 ? (u32)c->gpr[i->rm] : (u16)c->gpr[i->rm];
	gva_t la = insn_la(c, i, i->osz, ACC_R);
	return i->osz == 8 ? ld64_la(c, i, la) : i->osz == 4 ? ld32_la(c, i, la) : ld16_la(c, i, la);
}

void int_jmp_rm(struct soft_cpu *c, const struct insn *i)
{
	c->rip = checked_target(c, i, rm_operand(c, i));
}

void int_call_rm(struct soft_cpu *c, const struct insn *i)
{
	call(c, i, rm_operand(c, i));
}

void int_ret(struct soft_cpu *c, const struct insn *i)
{
	u64 target = likely(i->osz == 8) ? ld64_la(c, i, c->gpr[R_SP]) : seg_stack_load(c, i, 0, i->osz);

	c->rip = checked_target(c, i, target);
	soft_set_sp(c, c->gpr[R_SP] + i->osz + i->imm);
}

void int_loop(struct soft_cpu *c, const struct insn *i)
{
	u64 mask = bits_mask(i->asz), count = c->gpr[R_CX] & mask;
	bool zf = c->fl & FL_ZF << 8, taken;

	if (i->aux == 3) {
		taken = !count;
	} else {
		count = (count - 1) & mask;
		taken = count && (i->aux == 2 || zf == (i->aux == 1));
	}
	c->rip = taken ? relative_target(c, i) : soft_next_rip(c, i);
	if (i->aux != 3)
		c->gpr[R_CX] = i->asz == 2 ? (c->gpr[R_CX] & ~mask) | count : count;
}

#define PAUSE_GAP_US    5  /* PAUSEs farther apart are no loop */
#define PAUSE_WINDOW_US 20 /* that a loop may run */

void int_pause(struct soft_cpu *c, const struct insn *i)
{
	const struct vm *vm = c->vcpu->vm;
	u64 us = vm->tsc_khz / 1000, now;

	__builtin_ia32_pause();
	if (vm->nr_vcpus > 1) {
		now = vcpu_rdtsc();
		if (now - c->pause_last > PAUSE_GAP_US * us) {
			c->pause_first = now;
		} else if (now - c->pause_first > PAUSE_WINDOW_US * us) {
			soft_out_yield(c);
			soft_account(c, EXIT_PAUSE, EXIT_NO_KEY, now);
			now = c->pause_first = vcpu_rdtsc();
		}
		c->pause_last = now;
	}
	END(c, i);
}
