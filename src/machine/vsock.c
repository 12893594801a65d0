/* --vsock: from the text to an open back end. */
#include "machine/vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/params.h"
#include "host/vsock_unix.h"

/* Those below are the hypervisor, this machine and the host; the last one is any [virtio 5.10.4]. */
#define MIN_CID 3
#define MAX_CID 0xfffffffe

struct settings {
	u32 cid;
	const char *path;
	bool packed;
};

static const struct param table[] = {
	{ .key = "cid",
	  .kind = PARAM_U32,
	  .offset = offsetof(struct settings, cid),
	  .min = MIN_CID,
	  .max = MAX_CID },
	{ .key = "path", .kind = PARAM_STRING, .offset = offsetof(struct settings, path) },
	{ .key = "packed", .kind = PARAM_FLAG, .offset = offsetof(struct settings, packed) },
	{ .key = NULL },
};

int vsock_open(const char *spec, struct vsock **ret_vsock, bool *ret_packed, struct err *err)
{
	struct settings s = { .cid = MIN_CID };
	char *text = strdup(spec);
	int r;

	if (!text)
		return err_set(err, -ENOMEM, "no memory for --vsock");
	r = params_parse("--vsock", text, table, &s, err);
	if (r == 0 && (!s.path || !*s.path))
		r = err_set(err, -EINVAL, "--vsock: no socket is named; give path=SOCK");
	if (r == 0)
		r = vsock_unix_open(s.cid, s.path, ret_vsock, err);
	if (r == 0)
		*ret_packed = s.packed;
	free(text);
	return r;
}
