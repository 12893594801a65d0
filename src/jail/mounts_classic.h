/* What mounts.h promises, by mount(2) alone: for kernels without the calls that take descriptors, Linux before 5.12.
 *
 * There a mount cannot be detached. It is parked on a tmpfs that lies over the root directory of the calling process's mount
 * namespace, where no path leads to, and moved from there. So all of this needs a mount namespace of the process's own, from
 * which nothing gets back to the host's. Owners cannot be mapped. Single-threaded processes.
 */
#pragma once

#include "jail/mounts.h"

/* Whether one of the newer calls is missing. Asked once. */
bool mounts_classic(void);

/* As mounts_new(), with the words of the file system already joined, and those of them that are flags. */
int mounts_classic_new(const char *type, const char *source, unsigned long flags, const char *data,
		       int *ret_fd);
/* -errno, as the other two. */
int mounts_classic_copy(int dirfd, const char *path, bool tree, int *ret_fd);
int mounts_classic_set(int mount, bool tree, u64 set, u64 clear, u64 propagation);
int mounts_classic_attach(int mount, int target);
