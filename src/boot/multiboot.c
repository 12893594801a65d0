/* Multiboot 1 images: teaching kernels, test kernels.
 *
 * Document: Multiboot Specification 0.6.96 ("[MB]").
 *
 * A header with a magic number and checksum in the first 8 KiB says what the kernel wants. Where it carries
 * addresses (bit 16), they say what to load where [MB 3.1.3]; otherwise the image is an ELF file and its
 * program headers do. The kernel starts in 32-bit protected mode without paging and finds in EBX a
 * structure with the size and map of memory, its command line and its modules [MB 3.3].
 *
 * Conventions beyond the specification are those of QEMU's -kernel and GRUB, which test suites rely on: the
 * command line starts with the kernel's path; further initrds are modules, whose string is their path;
 * modules lie on page boundaries right behind the kernel; ELF files of 64 bits are taken too, and started
 * in 32-bit mode all the same.
 *
 * Omitted: video modes (the bit is ignored, no frame buffer is reported), drives, APM, symbol and
 * configuration tables; the structure says that they are absent. Main thread only.
 */
#include "boot/multiboot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "boot/elf.h"

#define SEARCH_LEN     8192 /* [MB 3.1] */
#define HEADER_MAGIC   0x1badb002
#define LOADER_MAGIC   0x2badb002
#define HAS_ADDRESSES  BIT(16)
#define REQUIRED_MASK  0xffffu
#define REQUIRED_KNOWN 0x7u /* page-aligned modules, memory, video */

/* Flags of the boot information, and its fields [MB 3.3]. */
#define INFO_MEMORY      BIT(0)
#define INFO_CMDLINE     BIT(2)
#define INFO_MODS        BIT(3)
#define INFO_MMAP        BIT(6)
#define INFO_LOADER_NAME BIT(9)

#define BIOS_DATA 0x400
#define BIOS_STUB 0x500 /* in the page on which nothing is placed */

enum {
	INFO_FLAGS = 0,
	INFO_MEM_LOWER = 4,
	INFO_MEM_UPPER = 8,
	INFO_CMDLINE_ADDR = 16,
	INFO_MODS_COUNT = 20,
	INFO_MODS_ADDR = 24,
	INFO_MMAP_LENGTH = 44,
	INFO_MMAP_ADDR = 48,
	INFO_LOADER_NAME_ADDR = 64,
	INFO_SIZE = 120,
	MOD_SIZE = 16,
	MMAP_SIZE = 24, /* with the size field before each entry, which does not count itself */
};

bool multiboot_find(const struct boot_file *k, struct multiboot_header *ret_header)
{
	size_t end = MIN(k->len, (size_t)SEARCH_LEN);

	for (size_t i = 0; i + 12 <= end; i += 4) {
		u32 flags = ld32(k->data + i + 4);
		struct multiboot_header h = { .offset = (u32)i, .flags = flags };

		if (ld32(k->data + i) != HEADER_MAGIC || HEADER_MAGIC + flags + ld32(k->data + i + 8) != 0)
			continue;
		if (flags & HAS_ADDRESSES) {
			if (i + 32 > end)
				continue;
			h.header_addr = ld32(k->data + i + 12);
			h.load_addr = ld32(k->data + i + 16);
			h.load_end_addr = ld32(k->data + i + 20);
			h.bss_end_addr = ld32(k->data + i + 24);
			h.entry_addr = ld32(k->data + i + 28);
		}
		*ret_header = h;
		return true;
	}
	return false;
}

/* Loads as the addresses of the header say: one segment. */
int multiboot_place_addressed(const struct boot_file *k, const struct multiboot_header *h,
			      struct boot_space *space, gpa_t *ret_end, struct err *err)
{
	u64 offset, filesz, memsz;

	if (h->load_addr > h->header_addr || h->header_addr - h->load_addr > h->offset)
		return err_set(
			err, -ENOEXEC,
			"kernel %s is damaged: its Multiboot header puts itself at %#x and the image at %#x",
			k->path, h->header_addr, h->load_addr);
	offset = h->offset - (h->header_addr - h->load_addr);
	filesz = k->len - offset;
	if (h->load_end_addr) {
		if (h->load_end_addr < h->load_addr || h->load_end_addr - h->load_addr > filesz)
			return err_set(
				err, -ENOEXEC,
				"kernel %s is truncated: its Multiboot header wants memory %#x-%#x loaded, the file has %zu "
				"bytes",
				k->path, h->load_addr, h->load_end_addr, k->len);
		filesz = h->load_end_addr - h->load_addr;
	}
	memsz = filesz;
	if (h->bss_end_addr) {
		if (h->bss_end_addr < h->load_addr || h->bss_end_addr - h->load_addr < filesz)
			return err_set(
				err, -ENOEXEC,
				"kernel %s is damaged: its Multiboot header ends the bss (%#x) before the data",
				k->path, h->bss_end_addr);
		memsz = h->bss_end_addr - h->load_addr;
	}
	if (boot_take(space, h->load_addr, memsz) < 0) {
		char have[32];

		return err_set(
			err, -ENOMEM,
			"kernel %s wants physical memory %#x-%#llx, which is no RAM of the guest (RAM ends at %s)",
			k->path, h->load_addr, (unsigned long long)memsz + h->load_addr,
			boot_size_text(boot_space_end(space), have));
	}
	boot_copy(space, h->load_addr, k->data + offset, filesz);
	*ret_end = h->load_addr + memsz;
	return 0;
}

void multiboot_write_bios_data(const struct boot_space *space)
{
	/* push bp; mov bp,sp; or byte [bp+6],1; pop bp; iret: carry, which is how a BIOS says that it has no such function. */
	static const u8 refuse[] = { 0x55, 0x8b, 0xec, 0x80, 0x4e, 0x06, 0x01, 0x5d, 0xcf };
	const struct boot_map_entry *first = &space->tgt->map->entry[0];
	u8 low[BIOS_STUB + sizeof(refuse)] = { 0 }, *data = low + BIOS_DATA;

	for (unsigned vector = 0; vector < 256; vector++)
		st16(low + 4 * vector, BIOS_STUB);
	memcpy(low + BIOS_STUB, refuse, sizeof(refuse));
	/* [BDA] */
	st16(data + 0x00, 0x3f8);
	st16(data + 0x10, 0x0206); /* equipment: one serial port, mouse, coprocessor */
	st16(data + 0x13, (u16)(MIN(first->len, 640 * KiB) / KiB));
	if (space->tgt->vga) {
		data[0x10] |= 0x20; /* 80 columns in colour */
		data[0x49] = 3;     /* mode */
		st16(data + 0x4a, 80);
		st16(data + 0x4c, 0x1000); /* bytes of a page */
		st16(data + 0x63, 0x3d4);
		data[0x84] = 24; /* rows less one */
		st16(data + 0x85, 16);
	}
	boot_copy(space, 0, low, sizeof(low));
}

/* A string somewhere in low memory, else behind the kernel. */
static int place_string(struct boot_space *space, const char *text, u32 *ret_gpa)
{
	u64 len = strlen(text) + 1;
	gpa_t at;

	if (boot_alloc(space, 0, RAM_HOLE_END, len, 16, false, &at) < 0)
		return -ENOSPC;
	boot_copy(space, at, text, len);
	*ret_gpa = (u32)at;
	return 0;
}

int multiboot_place_module(const struct boot_file *m, struct boot_space *space, gpa_t kernel_end,
			   gpa_t *ret_gpa, struct err *err)
{
	char need[32];

	if (boot_alloc(space, kernel_end, RAM_HOLE_END, m->len, RAM_PAGE_SIZE, false, ret_gpa) < 0 &&
	    boot_alloc(space, MiB, RAM_HOLE_END, m->len, RAM_PAGE_SIZE, false, ret_gpa) < 0)
		return err_set(
			err, -ENOMEM,
			"module %s (%s) does not fit into the guest's memory besides the kernel; give it more with "
			"--memory",
			m->path, boot_size_text(m->len, need));
	return boot_copy_file(space, *ret_gpa, m, 0, m->len, err);
}

static int place_modules(const struct boot_source *src, gpa_t kernel_end, struct boot_space *space, u8 *info,
			 struct err *err)
{
	u8 list[BOOT_MAX_INITRDS * MOD_SIZE] = { 0 };
	gpa_t at;
	int r;

	for (unsigned i = 0; i < src->nr_initrds; i++) {
		const struct boot_file *m = &src->initrd[i];
		u32 name;

		r = multiboot_place_module(m, space, kernel_end, &at, err);
		if (r < 0)
			return r;
		if (place_string(space, boot_module_text(src, i), &name) < 0)
			return err_set(err, -ENOMEM, "no guest memory is left for the name of module %s",
				       m->path);
		st32(list + i * MOD_SIZE, (u32)at);
		st32(list + i * MOD_SIZE + 4, (u32)(at + m->len));
		st32(list + i * MOD_SIZE + 8, name);
		kernel_end = at + m->len;
	}
	if (boot_alloc(space, 0, RAM_HOLE_END, src->nr_initrds * MOD_SIZE, 16, false, &at) < 0)
		return err_set(err, -ENOMEM, "no guest memory is left for the list of modules");
	boot_copy(space, at, list, src->nr_initrds * MOD_SIZE);
	st32(info + INFO_MODS_COUNT, src->nr_initrds);
	st32(info + INFO_MODS_ADDR, (u32)at);
	return 0;
}

/* Sizes below 1 MiB and of the piece that starts there, and the whole map. */
static int place_map(struct boot_space *space, u8 *info)
{
	const struct boot_map *map = space->tgt->map;
	u8 list[BOOT_MAP_MAX * MMAP_SIZE] = { 0 };
	gpa_t at;

	for (unsigned i = 0; i < map->nr; i++) {
		const struct boot_map_entry *e = &map->entry[i];
		u8 *p = list + i * MMAP_SIZE;

		st32(p, MMAP_SIZE - 4);
		st64(p + 4, e->start);
		st64(p + 12, e->len);
		st32(p + 20, e->type);
		if (e->type != BOOT_MAP_RAM)
			continue;
		if (e->start == 0)
			st32(info + INFO_MEM_LOWER, (u32)(MIN(e->len, 640 * KiB) / KiB));
		if (e->start == MiB)
			st32(info + INFO_MEM_UPPER, (u32)(e->len / KiB));
	}
	if (boot_alloc(space, 0, RAM_HOLE_END, map->nr * MMAP_SIZE, 16, false, &at) < 0)
		return -ENOSPC;
	boot_copy(space, at, list, map->nr * MMAP_SIZE);
	st32(info + INFO_MMAP_LENGTH, map->nr * MMAP_SIZE);
	st32(info + INFO_MMAP_ADDR, (u32)at);
	return 0;
}

/* "path arguments", as GRUB and QEMU have it. */
static int place_cmdline(const struct boot_source *src, struct boot_space *space, u8 *info)
{
	char *text;
	u32 at;
	int r;

	if (asprintf(&text, "%s%s%s", src->kernel.path, *src->append ? " " : "", src->append) < 0)
		return -ENOMEM;
	r = place_string(space, text, &at);
	free(text);
	if (r == 0)
		st32(info + INFO_CMDLINE_ADDR, at);
	return r;
}

int multiboot_load(const struct boot_source *src, const struct multiboot_header *h, struct boot_space *space,
		   struct x86_state *ret_state, struct err *err)
{
	const struct boot_file *k = &src->kernel;
	u8 info[INFO_SIZE] = { 0 };
	gpa_t end = 0, at;
	u32 entry, name;
	int r;

	if (h->flags & REQUIRED_MASK & ~REQUIRED_KNOWN)
		return err_set(err, -ENOEXEC,
			       "kernel %s requires Multiboot features that bothy does not have (flags %#x)",
			       k->path, h->flags);
	if (h->flags & HAS_ADDRESSES) {
		r = multiboot_place_addressed(k, h, space, &end, err);
		if (r < 0)
			return r;
		entry = h->entry_addr;
	} else {
		struct elf_image img;

		if (!elf_match(k))
			return err_set(
				err, -ENOEXEC,
				"kernel %s has a Multiboot header without load addresses, but is no ELF file",
				k->path);
		r = elf_parse(k, &img, err);
		if (r < 0)
			return r;
		r = elf_place(k, &img, space, err);
		if (r < 0)
			return r;
		end = img.end;
		entry = img.entry;
	}

	r = boot_flat_state(space, false, ret_state, err);
	if (r < 0)
		return r;
	r = place_modules(src, end, space, info, err);
	if (r < 0)
		return r;
	if (place_map(space, info) < 0 || place_cmdline(src, space, info) < 0 ||
	    place_string(space, MULTIBOOT_LOADER_NAME, &name) < 0 ||
	    boot_alloc(space, 0, RAM_HOLE_END, sizeof(info), 16, false, &at) < 0)
		return err_set(err, -ENOMEM,
			       "no guest memory is left for the Multiboot information of kernel %s", k->path);
	st32(info + INFO_LOADER_NAME_ADDR, name);
	st32(info + INFO_FLAGS, INFO_MEMORY | INFO_CMDLINE | INFO_MODS | INFO_MMAP | INFO_LOADER_NAME);
	boot_copy(space, at, info, sizeof(info));
	multiboot_write_bios_data(space);

	/* [MB 3.2] */
	ret_state->cr0 = CR0_PE | CR0_ET;
	ret_state->gpr[R_AX] = LOADER_MAGIC;
	ret_state->gpr[R_BX] = at;
	ret_state->rip = entry;
	return 0;
}
