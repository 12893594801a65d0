/* Hooks [runtime-spec config.md#posix-platform-hooks, runtime.md#lifecycle].
 *
 * A hook gets its own arguments and environment and nothing of ours: descriptors close on exec, signals are as at a
 * start. One that exceeds its timeout is killed with all that it has started in its session.
 */
#include "oci/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"

char *hooks_state(const struct status *s, const char *phase, pid_t pid, const struct limits_pair *annotations,
		  unsigned count)
{
	json_t *o = json_pack("{s:s,s:s,s:s,s:s}", "ociVersion", SPEC_VERSION, "id", s->id, "status", phase,
			      "bundle", s->bundle);
	json_t *a = count ? json_object() : NULL;
	char *text;

	for (unsigned i = 0; i < count; i++)
		json_object_set_new(a, annotations[i].name, json_string(annotations[i].value));
	if (o && pid)
		json_object_set_new(o, "pid", json_integer(pid));
	if (o && a)
		json_object_set_new(o, "annotations", a);
	text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	return text;
}

static void hook_child(const struct spec_hook *h, int input)
{
	static char *no_env[] = { NULL };
	char *no_args[] = { (char *)h->path, NULL };
	sigset_t none;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (dup2(input, 0) < 0 || dup2(2, 1) < 0)
		_exit(127);
	os_cloexec_from(3);
	execve(h->path, h->arg_count ? (char **)h->args : no_args, h->env_count ? (char **)h->env : no_env);
	_exit(errno == ENOENT ? 127 : 126);
}

/* Whether a child has ended, after up to ms milliseconds. It stays to be waited for. pidfd -1: before Linux 5.3. */
static bool has_ended(pid_t pid, int pidfd, u64 ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	siginfo_t info = { 0 };

	if (pidfd >= 0)
		return poll(&p, 1, (int)ms) > 0;
	if (ms)
		usleep((useconds_t)MIN(ms, 5) * 1000);
	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == pid;
}

static int wait_hook(const struct spec_hook *h, const char *name, pid_t pid, struct err *err)
{
	int pidfd = h->timeout.set ? pidfd_open(pid, 0) : -1, status;
	bool late = false;

	if (h->timeout.set) {
		u64 end = os_now_ns() + (u64)h->timeout.v * 1000000000ull, now;

		while ((now = os_now_ns()) < end && !has_ended(pid, pidfd, (end - now) / 1000000 + 1))
			;
		late = !has_ended(pid, pidfd, 0);
		if (late)
			kill(-pid, SIGKILL);
	}
	if (pidfd >= 0)
		close(pidfd);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_sys(err, -errno, "cannot wait for the %s hook '%s'", name, h->path);
	if (late)
		return err_set(err, -ETIMEDOUT, "the %s hook '%s' has run for more than its %lld seconds",
			       name, h->path, (long long)h->timeout.v);
	if (WIFSIGNALED(status))
		return err_set(err, -EIO, "the %s hook '%s' was ended by signal %d", name, h->path,
			       WTERMSIG(status));
	if (WEXITSTATUS(status))
		return err_set(err, -EIO, "the %s hook '%s' has failed with status %d", name, h->path,
			       WEXITSTATUS(status));
	return 0;
}

int hooks_run(const struct spec *spec, enum spec_hook_kind kind, const struct status *status,
	      const char *phase, pid_t pid, struct err *err)
{
	const struct spec_hooks *hooks = &spec->hooks[kind];
	char *state;
	int rc = 0;

	if (!hooks->count)
		return 0;
	state = hooks_state(status, phase, pid, spec->annotations, spec->annotation_count);
	if (!state)
		return err_set(err, -ENOMEM, "no memory for the state that hooks are given");
	for (unsigned i = 0; !rc && i < hooks->count; i++) {
		/* A file, not a pipe: annotations may be larger than a pipe, and a hook may choose not to read. */
		int input = memfd_create("state", MFD_CLOEXEC);
		pid_t child;

		if (input < 0 || os_write_all(input, state, strlen(state)) < 0 ||
		    lseek(input, 0, SEEK_SET) < 0) {
			rc = err_sys(err, -errno, "cannot write down the state for a hook");
			if (input >= 0)
				close(input);
			break;
		}
		child = fork();
		if (child == 0)
			hook_child(&hooks->list[i], input);
		close(input);
		rc = child < 0 ? err_sys(err, -errno, "cannot make a process for a hook")
			       : wait_hook(&hooks->list[i], spec_hook_names[kind], child, err);
	}
	free(state);
	return rc;
}
