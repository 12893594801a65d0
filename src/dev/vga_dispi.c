/* The display interface of Bochs: modes without the VGA's registers, up to 2560 x 1600 in 32 bits per pixel.
 *
 * Document: the interface has none but its users; the registers are those that Linux's bochs driver, SeaBIOS's VGA BIOS and
 * OVMF's QemuVideoDxe write ("[DISPI]": VBE_DISPI, version B0C5H).
 *
 * Sixteen-bit registers behind an index. Resolution and depth can be written while the interface is off; switching it on takes
 * them, with everything else at its start, if that many lines fit into the memory, and else does nothing, which the guest sees
 * when it reads the register back.
 *
 * Omitted: EDID, so a guest offers its own list of resolutions. Threads: vCPUs, under the device's lock.
 */
#include <string.h>

#include "dev/vga_int.h"

static u32 virtual_height(const struct vga *v)
{
	u32 line = vga_dispi_pitch(v),
	    memory = v->dispi[DISPI_BPP] == 4 ? VGA_MEMORY_SIZE / 4 : VGA_MEMORY_SIZE;

	return line ? MIN(memory / line, 0xffffu) : 0;
}

u16 vga_dispi_read(const struct vga *v, unsigned index)
{
	bool caps = v->dispi[DISPI_ENABLE] & DISPI_GETCAPS;

	switch (index) {
	case DISPI_XRES: return caps ? DISPI_MAX_XRES : v->dispi[index];
	case DISPI_YRES: return caps ? DISPI_MAX_YRES : v->dispi[index];
	case DISPI_BPP: return caps ? 32 : v->dispi[index];
	case DISPI_MEMORY_64K: return VGA_MEMORY_SIZE / (64 * KiB);
	default: return index < DISPI_NR ? v->dispi[index] : 0;
	}
}

static void write_enable(struct vga *v, u16 val)
{
	u16 *d = v->dispi;

	if (val & DISPI_ENABLED && !vga_dispi_on(v)) {
		vga_text_leave(v);
		d[DISPI_VIRT_WIDTH] = d[DISPI_XRES];
		d[DISPI_VIRT_HEIGHT] = (u16)virtual_height(v);
		d[DISPI_X_OFFSET] = 0;
		d[DISPI_Y_OFFSET] = 0;
		d[DISPI_BANK] = 0;
		if (!d[DISPI_XRES] || !d[DISPI_YRES] || d[DISPI_YRES] > d[DISPI_VIRT_HEIGHT])
			val &= (u16)~DISPI_ENABLED;
		else if (!(val & DISPI_NOCLEARMEM))
			memset(v->mem, 0,
			       (size_t)vga_dispi_pitch(v) * d[DISPI_YRES] * (d[DISPI_BPP] == 4 ? 4 : 1));
	} else if (!(val & DISPI_ENABLED)) {
		d[DISPI_BANK] = 0;
	}
	d[DISPI_ENABLE] =
		val & (DISPI_ENABLED | DISPI_GETCAPS | DISPI_8BIT_DAC | DISPI_LFB | DISPI_NOCLEARMEM);
}

void vga_dispi_write(struct vga *v, unsigned index, u16 val)
{
	u16 *d = v->dispi;

	switch (index) {
	case DISPI_ID:
		if (val >= DISPI_ID0 && val <= DISPI_ID5)
			d[index] = val;
		break;
	case DISPI_XRES:
		if (!vga_dispi_on(v) && val <= DISPI_MAX_XRES && val % 8 == 0)
			d[index] = val;
		break;
	case DISPI_YRES:
		if (!vga_dispi_on(v) && val <= DISPI_MAX_YRES)
			d[index] = val;
		break;
	case DISPI_BPP:
		if (val == 0)
			val = 8;
		if (!vga_dispi_on(v) &&
		    (val == 4 || val == 8 || val == 15 || val == 16 || val == 24 || val == 32))
			d[index] = val;
		break;
	case DISPI_ENABLE: write_enable(v, val); break;
	case DISPI_BANK: d[index] = val % (VGA_MEMORY_SIZE / (64 * KiB)); break;
	case DISPI_VIRT_WIDTH:
		if (vga_dispi_on(v) && val >= d[DISPI_XRES]) {
			u16 old = d[index];

			d[index] = val & (u16)~7u;
			if (virtual_height(v) < d[DISPI_YRES])
				d[index] = old;
			d[DISPI_VIRT_HEIGHT] = (u16)virtual_height(v);
			d[DISPI_X_OFFSET] = MIN(d[DISPI_X_OFFSET], (u16)(d[index] - d[DISPI_XRES]));
			d[DISPI_Y_OFFSET] =
				MIN(d[DISPI_Y_OFFSET], (u16)(d[DISPI_VIRT_HEIGHT] - d[DISPI_YRES]));
		}
		break;
	case DISPI_X_OFFSET:
		if (vga_dispi_on(v) && val <= d[DISPI_VIRT_WIDTH] - d[DISPI_XRES])
			d[index] = val;
		break;
	case DISPI_Y_OFFSET:
		if (vga_dispi_on(v) && val <= d[DISPI_VIRT_HEIGHT] - d[DISPI_YRES])
			d[index] = val;
		break;
	default: break;
	}
}

void vga_dispi_reset(struct vga *v)
{
	memset(v->dispi, 0, sizeof(v->dispi));
	v->dispi[DISPI_ID] = DISPI_ID5;
	v->dispi[DISPI_BPP] = 8;
	v->dispi_index = 0;
}
