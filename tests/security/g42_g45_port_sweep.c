/* Every port in every width, read and written with several values, but for those that end the machine by what they are for
 * [G42]; ports and addresses where nobody is read all-ones [G45]. The chips have to work afterwards. */
#include "hostile.h"

#define PM_CNT 0x604

static bool spares(unsigned port, unsigned size)
{
	for (unsigned p = port; p < port + size; p++) {
		if (p == 0xf4 || p == PM_CNT || p == PM_CNT + 1 || p == 0x92 || p == 0xcf9 || p == 0x64)
			return true;
		if (p == 0xf5 || p == 0xf6 || p == 0xf7)
			return true;
		if (p >= 0x3f8 && p < 0x400) /* the output */
			return true;
		if (p >= 0x2000 && p < 0x2018)
			return true;
	}
	return false;
}

static void read_all(void)
{
	unsigned strange = 0;

	for (unsigned p = 0; p < 0x10000; p++) {
		inb((u16)p);
		inw((u16)p);
		inl((u16)p);
	}
	for (unsigned p = 0x3000; p < 0x10000; p += 7)
		strange += inb((u16)p) != 0xff || inw((u16)p) != 0xffff || inl((u16)p) != ~0u;
	check(!strange, "ports where nobody is read all-ones: %u do not", strange);
}

static void write_all(u32 v)
{
	for (unsigned p = 0; p < 0x1000; p++) {
		if (!spares(p, 1))
			outb((u16)p, (u8)v);
		if (!spares(p, 2))
			outw((u16)p, (u16)v);
		if (!spares(p, 4))
			outl((u16)p, v);
	}
	for (unsigned p = 0x1000; p < 0x10000; p += 61)
		if (!spares(p, 4))
			outl((u16)p, v);
}

/* Each command of the keyboard controller but those that pulse the reset line or write its port, and that which closes the
 * A20 gate: this program would be gone. */
static void keyboard(void)
{
	for (unsigned k = 0; k < 0xf0; k++) {
		if (k == 0xd1 || k == 0xdd)
			continue;
		outb(0x64, (u8)k);
		outb(0x60, (u8)next_random());
		inb(0x60);
	}
}

static void sweep_mmio(void)
{
	unsigned strange = 0;

	for (uptr a = RAM_END; a < 0xfec00000ul; a += 0x10000) {
		volatile u8 *p = (volatile u8 *)(a + (next_random() & 0xfff8));

		if (a >= 0xb0000000ul && a < 0xd0000000ul)
			continue; /* PCI configuration space may be here */
		if (a >= 0xe0000000ul && a < 0xf0000000ul)
			continue;
		*p = 0;
		*(volatile u64 *)p = 0;
		strange += *p != 0xff || *(volatile u16 *)p != 0xffff || *(volatile u32 *)p != ~0u ||
			   *(volatile u64 *)p != ~0ull;
	}
	check(!strange, "memory where nobody is reads all-ones: %u do not", strange);
	/* And where somebody is, in all widths and at all alignments. */
	for (uptr a = HPET; a < HPET + 0x1000; a += 3) {
		(void)*(volatile u8 *)a;
		(void)*(volatile u16 *)a;
		(void)*(volatile u64 *)a;
		*(volatile u16 *)a = (u16)next_random();
		*(volatile u64 *)a = next_random();
	}
	for (uptr a = IOAPIC; a < IOAPIC + 0x1000; a += 3) {
		(void)*(volatile u64 *)a;
		*(volatile u64 *)a = next_random();
		*(volatile u8 *)a = (u8)next_random();
	}
}

static void test_still_works(void)
{
	static volatile u8 a, b;

	pic_init(0);
	outb(0x43, 0x34);
	outb(0x40, 0xff);
	outb(0x40, 0xff);
	outb(0x43, 0);
	a = inb(0x40);
	inb(0x40);
	for (volatile unsigned k = 0; k < 100000; k++)
		;
	outb(0x43, 0);
	b = inb(0x40);
	inb(0x40);
	check(a != b, "the 8254 counts");
	outb(0x21, 0xa5);
	check(inb(0x21) == 0xa5, "the 8259A holds its mask");
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	outb(0x70, 0x0d);
	check(inb(0x71) & 0x80, "the real-time clock has power");
}

void guest_main(void)
{
	cli();
	read_all();
	write_all(0);
	write_all(~0u);
	write_all(0x55aa5a01);
	write_all((u32)next_random());
	keyboard();
	read_all();
	sweep_mmio();
	test_still_works();
}
