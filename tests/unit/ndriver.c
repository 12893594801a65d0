/* See ndriver.h. */
#include "ndriver.h"

#include <string.h>

#include "base/bits.h"
#include "dev/pci.h"

#define REGS       0xd1000000ull
#define ADMIN_SIZE 32

void ndriver_find(struct ndriver *d, struct board *b)
{
	*d = (struct ndriver){ .b = b };
	d->ecam = board_pci_find(b, 0x010802);
	d->regs = REGS;
	bus_write(&b->vm.bus, BUS_MMIO, d->ecam + PCI_BAR0, 4, REGS);
	bus_write(&b->vm.bus, BUS_MMIO, d->ecam + PCI_BAR0 + 4, 4, 0);
	bus_write(&b->vm.bus, BUS_MMIO, d->ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
}

u32 ndriver_read(struct ndriver *d, unsigned reg)
{
	return (u32)bus_read(&d->b->vm.bus, BUS_MMIO, d->regs + reg, 4);
}

u64 ndriver_read64(struct ndriver *d, unsigned reg)
{
	return bus_read(&d->b->vm.bus, BUS_MMIO, d->regs + reg, 8);
}

void ndriver_write(struct ndriver *d, unsigned reg, u32 val)
{
	bus_write(&d->b->vm.bus, BUS_MMIO, d->regs + reg, 4, val);
}

u8 *ndriver_mem(struct ndriver *d, u64 gpa)
{
	return d->b->vm.ram.base + gpa;
}

static u64 sq_at(unsigned q)
{
	return NDRIVER_AT + 0x20000ull * q;
}

static u64 cq_at(unsigned q)
{
	return sq_at(q) + 0x10000;
}

static void fresh(struct ndriver *d, unsigned q, u16 size)
{
	d->q[q].size = size;
	d->q[q].tail = d->q[q].head = 0;
	d->q[q].phase = true;
	memset(ndriver_mem(d, cq_at(q)), 0, (size_t)size * NVME_CQE_LEN);
}

void ndriver_enable(struct ndriver *d)
{
	ndriver_write(d, 0x14, 0);
	ndriver_write(d, 0x24, (ADMIN_SIZE - 1) | (ADMIN_SIZE - 1) << 16);
	ndriver_write(d, 0x28, (u32)sq_at(0));
	ndriver_write(d, 0x2c, 0);
	ndriver_write(d, 0x30, (u32)cq_at(0));
	ndriver_write(d, 0x34, 0);
	fresh(d, 0, ADMIN_SIZE);
	ndriver_write(d, 0x14, 0x00460001);
}

bool ndriver_queue(struct ndriver *d, unsigned q, u16 size)
{
	const u32 which = q | (size - 1u) << 16;
	const struct nvme_sqe cq = { .opcode = 5, .prp1 = cq_at(q), .cdw10 = which, .cdw11 = 3 | q << 16 };
	const struct nvme_sqe sq = { .opcode = 1, .prp1 = sq_at(q), .cdw10 = which, .cdw11 = 1 | q << 16 };
	u32 dw0;

	fresh(d, q, size);
	return !ndriver_run(d, 0, &cq, &dw0) && !ndriver_run(d, 0, &sq, &dw0);
}

u16 ndriver_put(struct ndriver *d, unsigned q, const struct nvme_sqe *e)
{
	struct nvme_sqe mine = *e;

	mine.cid = ++d->cid;
	memcpy(ndriver_mem(d, sq_at(q) + (u64)NVME_SQE_LEN * d->q[q].tail), &mine, sizeof(mine));
	d->q[q].tail = (u16)((d->q[q].tail + 1) % d->q[q].size);
	return mine.cid;
}

void ndriver_kick(struct ndriver *d, unsigned q)
{
	ndriver_write(d, 0x1000 + 8 * q, d->q[q].tail);
}

unsigned ndriver_answer(struct ndriver *d, unsigned q, u16 *ret_cid, u32 *ret_dw0)
{
	const u8 *e = ndriver_mem(d, cq_at(q) + (u64)NVME_CQE_LEN * d->q[q].head);
	u32 dw3 = ld32(e + 12);

	if ((dw3 >> 16 & 1) != d->q[q].phase)
		return ~0u;
	*ret_cid = (u16)dw3;
	*ret_dw0 = ld32(e);
	if (++d->q[q].head == d->q[q].size) {
		d->q[q].head = 0;
		d->q[q].phase = !d->q[q].phase;
	}
	ndriver_write(d, 0x1000 + 8 * q + 4, d->q[q].head);
	return dw3 >> 17;
}

unsigned ndriver_run(struct ndriver *d, unsigned q, const struct nvme_sqe *e, u32 *ret_dw0)
{
	u16 cid = ndriver_put(d, q, e), answered = 0;
	unsigned status;

	ndriver_kick(d, q);
	status = ndriver_answer(d, q, &answered, ret_dw0);
	return status != ~0u && answered != cid ? NDRIVER_OTHER : status;
}
