/* Messages between the runtime and the process that becomes the container, over a pair of SOCK_SEQPACKET sockets: one
 * message, one packet. The other side's end is seen as -EPIPE, so neither waits for one that has died.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

enum wire_type {
	WIRE_ERROR,  /* struct err */
	WIRE_PID,    /* pid_t: of the container's process, from the one that made it */
	WIRE_GO,     /* what the other side waits for is done */
	WIRE_HOOKS,  /* the namespaces are there; hooks of the runtime may run */
	WIRE_FILTER, /* the program of a struct filter */
	WIRE_READY,  /* the container is made */
};

#define WIRE_MAX_DATA 65536

/* Both ends close on exec. */
int wire_pair(int ret_fds[2], struct err *err);

int wire_send(int fd, enum wire_type type, const void *data, size_t len);
/* Sends what err holds. */
void wire_send_error(int fd, const struct err *err);

/* Waits for a message of that type; `data` has room for `room` bytes. What is received as WIRE_ERROR becomes the failure. */
int wire_expect(int fd, enum wire_type type, void *data, size_t room, size_t *ret_len, struct err *err);

/* A descriptor with a text, as a console socket or a seccomp agent takes it [SCM_RIGHTS in unix(7)]. */
int wire_send_fd(int socket, int fd, const char *text, size_t len, struct err *err);
/* Connects to a unix stream socket. The path may be longer than an address holds. */
int wire_connect(const char *path, int *ret_fd, struct err *err);
