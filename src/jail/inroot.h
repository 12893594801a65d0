/* Paths below a directory that is not trusted: "/" and ".." and symbolic links mean what they would mean to a process
 * whose root that directory is, and can never lead out of it.
 *
 * All functions take the root as a descriptor, and return descriptors: a path is looked up once, and what is done
 * later is done to what was found. Descriptors close on exec. Any thread.
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"

#define INROOT_NO_SYMLINKS BIT(0) /* -ELOOP where any component is a symbolic link */

/* Opens with O_... flags (O_CREAT is not among them). A negative errno, without a sentence: absence is often no error. */
int inroot_open(int root, const char *path, int oflags, unsigned how);

/* The directory at path, as an O_PATH descriptor; what is missing on the way is made with mode 0755. */
int inroot_mkdirs(int root, const char *path, unsigned how, int *ret_fd, struct err *err);

/* What is at path, as an O_PATH descriptor; where nothing is, an empty regular file or a directory, and what is missing on
 * the way, is made. A last component that is a symbolic link to nothing is followed inside the root. */
int inroot_make(int root, const char *path, bool directory, unsigned how, int *ret_fd, struct err *err);

/* The directory that holds path's last component, which is copied to name[256]. The directory is made. */
int inroot_parent(int root, const char *path, char *name, int *ret_fd, struct err *err);

/* Tests: as if the kernel had no openat2(2). */
extern bool inroot_by_hand;
