/* Single-stepping: TF is set when the code begins, so it ends with #DB after its first instruction, or what counts as
 * one [SDM3 18.3.1.4]; faults come before. */
#include "families.h"

static void single_step(struct insn_rng *r, struct insn_state *s)
{
	s->flags |= FL_TF;
	s->gpr[R_CX] = insn_rnd(r) % 5;
}

static void stack_selector(struct insn_rng *r, struct insn_state *s)
{
	single_step(r, s);
	s->gpr[R_AX] = (s->gpr[R_AX] & ~0xffffull) | INSN_DS;
}

void family_step(struct insn_test *t)
{
	t->states = t->states > 16 ? 16 : t->states;
	t->setup = single_step;
	I("add rax, rbx; inc rcx");
	I("nop; inc rax");
	I("mov [rsi], rax; inc rax");
	I("jmp 1f; nop; 1: nop");
	I("call 1f; nop; 1: nop");
	I("jrcxz 1f; nop; 1: nop");
	I("loop 1f; nop; 1: nop");
	I("push rbx; ret");
	I("movsb; nop");
	I("rep movsb; nop"); /* a trap after each round */
	I("rep stosq; nop");
	I("repe cmpsb; nop");
	I("repne scasw; nop");
	I("pushf; pop rax");
	I("push 0x202; popf; nop"); /* the trap comes after PUSH */
	I("mov rax, [0x30000000]");
	I("ud2");
	I("xor ecx, ecx; div ecx");
	I("addps xmm0, xmm1; nop");
	I("fld1; nop");
	I("xchg [rsi], eax; nop");
	I("mov ax, ss; nop");
	t->setup = stack_selector;
	I("mov ss, ax; nop; nop"); /* no trap before the instruction behind it is done */
	I("mov ss, ax; mov rsp, rdi; nop");
	I("mov ss, ax; ud2");
	I("mov ss, ax; int3");
	t->setup = single_step;
	t->mode = INSN_32;
	I32("mov ss, ax; nop; nop"); /* the fault of a bad selector, most times */
	I32("pusha; nop");
	I32("aam 10; nop");
	t->mode = INSN_64;
}
