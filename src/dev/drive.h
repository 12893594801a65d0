/* What devices with sectors share, whatever their registers: the back end, its limits of rate, what was done, and the one line
 * for the operator where the host fails. Under the device's lock; init, drain and fini on the main thread.
 */
#pragma once

#include "base/types.h"
#include "vm/block.h"
#include "vm/device.h"
#include "vm/throttle.h"

struct clock_timer;

enum drive_counter {
	DRIVE_READS,
	DRIVE_READ_BYTES,
	DRIVE_WRITES,
	DRIVE_WRITTEN,
	DRIVE_FLUSHES,
	DRIVE_DISCARDS,
	DRIVE_ERRORS,
	DRIVE_NR_COUNTERS,
};

#define DRIVE_SERIAL_LEN 20

struct drive {
	struct device *dev;
	struct block *block;
	char serial[DRIVE_SERIAL_LEN + 1];
	struct throttle iops, bytes;
	struct clock_timer *due; /* something may pass again */
	bool failed;             /* the host has failed once, and it was said */
	u64 count[DRIVE_NR_COUNTERS];
};

/* due(opaque): the limits let something pass again; main thread, with dev's lock. conf: NULL for defaults. -EINVAL with a sentence;
 * drive_fini() may follow. */
int drive_init(struct drive *d, struct device *dev, struct block *block, const struct block_conf *conf,
	       void (*due)(void *opaque), void *opaque, struct err *err);
/* Accepts one that was zeroed only. */
void drive_fini(struct drive *d);
/* Returns when the host has done all that was submitted, without the lock. */
void drive_drain(struct drive *d);
/* After drive_drain(): as after a power-on. */
void drive_reset(struct drive *d);

/* In bytes; false: not inside the disk. */
bool drive_range(const struct drive *d, u64 sector, u64 len, u64 *ret_offset);
/* False: the limits say that this has to wait; due() will come. */
bool drive_may_pass(struct drive *d, u64 bytes);
/* In done(): what was read is in the guest's memory, and counted. */
void drive_done(struct drive *d, const struct block_req *req, int result);

/* The sums over nr drives. Any thread. */
unsigned drive_stats(struct drive *const drives[], unsigned nr, struct device_stat ret[DEVICE_MAX_STATS]);
