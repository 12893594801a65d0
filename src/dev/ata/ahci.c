/* The AHCI adapter: its PCI function, the registers that all ports share, interrupts.
 *
 * Document: Serial ATA AHCI 1.3.1, [AHCI 2] (configuration space), [AHCI 3.1] (registers), [AHCI 10.4.3] (HBA reset),
 * [AHCI 10.7] (interrupts); ids from [ICH9 15.1]. A port is in ahci_port.c.
 *
 * How it works: IS has a bit for each port that has something to tell; it comes back after it was cleared as long as the port
 * has. The pin is high while IS is not zero; a message leaves whenever a bit of it becomes one [AHCI 10.7.2.1], so
 * none is missed by a driver that clears the port first and IS after.
 *
 * An HBA reset with commands on their way is over, and GHC.HR reads 0, when the host has done with the guest's memory.
 *
 * Omitted: the legacy interface (CAP.SAM says so), and its BARs; enclosure management, command completion coalescing; all
 * that ahci_port.c omits. A port without a drive is not implemented (PI), as nothing can be plugged in.
 *
 * Threads: vCPUs and the main thread, under the device's lock.
 */
#include "dev/ata/ahci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vm/clock.h"
#include "vm/vm.h"

#define SLOT       31
#define FUNCTION   2
#define CLASS_CODE 0x010601
#define BAR_ABAR   5
#define ABAR_SIZE  0x800

/* [AHCI 2.2] */
#define CAP_PM          0x01
#define CAP_PM_LEN      8
#define PM_VERSION      0x0003
#define PM_STATE        3
#define PM_NO_SOFTRESET 0x08

/* Registers [AHCI 3.1] */
#define REG_CAP   0x00
#define REG_GHC   0x04
#define REG_IS    0x08
#define REG_PI    0x0c
#define REG_VS    0x10
#define PORTS_AT  0x100
#define PORT_SIZE 0x80

/* 64-bit addresses, queues, command list override, 3 Gb/s, AHCI only, 32 slots */
#define CAP     (BIT(31) | BIT(30) | BIT(24) | 2u << 20 | BIT(18) | (AHCI_SLOTS - 1) << 8 | (AHCI_PORTS - 1))
#define VERSION 0x00010301
#define GHC_HR  BIT(0)
#define GHC_IE  BIT(1)
#define GHC_AE  BIT(31) /* always */

/* ---- interrupts ---- */

/* before: the bits that the driver has been told of. */
static void update(struct ahci *h, u32 before)
{
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		if (ahci_port_pending(&h->port[i]))
			h->is |= 1u << i;
	bool on = h->is && h->ghc & GHC_IE;

	if (!pci_msi_enabled(&h->msi))
		pci_set_intx(&h->pci, on);
	else if (on && h->is & ~before)
		pci_msi_notify(&h->msi, 0);
}

void ahci_update(struct ahci *h)
{
	update(h, h->is);
}

/* ---- resets ---- */

static bool draining(const struct ahci *h)
{
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		if (h->port[i].nr_cancelled)
			return true;
	return false;
}

static void reset_registers(struct ahci *h)
{
	h->ghc = 0;
	h->is = 0;
	h->resetting = false;
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_port_reset(&h->port[i]);
	ahci_update(h);
}

static void begin_reset(struct ahci *h)
{
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_cmd_cancel(&h->port[i]);
	h->resetting = true;
	ahci_drained(h);
}

void ahci_drained(struct ahci *h)
{
	if (h->resetting && !draining(h))
		reset_registers(h);
	/* What waited for that. */
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_cmd_due(&h->port[i]);
}

bool ahci_may_fetch(const struct ahci *h)
{
	return !h->quiet && !h->resetting && ld16(h->pci.config + PCI_COMMAND) & PCI_COMMAND_MASTER;
}

/* ---- registers ---- */

static u32 ports_implemented(const struct ahci *h)
{
	u32 pi = 0;

	for (unsigned i = 0; i < AHCI_PORTS; i++)
		pi |= h->port[i].cmd ? 1u << i : 0;
	return pi;
}

static u32 read_reg(struct ahci *h, unsigned at)
{
	if (at >= PORTS_AT)
		return (at - PORTS_AT) / PORT_SIZE < AHCI_PORTS
			       ? ahci_port_read(&h->port[(at - PORTS_AT) / PORT_SIZE], at % PORT_SIZE)
			       : 0;
	switch (at) {
	case REG_CAP: return (u32)CAP;
	case REG_GHC: return (u32)(h->ghc | GHC_AE | (h->resetting ? GHC_HR : 0));
	case REG_IS: return h->is;
	case REG_PI: return ports_implemented(h);
	case REG_VS: return VERSION;
	default: return 0;
	}
}

/* mask: which bits of val are there. */
static void write_reg(struct ahci *h, unsigned at, u32 val, u32 mask)
{
	u32 before = h->is;

	if (h->resetting)
		return;
	if (at >= PORTS_AT) {
		if ((at - PORTS_AT) / PORT_SIZE < AHCI_PORTS)
			ahci_port_write(&h->port[(at - PORTS_AT) / PORT_SIZE], at % PORT_SIZE, val, mask);
	} else if (at == REG_GHC && val & mask & GHC_HR) {
		begin_reset(h);
		return;
	} else if (at == REG_GHC && mask & GHC_IE) {
		/* What was there before is told now. */
		before = h->ghc & GHC_IE ? before : 0;
		h->ghc = val & GHC_IE;
	} else if (at == REG_IS) {
		h->is &= ~(val & mask);
		before = h->is;
	}
	update(h, before);
}

static u64 abar_read(void *opaque, u64 offset, unsigned size)
{
	u32 val = read_reg(opaque, (unsigned)offset & ~3u);

	return val >> 8 * (offset & 3);
}

/* Narrow ones reach the bytes that they name [AHCI 3]. */
static void abar_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	unsigned shift = 8 * (offset & 3);

	write_reg(opaque, (unsigned)offset & ~3u, (u32)(val << shift), (u32)(bits_mask(size) << shift));
}

static const struct region_ops abar_ops = { .read = abar_read, .write = abar_write, .max_size = 4 };

static void config_written(struct pci_dev *pd, unsigned offset, unsigned len)
{
	struct ahci *h = container_of(pd, struct ahci, pci);

	/* It may have become a bus master, or messages may have taken the pin's place or given it back. */
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_cmd_due(&h->port[i]);
}

/* ---- the device ---- */

static int add_function(struct ahci *h, struct err *err)
{
	const struct pci_id id = {
		.vendor = 0x8086,
		.device = 0x2922,
		.class_code = CLASS_CODE,
		.revision = 2,
		.int_pin = 1,
	};
	struct device *bus = pci_find(h->dev.vm);
	int r, pm;

	if (!bus)
		return err_set(err, -ENODEV, "the machine has no PCI bus to put it on");
	pci_dev_init(&h->pci, &h->dev, &id);
	h->pci.config_written = config_written;
	r = pci_dev_add_bar(&h->pci, BAR_ABAR, PCI_BAR_MEM32, ABAR_SIZE, &abar_ops, h);
	if (r == 0)
		r = pci_msi_init(&h->msi, &h->pci, 1);
	pm = r == 0 ? pci_dev_add_cap(&h->pci, CAP_PM, CAP_PM_LEN) : r;
	if (pm < 0)
		return err_sys(err, pm, "its PCI function cannot be made");
	st16(h->pci.init + pm + 2, PM_VERSION);
	h->pci.init[pm + 4] = PM_NO_SOFTRESET;
	h->pci.wmask[pm + 4] = PM_STATE;
	return pci_add(bus, &h->pci, SLOT, FUNCTION, err);
}

static int add_drive(struct ahci *h, unsigned i, const struct ata_conf *conf, struct err *err)
{
	struct ahci_port *p = &h->port[i];
	int r;

	p->drive.ops = conf->cdrom ? &ata_cdrom_ops : &ata_disk_ops;
	r = drive_init(&p->drive.disk, &h->dev, conf->block, conf->conf, ahci_cmd_due, p, err);
	if (r < 0)
		return r;
	p->iov = calloc(AHCI_SLOTS, AHCI_PARTS * sizeof(*p->iov));
	p->cmd = p->iov ? calloc(AHCI_SLOTS, sizeof(*p->cmd)) : NULL;
	if (!p->cmd)
		return err_set(err, -ENOMEM, "no memory for its commands");
	for (unsigned slot = 0; slot < AHCI_SLOTS; slot++) {
		p->cmd[slot].port = p;
		p->cmd[slot].iov = p->iov + (size_t)AHCI_PARTS * slot;
	}
	return 0;
}

static int ahci_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct ahci *h = container_of(dev, struct ahci, dev);
	int r = 0;

	for (unsigned i = 0; i < AHCI_PORTS; i++)
		h->port[i].h = h;
	for (unsigned i = 0; conf->ata && i < AHCI_PORTS && r == 0; i++)
		if (conf->ata[i].block)
			r = add_drive(h, i, &conf->ata[i], err);
	return r < 0 ? r : add_function(h, err);
}

bool ahci_has(const struct device *dev, unsigned port, bool cdrom)
{
	const struct ahci_port *p = &container_of(dev, struct ahci, dev)->port[port];

	return p->cmd && p->drive.ops == (cdrom ? &ata_cdrom_ops : &ata_disk_ops);
}

static void drain(struct ahci *h)
{
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		drive_drain(&h->port[i].drive.disk);
}

/* For good: nothing is fetched meanwhile. */
static void stop(struct ahci *h)
{
	pthread_mutex_lock(h->dev.lock);
	h->quiet = true;
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_cmd_cancel(&h->port[i]);
	pthread_mutex_unlock(h->dev.lock);
	drain(h);
}

static void ahci_quiesce(struct device *dev)
{
	struct ahci *h = container_of(dev, struct ahci, dev);

	pthread_mutex_lock(dev->lock);
	h->quiet = true;
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_cmd_due(&h->port[i]);
	pthread_mutex_unlock(dev->lock);
	drain(h);
}

static void ahci_resume(struct device *dev)
{
	struct ahci *h = container_of(dev, struct ahci, dev);

	pthread_mutex_lock(dev->lock);
	h->quiet = false;
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_cmd_due(&h->port[i]);
	pthread_mutex_unlock(dev->lock);
}

static unsigned ahci_stats(struct device *dev, struct device_stat ret[DEVICE_MAX_STATS])
{
	struct ahci *h = container_of(dev, struct ahci, dev);
	struct drive *drives[AHCI_PORTS];

	for (unsigned i = 0; i < AHCI_PORTS; i++)
		drives[i] = &h->port[i].drive.disk;
	return drive_stats(drives, AHCI_PORTS, ret);
}

static void ahci_reset(struct device *dev, enum reset_kind kind)
{
	struct ahci *h = container_of(dev, struct ahci, dev);

	stop(h);
	h->quiet = false;
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		struct ahci_port *p = &h->port[i];

		p->clb = p->clbu = p->fb = p->fbu = 0;
		if (p->cmd)
			drive_reset(&p->drive.disk);
	}
	pci_dev_reset(&h->pci);
	reset_registers(h);
}

static const struct state_field ahci_state[] = {
	STATE_U8S(ahci, pci.config),
	PCI_MSI_STATE(ahci, msi),
	STATE_U32(ahci, ghc),
	STATE_U32(ahci, is),
	AHCI_PORT_STATE(ahci, port[0]),
	AHCI_PORT_STATE(ahci, port[1]),
	AHCI_PORT_STATE(ahci, port[2]),
	AHCI_PORT_STATE(ahci, port[3]),
	AHCI_PORT_STATE(ahci, port[4]),
	AHCI_PORT_STATE(ahci, port[5]),
	STATE_END,
};
_Static_assert(AHCI_PORTS == 6, "the state has them all");

static int ahci_post_load(struct device *dev, struct err *err)
{
	struct ahci *h = container_of(dev, struct ahci, dev);
	bool ok = !(h->ghc & ~GHC_IE) && !(h->is >> AHCI_PORTS);
	int r = pci_dev_post_load(&h->pci, err);

	/* Nothing was under way when it was saved. */
	h->resetting = false;
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		ahci_cmd_cancel(&h->port[i]);
		ok = ok && ahci_port_check(&h->port[i]);
	}
	if (r == 0 && !ok)
		r = err_set(err, -EINVAL, "the state of device %s has impossible registers", dev->id);
	if (r < 0)
		return r;
	if (!pci_msi_enabled(&h->msi))
		pci_set_intx(&h->pci, h->is && h->ghc & GHC_IE);
	return 0;
}

static void ahci_fini(struct device *dev)
{
	struct ahci *h = container_of(dev, struct ahci, dev);

	stop(h);
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		drive_fini(&h->port[i].drive.disk);
		free(h->port[i].cmd);
		free(h->port[i].iov);
	}
	pci_del(&h->pci);
}

const struct device_ops ahci_device = {
	.name = "ahci",
	.size = sizeof(struct ahci),
	.init = ahci_init,
	.reset = ahci_reset,
	.quiesce = ahci_quiesce,
	.resume = ahci_resume,
	.stats = ahci_stats,
	.state = ahci_state,
	.post_load = ahci_post_load,
	.fini = ahci_fini,
};
