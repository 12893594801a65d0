/* bothy run: boots a guest and stays with it until it ends. */
#pragma once

#include "cli/command.h"

extern const struct command run_command;
