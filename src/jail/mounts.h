/* Mounts by descriptor [mount_setattr(2), Documentation/filesystems/mount_api of Linux].
 *
 * A mount is made detached, given its attributes, and only then attached to a directory that has been looked up
 * before: no path is looked up twice, and no mount is ever visible with other attributes than the final ones.
 * Before Linux 5.12 the same is done by mount(2), in a mount namespace of the process's own (mounts_classic.h).
 * Single-threaded processes; descriptors close on exec.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

/* Whether mounts can be detached, and so be made outside of the mount namespace that they are for. */
bool mounts_detached(void);

/* What the words of a mount's options mean. */
struct mounts_options {
	u64 set, clear;           /* MOUNT_ATTR_... of this mount */
	u64 tree_set, tree_clear; /* and of this one and all below it */
	u64 propagation;          /* MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE; 0: not given */
	bool propagation_tree;
	bool bind, bind_tree; /* bind, rbind (then both) */
	bool remount;
	bool idmap, idmap_tree;
	bool copy_up;      /* a tmpfs begins with what it covers */
	const char **data; /* what is the file system's own; points to the words given */
	unsigned data_count;
};

/* Sorts `count` words. `data` has room for as many. Cannot fail: an unknown word is the file system's. */
void mounts_options_parse(const char *const *words, unsigned count, const char **data,
			  struct mounts_options *ret_options);

/* The i-th word known here, NULL past the end. */
const char *mounts_option_name(unsigned i);

/* A new mount of a file system, detached. source may be NULL. */
int mounts_new(const char *type, const char *source, const struct mounts_options *options, int *ret_fd,
	       struct err *err);

/* A detached copy of the mount (with `tree`: and of all below it) that path is in, beginning at path. dirfd and path as for
 * openat(2); an empty path means dirfd itself. Slave of the original, so that nothing mounted in it gets back. */
int mounts_copy(int dirfd, const char *path, bool tree, int *ret_fd, struct err *err);

/* Attributes and propagation of options, on a detached or attached mount. */
int mounts_set(int mount, const struct mounts_options *options, struct err *err);
int mounts_set_read_only(int mount, bool tree, struct err *err);
/* Ownership as the user namespace maps it. */
int mounts_set_idmap(int mount, int userns, bool tree, struct err *err);

/* Attaches a detached mount on what target, any descriptor, stands for. */
int mounts_attach(int mount, int target, struct err *err);

/* The calling process's root becomes the mount, which is attached on "/" or below, and all other mounts of its
 * namespace go. The working directory is the new root. */
int mounts_pivot(int mount, struct err *err);
/* As mounts_pivot() where the root is an initramfs, which cannot be pivoted; the old root stays below. */
int mounts_chroot(int mount, struct err *err);
