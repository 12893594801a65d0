/* What the files of the qcow2 format share.
 *
 * Metadata (L1, L2, refcount table and blocks) is read and changed through a cache of pages of the file, which is bounded
 * and written in one order, so that whatever stops the host leaves nothing worse than clusters that nobody uses:
 *
 *	1. refcounts that have grown, and the data they are for
 *	2. a barrier
 *	3. L2 and L1 entries
 *	4. a barrier; only now refcounts of what these no longer name go down, and its space may be used again
 *
 * A table that is new is on the disk with its first contents, in which it says the same as before, before step 3.
 *
 * One lock guards metadata. Data is transferred without it: each transfer is a *flight*, which keeps what it touches from
 * being used anew, and, where it is going to change the mapping of clusters, other writers of those clusters away.
 *
 * Nothing in an image is believed: each entry is checked where it is used. What cannot be right marks the image as corrupt;
 * it is not written any more.
 */
#pragma once

#include <pthread.h>

#include "base/bits.h"
#include "host/qcow2.h"

#define QCOW2_DIRTY       BIT(0) /* incompatible features */
#define QCOW2_CORRUPT     BIT(1)
#define QCOW2_DATA_FILE   BIT(2)
#define QCOW2_COMPRESSION BIT(3)
#define QCOW2_EXTENDED_L2 BIT(4)
#define QCOW2_LAZY        BIT(0) /* compatible feature */
#define QCOW2_BITMAPS     BIT(0) /* autoclear feature */

#define QCOW2_COPIED      BIT(63) /* refcount is 1 */
#define QCOW2_ZIPPED      BIT(62)
#define QCOW2_ZERO        BIT(0)
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull /* bits 9 to 55 */

#define QCOW2_HEADER_BYTES 112 /* that are known, version 3 with compression type */
#define QCOW2_AT_FEATURES  72
#define QCOW2_AT_REFTABLE  48

struct qcow2_header {
	unsigned version, cluster_bits, refcount_order, header_length;
	u64 size, incompatible, compatible, autoclear;
	u64 l1_offset, reftable_offset, snapshots_offset, backing_offset;
	u32 l1_entries, reftable_clusters, nr_snapshots, backing_len, nr_bitmaps;
	u64 bitmaps_offset, bitmaps_len; /* the directory */
	bool zstd;
	char backing[1024], backing_format[32];
};

enum qcow2_kind { QCOW2_REFS, QCOW2_MAP };

struct qcow2_page {
	u64 offset;
	enum qcow2_kind kind;
	bool dirty;
	u8 *data;
	struct qcow2_page *chain;         /* of its hash */
	struct qcow2_page *older, *newer; /* by use */
};

struct qcow2_flight {
	struct qcow2_flight *next;
	bool left;          /* atomic: it is over, and is taken from the list by who finds it there */
	u64 host, host_len; /* in the file */
	u64 first, last;    /* clusters of the disk whose mapping is going to change; first > last: none */
};

struct qcow2 {
	struct image image;
	struct image_file file;
	struct image *backing;
	struct qcow2_header h;
	u64 cluster;                  /* bytes */
	unsigned l2_bits, block_bits; /* log2 of entries */

	pthread_mutex_t lock; /* all below */
	pthread_cond_t landed;
	struct qcow2_flight *flights;
	bool broken;

	struct qcow2_page **hash, *newest, *oldest;
	unsigned page_bits, nr_pages, max_pages, nr_dirty;

	u64 end;    /* clusters of the file; what lies behind was never used and reads zero */
	u64 hint;   /* no cluster below is free */
	u64 *freed; /* clusters whose refcount is to go down */
	unsigned nr_freed, max_freed;
	u64 zip_at; /* where the next compressed cluster goes, 0: a new one */
};

int qcow2_header_read(const struct image_file *file, struct qcow2_header *ret, struct err *err);
/* Says it once, marks the image; returns -EIO. */
int qcow2_broken(struct qcow2 *q, const char *what, u64 value);
int qcow2_set_features(struct qcow2 *q, u64 incompatible, u64 autoclear);

/* The lock is held for all that follows, down to the next heading. size: 1 to 8 bytes. */
int qcow2_cache_load(struct qcow2 *q, enum qcow2_kind kind, u64 offset, unsigned size, u64 *ret_val);
bool qcow2_cache_has(const struct qcow2 *q, u64 offset);
int qcow2_cache_store(struct qcow2 *q, enum qcow2_kind kind, u64 offset, unsigned size, u64 val);
/* What is cached of a place in the file that is going to be written directly. */
void qcow2_cache_forget(struct qcow2 *q, u64 offset, u64 len);
int qcow2_cache_write(struct qcow2 *q, enum qcow2_kind kind); /* to the file, without a barrier */
int qcow2_cache_flush(struct qcow2 *q);                       /* all four steps */
void qcow2_cache_fini(struct qcow2 *q);

int qcow2_refs_get(struct qcow2 *q, u64 cluster, u64 *ret_count);
int qcow2_refs_set(struct qcow2 *q, u64 cluster, u64 count);
/* 1 to `want` clusters in a row, with a refcount of 1. */
int qcow2_refs_alloc(struct qcow2 *q, u64 want, u64 *ret_cluster, u64 *ret_got);
/* Never named by an entry: usable at once. */
void qcow2_refs_undo(struct qcow2 *q, u64 cluster, u64 nr);
/* No longer named by an entry: refcount goes down with the next flush. */
int qcow2_refs_drop(struct qcow2 *q, u64 cluster, u64 nr);
void qcow2_refs_settle(struct qcow2 *q);   /* step 4 */
u64 qcow2_refs_max(const struct qcow2 *q); /* the highest count there is room for */
bool qcow2_refs_is_meta(const struct qcow2 *q, u64 cluster);

/* A new table and new blocks at the end of the file, with these counts of all its clusters, none above qcow2_refs_max().
 * What is cached of the old ones must not be dirty. */
int qcow2_rebuild_refs(struct qcow2 *q, const u32 *counts);

/* Gives every cluster of an empty image a place; no lock, one thread. */
int qcow2_prealloc_all(struct qcow2 *q, const struct qcow2_create_conf *conf);

/* An entry of the disk's cluster; 0 where there is no L2 table. */
int qcow2_map_get(struct qcow2 *q, u64 cluster, u64 *ret_entry);
int qcow2_map_set(struct qcow2 *q, u64 cluster, u64 entry);
/* qcow2_map_get() would not read the file. */
bool qcow2_map_cached(struct qcow2 *q, u64 cluster);
/* The place of a compressed cluster. */
void qcow2_map_zipped(const struct qcow2 *q, u64 entry, u64 *ret_offset, u64 *ret_len);
/* What an entry names goes. */
int qcow2_map_drop(struct qcow2 *q, u64 entry);

/* ---- no lock ---- */

int qcow2_zip_read(const struct qcow2 *q, u64 entry, u8 *ret_cluster);
/* Into out[], of a cluster's size; the length, 0: it does not get smaller. */
s64 qcow2_zip_pack(const struct qcow2 *q, const u8 *data, u8 *out);

extern const struct image_ops qcow2_io_ops;
void qcow2_io_close(struct image *im);
