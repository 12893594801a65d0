/* What the files of the display adapter share: its registers and its memory.
 *
 * Memory is kept as the four planes interleaved: byte 4 * n + p is byte n of plane p. In the chained modes, where neighbouring
 * bytes of the guest lie in different planes, n is the guest's address divided by the number of chained planes: so chain-4
 * memory and the linear frame buffer are the same bytes in the same order.
 * DEVIATION: a real VGA leaves the bytes of a plane between those that can be reached unused (address AND NOT 3) and counts
 * accordingly in its word and doubleword modes. Here both are dense; only who switches between chained and planar addressing
 * and expects the old contents at the old place sees it.
 */
#pragma once

#include "dev/pci.h"
#include "dev/vga.h"
#include "vm/bus.h"
#include "vm/device.h"

#define VGA_LEGACY_CELLS 0x10000 /* bytes per plane that the VGA itself addresses */

/* Sequencer, graphics controller, CRT controller, attribute controller [VGA]. */
enum { SEQ_RESET, SEQ_CLOCK, SEQ_MAP_MASK, SEQ_FONT, SEQ_MEMORY, SEQ_NR };
enum {
	GFX_SET_RESET,
	GFX_ENABLE_SR,
	GFX_COMPARE,
	GFX_ROTATE,
	GFX_READ_MAP,
	GFX_MODE,
	GFX_MISC,
	GFX_DONT_CARE,
	GFX_BIT_MASK,
	GFX_NR
};
enum {
	CRTC_H_TOTAL = 0x00,
	CRTC_H_DISPLAY = 0x01,
	CRTC_OVERFLOW = 0x07,
	CRTC_MAX_SCAN = 0x09,
	CRTC_CURSOR_START = 0x0a,
	CRTC_CURSOR_END = 0x0b,
	CRTC_START_HI = 0x0c,
	CRTC_START_LO = 0x0d,
	CRTC_CURSOR_HI = 0x0e,
	CRTC_CURSOR_LO = 0x0f,
	CRTC_V_RETRACE_END = 0x11,
	CRTC_V_DISPLAY = 0x12,
	CRTC_OFFSET = 0x13,
	CRTC_UNDERLINE = 0x14,
	CRTC_MODE = 0x17,
	CRTC_LINE_COMPARE = 0x18,
	CRTC_NR = 0x19
};
enum { ATTR_MODE = 0x10, ATTR_OVERSCAN, ATTR_PLANES, ATTR_PAN, ATTR_COLOUR, ATTR_NR };

#define SEQ_CLOCK_8DOTS    0x01
#define SEQ_CLOCK_OFF      0x20
#define SEQ_MEMORY_LINEAR  0x04 /* no odd/even */
#define SEQ_MEMORY_CHAIN4  0x08
#define GFX_MODE_READ      0x08
#define GFX_MODE_ODDEVEN   0x10
#define GFX_MODE_SHIFT     0x60
#define GFX_MISC_GRAPHICS  0x01
#define ATTR_MODE_GRAPHICS 0x01
#define ATTR_MODE_MONO     0x02
#define ATTR_MODE_LINE     0x04 /* the ninth dot repeats the eighth for C0H-DFH */
#define ATTR_MODE_BLINK    0x08
#define ATTR_MODE_P54      0x80
#define ATTR_PAS           0x20 /* of the index: the palette belongs to the screen */
#define MISC_COLOUR        0x01
#define MISC_RAM           0x02

/* Registers of the Bochs display interface. */
enum {
	DISPI_ID,
	DISPI_XRES,
	DISPI_YRES,
	DISPI_BPP,
	DISPI_ENABLE,
	DISPI_BANK,
	DISPI_VIRT_WIDTH,
	DISPI_VIRT_HEIGHT,
	DISPI_X_OFFSET,
	DISPI_Y_OFFSET,
	DISPI_MEMORY_64K,
	DISPI_NR
};

#define DISPI_ENABLED    0x01
#define DISPI_GETCAPS    0x02
#define DISPI_8BIT_DAC   0x20
#define DISPI_LFB        0x40
#define DISPI_NOCLEARMEM 0x80
#define DISPI_ID0        0xb0c0
#define DISPI_ID5        0xb0c5
#define DISPI_MAX_XRES   2560u
#define DISPI_MAX_YRES   1600u

#define VGA_NR_PORTS 6

struct vga {
	struct device dev;
	struct region port[VGA_NR_PORTS], window;
	struct pci_dev pci;
	u8 *mem; /* VGA_MEMORY_SIZE bytes, as above */
	const u8 *rom;
	size_t rom_len;
	u8 misc, feature;
	u8 seq_index, gfx_index, crtc_index, attr_index;
	bool attr_data; /* the next write to 3C0H is data */
	u8 seq[SEQ_NR], gfx[GFX_NR], crtc[CRTC_NR], attr[ATTR_NR];
	u8 dac[768], dac_mask;
	u8 dac_read, dac_write, dac_part; /* indices; which of the three colours comes next */
	bool dac_reading;
	u32 latch; /* a byte per plane, plane 0 in the low byte */
	u16 dispi_index, dispi[DISPI_NR];
	bool text_in_ram; /* vga_text.c */
	u32 text_accesses;
};

/* In a mode of the display interface, and one in which each pixel lies in one piece. */
static inline bool vga_dispi_on(const struct vga *v)
{
	return v->dispi[DISPI_ENABLE] & DISPI_ENABLED;
}

static inline bool vga_dispi_packed(const struct vga *v)
{
	return vga_dispi_on(v) && v->dispi[DISPI_BPP] != 4;
}

/* Bytes from one line to the next in a packed mode; in the planar one, of each plane. */
static inline u32 vga_dispi_pitch(const struct vga *v)
{
	u32 bits = v->dispi[DISPI_BPP] == 4 ? 1 : ALIGN_UP((u32)v->dispi[DISPI_BPP], 8u);

	return v->dispi[DISPI_VIRT_WIDTH] * bits / 8;
}

/* vga_mem.c: the window at A0000H, and the frame buffer. */
extern const struct region_ops vga_mem_window_ops, vga_mem_frame_ops;
/* The window has text at B8000H and nothing else, and nothing is made of what is written there. */
bool vga_mem_is_text(const struct vga *v);

/* vga_text.c. An access to the window, by its offset; true: text is in RAM, and vga_text_read() or vga_text_write() is to do it. */
bool vga_text_access(struct vga *v);
u64 vga_text_read(const struct vga *v, u64 offset, unsigned size);
void vga_text_write(struct vga *v, u64 offset, unsigned size, u64 val);
/* Before something else is made of the planes, or the registers say so: text is in them. */
void vga_text_leave(struct vga *v);
/* The planes' bytes number n, two of which may be in RAM. */
u32 vga_text_cell(const struct vga *v, u32 n, u32 planes);
/* -EINVAL: such a state cannot be. */
int vga_text_post_load(struct vga *v);

/* vga_dispi.c */
u16 vga_dispi_read(const struct vga *v, unsigned index);
void vga_dispi_write(struct vga *v, unsigned index, u16 val);
void vga_dispi_reset(struct vga *v);

/* vga_font.c: writes 256 characters of 8 by 16 dots where mode 3 has its font. */
void vga_font_load(struct vga *v);
