/* ELF images, and kernels among them that have a PVH entry.
 *
 * Documents: System V ABI, chapters 4 and 5 ("[ELF]") with the i386 and x86-64 supplements; Xen's "x86/HVM
 * direct boot ABI" (pvh.pandoc, "[PVH]") with its structures in arch-x86/hvm/start_info.h, version 1.
 *
 * The program headers say what goes where: each PT_LOAD segment to its physical address. A note of type 18
 * by the name "Xen" holds the physical address of an entry in 32-bit protected mode without paging, which
 * finds in EBX the address of a structure with command line, modules, memory map and ACPI tables.
 *
 * The headers are a stranger's: every offset is compared with the length of the file in 64-bit arithmetic
 * that cannot wrap, segments must lie below 4 GiB, and numbers of headers are bounded, so that a hostile
 * image costs no more time than reading it once.
 *
 * Omitted: relocation, section headers, symbols, more than 65534 program headers (PN_XNUM). Main thread
 * only.
 */
#include "boot/elf.h"

#include <elf.h>
#include <errno.h>

#include "base/bits.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18

#define START_INFO_MAGIC 0x336ec578 /* [PVH]: "xEn3" with bit 7 of the E set */
#define START_INFO_SIZE  56
#define MODLIST_SIZE     32
#define MEMMAP_SIZE      24

/* One program header, of either class. */
struct phdr {
	u32 type;
	u64 offset, vaddr, paddr, filesz, memsz, align;
};

bool elf_match(const struct boot_file *file)
{
	return file->len >= SELFMAG && memcmp(file->data, ELFMAG, SELFMAG) == 0;
}

static const char *machine_name(u16 machine)
{
	switch (machine) {
	case EM_ARM: return "32-bit ARM";
	case EM_AARCH64: return "arm64";
	case EM_RISCV: return "RISC-V";
	case EM_PPC: return "32-bit PowerPC";
	case EM_PPC64: return "64-bit PowerPC";
	case EM_S390: return "s390";
	case EM_MIPS: return "MIPS";
	case EM_SPARC: return "SPARC";
	case EM_IA_64: return "Itanium";
	default: return NULL;
	}
}

static int check_ident(const struct boot_file *f, bool *ret_is64, struct err *err)
{
	const u8 *d = f->data;
	const char *name;
	bool is64;
	u16 machine;

	if (f->len < sizeof(Elf32_Ehdr))
		return err_set(err, -ENOEXEC, "kernel %s is truncated: an ELF file of %zu bytes", f->path,
			       f->len);
	if (d[EI_CLASS] != ELFCLASS32 && d[EI_CLASS] != ELFCLASS64)
		return err_set(err, -ENOEXEC, "kernel %s is a damaged ELF file: its class is %u", f->path,
			       d[EI_CLASS]);
	is64 = d[EI_CLASS] == ELFCLASS64;
	if (is64 && f->len < sizeof(Elf64_Ehdr))
		return err_set(err, -ENOEXEC, "kernel %s is truncated: an ELF file of %zu bytes", f->path,
			       f->len);
	if (d[EI_DATA] != ELFDATA2LSB)
		return err_set(err, -ENOEXEC, "kernel %s is a big-endian ELF file; bothy runs x86 kernels",
			       f->path);
	machine = ld16(d + offsetof(Elf64_Ehdr, e_machine));
	name = machine_name(machine);
	if (name)
		return err_set(err, -ENOEXEC, "kernel %s is an ELF file for %s; bothy runs x86 kernels",
			       f->path, name);
	if (machine != EM_386 && machine != EM_X86_64)
		return err_set(err, -ENOEXEC,
			       "kernel %s is an ELF file for machine %u; bothy runs x86 kernels", f->path,
			       machine);
	if (ld16(d + offsetof(Elf64_Ehdr, e_type)) != ET_EXEC &&
	    ld16(d + offsetof(Elf64_Ehdr, e_type)) != ET_DYN)
		return err_set(err, -ENOEXEC, "kernel %s is an ELF file, but no executable (type %u)",
			       f->path, ld16(d + offsetof(Elf64_Ehdr, e_type)));
	*ret_is64 = is64;
	return 0;
}

static void read_phdr(const u8 *p, bool is64, struct phdr *h)
{
	h->type = ld32(p);
	if (is64) {
		h->offset = ld64(p + offsetof(Elf64_Phdr, p_offset));
		h->vaddr = ld64(p + offsetof(Elf64_Phdr, p_vaddr));
		h->paddr = ld64(p + offsetof(Elf64_Phdr, p_paddr));
		h->filesz = ld64(p + offsetof(Elf64_Phdr, p_filesz));
		h->memsz = ld64(p + offsetof(Elf64_Phdr, p_memsz));
		h->align = ld64(p + offsetof(Elf64_Phdr, p_align));
	} else {
		h->offset = ld32(p + offsetof(Elf32_Phdr, p_offset));
		h->vaddr = ld32(p + offsetof(Elf32_Phdr, p_vaddr));
		h->paddr = ld32(p + offsetof(Elf32_Phdr, p_paddr));
		h->filesz = ld32(p + offsetof(Elf32_Phdr, p_filesz));
		h->memsz = ld32(p + offsetof(Elf32_Phdr, p_memsz));
		h->align = ld32(p + offsetof(Elf32_Phdr, p_align));
	}
}

/* Looks for the PVH entry in one PT_NOTE segment [ELF 5: note section]. */
static void scan_notes(const u8 *p, u64 len, u64 align, struct elf_image *img)
{
	/* Notes are padded to 4 bytes; GNU property segments to 8. */
	align = align == 8 ? 8 : 4;
	while (len >= sizeof(Elf32_Nhdr)) {
		u64 namesz = ld32(p), descsz = ld32(p + 4);
		u64 desc = ALIGN_UP(sizeof(Elf32_Nhdr) + namesz, align),
		    next = ALIGN_UP(desc + descsz, align);

		if (desc > len || descsz > len - desc)
			return;
		if (ld32(p + 8) == XEN_ELFNOTE_PHYS32_ENTRY && namesz == 4 &&
		    memcmp(p + sizeof(Elf32_Nhdr), "Xen", 4) == 0 && (descsz == 4 || descsz == 8)) {
			img->has_pvh = true;
			img->pvh_entry = ld32(p + desc);
			return;
		}
		if (next >= len)
			return;
		p += next;
		len -= next;
	}
}

static int add_segment(const struct boot_file *f, const struct phdr *h, struct elf_image *img,
		       struct err *err)
{
	struct elf_segment *s;

	if (h->filesz > h->memsz)
		return err_set(err, -ENOEXEC,
			       "kernel %s is damaged: a segment has %llu bytes in the file, %llu in memory",
			       f->path, (unsigned long long)h->filesz, (unsigned long long)h->memsz);
	if (h->paddr >= RAM_HOLE_END || h->memsz > RAM_HOLE_END - h->paddr)
		return err_set(
			err, -ENOEXEC,
			"kernel %s has a segment at physical address %#llx, %llu bytes long, which ends above 4 GiB",
			f->path, (unsigned long long)h->paddr, (unsigned long long)h->memsz);
	if (img->nr == ELF_MAX_SEGMENTS)
		return err_set(err, -ENOEXEC, "kernel %s has more than %u segments to load", f->path,
			       ELF_MAX_SEGMENTS);
	s = &img->seg[img->nr++];
	s->paddr = h->paddr;
	s->memsz = h->memsz;
	s->filesz = h->filesz;
	s->data = f->data + h->offset;
	img->end = MAX(img->end, h->paddr + h->memsz);
	return 0;
}

int elf_parse(const struct boot_file *f, struct elf_image *ret_image, struct err *err)
{
	struct elf_image *img = ret_image;
	const u8 *d = f->data;
	u64 phoff, entry;
	u32 phnum, phentsize, notes = 0;
	bool is64 = false, entry_found = false;
	int r;

	r = check_ident(f, &is64, err);
	if (r < 0)
		return r;
	memset(img, 0, sizeof(*img));
	if (is64) {
		phoff = ld64(d + offsetof(Elf64_Ehdr, e_phoff));
		phnum = ld16(d + offsetof(Elf64_Ehdr, e_phnum));
		phentsize = ld16(d + offsetof(Elf64_Ehdr, e_phentsize));
		entry = ld64(d + offsetof(Elf64_Ehdr, e_entry));
	} else {
		phoff = ld32(d + offsetof(Elf32_Ehdr, e_phoff));
		phnum = ld16(d + offsetof(Elf32_Ehdr, e_phnum));
		phentsize = ld16(d + offsetof(Elf32_Ehdr, e_phentsize));
		entry = ld32(d + offsetof(Elf32_Ehdr, e_entry));
	}
	if (phnum == 0 || phnum == PN_XNUM || phentsize != (is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
		return err_set(
			err, -ENOEXEC,
			"kernel %s is an ELF file with %u program headers of %u bytes, nothing to load",
			f->path, phnum, phentsize);
	if (phoff > f->len || (u64)phnum * phentsize > f->len - phoff)
		return err_set(err, -ENOEXEC,
			       "kernel %s is truncated: its program headers lie beyond its %zu bytes",
			       f->path, f->len);

	for (u32 i = 0; i < phnum; i++) {
		struct phdr h;

		read_phdr(d + phoff + (u64)i * phentsize, is64, &h);
		if (h.type != PT_LOAD && h.type != PT_NOTE)
			continue;
		if (h.offset > f->len || h.filesz > f->len - h.offset)
			return err_set(err, -ENOEXEC,
				       "kernel %s is truncated: program header %u lies beyond its %zu bytes",
				       f->path, i, f->len);
		if (h.type == PT_NOTE) {
			if (!img->has_pvh && notes++ < ELF_MAX_NOTES)
				scan_notes(d + h.offset, h.filesz, h.align, img);
			continue;
		}
		if (h.memsz == 0)
			continue;
		r = add_segment(f, &h, img, err);
		if (r < 0)
			return r;
		/* The entry is a virtual address; paging is off there, so it means the byte at the same
		 * place of the segment that holds it. */
		if (!entry_found && entry >= h.vaddr && entry - h.vaddr < h.memsz) {
			img->entry = (u32)(h.paddr + (entry - h.vaddr));
			entry_found = true;
		}
	}
	if (img->nr == 0)
		return err_set(err, -ENOEXEC, "kernel %s is an ELF file without a segment to load", f->path);
	if (!entry_found)
		img->entry = (u32)entry;
	return 0;
}

int elf_place(const struct boot_file *f, const struct elf_image *img, struct boot_space *space,
	      struct err *err)
{
	for (unsigned i = 0; i < img->nr; i++) {
		const struct elf_segment *s = &img->seg[i];
		char need[32], have[32];

		if (img->end > boot_space_end(space))
			return err_set(
				err, -ENOMEM,
				"kernel %s needs memory up to %s, the guest has only %s there; give it more "
				"with --memory",
				f->path, boot_size_text(img->end, need),
				boot_size_text(boot_space_end(space), have));
		if (boot_take(space, s->paddr, s->memsz) < 0)
			return err_set(
				err, -ENOMEM,
				"kernel %s wants physical memory %#llx-%#llx, which overlaps another part of "
				"it or is no RAM of the guest",
				f->path, (unsigned long long)s->paddr,
				(unsigned long long)(s->paddr + s->memsz - 1));
		/* The rest of memsz is zero already. */
		boot_copy(space, s->paddr, s->data, s->filesz);
	}
	return 0;
}

/* The start info, and behind it the module list, the memory map and the command line [PVH]. */
static int place_start_info(const struct boot_source *src, struct boot_space *space, gpa_t *ret_gpa,
			    struct err *err)
{
	const struct boot_map *map = space->tgt->map;
	u64 cmdline_len = strlen(src->append) + 1;
	u8 info[START_INFO_SIZE + BOOT_MAX_INITRDS * MODLIST_SIZE + BOOT_MAP_MAX * MEMMAP_SIZE] = { 0 };
	u64 mods = START_INFO_SIZE, mmap = mods + src->nr_initrds * MODLIST_SIZE;
	u64 len = mmap + map->nr * MEMMAP_SIZE;
	gpa_t at;

	if (cmdline_len > 64 * KiB || boot_alloc(space, 0, 0xa0000, len + cmdline_len, 16, false, &at) < 0)
		return err_set(err, -E2BIG,
			       "the command line has %llu characters, too many for memory below 640 KiB",
			       (unsigned long long)cmdline_len - 1);
	st32(info, START_INFO_MAGIC);
	st32(info + 4, 1); /* version */
	st32(info + 12, src->nr_initrds);
	st64(info + 16, src->nr_initrds ? at + mods : 0);
	st64(info + 24, at + len);
	st64(info + 32, space->tgt->rsdp);
	st64(info + 40, at + mmap);
	st32(info + 48, map->nr);
	for (unsigned i = 0; i < src->nr_initrds; i++) {
		u8 *p = info + mods + i * MODLIST_SIZE;
		char need[32];
		gpa_t mod;
		int r;

		if (boot_alloc(space, MiB, RAM_HOLE_END, src->initrd[i].len, RAM_PAGE_SIZE, true, &mod) < 0)
			return err_set(
				err, -ENOMEM,
				"initrd %s (%s) does not fit into the guest's memory beside the kernel; give it more "
				"with --memory",
				src->initrd[i].path, boot_size_text(src->initrd[i].len, need));
		r = boot_copy_file(space, mod, &src->initrd[i], 0, src->initrd[i].len, err);
		if (r < 0)
			return r;
		st64(p, mod);
		st64(p + 8, src->initrd[i].len);
	}
	for (unsigned i = 0; i < map->nr; i++) {
		u8 *p = info + mmap + i * MEMMAP_SIZE;

		st64(p, map->entry[i].start);
		st64(p + 8, map->entry[i].len);
		st32(p + 16, map->entry[i].type);
	}
	boot_copy(space, at, info, len);
	boot_copy(space, at + len, src->append, cmdline_len);
	*ret_gpa = at;
	return 0;
}

int elf_load_pvh(const struct boot_source *src, struct boot_space *space, struct x86_state *ret_state,
		 struct err *err)
{
	struct elf_image img;
	gpa_t info = 0;
	int r;

	r = elf_parse(&src->kernel, &img, err);
	if (r < 0)
		return r;
	if (!img.has_pvh)
		return err_set(
			err, -ENOEXEC,
			"kernel %s is an ELF file without a PVH entry note and without a Multiboot header, so bothy "
			"does not know how to start it (Linux has the note with CONFIG_PVH=y)",
			src->kernel.path);
	r = elf_place(&src->kernel, &img, space, err);
	if (r < 0)
		return r;
	r = boot_flat_state(space, false, ret_state, err);
	if (r < 0)
		return r;
	r = place_start_info(src, space, &info, err);
	if (r < 0)
		return r;
	/* [PVH]: EBX the start info, CR0 only PE, EFLAGS clear, flat segments, a 32-bit TSS. */
	ret_state->cr0 = CR0_PE | CR0_ET;
	ret_state->gpr[R_BX] = info;
	ret_state->rip = img.pvh_entry;
	return 0;
}
