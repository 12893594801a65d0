/* The files and folders that the guest has opened.
 *
 * A handle lives from OPEN to RELEASE, and until the requests that use it meanwhile have ended. It keeps its node. When the
 * last one of a file goes, so do all locks on it: nobody is left who could hold one.
 *
 * Threads: the server's; for folders also the one that brings a request.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "host/fuse_int.h"

int fuse_handle_new(struct fuse *f, struct fuse_node *n, int fd, bool is_dir, u64 *ret_id)
{
	struct fuse_handle *h = calloc(1, sizeof(*h));

	if (!h) {
		fuse_node_close_fd(fd);
		return -ENOMEM;
	}
	h->fd = fd;
	h->is_dir = is_dir;
	h->node = n;
	h->users = 1;
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_lock(&f->guard);
	h->id = fuse_node_table_add(&f->handles, h);
	if (h->id) {
		n->users++;
		n->opens += !is_dir;
		*ret_id = h->id;
	}
	pthread_mutex_unlock(&f->guard);
	if (h->id)
		return 0;
	fuse_node_close_fd(fd);
	pthread_mutex_destroy(&h->lock);
	free(h);
	return -ENOMEM;
}

struct fuse_handle *fuse_handle_get(struct fuse *f, u64 id, bool is_dir)
{
	struct fuse_handle *h;

	pthread_mutex_lock(&f->guard);
	h = fuse_node_table_get(&f->handles, id);
	if (h && h->is_dir == is_dir)
		h->users++;
	else
		h = NULL;
	pthread_mutex_unlock(&f->guard);
	return h;
}

void fuse_handle_put(struct fuse *f, struct fuse_handle *h)
{
	bool last, unlock;

	pthread_mutex_lock(&f->guard);
	last = !--h->users;
	unlock = last && !h->is_dir && !--h->node->opens;
	pthread_mutex_unlock(&f->guard);
	if (!last)
		return;
	if (unlock)
		fuse_lock_drop(f, h->node, NULL);
	fuse_node_close_fd(h->fd);
	fuse_node_put(f, h->node);
	pthread_mutex_destroy(&h->lock);
	free(h->entries);
	free(h);
}

int fuse_handle_release(struct fuse *f, u64 id, bool is_dir, bool at_once)
{
	struct fuse_handle *h;
	bool later;

	pthread_mutex_lock(&f->guard);
	h = fuse_node_table_get(&f->handles, id);
	if (h && h->is_dir != is_dir)
		h = NULL;
	/* What was written to a file may have to find its place first. */
	later = h && at_once && !(is_dir && h->node->local);
	if (h && !later)
		fuse_node_table_del(&f->handles, id);
	pthread_mutex_unlock(&f->guard);
	if (!h || later)
		return h ? FUSE_LATER : -EBADF;
	/* The table's own use. */
	fuse_handle_put(f, h);
	return 0;
}

void fuse_handle_reset(struct fuse *f)
{
	for (u32 i = 1; i < f->handles.size; i++) {
		struct fuse_handle *h = f->handles.at[i];

		if (h)
			fuse_handle_release(f, i, h->is_dir, false);
	}
}
