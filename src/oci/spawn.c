/* Making a process in namespaces [clone(2), setns(2), unshare(2), user_namespaces(7), time_namespaces(7)].
 *
 * New namespaces alone take one clone(2). Joining a pid namespace, or making one of time, holds only for children, and
 * offsets of clocks have to be written before anybody is in the namespace: then a process in the middle joins and makes,
 * and its child, the container's process, is made a child of the runtime by CLONE_PARENT. Whoever makes a user namespace
 * waits until the runtime has written its maps.
 */
#include "oci/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oci/process.h"
#include "oci/wire.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

/* The child in its namespaces and its control group, or another process of the same form. */
static pid_t clone_child(u32 flags, const struct cgroup_door *door, bool *ret_inside)
{
	/* clone3(2) takes no signal for a sibling, which has that of its parent. */
	struct clone_args a = { .flags = flags, .exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD };
	pid_t pid;

	if (door && door->v2 >= 0) {
		a.flags |= CLONE_INTO_CGROUP;
		a.cgroup = (u64)door->v2;
		*ret_inside = true;
		pid = (pid_t)syscall(SYS_clone3, &a, sizeof(a));
		if (pid >= 0)
			return pid;
	}
	/* Linux before 5.7, a filter that knows no clone3(2), or rules of delegation: the child goes in by itself. */
	*ret_inside = false;
	return (pid_t)syscall(SYS_clone, (unsigned long)flags | SIGCHLD, NULL, NULL, NULL, NULL);
}

/* Does not return. */
static void run_child(const struct spawn *how, int wire, bool inside)
{
	struct err err = { 0 };

	if (how->door && cgroup_door_enter(how->door, inside, &err) < 0) {
		wire_send_error(wire, &err);
		_exit(1);
	}
	how->child(how->opaque, wire);
}

int spawn_become_root(struct err *err)
{
	/* EINVAL: 0 is not mapped. Then the process stays who it is. */
	if ((setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0) && errno != EINVAL)
		return err_sys(err, -errno, "cannot become root of the user namespace");
	return 0;
}

static int write_offsets(const struct spawn *how, pid_t pid, struct err *err)
{
	char path[64], text[128];
	int fd, rc = 0;

	if (!how->offset_count)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/timens_offsets", (int)pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, -errno, "linux.timeOffsets: cannot open '%s'", path);
	for (unsigned i = 0; !rc && i < how->offset_count; i++) {
		const struct spec_offset *o = &how->offsets[i];
		int n = snprintf(text, sizeof(text), "%s %lld %lld", o->clock, (long long)o->seconds,
				 (long long)o->nanoseconds);

		if (write(fd, text, (size_t)n) != n)
			rc = err_sys(err, -errno, "linux.timeOffsets: cannot set %s to %lld s %lld ns",
				     o->clock, (long long)o->seconds, (long long)o->nanoseconds);
	}
	close(fd);
	return rc;
}

static int middle_steps(const struct spawn *how, int wire, struct err *err)
{
	u32 first = how->create & (CLONE_NEWUSER | CLONE_NEWTIME);
	bool inside;
	pid_t pid;
	int rc;

	/* Whoever joins a container's namespaces must not be inspected from there. */
	if (!(how->create & CLONE_NEWUSER))
		process_begin();
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	rc = ns_join(how->join, err);
	if (rc)
		return rc;
	if (how->create & CLONE_NEWUSER && unshare(CLONE_NEWUSER) < 0)
		return err_sys(err, -errno, "cannot make a user namespace");
	if (how->create & CLONE_NEWTIME && unshare(CLONE_NEWTIME) < 0)
		return err_sys(err, -errno, "cannot make a time namespace");
	if (first) {
		wire_send(wire, WIRE_READY, NULL, 0);
		rc = wire_expect(wire, WIRE_GO, NULL, 0, NULL, err);
		if (rc)
			return rc;
	}
	/* Its child is seen by those of the pid namespace from the beginning; the maps have been written. */
	if (how->join[NS_PID] >= 0)
		process_begin();
	pid = clone_child((how->create & ~first) | CLONE_PARENT, how->door, &inside);
	if (pid == 0)
		run_child(how, wire, inside);
	if (pid < 0)
		return err_sys(err, -errno, "cannot make the container's process");
	wire_send(wire, WIRE_PID, &pid, sizeof(pid));
	return 0;
}

/* The middle process has a child of ours already when it dies here: it sees the end of the wire. */
static int meet_middle(const struct spawn *how, pid_t middle, int wire, pid_t *ret_pid, struct err *err)
{
	int rc = 0;

	if (how->create & (CLONE_NEWUSER | CLONE_NEWTIME)) {
		rc = wire_expect(wire, WIRE_READY, NULL, 0, NULL, err);
		if (!rc && how->create & CLONE_NEWUSER)
			rc = idmap_write(middle, &how->uids, &how->gids, err);
		if (!rc)
			rc = write_offsets(how, middle, err);
		if (!rc && wire_send(wire, WIRE_GO, NULL, 0) < 0)
			rc = err_set(err, -EPIPE, "the process in the middle has ended");
	}
	if (!rc)
		rc = wire_expect(wire, WIRE_PID, ret_pid, sizeof(*ret_pid), NULL, err);
	if (rc)
		kill(middle, SIGKILL);
	while (waitpid(middle, NULL, 0) < 0 && errno == EINTR)
		;
	return rc;
}

int spawn(const struct spawn *how, pid_t *ret_pid, int *ret_wire, struct err *err)
{
	bool middle = how->create & CLONE_NEWTIME, inside;
	struct err own = { 0 };
	int ends[2], rc = wire_pair(ends, err);
	pid_t pid, made = 0;

	if (rc)
		return rc;
	for (unsigned i = 0; i < NS_KINDS; i++)
		middle |= how->join[i] >= 0;
	pid = clone_child(middle ? 0 : how->create, middle ? NULL : how->door, &inside);
	if (pid == 0) {
		close(ends[0]);
		if (!middle)
			run_child(how, ends[1], inside);
		if (middle_steps(how, ends[1], &own) < 0)
			wire_send_error(ends[1], &own);
		_exit(0);
	}
	rc = pid < 0 ? err_sys(err, -errno, "cannot make a process in new namespaces") : 0;
	close(ends[1]);
	if (!rc && middle) {
		rc = meet_middle(how, pid, ends[0], &made, err);
		pid = made;
	} else if (!rc && how->create & CLONE_NEWUSER) {
		rc = idmap_write(pid, &how->uids, &how->gids, err);
		if (rc) {
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
		}
	}
	if (rc) {
		close(ends[0]);
		return rc;
	}
	*ret_pid = pid;
	*ret_wire = ends[0];
	return 0;
}
