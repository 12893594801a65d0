/* bothy console: connects this terminal to a socket that a machine's console has in the runtime folder.
 *
 * A terminal is in raw mode meanwhile, but with output processing, as bothy run has it; it is put back at the end, whatever ends
 * the process but SIGKILL. Ctrl-a begins a command. Standard input that is no terminal goes to the guest as it is, and its end
 * ends nothing.
 */
#include "cli/console.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/os.h"
#include "cli/vmname.h"

#if HAVE_API
#include <fcntl.h>

#include "api/runtime.h"
#include "base/sock.h"
#endif

#define ESCAPE     0x01 /* Ctrl-a */
#define END_TRIES  100
#define END_WAIT_S 0.02

struct console_options {
	const char *port;
};

static const char *port_choice(unsigned i, const char **ret_help)
{
	static const char *const rows[][2] = {
		{ "console", "the virtio console" },
		{ "serial", "the serial port" },
	};

	if (i >= ARRAY_SIZE(rows))
		return NULL;
	*ret_help = rows[i][1];
	return rows[i][0];
}

static const struct opt console_opts[] = {
	{
		.name = "port",
		.kind = OPT_STRING,
		.arg = "PORT",
		.help = "Which of the machine's consoles.",
		.choice = port_choice,
		.default_text = "the virtio console where there is one, else the serial port",
		.offset = offsetof(struct console_options, port),
	},
	{ .name = NULL },
};

#if HAVE_API

static struct termios saved;
static bool is_raw;

static void restore(void)
{
	if (is_raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &saved);
	is_raw = false;
}

static void on_signal(int sig)
{
	const struct sigaction dfl = { .sa_handler = SIG_DFL };

	restore();
	sigaction(sig, &dfl, NULL);
	raise(sig);
}

static void make_raw(void)
{
	const struct sigaction sa = { .sa_handler = on_signal };
	static const int ends[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &saved) < 0)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++)
		sigaction(ends[i], &sa, NULL);
	raw = saved;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST;
	is_raw = true;
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

struct session {
	int fd;
	bool tty, escaped;
	bool left; /* by the user */
};

static const char keys[] = "\r\n"
			   "Ctrl-a d       leave, the machine goes on\r\n"
			   "Ctrl-a Ctrl-a  send Ctrl-a\r\n"
			   "Ctrl-a h       show this\r\n";

/* Takes commands out of what was typed; *ret_len bytes are left for the guest. False: leave. */
static bool filter(struct session *s, char *buf, size_t len, size_t *ret_len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (s->escaped) {
			s->escaped = false;
			if (buf[i] == 'd' || buf[i] == 'D')
				return false;
			if (buf[i] == 'h' || buf[i] == 'H' || buf[i] == '?')
				os_write_all(STDERR_FILENO, keys, sizeof(keys) - 1);
			if (buf[i] != ESCAPE)
				continue;
		} else if (s->tty && buf[i] == ESCAPE) {
			s->escaped = true;
			continue;
		}
		buf[n++] = buf[i];
	}
	*ret_len = n;
	return true;
}

/* Waits for room: the guest may take its time, and output must go on meanwhile, or neither would. */
static int send_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			struct pollfd pfd = { .fd = fd, .events = POLLOUT | POLLIN };
			char out[4096];
			ssize_t got;

			if (poll(&pfd, 1, -1) < 0 || !(pfd.revents & POLLIN))
				continue;
			got = recv(fd, out, sizeof(out), MSG_DONTWAIT);
			if (got == 0 || (got > 0 && os_write_all(STDOUT_FILENO, out, (size_t)got)))
				return -EPIPE;
			continue;
		}
		if (n < 0)
			return -errno;
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

/* False: leave (s->left), or the machine is gone. */
static bool typed(struct session *s, struct pollfd *input)
{
	char buf[1024];
	ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));
	size_t len = 0;

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (n <= 0) {
		/* A terminal's end is that of the session. */
		input->fd = -1;
		s->left = s->tty;
		return !s->tty;
	}
	s->left = !filter(s, buf, (size_t)n, &len);
	return !s->left && !send_all(s->fd, buf, len);
}

static void talk(struct session *s)
{
	struct pollfd pfd[2] = {
		{ .fd = s->fd, .events = POLLIN },
		{ .fd = STDIN_FILENO, .events = POLLIN },
	};

	for (;;) {
		char buf[4096];
		ssize_t n;

		if (poll(pfd, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return;
		}
		if (pfd[0].revents) {
			n = recv(s->fd, buf, sizeof(buf), 0);
			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0 || os_write_all(STDOUT_FILENO, buf, (size_t)n))
				return;
		}
		if (pfd[1].fd >= 0 && pfd[1].revents && !typed(s, &pfd[1]))
			return;
	}
}

static int connect_port(int dir, const char *name, const char *port, int *ret_fd, struct err *err)
{
	char socket[32];
	int rc;

	if (!port)
		port = faccessat(dir, "console.sock", F_OK, 0) == 0 ? "console" : "serial";
	snprintf(socket, sizeof(socket), "%s.sock", port);
	rc = sock_connect(dir, socket, ret_fd, err);
	if (rc == -ENOENT)
		return err_set(err, rc, "'%s' has no virtio console; it was not started with --console",
			       name);
	return rc;
}

/* Which end it was. A machine closes its consoles a little before it lets go of its name. */
static int say_end(const struct session *s, int dir, const char *name, struct err *err)
{
	for (unsigned i = 0; !s->left && i < END_TRIES && runtime_alive(dir); i++)
		vmname_wait(END_WAIT_S, NULL);
	if (!s->left && runtime_alive(dir))
		return err_set(
			err, -EPIPE,
			"'%s' has closed this connection to its console; as many as it serves are there already",
			name);
	if (s->tty)
		fprintf(stderr, s->left ? "\nleft '%s', which goes on\n" : "\n'%s' has ended\n", name);
	return 0;
}

static int run_console(const struct command *command, int argc, char **argv, struct err *err)
{
	struct console_options options = { 0 };
	struct session s = { .fd = -1, .tty = isatty(STDIN_FILENO) };
	const char *name = NULL;
	int dir = -1, rc = vmname_parse(console_opts, argc, argv, &options, &name, err);

	if (!rc)
		rc = runtime_find(name, &dir, err);
	if (rc)
		return rc;
	signal(SIGPIPE, SIG_IGN);
	rc = connect_port(dir, name, options.port, &s.fd, err);
	if (!rc && s.tty) {
		fprintf(stderr, "The console of '%s'. Ctrl-a d leaves it, Ctrl-a h lists the keys.\n", name);
		make_raw();
	}
	if (!rc) {
		talk(&s);
		restore();
		close(s.fd);
		rc = say_end(&s, dir, name, err);
	}
	close(dir);
	return rc;
}

#else

static int run_console(const struct command *command, int argc, char **argv, struct err *err)
{
	return vmname_unsupported(err);
}

#endif

const struct command console_command = {
	.name = "console",
	.summary = "connect this terminal to a machine's console",
	.synopsis = "NAME [--port PORT]",
	.about =
		"Shows the last output first. Several terminals may be connected, besides the one that bothy run has. What is not a "
		"terminal is sent to the guest as it is; the end of that input ends nothing.",
	.keys = "Ctrl-a d\tleave; the machine goes on\n"
		"Ctrl-a h\tlist the keys\n"
		"Ctrl-a Ctrl-a\tsend one Ctrl-a to the guest\n",
	.takes_machine = true,
	.opts = console_opts,
	.run = run_console,
};
