/* The option parser: walks argv once and writes the fields that the table names.
 *
 * --name VALUE and --name=VALUE mean the same. Long options are never abbreviated, so that a script keeps its
 * meaning when an option is added; an option with a letter can be written -x VALUE as well. Values point into
 * argv, or into the text of a file of options. On failure the target may be partly written; the caller drops it.
 */
#include "cli/opts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/params.h"
#include "cli/opts_file.h"

#define OPTS_MAX      64 /* options of a command */
#define OPTS_MAX_NAME 32 /* longest name that spelling help looks at */

/* Edit distance with the last two rows kept; names are short. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[OPTS_MAX_NAME + 1];
	size_t la = strlen(a), lb = strlen(b);

	if (la > OPTS_MAX_NAME || lb > OPTS_MAX_NAME)
		return ~0u;
	for (size_t j = 0; j <= lb; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= la; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= lb; j++) {
			unsigned change = diagonal + (a[i - 1] != b[j - 1]);
			unsigned best = MIN(change, MIN(row[j], row[j - 1]) + 1);

			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[lb];
}

const char *opts_nearest(const char *text, const char *(*next)(const void *opaque, unsigned i),
			 const void *opaque)
{
	const char *best = NULL;
	unsigned best_distance = ~0u;

	for (unsigned i = 0;; i++) {
		const char *name = next(opaque, i);
		unsigned d;

		if (!name)
			break;
		/* What was typed is the beginning of the name: nearer than any misspelling. */
		d = strlen(text) >= 3 && !strncmp(name, text, strlen(text)) ? 0 : distance(text, name);
		if (d < best_distance) {
			best_distance = d;
			best = name;
		}
	}
	return best_distance <= 2 ? best : NULL;
}

static const char *opt_name(const void *opaque, unsigned i)
{
	const struct opt *opts = opaque;

	return opts[i].name;
}

static int check_choice(const struct opt *o, const char *value, struct err *err)
{
	char list[512];
	size_t n = 0;

	if (!o->choice || o->free_form)
		return 0;
	for (unsigned i = 0;; i++) {
		const char *help = NULL;
		const char *c = o->choice(i, &help);

		if (!c)
			break;
		if (!strcmp(c, value))
			return 0;
		if (n < sizeof(list))
			n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "", c);
	}
	return err_set(err, -EINVAL, "--%s: '%s' is not known; valid are %s", o->name, value,
		       n ? list : "none");
}

static int out_of_range(const struct opt *o, const char *value, struct err *err)
{
	if (o->kind == OPT_SIZE)
		return err_set(err, -ERANGE, "--%s: %s is out of range; give %llu MiB to %llu GiB", o->name,
			       value, (unsigned long long)(o->min / MiB), (unsigned long long)(o->max / GiB));
	return err_set(err, -ERANGE, "--%s: %s is out of range; give %llu to %llu", o->name, value,
		       (unsigned long long)o->min, (unsigned long long)o->max);
}

static int store_u32(const struct opt *o, const char *value, void *field, struct err *err)
{
	u64 v = 0;
	const char *p = value;

	for (; *p >= '0' && *p <= '9'; p++)
		v = v > o->max ? v : v * 10 + (u64)(*p - '0');
	if (p == value || *p)
		return err_set(err, -EINVAL, "--%s: '%s' is not a number; give %llu to %llu", o->name, value,
			       (unsigned long long)o->min, (unsigned long long)o->max);
	if (v < o->min || v > o->max)
		return out_of_range(o, value, err);
	*(u32 *)field = (u32)v;
	return 0;
}

static int store_size(const struct opt *o, const char *value, void *field, struct err *err)
{
	u64 v = 0;
	int rc = params_parse_size(value, &v);

	if (rc == -EINVAL)
		return err_set(err, -EINVAL,
			       "--%s: '%s' is not a size; give bytes, or a number with K, M, G or T", o->name,
			       value);
	if (rc || v < o->min || v > o->max)
		return out_of_range(o, value, err);
	*(u64 *)field = v;
	return 0;
}

int opts_store(const struct opt *o, const char *value, void *target, struct err *err)
{
	void *field = (char *)target + o->offset;
	unsigned *count;
	int rc = check_choice(o, value, err);

	if (rc)
		return rc;
	switch (o->kind) {
	case OPT_FLAG: *(bool *)field = true; return 0;
	case OPT_STRING: *(const char **)field = value; return 0;
	case OPT_U32: return store_u32(o, value, field, err);
	case OPT_SIZE: return store_size(o, value, field, err);
	case OPT_CONFIG: return 0; /* opts_parse() has read it */
	case OPT_LIST:
		count = (unsigned *)((char *)target + o->count_offset);
		if (*count == o->max_count)
			return err_set(err, -E2BIG, "--%s: given more than %u times, at '%s'", o->name,
				       o->max_count, value);
		((const char **)field)[(*count)++] = value;
		return 0;
	}
	return err_set(err, -EINVAL, "--%s: unknown kind", o->name);
}

const struct opt *opts_find(const struct opt *opts, const char *name, size_t len)
{
	for (const struct opt *o = opts; o->name; o++) {
		if (strlen(o->name) == len && !strncmp(o->name, name, len))
			return o;
	}
	return NULL;
}

/* The option of a word that begins with '-'; *ret_equals: where "=VALUE" begins, or NULL. */
static const struct opt *find_word(const struct opt *opts, const char *word, const char **ret_equals)
{
	*ret_equals = NULL;
	if (word[1] != '-') {
		for (const struct opt *o = opts; o->name; o++)
			if (o->letter && word[1] == o->letter && !word[2])
				return o;
		return NULL;
	}
	*ret_equals = strchr(word, '=');
	return opts_find(opts, word + 2, *ret_equals ? (size_t)(*ret_equals - word - 2) : strlen(word + 2));
}

int opts_unknown(const struct opt *opts, const char *word, struct err *err)
{
	char typed[OPTS_MAX_NAME + 1];
	const char *name = word + strspn(word, "-");
	const char *near;

	snprintf(typed, sizeof(typed), "%.*s", (int)MIN(strcspn(name, "="), (size_t)OPTS_MAX_NAME), name);
	near = opts_nearest(typed, opt_name, opts);
	if (near)
		return err_set(err, -EINVAL, "unknown option '%.64s'; did you mean --%s?", word, near);
	return err_set(err, -EINVAL, "unknown option '%.64s'; --help lists the options", word);
}

static int check_required(const struct opt *opts, const bool *seen, struct err *err)
{
	for (unsigned i = 0; opts[i].name; i++) {
		if (opts[i].required && !seen[i])
			return err_set(err, -EINVAL, "--%s %s is missing", opts[i].name, opts[i].arg);
	}
	return 0;
}

/* The option at argv[*i] and its value; *i is left at its last word. NULL with a sentence, for -EINVAL. */
static const struct opt *take_word(const struct opt *opts, int argc, char **argv, int *i,
				   const char **ret_value, struct err *err)
{
	const char *word = argv[*i], *equals;
	const struct opt *o = NULL;

	if (word[0] == '-')
		o = find_word(opts, word, &equals);
	else
		err_set(err, -EINVAL, "unexpected argument '%.64s'; options begin with --", word);
	if (!o) {
		if (word[0] == '-')
			opts_unknown(opts, word, err);
		return NULL;
	}
	if (o->kind == OPT_FLAG) {
		*ret_value = "";
		if (!equals)
			return o;
		err_set(err, -EINVAL, "--%s takes no value", o->name);
		return NULL;
	}
	if (equals) {
		*ret_value = equals + 1;
	} else if (o->optional) {
		*ret_value = o->optional;
	} else if (*i + 1 < argc) {
		*ret_value = argv[++*i];
	} else {
		err_set(err, -EINVAL, "--%s needs a value: --%s %s", o->name, o->name, o->arg);
		return NULL;
	}
	return o;
}

/* What a file says, if one is named; `seen` is set for what it gives. */
static int read_file(const struct opt *opts, int argc, char **argv, void *target, bool *seen, struct err *err)
{
	const struct opt *config = NULL;
	const char *path = NULL;

	for (const struct opt *o = opts; o->name; o++)
		if (o->kind == OPT_CONFIG)
			config = o;
	for (int i = 0; config && i < argc; i++) {
		const char *value = NULL;
		const struct opt *o = take_word(opts, argc, argv, &i, &value, err);

		if (!o)
			return -EINVAL;
		if (o != config)
			continue;
		if (path)
			return err_set(err, -EINVAL, "--%s is given twice", o->name);
		path = value;
	}
	if (!path)
		return 0;
	return opts_file_read(opts, path, target, (char **)((char *)target + config->offset), seen, err);
}

/* *ret_used: how many words were options; NULL: all have to be. */
static int parse(const struct opt *opts, int argc, char **argv, void *target, int *ret_used, struct err *err)
{
	bool seen[OPTS_MAX] = { false }, in_file[OPTS_MAX];
	int i, rc = read_file(opts, argc, argv, target, seen, err);

	if (rc)
		return rc;
	memcpy(in_file, seen, sizeof(in_file));
	for (i = 0; i < argc; i++) {
		const char *value = NULL;
		const struct opt *o;

		if (ret_used && (argv[i][0] != '-' || !strcmp(argv[i], "--"))) {
			i += argv[i][0] == '-';
			break;
		}
		o = take_word(opts, argc, argv, &i, &value, err);
		if (!o)
			return -EINVAL;
		if (in_file[o - opts] && o->kind == OPT_LIST)
			*(unsigned *)((char *)target + o->count_offset) = 0;
		in_file[o - opts] = false;
		rc = opts_store(o, value, target, err);
		if (rc)
			return rc;
		seen[o - opts] = true;
	}
	if (ret_used)
		*ret_used = i;
	return check_required(opts, seen, err);
}

int opts_parse(const struct opt *opts, int argc, char **argv, void *target, struct err *err)
{
	return parse(opts, argc, argv, target, NULL, err);
}

int opts_parse_front(const struct opt *opts, int argc, char **argv, void *target, int *ret_used,
		     struct err *err)
{
	return parse(opts, argc, argv, target, ret_used, err);
}
