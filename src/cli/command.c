/* The table of commands. A new command is its file and one row here; help, man page and completion
 * follow from its struct command.
 */
#include "cli/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/console.h"
#include "cli/control.h"
#include "cli/ctr.h"
#include "cli/doctor.h"
#include "cli/engines.h"
#include "cli/figures.h"
#include "cli/help.h"
#include "cli/image.h"
#include "cli/oci.h"
#include "cli/run.h"
#include "cli/screencmd.h"
#include "cli/top.h"

const struct command *const command_table[] = {
	&run_command,          &control_ps,    &control_stop,     &control_kill,      &control_pause,
	&control_resume,       &control_wake,  &control_reset,    &engines_command,   &console_command,
	&figures_exits,        &figures_stats, &figures_timeline, &screencmd_command, &top_command,
	&doctor_command,       &ctr_command,   &oci_command,      &image_command,     &help_command,
	&help_version_command, NULL,
};

static const char *command_name(const void *opaque, unsigned i)
{
	return command_table[i] ? command_table[i]->name : NULL;
}

const struct command *command_find(const char *name, struct err *err)
{
	char list[256];
	size_t n = 0;
	const char *near;

	for (unsigned i = 0; command_table[i]; i++) {
		if (!strcmp(command_table[i]->name, name))
			return command_table[i];
		if (n < sizeof(list))
			n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "",
					      command_table[i]->name);
	}
	near = opts_nearest(name, command_name, NULL);
	if (near)
		err_set(err, -EINVAL, "unknown command '%.64s'; did you mean %s? The commands are %s", name,
			near, list);
	else
		err_set(err, -EINVAL, "unknown command '%.64s'; the commands are %s", name, list);
	return NULL;
}

static const char *sub_name(const void *opaque, unsigned i)
{
	const struct command *group = opaque;

	return group->sub[i] ? strchr(group->sub[i]->name, ' ') + 1 : NULL;
}

const struct command *command_find_sub(const struct command *group, const char *name, struct err *err)
{
	const char *near;

	for (unsigned i = 0; group->sub[i]; i++)
		if (!strcmp(sub_name(group, i), name))
			return group->sub[i];
	near = opts_nearest(name, sub_name, group);
	if (near)
		err_set(err, -EINVAL, "unknown command '%s %.64s'; did you mean %s?", group->name, name,
			near);
	else
		err_set(err, -EINVAL, "unknown command '%s %.64s'; bothy help %s lists them", group->name,
			name, group->name);
	return NULL;
}

bool command_is_help(const char *word)
{
	return !strcmp(word, "--help") || !strcmp(word, "-h");
}
