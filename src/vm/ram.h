/* Guest physical memory: one memfd, one mapping.
 *
 * RAM appears at [0, low_size) and, above the 32-bit hole, at [4 GiB, 4 GiB + rest).
 * The address range [0, end) is reserved in this process as one piece, the hole
 * inaccessible, so that hva = base + gpa wherever ram_ptr() says there is RAM.
 *
 * Parts may be read-only to the guest (ROM). Code that an engine has decoded or
 * translated is marked in code_map, one u64 per page, one bit per 64-byte granule; every
 * writer (engine slow path, DMA, loader) that hits a marked granule must call
 * ram_code_written(), which asks the engine to drop what it made of these bytes.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

#define RAM_PAGE_SIZE 4096ull
#define RAM_HOLE_END  (4 * GiB)
#define RAM_LOW_MAX   (3 * GiB) /* RAM below the hole at most */
#define RAM_MAX_ROMS  8

struct ram_range {
	gpa_t start, end;
};

struct ram {
	u8 *base;     /* hva of gpa 0 */
	int fd;       /* the memfd; offsets below low_size as gpa, above it gpa - (4 GiB - low_size) */
	u64 size;     /* bytes of RAM */
	u64 low_size; /* of which below the hole */
	u64 end;      /* one past the highest gpa of RAM; multiple of 4096 */
	struct ram_range rom[RAM_MAX_ROMS]; /* page-aligned, inside RAM, not writable by the guest */
	unsigned nr_roms;
	struct ram_range
		hole; /* below low_size, page-aligned: what answers there is on the bus; none: 0, 0 */
	_Atomic u64 *code_map; /* end / 4096 entries */
	void (*code_written)(void *opaque, gpa_t gpa, u64 len);
	void *code_opaque;
};

/* size: a multiple of 4096, at least 1 MiB. The sentence on failure names the size and what the host has. */
int ram_init(struct ram *ram, u64 size, struct err *err);
void ram_fini(struct ram *ram);

/* The len bytes at gpa as a pointer, or NULL unless all of them are RAM (or ROM). len may be 0..2^64-1. */
static inline void *ram_ptr(const struct ram *ram, gpa_t gpa, u64 len)
{
	if (gpa < ram->low_size) {
		if (unlikely(gpa < ram->hole.end && gpa + len > ram->hole.start))
			return NULL;
		return len <= ram->low_size - gpa ? ram->base + gpa : NULL;
	}
	if (gpa >= RAM_HOLE_END && gpa < ram->end)
		return len <= ram->end - gpa ? ram->base + gpa : NULL;
	return NULL;
}

/* Where in the memfd the byte at gpa is, which must be RAM. */
static inline u64 ram_offset(const struct ram *ram, gpa_t gpa)
{
	return gpa < ram->low_size ? gpa : gpa - (RAM_HOLE_END - ram->low_size);
}

/* The one hole; its RAM stays unused. Main thread, no vCPU running, nothing cached of it. -EINVAL. */
int ram_set_hole(struct ram *ram, gpa_t start, gpa_t end);
int ram_add_rom(struct ram *ram, gpa_t start, gpa_t end);
bool ram_is_rom(const struct ram *ram, gpa_t gpa);

/* Marked code in [gpa, gpa+len), all inside RAM? Cheap; any thread. */
bool ram_has_code(const struct ram *ram, gpa_t gpa, u64 len);

/* To be called after (DMA: before completion is signalled) writing there. Any thread. */
void ram_code_written(struct ram *ram, gpa_t gpa, u64 len);
/* len bytes of a file, from offset on, into RAM at gpa, all of which is RAM. -errno; -ENODATA: the file has fewer.
 * Main thread, no vCPU running. */
int ram_read_file(struct ram *ram, gpa_t gpa, int fd, u64 offset, u64 len);
