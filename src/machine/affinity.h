/* Which processors of the host each vCPU may run on, from --affinity. Main thread. */
#pragma once

#include <sched.h>

#include "base/err.h"
#include "base/types.h"

/* text: "VCPU=CPU" or "VCPU=FIRST-LAST", several after commas; what is said of a vCPU in several places adds up. NULL: says
 * nothing. ret_sets: one per vCPU; those of vCPUs that are not named are left as they are. -EINVAL for what is no such list, a
 * vCPU that the machine does not have, or a processor that this process may not use: the sentence says which. */
int affinity_parse(const char *text, u32 nr_vcpus, cpu_set_t *ret_sets, struct err *err);
