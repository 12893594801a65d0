/* TCP listeners of this host. Main thread. */
#pragma once

#include "base/err.h"
#include "base/types.h"

/* Listens at `HOST:PORT`; an IPv6 address is in brackets, no HOST is 127.0.0.1, so that only this host can connect. HOST is a
 * numeric address or localhost, for no name server is to decide who may connect. The descriptor does not block; the caller's.
 * what: the option, for the sentence. -EINVAL: not an address; else -errno of bind(2). */
int tcp_listen(const char *what, const char *address, int *ret_fd, struct err *err);

/* The next connection, which does not block and sends what it has at once. -EAGAIN: nobody waits; else -errno. */
int tcp_accept(int fd);
