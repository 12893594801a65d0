/* bothy top: what each machine has done since the last look, per second.
 *
 * On a terminal it has the screen for itself and goes on until q or Ctrl-C. Otherwise, and with --once or --json, it looks twice
 * and prints once. A machine that is new at a look is shown from the next one on.
 */
#include "cli/top.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "cli/vmname.h"

#if HAVE_API
#include "api/runtime.h"
#endif

#define TOP_REASONS 4
#define WIDTH       100 /* of a line where there is no terminal */

struct top_options {
	bool once, json;
	u32 interval;
};

static const struct opt top_opts[] = {
	{
		.name = "interval",
		.kind = OPT_U32,
		.arg = "SECONDS",
		.help = "How long each look takes.",
		.default_text = "1",
		.min = 1,
		.max = 3600,
		.offset = offsetof(struct top_options, interval),
	},
	{
		.name = "once",
		.kind = OPT_FLAG,
		.help = "Print once and end, as is done where there is no terminal.",
		.offset = offsetof(struct top_options, once),
	},
	{
		.name = "json",
		.kind = OPT_FLAG,
		.help = "Print once, as JSON.",
		.offset = offsetof(struct top_options, json),
	},
	{ .name = NULL },
};

#if HAVE_API

/* An object: each machine's statistics by its name. */
static int look(json_t **ret_all, struct err *err)
{
	struct runtime_list list = { 0 };
	json_t *all;
	int rc = runtime_list(&list, err);

	if (rc)
		return rc;
	all = json_object();
	for (unsigned i = 0; i < list.nr; i++) {
		json_t *stats = NULL;
		struct err own = { 0 };

		/* One that has just ended, or hangs, is left out. */
		if (!vmname_call(list.name[i], "GET", "/vm/stats", NULL, &stats, &own))
			json_object_set_new(all, list.name[i], stats);
	}
	runtime_list_free(&list);
	*ret_all = all;
	return 0;
}

/* The sum of a count over all devices of a type. */
static double sum(const json_t *stats, const char *type, const char *count)
{
	double n = 0;
	size_t i;
	json_t *dev;

	json_array_foreach(json_object_get(stats, "devices"), i, dev)
	{
		if (!strcmp(vmname_string(dev, "type"), type))
			n += vmname_number(json_object_get(dev, "counts"), count);
	}
	return n;
}

static double rate(const json_t *now, const json_t *before, const char *type, const char *count,
		   double seconds)
{
	double n = (sum(now, type, count) - sum(before, type, count)) / seconds;

	return n > 0 ? n : 0; /* a reset machine counts on, another one of the same name does not */
}

static int by_rate(const void *a, const void *b)
{
	double x = vmname_number(*(json_t *const *)a, "per_second"),
	       y = vmname_number(*(json_t *const *)b, "per_second");

	return (x < y) - (x > y);
}

/* Exits by reason, most frequent first, as [{"reason", "name", "per_second"}]. */
static json_t *exit_rates(const json_t *now, const json_t *before, double seconds, double *ret_sum)
{
	json_t *rows[128], *list = json_array(), *r;
	unsigned n = 0;
	size_t i;

	*ret_sum = 0;
	json_array_foreach(json_object_get(now, "exits"), i, r)
	{
		double count = vmname_number(r, "count"), past = 0;
		size_t k;
		json_t *old;

		json_array_foreach(json_object_get(before, "exits"), k, old)
		{
			if (vmname_number(old, "reason") == vmname_number(r, "reason"))
				past = vmname_number(old, "count");
		}
		if (count <= past || n == ARRAY_SIZE(rows))
			continue;
		rows[n++] = json_pack("{s:f, s:s, s:f}", "reason", vmname_number(r, "reason"), "name",
				      vmname_string(r, "name"), "per_second", (count - past) / seconds);
		*ret_sum += (count - past) / seconds;
	}
	qsort(rows, n, sizeof(rows[0]), by_rate);
	for (unsigned k = 0; k < n; k++) {
		json_object_set_new(rows[k], "reason",
				    json_integer((json_int_t)vmname_number(rows[k], "reason")));
		json_array_append_new(list, rows[k]);
	}
	return list;
}

/* What a machine has done between two looks. */
static json_t *rates(const json_t *now, const json_t *before)
{
	const json_t *memory = json_object_get(now, "memory");
	double seconds = (vmname_number(now, "now_ns") - vmname_number(before, "now_ns")) / 1e9, exits = 0;
	double cpu = vmname_number(now, "cpu_ns") - vmname_number(before, "cpu_ns");
	json_t *reasons;

	if (seconds <= 0 || cpu < 0)
		return NULL; /* another machine of the same name */
	reasons = exit_rates(now, before, seconds, &exits);
	return json_pack("{s:s, s:s, s:f, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "name",
			 vmname_string(now, "name"), "state", vmname_string(now, "state"), "cpu_percent",
			 cpu / 1e7 / seconds, "vcpus", (int)json_array_size(json_object_get(now, "vcpus")),
			 "guest_resident_bytes", vmname_number(memory, "guest_resident_bytes"), "own_bytes",
			 vmname_number(memory, "own_bytes"), "disk_requests_per_second",
			 rate(now, before, "virtio-blk", "reads", seconds) +
				 rate(now, before, "virtio-blk", "writes", seconds),
			 "disk_read_bytes_per_second", rate(now, before, "virtio-blk", "read_bytes", seconds),
			 "disk_written_bytes_per_second",
			 rate(now, before, "virtio-blk", "written_bytes", seconds),
			 "network_sent_bytes_per_second",
			 rate(now, before, "virtio-net", "sent_bytes", seconds),
			 "network_received_bytes_per_second",
			 rate(now, before, "virtio-net", "received_bytes", seconds), "uptime_s",
			 vmname_number(now, "uptime_ns") / 1e9, "exits_per_second", exits, "exits_by_reason",
			 reasons);
}

static json_t *all_rates(const json_t *now, const json_t *before)
{
	json_t *list = json_array(), *stats;
	const char *name;

	json_object_foreach((json_t *)now, name, stats)
	{
		const json_t *old = json_object_get(before, name);
		json_t *row = old ? rates(stats, old) : NULL;

		if (row)
			json_array_append_new(list, row);
	}
	return list;
}

/* One line, cut at the screen's width. */
static void put_line(const char *text, unsigned width)
{
	printf("%.*s\n", (int)width, text);
}

static void print_machine(const json_t *r, unsigned width)
{
	char line[512], memory[VMNAME_TEXT], exits[VMNAME_TEXT], ops[VMNAME_TEXT], in[VMNAME_TEXT],
		out[VMNAME_TEXT], sent[VMNAME_TEXT], received[VMNAME_TEXT];
	size_t n, i;
	json_t *reason;

	snprintf(line, sizeof(line), "%-16.16s %-8s %6.1f %9s %8s %7s %9s %9s %9s %9s",
		 vmname_string(r, "name"), vmname_string(r, "state"), vmname_number(r, "cpu_percent"),
		 vmname_bytes(vmname_number(r, "guest_resident_bytes") + vmname_number(r, "own_bytes"),
			      memory),
		 vmname_count(vmname_number(r, "exits_per_second"), exits),
		 vmname_count(vmname_number(r, "disk_requests_per_second"), ops),
		 vmname_bytes(vmname_number(r, "disk_read_bytes_per_second"), in),
		 vmname_bytes(vmname_number(r, "disk_written_bytes_per_second"), out),
		 vmname_bytes(vmname_number(r, "network_received_bytes_per_second"), received),
		 vmname_bytes(vmname_number(r, "network_sent_bytes_per_second"), sent));
	put_line(line, width);
	n = (size_t)snprintf(line, sizeof(line), "  exits/s:");
	json_array_foreach(json_object_get(r, "exits_by_reason"), i, reason)
	{
		if (i == TOP_REASONS || n >= sizeof(line))
			break;
		n += (size_t)snprintf(line + n, sizeof(line) - n, "%s %.0f %s %s", i ? "," : "",
				      vmname_number(reason, "reason"), vmname_string(reason, "name"),
				      vmname_count(vmname_number(reason, "per_second"), exits));
	}
	if (i)
		put_line(line, width);
}

static void print_all(const json_t *list, unsigned width)
{
	char line[256];
	size_t i;
	json_t *r;

	snprintf(line, sizeof(line), "%-16s %-8s %6s %9s %8s %7s %9s %9s %9s %9s", "NAME", "STATE", "CPU%",
		 "MEMORY", "EXITS/S", "DISK/S", "READ/S", "WRITE/S", "NET IN/S", "OUT/S");
	put_line(line, width);
	json_array_foreach(list, i, r)
	{
		print_machine(r, width);
	}
	if (!i)
		put_line("no machine runs", width);
}

static int run_once(const struct top_options *options, struct err *err)
{
	json_t *before = NULL, *now = NULL, *list;
	int rc = look(&before, err);

	if (rc)
		return rc;
	/* There is nothing to wait for. */
	if (json_object_size(before))
		vmname_wait(options->interval, NULL);
	rc = look(&now, err);
	if (!rc) {
		list = all_rates(now, before);
		if (options->json)
			vmname_print_json(list);
		else
			print_all(list, WIDTH);
		json_decref(list);
	}
	json_decref(before);
	json_decref(now);
	return rc;
}

static unsigned columns(void)
{
	struct winsize size;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : WIDTH;
}

static int run_screen(const struct top_options *options, struct err *err)
{
	json_t *before = NULL, *now = NULL;
	int key = 0, rc = look(&before, err);
	double wait = 0.2; /* the first look is short, so that something is to be seen soon */

	while (!rc && vmname_wait(wait, &key) && key != 'q' && key != 'Q') {
		json_t *list;

		rc = look(&now, err);
		if (rc)
			break;
		list = all_rates(now, before);
		fputs("\033[H\033[J", stdout);
		print_all(list, columns());
		printf("\nq ends this");
		fflush(stdout);
		json_decref(list);
		json_decref(before);
		before = now;
		now = NULL;
		wait = options->interval;
	}
	json_decref(before);
	return rc;
}

static int run_top(const struct command *command, int argc, char **argv, struct err *err)
{
	struct top_options options = { .interval = 1 };
	struct termios saved, single;
	int rc = opts_parse(top_opts, argc, argv, &options, err);

	if (rc)
		return rc;
	vmname_catch_signals();
	if (options.once || options.json || !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO) ||
	    tcgetattr(STDIN_FILENO, &saved) < 0)
		return run_once(&options, err);
	single = saved;
	single.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
	tcsetattr(STDIN_FILENO, TCSANOW, &single);
	fputs("\033[?1049h\033[?25l", stdout); /* another screen, no cursor */
	rc = run_screen(&options, err);
	fputs("\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSANOW, &saved);
	return rc;
}

#else

static int run_top(const struct command *command, int argc, char **argv, struct err *err)
{
	return vmname_unsupported(err);
}

#endif

const struct command top_command = {
	.name = "top",
	.summary = "show what all machines do, live",
	.synopsis = "[OPTIONS]",
	.about = "Processor time, memory, exits by reason, disk and network of each machine, per second.",
	.keys = "q\tend\n",
	.opts = top_opts,
	.run = run_top,
};
