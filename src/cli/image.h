/* bothy image: makes, shows, checks and converts disk images. */
#pragma once

#include "cli/command.h"

extern const struct command image_command;
