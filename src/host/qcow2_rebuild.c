/* New refcounts for a qcow2 image that has lost its own: a table and blocks behind everything that is in the file. The header
 * names them only when they are on stable storage; whatever stops the host before leaves the image as it was. What the old
 * ones took is free afterwards.
 *
 * Threads: one, under the image's lock; nobody else uses the image.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/qcow2_int.h"

#define MAX_REFTABLE (8 * MiB)

struct layout {
	u64 start, table, blocks; /* clusters; the blocks follow the table */
};

/* Room for all clusters, itself included. */
static struct layout lay_out(const struct qcow2 *q)
{
	struct layout l = { .start = q->end };

	for (;;) {
		u64 blocks = (l.start + l.table + l.blocks + BIT(q->block_bits) - 1) >> q->block_bits;
		u64 table = (blocks * 8 + q->cluster - 1) >> q->h.cluster_bits;

		if (blocks == l.blocks && table == l.table)
			return l;
		l.blocks = blocks;
		l.table = table;
	}
}

static void put_count(u8 *block, unsigned order, u64 index, u64 count)
{
	u64 at = index << order;

	switch (order) {
	case 6: st64be(block + at / 8, count); break;
	case 5: st32be(block + at / 8, (u32)count); break;
	case 4: st16be(block + at / 8, (u16)count); break;
	default: block[at / 8] |= (u8)(count << (at & 7)); break;
	}
}

static int put_block(struct qcow2 *q, const struct layout *l, const u32 *counts, u64 nr, u8 *buf)
{
	u64 first = nr << q->block_bits, end = l->start + l->table + l->blocks;

	memset(buf, 0, q->cluster);
	for (u64 i = 0; i < BIT(q->block_bits) && first + i < end; i++)
		put_count(buf, q->h.refcount_order, i, first + i < q->end ? counts[first + i] : 1);
	return image_file_write(&q->file, buf, q->cluster, (l->start + l->table + nr) << q->h.cluster_bits);
}

static int put_table(struct qcow2 *q, const struct layout *l, u8 *buf)
{
	u64 per = q->cluster / 8;
	int rc = 0;

	for (u64 t = 0; rc == 0 && t < l->table; t++) {
		memset(buf, 0, q->cluster);
		for (u64 i = 0; i < per && t * per + i < l->blocks; i++)
			st64be(buf + i * 8, (l->start + l->table + t * per + i) << q->h.cluster_bits);
		rc = image_file_write(&q->file, buf, q->cluster, (l->start + t) << q->h.cluster_bits);
	}
	return rc;
}

int qcow2_rebuild_refs(struct qcow2 *q, const u32 *counts)
{
	struct layout l = lay_out(q);
	u8 *buf = malloc(q->cluster), head[12];
	int rc = buf ? 0 : -ENOMEM;

	if (rc == 0 && l.table * q->cluster > MAX_REFTABLE)
		rc = -EFBIG;
	for (u64 i = 0; rc == 0 && i < l.blocks; i++)
		rc = put_block(q, &l, counts, i, buf);
	if (rc == 0)
		rc = put_table(q, &l, buf);
	free(buf);
	if (rc == 0)
		rc = image_file_sync(&q->file);
	st64be(head, l.start << q->h.cluster_bits);
	st32be(head + 8, (u32)l.table);
	if (rc == 0)
		rc = image_file_write(&q->file, head, sizeof(head), QCOW2_AT_REFTABLE);
	if (rc == 0)
		rc = image_file_sync(&q->file);
	if (rc < 0)
		return rc;
	q->h.reftable_offset = l.start << q->h.cluster_bits;
	q->h.reftable_clusters = (u32)l.table;
	q->end = l.start + l.table + l.blocks;
	return 0;
}
