/* Hooks: programs of the configuration that run around a container's life [runtime-spec config.md#posix-platform-hooks]. */
#pragma once

#include <sys/types.h>

#include "oci/spec.h"
#include "oci/status.h"

/* The container's state as JSON, as hooks and `state` show it; for free(). annotations may be NULL. */
char *hooks_state(const struct status *status, const char *phase, pid_t pid,
		  const struct limits_pair *annotations, unsigned count);

/* Runs the hooks of a kind one after the other, in the calling process's namespaces, with the state on standard input. Their
 * output goes to the caller's standard error. The first that fails ends it. */
int hooks_run(const struct spec *spec, enum spec_hook_kind kind, const struct status *status,
	      const char *phase, pid_t pid, struct err *err);
