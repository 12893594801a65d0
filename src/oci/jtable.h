/* JSON objects into structs, by tables: one row for each member that means something. Members without a row are ignored.
 *
 * Every failure is one sentence with the member's path, as in "linux.namespaces[2].type". Strings in the result point into
 * the parsed JSON, arrays into the document; both live until jtable_close(). Any thread.
 */
#pragma once

#include <jansson.h>

#include "base/err.h"
#include "base/types.h"

enum jtable_kind {
	JTABLE_STRING,   /* const char * */
	JTABLE_BOOL,     /* bool */
	JTABLE_VALUE,    /* struct limits_value: a number that may be absent */
	JTABLE_U32,      /* u32 */
	JTABLE_S64,      /* s64 */
	JTABLE_U64,      /* u64 */
	JTABLE_STRINGS,  /* const char ** and a counter */
	JTABLE_U32S,     /* u32 * and a counter */
	JTABLE_OBJECT,   /* a struct within the struct */
	JTABLE_OPTIONAL, /* a pointer to a struct, NULL where absent */
	JTABLE_OBJECTS,  /* a pointer to an array of structs and a counter */
	JTABLE_PAIRS,    /* struct limits_pair * and a counter: an object whose members are strings */
	JTABLE_NAMED, /* as JTABLE_OBJECTS, but in an object: each one's name goes to the member at name_offset */
};

struct jtable {
	const char *name; /* NULL ends a table */
	enum jtable_kind kind;
	size_t offset, count_offset;
	const struct jtable *sub; /* of the structs below */
	size_t sub_size, name_offset;
	s64 min, max; /* of numbers; both 0: what the type holds */
	bool required;
	size_t present_offset; /* of a bool that says whether the member was there; 0: none */
	const char *(*choice)(
		unsigned i); /* of strings: the i-th one allowed, NULL past the end; NULL: any */
};

/* The text of one JSON document and what has been made of it. */
struct jtable_document {
	json_t *root;
	void *blocks; /* of arrays */
};

/* Reads a document from text. `name` is for sentences. Refuses what is larger than 16 MiB or nested more than 32 deep, and
 * two members of one name. */
int jtable_open(struct jtable_document *doc, const char *name, const char *text, size_t len, struct err *err);
/* Of a zeroed document too. */
void jtable_close(struct jtable_document *doc);

/* Fills target, which the caller has zeroed. `path` is put in front of members' names: "" for the whole document. */
int jtable_read(struct jtable_document *doc, const json_t *object, const struct jtable *fields,
		const char *path, void *target, struct err *err);

/* Zeroed memory that lives as long as the document; NULL: none. */
void *jtable_alloc(struct jtable_document *doc, size_t size);
