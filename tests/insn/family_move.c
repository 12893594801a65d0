/* MOV in all its forms, XCHG, XLAT, LEA, conversions of width. */
#include "families.h"

static void small_al(struct insn_rng *r, struct insn_state *s)
{
	s->gpr[R_BX] = INSN_DATA + 1024 + (insn_rnd(r) & 1023);
}

void family_move(struct insn_test *t)
{
	RM_FORMS("mov");
	MR_FORMS("mov");
	IMM_FORMS("mov");
	RM_FORMS("xchg");
	LOCK_FORMS("xchg");
	I("mov rax, 0x123456789abcdef0; mov r9, -1; mov r10d, 0xffffffff; mov cx, 0x8000; mov dh, 7; mov spl, 3");
	I("movabs al, [0x20000123]");
	I("movabs ax, [0x20000122]");
	I("movabs eax, [0x20000120]");
	I("movabs rax, [0x20000118]");
	I("movabs [0x20000123], al");
	I("movabs [0x20000118], rax");
	I("movabs [0x20001ffe], ax");
	I("mov ax, cs; mov ebx, ss; mov rcx, ds; mov [rsi], es; mov rdx, fs; mov r8w, gs");
	I("mov eax, [rsi+4]; mov rax, [esi]; mov ebx, [edi+4]; lea eax, [esi+edi]; lea rcx, [esi+edi*8-1]");
	I("xchg rax, r8; xchg ax, bx; xchg eax, eax; nop; xchg r9d, eax; .byte 0x41, 0x90; .byte 0x48, 0x90; .byte 0x66, 0x90");
	I("nop dword ptr [rsi]; nop word ptr [rax+rbx*8+0x7fffffff]; pause; endbr64; .byte 0x0f, 0x1e, 0xc8");
	I("mov ax, [rsi+0xfff-0x400]");
	I("mov rax, gs:[0x10]; mov gs:[0x18], rbx; add gs:[0x20], ecx; mov eax, dword ptr gs:[8]");
	t->setup = small_al;
	I("xlatb");
	I(".byte 0x67; xlatb");
	t->setup = NULL;
	I("movnti [rsi], eax; movnti [rdi], r9; lfence; sfence; mfence");
	I("prefetcht0 [rsi]; prefetchnta [rax]; prefetchw [rdi]; clflush [rsi]");
	t->mode = INSN_32;
	I32("mov al, [esi]; mov eax, [edi-4]; mov [ebp+2], cx; mov ebx, ds:[0x20000100]; mov ds:[0x20000108], dl");
	I32("mov eax, 0x12345678; xchg eax, ecx; lea edx, [eax+ecx*4+1]; movsx ebx, al; bswap edx; xchg [esi], bh");
	I32("mov ax, ds; mov bx, ss; mov cx, cs; mov [esi], es");
	I32("push esi; mov ebp, esp; mov eax, [ebp]; mov ecx, [esp]; mov edx, ss:[esi]; pop eax");
	I32("mov esi, 0x20000000; mov al, [esi]; arpl ax, bx; arpl [esi], cx");
	t->mode = INSN_64;
}
