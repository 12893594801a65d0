/* Far JMP, CALL and RET.
 *
 * After the pseudo code of JMP, CALL and RET in [SDM2], [SDM3 5.8]. Every check comes before the first
 * architectural write, in the order of the pseudo code; the return address is pushed (all of it probed
 * first) before registers change. Task gates and TSS descriptors go on to seg_task_switch().
 *
 * Not here: shadow stacks (CET is not offered). A call gate in long mode is always a 64-bit gate and
 * copies no parameters.
 */
#include "cpu/soft/seg.h"

static bool long_code(const struct soft_cpu *c, u64 desc)
{
	return soft_long(c) && desc_l(desc);
}

/* A code segment named by the instruction itself. */
static void check_direct(struct soft_cpu *c, const struct insn *i, u16 sel, u64 d)
{
	s64 err = seg_err(c, sel);

	if (long_code(c, d) && desc_db(d))
		soft_gp(c, i, err);
	if (desc_is_conforming(d) ? desc_dpl(d) > c->cpl : (sel & 3u) > c->cpl || desc_dpl(d) != c->cpl)
		soft_gp(c, i, err);
	if (!desc_present(d))
		soft_raise(c, i, EXC_NP, err);
}

struct gate {
	u16 sel; /* of the code segment */
	u64 off;
	u64 desc;
	unsigned size; /* of what is pushed */
	unsigned params;
};

/* A call gate and the code segment it names. */
static void read_gate(struct soft_cpu *c, const struct insn *i, u16 sel, u64 lo, bool call, struct gate *g)
{
	s64 err = seg_err(c, sel);
	u64 hi, d;

	if (desc_dpl(lo) < c->cpl || desc_dpl(lo) < (sel & 3u))
		soft_gp(c, i, err);
	if (!desc_present(lo))
		soft_raise(c, i, EXC_NP, err);
	g->sel = gate_sel(lo);
	g->off = gate_off(lo);
	g->params = lo >> 32 & 0x1f;
	g->size = desc_type(lo) == DT_CALL32 ? 4 : 2;
	if (soft_long(c)) {
		if (!seg_desc_read_hi(c, i, sel, &hi) || hi >> 40 & 0x1f)
			soft_gp(c, i, err);
		g->off |= hi << 32;
		g->size = 8;
		g->params = 0;
	} else if (g->size == 2) {
		g->off &= 0xffff;
	}

	if (seg_is_null(g->sel))
		soft_gp(c, i, seg_err(c, 0));
	err = seg_err(c, g->sel);
	if (!seg_desc_read(c, i, g->sel, &d) || !desc_is_code(d) || desc_dpl(d) > c->cpl)
		soft_gp(c, i, err);
	if (!call && !desc_is_conforming(d) && desc_dpl(d) != c->cpl)
		soft_gp(c, i, err);
	if (soft_long(c) && (!desc_l(d) || desc_db(d)))
		soft_gp(c, i, err);
	if (!desc_present(d))
		soft_raise(c, i, EXC_NP, err);
	g->desc = d;
}

/* A task gate or a TSS named by JMP or CALL; does not return to the old task. */
static void far_task(struct soft_cpu *c, const struct insn *i, u16 sel, u64 d, bool call)
{
	if (desc_dpl(d) < c->cpl || desc_dpl(d) < (sel & 3u))
		soft_gp(c, i, seg_err(c, sel));
	if (desc_type(d) == DT_TASK) {
		if (!desc_present(d))
			soft_raise(c, i, EXC_NP, seg_err(c, sel));
		sel = gate_sel(d);
	}
	seg_task_switch(c, i, sel, call ? TASK_CALL : TASK_JMP, NO_ERROR, soft_next_rip(c, i));
}

/* Sorts out a system descriptor: true = a call gate, false = a task switch was made. */
static bool far_system(struct soft_cpu *c, const struct insn *i, u16 sel, u64 d, bool call)
{
	switch (desc_type(d)) {
	case DT_CALL32: return true;
	case DT_CALL16:
		if (soft_long(c))
			break;
		return true;
	case DT_TASK:
	case DT_TSS16:
	case DT_TSS32:
		if (soft_long(c))
			break;
		far_task(c, i, sel, d, call);
		return false;
	}
	soft_gp(c, i, seg_err(c, sel));
}

static u64 far_desc(struct soft_cpu *c, const struct insn *i, u16 sel)
{
	u64 d;

	if (seg_is_null(sel))
		soft_gp(c, i, 0);
	if (!seg_desc_read(c, i, sel, &d))
		soft_gp(c, i, seg_err(c, sel));
	return d;
}

void seg_far_jmp(struct soft_cpu *c, const struct insn *i, u16 sel, u64 off)
{
	u64 d;

	if (soft_real_or_vm86(c)) {
		if (off > c->seg[SEG_CS].limit)
			soft_gp(c, i, 0);
		seg_set_real(c, SEG_CS, sel);
		c->rip = off;
		return;
	}

	d = far_desc(c, i, sel);
	if (desc_is_user(d)) {
		if (!desc_is_code(d))
			soft_gp(c, i, seg_err(c, sel));
		check_direct(c, i, sel, d);
	} else {
		struct gate g;

		if (!far_system(c, i, sel, d, false))
			return;
		read_gate(c, i, sel, d, false, &g);
		sel = g.sel;
		off = g.off;
		d = g.desc;
	}
	seg_check_rip(c, i, d, off, 0);
	seg_desc_accessed(c, i, sel, &d);
	seg_set_cs(c, sel, d, c->cpl);
	c->rip = off;
	soft_mode_changed(c);
}

/* Pushes CS and the return address on the current stack. */
static void push_return(struct soft_cpu *c, const struct insn *i, unsigned size, struct seg_stack *st)
{
	u64 frame[2] = { c->seg[SEG_CS].sel, soft_next_rip(c, i) };

	seg_stack_push(c, i, st, frame, 2, size, 0);
}

/* CALL through a gate to a more privileged, non-conforming segment. */
static void call_inner(struct soft_cpu *c, const struct insn *i, const struct gate *g)
{
	unsigned dpl = desc_dpl(g->desc), n = 0, k;
	u64 frame[SEG_MAX_FRAME], d = g->desc;
	struct seg_stack st;
	s64 err;

	if (soft_long(c)) {
		st.sp = seg_stack_tss64(c, i, dpl, 0);
		st.mask = ~0ull;
		st.flat = st.sys = true;
		seg_cache_null(&st.ss, (u16)dpl);
		st.ss.attr |= dpl << SA_DPL_SHIFT;
		err = 0;
	} else {
		seg_stack_inner(c, i, dpl, 0, &st);
		err = st.ss.sel & 0xfffc;
	}
	seg_check_rip(c, i, d, g->off, 0);

	frame[n++] = c->seg[SEG_SS].sel;
	frame[n++] = c->gpr[R_SP];
	for (k = g->params; k > 0; k--)
		frame[n++] = seg_stack_load(c, i, (s64)(k - 1) * g->size, g->size);
	frame[n++] = c->seg[SEG_CS].sel;
	frame[n++] = soft_next_rip(c, i);
	seg_desc_accessed(c, i, g->sel, &d);
	seg_stack_push(c, i, &st, frame, n, g->size, err);

	c->seg[SEG_SS] = st.ss;
	c->gpr[R_SP] = st.sp;
	seg_set_cs(c, g->sel, d, dpl);
	c->rip = g->off;
	soft_mode_changed(c);
}

void seg_far_call(struct soft_cpu *c, const struct insn *i, u16 sel, u64 off)
{
	unsigned size = i->osz;
	struct seg_stack st;
	struct gate g;
	u64 d;

	seg_stack_current(c, &st);
	if (soft_real_or_vm86(c)) {
		if (off > c->seg[SEG_CS].limit)
			soft_gp(c, i, 0);
		push_return(c, i, size, &st);
		c->gpr[R_SP] = st.sp;
		seg_set_real(c, SEG_CS, sel);
		c->rip = off;
		return;
	}

	d = far_desc(c, i, sel);
	if (desc_is_user(d)) {
		if (!desc_is_code(d))
			soft_gp(c, i, seg_err(c, sel));
		check_direct(c, i, sel, d);
	} else {
		if (!far_system(c, i, sel, d, true))
			return;
		read_gate(c, i, sel, d, true, &g);
		if (!desc_is_conforming(g.desc) && desc_dpl(g.desc) < c->cpl) {
			call_inner(c, i, &g);
			return;
		}
		/* In compatibility mode the current stack has 32 bits, the frame 64. */
		sel = g.sel;
		off = g.off;
		d = g.desc;
		size = g.size;
	}
	seg_check_rip(c, i, d, off, 0);
	seg_desc_accessed(c, i, sel, &d);
	push_return(c, i, size, &st);
	c->gpr[R_SP] = st.sp;
	seg_set_cs(c, sel, d, c->cpl);
	c->rip = off;
	soft_mode_changed(c);
}

/* --- returns --- */

void seg_far_check_return(struct soft_cpu *c, const struct insn *i, u16 sel, u64 *ret_desc)
{
	s64 err = seg_err(c, sel);
	unsigned rpl = sel & 3;
	u64 d;

	if (seg_is_null(sel))
		soft_gp(c, i, 0);
	if (!seg_desc_read(c, i, sel, &d) || !desc_is_code(d))
		soft_gp(c, i, err);
	if (long_code(c, d) && desc_db(d))
		soft_gp(c, i, err);
	if (rpl < c->cpl)
		soft_gp(c, i, err);
	if (desc_is_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl)
		soft_gp(c, i, err);
	if (!desc_present(d))
		soft_raise(c, i, EXC_NP, err);
	*ret_desc = d;
}

void seg_far_check_return_ss(struct soft_cpu *c, const struct insn *i, u16 sel, u64 cs_desc, unsigned rpl,
			     u64 *ret_desc, bool *ret_null)
{
	s64 err = seg_err(c, sel);
	u64 d;

	*ret_null = false;
	*ret_desc = 0;
	if (seg_is_null(sel)) {
		if (!long_code(c, cs_desc) || rpl == 3 || (sel & 3u) != rpl)
			soft_gp(c, i, 0);
		*ret_null = true;
		return;
	}
	if (!seg_desc_read(c, i, sel, &d) || (sel & 3u) != rpl || !desc_is_writable(d) || desc_dpl(d) != rpl)
		soft_gp(c, i, err);
	if (!desc_present(d))
		soft_raise(c, i, EXC_SS, err);
	*ret_desc = d;
}

void seg_far_drop_data(struct soft_cpu *c)
{
	static const u8 data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	unsigned k;

	for (k = 0; k < ARRAY_SIZE(data); k++) {
		struct x86_segreg *s = &c->seg[data[k]];

		/* A null selector loses its RPL, FS and GS keep their base [SDM2 IRET: RETURN-TO-OUTER-
		 * PRIVILEGE-LEVEL]. */
		if (s->attr & SA_UNUSABLE)
			s->sel = 0;
		if (s->attr & SA_UNUSABLE || (s->attr & 0xc) == 0xc) /* null, or conforming code */
			continue;
		if ((s->attr & SA_DPL) >> SA_DPL_SHIFT < c->cpl) {
			s->sel = 0;
			s->attr = SA_UNUSABLE;
		}
	}
	soft_data_changed(c);
}

void seg_far_ret(struct soft_cpu *c, const struct insn *i, unsigned pop_bytes)
{
	unsigned size = i->osz, rpl;
	u64 rip = seg_stack_load(c, i, 0, size);
	u16 sel = (u16)seg_stack_load(c, i, size, size), ss;
	u64 d, ss_desc, sp;
	bool null;

	if (soft_real_or_vm86(c)) {
		if (rip > c->seg[SEG_CS].limit)
			soft_gp(c, i, 0);
		soft_set_sp(c, c->gpr[R_SP] + 2 * size + pop_bytes);
		seg_set_real(c, SEG_CS, sel);
		c->rip = rip;
		return;
	}

	seg_far_check_return(c, i, sel, &d);
	rpl = sel & 3;
	if (rpl == c->cpl) {
		seg_check_rip(c, i, d, rip, 0);
		seg_desc_accessed(c, i, sel, &d);
		soft_set_sp(c, c->gpr[R_SP] + 2 * size + pop_bytes);
		seg_set_cs(c, sel, d, rpl);
		c->rip = rip;
		soft_mode_changed(c);
		return;
	}

	sp = seg_stack_load(c, i, 2 * size + pop_bytes, size);
	ss = (u16)seg_stack_load(c, i, 3 * size + pop_bytes, size);
	seg_far_check_return_ss(c, i, ss, d, rpl, &ss_desc, &null);
	seg_check_rip(c, i, d, rip, 0);
	seg_desc_accessed(c, i, sel, &d);
	if (null) {
		seg_cache_null(&c->seg[SEG_SS], ss);
		c->seg[SEG_SS].attr |= rpl << SA_DPL_SHIFT;
	} else {
		seg_desc_accessed(c, i, ss, &ss_desc);
		seg_cache(&c->seg[SEG_SS], ss, ss_desc);
	}
	seg_set_cs(c, sel, d, rpl);
	c->rip = rip;
	soft_mode_changed(c);
	soft_set_sp(c, sp + pop_bytes);
	seg_far_drop_data(c);
}
