/* Character back ends: files, pipes, pseudo-terminals, terminals, and what is left of a terminal afterwards.
 *
 * What concerns standard input and output runs in a child process, whose exit status says how it went; a
 * terminal is a pseudo-terminal that is the child's controlling one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/loop.h"
#include "base/os.h"
#include "host/chr.h"

#define RING 65536
#define S    1000000000ull

/* A device at the other end, and a loop that ends by itself. */
struct end {
	struct loop *loop;
	struct chr *chr;
	struct loop_timer *limit;
	u8 got[8192];
	size_t got_len;
	size_t want; /* the loop stops when so much has come */
	size_t room; /* for input */
	bool echo;
	unsigned breaks, writable, quits;
	bool timed_out;
};

static size_t end_can(void *opaque)
{
	struct end *e = opaque;

	return MIN(e->room, sizeof(e->got) - e->got_len);
}

static void end_input(void *opaque, const u8 *buf, size_t len)
{
	struct end *e = opaque;

	memcpy(e->got + e->got_len, buf, len);
	e->got_len += len;
	e->room -= len;
	if (e->echo)
		chr_write(e->chr, buf, len);
	if (e->got_len >= e->want)
		loop_stop(e->loop, 0);
}

static void end_writable(void *opaque)
{
	struct end *e = opaque;

	e->writable++;
	loop_stop(e->loop, 0);
}

static void end_break(void *opaque)
{
	((struct end *)opaque)->breaks++;
}

static void end_quit(void *opaque)
{
	struct end *e = opaque;

	e->quits++;
	loop_stop(e->loop, 7);
}

static void end_limit(void *opaque)
{
	struct end *e = opaque;

	e->timed_out = true;
	loop_stop(e->loop, -1);
}

static int end_open(struct end *e, const char *spec, struct err *err)
{
	int ret;

	memset(e, 0, sizeof(*e));
	e->room = SIZE_MAX;
	e->want = SIZE_MAX;
	if (loop_new(&e->loop, err) < 0)
		abort();
	e->limit = loop_timer_new(e->loop, end_limit, e);
	ret = chr_open(spec, e->loop, end_quit, e, &e->chr, err);
	if (ret)
		return ret;
	e->chr->opaque = e;
	e->chr->on_input = end_input;
	e->chr->can_input = end_can;
	e->chr->on_writable = end_writable;
	e->chr->on_break = end_break;
	return 0;
}

static void end_close(struct end *e)
{
	chr_close(e->chr);
	loop_timer_free(e->limit);
	loop_free(e->loop);
}

static int end_run(struct end *e, u64 ms)
{
	e->timed_out = false;
	loop_timer_arm(e->limit, os_now_ns() + ms * 1000000);
	return loop_run(e->loop);
}

static unsigned open_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static char dir[64];

static int make_dir(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/test-chr-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	return system(cmd);
}

static char *in_dir(const char *prefix, const char *name)
{
	static char path[160];

	snprintf(path, sizeof(path), "%s%s/%s", prefix, dir, name);
	return path;
}

/* ---- without standard input and output ---- */

static void test_bad_specs(void **state)
{
	static const char *const specs[] = { "",      "stdout", "file",   "file:",
					     "pty:x", "none ",  "file:/", "file:/no/such" };
	unsigned fds = open_fds();
	struct err err;
	struct end e;

	for (unsigned i = 0; i < ARRAY_SIZE(specs); i++) {
		memset(&err, 0, sizeof(err));
		assert_true(end_open(&e, specs[i], &err) < 0);
		assert_non_null(strchr(err.msg, '\''));
		end_close(&e);
	}
	assert_int_equal(end_open(&e, "serial", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "'serial'"));
	assert_non_null(strstr(err.msg, "stdio, file:PATH, pty, unix:PATH or none"));
	end_close(&e);
	/* A fifo that nobody reads would hold up everything. */
	char *fifo = in_dir("file:", "fifo");
	assert_int_equal(mkfifo(fifo + 5, 0600), 0);
	assert_true(end_open(&e, fifo, &err) < 0);
	end_close(&e);
	assert_int_equal(open_fds(), fds);
}

static void test_none(void **state)
{
	struct end e;

	assert_int_equal(end_open(&e, "none", NULL), 0);
	for (unsigned i = 0; i < 100000; i++)
		assert_int_equal(chr_write(e.chr, (const u8 *)"x", 1), 1);
	e.chr->ops->input_ready(e.chr);
	end_run(&e, 1);
	end_close(&e);
}

static void check_file(const char *path, size_t len)
{
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	for (size_t i = 0; i < len; i++)
		if (fgetc(f) != (int)(i * 7 % 251))
			fail_msg("byte %zu of %zu is wrong", i, len);
	assert_int_equal(fgetc(f), EOF);
	fclose(f);
}

static void test_file(void **state)
{
	const size_t sizes[] = { 0, 1, 1000, RING, 3 * RING + 12345 };
	const char *spec = in_dir("file:", "out");
	unsigned fds = open_fds();

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t done = 0, chunk = 1;
		struct end e;

		assert_int_equal(end_open(&e, spec, NULL), 0);
		while (done < sizes[i]) {
			u8 buf[5000];
			size_t want = MIN(chunk, sizes[i] - done), n;

			for (size_t k = 0; k < want; k++)
				buf[k] = (u8)((done + k) * 7 % 251);
			n = chr_write(e.chr, buf, want);
			done += n;
			chunk = chunk % 4999 + 1;
			if (n < want)
				assert_int_equal(end_run(&e, 5000), 0); /* until there is room */
		}
		if (sizes[i] > RING)
			assert_true(e.writable > 0);
		assert_int_equal(chr_dropped(e.chr), 0);
		end_close(&e); /* flushes, though the loop does not run */
		check_file(spec + 5, sizes[i]);
	}
	assert_int_equal(open_fds(), fds);
}

/* Output reaches the file while the machine runs, not only at its end. */
static void test_file_soon(void **state)
{
	const char *spec = in_dir("file:", "soon");
	struct stat st;
	struct end e;

	assert_int_equal(end_open(&e, spec, NULL), 0);
	chr_write(e.chr, (const u8 *)"hello", 5);
	end_run(&e, 50);
	assert_int_equal(stat(spec + 5, &st), 0);
	assert_int_equal(st.st_size, 5);
	end_close(&e);
}

/* Opens a pty back end and its slave, whose name is taken from the message. */
static int open_pty_end(struct end *e)
{
	int p[2], saved = dup(2), fd;
	char text[256], *name;
	ssize_t n;

	assert_int_equal(pipe(p), 0);
	fflush(stderr);
	dup2(p[1], 2);
	int ret = end_open(e, "pty", NULL);
	fflush(stderr);
	dup2(saved, 2);
	close(saved);
	close(p[1]);
	assert_int_equal(ret, 0);
	n = read(p[0], text, sizeof(text) - 1);
	close(p[0]);
	assert_true(n > 0);
	text[n] = 0;
	name = strstr(text, "/dev/");
	assert_non_null(name);
	name[strcspn(name, "\n")] = 0;
	fd = open(name, O_RDWR | O_NOCTTY);
	assert_true(fd >= 0);
	return fd;
}

static void test_pty(void **state)
{
	unsigned fds = open_fds();
	struct end e;
	int fd = open_pty_end(&e);
	u8 buf[64];

	assert_int_equal(write(fd, "typed\r\x01x\x03", 9), 9);
	e.want = 9;
	assert_int_equal(end_run(&e, 5000), 0);
	assert_memory_equal(e.got, "typed\r\x01x\x03", 9); /* no commands, no line editing, no signals */
	assert_int_equal(e.quits, 0);
	chr_write(e.chr, (const u8 *)"a\nb", 3);
	e.want = SIZE_MAX;
	end_run(&e, 50);
	assert_int_equal(read(fd, buf, sizeof(buf)), 3);
	assert_memory_equal(buf, "a\nb", 3);
	/* Somebody hangs up and comes back. */
	close(fd);
	end_run(&e, 20);
	end_close(&e);
	assert_int_equal(open_fds(), fds);
}

/* G37: nobody ever reads. */
static void test_dead_reader(void **state)
{
	struct end e;
	int fd = open_pty_end(&e);
	u8 buf[4096] = { 0 };
	size_t done = 0;

	for (unsigned i = 0; i < 1000; i++) {
		done += chr_write(e.chr, buf, sizeof(buf));
		if (i % 100 == 0)
			end_run(&e, 2);
	}
	assert_in_range(done, RING, RING + 64 * 1024); /* the ring, and what the kernel takes */
	assert_int_equal(e.writable, 0);
	/* The reader comes to life: the device is told once half the ring is free. */
	while (!e.writable) {
		end_run(&e, 2);
		if (read(fd, buf, sizeof(buf)) <= 0)
			break;
	}
	assert_int_equal(e.writable, 1);
	close(fd);
	u64 start = os_now_ns();
	end_close(&e); /* the rest cannot be flushed: a second at most */
	assert_in_range(os_now_ns() - start, 0, 3 * S);
}

static void test_input_waits(void **state)
{
	struct end e;
	int fd = open_pty_end(&e);
	u8 buf[3000];

	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (u8)(i % 251);
	e.room = 10;
	assert_int_equal(write(fd, buf, sizeof(buf)), (ssize_t)sizeof(buf));
	end_run(&e, 50);
	assert_int_equal(e.got_len, 10);
	while (e.got_len < sizeof(buf)) {
		e.room = 100;
		e.want = e.got_len + MIN(100, sizeof(buf) - e.got_len);
		e.chr->ops->input_ready(e.chr);
		assert_int_equal(end_run(&e, 5000), 0);
	}
	assert_memory_equal(e.got, buf, sizeof(buf));
	close(fd);
	end_close(&e);
}

/* ---- standard input and output, in a child ---- */

#define CHECK(cond)                                                                        \
	do {                                                                               \
		if (!(cond))                                                               \
			_exit(__LINE__ % 200 + 50); /* the line, roughly; 42 is success */ \
	} while (0)

static int wait_for(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void expect_success(pid_t pid)
{
	int status = wait_for(pid);

	if (!WIFEXITED(status) || WEXITSTATUS(status) != 42)
		fail_msg("the child ended with status %#x", status);
}

/* Forks with in and out as standard input and output. */
static pid_t fork_with(int in, int out, void (*fn)(void))
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid)
		return pid;
	dup2(in, 0);
	dup2(out, 1);
	for (int fd = 3; fd < 256; fd++)
		close(fd);
	fn();
	_exit(42);
}

static void child_echo(void)
{
	struct end e, second;
	struct err err;

	CHECK(end_open(&e, "stdio", NULL) == 0);
	CHECK(!(fcntl(0, F_GETFL) & O_NONBLOCK)); /* the shell's descriptors stay as they are */
	CHECK(!(fcntl(1, F_GETFL) & O_NONBLOCK));
	CHECK(end_open(&second, "stdio", &err) == -EBUSY);
	end_close(&second);
	e.echo = true;
	e.want = 12;
	CHECK(end_run(&e, 5000) == 0);
	CHECK(!memcmp(e.got, "hello\x01x\nmore", 12)); /* Ctrl-a is a byte like others in a pipe */
	CHECK(e.quits == 0);
	/* At the end of the input: nothing, and no spinning (the limit would come late). */
	end_run(&e, 100);
	CHECK(e.timed_out && e.got_len == 12);
	end_close(&e);
	/* It can be had again after it was closed. */
	CHECK(end_open(&e, "stdio", NULL) == 0);
	end_close(&e);
}

static void test_pipes(void **state)
{
	int in[2], out[2];
	char buf[64];

	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	pid_t pid = fork_with(in[0], out[1], child_echo);
	close(in[0]);
	close(out[1]);
	assert_int_equal(write(in[1], "hello\x01x\nmore", 12), 12);
	close(in[1]);
	expect_success(pid);
	assert_int_equal(read(out[0], buf, sizeof(buf)), 12);
	assert_memory_equal(buf, "hello\x01x\nmore", 12);
	close(out[0]);
}

static void child_socket(void)
{
	struct end e;

	CHECK(end_open(&e, "stdio", NULL) == 0);
	e.echo = true;
	e.want = 5;
	CHECK(end_run(&e, 5000) == 0);
	/* More than the socket takes: the loop goes on, and the ring is full. */
	u8 buf[4096] = { 0 };
	for (unsigned i = 0; i < 300; i++) {
		chr_write(e.chr, buf, sizeof(buf));
		end_run(&e, 1);
	}
	while (chr_write(e.chr, buf, sizeof(buf)))
		;
	end_run(&e, 50);
	CHECK(e.timed_out && !chr_write(e.chr, buf, 1));
	end_close(&e);
	CHECK(!(fcntl(1, F_GETFL) & O_NONBLOCK));
}

/* Sockets cannot be opened anew: the flag is set on what others share, and taken back. */
static void test_socket(void **state)
{
	int s[2];
	char buf[8];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	pid_t pid = fork_with(s[1], s[1], child_socket);
	assert_int_equal(write(s[0], "hello", 5), 5);
	expect_success(pid);
	assert_int_equal(fcntl(s[1], F_GETFL) & O_NONBLOCK, 0);
	close(s[1]);
	assert_int_equal(read(s[0], buf, 5), 5);
	assert_memory_equal(buf, "hello", 5);
	close(s[0]);
}

static void child_broken_pipe(void)
{
	u8 buf[1000] = { 0 };
	struct end e;

	CHECK(end_open(&e, "stdio", NULL) == 0);
	for (unsigned i = 0; i < 1000; i++) {
		CHECK(chr_write(e.chr, buf, sizeof(buf)) == sizeof(buf));
		if (i % 50 == 0)
			end_run(&e, 2);
	}
	CHECK(chr_dropped(e.chr) > 900000);
	end_close(&e);
}

static void test_broken_pipe(void **state)
{
	int out[2], null = open("/dev/null", O_RDONLY);

	assert_int_equal(pipe(out), 0);
	close(out[0]);
	pid_t pid = fork_with(null, out[1], child_broken_pipe);
	close(out[1]);
	close(null);
	expect_success(pid);
}

static void child_file_to_file(void)
{
	struct end e;

	CHECK(end_open(&e, "stdio", NULL) == 0);
	e.echo = true;
	e.room = 3;
	end_run(&e, 50);
	CHECK(e.got_len == 3);
	e.want = 5000;
	e.room = SIZE_MAX;
	e.chr->ops->input_ready(e.chr);
	CHECK(end_run(&e, 5000) == 0);
	end_close(&e);
}

/* epoll takes no regular files. */
static void test_regular_files(void **state)
{
	int in = open(in_dir("", "stdin"), O_RDWR | O_CREAT | O_TRUNC, 0600), out;

	assert_true(in >= 0);
	for (unsigned i = 0; i < 5000; i++) {
		u8 byte = (u8)(i * 7 % 251);

		assert_int_equal(write(in, &byte, 1), 1);
	}
	lseek(in, 0, SEEK_SET);
	out = open(in_dir("", "stdout"), O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(out >= 0);
	pid_t pid = fork_with(in, out, child_file_to_file);
	close(in);
	close(out);
	expect_success(pid);
	check_file(in_dir("", "stdout"), 5000);
}

/* A loop first, or its descriptors would become standard input and output. */
static void child_closed_stdin(void)
{
	struct loop *loop;
	struct chr *chr;
	struct err err;

	CHECK(loop_new(&loop, NULL) == 0);
	close(0);
	CHECK(chr_open("stdio", loop, NULL, NULL, &chr, NULL) == 0);
	chr_write(chr, (const u8 *)"out", 3);
	chr_close(chr);
	close(1);
	CHECK(chr_open("stdio", loop, NULL, NULL, &chr, &err) == -EBADF && err.msg[0]);
	loop_free(loop);
}

static void test_closed_stdin(void **state)
{
	int out[2], null = open("/dev/null", O_RDWR);
	char buf[8];

	assert_int_equal(pipe(out), 0);
	pid_t pid = fork_with(null, out[1], child_closed_stdin);
	close(out[1]);
	close(null);
	expect_success(pid);
	assert_int_equal(read(out[0], buf, sizeof(buf)), 3);
	close(out[0]);
}

/* ---- a terminal ---- */

/* Forks with a new terminal as controlling one; returns its master. */
static int fork_tty(void (*fn)(void), pid_t *ret_pid)
{
	int master;
	pid_t pid = forkpty(&master, NULL, NULL, NULL);

	assert_true(pid >= 0);
	if (pid == 0) {
		/* Who runs the test in the background may have them ignored. */
		static const int signals[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };

		for (size_t k = 0; k < ARRAY_SIZE(signals); k++)
			signal(signals[k], SIG_DFL);
		fn();
		_exit(42);
	}
	*ret_pid = pid;
	return master;
}

static bool is_raw(int fd)
{
	struct termios t;

	if (tcgetattr(fd, &t) < 0)
		return false;
	return !(t.c_lflag & (ICANON | ECHO | ISIG));
}

/* Waits until the terminal behind the master is raw or not, as wanted. */
static void wait_raw(int master, bool want)
{
	for (unsigned i = 0; i < 500; i++) {
		if (is_raw(master) == want)
			return;
		usleep(10000);
	}
	fail_msg("the terminal does not become %s", want ? "raw" : "what it was");
}

/* Reads from the master until text has been seen. */
static void wait_text(int master, const char *text)
{
	static char buf[8192];
	size_t len = 0;

	while (len < sizeof(buf) - 1) {
		struct pollfd p = { .fd = master, .events = POLLIN };
		ssize_t n;

		if (poll(&p, 1, 5000) != 1)
			break;
		n = read(master, buf + len, sizeof(buf) - 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
		buf[len] = 0;
		if (strstr(buf, text))
			return;
	}
	buf[len] = 0;
	fail_msg("the terminal shows \"%s\", and not \"%s\"", buf, text);
}

static void child_terminal(void)
{
	struct end e;

	CHECK(end_open(&e, "stdio", NULL) == 0);
	chr_write(e.chr, (const u8 *)"ready", 5);
	e.want = 3;
	CHECK(end_run(&e, 5000) == 0);
	CHECK(!memcmp(e.got, "\x03\x01q", 3)); /* Ctrl-c is for the guest; Ctrl-a Ctrl-a gives one */
	CHECK(e.breaks == 1);
	/* Quitting works with a guest that reads nothing and a buffer that is full. */
	e.room = 0;
	CHECK(end_run(&e, 10000) == 7);
	CHECK(e.quits == 1);
	CHECK(is_raw(0));
	end_close(&e);
	CHECK(!is_raw(0));
}

static void test_terminal(void **state)
{
	pid_t pid;
	int master = fork_tty(child_terminal, &pid);
	char flood[1000];

	wait_text(master, "ready");
	assert_true(is_raw(master));
	assert_int_equal(write(master, "\x01h", 2), 2);
	wait_text(master, "Ctrl-a x");
	assert_int_equal(write(master, "\x03\x01\x62\x01\x01\x01zq", 8), 8); /* Ctrl-a z: no such command */
	memset(flood, 'f', sizeof(flood));
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(write(master, flood, sizeof(flood)), (ssize_t)sizeof(flood));
	assert_int_equal(write(master, "\x01x", 2), 2);
	expect_success(pid);
	close(master);
}

static void open_and_say(struct end *e)
{
	CHECK(end_open(e, "stdio", NULL) == 0);
	chr_write(e->chr, (const u8 *)"ready", 5);
	end_run(e, 100);
	CHECK(is_raw(0));
}

static void child_exits(void)
{
	struct end e;

	open_and_say(&e);
	exit(42); /* with everything open */
}

static void child_aborts(void)
{
	struct end e;

	signal(SIGABRT, SIG_DFL);
	open_and_say(&e);
	abort();
}

static void child_waits(void)
{
	struct end e;

	open_and_say(&e);
	chr_write(e.chr, (const u8 *)"waits", 5);
	end_run(&e, 60000);
}

static int keep_slave(int master)
{
	int fd = open(ptsname(master), O_RDWR | O_NOCTTY);

	assert_true(fd >= 0); /* so that the terminal outlives the child */
	return fd;
}

static void test_restored_on_exit(void **state)
{
	pid_t pid;
	int master = fork_tty(child_exits, &pid), slave = keep_slave(master);

	wait_text(master, "ready");
	expect_success(pid);
	assert_false(is_raw(slave));
	close(slave);
	close(master);
}

static void test_restored_on_abort(void **state)
{
	pid_t pid;
	int master = fork_tty(child_aborts, &pid), slave = keep_slave(master), status;

	wait_text(master, "ready");
	status = wait_for(pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_false(is_raw(slave));
	close(slave);
	close(master);
}

static void test_restored_on_signals(void **state)
{
	static const int sigs[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 };

	for (unsigned i = 0; i < ARRAY_SIZE(sigs); i++) {
		pid_t pid;
		int master = fork_tty(child_waits, &pid), slave = keep_slave(master), status;

		wait_text(master, "waits");
		assert_true(is_raw(slave));
		kill(pid, sigs[i]);
		status = wait_for(pid);
		assert_true(WIFSIGNALED(status)); /* and the parent learns of the signal */
		assert_int_equal(WTERMSIG(status), sigs[i]);
		assert_false(is_raw(slave));
		close(slave);
		close(master);
	}
}

/* A shell that stops us sets its own mode; when we go on, ours is back. */
static void test_stop_and_continue(void **state)
{
	struct termios cooked;
	pid_t pid;
	int master = fork_tty(child_waits, &pid), slave = keep_slave(master), status;

	tcgetattr(slave, &cooked);
	cooked.c_lflag |= ICANON | ECHO | ISIG;
	wait_text(master, "waits");
	kill(pid, SIGSTOP);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	tcsetattr(slave, TCSANOW, &cooked);
	assert_false(is_raw(slave));
	kill(pid, SIGCONT);
	wait_raw(slave, true);
	kill(pid, SIGTERM);
	wait_for(pid);
	assert_false(is_raw(slave));
	close(slave);
	close(master);
}

/* In the background the terminal is not touched and not read, which would stop us. */
static void child_background(void)
{
	struct end e;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		setpgid(0, 0);
		CHECK(tcgetpgrp(0) != getpgrp());
		if (end_open(&e, "stdio", NULL) != 0)
			_exit(1);
		e.want = 1;
		chr_write(e.chr, (const u8 *)"back", 4);
		end_run(&e, 800);
		_exit(e.got_len || is_raw(0) ? 2 : 42);
	}
	int status;
	CHECK(waitpid(pid, &status, WUNTRACED) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

static void test_background(void **state)
{
	pid_t pid;
	int master = fork_tty(child_background, &pid);

	wait_text(master, "back");
	assert_int_equal(write(master, "ls\n", 3), 3);
	expect_success(pid);
	close(master);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_specs),
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_file_soon),
		cmocka_unit_test(test_pty),
		cmocka_unit_test(test_dead_reader),
		cmocka_unit_test(test_input_waits),
		cmocka_unit_test(test_pipes),
		cmocka_unit_test(test_broken_pipe),
		cmocka_unit_test(test_socket),
		cmocka_unit_test(test_regular_files),
		cmocka_unit_test(test_closed_stdin),
		cmocka_unit_test(test_terminal),
		cmocka_unit_test(test_restored_on_exit),
		cmocka_unit_test(test_restored_on_abort),
		cmocka_unit_test(test_restored_on_signals),
		cmocka_unit_test(test_stop_and_continue),
		cmocka_unit_test(test_background),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
