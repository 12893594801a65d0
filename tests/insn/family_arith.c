/* Addition, subtraction, comparison: ADD ADC SUB SBB CMP NEG INC DEC, widening moves of the accumulator. */
#include "families.h"

#define ALL(op)       \
	RM_FORMS(op); \
	MR_FORMS(op); \
	IMM_FORMS(op)

void family_arith(struct insn_test *t)
{
	EACH(ALL, "add", "adc", "sub", "sbb", "cmp");
	LOCK_FORMS("add");
	LOCK_FORMS("adc");
	LOCK_FORMS("sub");
	LOCK_FORMS("sbb");
	ONE_FORMS("neg");
	ONE_FORMS("inc");
	ONE_FORMS("dec");
	I("lock neg qword ptr [rsi]");
	I("lock inc dword ptr [rdi]");
	I("lock dec byte ptr [rdi+3]");
	I("lock add qword ptr [rsi], 5");
	I("cbw");
	I("cwde");
	I("cdqe");
	I("cwd");
	I("cdq");
	I("cqo");
	/* Chains, whose carries pass from one instruction to the next. */
	I("add rax, rbx; adc rcx, rdx; adc r8, r9; sbb r10, r11; sbb r12, r12");
	I("inc eax; adc ebx, 0; dec ecx; sbb edx, 0; neg esi; adc edi, edi");
	I("cmp rax, rbx; sbb ecx, ecx; cmp cl, dl; adc r8b, 0");
	I("lea rax, [rbx+rcx*4+0x12345678]; add rax, [rsi+8]");
	I("lea eax, [ebx+ecx*8-3]; lea ax, [rbx+rcx]; lea r9, [r10+r10*2]");
	I("lea sp, [0x20001ecb]");
	I("lea r10w, [0x20001ecb]; lea ax, [rbx+rcx*2+77]; lea r9w, [r10+r11*4-3]; lea cx, [r9+5]");
	I("lea rdx, [rip+0x1234]; lea r8d, [rip-5]");
	if (insn_has(X86_FEATURE_ADX)) {
		I("adcx rax, rbx; adox rcx, rdx; adcx r8d, [rsi]; adox r9, [rdi]");
		I("adox eax, ebx; adcx ecx, edx; adc r8, r9");
	}
}
