/* Virtio over PCI.
 *
 * Document: virtio 1.2, [virtio 4.1]. Modern devices only.
 *
 * How it works: BAR 0 has the four structures of [virtio 4.1.4], a page each, which capabilities announce: common
 * configuration, ISR status, the type's configuration, notifications. A notification is at 4 times the queue's
 * number. Interrupts are MSI-X messages, by queue and for the configuration, or the INTx pin with the ISR
 * register, whose read lowers it [virtio 4.1.4.5]. Another capability lets a guest that cannot map BARs do the same
 * accesses through configuration space [virtio 4.1.4.9]: it reaches BAR 0 of the same device and nothing else
 * (hostile case G12).
 *
 * Memory is accessed only while the guest allows the function to be a bus master; requests that were taken before are
 * finished.
 *
 * Omitted: legacy and transitional devices; queue_notify_data and queue_reset, whose features are not offered.
 *
 * Threads: vCPUs, under the device's lock; notifications on the main thread as well.
 */
#include "dev/virtio/virtio_pci.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "vm/vm.h"

#define VENDOR         0x1af4
#define DEVICE_BASE    0x1040 /* plus the type's id [virtio 4.1.2] */
#define REVISION       1
#define BAR_REGS       0
#define BAR_MSIX       2
#define CONFIG_VECTORS 1

/* BAR 0 */
#define PAGE       0x1000u
#define AT_COMMON  (0 * PAGE)
#define AT_ISR     (1 * PAGE)
#define AT_CONFIG  (2 * PAGE)
#define AT_NOTIFY  (3 * PAGE)
#define BAR_SIZE   (4 * PAGE)
#define NOTIFY_MUL 4

/* Capabilities [virtio 4.1.4] */
#define CAP_VENDOR     0x09
#define CAP_LEN        16
#define CAP_AT_LEN     2
#define CAP_AT_TYPE    3
#define CAP_AT_BAR     4
#define CAP_AT_OFFSET  8
#define CAP_AT_LENGTH  12
#define CAP_AT_EXTRA   16 /* notify_off_multiplier, pci_cfg_data */
#define CAP_COMMON_CFG 1
#define CAP_NOTIFY_CFG 2
#define CAP_ISR_CFG    3
#define CAP_DEVICE_CFG 4
#define CAP_PCI_CFG    5

/* Common configuration [virtio 4.1.4.3] */
#define DEVICE_FEATURE_SELECT 0x00
#define DEVICE_FEATURE        0x04
#define DRIVER_FEATURE_SELECT 0x08
#define DRIVER_FEATURE        0x0c
#define CONFIG_MSIX_VECTOR    0x10
#define NUM_QUEUES            0x12
#define DEVICE_STATUS         0x14
#define CONFIG_GENERATION     0x15
#define QUEUE_SELECT          0x16
#define QUEUE_SIZE            0x18
#define QUEUE_MSIX_VECTOR     0x1a
#define QUEUE_ENABLE          0x1c
#define QUEUE_NOTIFY_OFF      0x1e
#define QUEUE_DESC            0x20
#define QUEUE_DRIVER          0x28
#define QUEUE_DEVICE          0x30
#define COMMON_LEN            0x38

#define ISR_QUEUE  BIT(0)
#define ISR_CONFIG BIT(1)

/* ---- interrupts ---- */

static void interrupt(struct virtio_pci *p, u16 vector, u8 isr)
{
	if (pci_msi_enabled_x(&p->msix)) {
		if (vector != VIRTIO_NO_VECTOR)
			pci_msi_notify_x(&p->msix, vector);
		return;
	}
	p->isr |= isr;
	pci_set_intx(&p->fn, true);
}

static void queue_interrupt(void *opaque, unsigned q)
{
	struct virtio_pci *p = opaque;

	interrupt(p, p->vector[q], ISR_QUEUE);
}

static void config_interrupt(void *opaque)
{
	struct virtio_pci *p = opaque;

	interrupt(p, p->config_vector, ISR_CONFIG);
}

static const struct virtio_transport transport = { queue_interrupt, config_interrupt };

static u8 isr_read(struct virtio_pci *p)
{
	u8 isr = p->isr;

	p->isr = 0;
	pci_set_intx(&p->fn, false);
	return isr;
}

/* A vector that does not exist reads back as none [virtio 4.1.5.1.2]. */
static u16 vector_of(const struct virtio_pci *p, u64 val)
{
	return (u16)((u16)val < p->msix.nr ? val : VIRTIO_NO_VECTOR);
}

/* ---- common configuration ---- */

/* A register and its place; those of a queue are of the one selected. */
static u64 common_reg(struct virtio_pci *p, unsigned reg)
{
	const struct virtio *v = p->v;
	u16 q = p->queue_select;
	bool here = q < v->nr_queues;

	switch (reg) {
	case DEVICE_FEATURE_SELECT: return p->device_feature_select;
	case DEVICE_FEATURE:
		return p->device_feature_select > 1 ? 0 : (u32)(v->offered >> 32 * p->device_feature_select);
	case DRIVER_FEATURE_SELECT: return p->driver_feature_select;
	case DRIVER_FEATURE:
		return p->driver_feature_select > 1 ? 0 : (u32)(v->features >> 32 * p->driver_feature_select);
	case CONFIG_MSIX_VECTOR: return p->config_vector;
	case NUM_QUEUES: return v->nr_queues;
	case DEVICE_STATUS: return v->status;
	case CONFIG_GENERATION: return p->v->generation;
	case QUEUE_SELECT: return q;
	case QUEUE_SIZE: return here ? v->q_size[q] : 0;
	case QUEUE_MSIX_VECTOR: return here ? p->vector[q] : VIRTIO_NO_VECTOR;
	case QUEUE_ENABLE: return here ? v->q_enabled[q] : 0;
	case QUEUE_NOTIFY_OFF: return here ? q : 0;
	case QUEUE_DESC: return here ? v->q_desc[q] : 0;
	case QUEUE_DRIVER: return here ? v->q_driver[q] : 0;
	case QUEUE_DEVICE: return here ? v->q_device[q] : 0;
	default: return 0;
	}
}

static const struct {
	u8 at, size;
} common_regs[] = {
	{ DEVICE_FEATURE_SELECT, 4 }, { DEVICE_FEATURE, 4 },
	{ DRIVER_FEATURE_SELECT, 4 }, { DRIVER_FEATURE, 4 },
	{ CONFIG_MSIX_VECTOR, 2 },    { NUM_QUEUES, 2 },
	{ DEVICE_STATUS, 1 },         { CONFIG_GENERATION, 1 },
	{ QUEUE_SELECT, 2 },          { QUEUE_SIZE, 2 },
	{ QUEUE_MSIX_VECTOR, 2 },     { QUEUE_ENABLE, 2 },
	{ QUEUE_NOTIFY_OFF, 2 },      { QUEUE_DESC, 8 },
	{ QUEUE_DRIVER, 8 },          { QUEUE_DEVICE, 8 },
};

static unsigned reg_at(u64 offset)
{
	unsigned i = 0;

	while (offset >= (u64)common_regs[i].at + common_regs[i].size)
		i++;
	return i;
}

static u64 common_read(struct virtio_pci *p, u64 offset, unsigned size)
{
	u64 val = 0;

	for (unsigned i = 0; i < size && offset + i < COMMON_LEN; i++) {
		unsigned r = reg_at(offset + i);
		u64 reg = common_reg(p, common_regs[r].at);

		val |= (reg >> 8 * (offset + i - common_regs[r].at) & 0xff) << 8 * i;
	}
	return val;
}

static void write_half(u64 *reg, bool high, u32 val)
{
	*reg = high ? (*reg & 0xffffffff) | (u64)val << 32 : (*reg & ~0xffffffffull) | val;
}

/* Vectors and what else the transport keeps for the driver go with the status. */
static void forget(struct virtio_pci *p)
{
	p->device_feature_select = p->driver_feature_select = 0;
	p->queue_select = 0;
	p->config_vector = VIRTIO_NO_VECTOR;
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		p->vector[i] = VIRTIO_NO_VECTOR;
	isr_read(p);
}

static void write_status(struct virtio_pci *p, u8 val)
{
	virtio_write_status(p->v, val);
	if (!val)
		forget(p);
}

/* Only in the register's own width, or 64 bits in two halves [virtio 4.1.3.1]. */
static void common_write(struct virtio_pci *p, u64 offset, unsigned size, u64 val)
{
	struct virtio *v = p->v;
	u16 q = p->queue_select;
	bool open = q < v->nr_queues && !v->q_enabled[q] && !v->resetting;
	unsigned r;

	if (offset >= COMMON_LEN)
		return;
	r = reg_at(offset);
	if (common_regs[r].size == 8 ? size != 4 || offset % 4
				     : offset != common_regs[r].at || size != common_regs[r].size)
		return;
	switch (common_regs[r].at) {
	case DEVICE_FEATURE_SELECT: p->device_feature_select = (u32)val; break;
	case DRIVER_FEATURE_SELECT: p->driver_feature_select = (u32)val; break;
	case DRIVER_FEATURE: virtio_write_features(v, p->driver_feature_select, (u32)val); break;
	case CONFIG_MSIX_VECTOR: p->config_vector = vector_of(p, val); break;
	case DEVICE_STATUS: write_status(p, (u8)val); break;
	case QUEUE_SELECT: p->queue_select = (u16)val; break;
	case QUEUE_SIZE: virtio_write_size(v, q, (u16)val); break;
	case QUEUE_MSIX_VECTOR:
		if (q < v->nr_queues)
			p->vector[q] = vector_of(p, val);
		break;
	case QUEUE_ENABLE:
		if (val == 1)
			virtio_enable_queue(v, q);
		break;
	case QUEUE_DESC:
		if (open)
			write_half(&v->q_desc[q], offset != QUEUE_DESC, (u32)val);
		break;
	case QUEUE_DRIVER:
		if (open)
			write_half(&v->q_driver[q], offset != QUEUE_DRIVER, (u32)val);
		break;
	case QUEUE_DEVICE:
		if (open)
			write_half(&v->q_device[q], offset != QUEUE_DEVICE, (u32)val);
		break;
	default: break;
	}
}

/* ---- BAR 0 ---- */

static u64 bar_read(void *opaque, u64 offset, unsigned size)
{
	struct virtio_pci *p = opaque;
	u64 in_page = offset % PAGE, val = 0;

	switch (offset - in_page) {
	case AT_COMMON: return common_read(p, in_page, size);
	case AT_ISR: return in_page ? 0 : isr_read(p);
	case AT_CONFIG:
		for (unsigned i = 0; i < size && in_page + i < p->v->config_len; i++)
			val |= (u64)p->v->config[in_page + i] << 8 * i;
		return val;
	default: return 0;
	}
}

static void bar_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct virtio_pci *p = opaque;
	u64 in_page = offset % PAGE;

	if (offset - in_page == AT_COMMON)
		common_write(p, in_page, size, val);
	else if (offset - in_page == AT_CONFIG && in_page + size <= p->v->config_len &&
		 p->v->ops->config_written)
		p->v->ops->config_written(p->v, (unsigned)in_page, size, (u32)val);
	else if (offset - in_page == AT_NOTIFY && (u16)val == in_page / NOTIFY_MUL)
		virtio_notified(p->v, (u16)val);
}

/* A notification says no more than where it was written. */
static bool bar_late(void *opaque, u64 offset, struct bus_late *ret_late)
{
	const struct virtio_pci *p = opaque;

	if (offset < AT_NOTIFY || offset % NOTIFY_MUL || (offset - AT_NOTIFY) / NOTIFY_MUL >= p->v->nr_queues)
		return false;
	*ret_late = (struct bus_late){ .at = offset, .val = (offset - AT_NOTIFY) / NOTIFY_MUL };
	return true;
}

static const struct region_ops bar_ops = {
	.read = bar_read, .write = bar_write, .max_size = 4, .late = bar_late
};

/* ---- configuration space ---- */

/* The access that the capability describes; false: none that BAR 0 has. */
static bool access_of(const struct virtio_pci *p, u32 *ret_offset, u32 *ret_len)
{
	const u8 *cap = p->fn.config + p->access_cap;
	u32 offset = ld32(cap + CAP_AT_OFFSET), len = ld32(cap + CAP_AT_LENGTH);

	if (cap[CAP_AT_BAR] != BAR_REGS || (len != 1 && len != 2 && len != 4) || offset % len ||
	    offset > BAR_SIZE - len)
		return false;
	*ret_offset = offset;
	*ret_len = len;
	return true;
}

static bool touches_data(const struct virtio_pci *p, unsigned offset, unsigned len)
{
	unsigned data = p->access_cap + CAP_AT_EXTRA;

	return offset < data + 4 && offset + len > data;
}

static void config_reading(struct pci_dev *pd, unsigned offset, unsigned len)
{
	struct virtio_pci *p = container_of(pd, struct virtio_pci, fn);
	u32 at, n;

	if (touches_data(p, offset, len) && access_of(p, &at, &n))
		st32(pd->config + p->access_cap + CAP_AT_EXTRA, (u32)bar_read(p, at, n));
}

static void config_written(struct pci_dev *pd, unsigned offset, unsigned len)
{
	struct virtio_pci *p = container_of(pd, struct virtio_pci, fn);
	bool was_off = p->v->dma_off;
	u32 at, n;

	if (touches_data(p, offset, len) && access_of(p, &at, &n)) {
		u32 data = ld32(pd->config + p->access_cap + CAP_AT_EXTRA);

		bar_write(p, at, n, data & bits_mask(n));
	}
	p->v->dma_off = !(ld16(pd->config + PCI_COMMAND) & PCI_COMMAND_MASTER);
	for (unsigned i = 0; was_off && !p->v->dma_off && i < p->v->nr_queues; i++)
		virtio_run(p->v, i);
}

static int add_cap(struct virtio_pci *p, u8 type, unsigned offset, unsigned length, unsigned extra)
{
	int at = pci_dev_add_cap(&p->fn, CAP_VENDOR, CAP_LEN + extra);
	u8 *cap = p->fn.init + at;

	if (at < 0)
		return at;
	cap[CAP_AT_LEN] = (u8)(CAP_LEN + extra);
	cap[CAP_AT_TYPE] = type;
	cap[CAP_AT_BAR] = BAR_REGS;
	st32(cap + CAP_AT_OFFSET, offset);
	st32(cap + CAP_AT_LENGTH, length);
	return at;
}

static int add_caps(struct virtio_pci *p)
{
	const struct virtio *v = p->v;
	int common = add_cap(p, CAP_COMMON_CFG, AT_COMMON, COMMON_LEN, 0);
	int isr = add_cap(p, CAP_ISR_CFG, AT_ISR, 1, 0);
	int config = v->config_len ? add_cap(p, CAP_DEVICE_CFG, AT_CONFIG, v->config_len, 0) : 0;
	int notify = add_cap(p, CAP_NOTIFY_CFG, AT_NOTIFY, v->nr_queues * NOTIFY_MUL, 4);
	int access = add_cap(p, CAP_PCI_CFG, 0, 0, 4);

	if (common < 0 || isr < 0 || config < 0 || notify < 0 || access < 0)
		return -ENOSPC;
	st32(p->fn.init + notify + CAP_AT_EXTRA, NOTIFY_MUL);
	p->access_cap = (u8)access;
	p->fn.wmask[access + CAP_AT_BAR] = 0xff;
	memset(p->fn.wmask + access + CAP_AT_OFFSET, 0xff, 12);
	memcpy(p->fn.config, p->fn.init, sizeof(p->fn.config));
	return 0;
}

/* ---- the device's ---- */

int virtio_pci_init(struct virtio_pci *p, struct virtio *v, struct err *err)
{
	const struct pci_id id = {
		.vendor = VENDOR,
		.device = (u16)(DEVICE_BASE + v->ops->id),
		.subsystem_vendor = VENDOR,
		.subsystem = (u16)(DEVICE_BASE + v->ops->id),
		.class_code = v->ops->class_code,
		.revision = REVISION,
		.int_pin = 1,
	};
	struct device *bus = pci_find(v->dev->vm);
	int r;

	if (!bus)
		return err_set(err, -ENODEV, "the machine has no PCI bus to put it on");
	p->v = v;
	v->transport = &transport;
	v->transport_opaque = p;
	pci_dev_init(&p->fn, v->dev, &id);
	p->fn.config_reading = config_reading;
	p->fn.config_written = config_written;
	r = pci_dev_add_bar(&p->fn, BAR_REGS, PCI_BAR_MEM64, BAR_SIZE, &bar_ops, p);
	if (r == 0)
		r = pci_msi_init_x(&p->msix, &p->fn, v->nr_queues + CONFIG_VECTORS, BAR_MSIX);
	if (r == 0)
		r = add_caps(p);
	if (r < 0)
		return err_sys(err, r, "its PCI function cannot be made");
	return pci_add(bus, &p->fn, -1, 0, err);
}

void virtio_pci_fini(struct virtio_pci *p)
{
	pci_del(&p->fn);
}

void virtio_pci_reset(struct virtio_pci *p)
{
	virtio_reset(p->v);
	pci_dev_reset(&p->fn);
	p->v->dma_off = true;
	forget(p);
}

int virtio_pci_post_load(struct virtio_pci *p, struct err *err)
{
	bool ok = !(p->isr & ~(ISR_QUEUE | ISR_CONFIG)) && p->config_vector == vector_of(p, p->config_vector);
	int r = pci_dev_post_load(&p->fn, err);

	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		ok = ok && p->vector[i] == vector_of(p, p->vector[i]);
	if (r == 0 && !ok)
		r = err_set(err, -EINVAL, "the state of device %s has impossible interrupts", p->v->dev->id);
	if (r < 0)
		return r;
	p->v->dma_off = !(ld16(p->fn.config + PCI_COMMAND) & PCI_COMMAND_MASTER);
	pci_set_intx(&p->fn, p->isr);
	return virtio_post_load(p->v, err);
}
