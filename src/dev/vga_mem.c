/* The display adapter's memory as the guest sees it: planes, latches, write and read modes; the linear frame buffer.
 *
 * Document: IBM Personal System/2 Hardware Interface Technical Reference, Video Subsystem ("[VGA]").
 *
 * Each byte the guest writes goes through the graphics controller: rotated, replaced by set/reset, combined with the latches by
 * a function, under a bit mask, into the planes of the map mask. All four planes are one 32-bit word here, so that is a few
 * operations. Accesses come in up to eight bytes; text and packed pixels, where the graphics controller changes nothing, have a
 * short way.
 *
 * Threads: vCPUs, under the device's lock.
 */
#include <string.h>

#include "base/bits.h"
#include "dev/vga_int.h"

#define ALL_PLANES 0x01010101u

/* Four bits to four bytes. */
static u32 spread(u8 planes)
{
	u32 v = planes & 0xfu;

	v = (v | v << 14) & 0x00030003;
	v = (v | v << 7) & ALL_PLANES;
	return v * 0xff;
}

/* Where in the window's memory addr is, as the memory map select says; false: it is not decoded. */
static bool decode(const struct vga *v, u64 offset, u32 *ret_addr)
{
	static const struct {
		u32 base, len;
	} map[4] = { { 0, 0x20000 }, { 0, 0x10000 }, { 0x10000, 0x8000 }, { 0x18000, 0x8000 } };
	unsigned select = v->gfx[GFX_MISC] >> 2 & 3;

	if (!(v->misc & MISC_RAM) || offset < map[select].base ||
	    offset - map[select].base >= map[select].len)
		return false;
	*ret_addr = (u32)(offset - map[select].base);
	return true;
}

/* The four planes' bytes number n. */
static u8 *cell(const struct vga *v, u32 n)
{
	if (vga_dispi_on(v))
		n = (n + v->dispi[DISPI_BANK] * 0x10000u) % (VGA_MEMORY_SIZE / 4);
	else
		n %= VGA_LEGACY_CELLS;
	return v->mem + 4 * (size_t)n;
}

static u8 *packed(const struct vga *v, u32 addr)
{
	return v->mem + (addr + v->dispi[DISPI_BANK] * 0x10000u) % VGA_MEMORY_SIZE;
}

/* What the graphics controller makes of a byte of the guest [VGA, graphics mode register]. */
static u32 combine(const struct vga *v, u8 val)
{
	const u8 *g = v->gfx;
	unsigned rotate = g[GFX_ROTATE] & 7;
	u32 data, mask = g[GFX_BIT_MASK] * ALL_PLANES;

	switch (g[GFX_MODE] & 3) {
	case 1: return v->latch;
	case 0:
		data = (u8)(val >> rotate | val << (8 - rotate)) * ALL_PLANES;
		data = (data & ~spread(g[GFX_ENABLE_SR])) |
		       (spread(g[GFX_SET_RESET]) & spread(g[GFX_ENABLE_SR]));
		break;
	case 2: data = spread(val); break;
	default:
		mask &= (u8)(val >> rotate | val << (8 - rotate)) * ALL_PLANES;
		data = spread(g[GFX_SET_RESET]);
		break;
	}
	switch (g[GFX_ROTATE] >> 3 & 3) {
	case 0: break;
	case 1: data &= v->latch; break;
	case 2: data |= v->latch; break;
	default: data ^= v->latch; break;
	}
	return (data & mask) | (v->latch & ~mask);
}

static void write_byte(struct vga *v, u32 addr, u8 val)
{
	u8 planes = v->seq[SEQ_MAP_MASK], memory = v->seq[SEQ_MEMORY];
	u32 mask, old;
	u8 *p;

	if (vga_dispi_packed(v)) {
		*packed(v, addr) = val;
		return;
	}
	if (memory & SEQ_MEMORY_CHAIN4) {
		planes &= (u8)(1u << (addr & 3));
		p = cell(v, addr >> 2);
	} else if (!(memory & SEQ_MEMORY_LINEAR)) {
		planes &= addr & 1 ? 0xa : 0x5;
		p = cell(v, addr >> 1);
	} else {
		p = cell(v, addr);
	}
	mask = spread(planes);
	old = ld32(p);
	st32(p, (old & ~mask) | (combine(v, val) & mask));
}

static u8 read_byte(struct vga *v, u32 addr)
{
	const u8 *g = v->gfx;
	u32 differ;

	if (vga_dispi_packed(v))
		return *packed(v, addr);
	if (v->seq[SEQ_MEMORY] & SEQ_MEMORY_CHAIN4) {
		v->latch = ld32(cell(v, addr >> 2));
		return (u8)(v->latch >> 8 * (addr & 3));
	}
	if (g[GFX_MODE] & GFX_MODE_ODDEVEN) {
		v->latch = ld32(cell(v, addr >> 1));
		return (u8)(v->latch >> 8 * ((g[GFX_READ_MAP] & 2) | (addr & 1)));
	}
	v->latch = ld32(cell(v, addr));
	if (!(g[GFX_MODE] & GFX_MODE_READ))
		return (u8)(v->latch >> 8 * (g[GFX_READ_MAP] & 3));
	/* Read mode 1: a bit is set where the planes that count have the colour asked for. */
	differ = (v->latch ^ spread(g[GFX_COMPARE])) & spread(g[GFX_DONT_CARE]);
	differ |= differ >> 16;
	return (u8) ~(differ | differ >> 8);
}

/* The graphics controller passes bytes on as they are. */
static bool is_plain(const struct vga *v)
{
	const u8 *g = v->gfx;

	return !(g[GFX_MODE] & 3) && !(g[GFX_ENABLE_SR] & 0xf) && !g[GFX_ROTATE] && g[GFX_BIT_MASK] == 0xff;
}

static bool is_text(const struct vga *v)
{
	return !(v->seq[SEQ_MEMORY] & (SEQ_MEMORY_CHAIN4 | SEQ_MEMORY_LINEAR)) &&
	       v->gfx[GFX_MODE] & GFX_MODE_ODDEVEN && (v->seq[SEQ_MAP_MASK] & 3) == 3 &&
	       !(v->gfx[GFX_READ_MAP] & 2);
}

bool vga_mem_is_text(const struct vga *v)
{
	return v->misc & MISC_RAM && (v->gfx[GFX_MISC] >> 2 & 3) == 3 && is_plain(v) && is_text(v) &&
	       !(v->seq[SEQ_MAP_MASK] & 0xc) && !vga_dispi_on(v);
}

static bool is_chain4(const struct vga *v)
{
	return v->seq[SEQ_MEMORY] & SEQ_MEMORY_CHAIN4 && (v->seq[SEQ_MAP_MASK] & 0xf) == 0xf;
}

/* A run of memory that holds the guest's bytes as they are, or NULL. */
static u8 *straight(const struct vga *v, u32 addr, unsigned size)
{
	if (vga_dispi_packed(v))
		return packed(v, addr) + size <= v->mem + VGA_MEMORY_SIZE ? packed(v, addr) : NULL;
	return is_chain4(v) && addr % 4 + size <= 4 ? cell(v, addr >> 2) + addr % 4 : NULL;
}

static u64 window_read(void *opaque, u64 offset, unsigned size)
{
	struct vga *v = opaque;
	u64 val = 0;
	u32 addr;
	u8 *p;

	if (vga_text_access(v))
		return vga_text_read(v, offset, size);
	if (!decode(v, offset, &addr))
		return bits_mask(size);
	p = straight(v, addr, size);
	if (p) {
		memcpy(&val, p, size);
		if (!vga_dispi_packed(v))
			v->latch = ld32(cell(v, addr >> 2));
		return val;
	}
	if (size >= 2 && !(addr & 1) && is_text(v)) {
		for (unsigned i = 0; i < size; i += 2)
			val |= (u64)ld16(cell(v, (addr + i) >> 1)) << 8 * i;
		v->latch = ld32(cell(v, (addr + size - 2) >> 1));
		return val;
	}
	for (unsigned i = 0; i < size; i++)
		val |= (u64)read_byte(v, addr + i) << 8 * i;
	return val;
}

static void window_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct vga *v = opaque;
	u32 addr;
	u8 *p;

	if (vga_text_access(v)) {
		vga_text_write(v, offset, size, val);
		return;
	}
	if (!decode(v, offset, &addr))
		return;
	if (vga_dispi_packed(v) || is_plain(v)) {
		p = straight(v, addr, size);
		if (p) {
			memcpy(p, &val, size);
			return;
		}
		if (size >= 2 && !(addr & 1) && is_text(v) && !(v->seq[SEQ_MAP_MASK] & 0xc)) {
			for (unsigned i = 0; i < size; i += 2)
				st16(cell(v, (addr + i) >> 1), (u16)(val >> 8 * i));
			return;
		}
	}
	for (unsigned i = 0; i < size; i++)
		write_byte(v, addr + i, (u8)(val >> 8 * i));
}

static u64 frame_buffer_read(void *opaque, u64 offset, unsigned size)
{
	struct vga *v = opaque;
	u64 val = 0;

	vga_text_leave(v);
	memcpy(&val, v->mem + offset, MIN(size, VGA_MEMORY_SIZE - offset));
	return val;
}

static void frame_buffer_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct vga *v = opaque;

	vga_text_leave(v);
	memcpy(v->mem + offset, &val, MIN(size, VGA_MEMORY_SIZE - offset));
}

static bool window_late(void *opaque, u64 offset, struct bus_late *ret_late)
{
	*ret_late = (struct bus_late){ .posted = true, .len = VGA_WINDOW_SIZE };
	return true;
}

static bool frame_buffer_late(void *opaque, u64 offset, struct bus_late *ret_late)
{
	*ret_late = (struct bus_late){ .posted = true, .len = VGA_MEMORY_SIZE };
	return true;
}

const struct region_ops vga_mem_window_ops = {
	.read = window_read, .write = window_write, .max_size = 8, .late = window_late
};
const struct region_ops vga_mem_frame_ops = {
	.read = frame_buffer_read, .write = frame_buffer_write, .max_size = 8, .late = frame_buffer_late
};
