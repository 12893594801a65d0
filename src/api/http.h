/* HTTP/1.1 on Unix sockets, in the main loop: takes a request apart, hands it on, sends the answer. Knows no methods.
 *
 * All on the main thread; a handler answers at once. What a client can take is bounded: connections, bytes of headers and
 * body, time without a sign of life. */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct http;
struct loop;

#define HTTP_MAX_BODY  (64 * KiB)
#define HTTP_MAX_QUERY 8

struct http_request {
	const char *verb, *path; /* decoded, without the query */
	struct {
		const char *name, *value; /* decoded; value "" where there was none */
	} query[HTTP_MAX_QUERY];
	unsigned nr_query;
	bool query_cut; /* there was more than that */
	const char *body;
	size_t body_len;
};

struct http_response {
	int status;
	const char *type;  /* media type */
	const char *allow; /* for status 405: the verbs; NULL: no such header */
	char *body;        /* free()d by the server; NULL: empty */
	size_t body_len;
};

/* handle() fills *res, which comes zeroed; opaque is its own. */
int http_new(struct loop *loop,
	     void (*handle)(void *opaque, const struct http_request *req, struct http_response *res),
	     void *opaque, struct http **ret_http, struct err *err);
/* Serves connections that come to a listening socket, which is the server's from then on. At most two. */
int http_listen(struct http *http, int fd, struct err *err);
/* Sends what is under way, for a tenth of a second at most, and closes everything. NULL is allowed. */
void http_free(struct http *http);
