/* See vdriver.h. Registers: [virtio 4.1.4.3]; rings: [virtio 2.7] [virtio 2.8]. */
#include "vdriver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "dev/pci.h"

#define AVAIL BIT(7)
#define USED  BIT(15)

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "virtio driver: %s\n", what);
	abort();
}

u8 *vdriver_mem(struct vdriver *d, u64 gpa)
{
	return d->b->vm.ram.base + gpa;
}

static u64 cfg(struct vdriver *d, unsigned off, unsigned size)
{
	return bus_read(&d->b->vm.bus, BUS_MMIO, d->ecam + off, size);
}

static void cfg_write(struct vdriver *d, unsigned off, unsigned size, u64 val)
{
	bus_write(&d->b->vm.bus, BUS_MMIO, d->ecam + off, size, val);
}

u64 vdriver_read(struct vdriver *d, unsigned off, unsigned size)
{
	return bus_read(&d->b->vm.bus, BUS_MMIO, d->regs + off, size);
}

void vdriver_write(struct vdriver *d, unsigned off, unsigned size, u64 val)
{
	bus_write(&d->b->vm.bus, BUS_MMIO, d->regs + off, size, val);
}

void vdriver_find(struct vdriver *d, struct board *b, u16 type, unsigned nth)
{
	memset(d, 0, sizeof(*d));
	d->b = b;
	for (unsigned slot = 0; slot < 32; slot++) {
		d->ecam = PCI_ECAM_BASE + (slot << 15);
		if (cfg(d, 0, 4) != (0x1af4u | (0x1040u + type) << 16) || nth--)
			continue;
		/* away from where a board may have put others */
		d->regs = PCI_MMIO_BASE + 16 * MiB + slot * 0x10000;
		d->msix = d->regs + 0x8000;
		cfg_write(d, 0x10, 4, d->regs);
		cfg_write(d, 0x14, 4, 0);
		cfg_write(d, 0x18, 4, d->msix);
		cfg_write(d, PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
		d->nr_queues = (u16)vdriver_read(d, 0x12, 2);
		return;
	}
	must(false, "there is no such device");
}

u8 vdriver_status(struct vdriver *d)
{
	return (u8)vdriver_read(d, 0x14, 1);
}

void vdriver_set_status(struct vdriver *d, u8 val)
{
	vdriver_write(d, 0x14, 1, val);
}

u64 vdriver_offered(struct vdriver *d)
{
	u64 f = 0;

	for (unsigned i = 0; i < 2; i++) {
		vdriver_write(d, 0, 4, i);
		f |= vdriver_read(d, 4, 4) << 32 * i;
	}
	return f;
}

bool vdriver_negotiate(struct vdriver *d, u64 features)
{
	vdriver_set_status(d, 0);
	vdriver_set_status(d, VIRTIO_ACKNOWLEDGE);
	vdriver_set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	features |= VIRTIO_F_VERSION_1;
	for (unsigned i = 0; i < 2; i++) {
		vdriver_write(d, 8, 4, i);
		vdriver_write(d, 0xc, 4, (u32)(features >> 32 * i));
	}
	vdriver_set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
	d->features = features;
	d->packed = features & VIRTIO_F_RING_PACKED;
	d->event_idx = features & VIRTIO_F_EVENT_IDX;
	return vdriver_status(d) & VIRTIO_FEATURES_OK;
}

static void write64(struct vdriver *d, unsigned off, u64 val)
{
	vdriver_write(d, off, 4, (u32)val);
	vdriver_write(d, off + 4, 4, (u32)(val >> 32));
}

void vdriver_queue(struct vdriver *d, unsigned q, u16 size)
{
	struct vdriver_queue *vq = &d->q[q];

	memset(vq, 0, sizeof(*vq));
	vq->size = size;
	vq->desc = VDRIVER_RINGS + q * 0x10000;
	vq->driver = vq->desc + 0x4000;
	vq->device = vq->desc + 0x8000;
	vq->wrap = vq->used_wrap = true;
	memset(vdriver_mem(d, vq->desc), 0, 0x10000);
	vdriver_write(d, 0x16, 2, q);
	vdriver_write(d, 0x18, 2, size);
	write64(d, 0x20, vq->desc);
	write64(d, 0x28, vq->driver);
	write64(d, 0x30, vq->device);
	vdriver_write(d, 0x1c, 2, 1);
}

void vdriver_start(struct vdriver *d, u64 features, u16 size)
{
	must(vdriver_negotiate(d, features), "the features are refused");
	for (unsigned q = 0; q < d->nr_queues; q++)
		vdriver_queue(d, q, size);
	vdriver_set_status(d, 0xf);
	must(vdriver_status(d) == 0xf, "the device is not content");
}

void vdriver_desc(struct vdriver *d, unsigned q, unsigned i, u64 addr, u32 len, u16 flags, u16 next)
{
	u8 *p = vdriver_mem(d, d->q[q].desc + 16ull * i);

	st64(p, addr);
	st32(p + 8, len);
	st16(p + 12, d->packed ? next : flags);
	st16(p + 14, d->packed ? flags : next);
}

void vdriver_offer(struct vdriver *d, unsigned q, u16 head)
{
	struct vdriver_queue *vq = &d->q[q];

	st16(vdriver_mem(d, vq->driver + 4 + 2ull * (vq->avail % vq->size)), head);
	st16(vdriver_mem(d, vq->driver + 2), ++vq->avail);
}

static u16 add_packed(struct vdriver *d, unsigned q, const struct vdriver_seg *segs, unsigned n)
{
	struct vdriver_queue *vq = &d->q[q];
	u16 id = vq->free, first = vq->free, first_flags = 0;

	for (unsigned i = 0; i < n; i++) {
		u16 flags = (u16)((segs[i].write ? VDRIVER_WRITE : 0) | (i + 1 < n ? VDRIVER_NEXT : 0) |
				  (vq->wrap ? AVAIL : USED));

		vdriver_desc(d, q, vq->free, segs[i].addr, segs[i].len, i ? flags : 0, id);
		if (i == 0) {
			first_flags = flags;
			/* not yet available */
			st16(vdriver_mem(d, vq->desc + 16ull * first + 14), (u16)(flags ^ (AVAIL | USED)));
		}
		if (++vq->free == vq->size) {
			vq->free = 0;
			vq->wrap = !vq->wrap;
		}
	}
	vq->entries[id] = (u16)n;
	st16(vdriver_mem(d, vq->desc + 16ull * first + 14), first_flags);
	return id;
}

u16 vdriver_add(struct vdriver *d, unsigned q, const struct vdriver_seg *segs, unsigned n)
{
	struct vdriver_queue *vq = &d->q[q];
	u16 head = vq->free % vq->size;

	if (d->packed)
		return add_packed(d, q, segs, n);
	for (unsigned i = 0; i < n; i++) {
		u16 at = vq->free % vq->size;

		vq->free = (u16)(at + 1);
		vdriver_desc(d, q, at, segs[i].addr, segs[i].len,
			     (u16)((segs[i].write ? VDRIVER_WRITE : 0) | (i + 1 < n ? VDRIVER_NEXT : 0)),
			     (u16)(vq->free % vq->size));
	}
	vdriver_offer(d, q, head);
	return head;
}

void vdriver_kick(struct vdriver *d, unsigned q)
{
	vdriver_write(d, 0x3000 + 4 * q, 2, q);
}

bool vdriver_used(struct vdriver *d, unsigned q, u32 *ret_id, u32 *ret_len)
{
	struct vdriver_queue *vq = &d->q[q];
	const u8 *p;

	if (!d->packed) {
		if (ld16(vdriver_mem(d, vq->device + 2)) == vq->used)
			return false;
		p = vdriver_mem(d, vq->device + 4 + 8ull * (vq->used++ % vq->size));
		*ret_id = ld32(p);
		*ret_len = ld32(p + 4);
		return true;
	}
	p = vdriver_mem(d, vq->desc + 16ull * vq->used);
	u16 flags = ld16(p + 14);
	if (!!(flags & AVAIL) != vq->used_wrap || !!(flags & USED) != vq->used_wrap)
		return false;
	*ret_id = ld16(p + 12);
	*ret_len = ld32(p + 8);
	must(*ret_id < vq->size, "a used buffer has an id that was never given");
	vq->used = (u16)(vq->used + vq->entries[*ret_id]);
	if (vq->used >= vq->size) {
		vq->used = (u16)(vq->used - vq->size);
		vq->used_wrap = !vq->used_wrap;
	}
	return true;
}
