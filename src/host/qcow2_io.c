/* Reading and writing the disk in a qcow2 image: cluster by cluster, runs of neighbours in the file at once.
 *
 * A write to a cluster that is the disk's alone goes there. Any other one goes to new clusters, with what the write leaves
 * of the old contents, and the tables then name those; until then the tables say what they said. So does a write of
 * zeroes to part of a cluster.
 *
 * Threads: any; see image.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "base/log.h"
#include "host/qcow2_int.h"

#define MAX_RUN   BIT(20) /* bytes of new clusters at a time, at least one cluster */
#define MAX_DROPS (64u << 10)
#define BATCH     1024 /* clusters discarded before others may have the lock */

static bool is_plain(u64 entry)
{
	return !(entry & (QCOW2_ZIPPED | QCOW2_ZERO)) && entry & QCOW2_OFFSET_MASK;
}

static bool reads_zero(const struct qcow2 *q, u64 entry)
{
	if (entry & QCOW2_ZIPPED)
		return false;
	return entry & QCOW2_ZERO || (!(entry & QCOW2_OFFSET_MASK) && !q->backing);
}

/* The entry of the cluster at offset; *ret_len: for how many of len bytes the file goes on in the same way. */
static int run_at(struct qcow2 *q, u64 offset, u64 len, u64 *ret_entry, u64 *ret_len)
{
	u64 cluster = offset >> q->h.cluster_bits, first, entry;
	u64 n = q->cluster - (offset & (q->cluster - 1));
	int rc = qcow2_map_get(q, cluster, &first);

	for (u64 k = 1; rc == 0 && n < len && !(first & QCOW2_ZIPPED); k++) {
		rc = qcow2_map_get(q, cluster + k, &entry);
		if (rc < 0 || is_plain(first) != is_plain(entry) || entry & QCOW2_ZIPPED)
			break;
		if (is_plain(first) ? entry != first + (k << q->h.cluster_bits) : entry != first)
			break;
		n += q->cluster;
	}
	*ret_entry = first;
	*ret_len = MIN(n, len);
	return rc;
}

/* ---- flights ---- */

static void take_off(struct qcow2 *q, struct qcow2_flight *f)
{
	f->next = q->flights;
	q->flights = f;
}

/* Those that io_leave() has ended. */
static void forget_left(struct qcow2 *q)
{
	struct qcow2_flight **at = &q->flights, *f;

	while ((f = *at)) {
		if (!__atomic_load_n(&f->left, __ATOMIC_ACQUIRE)) {
			at = &f->next;
			continue;
		}
		*at = f->next;
		free(f);
	}
}

static void land(struct qcow2 *q, struct qcow2_flight *f)
{
	struct qcow2_flight **at = &q->flights;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	pthread_cond_broadcast(&q->landed);
}

/* Somebody changes the mapping of these clusters. */
static bool changes(const struct qcow2 *q, u64 first, u64 last)
{
	for (const struct qcow2_flight *f = q->flights; f; f = f->next)
		if (f->first <= f->last && f->first <= last && first <= f->last)
			return true;
	return false;
}

/* Waits for whoever does; true: has waited, and what was known is old. */
static bool wait_turn(struct qcow2 *q, u64 first, u64 last)
{
	if (!changes(q, first, last))
		return false;
	pthread_cond_wait(&q->landed, &q->lock);
	return true;
}

/* ---- reading ---- */

static int read_backing(struct qcow2 *q, const struct iovec *iov, unsigned nr, u64 offset, u64 len)
{
	u64 there = offset < q->backing->size ? MIN(len, q->backing->size - offset) : 0;

	iov_zero(iov, nr, there, len - there);
	return there ? q->backing->ops->read(q->backing, iov, nr, offset, there) : 0;
}

/* What an entry holds; no lock, in flight. len bytes into iov[], which may be longer. */
static int read_entry(struct qcow2 *q, u64 entry, const struct iovec *iov, unsigned nr, u64 offset, u64 len)
{
	u64 inside = offset & (q->cluster - 1);
	struct iovec *part;
	u8 *unzipped;
	int rc;

	if (entry & QCOW2_ZIPPED) {
		unzipped = malloc(q->cluster);
		rc = unzipped ? qcow2_zip_read(q, entry, unzipped) : -ENOMEM;
		if (rc == 0)
			iov_put(iov, nr, 0, unzipped + inside, len);
		free(unzipped);
		return rc;
	}
	if (reads_zero(q, entry)) {
		iov_zero(iov, nr, 0, len);
		return 0;
	}
	part = malloc(nr * sizeof(*part));
	if (!part)
		return -ENOMEM;
	nr = iov_cut(iov, nr, 0, len, part);
	rc = is_plain(entry) ? image_file_readv(&q->file, part, nr, len, (entry & QCOW2_OFFSET_MASK) + inside)
			     : read_backing(q, part, nr, offset, len);
	free(part);
	return rc;
}

static struct qcow2_flight flight_to(const struct qcow2 *q, u64 entry, u64 offset, u64 len)
{
	struct qcow2_flight f = { .first = 1 };

	if (entry & QCOW2_ZIPPED) {
		qcow2_map_zipped(q, entry, &f.host, &f.host_len);
	} else if (is_plain(entry)) {
		f.host = (entry & QCOW2_OFFSET_MASK) + (offset & (q->cluster - 1));
		f.host_len = len;
	}
	return f;
}

static int io_read(struct image *im, const struct iovec *iov, unsigned nr, u64 offset, u64 len)
{
	struct qcow2 *q = container_of(im, struct qcow2, image);
	struct iovec *part = malloc(nr * sizeof(*part));
	int rc = part ? 0 : -ENOMEM;

	for (u64 done = 0, n; rc == 0 && done < len; done += n) {
		struct qcow2_flight f;
		u64 entry;
		unsigned parts;

		pthread_mutex_lock(&q->lock);
		rc = run_at(q, offset + done, len - done, &entry, &n);
		if (rc == 0) {
			f = flight_to(q, entry, offset + done, n);
			take_off(q, &f);
		}
		pthread_mutex_unlock(&q->lock);
		if (rc < 0)
			break;
		parts = iov_cut(iov, nr, done, n, part);
		rc = read_entry(q, entry, part, parts, offset + done, n);
		pthread_mutex_lock(&q->lock);
		land(q, &f);
		pthread_mutex_unlock(&q->lock);
	}
	free(part);
	return rc;
}

/* ---- places, for transfers by others ---- */

/* Under the lock. */
static int find_place(struct qcow2 *q, bool write, u64 offset, u64 len, struct image_place *ret_place)
{
	u64 first = offset >> q->h.cluster_bits, last = (offset + len - 1) >> q->h.cluster_bits, entry, n;
	struct qcow2_flight *f;

	for (u64 c = first; c <= last; c++)
		if (!qcow2_map_cached(q, c))
			return -EAGAIN;
	if (run_at(q, offset, len, &entry, &n) < 0 || n < len)
		return -EAGAIN;
	if (write && (q->broken || !(is_plain(entry) && entry & QCOW2_COPIED) || changes(q, first, last)))
		return -EAGAIN;
	if (reads_zero(q, entry)) {
		*ret_place = (struct image_place){ .kind = IMAGE_ZERO };
		return 0;
	}
	if (entry & QCOW2_ZIPPED)
		return -EAGAIN;
	if (!is_plain(entry)) /* what is below does not change, so needs no hold */
		return offset + len <= q->backing->size
			       ? q->backing->ops->place(q->backing, false, offset, len, ret_place)
			       : -EAGAIN;
	*ret_place = (struct image_place){
		.kind = IMAGE_DATA,
		.fd = q->file.fd,
		.offset = (entry & QCOW2_OFFSET_MASK) + (offset & (q->cluster - 1)),
	};
	if (q->image.read_only)
		return 0;
	f = malloc(sizeof(*f));
	if (!f)
		return -EAGAIN;
	*f = flight_to(q, entry, offset, len);
	forget_left(q);
	take_off(q, f);
	ret_place->hold = f;
	return 0;
}

/* Not even for the lock, whose holder may wait for the host. */
static int io_place(struct image *im, bool write, u64 offset, u64 len, struct image_place *ret_place)
{
	struct qcow2 *q = container_of(im, struct qcow2, image);
	int rc;

	if (pthread_mutex_trylock(&q->lock))
		return -EAGAIN;
	rc = find_place(q, write, offset, len, ret_place);
	pthread_mutex_unlock(&q->lock);
	return rc;
}

static void io_leave(struct image *im, void *hold)
{
	struct qcow2_flight *f = hold;

	if (f)
		__atomic_store_n(&f->left, true, __ATOMIC_RELEASE);
}

/* ---- writing ---- */

/* Clusters that a write puts somewhere else. */
struct move {
	struct qcow2_flight flight;
	u64 offset, len; /* what is written */
	u64 first, nr;   /* clusters of the disk */
	u64 host;        /* cluster of the file */
	bool fresh;      /* it was never used: reads zero */
	u64 old_head, old_tail;
};

/* Under the lock: chooses and reserves. */
static int move_begin(struct qcow2 *q, struct move *m, u64 offset, u64 len)
{
	u64 want, entry, end = q->end;
	int rc;

	m->offset = offset;
	m->first = offset >> q->h.cluster_bits;
	want = MIN(((offset + len - 1) >> q->h.cluster_bits) - m->first + 1,
		   MAX(MAX_RUN >> q->h.cluster_bits, 1ull));
	for (m->nr = 0; m->nr < want; m->nr++) {
		rc = qcow2_map_get(q, m->first + m->nr, &entry);
		if (rc < 0)
			return rc;
		if (is_plain(entry) && entry & QCOW2_COPIED)
			break;
	}
	rc = qcow2_refs_alloc(q, m->nr, &m->host, &m->nr);
	if (rc < 0)
		return rc;
	m->fresh = m->host >= end;
	m->len = MIN(len, ((m->first + m->nr) << q->h.cluster_bits) - offset);
	rc = qcow2_map_get(q, m->first, &m->old_head);
	if (rc == 0)
		rc = qcow2_map_get(q, m->first + m->nr - 1, &m->old_tail);
	if (rc < 0) {
		qcow2_refs_undo(q, m->host, m->nr);
		return rc;
	}
	m->flight = (struct qcow2_flight){
		.host = m->host << q->h.cluster_bits,
		.host_len = m->nr << q->h.cluster_bits,
		.first = m->first,
		.last = m->first + m->nr - 1,
	};
	take_off(q, &m->flight);
	return 0;
}

/* Old contents of part of a cluster, to be written around the new ones; len 0 where there is no need to. */
static int keep(struct qcow2 *q, const struct move *m, u64 entry, u64 offset, u64 len, u8 *buf,
		struct iovec *ret)
{
	*ret = (struct iovec){ buf, len };
	if (len && m->fresh && reads_zero(q, entry))
		ret->iov_len = 0;
	return ret->iov_len ? read_entry(q, entry, ret, 1, offset, len) : 0;
}

/* Without the lock: the data, and what stays around it. */
static int move_data(struct qcow2 *q, const struct move *m, const struct iovec *iov, unsigned nr)
{
	u64 start = m->first << q->h.cluster_bits, end = (m->first + m->nr) << q->h.cluster_bits;
	u64 head = m->offset - start, tail = end - m->offset - m->len, at;
	u8 *buf = head + tail ? malloc(head + tail) : NULL;
	struct iovec *all = malloc((nr + 2) * sizeof(*all));
	unsigned n = 0;
	int rc = all && (buf || !(head + tail)) ? 0 : -ENOMEM;

	if (rc == 0)
		rc = keep(q, m, m->old_head, start, head, buf, &all[0]);
	if (rc == 0) {
		u64 kept = all[0].iov_len;

		at = (m->host << q->h.cluster_bits) + head - kept;
		n = kept ? 1 : 0;
		n += iov_cut(iov, nr, 0, m->len, all + n);
		rc = keep(q, m, m->old_tail, end - tail, tail, buf ? buf + head : NULL, &all[n]);
		if (rc == 0)
			rc = image_file_writev(&q->file, all, n + !!all[n].iov_len,
					       kept + m->len + all[n].iov_len, at);
	}
	free(all);
	free(buf);
	return rc;
}

/* Under the lock: the tables name the new clusters, or these are given back. */
static int move_end(struct qcow2 *q, struct move *m, int rc)
{
	u64 done = 0;

	for (; rc == 0 && done < m->nr; done++) {
		u64 old;

		rc = qcow2_map_get(q, m->first + done, &old);
		if (rc == 0)
			rc = qcow2_map_set(q, m->first + done,
					   (m->host + done) << q->h.cluster_bits | QCOW2_COPIED);
		if (rc == 0)
			rc = qcow2_map_drop(q, old);
		if (rc < 0)
			break;
	}
	if (rc < 0)
		qcow2_refs_undo(q, m->host + done, m->nr - done);
	land(q, &m->flight);
	return rc;
}

/* Before a change: there is room for what it makes dirty. */
static int make_room(struct qcow2 *q)
{
	if (q->broken || q->image.read_only)
		return q->broken ? -EIO : -EROFS;
	if (q->nr_dirty > q->max_pages / 2 || q->nr_freed > MAX_DROPS)
		return qcow2_cache_flush(q);
	return 0;
}

/* One run of a write; *ret_len: how long it was. */
static int write_run(struct qcow2 *q, const struct iovec *iov, unsigned nr, struct iovec *part, u64 skip,
		     u64 offset, u64 len, u64 *ret_len)
{
	struct qcow2_flight f;
	struct move m = { 0 };
	u64 entry = 0, n = 0;
	int rc;

	pthread_mutex_lock(&q->lock);
	do {
		rc = make_room(q);
		if (rc == 0)
			rc = run_at(q, offset, len, &entry, &n);
	} while (rc == 0 &&
		 wait_turn(q, offset >> q->h.cluster_bits, (offset + len - 1) >> q->h.cluster_bits));
	if (rc == 0 && is_plain(entry) && entry & QCOW2_COPIED) {
		f = flight_to(q, entry, offset, n);
		take_off(q, &f);
		pthread_mutex_unlock(&q->lock);
		nr = iov_cut(iov, nr, skip, n, part);
		rc = image_file_writev(&q->file, part, nr, n, f.host);
		pthread_mutex_lock(&q->lock);
		land(q, &f);
	} else if (rc == 0) {
		rc = move_begin(q, &m, offset, len);
		if (rc == 0) {
			n = m.len;
			pthread_mutex_unlock(&q->lock);
			nr = iov_cut(iov, nr, skip, n, part);
			rc = move_data(q, &m, part, nr);
			pthread_mutex_lock(&q->lock);
			rc = move_end(q, &m, rc);
		}
	}
	pthread_mutex_unlock(&q->lock);
	*ret_len = n;
	return rc;
}

static int io_write(struct image *im, const struct iovec *iov, unsigned nr, u64 offset, u64 len)
{
	struct qcow2 *q = container_of(im, struct qcow2, image);
	struct iovec *part = malloc(nr * sizeof(*part));
	int rc = part ? 0 : -ENOMEM;
	u64 n;

	for (u64 done = 0; rc == 0 && done < len; done += n)
		rc = write_run(q, iov, nr, part, done, offset + done, len - done, &n);
	free(part);
	return rc;
}

/* ---- zeroes and discards ---- */

/* Zeroes by writing, inside one cluster. */
static int write_zeroes(struct qcow2 *q, u64 offset, u64 len)
{
	void *zeroes = calloc(1, len);
	const struct iovec iov = { zeroes, len };
	u64 entry;
	int rc = zeroes ? 0 : -ENOMEM;

	pthread_mutex_lock(&q->lock);
	if (rc == 0)
		rc = qcow2_map_get(q, offset >> q->h.cluster_bits, &entry);
	pthread_mutex_unlock(&q->lock);
	if (rc == 0 && !reads_zero(q, entry))
		rc = io_write(&q->image, &iov, 1, offset, len);
	free(zeroes);
	return rc;
}

/* Under the lock: a whole cluster's entry becomes `to`. */
static int replace_entry(struct qcow2 *q, u64 cluster, u64 to)
{
	u64 old = 0;
	int rc;

	do {
		rc = make_room(q);
		if (rc == 0)
			rc = qcow2_map_get(q, cluster, &old);
	} while (rc == 0 && wait_turn(q, cluster, cluster));
	if (rc < 0 || old == to || (reads_zero(q, old) && !(old & QCOW2_OFFSET_MASK)))
		return rc;
	rc = qcow2_map_set(q, cluster, to);
	return rc < 0 ? rc : qcow2_map_drop(q, old);
}

static int replace_entries(struct qcow2 *q, u64 first, u64 end, u64 to)
{
	int rc = 0;

	while (rc == 0 && first < end) {
		pthread_mutex_lock(&q->lock);
		for (unsigned i = 0; rc == 0 && first < end && i < BATCH; i++)
			rc = replace_entry(q, first++, to);
		pthread_mutex_unlock(&q->lock);
	}
	return rc;
}

static int io_zero(struct image *im, u64 offset, u64 len, bool unmap)
{
	struct qcow2 *q = container_of(im, struct qcow2, image);
	u64 end = offset + len, first = ALIGN_UP(offset, q->cluster);
	/* The end of the disk may be inside its last cluster. */
	u64 last = end == im->size ? ALIGN_UP(end, q->cluster) : ALIGN_DOWN(end, q->cluster);
	int rc = 0;

	if (first > last || (q->h.version < 3 && q->backing))
		first = last = ALIGN_UP(end, q->cluster);
	while (rc == 0 && offset < MIN(first, end)) {
		u64 n = MIN(MIN(first, end), ALIGN_DOWN(offset, q->cluster) + q->cluster) - offset;

		rc = write_zeroes(q, offset, n);
		offset += n;
	}
	if (rc == 0 && first < last)
		rc = replace_entries(q, first >> q->h.cluster_bits, last >> q->h.cluster_bits,
				     q->h.version < 3 ? 0 : QCOW2_ZERO);
	if (rc == 0 && last < end && last >= first && offset <= last)
		rc = write_zeroes(q, last, end - last);
	return rc;
}

static int io_discard(struct image *im, u64 offset, u64 len)
{
	struct qcow2 *q = container_of(im, struct qcow2, image);
	u64 first = ALIGN_UP(offset, q->cluster) >> q->h.cluster_bits,
	    end = (offset + len) >> q->h.cluster_bits;

	/* What is below must not show. */
	if (q->backing && q->h.version < 3)
		return 0;
	return replace_entries(q, first, end, q->backing ? QCOW2_ZERO : 0);
}

static int io_flush(struct image *im)
{
	struct qcow2 *q = container_of(im, struct qcow2, image);
	int rc;

	if (im->read_only)
		return 0;
	pthread_mutex_lock(&q->lock);
	if (!q->nr_dirty && !q->nr_freed && !q->broken) {
		pthread_mutex_unlock(&q->lock);
		return image_file_sync(&q->file);
	}
	rc = qcow2_cache_flush(q);
	pthread_mutex_unlock(&q->lock);
	return rc;
}

static int io_extent(struct image *im, u64 offset, u64 len, enum image_extent *ret_kind, u64 *ret_len)
{
	struct qcow2 *q = container_of(im, struct qcow2, image);
	u64 entry;
	int rc;

	pthread_mutex_lock(&q->lock);
	rc = run_at(q, offset, len, &entry, ret_len);
	pthread_mutex_unlock(&q->lock);
	if (rc < 0)
		return rc;
	*ret_kind = reads_zero(q, entry) ? IMAGE_ZERO : IMAGE_DATA;
	if (*ret_kind == IMAGE_DATA && !is_plain(entry) && !(entry & QCOW2_ZIPPED)) {
		if (offset < q->backing->size)
			return q->backing->ops->extent(q->backing, offset,
						       MIN(*ret_len, q->backing->size - offset), ret_kind,
						       ret_len);
		*ret_kind = IMAGE_ZERO;
	}
	return 0;
}

int qcow2_io_write_compressed(struct image *im, const void *data, u64 offset)
{
	struct qcow2 *q = container_of(im, struct qcow2, image);
	unsigned x = 62 - (q->h.cluster_bits - 8);
	u64 cluster, got, at, last, entry, count;
	u8 *out = malloc(q->cluster);
	s64 len = out ? qcow2_zip_pack(q, data, out) : -ENOMEM;
	int rc = (int)len;

	if (len <= 0) {
		free(out);
		return len ? rc : -EOPNOTSUPP;
	}
	pthread_mutex_lock(&q->lock);
	rc = make_room(q);
	at = q->zip_at;
	/* What does not fit goes on in the cluster after, if that can be had; else everything begins anew. */
	if (rc == 0 && at && (at & (q->cluster - 1)) + (u64)len > q->cluster) {
		rc = qcow2_refs_alloc(q, 1, &cluster, &got);
		if (rc == 0 && cluster != (at >> q->h.cluster_bits) + 1)
			at = cluster << q->h.cluster_bits;
		else if (rc == 0)
			rc = qcow2_refs_get(q, at >> q->h.cluster_bits, &count)
				     ?: qcow2_refs_set(q, at >> q->h.cluster_bits, count + 1);
	} else if (rc == 0 && at) {
		rc = qcow2_refs_get(q, at >> q->h.cluster_bits, &count)
			     ?: qcow2_refs_set(q, at >> q->h.cluster_bits, count + 1);
	} else if (rc == 0) {
		rc = qcow2_refs_alloc(q, 1, &cluster, &got);
		at = cluster << q->h.cluster_bits;
	}
	if (rc == 0)
		rc = image_file_write(&q->file, out, (u64)len, at);
	last = at + (u64)len - 1;
	entry = QCOW2_ZIPPED | at | ((last >> 9) - (at >> 9)) << x;
	if (rc == 0)
		rc = qcow2_map_set(q, offset >> q->h.cluster_bits, entry);
	/* A cluster that is full to its end has no room. */
	q->zip_at = (last + 1) & (q->cluster - 1) ? last + 1 : 0;
	pthread_mutex_unlock(&q->lock);
	free(out);
	return rc;
}

const struct image_ops qcow2_io_ops = {
	.name = "qcow2",
	.read = io_read,
	.write = io_write,
	.zero = io_zero,
	.discard = io_discard,
	.flush = io_flush,
	.extent = io_extent,
	.place = io_place,
	.leave = io_leave,
	.close = qcow2_io_close,
};

void qcow2_io_close(struct image *im)
{
	struct qcow2 *q = container_of(im, struct qcow2, image);
	int rc = io_flush(im);

	/* What the flush has given back, too. */
	if (rc == 0)
		rc = io_flush(im);
	if (rc < 0)
		log_error("disk %s: what was written last may be lost: %s", im->path, strerror(-rc));
	if (q->backing)
		q->backing->ops->close(q->backing);
	forget_left(q);
	qcow2_cache_fini(q);
	free(q->freed);
	pthread_cond_destroy(&q->landed);
	pthread_mutex_destroy(&q->lock);
	image_file_close(&q->file);
	free(q);
}
