/* debug-exit: lets a test kernel end bothy with a status of its choice.
 *
 * The convention of other monitors' test devices: a write of N to port F4H ends the process with
 * the status (N << 1) | 1, which is odd, so that it is never mistaken for a power-off. Four ports
 * wide, because test kernels write bytes, words and doublewords. Reads give 0.
 *
 * Omitted: nothing. Threads: vCPUs, under the device's lock.
 */
#include "vm/bus.h"
#include "vm/device.h"
#include "vm/vm.h"

#define DEBUGEXIT_PORT 0xf4

struct debugexit {
	struct device dev;
	struct region region;
};

static u64 debugexit_read(void *opaque, u64 offset, unsigned size)
{
	return 0;
}

static void debugexit_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct debugexit *d = opaque;
	int unset = 0;

	/* The first write decides: the vCPUs go on for a moment and may write again. */
	atomic_compare_exchange_strong(&d->dev.vm->exit_status, &unset, (int)((val << 1 | 1) & 0xff));
	vm_request(d->dev.vm, VM_REQ_EXIT);
}

static const struct region_ops debugexit_region_ops = { .read = debugexit_read,
							.write = debugexit_write,
							.max_size = 4 };

static int debugexit_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct debugexit *d = container_of(dev, struct debugexit, dev);
	u64 port = conf->base ? conf->base : DEBUGEXIT_PORT;
	int ret;

	d->region = (struct region){ dev->id, &debugexit_region_ops, d, dev->lock, BUS_PIO, port, 4 };
	ret = bus_add(&dev->vm->bus, &d->region);
	return ret ? err_sys(err, ret, "cannot place %s at port %#llx", dev->id, (unsigned long long)port)
		   : 0;
}

static void debugexit_reset(struct device *dev, enum reset_kind kind)
{
}

static void debugexit_fini(struct device *dev)
{
	struct debugexit *d = container_of(dev, struct debugexit, dev);

	bus_del(&dev->vm->bus, &d->region);
}

const struct device_ops debugexit_device = {
	.name = "debug-exit",
	.help = "a write of N to port 0xf4 ends bothy with status (N<<1)|1",
	.size = sizeof(struct debugexit),
	.init = debugexit_init,
	.reset = debugexit_reset,
	.fini = debugexit_fini,
};
