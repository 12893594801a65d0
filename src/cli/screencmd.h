/* bothy screen. */
#pragma once

#include "cli/command.h"

extern const struct command screen_command;
