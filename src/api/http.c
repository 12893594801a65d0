/* HTTP/1.1 on Unix sockets by libmicrohttpd, which runs inside the main loop: its epoll descriptor is watched, its timeouts are
 * a timer of the loop, and it makes no thread.
 *
 * Connections are accepted here, so that the peer is checked (base/sock.h) and so that nobody can lock others out by holding
 * connections: when all are taken, the oldest gives way (hostile case A05). The library bounds headers by its memory per
 * connection, and ends connections that are silent; bodies are bounded here.
 *
 * Omitted: TLS and access by network, since the socket is its owner's.
 */
#include "api/http.h"

#include <dlfcn.h>
#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/os.h"
#include "base/sock.h"

#define MAX_CONNECTIONS   32
#define MAX_LISTENERS     2
#define CONNECTION_MEMORY (16 * KiB)
#define TIMEOUT_S         10
#define FLUSH_MS          100
#define EVICT_TURNS       8

/* The library, loaded when the first client comes: it brings a dozen others along, which cost a process milliseconds and
 * megabytes, and most machines, and all containers, do without. */
#define LIBRARY "libmicrohttpd.so.12"
/* clang-format off */
#define FUNCTIONS(X)                                                                                \
	X(start_daemon) X(stop_daemon) X(run) X(get_timeout) X(add_connection)                      \
	X(get_connection_info) X(get_daemon_info) X(create_response_from_buffer)                    \
	X(add_response_header) X(queue_response) X(destroy_response) X(lookup_connection_value)     \
	X(get_connection_values)

static struct {
#define X(name) typeof(MHD_##name) *name;
	FUNCTIONS(X)
#undef X
} mhd;

static int load_library(struct err *err)
{
	static const struct {
		const char *name;
		void *function; /* where its pointer goes */
	} rows[] = {
#define X(name) { "MHD_" #name, &mhd.name },
		FUNCTIONS(X)
#undef X
	};
	/* clang-format on */
	void *library = mhd.start_daemon ? NULL : dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

	if (!library && !mhd.start_daemon)
		return err_set(err, -ENOENT, LIBRARY " is needed for the control socket; install it (%s)",
			       dlerror());
	for (unsigned i = 0; library && i < ARRAY_SIZE(rows); i++) {
		void *symbol = dlsym(library, rows[i].name);

		memcpy(rows[i].function, &symbol, sizeof(symbol));
		if (!symbol) {
			mhd.start_daemon = NULL;
			dlclose(library);
			return err_set(err, -ENOENT, LIBRARY " has no %s; install a newer one", rows[i].name);
		}
	}
	return 0;
}

struct connection {
	int fd; /* -1: free */
	u64 since;
	bool busy; /* a request is complete, its answer is not */
};

struct listener {
	struct http *http;
	int fd;
	struct loop_fd *watch;
};

struct http {
	struct loop *loop;
	struct MHD_Daemon *daemon; /* NULL: nobody has come yet */
	struct loop_fd *watch;
	struct loop_timer *timer;
	struct listener listener[MAX_LISTENERS];
	unsigned nr_listeners;
	struct connection connection[MAX_CONNECTIONS];
	unsigned nr_busy;
	char *failed; /* there can be no daemon: what every client hears */
	void (*handle)(void *opaque, const struct http_request *req, struct http_response *res);
	void *opaque;
};

/* The body of a request while it comes. */
struct upload {
	size_t len;
	char body[HTTP_MAX_BODY];
};

/* ---- connections ---- */

static struct connection *find(struct http *h, int fd)
{
	for (unsigned i = 0; i < MAX_CONNECTIONS; i++)
		if (h->connection[i].fd == fd)
			return &h->connection[i];
	return NULL;
}

static struct connection *connection_of(struct http *h, struct MHD_Connection *c)
{
	const union MHD_ConnectionInfo *info = mhd.get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);

	return info ? find(h, info->connect_fd) : NULL;
}

static void on_connection(void *opaque, struct MHD_Connection *c, void **context,
			  enum MHD_ConnectionNotificationCode code)
{
	struct connection *slot = connection_of(opaque, c);

	if (slot && code == MHD_CONNECTION_NOTIFY_CLOSED)
		slot->fd = -1;
}

/* The one to give way: the oldest that waits for its client's request, else the oldest whose client does not fetch its answer. */
static struct connection *oldest(struct http *h)
{
	struct connection *best = NULL;

	for (unsigned i = 0; i < MAX_CONNECTIONS; i++) {
		struct connection *c = &h->connection[i];

		if (c->fd >= 0 &&
		    (!best || c->busy < best->busy || (c->busy == best->busy && c->since < best->since)))
			best = c;
	}
	return best;
}

static void run(struct http *h)
{
	MHD_UNSIGNED_LONG_LONG ms = 0;

	mhd.run(h->daemon);
	if (mhd.get_timeout(h->daemon, &ms) == MHD_YES)
		loop_timer_arm(h->timer, ms ? os_now_ns() + ms * 1000000 : 0);
	else
		loop_timer_cancel(h->timer);
}

static void on_event(void *opaque, u32 events)
{
	run(opaque);
}

static void on_timer(void *opaque)
{
	run(opaque);
}

/* ---- requests ---- */

static enum MHD_Result add_query(void *opaque, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct http_request *req = opaque;

	if (req->nr_query == HTTP_MAX_QUERY) {
		req->query_cut = true;
		return MHD_NO;
	}
	req->query[req->nr_query].name = name;
	req->query[req->nr_query++].value = value ? value : "";
	return MHD_YES;
}

static enum MHD_Result answer(struct MHD_Connection *c, struct http_response *res)
{
	struct MHD_Response *r =
		mhd.create_response_from_buffer(res->body_len, res->body, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result rc;

	if (!r) {
		free(res->body);
		return MHD_NO;
	}
	if (res->type)
		mhd.add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, res->type);
	if (res->allow)
		mhd.add_response_header(r, MHD_HTTP_HEADER_ALLOW, res->allow);
	rc = mhd.queue_response(c, (unsigned)res->status, r);
	mhd.destroy_response(r);
	return rc;
}

static enum MHD_Result too_large(struct MHD_Connection *c)
{
	static const char text[] = "{\"error\": \"the body of the request is too large\"}\n";
	struct http_response res = {
		.status = MHD_HTTP_CONTENT_TOO_LARGE,
		.type = "application/json",
		.body = strdup(text),
		.body_len = sizeof(text) - 1,
	};

	return res.body ? answer(c, &res) : MHD_NO;
}

/* The headers are there. */
static enum MHD_Result begin(struct MHD_Connection *c, void **context)
{
	const char *length = mhd.lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

	if (length && strtoull(length, NULL, 10) > HTTP_MAX_BODY)
		return too_large(c);
	*context = malloc(sizeof(struct upload));
	if (!*context)
		return MHD_NO;
	((struct upload *)*context)->len = 0;
	return MHD_YES;
}

static enum MHD_Result on_request(void *opaque, struct MHD_Connection *c, const char *path, const char *verb,
				  const char *version, const char *data, size_t *data_len, void **context)
{
	struct http *h = opaque;
	struct upload *u = *context;
	struct http_request req = { .verb = verb, .path = path };
	struct http_response res = { 0 };
	struct connection *slot;

	if (!u)
		return begin(c, context);
	if (*data_len) {
		/* A body in chunks, whose length was not said: the connection ends. */
		if (*data_len > sizeof(u->body) - u->len)
			return MHD_NO;
		memcpy(u->body + u->len, data, *data_len);
		u->len += *data_len;
		*data_len = 0;
		return MHD_YES;
	}
	req.body = u->body;
	req.body_len = u->len;
	mhd.get_connection_values(c, MHD_GET_ARGUMENT_KIND, add_query, &req);
	slot = connection_of(h, c);
	if (slot && !slot->busy) {
		slot->busy = true;
		h->nr_busy++;
	}
	h->handle(h->opaque, &req, &res);
	return answer(c, &res);
}

static void on_completed(void *opaque, struct MHD_Connection *c, void **context,
			 enum MHD_RequestTerminationCode code)
{
	struct http *h = opaque;
	struct connection *slot = connection_of(h, c);

	free(*context);
	*context = NULL;
	if (slot && slot->busy) {
		slot->busy = false;
		h->nr_busy--;
	}
}

/* ---- the server ---- */

static void be_quiet(void *opaque, const char *fmt, va_list ap)
{
}

static int start_daemon(struct http *h, struct err *err)
{
	const union MHD_DaemonInfo *info;
	int rc = load_library(err);

	if (rc)
		return rc;
	h->daemon = mhd.start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG, 0, NULL,
				     NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, be_quiet, NULL,
				     MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS,
				     MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
				     MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_S,
				     MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
				     MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_END);
	info = h->daemon ? mhd.get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (!info)
		return err_set(err, -EIO, "the server of the control socket cannot be started");
	return loop_fd_add(h->loop, info->epoll_fd, EPOLLIN, on_event, h, &h->watch, err);
}

/* True: there is one. What is in the way is logged once. */
static bool have_daemon(struct http *h)
{
	struct err err = { 0 };

	if (h->watch || h->failed || !start_daemon(h, &err))
		return h->watch;
	log_error("%s", err.msg);
	for (char *c = err.msg; *c; c++)
		if (*c == '"' || *c == '\\' || (u8)*c < ' ') /* which JSON would not have as they are */
			*c = '\'';
	if (asprintf(&h->failed,
		     "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
		     "Connection: close\r\n\r\n{\"error\": \"%s\"}\n",
		     err.msg) < 0)
		h->failed = NULL;
	return false;
}

/* Without the library, and so without a look at what the client wants. */
static void refuse(struct http *h, int fd)
{
	if (h->failed)
		(void)!send(fd, h->failed, strlen(h->failed), MSG_NOSIGNAL | MSG_DONTWAIT);
	shutdown(fd, SHUT_RDWR);
	close(fd);
}

static void on_listener(void *opaque, u32 events)
{
	struct listener *listener = opaque;
	struct http *h = listener->http;
	struct connection *slot;
	int fd = sock_accept(listener->fd);

	if (fd < 0)
		return;
	if (!have_daemon(h)) {
		refuse(h, fd);
		return;
	}
	/* The library sees the end of that connection in one of its next turns, and its place is free then. */
	for (unsigned i = 0; i < EVICT_TURNS && !find(h, -1); i++) {
		if (!i)
			shutdown(oldest(h)->fd, SHUT_RDWR);
		run(h);
	}
	slot = find(h, -1);
	if (!slot) {
		close(fd);
		return;
	}
	*slot = (struct connection){ .fd = fd, .since = os_now_ns() };
	/* It closes fd where it refuses. */
	if (mhd.add_connection(h->daemon, fd, NULL, 0) != MHD_YES)
		slot->fd = -1;
	run(h);
}

int http_new(struct loop *loop,
	     void (*handle)(void *opaque, const struct http_request *req, struct http_response *res),
	     void *opaque, struct http **ret_http, struct err *err)
{
	struct http *h = calloc(1, sizeof(*h));

	if (!h)
		return err_set(err, -ENOMEM, "no memory for the control socket");
	h->loop = loop;
	h->handle = handle;
	h->opaque = opaque;
	for (unsigned i = 0; i < MAX_CONNECTIONS; i++)
		h->connection[i].fd = -1;
	h->timer = loop_timer_new(loop, on_timer, h);
	*ret_http = h;
	return 0;
}

int http_listen(struct http *h, int fd, struct err *err)
{
	unsigned i = h->nr_listeners;
	int rc;

	if (i == MAX_LISTENERS) {
		close(fd);
		return err_set(err, -ENOSPC, "the control server has %d sockets already", MAX_LISTENERS);
	}
	h->listener[i].http = h;
	h->listener[i].fd = fd;
	rc = loop_fd_add(h->loop, fd, EPOLLIN, on_listener, &h->listener[i], &h->listener[i].watch, err);
	if (rc)
		close(fd);
	else
		h->nr_listeners++;
	return rc;
}

void http_free(struct http *h)
{
	u64 end = os_now_ns() + FLUSH_MS * 1000000ull;

	if (!h)
		return;
	for (unsigned i = 0; i < h->nr_listeners; i++) {
		loop_fd_del(h->listener[i].watch);
		close(h->listener[i].fd);
	}
	while (h->nr_busy && os_now_ns() < end) {
		struct pollfd pfd = { .events = POLLIN };

		mhd.run(h->daemon);
		pfd.fd = mhd.get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
		if (h->nr_busy)
			poll(&pfd, 1, 5);
	}
	loop_fd_del(h->watch);
	loop_timer_free(h->timer);
	if (h->daemon)
		mhd.stop_daemon(h->daemon);
	free(h->failed);
	free(h);
}
