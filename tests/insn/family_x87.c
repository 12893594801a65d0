/* The x87: every operation on random stacks, memory forms of all types, control and environment, unmasked exceptions. */
#include "families.h"

/* Aligned to what the widest operand wants: the x87 does not ask, the tests read what they wrote. */
static void unmask(struct insn_rng *r, struct insn_state *s)
{
	u64 k = insn_rnd(r);
	st16(s->xsave, (u16)(0x340 | (k & 0x3f) | (k >> 8 & 0xc00)));
}

#define M(op)                     \
	I(op " dword ptr [rsi]"); \
	I(op " qword ptr [rdi]"); \
	I(op " dword ptr [rbp+4]; " op " qword ptr [rsi+16]")
#define MI(op)                   \
	I(op " word ptr [rsi]"); \
	I(op " dword ptr [rdi]")
#define ST(op)              \
	I(op " st, st(1)"); \
	I(op " st, st(0)"); \
	I(op " st, st(7)"); \
	I(op " st(3), st")
#define STP(op)             \
	I(op " st(1), st"); \
	I(op " st(6), st")

static void operations(struct insn_test *t)
{
	EACH(M, "fadd", "fsub", "fsubr", "fmul", "fdiv", "fdivr", "fcom", "fcomp");
	EACH(MI, "fiadd", "fisub", "fisubr", "fimul", "fidiv", "fidivr", "ficom", "ficomp");
	EACH(ST, "fadd", "fsub", "fsubr", "fmul", "fdiv", "fdivr");
	EACH(STP, "faddp", "fsubp", "fsubrp", "fmulp", "fdivp", "fdivrp");
	I("fcom st(1)");
	I("fcomp st(2)");
	I("fcompp");
	I("fucom st(3)");
	I("fucomp st(1)");
	I("fucompp");
	I("fcomi st, st(1)");
	I("fcomip st, st(2)");
	I("fucomi st, st(3)");
	I("fucomip st, st(1)");
	I("fld dword ptr [rsi]; fld qword ptr [rdi]; fld tbyte ptr [rbp]; fld st(2); fxch st(1)");
	I("fild word ptr [rsi]; fild dword ptr [rdi]; fild qword ptr [rbp]; fbld [rsi+16]");
	I("fst dword ptr [rsi]");
	I("fst qword ptr [rdi]");
	I("fst st(3)");
	I("fstp dword ptr [rsi]; fstp qword ptr [rdi]; fstp tbyte ptr [rbp]; fstp st(2)");
	I("fist word ptr [rsi]");
	I("fist dword ptr [rdi]");
	I("fistp word ptr [rsi]; fistp dword ptr [rdi]; fistp qword ptr [rbp]; fbstp [rsi+16]");
	I("fisttp word ptr [rsi]; fisttp dword ptr [rdi]; fisttp qword ptr [rbp]");
	I("fld1; fldl2t; fldl2e; fldpi; fldlg2; fldln2; fldz");
	I("fabs");
	I("fchs");
	I("fsqrt");
	I("frndint");
	I("fscale");
	I("fxtract");
	I("fprem");
	I("fprem1");
	I("ftst");
	I("fxam");
	I("f2xm1");
	I("fyl2x");
	I("fyl2xp1");
	I("fptan");
	I("fpatan");
	I("fsin");
	I("fcos");
	I("fsincos");
	I("fincstp; fdecstp; fdecstp; ffree st(2); fnop");
	I(".byte 0xdf, 0xc1"); /* FFREEP */
	I("fxam; fnstsw ax; fincstp; fxam; fnstsw [rsi]");
	I("fcmovb st, st(1); fcmove st, st(2); fcmovbe st, st(3); fcmovu st, st(4)");
	I("fcmovnb st, st(1); fcmovne st, st(2); fcmovnbe st, st(3); fcmovnu st, st(4)");
	I("fcomi st, st(1); fcmovb st, st(1); seta al");
}

void family_x87(struct insn_test *t)
{
	operations(t);
	I("fnstcw [rsi]; or word ptr [rsi], 0xc00; fldcw [rsi]; frndint; fistp dword ptr [rdi]");
	I("mov word ptr [rsi], 0x27f; fldcw [rsi]; fdiv st, st(1); fsqrt");
	I("fninit; fld1; fldpi; fdivp; fnstsw ax");
	I("fnclex; fnstsw ax; fnstcw [rsi]");
	I("wait; fwait; emms; fld1");
	/* The pointers in the environment differ between processors: they are cut out. */
	I("fnstenv [rsi]; mov dword ptr [rsi+12], 0; mov qword ptr [rsi+16], 0; mov dword ptr [rsi+24], 0; fldenv [rsi]");
	I("fnstenv [rsi]; mov dword ptr [rsi+12], 0; mov qword ptr [rsi+16], 0; mov dword ptr [rsi+24], 0;"
	  "xor word ptr [rsi+4], 0x3800; fldenv [rsi]; fld1; fstp st(3)");
	I("fnsave [rsi]; mov dword ptr [rsi+12], 0; mov qword ptr [rsi+16], 0; mov dword ptr [rsi+24], 0; fld1; frstor [rsi]; fld st(1)");
	I("fnsave [rsi]; mov dword ptr [rsi+12], 0; mov qword ptr [rsi+16], 0; mov dword ptr [rsi+24], 0;"
	  "xor word ptr [rsi+4], 0x2800; mov word ptr [rsi+8], 0x1b27; frstor [rsi]; fld st(1)");
	I(".byte 0x66; fnstenv [rsi]; mov qword ptr [rsi+6], 0; .byte 0x66; fldenv [rsi]; fldpi");
	I("and dword ptr [rsi], 0x3f; or dword ptr [rsi], 0x37f; and dword ptr [rsi+4], 0x7f00; fldenv [rsi]; fld1; fadd st, st(1)");
	I("fld qword ptr [0x20001ffc]; fstp qword ptr [0x20001ff4]");
	I("fld tbyte ptr [0x20001ffa]; fstp tbyte ptr [0x20000ffa]");
	I("fstp tbyte ptr [0x20001ffa]"); /* the read-only page: ST(0) stays */
	I("fld qword ptr [0x20002ffc]");
	t->setup = unmask;
	operations(t);
	I("fld1; fldz; fdivp; fnop; fwait");
	I("fld1; fldz; fdivp; fst dword ptr [0x30000000]"); /* #MF before #PF */
	I("fld1; fldz; fdivp; fnstsw ax; fnclex; fld1");
	I("fld1; fldz; fdivp; movq mm0, mm1");
	I("fld1; fldz; fdivp; movaps xmm0, xmm1; emms");
	t->setup = NULL;
	t->mode = INSN_32;
	I32("fld dword ptr [esi]; fadd qword ptr [edi]; fistp dword ptr [ebp]; fnstsw ax");
	I32("fnstenv [esi]; mov dword ptr [esi+12], 0; mov dword ptr [esi+16], 0; mov dword ptr [esi+20], 0; mov dword ptr [esi+24], 0; fldenv [esi]");
	t->mode = INSN_64;
}
