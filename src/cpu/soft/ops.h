/* The handlers that the decoder's tables name, by file. Integer handlers are instantiated by operand
 * form and size inside ops_int.c and reach the decoder through its own tables. */
#pragma once

#include "cpu/soft/soft.h"

/* clang-format off */
#define OPS(X)                                                                                     \
	/* seg.c / ops_seg.c: segment registers, far transfers, descriptors. osz, mem, rm, imm as decoded */ \
	X(mov_sreg_rm) X(mov_rm_sreg)                                                              \
	X(push_sreg) X(pop_sreg)      /* aux = segment */                                          \
	X(lxs)                        /* aux = segment, reg = destination */                       \
	X(jmp_far_imm) X(call_far_imm) /* imm = selector << 32 | offset */                         \
	X(jmp_far_mem) X(call_far_mem)                                                             \
	X(retf)                       /* imm = bytes to pop */                                     \
	X(iret)                                                                                    \
	X(int_n) X(int3) X(int1) X(into)                                                           \
	X(lar) X(lsl) X(verr) X(verw) X(arpl)                                                      \
	X(sldt) X(str) X(lldt) X(ltr)                                                              \
	X(sgdt) X(sidt) X(lgdt) X(lidt) X(smsw) X(lmsw) X(clts)                                    \
	/* ops_sys.c */                                                                            \
	X(mov_r_cr) X(mov_cr_r) X(mov_r_dr) X(mov_dr_r) /* reg = CR/DR number, rm = register */    \
	X(invlpg) X(invpcid) X(swapgs)                                                             \
	X(syscall) X(sysret) X(sysenter) X(sysexit)                                                \
	X(rdmsr) X(wrmsr) X(cpuid) X(hlt) X(cli) X(sti) X(pushf) X(popf)                           \
	X(clac) X(stac) X(rdtsc) X(rdtscp) X(rdpmc) X(rdpid)                                       \
	X(wbinvd) X(invd)                                                                          \
	X(rdfsbase) X(rdgsbase) X(wrfsbase) X(wrgsbase) /* rm, osz 4 or 8 */                       \
	X(vmcall)                                                                                  \
	X(in) X(out)                  /* aux = 1: port in DX, 0: imm; size osz (1, 2, 4) */        \
	X(ins) X(outs)                /* with REP by pfx; size osz */                              \
	/* fpu.c */                                                                                \
	X(fxsave) X(fxrstor) X(ldmxcsr) X(stmxcsr)                                                 \
	X(xsave) X(xrstor) X(xsaveopt) X(xsavec) X(xsaves) X(xrstors) X(xgetbv) X(xsetbv)          \
	X(fwait)                                                                                   \
	/* ops_string.c: with REP by pfx; size osz */                                              \
	X(movs) X(stos) X(lods) X(cmps) X(scas)                                                    \
	/* ops_misc.c: BCD, 16/32-bit-only and odd ones */                                         \
	X(ud) X(aaa) X(aas) X(daa) X(das) X(aam) X(aad) X(bound) X(salc) X(xlat)                   \
	X(pusha) X(popa) X(enter) X(leave)                                                         \
	X(cmpxchg8b) X(cmpxchg16b)                                                                 \
	X(gp0) X(end_of_block) X(stop)
/* clang-format on */

#define OPS_DECLARE_(name) void op_##name(struct soft_cpu *c, const struct insn *i);
OPS(OPS_DECLARE_)
#undef OPS_DECLARE_
