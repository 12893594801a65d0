/* The control socket of a machine: the methods, and what serves them. Main thread. */
#pragma once

#include "api/api.h"
#include "api/runtime.h"

struct machine;
struct machine_api;

/* The methods; for a description without a machine, target is NULL. */
extern const struct api_method machine_api_methods[];
/* Title and version of what they are. */
struct api machine_api_of(struct machine_api *target);

/* Serves the machine at RUNTIME_API_SOCK in its runtime folder, and at `path` too (NULL: there only). Both outlive it. */
int machine_api_open(struct machine *machine, const struct runtime *runtime, const char *path,
		     struct machine_api **ret_api, struct err *err);
/* After machine_run(), before machine_free(); NULL is allowed. */
void machine_api_close(struct machine_api *api);
