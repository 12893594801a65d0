/* FUSE requests about names: lookup, making, removing, renaming.
 *
 * A name has come through the dispatcher, which knows that it is one component, neither "." nor "..". It is used below the
 * descriptor of a folder and never followed, so that whatever stands under it on the host, or comes to stand there while we
 * look, is in the folder (hostile case G39).
 *
 * Device nodes are not made: on the host they would be doors to devices. A whiteout, which overlay file systems use, is
 * a character device that leads nowhere, and allowed.
 *
 * Threads: the server's; lookups also the one that brings the request.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/fuse_int.h"

#define PERMISSIONS 07777

/* ---- what is there ---- */

static int answer_entry(struct fuse_op *op, const struct fuse_node *parent, const char *name)
{
	struct fuse_entry_out *out = (struct fuse_entry_out *)op->reply;

	op->reply_len = sizeof(*out);
	return fuse_node_lookup(op, parent, name, out);
}

int fuse_names_lookup(struct fuse_op *op)
{
	int rc = answer_entry(op, op->node, op->name[0]);

	/* That nothing is there can be believed as long as what is there. */
	if (rc == -ENOENT && op->f->valid_s) {
		*(struct fuse_entry_out *)op->reply =
			(struct fuse_entry_out){ .entry_valid = op->f->valid_s };
		rc = 0;
	}
	return rc;
}

int fuse_names_forget(struct fuse_op *op)
{
	const struct fuse_forget_in *in = op->arg;

	fuse_node_forget(op->f, op->h.nodeid, in->nlookup);
	return 0;
}

int fuse_names_batch_forget(struct fuse_op *op)
{
	const struct fuse_batch_forget_in *in = op->arg;
	u32 there = op->more_len / (u32)sizeof(struct fuse_forget_one);

	for (u32 i = 0; i < MIN(in->count, there); i++) {
		struct fuse_forget_one one;

		memcpy(&one, op->more + i * sizeof(one), sizeof(one));
		fuse_node_forget(op->f, one.nodeid, one.nlookup);
	}
	return 0;
}

int fuse_names_readlink(struct fuse_op *op)
{
	ssize_t n;

	if (op->node->type != S_IFLNK)
		return -EINVAL;
	n = readlinkat(op->node->fd, "", (char *)op->reply, op->reply_max);
	if (n < 0)
		return -errno;
	op->reply_len = (u32)n;
	return 0;
}

/* ---- making ---- */

/* After a call that was made as the user who asks. */
static int made(struct fuse_op *op, int result)
{
	int rc = result < 0 ? -errno : 0;

	fuse_cred_end(op);
	return rc ? rc : answer_entry(op, op->node, op->name[0]);
}

int fuse_names_mknod(struct fuse_op *op)
{
	const struct fuse_mknod_in *in = op->arg;
	u32 type = in->mode & S_IFMT;
	int rc;

	if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && !(type == S_IFCHR && !in->rdev))
		return -EPERM;
	rc = fuse_cred_begin(op);
	if (rc)
		return rc;
	return made(op, mknodat(op->node->fd, op->name[0], in->mode & (S_IFMT | PERMISSIONS), 0));
}

int fuse_names_mkdir(struct fuse_op *op)
{
	const struct fuse_mkdir_in *in = op->arg;
	int rc = fuse_cred_begin(op);

	if (rc)
		return rc;
	return made(op, mkdirat(op->node->fd, op->name[0], in->mode & PERMISSIONS));
}

int fuse_names_symlink(struct fuse_op *op)
{
	int rc = fuse_cred_begin(op);

	if (rc)
		return rc;
	return made(op, symlinkat(op->name[1], op->node->fd, op->name[0]));
}

int fuse_names_link(struct fuse_op *op)
{
	const struct fuse_link_in *in = op->arg;
	struct fuse_node *old = fuse_node_get(op->f, in->oldnodeid);
	int rc = 0;

	if (!old)
		return -ESTALE;
	/* The link in /proc is followed, to the file that the descriptor names, and no further. */
	if (linkat(AT_FDCWD, fuse_node_path(old).text, op->node->fd, op->name[0], AT_SYMLINK_FOLLOW) < 0)
		rc = -errno;
	fuse_node_put(op->f, old);
	return rc ? rc : answer_entry(op, op->node, op->name[0]);
}

/* ---- removing and renaming ---- */

int fuse_names_unlink(struct fuse_op *op)
{
	return unlinkat(op->node->fd, op->name[0], 0) < 0 ? -errno : 0;
}

int fuse_names_rmdir(struct fuse_op *op)
{
	return unlinkat(op->node->fd, op->name[0], AT_REMOVEDIR) < 0 ? -errno : 0;
}

static int rename_to(struct fuse_op *op, u64 new_dir, u32 flags)
{
	struct fuse_node *dir;
	int rc = 0;

	if (flags & ~(u32)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	dir = fuse_node_get(op->f, new_dir);
	if (!dir)
		return -ESTALE;
	if (renameat2(op->node->fd, op->name[0], dir->fd, op->name[1], flags) < 0)
		rc = -errno;
	fuse_node_put(op->f, dir);
	return rc;
}

int fuse_names_rename(struct fuse_op *op)
{
	const struct fuse_rename_in *in = op->arg;

	return rename_to(op, in->newdir, 0);
}

int fuse_names_rename2(struct fuse_op *op)
{
	const struct fuse_rename2_in *in = op->arg;

	return rename_to(op, in->newdir, in->flags);
}

/* ---- making and opening at once ---- */

/* fd is a new, open file. */
static int answer_created(struct fuse_op *op, int fd)
{
	struct fuse_entry_out *entry = (struct fuse_entry_out *)op->reply;
	struct fuse_open_out *open = (struct fuse_open_out *)(entry + 1);
	struct fuse_node *n;
	int rc = fuse_node_enter_open(op->f, op->node, fd, entry);

	if (rc) {
		fuse_node_close_fd(fd);
		return rc;
	}
	n = fuse_node_get(op->f, entry->nodeid);
	if (!n) { /* the guest has forgotten it before it was told */
		fuse_node_close_fd(fd);
		return -ESTALE;
	}
	rc = fuse_file_opened(op, n, fd, open);
	fuse_node_put(op->f, n);
	if (rc)
		fuse_node_forget(op->f, entry->nodeid, 1);
	op->reply_len = sizeof(*entry) + sizeof(*open);
	return rc;
}

/* Somebody else has made it meanwhile. */
static int open_existing(struct fuse_op *op, u32 flags, u32 open_flags)
{
	struct fuse_entry_out *entry = (struct fuse_entry_out *)op->reply;
	struct fuse_node *n;
	int rc = fuse_node_lookup(op, op->node, op->name[0], entry), fd;

	if (rc)
		return rc;
	n = fuse_node_get(op->f, entry->nodeid);
	if (!n)
		return -ESTALE;
	fd = fuse_file_open_node(op, n, flags, open_flags & FUSE_OPEN_KILL_SUIDGID);
	rc = fd < 0 ? fd : fuse_file_opened(op, n, fd, (struct fuse_open_out *)(entry + 1));
	fuse_node_put(op->f, n);
	if (rc)
		fuse_node_forget(op->f, entry->nodeid, 1);
	op->reply_len = sizeof(*entry) + sizeof(struct fuse_open_out);
	return rc;
}

/* A new file of the user who asks, open, with a descriptor that counts; or -errno. */
static int open_new(struct fuse_op *op, const char *name, int flags, u32 mode)
{
	int fd, rc;

	if (!fuse_node_take_fd())
		return -ENFILE;
	rc = fuse_cred_begin(op);
	if (!rc) {
		fd = openat(op->node->fd, name, flags | O_NOFOLLOW | O_CLOEXEC, mode & PERMISSIONS);
		rc = fd < 0 ? -errno : fd;
		fuse_cred_end(op);
	}
	if (rc < 0)
		fuse_node_give_fd();
	return rc;
}

int fuse_names_create(struct fuse_op *op)
{
	const struct fuse_create_in *in = op->arg;
	int access = (int)(in->flags & O_ACCMODE), fd;

	if (access == O_ACCMODE)
		return -EINVAL;
	/* O_EXCL: what is there already may be no file, and is opened with more care. */
	fd = open_new(op, op->name[0], access | (int)(in->flags & FUSE_SYNC_FLAGS) | O_CREAT | O_EXCL,
		      in->mode);
	if (fd >= 0)
		return answer_created(op, fd);
	if (fd != -EEXIST || in->flags & O_EXCL)
		return fd;
	return open_existing(op, in->flags, in->open_flags);
}

/* A file without a name (O_TMPFILE), which may get one by LINK. */
int fuse_names_tmpfile(struct fuse_op *op)
{
	const struct fuse_create_in *in = op->arg;
	int access = (int)(in->flags & O_ACCMODE), fd;

	if (op->node->type != S_IFDIR)
		return -ENOTDIR;
	if (access != O_WRONLY && access != O_RDWR)
		return -EINVAL;
	fd = open_new(op, ".", access | (int)(in->flags & (O_EXCL | FUSE_SYNC_FLAGS)) | O_TMPFILE, in->mode);
	return fd < 0 ? fd : answer_created(op, fd);
}
