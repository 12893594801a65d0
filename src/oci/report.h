/* What a container uses, what containers there are, and what this runtime can do, as JSON or text for people. */
#pragma once

#include "base/err.h"
#include "oci/status.h"

/* Each returns text for free(), or NULL with a sentence. */

/* One object of `events`: {"type":"stats","id":...,"data":{...}}. */
char *report_stats(const struct status *status, struct err *err);
/* One of them for a process that was killed because the container's memory was at its limit: {"type":"oom","id":...}. */
char *report_oom(const struct status *status, struct err *err);
/* How many have been, since the container was made; -1: nobody counts them. */
s64 report_oom_kills(const struct status *status);
/* `state`: the container's state, with what clients of other runtimes look for besides. */
char *report_state(const struct status *status, struct err *err);
/* `list`. Containers whose state cannot be read are left out. */
char *report_list(int root, bool json, bool quiet, struct err *err);
/* `ps`: the pids as a list, or the lines of ps(1) with those pids. */
char *report_processes(const struct status *status, bool json, const char *const *ps_args, struct err *err);
/* `features` [runtime-spec features.md]. */
char *report_features(void);
