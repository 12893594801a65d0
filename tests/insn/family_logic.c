/* AND OR XOR NOT TEST, and the flag instructions. */
#include "families.h"

#define ALL(op)       \
	RM_FORMS(op); \
	MR_FORMS(op); \
	IMM_FORMS(op)

void family_logic(struct insn_test *t)
{
	EACH(ALL, "and", "or", "xor");
	LOCK_FORMS("and");
	LOCK_FORMS("or");
	LOCK_FORMS("xor");
	MR_FORMS("test");
	IMM_FORMS("test");
	I("test al, al");
	I("test ah, bl");
	I("test cx, dx");
	I("test r9d, r10d");
	I("test rsi, rdi");
	ONE_FORMS("not");
	I("lock not dword ptr [rsi]");
	I("xor eax, eax; xor rbx, rbx; sub ecx, ecx; and edx, 0");
	I("clc; adc eax, 0; stc; adc ebx, 0; cmc; adc ecx, 0");
	I("std; cld; std");
	I("lahf; xor ah, 0xff; sahf");
	I("sahf; lahf");
	I("movzx eax, bl; movzx ecx, bh; movzx r8, dx; movzx edx, word ptr [rsi]; movzx r9w, byte ptr [rdi]");
	I("movsx eax, bl; movsx ecx, bh; movsx r8, dx; movsx edx, word ptr [rsi]; movsx r9w, byte ptr [rdi]");
	I("movsxd rax, ebx; movsxd rcx, dword ptr [rsi]; movsxd r8, r9d");
	I("bswap eax; bswap r9d; bswap rbx; bswap r15");
	if (insn_has(X86_FEATURE_MOVBE)) {
		I("movbe ax, [rsi]; movbe ebx, [rsi+1]; movbe r9, [rdi]");
		I("movbe [rsi], ax; movbe [rsi+5], ebx; movbe [rdi], r9");
	}
}
