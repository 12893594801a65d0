/* The host's end of a vsock device, for tests of the device: streams that take and give as many bytes as the test says. */
#pragma once

#include "vm/vsock.h"

struct fake_stream {
	bool open;
	u32 port;    /* asked for by the guest; 0: by the host */
	size_t room; /* bytes that it still takes */
	size_t took; /* so far */
	size_t have; /* bytes for the guest */
	u8 last;     /* the last one that it took */
	bool eof;    /* after those */
	bool broken; /* send fails with EPIPE */
	bool shut_send, shut_recv;
	u32 accepted; /* the host port, 0: not yet */
};

struct fake_vsock {
	struct vsock vs;
	bool started, refuse;
	bool asked_again; /* idle() is due */
	unsigned opened, closed;
	size_t room; /* of new streams */
	struct fake_stream stream[VSOCK_MAX_STREAMS];
};

void fake_vsock_init(struct fake_vsock *f);
/* A program of the host connects to the guest's port: its slot, or negative. Takes the device's lock, as the next. */
int fake_vsock_call(struct fake_vsock *f, u32 port);
/* Something has changed with the stream; then idle(), as often as the device asks for it. */
void fake_vsock_ready(struct fake_vsock *f, unsigned slot, unsigned what);
void fake_vsock_idle(struct fake_vsock *f);
