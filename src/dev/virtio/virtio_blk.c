/* virtio-blk: a disk.
 *
 * Document: virtio 1.2, [virtio 5.2].
 *
 * How it works: a request of the driver becomes one struct block_req that reads or writes the guest's memory
 * directly; several are under way at once, from all queues. The header is copied and checked before anything is
 * done with it (hostile cases G11, G26 to G28). The status byte is the last one that the device may write, wherever
 * the driver has put the borders of its parts [virtio 2.7.4]. Where the driver has not negotiated flushes, each
 * write is followed by one before it is completed [virtio 5.2.6.2].
 *
 * Limits of rate are kept before a request is taken: what has to wait stays in the driver's ring (drive.c). A failure of
 * the host is the status IOERR.
 *
 * Omitted: features of no use here: geometry, a write cache that the guest switches, secure erase, lifetime, zones.
 *
 * Threads: vCPUs (requests) and the main thread (completions), under the device's lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/iov.h"
#include "dev/drive.h"
#include "dev/virtio/virtio.h"
#include "dev/virtio/virtio_pci.h"
#include "vm/block.h"
#include "vm/clock.h"
#include "vm/dma.h"
#include "vm/vm.h"

/* Features [virtio 5.2.3] */
#define F_SEG_MAX      BIT(2)
#define F_RO           BIT(5)
#define F_BLK_SIZE     BIT(6)
#define F_FLUSH        BIT(9)
#define F_TOPOLOGY     BIT(10)
#define F_MQ           BIT(12)
#define F_DISCARD      BIT(13)
#define F_WRITE_ZEROES BIT(14)

/* Request types and status [virtio 5.2.6] */
#define T_IN           0
#define T_OUT          1
#define T_FLUSH        4
#define T_GET_ID       8
#define T_DISCARD      11
#define T_WRITE_ZEROES 13
#define S_OK           0
#define S_IOERR        1
#define S_UNSUPP       2
#define S_NONE         0xff /* the request is on its way */

#define HEADER_LEN  16
#define RANGE_LEN   16
#define RANGE_UNMAP BIT(0)
#define CLASS_CODE  0x010000 /* mass storage */

/* Two of a buffer's parts are header and status. */
#define SEG_MAX            (VIRTIO_QUEUE_SIZE - 2)
#define PHYSICAL_EXP       3 /* 4 KiB */
#define OPT_IO_BLOCKS      256
#define DISCARD_ALIGN      8
#define MAX_DISCARD        (4u << 20) /* sectors */
#define MAX_ZEROES         (64u << 10)
#define CAPACITY_SHIFT     9
#define RANGES_PER_REQUEST 1

/* [virtio 5.2.4] */
struct blk_config {
	u64 capacity;
	u32 size_max, seg_max;
	u8 geometry[4];
	u32 blk_size;
	u8 physical_block_exp, alignment_offset;
	u16 min_io_size;
	u32 opt_io_size;
	u8 writeback, unused0;
	u16 num_queues;
	u32 max_discard_sectors, max_discard_seg, discard_sector_alignment;
	u32 max_write_zeroes_sectors, max_write_zeroes_seg;
	u8 write_zeroes_may_unmap, unused1[3];
} packed_struct;

struct virtio_blk {
	struct device dev;
	struct virtio v;
	struct virtio_pci pci;
	struct blk_config config;
	struct drive drive;
};

struct blk_req {
	struct block_req req;
	struct virtio_blk *blk;
	struct virtq_token token;
	u32 written;
	u16 queue;
	bool sync; /* a flush follows */
	u8 *status;
	struct iovec iov[];
};

struct header {
	u32 type, reserved;
	u64 sector;
};

_Static_assert(sizeof(struct header) == HEADER_LEN, "header");
_Static_assert(sizeof(struct blk_config) == 60, "configuration");

/* ---- completion ---- */

static void complete(struct virtio_blk *blk, unsigned q, struct virtq_token token, u32 written, u8 *status,
		     u8 val)
{
	const struct virtq_used used = { token, written };

	if (token.epoch == blk->v.epoch) {
		*status = val;
		dma_written(blk->dev.vm, status, 1);
	}
	virtq_push(&blk->v, q, &used, 1);
}

static void done(struct block_req *req, int result)
{
	struct blk_req *r = container_of(req, struct blk_req, req);
	struct virtio_blk *blk = r->blk;
	struct block *block = blk->drive.block;
	unsigned q = r->queue;

	drive_done(&blk->drive, req, result);
	if (result == 0 && r->sync) {
		r->sync = false;
		req->op = BLOCK_FLUSH;
		block->ops->submit(block, req);
		block->ops->commit(block);
		return;
	}
	complete(blk, q, r->token, r->written, r->status, result < 0 ? S_IOERR : S_OK);
	free(r);
	virtq_notify(&blk->v, q);
}

/* ---- requests ---- */

/* Reads and writes: the data's length is what the buffer has besides header and status. */
static u8 transfer(struct virtio_blk *blk, struct blk_req *r, const struct header *h,
		   const struct virtq_buf *buf)
{
	bool write = h->type == T_OUT;
	u64 len = write ? buf->out_len - HEADER_LEN : buf->in_len - 1;

	if (write && blk->drive.block->read_only)
		return S_IOERR;
	if (!len || len % BLOCK_SECTOR || !drive_range(&blk->drive, h->sector, len, &r->req.offset))
		return S_IOERR;
	r->req.op = write ? BLOCK_WRITE : BLOCK_READ;
	r->req.len = len;
	r->req.iov = r->iov;
	r->req.nr_iov = write ? iov_cut(buf->iov, buf->nr_out, HEADER_LEN, len, r->iov)
			      : iov_cut(buf->iov + buf->nr_out, buf->nr_in, 0, len, r->iov);
	return S_NONE;
}

/* Discard and write zeroes [virtio 5.2.6.2] */
static u8 range(struct virtio_blk *blk, struct blk_req *r, const struct header *h,
		const struct virtq_buf *buf)
{
	bool zero = h->type == T_WRITE_ZEROES;
	struct {
		u64 sector;
		u32 sectors, flags;
	} seg;

	_Static_assert(sizeof(seg) == RANGE_LEN, "range");
	if (!virtio_has(&blk->v, zero ? F_WRITE_ZEROES : F_DISCARD))
		return S_UNSUPP;
	if (buf->out_len - HEADER_LEN != RANGE_LEN)
		return buf->out_len - HEADER_LEN > RANGE_LEN ? S_UNSUPP : S_IOERR;
	virtq_read(buf->iov, buf->nr_out, HEADER_LEN, &seg, sizeof(seg));
	if (seg.flags & ~(zero ? RANGE_UNMAP : 0) || seg.sectors > (zero ? MAX_ZEROES : MAX_DISCARD))
		return S_UNSUPP;
	if (!drive_range(&blk->drive, seg.sector, seg.sectors * BLOCK_SECTOR, &r->req.offset))
		return S_IOERR;
	if (!seg.sectors)
		return S_OK;
	r->req.op = zero ? BLOCK_ZERO : BLOCK_DISCARD;
	r->req.unmap = seg.flags & RANGE_UNMAP;
	r->req.len = seg.sectors * BLOCK_SECTOR;
	return S_NONE;
}

/* Fills r->req, or says how the request ends at once. */
static u8 translate(struct virtio_blk *blk, struct blk_req *r, const struct header *h,
		    const struct virtq_buf *buf)
{
	switch (h->type) {
	case T_IN:
	case T_OUT: return transfer(blk, r, h, buf);
	case T_FLUSH: r->req.op = BLOCK_FLUSH; return S_NONE;
	case T_DISCARD:
	case T_WRITE_ZEROES: return range(blk, r, h, buf);
	case T_GET_ID:
		virtq_write(blk->dev.vm, buf->iov + buf->nr_out, buf->nr_in, 0, blk->drive.serial,
			    MIN(buf->in_len - 1, (u64)DRIVE_SERIAL_LEN));
		return S_OK;
	default: return S_UNSUPP;
	}
}

static bool request(struct virtio *v, unsigned q, const struct virtq_buf *buf)
{
	struct virtio_blk *blk = container_of(v, struct virtio_blk, v);
	u32 written = (u32)MIN(buf->in_len, (u64)UINT32_MAX);
	const struct iovec *last;
	struct blk_req *r;
	struct header h;
	u8 *status, val = S_IOERR;

	if (!buf->nr_in) {
		virtio_broken(v, "a request without a byte for its status");
		return false;
	}
	if (!drive_may_pass(&blk->drive, MAX(buf->in_len, buf->out_len)))
		return false;
	last = &buf->iov[buf->nr_out + buf->nr_in - 1];
	status = (u8 *)last->iov_base + last->iov_len - 1;
	r = malloc(sizeof(*r) + (buf->nr_out + buf->nr_in) * sizeof(r->iov[0]));
	if (r) {
		memset(r, 0, sizeof(*r));
		if (virtq_read(buf->iov, buf->nr_out, 0, &h, sizeof(h)) == sizeof(h))
			val = translate(blk, r, &h, buf);
	}
	if (val != S_NONE) {
		free(r);
		complete(blk, q, buf->token, written, status, val);
		return true;
	}
	r->req.done = done;
	r->blk = blk;
	r->token = buf->token;
	r->written = written;
	r->queue = (u16)q;
	r->sync = r->req.op != BLOCK_READ && r->req.op != BLOCK_FLUSH && !virtio_has(v, F_FLUSH);
	r->status = status;
	blk->drive.block->ops->submit(blk->drive.block, &r->req);
	return true;
}

static void taken(struct virtio *v, unsigned q)
{
	struct virtio_blk *blk = container_of(v, struct virtio_blk, v);

	blk->drive.block->ops->commit(blk->drive.block);
}

static void on_due(void *opaque)
{
	struct virtio_blk *blk = opaque;

	for (unsigned i = 0; i < blk->v.nr_queues; i++)
		virtio_run(&blk->v, i);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_BLOCK,
	.class_code = CLASS_CODE,
	.request = request,
	.taken = taken,
};

/* ---- the device ---- */

static void make_config(struct virtio_blk *blk, unsigned queues)
{
	blk->config = (struct blk_config){
		.capacity = blk->drive.block->size >> CAPACITY_SHIFT,
		.seg_max = SEG_MAX,
		.blk_size = BLOCK_SECTOR,
		.physical_block_exp = PHYSICAL_EXP,
		.min_io_size = 1 << PHYSICAL_EXP,
		.opt_io_size = OPT_IO_BLOCKS,
		.num_queues = (u16)queues,
		.max_discard_sectors = MAX_DISCARD,
		.max_discard_seg = RANGES_PER_REQUEST,
		.discard_sector_alignment = DISCARD_ALIGN,
		.max_write_zeroes_sectors = MAX_ZEROES,
		.max_write_zeroes_seg = RANGES_PER_REQUEST,
		.write_zeroes_may_unmap = 1,
	};
}

static int virtio_blk_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct virtio_blk *blk = container_of(dev, struct virtio_blk, dev);
	unsigned queues = conf->block_conf ? MAX(conf->block_conf->queues, 1u) : 1;
	u64 features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY;
	int rc = drive_init(&blk->drive, dev, conf->block, conf->block_conf, on_due, blk, err);

	if (rc < 0)
		return rc;
	if (queues > VIRTIO_MAX_QUEUES)
		return err_set(err, -EINVAL, "%u queues are too many, %u are possible", queues,
			       VIRTIO_MAX_QUEUES);
	features |= conf->block->read_only ? F_RO : F_DISCARD | F_WRITE_ZEROES;
	features |= queues > 1 ? F_MQ : 0;
	make_config(blk, queues);
	virtio_init(&blk->v, dev, &ops, features, conf->packed, queues, &blk->config, sizeof(blk->config));
	return virtio_pci_init(&blk->pci, &blk->v, err);
}

static void virtio_blk_quiesce(struct device *dev)
{
	struct virtio_blk *blk = container_of(dev, struct virtio_blk, dev);

	virtio_quiesce(&blk->v);
	drive_drain(&blk->drive);
}

static void virtio_blk_resume(struct device *dev)
{
	virtio_resume(&container_of(dev, struct virtio_blk, dev)->v);
}

static unsigned virtio_blk_stats(struct device *dev, struct device_stat ret[DEVICE_MAX_STATS])
{
	struct virtio_blk *blk = container_of(dev, struct virtio_blk, dev);

	return drive_stats((struct drive *const[]){ &blk->drive }, 1, ret);
}

static void virtio_blk_reset(struct device *dev, enum reset_kind kind)
{
	struct virtio_blk *blk = container_of(dev, struct virtio_blk, dev);

	drive_drain(&blk->drive);
	drive_reset(&blk->drive);
	virtio_pci_reset(&blk->pci);
}

static const struct state_field virtio_blk_state[] = {
	VIRTIO_STATE(virtio_blk, v),
	VIRTIO_PCI_STATE(virtio_blk, pci),
	STATE_END,
};

static int virtio_blk_post_load(struct device *dev, struct err *err)
{
	struct virtio_blk *blk = container_of(dev, struct virtio_blk, dev);
	int r = virtio_pci_post_load(&blk->pci, err);

	/* What a limit had kept in the rings. */
	if (r == 0)
		clock_timer_arm(blk->drive.due, clock_now(dev->vm));
	return r;
}

static void virtio_blk_fini(struct device *dev)
{
	struct virtio_blk *blk = container_of(dev, struct virtio_blk, dev);

	drive_fini(&blk->drive);
	virtio_pci_fini(&blk->pci);
}

const struct device_ops virtio_blk_device = {
	.name = "virtio-blk",
	.size = sizeof(struct virtio_blk),
	.init = virtio_blk_init,
	.reset = virtio_blk_reset,
	.quiesce = virtio_blk_quiesce,
	.resume = virtio_blk_resume,
	.stats = virtio_blk_stats,
	.state = virtio_blk_state,
	.post_load = virtio_blk_post_load,
	.fini = virtio_blk_fini,
};
