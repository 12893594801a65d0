/* Integer work of known result: the same code runs in a bare-metal guest and as an ordinary program. */
#pragma once

#include <stdint.h>

struct kernel {
	const char *name;
	uint64_t (*run)(uint32_t rounds); /* returns a checksum */
	uint32_t rounds;                  /* for some 50 million instructions */
};

/* NULL-name-terminated. */
extern const struct kernel kernels[];
