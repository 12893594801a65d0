/* Where a debugger and a machine meet: the listener, one client at a time, and what session.c asks of a machine.
 *
 * A client's bytes go through a buffer of fixed size to the session; while an answer waits to be sent, nothing more is read. A
 * client that leaves, in the middle of a packet or wherever, takes its breakpoints with it, and the machine goes on.
 *
 * The machine stands still (machine_hold()) from a stop to the client's word to go on. Several vCPUs may stop at the same moment:
 * one is told to the client at a time. Another one's breakpoint is simply met again, as its instruction has not begun; its
 * watchpoint is remembered in debug.why and told when the client wants to go on.
 *
 * State is read and written on the vCPU's own thread (vcpu_call()), memory here.
 */
#include "gdb/gdb.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/params.h"
#include "base/sock.h"
#include "base/tcp.h"
#include "gdb/gdbmon.h"
#include "gdb/session.h"
#include "machine/machine.h"
#include "vm/irq.h"
#include "vm/vm.h"

#define SIGNAL_TRAP 5
#define SIGNAL_SEGV 11

/* Addresses that the client has set by Z0, or by Z1. */
struct gdb_list {
	u32 nr;
	gva_t addr[DEBUG_MAX_CODE];
};

struct gdb {
	struct machine *machine;
	struct vm *vm;
	struct vm_debug debug;
	struct gdb_list list[2]; /* POINT_SOFT, POINT_HARD */
	unsigned bits;
	bool stopped; /* for the client: it has been told, or has asked for it */
	bool flush;   /* what a TLB keeps may be wrong now */
	bool crashed; /* a triple fault has been told */
	char *path;   /* of a Unix socket */
	int listener, fd;
	struct loop_fd *listener_handle, *handle;
	struct session session;
	u8 in[4096];
	size_t in_len;
};

/* ---- the machine, for the session ---- */

static struct vcpu *vcpu_of(const struct gdb *g, unsigned cpu)
{
	return g->vm->vcpu[cpu];
}

static unsigned op_nr_cpus(void *opaque)
{
	const struct gdb *g = opaque;

	return g->vm->nr_vcpus;
}

static bool op_running(void *opaque)
{
	const struct gdb *g = opaque;

	return !g->stopped;
}

static void op_halt(void *opaque)
{
	struct gdb *g = opaque;

	machine_hold(g->machine);
	g->stopped = true;
}

struct gdb_call {
	const struct engine_ops *engine;
	struct gdb_cpu *cpu;
	int rc;
};

static void get_on_thread(struct vcpu *vcpu, void *opaque)
{
	struct gdb_call *call = opaque;

	if (call->engine->get_state(vcpu, &call->cpu->state, NULL))
		memset(&call->cpu->state, 0, sizeof(call->cpu->state)); /* the machine ends */
	call->cpu->cr8 = irq_get_cr8(vcpu);
}

static void set_on_thread(struct vcpu *vcpu, void *opaque)
{
	struct gdb_call *call = opaque;

	call->rc = call->engine->set_state(vcpu, &call->cpu->state, NULL);
	if (!call->rc)
		irq_set_cr8(vcpu, call->cpu->cr8 & 15);
}

static void op_get(void *opaque, unsigned cpu, struct gdb_cpu *ret_cpu)
{
	struct gdb *g = opaque;
	struct gdb_call call = { .engine = g->vm->engine, .cpu = ret_cpu };

	vcpu_call(vcpu_of(g, cpu), get_on_thread, &call);
}

static int op_set(void *opaque, unsigned cpu, const struct gdb_cpu *state)
{
	struct gdb *g = opaque;
	struct gdb_call call = { .engine = g->vm->engine, .cpu = (struct gdb_cpu *)state };

	vcpu_call(vcpu_of(g, cpu), set_on_thread, &call);
	return call.rc;
}

static const char *op_cpu_text(void *opaque, unsigned cpu)
{
	struct gdb *g = opaque;

	op_get(g, cpu, &g->session.scratch);
	switch (g->session.scratch.state.activity) {
	case X86_HLT: return "halted";
	case X86_SHUTDOWN: return "shut down";
	case X86_WAIT_SIPI: return "waits for a start-up IPI";
	default: return "active";
	}
}

/* The host address of what is at la, up to the page's end; NULL: nothing in RAM. */
static u8 *host_at(struct gdb *g, unsigned cpu, gva_t la, gpa_t *ret_gpa)
{
	return g->vm->engine->translate(vcpu_of(g, cpu), la, ret_gpa) ? ram_ptr(&g->vm->ram, *ret_gpa, 1)
								      : NULL;
}

/* A device's registers are not memory: to read them may have effects. */
static size_t op_read(void *opaque, unsigned cpu, gva_t la, void *buf, size_t len)
{
	struct gdb *g = opaque;
	size_t done = 0;

	while (done < len) {
		size_t n = MIN(len - done, (size_t)(RAM_PAGE_SIZE - ((la + done) & (RAM_PAGE_SIZE - 1))));
		gpa_t gpa;
		const u8 *p = host_at(g, cpu, la + done, &gpa);

		if (!p)
			break;
		memcpy((u8 *)buf + done, p, n);
		done += n;
	}
	return done;
}

static size_t op_write(void *opaque, unsigned cpu, gva_t la, const void *buf, size_t len)
{
	struct gdb *g = opaque;
	size_t done = 0;

	while (done < len) {
		size_t n = MIN(len - done, (size_t)(RAM_PAGE_SIZE - ((la + done) & (RAM_PAGE_SIZE - 1))));
		gpa_t gpa;
		u8 *p = host_at(g, cpu, la + done, &gpa);

		if (!p || ram_is_rom(&g->vm->ram, gpa))
			break;
		memcpy(p, (const u8 *)buf + done, n);
		ram_mark_dirty(&g->vm->ram, gpa, n);
		ram_code_written(&g->vm->ram, gpa, n);
		done += n;
	}
	g->flush |= done != 0; /* a page table, perhaps */
	return done;
}

/* ---- breakpoints and watchpoints ---- */

static u32 list_find(const struct gdb_list *list, gva_t addr)
{
	u32 k = 0;

	while (k < list->nr && list->addr[k] != addr)
		k++;
	return k;
}

static bool list_has(const struct gdb_list *list, gva_t addr)
{
	return list_find(list, addr) < list->nr;
}

static int add_code(struct gdb *g, struct gdb_list *list, gva_t addr)
{
	int rc = debug_add_code(&g->debug, addr);

	if (!rc && !list_has(list, addr))
		list->addr[list->nr++] = addr; /* as many as the machine has room for */
	return rc;
}

static int del_code(struct gdb *g, struct gdb_list *list, gva_t addr)
{
	u32 k = list_find(list, addr);

	if (k < list->nr)
		list->addr[k] = list->addr[--list->nr];
	if (!list_has(&g->list[POINT_SOFT], addr) && !list_has(&g->list[POINT_HARD], addr))
		debug_del_code(&g->debug, addr);
	return 0;
}

static int op_point(void *opaque, bool add, enum session_point kind, gva_t addr, u64 len)
{
	static const u8 kinds[] = {
		[POINT_WRITE] = DEBUG_WRITE, [POINT_READ] = DEBUG_READ, [POINT_ACCESS] = DEBUG_ACCESS
	};
	struct gdb *g = opaque;

	g->flush = true;
	if (kind <= POINT_HARD)
		return (add ? add_code : del_code)(g, &g->list[kind], addr);
	struct debug_data data = { .addr = addr, .len = len, .kind = (enum debug_kind)kinds[kind] };

	if (add)
		return debug_add_data(&g->debug, &data);
	debug_del_data(&g->debug, &data);
	return 0;
}

/* ---- stops and going on ---- */

/* A watchpoint that was met is still to be told, unless it is gone. */
static bool is_news(const struct gdb *g, const struct debug_vcpu *d)
{
	return d->why == DEBUG_CRASHED ||
	       (d->why == DEBUG_AT_DATA && debug_find_data(&g->debug, d->addr, 1, (unsigned)d->kind));
}

static void tell(struct gdb *g, struct vcpu *vcpu)
{
	struct debug_vcpu *d = &vcpu->debug;
	struct session_stop stop = {
		.cpu = vcpu->id,
		.signal = d->why == DEBUG_CRASHED ? SIGNAL_SEGV : SIGNAL_TRAP,
		.why = d->why,
		.kind = d->kind,
		.addr = d->addr,
		.hard = d->why == DEBUG_AT_CODE && !list_has(&g->list[POINT_SOFT], d->addr),
	};

	g->stopped = true;
	g->crashed |= d->why == DEBUG_CRASHED;
	d->why = DEBUG_NONE;
	session_stopped(&g->session, &stop);
}

static void let_go(struct gdb *g, const enum debug_action *action)
{
	g->stopped = false;
	if (g->crashed) {
		vm_request(g->vm, VM_REQ_CRASH);
		return;
	}
	for (u32 k = 0; k < g->vm->nr_vcpus; k++) {
		struct vcpu *vcpu = g->vm->vcpu[k];

		vcpu->debug.action = action ? action[k] : DEBUG_GO;
		vcpu->debug.why = DEBUG_NONE;
		if (g->flush)
			vcpu_post(vcpu, VCPU_REQ_FLUSH);
		g->vm->engine->debug(vcpu);
	}
	g->flush = false;
	machine_release(g->machine);
}

static void op_resume(void *opaque, const enum debug_action *action)
{
	struct gdb *g = opaque;

	for (u32 k = 0; k < g->vm->nr_vcpus; k++)
		if (action[k] != DEBUG_HOLD && is_news(g, &g->vm->vcpu[k]->debug)) {
			tell(g, g->vm->vcpu[k]);
			return;
		}
	let_go(g, action);
}

static void send_out(struct gdb *g);

/* Main loop: some vCPU has stopped; in the order after the one that was told last, so that each has its turn. */
static void on_stop(void *opaque)
{
	struct gdb *g = opaque;

	if (g->stopped || machine_state(g->machine) == MACHINE_ENDING)
		return;
	machine_hold(g->machine);
	for (u32 k = 1; g->session.engaged && k <= g->vm->nr_vcpus; k++) {
		struct vcpu *vcpu = g->vm->vcpu[(g->session.last.cpu + k) % g->vm->nr_vcpus];

		if (vcpu->debug.why) {
			tell(g, vcpu);
			send_out(g);
			return;
		}
	}
	/* The client has gone meanwhile. */
	for (u32 k = 0; k < g->vm->nr_vcpus; k++)
		g->crashed |= g->vm->vcpu[k]->debug.why == DEBUG_CRASHED;
	let_go(g, NULL);
}

/* On a vCPU's thread. */
static void stopped(void *opaque)
{
	struct gdb *g = opaque;

	loop_post(g->vm->loop, on_stop, g);
}

static void op_monitor(void *opaque, unsigned cpu, const char *line, FILE *out)
{
	struct gdb *g = opaque;

	gdbmon_run(g->machine, cpu, line, out);
}

static void op_kill(void *opaque)
{
	struct gdb *g = opaque;

	machine_request_quit(g->machine, NULL);
}

static const struct session_ops machine_ops = {
	.nr_cpus = op_nr_cpus,
	.cpu_text = op_cpu_text,
	.running = op_running,
	.halt = op_halt,
	.resume = op_resume,
	.get = op_get,
	.set = op_set,
	.read = op_read,
	.write = op_write,
	.point = op_point,
	.monitor = op_monitor,
	.kill = op_kill,
};

/* ---- the client ---- */

static void client_close(struct gdb *g)
{
	if (g->fd < 0)
		return;
	loop_fd_del(g->handle);
	close(g->fd);
	g->fd = -1;
	g->handle = NULL;
	g->in_len = 0;
}

/* Nothing of it stays. */
static void client_gone(struct gdb *g)
{
	bool engaged = g->session.engaged;

	client_close(g);
	session_fini(&g->session);
	g->session.engaged = false;
	if (!engaged)
		return;
	atomic_store(&g->debug.crash_stops, false);
	if (machine_state(g->machine) == MACHINE_ENDING)
		return;
	machine_hold(g->machine);
	g->debug.nr_code = g->debug.nr_data = 0;
	g->list[0].nr = g->list[1].nr = 0;
	g->flush = true;
	let_go(g, NULL);
}

/* Sends what it takes; the rest when it takes more. */
static void send_out(struct gdb *g)
{
	struct packet_out *out = &g->session.out;

	while (g->fd >= 0 && out->len) {
		ssize_t n = send(g->fd, out->data, out->len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n <= 0) {
			client_gone(g);
			return;
		}
		packet_sent(out, (size_t)n);
	}
	if (g->fd < 0)
		return;
	if (out->failed || (g->session.closing && !out->len)) {
		client_gone(g);
		return;
	}
	loop_fd_mod(g->handle, out->len ? EPOLLOUT : EPOLLIN);
}

/* What is in the buffer, command by command. */
static void serve(struct gdb *g)
{
	size_t taken = 0;

	while (g->fd >= 0 && taken < g->in_len && machine_state(g->machine) != MACHINE_ENDING) {
		size_t n = session_input(&g->session, g->in + taken, g->in_len - taken);

		taken += n;
		atomic_store(&g->debug.crash_stops, g->session.engaged);
		send_out(g);
		if (g->fd < 0)
			return;
		if (!n && g->session.out.len)
			break; /* it does not take the last answer yet */
	}
	g->in_len -= taken;
	memmove(g->in, g->in + taken, g->in_len);
}

static void on_client(void *opaque, u32 events)
{
	struct gdb *g = opaque;
	ssize_t n;

	/* The machine is being taken apart, or reset; then there is another turn. */
	if (machine_state(g->machine) == MACHINE_ENDING)
		return;
	if (g->session.out.len)
		send_out(g);
	if (g->fd < 0 || g->session.out.len)
		return;
	if (g->in_len < sizeof(g->in)) {
		n = recv(g->fd, g->in + g->in_len, sizeof(g->in) - g->in_len, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
			client_gone(g);
			return;
		}
		if (n > 0)
			g->in_len += (size_t)n;
	}
	serve(g);
}

static bool has_left(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0;
}

static void on_listener(void *opaque, u32 events)
{
	struct gdb *g = opaque;
	int fd = g->path ? sock_accept(g->listener) : tcp_accept(g->listener);

	if (fd < 0)
		return;
	if (g->fd >= 0)
		on_client(g, EPOLLIN); /* its last word, if it has left */
	/* One at a time; who has left, or has not said a word, makes room. */
	if (g->fd >= 0 && g->session.engaged && !has_left(g->fd)) {
		close(fd);
		return;
	}
	if (g->fd >= 0)
		client_gone(g);
	if (session_init(&g->session, &machine_ops, g, g->bits, cpuid_has(&g->vm->cpuid, X86_FEATURE_AVX),
			 cpuid_has(&g->vm->cpuid, X86_FEATURE_AVX512F)) < 0 ||
	    loop_fd_add(g->vm->loop, fd, EPOLLIN, on_client, g, &g->handle, NULL) < 0) {
		session_fini(&g->session);
		close(fd);
		return;
	}
	g->fd = fd;
}

/* ---- the listener ---- */

struct gdb_settings {
	bool wait;
	u32 bits; /* index in choices, 0: none given */
};

static const char *const bits_choices[] = { "auto", "16", "32", "64", NULL };

static const struct param settings_table[] = {
	{ "wait", PARAM_FLAG, offsetof(struct gdb_settings, wait), 0, 0, NULL },
	{ "bits", PARAM_CHOICE, offsetof(struct gdb_settings, bits), 0, 0, bits_choices },
	{ .key = NULL },
};

static int listen_at(struct gdb *g, const char *address, struct err *err)
{
	int rc;

	if (strncmp(address, "unix:", 5) != 0)
		return tcp_listen("--gdb", address, &g->listener, err);
	address += 5;
	rc = sock_listen(AT_FDCWD, address, &g->listener, err);
	if (rc == -EADDRINUSE)
		return err_set(err, rc, "--gdb: %s exists already; remove it, or name another path", address);
	if (rc)
		return err_wrap(err, "--gdb");
	g->path = strdup(address);
	return g->path ? 0 : err_set(err, -ENOMEM, "no memory for --gdb");
}

static int open_at(struct gdb *g, char *text, struct err *err)
{
	struct gdb_settings settings = { 0 };
	bool is_64 = cpuid_has(&g->vm->cpuid, X86_FEATURE_LM);
	int rc = params_parse("--gdb", params_first(text), settings_table, &settings, err);

	if (rc)
		return rc;
	if (!g->vm->engine->debug || g->vm->engine_conf.lockstep)
		return err_set(err, -ENOTSUP,
			       "--gdb: the engine '%s'%s cannot be debugged; use --engine soft",
			       g->vm->engine->name, g->vm->engine_conf.lockstep ? " in lock-step" : "");
	if (settings.bits == 3 && !is_64)
		return err_set(err, -EINVAL, "--gdb: bits=64, but the processor of --cpu has no 64-bit mode");
	g->bits = settings.bits ? 8u << settings.bits : is_64 ? 64 : 32;
	rc = listen_at(g, text, err);
	if (!rc)
		rc = loop_fd_add(g->vm->loop, g->listener, EPOLLIN, on_listener, g, &g->listener_handle, err);
	if (rc)
		return rc;
	g->debug.stopped = stopped;
	g->debug.opaque = g;
	g->vm->debug = &g->debug;
	if (settings.wait)
		machine_hold(g->machine);
	return 0;
}

int gdb_open(struct machine *machine, const char *text, struct gdb **ret_gdb, struct err *err)
{
	struct gdb *g = calloc(1, sizeof(*g));
	char *copy = strdup(text);
	int rc;

	if (!g || !copy) {
		free(g);
		free(copy);
		return err_set(err, -ENOMEM, "no memory for --gdb");
	}
	g->machine = machine;
	g->vm = machine_vm(machine);
	g->listener = g->fd = -1;
	rc = open_at(g, copy, err);
	free(copy);
	if (rc) {
		gdb_close(g, 0);
		return rc;
	}
	*ret_gdb = g;
	return 0;
}

void gdb_close(struct gdb *g, int status)
{
	if (!g)
		return;
	if (g->fd >= 0) {
		session_ended(&g->session, status);
		/* Who does not take these few bytes now does not get them. */
		if (g->session.out.len &&
		    send(g->fd, g->session.out.data, g->session.out.len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			g->session.out.len = 0;
		client_close(g);
		session_fini(&g->session);
	}
	loop_fd_del(g->listener_handle);
	if (g->listener >= 0)
		close(g->listener);
	if (g->path)
		unlink(g->path);
	g->vm->debug = NULL;
	free(g->path);
	free(g);
}
