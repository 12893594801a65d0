/* FUSE requests about attributes.
 *
 * Threads: the server's; to get them also the one that brings the request.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "host/fuse_int.h"

#define KEEP_ID     ((u32)-1)
#define PERMISSIONS 07777

static int answer_attr(struct fuse_op *op)
{
	struct fuse_attr_out *out = (struct fuse_attr_out *)op->reply;
	struct statx st;
	int rc = fuse_node_statx(op->node->fd, &st);

	if (rc)
		return rc;
	*out = (struct fuse_attr_out){ .attr_valid = op->f->valid_s };
	fuse_node_attr(op->f, &st, &out->attr);
	op->reply_len = sizeof(*out);
	return 0;
}

int fuse_attr_get(struct fuse_op *op)
{
	return op->at_once && !op->node->local ? FUSE_LATER : answer_attr(op);
}

/* ---- changing ---- */

/* For this process' user from the guest's; false: another user, whom it cannot act for. */
static bool host_id(bool as_root, u32 id, u32 guest, u32 host, u32 *ret)
{
	*ret = as_root ? id : host;
	return as_root || id == guest;
}

static int set_owner(struct fuse_op *op, const struct fuse_setattr_in *in)
{
	const struct fuse *f = op->f;
	u32 uid = KEEP_ID, gid = KEEP_ID;

	if (in->valid & FATTR_UID && !host_id(f->as_root, in->uid, f->uid, f->host_uid, &uid))
		return -EPERM;
	if (in->valid & FATTR_GID && !host_id(f->as_root, in->gid, f->gid, f->host_gid, &gid))
		return -EPERM;
	return fchownat(op->node->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int set_size(struct fuse_op *op, const struct fuse_setattr_in *in)
{
	bool kill = in->valid & FATTR_KILL_SUIDGID;
	struct fuse_handle *h = in->valid & FATTR_FH ? fuse_handle_get(op->f, in->fh, false) : NULL;
	int fd = h ? h->fd : -1, rc;

	if (op->node->type != S_IFREG) {
		rc = op->node->type == S_IFDIR ? -EISDIR : -EINVAL;
	} else {
		if (h && h->node != op->node)
			fd = -EBADF;
		else if (!h)
			fd = fuse_node_reopen(op->f, op->node, O_WRONLY);
		fuse_cred_drop_fsetid(op, kill);
		rc = fd < 0 ? fd : ftruncate(fd, (off_t)in->size) < 0 ? -errno : 0;
		fuse_cred_restore(op, kill);
		if (!h && fd >= 0)
			fuse_node_close_fd(fd);
	}
	if (h)
		fuse_handle_put(op->f, h);
	return rc;
}

static struct timespec time_of(u32 valid, u32 set, u32 now, u64 s, u32 ns)
{
	if (!(valid & set))
		return (struct timespec){ .tv_nsec = UTIME_OMIT };
	if (valid & now)
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	return (struct timespec){ .tv_sec = (time_t)s, .tv_nsec = ns };
}

static int set_times(struct fuse_op *op, const struct fuse_setattr_in *in)
{
	const struct timespec t[2] = {
		time_of(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
		time_of(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec),
	};

	/* Not another of the values that stand for something else. */
	if (in->atimensec >= 1000000000 || in->mtimensec >= 1000000000)
		return -EINVAL;
	return utimensat(AT_FDCWD, fuse_node_path(op->node).text, t, 0) < 0 ? -errno : 0;
}

/* The order is that of a program which would do one after the other: a change of owner clears bits of the mode. */
int fuse_attr_set(struct fuse_op *op)
{
	const struct fuse_setattr_in *in = op->arg;
	int rc = 0;

	if (in->valid & (FATTR_UID | FATTR_GID))
		rc = set_owner(op, in);
	if (!rc && in->valid & FATTR_MODE) {
		if (op->node->type == S_IFLNK)
			rc = -EOPNOTSUPP;
		else if (chmod(fuse_node_path(op->node).text, in->mode & PERMISSIONS) < 0)
			rc = -errno;
	}
	if (!rc && in->valid & FATTR_SIZE)
		rc = set_size(op, in);
	if (!rc && in->valid & (FATTR_ATIME | FATTR_MTIME))
		rc = set_times(op, in);
	return rc ? rc : answer_attr(op);
}

/* ---- more than a stat() has ---- */

/* Of protocol 7.39, which headers of this time do not have. */
struct statx_time {
	s64 s;
	u32 ns;
	s32 reserved;
};

struct statx_in {
	u32 getattr_flags, reserved;
	u64 fh;
	u32 flags, mask;
};

struct statx_out {
	u64 valid_s;
	u32 valid_ns, flags;
	u64 spare[2];
	struct {
		u32 mask, blksize;
		u64 attributes;
		u32 nlink, uid, gid;
		u16 mode, spare0;
		u64 ino, size, blocks, attributes_mask;
		struct statx_time atime, btime, ctime, mtime;
		u32 rdev_major, rdev_minor, dev_major, dev_minor;
		u64 spare2[14];
	} stat;
};

_Static_assert(sizeof(struct statx_in) == 24 && sizeof(struct statx_out) == 288, "statx");

static struct statx_time statx_time(struct statx_timestamp t)
{
	return (struct statx_time){ t.tv_sec, t.tv_nsec, 0 };
}

int fuse_attr_statx(struct fuse_op *op)
{
	struct statx_out *out = (struct statx_out *)op->reply;
	struct statx st;
	int rc = fuse_node_statx(op->node->fd, &st);

	if (rc)
		return rc;
	*out = (struct statx_out){ .valid_s = op->f->valid_s };
	out->stat.mask = st.stx_mask & (STATX_BASIC_STATS | STATX_BTIME);
	out->stat.blksize = st.stx_blksize;
	out->stat.attributes = st.stx_attributes;
	out->stat.attributes_mask = st.stx_attributes_mask;
	out->stat.nlink = st.stx_nlink;
	out->stat.uid = fuse_node_uid_for_guest(op->f, st.stx_uid);
	out->stat.gid = fuse_node_gid_for_guest(op->f, st.stx_gid);
	out->stat.mode = st.stx_mode;
	out->stat.ino = st.stx_ino;
	out->stat.size = st.stx_size;
	out->stat.blocks = st.stx_blocks;
	out->stat.atime = statx_time(st.stx_atime);
	out->stat.btime = statx_time(st.stx_btime);
	out->stat.ctime = statx_time(st.stx_ctime);
	out->stat.mtime = statx_time(st.stx_mtime);
	out->stat.rdev_major = st.stx_rdev_major;
	out->stat.rdev_minor = st.stx_rdev_minor;
	op->reply_len = sizeof(*out);
	return 0;
}

/* ---- the rest ---- */

int fuse_attr_statfs(struct fuse_op *op)
{
	struct fuse_statfs_out *out = (struct fuse_statfs_out *)op->reply;
	struct statfs st;

	if (fstatfs(op->node->fd, &st) < 0)
		return -errno;
	*out = (struct fuse_statfs_out){
		.st = {
			.blocks = st.f_blocks,
			.bfree = st.f_bfree,
			.bavail = st.f_bavail,
			.files = st.f_files,
			.ffree = st.f_ffree,
			.bsize = (u32)st.f_bsize,
			.namelen = (u32)st.f_namelen,
			.frsize = (u32)st.f_frsize,
		},
	};
	op->reply_len = sizeof(*out);
	return 0;
}

int fuse_attr_access(struct fuse_op *op)
{
	const struct fuse_access_in *in = op->arg;

	if (in->mask & ~(u32)(R_OK | W_OK | X_OK))
		return -EINVAL;
	if (in->mask & W_OK && op->f->read_only)
		return -EROFS;
	return faccessat(AT_FDCWD, fuse_node_path(op->node).text, (int)in->mask, AT_EACCESS) < 0 ? -errno : 0;
}

int fuse_attr_syncfs(struct fuse_op *op)
{
	int fd = fuse_node_reopen(op->f, op->node, O_RDONLY), rc;

	if (fd < 0)
		return fd;
	rc = syncfs(fd) < 0 ? -errno : 0;
	fuse_node_close_fd(fd);
	return rc;
}
