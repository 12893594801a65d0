/* Instructions on segment registers, descriptors and descriptor tables, far transfers and software
 * interrupts: operands here, the work in seg*.c and excp.c. After the pseudo code of each instruction in
 * [SDM2].
 *
 * PUSH of a segment register with 32-bit operands writes all of them, zero-extended, on AMD's processors, on Intel's 16 bits [SDM2 PUSH].
 * Threads: the vCPU's own.
 */
#include "cpu/soft/ops.h"
#include "cpu/soft/seg.h"

/* Address base + n of a memory operand's later part. */
static gva_t la_plus(const struct soft_cpu *c, gva_t la, unsigned n)
{
	return soft_mode64(c) ? la + n : (u32)(la + n);
}

static u64 load_size(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size)
{
	switch (size) {
	case 2: return ld16_la(c, i, la);
	case 4: return ld32_la(c, i, la);
	default: return ld64_la(c, i, la);
	}
}

static u16 read_rm16(struct soft_cpu *c, const struct insn *i)
{
	return i->mem ? ld16_la(c, i, insn_la(c, i, 2, ACC_R)) : (u16)c->gpr[i->rm];
}

/* A general register of osz bytes: 16 bits keep the rest, 32 bits clear it. */
static void write_gpr(struct soft_cpu *c, unsigned r, unsigned size, u64 v)
{
	if (size == 2)
		c->gpr[r] = (c->gpr[r] & ~0xffffull) | (v & 0xffff);
	else
		c->gpr[r] = size == 4 ? (u32)v : v;
}

/* Sixteen bits to memory, or the operand size to a register. */
static void write_rm16(struct soft_cpu *c, const struct insn *i, u64 v)
{
	if (i->mem)
		st16_la(c, i, insn_la(c, i, 2, ACC_W), (u16)v);
	else
		write_gpr(c, i->rm, i->osz, v);
}

static void set_zf(struct soft_cpu *c, bool zf)
{
	c->fl = (u16)((c->fl & ~(FL_ZF << 8)) | (zf ? FL_ZF << 8 : 0));
}

static void need_cpl0(struct soft_cpu *c, const struct insn *i)
{
	if (c->cpl != 0)
		soft_gp(c, i, 0);
}

/* SGDT, SIDT, SLDT, STR, SMSW under CR4.UMIP [SDM3 2.5]. */
static void check_umip(struct soft_cpu *c, const struct insn *i)
{
	if (c->cpl != 0 && c->cr4 & CR4_UMIP)
		soft_gp(c, i, 0);
}

/* Not in real-address or virtual-8086 mode. */
static void need_protected(struct soft_cpu *c, const struct insn *i)
{
	if (soft_real_or_vm86(c))
		soft_ud(c, i);
}

/* --- segment registers --- */

void op_mov_sreg_rm(struct soft_cpu *c, const struct insn *i)
{
	unsigned seg = i->modrm >> 3 & 7;

	if (seg == SEG_CS || seg >= X86_NR_SEG)
		soft_ud(c, i);
	seg_load(c, i, seg, read_rm16(c, i));
	if (seg == SEG_SS) {
		c->attention |= ATT_SHADOW | ATT_MOVSS;
		END(c, i);
	}
	NEXT(c, i);
}

void op_mov_rm_sreg(struct soft_cpu *c, const struct insn *i)
{
	unsigned seg = i->modrm >> 3 & 7;

	if (seg >= X86_NR_SEG)
		soft_ud(c, i);
	write_rm16(c, i, c->seg[seg].sel);
	NEXT(c, i);
}

void op_push_sreg(struct soft_cpu *c, const struct insn *i)
{
	unsigned size = i->osz == 4 && !c->amd ? 2 : i->osz;

	seg_stack_store(c, i, -(s64)i->osz, size, c->seg[i->aux].sel);
	soft_set_sp(c, c->gpr[R_SP] - i->osz);
	NEXT(c, i);
}

void op_pop_sreg(struct soft_cpu *c, const struct insn *i)
{
	u16 sel = (u16)seg_stack_load(c, i, 0, i->osz);
	u64 mask = soft_sp_mask(c);
	u64 sp = (c->gpr[R_SP] & ~mask) | ((c->gpr[R_SP] + i->osz) & mask);

	seg_load(c, i, i->aux, sel);
	c->gpr[R_SP] = sp;
	if (i->aux == SEG_SS) {
		c->attention |= ATT_SHADOW | ATT_MOVSS;
		END(c, i);
	}
	NEXT(c, i);
}

/* A far pointer in memory: offset of osz bytes, then the selector. */
static u64 load_far(struct soft_cpu *c, const struct insn *i, u16 *ret_sel)
{
	gva_t la = insn_la(c, i, i->osz + 2u, ACC_R);
	u64 off = load_size(c, i, la, i->osz);

	*ret_sel = ld16_la(c, i, la_plus(c, la, i->osz));
	return off;
}

void op_lxs(struct soft_cpu *c, const struct insn *i)
{
	u16 sel;
	u64 off = load_far(c, i, &sel);

	seg_load(c, i, i->aux, sel);
	write_gpr(c, i->reg, i->osz, off);
	if (i->aux == SEG_SS)
		END(c, i);
	NEXT(c, i);
}

/* --- far transfers --- */

void op_jmp_far_imm(struct soft_cpu *c, const struct insn *i)
{
	seg_far_jmp(c, i, (u16)(i->imm >> 32), (u32)i->imm);
}

void op_call_far_imm(struct soft_cpu *c, const struct insn *i)
{
	seg_far_call(c, i, (u16)(i->imm >> 32), (u32)i->imm);
}

void op_jmp_far_mem(struct soft_cpu *c, const struct insn *i)
{
	u16 sel;
	u64 off = load_far(c, i, &sel);

	seg_far_jmp(c, i, sel, off);
}

void op_call_far_mem(struct soft_cpu *c, const struct insn *i)
{
	u16 sel;
	u64 off = load_far(c, i, &sel);

	seg_far_call(c, i, sel, off);
}

void op_retf(struct soft_cpu *c, const struct insn *i)
{
	seg_far_ret(c, i, (u16)i->imm);
}

void op_iret(struct soft_cpu *c, const struct insn *i)
{
	seg_iret(c, i);
}

/* --- software interrupts --- */

void op_int_n(struct soft_cpu *c, const struct insn *i)
{
	if (soft_vm86(c) && soft_iopl(c) < 3)
		soft_gp(c, i, 0);
	excp_deliver(c, i, (u8)i->imm, EXCP_SOFT_INT, NO_ERROR, soft_next_rip(c, i));
}

void op_int3(struct soft_cpu *c, const struct insn *i)
{
	soft_account(c, EXIT_EXCEPTION, EXC_BP, 0);
	excp_deliver(c, i, EXC_BP, EXCP_INT3_INTO, NO_ERROR, soft_next_rip(c, i));
}

void op_int1(struct soft_cpu *c, const struct insn *i)
{
	soft_account(c, EXIT_EXCEPTION, EXC_DB, 0);
	excp_deliver(c, i, EXC_DB, EXCP_INT1, NO_ERROR, soft_next_rip(c, i));
}

void op_into(struct soft_cpu *c, const struct insn *i)
{
	if (!(c->fl & 1))
		NEXT(c, i);
	soft_account(c, EXIT_EXCEPTION, EXC_OF, 0);
	excp_deliver(c, i, EXC_OF, EXCP_INT3_INTO, NO_ERROR, soft_next_rip(c, i));
}

/* --- looking at descriptors --- */

/* Descriptor types that LAR and LSL know, as bit maps [SDM2 LAR table 3-49, LSL table 3-55]. */
#define LAR_TYPES      0x1a3eu /* 1-5, 9, 11, 12 */
#define LAR_TYPES_LONG 0x1a04u /* 2, 9, 11, 12 */
#define LSL_TYPES      0x0a0eu /* 1-3, 9, 11 */
#define LSL_TYPES_LONG 0x0a04u

/* The descriptor of sel if this CPL and RPL may see it. types: system types that count. */
static bool visible(struct soft_cpu *c, const struct insn *i, u16 sel, unsigned types, u64 *ret_desc)
{
	u64 d;

	if (seg_is_null(sel) || !seg_desc_read(c, i, sel, &d))
		return false;
	if (!desc_is_user(d) && !(types >> desc_type(d) & 1))
		return false;
	*ret_desc = d;
	if (desc_is_code(d) && desc_is_conforming(d))
		return true;
	return desc_dpl(d) >= c->cpl && desc_dpl(d) >= (sel & 3u);
}

void op_lar(struct soft_cpu *c, const struct insn *i)
{
	u64 d;
	bool ok;

	need_protected(c, i);
	ok = visible(c, i, read_rm16(c, i), soft_long(c) ? LAR_TYPES_LONG : LAR_TYPES, &d);
	if (ok)
		write_gpr(c, i->reg, i->osz, d >> 32 & 0x00f0ff00);
	set_zf(c, ok);
	NEXT(c, i);
}

void op_lsl(struct soft_cpu *c, const struct insn *i)
{
	u64 d;
	bool ok;

	need_protected(c, i);
	ok = visible(c, i, read_rm16(c, i), soft_long(c) ? LSL_TYPES_LONG : LSL_TYPES, &d);
	if (ok)
		write_gpr(c, i->reg, i->osz, desc_limit(d));
	set_zf(c, ok);
	NEXT(c, i);
}

void op_verr(struct soft_cpu *c, const struct insn *i)
{
	u64 d;

	need_protected(c, i);
	set_zf(c, visible(c, i, read_rm16(c, i), 0, &d) && desc_is_readable(d));
	NEXT(c, i);
}

void op_verw(struct soft_cpu *c, const struct insn *i)
{
	u64 d;

	need_protected(c, i);
	set_zf(c, visible(c, i, read_rm16(c, i), 0, &d) && desc_is_writable(d));
	NEXT(c, i);
}

void op_arpl(struct soft_cpu *c, const struct insn *i)
{
	u16 src = (u16)c->gpr[i->reg], dst;
	gva_t la = 0;

	need_protected(c, i);
	if (i->mem) {
		/* Written only when it changes: a read-only operand may do. */
		la = insn_la(c, i, 2, ACC_R);
		dst = ld16_la(c, i, la);
	} else {
		dst = (u16)c->gpr[i->rm];
	}
	if ((dst & 3) >= (src & 3)) {
		set_zf(c, false);
		NEXT(c, i);
	}
	dst = (u16)((dst & ~3u) | (src & 3));
	if (i->mem)
		st16_la(c, i, insn_la(c, i, 2, ACC_R | ACC_W), dst);
	else
		write_gpr(c, i->rm, 2, dst);
	set_zf(c, true);
	NEXT(c, i);
}

/* --- LDTR, TR --- */

void op_sldt(struct soft_cpu *c, const struct insn *i)
{
	need_protected(c, i);
	check_umip(c, i);
	soft_account(c, EXIT_LDTR_TR, EXIT_NO_KEY, 0);
	write_rm16(c, i, c->ldtr.sel);
	NEXT(c, i);
}

void op_str(struct soft_cpu *c, const struct insn *i)
{
	need_protected(c, i);
	check_umip(c, i);
	soft_account(c, EXIT_LDTR_TR, EXIT_NO_KEY, 0);
	write_rm16(c, i, c->tr.sel);
	NEXT(c, i);
}

/* The system descriptor that LLDT and LTR load: in the GDT, of one of the types, present. */
static u64 system_desc(struct soft_cpu *c, const struct insn *i, u16 sel, unsigned types, u64 *ret_base)
{
	s64 err = seg_err(c, sel);
	u64 d, hi = 0;

	if (sel & 4 || !seg_desc_read(c, i, sel, &d) || desc_is_user(d) || !(types >> desc_type(d) & 1))
		soft_gp(c, i, err);
	if (soft_long(c) && (!seg_desc_read_hi(c, i, sel, &hi) || hi >> 40 & 0x1f))
		soft_gp(c, i, err);
	if (!desc_present(d))
		soft_raise(c, i, EXC_NP, err);
	*ret_base = desc_base(d) | hi << 32;
	if (!seg_canonical(*ret_base))
		soft_gp(c, i, err);
	return d;
}

void op_lldt(struct soft_cpu *c, const struct insn *i)
{
	u64 base, d;
	u16 sel;

	need_protected(c, i);
	need_cpl0(c, i);
	sel = read_rm16(c, i);
	if (seg_is_null(sel)) {
		seg_cache_null(&c->ldtr, sel);
	} else {
		d = system_desc(c, i, sel, 1u << DT_LDT, &base);
		seg_cache(&c->ldtr, sel, d);
		c->ldtr.base = base;
	}
	soft_account(c, EXIT_LDTR_TR, EXIT_NO_KEY, 0);
	NEXT(c, i);
}

void op_ltr(struct soft_cpu *c, const struct insn *i)
{
	u64 base, d;
	u16 sel;

	need_protected(c, i);
	need_cpl0(c, i);
	sel = read_rm16(c, i);
	if (seg_is_null(sel))
		soft_gp(c, i, 0);
	d = system_desc(c, i, sel, soft_long(c) ? 1u << DT_TSS32 : 1u << DT_TSS16 | 1u << DT_TSS32, &base);
	seg_desc_set_type(c, i, sel, 2);
	seg_cache(&c->tr, sel, d | 2ull << 40);
	c->tr.base = base;
	soft_account(c, EXIT_LDTR_TR, EXIT_NO_KEY, 0);
	NEXT(c, i);
}

/* --- GDTR, IDTR --- */

static void store_table(struct soft_cpu *c, const struct insn *i, const struct x86_dtr *t)
{
	unsigned size = soft_mode64(c) ? 8 : 4;
	gva_t la;

	check_umip(c, i);
	la = insn_la(c, i, 2 + size, ACC_W);
	mmu_probe(c, i, la, 2 + size, ACC_W);
	st16_la(c, i, la, t->limit);
	la = la_plus(c, la, 2);
	if (size == 8)
		st64_la(c, i, la, t->base);
	else
		st32_la(c, i, la, (u32)t->base);
	soft_account(c, EXIT_GDTR_IDTR, EXIT_NO_KEY, 0);
}

void op_sgdt(struct soft_cpu *c, const struct insn *i)
{
	store_table(c, i, &c->gdtr);
	NEXT(c, i);
}

void op_sidt(struct soft_cpu *c, const struct insn *i)
{
	store_table(c, i, &c->idtr);
	NEXT(c, i);
}

static void load_table(struct soft_cpu *c, const struct insn *i, struct x86_dtr *t)
{
	unsigned size = soft_mode64(c) ? 8 : 4;
	u16 limit;
	u64 base;
	gva_t la;

	need_cpl0(c, i);
	la = insn_la(c, i, 2 + size, ACC_R);
	limit = ld16_la(c, i, la);
	base = load_size(c, i, la_plus(c, la, 2), size);
	if (size == 4 && i->osz == 2)
		base &= 0xffffff;
	if (size == 8 && !seg_canonical(base))
		soft_gp(c, i, 0);
	t->limit = limit;
	t->base = base;
	soft_account(c, EXIT_GDTR_IDTR, EXIT_NO_KEY, 0);
}

void op_lgdt(struct soft_cpu *c, const struct insn *i)
{
	load_table(c, i, &c->gdtr);
	NEXT(c, i);
}

void op_lidt(struct soft_cpu *c, const struct insn *i)
{
	load_table(c, i, &c->idtr);
	NEXT(c, i);
}

void op_smsw(struct soft_cpu *c, const struct insn *i)
{
	check_umip(c, i);
	write_rm16(c, i, c->cr0);
	NEXT(c, i);
}
