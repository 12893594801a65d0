/* Control groups: one group for a container, in every hierarchy that the host has: version 1, version 2, or both
 * ("hybrid") [cgroups(7), Documentation/admin-guide/cgroup-v2 of Linux].
 *
 * Only the runtime's own process, outside of the container, calls these. Single-threaded.
 */
#pragma once

#include <signal.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"

#define CGROUP_MAX_HIERARCHIES 24

struct cgroup_hierarchy {
	char mount[128];
	char controllers
		[64]; /* version 1: as the mount options have them, "cpu,cpuacct" or "name=systemd"; version 2: "" */
	bool v2;
	bool joined; /* the group exists here */
};

struct cgroup {
	struct cgroup_hierarchy at[CGROUP_MAX_HIERARCHIES];
	unsigned count;
	char path[1024]; /* of the group in each hierarchy, begins with '/' */
};

/* Looks for the host's hierarchies. `path`: as in linux.cgroupsPath; NULL or "": "/" and the id; one that does not begin
 * with '/' is taken below the caller's own group. Refuses ".." and the root itself. */
int cgroup_init(struct cgroup *cg, const char *path, const char *id, struct err *err);
/* The same for a group whose path cgroup_init() has made before: `joined` is set where it exists. */
int cgroup_find(struct cgroup *cg, const char *full_path, struct err *err);

/* Makes the group where it is not `joined`. One that exists already must be empty. Where the caller has no permission for a
 * hierarchy and is not root, that one is left out. */
int cgroup_create(struct cgroup *cg, struct err *err);
int cgroup_join(const struct cgroup *cg, pid_t pid, struct err *err);

/* The way into the group for a process that is yet to be made and goes in by itself. cgroup_join(), which moves another one,
 * waits in its first write until every processor has passed through the kernel, several milliseconds; this does not. */
struct cgroup_door {
	int v2, v2_procs; /* the group, for CLONE_INTO_CGROUP [clone(2)], and its file; -1: none */
	int v1[CGROUP_MAX_HIERARCHIES]; /* files */
	unsigned v1_count;
};

int cgroup_door_open(const struct cgroup *cg, struct cgroup_door *ret_door, struct err *err);
void cgroup_door_close(struct cgroup_door *door);
/* In the process, while it has one thread: enters the hierarchies of version 1, and that of version 2 unless it was
 * `made_inside`. Closes the door. The privileges that count are those of who has opened it. */
int cgroup_door_enter(struct cgroup_door *door, bool made_inside, struct err *err);

/* Where version 2 is all there is, a group that limits those below it takes no process itself, as that of a container in which
 * an init has made more: the path becomes that of the group below which pid is in. Else it stays. */
void cgroup_descend(struct cgroup *cg, pid_t pid);

/* The processes in the group and below it, fresh memory. */
int cgroup_processes(const struct cgroup *cg, pid_t **ret_pids, unsigned *ret_count, struct err *err);
/* Sends a signal to each of them. With SIGKILL it goes on until none is left, for 10 seconds at most. */
int cgroup_kill(const struct cgroup *cg, int signal, struct err *err);

int cgroup_freeze(const struct cgroup *cg, bool freeze, struct err *err);
bool cgroup_is_frozen(const struct cgroup *cg);

/* Removes the group and what was made below it; nothing there is no error. Waits up to 10 seconds for processes that are
 * on their way out. */
int cgroup_delete(const struct cgroup *cg, struct err *err);

/* The hierarchy that has a controller of version 1; NULL: none, or the group is not in it. */
const struct cgroup_hierarchy *cgroup_v1(const struct cgroup *cg, const char *controller);
/* The one of version 2; NULL: none. */
const struct cgroup_hierarchy *cgroup_v2(const struct cgroup *cg);
/* Whether version 2 is all there is. */
bool cgroup_is_unified(const struct cgroup *cg);

/* A file of the group; -errno. text has no end of line. */
int cgroup_write(const struct cgroup *cg, const struct cgroup_hierarchy *h, const char *file,
		 const char *text);
/* At most size - 1 bytes, trailing newline removed. */
int cgroup_read(const struct cgroup *cg, const struct cgroup_hierarchy *h, const char *file, char *buf,
		size_t size);
