/* Exceptions as a program meets them, each with its error code, address and untouched registers; and what the privileged
 * instructions do at CPL 3. */
#include "families.h"

void family_fault(struct insn_test *t)
{
	t->states = t->states > 8 ? 8 : t->states;
	I("mov al, [0x30000000]");
	I("mov [0x30000000], al");
	I("mov [0x20002000], eax"); /* read-only */
	I("add dword ptr [0x20002ffc], 1");
	I("cmp dword ptr [0x20002ffe], 1"); /* over the end */
	I("mov rax, [0x1fffffff]");
	I("mov [0x1ffffffc], rax");
	I("mov [0x20001ffc], rax"); /* half in the read-only page: nothing is written */
	I("mov [0x20000ffc], rax; mov rbx, [0x20000ffb]");
	I("mov rax, 0x123456789abcdef0; mov rbx, [rax]");
	I("mov rbp, 0x8000000000000000; mov [rbp], al");
	I("mov rax, 0xffffffff80000000; mov rbx, [rax]");
	I("mov rax, -1; mov bl, [rax]");
	I("mov rax, -1; mov bx, [rax]");
	I("mov rax, 0x7fffffffffff; mov bx, [rax]");
	I("ud2");
	I("ud1 eax, [rsi]");
	I(".byte 0x0f, 0xff, 0xc0");
	I(".byte 0x0f, 0x04");
	I(".byte 0x0f, 0x0a");
	I(".byte 0x0f, 0x38, 0x20");
	I(".byte 0x0f, 0x24, 0xc0");
	I(".byte 0xc6, 0x48, 1");
	I(".byte 0x8f, 0x48, 1");
	I(".byte 0xff, 0xf8");
	I(".byte 0xfe, 0xd0");
	I(".byte 0x0f, 0xba, 0xc0, 1");
	I(".byte 0x8d, 0xc0"); /* lea with a register */
	I(".byte 0x8c, 0xf0"); /* segment register 6 */
	I(".byte 0x8e, 0xc8"); /* mov cs, ax */
	I(".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90");
	I(".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90");
	I(".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90"); /* too long */
	I("xor ecx, ecx; div ecx");
	I("mov eax, 0x80000000; cdq; mov ecx, -1; idiv ecx");
	I("hlt");
	I("cli");
	I("sti");
	I("in al, 0x60");
	I("out dx, eax");
	I("insb");
	I("outsd");
	I("mov rax, cr0");
	I("mov cr3, rax");
	I("mov rax, dr7");
	I("mov rax, cr8");
	I("clts");
	I("lgdt [rsi]");
	I("lidt [rsi]");
	I("lldt ax");
	I("ltr ax");
	I("lmsw ax");
	I("invlpg [rsi]");
	I("wbinvd");
	I("rdmsr");
	I("wrmsr");
	I("swapgs");
	I("sysretq");
	I("clac");
	I("stac");
	I("iretq");
	I("mov ax, 0x10; mov ds, ax");   /* a kernel segment */
	I("mov ax, 0x1234; mov es, ax"); /* beyond the table */
	I("xor eax, eax; mov ss, ax");   /* null SS at CPL 3 */
	I("mov ax, 0x33; mov ss, ax");   /* code */
	I("int 0x20");                   /* no gate for CPL 3 */
	I("mov rax, gs:[0x2000]");
	if (insn_has(X86_FEATURE_FSGSBASE)) {
		I("rdgsbase rax; rdgsbase ecx; mov rbx, rax; add rbx, 16; wrgsbase rbx; mov r8, gs:[0]; wrgsbase rax");
		I("rdgsbase r9; mov rax, 0x800000000000; wrgsbase rax");
	}
}
