/* What the container's process becomes before it executes the program: user, capabilities, limits, filter. The same for
 * a container's first process and for one that joins it. */
#pragma once

#include "jail/label.h"
#include "oci/spec.h"
#include "oci/status.h"

struct process {
	const struct spec_process *spec;
	char **env;                  /* with HOME, made by process_find_program() */
	char program[4096];          /* found in the container */
	const struct filter *filter; /* NULL: none */
	int agent;                   /* connected socket of the seccomp agent; -1: none */
	const char *agent_state;     /* what the agent is told */
	struct label label;          /* opened before the root changed */
	u32 preserve_fds;            /* besides standard input, output and error */
	bool limits_left;            /* process_drop() may not set some limits: its parent has to */
};

/* Standard signals and a session of its own; not to be inspected by others from now on [CVE-2016-9962]. */
void process_begin(void);
/* In the container's root: finds the program, in PATH of the process's environment where it has no '/', and makes the
 * environment. */
int process_find_program(struct process *p, struct err *err);

/* Everything that takes privileges, then without them. After it only process_execute() is left. Hooks that are to run in
 * between run without the filter when no_new_privileges is set. */
int process_drop(struct process *p, struct err *err);

/* Returns only on failure. */
int process_execute(struct process *p, struct err *err);

/* Limits of another process, by its parent, which may have the privileges that it has not. Fewer descriptors than the way to
 * the program takes come only in process_execute(). */
int process_set_rlimits(pid_t pid, const struct spec_process *spec, struct err *err);
/* Processors that a process may run on, as "0-3,7"; NULL: as they are. `member` is for the sentence. */
int process_set_affinity(pid_t pid, const char *list, const char *member, struct err *err);
int process_set_oom_score(pid_t pid, const struct spec_process *spec, struct err *err);
