/* What the files of the FUSE server share.
 *
 * A request runs on one of the server's threads from beginning to end, or, where it waits for nothing, on the thread that brings
 * it. What it needs longer than that is a node or a handle, which stay as long as somebody uses them. guard is a leaf lock and
 * protects both tables; who holds it asks nothing of a file system.
 *
 * Functions that answer a request (fuse_do_*) return 0 with op->reply_len bytes of answer in op->reply, or a negative errno.
 */
#pragma once

#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "host/fuse.h"

#define FUSE_NR_THREADS 4
#define FUSE_MAX_ARG    (128u << 10) /* bytes of a request, but for the data of a write */
#define FUSE_MAX_REPLY  (128u << 10) /* bytes of an answer, but for the data of a read */
#define FUSE_MAX_WRITE  (1u << 20)
#define FUSE_SYNC_FLAGS (O_SYNC | O_DSYNC)
#define FUSE_PARKED     1 /* instead of an errno: the request waits for the lock of a file */
#define FUSE_LATER      2 /* the same: it cannot be answered at once, and nothing has been done */

/* A file that the guest knows. Its descriptor (O_PATH) keeps the file's number from being used for another. */
struct fuse_node {
	u64 id;
	u64 dev, ino, mnt; /* which file it is */
	u64 lookups;       /* the guest's references */
	u32 users;         /* requests and handles */
	u32 opens;         /* handles of it as a file */
	u32 type;          /* S_IFMT; a file never changes that */
	bool closed;       /* in procfs: nothing in it is the guest's */
	bool local;        /* its file system has the attributes of a file that is held in memory */
	int fd;
	struct fuse_node *next;    /* of the same hash, or of the dead */
	struct fuse_owner *owners; /* fuse_lock.c; under f->locks */
};

/* An open file or folder of the guest. */
struct fuse_handle {
	u64 id;
	struct fuse_node *node;
	u32 users;
	bool is_dir;
	int fd;
	/* Of a folder: what was read from it and not yet given to the guest. */
	pthread_mutex_t lock;
	u64 next; /* the guest's place in it */
	u32 len, pos;
	bool at_end; /* no more comes after that */
	u8 *entries;
};

/* Ids and what they stand for. 0 is none. */
struct fuse_table {
	void **at;
	u32 size, hint; /* of at[]; where the next free one may be */
};

struct fuse {
	struct fs fs;
	char *tag, *path;
	bool read_only, as_root; /* as_root: may act for other users */
	enum fuse_cache cache;
	u32 uid, gid;           /* of the guest, for host_uid, host_gid */
	u32 host_uid, host_gid; /* this process' */
	int proc;               /* /proc/self/fd */
	u64 valid_s;            /* for names and attributes */

	/* Taken for reading by requests, for writing by what ends a session. */
	pthread_rwlock_t session;
	bool started; /* INIT has been answered; under session */
	bool submounts;

	pthread_mutex_t guard;
	struct fuse_table nodes, handles;
	struct fuse_node **hash;
	u32 hash_size, nr_nodes; /* hash_size is a power of two */
	struct fuse_node *dead;  /* in no table; to be closed */
	bool no_cached;          /* the kernel cannot look up in its cache alone */

	pthread_mutex_t locks; /* of all owners */

	pthread_mutex_t queue;
	pthread_cond_t more, idle;
	struct fs_req *todo, **todo_tail;
	struct fs_req *parked;
	u32 busy; /* threads at work */
	bool stop, draining;
	unsigned nr_threads;
	pthread_t thread[FUSE_NR_THREADS];
	struct fuse_op *op[FUSE_NR_THREADS];
	struct fuse_op *at_once; /* under fs.lock */
};

/* One request under way; each thread has one, and who answers at once. */
struct fuse_op {
	struct fuse *f;
	const struct fs_req *req;
	struct fuse_in_header h;
	struct fuse_node *node; /* that h.nodeid names; NULL for requests without */
	const void *arg;        /* the fixed part, copied */
	const char *name[2];
	const u8 *more; /* what follows */
	u32 more_len;
	u8 *reply;
	u32 reply_len, reply_max;
	bool in_place; /* reply_len bytes are in the guest's memory already */
	bool at_once;  /* fs.lock is held: nothing may wait */
	u64 caps;      /* the thread's */
	struct iovec iov[FS_MAX_PARTS];
	u8 *arg_buf;
};

/* ---- fuse_node.c ---- */

/* Descriptors that all shares of this process may still take; false: no more. */
bool fuse_node_take_fd(void);
void fuse_node_give_fd(void);
void fuse_node_raise_limit(void);

int fuse_node_init(struct fuse *f, int root); /* root is the node's then, also where it fails */
void fuse_node_fini(struct fuse *f);
/* Forgets all but the root; no request under way. */
void fuse_node_reset(struct fuse *f);
/* Closes what nobody knows any more, which may take long: the last descriptor of a deleted file makes its blocks free. */
void fuse_node_bury(struct fuse *f);
/* NULL: there is none. To be put. */
struct fuse_node *fuse_node_get(struct fuse *f, u64 id);
void fuse_node_put(struct fuse *f, struct fuse_node *n);
void fuse_node_forget(struct fuse *f, u64 id, u64 lookups);
/* What `name` below `parent` is, with a reference for the guest. At once: as far as the host's kernel has it in memory, else
 * FUSE_LATER. */
int fuse_node_lookup(const struct fuse_op *op, const struct fuse_node *parent, const char *name,
		     struct fuse_entry_out *ret);
/* The same for a file that is open as fd, which stays the caller's. */
int fuse_node_enter_open(struct fuse *f, const struct fuse_node *parent, int fd, struct fuse_entry_out *ret);
int fuse_node_statx(int fd, struct statx *ret);
void fuse_node_attr(const struct fuse *f, const struct statx *st, struct fuse_attr *ret);
/* Opens it for more than O_PATH: files and folders only. A descriptor that counts, or a negative errno. */
int fuse_node_reopen(struct fuse *f, const struct fuse_node *n, int flags);
void fuse_node_close_fd(int fd);
/* /proc/self/fd/N */
struct fuse_path {
	char text[40];
};
struct fuse_path fuse_node_path(const struct fuse_node *n);
u32 fuse_node_uid_for_guest(const struct fuse *f, u32 uid);
u32 fuse_node_gid_for_guest(const struct fuse *f, u32 gid);

/* Ids; under guard. 0: no memory. */
u64 fuse_node_table_add(struct fuse_table *t, void *what);
void *fuse_node_table_get(const struct fuse_table *t, u64 id);
void fuse_node_table_del(struct fuse_table *t, u64 id);

/* ---- fuse_handle.c ---- */

/* fd is the handle's then, also where it fails; node stays the caller's. */
int fuse_handle_new(struct fuse *f, struct fuse_node *n, int fd, bool is_dir, u64 *ret_id);
/* NULL: there is none of that kind. To be put. */
struct fuse_handle *fuse_handle_get(struct fuse *f, u64 id, bool is_dir);
void fuse_handle_put(struct fuse *f, struct fuse_handle *h);
/* The guest closes it. at_once: FUSE_LATER where closing may have to wait. */
int fuse_handle_release(struct fuse *f, u64 id, bool is_dir, bool at_once);
void fuse_handle_reset(struct fuse *f);

/* ---- fuse_cred.c ---- */

/* Acts for the user who asks, until fuse_cred_end(); a thread's own. */
int fuse_cred_begin(struct fuse_op *op);
void fuse_cred_end(struct fuse_op *op);
/* As one who may not keep set-user-ID bits of what he writes. */
void fuse_cred_drop_fsetid(struct fuse_op *op, bool drop);
void fuse_cred_restore(struct fuse_op *op, bool dropped);
bool fuse_cred_may_change(void); /* may this process act for others? */
u64 fuse_cred_caps(void);

/* ---- fuse_lock.c ---- */

/* Drops all locks of the owner, or (owner NULL) of everybody, on this file. */
void fuse_lock_drop(struct fuse *f, struct fuse_node *n, const u64 *owner);

/* ---- fuse.c ---- */

/* Somebody has given up a lock: those who wait for one try again. */
void fuse_retry_parked(struct fuse *f);

/* ---- the requests ---- */

int fuse_names_lookup(struct fuse_op *op);
int fuse_names_forget(struct fuse_op *op);
int fuse_names_batch_forget(struct fuse_op *op);
int fuse_names_mknod(struct fuse_op *op);
int fuse_names_mkdir(struct fuse_op *op);
int fuse_names_symlink(struct fuse_op *op);
int fuse_names_link(struct fuse_op *op);
int fuse_names_unlink(struct fuse_op *op);
int fuse_names_rmdir(struct fuse_op *op);
int fuse_names_rename(struct fuse_op *op);
int fuse_names_rename2(struct fuse_op *op);
int fuse_names_readlink(struct fuse_op *op);
int fuse_names_create(struct fuse_op *op);
int fuse_names_tmpfile(struct fuse_op *op);

int fuse_file_open(struct fuse_op *op);
int fuse_file_read(struct fuse_op *op);
int fuse_file_write(struct fuse_op *op);
int fuse_file_flush(struct fuse_op *op);
int fuse_file_release(struct fuse_op *op);
int fuse_file_fsync(struct fuse_op *op);
int fuse_file_fallocate(struct fuse_op *op);
int fuse_file_lseek(struct fuse_op *op);
int fuse_file_copy(struct fuse_op *op);
/* Answers with the open file fd, which is taken over. */
int fuse_file_opened(struct fuse_op *op, struct fuse_node *n, int fd, struct fuse_open_out *ret);
int fuse_file_open_node(struct fuse_op *op, const struct fuse_node *n, u32 flags, bool kill);

int fuse_dir_open(struct fuse_op *op);
int fuse_dir_read(struct fuse_op *op);
int fuse_dir_readplus(struct fuse_op *op);
int fuse_dir_release(struct fuse_op *op);
int fuse_dir_fsync(struct fuse_op *op);

int fuse_attr_get(struct fuse_op *op);
int fuse_attr_set(struct fuse_op *op);
int fuse_attr_statx(struct fuse_op *op);
int fuse_attr_statfs(struct fuse_op *op);
int fuse_attr_access(struct fuse_op *op);
int fuse_attr_syncfs(struct fuse_op *op);

int fuse_xattr_get(struct fuse_op *op);
int fuse_xattr_set(struct fuse_op *op);
int fuse_xattr_list(struct fuse_op *op);
int fuse_xattr_remove(struct fuse_op *op);

int fuse_lock_get(struct fuse_op *op);
int fuse_lock_set(struct fuse_op *op);
int fuse_lock_set_wait(struct fuse_op *op);
