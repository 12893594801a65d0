/* Checkpoint and restore of a container, by CRIU (criu.h): its processes become files, and processes again. */
#pragma once

#include "oci/container.h"

struct checkpoint_options {
	const char *images;      /* folder */
	const char *work;        /* folder of CRIU's log; NULL: that of the images */
	const char *parent;      /* images of an earlier pre-dump, relative to the folder; NULL: none */
	const char *page_server; /* "ADDRESS:PORT"; NULL: pages go into files */
	const char *
		cgroup_mode; /* "soft", "full", "strict" or "ignore"; NULL: the runtime sees to the group itself */
	const char *empty_ns; /* "network"; NULL: none */
	const char *lsm_profile, *lsm_mount_context;
	const char *status_fd; /* a number; NULL: none */
	bool leave_running, tcp_established, ext_unix_sk, shell_job, file_locks, pre_dump, auto_dedup,
		lazy_pages;
};

/* Writes a container that runs. cg NULL: it has no control group. */
int checkpoint_dump(const struct checkpoint_options *options, const struct status *status,
		    const struct spec *spec, const struct cgroup *cg, struct err *err);

/* Makes the processes of the container, whose state, root and control group are there; its first one is in c->status then,
 * and a child of the caller's. What comes out of the images is compared with the configuration before it runs on. */
int checkpoint_restore(const struct checkpoint_options *options, struct container *c, struct err *err);
