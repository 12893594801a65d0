/* What a control group may use: runtime-spec's resources, in force through the files of version 1 or 2
 * [runtime-spec config-linux.md#control-groups]. */
#pragma once

#include "jail/cgroup.h"
#include "jail/devfilter.h"

/* A number that may have been left out. */
struct limits_value {
	bool set;
	s64 v; /* an unsigned one past 2^63 - 1 has been refused before */
};

struct limits_weight { /* of a device */
	s64 major, minor;
	struct limits_value weight, leaf_weight;
};

struct limits_rate { /* of a device: bytes or operations per second */
	s64 major, minor, rate;
};

struct limits_rates {
	struct limits_rate *list;
	unsigned count;
};

struct limits_pages {
	const char *size; /* "2MB" */
	s64 limit;
};

struct limits_interface {
	const char *name;
	u32 priority;
};

struct limits_pair {
	const char *name, *value;
};

struct limits_rdma {
	const char *device;
	struct limits_value handles, objects;
};

struct limits {
	/* bytes; -1: no limit */
	struct limits_value memory, memory_reservation, memory_swap, kernel_memory, kernel_memory_tcp;
	struct limits_value swappiness; /* 0..100 */
	bool disable_oom_killer;
	bool check_before_update; /* refuse a limit below what is in use */

	struct limits_value cpu_shares, cpu_quota, cpu_burst, cpu_period; /* the last three in microseconds */
	struct limits_value cpu_rt_runtime, cpu_rt_period, cpu_idle;
	const char *cpus, *mems; /* lists; NULL: not given */

	struct limits_value pids;

	struct limits_value io_weight, io_leaf_weight;
	struct limits_weight *io_weights;
	unsigned io_weight_count;
	struct limits_rates read_bps, write_bps, read_iops, write_iops;

	struct limits_pages *pages;
	unsigned page_count;
	struct limits_value net_class;
	struct limits_interface *interfaces;
	unsigned interface_count;
	struct limits_rdma *rdma;
	unsigned rdma_count;
	struct limits_pair *unified; /* files of version 2 */
	unsigned unified_count;

	struct devfilter_rule *devices; /* NULL: as they are */
	unsigned device_count;
};

/* Version 2's weight, 1 to 10000, for version 1's shares and for the weight of disk accesses, 10 to 1000. */
s64 limits_cpu_weight(s64 shares);
s64 limits_io_weight(s64 weight);

/* Everything but the devices. The sentence names the limit, the value and the file. */
int limits_apply(const struct cgroup *cg, const struct limits *limits, struct err *err);
