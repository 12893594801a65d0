/* JSON by tables, over jansson.
 *
 * The text is looked at once before jansson sees it. Nesting is bounded, so that nothing recurses deeply; and a whole number
 * between 2^63 and 2^64 - 1, which JSON allows, the specification uses (no limit at all) and jansson refuses, is put
 * into quotes with a mark in front. A string that somebody writes with that mark in a number's place is read as that
 * number, which is what it says.
 */
#include "oci/jtable.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jail/limits.h"

#define MAX_TEXT  (16 * MiB)
#define MAX_DEPTH 32
#define MAX_COUNT 16384 /* elements of one array */
#define BIG_MARK  "u64:"

struct block {
	struct block *next;
	_Alignas(16) char data[];
};

/* Where in the document: printed only on failure. */
struct where {
	const struct where *up;
	const char *name; /* of a member, or NULL for an element */
	size_t index;
};

static size_t put_where(const struct where *w, char *buf, size_t size)
{
	size_t n = w->up ? put_where(w->up, buf, size) : 0;

	if (n >= size)
		return n;
	if (!w->name)
		n += (size_t)snprintf(buf + n, size - n, "[%zu]", w->index);
	else if (*w->name)
		n += (size_t)snprintf(buf + n, size - n, "%s%.64s", n ? "." : "", w->name);
	return n;
}

static int wrong(const struct where *w, int code, struct err *err, const char *what)
{
	char path[512] = "";

	put_where(w, path, sizeof(path));
	return err_set(err, code, "%s: %s", path[0] ? path : "the document", what);
}

/* Copies text to out, big numbers marked; out has room. Returns the length, or -E2BIG when nested too deep. */
static ssize_t prepare(const char *text, size_t len, char *out)
{
	bool in_string = false;
	unsigned depth = 0;
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		size_t digits = 0;

		if (in_string) {
			out[n++] = c;
			if (c == '\\' && i + 1 < len)
				out[n++] = text[++i];
			else if (c == '"')
				in_string = false;
			continue;
		}
		while (i + digits < len && text[i + digits] >= '0' && text[i + digits] <= '9')
			digits++;
		if (digits >= 19) {
			bool big = (digits == 20 ||
				    (digits == 19 && memcmp(text + i, "9223372036854775807", 19) > 0)) &&
				   !(i && strchr("-+.eE", text[i - 1])) &&
				   !(i + digits < len && strchr(".eE", text[i + digits]));

			if (big) {
				n += (size_t)sprintf(out + n, "\"%s", BIG_MARK);
			}
			memcpy(out + n, text + i, digits);
			n += digits;
			if (big)
				out[n++] = '"';
			i += digits - 1;
			continue;
		}
		in_string = c == '"';
		if (c == '[' || c == '{') {
			if (++depth > MAX_DEPTH)
				return -E2BIG;
		} else if ((c == ']' || c == '}') && depth) {
			depth--;
		}
		out[n++] = c;
	}
	return (ssize_t)n;
}

int jtable_open(struct jtable_document *doc, const char *name, const char *text, size_t len, struct err *err)
{
	json_error_t where;
	char *copy;
	ssize_t n;

	memset(doc, 0, sizeof(*doc));
	if (len > MAX_TEXT)
		return err_set(err, -EFBIG, "%s has %zu bytes; at most %llu are accepted", name, len,
			       MAX_TEXT);
	/* 6 more for each 19 digits. */
	copy = malloc(len + len / 19 * 6 + 1);
	if (!copy)
		return err_set(err, -ENOMEM, "no memory for %s", name);
	n = prepare(text, len, copy);
	if (n < 0) {
		free(copy);
		return err_set(err, (int)n, "%s is nested more than %d deep", name, MAX_DEPTH);
	}
	doc->root = json_loadb(copy, (size_t)n, JSON_REJECT_DUPLICATES, &where);
	free(copy);
	if (!doc->root)
		return err_set(err, -EINVAL, "%s is no JSON: line %d, column %d: %s", name, where.line,
			       where.column, where.text);
	if (!json_is_object(doc->root)) {
		jtable_close(doc);
		return err_set(err, -EINVAL, "%s: an object in braces is needed", name);
	}
	return 0;
}

void jtable_close(struct jtable_document *doc)
{
	struct block *b = doc->blocks;

	while (b) {
		struct block *next = b->next;

		free(b);
		b = next;
	}
	json_decref(doc->root);
	memset(doc, 0, sizeof(*doc));
}

void *jtable_alloc(struct jtable_document *doc, size_t size)
{
	struct block *b = calloc(1, sizeof(*b) + MAX(size, 1));

	if (!b)
		return NULL;
	b->next = doc->blocks;
	doc->blocks = b;
	return b->data;
}

/* A whole number as a sign and a magnitude. */
static int read_number(const json_t *v, const struct where *w, bool *ret_negative, u64 *ret_magnitude,
		       struct err *err)
{
	const char *text = json_string_value(v);

	if (json_is_integer(v)) {
		s64 i = json_integer_value(v);

		*ret_negative = i < 0;
		*ret_magnitude = i < 0 ? 0 - (u64)i : (u64)i;
		return 0;
	}
	/* 1e3 is a whole number in JSON. */
	if (json_is_real(v) && floor(json_real_value(v)) == json_real_value(v) &&
	    fabs(json_real_value(v)) < 0x1p53) {
		*ret_negative = json_real_value(v) < 0;
		*ret_magnitude = (u64)fabs(json_real_value(v));
		return 0;
	}
	if (text && !strncmp(text, BIG_MARK, 4)) {
		char *end;

		errno = 0;
		*ret_negative = false;
		*ret_magnitude = strtoull(text + 4, &end, 10);
		if (!errno && !*end && end != text + 4)
			return 0;
		return wrong(w, -ERANGE, err, "the number is out of range");
	}
	return wrong(w, -EINVAL, err, "a whole number is needed");
}

static int read_range(const json_t *v, const struct jtable *f, const struct where *w, s64 min, u64 max,
		      u64 *ret_v, struct err *err)
{
	bool negative = false;
	char text[128];
	u64 m = 0;
	int rc = read_number(v, w, &negative, &m, err);

	if (rc)
		return rc;
	if (f->min || f->max) {
		min = f->min;
		max = (u64)f->max;
	}
	if (negative ? (min >= 0 || m > 0 - (u64)min) : (m > max || (min > 0 && m < (u64)min))) {
		snprintf(text, sizeof(text), "%s%llu is out of range; give %lld to %llu", negative ? "-" : "",
			 (unsigned long long)m, (long long)min, (unsigned long long)max);
		return wrong(w, -ERANGE, err, text);
	}
	*ret_v = negative ? 0 - m : m;
	return 0;
}

static int read_string(const json_t *v, const struct jtable *f, const struct where *w, const char **ret_text,
		       struct err *err)
{
	const char *text = json_string_value(v);
	char what[512];
	size_t n;

	if (!text)
		return wrong(w, -EINVAL, err, "a string is needed");
	if (f->choice) {
		unsigned i = 0;

		while (f->choice(i) && strcmp(f->choice(i), text) != 0)
			i++;
		if (!f->choice(i)) {
			n = (size_t)snprintf(what, sizeof(what), "'%.64s' is not known; valid are", text);
			for (i = 0; f->choice(i) && n < sizeof(what); i++)
				n += (size_t)snprintf(what + n, sizeof(what) - n, "%s %s", i ? "," : "",
						      f->choice(i));
			return wrong(w, -EINVAL, err, what);
		}
	}
	*ret_text = text;
	return 0;
}

static int read_object(struct jtable_document *doc, const json_t *object, const struct jtable *fields,
		       const struct where *w, void *target, struct err *err);

/* Checks an array or object of values and makes room for `size` bytes each. */
static int make_room(struct jtable_document *doc, const json_t *v, bool object, size_t size,
		     const struct where *w, void **ret_list, unsigned *ret_count, struct err *err)
{
	size_t count = object ? json_object_size(v) : json_array_size(v);
	char what[96];

	if (object ? !json_is_object(v) : !json_is_array(v))
		return wrong(w, -EINVAL, err,
			     object ? "an object in braces is needed" : "a list in brackets is needed");
	if (count > MAX_COUNT) {
		snprintf(what, sizeof(what), "%zu elements are too many; at most %d are accepted", count,
			 MAX_COUNT);
		return wrong(w, -E2BIG, err, what);
	}
	*ret_list = jtable_alloc(doc, (count + 1) * size); /* one more: lists of strings end in NULL */
	if (!*ret_list)
		return wrong(w, -ENOMEM, err, "no memory");
	*ret_count = (unsigned)count;
	return 0;
}

static int read_strings(struct jtable_document *doc, const json_t *v, const struct jtable *f,
			const struct where *w, void *field, unsigned *count, struct err *err)
{
	const char **list = NULL;
	unsigned n = 0;
	int rc = make_room(doc, v, false, sizeof(*list), w, (void **)&list, &n, err);

	for (unsigned i = 0; !rc && i < n; i++) {
		struct where at = { w, NULL, i };

		rc = read_string(json_array_get(v, i), f, &at, &list[i], err);
	}
	if (rc)
		return rc;
	*(const char ***)field = list;
	*count = n;
	return 0;
}

static int read_u32s(struct jtable_document *doc, const json_t *v, const struct jtable *f,
		     const struct where *w, void *field, unsigned *count, struct err *err)
{
	u32 *list = NULL;
	unsigned n = 0;
	int rc = make_room(doc, v, false, sizeof(*list), w, (void **)&list, &n, err);

	for (unsigned i = 0; !rc && i < n; i++) {
		struct where at = { w, NULL, i };
		u64 number = 0;

		rc = read_range(json_array_get(v, i), f, &at, 0, UINT32_MAX, &number, err);
		list[i] = (u32)number;
	}
	if (rc)
		return rc;
	*(u32 **)field = list;
	*count = n;
	return 0;
}

static int read_objects(struct jtable_document *doc, const json_t *v, const struct jtable *f,
			const struct where *w, void *field, unsigned *count, struct err *err)
{
	bool named = f->kind == JTABLE_NAMED;
	void *iter = named && json_is_object(v) ? json_object_iter((json_t *)v) : NULL;
	char *list = NULL;
	unsigned n = 0;
	int rc = make_room(doc, v, named, f->sub_size, w, (void **)&list, &n, err);

	for (unsigned i = 0; !rc && i < n; i++) {
		struct where at = { w, named ? json_object_iter_key(iter) : NULL, i };

		if (named)
			*(const char **)(list + i * f->sub_size + f->name_offset) =
				json_object_iter_key(iter);
		rc = read_object(doc, named ? json_object_iter_value(iter) : json_array_get(v, i), f->sub,
				 &at, list + i * f->sub_size, err);
		if (named)
			iter = json_object_iter_next((json_t *)v, iter);
	}
	if (rc)
		return rc;
	*(void **)field = list;
	*count = n;
	return 0;
}

static int read_pairs(struct jtable_document *doc, const json_t *v, const struct jtable *f,
		      const struct where *w, void *field, unsigned *count, struct err *err)
{
	void *iter = json_is_object(v) ? json_object_iter((json_t *)v) : NULL;
	struct limits_pair *list = NULL;
	unsigned n = 0;
	int rc = make_room(doc, v, true, sizeof(*list), w, (void **)&list, &n, err);

	for (unsigned i = 0; !rc && i < n; i++, iter = json_object_iter_next((json_t *)v, iter)) {
		struct where at = { w, json_object_iter_key(iter), 0 };

		list[i].name = json_object_iter_key(iter);
		rc = read_string(json_object_iter_value(iter), f, &at, &list[i].value, err);
	}
	if (rc)
		return rc;
	*(struct limits_pair **)field = list;
	*count = n;
	return 0;
}

static int read_field(struct jtable_document *doc, const json_t *v, const struct jtable *f,
		      const struct where *w, char *target, struct err *err)
{
	void *field = target + f->offset, *made;
	unsigned *count = (unsigned *)(target + f->count_offset);
	u64 number = 0;
	int rc;

	switch (f->kind) {
	case JTABLE_STRING: return read_string(v, f, w, field, err);
	case JTABLE_BOOL:
		if (!json_is_boolean(v))
			return wrong(w, -EINVAL, err, "true or false is needed");
		*(bool *)field = json_is_true(v);
		return 0;
	case JTABLE_VALUE:
		rc = read_range(v, f, w, INT64_MIN, INT64_MAX, &number, err);
		if (!rc)
			*(struct limits_value *)field = (struct limits_value){ true, (s64)number };
		return rc;
	case JTABLE_U32:
		rc = read_range(v, f, w, 0, UINT32_MAX, &number, err);
		if (!rc)
			*(u32 *)field = (u32)number;
		return rc;
	case JTABLE_S64:
		rc = read_range(v, f, w, INT64_MIN, INT64_MAX, &number, err);
		if (!rc)
			*(s64 *)field = (s64)number;
		return rc;
	case JTABLE_U64:
		rc = read_range(v, f, w, 0, UINT64_MAX, &number, err);
		if (!rc)
			*(u64 *)field = number;
		return rc;
	case JTABLE_STRINGS: return read_strings(doc, v, f, w, field, count, err);
	case JTABLE_U32S: return read_u32s(doc, v, f, w, field, count, err);
	case JTABLE_OBJECT: return read_object(doc, v, f->sub, w, field, err);
	case JTABLE_OPTIONAL:
		made = jtable_alloc(doc, f->sub_size);
		if (!made)
			return wrong(w, -ENOMEM, err, "no memory");
		rc = read_object(doc, v, f->sub, w, made, err);
		if (!rc)
			*(void **)field = made;
		return rc;
	case JTABLE_OBJECTS:
	case JTABLE_NAMED: return read_objects(doc, v, f, w, field, count, err);
	case JTABLE_PAIRS: return read_pairs(doc, v, f, w, field, count, err);
	}
	return wrong(w, -EINVAL, err, "unknown kind of field");
}

static int read_object(struct jtable_document *doc, const json_t *object, const struct jtable *fields,
		       const struct where *w, void *target, struct err *err)
{
	if (!json_is_object(object))
		return wrong(w, -EINVAL, err, "an object in braces is needed");
	for (const struct jtable *f = fields; f->name; f++) {
		const json_t *v = json_object_get(object, f->name);
		struct where at = { w, f->name, 0 };
		int rc;

		/* null is what writers put where they have nothing. */
		if (!v || json_is_null(v)) {
			if (f->required)
				return wrong(&at, -EINVAL, err, "is missing");
			continue;
		}
		rc = read_field(doc, v, f, &at, target, err);
		if (rc)
			return rc;
		if (f->present_offset)
			*(bool *)((char *)target + f->present_offset) = true;
	}
	return 0;
}

int jtable_read(struct jtable_document *doc, const json_t *object, const struct jtable *fields,
		const char *path, void *target, struct err *err)
{
	struct where w = { NULL, path, 0 };

	return read_object(doc, object, fields, &w, target, err);
}
