/* An NVMe controller with one namespace: its PCI function, registers, queues and interrupts. Commands are in nvme_cmd.c.
 *
 * Document: NVM Express Base Specification 1.4, [NVMe 3.1] (registers), [NVMe 4.1] (queues), [NVMe 7.3] (resets),
 * [NVMe 7.5] (interrupts), [NVMe 7.6] (initialization and shutdown).
 *
 * How it works: a doorbell fetches what its queue has. An entry is copied, and carried out from the copy. It is taken only when the
 * completion queue has room for its answer, so that no more is under way than the guest has made room for. Queues are checked
 * when they are made; where their memory has gone away all the same, or was never there, the controller is in its
 * fatal state [NVMe 3.1.6] until it is reset.
 *
 * When it is disabled with commands at the host, CSTS.RDY stays set until the host has done with the guest's memory: what
 * those commands would answer is forgotten, by epochs.
 *
 * Interrupts are messages (MSI-X), one vector for each completion queue if the driver likes, or the pin, which is high while a
 * completion queue has entries that the driver has not seen.
 *
 * Omitted, and CAP says so: pages of other sizes, queues in pieces, subsystem reset, weighted arbitration, memory in the controller.
 *
 * Threads: vCPUs and the main thread, under the device's lock.
 */
#include "dev/nvme/nvme.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "vm/dma.h"
#include "vm/vm.h"

/* Of the numbers that need no registration, as long as there is none of its own. */
#define VENDOR     0x1af4
#define DEVICE     0x10f0
#define CLASS_CODE 0x010802
#define BAR_REGS   0
#define BAR_MSIX   4
#define BAR_SIZE   0x4000

/* Registers [NVMe 3.1] */
#define REG_CAP   0x00
#define REG_VS    0x08
#define REG_INTMS 0x0c
#define REG_INTMC 0x10
#define REG_CC    0x14
#define REG_CSTS  0x1c
#define REG_AQA   0x24
#define REG_ASQ   0x28
#define REG_ACQ   0x30
#define DOORBELLS 0x1000

/* 1024 entries, contiguous, 2 seconds to get ready, the NVM command set */
#define CAP      (BIT(37) | 4ull << 24 | BIT(16) | (NVME_ENTRIES - 1))
#define VERSION  0x00010400
#define CC_EN    BIT(0)
#define CC_SHN   (BIT(14) | BIT(15))
#define CC_VALID 0x00fffff1u
/* Command set and page size must be 0, and entries have the sizes that the controller names [NVMe 3.1.5]. */
#define CC_EXPECTED  0x00460000u
#define CC_ENTRIES   0x00ff0000u
#define CC_ARBITER   0x00003800u
#define CC_SETTING   0x000007f0u
#define CSTS_RDY     BIT(0)
#define CSTS_CFS     BIT(1)
#define CSTS_SHST    (BIT(2) | BIT(3))
#define CSTS_SHST_ON BIT(2)
#define CSTS_SHST_OK BIT(3)
#define CSTS_VALID   (CSTS_RDY | CSTS_CFS | CSTS_SHST)
#define AQA_VALID    0x0fff0fffu
#define PAGE_MASK    (~(u64)(NVME_PAGE - 1))

/* ---- interrupts ---- */

static void update_pin(struct nvme *n)
{
	bool level = false;

	for (unsigned q = 0; q < NVME_QUEUES; q++)
		level |= n->cq_size[q] && n->cq_irq[q] && n->cq_head[q] != n->cq_tail[q] &&
			 !(n->intms >> n->cq_vector[q] & 1);
	pci_set_intx(&n->pci, level);
}

static void interrupt(struct nvme *n, unsigned cq)
{
	if (!pci_msi_enabled_x(&n->msix))
		update_pin(n);
	else if (n->cq_irq[cq])
		pci_msi_notify_x(&n->msix, n->cq_vector[cq]);
}

/* ---- queues ---- */

void nvme_fatal(struct nvme *n, const char *why)
{
	if (n->csts & CSTS_CFS)
		return;
	log_guest("%s: the guest's driver is at fault: %s", n->dev.id, why);
	n->csts |= CSTS_CFS;
}

static bool is_running(const struct nvme *n)
{
	return (n->csts & (CSTS_RDY | CSTS_CFS)) == CSTS_RDY && n->cc & CC_EN;
}

static bool may_fetch(const struct nvme *n)
{
	return is_running(n) && !n->quiet && ld16(n->pci.config + PCI_COMMAND) & PCI_COMMAND_MASTER;
}

/* For one more answer than those on their way. One entry stays free [NVMe 4.1.2]. */
static bool has_room(const struct nvme *n, unsigned cq)
{
	unsigned size = n->cq_size[cq], used = (n->cq_tail[cq] + size - n->cq_head[cq]) % size;

	return used + n->cq_taken[cq] + 1 < size;
}

static void finish_deletion(struct nvme *n, unsigned sq)
{
	if (!n->sq_deleting[sq] || n->sq_taken[sq])
		return;
	n->sq_deleting[sq] = false;
	n->sq_size[sq] = 0;
	nvme_complete(n, 0, n->sq_delete_cid[sq], NVME_OK, 0);
}

void nvme_complete(struct nvme *n, unsigned sq, u16 cid, u16 status, u32 dw0)
{
	unsigned cq = n->sq_cq[sq];
	u64 at = n->cq_base[cq] + (u64)NVME_CQE_LEN * n->cq_tail[cq];
	u32 dw3 = cid | (u32)n->cq_phase[cq] << 16 | (u32)status << 17;
	u32 head[3] = { dw0, 0, n->sq_head[sq] | (u32)sq << 16 };

	n->sq_taken[sq]--;
	n->cq_taken[cq]--;
	/* The phase, which makes it valid, comes last [NVMe 4.6]. */
	if (dma_write(n->dev.vm, at, head, sizeof(head)) < 0 || dma_write(n->dev.vm, at + 12, &dw3, 4) < 0) {
		nvme_fatal(n, "a completion queue is not in memory");
		return;
	}
	if (++n->cq_tail[cq] == n->cq_size[cq]) {
		n->cq_tail[cq] = 0;
		n->cq_phase[cq] ^= 1;
	}
	interrupt(n, cq);
	finish_deletion(n, sq);
}

void nvme_submit(struct nvme *n, struct block_req *req)
{
	n->submitted = true;
	n->drive.block->ops->submit(n->drive.block, req);
}

void nvme_commit(struct nvme *n)
{
	struct block *b = n->drive.block;

	if (!n->submitted)
		return;
	n->submitted = false;
	b->ops->commit(b);
}

static void run(struct nvme *n, unsigned sq)
{
	struct nvme_sqe e;

	while (may_fetch(n) && n->sq_size[sq] && !n->sq_deleting[sq] && n->sq_head[sq] != n->sq_tail[sq] &&
	       has_room(n, n->sq_cq[sq])) {
		u32 dw0 = 0;
		u16 status;

		if (dma_read(n->dev.vm, n->sq_base[sq] + (u64)NVME_SQE_LEN * n->sq_head[sq], &e, sizeof(e)) <
		    0) {
			nvme_fatal(n, "a submission queue is not in memory");
			return;
		}
		if (!nvme_cmd_may_pass(n, sq, &e))
			return;
		n->sq_head[sq] = (u16)((n->sq_head[sq] + 1) % n->sq_size[sq]);
		n->sq_taken[sq]++;
		n->cq_taken[n->sq_cq[sq]]++;
		status = nvme_cmd_run(n, sq, &e, &dw0);
		if (status != NVME_LATER)
			nvme_complete(n, sq, e.cid, status, dw0);
	}
}

static void run_all(void *opaque)
{
	struct nvme *n = opaque;

	for (unsigned q = 0; q < NVME_QUEUES; q++)
		run(n, q);
	nvme_commit(n);
}

/* [NVMe 3.1.20] [NVMe 3.1.21]: tails and heads that lie outside of their queue are no good, and are not taken. */
static void doorbell(struct nvme *n, unsigned index, u16 val)
{
	unsigned q = index / 2;

	if (q >= NVME_QUEUES || !is_running(n))
		return;
	if (index % 2 == 0) {
		if (val >= n->sq_size[q])
			return;
		n->sq_tail[q] = val;
		run(n, q);
	} else {
		if (val >= n->cq_size[q])
			return;
		n->cq_head[q] = val;
		if (!pci_msi_enabled_x(&n->msix))
			update_pin(n);
		/* Those that had no room for their answers. */
		for (unsigned i = 0; i < NVME_QUEUES; i++)
			if (n->sq_cq[i] == q)
				run(n, i);
	}
	nvme_commit(n);
}

/* ---- enable, disable, shutdown ---- */

static void stop(struct nvme *n)
{
	n->epoch++;
	n->nr_old = n->nr_host;
	memset(n->sq_size, 0, sizeof(n->sq_size));
	memset(n->cq_size, 0, sizeof(n->cq_size));
	memset(n->sq_head, 0, sizeof(n->sq_head));
	memset(n->sq_tail, 0, sizeof(n->sq_tail));
	memset(n->cq_head, 0, sizeof(n->cq_head));
	memset(n->cq_tail, 0, sizeof(n->cq_tail));
	memset(n->sq_base, 0, sizeof(n->sq_base));
	memset(n->cq_base, 0, sizeof(n->cq_base));
	memset(n->sq_cq, 0, sizeof(n->sq_cq));
	memset(n->cq_vector, 0, sizeof(n->cq_vector));
	memset(n->cq_phase, 0, sizeof(n->cq_phase));
	memset(n->cq_irq, 0, sizeof(n->cq_irq));
	memset(n->sq_taken, 0, sizeof(n->sq_taken));
	memset(n->cq_taken, 0, sizeof(n->cq_taken));
	memset(n->sq_deleting, 0, sizeof(n->sq_deleting));
	n->intms = 0;
	n->nr_events = 0;
	nvme_cmd_reset(n);
	update_pin(n);
}

/* The queue for administration is where registers say [NVMe 7.6.1]. */
static void start(struct nvme *n)
{
	u16 sq_size = (u16)((n->aqa & 0xfff) + 1), cq_size = (u16)((n->aqa >> 16) + 1);

	n->csts = CSTS_RDY;
	n->sq_base[0] = n->asq;
	n->cq_base[0] = n->acq;
	n->sq_size[0] = sq_size;
	n->cq_size[0] = cq_size;
	n->cq_phase[0] = n->cq_irq[0] = 1;
	if ((n->cc & CC_SETTING) || (n->cc & CC_ARBITER) || (n->cc & CC_ENTRIES) != CC_EXPECTED)
		nvme_fatal(n, "it is enabled with settings that it does not have");
	else if (sq_size < 2 || cq_size < 2 ||
		 !dma_map(n->dev.vm, n->asq, (u64)NVME_SQE_LEN * sq_size, false) ||
		 !dma_map(n->dev.vm, n->acq, (u64)NVME_CQE_LEN * cq_size, true))
		nvme_fatal(n, "its first queues are too short or not in memory");
}

/* Reaches the state that CC asks for, as soon as nothing old is under way. */
static void settle(struct nvme *n)
{
	if (n->nr_old)
		return;
	if (!(n->cc & CC_EN))
		n->csts &= ~(u32)(CSTS_RDY | CSTS_CFS);
	else if (!(n->csts & (CSTS_RDY | CSTS_CFS)))
		start(n);
}

void nvme_host_begin(struct nvme *n)
{
	n->nr_host++;
}

void nvme_host_end(struct nvme *n, u32 epoch)
{
	n->nr_host--;
	if (epoch == n->epoch)
		return;
	n->nr_old--;
	if (n->nr_old)
		return;
	/* Disabled and enabled meanwhile: both take effect now. */
	n->csts &= ~(u32)(CSTS_RDY | CSTS_CFS);
	settle(n);
}

static void shutdown_done(struct block_req *req, int result)
{
	struct nvme *n = container_of(req, struct nvme, shutdown);

	drive_done(&n->drive, req, result);
	n->shutting = false;
	if (n->shutdown_epoch == n->epoch)
		n->csts = (n->csts & ~(u32)CSTS_SHST) | CSTS_SHST_OK;
}

/* All that was answered goes to stable storage [NVMe 7.6.2]. */
static void begin_shutdown(struct nvme *n)
{
	n->csts = (n->csts & ~(u32)CSTS_SHST) | CSTS_SHST_ON;
	n->shutdown_epoch = n->epoch;
	if (n->shutting)
		return;
	n->shutting = true;
	n->shutdown = (struct block_req){ .op = BLOCK_FLUSH, .done = shutdown_done };
	nvme_submit(n, &n->shutdown);
	nvme_commit(n);
}

static void write_cc(struct nvme *n, u32 val)
{
	u32 old = n->cc;

	n->cc = val & CC_VALID;
	if (old & CC_EN && !(val & CC_EN)) {
		stop(n);
		n->csts &= ~(u32)CSTS_SHST;
	}
	if (val & CC_SHN && !(old & CC_SHN))
		begin_shutdown(n);
	settle(n);
}

/* ---- registers ---- */

static u64 read_reg(const struct nvme *n, unsigned at)
{
	switch (at) {
	case REG_CAP: return CAP;
	case REG_VS: return VERSION | (u64)n->intms << 32;
	case REG_INTMC: return n->intms | (u64)n->cc << 32;
	case REG_CSTS - 4: return (u64)n->csts << 32;
	case REG_AQA - 4: return (u64)n->aqa << 32;
	case REG_ASQ: return n->asq;
	case REG_ACQ: return n->acq;
	default: return 0;
	}
}

static u64 half(u64 old, bool high, u32 val)
{
	return high ? (old & 0xffffffff) | (u64)val << 32 : (old & ~0xffffffffull) | val;
}

/* Those of the first queue can be written while the controller is disabled [NVMe 3.1.8]. */
static void write_reg(struct nvme *n, unsigned at, u32 val)
{
	bool open = !(n->cc & CC_EN);

	switch (at) {
	case REG_INTMS: n->intms |= val; break;
	case REG_INTMC: n->intms &= ~val; break;
	case REG_CC: write_cc(n, val); return;
	case REG_AQA: n->aqa = open ? val & AQA_VALID : n->aqa; return;
	case REG_ASQ:
	case REG_ASQ + 4:
		if (open)
			n->asq = half(n->asq, at != REG_ASQ, val) & PAGE_MASK;
		return;
	case REG_ACQ:
	case REG_ACQ + 4:
		if (open)
			n->acq = half(n->acq, at != REG_ACQ, val) & PAGE_MASK;
		return;
	default: return;
	}
	if (!pci_msi_enabled_x(&n->msix))
		update_pin(n);
}

static u64 bar_read(void *opaque, u64 offset, unsigned size)
{
	if (offset >= DOORBELLS)
		return 0;
	return read_reg(opaque, (unsigned)offset & ~7u) >> 8 * (offset & 7);
}

/* In 32 or 64 bits [NVMe 3.1]. */
static void bar_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct nvme *n = opaque;

	if (size < 4 || offset % 4)
		return;
	if (offset >= DOORBELLS) {
		doorbell(n, (unsigned)(offset - DOORBELLS) / 4, (u16)val);
		return;
	}
	write_reg(n, (unsigned)offset, (u32)val);
	if (size == 8)
		write_reg(n, (unsigned)offset + 4, (u32)(val >> 32));
}

static const struct region_ops bar_ops = { .read = bar_read, .write = bar_write, .max_size = 8 };

static void config_written(struct pci_dev *pd, unsigned offset, unsigned len)
{
	struct nvme *n = container_of(pd, struct nvme, pci);

	update_pin(n);
	run_all(n); /* it may have become a bus master */
}

/* ---- the device ---- */

static int nvme_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	static const struct pci_id id = {
		.vendor = VENDOR,
		.device = DEVICE,
		.subsystem_vendor = VENDOR,
		.subsystem = DEVICE,
		.class_code = CLASS_CODE,
		.revision = 1,
		.int_pin = 1,
	};
	struct nvme *n = container_of(dev, struct nvme, dev);
	struct device *bus = pci_find(dev->vm);
	unsigned queues = conf->block_conf ? conf->block_conf->queues : 0;
	int r = drive_init(&n->drive, dev, conf->block, conf->block_conf, run_all, n, err);

	if (r < 0)
		return r;
	if (queues > NVME_IO_QUEUES)
		return err_set(err, -EINVAL, "%u queues are too many, %u are possible", queues,
			       NVME_IO_QUEUES);
	n->nr_io = queues ? queues : NVME_IO_QUEUES;
	/* QUIRK(guest): OVMF makes two without asking how many there are. */
	n->last_q = MAX(n->nr_io, 2u);
	if (!bus)
		return err_set(err, -ENODEV, "the machine has no PCI bus to put it on");
	pci_dev_init(&n->pci, dev, &id);
	n->pci.config_written = config_written;
	r = pci_dev_add_bar(&n->pci, BAR_REGS, PCI_BAR_MEM64, BAR_SIZE, &bar_ops, n);
	if (r == 0)
		r = pci_msi_init_x(&n->msix, &n->pci, NVME_QUEUES, BAR_MSIX);
	if (r < 0)
		return err_sys(err, r, "its PCI function cannot be made");
	return pci_add(bus, &n->pci, -1, 0, err);
}

static void set_quiet(struct nvme *n, bool quiet)
{
	pthread_mutex_lock(n->dev.lock);
	n->quiet = quiet;
	if (!quiet)
		run_all(n);
	pthread_mutex_unlock(n->dev.lock);
}

static void nvme_quiesce(struct device *dev)
{
	struct nvme *n = container_of(dev, struct nvme, dev);

	set_quiet(n, true);
	drive_drain(&n->drive);
}

static void nvme_resume(struct device *dev)
{
	set_quiet(container_of(dev, struct nvme, dev), false);
}

static unsigned nvme_stats(struct device *dev, struct device_stat ret[DEVICE_MAX_STATS])
{
	struct nvme *n = container_of(dev, struct nvme, dev);

	return drive_stats((struct drive *const[]){ &n->drive }, 1, ret);
}

static void nvme_reset(struct device *dev, enum reset_kind kind)
{
	struct nvme *n = container_of(dev, struct nvme, dev);

	n->quiet = true;
	stop(n);
	drive_drain(&n->drive);
	drive_reset(&n->drive);
	n->cc = n->csts = n->aqa = 0;
	n->asq = n->acq = 0;
	n->quiet = false;
	pci_dev_reset(&n->pci);
}

static const struct state_field nvme_state[] = {
	STATE_U8S(nvme, pci.config),
	PCI_MSIX_STATE(nvme, msix),
	STATE_U32(nvme, intms),
	STATE_U32(nvme, cc),
	STATE_U32(nvme, csts),
	STATE_U32(nvme, aqa),
	STATE_U64(nvme, asq),
	STATE_U64(nvme, acq),
	STATE_U64S(nvme, sq_base),
	STATE_U64S(nvme, cq_base),
	STATE_U16S(nvme, sq_size),
	STATE_U16S(nvme, cq_size),
	STATE_U16S(nvme, sq_head),
	STATE_U16S(nvme, sq_tail),
	STATE_U16S(nvme, cq_head),
	STATE_U16S(nvme, cq_tail),
	STATE_U16S(nvme, sq_cq),
	STATE_U16S(nvme, cq_vector),
	STATE_U8S(nvme, cq_phase),
	STATE_U8S(nvme, cq_irq),
	STATE_U32S(nvme, feature),
	STATE_U8(nvme, nr_events),
	STATE_END,
};

static bool queue_ok(const struct nvme *n, unsigned q)
{
	u16 sq = n->sq_size[q], cq = n->cq_size[q], mine = n->sq_cq[q];
	unsigned most = q > n->last_q ? 0 : q ? NVME_ENTRIES : 4096;

	if (sq > most || cq > most || n->cq_phase[q] > 1 || n->cq_irq[q] > 1 || mine >= NVME_QUEUES ||
	    n->cq_vector[q] >= NVME_QUEUES)
		return false;
	if (sq ? n->sq_head[q] >= sq || n->sq_tail[q] >= sq || !n->cq_size[mine]
	       : n->sq_head[q] || n->sq_tail[q])
		return false;
	return cq ? n->cq_head[q] < cq && n->cq_tail[q] < cq : !n->cq_head[q] && !n->cq_tail[q];
}

static int nvme_post_load(struct device *dev, struct err *err)
{
	struct nvme *n = container_of(dev, struct nvme, dev);
	int r = pci_dev_post_load(&n->pci, err);
	bool ok = !(n->cc & ~CC_VALID) && !(n->csts & ~(u32)CSTS_VALID) && !(n->aqa & ~AQA_VALID) &&
		  !(n->asq & ~PAGE_MASK) && !(n->acq & ~PAGE_MASK) && !n->sq_cq[0];

	/* Nothing was under way when it was saved; what is under way here is of another past. */
	n->epoch++;
	n->nr_old = n->nr_host;
	memset(n->sq_taken, 0, sizeof(n->sq_taken));
	memset(n->cq_taken, 0, sizeof(n->cq_taken));
	memset(n->sq_deleting, 0, sizeof(n->sq_deleting));
	for (unsigned q = 0; q < NVME_QUEUES; q++)
		ok = ok && queue_ok(n, q);
	if (r == 0 && !ok)
		r = err_set(err, -EINVAL, "the state of device %s has impossible registers or queues",
			    dev->id);
	if (r < 0)
		return r;
	update_pin(n);
	return 0;
}

static void nvme_fini(struct device *dev)
{
	struct nvme *n = container_of(dev, struct nvme, dev);

	n->quiet = true;
	if (n->pci.owner)
		stop(n);
	drive_fini(&n->drive);
	pci_del(&n->pci);
}

const struct device_ops nvme_device = {
	.name = "nvme",
	.size = sizeof(struct nvme),
	.init = nvme_init,
	.reset = nvme_reset,
	.quiesce = nvme_quiesce,
	.resume = nvme_resume,
	.stats = nvme_stats,
	.state = nvme_state,
	.post_load = nvme_post_load,
	.fini = nvme_fini,
};
