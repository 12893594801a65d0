/* Integer instructions, one handler per form and operand size [SDM2].
 *
 * The arithmetic itself is done by the same instruction of the host, so results and flags, the undefined
 * ones included, are the hardware's. Flags are kept as LAHF and SETO leave them in AX (struct soft_cpu,
 * fl); an instruction that reads flags, or leaves some alone, gets them loaded first by "add $0x7f, %al;
 * sahf": the addition makes OF from bit 0 of AL, and SAHF sets the other five.
 *
 * A read-modify-write form asks the TLB for a writable host address first; where there is none (page
 * crossing, MMIO, ROM, code page, miss) mmu_load() with ACC_W has proved that mmu_store() cannot fault
 * before any flag changes.
 *
 * On the vCPU's thread only.
 */
#include "cpu/soft/ops_int.h"

#include "cpu/soft/ops.h"

#define LOAD_FLAGS "addb $0x7f, %%al\n\tsahf\n\t"
#define SAVE_FLAGS "\n\tlahf\n\tseto %%al"

typedef u8 u8_any;
typedef u16 __attribute__((aligned(1))) u16_any;
typedef u32 __attribute__((aligned(1))) u32_any;
typedef u64 __attribute__((aligned(1))) u64_any;

/* --- registers by size --- */
static inline u8 get8(const struct soft_cpu *c, unsigned off)
{
	return *((const u8 *)c->gpr + off);
}
static inline void set8(struct soft_cpu *c, unsigned off, u8 v)
{
	*((u8 *)c->gpr + off) = v;
}
static inline u16 get16(const struct soft_cpu *c, unsigned r)
{
	return (u16)c->gpr[r];
}
static inline void set16(struct soft_cpu *c, unsigned r, u16 v)
{
	st16(&c->gpr[r], v);
}
static inline u32 get32(const struct soft_cpu *c, unsigned r)
{
	return (u32)c->gpr[r];
}
static inline void set32(struct soft_cpu *c, unsigned r, u32 v)
{
	c->gpr[r] = v;
}
static inline u64 get64(const struct soft_cpu *c, unsigned r)
{
	return c->gpr[r];
}
static inline void set64(struct soft_cpu *c, unsigned r, u64 v)
{
	c->gpr[r] = v;
}

#define REG8(i)  (i)->reg_b
#define REG16(i) (i)->reg
#define REG32(i) (i)->reg
#define REG64(i) (i)->reg
#define RM8(i)   (i)->rm_b
#define RM16(i)  (i)->rm
#define RM32(i)  (i)->rm
#define RM64(i)  (i)->rm

/* Expands M(bits, suffix letter) or with one leading argument for the four or the three sizes. */
#define FOR_SIZES(M, ...) \
	M(8, "b", ##__VA_ARGS__) M(16, "w", ##__VA_ARGS__) M(32, "l", ##__VA_ARGS__) M(64, "q", ##__VA_ARGS__)
#define FOR_SIZES3(M, ...) M(16, "w", ##__VA_ARGS__) M(32, "l", ##__VA_ARGS__) M(64, "q", ##__VA_ARGS__)

#define SIZES(prefix)                                         \
	{                                                     \
		prefix##8, prefix##16, prefix##32, prefix##64 \
	}
#define SIZES3(prefix)                                   \
	{                                                \
		NULL, prefix##16, prefix##32, prefix##64 \
	}

/* Modify in place: `stmt` changes `d` (of type u##n) and perhaps the flags. */
#define RMW(n, c, i, la, stmt)                                              \
	do {                                                                \
		u##n##_any *p_ = tlb_write(c, la, n / 8);                   \
		u##n d;                                                     \
		if (likely(p_)) {                                           \
			d = *p_;                                            \
			stmt;                                               \
			*p_ = d;                                            \
		} else {                                                    \
			d = (u##n)mmu_load(c, i, la, n / 8, ACC_R | ACC_W); \
			stmt;                                               \
			mmu_store(c, i, la, n / 8, d);                      \
		}                                                           \
	} while (0)

/* --- ADD OR ADC SBB AND SUB XOR CMP --- */
#define ALU_OPS(X) X(add, 0) X(or, 0) X(adc, 1) X(sbb, 1) X(and, 0) X(sub, 0) X(xor, 0)

#define ALU_ASM(op, sfx, carry, d, s, fl)                                                            \
	do {                                                                                         \
		u32 ax_ = (fl);                                                                      \
		if (carry)                                                                           \
			__asm__("bt $8, %%eax\n\t" #op sfx " %2, %0" SAVE_FLAGS                      \
				: "+r"(d), "+&a"(ax_)                                                \
				: "r"(s)                                                             \
				: "cc");                                                             \
		else                                                                                 \
			__asm__(#op sfx " %2, %0" SAVE_FLAGS : "+r"(d), "=&a"(ax_) : "r"(s) : "cc"); \
		(fl) = (u16)ax_;                                                                     \
	} while (0)

#define ALU_FORMS(n, sfx, op, carry)                                                              \
	static void op##_rr##n(struct soft_cpu *c, const struct insn *i)                          \
	{                                                                                         \
		u##n d = get##n(c, RM##n(i)), s = get##n(c, REG##n(i));                           \
		ALU_ASM(op, sfx, carry, d, s, c->fl);                                             \
		set##n(c, RM##n(i), d);                                                           \
		NEXT(c, i);                                                                       \
	}                                                                                         \
	static void op##_rm##n(struct soft_cpu *c, const struct insn *i)                          \
	{                                                                                         \
		u##n s = ld##n##_la(c, i, insn_la(c, i, n / 8, ACC_R)), d = get##n(c, REG##n(i)); \
		ALU_ASM(op, sfx, carry, d, s, c->fl);                                             \
		set##n(c, REG##n(i), d);                                                          \
		NEXT(c, i);                                                                       \
	}                                                                                         \
	static void op##_mr##n(struct soft_cpu *c, const struct insn *i)                          \
	{                                                                                         \
		gva_t la = insn_la(c, i, n / 8, ACC_R | ACC_W);                                   \
		u##n s = get##n(c, REG##n(i));                                                    \
		RMW(n, c, i, la, ALU_ASM(op, sfx, carry, d, s, c->fl));                           \
		NEXT(c, i);                                                                       \
	}                                                                                         \
	static void op##_ri##n(struct soft_cpu *c, const struct insn *i)                          \
	{                                                                                         \
		u##n d = get##n(c, RM##n(i)), s = (u##n)i->imm;                                   \
		ALU_ASM(op, sfx, carry, d, s, c->fl);                                             \
		set##n(c, RM##n(i), d);                                                           \
		NEXT(c, i);                                                                       \
	}                                                                                         \
	static void op##_mi##n(struct soft_cpu *c, const struct insn *i)                          \
	{                                                                                         \
		gva_t la = insn_la(c, i, n / 8, ACC_R | ACC_W);                                   \
		u##n s = (u##n)i->imm;                                                            \
		RMW(n, c, i, la, ALU_ASM(op, sfx, carry, d, s, c->fl));                           \
		NEXT(c, i);                                                                       \
	}                                                                                         \
	static inline void op##_lock##n(struct soft_cpu *c, const struct insn *i, u##n s)         \
	{                                                                                         \
		gva_t la = insn_la(c, i, n / 8, ACC_R | ACC_W);                                   \
		gpa_t gpa;                                                                        \
		u##n##_any *p = lock_begin(c, i, la, n / 8, &gpa);                                \
		u32 ax = c->fl;                                                                   \
		if (likely(p)) {                                                                  \
			__asm__ volatile("bt $8, %%eax\n\tlock " #op sfx " %2, %0" SAVE_FLAGS     \
					 : "+m"(*p), "+&a"(ax)                                    \
					 : "r"(s)                                                 \
					 : "cc", "memory");                                       \
			c->fl = (u16)ax;                                                          \
			lock_end(c, gpa, n / 8);                                                  \
		} else {                                                                          \
			RMW(n, c, i, la, ALU_ASM(op, sfx, carry, d, s, c->fl));                   \
		}                                                                                 \
	}                                                                                         \
	static void op##_lock_mr##n(struct soft_cpu *c, const struct insn *i)                     \
	{                                                                                         \
		op##_lock##n(c, i, get##n(c, REG##n(i)));                                         \
		NEXT(c, i);                                                                       \
	}                                                                                         \
	static void op##_lock_mi##n(struct soft_cpu *c, const struct insn *i)                     \
	{                                                                                         \
		op##_lock##n(c, i, (u##n)i->imm);                                                 \
		NEXT(c, i);                                                                       \
	}
#define ALU_SIZES(op, carry) FOR_SIZES(ALU_FORMS, op, carry)
ALU_OPS(ALU_SIZES)

/* CMP and TEST only set flags. */
#define CMP_ASM(op, sfx, a, s, fl)                                                          \
	do {                                                                                \
		u32 ax_;                                                                    \
		__asm__(#op sfx " %2, %1" SAVE_FLAGS : "=&a"(ax_) : "r"(a), "r"(s) : "cc"); \
		(fl) = (u16)ax_;                                                            \
	} while (0)

#define CMP_FORMS(n, sfx, op)                                                       \
	static void op##_rr##n(struct soft_cpu *c, const struct insn *i)            \
	{                                                                           \
		CMP_ASM(op, sfx, get##n(c, RM##n(i)), get##n(c, REG##n(i)), c->fl); \
		NEXT(c, i);                                                         \
	}                                                                           \
	static void op##_mr##n(struct soft_cpu *c, const struct insn *i)            \
	{                                                                           \
		u##n a = ld##n##_la(c, i, insn_la(c, i, n / 8, ACC_R));             \
		CMP_ASM(op, sfx, a, get##n(c, REG##n(i)), c->fl);                   \
		NEXT(c, i);                                                         \
	}                                                                           \
	static void op##_ri##n(struct soft_cpu *c, const struct insn *i)            \
	{                                                                           \
		CMP_ASM(op, sfx, get##n(c, RM##n(i)), (u##n)i->imm, c->fl);         \
		NEXT(c, i);                                                         \
	}                                                                           \
	static void op##_mi##n(struct soft_cpu *c, const struct insn *i)            \
	{                                                                           \
		u##n a = ld##n##_la(c, i, insn_la(c, i, n / 8, ACC_R));             \
		CMP_ASM(op, sfx, a, (u##n)i->imm, c->fl);                           \
		NEXT(c, i);                                                         \
	}
FOR_SIZES(CMP_FORMS, cmp)
FOR_SIZES(CMP_FORMS, test)

#define CMP_RM(n, sfx)                                                  \
	static void cmp_rm##n(struct soft_cpu *c, const struct insn *i) \
	{                                                               \
		u##n s = ld##n##_la(c, i, insn_la(c, i, n / 8, ACC_R)); \
		CMP_ASM(cmp, sfx, get##n(c, REG##n(i)), s, c->fl);      \
		NEXT(c, i);                                             \
	}
FOR_SIZES(CMP_RM)

#define ALU_TABLE(form)                                                                             \
	{                                                                                           \
		SIZES(add_##form), SIZES(or_##form), SIZES(adc_##form), SIZES(sbb_##form),          \
			SIZES(and_##form), SIZES(sub_##form), SIZES(xor_##form), SIZES(cmp_##form), \
	}
#define ALU_LOCK_TABLE(form)                                                               \
	{                                                                                  \
		SIZES(add_##form), SIZES(or_##form), SIZES(adc_##form), SIZES(sbb_##form), \
			SIZES(and_##form), SIZES(sub_##form), SIZES(xor_##form),           \
	}
const insn_fn alu_rr[8][4] = ALU_TABLE(rr);
const insn_fn alu_rm[8][4] = ALU_TABLE(rm);
const insn_fn alu_mr[8][4] = ALU_TABLE(mr);
const insn_fn alu_ri[8][4] = ALU_TABLE(ri);
const insn_fn alu_mi[8][4] = ALU_TABLE(mi);
const insn_fn alu_lock_mr[8][4] = ALU_LOCK_TABLE(lock_mr);
const insn_fn alu_lock_mi[8][4] = ALU_LOCK_TABLE(lock_mi);
const insn_fn test_rr[4] = SIZES(test_rr);
const insn_fn test_mr[4] = SIZES(test_mr);
const insn_fn test_ri[4] = SIZES(test_ri);
const insn_fn test_mi[4] = SIZES(test_mi);

/* --- INC DEC NOT NEG: flags loaded first, as INC and DEC keep CF and NOT keeps all --- */
#define UNARY_ASM(op, sfx, d, fl)                                                            \
	do {                                                                                 \
		u32 ax_ = (fl);                                                              \
		__asm__(LOAD_FLAGS #op sfx " %0" SAVE_FLAGS : "+r"(d), "+&a"(ax_) : : "cc"); \
		(fl) = (u16)ax_;                                                             \
	} while (0)
#define UNARY_FORMS(n, sfx, op)                                                      \
	static void op##_r##n(struct soft_cpu *c, const struct insn *i)              \
	{                                                                            \
		u##n d = get##n(c, RM##n(i));                                        \
		UNARY_ASM(op, sfx, d, c->fl);                                        \
		set##n(c, RM##n(i), d);                                              \
		NEXT(c, i);                                                          \
	}                                                                            \
	static void op##_m##n(struct soft_cpu *c, const struct insn *i)              \
	{                                                                            \
		gva_t la = insn_la(c, i, n / 8, ACC_R | ACC_W);                      \
		RMW(n, c, i, la, UNARY_ASM(op, sfx, d, c->fl));                      \
		NEXT(c, i);                                                          \
	}                                                                            \
	static void op##_lock_m##n(struct soft_cpu *c, const struct insn *i)         \
	{                                                                            \
		gva_t la = insn_la(c, i, n / 8, ACC_R | ACC_W);                      \
		gpa_t gpa;                                                           \
		u##n##_any *p = lock_begin(c, i, la, n / 8, &gpa);                   \
		u32 ax = c->fl;                                                      \
		if (likely(p)) {                                                     \
			__asm__ volatile(LOAD_FLAGS "lock " #op sfx " %0" SAVE_FLAGS \
					 : "+m"(*p), "+&a"(ax)                       \
					 :                                           \
					 : "cc", "memory");                          \
			c->fl = (u16)ax;                                             \
			lock_end(c, gpa, n / 8);                                     \
		} else {                                                             \
			RMW(n, c, i, la, UNARY_ASM(op, sfx, d, c->fl));              \
		}                                                                    \
		NEXT(c, i);                                                          \
	}
FOR_SIZES(UNARY_FORMS, inc)
FOR_SIZES(UNARY_FORMS, dec)
FOR_SIZES(UNARY_FORMS, not )
FOR_SIZES(UNARY_FORMS, neg)
const insn_fn unary_r[4][4] = { SIZES(inc_r), SIZES(dec_r), SIZES(not_r), SIZES(neg_r) };
const insn_fn unary_m[4][4] = { SIZES(inc_m), SIZES(dec_m), SIZES(not_m), SIZES(neg_m) };
const insn_fn unary_lock_m[4][4] = { SIZES(inc_lock_m), SIZES(dec_lock_m), SIZES(not_lock_m),
				     SIZES(neg_lock_m) };

/* --- shifts and rotates: a count of 0 leaves the flags alone --- */
#define SHIFT_ASM(op, sfx, d, count, fl)                          \
	do {                                                      \
		u32 ax_ = (fl);                                   \
		__asm__(LOAD_FLAGS #op sfx " %%cl, %0" SAVE_FLAGS \
			: "+r"(d), "+&a"(ax_)                     \
			: "c"((u8)(count))                        \
			: "cc");                                  \
		(fl) = (u16)ax_;                                  \
	} while (0)
/* A rotation of a register by a constant other than 1 leaves OF, which is undefined then, alone on Intel's processors; AMD's set it as
 * by CL. */
static inline u16 rotated_by_constant(const struct soft_cpu *c, u16 before, u16 fl, unsigned count,
				      unsigned bytes)
{
	bool keep = !c->amd && (count & (bytes == 8 ? 63 : 31)) != 1;

	return keep ? (u16)((fl & 0xff00) | (before & 0xff)) : fl;
}
#define ROTATE_ASM(op, sfx, d, count, fl)                                                   \
	do {                                                                                \
		u16 before_ = (fl);                                                         \
		SHIFT_ASM(op, sfx, d, count, fl);                                           \
		(fl) = rotated_by_constant(c, before_, (fl), (unsigned)(count), sizeof(d)); \
	} while (0)
#define SHIFT_FORM(n, sfx, asm_, op, form, count)                             \
	static void op##_r##form##n(struct soft_cpu *c, const struct insn *i) \
	{                                                                     \
		u##n d = get##n(c, RM##n(i));                                 \
		asm_(op, sfx, d, count, c->fl);                               \
		set##n(c, RM##n(i), d);                                       \
		NEXT(c, i);                                                   \
	}                                                                     \
	static void op##_m##form##n(struct soft_cpu *c, const struct insn *i) \
	{                                                                     \
		gva_t la = insn_la(c, i, n / 8, ACC_R | ACC_W);               \
		RMW(n, c, i, la, SHIFT_ASM(op, sfx, d, count, c->fl));        \
		NEXT(c, i);                                                   \
	}
#define SHIFT_FORMS(op, by_constant)                      \
	FOR_SIZES(SHIFT_FORM, by_constant, op, i, i->imm) \
	FOR_SIZES(SHIFT_FORM, SHIFT_ASM, op, c, c->gpr[R_CX])
SHIFT_FORMS(rol, ROTATE_ASM)
SHIFT_FORMS(ror, ROTATE_ASM)
SHIFT_FORMS(rcl, SHIFT_ASM)
SHIFT_FORMS(rcr, SHIFT_ASM)
SHIFT_FORMS(shl, SHIFT_ASM)
SHIFT_FORMS(shr, SHIFT_ASM)
SHIFT_FORMS(sar, SHIFT_ASM)
#define SHIFT_TABLE(f)                                                                          \
	{                                                                                       \
		SIZES(rol_##f), SIZES(ror_##f), SIZES(rcl_##f), SIZES(rcr_##f), SIZES(shl_##f), \
			SIZES(shr_##f), SIZES(shl_##f), SIZES(sar_##f),                         \
	}
const insn_fn shift_ri[8][4] = SHIFT_TABLE(ri);
const insn_fn shift_rc[8][4] = SHIFT_TABLE(rc);
const insn_fn shift_mi[8][4] = SHIFT_TABLE(mi);
const insn_fn shift_mc[8][4] = SHIFT_TABLE(mc);

/* --- IMUL with two and three operands --- */
#define IMUL_ASM(sfx, d, s, fl)                                                                            \
	do {                                                                                               \
		u32 ax_ = (fl);                                                                            \
		__asm__(LOAD_FLAGS "imul" sfx " %2, %0" SAVE_FLAGS : "+r"(d), "+&a"(ax_) : "r"(s) : "cc"); \
		(fl) = (u16)ax_;                                                                           \
	} while (0)
/* imul_rr comes with R_SWAP: rm is the destination. */
#define IMUL_FORMS(n, sfx)                                                                     \
	static void imul_rr##n(struct soft_cpu *c, const struct insn *i)                       \
	{                                                                                      \
		u##n d = get##n(c, i->rm);                                                     \
		IMUL_ASM(sfx, d, get##n(c, i->reg), c->fl);                                    \
		set##n(c, i->rm, d);                                                           \
		NEXT(c, i);                                                                    \
	}                                                                                      \
	static void imul_rm##n(struct soft_cpu *c, const struct insn *i)                       \
	{                                                                                      \
		u##n s = ld##n##_la(c, i, insn_la(c, i, n / 8, ACC_R)), d = get##n(c, i->reg); \
		IMUL_ASM(sfx, d, s, c->fl);                                                    \
		set##n(c, i->reg, d);                                                          \
		NEXT(c, i);                                                                    \
	}                                                                                      \
	static void imul_rri##n(struct soft_cpu *c, const struct insn *i)                      \
	{                                                                                      \
		u##n d = get##n(c, i->rm);                                                     \
		IMUL_ASM(sfx, d, (u##n)i->imm, c->fl);                                         \
		set##n(c, i->reg, d);                                                          \
		NEXT(c, i);                                                                    \
	}                                                                                      \
	static void imul_rmi##n(struct soft_cpu *c, const struct insn *i)                      \
	{                                                                                      \
		u##n d = ld##n##_la(c, i, insn_la(c, i, n / 8, ACC_R));                        \
		IMUL_ASM(sfx, d, (u##n)i->imm, c->fl);                                         \
		set##n(c, i->reg, d);                                                          \
		NEXT(c, i);                                                                    \
	}
FOR_SIZES3(IMUL_FORMS)
const insn_fn imul_rr[4] = SIZES3(imul_rr);
const insn_fn imul_rm[4] = SIZES3(imul_rm);
const insn_fn imul_rri[4] = SIZES3(imul_rri);
const insn_fn imul_rmi[4] = SIZES3(imul_rmi);

/* --- BT BTS BTR BTC: a register offset to a memory operand reaches beyond it [SDM2 BT] --- */
#define BT_ASM(op, sfx, d, s, fl)                                                                       \
	do {                                                                                            \
		u32 ax_ = (fl);                                                                         \
		__asm__(LOAD_FLAGS #op sfx " %2, %0" SAVE_FLAGS : "+r"(d), "+&a"(ax_) : "r"(s) : "cc"); \
		(fl) = (u16)ax_;                                                                        \
	} while (0)

static inline gva_t bit_string_la(struct soft_cpu *c, const struct insn *i, s64 bit, unsigned n, unsigned acc)
{
	u64 delta = (u64)((bit >> (n == 16 ? 4 : n == 32 ? 5 : 6)) * (s64)(n / 8));
	u64 ea = insn_ea_raw(c, i) + delta;

	if (likely(i->flat))
		return ea + c->seg[i->seg].base;
	return seg_linear(c, i, i->seg, i->asz == 8 ? ea : i->asz == 4 ? (u32)ea : (u16)ea, n / 8, acc);
}

#define BT_FORMS(n, sfx, op, W)                                                                     \
	static void op##_rr##n(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                           \
		u##n d = get##n(c, i->rm);                                                          \
		BT_ASM(op, sfx, d, get##n(c, i->reg), c->fl);                                       \
		if (W)                                                                              \
			set##n(c, i->rm, d);                                                        \
		NEXT(c, i);                                                                         \
	}                                                                                           \
	static void op##_ri##n(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                           \
		u##n d = get##n(c, i->rm);                                                          \
		BT_ASM(op, sfx, d, (u##n)i->imm, c->fl);                                            \
		if (W)                                                                              \
			set##n(c, i->rm, d);                                                        \
		NEXT(c, i);                                                                         \
	}                                                                                           \
	static inline void op##_mem##n(struct soft_cpu *c, const struct insn *i, gva_t la, u##n s)  \
	{                                                                                           \
		if (W) {                                                                            \
			RMW(n, c, i, la, BT_ASM(op, sfx, d, s, c->fl));                             \
		} else {                                                                            \
			u##n d = ld##n##_la(c, i, la);                                              \
			BT_ASM(op, sfx, d, s, c->fl);                                               \
		}                                                                                   \
	}                                                                                           \
	static void op##_mr##n(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                           \
		u##n s = get##n(c, i->reg);                                                         \
		op##_mem##n(c, i, bit_string_la(c, i, (s##n)s, n, (W) ? ACC_R | ACC_W : ACC_R), s); \
		NEXT(c, i);                                                                         \
	}                                                                                           \
	static void op##_mi##n(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                           \
		op##_mem##n(c, i, insn_la(c, i, n / 8, (W) ? ACC_R | ACC_W : ACC_R), (u##n)i->imm); \
		NEXT(c, i);                                                                         \
	}
#define BT_LOCK_FORMS(n, sfx, op)                                                                   \
	static inline void op##_lock##n(struct soft_cpu *c, const struct insn *i, gva_t la, u##n s) \
	{                                                                                           \
		gpa_t gpa;                                                                          \
		u##n##_any *p = lock_begin(c, i, la, n / 8, &gpa);                                  \
		u32 ax = c->fl;                                                                     \
		s &= n - 1;                                                                         \
		if (likely(p)) {                                                                    \
			__asm__ volatile(LOAD_FLAGS "lock " #op sfx " %2, %0" SAVE_FLAGS            \
					 : "+m"(*p), "+&a"(ax)                                      \
					 : "r"(s)                                                   \
					 : "cc", "memory");                                         \
			c->fl = (u16)ax;                                                            \
			lock_end(c, gpa, n / 8);                                                    \
		} else {                                                                            \
			op##_mem##n(c, i, la, s);                                                   \
		}                                                                                   \
	}                                                                                           \
	static void op##_lock_mr##n(struct soft_cpu *c, const struct insn *i)                       \
	{                                                                                           \
		u##n s = get##n(c, i->reg);                                                         \
		op##_lock##n(c, i, bit_string_la(c, i, (s##n)s, n, ACC_R | ACC_W), s);              \
		NEXT(c, i);                                                                         \
	}                                                                                           \
	static void op##_lock_mi##n(struct soft_cpu *c, const struct insn *i)                       \
	{                                                                                           \
		op##_lock##n(c, i, insn_la(c, i, n / 8, ACC_R | ACC_W), (u##n)i->imm);              \
		NEXT(c, i);                                                                         \
	}
FOR_SIZES3(BT_FORMS, bt, 0)
FOR_SIZES3(BT_FORMS, bts, 1)
FOR_SIZES3(BT_FORMS, btr, 1)
FOR_SIZES3(BT_FORMS, btc, 1)
FOR_SIZES3(BT_LOCK_FORMS, bts)
FOR_SIZES3(BT_LOCK_FORMS, btr)
FOR_SIZES3(BT_LOCK_FORMS, btc)
const insn_fn bt_rr[4][4] = { SIZES3(bt_rr), SIZES3(bts_rr), SIZES3(btr_rr), SIZES3(btc_rr) };
const insn_fn bt_ri[4][4] = { SIZES3(bt_ri), SIZES3(bts_ri), SIZES3(btr_ri), SIZES3(btc_ri) };
const insn_fn bt_mr[4][4] = { SIZES3(bt_mr), SIZES3(bts_mr), SIZES3(btr_mr), SIZES3(btc_mr) };
const insn_fn bt_mi[4][4] = { SIZES3(bt_mi), SIZES3(bts_mi), SIZES3(btr_mi), SIZES3(btc_mi) };
const insn_fn bt_lock_mr[4][4] = { { NULL }, SIZES3(bts_lock_mr), SIZES3(btr_lock_mr), SIZES3(btc_lock_mr) };
const insn_fn bt_lock_mi[4][4] = { { NULL }, SIZES3(bts_lock_mi), SIZES3(btr_lock_mi), SIZES3(btc_lock_mi) };

/* --- MOV, MOVZX, MOVSX, LEA, XCHG, BSWAP, CBW, CWD, CMOV --- */
#define MOV_FORMS(n, sfx)                                                                          \
	static void mov_rr##n(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		set##n(c, RM##n(i), get##n(c, REG##n(i)));                                         \
		NEXT(c, i);                                                                        \
	}                                                                                          \
	static void mov_rm##n(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		set##n(c, REG##n(i), ld##n##_la(c, i, insn_la(c, i, n / 8, ACC_R)));               \
		NEXT(c, i);                                                                        \
	}                                                                                          \
	static void mov_mr##n(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		st##n##_la(c, i, insn_la(c, i, n / 8, ACC_W), get##n(c, REG##n(i)));               \
		NEXT(c, i);                                                                        \
	}                                                                                          \
	static void mov_ri##n(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		set##n(c, RM##n(i), (u##n)i->imm);                                                 \
		NEXT(c, i);                                                                        \
	}                                                                                          \
	static void mov_mi##n(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		st##n##_la(c, i, insn_la(c, i, n / 8, ACC_W), (u##n)i->imm);                       \
		NEXT(c, i);                                                                        \
	}                                                                                          \
	static void mov_load_moffs##n(struct soft_cpu *c, const struct insn *i)                    \
	{                                                                                          \
		set##n(c, R_AX, ld##n##_la(c, i, seg_linear(c, i, i->seg, i->imm, n / 8, ACC_R))); \
		NEXT(c, i);                                                                        \
	}                                                                                          \
	static void mov_store_moffs##n(struct soft_cpu *c, const struct insn *i)                   \
	{                                                                                          \
		st##n##_la(c, i, seg_linear(c, i, i->seg, i->imm, n / 8, ACC_W), get##n(c, R_AX)); \
		NEXT(c, i);                                                                        \
	}                                                                                          \
	static void xchg_rr##n(struct soft_cpu *c, const struct insn *i)                           \
	{                                                                                          \
		u##n a = get##n(c, RM##n(i)), b = get##n(c, REG##n(i));                            \
		set##n(c, RM##n(i), b);                                                            \
		set##n(c, REG##n(i), a);                                                           \
		NEXT(c, i);                                                                        \
	}                                                                                          \
	static void xchg_mr##n(struct soft_cpu *c, const struct insn *i)                           \
	{                                                                                          \
		gva_t la = insn_la(c, i, n / 8, ACC_R | ACC_W);                                    \
		gpa_t gpa;                                                                         \
		u##n##_any *p = lock_begin(c, i, la, n / 8, &gpa);                                 \
		u##n v = get##n(c, REG##n(i));                                                     \
		if (likely(p)) {                                                                   \
			__asm__ volatile("xchg" sfx " %0, %1" : "+r"(v), "+m"(*p) : : "memory");   \
			lock_end(c, gpa, n / 8);                                                   \
		} else {                                                                           \
			u##n old = (u##n)mmu_load(c, i, la, n / 8, ACC_R | ACC_W);                 \
			mmu_store(c, i, la, n / 8, v);                                             \
			v = old;                                                                   \
		}                                                                                  \
		set##n(c, REG##n(i), v);                                                           \
		NEXT(c, i);                                                                        \
	}
FOR_SIZES(MOV_FORMS)
const insn_fn mov_rr[4] = SIZES(mov_rr);
const insn_fn mov_rm[4] = SIZES(mov_rm);
const insn_fn mov_mr[4] = SIZES(mov_mr);
const insn_fn mov_ri[4] = SIZES(mov_ri);
const insn_fn mov_mi[4] = SIZES(mov_mi);
const insn_fn mov_load_moffs[4] = SIZES(mov_load_moffs);
const insn_fn mov_store_moffs[4] = SIZES(mov_store_moffs);
const insn_fn xchg_rr[4] = SIZES(xchg_rr);
const insn_fn xchg_mr[4] = SIZES(xchg_mr);

/* Register forms come with R_SWAP: rm is the destination, reg the source. */
#define MOVX_FORM(n, name, from, type)                                                              \
	static void name##from##_r##n(struct soft_cpu *c, const struct insn *i)                     \
	{                                                                                           \
		set##n(c, i->rm, (u##n)(type)get##from(c, REG##from(i)));                           \
		NEXT(c, i);                                                                         \
	}                                                                                           \
	static void name##from##_m##n(struct soft_cpu *c, const struct insn *i)                     \
	{                                                                                           \
		set##n(c, i->reg, (u##n)(type)ld##from##_la(c, i, insn_la(c, i, from / 8, ACC_R))); \
		NEXT(c, i);                                                                         \
	}
#define MOVX_FORMS(n, sfx)                                             \
	MOVX_FORM(n, movzx, 8, u8)                                     \
	MOVX_FORM(n, movsx, 8, s8)                                     \
	MOVX_FORM(n, movzx, 16, u16)                                   \
	MOVX_FORM(n, movsx, 16, s16)                                   \
	static void lea_m##n(struct soft_cpu *c, const struct insn *i) \
	{                                                              \
		set##n(c, i->reg, (u##n)insn_ea(c, i));                \
		NEXT(c, i);                                            \
	}
FOR_SIZES3(MOVX_FORMS)
const insn_fn movzx8_r[4] = SIZES3(movzx8_r);
const insn_fn movzx8_m[4] = SIZES3(movzx8_m);
const insn_fn movsx8_r[4] = SIZES3(movsx8_r);
const insn_fn movsx8_m[4] = SIZES3(movsx8_m);
const insn_fn movzx16_r[4] = SIZES3(movzx16_r);
const insn_fn movzx16_m[4] = SIZES3(movzx16_m);
const insn_fn movsx16_r[4] = SIZES3(movsx16_r);
const insn_fn movsx16_m[4] = SIZES3(movsx16_m);
const insn_fn lea_m[4] = SIZES3(lea_m);

/* MOVSXD with 16- and 32-bit operands is a plain MOV [SDM2 MOVSXD]; with a 16-bit one only 16 bits are
 * read (AMD and newer Intel), which a 32-bit read in the same place would show only at a page's end. */
#define movsxd_r16 mov_rr16
#define movsxd_m16 mov_rm16
#define movsxd_r32 mov_rr32
#define movsxd_m32 mov_rm32
static void movsxd_r64(struct soft_cpu *c, const struct insn *i)
{
	c->gpr[i->rm] = (u64)(s64)(s32)get32(c, i->reg);
	NEXT(c, i);
}
static void movsxd_m64(struct soft_cpu *c, const struct insn *i)
{
	c->gpr[i->reg] = (u64)(s64)(s32)ld32_la(c, i, insn_la(c, i, 4, ACC_R));
	NEXT(c, i);
}
const insn_fn movsxd_r[4] = SIZES3(movsxd_r);
const insn_fn movsxd_m[4] = SIZES3(movsxd_m);

static void bswap_r16(struct soft_cpu *c, const struct insn *i)
{
	/* Undefined [SDM2 BSWAP]; processors clear the word. */
	set16(c, i->rm, 0);
	NEXT(c, i);
}
static void bswap_r32(struct soft_cpu *c, const struct insn *i)
{
	c->gpr[i->rm] = __builtin_bswap32(get32(c, i->rm));
	NEXT(c, i);
}
static void bswap_r64(struct soft_cpu *c, const struct insn *i)
{
	c->gpr[i->rm] = __builtin_bswap64(c->gpr[i->rm]);
	NEXT(c, i);
}
const insn_fn bswap_r[4] = SIZES3(bswap_r);

static void cbw16(struct soft_cpu *c, const struct insn *i)
{
	set16(c, R_AX, (u16)(s8)c->gpr[R_AX]);
	NEXT(c, i);
}
static void cbw32(struct soft_cpu *c, const struct insn *i)
{
	c->gpr[R_AX] = (u32)(s16)c->gpr[R_AX];
	NEXT(c, i);
}
static void cbw64(struct soft_cpu *c, const struct insn *i)
{
	c->gpr[R_AX] = (u64)(s32)c->gpr[R_AX];
	NEXT(c, i);
}
const insn_fn cbw[4] = SIZES3(cbw);

#define CWD_FORM(n, sfx)                                                   \
	static void cwd##n(struct soft_cpu *c, const struct insn *i)       \
	{                                                                  \
		set##n(c, R_DX, (u##n)((s##n)get##n(c, R_AX) >> (n - 1))); \
		NEXT(c, i);                                                \
	}
FOR_SIZES3(CWD_FORM)
const insn_fn cwd[4] = SIZES3(cwd);

/* R_SWAP: rm is the destination. With 32 bits the upper half is cleared whether or not the move happens, and
 * the load happens in any case [SDM2 CMOVcc]. */
#define CMOV_FORMS(n, sfx)                                                          \
	static void cmov_rr##n(struct soft_cpu *c, const struct insn *i)            \
	{                                                                           \
		u##n v = get##n(c, int_cond(c->fl, i->aux) ? i->reg : i->rm);       \
		set##n(c, i->rm, v);                                                \
		NEXT(c, i);                                                         \
	}                                                                           \
	static void cmov_rm##n(struct soft_cpu *c, const struct insn *i)            \
	{                                                                           \
		u##n v = ld##n##_la(c, i, insn_la(c, i, n / 8, ACC_R));             \
		set##n(c, i->reg, int_cond(c->fl, i->aux) ? v : get##n(c, i->reg)); \
		NEXT(c, i);                                                         \
	}
FOR_SIZES3(CMOV_FORMS)
const insn_fn cmov_rr[4] = SIZES3(cmov_rr);
const insn_fn cmov_rm[4] = SIZES3(cmov_rm);

static void setcc_r8(struct soft_cpu *c, const struct insn *i)
{
	set8(c, i->rm_b, int_cond(c->fl, i->aux));
	NEXT(c, i);
}
static void setcc_m8(struct soft_cpu *c, const struct insn *i)
{
	st8_la(c, i, insn_la(c, i, 1, ACC_W), int_cond(c->fl, i->aux));
	NEXT(c, i);
}
const insn_fn setcc_r[4] = { setcc_r8 };
const insn_fn setcc_m[4] = { setcc_m8 };

/* --- PUSH and POP [SDM2]; 64-bit mode has 8- and 2-byte forms, others 4 and 2 --- */
static inline void push(struct soft_cpu *c, const struct insn *i, u64 v, unsigned size)
{
	if (likely(size == 8))
		st64_la(c, i, c->gpr[R_SP] - 8, v);
	else
		seg_stack_store(c, i, -(s64)size, size, v);
	soft_set_sp(c, c->gpr[R_SP] - size);
}

static inline u64 top(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	return likely(size == 8) ? ld64_la(c, i, c->gpr[R_SP]) : seg_stack_load(c, i, 0, size);
}

#define STACK_FORMS(n, sfx)                                                                            \
	static void push_r##n(struct soft_cpu *c, const struct insn *i)                                \
	{                                                                                              \
		push(c, i, get##n(c, i->rm), n / 8);                                                   \
		NEXT(c, i);                                                                            \
	}                                                                                              \
	static void push_m##n(struct soft_cpu *c, const struct insn *i)                                \
	{                                                                                              \
		push(c, i, ld##n##_la(c, i, insn_la(c, i, n / 8, ACC_R)), n / 8);                      \
		NEXT(c, i);                                                                            \
	}                                                                                              \
	static void push_i##n(struct soft_cpu *c, const struct insn *i)                                \
	{                                                                                              \
		push(c, i, (u##n)i->imm, n / 8);                                                       \
		NEXT(c, i);                                                                            \
	}                                                                                              \
	static void pop_r##n(struct soft_cpu *c, const struct insn *i)                                 \
	{                                                                                              \
		u##n v = (u##n)top(c, i, n / 8);                                                       \
		soft_set_sp(c, c->gpr[R_SP] + n / 8);                                                  \
		set##n(c, i->rm, v);                                                                   \
		NEXT(c, i);                                                                            \
	}                                                                                              \
	static void pop_m##n(struct soft_cpu *c, const struct insn *i)                                 \
	{                                                                                              \
		/* An address based on rSP uses its value after the pop. */                            \
		u##n v = (u##n)top(c, i, n / 8);                                                       \
		u64 sp = c->gpr[R_SP];                                                                 \
		gva_t la;                                                                              \
		if (i->base == R_SP) {                                                                 \
			/* A fault must find rSP as it was: compute with it moved, put back, store. */ \
			u64 ea;                                                                        \
			soft_set_sp(c, sp + n / 8);                                                    \
			ea = insn_ea(c, i);                                                            \
			c->gpr[R_SP] = sp;                                                             \
			la = seg_linear(c, i, i->seg, ea, n / 8, ACC_W);                               \
		} else {                                                                               \
			la = insn_la(c, i, n / 8, ACC_W);                                              \
		}                                                                                      \
		st##n##_la(c, i, la, v);                                                               \
		soft_set_sp(c, sp + n / 8);                                                            \
		NEXT(c, i);                                                                            \
	}
FOR_SIZES3(STACK_FORMS)
const insn_fn push_r[4] = SIZES3(push_r);
const insn_fn push_m[4] = SIZES3(push_m);
const insn_fn push_i[4] = SIZES3(push_i);
const insn_fn pop_r[4] = SIZES3(pop_r);
const insn_fn pop_m[4] = SIZES3(pop_m);

/* --- flags --- */
void int_cmc(struct soft_cpu *c, const struct insn *i)
{
	c->fl ^= FL_CF << 8;
	NEXT(c, i);
}

void int_clc(struct soft_cpu *c, const struct insn *i)
{
	c->fl &= (u16) ~(FL_CF << 8);
	NEXT(c, i);
}

void int_stc(struct soft_cpu *c, const struct insn *i)
{
	c->fl |= FL_CF << 8;
	NEXT(c, i);
}

void int_cld(struct soft_cpu *c, const struct insn *i)
{
	c->flags &= ~(u32)FL_DF;
	NEXT(c, i);
}

void int_std(struct soft_cpu *c, const struct insn *i)
{
	c->flags |= FL_DF;
	NEXT(c, i);
}

void int_sahf(struct soft_cpu *c, const struct insn *i)
{
	c->fl = (u16)((c->gpr[R_AX] & 0xd500) | 0x200 | (c->fl & 1));
	NEXT(c, i);
}

void int_lahf(struct soft_cpu *c, const struct insn *i)
{
	set8(c, 1, (u8)((c->fl >> 8 & 0xd5) | 2));
	NEXT(c, i);
}

/* Also the fences: the host's memory order is the guest's, and a full barrier costs nothing worth saving. */
void int_nop(struct soft_cpu *c, const struct insn *i)
{
	if (i->opcode == 0xae)
		__asm__ volatile("mfence" : : : "memory");
	NEXT(c, i);
}

/* CLFLUSH and its kin check their operand like a one-byte load. */
void int_nop_m(struct soft_cpu *c, const struct insn *i)
{
	mmu_probe(c, i, insn_la(c, i, 1, ACC_R), 1, ACC_R);
	NEXT(c, i);
}
