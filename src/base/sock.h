/* Unix stream sockets that only their owner and root may use. Main thread. */
#pragma once

#include "base/err.h"
#include "base/types.h"

/* Listens at the name `name` in the folder dir (a descriptor; AT_FDCWD: name is a path). The socket is made with mode 0600 and
 * does not block; the caller closes it and removes the name. -EADDRINUSE where the name is taken. Paths may be as long as
 * the system allows, not only as sun_path does. */
int sock_listen(int dir, const char *name, int *ret_fd, struct err *err);

/* The next connection, which does not block; a peer of another user (SO_PEERCRED) is sent away. -EAGAIN: nobody waits;
 * -EPERM: somebody was sent away; else -errno. */
int sock_accept(int fd);

/* Connects as sock_listen() names it; blocking, as sends are, for ten seconds at most. */
int sock_connect(int dir, const char *name, int *ret_fd, struct err *err);

/* The same without waiting, for a socket that does not block; any thread. -ECONNREFUSED: nobody listens; -EAGAIN: more wait there
 * than may. */
int sock_try_connect(int dir, const char *name, int *ret_fd);
