/* A disk in memory for tests of devices: completes at once, or holds requests until it is told. */
#pragma once

#include "vm/block.h"

struct fake_block {
	struct block block;
	u8 *data;
	bool hold;              /* requests wait for fake_block_run() */
	int fail;               /* a negative errno that every request ends with, 0: none */
	struct block_req *held; /* submitted, the latest first */
	unsigned nr_held, most_held;
	unsigned requests, flushes, commits;
	u64 written; /* bytes */
};

void fake_block_init(struct fake_block *f, u64 size);
void fake_block_fini(struct fake_block *f);
/* Completes up to n of the requests held, in an order that depends on seed. Takes the device's lock. */
void fake_block_run(struct fake_block *f, unsigned n, u64 seed);
