/* The tests of "./dev bench cpu" and "machine": static programs that run on the host and in guests. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct cpu_test {
	const char *name;
	const char *group; /* for the geometric means */
	const char *label;
	uint32_t ops; /* operations in one unit of run() or timed() */
	/* Makes what the test needs; why it cannot run, or NULL. */
	const char *(*setup)(void);
	/* A result of some operations that is the same on every machine. */
	uint64_t (*check)(void);
	/* Does UNITS units; the caller takes the time. */
	void (*run)(uint64_t units);
	/* In place of run, where some of the work does not count: returns the nanoseconds of the rest. */
	uint64_t (*timed)(uint64_t units);
	void (*teardown)(void);
};

/* NULL-name-terminated. */
extern const struct cpu_test cpu_compute_tests[];
extern const struct cpu_test cpu_os_tests[];
extern const struct cpu_test cpu_code_tests[];

/* The program's: NULL-terminated; whether it keeps to one processor, as in a guest that has but one. */
extern const struct cpu_test *const cpu_tables[];
extern const bool cpu_only_one;

/* Results go here, so that no compiler can leave the work out. */
extern volatile uint64_t cpu_sink;

uint64_t cpu_now_ns(void);
/* xorshift64; *X is never 0. */
uint64_t cpu_random(uint64_t *x);
uint64_t cpu_hash(const void *p, uint64_t len);
_Noreturn void cpu_die(const char *what);
