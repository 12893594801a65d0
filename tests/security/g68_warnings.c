/* All that bothy may have to say about a guest, as often as a guest can provoke it, for ever [G68]: sleeping states that do not
 * exist, local APICs moved away, illegal registers, broken commands, output that nobody reads. */
#include "hostile.h"

static u32 msr;
static u64 value;

static void do_write(uptr arg)
{
	wrmsr(msr, value);
}
static void do_read(uptr arg)
{
	rdmsr(msr);
}

void guest_main(void)
{
	cli();
	check(true, "begin");
	ready();
	for (u32 n = 0;; n++) {
		outw(0x604, (u16)((1u << 13) | (n % 7) << 10)); /* type 7 would power off */
		msr = 0x1b;
		value = 0xfee00900 ^ (u64)(n & 15) << 20;
		guest_try(do_write, 0);
		value = 0xfee00900;
		guest_try(do_write, 0);
		msr = n;
		guest_try(do_read, 0);
		*(volatile u64 *)(HOLE + (n & 0xfff0)) = n;
		(void)*(volatile u32 *)(HOLE + (n & 0xfff0));
		outb((u16)(0x3000 + (n & 0xfff)), 1);
		outb(0x64, 0xaa);
		outb(0x43, 0xff);
		outl(0xcf8, n << 8);
		outl(0xcfc, n);
		ioapic_write(n & 0xff, 1u << 16);
		apic_write(n & 0xff0 & ~0x300u, 0);
	}
}
