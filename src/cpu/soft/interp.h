/* The interpreter's loop, for soft_engine.c. */
#pragma once

#include "cpu/soft/soft.h"
#include "vm/engine.h"

/* Runs until a request, HLT or shutdown. On the vCPU's thread. */
enum run_end interp_run(struct soft_cpu *c);

/* One instruction, or the delivery of what it raises. RUN_REQUEST, RUN_HLT or RUN_SHUTDOWN. On the vCPU's thread. */
enum run_end interp_carry(struct soft_cpu *c);

/* soft_engine.c: describes the triple fault through vm_crash(). */
void interp_crash(struct soft_cpu *c);
