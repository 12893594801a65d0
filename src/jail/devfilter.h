/* Which device nodes a control group may use: rules of the form of version 1's devices controller, in force in version 1
 * through its files and in version 2 through a BPF program [cgroup-v1/devices, cgroup-v2 "Device controller" of Linux]. */
#pragma once

#include "jail/cgroup.h"

struct devfilter_rule {
	bool allow;
	char type;        /* 'a' (all), 'b', 'c' */
	s64 major, minor; /* -1: any */
	bool read, write, mknod;
};

/* Everything is denied but what the rules allow; of two that fit the later one holds. An update replaces the rules. Without
 * a devices controller and without version 2: -ENOTSUP. */
int devfilter_apply(const struct cgroup *cg, const struct devfilter_rule *rules, unsigned count,
		    struct err *err);

struct bpf_insn;
/* The program, for tests: at most DEVFILTER_INSNS(count) instructions. Returns how many. */
#define DEVFILTER_INSNS(rules) (8 + 8 * (rules))
unsigned devfilter_program(const struct devfilter_rule *rules, unsigned count, struct bpf_insn *out);
