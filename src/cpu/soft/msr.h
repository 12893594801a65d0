/* Model-specific registers: one table. Inside cpu/soft only. */
#pragma once

#include "cpu/soft/soft.h"

/* RDMSR, WRMSR at CPL 0; false: #GP, nothing changed. Both book the exit. */
bool msr_read(struct soft_cpu *c, u32 nr, u64 *ret_val);
bool msr_write(struct soft_cpu *c, u32 nr, u64 val);
