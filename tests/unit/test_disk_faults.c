/* The host fails under a disk: any one of its calls for the file, once or from then on, with an I/O error or because it is full
 * [A18]. Who asked is told, what was acknowledged is there, a synchronization that has failed never succeeds again, and a
 * qcow2 image is nothing worse than leaky. Each scenario is the same traffic with another call failing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/log.h"
#include "blockuser.h"
#include "host/block_raw.h"
#include "host/qcow2.h"

#define SIZE     (12 * MiB)
#define SECTORS  (SIZE / 512)
#define FULL     (7 * MiB + 860 * KiB) /* in clusters of 512 bytes: the refcount table is about to grow */
#define OPS      48
#define APPENDED (64 * KiB)
#define POINTS   40 /* calls of a kind that fail, spread over all of them */

enum call { READ, WRITE, SYNC, NR_CALLS };

static struct {
	bool armed, lasts; /* it fails from then on */
	bool partly;       /* a write does half of it first */
	enum call call;
	u64 at; /* which one */
	int error;
	u64 seen[NR_CALLS];
} fault;

static char folder[64], full[96], path[96];
static u8 *model;
static bool unknown[SECTORS]; /* old contents or new ones */
static bool fresh[SECTORS];   /* changed since the last flush that has succeeded */
static unsigned messages;

/* ---- the host's calls ---- */

static bool fails(enum call call)
{
	u64 n = __atomic_fetch_add(&fault.seen[call], 1, __ATOMIC_RELAXED);

	if (!fault.armed || call != fault.call || (fault.lasts ? n < fault.at : n != fault.at))
		return false;
	errno = fault.error;
	return true;
}

ssize_t __real_pwritev64(int fd, const struct iovec *iov, int nr, off_t at);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int nr, off_t at);
ssize_t __real_preadv64(int fd, const struct iovec *iov, int nr, off_t at);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int nr, off_t at);
int __wrap_fdatasync(int fd);

ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int nr, off_t at)
{
	if (!fails(WRITE))
		return __real_pwritev64(fd, iov, nr, at);
	/* The next call then finds out why. A host does not tear a sector. */
	if (fault.partly && iov->iov_len >= 1024) {
		struct iovec half = { iov->iov_base, iov->iov_len / 1024 * 512 };

		fault.at += !fault.lasts;
		fault.partly = false;
		return __real_pwritev64(fd, &half, 1, at);
	}
	return -1;
}

ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int nr, off_t at)
{
	return fails(READ) ? -1 : __real_preadv64(fd, iov, nr, at);
}

int __wrap_fdatasync(int fd)
{
	return fails(SYNC) ? -1 : 0; /* the real one would only take time */
}

/* ---- qcow2 ---- */

static u64 next_random(u64 *s)
{
	*s = *s * 6364136223846793005ull + 1442695040888963407ull;
	return *s >> 20;
}

static struct image *open_image(const char *file)
{
	const struct image_conf conf = { .path = file, .format = "qcow2" };
	struct err err = { 0 };
	struct image *im = NULL;

	if (image_open(&conf, &im, &err) < 0)
		fail_msg("%s", err.msg);
	return im;
}

/* An image that is nearly as long as its refcount table allows. */
static void make_full(void)
{
	const struct qcow2_create_conf conf = {
		.path = full, .size = SIZE, .version = 3, .cluster_bits = 9, .replace = true
	};
	const struct iovec iov = { model, FULL };
	struct err err = { 0 };
	struct image *im;

	memset(model, 0, SIZE);
	for (u64 i = 0; i < FULL; i++)
		model[i] = (u8)(i >> 9 ^ i);
	if (qcow2_create(&conf, &err) < 0)
		fail_msg("%s", err.msg);
	im = open_image(full);
	assert_int_equal(im->ops->write(im, &iov, 1, 0, FULL), 0);
	im->ops->close(im);
}

static void copy_full(void)
{
	int in = open(full, O_RDONLY), out = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	struct stat st;

	assert_true(in >= 0 && out >= 0 && fstat(in, &st) == 0);
	for (off_t done = 0; done < st.st_size;)
		assert_true(sendfile(out, in, &done, (size_t)(st.st_size - done)) > 0);
	close(in);
	close(out);
}

static void set_unknown(u64 at, u64 len, bool val)
{
	memset(unknown + at / 512, val, len / 512);
	memset(fresh + at / 512, true, len / 512);
}

static void compare(struct image *im, u64 at, u64 len)
{
	u8 *got = malloc(len);
	const struct iovec iov = { got, len };

	if (im->ops->read(im, &iov, 1, at, len) == 0)
		for (u64 k = 0; k < len; k += 512)
			if (!unknown[(at + k) / 512] && memcmp(got + k, model + at + k, 512) != 0)
				fail_msg("sector %llu differs", (unsigned long long)(at + k) / 512);
	free(got);
}

static void put(struct image *im, u64 at, u64 len, u64 *s)
{
	u8 *buf = malloc(len);
	const struct iovec iov = { buf, len };
	int rc;

	for (u64 k = 0; k < len; k += 8)
		st64(buf + k, next_random(s));
	rc = im->ops->write(im, &iov, 1, at, len);
	if (rc == 0)
		memcpy(model + at, buf, len);
	set_unknown(at, len, rc < 0);
	free(buf);
}

static void flush(struct image *im)
{
	if (im->ops->flush(im) == 0)
		memset(fresh, false, sizeof(fresh));
}

/* What was not there: the refcount table grows. */
static void append(struct image *im, u64 s)
{
	for (u64 at = FULL; at < FULL + APPENDED; at += 4 * KiB) {
		put(im, at, 4 * KiB, &s);
		if (at % (16 * KiB) == 0)
			flush(im);
	}
}

static void traffic(struct image *im, u64 s)
{
	for (unsigned i = 0; i < OPS; i++) {
		u64 len = 512 * (1 + next_random(&s) % (next_random(&s) % 4 ? 8 : 64));
		u64 at = next_random(&s) % ((SIZE - len) / 512) * 512;
		int rc;

		switch (next_random(&s) % 8) {
		case 0:
			rc = im->ops->zero(im, at, len, true);
			if (rc == 0)
				memset(model + at, 0, len);
			set_unknown(at, len, rc < 0);
			break;
		case 1:
			im->ops->discard(im, at, len);
			set_unknown(at, len, true);
			break;
		case 2: compare(im, at, len); break;
		case 3: flush(im); break;
		default: put(im, at, len, &s);
		}
	}
}

static void check(enum qcow2_repair repair)
{
	const struct image_conf conf = { .path = path, .format = "qcow2" };
	struct qcow2_result result = { 0 };
	struct err err = { 0 };
	struct image *im = NULL;

	if (image_open(&conf, &im, &err) < 0 || qcow2_check(im, repair, NULL, NULL, &result, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(result.corruptions, 0);
	if (repair == QCOW2_REPAIR_NONE)
		assert_int_equal(result.leaks, 0);
	assert_true(result.fixed_leaks == result.leaks || repair == QCOW2_REPAIR_NONE);
	compare(im, 0, SIZE);
	im->ops->close(im);
}

/* The calls of fault.call that the traffic makes. */
static u64 scenario(void (*run)(struct image *im, u64 seed), bool arm)
{
	u8 *before = malloc(SIZE);
	struct image *im;
	u64 seen;
	int rc;

	memcpy(before, model, SIZE);
	memset(unknown, 0, sizeof(unknown));
	copy_full();
	im = open_image(path);
	memset(fresh, 0, sizeof(fresh));
	memset(fault.seen, 0, sizeof(fault.seen));
	fault.armed = arm;
	messages = 0;
	run(im, 7);
	seen = fault.seen[fault.call];
	/* The host works again. */
	rc = arm && fault.call == SYNC && seen > fault.at ? -fault.error : 0;
	fault.armed = false;
	assert_int_equal(im->ops->flush(im), rc);
	assert_int_equal(im->ops->flush(im), rc);
	compare(im, 0, SIZE);
	im->ops->close(im);
	assert_int_equal(messages, rc < 0);
	/* The image's tables are as after the last flush that has succeeded. */
	for (unsigned i = 0; rc < 0 && i < SECTORS; i++)
		unknown[i] |= fresh[i];
	check(QCOW2_REPAIR_LEAKS);
	check(QCOW2_REPAIR_NONE);
	memcpy(model, before, SIZE);
	free(before);
	return seen;
}

static void points(void (*run)(struct image *im, u64 seed), enum call call, int error, bool lasts,
		   bool partly)
{
	u64 total;

	memset(&fault, 0, sizeof(fault));
	fault.call = call;
	total = scenario(run, false);
	assert_true(total > 4);
	for (u64 i = 0; i < MIN(total, POINTS); i++) {
		memset(&fault, 0, sizeof(fault));
		fault.call = call;
		fault.error = error;
		fault.lasts = lasts;
		fault.partly = partly;
		fault.at = total <= POINTS ? i : i * total / POINTS;
		scenario(run, true);
	}
}

static void each_point(enum call call, int error, bool lasts, bool partly)
{
	points(traffic, call, error, lasts, partly);
	points(append, call, error, lasts, partly);
}

static int setup(void **state)
{
	strcpy(folder, "/tmp/test_faults.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(full, sizeof(full), "%s/full.qcow2", folder);
	snprintf(path, sizeof(path), "%s/disk", folder);
	model = malloc(SIZE);
	memset(&fault, 0, sizeof(fault));
	make_full();
	return 0;
}

static int teardown(void **state)
{
	unlink(full);
	unlink(path);
	rmdir(folder);
	free(model);
	return 0;
}

static void test_write_error(void **state)
{
	each_point(WRITE, EIO, false, false);
}

static void test_no_room(void **state)
{
	each_point(WRITE, ENOSPC, true, true);
}

static void test_sync_error(void **state)
{
	each_point(SYNC, EIO, false, false);
}

static void test_read_error(void **state)
{
	each_point(READ, EIO, true, false);
}

/* ---- raw ---- */

static void test_raw(void **state)
{
	const struct block_raw_conf conf = { .path = path, .aio = BLOCK_AIO_THREADS };
	struct block *block;
	struct loop *loop;
	struct err err;
	u8 buf[8192];

	copy_full();
	assert_int_equal(truncate(path, MiB), 0);
	assert_int_equal(loop_new(&loop, &err), 0);
	assert_int_equal(block_raw_open(&conf, loop, &block, &err), 0);
	blockuser_attach(block, loop);
	memset(buf, 5, sizeof(buf));
	memset(fault.seen, 0, sizeof(fault.seen));
	fault.armed = true;
	fault.call = WRITE;
	fault.error = ENOSPC;
	assert_int_equal(blockuser_run(BLOCK_WRITE, 0, 4096, buf, false), -ENOSPC);
	assert_int_equal(blockuser_run(BLOCK_WRITE, 0, 4096, buf, false), 0);
	fault.at = 2;
	fault.partly = true;
	assert_int_equal(blockuser_run(BLOCK_WRITE, 8192, 8192, buf, false), -ENOSPC);
	fault.call = READ;
	fault.error = EIO;
	fault.at = fault.seen[READ];
	assert_int_equal(blockuser_run(BLOCK_READ, 0, 4096, buf, false), -EIO);
	assert_int_equal(blockuser_run(BLOCK_READ, 0, 4096, buf, false), 0);
	assert_int_equal(buf[4095], 5);
	assert_int_equal(blockuser_run(BLOCK_FLUSH, 0, 0, NULL, false), 0);
	fault.call = SYNC;
	fault.at = fault.seen[SYNC];
	/* Nobody may believe what the host says after that. */
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(blockuser_run(BLOCK_FLUSH, 0, 0, NULL, false), -EIO);
	assert_int_equal(blockuser_run(BLOCK_WRITE, 0, 4096, buf, false), 0);
	messages = 0;
	blockuser_close();
	assert_int_equal(messages, 1);
	loop_free(loop);
}

static void count_messages(enum log_level level, const char *text)
{
	messages++;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_write_error), T(test_no_room), T(test_sync_error), T(test_read_error), T(test_raw),
	};

	log_set_sink(count_messages);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
