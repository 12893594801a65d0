/* Refcounts of a qcow2 image: how many entries name each cluster of the file, in blocks that a table lists [qcow2,
 * "Host cluster management"]. Free clusters are looked for from the hint up; failing that the file grows.
 *
 * Threads: any, under the image's lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/qcow2_int.h"

#define MAX_SCAN     (1u << 20) /* clusters looked at for a free one */
#define MAX_FREED    (64u << 10)
#define MAX_OFFSET   BIT(56)
#define MAX_REFTABLE (8 * MiB)

static u64 table_entries(const struct qcow2 *q)
{
	return (u64)q->h.reftable_clusters * q->cluster / 8;
}

/* The block with a cluster's count; 0: there is none. */
static int find_block(struct qcow2 *q, u64 index, u64 *ret_block)
{
	u64 block = 0;
	int rc = 0;

	if (index < table_entries(q))
		rc = qcow2_cache_load(q, QCOW2_REFS, q->h.reftable_offset + index * 8, 8, &block);
	if (rc < 0)
		return rc;
	block &= ~511ull;
	if (block & (q->cluster - 1) || block >> q->h.cluster_bits >= q->end)
		return qcow2_broken(q, "a refcount block", block);
	*ret_block = block;
	return 0;
}

/* Where a count is: the byte, and for those of less than a byte how far up. */
static u64 count_at(const struct qcow2 *q, u64 block, u64 cluster, unsigned *ret_size, unsigned *ret_shift)
{
	u64 bit = (cluster & (BIT(q->block_bits) - 1)) << q->h.refcount_order;

	*ret_size = q->h.refcount_order < 3 ? 1 : 1u << (q->h.refcount_order - 3);
	*ret_shift = bit & 7;
	return block + bit / 8;
}

u64 qcow2_refs_max(const struct qcow2 *q)
{
	return ~0ull >> (64 - (1u << q->h.refcount_order));
}

int qcow2_refs_get(struct qcow2 *q, u64 cluster, u64 *ret_count)
{
	unsigned size, shift;
	u64 block = 0, at, val;
	int rc = find_block(q, cluster >> q->block_bits, &block);

	if (rc == 0 && !block) {
		*ret_count = 0;
		return 0;
	}
	if (rc < 0)
		return rc;
	at = count_at(q, block, cluster, &size, &shift);
	rc = qcow2_cache_load(q, QCOW2_REFS, at, size, &val);
	if (rc == 0)
		*ret_count = val >> shift & qcow2_refs_max(q);
	return rc;
}

static int store_count(struct qcow2 *q, u64 block, u64 cluster, u64 count)
{
	unsigned size, shift;
	u64 at = count_at(q, block, cluster, &size, &shift), old = 0;
	int rc = qcow2_cache_load(q, QCOW2_REFS, at, size, &old);

	if (rc < 0)
		return rc;
	return qcow2_cache_store(q, QCOW2_REFS, at, size,
				 (old & ~(qcow2_refs_max(q) << shift)) | count << shift);
}

/* Zeroes at a place in the file that a table is going to have. */
static int clear_table(struct qcow2 *q, u64 offset, u64 len)
{
	u8 *zeroes = calloc(1, q->cluster);
	int rc = zeroes ? 0 : -ENOMEM;

	qcow2_cache_forget(q, offset, len);
	for (u64 done = 0; rc == 0 && done < len; done += q->cluster)
		rc = image_file_write(&q->file, zeroes, q->cluster, offset + done);
	free(zeroes);
	return rc;
}

/* A table of twice the size at the end of the file, together with the blocks that count it. */
static int grow_table(struct qcow2 *q)
{
	u64 old = table_entries(q), old_at = q->h.reftable_offset, old_clusters = q->h.reftable_clusters;
	u64 size = old_clusters * 2, start = q->end, blocks = 0, last;
	u8 head[12];
	int rc;

	if (size * q->cluster > MAX_REFTABLE)
		return -EFBIG;
	/* The blocks that the old table has no room for come right behind the new one. */
	for (;;) {
		last = (start + size + blocks - 1) >> q->block_bits;
		if (last < old || last - old + 1 <= blocks)
			break;
		blocks = last - old + 1;
	}
	rc = clear_table(q, start << q->h.cluster_bits, (size + blocks) << q->h.cluster_bits);
	if (rc < 0)
		return rc;
	q->end = start + size + blocks;
	for (u64 i = 0; rc == 0 && i < old; i++) {
		u64 entry;

		rc = qcow2_cache_load(q, QCOW2_REFS, old_at + i * 8, 8, &entry);
		if (rc == 0 && entry)
			rc = qcow2_cache_store(q, QCOW2_REFS, (start << q->h.cluster_bits) + i * 8, 8, entry);
	}
	for (u64 i = 0; rc == 0 && i < blocks; i++)
		rc = qcow2_cache_store(q, QCOW2_REFS, (start << q->h.cluster_bits) + (old + i) * 8, 8,
				       (start + size + i) << q->h.cluster_bits);
	q->h.reftable_offset = start << q->h.cluster_bits;
	q->h.reftable_clusters = (u32)size;
	for (u64 c = start; rc == 0 && c < start + size + blocks; c++)
		rc = qcow2_refs_set(q, c, 1);
	if (rc == 0)
		rc = qcow2_cache_write(q, QCOW2_REFS);
	if (rc == 0)
		rc = image_file_sync(&q->file);
	st64be(head, q->h.reftable_offset);
	st32be(head + 8, q->h.reftable_clusters);
	if (rc == 0)
		rc = image_file_write(&q->file, head, sizeof(head), QCOW2_AT_REFTABLE);
	if (rc == 0)
		rc = image_file_sync(&q->file);
	if (rc < 0) {
		q->h.reftable_offset = old_at;
		q->h.reftable_clusters = (u32)old_clusters;
		return rc;
	}
	return qcow2_refs_drop(q, old_at >> q->h.cluster_bits, old_clusters);
}

/* A block for the counts with that index, at the end of the file. It is whole on the disk before the table names it. */
static int add_block(struct qcow2 *q, u64 index, u64 *ret_block)
{
	u64 at, own, own_block;
	int rc = 0;

	while (rc == 0 && index >= table_entries(q))
		rc = grow_table(q);
	/* The table's growth may have brought it. */
	if (rc == 0)
		rc = find_block(q, index, ret_block);
	if (rc < 0 || *ret_block)
		return rc;
	for (;;) {
		own = q->end >> q->block_bits;
		if (own == index)
			break;
		rc = find_block(q, own, &own_block);
		if (rc == 0 && own_block)
			break;
		if (rc == 0)
			rc = add_block(q, own, &own_block); /* it will count itself */
		if (rc < 0)
			return rc;
	}
	at = q->end << q->h.cluster_bits;
	rc = clear_table(q, at, q->cluster);
	if (rc < 0)
		return rc;
	q->end++;
	rc = own == index ? store_count(q, at, at >> q->h.cluster_bits, 1)
			  : store_count(q, own_block, at >> q->h.cluster_bits, 1);
	if (rc == 0)
		rc = qcow2_cache_write(q, QCOW2_REFS);
	if (rc == 0)
		rc = image_file_sync(&q->file);
	if (rc == 0)
		rc = qcow2_cache_store(q, QCOW2_REFS, q->h.reftable_offset + index * 8, 8, at);
	*ret_block = at;
	return rc;
}

static int have_block(struct qcow2 *q, u64 cluster)
{
	u64 block = 0;
	int rc = find_block(q, cluster >> q->block_bits, &block);

	return rc == 0 && !block ? add_block(q, cluster >> q->block_bits, &block) : rc;
}

int qcow2_refs_set(struct qcow2 *q, u64 cluster, u64 count)
{
	u64 block = 0;
	int rc = have_block(q, cluster);

	if (rc == 0)
		rc = find_block(q, cluster >> q->block_bits, &block);
	return rc < 0 ? rc : store_count(q, block, cluster, count);
}

bool qcow2_refs_is_meta(const struct qcow2 *q, u64 cluster)
{
	u64 at = cluster << q->h.cluster_bits;

	return !cluster || (at >= q->h.l1_offset && at < q->h.l1_offset + (u64)q->h.l1_entries * 8) ||
	       (at >= q->h.reftable_offset &&
		at < q->h.reftable_offset + q->h.reftable_clusters * q->cluster);
}

int qcow2_refs_alloc(struct qcow2 *q, u64 want, u64 *ret_cluster, u64 *ret_got)
{
	u64 first = q->hint, n = 0, count = 0;
	unsigned seen = 0;
	int rc = 0;

	for (;; first++) {
		if (++seen > MAX_SCAN && first < q->end)
			first = q->end;
		if (first >= MAX_OFFSET >> q->h.cluster_bits || seen > 2 * MAX_SCAN)
			return -EFBIG;
		q->end = MAX(q->end, first);
		rc = qcow2_refs_get(q, first, &count);
		/* A new block may take just this cluster. */
		if (rc == 0 && !count)
			rc = have_block(q, first);
		if (rc == 0 && !count)
			rc = qcow2_refs_get(q, first, &count);
		if (rc < 0)
			return rc;
		if (!count)
			break;
	}
	rc = qcow2_refs_set(q, first, 1);
	if (rc < 0)
		return rc;
	q->end = MAX(q->end, first + 1);
	for (n = 1; n < want && n < BIT(q->block_bits); n++) {
		rc = qcow2_refs_get(q, first + n, &count);
		if (rc < 0 || count || (first + n) >> q->block_bits != first >> q->block_bits)
			break;
		rc = qcow2_refs_set(q, first + n, 1);
		if (rc < 0)
			break;
		q->end = MAX(q->end, first + n + 1);
	}
	q->hint = first + n;
	for (u64 i = 0; i < n; i++)
		if (qcow2_refs_is_meta(q, first + i))
			return qcow2_broken(q, "the refcount of metadata, which is 0, at",
					    (first + i) << q->h.cluster_bits);
	*ret_cluster = first;
	*ret_got = n;
	return 0;
}

/* One down; *ret_free: that was the last. */
static int decrement(struct qcow2 *q, u64 cluster, bool *ret_free)
{
	u64 count = 0;
	int rc = qcow2_refs_get(q, cluster, &count);

	*ret_free = false;
	if (rc < 0)
		return rc;
	if (!count)
		return qcow2_broken(q, "the refcount, which is 0, of the cluster in use at",
				    cluster << q->h.cluster_bits);
	rc = qcow2_refs_set(q, cluster, count - 1);
	*ret_free = rc == 0 && count == 1;
	return rc;
}

void qcow2_refs_undo(struct qcow2 *q, u64 cluster, u64 nr)
{
	bool last;

	for (u64 i = 0; i < nr; i++)
		if (decrement(q, cluster + i, &last) == 0 && last)
			q->hint = MIN(q->hint, cluster + i);
}

int qcow2_refs_drop(struct qcow2 *q, u64 cluster, u64 nr)
{
	for (u64 i = 0; i < nr; i++) {
		if (q->nr_freed == q->max_freed) {
			unsigned max = MAX(q->max_freed * 2, 64u);
			u64 *more = realloc(q->freed, max * sizeof(*more));

			if (!more) /* a leak is harmless */
				return 0;
			q->freed = more;
			q->max_freed = max;
		}
		q->freed[q->nr_freed++] = cluster + i;
	}
	return 0;
}

static bool in_flight(const struct qcow2 *q, u64 cluster)
{
	u64 at = cluster << q->h.cluster_bits;

	for (const struct qcow2_flight *f = q->flights; f; f = f->next)
		if (!__atomic_load_n(&f->left, __ATOMIC_ACQUIRE) && at < f->host + f->host_len &&
		    f->host < at + q->cluster)
			return true;
	return false;
}

void qcow2_refs_settle(struct qcow2 *q)
{
	u64 hole = 0, hole_len = 0;
	unsigned kept = 0, nr = q->nr_freed;

	if (!nr)
		return;
	/* What this adds itself, by the growth of a table, comes behind nr. */
	for (unsigned i = 0; i < nr; i++) {
		u64 c = q->freed[i];
		bool last;

		if (in_flight(q, c)) {
			q->freed[kept++] = c;
			continue;
		}
		if (decrement(q, c, &last) < 0 || !last)
			continue;
		q->hint = MIN(q->hint, c);
		if (hole_len && c == hole + hole_len) {
			hole_len++;
			continue;
		}
		if (hole_len)
			image_file_punch(&q->file, hole << q->h.cluster_bits, hole_len << q->h.cluster_bits);
		hole = c;
		hole_len = 1;
	}
	if (hole_len)
		image_file_punch(&q->file, hole << q->h.cluster_bits, hole_len << q->h.cluster_bits);
	memmove(q->freed + kept, q->freed + nr, (q->nr_freed - nr) * sizeof(*q->freed));
	q->nr_freed = kept + (q->nr_freed - nr);
}
