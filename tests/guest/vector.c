/* AVX-512 from the kernel's side: when its instructions are #UD or #NM, what XCR0 takes, where XSAVE and its kin put the state
 * and that it comes back, masked accesses to pages that are not there and to a device. [SDM1 13, SDM3 2.6] */
#include "lib/guest.h"

#define CR0_TS      (1u << 3)
#define CR0_EM      (1u << 2)
#define CR0_MP      (1u << 1)
#define CR4_OSFXSR  (3u << 9)
#define CR4_OSXSAVE (1u << 18)
#define XCR0_ALL    0xe7u
#define LAPIC       0xfee00000u

static u8 area[4096] __attribute__((aligned(64))), area2[4096] __attribute__((aligned(64)));

static void xsetbv(uptr v)
{
	__asm__ volatile("xsetbv" : : "a"(v), "d"(0), "c"(0) : "memory");
}

static void xsetbv_1(uptr v)
{
	__asm__ volatile("xsetbv" : : "a"(v), "d"(0), "c"(1) : "memory");
}

static void evex(uptr arg)
{
	(void)arg;
	__asm__ volatile(".byte 0x62, 0xf1, 0x7d, 0x48, 0xfe, 0xc0"); /* vpaddd zmm0, zmm0, zmm0 */
}

static void evex_128(uptr arg)
{
	(void)arg;
	__asm__ volatile(".byte 0x62, 0xf1, 0x7d, 0x08, 0xfe, 0xc0"); /* the same of 128 bits */
}

static void opmask(uptr arg)
{
	(void)arg;
	__asm__ volatile(".byte 0xc5, 0xf8, 0x92, 0xc8"); /* kmovw k1, eax */
}

static void vex(uptr arg)
{
	(void)arg;
	__asm__ volatile("vpaddd %xmm0, %xmm0, %xmm0");
}

static void test_xcr0(void)
{
	static const u8 wrong[] = {
		0x27, 0x47, 0x67, 0x87, 0xa7, 0xc7, 0xe3, 0xe5, 0xe1, 0xe6, 0xe0, 0x05, 0
	};

	check(!guest_try(xsetbv, 3), "XSETBV 3 was refused");
	for (unsigned k = 0; k < sizeof(wrong); k++)
		check(guest_try(xsetbv, wrong[k]) && fault.vector == GP, "XSETBV %x was taken", wrong[k]);
	check(guest_try(xsetbv_1, 3) && fault.vector == GP, "XSETBV of register 1 was taken");
	check(guest_try(xsetbv, 0x200 | XCR0_ALL) && fault.vector == GP, "XSETBV with PKRU was taken");
	check(!guest_try(xsetbv, XCR0_ALL), "XSETBV e7 was refused");
	check(!guest_try(xsetbv, 7), "XSETBV 7 was refused");
}

/* Each class under what turns it off; translated code must look again after each change. */
static void gates(const char *when, int vec, int vec512)
{
	void (*const fn[])(uptr) = { vex, evex, evex_128, opmask };

	for (unsigned round = 0; round < 3; round++)
		for (unsigned k = 0; k < 4; k++) {
			int want = k ? vec512 : vec;
			bool faulted = guest_try(fn[k], 0);

			check(faulted == (want >= 0) && (!faulted || (int)fault.vector == want),
			      "%s: instruction %u gave %d, not %d", when, k, faulted ? (int)fault.vector : -1,
			      want);
		}
}

static void test_gates(void)
{
	uptr cr0 = read_cr0(), cr4 = read_cr4();

	xsetbv(3);
	gates("XCR0 = 3", UD, UD);
	xsetbv(7);
	gates("XCR0 = 7", -1, UD);
	xsetbv(XCR0_ALL);
	gates("XCR0 = e7", -1, -1);
	write_cr0(cr0 | CR0_TS);
	gates("CR0.TS", NM, NM);
	write_cr0(cr0);
	gates("CR0.TS clear", -1, -1);
	write_cr4(cr4 & ~(uptr)CR4_OSXSAVE);
	gates("OSXSAVE clear", UD, UD);
	write_cr4(cr4);
	gates("all on", -1, -1);
	xsetbv(7);
	gates("XCR0 = 7 again", -1, UD);
	xsetbv(XCR0_ALL);
}

/* Registers that tell themselves apart: byte k of a register is its number * 16 + k, roughly. */
static void fill(u8 *p, unsigned n, u8 first)
{
	for (unsigned k = 0; k < n; k++)
		p[k] = (u8)(first + k * 7);
}

static u8 pattern[3][64] __attribute__((aligned(64)));

static void load_registers(void)
{
	for (unsigned k = 0; k < 3; k++)
		fill(pattern[k], 64, (u8)(0x11 * (k + 1)));
	__asm__ volatile("vmovdqu64 (%0), %%zmm3\n\tvmovdqu64 64(%0), %%zmm7\n\t"
#if BITS == 64
			 "vmovdqu64 128(%0), %%zmm21\n\t"
#endif
			 "kmovd %1, %%k4"
			 :
			 : "r"(pattern), "r"(0x12345678)
			 : "memory");
}

static void clear_registers(void)
{
	__asm__ volatile("vzeroall\n\tkxorq %%k4, %%k4, %%k4\n\t"
#if BITS == 64
			 "vpxord %%zmm21, %%zmm21, %%zmm21"
#endif
			 :
			 :
			 : "memory");
}

static void check_registers(const char *what)
{
	static u8 got[3][64] __attribute__((aligned(64)));
	u32 k4;

	__asm__ volatile("vmovdqu64 %%zmm3, (%1)\n\tvmovdqu64 %%zmm7, 64(%1)\n\t"
#if BITS == 64
			 "vmovdqu64 %%zmm21, 128(%1)\n\t"
#endif
			 "kmovd %%k4, %0"
			 : "=r"(k4)
			 : "r"(got)
			 : "memory");
	check(k4 == 0x12345678, "%s: k4 is %x", what, k4);
	for (unsigned r = 0; r < (BITS == 64 ? 3 : 2); r++)
		for (unsigned k = 0; k < 64; k++)
			if (got[r][k] != pattern[r][k]) {
				check(false, "%s: byte %u of pattern %u is %x", what, k, r, got[r][k]);
				break;
			}
}

#if BITS == 64
#define W "64"
#else
#define W ""
#endif
#define XS(insn, p) __asm__ volatile(insn W " (%0)" : : "r"(p), "a"(XCR0_ALL), "d"(0) : "memory")

static bool same(const u8 *a, const u8 *b, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		if (a[k] != b[k])
			return false;
	return true;
}

static void test_xsave(void)
{
	u32 opmask_at[4], zmm_at[4], hi16_at[4], size[4], features[4];

	cpuid(0xd, 0, size);
	cpuid(0xd, 1, features);
	cpuid(0xd, 5, opmask_at);
	cpuid(0xd, 6, zmm_at);
	cpuid(0xd, 7, hi16_at);
	check(size[0] == XCR0_ALL && size[1] == size[2] && hi16_at[1] + 1024 <= size[1], "leaf D: %x %u %u",
	      size[0], size[1], size[2]);
	check(opmask_at[0] == 64 && zmm_at[0] == 512 && hi16_at[0] == 1024, "sizes: %u %u %u", opmask_at[0],
	      zmm_at[0], hi16_at[0]);
	memset_(area, 0xee, sizeof(area));
	memset_(area + 512, 0, 64);
	load_registers();
	XS("xsave", area);
	check((area[512] & 0x66) == 0x66, "XSTATE_BV is %x", area[512]);
	check(*(u32 *)(area + opmask_at[1] + 32) == 0x12345678, "k4 is not where CPUID says");
	check(same(area + zmm_at[1] + 32 * 3, pattern[0] + 32, 32), "zmm3 is not where CPUID says");
	check(same(area + 576 + 16 * 7, pattern[1] + 16, 16), "ymm7 is not where it should be");
#if BITS == 64
	check(same(area + hi16_at[1] + 64 * 5, pattern[2], 64), "zmm21 is not where CPUID says");
#else
	check(area[hi16_at[1]] == 0xee && area[zmm_at[1] + 256] == 0xee,
	      "XSAVE wrote registers that 32-bit code has not");
#endif
	check(area[size[1]] == 0xee, "XSAVE wrote more than CPUID says");
	clear_registers();
	XS("xrstor", area);
	check_registers("XSAVE and XRSTOR");

	if (!(features[0] & 2))
		return;
	cpuid(0xd, 1, size);
	memset_(area2, 0xee, sizeof(area2));
	memset_(area2 + 512, 0, 64);
	XS("xsavec", area2);
	check(*(u64 *)(area2 + 520) == (1ull << 63 | XCR0_ALL), "XCOMP_BV is %llx", *(u64 *)(area2 + 520));
	check(*(u32 *)(area2 + 576 + 256 + 32) == 0x12345678, "k4 is elsewhere in the compacted format");
	check(same(area2 + 576 + 256 + 64 + 32 * 3, pattern[0] + 32, 32), "zmm3 is elsewhere");
	clear_registers();
	XS("xrstor", area2);
	check_registers("XSAVEC and XRSTOR");
	/* Without some components the others move up. */
	memset_(area2 + 512, 0, 64);
	__asm__ volatile("xsavec" W " (%0)" : : "r"(area2), "a"(0x60), "d"(0) : "memory");
	check(same(area2 + 576 + 64 + 32 * 3, pattern[0] + 32, 32), "zmm3 is elsewhere without AVX");
	if (!(features[0] & 8))
		return;
	memset_(area2 + 512, 0, 64);
	XS("xsaves", area2);
	clear_registers();
	XS("xrstors", area2);
	check_registers("XSAVES and XRSTORS");
	/* What is in its initial state comes back as that. */
	clear_registers();
	memset_(area2 + 512, 0, 64);
	XS("xsaves", area2);
	load_registers();
	XS("xrstors", area2);
	__asm__ volatile("kmovd %%k4, %0" : "=r"(size[0]));
	check(size[0] == 0, "k4 is %x after its initial state was restored", size[0]);
}

/* --- masked operands --- */

static void masked_load(uptr p)
{
	__asm__ volatile("vmovdqu32 (%0), %%zmm1%{%%k1%}" : : "r"(p) : "memory");
}

static void masked_store(uptr p)
{
	__asm__ volatile("vmovdqu32 %%zmm1, (%0)%{%%k1%}" : : "r"(p) : "memory");
}

static void set_mask(u32 k1)
{
	__asm__ volatile("kmovd %0, %%k1" : : "r"(k1));
}

static void test_device(void)
{
	volatile u32 *tpr = (volatile u32 *)(uptr)(LAPIC + 0x80);
	u32 out[16];

	/* Element 8 of 16 is the task priority; reading or writing others would be errors of the APIC. */
	*tpr = 0;
	*(volatile u32 *)(uptr)(LAPIC + 0x280) = 0; /* error status: written, then read */
	for (unsigned k = 0; k < 16; k++)
		out[k] = 0x30;
	__asm__ volatile("vmovdqu32 (%0), %%zmm1" : : "r"(out) : "memory");
	for (unsigned round = 0; round < 20; round++) {
		*tpr = 0;
		set_mask(1 << 8);
		check(!guest_try(masked_store, LAPIC + 0x60) && *tpr == 0x30,
		      "a masked store to a device: TPR %x", *tpr);
		*tpr = 0x50;
		check(!guest_try(masked_load, LAPIC + 0x60), "a masked load from a device faults");
		__asm__ volatile("vmovdqu32 %%zmm1, (%0)" : : "r"(out) : "memory");
		check(out[8] == 0x50 && out[7] == 0x30 && out[9] == 0x30, "it reads %x %x %x", out[7], out[8],
		      out[9]);
		out[8] = 0x30;
		__asm__ volatile("vmovdqu32 (%0), %%zmm1" : : "r"(out) : "memory");
	}
	*(volatile u32 *)(uptr)(LAPIC + 0x280) = 0;
	check(*(volatile u32 *)(uptr)(LAPIC + 0x280) == 0,
	      "the APIC saw accesses to registers that it has not");
	*tpr = 0;
}

void guest_main(void)
{
	u32 r[4];

	cpuid(7, 0, r);
	if (!(r[1] >> 16 & 1) || !(r[1] >> 30 & 1)) {
		skip("the processor has no AVX-512");
		return;
	}
	write_cr0((read_cr0() & ~(uptr)(CR0_EM | CR0_TS)) | CR0_MP);
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXSAVE);
	test_xcr0();
	test_gates();
	test_xsave();
	test_device();
}
