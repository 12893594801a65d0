/* debugcon: one port that prints what is written to it.
 *
 * The convention of other monitors: port E9H, reads give E9H so that a guest can tell that it is
 * there. Bytes go to the character back end, or without one to standard output.
 *
 * A byte that cannot be taken at once is dropped and counted: test output must never hold up the guest.
 * Standard output is asked first whether it has room (poll), since it may be a pipe that nobody reads.
 *
 * Omitted: nothing. Threads: vCPUs, under the device's lock.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/backend.h"
#include "vm/bus.h"
#include "vm/device.h"
#include "vm/vm.h"

#define DEBUGCON_PORT 0xe9

struct debugcon {
	struct device dev;
	struct region region;
	struct chr *chr;
	u64 dropped;
};

static bool to_stdout(u8 byte)
{
	struct pollfd pfd = { .fd = STDOUT_FILENO, .events = POLLOUT };
	ssize_t n;

	if (poll(&pfd, 1, 0) != 1 || !(pfd.revents & POLLOUT))
		return false;
	do
		n = write(STDOUT_FILENO, &byte, 1);
	while (n < 0 && errno == EINTR);
	return n == 1;
}

static u64 debugcon_read(void *opaque, u64 offset, unsigned size)
{
	return 0xe9;
}

static void debugcon_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct debugcon *d = opaque;
	u8 byte = (u8)val;

	if (d->chr ? chr_write(d->chr, &byte, 1) : to_stdout(byte))
		return;
	d->dropped++;
	log_guest("%s: output dropped, nobody reads it (%llu bytes so far)", d->dev.id,
		  (unsigned long long)d->dropped);
}

static const struct region_ops debugcon_region_ops = { .read = debugcon_read,
						       .write = debugcon_write,
						       .max_size = 1 };

static int debugcon_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct debugcon *d = container_of(dev, struct debugcon, dev);
	u64 port = conf->base ? conf->base : DEBUGCON_PORT;
	int ret;

	d->chr = conf->chr;
	d->region = (struct region){ dev->id, &debugcon_region_ops, d, dev->lock, BUS_PIO, port, 1 };
	ret = bus_add(&dev->vm->bus, &d->region);
	return ret ? err_sys(err, ret, "cannot place %s at port %#llx", dev->id, (unsigned long long)port)
		   : 0;
}

static void debugcon_reset(struct device *dev, enum reset_kind kind)
{
}

static void debugcon_fini(struct device *dev)
{
	struct debugcon *d = container_of(dev, struct debugcon, dev);

	bus_del(&dev->vm->bus, &d->region);
}

const struct device_ops debugcon_device = {
	.name = "debugcon",
	.help = "port 0xe9 prints what is written to it",
	.size = sizeof(struct debugcon),
	.init = debugcon_init,
	.reset = debugcon_reset,
	.fini = debugcon_fini,
};
