/* Failures of the host and of people: a negative errno and one sentence.
 *
 * The sentence lives in a struct err that the caller owns (usually on the stack
 * of main). Whoever finds the fault sets it once; whoever passes it on may put
 * context in front. It says what was wrong, with which value, and what to do.
 * A NULL err is allowed everywhere and drops the text.
 */
#pragma once

#include "base/types.h"

struct err {
	int code;       /* negative errno, 0 when unset */
	char msg[1024]; /* one sentence, no trailing newline */
};

/* Sets the sentence. code is a negative errno; returns it, so that a function
 * may end with `return err_set(err, -EINVAL, ...)`. */
int err_set(struct err *err, int code, const char *fmt, ...) printf_like(3, 4);

/* As err_set, with ": <strerror(-code)>" after the sentence. */
int err_sys(struct err *err, int code, const char *fmt, ...) printf_like(3, 4);

/* Puts "<text>: " in front of what is there; returns err->code (-EIO for a NULL err). */
int err_wrap(struct err *err, const char *fmt, ...) printf_like(2, 3);
