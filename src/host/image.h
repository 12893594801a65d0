/* Disk images of any format, used by blocking calls: what qcow2 images are based on, and what `bothy image` works with.
 * Whoever wants to transfer data without blocking can ask where it is.
 *
 * Once open, read, write, zero, discard, flush, place and leave may be called by any threads at the same time; the rest
 * by one.
 */
#pragma once

#include <sys/uio.h>

#include "base/err.h"
#include "base/types.h"
#include "host/image_file.h"

#define IMAGE_SECTOR 512ull

struct image {
	const struct image_ops *ops;
	u64 size; /* of the disk, bytes, a multiple of IMAGE_SECTOR */
	bool read_only;
	const char *path;
};

enum image_extent { IMAGE_ZERO, IMAGE_DATA };

/* Where a part of a disk is. */
struct image_place {
	enum image_extent kind; /* IMAGE_ZERO: nowhere, it reads zero */
	int fd;
	u64 offset; /* in that file; what lies past its end reads zero */
	void *hold; /* for leave() */
};

/* Offsets and lengths in bytes, multiples of IMAGE_SECTOR inside the disk. 0 or a negative errno. */
struct image_ops {
	const char *name;
	int (*read)(struct image *im, const struct iovec *iov, unsigned nr, u64 offset, u64 len);
	int (*write)(struct image *im, const struct iovec *iov, unsigned nr, u64 offset, u64 len);
	/* Reads zero afterwards; unmap: space may be given back. */
	int (*zero)(struct image *im, u64 offset, u64 len, bool unmap);
	int (*discard)(struct image *im, u64 offset, u64 len);
	/* What has been written is on stable storage, in an order that leaves the image whole whenever the host stops. */
	int (*flush)(struct image *im);
	/* What begins at offset, and for how many of len bytes that holds. */
	int (*extent)(struct image *im, u64 offset, u64 len, enum image_extent *ret_kind, u64 *ret_len);
	/* The one place with all of it, for a transfer that the caller does; a write there needs no other change. The place
	 * stays theirs until leave(). Does not wait for the host: -EAGAIN where this is not known at once, and where there
	 * is no such place; read() or write() is then the way. */
	int (*place)(struct image *im, bool write, u64 offset, u64 len, struct image_place *ret_place);
	void (*leave)(struct image *im, void *hold);
	void (*close)(struct image *im); /* after a flush whose failure is logged */
};

/* The images that led to one, as long as it is being opened: to find loops. */
struct image_chain {
	const struct image_chain *above;
	u64 dev, ino;
	unsigned depth;
};

struct image_conf {
	const char *path;
	const char *format; /* "raw" or "qcow2"; NULL: qcow2 where the first bytes say so, else raw */
	bool read_only;
	bool backing;    /* files that the image names may be opened */
	bool no_backing; /* without what the image is based on; for a check of its tables only */
	bool repair;     /* one that is damaged, as far as qcow2_check() can cope with it; for that only */
	const struct image_chain *above;
};

int image_open(const struct image_conf *conf, struct image **ret_image, struct err *err);
