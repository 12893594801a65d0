/* Guest memory: a sealed memfd, mapped where the guest's physical addresses say.
 *
 * One PROT_NONE reservation covers [0, end) and a guard page behind it; the RAM below and above the
 * 32-bit hole is mapped over it. So hva = base + gpa, and a stray access to the hole or past the end faults
 * in this process instead of reaching something else. Pages are not committed before the guest
 * touches them. base is a multiple of what large pages need. The memfd is sealed against resizing: nobody who is handed it can make our accesses fault.
 *
 * Where large pages of the host's are wanted and it has them for private memory only, as most hosts are set up (transparent
 * huge pages [Linux Documentation/admin-guide/mm/transhuge.rst]), RAM behind the first large page is private memory, and the
 * file has a hole there. A processor that walks two sets of page tables for a guest gains most by them.
 *
 * ROM is the end of the same memfd. Where RAM and ROM lie over each other, the segment is mapped from one or the other
 * place of the file: a mapping is replaced in one step, so who reads at that moment gets the old or the new bytes.
 *
 * code_map: an engine sets bits before it reads the bytes that it decodes; a writer writes first and
 * then looks at the bits, with a full barrier between the two on either side. So a writer on another
 * thread either sees the mark, or the engine has read the new bytes.
 *
 * ram_init/fini/add_rom: main thread, no vCPU running. The rest: any thread.
 */
#include "vm/ram.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/os.h"

/* A large page of the host's can only be where address, guest-physical address and place in the file agree in what is below its
 * size. */
#define RAM_ALIGN (2 * MiB)

#define RAM_GRANULE_SHIFT 6
#define RAM_PAGE_SHIFT    12

static u64 ram_span(const struct ram *ram)
{
	return ALIGN_UP(ram->end, os_page_size()) + os_page_size();
}

static u64 ram_code_map_bytes(const struct ram *ram)
{
	return ram->end / RAM_PAGE_SIZE * sizeof(u64);
}

static u64 ram_dirty_map_bytes(const struct ram *ram)
{
	return ALIGN_UP(ram->end / RAM_PAGE_SIZE, 64ull) / 8;
}

static void ram_size_text(char *buf, size_t len, u64 size)
{
	if (size >= GiB)
		snprintf(buf, len, "%.1f GiB", (double)size / (double)GiB);
	else
		snprintf(buf, len, "%.1f MiB", (double)size / (double)MiB);
}

static int ram_map(struct ram *ram, gpa_t gpa, u64 len, u64 offset)
{
	void *p = mmap(ram->base + gpa, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
		       ram->fd, (off_t)offset);

	if (p == MAP_FAILED)
		return -errno;
	/* Only a wish: many hosts have huge pages for shared memory switched off. */
	madvise(p, len, MADV_HUGEPAGE);
	return 0;
}

static bool ram_chosen(const char *path, const char *const *values)
{
	char text[128] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	for (; n > 0 && *values; values++)
		if (strstr(text, *values))
			return true;
	return false;
}

/* Are there large pages of private memory, and none of shared memory? */
static bool ram_only_private_is_large(void)
{
	static const char *const private[] = { "[always]", "[madvise]", NULL };
	static const char *const shared[] = { "[always]", "[within_size]", "[advise]", "[force]", NULL };

	return ram_chosen("/sys/kernel/mm/transparent_hugepage/enabled", private) &&
	       !ram_chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", shared);
}

/* RAM from gpa to end, where it is to be private. */
static int ram_map_private(struct ram *ram, gpa_t gpa, gpa_t end)
{
	void *p;

	if (gpa >= end)
		return 0;
	p = mmap(ram->base + gpa, end - gpa, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	madvise(p, end - gpa, MADV_HUGEPAGE);
	/* A child would make every page of it a copy at the next write. */
	return madvise(p, end - gpa, MADV_DONTFORK) < 0 ? -errno : 0;
}

/* Behind RAM in the file: the ROM, then what is read where nothing answers, as much as there can be of it. */
#define RAM_OPEN_BUS (0xe0000 - RAM_SHADOW_START)

static int ram_map_rom(struct ram *ram)
{
	u64 len = ram->rom_size + RAM_OPEN_BUS;
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, ram->fd, (off_t)ram->size);

	if (p == MAP_FAILED)
		return -errno;
	ram->rom_ptr = p;
	memset(p, 0xff, len);
	p = mmap(NULL, RAM_SHADOW_END - RAM_SHADOW_START, PROT_READ | PROT_WRITE, MAP_SHARED, ram->fd,
		 RAM_SHADOW_START);
	if (p == MAP_FAILED)
		return -errno;
	ram->shadow_ptr = p;
	return ram_map(ram, RAM_HOLE_END - ram->rom_size, ram->rom_size, ram->size);
}

static u8 *ram_reserve(u64 len)
{
	u8 *p = mmap(NULL, len + RAM_ALIGN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
	   *base;

	if (p == MAP_FAILED)
		return NULL;
	base = (u8 *)ALIGN_UP((uintptr_t)p, RAM_ALIGN);
	if (base > p)
		munmap(p, (size_t)(base - p));
	munmap(base + len, (size_t)(p + RAM_ALIGN - base));
	return base;
}

/* Costs address space and nothing else until it is used. */
static void *ram_new_map(u64 len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int ram_create(struct ram *ram, u64 size)
{
	u64 file = size + (ram->rom_size ? ram->rom_size + RAM_OPEN_BUS : 0);
	int rc;

	ram->fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (ram->fd < 0)
		return -errno;
	if (ftruncate(ram->fd, (off_t)file) < 0)
		return -errno;
	if (fcntl(ram->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	ram->base = ram_reserve(ram_span(ram));
	if (!ram->base)
		return -ENOMEM;
	rc = ram_map(ram, 0, ram->low_size, 0);
	if (!rc && ram->end > RAM_HOLE_END)
		rc = ram_map(ram, RAM_HOLE_END, ram->end - RAM_HOLE_END, ram->low_size);
	if (!rc && ram->private) {
		rc = ram_map_private(ram, RAM_ALIGN, ram->low_size);
		if (!rc)
			rc = ram_map_private(ram, RAM_HOLE_END, ram->end);
	}
	if (!rc && ram->rom_size)
		rc = ram_map_rom(ram);
	if (rc)
		return rc;
	ram->code_map = ram_new_map(ram_code_map_bytes(ram));
	ram->dirty_map = ram_new_map(ram_dirty_map_bytes(ram));
	return ram->code_map && ram->dirty_map ? 0 : -ENOMEM;
}

int ram_init(struct ram *ram, u64 size, struct err *err)
{
	return ram_init_rom(ram, size, 0, false, err);
}

int ram_init_rom(struct ram *ram, u64 size, u64 rom_size, bool large, struct err *err)
{
	char want[32], have[32];
	int rc;

	memset(ram, 0, sizeof(*ram));
	ram->fd = -1;
	ram_size_text(want, sizeof(want), size);
	ram_size_text(have, sizeof(have), os_memory_total());
	if (size < MiB)
		return err_set(err, -EINVAL,
			       "%llu bytes of memory are too few; a machine needs at least 1 MiB",
			       (unsigned long long)size);
	if (size > os_memory_total())
		return err_set(err, -ENOMEM, "%s of memory are more than the %s that this host has", want,
			       have);
	if (size % RAM_PAGE_SIZE)
		return err_set(err, -EINVAL, "a memory size of %llu bytes is not a multiple of 4096",
			       (unsigned long long)size);
	ram->size = size;
	ram->private = large && ram_only_private_is_large();
	ram->low_size = MIN(size, RAM_LOW_MAX);
	ram->end = size > RAM_LOW_MAX ? RAM_HOLE_END + (size - RAM_LOW_MAX) : size;
	if (rom_size) {
		assert(rom_size >= RAM_ROM_MIN && rom_size <= RAM_ROM_MAX && rom_size % RAM_PAGE_SIZE == 0);
		ram->end = MAX(ram->end, RAM_HOLE_END);
		ram->rom_size = rom_size;
		ram->rom_len = rom_size;
	}
	rc = ram_create(ram, size);
	if (rc) {
		ram_fini(ram);
		return err_sys(err, rc, "cannot map %s of memory for the guest (this host has %s)", want,
			       have);
	}
	return 0;
}

void ram_fini(struct ram *ram)
{
	if (ram->code_map)
		munmap((void *)ram->code_map, ram_code_map_bytes(ram));
	if (ram->dirty_map)
		munmap((void *)ram->dirty_map, ram_dirty_map_bytes(ram));
	if (ram->base)
		munmap(ram->base, ram_span(ram));
	if (ram->rom_ptr)
		munmap(ram->rom_ptr, ram->rom_size + RAM_OPEN_BUS);
	if (ram->shadow_ptr)
		munmap(ram->shadow_ptr, RAM_SHADOW_END - RAM_SHADOW_START);
	/* A zeroed struct was never set up; descriptor 0 is not ours then. */
	if (ram->size && ram->fd >= 0)
		close(ram->fd);
	memset(ram, 0, sizeof(*ram));
	ram->fd = -1;
}

static bool ram_is_private(const struct ram *ram, gpa_t gpa)
{
	return ram->private && gpa >= RAM_ALIGN && (gpa < ram->low_size || gpa >= RAM_HOLE_END);
}

int ram_discard(struct ram *ram, gpa_t gpa, u64 len)
{
	u64 file = ram_is_private(ram, gpa)                ? 0
		   : ram->private && gpa + len > RAM_ALIGN ? RAM_ALIGN - gpa
							   : len;

	if (file && fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      (off_t)ram_offset(ram, gpa), (off_t)file) < 0)
		return -errno;
	if (len > file && madvise(ram->base + gpa + file, len - file, MADV_DONTNEED) < 0)
		return -errno;
	return 0;
}

int ram_clear(struct ram *ram)
{
	int r = ram_discard(ram, 0, ram->low_size);

	return r == 0 && ram->size > ram->low_size ? ram_discard(ram, RAM_HOLE_END, ram->size - ram->low_size)
						   : r;
}

/* [gpa, end) is private. mincore(2) says of such memory which pages this process has. */
static u64 ram_count_resident(const struct ram *ram, gpa_t gpa, gpa_t end)
{
	u8 pages[4096];
	u64 bytes = 0;

	for (u64 len; gpa < end; gpa += len) {
		len = MIN(end - gpa, sizeof(pages) * RAM_PAGE_SIZE);
		if (mincore(ram->base + gpa, len, pages) < 0)
			break;
		for (u64 i = 0; i < len / RAM_PAGE_SIZE; i++)
			bytes += (pages[i] & 1) * RAM_PAGE_SIZE;
	}
	return bytes;
}

u64 ram_private_resident(const struct ram *ram)
{
	if (!ram->private)
		return 0;
	return ram_count_resident(ram, RAM_ALIGN, ram->low_size) +
	       ram_count_resident(ram, RAM_HOLE_END, ram->end);
}

int ram_set_hole(struct ram *ram, gpa_t start, gpa_t end)
{
	if (start >= end || start % RAM_PAGE_SIZE || end % RAM_PAGE_SIZE || end > ram->low_size)
		return -EINVAL;
	ram->hole = (struct ram_range){ start, end };
	atomic_store(&ram->hole_end, end);
	return 0;
}

void ram_set_hole_end(struct ram *ram, gpa_t end)
{
	u64 old = atomic_exchange(&ram->hole_end, end);

	assert(end >= ram->hole.start && end <= ram->hole.end && end % RAM_PAGE_SIZE == 0);
	if (end > old)
		ram_code_written(ram, old, end - old);
}

int ram_add_rom(struct ram *ram, gpa_t start, gpa_t end)
{
	if (start >= end || start % RAM_PAGE_SIZE || end % RAM_PAGE_SIZE || !ram_ptr(ram, start, end - start))
		return -EINVAL;
	if (ram->nr_roms == RAM_MAX_ROMS)
		return -ENOSPC;
	ram->rom[ram->nr_roms++] = (struct ram_range){ start, end };
	return 0;
}

static bool ram_overlap(gpa_t start, gpa_t end, gpa_t gpa, u64 len)
{
	return len && gpa < end && start < gpa + len;
}

bool ram_has_rom(const struct ram *ram, gpa_t gpa, u64 len)
{
	for (gpa_t at = RAM_SHADOW_START; at < RAM_SHADOW_END; at += RAM_SHADOW_SEGMENT)
		if (ram_shadow_get(ram, at) && ram_overlap(at, at + RAM_SHADOW_SEGMENT, gpa, len))
			return true;
	if (ram_overlap(RAM_HOLE_END - ram->rom_size, RAM_HOLE_END, gpa, len))
		return true;
	for (unsigned i = 0; i < ram->nr_roms; i++)
		if (ram_overlap(ram->rom[i].start, ram->rom[i].end, gpa, len))
			return true;
	return false;
}

/* Where in the file lies what is read in a segment that is not RAM. */
static u64 ram_shadow_offset(const struct ram *ram, gpa_t gpa)
{
	u64 from_end = RAM_SHADOW_END - gpa;

	if (from_end <= RAM_ROM_MIN)
		return ram->size + ram->rom_size - from_end;
	return ram->size + ram->rom_size + (gpa - RAM_SHADOW_START);
}

int ram_shadow_set(struct ram *ram, gpa_t gpa, unsigned shadow)
{
	unsigned shift, old = ram_shadow_get(ram, gpa);
	u32 all = atomic_load(&ram->shadow);
	int rc;

	gpa = ALIGN_DOWN(gpa, RAM_SHADOW_SEGMENT);
	shift = (unsigned)(2 * ((gpa - RAM_SHADOW_START) / RAM_SHADOW_SEGMENT));
	if ((old ^ shadow) & RAM_SHADOW_NO_READ) {
		rc = ram_map(ram, gpa, RAM_SHADOW_SEGMENT,
			     shadow & RAM_SHADOW_NO_READ ? ram_shadow_offset(ram, gpa) : gpa);
		if (rc)
			return rc;
	}
	atomic_store(&ram->shadow, (all & ~(3u << shift)) | shadow << shift);
	if ((old ^ shadow) & RAM_SHADOW_NO_READ)
		ram_code_written(ram, gpa, RAM_SHADOW_SEGMENT);
	return 0;
}

bool ram_set_a20(struct ram *ram, bool on)
{
	u64 masked = on ? 0 : RAM_A20;

	return atomic_exchange(&ram->masked, masked) != masked;
}

void ram_rom_set_len(struct ram *ram, u64 len)
{
	assert(len <= ram->rom_size && len % RAM_PAGE_SIZE == 0);
	atomic_store(&ram->rom_len, len);
}

bool ram_has_code(const struct ram *ram, gpa_t gpa, u64 len)
{
	u64 first, last;

	if (!len)
		return false;
	first = gpa >> RAM_GRANULE_SHIFT;
	last = (gpa + len - 1) >> RAM_GRANULE_SHIFT;
	for (u64 page = first >> 6; page <= last >> 6; page++) {
		u64 mask = ~0ull;

		if (page == first >> 6)
			mask &= ~0ull << (first & 63);
		if (page == last >> 6)
			mask &= ~0ull >> (63 - (last & 63));
		if (atomic_load_explicit(&ram->code_map[page], memory_order_relaxed) & mask)
			return true;
	}
	return false;
}

int ram_read_file(struct ram *ram, gpa_t gpa, int fd, u64 offset, u64 len)
{
	u64 at = gpa < ram->low_size ? gpa : gpa - RAM_HOLE_END + ram->low_size, end = offset + len;
	u8 *p = ram_ptr(ram, gpa, len);
	off_t from = (off_t)offset;
	bool direct = !ram->private;

	if (!p)
		return -EFAULT;
	/* From file to file: pages that were never touched need not be zeroed first, nor faulted in one by one. */
	if (direct && lseek(ram->fd, (off_t)at, SEEK_SET) < 0)
		return -errno;
	while ((u64)from < end) {
		size_t left = end - (u64)from;
		ssize_t n = direct ? sendfile(ram->fd, fd, &from, left)
				   : pread(fd, p + ((u64)from - offset), left, from);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && direct) { /* some file systems cannot */
			direct = false;
			continue;
		}
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		if (!direct)
			from += n;
	}
	ram_code_written(ram, gpa, len);
	return 0;
}

void ram_code_written(struct ram *ram, gpa_t gpa, u64 len)
{
	if (ram->code_written)
		ram->code_written(ram->code_opaque, gpa, len);
}
