/* Task switch [SDM3 7.2, 7.3].
 *
 * All checks of the TSS descriptor and all page faults of both TSSs come first: until then the fault
 * belongs to the old task. Then the old task is saved and everything of the new one is loaded at once;
 * what is wrong with its selectors is a fault of the new task, at its first instruction, with the
 * segment registers that were not reached yet unusable.
 *
 * The old TSS must be long enough for what is saved there; hardware documentation does not say what happens
 * otherwise, here it is #TS of the old TSS.
 */
#include "cpu/soft/seg.h"

#define DR6_BT    BIT(15)
#define DR7_LOCAL 0x155u /* L0-L3, LE */

/* Where things are in a TSS of either size. */
struct tss_layout {
	u8 width; /* of a register */
	u8 ip, flags, gpr, seg, nr_seg, ldt;
	u8 end;   /* of what is saved */
	u8 limit; /* least limit */
};
static const struct tss_layout layout16 = { 2, 0x0e, 0x10, 0x12, 0x22, 4, 0x2a, 0x2a, 0x2b };
static const struct tss_layout layout32 = { 4, 0x20, 0x24, 0x28, 0x48, 6, 0x60, 0x60, 0x67 };

struct task {
	u64 ip, flags, cr3, gpr[8];
	u16 seg[X86_NR_SEG], ldt;
	bool trap;
};

static const struct tss_layout *layout_of(unsigned type)
{
	return type & 8 ? &layout32 : &layout16;
}

static void save_old(struct soft_cpu *c, const struct insn *i, const struct tss_layout *l, u64 flags, u64 rip)
{
	gva_t base = c->tr.base;
	unsigned w = l->width, k;

	mmu_sys_store(c, i, seg_la(c, base + l->ip), w, rip);
	mmu_sys_store(c, i, seg_la(c, base + l->flags), w, flags);
	for (k = 0; k < 8; k++)
		mmu_sys_store(c, i, seg_la(c, base + l->gpr + k * w), w, c->gpr[k]);
	for (k = 0; k < l->nr_seg; k++)
		mmu_sys_store(c, i, seg_la(c, base + l->seg + k * w), 2, c->seg[k].sel);
}

static void read_new(struct soft_cpu *c, const struct insn *i, const struct tss_layout *l, gva_t base,
		     struct task *t)
{
	unsigned w = l->width, k;

	t->ip = mmu_sys_load(c, i, seg_la(c, base + l->ip), w);
	t->flags = mmu_sys_load(c, i, seg_la(c, base + l->flags), w);
	for (k = 0; k < 8; k++)
		t->gpr[k] = mmu_sys_load(c, i, seg_la(c, base + l->gpr + k * w), w);
	for (k = 0; k < l->nr_seg; k++)
		t->seg[k] = (u16)mmu_sys_load(c, i, seg_la(c, base + l->seg + k * w), 2);
	for (; k < X86_NR_SEG; k++)
		t->seg[k] = 0;
	t->ldt = (u16)mmu_sys_load(c, i, seg_la(c, base + l->ldt), 2);
	t->cr3 = c->cr3;
	t->trap = false;
	if (l == &layout32) {
		t->cr3 = mmu_sys_load(c, i, seg_la(c, base + 0x1c), 4);
		t->trap = mmu_sys_load(c, i, seg_la(c, base + 0x64), 2) & 1;
	}
}

/* The new task's LDT, CS, SS and data segments; its registers are loaded already. */
static void load_segments(struct soft_cpu *c, const struct task *t)
{
	static const u8 data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	s64 err = seg_err(c, t->ldt);
	unsigned k;
	u64 d;
	u16 sel;

	if (!seg_is_null(t->ldt)) {
		if (t->ldt & 4 || !seg_desc_read(c, NULL, t->ldt, &d) || desc_is_user(d) ||
		    desc_type(d) != DT_LDT || !desc_present(d))
			soft_raise(c, NULL, EXC_TS, err);
		seg_cache(&c->ldtr, t->ldt, d);
	}
	if (soft_vm86(c))
		return;

	sel = t->seg[SEG_CS];
	err = seg_err(c, sel);
	if (seg_is_null(sel) || !seg_desc_read(c, NULL, sel, &d) || !desc_is_code(d) ||
	    (desc_is_conforming(d) ? desc_dpl(d) > c->cpl : desc_dpl(d) != c->cpl))
		soft_raise(c, NULL, EXC_TS, err);
	if (!desc_present(d))
		soft_raise(c, NULL, EXC_NP, err);
	seg_desc_accessed(c, NULL, sel, &d);
	seg_set_cs(c, sel, d, c->cpl);
	soft_mode_changed(c);

	sel = t->seg[SEG_SS];
	err = seg_err(c, sel);
	if (seg_is_null(sel) || !seg_desc_read(c, NULL, sel, &d) || !desc_is_writable(d))
		soft_raise(c, NULL, EXC_TS, err);
	if (!desc_present(d))
		soft_raise(c, NULL, EXC_SS, err);
	if (desc_dpl(d) != c->cpl || (sel & 3u) != c->cpl)
		soft_raise(c, NULL, EXC_TS, err);
	seg_desc_accessed(c, NULL, sel, &d);
	seg_cache(&c->seg[SEG_SS], sel, d);
	soft_mode_changed(c);

	for (k = 0; k < ARRAY_SIZE(data); k++) {
		sel = t->seg[data[k]];
		err = seg_err(c, sel);
		if (seg_is_null(sel))
			continue;
		if (!seg_desc_read(c, NULL, sel, &d) || !desc_is_readable(d) ||
		    (!(desc_is_code(d) && desc_is_conforming(d)) &&
		     (desc_dpl(d) < c->cpl || desc_dpl(d) < (sel & 3u))))
			soft_raise(c, NULL, EXC_TS, err);
		if (!desc_present(d))
			soft_raise(c, NULL, EXC_NP, err);
		seg_desc_accessed(c, NULL, sel, &d);
		seg_cache(&c->seg[data[k]], sel, d);
	}
	soft_data_changed(c);
}

/* The registers of the new task. From here on faults are its own. */
static void load_new(struct soft_cpu *c, const struct tss_layout *l, const struct task *t)
{
	bool cr3_ok = true;
	unsigned k;

	c->rip = t->ip;
	for (k = 0; k < 8; k++)
		c->gpr[k] = t->gpr[k];
	for (k = 0; k < X86_NR_SEG; k++)
		seg_cache_null(&c->seg[k], t->seg[k]);
	seg_cache_null(&c->ldtr, t->ldt);
	c->cr0 |= CR0_TS;
	c->dr7 &= ~(u64)DR7_LOCAL;
	if (l == &layout32 && c->cr0 & CR0_PG && t->cr3 != c->cr3) {
		cr3_ok = !(c->cr4 & CR4_PAE) || mmu_load_pdptes(c, t->cr3);
		if (cr3_ok)
			mmu_set_cr3(c, t->cr3);
	}
	c->cpl = t->flags & FL_VM ? 3 : t->seg[SEG_CS] & 3;
	soft_set_flags(c, t->flags);
	if (soft_vm86(c))
		for (k = 0; k < X86_NR_SEG; k++)
			seg_set_real(c, k, t->seg[k]);
	soft_mode_changed(c);
	if (!cr3_ok)
		soft_gp(c, NULL, c->delivering != -1);
}

void seg_task_switch(struct soft_cpu *c, const struct insn *i, u16 sel, enum task_switch_kind kind,
		     s64 error_code, u64 next_rip)
{
	const struct tss_layout *old_l = layout_of(c->tr.attr), *new_l;
	bool nest = kind == TASK_CALL || kind == TASK_EXC;
	unsigned bad = kind == TASK_IRET ? EXC_TS : EXC_GP;
	u64 d, flags = soft_get_flags(c), t0 = vcpu_rdtsc();
	s64 err = seg_err(c, sel);
	unsigned ext = c->delivering != -1;
	struct task t;
	gva_t base;

	if (sel & 4 || seg_is_null(sel) || !seg_desc_read(c, i, sel, &d) || desc_is_user(d))
		soft_raise(c, i, bad, err);
	if ((desc_type(d) & 7) != (kind == TASK_IRET ? DT_TSS16_BUSY : DT_TSS16))
		soft_raise(c, i, bad, err);
	if (!desc_present(d))
		soft_raise(c, i, EXC_NP, err);
	new_l = layout_of(desc_type(d));
	if (desc_limit(d) < new_l->limit)
		soft_raise(c, i, EXC_TS, err);
	if (c->tr.limit + 1 < old_l->end)
		soft_raise(c, i, EXC_TS, seg_err(c, c->tr.sel));

	/* Probe all that is written below. */
	base = desc_base(d);
	mmu_sys_probe(c, i, seg_la(c, c->tr.base + old_l->ip), old_l->end - old_l->ip, ACC_R | ACC_W);
	mmu_sys_probe(c, i, seg_la(c, base), 2, ACC_R | ACC_W);
	read_new(c, i, new_l, base, &t);
	if (kind != TASK_IRET)
		mmu_sys_probe(c, i, seg_la(c, c->gdtr.base + (sel & 0xfff8u) + 5), 1, ACC_R | ACC_W);
	if (!nest)
		seg_desc_clear_type(c, i, c->tr.sel, 2);

	save_old(c, i, old_l, kind == TASK_IRET ? flags & ~FL_NT : flags, next_rip);
	if (nest)
		mmu_sys_store(c, i, seg_la(c, base), 2, c->tr.sel);
	if (kind != TASK_IRET)
		seg_desc_set_type(c, i, sel, 2);

	seg_cache(&c->tr, sel, d | 2ull << 40);
	t.flags = (t.flags & 0x3f7fd5) | FL_RES1;
	if (new_l == &layout16)
		t.flags &= 0xffff;
	if (nest)
		t.flags |= FL_NT;
	soft_account(c, EXIT_TASK_SWITCH, EXIT_NO_KEY, t0);
	load_new(c, new_l, &t);
	load_segments(c, &t);

	if (error_code != NO_ERROR) {
		struct seg_stack st;
		u64 val = (u64)error_code;

		seg_stack_current(c, &st);
		seg_stack_push(c, NULL, &st, &val, 1, new_l->width, ext);
		c->gpr[R_SP] = st.sp;
	}
	if (c->rip > c->seg[SEG_CS].limit)
		soft_gp(c, NULL, ext);
	if (t.trap) {
		c->dr6 |= DR6_BT;
		c->attention |= ATT_DB;
	}
}
