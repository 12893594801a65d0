/* Alignment checks: CR0.AM is set on both sides, and so is AC here [SDM3 6.15, interrupt 17]. Which instructions check, and by which
 * size. */
#include "families.h"

static void check_alignment(struct insn_rng *r, struct insn_state *s)
{
	static const u8 pointers[] = { R_SI, R_DI, R_BP };
	s->flags |= FL_AC;
	for (unsigned p = 0; p < ARRAY_SIZE(pointers); p++)
		if (insn_rnd(r) & 1)
			s->gpr[pointers[p]] = (s->gpr[pointers[p]] & ~63ull) + (insn_rnd(r) & 15);
	s->gpr[R_CX] = insn_rnd(r) & 7;
	if ((insn_rnd(r) & 3) == 0)
		s->gpr[R_SP] += insn_rnd(r) & 7;
}

void family_align(struct insn_test *t)
{
	t->setup = check_alignment;
	I("mov al, [rsi]");
	I("mov ax, [rsi]");
	I("mov eax, [rsi]");
	I("mov rax, [rsi]");
	I("mov [rdi], cx");
	I("mov [rdi], ecx");
	I("mov [rdi], rcx");
	I("add [rsi], edx");
	I("lock add [rsi], edx");
	I("xchg [rsi], rdx");
	I("movzx eax, word ptr [rsi]; movsxd rbx, dword ptr [rdi]");
	I("push rax");
	I("pop rax");
	I("push ax");
	I("push [rsi]");
	I("pop [rdi]");
	I("call .+5");
	I("ret");
	I("leave");
	I("enter 16, 0");
	I("movsb");
	I("movsw");
	I("rep movsd");
	I("rep stosq");
	I("lodsd");
	I("scasw");
	I("cmpsq");
	I("bt dword ptr [rsi], 3");
	I("bts qword ptr [rdi], 3");
	I("shld [rsi], eax, 3");
	I("imul eax, [rsi]");
	I("cmpxchg8b [rsi]");
	I("fld dword ptr [rsi]");
	I("fld qword ptr [rsi]");
	I("fild word ptr [rsi]");
	I("fistp qword ptr [rdi]");
	I("fnstcw [rsi]");
	I("paddd mm0, [rsi]");
	I("movq [rdi], mm1");
	I("movss xmm0, dword ptr [rsi]");
	I("movsd xmm0, qword ptr [rsi]");
	I("movsd qword ptr [rdi], xmm0");
	I("addsd xmm1, qword ptr [rsi]");
	I("movaps xmm0, [rsi]");
	I("lea rax, [rsi]; prefetcht0 [rsi]; nop dword ptr [rsi]");
	I("mov rax, [0x20002ffc]"); /* not aligned and not there */
	I("mov rax, [0x30000001]");
	I("mov rax, 0x800000000001; mov rbx, [rax]");
	I("pushf; pop rax; and eax, 0x40cd5; push rax; popf; mov ebx, [rsi]");
}
