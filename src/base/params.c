/* Settings in an option's value; see params.h. */
#include "base/params.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int params_parse_size(const char *text, u64 *ret_size)
{
	u64 v = 0, unit = 1;
	const char *p = text;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (u64)(*p - '0'), &v))
			return -ERANGE;
	}
	if (*p) {
		switch (*p++) {
		case 'k':
		case 'K': unit = KiB; break;
		case 'm':
		case 'M': unit = MiB; break;
		case 'g':
		case 'G': unit = GiB; break;
		case 't':
		case 'T': unit = 1024 * GiB; break;
		default: return -EINVAL;
		}
		if (*p && strcmp(p, "B") && strcmp(p, "iB"))
			return -EINVAL;
	}
	if (__builtin_mul_overflow(v, unit, &v))
		return -ERANGE;
	*ret_size = v;
	return 0;
}

char *params_first(char *text)
{
	char *to = text;

	for (char *from = text;; from++) {
		if (*from == ',' && from[1] == ',') {
			from++;
		} else if (*from == ',') {
			*to = 0;
			return from + 1;
		}
		*to++ = *from;
		if (!*from)
			return NULL;
	}
}

static int unknown(const char *what, const char *key, const struct param *table, struct err *err)
{
	char list[256] = "";
	size_t n = 0;

	for (const struct param *p = table; p->key && n < sizeof(list); p++)
		n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "", p->key);
	return err_set(err, -EINVAL, "%s: unknown setting '%.64s'; the settings are %s", what, key, list);
}

static int bad(const char *what, const struct param *p, const char *value, struct err *err)
{
	char valid[256] = "on or off";
	size_t n = 0;

	if (p->kind == PARAM_U32)
		snprintf(valid, sizeof(valid), "a number from %llu to %llu", (unsigned long long)p->min,
			 (unsigned long long)p->max);
	else if (p->kind == PARAM_SIZE)
		snprintf(valid, sizeof(valid), "%llu or more, with or without K, M, G or T",
			 (unsigned long long)p->min);
	else if (p->kind == PARAM_CHOICE)
		for (unsigned i = 0; p->choices[i] && n < sizeof(valid); i++)
			n += (size_t)snprintf(valid + n, sizeof(valid) - n, "%s%s", i ? " or " : "",
					      p->choices[i]);
	else if (p->kind != PARAM_FLAG)
		snprintf(valid, sizeof(valid), "a value, as in %s=...", p->key);
	return err_set(err, -EINVAL, "%s: '%s' cannot be '%.64s'; give %s", what, p->key, value ? value : "",
		       valid);
}

/* False: no such value. */
static bool store(const struct param *p, const char *value, void *field)
{
	u64 v;
	struct {
		unsigned nr;
		const char *item[];
	} * list;

	switch (p->kind) {
	case PARAM_FLAG:
		if (value && strcmp(value, "on") && strcmp(value, "off"))
			return false;
		*(bool *)field = !value || !strcmp(value, "on");
		return true;
	case PARAM_STRING: *(const char **)field = value; return value;
	case PARAM_U32:
		/* Digits only: a number has no unit. */
		if (!value || !*value || value[strspn(value, "0123456789")] ||
		    params_parse_size(value, &v) < 0 || v < p->min || v > p->max)
			return false;
		*(u32 *)field = (u32)v;
		return true;
	case PARAM_SIZE:
		if (!value || params_parse_size(value, &v) < 0 || v < p->min || v > p->max)
			return false;
		*(u64 *)field = v;
		return true;
	case PARAM_CHOICE:
		for (u32 i = 0; value && p->choices[i]; i++) {
			if (!strcmp(p->choices[i], value)) {
				*(u32 *)field = i;
				return true;
			}
		}
		return false;
	case PARAM_LIST:
		list = field;
		if (!value || list->nr == p->max)
			return false;
		list->item[list->nr++] = value;
		return true;
	}
	return false;
}

int params_parse(const char *what, char *text, const struct param *table, void *target, struct err *err)
{
	while (text) {
		char *next = strchr(text, ','), *value;
		const struct param *p = table;

		if (next)
			*next++ = 0;
		value = strchr(text, '=');
		if (value)
			*value++ = 0;
		while (p->key && strcmp(p->key, text))
			p++;
		if (!p->key)
			return unknown(what, text, table, err);
		if (!store(p, value, (char *)target + p->offset))
			return bad(what, p, value, err);
		text = next;
	}
	return 0;
}
