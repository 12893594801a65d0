/* Vector instructions in C: what touches memory element by element (gathers, scatters, VMASKMOV, VPMASKMOV,
 * MASKMOVDQU, MASKMOVQ), and VZEROUPPER, VZEROALL, which mean other registers in 64-bit mode than
 * outside it [SDM2].
 *
 * They work on the state image in memory, gathers and scatters mostly on the few registers that they name.
 * A disabled element is not accessed at all, so its page may be absent. The stores check all enabled elements first. A
 * gather or scatter is interrupted by a fault in the middle [SDM2 VGATHERDPS]: what has been done stays, and
 * those mask elements are clear, so that the instruction can begin again.
 *
 * On the vCPU's thread.
 */
#include "cpu/soft/fpu.h"
#include "cpu/soft/thunk.h"
#include "cpu/soft/vecreg.h"
#include "x86/cpuid.h"

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

/* --- gathers and scatters ---------------------------------------------------------------- */
/* What the instruction names. With VEX the mask is a vector register, with EVEX a mask register. */
struct vsib {
	unsigned size, index_size, nr; /* of an element and of an index in bytes; elements */
	unsigned index, mask;
	u64 base;
};

static struct vsib vsib(const struct soft_cpu *c, const struct insn *i)
{
	unsigned vl = i->evex ? 16u << ((i->evex & EVEX_LL) >> EVEX_LL_SHIFT) : i->pfx & PFX_VEX_L ? 32 : 16;
	struct vsib v = {
		.size = i->rex & REX_W ? 8 : 4,
		.index_size = i->opcode & 1 ? 8 : 4,
		/* The decoder takes index 4 for none, as it is without vectors. */
		.index = i->index == RZERO ? R_SP : i->index,
		.mask = i->evex ? i->evex & EVEX_AAA : i->vvvv,
		.base = c->gpr[i->base] + (u64)(s64)i->disp,
	};

	if (i->evex)
		v.index |= i->vvvv & 16u;
	v.nr = vl / MAX(v.size, v.index_size);
	return v;
}

/* The effective address for an index, from its bytes. */
static u64 vsib_ea(const struct insn *i, const struct vsib *v, const u8 *index)
{
	u64 idx = v->index_size == 8 ? ld64(index) : bits_sext(ld32(index), 32);

	return v->base + (idx << i->scale);
}

/* The host's addresses of the elements in the mask, where the TLB has all of them. */
static bool vsib_fast(const struct soft_cpu *c, const struct insn *i, const struct vsib *v, u64 mask,
		      const u8 *indexes, unsigned acc, u8 *ret_p[16])
{
	for (unsigned k = 0; k < v->nr; k++) {
		gva_t la;

		if (!(mask >> k & 1))
			continue;
		la = vsib_ea(i, v, indexes + k * v->index_size) + c->seg[i->seg].base;
		ret_p[k] = acc == ACC_W ? tlb_write(c, la, v->size) : tlb_read(c, la, v->size);
		if (!ret_p[k])
			return false;
	}
	return true;
}

/* Element k between memory and a register's bytes. */
static void move_element(const struct vsib *v, unsigned k, u8 *reg, u8 *mem, bool store)
{
	any_u64 *m8 = (any_u64 *)mem, *r8 = (any_u64 *)(reg + 8 * k);
	any_u32 *m4 = (any_u32 *)mem, *r4 = (any_u32 *)(reg + 4 * k);

	if (v->size == 8)
		*(volatile any_u64 *)(store ? m8 : r8) = *(volatile any_u64 *)(store ? r8 : m8);
	else
		*(volatile any_u32 *)(store ? m4 : r4) = *(volatile any_u32 *)(store ? r4 : m4);
}

/* The state stays in the host's registers: three of them are enough. False: nothing was done. */
static bool gather_fast(struct soft_cpu *c, const struct insn *i, const struct vsib *v)
{
	u8 index[32], mask[32], dst[32], *p[16];
	u64 bits = 0;

	if (!c->vec_live || !i->flat)
		return false;
	vecreg_get_ymm(v->index, index);
	vecreg_get_ymm(v->mask, mask);
	vecreg_get_ymm(i->reg, dst);
	for (unsigned k = 0; k < v->nr; k++)
		bits |= (u64)(mask[(k + 1) * v->size - 1] >> 7) << k;
	if (!vsib_fast(c, i, v, bits, index, ACC_R, p))
		return false;
	for (unsigned k = 0; k < v->nr; k++)
		if (bits >> k & 1)
			move_element(v, k, dst, p[k], false);
	for (unsigned k = v->nr * v->size; k < 32; k += 8)
		st64(dst + k, 0);
	for (unsigned k = 0; k < 32; k += 8)
		st64(mask + k, 0);
	vecreg_set_ymm(i->reg, dst);
	vecreg_set_ymm(v->mask, mask);
	return true;
}

/* With EVEX, both ways. */
static bool evex_fast(struct soft_cpu *c, const struct insn *i, const struct vsib *v, unsigned acc)
{
	u8 index[64], reg[64], *p[16];
	u64 bits;

	if (!c->vec_live || !i->flat || !soft_has(c, X86_FEATURE_AVX512BW))
		return false;
	bits = vecreg_get_k(v->mask);
	vecreg_get_zmm(v->index, index);
	if (!vsib_fast(c, i, v, bits, index, acc, p))
		return false;
	vecreg_get_zmm(i->reg, reg);
	for (unsigned k = 0; k < v->nr; k++)
		if (bits >> k & 1)
			move_element(v, k, reg, p[k], acc == ACC_W);
	vecreg_set_k(v->mask, 0);
	if (acc == ACC_W)
		return true;
	for (unsigned k = v->nr * v->size; k < 64; k += 8)
		st64(reg + k, 0);
	vecreg_set_zmm(i->reg, reg);
	return true;
}

/* Element by element, in the state's image. */
static gva_t vsib_la(struct soft_cpu *c, const struct insn *i, const struct vsib *v, unsigned element,
		     unsigned acc)
{
	return element_la(c, i, vsib_ea(i, v, fpu_vec_byte(c, v->index, element * v->index_size)), v->size,
			  acc);
}

void op_simd_gather(struct soft_cpu *c, const struct insn *i)
{
	struct vsib v = vsib(c, i);

	fpu_check(c, i, FPU_CLASS_AVX);
	if (i->reg == v.index || i->reg == v.mask || v.index == v.mask || i->asz == 2)
		soft_ud(c, i);
	if (gather_fast(c, i, &v))
		NEXT(c, i);
	fpu_spill(c);
	vec_in_use(c, XFEATURE_SSE | XFEATURE_AVX);
	for (unsigned k = 0; k < v.nr; k++) {
		if (!(vec_get(c, v.mask, k, v.size) >> (v.size * 8 - 1)))
			continue;
		vec_set(c, i->reg, k, v.size, load(c, i, vsib_la(c, i, &v, k, ACC_R), v.size));
		if (!c->amd) /* an interrupted one has done that, too */
			vec_clear_from(c, i->reg, v.nr * v.size);
		vec_set(c, v.mask, k, v.size, 0);
	}
	vec_clear_from(c, i->reg, v.nr * v.size);
	vec_clear_from(c, v.mask, 0);
	NEXT(c, i);
}

static u8 *opmask(const struct soft_cpu *c, unsigned k)
{
	return c->xsave + fpu_layout.opmask + 8 * k;
}

void op_evex_gather(struct soft_cpu *c, const struct insn *i)
{
	struct vsib v = vsib(c, i);
	u8 *mask = opmask(c, v.mask);

	fpu_check(c, i, FPU_CLASS_AVX512);
	if (i->reg == v.index || i->asz == 2)
		soft_ud(c, i);
	if (evex_fast(c, i, &v, ACC_R))
		NEXT(c, i);
	fpu_spill(c);
	vec_in_use(c, XFEATURE_SSE | XFEATURE_AVX | XFEATURE_AVX512);
	for (unsigned k = 0; k < v.nr; k++) {
		if (!(ld64(mask) >> k & 1))
			continue;
		vec_set(c, i->reg, k, v.size, load(c, i, vsib_la(c, i, &v, k, ACC_R), v.size));
		/* Above the result, with each element: an interrupted one has done that too. */
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
	struct vsib v = vsib(c, i);
	u8 *mask = opmask(c, v.mask);

	fpu_check(c, i, FPU_CLASS_AVX512);
	if (i->asz == 2)
		soft_ud(c, i);
	if (evex_fast(c, i, &v, ACC_W))
		NEXT(c, i);
	fpu_spill(c);
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

/* --- masked moves ------------------------------------------------------------------------ */
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
	u8 data[8] = { 0 }, mask[8] = { 0 }, *x = c->xsave;

	fpu_check(c, i, FPU_CLASS_MMX);
	fpu_spill(c);
	if (ld16(x + FPU_FSW) & FPU_FSW_ES)
		soft_raise(c, i, EXC_MF, NO_ERROR);
	/* Like every MMX instruction: top of stack 0, nothing empty [SDM1 9.5]. Processors do this
	 * before they look at the operand. */
	fpu_top_0(x);
	st16(x + FPU_FTW, 0xff);
	st64(x + FPU_XSTATE_BV, ld64(x + FPU_XSTATE_BV) | XFEATURE_X87);
	soft_copy(data, x + FPU_ST + 16 * (i->reg & 7), 8);
	soft_copy(mask, x + FPU_ST + 16 * (i->rm & 7), 8);
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
