/* What the FUSE server answers at once, on the thread that brings a request, and what it must leave to its own threads.
 *
 * The kernel's part is played where it matters: openat2() with RESOLVE_CACHED finds all in its cache, nothing, or is not there; the
 * folder's file system is said to be a local one or not. Everything else is the host's own. Whatever comes at once must be what
 * the threads would have said, and close no descriptor that could be a file's last.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuseclient.h"
#include "fusefolder.h"
#include "openfiles.h"

#define ROOT   FUSE_ROOT_ID
#define FLOODS 4
#define FILES  300 /* in "big" */

static struct fuseclient c;

/* ---- the host's kernel ---- */

static int cache_says;       /* -errno instead of a lookup; 0: the kernel's own */
static s64 kind_of_fs;       /* 0: the kernel's own */
static unsigned nr_cached;   /* lookups in the cache */
static __thread bool in_run; /* this thread brings a request */
static _Atomic unsigned
	last_closed; /* descriptors of deleted files closed there: each may have been the last */

long __real_syscall(long nr, ...);
long __wrap_syscall(long nr, ...);
int __real_fstatfs64(int fd, struct statfs *st);
int __wrap_fstatfs64(int fd, struct statfs *st);
int __real_close(int fd);
int __wrap_close(int fd);

long __wrap_syscall(long nr, ...)
{
	unsigned nr_args = nr == SYS_openat2 ? 4 : nr == SYS_getdents64 ? 3 : 2 /* capget, capset */;
	va_list ap;
	long a[4] = { 0 };

	va_start(ap, nr);
	for (unsigned i = 0; i < nr_args; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (nr == SYS_openat2) {
		const struct open_how *how = (const struct open_how *)a[2];

		assert_true(how && how->resolve & RESOLVE_CACHED && how->flags & O_NOFOLLOW &&
			    how->flags & O_PATH);
		__atomic_add_fetch(&nr_cached, 1, __ATOMIC_RELAXED);
		if (cache_says) {
			errno = -cache_says;
			return -1;
		}
	}
	return __real_syscall(nr, a[0], a[1], a[2], a[3]);
}

int __wrap_fstatfs64(int fd, struct statfs *st)
{
	int rc = __real_fstatfs64(fd, st);

	assert_false(in_run); /* it may have to ask a server */
	if (!rc && kind_of_fs && st->f_type != PROC_SUPER_MAGIC)
		st->f_type = (__fsword_t)kind_of_fs;
	return rc;
}

int __wrap_close(int fd)
{
	struct stat st;

	if (in_run && fstat(fd, &st) == 0 && st.st_nlink == 0)
		last_closed++;
	return __real_close(fd);
}

/* ---- the folder ---- */

static void serve(int cache, s64 kind)
{
	struct fuse_conf conf = { .tag = "test", .path = host("share") };
	struct err err = { 0 };
	struct fs *fs;

	cache_says = cache;
	kind_of_fs = kind;
	nr_cached = 0;
	if (fuse_open(&conf, &fs, &err))
		fail_msg("%s", err.msg);
	fuseclient_init(&c, fs);
	c.at_once = true;
	assert_int_equal(fuseclient_start(&c, ~0u, NULL), 0);
}

static int up(void **state)
{
	char name[64];

	make_folders();
	put("share/a", "four");
	assert_int_equal(symlink("../outside/secret", host("share/link")), 0);
	assert_int_equal(mkdir(host("share/d"), 0755), 0);
	assert_int_equal(mkdir(host("share/big"), 0755), 0);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "share/big/file%u", i);
		put(name, "x");
	}
	last_closed = 0;
	return 0;
}

static int down(void **state)
{
	return remove_folders();
}

/* ---- shorthand ---- */

static int ask(u32 opcode, u64 node, const void *fixed, size_t len, const char *name)
{
	return fuseclient_ask(&c, opcode, node, fixed, len, name, name ? strlen(name) + 1 : 0);
}

static struct fuse_entry_out entry;

static u64 lookup(u64 dir, const char *name)
{
	assert_int_equal(ask(FUSE_LOOKUP, dir, NULL, 0, name), 0);
	memcpy(&entry, fuseclient_answer(&c.r), sizeof(entry));
	return entry.nodeid;
}

static struct fuse_attr attr(u64 node)
{
	assert_int_equal(ask(FUSE_GETATTR, node, &(struct fuse_getattr_in){ 0 }, 16, NULL), 0);
	return ((struct fuse_attr_out *)fuseclient_answer(&c.r))->attr;
}

static u64 open_dir(u64 node)
{
	assert_int_equal(ask(FUSE_OPENDIR, node, &(struct fuse_open_in){ 0 }, 8, NULL), 0);
	return ((struct fuse_open_out *)fuseclient_answer(&c.r))->fh;
}

static int release_dir(u64 node, u64 fh)
{
	return ask(FUSE_RELEASEDIR, node, &(struct fuse_release_in){ .fh = fh }, 24, NULL);
}

static int read_dir(u32 opcode, u64 node, u64 fh, u64 offset, u32 size)
{
	const struct fuse_read_in in = { .fh = fh, .offset = offset, .size = size };

	return ask(opcode, node, &in, sizeof(in), NULL);
}

/* Reads a folder to its end as Linux does; how many entries it has, and how many requests were answered at once. */
static unsigned whole_dir(u32 opcode, u64 node, u64 fh, unsigned *ret_requests, unsigned *ret_at_once)
{
	u32 head = opcode == FUSE_READDIRPLUS ? sizeof(struct fuse_entry_out) : 0;
	unsigned n = 0;
	u64 offset = 0;

	*ret_requests = *ret_at_once = 0;
	for (;;) {
		assert_int_equal(read_dir(opcode, node, fh, offset, 4096), 0);
		++*ret_requests;
		*ret_at_once += c.r.at_once;
		u32 len = fuseclient_answer_len(&c.r);
		const u8 *at = fuseclient_answer(&c.r), *end = at + len;

		if (!len)
			return n;
		while (at < end) {
			const struct fuse_dirent *e = (const struct fuse_dirent *)(at + head);

			if (head && e->name[0] == 'f') {
				memcpy(&entry, at, sizeof(entry));
				assert_true(entry.nodeid);
				assert_int_equal(entry.attr.size, 1);
				assert_int_equal(entry.attr.ino, e->ino);
			}
			offset = e->off;
			at += head + (24 + e->namelen + 7) / 8 * 8;
			n++;
		}
	}
}

/* ---- what goes at once ---- */

/* Everything in memory. */
static void test_cached(void **state)
{
	unsigned requests, quick;
	struct stat st;
	u64 a, d, fh;

	serve(0, EXT4_SUPER_MAGIC);
	assert_int_equal(stat(host("share/a"), &st), 0);
	a = lookup(ROOT, "a");
	assert_true(c.r.at_once && a);
	assert_int_equal(entry.attr.size, 4);
	assert_int_equal(entry.attr.ino, st.st_ino);
	assert_int_equal(entry.attr_valid, 1);
	/* Known now. */
	assert_int_equal(lookup(ROOT, "a"), a);
	assert_true(c.r.at_once);
	put("share/a", "longer");
	assert_int_equal(attr(a).size, 6);
	assert_true(c.r.at_once);
	assert_int_equal(lookup(ROOT, "missing"), 0);
	/* A symbolic link is itself. */
	assert_int_equal(lstat(host("share/link"), &st), 0);
	lookup(ROOT, "link");
	assert_true(c.r.at_once);
	assert_int_equal(entry.attr.mode & S_IFMT, S_IFLNK);
	assert_int_equal(ask(FUSE_LOOKUP, entry.nodeid, NULL, 0, "secret"), -ENOTDIR);
	/* A folder: the first page comes from the file system, the others and the end do not. */
	d = lookup(ROOT, "big");
	for (unsigned i = 0; i < 2; i++) {
		u32 opcode = i ? FUSE_READDIR : FUSE_READDIRPLUS;

		fh = open_dir(d);
		assert_int_equal(whole_dir(opcode, d, fh, &requests, &quick), FILES + 2);
		assert_true(requests >= 3);
		assert_int_equal(quick, requests - 1);
		/* Asked once more at the end: what has come meanwhile would be seen. */
		put("share/big/late", "x");
		assert_int_equal(whole_dir(opcode, d, fh, &requests, &quick), FILES + 3);
		unlink(host("share/big/late"));
		assert_int_equal(release_dir(d, fh), 0);
		assert_true(c.r.at_once);
		assert_int_equal(release_dir(d, fh), -EBADF);
	}
	/* More than a page of it would take long. */
	fh = open_dir(d);
	assert_int_equal(read_dir(FUSE_READDIRPLUS, d, fh, 0, 4096), 0);
	u64 next = ((struct fuse_direntplus *)fuseclient_answer(&c.r))->dirent.off;
	assert_int_equal(read_dir(FUSE_READDIRPLUS, d, fh, next, 64 << 10), 0);
	assert_false(c.r.at_once);
	assert_true(fuseclient_answer_len(&c.r) > 32 << 10);
	assert_int_equal(release_dir(d, fh), 0);
	fuseclient_fini(&c);
}

/* The end of a folder is told once; what comes after that is found. */
static void test_end_of_folder(void **state)
{
	u64 d, fh, end = 0;

	serve(0, EXT4_SUPER_MAGIC);
	d = lookup(ROOT, "d");
	fh = open_dir(d);
	for (;;) {
		assert_int_equal(read_dir(FUSE_READDIR, d, fh, end, 4096), 0);
		u32 len = fuseclient_answer_len(&c.r);
		const u8 *at = fuseclient_answer(&c.r), *to = at + len;

		if (!len)
			break;
		for (; at < to; at += (24 + ((const struct fuse_dirent *)at)->namelen + 7) / 8 * 8)
			end = ((const struct fuse_dirent *)at)->off;
	}
	assert_true(c.r.at_once);
	/* The host is asked again, and again when it has been wound back. */
	assert_int_equal(read_dir(FUSE_READDIR, d, fh, end, 4096), 0);
	assert_false(c.r.at_once);
	put("share/d/new", "x");
	assert_int_equal(read_dir(FUSE_READDIR, d, fh, 0, 4096), 0);
	assert_false(c.r.at_once);
	assert_int_equal(fuseclient_answer_len(&c.r), 3 * 32);
	fuseclient_fini(&c);
}

/* The same answers by the threads: the cache has nothing, the kernel is an old one, or forbids it, the file system is another's. */
static void test_left_to_threads(void **state)
{
	static const struct {
		int cache;
		s64 kind;
		bool asked, getattr;
	} cases[] = {
		{ -EAGAIN, EXT4_SUPER_MAGIC, false, true }, { -EINVAL, EXT4_SUPER_MAGIC, false, true },
		{ -ENOSYS, EXT4_SUPER_MAGIC, false, true }, { -EPERM, TMPFS_MAGIC, false, true },
		{ 0, NFS_SUPER_MAGIC, false, false },       { 0, FUSE_SUPER_MAGIC, false, false },
		{ 0, OVERLAYFS_SUPER_MAGIC, false, false },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned requests, quick;
		u64 a, d, fh;

		serve(cases[i].cache, cases[i].kind);
		a = lookup(ROOT, "a");
		assert_true(a);
		assert_false(c.r.at_once);
		assert_int_equal(lookup(ROOT, "a"), a);
		assert_false(c.r.at_once);
		assert_int_equal(attr(a).size, 4);
		assert_int_equal(c.r.at_once, cases[i].getattr);
		assert_int_equal(lookup(ROOT, "missing"), 0);
		assert_false(c.r.at_once);
		/* A kernel that cannot is asked once. */
		assert_int_equal(nr_cached, 1);
		d = lookup(ROOT, "big");
		fh = open_dir(d);
		assert_int_equal(whole_dir(FUSE_READDIRPLUS, d, fh, &requests, &quick), FILES + 2);
		assert_int_equal(quick, 1); /* the end */
		assert_int_equal(release_dir(d, fh), 0);
		assert_int_equal(c.r.at_once, cases[i].getattr);
		fuseclient_fini(&c);
	}
}

/* The cache forgets: from then on the threads, and at once again when it has come back. */
static void test_cache_comes_and_goes(void **state)
{
	unsigned requests, quick;
	u64 a, d, fh;

	serve(0, XFS_SUPER_MAGIC);
	a = lookup(ROOT, "a");
	assert_true(c.r.at_once);
	static const int says[] = { -EAGAIN, -EXDEV, -EACCES, -EMFILE, -ELOOP };
	for (unsigned i = 0; i < ARRAY_SIZE(says); i++) {
		cache_says = says[i];
		assert_int_equal(lookup(ROOT, "a"), a);
		assert_false(c.r.at_once);
		cache_says = 0;
		assert_int_equal(lookup(ROOT, "a"), a);
		assert_true(c.r.at_once);
	}
	/* In the middle of a page. */
	d = lookup(ROOT, "big");
	fh = open_dir(d);
	assert_int_equal(read_dir(FUSE_READDIRPLUS, d, fh, 0, 4096), 0);
	cache_says = -EAGAIN;
	assert_int_equal(whole_dir(FUSE_READDIRPLUS, d, fh, &requests, &quick), FILES + 2);
	assert_int_equal(quick, 1);
	cache_says = 0;
	assert_int_equal(whole_dir(FUSE_READDIRPLUS, d, fh, &requests, &quick), FILES + 2);
	assert_int_equal(quick, requests - 1);
	/* As often known as told: all are gone after as many forgets. */
	assert_int_equal(ask(FUSE_FORGET, a, &(struct fuse_forget_in){ 11 }, 8, NULL), 1);
	assert_int_equal(ask(FUSE_GETATTR, a, &(struct fuse_getattr_in){ 0 }, 16, NULL), -ESTALE);
	fuseclient_fini(&c);
}

/* What would take long, by itself or because it is not one of these. */
static void test_not_at_once(void **state)
{
	static struct fuseclient_req r;
	static char big[8000];
	u64 a, fh;

	serve(0, EXT4_SUPER_MAGIC);
	a = lookup(ROOT, "a");
	/* A request of more bytes than it has reason to. */
	strcpy(big, "a");
	assert_int_equal(fuseclient_ask(&c, FUSE_LOOKUP, ROOT, NULL, 0, big, 2), 0);
	assert_true(c.r.at_once);
	assert_int_equal(fuseclient_ask(&c, FUSE_LOOKUP, ROOT, NULL, 0, big, sizeof(big)), 0);
	assert_false(c.r.at_once);
	/* More than the buffer has, and less than a header. */
	fuseclient_begin(&c, &r, FUSE_GETATTR, ROOT, big, 16, NULL, 0, 200);
	fuseclient_wait(&c, &r);
	memcpy(r.out, &(u32){ 57 }, 4);
	r.req.at_once = true;
	r.done = false;
	pthread_mutex_lock(&c.lock);
	c.fs->ops->submit(c.fs, &r.req);
	pthread_mutex_unlock(&c.lock);
	assert_int_equal(fuseclient_wait(&c, &r), -EINVAL);
	/* No leave. */
	c.at_once = false;
	assert_int_equal(lookup(ROOT, "a"), a);
	assert_false(c.r.at_once);
	c.at_once = true;
	/* Files: to close one may mean to write. */
	assert_int_equal(ask(FUSE_OPEN, a, &(struct fuse_open_in){ .flags = O_RDWR }, 8, NULL), 0);
	assert_false(c.r.at_once);
	fh = ((struct fuse_open_out *)fuseclient_answer(&c.r))->fh;
	assert_int_equal(release_dir(a, fh), -EBADF);
	assert_int_equal(ask(FUSE_RELEASE, a, &(struct fuse_release_in){ .fh = fh }, 24, NULL), 0);
	assert_false(c.r.at_once);
	/* Nor with no session. */
	assert_int_equal(ask(FUSE_DESTROY, 0, NULL, 0, NULL), 0);
	assert_int_equal(ask(FUSE_LOOKUP, ROOT, NULL, 0, "a"), -EIO);
	fuseclient_fini(&c);
}

/* ---- a flood ---- */

static _Atomic bool racing;
static _Atomic unsigned answered_at_once, escapes;

/* The host deletes, makes and swaps what is being asked for. */
static void *race(void *arg)
{
	char name[64], other[64];

	for (unsigned i = 0; racing; i++) {
		unsigned k = i % 8;

		snprintf(name, sizeof(name), "share/d/%u", k);
		snprintf(other, sizeof(other), "share/d/%u", (k + 3) % 8);
		switch (i / 8 % 5) {
		case 0:
		case 3: {
			int fd = open(host(name), O_CREAT | O_WRONLY, 0644);

			if (fd >= 0)
				__real_close(fd);
			break;
		}
		case 1: rename(host(name), host(other)); break;
		case 2: unlink(host(name)); break;
		default: unlink(host(name)); symlink("../../outside", host(name));
		}
	}
	return NULL;
}

/* A vCPU: lookups, attributes, forgets of more than there is, below what may be a link to the outside. */
static void *flood(void *arg)
{
	struct fuseclient_req *r = calloc(1, sizeof(*r));
	unsigned seed = (unsigned)(uintptr_t)arg;
	u64 ids[16] = { ROOT, ROOT };
	char name[8];

	for (unsigned i = 0; i < 2500; i++) {
		u64 dir = ids[i % 2], id = ids[2 + rand_r(&seed) % 14];
		int rc;

		snprintf(name, sizeof(name), "%u", rand_r(&seed) % 8);
		in_run = true;
		switch (rand_r(&seed) % 8) {
		case 0:
			fuseclient_begin(&c, r, FUSE_FORGET, id, &(struct fuse_forget_in){ 1 + i % 3 }, 8,
					 NULL, 0, 0);
			break;
		case 1:
			fuseclient_begin(&c, r, FUSE_GETATTR, id, &(struct fuse_getattr_in){ 0 }, 16, NULL, 0,
					 200);
			break;
		case 2: /* through a link, if that went */
			fuseclient_begin(&c, r, FUSE_LOOKUP, id, NULL, 0, "secret", 7, 200);
			break;
		case 3: fuseclient_begin(&c, r, FUSE_LOOKUP, ROOT, NULL, 0, "d", 2, 200); break;
		default: fuseclient_begin(&c, r, FUSE_LOOKUP, dir, NULL, 0, name, strlen(name) + 1, 200);
		}
		in_run = false;
		answered_at_once += r->at_once;
		rc = fuseclient_wait(&c, r);
		if (rc || fuseclient_answer_len(r) != sizeof(struct fuse_entry_out))
			continue;
		struct fuse_entry_out e;
		memcpy(&e, fuseclient_answer(r), sizeof(e));
		if (e.nodeid && r->out[sizeof(struct fuse_in_header)] == 's')
			escapes++;
		if (e.nodeid && r->out[sizeof(struct fuse_in_header)] == 'd')
			ids[1] = e.nodeid;
		else if (e.nodeid)
			ids[2 + i % 14] = e.nodeid;
	}
	free(r);
	return NULL;
}

/* vCPUs that ask and forget, while the host deletes, renames and puts links in place: never outside, nothing lost, and no
 * descriptor closed at once that could be a deleted file's last [G39]. */
static void test_G39_flood(void **state)
{
	pthread_t host_thread, guest[FLOODS];
	unsigned fds = 0;

	serve(0, EXT4_SUPER_MAGIC);
	/* Twice: what is not given back would be there at the end. */
	for (unsigned round = 0; round < 2; round++) {
		racing = true;
		assert_int_equal(pthread_create(&host_thread, NULL, race, NULL), 0);
		for (uintptr_t i = 0; i < FLOODS; i++)
			assert_int_equal(pthread_create(&guest[i], NULL, flood, (void *)(i + 1)), 0);
		for (unsigned i = 0; i < FLOODS; i++)
			pthread_join(guest[i], NULL);
		racing = false;
		pthread_join(host_thread, NULL);
		assert_int_equal(fuseclient_start(&c, ~0u, NULL), 0);
		if (round == 0)
			fds = open_files();
	}
	assert_int_equal(open_files(), fds);
	assert_true(answered_at_once > 500);
	assert_int_equal(escapes, 0);
	fuseclient_fini(&c);
}

/* A file deleted on the host whose node the guest still has: found again by another name's descriptor, which is closed at once and
 * is not the last; the last one goes with FORGET, which the threads do. */
static void test_deleted(void **state)
{
	u64 a;

	serve(0, EXT4_SUPER_MAGIC);
	a = lookup(ROOT, "a");
	assert_int_equal(unlink(host("share/a")), 0);
	in_run = true;
	assert_int_equal(attr(a).nlink, 0);
	assert_int_equal(ask(FUSE_FORGET, a, &(struct fuse_forget_in){ 1 }, 8, NULL), 1);
	in_run = false;
	assert_false(c.r.at_once);
	assert_int_equal(last_closed, 0);
	assert_int_equal(ask(FUSE_GETATTR, a, &(struct fuse_getattr_in){ 0 }, 16, NULL), -ESTALE);
	fuseclient_fini(&c);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, up, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_cached),          TEST(test_end_of_folder),
		TEST(test_left_to_threads), TEST(test_cache_comes_and_goes),
		TEST(test_not_at_once),     TEST(test_deleted),
		TEST(test_G39_flood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
