/* Shifts and rotates, with counts of all sizes: by 1, by immediate, by CL, double, and the flagless ones of BMI2. */
#include "families.h"

#define SHIFTS(op)                    \
	I(op " al, cl");              \
	I(op " dh, cl");              \
	I(op " r9b, cl");             \
	I(op " bx, cl");              \
	I(op " edx, cl");             \
	I(op " r8d, cl");             \
	I(op " rax, cl");             \
	I(op " r15, cl");             \
	I(op " cl, cl");              \
	I(op " ecx, cl");             \
	I(op " byte ptr [rsi], cl");  \
	I(op " word ptr [rdi], cl");  \
	I(op " dword ptr [rbp], cl"); \
	I(op " qword ptr [rsi], cl"); \
	I(op " al, 1");               \
	I(op " bx, 1");               \
	I(op " r10d, 1");             \
	I(op " rdx, 1");              \
	I(op " byte ptr [rsi], 1");   \
	I(op " word ptr [rsi], 1");   \
	I(op " dword ptr [rsi], 1");  \
	I(op " qword ptr [rsi], 1");  \
	I(op " al, 7");               \
	I(op " al, 8");               \
	I(op " al, 9");               \
	I(op " al, 31");              \
	I(op " bx, 15");              \
	I(op " bx, 16");              \
	I(op " bx, 17");              \
	I(op " edx, 31");             \
	I(op " edx, 0");              \
	I(op " edx, 32");             \
	I(op " edx, 33");             \
	I(op " rdx, 63");             \
	I(op " rdx, 64");             \
	I(op " r9, 5");               \
	I(op " byte ptr [rsi], 3");   \
	I(op " word ptr [rsi], 12");  \
	I(op " dword ptr [rdi], 20"); \
	I(op " qword ptr [rdi], 40")
#define DOUBLES(op)              \
	I(op " ax, bx, cl");     \
	I(op " edx, r9d, cl");   \
	I(op " r10, rax, cl");   \
	I(op " rcx, rcx, cl");   \
	I(op " [rsi], bx, cl");  \
	I(op " [rdi], ebx, cl"); \
	I(op " [rbp], r8, cl");  \
	I(op " ax, bx, 3");      \
	I(op " ax, bx, 15");     \
	I(op " ax, bx, 16");     \
	I(op " edx, r9d, 31");   \
	I(op " edx, r9d, 0");    \
	I(op " r10, rax, 63");   \
	I(op " r10, rax, 1");    \
	I(op " [rsi], bx, 9");   \
	I(op " [rdi], ebx, 1");  \
	I(op " [rbp], r8, 33")

static void small_counts(struct insn_rng *r, struct insn_state *s)
{
	s->gpr[R_CX] = (s->gpr[R_CX] & ~0xffull) | (insn_rnd(r) % 70);
}

void family_shift(struct insn_test *t)
{
	t->setup = small_counts;
	EACH(SHIFTS, "shl", "shr", "sar", "rol", "ror", "rcl", "rcr");
	EACH(DOUBLES, "shld", "shrd");
	/* The undocumented twin of SHL: /6. */
	I(".byte 0xd3, 0xf3");
	I(".byte 0xc0, 0xf0, 4");
	I(".byte 0x48, 0xd1, 0x36");
	if (insn_has(X86_FEATURE_BMI2)) {
		I("shlx rax, rbx, rcx; shrx r8d, edx, ecx; sarx r9, [rsi], rcx; rorx r10, rdi, 13; rorx r11d, [rsi], 31");
		I("shlx eax, [rdi], ecx; shrx r8, rdx, rcx; sarx r9d, ebx, ecx; rorx eax, eax, 0");
	}
	t->setup = NULL;
	I("shl rax, cl; rcl rbx, 1; sar rdx, cl; adc r8, 0");
	I("rol rax, cl; ror ebx, cl; rcr dx, cl; rcl r9b, cl");
}
