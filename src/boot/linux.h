/* Linux kernels in bzImage form, by the x86 boot protocol. */
#pragma once

#include "boot/boot.h"

bool linux_match(const struct boot_file *kernel);
int linux_load(const struct boot_source *src, struct boot_space *space, struct x86_state *ret_state,
	       struct err *err);
