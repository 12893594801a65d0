/* Capabilities of a process [capabilities(7)]. A set is a mask of BIT(number). */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct caps {
	u64 bounding, effective, permitted, inheritable, ambient;
};

/* The number of "CAP_..."; -1: no capability of Linux has that name. */
int caps_number(const char *name);
/* The i-th name, NULL past the end. */
const char *caps_name(unsigned i);

/* What the running kernel knows and this process may still hand on. */
u64 caps_available(void);

/* Lowers the bounding set, and keeps the others across the change of user that follows. */
int caps_begin(const struct caps *caps, struct err *err);
/* After the change of user: exactly these sets, whatever was held before. Those which are not available have been taken
 * out by the caller. */
int caps_apply(const struct caps *caps, struct err *err);
