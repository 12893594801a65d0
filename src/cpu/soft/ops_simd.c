/* Vector instructions in C: what touches memory element by element (gathers, scatters, VMASKMOV, VPMASKMOV,
 * MASKMOVDQU, MASKMOVQ), and VZEROUPPER, VZEROALL, which mean other registers in 64-bit mode than
 * outside it [SDM2].
 *
 * They work on the state image in memory. A disabled element is not accessed at all, so its page may be
 * absent. The stores check all enabled elements first. A gather or scatter is interrupted by a fault in the
 * middle [SDM2 VGATHERDPS]: what has been done stays, and those mask elements are clear, so that the
 * instruction can begin again.
 *
 * On the vCPU's thread.
 */
#include "cpu/soft/fpu.h"
#include "cpu/soft/thunk.h"

static u64 vec_get(const struct soft_cpu *c, unsigned n, unsigned element, unsigned size)
{
	const u8 *p = fpu_vec_byte(c, n, element * size);

	return size == 8 ? ld64(p) : ld32(p);
}

static void vec_set(const struct soft_cpu *c, unsigned n, unsigned element, unsigned size, u64 v)
{
	u8 *p = fpu_vec_byte(c, n, element * size);

	if (size == 8)
		st64(p, v);
	else
		st32(p, (u32)v);
}

/* VEX instructions clear what is above their result. */
static void vec_clear_from(const struct soft_cpu *c, unsigned n, unsigned byte)
{
	for (; byte < 64; byte += 8)
		st64(fpu_vec_byte(c, n, byte), 0);
}

static void vec_in_use(struct soft_cpu *c, u64 components)
{
	st64(c->xsave + FPU_XSTATE_BV, ld64(c->xsave + FPU_XSTATE_BV) | components);
}

/* Linear address of size bytes at effective address ea (not cut yet). */
static gva_t element_la(struct soft_cpu *c, const struct insn *i, u64 ea, unsigned size, unsigned acc)
{
	if (i->flat)
		return ea + c->seg[i->seg].base;
	return seg_linear(c, i, i->seg, i->asz == 8 ? ea : i->asz == 4 ? (u32)ea : (u16)ea, size, acc);
}

/* Of size bytes inside an operand that begins at an address already cut: elements do not wrap one by one. */
static gva_t operand_la(struct soft_cpu *c, const struct insn *i, u64 ea, unsigned size, unsigned acc)
{
	return i->flat ? ea + c->seg[i->seg].base : seg_linear(c, i, i->seg, ea, size, acc);
}

static u64 load(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size)
{
	return size == 8 ? ld64_la(c, i, la) : ld32_la(c, i, la);
}

void op_simd_gather(struct soft_cpu *c, const struct insn *i)
{
	unsigned size = i->rex & REX_W ? 8 : 4, index_size = i->opcode & 1 ? 8 : 4;
	unsigned bytes = i->pfx & PFX_VEX_L ? 32 : 16, nr = bytes / (size > index_size ? size : index_size);
	/* The decoder takes index 4 for none, as it is without vectors. */
	unsigned index = i->index == RZERO ? R_SP : i->index, dst = i->reg, mask = i->vvvv;
	u64 base = c->gpr[i->base] + (u64)(s64)i->disp;

	fpu_check(c, i, FPU_CLASS_AVX);
	if (dst == index || dst == mask || index == mask || i->asz == 2)
		soft_ud(c, i);
	fpu_spill(c);
	vec_in_use(c, XFEATURE_SSE | XFEATURE_AVX);
	for (unsigned k = 0; k < nr; k++) {
		u64 idx;

		if (!(vec_get(c, mask, k, size) >> (size * 8 - 1)))
			continue;
		idx = vec_get(c, index, k, index_size);
		if (index_size == 4)
			idx = bits_sext(idx, 32);
		vec_set(c, dst, k, size,
			load(c, i, element_la(c, i, base + (idx << i->scale), size, ACC_R), size));
		vec_set(c, mask, k, size, 0);
	}
	vec_clear_from(c, dst, nr * size);
	vec_clear_from(c, mask, 0);
	NEXT(c, i);
}

/* --- the same with EVEX, and back: the mask is a mask register's --- */
struct vsib {
	unsigned size, index_size, nr, index, mask;
	u64 base;
};

/* What the instruction names; the state is spilled. */
static struct vsib evex_vsib(struct soft_cpu *c, const struct insn *i)
{
	unsigned vl = 16u << ((i->evex & EVEX_LL) >> EVEX_LL_SHIFT);
	struct vsib v = {
		.size = i->rex & REX_W ? 8 : 4,
		.index_size = i->opcode & 1 ? 8 : 4,
		.index = (i->index == RZERO ? R_SP : i->index) | (i->vvvv & 16u),
		.mask = i->evex & EVEX_AAA,
		.base = c->gpr[i->base] + (u64)(s64)i->disp,
	};

	fpu_check(c, i, FPU_CLASS_AVX512);
	if (i->asz == 2)
		soft_ud(c, i);
	v.nr = vl / MAX(v.size, v.index_size);
	fpu_spill(c);
	return v;
}

static u8 *opmask(const struct soft_cpu *c, unsigned k)
{
	return c->xsave + fpu_layout.opmask + 8 * k;
}

static gva_t vsib_la(struct soft_cpu *c, const struct insn *i, const struct vsib *v, unsigned element,
		     unsigned acc)
{
	u64 idx = vec_get(c, v->index, element, v->index_size);

	if (v->index_size == 4)
		idx = bits_sext(idx, 32);
	return element_la(c, i, v->base + (idx << i->scale), v->size, acc);
}

void op_evex_gather(struct soft_cpu *c, const struct insn *i)
{
	struct vsib v = evex_vsib(c, i);
	u8 *mask = opmask(c, v.mask);

	if (i->reg == v.index)
		soft_ud(c, i);
	vec_in_use(c, XFEATURE_SSE | XFEATURE_AVX | XFEATURE_AVX512);
	for (unsigned k = 0; k < v.nr; k++) {
		if (!(ld64(mask) >> k & 1))
			continue;
		vec_set(c, i->reg, k, v.size, load(c, i, vsib_la(c, i, &v, k, ACC_R), v.size));
		/* Above the result, with each element: an interrupted one has done that too, as on AMD's
		 * processors (with VEX it has not). */
		vec_clear_from(c, i->reg, v.nr * v.size);
		st64(mask, ld64(mask) & ~BIT(k));
	}
	vec_clear_from(c, i->reg, v.nr * v.size);
	st64(mask, 0);
	NEXT(c, i);
}

/* In the order of elements: where two go to the same place, the later one stays. */
void op_evex_scatter(struct soft_cpu *c, const struct insn *i)
{
	struct vsib v = evex_vsib(c, i);
	u8 *mask = opmask(c, v.mask);

	for (unsigned k = 0; k < v.nr; k++) {
		gva_t la;
		u64 val;

		if (!(ld64(mask) >> k & 1))
			continue;
		la = vsib_la(c, i, &v, k, ACC_W);
		val = vec_get(c, i->reg, k, v.size);
		if (v.size == 8)
			st64_la(c, i, la, val);
		else
			st32_la(c, i, la, (u32)val);
		st64(mask, ld64(mask) & ~BIT(k));
	}
	st64(mask, 0);
	NEXT(c, i);
}

static unsigned maskmov_size(const struct insn *i)
{
	/* VMASKMOVPS, PD by opcode; VPMASKMOVD, Q by W */
	return (i->opcode & 0xf0) == 0x20 ? (i->opcode & 1 ? 8 : 4) : (i->rex & REX_W ? 8 : 4);
}

void op_simd_vmaskmov_load(struct soft_cpu *c, const struct insn *i)
{
	unsigned size = maskmov_size(i), bytes = i->pfx & PFX_VEX_L ? 32 : 16;
	u64 ea = insn_ea(c, i), v[8] = { 0 };

	fpu_check(c, i, FPU_CLASS_AVX);
	fpu_spill(c);
	for (unsigned k = 0; k < bytes / size; k++)
		if (vec_get(c, i->vvvv, k, size) >> (size * 8 - 1))
			v[k] = load(c, i, operand_la(c, i, ea + k * size, size, ACC_R), size);
	for (unsigned k = 0; k < bytes / size; k++)
		vec_set(c, i->reg, k, size, v[k]);
	vec_clear_from(c, i->reg, bytes);
	vec_in_use(c, XFEATURE_SSE | XFEATURE_AVX);
	NEXT(c, i);
}

void op_simd_vmaskmov_store(struct soft_cpu *c, const struct insn *i)
{
	unsigned size = maskmov_size(i), bytes = i->pfx & PFX_VEX_L ? 32 : 16;
	u64 ea = insn_ea(c, i);
	gva_t la[8] = { 0 };

	fpu_check(c, i, FPU_CLASS_AVX);
	fpu_spill(c);
	for (unsigned k = 0; k < bytes / size; k++) {
		if (!(vec_get(c, i->vvvv, k, size) >> (size * 8 - 1)))
			continue;
		la[k] = operand_la(c, i, ea + k * size, size, ACC_W);
		mmu_probe(c, i, la[k], size, ACC_W);
	}
	for (unsigned k = 0; k < bytes / size; k++) {
		u64 v = vec_get(c, i->reg, k, size);

		if (!(vec_get(c, i->vvvv, k, size) >> (size * 8 - 1)))
			continue;
		if (size == 8)
			st64_la(c, i, la[k], v);
		else
			st32_la(c, i, la[k], (u32)v);
	}
	NEXT(c, i);
}

/* Stores those of n bytes whose mask byte has its top bit set at seg:rDI. */
static void store_bytes(struct soft_cpu *c, const struct insn *i, const u8 *data, const u8 *mask, unsigned n)
{
	gva_t la[16] = { 0 };

	/* The segment is checked even when no byte is selected. */
	if (!i->flat)
		element_la(c, i, c->gpr[R_DI], 1, ACC_W);
	for (unsigned k = 0; k < n; k++) {
		if (!(mask[k] >> 7))
			continue;
		la[k] = element_la(c, i, c->gpr[R_DI] + k, 1, ACC_W);
		mmu_probe(c, i, la[k], 1, ACC_W);
	}
	for (unsigned k = 0; k < n; k++)
		if (mask[k] >> 7)
			st8_la(c, i, la[k], data[k]);
}

void op_simd_maskmovdqu(struct soft_cpu *c, const struct insn *i)
{
	u8 data[16] = { 0 }, mask[16] = { 0 };

	fpu_check(c, i, i->pfx & PFX_VEX ? FPU_CLASS_AVX : FPU_CLASS_SSE);
	fpu_spill(c);
	soft_copy(data, fpu_vec_byte(c, i->reg, 0), 16);
	soft_copy(mask, fpu_vec_byte(c, i->rm, 0), 16);
	store_bytes(c, i, data, mask, 16);
	NEXT(c, i);
}

void op_simd_maskmovq(struct soft_cpu *c, const struct insn *i)
{
	u8 data[8] = { 0 }, mask[8] = { 0 }, regs[8][16], *x = c->xsave;
	unsigned top;

	fpu_check(c, i, FPU_CLASS_MMX);
	fpu_spill(c);
	if (ld16(x + FPU_FSW) & FPU_FSW_ES)
		soft_raise(c, i, EXC_MF, NO_ERROR);
	/* The image is in the order of the stack, MMX registers are the physical ones. */
	top = ld16(x + FPU_FSW) >> 11 & 7;
	soft_copy(data, x + FPU_ST + 16 * ((i->reg - top) & 7), 8);
	soft_copy(mask, x + FPU_ST + 16 * ((i->rm - top) & 7), 8);
	/* Like every MMX instruction: top of stack 0, nothing empty [SDM1 9.5]. Processors do this
	 * before they look at the operand. */
	for (unsigned r = 0; r < 8; r++)
		soft_copy(regs[r], x + FPU_ST + 16 * ((r - top) & 7), 16);
	soft_copy(x + FPU_ST, regs, sizeof(regs));
	st16(x + FPU_FSW, ld16(x + FPU_FSW) & ~(7u << 11));
	st16(x + FPU_FTW, 0xff);
	st64(x + FPU_XSTATE_BV, ld64(x + FPU_XSTATE_BV) | XFEATURE_X87);
	store_bytes(c, i, data, mask, 8);
	NEXT(c, i);
}

void op_simd_vzero(struct soft_cpu *c, const struct insn *i)
{
	bool all = i->pfx & PFX_VEX_L;

	fpu_check(c, i, FPU_CLASS_AVX);
	if (soft_mode64(c)) {
		if (!c->vec_live)
			fpu_load(c);
		if (all)
			__asm__ volatile("vzeroall");
		else
			__asm__ volatile("vzeroupper");
	} else {
		/* Registers 8 to 15 keep theirs. */
		fpu_spill(c);
		for (unsigned n = 0; n < 8; n++)
			vec_clear_from(c, n, all ? 0 : 16);
	}
	NEXT(c, i);
}
