/* exec: a process joins the namespaces and the control group of a container and becomes another program in it.
 *
 * Nothing of the container is trusted on the way: the process cannot be inspected before it joins [CVE-2016-9962],
 * descriptors close, the program is looked up after the root has changed, and the terminal is one of the container's own
 * devpts.
 */
#include "oci/container_exec.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "oci/container_init.h"
#include "oci/hooks.h"
#include "oci/process.h"
#include "oci/spawn.h"
#include "oci/spec_check.h"
#include "oci/terminal.h"
#include "oci/wire.h"

struct job {
	const struct container_options *options;
	const struct container_exec *exec;
	struct spec spec; /* of the container */
	struct status status;
	struct jtable_document doc; /* of the process */
	struct spec_process process;
	struct filter filter;
	int console_socket, agent;
	int proc; /* the host's: the container's is not asked for the attribute of a label */
	char *agent_state;
};

/* --- in the child --- */

static int open_terminal(struct job *j, struct err *err)
{
	int unlock = 0, master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NOFOLLOW), slave, rc;
	struct stat st;

	if (master < 0 || fstat(master, &st) < 0 || st.st_rdev != makedev(5, 2)) {
		if (master >= 0)
			close(master);
		return err_set(
			err, -ENXIO,
			"process.terminal: the container has no /dev/pts/ptmx; it needs a devpts on /dev/pts");
	}
	slave = ioctl(master, TIOCSPTLCK, &unlock) < 0
			? -1
			: ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return err_sys(err, -errno, "process.terminal: cannot open the terminal");
	if (j->process.console.height) {
		struct winsize w = { .ws_row = (unsigned short)j->process.console.height,
				     .ws_col = (unsigned short)j->process.console.width };

		ioctl(master, TIOCSWINSZ, &w);
	}
	rc = wire_send_fd(j->console_socket, master, "/dev/ptmx", strlen("/dev/ptmx"), err);
	close(master);
	return rc ? rc : terminal_adopt(slave, err);
}

static int child_steps(struct job *j, int wire, struct process *p, struct err *err)
{
	int rc = wire_expect(wire, WIRE_GO, NULL, 0, NULL, err);

	if (!rc && j->spec.has_namespace[NS_USER])
		rc = spawn_become_root(err);
	/* Here, where it is in its control group, whose processors it got with it. */
	if (!rc)
		rc = process_set_affinity(0, j->process.cpu_affinity.final, "final", err);
	if (rc)
		return rc;
	if (!j->options->no_keyring)
		rc = container_init_keyring(j->status.id, err);
	if (!rc)
		rc = label_open(&p->label, j->proc, err);
	close(j->proc);
	if (!rc && chdir("/") < 0)
		rc = err_sys(err, -errno, "cannot enter the container's root");
	if (!rc && j->process.terminal)
		rc = open_terminal(j, err);
	if (!rc)
		rc = process_find_program(p, err);
	if (!rc)
		rc = process_drop(p, err);
	if (rc)
		return rc;
	/* From here on the runtime's end is seen by the wire, and after its last step is none. */
	prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
	wire_send(wire, WIRE_READY, &p->limits_left, sizeof(p->limits_left));
	rc = wire_expect(wire, WIRE_GO, NULL, 0, NULL, err);
	/* The connection closes with execve(). */
	return rc ? rc : process_execute(p, err);
}

static void child(void *opaque, int wire)
{
	struct job *j = opaque;
	struct process p = {
		.spec = &j->process,
		.filter = j->spec.seccomp ? &j->filter : NULL,
		.agent = j->agent,
		.agent_state = j->agent_state,
		.label = { j->process.apparmor, j->process.selinux, -1 },
		.preserve_fds = j->options->preserve_fds,
	};
	struct err err = { 0 };

	close(j->status.dir);
	process_begin();
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	setsid();
	child_steps(j, wire, &p, &err);
	wire_send_error(wire, &err);
	_exit(1);
}

/* --- in the runtime --- */

static int parse_user(const char *text, struct spec_process *p, struct err *err)
{
	char *end;
	unsigned long uid = strtoul(text, &end, 10), gid = p->user.gid;

	if (end != text && *end == ':') {
		const char *group = end + 1;

		gid = strtoul(group, &end, 10);
		if (end == group)
			end = (char *)"?";
	}
	if (end == text || *end || text[0] == '-' || uid >= UINT32_MAX || gid >= UINT32_MAX)
		return err_set(err, -EINVAL, "--user: '%.64s' is not UID or UID:GID, as numbers", text);
	p->user.uid = (u32)uid;
	p->user.gid = (u32)gid;
	return 0;
}

/* The container's own process with what the command line changes. */
static int make_process(struct job *j, struct err *err)
{
	const struct container_exec *e = j->exec;
	struct spec_process *p = &j->process;
	const char **env;
	int rc;

	*p = *j->spec.process;
	p->args = (const char **)e->args;
	for (p->arg_count = 0; e->args[p->arg_count];)
		p->arg_count++;
	if (!p->arg_count)
		return err_set(err, -EINVAL, "exec needs a program, or --process FILE");
	p->terminal = e->terminal;
	p->console.height = p->console.width = 0;
	if (e->cwd)
		p->cwd = e->cwd;
	rc = e->user ? parse_user(e->user, p, err) : 0;
	if (rc)
		return rc;
	if (e->group_count) {
		p->user.groups = (u32 *)e->groups;
		p->user.group_count = e->group_count;
	}
	env = jtable_alloc(&j->spec.doc, (p->env_count + e->env_count + 1) * sizeof(*env));
	if (!env)
		return err_set(err, -ENOMEM, "no memory for the environment");
	if (p->env_count)
		memcpy(env, p->env, p->env_count * sizeof(*env));
	for (unsigned i = 0; i < e->env_count; i++)
		env[p->env_count + i] = e->env[i];
	p->env = env;
	p->env_count += e->env_count;
	p->no_new_privileges |= e->no_new_privileges;
	if (e->apparmor)
		p->apparmor = e->apparmor;
	if (e->selinux)
		p->selinux = e->selinux;
	rc = spec_check_process(p, err);
	for (unsigned i = 0; !rc && i < e->cap_count; i++) {
		int n = caps_number(e->caps[i]);

		if (n < 0)
			return err_set(
				err, -EINVAL,
				"--cap: there is no capability '%.64s'; the names are like CAP_NET_ADMIN",
				e->caps[i]);
		p->caps.bounding |= BIT(n);
		p->caps.effective |= BIT(n);
		p->caps.permitted |= BIT(n);
		p->caps.inheritable |= BIT(n);
	}
	return rc;
}

static int read_process(struct job *j, struct err *err)
{
	size_t len;
	void *text;
	int rc;

	if (!j->exec->process_file)
		return make_process(j, err);
	rc = os_read_file(j->exec->process_file, 16 * MiB, &text, &len, err);
	if (rc)
		return rc;
	rc = spec_open_process(&j->doc, text, len, &j->process, err);
	free(text);
	if (!rc && j->exec->terminal)
		j->process.terminal = true;
	return rc ? err_wrap(err, "--process") : 0;
}

/* The namespaces of the container's process that are not ours. */
static int open_namespaces(const struct job *j, int *fds, struct err *err)
{
	int pidfd = -1, rc = 0;

	for (enum ns_kind k = 0; k < NS_KINDS; k++)
		fds[k] = -1;
	for (enum ns_kind k = 0; k < NS_KINDS && !rc; k++) {
		char path[64];

		if (!j->spec.has_namespace[k])
			continue;
		snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)j->status.pid, ns_types[k].file);
		rc = ns_open(k, path, &fds[k], err);
		if (!rc && ns_is_own(k, fds[k])) {
			close(fds[k]);
			fds[k] = -1;
		}
	}
	/* The pid may have become another process's meanwhile. */
	if (!rc)
		rc = status_pidfd(&j->status, &pidfd, err);
	if (!rc)
		close(pidfd);
	return rc;
}

static int bring_in(struct job *j, pid_t pid, int wire, struct err *err)
{
	bool left = false;
	int rc = process_set_oom_score(pid, &j->process, err);

	if (rc)
		return rc;
	wire_send(wire, WIRE_GO, NULL, 0);
	rc = wire_expect(wire, WIRE_READY, &left, sizeof(left), NULL, err);
	if (!rc && left)
		rc = process_set_rlimits(pid, &j->process, err);
	if (!rc)
		rc = container_write_pid(j->options->pid_file, pid, err);
	if (rc)
		return rc;
	wire_send(wire, WIRE_GO, NULL, 0);
	/* Its end is the program's beginning. */
	rc = wire_expect(wire, WIRE_GO, NULL, 0, NULL, err);
	if (rc == -EPIPE) {
		if (err)
			*err = (struct err){ 0 };
		rc = 0;
	}
	return rc;
}

static int prepare(struct job *j, int foreground, struct err *err)
{
	const struct filter_spec *f = j->spec.seccomp;
	int rc = read_process(j, err);
	struct label label = { j->process.apparmor, j->process.selinux, -1 };

	if (!rc)
		rc = label_check(&label, err);
	if (rc)
		return rc;
	j->proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (j->proc < 0)
		return err_sys(err, -errno, "cannot open /proc");
	if (j->process.terminal && !j->options->console_socket && foreground < 0)
		return err_set(
			err, -EINVAL,
			"exec --tty --detach needs --console-socket, by which somebody gets the terminal's other end");
	if (foreground >= 0)
		j->console_socket = foreground;
	else if (j->options->console_socket && j->process.terminal)
		rc = wire_connect(j->options->console_socket, &j->console_socket, err);
	if (!rc && f)
		rc = filter_compile(f, &j->filter, err);
	if (!rc && f && j->filter.notify && f->listener_path && *f->listener_path) {
		char *state = hooks_state(&j->status, "running", j->status.pid, j->spec.annotations,
					  j->spec.annotation_count);
		json_t *o = json_pack("{s:s,s:[s],s:i,s:s,s:o}", "ociVersion", SPEC_VERSION, "fds",
				      "seccompFd", "pid", (int)j->status.pid, "metadata",
				      f->listener_metadata ? f->listener_metadata : "", "state",
				      json_loads(state ? state : "{}", 0, NULL));

		j->agent_state = o ? json_dumps(o, JSON_COMPACT) : NULL;
		json_decref(o);
		free(state);
		rc = wire_connect(f->listener_path, &j->agent, err);
	}
	return rc;
}

static int open_door(const struct job *j, struct cgroup_door *ret_door, struct err *err)
{
	struct cgroup *cg = malloc(sizeof(*cg));
	int rc = cg ? container_cgroup(&j->status, cg, err) : err_set(err, -ENOMEM, "no memory");

	if (!rc) {
		cgroup_descend(cg, j->status.pid);
		rc = cgroup_door_open(cg, ret_door, err);
	}
	free(cg);
	return rc;
}

static int run_job(struct job *j, int foreground, pid_t *ret_pid, struct err *err)
{
	struct spawn how = { .child = child, .opaque = j };
	struct cgroup_door door;
	cpu_set_t before;
	int wire, rc;

	memset(how.join, 0xff, sizeof(how.join));
	rc = prepare(j, foreground, err);
	if (!rc)
		rc = open_namespaces(j, how.join, err);
	if (!rc && j->status.cgroup[0] && !(rc = open_door(j, &door, err)))
		how.door = &door;
	/* Where the runtime runs until the process goes into the group [runtime-spec config.md#linux-process]. */
	sched_getaffinity(0, sizeof(before), &before);
	if (!rc)
		rc = process_set_affinity(0, j->process.cpu_affinity.initial, "initial", err);
	if (!rc)
		rc = spawn(&how, ret_pid, &wire, err);
	if (j->process.cpu_affinity.initial)
		sched_setaffinity(0, sizeof(before), &before);
	for (enum ns_kind k = 0; k < NS_KINDS; k++)
		if (how.join[k] >= 0)
			close(how.join[k]);
	if (how.door)
		cgroup_door_close(how.door);
	if (rc)
		return rc;
	if (j->console_socket >= 0)
		close(j->console_socket);
	if (j->agent >= 0)
		close(j->agent);
	close(j->proc);
	rc = bring_in(j, *ret_pid, wire, err);
	close(wire);
	if (rc) {
		kill(*ret_pid, SIGKILL);
		while (waitpid(*ret_pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	return rc;
}

int container_exec(const struct container_options *options, const char *id, const struct container_exec *exec,
		   int *ret_status, struct err *err)
{
	struct job *j = calloc(1, sizeof(*j));
	int pair[2] = { -1, -1 }, master = -1, root, status, rc;
	enum status_phase phase;
	pid_t pid;

	if (!j)
		return err_set(err, -ENOMEM, "no memory");
	j->options = options;
	j->exec = exec;
	j->console_socket = j->agent = j->proc = -1;
	*ret_status = 0;
	rc = status_open_root(options->root, &root, err);
	if (!rc) {
		rc = status_open(root, id, false, &j->status, err);
		close(root);
	}
	if (rc) {
		free(j);
		return rc;
	}
	phase = status_phase(&j->status);
	if (phase == STATUS_STOPPED || phase == STATUS_CREATING)
		rc = err_set(err, -ESRCH, "container not running: '%s' is %s", id, status_phase_name(phase));
	else if (phase == STATUS_PAUSED && !exec->ignore_paused)
		rc = err_set(err, -EBUSY, "container '%s' is paused; resume it first", id);
	if (!rc)
		rc = container_config(&j->status, &j->spec, err);
	if (!rc && !exec->detach && !options->console_socket)
		rc = terminal_pair(pair, err);
	if (!rc)
		rc = run_job(j, pair[1], &pid, err);
	if (!rc && !exec->detach) {
		if (pair[0] >= 0 && j->process.terminal)
			rc = terminal_receive(pair[0], &master, err);
		status = rc ? rc : terminal_stay(pid, master, err);
		rc = status < 0 ? status : 0;
		*ret_status = status;
		if (master >= 0)
			close(master);
	}
	if (pair[0] >= 0)
		close(pair[0]);
	free(j->filter.code);
	free(j->agent_state);
	jtable_close(&j->doc);
	spec_close(&j->spec);
	status_close(&j->status);
	free(j);
	return rc;
}
