/* Methods by tables. See api.h.
 *
 * Everything that comes from a client is looked at here before a method runs: the path, the verb, each parameter's name, type
 * and range (hostile cases A01, A02). An answer that is no success is an object with one member, "error", a sentence.
 */
#include "api/api.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK             200
#define BAD_REQUEST    400
#define NOT_FOUND      404
#define WRONG_VERB     405
#define CONFLICT       409
#define INTERNAL_ERROR 500

char *api_text(const json_t *value)
{
	char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENSURE_ASCII), *line;
	size_t len = text ? strlen(text) : 0;

	line = text ? realloc(text, len + 2) : NULL;
	if (!line) {
		free(text);
		return NULL;
	}
	memcpy(line + len, "\n", 2);
	return line;
}

static void respond(struct http_response *res, int status, json_t *value)
{
	res->status = status;
	res->type = "application/json";
	res->body = value ? api_text(value) : NULL;
	res->body_len = res->body ? strlen(res->body) : 0;
	if (!res->body)
		res->status = INTERNAL_ERROR;
	json_decref(value);
}

const struct api_field api_text_result[] = { { .name = NULL } };

static void respond_text(struct http_response *res, json_t *value)
{
	const char *text = json_string_value(value);

	res->status = OK;
	res->type = "text/plain; version=0.0.4";
	res->body = text ? strdup(text) : NULL;
	res->body_len = res->body ? strlen(res->body) : 0;
	if (!res->body)
		res->status = INTERNAL_ERROR;
	json_decref(value);
}

static int status_of(int code)
{
	switch (code) {
	case -EINVAL:
	case -ERANGE: return BAD_REQUEST;
	case -ENOENT: return NOT_FOUND;
	case -EALREADY:
	case -EAGAIN:
	case -EBUSY:
	case -ESHUTDOWN: return CONFLICT;
	default: return INTERNAL_ERROR;
	}
}

/* What a client sent may be no UTF-8; then its place is taken by a question mark. */
static void respond_error(struct http_response *res, int status, const struct err *err)
{
	json_t *text = json_string(err->msg);
	char plain[sizeof(err->msg)];

	if (!text) {
		size_t i = 0;

		for (; err->msg[i]; i++)
			plain[i] = (unsigned char)err->msg[i] >= 0x80 ? '?' : err->msg[i];
		plain[i] = 0;
		text = json_string(plain);
	}
	respond(res, status, json_pack("{s:o}", "error", text));
}

/* ---- parameters ---- */

static int find_param(const struct api_method *m, const char *name, struct err *err)
{
	char list[256] = "";
	size_t n = 0;

	for (int i = 0; m->params && m->params[i].name; i++) {
		if (!strcmp(m->params[i].name, name))
			return i;
		if (n < sizeof(list))
			n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "",
					      m->params[i].name);
	}
	if (!n)
		return err_set(err, -EINVAL, "%s %s takes no parameters, but was given '%.64s'", m->verb,
			       m->path, name);
	return err_set(err, -EINVAL, "unknown parameter '%.64s'; %s %s takes %s", name, m->verb, m->path,
		       list);
}

static int set_number(const struct api_param *p, s64 value, s64 *ret_value, struct err *err)
{
	if (value < p->min || value > p->max)
		return err_set(err, -ERANGE, "'%s' is out of range: %lld; give %lld to %lld", p->name,
			       (long long)value, (long long)p->min, (long long)p->max);
	*ret_value = value;
	return 0;
}

/* A value in a query: a whole number; on or off. */
static int read_text(const struct api_param *p, const char *text, s64 *ret_value, struct err *err)
{
	char *end = NULL;
	long long v;

	if (p->type == API_BOOL) {
		if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
			return err_set(err, -EINVAL, "'%s' cannot be '%.64s'; give true or false", p->name,
				       text);
		*ret_value = !strcmp(text, "true");
		return 0;
	}
	errno = 0;
	v = strtoll(text, &end, 10);
	if (!((*text >= '0' && *text <= '9') || *text == '-') || *end)
		return err_set(err, -EINVAL, "'%s' cannot be '%.64s'; give a whole number", p->name, text);
	if (errno)
		return err_set(err, -ERANGE, "'%s' is out of range: %.64s; give %lld to %lld", p->name, text,
			       (long long)p->min, (long long)p->max);
	return set_number(p, v, ret_value, err);
}

static int read_json(const struct api_param *p, const json_t *v, s64 *ret_value, struct err *err)
{
	if (p->type == API_BOOL) {
		if (!json_is_boolean(v))
			return err_set(err, -EINVAL, "'%s' has to be true or false", p->name);
		*ret_value = json_is_true(v);
		return 0;
	}
	if (!json_is_integer(v))
		return err_set(err, -EINVAL, "'%s' has to be a whole number", p->name);
	return set_number(p, json_integer_value(v), ret_value, err);
}

static int read_query(const struct api_method *m, const struct http_request *req, struct api_args *args,
		      struct err *err)
{
	if (req->query_cut)
		return err_set(err, -EINVAL, "there are more than %d parameters", HTTP_MAX_QUERY);
	for (unsigned i = 0; i < req->nr_query; i++) {
		int at = find_param(m, req->query[i].name, err), rc;

		if (at < 0)
			return at;
		if (args->arg[at].given)
			return err_set(err, -EINVAL, "'%s' is given twice", m->params[at].name);
		rc = read_text(&m->params[at], req->query[i].value, &args->arg[at].value, err);
		if (rc)
			return rc;
		args->arg[at].given = true;
	}
	return 0;
}

static int read_members(const struct api_method *m, json_t *body, struct api_args *args, struct err *err)
{
	const char *name;
	json_t *v;

	json_object_foreach(body, name, v)
	{
		int at = find_param(m, name, err), rc;

		if (at < 0)
			return at;
		rc = read_json(&m->params[at], v, &args->arg[at].value, err);
		if (rc)
			return rc;
		args->arg[at].given = true;
	}
	return 0;
}

static int read_body(const struct api_method *m, const struct http_request *req, struct api_args *args,
		     struct err *err)
{
	json_error_t where;
	json_t *body;
	int rc;

	if (!req->body_len)
		return 0;
	body = json_loadb(req->body, req->body_len, JSON_REJECT_DUPLICATES, &where);
	if (!body)
		return err_set(err, -EINVAL, "the body is no JSON: line %d, column %d: %s", where.line,
			       where.column, where.text);
	rc = json_is_object(body) ? read_members(m, body, args, err)
				  : err_set(err, -EINVAL, "the body has to be an object in braces");
	json_decref(body);
	return rc;
}

/* ---- requests ---- */

static const struct api_method *route(const struct api *api, const struct http_request *req,
				      struct http_response *res, struct err *err)
{
	const struct api_method *path = NULL;

	for (const struct api_method *m = api->methods; m->name; m++) {
		if (strcmp(m->path, req->path) != 0)
			continue;
		if (!strcmp(m->verb, req->verb))
			return m;
		path = m;
	}
	if (path) {
		res->allow = path->verb;
		err_set(err, -EINVAL, "%s is for %s, not %.16s", path->path, path->verb, req->verb);
		respond_error(res, WRONG_VERB, err);
	} else {
		err_set(err, -ENOENT, "there is no %.64s; GET /openapi.json lists what there is", req->path);
		respond_error(res, NOT_FOUND, err);
	}
	return NULL;
}

void api_handle(void *opaque, const struct http_request *req, struct http_response *res)
{
	const struct api *api = opaque;
	struct api_args args = { 0 };
	json_t *result = NULL;
	struct err err = { 0 };
	const struct api_method *m = route(api, req, res, &err);
	bool get = m && !strcmp(m->verb, "GET");
	int rc;

	if (!m)
		return;
	if (get && req->body_len)
		rc = err_set(&err, -EINVAL, "GET %s takes no body", m->path);
	else if (!get && req->nr_query)
		rc = err_set(&err, -EINVAL, "%s %s takes its parameters in the body, not in the address",
			     m->verb, m->path);
	else
		rc = get ? read_query(m, req, &args, &err) : read_body(m, req, &args, &err);
	if (!rc)
		rc = m->run(api, &args, &result, &err);
	if (rc)
		respond_error(res, status_of(rc), &err);
	else if (m->result == API_TEXT)
		respond_text(res, result);
	else
		respond(res, OK, result);
}

/* ---- the document [OpenAPI 3.0.3] ---- */

static json_t *object_schema(const struct api_field *fields);

static json_t *field_schema(const struct api_field *f)
{
	json_t *s = NULL;

	switch (f->type) {
	case API_BOOL: s = json_pack("{s:s}", "type", "boolean"); break;
	case API_INT: s = json_pack("{s:s, s:s}", "type", "integer", "format", "int64"); break;
	case API_STRING: s = json_pack("{s:s}", "type", "string"); break;
	case API_OBJECT: s = object_schema(f->sub); break;
	case API_LIST: s = json_pack("{s:s, s:o}", "type", "array", "items", object_schema(f->sub)); break;
	case API_COUNTS:
		s = json_pack("{s:s, s:{s:s}}", "type", "object", "additionalProperties", "type", "integer");
		break;
	}
	if (f->text)
		json_object_set_new(s, "description", json_string(f->text));
	return s;
}

static json_t *object_schema(const struct api_field *fields)
{
	json_t *properties = json_object(), *required = json_array();

	for (const struct api_field *f = fields; f && f->name; f++) {
		json_object_set_new(properties, f->name, field_schema(f));
		if (!f->optional)
			json_array_append_new(required, json_string(f->name));
	}
	if (!json_array_size(required)) {
		json_decref(required);
		return json_pack("{s:s, s:o}", "type", "object", "properties", properties);
	}
	return json_pack("{s:s, s:o, s:o}", "type", "object", "properties", properties, "required", required);
}

static json_t *param_schema(const struct api_param *p)
{
	if (p->type == API_BOOL)
		return json_pack("{s:s}", "type", "boolean");
	return json_pack("{s:s, s:s, s:I, s:I}", "type", "integer", "format", "int64", "minimum",
			 (json_int_t)p->min, "maximum", (json_int_t)p->max);
}

static json_t *describe_query(const struct api_method *m)
{
	json_t *list = json_array();

	for (const struct api_param *p = m->params; p->name; p++)
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:o}", "name", p->name, "in", "query",
						      "description", p->text, "schema", param_schema(p)));
	return list;
}

static json_t *describe_body(const struct api_method *m)
{
	json_t *properties = json_object();

	for (const struct api_param *p = m->params; p->name; p++) {
		json_t *s = param_schema(p);

		json_object_set_new(s, "description", json_string(p->text));
		json_object_set_new(properties, p->name, s);
	}
	return json_pack("{s:{s:{s:{s:s, s:o, s:b}}}}", "content", "application/json", "schema", "type",
			 "object", "properties", properties, "additionalProperties", 0);
}

static json_t *describe_response(const char *text, json_t *schema)
{
	return json_pack("{s:s, s:{s:{s:o}}}", "description", text, "content", "application/json", "schema",
			 schema);
}

static json_t *describe_method(const struct api_method *m)
{
	json_t *op = json_pack("{s:s, s:s}", "operationId", m->name, "summary", m->summary), *responses;

	if (m->params && !strcmp(m->verb, "GET"))
		json_object_set_new(op, "parameters", describe_query(m));
	else if (m->params)
		json_object_set_new(op, "requestBody", describe_body(m));
	responses = json_pack("{s:o}", "200",
			      m->result == API_TEXT
				      ? json_pack("{s:s, s:{s:{s:{s:s}}}}", "description", "Done.", "content",
						  "text/plain", "schema", "type", "string")
				      : describe_response("Done.", object_schema(m->result)));
	json_object_set_new(responses, "default",
			    describe_response("400: a parameter is wrong. 409: not in this state.",
					      json_pack("{s:s}", "$ref", "#/components/schemas/Error")));
	json_object_set_new(op, "responses", responses);
	return op;
}

static void put_lower(json_t *paths, const struct api_method *m)
{
	json_t *path = json_object_get(paths, m->path);
	char verb[16] = "";

	for (unsigned i = 0; m->verb[i] && i + 1 < sizeof(verb); i++)
		verb[i] = (char)(m->verb[i] | 0x20);
	if (!path) {
		path = json_object();
		json_object_set_new(paths, m->path, path);
	}
	json_object_set_new(path, verb, describe_method(m));
}

int api_describe(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err)
{
	static const struct api_field error[] = {
		{ "error", API_STRING, "What was wrong, and what to do.", NULL, false },
		{ .name = NULL },
	};
	json_t *paths = json_object();

	for (const struct api_method *m = api->methods; m->name; m++)
		put_lower(paths, m);
	*ret_result = json_pack("{s:s, s:{s:s, s:s}, s:o, s:{s:{s:o}}}", "openapi", "3.0.3", "info", "title",
				api->title, "version", api->version, "paths", paths, "components", "schemas",
				"Error", object_schema(error));
	return *ret_result ? 0 : err_set(err, -ENOMEM, "no memory for the description");
}
