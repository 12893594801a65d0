/* See fakevsock.h. */
#include "fakevsock.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define MOST_IDLES 10000

static struct fake_vsock *fake_of(struct vsock *vs)
{
	return container_of(vs, struct fake_vsock, vs);
}

/* What the contract promises: the slot is open. */
static struct fake_stream *stream_of(struct vsock *vs, unsigned slot)
{
	assert(slot < VSOCK_MAX_STREAMS && fake_of(vs)->stream[slot].open);
	return &fake_of(vs)->stream[slot];
}

static void open_stream(struct fake_vsock *f, unsigned slot, u32 port)
{
	assert(slot < VSOCK_MAX_STREAMS && !f->stream[slot].open);
	f->stream[slot] = (struct fake_stream){ .open = true, .port = port, .room = f->room };
	f->opened++;
}

static int fake_connect(struct vsock *vs, unsigned slot, u32 port)
{
	if (fake_of(vs)->refuse)
		return -ECONNREFUSED;
	open_stream(fake_of(vs), slot, port);
	return 0;
}

static void fake_accepted(struct vsock *vs, unsigned slot, u32 host_port)
{
	stream_of(vs, slot)->accepted = host_port;
}

static ssize_t fake_send(struct vsock *vs, unsigned slot, const struct iovec *iov, unsigned nr)
{
	struct fake_stream *s = stream_of(vs, slot);
	size_t n = 0;

	if (s->broken)
		return -EPIPE;
	if (!s->room)
		return -EAGAIN;
	for (unsigned i = 0; i < nr; i++) {
		size_t here = MIN(iov[i].iov_len, s->room);

		if (here)
			s->last = ((const u8 *)iov[i].iov_base)[here - 1];
		s->room -= here;
		n += here;
	}
	s->took += n;
	return (ssize_t)n;
}

static ssize_t fake_recv(struct vsock *vs, unsigned slot, const struct iovec *iov, unsigned nr)
{
	struct fake_stream *s = stream_of(vs, slot);
	size_t n = 0;

	assert(nr);
	if (!s->have)
		return s->eof ? 0 : -EAGAIN;
	for (unsigned i = 0; i < nr; i++) {
		size_t here = MIN(iov[i].iov_len, s->have);

		memset(iov[i].iov_base, 'h', here);
		s->have -= here;
		n += here;
	}
	return (ssize_t)n;
}

static void fake_shut(struct vsock *vs, unsigned slot, bool send, bool recv)
{
	struct fake_stream *s = stream_of(vs, slot);

	s->shut_send |= send;
	s->shut_recv |= recv;
}

static void fake_close(struct vsock *vs, unsigned slot)
{
	stream_of(vs, slot)->open = false;
	fake_of(vs)->closed++;
}

static void fake_again(struct vsock *vs)
{
	fake_of(vs)->asked_again = true;
}

static void fake_start(struct vsock *vs)
{
	fake_of(vs)->started = true;
}

static void fake_stop(struct vsock *vs)
{
	fake_of(vs)->started = false;
}

static const struct vsock_ops fake_ops = {
	fake_connect, fake_accepted, fake_send,  fake_recv, fake_shut,
	fake_close,   fake_again,    fake_start, fake_stop, fake_stop,
};

void fake_vsock_init(struct fake_vsock *f)
{
	memset(f, 0, sizeof(*f));
	f->vs.ops = &fake_ops;
	f->vs.cid = 3;
	f->room = ~(size_t)0;
}

int fake_vsock_call(struct fake_vsock *f, u32 port)
{
	int slot = -1;

	if (!f->started)
		return -1;
	pthread_mutex_lock(f->vs.lock);
	slot = f->vs.incoming(f->vs.opaque, port);
	if (slot >= 0)
		open_stream(f, (unsigned)slot, 0);
	pthread_mutex_unlock(f->vs.lock);
	fake_vsock_idle(f);
	return slot;
}

void fake_vsock_ready(struct fake_vsock *f, unsigned slot, unsigned what)
{
	if (!f->started || !f->stream[slot].open)
		return;
	pthread_mutex_lock(f->vs.lock);
	f->vs.ready(f->vs.opaque, slot, what);
	pthread_mutex_unlock(f->vs.lock);
	fake_vsock_idle(f);
}

void fake_vsock_idle(struct fake_vsock *f)
{
	unsigned n = 0;

	if (!f->started)
		return;
	do {
		f->asked_again = false;
		pthread_mutex_lock(f->vs.lock);
		f->vs.idle(f->vs.opaque);
		pthread_mutex_unlock(f->vs.lock);
		/* It must come to an end. */
		assert(n++ < MOST_IDLES);
	} while (f->asked_again);
}
