/* What answers a shared folder's requests, for tests of the device: each with the 16 bytes of an empty answer. */
#pragma once

#include "vm/fs.h"

struct fake_fs {
	struct fs fs;
	bool hold;         /* requests wait for fake_fs_run() */
	unsigned requests; /* so far */
	unsigned at_once;  /* of them with leave to be answered at once */
	unsigned takes_us; /* each */
	struct fs_req *held;
	unsigned resets;
};

void fake_fs_init(struct fake_fs *f);
/* Answers n of those that are held, the last one first. Takes the device's lock. */
void fake_fs_run(struct fake_fs *f, unsigned n);
