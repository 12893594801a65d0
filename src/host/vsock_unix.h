/* The host's end of a guest's vsock device: Unix sockets, after the convention of Firecracker and Cloud Hypervisor. Contract:
 * vm/vsock.h.
 *
 * A program of the host connects to PATH, writes "CONNECT PORT\n", and reads "OK NUMBER\n" once the guest has accepted; what the
 * guest connects to at the host's port PORT is the program that listens at PATH_PORT. Both only for this user and root.
 */
#pragma once

#include "base/err.h"
#include "vm/vsock.h"

/* Main thread. Makes the socket PATH; its name goes with free(). -EADDRINUSE: somebody listens there. */
int vsock_unix_open(u32 cid, const char *path, struct vsock **ret_vsock, struct err *err);
