/* FUSE requests about open folders.
 *
 * Entries come from the host in lumps, and go to the guest in lumps of another size; what is left over waits in the handle for
 * the next request, if that goes on where the last one ended. Places are the host's own (d_off), and any number that a guest
 * makes up is one that the host's file system has to expect anyway.
 *
 * READDIRPLUS looks each entry up, so that the guest need not. An entry that cannot be looked up comes with its name alone.
 *
 * At once goes what has been read already, and that it was all, as far as the host has the entries' attributes in memory: Linux
 * asks for a page at a time, so that is most of what it asks of a folder.
 *
 * Threads: the server's; for what goes at once also the one that brings the request.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "host/fuse_int.h"

#define LUMP      (32u << 10) /* bytes of the host's entries */
#define MIN_LUMP  512u        /* for one entry at least */
#define MAX_QUICK 4096u       /* bytes of an answer that is made at once */

/* [getdents64(2)], without what follows: the name, and its zero */
struct entry {
	u64 ino;
	s64 off;
	u16 len;
	u8 type;
	char name[];
} packed_struct;

int fuse_dir_open(struct fuse_op *op)
{
	struct fuse_open_out *out = (struct fuse_open_out *)op->reply;
	u64 id;
	int fd, rc;

	if (op->node->type != S_IFDIR)
		return -ENOTDIR;
	fd = fuse_node_reopen(op->f, op->node, O_RDONLY | O_DIRECTORY);
	rc = fd < 0 ? fd : fuse_handle_new(op->f, op->node, fd, true, &id);
	if (rc)
		return rc;
	*out = (struct fuse_open_out){
		.fh = id,
		.open_flags = op->f->cache == FUSE_CACHE_ALWAYS ? FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR : 0,
	};
	op->reply_len = sizeof(*out);
	return 0;
}

int fuse_dir_release(struct fuse_op *op)
{
	const struct fuse_release_in *in = op->arg;

	return fuse_handle_release(op->f, in->fh, true, op->at_once);
}

int fuse_dir_fsync(struct fuse_op *op)
{
	const struct fuse_fsync_in *in = op->arg;
	struct fuse_handle *h = fuse_handle_get(op->f, in->fh, true);
	int rc;

	if (!h)
		return -EBADF;
	rc = fsync(h->fd) < 0 ? -errno : 0;
	fuse_handle_put(op->f, h);
	return rc;
}

/* The host's next entries, or it is the end. */
static int read_lump(struct fuse_handle *h)
{
	long n;

	h->pos = h->len = 0;
	if (!h->entries)
		h->entries = malloc(LUMP);
	if (!h->entries)
		return -ENOMEM;
	/* Once more than there are entries, to know the end. */
	do {
		n = syscall(SYS_getdents64, h->fd, h->entries + h->len, LUMP - h->len);
		h->at_end = n == 0;
		h->len += n > 0 ? (u32)n : 0;
	} while (n > 0 && LUMP - h->len >= MIN_LUMP);
	/* What is wrong behind some entries is so the next time, too. */
	return n < 0 && !h->len ? -errno : 0;
}

/* The entry at the handle's place; NULL: the end, or (*ret_rc) an errno or FUSE_LATER. */
static const struct entry *current(struct fuse_handle *h, bool at_once, int *ret_rc)
{
	*ret_rc = 0;
	if (h->pos == h->len && !h->at_end)
		*ret_rc = at_once ? FUSE_LATER : read_lump(h);
	return h->pos == h->len ? NULL : (const struct entry *)(h->entries + h->pos);
}

static bool is_dot(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* The attributes of an entry; without them there is a name only. 0, or FUSE_LATER. */
static int look_up(struct fuse_op *op, const struct entry *e, struct fuse_entry_out *ret)
{
	/* "." and ".." are the guest's own to know. */
	int rc = is_dot(e->name) ? -ENOENT : fuse_node_lookup(op, op->node, e->name, ret);

	if (rc < 0)
		*ret = (struct fuse_entry_out){ .attr = { .ino = e->ino, .mode = (u32)e->type << 12 } };
	return rc == FUSE_LATER ? rc : 0;
}

static u64 ino_of(const struct fuse_op *op, const struct entry *e)
{
	/* What the folder lies in is nothing to know. */
	if (op->node->id == FUSE_ROOT_ID && is_dot(e->name))
		return op->node->ino;
	return e->ino;
}

/* Under h->lock. */
static int fill(struct fuse_op *op, struct fuse_handle *h, u32 size, bool plus)
{
	u32 head = plus ? sizeof(struct fuse_direntplus) : sizeof(struct fuse_dirent);
	const struct entry *e;
	int rc;

	while ((e = current(h, op->at_once, &rc))) {
		u32 name_len = (u32)strnlen(e->name, e->len - sizeof(*e));
		u32 len = ALIGN_UP(head + name_len, 8u);
		u8 *at = op->reply + op->reply_len;
		struct fuse_dirent *d =
			(struct fuse_dirent *)(plus ? at + sizeof(struct fuse_entry_out) : at);

		if (len > size - op->reply_len)
			return op->reply_len ? 0 : -EINVAL;
		memset(at, 0, len);
		*d = (struct fuse_dirent){
			.ino = ino_of(op, e), .off = (u64)e->off, .namelen = name_len, .type = e->type
		};
		memcpy(d->name, e->name, name_len);
		rc = plus ? look_up(op, e, (struct fuse_entry_out *)at) : 0;
		if (rc)
			break;
		op->reply_len += len;
		h->next = (u64)e->off;
		h->pos += e->len;
	}
	/* Who asks again at the end may find more. */
	if (!op->reply_len && !rc)
		h->at_end = false;
	/* What came before an error, or before what must wait, is given first. */
	return op->reply_len ? 0 : rc;
}

/* False: not at once. */
static bool lock(const struct fuse_op *op, struct fuse_handle *h, u32 size)
{
	if (op->at_once)
		return size <= MAX_QUICK && pthread_mutex_trylock(&h->lock) == 0;
	pthread_mutex_lock(&h->lock);
	return true;
}

/* Under h->lock. */
static int seek(struct fuse_handle *h, u64 offset)
{
	h->pos = h->len = 0;
	h->at_end = false;
	h->next = offset;
	return lseek(h->fd, (off_t)offset, SEEK_SET) < 0 ? -errno : 0;
}

static int read_dir(struct fuse_op *op, bool plus)
{
	const struct fuse_read_in *in = op->arg;
	struct fuse_handle *h = fuse_handle_get(op->f, in->fh, true);
	int rc = 0;

	if (!h)
		return -EBADF;
	if (h->node != op->node) {
		fuse_handle_put(op->f, h);
		return -EBADF;
	}
	if (lock(op, h, in->size)) {
		if (in->offset != h->next || !in->offset)
			rc = op->at_once ? FUSE_LATER : seek(h, in->offset);
		if (!rc)
			rc = fill(op, h, MIN(in->size, op->reply_max), plus);
		pthread_mutex_unlock(&h->lock);
	} else {
		rc = FUSE_LATER;
	}
	fuse_handle_put(op->f, h);
	return rc;
}

int fuse_dir_read(struct fuse_op *op)
{
	return read_dir(op, false);
}

int fuse_dir_readplus(struct fuse_op *op)
{
	return read_dir(op, true);
}
