/* Command-line options as a table: one row gives parsing, checking, help, man page and
 * shell completion. Main thread only.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

enum opt_kind {
	OPT_FLAG,   /* bool */
	OPT_STRING, /* const char *, pointing into argv */
	OPT_LIST,   /* const char *[max_count] and an unsigned counter; may be repeated */
	OPT_U32,    /* u32, decimal, min..max */
	OPT_SIZE,   /* u64, bytes with an optional K, M, G or T, min..max */
	OPT_CONFIG, /* char *: a file of options (opts_file.h), read before all others; its text, for the caller to free() */
};

struct opt {
	const char *name; /* without the dashes; NULL ends a table */
	char letter;      /* -x means the same; 0: no short form */
	enum opt_kind kind;
	const char *arg;     /* what the help calls the value; NULL for flags */
	const char *help;    /* sentences, without the value's default or choices */
	const char *more;    /* sentences to come after those; NULL: none */
	size_t offset;       /* of the field in the target struct */
	size_t count_offset; /* OPT_LIST: of its counter */
	u32 max_count;
	u64 min, max;             /* OPT_U32, OPT_SIZE */
	const char *default_text; /* for the help only; NULL: none */
	/* The i-th value allowed, with a line about it in *ret_help (may stay NULL); NULL past the end.
	 * NULL: any value. */
	const char *(*choice)(unsigned i, const char **ret_help);
	bool free_form;       /* the choices are examples: other values are the program's to check */
	const char *optional; /* the value where only --name is given; --name=value else */
	bool required;
	bool is_file;     /* completion offers file names */
	bool not_in_file; /* it makes sense on the command line only */
};

/* Parses argv[0..argc) into target, which is zeroed. What is given here stands before what a file says; of a list that is given
 * here nothing of the file's is left. The sentence names the option, the value and what would be valid. */
int opts_parse(const struct opt *opts, int argc, char **argv, void *target, struct err *err);

/* As opts_parse(), up to the first word that is no option, or behind "--"; *ret_used words of argv were options. */
int opts_parse_front(const struct opt *opts, int argc, char **argv, void *target, int *ret_used,
		     struct err *err);

/* For opts_file.c. The option of that name or NULL; one value into its field, checked. */
const struct opt *opts_find(const struct opt *opts, const char *name, size_t len);
int opts_store(const struct opt *o, const char *value, void *target, struct err *err);
/* The sentence about a word that is no option. */
int opts_unknown(const struct opt *opts, const char *word, struct err *err);

/* The nearest of the names, or NULL when none is near. next(opaque, i) is the i-th, NULL past the end. */
const char *opts_nearest(const char *text, const char *(*next)(const void *opaque, unsigned i),
			 const void *opaque);
