#include "faketarget.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define must(ok)                 \
	do {                     \
		if (!(ok))       \
			abort(); \
	} while (0)

static unsigned nr_cpus(void *opaque)
{
	return FAKE_CPUS;
}

static const char *cpu_text(void *opaque, unsigned cpu)
{
	struct fake_target *f = opaque;

	must(cpu < FAKE_CPUS && !f->running);
	return "fake";
}

static bool running(void *opaque)
{
	struct fake_target *f = opaque;

	return f->running;
}

static void halt(void *opaque)
{
	struct fake_target *f = opaque;

	f->running = false;
	f->halts++;
}

static void resume(void *opaque, const enum debug_action *action)
{
	struct fake_target *f = opaque;

	must(!f->running);
	for (unsigned k = 0; k < FAKE_CPUS; k++) {
		must(action[k] == DEBUG_GO || action[k] == DEBUG_STEP || action[k] == DEBUG_HOLD);
		f->action[k] = action[k];
	}
	f->running = true;
	f->resumes++;
}

static void get(void *opaque, unsigned cpu, struct gdb_cpu *ret_cpu)
{
	struct fake_target *f = opaque;

	must(cpu < FAKE_CPUS && !f->running);
	*ret_cpu = f->cpu[cpu];
}

static int set(void *opaque, unsigned cpu, const struct gdb_cpu *state)
{
	struct fake_target *f = opaque;

	must(cpu < FAKE_CPUS && !f->running);
	must(state->state.rflags & FL_RES1);
	if (state->state.cr0 >> 32)
		return -EINVAL;
	f->cpu[cpu] = *state;
	return 0;
}

/* How much of [la, la + len) there is. */
static size_t there(gva_t la, size_t len)
{
	if (la < FAKE_BASE || la >= FAKE_BASE + FAKE_MEMORY)
		return 0;
	return MIN(len, (size_t)(FAKE_BASE + FAKE_MEMORY - la));
}

static size_t do_read(void *opaque, unsigned cpu, gva_t la, void *buf, size_t len)
{
	struct fake_target *f = opaque;
	size_t n = there(la, len);

	must(cpu < FAKE_CPUS && !f->running && len <= PACKET_MAX);
	if (n)
		memcpy(buf, f->memory + (la - FAKE_BASE), n);
	return n;
}

static size_t do_write(void *opaque, unsigned cpu, gva_t la, const void *buf, size_t len)
{
	struct fake_target *f = opaque;
	size_t n = there(la, len);

	must(cpu < FAKE_CPUS && !f->running && len <= PACKET_MAX);
	if (n)
		memcpy(f->memory + (la - FAKE_BASE), buf, n);
	return n;
}

static int point(void *opaque, bool add, enum session_point kind, gva_t addr, u64 len)
{
	struct fake_target *f = opaque;

	must(!f->running && kind <= POINT_ACCESS);
	f->last_kind = (int)kind;
	f->last_addr = addr;
	f->last_len = len;
	f->points += add;
	return add && f->points > 1000 ? -ENOSPC : 0;
}

static void monitor(void *opaque, unsigned cpu, const char *line, FILE *out)
{
	struct fake_target *f = opaque;

	must(cpu < FAKE_CPUS && !f->running && strlen(line) < sizeof(f->line));
	strcpy(f->line, line);
	fprintf(out, "You said '%s'.\n", line);
	for (unsigned k = 0; !strcmp(line, "much") && k < 100000; k++)
		fputs("A line of text.\n", out);
}

static void do_kill(void *opaque)
{
	struct fake_target *f = opaque;

	f->killed = true;
}

static const struct session_ops ops = {
	.nr_cpus = nr_cpus,
	.cpu_text = cpu_text,
	.running = running,
	.halt = halt,
	.resume = resume,
	.get = get,
	.set = set,
	.read = do_read,
	.write = do_write,
	.point = point,
	.monitor = monitor,
	.kill = do_kill,
};

void fake_target_init(struct fake_target *f, unsigned bits)
{
	memset(f, 0, sizeof(*f));
	for (unsigned k = 0; k < FAKE_CPUS; k++) {
		x86_state_reset(&f->cpu[k].state, false, k == 0, 0);
		for (unsigned r = 0; r < X86_NR_GPR; r++)
			f->cpu[k].state.gpr[r] = 0x1111111111111111ull * (r + 1);
	}
	f->running = true;
	must(session_init(&f->session, &ops, f, bits, true, true) == 0);
}

void fake_target_fini(struct fake_target *f)
{
	session_fini(&f->session);
}

void fake_target_stop(struct fake_target *f, unsigned cpu, enum debug_why why, gva_t addr)
{
	const struct session_stop stop = {
		.cpu = cpu, .signal = 5, .why = why, .kind = DEBUG_WRITE, .addr = addr
	};

	f->running = false;
	session_stopped(&f->session, &stop);
}
