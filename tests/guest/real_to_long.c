/* Modes: protected mode to real mode, its interrupts and segments, and back; to 64-bit mode and compatibility mode, and back.
 * [SDM3 9.8, 9.9, 20.1] */
#include "lib/irq.h"

#if BITS != 32
#error a 32-bit image
#endif

#define REAL_BASE 0x8000
#define RESULTS   ((volatile u16 *)0x9000)

extern const u8 real_start[], real_end[];
void real_run(void);
void long_run(u32 *result);

static void test_real(void)
{
	volatile u16 *r = RESULTS;

	memcpy_((void *)REAL_BASE, real_start, (uptr)(real_end - real_start));
	memset_((void *)(uptr)RESULTS, 0xee, 64);
	/* IRQ 0 at vector 8, as a BIOS sets it */
	outb(0x20, 0x11);
	outb(0x21, 8);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0x21, 0xfe);
	outb(0xa1, 0xff);
	real_run();

	check(!(r[0] & 1) && !(r[1] & 1), "CR0.PE and SMSW in real mode: %x, %x", r[0], r[1]);
	check(r[2] == 0, "INT n pushes the next IP");
	check((r[3] & 0x300) == 0, "INT n clears IF and TF: %x", r[3]);
	check((r[4] & 0x201) == 0x201, "IRET restores IF and CF: %x", r[4]);
	check(r[5] == 0x7000, "SP is where it was: %x", r[5]);
	check(r[6] == r[7], "#DE pushes the IP of DIV: %x, %x", r[6], r[7]);
	check(r[8] == r[9], "#UD pushes the IP of UD2: %x, %x", r[8], r[9]);
	if (off_tcg("segment limits"))
		check(r[10] == r[11], "a word at FFFFH is #GP: %x, %x", r[10], r[11]);
	check(r[12] == 0x5678 && r[13] == 0x1234, "16 * segment + offset");
	check(r[14] == REAL_BASE / 16, "far CALL loads CS: %x", r[14]);
	check(r[16] == 0xb002 && r[17] == 0x1bad, "a limit of 4 GiB stays in FS: %x%04x", r[17], r[16]);
	check(r[18] == 1, "IRQ 0 through the vector table: %u", r[18]);
	check(read_cr0() & 1, "protected mode again");
}

static void write_efer(uptr v)
{
	wrmsr(0xc0000080, v);
}

static void enable_paging(uptr arg)
{
	write_cr0(read_cr0() | 0x80000000);
	write_cr0(read_cr0() & 0x7fffffff);
}

static void test_long(void)
{
	u32 r[10] = { 0 };

	for (unsigned k = 0; k < 2048; k++)
		guest_pd[k] = (u64)k << 21 | 0x83;
	for (unsigned k = 0; k < 4; k++)
		guest_pdpt[k] = (uptr)&guest_pd[512 * k] | 1;
	guest_pml4[0] = (uptr)guest_pdpt | 3;

	if (off_tcg("LME without PAE")) {
		write_efer((uptr)rdmsr(0xc0000080) | 0x100);
		expect("PG with LME, without PAE", guest_try(enable_paging, 0), GP, 0);
		write_efer((uptr)rdmsr(0xc0000080) & ~0x100u);
	}
	for (unsigned k = 0; k < 4; k++)
		guest_pdpt[k] |= 2;
	write_cr4(read_cr4() | 0x20);
	write_cr3((uptr)guest_pml4);
	long_run(r);
	check((r[0] & 0x500) == 0x100, "EFER.LME alone: %x", r[0]);
	check((r[1] & 0x500) == 0x500, "EFER.LMA with paging: %x", r[1]);
	check(r[2] == 1, "32-bit code segment: compatibility mode");
	check(r[3] == 7, "64-bit code segment: 40H is a prefix");
	check(r[4] == 0x12345678, "64-bit registers");
	check(r[5] == 1, "32-bit results clear the upper half");
	check(r[6] == r[7], "RIP-relative address");
	check(r[8] == 1, "compatibility mode again");
	check((r[9] & 0x500) == 0x100, "EFER.LMA goes with paging: %x", r[9]);
	check(!(read_cr0() & 0x80000000), "protected mode again");
}

void guest_main(void)
{
	gdt[9] = make_desc(0, 0xffff, 0x9b, 0);     /* 48: 16-bit code */
	gdt[10] = make_desc(0, 0xffff, 0x93, 0);    /* 50: 16-bit data */
	gdt[11] = make_desc(0, 0xfffff, 0x9b, 0xa); /* 58: 64-bit code */
	test_real();
	test_long();
	test_real(); /* once more, after long mode */
}
