/* qcow2 images [qcow2], versions 2 and 3. See qcow2_int.h for how they work; threads: see image.h. */
#pragma once

#include "host/image.h"

#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MAX_DEPTH        64 /* of backing files */

/* Takes the file over, unless it fails. */
int qcow2_open(const struct image_file *file, const struct image_conf *conf, struct image **ret_image,
	       struct err *err);

struct qcow2_create_conf {
	const char *path;
	u64 size;         /* bytes, a multiple of IMAGE_SECTOR */
	unsigned version; /* 2 or 3 */
	unsigned cluster_bits;
	bool zstd;                                /* for compressed clusters; version 3 */
	bool replace;                             /* a file that is there */
	enum image_file_space space;              /* not with a base */
	void (*progress)(void *opaque, u64 done); /* bytes of size; NULL: nobody asks */
	void *opaque;
	const char *backing, *backing_format; /* NULL: none; not opened here */
};

/* Writes an empty image. */
int qcow2_create(const struct qcow2_create_conf *conf, struct err *err);

struct qcow2_info {
	unsigned version, cluster_bits, refcount_bits, snapshots, bitmaps; /* bitmaps: valid ones */
	bool zstd, dirty, corrupt, lazy_refcounts;
	char backing[1024], backing_format[32]; /* "": none */
	u64 size;
};

/* Of an open file. */
int qcow2_info(const struct image_file *file, struct qcow2_info *ret_info, struct err *err);

/* One whole cluster of a new image, compressed; -EOPNOTSUPP where it does not get smaller. One thread. */
int qcow2_io_write_compressed(struct image *im, const void *data, u64 offset);

enum qcow2_repair { QCOW2_REPAIR_NONE, QCOW2_REPAIR_LEAKS, QCOW2_REPAIR_ALL };

struct qcow2_result {
	u64 corruptions, leaks; /* found; each of them a cluster or an entry */
	u64 fixed_corruptions, fixed_leaks;
	u64 clusters, allocated; /* of the disk */
};

/* say: gets each finding as a sentence; the first hundred of them. */
int qcow2_check(struct image *im, enum qcow2_repair repair, void (*say)(void *opaque, const char *text),
		void *opaque, struct qcow2_result *ret_result, struct err *err);
