/* --balloon: SIZE[,deflate-on-oom=on|off][,reporting=on|off][,packed=on|off]. Main thread. */
#pragma once

#include "base/err.h"
#include "dev/virtio/virtio_balloon.h"

/* memory: the guest's, bytes. -EINVAL where the text is not right, or asks for more than that. */
int balloon_parse(const char *spec, u64 memory, struct balloon_conf *ret_conf, bool *ret_packed,
		  struct err *err);
/* Asks a running machine's guest to give away so much; -ENODEV where it has no balloon, -EINVAL as above. */
int balloon_set(struct vm *vm, u64 bytes, struct err *err);
