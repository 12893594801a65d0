/* A console with many users: history, output to all, input from all, readers that do not read. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/loop.h"
#include "base/os.h"
#include "base/sock.h"
#include "host/chr.h"
#include "host/chr_share.h"

static char dir[] = "/tmp/share-XXXXXX";
static int folder;
static struct loop *loop;
static struct chr *chr;
static char typed[4096];
static size_t nr_typed, room;

static void on_input(void *opaque, const u8 *buf, size_t len)
{
	assert_true(len <= room && nr_typed + len < sizeof(typed));
	memcpy(typed + nr_typed, buf, len);
	nr_typed += len;
	typed[nr_typed] = 0;
	room -= len;
}

static size_t can_input(void *opaque)
{
	return room;
}

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	folder = open(dir, O_RDONLY | O_DIRECTORY);
	if (loop_new(&loop, NULL) || chr_open("none", loop, NULL, NULL, &chr, NULL) ||
	    chr_share_open(folder, "x.sock", loop, &chr, NULL))
		return -1;
	chr->on_input = on_input;
	chr->can_input = can_input;
	nr_typed = 0;
	room = 1000;
	return 0;
}

static int teardown(void **state)
{
	chr_close(chr);
	loop_free(loop);
	close(folder);
	if (rmdir(dir)) /* the socket is gone */
		return -1;
	snprintf(dir, sizeof(dir), "/tmp/share-XXXXXX");
	return 0;
}

static void stop(void *opaque)
{
	loop_stop(loop, 0);
}

/* Lets the main loop run for some milliseconds. */
static void run(unsigned ms)
{
	struct loop_timer *t = loop_timer_new(loop, stop, NULL);

	loop_timer_arm(t, os_now_ns() + ms * 1000000ull);
	loop_run(loop);
	loop_timer_free(t);
}

static int join(void)
{
	int fd = -1;

	assert_int_equal(sock_connect(folder, "x.sock", &fd, NULL), 0);
	run(5);
	return fd;
}

static void write_text(const char *text)
{
	assert_int_equal(chr_write(chr, (const u8 *)text, strlen(text)), strlen(text));
}

/* What has come, without waiting. */
static const char *received(int fd)
{
	static char buf[256 * 1024];
	size_t n = 0;
	ssize_t r;

	while ((r = recv(fd, buf + n, sizeof(buf) - 1 - n, MSG_DONTWAIT)) > 0)
		n += (size_t)r;
	buf[n] = 0;
	return r == 0 && !n ? "(end)" : buf;
}

static void test_all_see_all(void **state)
{
	struct stat st;
	int a, b;

	assert_int_equal(fstatat(folder, "x.sock", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	write_text("before ");
	a = join();
	assert_string_equal(received(a), "before ");
	write_text("both ");
	b = join();
	run(10);
	assert_string_equal(received(a), "both ");
	assert_string_equal(received(b), "before both ");
	assert_int_equal(write(a, "from a", 6), 6);
	run(10);
	assert_int_equal(write(b, " and b", 6), 6);
	run(10);
	assert_string_equal(typed, "from a and b");
	/* One goes, the other stays. */
	close(a);
	run(10);
	write_text("left");
	run(10);
	assert_string_equal(received(b), "left");
	/* It may stop typing and still read. */
	shutdown(b, SHUT_WR);
	run(10);
	write_text("more");
	run(10);
	assert_string_equal(received(b), "more");
	close(b);
	run(10);
}

/* What the device has no room for waits in the socket, and comes when it says so. */
static void test_input_waits(void **state)
{
	int a = join();

	room = 3;
	assert_int_equal(write(a, "abcdefg", 7), 7);
	run(20);
	assert_string_equal(typed, "abc");
	room = 100;
	chr->ops->input_ready(chr);
	run(20);
	assert_string_equal(typed, "abcdefg");
	close(a);
	run(10);
}

static void test_slow_reader(void **state)
{
	static char block[4096];
	int slow = join(), fast = join();
	size_t got = 0;

	memset(block, 'x', sizeof(block));
	for (unsigned i = 0; i < 500; i++) {
		assert_int_equal(chr_write(chr, (const u8 *)block, sizeof(block)), sizeof(block));
		run(3);
		got += strlen(received(fast));
	}
	run(10);
	got += strlen(received(fast));
	assert_int_equal(got, 500 * sizeof(block));
	/* The slow one has lost what did not fit, and the rest is there. */
	assert_in_range(strlen(received(slow)), 4096, 500 * sizeof(block) - 1);
	close(slow);
	close(fast);
	run(10);
}

static void test_too_many(void **state)
{
	int fd[12];

	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		fd[i] = join();
	write_text("hello");
	run(10);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		assert_string_equal(received(fd[i]), i < 8 ? "hello" : "(end)");
		close(fd[i]);
	}
	run(10);
	fd[0] = join();
	assert_string_equal(received(fd[0]), "hello");
	/* The end of the machine is the end of the connection, after the last output. */
	write_text("bye");
	chr_close(chr);
	assert_string_equal(received(fd[0]), "bye");
	assert_string_equal(received(fd[0]), "(end)");
	close(fd[0]);
	assert_int_equal(chr_open("none", loop, NULL, NULL, &chr, NULL), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_all_see_all),
		T(test_input_waits),
		T(test_slow_reader),
		T(test_too_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
