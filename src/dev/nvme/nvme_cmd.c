/* The commands of the NVMe controller.
 *
 * Document: NVM Express Base Specification 1.4, [NVMe 5] (administration), [NVMe 6] (NVM command set), [NVMe 4.3] (PRPs).
 *
 * How it works: addresses of data come as pages (PRPs), of which each entry is read once and checked; a list goes on in other
 * pages for as long as there are data, so no list is endless. Reads and writes are one request to the host, with the guest's
 * memory in as many parts as there are pages. Ranges to be deallocated are copied and go to the host one after another.
 * Sectors have 512 bytes. Where the driver switches the write cache off, each write is followed by a flush, as it is where a
 * command asks for that.
 *
 * Asynchronous events never come: requests for them are kept, up to the number that the controller names.
 *
 * Omitted, and IDENTIFY says so: SGLs, metadata, namespace management, firmware, formatting, compare, reservations.
 *
 * Threads: vCPUs and the main thread, under the device's lock.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "dev/nvme/nvme.h"
#include "vm/dma.h"
#include "vm/vm.h"

#define MAX_LEN    MiB /* of a transfer: MDTS */
#define MDTS       8   /* log2 of its pages */
#define RANGE_LEN  16
#define MAX_EVENTS 4
#define MAX_ABORTS 4
#define ALL_NSIDS  0xffffffffu
#define USES_SGL   0xc0 /* in the entry's flags */
#define IS_FUSED   0x03
#define FUA        BIT(30)
#define DEALLOCATE BIT(2)
#define KELVIN     300

/* Identify [NVMe 5.15] */
#define CNS_NAMESPACE   0
#define CNS_CONTROLLER  1
#define CNS_LIST        2
#define CNS_DESCRIPTORS 3

/* Features [NVMe 5.21] */
#define FEATURE_TEMPERATURE 0x04
#define FEATURE_CACHE       0x06
#define FEATURE_QUEUES      0x07
#define FEATURE_VECTOR      0x09
#define FEATURE_LAST        0x0b

struct cmd {
	struct block_req req;
	struct nvme *n;
	u32 epoch;
	u16 sq, cid;
	bool flush;      /* follows */
	u8 *ranges;      /* to be deallocated; behind iov[] */
	unsigned nr, at; /* of them */
	struct iovec iov[];
};

/* ---- data ---- */

static bool add_part(struct nvme *n, struct iovec *iov, unsigned *nr, u64 addr, u64 len, bool write)
{
	void *p = dma_map(n->dev.vm, addr, len, write);

	if (!p)
		return false;
	iov[(*nr)++] = (struct iovec){ p, len };
	return true;
}

/* The len bytes that the entry's PRPs name [NVMe 4.3], in *ret_nr parts; iov[] has room for len / NVME_PAGE + 2 of them. */
static u16 map_prps(struct nvme *n, const struct nvme_sqe *e, u64 len, bool write, struct iovec *iov,
		    unsigned *ret_nr)
{
	u64 first = MIN(len, NVME_PAGE - e->prp1 % NVME_PAGE), list = e->prp2;
	unsigned nr = 0;

	if (e->flags & USES_SGL)
		return NVME_BAD_FIELD;
	if (e->prp1 % 4)
		return NVME_BAD_PRP;
	if (!add_part(n, iov, &nr, e->prp1, first, write))
		return NVME_DATA_ERROR;
	len -= first;
	if (len && len <= NVME_PAGE) {
		if (e->prp2 % NVME_PAGE)
			return NVME_BAD_PRP;
		if (!add_part(n, iov, &nr, e->prp2, len, write))
			return NVME_DATA_ERROR;
		len = 0;
	}
	if (len && list % 8)
		return NVME_BAD_PRP;
	while (len) {
		u64 part = MIN(len, (u64)NVME_PAGE), addr;

		if (dma_read(n->dev.vm, list, &addr, sizeof(addr)) < 0)
			return NVME_DATA_ERROR;
		if (addr % NVME_PAGE)
			return NVME_BAD_PRP;
		/* The last one of a page leads to the next page, if there is more than one left. */
		if (list % NVME_PAGE == NVME_PAGE - 8 && len > NVME_PAGE) {
			list = addr;
			continue;
		}
		if (!add_part(n, iov, &nr, addr, part, write))
			return NVME_DATA_ERROR;
		len -= part;
		list += 8;
	}
	*ret_nr = nr;
	return NVME_OK;
}

/* At most a page, to the guest or from it. */
static u16 copy(struct nvme *n, const struct nvme_sqe *e, void *buf, u32 len, bool to_guest)
{
	struct iovec iov[3];
	unsigned nr = 0;
	u8 *at = buf;
	u16 status = map_prps(n, e, len, to_guest, iov, &nr);

	for (unsigned i = 0; i < nr && status == NVME_OK; at += iov[i++].iov_len) {
		memcpy(to_guest ? iov[i].iov_base : at, to_guest ? at : iov[i].iov_base, iov[i].iov_len);
		if (to_guest)
			dma_written(n->dev.vm, iov[i].iov_base, iov[i].iov_len);
	}
	return status;
}

/* ---- the NVM command set ---- */

static void next(struct cmd *c)
{
	struct nvme *n = c->n;

	if (c->ranges) { /* checked before */
		const u8 *range = c->ranges + (size_t)RANGE_LEN * c->at;

		c->req.offset = ld64(range + 8) * NVME_BLOCK;
		c->req.len = (u64)ld32(range + 4) * NVME_BLOCK;
	}
	nvme_submit(n, &c->req);
}

/* More to do? Then it is prepared. */
static bool goes_on(struct cmd *c)
{
	if (c->ranges && ++c->at < c->nr)
		return true;
	if (!c->flush)
		return false;
	c->flush = false;
	c->ranges = NULL;
	c->req.op = BLOCK_FLUSH;
	c->req.offset = c->req.len = 0;
	return true;
}

static void done(struct block_req *req, int result)
{
	struct cmd *c = container_of(req, struct cmd, req);
	struct nvme *n = c->n;
	u16 status = NVME_OK;

	drive_done(&n->drive, req, result);
	if (c->epoch == n->epoch && result >= 0 && goes_on(c)) {
		next(c);
		nvme_commit(n);
		return;
	}
	if (result < 0)
		status = req->op == BLOCK_READ ? NVME_READ_ERROR : NVME_WRITE_FAULT;
	if (c->epoch == n->epoch)
		nvme_complete(n, c->sq, c->cid, status, 0);
	nvme_host_end(n, c->epoch);
	free(c);
}

/* A command with room for parts of memory and for ranges; NULL: no memory. */
static struct cmd *new_cmd(struct nvme *n, unsigned sq, const struct nvme_sqe *e, enum block_op op, u64 parts,
			   u64 ranges)
{
	size_t size = sizeof(struct cmd) + parts * sizeof(struct iovec);
	struct cmd *c = malloc(size + ranges * RANGE_LEN);

	if (!c)
		return NULL;
	*c = (struct cmd){
		.req = { .op = op, .done = done, .iov = c->iov },
		.n = n,
		.epoch = n->epoch,
		.sq = (u16)sq,
		.cid = e->cid,
		.ranges = ranges ? (u8 *)c + size : NULL,
		.nr = (unsigned)ranges,
		.flush = op != BLOCK_READ && op != BLOCK_FLUSH && !(n->feature[FEATURE_CACHE] & 1),
	};
	return c;
}

static u16 begin(struct cmd *c)
{
	nvme_host_begin(c->n);
	next(c);
	return NVME_LATER;
}

static u64 slba(const struct nvme_sqe *e)
{
	return e->cdw10 | (u64)e->cdw11 << 32;
}

/* Blocks count from 0. */
static u64 length(const struct nvme_sqe *e)
{
	return ((u64)(u16)e->cdw12 + 1) * NVME_BLOCK;
}

static u16 io_flush(struct nvme *n, unsigned sq, const struct nvme_sqe *e)
{
	struct cmd *c = new_cmd(n, sq, e, BLOCK_FLUSH, 0, 0);

	return c ? begin(c) : NVME_INTERNAL;
}

static u16 transfer(struct nvme *n, unsigned sq, const struct nvme_sqe *e, bool write)
{
	struct cmd *c;
	u64 len = length(e), offset;
	u16 status;

	if (len > MAX_LEN)
		return NVME_BAD_FIELD;
	if (!drive_range(&n->drive, slba(e), len, &offset))
		return NVME_BAD_LBA;
	c = new_cmd(n, sq, e, write ? BLOCK_WRITE : BLOCK_READ, len / NVME_PAGE + 2, 0);
	if (!c)
		return NVME_INTERNAL;
	status = map_prps(n, e, len, !write, c->iov, &c->req.nr_iov);
	if (status != NVME_OK) {
		free(c);
		return status;
	}
	c->req.offset = offset;
	c->req.len = len;
	c->flush |= write && e->cdw12 & FUA;
	return begin(c);
}

static u16 io_read(struct nvme *n, unsigned sq, const struct nvme_sqe *e)
{
	return transfer(n, sq, e, false);
}

static u16 io_write(struct nvme *n, unsigned sq, const struct nvme_sqe *e)
{
	return transfer(n, sq, e, true);
}

static u16 io_write_zeroes(struct nvme *n, unsigned sq, const struct nvme_sqe *e)
{
	struct cmd *c;
	u64 offset;

	if (!drive_range(&n->drive, slba(e), length(e), &offset))
		return NVME_BAD_LBA;
	c = new_cmd(n, sq, e, BLOCK_ZERO, 0, 0);
	if (!c)
		return NVME_INTERNAL;
	c->req.offset = offset;
	c->req.len = length(e);
	c->req.unmap = e->cdw12 & BIT(25); /* DEAC [NVMe 6.17] */
	c->flush |= e->cdw12 & FUA;
	return begin(c);
}

/* Dataset management [NVMe 6.7]: hints, but for deallocation. Ranges without blocks are left out. */
static u16 io_dataset(struct nvme *n, unsigned sq, const struct nvme_sqe *e)
{
	unsigned nr = (e->cdw10 & 0xff) + 1, kept = 0;
	struct cmd *c;
	u16 status;

	if (!(e->cdw11 & DEALLOCATE))
		return NVME_OK;
	c = new_cmd(n, sq, e, BLOCK_DISCARD, 0, nr);
	if (!c)
		return NVME_INTERNAL;
	status = copy(n, e, c->ranges, nr * RANGE_LEN, false);
	for (unsigned i = 0; i < nr && status == NVME_OK; i++) {
		const u8 *range = c->ranges + (size_t)RANGE_LEN * i;
		u64 offset;

		if (!drive_range(&n->drive, ld64(range + 8), (u64)ld32(range + 4) * NVME_BLOCK, &offset))
			status = NVME_BAD_LBA;
		else if (ld32(range + 4))
			memmove(c->ranges + (size_t)RANGE_LEN * kept++, range, RANGE_LEN);
	}
	c->nr = kept;
	if (status != NVME_OK || !kept) {
		free(c);
		return status;
	}
	return begin(c);
}

static const struct io_row {
	u8 opcode;
	bool write;
	u16 (*fn)(struct nvme *n, unsigned sq, const struct nvme_sqe *e);
} io_rows[] = {
	{ 0x00, false, io_flush },       { 0x01, true, io_write },   { 0x02, false, io_read },
	{ 0x08, true, io_write_zeroes }, { 0x09, true, io_dataset },
};

static u16 io(struct nvme *n, unsigned sq, const struct nvme_sqe *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(io_rows); i++) {
		const struct io_row *row = &io_rows[i];

		if (row->opcode != e->opcode)
			continue;
		if (e->nsid != NVME_NSID && (e->nsid != ALL_NSIDS || row->fn != io_flush))
			return NVME_BAD_NSID;
		return row->write && n->drive.block->read_only ? NVME_PROTECTED : row->fn(n, sq, e);
	}
	return NVME_BAD_OPCODE;
}

bool nvme_cmd_may_pass(struct nvme *n, unsigned sq, const struct nvme_sqe *e)
{
	if (!sq)
		return true;
	return drive_may_pass(&n->drive, e->opcode == 0x01 || e->opcode == 0x02 ? length(e) : 0);
}

/* ---- administration: queues ---- */

/* [NVMe 5.3] [NVMe 5.4] share their first words. */
static u16 check_queue(struct nvme *n, const struct nvme_sqe *e, const u16 *sizes, u16 bad_base, u64 entry,
		       bool write)
{
	u16 qid = (u16)e->cdw10;
	u32 size = (e->cdw10 >> 16) + 1;

	if (!qid || qid > n->last_q || sizes[qid])
		return NVME_BAD_QUEUE;
	if (size < 2 || size > NVME_ENTRIES)
		return NVME_BAD_SIZE;
	if (!(e->cdw11 & 1)) /* in pieces */
		return NVME_BAD_FIELD;
	if (e->prp1 % NVME_PAGE)
		return NVME_BAD_PRP;
	return dma_map(n->dev.vm, e->prp1, size * entry, write) ? NVME_OK : bad_base;
}

static u16 create_cq(struct nvme *n, const struct nvme_sqe *e, u32 *dw0)
{
	u16 q = (u16)e->cdw10, vector = (u16)(e->cdw11 >> 16);
	u16 status = check_queue(n, e, n->cq_size, NVME_BAD_FIELD, NVME_CQE_LEN, true);

	if (status != NVME_OK)
		return status;
	if (vector >= NVME_QUEUES)
		return NVME_BAD_VECTOR;
	n->cq_base[q] = e->prp1;
	n->cq_size[q] = (u16)((e->cdw10 >> 16) + 1);
	n->cq_head[q] = n->cq_tail[q] = n->cq_taken[q] = 0;
	n->cq_phase[q] = 1;
	n->cq_irq[q] = e->cdw11 >> 1 & 1;
	n->cq_vector[q] = vector;
	return NVME_OK;
}

static u16 create_sq(struct nvme *n, const struct nvme_sqe *e, u32 *dw0)
{
	u16 q = (u16)e->cdw10, cq = (u16)(e->cdw11 >> 16);
	u16 status = check_queue(n, e, n->sq_size, NVME_BAD_FIELD, NVME_SQE_LEN, false);

	if (status != NVME_OK)
		return status;
	if (!cq || cq >= NVME_QUEUES || !n->cq_size[cq])
		return NVME_BAD_CQ;
	n->sq_base[q] = e->prp1;
	n->sq_size[q] = (u16)((e->cdw10 >> 16) + 1);
	n->sq_head[q] = n->sq_tail[q] = n->sq_taken[q] = 0;
	n->sq_cq[q] = cq;
	return NVME_OK;
}

/* What is on its way is answered first [NVMe 5.6]. */
static u16 delete_sq(struct nvme *n, const struct nvme_sqe *e, u32 *dw0)
{
	u16 q = (u16)e->cdw10;

	if (!q || q >= NVME_QUEUES || !n->sq_size[q] || n->sq_deleting[q])
		return NVME_BAD_QUEUE;
	n->sq_head[q] = n->sq_tail[q] = 0;
	if (n->sq_taken[q]) {
		n->sq_deleting[q] = true;
		n->sq_delete_cid[q] = e->cid;
		return NVME_LATER;
	}
	n->sq_size[q] = 0;
	return NVME_OK;
}

static u16 delete_cq(struct nvme *n, const struct nvme_sqe *e, u32 *dw0)
{
	u16 q = (u16)e->cdw10;

	if (!q || q >= NVME_QUEUES || !n->cq_size[q])
		return NVME_BAD_QUEUE;
	for (unsigned i = 1; i < NVME_QUEUES; i++)
		if (n->sq_size[i] && n->sq_cq[i] == q)
			return NVME_BAD_DELETION;
	n->cq_size[q] = 0;
	n->cq_head[q] = n->cq_tail[q] = 0;
	return NVME_OK;
}

/* ---- administration: what it is ---- */

static void put_text(u8 *to, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		to[i] = *text ? (u8)*text++ : ' ';
}

/* One that the user has not given is the device's name, for it must differ from others'. */
static const char *serial_of(const struct nvme *n)
{
	return n->drive.serial[0] ? n->drive.serial : n->dev.id;
}

static void identify_controller(const struct nvme *n, u8 *b)
{
	st16(b, ld16(n->pci.config + PCI_VENDOR_ID));
	st16(b + 2, ld16(n->pci.config + PCI_SUBSYSTEM_VENDOR_ID));
	put_text(b + 4, serial_of(n), 20);
	put_text(b + 24, "bothy NVMe", 40);
	put_text(b + 64, "1", 8);
	b[77] = MDTS;
	st32(b + 80, 0x00010400);
	b[111] = 1; /* a controller for I/O */
	b[258] = MAX_ABORTS - 1;
	b[259] = MAX_EVENTS - 1;
	b[260] = 0x03; /* one firmware, which cannot be written */
	st16(b + 266, KELVIN + 60);
	st16(b + 268, KELVIN + 70);
	b[512] = 0x66; /* sizes of entries */
	b[513] = 0x44;
	st32(b + 516, 1);    /* namespaces */
	st16(b + 520, 0x0c); /* dataset management, write zeroes */
	b[525] = 1;          /* a volatile write cache */
	snprintf((char *)b + 768, 256, "nqn.2014-08.org.nvmexpress:bothy-%s-%s", n->dev.id, serial_of(n));
	st16(b + 2048, 500); /* power, 5 W */
}

static void identify_namespace(const struct nvme *n, u8 *b)
{
	u64 blocks = n->drive.block->size / NVME_BLOCK;

	st64(b, blocks);
	st64(b + 8, blocks);
	st64(b + 16, blocks);
	b[33] = 0x08; /* deallocated with write zeroes, where that asks for it; what is read then is not defined */
	b[99] = n->drive.block->read_only;
	b[130] = 9; /* 512 bytes */
}

/* A UUID out of what tells this one from others [NVMe 5.15.2.4]. */
static void identify_descriptors(const struct nvme *n, u8 *b)
{
	u64 hash[2] = { 0xcbf29ce484222325, 0x84222325cbf29ce4 };

	for (unsigned i = 0; i < 2; i++) {
		for (const char *p = n->dev.id; *p; p++)
			hash[i] = (hash[i] ^ (u8)*p) * 0x100000001b3;
		for (const char *p = n->drive.serial; *p; p++)
			hash[i] = (hash[i] ^ (u8)(*p + 1)) * 0x100000001b3;
	}
	b[0] = 3;
	b[1] = 16;
	memcpy(b + 4, hash, 16);
	b[4 + 6] = (b[4 + 6] & 0x0f) | 0x80; /* version 8: made as one likes; its variant [RFC 9562 5.8] */
	b[4 + 8] = (b[4 + 8] & 0x3f) | 0x80;
}

static u16 identify(struct nvme *n, const struct nvme_sqe *e, u32 *dw0)
{
	u8 page[NVME_PAGE] = { 0 };

	switch (e->cdw10 & 0xff) {
	case CNS_NAMESPACE:
		if (e->nsid != NVME_NSID && e->nsid != ALL_NSIDS)
			return NVME_BAD_NSID;
		identify_namespace(n, page);
		break;
	case CNS_CONTROLLER: identify_controller(n, page); break;
	case CNS_LIST:
		if (e->nsid >= ALL_NSIDS - 1)
			return NVME_BAD_NSID;
		if (e->nsid < NVME_NSID)
			st32(page, NVME_NSID);
		break;
	case CNS_DESCRIPTORS:
		if (e->nsid != NVME_NSID)
			return NVME_BAD_NSID;
		identify_descriptors(n, page);
		break;
	default: return NVME_BAD_FIELD;
	}
	return copy(n, e, page, sizeof(page), true);
}

/* SMART / health [NVMe 5.14.1.2]: data units are thousands of 512 bytes, rounded up. */
static void health_log(struct nvme *n, u8 *b)
{
	const u64 *count = n->drive.count;

	st16(b + 1, KELVIN);
	b[3] = 100; /* spare, and when there is too little of it: % */
	b[4] = 10;
	st64(b + 32, (count[DRIVE_READ_BYTES] / NVME_BLOCK + 999) / 1000);
	st64(b + 48, (count[DRIVE_WRITTEN] / NVME_BLOCK + 999) / 1000);
	st64(b + 64, count[DRIVE_READS]);
	st64(b + 80, count[DRIVE_WRITES]);
	st64(b + 160, count[DRIVE_ERRORS]);
}

static u16 get_log(struct nvme *n, const struct nvme_sqe *e, u32 *dw0)
{
	u64 len = ((u64)(e->cdw10 >> 16 | (e->cdw11 & 0xffff) << 16) + 1) * 4;
	u8 page[NVME_PAGE] = { 0 };

	/* Offsets are for controllers that offer them. */
	if (len > sizeof(page) || e->cdw12 || e->cdw13)
		return NVME_BAD_FIELD;
	switch (e->cdw10 & 0xff) {
	case 1: break; /* no error was kept */
	case 2: health_log(n, page); break;
	case 3:
		page[0] = 1;
		put_text(page + 8, "1", 8);
		break;
	default: return NVME_BAD_LOG;
	}
	return copy(n, e, page, (u32)len, true);
}

/* ---- administration: features ---- */

void nvme_cmd_reset(struct nvme *n)
{
	memset(n->feature, 0, sizeof(n->feature));
	n->feature[FEATURE_CACHE] = 1;
	n->feature[FEATURE_TEMPERATURE] = KELVIN + 60;
	n->feature[FEATURE_QUEUES] = (n->nr_io - 1) | (n->nr_io - 1) << 16;
}

/* Ranges of LBAs are the only one that there is not. */
static bool has_feature(u8 id)
{
	return id >= 1 && id <= FEATURE_LAST && id != 3;
}

static u16 set_features(struct nvme *n, const struct nvme_sqe *e, u32 *dw0)
{
	u8 id = (u8)e->cdw10;

	if (!has_feature(id))
		return NVME_BAD_FIELD;
	if (e->cdw10 >> 31)
		return NVME_NO_SAVE;
	switch (id) {
	case FEATURE_QUEUES:
		/* As many as there are, whatever is asked for. */
		if ((u16)e->cdw11 == 0xffff || e->cdw11 >> 16 == 0xffff)
			return NVME_BAD_FIELD;
		for (unsigned q = 1; q < NVME_QUEUES; q++)
			if (n->sq_size[q] || n->cq_size[q])
				return NVME_BAD_SEQUENCE;
		*dw0 = n->feature[id];
		return NVME_OK;
	case FEATURE_VECTOR:
		if ((u16)e->cdw11 >= NVME_QUEUES)
			return NVME_BAD_FIELD;
		break;
	case 2: /* the one power state */
		if (e->cdw11 & 0x1f)
			return NVME_BAD_FIELD;
		break;
	default: break;
	}
	n->feature[id] = e->cdw11;
	return NVME_OK;
}

static u16 get_features(struct nvme *n, const struct nvme_sqe *e, u32 *dw0)
{
	u8 id = (u8)e->cdw10;

	if (!has_feature(id) || e->cdw10 >> 8 & 7)
		return NVME_BAD_FIELD;
	*dw0 = n->feature[id];
	return NVME_OK;
}

/* What could be aborted is at the host: it is not [NVMe 5.1]. */
static u16 abort_command(struct nvme *n, const struct nvme_sqe *e, u32 *dw0)
{
	*dw0 = 1;
	return NVME_OK;
}

static u16 event_request(struct nvme *n, const struct nvme_sqe *e, u32 *dw0)
{
	if (n->nr_events == MAX_EVENTS)
		return NVME_AER_LIMIT;
	n->nr_events++;
	/* No answer needs room. */
	n->sq_taken[0]--;
	n->cq_taken[0]--;
	return NVME_LATER;
}

static const struct {
	u8 opcode;
	u16 (*fn)(struct nvme *n, const struct nvme_sqe *e, u32 *dw0);
} admin_rows[] = {
	{ 0x00, delete_sq },    { 0x01, create_sq },     { 0x02, get_log },       { 0x04, delete_cq },
	{ 0x05, create_cq },    { 0x06, identify },      { 0x08, abort_command }, { 0x09, set_features },
	{ 0x0a, get_features }, { 0x0c, event_request },
};

u16 nvme_cmd_run(struct nvme *n, unsigned sq, const struct nvme_sqe *e, u32 *ret_dw0)
{
	if (e->flags & IS_FUSED)
		return NVME_BAD_FIELD;
	if (sq)
		return io(n, sq, e);
	for (unsigned i = 0; i < ARRAY_SIZE(admin_rows); i++)
		if (admin_rows[i].opcode == e->opcode)
			return admin_rows[i].fn(n, e, ret_dw0);
	return NVME_BAD_OPCODE;
}
