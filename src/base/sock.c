/* Unix stream sockets. A path longer than sun_path is reached through the descriptor of its folder, by /proc/self/fd. */
#include "base/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG   64
#define CONNECT_S 10

/* Fills the address of dir/name; *ret_folder: a descriptor that it needs, to be closed after use, or -1. */
static int address(int dir, const char *name, struct sockaddr_un *ret_addr, int *ret_folder, struct err *err)
{
	const char *slash = strrchr(name, '/');
	char folder[4096];
	int n;

	memset(ret_addr, 0, sizeof(*ret_addr));
	ret_addr->sun_family = AF_UNIX;
	*ret_folder = -1;
	if (dir == AT_FDCWD && strlen(name) < sizeof(ret_addr->sun_path)) {
		memcpy(ret_addr->sun_path, name, strlen(name));
		return 0;
	}
	if (slash) {
		if ((size_t)(slash - name) >= sizeof(folder))
			return err_set(err, -ENAMETOOLONG, "the path of the socket is too long");
		snprintf(folder, sizeof(folder), "%.*s", (int)(slash - name), slash == name ? "/" : name);
		*ret_folder = openat(dir, folder[0] ? folder : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (*ret_folder < 0)
			return err_sys(err, -errno, "the folder of the socket '%s' cannot be opened", name);
		dir = *ret_folder;
		name = slash + 1;
	}
	n = snprintf(ret_addr->sun_path, sizeof(ret_addr->sun_path), "/proc/self/fd/%d/%s", dir, name);
	if (n < 0 || (size_t)n >= sizeof(ret_addr->sun_path)) {
		if (*ret_folder >= 0)
			close(*ret_folder);
		return err_set(err, -ENAMETOOLONG, "the name of the socket '%s' is too long", name);
	}
	return 0;
}

/* A socket of the given kind at dir/name, by bind() or connect(). */
static int make(int dir, const char *name, int flags, int (*how)(int fd, const struct sockaddr *addr),
		const char *what, int *ret_fd, struct err *err)
{
	struct sockaddr_un addr;
	int folder, fd, rc = address(dir, name, &addr, &folder, err);

	if (rc)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	if (fd < 0 || how(fd, (const struct sockaddr *)&addr) < 0)
		rc = err_sys(err, -errno, "cannot %s the socket '%s'", what, name);
	if (folder >= 0)
		close(folder);
	if (rc) {
		if (fd >= 0)
			close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

/* The mode of the descriptor becomes the name's. */
static int bind_and_listen(int fd, const struct sockaddr *addr)
{
	if (fchmod(fd, 0600) < 0 || bind(fd, addr, sizeof(struct sockaddr_un)) < 0)
		return -1;
	return listen(fd, BACKLOG);
}

int sock_listen(int dir, const char *name, int *ret_fd, struct err *err)
{
	return make(dir, name, SOCK_NONBLOCK, bind_and_listen, "listen at", ret_fd, err);
}

int sock_accept(int fd)
{
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t len = sizeof(peer);
	int c = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (c < 0)
		return -errno;
	if (getsockopt(c, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 ||
	    (peer.uid != geteuid() && peer.uid != 0)) {
		close(c);
		return -EPERM;
	}
	return c;
}

/* A listener that does not accept makes this wait when enough others do. */
static int connect_to(int fd, const struct sockaddr *addr)
{
	const struct timeval timeout = { .tv_sec = CONNECT_S };

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	return connect(fd, addr, sizeof(struct sockaddr_un));
}

int sock_connect(int dir, const char *name, int *ret_fd, struct err *err)
{
	return make(dir, name, 0, connect_to, "connect to", ret_fd, err);
}

static int connect_now(int fd, const struct sockaddr *addr)
{
	return connect(fd, addr, sizeof(struct sockaddr_un));
}

int sock_try_connect(int dir, const char *name, int *ret_fd)
{
	return make(dir, name, SOCK_NONBLOCK, connect_now, "connect to", ret_fd, NULL);
}
