/* The one list of instruction families: a line here, a file family_<name>.c. */
#pragma once

#include "insn.h"
#include "x86/cpuid.h"

#define INSN_FAMILIES(X)                                                                           \
	X(arith) X(logic) X(shift) X(move) X(muldiv) X(bits) X(string) X(stack) X(flow) X(atomic) X(legacy) \
	X(x87) X(mmx) X(sse) X(avx) X(crypto) X(xsave) X(fault)

#define FAMILY_DECLARE_(name) void family_##name(struct insn_test *t);
INSN_FAMILIES(FAMILY_DECLARE_)
#undef FAMILY_DECLARE_

/* The operand forms of a two-operand instruction: register, memory and immediate, in all sizes. */
#define RM_FORMS(op)                                                                               \
	I(op " al, bl"); I(op " ch, dl"); I(op " r9b, sil"); I(op " ah, bh");                      \
	I(op " ax, bx"); I(op " r10w, cx"); I(op " eax, ebx"); I(op " r8d, r15d"); I(op " esi, edi"); \
	I(op " rax, rbx"); I(op " r12, r13"); I(op " rdx, rdx");                                   \
	I(op " al, [rsi]"); I(op " dx, [rsi+2]"); I(op " r11d, [rdi-4]"); I(op " rcx, [rbp+8]");   \
	I(op " r14, [rip+0x10000000]")
#define MR_FORMS(op)                                                                               \
	I(op " [rsi], cl"); I(op " [rdi+1], bh"); I(op " [rsi+2], dx"); I(op " [rdi-4], r11d");    \
	I(op " [rbp+8], rcx"); I(op " [rsp+16], r9"); I(op " gs:[0x100], eax")
#define IMM_FORMS(op)                                                                              \
	I(op " al, 0x80"); I(op " bh, 1"); I(op " r9b, -1"); I(op " ax, 0x8000"); I(op " dx, -3"); \
	I(op " eax, 0x80000000"); I(op " r11d, 7"); I(op " rax, -0x80000000"); I(op " r12, 0x7fffffff"); \
	I(op " byte ptr [rsi], 0x7f"); I(op " word ptr [rdi], 0x1234"); I(op " dword ptr [rbp], -2"); \
	I(op " qword ptr [rsi+8], 0x12345678"); I(op " qword ptr [rdi], -128")
#define ONE_FORMS(op)                                                                              \
	I(op " al"); I(op " dh"); I(op " sil"); I(op " bx"); I(op " r9w"); I(op " ecx"); I(op " r10d"); \
	I(op " rdx"); I(op " r15"); I(op " byte ptr [rsi]"); I(op " word ptr [rsi]"); I(op " dword ptr [rdi]"); \
	I(op " qword ptr [rbp]")
#define LOCK_FORMS(op)                                                                             \
	I("lock " op " [rsi], cl"); I("lock " op " [rsi], cx"); I("lock " op " [rdi], r9d");       \
	I("lock " op " [rbp], rdx")
