/* The runtime's end of a container's terminal, where it stays in the foreground. */
#pragma once

#include <sys/types.h>

#include "base/err.h"

/* A pair of sockets for a descriptor to be passed through; both close on exec. */
int terminal_pair(int ret_fds[2], struct err *err);
/* The descriptor that comes. */
int terminal_receive(int socket, int *ret_fd, struct err *err);

/* Passes the console, until the process ends: standard input and output are connected to master (-1: the process has them
 * itself), and signals that come are passed on. Returns the status for exit(3): the process's own, or 128 and the number of
 * the signal that ended it. pid is a child of the caller. */
int terminal_stay(pid_t pid, int master, struct err *err);

/* Makes fd the controlling terminal of the calling process, which leads its session, and its standard input, output and
 * error. Closes fd. */
int terminal_adopt(int fd, struct err *err);
