/* bothy exits, bothy stats and bothy timeline. Tables are made here, from what the control socket gives; --json prints that. With --watch the
 * table of exits shows what has come since the last look, per second.
 */
#include "cli/figures.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/vmname.h"

#define TOP_KEYS     8
#define NO_VCPU      (~0u)
#define CLEAR_SCREEN "\033[H\033[J"

struct figures_options {
	bool json, histogram;
	u32 vcpu, watch;
};

static const struct opt exits_opts[] = {
	{
		.name = "watch",
		.kind = OPT_U32,
		.arg = "SECONDS",
		.help = "Show every so many seconds what has come since, until Ctrl-C or the machine's end.",
		.optional = "1",
		.min = 1,
		.max = 3600,
		.offset = offsetof(struct figures_options, watch),
	},
	{
		.name = "vcpu",
		.kind = OPT_U32,
		.arg = "N",
		.help = "Only those of one processor, counted from 0.",
		.default_text = "all added up",
		.max = 63,
		.offset = offsetof(struct figures_options, vcpu),
	},
	{
		.name = "histogram",
		.kind = OPT_FLAG,
		.help = "Show below each reason how long its exits took, instead of ports, addresses and MSRs.",
		.offset = offsetof(struct figures_options, histogram),
	},
	{
		.name = "json",
		.kind = OPT_FLAG,
		.help = "Print what the machine says; with --watch one line each time.",
		.offset = offsetof(struct figures_options, json),
	},
	{ .name = NULL },
};

static const struct opt stats_opts[] = {
	{
		.name = "json",
		.kind = OPT_FLAG,
		.help = "Print what the machine says.",
		.offset = offsetof(struct figures_options, json),
	},
	{ .name = NULL },
};

#if HAVE_API

/* The row of a list whose `member` is that of `like`; NULL: none. */
static const json_t *same(const json_t *list, const char *member, const json_t *like)
{
	size_t i;
	json_t *row;

	json_array_foreach(list, i, row)
	{
		if (json_equal(json_object_get(row, member), json_object_get(like, member)))
			return row;
	}
	return NULL;
}

/* What has come since `before` (NULL: ever), over `seconds`. */
static void print_row(const char *label, const json_t *row, const json_t *before, double wall, double seconds)
{
	double count = vmname_number(row, "count") - vmname_number(before, "count");
	double ns = vmname_number(row, "ns") - vmname_number(before, "ns");

	printf("%-38.38s %12.0f %12.3f %12.0f %6.2f%%\n", label, count / seconds, ns / 1e6 / seconds,
	       count ? ns / count : 0, wall > 0 ? 100 * ns / wall : 0);
}

static void print_keys(const json_t *reason, const json_t *before, double wall, double seconds)
{
	const json_t *old = json_object_get(before, "keys");
	unsigned shown = 0, more = 0;
	size_t i;
	json_t *key;

	json_array_foreach(json_object_get(reason, "keys"), i, key)
	{
		const json_t *past = same(old, "key", key);
		char label[64];

		if (vmname_number(key, "count") == vmname_number(past, "count"))
			continue;
		if (shown++ >= TOP_KEYS) {
			more++;
			continue;
		}
		snprintf(label, sizeof(label), "       %s %s", vmname_string(reason, "key"),
			 vmname_string(key, "key"));
		print_row(label, key, past, wall, seconds);
	}
	if (more)
		printf("       and %u more\n", more);
}

/* Buckets by the time that an exit took, each twice as long as the one before. */
static void print_histogram(const json_t *reason, const json_t *before, double seconds)
{
	const json_t *old = json_object_get(before, "histogram");
	double all = vmname_number(reason, "count") - vmname_number(before, "count");
	size_t i;
	json_t *bucket;

	json_array_foreach(json_object_get(reason, "histogram"), i, bucket)
	{
		double n = vmname_number(bucket, "count") -
			   vmname_number(same(old, "below_ns", bucket), "count");
		char label[64];

		if (n <= 0)
			continue;
		snprintf(label, sizeof(label), "       below %.0f ns", vmname_number(bucket, "below_ns"));
		printf("%-38s %12.0f %.*s\n", label, n / seconds, (int)(40 * MIN(n / all, 1.0) + 0.5),
		       "########################################");
	}
}

static void print_share(const char *label, const char *member, const json_t *now, const json_t *before,
			double wall, double seconds)
{
	double ns = vmname_number(now, member) - vmname_number(before, member);

	printf("%-38s %25.3f ms %16.2f%%\n", label, ns / 1e6 / seconds, wall > 0 ? 100 * ns / wall : 0);
}

/* before NULL: all since the start; else what has come within `seconds`, per second. */
static void print_exits(const json_t *now, const json_t *before, double seconds, bool histogram)
{
	const json_t *old = json_object_get(before, "reasons");
	double wall = vmname_number(now, "wall_ns") - vmname_number(before, "wall_ns");
	size_t i;
	json_t *reason;

	printf("%-38s %12s %12s %12s %7s\n", "exit reason", before ? "per second" : "count",
	       before ? "ms/s" : "total ms", "mean ns", "share");
	json_array_foreach(json_object_get(now, "reasons"), i, reason)
	{
		const json_t *past = same(old, "reason", reason);
		char label[64];

		if (vmname_number(reason, "count") == vmname_number(past, "count"))
			continue;
		snprintf(label, sizeof(label), "%4.0f  %s", vmname_number(reason, "reason"),
			 vmname_string(reason, "name"));
		print_row(label, reason, past, wall, seconds);
		if (histogram)
			print_histogram(reason, past, seconds);
		else
			print_keys(reason, past, wall, seconds);
	}
	print_share("in the guest", "guest_ns", now, before, wall, seconds);
	print_share("in exits (all but HLT)", "exits_ns", now, before, wall, seconds);
	print_share("idle", "idle_ns", now, before, wall, seconds);
	fflush(stdout);
}

static int watch(const char *name, const char *path, const struct figures_options *options, json_t *before,
		 struct err *err)
{
	bool tty = isatty(STDOUT_FILENO);

	vmname_catch_signals();
	while (vmname_wait(options->watch, NULL)) {
		json_t *now = NULL;
		int rc = vmname_call(name, "GET", path, NULL, &now, err);

		if (rc) {
			/* Its end is the end of this. */
			bool ended = rc == -ENOENT || rc == -ECONNREFUSED || rc == -ECONNRESET;

			json_decref(before);
			if (ended)
				*err = (struct err){ 0 };
			return ended ? 0 : rc;
		}
		if (options->json) {
			json_dumpf(now, stdout, JSON_COMPACT);
			putchar('\n');
			fflush(stdout);
		} else {
			if (tty)
				fputs(CLEAR_SCREEN, stdout);
			print_exits(now, before, options->watch, options->histogram);
			if (!tty)
				putchar('\n');
		}
		json_decref(before);
		before = now;
		if (ferror(stdout))
			break;
	}
	json_decref(before);
	return 0;
}

static int run_exits(const struct command *command, int argc, char **argv, struct err *err)
{
	struct figures_options options = { .vcpu = NO_VCPU };
	char path[48] = "/vm/exits";
	const char *name = NULL;
	json_t *now = NULL;
	int rc = vmname_parse(exits_opts, argc, argv, &options, &name, err);

	if (options.vcpu != NO_VCPU)
		snprintf(path, sizeof(path), "/vm/exits?vcpu=%u", options.vcpu);
	if (!rc)
		rc = vmname_call(name, "GET", path, NULL, &now, err);
	if (rc)
		return rc;
	if (options.watch)
		return watch(name, path, &options, now, err);
	if (options.json)
		vmname_print_json(now);
	else
		print_exits(now, NULL, 1, options.histogram);
	json_decref(now);
	return 0;
}

static void print_counts(const char *title, const json_t *counts)
{
	const char *name;
	json_t *v;

	printf("%s\n", title);
	json_object_foreach((json_t *)counts, name, v)
	{
		char label[64];

		snprintf(label, sizeof(label), "  %s", name);
		for (char *p = label; *p; p++)
			*p = *p == '_' ? ' ' : *p;
		printf("%-38s %16.0f\n", label, json_number_value(v));
	}
}

static void print_vcpu(const json_t *v)
{
	char title[128];

	snprintf(title, sizeof(title),
		 "vCPU %.0f: %.3f s of the host's time, %.3f s in the guest, %.3f s in exits, %.3f s idle",
		 vmname_number(v, "vcpu"), vmname_number(v, "cpu_ns") / 1e9,
		 vmname_number(v, "guest_ns") / 1e9, vmname_number(v, "exits_ns") / 1e9,
		 vmname_number(v, "idle_ns") / 1e9);
	print_counts(title, json_object_get(v, "engine"));
}

static void print_stats(const json_t *stats)
{
	const json_t *memory = json_object_get(stats, "memory");
	char a[VMNAME_TEXT], b[VMNAME_TEXT], c[VMNAME_TEXT], title[128];
	size_t i;
	json_t *row;

	printf("%s is %s, guest time %s, %.3f s of the host's processors\n", vmname_string(stats, "name"),
	       vmname_string(stats, "state"), vmname_time(vmname_number(stats, "uptime_ns") / 1e9, a),
	       vmname_number(stats, "cpu_ns") / 1e9);
	printf("memory: %s of the guest's %s are in use on the host; %s besides\n",
	       vmname_bytes(vmname_number(memory, "guest_resident_bytes"), a),
	       vmname_bytes(vmname_number(memory, "guest_bytes"), b),
	       vmname_bytes(vmname_number(memory, "own_bytes"), c));
	json_array_foreach(json_object_get(stats, "vcpus"), i, row)
	{
		print_vcpu(row);
	}
	json_array_foreach(json_object_get(stats, "devices"), i, row)
	{
		snprintf(title, sizeof(title), "%.60s (%.60s)", vmname_string(row, "device"),
			 vmname_string(row, "type"));
		print_counts(title, json_object_get(row, "counts"));
	}
}

static int run_stats(const struct command *command, int argc, char **argv, struct err *err)
{
	struct figures_options options = { 0 };
	const char *name = NULL;
	json_t *stats = NULL;
	int rc = vmname_parse(stats_opts, argc, argv, &options, &name, err);

	if (!rc)
		rc = vmname_call(name, "GET", "/vm/stats", NULL, &stats, err);
	if (rc)
		return rc;
	if (options.json)
		vmname_print_json(stats);
	else
		print_stats(stats);
	json_decref(stats);
	return 0;
}

static void print_timeline(const json_t *timeline)
{
	double before = 0;
	size_t i;
	json_t *e;

	printf("%-28s %12s %12s %16s %12s %5s\n", "event", "ms", "since before", "instructions", "exits",
	       "vCPU");
	json_array_foreach(json_object_get(timeline, "events"), i, e)
	{
		const json_t *insns = json_object_get(e, "instructions"), *vcpu = json_object_get(e, "vcpu");
		double ns = vmname_number(e, "ns");
		char count[32] = "-", number[16] = "-";

		if (insns)
			snprintf(count, sizeof(count), "%s%.0f",
				 json_is_true(json_object_get(e, "exact")) ? "" : ">=",
				 json_number_value(insns));
		if (vcpu)
			snprintf(number, sizeof(number), "%.0f", json_number_value(vcpu));
		printf("%-28s %12.3f %12.3f %16s %12.0f %5s\n", vmname_string(e, "name"), ns / 1e6,
		       (ns - before) / 1e6, count, vmname_number(e, "exits"), number);
		before = ns;
	}
}

static int run_timeline(const struct command *command, int argc, char **argv, struct err *err)
{
	struct figures_options options = { 0 };
	const char *name = NULL;
	json_t *timeline = NULL;
	int rc = vmname_parse(stats_opts, argc, argv, &options, &name, err);

	if (!rc)
		rc = vmname_call(name, "GET", "/vm/timeline", NULL, &timeline, err);
	if (rc)
		return rc;
	if (options.json)
		vmname_print_json(timeline);
	else
		print_timeline(timeline);
	json_decref(timeline);
	return 0;
}

#else

static int run_timeline(const struct command *command, int argc, char **argv, struct err *err)
{
	return vmname_unsupported(err);
}

static int run_exits(const struct command *command, int argc, char **argv, struct err *err)
{
	return vmname_unsupported(err);
}

static int run_stats(const struct command *command, int argc, char **argv, struct err *err)
{
	return vmname_unsupported(err);
}

#endif

const struct command figures_exits = {
	.name = "exits",
	.summary = "show why and how often a machine's guest left its own code",
	.synopsis = "NAME [OPTIONS]",
	.about = "By the SDM's exit reasons, with the ports, addresses and MSRs that cost most.",
	.example = "  bothy exits web --watch\n  bothy exits web --json | jq '.reasons[0]'\n",
	.takes_machine = true,
	.opts = exits_opts,
	.run = run_exits,
};

const struct command figures_stats = {
	.name = "stats",
	.summary = "show what a machine's processors, memory, disks and network have done",
	.synopsis = "NAME [--json]",
	.takes_machine = true,
	.opts = stats_opts,
	.run = run_stats,
};

const struct command figures_timeline = {
	.name = "timeline",
	.summary = "show how far the guest's boot came when",
	.synopsis = "NAME [--json]",
	.about =
		"From the last reset to the first process, by what the machine sees: no agent in the guest. Instructions with >= "
		"are at least so many, for translated code does not count its own.",
	.takes_machine = true,
	.opts = stats_opts,
	.run = run_timeline,
};
