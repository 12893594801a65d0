/* The wire between the runtime and the container's process [unix(7)].
 *
 * The container's process runs no code of the container before its last message, so what comes from it is trusted as far as
 * its form goes; lengths are checked all the same.
 */
#include "oci/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

int wire_pair(int ret_fds[2], struct err *err)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_fds) < 0)
		return err_sys(err, -errno, "cannot make a pair of sockets");
	return 0;
}

int wire_send(int fd, enum wire_type type, const void *data, size_t len)
{
	u32 head = type;
	struct iovec parts[2] = { { &head, sizeof(head) }, { (void *)data, len } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = len ? 2 : 1 };
	ssize_t n;

	do
		n = sendmsg(fd, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

void wire_send_error(int fd, const struct err *err)
{
	wire_send(fd, WIRE_ERROR, err, sizeof(*err));
}

int wire_expect(int fd, enum wire_type type, void *data, size_t room, size_t *ret_len, struct err *err)
{
	struct err theirs;
	u32 head = 0;
	/* An error may come in the place of anything. */
	struct iovec parts[3] = { { &head, sizeof(head) }, { data, room }, { &theirs, sizeof(theirs) } };
	char buf[sizeof(theirs)];
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = room ? 2 : 1 };
	ssize_t n;

	if (room < sizeof(theirs)) {
		parts[1] = (struct iovec){ buf, sizeof(buf) };
		m.msg_iovlen = 2;
	}
	do
		n = recvmsg(fd, &m, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_sys(err, -errno, "cannot receive from the container's process");
	if (n < (ssize_t)sizeof(head))
		return err_set(err, -EPIPE,
			       "the other side of the container's creation has ended unexpectedly");
	n -= (ssize_t)sizeof(head);
	if (head == WIRE_ERROR && n == (ssize_t)sizeof(theirs)) {
		memcpy(&theirs, parts[1].iov_base, sizeof(theirs));
		theirs.msg[sizeof(theirs.msg) - 1] = 0;
		return err_set(err, theirs.code < 0 ? theirs.code : -EIO, "%s", theirs.msg);
	}
	if (head != (u32)type || (size_t)n > room)
		return err_set(err, -EPROTO, "the container's process has sent message %u, not %u", head,
			       (unsigned)type);
	if (parts[1].iov_base == buf)
		memcpy(data ? data : buf, buf, (size_t)n);
	if (ret_len)
		*ret_len = (size_t)n;
	return 0;
}

int wire_send_fd(int socket, int fd, const char *text, size_t len, struct err *err)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec part = { (void *)text, len };
	struct msghdr m = { .msg_iov = &part,
			    .msg_iovlen = 1,
			    .msg_control = control.room,
			    .msg_controllen = sizeof(control.room) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	if (sendmsg(socket, &m, MSG_NOSIGNAL) < 0)
		return err_sys(err, -errno, "cannot pass a descriptor on");
	return 0;
}

int wire_connect(const char *path, int *ret_fd, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, file = -1;

	if (strlen(path) < sizeof(a.sun_path)) {
		memcpy(a.sun_path, path, strlen(path) + 1);
	} else {
		file = open(path, O_PATH | O_CLOEXEC);
		snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d", file);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		int rc = err_sys(err, -errno, "cannot connect to the socket '%s'", path);

		if (fd >= 0)
			close(fd);
		if (file >= 0)
			close(file);
		return rc;
	}
	if (file >= 0)
		close(file);
	*ret_fd = fd;
	return 0;
}
