/* Prometheus' text format [Prometheus docs/instrumenting/exposition_formats]: what bothy exits and bothy stats show, for
 * programs that collect it. Times are in seconds, as is the custom there; every sample has the machine's name as a label.
 */
#include "api/metrics.h"

#include <stdio.h>
#include <stdlib.h>

#include "vm/clock.h"
#include "vm/device.h"
#include "vm/exit.h"
#include "vm/vm.h"

/* The histogram's buckets: some of exit.h's, the same for all reasons and at all times. */
#define FIRST_BUCKET 8
#define LAST_BUCKET  36
#define BUCKET_STEP  2

static void head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static double seconds(u64 ns)
{
	return (double)ns / 1e9;
}

static void put_exit(FILE *out, const struct vm *vm, const struct exit_sums *sums, enum exit_reason r)
{
	unsigned bucket = 0;
	u64 below = 0;

	for (unsigned b = FIRST_BUCKET; b <= LAST_BUCKET; b += BUCKET_STEP) {
		for (; bucket <= b; bucket++)
			below += sums->reason[r].hist[bucket];
		fprintf(out,
			"bothy_exit_seconds_bucket{vm=\"%s\",reason=\"%u\",name=\"%s\",le=\"%.9g\"} %llu\n",
			vm->name, r, exit_name(r), seconds(sums->hist_ns[b]), (unsigned long long)below);
	}
	fprintf(out,
		"bothy_exit_seconds_bucket{vm=\"%s\",reason=\"%u\",name=\"%s\",le=\"+Inf\"} %llu\n"
		"bothy_exit_seconds_sum{vm=\"%s\",reason=\"%u\",name=\"%s\"} %.9f\n"
		"bothy_exit_seconds_count{vm=\"%s\",reason=\"%u\",name=\"%s\"} %llu\n",
		vm->name, r, exit_name(r), (unsigned long long)sums->reason[r].count, vm->name, r,
		exit_name(r), seconds(sums->reason[r].ns), vm->name, r, exit_name(r),
		(unsigned long long)sums->reason[r].count);
}

struct key_target {
	FILE *out;
	const struct vm *vm;
};

static void put_key(void *opaque, enum exit_reason reason, const char *what, u64 key, u64 count, u64 ns)
{
	const struct key_target *t = opaque;

	fprintf(t->out,
		"bothy_exits_by_key_total{vm=\"%s\",reason=\"%u\",key=\"%s\",value=\"0x%llx\"} %llu\n",
		t->vm->name, reason, what, (unsigned long long)key, (unsigned long long)count);
}

static void put_exits(FILE *out, struct vm *vm)
{
	struct key_target target = { out, vm };
	struct exit_sums sums;

	exit_sum(vm, EXIT_ALL_VCPUS, &sums);
	head(out, "bothy_exit_seconds", "histogram",
	     "Time outside of the guest's code, by the SDM's exit reason.");
	for (unsigned r = 0; r < EXIT_NR; r++)
		if (sums.reason[r].count)
			put_exit(out, vm, &sums, (enum exit_reason)r);
	head(out, "bothy_exits_by_key_total", "counter", "Exits by port, address, MSR, call or vector.");
	exit_each_key(vm, put_key, &target);
}

static void put_vcpus(FILE *out, struct vm *vm)
{
	struct exit_sums sums;

	head(out, "bothy_vcpu_seconds_total", "counter", "Where a virtual processor's time went.");
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		exit_sum(vm, (int)i, &sums);
		const struct {
			const char *what;
			u64 ns;
		} rows[] = { { "guest", sums.guest_ns },
			     { "exits", sums.exits_ns },
			     { "idle", sums.idle_ns },
			     { "host_cpu", vcpu_cpu_ns(vm->vcpu[i]) } };

		for (unsigned k = 0; k < ARRAY_SIZE(rows); k++)
			fprintf(out, "bothy_vcpu_seconds_total{vm=\"%s\",vcpu=\"%u\",in=\"%s\"} %.9f\n",
				vm->name, i, rows[k].what, seconds(rows[k].ns));
	}
	head(out, "bothy_engine_total", "untyped", "What the engine has counted of its own work.");
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		struct engine_stat stat[ENGINE_MAX_STATS];
		unsigned n = vm->engine->stats ? vm->engine->stats(vm->vcpu[i], stat) : 0;

		for (unsigned k = 0; k < n; k++)
			fprintf(out,
				"bothy_engine_total{vm=\"%s\",vcpu=\"%u\",engine=\"%s\",count=\"%s\"} %llu\n",
				vm->name, i, vm->engine->name, stat[k].name,
				(unsigned long long)stat[k].value);
	}
}

static void put_devices(FILE *out, struct vm *vm)
{
	head(out, "bothy_device_total", "untyped", "What a device has counted.");
	for (struct device *dev = vm->devices; dev; dev = dev->next) {
		struct device_stat stat[DEVICE_MAX_STATS];
		unsigned n = dev->ops->stats ? dev->ops->stats(dev, stat) : 0;

		for (unsigned k = 0; k < n; k++)
			fprintf(out,
				"bothy_device_total{vm=\"%s\",device=\"%s\",type=\"%s\",count=\"%s\"} %llu\n",
				vm->name, dev->id, dev->ops->name, stat[k].name,
				(unsigned long long)stat[k].value);
	}
}

char *metrics_text(struct vm *vm, const char *state)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	head(out, "bothy_info", "gauge", "The machine; its value is 1.");
	fprintf(out, "bothy_info{vm=\"%s\",engine=\"%s\",state=\"%s\",cpus=\"%u\"} 1\n", vm->name,
		vm->engine->name, state, vm->nr_vcpus);
	head(out, "bothy_guest_seconds_total", "counter", "Guest time.");
	fprintf(out, "bothy_guest_seconds_total{vm=\"%s\"} %.9f\n", vm->name, seconds(clock_now(vm)));
	head(out, "bothy_memory_bytes", "gauge", "The guest's memory.");
	fprintf(out, "bothy_memory_bytes{vm=\"%s\"} %llu\n", vm->name, (unsigned long long)vm->ram.size);
	put_exits(out, vm);
	put_vcpus(out, vm);
	put_devices(out, vm);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
