/* What `monitor` commands of a debugger do. Main thread, with the machine standing still. */
#pragma once

#include <stdio.h>

#include "base/types.h"

struct machine;

/* Carries out line for the processor cpu, as it is chosen in the debugger. */
void gdbmon_run(struct machine *machine, unsigned cpu, const char *line, FILE *out);
