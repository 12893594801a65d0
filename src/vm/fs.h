/* Shared folders: the contract between a device that carries requests of the FUSE protocol and who answers them on the host.
 *
 * All requests go to the back end at once and come back in any order. The device's lock is the back end's too: whoever calls
 * submit() holds it, and done() runs under it, on a thread of the back end, or before submit() returns where the device allows
 * that. A back end that is stopped calls nothing.
 */
#pragma once

#include <pthread.h>
#include <sys/uio.h>

#include "base/types.h"

#define FS_MAX_PARTS 256 /* of one request, to read and to write together */

/* In the device's memory until done(). What iov[] points at is the guest's, and changes whenever it likes. */
struct fs_req {
	const struct iovec *iov; /* nr_out parts to read, then nr_in to write */
	unsigned nr_out, nr_in;
	u64 out_len, in_len; /* bytes */
	/* Once per request; written: bytes of the parts to write, from the first on. The back end does not touch req after. */
	void (*done)(struct fs_req *req, u32 written);
	bool at_once; /* submit() may answer it, if that waits for nothing on the host and takes a few microseconds */

	/* The back end's own. */
	struct fs_req *next;
	u64 unique;
	bool interrupted;
};

struct fs {
	const struct fs_ops *ops;
	const char *tag;       /* the name by which the guest mounts it */
	pthread_mutex_t *lock; /* set by the device in its init: its lock */
};

struct fs_ops {
	/* Any thread, *lock held. Waits for nothing. */
	void (*submit)(struct fs *fs, struct fs_req *req);
	/* Main thread, *lock not held: returns when all requests are done; those that wait for a lock of a file are interrupted. */
	void (*drain)(struct fs *fs);
	/* Main thread, after drain(): as if nobody had ever asked for anything; open files are closed. */
	void (*reset)(struct fs *fs);
	/* Main thread, after drain(). */
	void (*close)(struct fs *fs);
};
