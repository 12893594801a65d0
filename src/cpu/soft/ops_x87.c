/* The x87 environment and whole state in memory: FNSTENV, FLDENV, FNSAVE, FRSTOR, FNINIT [SDM1 8.1.10, SDM2].
 *
 * Four layouts of the environment, by operand size and mode; 64-bit mode has the protected ones. The
 * image that fpu_spill() made has it all but the full tag word, which is computed from the registers'
 * contents. FCS and FDS are the selectors at the time of the last instruction that was no control
 * instruction.
 *
 * The native instructions are not used: the host would store its own pointers, into a thunk.
 *
 * On the vCPU's thread.
 */
#include "cpu/soft/fpu.h"
#include "cpu/soft/ops.h"
#include "cpu/soft/thunk.h"

#define FOP_BITS 0x7ffu

/* The two bits of one register: 0 valid, 1 zero, 2 special, 3 empty [SDM1 8.1.7]. */
static unsigned tag_of(const u8 *st)
{
	u64 mantissa = ld64(st);
	unsigned exponent = ld16(st + 8) & 0x7fff;

	if (!exponent)
		return mantissa ? 2 : 1;
	return exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

static u16 full_tags(const u8 *x)
{
	unsigned top = fpu_top(x), tags = 0;

	for (unsigned r = 0; r < 8; r++) {
		unsigned tag = x[FPU_FTW] >> r & 1 ? tag_of(x + FPU_ST + 16 * ((r - top) & 7)) : 3;

		tags |= tag << (2 * r);
	}
	return (u16)tags;
}

static void set_tags(u8 *x, unsigned full)
{
	unsigned valid = 0;

	for (unsigned r = 0; r < 8; r++)
		if ((full >> (2 * r) & 3) != 3)
			valid |= 1u << r;
	st16(x + FPU_FTW, (u16)valid);
}

/* ES and B follow from the flags and masks. */
static void fix_status(u8 *x)
{
	unsigned fsw = ld16(x + FPU_FSW) & (unsigned)~(FPU_FSW_ES | FPU_FSW_B);

	if (fsw & ~ld16(x + FPU_FCW) & 0x3f)
		fsw |= (unsigned)(FPU_FSW_ES | FPU_FSW_B);
	st16(x + FPU_FSW, (u16)fsw);
	st64(x + FPU_XSTATE_BV, ld64(x + FPU_XSTATE_BV) | XFEATURE_X87);
}

static unsigned env_size(const struct insn *i)
{
	return i->osz == 2 ? 14 : 28;
}

static void put_env(const struct soft_cpu *c, const struct insn *i, u8 *e)
{
	const u8 *x = c->xsave;
	bool real = soft_real_or_vm86(c);
	u64 fip = ld64(x + FPU_FIP), fdp = ld64(x + FPU_FDP);
	u32 fop = ld16(x + FPU_FOP) & FOP_BITS;
	u32 lip = (u32)fip + ((u32)c->x87_fcs << 4), ldp = (u32)fdp + ((u32)c->x87_fds << 4);

	if (i->osz == 2) {
		st16(e, ld16(x + FPU_FCW));
		st16(e + 2, ld16(x + FPU_FSW));
		st16(e + 4, full_tags(x));
		st16(e + 6, (u16)(real ? lip : fip));
		st16(e + 8, real ? (u16)((lip >> 4 & 0xf000) | fop) : c->x87_fcs);
		st16(e + 10, (u16)(real ? ldp : fdp));
		st16(e + 12, real ? (u16)(ldp >> 4 & 0xf000) : c->x87_fds);
		return;
	}
	st32(e, 0xffff0000u | ld16(x + FPU_FCW));
	st32(e + 4, 0xffff0000u | ld16(x + FPU_FSW));
	st32(e + 8, 0xffff0000u | full_tags(x));
	if (real) {
		st32(e + 12, 0xffff0000u | (u16)lip);
		st32(e + 16, (lip >> 16) << 12 | fop);
		st32(e + 20, 0xffff0000u | (u16)ldp);
		st32(e + 24, (ldp >> 16) << 12);
	} else {
		st32(e + 12, (u32)fip);
		st32(e + 16, fop << 16 | c->x87_fcs);
		st32(e + 20, (u32)fdp);
		st32(e + 24, 0xffff0000u | c->x87_fds);
	}
}

static void take_env(struct soft_cpu *c, const struct insn *i, const u8 *e)
{
	u8 *x = c->xsave;
	bool real = soft_real_or_vm86(c), small = i->osz == 2;
	unsigned step = small ? 2 : 4;
	u32 ip, cs, dp, ds;

	ip = small ? ld16(e + 6) : ld32(e + 12);
	cs = small ? ld16(e + 8) : ld32(e + 16);
	dp = small ? ld16(e + 10) : ld32(e + 20);
	ds = small ? ld16(e + 12) : ld32(e + 24);
	st16(x + FPU_FCW, (u16)((ld16(e) & 0x1f3f) | 0x40));
	st16(x + FPU_FSW, ld16(e + step));
	set_tags(x, ld16(e + 2 * step));
	c->x87_fcs = c->x87_fds = 0;
	if (real) {
		/* Linear addresses: bits 16.. in bits 12.. of the next word. */
		st16(x + FPU_FOP, cs & FOP_BITS);
		ip = (ip & 0xffff) | (cs >> 12) << 16;
		dp = (dp & 0xffff) | (ds >> 12) << 16;
	} else {
		st16(x + FPU_FOP, small ? 0 : cs >> 16 & FOP_BITS);
		c->x87_fcs = (u16)cs;
		c->x87_fds = (u16)ds;
	}
	st64(x + FPU_FIP, ip);
	st64(x + FPU_FDP, dp);
	fix_status(x);
}

static void init_state(struct soft_cpu *c)
{
	u8 *x = c->xsave;

	/* The registers keep their contents, tagged empty. */
	fpu_move_top(x, fpu_top(x), 0);
	soft_zero(x, FPU_MXCSR);
	st16(x + FPU_FCW, FPU_FCW_INIT);
	c->x87_fcs = c->x87_fds = 0;
	st64(x + FPU_XSTATE_BV, ld64(x + FPU_XSTATE_BV) | XFEATURE_X87);
}

/* Waiting instructions: a pending exception is raised first. The state is spilled. */
static void wait_check(struct soft_cpu *c, const struct insn *i)
{
	if (ld16(c->xsave + FPU_FSW) & FPU_FSW_ES)
		soft_raise(c, i, EXC_MF, NO_ERROR);
}

void op_x87_stenv(struct soft_cpu *c, const struct insn *i)
{
	unsigned n = env_size(i);
	u8 env[28];
	gva_t la;

	fpu_check_x87(c, i);
	la = insn_la(c, i, n, ACC_W);
	mmu_probe(c, i, la, n, ACC_W);
	fpu_spill(c);
	put_env(c, i, env);
	mmu_write_buf(c, i, la, env, n);
	st16(c->xsave + FPU_FCW, ld16(c->xsave + FPU_FCW) | 0x3f);
	fix_status(c->xsave);
	NEXT(c, i);
}

void op_x87_ldenv(struct soft_cpu *c, const struct insn *i)
{
	unsigned n = env_size(i), top;
	u8 env[28];

	fpu_check_x87(c, i);
	fpu_spill(c);
	wait_check(c, i);
	mmu_read_buf(c, i, insn_la(c, i, n, ACC_R), env, n);
	top = fpu_top(c->xsave);
	take_env(c, i, env);
	fpu_move_top(c->xsave, top, fpu_top(c->xsave));
	NEXT(c, i);
}

void op_x87_save(struct soft_cpu *c, const struct insn *i)
{
	unsigned n = env_size(i);
	u8 image[28 + 80];
	gva_t la;

	fpu_check_x87(c, i);
	la = insn_la(c, i, n + 80, ACC_W);
	mmu_probe(c, i, la, n + 80, ACC_W);
	fpu_spill(c);
	put_env(c, i, image);
	for (unsigned k = 0; k < 8; k++)
		soft_copy(image + n + 10 * k, c->xsave + FPU_ST + 16 * k, 10);
	mmu_write_buf(c, i, la, image, n + 80);
	init_state(c);
	NEXT(c, i);
}

void op_x87_rstor(struct soft_cpu *c, const struct insn *i)
{
	unsigned n = env_size(i);
	u8 image[28 + 80];

	fpu_check_x87(c, i);
	fpu_spill(c);
	wait_check(c, i);
	mmu_read_buf(c, i, insn_la(c, i, n + 80, ACC_R), image, n + 80);
	take_env(c, i, image);
	for (unsigned k = 0; k < 8; k++)
		soft_copy(c->xsave + FPU_ST + 16 * k, image + n + 10 * k, 10);
	NEXT(c, i);
}

void op_x87_init(struct soft_cpu *c, const struct insn *i)
{
	fpu_check_x87(c, i);
	if (c->vec_live) {
		__asm__ volatile("fninit");
		c->x87_fip = c->x87_fdp = 0;
		c->x87_fop = c->x87_fcs = c->x87_fds = 0;
	} else {
		init_state(c);
	}
	NEXT(c, i);
}
