/* A further process in a container that runs. */
#pragma once

#include "oci/container.h"

struct container_exec {
	const char *process_file; /* of a process object; NULL: made of what follows */
	const char *const *args;  /* NULL-terminated */
	const char *cwd;          /* NULL: the container's own */
	const char *user;         /* "UID[:GID]"; NULL: the container's own */
	const char *const *env;   /* besides the container's own */
	unsigned env_count;
	const char *const *caps; /* besides the container's own */
	unsigned cap_count;
	const u32 *groups;
	unsigned group_count;
	bool terminal, no_new_privileges, detach;
	bool ignore_paused; /* wait until it goes on, instead of a failure */
	const char *apparmor, *selinux;
};

/* *ret_status: the process's own, unless it is detached. options gives root, pid_file, console_socket and preserve_fds. */
int container_exec(const struct container_options *options, const char *id, const struct container_exec *exec,
		   int *ret_status, struct err *err);
