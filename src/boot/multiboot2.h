/* Multiboot 2 images: teaching kernels, Xen. */
#pragma once

#include "boot/boot.h"

/* Is there a header with the right check sum where one may be? */
bool multiboot2_match(const struct boot_file *kernel);
int multiboot2_load(const struct boot_source *src, struct boot_space *space, struct x86_state *ret_state,
		    struct err *err);
/* For a file that is nothing else: whether it has a header that is damaged or lies where no loader looks, and a sentence about
 * that with -ENOEXEC. */
bool multiboot2_explain(const struct boot_file *kernel, struct err *err);
