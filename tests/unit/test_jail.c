/* Isolation: lookups below a root (by the kernel and by hand), id maps, capabilities' names, option words, device programs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "jail/caps.h"
#include "jail/cgroup.h"
#include "jail/devfilter.h"
#include "jail/idmap.h"
#include "jail/inroot.h"
#include "jail/mounts.h"
#include "jail/ns.h"

/* --- lookups --- */

static char tree[64];
static int root;

static void put(const char *name, const char *text)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", tree, name);
	fd = open(path, O_WRONLY | O_CREAT, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void put_link(const char *name, const char *to)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", tree, name);
	assert_int_equal(symlink(to, path), 0);
}

static void put_dir(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", tree, name);
	assert_int_equal(mkdir(path, 0755), 0);
}

static int set_up(void **state)
{
	snprintf(tree, sizeof(tree), "/tmp/unit-bothy-XXXXXX");
	assert_non_null(mkdtemp(tree));
	put("outside", "outside");
	put_dir("root");
	put_dir("root/a");
	put_dir("root/a/b");
	put("root/a/file", "inside");
	put_link("root/up", "../../../../../../..");
	put_link("root/abs", "/a");
	put_link("root/out", "../outside");
	put_link("root/loop", "loop");
	put_link("root/dangling", "/a/new/deep");
	put_link("root/a/back", "../a/b/../file");
	put_link("root/etc", "/etc");
	root = open(tree, O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_true(root >= 0);
	root = openat(root, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_true(root >= 0);
	return 0;
}

static int tear_down(void **state)
{
	char command[128];

	inroot_by_hand = false;
	snprintf(command, sizeof(command), "rm -rf %s", tree);
	return system(command); /* NOLINT(cert-env33-c) */
}

/* Both ways find the same file, or fail alike. */
static void same(const char *path, int oflags, unsigned how, int expected)
{
	struct stat st[2];

	for (int hand = 0; hand < 2; hand++) {
		int fd;

		inroot_by_hand = hand;
		fd = inroot_open(root, path, oflags, how);
		if (expected < 0) {
			assert_int_equal(fd, expected);
			continue;
		}
		if (fd < 0)
			fail_msg("'%s' %s: %s", path, hand ? "by hand" : "by the kernel", strerror(-fd));
		assert_int_equal(fstat(fd, &st[hand]), 0);
		close(fd);
	}
	if (expected >= 0) {
		assert_int_equal(st[0].st_ino, st[1].st_ino);
		assert_int_equal(st[0].st_dev, st[1].st_dev);
	}
}

static void test_lookups(void **state)
{
	static const char *const found[] = { "/",
					     "",
					     "a",
					     "/a/b",
					     "/a/../a/./b//",
					     "..",
					     "/../../..",
					     "/up/a/file",
					     "up/up/up/abs/b",
					     "/abs/file",
					     "/a/back",
					     "/a/b/../../a/file" };

	for (unsigned i = 0; i < ARRAY_SIZE(found); i++)
		same(found[i], O_PATH, 0, 0);
	same("/a/file", O_RDONLY, 0, 0);
	same("/out", O_PATH, 0, -ENOENT); /* what lies outside is not there */
	same("/up/outside", O_PATH, 0, -ENOENT);
	same("/etc/passwd", O_PATH, 0, -ELOOP); /* there, /etc leads to itself */
	same("/none/x", O_PATH, 0, -ENOENT);
	same("/a/file/x", O_PATH, 0, -ENOTDIR);
	same("/a/file", O_PATH | O_DIRECTORY, 0, -ENOTDIR);
	same("/loop", O_PATH, 0, -ELOOP);
	same("/loop/x", O_PATH, 0, -ELOOP);
	same("/abs/file", O_PATH, INROOT_NO_SYMLINKS, -ELOOP);
	same("/a/file", O_PATH, INROOT_NO_SYMLINKS, 0);
}

static void test_the_root_is_the_end(void **state)
{
	struct stat st, top;
	int fd;

	assert_int_equal(fstat(root, &top), 0);
	for (int hand = 0; hand < 2; hand++) {
		inroot_by_hand = hand;
		fd = inroot_open(root, "up/../../up", O_PATH, 0);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_ino, top.st_ino);
		close(fd);
	}
}

static void test_magic_links(void **state)
{
	int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC), fd;

	for (int hand = 0; hand < 2; hand++) {
		inroot_by_hand = hand;
		assert_int_equal(inroot_open(proc, "self/root/etc", O_PATH, 0), -ELOOP);
		assert_int_equal(inroot_open(proc, "self/cwd", O_PATH, 0), -ELOOP);
		fd = inroot_open(proc, "self/status", O_RDONLY, 0);
		assert_true(fd >= 0);
		close(fd);
	}
	close(proc);
}

static void test_makes(void **state)
{
	struct err err;
	struct stat st;
	char name[NAME_MAX + 1];
	int fd;

	for (int hand = 0; hand < 2; hand++) {
		inroot_by_hand = hand;
		assert_int_equal(inroot_mkdirs(root, hand ? "/up/x/y/z" : "/up/u/v/w", 0, &fd, &err), 0);
		close(fd);
		assert_int_equal(faccessat(root, hand ? "x/y/z" : "u/v/w", F_OK, 0), 0);
		assert_int_equal(inroot_make(root, hand ? "abs/new1" : "abs/new2", false, 0, &fd, &err), 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_true(S_ISREG(st.st_mode));
		close(fd);
		assert_int_equal(faccessat(root, hand ? "a/new1" : "a/new2", F_OK, 0), 0);
		assert_true(inroot_make(root, "abs/new3", false, INROOT_NO_SYMLINKS, &fd, &err) < 0);
		assert_non_null(strstr(err.msg, "symbolic link"));
		assert_true(inroot_mkdirs(root, "a/file/x", 0, &fd, &err) < 0);
		assert_int_equal(inroot_parent(root, "/up/abs/node/", name, &fd, &err), 0);
		assert_string_equal(name, "node");
		close(fd);
		assert_true(inroot_parent(root, "/a/..", name, &fd, &err) < 0);
		assert_true(inroot_parent(root, "/", name, &fd, &err) < 0);
		/* A link to nothing makes nothing outside. */
		if (!inroot_make(root, "dangling", false, 0, &fd, &err))
			close(fd);
		assert_int_equal(access("/a/new", F_OK), -1);
	}
}

/* --- the rest --- */

static void test_namespaces(void **state)
{
	struct err err;
	int fd;

	assert_int_equal(ns_find("network"), NS_NET);
	assert_int_equal(ns_find("net"), NS_KINDS);
	assert_int_equal(ns_open(NS_UTS, "/proc/self/ns/uts", &fd, &err), 0);
	assert_true(ns_is_own(NS_UTS, fd));
	close(fd);
	assert_int_equal(ns_open(NS_NET, "/proc/self/ns/uts", &fd, &err), -EINVAL);
	assert_int_equal(ns_open(NS_NET, "/dev/null", &fd, &err), -EINVAL);
}

static void test_id_maps(void **state)
{
	const struct idmap_range good[] = { { 0, 1000, 10 }, { 100, 2000, 5 } };
	const struct idmap_range bad[][2] = {
		{ { 0, 1000, 10 }, { 9, 2000, 5 } },   { { 0, 1000, 10 }, { 100, 1009, 5 } },
		{ { 0, 1000, 0 }, { 100, 2000, 5 } },  { { 0, UINT32_MAX - 5, 10 }, { 1, 2, 3 } },
		{ { UINT32_MAX, 0, 1 }, { 1, 2, 3 } },
	};
	struct idmap map = { good, 2 };
	struct err err;

	assert_int_equal(idmap_check(&map, "uids", &err), 0);
	assert_int_equal(idmap_outside(&map, 9), 1009);
	assert_int_equal(idmap_outside(&map, 10), -1);
	assert_int_equal(idmap_outside(&map, 104), 2004);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		map = (struct idmap){ bad[i], 2 };
		assert_true(idmap_check(&map, "uids", &err) < 0);
		assert_non_null(strstr(err.msg, "uids["));
	}
}

static void test_capability_names(void **state)
{
	assert_int_equal(caps_number("CAP_CHOWN"), 0);
	assert_int_equal(caps_number("CAP_SYS_ADMIN"), 21);
	assert_int_equal(caps_number("CAP_CHECKPOINT_RESTORE"), 40);
	assert_int_equal(caps_number("CHOWN"), -1);
	assert_string_equal(caps_name(40), "CAP_CHECKPOINT_RESTORE");
	assert_null(caps_name(41));
}

static void test_mount_words(void **state)
{
	static const char *const words[] = { "rbind", "ro",      "nosuid", "rnoexec", "rslave",    "size=5",
					     "suid",  "noatime", "rw",     "idmap",   "tmpcopyup", "weird" };
	const char *data[ARRAY_SIZE(words) + 2];
	struct mounts_options o;

	mounts_options_parse(words, ARRAY_SIZE(words), data, &o);
	assert_true(o.bind && o.bind_tree && o.idmap && !o.idmap_tree && o.copy_up && !o.remount);
	assert_true(o.propagation == MS_SLAVE && o.propagation_tree);
	/* The last word of two that contradict each other wins. */
	assert_int_equal(o.set, MOUNT_ATTR_NOATIME);
	assert_int_equal(o.clear, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR__ATIME);
	assert_int_equal(o.tree_set, MOUNT_ATTR_NOEXEC);
	assert_int_equal(o.data_count, 2);
	assert_string_equal(o.data[0], "size=5");
	assert_string_equal(o.data[1], "weird");
}

static void test_cgroup_paths(void **state)
{
	struct cgroup *cg = malloc(sizeof(*cg));
	static const char *const bad[] = { "/", "//", "/..", "/a/../b", "a/..", "/./a", "/a\nb" };
	struct err err;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(cgroup_init(cg, bad[i], "id", &err) < 0);
	assert_int_equal(cgroup_init(cg, "/a/b//", "id", &err), 0);
	assert_string_equal(cg->path, "/a/b");
	assert_int_equal(cgroup_init(cg, NULL, "id", &err), 0);
	assert_string_equal(cg->path, "/id");
	free(cg);
}

/* A program of device rules, interpreted: what the kernel would answer. */
static unsigned ask(const struct bpf_insn *code, unsigned type, unsigned access, unsigned maj, unsigned min)
{
	u64 r[11] = { 0 };
	const u32 ctx[3] = { access << 16 | type, maj, min };

	for (const struct bpf_insn *i = code;; i++) {
		switch (i->code) {
		case BPF_LDX | BPF_W | BPF_MEM: r[i->dst_reg] = ctx[i->off / 4]; break;
		case BPF_ALU64 | BPF_MOV | BPF_X: r[i->dst_reg] = r[i->src_reg]; break;
		case BPF_ALU64 | BPF_MOV | BPF_K: r[i->dst_reg] = (u64)i->imm; break;
		case BPF_ALU | BPF_AND | BPF_K: r[i->dst_reg] = (u32)r[i->dst_reg] & (u32)i->imm; break;
		case BPF_ALU | BPF_RSH | BPF_K: r[i->dst_reg] = (u32)r[i->dst_reg] >> i->imm; break;
		case BPF_JMP | BPF_JNE | BPF_K: i += r[i->dst_reg] != (u64)i->imm ? i->off : 0; break;
		case BPF_JMP | BPF_JEQ | BPF_K: i += r[i->dst_reg] == (u64)i->imm ? i->off : 0; break;
		case BPF_JMP | BPF_EXIT: return (unsigned)r[0];
		default: fail_msg("unknown instruction %#x", i->code);
		}
	}
}

static void test_device_programs(void **state)
{
	enum {
		M = BPF_DEVCG_ACC_MKNOD,
		R = BPF_DEVCG_ACC_READ,
		W = BPF_DEVCG_ACC_WRITE,
		B = BPF_DEVCG_DEV_BLOCK,
		C = BPF_DEVCG_DEV_CHAR
	};
	static const struct devfilter_rule rules[] = {
		{ false, 'a', -1, -1, true, true, true }, { true, 'c', 1, 3, true, true, true },
		{ true, 'b', 8, -1, true, false, false }, { true, 'c', -1, -1, false, false, true },
		{ false, 'c', 1, 3, false, true, false },
	};
	struct bpf_insn code[DEVFILTER_INSNS(ARRAY_SIZE(rules))];
	unsigned n = devfilter_program(rules, ARRAY_SIZE(rules), code);

	assert_true(n <= ARRAY_SIZE(code));
	assert_int_equal(ask(code, C, R, 1, 3), 1);
	assert_int_equal(ask(code, C, R | W, 1, 3), 0); /* the last rule denies writing */
	assert_int_equal(ask(code, C, M, 1, 3), 1);
	assert_int_equal(ask(code, C, R, 1, 4), 0);
	assert_int_equal(ask(code, C, M, 99, 4), 1);
	assert_int_equal(ask(code, B, R, 8, 5), 1);
	assert_int_equal(ask(code, B, R | W, 8, 5), 0);
	assert_int_equal(ask(code, B, M, 8, 5), 0);
	assert_int_equal(ask(code, B, R, 9, 5), 0);
	n = devfilter_program(NULL, 0, code);
	assert_int_equal(ask(code, C, R, 1, 3), 0);
	assert_int_equal(n, 8);
}

/* The kernel takes such a program and does as it says, where there is version 2 and root. */
static void test_device_program_in_force(void **state)
{
	static const struct devfilter_rule none[] = { { false, 'a', -1, -1, true, true, true } },
					   null[] = { { true, 'c', 1, 3, true, true, true } };
	struct cgroup *cg = calloc(1, sizeof(*cg));
	struct cgroup_hierarchy *v2 = NULL;
	char id[64], dir[PATH_MAX];
	struct err err;
	pid_t pid;

	snprintf(id, sizeof(id), "/bothy-unit-%d", (int)getpid());
	if (geteuid() || cgroup_init(cg, id, "", &err)) {
		free(cg);
		skip();
		return;
	}
	for (unsigned i = 0; i < cg->count; i++)
		if (cg->at[i].v2)
			v2 = &cg->at[i];
	if (!v2) {
		free(cg);
		skip();
		return;
	}
	/* The one of version 2 alone. */
	cg->at[0] = *v2;
	cg->count = 1;
	if (cgroup_create(cg, &err)) {
		free(cg);
		skip();
		return;
	}
	snprintf(dir, sizeof(dir), "%s%s", cg->at[0].mount, cg->path);
	for (int round = 0; round < 2; round++) {
		int status, rc = devfilter_apply(cg, round ? null : none, 1, &err);

		if (rc == -EPERM || rc == -ENOSYS) { /* a machine without BPF */
			rmdir(dir);
			free(cg);
			skip();
			return;
		}
		assert_int_equal(rc, 0);
		pid = fork();
		if (pid == 0) {
			if (cgroup_join(cg, getpid(), NULL))
				_exit(3);
			_exit(open("/dev/null", O_RDWR) < 0 ? errno : 0);
		}
		waitpid(pid, &status, 0);
		assert_int_equal(WEXITSTATUS(status), round ? 0 : EPERM);
	}
	assert_int_equal(cgroup_delete(cg, &err), 0);
	assert_int_equal(access(dir, F_OK), -1);
	free(cg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_lookups, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_the_root_is_the_end, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_makes, set_up, tear_down),
		cmocka_unit_test(test_magic_links),
		cmocka_unit_test(test_namespaces),
		cmocka_unit_test(test_id_maps),
		cmocka_unit_test(test_capability_names),
		cmocka_unit_test(test_mount_words),
		cmocka_unit_test(test_cgroup_paths),
		cmocka_unit_test(test_device_programs),
		cmocka_unit_test(test_device_program_in_force),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
