/* The host fails under a disk: any one of its calls for the file, once or from then on, with an I/O error or because it is full
 * [A18]. Who asked is told, what was acknowledged is there, a synchronization that has failed never succeeds again, and a
 * qcow2 image is nothing worse than leaky. Each scenario is the same traffic with another call failing.
 *
 * And the host ends at any of these calls: of what it was given since the last synchronization any sectors are on the disk, the
 * others are not. What the guest has synchronized is there, and the image is nothing worse than leaky. */
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
#define MAX_FILE (16 * MiB)
#define POINTS   24 /* calls of a kind that fail, spread over all of them */

enum call { READ, WRITE, SYNC, NR_CALLS };

static struct {
	bool armed, lasts; /* it fails from then on */
	bool partly;       /* a write does half of it first */
	enum call call;
	u64 at; /* which one */
	int error;
	u64 seen[NR_CALLS];
} fault;

static char folder[64], full[96], path[96], crashed[96];
static u8 *model;
static bool unknown[SECTORS]; /* old contents or new ones */
static bool fresh[SECTORS];   /* changed since the last flush that has succeeded */
static unsigned messages;

/* ---- a host that ends ---- */

static struct {
	bool on, examined; /* calls are recorded; now what they left is looked at */
	u8 *disk;          /* what is on stable storage */
	u8 *cache;         /* what the host knows */
	bool dirty[MAX_FILE / 512];
	u64 len, seed, ends;
} host;

static void examine(void);

static void remember(const struct iovec *iov, int nr, u64 at)
{
	for (int i = 0; i < nr; i++) {
		assert_true(at + iov[i].iov_len <= MAX_FILE);
		if (iov[i].iov_base)
			memcpy(host.cache + at, iov[i].iov_base, iov[i].iov_len);
		else
			memset(host.cache + at, 0, iov[i].iov_len);
		/* A sector is written whole, or not at all. */
		memset(host.dirty + at / 512, true, (at % 512 + iov[i].iov_len + 511) / 512);
		at += iov[i].iov_len;
		host.len = MAX(host.len, at);
	}
}

static void synchronize(void)
{
	memcpy(host.disk, host.cache, MAX_FILE);
	memset(host.dirty, false, sizeof(host.dirty));
}

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
int __real_fallocate64(int fd, int mode, off_t at, off_t len);
int __wrap_fallocate64(int fd, int mode, off_t at, off_t len);

ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int nr, off_t at)
{
	if (host.on && !host.examined) {
		remember(iov, nr, (u64)at);
		examine();
	}
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
	if (host.on && !host.examined) {
		examine();
		synchronize();
	}
	return fails(SYNC) ? -1 : 0; /* the real one would only take time */
}

int __wrap_fallocate64(int fd, int mode, off_t at, off_t len)
{
	const struct iovec zeroes = { NULL, (size_t)len };

	if (host.on && !host.examined) {
		remember(&zeroes, 1, (u64)at);
		examine();
	}
	return __real_fallocate64(fd, mode, at, len);
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
	struct stat st = { 0 };

	assert_true(in >= 0 && out >= 0 && fstat(in, &st) == 0);
	for (off_t done = 0; done < st.st_size;)
		assert_true(sendfile(out, in, &done, (size_t)(st.st_size - done)) > 0);
	close(in);
	close(out);
}

static void set_unknown(u64 at, u64 len, bool val)
{
	memset(unknown + at / 512, val, len / 512);
}

/* Before a change. */
static void touch(u64 at, u64 len)
{
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
	touch(at, len);
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
			touch(at, len);
			rc = im->ops->zero(im, at, len, true);
			if (rc == 0)
				memset(model + at, 0, len);
			set_unknown(at, len, rc < 0);
			break;
		case 1:
			touch(at, len);
			im->ops->discard(im, at, len);
			set_unknown(at, len, true);
			break;
		case 2: compare(im, at, len); break;
		case 3: flush(im); break;
		default: put(im, at, len, &s);
		}
	}
}

static void check(const char *file, enum qcow2_repair repair)
{
	const struct image_conf conf = { .path = file, .format = "qcow2" };
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
	host.on = false;
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
	check(path, QCOW2_REPAIR_LEAKS);
	check(path, QCOW2_REPAIR_NONE);
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
	/* The image is copied for each scenario. */
	strcpy(folder, access("/dev/shm", W_OK) ? "/tmp/test_faults.XXXXXX" : "/dev/shm/test_faults.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(full, sizeof(full), "%s/full.qcow2", folder);
	snprintf(path, sizeof(path), "%s/disk", folder);
	snprintf(crashed, sizeof(crashed), "%s/crashed", folder);
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

/* The disk as the host's end leaves it, now. */
static void examine(void)
{
	bool keep[SECTORS];
	u8 *disk;
	int fd;

	host.examined = true;
	host.ends++;
	disk = malloc(MAX_FILE);
	memcpy(disk, host.disk, MAX_FILE);
	for (u64 i = 0, likely = next_random(&host.seed) % 5; i < MAX_FILE / 512; i++)
		if (host.dirty[i] && next_random(&host.seed) % 4 < likely)
			memcpy(disk + i * 512, host.cache + i * 512, 512);
	fd = open(crashed, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, disk, host.len), host.len);
	close(fd);
	free(disk);
	memcpy(keep, unknown, sizeof(keep));
	for (unsigned i = 0; i < SECTORS; i++)
		unknown[i] |= fresh[i];
	check(crashed, QCOW2_REPAIR_LEAKS);
	memcpy(unknown, keep, sizeof(keep));
	host.examined = false;
}

static void test_host_ends(void **state)
{
	struct stat st = { 0 };
	FILE *f;

	host.disk = malloc(MAX_FILE);
	host.cache = calloc(1, MAX_FILE);
	f = fopen(full, "r");
	assert_true(f && fstat(fileno(f), &st) == 0);
	host.len = (u64)st.st_size;
	assert_int_equal(fread(host.cache, 1, host.len, f), host.len);
	fclose(f);
	for (unsigned i = 0; i < 2; i++) {
		u8 *whole = malloc(MAX_FILE);
		u64 len = host.len;

		memcpy(whole, host.cache, MAX_FILE);
		synchronize();
		host.on = true;
		scenario(i ? append : traffic, false);
		host.on = false;
		memcpy(host.cache, whole, MAX_FILE);
		host.len = len;
		free(whole);
	}
	print_message("the host has ended %llu times\n", (unsigned long long)host.ends);
	assert_true(host.ends > 50);
	free(host.disk);
	free(host.cache);
	unlink(crashed);
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
		T(test_write_error), T(test_no_room),   T(test_sync_error),
		T(test_read_error),  T(test_host_ends), T(test_raw),
	};

	log_set_sink(count_messages);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
