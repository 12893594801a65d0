/* Hostile qcow2 images [A12]: a good one of 512-byte clusters with bytes changed where metadata is, or anything after the
 * magic; opened, read, written, checked and repaired. What fails must say so; memory and time stay bounded. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "host/qcow2.h"

#define SIZE     (256 * KiB)
#define META_LEN 8192 /* header, refcounts, L1, the first L2 tables */
#define EDIT     4    /* bytes of input for one change */
#define CLUSTER  512u

static void quiet(enum log_level level, const char *text)
{
}

static void must_have_sentence(int rc, const struct err *err)
{
	if (rc < 0 && (!err->code || !err->msg[0]))
		abort();
}

/* A bitmap's directory, table and one cluster at the end [qcow2, "Bitmaps extension"], named in the header. */
static size_t add_bitmap(u8 *bytes, size_t len)
{
	u8 *ext = bytes + 112, *directory = bytes + len, *table = directory + CLUSTER;

	bytes[95] |= 1; /* autoclear: they are valid */
	st32be(ext, 0x23852875);
	st32be(ext + 4, 24);
	st32be(ext + 8, 1);
	st64be(ext + 16, 32);
	st64be(ext + 24, len);
	st64be(directory, len + CLUSTER);
	st32be(directory + 8, 2);
	directory[16] = 1;  /* type */
	directory[17] = 16; /* granularity */
	st16be(directory + 18, 1);
	directory[24] = 'b';
	st64be(table, len + 2 * CLUSTER);
	st64be(table + 8, 1); /* all ones */
	return len + 3 * CLUSTER;
}

/* The good image's bytes, once. */
static const u8 *good_image(size_t *ret_len)
{
	static u8 bytes[64 * KiB];
	static size_t len;
	char path[] = "/tmp/fuzz_qcow2.XXXXXX";
	const struct qcow2_create_conf conf = {
		.path = path, .size = SIZE, .version = 3, .cluster_bits = 9, .replace = true
	};
	const struct image_conf open_conf = { .path = path, .format = "qcow2" };
	struct image *im;
	u8 data[2048];
	int fd;

	if (len) {
		*ret_len = len;
		return bytes;
	}
	fd = mkstemp(path);
	if (fd < 0 || qcow2_create(&conf, NULL) < 0 || image_open(&open_conf, &im, NULL) < 0)
		abort();
	memset(data, 7, sizeof(data));
	qcow2_io_write_compressed(im, data, 4096);
	for (u64 at = 0; at < SIZE; at += SIZE / 4) {
		const struct iovec iov = { data, sizeof(data) };

		im->ops->write(im, &iov, 1, at, sizeof(data));
	}
	im->ops->close(im);
	len = add_bitmap(bytes, ALIGN_UP((size_t)read(fd, bytes, sizeof(bytes)), CLUSTER));
	close(fd);
	unlink(path);
	*ret_len = len;
	return bytes;
}

static void use(struct image *im)
{
	u8 *data = malloc(SIZE);
	const struct iovec all = { data, MIN(im->size, SIZE) }, some = { data, 1536 };
	enum image_extent kind;
	struct image_place place;
	u64 len;

	memset(data, 0x33, SIZE);
	if (im->size) {
		im->ops->read(im, &all, 1, 0, all.iov_len);
		im->ops->extent(im, 0, im->size, &kind, &len);
		for (u64 at = 0; at + 2048 <= all.iov_len; at += 2048)
			if (im->ops->place(im, at & 2048, at, 2048, &place) == 0)
				im->ops->leave(im, place.hold);
	}
	if (im->size >= SIZE && !im->read_only) {
		im->ops->write(im, &some, 1, 512, some.iov_len);
		im->ops->zero(im, 1024, 4096, true);
		im->ops->write(im, &some, 1, SIZE - 1536, some.iov_len);
		im->ops->flush(im);
		im->ops->discard(im, 0, 8192);
		im->ops->flush(im);
		im->ops->write(im, &some, 1, 65536 * 3, some.iov_len);
	}
	free(data);
}

static void try(const char *path, bool ro, bool check)
{
	const struct image_conf conf = {
		.path = path, .format = "qcow2", .read_only = ro, .no_backing = check, .repair = check
	};
	struct err err = { 0 };
	struct qcow2_result r;
	struct image *im;
	int rc = image_open(&conf, &im, &err);

	must_have_sentence(rc, &err);
	if (rc < 0)
		return;
	if (check) {
		rc = qcow2_check(im, ro ? QCOW2_REPAIR_NONE : QCOW2_REPAIR_ALL, NULL, NULL, &r, &err);
		must_have_sentence(rc, &err);
	} else {
		use(im);
	}
	im->ops->close(im);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	size_t good_len;
	const u8 *good = good_image(&good_len);
	u8 *image;
	char path[64];
	int fd;

	if (!len)
		return 0;
	log_set_sink(quiet);
	fd = memfd_create("image", 0);
	image = malloc(good_len);
	memcpy(image, good, good_len);
	if (data[0] & 1) {
		for (size_t i = 1; i + EDIT <= len && i < 16 * EDIT; i += EDIT) {
			u16 where = ld16(data + i);
			/* Every eighth one where the bitmap is. */
			size_t at =
				where & 7 ? where % META_LEN : good_len - 1 - (where >> 3) % (3 * CLUSTER);

			/* Small values and single bits are likelier to be believed. */
			image[at] = data[i + 2] & 1 ? image[at] ^ (u8)(1u << data[i + 3] % 8) : data[i + 3];
		}
	} else {
		memcpy(image + 8, data + 1, MIN(len - 1, good_len - 8));
	}
	if (fd < 0 || write(fd, image, good_len) != (ssize_t)good_len)
		abort();
	free(image);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	try(path, true, false);
	try(path, true, true);
	try(path, false, false);
	try(path, false, true);
	try(path, false, false);
	close(fd);
	return 0;
}
