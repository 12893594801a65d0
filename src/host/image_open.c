/* Images by format, and raw ones. Threads: see image.h. */
#include "host/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "host/qcow2.h"

#define ZERO_LEN (64 * KiB)

struct raw {
	struct image image;
	struct image_file file;
};

static int raw_read(struct image *im, const struct iovec *iov, unsigned nr, u64 offset, u64 len)
{
	return image_file_readv(&container_of(im, struct raw, image)->file, iov, nr, len, offset);
}

static int raw_write(struct image *im, const struct iovec *iov, unsigned nr, u64 offset, u64 len)
{
	return image_file_writev(&container_of(im, struct raw, image)->file, iov, nr, len, offset);
}

static int raw_zero(struct image *im, u64 offset, u64 len, bool unmap)
{
	static const u8 zeroes[ZERO_LEN];
	struct raw *r = container_of(im, struct raw, image);
	int mode = (unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
	int rc = 0;

	if (fallocate(r->file.fd, mode, (off_t)offset, (off_t)len) == 0)
		return 0;
	for (u64 done = 0; rc == 0 && done < len; done += ZERO_LEN)
		rc = image_file_write(&r->file, zeroes, MIN(ZERO_LEN, len - done), offset + done);
	return rc;
}

static int raw_discard(struct image *im, u64 offset, u64 len)
{
	image_file_punch(&container_of(im, struct raw, image)->file, offset, len);
	return 0;
}

static int raw_flush(struct image *im)
{
	return im->read_only ? 0 : image_file_sync(&container_of(im, struct raw, image)->file);
}

static int raw_extent(struct image *im, u64 offset, u64 len, enum image_extent *ret_kind, u64 *ret_len)
{
	int fd = container_of(im, struct raw, image)->file.fd;
	off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
	off_t end;

	if (data < 0 && errno != ENXIO) { /* a file system without holes */
		*ret_kind = IMAGE_DATA;
		*ret_len = len;
		return 0;
	}
	/* A border inside a sector belongs to the data. */
	data = data < 0 ? (off_t)im->size : (off_t)ALIGN_DOWN((u64)data, IMAGE_SECTOR);
	if ((u64)data > offset) {
		*ret_kind = IMAGE_ZERO;
		*ret_len = MIN(len, (u64)data - offset);
		return 0;
	}
	end = lseek(fd, (off_t)offset, SEEK_HOLE);
	*ret_kind = IMAGE_DATA;
	*ret_len = end < 0 ? len : MIN(len, ALIGN_UP((u64)end, IMAGE_SECTOR) - offset);
	return 0;
}

static int raw_place(struct image *im, bool write, u64 offset, u64 len, struct image_place *ret_place)
{
	*ret_place = (struct image_place){
		.kind = IMAGE_DATA,
		.fd = container_of(im, struct raw, image)->file.fd,
		.offset = offset,
	};
	return 0;
}

static void raw_leave(struct image *im, void *hold)
{
}

static void raw_close(struct image *im)
{
	struct raw *r = container_of(im, struct raw, image);
	int rc = raw_flush(im);

	if (rc < 0)
		log_error("disk %s: what was written last may be lost: %s", im->path, strerror(-rc));
	image_file_close(&r->file);
	free(r);
}

static const struct image_ops raw_ops = {
	.name = "raw",
	.read = raw_read,
	.write = raw_write,
	.zero = raw_zero,
	.discard = raw_discard,
	.flush = raw_flush,
	.extent = raw_extent,
	.place = raw_place,
	.leave = raw_leave,
	.close = raw_close,
};

static int open_raw(struct image_file *file, struct image **ret_image, struct err *err)
{
	struct raw *r = calloc(1, sizeof(*r));

	if (!r)
		return err_set(err, -ENOMEM, "no memory for disk %s", file->path);
	r->file = *file;
	r->image = (struct image){
		.ops = &raw_ops,
		.size = ALIGN_UP(file->size, IMAGE_SECTOR),
		.read_only = file->read_only,
		.path = file->path,
	};
	*ret_image = &r->image;
	return 0;
}

int image_open(const struct image_conf *conf, struct image **ret_image, struct err *err)
{
	const char *found = NULL, *format = conf->format;
	struct image_file file;
	int rc = image_file_open(&file, conf->path, conf->read_only, IMAGE_FILE_UNLOCKED, err);

	if (rc < 0)
		return rc;
	for (const struct image_chain *c = conf->above; c && rc == 0; c = c->above)
		if (c->dev == file.dev && c->ino == file.ino)
			rc = err_set(err, -ELOOP, "the backing files form a loop: %s is its own base",
				     conf->path);
	if (rc == 0)
		rc = image_file_lock(&file, err);
	if (rc == 0)
		rc = image_file_probe(&file, &found, err);
	if (rc == 0 && !format)
		format = found && !strcmp(found, "qcow2") ? "qcow2" : "raw";
	if (rc == 0 && !strcmp(format, "qcow2"))
		rc = qcow2_open(&file, conf, ret_image, err);
	else if (rc == 0 && !strcmp(format, "raw"))
		rc = open_raw(&file, ret_image, err);
	else if (rc == 0)
		rc = err_set(err, -EINVAL, "disk %s: format '%.32s' is neither raw nor qcow2", conf->path,
			     format);
	if (rc < 0)
		image_file_close(&file);
	return rc;
}
