/* bothy console: a machine's console on this terminal. */
#pragma once

#include "cli/command.h"

extern const struct command console_command;
