/* What "./dev bench cpu" measures, all of it on one processor. */
#include "cpu.h"

#include <stddef.h>

const struct cpu_test *const cpu_tables[] = { cpu_compute_tests, cpu_os_tests, cpu_code_tests, NULL };
const bool cpu_only_one = true;
