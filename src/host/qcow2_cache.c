/* The cache of a qcow2 image's metadata. Pages are found by hash, the one unused for longest makes room. When many are
 * dirty all are written, in the order of qcow2_int.h.
 *
 * Threads: any, under the image's lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/qcow2_int.h"

#define CACHE_BYTES (8 * MiB)
#define MAX_PAGE    12 /* bits */
#define HASH_SIZE   4096

static struct qcow2_page **bucket(const struct qcow2 *q, u64 offset)
{
	return &q->hash[(offset >> q->page_bits) * 0x9e3779b97f4a7c15ull >> 52 & (HASH_SIZE - 1)];
}

static void unlink_use(struct qcow2 *q, struct qcow2_page *p)
{
	*(p->newer ? &p->newer->older : &q->newest) = p->older;
	*(p->older ? &p->older->newer : &q->oldest) = p->newer;
}

static void link_newest(struct qcow2 *q, struct qcow2_page *p)
{
	p->newer = NULL;
	p->older = q->newest;
	*(q->newest ? &q->newest->newer : &q->oldest) = p;
	q->newest = p;
}

static void unhash(struct qcow2 *q, struct qcow2_page *p)
{
	struct qcow2_page **at = bucket(q, p->offset);

	while (*at != p)
		at = &(*at)->chain;
	*at = p->chain;
}

static void free_page(struct qcow2_page *p)
{
	free(p->data);
	free(p);
}

static struct qcow2_page *new_page(struct qcow2 *q)
{
	struct qcow2_page *p;

	if (!q->hash) {
		q->hash = calloc(HASH_SIZE, sizeof(struct qcow2_page *));
		q->page_bits = MIN(q->h.cluster_bits, MAX_PAGE);
		q->max_pages = (unsigned)(CACHE_BYTES >> q->page_bits);
		if (!q->hash)
			return NULL;
	}
	if (q->nr_pages >= q->max_pages) {
		/* At most half of them are dirty. */
		for (p = q->oldest; p && p->dirty; p = p->newer)
			;
		if (!p)
			return NULL;
		unlink_use(q, p);
		unhash(q, p);
		return p;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->data = malloc(BIT(q->page_bits));
	if (!p->data) {
		free(p);
		return NULL;
	}
	q->nr_pages++;
	return p;
}

static struct qcow2_page *find(const struct qcow2 *q, u64 offset)
{
	struct qcow2_page *p = q->hash ? *bucket(q, offset) : NULL;

	while (p && p->offset >> q->page_bits != offset >> q->page_bits)
		p = p->chain;
	return p;
}

bool qcow2_cache_has(const struct qcow2 *q, u64 offset)
{
	return find(q, offset);
}

static int get(struct qcow2 *q, enum qcow2_kind kind, u64 offset, struct qcow2_page **ret)
{
	struct qcow2_page *p = find(q, offset);
	u64 base;
	int rc;

	if (p) {
		if (p != q->newest) {
			unlink_use(q, p);
			link_newest(q, p);
		}
		*ret = p;
		return 0;
	}
	p = new_page(q);
	if (!p)
		return -ENOMEM;
	base = ALIGN_DOWN(offset, BIT(q->page_bits));
	rc = image_file_read(&q->file, p->data, BIT(q->page_bits), base);
	if (rc < 0) {
		free_page(p);
		q->nr_pages--;
		return rc;
	}
	p->offset = base;
	p->kind = kind;
	p->dirty = false;
	p->chain = *bucket(q, base);
	*bucket(q, base) = p;
	link_newest(q, p);
	*ret = p;
	return 0;
}

int qcow2_cache_load(struct qcow2 *q, enum qcow2_kind kind, u64 offset, unsigned size, u64 *ret_val)
{
	struct qcow2_page *p;
	int rc = get(q, kind, offset, &p);
	const u8 *at;

	if (rc < 0)
		return rc;
	at = p->data + (offset & (BIT(q->page_bits) - 1));
	switch (size) {
	case 1: *ret_val = *at; break;
	case 2: *ret_val = ld16be(at); break;
	case 4: *ret_val = ld32be(at); break;
	default: *ret_val = ld64be(at); break;
	}
	return 0;
}

int qcow2_cache_store(struct qcow2 *q, enum qcow2_kind kind, u64 offset, unsigned size, u64 val)
{
	struct qcow2_page *p;
	int rc = 0;
	u8 *at;

	rc = get(q, kind, offset, &p);
	if (rc < 0)
		return rc;
	at = p->data + (offset & (BIT(q->page_bits) - 1));
	switch (size) {
	case 1: *at = (u8)val; break;
	case 2: st16be(at, (u16)val); break;
	case 4: st32be(at, (u32)val); break;
	default: st64be(at, val); break;
	}
	p->kind = kind;
	q->nr_dirty += !p->dirty;
	p->dirty = true;
	return 0;
}

void qcow2_cache_forget(struct qcow2 *q, u64 offset, u64 len)
{
	struct qcow2_page *p, *next;

	for (p = q->newest; p; p = next) {
		next = p->older;
		if (p->offset < offset || p->offset >= offset + len)
			continue;
		unlink_use(q, p);
		unhash(q, p);
		q->nr_dirty -= p->dirty;
		q->nr_pages--;
		free_page(p);
	}
}

int qcow2_cache_write(struct qcow2 *q, enum qcow2_kind kind)
{
	for (struct qcow2_page *p = q->newest; p && q->nr_dirty; p = p->older) {
		int rc;

		if (!p->dirty || p->kind != kind)
			continue;
		rc = image_file_write(&q->file, p->data, BIT(q->page_bits), p->offset);
		if (rc < 0)
			return rc;
		p->dirty = false;
		q->nr_dirty--;
	}
	return 0;
}

int qcow2_cache_flush(struct qcow2 *q)
{
	bool changed = q->nr_dirty || q->nr_freed;
	int rc;

	if (q->broken)
		return -EIO;
	rc = qcow2_cache_write(q, QCOW2_REFS);
	if (rc == 0)
		rc = image_file_sync(&q->file);
	if (rc < 0 || !changed)
		return rc;
	rc = qcow2_cache_write(q, QCOW2_MAP);
	if (rc == 0)
		rc = image_file_sync(&q->file);
	if (rc == 0)
		qcow2_refs_settle(q);
	return rc;
}

void qcow2_cache_fini(struct qcow2 *q)
{
	struct qcow2_page *p, *older;

	for (p = q->newest; p; p = older) {
		older = p->older;
		free_page(p);
	}
	q->newest = q->oldest = NULL;
	free(q->hash);
	q->hash = NULL;
	q->nr_pages = q->nr_dirty = 0;
}
