/* Networks: the contract between a network adapter and what it is connected to on the host.
 *
 * Frames are Ethernet frames without FCS, NET_MAX_FRAME bytes at most. A back end takes frames longer than the MTU as
 * they are (TCP segments that the guest has left whole); checksums are complete both ways. *lock is the device's: send()
 * and ready() are called with it held, and the back end takes it around its calls.
 */
#pragma once

#include <pthread.h>
#include <sys/uio.h>

#include "base/types.h"

#define NET_MAC_LEN   6
#define NET_MAX_FRAME 65550 /* 65535 bytes of IP, addresses and type */

struct net {
	const struct net_ops *ops;
	u16 mtu;
	/* Set by the device in its init, and cleared in its fini, while the back end is stopped. */
	pthread_mutex_t *lock;
	/* A frame for the guest. False: there is no room; the back end keeps it, and calls again after ready(). */
	bool (*receive)(void *opaque, const u8 *frame, size_t len);
	/* Frames were received, no more come for now. */
	void (*received)(void *opaque);
	/* send() had no room, and has some now. */
	void (*writable)(void *opaque);
	void *opaque;
};

struct net_ops {
	/* Any thread. Copies the frame; false: no room, writable() follows. */
	bool (*send)(struct net *n, const void *frame, size_t len);
	/* Any thread. The guest has room for frames again. */
	void (*ready)(struct net *n);
	/* Main thread, *lock not held, after the device was reset or created: calls to the device may begin; before its
	 * fini: none comes any more. */
	void (*start)(struct net *n);
	void (*stop)(struct net *n);
	void (*close)(struct net *n); /* main thread, stopped */
};
