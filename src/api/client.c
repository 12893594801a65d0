/* One HTTP request, one answer, end of the connection. The answer is not trusted: its size is bounded, its parts are checked. */
#include "api/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "api/runtime.h"
#include "base/sock.h"

#define TIMEOUT_S  10
#define MAX_ANSWER (32 * MiB) /* the picture of a large screen */

/* The machine may end at any moment: no signal for that. One that refuses does not wait for the request; its answer says why. */
static int send_all(int fd, const char *text, size_t len, struct err *err)
{
	while (len) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EPIPE)
			break;
		if (n < 0)
			return err_sys(err, -errno, "the request cannot be sent");
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/* All that comes until the end; free(). */
static int receive(int fd, char **ret_text, size_t *ret_len, struct err *err)
{
	size_t len = 0, room = 0;
	char *text = NULL;

	for (;;) {
		ssize_t n;

		if (len + 1 >= room) {
			char *more = room < MAX_ANSWER ? realloc(text, room ? room * 2 : 64 * KiB) : NULL;

			if (!more) {
				free(text);
				return err_set(err, -EFBIG, "the machine's answer is too large");
			}
			text = more;
			room = room ? room * 2 : 64 * KiB;
		}
		n = recv(fd, text + len, room - len - 1, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == ECONNRESET) /* it ended before it had read all; what it said is here */
			break;
		if (n < 0) {
			int code = errno;

			free(text);
			if (code == EAGAIN)
				return err_set(err, -ETIMEDOUT, "the machine does not answer");
			return err_sys(err, -code, "the machine's answer cannot be read");
		}
		if (!n)
			break;
		len += (size_t)n;
	}
	text[len] = 0;
	*ret_text = text;
	*ret_len = len;
	return 0;
}

static int parse(const char *text, size_t len, json_t **ret_result, struct err *err)
{
	const char *body = text ? strstr(text, "\r\n\r\n") : NULL;
	int status = 0;
	json_t *value;

	if (!text || !len)
		return err_set(err, -ECONNRESET, "the machine has ended the connection without an answer");
	if (sscanf(text, "HTTP/1.%*1[01] %3d", &status) != 1 || !body)
		return err_set(err, -EPROTO, "the machine's answer is not HTTP");
	body += 4;
	value = json_loadb(body, len - (size_t)(body - text), 0, NULL);
	if (!json_is_object(value)) {
		json_decref(value);
		return err_set(err, -EPROTO, "the machine's answer (status %d) is no JSON object", status);
	}
	if (status != 200) {
		const char *why = json_string_value(json_object_get(value, "error"));

		err_set(err, -EPROTO, "%.900s", why ? why : "the machine refuses without a reason");
		json_decref(value);
		return -EPROTO;
	}
	*ret_result = value;
	return 0;
}

int client_call(int dir, const char *verb, const char *path, const json_t *body, json_t **ret_result,
		struct err *err)
{
	const struct timeval timeout = { .tv_sec = TIMEOUT_S };
	char *content = body ? json_dumps(body, JSON_COMPACT) : strdup(""), *text = NULL, *request = NULL;
	size_t len = 0;
	int fd = -1, rc, n;

	if (!content)
		return err_set(err, -ENOMEM, "no memory for a request");
	n = asprintf(
		&request,
		"%s %s HTTP/1.1\r\nHost: bothy\r\nConnection: close\r\nContent-Type: application/json\r\n"
		"Content-Length: %zu\r\n\r\n%s",
		verb, path, strlen(content), content);
	free(content);
	if (n < 0)
		return err_set(err, -ENOMEM, "no memory for a request");
	rc = sock_connect(dir, RUNTIME_API_SOCK, &fd, err);
	if (!rc) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
		rc = send_all(fd, request, (size_t)n, err);
	}
	free(request);
	if (!rc)
		rc = receive(fd, &text, &len, err);
	if (fd >= 0)
		close(fd);
	if (!rc)
		rc = parse(text, len, ret_result, err);
	free(text);
	return rc;
}
