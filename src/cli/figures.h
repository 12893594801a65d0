/* bothy exits, stats and timeline: what a running machine has counted. */
#pragma once

#include "cli/command.h"

extern const struct command figures_exits, figures_stats, figures_timeline;
