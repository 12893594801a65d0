/* Machine code written at run time, to where it will run or to another address of the same memory. */
#pragma once

#include "guest.h"

static u8 *emit_pointer;
static uptr emit_delta; /* from where it is written to where it runs */

static inline void emit_to(uptr where, uptr runs_at)
{
	emit_pointer = (u8 *)where;
	emit_delta = runs_at - where;
}

static inline void emit_at(uptr where)
{
	emit_to(where, where);
}

static inline uptr emit_here(void)
{
	return (uptr)emit_pointer + emit_delta;
}

static inline void emit8(u8 v)
{
	*(volatile u8 *)emit_pointer++ = v;
}

static inline void emit32(u32 v)
{
	*(volatile u32 *)emit_pointer = v;
	emit_pointer += 4;
}

static inline void emit(const void *bytes, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		emit8(((const u8 *)bytes)[k]);
}

static inline void emit_relative(uptr target)
{
	emit32((u32)(target - (emit_here() + 4)));
}

static inline void emit_jmp(uptr target)
{
	emit8(0xe9);
	emit_relative(target);
}

static inline void emit_call(uptr target)
{
	emit8(0xe8);
	emit_relative(target);
}

static inline void emit_jcc(unsigned cc, uptr target)
{
	emit8(0x0f);
	emit8((u8)(0x80 | cc));
	emit_relative(target);
}
