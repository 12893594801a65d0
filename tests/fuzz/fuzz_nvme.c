/* Hostile queues for the NVMe controller: commands written at random, and nearly right; doorbells, registers, resets, completions
 * and time in any order; pages and lists that point at device memory, at queues and at themselves [G26, G28, G43].
 *
 * Whatever came before, a reset gives a controller that reads. What is read and written outside of the guest's memory is the
 * sanitizers' business; fakeblock.c checks what reaches a disk.
 */
#include <string.h>

#include "base/bits.h"
#include "ndriver.h"
#include "script.h"
#include "wholeboard.h"

#define RAM (4 * MiB)

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

static u64 take_addr(struct ndriver *d)
{
	const u64 edges[] = { 0,          NDRIVER_AT, NDRIVER_AT + 0x10000, RAM - 4096, RAM, 0xe0000,
			      0xc0000000, d->regs,    0xfee00000,           ~0ull };
	u64 kind = take(1);

	if (kind < 180)
		return NDRIVER_DATA + ((kind & 63) << 12) + (kind & 64 ? take(1) << 3 : 0);
	if (kind < 240)
		return edges[kind % ARRAY_SIZE(edges)] + (take(1) & 0x7f);
	return take(8);
}

static void put_command(struct ndriver *d, unsigned q)
{
	static const u8 io[] = { 0, 1, 1, 2, 2, 8, 9, 9 };
	static const u8 admin[] = { 0, 1, 1, 2, 4, 5, 5, 6, 6, 8, 9, 10, 12 };
	u8 pick = (u8)take(1);
	struct nvme_sqe e = {
		.opcode = pick > 250 ? pick
			  : q        ? io[pick % sizeof(io)]
				     : admin[pick % sizeof(admin)],
		.flags = take(1) & 31 ? 0 : (u8)take(1),
		.nsid = take(1) & 15 ? 1 : (u32)take(4),
		.prp1 = take_addr(d),
		.prp2 = take_addr(d),
	};

	if (q || take(1) & 3) {
		e.cdw10 = (u32)take(take(1) & 15 ? 1 : 4);
		e.cdw11 = e.opcode == 9 ? 4 : take(1) & 15 ? 0 : (u32)take(4);
		e.cdw12 = (u32)take(1) | (take(1) & 7 ? 0 : (u32)take(4));
	} else { /* a queue */
		e.cdw10 = (u32)(take(1) & 7) | (u32)take(1) << 16;
		e.cdw11 = 3 | (u32)(take(1) & 7) << 16;
		e.prp1 &= ~0xfffull;
	}
	ndriver_put(d, q, &e);
}

static void step(struct wholeboard *w, struct ndriver *d)
{
	u64 op = take(1);
	unsigned q = (unsigned)(op >> 5) % NDRIVER_MAX;
	u32 dw0;
	u16 cid;

	switch (op & 31) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4:
	case 5:
		if (d->q[q].size)
			put_command(d, q);
		break;
	case 6:
	case 7:
	case 8:
		if (d->q[q].size)
			ndriver_kick(d, q);
		break;
	case 9:
	case 10:
		if (d->q[q].size)
			ndriver_answer(d, q, &cid, &dw0);
		break;
	case 11: ndriver_write(d, 0x1000 + 4 * ((unsigned)take(1) & 63), (u32)take(1)); break;
	case 12: ndriver_write(d, 0x1000 + 4 * (unsigned)take(2), (u32)take(4)); break;
	case 13: ndriver_write(d, (unsigned)take(1) & 0x3c, (u32)take(4)); break;
	case 14: ndriver_read64(d, (unsigned)take(1) & 0x78); break;
	case 15:
	case 16: st64(ndriver_mem(d, NDRIVER_DATA + (take(2) << 3)), take_addr(d)); break;
	case 17: st64(ndriver_mem(d, NDRIVER_AT + (take(2) << 3)), take(8)); break;
	case 18:
	case 19:
	case 20: fake_block_run(&w->nvme, (unsigned)take(1), take(2)); break;
	case 21: w->nvme.hold = take(1) & 1; break;
	case 22: w->nvme.fail = take(1) & 15 ? 0 : -5; break;
	case 23: ndriver_enable(d); break;
	case 24: ndriver_write(d, 0x14, 0x460000 | ((u32)take(1) & 1) | ((u32)take(1) & 3) << 14); break;
	case 25:
	case 26:
		if (q && d->q[0].size && (ndriver_read(d, 0x1c) & 3) == 1)
			ndriver_queue(d, q, (u16)(2 + take(1) % 60));
		break;
	case 27: board_advance(&w->b, take(2) * 1000); break;
	case 28: bus_write(&w->b.vm.bus, BUS_MMIO, d->ecam + take(1), 4, take(4)); break;
	case 29: memset(ndriver_mem(d, NDRIVER_DATA + (take(1) << 12)), (int)take(1), 4096); break;
	case 30:
		if (!(take(1) & 7))
			device_reset_all(&w->b.vm, RESET_WARM);
		break;
	default:
		bus_write(&w->b.vm.bus, BUS_MMIO, d->regs + take(2) % 0x4000, 1u << take(1) % 4, take(8));
		break;
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static struct wholeboard w;
	struct ndriver d;
	u32 dw0;

	script_begin(data, len, true);
	wholeboard_init(&w, RAM, 1);
	ndriver_find(&d, &w.b);
	ndriver_enable(&d);
	while (script_at < script_end)
		step(&w, &d);
	w.nvme.hold = false;
	w.nvme.fail = 0;
	fake_block_run(&w.nvme, ~0u, 1);
	ndriver_find(&d, &w.b);
	ndriver_write(&d, 0x14, 0);
	must(!(ndriver_read(&d, 0x1c) & 3), "NVMe: a reset does not end");
	ndriver_enable(&d);
	must(ndriver_queue(&d, 1, 8), "NVMe: after a reset there is no queue");
	const struct nvme_sqe e = { .opcode = 2, .nsid = 1, .prp1 = NDRIVER_DATA, .cdw12 = 7 };
	memset(w.nvme.data, 0xa5, 4096);
	must(!ndriver_run(&d, 1, &e, &dw0) && !memcmp(ndriver_mem(&d, NDRIVER_DATA), w.nvme.data, 4096),
	     "NVMe: after a reset it does not read");
	wholeboard_fini(&w);
	return 0;
}
