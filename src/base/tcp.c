/* TCP listeners. Addresses are numeric: nothing is looked up. */
#include "base/tcp.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 8

/* Takes `HOST:PORT` apart. */
static bool split(const char *address, char host[64], char port[8])
{
	const char *colon = strrchr(address, ':');
	size_t len = colon ? (size_t)(colon - address) : 0;
	char *end;

	if (!colon || colon[1] < '0' || colon[1] > '9' || strlen(colon + 1) > 5 ||
	    strtoul(colon + 1, &end, 10) > 65535 || *end)
		return false;
	strcpy(port, colon + 1);
	if (len >= 2 && address[0] == '[' && address[len - 1] == ']') {
		address++;
		len -= 2;
	} else if (memchr(address, ':', len)) {
		return false; /* IPv6 without brackets: which colon is the port's? */
	}
	if (len >= 64)
		return false;
	memcpy(host, address, len);
	host[len] = 0;
	if (!len || !strcmp(host, "localhost"))
		strcpy(host, "127.0.0.1");
	return true;
}

int tcp_listen(const char *what, const char *address, int *ret_fd, struct err *err)
{
	const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
					.ai_socktype = SOCK_STREAM };
	struct addrinfo *info = NULL;
	char host[64], port[8];
	int fd, on = 1, rc = 0;

	if (!split(address, host, port) || getaddrinfo(host, port, &hints, &info) != 0)
		return err_set(
			err, -EINVAL,
			"%s: '%s' is no address; write :PORT for this host only, or HOST:PORT with a numeric HOST (IPv6 in brackets)",
			what, address);
	fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (fd < 0 || bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		rc = -errno;
	freeaddrinfo(info);
	if (!rc) {
		*ret_fd = fd;
		return 0;
	}
	if (fd >= 0)
		close(fd);
	if (rc == -EADDRINUSE)
		return err_set(err, rc, "%s: another program listens at %s already; choose another port",
			       what, address);
	return err_sys(err, rc, "%s: cannot listen at %s", what, address);
}

int tcp_accept(int fd)
{
	int on = 1, c = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (c < 0)
		return -errno;
	setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(c, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	return c;
}
