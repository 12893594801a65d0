/* One vector or mask register of the host, by its number, to or from memory: for handlers in C that need two or three of
 * them, so that the rest stays where it is. See vecreg.h.
 *
 * A register's number is part of the instruction, so there is one little function for each, 16 bytes apart.
 *
 * On the vCPU's thread, while the guest's state is in the host's registers.
 */
#include "cpu/soft/vecreg.h"

#define NUMBERS_8  "0,1,2,3,4,5,6,7"
#define NUMBERS_16 NUMBERS_8 ",8,9,10,11,12,13,14,15"
#define NUMBERS_32 NUMBERS_16 ",16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"

/* The register is %...\r in the text. */
#define EACH_REGISTER(name, numbers, insn)                                                                  \
	__asm__(".pushsection .text\n\t.balign 16\n" #name ":\n\t.irp r," numbers "\n\t.balign 16\n\t" insn \
		"\n\tret\n\t.endr\n\t.popsection")

extern const u8 vecreg_ymm_to[], vecreg_ymm_from[], vecreg_zmm_to[], vecreg_zmm_from[], vecreg_k_to[],
	vecreg_k_from[];
EACH_REGISTER(vecreg_ymm_to, NUMBERS_16, "vmovdqu %ymm\\r, (%rdi)");
EACH_REGISTER(vecreg_ymm_from, NUMBERS_16, "vmovdqu (%rdi), %ymm\\r");
EACH_REGISTER(vecreg_zmm_to, NUMBERS_32, "vmovdqu64 %zmm\\r, (%rdi)");
EACH_REGISTER(vecreg_zmm_from, NUMBERS_32, "vmovdqu64 (%rdi), %zmm\\r");
EACH_REGISTER(vecreg_k_to, NUMBERS_8, "kmovq %k\\r, (%rdi)");
EACH_REGISTER(vecreg_k_from, NUMBERS_8, "kmovq (%rdi), %k\\r");

static void call(const u8 *table, unsigned n, void *p)
{
	((void (*)(void *))(uintptr_t)(table + 16 * n))(p);
}

void vecreg_get_ymm(unsigned n, void *ret_bytes)
{
	call(vecreg_ymm_to, n, ret_bytes);
}

void vecreg_set_ymm(unsigned n, const void *bytes)
{
	call(vecreg_ymm_from, n, (void *)(uintptr_t)bytes);
}

void vecreg_get_zmm(unsigned n, void *ret_bytes)
{
	call(vecreg_zmm_to, n, ret_bytes);
}

void vecreg_set_zmm(unsigned n, const void *bytes)
{
	call(vecreg_zmm_from, n, (void *)(uintptr_t)bytes);
}

u64 vecreg_get_k(unsigned n)
{
	u64 v;

	call(vecreg_k_to, n, &v);
	return v;
}

void vecreg_set_k(unsigned n, u64 v)
{
	call(vecreg_k_from, n, &v);
}
