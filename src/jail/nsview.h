/* Looking at namespaces from outside: which ones a process is in, and who holds each of them [namespaces(7), proc(5)]. */
#pragma once

#include <sys/types.h>

#include "jail/ns.h"

/* The inode of the process's namespace, which names it while it exists; 0: no such process, or not allowed. pid 0: the caller's. */
u64 nsview_inode(pid_t pid, enum ns_kind kind);

/* What keeps a namespace alive. */
enum nsview_holder { NSVIEW_PROCESS, NSVIEW_DESCRIPTOR, NSVIEW_MOUNT };

/* Calls found() for each holder that the caller may see: a process in it (number: pid), a descriptor of its file (pid, and
 * *text the descriptor), or a mount of its file (*text the path, as /proc/self/mountinfo has it; number 0). */
void nsview_holders(enum ns_kind kind, u64 inode,
		    void (*found)(void *opaque, enum nsview_holder holder, pid_t number, const char *text),
		    void *opaque);
