/* User and group id maps of a user namespace [user_namespaces(7)]. */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"

#define IDMAP_MAX_RANGES 340 /* the kernel's limit */

struct idmap_range {
	u32 inside, outside, count; /* [inside, inside + count) are [outside, ...) in the parent namespace */
};

struct idmap {
	const struct idmap_range *ranges;
	unsigned count;
};

/* Whether no range is empty, wraps, or overlaps another, on either side. `name` is for the sentence. */
int idmap_check(const struct idmap *map, const char *name, struct err *err);

/* The id outside that `inside` stands for; -1: it is not mapped. */
s64 idmap_outside(const struct idmap *map, u32 inside);

/* Writes both maps of the user namespace that process pid has just made. Where this process may not, newuidmap and
 * newgidmap do [newuidmap(1)]; a map of one's own id alone needs nobody. */
int idmap_write(pid_t pid, const struct idmap *uids, const struct idmap *gids, struct err *err);

/* A user namespace with these maps that no process is in, as a descriptor that closes on exec. */
int idmap_userns(const struct idmap *uids, const struct idmap *gids, int *ret_fd, struct err *err);
