/* The container's first process, from its making to its program. */
#pragma once

#include "oci/container.h"

/* Runs in that process; does not return. */
void container_init(struct container *c, int wire);

/* The session keyring of a container, so that it does not share the caller's; no kernel support is no failure. */
int container_init_keyring(const char *id, struct err *err);
