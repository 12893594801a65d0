/* The other end of a machine's control socket, for commands. Blocking, with a bound of a few seconds. */
#pragma once

#include <jansson.h>

#include "base/err.h"

/* One request to the machine whose runtime folder dir is (runtime_find()). body: NULL, or an object (only lent). On success
 * *ret_result is a new reference to the answer. What the machine refuses is its sentence, as -EPROTO. */
int client_call(int dir, const char *verb, const char *path, const json_t *body, json_t **ret_result,
		struct err *err);
