/* The container's tree of mounts, by descriptors only [runtime-spec config.md#mounts, config-linux.md].
 *
 * The root is taken as a detached copy of its mount and attached on top of "/" of the new mount namespace, in front of
 * nobody: a process that has "/" as its root keeps seeing the host's tree, and the container's is reached by its descriptor
 * alone. Each destination is looked up below it (jail/inroot.h), so no link of the image can lead out, and is mounted
 * on by descriptor, so no link can be put there in between [O07]. /proc, /sys and /dev may have no symbolic link on their
 * way at all [O06, O08]: programs trust what they find there.
 *
 * /dev/null for masking and nodes for a user namespace come from the host's /dev, never from the container's [O03]; the
 * console's slave is mounted by the descriptor that TIOCGPTPEER gives [O04]; sysctls are written through the host's /proc
 * [O05].
 */
#include "oci/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "jail/inroot.h"
#include "jail/label.h"
#include "oci/copyup.h"

#ifndef DEVPTS_SUPER_MAGIC
#define DEVPTS_SUPER_MAGIC 0x1cd1
#endif

void rootfs_init(struct rootfs *rf, const struct spec *spec, const struct cgroup *cgroup)
{
	*rf = (struct rootfs){ .spec = spec, .cgroup = cgroup, .root = -1, .terminal = -1, .console = -1 };
	rf->bind_devices = spec->has_namespace[NS_USER] || geteuid() != 0;
}

void rootfs_close(struct rootfs *rf)
{
	if (rf->root >= 0)
		close(rf->root);
	for (unsigned i = 0; rf->sources && i < rf->spec->mount_count; i++)
		if (rf->sources[i] >= 0)
			close(rf->sources[i]);
	free(rf->sources);
	rf->sources = NULL;
	rf->root = -1;
}

static bool has_dotdot(const char *path)
{
	for (; *path; path += strcspn(path, "/"), path += strspn(path, "/"))
		if (!strncmp(path, "..", 2) && (path[2] == '/' || !path[2]))
			return true;
	return false;
}

int rootfs_find(const struct spec *spec, char *ret_path, int *ret_fd, struct err *err)
{
	const char *path = spec->root.path;
	char clean[PATH_MAX], *real;
	struct stat st, host;
	size_t len;
	int fd;

	if (path[0] != '/' && has_dotdot(path))
		return err_set(err, -EINVAL,
			       "root.path: '%.200s' leads out of the bundle; give a path without '..'", path);
	if (snprintf(clean, sizeof(clean), "%s", path) >= (int)sizeof(clean))
		return err_set(err, -ENAMETOOLONG, "root.path: is longer than %d bytes", PATH_MAX - 1);
	for (len = strlen(clean); len > 1 && clean[len - 1] == '/'; len--)
		clean[len - 1] = 0;
	fd = open(clean, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && (errno == ELOOP || (errno == ENOTDIR && !lstat(clean, &st) && S_ISLNK(st.st_mode))))
		return err_set(err, -ELOOP, "root.path: '%.200s' is a symbolic link; give the folder itself",
			       path);
	if (fd < 0)
		return err_sys(err, -errno, "root.path: cannot open '%.200s'", path);
	if (fstat(fd, &st) < 0 || stat("/", &host) < 0 ||
	    (st.st_dev == host.st_dev && st.st_ino == host.st_ino)) {
		close(fd);
		return err_set(err, -EINVAL,
			       "root.path: '%.200s' is the host's own root; give a folder of its own", path);
	}
	real = realpath(clean, NULL);
	snprintf(ret_path, 4096, "%s", real ? real : clean);
	free(real);
	*ret_fd = fd;
	return 0;
}

static int map_owners(const struct spec *s, const struct spec_mount *m, int tree, struct err *err)
{
	struct idmap uids = { m->uids, m->uid_count }, gids = { m->gids, m->gid_count };
	int userns, rc;

	if (!uids.count && m->options.idmap) {
		uids = (struct idmap){ s->uids, s->uid_count };
		gids = (struct idmap){ s->gids, s->gid_count };
	}
	if (!uids.count && !m->options.idmap)
		return 0;
	if (!mounts_detached())
		return err_set(err, -ENOSYS, "mapping the owners of a mount needs Linux 5.12 or later");
	if (!uids.count)
		rc = ns_open(NS_USER, s->namespace_path[NS_USER], &userns, err);
	else
		rc = idmap_userns(&uids, &gids, &userns, err);
	if (rc)
		return rc;
	rc = mounts_set_idmap(tree, userns, m->options.idmap_tree, err);
	close(userns);
	return rc;
}

int rootfs_open(struct rootfs *rf, struct err *err)
{
	const struct spec *s = rf->spec;
	char path[4096];
	int fd = -1, rc = rootfs_find(s, path, &fd, err);

	if (rc)
		return rc;
	rc = mounts_copy(fd, "", true, &rf->root, err);
	close(fd);
	if (rc)
		return err_wrap(err, "root.path");
	rf->sources = calloc(s->mount_count + 1, sizeof(*rf->sources));
	if (!rf->sources)
		return err_set(err, -ENOMEM, "no memory for the mounts");
	for (unsigned i = 0; i < s->mount_count; i++)
		rf->sources[i] = -1;
	for (unsigned i = 0; i < s->mount_count; i++) {
		const struct spec_mount *m = &s->mounts[i];

		if (!m->options.bind || m->options.remount)
			continue;
		rc = mounts_copy(AT_FDCWD, m->source, m->options.bind_tree, &rf->sources[i], err);
		if (!rc)
			rc = mounts_set(rf->sources[i], &m->options, err);
		if (!rc)
			rc = map_owners(s, m, rf->sources[i], err);
		if (rc)
			return err_wrap(err, "mounts[%u] (source '%.200s')", i, m->source);
	}
	rf->opened = true;
	return 0;
}

/* The destination without slashes at its ends and between. */
static bool is_destination(const struct spec_mount *m, const char *path)
{
	const char *a = m->destination;

	while (*a == '/' && *path == '/') {
		a += strspn(a, "/");
		path += strspn(path, "/");
		while (*a && *a == *path && *a != '/')
			a++, path++;
		if ((*a && *a != '/') || (*path && *path != '/'))
			return false;
		if (!a[strspn(a, "/")])
			return !path[strspn(path, "/")];
	}
	return false;
}

/* Groups of version 1 as a container sees them: a tmpfs with one mount for each hierarchy. */
static int mount_cgroup_v1(struct rootfs *rf, const struct spec_mount *m, int target, struct err *err)
{
	static const char *const tmpfs_words[] = { "mode=755" };
	bool own_view = rf->spec->has_namespace[NS_CGROUP];
	struct mounts_options fs,
		top = { .data = (const char **)tmpfs_words, .data_count = 1, .set = m->options.set };
	int tmpfs, tree, rc;

	/* Not read-only before its directories are made. */
	top.set &= ~(u64)MOUNT_ATTR_RDONLY;
	rc = mounts_new("tmpfs", "cgroup", &top, &tmpfs, err);
	if (rc)
		return rc;
	/* First, since only newer kernels attach a mount below one that is detached. */
	rc = mounts_attach(tmpfs, target, err);
	for (unsigned i = 0; !rc && i < rf->cgroup->count; i++) {
		const struct cgroup_hierarchy *h = &rf->cgroup->at[i];
		const char *name = strrchr(h->mount, '/') + 1, *words[2] = { "none", h->controllers };
		char path[PATH_MAX], *copy = strdup(h->controllers), *rest = copy, *word;
		int dir;

		if (!h->joined) {
			free(copy);
			continue;
		}
		fs = (struct mounts_options){ .set = m->options.set,
					      .clear = m->options.clear,
					      .data = words };
		if (!h->v2 && !strncmp(h->controllers, "name=", 5))
			fs.data_count = 2;
		else if (!h->v2)
			fs.data_count = 1, words[0] = h->controllers;
		if (!own_view) {
			snprintf(path, sizeof(path), "%s%s", h->mount, rf->cgroup->path);
			rc = mounts_copy(AT_FDCWD, path, false, &tree, err);
			if (!rc)
				rc = mounts_set(tree, &fs, err);
		} else {
			const char *list[16];
			unsigned n = 0;

			/* Each controller is an option of its own. */
			if (fs.data_count == 1) {
				while ((word = strsep(&rest, ",")) && n < ARRAY_SIZE(list))
					list[n++] = word;
				fs.data = list;
				fs.data_count = n;
			}
			rc = mounts_new(h->v2 ? "cgroup2" : "cgroup", "cgroup", &fs, &tree, err);
		}
		free(copy);
		if (rc)
			break;
		dir = mkdirat(tmpfs, name, 0755) < 0 && errno != EEXIST
			      ? -1
			      : openat(tmpfs, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		rc = dir < 0 ? err_sys(err, -errno, "cannot make a folder for control groups") : 0;
		if (!rc)
			rc = mounts_attach(tree, dir, err);
		close(tree);
		if (dir >= 0)
			close(dir);
	}
	if (!rc && m->options.set & MOUNT_ATTR_RDONLY)
		rc = mounts_set_read_only(tmpfs, false, err);
	close(tmpfs);
	return rc;
}

static int new_file_system(struct rootfs *rf, struct spec_mount *m, int target, int *ret_tree,
			   struct err *err)
{
	struct mounts_options o = m->options;
	char mode[24], label[256];
	struct stat st;
	int rc;

	/* A tmpfs looks like what it covers, unless it is told otherwise. */
	if (m->type && !strcmp(m->type, "tmpfs") && !fstat(target, &st)) {
		bool given = false;

		for (unsigned i = 0; i < o.data_count; i++)
			given |= !strncmp(o.data[i], "mode=", 5);
		snprintf(mode, sizeof(mode), "mode=%o", st.st_mode & 07777);
		if (!given)
			o.data[o.data_count++] = mode;
	}
	/* Those that have no labels of their own get the container's [runtime-spec config-linux.md#mount-label]. */
	if (rf->spec->mount_label && *rf->spec->mount_label && strcmp(m->type, "proc") != 0 &&
	    strcmp(m->type, "sysfs") != 0 && strcmp(m->type, "cgroup2") != 0) {
		if (snprintf(label, sizeof(label), "context=%s", rf->spec->mount_label) >= (int)sizeof(label))
			return err_set(err, -E2BIG, "linux.mountLabel: is too long");
		o.data[o.data_count++] = label;
	}
	/* Read-only only after something has been put in. */
	if (o.copy_up)
		o.set &= ~(u64)MOUNT_ATTR_RDONLY;
	rc = mounts_new(m->type, m->source && *m->source ? m->source : m->type, &o, ret_tree, err);
	if (rc)
		return rc;
	if (o.copy_up)
		rc = copyup(target, *ret_tree, err);
	if (!rc)
		rc = mounts_set(*ret_tree, &m->options, err);
	if (rc)
		close(*ret_tree);
	return rc;
}

static int mount_one(struct rootfs *rf, unsigned i, struct err *err)
{
	struct spec_mount *m = &rf->spec->mounts[i];
	bool cgroup = m->type && !strcmp(m->type, "cgroup") && !m->options.bind;
	bool trusted = !m->options.bind && m->type && (!strcmp(m->type, "proc") || !strcmp(m->type, "sysfs"));
	unsigned how = trusted || is_destination(m, "/dev") ? INROOT_NO_SYMLINKS : 0;
	bool directory = true;
	int target, tree = -1, rc;
	struct stat st;

	if (m->options.remount) {
		target = inroot_open(rf->root, m->destination, O_PATH, how);
		if (target < 0)
			return err_sys(err, target, "cannot find '%s' to mount it again", m->destination);
		rc = mounts_set(target, &m->options, err);
		close(target);
		return rc;
	}
	if (m->options.bind) {
		if (fstat(rf->sources[i], &st) < 0)
			return err_sys(err, -errno, "cannot examine the source");
		directory = S_ISDIR(st.st_mode);
	}
	rc = inroot_make(rf->root, m->destination, directory, how, &target, err);
	if (rc)
		return rc;
	if (cgroup && !rf->cgroup) {
		rc = err_set(err, -EINVAL,
			     "the container has no control group to mount; take this mount out");
	} else if (cgroup && !cgroup_is_unified(rf->cgroup)) {
		rc = mount_cgroup_v1(rf, m, target, err);
	} else if (cgroup && !rf->spec->has_namespace[NS_CGROUP]) {
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s%s", rf->cgroup->at[0].mount, rf->cgroup->path);
		rc = mounts_copy(AT_FDCWD, path, false, &tree, err);
		if (!rc)
			rc = mounts_set(tree, &m->options, err);
		if (!rc)
			rc = mounts_attach(tree, target, err);
	} else if (m->options.bind) {
		rc = mounts_attach(rf->sources[i], target, err);
	} else {
		if (cgroup)
			m->type = "cgroup2";
		rc = new_file_system(rf, m, target, &tree, err);
		if (!rc)
			rc = mounts_attach(tree, target, err);
	}
	if (tree >= 0)
		close(tree);
	close(target);
	return rc;
}

/* The host's node at path, which must be the device dev, onto name in dir. */
static int bind_device(const char *path, int dir, const char *name, dev_t dev, struct err *err)
{
	struct stat st;
	int tree, file, rc = mounts_copy(AT_FDCWD, path, false, &tree, err);

	if (rc)
		return rc;
	if (fstat(tree, &st) < 0 || (st.st_mode & S_IFMT) == S_IFREG || st.st_rdev != dev) {
		close(tree);
		return err_set(err, -EINVAL, "the host's '%s' is not the device %u:%u", path, major(dev),
			       minor(dev));
	}
	file = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (file >= 0)
		close(file);
	file = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (file < 0 || fstat(file, &st) < 0 || S_ISLNK(st.st_mode) || S_ISDIR(st.st_mode))
		rc = err_set(err, -EEXIST,
			     "'%s' in the container is no file that a device could be mounted on", path);
	else
		rc = mounts_attach(tree, file, err);
	if (file >= 0)
		close(file);
	close(tree);
	return rc;
}

static int make_device(struct rootfs *rf, const struct spec_device *d, bool wanted, struct err *err)
{
	mode_t type = d->type[0] == 'b' ? S_IFBLK : d->type[0] == 'p' ? S_IFIFO : S_IFCHR;
	dev_t dev = type == S_IFIFO ? 0 : makedev((unsigned)d->major, (unsigned)d->minor);
	mode_t mode = d->has_mode ? d->mode & 07777 : 0666;
	char name[NAME_MAX + 1];
	struct stat st;
	int dir, rc = inroot_parent(rf->root, d->path, name, &dir, err);

	if (rc)
		return rc;
	if (!rf->bind_devices || type == S_IFIFO) {
		if (!mknodat(dir, name, type | mode, dev)) {
			if (fchownat(dir, name, d->uid, d->gid, AT_SYMLINK_NOFOLLOW) < 0)
				rc = err_sys(err, -errno, "cannot set the owner of the device '%s'", d->path);
			close(dir);
			return rc;
		}
		if (errno == EEXIST) {
			/* Left by an earlier container, or what the image brought: it is taken only when it is the same. */
			bool same = !fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) &&
				    (st.st_mode & S_IFMT) == type && (type == S_IFIFO || st.st_rdev == dev);

			close(dir);
			return same || !wanted
				       ? 0
				       : err_set(err, -EEXIST,
						 "'%s' in the container's root is something else than the "
						 "device %u:%u; remove it",
						 d->path, major(dev), minor(dev));
		}
		if (errno != EPERM) {
			rc = err_sys(err, -errno, "cannot make the device '%s'", d->path);
			close(dir);
			return rc;
		}
	}
	rc = bind_device(d->path, dir, name, dev, err);
	close(dir);
	return rc;
}

static int make_devices(struct rootfs *rf, struct err *err)
{
	static const struct spec_device defaults[] = {
		{ .path = "/dev/null", .type = "c", .major = 1, .minor = 3 },
		{ .path = "/dev/zero", .type = "c", .major = 1, .minor = 5 },
		{ .path = "/dev/full", .type = "c", .major = 1, .minor = 7 },
		{ .path = "/dev/random", .type = "c", .major = 1, .minor = 8 },
		{ .path = "/dev/urandom", .type = "c", .major = 1, .minor = 9 },
		{ .path = "/dev/tty", .type = "c", .major = 5, .minor = 0 },
	};
	int rc = 0;

	for (unsigned i = 0; !rc && i < rf->spec->device_count; i++)
		rc = make_device(rf, &rf->spec->devices[i], true, err);
	for (unsigned i = 0; !rc && i < ARRAY_SIZE(defaults); i++) {
		bool given = false;

		for (unsigned k = 0; k < rf->spec->device_count; k++)
			given |= !strcmp(rf->spec->devices[k].path, defaults[i].path);
		if (!given)
			rc = make_device(rf, &defaults[i], true, err);
	}
	return rc;
}

static int make_links(struct rootfs *rf, struct err *err)
{
	static const char *const links[][2] = {
		{ "/proc/self/fd", "fd" },       { "/proc/self/fd/0", "stdin" },
		{ "/proc/self/fd/1", "stdout" }, { "/proc/self/fd/2", "stderr" },
		{ "/proc/kcore", "core" },       { "pts/ptmx", "ptmx" },
	};
	int dir, rc = inroot_mkdirs(rf->root, "/dev", 0, &dir, err);

	for (unsigned i = 0; !rc && i < ARRAY_SIZE(links); i++) {
		/* The host's ptmx would make terminals of the host. */
		if (!strcmp(links[i][1], "ptmx"))
			unlinkat(dir, "ptmx", 0);
		if (!strcmp(links[i][1], "core") && access("/proc/kcore", F_OK) < 0)
			continue;
		if (symlinkat(links[i][0], dir, links[i][1]) < 0 && errno != EEXIST)
			rc = err_sys(err, -errno, "cannot make the link '/dev/%s'", links[i][1]);
	}
	if (dir >= 0)
		close(dir);
	return rc;
}

static unsigned long propagation_flags(const char *name)
{
	unsigned long tree = name[0] == 'r' ? MS_REC : 0;

	name += tree != 0;
	return tree | (!strcmp(name, "shared")       ? MS_SHARED
		       : !strcmp(name, "private")    ? MS_PRIVATE
		       : !strcmp(name, "unbindable") ? MS_UNBINDABLE
						     : MS_SLAVE);
}

/* Images name working directories that they do not have, and other runtimes make them. What cannot be made here is said when it
 * is entered. */
static void make_cwd(struct rootfs *rf)
{
	int fd;

	umask(0022);
	if (!inroot_mkdirs(rf->root, rf->spec->process->cwd, 0, &fd, NULL))
		close(fd);
}

int rootfs_mount(struct rootfs *rf, struct err *err)
{
	const struct spec *s = rf->spec;
	bool private = s->propagation && strstr(s->propagation, "private");
	bool host_dev = false;
	mode_t mask = umask(0);
	int rc = 0;

	if (s->mount_label && *s->mount_label && !label_has_selinux())
		return err_set(err, -ENOTSUP,
			       "linux.mountLabel: SELinux is not enabled on this host; take '%.64s' out",
			       s->mount_label);
	/* Nothing that is mounted from here on is seen by the host. */
	if (mount(NULL, "/", NULL, MS_REC | (private ? MS_PRIVATE : MS_SLAVE), NULL) < 0)
		return err_sys(err, -errno, "cannot take the mounts out of the host's sight");
	if (!rf->opened)
		rc = rootfs_open(rf, err);
	if (!rc)
		rc = mounts_attach(rf->root, AT_FDCWD, err);
	for (unsigned i = 0; !rc && i < s->mount_count; i++) {
		rc = mount_one(rf, i, err);
		if (rc)
			err_wrap(err, "mounts[%u] ('%.200s')", i, s->mounts[i].destination);
		host_dev |= s->mounts[i].options.bind && is_destination(&s->mounts[i], "/dev");
	}
	if (!rc && !host_dev)
		rc = make_devices(rf, err);
	if (!rc && !host_dev)
		rc = make_links(rf, err);
	if (!rc)
		make_cwd(rf);
	umask(mask);
	return rc;
}

int rootfs_make_console(struct rootfs *rf, struct err *err)
{
	int master = inroot_open(rf->root, "/dev/pts/ptmx", O_RDWR | O_NOCTTY, INROOT_NO_SYMLINKS);
	int slave, unlock = 0, file, tree, rc;
	struct statfs fs;
	struct stat st;

	if (master < 0)
		return err_sys(
			err, master,
			"process.terminal: cannot open /dev/pts/ptmx in the container; mount a devpts on /dev/pts");
	if (fstatfs(master, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC || fstat(master, &st) < 0 ||
	    st.st_rdev != makedev(5, 2)) {
		close(master);
		return err_set(
			err, -EINVAL,
			"process.terminal: /dev/pts/ptmx in the container is not devpts's own; mount a devpts on "
			"/dev/pts");
	}
	slave = ioctl(master, TIOCSPTLCK, &unlock) < 0
			? -1
			: ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0) {
		rc = err_sys(err, -errno, "process.terminal: cannot open the terminal");
		close(master);
		return rc;
	}
	rf->console = master;
	rf->terminal = slave;
	if (rf->spec->process->console.height) {
		struct winsize w = { .ws_row = (unsigned short)rf->spec->process->console.height,
				     .ws_col = (unsigned short)rf->spec->process->console.width };

		ioctl(master, TIOCSWINSZ, &w);
	}
	rc = inroot_make(rf->root, "/dev/console", false, INROOT_NO_SYMLINKS, &file, err);
	if (rc)
		return rc;
	rc = mounts_copy(slave, "", false, &tree, err);
	if (!rc) {
		rc = mounts_attach(tree, file, err);
		close(tree);
	}
	close(file);
	return rc;
}

int rootfs_write_sysctl(const struct spec *s, struct err *err)
{
	struct statfs fs;
	int proc, rc = 0;

	if (!s->sysctl_count)
		return 0;
	proc = open("/proc/sys", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0 || fstatfs(proc, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC) {
		if (proc >= 0)
			close(proc);
		return err_set(err, -EINVAL, "linux.sysctl: /proc/sys of the host is not procfs");
	}
	for (unsigned i = 0; !rc && i < s->sysctl_count; i++) {
		const struct limits_pair *p = &s->sysctl[i];
		char path[128];
		int fd;

		snprintf(path, sizeof(path), "%s", p->name);
		/* Where '.' separates, '/' is a dot of the name, as in net.ipv4.conf.eth0/1.forwarding. */
		if (strcspn(p->name, ".") < strcspn(p->name, "/"))
			for (char *c = path; *c; c++)
				*c = *c == '.' ? '/' : *c == '/' ? '.' : *c;
		fd = inroot_open(proc, path, O_WRONLY, INROOT_NO_SYMLINKS);
		if (fd < 0 || write(fd, p->value, strlen(p->value)) < 0)
			rc = err_sys(err, fd < 0 ? fd : -errno, "linux.sysctl: cannot set %.64s to '%.64s'",
				     p->name, p->value);
		if (fd >= 0)
			close(fd);
	}
	close(proc);
	return rc;
}

static int mask_paths(struct rootfs *rf, struct err *err)
{
	static const char *const words[] = { "size=4k", "mode=0555" };
	const struct mounts_options empty = { .set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
						     MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
					      .data = (const char **)words,
					      .data_count = 2 };
	int rc = 0;

	for (unsigned i = 0; !rc && i < rf->spec->masked_count; i++) {
		int fd = inroot_open(rf->root, rf->spec->masked[i], O_PATH, 0), tree = -1;
		struct stat st;

		if (fd == -ENOENT || fd == -ENOTDIR)
			continue;
		if (fd < 0 || fstat(fd, &st) < 0) {
			rc = err_sys(err, fd < 0 ? fd : -errno, "linux.maskedPaths[%u]: cannot find '%.200s'",
				     i, rf->spec->masked[i]);
			break;
		}
		if (S_ISDIR(st.st_mode)) {
			rc = mounts_new("tmpfs", "tmpfs", &empty, &tree, err);
		} else {
			rc = mounts_copy(AT_FDCWD, "/dev/null", false, &tree, err);
			if (!rc && (fstat(tree, &st) < 0 || st.st_rdev != makedev(1, 3)))
				rc = err_set(err, -EINVAL, "/dev/null of the host is not the null device");
		}
		if (!rc)
			rc = mounts_attach(tree, fd, err);
		if (tree >= 0)
			close(tree);
		close(fd);
	}
	return rc;
}

static int protect_paths(struct rootfs *rf, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < rf->spec->read_only_count; i++) {
		int fd = inroot_open(rf->root, rf->spec->read_only[i], O_PATH, 0), tree;

		if (fd == -ENOENT || fd == -ENOTDIR)
			continue;
		if (fd < 0)
			return err_sys(err, fd, "linux.readonlyPaths[%u]: cannot find '%.200s'", i,
				       rf->spec->read_only[i]);
		rc = mounts_copy(fd, "", true, &tree, err);
		if (!rc) {
			rc = mounts_set_read_only(tree, true, err);
			if (!rc)
				rc = mounts_attach(tree, fd, err);
			close(tree);
		}
		close(fd);
	}
	return rc;
}

int rootfs_seal(struct rootfs *rf, struct err *err)
{
	int rc = protect_paths(rf, err);

	if (!rc)
		rc = mask_paths(rf, err);
	if (!rc && rf->spec->root.read_only)
		rc = mounts_set_read_only(rf->root, false, err);
	return rc;
}

int rootfs_enter(struct rootfs *rf, bool no_pivot, struct err *err)
{
	const char *propagation = rf->spec->propagation;
	int rc = no_pivot ? mounts_chroot(rf->root, err) : mounts_pivot(rf->root, err);

	if (!rc && propagation && *propagation &&
	    mount(NULL, "/", NULL, propagation_flags(propagation), NULL) < 0)
		rc = err_sys(err, -errno, "linux.rootfsPropagation: cannot set '%s'", propagation);
	return rc;
}
