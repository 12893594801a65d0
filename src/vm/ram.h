/* Guest physical memory: one memfd, one mapping.
 *
 * RAM appears at [0, low_size) and, above the 32-bit hole, at [4 GiB, 4 GiB + rest).
 * The address range [0, end) is reserved in this process as one piece, the hole
 * inaccessible, so that hva = base + gpa wherever ram_ptr() says there is RAM.
 *
 * Parts are read-only to the guest (ROM): a store there is an access to the bus, as where no memory is. A machine
 * with firmware has ROM that ends at 4 GiB, inside of the reserved range too, and its top is seen a second time
 * below 1 MiB, from where a chip set lets RAM take its place (ram_shadow_set()).
 *
 * Code that an engine has decoded or translated is marked in code_map, one u64 per page, one bit per 64-byte granule; every
 * writer (engine slow path, DMA, loader) that hits a marked granule must call
 * ram_code_written(), which asks the engine to drop what it made of these bytes.
 *
 * Which pages have been written is noted in dirty_map while somebody wants to know: see vm/dirty.h.
 */
#pragma once

#include <stdatomic.h>

#include "base/err.h"
#include "base/types.h"

#define RAM_PAGE_SIZE 4096ull
#define RAM_HOLE_END  (4 * GiB)
#define RAM_LOW_MAX   0xb0000000ull /* RAM below the hole at most */
#define RAM_MAX_ROMS  8

/* The 21st address line, which the board can hold low: then each odd megabyte is the one before it. */
#define RAM_A20 BIT(20)

#define RAM_ROM_MIN (128 * KiB) /* what is seen a second time */
#define RAM_ROM_MAX (16 * MiB)

/* Where ROM and RAM lie over each other, by segments of 16 KiB. */
#define RAM_SHADOW_START   0xc0000ull
#define RAM_SHADOW_END     0x100000ull
#define RAM_SHADOW_SEGMENT 0x4000ull
#define RAM_SHADOW_NR      16

enum ram_shadow {
	RAM_SHADOW_NO_READ =
		1, /* reads come from the ROM; below E0000H nothing is there, and they are all-ones */
	RAM_SHADOW_NO_WRITE = 2, /* stores do not reach RAM */
};

struct ram_range {
	gpa_t start, end;
};

struct ram {
	u8 *base; /* hva of gpa 0 */
	int fd; /* the memfd; offsets below low_size as gpa, above it gpa - (4 GiB - low_size); then the ROM */
	u64 size;     /* bytes of RAM */
	u64 low_size; /* of which below the hole */
	u64 end;      /* one past the highest gpa of RAM or ROM; multiple of 4096 */
	bool private; /* what is behind the first 2 MiB of it is not in the memfd */
	u64 rom_size; /* bytes of firmware ROM, which ends at 4 GiB; 0: none */
	/* Those of them that are memory at the moment. The others, at its start, are a device's registers. */
	_Atomic u64 rom_len;
	u8 *rom_ptr;    /* all of it, for this process to write */
	u8 *shadow_ptr; /* the RAM from RAM_SHADOW_START on, whatever the guest sees there; with ROM only */
	_Atomic u32 shadow; /* enum ram_shadow, two bits per segment; 0: RAM and nothing else */
	struct ram_range rom[RAM_MAX_ROMS]; /* page-aligned, inside RAM, not writable by the guest */
	unsigned nr_roms;
	struct ram_range hole; /* below low_size, page-aligned: on the bus; 0, 0: none */
	_Atomic u64 hole_end;  /* of it; what is from here to hole.end is RAM at the moment */
	_Atomic u64 masked;    /* the address bits that processors cannot set: none, or RAM_A20 */
	_Atomic u64 *code_map; /* end / 4096 entries */
	void (*code_written)(void *opaque, gpa_t gpa, u64 len);
	void *code_opaque;
	_Atomic bool dirty_on;  /* writers say so in: */
	_Atomic u64 *dirty_map; /* a bit per page of [0, end) */
};

/* size: a multiple of 4096, at least 1 MiB. The sentence on failure names the size and what the host has. */
int ram_init(struct ram *ram, u64 size, struct err *err);
/* The same with rom_size bytes of ROM, all-ones at first: a multiple of 4096, RAM_ROM_MIN to RAM_ROM_MAX; 0: none. The shadow starts
 * as plain RAM. large: RAM in large pages of the host's, if there is a way, is worth that much is taken at once. */
int ram_init_rom(struct ram *ram, u64 size, u64 rom_size, bool large, struct err *err);
void ram_fini(struct ram *ram);

/* The len bytes at gpa as a pointer, or NULL unless all of them are RAM (or ROM). len may be 0..2^64-1. */
static inline void *ram_ptr(const struct ram *ram, gpa_t gpa, u64 len)
{
	if (gpa < ram->low_size) {
		if (unlikely(gpa < ram->hole.end && gpa + len > ram->hole.start) &&
		    gpa < atomic_load_explicit(&ram->hole_end, memory_order_relaxed))
			return NULL;
		return len <= ram->low_size - gpa ? ram->base + gpa : NULL;
	}
	if (gpa >= RAM_HOLE_END - atomic_load_explicit(&ram->rom_len, memory_order_relaxed) && gpa < ram->end)
		return len <= ram->end - gpa ? ram->base + gpa : NULL;
	return NULL;
}

/* Where a processor gets to with this address. The engines' page walks ask; devices do not pass the gate. */
static inline gpa_t ram_gate(const struct ram *ram, gpa_t gpa)
{
	return gpa & ~atomic_load_explicit(&ram->masked, memory_order_relaxed);
}

/* Where in the memfd the byte at gpa is, which must be RAM. */
static inline u64 ram_offset(const struct ram *ram, gpa_t gpa)
{
	return gpa < ram->low_size ? gpa : gpa - (RAM_HOLE_END - ram->low_size);
}

/* enum ram_shadow of the segment at gpa, RAM_SHADOW_START and up. */
static inline unsigned ram_shadow_get(const struct ram *ram, gpa_t gpa)
{
	return atomic_load_explicit(&ram->shadow, memory_order_relaxed) >>
		       2 * ((gpa - RAM_SHADOW_START) / RAM_SHADOW_SEGMENT) &
	       3;
}

/* RAM [gpa, gpa + len), page-aligned and on one side of the 32-bit hole, reads 0 and costs the host nothing until it is written
 * again; clear: all of it. Nobody is told: dma_discard(), ram_code_written(), ram_mark_dirty(). -errno. */
int ram_discard(struct ram *ram, gpa_t gpa, u64 len);
int ram_clear(struct ram *ram);

/* How many bytes of the private part the host has given; those of the memfd are in the process's RssShmem. Any thread. */
u64 ram_private_resident(const struct ram *ram);

/* The one hole; its RAM stays unused. Main thread, no vCPU running, nothing cached of it. -EINVAL. */
int ram_set_hole(struct ram *ram, gpa_t start, gpa_t end);
/* The hole ends at `end`, page-aligned and within it, from now on. Any one thread at a time; vm_memory_changed() is to follow. */
void ram_set_hole_end(struct ram *ram, gpa_t end);
int ram_add_rom(struct ram *ram, gpa_t start, gpa_t end);

/* Any thread. */
static inline bool ram_is_rom(const struct ram *ram, gpa_t gpa)
{
	if (gpa >= RAM_SHADOW_START && gpa < RAM_SHADOW_END && ram_shadow_get(ram, gpa))
		return true;
	if (gpa < RAM_HOLE_END && gpa >= RAM_HOLE_END - ram->rom_size)
		return true;
	for (unsigned k = 0; k < ram->nr_roms; k++)
		if (gpa >= ram->rom[k].start && gpa < ram->rom[k].end)
			return true;
	return false;
}

/* Whether any of [gpa, gpa+len) is ROM. */
bool ram_has_rom(const struct ram *ram, gpa_t gpa, u64 len);

/* What the guest sees in the segment at gpa from now on: enum ram_shadow. Needs ROM. Any one thread at a time; vm_memory_changed()
 * is to follow. -errno where the host refuses; nothing has changed then. */
int ram_shadow_set(struct ram *ram, gpa_t gpa, unsigned shadow);

/* Whether processors have the 21st address line; they do at first. Returns whether that is new: vm_memory_changed() is to follow.
 * Any one thread at a time. */
bool ram_set_a20(struct ram *ram, bool on);

/* How much of the ROM, counted from its end, is memory; a multiple of 4096. vm_memory_changed() is to follow. */
void ram_rom_set_len(struct ram *ram, u64 len);

/* Marked code in [gpa, gpa+len), all inside RAM? Cheap; any thread. */
bool ram_has_code(const struct ram *ram, gpa_t gpa, u64 len);

/* To be called after (DMA: before completion is signalled) writing there. Any thread. */
void ram_code_written(struct ram *ram, gpa_t gpa, u64 len);
/* [gpa, gpa+len), all inside RAM, has been written, or is about to be by the instruction under way. Any thread. */
static inline void ram_mark_dirty(struct ram *ram, gpa_t gpa, u64 len)
{
	if (likely(!atomic_load_explicit(&ram->dirty_on, memory_order_relaxed)) || !len)
		return;
	for (u64 page = gpa / RAM_PAGE_SIZE; page <= (gpa + len - 1) / RAM_PAGE_SIZE; page++)
		if (!(atomic_load_explicit(&ram->dirty_map[page / 64], memory_order_relaxed) &
		      BIT(page % 64)))
			atomic_fetch_or(&ram->dirty_map[page / 64], BIT(page % 64));
}

/* len bytes of a file, from offset on, into RAM at gpa, all of which is RAM. -errno; -ENODATA: the file has fewer.
 * Main thread, no vCPU running. */
int ram_read_file(struct ram *ram, gpa_t gpa, int fd, u64 offset, u64 len);
