/* A console with many users.
 *
 * How it works: what the device writes goes to the back end behind first, whose room decides how much is taken, then into a
 * short history and the ring of each client. The main loop drains the rings a millisecond later. A client whose ring is full
 * loses what does not fit: it is the client's fault alone. What clients type is read as far as the device has room;
 * until then it waits in their sockets.
 *
 * Clients are the owner and root (see base/sock.h), MAX_CLIENTS at most; more are sent away. A client that has closed its
 * sending half is still shown the output.
 *
 * Omitted: breaks, and the size of the terminal, which a stream of bytes cannot carry.
 *
 * Threads: write and input_ready any; the rest the main thread. The lock is taken outside of the lock of the back end behind;
 * callbacks of the device run without it.
 */
#include "host/chr_share.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/os.h"
#include "base/sock.h"

#define MAX_CLIENTS  8
#define RING_SIZE    (64 * KiB)
#define HISTORY_SIZE (8 * KiB)
#define INPUT_SIZE   512
#define BATCH_NS     1000000ull /* how long output may wait for more */

struct share;

struct client {
	struct share *share;
	int fd; /* -1: nobody here */
	struct loop_fd *watch;
	bool reads;         /* it has not closed its sending half */
	bool full;          /* the socket takes nothing now */
	size_t head, count; /* under the lock */
	u8 ring[RING_SIZE]; /* the same; its front is the main thread's */
};

struct share {
	struct chr chr;
	struct chr *inner;
	struct loop *loop;
	struct loop_timer *out_kick, *in_kick;
	int dir, listener;
	char *name;
	struct loop_fd *watch;
	_Atomic bool input_waits; /* the device had no room */

	pthread_mutex_t lock;
	struct client *client[MAX_CLIENTS];
	u64 written;              /* all output */
	u8 history[HISTORY_SIZE]; /* its end; byte n is at n % HISTORY_SIZE */
};

/* ---- output ---- */

/* With the lock held. What does not fit is lost. */
static void ring_put(struct client *c, const u8 *buf, size_t len)
{
	size_t at = (c->head + c->count) % RING_SIZE, first;

	len = MIN(len, RING_SIZE - c->count);
	first = MIN(len, RING_SIZE - at);
	memcpy(c->ring + at, buf, first);
	memcpy(c->ring, buf + first, len - first);
	c->count += len;
}

static void history_put(struct share *s, const u8 *buf, size_t len)
{
	if (len > HISTORY_SIZE) {
		s->written += len - HISTORY_SIZE;
		buf += len - HISTORY_SIZE;
		len = HISTORY_SIZE;
	}
	for (size_t i = 0; i < len; i++)
		s->history[s->written++ % HISTORY_SIZE] = buf[i];
}

static size_t share_write(struct chr *chr, const u8 *buf, size_t len)
{
	struct share *s = container_of(chr, struct share, chr);
	bool kick = false;
	size_t n;

	pthread_mutex_lock(&s->lock);
	n = chr_write(s->inner, buf, len);
	history_put(s, buf, n);
	for (unsigned i = 0; i < MAX_CLIENTS; i++) {
		if (!s->client[i])
			continue;
		kick |= n && !s->client[i]->count;
		ring_put(s->client[i], buf, n);
	}
	pthread_mutex_unlock(&s->lock);
	if (kick)
		loop_timer_arm(s->out_kick, os_now_ns() + BATCH_NS);
	return n;
}

static void client_free(struct client *c)
{
	struct share *s = c->share;

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < MAX_CLIENTS; i++)
		if (s->client[i] == c)
			s->client[i] = NULL;
	pthread_mutex_unlock(&s->lock);
	loop_fd_del(c->watch);
	close(c->fd);
	free(c);
}

/* False: the client is gone. */
static bool drain(struct client *c)
{
	for (;;) {
		size_t len;
		ssize_t n;

		pthread_mutex_lock(&c->share->lock);
		len = MIN(c->count, RING_SIZE - c->head);
		pthread_mutex_unlock(&c->share->lock);
		c->full = false;
		if (!len)
			return true;
		n = send(c->fd, c->ring + c->head, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		c->full = n < 0 && errno == EAGAIN;
		if (n < 0)
			return c->full;
		pthread_mutex_lock(&c->share->lock);
		c->head = (c->head + (size_t)n) % RING_SIZE;
		c->count -= (size_t)n;
		pthread_mutex_unlock(&c->share->lock);
	}
}

/* ---- input ---- */

/* Reads what the device has room for. False: the client is gone. */
static bool pump_input(struct client *c)
{
	struct chr *chr = &c->share->chr;
	u8 buf[INPUT_SIZE];
	size_t room = 0;
	ssize_t n;

	if (!c->reads)
		return true;
	/* Set before asking: the device may get room right after its answer. */
	atomic_store(&c->share->input_waits, true);
	if (chr->can_input && chr->on_input)
		room = chr->can_input(chr->opaque);
	if (!room)
		return true;
	n = recv(c->fd, buf, MIN(room, sizeof(buf)), MSG_DONTWAIT);
	if (n > 0)
		chr->on_input(chr->opaque, buf, (size_t)n);
	if (n == 0)
		c->reads = false;
	return n >= 0 || errno == EAGAIN || errno == EINTR;
}

static bool device_has_room(struct share *s)
{
	return s->chr.can_input && s->chr.can_input(s->chr.opaque);
}

static void on_client(void *opaque, u32 events);

/* Says what to wait for: input while the device takes it, room while output waits. */
static void watch_client(struct client *c)
{
	u32 events = c->full ? EPOLLOUT : 0;

	if (c->reads && device_has_room(c->share))
		events |= EPOLLIN;
	loop_fd_mod(c->watch, events);
}

static void on_client(void *opaque, u32 events)
{
	struct client *c = opaque;

	if (events & (EPOLLHUP | EPOLLERR) || !pump_input(c) || !drain(c))
		client_free(c);
	else
		watch_client(c);
}

static void on_kick(void *opaque)
{
	struct share *s = opaque;

	for (unsigned i = 0; i < MAX_CLIENTS; i++)
		if (s->client[i])
			on_client(s->client[i], 0);
}

static void share_input_ready(struct chr *chr)
{
	struct share *s = container_of(chr, struct share, chr);

	s->inner->ops->input_ready(s->inner);
	if (atomic_exchange(&s->input_waits, false))
		loop_timer_arm(s->in_kick, 0);
}

/* ---- clients come ---- */

static void greet(struct share *s, struct client *c)
{
	u64 n = MIN(s->written, (u64)HISTORY_SIZE), from = s->written - n;

	for (u64 i = 0; i < n; i++)
		ring_put(c, &s->history[(from + i) % HISTORY_SIZE], 1);
}

static void add_client(struct share *s, int fd)
{
	struct client *c = calloc(1, sizeof(*c));
	unsigned i = 0;

	while (i < MAX_CLIENTS && s->client[i])
		i++;
	if (!c || i == MAX_CLIENTS || loop_fd_add(s->loop, fd, EPOLLIN, on_client, c, &c->watch, NULL) < 0) {
		free(c);
		close(fd);
		return;
	}
	c->share = s;
	c->fd = fd;
	c->reads = true;
	pthread_mutex_lock(&s->lock);
	greet(s, c);
	s->client[i] = c;
	pthread_mutex_unlock(&s->lock);
	on_client(c, 0);
}

static void on_listener(void *opaque, u32 events)
{
	struct share *s = opaque;
	int fd = sock_accept(s->listener);

	if (fd >= 0)
		add_client(s, fd);
}

/* ---- what the back end behind says ---- */

static void inner_input(void *opaque, const u8 *buf, size_t len)
{
	struct share *s = opaque;

	if (s->chr.on_input)
		s->chr.on_input(s->chr.opaque, buf, len);
}

static size_t inner_can_input(void *opaque)
{
	struct share *s = opaque;

	return s->chr.can_input && s->chr.on_input ? s->chr.can_input(s->chr.opaque) : 0;
}

static void inner_writable(void *opaque)
{
	struct share *s = opaque;

	if (s->chr.on_writable)
		s->chr.on_writable(s->chr.opaque);
}

static void inner_break(void *opaque)
{
	struct share *s = opaque;

	if (s->chr.on_break)
		s->chr.on_break(s->chr.opaque);
}

/* ---- opening and closing ---- */

static void share_close(struct chr *chr)
{
	struct share *s = container_of(chr, struct share, chr);

	for (unsigned i = 0; i < MAX_CLIENTS; i++) {
		if (!s->client[i])
			continue;
		drain(s->client[i]);
		client_free(s->client[i]);
	}
	loop_fd_del(s->watch);
	if (s->listener >= 0) {
		unlinkat(s->dir, s->name, 0);
		close(s->listener);
	}
	loop_timer_free(s->out_kick);
	loop_timer_free(s->in_kick);
	if (s->inner)
		s->inner->ops->close(s->inner);
	pthread_mutex_destroy(&s->lock);
	free(s->name);
	free(s);
}

static const struct chr_ops share_ops = { share_write, share_input_ready, share_close };

int chr_share_open(int dir, const char *name, struct loop *loop, struct chr **chr, struct err *err)
{
	struct share *s = calloc(1, sizeof(*s));
	char *own_name = strdup(name);
	int rc;

	if (!s || !own_name) {
		free(s);
		free(own_name);
		return err_set(err, -ENOMEM, "no memory for the socket of a console");
	}
	s->chr.ops = &share_ops;
	s->loop = loop;
	s->dir = dir;
	s->name = own_name;
	s->listener = -1;
	pthread_mutex_init(&s->lock, NULL);
	s->out_kick = loop_timer_new(loop, on_kick, s);
	s->in_kick = loop_timer_new(loop, on_kick, s);
	rc = sock_listen(dir, name, &s->listener, err);
	if (!rc)
		rc = loop_fd_add(loop, s->listener, EPOLLIN, on_listener, s, &s->watch, err);
	if (rc) {
		share_close(&s->chr);
		return rc;
	}
	s->inner = *chr;
	s->inner->on_input = inner_input;
	s->inner->can_input = inner_can_input;
	s->inner->on_writable = inner_writable;
	s->inner->on_break = inner_break;
	s->inner->opaque = s;
	*chr = &s->chr;
	return 0;
}
