/* The FUSE server: threads that take requests, check them, and answer.
 *
 * Document: [FUSE], the protocol as <linux/fuse.h> has it, version 7.38, and 7.27 at least; virtio 1.2, [virtio 5.11.6].
 *
 * How it works: a table says for each kind of request what it consists of (a fixed part, names, more) and what it may be used on.
 * The dispatcher copies all but the data of reads and writes out of the guest's memory once, checks lengths, names, and that the
 * node exists, and only then calls the function (hostile cases G11, G39). An answer that does not fit into the guest's buffers
 * becomes an error. A session begins with INIT, which forgets all that was before, as DESTROY and a reset do.
 *
 * What the guest may do to a file is its own kernel's to decide (it mounts with default_permissions); what this process may do on
 * the host bounds it. See fuse_cred.c for whose files are.
 *
 * Offered: see OFFERED. Omitted: the writeback cache, since it makes the guest, not the host, keep size and times of files that
 * others change too; access lists (fuse_xattr.c); DAX; notifications, which virtio-fs has no queue for.
 *
 * A request that waits for nothing (QUICK, if the host has in memory what it asks for) is answered by the thread that brings it,
 * mostly a vCPU's: to wake one thread after the other would cost more than the request. Whatever is in the way there (a session
 * that ends, a length beyond reason, a file system that would have to be asked) leaves it, untouched, to the server's threads.
 *
 * Threads: the server's own, FUSE_NR_THREADS. Their umask is 0 and theirs alone: the guest's kernel has applied its programs'.
 */
#include "host/fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "base/iov.h"
#include "base/log.h"
#include "host/fuse_int.h"

#define OLDEST_MINOR 27
#define MAX_PAGES    (FUSE_MAX_WRITE / 4096)
#define MAX_QUICK    1024 /* bytes of a request that is answered at once */
#define BACKGROUND   64   /* requests of reading ahead and writing behind at once */
#define RETRY_NS     50000000
#define ALWAYS_S     86400
#define OP_STATX     52 /* of 7.39 */
#define INIT_IN_SIZE 16 /* of a driver that has no more to say */

#define OFFERED                                                                                          \
	(FUSE_ASYNC_READ | FUSE_POSIX_LOCKS | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_FLOCK_LOCKS | \
	 FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO |           \
	 FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |         \
	 FUSE_SUBMOUNTS)

/* What a kind of request is. */
enum {
	CHANGES = BIT(0), /* not on a read-only share */
	FOLDER = BIT(1),  /* its node must be one */
	NODELESS = BIT(2),
	SILENT = BIT(3),  /* has no answer */
	SESSION = BIT(4), /* ends one: alone */
	DATA = BIT(5),    /* what follows the fixed part stays where it is */
	FREE1 = BIT(6),   /* the first name is none of a file */
	FREE2 = BIT(7),
	QUICK = BIT(8), /* may be answered at once */
};

struct handler {
	int (*fn)(struct fuse_op *op);
	u16 fixed;
	u8 names;
	u16 how;
};

static int do_init(struct fuse_op *op);
static int do_destroy(struct fuse_op *op);
static int do_interrupt(struct fuse_op *op);

static const struct handler handlers[] = {
	[FUSE_LOOKUP] = { fuse_names_lookup, 0, 1, FOLDER | QUICK },
	[FUSE_FORGET] = { fuse_names_forget, sizeof(struct fuse_forget_in), 0, NODELESS | SILENT },
	[FUSE_GETATTR] = { fuse_attr_get, sizeof(struct fuse_getattr_in), 0, QUICK },
	[FUSE_SETATTR] = { fuse_attr_set, sizeof(struct fuse_setattr_in), 0, CHANGES },
	[FUSE_READLINK] = { fuse_names_readlink, 0, 0, 0 },
	[FUSE_SYMLINK] = { fuse_names_symlink, 0, 2, CHANGES | FOLDER | FREE2 },
	[FUSE_MKNOD] = { fuse_names_mknod, sizeof(struct fuse_mknod_in), 1, CHANGES | FOLDER },
	[FUSE_MKDIR] = { fuse_names_mkdir, sizeof(struct fuse_mkdir_in), 1, CHANGES | FOLDER },
	[FUSE_UNLINK] = { fuse_names_unlink, 0, 1, CHANGES | FOLDER },
	[FUSE_RMDIR] = { fuse_names_rmdir, 0, 1, CHANGES | FOLDER },
	[FUSE_RENAME] = { fuse_names_rename, sizeof(struct fuse_rename_in), 2, CHANGES | FOLDER },
	[FUSE_LINK] = { fuse_names_link, sizeof(struct fuse_link_in), 1, CHANGES | FOLDER },
	[FUSE_OPEN] = { fuse_file_open, sizeof(struct fuse_open_in), 0, 0 },
	[FUSE_READ] = { fuse_file_read, sizeof(struct fuse_read_in), 0, 0 },
	[FUSE_WRITE] = { fuse_file_write, sizeof(struct fuse_write_in), 0, CHANGES | DATA },
	[FUSE_STATFS] = { fuse_attr_statfs, 0, 0, 0 },
	[FUSE_RELEASE] = { fuse_file_release, sizeof(struct fuse_release_in), 0, 0 },
	[FUSE_FSYNC] = { fuse_file_fsync, sizeof(struct fuse_fsync_in), 0, 0 },
	[FUSE_SETXATTR] = { fuse_xattr_set, FUSE_COMPAT_SETXATTR_IN_SIZE, 1, CHANGES | FREE1 },
	[FUSE_GETXATTR] = { fuse_xattr_get, sizeof(struct fuse_getxattr_in), 1, FREE1 },
	[FUSE_LISTXATTR] = { fuse_xattr_list, sizeof(struct fuse_getxattr_in), 0, 0 },
	[FUSE_REMOVEXATTR] = { fuse_xattr_remove, 0, 1, CHANGES | FREE1 },
	[FUSE_FLUSH] = { fuse_file_flush, sizeof(struct fuse_flush_in), 0, 0 },
	[FUSE_INIT] = { do_init, INIT_IN_SIZE, 0, NODELESS | SESSION },
	[FUSE_OPENDIR] = { fuse_dir_open, sizeof(struct fuse_open_in), 0, 0 },
	[FUSE_READDIR] = { fuse_dir_read, sizeof(struct fuse_read_in), 0, FOLDER | QUICK },
	[FUSE_RELEASEDIR] = { fuse_dir_release, sizeof(struct fuse_release_in), 0, QUICK },
	[FUSE_FSYNCDIR] = { fuse_dir_fsync, sizeof(struct fuse_fsync_in), 0, 0 },
	[FUSE_GETLK] = { fuse_lock_get, sizeof(struct fuse_lk_in), 0, 0 },
	[FUSE_SETLK] = { fuse_lock_set, sizeof(struct fuse_lk_in), 0, 0 },
	[FUSE_SETLKW] = { fuse_lock_set_wait, sizeof(struct fuse_lk_in), 0, 0 },
	[FUSE_ACCESS] = { fuse_attr_access, sizeof(struct fuse_access_in), 0, 0 },
	[FUSE_CREATE] = { fuse_names_create, sizeof(struct fuse_create_in), 1, CHANGES | FOLDER },
	[FUSE_INTERRUPT] = { do_interrupt, sizeof(struct fuse_interrupt_in), 0, NODELESS | SILENT },
	[FUSE_DESTROY] = { do_destroy, 0, 0, NODELESS | SESSION },
	[FUSE_BATCH_FORGET] = { fuse_names_batch_forget, sizeof(struct fuse_batch_forget_in), 0,
				NODELESS | SILENT },
	[FUSE_FALLOCATE] = { fuse_file_fallocate, sizeof(struct fuse_fallocate_in), 0, CHANGES },
	[FUSE_READDIRPLUS] = { fuse_dir_readplus, sizeof(struct fuse_read_in), 0, FOLDER | QUICK },
	[FUSE_RENAME2] = { fuse_names_rename2, sizeof(struct fuse_rename2_in), 2, CHANGES | FOLDER },
	[FUSE_LSEEK] = { fuse_file_lseek, sizeof(struct fuse_lseek_in), 0, 0 },
	[FUSE_COPY_FILE_RANGE] = { fuse_file_copy, sizeof(struct fuse_copy_file_range_in), 0, CHANGES },
	[FUSE_SYNCFS] = { fuse_attr_syncfs, sizeof(struct fuse_syncfs_in), 0, 0 },
	[FUSE_TMPFILE] = { fuse_names_tmpfile, sizeof(struct fuse_create_in), 0, CHANGES },
	[OP_STATX] = { fuse_attr_statx, 24, 0, 0 },
};

/* ---- sessions ---- */

static void forget_all(struct fuse *f)
{
	fuse_handle_reset(f);
	fuse_node_reset(f);
	f->started = false;
}

static int do_init(struct fuse_op *op)
{
	const struct fuse_init_in *in = op->arg;
	struct fuse_init_out *out = (struct fuse_init_out *)op->reply;

	forget_all(op->f);
	if (in->major < FUSE_KERNEL_VERSION ||
	    (in->major == FUSE_KERNEL_VERSION && in->minor < OLDEST_MINOR)) {
		log_guest("share %s: the guest's driver speaks FUSE %u.%u; %u.%u is the oldest possible",
			  op->f->tag, in->major, in->minor, FUSE_KERNEL_VERSION, OLDEST_MINOR);
		return -EPROTO;
	}
	*out = (struct fuse_init_out){
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.max_readahead = in->max_readahead,
		.flags = in->flags & (u32)OFFERED,
		.max_background = BACKGROUND,
		.congestion_threshold = BACKGROUND / 4 * 3,
		.max_write = FUSE_MAX_WRITE,
		.time_gran = 1,
		.max_pages = MAX_PAGES,
	};
	op->reply_len = sizeof(*out);
	/* A driver of a later version asks again, in ours. */
	op->f->started = in->major == FUSE_KERNEL_VERSION;
	op->f->submounts = out->flags & FUSE_SUBMOUNTS;
	return 0;
}

static int do_destroy(struct fuse_op *op)
{
	forget_all(op->f);
	return 0;
}

/* ---- one request ---- */

static void finish(struct fuse_op *op, struct fs_req *req, u32 written)
{
	struct fuse *f = op->f;

	if (op->at_once) {
		req->done(req, written);
		return;
	}
	fuse_node_bury(f);
	pthread_mutex_lock(f->fs.lock);
	req->done(req, written);
	pthread_mutex_unlock(f->fs.lock);
}

static void answer(struct fuse_op *op, struct fs_req *req, int rc)
{
	const struct iovec *in = req->iov + req->nr_out;
	struct fuse_out_header oh = { .unique = op->h.unique };
	u64 room = req->in_len;

	if (room < sizeof(oh)) {
		finish(op, req, 0);
		return;
	}
	if (!rc && op->reply_len > room - sizeof(oh))
		rc = -EINVAL;
	oh.error = rc;
	oh.len = (u32)sizeof(oh) + (rc ? 0 : op->reply_len);
	iov_put(in, req->nr_in, 0, &oh, sizeof(oh));
	if (!rc && !op->in_place)
		iov_put(in, req->nr_in, sizeof(oh), op->reply, op->reply_len);
	finish(op, req, oh.len);
}

static int check_component(const char *name)
{
	if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	return strlen(name) > NAME_MAX ? -ENAMETOOLONG : 0;
}

/* Copies what belongs to the request, and finds its parts. */
static int parse(struct fuse_op *op, const struct handler *h)
{
	u32 len = op->h.len - (u32)sizeof(op->h), copied = h->how & DATA ? h->fixed : len;

	if (len < h->fixed)
		return -EINVAL;
	if (copied > FUSE_MAX_ARG)
		return -E2BIG;
	iov_get(op->req->iov, op->req->nr_out, sizeof(op->h), op->arg_buf, copied);
	op->arg = op->arg_buf;
	op->more = op->arg_buf + h->fixed;
	op->more_len = copied - h->fixed;
	for (unsigned i = 0; i < h->names; i++) {
		const u8 *end = memchr(op->more, 0, op->more_len);
		int rc;

		if (!end)
			return -EINVAL;
		op->name[i] = (const char *)op->more;
		op->more_len -= (u32)(end + 1 - op->more);
		op->more = end + 1;
		rc = h->how & (i ? FREE2 : FREE1) ? 0 : check_component(op->name[i]);
		if (rc)
			return rc;
	}
	return 0;
}

/* With the session held. */
static int call(struct fuse_op *op, const struct handler *h)
{
	struct fuse *f = op->f;
	int rc;

	if (!f->started && !(h->how & SESSION))
		return -EIO;
	if (h->how & CHANGES && f->read_only)
		return -EROFS;
	rc = parse(op, h);
	if (rc || h->how & NODELESS)
		return rc ? rc : h->fn(op);
	op->node = fuse_node_get(f, op->h.nodeid);
	if (!op->node)
		return -ESTALE;
	rc = h->how & FOLDER && op->node->type != S_IFDIR ? -ENOTDIR : h->fn(op);
	fuse_node_put(f, op->node);
	return rc;
}

static const struct handler *handler_of(u32 opcode)
{
	return opcode < ARRAY_SIZE(handlers) && handlers[opcode].fn ? &handlers[opcode] : NULL;
}

/* False: it is interrupted instead. */
static bool park(struct fuse *f, struct fs_req *req, u64 unique)
{
	bool parked;

	pthread_mutex_lock(&f->queue);
	parked = !f->draining;
	if (parked) {
		req->unique = unique;
		req->next = f->parked;
		f->parked = req;
	}
	pthread_mutex_unlock(&f->queue);
	return parked;
}

/* False: there is less than a header. */
static bool begin(struct fuse_op *op, const struct fs_req *req)
{
	op->req = req;
	op->node = NULL;
	op->reply_len = 0;
	op->in_place = false;
	op->reply_max =
		(u32)MIN(req->in_len - MIN(req->in_len, sizeof(struct fuse_out_header)), FUSE_MAX_REPLY);
	return iov_get(req->iov, req->nr_out, 0, &op->h, sizeof(op->h)) == sizeof(op->h);
}

/* On the thread that brings it, fs.lock held; false: nothing has been done. What it says may be another thing the next time. */
static bool perform_at_once(struct fuse *f, struct fs_req *req)
{
	struct fuse_op *op = f->at_once;
	const struct handler *h;
	int rc;

	if (!begin(op, req) || op->h.len < sizeof(op->h) || op->h.len > MIN(req->out_len, (u64)MAX_QUICK))
		return false;
	h = handler_of(op->h.opcode);
	if (!h || !(h->how & QUICK) || pthread_rwlock_tryrdlock(&f->session))
		return false;
	rc = call(op, h);
	pthread_rwlock_unlock(&f->session);
	if (rc == FUSE_LATER)
		return false;
	answer(op, req, rc);
	return true;
}

static void perform(struct fuse_op *op, struct fs_req *req)
{
	struct fuse *f = op->f;
	const struct handler *h;
	int rc;

	if (!begin(op, req)) {
		finish(op, req, 0);
		return;
	}
	h = handler_of(op->h.opcode);
	if (!h) {
		answer(op, req, -ENOSYS);
		return;
	}
	if (h->how & SESSION)
		pthread_rwlock_wrlock(&f->session);
	else
		pthread_rwlock_rdlock(&f->session);
	rc = op->h.len < sizeof(op->h) || op->h.len > req->out_len ? -EINVAL : call(op, h);
	pthread_rwlock_unlock(&f->session);
	if (h->how & SILENT)
		finish(op, req, 0);
	else if (rc != FUSE_PARKED)
		answer(op, req, rc);
	else if (req->interrupted || !park(f, req, op->h.unique))
		answer(op, req, -EINTR);
}

/* ---- queues ---- */

/* Under f->queue. */
static void enqueue(struct fuse *f, struct fs_req *req)
{
	req->next = NULL;
	*f->todo_tail = req;
	f->todo_tail = &req->next;
}

static void unpark_all(struct fuse *f)
{
	struct fs_req *req;

	while ((req = f->parked)) {
		f->parked = req->next;
		req->interrupted |= f->draining;
		enqueue(f, req);
		pthread_cond_signal(&f->more);
	}
}

void fuse_retry_parked(struct fuse *f)
{
	pthread_mutex_lock(&f->queue);
	unpark_all(f);
	pthread_mutex_unlock(&f->queue);
}

/* Only who waits for a lock waits long enough to be interrupted. */
static int do_interrupt(struct fuse_op *op)
{
	const struct fuse_interrupt_in *in = op->arg;
	struct fuse *f = op->f;

	pthread_mutex_lock(&f->queue);
	for (struct fs_req *req = f->parked; req; req = req->next)
		req->interrupted |= req->unique == in->unique;
	unpark_all(f);
	pthread_mutex_unlock(&f->queue);
	return 0;
}

/* Under f->queue: until there is something to do. */
static void wait_for_more(struct fuse *f)
{
	struct timespec until;

	if (!f->busy)
		pthread_cond_signal(&f->idle);
	if (!f->parked) {
		pthread_cond_wait(&f->more, &f->queue);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += RETRY_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	if (pthread_cond_timedwait(&f->more, &f->queue, &until) == ETIMEDOUT)
		unpark_all(f);
}

static void *work(void *opaque)
{
	struct fuse_op *op = opaque;
	struct fuse *f = op->f;

	/* Its own umask. */
	if (unshare(CLONE_FS) == 0)
		umask(0);
	else
		log_warn("share %s: files are made with the umask of this process, as it can have no other",
			 f->tag);
	op->caps = fuse_cred_caps();
	pthread_mutex_lock(&f->queue);
	while (!f->stop) {
		struct fs_req *req = f->todo;

		if (!req) {
			wait_for_more(f);
			continue;
		}
		f->todo = req->next;
		if (!f->todo)
			f->todo_tail = &f->todo;
		f->busy++;
		pthread_mutex_unlock(&f->queue);
		perform(op, req);
		pthread_mutex_lock(&f->queue);
		f->busy--;
	}
	pthread_mutex_unlock(&f->queue);
	return NULL;
}

static struct fuse *fuse_of(struct fs *fs)
{
	return container_of(fs, struct fuse, fs);
}

static void submit(struct fs *fs, struct fs_req *req)
{
	struct fuse *f = fuse_of(fs);

	if (req->at_once && perform_at_once(f, req))
		return;
	pthread_mutex_lock(&f->queue);
	req->interrupted = false;
	enqueue(f, req);
	pthread_cond_signal(&f->more);
	pthread_mutex_unlock(&f->queue);
}

static void drain(struct fs *fs)
{
	struct fuse *f = fuse_of(fs);

	pthread_mutex_lock(&f->queue);
	f->draining = true;
	unpark_all(f);
	while (f->todo || f->busy)
		pthread_cond_wait(&f->idle, &f->queue);
	f->draining = false;
	pthread_mutex_unlock(&f->queue);
}

static void reset(struct fs *fs)
{
	struct fuse *f = fuse_of(fs);

	pthread_rwlock_wrlock(&f->session);
	forget_all(f);
	pthread_rwlock_unlock(&f->session);
}

/* ---- opening ---- */

static void free_op(struct fuse_op *op)
{
	if (!op)
		return;
	free(op->arg_buf);
	free(op->reply);
	free(op);
}

static struct fuse_op *new_op(struct fuse *f)
{
	struct fuse_op *op = calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	op->f = f;
	op->arg_buf = malloc(FUSE_MAX_ARG);
	op->reply = malloc(FUSE_MAX_REPLY);
	if (op->arg_buf && op->reply)
		return op;
	free_op(op);
	return NULL;
}

static void free_fuse(struct fuse *f)
{
	if (f->proc >= 0)
		close(f->proc);
	for (unsigned i = 0; i < FUSE_NR_THREADS; i++)
		free_op(f->op[i]);
	free_op(f->at_once);
	free(f->handles.at);
	free(f->tag);
	free(f->path);
	pthread_cond_destroy(&f->more);
	pthread_cond_destroy(&f->idle);
	pthread_mutex_destroy(&f->queue);
	pthread_mutex_destroy(&f->locks);
	pthread_mutex_destroy(&f->guard);
	pthread_rwlock_destroy(&f->session);
	free(f);
}

static void fuse_close(struct fs *fs)
{
	struct fuse *f = fuse_of(fs);

	pthread_mutex_lock(&f->queue);
	f->stop = true;
	pthread_cond_broadcast(&f->more);
	pthread_mutex_unlock(&f->queue);
	for (unsigned i = 0; i < f->nr_threads; i++)
		pthread_join(f->thread[i], NULL);
	forget_all(f);
	fuse_node_fini(f);
	free_fuse(f);
}

static const struct fs_ops fuse_ops = { submit, drain, reset, fuse_close };

static struct fuse *new_fuse(const struct fuse_conf *conf)
{
	struct fuse *f = calloc(1, sizeof(*f));
	pthread_condattr_t monotonic;

	if (!f)
		return NULL;
	f->fs.ops = &fuse_ops;
	f->tag = strdup(conf->tag);
	f->path = strdup(conf->path);
	f->fs.tag = f->tag;
	f->read_only = conf->read_only;
	f->cache = conf->cache;
	f->valid_s = conf->cache == FUSE_CACHE_NONE ? 0 : conf->cache == FUSE_CACHE_ALWAYS ? ALWAYS_S : 1;
	f->uid = conf->uid;
	f->gid = conf->gid;
	f->host_uid = geteuid();
	f->host_gid = getegid();
	f->proc = -1;
	f->todo_tail = &f->todo;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&f->more, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_cond_init(&f->idle, NULL);
	pthread_mutex_init(&f->queue, NULL);
	pthread_mutex_init(&f->locks, NULL);
	pthread_mutex_init(&f->guard, NULL);
	pthread_rwlock_init(&f->session, NULL);
	return f;
}

/* Through which descriptors are opened for more; it must be the kernel's own. */
static int open_proc(struct fuse *f, struct err *err)
{
	struct statfs st;

	f->proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (f->proc < 0 || fstatfs(f->proc, &st) < 0)
		return err_sys(err, -errno,
			       "a shared folder needs /proc, and /proc/self/fd cannot be opened");
	if (st.f_type != PROC_SUPER_MAGIC)
		return err_set(err, -ENOSYS,
			       "a shared folder needs /proc, and what is there is another file system");
	return 0;
}

/* Signals are for the threads that wait for them. */
static int start_threads(struct fuse *f, struct err *err)
{
	sigset_t all, old;
	int rc = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (f->nr_threads < FUSE_NR_THREADS && !rc) {
		struct fuse_op *op = f->op[f->nr_threads] = new_op(f);

		rc = op ? -pthread_create(&f->thread[f->nr_threads], NULL, work, op) : -ENOMEM;
		if (!rc)
			f->nr_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return f->nr_threads ? 0
			     : err_sys(err, rc, "cannot start threads for the shared folder '%s'", f->path);
}

int fuse_open(const struct fuse_conf *conf, struct fs **ret_fs, struct err *err)
{
	struct fuse *f = new_fuse(conf);
	int root, rc;

	if (!f || !f->tag || !f->path) {
		if (f)
			free_fuse(f);
		return err_set(err, -ENOMEM, "no memory for a shared folder");
	}
	rc = open_proc(f, err);
	if (!rc) {
		root = open(conf->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (root < 0) {
			rc = err_sys(err, -errno, "cannot share the folder '%s'", conf->path);
		} else {
			fuse_node_raise_limit();
			f->as_root = fuse_cred_may_change();
			rc = fuse_node_init(f, root);
			if (rc)
				err_sys(err, rc, "cannot share the folder '%s'", conf->path);
		}
	}
	if (!rc) {
		f->at_once = new_op(f);
		rc = f->at_once ? start_threads(f, err)
				: err_set(err, -ENOMEM, "no memory for a shared folder");
	}
	if (!rc)
		f->at_once->at_once = true;
	if (rc) {
		fuse_node_fini(f);
		free_fuse(f);
		return rc;
	}
	*ret_fs = &f->fs;
	return 0;
}
