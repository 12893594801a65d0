/* virtio-rng: random numbers of the host's kernel.
 *
 * Document: virtio 1.2, [virtio 5.4].
 *
 * How it works: a buffer gets CHUNK bytes at most, however long it is; a driver asks again. A guest gets RATE bytes a second
 * on average, so that a flood of requests costs the host next to nothing (hostile case G38); what has to wait stays in
 * the ring.
 *
 * Omitted: nothing. Threads: vCPUs and the main thread (timer), under the device's lock.
 */
#include "base/os.h"
#include "dev/virtio/virtio.h"
#include "dev/virtio/virtio_pci.h"
#include "vm/clock.h"
#include "vm/throttle.h"
#include "vm/vm.h"

#define CHUNK      4096
#define RATE       MiB
#define CLASS_CODE 0x00ff00

struct virtio_rng {
	struct device dev;
	struct virtio v;
	struct virtio_pci pci;
	struct throttle rate;
	struct clock_timer *due;
};

static bool request(struct virtio *v, unsigned q, const struct virtq_buf *buf)
{
	struct virtio_rng *rng = container_of(v, struct virtio_rng, v);
	u64 now = clock_now(rng->dev.vm), wait = throttle_wait(&rng->rate, now);
	struct virtq_used used = { .token = buf->token };
	u8 bytes[CHUNK];
	size_t len = MIN(buf->in_len, sizeof(bytes));

	if (wait) {
		clock_timer_arm(rng->due, now + wait);
		return false;
	}
	throttle_take(&rng->rate, now, len);
	os_random(bytes, len);
	used.written = (u32)virtq_write(rng->dev.vm, buf->iov + buf->nr_out, buf->nr_in, 0, bytes, len);
	virtq_push(v, q, &used, 1);
	return true;
}

static void on_due(void *opaque)
{
	struct virtio_rng *rng = opaque;

	virtio_run(&rng->v, 0);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_ENTROPY,
	.class_code = CLASS_CODE,
	.request = request,
};

static int virtio_rng_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct virtio_rng *rng = container_of(dev, struct virtio_rng, dev);

	rng->rate.rate = RATE;
	rng->due = clock_timer_new(dev->vm, dev->lock, on_due, rng);
	virtio_init(&rng->v, dev, &ops, 0, conf->packed, 1, NULL, 0);
	return virtio_pci_init(&rng->pci, &rng->v, err);
}

static void virtio_rng_reset(struct device *dev, enum reset_kind kind)
{
	struct virtio_rng *rng = container_of(dev, struct virtio_rng, dev);

	clock_timer_cancel(rng->due);
	rng->rate.free = 0;
	virtio_pci_reset(&rng->pci);
}

static void virtio_rng_quiesce(struct device *dev)
{
	virtio_quiesce(&container_of(dev, struct virtio_rng, dev)->v);
}

static void virtio_rng_resume(struct device *dev)
{
	virtio_resume(&container_of(dev, struct virtio_rng, dev)->v);
}

static const struct state_field virtio_rng_state[] = {
	VIRTIO_STATE(virtio_rng, v),
	VIRTIO_PCI_STATE(virtio_rng, pci),
	STATE_END,
};

static int virtio_rng_post_load(struct device *dev, struct err *err)
{
	struct virtio_rng *rng = container_of(dev, struct virtio_rng, dev);
	int r = virtio_pci_post_load(&rng->pci, err);

	/* What had to wait when it was saved. */
	if (r == 0)
		clock_timer_arm(rng->due, clock_now(dev->vm));
	return r;
}

static void virtio_rng_fini(struct device *dev)
{
	struct virtio_rng *rng = container_of(dev, struct virtio_rng, dev);

	clock_timer_free(rng->due);
	virtio_pci_fini(&rng->pci);
}

const struct device_ops virtio_rng_device = {
	.name = "virtio-rng",
	.help = "random numbers of the host, by virtio",
	.size = sizeof(struct virtio_rng),
	.init = virtio_rng_init,
	.reset = virtio_rng_reset,
	.quiesce = virtio_rng_quiesce,
	.resume = virtio_rng_resume,
	.state = virtio_rng_state,
	.post_load = virtio_rng_post_load,
	.fini = virtio_rng_fini,
};
