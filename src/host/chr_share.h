/* A character back end with further users: clients of a Unix socket see what its own end sees, and may type too. */
#pragma once

#include "base/err.h"
#include "vm/backend.h"

struct loop;

/* Puts itself in front of *chr, which becomes its own and is closed with it: *chr is then what a device connects to. Listens
 * at `name` in the folder dir, and removes the name at the end. A client gets the last output first, then everything; one that
 * does not read loses output, and never holds up the guest. Main thread, before the device is connected. */
int chr_share_open(int dir, const char *name, struct loop *loop, struct chr **chr, struct err *err);
