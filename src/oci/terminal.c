/* Staying with a container in the foreground: bytes between this terminal and the container's, signals to its process.
 *
 * Signals are blocked and read from a signalfd, so that none is lost and nothing runs in a handler. The terminal is in raw
 * mode meanwhile and is restored on every way out of here.
 */
#include "oci/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/os.h"

int terminal_pair(int ret_fds[2], struct err *err)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret_fds) < 0)
		return err_sys(err, -errno, "cannot make a pair of sockets");
	return 0;
}

int terminal_receive(int socket, int *ret_fd, struct err *err)
{
	char text[4096];
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = { text, sizeof(text) };
	struct msghdr m = { .msg_iov = &part,
			    .msg_iovlen = 1,
			    .msg_control = control.room,
			    .msg_controllen = sizeof(control.room) };
	struct cmsghdr *c;

	if (recvmsg(socket, &m, MSG_CMSG_CLOEXEC) <= 0 || !(c = CMSG_FIRSTHDR(&m)) ||
	    c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
		return err_set(err, -EIO, "the container's terminal has not come");
	memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	return 0;
}

int terminal_adopt(int fd, struct err *err)
{
	if (ioctl(fd, TIOCSCTTY, 0) < 0)
		return err_sys(err, -errno, "process.terminal: cannot make it the controlling terminal");
	for (int i = 0; i < 3; i++)
		if (dup2(fd, i) < 0)
			return err_sys(err, -errno,
				       "process.terminal: cannot use it as standard input and output");
	close(fd);
	return 0;
}

static void copy_size(int master)
{
	struct winsize w;

	if (!ioctl(STDIN_FILENO, TIOCGWINSZ, &w))
		ioctl(master, TIOCSWINSZ, &w);
}

/* False: nothing more comes from `from`. */
static bool copy_bytes(int from, int to)
{
	char buf[4096];
	ssize_t n = read(from, buf, sizeof(buf));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	return n > 0 && !os_write_all(to, buf, (size_t)n);
}

/* True when the child has ended; *ret_status is for exit(). */
static bool handle_signals(int sigfd, pid_t pid, int master, int *ret_status)
{
	struct signalfd_siginfo info;

	while (read(sigfd, &info, sizeof(info)) == sizeof(info)) {
		int status;

		if (info.ssi_signo == SIGWINCH) {
			if (master >= 0)
				copy_size(master);
		} else if (info.ssi_signo != SIGCHLD) {
			kill(pid, (int)info.ssi_signo);
		}
		if (info.ssi_signo == SIGCHLD && waitpid(pid, &status, WNOHANG) == pid) {
			*ret_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
			return true;
		}
	}
	return false;
}

/* What was typed and the container's terminal does not take yet. Waiting for that would stop its output and our signals too. */
struct typed {
	char bytes[4096];
	size_t len;
};

/* False: nothing more comes, or nobody is there to take it. */
static bool type(struct typed *t, int from, int master)
{
	ssize_t n;

	if (!t->len) {
		n = read(from, t->bytes, sizeof(t->bytes));
		if (n <= 0)
			return n < 0 && (errno == EINTR || errno == EAGAIN);
		t->len = (size_t)n;
	}
	n = write(master, t->bytes, t->len);
	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	t->len -= (size_t)n;
	memmove(t->bytes, t->bytes + n, t->len);
	return true;
}

int terminal_stay(pid_t pid, int master, struct err *err)
{
	struct typed typed = { .len = 0 };
	struct pollfd p[3] = { { .events = POLLIN },
			       { .fd = master, .events = POLLIN },
			       { .fd = master < 0 ? -1 : STDIN_FILENO, .events = POLLIN } };
	bool raw = false, ended = false;
	int input = p[2].fd;
	struct termios saved, t;
	sigset_t all, old;
	int status = 1;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old);
	p[0].fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (p[0].fd < 0)
		return err_sys(err, -errno, "cannot receive signals");
	if (master >= 0)
		fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
	if (master >= 0 && !tcgetattr(STDIN_FILENO, &saved)) {
		t = saved;
		cfmakeraw(&t);
		raw = !tcsetattr(STDIN_FILENO, TCSANOW, &t);
		copy_size(master);
	}
	/* It may have ended before the signal was blocked. */
	if (waitpid(pid, &status, WNOHANG) == pid) {
		status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		ended = true;
	}
	while (!ended) {
		if (poll(p, 3, -1) < 0 && errno != EINTR)
			break;
		if (p[0].revents)
			ended = handle_signals(p[0].fd, pid, master, &status);
		if (p[1].revents & ~POLLOUT && !copy_bytes(master, STDOUT_FILENO))
			p[1].fd = -1;
		if ((p[2].revents || (typed.len && p[1].revents & POLLOUT)) &&
		    !type(&typed, STDIN_FILENO, master)) {
			input = -1;
			typed.len = 0;
		}
		/* No more is read while there is some that has not been taken. */
		p[1].events = typed.len ? POLLIN | POLLOUT : POLLIN;
		p[2].fd = typed.len ? -1 : input;
	}
	/* What it wrote before it ended. */
	p[1].events = POLLIN;
	while (p[1].fd >= 0 && poll(&p[1], 1, 0) > 0 && copy_bytes(master, STDOUT_FILENO))
		;
	if (raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &saved);
	close(p[0].fd);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return status;
}
