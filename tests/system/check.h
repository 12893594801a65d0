/* The checks of init_check: each runs in a process of its own, which it ends by returning (good)
 * or through need() (bad).
 */
#pragma once

#include <stdbool.h>

struct check {
	const char *name;
	void (*run)(void);
	bool (*usable)(void); /* NULL: always; false: what it is about is not there */
};

_Noreturn void check_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* need(condition, "what was expected, with values", ...) */
#define need(condition, ...)                                         \
	do {                                                         \
		if (!(condition))                                    \
			check_fail(__FILE__, __LINE__, __VA_ARGS__); \
	} while (0)

/* NULL-name-terminated tables. */
extern const struct check check_os_table[];
extern const struct check check_cpu_table[];
extern const struct check check_avx512_table[];
