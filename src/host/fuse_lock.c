/* FUSE requests about locks of files, so that programs of the guest and of the host, and of several guests, see each other's.
 *
 * A lock of a range (fcntl) belongs to a process of the guest, its owner. Each owner gets an open file of its own here, since
 * the host's locks of open files [fcntl(2), F_OFD_SETLK] are told apart by that. flock() belongs to the guest's open file, and
 * is done on the handle.
 *
 * Who waits for a lock does not keep a thread: the request is parked, and tried again whenever the guest gives one up, and
 * now and then for what the host holds.
 *
 * Threads: the server's. f->locks is held around calls that never wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "host/fuse_int.h"

struct fuse_owner {
	u64 id;
	int fd;
	struct fuse_owner *next;
};

static void free_owner(struct fuse_owner *o)
{
	fuse_node_close_fd(o->fd);
	free(o);
}

void fuse_lock_drop(struct fuse *f, struct fuse_node *n, const u64 *owner)
{
	struct fuse_owner **at, *o;
	bool dropped = false;

	pthread_mutex_lock(&f->locks);
	at = &n->owners;
	while ((o = *at)) {
		if (owner && o->id != *owner) {
			at = &o->next;
			continue;
		}
		*at = o->next;
		free_owner(o);
		dropped = true;
	}
	pthread_mutex_unlock(&f->locks);
	if (dropped)
		fuse_retry_parked(f);
}

/* Under f->locks. */
static struct fuse_owner *find(const struct fuse_node *n, u64 id)
{
	struct fuse_owner *o = n->owners;

	while (o && o->id != id)
		o = o->next;
	return o;
}

/* Under f->locks. A lock needs a file that is open for what it keeps others from. */
static int get_owner(struct fuse *f, struct fuse_node *n, u64 id, struct fuse_owner **ret)
{
	struct fuse_owner *o = find(n, id);
	int fd;

	if (o) {
		*ret = o;
		return 0;
	}
	fd = f->read_only ? -EROFS : fuse_node_reopen(f, n, O_RDWR);
	if (fd < 0 && fd != -ENFILE)
		fd = fuse_node_reopen(f, n, O_RDONLY);
	if (fd < 0)
		return fd;
	o = calloc(1, sizeof(*o));
	if (!o) {
		fuse_node_close_fd(fd);
		return -ENOMEM;
	}
	*o = (struct fuse_owner){ id, fd, n->owners };
	n->owners = o;
	*ret = o;
	return 0;
}

static bool range_of(const struct fuse_file_lock *lk, struct flock *ret)
{
	if (lk->start > lk->end || lk->end > INT64_MAX)
		return false;
	if (lk->type != F_RDLCK && lk->type != F_WRLCK && lk->type != F_UNLCK)
		return false;
	*ret = (struct flock){
		.l_type = (short)lk->type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)lk->start,
		/* 0 is up to the end, wherever that comes to be. */
		.l_len = lk->end == INT64_MAX ? 0 : (off_t)(lk->end - lk->start + 1),
	};
	return true;
}

int fuse_lock_get(struct fuse_op *op)
{
	const struct fuse_lk_in *in = op->arg;
	struct fuse_lk_out *out = (struct fuse_lk_out *)op->reply;
	struct fuse_handle *h;
	struct fuse_owner *o;
	struct flock fl;
	int rc;

	if (!range_of(&in->lk, &fl) || fl.l_type == F_UNLCK)
		return -EINVAL;
	h = fuse_handle_get(op->f, in->fh, false);
	if (!h)
		return -EBADF;
	pthread_mutex_lock(&op->f->locks);
	o = find(h->node, in->owner);
	rc = fcntl(o ? o->fd : h->fd, F_OFD_GETLK, &fl) < 0 ? -errno : 0;
	pthread_mutex_unlock(&op->f->locks);
	fuse_handle_put(op->f, h);
	if (rc)
		return rc;
	*out = (struct fuse_lk_out){ .lk = { .type = (u32)fl.l_type } };
	if (fl.l_type != F_UNLCK) {
		out->lk.start = (u64)fl.l_start;
		out->lk.end = fl.l_len ? (u64)(fl.l_start + fl.l_len - 1) : INT64_MAX;
	}
	op->reply_len = sizeof(*out);
	return 0;
}

static int set_range(struct fuse *f, struct fuse_node *n, u64 owner, struct flock *fl)
{
	struct fuse_owner *o = NULL;
	int rc = 0;

	pthread_mutex_lock(&f->locks);
	if (fl->l_type == F_UNLCK)
		o = find(n, owner);
	else
		rc = get_owner(f, n, owner, &o);
	if (!rc && o && fcntl(o->fd, F_OFD_SETLK, fl) < 0)
		rc = errno == EACCES ? -EAGAIN : -errno;
	pthread_mutex_unlock(&f->locks);
	/* All that it had. */
	if (!rc && fl->l_type == F_UNLCK && !fl->l_start && !fl->l_len)
		fuse_lock_drop(f, n, &owner);
	return rc;
}

static int set_whole(int fd, u32 type)
{
	int how = type == F_RDLCK ? LOCK_SH : type == F_WRLCK ? LOCK_EX : LOCK_UN;

	return flock(fd, how | LOCK_NB) < 0 ? -errno : 0;
}

int fuse_lock_set(struct fuse_op *op)
{
	const struct fuse_lk_in *in = op->arg;
	struct fuse_handle *h;
	struct flock fl;
	int rc;

	if (!range_of(&in->lk, &fl))
		return -EINVAL;
	h = fuse_handle_get(op->f, in->fh, false);
	if (!h)
		return -EBADF;
	rc = in->lk_flags & FUSE_LK_FLOCK ? set_whole(h->fd, in->lk.type)
					  : set_range(op->f, h->node, in->owner, &fl);
	fuse_handle_put(op->f, h);
	if (!rc && in->lk.type != F_WRLCK)
		fuse_retry_parked(op->f);
	return rc;
}

int fuse_lock_set_wait(struct fuse_op *op)
{
	int rc = fuse_lock_set(op);

	return rc == -EAGAIN ? FUSE_PARKED : rc;
}
