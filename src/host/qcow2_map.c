/* Which cluster of a qcow2 image's file holds which one of the disk: L1 and L2 tables [qcow2, "Cluster mapping"].
 *
 * Threads: any, under the image's lock.
 */
#include <errno.h>
#include <stdlib.h>

#include "host/qcow2_int.h"

static int l1_get(struct qcow2 *q, u64 cluster, u64 *ret_entry)
{
	u64 index = cluster >> q->l2_bits, at;
	int rc;

	if (index >= q->h.l1_entries)
		return qcow2_broken(q, "the size of the L1 table", q->h.l1_entries);
	rc = qcow2_cache_load(q, QCOW2_MAP, q->h.l1_offset + index * 8, 8, ret_entry);
	if (rc < 0)
		return rc;
	at = *ret_entry & QCOW2_OFFSET_MASK;
	if (at & (q->cluster - 1) || (at && qcow2_refs_is_meta(q, at >> q->h.cluster_bits)) ||
	    at >> q->h.cluster_bits >= q->end)
		return qcow2_broken(q, "an L1 entry", *ret_entry);
	return 0;
}

int qcow2_map_get(struct qcow2 *q, u64 cluster, u64 *ret_entry)
{
	u64 l1 = 0, at, entry = 0, zipped_at, zipped_len;
	int rc = l1_get(q, cluster, &l1);

	if (rc < 0)
		return rc;
	at = l1 & QCOW2_OFFSET_MASK;
	if (!at) {
		*ret_entry = 0;
		return 0;
	}
	rc = qcow2_cache_load(q, QCOW2_MAP, at + (cluster & (BIT(q->l2_bits) - 1)) * 8, 8, &entry);
	if (rc < 0)
		return rc;
	if (entry & QCOW2_ZIPPED) {
		qcow2_map_zipped(q, entry, &zipped_at, &zipped_len);
		if (zipped_at >> q->h.cluster_bits >= q->end || !zipped_at)
			return qcow2_broken(q, "an L2 entry", entry);
	} else {
		if (q->h.version < 3 && entry & QCOW2_ZERO)
			return qcow2_broken(q, "an L2 entry", entry);
		at = entry & QCOW2_OFFSET_MASK;
		if (at & (q->cluster - 1) || at >> q->h.cluster_bits >= q->end ||
		    (at && qcow2_refs_is_meta(q, at >> q->h.cluster_bits)))
			return qcow2_broken(q, "an L2 entry", entry);
	}
	*ret_entry = entry;
	return 0;
}

bool qcow2_map_cached(struct qcow2 *q, u64 cluster)
{
	u64 index = cluster >> q->l2_bits, l1;

	if (index >= q->h.l1_entries || !qcow2_cache_has(q, q->h.l1_offset + index * 8) ||
	    qcow2_cache_load(q, QCOW2_MAP, q->h.l1_offset + index * 8, 8, &l1) < 0)
		return false;
	l1 &= QCOW2_OFFSET_MASK;
	return !l1 || qcow2_cache_has(q, l1 + (cluster & (BIT(q->l2_bits) - 1)) * 8);
}

/* The L2 table of a cluster, for writing: made, or copied where others use it too. */
static int own_table(struct qcow2 *q, u64 cluster, u64 *ret_table)
{
	u64 l1 = 0, old, new, got;
	int rc = l1_get(q, cluster, &l1);
	u8 *table;

	if (rc < 0)
		return rc;
	old = l1 & QCOW2_OFFSET_MASK;
	*ret_table = old;
	if (l1 & QCOW2_COPIED && old)
		return 0;
	rc = qcow2_refs_alloc(q, 1, &new, &got);
	if (rc < 0)
		return rc;
	table = calloc(1, q->cluster);
	if (!table)
		rc = -ENOMEM;
	for (u64 i = 0; rc == 0 && old && i < q->cluster; i += 8) {
		u64 entry;

		rc = qcow2_cache_load(q, QCOW2_MAP, old + i, 8, &entry);
		if (rc == 0)
			st64be(table + i, entry);
	}
	qcow2_cache_forget(q, new << q->h.cluster_bits, q->cluster);
	if (rc == 0)
		rc = image_file_write(&q->file, table, q->cluster, new << q->h.cluster_bits);
	free(table);
	if (rc == 0)
		rc = qcow2_cache_store(q, QCOW2_MAP, q->h.l1_offset + (cluster >> q->l2_bits) * 8, 8,
				       new << q->h.cluster_bits | QCOW2_COPIED);
	if (rc < 0) {
		qcow2_refs_undo(q, new, 1);
		return rc;
	}
	*ret_table = new << q->h.cluster_bits;
	return old ? qcow2_refs_drop(q, old >> q->h.cluster_bits, 1) : 0;
}

int qcow2_map_set(struct qcow2 *q, u64 cluster, u64 entry)
{
	u64 table;
	int rc = own_table(q, cluster, &table);

	if (rc < 0)
		return rc;
	return qcow2_cache_store(q, QCOW2_MAP, table + (cluster & (BIT(q->l2_bits) - 1)) * 8, 8, entry);
}

void qcow2_map_zipped(const struct qcow2 *q, u64 entry, u64 *ret_offset, u64 *ret_len)
{
	unsigned x = 62 - (q->h.cluster_bits - 8);
	u64 sectors = (entry & (QCOW2_ZIPPED - 1)) >> x;

	*ret_offset = entry & (BIT(x) - 1);
	*ret_len = (sectors + 1) * IMAGE_SECTOR - (*ret_offset & (IMAGE_SECTOR - 1));
}

int qcow2_map_drop(struct qcow2 *q, u64 entry)
{
	u64 at = entry & QCOW2_OFFSET_MASK, len = 1;

	if (entry & QCOW2_ZIPPED)
		qcow2_map_zipped(q, entry, &at, &len);
	else if (!at)
		return 0;
	return qcow2_refs_drop(q, at >> q->h.cluster_bits,
			       ((at + len - 1) >> q->h.cluster_bits) - (at >> q->h.cluster_bits) + 1);
}
