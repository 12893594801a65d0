/* Character back ends: standard input and output, a file, a pseudo-terminal, nothing.
 *
 * Output: chr_write() copies into a ring of 64 KiB and returns; the main loop drains it, a millisecond
 * later (so that a guest which prints byte by byte costs one wake-up per burst), or at once when the
 * ring fills. Whoever met a full ring is told when it is half empty. When the reader is gone (EPIPE),
 * output is dropped and counted.
 *
 * Input: read ahead into a buffer of 4 KiB and handed on as the device has room. A terminal is read even
 * while the buffer is full, dropping what is typed, since Ctrl-a x must always work; other inputs just wait.
 * At the end of the input reading stops, nothing else.
 *
 * Descriptors must not block the main loop, but O_NONBLOCK belongs to the open file, which standard input and
 * output share with the shell. So they are opened anew through /proc/self/fd where that is possible; where it
 * is not (sockets, a terminal of another user) the flag is set and taken back at the end. epoll refuses
 * regular files and some devices: these are read and written directly, a turn of the loop at a time.
 *
 * Terminal: raw mode, but with output processing, so that messages of bothy on the same terminal keep their
 * lines. It is put back on close, by atexit(), and by handlers for every fatal signal that has its default
 * action when the back end is opened. In the background it is neither changed nor read.
 *
 * Threads: write and input_ready on any; all else on the main thread. The ring's lock is a leaf;
 * callbacks of the device run without it.
 */
#include "host/chr.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/os.h"
#include "host/chr_share.h"

#define RING_SIZE     (64 * KiB)
#define INPUT_SIZE    4096
#define BATCH_NS      1000000ull   /* how long output may wait for more */
#define BACKGROUND_NS 300000000ull /* how often to look whether we are in the foreground */
#define CLOSE_MS      1000         /* how long closing may flush */
#define ESCAPE        0x01         /* Ctrl-a */

struct host_chr {
	struct chr chr;
	struct loop *loop;
	struct loop_timer *in_kick, *out_kick; /* make the main loop look at one direction */
	void (*on_quit)(void *opaque);
	void *quit_opaque;
	int in, out; /* our own descriptors, -1: none */
	int keep;    /* the slave of a pty: held open so that the master never hangs up */
	bool is_stdio;
	bool in_tty, out_tty;
	bool escaped;                         /* Ctrl-a was typed */
	struct loop_fd *in_watch, *out_watch; /* NULL while there is nothing to be told */
	bool in_direct;                       /* epoll refuses it */

	u8 input[INPUT_SIZE]; /* from the front */
	size_t input_len;
	_Atomic bool input_waits; /* the device had no room */

	pthread_mutex_t lock; /* for the rest */
	u8 ring[RING_SIZE];
	size_t head, count;
	bool starved; /* a write fell short */
	bool dead;    /* nobody reads any more */
	u64 dropped;
};

/* What must be undone to the terminal and to shared descriptors, whatever ends the process. Written on the
 * main thread; `active` last, so that a signal handler sees it complete. */
static struct {
	volatile sig_atomic_t active, raw_wanted;
	int fd;
	struct termios saved, raw;
	const char *volatile farewell;
	int flags_fd[2], flags[2]; /* of descriptors 0 and 1; flags_fd -1: untouched */
} tty = { .flags_fd = { -1, -1 } };

static const int fatal_signals[] = {
	SIGHUP,  SIGINT,  SIGQUIT, SIGILL,  SIGTRAP, SIGABRT, SIGBUS,  SIGFPE,    SIGSEGV, SIGALRM,
	SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ, SIGSYS,  SIGPROF, SIGVTALRM, SIGPOLL,
};

/* ---- the terminal ---- */

static bool in_foreground(int fd)
{
	return tcgetpgrp(fd) == getpgrp();
}

void chr_restore_terminal(void)
{
	int saved_errno = errno;

	if (tty.active && tty.raw_wanted && in_foreground(tty.fd))
		tcsetattr(tty.fd, TCSANOW, &tty.saved);
	if (tty.farewell && write(STDOUT_FILENO, tty.farewell, strlen(tty.farewell)) < 0)
		errno = saved_errno; /* nobody to tell */
	tty.farewell = NULL;
	for (unsigned i = 0; i < 2; i++) {
		if (tty.flags_fd[i] >= 0)
			fcntl(tty.flags_fd[i], F_SETFL, tty.flags[i]);
	}
	errno = saved_errno;
}

static void make_raw(void)
{
	if (tty.active && tty.raw_wanted && in_foreground(tty.fd))
		tcsetattr(tty.fd, TCSANOW, &tty.raw);
}

static void on_fatal(int sig)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };

	chr_restore_terminal();
	sigaction(sig, &dfl, NULL);
	raise(sig); /* stays pending until this handler returns */
}

/* The shell has changed the terminal while we were stopped. */
static void on_continue(int sig)
{
	int saved_errno = errno;

	make_raw();
	errno = saved_errno;
}

static void handle_if_default(int sig, void (*fn)(int sig))
{
	struct sigaction old, sa = { .sa_handler = fn, .sa_flags = SA_RESTART | SA_ONSTACK };

	if (!sigaction(sig, NULL, &old) && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
		sigaction(sig, &sa, NULL);
}

static void default_if_handled(int sig, void (*fn)(int sig))
{
	struct sigaction old, dfl = { .sa_handler = SIG_DFL };

	if (!sigaction(sig, NULL, &old) && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == fn)
		sigaction(sig, &dfl, NULL);
}

static void tty_begin(int fd)
{
	if (tcgetattr(fd, &tty.saved) < 0)
		return;
	tty.raw = tty.saved;
	cfmakeraw(&tty.raw);
	tty.raw.c_oflag |= OPOST;
	tty.fd = fd;
	tty.raw_wanted = 1;
	tty.active = 1;
	for (unsigned i = 0; i < ARRAY_SIZE(fatal_signals); i++)
		handle_if_default(fatal_signals[i], on_fatal);
	handle_if_default(SIGCONT, on_continue);
	make_raw();
}

static void tty_end(void)
{
	chr_restore_terminal();
	tty.active = 0;
	tty.raw_wanted = 0;
	tty.flags_fd[0] = tty.flags_fd[1] = -1;
	for (unsigned i = 0; i < ARRAY_SIZE(fatal_signals); i++)
		default_if_handled(fatal_signals[i], on_fatal);
	default_if_handled(SIGCONT, on_continue);
}

/* ---- output ---- */

/* With the lock held. */
static void ring_put(struct host_chr *c, const u8 *buf, size_t len)
{
	size_t at = (c->head + c->count) % RING_SIZE;
	size_t first = MIN(len, RING_SIZE - at);

	memcpy(c->ring + at, buf, first);
	memcpy(c->ring, buf + first, len - first);
	c->count += len;
}

static size_t host_write(struct chr *chr, const u8 *buf, size_t len)
{
	struct host_chr *c = container_of(chr, struct host_chr, chr);
	size_t n = len;

	pthread_mutex_lock(&c->lock);
	if (c->dead) {
		c->dropped += len;
	} else {
		bool was_empty = !c->count, was_half = c->count >= RING_SIZE / 2;

		n = MIN(len, RING_SIZE - c->count);
		ring_put(c, buf, n);
		if (n < len)
			c->starved = true;
		if (!was_half && c->count >= RING_SIZE / 2)
			loop_timer_arm(c->out_kick, 0);
		else if (was_empty && n)
			loop_timer_arm(c->out_kick, os_now_ns() + BATCH_NS);
	}
	pthread_mutex_unlock(&c->lock);
	return n;
}

/* One write to the host from the front of the ring. False when it would block or there is nothing. */
static bool drain_once(struct host_chr *c)
{
	size_t len;
	ssize_t n;
	int why = 0;

	/* Only this thread takes from the ring, so its front stays put without the lock. */
	pthread_mutex_lock(&c->lock);
	len = MIN(c->count, RING_SIZE - c->head);
	pthread_mutex_unlock(&c->lock);
	if (!len)
		return false;
	n = write(c->out, c->ring + c->head, len);
	if (n < 0) {
		why = errno;
		if (why == EINTR)
			return true;
		if (why == EAGAIN)
			return false;
	}
	pthread_mutex_lock(&c->lock);
	if (n < 0) {
		/* A full disk may have room again; a reader that went away is gone. */
		n = (ssize_t)c->count;
		c->dropped += c->count;
		c->dead = why != ENOSPC && why != EDQUOT;
	}
	c->head = (c->head + (size_t)n) % RING_SIZE;
	c->count -= (size_t)n;
	pthread_mutex_unlock(&c->lock);
	if (why)
		log_guest("serial output is dropped: %s", strerror(why));
	return true;
}

static void on_output(void *opaque, u32 events);

static void watch_output(struct host_chr *c, bool on)
{
	struct err err;

	if (on == !!c->out_watch)
		return;
	if (!on) {
		loop_fd_del(c->out_watch);
		c->out_watch = NULL;
	} else if (loop_fd_add(c->loop, c->out, EPOLLOUT, on_output, c, &c->out_watch, &err) < 0) {
		/* epoll refuses it: a file that takes a ring in more than a few writes. */
		loop_timer_arm(c->out_kick, os_now_ns() + BATCH_NS);
	}
}

static void drain(struct host_chr *c)
{
	bool left, room;

	/* At most a ring and a bit per turn: a fast producer must not keep the loop here. */
	for (unsigned i = 0; i < 4 && drain_once(c); i++)
		;
	pthread_mutex_lock(&c->lock);
	left = c->count;
	room = c->starved && c->count <= RING_SIZE / 2;
	if (room)
		c->starved = false;
	pthread_mutex_unlock(&c->lock);
	watch_output(c, left);
	if (room && c->chr.on_writable)
		c->chr.on_writable(c->chr.opaque);
}

static void on_output(void *opaque, u32 events)
{
	drain(opaque);
}

/* ---- input ---- */

static void show_keys(struct host_chr *c)
{
	static const char text[] = "\r\n"
				   "Ctrl-a x       quit bothy\r\n"
				   "Ctrl-a b       send a break\r\n"
				   "Ctrl-a Ctrl-a  send Ctrl-a\r\n"
				   "Ctrl-a h       show this\r\n";

	if (c->out_tty)
		host_write(&c->chr, (const u8 *)text, sizeof(text) - 1);
	else
		fputs(text, stderr);
}

/* The key after Ctrl-a. True if it is itself for the guest. */
static bool command_key(struct host_chr *c, u8 key)
{
	switch (key) {
	case ESCAPE: return true;
	case 'x':
	case 'X':
		if (c->on_quit)
			c->on_quit(c->quit_opaque);
		return false;
	case 'b':
	case 'B':
		if (c->chr.on_break)
			c->chr.on_break(c->chr.opaque);
		return false;
	case 'h':
	case 'H':
	case '?': show_keys(c); return false;
	default: return false;
	}
}

/* Moves what was read behind what waits; what does not fit is lost (from a terminal only). */
static void accept_input(struct host_chr *c, const u8 *buf, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (c->in_tty && c->escaped) {
			c->escaped = false;
			if (!command_key(c, buf[i]))
				continue;
		} else if (c->in_tty && buf[i] == ESCAPE) {
			c->escaped = true;
			continue;
		}
		if (c->input_len < INPUT_SIZE)
			c->input[c->input_len++] = buf[i];
	}
}

/* Hands on what the device has room for. */
static void deliver_input(struct host_chr *c)
{
	while (c->input_len && c->chr.can_input && c->chr.on_input) {
		size_t n;

		/* Set before asking: the device may get room right after its answer. */
		atomic_store(&c->input_waits, true);
		n = MIN(c->chr.can_input(c->chr.opaque), c->input_len);
		if (!n)
			return;
		c->chr.on_input(c->chr.opaque, c->input, n);
		c->input_len -= n;
		memmove(c->input, c->input + n, c->input_len);
	}
	atomic_store(&c->input_waits, c->input_len);
}

static void on_readable(void *opaque, u32 events);

static void watch_input(struct host_chr *c, bool on)
{
	struct err err;

	if (c->in_direct || on == !!c->in_watch)
		return;
	if (!on) {
		loop_fd_del(c->in_watch);
		c->in_watch = NULL;
	} else if (loop_fd_add(c->loop, c->in, EPOLLIN, on_readable, c, &c->in_watch, &err) < 0) {
		c->in_direct = true;
	}
}

static void end_input(struct host_chr *c)
{
	watch_input(c, false);
	if (c->in != c->out)
		close(c->in);
	c->in = -1;
}

/* Reads once. False when there is nothing now, or no more. */
static bool read_once(struct host_chr *c)
{
	u8 buf[INPUT_SIZE];
	size_t want = c->in_tty ? sizeof(buf) : INPUT_SIZE - c->input_len;
	ssize_t n;

	if (c->in < 0 || !want)
		return false;
	n = read(c->in, buf, want);
	if (n > 0) {
		accept_input(c, buf, (size_t)n);
		return true;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	end_input(c);
	return false;
}

/* Looks at the input: reads, hands on, and decides whether to be told about more. */
static void pump_input(struct host_chr *c)
{
	bool more;

	if (c->in >= 0 && c->is_stdio && c->in_tty && !in_foreground(c->in)) {
		/* Reading would stop us. */
		watch_input(c, false);
		loop_timer_arm(c->in_kick, os_now_ns() + BACKGROUND_NS);
		return;
	}
	more = read_once(c);
	deliver_input(c);
	if (c->in < 0)
		return;
	watch_input(c, c->in_tty || c->input_len < INPUT_SIZE);
	/* With a full buffer the device's call is what goes on. */
	if (c->in_direct && c->input_len < INPUT_SIZE)
		loop_timer_arm(c->in_kick, more ? 0 : os_now_ns() + BATCH_NS);
}

static void on_readable(void *opaque, u32 events)
{
	pump_input(opaque);
}

static void host_input_ready(struct chr *chr)
{
	struct host_chr *c = container_of(chr, struct host_chr, chr);

	if (atomic_load(&c->input_waits))
		loop_timer_arm(c->in_kick, 0);
}

static void on_in_kick(void *opaque)
{
	pump_input(opaque);
}

static void on_out_kick(void *opaque)
{
	struct host_chr *c = opaque;

	if (c->out >= 0)
		drain(c);
}

/* ---- opening and closing ---- */

/* A descriptor of our own for fd (0 or 1) that does not block. */
static int own_descriptor(int fd, int mode, struct err *err)
{
	struct stat st;
	char path[32];
	unsigned pty;
	int own = -1;

	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "standard %s cannot be used; give --serial another back end",
			       fd ? "output" : "input");
	if (S_ISREG(st.st_mode))
		own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	else if (!S_ISSOCK(st.st_mode) && ioctl(fd, TIOCGPTN, &pty) < 0) {
		/* Not for the master of a pty: opening that again makes a new one. */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		own = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	}
	if (own >= 0)
		return own;
	own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (own < 0)
		return err_sys(err, -errno, "cannot duplicate standard %s", fd ? "output" : "input");
	tty.flags[fd] = fcntl(fd, F_GETFL);
	if (tty.flags[fd] >= 0 && !(tty.flags[fd] & O_NONBLOCK)) {
		tty.flags_fd[fd] = fd;
		fcntl(fd, F_SETFL, tty.flags[fd] | O_NONBLOCK);
	}
	return own;
}

static bool stdio_taken; /* main thread */

static int open_stdio(struct host_chr *c, struct err *err)
{
	static bool registered;
	int fd;

	if (stdio_taken)
		return err_set(err, -EBUSY,
			       "standard input and output have a user already; give 'stdio' once only");
	fd = own_descriptor(STDOUT_FILENO, O_WRONLY, err);
	if (fd < 0)
		return fd;
	c->out = fd;
	c->out_tty = isatty(fd);
	stdio_taken = true;
	c->is_stdio = true;
	if (!registered)
		atexit(chr_restore_terminal);
	registered = true;
	/* A closed standard input is an input at its end. */
	fd = own_descriptor(STDIN_FILENO, O_RDONLY, NULL);
	if (fd < 0)
		return 0;
	c->in = fd;
	c->in_tty = isatty(fd);
	if (c->in_tty)
		tty_begin(STDIN_FILENO);
	return 0;
}

static int open_file(struct host_chr *c, const char *path, struct err *err)
{
	if (!*path)
		return err_set(err, -EINVAL, "'file:' needs a path behind the colon, as in file:serial.log");
	c->out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
	if (c->out < 0)
		return err_sys(err, -errno, "cannot write serial output to '%s'", path);
	return 0;
}

static int open_pty(struct host_chr *c, struct err *err)
{
	struct termios tio;
	char name[64];

	c->out = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (c->out < 0)
		return err_sys(err, -errno, "cannot open a pseudo-terminal");
	c->in = c->out;
	if (grantpt(c->out) < 0 || unlockpt(c->out) < 0 || ptsname_r(c->out, name, sizeof(name)))
		return err_sys(err, -errno, "cannot set up a pseudo-terminal");
	c->keep = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (c->keep < 0 || tcgetattr(c->keep, &tio) < 0)
		return err_sys(err, -errno, "cannot open the pseudo-terminal '%s'", name);
	cfmakeraw(&tio);
	tcsetattr(c->keep, TCSANOW, &tio);
	if (fcntl(c->out, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
		return err_sys(err, -errno, "cannot set up the pseudo-terminal '%s'", name);
	/* Two descriptors, since both are watched. */
	c->in = fcntl(c->out, F_DUPFD_CLOEXEC, 3);
	if (c->in < 0) {
		c->in = c->out;
		return err_sys(err, -errno, "cannot duplicate the pseudo-terminal '%s'", name);
	}
	fprintf(stderr, "bothy: the serial port is %s\n", name);
	return 0;
}

static bool ring_empty(struct host_chr *c)
{
	bool empty;

	pthread_mutex_lock(&c->lock);
	empty = !c->count;
	pthread_mutex_unlock(&c->lock);
	return empty;
}

/* Writes what is left, for CLOSE_MS at most. */
static void flush(struct host_chr *c)
{
	u64 end = os_now_ns() + CLOSE_MS * 1000000ull;

	while (!ring_empty(c) && os_now_ns() < end) {
		struct pollfd pfd = { .fd = c->out, .events = POLLOUT };

		if (!drain_once(c))
			poll(&pfd, 1, 20);
	}
}

static void host_close(struct chr *chr)
{
	struct host_chr *c = container_of(chr, struct host_chr, chr);

	loop_fd_del(c->in_watch);
	loop_fd_del(c->out_watch);
	loop_timer_free(c->in_kick);
	loop_timer_free(c->out_kick);
	if (c->out >= 0)
		flush(c);
	if (c->is_stdio) {
		tty_end();
		stdio_taken = false;
	}
	if (c->in >= 0 && c->in != c->out)
		close(c->in);
	if (c->out >= 0)
		close(c->out);
	if (c->keep >= 0)
		close(c->keep);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static const struct chr_ops host_ops = { host_write, host_input_ready, host_close };

static int open_spec(struct host_chr *c, const char *spec, struct err *err)
{
	if (!strcmp(spec, "stdio"))
		return open_stdio(c, err);
	if (!strncmp(spec, "file:", 5))
		return open_file(c, spec + 5, err);
	if (!strcmp(spec, "pty"))
		return open_pty(c, err);
	if (!strcmp(spec, "none")) {
		c->dead = true;
		return 0;
	}
	return err_set(err, -EINVAL, "unknown back end '%s' for a serial port; use " CHR_SPECS, spec);
}

/* Clients of a socket in front of nothing. */
static int open_unix(const char *path, struct loop *loop, struct chr **ret_chr, struct err *err)
{
	struct chr *chr;
	int ret;

	if (!*path)
		return err_set(err, -EINVAL, "'unix:' needs a path behind the colon, as in unix:com2.sock");
	ret = chr_open("none", loop, NULL, NULL, &chr, err);
	if (ret)
		return ret;
	ret = chr_share_open(AT_FDCWD, path, loop, &chr, err);
	if (ret) {
		chr_close(chr);
		return ret == -EADDRINUSE
			       ? err_set(err, ret, "%s exists already; remove it, or name another path", path)
			       : ret;
	}
	*ret_chr = chr;
	return 0;
}

int chr_open(const char *spec, struct loop *loop, void (*on_quit)(void *opaque), void *opaque,
	     struct chr **ret_chr, struct err *err)
{
	struct host_chr *c;
	int ret;

	if (!strncmp(spec, "unix:", 5))
		return open_unix(spec + 5, loop, ret_chr, err);
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(err, -ENOMEM, "no memory for a serial port");
	signal(SIGPIPE, SIG_IGN);
	c->chr.ops = &host_ops;
	c->loop = loop;
	c->on_quit = on_quit;
	c->quit_opaque = opaque;
	c->in = c->out = c->keep = -1;
	pthread_mutex_init(&c->lock, NULL);
	c->in_kick = loop_timer_new(loop, on_in_kick, c);
	c->out_kick = loop_timer_new(loop, on_out_kick, c);
	ret = open_spec(c, spec, err);
	if (ret) {
		host_close(&c->chr);
		return ret;
	}
	loop_timer_arm(c->in_kick, 0); /* look at the input for the first time */
	*ret_chr = &c->chr;
	return 0;
}

void chr_close(struct chr *chr)
{
	if (chr)
		chr->ops->close(chr);
}

void chr_set_farewell(const char *text)
{
	tty.farewell = text;
}

u64 chr_dropped(struct chr *chr)
{
	struct host_chr *c = container_of(chr, struct host_chr, chr);
	u64 n;

	pthread_mutex_lock(&c->lock);
	n = c->dropped;
	pthread_mutex_unlock(&c->lock);
	return n;
}
