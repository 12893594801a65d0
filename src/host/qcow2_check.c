/* Checks a qcow2 image: walks all tables, counts what names each cluster of the file, and compares with the refcounts
 * and with the mark that a cluster is the disk's alone.
 *
 * A refcount that is too high is a leak. What is too low, or an entry that names what cannot be, is a corruption. A
 * repair sets refcounts and marks right; an entry that names nothing of the file is emptied, its contents are lost already.
 * A table that is found a second time from the same L1 table is not walked again, so that no image takes forever.
 *
 * Where the refcount table or one of its blocks cannot be what it is said to be (it is not inside the file, or something
 * else is there too), a repair makes all of them anew. Bitmaps count as long as they are valid: whoever wrote to the disk
 * without knowing of them has cleared their bit, and their clusters are leaks then.
 *
 * Threads: one; nobody else uses the image.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "host/qcow2_int.h"

#define MAX_SAID    100
#define BITMAP_HEAD 24

struct check {
	struct qcow2 *q;
	u32 *refs;  /* per cluster of the file */
	u8 *walked; /* L2 tables of this L1 */
	u8 *own;    /* clusters of the refcount table and its blocks */
	bool lost;  /* not all of these can be used */
	u64 nr;
	enum qcow2_repair repair;
	void (*say)(void *opaque, const char *text);
	void *opaque;
	unsigned said;
	struct qcow2_result r;
};

static void found(struct check *c, u64 *counter, const char *what, u64 where, u64 has, u64 should)
{
	char text[200];

	++*counter;
	if (!c->say || c->said++ >= MAX_SAID)
		return;
	snprintf(text, sizeof(text), "%s at %#llx: is %#llx, should be %#llx", what,
		 (unsigned long long)where, (unsigned long long)has, (unsigned long long)should);
	c->say(c->opaque, text);
}

/* False: not inside the file. */
static bool count(struct check *c, u64 offset, u64 len)
{
	u64 first = offset >> c->q->h.cluster_bits, last = (offset + len - 1) >> c->q->h.cluster_bits;

	if (!len)
		return true;
	if (last >= c->nr || last < first)
		return false;
	for (u64 i = first; i <= last; i++)
		c->refs[i] += c->refs[i] != UINT32_MAX;
	return true;
}

static bool has_bit(const u8 *bits, u64 i)
{
	return bits[i / 8] & 1u << i % 8;
}

static void set_bit(u8 *bits, u64 i)
{
	bits[i / 8] |= (u8)(1u << i % 8);
}

static void fix_entry(struct check *c, u64 at, u64 entry, bool corrupt)
{
	if (c->repair != QCOW2_REPAIR_ALL)
		return;
	if (qcow2_cache_store(c->q, QCOW2_MAP, at, 8, entry) == 0 && corrupt)
		c->r.fixed_corruptions++;
}

static int walk_l2(struct check *c, u64 table, bool active)
{
	struct qcow2 *q = c->q;

	for (u64 i = 0; i < BIT(q->l2_bits); i++) {
		u64 entry, at = 0, len = q->cluster, where = table + i * 8;
		int rc = qcow2_cache_load(q, QCOW2_MAP, where, 8, &entry);

		if (rc < 0)
			return rc;
		if (entry & QCOW2_ZIPPED)
			qcow2_map_zipped(q, entry, &at, &len);
		else
			at = entry & QCOW2_OFFSET_MASK;
		if (!at && !(entry & QCOW2_ZIPPED))
			continue;
		if ((!(entry & QCOW2_ZIPPED) && at & (q->cluster - 1)) || !at ||
		    (entry & QCOW2_ZIPPED ? !count(c, at, 1) : !count(c, at, len))) {
			found(c, &c->r.corruptions, "the entry of a cluster", where, entry, 0);
			fix_entry(c, where, q->h.version >= 3 ? QCOW2_ZERO : 0, true);
			continue;
		}
		/* The end of a compressed one may lie behind the end of the file. */
		if (entry & QCOW2_ZIPPED && (at + len - 1) >> q->h.cluster_bits != at >> q->h.cluster_bits)
			count(c, ALIGN_UP(at + 1, q->cluster), 1);
		c->r.allocated += active;
	}
	return 0;
}

static int walk_l1(struct check *c, u64 l1, u64 entries, bool active)
{
	struct qcow2 *q = c->q;

	if (l1 & (q->cluster - 1) || (entries && !count(c, l1, entries * 8))) {
		found(c, &c->r.corruptions, "an L1 table", l1, l1, 0);
		return 0;
	}
	memset(c->walked, 0, c->nr / 8 + 1);
	for (u64 i = 0; i < entries; i++) {
		u64 entry, at;
		int rc = qcow2_cache_load(q, QCOW2_MAP, l1 + i * 8, 8, &entry);

		if (rc < 0)
			return rc;
		at = entry & QCOW2_OFFSET_MASK;
		if (!at)
			continue;
		if (at & (q->cluster - 1) || !count(c, at, q->cluster)) {
			found(c, &c->r.corruptions, "an L1 entry", l1 + i * 8, entry, 0);
			fix_entry(c, l1 + i * 8, 0, true);
			continue;
		}
		at >>= q->h.cluster_bits;
		if (has_bit(c->walked, at)) {
			found(c, &c->r.corruptions, "an L1 entry that names another one's table", l1 + i * 8,
			      entry, 0);
			continue;
		}
		set_bit(c->walked, at);
		rc = walk_l2(c, at << q->h.cluster_bits, active);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Clusters for refcounts, which nothing else may use; after everything else was counted. */
static bool claim(struct check *c, u64 offset, u64 clusters)
{
	u64 first = offset >> c->q->h.cluster_bits;

	if (offset & (c->q->cluster - 1) || !clusters || first >= c->nr || clusters > c->nr - first)
		return false;
	for (u64 i = first; i < first + clusters; i++)
		if (c->refs[i] || has_bit(c->own, i))
			return false;
	for (u64 i = first; i < first + clusters; i++)
		set_bit(c->own, i);
	return true;
}

static int walk_refcounts(struct check *c)
{
	struct qcow2 *q = c->q;
	u64 entries = q->h.reftable_clusters * q->cluster / 8, at = q->h.reftable_offset;

	if (!claim(c, at, q->h.reftable_clusters)) {
		found(c, &c->r.corruptions, "the refcount table", at, at, 0);
		c->lost = true;
	}
	for (u64 i = 0; i < entries && (!c->lost || has_bit(c->own, at >> q->h.cluster_bits)); i++) {
		u64 block;
		int rc = qcow2_cache_load(q, QCOW2_REFS, at + i * 8, 8, &block);

		if (rc < 0)
			return rc;
		block &= ~511ull;
		if (block && !claim(c, block, 1)) {
			found(c, &c->r.corruptions, "an entry of the refcount table", at + i * 8, block, 0);
			c->lost = true;
		}
	}
	return 0;
}

/* 0 where the block with it cannot be used. */
static int get_count(struct check *c, u64 cluster, u64 *ret_count)
{
	struct qcow2 *q = c->q;
	u64 index = cluster >> q->block_bits, block = 0;
	int rc;

	if (!c->lost)
		return qcow2_refs_get(q, cluster, ret_count);
	if (index < q->h.reftable_clusters * q->cluster / 8 &&
	    has_bit(c->own, q->h.reftable_offset >> q->h.cluster_bits)) {
		rc = qcow2_cache_load(q, QCOW2_REFS, q->h.reftable_offset + index * 8, 8, &block);
		if (rc < 0)
			return rc;
	}
	block &= ~511ull;
	if (block & (q->cluster - 1) || block >> q->h.cluster_bits >= c->nr ||
	    !has_bit(c->own, block >> q->h.cluster_bits)) {
		*ret_count = 0;
		return 0;
	}
	return qcow2_refs_get(q, cluster, ret_count);
}

/* A bitmap's table, and the clusters that it names. */
static int walk_bitmap(struct check *c, u64 table, u64 entries)
{
	struct qcow2 *q = c->q;

	/* Of the finest one possible [qcow2, "Bitmap directory"]. */
	if (table & (q->cluster - 1) || entries > (q->h.size >> 12 >> q->h.cluster_bits) + 1 ||
	    !count(c, table, entries * 8)) {
		found(c, &c->r.corruptions, "the table of a bitmap", table, entries, 0);
		return 0;
	}
	for (u64 i = 0; i < entries; i++) {
		u64 entry, at;
		int rc = qcow2_cache_load(q, QCOW2_MAP, table + i * 8, 8, &entry);

		if (rc < 0)
			return rc;
		at = entry & QCOW2_OFFSET_MASK;
		if (at && (at & (q->cluster - 1) || !count(c, at, q->cluster)))
			found(c, &c->r.corruptions, "the entry of a bitmap", table + i * 8, entry, 0);
	}
	return 0;
}

/* [qcow2, "Bitmaps extension"] */
static int walk_bitmaps(struct check *c)
{
	struct qcow2 *q = c->q;
	u64 at = q->h.bitmaps_offset, end = at + q->h.bitmaps_len;

	if (!(q->h.autoclear & QCOW2_BITMAPS) || !q->h.nr_bitmaps)
		return 0;
	if (at & (q->cluster - 1) || end < at || !count(c, at, q->h.bitmaps_len)) {
		found(c, &c->r.corruptions, "the directory of bitmaps", at, q->h.bitmaps_len, 0);
		return 0;
	}
	for (u32 i = 0; i < q->h.nr_bitmaps; i++) {
		u8 head[BITMAP_HEAD];
		int rc = 0;

		if (end - at < sizeof(head)) {
			found(c, &c->r.corruptions, "the number of bitmaps", at, q->h.nr_bitmaps, i);
			return 0;
		}
		rc = image_file_read(&q->file, head, sizeof(head), at);
		if (rc == 0)
			rc = walk_bitmap(c, ld64be(head), ld32be(head + 8));
		if (rc < 0)
			return rc;
		at += MIN(ALIGN_UP(sizeof(head) + ld16be(head + 18) + ld32be(head + 20), 8ull), end - at);
	}
	return 0;
}

/* The table of snapshots and the L1 tables that it names [qcow2, "Snapshots"]. */
static int walk_snapshots(struct check *c)
{
	struct qcow2 *q = c->q;
	u64 at = q->h.snapshots_offset;

	for (u32 i = 0; i < q->h.nr_snapshots; i++) {
		u8 head[40];
		int rc = image_file_read(&q->file, head, sizeof(head), at);

		if (rc == 0)
			rc = walk_l1(c, ld64be(head), MIN(ld32be(head + 8), 4u << 20), false);
		if (rc < 0)
			return rc;
		at += 40ull + ld32be(head + 36) + ld16be(head + 12) + ld16be(head + 14);
		at = ALIGN_UP(at, 8ull);
		if (at > ALIGN_UP(q->file.size, q->cluster)) {
			found(c, &c->r.corruptions, "the table of snapshots", q->h.snapshots_offset, at,
			      q->file.size);
			return 0;
		}
	}
	if (q->h.nr_snapshots)
		count(c, q->h.snapshots_offset, at - q->h.snapshots_offset);
	return 0;
}

static int compare(struct check *c)
{
	struct qcow2 *q = c->q;

	for (u64 i = 0; i < c->nr; i++) {
		bool leak;
		u64 has, uses = c->refs[i] + has_bit(c->own, i);
		int rc = get_count(c, i, &has);

		if (rc < 0)
			return rc;
		if (has == uses)
			continue;
		leak = has > uses;
		found(c, leak ? &c->r.leaks : &c->r.corruptions, "the refcount of the cluster",
		      i << q->h.cluster_bits, has, uses);
		if (c->repair == QCOW2_REPAIR_NONE || (c->repair == QCOW2_REPAIR_LEAKS && !leak) || c->lost ||
		    uses > qcow2_refs_max(q))
			continue;
		rc = q->nr_dirty > q->max_pages / 2 ? qcow2_cache_flush(q) : 0;
		if (rc == 0)
			rc = qcow2_refs_set(q, i, uses);
		if (rc < 0)
			return rc;
		++*(leak ? &c->r.fixed_leaks : &c->r.fixed_corruptions);
	}
	return 0;
}

static int check_mark(struct check *c, u64 where, u64 entry)
{
	u64 at = entry & QCOW2_OFFSET_MASK, cluster = at >> c->q->h.cluster_bits;
	bool alone;

	if (entry & QCOW2_ZIPPED || !at || at & (c->q->cluster - 1) || cluster >= c->nr)
		return 0;
	alone = c->refs[cluster] == 1;
	if (alone == !!(entry & QCOW2_COPIED))
		return 0;
	found(c, &c->r.corruptions, "the mark of an entry", where, entry, entry ^ QCOW2_COPIED);
	fix_entry(c, where, entry ^ QCOW2_COPIED, true);
	return 0;
}

/* That entries say rightly whether theirs is the only use of the cluster. */
static int check_marks(struct check *c)
{
	struct qcow2 *q = c->q;
	int rc = 0;

	memset(c->walked, 0, c->nr / 8 + 1);
	for (u64 i = 0; rc == 0 && i < q->h.l1_entries; i++) {
		u64 l1, entry, at;

		rc = qcow2_cache_load(q, QCOW2_MAP, q->h.l1_offset + i * 8, 8, &l1);
		at = l1 & QCOW2_OFFSET_MASK;
		if (rc < 0 || !at || at & (q->cluster - 1) || at >> q->h.cluster_bits >= c->nr)
			continue;
		check_mark(c, q->h.l1_offset + i * 8, l1);
		if (has_bit(c->walked, at >> q->h.cluster_bits))
			continue;
		set_bit(c->walked, at >> q->h.cluster_bits);
		for (u64 k = 0; rc == 0 && k < BIT(q->l2_bits); k++) {
			rc = qcow2_cache_load(q, QCOW2_MAP, at + k * 8, 8, &entry);
			if (rc == 0)
				check_mark(c, at + k * 8, entry);
		}
	}
	return rc;
}

/* Compares, and makes refcounts anew where they are lost and this is wanted. */
static int check_refcounts(struct check *c)
{
	u64 before = c->r.corruptions, too_many = 0;
	struct qcow2 *q = c->q;
	int rc = walk_refcounts(c);

	if (rc == 0)
		rc = compare(c);
	if (rc < 0 || !c->lost || c->repair != QCOW2_REPAIR_ALL)
		return rc;
	for (u64 i = 0; i < c->nr; i++)
		if (c->refs[i] > qcow2_refs_max(q)) {
			c->refs[i] = (u32)qcow2_refs_max(q);
			too_many++;
		}
	rc = qcow2_rebuild_refs(q, c->refs);
	if (rc < 0)
		return rc;
	c->r.fixed_corruptions += c->r.corruptions - before - MIN(too_many, c->r.corruptions - before);
	c->r.fixed_leaks = c->r.leaks;
	return 0;
}

static int run(struct check *c)
{
	struct qcow2 *q = c->q;
	int rc = 0;

	count(c, 0, q->cluster);
	rc = walk_l1(c, q->h.l1_offset, q->h.l1_entries, true);
	if (rc == 0)
		rc = walk_snapshots(c);
	if (rc == 0)
		rc = walk_bitmaps(c);
	if (rc == 0)
		rc = check_refcounts(c);
	if (rc == 0)
		rc = check_marks(c);
	if (rc == 0 && c->repair != QCOW2_REPAIR_NONE) {
		rc = qcow2_cache_flush(q);
		if (rc == 0 && c->repair == QCOW2_REPAIR_ALL && c->r.corruptions == c->r.fixed_corruptions)
			rc = qcow2_set_features(q, q->h.incompatible & ~(QCOW2_DIRTY | QCOW2_CORRUPT),
						q->h.autoclear);
	}
	return rc;
}

int qcow2_check(struct image *im, enum qcow2_repair repair, void (*say)(void *opaque, const char *text),
		void *opaque, struct qcow2_result *ret_result, struct err *err)
{
	struct qcow2 *q = container_of(im, struct qcow2, image);
	struct check c = { .q = q, .nr = q->end, .repair = repair, .say = say, .opaque = opaque };
	u64 bytes = c.nr * sizeof(u32) + 2 * (c.nr / 8 + 1);
	int rc;

	/* Untouched pages take no memory. */
	c.refs = c.nr > BIT(40) ? MAP_FAILED
				: mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c.refs == MAP_FAILED)
		return err_set(err, -ENOMEM, "disk %s has %llu clusters, too many to check", im->path,
			       (unsigned long long)c.nr);
	c.walked = (u8 *)(c.refs + c.nr);
	c.own = c.walked + c.nr / 8 + 1;
	c.r.clusters = (im->size + q->cluster - 1) >> q->h.cluster_bits;
	pthread_mutex_lock(&q->lock);
	rc = run(&c);
	pthread_mutex_unlock(&q->lock);
	munmap(c.refs, bytes);
	if (rc < 0)
		return err_sys(err, rc, "disk %s cannot be checked to its end", im->path);
	*ret_result = c.r;
	return 0;
}
