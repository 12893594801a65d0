/* The life of a container: create, start, kill, delete, and what is asked of it in between [runtime-spec runtime.md]. */
#pragma once

#include <sys/types.h>

#include "jail/cgroup.h"
#include "oci/rootfs.h"
#include "oci/spec.h"
#include "oci/status.h"

struct checkpoint_options; /* oci/checkpoint.h */

struct container_options {
	const char *root;           /* folder of the state; NULL: the usual one */
	const char *bundle;         /* NULL: the working directory */
	const char *pid_file;       /* NULL: none */
	const char *console_socket; /* NULL: none */
	u32 preserve_fds;
	bool no_pivot, no_keyring, no_cgroup;
	bool systemd; /* systemd makes the control group */
	/* The processes come from images instead of the configuration's program; NULL: they do not. */
	const struct checkpoint_options *restore;
	bool stay; /* run: wait for the container and pass on signals and terminal */
	bool keep; /* run: do not delete it then */
};

/* A container on the way to its program, in the runtime and in its child. */
struct container {
	const struct container_options *options;
	struct spec spec;
	struct status status;
	int state_root; /* folder of the state of all containers */
	struct cgroup cgroup;
	bool has_cgroup;
	pid_t keeper; /* is in the group that systemd made until the container is; 0: none */
	struct rootfs rootfs;
	int console_socket; /* connected; -1: none */
	int agent;          /* of seccomp; -1: none */
	int listen;         /* start.sock */
	bool runtime_hooks; /* hooks of the runtime's side run before the root is changed */
};

/* Makes the container up to the point before its program. */
int container_create(const struct container_options *options, const char *id, struct err *err);
int container_start(const struct container_options *options, const char *id, struct err *err);
/* Both, or what `restore` says, and with `stay` what follows; *ret_status is the program's then. */
int container_run(const struct container_options *options, const char *id, int *ret_status, struct err *err);
int container_kill(const struct container_options *options, const char *id, int signal, bool all,
		   struct err *err);
/* With `force` a container that runs is killed first, and one that does not exist is no error. */
int container_delete(const struct container_options *options, const char *id, bool force, struct err *err);
int container_freeze(const struct container_options *options, const char *id, bool freeze, struct err *err);
/* Writes its processes to files; unless they are to go on, the container is deleted then. */
int container_checkpoint(const struct container_options *options, const char *id,
			 const struct checkpoint_options *checkpoint, struct err *err);
int container_update(const struct container_options *options, const char *id, const struct limits *limits,
		     bool devices, struct err *err);

/* The control group of a container that exists. */
int container_cgroup(const struct status *status, struct cgroup *ret_cgroup, struct err *err);
/* The configuration as it was when the container was created. */
int container_config(const struct status *status, struct spec *ret_spec, struct err *err);
/* Writes a number into a file, which appears whole. */
int container_write_pid(const char *path, pid_t pid, struct err *err);
