/* CRIU, which writes processes to files and makes them again [criu(8), rpc.proto of CRIU 3]: one request to a process of it.
 *
 * It is asked over a socket, as its "swrk" mode wants, in its own messages: protocol buffers, of which the few that are needed
 * are written and read here. Single-threaded.
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"
#include "jail/cgroup.h"

/* A message being written, or a part of one. Zeroed is empty; data is for free(). */
struct criu_message {
	u8 *data;
	size_t len, room;
	bool failed; /* no memory: what came after is lost, and criu_run() says so */
};

void criu_number(struct criu_message *m, u32 field, s64 value);
void criu_text(struct criu_message *m, u32 field, const char *text);
/* A message within: taken and freed. */
void criu_part(struct criu_message *m, u32 field, struct criu_message *part);

/* Fields of criu_opts. */
enum criu_option {
	CRIU_IMAGES_FD = 1, /* a descriptor of the calling process */
	CRIU_PID = 2,
	CRIU_LEAVE_RUNNING = 3,
	CRIU_EXT_UNIX_SK = 4,
	CRIU_TCP_ESTABLISHED = 5,
	CRIU_SHELL_JOB = 7,
	CRIU_FILE_LOCKS = 8,
	CRIU_LOG_LEVEL = 9,
	CRIU_LOG_FILE = 10,
	CRIU_PAGE_SERVER = 11, /* { 1: address, 2: port } */
	CRIU_NOTIFY = 12,
	CRIU_ROOT = 13,
	CRIU_PARENT = 14,
	CRIU_TRACK_MEMORY = 15,
	CRIU_AUTO_DEDUP = 16,
	CRIU_WORK_FD = 17,
	CRIU_EXTERNAL_MOUNT = 23, /* { 1: key, 2: value } */
	CRIU_CGROUP_ROOT = 25,    /* { 1: controllers, 2: path } */
	CRIU_SIBLING = 26,
	CRIU_INHERIT = 27,     /* { 1: key, 2: descriptor of the CRIU process } */
	CRIU_CGROUP_MODE = 34, /* 0: criu leaves control groups alone, 3: soft, 4: full, 5: strict */
	CRIU_EXTERNAL = 37,
	CRIU_EMPTY_NS = 38, /* CLONE_NEW... */
	CRIU_JOIN_NS = 39,  /* { 1: kind, 2: file } */
	CRIU_FREEZER = 44,
	CRIU_LAZY_PAGES = 48,
	CRIU_STATUS_FD = 49,
	CRIU_ORPHAN_TERMINAL = 50,
	CRIU_LSM_PROFILE = 53,
	CRIU_LSM_MOUNT_CONTEXT = 63,
};

enum criu_request { CRIU_DUMP = 1, CRIU_RESTORE = 2, CRIU_PRE_DUMP = 4 };

struct criu_job {
	enum criu_request request;
	struct criu_message options; /* taken and freed */
	struct cgroup_door *door;    /* what CRIU and all that it makes is in; NULL: the caller's */
	bool cgroup_ns;              /* in a namespace whose root that group is */
	bool no_new_privs;           /* which older ones do not restore; all that it makes has what it has */
	/* A folder that is to be a mount, for CRIU alone; NULL: none. */
	const char *root;
	int keep[5]; /* descriptors that CRIU gets under the same number; -1 ends them */
	/* At each step that CRIU tells about: its name, a process or 0, and a descriptor that came with it or -1, which is the
	 * callee's. A failure ends the work. */
	int (*notify)(void *opaque, const char *step, pid_t pid, int fd, struct err *err);
	void *opaque;
};

/* Returns when CRIU has ended. ret_pid: of a restored tree's first process, a child of the caller's. The sentence has what
 * CRIU says about a failure, if it does; its log has more. */
int criu_run(struct criu_job *job, pid_t *ret_pid, struct err *err);
