/* A machine's vCPUs move from one engine to another, in place. */
#pragma once

#include "base/err.h"

struct engine_ops;
struct vm;

/* Can the machine's CPU model run on `to`? -ENOTSUP with the features that it lacks. Main thread, at any time. */
int handover_check(struct vm *vm, const struct engine_ops *to, struct err *err);

/* All vCPUs are paused (vcpu_pause()), and are again when this returns, on the other engine; on failure on the one that they
 * were on, as if nothing had been asked. -EIO: neither engine takes them any more, and the machine has crashed.
 * Main thread. */
int handover_run(struct vm *vm, const struct engine_ops *to, struct err *err);
