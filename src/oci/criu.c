/* The request, the steps in between, the answer [rpc.proto of CRIU 3].
 *
 * CRIU is looked for in PATH. It dies with the runtime. For a restored tree it is in the container's control group from its
 * beginning, and so is all that it makes; and in a mount namespace of its own, where the container's root is a mount, as it
 * demands: no mount is made where the host sees it.
 *
 * What comes from CRIU is read like what comes from anybody: lengths are checked, unknown fields skipped.
 */
#include "oci/criu.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUEST_NOTIFY 6

/* --- writing --- */

static void put(struct criu_message *m, const void *data, size_t len)
{
	if (m->len + len > m->room) {
		size_t room = 2 * (m->len + len) + 64;
		u8 *more = m->failed ? NULL : realloc(m->data, room);

		if (!more) {
			m->failed = true;
			return;
		}
		m->data = more;
		m->room = room;
	}
	if (m->data)
		memcpy(m->data + m->len, data, len);
	m->len += len;
}

static void put_varint(struct criu_message *m, u64 value)
{
	u8 bytes[10];
	size_t n = 0;

	do {
		bytes[n] = (u8)(value & 0x7f) | (value > 0x7f ? 0x80 : 0);
		value >>= 7;
		n++;
	} while (value);
	put(m, bytes, n);
}

void criu_number(struct criu_message *m, u32 field, s64 value)
{
	put_varint(m, (u64)field << 3);
	put_varint(m, (u64)value);
}

static void put_bytes(struct criu_message *m, u32 field, const void *data, size_t len)
{
	put_varint(m, (u64)field << 3 | 2);
	put_varint(m, len);
	put(m, data, len);
}

void criu_text(struct criu_message *m, u32 field, const char *text)
{
	put_bytes(m, field, text, strlen(text));
}

void criu_part(struct criu_message *m, u32 field, struct criu_message *part)
{
	m->failed |= part->failed;
	if (!part->failed)
		put_bytes(m, field, part->data, part->len);
	free(part->data);
	*part = (struct criu_message){ 0 };
}

/* --- reading --- */

struct field {
	u32 number;
	u64 value; /* of a number */
	const u8 *data;
	size_t len; /* of anything else */
};

static bool take_varint(const u8 **p, const u8 *end, u64 *ret_value)
{
	u64 value = 0;

	for (unsigned shift = 0; shift < 64 && *p < end; shift += 7) {
		u8 byte = *(*p)++;

		value |= (u64)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*ret_value = value;
			return true;
		}
	}
	return false;
}

/* The next field; false at the end, and at what is no message. */
static bool take_field(const u8 **p, const u8 *end, struct field *f)
{
	u64 tag, len;

	*f = (struct field){ 0 };
	if (!take_varint(p, end, &tag) || tag >> 3 > UINT32_MAX)
		return false;
	f->number = (u32)(tag >> 3);
	switch (tag & 7) {
	case 0: return take_varint(p, end, &f->value);
	case 1: len = 8; break;
	case 2:
		if (!take_varint(p, end, &len))
			return false;
		break;
	case 5: len = 4; break;
	default: return false;
	}
	if (len > (u64)(end - *p))
		return false;
	f->data = *p;
	f->len = len;
	*p += len;
	return true;
}

struct answer {
	u64 type, code;
	bool success;
	pid_t pid;
	char step[64], text[256];
};

static void copy_text(char *out, size_t size, const struct field *f)
{
	snprintf(out, size, "%.*s", (int)MIN(f->len, size - 1), f->data ? (const char *)f->data : "");
}

static void read_answer(const u8 *data, size_t len, struct answer *a)
{
	const u8 *p = data, *end = data + len;
	struct field f, sub;

	*a = (struct answer){ 0 };
	while (take_field(&p, end, &f)) {
		const u8 *q = f.data;

		switch (f.number) {
		case 1: a->type = f.value; break;
		case 2: a->success = f.value; break;
		case 4:
			while (q && take_field(&q, f.data + f.len, &sub))
				if (sub.number == 1)
					a->pid = (pid_t)sub.value;
			break;
		case 5:
			while (q && take_field(&q, f.data + f.len, &sub)) {
				if (sub.number == 1)
					copy_text(a->step, sizeof(a->step), &sub);
				if (sub.number == 2)
					a->pid = (pid_t)sub.value;
			}
			break;
		case 7: a->code = f.value; break;
		case 9: copy_text(a->text, sizeof(a->text), &f); break;
		default: break;
		}
	}
}

/* --- the process --- */

static int child_steps(const struct criu_job *job, int fd, struct err *err)
{
	char number[16];
	int rc = job->door ? cgroup_door_enter(job->door, false, err) : 0;

	if (rc)
		return rc;
	if (job->cgroup_ns && unshare(CLONE_NEWCGROUP) < 0)
		return err_sys(err, -errno, "cannot make a cgroup namespace for CRIU");
	if (job->root && (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
			  mount(job->root, job->root, NULL, MS_BIND | MS_REC, NULL) < 0))
		return err_sys(err, -errno, "cannot make a mount of the root '%.200s' for CRIU", job->root);
	if (job->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_sys(err, -errno, "process.noNewPrivileges: cannot be set");
	fcntl(fd, F_SETFD, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(job->keep) && job->keep[i] >= 0; i++)
		fcntl(job->keep[i], F_SETFD, 0);
	snprintf(number, sizeof(number), "%d", fd);
	execlp("criu", "criu", "swrk", number, (char *)NULL);
	return errno == ENOENT
		       ? err_set(err, -ENOENT,
				 "checkpoint and restore need CRIU, which is not there; install the package "
				 "criu, or put the folder with it into PATH")
		       : err_sys(err, -errno, "cannot execute CRIU (criu)");
}

/* Over the pipe comes what the child fails with, and nothing when it has become CRIU. */
static int start(const struct criu_job *job, int *ret_socket, pid_t *ret_pid, struct err *err)
{
	struct err theirs = { 0 };
	int ends[2], failure[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return err_sys(err, -errno, "cannot make a socket for CRIU");
	if (pipe2(failure, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		int rc = err_sys(err, -errno, "cannot make a process for CRIU");

		close(ends[0]);
		close(ends[1]);
		return rc;
	}
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		child_steps(job, ends[1], &theirs);
		if (write(failure[1], &theirs, sizeof(theirs)) < 0)
			_exit(126);
		_exit(127);
	}
	close(ends[1]);
	close(failure[1]);
	if (read(failure[0], &theirs, sizeof(theirs)) == (ssize_t)sizeof(theirs)) {
		theirs.msg[sizeof(theirs.msg) - 1] = 0;
		close(ends[0]);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		close(failure[0]);
		return err_set(err, theirs.code, "%s", theirs.msg);
	}
	close(failure[0]);
	*ret_socket = ends[0];
	*ret_pid = pid;
	return 0;
}

static int send_message(int fd, struct criu_message *m, struct err *err)
{
	int rc = 0;

	if (m->failed)
		rc = err_set(err, -ENOMEM, "no memory for a request to CRIU");
	else if (send(fd, m->data, m->len, MSG_NOSIGNAL) != (ssize_t)m->len)
		rc = err_sys(err, -errno, "cannot ask CRIU");
	free(m->data);
	*m = (struct criu_message){ 0 };
	return rc;
}

/* Waits for a message, or the end of CRIU: the end of the socket comes later, if processes that it was making have it too. */
static bool wait_for(int fd, pid_t criu)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	siginfo_t info;

	for (;;) {
		info.si_pid = 0;
		if (waitid(P_PID, (id_t)criu, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == criu)
			return poll(&p, 1, 0) > 0;
		if (poll(&p, 1, 100) > 0)
			return true;
	}
}

static int receive(int fd, pid_t criu, struct answer *a, int *ret_fd, struct err *err)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	u8 data[8192];
	struct iovec v = { data, sizeof(data) };
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	struct cmsghdr *c;
	ssize_t n;

	*ret_fd = -1;
	do
		n = wait_for(fd, criu) ? recvmsg(fd, &m, MSG_CMSG_CLOEXEC) : 0;
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return err_set(err, -EPIPE, "CRIU has ended without an answer");
	c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	read_answer(data, (size_t)n, a);
	return 0;
}

static int converse(struct criu_job *job, int fd, pid_t criu, pid_t *ret_pid, struct err *err)
{
	struct criu_message m = { 0 };
	struct answer a = { 0 };
	int got = -1, rc;

	criu_number(&m, 1, job->request);
	criu_part(&m, 2, &job->options);
	rc = send_message(fd, &m, err);
	while (!rc) {
		rc = receive(fd, criu, &a, &got, err);
		if (rc)
			return rc;
		if (a.type != REQUEST_NOTIFY)
			break;
		rc = job->notify ? job->notify(job->opaque, a.step, a.pid, got, err) : 0;
		criu_number(&m, 1, REQUEST_NOTIFY);
		criu_number(&m, 3, !rc);
		/* Refused, it undoes its work before it ends. */
		if (send_message(fd, &m, rc ? NULL : err) < 0 && !rc)
			rc = -EPIPE;
		while (rc && receive(fd, criu, &a, &got, NULL) == 0 && a.type == REQUEST_NOTIFY) {
			if (got >= 0)
				close(got);
			criu_number(&m, 1, REQUEST_NOTIFY);
			criu_number(&m, 3, 0);
			send_message(fd, &m, NULL);
		}
	}
	if (rc)
		return rc;
	if (got >= 0)
		close(got);
	if (a.type != job->request || !a.success)
		return err_set(err, a.code && a.code < 4096 ? -(int)a.code : -EIO, "CRIU fails%s%s",
			       a.text[0] ? ": " : "", a.text);
	if (ret_pid)
		*ret_pid = a.pid;
	return 0;
}

int criu_run(struct criu_job *job, pid_t *ret_pid, struct err *err)
{
	pid_t criu = 0;
	int fd = -1, rc = start(job, &fd, &criu, err);

	if (!rc) {
		rc = converse(job, fd, criu, ret_pid, err);
		close(fd);
		while (waitpid(criu, NULL, 0) < 0 && errno == EINTR)
			;
	}
	free(job->options.data);
	job->options = (struct criu_message){ 0 };
	return rc;
}
