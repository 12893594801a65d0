/* The PCI host bridge: configuration space by ports and by ECAM, the windows in which BARs answer, INTx.
 *
 * Documents: PCI Local Bus Specification 3.0, cited as [PCI 6.x] and [PCI 3.2.2.3.2] (configuration
 * mechanism #1); PCI Express Base Specification 3.0, [PCIe 7.2.2] (ECAM); Intel 3 Series chip set data
 * sheet 316966 [Q35 5.1] and ICH9 data sheet 316972 [ICH9 13.x] for the ids and the few registers of the
 * two functions that are here.
 *
 * How it works: an access to configuration space is done byte by byte through the function's write masks,
 * so that any width and alignment is defined. The bus never sees a BAR: it has fixed windows for ports and memory, and an
 * access to one is compared with ECAM, then with the BARs that are decoded now. A BAR outside its window answers nowhere,
 * so that it cannot cover an interrupt controller; where there is RAM, the bus is not asked.
 *
 * INTx: the pins share four lines, which are pins of the I/O APIC. The registers PIRQA_ROUT to PIRQD_ROUT lead each to an input
 * of the 8259A as well [ICH9 13.1.19]. Firmware does that for what it boots; off is what they are after a reset. The other
 * four of their kind have no line here and remember what is written.
 *
 * Locks: configuration space and BARs of a function are its owner's, under the owner's lock;
 * CONFIG_ADDRESS is under this device's; levels of INTx pins under intx_lock, which is below all devices'
 * locks and above vm->intc_lock. The regions have no lock of their own, so that none is held when an
 * owner's is taken.
 *
 * Omitted, and why that is safe: buses other than 0 and bridges to them (they read as absent); the
 * extended configuration space, which a function without extended capabilities does not have (all-ones).
 * ECAM (PCIEXBAR) is on from the start, for guests without firmware, and has all 256 MiB; the base of the ACPI ports
 * (PMBASE) is read-only at what the board uses. Messages (MSI, MSI-X) are in pci_msi.c, shadow RAM is in pam.c.
 *
 * Threads: vCPUs; pci_add() and pci_del() on the main thread while no vCPU runs.
 */
#include "dev/pci.h"

#include <errno.h>

#include "base/bits.h"
#include "dev/intc.h"
#include "dev/pam.h"
#include "dev/pci_msi.h"
#include "dev/pm.h"
#include "vm/irq.h"
#include "vm/vm.h"

#define NR_FUNCTIONS 256
#define NR_PCI_GSI   4
#define NOWHERE      (~0ull)

/* CONFIG_ADDRESS [PCI 3.2.2.3.2] */
#define ADDR_ENABLE   BIT(31)
#define ADDR_WRITABLE 0x80fffffcu

/* Reset control, port CF9H [ICH9 13.7.5] */
#define RST_OFFSET   (PM_RESET_PORT - PCI_CONFIG_PORT)
#define RST_CPU      BIT(2)
#define RST_WRITABLE 0x0eu

#define HEADER_MULTI BIT(7)
#define CAP_FIRST    0x40
#define CAP_NEXT     1
#define ROM_ENABLE   1u

/* PCIEXBAR [Q35 5.1.16] */
#define PCIEXBAR        0x60
#define PCIEXBAR_ENABLE BIT(0)
#define PCIEXBAR_BASE   0xff0000000ull

/* PIRQ[n]_ROUT [ICH9 13.1.19] */
#define PIRQ_A_ROUT   0x60
#define PIRQ_E_ROUT   0x68
#define PIRQ_OFF      BIT(7)
#define PIRQ_WRITABLE 0x8f
#define PIRQ_INPUTS   0xdef8u /* 3 to 7, 9 to 12, 14 and 15 */

enum { WIN_CONFIG, WIN_IO, WIN_MMIO, WIN_HIGH, NR_WINDOWS };

struct pci_host {
	struct device dev;
	struct region window[NR_WINDOWS];
	bool window_added[NR_WINDOWS];
	struct pci_dev *fn[NR_FUNCTIONS];
	u8 present[NR_FUNCTIONS]; /* which of fn[] are there, in order */
	unsigned nr_present;
	struct pci_dev bridge, lpc;
	struct region shadow;
	bool shadow_added;
	_Atomic u64 ecam; /* where it is now, NOWHERE: off */
	pthread_mutex_t intx_lock;
	bool intx_lock_ready;
	u16 asserted[NR_PCI_GSI]; /* how many functions hold the line */

	u32 addr;
	u8 rst;
};

/* Functions */

void pci_dev_init(struct pci_dev *pd, struct device *owner, const struct pci_id *id)
{
	memset(pd, 0, sizeof(*pd));
	pd->owner = owner;
	pd->cap_end = CAP_FIRST;
	for (unsigned i = 0; i < ARRAY_SIZE(pd->bar); i++)
		atomic_store(&pd->bar[i].addr, NOWHERE);
	st16(pd->init + PCI_VENDOR_ID, id->vendor);
	st16(pd->init + PCI_DEVICE_ID, id->device);
	pd->init[PCI_REVISION] = id->revision;
	pd->init[PCI_CLASS_PROG] = (u8)id->class_code;
	st16(pd->init + PCI_CLASS_PROG + 1, (u16)(id->class_code >> 8));
	st16(pd->init + PCI_SUBSYSTEM_VENDOR_ID, id->subsystem_vendor);
	st16(pd->init + PCI_SUBSYSTEM_ID, id->subsystem);
	pd->init[PCI_INT_PIN] = id->int_pin;
	/* Decode, master, parity and SERR enables, INTx disable [PCI 6.2.2]; ones clear errors [PCI
	 * 6.2.3]. */
	st16(pd->wmask + PCI_COMMAND, 0x0547);
	st16(pd->w1c + PCI_STATUS, 0xf900);
	pd->wmask[0x0c] = 0xff; /* cache line size */
	pd->wmask[PCI_INT_LINE] = 0xff;
	memcpy(pd->config, pd->init, sizeof(pd->config));
}

int pci_dev_add_bar(struct pci_dev *pd, unsigned nr, enum pci_bar_kind kind, u64 size,
		    const struct region_ops *ops, void *opaque)
{
	bool wide = kind == PCI_BAR_MEM64;
	u64 min = kind == PCI_BAR_IO ? 4 : 16, max = kind == PCI_BAR_IO ? 256 : PCI_MMIO_SIZE;
	unsigned off = PCI_BAR0 + 4 * nr;

	if (kind == PCI_BAR_NONE || kind == PCI_BAR_ROM || nr + wide >= PCI_NR_BARS ||
	    pd->bar[nr].kind != PCI_BAR_NONE || (wide && pd->bar[nr + 1].kind != PCI_BAR_NONE) ||
	    (nr > 0 && pd->bar[nr - 1].kind == PCI_BAR_MEM64) || !bits_is_pow2(size) || size < min ||
	    size > max)
		return -EINVAL;
	pd->bar[nr].kind = kind;
	pd->bar[nr].size = size;
	pd->bar[nr].ops = ops;
	pd->bar[nr].opaque = opaque;
	/* Type bits [PCI 6.2.5.1]; the bits below the size stay 0, which is how a guest finds it. */
	st32(pd->init + off, kind == PCI_BAR_IO ? 1 : wide ? 4 : 0);
	st32(pd->wmask + off, (u32) ~(size - 1));
	if (wide)
		st32(pd->wmask + off + 4, 0xffffffff);
	memcpy(pd->config + off, pd->init + off, wide ? 8 : 4);
	return 0;
}

int pci_dev_add_rom(struct pci_dev *pd, u64 size, const struct region_ops *ops, void *opaque)
{
	struct pci_bar *rom = &pd->bar[PCI_NR_BARS];

	if (rom->kind != PCI_BAR_NONE || !bits_is_pow2(size) || size < 2 * KiB || size > 16 * MiB)
		return -EINVAL;
	rom->kind = PCI_BAR_ROM;
	rom->size = size;
	rom->ops = ops;
	rom->opaque = opaque;
	st32(pd->wmask + PCI_ROM, (u32) ~(size - 1) | ROM_ENABLE);
	return 0;
}

int pci_dev_add_cap(struct pci_dev *pd, u8 id, unsigned len)
{
	unsigned at = pd->cap_end, end = ALIGN_UP(at + len, 4u);

	if (len < 2 || len > PCI_CONFIG_SIZE || end > PCI_CONFIG_SIZE - 4)
		return -ENOSPC;
	pd->cap_end = (u8)end;
	pd->init[at] = id;
	pd->init[pd->last_cap ? pd->last_cap + CAP_NEXT : PCI_CAP_PTR] = (u8)at;
	pd->last_cap = (u8)at;
	pd->init[PCI_STATUS] |= PCI_STATUS_CAPS;
	memcpy(pd->config, pd->init, sizeof(pd->config));
	return (int)at;
}

u64 pci_high_end(const struct vm *vm)
{
	return MAX(BIT(vm->cpuid.maxphyaddr), MAX(PCI_HIGH_BASE, vm->ram.end));
}

/* Where a BAR answers with these registers: wholly inside its window, or nowhere. */
static u64 bar_addr(const struct pci_dev *pd, unsigned nr)
{
	const struct pci_bar *bar = &pd->bar[nr];
	const u8 *reg = pd->config + PCI_BAR0 + 4 * nr;
	u16 command = ld16(pd->config + PCI_COMMAND);
	u64 addr, base = PCI_MMIO_BASE, len = PCI_MMIO_SIZE;

	switch (bar->kind) {
	case PCI_BAR_IO:
		if (!(command & PCI_COMMAND_IO))
			return NOWHERE;
		addr = ld32(reg) & ~3u;
		base = PCI_IO_BASE;
		len = PCI_IO_SIZE;
		break;
	case PCI_BAR_MEM32:
	case PCI_BAR_MEM64:
		if (!(command & PCI_COMMAND_MEM))
			return NOWHERE;
		addr = (bar->kind == PCI_BAR_MEM64 ? ld64(reg) : ld32(reg)) & ~0xfull;
		if (addr >= PCI_HIGH_BASE) {
			base = MAX(PCI_HIGH_BASE, pd->owner->vm->ram.end);
			len = pci_high_end(pd->owner->vm) - base;
		}
		break;
	case PCI_BAR_ROM:
		addr = ld32(pd->config + PCI_ROM) & ~0x7ffull;
		if (!(command & PCI_COMMAND_MEM) || !(ld32(pd->config + PCI_ROM) & ROM_ENABLE))
			return NOWHERE;
		break;
	default: return NOWHERE;
	}
	if (addr < base || addr - base >= len || bar->size > len - (addr - base))
		return NOWHERE;
	return addr;
}

static void map_bars(struct pci_dev *pd)
{
	for (unsigned i = 0; i < ARRAY_SIZE(pd->bar); i++)
		atomic_store_explicit(&pd->bar[i].addr, bar_addr(pd, i), memory_order_relaxed);
	bus_changed(&pd->owner->vm->bus);
}

static struct pci_host *host_of(const struct pci_dev *pd)
{
	return pd->bus ? container_of(pd->bus, struct pci_host, dev) : NULL;
}

/* The 8259A's inputs by the lines and by the ISA bridge's registers. With intx_lock held. */
static void route_pirqs(struct pci_host *h)
{
	u32 inputs = 0;

	for (unsigned i = 0; i < NR_PCI_GSI; i++) {
		u8 rout = h->lpc.config[PIRQ_A_ROUT + i];

		if (h->asserted[i] && !(rout & PIRQ_OFF))
			inputs |= 1u << (rout & 0xf) & PIRQ_INPUTS;
	}
	intc_set_pic(h->dev.vm, inputs);
}

static void lpc_update(struct pci_host *h)
{
	pthread_mutex_lock(&h->intx_lock);
	route_pirqs(h);
	pthread_mutex_unlock(&h->intx_lock);
}

static void lpc_written(struct pci_dev *pd, unsigned offset, unsigned len)
{
	lpc_update(container_of(pd, struct pci_host, lpc));
}

/* Several functions share a line: it is high while one of them holds it. With intx_lock held. */
static void drive_intx(struct pci_host *h, struct pci_dev *pd)
{
	bool out = pd->intx && !pd->intx_off;
	u8 pin = pd->init[PCI_INT_PIN];

	if (out == pd->intx_out || pin < 1 || pin > 4)
		return;
	pd->intx_out = out;
	unsigned gsi = PCI_GSI(pd->devfn >> 3, pin - 1u);
	u16 *n = &h->asserted[gsi - PCI_GSI_BASE];
	*n = (u16)(*n + (out ? 1 : -1));
	if (*n != out) /* neither 0 to 1 nor 1 to 0 */
		return;
	irq_set(h->dev.vm, gsi, out);
	route_pirqs(h);
}

void pci_set_intx(struct pci_dev *pd, bool level)
{
	struct pci_host *h = host_of(pd);

	if (!h)
		return;
	pthread_mutex_lock(&h->intx_lock);
	pd->intx = level;
	drive_intx(h, pd);
	pthread_mutex_unlock(&h->intx_lock);
}

/* The command register may have changed, or the enable bit of messages, which take the pin's place [PCI 6.8.1.3]. */
static void command_changed(struct pci_dev *pd)
{
	struct pci_host *h = host_of(pd);

	map_bars(pd);
	if (!h)
		return;
	pthread_mutex_lock(&h->intx_lock);
	pd->intx_off = ld16(pd->config + PCI_COMMAND) & PCI_COMMAND_INTX_OFF || pci_msi_on(pd);
	drive_intx(h, pd);
	pthread_mutex_unlock(&h->intx_lock);
}

void pci_dev_reset(struct pci_dev *pd)
{
	memcpy(pd->config, pd->init, sizeof(pd->config));
	pci_msi_reset(pd);
	pci_set_intx(pd, false);
	command_changed(pd);
}

int pci_dev_post_load(struct pci_dev *pd, struct err *err)
{
	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
		if ((pd->config[i] ^ pd->init[i]) & ~(pd->wmask[i] | pd->w1c[i]))
			return err_set(
				err, -EINVAL,
				"the state of device %s is of another PCI function: byte %#x is %#x, not %#x",
				pd->owner->id, i, pd->config[i], pd->init[i]);
	command_changed(pd);
	return pci_msi_post_load(pd, err);
}

/* The interrupt status bit is the pin's, not a stored one [PCI 6.2.3]. */
static u8 config_read8(struct pci_host *h, const struct pci_dev *pd, unsigned off)
{
	u8 v = pci_msi_config_byte(pd, off, pd->config[off]);

	if (off == PCI_STATUS) {
		pthread_mutex_lock(&h->intx_lock);
		if (pd->intx)
			v |= PCI_STATUS_INTX;
		pthread_mutex_unlock(&h->intx_lock);
	}
	return v;
}

/* Function 0 of device 29: seldom is there one. Device 30 is the display adapter, and the chipset's is 31. */
#define PCI_LATE_SLOT (29u << 3)

/* len <= 4 and inside the function's space of 4 KiB. */
static u64 config_read(struct pci_host *h, unsigned devfn, unsigned off, unsigned len)
{
	struct pci_dev *pd = h->fn[devfn];
	u64 v = 0;

	/* Whoever looks for devices looks here, too; who looks for one that is known to be there does not. */
	if (devfn == PCI_LATE_SLOT && off == 0)
		timeline_note(h->dev.vm, TIMELINE_PCI);
	if (!pd)
		return bits_mask(len);
	pthread_mutex_lock(pd->owner->lock);
	if (pd->config_reading)
		pd->config_reading(pd, off, len);
	for (unsigned i = 0; i < len; i++) {
		u8 byte = off + i < PCI_CONFIG_SIZE ? config_read8(h, pd, off + i) : 0xff;
		v |= (u64)byte << 8 * i;
	}
	pthread_mutex_unlock(pd->owner->lock);
	return v;
}

static void config_write(struct pci_host *h, unsigned devfn, unsigned off, unsigned len, u64 val)
{
	struct pci_dev *pd = h->fn[devfn];

	if (!pd || off >= PCI_CONFIG_SIZE)
		return;
	len = MIN(len, PCI_CONFIG_SIZE - off);
	pthread_mutex_lock(pd->owner->lock);
	for (unsigned i = 0; i < len; i++) {
		u8 *reg = &pd->config[off + i], mask = pd->wmask[off + i], byte = (u8)(val >> 8 * i);
		*reg = (u8)((*reg & ~mask) | (byte & mask));
		*reg &= (u8) ~(byte & pd->w1c[off + i]);
	}
	command_changed(pd);
	pci_msi_config_written(pd);
	if (pd->config_written)
		pd->config_written(pd, off, len);
	pthread_mutex_unlock(pd->owner->lock);
}

/* Ports CF8H-CFFH */

static u64 port_read(void *opaque, u64 offset, unsigned size)
{
	struct pci_host *h = opaque;
	u64 v;

	pthread_mutex_lock(h->dev.lock);
	u32 addr = h->addr;
	if (offset == RST_OFFSET && size == 1)
		v = h->rst;
	else
		v = (u64)addr >> 8 * (offset & 3);
	pthread_mutex_unlock(h->dev.lock);

	if (offset < 4)
		return offset + size <= 4 ? v & bits_mask(size) : bits_mask(size);
	if (!(addr & ADDR_ENABLE) || addr >> 16 & 0xff)
		return bits_mask(size);
	return config_read(h, addr >> 8 & 0xff, (addr & 0xfc) + (unsigned)(offset & 3), size);
}

static void port_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct pci_host *h = opaque;
	bool reset = false;

	pthread_mutex_lock(h->dev.lock);
	u32 addr = h->addr;
	if (offset == 0 && size == 4) {
		h->addr = (u32)val & ADDR_WRITABLE;
	} else if (offset == RST_OFFSET && size == 1) {
		reset = val & RST_CPU && !(h->rst & RST_CPU);
		h->rst = val & RST_WRITABLE;
	}
	pthread_mutex_unlock(h->dev.lock);

	if (reset)
		vm_request(h->dev.vm, VM_REQ_RESET);
	if (offset >= 4 && addr & ADDR_ENABLE && !(addr >> 16 & 0xff))
		config_write(h, addr >> 8 & 0xff, (addr & 0xfc) + (unsigned)(offset & 3), size, val);
}

static const struct region_ops port_ops = {
	.read = port_read,
	.write = port_write,
	.max_size = 4,
};

/* ECAM: bus 27..20, device and function 19..12, register 11..0 [PCIe 7.2.2] */

static u64 ecam_read(struct pci_host *h, u64 offset, unsigned size)
{
	unsigned off = offset & 0xfff;

	if (size == 8)
		return ecam_read(h, offset, 4) | ecam_read(h, offset + 4, 4) << 32;
	if (offset >> 20 || off + size > 0x1000)
		return bits_mask(size);
	return config_read(h, offset >> 12 & 0xff, off, size);
}

static void ecam_write(struct pci_host *h, u64 offset, unsigned size, u64 val)
{
	unsigned off = offset & 0xfff;

	if (size == 8) {
		ecam_write(h, offset, 4, (u32)val);
		ecam_write(h, offset + 4, 4, val >> 32);
	} else if (!(offset >> 20) && off + size <= 0x1000) {
		config_write(h, offset >> 12 & 0xff, off, size, val);
	}
}

static bool in_ecam(struct pci_host *h, u64 addr, u64 *ret_offset)
{
	u64 ecam = atomic_load_explicit(&h->ecam, memory_order_relaxed);

	*ret_offset = addr - ecam;
	return ecam != NOWHERE && addr >= ecam && addr - ecam < PCI_ECAM_SIZE;
}

u64 pci_ecam(struct device *bus)
{
	u64 ecam = atomic_load(&container_of(bus, struct pci_host, dev)->ecam);

	return ecam == NOWHERE ? 0 : ecam;
}

/* The registers of the host bridge, and what they say. */
static void bridge_update(struct pci_host *h)
{
	u64 bar = ld64(h->bridge.config + PCIEXBAR);

	atomic_store(&h->ecam, bar & PCIEXBAR_ENABLE ? bar & PCIEXBAR_BASE : NOWHERE);
	pam_update(&h->bridge);
}

static void bridge_written(struct pci_dev *pd, unsigned offset, unsigned len)
{
	bridge_update(container_of(pd, struct pci_host, bridge));
}

/* BARs */

struct hit {
	struct pci_dev *pd;
	struct pci_bar *bar;
	u64 offset;
};

static bool is_io(const struct pci_bar *bar)
{
	return bar->kind == PCI_BAR_IO;
}

/* Finds the BAR that decodes addr and takes its owner's lock. Where two overlap, the first function wins. */
static bool find_bar(struct pci_host *h, bool io, u64 addr, struct hit *ret_hit)
{
	for (unsigned f = 0; f < h->nr_present; f++) {
		struct pci_dev *pd = h->fn[h->present[f]];

		for (unsigned i = 0; i < ARRAY_SIZE(pd->bar); i++) {
			struct pci_bar *bar = &pd->bar[i];
			u64 base = atomic_load_explicit(&bar->addr, memory_order_relaxed);

			if (bar->kind == PCI_BAR_NONE || is_io(bar) != io || base == NOWHERE || addr < base ||
			    addr - base >= bar->size)
				continue;
			pthread_mutex_lock(pd->owner->lock);
			if (atomic_load_explicit(&bar->addr, memory_order_relaxed) == base) {
				*ret_hit = (struct hit){ pd, bar, addr - base };
				return true;
			}
			/* Another vCPU has just moved it. */
			pthread_mutex_unlock(pd->owner->lock);
		}
	}
	return false;
}

static unsigned piece(const struct hit *hit, unsigned done, unsigned size)
{
	unsigned n = MIN(size - done, hit->bar->ops->max_size);

	while (!bits_is_pow2(n) || n > hit->bar->size - hit->offset - done)
		n--;
	return n;
}

static u64 window_read(struct pci_host *h, bool io, u64 addr, unsigned size)
{
	u64 v = bits_mask(size);
	struct hit hit;

	if (!find_bar(h, io, addr, &hit))
		return v;
	for (unsigned n, done = 0; done < size && hit.offset + done < hit.bar->size; done += n) {
		n = piece(&hit, done, size);
		v &= ~(bits_mask(n) << 8 * done);
		v |= (hit.bar->ops->read(hit.bar->opaque, hit.offset + done, n) & bits_mask(n)) << 8 * done;
	}
	pthread_mutex_unlock(hit.pd->owner->lock);
	return v;
}

static void window_write(struct pci_host *h, bool io, u64 addr, unsigned size, u64 val)
{
	struct hit hit;

	if (!find_bar(h, io, addr, &hit))
		return;
	for (unsigned n, done = 0; done < size && hit.offset + done < hit.bar->size; done += n) {
		n = piece(&hit, done, size);
		hit.bar->ops->write(hit.bar->opaque, hit.offset + done, n, val >> 8 * done & bits_mask(n));
	}
	pthread_mutex_unlock(hit.pd->owner->lock);
}

static bool window_late(struct pci_host *h, bool io, u64 addr, struct bus_late *ret_late)
{
	struct hit hit;
	bool late;

	if (!find_bar(h, io, addr, &hit))
		return false;
	late = hit.bar->ops->late && hit.bar->ops->late(hit.bar->opaque, hit.offset, ret_late);
	if (late)
		ret_late->at += addr - hit.offset;
	pthread_mutex_unlock(hit.pd->owner->lock);
	return late;
}

static u64 io_read(void *opaque, u64 offset, unsigned size)
{
	return window_read(opaque, true, PCI_IO_BASE + offset, size);
}

static void io_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	window_write(opaque, true, PCI_IO_BASE + offset, size, val);
}

static u64 mmio_read(void *opaque, u64 offset, unsigned size)
{
	u64 at;

	if (in_ecam(opaque, PCI_MMIO_BASE + offset, &at))
		return ecam_read(opaque, at, size);
	return window_read(opaque, false, PCI_MMIO_BASE + offset, size);
}

static void mmio_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	u64 at;

	if (in_ecam(opaque, PCI_MMIO_BASE + offset, &at))
		ecam_write(opaque, at, size, val);
	else
		window_write(opaque, false, PCI_MMIO_BASE + offset, size, val);
}

static bool mmio_late(void *opaque, u64 offset, struct bus_late *ret_late)
{
	bool late = window_late(opaque, false, PCI_MMIO_BASE + offset, ret_late);

	ret_late->at -= PCI_MMIO_BASE;
	return late;
}

static bool high_late(void *opaque, u64 offset, struct bus_late *ret_late)
{
	bool late = window_late(opaque, false, PCI_HIGH_BASE + offset, ret_late);

	ret_late->at -= PCI_HIGH_BASE;
	return late;
}

static u64 high_read(void *opaque, u64 offset, unsigned size)
{
	return window_read(opaque, false, PCI_HIGH_BASE + offset, size);
}

static void high_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	window_write(opaque, false, PCI_HIGH_BASE + offset, size, val);
}

static const struct region_ops io_ops = { .read = io_read, .write = io_write, .max_size = 4 };
static const struct region_ops mmio_ops = {
	.read = mmio_read, .write = mmio_write, .max_size = 8, .late = mmio_late
};
static const struct region_ops high_ops = {
	.read = high_read, .write = high_write, .max_size = 8, .late = high_late
};

static const struct {
	const char *name;
	const struct region_ops *ops;
	enum bus_space space;
	u64 base, len; /* 0: to the end */
} windows[NR_WINDOWS] = {
	[WIN_CONFIG] = { "PCI configuration", &port_ops, BUS_PIO, PCI_CONFIG_PORT, 8 },
	[WIN_IO] = { "PCI ports", &io_ops, BUS_PIO, PCI_IO_BASE, PCI_IO_SIZE },
	[WIN_MMIO] = { "PCI memory", &mmio_ops, BUS_MMIO, PCI_MMIO_BASE, PCI_MMIO_SIZE },
	[WIN_HIGH] = { "PCI memory above 4 GiB", &high_ops, BUS_MMIO, PCI_HIGH_BASE, 0 },
};

/* The bus */

extern const struct device_ops pci_device;

static void list_functions(struct pci_host *h)
{
	h->nr_present = 0;
	for (unsigned f = 0; f < NR_FUNCTIONS; f++)
		if (h->fn[f])
			h->present[h->nr_present++] = (u8)f;
}

struct device *pci_find(struct vm *vm)
{
	for (struct device *dev = vm->devices; dev; dev = dev->next)
		if (dev->ops == &pci_device)
			return dev;
	return NULL;
}

int pci_devfn_of(const struct device *bus, const struct device *dev)
{
	const struct pci_host *h = container_of(bus, const struct pci_host, dev);

	for (unsigned i = 0; i < h->nr_present; i++)
		if (h->fn[h->present[i]]->owner == dev)
			return h->present[i];
	return -1;
}

int pci_add(struct device *bus, struct pci_dev *pd, int slot, unsigned fn, struct err *err)
{
	struct pci_host *h = container_of(bus, struct pci_host, dev);

	if (slot > 31 || fn > 7)
		return err_set(err, -EINVAL, "PCI has slots 0 to 31 with functions 0 to 7, not %d.%u", slot,
			       fn);
	for (int s = 1; slot < 0 && s < 31; s++)
		if (!h->fn[PCI_DEVFN(s, 0)])
			slot = s;
	if (slot < 0)
		return err_set(err, -ENOSPC, "no PCI slot is free; 30 devices are the most");
	pd->devfn = (u8)PCI_DEVFN((unsigned)slot, fn);
	if (h->fn[pd->devfn])
		return err_set(err, -EEXIST, "PCI slot %02x.%u is taken", (unsigned)slot, fn);
	h->fn[pd->devfn] = pd;
	pd->bus = bus;
	list_functions(h);
	/* Others are looked for only where function 0 says that there may be some [PCI 6.2.1]. */
	struct pci_dev *first = h->fn[PCI_DEVFN((unsigned)slot, 0)];
	for (unsigned i = 1; first && i < 8; i++) {
		if (h->fn[PCI_DEVFN((unsigned)slot, i)]) {
			first->init[PCI_HEADER_TYPE] |= HEADER_MULTI;
			first->config[PCI_HEADER_TYPE] |= HEADER_MULTI;
		}
	}
	return 0;
}

void pci_del(struct pci_dev *pd)
{
	struct pci_host *h = host_of(pd);

	if (!h)
		return;
	pci_set_intx(pd, false);
	h->fn[pd->devfn] = NULL;
	pd->bus = NULL;
	list_functions(h);
}

/* The host bridge and the ISA bridge of the chip set, as far as a guest looks at them. */
static int add_chipset(struct pci_host *h, struct err *err)
{
	/* QUIRK(SeaBIOS): by the subsystem it knows that fw_cfg is there. */
	const struct pci_id bridge = {
		.vendor = 0x8086,
		.device = 0x29c0,
		.class_code = 0x060000,
		.subsystem_vendor = 0x1af4,
		.subsystem = 0x1100,
	};
	const struct pci_id lpc = {
		.vendor = 0x8086, .device = 0x2918, .class_code = 0x060100, .revision = 2
	};
	int r;

	pci_dev_init(&h->bridge, &h->dev, &bridge);
	st64(h->bridge.init + PCIEXBAR, PCI_ECAM_BASE | PCIEXBAR_ENABLE);
	st64(h->bridge.wmask + PCIEXBAR, PCIEXBAR_BASE | PCIEXBAR_ENABLE);
	pam_init(&h->bridge);
	h->bridge.config_written = bridge_written;
	r = pci_add(&h->dev, &h->bridge, 0, 0, err);
	if (r < 0)
		return r;

	pci_dev_init(&h->lpc, &h->dev, &lpc);
	st32(h->lpc.init + 0x40, PM_BASE | 1); /* PMBASE [ICH9 13.1.13] */
	h->lpc.init[0x44] = 0x80;              /* ACPI_CNTL: decoded, SCI on IRQ 9 [ICH9 13.1.14] */
	for (unsigned i = 0; i < 4; i++) {
		h->lpc.init[PIRQ_A_ROUT + i] = PIRQ_OFF;
		h->lpc.init[PIRQ_E_ROUT + i] = PIRQ_OFF;
		h->lpc.wmask[PIRQ_A_ROUT + i] = PIRQ_WRITABLE;
		h->lpc.wmask[PIRQ_E_ROUT + i] = PIRQ_WRITABLE;
	}
	h->lpc.config_written = lpc_written;
	return pci_add(&h->dev, &h->lpc, 31, 0, err);
}

static int pci_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct pci_host *h = container_of(dev, struct pci_host, dev);
	int r;

	pthread_mutex_init(&h->intx_lock, NULL);
	h->intx_lock_ready = true;
	if (pci_find(dev->vm))
		return err_set(err, -EEXIST, "the machine has a PCI bus already");
	for (unsigned i = 0; i < NR_WINDOWS; i++) {
		u64 len = windows[i].len ? windows[i].len : pci_high_end(dev->vm) - windows[i].base;

		if (!len) /* a processor of 32 bits */
			continue;
		h->window[i] = (struct region){ windows[i].name,  windows[i].ops,  h,  NULL,
						windows[i].space, windows[i].base, len };
		r = bus_add(&dev->vm->bus, &h->window[i]);
		if (r < 0)
			return err_sys(err, r, "%s cannot be placed at %#llx", windows[i].name,
				       (unsigned long long)windows[i].base);
		h->window_added[i] = true;
	}
	if (dev->vm->ram.rom_size) {
		h->shadow = (struct region){ "shadow RAM",
					     &pam_shadow_ops,
					     dev->vm,
					     NULL,
					     BUS_MMIO,
					     RAM_SHADOW_START,
					     RAM_SHADOW_END - RAM_SHADOW_START };
		r = bus_add(&dev->vm->bus, &h->shadow);
		if (r < 0)
			return err_sys(err, r, "shadow RAM cannot be placed");
		h->shadow_added = true;
	}
	return add_chipset(h, err);
}

static void pci_reset(struct device *dev, enum reset_kind kind)
{
	struct pci_host *h = container_of(dev, struct pci_host, dev);
	u8 pam[PAM_NR];

	h->addr = 0;
	h->rst = 0;
	memcpy(pam, h->bridge.config + PAM_REG, sizeof(pam));
	pci_dev_reset(&h->bridge);
	/* QUIRK(SeaBIOS): that it is not its first start it finds in shadow RAM, as it left it. */
	if (kind == RESET_SLEEP)
		memcpy(h->bridge.config + PAM_REG, pam, sizeof(pam));
	bridge_update(h);
	pci_dev_reset(&h->lpc);
	lpc_update(h);
}

static const struct state_field pci_state[] = {
	STATE_U32(pci_host, addr),
	STATE_U8(pci_host, rst),
	STATE_U8S(pci_host, bridge.config),
	STATE_U8S(pci_host, lpc.config),
	STATE_END,
};

static int pci_post_load(struct device *dev, struct err *err)
{
	struct pci_host *h = container_of(dev, struct pci_host, dev);
	int r;

	if (h->addr & ~ADDR_WRITABLE || h->rst & ~RST_WRITABLE)
		return err_set(err, -EINVAL,
			       "the state of the PCI bus has an impossible address %#x or reset control %#x",
			       h->addr, h->rst);
	r = pci_dev_post_load(&h->bridge, err);
	bridge_update(h);
	if (r == 0)
		r = pci_dev_post_load(&h->lpc, err);
	lpc_update(h);
	return r;
}

static void pci_fini(struct device *dev)
{
	struct pci_host *h = container_of(dev, struct pci_host, dev);

	pci_del(&h->lpc);
	pci_del(&h->bridge);
	for (unsigned i = 0; i < NR_WINDOWS; i++)
		if (h->window_added[i])
			bus_del(&dev->vm->bus, &h->window[i]);
	if (h->shadow_added)
		bus_del(&dev->vm->bus, &h->shadow);
	if (h->intx_lock_ready)
		pthread_mutex_destroy(&h->intx_lock);
}

const struct device_ops pci_device = {
	.name = "pci",
	.size = sizeof(struct pci_host),
	.init = pci_init,
	.reset = pci_reset,
	.state = pci_state,
	.post_load = pci_post_load,
	.fini = pci_fini,
};
