/* qcow2 images: the header, opening, making [qcow2, "Header"].
 *
 * The dirty bit says that refcounts may be wrong: such an image is repaired before it is written. One with unknown
 * incompatible features, encryption, an external data file or subclusters is refused. Bitmaps are not kept up: their
 * autoclear bit goes, so that nobody believes them.
 *
 * Backing files are opened only where conf->backing says so, read-only and locked: an image may name any file of the
 * host. Names are files, relative to the image's folder. Without a format in the image, a base that looks like another
 * format is refused, since a guest may have written what it looks like.
 *
 * Threads: one per image.
 */
#include "host/qcow2.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "host/qcow2_int.h"

#define MAGIC          0x514649fbu
#define V2_LENGTH      72
#define V3_LENGTH      104
#define MAX_L1         (32 * MiB)
#define MAX_REFTABLE   (8 * MiB)
#define MAX_SNAPSHOTS  65536
#define EXT_END        0
#define EXT_FORMAT     0xe2792acau
#define EXT_FEATURES   0x6803f857u
#define EXT_BITMAPS    0x23852875u
#define BITMAPS_LEN    24
#define FEATURE_ROW    48
#define MAX_HEAD       (2 * MiB)
#define REFCOUNT_ORDER 4

#define KNOWN (QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_COMPRESSION)

/* ---- the header ---- */

static int bad(const struct image_file *file, struct err *err, const char *what, u64 value)
{
	return err_set(err, -EINVAL, "disk %s is damaged: its header gives %s as %llu; use a copy",
		       file->path, what, (unsigned long long)value);
}

/* A bit's name by the image's own table, or "bit N". */
static void feature_name(const u8 *table, u64 len, unsigned bit, char *ret, size_t size)
{
	snprintf(ret, size, "bit %u", bit);
	for (u64 i = 0; i + FEATURE_ROW <= len; i += FEATURE_ROW)
		if (table[i] == 0 && table[i + 1] == bit && table[i + 2])
			snprintf(ret, size, "'%.46s' (bit %u)", (const char *)table + i + 2, bit);
}

static int check_features(const struct image_file *file, const struct qcow2_header *h, const u8 *names,
			  u64 names_len, struct err *err)
{
	u64 unknown = h->incompatible & ~(KNOWN | QCOW2_DATA_FILE | QCOW2_EXTENDED_L2);
	char name[80];

	if (h->incompatible & QCOW2_DATA_FILE)
		return err_set(err, -ENOTSUP,
			       "disk %s keeps its data in another file, which bothy cannot read; convert it",
			       file->path);
	if (h->incompatible & QCOW2_EXTENDED_L2)
		return err_set(err, -ENOTSUP,
			       "disk %s has subclusters (extended_l2), which bothy cannot read; convert it",
			       file->path);
	if (!unknown)
		return 0;
	feature_name(names, names_len, (unsigned)__builtin_ctzll(unknown), name, sizeof(name));
	return err_set(err, -ENOTSUP,
		       "disk %s needs the feature %s, which this version does not know; convert it",
		       file->path, name);
}

static int read_extensions(const struct image_file *file, const u8 *head, u64 len, struct qcow2_header *h,
			   struct err *err)
{
	u64 at = h->header_length, end = h->backing_offset ? h->backing_offset : len;
	const u8 *names = NULL;
	u64 names_len = 0;

	while (at + 8 <= end) {
		u32 type = ld32be(head + at), size = ld32be(head + at + 4);

		if (type == EXT_END)
			break;
		at += 8;
		if (size > end - at)
			return bad(file, err, "the length of an extension", size);
		if (type == EXT_FORMAT)
			snprintf(h->backing_format, sizeof(h->backing_format), "%.*s", (int)MIN(size, 31u),
				 (const char *)head + at);
		if (type == EXT_BITMAPS && size >= BITMAPS_LEN) {
			h->nr_bitmaps = ld32be(head + at);
			h->bitmaps_len = ld64be(head + at + 8);
			h->bitmaps_offset = ld64be(head + at + 16);
		}
		if (type == EXT_FEATURES) {
			names = head + at;
			names_len = size;
		}
		at = MIN(ALIGN_UP(at + size, 8ull), end);
	}
	return check_features(file, h, names, names_len, err);
}

static int cut_off(const struct image_file *file, struct err *err)
{
	return err_set(err, -EINVAL, "disk %s is cut off: its file has only %llu bytes; use a copy",
		       file->path, (unsigned long long)file->size);
}

static int check_layout(const struct image_file *file, const struct qcow2_header *h, struct err *err)
{
	u64 cluster = BIT(h->cluster_bits), l1_reach = (u64)h->l1_entries << (2 * h->cluster_bits - 3);

	if (h->size % IMAGE_SECTOR || h->size > BIT(62))
		return bad(file, err, "the disk's size", h->size);
	if (h->refcount_order > 6)
		return bad(file, err, "the width of refcounts", h->refcount_order);
	if (h->l1_entries > MAX_L1 / 8 || l1_reach < h->size)
		return bad(file, err, "the length of the L1 table", h->l1_entries);
	if (h->l1_offset & (cluster - 1) || (h->l1_entries && h->l1_offset < cluster))
		return bad(file, err, "the place of the L1 table", h->l1_offset);
	if (h->nr_snapshots > MAX_SNAPSHOTS || (h->nr_snapshots && h->snapshots_offset & (cluster - 1)))
		return bad(file, err, "the table of snapshots", h->nr_snapshots);
	if (h->l1_offset > file->size || file->size - h->l1_offset < (u64)h->l1_entries * 8)
		return cut_off(file, err);
	return 0;
}

/* All but a repair needs it. */
static int check_reftable(const struct image_file *file, const struct qcow2_header *h, struct err *err)
{
	u64 cluster = BIT(h->cluster_bits);

	if (!h->reftable_clusters || h->reftable_clusters * cluster > MAX_REFTABLE)
		return bad(file, err, "the length of the refcount table", h->reftable_clusters);
	if (h->reftable_offset & (cluster - 1) || h->reftable_offset < cluster)
		return bad(file, err, "the place of the refcount table", h->reftable_offset);
	return h->reftable_offset >= file->size ? cut_off(file, err) : 0;
}

static int parse(const struct image_file *file, const u8 *head, u64 len, struct qcow2_header *h,
		 struct err *err)
{
	u32 crypt = ld32be(head + 32);

	h->version = ld32be(head + 4);
	if (ld32be(head) != MAGIC)
		return err_set(err, -EINVAL,
			       "disk %s is no qcow2 image; give format=raw if its bytes are the disk",
			       file->path);
	if (h->version != 2 && h->version != 3)
		return err_set(
			err, -ENOTSUP,
			"disk %s is of version %u of the qcow2 format; bothy knows 2 and 3, convert it",
			file->path, h->version);
	h->cluster_bits = ld32be(head + 20);
	if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
		return bad(file, err, "the size of clusters, in bits,", h->cluster_bits);
	if (crypt)
		return err_set(err, -ENOTSUP, "disk %s is encrypted, which bothy cannot read; convert it",
			       file->path);
	h->backing_offset = ld64be(head + 8);
	h->backing_len = ld32be(head + 16);
	h->size = ld64be(head + 24);
	h->l1_entries = ld32be(head + 36);
	h->l1_offset = ld64be(head + 40);
	h->reftable_offset = ld64be(head + QCOW2_AT_REFTABLE);
	h->reftable_clusters = ld32be(head + 56);
	h->nr_snapshots = ld32be(head + 60);
	h->snapshots_offset = ld64be(head + 64);
	h->refcount_order = REFCOUNT_ORDER;
	h->header_length = V2_LENGTH;
	if (h->version >= 3) {
		h->incompatible = ld64be(head + QCOW2_AT_FEATURES);
		h->compatible = ld64be(head + 80);
		h->autoclear = ld64be(head + 88);
		h->refcount_order = ld32be(head + 96);
		h->header_length = ld32be(head + 100);
		if (h->header_length < V3_LENGTH || h->header_length > BIT(h->cluster_bits) ||
		    h->header_length % 8 || h->header_length > len)
			return bad(file, err, "its own length", h->header_length);
	}
	if (h->incompatible & QCOW2_COMPRESSION) {
		u8 type = h->header_length > V3_LENGTH ? head[V3_LENGTH] : 0xff;

		if (type > 1)
			return bad(file, err, "the type of compression", type);
		h->zstd = type == 1;
	}
	if (h->backing_offset) {
		if (h->backing_len > sizeof(h->backing) - 1 || h->backing_offset < h->header_length ||
		    h->backing_offset > len || h->backing_len > len - h->backing_offset)
			return bad(file, err, "the length of the backing file's name", h->backing_len);
		memcpy(h->backing, head + h->backing_offset, h->backing_len);
	}
	return read_extensions(file, head, MIN(len, BIT(h->cluster_bits)), h, err)
		       ?: check_layout(file, h, err);
}

int qcow2_header_read(const struct image_file *file, struct qcow2_header *ret, struct err *err)
{
	u64 len = MIN(file->size, MAX_HEAD);
	struct qcow2_header h = { 0 };
	u8 *head = calloc(1, MAX(len, (u64)QCOW2_HEADER_BYTES));
	int rc;

	if (!head)
		return err_set(err, -ENOMEM, "no memory for disk %s", file->path);
	rc = image_file_read(file, head, len, 0);
	if (rc < 0)
		err_sys(err, rc, "disk %s cannot be read", file->path);
	else
		rc = parse(file, head, len, &h, err);
	free(head);
	if (rc == 0)
		*ret = h;
	return rc;
}

int qcow2_info(const struct image_file *file, struct qcow2_info *ret_info, struct err *err)
{
	struct qcow2_header h = { 0 };
	int rc = qcow2_header_read(file, &h, err);

	if (rc < 0)
		return rc;
	*ret_info = (struct qcow2_info){
		.version = h.version,
		.cluster_bits = h.cluster_bits,
		.refcount_bits = 1u << h.refcount_order,
		.snapshots = h.nr_snapshots,
		.bitmaps = h.autoclear & QCOW2_BITMAPS ? h.nr_bitmaps : 0,
		.zstd = h.zstd,
		.dirty = h.incompatible & QCOW2_DIRTY,
		.corrupt = h.incompatible & QCOW2_CORRUPT,
		.lazy_refcounts = h.compatible & QCOW2_LAZY,
		.size = h.size,
	};
	memcpy(ret_info->backing, h.backing, sizeof(h.backing));
	memcpy(ret_info->backing_format, h.backing_format, sizeof(h.backing_format));
	return 0;
}

int qcow2_set_features(struct qcow2 *q, u64 incompatible, u64 autoclear)
{
	u8 bits[24];
	int rc;

	if (q->h.version < 3 || (q->h.incompatible == incompatible && q->h.autoclear == autoclear))
		return 0;
	st64be(bits, incompatible);
	st64be(bits + 8, q->h.compatible);
	st64be(bits + 16, autoclear);
	rc = image_file_write(&q->file, bits, sizeof(bits), QCOW2_AT_FEATURES);
	if (rc == 0)
		rc = image_file_sync(&q->file);
	if (rc < 0)
		return rc;
	q->h.incompatible = incompatible;
	q->h.autoclear = autoclear;
	return 0;
}

int qcow2_broken(struct qcow2 *q, const char *what, u64 value)
{
	if (q->broken)
		return -EIO;
	q->broken = true;
	log_error(
		"disk %s is damaged: %s (%#llx) cannot be right; it is not written any more, see bothy image check",
		q->image.path, what, (unsigned long long)value);
	if (!q->image.read_only)
		qcow2_set_features(q, q->h.incompatible | QCOW2_CORRUPT, q->h.autoclear);
	return -EIO;
}

/* ---- opening ---- */

/* The name in the image, as a path of this process; free(). */
static char *backing_path(const struct qcow2 *q, struct err *err)
{
	const char *name = q->h.backing;
	char *copy, *path = NULL;

	if (!strncmp(name, "file:", 5))
		name += 5;
	else if (!strncmp(name, "json:", 5) || strstr(name, "://")) {
		err_set(err, -ENOTSUP,
			"disk %s is based on '%.200s', which is no file; bothy reads files only",
			q->image.path, name);
		return NULL;
	}
	copy = strdup(q->image.path);
	if (copy && (name[0] == '/' || !strchr(copy, '/')))
		path = strdup(name);
	else if (copy && asprintf(&path, "%s/%s", dirname(copy), name) < 0)
		path = NULL;
	free(copy);
	if (!path)
		err_set(err, -ENOMEM, "no memory for disk %s", q->image.path);
	return path;
}

static int open_backing(struct qcow2 *q, const struct image_conf *conf, struct err *err)
{
	const struct image_chain chain = {
		.above = conf->above,
		.dev = q->file.dev,
		.ino = q->file.ino,
		.depth = conf->above ? conf->above->depth + 1 : 1,
	};
	struct image_conf below = { .read_only = true, .backing = true, .above = &chain };
	char *path;
	int rc;

	if (!conf->backing)
		return err_set(
			err, -EPERM,
			"disk %s is based on '%.200s'; files that an image names are opened only with backing=on",
			q->image.path, q->h.backing);
	if (chain.depth > QCOW2_MAX_DEPTH)
		return err_set(err, -ELOOP, "disk %s has more than %u backing files below each other",
			       q->image.path, QCOW2_MAX_DEPTH);
	path = backing_path(q, err);
	if (!path)
		return err && err->code ? err->code : -EINVAL;
	below.path = path;
	below.format = q->h.backing_format[0] ? q->h.backing_format : NULL;
	rc = image_open(&below, &q->backing, err);
	if (rc == 0 && !below.format && strcmp(q->backing->ops->name, "raw") != 0)
		rc = err_set(
			err, -EINVAL,
			"disk %s does not say in which format its base %s is; set it with qemu-img rebase -u -F",
			q->image.path, path);
	else if (rc < 0)
		err_wrap(err, "the base of %s", q->image.path);
	free(path);
	return rc;
}

int qcow2_open(const struct image_file *file, const struct image_conf *conf, struct image **ret_image,
	       struct err *err)
{
	struct qcow2 *q = calloc(1, sizeof(*q));
	int rc;

	if (!q) {
		err_set(err, -ENOMEM, "no memory for disk %s", conf->path);
		return -ENOMEM;
	}
	q->file = *file;
	q->image = (struct image){ .ops = &qcow2_io_ops, .read_only = conf->read_only, .path = file->path };
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->landed, NULL);
	rc = qcow2_header_read(file, &q->h, err);
	if (rc == 0 && check_reftable(file, &q->h, conf->repair ? NULL : err) < 0) {
		rc = conf->repair ? 0 : -EINVAL;
		q->h.reftable_offset = q->h.reftable_clusters = 0;
	}
	if (rc == 0) {
		q->image.size = q->h.size;
		q->cluster = BIT(q->h.cluster_bits);
		q->l2_bits = q->h.cluster_bits - 3;
		q->block_bits = q->h.cluster_bits + 3 - q->h.refcount_order;
		q->end = (file->size + q->cluster - 1) >> q->h.cluster_bits;
		q->max_pages = ~0u;
	}
	if (rc == 0 && !conf->read_only && q->h.incompatible & (QCOW2_CORRUPT | QCOW2_DIRTY) && !conf->repair)
		rc = err_set(err, -EINVAL,
			     "disk %s %s; repair it with bothy image check --repair=all, or use it read-only",
			     conf->path,
			     q->h.incompatible & QCOW2_CORRUPT
				     ? "is marked as damaged"
				     : "was not closed, and its refcounts may be wrong");
	if (rc == 0 && q->h.backing[0] && !conf->no_backing)
		rc = open_backing(q, conf, err);
	/* A repair does not change what the disk contains. */
	if (rc == 0 && !conf->read_only && !conf->repair) {
		rc = qcow2_set_features(q, q->h.incompatible, 0);
		if (rc < 0)
			err_sys(err, rc, "disk %s cannot be written", conf->path);
	}
	if (rc < 0) {
		q->file.fd = -1; /* stays the caller's */
		q->file.path = NULL;
		q->image.read_only = true;
		q->image.path = conf->path;
		qcow2_io_close(&q->image);
		return rc;
	}
	*ret_image = &q->image;
	return 0;
}

/* ---- making ---- */

static void put_header(u8 *head, const struct qcow2_create_conf *c, u64 l1_entries, u64 table_clusters,
		       u64 l1_at)
{
	u64 at = c->version < 3 ? V2_LENGTH : QCOW2_HEADER_BYTES;

	st32be(head, MAGIC);
	st32be(head + 4, c->version);
	st32be(head + 20, c->cluster_bits);
	st64be(head + 24, c->size);
	st32be(head + 36, (u32)l1_entries);
	st64be(head + 40, l1_at);
	st64be(head + QCOW2_AT_REFTABLE, BIT(c->cluster_bits));
	st32be(head + 56, (u32)table_clusters);
	if (c->version >= 3) {
		st64be(head + QCOW2_AT_FEATURES, c->zstd ? QCOW2_COMPRESSION : 0);
		st32be(head + 96, REFCOUNT_ORDER);
		st32be(head + 100, QCOW2_HEADER_BYTES);
		head[V3_LENGTH] = c->zstd;
	}
	if (!c->backing)
		return;
	st32be(head + at, EXT_FORMAT);
	st32be(head + at + 4, (u32)strlen(c->backing_format));
	memcpy(head + at + 8, c->backing_format, strlen(c->backing_format));
	at += 8 + ALIGN_UP(strlen(c->backing_format), 8) + 8;
	st64be(head + 8, at);
	st32be(head + 16, (u32)strlen(c->backing));
	memcpy(head + at, c->backing, strlen(c->backing));
}

/* Header, refcount table, blocks, L1 table, in this order. */
static int put_image(struct image_file *file, const struct qcow2_create_conf *c, struct err *err)
{
	u64 cluster = BIT(c->cluster_bits), per_block = cluster * 8 >> REFCOUNT_ORDER;
	u64 l1_entries = MAX((c->size + (cluster * cluster / 8) - 1) / (cluster * cluster / 8), 1ull);
	u64 l1 = (l1_entries * 8 + cluster - 1) >> c->cluster_bits, table = 1, blocks = 1, total;
	u8 *meta;
	int rc;

	if (l1_entries * 8 > MAX_L1)
		return err_set(err, -EFBIG,
			       "%s: clusters of %llu bytes are too small for a disk of that size", c->path,
			       (unsigned long long)cluster);
	for (;;) {
		total = 1 + table + blocks + l1;
		if (blocks * per_block < total)
			blocks = (total + per_block - 1) / per_block;
		else if (table * cluster / 8 < blocks)
			table++;
		else
			break;
	}
	meta = calloc(total - l1, cluster);
	if (!meta)
		return err_set(err, -ENOMEM, "no memory for the tables of %s", c->path);
	put_header(meta, c, l1_entries, table, (1 + table + blocks) << c->cluster_bits);
	for (u64 i = 0; i < blocks; i++)
		st64be(meta + cluster + i * 8, (1 + table + i) << c->cluster_bits);
	for (u64 i = 0; i < total; i++)
		st16be(meta + ((1 + table) << c->cluster_bits) + i * 2, 1);
	rc = ftruncate(file->fd, (off_t)(total << c->cluster_bits)) < 0 ? -errno : 0;
	if (rc == 0)
		rc = image_file_write(file, meta, (total - l1) << c->cluster_bits, 0);
	if (rc == 0)
		rc = image_file_sync(file);
	free(meta);
	return rc < 0 ? err_sys(err, rc, "%s cannot be written", c->path) : 0;
}

/* Closes the file, unless it fails. */
static int take_space(struct image_file *file, const struct qcow2_create_conf *c, struct err *err)
{
	const struct image_conf conf = { .path = c->path };
	struct image *im;
	int rc;

	file->size = (u64)lseek(file->fd, 0, SEEK_END);
	rc = qcow2_open(file, &conf, &im, err);
	if (rc < 0)
		return rc;
	rc = qcow2_prealloc_all(container_of(im, struct qcow2, image), c);
	im->read_only = rc < 0; /* nothing of it is to be kept */
	im->ops->close(im);
	*file = (struct image_file){ .fd = -1 };
	return rc < 0 ? err_sys(err, rc, "%s cannot be given the space for %llu bytes", c->path,
				(unsigned long long)c->size)
		      : 0;
}

int qcow2_create(const struct qcow2_create_conf *c, struct err *err)
{
	struct image_file file;
	int rc;

	if (c->backing && (strlen(c->backing) > 1023 || strlen(c->backing) + 160 > BIT(c->cluster_bits)))
		return err_set(err, -ENAMETOOLONG, "%s: the backing file's name is too long for its header",
			       c->path);
	rc = image_file_create(&file, c->path, c->replace, err);
	if (rc < 0)
		return rc;
	rc = put_image(&file, c, err);
	if (rc == 0 && c->space != IMAGE_FILE_SPARSE) {
		rc = take_space(&file, c, err);
		if (rc == 0)
			return 0;
	}
	if (rc < 0 && !c->replace)
		unlink(c->path);
	image_file_close(&file);
	return rc;
}
