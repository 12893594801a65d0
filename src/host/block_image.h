/* A disk in an image of any format, with its requests done by threads. Contract: vm/block.h. */
#pragma once

#include "host/image.h"
#include "vm/block.h"

struct loop;

/* Main thread. The sentence names the file. */
int block_image_open(const struct image_conf *conf, struct loop *loop, struct block **ret_block,
		     struct err *err);
