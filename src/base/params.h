/* What stands behind an option's first value: "FIRST,key=value,key,...", by a table. Any thread. */
#pragma once

#include "base/err.h"
#include "base/types.h"

enum param_kind {
	PARAM_FLAG,   /* bool: key, key=on or key=off */
	PARAM_STRING, /* const char *, pointing into the text */
	PARAM_U32,    /* decimal, min..max */
	PARAM_SIZE,   /* u64, params_parse_size(), min..max */
	PARAM_CHOICE, /* u32: the index in choices */
	PARAM_LIST,   /* struct { unsigned nr; const char *item[max]; }; may be repeated */
};

struct param {
	const char *key; /* NULL ends a table */
	enum param_kind kind;
	size_t offset; /* of the field in the target */
	u64 min, max;
	const char *const *choices; /* PARAM_CHOICE: NULL-terminated */
};

/* Splits FIRST off: ends it with a zero where its comma was, and returns what is behind that, NULL when nothing is. Two
 * commas stand for one that belongs to FIRST. text is changed. */
char *params_first(char *text);

/* text: what params_first() returned; it is split in place, and strings point into it. what: the option, for the
 * sentence, which names key, value and what would be valid. -EINVAL. */
int params_parse(const char *what, char *text, const struct param *table, void *target, struct err *err);

/* A count of bytes: a decimal number with an optional K, M, G or T (powers of 1024, upper or lower case, an
 * optional "iB" or "B" after it). -EINVAL when it is none, -ERANGE past 2^64. */
int params_parse_size(const char *text, u64 *ret_size);
