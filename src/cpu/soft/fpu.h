/* Vector and x87 state of the software engine: where it is, and which classes of instructions fault at
 * once. */
#pragma once

#include "cpu/soft/soft.h"

/* Why a class is off: bits of cpu->simd_off. */
enum fpu_off {
	FPU_OFF_EM = 1 << 0,     /* CR0.EM */
	FPU_OFF_TS = 1 << 1,     /* CR0.TS */
	FPU_OFF_WAIT = 1 << 2,   /* CR0.TS and CR0.MP: FWAIT */
	FPU_OFF_FXSR = 1 << 3,   /* CR4.OSFXSR = 0 */
	FPU_OFF_XSAVE = 1 << 4,  /* CR4.OSXSAVE = 0 */
	FPU_OFF_AVX = 1 << 5,    /* VEX vector instructions: OSXSAVE, XCR0, mode */
	FPU_OFF_VEX = 1 << 6,    /* VEX at all: real-address or virtual-8086 mode */
	FPU_OFF_AVX512 = 1 << 7, /* EVEX and mask registers: as AVX, and more of XCR0 */
};
/* Per class: which bits matter. */
#define FPU_CLASS_X87    (FPU_OFF_EM | FPU_OFF_TS)
#define FPU_CLASS_MMX    (FPU_OFF_EM | FPU_OFF_TS)
#define FPU_CLASS_SSE    (FPU_OFF_EM | FPU_OFF_TS | FPU_OFF_FXSR)
#define FPU_CLASS_AVX    (FPU_OFF_AVX | FPU_OFF_TS)
#define FPU_CLASS_AVX512 (FPU_OFF_AVX512 | FPU_OFF_TS)

/* What translated code asks before vector and x87 instructions: the bits of simd_off that concern the class, and
 * this one while the guest's state is not in the host's registers. */
#define FPU_GATE_DEAD BIT(8)

static inline void fpu_set_gates(struct soft_cpu *c)
{
	u32 dead = c->vec_live ? 0 : FPU_GATE_DEAD;

	c->sse_gate = (c->simd_off & FPU_CLASS_SSE) | dead;
	c->avx_gate = (c->simd_off & FPU_CLASS_AVX) | dead;
	c->avx512_gate = (c->simd_off & FPU_CLASS_AVX512) | dead;
}

/* Offsets in the XSAVE image [SDM1 10.5.1, 13.4]. */
enum {
	FPU_FCW = 0,
	FPU_FSW = 2,
	FPU_FTW = 4,
	FPU_FOP = 6,
	FPU_FIP = 8,
	FPU_FDP = 16,
	FPU_MXCSR = 24,
	FPU_MXCSR_MASK = 28,
	FPU_ST = 32,
	FPU_XMM = 160,
	FPU_XMM_END = 416,
	FPU_LEGACY_SIZE = 512,
	FPU_XSTATE_BV = 512,
	FPU_XCOMP_BV = 520,
	FPU_HDR_END = 576,
	FPU_YMMH = X86_XSAVE_AVX_OFFSET,
};

/* The components of AVX-512: where they are in the image is the host's choice. */
#define XFEATURE_AVX512    (XFEATURE_OPMASK | XFEATURE_ZMM_HI256 | XFEATURE_HI16_ZMM)
#define FPU_OPMASK_SIZE    64u
#define FPU_ZMM_HI256_SIZE 512u
#define FPU_HI16_ZMM_SIZE  1024u
extern struct x86_xsave_layout fpu_layout;

#define FPU_BEFORE_STORE  0x1fu /* exceptions, in FSW and FCW, that keep a result back: all but P [SDM1 8.5] */
#define FPU_FSW_ES        BIT(7)
#define FPU_FSW_B         BIT(15)
#define FPU_FSW_TOP_SHIFT 11
#define FPU_FCW_INIT      0x37f
#define FPU_MXCSR_INIT    0x1f80u

/* Host code, once (again: nothing): what the host can save. */
void fpu_init(void);
/* After it: the state of AVX-512 too. */
bool fpu_has_avx512(void);
/* The image in x86_state's layout into c->xsave, and out of it. Host code. */
void fpu_import(struct soft_cpu *c, const u8 *image);
void fpu_export(const struct soft_cpu *c, u8 *ret_image);
/* Byte n of vector register reg in the image. */
static inline u8 *fpu_vec_byte(const struct soft_cpu *c, unsigned reg, unsigned n)
{
	if (reg >= 16)
		return c->xsave + fpu_layout.hi16_zmm + 64 * (reg - 16) + n;
	if (n >= 32)
		return c->xsave + fpu_layout.zmm_hi256 + 32 * reg + (n & 31);
	return c->xsave + (n < 16 ? FPU_XMM : FPU_YMMH) + 16 * reg + (n & 15);
}
/* Recomputes c->simd_off from CR0, CR4, XCR0 and the mode. soft_mode_changed() calls it. */
void fpu_mode_changed(struct soft_cpu *c);
/* The image c->xsave came from outside (reset, set_state): reserved bits are dropped, components in
 * their initial state are written out, so that from here on all bytes are always valid and XSTATE_BV is
 * just XINUSE. */
void fpu_image_loaded(struct soft_cpu *c);

/* The top of the x87 stack, in an image. */
static inline unsigned fpu_top(const u8 *x)
{
	return ld16(x + FPU_FSW) >> FPU_FSW_TOP_SHIFT & 7;
}
/* The image lists the registers from the top of the stack: when the top moves and the registers do not, they change places
 * there. FSW is the caller's. */
void fpu_move_top(u8 *x, unsigned from, unsigned to);
/* The registers in the order of MMX's, and FSW says so [SDM1 9.5]. */
void fpu_top_0(u8 *x);

/* Raises what the class's bits say: #UD or #NM. */
_Noreturn void fpu_raise_off(struct soft_cpu *c, const struct insn *i, unsigned class_bits, bool x87);

static inline void fpu_check(struct soft_cpu *c, const struct insn *i, unsigned class_bits)
{
	if (unlikely(c->simd_off & class_bits))
		fpu_raise_off(c, i, class_bits, false);
}

static inline void fpu_check_x87(struct soft_cpu *c, const struct insn *i)
{
	if (unlikely(c->simd_off & FPU_CLASS_X87))
		fpu_raise_off(c, i, FPU_CLASS_X87, true);
}

/* MXCSR bits that exist; the others are #GP. */
u32 fpu_mxcsr_mask(void);

/* ops_x87.c: environment and whole state in C; x87_row() names them. */
void op_x87_init(struct soft_cpu *c, const struct insn *i); /* FNINIT */
void op_x87_ldenv(struct soft_cpu *c, const struct insn *i);
void op_x87_stenv(struct soft_cpu *c, const struct insn *i);
void op_x87_save(struct soft_cpu *c, const struct insn *i);
void op_x87_rstor(struct soft_cpu *c, const struct insn *i);

/* ops_simd.c: element by element; simd_row() names them. */
void op_simd_vzero(struct soft_cpu *c, const struct insn *i); /* VZEROUPPER, VZEROALL */
void op_evex_gather(struct soft_cpu *c, const struct insn *i);
void op_evex_scatter(struct soft_cpu *c, const struct insn *i);
void op_simd_gather(struct soft_cpu *c, const struct insn *i);
void op_simd_vmaskmov_load(struct soft_cpu *c, const struct insn *i);
void op_simd_vmaskmov_store(struct soft_cpu *c, const struct insn *i);
void op_simd_maskmovdqu(struct soft_cpu *c, const struct insn *i);
void op_simd_maskmovq(struct soft_cpu *c, const struct insn *i);
