/* The whole PC on a fake board: every type of device in devices.def, with fake back ends, BARs placed as firmware would. */
#pragma once

#include "fakeblock.h"
#include "fakeboard.h"
#include "fakefs.h"
#include "fakenet.h"
#include "fakevsock.h"
#include "machine/pc.h"

struct wholeboard {
	struct board b;
	struct fake_chr chr;     /* the serial port's */
	struct fake_chr console; /* the virtio console's */
	struct fake_block disk;
	struct fake_block nvme;
	struct fake_block ata, cdrom; /* ports 0 and 1 of the AHCI adapter */
	struct fake_net net;
	struct fake_fs fs;
	struct fake_vsock vsock;
	struct pc pc;
};

/* One at a time; aborts with a message when something cannot be made. */
void wholeboard_init(struct wholeboard *w, u64 ram_size, u32 nr_vcpus);
void wholeboard_fini(struct wholeboard *w);

/* Gives every BAR of every function a place, and lets it answer and be a bus master. */
void wholeboard_place_bars(struct wholeboard *w);
