/* Running a container for people: its configuration, and the process that supervises it. Main thread only. */
#pragma once

#include "cli/ctr_store.h"

#define CTR_MAX_LIST 64
#define CTR_HOOK     "--make-eth0" /* what the container's hook is called with, and the path of a socket */

struct ctr_run_options {
	const char *name, *network, *user, *cwd, *hostname, *memory, *cpus, *pids, *stop_signal, *seccomp;
	const char *env[CTR_MAX_LIST], *volumes[CTR_MAX_LIST], *caps[CTR_MAX_LIST], *ports[CTR_MAX_LIST];
	unsigned env_count, volume_count, cap_count, port_count;
	bool detach, tty, remove, read_only, system, hooks;
};

enum ctr_network { CTR_USER, CTR_PRIVATE, CTR_HOST, CTR_NONE };

/* What `run` was asked for, with everything decided. */
struct ctr_plan {
	const struct ctr_run_options *options;
	const char *root; /* full path: a root file system, or the folder of a bundle */
	char **args;      /* NULL-terminated; empty: the bundle's, or a usual one */
	enum ctr_network network;
	int stop_signal;
	bool tty;
	u32 address;                  /* on the bridge */
	char ports[CTR_MAX_LIST][64]; /* as net_user_conf has them */
};

/* Writes FOLDER/NAME/config.json (ctr_config.c). */
int ctr_config_write(const struct ctr_plan *plan, const struct ctr *ctr, struct err *err);
/* linux.seccomp for a process with its capabilities (ctr_seccomp.c). how: "unconfined", a file, or NULL: the usual one, and with
 * `bundle` whatever is there. */
int ctr_seccomp_set(json_t *lin, const json_t *process, const char *how, bool bundle, struct err *err);
/* "[ADDRESS:]PORT:PORT[/udp]", as net_user_conf has it, into 64 bytes. */
int ctr_config_port(const char *text, char *ret_text, struct err *err);

/* Makes the container, runs it to its end, and clears away. Foreground: its output is printed as well, and its terminal
 * is this one. Holds ctr's lock. `started` is called once, when the program runs, or failed to (then with a code). */
int ctr_run(const struct ctr_store *store, struct ctr *ctr, const struct ctr_plan *plan, bool foreground,
	    void (*started)(void *opaque, const struct err *err), void *opaque, int *ret_status,
	    struct err *err);
