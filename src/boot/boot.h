/* Direct boot: from kernel and initrd images to guest memory and the first vCPU's state.
 *
 * The images are hostile until checked: no field of theirs is used before it was compared with
 * the length of the file and the memory of the guest. All functions are for the main thread,
 * before vCPUs run.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "vm/ram.h"
#include "x86/regs.h"

/* The guest's memory map, as e820, PVH and Multiboot number the types [ACPI 15]. */
enum boot_map_type { BOOT_MAP_RAM = 1, BOOT_MAP_RESERVED = 2, BOOT_MAP_ACPI = 3, BOOT_MAP_NVS = 4 };

struct boot_map_entry {
	gpa_t start;
	u64 len;
	u32 type;
};

#define BOOT_MAP_MAX 16

struct boot_map {
	struct boot_map_entry entry[BOOT_MAP_MAX]; /* ascending, disjoint */
	unsigned nr;
};

/* Most images are only copied, so that they need not be in this process too. What is read from a file that somebody
 * changes meanwhile is what it has at that moment. */
struct boot_file {
	const char *path; /* for messages, and what the kernel is told about its modules */
	const u8 *data;   /* all of it, or with in_file: a kernel's first BOOT_HEAD bytes, else NULL */
	size_t len;
	bool in_file;
	int fd; /* with in_file */
};

#define BOOT_HEAD 4096

/* Whether no more of the kernel than its first BOOT_HEAD bytes needs to be in memory. */
bool boot_head_is_enough(const struct boot_file *kernel);

#define BOOT_MAX_INITRDS 32

/* What to boot. */
struct boot_source {
	struct boot_file kernel;
	struct boot_file initrd[BOOT_MAX_INITRDS];
	const char *text[BOOT_MAX_INITRDS]; /* what goes with one that is a module; NULL: its path */
	unsigned nr_initrds;
	const char *append; /* "" for none */
};

static inline const char *boot_module_text(const struct boot_source *src, unsigned i)
{
	return src->text[i] ? src->text[i] : src->initrd[i].path;
}

/* The frame buffer that the kernel was promised: 32 bits per pixel, width * 4 bytes to the next line. */
#define BOOT_MAX_WIDTH  1920
#define BOOT_MAX_HEIGHT 1200

struct boot_video {
	u32 width, height; /* 0: none, the screen is in text mode */
};

/* Where to put it. */
struct boot_target {
	struct ram *ram; /* all zeros, but for the board's own tables outside the map's RAM */
	const struct boot_map *map;
	gpa_t rsdp;
	bool long_mode;     /* the CPU model has it */
	u32 signature;      /* of the CPU model */
	bool vga;           /* there is one; in text mode, 80 x 25, unless *video says otherwise */
	gpa_t frame_buffer; /* where one can be had, 0: nowhere; with vga */
	struct boot_video
		*video; /* to be filled by a loader that promises one; all zeros; with frame_buffer */
};

/* Finds out what the kernel is, places it with everything it wants to be told, and fills the state the
 * boot protocol promises. Where it fails, guest memory may have been written. */
int boot_load(const struct boot_source *src, const struct boot_target *tgt, struct x86_state *ret_state,
	      struct err *err);

/* For the loaders: which parts of guest memory are taken. Everything they place lies in RAM of the map and
 * below 4 GiB. */
#define BOOT_MAX_TAKEN 160

struct boot_space {
	const struct boot_target *tgt;
	struct boot_map_entry taken[BOOT_MAX_TAKEN]; /* type unused */
	unsigned nr;
};

void boot_space_init(struct boot_space *space, const struct boot_target *tgt);
/* One past the highest address that can be used. */
gpa_t boot_space_end(const struct boot_space *space);
/* -ENOSPC when any of it is not RAM or is already taken. */
int boot_take(struct boot_space *space, gpa_t gpa, u64 len);
/* The lowest (or highest) free place inside [min, max). align: a power of two. -ENOSPC. */
int boot_alloc(struct boot_space *space, gpa_t min, gpa_t max, u64 len, u64 align, bool top_down,
	       gpa_t *ret_gpa);
/* Copies into a part that was taken. */
void boot_copy(const struct boot_space *space, gpa_t gpa, const void *data, u64 len);
/* The same from a file. -ENODATA where it has become shorter, and the like. */
int boot_copy_file(const struct boot_space *space, gpa_t gpa, const struct boot_file *file, u64 offset,
		   u64 len, struct err *err);

/* A new GDT with 10H flat code, 18H flat data, 20H a TSS in low memory, and a state in 32-bit protected mode
 * without paging that uses it, interrupts off. long_mode: in 64-bit mode, with page tables that map the
 * first 4 GiB to themselves [SDM3 10.8.5]. */
int boot_flat_state(struct boot_space *space, bool long_mode, struct x86_state *ret_state, struct err *err);

#define BOOT_CS 0x10
#define BOOT_DS 0x18
#define BOOT_TR 0x20

/* "12 MiB" and the like, rounded up; for sentences. */
const char *boot_size_text(u64 bytes, char buf[32]);
