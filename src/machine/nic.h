/* A network as the user asked for it: user[,hostfwd=..][,mac=..][,mtu=..][,packed],
 * tap=NAME[,mac=..][,packed], or none. Main thread. */
#pragma once

#include "base/err.h"
#include "vm/net.h"

struct loop;

struct nic {
	bool wanted;     /* the guest has an adapter */
	struct net *net; /* NULL: without a cable */
	u8 mac[NET_MAC_LEN];
	bool packed; /* offers packed rings */
};

/* spec NULL: user, or no adapter where this program has no user network. "none": no adapter. */
int nic_open(struct nic *ret_nic, const char *spec, struct loop *loop, struct err *err);
/* After its device is gone; accepts one that was never opened. */
void nic_close(struct nic *nic);
