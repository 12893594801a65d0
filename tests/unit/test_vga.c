/* The display adapter: write and read modes, latches, the registers' locks, text and pixels as they are seen, the display
 * interface, BARs and option ROM. [VGA], [DISPI] */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "dev/pci.h"
#include "dev/vga.h"
#include "fakeboard.h"

#define WINDOW    VGA_WINDOW_BASE
#define LFB       0xd0000000ull
#define ROM       0xd8000000ull
#define TEXT_BASE 0xb8000

static struct board b;
static struct device *vga;
static struct vga_text look;

static int setup(void **state)
{
	static const u8 rom[700] = { 0x55, 0xaa, 2 };

	board_init(&b, 0, 0);
	board_add(&b, "pci", &(const struct device_conf){ 0 });
	vga = board_add(&b, "vga", &(const struct device_conf){ .rom = rom, .rom_len = sizeof(rom) });
	return 0;
}

static int teardown(void **state)
{
	board_fini(&b);
	return 0;
}

static u64 rd(u64 addr, unsigned size)
{
	return bus_read(&b.vm.bus, BUS_MMIO, addr, size);
}

static void wr(u64 addr, unsigned size, u64 val)
{
	bus_write(&b.vm.bus, BUS_MMIO, addr, size, val);
}

static void set(u16 port, u8 index, u8 val)
{
	board_outb(&b, port, index);
	board_outb(&b, port + 1, val);
}

static u8 get(u16 port, u8 index)
{
	board_outb(&b, port, index);
	return board_inb(&b, port + 1);
}

static void attr(u8 index, u8 val)
{
	board_inb(&b, 0x3da);
	board_outb(&b, 0x3c0, index | 0x20);
	board_outb(&b, 0x3c0, val);
	board_inb(&b, 0x3da);
	board_outb(&b, 0x3c0, 0x20);
}

static void dispi(u16 index, u16 val)
{
	bus_write(&b.vm.bus, BUS_PIO, 0x1ce, 2, index);
	bus_write(&b.vm.bus, BUS_PIO, 0x1cf, 2, val);
}

static u16 get_dispi(u16 index)
{
	bus_write(&b.vm.bus, BUS_PIO, 0x1ce, 2, index);
	return (u16)bus_read(&b.vm.bus, BUS_PIO, 0x1cf, 2);
}

/* Planar, as in modes 10H and 12H: 640 x 480. */
static void planar(void)
{
	static const u8 crtc[0x19] = { 0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0, 0x40, 0,   0, 0, 0,
				       0,    0,    0xea, 0x0c, 0xdf, 0x28, 0,    0xe7, 4, 0xe3, 0xff };

	board_outb(&b, 0x3c2, 0xe3);
	set(0x3c4, 1, 1);
	set(0x3c4, 2, 15);
	set(0x3c4, 4, 6);
	set(0x3ce, 0, 0);
	set(0x3ce, 1, 0);
	set(0x3ce, 3, 0);
	set(0x3ce, 5, 0);
	set(0x3ce, 6, 5);
	set(0x3ce, 7, 15);
	set(0x3ce, 8, 0xff);
	set(0x3d4, 0x11, 0);
	for (unsigned i = 0; i < sizeof(crtc); i++)
		set(0x3d4, (u8)i, crtc[i]);
	for (u8 i = 0; i < 16; i++)
		attr(i, i);
	attr(0x10, 1);
	attr(0x12, 15);
	attr(0x14, 0);
}

/* Mode 13H: 320 x 200 in 256 colours. */
static void chained(void)
{
	planar();
	set(0x3c4, 4, 0x0e);
	set(0x3ce, 5, 0x40);
	set(0x3d4, 9, 0x41);
	set(0x3d4, 7, 0x1f);
	set(0x3d4, 0x12, 0x8f);
	set(0x3d4, 0x14, 0x40);
	set(0x3d4, 0x17, 0xa3);
	attr(0x10, 0x41);
}

static u32 planes(u64 addr)
{
	u32 v = 0;

	for (u8 p = 0; p < 4; p++) {
		set(0x3ce, 4, p);
		v |= (u32)rd(addr, 1) << 8 * p;
	}
	return v;
}

static void set_planes(u64 addr, u32 val)
{
	for (u8 p = 0; p < 4; p++) {
		set(0x3c4, 2, (u8)(1u << p));
		wr(addr, 1, val >> 8 * p & 0xff);
	}
	set(0x3c4, 2, 15);
}

/* ---- memory ---- */

static void write_mode_0(void **state)
{
	planar();
	wr(WINDOW + 5, 1, 0x5a);
	assert_int_equal(planes(WINDOW + 5), 0x5a5a5a5a);
	set(0x3ce, 3, 3); /* rotate right */
	wr(WINDOW + 5, 1, 0x11);
	assert_int_equal(planes(WINDOW + 5), 0x22222222);
	set(0x3ce, 3, 0);
	set(0x3ce, 0, 0x5); /* planes 0 and 2 all ones, */
	set(0x3ce, 1, 0x7); /* 1 all zeros, 3 from the processor */
	wr(WINDOW + 5, 1, 0x3c);
	assert_int_equal(planes(WINDOW + 5), 0x3cff00ff);
	set(0x3ce, 1, 0);
	set(0x3c4, 2, 0x6); /* planes 1 and 2 only */
	wr(WINDOW + 5, 1, 0x77);
	assert_int_equal(planes(WINDOW + 5), 0x3c7777ff);
	set(0x3c4, 2, 0xf);
	/* Where the bit mask is 0 the latches stay. */
	set_planes(WINDOW + 6, 0x04030201);
	rd(WINDOW + 6, 1);
	set(0x3ce, 8, 0xf0);
	wr(WINDOW + 7, 1, 0xaa);
	assert_int_equal(planes(WINDOW + 7), 0xa4a3a2a1);
}

static void functions(void **state)
{
	static const struct {
		u8 function;
		u32 want;
	} rows[] = { { 0, 0xf0f0f0f0 },
		     { 1, 0xf0f0f0f0 & 0x12345678 },
		     { 2, 0xf0f0f0f0 | 0x12345678 },
		     { 3, 0xf0f0f0f0 ^ 0x12345678 } };

	planar();
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		set(0x3ce, 3, 0);
		set_planes(WINDOW, 0x12345678);
		set(0x3ce, 3, (u8)(rows[i].function << 3));
		rd(WINDOW, 1);
		wr(WINDOW, 1, 0xf0);
		assert_int_equal(planes(WINDOW), rows[i].want);
	}
}

static void write_modes_1_to_3(void **state)
{
	planar();
	set_planes(WINDOW, 0xdeadbeef);
	rd(WINDOW, 1);
	set(0x3ce, 5, 1);
	wr(WINDOW + 9, 1, 0);
	assert_int_equal(planes(WINDOW + 9), 0xdeadbeef);

	set(0x3ce, 5, 0);
	set_planes(WINDOW + 10, 0x01010101);
	rd(WINDOW + 10, 1);
	set(0x3ce, 5, 2); /* a colour, under the bit mask */
	set(0x3ce, 8, 0xc0);
	wr(WINDOW + 10, 1, 0x9);
	assert_int_equal(planes(WINDOW + 10), 0xc10101c1);

	set(0x3ce, 8, 0xff);
	set(0x3ce, 5, 3); /* set/reset, under the bit mask and the processor's byte */
	set(0x3ce, 0, 0x2);
	set(0x3ce, 8, 0x3f);
	rd(WINDOW + 10, 1);
	wr(WINDOW + 10, 1, 0xf0);
	assert_int_equal(planes(WINDOW + 10), 0xc10131c1);
}

static void read_mode_1(void **state)
{
	planar();
	set_planes(WINDOW, 0x00ff0ff0); /* plane 0 F0, 1 0F, 2 FF, 3 00 */
	set(0x3ce, 5, 8);
	set(0x3ce, 2, 0x5);
	set(0x3ce, 7, 0xf);
	assert_int_equal(rd(WINDOW, 1), 0xf0); /* colour 5 where plane 0 is set and 1 is not */
	set(0x3ce, 7, 0x0);
	assert_int_equal(rd(WINDOW, 1), 0xff); /* no plane counts */
	set(0x3ce, 7, 0x8);
	set(0x3ce, 2, 0x8);
	assert_int_equal(rd(WINDOW, 1), 0x00);
}

static void memory_maps(void **state)
{
	static const struct {
		u8 misc;
		u32 first, len;
	} maps[] = {
		{ 0x1, 0, 0x20000 }, { 0x5, 0, 0x10000 }, { 0x9, 0x10000, 0x8000 }, { 0xd, 0x18000, 0x8000 }
	};

	planar();
	for (unsigned i = 0; i < ARRAY_SIZE(maps); i++) {
		set(0x3ce, 6, maps[i].misc);
		wr(WINDOW + maps[i].first, 1, 0x40 + i);
		for (u32 at = 0; at < 0x20000; at += 0x8000) {
			bool in = at >= maps[i].first && at - maps[i].first < maps[i].len;

			assert_true(in || rd(WINDOW + at, 1) == 0xff);
		}
		assert_int_equal(rd(WINDOW + maps[i].first, 1), 0x40 + i);
	}
	board_outb(&b, 0x3c2, 0xe1); /* RAM off */
	assert_int_equal(rd(WINDOW + 0x18000, 4), 0xffffffff);
}

/* The short ways do what single bytes do. */
static void widths_agree(void **state)
{
	static const u8 memory[] = { 0x02, 0x06, 0x0e };

	vga_set_text_mode(vga);
	for (unsigned m = 0; m < ARRAY_SIZE(memory); m++) {
		set(0x3c4, 4, memory[m]);
		set(0x3c4, 2, m == 0 ? 3 : 15);
		set(0x3ce, 5, m == 0 ? 0x10 : 0);
		for (unsigned size = 1; size <= 8; size *= 2) {
			u64 val = 0x8877665544332211;

			for (unsigned off = 0; off < 16; off++) {
				for (unsigned i = 0; i < 32; i++)
					wr(TEXT_BASE + i, 1, 0);
				wr(TEXT_BASE + off, size, val);
				for (unsigned i = 0; i < 32; i++)
					assert_int_equal(rd(TEXT_BASE + i, 1), i >= off && i < off + size
										       ? 0x11 * (i - off + 1)
										       : 0);
				assert_int_equal(rd(TEXT_BASE + off, size), val & bits_mask(size));
			}
		}
	}
}

/* ---- registers ---- */

static void locks_and_masks(void **state)
{
	vga_set_text_mode(vga);
	set(0x3d4, 0, 0x12);
	assert_int_equal(get(0x3d4, 0), 0x5f); /* timing is locked, */
	set(0x3d4, 7, 0x00);
	assert_int_equal(get(0x3d4, 7), 0x0f); /* but for a bit of the line compare */
	set(0x3d4, 0x11, 0x0e);
	set(0x3d4, 0, 0x12);
	assert_int_equal(get(0x3d4, 0), 0x12);
	assert_int_equal(board_inb(&b, 0x3b5), 0xff);
	board_outb(&b, 0x3c2, 0x66); /* monochrome: the other address */
	assert_int_equal(board_inb(&b, 0x3d5), 0xff);
	assert_int_equal(get(0x3b4, 0), 0x12);
	set(0x3c4, 2, 0xff);
	assert_int_equal(get(0x3c4, 2), 0x0f);
	set(0x3c4, 6, 0xff);
	assert_int_equal(get(0x3c4, 6), 0);
}

static void palette(void **state)
{
	board_outb(&b, 0x3c2, 0x67);
	board_outb(&b, 0x3c8, 255);
	for (unsigned i = 0; i < 4; i++)
		board_outb(&b, 0x3c9, (u8)(0xc1 + i)); /* six bits count; the fourth is entry 0's first */
	board_outb(&b, 0x3c7, 255);
	assert_int_equal(board_inb(&b, 0x3c7), 3);
	assert_int_equal(board_inb(&b, 0x3c9), 1);
	assert_int_equal(board_inb(&b, 0x3c9), 2);
	assert_int_equal(board_inb(&b, 0x3c9), 3);
	assert_int_equal(board_inb(&b, 0x3c9), 4);
	/* The flip-flop of the attribute controller. */
	attr(3, 0x2a);
	board_inb(&b, 0x3da);
	board_outb(&b, 0x3c0, 3);
	assert_int_equal(board_inb(&b, 0x3c1), 0x2a);
}

static void beam(void **state)
{
	unsigned retraces = 0;
	bool before = false;

	board_outb(&b, 0x3c2, 0x67);
	for (unsigned i = 0; i < 10000; i++, board_advance(&b, 20000)) { /* 0.2 s */
		bool now = board_inb(&b, 0x3da) & 8;

		retraces += now && !before;
		before = now;
	}
	assert_in_range(retraces, 13, 15);
}

/* ---- what is seen ---- */

static void put_text(unsigned at, const char *text, u8 attribute)
{
	for (; *text; text++, at++)
		wr(TEXT_BASE + 2 * at, 2, (u8)*text | attribute << 8);
}

static void text_screen(void **state)
{
	vga_screen_look(vga, &look);
	assert_int_equal(look.kind, VGA_BLANK);
	vga_set_text_mode(vga);
	put_text(0, "first", 0x1f);
	put_text(24 * 80 + 75, "edge!", 0x4e);
	set(0x3d4, 0x0e, 0);
	set(0x3d4, 0x0f, 85);
	vga_screen_look(vga, &look);
	assert_int_equal(look.kind, VGA_TEXT);
	assert_int_equal(look.columns, 80);
	assert_int_equal(look.rows, 25);
	assert_int_equal(look.width, 720);
	assert_int_equal(look.height, 400);
	assert_true(look.cursor_on && look.blink);
	assert_int_equal(look.cursor_row, 1);
	assert_int_equal(look.cursor_column, 5);
	assert_int_equal(look.cell[4], 0x1f00 | 't');
	assert_int_equal(look.cell[24 * 80 + 79], 0x4e00 | '!');
	assert_int_equal(look.cell[100], 0x0720);
	assert_int_equal(look.palette[4], 0xaa0000);
	assert_int_equal(look.palette[6], 0xaa5500);
	assert_int_equal(look.palette[15], 0xffffff);
	/* Scrolled by the start address; a cursor that is off, or elsewhere. */
	set(0x3d4, 0x0d, 80);
	vga_screen_look(vga, &look);
	assert_int_equal(look.cell[23 * 80 + 79], 0x4e00 | '!');
	assert_int_equal(look.cursor_row, 0);
	set(0x3d4, 0x0a, 0x20);
	vga_screen_look(vga, &look);
	assert_false(look.cursor_on);
	/* 8 dots a character; 50 rows of 8 lines. */
	set(0x3c4, 1, 1);
	set(0x3d4, 9, 0x47);
	vga_screen_look(vga, &look);
	assert_int_equal(look.width, 640);
	assert_int_equal(look.rows, 50);
	set(0x3c4, 1, 0x21);
	vga_screen_look(vga, &look);
	assert_int_equal(look.kind, VGA_BLANK);
}

/* Below the line of the split screen addresses begin at 0. */
static void split_screen(void **state)
{
	vga_set_text_mode(vga);
	put_text(0, "top of memory", 7);
	put_text(800, "scrolled", 7);
	set(0x3d4, 0x0c, 800 >> 8);
	set(0x3d4, 0x0d, 800 & 0xff);
	set(0x3d4, 0x11, 0x0e);
	set(0x3d4, 7, 0x0f);
	set(0x3d4, 9, 0x0f);
	set(0x3d4, 0x18, 159);
	vga_screen_look(vga, &look);
	assert_int_equal(look.cell[0] & 0xff, 's');
	assert_int_equal(look.cell[10 * 80] & 0xff, 't');
}

static u32 *pixels(u32 width, u32 height)
{
	u32 w, h, *p;

	assert_int_equal(vga_screen_pixels(vga, &w, &h, &p, NULL), 0);
	assert_int_equal(w, width);
	assert_int_equal(h, height);
	return p;
}

static void text_pixels(void **state)
{
	u32 *p;

	vga_set_text_mode(vga);
	put_text(0, "\xb2\xdc", 0x1e);
	put_text(2, "\xc4", 0x1e); /* a line, which goes on in the ninth dot */
	p = pixels(720, 400);
	assert_int_equal(p[7], 0xffff55);
	assert_int_equal(p[8], 0x0000aa); /* the ninth dot of any other character is background */
	assert_int_equal(p[9], 0x0000aa);
	assert_int_equal(p[8 * 720 + 9], 0xffff55);
	for (unsigned x = 18; x < 27; x++)
		assert_int_equal(p[7 * 720 + x], 0xffff55);
	assert_int_equal(p[6 * 720 + 18], 0x0000aa);
	free(p);
}

static void planar_pixels(void **state)
{
	u32 *p;

	vga_set_text_mode(vga); /* for the palette */
	planar();
	set(0x3c4, 2, 1);
	wr(WINDOW, 1, 0x80);
	set(0x3c4, 2, 8);
	wr(WINDOW, 1, 0xc0);
	set(0x3c4, 2, 15);
	wr(WINDOW + 80 + 79, 1, 0);
	set(0x3c4, 2, 4);
	wr(WINDOW + 80 + 79, 1, 0x01);
	p = pixels(640, 480);
	assert_int_equal(p[0], 0x0000ff); /* 9: both bits of blue */
	assert_int_equal(p[1], 0x000055); /* 8 */
	assert_int_equal(p[2], 0x000000);
	assert_int_equal(p[640 + 639], 0xaa0000); /* 4 */
	free(p);
}

static void chained_pixels(void **state)
{
	u32 *p;

	chained();
	board_outb(&b, 0x3c8, 200);
	board_outb(&b, 0x3c9, 63);
	board_outb(&b, 0x3c9, 32);
	board_outb(&b, 0x3c9, 1);
	wr(WINDOW + 320 * 100 + 7, 1, 200);
	wr(WINDOW + 320 * 199 + 319, 1, 200);
	p = pixels(320, 200);
	assert_int_equal(p[320 * 100 + 7], 0xff8204);
	assert_int_equal(p[320 * 199 + 319], 0xff8204);
	assert_int_equal(p[320 * 100 + 6], 0);
	free(p);
}

static void place_bars(void)
{
	u64 ecam = PCI_ECAM_BASE + ((u64)PCI_DEVFN(VGA_PCI_SLOT, 0) << 12);

	wr(ecam + PCI_BAR0, 4, LFB);
	wr(ecam + PCI_BAR0 + 8, 4, LFB + VGA_MEMORY_SIZE);
	wr(ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM);
}

static void frame_buffer(void **state)
{
	u32 *p;

	place_bars();
	attr(0x10, 1);
	assert_int_equal(get_dispi(0), 0xb0c5);
	assert_int_equal(get_dispi(10), 256);
	dispi(4, 2);
	assert_int_equal(get_dispi(1), 2560);
	dispi(4, 0);
	dispi(1, 801); /* no multiple of eight */
	dispi(1, 800);
	dispi(2, 600);
	dispi(3, 7);
	dispi(3, 32);
	dispi(4, 0x41);
	dispi(1, 640); /* too late */
	assert_int_equal(get_dispi(1), 800);
	assert_int_equal(get_dispi(6), 800);
	wr(LFB + 4 * (800 * 599 + 799), 4, 0x00123456);
	p = pixels(800, 600);
	assert_int_equal(p[800 * 599 + 799], 0x123456);
	free(p);
	/* A window on it, by banks; other depths. */
	dispi(5, 1);
	set(0x3ce, 6, 5);
	board_outb(&b, 0x3c2, 0x63);
	wr(WINDOW + 4, 4, 0x00abcdef);
	assert_int_equal(rd(LFB + 0x10004, 4), 0xabcdef);
	dispi(4, 0);
	dispi(3, 16);
	dispi(4, 0x41);
	wr(LFB, 4, 0xf81f07e0);
	p = pixels(800, 600);
	assert_int_equal(p[0], 0x00ff00);
	assert_int_equal(p[1], 0xff00ff);
	free(p);
	/* Panning within what is there. */
	dispi(6, 1600);
	dispi(8, 800);
	dispi(8, 801);
	assert_int_equal(get_dispi(8), 800);
	wr(LFB + 1600, 2, 0x001f);
	p = pixels(800, 600);
	assert_int_equal(p[0], 0x0000ff);
	free(p);
	/* More than the memory holds is not switched on. */
	dispi(4, 0);
	dispi(1, 2560);
	dispi(2, 1600);
	dispi(3, 32);
	dispi(4, 0x41);
	assert_int_equal(get_dispi(4) & 1, 2560 * 1600 * 4 <= VGA_MEMORY_SIZE);
	/* The same registers in BAR 2. */
	assert_int_equal(rd(LFB + VGA_MEMORY_SIZE + 0x500, 2), 0xb0c5);
	wr(LFB + VGA_MEMORY_SIZE + 0x508, 2, 0);
	assert_int_equal(get_dispi(4), 0);
	wr(LFB + VGA_MEMORY_SIZE + 0x404, 2, 0x0502); /* index and data at once */
	assert_int_equal(get(0x3c4, 2), 5);
}

static void option_rom(void **state)
{
	u64 ecam = PCI_ECAM_BASE + ((u64)PCI_DEVFN(VGA_PCI_SLOT, 0) << 12);

	wr(ecam + PCI_ROM, 4, 0xffffffff);
	assert_int_equal(rd(ecam + PCI_ROM, 4), (u32) ~(VGA_ROM_SIZE - 1) | 1);
	wr(ecam + PCI_ROM, 4, ROM);
	wr(ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM);
	assert_int_equal(rd(ROM, 2), 0xffff); /* not enabled */
	wr(ecam + PCI_ROM, 4, ROM | 1);
	assert_int_equal(rd(ROM, 4), 0x2aa55);
	assert_int_equal(rd(ROM + 698, 4), 0xffff0000); /* behind the file's end */
	wr(ROM, 4, 0);
	assert_int_equal(rd(ROM, 4), 0x2aa55);
}

/* ---- text in RAM ---- */

/* As a vCPU: where there is RAM, the bus is not asked. */
static u64 guest_read(u64 addr, unsigned size)
{
	const void *p = ram_ptr(&b.vm.ram, addr, size);
	u64 val = 0;

	if (!p)
		return rd(addr, size);
	memcpy(&val, p, size);
	return val;
}

static void guest_write(u64 addr, unsigned size, u64 val)
{
	void *p = ram_ptr(&b.vm.ram, addr, size);

	if (p)
		memcpy(p, &val, size);
	else
		wr(addr, size, val);
}

static void text_registers(void)
{
	dispi(4, 0);
	board_outb(&b, 0x3c2, 0x67);
	set(0x3c4, 2, 3);
	set(0x3c4, 4, 2);
	set(0x3ce, 3, 0);
	set(0x3ce, 4, 0);
	set(0x3ce, 5, 0x10);
	set(0x3ce, 6, 0x0e);
}

/* What text modes are left for. Everything reads before it depends on the latches. */
static u64 something_else(unsigned what, u32 at, u8 val)
{
	u64 sum = 0;

	switch (what) {
	case 0: /* a font into plane 2, and what is in the others */
		set(0x3c4, 2, 4);
		set(0x3c4, 4, 6);
		set(0x3ce, 5, 0);
		set(0x3ce, 6, 4);
		wr(WINDOW + at, 1, val);
		for (u8 plane = 0; plane < 4; plane++) {
			set(0x3ce, 4, plane);
			sum = sum * 31 + rd(WINDOW + at, 1);
		}
		break;
	case 1: /* all planes at once */
		set(0x3c4, 2, 15);
		set(0x3c4, 4, 6);
		set(0x3ce, 5, 1);
		set(0x3ce, 6, 4);
		sum = rd(WINDOW + at, 1);
		wr(WINDOW + (at ^ 0x55), 1, val);
		break;
	case 2: /* exclusive or, still at B8000H */
		set(0x3ce, 3, 0x18);
		sum = rd(TEXT_BASE + at, 1);
		wr(TEXT_BASE + at, 1, val);
		break;
	case 3: /* no memory at all */
		board_outb(&b, 0x3c2, 0x65);
		guest_write(TEXT_BASE + at, 2, 0x1234);
		sum = guest_read(TEXT_BASE + at, 2);
		break;
	case 4: /* the frame buffer, in the middle of text */
		sum = rd(LFB + 4 * (at & ~3u), 8);
		wr(LFB + 4 * (at & ~3u), 4, val * 0x01010101u);
		break;
	case 5: /* a mode of the display interface, which clears what it shows */
		dispi(4, 0);
		dispi(1, 64);
		dispi(2, 16 + val % 16);
		dispi(3, 8);
		dispi(4, 0x41);
		sum = guest_read(TEXT_BASE + at, 4);
		wr(WINDOW + at, 2, val);
		break;
	case 6: /* from B0000H on, as a monochrome adapter */
		set(0x3ce, 6, 0x0a);
		sum = guest_read(TEXT_BASE + at, 2) + guest_read(0xb0000 + at, 2);
		guest_write(0xb0000 + at, 2, val * 0x101u);
		break;
	default: /* fewer planes, or more */
		set(0x3c4, 2, val & 15);
		guest_write(TEXT_BASE + at, 2, val * 0x101u);
		break;
	}
	return sum;
}

static void text_start(void)
{
	u64 ecam = PCI_ECAM_BASE + ((u64)PCI_DEVFN(VGA_PCI_SLOT, 0) << 12);

	wr(ecam + PCI_BAR0, 4, LFB);
	wr(ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM);
	vga_set_text_mode(vga);
}

/* Runs the script of that seed; returns what it has seen, and in *ret_shown how often text was in RAM. */
static u64 text_script(u64 seed, bool ram, unsigned *ret_shown)
{
	u64 x = seed * 2 + 1, sum = 0;
	bool shown = false;

	board_init(&b, 2 * MiB, 0);
	if (ram)
		assert_int_equal(ram_set_hole(&b.vm.ram, WINDOW, WINDOW + VGA_WINDOW_SIZE), 0);
	else
		assert_int_equal(ram_set_hole(&b.vm.ram, WINDOW, WINDOW + VGA_WINDOW_SIZE + 4096), 0);
	board_add(&b, "pci", &(const struct device_conf){ 0 });
	vga = board_add(&b, "vga", &(const struct device_conf){ 0 });
	text_start();
	*ret_shown = 0;
	for (unsigned i = 0; i < 20000; i++) {
		u32 at;
		unsigned size;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		at = (u32)(x >> 33) % 0x7ff8;
		size = 1u << (x >> 20 & 3);
		if ((x >> 48) % 700 == 0) {
			sum = sum * 31 + something_else((unsigned)(x >> 24 & 7), at, (u8)(x >> 40));
			text_registers();
			if ((x >> 28 & 7) == 0) {
				device_reset_all(&b.vm, RESET_COLD);
				text_start();
			}
		} else if (x >> 60 & 1) {
			guest_write(TEXT_BASE + at, size, x);
		} else {
			sum = sum * 31 + guest_read(TEXT_BASE + at, size);
		}
		*ret_shown += !shown && ram_ptr(&b.vm.ram, TEXT_BASE, 0x8000);
		shown = ram_ptr(&b.vm.ram, TEXT_BASE, 0x8000);
	}
	assert_null(ram_ptr(&b.vm.ram, WINDOW, 1));
	assert_null(ram_ptr(&b.vm.ram, TEXT_BASE - 1, 2));
	vga_screen_look(vga, &look);
	for (u32 i = 0; i < look.columns * look.rows; i++)
		sum = sum * 31 + look.cell[i];
	for (u32 i = 0; i < 0x40000; i += 8)
		sum = sum * 31 + rd(LFB + i, 8);
	board_fini(&b);
	return sum;
}

static void text_in_ram(void **state)
{
	teardown(state);
	for (u64 seed = 0; seed < 40; seed++) {
		unsigned never, shown;
		u64 planes = text_script(seed, false, &never), ram = text_script(seed, true, &shown);

		assert_int_equal(never, 0);
		assert_true(shown > 3);
		if (planes != ram)
			fail_msg("seed %llu: the guest sees a difference", (unsigned long long)seed);
	}
	setup(state);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(write_mode_0),  T(functions),      T(write_modes_1_to_3), T(read_mode_1),
		T(memory_maps),   T(widths_agree),   T(locks_and_masks),    T(palette),
		T(beam),          T(text_screen),    T(split_screen),       T(text_pixels),
		T(planar_pixels), T(chained_pixels), T(frame_buffer),       T(option_rom),
		T(text_in_ram),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
