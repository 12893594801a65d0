/* Intel RDT: how much of the shared cache and of the memory's bandwidth a container gets, and how much it uses
 * [resctrl of Linux, runtime-spec config-linux.md#intelrdt]. Single-threaded.
 *
 * A class of service is a folder of the file system resctrl, with the files schemata and tasks; below it a group for monitoring
 * is a folder in mon_groups.
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"

struct rdt {
	const char *clos; /* name of the class; NULL: the container's id, when there is a schema */
	const char *l3_cache, *bandwidth;
	const char **schemata; /* further lines */
	unsigned schema_count;
	bool monitoring, monitoring_cmt, monitoring_mbm; /* one group does for all of them */
};

/* What was made and has to be removed. */
struct rdt_made {
	bool clos, monitoring;
};

/* Where resctrl is mounted; -ENOTSUP with the sentence where it is not. */
int rdt_find(char *ret_root, size_t size, struct err *err);

/* The folder of the class, made where it is missing, with its schema; one that is there must have the same, or none be given.
 * *ret_made says what there is to remove after a failure too. */
int rdt_create(const char *root, const struct rdt *rdt, const char *id, struct rdt_made *ret_made,
	       struct err *err);
/* A process, and what it makes from then on, in the class. */
int rdt_join(const char *root, const struct rdt *rdt, const char *id, pid_t pid, struct err *err);
int rdt_delete(const char *root, const struct rdt *rdt, const char *id, struct rdt_made made,
	       struct err *err);
