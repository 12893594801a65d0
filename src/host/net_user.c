/* The user-mode network, by libslirp.
 *
 * A thread of its own runs the library, which is not made for more than one: it waits for the host's sockets, for frames
 * from the guest, and for the guest's buffers. Between it and the device stand two rings of frames. What the guest
 * sends is copied into one under a leaf lock; what the library has for the guest waits in the other, is the
 * thread's alone, and is handed over in batches under the device's lock. While the guest takes nothing, no socket
 * is read, so that data waits where it comes from; what the library sends all the same and does not fit is dropped, which
 * TCP repairs.
 *
 * Each connection of the guest is a socket of this process, which the library makes without a limit. So they are counted, and
 * at a limit what would make another one is dropped, as by a network that is full: the rest of the process keeps
 * the descriptors that it needs (disks, consoles, control).
 *
 * Omitted: IPv6, and the library's servers for files (TFTP) and old protocols (enable_emu). The guest reaches the host's
 * loopback address as 10.0.2.2, as users of such networks expect.
 *
 * Threads: as in vm/net.h.
 */
#include "host/net_user.h"

#include <errno.h>

#if HAVE_SLIRP
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <slirp/libslirp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/lazy.h"
#include "base/log.h"
#include "base/os.h"

#define RING_SIZE        (1u << 20)
#define RX_PAUSE         (RING_SIZE / 4) /* more than that waits for the guest: sockets are left alone */
#define MAX_FDS          1024
#define TX_BATCH         256 /* frames of the guest before others get their turn */
#define IDLE_MS          1000
#define PAUSED_MS        50
#define MAX_TIMERS       4
#define MAX_SOCKETS      (MAX_FDS - 128)
#define DATAGRAM_SOCKETS 64 /* more, for datagrams only: a guest with many connections still finds names */

/* The library, which is loaded with the first such network. */
static struct {
	__typeof__(slirp_new) *new;
	__typeof__(slirp_cleanup) *cleanup;
	__typeof__(slirp_input) *input;
	__typeof__(slirp_pollfds_fill) *pollfds_fill;
	__typeof__(slirp_pollfds_poll) *pollfds_poll;
	__typeof__(slirp_add_hostfwd) *add_hostfwd;
} lib;

static const struct lazy_function lib_functions[] = {
	{ "slirp_new", &lib.new },
	{ "slirp_cleanup", &lib.cleanup },
	{ "slirp_input", &lib.input },
	{ "slirp_pollfds_fill", &lib.pollfds_fill },
	{ "slirp_pollfds_poll", &lib.pollfds_poll },
	{ "slirp_add_hostfwd", &lib.add_hostfwd },
};

/* Frames one behind the other, each with its length; one that would be cut at the end begins at 0. */
struct ring {
	u8 *mem;
	u32 head, tail; /* where the next is taken, put */
	u32 used;       /* bytes, with what is skipped at the end */
};

struct timer {
	SlirpTimerCb cb;
	void *opaque;
	s64 due; /* ms, -1: not armed */
	bool taken;
};

struct net_user {
	struct net net;
	Slirp *slirp;
	int wake; /* eventfd */
	pthread_t thread;
	bool running;
	_Atomic bool stop, guest_ready;

	pthread_mutex_t guard; /* of the next two */
	struct ring tx;
	bool tx_starved;

	/* The thread's. */
	struct ring rx;
	u64 dropped;
	struct pollfd fds[MAX_FDS];
	unsigned nr_fds;
	unsigned nr_sockets, max_sockets;
	u64 refused;
	struct timer timer[MAX_TIMERS];
	u8 frame[NET_MAX_FRAME];
};

/* ---- rings ---- */

static bool ring_put(struct ring *r, const void *frame, u32 len)
{
	u32 need = ALIGN_UP(len + 4, 4u), skip = 0;

	if (r->tail + need > RING_SIZE)
		skip = RING_SIZE - r->tail;
	if (need + skip > RING_SIZE - r->used)
		return false;
	if (skip) {
		u32 none = 0;

		memcpy(r->mem + r->tail, &none, sizeof(none));
		r->used += skip;
		r->tail = 0;
	}
	memcpy(r->mem + r->tail, &len, sizeof(len));
	memcpy(r->mem + r->tail + 4, frame, len);
	r->tail = (r->tail + need) % RING_SIZE;
	r->used += need;
	return true;
}

/* The first frame, which stays; NULL: there is none. */
static const u8 *ring_first(struct ring *r, u32 *ret_len)
{
	u32 len = 0;

	if (!r->used)
		return NULL;
	memcpy(&len, r->mem + r->head, sizeof(len));
	if (!len) { /* the end was skipped */
		r->used -= RING_SIZE - r->head;
		r->head = 0;
		memcpy(&len, r->mem, sizeof(len));
	}
	*ret_len = len;
	return r->mem + r->head + 4;
}

static void ring_drop(struct ring *r, u32 len)
{
	u32 need = ALIGN_UP(len + 4, 4u);

	r->head = (r->head + need) % RING_SIZE;
	r->used -= need;
}

/* ---- what the library asks for; on its thread ---- */

static ssize_t on_packet(const void *buf, size_t len, void *opaque)
{
	struct net_user *u = opaque;

	if (len > NET_MAX_FRAME || !len || !ring_put(&u->rx, buf, (u32)len)) {
		u->dropped++;
		log_guest("network: %llu frames for the guest were dropped so far, it does not take them",
			  (unsigned long long)u->dropped);
	}
	return (ssize_t)len;
}

static void on_guest_error(const char *msg, void *opaque)
{
	log_guest("network: the guest sends nonsense: %s", msg);
}

static int64_t on_clock(void *opaque)
{
	return (int64_t)os_now_ns();
}

static void *timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	struct net_user *u = opaque;

	for (unsigned i = 0; i < MAX_TIMERS; i++) {
		if (!u->timer[i].taken) {
			u->timer[i] = (struct timer){ cb, cb_opaque, -1, true };
			return &u->timer[i];
		}
	}
	return NULL;
}

static void timer_free(void *timer, void *opaque)
{
	struct timer *t = timer;

	if (t)
		t->taken = false;
}

static void timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct timer *t = timer;

	if (t)
		t->due = expire_ms;
}

static void on_socket(int fd, void *opaque)
{
	struct net_user *u = opaque;

	u->nr_sockets++;
}

static void on_socket_closed(int fd, void *opaque)
{
	struct net_user *u = opaque;

	if (u->nr_sockets)
		u->nr_sockets--;
}

static void wake_up(struct net_user *u)
{
	u64 one = 1;

	/* Fails only when it has rung already. */
	if (write(u->wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error("network: cannot wake its thread: errno %d", errno);
}

static void on_notify(void *opaque)
{
	wake_up(opaque);
}

static const SlirpCb callbacks = {
	.send_packet = on_packet,
	.guest_error = on_guest_error,
	.clock_get_ns = on_clock,
	.timer_new = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = on_socket,
	.unregister_poll_fd = on_socket_closed,
	.notify = on_notify,
};

static int add_poll(int fd, int events, void *opaque)
{
	struct net_user *u = opaque;
	short e = 0;

	if (u->nr_fds == MAX_FDS)
		return -1;
	e |= events & SLIRP_POLL_IN ? POLLIN : 0;
	e |= events & SLIRP_POLL_OUT ? POLLOUT : 0;
	e |= events & SLIRP_POLL_PRI ? POLLPRI : 0;
	u->fds[u->nr_fds] = (struct pollfd){ .fd = fd, .events = e };
	return (int)u->nr_fds++;
}

static int get_revents(int idx, void *opaque)
{
	struct net_user *u = opaque;
	short e;
	int r = 0;

	if (idx < 0 || (unsigned)idx >= u->nr_fds)
		return 0;
	e = u->fds[idx].revents;
	r |= e & POLLIN ? SLIRP_POLL_IN : 0;
	r |= e & POLLOUT ? SLIRP_POLL_OUT : 0;
	r |= e & POLLPRI ? SLIRP_POLL_PRI : 0;
	r |= e & POLLERR ? SLIRP_POLL_ERR : 0;
	r |= e & POLLHUP ? SLIRP_POLL_HUP : 0;
	return r;
}

/* ---- the thread ---- */

static void run_timers(struct net_user *u)
{
	s64 now = (s64)(os_now_ns() / 1000000);

	for (unsigned i = 0; i < MAX_TIMERS; i++) {
		struct timer *t = &u->timer[i];

		if (t->taken && t->due >= 0 && t->due <= now) {
			t->due = -1;
			t->cb(t->opaque);
		}
	}
}

/* At the limit: would this frame, or what it is a fragment of, make the library open a socket? What it already has one for
 * cannot be told apart, but for TCP. */
static bool opens_socket(const u8 *frame, u32 len, bool datagrams)
{
	const u8 *ip = frame + 14;
	u32 header;

	if (len < 14 + 20 || frame[12] != 0x08 || frame[13] != 0)
		return false;
	header = (ip[0] & 15u) * 4;
	if (ip[9] != IPPROTO_TCP)
		return datagrams;
	/* A fragment may hide the flags. */
	if (ip[6] & 0x3f || ip[7] || len < 14 + header + 14)
		return true;
	return (ip[header + 13] & 0x12) == 0x02; /* SYN without ACK */
}

static bool admit(struct net_user *u, u32 len)
{
	if (likely(u->nr_sockets < u->max_sockets) ||
	    !opens_socket(u->frame, len, u->nr_sockets >= u->max_sockets + DATAGRAM_SOCKETS))
		return true;
	u->refused++;
	log_guest("network: the guest has %u connections, %llu further ones were refused so far",
		  u->nr_sockets, (unsigned long long)u->refused);
	return false;
}

/* The guest's frames to the library. */
static void take_tx(struct net_user *u)
{
	bool starved = false;

	for (unsigned n = 0; n < TX_BATCH; n++) {
		const u8 *first;
		u32 len = 0;

		pthread_mutex_lock(&u->guard);
		first = ring_first(&u->tx, &len);
		if (first) {
			memcpy(u->frame, first, len);
			ring_drop(&u->tx, len);
		}
		if (u->tx_starved && u->tx.used < RING_SIZE / 2) {
			u->tx_starved = false;
			starved = true;
		}
		pthread_mutex_unlock(&u->guard);
		if (!first)
			break;
		if (admit(u, len))
			lib.input(u->slirp, u->frame, (int)len);
		/* Answers wait for nothing. */
		if (u->rx.used > RX_PAUSE)
			break;
	}
	if (starved) {
		pthread_mutex_lock(u->net.lock);
		u->net.writable(u->net.opaque);
		pthread_mutex_unlock(u->net.lock);
	}
}

static void give_rx(struct net_user *u)
{
	const u8 *frame;
	u32 len;

	if (!u->rx.used)
		return;
	pthread_mutex_lock(u->net.lock);
	while ((frame = ring_first(&u->rx, &len)) && u->net.receive(u->net.opaque, frame, len))
		ring_drop(&u->rx, len);
	u->net.received(u->net.opaque);
	pthread_mutex_unlock(u->net.lock);
}

static bool tx_waits(struct net_user *u)
{
	bool waits;

	pthread_mutex_lock(&u->guard);
	waits = u->tx.used;
	pthread_mutex_unlock(&u->guard);
	return waits;
}

static void turn(struct net_user *u)
{
	bool paused = u->rx.used > RX_PAUSE;
	u32 timeout = paused ? PAUSED_MS : IDLE_MS;
	bool ready;
	u64 count;
	int n;

	u->fds[0] = (struct pollfd){ .fd = u->wake, .events = POLLIN };
	u->nr_fds = 1;
	if (!paused)
		lib.pollfds_fill(u->slirp, &timeout, add_poll, u);
	/* Later words ring the eventfd. */
	ready = atomic_exchange(&u->guest_ready, false);
	if ((!paused && tx_waits(u)) || (ready && u->rx.used))
		timeout = 0;
	n = poll(u->fds, u->nr_fds, (int)MIN(timeout, (u32)IDLE_MS));
	if (u->fds[0].revents & POLLIN && read(u->wake, &count, sizeof(count)) < 0)
		return;
	if (!paused) {
		lib.pollfds_poll(u->slirp, n < 0, get_revents, u);
		take_tx(u);
	}
	run_timers(u);
	give_rx(u);
}

static void *run(void *opaque)
{
	struct net_user *u = opaque;

	while (!u->stop)
		turn(u);
	return NULL;
}

/* ---- the contract ---- */

static bool user_send(struct net *net, const struct net_work *work, const void *frame, size_t len)
{
	struct net_user *u = container_of(net, struct net_user, net);
	bool was_empty, ok;

	pthread_mutex_lock(&u->guard);
	was_empty = !u->tx.used;
	ok = ring_put(&u->tx, frame, (u32)len);
	if (!ok)
		u->tx_starved = true;
	pthread_mutex_unlock(&u->guard);
	if (was_empty || !ok)
		wake_up(u);
	return ok;
}

static void user_ready(struct net *net)
{
	struct net_user *u = container_of(net, struct net_user, net);

	if (!atomic_exchange(&u->guest_ready, true))
		wake_up(u);
}

static void user_start(struct net *net)
{
	struct net_user *u = container_of(net, struct net_user, net);
	sigset_t all, old;

	if (u->running)
		return;
	u->stop = false;
	/* Signals are for the threads that wait for them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	u->running = pthread_create(&u->thread, NULL, run, u) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!u->running)
		log_error("network: no thread can be made for it; the guest has none");
}

static void user_stop(struct net *net)
{
	struct net_user *u = container_of(net, struct net_user, net);

	if (!u->running)
		return;
	u->stop = true;
	wake_up(u);
	pthread_join(u->thread, NULL);
	u->running = false;
}

static void user_close(struct net *net)
{
	struct net_user *u = container_of(net, struct net_user, net);

	if (u->slirp)
		lib.cleanup(u->slirp);
	if (u->wake >= 0)
		close(u->wake);
	pthread_mutex_destroy(&u->guard);
	free(u->tx.mem);
	free(u->rx.mem);
	free(u);
}

static const struct net_ops user_ops = { user_send, user_ready, user_start, user_stop, user_close };

/* ---- opening ---- */

/* "ADDR:PORT" up to `end`; an empty ADDR is `any`. */
static bool parse_end(const char *text, const char *end, const char *any, struct in_addr *ret_addr,
		      int *ret_port)
{
	char addr[INET_ADDRSTRLEN];
	const char *colon = memchr(text, ':', (size_t)(end - text));
	size_t len = colon ? (size_t)(colon - text) : 0;
	long port = 0;

	if (!colon || len >= sizeof(addr) || colon + 1 == end || end - colon > 6)
		return false;
	snprintf(addr, sizeof(addr), "%.*s", (int)len, text);
	for (const char *p = colon + 1; p < end; p++) {
		if (*p < '0' || *p > '9')
			return false;
		port = port * 10 + (*p - '0');
	}
	if (port < 1 || port > 65535 || inet_pton(AF_INET, len ? addr : any, ret_addr) != 1)
		return false;
	*ret_port = (int)port;
	return true;
}

static int forward(struct net_user *u, const char *text, struct err *err)
{
	bool udp = !strncmp(text, "udp:", 4);
	const char *dash = strchr(text, '-');
	struct in_addr host, guest;
	int host_port, guest_port;

	if ((!udp && strncmp(text, "tcp:", 4)) || !dash ||
	    !parse_end(text + 4, dash, "0.0.0.0", &host, &host_port) ||
	    !parse_end(dash + 1, dash + 1 + strlen(dash + 1), "10.0.2.15", &guest, &guest_port))
		return err_set(
			err, -EINVAL,
			"--net: 'hostfwd' cannot be '%.64s'; give tcp:ADDR:PORT-:PORT, host first, as in tcp:127.0.0.1:2222-:22",
			text);
	if (lib.add_hostfwd(u->slirp, udp, host, host_port, guest, guest_port) < 0) {
		int code = errno ? -errno : -EADDRINUSE;

		if (code == -EADDRINUSE)
			return err_set(
				err, code,
				"--net: port %d of this host is taken by another program; choose another one in hostfwd=%s",
				host_port, text);
		return err_sys(err, code, "--net: hostfwd=%s is not possible", text);
	}
	return 0;
}

/* Half of the descriptors at most. */
static unsigned socket_limit(void)
{
	return (unsigned)MIN(os_fd_limit(4 * MAX_FDS) / 2, (u64)MAX_SOCKETS);
}

static int make(struct net_user *u, const struct net_user_conf *conf, struct err *err)
{
	SlirpConfig c = {
		.version = 1,
		.in_enabled = true,
		.if_mtu = conf->mtu,
		.if_mru = conf->mtu,
	};
	int r = 0;

	inet_pton(AF_INET, "10.0.2.0", &c.vnetwork);
	inet_pton(AF_INET, "255.255.255.0", &c.vnetmask);
	inet_pton(AF_INET, "10.0.2.2", &c.vhost);
	inet_pton(AF_INET, "10.0.2.15", &c.vdhcp_start);
	inet_pton(AF_INET, "10.0.2.3", &c.vnameserver);
	u->max_sockets = socket_limit();
	u->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (u->wake < 0)
		return err_sys(err, -errno, "--net: cannot make an eventfd");
	u->tx.mem = malloc(RING_SIZE);
	u->rx.mem = malloc(RING_SIZE);
	if (u->tx.mem && u->rx.mem)
		u->slirp = lib.new(&c, &callbacks, u);
	if (!u->slirp)
		return err_set(err, -ENOMEM, "--net: no memory for the user-mode network");
	for (unsigned i = 0; i < conf->nr_forwards && r == 0; i++) {
		errno = 0;
		r = forward(u, conf->forward[i], err);
	}
	return r;
}

int net_user_open(const struct net_user_conf *conf, struct net **ret_net, struct err *err)
{
	struct net_user *u;
	int r = lazy_load("libslirp.so.0", lib_functions, ARRAY_SIZE(lib_functions), err);

	if (r < 0)
		return err_wrap(err, "--net");
	u = calloc(1, sizeof(*u));
	if (!u)
		return err_set(err, -ENOMEM, "--net: no memory for the user-mode network");
	pthread_mutex_init(&u->guard, NULL);
	u->wake = -1;
	u->net.ops = &user_ops;
	u->net.mtu = conf->mtu;
	r = make(u, conf, err);
	if (r < 0) {
		user_close(&u->net);
		return r;
	}
	*ret_net = &u->net;
	return 0;
}

#else

int net_user_open(const struct net_user_conf *conf, struct net **ret_net, struct err *err)
{
	return err_set(
		err, -ENOSYS,
		"--net: this bothy was built without libslirp, so there is no user network; use --net none");
}

#endif
