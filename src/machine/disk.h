/* A disk as the user asked for it, FILE[,bus=virtio|ahci|nvme][,format=raw|qcow2][,backing][,ro][,id=ID][,iops=N][,bw=SIZE][,queues=N]
 * [,aio=HOW][,packed], or a CD-ROM: FILE[,id=ID][,iops=N][,bw=SIZE][,aio=HOW]. Main thread. */
#pragma once

#include "base/err.h"
#include "vm/block.h"

struct loop;
struct vm;

struct disk {
	struct block *block;
	struct block_conf conf; /* for the device */
	unsigned bus;           /* in disk.c's table */
	bool cdrom;
	bool packed; /* offers packed rings */
	char *text;  /* where conf's strings are */
};

/* Opens it; queues: how many a disk has where the user does not say. The sentence names the option or the file. */
int disk_open(struct disk *ret_disk, const char *spec, unsigned queues, struct loop *loop, struct err *err);
int disk_open_cdrom(struct disk *ret_disk, const char *spec, struct loop *loop, struct err *err);
/* Makes the devices of all disks, in this order on each bus. */
int disk_add_devices(struct vm *vm, const struct disk *disks, unsigned nr, struct err *err);
/* After its device is gone; accepts one that was never opened. */
void disk_close(struct disk *disk);
