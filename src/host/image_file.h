/* The file of a disk image: opened, measured, locked, read and written whole.
 *
 * All functions may be called from any thread; reads and writes at the same time.
 */
#pragma once

#include <sys/uio.h>

#include "base/err.h"
#include "base/types.h"

enum image_file_lock {
	IMAGE_FILE_UNLOCKED, /* to look only */
	IMAGE_FILE_LOCKED,   /* for one writer, or for any number of readers */
};

/* What a new image has of the host's space from the beginning. */
enum image_file_space {
	IMAGE_FILE_SPARSE,   /* nothing */
	IMAGE_FILE_METADATA, /* its tables, so that writes change none of them; formats without tables cannot */
	IMAGE_FILE_RESERVED, /* all, as far as the file system can promise that without writing */
	IMAGE_FILE_WRITTEN,  /* all, written with zeroes */
};

struct image_file {
	int fd; /* -1: not open */
	bool read_only;
	u64 size; /* bytes, when it was opened */
	u64 dev, ino;
	char *path;
	int sync_error; /* atomic; of a synchronization that has failed, 0: none has */
};

/* Opens a regular file or block device. The sentence names it, and who uses it where that is the reason. */
int image_file_open(struct image_file *ret_file, const char *path, bool read_only, enum image_file_lock lock,
		    struct err *err);
/* Locks one that was opened without. */
int image_file_lock(const struct image_file *file, struct err *err);
/* Makes one, which must not be there unless `replace`; locked. */
int image_file_create(struct image_file *ret_file, const char *path, bool replace, struct err *err);
void image_file_close(struct image_file *file); /* an unopened one ({ .fd = -1 }) is allowed */

/* "qcow2", "VMDK" and so on: what the first bytes say; NULL: nothing known. A guest that writes to a raw disk can make
 * them say anything. */
int image_file_probe(const struct image_file *file, const char **ret_format, struct err *err);

/* Fills ret_text with "process 12 (bothy)" for one that has the file open besides this one; false: none is seen (those
 * of other users are not). */
bool image_file_user(const struct image_file *file, char *ret_text, size_t len);

/* All of it, or a negative errno. What lies past the end of the file reads zero. */
int image_file_read(const struct image_file *file, void *buf, u64 len, u64 offset);
int image_file_write(const struct image_file *file, const void *buf, u64 len, u64 offset);
/* iov: any number of parts, len bytes in all. */
int image_file_readv(const struct image_file *file, const struct iovec *iov, unsigned nr, u64 len,
		     u64 offset);
int image_file_writev(const struct image_file *file, const struct iovec *iov, unsigned nr, u64 len,
		      u64 offset);
/* Gives space back to the host where the file system can; contents are of no interest. */
void image_file_punch(const struct image_file *file, u64 offset, u64 len);
/* Has once failed: fails from then on, with the same -errno. The host may have dropped what it could not write, and would
 * say of the next one that all is well. */
int image_file_sync(struct image_file *file);
/* All of len bytes have their space on the host, and read zero where the file did not reach before. progress: bytes done by
 * WRITTEN; NULL: nobody asks. */
int image_file_take_space(const struct image_file *file, enum image_file_space space, u64 offset, u64 len,
			  void (*progress)(void *opaque, u64 done), void *opaque);
/* The same, where somebody else has tried to: rc is what came of it. Returns what holds now. */
int image_file_synced(struct image_file *file, int rc);
