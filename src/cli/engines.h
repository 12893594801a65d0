/* bothy engine: moves a running machine from one engine to another. */
#pragma once

#include "cli/command.h"

extern const struct command engines_command;
