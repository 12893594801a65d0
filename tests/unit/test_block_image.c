/* Disks in images, as a device uses them: contents against a copy in memory, by threads and with io_uring (where this host
 * allows it), on a base, with many requests under way; what goes directly to io_uring, and what must not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/log.h"
#include "blockuser.h"
#include "host/block_image.h"
#include "host/qcow2.h"

#define SIZE   (8 * MiB)
#define SLOTS  64 /* requests under way, each in its own part of the disk */
#define PART   (SIZE / SLOTS)
#define ROUNDS 50

static char folder[64], path[96], base[96];
static struct loop *loop;
static struct block *block;
static u8 *model;
static u64 seed = 1;

static u64 next_random(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return seed >> 20;
}

static int setup(void **state)
{
	struct err err;

	strcpy(folder, "/tmp/test_image.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/top.qcow2", folder);
	snprintf(base, sizeof(base), "%s/base", folder);
	assert_int_equal(loop_new(&loop, &err), 0);
	model = calloc(1, SIZE);
	return 0;
}

static int teardown(void **state)
{
	loop_free(loop);
	free(model);
	unlink(path);
	unlink(base);
	rmdir(folder);
	return 0;
}

static void create(unsigned bits, const char *backing)
{
	const struct qcow2_create_conf conf = {
		.path = path,
		.size = SIZE,
		.version = 3,
		.cluster_bits = bits,
		.replace = true,
		.backing = backing,
		.backing_format = "raw",
	};
	struct err err = { 0 };

	if (qcow2_create(&conf, &err) < 0)
		fail_msg("%s", err.msg);
}

static int try_open(enum block_aio_kind aio, bool ro)
{
	const struct image_conf conf = { .path = path, .format = "qcow2", .read_only = ro, .backing = true };
	struct err err = { 0 };
	int rc = block_image_open(&conf, aio, loop, &block, &err);

	if (rc == 0)
		blockuser_attach(block, loop);
	else if (aio != BLOCK_AIO_URING)
		fail_msg("%s", err.msg);
	return rc;
}

static bool uring_works(void)
{
	create(16, NULL);
	if (try_open(BLOCK_AIO_URING, false) < 0) {
		print_message("io_uring is not to be had here; only threads were tested\n");
		return false;
	}
	blockuser_close();
	return true;
}

static void must_be_clean(void)
{
	const struct image_conf conf = {
		.path = path, .format = "qcow2", .read_only = true, .no_backing = true
	};
	struct qcow2_result result = { 0 };
	struct err err = { 0 };
	struct image *im;

	assert_int_equal(image_open(&conf, &im, &err), 0);
	assert_int_equal(qcow2_check(im, QCOW2_REPAIR_NONE, NULL, NULL, &result, &err), 0);
	im->ops->close(im);
	assert_int_equal(result.corruptions, 0);
	assert_int_equal(result.leaks, 0);
}

static void compare(void)
{
	u8 *all = malloc(SIZE);

	assert_int_equal(blockuser_run(BLOCK_READ, 0, SIZE, all, false), 0);
	assert_memory_equal(all, model, SIZE);
	free(all);
}

/* One request in each part of the disk at the same time. */
static void round_of_requests(bool write)
{
	struct one ones[SLOTS] = { { .buf = NULL } };

	pthread_mutex_lock(&blockuser_lock);
	for (unsigned i = 0; i < SLOTS; i++) {
		u64 len = 512 * (1 + next_random() % (next_random() % 8 ? 16 : PART / 512));
		u64 at = i * PART + next_random() % ((PART - len) / 512 + 1) * 512;
		unsigned kind = next_random() % 8;
		enum block_op op = !write || kind < 4 ? BLOCK_READ : kind < 7 ? BLOCK_WRITE : BLOCK_ZERO;

		ones[i].buf = malloc(len);
		for (u64 k = 0; k < len; k += 8)
			st64(ones[i].buf + k, next_random());
		if (op == BLOCK_WRITE)
			memcpy(model + at, ones[i].buf, len);
		else if (op == BLOCK_ZERO)
			memset(model + at, 0, len);
		blockuser_submit(&ones[i], op, at, len);
		ones[i].req.unmap = kind & 1;
		if (next_random() % 16 == 0)
			block->ops->commit(block);
	}
	blockuser_finish();
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct block_req *req = &ones[i].req;

		assert_true(ones[i].done);
		assert_int_equal(ones[i].result, 0);
		if (req->op == BLOCK_READ)
			assert_memory_equal(ones[i].buf, model + req->offset, req->len);
		free(ones[i].buf);
	}
}

static void traffic(enum block_aio_kind aio)
{
	assert_int_equal(try_open(aio, false), 0);
	compare();
	for (unsigned i = 0; i < ROUNDS; i++) {
		round_of_requests(true);
		if (i % 16 == 0)
			assert_int_equal(blockuser_run(BLOCK_FLUSH, 0, 0, NULL, false), 0);
	}
	compare();
	if (aio == BLOCK_AIO_URING)
		assert_true(block_image_direct(block) > ROUNDS * SLOTS / 8);
	blockuser_close();
	must_be_clean();
	assert_int_equal(try_open(aio, true), 0);
	compare();
	round_of_requests(false);
	assert_int_equal(blockuser_run(BLOCK_WRITE, 0, 512, model, false), -EROFS);
	blockuser_close();
}

static void with_each(void (*fn)(enum block_aio_kind aio))
{
	fn(BLOCK_AIO_THREADS);
	if (uring_works())
		fn(BLOCK_AIO_URING);
}

static void contents(enum block_aio_kind aio)
{
	static const unsigned bits[] = { 9, 12, 16, 21 };

	for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
		memset(model, 0, SIZE);
		create(bits[i], NULL);
		traffic(aio);
	}
}

static void test_contents(void **state)
{
	with_each(contents);
}

/* On a base that ends inside of the disk and inside of a sector. */
static void on_base(enum block_aio_kind aio)
{
	u64 len = SIZE / 2 + 700;
	FILE *f = fopen(base, "w");

	memset(model, 0, SIZE);
	for (u64 i = 0; i < len; i++)
		model[i] = (u8)(i >> 9 ^ i);
	assert_int_equal(fwrite(model, 1, len, f), len);
	fclose(f);
	create(16, "base");
	traffic(aio);
}

static void test_base(void **state)
{
	with_each(on_base);
}

/* Which requests are direct: those that need nothing but data, once the tables are in memory. */
static void test_direct(void **state)
{
	u8 *buf = calloc(1, 256 * KiB);
	u64 direct;

	if (!uring_works())
		skip();
	create(16, NULL);
	assert_int_equal(try_open(BLOCK_AIO_URING, false), 0);
#define DIRECT(n, op, offset, len)                                               \
	do {                                                                     \
		direct = block_image_direct(block);                              \
		assert_int_equal(blockuser_run(op, offset, len, buf, false), 0); \
		assert_int_equal(block_image_direct(block), direct + (n));       \
	} while (0)
	DIRECT(0, BLOCK_READ, 0, 4096);               /* the table is not in memory */
	DIRECT(1, BLOCK_READ, 0, 4096);               /* nowhere */
	DIRECT(0, BLOCK_WRITE, 0, 128 * KiB);         /* new clusters */
	DIRECT(1, BLOCK_WRITE, 4096, 4096);           /* in place */
	DIRECT(1, BLOCK_WRITE, 0, 128 * KiB);         /* neighbours */
	DIRECT(1, BLOCK_READ, 64 * KiB - 512, 1024);  /* across them */
	DIRECT(0, BLOCK_READ, 128 * KiB - 512, 1024); /* data, then nothing */
	DIRECT(0, BLOCK_FLUSH, 0, 0);                 /* the tables' order */
	DIRECT(0, BLOCK_WRITE, 192 * KiB, 64 * KiB);  /* cluster 3, before 2 */
	DIRECT(0, BLOCK_WRITE, 128 * KiB, 64 * KiB);
	DIRECT(0, BLOCK_READ, 128 * KiB, 128 * KiB); /* not neighbours in the file */
	DIRECT(0, BLOCK_ZERO, 0, 64 * KiB);
	DIRECT(1, BLOCK_READ, 0, 64 * KiB);
	DIRECT(0, BLOCK_WRITE, 0, 512); /* not in place */
	blockuser_close();
	must_be_clean();
	free(buf);
}

/* The file ends inside a cluster: what is missing reads zero, whoever reads it. */
static void test_short_file(void **state)
{
	u8 *buf = malloc(64 * KiB);

	create(16, NULL);
	assert_int_equal(try_open(BLOCK_AIO_AUTO, false), 0);
	memset(model, 0x77, 64 * KiB);
	assert_int_equal(blockuser_run(BLOCK_WRITE, 0, 64 * KiB, model, false), 0);
	blockuser_close();
	/* Header, refcount table, a block, the L1 table, data, an L2 table: the data goes behind. */
	assert_int_equal(try_open(BLOCK_AIO_AUTO, false), 0);
	assert_int_equal(blockuser_run(BLOCK_WRITE, SIZE - 64 * KiB, 64 * KiB, model, false), 0);
	blockuser_close();
	assert_int_equal(truncate(path, 6 * 64 * KiB + 1000), 0);
	memset(model + 1000, 0, 64 * KiB - 1000);
	assert_int_equal(try_open(BLOCK_AIO_AUTO, false), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(blockuser_run(BLOCK_READ, SIZE - 64 * KiB, 64 * KiB, buf, false), 0);
		assert_memory_equal(buf, model, 64 * KiB);
	}
	blockuser_close();
	must_be_clean();
	free(buf);
}

static void quiet(enum log_level level, const char *text)
{
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_contents),
		T(test_base),
		T(test_direct),
		T(test_short_file),
	};

	log_set_sink(quiet);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
