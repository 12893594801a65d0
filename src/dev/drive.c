/* What devices with sectors share: see drive.h.
 *
 * Limits of rate are kept before a request goes to the host: the device leaves what has to wait where the guest has put it,
 * so that nothing grows (hostile case G29).
 */
#include "dev/drive.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "vm/clock.h"
#include "vm/dma.h"

int drive_init(struct drive *d, struct device *dev, struct block *block, const struct block_conf *conf,
	       void (*due)(void *opaque), void *opaque, struct err *err)
{
	static const struct block_conf defaults;
	const struct block_conf *c = conf ? conf : &defaults;

	if (!block)
		return err_set(err, -EINVAL, "a disk needs a back end");
	if (c->serial && strlen(c->serial) > DRIVE_SERIAL_LEN)
		return err_set(err, -EINVAL,
			       "'%.64s' is too long for a disk's id, which has %u characters at most",
			       c->serial, DRIVE_SERIAL_LEN);
	if (c->serial)
		memcpy(d->serial, c->serial, strlen(c->serial));
	d->dev = dev;
	d->block = block;
	block->lock = dev->lock;
	d->iops.rate = c->iops;
	d->bytes.rate = c->bytes_per_s;
	d->due = clock_timer_new(dev->vm, dev->lock, due, opaque);
	return 0;
}

void drive_fini(struct drive *d)
{
	drive_drain(d);
	clock_timer_free(d->due);
}

void drive_drain(struct drive *d)
{
	if (d->block)
		d->block->ops->drain(d->block);
}

void drive_reset(struct drive *d)
{
	clock_timer_cancel(d->due);
	d->iops.free = d->bytes.free = 0;
}

bool drive_range(const struct drive *d, u64 sector, u64 len, u64 *ret_offset)
{
	u64 size = d->block->size;

	if (sector > size / BLOCK_SECTOR || len > size - sector * BLOCK_SECTOR)
		return false;
	*ret_offset = sector * BLOCK_SECTOR;
	return true;
}

bool drive_may_pass(struct drive *d, u64 bytes)
{
	u64 now = clock_now(d->dev->vm);
	u64 wait = MAX(throttle_wait(&d->iops, now), throttle_wait(&d->bytes, now));

	if (wait) {
		clock_timer_arm(d->due, now + wait);
		return false;
	}
	throttle_take(&d->iops, now, 1);
	throttle_take(&d->bytes, now, bytes);
	return true;
}

static void count(struct drive *d, enum drive_counter what, u64 n)
{
	__atomic_store_n(&d->count[what], d->count[what] + n, __ATOMIC_RELAXED);
}

void drive_done(struct drive *d, const struct block_req *req, int result)
{
	switch (req->op) {
	case BLOCK_READ:
		for (unsigned i = 0; i < req->nr_iov; i++)
			dma_written(d->dev->vm, req->iov[i].iov_base, req->iov[i].iov_len);
		count(d, DRIVE_READS, 1);
		count(d, DRIVE_READ_BYTES, req->len);
		break;
	case BLOCK_WRITE:
		count(d, DRIVE_WRITES, 1);
		count(d, DRIVE_WRITTEN, req->len);
		break;
	case BLOCK_FLUSH: count(d, DRIVE_FLUSHES, 1); break;
	default: count(d, DRIVE_DISCARDS, 1); break;
	}
	if (result >= 0)
		return;
	count(d, DRIVE_ERRORS, 1);
	if (d->failed)
		return;
	d->failed = true;
	log_error("disk %s: the host fails: %s; the guest gets I/O errors (this is said once)",
		  d->block->name, strerror(-result));
}

unsigned drive_stats(struct drive *const drives[], unsigned nr, struct device_stat ret[DEVICE_MAX_STATS])
{
	static const char *const names[DRIVE_NR_COUNTERS] = {
		[DRIVE_READS] = "reads",     [DRIVE_READ_BYTES] = "read_bytes",
		[DRIVE_WRITES] = "writes",   [DRIVE_WRITTEN] = "written_bytes",
		[DRIVE_FLUSHES] = "flushes", [DRIVE_DISCARDS] = "discards",
		[DRIVE_ERRORS] = "errors",
	};

	for (unsigned i = 0; i < DRIVE_NR_COUNTERS; i++) {
		ret[i] = (struct device_stat){ names[i], 0 };
		for (unsigned n = 0; n < nr; n++)
			ret[i].value += __atomic_load_n(&drives[n]->count[i], __ATOMIC_RELAXED);
	}
	return DRIVE_NR_COUNTERS;
}
