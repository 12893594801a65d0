/* Options in a file. See opts_file.h for the form.
 *
 * Names and values go through the table of the command line, so an option that is added there is known here. Quoted values are
 * unescaped where they stand, since they only become shorter.
 */
#include "cli/opts_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

#define MAX_FILE (1 * MiB)

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One character behind a backslash; *p is moved behind it. 0: not known. */
static char escaped(const char **p)
{
	char c = *(*p)++;
	int high, low;

	switch (c) {
	case 'n': return '\n';
	case 't': return '\t';
	case '\\':
	case '"': return c;
	case 'x':
		high = hex((*p)[0]);
		low = high < 0 ? -1 : hex((*p)[1]);
		if (low < 0)
			return 0;
		*p += 2;
		return (char)(high << 4 | low);
	default: return 0;
	}
}

/* text begins with a quote. */
static int unquote(char *text, struct err *err)
{
	const char *p = text + 1;
	char *out = text;

	while (*p && *p != '"') {
		char c = *p++;

		if (c == '\\') {
			c = escaped(&p);
			if (!c)
				return err_set(
					err, -EINVAL,
					"a backslash is followed by something else than n, t, \\, \" or xHH");
		}
		*out++ = c;
	}
	if (*p != '"')
		return err_set(err, -EINVAL, "a value in quotes has no end");
	p++;
	if (p[strspn(p, " \t")])
		return err_set(err, -EINVAL, "there is something behind the closing quote");
	*out = 0;
	return 0;
}

static int store_flag(const struct opt *o, const char *value, void *target, struct err *err)
{
	bool on = !strcmp(value, "on") || !strcmp(value, "true");

	if (!on && strcmp(value, "off") != 0 && strcmp(value, "false") != 0)
		return err_set(err, -EINVAL, "'%s' cannot be '%.64s'; give on or off", o->name, value);
	*(bool *)((char *)target + o->offset) = on;
	return 0;
}

/* Ends text behind its last character that is no space, and skips those in front. */
static char *trim(char *text)
{
	size_t len;

	text += strspn(text, " \t\r");
	len = strlen(text);
	while (len && strchr(" \t\r", text[len - 1]))
		len--;
	text[len] = 0;
	return text;
}

static int parse_line(const struct opt *opts, char *line, void *target, bool *seen, struct err *err)
{
	char *equals, *name = trim(line), *value;
	const struct opt *o;
	int rc = 0;

	if (!*name || *name == '#')
		return 0;
	equals = strchr(name, '=');
	if (!equals)
		return err_set(err, -EINVAL, "'%.64s' is no NAME = VALUE", name);
	*equals = 0;
	value = trim(equals + 1);
	name = trim(name);
	o = opts_find(opts, name, strlen(name));
	if (!o)
		return opts_unknown(opts, name, err);
	if (o->not_in_file || o->kind == OPT_CONFIG)
		return err_set(err, -EINVAL, "'%s' can be given on the command line only", o->name);
	if (seen[o - opts] && o->kind != OPT_LIST)
		return err_set(err, -EINVAL, "'%s' is given twice", o->name);
	seen[o - opts] = true;
	if (*value == '"')
		rc = unquote(value, err);
	if (rc)
		return rc;
	return o->kind == OPT_FLAG ? store_flag(o, value, target, err) : opts_store(o, value, target, err);
}

int opts_file_parse(const struct opt *opts, const char *name, char *text, size_t len, void *target,
		    bool *seen, struct err *err)
{
	char *end = text + len;

	*end = 0;
	for (unsigned line = 1; text < end; line++) {
		char *eol = memchr(text, '\n', (size_t)(end - text));
		int rc = 0;

		if (!eol)
			eol = end;
		*eol = 0;
		if (strlen(text) < (size_t)(eol - text))
			rc = err_set(err, -EINVAL, "there is a zero byte");
		if (!rc)
			rc = parse_line(opts, text, target, seen, err);
		if (rc)
			return err_wrap(err, "%s, line %u", name, line);
		text = eol + 1;
	}
	return 0;
}

int opts_file_read(const struct opt *opts, const char *path, void *target, char **ret_text, bool *seen,
		   struct err *err)
{
	void *data;
	size_t len;
	char *text;
	int rc = os_read_file(path, MAX_FILE, &data, &len, err);

	if (rc)
		return rc;
	text = realloc(data, len + 1);
	if (!text) {
		free(data);
		return err_set(err, -ENOMEM, "no memory for '%s'", path);
	}
	*ret_text = text;
	return opts_file_parse(opts, path, text, len, target, seen, err);
}

/* ---- writing ---- */

static bool needs_quotes(const char *value)
{
	size_t len = strlen(value);

	if (!len || *value == '"' || strchr(" \t", *value) || strchr(" \t", value[len - 1]))
		return true;
	for (; *value; value++)
		if ((unsigned char)*value < 0x20 || *value == 0x7f)
			return true;
	return false;
}

static void print_value(const char *name, const char *value, FILE *out)
{
	if (!needs_quotes(value)) {
		fprintf(out, "%s = %s\n", name, value);
		return;
	}
	fprintf(out, "%s = \"", name);
	for (; *value; value++) {
		if (*value == '\\' || *value == '"')
			fprintf(out, "\\%c", *value);
		else if ((unsigned char)*value < 0x20 || *value == 0x7f)
			fprintf(out, "\\x%02x", (unsigned char)*value);
		else
			fputc(*value, out);
	}
	fputs("\"\n", out);
}

/* False: the option is not set. */
static bool print_opt(const struct opt *o, const void *target, FILE *out)
{
	const void *field = (const char *)target + o->offset;
	const char *const *list = field;
	unsigned count;

	switch (o->kind) {
	case OPT_FLAG:
		if (*(const bool *)field)
			fprintf(out, "%s = on\n", o->name);
		return *(const bool *)field;
	case OPT_STRING:
		if (*list)
			print_value(o->name, *list, out);
		return *list;
	case OPT_U32:
		if (*(const u32 *)field)
			fprintf(out, "%s = %u\n", o->name, *(const u32 *)field);
		return *(const u32 *)field;
	case OPT_SIZE:
		if (*(const u64 *)field)
			fprintf(out, "%s = %llu\n", o->name, (unsigned long long)*(const u64 *)field);
		return *(const u64 *)field;
	case OPT_LIST:
		count = *(const unsigned *)((const char *)target + o->count_offset);
		for (unsigned i = 0; i < count; i++)
			print_value(o->name, list[i], out);
		return count;
	case OPT_CONFIG: break;
	}
	return false;
}

void opts_file_print(const struct opt *opts, const void *target, FILE *out)
{
	for (const struct opt *o = opts; o->name; o++) {
		if (o->not_in_file || o->kind == OPT_CONFIG || print_opt(o, target, out))
			continue;
		fprintf(out, "# %s: %s\n", o->name, o->default_text ? o->default_text : "not given");
	}
}
