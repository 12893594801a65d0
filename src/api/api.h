/* Methods as tables: a row gives routing, checking of parameters, and the method's part of the OpenAPI document. Main thread. */
#pragma once

#include <jansson.h>

#include "api/http.h"

#define API_MAX_PARAMS 4

struct api;

enum api_type {
	API_BOOL,
	API_INT,
	API_STRING,
	API_OBJECT, /* sub */
	API_LIST,   /* of objects: sub */
	API_COUNTS, /* an object whose members are numbers */
};

/* A member of a result. */
struct api_field {
	const char *name; /* NULL ends a table */
	enum api_type type;
	const char *text; /* what it is, with its unit */
	const struct api_field *sub;
	bool optional;
};

/* What a method takes: in the query of a GET, in the object that is the body of a POST. */
struct api_param {
	const char *name;   /* NULL ends a table */
	enum api_type type; /* API_BOOL or API_INT */
	s64 min, max;
	const char *text;
};

/* By the place in the table of parameters. */
struct api_args {
	struct {
		bool given;
		s64 value;
	} arg[API_MAX_PARAMS];
};

struct api_method {
	const char *name; /* NULL ends a table; unique */
	const char *verb, *path;
	const char *summary;            /* one sentence */
	const struct api_param *params; /* NULL: none */
	const struct api_field *result; /* NULL: any object; API_TEXT: plain text, a JSON string for run */
	/* *ret_result: a new reference. A failure is a negative errno, from which the HTTP status follows, with a sentence. */
	int (*run)(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err);
};

/* As a result: text for people or other programs, version 0.0.4 of Prometheus' format. */
extern const struct api_field api_text_result[];
#define API_TEXT api_text_result

struct api {
	const struct api_method *methods;
	const char *title, *version;
	void *target; /* the methods' own */
};

/* Answers a request: for http_new(), with a struct api as opaque. */
void api_handle(void *opaque, const struct http_request *req, struct http_response *res);

/* A method that gives the OpenAPI document. */
int api_describe(const struct api *api, const struct api_args *args, json_t **ret_result, struct err *err);

/* JSON as the server sends it: indented, with a line's end; free(). NULL where memory is short. */
char *api_text(const json_t *value);
