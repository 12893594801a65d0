/* --balloon: from the text to what the device wants to know. */
#include "machine/balloon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/params.h"
#include "boot/boot.h"
#include "vm/vm.h"

struct settings {
	bool deflate_on_oom, reporting, packed;
};

static const struct param table[] = {
	{ .key = "deflate-on-oom", .kind = PARAM_FLAG, .offset = offsetof(struct settings, deflate_on_oom) },
	{ .key = "reporting", .kind = PARAM_FLAG, .offset = offsetof(struct settings, reporting) },
	{ .key = "packed", .kind = PARAM_FLAG, .offset = offsetof(struct settings, packed) },
	{ .key = NULL },
};

static int check_size(const char *what, u64 bytes, u64 memory, struct err *err)
{
	char want[32], have[32];

	if (bytes <= memory)
		return 0;
	return err_set(err, -EINVAL, "%s: the guest cannot give away %s, it has %s", what,
		       boot_size_text(bytes, want), boot_size_text(memory, have));
}

int balloon_parse(const char *spec, u64 memory, struct balloon_conf *ret_conf, bool *ret_packed,
		  struct err *err)
{
	struct settings s = { .deflate_on_oom = true, .reporting = true };
	char *text = strdup(spec);
	u64 size;
	int r;

	if (!text)
		return err_set(err, -ENOMEM, "no memory for --balloon");
	r = params_parse("--balloon", params_first(text), table, &s, err);
	if (r == 0 && params_parse_size(text, &size) < 0)
		r = err_set(
			err, -EINVAL,
			"--balloon cannot be '%.64s'; give how much memory the guest is to give away, as in 256M",
			text);
	if (r == 0)
		r = check_size("--balloon", size, memory, err);
	if (r == 0) {
		*ret_conf = (struct balloon_conf){ size, !s.deflate_on_oom, !s.reporting };
		*ret_packed = s.packed;
	}
	free(text);
	return r;
}

int balloon_set(struct vm *vm, u64 bytes, struct err *err)
{
	struct device *balloon = virtio_balloon_find(vm);
	int r;

	if (!balloon)
		return err_set(
			err, -ENODEV,
			"machine %s has no balloon; one that is started with --balloon 0 has an empty one",
			vm->name);
	r = check_size("balloon", bytes, vm->ram.size, err);
	if (r == 0)
		virtio_balloon_set_target(balloon, bytes);
	return r;
}
