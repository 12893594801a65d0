/* A disk as the user asked for it: FILE[,format=raw|qcow2][,backing][,ro][,id=ID][,iops=N][,bw=SIZE][,queues=N]
 * [,aio=HOW][,packed]. Main thread. */
#pragma once

#include "base/err.h"
#include "vm/block.h"

struct loop;

struct disk {
	struct block *block;
	struct block_conf conf; /* for the device */
	bool packed;            /* offers packed rings */
	char *text;             /* where conf's strings are */
};

/* Opens it; queues: how many a disk has where the user does not say. The sentence names the option or the file. */
int disk_open(struct disk *ret_disk, const char *spec, unsigned queues, struct loop *loop, struct err *err);
/* After its device is gone; accepts one that was never opened. */
void disk_close(struct disk *disk);
