/* A guest's sockets as the user asked for them: cid=N,path=SOCK[,packed]. Main thread. */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct vsock;

/* The sentence names the option. */
int vsock_open(const char *spec, struct vsock **ret_vsock, bool *ret_packed, struct err *err);
