/* virtio-balloon: pages go back to the host and no others, statistics, the target, hostile lists [G36]. */
#include "fakevm.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "dev/virtio/virtio_balloon.h"
#include "machine/balloon.h"
#include "vdriver.h"
#include "wholeboard.h"

#define INFLATE 0
#define DEFLATE 1
#define STATS   2
#define DATA    VDRIVER_DATA
#define PAGES   0x300000ull /* whose memory is looked at */
#define NR      16u         /* of them */
#define PAGE    4096ull

#define F_STATS     BIT(1)
#define F_REPORTING BIT(5)

static struct wholeboard w;
static struct vdriver d;
static struct device *dev;
static u32 id, len;

static const u64 variants[] = { F_STATS | F_REPORTING, F_STATS | F_REPORTING | VIRTIO_F_EVENT_IDX,
				F_STATS | F_REPORTING | VIRTIO_F_RING_PACKED,
				F_STATS | F_REPORTING | VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX };

static void up(u64 features)
{
	wholeboard_init(&w, VDRIVER_RAM, 1);
	w.b.now = 1000000000;
	vdriver_find(&d, &w.b, VIRTIO_ID_BALLOON, 0);
	dev = virtio_balloon_find(&w.b.vm);
	assert_non_null(dev);
	vdriver_start(&d, features, 16);
	for (u64 i = 0; i < NR; i++)
		memset(vdriver_mem(&d, PAGES + i * PAGE), (int)(0xa0 + i), PAGE);
}

/* Which of the pages the host has memory for, as a bitmap. */
static unsigned resident(void)
{
	unsigned char there[NR];
	unsigned map = 0;

	assert_int_equal(mincore(vdriver_mem(&d, PAGES), NR * PAGE, there), 0);
	for (unsigned i = 0; i < NR; i++)
		map |= (there[i] & 1u) << i;
	return map;
}

static bool give(unsigned q, const u32 *pfns, unsigned n)
{
	const struct vdriver_seg seg = { DATA, n * 4, false };

	memcpy(vdriver_mem(&d, DATA), pfns, n * 4ul);
	vdriver_add(&d, q, &seg, 1);
	vdriver_kick(&d, q);
	board_advance(&w.b, 10000000);
	return vdriver_used(&d, q, &id, &len);
}

#define PFN(n) ((u32)(PAGES / PAGE) + (n))

static void test_inflate(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		/* alone, a run upwards, a run downwards, the same twice */
		const u32 pfns[] = { PFN(1), PFN(3), PFN(4), PFN(5), PFN(9), PFN(8), PFN(12), PFN(12) };
		const unsigned gone = BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(9) | BIT(8) | BIT(12);
		struct balloon_info info;

		up(variants[v]);
		assert_int_equal(resident(), 0xffff);
		assert_true(give(INFLATE, pfns, ARRAY_SIZE(pfns)));
		assert_int_equal(resident(), 0xffff & ~gone);
		for (unsigned i = 0; i < NR; i++)
			assert_int_equal(*vdriver_mem(&d, PAGES + i * PAGE + 77),
					 gone >> i & 1 ? 0 : 0xa0 + i);
		virtio_balloon_query(dev, &info);
		assert_int_equal(info.discarded, 8 * PAGE);
		/* Back again: used as before. */
		assert_true(give(DEFLATE, pfns, ARRAY_SIZE(pfns)));
		memset(vdriver_mem(&d, PAGES + PAGE), 0x55, PAGE);
		assert_int_equal(*vdriver_mem(&d, PAGES + PAGE + 9), 0x55);
		assert_int_equal(vdriver_status(&d), 0xf);
		wholeboard_fini(&w);
	}
}

static unsigned code_drops;

static void on_code(void *opaque, gpa_t gpa, u64 n)
{
	code_drops += gpa <= PAGES && gpa + n >= PAGES + PAGE;
}

/* What an engine has made of the page's bytes goes with them. */
static void test_code(void **state)
{
	const u32 pfn = PFN(0);

	up(variants[0]);
	w.b.vm.ram.code_written = on_code;
	atomic_store(&w.b.vm.ram.code_map[PAGES / PAGE], BIT(3));
	code_drops = 0;
	assert_true(give(INFLATE, &pfn, 1));
	assert_int_equal(code_drops, 1);
	wholeboard_fini(&w);
}

static void test_report(void **state)
{
	/* By Linux's numbering with statistics, by the document's, and by Linux's without. */
	static const struct {
		u64 features;
		unsigned q;
	} ways[] = { { F_STATS | F_REPORTING, 3 },
		     { F_STATS | F_REPORTING, 4 },
		     { F_REPORTING, 2 },
		     { F_REPORTING | VIRTIO_F_EVENT_IDX, 2 } };

	for (unsigned k = 0; k < ARRAY_SIZE(ways); k++) {
		const struct vdriver_seg segs[] = {
			{ PAGES + 2 * PAGE, 2 * PAGE, true },
			{ PAGES + 6 * PAGE + 1, 3 * PAGE - 2, true }, /* of which one is whole */
			{ PAGES + 11 * PAGE, 100, true },             /* none is */
		};

		up(ways[k].features);
		for (unsigned turn = 0; turn < 20; turn++) {
			memset(vdriver_mem(&d, PAGES), 1, NR * PAGE);
			vdriver_add(&d, ways[k].q, segs, 3);
			vdriver_kick(&d, ways[k].q);
			board_advance(&w.b, 10000000);
			assert_true(vdriver_used(&d, ways[k].q, &id, &len));
			assert_int_equal(resident(), 0xffff & ~(BIT(2) | BIT(3) | BIT(7)));
		}
		wholeboard_fini(&w);
	}
	/* Without the feature nothing is done. */
	up(F_STATS);
	vdriver_add(&d, 3, &(const struct vdriver_seg){ PAGES, PAGE, true }, 1);
	vdriver_kick(&d, 3);
	assert_true(vdriver_used(&d, 3, &id, &len));
	assert_int_equal(resident(), 0xffff);
	wholeboard_fini(&w);
}

static void put_stat(unsigned i, u16 tag, u64 val)
{
	st16(vdriver_mem(&d, DATA + 0x1000 + i * 10), tag);
	st64(vdriver_mem(&d, DATA + 0x1000 + i * 10 + 2), val);
}

static void test_stats(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		const struct vdriver_seg seg = { DATA + 0x1000, 40, false };
		struct balloon_info info;

		up(variants[v]);
		virtio_balloon_query(dev, &info);
		assert_int_equal(info.known, 0);
		for (unsigned turn = 1; turn < 40; turn++) {
			put_stat(0, BALLOON_STAT_FREE, 1000 * turn);
			put_stat(1, BALLOON_STAT_TOTAL, ~0ull);
			put_stat(2, 0x8000, 7);
			put_stat(3, BALLOON_NR_STATS, 7);
			vdriver_add(&d, STATS, &seg, 1);
			vdriver_kick(&d, STATS);
			assert_false(vdriver_used(&d, STATS, &id, &len)); /* kept until it is asked for */
			board_advance(&w.b, 5000);
			virtio_balloon_query(dev, &info);
			assert_int_equal(info.known, BIT(BALLOON_STAT_FREE) | BIT(BALLOON_STAT_TOTAL));
			assert_int_equal(info.stat[BALLOON_STAT_FREE], 1000 * turn);
			assert_int_equal(info.stat_age, 5000);
			assert_true(vdriver_used(&d, STATS, &id, &len));
			virtio_balloon_query(dev, &info); /* nothing to give back */
			assert_false(vdriver_used(&d, STATS, &id, &len));
		}
		wholeboard_fini(&w);
	}
}

static u32 config(unsigned at)
{
	return (u32)vdriver_read(&d, 0x2000 + at, 4);
}

static void test_target(void **state)
{
	struct balloon_info info;
	u64 generation;

	up(variants[0]);
	assert_int_equal(config(0), 0);
	generation = vdriver_read(&d, 0x15, 1);
	vdriver_read(&d, 0x1000, 1);
	virtio_balloon_set_target(dev, MiB + 1);
	assert_int_equal(config(0), MiB / PAGE);
	assert_int_not_equal(vdriver_read(&d, 0x15, 1), generation);
	assert_true(vdriver_read(&d, 0x1000, 1) & 2); /* the driver was told */
	virtio_balloon_set_target(dev, MiB);
	assert_false(vdriver_read(&d, 0x1000, 1) & 2); /* the same again is no news */
	virtio_balloon_set_target(dev, ~0ull);
	assert_int_equal(config(0), VDRIVER_RAM / PAGE);
	/* The driver says how much there is in it; what it says may be anything. */
	vdriver_write(&d, 0x2004, 4, 100);
	virtio_balloon_query(dev, &info);
	assert_int_equal(info.actual, 100 * PAGE);
	assert_int_equal(info.target, VDRIVER_RAM);
	vdriver_write(&d, 0x2004, 4, 0xffffffff);
	virtio_balloon_query(dev, &info);
	assert_int_equal(info.actual, VDRIVER_RAM);
	/* The target is not the driver's to write, nor is what lies around. */
	vdriver_write(&d, 0x2000, 4, 5);
	vdriver_write(&d, 0x2006, 4, 5);
	vdriver_write(&d, 0x2008, 4, 5);
	assert_int_equal(config(0), VDRIVER_RAM / PAGE);
	/* A new driver begins with nothing in it, and the same target. */
	vdriver_start(&d, variants[0], 16);
	virtio_balloon_query(dev, &info);
	assert_int_equal(info.actual, 0);
	assert_int_equal(config(0), VDRIVER_RAM / PAGE);
	wholeboard_fini(&w);
}

/* What a control interface calls. */
static void test_set(void **state)
{
	struct err err = { 0 };
	struct board none;

	up(variants[0]);
	assert_int_equal(balloon_set(&w.b.vm, 2 * MiB, &err), 0);
	assert_int_equal(config(0), 2 * MiB / PAGE);
	assert_int_equal(balloon_set(&w.b.vm, VDRIVER_RAM + 1, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "cannot give away"));
	assert_int_equal(config(0), 2 * MiB / PAGE);
	wholeboard_fini(&w);
	board_init(&none, MiB, 1);
	assert_int_equal(balloon_set(&none.vm, 0, &err), -ENODEV);
	assert_non_null(strstr(err.msg, "--balloon"));
	board_fini(&none);
}

static void test_G36_pages(void **state)
{
	static const u32 bad[] = { 0xe0,    0xff,    VDRIVER_RAM / PAGE, 0xc0000,    0xe0000,
				   0xfee00, 0xfffff, 0x100000,           0x7fffffff, 0xffffffff };

	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
			const u32 pfns[] = { PFN(1), bad[i], PFN(2) };

			up(variants[v]);
			assert_false(give(INFLATE, pfns, 3));
			assert_int_equal(vdriver_status(&d), 0x4f);
			assert_int_equal(resident() | BIT(1), 0xffff);
			vdriver_start(&d, variants[v], 16);
			assert_true(give(INFLATE, pfns, 1));
			wholeboard_fini(&w);
		}
	}
	/* Half an entry; a list of gigabytes' worth. */
	for (u32 n = 1; n < 4; n++) {
		up(variants[0]);
		vdriver_add(&d, INFLATE, &(const struct vdriver_seg){ DATA, n, false }, 1);
		vdriver_kick(&d, INFLATE);
		assert_int_equal(vdriver_status(&d), 0x4f);
		wholeboard_fini(&w);
	}
	up(variants[0]);
	vdriver_add(&d, INFLATE, &(const struct vdriver_seg){ DATA, 0x100000, false }, 1);
	vdriver_kick(&d, INFLATE);
	assert_int_equal(vdriver_status(&d), 0x4f);
	wholeboard_fini(&w);
}

/* A flood costs the host so many calls a second and no more. */
static void test_G36_flood(void **state)
{
	static u32 pfns[4096];
	struct balloon_info info;
	u64 begin;

	up(variants[0]);
	for (u32 i = 0; i < ARRAY_SIZE(pfns); i++)
		pfns[i] = PFN(i * 2 % NR);
	begin = w.b.now;
	for (unsigned i = 0; i < 500; i++)
		while (!give(INFLATE, pfns, ARRAY_SIZE(pfns)))
			;
	virtio_balloon_query(dev, &info);
	assert_int_equal(info.discarded, 500ull * 4096 * PAGE);
	assert_true(w.b.now - begin > 500ull * 4096 * 1000000000 / 500000 - 200000000);
	wholeboard_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inflate),   cmocka_unit_test(test_code),
		cmocka_unit_test(test_report),    cmocka_unit_test(test_stats),
		cmocka_unit_test(test_target),    cmocka_unit_test(test_set),
		cmocka_unit_test(test_G36_pages), cmocka_unit_test(test_G36_flood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
