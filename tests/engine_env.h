/* How the software engine runs in a test: the environment's BOTHY_ENGINE, in the form that --engine takes; "soft" where
 * there is none. */
#pragma once

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vm/engine.h"

static inline const char *engine_env(void)
{
	const char *text = getenv("BOTHY_ENGINE");

	return text && *text ? text : soft_engine.name;
}

static inline int engine_env_parse(struct engine_conf *ret_conf, struct err *err)
{
	char name[32];
	int r = engine_conf_parse(engine_env(), name, sizeof(name), ret_conf, err);

	if (r == 0 && strcmp(name, soft_engine.name))
		r = err_set(err, -EINVAL, "this test is for the soft engine, not for '%s'", name);
	return r < 0 ? err_wrap(err, "BOTHY_ENGINE") : 0;
}
