/* Mounts by the calls that take descriptors: fsopen(2), fsmount(2), open_tree(2), mount_setattr(2), move_mount(2).
 *
 * Two things those calls lack are done the old way: a string of more than 255 bytes for a file system (fsconfig's limit),
 * which overlays with many layers need, and propagation of the root before everything (the caller's). A string that
 * is too long goes through mount(2) on a directory of a private tmpfs, from where the result is taken by open_tree();
 * the tmpfs is detached, so that no name of it exists.
 *
 * Where one of those calls is missing, all is done by mount(2) (mounts_classic.c).
 *
 * Option words are those of mount(8), of runtime-spec's table, with the recursive ones of an "r" in front
 * [runtime-spec config.md#linux-mount-options].
 */
#include "jail/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jail/mounts_classic.h"

#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif
#define FSCONFIG_MAX_STRING 255

/* Attributes: set or cleared on the one mount, and with "r" before the word on the tree. */
static const struct {
	const char *word;
	u64 set, clear;
} attributes[] = {
	{ "ro", MOUNT_ATTR_RDONLY, 0 },
	{ "rw", 0, MOUNT_ATTR_RDONLY },
	{ "nosuid", MOUNT_ATTR_NOSUID, 0 },
	{ "suid", 0, MOUNT_ATTR_NOSUID },
	{ "nodev", MOUNT_ATTR_NODEV, 0 },
	{ "dev", 0, MOUNT_ATTR_NODEV },
	{ "noexec", MOUNT_ATTR_NOEXEC, 0 },
	{ "exec", 0, MOUNT_ATTR_NOEXEC },
	{ "nodiratime", MOUNT_ATTR_NODIRATIME, 0 },
	{ "diratime", 0, MOUNT_ATTR_NODIRATIME },
	{ "relatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME },
	{ "norelatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME },
	{ "noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME },
	{ "atime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME },
	{ "strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME },
	{ "nostrictatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME },
	{ "nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0 },
	{ "symfollow", 0, MOUNT_ATTR_NOSYMFOLLOW },
};

static const struct {
	const char *word;
	u64 flag;
} propagations[] = {
	{ "private", MS_PRIVATE },
	{ "shared", MS_SHARED },
	{ "slave", MS_SLAVE },
	{ "unbindable", MS_UNBINDABLE },
};

static const char *const others[] = { "bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup", "defaults",
				      "rprivate", "rshared", "rslave", "runbindable",
				      /* of the file system as a whole: handed on to it as they are */
				      "sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand",
				      "silent", "loud", "iversion", "noiversion" };

const char *mounts_option_name(unsigned i)
{
	static char recursive[32];

	if (i < ARRAY_SIZE(attributes))
		return attributes[i].word;
	i -= ARRAY_SIZE(attributes);
	if (i < ARRAY_SIZE(attributes)) {
		snprintf(recursive, sizeof(recursive), "r%s", attributes[i].word);
		return recursive;
	}
	i -= ARRAY_SIZE(attributes);
	if (i < ARRAY_SIZE(propagations))
		return propagations[i].word;
	i -= ARRAY_SIZE(propagations);
	return i < ARRAY_SIZE(others) ? others[i] : NULL;
}

static bool parse_attribute(const char *word, u64 *set, u64 *clear)
{
	for (unsigned i = 0; i < ARRAY_SIZE(attributes); i++) {
		if (strcmp(attributes[i].word, word) != 0)
			continue;
		/* The last word wins. */
		*set = (*set & ~(attributes[i].clear)) | attributes[i].set;
		*clear = (*clear & ~attributes[i].set) | attributes[i].clear;
		return true;
	}
	return false;
}

static bool parse_propagation(const char *word, struct mounts_options *o)
{
	bool tree = word[0] == 'r';

	for (unsigned i = 0; i < ARRAY_SIZE(propagations); i++) {
		if (!strcmp(propagations[i].word, word + tree)) {
			o->propagation = propagations[i].flag;
			o->propagation_tree = tree;
			return true;
		}
	}
	return false;
}

/* The negations of flags that a new file system does not have anyway. */
static bool is_default(const char *word)
{
	static const char *const words[] = { "defaults", "async",      "nomand",     "loud",
					     "silent",   "nolazytime", "noiversion", "iversion" };

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcmp(words[i], word))
			return true;
	return false;
}

void mounts_options_parse(const char *const *words, unsigned count, const char **data,
			  struct mounts_options *ret_options)
{
	struct mounts_options o = { .data = data };

	for (unsigned i = 0; i < count; i++) {
		const char *w = words[i];

		if (is_default(w) || parse_attribute(w, &o.set, &o.clear) || parse_propagation(w, &o) ||
		    (w[0] == 'r' && parse_attribute(w + 1, &o.tree_set, &o.tree_clear)))
			continue;
		if (!strcmp(w, "bind") || !strcmp(w, "rbind")) {
			o.bind = true;
			o.bind_tree |= w[0] == 'r';
		} else if (!strcmp(w, "remount")) {
			o.remount = true;
		} else if (!strcmp(w, "idmap") || !strcmp(w, "ridmap")) {
			o.idmap = true;
			o.idmap_tree |= w[0] == 'r';
		} else if (!strcmp(w, "tmpcopyup")) {
			o.copy_up = true;
		} else {
			data[o.data_count++] = w;
		}
	}
	*ret_options = o;
}

bool mounts_detached(void)
{
	return !mounts_classic();
}

static int set_attributes(int mount, bool tree, u64 set, u64 clear, u64 propagation, struct err *err)
{
	struct mount_attr attr = { .attr_set = set, .attr_clr = clear, .propagation = propagation };
	int rc = 0;

	if (!set && !clear && !propagation)
		return 0;
	if (mounts_classic())
		rc = mounts_classic_set(mount, tree, set, clear, propagation);
	else if (mount_setattr(mount, "", AT_EMPTY_PATH | (tree ? AT_RECURSIVE : 0), &attr, sizeof(attr)) < 0)
		rc = -errno;
	return rc ? err_sys(err, rc, "cannot set the attributes of a mount") : 0;
}

int mounts_set(int mount, const struct mounts_options *o, struct err *err)
{
	int rc = set_attributes(mount, false, o->set, o->clear, 0, err);

	if (!rc)
		rc = set_attributes(mount, true, o->tree_set, o->tree_clear, 0, err);
	if (!rc)
		rc = set_attributes(mount, o->propagation_tree, 0, 0, o->propagation, err);
	return rc;
}

int mounts_set_read_only(int mount, bool tree, struct err *err)
{
	return set_attributes(mount, tree, MOUNT_ATTR_RDONLY, 0, 0, err);
}

int mounts_set_idmap(int mount, int userns, bool tree, struct err *err)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (u64)userns };

	if (mount_setattr(mount, "", AT_EMPTY_PATH | (tree ? AT_RECURSIVE : 0), &attr, sizeof(attr)) < 0)
		return err_sys(err, -errno, "cannot map the owners of a mount%s",
			       errno == ENOSYS ? " (Linux 5.12 or later is needed)" : "");
	return 0;
}

/* What the kernel has to say about the file system context fd, as the end of a sentence. */
static int fs_error(int fd, int code, const char *type, const char *what, struct err *err)
{
	char text[256];
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	if (n > 2) {
		text[n] = 0;
		text[strcspn(text, "\n")] = 0;
		return err_set(err, code, "cannot mount a file system of type '%s'%s: %s (%s)", type, what,
			       strerror(-code), text + 2);
	}
	return err_sys(err, code, "cannot mount a file system of type '%s'%s", type, what);
}

/* One word, "key=value" or "flag". */
static int fs_word(int fd, const char *type, const char *word, struct err *err)
{
	const char *equals = strchr(word, '=');
	char key[128], what[200];
	int rc;

	snprintf(key, sizeof(key), "%.*s", (int)(equals ? equals - word : (ptrdiff_t)strlen(word)), word);
	if (equals)
		rc = fsconfig(fd, FSCONFIG_SET_STRING, key, equals + 1, 0);
	else
		rc = fsconfig(fd, FSCONFIG_SET_FLAG, key, NULL, 0);
	if (rc < 0) {
		snprintf(what, sizeof(what), " with the option '%.128s'", word);
		return fs_error(fd, -errno, type, what, err);
	}
	return 0;
}

static bool has_long_word(const char *source, const struct mounts_options *o)
{
	if (source && strlen(source) > FSCONFIG_MAX_STRING)
		return true;
	for (unsigned i = 0; i < o->data_count; i++)
		if (strlen(o->data[i]) > FSCONFIG_MAX_STRING)
			return true;
	return false;
}

/* Words that mount(2) takes as flags and fsconfig(2) as words. */
static unsigned long super_flag(const char *word)
{
	return !strcmp(word, "sync")       ? MS_SYNCHRONOUS
	       : !strcmp(word, "dirsync")  ? MS_DIRSYNC
	       : !strcmp(word, "mand")     ? MS_MANDLOCK
	       : !strcmp(word, "lazytime") ? MS_LAZYTIME
					   : 0;
}

static int join_words(const struct mounts_options *o, char *text, size_t size, unsigned long *flags,
		      struct err *err)
{
	size_t n = 0;

	text[0] = 0;
	for (unsigned i = 0; i < o->data_count; i++) {
		unsigned long flag = super_flag(o->data[i]);

		*flags |= flag;
		if (flag)
			continue;
		/* The commas of a label are its own. */
		if (!strncmp(o->data[i], "context=", 8))
			n += (size_t)snprintf(text + n, size - n, "%scontext=\"%s\"", n ? "," : "",
					      o->data[i] + 8);
		else
			n += (size_t)snprintf(text + n, size - n, "%s%s", n ? "," : "", o->data[i]);
		if (n >= size)
			return err_set(err, -E2BIG, "a mount's options have more than %zu bytes", size - 1);
	}
	return 0;
}

static int new_by_mount(const char *type, const char *source, const struct mounts_options *o, int *ret_fd,
			struct err *err)
{
	static const struct mounts_options none;
	unsigned long flags = 0;
	char text[4096], path[64];
	int scratch = -1, rc, copied = -1;

	rc = join_words(o, text, sizeof(text), &flags, err);
	if (rc)
		return rc;
	rc = mounts_new("tmpfs", "scratch", &none, &scratch, err);
	if (rc)
		return rc;
	/* Attached, so that mount(2) may use it. On "/" it is in nobody's way: what is open stays where it is. */
	rc = mounts_attach(scratch, AT_FDCWD, err);
	if (!rc) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d/mount", scratch);
		if (mkdirat(scratch, "mount", 0700) < 0)
			rc = err_sys(err, -errno, "cannot make a directory for a mount");
		else if (mount(source ? source : type, path, type, flags, text) < 0)
			rc = fs_error(-1, -errno, type, "", err);
		else
			rc = mounts_copy(scratch, "mount", false, &copied, err);
		path[strlen(path) - strlen("/mount")] = 0;
		umount2(path, MNT_DETACH);
	}
	close(scratch);
	if (!rc)
		*ret_fd = copied;
	return rc;
}

static int new_classic(const char *type, const char *source, const struct mounts_options *o, int *ret_fd,
		       struct err *err)
{
	unsigned long flags = 0;
	char text[4096], what[200];
	int fd, rc = join_words(o, text, sizeof(text), &flags, err);

	if (rc)
		return rc;
	/* A disk that is only read must not be written by a journal's replay either. */
	if (source && !strncmp(source, "/dev/", 5) && o->set & MOUNT_ATTR_RDONLY)
		flags |= MS_RDONLY;
	rc = mounts_classic_new(type, source, flags, text, &fd);
	if (rc) {
		snprintf(what, sizeof(what), " with the options '%.128s'", text);
		return fs_error(-1, rc, type,
				rc == -ENODEV ? " (the kernel does not have it)"
				: text[0]     ? what
					      : "",
				err);
	}
	rc = set_attributes(fd, false, o->set | o->tree_set, MOUNT_ATTR__ATIME, 0, err);
	if (rc)
		close(fd);
	else
		*ret_fd = fd;
	return rc;
}

int mounts_new(const char *type, const char *source, const struct mounts_options *o, int *ret_fd,
	       struct err *err)
{
	int fd, mount, rc = 0;

	if (mounts_classic())
		return new_classic(type, source, o, ret_fd, err);
	if (has_long_word(source, o))
		return new_by_mount(type, source, o, ret_fd, err);
	fd = fsopen(type, FSOPEN_CLOEXEC);
	if (fd < 0)
		return fs_error(-1, -errno, type, errno == ENODEV ? " (the kernel does not have it)" : "",
				err);
	if (source && fsconfig(fd, FSCONFIG_SET_STRING, "source", source, 0) < 0)
		rc = fs_error(fd, -errno, type, "", err);
	/* A disk that is only read must not be written by a journal's replay either. */
	if (!rc && source && !strncmp(source, "/dev/", 5) && o->set & MOUNT_ATTR_RDONLY)
		rc = fs_word(fd, type, "ro", err);
	for (unsigned i = 0; !rc && i < o->data_count; i++)
		rc = fs_word(fd, type, o->data[i], err);
	if (!rc && fsconfig(fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		rc = fs_error(fd, -errno, type, "", err);
	if (!rc) {
		mount = fsmount(fd, FSMOUNT_CLOEXEC,
				(unsigned)((o->set | o->tree_set) & ~MOUNT_ATTR_NOSYMFOLLOW));
		if (mount < 0)
			rc = fs_error(fd, -errno, type, "", err);
		else
			*ret_fd = mount;
	}
	close(fd);
	return rc;
}

int mounts_copy(int dirfd, const char *path, bool tree, int *ret_fd, struct err *err)
{
	int rc = 0, fd = -1;

	if (mounts_classic())
		rc = mounts_classic_copy(dirfd, path, tree, &fd);
	else if ((fd = open_tree(dirfd, path,
				 OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (tree ? AT_RECURSIVE : 0) |
					 (*path ? 0 : AT_EMPTY_PATH))) < 0)
		rc = -errno;
	if (rc)
		return err_sys(err, rc, "cannot take a copy of the mount at '%s'",
			       *path ? path : "(a descriptor)");
	rc = set_attributes(fd, tree, 0, 0, MS_SLAVE, err);
	if (rc)
		close(fd);
	else
		*ret_fd = fd;
	return rc;
}

int mounts_attach(int mount, int target, struct err *err)
{
	int rc = 0;

	if (mounts_classic())
		rc = mounts_classic_attach(mount, target);
	else if (target == AT_FDCWD ? move_mount(mount, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0
				    : move_mount(mount, "", target, "",
						 MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		rc = -errno;
	return rc ? err_sys(err, rc, "cannot attach a mount") : 0;
}

int mounts_pivot(int mount, struct err *err)
{
	if (fchdir(mount) < 0)
		return err_sys(err, -errno, "cannot enter the new root");
	/* The old root comes to lie on top of the new one, and goes: no directory is needed for it. */
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return err_sys(err, -errno,
			       "cannot change the root (pivot_root); from an initramfs use --no-pivot");
	/* Over the old root lies the place for mounts that were not attached. */
	if ((mounts_classic() && umount2(".", MNT_DETACH) < 0) || umount2(".", MNT_DETACH) < 0)
		return err_sys(err, -errno, "cannot detach the host's mounts");
	if (chdir("/") < 0)
		return err_sys(err, -errno, "cannot enter the new root");
	return 0;
}

int mounts_chroot(int mount, struct err *err)
{
	if (fchdir(mount) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return err_sys(err, -errno, "cannot change the root (chroot)");
	return 0;
}
