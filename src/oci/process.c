/* The last steps before the container's program.
 *
 * Order, and why. The working directory is entered with privileges first (it may be closed to the user) and looked at: one
 * that is not below the container's root is refused [O02]. The bounding set goes before the change of user, the others
 * after it. The filter of system calls is last where no_new_privs allows it without privileges, since it may forbid what
 * the steps before need; else it is loaded while CAP_SYS_ADMIN is still there. Before execve() every descriptor but the
 * preserved ones is marked to be closed.
 *
 * /etc/passwd of the container is read for HOME alone, as text, by code of our own: the C library's would load what the
 * container's nsswitch.conf names [O24].
 */
#include "oci/process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/ioprio.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "oci/wire.h"

#define ENOUGH_FILES 64 /* descriptors until the program begins, with room */
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

void process_begin(void)
{
	sigset_t none;

	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static const char *get_env(char *const *env, const char *name)
{
	size_t len = strlen(name);

	for (; env && *env; env++)
		if (!strncmp(*env, name, len) && (*env)[len] == '=')
			return *env + len + 1;
	return NULL;
}

/* HOME of the user, from a /etc/passwd that may hold anything. */
static void find_home(u32 uid, char *home, size_t size)
{
	int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	char *line = NULL;
	size_t room = 0;
	FILE *f;

	snprintf(home, size, "/");
	if (fd < 0)
		return;
	f = !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size < (off_t)MiB ? fdopen(fd, "r") : NULL;
	if (!f) {
		close(fd);
		return;
	}
	while (getline(&line, &room, f) > 0) {
		char *fields[7] = { 0 }, *rest = line;
		unsigned n = 0;

		line[strcspn(line, "\n")] = 0;
		while (n < 7 && rest)
			fields[n++] = strsep(&rest, ":");
		if (n == 7 && *fields[2] && strtoul(fields[2], NULL, 10) == uid && fields[5][0] == '/') {
			snprintf(home, size, "%s", fields[5]);
			break;
		}
	}
	free(line);
	fclose(f);
}

static int make_env(struct process *p, struct err *err)
{
	const struct spec_process *s = p->spec;
	char home[1024];
	unsigned n = 0;

	p->env = calloc(s->env_count + 2, sizeof(*p->env));
	if (!p->env)
		return err_set(err, -ENOMEM, "no memory for the environment");
	for (; n < s->env_count; n++)
		p->env[n] = (char *)s->env[n];
	if (!get_env(p->env, "HOME")) {
		find_home(s->user.uid, home, sizeof(home));
		if (asprintf(&p->env[n], "HOME=%s", home) < 0)
			return err_set(err, -ENOMEM, "no memory for the environment");
	}
	return 0;
}

static bool may_execute(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode) && st.st_mode & 0111;
}

int process_find_program(struct process *p, struct err *err)
{
	const char *name = p->spec->args[0], *path, *dir;
	struct stat st;
	int rc = make_env(p, err);

	if (rc)
		return rc;
	if (strchr(name, '/')) {
		const char *cwd = name[0] == '/' ? "" : p->spec->cwd;

		if (snprintf(p->program, sizeof(p->program), "%s%s%s", cwd, *cwd ? "/" : "", name) >=
		    (int)sizeof(p->program))
			return err_set(err, -ENAMETOOLONG,
				       "process.args[0]: the path of the program is too long");
		if (stat(p->program, &st) < 0)
			return err_sys(err, -errno, "cannot execute '%s' in the container", name);
		if (!may_execute(p->program))
			return err_set(err, -EACCES,
				       "cannot execute '%s' in the container: Permission denied", name);
		return 0;
	}
	path = get_env(p->env, "PATH");
	for (dir = path ? path : DEFAULT_PATH;;) {
		size_t len = strcspn(dir, ":");

		if (len &&
		    snprintf(p->program, sizeof(p->program), "%.*s/%s", (int)len, dir, name) <
			    (int)sizeof(p->program) &&
		    may_execute(p->program))
			return 0;
		if (!dir[len])
			break;
		dir += len + 1;
	}
	return err_set(err, -ENOENT, "executable file '%s' not found in $PATH: No such file or directory",
		       name);
}

static int enter_cwd(const char *path, bool may_fail, struct err *err)
{
	char real[4096];

	if (chdir(path) < 0)
		return may_fail ? 0
				: err_sys(err, -errno, "process.cwd: cannot enter '%s' in the container",
					  path);
	/* "(unreachable)" in front: a directory of the host, by a descriptor that has leaked. */
	if (!getcwd(real, sizeof(real)) || real[0] != '/')
		return err_set(err, -EPERM, "process.cwd: '%s' is not inside of the container's root", path);
	return 0;
}

struct sched_attr_v1 {
	u32 size, policy;
	u64 flags;
	s32 nice;
	u32 priority;
	u64 runtime, deadline, period;
};

static int set_scheduler(const struct spec_scheduler *s, struct err *err)
{
	static const struct {
		const char *name;
		u64 value;
	} policies[] = { { "SCHED_OTHER", 0 },   { "SCHED_FIFO", 1 }, { "SCHED_RR", 2 },
			 { "SCHED_BATCH", 3 },   { "SCHED_ISO", 4 },  { "SCHED_IDLE", 5 },
			 { "SCHED_DEADLINE", 6 } },
	  flags[] = { { "SCHED_FLAG_RESET_ON_FORK", 1 },  { "SCHED_FLAG_RECLAIM", 2 },
		      { "SCHED_FLAG_DL_OVERRUN", 4 },     { "SCHED_FLAG_KEEP_POLICY", 8 },
		      { "SCHED_FLAG_KEEP_PARAMS", 16 },   { "SCHED_FLAG_UTIL_CLAMP_MIN", 32 },
		      { "SCHED_FLAG_UTIL_CLAMP_MAX", 64 } };
	struct sched_attr_v1 a = {
		.size = sizeof(a),
		.nice = (s32)s->nice,
		.priority = (u32)s->priority,
		.runtime = s->runtime,
		.deadline = s->deadline,
		.period = s->period,
	};

	for (unsigned i = 0; i < ARRAY_SIZE(policies); i++)
		if (!strcmp(policies[i].name, s->policy))
			a.policy = (u32)policies[i].value;
	for (unsigned i = 0; i < s->flag_count; i++) {
		unsigned k = 0;

		while (k < ARRAY_SIZE(flags) && strcmp(flags[k].name, s->flags[i]) != 0)
			k++;
		if (k == ARRAY_SIZE(flags))
			return err_set(err, -EINVAL, "process.scheduler.flags[%u]: unknown flag '%.64s'", i,
				       s->flags[i]);
		a.flags |= flags[k].value;
	}
	if (syscall(SYS_sched_setattr, 0, &a, 0) < 0)
		return err_sys(err, -errno, "process.scheduler: cannot set %s", s->policy);
	return 0;
}

static int set_priorities(const struct spec_process *s, struct err *err)
{
	int rc = s->scheduler ? set_scheduler(s->scheduler, err) : 0;

	if (!rc && s->io_priority) {
		int class = !strcmp(s->io_priority->class, "IOPRIO_CLASS_RT")   ? IOPRIO_CLASS_RT
			    : !strcmp(s->io_priority->class, "IOPRIO_CLASS_BE") ? IOPRIO_CLASS_BE
										: IOPRIO_CLASS_IDLE;

		if (syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
			    IOPRIO_PRIO_VALUE(class, s->io_priority->priority)) < 0)
			rc = err_sys(err, -errno, "process.ioPriority: cannot set %s", s->io_priority->class);
	}
	return rc;
}

/* The null device of the host becomes the container's own: nothing of the host's file systems stays open, and a checkpoint finds
 * where it is. Another file under that name is left alone. */
static void own_null(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat st, own;

	if (null >= 0 && !fstat(null, &own) && S_ISCHR(own.st_mode) && own.st_rdev == makedev(1, 3)) {
		fcntl(null, F_SETFL, O_RDWR);
		for (int fd = 0; fd < 3; fd++)
			if (!fstat(fd, &st) && S_ISCHR(st.st_mode) && st.st_rdev == own.st_rdev)
				dup2(null, fd);
	}
	if (null >= 0)
		close(null);
}

/* Standard input, output and error belong to the process's user, so that it can open /proc/self/fd/1 again. */
static void own_stdio(const struct spec_process *s)
{
	struct stat st, null;

	if (stat("/dev/null", &null) < 0)
		null.st_rdev = 0;
	for (int fd = 0; fd < 3; fd++) {
		if (fstat(fd, &st) < 0 || st.st_uid == s->user.uid ||
		    (S_ISCHR(st.st_mode) && st.st_rdev == null.st_rdev))
			continue;
		/* Not ours to give away, or a file system without owners: then it stays. */
		if (fchown(fd, s->user.uid, (gid_t)-1) < 0)
			continue;
	}
}

static int set_user(const struct spec_process *s, struct err *err)
{
	gid_t *groups = s->user.groups;

	if (setgroups(s->user.group_count, groups) < 0 && (s->user.group_count || errno != EPERM))
		return err_sys(err, -errno, "process.user.additionalGids: cannot be set");
	if (setresgid(s->user.gid, s->user.gid, s->user.gid) < 0)
		return err_sys(err, -errno, "process.user.gid: cannot become group %u", s->user.gid);
	if (setresuid(s->user.uid, s->user.uid, s->user.uid) < 0)
		return err_sys(err, -errno, "process.user.uid: cannot become user %u", s->user.uid);
	return 0;
}

/* The agent gets the listener from a helper: once the filter is loaded, sending it may itself be what the agent is asked
 * about. The helper shares the table of descriptors and watches a word in shared memory; the process itself makes no
 * system call between loading and the helper's answer. */
static int load_filter(struct process *p, struct err *err)
{
	struct shared {
		int listener; /* -2: not yet */
		int done;
	} * shared;
	int listener = -1, rc;
	pid_t helper;

	if (!p->filter)
		return 0;
	if (!p->filter->notify)
		return filter_load(p->filter, &listener, err);
	if (p->agent < 0)
		return err_set(err, -EINVAL,
			       "linux.seccomp.listenerPath: is missing; rules with SCMP_ACT_NOTIFY need it");
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return err_sys(err, -errno, "no memory to share with a helper");
	shared->listener = -2;
	helper = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	if (helper == 0) {
		u64 end = os_now_ns() + 10000000000ull;

		while (__atomic_load_n(&shared->listener, __ATOMIC_ACQUIRE) == -2 && os_now_ns() < end)
			usleep(100);
		if (shared->listener >= 0)
			wire_send_fd(p->agent, shared->listener, p->agent_state, strlen(p->agent_state),
				     NULL);
		__atomic_store_n(&shared->done, 1, __ATOMIC_RELEASE);
		_exit(0);
	}
	if (helper < 0)
		return err_sys(err, -errno, "cannot make a helper for the seccomp agent");
	rc = filter_load(p->filter, &listener, err);
	__atomic_store_n(&shared->listener, rc ? -1 : listener, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&shared->done, __ATOMIC_ACQUIRE))
		__builtin_ia32_pause();
	return rc;
}

static void warn_missing(u64 set)
{
	char names[1024] = "";
	size_t n = 0;

	for (unsigned i = 0; caps_name(i) && n < sizeof(names); i++)
		if (set & BIT(i))
			n += (size_t)snprintf(names + n, sizeof(names) - n, " %s", caps_name(i));
	if (n)
		log_warn("capabilities that the runtime does not hold cannot be granted:%s", names);
}

static int set_rlimits(pid_t pid, const struct spec_process *s, bool last, struct err *err)
{
	for (unsigned i = 0; i < s->rlimit_count; i++) {
		const struct spec_rlimit *r = &s->rlimits[i];
		struct rlimit limit = { .rlim_cur = r->soft, .rlim_max = r->hard };
		bool few = r->resource == RLIMIT_NOFILE && r->soft < ENOUGH_FILES;

		if (last && !few)
			continue;
		if (!last && few) {
			limit.rlim_cur = ENOUGH_FILES;
			limit.rlim_max = MAX(limit.rlim_max, ENOUGH_FILES);
		}
		if (prlimit(pid, (enum __rlimit_resource)r->resource, &limit, NULL) < 0)
			return err_sys(err, -errno, "process.rlimits[%u]: cannot set %s to %llu and %llu", i,
				       r->type, (unsigned long long)r->soft, (unsigned long long)r->hard);
	}
	return 0;
}

int process_set_rlimits(pid_t pid, const struct spec_process *s, struct err *err)
{
	return set_rlimits(pid, s, false, err);
}

int process_drop(struct process *p, struct err *err)
{
	const struct spec_process *s = p->spec;
	struct caps caps = s->caps;
	u64 available = caps_available(), asked;
	int rc;

	rc = label_set(&p->label, err);
	if (!rc)
		rc = set_priorities(s, err);
	if (!rc)
		rc = enter_cwd(s->cwd, true, err);
	if (rc)
		return rc;
	if (s->user.has_umask)
		umask(s->user.umask);
	own_null();
	own_stdio(s);
	if (!s->no_new_privileges)
		rc = load_filter(p, err);
	if (rc)
		return rc;
	/* Those that a user namespace does not allow are left to the runtime; it may not set any once the user has changed. */
	p->limits_left = process_set_rlimits(0, s, NULL) < 0;
	/* What cannot be granted is no failure, but is said [runtime-spec config.md#linux-process]. */
	asked = caps.bounding | caps.effective | caps.permitted | caps.inheritable | caps.ambient;
	warn_missing(asked & ~available);
	caps.bounding &= available;
	caps.permitted &= available;
	caps.effective &= caps.permitted;
	caps.inheritable &= available;
	caps.ambient &= caps.permitted & caps.inheritable;
	rc = caps_begin(&caps, err);
	if (!rc)
		rc = set_user(s, err);
	if (!rc)
		rc = caps_apply(&caps, err);
	/* Again as the user: it may have been closed to root, and must be where it was. */
	if (!rc)
		rc = enter_cwd(s->cwd, false, err);
	if (!rc && s->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		rc = err_sys(err, -errno, "process.noNewPrivileges: cannot be set");
	return rc;
}

int process_execute(struct process *p, struct err *err)
{
	const struct spec_process *s = p->spec;
	int rc = os_cloexec_from(3 + (int)p->preserve_fds);

	/* A change of user has made the process inspectable again, or not, by the kernel's own rules; at execve() they apply. */
	if (rc)
		return err_sys(err, rc, "cannot have descriptors closed");
	for (u32 i = 0; i < p->preserve_fds; i++)
		fcntl(3 + (int)i, F_SETFD, 0);
	rc = set_rlimits(0, s, true, err);
	if (!rc && s->no_new_privileges)
		rc = load_filter(p, err);
	if (rc)
		return rc;
	execve(p->program, (char **)s->args, p->env);
	return err_sys(err, -errno, "cannot execute '%s' in the container", s->args[0]);
}

int process_set_affinity(pid_t pid, const char *list, const char *member, struct err *err)
{
	const char *p = list;
	cpu_set_t set;

	CPU_ZERO(&set);
	while (p && *p) {
		char *end;
		unsigned long first = strtoul(p, &end, 10), last = first;
		bool good = end != p && *p >= '0' && *p <= '9';

		if (good && *end == '-') {
			p = end + 1;
			last = strtoul(p, &end, 10);
			good = end != p && *p >= '0' && *p <= '9';
		}
		if (!good || (*end && *end != ',') || last < first || last >= CPU_SETSIZE)
			return err_set(
				err, -EINVAL,
				"process.execCPUAffinity.%s: '%.64s' is no list of processors, as 0-3,7",
				member, list);
		for (; first <= last; first++)
			CPU_SET(first, &set);
		p = end + (*end == ',');
	}
	if (list && *list && sched_setaffinity(pid, sizeof(set), &set) < 0)
		return err_sys(err, -errno, "process.execCPUAffinity.%s: cannot set '%.64s'", member, list);
	return 0;
}

int process_set_oom_score(pid_t pid, const struct spec_process *s, struct err *err)
{
	char path[64], text[24], now[24] = "";
	ssize_t n;
	int fd, rc = 0;

	if (!s->oom_score.set)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, -errno, "process.oomScoreAdj: cannot open '%s'", path);
	n = read(fd, now, sizeof(now) - 1);
	snprintf(text, sizeof(text), "%lld", (long long)s->oom_score.v);
	if (n > 0 && strtoll(now, NULL, 10) != s->oom_score.v && pwrite(fd, text, strlen(text), 0) < 0)
		rc = err_sys(err, -errno, "process.oomScoreAdj: cannot set %s", text);
	close(fd);
	return rc;
}
