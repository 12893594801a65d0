/* An input of a fuzz target as a script: bytes taken from its front; where it has ended they are zero. One at a time. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/types.h"

static const u8 *script_at, *script_end;

static u64 take(unsigned bytes)
{
	u64 v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (u64)(script_at < script_end ? *script_at++ : 0) << 8 * i;
	return v;
}

static void script_ignore(enum log_level level, const char *text)
{
}

/* quiet: failures that a script makes many of are not said. */
static void script_begin(const u8 *data, size_t len, bool quiet)
{
	script_at = data;
	script_end = data + len;
	log_set_sink(quiet ? script_ignore : NULL);
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "%s\n", what);
	abort();
}
