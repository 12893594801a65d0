/* Vector, x87 and MXCSR state: where it lives, and the instructions that save and restore it
 * [SDM1 10.5, 13; SDM3 13].
 *
 * While the guest uses vectors, the state is in the host's registers (vec_live); the thunks leave it
 * there and the engine's own code uses general registers only. fpu_spill() takes it to cpu->xsave, an
 * XSAVE image in standard format, and gives C code back its own; fpu_load() brings it in again. The
 * instructions here spill first and then work on the image as on any memory. In the image all bytes of
 * all components are always valid; XSTATE_BV says what is in use (XINUSE), as the host's XSAVE found it.
 * Its layout is the host's, since the host's XSAVE writes it; what the guest sees of AVX-512 is where its
 * CPUID says, and where x86_state has it is a third place (fpu_import(), fpu_export()).
 *
 * A guest that has AVX-512 mostly does not use it: fpu_spill() asks XGETBV first, and leaves the parts of the
 * image alone that are in their initial state there and in the registers.
 *
 * FIP, FDP and FOP: the host's would point into thunks. The guest's are kept in soft_cpu while the state
 * is live and put into the image when it is spilled. FCS and FDS stay in soft_cpu.
 *
 * MXCSR bits: what the host has, below bit 16 (AMD's misaligned mode is not offered).
 *
 * DEVIATION: XSAVEOPT and XSAVES use the init optimization only, not the modified optimization (allowed:
 * [SDM1 13.9]).
 *
 * On the vCPU's thread; fpu_init() on the main thread.
 */
#include "cpu/soft/fpu.h"

#include "cpu/soft/ops.h"
#include "x86/cpuid.h"

#define COMPONENTS (XFEATURE_X87 | XFEATURE_SSE | XFEATURE_AVX | XFEATURE_AVX512)
#define AVX_SIZE   256u

/* Outside the legacy region, in the order of the compacted format, where all are multiples of 64 bytes. */
static const u64 extended[] = { XFEATURE_AVX, XFEATURE_OPMASK, XFEATURE_ZMM_HI256, XFEATURE_HI16_ZMM };

static const struct x86_xsave_layout state_layout = { X86_XSAVE_OPMASK_OFFSET, X86_XSAVE_ZMM_HI256_OFFSET,
						      X86_XSAVE_HI16_ZMM_OFFSET, X86_XSAVE_SIZE };
struct x86_xsave_layout fpu_layout = { X86_XSAVE_OPMASK_OFFSET, X86_XSAVE_ZMM_HI256_OFFSET,
				       X86_XSAVE_HI16_ZMM_OFFSET, X86_XSAVE_SIZE };
static u32 host_components; /* 0: FXSAVE only */
static u32 mxcsr_mask = 0xffbf;

static u32 cpuid_d(u32 subleaf, u32 *ret_offset)
{
	u32 eax = 0xd, ecx = subleaf, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(*ret_offset), "+c"(ecx), "=d"(edx));
	return eax;
}

/* Where the host has the components of AVX-512; false: not as this file needs them. */
static bool host_layout(void)
{
	u32 opmask, zmm, hi16, unused;

	if (!(cpuid_d(1, &unused) & BIT(2))) /* XGETBV of XINUSE */
		return false;
	if (cpuid_d(5, &opmask) != FPU_OPMASK_SIZE || cpuid_d(6, &zmm) != FPU_ZMM_HI256_SIZE ||
	    cpuid_d(7, &hi16) != FPU_HI16_ZMM_SIZE || opmask + FPU_OPMASK_SIZE > X86_XSAVE_SIZE ||
	    zmm + FPU_ZMM_HI256_SIZE > X86_XSAVE_SIZE || hi16 + FPU_HI16_ZMM_SIZE > X86_XSAVE_SIZE)
		return false;
	fpu_layout = (struct x86_xsave_layout){ (u16)opmask, (u16)zmm, (u16)hi16, X86_XSAVE_SIZE };
	return true;
}

void fpu_init(void)
{
	static u8 image[FPU_LEGACY_SIZE] __attribute__((aligned(16)));
	u32 eax = 1, ebx, ecx = 0, edx;

	if (host_components)
		return;
	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if (ecx & BIT(27)) {
		__asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
		host_components = eax & COMPONENTS;
		if ((eax & XFEATURE_AVX512) != XFEATURE_AVX512 || !host_layout())
			host_components &= (u32)~XFEATURE_AVX512;
	}
	__asm__ volatile("fxsave64 %0" : "=m"(image));
	if (ld32(image + FPU_MXCSR_MASK))
		mxcsr_mask = ld32(image + FPU_MXCSR_MASK) & 0xffff;
}

bool fpu_has_avx512(void)
{
	return host_components & XFEATURE_AVX512;
}

/* What is saved and loaded for this guest. */
static u32 components(const struct soft_cpu *c)
{
	return host_components &
	       (u32)(c->vcpu->vm->cpuid.xcr0_mask | XFEATURE_X87 | XFEATURE_SSE | XFEATURE_AVX);
}

static unsigned size_of(u64 component)
{
	switch (component) {
	case XFEATURE_AVX: return AVX_SIZE;
	case XFEATURE_OPMASK: return FPU_OPMASK_SIZE;
	case XFEATURE_ZMM_HI256: return FPU_ZMM_HI256_SIZE;
	default: return FPU_HI16_ZMM_SIZE;
	}
}

static unsigned offset_of(const struct x86_xsave_layout *l, u64 component)
{
	switch (component) {
	case XFEATURE_AVX: return FPU_YMMH;
	case XFEATURE_OPMASK: return l->opmask;
	case XFEATURE_ZMM_HI256: return l->zmm_hi256;
	default: return l->hi16_zmm;
	}
}

void fpu_import(struct soft_cpu *c, const u8 *image)
{
	soft_zero(c->xsave, X86_XSAVE_SIZE);
	soft_copy(c->xsave, image, FPU_HDR_END);
	for (unsigned k = 0; k < ARRAY_SIZE(extended); k++)
		soft_copy(c->xsave + offset_of(&fpu_layout, extended[k]),
			  image + offset_of(&state_layout, extended[k]), size_of(extended[k]));
}

void fpu_export(const struct soft_cpu *c, u8 *image)
{
	soft_zero(image, X86_XSAVE_SIZE);
	soft_copy(image, c->xsave, FPU_HDR_END);
	for (unsigned k = 0; k < ARRAY_SIZE(extended); k++)
		soft_copy(image + offset_of(&state_layout, extended[k]),
			  c->xsave + offset_of(&fpu_layout, extended[k]), size_of(extended[k]));
}

u32 fpu_mxcsr_mask(void)
{
	return mxcsr_mask;
}

/* --- host registers <-> image ------------------------------------------------------------ */
static void init_component(u8 *x, u64 component);

/* In a guest with AVX-512: only what is in use of it is written. */
static void spill_avx512(u8 *x, u32 mask)
{
	u32 in_use, high;
	u64 bv;

	__asm__ volatile("xgetbv" : "=a"(in_use), "=d"(high) : "c"(1));
	mask &= in_use | (u32)~XFEATURE_AVX512;
	__asm__ volatile("xsave64 (%0)" : : "r"(x), "a"(mask), "d"(0) : "memory");
	bv = ld64(x + FPU_XSTATE_BV);
	for (u64 b = XFEATURE_OPMASK; b <= XFEATURE_HI16_ZMM; b <<= 1)
		if (bv & b & ~(u64)mask)
			init_component(x, b);
	st64(x + FPU_XSTATE_BV, bv & mask);
}

void fpu_spill(struct soft_cpu *c)
{
	u8 *x = c->xsave;
	u64 in_use = XFEATURE_X87 | XFEATURE_SSE;
	u32 mask = components(c);

	if (!c->vec_live)
		return;
	if (mask & XFEATURE_AVX512) {
		spill_avx512(x, mask);
		in_use = ld64(x + FPU_XSTATE_BV);
	} else if (mask) {
		__asm__ volatile("xsave64 (%0)" : : "r"(x), "a"(mask), "d"(0) : "memory");
		in_use = ld64(x + FPU_XSTATE_BV);
	} else {
		__asm__ volatile("fxsave64 (%0)" : : "r"(x) : "memory");
		st64(x + FPU_XSTATE_BV, in_use);
	}
	st64(x + FPU_FIP, c->x87_fip);
	st64(x + FPU_FDP, c->x87_fdp);
	st16(x + FPU_FOP, c->x87_fop & 0x7ff);
	c->vec_live = 0;
	fpu_set_gates(c);
	/* C code's: x87 registers empty, its MXCSR, no upper halves that slow SSE down. */
	if (in_use & XFEATURE_X87)
		__asm__ volatile("fninit");
	if (in_use & (XFEATURE_AVX | XFEATURE_ZMM_HI256))
		__asm__ volatile("vzeroupper");
	__asm__ volatile("ldmxcsr %0" : : "m"(c->mxcsr_host));
}

void fpu_load(struct soft_cpu *c)
{
	const u8 *x = c->xsave;
	u32 mask = components(c);

	if (c->vec_live)
		return;
	c->loaded = true;
	__asm__ volatile("stmxcsr %0" : "+m"(c->mxcsr_host));
	c->x87_fip = ld64(x + FPU_FIP);
	c->x87_fdp = ld64(x + FPU_FDP);
	c->x87_fop = ld16(x + FPU_FOP);
	if (mask)
		__asm__ volatile("xrstor64 (%0)" : : "r"(x), "a"(mask), "d"(0) : "memory");
	else
		__asm__ volatile("fxrstor64 (%0)" : : "r"(x) : "memory");
	c->vec_live = 1;
	fpu_set_gates(c);
}

/* Components' initial states [SDM1 13.6]. */
static void init_component(u8 *x, u64 component)
{
	switch (component) {
	case XFEATURE_X87:
		soft_zero(x, FPU_MXCSR);
		st16(x + FPU_FCW, FPU_FCW_INIT);
		soft_zero(x + FPU_ST, FPU_XMM - FPU_ST);
		break;
	case XFEATURE_SSE: soft_zero(x + FPU_XMM, FPU_XMM_END - FPU_XMM); break;
	default: soft_zero(x + offset_of(&fpu_layout, component), size_of(component));
	}
}

void fpu_move_top(u8 *x, unsigned from, unsigned to)
{
	u8 old[8][16];

	soft_copy(old, x + FPU_ST, sizeof(old));
	for (unsigned k = 0; k < 8; k++)
		soft_copy(x + FPU_ST + 16 * k, old[(to + k - from) & 7], 16);
}

void fpu_top_0(u8 *x)
{
	fpu_move_top(x, fpu_top(x), 0);
	st16(x + FPU_FSW, ld16(x + FPU_FSW) & ~(7u << FPU_FSW_TOP_SHIFT));
}

void fpu_image_loaded(struct soft_cpu *c)
{
	u8 *x = c->xsave;
	u64 bv = ld64(x + FPU_XSTATE_BV) & (components(c) | XFEATURE_X87 | XFEATURE_SSE);

	for (u64 b = XFEATURE_X87; b <= XFEATURE_HI16_ZMM; b <<= 1)
		if (b & COMPONENTS && !(bv & b))
			init_component(x, b);
	soft_zero(x + FPU_XSTATE_BV, FPU_HDR_END - FPU_XSTATE_BV);
	st64(x + FPU_XSTATE_BV, bv);
	st32(x + FPU_MXCSR, ld32(x + FPU_MXCSR) & mxcsr_mask);
	st16(x + FPU_FOP, ld16(x + FPU_FOP) & 0x7ff);
	c->vec_live = 0;
	fpu_set_gates(c);
}

/* --- what is on -------------------------------------------------------------------------- */
void fpu_mode_changed(struct soft_cpu *c)
{
	unsigned off = 0;
	bool legacy = soft_real_or_vm86(c);

	if (c->cr0 & CR0_EM)
		off |= FPU_OFF_EM;
	if (c->cr0 & CR0_TS)
		off |= FPU_OFF_TS | (c->cr0 & CR0_MP ? FPU_OFF_WAIT : 0);
	if (!(c->cr4 & CR4_OSFXSR))
		off |= FPU_OFF_FXSR;
	if (!(c->cr4 & CR4_OSXSAVE))
		off |= FPU_OFF_XSAVE;
	if (legacy)
		off |= FPU_OFF_VEX;
	if (legacy || !(c->cr4 & CR4_OSXSAVE) ||
	    (c->xcr0 & (XFEATURE_SSE | XFEATURE_AVX)) != (XFEATURE_SSE | XFEATURE_AVX))
		off |= FPU_OFF_AVX;
	if (off & FPU_OFF_AVX || (c->xcr0 & XFEATURE_AVX512) != XFEATURE_AVX512)
		off |= FPU_OFF_AVX512;
	c->simd_off = (u8)off;
	fpu_set_gates(c);
}

_Noreturn void fpu_raise_off(struct soft_cpu *c, const struct insn *i, unsigned class_bits, bool x87)
{
	unsigned off = c->simd_off & class_bits;

	/* EM makes x87 instructions #NM, the others #UD. */
	soft_raise(c, i, off & ~(unsigned)FPU_OFF_TS && !x87 ? EXC_UD : EXC_NM, NO_ERROR);
}

/* --- FXSAVE, FXRSTOR [SDM1 10.5] --------------------------------------------------------- */
static unsigned xmm_end(const struct soft_cpu *c)
{
	return soft_mode64(c) ? FPU_XMM_END : FPU_XMM + 8 * 16;
}

/* Bytes 8..23 of an image: 64-bit pointers with REX.W, else 32-bit ones and selectors. */
static void put_pointers(const struct soft_cpu *c, const struct insn *i, u8 *x)
{
	if (i->rex & REX_W)
		return;
	st32(x + FPU_FIP + 4, c->x87_fcs);
	st32(x + FPU_FDP + 4, c->x87_fds);
}

static void take_pointers(struct soft_cpu *c, const struct insn *i, u8 *x)
{
	if (i->rex & REX_W) {
		c->x87_fcs = c->x87_fds = 0;
		return;
	}
	c->x87_fcs = ld16(x + FPU_FIP + 4);
	c->x87_fds = ld16(x + FPU_FDP + 4);
	st32(x + FPU_FIP + 4, 0);
	st32(x + FPU_FDP + 4, 0);
}

/* Pending exceptions follow from status and control word, whatever the image says. */
static void fix_x87(u8 *x)
{
	unsigned fsw = ld16(x + FPU_FSW), pending = fsw & ~ld16(x + FPU_FCW) & 0x3f;

	fsw &= (unsigned)~(FPU_FSW_ES | FPU_FSW_B);
	if (pending)
		fsw |= (unsigned)(FPU_FSW_ES | FPU_FSW_B);
	st16(x + FPU_FSW, (u16)fsw);
	st16(x + FPU_FCW, (u16)((ld16(x + FPU_FCW) & 0x1f3f) | 0x40));
	st16(x + FPU_FOP, ld16(x + FPU_FOP) & 0x7ff);
	st16(x + FPU_FTW, x[FPU_FTW]);
	for (unsigned k = 0; k < 8; k++) {
		st16(x + FPU_ST + 16 * k + 10, 0);
		st32(x + FPU_ST + 16 * k + 12, 0);
	}
}

void op_fxsave(struct soft_cpu *c, const struct insn *i)
{
	u8 buf[FPU_XMM_END];
	gva_t la;

	if (c->simd_off & FPU_CLASS_X87)
		fpu_raise_off(c, i, FPU_CLASS_X87, true);
	la = insn_la(c, i, FPU_LEGACY_SIZE, ACC_W);
	if (la & 15)
		soft_gp(c, i, 0);
	mmu_probe(c, i, la, FPU_LEGACY_SIZE, ACC_W);
	fpu_spill(c);
	soft_copy(buf, c->xsave, sizeof(buf));
	st32(buf + FPU_MXCSR_MASK, mxcsr_mask);
	put_pointers(c, i, buf);
	mmu_write_buf(c, i, la, buf, xmm_end(c));
	NEXT(c, i);
}

void op_fxrstor(struct soft_cpu *c, const struct insn *i)
{
	u8 buf[FPU_LEGACY_SIZE], *x = c->xsave;
	gva_t la;

	if (c->simd_off & FPU_CLASS_X87)
		fpu_raise_off(c, i, FPU_CLASS_X87, true);
	la = insn_la(c, i, FPU_LEGACY_SIZE, ACC_R);
	if (la & 15)
		soft_gp(c, i, 0);
	mmu_read_buf(c, i, la, buf, sizeof(buf));
	if (ld32(buf + FPU_MXCSR) & ~mxcsr_mask)
		soft_gp(c, i, 0);
	fpu_spill(c);
	take_pointers(c, i, buf);
	soft_copy(x, buf, FPU_MXCSR_MASK);
	soft_copy(x + FPU_ST, buf + FPU_ST, xmm_end(c) - FPU_ST);
	fix_x87(x);
	st64(x + FPU_XSTATE_BV, ld64(x + FPU_XSTATE_BV) | XFEATURE_X87 | XFEATURE_SSE);
	NEXT(c, i);
}

/* --- MXCSR ------------------------------------------------------------------------------- */
void op_ldmxcsr(struct soft_cpu *c, const struct insn *i)
{
	u32 v;

	fpu_check(c, i, i->pfx & PFX_VEX ? FPU_CLASS_AVX : FPU_CLASS_SSE);
	v = ld32_la(c, i, insn_la(c, i, 4, ACC_R));
	if (v & ~mxcsr_mask)
		soft_gp(c, i, 0);
	if (c->vec_live)
		__asm__ volatile("ldmxcsr %0" : : "m"(v));
	else
		st32(c->xsave + FPU_MXCSR, v);
	NEXT(c, i);
}

void op_stmxcsr(struct soft_cpu *c, const struct insn *i)
{
	u32 v;
	gva_t la;

	fpu_check(c, i, i->pfx & PFX_VEX ? FPU_CLASS_AVX : FPU_CLASS_SSE);
	la = insn_la(c, i, 4, ACC_W);
	if (c->vec_live)
		__asm__ volatile("stmxcsr %0" : "=m"(v));
	else
		v = ld32(c->xsave + FPU_MXCSR);
	st32_la(c, i, la, v);
	NEXT(c, i);
}

/* --- XSAVE and its kin [SDM1 13.7-13.12] ------------------------------------------------- */
struct xs_area {
	gva_t la;
	u64 rfbm; /* requested features */
};

static void xs_check(struct soft_cpu *c, const struct insn *i)
{
	if (unlikely(c->simd_off & FPU_OFF_XSAVE))
		soft_ud(c, i);
	if (unlikely(c->simd_off & FPU_OFF_TS))
		soft_raise(c, i, EXC_NM, NO_ERROR);
}

/* Where component b of the guest's area is: standard format, or compacted with the components in comp. */
static unsigned xs_offset(const struct soft_cpu *c, u64 comp, u64 b)
{
	unsigned at = FPU_HDR_END;

	if (!comp)
		return offset_of(&c->vcpu->vm->cpuid.xsave, b);
	for (unsigned k = 0; extended[k] != b; k++)
		if (comp & extended[k])
			at += size_of(extended[k]);
	return at;
}

/* How much of it is accessed: outside 64-bit mode the lower eight registers [SDM1 13.5]. */
static unsigned xs_size(const struct soft_cpu *c, u64 b)
{
	if (soft_mode64(c) || b == XFEATURE_OPMASK)
		return size_of(b);
	return b == XFEATURE_HI16_ZMM ? 0 : size_of(b) / 2;
}

/* The bytes of an area with these components. */
static unsigned xs_end(const struct soft_cpu *c, u64 comp, u64 in)
{
	unsigned end = FPU_HDR_END;

	for (unsigned k = 0; k < ARRAY_SIZE(extended); k++)
		if (in & extended[k] && xs_size(c, extended[k]))
			end = MAX(end, xs_offset(c, comp, extended[k]) + xs_size(c, extended[k]));
	return end;
}

static struct xs_area xs_area(struct soft_cpu *c, const struct insn *i, unsigned acc)
{
	struct xs_area a;
	u64 mask = (u32)c->gpr[R_AX] | c->gpr[R_DX] << 32;

	a.rfbm = mask & c->xcr0;
	a.la = insn_la(c, i, xs_end(c, 0, a.rfbm), acc);
	if (a.la & 63)
		soft_gp(c, i, 0);
	return a;
}

static u64 xs_in_use(const struct soft_cpu *c)
{
	return ld64(c->xsave + FPU_XSTATE_BV) & c->xcr0;
}

enum xs_save { XS_SAVE, XS_SAVEOPT, XS_SAVEC };

static void xs_save(struct soft_cpu *c, const struct insn *i, enum xs_save kind)
{
	u8 buf[FPU_HDR_END];
	struct xs_area a = xs_area(c, i, ACC_W | (kind == XS_SAVEC ? 0 : ACC_R));
	bool compact = kind == XS_SAVEC;
	u64 in_use, write, comp;
	unsigned size;

	fpu_spill(c);
	in_use = xs_in_use(c);
	write = kind == XS_SAVE ? a.rfbm : a.rfbm & in_use;
	if (compact && a.rfbm & XFEATURE_SSE && ld32(c->xsave + FPU_MXCSR) != FPU_MXCSR_INIT) {
		write |= XFEATURE_SSE;
		in_use |= XFEATURE_SSE;
	}
	comp = compact ? a.rfbm : 0;
	size = xs_end(c, comp, write);
	mmu_probe(c, i, a.la, size, ACC_W | (compact ? 0 : ACC_R));

	soft_copy(buf, c->xsave, FPU_LEGACY_SIZE);
	st32(buf + FPU_MXCSR_MASK, mxcsr_mask);
	put_pointers(c, i, buf);
	if (compact) {
		st64(buf + FPU_XSTATE_BV, a.rfbm & in_use);
		st64(buf + FPU_XCOMP_BV, a.rfbm | BIT(63));
	} else {
		u64 old = ld64_la(c, i, a.la + FPU_XSTATE_BV);

		st64(buf + FPU_XSTATE_BV, (old & ~a.rfbm) | (in_use & a.rfbm));
	}
	if (write & XFEATURE_X87) {
		mmu_write_buf(c, i, a.la, buf, FPU_MXCSR);
		mmu_write_buf(c, i, a.la + FPU_ST, buf + FPU_ST, FPU_XMM - FPU_ST);
	}
	if (compact ? write & XFEATURE_SSE : a.rfbm & (XFEATURE_SSE | XFEATURE_AVX))
		mmu_write_buf(c, i, a.la + FPU_MXCSR, buf + FPU_MXCSR, 8);
	if (write & XFEATURE_SSE)
		mmu_write_buf(c, i, a.la + FPU_XMM, buf + FPU_XMM, xmm_end(c) - FPU_XMM);
	for (unsigned k = 0; k < ARRAY_SIZE(extended); k++)
		if (write & extended[k])
			mmu_write_buf(c, i, a.la + xs_offset(c, comp, extended[k]),
				      c->xsave + offset_of(&fpu_layout, extended[k]),
				      xs_size(c, extended[k]));
	mmu_write_buf(c, i, a.la + FPU_XSTATE_BV, buf + FPU_XSTATE_BV, compact ? 16 : 8);
}

void op_xsave(struct soft_cpu *c, const struct insn *i)
{
	xs_check(c, i);
	xs_save(c, i, XS_SAVE);
	NEXT(c, i);
}

void op_xsaveopt(struct soft_cpu *c, const struct insn *i)
{
	xs_check(c, i);
	xs_save(c, i, XS_SAVEOPT);
	NEXT(c, i);
}

void op_xsavec(struct soft_cpu *c, const struct insn *i)
{
	xs_check(c, i);
	xs_save(c, i, XS_SAVEC);
	NEXT(c, i);
}

void op_xsaves(struct soft_cpu *c, const struct insn *i)
{
	xs_check(c, i);
	if (c->cpl)
		soft_gp(c, i, 0);
	xs_save(c, i, XS_SAVEC);
	NEXT(c, i);
}

/* The header's rules; true: compacted. */
static bool xs_header(struct soft_cpu *c, const struct insn *i, const u8 *hdr, bool supervisor)
{
	u64 bv = ld64(hdr), comp = ld64(hdr + 8), rest = 0;
	bool compact = comp >> 63;

	for (unsigned k = 16; k < 64; k += 8)
		if (compact || k < 24)
			rest |= ld64(hdr + k);
	if (compact && !supervisor && !soft_has(c, X86_FEATURE_XSAVEC))
		soft_gp(c, i, 0);
	if (!compact && (supervisor || comp))
		soft_gp(c, i, 0);
	if (rest || (compact && (comp & ~BIT(63) & ~c->xcr0 || bv & ~comp || bv >> 63)) ||
	    (!compact && bv & ~c->xcr0))
		soft_gp(c, i, 0);
	return compact;
}

static void xs_restore(struct soft_cpu *c, const struct insn *i, bool supervisor)
{
	u8 buf[X86_XSAVE_SIZE], *x = c->xsave; /* the extended components where the image has them */
	struct xs_area a = xs_area(c, i, ACC_R);
	u64 bv, comp, in_use;
	bool compact, mxcsr, mxcsr_init;

	mmu_read_buf(c, i, a.la, buf, FPU_HDR_END);
	compact = xs_header(c, i, buf + FPU_XSTATE_BV, supervisor);
	bv = ld64(buf + FPU_XSTATE_BV);
	comp = compact ? ld64(buf + FPU_XCOMP_BV) & ~BIT(63) : 0;
	for (unsigned k = 0; k < ARRAY_SIZE(extended); k++)
		if (a.rfbm & bv & extended[k])
			mmu_read_buf(c, i, a.la + xs_offset(c, comp, extended[k]),
				     buf + offset_of(&fpu_layout, extended[k]), xs_size(c, extended[k]));
	mxcsr = compact ? a.rfbm & bv & XFEATURE_SSE : a.rfbm & (XFEATURE_SSE | XFEATURE_AVX);
	mxcsr_init = compact && a.rfbm & ~bv & XFEATURE_SSE;
	if (mxcsr && ld32(buf + FPU_MXCSR) & ~mxcsr_mask)
		soft_gp(c, i, 0);

	fpu_spill(c);
	in_use = (ld64(x + FPU_XSTATE_BV) & ~a.rfbm) | (bv & a.rfbm);
	if (mxcsr || mxcsr_init)
		st32(x + FPU_MXCSR, mxcsr ? ld32(buf + FPU_MXCSR) : FPU_MXCSR_INIT);
	if (a.rfbm & XFEATURE_X87) {
		if (bv & XFEATURE_X87) {
			take_pointers(c, i, buf);
			soft_copy(x, buf, FPU_MXCSR);
			soft_copy(x + FPU_ST, buf + FPU_ST, FPU_XMM - FPU_ST);
			fix_x87(x);
		} else {
			init_component(x, XFEATURE_X87);
			c->x87_fcs = c->x87_fds = 0;
		}
	}
	if (a.rfbm & XFEATURE_SSE) {
		if (bv & XFEATURE_SSE)
			soft_copy(x + FPU_XMM, buf + FPU_XMM, xmm_end(c) - FPU_XMM);
		else
			soft_zero(x + FPU_XMM, xmm_end(c) - FPU_XMM);
	}
	for (unsigned k = 0; k < ARRAY_SIZE(extended); k++) {
		unsigned at = offset_of(&fpu_layout, extended[k]);

		if (!(a.rfbm & extended[k]))
			continue;
		if (bv & extended[k])
			soft_copy(x + at, buf + at, xs_size(c, extended[k]));
		else
			soft_zero(x + at, xs_size(c, extended[k]));
	}
	/* Outside 64-bit mode the upper registers stay: then the component stays in use. */
	if (!soft_mode64(c))
		in_use |= ld64(x + FPU_XSTATE_BV) &
			  (XFEATURE_SSE | XFEATURE_AVX | XFEATURE_ZMM_HI256 | XFEATURE_HI16_ZMM);
	st64(x + FPU_XSTATE_BV, in_use);
}

void op_xrstor(struct soft_cpu *c, const struct insn *i)
{
	xs_check(c, i);
	xs_restore(c, i, false);
	NEXT(c, i);
}

void op_xrstors(struct soft_cpu *c, const struct insn *i)
{
	xs_check(c, i);
	if (c->cpl)
		soft_gp(c, i, 0);
	xs_restore(c, i, true);
	NEXT(c, i);
}

void op_xgetbv(struct soft_cpu *c, const struct insn *i)
{
	u32 n = (u32)c->gpr[R_CX];
	u64 v = c->xcr0;

	if (unlikely(c->simd_off & FPU_OFF_XSAVE))
		soft_ud(c, i);
	if (n == 1 && soft_has(c, X86_FEATURE_XGETBV1)) {
		fpu_spill(c);
		v = xs_in_use(c);
		/* [SDM1 13.2]: MXCSR counts as SSE state. */
		if (c->xcr0 & XFEATURE_SSE && ld32(c->xsave + FPU_MXCSR) != FPU_MXCSR_INIT)
			v |= XFEATURE_SSE;
	} else if (n) {
		soft_gp(c, i, 0);
	}
	c->gpr[R_AX] = (u32)v;
	c->gpr[R_DX] = v >> 32;
	NEXT(c, i);
}

void op_xsetbv(struct soft_cpu *c, const struct insn *i)
{
	u64 v = (u32)c->gpr[R_AX] | c->gpr[R_DX] << 32, t0 = vcpu_rdtsc();

	if (unlikely(c->simd_off & FPU_OFF_XSAVE))
		soft_ud(c, i);
	if (c->cpl || (u32)c->gpr[R_CX] || v & ~c->vcpu->vm->cpuid.xcr0_mask || !(v & XFEATURE_X87) ||
	    (v & XFEATURE_AVX && !(v & XFEATURE_SSE)) ||
	    (v & XFEATURE_AVX512 &&
	     (v & (XFEATURE_AVX | XFEATURE_AVX512)) != (XFEATURE_AVX | XFEATURE_AVX512)))
		soft_gp(c, i, 0);
	c->xcr0 = v;
	fpu_mode_changed(c);
	soft_account(c, EXIT_XSETBV, EXIT_NO_KEY, t0);
	END(c, i);
}

void op_fwait(struct soft_cpu *c, const struct insn *i)
{
	u16 fsw;

	if (unlikely(c->simd_off & FPU_OFF_WAIT))
		soft_raise(c, i, EXC_NM, NO_ERROR);
	if (c->vec_live)
		__asm__ volatile("fnstsw %0" : "=a"(fsw));
	else
		fsw = ld16(c->xsave + FPU_FSW);
	if (fsw & FPU_FSW_ES)
		soft_raise(c, i, EXC_MF, NO_ERROR);
	NEXT(c, i);
}
