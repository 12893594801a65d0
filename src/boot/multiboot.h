/* Multiboot 1 images: teaching kernels, test kernels. */
#pragma once

#include "boot/boot.h"

struct multiboot_header {
	u32 offset; /* in the file */
	u32 flags;
	/* Where flags has MULTIBOOT_HAS_ADDRESSES. */
	u32 header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

/* Is there a valid header in the first 8 KiB? */
bool multiboot_find(const struct boot_file *kernel, struct multiboot_header *ret_header);
/* For both versions. Loads one segment, as the addresses of the header say; where it ends. */
int multiboot_place_addressed(const struct boot_file *kernel, const struct multiboot_header *header,
			      struct boot_space *space, gpa_t *ret_end, struct err *err);
/* A module, on a page boundary behind what ends at kernel_end; where there is no room, elsewhere above 1 MiB. */
int multiboot_place_module(const struct boot_file *module, struct boot_space *space, gpa_t kernel_end,
			   gpa_t *ret_gpa, struct err *err);
/* What kernels find below 600H that were started by a loader on a BIOS, and some rely on (Xen): interrupt vectors, behind which
 * each call is refused, and of the data area memory, COM1, and the screen's mode. */
void multiboot_write_bios_data(const struct boot_space *space);
#define MULTIBOOT_LOADER_NAME "bothy"

int multiboot_load(const struct boot_source *src, const struct multiboot_header *header,
		   struct boot_space *space, struct x86_state *ret_state, struct err *err);
