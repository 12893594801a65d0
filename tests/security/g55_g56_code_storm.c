/* Code that changes itself all the time, and more of it than any cache holds [G55]; the bytes are constants as one would spray
 * them into a translator's output [G56: the host looks for pages that can be both written and executed]. Every
 * result must be that of the code as it was written last. */
#include "hostile.h"

#define AREA  0x2000000ul
#define PAGES 2048

typedef u32 (*code_fn)(void);

/* mov eax, imm32; ret */
static void put(uptr at, u32 v)
{
	volatile u8 *p = (volatile u8 *)at;

	p[0] = 0xb8;
	*(volatile u32 *)(p + 1) = v;
	p[5] = 0xc3;
}

static void change_one(void)
{
	unsigned bad = 0;

	put(AREA, 0);
	for (u32 n = 1; n < 60000; n++) {
		*(volatile u32 *)(AREA + 1) = n * 0x9090c3f4;
		bad += ((code_fn)AREA)() != n * 0x9090c3f4;
	}
	check(!bad, "60000 changes of one instruction: %u late", bad);
}

/* The code writes its own next instruction. */
static void change_own(void)
{
	static const u8 code[] = { 0x89, 0x3d, 0x01, 0, 0, 0,      /* mov [rip + 1], edi */
				   0xb8, 0,    0,    0, 0, 0xc3 }; /* mov eax, imm32; ret */
	unsigned bad = 0;

	memcpy_((void *)(AREA + 0xff8), code, sizeof(code)); /* across a page, too */
	for (u32 n = 1; n < 20000; n++)
		bad += ((u32(*)(u32))(AREA + 0xff8))(n) != n;
	check(!bad, "20000 changes of the next instruction: %u late", bad);
}

/* Over and over: many blocks in many pages, each time other ones. */
static void flood(void)
{
	unsigned bad = 0;

	for (unsigned round = 0; round < 6; round++) {
		for (unsigned k = 0; k < PAGES; k++)
			for (unsigned off = 0; off < 4096 - 8; off += 256)
				put(AREA + k * 4096 + off, k ^ off ^ round);
		for (unsigned k = 0; k < PAGES; k++)
			for (unsigned off = 0; off < 4096 - 8; off += 256)
				bad += ((code_fn)(AREA + k * 4096 + off))() != (k ^ off ^ round);
	}
	check(!bad, "%u blocks, six times over: %u wrong", PAGES * 16u, bad);
}

/* Data next to code, by every kind of store. */
static void mixed(void)
{
	unsigned bad = 0;

	put(AREA, 0x12345678);
	for (u32 n = 0; n < 5000; n++) {
		memset_((void *)(AREA + 64), (int)n, 4000);
		__asm__ volatile("lock incl (%0)" : : "r"(AREA + 64) : "memory", "cc");
		bad += ((code_fn)AREA)() != 0x12345678;
	}
	check(!bad, "stores next to code: %u wrong", bad);
}

void guest_main(void)
{
	cli();
	change_one();
	change_own();
	flood();
	mixed();
}
