/* Jumps, calls, returns, loops, and conditions: Jcc SETcc CMOVcc. */
#include "families.h"

/* Which of the sixteen conditions hold, as a bit mask in R15. */
#define CC(cc)  "j" cc " 1f; or r15d, 1; 1: shl r15d, 1;"
#define SET(cc) "set" cc " al; set" cc " byte ptr [rsi]; set" cc " r9b;"
#define CMOV(cc)                                                                                         \
	"cmov" cc " rax, rbx; cmov" cc " r8d, ecx; cmov" cc " dx, [rsi]; cmov" cc " r10, [rdi]; cmov" cc \
	" r11d, [rbp];"

static void few(struct insn_rng *r, struct insn_state *s)
{
	s->gpr[R_CX] = 1 + insn_rnd(r) % 5; /* from 0 they would go round 2^64 times */
}

void family_flow(struct insn_test *t)
{
	I("xor r15d, r15d; bt eax, 0; " CC("o") CC("no"));
#define CONDITIONS(m) \
	I(m("o"));    \
	I(m("no"));   \
	I(m("b"));    \
	I(m("ae"));   \
	I(m("e"));    \
	I(m("ne"));   \
	I(m("be"));   \
	I(m("a"));    \
	I(m("s"));    \
	I(m("ns"));   \
	I(m("p"));    \
	I(m("np"));   \
	I(m("l"));    \
	I(m("ge"));   \
	I(m("le"));   \
	I(m("g"))
#define JUMP(cc) "j" cc " 1f; inc r15; 1: j" cc " 2f; .fill 200, 1, 0x90; 2: lea r14, [r14+1]"
	CONDITIONS(JUMP);
	CONDITIONS(SET);
	CONDITIONS(CMOV);
	I("jmp 1f; ud2; 1: jmp 2f; .fill 150, 1, 0x90; 2: inc eax");
	I("call 1f; inc rax; jmp 2f; 1: mov rbx, [rsp]; ret; 2: nop");
	I("lea rax, [rip+1f]; call rax; jmp 2f; 1: inc rcx; ret 8; 2: nop");
	I("lea rax, [rip+1f]; jmp rax; ud2; 1: nop");
	I("lea rax, [rip+1f]; mov [rsi], rax; jmp [rsi]; ud2; 1: inc rdx");
	I("lea rax, [rip+1f]; mov [rsi+8], rax; call [rsi+8]; jmp 2f; 1: pop rbx; push rbx; ret; 2: nop");
	I("push rax; push rbx; call 1f; 1: pop rcx; lea rcx, [rcx+12]; push rcx; ret; .fill 20, 1, 0x90");
	I("mov ecx, 20; xor eax, eax; 1: add rax, rcx; dec ecx; jnz 1b");
	I("mov ecx, 300; xor eax, eax; 1: add rax, rcx; xor rdx, rax; loop 1b");
	/* Loops of one block whose operand has an index and no base. */
	I("xor eax, eax; mov rdx, rsi; 1: mov [rax*8+0x20000340], rdx; inc rax; cmp rax, 63; jne 1b");
	I("xor ecx, ecx; 1: add rdx, [rcx*4+0x20000340]; add rcx, 1; cmp rcx, 100; jne 1b");
	I("mov ecx, 600; 1: xor [rcx*8+0x20000340], rcx; sub rcx, 1; jnz 1b");
	I("xor r9d, r9d; 1: mov rax, [r9*8+0x20000340]; xor rdx, rax; inc r9; cmp r9, 63; jne 1b");
	I("jrcxz 1f; inc eax; 1: .byte 0x67; jrcxz 2f; inc ebx; 2: nop");
	I("xor ecx, ecx; jrcxz 1f; inc eax; 1: mov rcx, 0x100000000; .byte 0x67; jrcxz 2f; inc ebx; 2: jrcxz 3f; inc edx; 3: nop");
	t->setup = few;
	I("1: inc eax; loop 1b");
	I("1: inc eax; cmp eax, ebx; loope 1b");
	I("1: inc eax; cmp eax, ebx; loopne 1b");
	I("mov r8, 0x100000000; add rcx, r8; 1: inc eax; .byte 0x67; loop 1b");
	t->setup = NULL;
	/* Out of the code: page faults and general protection of the jump's target. */
	I("jmp rax");
	I("call rbx");
	I("mov rax, 0x800000000000; jmp rax");
	I("mov rax, 0x20000000; jmp rax");
	I("mov rax, 0x20000000; call rax");
	I("push 0x10; ret");
	I("lea rax, [rip+1f+2]; jmp rax; 1: .byte 0xb8, 0x90, 0xff, 0xc0, 0x90"); /* into the middle of a MOV */
	t->mode = INSN_32;
	I32("call 1f; inc eax; jmp 2f; 1: mov ebx, [esp]; ret; 2: nop");
	I32("mov ecx, 3; 1: inc eax; loop 1b; jecxz 2f; inc ebx; 2: into");
	I32("cmp eax, ebx; jg 1f; cmovl ecx, edx; 1: seto al");
	I32("mov eax, 1; jmp eax");
	t->mode = INSN_64;
}
