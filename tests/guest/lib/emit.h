/* Machine code written at run time, below 2 GiB. */
#pragma once

#include "guest.h"

static u8 *emit_pointer;

static inline void emit_at(uptr where)
{
	emit_pointer = (u8 *)where;
}

static inline uptr emit_here(void)
{
	return (uptr)emit_pointer;
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
