/* Errors, log, host wrappers, bit helpers. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "base/os.h"

static void test_err_set(void **state)
{
	struct err err = { 0 };

	assert_int_equal(err_set(&err, -EINVAL, "bad size %d", 7), -EINVAL);
	assert_int_equal(err.code, -EINVAL);
	assert_string_equal(err.msg, "bad size 7");
	assert_int_equal(err_sys(&err, -ENOENT, "cannot open '%s'", "x"), -ENOENT);
	assert_string_equal(err.msg, "cannot open 'x': No such file or directory");
	assert_int_equal(err_wrap(&err, "device '%s'", "com1"), -ENOENT);
	assert_string_equal(err.msg, "device 'com1': cannot open 'x': No such file or directory");
	assert_int_equal(err.code, -ENOENT);
	/* A NULL err drops the text. */
	assert_int_equal(err_set(NULL, -EIO, "x"), -EIO);
	assert_int_equal(err_sys(NULL, -EIO, "x"), -EIO);
	assert_true(err_wrap(NULL, "x") < 0);
	/* An argument may be the old text. */
	err_set(&err, -EIO, "%s and more", err.msg);
	assert_string_equal(err.msg, "device 'com1': cannot open 'x': No such file or directory and more");
}

static void test_err_cut(void **state)
{
	struct err err = { 0 };
	char big[3000];

	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	for (int i = 0; i < 3; i++) {
		err_set(&err, -EIO, "%s", big + 1900 + i * 40);
		err_wrap(&err, "%.*s", 1000 + i * 12, big);
		assert_true(strlen(err.msg) == sizeof(err.msg) - 1);
	}
	err_sys(&err, -EIO, "%s", big);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
	err_sys(&err, -EIO, "%.*s", 1022, big);
	assert_int_equal(strlen(err.msg), 1022);
	err_sys(&err, -EIO, "%.*s", 1018, big);
	assert_string_equal(err.msg + 1016, "aa: Inp");
}

/* Runs fn with standard error in a file; returns what it wrote. */
static char *captured(void (*fn)(void))
{
	char path[] = "/tmp/test_base_XXXXXX";
	int saved = dup(STDERR_FILENO), fd = mkstemp(path);
	char *text = calloc(1, 1 << 20);

	assert_true(saved >= 0 && fd >= 0 && text);
	unlink(path);
	dup2(fd, STDERR_FILENO);
	fn();
	dup2(saved, STDERR_FILENO);
	assert_true(pread(fd, text, (1 << 20) - 1, 0) >= 0);
	close(fd);
	close(saved);
	return text;
}

static void say_things(void)
{
	log_error("disk '%s'", "a\nb\x1b[31m\xc2\x9b\x7f");
	log_warn("w");
	log_info("not shown");
}

static void test_log_escapes(void **state)
{
	char *text = captured(say_things);

	assert_string_equal(text,
			    "bothy: error: disk 'a\\x0ab\\x1b[31m\\xc2\\x9b\\x7f'\nbothy: warning: w\n");
	free(text);
}

static void say_long(void)
{
	char big[5000];

	memset(big, '\n', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	log_error("%s", big);
}

static void test_log_long(void **state)
{
	char *text = captured(say_long);
	size_t len = strlen(text);

	assert_in_range(len, 2000, 4096);
	assert_ptr_equal(strchr(text, '\n'), text + len - 1);
	free(text);
}

static void *flood(void *arg)
{
	struct log_limit *limit = arg;

	for (int i = 0; i < 20000; i++)
		log_limited(limit, "guest did %d", i);
	return NULL;
}

static void flood_both(void)
{
	static struct log_limit limit;
	pthread_t t;

	pthread_create(&t, NULL, flood, &limit);
	flood(&limit);
	pthread_join(t, NULL);
	/* Next second: the next message tells of the rest. */
	limit.window_ns -= 1000000000;
	log_limited(&limit, "again");
}

static unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

/* Hostile case G68: a warning provoked without end costs ten lines a second. */
static void test_G68_log_limit(void **state)
{
	char *text;

	log_set_level(LOG_INFO);
	text = captured(flood_both);
	/* A second may have begun meanwhile. */
	assert_in_range(count(text, "guest did"), 10, 30);
	assert_true(strstr(text, "messages like the next one were dropped\nbothy: info: again\n"));
	free(text);
	log_set_level(LOG_WARN);
	text = captured(flood_both);
	assert_string_equal(text, "");
	free(text);
}

static void test_time(void **state)
{
	u64 t0 = os_now_ns(), r = os_realtime_ns(), khz = os_tsc_khz();
	bool close = false;

	/* Within 1 %; again when we were interrupted between the two readings. */
	for (int i = 0; i < 10 && !close; i++) {
		u64 tsc0 = __builtin_ia32_rdtsc(), ns0 = os_now_ns(), ns, mine;

		usleep(30000);
		ns = os_now_ns() - ns0;
		mine = (__builtin_ia32_rdtsc() - tsc0) * 1000000 / ns;
		close = mine > khz / 100 * 99 && mine < khz / 100 * 101;
	}
	assert_true(close);
	assert_true(os_now_ns() > t0);
	assert_true(r > 1600000000ull * 1000000000);
	assert_int_equal(os_tsc_khz(), khz);
	assert_true(os_memory_total() > 16 * MiB);
	assert_int_equal(os_page_size() % 4096, 0);
}

static void test_read_file(void **state)
{
	char dir[] = "/tmp/test_base_XXXXXX", path[64], fifo[64];
	struct err err = { 0 };
	void *data = NULL;
	size_t len = 0;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/f", dir);
	snprintf(fifo, sizeof(fifo), "%s/p", dir);

	assert_int_equal(os_read_file(path, 100, &data, &len, &err), -ENOENT);
	assert_non_null(strstr(err.msg, path));
	assert_int_equal(os_read_file(dir, 100, &data, &len, &err), -EISDIR);
	assert_non_null(strstr(err.msg, "a directory"));
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(os_read_file(fifo, 100, &data, &len, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "a pipe"));
	assert_int_equal(os_read_file("/dev/zero", 100, &data, &len, &err), -EINVAL);

	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_int_equal(os_read_file(path, 100, &data, &len, &err), -ENODATA);
	assert_int_equal(os_write_all(fd, "hello", 5), 0);
	close(fd);
	assert_int_equal(os_read_file(path, 4, &data, &len, &err), -EFBIG);
	assert_null(data);
	assert_int_equal(os_read_file(path, 5, &data, &len, &err), 0);
	assert_int_equal(len, 5);
	assert_memory_equal(data, "hello", 5);
	free(data);
	assert_int_equal(os_write_all(-1, "x", 1), -EBADF);
	unlink(path);
	unlink(fifo);
	rmdir(dir);
}

static void test_bits(void **state)
{
	assert_int_equal(bits_get(0xf0, 7, 4), 0xf);
	assert_true(bits_get(~0ull, 63, 0) == ~0ull);
	assert_true(bits_sext(0x80, 8) == 0xffffffffffffff80ull);
	assert_true(bits_sext(0x7f, 8) == 0x7f);
	assert_true(bits_mask(8) == ~0ull);
	assert_int_equal(bits_mask(1), 0xff);
	assert_true(bits_is_pow2(1ull << 63));
	assert_false(bits_is_pow2(0));
	assert_false(bits_is_pow2(3));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_err_set),       cmocka_unit_test(test_err_cut),
		cmocka_unit_test(test_log_escapes),   cmocka_unit_test(test_log_long),
		cmocka_unit_test(test_G68_log_limit), cmocka_unit_test(test_time),
		cmocka_unit_test(test_read_file),     cmocka_unit_test(test_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
