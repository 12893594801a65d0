/* The display adapter "vga": a VGA with the linear frame buffer that Bochs began and everybody's drivers know, PCI function
 * 1234:1111. It is always there, as on a PC; what is on its screen is asked for by the functions below.
 *
 * device_conf: rom, rom_len: the option ROM that firmware runs, NULL: none. Needs the "pci" device.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct device;
struct vm;

#define VGA_PCI_SLOT    30 /* the last that is handed out, so that no other function moves */
#define VGA_WINDOW_BASE 0xa0000
#define VGA_WINDOW_SIZE 0x20000
#define VGA_MEMORY_SIZE (16 * MiB)
#define VGA_ROM_SIZE    (64 * KiB) /* an option ROM has at most so many bytes */

enum vga_kind {
	VGA_BLANK, /* switched off */
	VGA_TEXT,
	VGA_GRAPHICS,
};

#define VGA_MAX_COLUMNS 256
#define VGA_MAX_ROWS    128

/* A look at the screen. */
struct vga_text {
	enum vga_kind kind;
	u32 width, height; /* in pixels, as vga_screen_pixels() gives it */
	/* The rest is set for VGA_TEXT only. */
	u32 columns, rows;
	u32 cursor_column, cursor_row;
	bool cursor_on;
	bool blink;      /* bit 7 of an attribute blinks; else it is a brighter background */
	u32 palette[16]; /* 0xRRGGBB by the four bits of an attribute */
	u16 cell[VGA_MAX_COLUMNS * VGA_MAX_ROWS]; /* row by row; character in bits 7..0, attribute in 15..8 */
};

/* The VM's, NULL where it has none. */
struct device *vga_find(struct vm *vm);

/* What the screen shows now. Any thread, without the device's lock. */
void vga_screen_look(struct device *dev, struct vga_text *ret);

/* The same as pixels: width * height of 0xRRGGBB, row by row, which the caller frees. Text is drawn with the guest's own font,
 * without the cursor. A screen that is switched off is black. -ENOMEM. */
int vga_screen_pixels(struct device *dev, u32 *ret_width, u32 *ret_height, u32 **ret_pixels, struct err *err);

/* As a PC's firmware leaves it: mode 3, 80 columns and 25 rows of text, with a font. Main thread, vCPUs not running. */
void vga_set_text_mode(struct device *dev);

/* The linear frame buffer in 32 bits per pixel, as a boot loader sets it up, at addr, a place of the PCI window that no other
 * function has yet. width is a multiple of 8 up to 2560, height at most 1600, and both fit into the memory. As above. */
void vga_set_frame_buffer(struct device *dev, u64 addr, u32 width, u32 height);
