/* The files that the guest knows: ids, which files they are, and how often the guest has been told.
 *
 * A file is known by device, number and mount, so that all its names lead to one node, and a hard link is seen as one. The
 * node's descriptor names the file whatever becomes of its names: a file that was deleted, or moved by somebody else, stays
 * the one that the guest means, and a folder that was replaced by a symbolic link is still the folder.
 *
 * The descriptors of all shares are counted, and stay below the process' limit by a margin that the rest needs. At the bound
 * the guest gets ENFILE for files that it does not know yet, and READDIRPLUS gives names only; both end when the guest
 * forgets some (hostile case G39: what a guest can make grow is bounded).
 *
 * A procfs below the folder shows its place and nothing of it: its files are doors to this process (hostile case G39).
 *
 * At once, without a thread that may wait, goes what the host's kernel answers from memory. For a name openat2() with
 * RESOLVE_CACHED (Linux 5.12) promises that, whatever the file system; the attributes of the file that is then held are in memory
 * where the file system is one that no other host changes (local). A mount point is left to the threads, so the file is in its
 * folder's file system. A descriptor is closed on the way only while the file's node holds another: the last one of a deleted
 * file would wait until its blocks are free. The same rule keeps nodes that die for the threads to bury.
 *
 * Threads: the server's; lookups at once, get and put also the one that brings a request.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "host/fuse_int.h"

#define WANTED_FDS   (1u << 20)
#define MAX_FDS      (256u << 10) /* some hundred bytes each, here and in the kernel */
#define MARGIN       1024u
#define FIRST_HASH   1024u
#define FIRST_IDS    256u
#define STATX_WANTED (STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID)
#define NOBODY       65534u

static struct {
	_Atomic u32 used;
	u32 max;
} fds = { .max = 256 };

void fuse_node_raise_limit(void)
{
	u32 limit = (u32)MIN(os_fd_limit(WANTED_FDS), (u64)WANTED_FDS);

	fds.max = MIN(limit > 4 * MARGIN ? limit - MARGIN : limit / 2, MAX_FDS);
}

bool fuse_node_take_fd(void)
{
	if (atomic_fetch_add(&fds.used, 1) < fds.max)
		return true;
	atomic_fetch_sub(&fds.used, 1);
	log_guest(
		"a share holds %u files open, which is all that this process may; raise the limit with ulimit -n",
		fds.max);
	return false;
}

void fuse_node_give_fd(void)
{
	atomic_fetch_sub(&fds.used, 1);
}

void fuse_node_close_fd(int fd)
{
	close(fd);
	fuse_node_give_fd();
}

/* ---- ids ---- */

u64 fuse_node_table_add(struct fuse_table *t, void *what)
{
	u32 i = MAX(t->hint, 1u);

	while (i < t->size && t->at[i])
		i++;
	if (i >= t->size) {
		u32 size = t->size ? 2 * t->size : FIRST_IDS;
		void **at = realloc(t->at, size * sizeof(at[0]));

		if (!at)
			return 0;
		memset(at + t->size, 0, (size - t->size) * sizeof(at[0]));
		i = MAX(t->size, 1u);
		t->at = at;
		t->size = size;
	}
	t->at[i] = what;
	t->hint = i + 1;
	return i;
}

void *fuse_node_table_get(const struct fuse_table *t, u64 id)
{
	return id < t->size ? t->at[id] : NULL;
}

void fuse_node_table_del(struct fuse_table *t, u64 id)
{
	t->at[id] = NULL;
	t->hint = MIN(t->hint, (u32)id);
}

/* ---- which file ---- */

struct key {
	u64 dev, ino, mnt;
};

static struct key key_of(const struct statx *st)
{
	return (struct key){
		(u64)st->stx_dev_major << 32 | st->stx_dev_minor,
		st->stx_ino,
		st->stx_mask & STATX_MNT_ID ? st->stx_mnt_id : 0,
	};
}

static u32 bucket(const struct fuse *f, u64 dev, u64 ino, u64 mnt)
{
	u64 x = (ino ^ dev << 20 ^ mnt << 40) * 0x9e3779b97f4a7c15ull;

	return (u32)(x >> 32) & (f->hash_size - 1);
}

static struct fuse_node *find(const struct fuse *f, const struct key *k)
{
	struct fuse_node *n = f->hash[bucket(f, k->dev, k->ino, k->mnt)];

	while (n && (n->ino != k->ino || n->dev != k->dev || n->mnt != k->mnt))
		n = n->next;
	return n;
}

static void link_in(struct fuse *f, struct fuse_node *n)
{
	struct fuse_node **at = &f->hash[bucket(f, n->dev, n->ino, n->mnt)];

	n->next = *at;
	*at = n;
}

static void unlink_from(struct fuse *f, struct fuse_node *n)
{
	struct fuse_node **at = &f->hash[bucket(f, n->dev, n->ino, n->mnt)];

	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
}

/* Twice as many places where there are more nodes than places; without memory it goes on as it is. */
static void grow_hash(struct fuse *f)
{
	struct fuse_node **old = f->hash, **fresh;
	u32 old_size = f->hash_size;

	if (f->nr_nodes < f->hash_size)
		return;
	fresh = calloc((size_t)old_size * 2, sizeof(fresh[0]));
	if (!fresh)
		return;
	f->hash = fresh;
	f->hash_size = old_size * 2;
	for (u32 i = 0; i < old_size; i++) {
		for (struct fuse_node *n = old[i], *next; n; n = next) {
			next = n->next;
			link_in(f, n);
		}
	}
	free(old);
}

/* ---- nodes ---- */

int fuse_node_statx(int fd, struct statx *ret)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_WANTED, ret) < 0
		       ? -errno
		       : 0;
}

/* What a file system says of all its files. */
struct kind {
	bool closed, local;
};

static struct kind kind_of_fs(int fd)
{
	/* Those of a network, of a program (FUSE) or on top of others (overlay) may have to ask. */
	static const s64 local[] = { EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC,
				     TMPFS_MAGIC };
	struct kind kind = { .closed = false };
	struct statfs st;

	if (fstatfs(fd, &st) < 0)
		return kind;
	kind.closed = st.f_type == PROC_SUPER_MAGIC;
	for (unsigned i = 0; i < ARRAY_SIZE(local); i++)
		kind.local |= st.f_type == local[i];
	return kind;
}

/* Under guard. */
static struct fuse_node *add(struct fuse *f, const struct statx *st, struct kind kind, int fd)
{
	struct key k = key_of(st);
	struct fuse_node *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->dev = k.dev;
	n->ino = k.ino;
	n->mnt = k.mnt;
	n->type = st->stx_mode & S_IFMT;
	n->closed = kind.closed;
	n->local = kind.local;
	n->fd = fd;
	n->id = fuse_node_table_add(&f->nodes, n);
	if (!n->id) {
		free(n);
		return NULL;
	}
	grow_hash(f);
	link_in(f, n);
	f->nr_nodes++;
	return n;
}

/* Under guard, nobody uses it. */
static void del(struct fuse *f, struct fuse_node *n)
{
	unlink_from(f, n);
	fuse_node_table_del(&f->nodes, n->id);
	f->nr_nodes--;
	n->next = f->dead;
	f->dead = n;
}

void fuse_node_bury(struct fuse *f)
{
	struct fuse_node *dead, *next;

	pthread_mutex_lock(&f->guard);
	dead = f->dead;
	f->dead = NULL;
	pthread_mutex_unlock(&f->guard);
	for (; dead; dead = next) {
		next = dead->next;
		fuse_node_close_fd(dead->fd);
		free(dead);
	}
}

/* A descriptor (O_PATH), or a negative errno: -EAGAIN where the kernel would have to ask the file system. */
static int open_cached(int dir, const char *name)
{
	const struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_CACHED | RESOLVE_NO_XDEV,
	};
	int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

int fuse_node_init(struct fuse *f, int root)
{
	struct statx st;
	struct fuse_node *n;
	struct kind kind = kind_of_fs(root);
	int rc = fuse_node_statx(root, &st), again = open_cached(root, ".");

	f->hash = calloc(FIRST_HASH, sizeof(f->hash[0]));
	f->hash_size = FIRST_HASH;
	if (!f->hash && !rc)
		rc = -ENOMEM;
	/* Before Linux 5.12, or forbidden. */
	f->no_cached = again < 0;
	if (again >= 0)
		close(again);
	if (!rc && kind.closed)
		rc = -EACCES;
	if (!rc && !fuse_node_take_fd())
		rc = -ENFILE;
	if (!rc) {
		n = add(f, &st, kind, root);
		if (n) {
			/* FUSE_ROOT_ID, as it is the first one. It is the server's own. */
			n->users = 1;
			return 0;
		}
		fuse_node_give_fd();
		rc = -ENOMEM;
	}
	close(root);
	return rc;
}

void fuse_node_reset(struct fuse *f)
{
	pthread_mutex_lock(&f->guard);
	for (u32 i = 1; i < f->nodes.size; i++) {
		struct fuse_node *n = f->nodes.at[i];

		if (n && i != FUSE_ROOT_ID)
			del(f, n);
		else if (n)
			n->lookups = 0;
	}
	pthread_mutex_unlock(&f->guard);
	fuse_node_bury(f);
}

void fuse_node_fini(struct fuse *f)
{
	struct fuse_node *root = fuse_node_table_get(&f->nodes, FUSE_ROOT_ID);

	if (root) {
		fuse_node_reset(f);
		del(f, root);
		fuse_node_bury(f);
	}
	free(f->nodes.at);
	free(f->hash);
}

struct fuse_node *fuse_node_get(struct fuse *f, u64 id)
{
	struct fuse_node *n;

	pthread_mutex_lock(&f->guard);
	n = fuse_node_table_get(&f->nodes, id);
	if (n)
		n->users++;
	pthread_mutex_unlock(&f->guard);
	return n;
}

void fuse_node_put(struct fuse *f, struct fuse_node *n)
{
	pthread_mutex_lock(&f->guard);
	if (!--n->users && !n->lookups)
		del(f, n);
	pthread_mutex_unlock(&f->guard);
}

void fuse_node_forget(struct fuse *f, u64 id, u64 lookups)
{
	struct fuse_node *n;

	pthread_mutex_lock(&f->guard);
	n = fuse_node_table_get(&f->nodes, id);
	if (n) {
		n->lookups -= MIN(n->lookups, lookups);
		if (!n->lookups && !n->users)
			del(f, n);
	}
	pthread_mutex_unlock(&f->guard);
}

/* ---- what the guest is told ---- */

/* One who is not root can be but one user: in the guest it is the one that the configuration says, all others are nobody. */
static u32 id_for_guest(bool as_root, u32 id, u32 host, u32 guest)
{
	if (as_root)
		return id;
	return id == host ? guest : NOBODY;
}

u32 fuse_node_uid_for_guest(const struct fuse *f, u32 uid)
{
	return id_for_guest(f->as_root, uid, f->host_uid, f->uid);
}

u32 fuse_node_gid_for_guest(const struct fuse *f, u32 gid)
{
	return id_for_guest(f->as_root, gid, f->host_gid, f->gid);
}

/* As the kernel's new_encode_dev(): 12 bits of major inside 20 of minor. */
static u32 device_number(u32 major, u32 minor)
{
	return (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xfff00) << 12;
}

void fuse_node_attr(const struct fuse *f, const struct statx *st, struct fuse_attr *ret)
{
	*ret = (struct fuse_attr){
		.ino = st->stx_ino,
		.size = st->stx_size,
		.blocks = st->stx_blocks,
		.atime = (u64)st->stx_atime.tv_sec,
		.mtime = (u64)st->stx_mtime.tv_sec,
		.ctime = (u64)st->stx_ctime.tv_sec,
		.atimensec = st->stx_atime.tv_nsec,
		.mtimensec = st->stx_mtime.tv_nsec,
		.ctimensec = st->stx_ctime.tv_nsec,
		.mode = st->stx_mode,
		.nlink = st->stx_nlink,
		.uid = fuse_node_uid_for_guest(f, st->stx_uid),
		.gid = fuse_node_gid_for_guest(f, st->stx_gid),
		.rdev = device_number(st->stx_rdev_major, st->stx_rdev_minor),
		.blksize = st->stx_blksize,
	};
}

static void tell(const struct fuse *f, const struct fuse_node *parent, const struct statx *st, u64 id,
		 struct fuse_entry_out *ret)
{
	struct key k = key_of(st);

	*ret = (struct fuse_entry_out){ .nodeid = id, .entry_valid = f->valid_s, .attr_valid = f->valid_s };
	fuse_node_attr(f, st, &ret->attr);
	/* A file system of the host's below the folder is one for the guest, whose numbers are its own. */
	if (f->submounts && S_ISDIR(st->stx_mode) && (k.dev != parent->dev || k.mnt != parent->mnt))
		ret->attr.flags |= FUSE_ATTR_SUBMOUNT;
}

/* The id of a known file, with one more reference; 0: it is not known. */
static u64 known(struct fuse *f, const struct statx *st)
{
	struct key k = key_of(st);
	struct fuse_node *n;
	u64 id = 0;

	pthread_mutex_lock(&f->guard);
	n = find(f, &k);
	if (n) {
		n->lookups++;
		id = n->id;
	}
	pthread_mutex_unlock(&f->guard);
	return id;
}

/* Takes over path_fd (O_PATH), which is counted; same_mount: it is in its folder's. */
static int enter(struct fuse *f, const struct fuse_node *parent, int path_fd, bool same_mount,
		 struct fuse_entry_out *ret)
{
	struct kind kind = { parent->closed, parent->local };
	struct statx st;
	struct fuse_node *n;
	struct key k;
	int rc = fuse_node_statx(path_fd, &st);

	if (rc) {
		fuse_node_close_fd(path_fd);
		return rc;
	}
	k = key_of(&st);
	if (!same_mount && (k.dev != parent->dev || k.mnt != parent->mnt))
		kind = kind_of_fs(path_fd);
	pthread_mutex_lock(&f->guard);
	n = find(f, &k);
	if (n) {
		/* Not the last one. */
		fuse_node_close_fd(path_fd);
	} else {
		n = add(f, &st, kind, path_fd);
		if (!n) {
			pthread_mutex_unlock(&f->guard);
			fuse_node_close_fd(path_fd);
			return -ENOMEM;
		}
	}
	n->lookups++;
	tell(f, parent, &st, n->id, ret);
	pthread_mutex_unlock(&f->guard);
	return 0;
}

static int lookup(struct fuse *f, const struct fuse_node *parent, const char *name,
		  struct fuse_entry_out *ret)
{
	struct statx st;
	u64 id;
	int fd;

	if (parent->closed)
		return -EACCES;
	/* A file that is known cannot have lost its number to another one, so its name's attributes are enough. */
	if (statx(parent->fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_WANTED, &st) < 0)
		return -errno;
	id = known(f, &st);
	if (id) {
		tell(f, parent, &st, id, ret);
		return 0;
	}
	if (!fuse_node_take_fd())
		return -ENFILE;
	fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		fuse_node_give_fd();
		return -errno;
	}
	return enter(f, parent, fd, false, ret);
}

static int lookup_cached(struct fuse *f, const struct fuse_node *parent, const char *name,
			 struct fuse_entry_out *ret)
{
	int fd;

	if (f->no_cached || !parent->local || parent->closed || !fuse_node_take_fd())
		return FUSE_LATER;
	fd = open_cached(parent->fd, name);
	if (fd >= 0)
		return enter(f, parent, fd, true, ret);
	fuse_node_give_fd();
	return fd == -ENOENT ? fd : FUSE_LATER;
}

int fuse_node_lookup(const struct fuse_op *op, const struct fuse_node *parent, const char *name,
		     struct fuse_entry_out *ret)
{
	return op->at_once ? lookup_cached(op->f, parent, name, ret) : lookup(op->f, parent, name, ret);
}

/* A number in /proc/self/fd. */
struct fd_name {
	char text[16];
};

static struct fd_name fd_name(int fd)
{
	struct fd_name name;

	snprintf(name.text, sizeof(name.text), "%d", fd);
	return name;
}

int fuse_node_enter_open(struct fuse *f, const struct fuse_node *parent, int fd, struct fuse_entry_out *ret)
{
	int path_fd;

	if (!fuse_node_take_fd())
		return -ENFILE;
	path_fd = openat(f->proc, fd_name(fd).text, O_PATH | O_CLOEXEC);
	if (path_fd < 0) {
		fuse_node_give_fd();
		return -errno;
	}
	return enter(f, parent, path_fd, false, ret);
}

int fuse_node_reopen(struct fuse *f, const struct fuse_node *n, int flags)
{
	int fd;

	/* Pipes would wait, and devices do what devices do. The type cannot change between here and there. */
	if (n->type != S_IFREG && n->type != S_IFDIR)
		return -ENXIO;
	if (n->closed)
		return -EACCES;
	if (!fuse_node_take_fd())
		return -ENFILE;
	fd = openat(f->proc, fd_name(n->fd).text, flags | O_CLOEXEC | O_NOCTTY);
	if (fd < 0) {
		fuse_node_give_fd();
		return -errno;
	}
	return fd;
}

struct fuse_path fuse_node_path(const struct fuse_node *n)
{
	struct fuse_path p;

	snprintf(p.text, sizeof(p.text), "/proc/self/fd/%d", n->fd);
	return p;
}
