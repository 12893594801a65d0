/* What every virtio device owes a driver, right or hostile, whatever the device is for: status and features, queue
 * registers, the rings of hostile.md's first table [G01-G17, G19-G21], access through configuration space.
 *
 * After each attempt the device is content or asks for a reset, and after a reset it works.
 */
#include "fakevm.h"

#include "base/bits.h"
#include "dev/pci.h"
#include "vdriver.h"
#include "wholeboard.h"

#define PACKED   VIRTIO_F_RING_PACKED
#define INDIRECT VIRTIO_F_INDIRECT_DESC
#define EVENT    VIRTIO_F_EVENT_IDX
#define DATA     VDRIVER_DATA
#define TABLE    (VDRIVER_DATA + 0x10000)
#define ROM      0xe0000

/* Device types, a queue whose buffers are taken at once, and a buffer with which it works. */
struct kind {
	u16 type;
	unsigned q;
	struct vdriver_seg good[3];
	unsigned nr_good;
};

static const struct kind kinds[] = {
	/* A flush; the header is written by prepare() */
	{ VIRTIO_ID_BLOCK, 0, { { DATA, 16, false }, { DATA + 0x100, 1, true } }, 2 },
	{ VIRTIO_ID_CONSOLE, 1, { { DATA, 16, false }, { DATA + 0x100, 1, false } }, 2 },
	{ VIRTIO_ID_NET, 1, { { DATA, 16, false }, { DATA + 0x100, 100, false } }, 2 },
	/* Of a page that is in nobody's way, twice over. */
	{ VIRTIO_ID_BALLOON, 0, { { DATA, 4, false }, { DATA + 0x100, 4, false } }, 2 },
	/* fakefs.c answers whatever it is */
	{ VIRTIO_ID_FS, 1, { { DATA, 40, false }, { DATA + 0x100, 16, true } }, 2 },
	/* A packet of nobody */
	{ VIRTIO_ID_VSOCK, 1, { { DATA, 44, false }, { DATA + 0x100, 10, false } }, 2 },
	{ VIRTIO_ID_ENTROPY, 0, { { DATA, 16, true }, { DATA + 0x100, 1, true } }, 2 },
};

static const u64 variants[] = { INDIRECT, INDIRECT | EVENT, INDIRECT | PACKED, INDIRECT | EVENT | PACKED };

static struct wholeboard w;
static struct vdriver d;
static const struct kind *kind;
static u64 features;

static void prepare(void)
{
	memset(vdriver_mem(&d, DATA), 0, 0x10000);
	if (kind->type == VIRTIO_ID_BLOCK)
		st32(vdriver_mem(&d, DATA), 4);
	if (kind->type == VIRTIO_ID_BALLOON)
		st32(vdriver_mem(&d, DATA), 0x3f0), st32(vdriver_mem(&d, DATA + 0x100), 0x3f0);
}

/* A device with a limit of rate has had time. */
static void kick(void)
{
	board_advance(&w.b, 1000000);
	vdriver_kick(&d, kind->q);
}

static void start(u16 size)
{
	prepare();
	vdriver_start(&d, features, size);
}

static void works(void)
{
	u32 id, len;

	start(16);
	for (unsigned i = 0; i < 40; i++) {
		u16 sent = vdriver_add(&d, kind->q, kind->good, kind->nr_good);

		kick();
		if (!vdriver_used(&d, kind->q, &id, &len))
			fail_msg("type %u: no answer to request %u", kind->type, i);
		assert_int_equal(id, sent);
		assert_int_equal(vdriver_status(&d), 0xf);
	}
}

/* The driver must be told. */
static void is_broken(void)
{
	assert_int_equal(vdriver_status(&d), 0x4f);
	assert_true(vdriver_read(&d, 0x1000, 1) & 2);
	/* and nothing is taken any more */
	for (unsigned q = 0; q < d.nr_queues; q++)
		vdriver_kick(&d, q);
	assert_int_equal(vdriver_status(&d), 0x4f);
	works();
}

static void is_content_or_broken(void)
{
	u8 status = vdriver_status(&d);

	assert_true(status == 0xf || status == 0x4f);
	works();
}

static void each(void (*fn)(void))
{
	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
		for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
			kind = &kinds[k];
			features = variants[v];
			wholeboard_init(&w, VDRIVER_RAM, 1);
			vdriver_find(&d, &w.b, kind->type, 0);
			works();
			fn();
			wholeboard_fini(&w);
		}
	}
}

/* Offers the chain that begins at descriptor 0, and notifies. In a packed ring the first one is available. */
static void offer(void)
{
	if (!d.packed)
		vdriver_offer(&d, kind->q, 0);
	kick();
}

static void desc(unsigned i, u64 addr, u32 len, u16 flags, u16 next)
{
	vdriver_desc(&d, kind->q, i, addr, len, (u16)(flags | (d.packed ? BIT(7) : 0)), next);
}

static void loops(void)
{
	for (unsigned n = 1; n <= 16; n++) {
		start(16);
		for (unsigned i = 0; i < n; i++)
			desc(i, DATA, 16, VDRIVER_NEXT, (u16)((i + 1) % n));
		if (d.packed) /* a packed chain cannot go back; it can go on for ever */
			for (unsigned i = n; i < 16; i++)
				desc(i, DATA, 16, VDRIVER_NEXT, 0);
		offer();
		is_broken();
	}
	/* in a table */
	for (unsigned n = 1; n <= 16 && !d.packed; n++) {
		start(16);
		struct vdriver save = d;
		d.q[kind->q].desc = TABLE;
		for (unsigned i = 0; i < n; i++)
			desc(i, DATA, 16, VDRIVER_NEXT, (u16)((i + 1) % n));
		d = save;
		desc(0, TABLE, 16 * n, VDRIVER_TABLE, 0);
		offer();
		is_broken();
	}
}

static void test_G01_loops(void **state)
{
	each(loops);
}

static void indices(void)
{
	static const u16 bad[] = { 16, 17, 255, 256, 0x7fff, 0x8000, 0xffff };

	for (unsigned i = 0; i < ARRAY_SIZE(bad) && !d.packed; i++) {
		start(16); /* G02: the head, the next one */
		vdriver_offer(&d, kind->q, bad[i]);
		kick();
		is_broken();
		start(16);
		desc(0, DATA, 16, VDRIVER_NEXT, bad[i]);
		offer();
		is_broken();
		start(16); /* G03: the index */
		st16(vdriver_mem(&d, d.q[kind->q].driver + 2), bad[i]);
		if (bad[i] == 16)
			continue;
		kick();
		is_broken();
	}
	if (d.packed) { /* an id that was never given is the driver's to make sense of */
		start(16);
		desc(0, DATA, 16, VDRIVER_NEXT, 0xffff);
		desc(1, DATA + 0x100, 1, VDRIVER_WRITE, 0xffff);
		offer();
		is_content_or_broken();
	}
}

static void test_G02_G03_indices(void **state)
{
	each(indices);
}

/* The same buffer twice at once: both come back, or the device is broken. */
static void twice(void)
{
	start(16);
	if (d.packed) {
		for (unsigned i = 0; i < 4; i++)
			desc(i, kind->good[i % 2].addr, kind->good[i % 2].len,
			     (u16)(i & 1 ? VDRIVER_WRITE : VDRIVER_NEXT), 3);
		kick();
	} else {
		vdriver_add(&d, kind->q, kind->good, kind->nr_good);
		vdriver_offer(&d, kind->q, 0);
		kick();
	}
	is_content_or_broken();
}

static void test_G04_same_head_twice(void **state)
{
	each(twice);
}

static void tables(void)
{
	static const struct {
		u64 addr;
		u32 len;
		u16 more;
	} bad[] = {
		{ TABLE, 0, 0 },
		{ TABLE, 8, 0 },
		{ TABLE, 17, 0 },
		{ TABLE, 16 * 257, 0 },
		{ TABLE, 16 * 65537, 0 },
		{ TABLE, 0xfffffff0, 0 },
		{ TABLE, 16, VDRIVER_NEXT },
		{ VDRIVER_RAM, 16, 0 },
		{ VDRIVER_RAM - 8, 16, 0 },
		{ 0xc0000000, 16, 0 },
		{ ~0ull - 7, 16, 0 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		start(16);
		desc(0, bad[i].addr, bad[i].len, (u16)(VDRIVER_TABLE | bad[i].more), 1);
		offer();
		is_broken();
	}
	/* a table in a table; an entry outside of it */
	for (unsigned i = 0; i < 2; i++) {
		start(16);
		struct vdriver save = d;
		d.q[kind->q].desc = TABLE;
		desc(0, TABLE, 16, i ? VDRIVER_NEXT : VDRIVER_TABLE, i ? 7 : 0);
		d = save;
		desc(0, TABLE, 16, VDRIVER_TABLE, 0);
		offer();
		if (!i || !d.packed)
			is_broken();
	}
	/* one that was not negotiated */
	u64 save = features;
	features &= ~INDIRECT;
	start(16);
	desc(0, TABLE, 16, VDRIVER_TABLE, 0);
	offer();
	is_broken();
	features = save;
}

static void test_G05_indirect(void **state)
{
	each(tables);
}

static void addresses(void)
{
	static const struct {
		u64 addr;
		u32 len;
		u16 flags;
	} bad[] = {
		{ VDRIVER_RAM, 1, 0 },
		{ VDRIVER_RAM - 1, 2, 0 },
		{ 0xc0000000, 16, 0 },
		{ 0xfee00000, 4, 0 },
		{ ~0ull, 1, 0 },
		{ ~0ull - 15, 32, 0 },
		{ DATA, 0xffffffff, 0 },
		{ 1ull << 52, 16, 0 },
		{ ROM, 16, VDRIVER_WRITE },
		{ ROM - 1, 2, VDRIVER_WRITE },
		{ 0xe0000000, 16, VDRIVER_WRITE },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		u64 bar = (d.regs & ~0xffffull) + 0x3000;

		start(16);
		desc(0, bad[i].addr, bad[i].len, bad[i].flags, 0);
		offer();
		is_broken();
		start(16); /* G12: its own registers */
		desc(0, bar, 16, bad[i].flags, 0);
		offer();
		is_broken();
	}
	/* G08: up to the last byte of RAM; what lies in ROM may be read */
	start(16);
	desc(0, VDRIVER_RAM - 16, 16, VDRIVER_NEXT, 1);
	desc(1, DATA + 0x100, 1, VDRIVER_WRITE, 0);
	offer();
	is_content_or_broken();
	start(16);
	desc(0, ROM, 16, VDRIVER_NEXT, 1);
	desc(1, DATA + 0x100, 1, VDRIVER_WRITE, 0);
	offer();
	is_content_or_broken();
}

static void test_G06_G08_G12_addresses(void **state)
{
	each(addresses);
}

static void lengths(void)
{
	start(16); /* G07: nothing at all, and more than 4 GiB (RAM is smaller, a part may come often) */
	desc(0, DATA, 0, 0, 0);
	offer();
	is_content_or_broken();
	start(256);
	for (unsigned i = 0; i < 256; i++)
		desc(i, 0x1000, 0x1000000, i < 255 ? VDRIVER_NEXT : 0, (u16)(i + 1));
	offer();
	is_broken();
	start(16); /* G09: to read after to write */
	desc(0, DATA, 16, VDRIVER_NEXT, 1);
	desc(1, DATA + 0x200, 16, VDRIVER_WRITE | VDRIVER_NEXT, 2);
	desc(2, DATA + 0x300, 16, VDRIVER_NEXT, 3);
	desc(3, DATA + 0x400, 1, VDRIVER_WRITE, 0);
	offer();
	is_broken();
	start(16); /* everything the wrong way round */
	desc(0, DATA, 16, VDRIVER_WRITE | VDRIVER_NEXT, 1);
	desc(1, DATA + 0x200, 16, VDRIVER_WRITE, 0);
	offer();
	is_content_or_broken();
}

static void test_G07_G09_lengths(void **state)
{
	each(lengths);
}

/* Another thread rewrites descriptors, tables, rings and data all the time. */
static _Atomic bool stop_flipping;

static void *flip(void *opaque)
{
	u8 *mem = opaque;
	u64 x = 88172645463325252ull;

	while (!stop_flipping) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		volatile u8 *at = mem + (x & 1 ? VDRIVER_RINGS + kind->q * 0x10000 + (x >> 8 & 0x1ff)
					       : DATA + (x >> 8 & 0x1f));
		u8 old = *at;

		*at = (u8)(x >> 32);
		*at = old;
	}
	return NULL;
}

static void flipping(void)
{
	pthread_t t;
	unsigned broken = 0;
	u32 id, len;

	stop_flipping = false;
	assert_int_equal(pthread_create(&t, NULL, flip, vdriver_mem(&d, 0)), 0);
	start(16);
	for (unsigned i = 0; i < 100000; i++) {
		if (d.packed)
			d.q[kind->q].entries[d.q[kind->q].free] = 1;
		vdriver_add(&d, kind->q, kind->good, kind->nr_good);
		kick();
		if (!d.packed)
			vdriver_used(&d, kind->q, &id, &len);
		if (vdriver_status(&d) != 0xf || i % 1000 == 0) {
			broken++;
			vdriver_set_status(&d, 0);
			/* whatever the other thread does to the rings as they are made */
			if (vdriver_negotiate(&d, features)) {
				for (unsigned q = 0; q < d.nr_queues; q++)
					vdriver_queue(&d, q, 16);
				vdriver_set_status(&d, 0xf);
			}
			prepare();
		}
	}
	stop_flipping = true;
	pthread_join(t, NULL);
	assert_true(broken);
	works();
}

static void test_G10_memory_changes(void **state)
{
	each(flipping);
}

/* Rings over each other, over the data, and over the buffers. */
static void overlaps(void)
{
	for (unsigned i = 0; i < 300; i++) {
		prepare();
		assert_true(vdriver_negotiate(&d, features));
		for (unsigned q = 0; q < d.nr_queues; q++) {
			vdriver_write(&d, 0x16, 2, q);
			vdriver_write(&d, 0x18, 2, 1u << fake_random() % 9);
			for (unsigned r = 0x20; r <= 0x30; r += 8)
				vdriver_write(&d, r, 8, VDRIVER_RINGS + (fake_random() % 32) * 16);
			vdriver_write(&d, 0x1c, 2, 1);
		}
		vdriver_set_status(&d, 0xf);
		for (unsigned k = 0; k < 50; k++) {
			u8 *at = vdriver_mem(&d, VDRIVER_RINGS + fake_random() % 512);

			*at = (u8)(fake_random() >> fake_random() % 8);
			vdriver_kick(&d, (unsigned)fake_random() % d.nr_queues);
		}
		vdriver_set_status(&d, 0);
	}
	works();
}

static void test_G13_overlaps(void **state)
{
	each(overlaps);
}

static void registers(void)
{
	static const u16 sizes[] = { 0, 3, 17, 255, 257, 512, 0x8000, 0xffff };

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) { /* G14 */
		bool kept = sizes[i] && sizes[i] <= 256;

		assert_true(vdriver_negotiate(&d, features));
		vdriver_write(&d, 0x16, 2, kind->q);
		vdriver_write(&d, 0x18, 2, sizes[i]);
		assert_int_equal(vdriver_read(&d, 0x18, 2), kept ? sizes[i] : 256);
		vdriver_queue(&d, kind->q, kept ? sizes[i] : 256);
		vdriver_set_status(&d, 0xf);
		assert_int_equal(vdriver_status(&d), kept && !d.packed ? 0x4f : 0xf);
		/* enabled: it stays as it is */
		u64 was = vdriver_read(&d, 0x20, 8);
		vdriver_write(&d, 0x18, 2, 8);
		vdriver_write(&d, 0x20, 8, 0x12345670);
		vdriver_write(&d, 0x1c, 2, 0);
		assert_int_equal(vdriver_read(&d, 0x20, 8), was);
		assert_int_not_equal(vdriver_read(&d, 0x18, 2), 8);
		assert_int_equal(vdriver_read(&d, 0x1c, 2), 1);
	}
	const struct {
		unsigned reg;
		u64 val;
	} places[] = {
		{ 0x20, DATA + 8 },   { 0x20, VDRIVER_RAM }, { 0x20, 0xc0000000 },
		{ 0x20, ~0ull << 4 }, { 0x28, DATA + 1 },    { 0x28, VDRIVER_RAM - 2 },
		{ 0x30, DATA + 2 },   { 0x30, ROM },         { 0x30, VDRIVER_RAM - 4 + 4 },
		{ 0x28, 0xfee00000 }, { 0x30, d.regs },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) { /* G15 */
		assert_true(vdriver_negotiate(&d, features));
		vdriver_write(&d, 0x16, 2, kind->q);
		vdriver_write(&d, 0x20, 8, VDRIVER_RINGS);
		vdriver_write(&d, 0x28, 8, VDRIVER_RINGS + 0x4000);
		vdriver_write(&d, 0x30, 8, VDRIVER_RINGS + 0x8000);
		vdriver_write(&d, places[i].reg, 8, places[i].val);
		vdriver_write(&d, 0x1c, 2, 1);
		assert_int_equal(vdriver_status(&d), 0x4b);
		vdriver_set_status(&d, 0xf);
		kick();
		works();
	}
	/* enabled before anything is set: at address 0, which is memory like any other; before FEATURES_OK: not at all */
	vdriver_set_status(&d, 0);
	vdriver_set_status(&d, 3);
	vdriver_write(&d, 0x1c, 2, 1);
	assert_int_equal(vdriver_read(&d, 0x1c, 2), 0);
	/* a queue that does not exist */
	vdriver_write(&d, 0x16, 2, d.nr_queues);
	assert_int_equal(vdriver_read(&d, 0x18, 2), 0);
	vdriver_write(&d, 0x16, 2, 0xffff);
	vdriver_write(&d, 0x18, 2, 16);
	vdriver_write(&d, 0x1a, 2, 0);
	vdriver_write(&d, 0x20, 8, ~0ull);
	vdriver_write(&d, 0x1c, 2, 1);
	works();
}

static void test_G14_G15_queue_registers(void **state)
{
	each(registers);
}

static void negotiation(void)
{
	u64 offered = vdriver_offered(&d);

	for (unsigned bit = 0; bit < 64; bit++) { /* G16 */
		bool good = offered >> bit & 1;

		assert_int_equal(vdriver_negotiate(&d, BIT(bit)), good);
		vdriver_set_status(&d, 0xf);
		assert_int_equal(vdriver_status(&d), good ? 0xf : 0x3);
		/* changed afterwards: too late */
		if (good) {
			vdriver_write(&d, 8, 4, 0);
			vdriver_write(&d, 0xc, 4, ~0u);
			assert_int_equal(vdriver_read(&d, 0xc, 4), (u32)(d.features));
		}
	}
	vdriver_set_status(&d, 0); /* a legacy driver */
	vdriver_set_status(&d, 3);
	vdriver_set_status(&d, 7);
	assert_int_equal(vdriver_status(&d), 3);
	vdriver_set_status(&d, 0xb);
	assert_int_equal(vdriver_status(&d), 3);
	vdriver_write(&d, 8, 4, 2); /* words that do not exist */
	vdriver_write(&d, 0xc, 4, ~0u);
	vdriver_write(&d, 0, 4, 0xffffffff);
	assert_int_equal(vdriver_read(&d, 4, 4), 0);
	works();
	for (unsigned from = 0; from < 256; from++) { /* G19 */
		for (unsigned to = 0; to < 256; to++) {
			u8 status;

			vdriver_set_status(&d, 0);
			vdriver_set_status(&d, (u8)from);
			vdriver_set_status(&d, (u8)to);
			status = vdriver_status(&d);
			/* never DRIVER_OK without features, never the device's own bit */
			assert_false(status &
				     (VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK | VIRTIO_NEEDS_RESET | 0x30));
			assert_int_equal(status, to ? (from | to) & 0x83 : 0);
		}
	}
	works();
}

static void test_G16_G19_status(void **state)
{
	each(negotiation);
}

static void notifications(void)
{
	start(16); /* G17 */
	for (unsigned i = 0; i < 20000; i++)
		vdriver_write(&d, 0x3000 + (i & 0xfff), i & 1 ? 2 : 4, i);
	for (unsigned q = 0; q < 0x400; q++)
		vdriver_write(&d, 0x3000 + 4 * q, 2, q);
	assert_int_equal(vdriver_status(&d), 0xf);
	vdriver_set_status(&d, 0); /* not enabled */
	for (unsigned q = 0; q < d.nr_queues; q++)
		vdriver_kick(&d, q);
	assert_int_equal(vdriver_status(&d), 0);
	works();
}

static void test_G17_notifications(void **state)
{
	each(notifications);
}

static void wraps(void)
{
	if (!d.packed) /* G20 */
		return;
	static const u16 states[] = { 0, BIT(7), BIT(15), BIT(7) | BIT(15) };

	for (unsigned i = 0; i < 256; i++) {
		start(8);
		for (unsigned k = 0; k < 8; k++)
			vdriver_desc(&d, kind->q, k, DATA, 16,
				     (u16)(states[fake_random() % 4] | (fake_random() % 8)),
				     (u16)(fake_random() % 4 ? k : fake_random()));
		kick();
		kick();
		is_content_or_broken();
	}
}

static void test_G20_wrap_counters(void **state)
{
	each(wraps);
}

/* Any value of an event: requests are done all the same, and the next driver gets its interrupts. */
static void events(void)
{
	u32 id, len;

	for (unsigned i = 0; i < 200; i++) {
		start(16);
		for (unsigned k = 0; k < 50; k++) {
			struct vdriver_queue *q = &d.q[kind->q];

			if (d.packed)
				st32(vdriver_mem(&d, q->driver), (u32)fake_random());
			else
				st16(vdriver_mem(&d, q->driver + 4 + 2 * 16), (u16)fake_random());
			vdriver_add(&d, kind->q, kind->good, kind->nr_good);
			kick();
			assert_true(vdriver_used(&d, kind->q, &id, &len));
		}
	}
	start(16);
	vdriver_read(&d, 0x1000, 1);
	vdriver_add(&d, kind->q, kind->good, kind->nr_good);
	kick();
	assert_int_equal(vdriver_read(&d, 0x1000, 1), 1);
}

static void test_G21_events(void **state)
{
	each(events);
}

/* Interrupts: asked for and not, on the pin and as a message, with an event index exactly once. */
static void interrupts(void)
{
	u32 id, len;
	struct vdriver_queue *q = &d.q[kind->q];

	start(16);
	vdriver_read(&d, 0x1000, 1);

	if (!d.event_idx) {
		if (d.packed)
			st16(vdriver_mem(&d, q->driver + 2), 1);
		else
			st16(vdriver_mem(&d, q->driver), 1);
		vdriver_add(&d, kind->q, kind->good, kind->nr_good);
		kick();
		assert_true(vdriver_used(&d, kind->q, &id, &len));
		assert_int_equal(vdriver_read(&d, 0x1000, 1), 0);
		return;
	}
	/* only when the index passes 5 */
	for (unsigned i = 0; i < 9; i++) {
		u16 per = (u16)(d.packed ? kind->nr_good : 1), event = (u16)(5 * per);

		if (d.packed) {
			st16(vdriver_mem(&d, q->driver), (u16)(event | BIT(15)));
			st16(vdriver_mem(&d, q->driver + 2), 2);
		} else {
			st16(vdriver_mem(&d, q->driver + 4 + 2 * 16), event);
		}
		if (d.packed && i >= 7) /* the ring begins again */
			break;
		vdriver_add(&d, kind->q, kind->good, kind->nr_good);
		kick();
		assert_true(vdriver_used(&d, kind->q, &id, &len));
		assert_int_equal(vdriver_read(&d, 0x1000, 1), i == 5);
	}
}

static void test_interrupts(void **state)
{
	each(interrupts);
}

/* Another way to the registers, and to nothing else [virtio 4.1.4.9]. */
static void config_access(void)
{
	struct bus *bus = &w.b.vm.bus;
	unsigned cap = (unsigned)bus_read(bus, BUS_MMIO, d.ecam + 0x34, 1), types = 0;

	works();
	for (; cap; cap = (unsigned)bus_read(bus, BUS_MMIO, d.ecam + cap + 1, 1)) {
		if (bus_read(bus, BUS_MMIO, d.ecam + cap, 1) != 9)
			continue;
		unsigned type = (unsigned)bus_read(bus, BUS_MMIO, d.ecam + cap + 3, 1);

		types |= 1u << type;
		if (type == 5)
			break;
	}
	assert_int_equal(types & 0x2e, 0x2e); /* the type's configuration is none for some */
	bus_write(bus, BUS_MMIO, d.ecam + cap + 8, 4, 0x12);
	bus_write(bus, BUS_MMIO, d.ecam + cap + 12, 4, 2);
	assert_int_equal(bus_read(bus, BUS_MMIO, d.ecam + cap + 16, 2), d.nr_queues);
	bus_write(bus, BUS_MMIO, d.ecam + cap + 8, 4, 0x16);
	bus_write(bus, BUS_MMIO, d.ecam + cap + 16, 4, 0x1234);
	assert_int_equal(vdriver_read(&d, 0x16, 2), 0x1234);
	for (unsigned i = 0; i < 5000; i++) {
		bus_write(bus, BUS_MMIO, d.ecam + cap + 4, 1, i & 1 ? 0 : fake_random());
		bus_write(bus, BUS_MMIO, d.ecam + cap + 8, 4, fake_random() >> fake_random() % 64);
		bus_write(bus, BUS_MMIO, d.ecam + cap + 12, 4, fake_random() & 1 ? 4 : fake_random());
		bus_write(bus, BUS_MMIO, d.ecam + cap + 16, 4, fake_random());
		bus_read(bus, BUS_MMIO, d.ecam + cap + 16, 4);
	}
	works();
	/* Not a bus master: nothing is taken, until it is one again */
	u32 id, len;
	start(16);
	bus_write(bus, BUS_MMIO, d.ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM);
	board_advance(&w.b, 1000000);
	vdriver_add(&d, kind->q, kind->good, kind->nr_good);
	vdriver_kick(&d, kind->q);
	assert_false(vdriver_used(&d, kind->q, &id, &len));
	bus_write(bus, BUS_MMIO, d.ecam + PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
	assert_true(vdriver_used(&d, kind->q, &id, &len));
}

static void test_G12_config_access(void **state)
{
	each(config_access);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_G01_loops),
		cmocka_unit_test(test_G02_G03_indices),
		cmocka_unit_test(test_G04_same_head_twice),
		cmocka_unit_test(test_G05_indirect),
		cmocka_unit_test(test_G06_G08_G12_addresses),
		cmocka_unit_test(test_G07_G09_lengths),
		cmocka_unit_test(test_G10_memory_changes),
		cmocka_unit_test(test_G13_overlaps),
		cmocka_unit_test(test_G14_G15_queue_registers),
		cmocka_unit_test(test_G16_G19_status),
		cmocka_unit_test(test_G17_notifications),
		cmocka_unit_test(test_G20_wrap_counters),
		cmocka_unit_test(test_G21_events),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_G12_config_access),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
