/* A disk in an image of any format. Contract: vm/block.h. */
#pragma once

#include "host/block_aio.h"
#include "host/image.h"
#include "vm/block.h"

/* Main thread. The sentence names the file. */
int block_image_open(const struct image_conf *conf, enum block_aio_kind aio, struct loop *loop,
		     struct block **ret_block, struct err *err);

/* How many of the requests went to io_uring, or to nowhere because they read zero. */
u64 block_image_direct(const struct block *block);
