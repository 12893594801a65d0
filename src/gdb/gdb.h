/* A debugger's door to a machine: a listener for GDB's remote serial protocol. Main thread. */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct gdb;
struct machine;

/* Listens at `ADDR[,wait][,bits=N]`: ADDR is :PORT, HOST:PORT or unix:PATH; wait: the machine stands still before its first
 * instruction until a client lets it go; bits: what kind of code the registers are described for, 16, 32 or 64 (default: 64 where
 * the processor has 64-bit mode). Between machine_new() and machine_run(). -EINVAL, -ENOTSUP where the engine cannot be
 * debugged, -errno where the address is not to be had. */
int gdb_open(struct machine *machine, const char *text, struct gdb **ret_gdb, struct err *err);
/* Tells a client that the machine has ended, with this exit status of the process, and closes; NULL is allowed. Before
 * machine_free(). */
void gdb_close(struct gdb *gdb, int status);
