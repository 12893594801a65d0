/* The one list of instruction families: a line here, a file family_<name>.c. */
#pragma once

#include "insn.h"
#include "x86/cpuid.h"

#define INSN_FAMILIES(X) \
	X(arith)         \
	X(logic)         \
	X(shift)         \
	X(move)          \
	X(muldiv)        \
	X(bits)          \
	X(string)        \
	X(stack)         \
	X(flow)          \
	X(atomic)        \
	X(legacy)        \
	X(x87)           \
	X(mmx)           \
	X(sse)           \
	X(avx)           \
	X(avx512)        \
	X(crypto) X(xsave) X(align) X(step) X(fault) X(xlate_mem) X(xlate_flags) X(xlate_flow) X(xlate_loop)

#define FAMILY_DECLARE_(name) void family_##name(struct insn_test *t);
INSN_FAMILIES(FAMILY_DECLARE_)
#undef FAMILY_DECLARE_

/* The operand forms of a two-operand instruction: register, memory and immediate, in all sizes. */
#define RM_FORMS(op)            \
	I(op " al, bl");        \
	I(op " ch, dl");        \
	I(op " r9b, sil");      \
	I(op " ah, bh");        \
	I(op " ax, bx");        \
	I(op " r10w, cx");      \
	I(op " eax, ebx");      \
	I(op " r8d, r15d");     \
	I(op " esi, edi");      \
	I(op " rax, rbx");      \
	I(op " r12, r13");      \
	I(op " rdx, rdx");      \
	I(op " al, [rsi]");     \
	I(op " dx, [rsi+2]");   \
	I(op " r11d, [rdi-4]"); \
	I(op " rcx, [rbp+8]");  \
	I(op " r14, [rip+0x10000000]")
#define MR_FORMS(op)            \
	I(op " [rsi], cl");     \
	I(op " [rdi+1], bh");   \
	I(op " [rsi+2], dx");   \
	I(op " [rdi-4], r11d"); \
	I(op " [rbp+8], rcx");  \
	I(op " [rsp+16], r9");  \
	I(op " gs:[0x100], eax")
#define IMM_FORMS(op)                           \
	I(op " al, 0x80");                      \
	I(op " bh, 1");                         \
	I(op " r9b, -1");                       \
	I(op " ax, 0x8000");                    \
	I(op " dx, -3");                        \
	I(op " eax, 0x80000000");               \
	I(op " r11d, 7");                       \
	I(op " rax, -0x80000000");              \
	I(op " r12, 0x7fffffff");               \
	I(op " byte ptr [rsi], 0x7f");          \
	I(op " word ptr [rdi], 0x1234");        \
	I(op " dword ptr [rbp], -2");           \
	I(op " qword ptr [rsi+8], 0x12345678"); \
	I(op " qword ptr [rdi], -128")
#define ONE_FORMS(op)             \
	I(op " al");              \
	I(op " dh");              \
	I(op " sil");             \
	I(op " bx");              \
	I(op " r9w");             \
	I(op " ecx");             \
	I(op " r10d");            \
	I(op " rdx");             \
	I(op " r15");             \
	I(op " byte ptr [rsi]");  \
	I(op " word ptr [rsi]");  \
	I(op " dword ptr [rdi]"); \
	I(op " qword ptr [rbp]")
#define LOCK_FORMS(op)               \
	I("lock " op " [rsi], cl");  \
	I("lock " op " [rsi], cx");  \
	I("lock " op " [rdi], r9d"); \
	I("lock " op " [rbp], rdx")

/* EACH(OP, a, b, ...): OP(a); OP(b); ..., up to 16. */
#define EACH(op, ...)                                                                                       \
	EACH_N_(__VA_ARGS__, EACH_16_, EACH_15_, EACH_14_, EACH_13_, EACH_12_, EACH_11_, EACH_10_, EACH_9_, \
		EACH_8_, EACH_7_, EACH_6_, EACH_5_, EACH_4_, EACH_3_, EACH_2_, EACH_1_)                     \
	(op, __VA_ARGS__)
#define EACH_N_(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, name, ...) name
#define EACH_1_(op, a)                                                                            op(a)
#define EACH_2_(op, a, ...) \
	op(a);              \
	EACH_1_(op, __VA_ARGS__)
#define EACH_3_(op, a, ...) \
	op(a);              \
	EACH_2_(op, __VA_ARGS__)
#define EACH_4_(op, a, ...) \
	op(a);              \
	EACH_3_(op, __VA_ARGS__)
#define EACH_5_(op, a, ...) \
	op(a);              \
	EACH_4_(op, __VA_ARGS__)
#define EACH_6_(op, a, ...) \
	op(a);              \
	EACH_5_(op, __VA_ARGS__)
#define EACH_7_(op, a, ...) \
	op(a);              \
	EACH_6_(op, __VA_ARGS__)
#define EACH_8_(op, a, ...) \
	op(a);              \
	EACH_7_(op, __VA_ARGS__)
#define EACH_9_(op, a, ...) \
	op(a);              \
	EACH_8_(op, __VA_ARGS__)
#define EACH_10_(op, a, ...) \
	op(a);               \
	EACH_9_(op, __VA_ARGS__)
#define EACH_11_(op, a, ...) \
	op(a);               \
	EACH_10_(op, __VA_ARGS__)
#define EACH_12_(op, a, ...) \
	op(a);               \
	EACH_11_(op, __VA_ARGS__)
#define EACH_13_(op, a, ...) \
	op(a);               \
	EACH_12_(op, __VA_ARGS__)
#define EACH_14_(op, a, ...) \
	op(a);               \
	EACH_13_(op, __VA_ARGS__)
#define EACH_15_(op, a, ...) \
	op(a);               \
	EACH_14_(op, __VA_ARGS__)
#define EACH_16_(op, a, ...) \
	op(a);               \
	EACH_15_(op, __VA_ARGS__)
