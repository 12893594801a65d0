/* The runtime's own executable out of the container's reach [CVE-2019-5736]. */
#pragma once

#include "base/err.h"

/* A process that is to enter a container calls this first. Unless its executable cannot be written to through
 * /proc/PID/exe already, it is executed again, with the same arguments and descriptors, from a copy that cannot; then
 * it does not return. */
int selfcopy_ensure(char **argv, struct err *err);
