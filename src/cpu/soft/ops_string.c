/* MOVS STOS LODS CMPS SCAS with and without REP [SDM2 REP].
 *
 * A repeated move or store forward runs natively for as long as source and destination stay in their
 * pages; everything else goes element by element. Registers are kept up to date after each piece, so a
 * fault or an interrupt in the middle finds them right and the instruction is resumed by executing it
 * again. A long repetition lets events in after a bounded amount of work (CHUNKS pieces).
 *
 * A repeated CMPS or SCAS that faults, or is interrupted, leaves the flags of the last comparison on AMD's processors, on Intel's
 * those from before the instruction [SDM2 REP]. On the vCPU's thread only.
 */
#include "cpu/soft/ops.h"

#define CHUNKS   16
#define ELEMENTS 256

static inline u64 masked(const struct insn *i, u64 v)
{
	return i->asz == 8 ? v : i->asz == 4 ? (u32)v : (u16)v;
}

static inline void set_masked(struct soft_cpu *c, const struct insn *i, unsigned reg, u64 v)
{
	if (i->asz == 2)
		st16(&c->gpr[reg], (u16)v);
	else
		c->gpr[reg] = masked(i, v);
}

static inline gva_t src_la(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	if (likely(i->flat))
		return c->gpr[R_SI] + c->seg[i->seg].base;
	return seg_linear(c, i, i->seg, masked(i, c->gpr[R_SI]), size, ACC_R);
}

static inline gva_t dst_la(struct soft_cpu *c, const struct insn *i, unsigned size, unsigned acc)
{
	if (likely(i->flat))
		return c->gpr[R_DI];
	return seg_linear(c, i, soft_mode64(c) ? SEG_FLAT : SEG_ES, masked(i, c->gpr[R_DI]), size, acc);
}

static inline u64 load(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size)
{
	const void *p = tlb_read(c, la, size);

	if (unlikely(!p))
		return mmu_load(c, i, la, size, ACC_R);
	return size == 1 ? *(const u8 *)p : size == 2 ? ld16(p) : size == 4 ? ld32(p) : ld64(p);
}

static inline void store(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, u64 v)
{
	void *p = tlb_write(c, la, size);

	if (unlikely(!p))
		mmu_store(c, i, la, size, v);
	else if (size == 1)
		*(u8 *)p = (u8)v;
	else if (size == 2)
		st16(p, (u16)v);
	else if (size == 4)
		st32(p, (u32)v);
	else
		st64(p, v);
}

/* One piece of `n` elements is done: registers forward or backward. */
static inline void advance(struct soft_cpu *c, const struct insn *i, u64 n, bool src, bool dst)
{
	u64 delta = n * i->osz;

	if (c->flags & FL_DF)
		delta = -delta;
	if (src)
		set_masked(c, i, R_SI, c->gpr[R_SI] + delta);
	if (dst)
		set_masked(c, i, R_DI, c->gpr[R_DI] + delta);
	if (i->pfx & (PFX_F2 | PFX_F3))
		set_masked(c, i, R_CX, c->gpr[R_CX] - n);
}

/* How many elements there are to do. Before the first one, which may fault, Intel's processors write RCX back, and the pointers that
 * are named: with 32-bit addresses that clears their upper halves. */
static inline u64 count_of(struct soft_cpu *c, const struct insn *i, bool src, bool dst)
{
	u64 count;

	if (!(i->pfx & (PFX_F2 | PFX_F3)))
		return 1;
	count = masked(i, c->gpr[R_CX]);
	if (i->asz == 4 && !c->amd)
		advance(c, i, 0, src, dst);
	return count;
}

/* After a piece with elements left: may events wait? False: the handler returns, RIP at the instruction. */
static inline bool may_go_on(struct soft_cpu *c, const struct insn *i, unsigned *budget)
{
	if (likely(!(c->flags & FL_TF)) && --*budget)
		return true;
	c->rip = soft_rip(c, i);
	return false;
}

/* How many of count elements lie in la's page; 0 when not even one does. */
static inline u64 in_page(gva_t la, unsigned size, u64 count)
{
	u64 room = (RAM_PAGE_SIZE - (la & (RAM_PAGE_SIZE - 1))) / size;

	return MIN(room, count);
}

/* Whole pieces of pages, without a limit in the way: no fault of one operand comes before another's. */
static inline bool forward_flat(const struct soft_cpu *c, const struct insn *i)
{
	/* Lock-step: pieces by the same measure, however the operands are reached. */
	bool flat = i->flat || (c->key & KEY_FLAT && i->asz == 4 && i->seg < SEG_FS && i->seg != SEG_CS);

	return flat && !(c->flags & (FL_DF | FL_TF)) && !c->lockstep;
}

static void native_movs(void *d, const void *s, u64 n, unsigned size)
{
	switch (size) {
	case 1: __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory"); break;
	case 2: __asm__ volatile("rep movsw" : "+D"(d), "+S"(s), "+c"(n) : : "memory"); break;
	case 4: __asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(n) : : "memory"); break;
	default: __asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(n) : : "memory"); break;
	}
}

static void native_stos(void *d, u64 v, u64 n, unsigned size)
{
	switch (size) {
	case 1: __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(v) : "memory"); break;
	case 2: __asm__ volatile("rep stosw" : "+D"(d), "+c"(n) : "a"(v) : "memory"); break;
	case 4: __asm__ volatile("rep stosl" : "+D"(d), "+c"(n) : "a"(v) : "memory"); break;
	default: __asm__ volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(v) : "memory"); break;
	}
}

void op_movs(struct soft_cpu *c, const struct insn *i)
{
	u64 count = count_of(c, i, true, true), n;
	unsigned size = i->osz, chunks = CHUNKS * ELEMENTS;

	while (count) {
		n = 0;
		if (forward_flat(c, i)) {
			gva_t s = masked(i, c->gpr[R_SI]) + c->seg[i->seg].base, d = masked(i, c->gpr[R_DI]);
			const void *sp;
			void *dp;

			n = in_page(s, size, in_page(d, size, count));
			sp = n ? tlb_read(c, s, n * size) : NULL;
			dp = n ? tlb_write(c, d, n * size) : NULL;
			if (likely(sp && dp)) {
				native_movs(dp, sp, n, size);
				chunks -= MIN(chunks - 1, ELEMENTS - 1u);
			} else {
				n = 0;
			}
		}
		if (!n) {
			u64 v = load(c, i, src_la(c, i, size), size);

			store(c, i, dst_la(c, i, size, ACC_W), size, v);
			n = 1;
		}
		advance(c, i, n, true, true);
		count -= n;
		if (count && !may_go_on(c, i, &chunks))
			return;
	}
	NEXT(c, i);
}

void op_stos(struct soft_cpu *c, const struct insn *i)
{
	u64 count = count_of(c, i, false, true), n;
	unsigned size = i->osz, chunks = CHUNKS * ELEMENTS;

	while (count) {
		n = 0;
		if (forward_flat(c, i)) {
			gva_t d = masked(i, c->gpr[R_DI]);
			void *dp;

			n = in_page(d, size, count);
			dp = n ? tlb_write(c, d, n * size) : NULL;
			if (likely(dp)) {
				native_stos(dp, c->gpr[R_AX], n, size);
				chunks -= MIN(chunks - 1, ELEMENTS - 1u);
			} else {
				n = 0;
			}
		}
		if (!n) {
			store(c, i, dst_la(c, i, size, ACC_W), size, c->gpr[R_AX]);
			n = 1;
		}
		advance(c, i, n, false, true);
		count -= n;
		if (count && !may_go_on(c, i, &chunks))
			return;
	}
	NEXT(c, i);
}

static void set_accumulator(struct soft_cpu *c, unsigned size, u64 v)
{
	if (size == 1)
		*(u8 *)c->gpr = (u8)v;
	else if (size == 2)
		st16(c->gpr, (u16)v);
	else
		c->gpr[R_AX] = v;
}

void op_lods(struct soft_cpu *c, const struct insn *i)
{
	u64 count = count_of(c, i, false, false);
	unsigned budget = ELEMENTS;

	while (count) {
		set_accumulator(c, i->osz, load(c, i, src_la(c, i, i->osz), i->osz));
		advance(c, i, 1, true, false);
		if (--count && !may_go_on(c, i, &budget))
			return;
	}
	NEXT(c, i);
}

/* Flags of a - b at the operand size, as in c->fl. */
static u16 compare(u64 a, u64 b, unsigned size)
{
	u32 ax;

	switch (size) {
	case 1: __asm__("cmpb %b2, %b1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b) : "cc"); break;
	case 2: __asm__("cmpw %w2, %w1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b) : "cc"); break;
	case 4: __asm__("cmpl %k2, %k1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b) : "cc"); break;
	default: __asm__("cmpq %2, %1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b) : "cc"); break;
	}
	return (u16)ax;
}

static u64 load_src(struct soft_cpu *c, const struct insn *i)
{
	return load(c, i, src_la(c, i, i->osz), i->osz);
}

static u64 load_dst(struct soft_cpu *c, const struct insn *i)
{
	return load(c, i, dst_la(c, i, i->osz, ACC_R), i->osz);
}

/* Which operand of CMPS is read first, and so faults first, is nowhere said: rDI's on the processors of both makers. */
static void compare_strings(struct soft_cpu *c, const struct insn *i, bool two)
{
	u64 count = count_of(c, i, false, false), a, b;
	unsigned budget = ELEMENTS;
	u16 fl = c->fl;

	while (count) {
		b = load_dst(c, i);
		a = two ? load_src(c, i) : c->gpr[R_AX] & bits_mask(i->osz);
		advance(c, i, 1, two, true);
		fl = compare(a, b, i->osz);
		if (c->amd)
			c->fl = fl;
		count--;
		/* REPE goes on while equal, REPNE while not. */
		if (!count || (i->pfx & PFX_F3 && a != b) || (i->pfx & PFX_F2 && a == b))
			break;
		if (!may_go_on(c, i, &budget))
			return;
	}
	c->fl = fl;
	NEXT(c, i);
}

void op_cmps(struct soft_cpu *c, const struct insn *i)
{
	compare_strings(c, i, true);
}

void op_scas(struct soft_cpu *c, const struct insn *i)
{
	compare_strings(c, i, false);
}
