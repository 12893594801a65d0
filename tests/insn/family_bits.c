/* Bit tests, scans and counts, BMI1 and BMI2. */
#include "families.h"

static void near_bits(struct insn_rng *r, struct insn_state *s)
{
	s->gpr[R_CX] = insn_rnd(r) % 8192 - 4096; /* bit offsets that stay in the data */
	s->gpr[R_9] = insn_rnd(r) % 8192 - 4096;
}

#define TESTS(op)                     \
	I(op " ax, bx");              \
	I(op " eax, r9d");            \
	I(op " r10, rdx");            \
	I(op " rcx, rcx");            \
	I(op " ax, 5");               \
	I(op " eax, 31");             \
	I(op " rax, 63");             \
	I(op " r11, 255");            \
	I(op " bx, 0x1f");            \
	I(op " word ptr [rsi], 9");   \
	I(op " dword ptr [rdi], 40"); \
	I(op " qword ptr [rbp], 63"); \
	I(op " [rsi], cx");           \
	I(op " [rdi], ecx");          \
	I(op " [rbp], r9");           \
	I(op " [rsi], r9d")
#define SCANS(op)            \
	I(op " ax, bx");     \
	I(op " ecx, edx");   \
	I(op " r8, r9");     \
	I(op " ax, [rsi]");  \
	I(op " r9d, [rdi]"); \
	I(op " rdx, [rbp]"); \
	I("xor ebx, ebx; " op " rax, rbx; " op " ecx, ebx; " op " dx, bx")

void family_bits(struct insn_test *t)
{
	t->setup = near_bits;
	EACH(TESTS, "bt", "bts", "btr", "btc");
	I("lock bts qword ptr [rsi], 7; lock btr [rdi], ecx; lock btc [rbp], r9");
	t->setup = NULL;
	EACH(SCANS, "bsf", "bsr");
	if (insn_has(X86_FEATURE_POPCNT)) {
		SCANS("popcnt");
	}
	if (insn_has(X86_FEATURE_ABM)) {
		SCANS("lzcnt");
	}
	if (insn_has(X86_FEATURE_BMI1)) {
		SCANS("tzcnt");
		I("andn rax, rbx, rcx");
		I("andn r8d, edx, [rsi]");
		I("bextr rax, rbx, rcx");
		I("bextr r8d, [rdi], edx");
		I("mov ecx, 0x0804; bextr rax, [rsi], rcx");
		I("blsi rax, rbx; blsmsk ecx, edx; blsr r8, r9");
		I("blsi rax, [rsi]");
		I("blsmsk ecx, [rdi]");
		I("blsr r8, [rbp]");
		I("xor ebx, ebx; blsi rax, rbx; setc cl; blsmsk rdx, rbx; setc ch; blsr r8, rbx");
	}
	if (insn_has(X86_FEATURE_BMI2)) {
		I("bzhi rax, rbx, rcx");
		I("bzhi r8d, [rsi], edx");
		I("mov cl, 40; bzhi rax, rbx, rcx; bzhi r8d, edx, ecx");
		I("pdep rax, rbx, rcx; pext rdx, rsi, r9; pdep r10d, r11d, [rsi]; pext r12d, r13d, [rdi]");
	}
	if (insn_has(X86_FEATURE_SSE4_2)) {
		I("crc32 eax, bl; crc32 ecx, dx; crc32 r8d, r9d; crc32 r10, r11; crc32 rdx, byte ptr [rsi]");
		I("crc32 eax, word ptr [rsi]; crc32 r9d, dword ptr [rdi]; crc32 r10, qword ptr [rbp]");
	}
}
