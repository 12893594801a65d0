/* virtio-fs: a shared folder.
 *
 * Document: virtio 1.2, [virtio 5.11].
 *
 * How it works: a buffer of the driver is one request of the FUSE protocol, and goes as it is to the back end, which reads and
 * writes the guest's memory directly; many are under way at once. The first queue is for what must not wait behind requests
 * (forgets, interrupts). What a request says is the back end's to check. What waits for nothing on the host it may answer at
 * once, on the vCPU's thread; but only for a while of each run, so that a driver which floods the queue does not hold that
 * thread, and the device's lock, for long.
 *
 * A reset by the driver leaves requests on their way, which are recognised by their epoch and dropped (virtio.h). A new
 * session begins with the driver's INIT, which the back end takes for one.
 *
 * Omitted: the window for direct access to file contents (DAX), notifications; their features are not offered.
 *
 * Threads: vCPUs (requests, and completions at once) and the back end's (completions), under the device's lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "base/os.h"
#include "dev/virtio/virtio.h"
#include "dev/virtio/virtio_pci.h"
#include "vm/dma.h"
#include "vm/fs.h"
#include "vm/vm.h"

#define NR_QUEUES  2      /* high priority, requests */
#define AT_ONCE_NS 200000 /* of a run: so long requests may be answered in it */
#define TAG_LEN    36
#define CLASS_CODE 0x018000 /* mass storage, other */

/* [virtio 5.11.4] */
struct fs_config {
	char tag[TAG_LEN]; /* ends with a zero only where it is shorter */
	u32 num_request_queues;
} packed_struct;

_Static_assert(sizeof(struct fs_config) == 40, "configuration");
_Static_assert(FS_MAX_PARTS >= VIRTIO_MAX_SEGS, "parts");

enum { C_REQUESTS, C_READ_BYTES, C_WRITTEN, NR_COUNTERS };

struct virtio_fs {
	struct device dev;
	struct virtio v;
	struct virtio_pci pci;
	struct fs_config config;
	struct fs *fs;
	u64 at_once_until; /* of this run; 0: it has not begun */
	bool submitting;
	u64 count[NR_COUNTERS];
};

struct request {
	struct fs_req req;
	struct virtio_fs *vfs;
	struct virtq_token token;
	u16 queue;
	struct iovec iov[];
};

static void count(struct virtio_fs *vfs, unsigned what, u64 n)
{
	__atomic_store_n(&vfs->count[what], vfs->count[what] + n, __ATOMIC_RELAXED);
}

static void complete(struct virtio_fs *vfs, unsigned q, struct virtq_token token, u32 written)
{
	const struct virtq_used used = { token, written };

	virtq_push(&vfs->v, q, &used, 1);
}

static void done(struct fs_req *req, u32 written)
{
	struct request *r = container_of(req, struct request, req);
	struct virtio_fs *vfs = r->vfs;
	struct iov_walk w = { r->iov + req->nr_out, req->nr_in, 0, written };
	struct iovec part;

	while (iov_next(&w, &part))
		dma_written(vfs->dev.vm, part.iov_base, part.iov_len);
	count(vfs, C_REQUESTS, 1);
	count(vfs, C_READ_BYTES, written);
	count(vfs, C_WRITTEN, req->out_len);
	complete(vfs, r->queue, r->token, written);
	/* A run tells the driver at its end, once. */
	if (!vfs->submitting)
		virtq_notify(&vfs->v, r->queue);
	free(r);
}

static bool may_at_once(struct virtio_fs *vfs)
{
	u64 now = os_now_ns();

	if (!vfs->at_once_until)
		vfs->at_once_until = now + AT_ONCE_NS;
	return now < vfs->at_once_until;
}

static bool request(struct virtio *v, unsigned q, const struct virtq_buf *buf)
{
	struct virtio_fs *vfs = container_of(v, struct virtio_fs, v);
	unsigned nr = buf->nr_out + buf->nr_in;
	struct request *r = malloc(sizeof(*r) + nr * sizeof(r->iov[0]));

	/* Without an answer the driver fails the request. */
	if (!r) {
		complete(vfs, q, buf->token, 0);
		return true;
	}
	memcpy(r->iov, buf->iov, nr * sizeof(r->iov[0]));
	r->req = (struct fs_req){
		.iov = r->iov,
		.nr_out = buf->nr_out,
		.nr_in = buf->nr_in,
		.out_len = buf->out_len,
		.in_len = buf->in_len,
		.done = done,
		.at_once = may_at_once(vfs),
	};
	r->vfs = vfs;
	r->token = buf->token;
	r->queue = (u16)q;
	vfs->submitting = true;
	vfs->fs->ops->submit(vfs->fs, &r->req);
	vfs->submitting = false;
	return true;
}

static void taken(struct virtio *v, unsigned q)
{
	container_of(v, struct virtio_fs, v)->at_once_until = 0;
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_FS,
	.class_code = CLASS_CODE,
	.request = request,
	.taken = taken,
};

/* ---- the device ---- */

static int virtio_fs_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct virtio_fs *vfs = container_of(dev, struct virtio_fs, dev);
	size_t len;

	if (!conf->fs)
		return err_set(err, -EINVAL, "a shared folder needs a back end");
	len = strlen(conf->fs->tag);
	if (!len || len > TAG_LEN)
		return err_set(err, -EINVAL, "the tag of a shared folder has 1 to %u bytes, not %zu", TAG_LEN,
			       len);
	memcpy(vfs->config.tag, conf->fs->tag, len);
	vfs->config.num_request_queues = NR_QUEUES - 1;
	virtio_init(&vfs->v, dev, &ops, 0, conf->packed, NR_QUEUES, &vfs->config, sizeof(vfs->config));
	vfs->fs = conf->fs;
	vfs->fs->lock = dev->lock;
	return virtio_pci_init(&vfs->pci, &vfs->v, err);
}

static void virtio_fs_quiesce(struct device *dev)
{
	struct virtio_fs *vfs = container_of(dev, struct virtio_fs, dev);

	virtio_quiesce(&vfs->v);
	vfs->fs->ops->drain(vfs->fs);
}

static void virtio_fs_resume(struct device *dev)
{
	virtio_resume(&container_of(dev, struct virtio_fs, dev)->v);
}

static unsigned virtio_fs_stats(struct device *dev, struct device_stat ret[DEVICE_MAX_STATS])
{
	static const char *const names[NR_COUNTERS] = {
		[C_REQUESTS] = "requests",
		[C_READ_BYTES] = "bytes_to_guest",
		[C_WRITTEN] = "bytes_from_guest",
	};
	struct virtio_fs *vfs = container_of(dev, struct virtio_fs, dev);

	for (unsigned i = 0; i < NR_COUNTERS; i++)
		ret[i] = (struct device_stat){ names[i], __atomic_load_n(&vfs->count[i], __ATOMIC_RELAXED) };
	return NR_COUNTERS;
}

static void virtio_fs_reset(struct device *dev, enum reset_kind kind)
{
	struct virtio_fs *vfs = container_of(dev, struct virtio_fs, dev);

	vfs->fs->ops->drain(vfs->fs);
	vfs->fs->ops->reset(vfs->fs);
	virtio_pci_reset(&vfs->pci);
}

static const struct state_field virtio_fs_state[] = {
	VIRTIO_STATE(virtio_fs, v),
	VIRTIO_PCI_STATE(virtio_fs, pci),
	STATE_END,
};

static int virtio_fs_post_load(struct device *dev, struct err *err)
{
	return virtio_pci_post_load(&container_of(dev, struct virtio_fs, dev)->pci, err);
}

static void virtio_fs_fini(struct device *dev)
{
	struct virtio_fs *vfs = container_of(dev, struct virtio_fs, dev);

	if (vfs->fs)
		vfs->fs->ops->drain(vfs->fs);
	virtio_pci_fini(&vfs->pci);
}

const struct device_ops virtio_fs_device = {
	.name = "virtio-fs",
	.size = sizeof(struct virtio_fs),
	.init = virtio_fs_init,
	.reset = virtio_fs_reset,
	.quiesce = virtio_fs_quiesce,
	.resume = virtio_fs_resume,
	.stats = virtio_fs_stats,
	.state = virtio_fs_state,
	.post_load = virtio_fs_post_load,
	.fini = virtio_fs_fini,
};
