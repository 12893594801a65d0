/* The commands of the GDB remote serial protocol [GDB E.2-E.4], as a table.
 *
 * Whatever a client sends, the answer is bounded: by PACKET_MAX for what is in one frame, by PACKET_OUT_MAX for what a monitor
 * command prints. The next command is not looked at before the last answer has been sent, so that a client that does not read
 * costs nothing. A command that is not known gets an empty answer, one that cannot be read E01; numbers above are errno's.
 *
 * While the guest runs only an interrupt, k and D mean anything; other commands are dropped. The first command of a new client
 * makes everything stand still, so one that connects and says nothing of the protocol does not disturb the guest.
 *
 * Omitted: non-stop mode, reverse execution, files, tracepoints, several processes.
 */
#include "gdb/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SIGNAL_INT   2
#define SIGNAL_TRAP  5
#define MAX_CPUS     64
#define MONITOR_MAX  (64 * 1024)
#define MONITOR_PART 4096 /* bytes of text in one frame */

static void answer(struct session *s, const char *text)
{
	packet_begin(&s->out);
	packet_put(&s->out, text, strlen(text));
	packet_end(&s->out);
}

static void answer_error(struct session *s, int code)
{
	packet_begin(&s->out);
	packet_text(&s->out, "E%02x", (unsigned)(code < 0 ? -code : code) & 0xff);
	packet_end(&s->out);
}

static void answer_rc(struct session *s, int rc)
{
	if (rc < 0)
		answer_error(s, rc);
	else
		answer(s, "OK");
}

#define BAD_COMMAND EPERM /* 1: what the protocol's documents use */

/* Moves *p behind c if it is there. */
static bool take(const char **p, char c)
{
	if (**p != c)
		return false;
	++*p;
	return true;
}

static bool take_text(const char **p, const char *text)
{
	size_t n = strlen(text);

	if (strncmp(*p, text, n) != 0)
		return false;
	*p += n;
	return true;
}

/* ---- processors, which are threads 1, 2, ... ---- */

/* 0 (any) and -1 (all) give SESSION_ALL. */
static bool take_thread(const struct session *s, const char **p, unsigned *ret_cpu)
{
	u64 n;

	if (take_text(p, "-1")) {
		*ret_cpu = SESSION_ALL;
		return true;
	}
	if (!packet_number(p, &n) || n > s->ops->nr_cpus(s->opaque))
		return false;
	*ret_cpu = n ? (unsigned)n - 1 : SESSION_ALL;
	return true;
}

static void do_thread(struct session *s, const char *p)
{
	char what = *p++;
	unsigned cpu;

	if ((what != 'g' && what != 'c') || !take_thread(s, &p, &cpu) || *p) {
		answer_error(s, BAD_COMMAND);
		return;
	}
	if (what == 'c')
		s->cpu_run = cpu;
	else if (cpu != SESSION_ALL)
		s->cpu = cpu;
	answer(s, "OK");
}

static void do_alive(struct session *s, const char *p)
{
	unsigned cpu;

	if (take_thread(s, &p, &cpu) && !*p)
		answer(s, "OK");
	else
		answer_error(s, BAD_COMMAND);
}

static void do_current(struct session *s, const char *p)
{
	packet_begin(&s->out);
	packet_text(&s->out, "QC%x", s->cpu + 1);
	packet_end(&s->out);
}

static void do_first_threads(struct session *s, const char *p)
{
	packet_begin(&s->out);
	for (unsigned k = 0; k < s->ops->nr_cpus(s->opaque); k++)
		packet_text(&s->out, "%c%x", k ? ',' : 'm', k + 1);
	packet_end(&s->out);
}

static void do_more_threads(struct session *s, const char *p)
{
	answer(s, "l");
}

static void do_thread_text(struct session *s, const char *p)
{
	unsigned cpu;
	const char *text;

	if (!take(&p, ',') || !take_thread(s, &p, &cpu) || *p || cpu == SESSION_ALL) {
		answer_error(s, BAD_COMMAND);
		return;
	}
	text = s->ops->cpu_text(s->opaque, cpu);
	packet_begin(&s->out);
	packet_hex(&s->out, text, strlen(text));
	packet_end(&s->out);
}

/* ---- stops ---- */

static void put_stop(struct session *s)
{
	static const char *const words[] = {
		[DEBUG_WRITE] = "watch", [DEBUG_READ] = "rwatch", [DEBUG_ACCESS] = "awatch"
	};
	const struct session_stop *stop = &s->last;

	packet_begin(&s->out);
	packet_text(&s->out, "T%02xthread:%x;", (unsigned)stop->signal, stop->cpu + 1);
	if (stop->why == DEBUG_AT_DATA)
		packet_text(&s->out, "%s:%llx;", words[stop->kind], (unsigned long long)stop->addr);
	else if (stop->why == DEBUG_AT_CODE && (stop->hard ? s->hwbreak : s->swbreak))
		packet_text(&s->out, "%s:;", stop->hard ? "hwbreak" : "swbreak");
	packet_end(&s->out);
}

void session_stopped(struct session *s, const struct session_stop *stop)
{
	s->last = *stop;
	s->cpu = stop->cpu;
	put_stop(s);
}

void session_ended(struct session *s, int status)
{
	if (!s->engaged)
		return;
	packet_begin(&s->out);
	packet_text(&s->out, "W%02x", (unsigned)status & 0xff);
	packet_end(&s->out);
}

static void halt(struct session *s, int signal)
{
	s->ops->halt(s->opaque);
	s->last = (struct session_stop){ .cpu = s->cpu, .signal = signal };
}

static void do_why(struct session *s, const char *p)
{
	put_stop(s);
}

/* ---- going on ---- */

static void go(struct session *s, enum debug_action one, unsigned cpu, enum debug_action others)
{
	enum debug_action action[MAX_CPUS];

	for (unsigned k = 0; k < MAX_CPUS; k++)
		action[k] = cpu == SESSION_ALL || k == cpu ? one : others;
	s->ops->resume(s->opaque, action);
}

static bool set_pc(struct session *s, unsigned cpu, u64 pc)
{
	u8 value[GDBREGS_MAX_SIZE] = { 0 };
	unsigned n = s->regs.bits == 64 ? 16 : 8; /* rip, eip */

	for (unsigned k = 0; k < 8; k++)
		value[k] = (u8)(pc >> 8 * k);
	s->ops->get(s->opaque, cpu, &s->scratch);
	return gdbregs_set(&s->regs, n, &s->scratch, value) && s->ops->set(s->opaque, cpu, &s->scratch) == 0;
}

/* c, s [address]; C, S signal[;address]: there are no signals to be given to a machine. */
static void old_resume(struct session *s, const char *p, enum debug_action action, bool signal)
{
	unsigned cpu = s->cpu_run;
	u64 n;

	if (signal && (!packet_number(&p, &n) || (*p && !take(&p, ';')))) {
		answer_error(s, BAD_COMMAND);
		return;
	}
	if (*p && (!packet_number(&p, &n) || *p || !set_pc(s, cpu == SESSION_ALL ? s->cpu : cpu, n))) {
		answer_error(s, BAD_COMMAND);
		return;
	}
	/* A step is one processor's. */
	if (action == DEBUG_STEP && cpu == SESSION_ALL)
		cpu = s->cpu;
	go(s, action, cpu, action == DEBUG_STEP || cpu != SESSION_ALL ? DEBUG_HOLD : DEBUG_GO);
}

static void do_continue(struct session *s, const char *p)
{
	old_resume(s, p, DEBUG_GO, false);
}

static void do_continue_signal(struct session *s, const char *p)
{
	old_resume(s, p, DEBUG_GO, true);
}

static void do_step(struct session *s, const char *p)
{
	old_resume(s, p, DEBUG_STEP, false);
}

static void do_step_signal(struct session *s, const char *p)
{
	old_resume(s, p, DEBUG_STEP, true);
}

static void do_vcont_query(struct session *s, const char *p)
{
	answer(s, "vCont;c;C;s;S");
}

/* vCont;action[:thread]...: of several for one thread the leftmost holds; one without holds where none did before. */
static void do_vcont(struct session *s, const char *p)
{
	enum debug_action action[MAX_CPUS];
	bool set[MAX_CPUS] = { false };

	for (unsigned k = 0; k < MAX_CPUS; k++)
		action[k] = DEBUG_HOLD;
	while (take(&p, ';')) {
		char what = *p++;
		unsigned cpu = SESSION_ALL;
		u64 signal;
		bool known = what == 'c' || what == 's' ||
			     ((what == 'C' || what == 'S') && packet_number(&p, &signal));

		if (!known || (take(&p, ':') && !take_thread(s, &p, &cpu))) {
			answer_error(s, BAD_COMMAND);
			return;
		}
		for (unsigned k = 0; k < MAX_CPUS; k++)
			if (!set[k] && (cpu == SESSION_ALL || cpu == k)) {
				action[k] = what == 'c' || what == 'C' ? DEBUG_GO : DEBUG_STEP;
				set[k] = true;
			}
	}
	if (*p) {
		answer_error(s, BAD_COMMAND);
		return;
	}
	s->ops->resume(s->opaque, action);
}

static void do_detach(struct session *s, const char *p)
{
	answer(s, "OK");
	s->closing = s->detached = true;
}

static void do_kill(struct session *s, const char *p)
{
	s->ops->kill(s->opaque);
	s->closing = true;
}

static void do_vkill(struct session *s, const char *p)
{
	answer(s, "OK");
	do_kill(s, p);
}

/* ---- registers ---- */

static void do_get_group(struct session *s, const char *p)
{
	u8 value[GDBREGS_MAX_SIZE];

	s->ops->get(s->opaque, s->cpu, &s->scratch);
	packet_begin(&s->out);
	for (unsigned n = 0; n < s->regs.nr_group; n++) {
		gdbregs_get(&s->regs, n, &s->scratch, value);
		packet_hex(&s->out, value, s->regs.reg[n].size);
	}
	packet_end(&s->out);
}

static void do_set_group(struct session *s, const char *p)
{
	u8 value[GDBREGS_MAX_SIZE];

	s->ops->get(s->opaque, s->cpu, &s->scratch);
	for (unsigned n = 0; n < s->regs.nr && *p; n++) {
		if (!packet_unhex(&p, value, s->regs.reg[n].size)) {
			answer_error(s, BAD_COMMAND);
			return;
		}
		/* What cannot be set stays: the client sends all of them for one. */
		gdbregs_set(&s->regs, n, &s->scratch, value);
	}
	if (*p)
		answer_error(s, BAD_COMMAND);
	else
		answer_rc(s, s->ops->set(s->opaque, s->cpu, &s->scratch));
}

static void do_get_register(struct session *s, const char *p)
{
	u8 value[GDBREGS_MAX_SIZE];
	u64 n;

	if (!packet_number(&p, &n) || *p || n >= s->regs.nr) {
		answer_error(s, BAD_COMMAND);
		return;
	}
	s->ops->get(s->opaque, s->cpu, &s->scratch);
	gdbregs_get(&s->regs, (unsigned)n, &s->scratch, value);
	packet_begin(&s->out);
	packet_hex(&s->out, value, s->regs.reg[n].size);
	packet_end(&s->out);
}

static void do_set_register(struct session *s, const char *p)
{
	u8 value[GDBREGS_MAX_SIZE];
	u64 n;

	if (!packet_number(&p, &n) || !take(&p, '=') || n >= s->regs.nr ||
	    !packet_unhex(&p, value, s->regs.reg[n].size) || *p) {
		answer_error(s, BAD_COMMAND);
		return;
	}
	s->ops->get(s->opaque, s->cpu, &s->scratch);
	if (!gdbregs_set(&s->regs, (unsigned)n, &s->scratch, value))
		answer_error(s, EINVAL);
	else
		answer_rc(s, s->ops->set(s->opaque, s->cpu, &s->scratch));
}

/* ---- memory ---- */

static bool take_range(const char **p, u64 *ret_addr, u64 *ret_len)
{
	return packet_number(p, ret_addr) && take(p, ',') && packet_number(p, ret_len);
}

static void do_read(struct session *s, const char *p)
{
	u8 bytes[PACKET_MAX / 2];
	u64 addr, len;
	size_t got;

	if (!take_range(&p, &addr, &len) || *p) {
		answer_error(s, BAD_COMMAND);
		return;
	}
	/* Fewer are allowed. */
	len = MIN(len, sizeof(bytes));
	got = s->ops->read(s->opaque, s->cpu, addr, bytes, (size_t)len);
	if (!got && len) {
		answer_error(s, EFAULT);
		return;
	}
	packet_begin(&s->out);
	packet_hex(&s->out, bytes, got);
	packet_end(&s->out);
}

static void write_bytes(struct session *s, u64 addr, const void *bytes, size_t len)
{
	answer_rc(s, s->ops->write(s->opaque, s->cpu, addr, bytes, len) == len ? 0 : -EFAULT);
}

static void do_write_hex(struct session *s, const char *p)
{
	u8 bytes[PACKET_MAX / 2];
	u64 addr, len;

	if (!take_range(&p, &addr, &len) || !take(&p, ':') || len > sizeof(bytes) ||
	    !packet_unhex(&p, bytes, (size_t)len) || *p)
		answer_error(s, BAD_COMMAND);
	else
		write_bytes(s, addr, bytes, (size_t)len);
}

static void do_write_binary(struct session *s, const char *p)
{
	u64 addr, len;

	if (!take_range(&p, &addr, &len) || !take(&p, ':') || len != s->in.len - (u64)(p - s->in.data))
		answer_error(s, BAD_COMMAND);
	else
		write_bytes(s, addr, p, (size_t)len);
}

/* ---- breakpoints and watchpoints ---- */

static void point(struct session *s, const char *p, bool add)
{
	char kind = *p ? *p++ : 0;
	u64 addr, len;

	if (kind < '0' || kind > '4') {
		answer(s, "");
		return;
	}
	/* Conditions and commands, for the target to look at, have not been offered. */
	if (!take(&p, ',') || !take_range(&p, &addr, &len) || *p) {
		answer_error(s, BAD_COMMAND);
		return;
	}
	answer_rc(s, s->ops->point(s->opaque, add, (enum session_point)(kind - '0'), addr, len));
}

static void do_add_point(struct session *s, const char *p)
{
	point(s, p, true);
}

static void do_del_point(struct session *s, const char *p)
{
	point(s, p, false);
}

/* ---- what is there ---- */

static void do_supported(struct session *s, const char *p)
{
	s->swbreak = strstr(p, "swbreak+");
	s->hwbreak = strstr(p, "hwbreak+");
	packet_begin(&s->out);
	packet_text(
		&s->out,
		"PacketSize=%x;qXfer:features:read+;qXfer:threads:read+;swbreak+;hwbreak+;vContSupported+;"
		"QStartNoAckMode+",
		PACKET_MAX);
	packet_end(&s->out);
}

/* offset,length of an object's text. */
static void part_of(struct session *s, const char *p, const char *text)
{
	u64 from, len, size = strlen(text);

	if (!take_range(&p, &from, &len) || *p || from > size) {
		answer_error(s, BAD_COMMAND);
		return;
	}
	len = MIN(len, (u64)PACKET_MAX / 2); /* escapes may double it */
	len = MIN(len, size - from);
	packet_begin(&s->out);
	packet_put(&s->out, from + len == size ? "l" : "m", 1);
	packet_put(&s->out, text + from, (size_t)len);
	packet_end(&s->out);
}

static void do_features(struct session *s, const char *p)
{
	if (take_text(&p, "target.xml:"))
		part_of(s, p, s->xml);
	else
		answer_error(s, ENOENT);
}

static void do_threads(struct session *s, const char *p)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out) {
		answer_error(s, ENOMEM);
		return;
	}
	fputs("<?xml version=\"1.0\"?><threads>", out);
	for (unsigned k = 0; k < s->ops->nr_cpus(s->opaque); k++)
		fprintf(out, "<thread id=\"%x\" core=\"%u\" name=\"vCPU %u\">%s</thread>", k + 1, k, k,
			s->ops->cpu_text(s->opaque, k));
	fputs("</threads>", out);
	fclose(out);
	part_of(s, p, text);
	free(text);
}

static void do_attached(struct session *s, const char *p)
{
	answer(s, "1");
}

static void do_no_ack(struct session *s, const char *p)
{
	answer(s, "OK");
	s->no_ack = true;
}

static void do_ok(struct session *s, const char *p)
{
	answer(s, "OK");
}

/* ---- monitor ---- */

static void print(struct session *s, const char *text, size_t len)
{
	len = MIN(len, (size_t)MONITOR_MAX);
	while (len) {
		size_t n = MIN(len, (size_t)MONITOR_PART);

		packet_begin(&s->out);
		packet_put(&s->out, "O", 1);
		packet_hex(&s->out, text, n);
		packet_end(&s->out);
		text += n;
		len -= n;
	}
}

static void do_monitor(struct session *s, const char *p)
{
	char line[256] = "", *text = NULL;
	size_t n = strlen(p) / 2, len = 0;
	FILE *out;

	if (n >= sizeof(line) || !packet_unhex(&p, line, n) || *p) {
		answer_error(s, BAD_COMMAND);
		return;
	}
	out = open_memstream(&text, &len);
	if (!out) {
		answer_error(s, ENOMEM);
		return;
	}
	s->ops->monitor(s->opaque, s->cpu, line, out);
	fclose(out);
	print(s, text, len);
	free(text);
	answer(s, "OK");
}

/* ---- the table ---- */

struct session_command {
	const char *name;
	void (*fn)(struct session *s, const char *arguments);
	bool whole;   /* nothing follows the name */
	bool running; /* also while the guest runs */
};

/* A name that is the beginning of another one comes after it. */
static const struct session_command commands[] = {
	{ "?", do_why, true, false },
	{ "C", do_continue_signal, false, false },
	{ "D", do_detach, false, true },
	{ "G", do_set_group, false, false },
	{ "H", do_thread, false, false },
	{ "M", do_write_hex, false, false },
	{ "P", do_set_register, false, false },
	{ "QStartNoAckMode", do_no_ack, true, false },
	{ "S", do_step_signal, false, false },
	{ "T", do_alive, false, false },
	{ "X", do_write_binary, false, false },
	{ "Z", do_add_point, false, false },
	{ "c", do_continue, false, false },
	{ "g", do_get_group, true, false },
	{ "k", do_kill, false, true },
	{ "m", do_read, false, false },
	{ "p", do_get_register, false, false },
	{ "qAttached", do_attached, false, false },
	{ "qC", do_current, true, false },
	{ "qRcmd,", do_monitor, false, false },
	{ "qSupported", do_supported, false, false },
	{ "qSymbol::", do_ok, false, false },
	{ "qThreadExtraInfo", do_thread_text, false, false },
	{ "qXfer:features:read:", do_features, false, false },
	{ "qXfer:threads:read::", do_threads, false, false },
	{ "qfThreadInfo", do_first_threads, true, false },
	{ "qsThreadInfo", do_more_threads, true, false },
	{ "s", do_step, false, false },
	{ "vCont?", do_vcont_query, true, false },
	{ "vCont", do_vcont, false, false },
	{ "vKill", do_vkill, false, true },
	{ "z", do_del_point, false, false },
};

static void command(struct session *s)
{
	bool running = s->engaged && s->ops->running(s->opaque);

	if (!s->engaged) {
		s->engaged = true;
		halt(s, SIGNAL_TRAP);
	}
	for (size_t k = 0; k < ARRAY_SIZE(commands); k++) {
		const struct session_command *c = &commands[k];
		const char *p = s->in.data;

		if (!take_text(&p, c->name) || (c->whole && *p))
			continue;
		if (!running || c->running)
			c->fn(s, p);
		return;
	}
	if (!running)
		answer(s, "");
}

static void interrupt(struct session *s)
{
	if (!s->engaged || !s->ops->running(s->opaque))
		return;
	halt(s, SIGNAL_INT);
	put_stop(s);
}

static void handle(struct session *s, enum packet_event event)
{
	switch (event) {
	case PACKET_GOOD:
		if (!s->no_ack)
			packet_put_raw(&s->out, '+');
		command(s);
		break;
	case PACKET_LONG:
		if (!s->no_ack)
			packet_put_raw(&s->out, '+');
		answer_error(s, E2BIG);
		break;
	case PACKET_BAD:
		if (!s->no_ack)
			packet_put_raw(&s->out, '-');
		break;
	case PACKET_BREAK: interrupt(s); break;
	case PACKET_NONE:
	case PACKET_ACK:
	case PACKET_NAK: break; /* the way is a reliable one: nothing is sent twice */
	}
}

size_t session_input(struct session *s, const u8 *bytes, size_t len)
{
	size_t taken = 0;

	while (taken < len && !s->out.len && !s->closing && !s->out.failed) {
		enum packet_event event;

		taken += packet_feed(&s->in, bytes + taken, len - taken, &event);
		handle(s, event);
	}
	return taken;
}

int session_init(struct session *s, const struct session_ops *ops, void *opaque, unsigned bits, bool avx,
		 bool avx512)
{
	memset(s, 0, sizeof(*s));
	s->ops = ops;
	s->opaque = opaque;
	s->cpu_run = SESSION_ALL;
	s->last.signal = SIGNAL_TRAP;
	gdbregs_init(&s->regs, bits, avx, avx512);
	s->xml = gdbregs_xml(&s->regs);
	return s->xml ? 0 : -ENOMEM;
}

void session_fini(struct session *s)
{
	free(s->xml);
	free(s->out.data);
	s->xml = NULL;
	s->out = (struct packet_out){ .data = NULL };
}
