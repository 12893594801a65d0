/* What all virtio devices share but their transport: status, features, queue registers, the way of a buffer to the
 * device type.
 *
 * Document: virtio 1.2, [virtio 2.1] to [virtio 2.5], [virtio 3.1].
 *
 * How it works: the driver's writes are taken in the states in which they are allowed, and ignored in others. Status
 * bits are only ever added until a reset clears all; FEATURES_OK stays clear for features that were not offered, and
 * for a driver that is not of version 1; DRIVER_OK needs FEATURES_OK. A reset takes effect at once, but the status
 * reads 0 only when nothing is on its way any more, because from then on the driver may use the memory for
 * something else [virtio 2.4.1]: so no vCPU ever waits for a disk.
 *
 * A run takes RUN_BUDGET buffers at most; what is left is for the main loop. So a driver that fills the ring as fast
 * as it is emptied cannot keep a vCPU's thread from its mailbox.
 *
 * Omitted: legacy devices (before 1.0) and their byte orders, as no driver of the last ten years needs them; resets of
 * single queues and other features that are not offered.
 *
 * Threads: under the device's lock; virtio_init, virtio_reset, virtio_post_load on the main thread.
 */
#include "dev/virtio/virtio.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "base/loop.h"
#include "vm/vm.h"

#define RUN_BUDGET 1024

#define FEATURES_OF_ALL (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1)
#define STATUS_OF_DRIVER \
	(VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK | VIRTIO_FAILED)

void virtio_init(struct virtio *v, struct device *dev, const struct virtio_ops *ops, u64 features,
		 bool packed, unsigned nr_queues, const void *config, size_t config_len)
{
	assert(nr_queues >= 1 && nr_queues <= VIRTIO_MAX_QUEUES);
	v->dev = dev;
	v->ops = ops;
	v->offered = features | FEATURES_OF_ALL | (packed ? VIRTIO_F_RING_PACKED : 0);
	v->nr_queues = (u16)nr_queues;
	v->config = config;
	v->config_len = (u16)config_len;
}

void virtio_fill_queue(struct virtio *v, unsigned q)
{
	v->q[q].fill = true;
}

/* Everything but the status. */
static void stop(struct virtio *v)
{
	v->epoch++;
	v->features = 0;
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++) {
		v->q[i] = (struct virtq){ .fill = v->q[i].fill };
		v->q_size[i] = i < v->nr_queues ? VIRTIO_QUEUE_SIZE : 0;
		v->q_enabled[i] = 0;
		v->q_desc[i] = v->q_driver[i] = v->q_device[i] = 0;
		v->q_avail[i] = v->q_used[i] = 0;
	}
}

void virtio_reset(struct virtio *v)
{
	stop(v);
	v->status = 0;
	v->resetting = false;
	v->quiet = false;
}

int virtio_post_load(struct virtio *v, struct err *err)
{
	bool ok = !(v->features & ~v->offered) && !(v->status & ~(STATUS_OF_DRIVER | VIRTIO_NEEDS_RESET)) &&
		  (!(v->status & VIRTIO_DRIVER_OK) || v->status & VIRTIO_FEATURES_OK);

	v->resetting = false;
	v->epoch++;
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES && ok; i++) {
		bool here = i < v->nr_queues;
		u16 mask = virtio_has(v, VIRTIO_F_RING_PACKED) ? 0x7fff : 0;

		v->q[i] = (struct virtq){ .fill = v->q[i].fill };
		ok = v->q_enabled[i] <= here && v->q_size[i] <= (here ? VIRTIO_QUEUE_SIZE : 0) &&
		     (v->q_size[i] || !here);
		if (!ok || !v->q_enabled[i])
			continue;
		ok = (v->q_avail[i] & mask) < v->q_size[i] && (v->q_used[i] & mask) < v->q_size[i];
		if (v->status & VIRTIO_NEEDS_RESET)
			continue;
		/* Nothing was on its way when it was saved. */
		ok = ok && virtq_map(v, i) && v->q_avail[i] == v->q_used[i];
	}
	if (!ok)
		return err_set(err, -EINVAL,
			       "the state of device %s has impossible queues, features or status",
			       v->dev->id);
	return 0;
}

/* ---- requests ---- */

static void run_all(void *opaque)
{
	struct virtio *v = opaque;

	pthread_mutex_lock(v->dev->lock);
	for (unsigned i = 0; i < v->nr_queues; i++)
		virtio_run(v, i);
	pthread_mutex_unlock(v->dev->lock);
}

void virtio_quiesce(struct virtio *v)
{
	pthread_mutex_lock(v->dev->lock);
	v->quiet = true;
	pthread_mutex_unlock(v->dev->lock);
}

void virtio_resume(struct virtio *v)
{
	pthread_mutex_lock(v->dev->lock);
	v->quiet = false;
	pthread_mutex_unlock(v->dev->lock);
	run_all(v);
}

void virtio_run(struct virtio *v, unsigned n)
{
	struct virtq *q = &v->q[n];
	unsigned budget = RUN_BUDGET;
	bool blocked = false;

	if (!virtio_running(v) || v->dma_off || v->quiet || !q->desc)
		return;
	if (q->fill) {
		v->ops->buffers(v, n);
		return;
	}
	virtq_listen(v, n, false);
	do {
		while (budget && !blocked && virtq_pop(v, n, &v->buf)) {
			budget--;
			if (!v->ops->request(v, n, &v->buf)) {
				virtq_unpop(v, n, &v->buf.token, 1);
				blocked = true;
			}
		}
	} while (budget && !blocked && virtq_listen(v, n, true));
	if (budget < RUN_BUDGET && v->ops->taken)
		v->ops->taken(v, n);
	virtq_notify(v, n);
	if (!budget && v->dev->vm->loop)
		loop_post(v->dev->vm->loop, run_all, v);
}

void virtio_notified(struct virtio *v, unsigned n)
{
	if (n < v->nr_queues && v->q_enabled[n])
		virtio_run(v, n);
}

void virtio_config_changed(struct virtio *v)
{
	v->generation++;
	if (virtio_running(v))
		v->transport->config_interrupt(v->transport_opaque);
}

void virtio_broken(struct virtio *v, const char *why)
{
	if (v->status & VIRTIO_NEEDS_RESET)
		return;
	log_guest("%s: the guest's driver is at fault: %s", v->dev->id, why);
	v->status |= VIRTIO_NEEDS_RESET;
	/* [virtio 2.1.2] */
	if (v->status & VIRTIO_DRIVER_OK)
		v->transport->config_interrupt(v->transport_opaque);
}

/* ---- registers ---- */

static void write_zero(struct virtio *v)
{
	if (!v->resetting) {
		stop(v);
		if (v->ops->stopped)
			v->ops->stopped(v);
	}
	v->resetting = v->inflight;
	if (!v->resetting)
		v->status = 0;
}

void virtio_write_status(struct virtio *v, u8 val)
{
	u8 fresh = (u8)(val & STATUS_OF_DRIVER & ~v->status);

	if (!val) {
		write_zero(v);
		return;
	}
	if (v->resetting)
		return;
	if (fresh & VIRTIO_FEATURES_OK &&
	    (v->status & VIRTIO_DRIVER_OK || v->features & ~v->offered || !virtio_has(v, VIRTIO_F_VERSION_1)))
		fresh &= (u8)~VIRTIO_FEATURES_OK;
	if (fresh & VIRTIO_DRIVER_OK && !((v->status | fresh) & VIRTIO_FEATURES_OK))
		fresh &= (u8)~VIRTIO_DRIVER_OK;
	v->status |= fresh;
	if (!(fresh & VIRTIO_DRIVER_OK))
		return;
	if (v->ops->started)
		v->ops->started(v);
	/* What the driver has put there before is for now. */
	for (unsigned i = 0; i < v->nr_queues; i++)
		virtio_run(v, i);
}

void virtio_write_features(struct virtio *v, unsigned word, u32 val)
{
	if (word > 1 || v->status & VIRTIO_FEATURES_OK || v->resetting)
		return;
	v->features &= ~(0xffffffffull << 32 * word);
	v->features |= (u64)val << 32 * word;
}

void virtio_write_size(struct virtio *v, unsigned n, u16 val)
{
	if (n < v->nr_queues && !v->q_enabled[n] && val && val <= VIRTIO_QUEUE_SIZE && !v->resetting)
		v->q_size[n] = val;
}

void virtio_enable_queue(struct virtio *v, unsigned n)
{
	if (n >= v->nr_queues || v->q_enabled[n] || !(v->status & VIRTIO_FEATURES_OK) || v->resetting)
		return;
	v->q_enabled[n] = 1;
	if (virtq_map(v, n))
		virtq_start(v, n);
	else
		virtio_broken(v, "a queue is of an impossible size, not aligned or not in memory");
}
