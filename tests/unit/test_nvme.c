/* NVMe: registers, queues, every command, pages of data in all layouts, what a driver may get wrong, requests on their way when it
 * resets, limits, failures of the host [G26-G29, G43]. */
#include "fakevm.h"

#include <errno.h>

#include "base/bits.h"
#include "dev/nvme/nvme.h"
#include "dev/pci.h"
#include "fakeblock.h"
#include "ndriver.h"

#define SIZE   (8 * MiB)
#define BLOCKS (SIZE / 512)
#define DATA   NDRIVER_DATA
#define LIST   (NDRIVER_DATA + 0x180000)

static struct fake_block disk;
static struct block_conf conf;
static struct ndriver d;
static struct device *dev;

static void up(bool read_only)
{
	fake_vm(1);
	fake_add("pci", NULL);
	fake_block_init(&disk, SIZE);
	disk.block.read_only = read_only;
	for (u64 i = 0; i < SIZE; i += 8)
		st64(disk.data + i, i * 0x9e3779b97f4a7c15ull);
	dev = fake_add("nvme", &(const struct device_conf){
				       .id = "disk7", .block = &disk.block, .block_conf = &conf });
	ndriver_find(&d, &fake.b);
}

static void start(bool read_only, unsigned queues, u16 size)
{
	up(read_only);
	ndriver_enable(&d);
	assert_int_equal(ndriver_read(&d, 0x1c), 1);
	for (unsigned q = 1; q <= queues; q++)
		assert_true(ndriver_queue(&d, q, size));
}

static void down(void)
{
	fake_done(NULL);
	fake_block_fini(&disk);
	conf = (struct block_conf){ 0 };
}

static u8 *mem(u64 at)
{
	return ndriver_mem(&d, at);
}

/* The status of one command; ~0: there is no answer. */
static unsigned run(unsigned q, struct nvme_sqe e)
{
	u32 dw0;

	return ndriver_run(&d, q, &e, &dw0);
}

static struct nvme_sqe io(u8 opcode, u64 lba, u32 blocks, u64 prp1, u64 prp2)
{
	return (struct nvme_sqe){ .opcode = opcode,
				  .nsid = 1,
				  .prp1 = prp1,
				  .prp2 = prp2,
				  .cdw10 = (u32)lba,
				  .cdw11 = (u32)(lba >> 32),
				  .cdw12 = blocks - 1 };
}

static struct nvme_sqe admin(u8 opcode, u32 cdw10, u32 cdw11, u64 prp1)
{
	return (struct nvme_sqe){ .opcode = opcode, .cdw10 = cdw10, .cdw11 = cdw11, .prp1 = prp1 };
}

static void test_registers(void **state)
{
	up(false);
	assert_int_equal(ndriver_read64(&d, 0), 0x20040103ffull);
	assert_int_equal(ndriver_read(&d, 8), 0x10400);
	assert_int_equal(ndriver_read(&d, 0x1c), 0);
	ndriver_write(&d, 0x28, 0x12345fff);
	ndriver_write(&d, 0x24, ~0u);
	assert_int_equal(ndriver_read(&d, 0x28), 0x12345000);
	assert_int_equal(ndriver_read(&d, 0x24), 0x0fff0fff);
	ndriver_write(&d, 0x0c, 5);
	assert_int_equal(ndriver_read(&d, 0x10), 5);
	ndriver_write(&d, 0x10, 4);
	assert_int_equal(ndriver_read(&d, 0x0c), 1);
	ndriver_enable(&d);
	/* not while it is enabled */
	ndriver_write(&d, 0x28, 0);
	assert_int_not_equal(ndriver_read(&d, 0x28), 0);
	/* settings that there are not */
	static const u32 bad[] = { 0x460010 | 1, 0x460080 | 1, 0x460800 | 1, 0x450001, 0x560001, 1 };
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		ndriver_write(&d, 0x14, 0);
		assert_int_equal(ndriver_read(&d, 0x1c), 0);
		ndriver_write(&d, 0x14, bad[i]);
		assert_int_equal(ndriver_read(&d, 0x1c) & 2, 2);
	}
	ndriver_enable(&d);
	assert_int_equal(ndriver_read(&d, 0x1c), 1);
	/* shutdown [NVMe 7.6.2] */
	disk.hold = true;
	ndriver_write(&d, 0x14, 0x464001);
	assert_int_equal(ndriver_read(&d, 0x1c), 5);
	disk.hold = false;
	fake_block_run(&disk, 1, 1);
	assert_int_equal(ndriver_read(&d, 0x1c), 9);
	assert_int_equal(disk.flushes, 1);
	ndriver_enable(&d);
	assert_int_equal(ndriver_read(&d, 0x1c), 1);
	fake_storm(BUS_MMIO, d.regs, 0x4000, 20000);
	fake_state(dev);
	down();
}

static void test_identify(void **state)
{
	u32 dw0 = 0;

	conf.serial = "0123456789abcdefghij";
	conf.queues = 3;
	start(false, 0, 0);
	assert_int_equal(run(0, admin(6, 1, 0, DATA)), 0);
	assert_memory_equal(mem(DATA + 4), "0123456789abcdefghij", 20);
	assert_memory_equal(mem(DATA + 24), "bothy NVMe   ", 12);
	assert_int_equal(ld32(mem(DATA + 516)), 1);
	struct nvme_sqe e = admin(6, 0, 0, DATA);
	assert_int_equal(run(0, e), NVME_BAD_NSID);
	e.nsid = 1;
	assert_int_equal(run(0, e), 0);
	assert_int_equal(ld64(mem(DATA)), BLOCKS);
	assert_int_equal(*mem(DATA + 130), 9);
	e.cdw10 = 3;
	assert_int_equal(run(0, e), 0);
	assert_int_equal(ld16(mem(DATA)), 0x1003);
	e.cdw10 = 2;
	assert_int_equal(run(0, e), 0);
	assert_int_equal(ld32(mem(DATA)), 0);
	e.nsid = 0;
	assert_int_equal(run(0, e), 0);
	assert_int_equal(ld64(mem(DATA)), 1);
	e.cdw10 = 4;
	assert_int_equal(run(0, e), NVME_BAD_FIELD);
	/* across two pages */
	e = admin(6, 1, 0, DATA + 0x800);
	e.prp2 = DATA + 0x4000;
	assert_int_equal(run(0, e), 0);
	assert_memory_equal(mem(DATA + 0x804), "0123456789abcdefghij", 20);
	assert_int_equal(ld16(mem(DATA + 0x4000)), 500); /* what is at 2048 */
	/* logs */
	e = admin(2, 2 | 127 << 16, 0, DATA);
	assert_int_equal(run(0, e), 0);
	assert_int_equal(*mem(DATA + 3), 100);
	assert_int_equal(run(0, admin(2, 1 | 15 << 16, 0, DATA)), 0);
	assert_int_equal(run(0, admin(2, 3 | 127 << 16, 0, DATA)), 0);
	assert_int_equal(run(0, admin(2, 0x70 | 15 << 16, 0, DATA)), NVME_BAD_LOG);
	assert_int_equal(run(0, admin(2, 0xffff0002, 0xffff, DATA)), NVME_BAD_FIELD);
	/* features */
	e = admin(0x0a, 7, 0, 0);
	assert_int_equal(ndriver_run(&d, 0, &e, &dw0), 0);
	assert_int_equal(dw0, 2 | 2 << 16);
	e = admin(9, 7, 0x00ff00ff, 0);
	assert_int_equal(ndriver_run(&d, 0, &e, &dw0), 0);
	assert_int_equal(dw0, 2 | 2 << 16);
	assert_int_equal(run(0, admin(9, 7, 0xffff, 0)), NVME_BAD_FIELD);
	assert_int_equal(run(0, admin(9, 0x80000006, 0, 0)), NVME_NO_SAVE);
	for (u32 id = 0; id < 256; id++) {
		bool there = id >= 1 && id <= 11 && id != 3;

		assert_int_equal(run(0, admin(0x0a, id, 0, 0)), there ? 0 : NVME_BAD_FIELD);
		assert_int_equal(run(0, admin(9, id, 0, 0)), there ? 0 : NVME_BAD_FIELD);
	}
	e = admin(8, 0, 0, 0);
	assert_int_equal(ndriver_run(&d, 0, &e, &dw0), 0);
	assert_int_equal(dw0, 1);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(run(0, admin(0x0c, 0, 0, 0)), ~0u);
	assert_int_equal(run(0, admin(0x0c, 0, 0, 0)), NVME_AER_LIMIT);
	for (unsigned op = 0; op < 256; op++) {
		if (op <= 12 && op != 3 && op != 7 && op != 11)
			continue;
		assert_int_equal(run(0, admin((u8)op, 0, 0, DATA)), NVME_BAD_OPCODE);
	}
	e = admin(6, 1, 0, DATA);
	e.flags = 0x40;
	assert_int_equal(run(0, e), NVME_BAD_FIELD);
	e.flags = 1;
	assert_int_equal(run(0, e), NVME_BAD_FIELD);
	down();
}

static void test_queues(void **state)
{
	/* OVMF makes two queues, however many there are. */
	conf.queues = 1;
	start(false, 2, 8);
	assert_int_equal(run(0, admin(5, 3 | 7 << 16, 1, DATA)), NVME_BAD_QUEUE);
	assert_int_equal(run(2, io(2, 0, 8, DATA, 0)), 0);
	down();
	conf.queues = 4;
	start(false, 4, 8);
	/* numbers, sizes, bases, vectors, order */
	assert_int_equal(run(0, admin(5, 1 | 7 << 16, 1, DATA)), NVME_BAD_QUEUE);
	assert_int_equal(run(0, admin(5, 5 | 7 << 16, 1, DATA)), NVME_BAD_QUEUE);
	assert_int_equal(run(0, admin(5, 0 | 7 << 16, 1, DATA)), NVME_BAD_QUEUE);
	assert_int_equal(run(0, admin(1, 1 | 7 << 16, 1 | 1 << 16, DATA)), NVME_BAD_QUEUE);
	assert_int_equal(run(0, admin(4, 4, 0, 0)), NVME_BAD_DELETION);
	assert_int_equal(run(0, admin(0, 4, 0, 0)), 0);
	assert_int_equal(run(0, admin(0, 4, 0, 0)), NVME_BAD_QUEUE);
	assert_int_equal(run(0, admin(4, 4, 0, 0)), 0);
	assert_int_equal(run(0, admin(4, 4, 0, 0)), NVME_BAD_QUEUE);
	assert_int_equal(run(0, admin(4, 0, 0, 0)), NVME_BAD_QUEUE);
	assert_int_equal(run(0, admin(0, 0, 0, 0)), NVME_BAD_QUEUE);
	assert_int_equal(run(0, admin(5, 4, 1, DATA)), NVME_BAD_SIZE);
	assert_int_equal(run(0, admin(5, 4 | 1024u << 16, 1, DATA)), NVME_BAD_SIZE);
	assert_int_equal(run(0, admin(5, 4 | 7 << 16, 0, DATA)), NVME_BAD_FIELD);
	assert_int_equal(run(0, admin(5, 4 | 7 << 16, 1, DATA + 8)), NVME_BAD_PRP);
	assert_int_equal(run(0, admin(5, 4 | 7 << 16, 1 | 17 << 16, DATA)), NVME_BAD_VECTOR);
	assert_int_equal(run(0, admin(5, 4 | 7 << 16, 1, 0xc0000000)), NVME_BAD_FIELD);
	assert_int_equal(run(0, admin(5, 4 | 1023u << 16, 1, FAKE_RAM - 4096)), NVME_BAD_FIELD);
	assert_int_equal(run(0, admin(1, 4 | 7 << 16, 1 | 4 << 16, DATA)), NVME_BAD_CQ);
	assert_int_equal(run(0, admin(1, 4 | 7 << 16, 1 | 0 << 16, DATA)), NVME_BAD_CQ);
	assert_int_equal(run(0, admin(1, 4 | 7 << 16, 1 | 17u << 16, DATA)), NVME_BAD_CQ);
	assert_int_equal(run(0, admin(9, 7, 1, 0)), NVME_BAD_SEQUENCE);
	assert_true(ndriver_queue(&d, 4, 1024));
	/* many rounds, all queues */
	for (unsigned i = 0; i < 5000; i++) {
		unsigned q = 1 + i % 4;
		u64 lba = fake_random() % (BLOCKS - 8);

		assert_int_equal(run(q, io(2, lba, 8, DATA, 0)), 0);
		assert_memory_equal(mem(DATA), disk.data + 512 * lba, 4096);
	}
	/* doorbells that are none */
	ndriver_write(&d, 0x1000 + 8, 8);
	ndriver_write(&d, 0x1000 + 8, 0xffff);
	ndriver_write(&d, 0x1000 + 12, 9);
	ndriver_write(&d, 0x1000 + 8 * 5, 1);
	ndriver_write(&d, 0x3ffc, 1);
	assert_int_equal(run(1, io(2, 0, 8, DATA, 0)), 0);
	/* no room for answers: commands wait in their queue, none is lost */
	unsigned before = disk.requests;
	for (unsigned i = 0; i < 7; i++) {
		struct nvme_sqe e = io(2, i, 1, DATA + 512 * i, 0);

		ndriver_put(&d, 1, &e);
	}
	ndriver_kick(&d, 1);
	assert_int_equal(disk.requests, before + 7);
	for (unsigned i = 0; i < 7; i++) {
		struct nvme_sqe e = io(2, 8 + i, 1, DATA + 0x1000 + 512 * i, 0);

		ndriver_put(&d, 1, &e);
	}
	ndriver_kick(&d, 1);
	assert_int_equal(disk.requests, before + 7);
	for (unsigned i = 0; i < 14; i++) {
		u32 dw0;
		u16 cid;

		assert_int_equal(ndriver_answer(&d, 1, &cid, &dw0), 0);
	}
	assert_int_equal(disk.requests, before + 14);
	down();
}

/* Data of every length at every offset, with one page, two, and lists that go on in other pages. */
static void test_transfers(void **state)
{
	start(false, 2, 16);
	for (unsigned k = 0; k < 300; k++) {
		u32 blocks = 1 + (u32)(fake_random() % (k % 4 ? 16 : 2048));
		u64 lba = fake_random() % (BLOCKS - blocks), len = 512ull * blocks;
		u32 offset = (u32)(fake_random() % 1024) * 4 & (k & 1 ? ~0u : 0);
		unsigned pages = (unsigned)((offset + len + 4095) / 4096), first = NDRIVER_DATA >> 12;
		bool write = k & 2;
		u64 prp2 = 0, list = LIST + 8 * (k % 3 ? 512 - MIN(1 + k % 7, 512u) : 0);
		u8 *buf = malloc(len);

		/* pages in reverse order */
		if (pages == 2)
			prp2 = (u64)first << 12;
		if (pages > 2) {
			prp2 = list;
			for (unsigned i = 1; i < pages; i++) {
				if (list % 4096 == 4088 && i + 1 < pages) {
					st64(mem(list), ALIGN_UP(list, 4096ull));
					list += 8;
				}
				st64(mem(list), (u64)(first + pages - 1 - i) << 12);
				list += 8;
			}
		}
		struct nvme_sqe e =
			io(write ? 1 : 2, lba, blocks, ((u64)(first + pages - 1) << 12) + offset, prp2);
		if (write) {
			for (u64 i = 0; i < len; i++)
				*mem(i + offset < 4096
					     ? e.prp1 + i
					     : ((u64)(first + pages - 1 - (i + offset) / 4096) << 12) +
						       (i + offset) % 4096) = buf[i] = (u8)fake_random();
		}
		assert_int_equal(run(1 + k % 2, e), 0);
		if (!write)
			for (u64 i = 0; i < len; i++)
				buf[i] = *mem(
					i + offset < 4096
						? e.prp1 + i
						: ((u64)(first + pages - 1 - (i + offset) / 4096) << 12) +
							  (i + offset) % 4096);
		assert_memory_equal(buf, disk.data + 512 * lba, len);
		free(buf);
	}
	down();
}

static void test_G43_prps(void **state)
{
	static const u64 bad[] = { 0xc0000000, 0xe0000000, 0xfee00000, FAKE_RAM, 1ull << 52, ~0ull << 12 };

	start(false, 1, 16);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		for (u8 op = 1; op <= 2; op++) {
			assert_int_equal(run(1, io(op, 0, 8, bad[i], 0)), NVME_DATA_ERROR);
			assert_int_equal(run(1, io(op, 0, 16, DATA, bad[i])), NVME_DATA_ERROR);
			assert_int_equal(run(1, io(op, 0, 24, DATA, bad[i])), NVME_DATA_ERROR);
			st64(mem(LIST), DATA);
			st64(mem(LIST + 8), bad[i]);
			assert_int_equal(run(1, io(op, 0, 24, DATA, LIST)), NVME_DATA_ERROR);
		}
		assert_int_equal(run(0, admin(6, 1, 0, bad[i])), NVME_DATA_ERROR);
		struct nvme_sqe e = io(9, 0, 1, bad[i], 0);
		e.cdw10 = 0;
		e.cdw11 = 4;
		assert_int_equal(run(1, e), NVME_DATA_ERROR);
	}
	assert_int_equal(run(1, io(2, 0, 8, DATA + 1, 0)), NVME_BAD_PRP);
	assert_int_equal(run(1, io(2, 0, 16, DATA, DATA + 8)), NVME_BAD_PRP);
	assert_int_equal(run(1, io(2, 0, 24, DATA, LIST + 4)), NVME_BAD_PRP);
	st64(mem(LIST), DATA + 8);
	assert_int_equal(run(1, io(2, 0, 24, DATA, LIST)), NVME_BAD_PRP);
	/* a list that leads to itself: of as many entries as there are data all the same */
	for (unsigned i = 0; i < 512; i++)
		st64(mem(LIST + 8 * i), LIST);
	assert_int_equal(run(1, io(1, 0, 2048, DATA, LIST + 4088)), 0);
	st64(mem(LIST + 4088), LIST + 8);
	assert_int_equal(run(1, io(1, 0, 2048, DATA, LIST + 4088)), NVME_BAD_PRP);
	assert_int_equal(run(1, io(1, 0, 2049, DATA, LIST)), NVME_BAD_FIELD);
	assert_int_equal(run(1, io(1, 0, 65536, DATA, LIST)), NVME_BAD_FIELD);
	down();
}

static void test_G26_G28_ranges(void **state)
{
	for (unsigned ro = 0; ro < 2; ro++) {
		start(ro, 1, 16);
		for (unsigned i = 0; i < 3; i++) {
			static const u8 ops[] = { 1, 2, 8 };
			const bool refused = ro && ops[i] != 2;
			const u16 want = refused ? NVME_PROTECTED : NVME_BAD_LBA;

			assert_int_equal(run(1, io(ops[i], BLOCKS - 1, 1, DATA, 0)),
					 refused ? NVME_PROTECTED : 0);
			assert_int_equal(run(1, io(ops[i], BLOCKS - 1, 2, DATA, 0)), want);
			assert_int_equal(run(1, io(ops[i], BLOCKS, 1, DATA, 0)), want);
			assert_int_equal(run(1, io(ops[i], ~0ull, 2, DATA, 0)), want);
			assert_int_equal(run(1, io(ops[i], 1ull << 55, 8, DATA, 0)), want);
		}
		struct nvme_sqe e = io(9, 0, 1, DATA, 0);
		e.cdw10 = 2;
		e.cdw11 = 4;
		memset(mem(DATA), 0, 48);
		st32(mem(DATA + 4), 8);
		st32(mem(DATA + 36), 8);
		st64(mem(DATA + 40), BLOCKS - 8);
		const unsigned before = disk.requests;
		assert_int_equal(run(1, e), ro ? NVME_PROTECTED : 0);
		assert_int_equal(disk.requests - before, ro ? 0 : 2);
		st64(mem(DATA + 40), BLOCKS - 7);
		assert_int_equal(run(1, e), ro ? NVME_PROTECTED : NVME_BAD_LBA);
		st64(mem(DATA + 40), ~0ull);
		assert_int_equal(run(1, e), ro ? NVME_PROTECTED : NVME_BAD_LBA);
		assert_int_equal(disk.requests - before, ro ? 0 : 2);
		e.nsid = 2;
		assert_int_equal(run(1, e), NVME_BAD_NSID);
		if (ro)
			assert_int_equal(disk.written, 0);
		for (unsigned op = 0; op < 256; op++)
			if (op > 2 && op != 8 && op != 9)
				assert_int_equal(run(1, io((u8)op, 0, 1, DATA, 0)), NVME_BAD_OPCODE);
		down();
	}
}

static void test_flushes(void **state)
{
	start(false, 1, 16);
	assert_int_equal(run(1, io(0, 0, 1, 0, 0)), 0);
	assert_int_equal(disk.flushes, 1);
	struct nvme_sqe e = io(1, 0, 8, DATA, 0);
	assert_int_equal(run(1, e), 0);
	assert_int_equal(disk.flushes, 1);
	e.cdw12 |= BIT(30);
	assert_int_equal(run(1, e), 0);
	assert_int_equal(disk.flushes, 2);
	assert_int_equal(run(0, admin(9, 6, 0, 0)), 0);
	assert_int_equal(run(1, io(1, 0, 8, DATA, 0)), 0);
	assert_int_equal(run(1, io(8, 0, 8, 0, 0)), 0);
	assert_int_equal(run(1, io(2, 0, 8, DATA, 0)), 0);
	assert_int_equal(disk.flushes, 4);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(*mem(DATA + i), 0);
	disk.fail = -EIO;
	assert_int_equal(run(1, io(2, 0, 8, DATA, 0)), NVME_READ_ERROR);
	assert_int_equal(run(1, io(1, 0, 8, DATA, 0)), NVME_WRITE_FAULT);
	disk.fail = 0;
	down();
}

/* Resets, deletions and pauses with requests at the host. */
static void test_in_flight(void **state)
{
	for (unsigned kind = 0; kind < 4; kind++) {
		u32 dw0 = 0;
		u16 cid = 0;

		start(false, 2, 64);
		disk.hold = true;
		for (unsigned i = 0; i < 16; i++) {
			struct nvme_sqe e = io(2, 8 * i, 8, DATA + 0x1000 * i, 0);

			ndriver_put(&d, 1, &e);
		}
		ndriver_kick(&d, 1);
		assert_int_equal(disk.nr_held, 16);
		fake_block_run(&disk, 3, 7);
		switch (kind) {
		case 0: /* not ready until the guest's memory is left alone */
			ndriver_write(&d, 0x14, 0x460000);
			assert_int_equal(ndriver_read(&d, 0x1c), 1);
			ndriver_write(&d, 0x14, 0x460001);
			ndriver_write(&d, 0x14, 0x460000);
			fake_block_run(&disk, 12, 3);
			assert_int_equal(ndriver_read(&d, 0x1c), 1);
			fake_block_run(&disk, 1, 3);
			assert_int_equal(ndriver_read(&d, 0x1c), 0);
			break;
		case 1: /* a deletion is answered last */
			assert_int_equal(run(0, admin(0, 1, 0, 0)), ~0u);
			assert_int_equal(run(0, admin(0, 1, 0, 0)), NVME_BAD_QUEUE);
			assert_int_equal(run(0, admin(4, 1, 0, 0)), NVME_BAD_DELETION);
			fake_block_run(&disk, 100, 3);
			assert_int_equal(ndriver_answer(&d, 0, &cid, &dw0), 0);
			for (unsigned i = 0; i < 16; i++)
				assert_int_equal(ndriver_answer(&d, 1, &cid, &dw0), 0);
			assert_int_equal(run(0, admin(4, 1, 0, 0)), 0);
			break;
		case 2:
			device_reset_all(&fake.b.vm, RESET_WARM);
			assert_null(disk.held);
			ndriver_find(&d, &fake.b);
			assert_int_equal(ndriver_read(&d, 0x1c), 0);
			break;
		default:
			dev->ops->quiesce(dev);
			assert_null(disk.held);
			for (unsigned i = 0; i < 16; i++)
				assert_int_equal(ndriver_answer(&d, 1, &cid, &dw0), 0);
			disk.hold = false;
			assert_int_equal(run(1, io(2, 0, 8, DATA, 0)), ~0u);
			dev->ops->resume(dev);
			assert_int_equal(ndriver_answer(&d, 1, &cid, &dw0), 0);
			break;
		}
		disk.hold = false;
		memset(mem(DATA), 0x5a, 0x10000);
		ndriver_enable(&d);
		assert_int_equal(ndriver_read(&d, 0x1c), 1);
		for (unsigned i = 0; i < 0x10000; i++)
			assert_int_equal(*mem(DATA + i), 0x5a);
		assert_true(ndriver_queue(&d, 1, 8));
		assert_int_equal(run(1, io(2, 3, 8, DATA, 0)), 0);
		assert_memory_equal(mem(DATA), disk.data + 3 * 512, 4096);
		down();
	}
}

static void test_interrupts(void **state)
{
	start(false, 1, 8);
	struct nvme_sqe e = io(2, 0, 1, DATA, 0);
	const unsigned gsi = PCI_GSI(1, 0);
	u32 dw0;
	u16 cid;

	assert_false(fake.b.level[gsi]);
	ndriver_put(&d, 1, &e);
	ndriver_kick(&d, 1);
	assert_true(fake.b.level[gsi]);
	ndriver_write(&d, 0x0c, 2); /* vector 1 masked */
	assert_false(fake.b.level[gsi]);
	ndriver_write(&d, 0x10, 2);
	assert_true(fake.b.level[gsi]);
	assert_int_equal(ndriver_answer(&d, 1, &cid, &dw0), 0);
	assert_false(fake.b.level[gsi]);
	/* messages */
	u64 table = d.regs + 0x8000;
	mmio_wr(d.ecam + 0x20, 4, table);
	mmio_wr(table + 16, 8, 0xfee00000);
	mmio_wr(table + 24, 8, 0x51);
	u8 cap = (u8)mmio_rd(d.ecam + PCI_CAP_PTR, 1);
	mmio_wr(d.ecam + cap + 2, 2, 0x8000);
	unsigned n = fake.b.msis;
	ndriver_put(&d, 1, &e);
	ndriver_kick(&d, 1);
	assert_int_equal(fake.b.msis, n + 1);
	assert_int_equal(fake.b.msi_data, 0x51);
	assert_int_equal(ndriver_answer(&d, 1, &cid, &dw0), 0);
	/* no bus master: nothing is fetched */
	mmio_wr(d.ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM);
	ndriver_put(&d, 1, &e);
	ndriver_kick(&d, 1);
	assert_int_equal(ndriver_answer(&d, 1, &cid, &dw0), ~0u);
	mmio_wr(d.ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
	assert_int_equal(ndriver_answer(&d, 1, &cid, &dw0), 0);
	down();
}

static void test_G29_limits(void **state)
{
	conf.iops = 10;
	start(false, 1, 64);
	for (unsigned i = 0; i < 40; i++) {
		struct nvme_sqe e = io(2, i, 1, DATA, 0);

		ndriver_put(&d, 1, &e);
	}
	ndriver_kick(&d, 1);
	unsigned first = disk.requests;
	assert_true(first < 8);
	fake_advance(1000000000);
	assert_in_range(disk.requests, first + 8, first + 12);
	fake_advance(10000000000);
	assert_int_equal(disk.requests, 40);
	down();
}

/* First queues that are no memory, or too short. */
static void test_first_queues(void **state)
{
	static const struct {
		u32 aqa;
		u64 asq, acq;
	} bad[] = {
		{ 0x001f001f, 0xc0000000, DATA },     { 0x001f001f, DATA, 0xc0000000 },
		{ 0x001f001f, ~0ull << 12, DATA },    { 0x0000001f, DATA, DATA + 0x10000 },
		{ 0x001f0000, DATA, DATA + 0x10000 }, { 0x0fff0fff, FAKE_RAM - 4096, DATA },
	};

	up(false);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		ndriver_write(&d, 0x14, 0);
		ndriver_write(&d, 0x24, bad[i].aqa);
		ndriver_write(&d, 0x28, (u32)bad[i].asq);
		ndriver_write(&d, 0x2c, (u32)(bad[i].asq >> 32));
		ndriver_write(&d, 0x30, (u32)bad[i].acq);
		ndriver_write(&d, 0x34, (u32)(bad[i].acq >> 32));
		ndriver_write(&d, 0x14, 0x460001);
		assert_int_equal(ndriver_read(&d, 0x1c), 3);
		ndriver_write(&d, 0x1000, 1);
	}
	ndriver_enable(&d);
	assert_int_equal(run(0, admin(6, 1, 0, DATA)), 0);
	down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),    cmocka_unit_test(test_identify),
		cmocka_unit_test(test_queues),       cmocka_unit_test(test_transfers),
		cmocka_unit_test(test_G43_prps),     cmocka_unit_test(test_G26_G28_ranges),
		cmocka_unit_test(test_flushes),      cmocka_unit_test(test_in_flight),
		cmocka_unit_test(test_interrupts),   cmocka_unit_test(test_G29_limits),
		cmocka_unit_test(test_first_queues),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
