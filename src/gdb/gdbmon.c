/* The words behind `monitor` in a debugger: a table. What they show is what other commands of bothy show too. */
#include "gdb/gdbmon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/machine.h"
#include "vm/device.h"
#include "vm/vm.h"

struct gdbmon {
	struct machine *machine;
	struct vm *vm;
	unsigned cpu;
	const char *argument; /* what is behind the word, perhaps empty */
	FILE *out;
};

static void do_exits(struct gdbmon *m)
{
	int vcpu = EXIT_ALL_VCPUS;
	char *end;

	if (*m->argument) {
		unsigned long n = strtoul(m->argument, &end, 10);

		if (*end || end == m->argument || n >= m->vm->nr_vcpus) {
			fprintf(m->out, "There is no vCPU '%s'; there are 0 to %u.\n", m->argument,
				m->vm->nr_vcpus - 1);
			return;
		}
		vcpu = (int)n;
	}
	exit_print(m->vm, vcpu, m->out);
}

static void print_engine(struct gdbmon *m, unsigned cpu)
{
	struct engine_stat stat[ENGINE_MAX_STATS];
	unsigned n = m->vm->engine->stats ? m->vm->engine->stats(m->vm->vcpu[cpu], stat) : 0;

	for (unsigned k = 0; k < n; k++)
		fprintf(m->out, "  %-28s %14llu\n", stat[k].name, (unsigned long long)stat[k].value);
}

static void do_stats(struct gdbmon *m)
{
	for (u32 k = 0; k < m->vm->nr_vcpus; k++)
		fprintf(m->out, "vCPU %u: %.3f s of processor time\n", k,
			(double)vcpu_cpu_ns(m->vm->vcpu[k]) / 1e9);
	for (struct device *dev = m->vm->devices; dev; dev = dev->next) {
		struct device_stat stat[DEVICE_MAX_STATS];
		unsigned n = dev->ops->stats ? dev->ops->stats(dev, stat) : 0;

		if (n)
			fprintf(m->out, "%s (%s)\n", dev->id, dev->ops->name);
		for (unsigned k = 0; k < n; k++)
			fprintf(m->out, "  %-28s %14llu\n", stat[k].name, (unsigned long long)stat[k].value);
	}
}

static void do_translations(struct gdbmon *m)
{
	struct vcpu *vcpu = m->vm->vcpu[m->cpu];
	gpa_t gpa;
	gva_t la;
	char *end;

	if (!*m->argument) {
		fprintf(m->out, "engine '%s', vCPU %u\n", m->vm->engine->name, m->cpu);
		print_engine(m, m->cpu);
		return;
	}
	errno = 0;
	la = strtoull(m->argument, &end, 0);
	if (*end || errno)
		fprintf(m->out, "'%s' is no address.\n", m->argument);
	else if (!m->vm->engine->translate(vcpu, la, &gpa))
		fprintf(m->out, "%#llx is not mapped by the page tables of vCPU %u.\n",
			(unsigned long long)la, m->cpu);
	else
		fprintf(m->out, "%#llx is at the physical address %#llx, which is %s.\n",
			(unsigned long long)la, (unsigned long long)gpa,
			ram_ptr(&m->vm->ram, gpa, 1) ? "in memory" : "not in memory");
}

static void do_reset(struct gdbmon *m)
{
	struct err err = { 0 };

	if (machine_request_reset(m->machine, &err))
		fprintf(m->out, "%s.\n", err.msg);
	else
		fputs("The machine is reset, and stands before its first instruction. gdb's view of the registers is old: "
		      "'maintenance flush register-cache' renews it.\n",
		      m->out);
}

static void do_help(struct gdbmon *m);

static const struct {
	const char *word, *argument, *help;
	void (*fn)(struct gdbmon *m);
} words[] = {
	{ "exits", "[VCPU]", "how often and how long the guest left its own code, by reason", do_exits },
	{ "help", "", "this list", do_help },
	{ "reset", "", "press the reset button", do_reset },
	{ "stats", "", "what processors and devices have done so far", do_stats },
	{ "translations", "[ADDRESS]",
	  "what the engine counts of translated code and of its TLBs for the chosen vCPU; or where a virtual address leads",
	  do_translations },
};

static void do_help(struct gdbmon *m)
{
	for (size_t k = 0; k < ARRAY_SIZE(words); k++)
		fprintf(m->out, "monitor %s %s%s- %s\n", words[k].word, words[k].argument,
			*words[k].argument ? " " : "", words[k].help);
}

void gdbmon_run(struct machine *machine, unsigned cpu, const char *line, FILE *out)
{
	struct gdbmon m = { .machine = machine, .vm = machine_vm(machine), .cpu = cpu, .out = out };
	size_t len = strcspn(line, " ");

	m.argument = line + len + strspn(line + len, " ");
	for (size_t k = 0; k < ARRAY_SIZE(words); k++)
		if (strlen(words[k].word) == len && !strncmp(words[k].word, line, len)) {
			words[k].fn(&m);
			return;
		}
	fprintf(out, "There is no command '%.*s'. These are there:\n", (int)len, line);
	do_help(&m);
}
