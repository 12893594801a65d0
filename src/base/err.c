/* The sentence of a failure: set once, wrapped on the way up.
 *
 * Everything is formatted into a buffer of its own first, so that an argument may point into the
 * same struct err. What does not fit is cut. A NULL err drops the text and keeps the code.
 * Any thread, on a struct err of its own.
 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ERR_MAX sizeof(((struct err *)0)->msg)

static void err_store(struct err *err, int code, const char *text)
{
	err->code = code;
	memcpy(err->msg, text, strnlen(text, ERR_MAX - 1) + 1);
	err->msg[ERR_MAX - 1] = 0;
}

/* Appends ": <tail>" to the len bytes in text, a buffer of ERR_MAX bytes; len may be more than fitted. */
static void err_join(char *text, size_t len, const char *tail)
{
	size_t room, n;

	if (len + 3 > ERR_MAX)
		return;
	text[len++] = ':';
	text[len++] = ' ';
	room = ERR_MAX - 1 - len;
	n = strnlen(tail, room);
	memcpy(text + len, tail, n);
	text[len + n] = 0;
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
	char text[ERR_MAX];
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_store(err, code, text);
	return code;
}

int err_sys(struct err *err, int code, const char *fmt, ...)
{
	char text[ERR_MAX], reason[128];
	va_list ap;
	int len;

	if (!err)
		return code;
	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len < 0)
		len = 0;
	/* The GNU strerror_r: returns the text, thread-safe. */
	err_join(text, (size_t)len, strerror_r(-code, reason, sizeof(reason)));
	err_store(err, code, text);
	return code;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
	char text[ERR_MAX];
	va_list ap;
	int len;

	if (!err)
		return -EIO; /* not 0: the caller may pass it on */
	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len < 0)
		len = 0;
	err_join(text, (size_t)len, err->msg);
	err_store(err, err->code, text);
	return err->code;
}
