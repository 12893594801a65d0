/* A shared folder as the user asked for it: TAG=DIR[,ro][,cache=auto|always|none][,uid=N][,gid=N][,packed]. Main thread. */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct fs;

struct sharedir {
	struct fs *fs;
	bool packed; /* offers packed rings */
};

/* The sentence names the option or the folder. */
int sharedir_open(struct sharedir *ret_dir, const char *spec, struct err *err);
/* -EINVAL where two have one tag: the guest could mount but one. */
int sharedir_check_tags(const struct sharedir *dirs, unsigned nr, struct err *err);
/* After its device is gone; accepts one that was never opened. */
void sharedir_close(struct sharedir *dir);
