/* bothy exits and bothy stats: what a running machine has counted. */
#pragma once

#include "cli/command.h"

extern const struct command figures_exits, figures_stats;
