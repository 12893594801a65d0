/* Networks: the contract between a network adapter and what it is connected to on the host.
 *
 * Frames are Ethernet frames without FCS, NET_MAX_FRAME bytes at most. A back end takes frames longer than the MTU as
 * they are (TCP segments that the guest has left whole). Checksums are complete both ways, but where the back end does the
 * work itself. *lock is the device's: send()
 * and ready() are called with it held, and the back end takes it around its calls.
 */
#pragma once

#include <pthread.h>
#include <sys/uio.h>

#include "base/types.h"

#define NET_MAC_LEN   6
#define NET_MAX_FRAME 65550 /* 65535 bytes of IP, addresses and type */

/* What is left to do to a frame [virtio 5.1.6.2]: to add up what lies behind csum_start, and store it at csum_start +
 * csum_offset, inside the frame; and, where gso_type is not 0, before that to cut it into TCP segments of gso_size bytes. */
struct net_work {
	u8 gso_type; /* as in virtio's header */
	u16 hdr_len, gso_size, csum_start, csum_offset;
};

struct net {
	const struct net_ops *ops;
	u16 mtu;
	bool does_work; /* send() may be given a struct net_work */
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
	/* Any thread. Copies the frame; false: no room, writable() follows. work NULL: the frame is complete. */
	bool (*send)(struct net *n, const struct net_work *work, const void *frame, size_t len);
	/* Any thread. The guest has room for frames again. */
	void (*ready)(struct net *n);
	/* Main thread, *lock not held, after the device was reset or created: calls to the device may begin; before its
	 * fini: none comes any more. */
	void (*start)(struct net *n);
	void (*stop)(struct net *n);
	void (*close)(struct net *n); /* main thread, stopped */
};
