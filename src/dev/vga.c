/* A VGA with a linear frame buffer: registers, ports, and its PCI function.
 *
 * Documents: IBM Personal System/2 Hardware Interface Technical Reference, Video Subsystem ("[VGA]"); for what goes beyond a
 * VGA see vga_dispi.c. The parts: vga_mem.c is the memory as the guest writes it, vga_screen.c what is seen of it.
 *
 * Ports 3B0H-3DFH and, for the display interface, 1CEH-1D0H. PCI function 1234:1111: BAR 0 is the memory, BAR 2 has the ports
 * from 3C0H on at 400H and the display interface's registers at 500H. Legacy ports and the window at A0000H answer whatever
 * the PCI command register says, so that a guest that knows no PCI has its screen.
 *
 * The beam exists only where a guest can look at it: input status 1 is computed from guest time, 70 pictures per second.
 *
 * Omitted, and why that is safe: the interrupt at vertical retrace, which no driver uses; timing registers are kept and read
 * back, without effect; input status 0 (switch sense) says that a colour monitor is there. Memory is not in the list of the
 * state: whoever saves machines copies it as memory.
 *
 * Threads: vCPUs, under the device's lock; vga_set_*() on the main thread while none runs.
 */
#include "dev/vga.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "dev/vga_int.h"
#include "vm/clock.h"
#include "vm/vm.h"

#define DISPI_PORT 0x1ce
#define FRAME_NS   14285714ull /* 70 Hz */
#define LINE_NS    31777ull
#define NO_PORT    0xff

#define MMIO_SIZE       0x1000
#define MMIO_PORTS      0x400
#define MMIO_PORTS_LEN  0x20
#define MMIO_DISPI      0x500
#define MMIO_FIRST_PORT 0x3c0

extern const struct device_ops vga_device;

struct device *vga_find(struct vm *vm)
{
	for (struct device *dev = vm->devices; dev; dev = dev->next)
		if (dev->ops == &vga_device)
			return dev;
	return NULL;
}

/* ---- the digital-to-analog converter's palette ---- */

static void dac_write(struct vga *v, u8 val)
{
	v->dac[3 * v->dac_write + v->dac_part] = v->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC ? val : val & 0x3f;
	if (++v->dac_part == 3) {
		v->dac_part = 0;
		v->dac_write++;
	}
}

static u8 dac_read(struct vga *v)
{
	u8 val = v->dac[3 * v->dac_read + v->dac_part];

	if (++v->dac_part == 3) {
		v->dac_part = 0;
		v->dac_read++;
	}
	return val;
}

/* ---- ports ---- */

static void crtc_write(struct vga *v, u8 val)
{
	unsigned i = v->crtc_index;

	if (i >= CRTC_NR)
		return;
	/* Registers 0 to 7 can be locked, all but a bit of the line compare [VGA, vertical retrace end]. */
	if (v->crtc[CRTC_V_RETRACE_END] & 0x80 && i <= CRTC_OVERFLOW) {
		if (i == CRTC_OVERFLOW)
			v->crtc[i] = (v->crtc[i] & (u8)~0x10) | (val & 0x10);
		return;
	}
	v->crtc[i] = val;
}

static void attr_write(struct vga *v, u8 val)
{
	static const u8 mask[ATTR_NR] = { 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
					  0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0xef, 0xff, 0x3f, 0x0f, 0x0f };
	unsigned i = v->attr_index & 0x1f;

	if (!v->attr_data)
		v->attr_index = val & 0x3f;
	else if (i < ATTR_NR)
		v->attr[i] = val & mask[i];
	v->attr_data = !v->attr_data;
}

/* Vertical retrace, and whether the beam draws [VGA, input status register 1]. */
static u8 input_status1(struct vga *v)
{
	u64 at = clock_now(v->dev.vm) % FRAME_NS;
	bool retrace = at > FRAME_NS - FRAME_NS / 12, blank = at % LINE_NS > LINE_NS * 4 / 5;

	v->attr_data = false;
	return (u8)(retrace << 3 | (retrace || blank));
}

static bool is_colour(const struct vga *v)
{
	return v->misc & MISC_COLOUR;
}

static u8 port_read(struct vga *v, u16 port)
{
	/* The CRT controller is at 3B4H or at 3D4H, never at both. */
	if ((port & 0xfff0) == (is_colour(v) ? 0x3b0 : 0x3d0))
		return NO_PORT;
	switch (port) {
	case 0x3b4:
	case 0x3d4: return v->crtc_index;
	case 0x3b5:
	case 0x3d5: return v->crtc_index < CRTC_NR ? v->crtc[v->crtc_index] : 0;
	case 0x3ba:
	case 0x3da: return input_status1(v);
	case 0x3c0: return v->attr_index;
	case 0x3c1: return (v->attr_index & 0x1f) < ATTR_NR ? v->attr[v->attr_index & 0x1f] : 0;
	case 0x3c2: return 0x10;
	case 0x3c4: return v->seq_index;
	case 0x3c5: return v->seq_index < SEQ_NR ? v->seq[v->seq_index] : 0;
	case 0x3c6: return v->dac_mask;
	case 0x3c7: return v->dac_reading ? 3 : 0;
	case 0x3c8: return v->dac_write;
	case 0x3c9: return dac_read(v);
	case 0x3ca: return v->feature;
	case 0x3cc: return v->misc;
	case 0x3ce: return v->gfx_index;
	case 0x3cf: return v->gfx_index < GFX_NR ? v->gfx[v->gfx_index] : 0;
	default: return NO_PORT;
	}
}

static void port_write(struct vga *v, u16 port, u8 val)
{
	static const u8 seq_mask[SEQ_NR] = { 0x03, 0x3d, 0x0f, 0x3f, 0x0e };
	static const u8 gfx_mask[GFX_NR] = { 0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff };

	if ((port & 0xfff0) == (is_colour(v) ? 0x3b0 : 0x3d0))
		return;
	switch (port) {
	case 0x3b4:
	case 0x3d4: v->crtc_index = val & 0x3f; break;
	case 0x3b5:
	case 0x3d5: crtc_write(v, val); break;
	case 0x3ba:
	case 0x3da: v->feature = val & 0x0b; break;
	case 0x3c0: attr_write(v, val); break;
	case 0x3c2: v->misc = val & 0xef; break;
	case 0x3c4: v->seq_index = val & 7; break;
	case 0x3c5:
		if (v->seq_index < SEQ_NR)
			v->seq[v->seq_index] = val & seq_mask[v->seq_index];
		break;
	case 0x3c6: v->dac_mask = val; break;
	case 0x3c7:
		v->dac_read = val;
		v->dac_part = 0;
		v->dac_reading = true;
		break;
	case 0x3c8:
		v->dac_write = val;
		v->dac_part = 0;
		v->dac_reading = false;
		break;
	case 0x3c9: dac_write(v, val); break;
	case 0x3ce: v->gfx_index = val & 0x0f; break;
	case 0x3cf:
		if (v->gfx_index < GFX_NR)
			v->gfx[v->gfx_index] = val & gfx_mask[v->gfx_index];
		break;
	default: break;
	}
	if (v->text_in_ram && !vga_mem_is_text(v))
		vga_text_leave(v);
}

static const struct {
	const char *name;
	u16 base, len;
} ports[VGA_NR_PORTS] = {
	{ "VGA CRTC (mono)", 0x3b4, 2 },
	{ "VGA status (mono)", 0x3ba, 1 },
	{ "VGA", 0x3c0, 16 },
	{ "VGA CRTC", 0x3d4, 2 },
	{ "VGA status", 0x3da, 1 },
	{ "VGA display interface", DISPI_PORT, 3 },
};

/* A region's functions get where it begins along with the device: one pair for each, made here. */
#define PORTS(x, first)                                                         \
	static u64 read_##x(void *opaque, u64 offset, unsigned size)            \
	{                                                                       \
		return port_read(opaque, (u16)((first) + offset));              \
	}                                                                       \
	static void write_##x(void *opaque, u64 offset, unsigned size, u64 val) \
	{                                                                       \
		port_write(opaque, (u16)((first) + offset), (u8)val);           \
	}
PORTS(mono_crtc, 0x3b4)
PORTS(mono_status, 0x3ba)
PORTS(vga, 0x3c0)
PORTS(crtc, 0x3d4)
PORTS(status, 0x3da)
#undef PORTS

/* Index and data, 16 bits each, at neighbouring ports [DISPI]. */
static u64 read_dispi(void *opaque, u64 offset, unsigned size)
{
	const struct vga *v = opaque;

	if (size != 2)
		return NO_PORT;
	return offset ? vga_dispi_read(v, v->dispi_index) : v->dispi_index;
}

static void write_dispi(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct vga *v = opaque;

	if (size != 2)
		return;
	if (offset)
		vga_dispi_write(v, v->dispi_index, (u16)val);
	else
		v->dispi_index = (u16)val;
}

static const struct region_ops port_ops[VGA_NR_PORTS] = {
	{ .read = read_mono_crtc, .write = write_mono_crtc, .max_size = 1 },
	{ .read = read_mono_status, .write = write_mono_status, .max_size = 1 },
	{ .read = read_vga, .write = write_vga, .max_size = 1 },
	{ .read = read_crtc, .write = write_crtc, .max_size = 1 },
	{ .read = read_status, .write = write_status, .max_size = 1 },
	{ .read = read_dispi, .write = write_dispi, .max_size = 2 },
};

/* ---- PCI ---- */

static u64 mmio_read(void *opaque, u64 offset, unsigned size)
{
	struct vga *v = opaque;

	if (offset >= MMIO_PORTS && offset < MMIO_PORTS + MMIO_PORTS_LEN) {
		u64 val = port_read(v, (u16)(MMIO_FIRST_PORT + offset - MMIO_PORTS));

		if (size == 2)
			val |= (u64)port_read(v, (u16)(MMIO_FIRST_PORT + 1 + offset - MMIO_PORTS)) << 8;
		return val;
	}
	if (offset >= MMIO_DISPI && offset < MMIO_DISPI + 2 * DISPI_NR && size == 2 && !(offset & 1))
		return vga_dispi_read(v, (unsigned)(offset - MMIO_DISPI) / 2);
	return 0; /* no EDID, no extensions */
}

static void mmio_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct vga *v = opaque;

	if (offset >= MMIO_PORTS && offset < MMIO_PORTS + MMIO_PORTS_LEN) {
		for (unsigned i = 0; i < size; i++)
			port_write(v, (u16)(MMIO_FIRST_PORT + i + offset - MMIO_PORTS), (u8)(val >> 8 * i));
	} else if (offset >= MMIO_DISPI && offset < MMIO_DISPI + 2 * DISPI_NR && size == 2 && !(offset & 1)) {
		vga_dispi_write(v, (unsigned)(offset - MMIO_DISPI) / 2, (u16)val);
	}
}

static u64 rom_read(void *opaque, u64 offset, unsigned size)
{
	const struct vga *v = opaque;
	u64 val = bits_mask(size);

	if (offset < v->rom_len)
		memcpy(&val, v->rom + offset, MIN(size, v->rom_len - offset));
	return val;
}

static void rom_write(void *opaque, u64 offset, unsigned size, u64 val)
{
}

static const struct region_ops mmio_ops = { .read = mmio_read, .write = mmio_write, .max_size = 2 };
static const struct region_ops rom_ops = { .read = rom_read, .write = rom_write, .max_size = 8 };

static int add_function(struct vga *v, struct err *err)
{
	const struct pci_id id = {
		.vendor = 0x1234,
		.device = 0x1111,
		.subsystem_vendor = 0x1af4,
		.subsystem = 0x1100,
		.class_code = 0x030000,
		.revision = 2,
	};
	struct device *bus = pci_find(v->dev.vm);
	int r;

	if (!bus)
		return err_set(err, -ENODEV, "a display adapter needs a PCI bus");
	pci_dev_init(&v->pci, &v->dev, &id);
	r = pci_dev_add_bar(&v->pci, 0, PCI_BAR_MEM32, VGA_MEMORY_SIZE, &vga_mem_frame_ops, v);
	if (r == 0)
		r = pci_dev_add_bar(&v->pci, 2, PCI_BAR_MEM32, MMIO_SIZE, &mmio_ops, v);
	if (r == 0 && v->rom)
		r = pci_dev_add_rom(&v->pci, VGA_ROM_SIZE, &rom_ops, v);
	if (r < 0)
		return err_sys(err, r, "the display adapter's BARs cannot be made");
	v->pci.init[PCI_BAR0] |= 8; /* prefetchable */
	v->pci.config[PCI_BAR0] |= 8;
	return pci_add(bus, &v->pci, VGA_PCI_SLOT, 0, err);
}

/* ---- the device ---- */

static int vga_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct vga *v = container_of(dev, struct vga, dev);
	struct bus *bus = &dev->vm->bus;
	void *mem;
	int r = 0;

	v->rom = conf->rom;
	v->rom_len = conf->rom_len;
	mem = mmap(NULL, VGA_MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		   -1, 0);
	if (mem == MAP_FAILED)
		return err_sys(err, -errno, "no memory for the display adapter");
	v->mem = mem;
	madvise(mem, VGA_MEMORY_SIZE, MADV_NOHUGEPAGE); /* text and its font are a few pages */
	for (unsigned i = 0; i < VGA_NR_PORTS && r == 0; i++) {
		v->port[i] = (struct region){ ports[i].name, &port_ops[i],  v,           dev->lock,
					      BUS_PIO,       ports[i].base, ports[i].len };
		r = bus_add(bus, &v->port[i]);
	}
	v->window = (struct region){ "VGA memory",    &vga_mem_window_ops, v, dev->lock, BUS_MMIO,
				     VGA_WINDOW_BASE, VGA_WINDOW_SIZE };
	if (r == 0)
		r = bus_add(bus, &v->window);
	if (r < 0)
		return err_sys(err, r, "cannot place the display adapter");
	return add_function(v, err);
}

static void vga_reset(struct device *dev, enum reset_kind kind)
{
	struct vga *v = container_of(dev, struct vga, dev);

	vga_text_leave(v);
	v->text_accesses = 0;
	v->misc = v->feature = 0;
	v->seq_index = v->gfx_index = v->crtc_index = v->attr_index = 0;
	v->attr_data = v->dac_reading = false;
	v->dac_read = v->dac_write = v->dac_part = 0;
	v->dac_mask = 0xff;
	v->latch = 0;
	memset(v->seq, 0, sizeof(v->seq));
	memset(v->gfx, 0, sizeof(v->gfx));
	memset(v->crtc, 0, sizeof(v->crtc));
	memset(v->attr, 0, sizeof(v->attr));
	memset(v->dac, 0, sizeof(v->dac));
	vga_dispi_reset(v);
	pci_dev_reset(&v->pci);
	madvise(v->mem, VGA_MEMORY_SIZE, MADV_DONTNEED); /* zeros again */
}

static bool dispi_is_possible(const struct vga *v)
{
	const u16 *d = v->dispi;
	u32 line = vga_dispi_pitch(v), depth = d[DISPI_BPP];
	u32 memory = depth == 4 ? VGA_MEMORY_SIZE / 4 : VGA_MEMORY_SIZE;

	if (d[DISPI_XRES] > DISPI_MAX_XRES || d[DISPI_XRES] % 8 || d[DISPI_YRES] > DISPI_MAX_YRES ||
	    (depth != 4 && depth != 8 && depth != 15 && depth != 16 && depth != 24 && depth != 32) ||
	    d[DISPI_BANK] >= VGA_MEMORY_SIZE / (64 * KiB))
		return false;
	return !vga_dispi_on(v) ||
	       (d[DISPI_XRES] && d[DISPI_YRES] && d[DISPI_VIRT_WIDTH] >= d[DISPI_XRES] &&
		d[DISPI_X_OFFSET] <= d[DISPI_VIRT_WIDTH] - d[DISPI_XRES] && d[DISPI_VIRT_WIDTH] % 8 == 0 &&
		(u64)line * (d[DISPI_Y_OFFSET] + (u32)d[DISPI_YRES]) <= memory);
}

static int vga_post_load(struct device *dev, struct err *err)
{
	struct vga *v = container_of(dev, struct vga, dev);

	if (v->dac_part > 2 || !dispi_is_possible(v) || vga_text_post_load(v) < 0)
		return err_set(err, -EINVAL,
			       "the state of the display adapter holds a mode that it cannot have");
	return pci_dev_post_load(&v->pci, err);
}

static void vga_fini(struct device *dev)
{
	struct vga *v = container_of(dev, struct vga, dev);

	pci_del(&v->pci);
	bus_del(&dev->vm->bus, &v->window);
	for (unsigned i = 0; i < VGA_NR_PORTS; i++)
		bus_del(&dev->vm->bus, &v->port[i]);
	if (v->mem)
		munmap(v->mem, VGA_MEMORY_SIZE);
}

/* ---- as firmware leaves it ---- */

void vga_set_text_mode(struct device *dev)
{
	/* Mode 3 with 720 x 400 dots [VGA, table of modes]. */
	static const u8 seq[SEQ_NR] = { 0x03, 0x00, 0x03, 0x00, 0x02 };
	static const u8 crtc[CRTC_NR] = { 0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00,
					  0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e,
					  0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff };
	static const u8 gfx[GFX_NR] = { 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff };
	static const u8 attr[ATTR_NR] = { 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
					  0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00 };
	struct vga *v = container_of(dev, struct vga, dev);

	vga_dispi_reset(v);
	v->misc = 0x67;
	memcpy(v->seq, seq, sizeof(seq));
	memcpy(v->crtc, crtc, sizeof(crtc));
	memcpy(v->gfx, gfx, sizeof(gfx));
	memcpy(v->attr, attr, sizeof(attr));
	v->attr_index = ATTR_PAS;
	/* Two bits for each colour: two thirds and one third of the brightness. */
	for (unsigned i = 0; i < 64; i++)
		for (unsigned k = 0; k < 3; k++)
			v->dac[3 * i + k] = (u8)((i >> (2 - k) & 1) * 0x2a + (i >> (5 - k) & 1) * 0x15);
	vga_font_load(v);
	for (u32 n = 0; n < 80 * 25; n++)
		st16(v->mem + 4 * (size_t)n, 0x0720);
}

void vga_set_frame_buffer(struct device *dev, u64 addr, u32 width, u32 height)
{
	struct vga *v = container_of(dev, struct vga, dev);
	struct bus *bus = &dev->vm->bus;
	u64 ecam = PCI_ECAM_BASE + ((u64)v->pci.devfn << 12);

	bus_write(bus, BUS_MMIO, ecam + PCI_BAR0, 4, addr);
	bus_write(bus, BUS_MMIO, ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_IO);
	vga_dispi_write(v, DISPI_ENABLE, 0);
	vga_dispi_write(v, DISPI_XRES, (u16)width);
	vga_dispi_write(v, DISPI_YRES, (u16)height);
	vga_dispi_write(v, DISPI_BPP, 32);
	vga_dispi_write(v, DISPI_ENABLE, DISPI_ENABLED | DISPI_LFB);
	v->attr_index = ATTR_PAS;
}

static const struct state_field vga_state[] = {
	STATE_U8(vga, misc),
	STATE_U8(vga, feature),
	STATE_U8(vga, seq_index),
	STATE_U8(vga, gfx_index),
	STATE_U8(vga, crtc_index),
	STATE_U8(vga, attr_index),
	STATE_BOOL(vga, attr_data),
	STATE_U8S(vga, seq),
	STATE_U8S(vga, gfx),
	STATE_U8S(vga, crtc),
	STATE_U8S(vga, attr),
	STATE_U8S(vga, dac),
	STATE_U8(vga, dac_mask),
	STATE_U8(vga, dac_read),
	STATE_U8(vga, dac_write),
	STATE_U8(vga, dac_part),
	STATE_BOOL(vga, dac_reading),
	STATE_U32(vga, latch),
	STATE_U16(vga, dispi_index),
	STATE_U16S(vga, dispi),
	STATE_BOOL(vga, text_in_ram),
	STATE_U8S(vga, pci.config),
	STATE_END,
};

const struct device_ops vga_device = {
	.name = "vga",
	.size = sizeof(struct vga),
	.init = vga_init,
	.reset = vga_reset,
	.state = vga_state,
	.post_load = vga_post_load,
	.fini = vga_fini,
};
