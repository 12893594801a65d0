/* RDMSR and WRMSR with six values of some ten thousand indexes: all of the ranges in use, and a sample of the rest [G51]. Each
 * gives #GP or something defined; what can be read goes back afterwards. And the same where paravirtual clocks
 * are told to write: addresses outside RAM, in a device, unaligned [G60]. */
#include "hostile.h"

static u32 msr;
static u64 value;
static unsigned reads, writes;

static void do_read(uptr arg)
{
	value = rdmsr(msr);
}

static void do_write(uptr arg)
{
	wrmsr(msr, value);
}

static bool dangerous(u32 n)
{
	/* These do what they are for: an INIT to itself, the mode of the processor, where its APIC is. */
	return n == 0x830 || n == 0x83f || n == 0xc0000080 || n == 0x1b;
}

static void sweep(u32 n)
{
	const u64 values[] = { 0, 1, ~0ull, 1ull << 63, next_random(), HOLE | 1 };
	u64 old;
	bool readable;

	msr = n;
	readable = !guest_try(do_read, 0);
	if (!readable && fault.vector != GP)
		check(false, "RDMSR %x: vector %u", n, fault.vector);
	reads += readable;
	old = value;
	if (dangerous(n))
		return;
	for (unsigned k = 0; k < sizeof(values) / sizeof(values[0]); k++) {
		value = values[k];
		if (!guest_try(do_write, 0))
			writes++;
		else if (fault.vector != GP)
			check(false, "WRMSR %x: vector %u", n, fault.vector);
	}
	value = readable ? old : 0;
	guest_try(do_write, 0);
}

static void range(u32 from, u32 to)
{
	for (u32 n = from; n < to; n++)
		sweep(n);
}

/* What a paravirtual clock takes: not what is outside RAM. */
static void clocks(void)
{
	static const u32 msrs[] = { 0x11,       0x12,       0x4b564d00, 0x4b564d01,
				    0x4b564d02, 0x4b564d03, 0x4b564d04, 0x4b564d05 };
	const u64 places[] = { HOLE,       HPET,          RAM_END - 4, RAM_END,     ROM,
			       0xfee00000, ~0ull & ~3ull, 1ull << 62,  RAM_END - 32 };

	for (unsigned m = 0; m < sizeof(msrs) / sizeof(msrs[0]); m++)
		for (unsigned p = 0; p < sizeof(places) / sizeof(places[0]); p++)
			for (unsigned bits = 0; bits < 4; bits++) {
				msr = msrs[m];
				value = places[p] | bits;
				guest_try(do_write, 0);
				if (fault.happened && fault.vector != GP)
					check(false, "WRMSR %x: vector %u", msr, fault.vector);
				value = 0;
				guest_try(do_write, 0);
			}
}

void guest_main(void)
{
	cli();
	range(0, 0x1000);
	range(0x1000, 0x1100);
	range(0x40000000, 0x40000120);
	range(0x4b564d00, 0x4b564d10);
	range(0xc0000000, 0xc0000200);
	range(0xc0010000, 0xc0010100);
	range(0xc0011000, 0xc0011040);
	for (unsigned k = 0; k < 4000; k++)
		sweep((u32)next_random());
	check(reads > 20, "%u indexes can be read, %u writes were taken", reads, writes);
	clocks();
	check(true, "paravirtual clocks");
	msr = 0x1b;
	check(!guest_try(do_read, 0) && (value & ~0xfffull) == 0xfee00000, "the local APIC is where it was");
}
