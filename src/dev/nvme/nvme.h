/* The NVMe controller "nvme": what its two sources share. */
#pragma once

#include "dev/drive.h"
#include "dev/pci.h"
#include "dev/pci_msi.h"

#define NVME_IO_QUEUES 16
#define NVME_QUEUES    (NVME_IO_QUEUES + 1) /* with the one for administration, number 0 */
#define NVME_ENTRIES   1024
#define NVME_SQE_LEN   64
#define NVME_CQE_LEN   16
#define NVME_PAGE      4096u
#define NVME_BLOCK     512u
#define NVME_FEATURES  16
#define NVME_NSID      1

/* Submission queue entry [NVMe 4.2] */
struct nvme_sqe {
	u8 opcode, flags;
	u16 cid;
	u32 nsid, unused[2];
	u64 metadata, prp1, prp2;
	u32 cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
_Static_assert(sizeof(struct nvme_sqe) == NVME_SQE_LEN, "entry");

/* Status codes: type in bits 10..8, "do not retry" in bit 14 [NVMe 4.6.1] */
#define NVME_OK           0
#define NVME_DNR          BIT(14)
#define NVME_BAD_OPCODE   (NVME_DNR | 0x001)
#define NVME_BAD_FIELD    (NVME_DNR | 0x002)
#define NVME_DATA_ERROR   0x004
#define NVME_INTERNAL     0x006
#define NVME_BAD_NSID     (NVME_DNR | 0x00b)
#define NVME_BAD_SEQUENCE (NVME_DNR | 0x00c)
#define NVME_BAD_PRP      (NVME_DNR | 0x013)
#define NVME_PROTECTED    (NVME_DNR | 0x020)
#define NVME_BAD_LBA      (NVME_DNR | 0x080)
#define NVME_BAD_CQ       (NVME_DNR | 0x100)
#define NVME_BAD_QUEUE    (NVME_DNR | 0x101)
#define NVME_BAD_SIZE     (NVME_DNR | 0x102)
#define NVME_AER_LIMIT    (NVME_DNR | 0x105)
#define NVME_BAD_VECTOR   (NVME_DNR | 0x108)
#define NVME_BAD_LOG      (NVME_DNR | 0x109)
#define NVME_BAD_DELETION (NVME_DNR | 0x10c)
#define NVME_NO_SAVE      (NVME_DNR | 0x10d)
#define NVME_WRITE_FAULT  0x280
#define NVME_READ_ERROR   0x281
#define NVME_LATER        0xffff /* it is on its way, and nvme_complete() comes */

struct nvme {
	struct device dev;
	struct pci_dev pci;
	struct pci_msix msix;
	struct drive drive;
	unsigned nr_io;  /* queues for I/O that it offers */
	unsigned last_q; /* the highest number that it takes */

	u32 intms, cc, csts, aqa;
	u64 asq, acq;
	u64 sq_base[NVME_QUEUES], cq_base[NVME_QUEUES];
	u16 sq_size[NVME_QUEUES], cq_size[NVME_QUEUES]; /* entries; 0: there is none */
	u16 sq_head[NVME_QUEUES], sq_tail[NVME_QUEUES];
	u16 cq_head[NVME_QUEUES], cq_tail[NVME_QUEUES];
	u16 sq_cq[NVME_QUEUES], cq_vector[NVME_QUEUES];
	u8 cq_phase[NVME_QUEUES], cq_irq[NVME_QUEUES];
	u32 feature[NVME_FEATURES];
	u8 nr_events; /* requests for asynchronous events, of which none comes */

	/* What is on its way; nothing when the state is saved. */
	u32 epoch;        /* of the queues: changes with each reset */
	unsigned nr_host; /* requests of all epochs that use the guest's memory */
	unsigned nr_old;  /* of them, those of former epochs */
	u16 sq_taken[NVME_QUEUES], cq_taken[NVME_QUEUES]; /* commands without an answer yet */
	bool sq_deleting[NVME_QUEUES];
	u16 sq_delete_cid[NVME_QUEUES];
	struct block_req shutdown; /* the flush of a shutdown */
	u32 shutdown_epoch;
	bool shutting, quiet, submitted;
};

/* nvme.c; all under the lock. */
/* Answers a command. */
void nvme_complete(struct nvme *n, unsigned sq, u16 cid, u16 status, u32 dw0);
/* A request of the host with the guest's memory begins or ends; epoch: as when it began. */
void nvme_host_begin(struct nvme *n);
void nvme_host_end(struct nvme *n, u32 epoch);
/* To the host; nvme_commit() begins what was submitted. */
void nvme_submit(struct nvme *n, struct block_req *req);
void nvme_commit(struct nvme *n);
/* The controller can do no more until it is reset. */
void nvme_fatal(struct nvme *n, const char *why);

/* nvme_cmd.c. Carries out a command of the queue: its status, or NVME_LATER; *ret_dw0 for the answer. */
u16 nvme_cmd_run(struct nvme *n, unsigned sq, const struct nvme_sqe *e, u32 *ret_dw0);
/* False: limits of rate make it wait in its queue. */
bool nvme_cmd_may_pass(struct nvme *n, unsigned sq, const struct nvme_sqe *e);
/* The features as after a reset. */
void nvme_cmd_reset(struct nvme *n);
