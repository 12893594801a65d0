/* A limit of so many units per second, with a short burst. The caller's lock guards it; times are the caller's, in ns. */
#pragma once

#include "base/types.h"

struct throttle {
	u64 rate; /* units per second, 0: no limit */
	u64 free; /* when the next unit is due */
};

/* ns until something may pass; 0: now. */
u64 throttle_wait(const struct throttle *t, u64 now);
/* Counts `units` (below 2^32) that pass now. They may be more than are due: then the next wait is longer. */
void throttle_take(struct throttle *t, u64 now, u64 units);
