/* What is on the display adapter's screen: as characters, and as pixels.
 *
 * Document: IBM Personal System/2 Hardware Interface Technical Reference, Video Subsystem ("[VGA]").
 *
 * Nothing is kept between two looks; all of it follows from registers and memory at that moment, under the device's lock. The
 * CRT controller counts memory addresses line by line: each of the display's character rows begins `offset` words behind the
 * last one, and scan lines within a row repeat it, or select another quarter of the memory where row-scan bits replace address
 * bits, as CGA's modes have it. Lines that repeat are given once, so that mode 13H is 320 by 200.
 *
 * Every register may hold anything: addresses wrap in the memory that there is, and sizes are bounded by the registers' widths
 * (2048 by 1024 dots for the VGA's modes, DISPI_MAX_* for the others).
 *
 * Omitted: pixel panning and preset row scan, which move a picture by less than a character; the overscan border; blinking as
 * time passes (characters that blink are shown, the cursor does not blink).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "dev/vga_int.h"
#include "vm/vm.h"

struct frame {
	u32 columns, height; /* characters or groups of 8 dots; scan lines, repeated ones once */
	u32 char_height;     /* scan lines of a row */
	u32 start, pitch;    /* in cells: bytes of a plane */
	u32 compare;         /* the line behind which addresses begin at 0 again */
};

/* What of the CRT controller says where things are. */
static void get_frame(const struct vga *v, struct frame *f)
{
	const u8 *c = v->crtc;
	u8 over = c[CRTC_OVERFLOW], scan = c[CRTC_MAX_SCAN];
	bool twice = scan & 0x80;

	f->columns = c[CRTC_H_DISPLAY] + 1u;
	f->height = (c[CRTC_V_DISPLAY] | (over & 2u) << 7 | (over & 0x40u) << 3) + 1;
	f->char_height = (scan & 0x1fu) + 1;
	f->start = (u32)c[CRTC_START_HI] << 8 | c[CRTC_START_LO];
	f->pitch = c[CRTC_OFFSET] * 2u;
	f->compare = c[CRTC_LINE_COMPARE] | (over & 0x10u) << 4 | (scan & 0x40u) << 3;
	if (twice)
		f->height = (f->height + 1) / 2;
}

/* Row and line in it of a scan line, and the address where the row begins, with the split screen. */
static u32 row_address(const struct frame *f, u32 line, u32 *ret_in_row)
{
	bool below = line > f->compare;
	u32 from_top = below ? line - f->compare - 1 : line;

	*ret_in_row = from_top % f->char_height;
	return (below ? 0 : f->start) + from_top / f->char_height * f->pitch;
}

/* The four planes' bytes, as they come to the shift registers. */
static u32 cell(const struct vga *v, u32 n)
{
	n %= vga_dispi_on(v) ? VGA_MEMORY_SIZE / 4 : VGA_LEGACY_CELLS;
	return vga_text_cell(v, n, ld32(v->mem + 4 * (size_t)n));
}

static enum vga_kind kind(const struct vga *v)
{
	if (!(v->attr_index & ATTR_PAS) || (!vga_dispi_on(v) && v->seq[SEQ_CLOCK] & SEQ_CLOCK_OFF))
		return VGA_BLANK;
	if (vga_dispi_on(v))
		return VGA_GRAPHICS;
	return v->gfx[GFX_MISC] & GFX_MISC_GRAPHICS || v->attr[ATTR_MODE] & ATTR_MODE_GRAPHICS ? VGA_GRAPHICS
											       : VGA_TEXT;
}

/* ---- colours ---- */

static u32 dac_colour(const struct vga *v, u8 index)
{
	const u8 *c = &v->dac[3 * (index & v->dac_mask)];
	bool wide = v->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC;
	u32 rgb = 0;

	for (unsigned k = 0; k < 3; k++)
		rgb = rgb << 8 | (wide ? c[k] : (u32)(c[k] & 0x3f) << 2 | (c[k] & 0x3f) >> 4);
	return rgb;
}

/* A pixel of four bits through the attribute controller [VGA, attribute controller]. */
static u32 attr_colour(const struct vga *v, u8 index)
{
	u8 entry = v->attr[index & v->attr[ATTR_PLANES] & 0xf] & 0x3f, select = v->attr[ATTR_COLOUR];

	if (v->attr[ATTR_MODE] & ATTR_MODE_P54)
		entry = (entry & 0x0f) | (u8)((select & 3) << 4);
	return dac_colour(v, entry | (u8)((select & 0xc) << 4));
}

static void get_palette(const struct vga *v, u32 palette[16])
{
	for (unsigned i = 0; i < 16; i++)
		palette[i] = attr_colour(v, (u8)i);
}

/* ---- text ---- */

static u32 text_rows(const struct frame *f)
{
	return MIN(MAX(f->height / f->char_height, 1u), (u32)VGA_MAX_ROWS);
}

static void get_cursor(const struct vga *v, const struct frame *f, struct vga_text *t)
{
	const u8 *c = v->crtc;
	u32 at = ((u32)c[CRTC_CURSOR_HI] << 8 | c[CRTC_CURSOR_LO]) - f->start;

	if (c[CRTC_CURSOR_START] & 0x20 || (c[CRTC_CURSOR_START] & 0x1f) > (c[CRTC_CURSOR_END] & 0x1f) ||
	    !f->pitch)
		return;
	t->cursor_row = at / f->pitch;
	t->cursor_column = at % f->pitch;
	t->cursor_on = t->cursor_row < t->rows && t->cursor_column < t->columns;
	if (!t->cursor_on)
		t->cursor_row = t->cursor_column = 0;
}

static void get_text(const struct vga *v, struct vga_text *t)
{
	struct frame f;

	get_frame(v, &f);
	t->columns = f.columns;
	t->rows = text_rows(&f);
	t->blink = v->attr[ATTR_MODE] & ATTR_MODE_BLINK;
	get_palette(v, t->palette);
	get_cursor(v, &f, t);
	for (u32 y = 0; y < t->rows; y++) {
		u32 in_row, at = row_address(&f, y * f.char_height, &in_row);

		for (u32 x = 0; x < t->columns; x++)
			t->cell[y * t->columns + x] = (u16)cell(v, at + x);
	}
}

/* Where the font begins in plane 2, by bit 3 of the attribute [VGA, character map select]. */
static u32 font_start(const struct vga *v, bool first)
{
	u8 s = v->seq[SEQ_FONT];
	unsigned map = first ? (s >> 2 & 3u) | (s >> 3 & 4u) : (s & 3u) | (s >> 2 & 4u);

	return (map & 3) * 0x4000 + (map & 4 ? 0x2000 : 0);
}

static unsigned text_dots(const struct vga *v)
{
	return v->seq[SEQ_CLOCK] & SEQ_CLOCK_8DOTS ? 8 : 9;
}

static void draw_text_line(const struct vga *v, const struct frame *f, const u32 palette[16], u32 line,
			   u32 *out)
{
	u32 in_row, at = row_address(f, line, &in_row);
	unsigned dots = text_dots(v);
	u8 mode = v->attr[ATTR_MODE], under = v->crtc[CRTC_UNDERLINE] & 0x1f;

	for (u32 x = 0; x < f->columns; x++) {
		u16 c = (u16)cell(v, at + x);
		u8 attr = c >> 8;
		u32 fore = palette[attr & 0xf],
		    back = palette[mode & ATTR_MODE_BLINK ? attr >> 4 & 7 : attr >> 4];
		u32 from = font_start(v, attr & 8) + 32 * (c & 0xffu) + in_row;
		unsigned bits = (cell(v, from) >> 16 & 0xff) << 1;

		if (mode & ATTR_MODE_LINE && (c & 0xe0) == 0xc0)
			bits |= bits >> 1 & 1;
		if (in_row == under && (attr & 7) == 1 && mode & ATTR_MODE_MONO)
			bits = 0x1ff;
		for (unsigned i = 0; i < dots; i++)
			*out++ = bits >> (8 - i) & 1 ? fore : back;
	}
}

/* ---- the VGA's graphics modes ---- */

/* Row-scan bits take the place of address bits 13 and 14 [VGA, CRT mode control]: of the word address here, as memory is
 * dense (vga_int.h). */
static u32 scan_address(const struct vga *v, u32 at, u32 in_row)
{
	u8 mode = v->crtc[CRTC_MODE];
	unsigned shift = mode & 0x40 ? 13 : 12;

	if (!(mode & 1))
		at = (at & ~(1u << shift)) | (in_row & 1) << shift;
	if (!(mode & 2))
		at = (at & ~(2u << shift)) | (in_row >> 1 & 1) << (shift + 1);
	return at;
}

static bool lines_repeat(const struct vga *v)
{
	return (v->crtc[CRTC_MODE] & 3) == 3;
}

/* Eight dots of 4 bits from the planes, by the shift register's mode [VGA, graphics mode register]. */
static void eight_dots(const struct vga *v, u32 planes, const u32 palette[16], u32 *out)
{
	if (v->gfx[GFX_MODE] & 0x20) {
		/* Pairs of bits: four dots from planes 0 and 2, then four from 1 and 3. */
		for (unsigned i = 0; i < 8; i++) {
			u32 pair = planes >> (i & 4 ? 8 : 0) >> (6 - 2 * (i & 3));

			out[i] = palette[(pair & 3) | (pair >> 14 & 0xc)];
		}
		return;
	}
	for (unsigned i = 0; i < 8; i++) {
		u32 bits = planes >> (7 - i);

		out[i] = palette[(bits & 1) | (bits >> 7 & 2) | (bits >> 14 & 4) | (bits >> 21 & 8)];
	}
}

static void draw_graphics_line(const struct vga *v, const struct frame *f, const u32 palette[16], u32 line,
			       u32 *out)
{
	u32 in_row, at = row_address(f, line, &in_row);
	bool bytes = v->gfx[GFX_MODE] & 0x40;

	for (u32 x = 0; x < f->columns; x++) {
		u32 planes = cell(v, scan_address(v, at + x, in_row));

		if (bytes) { /* 256 colours: a byte of each plane is a pixel of two dots */
			for (unsigned i = 0; i < 4; i++)
				*out++ = dac_colour(v, (u8)(planes >> 8 * i));
		} else {
			eight_dots(v, planes, palette, out);
			out += 8;
		}
	}
}

/* ---- modes of the display interface ---- */

static u32 packed_pixel(const struct vga *v, const u8 *p)
{
	u32 c;

	switch (v->dispi[DISPI_BPP]) {
	case 8: return dac_colour(v, *p);
	case 15:
		c = ld16(p);
		return (c & 0x7c00) << 9 | (c & 0x7000) << 4 | (c & 0x3e0) << 6 | (c & 0x380) << 1 |
		       (c & 0x1f) << 3 | (c & 0x1c) >> 2;
	case 16:
		c = ld16(p);
		return (c & 0xf800) << 8 | (c & 0xe000) << 3 | (c & 0x7e0) << 5 | (c & 0x600) >> 1 |
		       (c & 0x1f) << 3 | (c & 0x1c) >> 2;
	default: return p[0] | (u32)p[1] << 8 | (u32)p[2] << 16;
	}
}

static void draw_dispi_line(const struct vga *v, const u32 palette[16], u32 line, u32 *out)
{
	const u16 *d = v->dispi;
	size_t at = (size_t)(d[DISPI_Y_OFFSET] + line) * vga_dispi_pitch(v);
	unsigned bytes = (d[DISPI_BPP] + 7u) / 8;

	if (d[DISPI_BPP] == 4) {
		for (u32 x = 0; x < d[DISPI_XRES]; x += 8)
			eight_dots(v, cell(v, (u32)(at + (d[DISPI_X_OFFSET] + x) / 8)), palette, out + x);
		return;
	}
	at += (size_t)d[DISPI_X_OFFSET] * bytes;
	for (u32 x = 0; x < d[DISPI_XRES]; x++, at += bytes)
		out[x] = at + bytes <= VGA_MEMORY_SIZE ? packed_pixel(v, v->mem + at) : 0;
}

/* ---- all of them ---- */

/* How large the picture is, and what the CRT controller says of it. A blank screen is as large as the one before. */
static void get_size(const struct vga *v, struct frame *f, bool text, u32 *ret_width, u32 *ret_height)
{
	if (vga_dispi_on(v)) {
		*ret_width = v->dispi[DISPI_XRES];
		*ret_height = v->dispi[DISPI_YRES];
		return;
	}
	get_frame(v, f);
	if (text) {
		*ret_width = f->columns * text_dots(v);
		*ret_height = text_rows(f) * f->char_height;
		return;
	}
	if (lines_repeat(v)) {
		f->height = MAX(f->height / f->char_height, 1u);
		f->compare /= f->char_height;
		f->char_height = 1;
	}
	*ret_width = f->columns * (v->gfx[GFX_MODE] & 0x40 ? 4 : 8);
	*ret_height = f->height;
}

void vga_screen_look(struct device *dev, struct vga_text *ret)
{
	struct vga *v = container_of(dev, struct vga, dev);
	struct frame f;

	memset(ret, 0, offsetof(struct vga_text, cell));
	vm_settle(dev->vm);
	pthread_mutex_lock(dev->lock);
	ret->kind = kind(v);
	get_size(v, &f, ret->kind == VGA_TEXT, &ret->width, &ret->height);
	if (ret->kind == VGA_TEXT)
		get_text(v, ret);
	pthread_mutex_unlock(dev->lock);
}

static void draw(const struct vga *v, enum vga_kind what, const struct frame *f, u32 width, u32 height,
		 u32 *out)
{
	u32 palette[16];

	get_palette(v, palette);
	for (u32 y = 0; y < height; y++, out += width) {
		if (what == VGA_TEXT)
			draw_text_line(v, f, palette, y, out);
		else if (vga_dispi_on(v))
			draw_dispi_line(v, palette, y, out);
		else
			draw_graphics_line(v, f, palette, y, out);
	}
}

int vga_screen_pixels(struct device *dev, u32 *ret_width, u32 *ret_height, u32 **ret_pixels, struct err *err)
{
	struct vga *v = container_of(dev, struct vga, dev);
	u32 width, height, *pixels;
	enum vga_kind what;
	struct frame f;

	vm_settle(dev->vm);
	pthread_mutex_lock(dev->lock);
	what = kind(v);
	get_size(v, &f, what == VGA_TEXT, &width, &height);
	pixels = calloc((size_t)width * height, sizeof(*pixels));
	if (pixels && what != VGA_BLANK)
		draw(v, what, &f, width, height, pixels);
	pthread_mutex_unlock(dev->lock);
	if (!pixels)
		return err_set(err, -ENOMEM, "no memory for a picture of %u by %u pixels", width, height);
	*ret_width = width;
	*ret_height = height;
	*ret_pixels = pixels;
	return 0;
}
