/* What the hostile guests share. A guest either ends by itself with its checks passed, or says "READY" and goes on for
 * ever: then the host ends it with a signal. */
#pragma once

#include "../guest/lib/irq.h"

#define RAM_END 0x10000000ul /* run says --memory 256M */
#define HOLE    0xd0000000ul /* nothing answers here; inside the first 4 GiB, which are mapped */
#define HPET    0xfed00000ul
#define ROM     0xe0000ul /* ACPI tables and what follows, to 1 MiB */
#define IOAPIC  0xfec00000ul
#define LINES   0x2000 /* pc-testdev: port 2000H + n is line n */

static inline u64 next_random(void)
{
	static u64 x = 0x9e3779b97f4a7c15ull;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static inline void ready(void)
{
	print("READY\n");
}

static inline void ioapic_write(unsigned reg, u32 v)
{
	*(volatile u32 *)IOAPIC = reg;
	*(volatile u32 *)(IOAPIC + 0x10) = v;
}

static inline u32 ioapic_read(unsigned reg)
{
	*(volatile u32 *)IOAPIC = reg;
	return *(volatile u32 *)(IOAPIC + 0x10);
}

/* For guest_try(): one access. */
static inline void try_read8(uptr a)
{
	(void)*(volatile u8 *)a;
}
static inline void try_read64(uptr a)
{
	(void)*(volatile u64 *)a;
}
static inline void try_write64(uptr a)
{
	*(volatile u64 *)a = ~0ull;
}
static inline void try_call(uptr a)
{
	((void (*)(void))a)();
}
