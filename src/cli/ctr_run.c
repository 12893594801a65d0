/* The supervisor of a container for people: one process for each, there as long as the container.
 *
 * It makes the container, so that it is its parent and learns its status; it copies its output into the log and, in the
 * foreground, to its own; it carries the user network's frames; when the container has ended it writes that down and removes what
 * there was. The log is bounded: a container that writes without end costs two files of LOG_SIZE.
 *
 * Killed itself, it leaves the container running without log and user network; `stop` and `rm` do without it.
 */
#include "cli/ctr_run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "cli/ctr_net.h"
#include "jail/nsview.h"
#include "oci/container.h"
#include "oci/terminal.h"

#define LOG_SIZE (8 * MiB)

enum source { OUT, ERR, MASTER, INPUT, SIGNALS, NET, NET_ROOM, SOURCES };

struct supervisor {
	const struct ctr_store *store;
	struct ctr *ctr;
	const struct ctr_plan *plan;
	struct container_options options;
	bool foreground;
	int fds[SOURCES]; /* -1: none, or at its end; NET and NET_ROOM are the network's */
	int console, tap; /* sockets at which they come */
	int log;
	u64 log_size;
	pid_t pid;
	struct ctr_net *net;
	char typed[4096]; /* read from our terminal, not taken by the container's yet */
	size_t typed_len;
	bool ended;
	int status; /* for exit(3) */
};

/* --- output --- */

static int open_log(struct supervisor *s, struct err *err)
{
	s->log = openat(s->ctr->dir, "log", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	s->log_size = 0;
	return s->log < 0 ? err_sys(err, -errno, "cannot write '%s/log'", s->ctr->path) : 0;
}

static void write_log(struct supervisor *s, const void *data, size_t len)
{
	if (s->log_size + len > LOG_SIZE && s->log >= 0) {
		close(s->log);
		renameat(s->ctr->dir, "log", s->ctr->dir, "log.1");
		if (open_log(s, NULL))
			log_warn("the log of container '%s' goes no further", s->ctr->name);
	}
	/* A full disk must not stop the container. */
	if (s->log >= 0 && !os_write_all(s->log, data, len))
		s->log_size += len;
}

/* False: nothing more comes. */
static bool copy_output(struct supervisor *s, enum source from)
{
	char buf[16384];
	ssize_t n = read(s->fds[from], buf, sizeof(buf));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (n <= 0) {
		close(s->fds[from]);
		s->fds[from] = -1;
		return false;
	}
	write_log(s, buf, (size_t)n);
	/* Whoever reads ours may have gone; the container goes on. */
	if (s->foreground && os_write_all(from == ERR ? STDERR_FILENO : STDOUT_FILENO, buf, (size_t)n))
		s->foreground = false;
	return true;
}

/* A program that does not read its terminal must not stop the supervisor: what it has not taken waits here, and nothing more is
 * read meanwhile. */
static void copy_input(struct supervisor *s)
{
	ssize_t n;

	if (!s->typed_len) {
		n = read(STDIN_FILENO, s->typed, sizeof(s->typed));
		if (n <= 0) {
			if (n == 0 || (errno != EINTR && errno != EAGAIN))
				s->fds[INPUT] = -1;
			return;
		}
		s->typed_len = (size_t)n;
	}
	n = write(s->fds[MASTER], s->typed, s->typed_len);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		s->fds[INPUT] = -1;
	if (n > 0) {
		s->typed_len -= (size_t)n;
		memmove(s->typed, s->typed + n, s->typed_len);
	}
}

/* --- making it --- */

/* A socket in the container's folder, which the runtime or the hook connects to. */
static int listen_at(const struct supervisor *s, const char *name, int *ret_fd, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	/* A path by descriptor is short, however long the folder's is. */
	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/%s", s->ctr->dir, name);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0) {
		int rc = err_sys(err, -errno, "cannot make the socket '%s/%s'", s->ctr->path, name);

		if (fd >= 0)
			close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

static int receive_console(struct supervisor *s, struct err *err)
{
	int conn = accept4(s->console, NULL, NULL, SOCK_CLOEXEC), rc;

	if (conn < 0)
		return err_sys(err, -errno, "the container's terminal has not come");
	rc = terminal_receive(conn, &s->fds[MASTER], err);
	close(conn);
	if (!rc && fcntl(s->fds[MASTER], F_SETFL, O_NONBLOCK) < 0)
		rc = err_sys(err, -errno, "cannot use the container's terminal");
	return rc;
}

/* Calls container_create() with the container's standard output and error in the place of ours. */
static int create(struct supervisor *s, struct err *err)
{
	int out[2] = { -1, -1 }, errs[2] = { -1, -1 }, saved[3], rc = 0;

	if (!s->plan->tty && (pipe2(out, O_CLOEXEC) < 0 || pipe2(errs, O_CLOEXEC) < 0))
		return err_sys(err, -errno, "cannot make a pipe");
	for (int i = 0; i < 3; i++)
		saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
	if (!s->plan->tty && (dup2(out[1], 1) < 0 || dup2(errs[1], 2) < 0))
		rc = err_sys(err, -errno, "cannot redirect output");
	if (!s->foreground && !rc) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		if (null < 0 || dup2(null, 0) < 0)
			rc = err_sys(err, -errno, "cannot open /dev/null");
		if (null > 0)
			close(null);
	}
	if (!rc)
		rc = container_create(&s->options, s->ctr->name, err);
	for (int i = 0; i < 3; i++) {
		if (saved[i] < 0 || dup2(saved[i], i) < 0)
			close(i);
		if (saved[i] >= 0)
			close(saved[i]);
	}
	if (!s->plan->tty) {
		close(out[1]);
		close(errs[1]);
	}
	s->fds[OUT] = out[0];
	s->fds[ERR] = errs[0];
	return rc;
}

/* What the namespaces were, for `inspect` when there is no process to ask. */
static void note_namespaces(const struct supervisor *s)
{
	int fd = openat(s->ctr->dir, "namespaces", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
			0600);

	for (enum ns_kind k = 0; fd >= 0 && k < NS_KINDS; k++)
		dprintf(fd, "%s %llu\n", ns_types[k].name, (unsigned long long)nsview_inode(s->pid, k));
	if (fd >= 0)
		close(fd);
}

static int find_pid(struct supervisor *s, struct err *err)
{
	struct status st;
	int rc = status_open(s->store->state, s->ctr->name, false, &st, err);

	if (rc)
		return rc;
	s->pid = st.pid;
	status_close(&st);
	return 0;
}

static int connect_network(struct supervisor *s, struct err *err)
{
	const char *forwards[CTR_MAX_LIST];
	int tap = -1, rc;

	if (s->plan->network == CTR_PRIVATE)
		return ctr_net_join_bridge(s->pid, s->plan->address, err);
	if (s->plan->network != CTR_USER)
		return 0;
	for (unsigned i = 0; i < s->plan->options->port_count; i++)
		forwards[i] = s->plan->ports[i];
	rc = ctr_net_receive(s->tap, &tap, err);
	return rc ? rc : ctr_net_open(tap, forwards, s->plan->options->port_count, &s->net, err);
}

static int make(struct supervisor *s, struct err *err)
{
	char console[64];
	sigset_t all;
	int rc = open_log(s, err);

	s->options = (struct container_options){ .root = s->store->state_path,
						 .bundle = s->ctr->path,
						 .no_cgroup = geteuid() != 0 };
	if (!rc && s->plan->tty) {
		rc = listen_at(s, "console", &s->console, err);
		snprintf(console, sizeof(console), "/proc/self/fd/%d/console", s->ctr->dir);
		s->options.console_socket = console;
	}
	if (!rc && s->plan->network == CTR_USER)
		rc = listen_at(s, "tap", &s->tap, err);
	if (!rc)
		rc = create(s, err);
	if (!rc && s->plan->tty)
		rc = receive_console(s, err);
	s->options.console_socket = NULL;
	if (!rc)
		rc = find_pid(s, err);
	if (rc)
		return rc;
	note_namespaces(s);
	/* Before there is another thread, which would get them. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	s->fds[SIGNALS] = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->fds[SIGNALS] < 0)
		return err_sys(err, -errno, "cannot receive signals");
	rc = connect_network(s, err);
	return rc ? rc : container_start(&s->options, s->ctr->name, err);
}

/* --- while it runs --- */

static void reap(struct supervisor *s)
{
	int status;

	if (waitpid(s->pid, &status, WNOHANG) != s->pid)
		return;
	s->ended = true;
	s->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void copy_size(struct supervisor *s)
{
	struct winsize w;

	if (s->fds[MASTER] >= 0 && s->foreground && !ioctl(STDIN_FILENO, TIOCGWINSZ, &w))
		ioctl(s->fds[MASTER], TIOCSWINSZ, &w);
}

static void take_signals(struct supervisor *s)
{
	struct signalfd_siginfo info;

	while (read(s->fds[SIGNALS], &info, sizeof(info)) == sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGCHLD: reap(s); break;
		case SIGWINCH: copy_size(s); break;
		case SIGPIPE: break;
		/* Not reaped yet, so the pid is the container's. */
		default:
			if (!s->ended)
				kill(s->pid, (int)info.ssi_signo);
		}
	}
}

static void stay(struct supervisor *s)
{
	struct pollfd p[SOURCES];
	int net[2];

	copy_size(s);
	reap(s);
	while (!s->ended) {
		ctr_net_fds(s->net, net);
		s->fds[NET] = net[0];
		s->fds[NET_ROOM] = net[1];
		for (unsigned i = 0; i < SOURCES; i++)
			p[i] = (struct pollfd){ .fd = s->fds[i], .events = POLLIN };
		if (s->typed_len) {
			p[MASTER].events |= POLLOUT;
			p[INPUT].fd = -1;
		}
		if (poll(p, SOURCES, -1) < 0 && errno != EINTR)
			break;
		for (enum source i = OUT; i <= MASTER; i++)
			if (p[i].revents & (POLLIN | POLLHUP | POLLERR))
				copy_output(s, i);
		if ((p[INPUT].revents || p[MASTER].revents & POLLOUT) && s->fds[MASTER] >= 0)
			copy_input(s);
		if (p[NET].revents || p[NET_ROOM].revents)
			ctr_net_serve(s->net);
		if (p[SIGNALS].revents)
			take_signals(s);
	}
	/* What was written before the end. */
	for (enum source i = OUT; i <= MASTER; i++) {
		struct pollfd rest = { .fd = s->fds[i], .events = POLLIN };

		while (s->fds[i] >= 0 && poll(&rest, 1, 0) > 0 && copy_output(s, i))
			;
	}
}

static void write_end(struct supervisor *s)
{
	char text[64];
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	json_object_set_new(s->ctr->record, "exit", json_integer(s->status));
	json_object_set_new(s->ctr->record, "ended", json_string(text));
}

int ctr_run(const struct ctr_store *store, struct ctr *ctr, const struct ctr_plan *plan, bool foreground,
	    void (*started)(void *opaque, const struct err *err), void *opaque, int *ret_status,
	    struct err *err)
{
	struct supervisor s = { .store = store,
				.ctr = ctr,
				.plan = plan,
				.foreground = foreground,
				.console = -1,
				.tap = -1,
				.log = -1 };
	struct err cleared = { 0 };
	struct termios saved, t;
	bool raw = false;
	int rc;

	for (unsigned i = 0; i < SOURCES; i++)
		s.fds[i] = -1;
	rc = make(&s, err);
	if (started)
		started(opaque, err);
	if (!rc) {
		if (foreground && plan->tty) {
			s.fds[INPUT] = STDIN_FILENO;
			raw = !tcgetattr(STDIN_FILENO, &saved);
			t = saved;
			cfmakeraw(&t);
			if (raw)
				tcsetattr(STDIN_FILENO, TCSANOW, &t);
		}
		stay(&s);
		if (raw)
			tcsetattr(STDIN_FILENO, TCSANOW, &saved);
		write_end(&s);
	}
	ctr_net_close(s.net);
	if (container_delete(&s.options, ctr->name, true, &cleared) && !rc)
		rc = err_set(err, cleared.code, "%s", cleared.msg);
	for (enum source i = OUT; i <= SIGNALS; i++)
		if (s.fds[i] >= 0 && i != INPUT)
			close(s.fds[i]);
	if (s.log >= 0)
		close(s.log);
	if (s.console >= 0)
		close(s.console);
	if (s.tap >= 0)
		close(s.tap);
	unlinkat(ctr->dir, "console", 0);
	unlinkat(ctr->dir, "tap", 0);
	if (!rc)
		rc = ctr_store_save(ctr, err);
	*ret_status = s.status;
	return rc;
}
