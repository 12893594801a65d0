/* Segment registers: descriptors in memory, the checks of a load, limit checks, stacks.
 *
 * After [SDM3 3.4, 3.5, 5.1-5.8] and the pseudo code of MOV, POP and LDS in [SDM2]. A segment's hidden
 * part is struct x86_segreg; a null selector is marked SA_UNUSABLE. In real-address mode a load changes
 * selector and base only, limit and size stay as protected mode left them ("unreal" mode); virtual-8086
 * mode resets them to 64 KiB.
 *
 * Descriptor tables and TSS are read with supervisor rights (mmu_sys_*). The accessed bit is set by a
 * locked OR of the type byte, before anything architectural changes, because that write may fault.
 *
 * Null selectors clear the base of FS and GS, as Intel's processors do. Alignment checks are the memory
 * access's business. Threads: the vCPU's own.
 */
#include "cpu/soft/seg.h"

/* Linear address of a selector's descriptor, or false when last bytes of it are beyond the limit. */
static bool table_la(const struct soft_cpu *c, u16 sel, unsigned size, gva_t *ret_la)
{
	unsigned off = sel & 0xfff8u;

	if (sel & 4) {
		if (c->ldtr.attr & SA_UNUSABLE || off + size - 1 > c->ldtr.limit)
			return false;
		*ret_la = seg_la(c, c->ldtr.base + off);
	} else {
		if (off + size - 1 > c->gdtr.limit)
			return false;
		*ret_la = seg_la(c, c->gdtr.base + off);
	}
	return true;
}

bool seg_desc_read(struct soft_cpu *c, const struct insn *i, u16 sel, u64 *ret_desc)
{
	gva_t la;

	if (!table_la(c, sel, 8, &la))
		return false;
	*ret_desc = mmu_sys_load(c, i, la, 8);
	return true;
}

bool seg_desc_read_hi(struct soft_cpu *c, const struct insn *i, u16 sel, u64 *ret_hi)
{
	gva_t la;

	if (!table_la(c, sel, 16, &la))
		return false;
	*ret_hi = mmu_sys_load(c, i, la + 8, 8);
	return true;
}

bool seg_descriptor(struct soft_cpu *c, const struct insn *i, u16 sel, u64 *ret_lo, u64 *ret_hi)
{
	u64 lo;

	if (!seg_desc_read(c, i, sel, &lo))
		return false;
	*ret_hi = 0;
	if (soft_long(c) && !desc_is_user(lo) && !seg_desc_read_hi(c, i, sel, ret_hi))
		return false;
	*ret_lo = lo;
	return true;
}

/* The host address of the byte at la, writable, if the table for supervisor accesses has it. */
static u8 *host_byte(struct soft_cpu *c, const struct insn *i, gva_t la)
{
	const struct tlb_table *t;
	const struct tlb_entry *e;

	mmu_sys_probe(c, i, la, 1, ACC_R | ACC_W);
	t = la >> 63 ? &c->upper[TLB_SUP] : &c->asid->half[TLB_SUP];
	e = &t->e[la >> 12 & (TLB_SIZE - 1)];
	return e->w == (la & ~0xfffull) && !c->log ? (u8 *)(la + e->addend) : NULL;
}

void seg_desc_set_type(struct soft_cpu *c, const struct insn *i, u16 sel, u8 bits)
{
	gva_t la;
	u8 *p;

	if (!table_la(c, sel, 8, &la))
		return;
	la = seg_la(c, la + 5);
	p = host_byte(c, i, la);
	if (p)
		__atomic_fetch_or(p, bits, __ATOMIC_SEQ_CST);
	else
		mmu_sys_store(c, i, la, 1, mmu_sys_load(c, i, la, 1) | bits);
}

void seg_desc_clear_type(struct soft_cpu *c, const struct insn *i, u16 sel, u8 bits)
{
	gva_t la;
	u8 *p;

	if (!table_la(c, sel, 8, &la))
		return;
	la = seg_la(c, la + 5);
	p = host_byte(c, i, la);
	if (p)
		__atomic_fetch_and(p, (u8)~bits, __ATOMIC_SEQ_CST);
	else
		mmu_sys_store(c, i, la, 1, mmu_sys_load(c, i, la, 1) & (u8)~bits);
}

void seg_desc_accessed(struct soft_cpu *c, const struct insn *i, u16 sel, u64 *desc)
{
	if (*desc & BIT(40))
		return;
	seg_desc_set_type(c, i, sel, 1);
	*desc |= BIT(40);
}

void seg_cache(struct x86_segreg *s, u16 sel, u64 desc)
{
	s->sel = sel;
	s->attr = desc >> 40 & 0xf0ff;
	s->limit = desc_limit(desc);
	s->base = desc_base(desc);
}

void seg_cache_null(struct x86_segreg *s, u16 sel)
{
	s->sel = sel;
	s->attr = SA_UNUSABLE;
	s->limit = 0;
	s->base = 0;
}

void seg_set_cs(struct soft_cpu *c, u16 sel, u64 desc, unsigned cpl)
{
	seg_cache(&c->seg[SEG_CS], (u16)((sel & 0xfffc) | cpl), desc);
	c->cpl = (u8)cpl;
}

void seg_check_rip(struct soft_cpu *c, const struct insn *i, u64 desc, u64 rip, s64 err)
{
	if (soft_long(c) && desc_l(desc) ? !seg_canonical(rip) : rip > desc_limit(desc))
		soft_gp(c, i, err);
}

void seg_set_real(struct soft_cpu *c, unsigned seg, u16 sel)
{
	struct x86_segreg *s = &c->seg[seg];

	s->sel = sel;
	s->base = (u32)sel << 4;
	if (soft_vm86(c)) {
		s->attr = 0xf3;
		s->limit = 0xffff;
		return;
	}
	if (s->attr & SA_UNUSABLE)
		s->limit = 0xffff;
	s->attr = (s->attr & (SA_DB | SA_G)) | (seg == SEG_CS ? 0x9b : 0x93);
}

static void load_ss(struct soft_cpu *c, const struct insn *i, u16 sel)
{
	s64 err = seg_err(c, sel);
	unsigned rpl = sel & 3;
	u64 d;

	if (seg_is_null(sel)) {
		if (!soft_mode64(c) || c->cpl == 3 || rpl != c->cpl)
			soft_gp(c, i, seg_err(c, 0));
		seg_cache_null(&c->seg[SEG_SS], sel);
		c->seg[SEG_SS].attr |= (u32)c->cpl << SA_DPL_SHIFT;
		return;
	}
	if (!seg_desc_read(c, i, sel, &d) || rpl != c->cpl || !desc_is_writable(d) || desc_dpl(d) != c->cpl)
		soft_gp(c, i, err);
	if (!desc_present(d))
		soft_raise(c, i, EXC_SS, err);
	seg_desc_accessed(c, i, sel, &d);
	seg_cache(&c->seg[SEG_SS], sel, d);
}

void seg_load(struct soft_cpu *c, const struct insn *i, unsigned seg, u16 sel)
{
	s64 err = seg_err(c, sel);
	u64 d;

	if (soft_real_or_vm86(c)) {
		seg_set_real(c, seg, sel);
	} else if (seg == SEG_SS) {
		load_ss(c, i, sel);
	} else if (seg_is_null(sel)) {
		seg_cache_null(&c->seg[seg], sel);
	} else {
		if (!seg_desc_read(c, i, sel, &d) || !desc_is_readable(d))
			soft_gp(c, i, err);
		if (!(desc_is_code(d) && desc_is_conforming(d)) &&
		    ((sel & 3u) > desc_dpl(d) || c->cpl > desc_dpl(d)))
			soft_gp(c, i, err);
		if (!desc_present(d))
			soft_raise(c, i, EXC_NP, err);
		seg_desc_accessed(c, i, sel, &d);
		seg_cache(&c->seg[seg], sel, d);
	}
	if (seg == SEG_SS)
		soft_mode_changed(c);
	else
		soft_data_changed(c);
}

/* --- limits --- */

bool seg_range_ok(const struct soft_cpu *c, const struct x86_segreg *s, u64 off, unsigned size, unsigned acc)
{
	u64 last = off + size - 1;
	u32 type = s->attr & SA_TYPE;

	if (!soft_real(c)) {
		if (s->attr & SA_UNUSABLE)
			return false;
		if (type & 8) {
			if (acc & ACC_W || (acc & ACC_R && !(type & 2)))
				return false;
		} else if (acc & ACC_W && !(type & 2)) {
			return false;
		}
	}
	if ((type & 0xc) == 4) /* expand-down data */
		return off > s->limit && last <= (s->attr & SA_DB ? 0xffffffffull : 0xffffull);
	/* Behind 4 GiB there may be an exception or not [SDM3 5.3]: on Intel's processors it goes on at 0. */
	return last <= s->limit || (s->limit == 0xffffffff && !c->amd);
}

gva_t seg_linear(struct soft_cpu *c, const struct insn *i, unsigned seg, u64 off, unsigned size, unsigned acc)
{
	const struct x86_segreg *s = &c->seg[seg];

	if (soft_mode64(c))
		return seg == SEG_FS || seg == SEG_GS ? off + s->base : off;
	if (unlikely(!seg_range_ok(c, s, off, size, acc)))
		soft_raise(c, i, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
	return (u32)(s->base + off);
}

/* --- stacks --- */

static gva_t stack_la(struct soft_cpu *c, const struct insn *i, s64 delta, unsigned size, unsigned acc)
{
	u64 off = (c->gpr[R_SP] + (u64)delta) & soft_sp_mask(c);

	return soft_mode64(c) ? off : seg_linear(c, i, SEG_SS, off, size, acc);
}

u64 seg_stack_load(struct soft_cpu *c, const struct insn *i, s64 delta, unsigned size)
{
	gva_t la = stack_la(c, i, delta, size, ACC_R);

	switch (size) {
	case 2: return ld16_la(c, i, la);
	case 4: return ld32_la(c, i, la);
	default: return ld64_la(c, i, la);
	}
}

void seg_stack_store(struct soft_cpu *c, const struct insn *i, s64 delta, unsigned size, u64 val)
{
	gva_t la = stack_la(c, i, delta, size, ACC_W);

	switch (size) {
	case 2: st16_la(c, i, la, (u16)val); break;
	case 4: st32_la(c, i, la, (u32)val); break;
	default: st64_la(c, i, la, val); break;
	}
}

void seg_stack_current(const struct soft_cpu *c, struct seg_stack *st)
{
	st->ss = c->seg[SEG_SS];
	st->sp = c->gpr[R_SP];
	st->mask = soft_sp_mask(c);
	st->flat = soft_mode64(c);
	st->sys = false;
}

/* [SDM2 CALL, INT n: inter-privilege] */
void seg_stack_inner(struct soft_cpu *c, const struct insn *i, unsigned dpl, unsigned ext,
		     struct seg_stack *st)
{
	bool tss32 = c->tr.attr & 8;
	unsigned off = tss32 ? dpl * 8 + 4 : dpl * 4 + 2;
	gva_t la = c->tr.base + off;
	s64 err;
	u16 sel;
	u64 d;

	if (off + (tss32 ? 5 : 3) > c->tr.limit)
		soft_raise(c, i, EXC_TS, (c->tr.sel & 0xfffc) | ext);
	if (tss32) {
		st->sp = mmu_sys_load(c, i, seg_la(c, la), 4);
		sel = (u16)mmu_sys_load(c, i, seg_la(c, la + 4), 2);
	} else {
		st->sp = mmu_sys_load(c, i, seg_la(c, la), 2);
		sel = (u16)mmu_sys_load(c, i, seg_la(c, la + 2), 2);
	}
	if (seg_is_null(sel))
		soft_raise(c, i, EXC_TS, ext);
	err = (sel & 0xfffc) | ext;
	if (!seg_desc_read(c, i, sel, &d) || (sel & 3u) != dpl || desc_dpl(d) != dpl || !desc_is_writable(d))
		soft_raise(c, i, EXC_TS, err);
	if (!desc_present(d))
		soft_raise(c, i, EXC_SS, err);
	seg_desc_accessed(c, i, sel, &d);
	seg_cache(&st->ss, sel, d);
	st->mask = desc_db(d) ? 0xffffffffull : 0xffffull;
	st->flat = false;
	st->sys = true;
}

u64 seg_stack_tss64(struct soft_cpu *c, const struct insn *i, unsigned n, unsigned ext)
{
	unsigned off = n < 3 ? n * 8 + 4 : (n - 3) * 8 + 36;
	u64 rsp;

	if (off + 7 > c->tr.limit)
		soft_raise(c, i, EXC_TS, (c->tr.sel & 0xfffc) | ext);
	rsp = mmu_sys_load(c, i, c->tr.base + off, 8);
	if (!seg_canonical(rsp))
		soft_raise(c, i, EXC_SS, ext);
	return rsp;
}

static gva_t frame_la(struct soft_cpu *c, const struct insn *i, const struct seg_stack *st, u64 off,
		      unsigned size, s64 err)
{
	if (st->flat) {
		if (!seg_canonical(off) || !seg_canonical(off + size - 1))
			soft_raise(c, i, EXC_SS, err);
		return off;
	}
	if (!seg_range_ok(c, &st->ss, off, size, ACC_W))
		soft_raise(c, i, EXC_SS, err);
	return (u32)(st->ss.base + off);
}

static void frame_probe(struct soft_cpu *c, const struct insn *i, const struct seg_stack *st, gva_t la,
			unsigned len)
{
	if (st->sys)
		mmu_sys_probe(c, i, la, len, ACC_W);
	else
		mmu_probe(c, i, la, len, ACC_W);
}

static void frame_store(struct soft_cpu *c, const struct insn *i, const struct seg_stack *st, gva_t la,
			unsigned size, u64 val)
{
	if (st->sys)
		mmu_sys_store(c, i, la, size, val);
	else if (size == 8)
		st64_la(c, i, la, val);
	else if (size == 4)
		st32_la(c, i, la, (u32)val);
	else
		st16_la(c, i, la, (u16)val);
}

void seg_stack_push(struct soft_cpu *c, const struct insn *i, struct seg_stack *st, const u64 *val,
		    unsigned n, unsigned size, s64 err)
{
	u64 top = st->sp & st->mask;
	unsigned len = n * size, k;

	if (top >= len) {
		frame_probe(c, i, st, frame_la(c, i, st, top - len, len, err), len);
	} else {
		for (k = 1; k <= n; k++)
			frame_probe(c, i, st, frame_la(c, i, st, (top - k * size) & st->mask, size, err),
				    size);
	}
	for (k = 1; k <= n; k++) {
		u64 off = (top - k * size) & st->mask;

		frame_store(c, i, st, st->flat ? off : (u32)(st->ss.base + off), size, val[k - 1]);
	}
	st->sp = (st->sp & ~st->mask) | ((top - len) & st->mask);
}
