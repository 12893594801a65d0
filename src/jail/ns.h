/* The eight kinds of namespace [namespaces(7)]. */
#pragma once

#include "base/err.h"
#include "base/types.h"

/* In the order in which a process joins them: the user namespace first, since it may own the others. */
enum ns_kind { NS_USER, NS_CGROUP, NS_IPC, NS_UTS, NS_NET, NS_PID, NS_TIME, NS_MNT, NS_KINDS };

struct ns_type {
	const char *name; /* as runtime-spec calls it */
	const char *file; /* in /proc/PID/ns */
	u32 flag;         /* CLONE_NEW... */
};

extern const struct ns_type ns_types[NS_KINDS];

/* The kind of that name; NS_KINDS: none. */
enum ns_kind ns_find(const char *name);

/* Opens a namespace's file. What it opens is checked, so that a path cannot name another kind or another
 * sort of file, and cannot make the caller wait. The descriptor closes on exec. */
int ns_open(enum ns_kind kind, const char *path, int *ret_fd, struct err *err);

/* Whether the file is the namespace that the calling process is in. */
bool ns_is_own(enum ns_kind kind, int fd);

/* The calling process (its future children, for pid and time) joins those of fds[NS_KINDS] that are not -1.
 * One that the process may not join yet is tried again after the user namespace has been joined. */
int ns_join(const int *fds, struct err *err);
