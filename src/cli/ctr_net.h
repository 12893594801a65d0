/* A container's network for people: eth0 in its network namespace. Main thread only. */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"

struct ctr_net;

struct ctr_net_conf {
	bool user; /* libslirp in this process, else a pair of veth and a bridge of the host */
	const char *const *forward; /* user: as net_user_conf has them */
	unsigned nr_forwards;
	u32 address; /* bridge: the container's, in host byte order */
};

#define CTR_NET_BRIDGE  "bothy0"
#define CTR_NET_GATEWAY 0x0a4d0001u /* 10.77.0.1, of the bridge; its network has 24 bits */

/* For the container whose first process is pid, and has been made but not started. With `user` a thread begins. *ret_net may be
 * NULL: there is nothing to serve. */
int ctr_net_open(const struct ctr_net_conf *conf, pid_t pid, struct ctr_net **ret_net, struct err *err);
void ctr_net_close(struct ctr_net *net); /* NULL is allowed */

/* Descriptors to wait for, with POLLIN; -1: not now. */
void ctr_net_fds(struct ctr_net *net, int ret_fds[2]);
/* Moves what there is. */
void ctr_net_serve(struct ctr_net *net);
