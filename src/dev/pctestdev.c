/* pc-testdev: what x86 test kernels use to check the processor's I/O instructions and interrupts.
 *
 * The interface is the one kvm-unit-tests expects of a machine:
 *
 *	ports E0H-E3H     a register that reads back, in bytes, words or doublewords
 *	ports E4H-E7H     a write of a page's address asks the host to drop its mapping of that page; accepted
 *	                  without effect, since guest memory is one mapping here and a guest cannot tell
 *	ports 2000H+n     interrupt line n (0..23) goes high for a non-zero byte, low for zero
 *	FF000000H-FF00FFFFH  64 KiB that read back, reached by MMIO exits and not as memory
 *
 * Omitted: nothing. Threads: vCPUs, under the device's lock.
 */
#include <string.h>

#include "base/bits.h"
#include "vm/bus.h"
#include "vm/device.h"
#include "vm/vm.h"

#define PCTESTDEV_DATA  0xe0
#define PCTESTDEV_FLUSH 0xe4
#define PCTESTDEV_LINES 0x2000
#define PCTESTDEV_MMIO  0xff000000ull
#define PCTESTDEV_BYTES 0x10000

struct pctestdev {
	struct device dev;
	struct region data_region, flush_region, line_region, mmio_region;
	u8 data[4];
	bool line[IRQ_NR_GSI];
	u8 mem[PCTESTDEV_BYTES];
};

/* Little-endian, within a buffer of len bytes. */
static u64 get(const u8 *buf, u64 len, u64 offset, unsigned size)
{
	u64 val = 0;

	for (unsigned i = 0; i < size; i++)
		val |= (u64)(offset + i < len ? buf[offset + i] : 0xff) << 8 * i;
	return val;
}

static void put(u8 *buf, u64 len, u64 offset, unsigned size, u64 val)
{
	for (unsigned i = 0; i < size && offset + i < len; i++)
		buf[offset + i] = (u8)(val >> 8 * i);
}

static u64 data_read(void *opaque, u64 offset, unsigned size)
{
	const struct pctestdev *t = opaque;

	return get(t->data, sizeof(t->data), offset, size);
}

static void data_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct pctestdev *t = opaque;

	put(t->data, sizeof(t->data), offset, size, val);
}

static u64 flush_read(void *opaque, u64 offset, unsigned size)
{
	return bits_mask(size);
}

static void flush_write(void *opaque, u64 offset, unsigned size, u64 val)
{
}

static u64 line_read(void *opaque, u64 offset, unsigned size)
{
	return 0xff;
}

static void line_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct pctestdev *t = opaque;

	t->line[offset] = val;
	irq_set(t->dev.vm, (unsigned)offset, val);
}

static u64 mem_read(void *opaque, u64 offset, unsigned size)
{
	const struct pctestdev *t = opaque;

	return get(t->mem, sizeof(t->mem), offset, size);
}

static void mem_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct pctestdev *t = opaque;

	put(t->mem, sizeof(t->mem), offset, size, val);
}

static const struct region_ops data_ops = { .read = data_read, .write = data_write, .max_size = 4 };
static const struct region_ops flush_ops = { .read = flush_read, .write = flush_write, .max_size = 4 };
static const struct region_ops line_ops = { .read = line_read, .write = line_write, .max_size = 1 };
static const struct region_ops mem_ops = { .read = mem_read, .write = mem_write, .max_size = 8 };

static int pctestdev_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct pctestdev *t = container_of(dev, struct pctestdev, dev);
	struct bus *bus = &dev->vm->bus;
	pthread_mutex_t *lock = dev->lock;
	int ret;

	t->data_region = (struct region){ "pc-testdev data", &data_ops,      t, lock, BUS_PIO,
					  PCTESTDEV_DATA,    sizeof(t->data) };
	t->flush_region =
		(struct region){ "pc-testdev flush", &flush_ops, t, lock, BUS_PIO, PCTESTDEV_FLUSH, 4 };
	t->line_region = (struct region){ "pc-testdev lines", &line_ops, t, lock, BUS_PIO,
					  PCTESTDEV_LINES,    IRQ_NR_GSI };
	t->mmio_region = (struct region){ "pc-testdev memory", &mem_ops,      t, lock, BUS_MMIO,
					  PCTESTDEV_MMIO,      sizeof(t->mem) };
	ret = bus_add(bus, &t->data_region);
	if (!ret)
		ret = bus_add(bus, &t->flush_region);
	if (!ret)
		ret = bus_add(bus, &t->line_region);
	if (!ret)
		ret = bus_add(bus, &t->mmio_region);
	return ret ? err_sys(err, ret, "cannot place %s at its ports", dev->id) : 0;
}

static void pctestdev_reset(struct device *dev, enum reset_kind kind)
{
	struct pctestdev *t = container_of(dev, struct pctestdev, dev);

	memset(t->data, 0, sizeof(t->data));
	memset(t->mem, 0, sizeof(t->mem));
	for (unsigned i = 0; i < IRQ_NR_GSI; i++) {
		/* Only what this device raised: another device may hold the line. */
		if (t->line[i])
			irq_set(dev->vm, i, false);
		t->line[i] = false;
	}
}

static int pctestdev_post_load(struct device *dev, struct err *err)
{
	const struct pctestdev *t = container_of(dev, struct pctestdev, dev);

	for (unsigned i = 0; i < IRQ_NR_GSI; i++) {
		if (t->line[i])
			irq_set(dev->vm, i, true);
	}
	return 0;
}

static void pctestdev_fini(struct device *dev)
{
	struct pctestdev *t = container_of(dev, struct pctestdev, dev);

	bus_del(&dev->vm->bus, &t->data_region);
	bus_del(&dev->vm->bus, &t->flush_region);
	bus_del(&dev->vm->bus, &t->line_region);
	bus_del(&dev->vm->bus, &t->mmio_region);
}

static const struct state_field pctestdev_state[] = {
	STATE_U8S(pctestdev, data),
	STATE_FIELD_(pctestdev, line, IRQ_NR_GSI, STATE_BOOL_),
	STATE_U8S(pctestdev, mem),
	STATE_END,
};

const struct device_ops pctestdev_device = {
	.name = "pc-testdev",
	.help = "read-back register at 0xe0, page flush at 0xe4, interrupt line n at 0x2000+n",
	.size = sizeof(struct pctestdev),
	.init = pctestdev_init,
	.reset = pctestdev_reset,
	.state = pctestdev_state,
	.post_load = pctestdev_post_load,
	.fini = pctestdev_fini,
};
