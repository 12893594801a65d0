/* Unix sockets for a vsock device.
 *
 * A thread of its own waits for all of them, edge-triggered: the device tries a socket until it has nothing or no room, and is
 * told when that changes. A client that has connected first says which port it wants; until it has, it is one of a few
 * waiting ones, of which the oldest is sent away when there are too many and it has had its time (hostile case G35). Its line is read no further than to
 * its end: what follows is the guest's.
 *
 * Threads: as in vm/vsock.h.
 */
#include "host/vsock_unix.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/sock.h"

#define MAX_WAITING 128
#define PATIENCE_NS 2000000000 /* that a waiting one has where others want its place */
#define ACCEPTS     16         /* before others get their turn */
#define MAX_LINE    32         /* of "CONNECT 4294967295\n" */
#define MAX_EVENTS  64
#define RETRY_MS    100 /* when there is no place or no descriptor for another client */
#define EVENTS      (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

/* What an event is of: kind, number, and how often that has been used. */
enum { E_WAKE, E_LISTEN, E_WAITING, E_STREAM };

struct end {
	int fd; /* -1: none */
	u32 uses;
	u64 since; /* of a waiting client */
};

struct vsock_unix {
	struct vsock vs;
	char *path;
	int listener, epoll, wake;
	bool full; /* the listener is left alone for a moment */
	bool running;
	_Atomic bool stop;
	pthread_t thread;
	struct end stream[VSOCK_MAX_STREAMS]; /* under vs.lock */
	struct end waiting[MAX_WAITING];      /* the thread's, as the next */
	unsigned oldest;
};

static struct vsock_unix *unix_of(struct vsock *vs)
{
	return container_of(vs, struct vsock_unix, vs);
}

static u64 event_data(unsigned kind, unsigned number, u32 uses)
{
	return (u64)kind << 48 | (u64)number << 32 | uses;
}

static int watch(struct vsock_unix *u, int fd, u32 events, u64 data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	return epoll_ctl(u->epoll, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* fd becomes the stream's. */
static int add_stream(struct vsock_unix *u, unsigned slot, int fd)
{
	struct end *e = &u->stream[slot];

	e->fd = fd;
	return watch(u, fd, EVENTS, event_data(E_STREAM, slot, ++e->uses));
}

static void end_close(struct end *e)
{
	if (e->fd >= 0)
		close(e->fd);
	e->fd = -1;
}

/* ---- what the device asks for ---- */

static int unix_connect(struct vsock *vs, unsigned slot, u32 port)
{
	struct vsock_unix *u = unix_of(vs);
	size_t size = strlen(u->path) + 16;
	char *path = malloc(size);
	int fd, rc;

	if (!path)
		return -ENOMEM;
	snprintf(path, size, "%s_%u", u->path, port);
	rc = sock_try_connect(AT_FDCWD, path, &fd);
	free(path);
	if (!rc) {
		rc = add_stream(u, slot, fd);
		if (rc)
			end_close(&u->stream[slot]);
	}
	return rc;
}

static void unix_accepted(struct vsock *vs, unsigned slot, u32 host_port)
{
	char line[MAX_LINE];
	int len = snprintf(line, sizeof(line), "OK %u\n", host_port);

	/* The first bytes to this socket, which has room for them. If it has gone, that is seen soon. */
	if (send(unix_of(vs)->stream[slot].fd, line, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

static ssize_t unix_send(struct vsock *vs, unsigned slot, const struct iovec *iov, unsigned nr)
{
	const struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = nr };
	ssize_t n = sendmsg(unix_of(vs)->stream[slot].fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

	return n < 0 ? -errno : n;
}

static ssize_t unix_recv(struct vsock *vs, unsigned slot, const struct iovec *iov, unsigned nr)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = nr };
	ssize_t n = recvmsg(unix_of(vs)->stream[slot].fd, &msg, MSG_DONTWAIT);

	return n < 0 ? -errno : n;
}

static void unix_shut(struct vsock *vs, unsigned slot, bool send, bool recv)
{
	if (send || recv)
		shutdown(unix_of(vs)->stream[slot].fd, send && recv ? SHUT_RDWR : send ? SHUT_WR : SHUT_RD);
}

static void unix_close(struct vsock *vs, unsigned slot)
{
	end_close(&unix_of(vs)->stream[slot]);
}

static void unix_again(struct vsock *vs)
{
	u64 one = 1;

	/* Fails only when it has rung already. */
	if (write(unix_of(vs)->wake, &one, sizeof(one)) < 0)
		return;
}

/* ---- the thread ---- */

/* The port of "CONNECT PORT"; false: that is not what it says. */
static bool parse_line(const char *line, u32 *ret_port)
{
	static const char word[] = "CONNECT ";
	const char *digits = line + strlen(word);
	u64 port = 0;

	if (strncmp(line, word, strlen(word)) || !*digits || digits[strspn(digits, "0123456789")])
		return false;
	port = strtoull(digits, NULL, 10);
	*ret_port = (u32)port;
	return strlen(digits) <= 10 && port < UINT32_MAX;
}

/* Under the device's lock. */
static void hear(struct vsock_unix *u, struct end *e)
{
	char line[MAX_LINE + 1];
	ssize_t n = recv(e->fd, line, MAX_LINE, MSG_PEEK | MSG_DONTWAIT);
	char *end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
	u32 port;
	int slot, fd;

	if (!end) {
		/* Gone, or longer than any line can be. */
		if ((n < 0 && errno != EAGAIN) || n == 0 || n == MAX_LINE)
			end_close(e);
		return;
	}
	n = recv(e->fd, line, (size_t)(end + 1 - line), MSG_DONTWAIT);
	*end = 0;
	slot = n == end + 1 - line && parse_line(line, &port) ? u->vs.incoming(u->vs.opaque, port) : -1;
	if (slot < 0) {
		end_close(e);
		return;
	}
	fd = e->fd;
	e->fd = -1;
	epoll_ctl(u->epoll, EPOLL_CTL_DEL, fd, NULL);
	if (add_stream(u, (unsigned)slot, fd) < 0)
		u->vs.ready(u->vs.opaque, (unsigned)slot, VSOCK_GONE);
}

/* Under the device's lock. */
static void accept_clients(struct vsock_unix *u)
{
	for (unsigned i = 0; i < ACCEPTS; i++) {
		struct end *e = &u->waiting[u->oldest];
		int fd;

		/* It may have spoken, and not been heard yet. */
		if (e->fd >= 0)
			hear(u, e);
		u->full = e->fd >= 0 && os_now_ns() - e->since < PATIENCE_NS;
		if (u->full)
			return;
		fd = sock_accept(u->listener);
		if (fd == -EPERM)
			continue;
		if (fd < 0) {
			/* Somebody waits, and there is no descriptor for him: not to be asked at once again. */
			u->full = fd != -EAGAIN && fd != -ECONNABORTED;
			return;
		}
		if (e->fd >= 0)
			log_guest("vsock: a client that says nothing is sent away for another one");
		end_close(e);
		e->fd = fd;
		e->since = os_now_ns();
		if (watch(u, fd, EPOLLIN | EPOLLRDHUP, event_data(E_WAITING, u->oldest, ++e->uses)) < 0)
			end_close(e);
		u->oldest = (u->oldest + 1) % MAX_WAITING;
	}
}

static void on_event(struct vsock_unix *u, const struct epoll_event *ev)
{
	unsigned kind = (unsigned)(ev->data.u64 >> 48), number = (u16)(ev->data.u64 >> 32), what = 0;
	u32 uses = (u32)ev->data.u64;
	u64 drop;

	switch (kind) {
	case E_WAKE:
		if (read(u->wake, &drop, sizeof(drop)) < 0)
			return;
		break;
	case E_LISTEN: accept_clients(u); break;
	case E_WAITING:
		if (u->waiting[number].fd >= 0 && u->waiting[number].uses == uses)
			hear(u, &u->waiting[number]);
		break;
	default:
		if (u->stream[number].fd < 0 || u->stream[number].uses != uses)
			return;
		what |= ev->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR) ? VSOCK_READABLE : 0;
		what |= ev->events & EPOLLOUT ? VSOCK_WRITABLE : 0;
		what |= ev->events & (EPOLLHUP | EPOLLERR) ? VSOCK_GONE : 0;
		u->vs.ready(u->vs.opaque, number, what);
	}
}

static void listen_or_not(struct vsock_unix *u, bool on)
{
	struct epoll_event ev = { .events = on ? EPOLLIN : 0, .data.u64 = event_data(E_LISTEN, 0, 0) };

	epoll_ctl(u->epoll, EPOLL_CTL_MOD, u->listener, &ev);
}

static void *work(void *opaque)
{
	struct vsock_unix *u = opaque;
	struct epoll_event events[MAX_EVENTS];
	bool was_full = false;

	while (!atomic_load(&u->stop)) {
		int n = epoll_wait(u->epoll, events, MAX_EVENTS, was_full ? RETRY_MS : -1);

		u->full = false;
		pthread_mutex_lock(u->vs.lock);
		for (int i = 0; i < n && !atomic_load(&u->stop); i++)
			on_event(u, &events[i]);
		if (!atomic_load(&u->stop))
			u->vs.idle(u->vs.opaque);
		pthread_mutex_unlock(u->vs.lock);
		if (u->full != was_full)
			listen_or_not(u, !u->full);
		was_full = u->full;
	}
	return NULL;
}

/* Signals are for the threads that wait for them. */
static void unix_start(struct vsock *vs)
{
	struct vsock_unix *u = unix_of(vs);
	sigset_t all, old;

	if (u->running)
		return;
	atomic_store(&u->stop, false);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	u->running = !pthread_create(&u->thread, NULL, work, u);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!u->running)
		log_error("vsock %s: there is no thread for it; the guest's sockets do not work", u->path);
	/* What was to be done when it stopped. */
	unix_again(vs);
}

static void unix_stop(struct vsock *vs)
{
	struct vsock_unix *u = unix_of(vs);

	if (!u->running)
		return;
	atomic_store(&u->stop, true);
	unix_again(vs);
	pthread_join(u->thread, NULL);
	u->running = false;
}

/* ---- opening ---- */

static void unix_free(struct vsock *vs)
{
	struct vsock_unix *u = unix_of(vs);

	for (unsigned i = 0; i < VSOCK_MAX_STREAMS; i++)
		end_close(&u->stream[i]);
	for (unsigned i = 0; i < MAX_WAITING; i++)
		end_close(&u->waiting[i]);
	if (u->listener >= 0) {
		unlink(u->path);
		close(u->listener);
	}
	if (u->epoll >= 0)
		close(u->epoll);
	if (u->wake >= 0)
		close(u->wake);
	free(u->path);
	free(u);
}

static const struct vsock_ops unix_ops = {
	.connect = unix_connect,
	.accepted = unix_accepted,
	.send = unix_send,
	.recv = unix_recv,
	.shut = unix_shut,
	.close = unix_close,
	.again = unix_again,
	.start = unix_start,
	.stop = unix_stop,
	.free = unix_free,
};

/* A name that a process which was killed has left behind: a socket, and nobody listens. */
static void remove_left(const char *path)
{
	struct stat st;
	int fd, rc;

	if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return;
	rc = sock_try_connect(AT_FDCWD, path, &fd);
	if (rc == -ECONNREFUSED)
		unlink(path);
	else if (!rc)
		close(fd);
}

int vsock_unix_open(u32 cid, const char *path, struct vsock **ret_vsock, struct err *err)
{
	struct vsock_unix *u = calloc(1, sizeof(*u));
	int rc;

	if (!u)
		return err_set(err, -ENOMEM, "no memory for --vsock");
	u->vs.ops = &unix_ops;
	u->vs.cid = cid;
	u->listener = -1;
	u->path = strdup(path);
	u->epoll = epoll_create1(EPOLL_CLOEXEC);
	u->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	for (unsigned i = 0; i < VSOCK_MAX_STREAMS; i++)
		u->stream[i].fd = -1;
	for (unsigned i = 0; i < MAX_WAITING; i++)
		u->waiting[i].fd = -1;
	os_fd_limit(4 * VSOCK_MAX_STREAMS);
	if (!u->path || u->epoll < 0 || u->wake < 0) {
		rc = err_sys(err, -errno, "cannot make what --vsock needs");
	} else {
		remove_left(path);
		rc = sock_listen(AT_FDCWD, path, &u->listener, err);
		if (rc)
			err_wrap(err, "--vsock");
	}
	if (!rc) {
		rc = watch(u, u->wake, EPOLLIN, event_data(E_WAKE, 0, 0));
		if (!rc)
			rc = watch(u, u->listener, EPOLLIN, event_data(E_LISTEN, 0, 0));
		if (rc)
			err_sys(err, rc, "cannot wait for the sockets of --vsock");
	}
	if (rc) {
		unix_free(&u->vs);
		return rc;
	}
	*ret_vsock = &u->vs;
	return 0;
}
