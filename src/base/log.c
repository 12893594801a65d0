/* Messages on standard error, one line each, written by one write(2) so that lines of several
 * threads do not mix.
 *
 * A line may carry what a guest, an image or a peer chose, so bytes outside printable ASCII
 * are shown as \xNN: no message can forge a second line or drive the terminal
 * (hostile case A13). While a terminal is in raw mode a line ends in CR LF.
 *
 * log_limited() costs a guest that floods it one clock reading and one atomic increment. Its counters are
 * only approximate when two threads open a new second at once; the bound (10 lines, plus one
 * that tells how many were dropped) holds. Any thread.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

#include "base/os.h"

#define LOG_MAX_LINES 10u
#define LOG_WINDOW_NS 1000000000ull

static enum log_level log_max = LOG_WARN;

static const char *const log_names[] = { "error", "warning", "info", "debug" };

void log_set_level(enum log_level level)
{
	log_max = level;
}

static void (*log_sink)(enum log_level level, const char *text);

void log_set_sink(void (*fn)(enum log_level level, const char *text))
{
	log_sink = fn;
}

enum log_level log_level(void)
{
	return log_max;
}

static bool log_tty_is_raw(void)
{
	struct termios t;

	return tcgetattr(STDERR_FILENO, &t) == 0 && !(t.c_oflag & OPOST);
}

static void log_write(enum log_level level, const char *text)
{
	static const char hex[] = "0123456789abcdef";
	char line[4096];
	size_t n;

	if (log_sink) {
		log_sink(level, text);
		return;
	}
	n = (size_t)snprintf(line, sizeof(line), "bothy: %s: ", log_names[level]);
	/* Room for one escape and CR LF. */
	for (; *text && n < sizeof(line) - 8; text++) {
		u8 c = (u8)*text;

		if (c >= 0x20 && c < 0x7f) {
			line[n++] = (char)c;
			continue;
		}
		line[n++] = '\\';
		line[n++] = 'x';
		line[n++] = hex[c >> 4];
		line[n++] = hex[c & 15];
	}
	if (log_tty_is_raw())
		line[n++] = '\r';
	line[n++] = '\n';
	os_write_all(STDERR_FILENO, line, n);
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	if (level > log_max)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_write(level, text);
}

void log_limited(struct log_limit *limit, const char *fmt, ...)
{
	char text[2048];
	u32 dropped = 0;
	va_list ap;
	u64 now, start;

	if (LOG_INFO > log_max)
		return;
	now = os_now_ns();
	start = __atomic_load_n(&limit->window_ns, __ATOMIC_RELAXED);
	/* A thread whose `now` is just older than the window that another one opened meanwhile must
	 * not take the (huge) difference for a new second. */
	if (start == 0 || (now > start && now - start >= LOG_WINDOW_NS)) {
		if (__atomic_compare_exchange_n(&limit->window_ns, &start, now, false, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED)) {
			__atomic_store_n(&limit->count, 0, __ATOMIC_RELAXED);
			dropped = __atomic_exchange_n(&limit->dropped, 0, __ATOMIC_RELAXED);
		}
	}
	if (__atomic_load_n(&limit->count, __ATOMIC_RELAXED) >= LOG_MAX_LINES ||
	    __atomic_fetch_add(&limit->count, 1, __ATOMIC_RELAXED) >= LOG_MAX_LINES) {
		__atomic_fetch_add(&limit->dropped, 1, __ATOMIC_RELAXED);
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (dropped)
		log_line(LOG_INFO, "%u messages like the next one were dropped", dropped);
	log_write(LOG_INFO, text);
}
