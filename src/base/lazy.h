/* Libraries that are loaded when something is first wanted of them.
 *
 * A container's runtime is executed several times for each container, and pays in time and memory for each library that
 * it is linked with; so what only some virtual machines use is not.
 */
#pragma once

#include "base/err.h"

struct lazy_function {
	const char *name;
	void *where; /* the pointer to a function that is set, at its address */
};

/* Loads a library by the name of its interface, as "libslirp.so.0", for good, and sets `count` pointers. Once is enough;
 * again is harmless. Any thread. -ENOENT: it is not installed, or is another one. */
int lazy_load(const char *library, const struct lazy_function *functions, unsigned count, struct err *err);
