/* The state directory: what the runtime remembers of a container between two calls of it, in ROOT/ID.
 *
 *	state.json   pid, bundle, control group, ...; replaced as a whole, so a reader sees the old or the new one
 *	config.json  the configuration as it was when the container was created: the bundle's may change later
 *	start.sock   where `start` wakes the container's process; there from create until start
 *
 * The directory itself is locked by a runtime that changes the container. Single-threaded.
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"
#include "jail/rdt.h"

#define STATUS_MAX_ID 255

enum status_phase { STATUS_CREATING, STATUS_CREATED, STATUS_RUNNING, STATUS_PAUSED, STATUS_STOPPED };

struct status {
	char id[STATUS_MAX_ID + 1];
	int dir; /* locked, where it has been opened so */

	pid_t pid;     /* of the container's first process, in the caller's pid namespace; 0: not made yet */
	u64 pid_start; /* when, in clock ticks since boot */
	u64 pid_inode; /* of its pidfd: no other process has it until the next boot; 0: the kernel does not tell */
	char boot[37];       /* of the kernel that it is a process of */
	bool complete;       /* create has finished */
	struct rdt_made rdt; /* classes of resctrl that are the container's */
	bool hooks;          /* start or delete has hooks to run */
	char bundle[4096];
	char rootfs[4096];
	char cgroup[1024]; /* path in each hierarchy; "": none */
	char unit[256];    /* of systemd, which made the group; "": the runtime did */
	char created[40];  /* RFC 3339 */
	u32 owner;         /* user id of who created it */
};

/* Opens the directory of all containers, which is made when it is missing. path NULL: /run/bothy-oci for root, and
 * $XDG_RUNTIME_DIR/bothy-oci for others. It must belong to the caller. */
int status_open_root(const char *path, int *ret_root, struct err *err);

/* Letters, digits and "_+-.@", not beginning with '.' or '-'. */
int status_check_id(const char *id, struct err *err);

/* Makes the directory of a new container, locked. -EEXIST: there is one of that id. */
int status_create(int root, const char *id, struct status *ret_status, struct err *err);
/* Reads a container's state. With `lock` nobody else changes it until status_close(); waits for 10 seconds at most. */
int status_open(int root, const char *id, bool lock, struct status *ret_status, struct err *err);
/* The ids of the folders in root, sorted, each of them and the list for free(); how many. Any folder with a container's name
 * counts, whatever is in it. */
unsigned status_list(int root, char ***ret_ids);
void status_close(struct status *status);
int status_save(const struct status *status, struct err *err);
/* Removes the directory. */
int status_delete(int root, const struct status *status, struct err *err);

enum status_phase status_phase(const struct status *status);
const char *status_phase_name(enum status_phase phase);

/* Remembers a process, which is there, as the container's. */
void status_remember(struct status *status, pid_t pid);
/* A descriptor of the container's process, made sure that it is that one and has not ended, or -ESRCH. */
int status_pidfd(const struct status *status, int *ret_pidfd, struct err *err);
/* Sends a signal to the process of such a descriptor; -errno. */
int status_signal(const struct status *status, int pidfd, int signal);
/* Waits until the process of such a descriptor has ended, whoever its parent is; -ETIMEDOUT. */
int status_wait(int pidfd, u64 patience_ns);

/* Copies of files in the directory. */
int status_write_file(const struct status *status, const char *name, const void *data, size_t len,
		      struct err *err);
int status_read_file(const struct status *status, const char *name, char **ret_data, size_t *ret_len,
		     struct err *err);

/* start.sock: made by create, listened at by the container's process, connected to and removed by start. */
int status_listen(const struct status *status, int *ret_fd, struct err *err);
int status_connect(const struct status *status, int *ret_fd, struct err *err);
