/* Each bit of CR0, CR4, EFER, DR6, DR7, XCR0 and MXCSR that is reserved gives #GP when set, and so do combinations that
 * cannot be; XRSTOR refuses a header that is none [G52; SDM3 2.5; SDM1 13.8]. */
#include "hostile.h"

static u8 area[4096] __attribute__((aligned(4096)));

static void set_cr0(uptr v)
{
	write_cr0(v);
}
static void set_cr3(uptr v)
{
	write_cr3(v);
}
static void set_cr4(uptr v)
{
	write_cr4(v);
}
static void set_efer(uptr v)
{
	wrmsr(0xc0000080, v);
}
static void set_dr6(uptr v)
{
	__asm__ volatile("mov %0, %%dr6" : : "r"(v));
}
static void set_dr7(uptr v)
{
	__asm__ volatile("mov %0, %%dr7" : : "r"(v));
}
static void set_cr8(uptr v)
{
	__asm__ volatile("mov %0, %%cr8" : : "r"(v));
}
static void set_xcr0(uptr v)
{
	__asm__ volatile("xsetbv" : : "a"((u32)v), "d"((u32)(v >> 32)), "c"(0));
}
static void set_xcr1(uptr v)
{
	__asm__ volatile("xsetbv" : : "a"((u32)v), "d"((u32)(v >> 32)), "c"(1));
}
static void load_mxcsr(uptr v)
{
	u32 m = (u32)v;

	__asm__ volatile("ldmxcsr %0" : : "m"(m));
}
static void restore(uptr mask)
{
	__asm__ volatile("xrstor64 %0" : : "m"(area), "a"((u32)mask), "d"(0));
}
static void restore_old(uptr off)
{
	__asm__ volatile("fxrstor64 %0" : : "m"(area[off]));
}

/* Bits of `reserved`, one after the other, on top of `keep`. */
static void each_bit(const char *what, void (*set)(uptr), u64 keep, u64 reserved)
{
	for (unsigned b = 0; b < 64; b++) {
		if (!(reserved >> b & 1))
			continue;
		bool faulted = guest_try(set, keep | 1ull << b);

		if (!faulted || fault.vector != GP || fault.error)
			check(false, "%s bit %u: %s, vector %u", what, b, faulted ? "fault" : "no fault",
			      fault.vector);
	}
	check(true, "%s", what);
}

/* Whatever they do, they do without harm. */
static void any_bit(const char *what, void (*set)(uptr), u64 old, u64 bits)
{
	for (unsigned b = 0; b < 64; b++)
		if (bits >> b & 1) {
			guest_try(set, old ^ 1ull << b);
			if (fault.happened && fault.vector != GP)
				check(false, "%s bit %u: vector %u", what, b, fault.vector);
			set(old);
		}
	check(true, "%s", what);
}

static void test_xsave(void)
{
	u32 r[4];

	cpuid(1, 0, r);
	if (!(r[2] & 1u << 26)) {
		skip("XSAVE");
		return;
	}
	write_cr4(read_cr4() | 1ul << 18);
	cpuid(0xd, 0, r);
	each_bit("XCR0", set_xcr0, 3, ~((u64)r[0] | (u64)r[3] << 32));
	expect("XCR0 without x87", guest_try(set_xcr0, 2), GP, 0);
	expect("XCR0 with AVX without SSE", guest_try(set_xcr0, 5), GP, 0);
	expect("XCR1", guest_try(set_xcr1, 1), GP, 0);
	set_xcr0(3);
	*(u32 *)(area + 24) = 0x1f80;
	*(u64 *)(area + 512) = 3;
	check(!guest_try(restore, 3), "XRSTOR of a good image");
	each_bit("XSTATE_BV", (void (*)(uptr))restore, 3, 0);
	for (unsigned b = 2; b < 64; b++) {
		*(u64 *)(area + 512) = 3 | 1ull << b;
		if (!guest_try(restore, ~0ull) || fault.vector != GP)
			check(false, "XSTATE_BV bit %u", b);
	}
	*(u64 *)(area + 512) = 3;
	for (unsigned k = 520; k < 576; k++) {
		area[k] = 1;
		if (!guest_try(restore, 3) || fault.vector != GP)
			check(k >= 536, "XSAVE header byte %u", k);
		area[k] = 0;
	}
	*(u32 *)(area + 24) = 0x80000000;
	expect("XRSTOR with MXCSR reserved", guest_try(restore, 3), GP, 0);
}

void guest_main(void)
{
	u32 r[4];
	u64 cr0 = read_cr0(), cr4 = read_cr4();

	cli();
	each_bit("CR0", set_cr0, cr0, ~0ull << 32);
	any_bit("CR0, low half", set_cr0, cr0, 0x7ffafff2 & ~0x80000001ull);
	expect("CR0.NW without CD", guest_try(set_cr0, (cr0 | 1ul << 29) & ~(1ul << 30)), GP, 0);
	expect("CR0.PG without PE", guest_try(set_cr0, cr0 & ~1ul), GP, 0);
	each_bit("CR4", set_cr4, cr4, ~0ull << 25 | 1ull << 12 | 1ull << 15 | 1ull << 19);
	expect("CR4.VMXE", guest_try(set_cr4, cr4 | 1ul << 13), GP, 0);
	any_bit("CR4, known bits", set_cr4, cr4, 0x01ff0fffull & ~(1ull << 5 | 1ull << 21 | 1ull << 20));
	expect("CR4.PAE off in long mode", guest_try(set_cr4, cr4 & ~(1ul << 5)), GP, 0);
	each_bit("EFER", set_efer, rdmsr(0xc0000080), ~0ull << 16 | 0xfe | 1ull << 9);
	expect("EFER.LME off in long mode", guest_try(set_efer, rdmsr(0xc0000080) & ~0x100ull), GP, 0);
	each_bit("DR6", set_dr6, 0xffff0ff0, ~0ull << 32);
	each_bit("DR7", set_dr7, 0x400, ~0ull << 32);
	each_bit("CR8", set_cr8, 0, ~0xfull);
	cpuid(0x80000008, 0, r);
	each_bit("CR3", set_cr3, read_cr3(), ~0ull << (r[0] & 0xff) & ~(1ull << 63));
	each_bit("MXCSR", load_mxcsr, 0x1f80, 0xffff0000);
	*(u32 *)(area + 24) = ~0u;
	expect("FXRSTOR with MXCSR reserved", guest_try(restore_old, 0), GP, 0);
	expect("FXRSTOR unaligned", guest_try(restore_old, 8), GP, 0);
	test_xsave();
	write_cr0(cr0);
}
