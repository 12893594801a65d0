/* A container's network for people: eth0 in its network namespace. Main thread only. */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"

struct ctr_net;

#define CTR_NET_GATEWAY 0x0a4d0001u /* 10.77.0.1, of the bridge; its network has 24 bits */

/* The user network, in three steps. In the container's network namespace, as its createContainer hook: makes eth0, and sends its
 * descriptor, or the sentence that says why not, to a socket. */
int ctr_net_hook(const char *socket, struct err *err);
/* Outside: what has come to that socket, which is listened at and does not block. */
int ctr_net_receive(int listen, int *ret_tap, struct err *err);
/* Connects it by libslirp; a thread begins. `forward` as net_user_conf has it. Takes tap, in any case. */
int ctr_net_open(int tap, const char *const *forward, unsigned nr_forwards, struct ctr_net **ret_net,
		 struct err *err);
void ctr_net_close(struct ctr_net *net); /* NULL is allowed */

/* The bridge: eth0 with an address (in host byte order) for the container whose first process is pid, and has been made but not
 * started. Ends with its namespace. */
int ctr_net_join_bridge(pid_t pid, u32 address, struct err *err);

/* Descriptors to wait for, with POLLIN; -1: not now. */
void ctr_net_fds(struct ctr_net *net, int ret_fds[2]);
/* Moves what there is. */
void ctr_net_serve(struct ctr_net *net);
