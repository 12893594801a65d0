/* IRET in all modes [SDM2 IRET; SDM3 6.12.1, 6.14.3, 7.3, 20.2].
 *
 * Everything is popped and checked before anything changes. NMIs are unblocked first, as on hardware,
 * where that holds even for an IRET that faults [SDM3 6.7.1, 25.3]. In 64-bit mode SS:RSP is always
 * popped, at the same level too.
 */
#include "cpu/soft/seg.h"

/* Flags that IRET loads [SDM2 IRET], for code at cpl. RF is loaded, so that the next instruction is not
 * stopped by a code breakpoint again. */
static u64 flags_mask(const struct soft_cpu *c, unsigned size)
{
	u64 mask = FL_ARITH | FL_TF | FL_DF | FL_NT;

	if (size > 2)
		mask |= FL_RF | FL_AC | FL_ID;
	if (c->cpl <= soft_iopl(c))
		mask |= FL_IF;
	if (c->cpl == 0) {
		mask |= FL_IOPL;
		if (size > 2)
			mask |= FL_VIF | FL_VIP;
	}
	return mask;
}

static u64 merge(const struct soft_cpu *c, u64 flags, u64 mask)
{
	return (soft_get_flags(c) & ~mask) | (flags & mask) | FL_RES1;
}

static void iret_real(struct soft_cpu *c, const struct insn *i)
{
	unsigned size = i->osz;
	u64 rip = seg_stack_load(c, i, 0, size);
	u16 sel = (u16)seg_stack_load(c, i, size, size);
	u64 flags = seg_stack_load(c, i, 2 * size, size);
	u64 mask = FL_ARITH | FL_TF | FL_IF | FL_DF | FL_NT;

	if (soft_vm86(c) && soft_iopl(c) < 3)
		soft_gp(c, i, 0);
	if (rip > c->seg[SEG_CS].limit)
		soft_gp(c, i, 0);
	if (!soft_vm86(c))
		mask |= FL_IOPL;
	if (size > 2)
		mask |= FL_RF | FL_AC | FL_ID;

	soft_set_sp(c, c->gpr[R_SP] + 3 * size);
	seg_set_real(c, SEG_CS, sel);
	c->rip = rip;
	soft_set_flags(c, merge(c, flags, mask));
	soft_mode_changed(c);
}

/* From CPL 0 in protected mode to virtual-8086 mode: the frame goes on with ESP, SS, ES, DS, FS, GS. */
static void iret_vm86(struct soft_cpu *c, const struct insn *i, u64 rip, u16 cs, u64 flags)
{
	u64 esp = seg_stack_load(c, i, 12, 4);
	static const u8 order[] = { SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	u16 sel[ARRAY_SIZE(order)];
	unsigned k;

	for (k = 0; k < ARRAY_SIZE(order); k++)
		sel[k] = (u16)seg_stack_load(c, i, 16 + 4 * k, 4);
	if (rip > 0xffff)
		soft_gp(c, i, 0);

	c->cpl = 3;
	soft_set_flags(c, (flags & (FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_VM |
				    FL_AC | FL_VIF | FL_VIP | FL_ID)) |
				  FL_RES1);
	seg_set_real(c, SEG_CS, cs);
	for (k = 0; k < ARRAY_SIZE(order); k++)
		seg_set_real(c, order[k], sel[k]);
	c->gpr[R_SP] = esp;
	c->rip = rip;
	soft_mode_changed(c);
}

/* NT: back to the task that CALLed or was interrupted. */
static void iret_task(struct soft_cpu *c, const struct insn *i)
{
	u16 sel;

	if (soft_long(c))
		soft_gp(c, i, 0);
	sel = (u16)mmu_sys_load(c, i, seg_la(c, c->tr.base), 2);
	seg_task_switch(c, i, sel, TASK_IRET, NO_ERROR, soft_next_rip(c, i));
}

void seg_iret(struct soft_cpu *c, const struct insn *i)
{
	unsigned size = i->osz, rpl;
	bool outer, null = false;
	u64 rip, flags, mask, d, ss_desc = 0, sp = 0;
	u16 cs, ss = 0;

	soft_unblock_nmi(c);
	if (soft_real_or_vm86(c)) {
		iret_real(c, i);
		return;
	}
	if (c->flags & FL_NT) {
		iret_task(c, i);
		return;
	}

	rip = seg_stack_load(c, i, 0, size);
	cs = (u16)seg_stack_load(c, i, size, size);
	flags = seg_stack_load(c, i, 2 * size, size);
	if (flags & FL_VM && size == 4 && c->cpl == 0 && !soft_long(c)) {
		iret_vm86(c, i, rip, cs, flags);
		return;
	}

	seg_far_check_return(c, i, cs, &d);
	rpl = cs & 3;
	outer = rpl > c->cpl;
	if (outer || soft_mode64(c)) {
		sp = seg_stack_load(c, i, 3 * size, size);
		ss = (u16)seg_stack_load(c, i, 4 * size, size);
		seg_far_check_return_ss(c, i, ss, d, rpl, &ss_desc, &null);
	}
	seg_check_rip(c, i, d, rip, 0);
	seg_desc_accessed(c, i, cs, &d);
	mask = flags_mask(c, size);

	if (outer || soft_mode64(c)) {
		if (null) {
			seg_cache_null(&c->seg[SEG_SS], ss);
			c->seg[SEG_SS].attr |= rpl << SA_DPL_SHIFT;
		} else {
			seg_desc_accessed(c, i, ss, &ss_desc);
			seg_cache(&c->seg[SEG_SS], ss, ss_desc);
		}
		seg_set_cs(c, cs, d, rpl);
		c->rip = rip;
		soft_set_flags(c, merge(c, flags, mask));
		soft_mode_changed(c);
		soft_set_sp(c, sp);
		if (outer)
			seg_far_drop_data(c);
		return;
	}
	soft_set_sp(c, c->gpr[R_SP] + 3 * size);
	seg_set_cs(c, cs, d, rpl);
	c->rip = rip;
	soft_set_flags(c, merge(c, flags, mask));
	soft_mode_changed(c);
}
