/* Bit fields, sign extension, and loads and stores at any alignment. */
#pragma once

#include <string.h>

#include "base/types.h"

/* Bits hi..lo of v, both included, shifted down. */
static inline u64 bits_get(u64 v, unsigned hi, unsigned lo)
{
	return (v >> lo) & (~0ull >> (63 - (hi - lo)));
}

static inline u64 bits_sext(u64 v, unsigned width)
{
	unsigned n = 64 - width;
	return (u64)((s64)(v << n) >> n);
}

static inline bool bits_is_pow2(u64 v)
{
	return v && !(v & (v - 1));
}

/* Of bytes, as checksums of firmware's tables have it. */
static inline u8 bits_sum8(const u8 *p, u32 len)
{
	u8 sum = 0;

	while (len--)
		sum = (u8)(sum + *p++);
	return sum;
}

/* Value of `size` (1, 2, 4, 8) bytes, zero-extended. */
static inline u64 bits_mask(unsigned size)
{
	return ~0ull >> (64 - 8 * size);
}

/* clang-format off */
static inline u16 ld16(const void *p) { u16 v; __builtin_memcpy(&v, p, 2); return v; }
static inline u32 ld32(const void *p) { u32 v; __builtin_memcpy(&v, p, 4); return v; }
static inline u64 ld64(const void *p) { u64 v; __builtin_memcpy(&v, p, 8); return v; }
static inline void st16(void *p, u16 v) { __builtin_memcpy(p, &v, 2); }
static inline void st32(void *p, u32 v) { __builtin_memcpy(p, &v, 4); }
static inline void st64(void *p, u64 v) { __builtin_memcpy(p, &v, 8); }
/* Big-endian ones. */
static inline u16 ld16be(const void *p) { return __builtin_bswap16(ld16(p)); }
static inline u32 ld32be(const void *p) { return __builtin_bswap32(ld32(p)); }
static inline u64 ld64be(const void *p) { return __builtin_bswap64(ld64(p)); }
static inline void st16be(void *p, u16 v) { st16(p, __builtin_bswap16(v)); }
static inline void st32be(void *p, u32 v) { st32(p, __builtin_bswap32(v)); }
static inline void st64be(void *p, u64 v) { st64(p, __builtin_bswap64(v)); }
/* clang-format on */
