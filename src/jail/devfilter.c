/* Device rules of a control group.
 *
 * Version 1 has the rules in the kernel: "a" is denied, and then each rule is written in order. Version 2 asks a BPF
 * program of type CGROUP_DEVICE at each mknod(2) and open(2). It tests the rules from the last to the first, and the
 * first that fits decides: one that allows fits when it allows all that is asked, one that denies when it denies any of it.
 *
 * An update attaches the new program before it detaches those that were there: all attached ones must agree, so in
 * between less is allowed, never more.
 */
#include "jail/devfilter.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_ATTACHED 16

#define INSN(c, d, s, o, i) \
	((struct bpf_insn){ .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })
#define MOV_IMM(d, i)         INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define MOV_REG(d, s)         INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define LOAD_U32(d, s, o)     INSN(BPF_LDX | BPF_W | BPF_MEM, d, s, o, 0)
#define ALU_IMM(op, d, i)     INSN(BPF_ALU | (op) | BPF_K, d, 0, 0, i)
#define JUMP_IMM(op, d, i, o) INSN(BPF_JMP | (op) | BPF_K, d, 0, o, i)
#define EXIT_INSN             INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

/* r2: kind of device, r3: what is asked, r4: major, r5: minor [struct bpf_cgroup_dev_ctx]. */
unsigned devfilter_program(const struct devfilter_rule *rules, unsigned count, struct bpf_insn *out)
{
	unsigned n = 0;

	out[n++] = LOAD_U32(BPF_REG_2, BPF_REG_1, 0);
	out[n++] = MOV_REG(BPF_REG_3, BPF_REG_2);
	out[n++] = ALU_IMM(BPF_AND, BPF_REG_2, 0xffff);
	out[n++] = ALU_IMM(BPF_RSH, BPF_REG_3, 16);
	out[n++] = LOAD_U32(BPF_REG_4, BPF_REG_1, 4);
	out[n++] = LOAD_U32(BPF_REG_5, BPF_REG_1, 8);
	for (unsigned i = count; i-- > 0;) {
		const struct devfilter_rule *r = &rules[i];
		int access = (r->mknod ? BPF_DEVCG_ACC_MKNOD : 0) | (r->read ? BPF_DEVCG_ACC_READ : 0) |
			     (r->write ? BPF_DEVCG_ACC_WRITE : 0);
		unsigned jumps[4], jump_count = 0, start = n;
		bool all = r->type == 'a';

		if (!all) {
			jumps[jump_count++] = n;
			out[n++] = JUMP_IMM(BPF_JNE, BPF_REG_2,
					    r->type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR, 0);
		}
		if (!all && r->major >= 0) {
			jumps[jump_count++] = n;
			out[n++] = JUMP_IMM(BPF_JNE, BPF_REG_4, (int)r->major, 0);
		}
		if (!all && r->minor >= 0) {
			jumps[jump_count++] = n;
			out[n++] = JUMP_IMM(BPF_JNE, BPF_REG_5, (int)r->minor, 0);
		}
		if (access != 7) {
			out[n++] = MOV_REG(BPF_REG_1, BPF_REG_3);
			out[n++] = ALU_IMM(BPF_AND, BPF_REG_1, r->allow ? 7 & ~access : access);
			jumps[jump_count++] = n;
			out[n++] = JUMP_IMM(r->allow ? BPF_JNE : BPF_JEQ, BPF_REG_1, 0, 0);
		}
		out[n++] = MOV_IMM(BPF_REG_0, r->allow);
		out[n++] = EXIT_INSN;
		for (unsigned k = 0; k < jump_count; k++)
			out[jumps[k]].off = (s16)(n - jumps[k] - 1);
		/* It fits always: nothing before it can matter, and the kernel refuses code that cannot be reached. */
		if (n - start == 2)
			return n;
	}
	out[n++] = MOV_IMM(BPF_REG_0, 0);
	out[n++] = EXIT_INSN;
	return n;
}

static int bpf(int cmd, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

static int load_program(const struct devfilter_rule *rules, unsigned count, int *ret_fd, struct err *err)
{
	struct bpf_insn *code = calloc(DEVFILTER_INSNS(count), sizeof(*code));
	union bpf_attr attr = { 0 };
	int fd;

	if (!code)
		return err_set(err, -ENOMEM, "no memory for %u device rules", count);
	attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	attr.insns = (u64)(uintptr_t)code;
	attr.insn_cnt = devfilter_program(rules, count, code);
	attr.license = (u64)(uintptr_t) "GPL";
	memcpy(attr.prog_name, "bothy_devices", sizeof("bothy_devices"));
	fd = bpf(BPF_PROG_LOAD, &attr);
	if (fd < 0)
		err_sys(err, -errno, "cannot load the program of the device rules");
	free(code);
	if (fd < 0)
		return err ? err->code : -EIO;
	*ret_fd = fd;
	return 0;
}

static int attach(int group, int program, struct err *err)
{
	union bpf_attr attr = { 0 };
	u32 old[MAX_ATTACHED];
	unsigned old_count;

	attr.query.target_fd = (u32)group;
	attr.query.attach_type = BPF_CGROUP_DEVICE;
	attr.query.prog_ids = (u64)(uintptr_t)old;
	attr.query.prog_cnt = MAX_ATTACHED;
	old_count = bpf(BPF_PROG_QUERY, &attr) < 0 ? 0 : attr.query.prog_cnt;

	memset(&attr, 0, sizeof(attr));
	attr.target_fd = (u32)group;
	attr.attach_bpf_fd = (u32)program;
	attr.attach_type = BPF_CGROUP_DEVICE;
	attr.attach_flags = BPF_F_ALLOW_MULTI;
	if (bpf(BPF_PROG_ATTACH, &attr) < 0)
		return err_sys(err, -errno, "cannot attach the program of the device rules");
	for (unsigned i = 0; i < old_count; i++) {
		int fd;

		memset(&attr, 0, sizeof(attr));
		attr.prog_id = old[i];
		fd = bpf(BPF_PROG_GET_FD_BY_ID, &attr);
		if (fd < 0)
			continue;
		memset(&attr, 0, sizeof(attr));
		attr.target_fd = (u32)group;
		attr.attach_bpf_fd = (u32)fd;
		attr.attach_type = BPF_CGROUP_DEVICE;
		bpf(BPF_PROG_DETACH, &attr);
		close(fd);
	}
	return 0;
}

static int apply_v2(const struct cgroup *cg, const struct cgroup_hierarchy *h,
		    const struct devfilter_rule *rules, unsigned count, struct err *err)
{
	char dir[PATH_MAX];
	int program = -1, group, rc = load_program(rules, count, &program, err);

	if (rc)
		return rc;
	snprintf(dir, sizeof(dir), "%s%s", h->mount, cg->path);
	group = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = group < 0 ? err_sys(err, -errno, "cannot open the control group '%s'", dir)
		       : attach(group, program, err);
	if (group >= 0)
		close(group);
	close(program);
	return rc;
}

static int write_rule(const struct cgroup *cg, const struct cgroup_hierarchy *h,
		      const struct devfilter_rule *r)
{
	char text[64], major[24] = "*", minor[24] = "*";

	if (r->major >= 0)
		snprintf(major, sizeof(major), "%lld", (long long)r->major);
	if (r->minor >= 0)
		snprintf(minor, sizeof(minor), "%lld", (long long)r->minor);
	if (r->type == 'a')
		snprintf(text, sizeof(text), "a");
	else
		snprintf(text, sizeof(text), "%c %s:%s %s%s%s", r->type, major, minor, r->read ? "r" : "",
			 r->write ? "w" : "", r->mknod ? "m" : "");
	return cgroup_write(cg, h, r->allow ? "devices.allow" : "devices.deny", text);
}

int devfilter_apply(const struct cgroup *cg, const struct devfilter_rule *rules, unsigned count,
		    struct err *err)
{
	const struct devfilter_rule nothing = { .allow = false, .type = 'a' };
	const struct cgroup_hierarchy *h = cgroup_v1(cg, "devices");
	int rc;

	if (!h && cgroup_v2(cg))
		return apply_v2(cg, cgroup_v2(cg), rules, count, err);
	if (!h)
		return err_set(err, -ENOTSUP,
			       "this host has no devices controller; take linux.resources.devices out");
	rc = write_rule(cg, h, &nothing);
	for (unsigned i = 0; !rc && i < count; i++)
		rc = write_rule(cg, h, &rules[i]);
	return rc ? err_sys(err, rc, "cannot write the device rules of the control group '%s'", cg->path) : 0;
}
