/* Namespaces by kind and by file [namespaces(7), setns(2), ioctl_ns(2)].
 *
 * A process may join a namespace only with privileges over the user namespace that owns it. A namespace that is
 * given by path may be owned by the caller's user namespace, or by the one that is joined together with it; both
 * occur in practice. So there are two rounds: before and after the user namespace is joined.
 * Called by single-threaded processes only, which setns(2) demands for user namespaces.
 */
#include "jail/ns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

const struct ns_type ns_types[NS_KINDS] = {
	[NS_USER] = { "user", "user", CLONE_NEWUSER }, [NS_CGROUP] = { "cgroup", "cgroup", CLONE_NEWCGROUP },
	[NS_IPC] = { "ipc", "ipc", CLONE_NEWIPC },     [NS_UTS] = { "uts", "uts", CLONE_NEWUTS },
	[NS_NET] = { "network", "net", CLONE_NEWNET }, [NS_PID] = { "pid", "pid", CLONE_NEWPID },
	[NS_TIME] = { "time", "time", CLONE_NEWTIME }, [NS_MNT] = { "mount", "mnt", CLONE_NEWNS },
};

enum ns_kind ns_find(const char *name)
{
	enum ns_kind kind = 0;

	while (kind < NS_KINDS && strcmp(ns_types[kind].name, name) != 0)
		kind++;
	return kind;
}

int ns_open(enum ns_kind kind, const char *path, int *ret_fd, struct err *err)
{
	/* O_NONBLOCK: a pipe must not make us wait. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct statfs fs;
	int type;

	if (fd < 0)
		return err_sys(err, -errno, "cannot open the %s namespace '%s'", ns_types[kind].name, path);
	if (fstatfs(fd, &fs) < 0 || fs.f_type != NSFS_MAGIC) {
		close(fd);
		return err_set(err, -EINVAL,
			       "'%s' is no namespace; give the file of a %s namespace, as in /proc/PID/ns/%s",
			       path, ns_types[kind].name, ns_types[kind].file);
	}
	type = ioctl(fd, NS_GET_NSTYPE);
	if (type != (int)ns_types[kind].flag) {
		close(fd);
		return err_set(err, -EINVAL, "'%s' is a namespace of another kind than %s", path,
			       ns_types[kind].name);
	}
	*ret_fd = fd;
	return 0;
}

bool ns_is_own(enum ns_kind kind, int fd)
{
	char path[64];
	struct stat own, other;

	snprintf(path, sizeof(path), "/proc/self/ns/%s", ns_types[kind].file);
	return !stat(path, &own) && !fstat(fd, &other) && own.st_dev == other.st_dev &&
	       own.st_ino == other.st_ino;
}

int ns_join(const int *fds, struct err *err)
{
	bool joined[NS_KINDS] = { false };

	/* Joining the user namespace one is in fails with EINVAL. */
	bool user = fds[NS_USER] >= 0 && !ns_is_own(NS_USER, fds[NS_USER]);

	for (int round = user ? 0 : 1; round < 2; round++) {
		for (enum ns_kind kind = 0; kind < NS_KINDS; kind++) {
			if (kind == NS_USER || fds[kind] < 0 || joined[kind])
				continue;
			if (!setns(fds[kind], (int)ns_types[kind].flag))
				joined[kind] = true;
			else if (round == 1)
				return err_sys(err, -errno, "cannot join the %s namespace",
					       ns_types[kind].name);
		}
		if (round == 0 && setns(fds[NS_USER], CLONE_NEWUSER) < 0)
			return err_sys(err, -errno, "cannot join the user namespace");
	}
	return 0;
}
