/* Guest memory: a sealed memfd, mapped where the guest's physical addresses say.
 *
 * One PROT_NONE reservation covers [0, end) and a guard page behind it; the RAM below and above the
 * 32-bit hole is mapped over it. So hva = base + gpa, and a stray access to the hole or past the end faults
 * in this process instead of reaching something else. Pages are not committed before the guest
 * touches them. The memfd is sealed against resizing: nobody who is handed it can make our accesses fault.
 *
 * code_map: an engine sets bits before it reads the bytes that it decodes; a writer writes first and
 * then looks at the bits, with a full barrier between the two on either side. So a writer on another
 * thread either sees the mark, or the engine has read the new bytes.
 *
 * ram_init/fini/add_rom: main thread, no vCPU running. The rest: any thread.
 */
#include "vm/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/os.h"

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

static int ram_create(struct ram *ram, u64 size)
{
	void *p;
	int rc;

	ram->fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (ram->fd < 0)
		return -errno;
	if (ftruncate(ram->fd, (off_t)size) < 0)
		return -errno;
	if (fcntl(ram->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	p = mmap(NULL, ram_span(ram), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	ram->base = p;
	rc = ram_map(ram, 0, ram->low_size, 0);
	if (!rc && ram->end > RAM_HOLE_END)
		rc = ram_map(ram, RAM_HOLE_END, ram->end - RAM_HOLE_END, ram->low_size);
	if (rc)
		return rc;
	p = mmap(NULL, ram_code_map_bytes(ram), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	ram->code_map = p;
	return 0;
}

int ram_init(struct ram *ram, u64 size, struct err *err)
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
	ram->low_size = MIN(size, RAM_LOW_MAX);
	ram->end = size > RAM_LOW_MAX ? RAM_HOLE_END + (size - RAM_LOW_MAX) : size;
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
	if (ram->base)
		munmap(ram->base, ram_span(ram));
	/* A zeroed struct was never set up; descriptor 0 is not ours then. */
	if (ram->size && ram->fd >= 0)
		close(ram->fd);
	memset(ram, 0, sizeof(*ram));
	ram->fd = -1;
}

int ram_set_hole(struct ram *ram, gpa_t start, gpa_t end)
{
	if (start >= end || start % RAM_PAGE_SIZE || end % RAM_PAGE_SIZE || end > ram->low_size)
		return -EINVAL;
	ram->hole = (struct ram_range){ start, end };
	return 0;
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

bool ram_is_rom(const struct ram *ram, gpa_t gpa)
{
	for (unsigned i = 0; i < ram->nr_roms; i++)
		if (gpa >= ram->rom[i].start && gpa < ram->rom[i].end)
			return true;
	return false;
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
	bool direct = true;

	if (!p)
		return -EFAULT;
	/* From file to file: pages that were never touched need not be zeroed first, nor faulted in one by one. */
	if (lseek(ram->fd, (off_t)at, SEEK_SET) < 0)
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
