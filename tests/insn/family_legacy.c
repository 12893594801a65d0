/* 32-bit code: decimal adjustment, BOUND, INTO, SALC, one-byte INC and DEC, 16-bit addresses. The flags that the SDM leaves undefined after
 * a decimal adjustment are hidden by a TEST behind it, after CF and AF have been saved. */
#include "families.h"

static void digits(struct insn_rng *r, struct insn_state *s)
{
	u64 k = insn_rnd(r);
	s->gpr[R_AX] = (u32)k;
	s->flags |= k >> 32 & (FL_CF | FL_AF);
}

void family_legacy(struct insn_test *t)
{
	t->mode = INSN_32;
	t->setup = digits;
	t->states *= 4;
	I32("daa; pushf; and dword ptr [esp], 0xd5; pop ebx; test eax, eax");
	I32("das; pushf; and dword ptr [esp], 0xd5; pop ebx; test eax, eax");
	I32("aaa; setc bl; test eax, eax");
	I32("aas; setc bl; test eax, eax");
	I32("mov edx, eax; aaa; mov ecx, eax; lahf; and ah, 0x11; test eax, eax");
	I32("mov edx, eax; aas; mov ecx, eax; lahf; and ah, 0x11; test eax, eax");
	I32("aam; pushf; and dword ptr [esp], 0xc4; pop ebx; test eax, eax");
	I32("aad; pushf; and dword ptr [esp], 0xc4; pop ebx; test eax, eax");
	I32("aam 16; test eax, eax");
	I32("aad 7; test eax, eax");
	I32("aam 0");
	t->states /= 4;
	t->setup = NULL;
	I32(".byte 0xd6"); /* SALC */
	I32("into");
	I32("mov eax, 0x7fffffff; add eax, ebx; into");
	I32("inc eax; dec ebx; inc cx; dec dx; inc esp; dec esp");
	I32("and dword ptr [esi], 0xff; mov dword ptr [esi+4], 0x7fffffff; and eax, 0x7ff; bound eax, [esi]");
	I32("bound eax, [esi]");
	I32("bound ax, [esi]");
	I32(".byte 0x62, 0xc0");
	I32("mov ebx, 0x20000000; add ebx, 8; mov al, [ebx]");
	I32(".byte 0x67, 0x8b, 0x07");                                                 /* mov eax, [bx] */
	I32("mov ebx, 0xffff0010; mov esi, 0xffff0020; .byte 0x67, 0x8d, 0x40, 0xff"); /* lea eax, [bx+si-1] */
	I32("mov bp, 0x8000; .byte 0x67, 0x8d, 0x46, 0x80");                           /* lea eax, [bp-128] */
	I32(".byte 0x67, 0x8d, 0x06, 0x34, 0x12");                                     /* lea eax, [1234h] */
	I32("push 0x2b; push 0x20000100; les ebx, [esp]; mov al, es:[ebx]; lds ecx, [esp]; pop eax; pop eax");
	I32("mov ax, 0x2b; mov es, ax; push 0x2b; pop ds; mov eax, es:[esi]");
	t->mode = INSN_64;
	/* The same bytes in 64-bit mode. */
	I(".byte 0x27");
	I(".byte 0x37");
	I(".byte 0xd4, 10");
	I(".byte 0xce");
	I(".byte 0x60");
	I(".byte 0xd6");
	I(".byte 0x06");
	I(".byte 0x82, 0xc0, 1");
	I(".byte 0x9a, 0, 0, 0, 0, 0, 0");
	I(".byte 0xea, 0, 0, 0, 0, 0, 0");
}
