/* ELF images, 32 and 64 bits, and kernels among them that have a PVH entry. */
#pragma once

#include "boot/boot.h"

#define ELF_MAX_SEGMENTS 64
#define ELF_MAX_NOTES    16

struct elf_segment {
	gpa_t paddr;
	u64 memsz, filesz; /* filesz <= memsz */
	const u8 *data;    /* filesz bytes */
};

/* A file whose headers have been checked: all segments lie inside the file, below 4 GiB. */
struct elf_image {
	unsigned nr;
	struct elf_segment seg[ELF_MAX_SEGMENTS];
	u32 entry; /* physical */
	gpa_t end; /* one past the highest address of a segment */
	bool has_pvh;
	u32 pvh_entry; /* physical */
};

bool elf_match(const struct boot_file *file);
/* Refuses what is truncated, of another machine, not executable. */
int elf_parse(const struct boot_file *file, struct elf_image *ret_image, struct err *err);
/* Takes the memory of the segments and fills it. */
int elf_place(const struct boot_file *file, const struct elf_image *image, struct boot_space *space,
	      struct err *err);

/* Boots by the PVH entry; refuses images without one. */
int elf_load_pvh(const struct boot_source *src, struct boot_space *space, struct x86_state *ret_state,
		 struct err *err);
