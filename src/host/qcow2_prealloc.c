/* Gives all clusters of a new qcow2 image their place at once, so that later writes change no table. Clusters that were never
 * used read zero, so only who wants them written waits for them.
 *
 * Threads: one; nobody else uses the image.
 */
#include <errno.h>
#include <unistd.h>

#include "host/qcow2_int.h"

struct written {
	const struct qcow2_create_conf *conf;
	u64 before; /* bytes of the disk */
};

static void report(void *opaque, u64 done)
{
	const struct written *w = opaque;

	if (w->conf->progress)
		w->conf->progress(w->conf->opaque, MIN(w->before + done, w->conf->size));
}

/* The lock is held. *ret_nr: how many clusters from `first` on have a place now, at *ret_host. */
static int place_run(struct qcow2 *q, u64 first, u64 want, u64 *ret_host, u64 *ret_nr)
{
	int rc = q->nr_dirty > q->max_pages / 2 ? qcow2_cache_flush(q) : 0;

	if (rc == 0)
		rc = qcow2_refs_alloc(q, want, ret_host, ret_nr);
	for (u64 i = 0; rc == 0 && i < *ret_nr; i++)
		rc = qcow2_map_set(q, first + i, (*ret_host + i) << q->h.cluster_bits | QCOW2_COPIED);
	return rc;
}

int qcow2_prealloc_all(struct qcow2 *q, const struct qcow2_create_conf *conf)
{
	u64 clusters = (conf->size + q->cluster - 1) >> q->h.cluster_bits, host = 0, nr = 0, end;
	struct written w = { conf, 0 };
	int rc = 0;

	pthread_mutex_lock(&q->lock);
	for (u64 at = 0; rc == 0 && at < clusters; at += nr) {
		rc = place_run(q, at, clusters - at, &host, &nr);
		if (rc < 0 || conf->space != IMAGE_FILE_WRITTEN)
			continue;
		w.before = at << q->h.cluster_bits;
		rc = image_file_take_space(&q->file, conf->space, host << q->h.cluster_bits,
					   nr << q->h.cluster_bits, report, &w);
	}
	if (rc == 0)
		rc = qcow2_cache_flush(q);
	end = q->end << q->h.cluster_bits;
	if (rc == 0 && ftruncate(q->file.fd, (off_t)end) < 0)
		rc = -errno;
	if (rc == 0 && conf->space == IMAGE_FILE_RESERVED)
		rc = image_file_take_space(&q->file, conf->space, 0, end, NULL, NULL);
	pthread_mutex_unlock(&q->lock);
	return rc;
}
