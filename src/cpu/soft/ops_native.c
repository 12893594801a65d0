/* Handlers of the instructions that run natively in a thunk: what comes before and after it.
 *
 * Before: is the class of instruction on (CR0, CR4, XCR0), is the guest's vector state in the host's
 * registers, where is the memory operand. The operand is the guest's own memory where the TLB allows it;
 * else (MMIO, a page that holds code, a page boundary) a copy, at the same offset from a multiple of 64
 * so that alignment faults happen alike, which is written back after the thunk. After: x87's instruction
 * and data pointers, which the host's FPU would have pointing into the thunk.
 *
 * DEVIATION: LOCK on such a copy (only where a page is crossed, or in MMIO) is not atomic against other
 * vCPUs. DEVIATION: with CR0.NE = 0 a pending x87 exception is #MF all the same, not IRQ 13 through the
 * interrupt controllers.
 *
 * Every handler is an instance of native() for one class and one direction, so that nothing constant is
 * tested at run time. native_bind() chooses.
 */
#include "cpu/soft/fpu.h"
#include "cpu/soft/ops.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/simd.h"
#include "cpu/soft/thunk.h"
#include "x86/cpuid.h"

/* CLASS_MASKED: AVX-512 with a mask that spares elements of the operand in memory. */
enum native_class {
	CLASS_INT,
	CLASS_VEX_INT,
	CLASS_SSE,
	CLASS_AVX,
	CLASS_AVX512,
	CLASS_MASKED,
	CLASS_MMX,
	CLASS_X87,
	CLASS_X87_CTL
};

static inline void run(struct soft_cpu *c, const struct insn *i, void *mem)
{
	c->native = i;
	((thunk_fn)(uintptr_t)i->thunk)(c->gpr, mem, &c->fl);
}

static inline bool is_vector(enum native_class class)
{
	return class >= CLASS_SSE;
}

/* An x87 exception is pending: waiting instructions raise it before anything about their operand [SDM3
 * 6.9]. */
static bool x87_pending(const struct soft_cpu *c, const struct insn *i, enum native_class class)
{
	u16 fsw;

	switch (class) {
	case CLASS_X87:
	case CLASS_MMX: break;
	case CLASS_X87_CTL: /* FLDCW */
		if (i->opcode != 0xd9 || (i->modrm >> 3 & 7) != 5)
			return false;
		break;
	case CLASS_SSE: /* CVTPS2PI and its like */
		if (i->map != 1 || (i->opcode | 1) != 0x2d || i->pfx & (PFX_F2 | PFX_F3))
			return false;
		break;
	default: return false;
	}
	if (c->vec_live)
		__asm__ volatile("fnstsw %0" : "=a"(fsw));
	else
		fsw = ld16(c->xsave + FPU_FSW);
	return fsw & FPU_FSW_ES;
}

/* Intel's processors begin with some stores before they look at the operand, which may fault: MMX's set TOP to 0, VCVTPS2PH sets the
 * flags of its numeric exceptions or raises one, and an x87 store whose result an unmasked exception keeps back does not look at all.
 * True: that was all. To begin twice is the same as once. */
static bool store_begins(struct soft_cpu *c, const struct insn *i, enum native_class class)
{
	u8 *x = c->xsave, before[FPU_XMM];

	if (c->amd)
		return false;
	if (class == CLASS_MMX) {
		fpu_spill(c);
		fpu_top_0(x);
	} else if (i->pfx & PFX_VEX && i->map == 3 && i->opcode == 0x1d) {
		fpu_load(c);
		run(c, i, c->bounce);
	}
	if (class != CLASS_X87)
		return false;
	fpu_spill(c);
	if (!(~ld16(x + FPU_FCW) & FPU_BEFORE_STORE))
		return false;
	soft_copy(before, x, sizeof(before));
	fpu_load(c);
	run(c, i, c->bounce);
	fpu_spill(c);
	if (ld16(x + FPU_FSW) & ~ld16(x + FPU_FCW) & FPU_BEFORE_STORE) {
		fpu_load(c); /* as after any other */
		return true;
	}
	soft_copy(x, before, sizeof(before));
	return false;
}

/* Not straight from RAM. */
static __attribute__((noinline)) void run_slow(struct soft_cpu *c, const struct insn *i, gva_t la,
					       unsigned acc, enum native_class class)
{
	unsigned n = i->msz;
	u8 *buf = c->bounce + (la & 63);
	gpa_t gpa;
	void *mem;

	if (x87_pending(c, i, class))
		soft_raise(c, i, EXC_MF, NO_ERROR);
	if (is_vector(class) && (la & (n - 1)) && simd_aligned(i, c->amd))
		soft_gp(c, i, 0);
	if (i->pfx & PFX_LOCK && (mem = mmu_atomic(c, i, la, n, &gpa))) {
		run(c, i, mem);
		mmu_atomic_done(c, gpa, n);
		return;
	}
	if (acc == ACC_W && store_begins(c, i, class))
		return;
	mmu_probe(c, i, la, n, acc);
	mem = acc & ACC_W ? tlb_write(c, la, n) : tlb_read(c, la, n);
	if (!mem) {
		mem = buf;
		/* An x87 store with an unmasked exception leaves memory as it was. */
		if (acc & ACC_R || class == CLASS_X87)
			mmu_read_buf(c, i, la, buf, n);
	}
	if (is_vector(class) && !c->vec_live)
		fpu_load(c);
	run(c, i, mem);
	if (mem == buf && acc & ACC_W)
		mmu_write_buf(c, i, la, buf, n);
}

/* The linear address of element k; elements do not wrap one by one. */
static gva_t element_la(struct soft_cpu *c, const struct insn *i, u64 at, unsigned size, unsigned acc)
{
	u64 ea = insn_ea(c, i) + at;

	return i->flat ? ea + c->seg[i->seg].base : seg_linear(c, i, i->seg, ea, size, acc);
}

/* Which elements of memory the mask in a register lets through. */
static u64 wanted_elements(const struct soft_cpu *c, const struct insn *i, const struct evex_elements *e)
{
	u64 mask = ld64(c->xsave + fpu_layout.opmask + 8 * (i->evex & EVEX_AAA)), want = 0;

	for (unsigned k = 0; k < e->nr; k++)
		if (mask >> k & 1)
			want |= BIT(k % e->nr_mem);
	return want;
}

/* A masked operand, where the whole of it is not just RAM: only the elements that the mask names are accessed, a packed
 * one only as far as it has such. The thunk gets a copy of these. */
static __attribute__((noinline)) void run_masked(struct soft_cpu *c, const struct insn *i, unsigned acc)
{
	const struct native_row *row = simd_row(i);
	struct evex_elements e = evex_elements(i, row);
	u64 first = insn_ea(c, i) + c->seg[i->seg].base, want;
	u8 *buf = c->bounce + (first & 63);
	gva_t la[64] = { 0 };

	fpu_spill(c);
	want = wanted_elements(c, i, &e);
	if (want && first & (i->msz - 1) && simd_aligned(i, c->amd))
		soft_gp(c, i, 0);
	if (acc == ACC_W)
		(void)store_begins(c, i, CLASS_MASKED);
	if (row->evex & EV_ALL)
		mmu_probe(c, i, element_la(c, i, 0, i->msz, acc), i->msz, acc);
	if (row->evex & EV_PACKED) {
		unsigned nr = 0;

		/* One after the other: the first may fault before the end of the segment is met. */
		if (want)
			mmu_probe(c, i, element_la(c, i, 0, e.size, acc), e.size, acc);
		for (; want; want &= want - 1)
			nr++;
		e.size = (u8)(nr * e.size);
		want = nr != 0;
	}
	for (unsigned k = 0; k < 64; k++) {
		if (!(want >> k & 1))
			continue;
		la[k] = element_la(c, i, k * e.size, e.size, acc);
		if (acc & ACC_R)
			mmu_read_buf(c, i, la[k], buf + k * e.size, e.size);
		else
			mmu_probe(c, i, la[k], e.size, acc);
	}
	if (!c->vec_live)
		fpu_load(c);
	run(c, i, buf);
	for (unsigned k = 0; acc & ACC_W && k < 64; k++)
		if (want >> k & 1)
			mmu_write_buf(c, i, la[k], buf + k * e.size, e.size);
}

static inline __attribute__((always_inline)) void native(struct soft_cpu *c, const struct insn *i,
							 enum native_class class, unsigned acc)
{
	static const u8 off[] = {
		[CLASS_VEX_INT] = FPU_OFF_VEX,     [CLASS_SSE] = FPU_CLASS_SSE,
		[CLASS_AVX] = FPU_CLASS_AVX,       [CLASS_AVX512] = FPU_CLASS_AVX512,
		[CLASS_MASKED] = FPU_CLASS_AVX512, [CLASS_MMX] = FPU_CLASS_MMX,
		[CLASS_X87] = FPU_CLASS_X87,       [CLASS_X87_CTL] = FPU_CLASS_X87,
	};

	if (class != CLASS_INT && unlikely(c->simd_off & off[class]))
		fpu_raise_off(c, i, off[class], class >= CLASS_X87);
	if (class == CLASS_MASKED && acc) {
		gva_t la = insn_ea_raw(c, i) + c->seg[i->seg].base;
		void *mem = !i->flat      ? NULL
			    : acc & ACC_W ? tlb_write(c, la, i->msz)
					  : tlb_read(c, la, i->msz);

		if (likely(mem && c->vec_live))
			run(c, i, mem);
		else
			run_masked(c, i, acc);
	} else if (acc) {
		bool done = false;
		if (!i->flat) { /* what comes before the checks of the segment */
			if (x87_pending(c, i, class))
				soft_raise(c, i, EXC_MF, NO_ERROR);
			if (is_vector(class) && simd_aligned(i, c->amd) &&
			    (insn_ea(c, i) + c->seg[i->seg].base) & (i->msz - 1))
				soft_gp(c, i, 0);
			if (acc == ACC_W && is_vector(class) && !c->amd && !soft_mode64(c) &&
			    unlikely(!seg_range_ok(c, &c->seg[i->seg], insn_ea(c, i), i->msz, acc)))
				done = store_begins(c, i, class);
		}
		if (likely(!done)) {
			gva_t la = insn_la(c, i, i->msz, acc);
			void *mem = acc & ACC_W ? tlb_write(c, la, i->msz) : tlb_read(c, la, i->msz);
			if (likely(mem && (!is_vector(class) || c->vec_live)))
				run(c, i, mem);
			else
				run_slow(c, i, la, acc, class);
		}
	} else {
		if (is_vector(class) && unlikely(!c->vec_live))
			fpu_load(c);
		run(c, i, NULL);
	}
	if (class == CLASS_X87) {
		c->x87_fip = soft_rip(c, i);
		c->x87_fcs = c->seg[SEG_CS].sel;
		c->x87_fop = (u16)((i->opcode & 7) << 8 | i->modrm);
		if (acc) {
			c->x87_fdp = insn_ea(c, i);
			c->x87_fds = i->seg == SEG_FLAT ? 0 : c->seg[i->seg].sel;
		}
	}
	NEXT(c, i);
}

#define NATIVE(name, class, acc)                                   \
	static void name(struct soft_cpu *c, const struct insn *i) \
	{                                                          \
		native(c, i, class, acc);                          \
	}
#define NATIVE_CLASS(name, class)          \
	NATIVE(name##_reg, class, 0)       \
	NATIVE(name##_load, class, ACC_R)  \
	NATIVE(name##_store, class, ACC_W) \
	NATIVE(name##_rmw, class, ACC_R | ACC_W)
#define NATIVE_ROW(name)                                          \
	{                                                         \
		name##_reg, name##_load, name##_store, name##_rmw \
	}

NATIVE_CLASS(native_int, CLASS_INT)
NATIVE_CLASS(native_vex_int, CLASS_VEX_INT)
NATIVE_CLASS(native_sse, CLASS_SSE)
NATIVE_CLASS(native_avx, CLASS_AVX)
NATIVE_CLASS(native_avx512, CLASS_AVX512)
NATIVE_CLASS(native_masked, CLASS_MASKED)
NATIVE_CLASS(native_mmx, CLASS_MMX)
NATIVE_CLASS(native_x87, CLASS_X87)
NATIVE_CLASS(native_x87_ctl, CLASS_X87_CTL)

/* By class and by NR_LOAD, NR_STORE. */
static const insn_fn handlers[][4] = {
	[CLASS_INT] = NATIVE_ROW(native_int),         [CLASS_VEX_INT] = NATIVE_ROW(native_vex_int),
	[CLASS_SSE] = NATIVE_ROW(native_sse),         [CLASS_AVX] = NATIVE_ROW(native_avx),
	[CLASS_AVX512] = NATIVE_ROW(native_avx512),   [CLASS_MASKED] = NATIVE_ROW(native_masked),
	[CLASS_MMX] = NATIVE_ROW(native_mmx),         [CLASS_X87] = NATIVE_ROW(native_x87),
	[CLASS_X87_CTL] = NATIVE_ROW(native_x87_ctl),
};

static insn_fn handler(const struct insn *i, enum native_class class)
{
	return handlers[class][i->mem ? (i->aux & NR_LOAD ? 1 : 0) | (i->aux & NR_STORE ? 2 : 0) : 0];
}

void op_native_reg(struct soft_cpu *c, const struct insn *i)
{
	native_int_reg(c, i);
}

void op_native_mem(struct soft_cpu *c, const struct insn *i)
{
	handler(i, i->pfx & PFX_VEX ? CLASS_VEX_INT : CLASS_INT)(c, i);
}

void op_native_simd(struct soft_cpu *c, const struct insn *i)
{
	handler(i, i->pfx & PFX_VEX ? CLASS_AVX : CLASS_SSE)(c, i);
}

void op_native_mmx(struct soft_cpu *c, const struct insn *i)
{
	handler(i, CLASS_MMX)(c, i);
}

/* FLDCW, FNSTCW, FNSTSW, FNCLEX, FNINIT and the three 8087 instructions that do nothing now leave the
 * x87 pointers alone. */
bool native_x87_control(const struct insn *i)
{
	unsigned reg = i->modrm >> 3 & 7;

	switch (i->opcode) {
	case 0xd9: return i->mem && (reg == 5 || reg == 7);
	case 0xdb: return !i->mem && reg == 4;
	case 0xdd: return i->mem && reg == 7;
	case 0xdf: return !i->mem && reg == 4;
	default: return false;
	}
}

void op_native_x87(struct soft_cpu *c, const struct insn *i)
{
	handler(i, native_x87_control(i) ? CLASS_X87_CTL : CLASS_X87)(c, i);
}

unsigned native_operand_size(const struct insn *i, const struct native_row *row)
{
	unsigned vl = i->evex ? 16u << ((i->evex & EVEX_LL) >> EVEX_LL_SHIFT) : i->pfx & PFX_VEX_L ? 32 : 16;
	bool gpr = row->flags & (NR_GPR_REG | NR_GPR_RM | NR_GPR_VVVV);

	if (i->evex & EVEX_B)
		return i->rex & REX_W ? 8 : 4; /* broadcast */
	switch (row->msz) {
	case NR_VL: return vl;
	case NR_HALF_VL: return vl / 2;
	case NR_QUARTER_VL: return vl / 4;
	case NR_EIGHTH_VL: return vl / 8;
	case NR_OSZ: return i->osz;
	case NR_W: return (gpr ? i->osz == 8 : i->rex & REX_W) ? 8 : 4;
	case NR_DDUP: return vl == 16 ? 8 : vl;
	default: return row->msz;
	}
}

static enum native_class class_of(const struct insn *i, const struct native_row *row)
{
	if (row->flags & NR_X87)
		return native_x87_control(i) ? CLASS_X87_CTL : CLASS_X87;
	if (row->evex)
		return i->mem && i->evex & EVEX_AAA && (!(row->evex & EV_ALL) || row->flags & NR_STORE)
			       ? CLASS_MASKED
			       : CLASS_AVX512;
	if (thunk_is_int(i, row))
		return i->pfx & PFX_VEX ? CLASS_VEX_INT : CLASS_INT;
	if (i->pfx & PFX_VEX)
		return CLASS_AVX;
	/* With MMX and XMM registers both, the rules of SSE [SDM3 table 23-4]. */
	if (row->flags & NR_MMX &&
	    !(i->map == 1 && (i->opcode == 0xd6 || (i->opcode >= 0x2a && i->opcode <= 0x2d))))
		return CLASS_MMX;
	return CLASS_SSE;
}

void native_bind(struct insn *i, const struct native_row *row)
{
	if (i->map == 1 && i->opcode == 0x77 && !i->evex)
		i->mem = 0; /* EMMS, VZEROUPPER, VZEROALL: no ModRM */
	i->msz = i->mem ? (u8)native_operand_size(i, row) : 0;
	i->aux = (u8)(row->flags & (NR_LOAD | NR_STORE));
	i->thunk = NULL;
	if (row->fn && row->fn != op_native_mem) {
		i->fn = row->fn;
		return;
	}
	i->fn = handler(i, class_of(i, row));
	i->thunk = (void *)(uintptr_t)row;
}
