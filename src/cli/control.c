/* bothy ps, stop, kill, pause, resume, wake, reset: one request to a machine's control socket each.
 *
 * stop and kill return when the machine has ended, which is when its process has let go of the lock on its runtime folder.
 */
#include "cli/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "cli/vmname.h"

#if HAVE_API
#include "api/client.h"
#include "api/runtime.h"
#endif

#define STOP_TIMEOUT_S 60
#define END_TIMEOUT_S  10 /* from a kill to the end: disks are synchronized */
#define POLL_S         0.02

struct control_options {
	bool json, kill;
	u32 timeout;
};

#define OPT_JSON(text)                                           \
	{                                                        \
		.name = "json", .kind = OPT_FLAG, .help = text,  \
		.offset = offsetof(struct control_options, json) \
	}

static const struct opt ps_opts[] = {
	OPT_JSON("Print a list of what each machine says of itself."),
	{ .name = NULL },
};

static const struct opt act_opts[] = {
	OPT_JSON("Print the machine's answer."),
	{ .name = NULL },
};

static const struct opt stop_opts[] = {
	{
		.name = "timeout",
		.kind = OPT_U32,
		.arg = "SECONDS",
		.help = "How long the guest may take.",
		.default_text = "60",
		.min = 1,
		.max = 86400,
		.offset = offsetof(struct control_options, timeout),
	},
	{
		.name = "kill",
		.kind = OPT_FLAG,
		.help = "End a machine that still runs after that time, as bothy kill does.",
		.offset = offsetof(struct control_options, kill),
	},
	OPT_JSON("Print the machine's answer."),
	{ .name = NULL },
};

#if HAVE_API

static void ps_row(const json_t *info)
{
	char memory[VMNAME_TEXT], time[VMNAME_TEXT];

	printf("%-20s %-8s %8.0f %5.0f %9s %13s  %s\n", vmname_string(info, "name"),
	       vmname_string(info, "state"), vmname_number(info, "pid"), vmname_number(info, "cpus"),
	       vmname_bytes(vmname_number(info, "memory_bytes"), memory),
	       vmname_time(vmname_number(info, "uptime_ns") / 1e9, time), vmname_string(info, "engine"));
}

static int run_ps(const struct command *command, int argc, char **argv, struct err *err)
{
	struct control_options options = { 0 };
	struct runtime_list list = { 0 };
	json_t *all;
	int rc = opts_parse(ps_opts, argc, argv, &options, err);

	if (!rc)
		rc = runtime_list(&list, err);
	if (rc)
		return rc;
	all = json_array();
	if (!options.json && list.nr)
		printf("%-20s %-8s %8s %5s %9s %13s  %s\n", "NAME", "STATE", "PID", "CPUS", "MEMORY",
		       "GUEST TIME", "ENGINE");
	for (unsigned i = 0; i < list.nr; i++) {
		json_t *info = NULL;
		struct err own = { 0 };

		if (!vmname_call(list.name[i], "GET", "/vm", NULL, &info, &own)) {
			if (!options.json)
				ps_row(info);
			json_array_append_new(all, info);
		} else if (own.code != -ENOENT) { /* else it has ended since */
			fprintf(stderr, "bothy: %s: %s\n", list.name[i], own.msg);
		}
	}
	if (options.json)
		vmname_print_json(all);
	json_decref(all);
	runtime_list_free(&list);
	return 0;
}

/* Makes the request; prints the answer if asked for. */
static int act(int dir, const char *path, json_t *body, bool json, struct err *err)
{
	json_t *answer = NULL;
	int rc = client_call(dir, "POST", path, body, &answer, err);

	json_decref(body);
	if (!rc && json)
		vmname_print_json(answer);
	json_decref(answer);
	return rc;
}

static bool wait_for_end(int dir, u64 seconds)
{
	u64 end = os_now_ns() + seconds * 1000000000;

	while (runtime_alive(dir)) {
		if (os_now_ns() >= end)
			return false;
		vmname_wait(POLL_S, NULL);
	}
	return true;
}

static int run_act(const struct command *command, int argc, char **argv, struct err *err)
{
	bool stop = command == &control_stop, kill = command == &control_kill;
	struct control_options options = { .timeout = STOP_TIMEOUT_S };
	const char *name = NULL;
	char path[32];
	json_t *body = NULL;
	int dir = -1, rc = vmname_parse(command->opts, argc, argv, &options, &name, err);

	if (!rc)
		rc = runtime_find(name, &dir, err);
	if (rc)
		return rc;
	if (stop && options.kill)
		body = json_pack("{s:i}", "kill_after", (int)options.timeout);
	snprintf(path, sizeof(path), "/vm/%s", command->name);
	rc = act(dir, path, body, options.json, err);
	if (!rc && stop && !wait_for_end(dir, options.timeout + (options.kill ? END_TIMEOUT_S : 0)))
		rc = err_set(
			err, -ETIMEDOUT,
			"'%s' has not powered off within %u s; its guest may not look at the power button, and "
			"bothy kill %s ends it at once",
			name, options.timeout, name);
	if (!rc && kill && !wait_for_end(dir, END_TIMEOUT_S))
		rc = err_set(err, -ETIMEDOUT, "'%s' has not ended within %u s; its disks may be slow", name,
			     END_TIMEOUT_S);
	close(dir);
	return rc;
}

#else

static int run_ps(const struct command *command, int argc, char **argv, struct err *err)
{
	return vmname_unsupported(err);
}

static int run_act(const struct command *command, int argc, char **argv, struct err *err)
{
	return vmname_unsupported(err);
}

#endif

const struct command control_ps = {
	.name = "ps",
	.summary = "list the virtual machines that run",
	.synopsis = "[--json]",
	.about =
		"Machines are found in the runtime folder: $BOTHY_RUNTIME_DIR, else $XDG_RUNTIME_DIR/bothy, else "
		"/run/bothy. What a machine that was killed has left there is removed.",
	.opts = ps_opts,
	.run = run_ps,
};

const struct command control_stop = {
	.name = "stop",
	.summary = "press a machine's power button and wait for its end",
	.synopsis = "NAME [OPTIONS]",
	.status = "0\tthe machine has ended\n1\tit has not, or there is none of that name\n",
	.example = "  bothy stop web --timeout 30 --kill\n",
	.takes_machine = true,
	.opts = stop_opts,
	.run = run_act,
};

const struct command control_kill = {
	.name = "kill",
	.summary = "end a machine at once",
	.synopsis = "NAME",
	.about = "The guest is not asked. What it was told is written to its disks is written.",
	.takes_machine = true,
	.opts = act_opts,
	.run = run_act,
};

const struct command control_pause = {
	.name = "pause",
	.summary = "make a machine stand still",
	.synopsis = "NAME",
	.about =
		"Processors and guest time stop until bothy resume; disk requests on their way are finished.",
	.takes_machine = true,
	.opts = act_opts,
	.run = run_act,
};

const struct command control_resume = {
	.name = "resume",
	.summary = "make a paused machine go on",
	.synopsis = "NAME",
	.takes_machine = true,
	.opts = act_opts,
	.run = run_act,
};

const struct command control_wake = {
	.name = "wake",
	.summary = "wake a machine whose guest has suspended it",
	.synopsis = "NAME",
	.about =
		"A guest that suspends to RAM stops its machine until a clock alarm that it has set, or this. With "
		"--display text any key wakes it, too. For the guest it is its power button that was pressed, and bothy "
		"stop only wakes a machine that sleeps.",
	.takes_machine = true,
	.opts = act_opts,
	.run = run_act,
};

const struct command control_reset = {
	.name = "reset",
	.summary = "press a machine's reset button",
	.synopsis = "NAME",
	.about =
		"The guest is not asked. Memory is cleared and the kernel booted again; a machine with --no-reboot ends.",
	.takes_machine = true,
	.opts = act_opts,
	.run = run_act,
};
