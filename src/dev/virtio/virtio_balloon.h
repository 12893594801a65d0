/* virtio-balloon: memory that the guest gives back to the host. What the board and a control interface need of it; any
 * thread. */
#pragma once

#include "base/types.h"
#include "vm/device.h"

/* From the user; lives as long as the device. NULL in struct device_conf: an empty balloon that may do everything. */
struct balloon_conf {
	u64 target; /* bytes that the guest is asked for at first */
	bool no_deflate_on_oom, no_reporting;
};

/* What the guest says of its memory [virtio 5.5.6.3]: bytes, pages or events since its start, by tag. */
/* clang-format off */
#define BALLOON_STATS(X)                                                                   \
	X(SWAP_IN, "swap_in") X(SWAP_OUT, "swap_out")                                      \
	X(MAJOR_FAULTS, "major_faults") X(MINOR_FAULTS, "minor_faults")                    \
	X(FREE, "free_memory") X(TOTAL, "total_memory") X(AVAILABLE, "available_memory")   \
	X(CACHES, "disk_caches") X(HUGE_ALLOCATED, "hugetlb_allocations")                  \
	X(HUGE_FAILED, "hugetlb_failures")

enum balloon_stat {
#define BALLOON_STAT_ENUM_(NAME, text) BALLOON_STAT_##NAME,
	BALLOON_STATS(BALLOON_STAT_ENUM_)
#undef BALLOON_STAT_ENUM_
	BALLOON_NR_STATS
};
/* clang-format on */

struct balloon_info {
	u64 target, actual; /* bytes: asked for; in the balloon, says the guest */
	u64 discarded;      /* bytes given back to the host so far, the same page as often as it was */
	u16 known;          /* bit n: stat[n] was reported; none before a driver has */
	u64 stat[BALLOON_NR_STATS]; /* enum balloon_stat; the guest's word, which may be anything */
	u64 stat_age;               /* ns of guest time since they came */
};

/* The names of the statistics, as above. */
extern const char *const virtio_balloon_stat_names[BALLOON_NR_STATS];

/* The VM's balloon, NULL: it has none. Main thread. */
struct device *virtio_balloon_find(struct vm *vm);

/* How much of its memory the guest is asked to give away; clipped to what it has. It does so when and as far as it likes:
 * see actual. */
void virtio_balloon_set_target(struct device *balloon, u64 bytes);

/* What is known now; asks the guest for new statistics, which are there at one of the next calls. */
void virtio_balloon_query(struct device *balloon, struct balloon_info *ret_info);
