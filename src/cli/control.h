/* Commands that act on running machines, and the list of them. */
#pragma once

#include "cli/command.h"

extern const struct command control_ps, control_stop, control_kill, control_pause, control_resume,
	control_wake, control_reset;
