/* Raw disks in real files, by io_uring (where this host allows it) and by threads: contents, order, space, locks, what
 * may be wrong with a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/os.h"
#include "blockuser.h"
#include "host/block_raw.h"

#define SIZE (4 * MiB)
#define MANY 700 /* more than a ring has */

static char folder[64], path[96];
static struct loop *loop;
static struct block *block;
static u64 seed = 1;

static u64 next_random(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return seed >> 20;
}

static bool uring_works(void)
{
	const struct block_raw_conf conf = { .path = path, .aio = BLOCK_AIO_URING };
	struct block *b;
	struct err err;

	if (block_raw_open(&conf, loop, &b, &err) < 0)
		return false;
	b->ops->close(b);
	return true;
}

static void make_file(const char *dir, u64 size)
{
	int fd;

	snprintf(path, sizeof(path), "%s/disk", dir);
	fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

static int setup(void **state)
{
	struct err err;

	strcpy(folder, "/tmp/test_block.XXXXXX");
	assert_non_null(mkdtemp(folder));
	assert_int_equal(loop_new(&loop, &err), 0);
	make_file(folder, SIZE);
	return 0;
}

static int teardown(void **state)
{
	loop_free(loop);
	unlink(path);
	rmdir(folder);
	return 0;
}

static void open_disk(enum block_aio_kind aio, bool ro)
{
	const struct block_raw_conf conf = { .path = path, .aio = aio, .read_only = ro, .probe = true };
	struct err err = { 0 };

	if (block_raw_open(&conf, loop, &block, &err) < 0)
		fail_msg("%s", err.msg);
	blockuser_attach(block, loop);
	assert_int_equal(block->size, SIZE);
	assert_string_equal(block_raw_aio_name(block), aio == BLOCK_AIO_THREADS ? "threads" : "io_uring");
}

static void contents(enum block_aio_kind aio)
{
	static struct one ones[MANY];
	u8 *image = calloc(1, SIZE), *file = malloc(SIZE);

	make_file(folder, 0);
	make_file(folder, SIZE);
	open_disk(aio, false);
	for (unsigned round = 0; round < 3; round++) {
		/* each in its own place, so that order does not matter */
		pthread_mutex_lock(&blockuser_lock);
		for (unsigned i = 0; i < MANY; i++) {
			u64 len = 512 * (1 + next_random() % 8);

			ones[i].buf = malloc(4096);
			for (unsigned k = 0; k < len; k += 8) {
				u64 v = next_random();

				memcpy(ones[i].buf + k, &v, 8);
			}
			memcpy(image + i * 4096, ones[i].buf, len);
			blockuser_submit(&ones[i], BLOCK_WRITE, i * 4096, len);
			if (i % 100 == 0)
				block->ops->commit(block);
		}
		blockuser_finish();
		for (unsigned i = 0; i < MANY; i++) {
			assert_int_equal(ones[i].result, 0);
			memset(ones[i].buf, 0, 4096);
		}
		pthread_mutex_lock(&blockuser_lock);
		for (unsigned i = 0; i < MANY; i++)
			blockuser_submit(&ones[i], BLOCK_READ, i * 4096, 4096);
		blockuser_finish();
		for (unsigned i = 0; i < MANY; i++) {
			assert_int_equal(ones[i].result, 0);
			assert_memory_equal(ones[i].buf, image + i * 4096, 4096);
			free(ones[i].buf);
			ones[i].buf = NULL;
		}
		assert_int_equal(blockuser_run(BLOCK_FLUSH, 0, 0, NULL, false), 0);
	}
	blockuser_close();
	int fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, file, SIZE), SIZE);
	assert_memory_equal(file, image, SIZE);
	close(fd);
	free(file);
	free(image);
}

static void space(enum block_aio_kind aio)
{
	u8 *buf = malloc(MiB);
	struct stat st;

	open_disk(aio, false);
	for (unsigned unmap = 0; unmap < 2; unmap++) {
		memset(buf, 0xaa, MiB);
		assert_int_equal(blockuser_run(BLOCK_WRITE, 0, MiB, buf, false), 0);
		assert_int_equal(blockuser_run(BLOCK_ZERO, 512, MiB - 1024, NULL, unmap), 0);
		assert_int_equal(blockuser_run(BLOCK_READ, 0, MiB, buf, false), 0);
		for (unsigned i = 0; i < MiB; i++)
			assert_int_equal(buf[i], i < 512 || i >= MiB - 512 ? 0xaa : 0);
	}
	assert_int_equal(blockuser_run(BLOCK_WRITE, MiB, MiB, buf, false), 0);
	assert_int_equal(blockuser_run(BLOCK_FLUSH, 0, 0, NULL, false), 0);
	stat(path, &st);
	blkcnt_t before = st.st_blocks;
	assert_int_equal(blockuser_run(BLOCK_DISCARD, MiB, MiB, NULL, false), 0);
	stat(path, &st);
	assert_true(st.st_blocks < before);
	assert_int_equal(st.st_size, SIZE);
	blockuser_close();
	free(buf);
}

/* Submits from a thread that ends at once: nothing is lost. */
static struct one orphans[64];

static void *short_life(void *opaque)
{
	pthread_mutex_lock(&blockuser_lock);
	for (unsigned i = 0; i < ARRAY_SIZE(orphans); i++) {
		orphans[i].buf = calloc(1, 64 * KiB);
		orphans[i].buf[5] = (u8)(i + 1);
		blockuser_submit(&orphans[i], BLOCK_WRITE, i * 64 * KiB, 64 * KiB);
	}
	block->ops->commit(block);
	pthread_mutex_unlock(&blockuser_lock);
	return NULL;
}

static void orphaned(enum block_aio_kind aio)
{
	pthread_t t;
	u8 *buf = malloc(64 * KiB);

	open_disk(aio, false);
	assert_int_equal(pthread_create(&t, NULL, short_life, NULL), 0);
	pthread_join(t, NULL);
	block->ops->drain(block);
	for (unsigned i = 0; i < ARRAY_SIZE(orphans); i++) {
		assert_true(orphans[i].done);
		assert_int_equal(orphans[i].result, 0);
		free(orphans[i].buf);
		orphans[i].buf = NULL;
		assert_int_equal(blockuser_run(BLOCK_READ, i * 64 * KiB, 64 * KiB, buf, false), 0);
		assert_int_equal(buf[5], i + 1);
	}
	blockuser_close();
	free(buf);
}

/* Somebody shortens the file. */
static void shortened(enum block_aio_kind aio)
{
	u8 *buf = malloc(64 * KiB);

	open_disk(aio, false);
	assert_int_equal(truncate(path, 32 * KiB + 100), 0);
	assert_int_equal(blockuser_run(BLOCK_READ, 0, 32 * KiB, buf, false), 0);
	assert_int_equal(blockuser_run(BLOCK_READ, 0, 64 * KiB, buf, false), -EIO);
	assert_int_equal(blockuser_run(BLOCK_READ, MiB, 512, buf, false), -EIO);
	blockuser_close();
	assert_int_equal(truncate(path, SIZE), 0);
	free(buf);
}

static void with_each(void (*fn)(enum block_aio_kind aio))
{
	fn(BLOCK_AIO_THREADS);
	if (uring_works())
		fn(BLOCK_AIO_URING);
	else
		print_message("io_uring is not to be had here; only threads were tested\n");
}

static void test_contents(void **state)
{
	with_each(contents);
}

static void test_space(void **state)
{
	with_each(space);
}

/* A file system that can zero nothing by itself: zeroes are written. */
static void test_space_by_writing(void **state)
{
	char old[96];

	if (access("/dev/shm", W_OK)) {
		print_message("there is no tmpfs here\n");
		skip();
	}
	strcpy(old, path);
	make_file("/dev/shm", SIZE);
	with_each(space);
	unlink(path);
	strcpy(path, old);
}

static void test_orphaned(void **state)
{
	with_each(orphaned);
}

static void test_shortened(void **state)
{
	with_each(shortened);
}

static void refused(const char *file, bool ro, int code, const char *word)
{
	const struct block_raw_conf conf = { .path = file, .read_only = ro, .probe = true };
	struct err err = { 0 };
	struct block *b = NULL;

	assert_int_equal(block_raw_open(&conf, loop, &b, &err), code);
	assert_null(b);
	if (!strstr(err.msg, file) || !strstr(err.msg, word))
		fail_msg("'%s' names neither %s nor '%s'", err.msg, file, word);
}

static void test_locks(void **state)
{
	open_disk(BLOCK_AIO_THREADS, false);
	refused(path, false, -EBUSY, "in use");
	refused(path, true, -EBUSY, "in use");
	blockuser_close();
	open_disk(BLOCK_AIO_THREADS, true);
	struct block *first = block;
	open_disk(BLOCK_AIO_THREADS, true); /* two readers */
	refused(path, false, -EBUSY, "in use");
	blockuser_close();
	refused(path, false, -EBUSY, "in use");
	block = first;
	blockuser_attach(block, loop);
	u8 buf[512];
	assert_int_equal(blockuser_run(BLOCK_READ, 0, 512, buf, false), 0);
	assert_int_equal(blockuser_run(BLOCK_FLUSH, 0, 0, NULL, false), 0);
	blockuser_close();
	open_disk(BLOCK_AIO_THREADS, false);
	blockuser_close();
}

static void test_bad_files(void **state)
{
	char name[128];
	int fd;

	snprintf(name, sizeof(name), "%s/nowhere", folder);
	refused(name, false, -ENOENT, "No such file");
	refused(folder, false, -EISDIR, "directory");
	refused(folder, true, -EINVAL, "directory");
	snprintf(name, sizeof(name), "%s/pipe", folder);
	assert_int_equal(mkfifo(name, 0600), 0);
	refused(name, false, -EINVAL, "neither");
	unlink(name);
	refused("/dev/null", false, -EINVAL, "neither");
	assert_int_equal(truncate(path, 0), 0);
	refused(path, false, -EINVAL, "empty");
	assert_int_equal(truncate(path, 1000), 0);
	refused(path, false, -EINVAL, "512");
	assert_int_equal(truncate(path, SIZE), 0);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "QFI\xfb\0\0\0\3", 8, 0), 8);
	refused(path, false, -EINVAL, "qcow2");
	assert_int_equal(pwrite(fd, "KDMV", 4, 0), 4);
	refused(path, false, -EINVAL, "VMDK");
	close(fd);
	/* as the bytes they are */
	const struct block_raw_conf conf = { .path = path };
	struct err err;
	assert_int_equal(block_raw_open(&conf, loop, &block, &err), 0);
	block->ops->drain(block); /* of a device that never was */
	block->ops->close(block);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_contents),  T(test_space), T(test_space_by_writing), T(test_orphaned),
		T(test_shortened), T(test_locks), T(test_bad_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
