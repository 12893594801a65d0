/* Tables of the integer handlers in ops_int.c and ops_flow.c: [...][log2 of the operand size in bytes].
 *
 * Forms: rr = rm register (destination), reg register; rm = reg register, memory (load); mr = memory,
 * reg register; ri / mi = rm register / memory with immediate; a NULL entry does not exist.
 */
#pragma once

#include "cpu/soft/soft.h"

/* ADD OR ADC SBB AND SUB XOR CMP, by their number in opcodes 00-3F and group 1. */
extern const insn_fn alu_rr[8][4], alu_rm[8][4], alu_mr[8][4], alu_ri[8][4], alu_mi[8][4];
extern const insn_fn alu_lock_mr[8][4], alu_lock_mi[8][4];
extern const insn_fn test_rr[4], test_mr[4], test_ri[4], test_mi[4];
/* INC DEC NOT NEG */
extern const insn_fn unary_r[4][4], unary_m[4][4], unary_lock_m[4][4];
/* ROL ROR RCL RCR SHL SHR SAL SAR: by immediate, by CL */
extern const insn_fn shift_ri[8][4], shift_rc[8][4], shift_mi[8][4], shift_mc[8][4];
extern const insn_fn imul_rr[4], imul_rm[4], imul_rri[4], imul_rmi[4];
/* BT BTS BTR BTC */
extern const insn_fn bt_rr[4][4], bt_ri[4][4], bt_mr[4][4], bt_mi[4][4], bt_lock_mr[4][4], bt_lock_mi[4][4];

extern const insn_fn mov_rr[4], mov_rm[4], mov_mr[4], mov_ri[4], mov_mi[4];
extern const insn_fn mov_load_moffs[4], mov_store_moffs[4];
extern const insn_fn movzx8_r[4], movzx8_m[4], movzx16_r[4], movzx16_m[4];
extern const insn_fn movsx8_r[4], movsx8_m[4], movsx16_r[4], movsx16_m[4], movsxd_r[4], movsxd_m[4];
extern const insn_fn lea_m[4], xchg_rr[4], xchg_mr[4], bswap_r[4], cbw[4], cwd[4];
extern const insn_fn cmov_rr[4], cmov_rm[4]; /* aux = condition */
extern const insn_fn push_r[4], pop_r[4], push_m[4], pop_m[4], push_i[4];
extern const insn_fn setcc_r[4], setcc_m[4]; /* [0]; aux = condition */
extern const insn_fn jcc[16];

void int_nop(struct soft_cpu *c, const struct insn *i);
void int_nop_m(struct soft_cpu *c, const struct insn *i);
void int_pause(struct soft_cpu *c, const struct insn *i);
void int_cmc(struct soft_cpu *c, const struct insn *i);
void int_clc(struct soft_cpu *c, const struct insn *i);
void int_stc(struct soft_cpu *c, const struct insn *i);
void int_cld(struct soft_cpu *c, const struct insn *i);
void int_std(struct soft_cpu *c, const struct insn *i);
void int_sahf(struct soft_cpu *c, const struct insn *i);
void int_lahf(struct soft_cpu *c, const struct insn *i);
void int_jmp_rel(struct soft_cpu *c, const struct insn *i);
void int_call_rel(struct soft_cpu *c, const struct insn *i);
void int_jmp_rm(struct soft_cpu *c, const struct insn *i);
void int_call_rm(struct soft_cpu *c, const struct insn *i);
void int_ret(struct soft_cpu *c, const struct insn *i);  /* imm = bytes to pop */
void int_loop(struct soft_cpu *c, const struct insn *i); /* aux = 0 LOOPNE, 1 LOOPE, 2 LOOP, 3 JrCXZ */

/* Condition cc (0..15) of fl as soft_cpu keeps it. */
static inline bool int_cond(unsigned fl, unsigned cc)
{
	bool r;

	switch (cc >> 1) {
	case 0: r = fl & 1; break;                                  /* O */
	case 1: r = fl >> 8 & 1; break;                             /* B */
	case 2: r = fl >> 14 & 1; break;                            /* Z */
	case 3: r = fl & 0x4100; break;                             /* BE */
	case 4: r = fl >> 15 & 1; break;                            /* S */
	case 5: r = fl >> 10 & 1; break;                            /* P */
	case 6: r = (fl >> 15 ^ fl) & 1; break;                     /* L */
	default: r = ((fl >> 15 ^ fl) & 1) | (fl >> 14 & 1); break; /* LE */
	}
	return r ^ (cc & 1);
}
