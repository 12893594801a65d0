/* virtio-console: one port, hvc0 in Linux.
 *
 * Document: virtio 1.2, [virtio 5.3].
 *
 * How it works: what the guest sends goes to the character back end as far as that has room. While it has none, the
 * buffer stays with the device, and what was sent of it already is remembered; after 100 ms without room output is
 * dropped and counted until the reader has made room again, so that a reader who does not read never holds up the
 * guest for long (hostile case G37; serial.c does the same). What is typed waits in a short FIFO for the guest's
 * buffers.
 *
 * Omitted: several ports, the size of the terminal, emergency output: features that are not offered.
 *
 * Threads: vCPUs, the main thread for the back end's calls, which come without the device's lock, and timers.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "dev/virtio/virtio.h"
#include "dev/virtio/virtio_pci.h"
#include "vm/backend.h"
#include "vm/clock.h"
#include "vm/vm.h"

#define RX         0
#define TX         1
#define NR_QUEUES  2
#define FIFO_SIZE  256
#define PIECE      512
#define DROP_NS    100000000ull
#define CLASS_CODE 0x078000 /* simple communication controller */

struct virtio_console {
	struct device dev;
	struct virtio v;
	struct virtio_pci pci;
	struct chr *chr;
	struct clock_timer *drop_timer; /* armed while output is held */
	u64 dropped;
	bool dropping;

	/* State */
	u64 sent; /* of the buffer that is next in the transmit queue */
	u8 fifo[FIFO_SIZE];
	u16 fill; /* bytes in it, from the start */
};

/* ---- output ---- */

static bool request(struct virtio *v, unsigned q, const struct virtq_buf *buf)
{
	struct virtio_console *c = container_of(v, struct virtio_console, v);
	const struct virtq_used used = { .token = buf->token };
	u8 bytes[PIECE];
	size_t len;

	while ((len = virtq_read(buf->iov, buf->nr_out, c->sent, bytes, sizeof(bytes))) > 0) {
		size_t n = c->dropping ? len : chr_write(c->chr, bytes, len);

		if (c->dropping)
			c->dropped += n;
		c->sent += n;
		if (n < len) {
			clock_timer_arm(c->drop_timer, clock_now(c->dev.vm) + DROP_NS);
			return false;
		}
	}
	c->sent = 0;
	virtq_push(v, q, &used, 1);
	return true;
}

static void drop_fired(void *opaque)
{
	struct virtio_console *c = opaque;

	c->dropping = true;
	virtio_run(&c->v, TX);
	log_guest("%s: the reader is too slow, output is dropped (%llu bytes so far)", c->dev.id,
		  (unsigned long long)c->dropped);
}

static void on_writable(void *opaque)
{
	struct virtio_console *c = opaque;

	pthread_mutex_lock(c->dev.lock);
	clock_timer_cancel(c->drop_timer);
	c->dropping = false;
	virtio_run(&c->v, TX);
	pthread_mutex_unlock(c->dev.lock);
}

/* ---- input ---- */

/* From the FIFO to the guest's buffers. */
static void deliver(struct virtio_console *c)
{
	struct virtq_buf *buf = &c->v.buf;

	if (c->v.quiet)
		return;
	do {
		while (c->fill && virtq_pop(&c->v, RX, buf)) {
			struct virtq_used used = { .token = buf->token };

			used.written = (u32)virtq_write(c->dev.vm, buf->iov + buf->nr_out, buf->nr_in, 0,
							c->fifo, c->fill);
			c->fill = (u16)(c->fill - used.written);
			memmove(c->fifo, c->fifo + used.written, c->fill);
			virtq_push(&c->v, RX, &used, 1);
		}
		/* Word of new buffers is of interest only while something waits for them. */
	} while (virtq_listen(&c->v, RX, c->fill));
	virtq_notify(&c->v, RX);
}

static void buffers(struct virtio *v, unsigned q)
{
	struct virtio_console *c = container_of(v, struct virtio_console, v);

	deliver(c);
	if (c->chr)
		c->chr->ops->input_ready(c->chr);
}

static size_t can_input(void *opaque)
{
	struct virtio_console *c = opaque;
	size_t room;

	pthread_mutex_lock(c->dev.lock);
	room = virtio_running(&c->v) ? (size_t)FIFO_SIZE - c->fill : 0;
	pthread_mutex_unlock(c->dev.lock);
	return room;
}

static void on_input(void *opaque, const u8 *bytes, size_t len)
{
	struct virtio_console *c = opaque;

	pthread_mutex_lock(c->dev.lock);
	len = MIN(len, (size_t)FIFO_SIZE - c->fill);
	memcpy(c->fifo + c->fill, bytes, len);
	c->fill = (u16)(c->fill + len);
	deliver(c);
	pthread_mutex_unlock(c->dev.lock);
}

/* ---- the device ---- */

static void started(struct virtio *v)
{
	struct virtio_console *c = container_of(v, struct virtio_console, v);

	if (c->chr)
		c->chr->ops->input_ready(c->chr);
}

static void stopped(struct virtio *v)
{
	struct virtio_console *c = container_of(v, struct virtio_console, v);

	c->sent = 0;
	c->fill = 0;
	memset(c->fifo, 0, sizeof(c->fifo));
	clock_timer_cancel(c->drop_timer);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_CONSOLE,
	.class_code = CLASS_CODE,
	.request = request,
	.buffers = buffers,
	.started = started,
	.stopped = stopped,
};

static int virtio_console_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct virtio_console *c = container_of(dev, struct virtio_console, dev);
	int r;

	c->drop_timer = clock_timer_new(dev->vm, dev->lock, drop_fired, c);
	virtio_init(&c->v, dev, &ops, 0, conf->packed, NR_QUEUES, NULL, 0);
	virtio_fill_queue(&c->v, RX);
	r = virtio_pci_init(&c->pci, &c->v, err);
	if (r < 0 || !conf->chr)
		return r;
	c->chr = conf->chr;
	c->chr->on_input = on_input;
	c->chr->can_input = can_input;
	c->chr->on_writable = on_writable;
	c->chr->opaque = c;
	return 0;
}

static void virtio_console_reset(struct device *dev, enum reset_kind kind)
{
	struct virtio_console *c = container_of(dev, struct virtio_console, dev);

	stopped(&c->v);
	c->dropping = false;
	virtio_pci_reset(&c->pci);
}

static void virtio_console_quiesce(struct device *dev)
{
	virtio_quiesce(&container_of(dev, struct virtio_console, dev)->v);
}

static void virtio_console_resume(struct device *dev)
{
	virtio_resume(&container_of(dev, struct virtio_console, dev)->v);
}

static const struct state_field virtio_console_state[] = {
	VIRTIO_STATE(virtio_console, v), VIRTIO_PCI_STATE(virtio_console, pci),
	STATE_U64(virtio_console, sent), STATE_U8S(virtio_console, fifo),
	STATE_U16(virtio_console, fill), STATE_END,
};

static int virtio_console_post_load(struct device *dev, struct err *err)
{
	struct virtio_console *c = container_of(dev, struct virtio_console, dev);

	c->dropping = false;
	if (c->fill > FIFO_SIZE)
		return err_set(err, -EINVAL, "the state of device %s has %u bytes in a FIFO of %u", dev->id,
			       c->fill, FIFO_SIZE);
	/* Output that was held is tried again, or dropped. */
	clock_timer_arm(c->drop_timer, clock_now(dev->vm) + DROP_NS);
	return virtio_pci_post_load(&c->pci, err);
}

static void virtio_console_fini(struct device *dev)
{
	struct virtio_console *c = container_of(dev, struct virtio_console, dev);

	if (c->chr) {
		c->chr->on_input = NULL;
		c->chr->can_input = NULL;
		c->chr->on_writable = NULL;
	}
	clock_timer_free(c->drop_timer);
	virtio_pci_fini(&c->pci);
}

const struct device_ops virtio_console_device = {
	.name = "virtio-console",
	.size = sizeof(struct virtio_console),
	.init = virtio_console_init,
	.reset = virtio_console_reset,
	.quiesce = virtio_console_quiesce,
	.resume = virtio_console_resume,
	.state = virtio_console_state,
	.post_load = virtio_console_post_load,
	.fini = virtio_console_fini,
};
