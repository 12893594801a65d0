/* See fakenet.h. */
#include "fakenet.h"

#include <assert.h>
#include <string.h>

static bool fake_send(struct net *n, const struct net_work *work, const void *frame, size_t len)
{
	struct fake_net *f = container_of(n, struct fake_net, net);

	assert(len >= 14 && len <= NET_MAX_FRAME);
	assert(!work || (n->does_work && work->csum_start + work->csum_offset + 2u <= len));
	if (f->full)
		return false;
	memcpy(f->frame, frame, len);
	f->len = len;
	f->worked = work;
	if (work)
		f->work = *work;
	f->sent++;
	return true;
}

static void fake_ready(struct net *n)
{
	container_of(n, struct fake_net, net)->ready++;
}

static void fake_start(struct net *n)
{
	container_of(n, struct fake_net, net)->started = true;
}

static void fake_stop(struct net *n)
{
	container_of(n, struct fake_net, net)->started = false;
}

static void fake_close(struct net *n)
{
}

static const struct net_ops fake_ops = { fake_send, fake_ready, fake_start, fake_stop, fake_close };

void fake_net_init(struct fake_net *f)
{
	memset(f, 0, sizeof(*f));
	f->net.ops = &fake_ops;
	f->net.mtu = 1500;
}

bool fake_net_give(struct fake_net *f, const void *frame, size_t len)
{
	bool taken;

	if (!f->started)
		return true;
	pthread_mutex_lock(f->net.lock);
	taken = f->net.receive(f->net.opaque, frame, len);
	f->net.received(f->net.opaque);
	pthread_mutex_unlock(f->net.lock);
	return taken;
}

void fake_net_room(struct fake_net *f)
{
	f->full = false;
	if (!f->started)
		return;
	pthread_mutex_lock(f->net.lock);
	f->net.writable(f->net.opaque);
	pthread_mutex_unlock(f->net.lock);
}
