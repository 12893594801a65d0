/* The display adapter under any registers and memory: what a guest leaves there is looked at as text and as pixels.
 *
 * An input is steps of four bytes: where, what, and a value. Most go to the VGA's registers by index, so that modes of all
 * kinds come up; the first byte of the input chooses what it starts from.
 */
#include <stdio.h>
#include <stdlib.h>

#include "dev/pci.h"
#include "dev/vga.h"
#include "fakeboard.h"

#define LFB 0xd0000000ull

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fuzz_vga: %s\n", what);
	abort();
}

static void indexed(struct board *b, u16 port, u8 index, u8 val)
{
	board_outb(b, port, index);
	board_outb(b, port + 1, val);
}

static void step(struct board *b, const u8 *p)
{
	static const u16 indexed_ports[] = { 0x3d4, 0x3d4, 0x3c4, 0x3ce };
	struct bus *bus = &b->vm.bus;
	u64 addr = VGA_WINDOW_BASE + (p[1] << 9) + p[2];

	switch (p[0] & 15) {
	case 0:
	case 1:
	case 2:
	case 3: indexed(b, indexed_ports[p[0] & 3], p[1] % 0x19, p[2]); break;
	case 4:
		board_inb(b, 0x3da);
		board_outb(b, 0x3c0, (p[1] & 0x1f) | 0x20);
		board_outb(b, 0x3c0, p[2]);
		break;
	case 5: board_outb(b, (u16)(0x3b0 + (p[1] & 0x2f)), p[2]); break;
	case 6: board_inb(b, (u16)(0x3b0 + (p[1] & 0x2f))); break;
	case 7:
		bus_write(bus, BUS_PIO, 0x1ce, 2, p[1] & 15);
		bus_write(bus, BUS_PIO, 0x1cf, 2, p[2] | p[3] << 8);
		break;
	case 8:
		bus_write(bus, BUS_PIO, 0x1ce, 2, 4);
		bus_write(bus, BUS_PIO, 0x1cf, 2, p[1]);
		break;
	case 9:
	case 10: bus_write(bus, BUS_MMIO, addr, 1u << (p[3] & 3), p[2] * 0x0102030405060708ull); break;
	case 11: bus_read(bus, BUS_MMIO, addr, 1u << (p[3] & 3)); break;
	case 12: bus_write(bus, BUS_MMIO, LFB + VGA_MEMORY_SIZE - 1 - p[1], 1u << (p[3] & 3), p[2]); break;
	case 13: bus_read(bus, BUS_MMIO, LFB + VGA_MEMORY_SIZE - 1 - p[1], 1u << (p[3] & 3)); break;
	case 14:
		bus_write(bus, BUS_MMIO, LFB + VGA_MEMORY_SIZE + 0x400 + p[1], 1u << (p[3] & 1), p[2]);
		break;
	default: board_advance(b, (u64)p[1] * 1000000); break;
	}
}

static void look(struct device *vga)
{
	static struct vga_text text;
	u32 width, height, *pixels, sum = 0;

	vga_screen_look(vga, &text);
	must(text.columns <= VGA_MAX_COLUMNS && text.rows <= VGA_MAX_ROWS, "there are too many characters");
	must(!text.cursor_on || (text.cursor_column < text.columns && text.cursor_row < text.rows),
	     "the cursor is outside of the screen");
	must(vga_screen_pixels(vga, &width, &height, &pixels, NULL) == 0, "no picture");
	must(width && height && width <= 2560 && height <= 1600, "the picture has an impossible size");
	must(text.width == width && text.height == height, "text and picture differ in size");
	for (size_t i = 0; i < (size_t)width * height; i++)
		sum |= pixels[i];
	must(!(sum >> 24), "a pixel is no colour");
	free(pixels);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	u64 ecam = PCI_ECAM_BASE + ((u64)PCI_DEVFN(VGA_PCI_SLOT, 0) << 12);
	struct device *vga;
	struct board b;

	if (len < 4)
		return 0;
	board_init(&b, 0, 0);
	board_add(&b, "pci", &(const struct device_conf){ 0 });
	vga = board_add(&b, "vga", &(const struct device_conf){ 0 });
	bus_write(&b.vm.bus, BUS_MMIO, ecam + PCI_BAR0, 4, LFB);
	bus_write(&b.vm.bus, BUS_MMIO, ecam + PCI_BAR0 + 8, 4, LFB + VGA_MEMORY_SIZE);
	bus_write(&b.vm.bus, BUS_MMIO, ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM);
	if (data[0] & 1)
		vga_set_text_mode(vga);
	if (data[0] & 2)
		vga_set_frame_buffer(vga, LFB, 640, 480);
	if (data[0] & 4)
		indexed(&b, 0x3ce, 6, 5); /* graphics */
	if (data[0] & 8)
		indexed(&b, 0x3ce, 5, 0x40);
	for (size_t at = 1; at + 4 <= len; at += 4)
		step(&b, data + at);
	look(vga);
	board_fini(&b);
	return 0;
}
