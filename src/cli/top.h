/* bothy top: all machines, live. */
#pragma once

#include "cli/command.h"

extern const struct command top_command;
