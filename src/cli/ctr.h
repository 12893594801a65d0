/* The command `container`. */
#pragma once

#include "cli/command.h"

extern const struct command ctr_command;
