/* Messages to the operator on standard error.
 *
 * log_guest() is for what a guest provokes: each call site is limited to ten
 * lines a second and then counts what it dropped, so that no guest can flood a
 * log. All functions may be called from any thread.
 */
#pragma once

#include "base/types.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Default LOG_WARN. Set once, before threads start. */
void log_set_level(enum log_level level);
enum log_level log_level(void);

/* Where messages go instead of standard error: fn gets one without end of line. NULL: back to standard error. Before threads
 * start. */
void log_set_sink(void (*fn)(enum log_level level, const char *text));

void log_line(enum log_level level, const char *fmt, ...) printf_like(2, 3);
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

struct log_limit {
	u64 window_ns; /* start of the current second */
	u32 count;     /* lines in it */
	u32 dropped;   /* lines suppressed since the last one printed */
};
void log_limited(struct log_limit *limit, const char *fmt, ...) printf_like(2, 3);

/* Printed at LOG_INFO. */
#define log_guest(...)                                       \
	do {                                                 \
		static struct log_limit log_guest_limit_;    \
		log_limited(&log_guest_limit_, __VA_ARGS__); \
	} while (0)
