/* PUSH POP ENTER LEAVE PUSHF PUSHA and what they do to RSP. */
#include "families.h"

static void bad_stack(struct insn_rng *r, struct insn_state *s)
{
	static const u64 bad[] = { 0x0000800000000000,
				   0xffff7ffffffffff8,
				   0x12345678abcdef00,
				   0x8000000000000000,
				   INSN_DATA + INSN_DATA_RW + 8,
				   INSN_DATA,
				   INSN_DATA + 2,
				   0x1000,
				   INSN_DATA + INSN_DATA_SIZE - 4 };
	s->gpr[R_SP] = bad[insn_rnd(r) % ARRAY_SIZE(bad)];
	if (insn_rnd(r) & 1)
		s->gpr[R_BP] = bad[insn_rnd(r) % ARRAY_SIZE(bad)];
}

void family_stack(struct insn_test *t)
{
	I("push rax; push r9; push rsp; pop rbx; pop r10; pop rsp");
	I("push 0x7f; push -1; push 0x12345678; push 0x80000000-0x100000000; pop rax; pop rbx; pop rcx; pop rdx");
	I("pushw 0x1234; push ax; popw [rsi]; pop cx; pushw [rdi]; popw dx");
	I("push qword ptr [rsi]; pop qword ptr [rdi]; push qword ptr [rsp]; pop qword ptr [rsp+8]; pop qword ptr [rsp]");
	I("pushf; pop rax; pushfw; pop bx");
	I("push fs; push gs; pop rax; pop rbx");
	I("and eax, 0x244ed5; or eax, 2; push rax; popf; pushf; pop rbx; push 0x202; popf"); /* not TF, AC, RF, VM */
	I("and ax, 0x4ed5; push ax; popfw; pushf; pop rbx; pushw 0x202; popfw");
	I("push rbp; mov rbp, rsp; sub rsp, 64; mov [rbp-8], rax; leave");
	I("enter 32, 0; mov [rbp-8], rcx; leave");
	I("lea rbp, [rsp+64]; enter 16, 1; leave");
	I("lea rbp, [rsp+64]; enter 40, 3; mov rax, [rbp-8]; leave");
	I("lea rbp, [rsp+300]; enter 8, 31");
	I("lea rbp, [rsp+64]; .byte 0x66; enter 8, 2");
	I(".byte 0x66; leave");
	t->setup = bad_stack;
	I("push rax");
	I("push ax");
	I("pop rax");
	I("push [rsi]");
	I("pop [rsi]");
	I("pushf");
	I("enter 16, 0");
	I("enter 16, 2");
	I("enter 0x4000, 1");
	I("leave");
	I("call .+5");
	I("ret");
	I("ret 16");
	I("mov rax, [rsp]");
	I("mov [rbp], ecx");
	I("push fs");
	t->setup = NULL;
	t->mode = INSN_32;
	I32("push eax; push 5; push -3; push ax; pop bx; pop ecx; pop edx; pop [esi]");
	I32("pusha; add dword ptr [esp+28], 1; popa");
	I32("pushaw; popaw");
	I32("pushf; pop eax; pushfw; pop bx");
	I32("push ebp; mov ebp, esp; enter 16, 2; leave; leave");
	I32("push ds; push es; push ss; push cs; pop eax; pop ebx; pop ecx; pop edx");
	I32("push fs; pop eax; push gs; pop ebx");
	t->mode = INSN_64;
}
