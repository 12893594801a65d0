/* A folder of this host for a guest: answers the requests of the FUSE protocol (vm/fs.h) in threads of its own.
 *
 * Nothing outside of the folder can be reached: every name is one component, below a descriptor, and no symbolic link is ever
 * followed here. Only regular files and folders are opened; what is done to others is done to their names.
 */
#pragma once

#include "base/err.h"
#include "vm/fs.h"

/* How long the guest may believe what it has been told. */
enum fuse_cache {
	FUSE_CACHE_AUTO,   /* names and attributes for a second, contents until a file is opened again */
	FUSE_CACHE_ALWAYS, /* nobody else changes the folder */
	FUSE_CACHE_NONE,   /* ask every time */
};

struct fuse_conf {
	const char *tag, *path; /* copied */
	bool read_only;
	enum fuse_cache cache;
	/* Where this process is not root: which user and group of the guest those of this process are. */
	u32 uid, gid;
};

/* Main thread. The sentence names the folder. Raises the process' limit of descriptors as far as it may. */
int fuse_open(const struct fuse_conf *conf, struct fs **ret_fs, struct err *err);
