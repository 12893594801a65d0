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
#include "cpu/soft/simd.h"
#include "cpu/soft/thunk.h"
#include "x86/cpuid.h"

enum native_class { CLASS_INT, CLASS_VEX_INT, CLASS_SSE, CLASS_AVX, CLASS_MMX, CLASS_X87, CLASS_X87_CTL };

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
	if (is_vector(class) && (la & (n - 1)) && simd_aligned(i))
		soft_gp(c, i, 0);
	if (i->pfx & PFX_LOCK && (mem = mmu_atomic(c, i, la, n, &gpa))) {
		run(c, i, mem);
		mmu_atomic_done(c, gpa, n);
		return;
	}
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

static inline __attribute__((always_inline)) void native(struct soft_cpu *c, const struct insn *i,
							 enum native_class class, unsigned acc)
{
	static const u8 off[] = {
		[CLASS_VEX_INT] = FPU_OFF_VEX, [CLASS_SSE] = FPU_CLASS_SSE, [CLASS_AVX] = FPU_CLASS_AVX,
		[CLASS_MMX] = FPU_CLASS_MMX,   [CLASS_X87] = FPU_CLASS_X87, [CLASS_X87_CTL] = FPU_CLASS_X87,
	};

	if (class != CLASS_INT && unlikely(c->simd_off & off[class]))
		fpu_raise_off(c, i, off[class], class >= CLASS_X87);
	if (acc) {
		if (!i->flat) { /* what comes before the checks of the segment */
			if (x87_pending(c, i, class))
				soft_raise(c, i, EXC_MF, NO_ERROR);
			if (is_vector(class) && simd_aligned(i) &&
			    (insn_ea(c, i) + c->seg[i->seg].base) & (i->msz - 1))
				soft_gp(c, i, 0);
		}
		gva_t la = insn_la(c, i, i->msz, acc);
		void *mem = acc & ACC_W ? tlb_write(c, la, i->msz) : tlb_read(c, la, i->msz);
		if (likely(mem && (!is_vector(class) || c->vec_live)))
			run(c, i, mem);
		else
			run_slow(c, i, la, acc, class);
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
NATIVE_CLASS(native_mmx, CLASS_MMX)
NATIVE_CLASS(native_x87, CLASS_X87)
NATIVE_CLASS(native_x87_ctl, CLASS_X87_CTL)

/* By class and by NR_LOAD, NR_STORE. */
static const insn_fn handlers[][4] = {
	[CLASS_INT] = NATIVE_ROW(native_int),         [CLASS_VEX_INT] = NATIVE_ROW(native_vex_int),
	[CLASS_SSE] = NATIVE_ROW(native_sse),         [CLASS_AVX] = NATIVE_ROW(native_avx),
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

static u8 operand_size(const struct insn *i, const struct native_row *row)
{
	unsigned vl = i->pfx & PFX_VEX_L ? 32 : 16;
	bool gpr = row->flags & (NR_GPR_REG | NR_GPR_RM | NR_GPR_VVVV);

	switch (row->msz) {
	case NR_VL: return (u8)vl;
	case NR_HALF_VL: return (u8)(vl / 2);
	case NR_QUARTER_VL: return (u8)(vl / 4);
	case NR_EIGHTH_VL: return (u8)(vl / 8);
	case NR_OSZ: return i->osz;
	case NR_W: return (gpr ? i->osz == 8 : i->rex & REX_W) ? 8 : 4;
	case NR_DDUP: return vl == 32 ? 32 : 8;
	default: return row->msz;
	}
}

static enum native_class class_of(const struct insn *i, const struct native_row *row)
{
	if (row->flags & NR_X87)
		return native_x87_control(i) ? CLASS_X87_CTL : CLASS_X87;
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
	if (i->map == 1 && i->opcode == 0x77)
		i->mem = 0; /* EMMS, VZEROUPPER, VZEROALL: no ModRM */
	i->msz = i->mem ? operand_size(i, row) : 0;
	i->aux = (u8)(row->flags & (NR_LOAD | NR_STORE));
	i->thunk = NULL;
	if (row->fn && row->fn != op_native_mem) {
		i->fn = row->fn;
		return;
	}
	i->fn = handler(i, class_of(i, row));
	i->thunk = (void *)(uintptr_t)row;
}
