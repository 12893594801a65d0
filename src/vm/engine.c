/* Which engine runs the guest.
 *
 * This version has one, the software engine. The list below is where another is added. Main thread.
 */
#include "vm/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *engine_why_not_kvm(void)
{
	if (access("/dev/kvm", F_OK) < 0)
		return "this host has no /dev/kvm";
	return "this host has /dev/kvm, but the kvm engine is not part of this version of bothy";
}

const struct engine_ops *engine_select(const char *name, char *ret_why, size_t why_len, struct err *err)
{
	bool any = !strcmp(name, "auto");

	if (!strcmp(name, "kvm")) {
		err_set(err, -ENOTSUP,
			"the kvm engine is not part of this version of bothy; use --engine soft or --engine auto");
		return NULL;
	}
	if (!any && strcmp(name, soft_engine.name)) {
		err_set(err, -EINVAL, "unknown engine '%s'; the engines are auto, soft and kvm", name);
		return NULL;
	}
	if (soft_engine.probe && soft_engine.probe(err)) {
		err_wrap(err, "the soft engine cannot run on this host");
		return NULL;
	}
	if (why_len)
		snprintf(ret_why, why_len, "%s%s", any ? "the soft engine runs: " : "",
			 any ? engine_why_not_kvm() : "");
	return &soft_engine;
}
