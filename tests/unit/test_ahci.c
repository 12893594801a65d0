/* AHCI with a disk and a CD-ROM drive: registers, resets, every kind of command, queues, what a driver may get wrong, requests on
 * their way when it resets, limits, failures of the host [G28, G29, G43]. */
#include "fakevm.h"

#include <errno.h>

#include "adriver.h"
#include "base/bits.h"
#include "dev/ata/ahci.h"
#include "dev/pci.h"
#include "fakeblock.h"

#define SIZE    (8 * MiB)
#define SECTORS (SIZE / 512)
#define DATA    ADRIVER_DATA
#define CD      1

#define DHRS BIT(0)
#define PSS  BIT(1)
#define SDBS BIT(3)
#define DPS  BIT(5)
#define PCS  BIT(6)
#define OFS  BIT(24)
#define IFS  BIT(27)
#define HBFS BIT(29)
#define TFES BIT(30)

static struct fake_block disk, disc;
static struct block_conf conf;
static struct adriver d;
static struct device *dev;

static void up(bool read_only)
{
	struct ata_conf ata[AHCI_PORTS] = { { 0 } };

	fake_vm(1);
	fake_add("pci", NULL);
	fake_block_init(&disk, SIZE);
	fake_block_init(&disc, SIZE);
	disk.block.read_only = read_only;
	disc.block.read_only = true;
	for (u64 i = 0; i < SIZE; i += 8) {
		st64(disk.data + i, i * 0x9e3779b97f4a7c15ull);
		st64(disc.data + i, i * 0xc2b2ae3d27d4eb4full);
	}
	ata[0] = (struct ata_conf){ &disk.block, &conf, false };
	ata[CD] = (struct ata_conf){ &disc.block, NULL, true };
	dev = fake_add("ahci", &(const struct device_conf){ .ata = ata });
	adriver_find(&d, &fake.b);
}

static void start(bool read_only)
{
	up(read_only);
	adriver_start(&d);
}

static void down(void)
{
	fake_done(NULL);
	fake_block_fini(&disk);
	fake_block_fini(&disc);
	conf = (struct block_conf){ 0 };
}

static u8 *mem(u64 at)
{
	return adriver_mem(&d, at);
}

/* What the port has to tell, which is then told. */
static u32 events(void)
{
	u32 is = adriver_pread(&d, AP_IS);

	adriver_pwrite(&d, AP_IS, is);
	adriver_write(&d, 8, ~0u);
	return is;
}

/* One command with one buffer at DATA; the events. */
static u32 run(u8 command, u64 lba, u16 count, u32 len)
{
	const struct adriver_prd prd = { DATA, len };

	adriver_command(&d, 0, command, lba, count, 0, &prd, len ? 1 : 0);
	adriver_issue(&d, 1);
	return events();
}

static void recover(void)
{
	adriver_pwrite(&d, AP_CMD, 0x10);
	adriver_pwrite(&d, AP_SERR, ~0u);
	adriver_pwrite(&d, AP_IS, ~0u);
	adriver_pwrite(&d, AP_CMD, 0x11);
}

static void comreset(void)
{
	adriver_pwrite(&d, AP_CMD, 0x10);
	adriver_pwrite(&d, AP_SCTL, 0x301);
	assert_int_equal(adriver_pread(&d, AP_SSTS) & 0xf, 0);
	adriver_pwrite(&d, AP_SCTL, 0x300);
	recover();
}

static void test_registers(void **state)
{
	up(false);
	assert_int_equal(adriver_read(&d, 0), 0xc1241f05);
	assert_int_equal(adriver_read(&d, 4), 0x80000000);
	assert_int_equal(adriver_read(&d, 0xc), 3);
	assert_int_equal(adriver_read(&d, 0x10), 0x10301);
	/* the link is up, and the signature waits for a place [AHCI 3.3.9] */
	assert_int_equal(adriver_pread(&d, AP_SSTS), 0x123);
	assert_int_equal(adriver_pread(&d, AP_SIG), 0xffffffff);
	assert_int_equal(adriver_pread(&d, AP_TFD) & 0x80, 0x80);
	assert_int_equal(adriver_pread(&d, AP_IS), PCS | BIT(22));
	for (d.port = 2; d.port < 6; d.port++) {
		assert_int_equal(adriver_pread(&d, AP_SSTS), 0);
		assert_int_equal(adriver_pread(&d, AP_TFD), 0x7f);
	}
	d.port = 0;
	adriver_start(&d);
	assert_int_equal(adriver_pread(&d, AP_SIG), 0x101);
	assert_int_equal(adriver_pread(&d, AP_TFD), 0x150);
	assert_int_equal(adriver_fis(&d, 0x40)[0], 0x34);
	assert_int_equal(adriver_pread(&d, AP_CMD) & 0xffff, 0xc017);
	d.port = CD;
	adriver_start(&d);
	assert_int_equal(adriver_pread(&d, AP_SIG), 0xeb140101);
	/* bytes and words */
	assert_int_equal(mmio_rd(d.regs + 0x101, 1), adriver_read(&d, 0x100) >> 8 & 0xff);
	mmio_wr(d.regs + 0x182, 2, 0x1234);
	assert_int_equal(adriver_pread(&d, AP_CLB), 0x12340000);
	adriver_pwrite(&d, AP_CLB, ~0u);
	adriver_pwrite(&d, AP_FB, ~0u);
	assert_int_equal(adriver_pread(&d, AP_CLB), 0xfffffc00);
	assert_int_equal(adriver_pread(&d, AP_FB), 0xffffff00);
	/* HBA reset keeps where the lists are [AHCI 10.4.3] */
	adriver_write(&d, 4, 3);
	assert_int_equal(adriver_read(&d, 4), 0x80000000);
	assert_int_equal(adriver_pread(&d, AP_CMD), 6);
	assert_int_equal(adriver_pread(&d, AP_CLB), 0xfffffc00);
	fake_storm(BUS_MMIO, d.regs, 0x800, 20000);
	fake_state(dev);
	down();
}

static void check_text(const u8 *words, const char *text)
{
	for (unsigned i = 0; text[i]; i++)
		assert_int_equal(words[i ^ 1], text[i]);
}

static void test_identify(void **state)
{
	u8 sum = 0;

	conf.serial = "0123456789abcdefghij";
	start(false);
	/* PIO: told by its own FIS, without one for the registers [AHCI 5.6.3] */
	assert_int_equal(run(0xec, 0, 0, 512), PSS);
	assert_int_equal(adriver_pread(&d, AP_CI), 0);
	assert_int_equal(adriver_fis(&d, 0x20)[0], 0x5f);
	assert_int_equal(adriver_fis(&d, 0x20)[15], 0x50);
	assert_int_equal(ld32(mem(adriver_header(&d, 0) + 4)), 512);
	check_text(mem(DATA + 20), "0123456789abcdefghij");
	check_text(mem(DATA + 54), "bothy disk ");
	assert_int_equal(ld32(mem(DATA + 120)), SECTORS);
	assert_int_equal(ld64(mem(DATA + 200)), SECTORS);
	assert_int_equal(ld16(mem(DATA + 150)), 31);
	for (unsigned i = 0; i < 512; i++)
		sum = (u8)(sum + *mem(DATA + i));
	assert_int_equal(sum, 0);
	/* settings show */
	st16(mem(adriver_table(&d, 0) + 12), 0);
	assert_int_equal(run(0xc6, 0, 8, 0), DHRS);
	assert_int_equal(run(0xec, 0, 0, 512), PSS);
	assert_int_equal(ld16(mem(DATA + 118)), 0x108);
	assert_int_equal(run(0xc6, 0, 3, 0), DHRS | TFES);
	down();
}

/* Every command that reads or writes, with entries of all sizes. */
static void test_transfers(void **state)
{
	static const struct {
		u8 command;
		bool write, ext;
		u32 event;
	} cases[] = {
		{ 0x20, false, false, PSS },  { 0x24, false, true, PSS },  { 0x25, false, true, DHRS },
		{ 0xc8, false, false, DHRS }, { 0x30, true, false, DHRS }, { 0x34, true, true, DHRS },
		{ 0x35, true, true, DHRS },   { 0x3d, true, true, DHRS },  { 0xca, true, false, DHRS },
		{ 0xc4, false, false, PSS },  { 0xc5, true, false, DHRS }, { 0x29, false, true, PSS },
		{ 0x39, true, true, DHRS },
	};

	start(false);
	assert_int_equal(run(0xc4, 0, 8, 512 * 8), DHRS | TFES); /* not set up */
	recover();
	assert_int_equal(run(0xc6, 0, 8, 0), DHRS);
	for (unsigned k = 0; k < 400; k++) {
		unsigned c = k % ARRAY_SIZE(cases), n = 0;
		u16 count = (u16)(1 + fake_random() % 40);
		u64 lba = fake_random() % (SECTORS - count), at = DATA + 2 * (fake_random() % 100);
		u32 left = 512u * count, len;
		struct adriver_prd prds[80];
		u64 seed = fake_random();
		u8 before[512 * 40];

		for (u64 i = 0; i < left; i += 2)
			st16(mem(at + i), (u16)(seed * (i + 1) >> 20));
		for (u64 to = at; left; to += len, left -= len) {
			len = n == 79 ? left : MIN(left, 2 * (1 + (u32)(fake_random() % 400)));
			prds[n++] = (struct adriver_prd){ to, len };
		}
		memcpy(before, cases[c].write ? mem(at) : disk.data + 512 * lba, 512u * count);
		adriver_command(&d, k % 32, cases[c].command, lba, count, cases[c].write ? BIT(6) : 0, prds,
				n);
		if (!cases[c].ext) { /* where 28 bits are */
			st32(mem(adriver_table(&d, k % 32) + 4), (u32)lba | 0x40000000);
			st32(mem(adriver_table(&d, k % 32) + 8), 0x00ffffff);
		}
		adriver_issue(&d, 1u << k % 32);
		assert_int_equal(events(), cases[c].event);
		assert_int_equal(adriver_pread(&d, AP_CI), 0);
		assert_int_equal(adriver_pread(&d, AP_TFD), 0x50);
		assert_int_equal(ld32(mem(adriver_header(&d, k % 32) + 4)), 512 * count);
		assert_memory_equal(mem(at), before, 512u * count);
		assert_memory_equal(disk.data + 512 * lba, before, 512u * count);
	}
	assert_true(disk.flushes >= 30); /* those with FUA */
	down();
}

/* Entries of two bytes, so that one command is many requests of the host. */
static void test_small_entries(void **state)
{
	u64 table = DATA + 0x100000;

	start(false);
	adriver_command(&d, 0, 0x25, 100, 64, 0, NULL, 0);
	st32(mem(adriver_header(&d, 0)), 5 | 16384u << 16);
	st64(mem(adriver_header(&d, 0) + 8), table);
	memcpy(mem(table), mem(adriver_table(&d, 0)), 0x80);
	for (unsigned i = 0; i < 16384; i++) {
		st64(mem(table + 0x80 + 16 * i), DATA + 2 * (16383 - i));
		st64(mem(table + 0x88 + 16 * i), i == 16383 ? 1ull << 32 | 1ull << 63 : 1ull << 32);
	}
	adriver_issue(&d, 1);
	assert_int_equal(events(), DHRS | DPS);
	for (unsigned i = 0; i < 16384; i++)
		assert_int_equal(ld16(mem(DATA + 2 * (16383 - i))), ld16(disk.data + 51200 + 2 * i));
	assert_int_equal(disk.requests, 64);
	down();
}

static void test_queued(void **state)
{
	start(false);
	for (unsigned round = 0; round < 50; round++) {
		u32 all = (u32)fake_random() | 1;

		disk.hold = true;
		adriver_pwrite(&d, AP_SACT, all);
		for (unsigned s = 0; s < 32; s++) {
			const struct adriver_prd prd = { DATA + s * 0x1000, 4096 };

			memset(mem(DATA + s * 0x1000), (int)(round + s), 4096);
			adriver_queued(&d, s, s & 1 ? 0x61 : 0x60, 64 * s, 8, &prd, 1);
		}
		adriver_issue(&d, all);
		/* accepted at once, and the drive is not busy */
		assert_int_equal(adriver_pread(&d, AP_CI), 0);
		assert_int_equal(adriver_pread(&d, AP_SACT), all);
		assert_int_equal(adriver_pread(&d, AP_TFD) & 0x88, 0);
		assert_int_equal(disk.nr_held, __builtin_popcount(all));
		while (disk.held) {
			u32 before = adriver_pread(&d, AP_SACT), gone;

			fake_block_run(&disk, 1, fake_random());
			gone = before & ~adriver_pread(&d, AP_SACT);
			assert_int_equal(__builtin_popcount(gone), 1);
			assert_int_equal(events(), SDBS);
			assert_int_equal(ld32(adriver_fis(&d, 0x5c)), gone);
		}
		for (unsigned s = 0; s < 32; s++)
			if (all >> s & 1)
				assert_memory_equal(mem(DATA + s * 0x1000), disk.data + 64 * 512 * s, 4096);
	}
	down();
}

/* The first error ends all; the log tells which; then it goes on [SATA 13.7]. */
static void test_queued_error(void **state)
{
	const struct adriver_prd prd = { DATA, 4096 };

	start(false);
	disk.hold = true;
	adriver_pwrite(&d, AP_SACT, 7);
	adriver_queued(&d, 0, 0x60, 0, 8, &prd, 1);
	adriver_queued(&d, 1, 0x60, SECTORS - 7, 8, &prd, 1);
	adriver_queued(&d, 2, 0x60, 8, 8, &prd, 1);
	adriver_issue(&d, 7);
	assert_int_equal(events(), SDBS | TFES);
	assert_int_equal(adriver_pread(&d, AP_TFD), 0x1041 | 0x10);
	assert_int_equal(adriver_pread(&d, AP_SACT), 7);
	assert_int_equal(adriver_pread(&d, AP_CMD) & BIT(15), BIT(15));
	adriver_pwrite(&d, AP_CMD, 0x10);
	/* the host still reads into memory */
	assert_int_equal(adriver_pread(&d, AP_CMD) & BIT(15), BIT(15));
	disk.hold = false;
	fake_block_run(&disk, 100, 1);
	assert_int_equal(adriver_pread(&d, AP_CMD) & BIT(15), 0);
	assert_int_equal(adriver_pread(&d, AP_SACT), 0);
	recover();
	assert_int_equal(run(0x2f, 0x10, 1, 512), PSS);
	assert_int_equal(*mem(DATA), 1);
	assert_int_equal(*mem(DATA + 2) & 1, 1);
	assert_int_equal(*mem(DATA + 3), 0x10);
	assert_int_equal(ld32(mem(DATA + 4)) & 0xffffff, SECTORS - 7);
	assert_int_equal(run(0x2f, 0x10, 1, 512), PSS);
	assert_int_equal(*mem(DATA), 0x80);
	assert_int_equal(run(0x2f, 0, 1, 512), PSS);
	assert_int_equal(ld16(mem(DATA + 0x20)), 1);
	assert_int_equal(run(0x2f, 0x11, 1, 512), DHRS | TFES);
	recover();
	/* failures of the host too */
	disk.fail = -EIO;
	adriver_pwrite(&d, AP_SACT, 1);
	adriver_queued(&d, 0, 0x60, 16, 8, &prd, 1);
	adriver_issue(&d, 1);
	assert_int_equal(events(), SDBS | TFES);
	assert_int_equal(adriver_pread(&d, AP_TFD) >> 8, 0x40);
	recover();
	assert_int_equal(run(0x35, 0, 8, 4096), DHRS | TFES);
	recover();
	disk.fail = 0;
	/* one that is not queued beside one that is */
	disk.hold = true;
	adriver_pwrite(&d, AP_SACT, 2);
	adriver_queued(&d, 1, 0x60, 8, 8, &prd, 1);
	adriver_issue(&d, 2);
	adriver_command(&d, 3, 0xe7, 0, 0, 0, NULL, 0);
	adriver_issue(&d, 8);
	assert_int_equal(events() & TFES, TFES);
	fake_block_run(&disk, 100, 1);
	disk.hold = false;
	recover();
	assert_int_equal(run(0xe7, 0, 0, 0), DHRS);
	down();
}

static void test_trim_and_flush(void **state)
{
	start(false);
	memset(mem(DATA), 0, 512);
	st64(mem(DATA), 8 | 8ull << 48);
	st64(mem(DATA + 24), (SECTORS - 8) | 8ull << 48);
	const struct adriver_prd prd = { DATA, 512 };
	adriver_command(&d, 0, 0x06, 0, 1, BIT(6), &prd, 1);
	*mem(adriver_table(&d, 0) + 3) = 1;
	adriver_issue(&d, 1);
	assert_int_equal(events(), DHRS);
	assert_int_equal(disk.requests, 2);
	st64(mem(DATA + 24), (SECTORS - 8) | 9ull << 48);
	adriver_issue(&d, 1);
	assert_int_equal(events(), DHRS | TFES);
	recover();
	assert_int_equal(run(0x06, 0, 1, 512), DHRS | TFES); /* no TRIM */
	recover();
	/* without a write cache every write is followed by a flush */
	const unsigned flushes = disk.flushes;
	adriver_command(&d, 0, 0xef, 0, 0, 0, NULL, 0);
	*mem(adriver_table(&d, 0) + 3) = 0x82;
	adriver_issue(&d, 1);
	assert_int_equal(events(), DHRS);
	assert_int_equal(run(0x35, 0, 8, 4096), DHRS);
	assert_int_equal(disk.flushes, flushes + 2);
	assert_int_equal(run(0xea, 0, 0, 0), DHRS);
	assert_int_equal(disk.flushes, flushes + 3);
	down();
}

static void test_refusals(void **state)
{
	start(false);
	for (unsigned c = 0; c < 256; c++) {
		static const u8 known[] = { 0x06, 0x20, 0x21, 0x24, 0x25, 0x29, 0x2f, 0x30, 0x31,
					    0x34, 0x35, 0x39, 0x3d, 0x40, 0x41, 0x42, 0x60, 0x61,
					    0x90, 0xb0, 0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xce, 0xe0,
					    0xe1, 0xe2, 0xe3, 0xe5, 0xe7, 0xea, 0xec, 0xef };

		if (memchr(known, (int)c, sizeof(known)))
			continue;
		assert_int_equal(run((u8)c, 0, 1, 512), DHRS | TFES);
		assert_int_equal(adriver_pread(&d, AP_TFD), 0x451);
		assert_int_equal(adriver_pread(&d, AP_CI), 1); /* it stays [AHCI 6.2.2.1] */
		recover();
	}
	assert_int_equal(run(0x25, SECTORS - 1, 1, 512), DHRS);
	assert_int_equal(run(0x25, SECTORS - 1, 2, 1024), DHRS | TFES);
	assert_int_equal(adriver_pread(&d, AP_TFD) >> 8, 0x10);
	recover();
	assert_int_equal(run(0x25, 0xffffffffffff, 0, 512), DHRS | TFES);
	recover();
	/* by cylinder, head and sector */
	const struct adriver_prd prd = { DATA, 512 };
	adriver_command(&d, 0, 0xc8, 1, 1, 0, &prd, 1);
	*mem(adriver_table(&d, 0) + 7) = 0;
	adriver_issue(&d, 1);
	assert_int_equal(events(), DHRS | TFES);
	assert_int_equal(disk.requests, 1);
	down();
}

static void test_G28_read_only(void **state)
{
	static const u8 writes[] = { 0x30, 0x31, 0x34, 0x35, 0x39, 0x3d, 0xc5, 0xca, 0xce, 0x61, 0x06 };

	start(true);
	u8 *before = malloc(SIZE);
	memcpy(before, disk.data, SIZE);
	run(0xc6, 0, 8, 0);
	for (unsigned i = 0; i < sizeof(writes); i++) {
		const struct adriver_prd prd = { DATA, 4096 };

		memset(mem(DATA), 1, 4096);
		if (writes[i] == 0x61) {
			adriver_pwrite(&d, AP_SACT, 1);
			adriver_queued(&d, 0, 0x61, 0, 8, &prd, 1);
		} else {
			adriver_command(&d, 0, writes[i], 0, 1, BIT(6), &prd, 1);
		}
		if (writes[i] == 0x06)
			*mem(adriver_table(&d, 0) + 3) = 1;
		adriver_issue(&d, 1);
		assert_int_equal(events() & TFES, TFES);
		recover();
	}
	assert_int_equal(disk.written, 0);
	assert_memory_equal(before, disk.data, SIZE);
	assert_int_equal(run(0x25, 0, 8, 4096), DHRS);
	free(before);
	down();
}

/* Lists, tables and buffers in device memory, ROM, holes and beyond; too short; of no kind. */
static void test_G43_dma(void **state)
{
	static const u64 bad[] = { 0xc0000000,     0xd0000000, 0xe0000000, 0xfee00000,
				   FAKE_RAM - 512, 1ull << 52, ~0ull };
	/* or, where it is memory, of no kind */
	static const LargestIntegralType one_of[] = { HBFS, IFS };
	struct adriver_prd prd = { DATA, 4096 };

	start(false);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		prd.addr = bad[i];
		disk.requests = 0;
		for (unsigned write = 0; write < 2; write++) {
			adriver_command(&d, 0, write ? 0x35 : 0x25, 0, 8, 0, &prd, 1);
			adriver_issue(&d, 1);
			assert_int_equal(events() & (HBFS | DHRS), HBFS);
			assert_int_equal(disk.requests, 0);
			comreset();
		}
		/* table */
		adriver_command(&d, 0, 0x25, 0, 8, 0, &prd, 1);
		st64(mem(adriver_header(&d, 0) + 8), bad[i] | 0x180);
		adriver_issue(&d, 1);
		assert_in_set(events() & (HBFS | IFS | DHRS), one_of, 2);
		comreset();
		/* list */
		adriver_pwrite(&d, AP_CLB, (u32)bad[i] | 0xc00);
		adriver_pwrite(&d, AP_CLB + 4, (u32)(bad[i] >> 32));
		adriver_issue(&d, 1);
		assert_in_set(events() & (HBFS | IFS | DHRS), one_of, 2);
		adriver_start(&d);
		comreset();
		/* received FISes */
		adriver_command(&d, 0, 0xe7, 0, 0, 0, NULL, 0);
		adriver_pwrite(&d, AP_FB, (u32)bad[i] | 0x100);
		adriver_pwrite(&d, AP_FB + 4, (u32)(bad[i] >> 32));
		adriver_issue(&d, 1);
		if (bad[i] != FAKE_RAM - 512)
			assert_int_equal(events() & HBFS, HBFS);
		adriver_start(&d);
		comreset();
	}
	/* no table, and one that is too short */
	prd.addr = DATA;
	adriver_command(&d, 0, 0x25, 0, 8, 0, &prd, 0);
	adriver_issue(&d, 1);
	assert_int_equal(events(), OFS);
	assert_int_equal(adriver_pread(&d, AP_TFD) & 0x80, 0x80);
	comreset();
	prd.len = 512;
	adriver_command(&d, 0, 0x25, 0, 8, 0, &prd, 1);
	adriver_issue(&d, 1);
	assert_int_equal(events(), OFS);
	comreset();
	/* the largest table there can be, all of it one place */
	adriver_command(&d, 0, 0x25, 0, 0, 0, NULL, 0);
	st32(mem(adriver_header(&d, 0)), 5 | 0xffffu << 16);
	for (unsigned i = 0; i < 70; i++) {
		st64(mem(adriver_table(&d, 0) + 0x80 + 16 * i), DATA);
		st64(mem(adriver_table(&d, 0) + 0x88 + 16 * i), 0x3fffffull << 32);
	}
	adriver_issue(&d, 1);
	assert_int_equal(events(), DHRS | TFES); /* 32 MiB are more than the disk has */
	comreset();
	/* FISes that are none */
	static const u32 lengths[] = { 0, 1, 4, 17, 31 };
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		adriver_command(&d, 0, 0xe7, 0, 0, 0, NULL, 0);
		st32(mem(adriver_header(&d, 0)), lengths[i]);
		adriver_issue(&d, 1);
		assert_int_equal(events(), IFS);
		comreset();
	}
	adriver_command(&d, 0, 0xe7, 0, 0, 0, NULL, 0);
	*mem(adriver_table(&d, 0)) = 0x34;
	adriver_issue(&d, 1);
	assert_int_equal(events(), IFS);
	comreset();
	assert_int_equal(run(0x25, 0, 8, 4096), DHRS);
	down();
}

/* The guest changes a table while its command is under way. */
static void test_G43_changing_table(void **state)
{
	struct adriver_prd prds[80];

	start(false);
	for (unsigned round = 0; round < 200; round++) {
		u64 table = DATA + 0x100000;

		disk.hold = true;
		adriver_command(&d, 0, round & 1 ? 0x25 : 0x35, 0, 200, 0, prds, 0);
		st32(mem(adriver_header(&d, 0)), 5 | 2000u << 16);
		st64(mem(adriver_header(&d, 0) + 8), table);
		memcpy(mem(table), mem(adriver_table(&d, 0)), 0x80);
		for (unsigned i = 0; i < 2000; i++) {
			st64(mem(table + 0x80 + 16 * i), DATA);
			st64(mem(table + 0x88 + 16 * i), 51ull << 32);
		}
		adriver_issue(&d, 1);
		for (unsigned k = 0; disk.held && k < 500; k++) {
			for (unsigned n = 0; n < 20; n++)
				st32(mem(table + 0x8c + 16 * (fake_random() % 2000)),
				     (u32)(fake_random() >> fake_random() % 32));
			if (fake_random() % 16 == 0)
				st64(mem(table + 0x80 + 16 * (fake_random() % 2000)), fake_random());
			fake_block_run(&disk, 1, fake_random());
		}
		disk.hold = false;
		fake_block_run(&disk, 1000, 1);
		comreset();
	}
	assert_int_equal(run(0x25, 0, 8, 4096), DHRS);
	down();
}

/* Every kind of reset with requests at the host: the guest's memory is left alone from when the register says so. */
static void test_resets_in_flight(void **state)
{
	for (unsigned kind = 0; kind < 5; kind++) {
		start(false);
		disk.hold = true;
		adriver_pwrite(&d, AP_SACT, 0xff);
		for (unsigned s = 0; s < 8; s++) {
			const struct adriver_prd prd = { DATA + 0x1000 * s, 4096 };

			adriver_queued(&d, s, 0x60, 8 * s, 8, &prd, 1);
		}
		adriver_issue(&d, 0xff);
		assert_int_equal(disk.nr_held, 8);
		fake_block_run(&disk, 2, 5);
		switch (kind) {
		case 0:
		case 1: /* stop; reset of the link */
			adriver_pwrite(&d, AP_CMD, 0x10);
			if (kind) {
				adriver_pwrite(&d, AP_SCTL, 1);
				adriver_pwrite(&d, AP_SCTL, 0);
				assert_int_equal(adriver_pread(&d, AP_TFD) & 0x80, 0x80);
			}
			assert_int_equal(adriver_pread(&d, AP_CI) | adriver_pread(&d, AP_SACT), 0);
			assert_int_equal(adriver_pread(&d, AP_CMD) & BIT(15), BIT(15));
			fake_block_run(&disk, 5, 3);
			assert_int_equal(adriver_pread(&d, AP_CMD) & BIT(15), BIT(15));
			fake_block_run(&disk, 1, 3);
			assert_int_equal(adriver_pread(&d, AP_CMD) & BIT(15), 0);
			break;
		case 2: /* HBA reset */
			adriver_write(&d, 4, 0x80000001);
			assert_int_equal(adriver_read(&d, 4) & 1, 1);
			adriver_pwrite(&d, AP_CMD, 0x11);
			fake_block_run(&disk, 100, 3);
			assert_int_equal(adriver_read(&d, 4), 0x80000000);
			assert_int_equal(adriver_pread(&d, AP_CMD), 6);
			break;
		case 3: /* the machine's */
			device_reset_all(&fake.b.vm, RESET_WARM);
			assert_null(disk.held);
			adriver_find(&d, &fake.b);
			break;
		default: /* a pause finishes what is under way, and takes nothing more */
			dev->ops->quiesce(dev);
			assert_null(disk.held);
			assert_int_equal(adriver_pread(&d, AP_SACT), 0);
			adriver_pwrite(&d, AP_SACT, 1);
			adriver_issue(&d, 1);
			assert_int_equal(adriver_pread(&d, AP_CI), 1);
			dev->ops->resume(dev);
			disk.hold = false;
			fake_block_run(&disk, 100, 1);
			assert_int_equal(adriver_pread(&d, AP_CI) | adriver_pread(&d, AP_SACT), 0);
		}
		disk.hold = false;
		/* nothing of the old ones comes any more */
		memset(mem(DATA), 0x5a, 0x8000);
		adriver_start(&d);
		assert_int_equal(adriver_pread(&d, AP_TFD) & 0x89, 0);
		for (unsigned i = 0; i < 0x8000; i++)
			assert_int_equal(*mem(DATA + i), 0x5a);
		assert_int_equal(run(0x25, 3, 8, 4096), DHRS);
		assert_memory_equal(mem(DATA), disk.data + 3 * 512, 4096);
		down();
	}
}

/* Software's reset [AHCI 10.4.1]: two FISes without a command, then the signature. */
static void test_software_reset(void **state)
{
	start(false);
	memset(adriver_fis(&d, 0x40), 0, 20);
	adriver_command(&d, 0, 0, 0, 0, BIT(8) | BIT(10), NULL, 0);
	*mem(adriver_table(&d, 0) + 1) = 0;
	*mem(adriver_table(&d, 0) + 15) = 4;
	adriver_issue(&d, 1);
	assert_int_equal(adriver_pread(&d, AP_CI), 0);
	adriver_command(&d, 0, 0, 0, 0, 0, NULL, 0);
	*mem(adriver_table(&d, 0) + 1) = 0;
	adriver_issue(&d, 1);
	assert_int_equal(adriver_pread(&d, AP_CI), 0);
	assert_int_equal(adriver_fis(&d, 0x40)[0], 0x34);
	assert_int_equal(adriver_pread(&d, AP_SIG), 0x101);
	assert_int_equal(adriver_pread(&d, AP_TFD), 0x150);
	assert_int_equal(run(0xec, 0, 0, 512), PSS);
	down();
}

static void test_interrupts(void **state)
{
	start(false);
	const unsigned gsi = PCI_GSI(31, 0);
	assert_int_equal(run(0xe7, 0, 0, 0), DHRS);
	const struct adriver_prd prd = { DATA, 512 };
	adriver_command(&d, 0, 0xe7, 0, 0, 0, &prd, 0);
	adriver_issue(&d, 1);
	assert_true(fake.b.level[gsi]);
	assert_int_equal(adriver_read(&d, 8), 1);
	adriver_write(&d, 8, 1); /* comes back: the port still has it [AHCI 10.7.1] */
	assert_int_equal(adriver_read(&d, 8), 1);
	adriver_pwrite(&d, AP_IS, ~0u);
	assert_true(fake.b.level[gsi]);
	adriver_write(&d, 8, 1);
	assert_false(fake.b.level[gsi]);
	/* masked */
	adriver_write(&d, 4, 0);
	adriver_issue(&d, 1);
	assert_false(fake.b.level[gsi]);
	adriver_write(&d, 4, 2);
	assert_true(fake.b.level[gsi]);
	events();
	adriver_pwrite(&d, AP_IE, 0);
	adriver_issue(&d, 1);
	assert_int_equal(adriver_read(&d, 8), 0);
	adriver_pwrite(&d, AP_IE, ~0u);
	assert_true(fake.b.level[gsi]);
	events();
	/* a message for each bit that appears, none lost between two clears */
	u8 cap = (u8)mmio_rd(d.ecam + PCI_CAP_PTR, 1);
	mmio_wr(d.ecam + cap + 4, 4, 0xfee00000);
	mmio_wr(d.ecam + cap + 12, 2, 0x41);
	mmio_wr(d.ecam + cap + 2, 2, 1);
	unsigned n = fake.b.msis;
	adriver_issue(&d, 1);
	assert_int_equal(fake.b.msis, n + 1);
	assert_false(fake.b.level[gsi]);
	adriver_pwrite(&d, AP_IS, ~0u);
	adriver_issue(&d, 1); /* before IS is cleared */
	assert_int_equal(fake.b.msis, n + 1);
	adriver_write(&d, 8, 1);
	assert_int_equal(fake.b.msis, n + 2);
	events();
	/* no bus master: nothing is fetched */
	mmio_wr(d.ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM);
	adriver_issue(&d, 1);
	assert_int_equal(adriver_pread(&d, AP_CI), 1);
	mmio_wr(d.ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
	assert_int_equal(adriver_pread(&d, AP_CI), 0);
	down();
}

static void test_G29_limits(void **state)
{
	conf.iops = 10;
	start(false);
	adriver_pwrite(&d, AP_SACT, ~0u);
	for (unsigned s = 0; s < 32; s++) {
		const struct adriver_prd prd = { DATA, 512 };

		adriver_queued(&d, s, 0x60, s, 1, &prd, 1);
	}
	adriver_issue(&d, ~0u);
	unsigned first = disk.requests;
	assert_true(first < 8);
	fake_advance(1000000000);
	assert_in_range(disk.requests, first + 8, first + 12);
	dev->ops->quiesce(dev); /* limits do not delay a pause */
	assert_int_equal(disk.requests, 32);
	assert_int_equal(adriver_pread(&d, AP_SACT), 0);
	down();
}

/* ---- CD-ROM ---- */

static u32 packet(const void *bytes, unsigned n, u32 len)
{
	const struct adriver_prd prd = { DATA, ALIGN_UP(len, 2u) };
	u8 p[12] = { 0 };

	memcpy(p, bytes, n);
	adriver_packet(&d, 0, p, &prd, len ? 1 : 0);
	adriver_issue(&d, 1);
	return events();
}
#define PACKET(len, ...) packet((const u8[]){ __VA_ARGS__ }, sizeof((const u8[]){ __VA_ARGS__ }), len)

static void expect_sense(u8 key, u8 asc)
{
	recover();
	assert_int_equal(PACKET(18, 0x03, 0, 0, 0, 18), DHRS);
	assert_int_equal(*mem(DATA + 2), key);
	assert_int_equal(*mem(DATA + 12), asc);
}

static void start_cd(void)
{
	up(false);
	d.port = CD;
	adriver_start(&d);
	/* the first command finds that there was a reset */
	assert_int_equal(PACKET(0, 0x00), DHRS | TFES);
	expect_sense(6, 0x29);
	assert_int_equal(PACKET(0, 0x00), DHRS);
}

static void test_cd_identity(void **state)
{
	start_cd();
	assert_int_equal(run(0xec, 0, 0, 512), DHRS | TFES);
	assert_int_equal(ld32(adriver_fis(&d, 0x44)) & 0xffffff, 0xeb1401);
	recover();
	assert_int_equal(run(0xa1, 0, 0, 512), PSS);
	assert_int_equal(ld16(mem(DATA)), 0x8580);
	assert_int_equal(PACKET(36, 0x12, 0, 0, 0, 36), DHRS);
	assert_memory_equal(mem(DATA + 8), "BOTHY   CD-ROM  ", 16);
	assert_int_equal(*mem(DATA), 5);
	assert_int_equal(PACKET(8, 0x25), DHRS);
	assert_int_equal(ld32be(mem(DATA)), SIZE / 2048 - 1);
	assert_int_equal(ld32be(mem(DATA + 4)), 2048);
	assert_int_equal(PACKET(12, 0x43, 0, 0, 0, 0, 0, 0, 0, 12), DHRS);
	assert_int_equal(ld16be(mem(DATA)), 18);
	assert_int_equal(*mem(DATA + 5), 0x14);
	assert_int_equal(PACKET(20, 0x43, 2, 0, 0, 0, 0, 0xaa, 0, 20), DHRS);
	assert_int_equal(ld16be(mem(DATA)), 10);
	assert_int_equal((*mem(DATA + 9) * 60 + *mem(DATA + 10)) * 75 + *mem(DATA + 11), SIZE / 2048 + 150);
	assert_int_equal(PACKET(200, 0x46, 0, 0, 0, 0, 0, 0, 0, 200), DHRS);
	assert_int_equal(ld16be(mem(DATA + 6)), 8);
	assert_int_equal(PACKET(100, 0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 100), DHRS);
	assert_int_equal(*mem(DATA + 8), 1);
	assert_int_equal(PACKET(100, 0x5a, 0, 0x0d, 0, 0, 0, 0, 0, 100), DHRS | TFES);
	expect_sense(5, 0x24);
	assert_int_equal(PACKET(8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), DHRS);
	assert_int_equal(*mem(DATA + 5), 2);
	assert_int_equal(PACKET(34, 0x51, 0, 0, 0, 0, 0, 0, 0, 34), DHRS);
	assert_int_equal(PACKET(36, 0x52, 1, 0, 0, 0, 1, 0, 0, 36), DHRS);
	assert_int_equal(ld32be(mem(DATA + 24)), SIZE / 2048);
	for (unsigned c = 0; c < 256; c++) {
		static const u8 known[] = { 0x00, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2b, 0x43,
					    0x46, 0x4a, 0x51, 0x52, 0x5a, 0xa8, 0xbb, 0xbd, 0xbe };

		if (memchr(known, (int)c, sizeof(known)))
			continue;
		assert_int_equal(PACKET(0, (u8)c), DHRS | TFES);
		expect_sense(5, 0x20);
	}
	down();
}

/* FreeDOS reads from a CD-ROM to an odd address, and SeaBIOS lets the drive write there. */
static void test_cd_reads_to_odd(void **state)
{
	static const u8 read[12] = { 0x28, 0, 0, 0, 0, 7, 0, 0, 1 };
	const struct adriver_prd prd = { DATA + 1, 2048 };

	start_cd();
	*mem(DATA) = *mem(DATA + 2049) = 0x5a;
	adriver_packet(&d, 0, read, &prd, 1);
	adriver_issue(&d, 1);
	assert_int_equal(events(), DHRS);
	assert_memory_equal(mem(DATA + 1), disc.data + 7 * 2048, 2048);
	assert_int_equal(*mem(DATA), 0x5a);
	assert_int_equal(*mem(DATA + 2049), 0x5a);
	down();
}

static void test_cd_reads(void **state)
{
	start_cd();
	assert_int_equal(PACKET(8192, 0x28, 0, 0, 0, 0, 16, 0, 0, 4), DHRS);
	assert_memory_equal(mem(DATA), disc.data + 16 * 2048, 8192);
	assert_int_equal(ld32(mem(adriver_header(&d, 0) + 4)), 8192);
	assert_int_equal(*(adriver_fis(&d, 0x4c)), 3);
	assert_int_equal(PACKET(2048, 0xa8, 0, 0, 0, 0x0f, 0xff, 0, 0, 0, 1), DHRS);
	assert_memory_equal(mem(DATA), disc.data + 4095 * 2048, 2048);
	assert_int_equal(PACKET(2048, 0xbe, 0, 0, 0, 0, 5, 0, 0, 1, 0x10), DHRS);
	assert_memory_equal(mem(DATA), disc.data + 5 * 2048, 2048);
	assert_int_equal(PACKET(0, 0x28, 0, 0, 0, 0, 16, 0, 0, 0), DHRS);
	/* PIO: the packet's data are announced [ACS-3 7.18] */
	const struct adriver_prd prd = { DATA, 2048 };
	const u8 read[12] = { 0x28, 0, 0, 0, 0, 7, 0, 0, 1 };
	adriver_packet(&d, 0, read, &prd, 1);
	*mem(adriver_table(&d, 0) + 3) = 0;
	adriver_issue(&d, 1);
	assert_int_equal(events(), DHRS | PSS);
	assert_memory_equal(mem(DATA), disc.data + 7 * 2048, 2048);
	/* outside */
	assert_int_equal(PACKET(2048, 0x28, 0, 0, 0, 0x10, 0, 0, 0, 1), DHRS | TFES);
	expect_sense(5, 0x21);
	assert_int_equal(PACKET(2048, 0xa8, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), DHRS | TFES);
	expect_sense(5, 0x21);
	assert_int_equal(PACKET(2048, 0xa8, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff), DHRS | TFES);
	expect_sense(5, 0x21);
	disc.fail = -EIO;
	assert_int_equal(PACKET(2048, 0x28, 0, 0, 0, 0, 0, 0, 0, 1), DHRS | TFES);
	expect_sense(3, 0x11);
	disc.fail = 0;
	/* a disk's commands, writing ones among them */
	static const u8 others[] = { 0x20, 0x25, 0x35, 0x60, 0x61, 0xca };
	for (unsigned i = 0; i < sizeof(others); i++) {
		assert_int_equal(run(others[i], 0, 1, 512), DHRS | TFES);
		recover();
	}
	assert_int_equal(disc.written, 0);
	down();
}

static void test_cd_drawer(void **state)
{
	start_cd();
	assert_int_equal(PACKET(0, 0x1e, 0, 0, 0, 1), DHRS);
	assert_int_equal(PACKET(0, 0x1b, 0, 0, 0, 2), DHRS | TFES);
	expect_sense(5, 0x53);
	assert_int_equal(PACKET(0, 0x1e, 0, 0, 0, 0), DHRS);
	assert_int_equal(PACKET(0, 0x1b, 0, 0, 0, 2), DHRS);
	assert_int_equal(PACKET(0, 0x00), DHRS | TFES);
	expect_sense(2, 0x3a);
	assert_int_equal(PACKET(8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), DHRS);
	assert_int_equal(*mem(DATA + 4), 3);
	assert_int_equal(*mem(DATA + 5), 1);
	assert_int_equal(PACKET(0, 0x1b, 0, 0, 0, 3), DHRS);
	assert_int_equal(PACKET(0, 0x00), DHRS | TFES);
	expect_sense(6, 0x28);
	assert_int_equal(PACKET(0, 0x00), DHRS);
	fake_state(dev);
	down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_identify),
		cmocka_unit_test(test_transfers),
		cmocka_unit_test(test_small_entries),
		cmocka_unit_test(test_queued),
		cmocka_unit_test(test_queued_error),
		cmocka_unit_test(test_trim_and_flush),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_G28_read_only),
		cmocka_unit_test(test_G43_dma),
		cmocka_unit_test(test_G43_changing_table),
		cmocka_unit_test(test_resets_in_flight),
		cmocka_unit_test(test_software_reset),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_G29_limits),
		cmocka_unit_test(test_cd_identity),
		cmocka_unit_test(test_cd_reads),
		cmocka_unit_test(test_cd_reads_to_odd),
		cmocka_unit_test(test_cd_drawer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
