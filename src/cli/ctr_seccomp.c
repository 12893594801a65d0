/* The filter of system calls of `bothy container run`: what is allowed when nobody says otherwise, or what a file says.
 *
 * The default is a list of what is allowed, not of what is forbidden: a system call that Linux gets tomorrow is not there
 * (ENOSYS, so that programs fall back to an older one) until somebody has looked at it. What it leaves out is what no program
 * of a container needs and holes were found in, as keys, io_uring, userfaultfd, namespaces of its own [O19]; and what the
 * kernel allows with a capability alone, unless the container has that. The 32-bit calls of this machine are filtered by the
 * same names; x32's are not there at all, which kills who tries [O18].
 *
 * A file has the form of linux.seccomp [runtime-spec config-linux.md#seccomp], or that of the profiles that container engines
 * ship, whose rules say for which capabilities, architectures and kernels they are.
 *
 * Omitted: a 32-bit program names the family of a socket in memory, where no filter sees it; so it gets those that the kernel
 * has. They are a way to more of the kernel, not out of the container.
 */
#include <errno.h>
#include <linux/sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#include "base/log.h"
#include "base/os.h"
#include "cli/ctr_run.h"
#include "jail/caps.h"
#include "jail/filter.h"

static const char everybody[] =
	"_llseek _newselect accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget "
	"capset chdir chmod chown chown32 clock_getres clock_getres_time64 clock_gettime clock_gettime64 "
	"clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 "
	"dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 "
	"execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate "
	"fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync "
	"fgetxattr file_getattr file_setattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 "
	"fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 "
	"futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd "
	"getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 "
	"getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid "
	"getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid "
	"gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 "
	"inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup "
	"io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset "
	"landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr listxattrat "
	"llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier "
	"memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 "
	"modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 "
	"mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync "
	"munlock munlockall munmap name_to_handle_at nanosleep newfstatat nice open openat openat2 pause "
	"pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll "
	"ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_madvise process_mrelease pselect6 "
	"pselect6_time64 pwrite64 pwritev pwritev2 read readahead readdir readlink readlinkat readv "
	"recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename "
	"renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask "
	"rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 "
	"rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr "
	"sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 "
	"sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select "
	"semctl semget semop semtimedop semtimedop_time64 sendfile sendfile64 sendmmsg sendmsg sendto "
	"set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid "
	"setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid "
	"setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid "
	"setuid32 setxattr setxattrat sgetmask shmat shmctl shmdt shmget shutdown sigaction sigaltstack "
	"signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend socketcall socketpair "
	"splice ssetmask stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs "
	"sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime "
	"timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 "
	"timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink "
	"unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid "
	"write writev";

/* What takes one of these capabilities, or none that there is. */
static const struct {
	const char *caps, *names;
	int number; /* what it fails with else */
} guarded[] = {
	/* Its flags are in memory, where no filter sees them. The C library takes clone(2) where there is none. */
	{ "CAP_SYS_ADMIN", "clone3", ENOSYS },
	{ "CAP_SYS_ADMIN",
	  "fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie mount mount_setattr move_mount "
	  "open_tree open_tree_attr pivot_root quotactl quotactl_fd setdomainname sethostname setns statmount "
	  "swapoff swapon umount umount2 unshare",
	  EPERM },
	{ "CAP_SYS_ADMIN CAP_BPF", "bpf", EPERM },
	{ "CAP_SYS_ADMIN CAP_PERFMON", "perf_event_open", EPERM },
	{ "CAP_SYS_ADMIN CAP_SYSLOG", "syslog", EPERM },
	{ "CAP_SYS_BOOT", "kexec_file_load kexec_load reboot", EPERM },
	{ "CAP_SYS_CHROOT", "chroot", EPERM },
	{ "CAP_SYS_MODULE", "delete_module finit_module init_module", EPERM },
	{ "CAP_SYS_NICE",
	  "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node", EPERM },
	{ "CAP_SYS_PACCT", "acct", EPERM },
	{ "CAP_SYS_PTRACE", "kcmp pidfd_getfd process_vm_readv process_vm_writev ptrace", EPERM },
	{ "CAP_SYS_RAWIO", "ioperm iopl", EPERM },
	{ "CAP_SYS_TIME", "clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday stime",
	  EPERM },
	{ "CAP_SYS_TTY_CONFIG", "vhangup", EPERM },
	{ "CAP_DAC_READ_SEARCH", "open_by_handle_at", EPERM },
	{ "",
	  "add_key io_uring_enter io_uring_register io_uring_setup keyctl request_key userfaultfd vm86 vm86old",
	  EPERM },
};

/* All flags of clone(2) that make a namespace. */
#define NEW_NAMESPACES                                                                                \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | \
	 CLONE_NEWNET)

static json_t *words(const char *text)
{
	json_t *list = json_array();

	for (; *text; text += strspn(text, " ")) {
		size_t len = strcspn(text, " ");

		json_array_append_new(list, json_stringn(text, len));
		text += len;
	}
	return list;
}

static void add_rule(json_t *rules, json_t *names, const char *action, int number, json_t *args)
{
	json_t *rule = json_pack("{s:o,s:s,s:o*}", "names", names, "action", action, "args", args);

	if (number)
		json_object_set_new(rule, "errnoRet", json_integer(number));
	json_array_append_new(rules, rule);
}

static void allow(json_t *rules, const char *names)
{
	add_rule(rules, words(names), "SCMP_ACT_ALLOW", 0, NULL);
}

/* Of the first argument. */
static json_t *argument(const char *op, u64 value)
{
	return json_pack("[{s:i,s:s,s:I,s:i}]", "index", 0, "op", op, "value", (json_int_t)value, "valueTwo",
			 0);
}

static u64 set_of(const char *text)
{
	json_t *list = words(text), *name;
	u64 set = 0;
	size_t i;

	json_array_foreach(list, i, name)
	{
		int n = caps_number(json_string_value(name));

		set |= n < 0 ? 0 : BIT(n);
	}
	json_decref(list);
	return set;
}

static json_t *usual(u64 caps)
{
	/* As Linux, as one of 32 bits, with addresses that are not randomized, both; and the question which. */
	static const u32 personalities[] = { 0, 8, 0x20000, 0x20008, 0xffffffff };
	json_t *rules = json_array();

	allow(rules, everybody);
	for (unsigned i = 0; i < ARRAY_SIZE(guarded); i++) {
		if (caps & set_of(guarded[i].caps))
			allow(rules, guarded[i].names);
		else
			add_rule(rules, words(guarded[i].names), "SCMP_ACT_ERRNO", guarded[i].number, NULL);
	}
	add_rule(rules, words("clone"), "SCMP_ACT_ALLOW", 0,
		 caps & set_of("CAP_SYS_ADMIN") ? NULL : argument("SCMP_CMP_MASKED_EQ", NEW_NAMESPACES));
	for (unsigned i = 0; i < ARRAY_SIZE(personalities); i++)
		add_rule(rules, words("personality"), "SCMP_ACT_ALLOW", 0,
			 argument("SCMP_CMP_EQ", personalities[i]));
	/* From the kernel's cryptography (AF_ALG) on: the host's or the hypervisor's business (AF_VSOCK), and rare. */
	add_rule(rules, words("socket"), "SCMP_ACT_ALLOW", 0, argument("SCMP_CMP_LT", AF_ALG));
	add_rule(rules, words("socket"), "SCMP_ACT_ERRNO", EAFNOSUPPORT, argument("SCMP_CMP_GE", AF_ALG));
	return json_pack("{s:s,s:i,s:[s,s],s:o}", "defaultAction", "SCMP_ACT_ERRNO", "defaultErrnoRet",
			 ENOSYS, "architectures", "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "syscalls", rules);
}

/* --- an engine's profile --- */

static bool has_word(const json_t *list, const char *word)
{
	const json_t *w;
	size_t i;

	json_array_foreach((json_t *)list, i,
			   w) if (json_is_string(w) && !strcmp(json_string_value(w), word)) return true;
	return false;
}

static bool older_than(const char *version)
{
	unsigned have[2] = { 0, 0 }, want[2] = { 0, 0 };
	struct utsname u;

	return !uname(&u) && sscanf(u.release, "%u.%u", &have[0], &have[1]) == 2 &&
	       sscanf(version, "%u.%u", &want[0], &want[1]) == 2 &&
	       (have[0] < want[0] || (have[0] == want[0] && have[1] < want[1]));
}

/* Whether a rule is for this container. A condition that is not known here makes a rule that allows too narrow, never too wide:
 * it is not for us. */
static bool applies(const json_t *rule, u64 caps)
{
	const json_t *in = json_object_get(rule, "includes"), *out = json_object_get(rule, "excludes"), *cap,
		     *list;
	const char *key, *version = json_string_value(json_object_get(in, "minKernel")),
			 *newest = json_string_value(json_object_get(out, "minKernel"));
	const json_t *value;
	size_t i;

	json_object_foreach((json_t *)in, key, value) if (strcmp(key, "caps") != 0 &&
							  strcmp(key, "arches") != 0 &&
							  strcmp(key, "minKernel") != 0) return false;
	if ((list = json_object_get(in, "arches")) && json_array_size(list) && !has_word(list, "amd64"))
		return false;
	if (has_word(json_object_get(out, "arches"), "amd64"))
		return false;
	json_array_foreach(json_object_get(in, "caps"), i,
			   cap) if (!(caps & set_of(json_is_string(cap) ? json_string_value(cap)
									: ""))) return false;
	json_array_foreach(json_object_get(out, "caps"), i,
			   cap) if (caps &
				    set_of(json_is_string(cap) ? json_string_value(cap) : "")) return false;
	return !(version && older_than(version)) && !(newest && !older_than(newest));
}

static void resolve(json_t *o, u64 caps)
{
	json_t *map = json_object_get(o, "archMap"), *rules = json_object_get(o, "syscalls"), *row,
	       *list = json_array(), *name;
	size_t i, k;

	json_array_foreach(map, i, row)
	{
		const char *arch = json_string_value(json_object_get(row, "architecture"));

		if (!arch || strcmp(arch, "SCMP_ARCH_X86_64") != 0)
			continue;
		json_array_append_new(list, json_string(arch));
		json_array_foreach(json_object_get(row, "subArchitectures"), k, name)
			json_array_append(list, name);
	}
	if (json_array_size(list))
		json_object_set(o, "architectures", list);
	json_decref(list);
	for (i = json_array_size(rules); i-- > 0;) {
		row = json_array_get(rules, i);
		/* The older form has one name for each rule. */
		if (json_is_string(json_object_get(row, "name")) && !json_object_get(row, "names"))
			json_object_set_new(row, "names", json_pack("[O]", json_object_get(row, "name")));
		if (!applies(row, caps))
			json_array_remove(rules, i);
	}
}

static json_t *from_file(const char *path, u64 caps, struct err *err)
{
	json_error_t bad;
	json_t *o;
	size_t len;
	void *text;

	if (os_read_file(path, 16 * MiB, &text, &len, err) < 0) {
		err_wrap(err, "--seccomp");
		return NULL;
	}
	o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &bad);
	free(text);
	if (!json_is_object(o) || !json_is_string(json_object_get(o, "defaultAction"))) {
		json_decref(o);
		err_set(err, -EINVAL,
			"--seccomp: '%.200s' is no filter: a JSON object with defaultAction and syscalls; for none give unconfined",
			path);
		return NULL;
	}
	resolve(o, caps);
	return o;
}

int ctr_seccomp_set(json_t *lin, const json_t *process, const char *how, bool bundle, struct err *err)
{
	const json_t *list = json_object_get(json_object_get(process, "capabilities"), "bounding"), *name;
	json_t *filter;
	u64 caps = 0;
	size_t i;

	if (how && !strcmp(how, "unconfined")) {
		json_object_del(lin, "seccomp");
		return 0;
	}
	/* A bundle says itself what its program may do. */
	if (!how && bundle)
		return 0;
	if (!how && !filter_available()) {
		log_warn(
			"this bothy was built without libseccomp: the container gets no filter of system calls");
		return 0;
	}
	json_array_foreach((json_t *)list, i, name) if (json_is_string(name)) caps |=
		set_of(json_string_value(name));
	filter = how ? from_file(how, caps, err) : usual(caps);
	if (!filter)
		return err->code ? err->code
				 : err_set(err, -ENOMEM, "no memory for a filter of system calls");
	json_object_set_new(lin, "seccomp", filter);
	return 0;
}
