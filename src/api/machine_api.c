/* The methods of a machine. A new one is a function and a row in the table at the end; docs/openapi.json follows from it. */
#include "api/machine_api.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/os.h"
#include "api/metrics.h"
#include "base/sock.h"
#include "machine/machine.h"
#include "machine/screen.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/exit.h"
#include "vm/vm.h"

#define MAX_KILL_AFTER 86400

struct machine_api {
	struct machine *machine;
	struct http *http;
	struct api api;
	struct loop_timer *kill; /* a stop that may become a kill */
	char *path;              /* of the second socket, NULL: none */
};

static struct machine *machine_of(const struct api *api)
{
	return ((struct machine_api *)api->target)->machine;
}

static const char *state_of(const struct api *api)
{
	return machine_state_name(machine_state(machine_of(api)));
}

/* ---- looking ---- */

static const struct api_field info_fields[] = {
	{ "name", API_STRING, "The machine's name.", NULL, false },
	{ "state", API_STRING, "running, paused, asleep, ending or ready.", NULL, false },
	{ "pid", API_INT, "The process.", NULL, false },
	{ "engine", API_STRING, "What executes the guest.", NULL, false },
	{ "cpus", API_INT, "Processors.", NULL, false },
	{ "cpu_model", API_STRING, "The processor that the guest sees.", NULL, false },
	{ "memory_bytes", API_INT, "The guest's memory.", NULL, false },
	{ "uptime_ns", API_INT, "Guest time: nanoseconds since power on, without pauses.", NULL, false },
	{ "kernel", API_STRING, "The file that was booted.", NULL, false },
	{ .name = NULL },
};

static int get_info(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	struct machine *m = machine_of(api);
	const struct machine_config *c = machine_config(m);
	struct vm *vm = machine_vm(m);

	*ret_result =
		json_pack("{s:s, s:s, s:i, s:s, s:i, s:s, s:I, s:I}", "name", vm->name, "state",
			  state_of(api), "pid", getpid(), "engine", vm->engine->name, "cpus",
			  (int)vm->nr_vcpus, "cpu_model", c->cpu_model ? c->cpu_model : "host",
			  "memory_bytes", (json_int_t)c->memory, "uptime_ns", (json_int_t)clock_now(vm));
	/* A path may be no UTF-8. */
	if (*ret_result && json_object_set_new(*ret_result, "kernel", json_string(c->kernel)) < 0)
		json_object_set_new(*ret_result, "kernel", json_string("?"));
	return *ret_result ? 0 : err_set(err, -ENOMEM, "no memory for the answer");
}

static const struct api_field hist_fields[] = {
	{ "below_ns", API_INT, "Where the bucket ends.", NULL, false },
	{ "count", API_INT, "Exits in it, and in no earlier one.", NULL, false },
	{ .name = NULL },
};

static const struct api_field key_fields[] = {
	{ "key", API_STRING, "Port, address, MSR, vector or register, in hexadecimal.", NULL, false },
	{ "count", API_INT, "How often.", NULL, false },
	{ "ns", API_INT, "How long in all.", NULL, false },
	{ .name = NULL },
};

static const struct api_field reason_fields[] = {
	{ "reason", API_INT, "The SDM's basic exit reason.", NULL, false },
	{ "name", API_STRING, "Its name.", NULL, false },
	{ "count", API_INT, "How often.", NULL, false },
	{ "ns", API_INT, "How long in all.", NULL, false },
	{ "key", API_STRING, "What the keys are.", NULL, true },
	{ "histogram", API_LIST, "By the time that one took; buckets with something in them.", hist_fields,
	  false },
	{ "keys", API_LIST, "By key, largest first.", key_fields, true },
	{ .name = NULL },
};

static const struct api_field exits_fields[] = {
	{ "vcpus", API_INT, "How many processors are added up.", NULL, false },
	{ "wall_ns", API_INT, "Time between start and end of their threads, without pauses.", NULL, false },
	{ "guest_ns", API_INT, "Of that, in the guest's own code.", NULL, false },
	{ "exits_ns", API_INT, "In exits, all but HLT.", NULL, false },
	{ "idle_ns", API_INT, "Waiting.", NULL, false },
	{ "instructions", API_INT, "Begun by the guest; 0: the engine does not count.", NULL, false },
	{ "keys_dropped", API_INT, "Exits booked under their reason alone.", NULL, false },
	{ "engine", API_LIST, "What the engine has counted, by processor.", NULL, false },
	{ "reasons", API_LIST, "Largest first.", reason_fields, false },
	{ .name = NULL },
};

static const struct api_param exits_params[] = {
	{ "vcpu", API_INT, 0, VM_MAX_VCPUS - 1, "One processor only, by its number." },
	{ .name = NULL },
};

static int get_exits(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	struct vm *vm = machine_vm(machine_of(api));
	int vcpu = args->arg[0].given ? (int)args->arg[0].value : EXIT_ALL_VCPUS;
	char *text = NULL;
	size_t len = 0;
	FILE *out;

	if (vcpu != EXIT_ALL_VCPUS && (u32)vcpu >= vm->nr_vcpus)
		return err_set(err, -ERANGE, "'vcpu' is out of range: %d; '%s' has %u, counted from 0", vcpu,
			       vm->name, vm->nr_vcpus);
	out = open_memstream(&text, &len);
	if (out) {
		exit_print_json(vm, vcpu, out);
		fclose(out);
		*ret_result = json_loadb(text, len, 0, NULL);
		free(text);
	}
	return *ret_result ? 0 : err_set(err, -ENOMEM, "no memory for the answer");
}

static const struct api_field event_fields[] = {
	{ "event", API_STRING, "Which: a word.", NULL, false },
	{ "name", API_STRING, "The same for people.", NULL, false },
	{ "ns", API_INT, "When it came first, in the host's time since the reset.", NULL, false },
	{ "exits", API_INT, "How many exits there had been.", NULL, false },
	{ "instructions", API_INT, "How many instructions the guest had begun, if the engine knows.", NULL,
	  true },
	{ "exact", API_BOOL, "False: at least so many, for translated code does not count.", NULL, true },
	{ "vcpu", API_INT, "On which processor.", NULL, true },
	{ .name = NULL },
};

static const struct api_field timeline_fields[] = {
	{ "boot", API_STRING,
	  "direct: the kernel was loaded without firmware; firmware: from the reset vector.", NULL, false },
	{ "events", API_LIST, "Those that have come, in the order of time.", event_fields, false },
	{ .name = NULL },
};

static int get_timeline(const struct api *api, const struct api_args *args, json_t **ret_result,
			struct err *err)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (out) {
		timeline_print_json(machine_vm(machine_of(api)), out);
		fclose(out);
		*ret_result = json_loadb(text, len, 0, NULL);
		free(text);
	}
	return *ret_result ? 0 : err_set(err, -ENOMEM, "no memory for the answer");
}

static const struct api_field vcpu_fields[] = {
	{ "vcpu", API_INT, "Its number.", NULL, false },
	{ "cpu_ns", API_INT, "Processor time of the host that its thread has used.", NULL, false },
	{ "wall_ns", API_INT, "Time between start and end of the thread, without pauses.", NULL, false },
	{ "guest_ns", API_INT, "Of that, in the guest's own code.", NULL, false },
	{ "exits_ns", API_INT, "In exits, all but HLT.", NULL, false },
	{ "idle_ns", API_INT, "Waiting.", NULL, false },
	{ "instructions", API_INT, "Begun by the guest; 0: the engine does not count.", NULL, false },
	{ "engine", API_COUNTS, "What the engine has counted.", NULL, false },
	{ .name = NULL },
};

static const struct api_field memory_fields[] = {
	{ "guest_bytes", API_INT, "The guest's memory.", NULL, false },
	{ "guest_resident_bytes", API_INT, "Of that, what the host has given.", NULL, false },
	{ "own_bytes", API_INT, "What the process uses besides.", NULL, false },
	{ .name = NULL },
};

static const struct api_field device_fields[] = {
	{ "device", API_STRING, "Its name in this machine.", NULL, false },
	{ "type", API_STRING, "Its type.", NULL, false },
	{ "counts", API_COUNTS, "What it has counted.", NULL, false },
	{ .name = NULL },
};

static const struct api_field sum_fields[] = {
	{ "reason", API_INT, "The SDM's basic exit reason.", NULL, false },
	{ "name", API_STRING, "Its name.", NULL, false },
	{ "count", API_INT, "How often.", NULL, false },
	{ "ns", API_INT, "How long in all.", NULL, false },
	{ .name = NULL },
};

static const struct api_field stats_fields[] = {
	{ "name", API_STRING, "The machine's name.", NULL, false },
	{ "state", API_STRING, "running, paused, asleep, ending or ready.", NULL, false },
	{ "now_ns", API_INT, "The host's monotonic clock, for rates.", NULL, false },
	{ "uptime_ns", API_INT, "Guest time.", NULL, false },
	{ "cpu_ns", API_INT, "Processor time of the host that the whole process has used.", NULL, false },
	{ "memory", API_OBJECT, NULL, memory_fields, false },
	{ "vcpus", API_LIST, NULL, vcpu_fields, false },
	{ "exits", API_LIST, "By reason, all processors added up.", sum_fields, false },
	{ "devices", API_LIST, "Those that count something.", device_fields, false },
	{ .name = NULL },
};

static json_t *vcpu_stats(struct vm *vm, u32 i)
{
	struct engine_stat stat[ENGINE_MAX_STATS];
	unsigned n = vm->engine->stats ? vm->engine->stats(vm->vcpu[i], stat) : 0;
	json_t *engine = json_object();
	struct exit_sums sums;

	exit_sum(vm, (int)i, &sums);
	for (unsigned k = 0; k < n; k++)
		json_object_set_new(engine, stat[k].name, json_integer((json_int_t)stat[k].value));
	return json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "vcpu", (int)i, "cpu_ns",
			 (json_int_t)vcpu_cpu_ns(vm->vcpu[i]), "wall_ns", (json_int_t)sums.wall_ns,
			 "guest_ns", (json_int_t)sums.guest_ns, "exits_ns", (json_int_t)sums.exits_ns,
			 "idle_ns", (json_int_t)sums.idle_ns, "instructions", (json_int_t)sums.insns,
			 "engine", engine);
}

static json_t *exit_stats(struct vm *vm)
{
	struct exit_sums sums;
	json_t *list = json_array();

	exit_sum(vm, EXIT_ALL_VCPUS, &sums);
	for (unsigned r = 0; r < EXIT_NR; r++)
		if (sums.reason[r].count)
			json_array_append_new(list, json_pack("{s:i, s:s, s:I, s:I}", "reason", (int)r,
							      "name", exit_name(r), "count",
							      (json_int_t)sums.reason[r].count, "ns",
							      (json_int_t)sums.reason[r].ns));
	return list;
}

static json_t *device_stats(struct vm *vm)
{
	json_t *list = json_array();

	for (struct device *dev = vm->devices; dev; dev = dev->next) {
		struct device_stat stat[DEVICE_MAX_STATS];
		unsigned n = dev->ops->stats ? dev->ops->stats(dev, stat) : 0;
		json_t *counts;

		if (!n)
			continue;
		counts = json_object();
		for (unsigned i = 0; i < n; i++)
			json_object_set_new(counts, stat[i].name, json_integer((json_int_t)stat[i].value));
		json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "device", dev->id, "type",
						      dev->ops->name, "counts", counts));
	}
	return list;
}

/* From /proc/self/status [proc(5)]: the guest's memory is the only shared memory of any size. What of it is private counts
 * among the process's own there. */
static json_t *memory_stats(const struct vm *vm)
{
	unsigned long long anon = 0, file = 0, shared = 0, private = ram_private_resident(&vm->ram), own;
	FILE *f = fopen("/proc/self/status", "re");
	char line[128];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "RssAnon: %llu", &anon) == 1 || sscanf(line, "RssFile: %llu", &file) == 1)
			continue;
		sscanf(line, "RssShmem: %llu", &shared);
	}
	if (f)
		fclose(f);
	own = (anon + file) * KiB;
	own -= MIN(own, private);
	return json_pack("{s:I, s:I, s:I}", "guest_bytes", (json_int_t)vm->ram.size, "guest_resident_bytes",
			 (json_int_t)(shared * KiB + private), "own_bytes", (json_int_t)own);
}

static int get_stats(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	struct vm *vm = machine_vm(machine_of(api));
	struct timespec cpu = { 0 };
	json_t *vcpus = json_array();

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		json_array_append_new(vcpus, vcpu_stats(vm, i));
	*ret_result = json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "name", vm->name, "state",
				state_of(api), "now_ns", (json_int_t)os_now_ns(), "uptime_ns",
				(json_int_t)clock_now(vm), "cpu_ns",
				(json_int_t)cpu.tv_sec * 1000000000 + cpu.tv_nsec, "memory", memory_stats(vm),
				"vcpus", vcpus, "exits", exit_stats(vm), "devices", device_stats(vm));
	return *ret_result ? 0 : err_set(err, -ENOMEM, "no memory for the answer");
}

static int get_metrics(const struct api *api, const struct api_args *args, json_t **ret_result,
		       struct err *err)
{
	char *text = metrics_text(machine_vm(machine_of(api)), state_of(api));

	*ret_result = text ? json_string(text) : NULL;
	free(text);
	return *ret_result ? 0 : err_set(err, -ENOMEM, "no memory for the answer");
}

/* ---- the screen ---- */

static const struct api_field screen_fields[] = {
	{ "kind", API_STRING, "text, graphics, or blank: switched off.", NULL, false },
	{ "width", API_INT, "Pixels.", NULL, false },
	{ "height", API_INT, "Pixels.", NULL, false },
	{ "columns", API_INT, "Characters in a row; 0: no text.", NULL, false },
	{ "rows", API_INT, "Rows of characters.", NULL, false },
	{ "cursor_on", API_BOOL, "Whether there is a cursor.", NULL, false },
	{ "cursor_column", API_INT, "Where, counted from 0.", NULL, false },
	{ "cursor_row", API_INT, "Where, counted from 0.", NULL, false },
	{ "text", API_STRING, "The rows, a line each, without blanks at their ends.", NULL, false },
	{ "png", API_STRING, "A picture of it: a PNG file in base64.", NULL, true },
	{ .name = NULL },
};

static const struct api_param screen_params[] = {
	{ "png", API_BOOL, 0, 0, "Whether a picture is wanted." },
	{ .name = NULL },
};

/* [RFC 4648 4] */
static char *base64(const u8 *data, size_t len)
{
	static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *text = malloc((len + 2) / 3 * 4 + 1), *p = text;

	for (size_t i = 0; text && i < len; i += 3) {
		u32 v = (u32)data[i] << 16 | (i + 1 < len ? (u32)data[i + 1] << 8 : 0) |
			(i + 2 < len ? data[i + 2] : 0);

		*p++ = digit[v >> 18];
		*p++ = digit[v >> 12 & 63];
		*p++ = i + 1 < len ? digit[v >> 6 & 63] : '=';
		*p++ = i + 2 < len ? digit[v & 63] : '=';
	}
	if (text)
		*p = '\0';
	return text;
}

static int add_picture(struct device *vga, json_t *result, struct err *err)
{
	u8 *file;
	size_t len;
	char *text;
	int rc = screen_png(vga, &file, &len, err);

	if (rc)
		return rc;
	text = base64(file, len);
	free(file);
	rc = json_object_set_new(result, "png", json_string_nocheck(text ? text : ""));
	free(text);
	return rc || !text ? err_set(err, -ENOMEM, "no memory for the picture") : 0;
}

static int get_screen(const struct api *api, const struct api_args *args, json_t **ret_result,
		      struct err *err)
{
	struct device *vga = vga_find(machine_vm(machine_of(api)));
	struct vga_text *look;
	char *text = NULL;
	int rc = 0;

	if (!vga)
		return err_set(err, -ENOENT,
			       "machine '%s' has no display adapter; it was started with --vga none",
			       machine_vm(machine_of(api))->name);
	look = malloc(sizeof(*look));
	if (look) {
		vga_screen_look(vga, look);
		text = screen_text(look);
	}
	if (text)
		*ret_result = json_pack("{s:s, s:i, s:i, s:i, s:i, s:b, s:i, s:i, s:s}", "kind",
					screen_kind_name(look->kind), "width", (int)look->width, "height",
					(int)look->height, "columns", (int)look->columns, "rows",
					(int)look->rows, "cursor_on", (int)look->cursor_on, "cursor_column",
					(int)look->cursor_column, "cursor_row", (int)look->cursor_row, "text",
					text);
	if (!*ret_result)
		rc = err_set(err, -ENOMEM, "no memory for the answer");
	else if (args->arg[0].given && args->arg[0].value)
		rc = add_picture(vga, *ret_result, err);
	if (rc) {
		json_decref(*ret_result);
		*ret_result = NULL;
	}
	free(text);
	free(look);
	return rc;
}

/* ---- acting ---- */

static const struct api_field state_fields[] = {
	{ "state", API_STRING, "The machine's state after this.", NULL, false },
	{ .name = NULL },
};

static int answer_state(const struct api *api, int rc, json_t **ret_result)
{
	if (!rc)
		*ret_result = json_pack("{s:s}", "state", state_of(api));
	return rc;
}

static int do_pause(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	return answer_state(api, machine_pause(machine_of(api), err), ret_result);
}

static int do_resume(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	return answer_state(api, machine_resume(machine_of(api), err), ret_result);
}

static int do_wake(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	return answer_state(api, machine_wake(machine_of(api), err), ret_result);
}

static int do_reset(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	return answer_state(api, machine_request_reset(machine_of(api), err), ret_result);
}

static int do_kill(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	return answer_state(api, machine_request_quit(machine_of(api), err), ret_result);
}

static const struct api_field engine_fields[] = {
	{ "engine", API_STRING, "What executes the guest now.", NULL, false },
	{ "took_ns", API_INT, "How long that took; the guest stood still for a part of it.", NULL, false },
	{ .name = NULL },
};

static int move_to(const struct api *api, const char *engine, json_t **ret_result, struct err *err)
{
	struct machine *m = machine_of(api);
	u64 t0 = os_now_ns();
	int rc = machine_set_engine(m, engine, err);

	if (!rc)
		*ret_result = json_pack("{s:s, s:I}", "engine", machine_vm(m)->engine->name, "took_ns",
					(json_int_t)(os_now_ns() - t0));
	return rc;
}

static int do_soft(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	return move_to(api, "soft", ret_result, err);
}

static int do_kvm(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	return move_to(api, "kvm", ret_result, err);
}

static const struct api_param stop_params[] = {
	{ "kill_after", API_INT, 0, MAX_KILL_AFTER,
	  "Seconds after which a machine that still runs is ended, as by kill. Not given: never." },
	{ .name = NULL },
};

static int do_stop(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	struct machine_api *own = api->target;
	int rc = machine_press_power(own->machine, err);

	if (!rc && args->arg[0].given)
		loop_timer_arm(own->kill, os_now_ns() + (u64)args->arg[0].value * 1000000000);
	return answer_state(api, rc, ret_result);
}

static void on_kill(void *opaque)
{
	struct machine_api *own = opaque;

	machine_request_quit(own->machine, NULL);
}

const struct api_method machine_api_methods[] = {
	{ "describe", "GET", "/openapi.json", "This document.", NULL, NULL, api_describe },
	{ "info", "GET", "/vm", "What machine this is, and in which state.", NULL, info_fields, get_info },
	{ "exits", "GET", "/vm/exits", "How often and how long the guest left its own code, by reason.",
	  exits_params, exits_fields, get_exits },
	{ "stats", "GET", "/vm/stats", "What processors, memory, disks and network have done so far.", NULL,
	  stats_fields, get_stats },
	{ "timeline", "GET", "/vm/timeline", "How far the guest's boot came when, since the last reset.",
	  NULL, timeline_fields, get_timeline },
	{ "metrics", "GET", "/vm/metrics", "All figures, as Prometheus reads them.", NULL, API_TEXT,
	  get_metrics },
	{ "screen", "GET", "/vm/screen", "What the display adapter shows.", screen_params, screen_fields,
	  get_screen },
	{ "pause", "POST", "/vm/pause", "Makes the machine stand still.", NULL, state_fields, do_pause },
	{ "resume", "POST", "/vm/resume", "Makes a paused machine go on.", NULL, state_fields, do_resume },
	{ "wake", "POST", "/vm/wake", "Wakes a machine that sleeps.", NULL, state_fields, do_wake },
	{ "stop", "POST", "/vm/stop", "Presses the power button.", stop_params, state_fields, do_stop },
	{ "kill", "POST", "/vm/kill", "Ends the machine at once.", NULL, state_fields, do_kill },
	{ "engine-soft", "POST", "/vm/engine/soft", "Moves the guest to the software engine.", NULL,
	  engine_fields, do_soft },
	{ "engine-kvm", "POST", "/vm/engine/kvm", "Moves the guest to the host's KVM.", NULL, engine_fields,
	  do_kvm },
	{ "reset", "POST", "/vm/reset", "Presses the reset button.", NULL, state_fields, do_reset },
	{ .name = NULL },
};

struct api machine_api_of(struct machine_api *target)
{
	return (struct api){
		.methods = machine_api_methods,
		.title = "Control of a virtual machine of bothy",
		.version = "1",
		.target = target,
	};
}

/* ---- the sockets ---- */

static int listen_at(struct machine_api *own, int dir, const char *name, struct err *err)
{
	int fd, rc = sock_listen(dir, name, &fd, err);

	return rc ? rc : http_listen(own->http, fd, err);
}

static int listen_at_path(struct machine_api *own, const char *path, struct err *err)
{
	int rc = listen_at(own, AT_FDCWD, path, err);

	if (rc == -EADDRINUSE)
		return err_set(err, rc, "--api: %s exists already; remove it, or name another path", path);
	if (rc)
		return err_wrap(err, "--api");
	own->path = strdup(path);
	return own->path ? 0 : err_set(err, -ENOMEM, "no memory for the control socket");
}

int machine_api_open(struct machine *machine, const struct runtime *runtime, const char *path,
		     struct machine_api **ret_api, struct err *err)
{
	struct machine_api *own = calloc(1, sizeof(*own));
	struct loop *loop = machine_vm(machine)->loop;
	int rc;

	if (!own)
		return err_set(err, -ENOMEM, "no memory for the control socket");
	own->machine = machine;
	own->api = machine_api_of(own);
	own->kill = loop_timer_new(loop, on_kill, own);
	rc = http_new(loop, api_handle, &own->api, &own->http, err);
	if (!rc)
		rc = listen_at(own, runtime->dir, RUNTIME_API_SOCK, err);
	if (!rc && path)
		rc = listen_at_path(own, path, err);
	if (rc) {
		machine_api_close(own);
		return rc;
	}
	*ret_api = own;
	return 0;
}

void machine_api_close(struct machine_api *own)
{
	if (!own)
		return;
	http_free(own->http);
	loop_timer_free(own->kill);
	if (own->path)
		unlink(own->path);
	free(own->path);
	free(own);
}
