/* The FUSE server, request by request, on a folder in /tmp: what Linux's driver relies on, and what a hostile one tries [G39].
 *
 * All is done twice: by the server's threads, and with leave to answer at once (test_fuse_quick.c is about that alone).
 *
 * Beside the shared folder lies another one, "outside", which every escape would reach; at the end of each test it must be as
 * it was.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuseclient.h"
#include "fusefolder.h"

#define ROOT FUSE_ROOT_ID

static struct fuseclient c;
static bool at_once;

static void serve(const struct fuse_conf *more)
{
	struct fuse_conf conf = more ? *more : (struct fuse_conf){ .read_only = false };
	struct err err = { 0 };
	struct fs *fs;

	conf.tag = "test";
	conf.path = host("share");
	if (fuse_open(&conf, &fs, &err))
		fail_msg("%s", err.msg);
	fuseclient_init(&c, fs);
	c.at_once = at_once;
	assert_int_equal(fuseclient_start(&c, ~0u, NULL), 0);
}

static int up(void **state)
{
	make_folders();
	serve(NULL);
	return 0;
}

static int down(void **state)
{
	fuseclient_fini(&c);
	return remove_folders();
}

/* ---- shorthand ---- */

static struct fuse_entry_out entry;

static int named(u32 opcode, u64 dir, const void *fixed, size_t len, const char *name)
{
	int rc = fuseclient_ask(&c, opcode, dir, fixed, len, name, strlen(name) + 1);

	memcpy(&entry, fuseclient_answer(&c.r), sizeof(entry));
	return rc;
}

/* Its node; 0: it is not there. */
static u64 lookup(u64 dir, const char *name)
{
	assert_int_equal(named(FUSE_LOOKUP, dir, NULL, 0, name), 0);
	return entry.nodeid;
}

static u64 make(u64 dir, const char *name, u32 mode)
{
	if (S_ISDIR(mode))
		assert_int_equal(named(FUSE_MKDIR, dir, &(struct fuse_mkdir_in){ .mode = mode & 07777 }, 8,
				       name),
				 0);
	else
		assert_int_equal(named(FUSE_MKNOD, dir, &(struct fuse_mknod_in){ .mode = mode }, 16, name),
				 0);
	assert_true(entry.nodeid);
	return entry.nodeid;
}

static u64 handle;

static int open_as(u32 opcode, u64 node, u32 flags)
{
	const struct fuse_open_in in = { .flags = flags };
	int rc = fuseclient_ask(&c, opcode, node, &in, sizeof(in), NULL, 0);

	if (!rc)
		handle = ((struct fuse_open_out *)fuseclient_answer(&c.r))->fh;
	return rc;
}

static int write_at(u64 node, u64 fh, u64 offset, u32 flags, const char *text)
{
	const struct fuse_write_in in = {
		.fh = fh, .offset = offset, .size = (u32)strlen(text), .flags = flags
	};
	int rc = fuseclient_ask(&c, FUSE_WRITE, node, &in, sizeof(in), text, in.size);

	if (!rc)
		assert_int_equal(((struct fuse_write_out *)fuseclient_answer(&c.r))->size, in.size);
	return rc;
}

static int read_at(u64 node, u64 fh, u64 offset, u32 size)
{
	const struct fuse_read_in in = { .fh = fh, .offset = offset, .size = size };

	return fuseclient_ask(&c, FUSE_READ, node, &in, sizeof(in), NULL, 0);
}

static void reads(u64 node, u64 fh, u64 offset, const char *text)
{
	assert_int_equal(read_at(node, fh, offset, 100), 0);
	assert_int_equal(fuseclient_answer_len(&c.r), strlen(text));
	assert_memory_equal(fuseclient_answer(&c.r), text, strlen(text));
}

static int release(u32 opcode, u64 node, u64 fh)
{
	return fuseclient_ask(&c, opcode, node, &(struct fuse_release_in){ .fh = fh }, 24, NULL, 0);
}

static struct fuse_attr attr(u64 node)
{
	assert_int_equal(fuseclient_ask(&c, FUSE_GETATTR, node, &(struct fuse_getattr_in){ 0 }, 16, NULL, 0),
			 0);
	return ((struct fuse_attr_out *)fuseclient_answer(&c.r))->attr;
}

static int setattr(u64 node, const struct fuse_setattr_in *in)
{
	return fuseclient_ask(&c, FUSE_SETATTR, node, in, sizeof(*in), NULL, 0);
}

static void forget(u64 node, u64 n)
{
	assert_int_equal(fuseclient_ask(&c, FUSE_FORGET, node, &(struct fuse_forget_in){ n }, 8, NULL, 0), 1);
}

/* ---- sessions ---- */

static void test_init(void **state)
{
	struct fuse_init_in in = { .major = 7, .minor = 26 };
	struct fuse_init_out out;

	assert_int_equal(fuseclient_start(&c, ~0u, &out), 0);
	assert_int_equal(out.major, 7);
	assert_true(out.minor >= 37);
	assert_int_equal(out.max_write, 1 << 20);
	assert_true(out.flags & FUSE_HANDLE_KILLPRIV_V2 && out.flags & FUSE_SUBMOUNTS);
	assert_false(out.flags &
		     (FUSE_WRITEBACK_CACHE | FUSE_POSIX_ACL | FUSE_DONT_MASK | FUSE_EXPORT_SUPPORT));
	/* Only what was asked for. */
	assert_int_equal(fuseclient_start(&c, FUSE_MAX_PAGES, &out), 0);
	assert_int_equal(out.flags, FUSE_MAX_PAGES);
	/* Without one, nothing. */
	assert_int_equal(fuseclient_ask(&c, FUSE_DESTROY, 0, NULL, 0, NULL, 0), 0);
	assert_int_equal(named(FUSE_LOOKUP, ROOT, NULL, 0, "x"), -EIO);
	assert_int_equal(fuseclient_ask(&c, FUSE_INIT, 0, &in, sizeof(in), NULL, 0), -EPROTO);
	assert_int_equal(named(FUSE_LOOKUP, ROOT, NULL, 0, "x"), -EIO);
	in.major = 8;
	assert_int_equal(fuseclient_ask(&c, FUSE_INIT, 0, &in, sizeof(in), NULL, 0), 0);
	assert_int_equal(((struct fuse_init_out *)fuseclient_answer(&c.r))->major, 7);
	assert_int_equal(named(FUSE_LOOKUP, ROOT, NULL, 0, "x"), -EIO);
	/* An old driver's, which is shorter. */
	in = (struct fuse_init_in){ .major = 7, .minor = 31 };
	assert_int_equal(fuseclient_ask(&c, FUSE_INIT, 0, &in, 16, NULL, 0), 0);
	make(ROOT, "dir", S_IFDIR | 0755);
	u64 dir = entry.nodeid;
	assert_int_equal(open_as(FUSE_OPENDIR, dir, 0), 0);
	/* A new one knows nothing of the old one's. */
	assert_int_equal(fuseclient_start(&c, ~0u, NULL), 0);
	assert_int_equal(release(FUSE_RELEASEDIR, ROOT, handle), -EBADF);
	assert_int_equal(named(FUSE_LOOKUP, dir, NULL, 0, "x"), -ESTALE);
}

static void test_hostile_requests(void **state)
{
	static struct fuseclient_req r;
	u32 opcodes = 64;
	char big[5000];

	/* Nothing, less than a header, no room for an answer, lengths that are none. */
	for (u32 op = 0; op < opcodes; op++) {
		for (u32 len = 0; len < 120; len += 13) {
			if (op == FUSE_INIT || op == FUSE_DESTROY)
				continue;
			memset(big, 0xff, sizeof(big));
			fuseclient_ask(&c, op, ROOT, big, len, NULL, 0);
			memset(big, 0, sizeof(big));
			fuseclient_ask(&c, op, ROOT, big, len, NULL, 0);
			fuseclient_begin(&c, &r, op, ROOT, big, len, NULL, 0, len % 17);
			fuseclient_wait(&c, &r);
			fuseclient_ask(&c, op, ~0ull, big, len, NULL, 0);
			fuseclient_ask(&c, op, 0, big, len, NULL, 0);
		}
	}
	for (u32 len = 0; len < 60; len++) {
		for (unsigned what = 0; what < 3; what++) {
			fuseclient_begin(&c, &r, FUSE_GETATTR, ROOT, big, 16, NULL, 0, 200);
			fuseclient_wait(&c, &r);
			if (what == 0)
				r.iov[0].iov_len = r.req.out_len = len;
			else
				memcpy(r.out, what == 1 ? &(u32){ len } : &(u32){ ~0u - len }, 4);
			if (!r.req.out_len)
				r.req.nr_out = 0;
			r.done = false;
			pthread_mutex_lock(&c.lock);
			c.fs->ops->submit(c.fs, &r.req);
			pthread_mutex_unlock(&c.lock);
			if (fuseclient_wait(&c, &r) == 0)
				assert_true(what < 2 && len >= 56);
		}
	}
	/* Names without an end, empty, too long, of two components. */
	memset(big, 'n', sizeof(big));
	assert_int_equal(fuseclient_ask(&c, FUSE_LOOKUP, ROOT, big, 10, NULL, 0), -EINVAL);
	big[300] = 0;
	assert_int_equal(fuseclient_ask(&c, FUSE_LOOKUP, ROOT, big, 301, NULL, 0), -ENAMETOOLONG);
	static const char *const bad[] = { "", ".", "..", "a/b", "/", "../outside", "/etc/passwd", "dir/" };
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(named(FUSE_LOOKUP, ROOT, NULL, 0, bad[i]), -EINVAL);
		assert_int_equal(named(FUSE_UNLINK, ROOT, NULL, 0, bad[i]), -EINVAL);
		assert_int_equal(named(FUSE_RMDIR, ROOT, NULL, 0, bad[i]), -EINVAL);
		assert_int_equal(named(FUSE_MKDIR, ROOT, &(struct fuse_mkdir_in){ 0755, 0 }, 8, bad[i]),
				 -EINVAL);
		assert_int_equal(named(FUSE_CREATE, ROOT, &(struct fuse_create_in){ O_RDWR, 0644, 0, 0 }, 16,
				       bad[i]),
				 -EINVAL);
		assert_int_equal(named(FUSE_MKNOD, ROOT, &(struct fuse_mknod_in){ S_IFREG, 0, 0, 0 }, 16,
				       bad[i]),
				 -EINVAL);
		assert_int_equal(named(FUSE_LINK, ROOT, &(struct fuse_link_in){ ROOT }, 8, bad[i]), -EINVAL);
		memset(big, 0, 16);
		big[8] = 'a';
		strcpy(big + 10, bad[i]);
		*(u64 *)big = ROOT;
		assert_int_equal(fuseclient_ask(&c, FUSE_RENAME, ROOT, big, 11 + strlen(bad[i]), NULL, 0),
				 -EINVAL);
		assert_int_equal(fuseclient_ask(&c, FUSE_SYMLINK, ROOT, bad[i], strlen(bad[i]) + 1, "x", 2),
				 -EINVAL);
	}
	/* A batch of more than there is. */
	const struct {
		u32 count, dummy;
		u64 node, n;
	} batch = { ~0u, 0, ROOT, ~0ull };
	assert_int_equal(fuseclient_ask(&c, FUSE_BATCH_FORGET, 0, &batch, sizeof(batch), NULL, 0), 1);
	assert_int_equal(attr(ROOT).mode & S_IFMT, S_IFDIR);
	/* A write of more than it brings. */
	u64 n = make(ROOT, "file", S_IFREG | 0644);
	assert_int_equal(open_as(FUSE_OPEN, n, O_RDWR), 0);
	const struct fuse_write_in in = { .fh = handle, .size = 100 };
	assert_int_equal(fuseclient_ask(&c, FUSE_WRITE, n, &in, sizeof(in), "short", 5), -EINVAL);
	/* Answers that do not fit. */
	fuseclient_begin(&c, &r, FUSE_GETATTR, n, big, 16, NULL, 0, 50);
	assert_int_equal(fuseclient_wait(&c, &r), -EINVAL);
	/* Nothing was lost. */
	assert_int_equal(write_at(n, handle, 0, 0, "text"), 0);
	has("share/file", "text");
}

/* ---- names ---- */

static void test_lookup(void **state)
{
	u64 a, b;

	put("share/a", "1");
	a = lookup(ROOT, "a");
	assert_true(a);
	assert_int_equal(entry.attr.mode, S_IFREG | (entry.attr.mode & 07777));
	assert_int_equal(entry.attr.size, 1);
	assert_int_equal(lookup(ROOT, "a"), a);
	/* A hard link is the same file. */
	assert_int_equal(link(host("share/a"), host("share/b")), 0);
	assert_int_equal(lookup(ROOT, "b"), a);
	assert_int_equal(entry.attr.nlink, 2);
	assert_int_equal(lookup(ROOT, "missing"), 0);
	assert_true(entry.entry_valid);
	assert_int_equal(named(FUSE_LOOKUP, a, NULL, 0, "x"), -ENOTDIR);
	/* Three references. */
	forget(a, 2);
	assert_int_equal(attr(a).size, 1);
	forget(a, 1);
	assert_int_equal(fuseclient_ask(&c, FUSE_GETATTR, a, &(struct fuse_getattr_in){ 0 }, 16, NULL, 0),
			 -ESTALE);
	/* More than there are, of who is there and who is not. */
	b = lookup(ROOT, "b");
	forget(b, ~0ull);
	forget(b, ~0ull);
	forget(12345, 1);
	forget(ROOT, ~0ull);
	assert_true(lookup(ROOT, "b"));
	/* A file that is replaced is another one; who has the old one keeps it. */
	b = lookup(ROOT, "b");
	unlink(host("share/b"));
	unlink(host("share/a"));
	put("share/b", "new one");
	assert_true(lookup(ROOT, "b") != b);
	assert_int_equal(attr(b).size, 1);
	assert_int_equal(attr(b).nlink, 0);
}

static void test_make(void **state)
{
	char target[100];
	u64 d = make(ROOT, "d", S_IFDIR | 01777), n;
	struct stat st;

	stat(host("share/d"), &st);
	assert_int_equal(st.st_mode, S_IFDIR | 01777);
	assert_int_equal(named(FUSE_MKDIR, ROOT, &(struct fuse_mkdir_in){ 0755, 0 }, 8, "d"), -EEXIST);
	n = make(d, "f", S_IFREG | 0666);
	assert_int_equal(entry.attr.mode, S_IFREG | 0666); /* the guest's umask has been applied */
	make(d, "p", S_IFIFO | 0600);
	make(d, "s", S_IFSOCK | 0600);
	/* No doors to devices; a whiteout is none. */
	assert_int_equal(named(FUSE_MKNOD, d, &(struct fuse_mknod_in){ S_IFBLK | 0666, 0x800, 0, 0 }, 16,
			       "x"),
			 -EPERM);
	assert_int_equal(named(FUSE_MKNOD, d, &(struct fuse_mknod_in){ S_IFCHR | 0666, 0x103, 0, 0 }, 16,
			       "x"),
			 -EPERM);
	assert_int_equal(named(FUSE_MKNOD, d, &(struct fuse_mknod_in){ S_IFDIR | 0666, 0, 0, 0 }, 16, "x"),
			 -EPERM);
	assert_int_equal(lookup(d, "x"), 0);
	/* Links of both kinds. */
	assert_int_equal(named(FUSE_LINK, ROOT, &(struct fuse_link_in){ n }, 8, "hard"), 0);
	assert_int_equal(entry.nodeid, n);
	assert_int_equal(entry.attr.nlink, 2);
	assert_int_equal(named(FUSE_LINK, ROOT, &(struct fuse_link_in){ 999 }, 8, "none"), -ESTALE);
	assert_int_equal(fuseclient_ask(&c, FUSE_SYMLINK, ROOT, "soft", 5, "../outside/secret", 18), 0);
	n = lookup(ROOT, "soft");
	assert_int_equal(entry.attr.mode & S_IFMT, S_IFLNK);
	assert_int_equal(fuseclient_ask(&c, FUSE_READLINK, n, NULL, 0, NULL, 0), 0);
	assert_int_equal(fuseclient_answer_len(&c.r), 17);
	assert_memory_equal(fuseclient_answer(&c.r), "../outside/secret", 17);
	assert_int_equal(fuseclient_ask(&c, FUSE_READLINK, d, NULL, 0, NULL, 0), -EINVAL);
	/* A second name of a symbolic link. */
	assert_int_equal(named(FUSE_LINK, ROOT, &(struct fuse_link_in){ n }, 8, "soft2"), 0);
	assert_int_equal(readlink(host("share/soft2"), target, sizeof(target)), 17);
	/* Removing. */
	assert_int_equal(named(FUSE_UNLINK, ROOT, NULL, 0, "d"), -EISDIR);
	assert_int_equal(named(FUSE_RMDIR, ROOT, NULL, 0, "d"), -ENOTEMPTY);
	assert_int_equal(named(FUSE_RMDIR, ROOT, NULL, 0, "soft"), -ENOTDIR);
	assert_int_equal(named(FUSE_UNLINK, ROOT, NULL, 0, "soft"), 0);
	assert_int_equal(named(FUSE_UNLINK, ROOT, NULL, 0, "soft"), -ENOENT);
}

static int rename2(u64 from, const char *name, u64 to, const char *new_name, u32 flags)
{
	const struct fuse_rename2_in in = { .newdir = to, .flags = flags };
	char names[100];
	size_t len = strlen(name) + 1;

	strcpy(names, name);
	strcpy(names + len, new_name);
	return fuseclient_ask(&c, FUSE_RENAME2, from, &in, sizeof(in), names, len + strlen(new_name) + 1);
}

static void test_rename(void **state)
{
	u64 d = make(ROOT, "d", S_IFDIR | 0755), f = make(ROOT, "f", S_IFREG | 0644), g;

	assert_int_equal(rename2(ROOT, "f", d, "moved", 0), 0);
	assert_int_equal(lookup(d, "moved"), f);
	g = make(d, "g", S_IFREG | 0644);
	assert_int_equal(rename2(d, "g", d, "moved", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(rename2(d, "g", d, "moved", RENAME_EXCHANGE), 0);
	assert_int_equal(lookup(d, "g"), f);
	assert_int_equal(lookup(d, "moved"), g);
	assert_int_equal(rename2(d, "g", d, "moved", 0), 0);
	assert_int_equal(lookup(d, "moved"), f);
	assert_int_equal(attr(g).nlink, 0);
	assert_int_equal(rename2(d, "moved", 77, "x", 0), -ESTALE);
	assert_int_equal(rename2(d, "moved", d, "x", 0x80), -EINVAL);
	assert_int_equal(rename2(ROOT, "d", d, "x", 0), -EINVAL); /* into itself */
}

/* ---- contents ---- */

static void test_files(void **state)
{
	u64 n = make(ROOT, "f", S_IFREG | 0644), big = 5ull << 30, a, b;

	assert_int_equal(open_as(FUSE_OPEN, n, O_RDWR), 0);
	a = handle;
	assert_int_equal(write_at(n, a, 0, 0, "0123456789"), 0);
	reads(n, a, 0, "0123456789");
	reads(n, a, 4, "456789");
	reads(n, a, 100, "");
	/* Beyond 4 GiB. */
	assert_int_equal(write_at(n, a, big, 0, "far"), 0);
	reads(n, a, big, "far");
	assert_int_equal(attr(n).size, big + 3);
	assert_int_equal(fuseclient_ask(&c, FUSE_LSEEK, n,
					&(struct fuse_lseek_in){ a, 1 << 20, SEEK_DATA, 0 }, 24, NULL, 0),
			 0);
	assert_true(((struct fuse_lseek_out *)fuseclient_answer(&c.r))->offset <= big);
	assert_int_equal(fuseclient_ask(&c, FUSE_LSEEK, n, &(struct fuse_lseek_in){ a, 0, SEEK_CUR, 0 }, 24,
					NULL, 0),
			 -EINVAL);
	assert_int_equal(setattr(n, &(struct fuse_setattr_in){ .valid = FATTR_SIZE, .size = 10 }), 0);
	/* To append means the end that the host knows. */
	put("share/f", "host");
	assert_int_equal(write_at(n, a, 0, O_APPEND, "+guest"), 0);
	has("share/f", "host+guest");
	/* What the cache writes has its place. */
	struct fuse_write_in in = { .fh = a, .size = 4, .flags = O_APPEND, .write_flags = FUSE_WRITE_CACHE };
	assert_int_equal(fuseclient_ask(&c, FUSE_WRITE, n, &in, sizeof(in), "HOST", 4), 0);
	has("share/f", "HOST+guest");
	/* Deleted, and still open. */
	assert_int_equal(named(FUSE_UNLINK, ROOT, NULL, 0, "f"), 0);
	forget(n, 1000);
	reads(n, a, 0, "HOST+guest");
	assert_int_equal(write_at(n, a, 0, 0, "h"), 0);
	assert_int_equal(release(FUSE_RELEASE, n, a), 0);
	assert_int_equal(release(FUSE_RELEASE, n, a), -ESTALE);
	assert_int_equal(read_at(n, a, 0, 10), -ESTALE);
	/* Access as asked for. */
	n = make(ROOT, "g", S_IFREG | 0644);
	assert_int_equal(open_as(FUSE_OPEN, n, O_RDONLY), 0);
	assert_int_equal(write_at(n, handle, 0, 0, "x"), -EBADF);
	assert_int_equal(open_as(FUSE_OPEN, n, O_WRONLY | O_TRUNC), 0);
	assert_int_equal(read_at(n, handle, 0, 10), -EBADF);
	assert_int_equal(open_as(FUSE_OPEN, n, O_ACCMODE), -EINVAL);
	assert_int_equal(fuseclient_ask(&c, FUSE_FSYNC, n, &(struct fuse_fsync_in){ handle, 1, 0 }, 16, NULL,
					0),
			 0);
	assert_int_equal(fuseclient_ask(&c, FUSE_FSYNC, n, &(struct fuse_fsync_in){ 99, 1, 0 }, 16, NULL, 0),
			 -EBADF);
	assert_int_equal(fuseclient_ask(&c, FUSE_FALLOCATE, n,
					&(struct fuse_fallocate_in){ handle, 0, 4096, 0, 0 }, 32, NULL, 0),
			 0);
	assert_int_equal(attr(n).size, 4096);
	assert_int_equal(fuseclient_ask(&c, FUSE_FALLOCATE, n,
					&(struct fuse_fallocate_in){ handle, 0, 4096, 0x40, 0 }, 32, NULL, 0),
			 -EOPNOTSUPP);
	/* Copies on the host. */
	put("share/from", "contents");
	a = lookup(ROOT, "from");
	assert_int_equal(open_as(FUSE_OPEN, a, O_RDONLY), 0);
	b = handle;
	assert_int_equal(open_as(FUSE_OPEN, n, O_RDWR | O_TRUNC), 0);
	const struct fuse_copy_file_range_in copy = {
		.fh_in = b, .nodeid_out = n, .fh_out = handle, .len = ~0ull >> 1
	};
	assert_int_equal(fuseclient_ask(&c, FUSE_COPY_FILE_RANGE, a, &copy, sizeof(copy), NULL, 0), 0);
	assert_int_equal(((struct fuse_write_out *)fuseclient_answer(&c.r))->size, 8);
	has("share/g", "contents");
}

static void test_create(void **state)
{
	struct fuse_create_in in = { .flags = O_RDWR | O_EXCL, .mode = S_IFREG | 0640 };
	const struct fuse_open_out *open;
	u64 n;

	assert_int_equal(named(FUSE_CREATE, ROOT, &in, sizeof(in), "new"), 0);
	n = entry.nodeid;
	assert_int_equal(entry.attr.mode, S_IFREG | 0640);
	open = (const struct fuse_open_out *)((u8 *)fuseclient_answer(&c.r) + sizeof(entry));
	assert_int_equal(write_at(n, open->fh, 0, 0, "made"), 0);
	has("share/new", "made");
	assert_int_equal(named(FUSE_CREATE, ROOT, &in, sizeof(in), "new"), -EEXIST);
	in.flags = O_RDWR | O_TRUNC;
	assert_int_equal(named(FUSE_CREATE, ROOT, &in, sizeof(in), "new"), 0);
	assert_int_equal(entry.nodeid, n);
	has("share/new", "");
	/* What is there is no file: links are not followed, pipes not waited for. */
	in.flags = O_RDWR;
	assert_int_equal(symlink("../outside/secret", host("share/link")), 0);
	assert_int_equal(symlink("../outside/none", host("share/dangling")), 0);
	assert_int_equal(mkfifo(host("share/pipe"), 0666), 0);
	assert_int_equal(named(FUSE_CREATE, ROOT, &in, sizeof(in), "link"), -ENXIO);
	assert_int_equal(named(FUSE_CREATE, ROOT, &in, sizeof(in), "dangling"), -ENXIO);
	assert_int_equal(named(FUSE_CREATE, ROOT, &in, sizeof(in), "pipe"), -ENXIO);
	static const char *const others[] = { "link", "dangling", "pipe" };
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
		n = lookup(ROOT, others[i]);
		assert_int_equal(open_as(FUSE_OPEN, n, O_RDWR), -ENXIO);
		assert_int_equal(open_as(FUSE_OPENDIR, n, 0), -ENOTDIR);
		assert_int_equal(named(FUSE_LOOKUP, n, NULL, 0, "secret"), -ENOTDIR);
		assert_int_equal(setattr(n, &(struct fuse_setattr_in){ .valid = FATTR_SIZE }), -EINVAL);
	}
	/* Nor are the attributes of what a link leads to changed. */
	n = lookup(ROOT, "link");
	assert_int_equal(setattr(n, &(struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = 0 }),
			 -EOPNOTSUPP);
	assert_int_equal(setattr(n, &(struct fuse_setattr_in){ .valid = FATTR_MTIME, .mtime = 1 }), 0);
	assert_int_equal(attr(n).mtime, 1);
	struct stat st;
	stat(host("outside/secret"), &st);
	assert_true(st.st_mtime > 1);
	/* A file without a name, which gets one. */
	in = (struct fuse_create_in){ .flags = O_RDWR, .mode = S_IFREG | 0600 };
	int rc = fuseclient_ask(&c, FUSE_TMPFILE, ROOT, &in, sizeof(in), NULL, 0);
	if (rc != -EOPNOTSUPP) {
		assert_int_equal(rc, 0);
		memcpy(&entry, fuseclient_answer(&c.r), sizeof(entry));
		assert_int_equal(entry.attr.nlink, 0);
		assert_int_equal(named(FUSE_LINK, ROOT, &(struct fuse_link_in){ entry.nodeid }, 8, "named"),
				 0);
		assert_int_equal(entry.attr.nlink, 1);
	}
}

/* Handles are of the kind that they are. */
static void test_wrong_handles(void **state)
{
	u64 d = make(ROOT, "d", S_IFDIR | 0755), f = make(ROOT, "f", S_IFREG | 0644), dir, file;

	assert_int_equal(open_as(FUSE_OPENDIR, d, 0), 0);
	dir = handle;
	assert_int_equal(open_as(FUSE_OPEN, f, O_RDWR), 0);
	file = handle;
	assert_int_equal(open_as(FUSE_OPEN, d, O_RDONLY), -EISDIR);
	assert_int_equal(read_at(f, dir, 0, 10), -EBADF);
	assert_int_equal(read_at(f, 0, 0, 10), -EBADF);
	assert_int_equal(read_at(f, ~0ull, 0, 10), -EBADF);
	assert_int_equal(write_at(f, dir, 0, 0, "x"), -EBADF);
	assert_int_equal(fuseclient_ask(&c, FUSE_READDIR, d,
					&(struct fuse_read_in){ .fh = file, .size = 4096 }, 40, NULL, 0),
			 -EBADF);
	assert_int_equal(fuseclient_ask(&c, FUSE_READDIR, ROOT,
					&(struct fuse_read_in){ .fh = dir, .size = 4096 }, 40, NULL, 0),
			 -EBADF);
	assert_int_equal(release(FUSE_RELEASE, f, dir), -EBADF);
	assert_int_equal(release(FUSE_RELEASEDIR, f, file), -EBADF);
	assert_int_equal(setattr(d, &(struct fuse_setattr_in){ .valid = FATTR_SIZE | FATTR_FH, .fh = file }),
			 -EISDIR);
	assert_int_equal(release(FUSE_RELEASE, f, file), 0);
	assert_int_equal(release(FUSE_RELEASEDIR, d, dir), 0);
}

/* ---- attributes ---- */

static void test_attributes(void **state)
{
	u64 n = make(ROOT, "f", S_IFREG | 0644);
	struct fuse_setattr_in in = { .valid = FATTR_MODE, .mode = S_IFREG | 04711 };
	struct fuse_attr a;

	assert_int_equal(setattr(n, &in), 0);
	assert_int_equal(attr(n).mode, S_IFREG | 04711);
	in = (struct fuse_setattr_in){
		.valid = FATTR_ATIME | FATTR_MTIME, .atime = 5, .atimensec = 6, .mtime = 7, .mtimensec = 8
	};
	assert_int_equal(setattr(n, &in), 0);
	a = attr(n);
	assert_true(a.atime == 5 && a.atimensec == 6 && a.mtime == 7 && a.mtimensec == 8);
	in = (struct fuse_setattr_in){ .valid = FATTR_MTIME | FATTR_MTIME_NOW };
	assert_int_equal(setattr(n, &in), 0);
	a = attr(n);
	assert_true(a.atime == 5 && a.mtime > 1000000);
	in = (struct fuse_setattr_in){ .valid = FATTR_MTIME, .mtimensec = UTIME_NOW };
	assert_int_equal(setattr(n, &in), -EINVAL);
	in = (struct fuse_setattr_in){ .valid = FATTR_SIZE, .size = 12345 };
	assert_int_equal(setattr(n, &in), 0);
	assert_int_equal(attr(n).size, 12345);
	in.size = ~0ull;
	assert_int_equal(setattr(n, &in), -EINVAL);
	in = (struct fuse_setattr_in){ .valid = FATTR_SIZE };
	assert_int_equal(setattr(ROOT, &in), -EISDIR);
	assert_int_equal(fuseclient_ask(&c, FUSE_STATFS, n, NULL, 0, NULL, 0), 0);
	assert_int_equal(((struct fuse_statfs_out *)fuseclient_answer(&c.r))->st.namelen, 255);
	assert_int_equal(fuseclient_ask(&c, FUSE_ACCESS, n, &(struct fuse_access_in){ R_OK, 0 }, 8, NULL, 0),
			 0);
	assert_int_equal(fuseclient_ask(&c, FUSE_ACCESS, n, &(struct fuse_access_in){ 0x40, 0 }, 8, NULL, 0),
			 -EINVAL);
	assert_int_equal(fuseclient_ask(&c, FUSE_SYNCFS, ROOT, &(struct fuse_syncfs_in){ 0 }, 8, NULL, 0), 0);
	/* STATX */
	assert_int_equal(fuseclient_ask(&c, 52, n, (u8[24]){ 0 }, 24, NULL, 0), 0);
	assert_int_equal(fuseclient_answer_len(&c.r), 288);
	u64 got[3];
	memcpy(got, (u8 *)fuseclient_answer(&c.r) + 64, sizeof(got)); /* number, size, blocks */
	assert_true(got[0] == a.ino && got[1] == 12345);
}

/* Writers who may not keep set-user-ID bits say so. */
static void test_killpriv(void **state)
{
	u64 n = make(ROOT, "f", S_IFREG | 0777);
	struct fuse_setattr_in suid = { .valid = FATTR_MODE, .mode = S_IFREG | 06777 };
	struct fuse_setattr_in size = { .valid = FATTR_SIZE, .size = 3 };
	struct fuse_write_in in = { .size = 1 };

	if (geteuid())
		skip();
	assert_int_equal(setattr(n, &suid), 0);
	assert_int_equal(open_as(FUSE_OPEN, n, O_RDWR), 0);
	in.fh = handle;
	assert_int_equal(fuseclient_ask(&c, FUSE_WRITE, n, &in, sizeof(in), "x", 1), 0);
	assert_int_equal(attr(n).mode, S_IFREG | 06777);
	in.write_flags = FUSE_WRITE_KILL_SUIDGID;
	assert_int_equal(fuseclient_ask(&c, FUSE_WRITE, n, &in, sizeof(in), "x", 1), 0);
	assert_int_equal(attr(n).mode, S_IFREG | 0777);
	assert_int_equal(setattr(n, &suid), 0);
	assert_int_equal(setattr(n, &size), 0);
	assert_int_equal(attr(n).mode, S_IFREG | 06777);
	size.valid |= FATTR_KILL_SUIDGID;
	size.size = 5;
	assert_int_equal(setattr(n, &size), 0);
	assert_int_equal(attr(n).mode, S_IFREG | 0777);
	assert_int_equal(setattr(n, &suid), 0);
	const struct fuse_open_in open = { O_RDWR | O_TRUNC, FUSE_OPEN_KILL_SUIDGID };
	assert_int_equal(fuseclient_ask(&c, FUSE_OPEN, n, &open, sizeof(open), NULL, 0), 0);
	assert_int_equal(attr(n).mode, S_IFREG | 0777);
}

static int xattr_set(u64 n, const char *name, const void *value, u32 size, u32 flags)
{
	u8 buf[200];
	size_t len = strlen(name) + 1;

	memcpy(buf, name, len);
	memcpy(buf + len, value, size);
	return fuseclient_ask(&c, FUSE_SETXATTR, n, (u32[2]){ size, flags }, 8, buf, len + size);
}

static int xattr_get(u64 n, const char *name, u32 size)
{
	return named(FUSE_GETXATTR, n, &(struct fuse_getxattr_in){ size, 0 }, 8, name);
}

static void test_xattrs(void **state)
{
	u64 n = make(ROOT, "f", S_IFREG | 0644);

	if (setxattr(host("share"), "user.test", "x", 1, 0) < 0)
		skip();
	assert_int_equal(xattr_set(n, "user.a", "value", 5, 0), 0);
	assert_int_equal(xattr_set(n, "user.a", "other", 5, XATTR_CREATE), -EEXIST);
	assert_int_equal(xattr_set(n, "user.b", "other", 5, XATTR_REPLACE), -ENODATA);
	assert_int_equal(xattr_get(n, "user.a", 0), 0);
	assert_int_equal(((struct fuse_getxattr_out *)fuseclient_answer(&c.r))->size, 5);
	assert_int_equal(xattr_get(n, "user.a", 3), -ERANGE);
	assert_int_equal(xattr_get(n, "user.a", 100), 0);
	assert_int_equal(fuseclient_answer_len(&c.r), 5);
	assert_memory_equal(fuseclient_answer(&c.r), "value", 5);
	assert_int_equal(xattr_get(n, "user.none", 100), -ENODATA);
	/* The host's own. */
	assert_int_equal(xattr_set(n, "system.posix_acl_access", "value", 5, 0), -EOPNOTSUPP);
	assert_int_equal(xattr_set(n, "security.selinux", "value", 5, 0), -EOPNOTSUPP);
	assert_int_equal(named(FUSE_REMOVEXATTR, n, NULL, 0, "security.selinux"), -EOPNOTSUPP);
	assert_int_equal(xattr_set(n, "user.c", "2", 1, 0), 0);
	assert_int_equal(fuseclient_ask(&c, FUSE_LISTXATTR, n, &(struct fuse_getxattr_in){ 0, 0 }, 8, NULL,
					0),
			 0);
	assert_int_equal(((struct fuse_getxattr_out *)fuseclient_answer(&c.r))->size, 14);
	assert_int_equal(fuseclient_ask(&c, FUSE_LISTXATTR, n, &(struct fuse_getxattr_in){ 13, 0 }, 8, NULL,
					0),
			 -ERANGE);
	assert_int_equal(fuseclient_ask(&c, FUSE_LISTXATTR, n, &(struct fuse_getxattr_in){ 99, 0 }, 8, NULL,
					0),
			 0);
	assert_int_equal(fuseclient_answer_len(&c.r), 14);
	assert_int_equal(named(FUSE_REMOVEXATTR, n, NULL, 0, "user.c"), 0);
	assert_int_equal(xattr_get(n, "user.c", 100), -ENODATA);
	/* A size of more than it brings. */
	assert_int_equal(fuseclient_ask(&c, FUSE_SETXATTR, n, (u32[2]){ 1000, 0 }, 8, "user.x\0v", 8),
			 -EINVAL);
}

/* ---- folders ---- */

/* All names by readdir or readdirplus in steps of that size; how many, each once. */
static unsigned list(u64 dir, u64 fh, u32 size, bool plus, unsigned nr)
{
	static unsigned char seen[2000];
	u64 at = 0;
	unsigned n = 0;

	memset(seen, 0, sizeof(seen));
	for (;;) {
		const struct fuse_read_in in = { .fh = fh, .offset = at, .size = size };
		u32 len;

		assert_int_equal(fuseclient_ask(&c, plus ? FUSE_READDIRPLUS : FUSE_READDIR, dir, &in,
						sizeof(in), NULL, 0),
				 0);
		len = fuseclient_answer_len(&c.r);
		assert_true(len <= size);
		if (!len)
			return n;
		for (u32 i = 0; i < len;) {
			const u8 *p = (u8 *)fuseclient_answer(&c.r) + i;
			const struct fuse_direntplus *dp = (const void *)p;
			const struct fuse_dirent *d = plus ? &dp->dirent : (const void *)p;
			unsigned which;
			char name[64];

			assert_true(d->namelen < sizeof(name));
			memcpy(name, d->name, d->namelen);
			name[d->namelen] = 0;
			if (sscanf(name, "name-%u", &which) == 1) {
				assert_true(which < nr && !seen[which]);
				seen[which] = 1;
				n++;
				if (plus) {
					assert_true(dp->entry_out.nodeid);
					assert_int_equal(dp->entry_out.attr.ino, d->ino);
				}
				assert_int_equal(d->type, DT_REG);
			}
			at = d->off;
			i += plus ? (u32)FUSE_DIRENTPLUS_SIZE(dp) : (u32)FUSE_DIRENT_SIZE(d);
		}
	}
}

static void test_readdir(void **state)
{
	static const u32 sizes[] = { 200, 1000, 4096, 100000 };
	const unsigned nr = 1500;
	u64 d = make(ROOT, "d", S_IFDIR | 0755);
	char name[32];

	for (unsigned i = 0; i < nr; i++) {
		snprintf(name, sizeof(name), "share/d/name-%u", i);
		put(name, "");
	}
	assert_int_equal(open_as(FUSE_OPENDIR, d, 0), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(list(d, handle, sizes[i], false, nr), nr);
		assert_int_equal(list(d, handle, sizes[i], true, nr), nr);
	}
	/* Too small for one name. */
	struct fuse_read_in in = { .fh = handle, .size = 20 };
	assert_int_equal(fuseclient_ask(&c, FUSE_READDIR, d, &in, sizeof(in), NULL, 0), -EINVAL);
	in.size = ~0u;
	in.offset = ~0ull;
	fuseclient_ask(&c, FUSE_READDIR, d, &in, sizeof(in), NULL, 0);
	assert_int_equal(list(d, handle, 4096, true, nr), nr);
	assert_int_equal(fuseclient_ask(&c, FUSE_FSYNCDIR, d, &(struct fuse_fsync_in){ handle, 0, 0 }, 16,
					NULL, 0),
			 0);
	/* What the shared folder lies in is not told. */
	assert_int_equal(open_as(FUSE_OPENDIR, ROOT, 0), 0);
	in = (struct fuse_read_in){ .fh = handle, .size = 4096 };
	assert_int_equal(fuseclient_ask(&c, FUSE_READDIR, ROOT, &in, sizeof(in), NULL, 0), 0);
	for (u32 i = 0; i < fuseclient_answer_len(&c.r);) {
		const struct fuse_dirent *e = (const void *)((u8 *)fuseclient_answer(&c.r) + i);

		if (e->name[0] == '.') {
			struct stat st;

			stat(host("share"), &st);
			assert_int_equal(e->ino, st.st_ino);
		}
		i += (u32)FUSE_DIRENT_SIZE(e);
	}
}

/* ---- locks ---- */

static struct fuse_lk_in lk(u64 fh, u64 owner, u32 type, u64 start, u64 end, u32 flags)
{
	return (struct fuse_lk_in){
		.fh = fh, .owner = owner, .lk = { start, end, type, 1 }, .lk_flags = flags
	};
}

static int set_lock(u64 n, const struct fuse_lk_in in)
{
	return fuseclient_ask(&c, FUSE_SETLK, n, &in, sizeof(in), NULL, 0);
}

static void test_locks(void **state)
{
	static struct fuseclient_req waits, more;
	u64 n = make(ROOT, "f", S_IFREG | 0644), a, b;
	struct fuse_lk_in in;
	struct fuse_lk_out out;
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	int fd = open(host("share/f"), O_RDWR);

	assert_int_equal(open_as(FUSE_OPEN, n, O_RDWR), 0);
	a = handle;
	assert_int_equal(open_as(FUSE_OPEN, n, O_RDWR), 0);
	b = handle;
	/* Between owners. */
	assert_int_equal(set_lock(n, lk(a, 1, F_WRLCK, 0, 99, 0)), 0);
	assert_int_equal(set_lock(n, lk(b, 2, F_WRLCK, 50, 60, 0)), -EAGAIN);
	assert_int_equal(set_lock(n, lk(b, 2, F_WRLCK, 100, INT64_MAX, 0)), 0);
	assert_int_equal(set_lock(n, lk(b, 1, F_RDLCK, 50, 60, 0)), 0);
	in = lk(b, 2, F_WRLCK, 0, 10, 0);
	assert_int_equal(fuseclient_ask(&c, FUSE_GETLK, n, &in, sizeof(in), NULL, 0), 0);
	memcpy(&out, fuseclient_answer(&c.r), sizeof(out));
	assert_int_equal(out.lk.type, F_WRLCK);
	assert_int_equal(out.lk.end, 49);
	in = lk(b, 1, F_WRLCK, 0, 10, 0);
	assert_int_equal(fuseclient_ask(&c, FUSE_GETLK, n, &in, sizeof(in), NULL, 0), 0);
	memcpy(&out, fuseclient_answer(&c.r), sizeof(out));
	assert_int_equal(out.lk.type, F_UNLCK);
	/* And with the host. */
	assert_int_equal(fcntl(fd, F_SETLK, &fl), -1);
	assert_int_equal(set_lock(n, lk(a, 1, F_UNLCK, 0, 0, 0)), 0);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
	assert_int_equal(set_lock(n, lk(a, 1, F_WRLCK, 0, 0, 0)), -EAGAIN);
	/* Who waits gets it when it is free, keeps no thread meanwhile, and can be interrupted. */
	in = lk(a, 1, F_WRLCK, 0, 0, 0);
	fuseclient_begin(&c, &waits, FUSE_SETLKW, n, &in, sizeof(in), NULL, 0, 100);
	for (unsigned i = 0; i < 20; i++)
		attr(n);
	assert_false(fuseclient_is_done(&c, &waits));
	fl.l_type = F_UNLCK;
	fcntl(fd, F_OFD_SETLK, &fl);
	assert_int_equal(fuseclient_wait(&c, &waits), 0);
	in = lk(b, 2, F_WRLCK, 0, 0, 0);
	fuseclient_begin(&c, &waits, FUSE_SETLKW, n, &in, sizeof(in), NULL, 0, 100);
	u64 unique = c.unique;
	in = lk(b, 3, F_WRLCK, 0, 0, 0);
	fuseclient_begin(&c, &more, FUSE_SETLKW, n, &in, sizeof(in), NULL, 0, 100);
	usleep(20000);
	assert_int_equal(fuseclient_ask(&c, FUSE_INTERRUPT, 0, &unique, 8, NULL, 0), 1);
	assert_int_equal(fuseclient_wait(&c, &waits), -EINTR);
	assert_false(fuseclient_is_done(&c, &more));
	/* A program that closes the file gives up its locks. */
	assert_int_equal(fuseclient_ask(&c, FUSE_FLUSH, n,
					&(struct fuse_flush_in){ .fh = a, .lock_owner = 1 }, 24, NULL, 0),
			 0);
	assert_int_equal(fuseclient_wait(&c, &more), 0);
	assert_int_equal(fuseclient_ask(&c, FUSE_FLUSH, n,
					&(struct fuse_flush_in){ .fh = a, .lock_owner = 3 }, 24, NULL, 0),
			 0);
	/* Impossible ones. */
	assert_int_equal(set_lock(n, lk(a, 1, F_WRLCK, 10, 9, 0)), -EINVAL);
	assert_int_equal(set_lock(n, lk(a, 1, F_WRLCK, 0, ~0ull, 0)), -EINVAL);
	assert_int_equal(set_lock(n, lk(a, 1, 17, 0, 1, 0)), -EINVAL);
	assert_int_equal(set_lock(n, lk(77, 1, F_WRLCK, 0, 1, 0)), -EBADF);
	/* Of whole files, by handle. */
	assert_int_equal(set_lock(n, lk(a, 1, F_WRLCK, 0, INT64_MAX, FUSE_LK_FLOCK)), 0);
	assert_int_equal(set_lock(n, lk(b, 1, F_RDLCK, 0, INT64_MAX, FUSE_LK_FLOCK)), -EAGAIN);
	assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), -1);
	in = lk(b, 2, F_RDLCK, 0, INT64_MAX, FUSE_LK_FLOCK);
	fuseclient_begin(&c, &waits, FUSE_SETLKW, n, &in, sizeof(in), NULL, 0, 100);
	assert_int_equal(release(FUSE_RELEASE, n, a), 0);
	assert_int_equal(fuseclient_wait(&c, &waits), 0);
	/* The last one that closes it leaves none. */
	assert_int_equal(release(FUSE_RELEASE, n, b), 0);
	fl.l_type = F_WRLCK;
	fl.l_len = 0;
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
	/* Nobody waits when the machine is to stand still. */
	assert_int_equal(open_as(FUSE_OPEN, n, O_RDWR), 0);
	in = lk(handle, 1, F_WRLCK, 0, 0, 0);
	fuseclient_begin(&c, &waits, FUSE_SETLKW, n, &in, sizeof(in), NULL, 0, 100);
	c.fs->ops->drain(c.fs);
	assert_int_equal(fuseclient_wait(&c, &waits), -EINTR);
	close(fd);
}

/* ---- who may do what ---- */

static void test_read_only(void **state)
{
	struct fuse_create_in create = { .flags = O_RDWR, .mode = 0644 };
	u64 n;

	put("share/f", "text");
	fuseclient_fini(&c);
	serve(&(const struct fuse_conf){ .read_only = true });
	n = lookup(ROOT, "f");
	assert_int_equal(open_as(FUSE_OPEN, n, O_RDWR), -EROFS);
	assert_int_equal(open_as(FUSE_OPEN, n, O_RDONLY | O_TRUNC), -EROFS);
	assert_int_equal(open_as(FUSE_OPEN, n, O_RDONLY), 0);
	reads(n, handle, 0, "text");
	assert_int_equal(write_at(n, handle, 0, 0, "x"), -EROFS);
	assert_int_equal(setattr(n, &(struct fuse_setattr_in){ .valid = FATTR_MODE }), -EROFS);
	assert_int_equal(named(FUSE_CREATE, ROOT, &create, sizeof(create), "g"), -EROFS);
	assert_int_equal(named(FUSE_MKDIR, ROOT, &(struct fuse_mkdir_in){ 0755, 0 }, 8, "g"), -EROFS);
	assert_int_equal(named(FUSE_UNLINK, ROOT, NULL, 0, "f"), -EROFS);
	assert_int_equal(named(FUSE_LINK, ROOT, &(struct fuse_link_in){ n }, 8, "g"), -EROFS);
	assert_int_equal(rename2(ROOT, "f", ROOT, "g", 0), -EROFS);
	assert_int_equal(xattr_set(n, "user.a", "v", 1, 0), -EROFS);
	assert_int_equal(fuseclient_ask(&c, FUSE_TMPFILE, ROOT, &create, sizeof(create), NULL, 0), -EROFS);
	assert_int_equal(fuseclient_ask(&c, FUSE_ACCESS, n, &(struct fuse_access_in){ W_OK, 0 }, 8, NULL, 0),
			 -EROFS);
	assert_int_equal(set_lock(n, lk(handle, 1, F_RDLCK, 0, 1, 0)), 0);
	has("share/f", "text");
}

/* What root's server makes is the asking user's. */
static void test_owners(void **state)
{
	struct fuse_create_in in = { .flags = O_RDWR, .mode = S_IFREG | 0644 };

	if (geteuid())
		skip();
	chmod(host("share"), 0700); /* the guest's kernel decides, not the host's */
	c.uid = 1234;
	c.gid = 5678;
	assert_int_equal(named(FUSE_CREATE, ROOT, &in, sizeof(in), "f"), 0);
	assert_true(entry.attr.uid == 1234 && entry.attr.gid == 5678);
	u64 d = make(ROOT, "d", S_IFDIR | 0755);
	assert_true(entry.attr.uid == 1234 && entry.attr.gid == 5678);
	assert_int_equal(fuseclient_ask(&c, FUSE_SYMLINK, ROOT, "l", 2, "x", 2), 0);
	memcpy(&entry, fuseclient_answer(&c.r), sizeof(entry));
	assert_int_equal(entry.attr.uid, 1234);
	c.uid = c.gid = 0;
	/* A folder's group is inherited where the folder says so. */
	assert_int_equal(setattr(d, &(struct fuse_setattr_in){ .valid = FATTR_MODE | FATTR_GID,
							       .mode = 02777,
							       .gid = 77 }),
			 0);
	c.uid = c.gid = 1234;
	make(d, "f", S_IFREG | 0644);
	assert_true(entry.attr.uid == 1234 && entry.attr.gid == 77);
	make(d, "d", S_IFDIR | 0755);
	assert_true(entry.attr.gid == 77 && entry.attr.mode & S_ISGID);
	c.uid = c.gid = 0;
	make(ROOT, "root", S_IFREG | 0644);
	assert_int_equal(entry.attr.uid, 0);
	assert_int_equal(setattr(entry.nodeid, &(struct fuse_setattr_in){ .valid = FATTR_UID, .uid = 42 }),
			 0);
	assert_int_equal(((struct fuse_attr_out *)fuseclient_answer(&c.r))->attr.uid, 42);
	c.uid = ~0u;
	assert_int_equal(named(FUSE_MKDIR, ROOT, &(struct fuse_mkdir_in){ 0755, 0 }, 8, "none"), -EINVAL);
	c.uid = 0;
}

/* In a child, for what changes a process. */
static void in_child(void (*fn)(void))
{
	int status;
	pid_t pid;

	/* Threads do not survive a fork: the server is opened anew. */
	fuseclient_fini(&c);
	pid = fork();
	if (!pid) {
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	serve(NULL);
}

#define MUST(x)                                                         \
	do {                                                            \
		if (!(x)) {                                             \
			fprintf(stderr, "line %d: %s\n", __LINE__, #x); \
			_exit(1);                                       \
		}                                                       \
	} while (0)

/* Who is not root is one user, which the guest sees as the one that the configuration says. */
static void as_user(void)
{
	struct stat st;

	MUST(setgid(4321) == 0 && setuid(4321) == 0);
	serve(&(const struct fuse_conf){ .uid = 1000, .gid = 100 });
	MUST(attr(ROOT).uid == 1000 && attr(ROOT).gid == 100);
	MUST(lookup(ROOT, "others") && entry.attr.uid == 65534 && entry.attr.gid == 65534);
	c.uid = 1;
	MUST(named(FUSE_MKDIR, ROOT, &(struct fuse_mkdir_in){ 0755, 0 }, 8, "d") == 0);
	MUST(entry.attr.uid == 1000 && entry.attr.gid == 100);
	MUST(stat(host("share/d"), &st) == 0 && st.st_uid == 4321);
	MUST(setattr(entry.nodeid, &(struct fuse_setattr_in){ .valid = FATTR_UID, .uid = 1000 }) == 0);
	MUST(setattr(entry.nodeid, &(struct fuse_setattr_in){ .valid = FATTR_UID, .uid = 4321 }) == -EPERM);
	MUST(setattr(entry.nodeid, &(struct fuse_setattr_in){ .valid = FATTR_GID, .gid = 0 }) == -EPERM);
	/* The host's permissions hold. */
	MUST(open_as(FUSE_OPEN, lookup(ROOT, "others"), O_RDWR) == -EACCES);
	fuseclient_fini(&c);
}

static void test_not_root(void **state)
{
	if (geteuid())
		skip();
	put("share/others", "text");
	chmod(host("share/others"), 0600);
	assert_int_equal(chown(host("share"), 4321, 4321), 0);
	chmod(base, 0755);
	in_child(as_user);
}

/* At the limit of descriptors the guest gets an error, and what it forgets makes room again. */
static void with_few_fds(void)
{
	struct rlimit few = { 200, 200 };
	char name[32];
	u64 node[300];
	unsigned n = 0;

	MUST(setrlimit(RLIMIT_NOFILE, &few) == 0);
	serve(NULL);
	for (; n < 300; n++) {
		snprintf(name, sizeof(name), "f%u", n);
		if (named(FUSE_LOOKUP, ROOT, NULL, 0, name))
			break;
		node[n] = entry.nodeid;
	}
	MUST(n > 50 && n < 150);
	MUST(named(FUSE_LOOKUP, ROOT, NULL, 0, name) == -ENFILE);
	MUST(open_as(FUSE_OPENDIR, ROOT, 0) == -ENFILE);
	forget(node[0], 1);
	forget(node[1], 1);
	MUST(open_as(FUSE_OPENDIR, ROOT, 0) == 0);
	/* Names come all the same. */
	MUST(fuseclient_ask(&c, FUSE_READDIRPLUS, ROOT, &(struct fuse_read_in){ .fh = handle, .size = 60000 },
			    40, NULL, 0) == 0);
	MUST(fuseclient_answer_len(&c.r) > 300 * 128);
	fuseclient_fini(&c);
}

static void test_few_fds(void **state)
{
	struct rlimit limit;
	char name[32];

	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "share/f%u", i);
		put(name, "");
	}
	getrlimit(RLIMIT_NOFILE, &limit);
	in_child(with_few_fds);
}

/* ---- races ---- */

static _Atomic bool racing;

/* Swaps a folder for a symbolic link to another, as fast as it can. */
static void *swap(void *opaque)
{
	const char *dir = opaque;
	char path[3][512];

	snprintf(path[0], sizeof(path[0]), "%s/share/d", dir);
	snprintf(path[1], sizeof(path[1]), "%s/share/link", dir);
	snprintf(path[2], sizeof(path[2]), "%s/share/tmp", dir);
	while (racing)
		renameat2(AT_FDCWD, path[0], AT_FDCWD, path[1], RENAME_EXCHANGE);
	return NULL;
}

static void test_swap(void **state)
{
	struct fuse_create_in in = { .flags = O_RDWR | O_TRUNC, .mode = 0644 };
	unsigned dirs = 0, links = 0;
	pthread_t thread;

	mkdir(host("share/d"), 0755);
	put("share/d/secret", "public");
	assert_int_equal(symlink("../outside", host("share/link")), 0);
	racing = true;
	pthread_create(&thread, NULL, swap, base);
	for (unsigned i = 0; i < 3000; i++) {
		u64 d = lookup(ROOT, "d");

		if (S_ISLNK(entry.attr.mode)) {
			links++;
			assert_int_equal(named(FUSE_LOOKUP, d, NULL, 0, "secret"), -ENOTDIR);
			assert_int_equal(named(FUSE_CREATE, d, &in, sizeof(in), "secret"), -ENOTDIR);
		} else {
			dirs++;
			u64 f = lookup(d, "secret");
			assert_true(f);
			assert_int_equal(open_as(FUSE_OPEN, f, O_RDONLY), 0);
			assert_int_equal(read_at(f, handle, 0, 100), 0);
			assert_memory_equal(fuseclient_answer(&c.r), "public", 6);
			release(FUSE_RELEASE, f, handle);
			assert_int_equal(named(FUSE_MKDIR, d, &(struct fuse_mkdir_in){ 0755, 0 }, 8, "made"),
					 0);
			assert_int_equal(named(FUSE_RMDIR, d, NULL, 0, "made"), 0);
		}
		forget(d, 1);
	}
	racing = false;
	pthread_join(thread, NULL);
	assert_int_equal(dirs + links, 3000);
	/* The file itself is swapped for a link. */
	unlink(host("share/d"));
	assert_int_equal(access(host("outside/made"), F_OK), -1);
}

/* The host's /proc below the folder is a door to the server's own memory. */
static void test_proc(void **state)
{
	struct fuse_conf conf = { .tag = "root", .path = "/" };
	struct err err = { 0 };
	struct fs *fs;
	u64 proc;

	fuseclient_fini(&c);
	assert_int_equal(fuse_open(&conf, &fs, &err), 0);
	fuseclient_init(&c, fs);
	c.at_once = at_once;
	assert_int_equal(fuseclient_start(&c, ~0u, NULL), 0);
	proc = lookup(ROOT, "proc");
	assert_true(proc && entry.attr.flags & FUSE_ATTR_SUBMOUNT);
	assert_int_equal(named(FUSE_LOOKUP, proc, NULL, 0, "self"), -EACCES);
	assert_int_equal(open_as(FUSE_OPENDIR, proc, 0), -EACCES);
}

/* A reset of the machine, with files open and a lock waited for: all is given back. */
static void test_reset(void **state)
{
	static struct fuseclient_req waits;
	u64 n = make(ROOT, "f", S_IFREG | 0644);
	struct fuse_lk_in in;
	int fd = open(host("share/f"), O_RDWR);

	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(open_as(FUSE_OPEN, n, O_RDWR), 0);
	assert_int_equal(set_lock(n, lk(handle, 1, F_WRLCK, 0, 9, 0)), 0);
	in = lk(handle, 1, F_WRLCK, 0, INT64_MAX, FUSE_LK_FLOCK);
	fuseclient_begin(&c, &waits, FUSE_SETLKW, n, &in, sizeof(in), NULL, 0, 100);
	c.fs->ops->drain(c.fs);
	assert_int_equal(fuseclient_wait(&c, &waits), -EINTR);
	c.fs->ops->reset(c.fs);
	assert_int_equal(named(FUSE_LOOKUP, ROOT, NULL, 0, "f"), -EIO);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &(struct flock){ .l_type = F_WRLCK }), 0);
	assert_int_equal(fuseclient_start(&c, ~0u, NULL), 0);
	assert_int_equal(read_at(ROOT, handle, 0, 10), -EBADF);
	assert_true(lookup(ROOT, "f"));
	close(fd);
}

static void test_missing(void **state)
{
	struct fuse_conf conf = { .tag = "x", .path = "/nowhere/at/all" };
	struct err err = { 0 };
	struct fs *fs;

	assert_int_equal(fuse_open(&conf, &fs, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "/nowhere/at/all"));
	conf.path = host("outside/secret");
	assert_int_equal(fuse_open(&conf, &fs, &err), -ENOTDIR);
	conf.path = "/proc/self";
	assert_int_equal(fuse_open(&conf, &fs, &err), -EACCES);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, up, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_init),       TEST(test_hostile_requests),
		TEST(test_lookup),     TEST(test_make),
		TEST(test_rename),     TEST(test_files),
		TEST(test_create),     TEST(test_wrong_handles),
		TEST(test_attributes), TEST(test_killpriv),
		TEST(test_xattrs),     TEST(test_readdir),
		TEST(test_locks),      TEST(test_read_only),
		TEST(test_owners),     TEST(test_not_root),
		TEST(test_few_fds),    TEST(test_swap),
		TEST(test_missing),    TEST(test_proc),
		TEST(test_reset),
	};

	int failed = cmocka_run_group_tests_name("by threads", tests, NULL, NULL);

	at_once = true;
	return failed + cmocka_run_group_tests_name("at once", tests, NULL, NULL);
}
