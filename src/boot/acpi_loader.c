/* The ACPI tables for firmware: files, and a script that links them.
 *
 * Document: the linker-loader of QEMU's firmware interface; its records are those of hw/acpi/bios-linker-loader.c of QEMU 7.2,
 * as SeaBIOS's romfile_loader.h and OVMF's QemuLoader.h have them too. A record has 128 bytes:
 *
 *	1 ALLOCATE      file, alignment, zone        memory for a file, with its bytes
 *	2 ADD_POINTER   file, other file, at, size   adds the address of the other file to what is at `at`
 *	3 ADD_CHECKSUM  file, at, start, length      the byte at `at` makes the sum of the range 0
 *
 * How it works: the tables are built as for address 0, so that each pointer is an offset in the file; acpi_build() says where
 * pointers and checksums are. The FACS comes first, since it has to lie at a multiple of 64. The root pointer goes into a
 * file of its own, for the zone below 1 MiB in which it is searched.
 *
 * Any thread.
 */
#include "boot/acpi_loader.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bits.h"

#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE   "etc/acpi/rsdp"

#define RECORD    128
#define NAME_SIZE 56

enum { CMD_ALLOCATE = 1, CMD_ADD_POINTER, CMD_ADD_CHECKSUM };
enum { ZONE_HIGH = 1, ZONE_FSEG };

struct script {
	u8 *base;
	u32 used;
};

static u8 *record(struct script *s, u32 command, const char *file)
{
	u8 *p = s->base + s->used;

	assert(s->used + RECORD <= ACPI_LOADER_SCRIPT);
	s->used += RECORD;
	st32(p, command);
	memcpy(p + 4, file, strlen(file) + 1);
	return p + 4 + NAME_SIZE;
}

static void allocate(struct script *s, const char *file, u32 align, u8 zone)
{
	u8 *p = record(s, CMD_ALLOCATE, file);

	st32(p, align);
	p[4] = zone;
}

static void add_pointer(struct script *s, const char *file, u32 at, u8 size)
{
	u8 *p = record(s, CMD_ADD_POINTER, file);

	memcpy(p, TABLES_FILE, sizeof(TABLES_FILE));
	st32(p + NAME_SIZE, at);
	p[NAME_SIZE + 4] = size;
}

static void add_checksum(struct script *s, const char *file, u32 at, u32 start, u32 len)
{
	u8 *p = record(s, CMD_ADD_CHECKSUM, file);

	st32(p, at);
	st32(p + 4, start);
	st32(p + 8, len);
}

int acpi_loader_build(const struct acpi_board *board, struct acpi_files *f, struct err *err)
{
	const u32 area = ACPI_FACS_SIZE; /* where the area begins in the file */
	struct script s = { .base = f->script };
	struct acpi_links links;
	u32 rsdp;
	int r;

	memset(f, 0, sizeof(*f));
	r = acpi_build(board, f->tables + area, area, ACPI_LOADER_TABLES - area, f->tables, 0, &rsdp, &links,
		       err);
	if (r < 0)
		return r;
	memcpy(f->rsdp, f->tables + area, ACPI_LOADER_RSDP);
	memset(f->tables + area, 0, ACPI_LOADER_RSDP);

	allocate(&s, RSDP_FILE, 16, ZONE_FSEG);
	allocate(&s, TABLES_FILE, ACPI_FACS_SIZE, ZONE_HIGH);
	for (unsigned i = 0; i < links.nr_pointers; i++) {
		u32 at = links.pointer[i].at;

		if (at < ACPI_LOADER_RSDP)
			add_pointer(&s, RSDP_FILE, at, links.pointer[i].size);
		else
			add_pointer(&s, TABLES_FILE, area + at, links.pointer[i].size);
	}
	for (unsigned i = 0; i < links.nr_sums; i++) {
		u32 at = links.sum[i].at, start = links.sum[i].start, len = links.sum[i].len;
		bool in_rsdp = at < ACPI_LOADER_RSDP;
		u8 *sum = in_rsdp ? f->rsdp + at : f->tables + area + at;

		*sum = 0; /* as firmware expects it */
		if (in_rsdp)
			add_checksum(&s, RSDP_FILE, at, start, len);
		else
			add_checksum(&s, TABLES_FILE, area + at, area + start, len);
	}
	return 0;
}
