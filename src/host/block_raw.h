/* A disk in a file or block device whose bytes are the disk's. Contract: vm/block.h. */
#pragma once

#include "base/err.h"
#include "host/block_aio.h"
#include "vm/block.h"

struct block_raw_conf {
	const char *path;
	bool read_only;
	enum block_aio_kind aio;
	bool probe; /* refuse what looks like an image of another format */
};

/* Opens and locks it: for one writer, or for any number of readers. The sentence names the file. Main thread. */
int block_raw_open(const struct block_raw_conf *conf, struct loop *loop, struct block **ret_block,
		   struct err *err);

/* What runs its requests: "io_uring" or "threads". */
const char *block_raw_aio_name(const struct block *block);
