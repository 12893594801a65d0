/* System call filters: runtime-spec's rules become a BPF program through libseccomp; loading is one system call.
 *
 * Compiling and loading are apart because they happen in two processes: the runtime compiles while the container's
 * process makes its mounts, and hands it the program.
 *
 * A rule that repeats the default action says nothing and is left out (libseccomp would refuse it). Filters of other
 * ABIs of the machine (i386, x32) exist only where the configuration names them; what comes through an ABI that it
 * does not name is killed by libseccomp's default for bad architectures [O18].
 */
#include "jail/filter.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/filter.h>

#if HAVE_SECCOMP
#include <seccomp.h>

#include "base/lazy.h"

static const struct {
	const char *name;
	u32 action;
} filter_actions[] = {
	{ "SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD },
	{ "SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS },
	{ "SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD },
	{ "SCMP_ACT_TRAP", SCMP_ACT_TRAP },
	{ "SCMP_ACT_ERRNO", SCMP_ACT_ERRNO(0) },
	{ "SCMP_ACT_TRACE", SCMP_ACT_TRACE(0) },
	{ "SCMP_ACT_ALLOW", SCMP_ACT_ALLOW },
	{ "SCMP_ACT_LOG", SCMP_ACT_LOG },
	{ "SCMP_ACT_NOTIFY", SCMP_ACT_NOTIFY },
};

static const struct {
	const char *name;
	enum scmp_compare op;
} filter_operators[] = {
	{ "SCMP_CMP_NE", SCMP_CMP_NE },
	{ "SCMP_CMP_LT", SCMP_CMP_LT },
	{ "SCMP_CMP_LE", SCMP_CMP_LE },
	{ "SCMP_CMP_EQ", SCMP_CMP_EQ },
	{ "SCMP_CMP_GE", SCMP_CMP_GE },
	{ "SCMP_CMP_GT", SCMP_CMP_GT },
	{ "SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ },
};

static const struct {
	const char *name;
	u32 arch;
} filter_arches[] = {
	{ "SCMP_ARCH_X86_64", SCMP_ARCH_X86_64 },
	{ "SCMP_ARCH_X86", SCMP_ARCH_X86 },
	{ "SCMP_ARCH_X32", SCMP_ARCH_X32 },
	{ "SCMP_ARCH_ARM", SCMP_ARCH_ARM },
	{ "SCMP_ARCH_AARCH64", SCMP_ARCH_AARCH64 },
	{ "SCMP_ARCH_MIPS", SCMP_ARCH_MIPS },
	{ "SCMP_ARCH_MIPS64", SCMP_ARCH_MIPS64 },
	{ "SCMP_ARCH_MIPS64N32", SCMP_ARCH_MIPS64N32 },
	{ "SCMP_ARCH_MIPSEL", SCMP_ARCH_MIPSEL },
	{ "SCMP_ARCH_MIPSEL64", SCMP_ARCH_MIPSEL64 },
	{ "SCMP_ARCH_MIPSEL64N32", SCMP_ARCH_MIPSEL64N32 },
	{ "SCMP_ARCH_PPC", SCMP_ARCH_PPC },
	{ "SCMP_ARCH_PPC64", SCMP_ARCH_PPC64 },
	{ "SCMP_ARCH_PPC64LE", SCMP_ARCH_PPC64LE },
	{ "SCMP_ARCH_S390", SCMP_ARCH_S390 },
	{ "SCMP_ARCH_S390X", SCMP_ARCH_S390X },
	{ "SCMP_ARCH_PARISC", SCMP_ARCH_PARISC },
	{ "SCMP_ARCH_PARISC64", SCMP_ARCH_PARISC64 },
	{ "SCMP_ARCH_RISCV64", SCMP_ARCH_RISCV64 },
};
#endif

static const struct {
	const char *name;
	u32 flag;
} filter_flags[] = {
	{ "SECCOMP_FILTER_FLAG_TSYNC", SECCOMP_FILTER_FLAG_TSYNC },
	{ "SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG },
	{ "SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW },
	{ "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 1u << 5 },
};

const char *filter_flag_name(unsigned i)
{
	return i < ARRAY_SIZE(filter_flags) ? filter_flags[i].name : NULL;
}

#if HAVE_SECCOMP
const char *filter_action_name(unsigned i)
{
	return i < ARRAY_SIZE(filter_actions) ? filter_actions[i].name : NULL;
}

const char *filter_operator_name(unsigned i)
{
	return i < ARRAY_SIZE(filter_operators) ? filter_operators[i].name : NULL;
}

const char *filter_arch_name(unsigned i)
{
	return i < ARRAY_SIZE(filter_arches) ? filter_arches[i].name : NULL;
}

bool filter_available(void)
{
	return true;
}

/* Loaded with the first filter (base/lazy.h): most calls of the runtime make none. */
static struct {
	__typeof__(seccomp_init) *init;
	__typeof__(seccomp_release) *release;
	__typeof__(seccomp_attr_set) *attr_set;
	__typeof__(seccomp_arch_add) *arch_add;
	__typeof__(seccomp_rule_add_array) *add_rule;
	__typeof__(seccomp_export_bpf) *export_bpf;
	__typeof__(seccomp_syscall_resolve_name) *resolve_name;
} lib;

static const struct lazy_function lib_functions[] = {
	{ "seccomp_init", &lib.init },
	{ "seccomp_release", &lib.release },
	{ "seccomp_attr_set", &lib.attr_set },
	{ "seccomp_arch_add", &lib.arch_add },
	{ "seccomp_rule_add_array", &lib.add_rule },
	{ "seccomp_export_bpf", &lib.export_bpf },
	{ "seccomp_syscall_resolve_name", &lib.resolve_name },
};

static int find_action(const char *name, bool has_errno, u32 number, u32 *ret_action, struct err *err)
{
	for (unsigned i = 0; i < ARRAY_SIZE(filter_actions); i++) {
		if (strcmp(filter_actions[i].name, name) != 0)
			continue;
		if (number > 0xffff)
			return err_set(err, -ERANGE,
				       "linux.seccomp: errnoRet %u is out of range; give 0 to 65535", number);
		*ret_action = filter_actions[i].action;
		if (!strcmp(name, "SCMP_ACT_ERRNO"))
			*ret_action = SCMP_ACT_ERRNO(has_errno ? number : EPERM);
		if (!strcmp(name, "SCMP_ACT_TRACE"))
			*ret_action = SCMP_ACT_TRACE(has_errno ? number : EPERM);
		return 0;
	}
	return err_set(err, -EINVAL, "linux.seccomp: unknown action '%.64s'", name);
}

static int compile_arg(const struct filter_arg *a, struct scmp_arg_cmp *ret_cmp, struct err *err)
{
	for (unsigned i = 0; i < ARRAY_SIZE(filter_operators); i++) {
		if (strcmp(filter_operators[i].name, a->op) != 0)
			continue;
		*ret_cmp = SCMP_CMP(a->index, filter_operators[i].op, a->value, a->value_two);
		/* The mask is the first, what is left over the second. */
		return 0;
	}
	return err_set(err, -EINVAL, "linux.seccomp: unknown operator '%.64s'", a->op);
}

static int compile_rule(scmp_filter_ctx ctx, const struct filter_rule *r, u32 action, struct err *err)
{
	struct scmp_arg_cmp cmp[6];
	bool repeated = false;
	unsigned seen = 0;
	int rc;

	for (unsigned i = 0; i < r->arg_count; i++) {
		if (r->args[i].index > 5 || r->arg_count > 6)
			return err_set(err, -ERANGE,
				       "linux.seccomp: a system call has arguments 0 to 5, no more");
		repeated |= (seen & BIT(r->args[i].index)) != 0;
		seen |= (unsigned)BIT(r->args[i].index);
		rc = compile_arg(&r->args[i], &cmp[i], err);
		if (rc)
			return rc;
	}
	for (unsigned n = 0; n < r->name_count; n++) {
		int call = lib.resolve_name(r->names[n]);

		if (call == __NR_SCMP_ERROR)
			continue;
		/* Conditions on the same argument are alternatives; those on different ones hold together. */
		rc = 0;
		if (repeated)
			for (unsigned i = 0; !rc && i < r->arg_count; i++)
				rc = lib.add_rule(ctx, action, call, 1, &cmp[i]);
		else
			rc = lib.add_rule(ctx, action, call, r->arg_count, cmp);
		if (rc && rc != -EEXIST)
			return err_sys(err, rc, "linux.seccomp: libseccomp refuses the rule for %.64s",
				       r->names[n]);
	}
	return 0;
}

static int export_code(scmp_filter_ctx ctx, struct filter *f, struct err *err)
{
	int fd = memfd_create("seccomp", MFD_CLOEXEC), rc = 0;
	off_t size;

	if (fd < 0)
		return err_sys(err, -errno, "cannot make memory for a filter");
	if (lib.export_bpf(ctx, fd) < 0 || (size = lseek(fd, 0, SEEK_END)) <= 0) {
		rc = err_set(err, -EINVAL, "linux.seccomp: libseccomp cannot make a program of these rules");
	} else if (size / 8 > BPF_MAXINSNS) {
		rc = err_set(err, -E2BIG,
			     "linux.seccomp: the rules need %lld instructions; the kernel takes at most %d",
			     (long long)size / 8, BPF_MAXINSNS);
	} else {
		f->code = malloc((size_t)size);
		f->size = (size_t)size;
		if (!f->code || pread(fd, f->code, f->size, 0) != (ssize_t)f->size) {
			rc = err_set(err, -ENOMEM, "no memory for a filter of %zu bytes", f->size);
			free(f->code);
			f->code = NULL;
		}
	}
	close(fd);
	return rc;
}

int filter_compile(const struct filter_spec *spec, struct filter *ret_filter, struct err *err)
{
	struct filter f = { 0 };
	u32 default_action = 0, action = 0;
	scmp_filter_ctx ctx;
	int rc = find_action(spec->default_action, spec->has_default_errno, spec->default_errno,
			     &default_action, err);

	if (!rc && (rc = lazy_load("libseccomp.so.2", lib_functions, ARRAY_SIZE(lib_functions), err)) < 0)
		err_wrap(err, "linux.seccomp");
	if (rc)
		return rc;
	if (!strcmp(spec->default_action, "SCMP_ACT_NOTIFY"))
		return err_set(
			err, -EINVAL,
			"linux.seccomp.defaultAction: SCMP_ACT_NOTIFY would ask the listener about its own "
			"start; give it to single system calls");
	for (unsigned i = 0; i < spec->flag_count; i++) {
		unsigned k = 0;

		while (k < ARRAY_SIZE(filter_flags) && strcmp(filter_flags[k].name, spec->flags[i]) != 0)
			k++;
		if (k == ARRAY_SIZE(filter_flags))
			return err_set(err, -EINVAL, "linux.seccomp.flags[%u]: unknown flag '%.64s'", i,
				       spec->flags[i]);
		f.flags |= filter_flags[k].flag;
	}
	ctx = lib.init(default_action);
	if (!ctx)
		return err_set(err, -ENOMEM, "libseccomp cannot begin a filter");
	/* A search tree instead of a list: hundreds of calls are the rule. */
	lib.attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	for (unsigned i = 0; !rc && i < spec->architecture_count; i++) {
		unsigned k = 0;

		while (k < ARRAY_SIZE(filter_arches) &&
		       strcmp(filter_arches[k].name, spec->architectures[i]) != 0)
			k++;
		if (k == ARRAY_SIZE(filter_arches))
			rc = err_set(err, -EINVAL,
				     "linux.seccomp.architectures[%u]: unknown architecture '%.64s'", i,
				     spec->architectures[i]);
		else if ((rc = lib.arch_add(ctx, filter_arches[k].arch)) && rc != -EEXIST)
			rc = err_sys(err, rc, "linux.seccomp.architectures[%u]: libseccomp refuses '%.64s'",
				     i, spec->architectures[i]);
		else
			rc = 0;
	}
	for (unsigned i = 0; !rc && i < spec->rule_count; i++) {
		const struct filter_rule *r = &spec->rules[i];

		rc = find_action(r->action, r->has_errno, r->errno_ret, &action, err);
		if (rc || action == default_action)
			continue;
		f.notify |= action == SCMP_ACT_NOTIFY;
		rc = compile_rule(ctx, r, action, err);
	}
	if (!rc)
		rc = export_code(ctx, &f, err);
	lib.release(ctx);
	if (!rc)
		*ret_filter = f;
	return rc;
}
#else
const char *filter_action_name(unsigned i)
{
	return NULL;
}

const char *filter_operator_name(unsigned i)
{
	return NULL;
}

const char *filter_arch_name(unsigned i)
{
	return NULL;
}

bool filter_available(void)
{
	return false;
}

int filter_compile(const struct filter_spec *spec, struct filter *ret_filter, struct err *err)
{
	return err_set(
		err, -ENOTSUP,
		"linux.seccomp: this bothy was built without libseccomp; install it and build again, or take "
		"seccomp out of the configuration");
}
#endif

int filter_load(const struct filter *f, int *ret_listener, struct err *err)
{
	struct sock_fprog program = { .len = (unsigned short)(f->size / 8), .filter = f->code };
	u32 flags = f->flags & ~(u32)SECCOMP_FILTER_FLAG_TSYNC; /* one thread: nothing to synchronise */
	long rc;

	if (f->notify)
		flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
	rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
	if (rc < 0)
		return err_sys(err, -errno, "cannot load the filter of system calls");
	*ret_listener = f->notify ? (int)rc : -1;
	return 0;
}
