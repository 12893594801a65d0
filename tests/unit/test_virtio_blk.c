/* virtio-blk: every request type, split and packed, with several queues; what a driver may get wrong; a reset with
 * requests on their way; limits; failures of the host [G18, G22, G26-G29]. */
#include "fakevm.h"

#include <errno.h>

#include "base/bits.h"
#include "fakeblock.h"
#include "vdriver.h"

#define SIZE    (8 * MiB)
#define SECTORS (SIZE / 512)
#define HDR     VDRIVER_DATA
#define STATUS  (VDRIVER_DATA + 0x100)
#define BUF     (VDRIVER_DATA + 0x1000)

#define F_RO     BIT(5)
#define F_FLUSH  BIT(9)
#define F_MQ     BIT(12)
#define F_DISC   BIT(13)
#define F_ZEROES BIT(14)
#define RINGS    (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX)
#define PACKED   VIRTIO_F_RING_PACKED

static struct fake_block disk;
static struct block_conf bconf;
static struct vdriver d;

/* The variants under which each test runs. */
static const u64 variants[] = {
	F_FLUSH | F_DISC | F_ZEROES,
	F_FLUSH | F_DISC | F_ZEROES | RINGS,
	F_FLUSH | F_DISC | F_ZEROES | PACKED,
	F_FLUSH | F_DISC | F_ZEROES | RINGS | PACKED,
};

static void up(bool read_only, unsigned queues)
{
	fake_vm(1);
	fake_add("pci", NULL);
	fake_block_init(&disk, SIZE);
	disk.block.read_only = read_only;
	for (u64 i = 0; i < SIZE; i += 8)
		st64(disk.data + i, i * 0x9e3779b97f4a7c15ull);
	bconf.queues = queues;
	const struct device_conf conf = {
		.id = "disk0", .block = &disk.block, .block_conf = &bconf, .packed = true
	};
	fake_add("virtio-blk", &conf);
	vdriver_find(&d, &fake.b, VIRTIO_ID_BLOCK, 0);
}

static void down(void)
{
	fake_done(NULL);
	fake_block_fini(&disk);
	bconf = (struct block_conf){ 0 };
}

static void header(u64 at, u32 type, u64 sector)
{
	u8 *h = vdriver_mem(&d, at);

	st32(h, type);
	st32(h + 4, 0);
	st64(h + 8, sector);
}

/* Status of one request with a data part, 0x100: the device has not answered. */
static unsigned request(unsigned q, u32 type, u64 sector, u32 len, bool write, u32 *ret_len)
{
	const struct vdriver_seg segs[] = { { HDR, 16, false }, { BUF, len, write }, { STATUS, 1, true } };
	u32 id, used = 0;
	u16 sent;

	header(HDR, type, sector);
	*vdriver_mem(&d, STATUS) = 0x77;
	if (len) {
		sent = vdriver_add(&d, q, segs, 3);
	} else {
		const struct vdriver_seg two[] = { segs[0], segs[2] };

		sent = vdriver_add(&d, q, two, 2);
	}
	vdriver_kick(&d, q);
	if (!vdriver_used(&d, q, &id, &used))
		return 0x100;
	assert_int_equal(id, sent);
	if (ret_len)
		*ret_len = used;
	return *vdriver_mem(&d, STATUS);
}

static void test_identity(void **state)
{
	bconf.serial = "0123456789abcdefghij";
	up(false, 4);
	assert_int_equal(d.nr_queues, 4);
	u64 f = vdriver_offered(&d);
	assert_int_equal(f & (F_FLUSH | F_MQ | F_DISC | F_ZEROES | RINGS | PACKED | F_RO |
			      VIRTIO_F_VERSION_1),
			 F_FLUSH | F_MQ | F_DISC | F_ZEROES | RINGS | PACKED | VIRTIO_F_VERSION_1);
	assert_int_equal(vdriver_read(&d, 0x2000, 8), SECTORS);
	assert_int_equal(vdriver_read(&d, 0x2000 + 12, 4), 254);
	assert_int_equal(vdriver_read(&d, 0x2000 + 20, 4), 512);
	assert_int_equal(vdriver_read(&d, 0x2000 + 34, 2), 4);
	assert_int_equal(vdriver_read(&d, 0x2000 + 60, 4), 0);
	vdriver_start(&d, variants[1], 64);
	for (unsigned q = 0; q < 4; q++) {
		u32 len = 0;

		assert_int_equal(request(q, 8, 0, 20, true, &len), 0);
		assert_memory_equal(vdriver_mem(&d, BUF), "0123456789abcdefghij", 20);
		assert_int_equal(len, 21);
	}
	down();
}

static void test_transfers(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		u32 len = 0;

		up(false, 2);
		vdriver_start(&d, variants[v], 16);
		for (unsigned i = 0; i < 100; i++) { /* many times round the ring */
			u64 sector = fake_random() % (SECTORS - 8);
			u32 bytes = 512 * (1 + (u32)(fake_random() % 8));

			assert_int_equal(request(i & 1, 0, sector, bytes, true, &len), 0);
			assert_int_equal(len, bytes + 1);
			assert_memory_equal(vdriver_mem(&d, BUF), disk.data + 512 * sector, bytes);
			memset(vdriver_mem(&d, BUF), (int)i, bytes);
			assert_int_equal(request(i & 1, 1, sector, bytes, false, &len), 0);
			assert_int_equal(len, 1);
			assert_memory_equal(vdriver_mem(&d, BUF), disk.data + 512 * sector, bytes);
		}
		assert_int_equal(request(0, 4, 0, 0, false, NULL), 0);
		assert_int_equal(disk.flushes, 1);
		assert_int_equal(vdriver_status(&d), 0xf);
		down();
	}
}

/* Borders of the parts are the driver's business, and a table may hold them [virtio 2.7.4]. */
static void test_layouts(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		u32 id, len;

		up(false, 1);
		vdriver_start(&d, variants[v], 16);
		header(HDR, 0, 3);
		/* header in two parts, data and status in odd pieces, an empty one between */
		const struct vdriver_seg odd[] = { { HDR, 5, false },        { HDR + 5, 11, false },
						   { BUF, 100, true },       { BUF + 5000, 0, true },
						   { BUF + 100, 411, true }, { BUF + 511, 514, true } };
		vdriver_add(&d, 0, odd, 6);
		vdriver_kick(&d, 0);
		assert_true(vdriver_used(&d, 0, &id, &len));
		assert_int_equal(len, 1025);
		assert_memory_equal(vdriver_mem(&d, BUF), disk.data + 3 * 512, 1024);
		assert_int_equal(*vdriver_mem(&d, BUF + 1024), 0);
		if (variants[v] & VIRTIO_F_INDIRECT_DESC) {
			u8 *t = vdriver_mem(&d, VDRIVER_DATA + 0x80000 + 1);
			struct vdriver save = d;

			/* not aligned: nothing asks for that */
			d.q[0].desc = VDRIVER_DATA + 0x80000 + 1;
			memset(t, 0, 48);
			vdriver_desc(&d, 0, 0, HDR, 16, d.packed ? 0 : VDRIVER_NEXT, 1);
			vdriver_desc(&d, 0, 1, BUF, 512, VDRIVER_WRITE | (d.packed ? 0 : VDRIVER_NEXT), 2);
			vdriver_desc(&d, 0, 2, STATUS, 1, VDRIVER_WRITE, 0);
			d = save;
			const struct vdriver_seg table = { VDRIVER_DATA + 0x80000 + 1, 48, false };
			u16 at = d.q[0].free % d.q[0].size;
			u16 wrap = d.q[0].wrap ? BIT(7) : BIT(15);

			*vdriver_mem(&d, STATUS) = 9;
			vdriver_add(&d, 0, &table, 1);
			vdriver_desc(&d, 0, at, table.addr, 48, VDRIVER_TABLE | (d.packed ? wrap : 0),
				     d.packed ? at : 0);
			vdriver_kick(&d, 0);
			assert_true(vdriver_used(&d, 0, &id, &len));
			assert_int_equal(len, 513);
			assert_int_equal(*vdriver_mem(&d, STATUS), 0);
		}
		down();
	}
}

static void test_ranges(void **state)
{
	up(false, 1);
	vdriver_start(&d, variants[1], 16);
	u8 *r = vdriver_mem(&d, BUF);
	static const struct {
		u32 type;
		u64 sector;
		u32 sectors, flags;
		unsigned status;
	} cases[] = {
		{ 13, 8, 16, 0, 0 },          { 13, 8, 16, 1, 0 },          { 13, 8, 16, 2, 2 },
		{ 11, 8, 16, 0, 0 },          { 11, 8, 16, 1, 2 },          { 11, SECTORS, 1, 0, 1 },
		{ 13, SECTORS - 1, 2, 0, 1 }, { 13, ~0ull, 2, 0, 1 },       { 11, 1ull << 55, 8, 0, 1 },
		{ 11, 0, 0xffffffff, 0, 2 },  { 13, 0, 0xffffffff, 0, 2 },  { 11, SECTORS, 0, 0, 0 },
		{ 13, 0, 1u << 17, 0, 2 },    { 11, SECTORS - 8, 8, 0, 0 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		memset(disk.data + 8 * 512, 0xaa, 16 * 512);
		st64(r, cases[i].sector);
		st32(r + 8, cases[i].sectors);
		st32(r + 12, cases[i].flags);
		assert_int_equal(request(0, cases[i].type, 0, 16, false, NULL), cases[i].status);
		if (i < 2)
			for (unsigned k = 8 * 512; k < 24 * 512; k++)
				assert_int_equal(disk.data[k], 0);
	}
	/* [G27] more ranges than there may be, and half a one */
	assert_int_equal(request(0, 11, 0, 32, false, NULL), 2);
	assert_int_equal(request(0, 11, 0, 15, false, NULL), 1);
	assert_int_equal(request(0, 11, 0, 0, false, NULL), 1);
	down();
	/* Not negotiated */
	up(false, 1);
	vdriver_start(&d, F_FLUSH, 16);
	memset(vdriver_mem(&d, BUF), 0, 16);
	assert_int_equal(request(0, 11, 0, 16, false, NULL), 2);
	assert_int_equal(request(0, 13, 0, 16, false, NULL), 2);
	down();
}

static void test_G26_out_of_range(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		u32 id, len;

		up(false, 1);
		vdriver_start(&d, variants[v], 16);
		for (u32 type = 0; type < 2; type++) {
			bool write = type == 0;

			assert_int_equal(request(0, type, SECTORS - 1, 512, write, NULL), 0);
			assert_int_equal(request(0, type, SECTORS - 1, 1024, write, NULL), 1);
			assert_int_equal(request(0, type, SECTORS, 512, write, NULL), 1);
			assert_int_equal(request(0, type, ~0ull, 512, write, NULL), 1);
			assert_int_equal(request(0, type, ~0ull >> 9, 512, write, NULL), 1);
			assert_int_equal(request(0, type, 1ull << 55, 512, write, NULL), 1);
			assert_int_equal(request(0, type, 0, 511, write, NULL), 1);
			assert_int_equal(request(0, type, 0, 513, write, NULL), 1);
			assert_int_equal(request(0, type, 0, 0, write, NULL), 1);
		}
		/* a header of one byte, and none */
		const struct vdriver_seg one[] = { { HDR, 1, false }, { STATUS, 1, true } };
		vdriver_add(&d, 0, one, 2);
		vdriver_kick(&d, 0);
		assert_true(vdriver_used(&d, 0, &id, &len));
		assert_int_equal(*vdriver_mem(&d, STATUS), 1);
		vdriver_add(&d, 0, one + 1, 1);
		vdriver_kick(&d, 0);
		assert_true(vdriver_used(&d, 0, &id, &len));
		assert_int_equal(*vdriver_mem(&d, STATUS), 1);
		assert_int_equal(vdriver_status(&d), 0xf);
		/* no byte for the status */
		vdriver_add(&d, 0, one, 1);
		vdriver_kick(&d, 0);
		assert_false(vdriver_used(&d, 0, &id, &len));
		assert_int_equal(vdriver_status(&d), 0x4f);
		vdriver_start(&d, variants[v], 16);
		assert_int_equal(request(0, 0, 0, 512, true, NULL), 0);
		down();
	}
}

static void test_G27_unknown_types(void **state)
{
	up(false, 1);
	vdriver_start(&d, variants[1], 16);
	for (u32 type = 0; type < 300; type++) {
		if (type == 0 || type == 1 || type == 4 || type == 8 || type == 11 || type == 13)
			continue;
		assert_int_equal(request(0, type, 0, 512, type & 1, NULL), 2);
	}
	assert_int_equal(request(0, 0x80000000, 0, 512, true, NULL), 2);
	assert_int_equal(request(0, 0xffffffff, 0, 512, true, NULL), 2);
	assert_int_equal(disk.requests, 0);
	down();
}

static void test_G28_read_only(void **state)
{
	up(true, 1);
	assert_int_equal(vdriver_offered(&d) & (F_RO | F_DISC | F_ZEROES), F_RO);
	vdriver_start(&d, F_RO | F_FLUSH, 16);
	u8 *before = malloc(SIZE);
	memcpy(before, disk.data, SIZE);
	assert_int_equal(request(0, 1, 0, 512, false, NULL), 1);
	assert_int_equal(request(0, 11, 0, 16, false, NULL), 2);
	assert_int_equal(request(0, 13, 0, 16, false, NULL), 2);
	for (u32 type = 0; type < 64; type++)
		request(0, type, 0, 512, false, NULL);
	assert_int_equal(request(0, 0, 5, 512, true, NULL), 0);
	assert_memory_equal(vdriver_mem(&d, BUF), disk.data + 5 * 512, 512);
	assert_memory_equal(before, disk.data, SIZE);
	assert_int_equal(disk.written, 0);
	free(before);
	/* a feature that was not offered */
	assert_false(vdriver_negotiate(&d, F_DISC));
	down();
}

/* Without flushes in the driver, each write is on stable storage when it is completed. */
static void test_write_through(void **state)
{
	up(false, 1);
	vdriver_start(&d, F_ZEROES, 16);
	assert_int_equal(request(0, 1, 0, 512, false, NULL), 0);
	assert_int_equal(disk.flushes, 1);
	assert_int_equal(request(0, 0, 0, 512, true, NULL), 0);
	assert_int_equal(disk.flushes, 1);
	down();
}

static void test_host_fails(void **state)
{
	up(false, 1);
	vdriver_start(&d, variants[1], 16);
	disk.fail = -ENOSPC;
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(request(0, 1, 0, 512, false, NULL), 1);
	disk.fail = 0;
	assert_int_equal(request(0, 1, 0, 512, false, NULL), 0);
	down();
}

/* Fills the ring with reads that the host holds. */
static unsigned fill(unsigned q, unsigned n)
{
	const struct vdriver_seg segs[] = { { HDR, 16, false }, { BUF, 512, true }, { STATUS, 1, true } };

	header(HDR, 0, 1);
	for (unsigned i = 0; i < n; i++)
		vdriver_add(&d, q, segs, 3);
	vdriver_kick(&d, q);
	return disk.nr_held;
}

static void test_G18_reset_in_flight(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		up(false, 2);
		disk.hold = true;
		for (unsigned round = 0; round < 2500; round++) {
			u32 id, len;

			vdriver_start(&d, variants[v], 256);
			assert_int_equal(fill(round & 1, 85), 85);
			fake_block_run(&disk, (unsigned)fake_random() % 85, fake_random());
			while (vdriver_used(&d, round & 1, &id, &len))
				;
			unsigned held = disk.nr_held;
			vdriver_set_status(&d, 0);
			/* The memory is the device's until the status says so; other writes do nothing. */
			if (held) {
				assert_int_not_equal(vdriver_status(&d), 0);
				vdriver_set_status(&d, 3);
				vdriver_set_status(&d, 0);
			}
			u8 *rings = vdriver_mem(&d, VDRIVER_RINGS);
			memset(rings, 0x5a, 0x20000);
			*vdriver_mem(&d, STATUS) = 0x33;
			fake_block_run(&disk, 1000, fake_random());
			assert_int_equal(vdriver_status(&d), 0);
			/* and nothing of it comes back */
			for (unsigned i = 0; i < 0x20000; i += 64)
				assert_int_equal(rings[i], 0x5a);
			assert_int_equal(*vdriver_mem(&d, STATUS), 0x33);
		}
		/* The machine's reset waits for all */
		vdriver_start(&d, variants[v], 256);
		fill(0, 85);
		device_reset_all(&fake.b.vm, RESET_WARM);
		assert_int_equal(disk.nr_held, 0);
		down();
	}
}

/* A queue in flight as full as it can be, and a driver that goes on all the same. */
static void test_G22_never_reaped(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		const struct vdriver_seg segs[] = { { HDR, 16, false }, { STATUS, 1, true } };

		up(false, 1);
		disk.hold = true;
		vdriver_start(&d, variants[v], 256);
		header(HDR, 4, 0);
		for (unsigned i = 0; i < 128; i++)
			vdriver_add(&d, 0, segs, 2);
		vdriver_kick(&d, 0);
		assert_int_equal(disk.nr_held, 128);
		for (unsigned i = 0; i < 1000; i++) {
			vdriver_add(&d, 0, segs, 2);
			vdriver_kick(&d, 0);
		}
		assert_in_range(disk.most_held, 128, 256);
		assert_int_equal(vdriver_status(&d), 0x4f);
		fake_block_run(&disk, 1000, 1);
		down();
	}
}

static void test_G29_limits(void **state)
{
	/* 10 s of a flood; 1000 requests, or 4 MiB a second */
	for (unsigned which = 0; which < 2; which++) {
		bconf.iops = which ? 0 : 1000;
		bconf.bytes_per_s = which ? 4 * MiB : 0;
		up(false, 1);
		vdriver_start(&d, variants[1], 256);
		const struct vdriver_seg segs[] = { { HDR, 16, false },
						    { BUF, 4096, true },
						    { STATUS, 1, true } };
		unsigned open = 0;

		header(HDR, 0, 1);
		for (u64 t = 0; t < 10000; t++) {
			u32 id, len;

			for (; open < 80; open++)
				vdriver_add(&d, 0, segs, 3);
			vdriver_kick(&d, 0);
			fake_advance(1000000);
			while (vdriver_used(&d, 0, &id, &len))
				open--;
		}
		u64 want = which ? 10 * 1024 : 10 * 1000;
		assert_in_range(disk.requests, want * 95 / 100, want * 105 / 100);
		down();
	}
}

/* In a pause what was on its way is finished, nothing new is taken, and it is taken up at the resume. */
static void test_pause(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		struct device_stat stat[DEVICE_MAX_STATS];
		struct device *dev;
		u32 id, len;

		up(false, 1);
		vdriver_start(&d, variants[v], 16);
		dev = device_find(&fake.b.vm, "disk0");
		disk.hold = true;
		fill(0, 3);
		assert_int_equal(disk.nr_held, 3);
		device_quiesce_all(&fake.b.vm);
		assert_int_equal(disk.nr_held, 0);
		for (unsigned i = 0; i < 3; i++)
			assert_true(vdriver_used(&d, 0, &id, &len));
		disk.hold = false;
		assert_int_equal(request(0, 4, 0, 0, false, NULL), 0x100); /* stays in the ring */
		assert_int_equal(disk.requests, 3);
		device_resume_all(&fake.b.vm);
		assert_true(vdriver_used(&d, 0, &id, &len));
		assert_int_equal(disk.flushes, 1);
		assert_int_equal(request(0, 0, 0, 512, true, NULL), 0);
		/* A reset ends it too. */
		device_quiesce_all(&fake.b.vm);
		dev->ops->reset(dev, RESET_WARM);
		vdriver_find(&d, &fake.b, VIRTIO_ID_BLOCK, 0);
		vdriver_start(&d, variants[v], 16);
		assert_int_equal(request(0, 1, 0, 1024, false, NULL), 0);
		assert_int_equal(dev->ops->stats(dev, stat), 7);
		assert_string_equal(stat[3].name, "written_bytes");
		assert_true(stat[0].value >= 1 && stat[2].value >= 1 && stat[3].value >= 1024);
		assert_int_equal(stat[4].value, 1);
		assert_int_equal(stat[6].value, 0);
		down();
	}
}

static void test_state(void **state)
{
	up(false, 2);
	vdriver_start(&d, variants[1], 32);
	assert_int_equal(request(1, 0, 7, 512, true, NULL), 0);
	fake_state(device_find(&fake.b.vm, "disk0"));
	/* and goes on where it was */
	assert_int_equal(request(1, 0, 9, 512, true, NULL), 0);
	assert_memory_equal(vdriver_mem(&d, BUF), disk.data + 9 * 512, 512);
	down();
}

static void test_refused(void **state)
{
	struct err err = { 0 };

	fake_vm(1);
	struct device_conf conf = { .id = "disk0" };
	assert_int_equal(device_new(&fake.b.vm, "virtio-blk", &conf, NULL, &err), -EINVAL);
	fake_block_init(&disk, SIZE);
	conf.block = &disk.block;
	conf.block_conf = &bconf;
	assert_int_equal(device_new(&fake.b.vm, "virtio-blk", &conf, NULL, &err), -ENODEV); /* no bus */
	fake_add("pci", NULL);
	bconf.queues = 17;
	assert_int_equal(device_new(&fake.b.vm, "virtio-blk", &conf, NULL, &err), -EINVAL);
	bconf.queues = 1;
	bconf.serial = "0123456789abcdefghijk";
	assert_int_equal(device_new(&fake.b.vm, "virtio-blk", &conf, NULL, &err), -EINVAL);
	down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_transfers),
		cmocka_unit_test(test_layouts),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_G26_out_of_range),
		cmocka_unit_test(test_G27_unknown_types),
		cmocka_unit_test(test_G28_read_only),
		cmocka_unit_test(test_write_through),
		cmocka_unit_test(test_host_fails),
		cmocka_unit_test(test_G18_reset_in_flight),
		cmocka_unit_test(test_G22_never_reaped),
		cmocka_unit_test(test_G29_limits),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_state),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
