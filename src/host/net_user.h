/* User-mode network: libslirp makes the guest's connections in this process, with no rights beyond its own. Contract:
 * vm/net.h. The guest is 10.0.2.15 (by DHCP), the host 10.0.2.2, the name server 10.0.2.3. */
#pragma once

#include "base/err.h"
#include "vm/net.h"

struct net_user_conf {
	u16 mtu;
	/* "tcp:ADDR:PORT-ADDR:PORT" or udp: a port of the host that leads to one of the guest. ADDR may be empty: all
	 * addresses of the host, the guest's own. */
	const char *const *forward;
	unsigned nr_forwards;
};

/* Main thread. The sentence names a forwarding that is wrong or whose port is taken; -ENOSYS where this program was built
 * without libslirp. */
int net_user_open(const struct net_user_conf *conf, struct net **ret_net, struct err *err);
