/* Flash memory "pflash": the first conf->base bytes of the machine's ROM can be programmed by the guest, in blocks of
 * PFLASH_BLOCK. */
#pragma once

#include "base/types.h"

struct device;

#define PFLASH_BLOCK 4096u

/* Where contents are kept that have changed: called on a vCPU's thread or the main thread, under the device's lock, with bytes
 * that are the guest's. Main thread, vCPUs not running. */
void pflash_set_store(struct device *dev, void (*save)(void *opaque, u64 offset, const u8 *data, u64 len),
		      void *opaque);
