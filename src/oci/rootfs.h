/* The container's file system: its root, everything that is mounted in it, device nodes, masked paths, its console.
 *
 * Sources on the host are opened by the runtime where it may (rootfs_open()); the rest runs in the container's process, in
 * its new mount namespace, before the root is changed.
 */
#pragma once

#include "jail/cgroup.h"
#include "oci/spec.h"

struct rootfs {
	const struct spec *spec;
	const struct cgroup *cgroup; /* NULL: none */
	bool opened;
	int root;          /* the root's mount, detached until rootfs_mount() */
	int *sources;      /* of bind mounts, by mount; -1: none */
	bool bind_devices; /* nodes cannot be made, so the host's are mounted */
	int terminal;      /* the side of the console that the container gets, -1: none */
	int console;       /* the other side */
};

void rootfs_init(struct rootfs *rf, const struct spec *spec, const struct cgroup *cgroup);
void rootfs_close(struct rootfs *rf);

/* Checks the path of the root, which may be relative to the working directory; `ret_path` has room for 4096 bytes. */
int rootfs_find(const struct spec *spec, char *ret_path, int *ret_fd, struct err *err);

/* Takes the root and the sources of bind mounts out of the calling process's mount namespace, with the working directory the
 * bundle. Needs CAP_SYS_ADMIN over that namespace. */
int rootfs_open(struct rootfs *rf, struct err *err);

/* Makes the tree: mounts, device nodes, links. Calls rootfs_open() itself where that has not been done. */
int rootfs_mount(struct rootfs *rf, struct err *err);
/* A terminal in the container's devpts, its slave on /dev/console. */
int rootfs_make_console(struct rootfs *rf, struct err *err);
/* Settings of the container's namespaces, through the host's /proc. */
int rootfs_write_sysctl(const struct spec *spec, struct err *err);
/* Masked and read-only paths, and the root itself where it is to be read-only. */
int rootfs_seal(struct rootfs *rf, struct err *err);
/* The root becomes the process's. */
int rootfs_enter(struct rootfs *rf, bool no_pivot, struct err *err);
