/* Limits of a control group: one row of a table for each file that takes a number as it is; functions where the two
 * versions of control groups differ in more than the name.
 *
 * Version 1's shares (2..262144, 1024 by default) become version 2's weight (1..10000, 100 by default) linearly, as
 * all runtimes convert it. Version 1 counts swap together with memory, version 2 alone; the specification speaks as version 1.
 *
 * A limit whose controller the group is not in is an error, except swap: many kernels do not count it, and engines ask for
 * it with every memory limit. That is a warning.
 */
#include "jail/limits.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct target {
	const struct cgroup *cg;
	const struct cgroup_hierarchy *h; /* NULL: the host has no such controller */
	const char *limit;                /* its name in the specification */
};

static struct target find(const struct cgroup *cg, const char *controller, const char *limit)
{
	const struct cgroup_hierarchy *h = cgroup_v1(cg, controller);

	return (struct target){ cg, h || !cgroup_v2(cg) ? h : cgroup_v2(cg), limit };
}

static int put(const struct target *t, const char *file, const char *text, struct err *err)
{
	int rc;

	if (!t->h)
		return err_set(err, -ENOTSUP,
			       "linux.resources.%s: the container is in no control group that can limit it",
			       t->limit);
	rc = cgroup_write(t->cg, t->h, file, text);
	if (rc == -ENOENT)
		return err_set(err, -ENOTSUP, "linux.resources.%s: this host's control groups have no %s",
			       t->limit, file);
	if (rc)
		return err_sys(err, rc, "linux.resources.%s: cannot write '%.64s' to %s%s/%s", t->limit, text,
			       t->h->mount, t->cg->path, file);
	return 0;
}

/* -1 as a word: "-1" in version 1, "max" in version 2. */
static void number(const struct target *t, s64 v, char *text, size_t size)
{
	if (v < 0 && t->h && t->h->v2)
		snprintf(text, size, "max");
	else
		snprintf(text, size, "%lld", (long long)v);
}

static int put_number(const struct target *t, const char *file, s64 v, struct err *err)
{
	char text[32];

	number(t, v, text, sizeof(text));
	return put(t, file, text, err);
}

static const struct row {
	const char *limit, *controller;
	size_t offset;
	const char *v1, *v2; /* NULL: not in that version */
	bool zero_is_none;   /* 0 says nothing */
} rows[] = {
#define ROW(limit, controller, field, v1, v2, zero)                             \
	{                                                                       \
		limit, controller, offsetof(struct limits, field), v1, v2, zero \
	}
	ROW("memory.reservation", "memory", memory_reservation, "memory.soft_limit_in_bytes", "memory.low",
	    true),
	ROW("memory.kernel", "memory", kernel_memory, "memory.kmem.limit_in_bytes", NULL, true),
	ROW("memory.kernelTCP", "memory", kernel_memory_tcp, "memory.kmem.tcp.limit_in_bytes", NULL, true),
	ROW("memory.swappiness", "memory", swappiness, "memory.swappiness", NULL, false),
	ROW("cpu.realtimePeriod", "cpu", cpu_rt_period, "cpu.rt_period_us", NULL, true),
	ROW("cpu.realtimeRuntime", "cpu", cpu_rt_runtime, "cpu.rt_runtime_us", NULL, true),
	ROW("cpu.idle", "cpu", cpu_idle, "cpu.idle", "cpu.idle", false),
	ROW("network.classID", "net_cls", net_class, "net_cls.classid", NULL, true),
#undef ROW
};

/* Whether a file has that number; page by page, so it may be a little less. */
static bool is_limit(const struct target *t, const char *file, s64 v)
{
	char text[64];

	return v < 0 || (!cgroup_read(t->cg, t->h, file, text, sizeof(text)) && strtoll(text, NULL, 10) <= v);
}

static int apply_rows(const struct cgroup *cg, const struct limits *l, struct err *err)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct limits_value *v = (const void *)((const char *)l + rows[i].offset);
		struct target t = find(cg, rows[i].controller, rows[i].limit);
		const char *file = t.h && t.h->v2 ? rows[i].v2 : rows[i].v1;
		int rc;

		if (!v->set || (rows[i].zero_is_none && !v->v))
			continue;
		/* Kernel memory has no limit of its own in version 2, nor in newer kernels in version 1. */
		if (!file) {
			log_warn("linux.resources.%s has no effect on this host", rows[i].limit);
			continue;
		}
		rc = put_number(&t, file, v->v, err);
		/* Since 5.16 the kernel takes the number of one of them and forgets it. */
		if (!strncmp(rows[i].limit, "memory.kernel", 13) && (rc || !is_limit(&t, file, v->v))) {
			log_warn("linux.resources.%s has no effect on this kernel", rows[i].limit);
			rc = 0;
		}
		if (rc)
			return rc;
	}
	return 0;
}

static bool has_file(const struct target *t, const char *file)
{
	char text[64];

	return t->h && !cgroup_read(t->cg, t->h, file, text, sizeof(text));
}

static int check_usage(const struct target *t, s64 limit, struct err *err)
{
	char text[64];
	int rc = t->h ? cgroup_read(t->cg, t->h, t->h->v2 ? "memory.current" : "memory.usage_in_bytes", text,
				    sizeof(text))
		      : 0;

	if (t->h && !rc && limit > 0 && strtoll(text, NULL, 10) > limit)
		return err_set(err, -EBUSY,
			       "linux.resources.memory.limit: %lld is less than the %s bytes in use",
			       (long long)limit, text);
	return 0;
}

static int apply_memory_v1(const struct target *t, const struct limits *l, struct err *err)
{
	static const char *const limit_file = "memory.limit_in_bytes", *const swap_file =
									       "memory.memsw.limit_in_bytes";
	bool swap = l->memory_swap.set && l->memory_swap.v;
	bool memory = l->memory.set && l->memory.v;
	s64 swap_limit = l->memory_swap.v, old;
	char text[64];
	int rc = 0;

	/* No limit for memory says so for both. */
	if (memory && l->memory.v == -1 && !swap && has_file(t, swap_file)) {
		swap = true;
		swap_limit = -1;
	}
	if (swap && !has_file(t, swap_file)) {
		if (swap_limit != -1)
			log_warn(
				"linux.resources.memory.swap has no effect: this kernel does not count swap");
		swap = false;
	}
	/* Memory may never be above memory and swap together: the larger step is taken first. */
	old = 0;
	if (memory && swap && !cgroup_read(t->cg, t->h, limit_file, text, sizeof(text)))
		old = strtoll(text, NULL, 10);
	if (memory && swap &&
	    (swap_limit == -1 || (old < swap_limit && l->memory.v >= 0 && old < l->memory.v))) {
		rc = put_number(t, swap_file, swap_limit, err);
		swap = false;
	}
	if (!rc && memory)
		rc = put_number(t, limit_file, l->memory.v, err);
	if (!rc && swap)
		rc = put_number(t, swap_file, swap_limit, err);
	if (!rc && l->disable_oom_killer)
		rc = put(t, "memory.oom_control", "1", err);
	return rc;
}

static int apply_memory_v2(const struct target *t, const struct limits *l, struct err *err)
{
	int rc = 0;

	if (l->memory_swap.set && l->memory_swap.v) {
		s64 swap = l->memory_swap.v;

		if (swap > 0 && l->memory.set && l->memory.v > 0)
			swap = swap < l->memory.v ? -2 : swap - l->memory.v;
		if (swap == -2)
			return err_set(
				err, -EINVAL,
				"linux.resources.memory.swap: %lld is less than the memory limit %lld, which it "
				"includes",
				(long long)l->memory_swap.v, (long long)l->memory.v);
		if (has_file(t, "memory.swap.max"))
			rc = put_number(t, "memory.swap.max", swap, err);
		else if (swap >= 0)
			log_warn(
				"linux.resources.memory.swap has no effect: this kernel does not count swap");
	}
	if (!rc && l->memory.set && l->memory.v)
		rc = put_number(t, "memory.max", l->memory.v, err);
	return rc;
}

static int apply_memory(const struct cgroup *cg, const struct limits *l, struct err *err)
{
	struct target t = find(cg, "memory", "memory.limit");
	int rc = 0;

	if (!(l->memory.set && l->memory.v) && !(l->memory_swap.set && l->memory_swap.v) &&
	    !l->disable_oom_killer)
		return 0;
	if (l->check_before_update)
		rc = check_usage(&t, l->memory.v, err);
	if (rc)
		return rc;
	return t.h && t.h->v2 ? apply_memory_v2(&t, l, err) : apply_memory_v1(&t, l, err);
}

s64 limits_cpu_weight(s64 shares)
{
	return 1 + (MAX(2, MIN(shares, 262144)) - 2) * 9999 / 262142;
}

s64 limits_io_weight(s64 weight)
{
	return 1 + (MAX(weight, 10) - 10) * 9999 / 990;
}

static int apply_cpu_v2(const struct target *t, const struct limits *l, struct err *err)
{
	char text[64], now[64] = "";
	s64 shares = l->cpu_shares.v;
	int rc = 0;

	if (l->cpu_shares.set && shares) {
		rc = put_number(t, "cpu.weight", limits_cpu_weight(shares), err);
	}
	if (!rc && ((l->cpu_quota.set && l->cpu_quota.v) || (l->cpu_period.set && l->cpu_period.v))) {
		char quota[32];
		s64 period = 100000;

		/* What is not given stays. */
		if (t->h && !cgroup_read(t->cg, t->h, "cpu.max", now, sizeof(now)) && strchr(now, ' '))
			period = strtoll(strchr(now, ' ') + 1, NULL, 10);
		snprintf(quota, sizeof(quota), "%.*s", now[0] ? (int)strcspn(now, " ") : 3,
			 now[0] ? now : "max");
		if (l->cpu_quota.set && l->cpu_quota.v)
			number(t, l->cpu_quota.v, quota, sizeof(quota));
		if (l->cpu_period.set && l->cpu_period.v)
			period = l->cpu_period.v;
		snprintf(text, sizeof(text), "%s %lld", quota, (long long)period);
		rc = put(t, "cpu.max", text, err);
	}
	if (!rc && l->cpu_burst.set)
		rc = put_number(t, "cpu.max.burst", l->cpu_burst.v, err);
	return rc;
}

static int apply_cpu_v1(const struct target *t, const struct limits *l, struct err *err)
{
	int rc = 0;

	if (l->cpu_shares.set && l->cpu_shares.v)
		rc = put_number(t, "cpu.shares", l->cpu_shares.v, err);
	/* A quota that a new period would make invalid goes first. */
	if (!rc && l->cpu_period.set && l->cpu_period.v) {
		struct err first = { 0 };

		rc = put_number(t, "cpu.cfs_period_us", l->cpu_period.v, &first);
		if (rc == -EINVAL && l->cpu_quota.set && l->cpu_quota.v) {
			rc = put_number(t, "cpu.cfs_quota_us", l->cpu_quota.v, err);
			if (!rc)
				rc = put_number(t, "cpu.cfs_period_us", l->cpu_period.v, err);
		} else if (rc && err) {
			*err = first;
		}
	}
	if (!rc && l->cpu_quota.set && l->cpu_quota.v)
		rc = put_number(t, "cpu.cfs_quota_us", l->cpu_quota.v, err);
	if (!rc && l->cpu_burst.set)
		rc = put_number(t, "cpu.cfs_burst_us", l->cpu_burst.v, err);
	return rc;
}

static int apply_cpu(const struct cgroup *cg, const struct limits *l, struct err *err)
{
	struct target t = find(cg, "cpu", "cpu"), set = find(cg, "cpuset", "cpu.cpus");
	int rc = 0;

	if (l->cpu_shares.set || l->cpu_quota.set || l->cpu_period.set || l->cpu_burst.set)
		rc = t.h && t.h->v2 ? apply_cpu_v2(&t, l, err) : apply_cpu_v1(&t, l, err);
	if (!rc && l->cpus && *l->cpus)
		rc = put(&set, "cpuset.cpus", l->cpus, err);
	set.limit = "cpu.mems";
	if (!rc && l->mems && *l->mems)
		rc = put(&set, "cpuset.mems", l->mems, err);
	return rc;
}

static int apply_weights(const struct target *t, const struct limits *l, struct err *err)
{
	bool v2 = t->h && t->h->v2;
	/* With the BFQ scheduler the weights have its name in front. */
	const char *file = has_file(t, v2 ? "io.bfq.weight" : "blkio.bfq.weight")
				   ? (v2 ? "io.bfq.weight" : "blkio.bfq.weight")
			   : v2 ? "io.weight"
				: "blkio.weight";
	const char *device_file =
		has_file(t, "blkio.bfq.weight_device") ? "blkio.bfq.weight_device" : "blkio.weight_device";
	s64 weight = l->io_weight.v;
	char text[64];
	int rc = 0;

	if (l->io_weight.set && weight) {
		if (v2 && !strcmp(file, "io.weight"))
			weight = limits_io_weight(weight);
		rc = put_number(t, file, weight, err);
	}
	if (!rc && l->io_leaf_weight.set && l->io_leaf_weight.v && !v2)
		rc = put_number(t, "blkio.leaf_weight", l->io_leaf_weight.v, err);
	for (unsigned i = 0; !rc && i < l->io_weight_count; i++) {
		const struct limits_weight *w = &l->io_weights[i];

		snprintf(text, sizeof(text), "%lld:%lld %lld", (long long)w->major, (long long)w->minor,
			 (long long)w->weight.v);
		if (w->weight.set)
			rc = put(t, v2 ? "io.bfq.weight" : device_file, text, err);
	}
	return rc;
}

static int apply_io(const struct cgroup *cg, const struct limits *l, struct err *err)
{
	const struct {
		const struct limits_rates *rates;
		const char *limit, *v1, *v2;
	} kinds[] = {
		{ &l->read_bps, "blockIO.throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps" },
		{ &l->write_bps, "blockIO.throttleWriteBpsDevice", "blkio.throttle.write_bps_device",
		  "wbps" },
		{ &l->read_iops, "blockIO.throttleReadIOPSDevice", "blkio.throttle.read_iops_device",
		  "riops" },
		{ &l->write_iops, "blockIO.throttleWriteIOPSDevice", "blkio.throttle.write_iops_device",
		  "wiops" },
	};
	struct target t = find(cg, "blkio", "blockIO.weight");
	int rc = apply_weights(&t, l, err);

	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
		t.limit = kinds[k].limit;
		for (unsigned i = 0; !rc && i < kinds[k].rates->count; i++) {
			const struct limits_rate *r = &kinds[k].rates->list[i];
			char text[96];

			if (t.h && t.h->v2)
				snprintf(text, sizeof(text), "%lld:%lld %s=%lld", (long long)r->major,
					 (long long)r->minor, kinds[k].v2, (long long)r->rate);
			else
				snprintf(text, sizeof(text), "%lld:%lld %lld", (long long)r->major,
					 (long long)r->minor, (long long)r->rate);
			rc = put(&t, t.h && t.h->v2 ? "io.max" : kinds[k].v1, text, err);
		}
	}
	return rc;
}

static int apply_others(const struct cgroup *cg, const struct limits *l, struct err *err)
{
	struct target t = find(cg, "pids", "pids.limit");
	char text[256], file[128];
	int rc = 0;

	if (l->pids.set && l->pids.v)
		rc = l->pids.v < 0 ? put(&t, "pids.max", "max", err)
				   : put_number(&t, "pids.max", l->pids.v, err);
	t = find(cg, "hugetlb", "hugepageLimits");
	for (unsigned i = 0; !rc && i < l->page_count; i++) {
		snprintf(file, sizeof(file), "hugetlb.%.32s.%s", l->pages[i].size,
			 t.h && t.h->v2 ? "max" : "limit_in_bytes");
		rc = put_number(&t, file, l->pages[i].limit, err);
	}
	t = find(cg, "net_prio", "network.priorities");
	for (unsigned i = 0; !rc && i < l->interface_count; i++) {
		snprintf(text, sizeof(text), "%.64s %u", l->interfaces[i].name, l->interfaces[i].priority);
		rc = put(&t, "net_prio.ifpriomap", text, err);
	}
	t = find(cg, "rdma", "rdma");
	for (unsigned i = 0; !rc && i < l->rdma_count; i++) {
		int n = snprintf(text, sizeof(text), "%.64s", l->rdma[i].device);

		if (l->rdma[i].handles.set)
			n += snprintf(text + n, sizeof(text) - (size_t)n, " hca_handle=%lld",
				      (long long)l->rdma[i].handles.v);
		if (l->rdma[i].objects.set)
			snprintf(text + n, sizeof(text) - (size_t)n, " hca_object=%lld",
				 (long long)l->rdma[i].objects.v);
		rc = put(&t, "rdma.max", text, err);
	}
	t = (struct target){ cg, cgroup_v2(cg), "unified" };
	for (unsigned i = 0; !rc && i < l->unified_count; i++) {
		if (!l->unified[i].name[0] || strchr(l->unified[i].name, '/') ||
		    !strchr(l->unified[i].name, '.'))
			return err_set(
				err, -EINVAL,
				"linux.resources.unified: '%.64s' is no name of a control group's file",
				l->unified[i].name);
		rc = put(&t, l->unified[i].name, l->unified[i].value, err);
	}
	return rc;
}

int limits_apply(const struct cgroup *cg, const struct limits *l, struct err *err)
{
	int rc = apply_cpu(cg, l, err);

	if (!rc)
		rc = apply_memory(cg, l, err);
	if (!rc)
		rc = apply_rows(cg, l, err);
	if (!rc)
		rc = apply_io(cg, l, err);
	if (!rc)
		rc = apply_others(cg, l, err);
	return rc;
}
