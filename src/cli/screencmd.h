/* bothy screen. */
#pragma once

#include "cli/command.h"

extern const struct command screencmd_command;
