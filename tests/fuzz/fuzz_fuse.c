/* Hostile requests for a shared folder: all kinds, with lengths, names, nodes and handles that are right, nearly right and wrong,
 * in any order [G11, G39].
 *
 * Beside the folder lies a file that no request may reach, and links in the folder lead to it. Whatever came before, a session that
 * begins anew works. The input is a script; where it ends within a step, it ends there.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "fuseclient.h"

#define MAX_FILE (1u << 20) /* on the host's disk */
#define KNOWN    16         /* ids that answers have brought */

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

static const u8 *at, *end;
static char base[] = "/tmp/fuzz-fuse.XXXXXX";
static struct fuseclient c;
static u64 known[KNOWN];
static unsigned nr_known;

static u64 take(unsigned bytes)
{
	u64 v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (u64)(at < end ? *at++ : 0) << 8 * i;
	return v;
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fuzz_fuse: %s\n", what);
	abort();
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return ftw->level ? remove(path) : 0;
}

static void empty(const char *dir)
{
	nftw(dir, remove_one, 20, FTW_DEPTH | FTW_PHYS);
}

static void leave(void)
{
	must(chdir("/") == 0, "/");
	empty(base);
	rmdir(base);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
	close(fd);
}

/* Once per process. */
static void begin(void)
{
	const struct rlimit small = { MAX_FILE, MAX_FILE };

	setrlimit(RLIMIT_FSIZE, &small);
	must(mkdtemp(base) && chdir(base) == 0, base);
	must(mkdir("share", 0755) == 0 && mkdir("outside", 0755) == 0, "folders");
	write_file("outside/secret", "secret");
	atexit(leave);
}

static void fill(void)
{
	empty("share");
	chmod("share", 0755);
	must(mkdir("share/d", 0755) == 0, "share/d");
	write_file("share/f", "contents");
	must(symlink("../outside", "share/link") == 0 && symlink("../outside/secret", "share/d/link") == 0,
	     "links");
	must(mkfifo("share/pipe", 0644) == 0, "share/pipe");
}

static unsigned entries(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	must(d, dir);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void check_outside(void)
{
	struct stat st;
	char got[16] = "";
	int fd = open("outside/secret", O_RDONLY);

	must(fd >= 0 && read(fd, got, sizeof(got)) == 6 && !memcmp(got, "secret", 6),
	     "the file outside has changed");
	must(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0644 && st.st_nlink == 1,
	     "its attributes have changed");
	close(fd);
	must(entries("outside") == 3 && entries(".") == 4, "there is something new outside");
}

static u64 take_id(void)
{
	u64 pick = take(1);

	if (pick < 60)
		return 1;
	if (pick < 250)
		return nr_known ? known[pick % MIN(nr_known, (unsigned)KNOWN)] : pick;
	return take(8);
}

static size_t take_name(u8 *to)
{
	static const char *const names[] = {
		"a",      "b", "f",      "d",      "link",      "pipe",
		"secret", "",  ".",      "..",     "../secret", "d/f",
		"/etc",   "x", "user.a", "user.b", "trusted.a", "security.capability",
		"link",   "f", "d/../f", "./f",    "new",       "../outside",
	};
	u64 pick = take(1);
	size_t len;

	if (pick >= 250) { /* long */
		len = take(2) % 5000;
		memset(to, 'n', len);
		to[len] = 0;
		return len + (pick & 1);
	}
	strcpy((char *)to, names[pick % ARRAY_SIZE(names)]);
	/* Mostly with its end. */
	return strlen((char *)to) + (pick != 249);
}

/* The fixed part of a request: ids, small numbers, flags, or anything. */
static size_t take_fixed(u8 *to, size_t len)
{
	for (size_t i = 0; i < len; i += 4) {
		u64 pick = take(1);
		u64 v = pick < 100   ? 0
			: pick < 160 ? take(1)
			: pick < 190 ? 1u << (pick & 31)
			: pick < 210 ? take(4)
				     : 0;

		st32(to + i, (u32)v);
		if (pick >= 210 && i + 8 <= len) {
			st64(to + i, pick < 250 ? take_id() : take(8));
			i += 4;
		}
	}
	return len;
}

static const struct {
	u8 fixed, names;
} shapes[64] = {
	[FUSE_LOOKUP] = { 0, 1 },       [FUSE_FORGET] = { 8, 0 },
	[FUSE_GETATTR] = { 16, 0 },     [FUSE_SETATTR] = { 88, 0 },
	[FUSE_SYMLINK] = { 0, 2 },      [FUSE_MKNOD] = { 16, 1 },
	[FUSE_MKDIR] = { 8, 1 },        [FUSE_UNLINK] = { 0, 1 },
	[FUSE_RMDIR] = { 0, 1 },        [FUSE_RENAME] = { 8, 2 },
	[FUSE_LINK] = { 8, 1 },         [FUSE_OPEN] = { 8, 0 },
	[FUSE_READ] = { 40, 0 },        [FUSE_WRITE] = { 40, 0 },
	[FUSE_RELEASE] = { 24, 0 },     [FUSE_FSYNC] = { 16, 0 },
	[FUSE_SETXATTR] = { 8, 1 },     [FUSE_GETXATTR] = { 8, 1 },
	[FUSE_LISTXATTR] = { 8, 0 },    [FUSE_REMOVEXATTR] = { 0, 1 },
	[FUSE_FLUSH] = { 24, 0 },       [FUSE_INIT] = { 16, 0 },
	[FUSE_OPENDIR] = { 8, 0 },      [FUSE_READDIR] = { 40, 0 },
	[FUSE_RELEASEDIR] = { 24, 0 },  [FUSE_FSYNCDIR] = { 16, 0 },
	[FUSE_GETLK] = { 48, 0 },       [FUSE_SETLK] = { 48, 0 },
	[FUSE_SETLKW] = { 48, 0 },      [FUSE_ACCESS] = { 8, 0 },
	[FUSE_CREATE] = { 16, 1 },      [FUSE_INTERRUPT] = { 8, 0 },
	[FUSE_BATCH_FORGET] = { 8, 0 }, [FUSE_FALLOCATE] = { 32, 0 },
	[FUSE_READDIRPLUS] = { 40, 0 }, [FUSE_RENAME2] = { 16, 2 },
	[FUSE_LSEEK] = { 24, 0 },       [FUSE_COPY_FILE_RANGE] = { 56, 0 },
	[FUSE_TMPFILE] = { 16, 0 },     [52] = { 24, 0 },
};

static void learn(u64 id)
{
	known[nr_known++ % KNOWN] = id;
}

static void step(void)
{
	static u8 fixed[128], more[16384];
	u32 op = (u32)take(1) % 64;
	u64 how = take(1), node = take_id();
	size_t fixed_len, more_len = 0;
	int rc;

	/* A session's begin and end, and synchronizing the whole disk, once in a while. */
	if ((op == FUSE_INIT || op == FUSE_DESTROY || op == FUSE_SYNCFS) && how < 240)
		op = FUSE_LOOKUP;
	fixed_len = take_fixed(fixed, shapes[op].fixed);
	for (unsigned i = 0; i < shapes[op].names; i++)
		more_len += take_name(more + more_len);
	if (how & 1)
		for (u64 n = take(1); n; n--)
			more[more_len++] = (u8)n;
	if (how >= 250)
		fixed_len = take(1) % (fixed_len + 1);
	c.uid = how & 2 ? 1000 : 0;
	c.at_once = how & 4;
	fuseclient_begin(&c, &c.r, op, node, fixed, fixed_len, more, more_len,
			 how >= 245 ? (u32)take(1) : FUSECLIENT_ROOM);
	/* What waits for a lock is interrupted. */
	if (op == FUSE_SETLKW)
		c.fs->ops->drain(c.fs);
	rc = fuseclient_wait(&c, &c.r);
	/* Nodes and handles come first in their answers. */
	if (rc == 0 && fuseclient_answer_len(&c.r) >= 16 && ld64(fuseclient_answer(&c.r)) < 1000)
		learn(ld64(fuseclient_answer(&c.r)));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static bool begun;
	struct fuse_conf conf = { .tag = "fuzz", .path = "share" };
	struct err err;
	struct fs *fs;

	if (!begun)
		begin();
	begun = true;
	at = data;
	end = data + len;
	fill();
	conf.cache = (enum fuse_cache)(take(1) % 3);
	conf.read_only = take(1) > 240;
	must(fuse_open(&conf, &fs, &err) == 0, err.msg);
	fuseclient_init(&c, fs);
	nr_known = 0;
	must(fuseclient_start(&c, ~0u, NULL) == 0, "INIT");
	while (at < end)
		step();
	c.uid = 0;
	must(fuseclient_start(&c, ~0u, NULL) == 0, "a second INIT");
	must(fuseclient_ask(&c, FUSE_GETATTR, 1, (u8[16]){ 0 }, 16, NULL, 0) == 0, "the folder is lost");
	fuseclient_fini(&c);
	check_outside();
	return 0;
}
