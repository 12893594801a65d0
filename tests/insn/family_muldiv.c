/* MUL IMUL DIV IDIV MULX. Half of the divisions are arranged not to overflow. */
#include "families.h"

#define ONE(op)                   \
	I(op " bl");              \
	I(op " ch");              \
	I(op " r9b");             \
	I(op " bx");              \
	I(op " r10w");            \
	I(op " ecx");             \
	I(op " r11d");            \
	I(op " rbx");             \
	I(op " r15");             \
	I(op " byte ptr [rsi]");  \
	I(op " word ptr [rdi]");  \
	I(op " dword ptr [rbp]"); \
	I(op " qword ptr [rsi]")

/* Quotients fit: the high half is small, or the sign of the low one. */
static void fits(struct insn_rng *r, struct insn_state *s)
{
	u64 k = insn_rnd(r);
	if (k & 1)
		s->gpr[R_DX] = k & 2 ? 0 : (u64)((s64)s->gpr[R_AX] >> 63);
	else if (k & 4)
		s->gpr[R_DX] = insn_rnd(r) >> (k >> 8 & 63);
	if (k & 8) {
		s->gpr[R_AX] &= 0x7fff;
		s->gpr[R_DX] = 0;
	}
}

void family_muldiv(struct insn_test *t)
{
	EACH(ONE, "mul", "imul");
	I("imul ax, bx");
	I("imul eax, r9d");
	I("imul rdx, [rsi]");
	I("imul cx, [rdi+2], 0x1234");
	I("imul ecx, edx, -3");
	I("imul r8, r9, 0x12345678");
	I("imul r8d, [rsi], 100");
	I("imul rax, rax, -1");
	if (insn_has(X86_FEATURE_BMI2)) {
		I("mulx rax, rbx, rcx; mulx r8d, r9d, [rsi]; mulx r10, r10, r11; mulx r12, r13, [rdi]");
	}
	t->setup = fits;
	t->states *= 2;
	EACH(ONE, "div", "idiv");
	t->states /= 2;
	t->setup = NULL;
	I("cqo; idiv rbx");
	I("xor edx, edx; div ecx");
	I("cbw; idiv cl");
}
