/* What the container's process does before it becomes the container's program.
 *
 * It is in its new namespaces and its control group from its first instructions (spawn.c), and waits on the wire until the
 * runtime has written its id maps and its pid into the state. It dies when the runtime dies before its last step: at the next message, since
 * the other end of the wire is closed, or by the signal asked for with PR_SET_PDEATHSIG. After the runtime's last step it
 * waits at start.sock for `start`, which is told by the same connection whether the program could be executed: the
 * connection closes with execve(), or a sentence comes.
 */
#include "oci/container_init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "oci/hooks.h"
#include "oci/process.h"
#include "oci/spawn.h"
#include "oci/terminal.h"
#include "oci/wire.h"

int container_init_keyring(const char *id, struct err *err)
{
	char name[300];

	snprintf(name, sizeof(name), "_ses.%s", id);
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) < 0 && errno != ENOSYS && errno != EPERM &&
	    errno != EACCES)
		return err_sys(err, -errno, "cannot make a session keyring%s",
			       errno == EDQUOT ? " (too many exist; --no-new-keyring makes none)" : "");
	return 0;
}

static int set_names(const struct spec *s, struct err *err)
{
	if (s->hostname && sethostname(s->hostname, strlen(s->hostname)) < 0)
		return err_sys(err, -errno, "hostname: cannot set '%s'", s->hostname);
	if (s->domainname && setdomainname(s->domainname, strlen(s->domainname)) < 0)
		return err_sys(err, -errno, "domainname: cannot set '%s'", s->domainname);
	return 0;
}

static int bring_up_loopback(struct err *err)
{
	struct ifreq r = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = 0;

	if (fd < 0)
		return err_sys(err, -errno, "cannot make a socket in the container's network");
	r.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &r) < 0)
		rc = err_sys(err, -errno, "cannot bring up the container's loopback interface");
	close(fd);
	return rc;
}

static int set_personality(const struct spec *s, struct err *err)
{
	if (s->personality && personality(!strcmp(s->personality, "LINUX32") ? PER_LINUX32 : PER_LINUX) < 0)
		return err_sys(err, -errno, "linux.personality: cannot be set");
	return 0;
}

/* The mounts are those of a namespace that was joined: only the root is one's own. */
static int enter_joined(const struct spec *s, struct err *err)
{
	if (chdir(s->root.path) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return err_sys(err, -errno,
			       "root.path: cannot enter '%.200s' in the mount namespace that is joined",
			       s->root.path);
	return 0;
}

static int set_label(struct process *p, struct err *err)
{
	int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC), rc = label_check(&p->label, err);

	if (!rc)
		rc = label_open(&p->label, proc, err);
	if (proc >= 0)
		close(proc);
	return rc;
}

/* Namespaces and the tree of mounts. */
static int build(struct container *c, int wire, struct process *p, struct err *err)
{
	const struct spec *s = &c->spec;
	pid_t pid = 0; /* as the runtime sees it */
	bool joined = s->namespace_path[NS_MNT];
	int rc = wire_expect(wire, WIRE_GO, &pid, sizeof(pid), NULL, err);

	if (!rc && s->has_namespace[NS_USER])
		rc = spawn_become_root(err);
	if (rc)
		return rc;
	process_begin();
	if (s->has_namespace[NS_CGROUP] && !s->namespace_path[NS_CGROUP] && unshare(CLONE_NEWCGROUP) < 0)
		return err_sys(err, -errno, "cannot make a cgroup namespace");
	if (!c->options->no_keyring)
		rc = container_init_keyring(c->status.id, err);
	if (!rc && s->has_namespace[NS_NET] && !s->namespace_path[NS_NET])
		rc = bring_up_loopback(err);
	if (!rc)
		rc = set_names(s, err);
	if (!rc)
		rc = set_label(p, err);
	if (!rc && !joined)
		rc = rootfs_mount(&c->rootfs, err);
	if (!rc)
		rc = rootfs_write_sysctl(s, err);
	if (!rc && s->process->terminal)
		rc = rootfs_make_console(&c->rootfs, err);
	if (!rc && s->process->terminal)
		rc = wire_send_fd(c->console_socket, c->rootfs.console, "/dev/ptmx", strlen("/dev/ptmx"),
				  err);
	if (!rc && c->runtime_hooks) {
		wire_send(wire, WIRE_HOOKS, NULL, 0);
		rc = wire_expect(wire, WIRE_GO, NULL, 0, NULL, err);
	}
	if (!rc)
		rc = hooks_run(s, SPEC_CREATE_CONTAINER, &c->status, "creating", pid, err);
	if (!rc && !joined)
		rc = rootfs_seal(&c->rootfs, err);
	if (!rc)
		rc = joined ? enter_joined(s, err) : rootfs_enter(&c->rootfs, c->options->no_pivot, err);
	/* No working directory by a descriptor of a mount either [O02]. */
	rootfs_close(&c->rootfs);
	/* The agent is told about the container as it will be. */
	if (!rc && c->agent >= 0) {
		char *state = hooks_state(&c->status, "running", pid, s->annotations, s->annotation_count);
		json_t *o = json_pack("{s:s,s:[s],s:i,s:s?,s:o?}", "ociVersion", SPEC_VERSION, "fds",
				      "seccompFd", "pid", (int)pid, "metadata",
				      s->seccomp->listener_metadata ? s->seccomp->listener_metadata : "",
				      "state", json_loads(state ? state : "{}", 0, NULL));

		p->agent_state = o ? json_dumps(o, JSON_COMPACT) : NULL;
		json_decref(o);
		free(state);
		if (!p->agent_state)
			rc = err_set(err, -ENOMEM, "no memory for what the seccomp agent is told");
	}
	return rc;
}

/* User, capabilities, filter. */
static int receive_filter(struct container *c, int wire, struct filter *f, struct err *err)
{
	struct message {
		struct filter head;
		char code[WIRE_MAX_DATA - sizeof(struct filter)];
	} * m;
	size_t len;
	int rc;

	if (!c->spec.seccomp)
		return 0;
	m = malloc(sizeof(*m));
	if (!m)
		return err_set(err, -ENOMEM, "no memory for the filter of system calls");
	rc = wire_expect(wire, WIRE_FILTER, m, sizeof(*m), &len, err);
	if (!rc && (len < sizeof(m->head) || m->head.size != len - sizeof(m->head)))
		rc = err_set(err, -EPROTO, "the filter of system calls has come incomplete");
	if (rc) {
		free(m);
		return rc;
	}
	*f = m->head;
	f->code = m->code;
	return 0;
}

static int init_steps(struct container *c, int wire, struct process *p, struct filter *f, struct err *err)
{
	int rc = build(c, wire, p, err);

	if (!rc)
		rc = set_personality(&c->spec, err);
	if (!rc && c->rootfs.terminal >= 0) {
		close(c->rootfs.console);
		rc = terminal_adopt(c->rootfs.terminal, err);
	}
	if (!rc)
		rc = receive_filter(c, wire, f, err);
	if (!rc)
		rc = process_find_program(p, err);
	if (!rc)
		rc = process_drop(p, err);
	if (rc)
		return rc;
	/* From here on the runtime's end is seen by the wire, and after its last step is none. */
	prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
	wire_send(wire, WIRE_READY, &p->limits_left, sizeof(p->limits_left));
	return wire_expect(wire, WIRE_GO, NULL, 0, NULL, err);
}

/* Waits for `start`, then becomes the program. */
static void wait_and_execute(struct container *c, struct process *p)
{
	struct err err = { 0 };
	int conn;
	char byte;

	do
		conn = accept4(c->listen, NULL, NULL, SOCK_CLOEXEC);
	while (conn < 0 && errno == EINTR);
	if (conn < 0 || recv(conn, &byte, 1, 0) != 1)
		_exit(1);
	close(c->listen);
	if (!hooks_run(&c->spec, SPEC_START_CONTAINER, &c->status, "created", getpid(), &err))
		process_execute(p, &err);
	wire_send_error(conn, &err);
	_exit(1);
}

void container_init(struct container *c, int wire)
{
	struct filter filter = { 0 };
	struct process p = {
		.spec = c->spec.process,
		.filter = c->spec.seccomp ? &filter : NULL,
		.agent = c->agent,
		.label = { c->spec.process->apparmor, c->spec.process->selinux, -1 },
		.preserve_fds = c->options->preserve_fds,
	};
	struct err err = { 0 };

	/* The lock on the container's state is the runtime's alone, and so is the state. */
	close(c->status.dir);
	close(c->state_root);
	c->status.dir = c->state_root = -1;
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	setsid();
	if (init_steps(c, wire, &p, &filter, &err) < 0) {
		wire_send_error(wire, &err);
		_exit(1);
	}
	close(wire);
	wait_and_execute(c, &p);
}
