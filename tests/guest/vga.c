/* The display adapter from inside: text, planes and latches, 256 colours, the frame buffer behind PCI; and what a write costs.
 * [VGA] The screen is left as it was found. */
#include "lib/guest.h"

#define TEXT   ((volatile u16 *)0xb8000)
#define PIXELS ((volatile u8 *)0xa0000)
#define CELLS  (80 * 25)
#define DISPI  0x1ce

static void set(u16 port, u8 index, u8 val)
{
	outb(port, index);
	outb(port + 1, val);
}

static u8 get(u16 port, u8 index)
{
	outb(port, index);
	return inb(port + 1);
}

static void dispi(u16 index, u16 val)
{
	outw(DISPI, index);
	outw(DISPI + 1, val);
}

static u16 get_dispi(u16 index)
{
	outw(DISPI, index);
	return inw(DISPI + 1);
}

static void test_text(void)
{
	u16 first = TEXT[0], beyond;

	TEXT[0] = 0x1e41;
	check(TEXT[0] == 0x1e41, "a cell keeps character and attribute: %x", TEXT[0]);
	((volatile u8 *)TEXT)[1] = 0x2f;
	check(TEXT[0] == 0x2f41, "a byte at an odd address is the attribute: %x", TEXT[0]);
	*(volatile u64 *)(TEXT + 4) = 0x0744074307420741ull;
	check(TEXT[5] == 0x0742 && TEXT[7] == 0x0744, "eight bytes are four cells");
	check(*(volatile u32 *)((uptr)TEXT + 9) == 0x43074207, "an unaligned read: %x",
	      *(volatile u32 *)((uptr)TEXT + 9));
	beyond = *(volatile u16 *)0xa0000;
	check(beyond == 0xffff, "nothing is at A0000H in text mode: %x", beyond);
	TEXT[0] = first;
}

static void test_registers(void)
{
	u8 misc = inb(0x3cc), locked = get(0x3d4, 0);

	check(misc & 1 && inb(0x3b4) == 0xff, "the CRT controller is at the colour address");
	set(0x3d4, 0, (u8)~locked);
	check(get(0x3d4, 0) == locked, "the timing is write-protected");
	set(0x3d4, 0x0e, 1);
	set(0x3d4, 0x0f, 0x23);
	check(get(0x3d4, 0x0e) == 1 && get(0x3d4, 0x0f) == 0x23, "the cursor's address reads back");
	set(0x3d4, 0x0e, 0);
	set(0x3d4, 0x0f, 0);
	u64 start = rdtsc();
	unsigned seen = 0;
	while (seen != 3 && rdtsc() - start < 1000000000ull)
		seen |= inb(0x3da) & 8 ? 1 : 2;
	check(seen == 3, "the vertical retrace comes and goes");
}

/* Sequential planes at A0000H, as for loading fonts or in mode 12H. */
static void test_planes(void)
{
	u8 memory = get(0x3c4, 4), map = get(0x3c4, 2), mode = get(0x3ce, 5), misc = get(0x3ce, 6);

	set(0x3c4, 4, 6);
	set(0x3ce, 5, 0);
	set(0x3ce, 6, 5);
	for (u8 plane = 0; plane < 4; plane++) {
		set(0x3c4, 2, (u8)(1u << plane));
		PIXELS[0xf000] = (u8)(0x11 << plane);
	}
	for (u8 plane = 0; plane < 4; plane++) {
		set(0x3ce, 4, plane);
		check(PIXELS[0xf000] == (u8)(0x11 << plane), "plane %u has its own byte", plane);
	}
	/* Write mode 1 copies the latches of all planes at once. */
	set(0x3c4, 2, 15);
	set(0x3ce, 5, 1);
	PIXELS[0xf001] = PIXELS[0xf000];
	set(0x3ce, 5, 0);
	set(0x3ce, 4, 3);
	check(PIXELS[0xf001] == 0x88, "write mode 1 copies: %x", PIXELS[0xf001]);
	set(0x3ce, 4, 0);
	set(0x3c4, 2, map);
	set(0x3c4, 4, memory);
	set(0x3ce, 5, mode);
	set(0x3ce, 6, misc);
}

/* mov $value, %eax; ret, in the cells from n on. */
static void put_code(unsigned n, u32 value)
{
	TEXT[n] = (u16)(value << 8 | 0xb8);
	TEXT[n + 1] = (u16)(value >> 8);
	TEXT[n + 2] = (u16)(0xc300 | value >> 24);
}

static u32 call_code(unsigned n)
{
	return ((u32(*)(void))(uptr)(TEXT + n))();
}

/* So many writes that text is in RAM by then. The planes have it as soon as they can be looked at, and what is put there is text
 * again afterwards; code too. */
static void test_text_in_ram(void)
{
	u8 memory = get(0x3c4, 4), map = get(0x3c4, 2), mode = get(0x3ce, 5), misc = get(0x3ce, 6);
	unsigned bad = 0;

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 0x3f00; i++)
			TEXT[i] = (u16)(i * 7 + round);
		put_code(0x3f00, 0x12345678 + round);
		check(call_code(0x3f00) == 0x12345678 + round, "code in text runs: %x", call_code(0x3f00));
		set(0x3ce, 5, 0);
		set(0x3ce, 6, 4);
		set(0x3c4, 4, 6);
		for (u8 plane = 0; plane < 2; plane++) {
			set(0x3ce, 4, plane);
			for (unsigned i = 0; i < 0x3f00; i += 101)
				bad += PIXELS[i] != (u8)((i * 7 + round) >> 8 * plane);
		}
		check(!bad, "%u bytes of the planes are not the text's", bad);
		set(0x3c4, 2, 1);
		PIXELS[0x3f01] = 0x77; /* the second byte of the value */
		PIXELS[100] = 'x';
		set(0x3ce, 4, 0);
		set(0x3c4, 2, map);
		set(0x3c4, 4, memory);
		set(0x3ce, 5, mode);
		set(0x3ce, 6, misc);
		check((u8)TEXT[100] == 'x' && TEXT[101] == (u16)(101 * 7 + round),
		      "the plane's byte is text: %x", TEXT[100]);
		for (unsigned i = 0; i < 1000; i++)
			bad += (u8)TEXT[100] != 'x';
		check(!bad, "it stays, %u times not", bad);
		check(call_code(0x3f00) == 0x12347778 + round, "and code: %x", call_code(0x3f00));
	}
	for (unsigned i = 0; i < 0x4000; i++)
		TEXT[i] = 0x0720;
}

static u32 pci_read(u32 reg)
{
	outl(0xcf8, 0x80000000u | 30 << 11 | reg);
	return inl(0xcfc);
}

static void test_frame_buffer(void)
{
	volatile u32 *fb = (volatile u32 *)0xd0000000;
	unsigned bad = 0;

	check(pci_read(0) == 0x11111234, "the PCI function is 1234:1111: %x", pci_read(0));
	outl(0xcf8, 0x80000000u | 30 << 11 | 0x10);
	outl(0xcfc, (u32)(uptr)fb);
	outl(0xcf8, 0x80000000u | 30 << 11 | 4);
	outl(0xcfc, 3);
	check(get_dispi(0) == 0xb0c5, "the display interface has version 5: %x", get_dispi(0));
	dispi(4, 0);
	dispi(1, 640);
	dispi(2, 480);
	dispi(3, 32);
	dispi(4, 0x41);
	check(get_dispi(4) == 0x41 && get_dispi(6) == 640, "640 x 480 in 32 bits: %x", get_dispi(4));
	for (u32 i = 0; i < 640 * 480; i += 641)
		fb[i] = i * 0x10001;
	for (u32 i = 0; i < 640 * 480; i += 641)
		bad += fb[i] != i * 0x10001;
	check(!bad, "%u pixels of the frame buffer differ", bad);
	dispi(4, 0);
	dispi(1, 2561);
	check(get_dispi(1) == 640, "a resolution that is not there is refused");
}

/* A screen is scrolled by a line as drivers do it. */
static u64 scroll(void)
{
	u64 start = rdtsc();

	for (unsigned i = 0; i < CELLS - 80; i++)
		TEXT[i] = TEXT[i + 80];
	for (unsigned i = CELLS - 80; i < CELLS; i++)
		TEXT[i] = 0x0720;
	return rdtsc() - start;
}

static u64 cost_of_writes(volatile u64 *at, unsigned n)
{
	u64 start = rdtsc();

	for (unsigned i = 0; i < n; i++)
		at[i & 255] = i;
	return (rdtsc() - start) / n;
}

void guest_main(void)
{
	u64 cycles = 0;

	test_text();
	test_registers();
	test_planes();
	test_text_in_ram();
	for (unsigned i = 0; i < 20; i++)
		cycles = scroll();
	print("scrolling the text screen: %llu cycles, %llu for each cell\n", cycles, cycles / CELLS);
	print("a write to the window: %llu cycles\n", cost_of_writes((volatile u64 *)0xb8000, 20000));
	test_frame_buffer();
	dispi(4, 0);
	dispi(1, 640);
	dispi(4, 0x41);
	print("a write to the frame buffer: %llu cycles\n",
	      cost_of_writes((volatile u64 *)0xd0000000, 20000));
	dispi(4, 0);
}
