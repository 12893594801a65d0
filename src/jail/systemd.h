/* Control groups that systemd makes: a transient scope unit for a container, asked for over D-Bus
 * [org.freedesktop.systemd1(5), systemd.resource-control(5), systemd.slice(5)].
 *
 * On a host that systemd runs, its manager takes every group for its own that it has not been told to leave; so engines there
 * have the runtime ask for one ("--systemd-cgroup"). The group is delegated: what is below it is ours. Single-threaded.
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "jail/limits.h"

struct systemd_unit {
	char name[256];  /* "libpod-1f2e.scope" */
	char slice[256]; /* "machine.slice" */
};

/* path: SLICE:PREFIX:NAME as in linux.cgroupsPath; NULL or "": system.slice:bothy:ID, for other users than root user.slice.
 * What is given is checked; nobody is asked. */
int systemd_parse(const char *path, const char *id, struct systemd_unit *ret_unit, struct err *err);
/* Whether a name is one that systemd_parse() makes. */
bool systemd_is_scope(const char *name);

/* The path that the unit's group will have in each hierarchy; asks the manager where its own is. */
int systemd_group(const struct systemd_unit *unit, char *ret_path, size_t size, struct err *err);

/* Starts the unit with one process in it, and waits until it is there. The manager puts these limits on it again whenever it
 * reads its configuration anew; NULL: none. A unit of that name that has failed is forgotten first. */
int systemd_start(const struct systemd_unit *unit, const char *description, pid_t pid,
		  const struct limits *limits, struct err *err);
/* The manager is told about changed limits. */
int systemd_update(const char *name, const struct limits *limits, struct err *err);
/* Ends the unit, and forgets that it has failed; one that is not there is no error. */
int systemd_stop(const char *name, struct err *err);

/* Whether this build can do all this. */
bool systemd_available(void);
