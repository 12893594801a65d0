/* Times every operation of the program's tables, or those named as arguments, and prints a line for each:
 *
 *	@result NAME NANOSECONDS-PER-OPERATION CHECK RUNS
 *	@skip NAME REASON
 *
 * A test is calibrated until a run lasts a tenth of its budget ("budget=MILLISECONDS", 200 unless told), and
 * then repeated until the budget is used up. The best run counts: whatever else the host does only adds time.
 * CHECK has to be the same on every machine.
 *
 * As process 1 it prints "@ready" first and "@end" last, waits after either for a line of input, so that
 * whoever started the guest can look at it meanwhile, and powers the machine off.
 */
#include "cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#define MIN_RUNS 3
/* A single run longer than this is not repeated. */
#define LONG_RUN_NS 1000000000u

volatile uint64_t cpu_sink;

uint64_t cpu_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

uint64_t cpu_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* FNV-1a [Fowler, Noll, Vo]. */
uint64_t cpu_hash(const void *p, uint64_t len)
{
	const uint8_t *bytes = p;
	uint64_t h = 0xcbf29ce484222325;

	for (uint64_t i = 0; i < len; i++)
		h = (h ^ bytes[i]) * 0x100000001b3;
	return h;
}

_Noreturn void cpu_die(const char *what)
{
	printf("@failed %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Does UNITS units: *ret_ns is what counts, the result is what it took altogether. */
static uint64_t run_once(const struct cpu_test *t, uint64_t units, uint64_t *ret_ns)
{
	uint64_t start = cpu_now_ns(), wall;

	if (t->timed) {
		*ret_ns = t->timed(units);
		return cpu_now_ns() - start;
	}
	t->run(units);
	wall = cpu_now_ns() - start;
	*ret_ns = wall;
	return wall;
}

static void measure(const struct cpu_test *t, uint64_t budget_ns)
{
	uint64_t units = 1, counted, wall, check, deadline;
	double best, per_unit;
	unsigned runs = 1;
	const char *why = t->setup ? t->setup() : NULL;

	if (why) {
		printf("@skip %s %s\n", t->name, why);
		return;
	}
	check = t->check();
	/* A first estimate from a run of a hundredth of the budget at least. */
	for (;;) {
		wall = run_once(t, units, &counted);
		if (wall >= budget_ns / 100 || units > UINT32_MAX)
			break;
		units *= wall < budget_ns / 1000 ? 8 : 2;
	}
	best = (double)counted / (double)units;
	if (wall < LONG_RUN_NS) {
		per_unit = (double)wall / (double)units;
		units = (uint64_t)((double)budget_ns / 10 / per_unit);
		if (!units)
			units = 1;
		deadline = cpu_now_ns() + budget_ns;
		do {
			run_once(t, units, &counted);
			if ((double)counted / (double)units < best)
				best = (double)counted / (double)units;
			runs++;
		} while (runs < MIN_RUNS || cpu_now_ns() < deadline);
	}
	if (t->teardown)
		t->teardown();
	printf("@result %s %.4f %016lx %u\n", t->name, best / t->ops, (unsigned long)check, runs);
}

/* One processor for this program and its children, as in a guest that has but one. */
static void stay_on_one_cpu(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void wait_for_line(void)
{
	char c;

	while (read(STDIN_FILENO, &c, 1) == 1 && c != '\n')
		;
}

static void print_clock_source(void)
{
	char name[32] = "";
	int fd;

	mount("sysfs", "/sys", "sysfs", 0, NULL);
	fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (read(fd, name, sizeof(name) - 1) > 0)
		printf("@clock %s\n", strtok(name, "\n"));
	close(fd);
}

static void list(void)
{
	for (unsigned i = 0; cpu_tables[i]; i++) {
		for (const struct cpu_test *t = cpu_tables[i]; t->name; t++)
			printf("%s\t%s\t%s\n", t->name, t->group, t->label);
	}
}

/* Whether the arguments name the test, or none at all. */
static bool wanted(const char *name, char **names)
{
	if (!*names)
		return true;
	while (*names && strcmp(*names, name))
		names++;
	return *names;
}

int main(int argc, char **argv)
{
	bool first = getpid() == 1;
	uint64_t budget_ns = 200000000;
	char **names = argv + 1;

	/* What the fork+exec test starts. */
	if (argc == 2 && !strcmp(argv[1], "exit"))
		_exit(0);
	if (argc == 2 && !strcmp(argv[1], "list")) {
		list();
		return 0;
	}
	/* Children must not print again what the parent has in its buffer. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (first) {
		printf("@ready\n");
		wait_for_line();
	}
	if (*names && !strncmp(*names, "budget=", 7))
		budget_ns = strtoull(*names++ + 7, NULL, 10) * 1000000;
	if (cpu_only_one)
		stay_on_one_cpu();
	for (unsigned i = 0; cpu_tables[i]; i++) {
		for (const struct cpu_test *t = cpu_tables[i]; t->name; t++) {
			if (wanted(t->name, names))
				measure(t, budget_ns);
		}
	}
	if (first) {
		print_clock_source();
		printf("@end\n");
		wait_for_line();
		reboot(RB_POWER_OFF);
	}
	return 0;
}
