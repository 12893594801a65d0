/* Makes a page one that keeps changing, for an engine that treats such pages otherwise: code is executed there, and data next to it
 * is stored to thousands of times within a few milliseconds. What else is in the page stays. */
#pragma once

#include "guest.h"

/* RDI: where to; RSI: how often sixty-four times. */
__asm__(".pushsection .text\n"
	"restless_stores: .rept 64; movl $1, (%rdi); .endr\n"
	"	dec %rsi\n"
	"	jnz restless_stores\n"
	"	ret\n"
	".popsection\n");
void restless_stores(uptr where, u64 times);

#define RESTLESS_AT 0xa00ul /* bytes there are borrowed */

/* Returns its argument. */
static inline uptr restless(uptr at)
{
	u8 *p = (u8 *)((at & ~0xffful) + RESTLESS_AT), saved[16];

	memcpy_(saved, p, sizeof(saved));
	*(volatile u8 *)p = 0xc3; /* ret */
	((void (*)(void))p)();
	restless_stores((uptr)p + 8, 110);
	memcpy_(p, saved, sizeof(saved));
	return at;
}
