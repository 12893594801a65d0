/* qcow2 images: contents against a copy in memory, for sizes of clusters and both versions, on a base, compressed, by
 * several threads at once; killed at any write; hostile headers and tables. [A12] tests/system/image has QEMU's opinion. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <pthread.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/log.h"
#include "host/qcow2.h"

#define SIZE    (3 * MiB + 512)
#define THREADS 4

static char folder[64], path[96], base[96];
static u64 seed = 1;

static u64 next_random(u64 *s)
{
	*s = *s * 6364136223846793005ull + 1442695040888963407ull;
	return *s >> 20;
}

static int setup(void **state)
{
	strcpy(folder, "/tmp/test_qcow2.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/top.qcow2", folder);
	snprintf(base, sizeof(base), "%s/base.qcow2", folder);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	unlink(base);
	rmdir(folder);
	return 0;
}

static void create(const char *file, unsigned version, unsigned bits, bool zstd, const char *backing)
{
	const struct qcow2_create_conf conf = {
		.path = file,
		.size = SIZE,
		.version = version,
		.cluster_bits = bits,
		.zstd = zstd,
		.replace = true,
		.backing = backing,
		.backing_format = "qcow2",
	};
	struct err err = { 0 };

	if (qcow2_create(&conf, &err) < 0)
		fail_msg("%s", err.msg);
}

static struct image *open_image(const char *file, bool ro)
{
	const struct image_conf conf = { .path = file, .format = "qcow2", .read_only = ro, .backing = true };
	struct err err = { 0 };
	struct image *im = NULL;

	if (image_open(&conf, &im, &err) < 0)
		fail_msg("%s", err.msg);
	return im;
}

static void must_be_clean(const char *file)
{
	const struct image_conf conf = {
		.path = file, .format = "qcow2", .read_only = true, .no_backing = true
	};
	struct qcow2_result result = { 0 };
	struct err err = { 0 };
	struct image *im;

	assert_int_equal(image_open(&conf, &im, &err), 0);
	if (qcow2_check(im, QCOW2_REPAIR_NONE, NULL, NULL, &result, &err) < 0)
		fail_msg("%s", err.msg);
	im->ops->close(im);
	assert_int_equal(result.corruptions, 0);
	assert_int_equal(result.leaks, 0);
}

static void compare(struct image *im, const u8 *model)
{
	u8 *all = malloc(SIZE);
	const struct iovec iov = { all, SIZE };

	assert_int_equal(im->ops->read(im, &iov, 1, 0, SIZE), 0);
	assert_memory_equal(all, model, SIZE);
	free(all);
}

/* Random requests in [from, from + len), which nobody else uses. */
static void traffic(struct image *im, u8 *model, u64 from, u64 len, unsigned rounds, u64 *s, bool discards)
{
	u8 *buf = malloc(256 * KiB);

	for (unsigned i = 0; i < rounds; i++) {
		u64 n = 512 * (1 + next_random(s) % (next_random(s) % 8 ? 16 : 512)), at;
		struct iovec iov[2];

		n = MIN(n, len);
		at = from + next_random(s) % ((len - n) / 512 + 1) * 512;
		switch (next_random(s) % 8) {
		case 0:
			assert_int_equal(im->ops->zero(im, at, n, i & 1), 0);
			memset(model + at, 0, n);
			break;
		case 1:
			if (!discards)
				break;
			assert_int_equal(im->ops->discard(im, at, n), 0);
			/* Either the old contents or zeroes. */
			iov[0] = (struct iovec){ buf, n };
			assert_int_equal(im->ops->read(im, iov, 1, at, n), 0);
			for (u64 k = 0; k < n; k++)
				if (buf[k])
					assert_int_equal(buf[k], model[at + k]);
			memcpy(model + at, buf, n);
			break;
		case 2:
			if (i % 16 == 0)
				assert_int_equal(im->ops->flush(im), 0);
			break;
		case 3:
		case 4:
			iov[0] = (struct iovec){ buf, n };
			assert_int_equal(im->ops->read(im, iov, 1, at, n), 0);
			assert_memory_equal(buf, model + at, n);
			break;
		default:
			for (u64 k = 0; k < n; k += 8)
				st64(buf + k, next_random(s));
			memcpy(model + at, buf, n);
			iov[0] = (struct iovec){ buf, n / 3 };
			iov[1] = (struct iovec){ buf + n / 3, n - n / 3 };
			assert_int_equal(im->ops->write(im, iov, 2, at, n), 0);
		}
	}
	free(buf);
}

static void test_contents(void **state)
{
	u8 *model = malloc(SIZE);

	for (unsigned version = 2; version <= 3; version++)
		for (unsigned bits = 9; bits <= 21; bits += bits == 9 ? 3 : bits == 12 ? 4 : 5) {
			memset(model, 0, SIZE);
			create(path, version, bits, false, NULL);
			for (unsigned opened = 0; opened < 3; opened++) {
				struct image *im = open_image(path, false);

				compare(im, model);
				traffic(im, model, 0, SIZE, 300, &seed, true);
				compare(im, model);
				im->ops->close(im);
				must_be_clean(path);
			}
		}
	free(model);
}

static void test_base(void **state)
{
	u8 *model = calloc(1, SIZE), *below = malloc(SIZE);

	for (unsigned version = 2; version <= 3; version++) {
		memset(model, 0, SIZE);
		create(base, 3, 12, false, NULL);
		struct image *im = open_image(base, false);
		traffic(im, model, 0, SIZE, 200, &seed, true);
		im->ops->close(im);
		memcpy(below, model, SIZE);
		create(path, version, 16, false, "base.qcow2");
		im = open_image(path, false);
		compare(im, model);
		traffic(im, model, 0, SIZE, 300, &seed, true);
		compare(im, model);
		im->ops->close(im);
		im = open_image(path, true);
		compare(im, model);
		im->ops->close(im);
		must_be_clean(path);
		im = open_image(base, true);
		compare(im, below);
		im->ops->close(im);
	}
	free(below);
	free(model);
}

static void test_compressed(void **state)
{
	u8 *model = calloc(1, ALIGN_UP(SIZE, 65536ull));

	for (unsigned zstd = 0; zstd < 2; zstd++) {
		struct image *im;

		create(path, 3, 16, zstd, NULL);
		im = open_image(path, false);
		for (u64 at = 0; at < SIZE; at += 65536) {
			for (u64 k = 0; k < 65536; k++)
				model[at + k] = (u8)(at >> 16) +
						(next_random(&seed) % 8 ? 0 : (u8)next_random(&seed));
			memset(model + SIZE, 0, ALIGN_UP(SIZE, 65536ull) - SIZE);
			assert_int_equal(qcow2_io_write_compressed(im, model + at, at), 0);
		}
		compare(im, model);
		im->ops->close(im);
		must_be_clean(path);
		im = open_image(path, false);
		compare(im, model);
		traffic(im, model, 0, SIZE, 300, &seed, true);
		compare(im, model);
		im->ops->close(im);
		must_be_clean(path);
	}
	free(model);
}

struct worker {
	struct image *im;
	u8 *model;
	u64 from, len, seed;
	pthread_t thread;
};

static void *work(void *opaque)
{
	struct worker *w = opaque;

	traffic(w->im, w->model, w->from, w->len, 400, &w->seed, true);
	return NULL;
}

/* Neighbours in one cluster. */
static void test_threads(void **state)
{
	u8 *model = calloc(1, SIZE);
	struct worker w[THREADS];

	create(path, 3, 16, false, NULL);
	for (unsigned round = 0; round < 4; round++) {
		struct image *im = open_image(path, false);

		for (u64 i = 0; i < THREADS; i++) {
			w[i] = (struct worker){ im, model, i * 327 * KiB, 327 * KiB, seed + i, 0 };
			assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
		}
		for (unsigned i = 0; i < THREADS; i++)
			pthread_join(w[i].thread, NULL);
		compare(im, model);
		im->ops->close(im);
		must_be_clean(path);
		seed += THREADS;
	}
	free(model);
}

/* A process that ends at any moment leaves nothing worse than leaks, and what was flushed. */
static void test_killed(void **state)
{
	const struct image_conf conf = { .path = path, .format = "qcow2" };

	for (unsigned round = 0; round < 12; round++) {
		struct qcow2_result result;
		struct err err = { 0 };
		struct image *im;
		u8 mark[512], got[512];
		int status, wire[2];
		pid_t pid;

		create(path, 3, round & 1 ? 9 : 12, false, NULL);
		assert_int_equal(pipe(wire), 0);
		pid = fork();
		if (!pid) {
			u8 *model = calloc(1, SIZE);
			const struct iovec iov = { mark, 512 };

			im = open_image(path, false);
			memset(mark, 0x5a, sizeof(mark));
			im->ops->write(im, &iov, 1, SIZE - 512, 512);
			im->ops->flush(im);
			if (write(wire[1], "x", 1) != 1)
				_exit(1);
			for (;;)
				traffic(im, model, 0, SIZE - 512, 1, &seed, true);
		}
		assert_int_equal(read(wire[0], mark, 1), 1);
		usleep(2000 + (useconds_t)(next_random(&seed) % 60000));
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		close(wire[0]);
		close(wire[1]);
		assert_int_equal(image_open(&conf, &im, &err), 0);
		assert_int_equal(qcow2_check(im, QCOW2_REPAIR_LEAKS, NULL, NULL, &result, &err), 0);
		assert_int_equal(result.corruptions, 0);
		assert_int_equal(result.leaks, result.fixed_leaks);
		memset(mark, 0x5a, sizeof(mark));
		const struct iovec iov = { got, 512 };
		assert_int_equal(im->ops->read(im, &iov, 1, SIZE - 512, 512), 0);
		assert_memory_equal(got, mark, 512);
		im->ops->close(im);
		must_be_clean(path);
	}
}

/* The host has no room any more: an error for the writer, and the image stays whole. */
static void test_full(void **state)
{
	u8 *model = calloc(1, SIZE), *buf = malloc(64 * KiB);
	const struct iovec iov = { buf, 64 * KiB };
	struct rlimit old, limit;
	unsigned failed = 0;
	struct image *im;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	for (unsigned bits = 9; bits <= 16; bits += 7) {
		memset(model, 0, SIZE);
		create(path, 3, bits, false, NULL);
		im = open_image(path, false);
		limit = (struct rlimit){ MiB + 3 * 512, old.rlim_max };
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
		for (u64 at = 0; at + 64 * KiB <= SIZE; at += 64 * KiB) {
			memset(buf, (int)(at >> 16) + 1, 64 * KiB);
			if (im->ops->write(im, &iov, 1, at, 64 * KiB) == 0)
				memcpy(model + at, buf, 64 * KiB);
			else if (!failed++)
				assert_int_equal(im->ops->flush(im), 0);
		}
		assert_true(failed);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
		if (bits == 16)
			compare(im, model);
		/* There is room again. */
		traffic(im, model, 2 * MiB, MiB, 50, &seed, false);
		im->ops->close(im);
		must_be_clean(path);
		failed = 0;
	}
	free(buf);
	free(model);
}

static void poke(u64 offset, unsigned size, u64 val)
{
	u8 buf[8];
	int fd = open(path, O_WRONLY);

	st64be(buf, val << (64 - 8 * size));
	assert_int_equal(pwrite(fd, buf, size, (off_t)offset), size);
	close(fd);
}

static void refused(int code, const char *word)
{
	const struct image_conf conf = { .path = path, .format = "qcow2" };
	struct err err = { 0 };
	struct image *im = NULL;

	assert_int_equal(image_open(&conf, &im, &err), code);
	assert_null(im);
	if (!strstr(err.msg, path) || !strstr(err.msg, word))
		fail_msg("'%s' names not '%s'", err.msg, word);
}

static void test_headers(void **state)
{
	static const struct {
		unsigned at, size;
		u64 val;
		int code;
		const char *word;
	} rows[] = {
		{ 0, 4, 0, -EINVAL, "no qcow2 image" },
		{ 4, 4, 4, -ENOTSUP, "version 4" },
		{ 4, 4, 1, -ENOTSUP, "version 1" },
		{ 20, 4, 8, -EINVAL, "clusters" },
		{ 20, 4, 63, -EINVAL, "clusters" },
		{ 24, 8, ~0ull, -EINVAL, "size" },
		{ 24, 8, 1ull << 50, -EINVAL, "L1" },
		{ 32, 4, 1, -ENOTSUP, "encrypted" },
		{ 36, 4, 0x7fffffff, -EINVAL, "L1" },
		{ 40, 8, 1, -EINVAL, "L1" },
		{ 40, 8, 1ull << 40, -EINVAL, "cut off" },
		{ 48, 8, 5, -EINVAL, "refcount table" },
		{ 48, 8, 1ull << 40, -EINVAL, "cut off" },
		{ 56, 4, 0, -EINVAL, "refcount table" },
		{ 56, 4, 0x10000, -EINVAL, "refcount table" },
		{ 60, 4, 0x7fffffff, -EINVAL, "snapshots" },
		{ 72, 8, 1, -EINVAL, "not closed" },
		{ 72, 8, 2, -EINVAL, "marked as damaged" },
		{ 72, 8, 4, -ENOTSUP, "another file" },
		{ 72, 8, 16, -ENOTSUP, "subclusters" },
		{ 72, 8, 1ull << 40, -ENOTSUP, "bit 40" },
		{ 96, 4, 7, -EINVAL, "refcounts" },
		{ 100, 4, 90, -EINVAL, "length" },
		{ 112, 8, 0x12345678fffffffeull, -EINVAL, "extension" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		create(path, 3, 16, false, NULL);
		poke(rows[i].at, rows[i].size, rows[i].val);
		refused(rows[i].code, rows[i].word);
	}
	create(path, 3, 16, false, NULL);
	assert_int_equal(truncate(path, 100000), 0);
	refused(-EINVAL, "cut off");
	create(path, 3, 16, false, "/etc/shadow");
	refused(-EPERM, "backing=on");
}

/* Tables that name what they must not: an I/O error, and no writes any more. */
static void test_tables(void **state)
{
	/* With clusters of 64 KiB: header, refcount table, block, L1. */
	static const u64 l1[] = { 0, 65536, 131072 + 512, 3 * 65536, 1ull << 40, 0x00fffffffffffe00ull };
	u8 buf[512] = { 1 };
	const struct iovec iov = { buf, 512 };

	for (unsigned i = 1; i < ARRAY_SIZE(l1); i++) {
		struct image *im;

		create(path, 3, 16, false, NULL);
		poke(3 * 65536ull, 8, l1[i] | 1ull << 63);
		im = open_image(path, false);
		assert_int_equal(im->ops->read(im, &iov, 1, 0, 512), -EIO);
		assert_int_equal(im->ops->write(im, &iov, 1, 0, 512), -EIO);
		im->ops->close(im);
		refused(-EINVAL, "marked as damaged");
	}
}

static void test_loop(void **state)
{
	const struct image_conf conf = { .path = path, .format = "qcow2", .backing = true };
	struct err err = { 0 };
	struct image *im;

	create(path, 3, 16, false, "base.qcow2");
	create(base, 3, 16, false, "top.qcow2");
	assert_int_equal(image_open(&conf, &im, &err), -ELOOP);
	assert_non_null(strstr(err.msg, "loop"));
	unlink(base);
	assert_int_equal(image_open(&conf, &im, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "base.qcow2"));
}

static void quiet(enum log_level level, const char *text)
{
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_contents), T(test_base),    T(test_compressed), T(test_threads), T(test_full),
		T(test_killed),   T(test_headers), T(test_tables),     T(test_loop),
	};

	log_set_sink(quiet);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
