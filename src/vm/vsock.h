/* Sockets between a guest and programs of the host: the contract between the vsock device and the host's end.
 *
 * A connection has a slot, by which both sides know it, from ops->connect() or incoming() to ops->close(). *lock is the device's:
 * it is held in all calls of both directions, but for start, stop and close_all.
 */
#pragma once

#include <pthread.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/types.h"

#define VSOCK_MAX_STREAMS 1024
#define VSOCK_HOST_CID    2

/* What may have become possible with a stream. */
#define VSOCK_READABLE BIT(0)
#define VSOCK_WRITABLE BIT(1)
#define VSOCK_GONE     BIT(2) /* nobody is there to write to */

struct vsock {
	const struct vsock_ops *ops;
	u32 cid; /* the guest's */
	/* Set by the device in its init, while the host's end is stopped. */
	pthread_mutex_t *lock;
	/* A program of the host asks for the guest's port: a slot, or negative: no. */
	int (*incoming)(void *opaque, u32 port);
	void (*ready)(void *opaque, unsigned slot, unsigned what);
	/* No more comes for now, or ops->again() was called. */
	void (*idle)(void *opaque);
	void *opaque;
};

/* None of them waits. */
struct vsock_ops {
	/* To the program that listens for the guest's connections to `port`. 0 or -errno. */
	int (*connect)(struct vsock *vs, unsigned slot, u32 port);
	/* The guest has taken an incoming one, whose port on this side is that. */
	void (*accepted)(struct vsock *vs, unsigned slot, u32 host_port);
	/* Bytes, or -errno; -EAGAIN: ready() follows. recv: 0 at the end. */
	ssize_t (*send)(struct vsock *vs, unsigned slot, const struct iovec *iov, unsigned nr);
	ssize_t (*recv)(struct vsock *vs, unsigned slot, const struct iovec *iov, unsigned nr);
	void (*shut)(struct vsock *vs, unsigned slot, bool send, bool recv); /* no more of either */
	void (*close)(struct vsock *vs, unsigned slot);
	void (*again)(struct vsock *vs); /* idle() is to be called, on the host end's thread */
	/* Main thread, *lock not held: calls to the device may begin; none comes any more. */
	void (*start)(struct vsock *vs);
	void (*stop)(struct vsock *vs);
	void (*free)(struct vsock *vs); /* main thread, stopped */
};
