/* A TAP interface of the host, on which the guest's adapter hangs like a card: contract in vm/net.h. Main thread. */
#pragma once

#include "base/err.h"
#include "vm/net.h"

struct loop;

/* The interface must be there and be this user's (or this process privileged); its MTU becomes the guest's. The sentence says
 * what is missing and who can make it. */
int net_tap_open(const char *name, struct loop *loop, struct net **ret_net, struct err *err);
