/* bothy engine NAME soft|kvm: one request to the machine, which moves itself. */
#include "cli/engines.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/vmname.h"

struct engines_options {
	bool json;
};

static const struct opt engines_opts[] = {
	{
		.name = "json",
		.kind = OPT_FLAG,
		.help = "Print the machine's answer.",
		.offset = offsetof(struct engines_options, json),
	},
	{ .name = NULL },
};

/* NAME ENGINE, with options anywhere. */
static int parse(int argc, char **argv, struct engines_options *options, const char **ret_name,
		 const char **ret_engine, struct err *err)
{
	int used = 0, rc = opts_parse_front(engines_opts, argc, argv, options, &used, err);

	if (rc)
		return rc;
	if (used == argc)
		return err_set(err, -EINVAL, "a machine's NAME is missing; bothy ps lists those that run");
	*ret_name = argv[used];
	argc -= used + 1;
	argv += used + 1;
	rc = opts_parse_front(engines_opts, argc, argv, options, &used, err);
	if (rc)
		return rc;
	if (used == argc)
		return err_set(err, -EINVAL, "the engine is missing: bothy engine %s soft, or kvm",
			       *ret_name);
	*ret_engine = argv[used];
	if (strcmp(*ret_engine, "soft") != 0 && strcmp(*ret_engine, "kvm") != 0)
		return err_set(err, -EINVAL, "a machine cannot move to the engine '%.32s'; give soft or kvm",
			       *ret_engine);
	return opts_parse(engines_opts, argc - used - 1, argv + used + 1, options, err);
}

#if HAVE_API

static int run_engine(const struct command *command, int argc, char **argv, struct err *err)
{
	struct engines_options options = { 0 };
	const char *name = NULL, *engine = NULL;
	json_t *answer = NULL;
	char path[32];
	int rc = parse(argc, argv, &options, &name, &engine, err);

	if (rc)
		return rc;
	snprintf(path, sizeof(path), "/vm/engine/%s", engine);
	rc = vmname_call(name, "POST", path, NULL, &answer, err);
	if (!rc && options.json)
		vmname_print_json(answer);
	json_decref(answer);
	return rc;
}

#else

static int run_engine(const struct command *command, int argc, char **argv, struct err *err)
{
	struct engines_options options = { 0 };
	const char *name, *engine;
	int rc = parse(argc, argv, &options, &name, &engine, err);

	return rc ? rc : vmname_unsupported(err);
}

#endif

const struct command engines_command = {
	.name = "engine",
	.summary = "move a running machine to another engine",
	.synopsis = "NAME soft|kvm",
	.about =
		"The guest stands still for some milliseconds and goes on with the same memory, processors and "
		"devices. It is refused where the other engine lacks a feature of the guest's processor; a machine "
		"with one of --cpu v1 to v4 can move wherever both engines offer that.",
	.example = "  bothy engine web kvm\n",
	.takes_machine = true,
	.opts = engines_opts,
	.run = run_engine,
};
