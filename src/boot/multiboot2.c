/* Multiboot 2 images: teaching kernels, Xen.
 *
 * Document: Multiboot2 Specification 2.0 ("[MB2]").
 *
 * A header in the first 32 KiB is a list of tags that say what the kernel wants [MB2 3.1]; what it gets is a list of tags too,
 * whose address is in EBX [MB2 3.6]. What to load where is said by an address tag, else by the program headers of an ELF file;
 * with a relocatable tag the whole moves to a place that fits. The kernel starts in 32-bit protected mode without paging.
 *
 * A tag that is not optional and unknown, or that asks for information of a kind that is not here, refuses the kernel: it has
 * said that it cannot do without. The tags about EFI count only for loaders that are EFI programs, and are passed over.
 *
 * What a loader on a BIOS gives is given, but for what there is no BIOS to ask for (boot device, VBE, APM, network): command line, name of
 * the loader, modules, memory sizes and map, frame buffer, ELF sections (those that no segment loads are loaded too), both ACPI
 * root pointers, and the load address.
 *
 * Omitted: the architecture MIPS; colour depths other than 32, which a kernel may prefer but not demand. Main thread only.
 */
#include "boot/multiboot2.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "boot/elf.h"
#include "boot/multiboot.h"

#define SEARCH_LEN   32768 /* [MB2 3.1] */
#define ALIGNMENT    8
#define HEADER_MAGIC 0xe85250d6u
#define HEADER_SIZE  16
#define LOADER_MAGIC 0x36d76289
#define ARCH_I386    0
#define TAG_HEADER   8
#define MAX_TAGS     256

/* Of the header [MB2 3.1.4 and on]. */
enum {
	WANT_END,
	WANT_INFO,
	WANT_ADDRESS,
	WANT_ENTRY,
	WANT_CONSOLE,
	WANT_FRAME_BUFFER,
	WANT_MODULE_ALIGN,
	WANT_EFI_SERVICES,
	WANT_EFI_ENTRY32,
	WANT_EFI_ENTRY64,
	WANT_RELOCATABLE,
	NR_WANTS,
};

#define TAG_OPTIONAL     BIT(0)
#define CONSOLE_REQUIRED BIT(0)
#define CONSOLE_TEXT     BIT(1) /* the kernel can use the VGA's text mode */

enum { PREFER_NONE, PREFER_LOW, PREFER_HIGH };

/* Of the boot information [MB2 3.6]. */
enum {
	INFO_END = 0,
	INFO_CMDLINE = 1,
	INFO_LOADER_NAME = 2,
	INFO_MODULE = 3,
	INFO_MEMORY = 4,
	INFO_BOOT_DEVICE = 5,
	INFO_MMAP = 6,
	INFO_VBE = 7,
	INFO_FRAME_BUFFER = 8,
	INFO_ELF_SECTIONS = 9,
	INFO_APM = 10,
	INFO_SMBIOS = 13,
	INFO_ACPI_OLD = 14,
	INFO_ACPI_NEW = 15,
	INFO_NETWORK = 16,
	INFO_LOAD_BASE = 21,
};

/* What a kernel may ask for without being refused: what is given, and what a BIOS may not have either. */
#define INFO_KNOWN                                                                         \
	(BIT(INFO_CMDLINE) | BIT(INFO_LOADER_NAME) | BIT(INFO_MODULE) | BIT(INFO_MEMORY) | \
	 BIT(INFO_BOOT_DEVICE) | BIT(INFO_MMAP) | BIT(INFO_VBE) | BIT(INFO_FRAME_BUFFER) | \
	 BIT(INFO_ELF_SECTIONS) | BIT(INFO_APM) | BIT(INFO_SMBIOS) | BIT(INFO_ACPI_OLD) |  \
	 BIT(INFO_ACPI_NEW) | BIT(INFO_NETWORK) | BIT(INFO_LOAD_BASE))

#define DEFAULT_WIDTH  1024
#define DEFAULT_HEIGHT 768
#define TEXT_GPA       0xb8000
#define RSDP_V1_SIZE   20
#define RSDP_V2_SIZE   36

/* What the header says. */
struct wants {
	u32 offset; /* of the header in the file */
	bool addresses, entry, frame_buffer, relocatable, console, text;
	struct multiboot_header where; /* with addresses */
	u32 entry_addr;
	u32 width, height, depth;
	u32 min, max, align, preference;
};

/* ---- the header ---- */

static bool sum_is_right(const u8 *header)
{
	return ld32(header) + ld32(header + 4) + ld32(header + 8) + ld32(header + 12) == 0;
}

/* The offset of the header in the file's part where it counts, or -1. */
static s64 find(const struct boot_file *k)
{
	size_t end = MIN(k->len, (size_t)SEARCH_LEN);

	for (size_t i = 0; i + HEADER_SIZE <= end; i += ALIGNMENT)
		if (ld32(k->data + i) == HEADER_MAGIC && sum_is_right(k->data + i))
			return (s64)i;
	return -1;
}

bool multiboot2_match(const struct boot_file *k)
{
	return find(k) >= 0;
}

bool multiboot2_explain(const struct boot_file *k, struct err *err)
{
	for (size_t i = 0; i + HEADER_SIZE <= k->len; i += 4) {
		bool placed = i % ALIGNMENT == 0 && i + HEADER_SIZE <= SEARCH_LEN,
		     sum = sum_is_right(k->data + i);

		if (ld32(k->data + i) != HEADER_MAGIC || placed == sum)
			continue;
		if (placed)
			err_set(err, -ENOEXEC,
				"kernel %s has a Multiboot 2 header at offset %#zx of the file whose check sum is wrong (%#x)",
				k->path, i, ld32(k->data + i + 12));
		else if (i % ALIGNMENT)
			err_set(err, -ENOEXEC,
				"kernel %s has a Multiboot 2 header at offset %#zx of the file, which is no multiple of %u; align it",
				k->path, i, ALIGNMENT);
		else
			err_set(err, -ENOEXEC,
				"kernel %s has a Multiboot 2 header at offset %#zx of the file, where no loader looks; it has to lie in the first 32 KiB",
				k->path, i);
		return true;
	}
	return false;
}

static int damaged(const struct boot_file *k, const struct wants *w, const char *what, u32 value,
		   struct err *err)
{
	return err_set(err, -ENOEXEC,
		       "kernel %s is damaged: in its Multiboot 2 header at offset %#x %s (%#x)", k->path,
		       w->offset, what, value);
}

static int check_requests(const struct boot_file *k, const u8 *tag, u32 size, struct err *err)
{
	for (u32 at = TAG_HEADER; at + 4 <= size; at += 4) {
		u32 type = ld32(tag + at);

		if (type >= 32 || !(INFO_KNOWN & BIT(type)))
			return err_set(
				err, -ENOEXEC,
				"kernel %s requires boot information of type %u, which bothy does not have%s",
				k->path, type,
				type == 11 || type == 12 || (type >= 17 && type <= 20) ? " (it is EFI's)"
										       : "");
	}
	return 0;
}

static int check_relocation(const struct boot_file *k, const struct wants *w, struct err *err)
{
	if (!bits_is_pow2(w->align))
		return damaged(k, w, "the alignment of the relocatable tag is no power of two", w->align,
			       err);
	if (w->min > w->max)
		return damaged(k, w, "the lowest load address is above the highest", w->min, err);
	return 0;
}

/* One tag, whose size bytes are in the file. */
static int read_tag(const struct boot_file *k, struct wants *w, const u8 *tag, u32 size, struct err *err)
{
	/* Sizes by type; 0: any. */
	static const u8 sizes[NR_WANTS] = { 8, 0, 24, 12, 12, 20, 8, 8, 12, 12, 24 };
	u16 type = ld16(tag);
	bool optional = ld16(tag + 2) & TAG_OPTIONAL;

	if (type >= NR_WANTS) {
		if (optional)
			return 0;
		return err_set(
			err, -ENOEXEC,
			"kernel %s requires something of its loader that bothy does not know: Multiboot 2 header tag %u",
			k->path, type);
	}
	if (size < sizes[type])
		return damaged(k, w, "a tag is too short for its type", type, err);
	switch (type) {
	case WANT_INFO: return optional ? 0 : check_requests(k, tag, size, err);
	case WANT_ADDRESS:
		w->addresses = true;
		w->where.header_addr = ld32(tag + 8);
		w->where.load_addr = ld32(tag + 12);
		w->where.load_end_addr = ld32(tag + 16);
		w->where.bss_end_addr = ld32(tag + 20);
		return 0;
	case WANT_ENTRY:
		w->entry = true;
		w->entry_addr = ld32(tag + 8);
		return 0;
	case WANT_CONSOLE:
		w->console = ld32(tag + 8) & CONSOLE_REQUIRED;
		w->text = ld32(tag + 8) & CONSOLE_TEXT;
		return 0;
	case WANT_FRAME_BUFFER:
		w->frame_buffer = true;
		w->width = ld32(tag + 8);
		w->height = ld32(tag + 12);
		w->depth = ld32(tag + 16);
		return 0;
	case WANT_RELOCATABLE:
		w->relocatable = true;
		w->min = ld32(tag + 8);
		w->max = ld32(tag + 12);
		w->align = ld32(tag + 16);
		w->preference = ld32(tag + 20);
		return check_relocation(k, w, err);
	default: return 0; /* modules are always aligned; EFI's */
	}
}

static int read_header(const struct boot_file *k, struct wants *w, struct err *err)
{
	const u8 *h = k->data + w->offset;
	u32 len = ld32(h + 8), arch = ld32(h + 4);

	w->text = true; /* without a console tag */
	if (arch != ARCH_I386)
		return err_set(
			err, -ENOEXEC,
			"kernel %s has a Multiboot 2 header for architecture %u; bothy runs x86 kernels",
			k->path, arch);
	if (len < HEADER_SIZE || len > MIN(k->len, (size_t)SEARCH_LEN) - w->offset)
		return damaged(k, w, "the length reaches beyond the first 32 KiB or the file's end", len,
			       err);
	for (u32 at = HEADER_SIZE, n = 0; at + TAG_HEADER <= len && n < MAX_TAGS; n++) {
		u32 size = ld32(h + at + 4);
		int r;

		if (size < TAG_HEADER || size > len - at)
			return damaged(k, w, "a tag has an impossible length", size, err);
		if (ld16(h + at) == WANT_END)
			return 0;
		r = read_tag(k, w, h + at, size, err);
		if (r < 0)
			return r;
		at += (u32)ALIGN_UP((u64)size, (u64)ALIGNMENT);
		if (at > len)
			break;
	}
	return damaged(k, w, "the end tag is missing", len, err);
}

/* ---- loading ---- */

/* Where to load what has `len` bytes and is linked for `own`, by the relocatable tag; it is not taken. */
static int choose_base(const struct boot_file *k, const struct wants *w, struct boot_space *space, gpa_t own,
		       u64 len, gpa_t *ret_base, struct err *err)
{
	u64 max = (u64)w->max + 1;
	bool fits = own >= w->min && own + len <= max && !(own & (w->align - 1));
	char need[32];

	if (w->preference == PREFER_NONE && fits && boot_take(space, own, len) == 0)
		*ret_base = own;
	else if (boot_alloc(space, w->min, max, len, w->align, w->preference == PREFER_HIGH, ret_base) < 0)
		return err_set(
			err, -ENOMEM,
			"kernel %s wants %s between %#x and %#x, aligned to %#x, and the guest has no such memory free; give it more with --memory",
			k->path, boot_size_text(len, need), w->min, w->max, w->align);
	space->nr--; /* by its parts, later */
	return 0;
}

static int load_addressed(const struct boot_file *k, struct wants *w, struct boot_space *space,
			  gpa_t *ret_end, struct err *err)
{
	struct multiboot_header *h = &w->where;
	u32 end = MAX(h->bss_end_addr, h->load_end_addr);
	gpa_t base = h->load_addr;
	int r;

	h->offset = w->offset;
	if (!w->entry)
		return err_set(err, -ENOEXEC,
			       "kernel %s has load addresses in its Multiboot 2 header, but no entry address",
			       k->path);
	if (w->relocatable && end > h->load_addr) {
		r = choose_base(k, w, space, h->load_addr, end - h->load_addr, &base, err);
		if (r < 0)
			return r;
	}
	/* Differences are what counts; they may wrap and then are found wrong. */
	u32 by = (u32)base - h->load_addr;

	h->header_addr += by;
	h->load_addr += by;
	h->load_end_addr = h->load_end_addr ? h->load_end_addr + by : 0;
	h->bss_end_addr = h->bss_end_addr ? h->bss_end_addr + by : 0;
	w->entry_addr += by;
	return multiboot_place_addressed(k, h, space, ret_end, err);
}

static int load_elf(const struct boot_file *k, struct wants *w, struct boot_space *space, gpa_t *ret_end,
		    gpa_t *ret_base, struct err *err)
{
	struct elf_image img;
	gpa_t own = RAM_HOLE_END, base;
	int r;

	if (!elf_match(k))
		return err_set(
			err, -ENOEXEC,
			"kernel %s has a Multiboot 2 header without load addresses, but is no ELF file",
			k->path);
	r = elf_parse(k, &img, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < img.nr; i++)
		own = MIN(own, img.seg[i].paddr);
	base = own;
	if (w->relocatable) {
		r = choose_base(k, w, space, own, img.end - own, &base, err);
		if (r < 0)
			return r;
	}
	for (unsigned i = 0; i < img.nr; i++)
		img.seg[i].paddr += base - own;
	img.end += base - own;
	if (!w->entry)
		w->entry_addr = img.entry;
	w->entry_addr += (u32)(base - own);
	*ret_end = img.end;
	*ret_base = base;
	return elf_place(k, &img, space, err);
}

/* ---- the boot information ---- */

/* Grows as tags are added; failures are remembered. */
struct info {
	u8 *data;
	size_t len, room;
	bool failed;
};

/* A tag of len bytes, header included, zeroed; NULL where memory is short. */
static u8 *add_tag(struct info *info, u32 type, size_t len)
{
	size_t end = info->len + ALIGN_UP(len, (size_t)ALIGNMENT);
	u8 *p;

	if (end > info->room) {
		u8 *more = realloc(info->data, end * 2);

		info->failed |= !more;
		if (!more)
			return NULL;
		info->data = more;
		info->room = end * 2;
	}
	assert(info->data);
	p = info->data + info->len;
	memset(p, 0, end - info->len);
	st32(p, type);
	st32(p + 4, (u32)len);
	info->len = end;
	return p;
}

static void add_text(struct info *info, u32 type, const char *text)
{
	size_t len = strlen(text) + 1;
	u8 *p = add_tag(info, type, TAG_HEADER + len);

	if (p)
		memcpy(p + TAG_HEADER, text, len);
}

static void add_cmdline(struct info *info, const struct boot_source *src)
{
	char *text;

	if (asprintf(&text, "%s%s%s", src->kernel.path, *src->append ? " " : "", src->append) < 0) {
		info->failed = true;
		return;
	}
	add_text(info, INFO_CMDLINE, text);
	free(text);
}

static int add_modules(struct info *info, const struct boot_source *src, struct boot_space *space,
		       gpa_t kernel_end, struct err *err)
{
	for (unsigned i = 0; i < src->nr_initrds; i++) {
		const struct boot_file *m = &src->initrd[i];
		const char *text = boot_module_text(src, i);
		size_t len = strlen(text) + 1;
		gpa_t at;
		u8 *p;
		int r = multiboot_place_module(m, space, kernel_end, &at, err);

		if (r < 0)
			return r;
		p = add_tag(info, INFO_MODULE, 16 + len);
		if (!p)
			return 0;
		st32(p + 8, (u32)at);
		st32(p + 12, (u32)(at + m->len));
		memcpy(p + 16, text, len);
		kernel_end = at + m->len;
	}
	return 0;
}

static void add_map(struct info *info, const struct boot_map *map)
{
	u8 *p = add_tag(info, INFO_MEMORY, 16);
	u32 lower = 0, upper = 0;

	for (unsigned i = 0; i < map->nr; i++) {
		const struct boot_map_entry *e = &map->entry[i];

		if (e->type == BOOT_MAP_RAM && e->start == 0)
			lower = (u32)(MIN(e->len, 640 * KiB) / KiB);
		if (e->type == BOOT_MAP_RAM && e->start == MiB)
			upper = (u32)(e->len / KiB);
	}
	if (p) {
		st32(p + 8, lower);
		st32(p + 12, upper);
	}
	p = add_tag(info, INFO_MMAP, 16 + 24 * (size_t)map->nr);
	if (!p)
		return;
	st32(p + 8, 24);
	for (unsigned i = 0; i < map->nr; i++) {
		st64(p + 16 + 24 * i, map->entry[i].start);
		st64(p + 24 + 24 * i, map->entry[i].len);
		st32(p + 32 + 24 * i, map->entry[i].type);
	}
}

static void add_root_pointers(struct info *info, const struct boot_target *tgt)
{
	const u8 *rsdp = tgt->rsdp ? ram_ptr(tgt->ram, tgt->rsdp, RSDP_V2_SIZE) : NULL;
	u8 *p;

	if (!rsdp)
		return;
	p = add_tag(info, INFO_ACPI_OLD, TAG_HEADER + RSDP_V1_SIZE);
	if (p)
		memcpy(p + TAG_HEADER, rsdp, RSDP_V1_SIZE);
	p = add_tag(info, INFO_ACPI_NEW, TAG_HEADER + RSDP_V2_SIZE);
	if (p)
		memcpy(p + TAG_HEADER, rsdp, RSDP_V2_SIZE);
}

/* Pixels where the kernel wants them or cannot do with text; else text. */
static void add_frame_buffer(struct info *info, const struct wants *w, const struct boot_target *tgt)
{
	static const u8 rgb[] = { 16, 8, 8, 8, 0, 8 }; /* position and width of red, green, blue */
	bool pixels = tgt->frame_buffer &&
		      ((w->frame_buffer && (w->depth || !w->text)) || (w->console && !w->text));
	u8 *p = tgt->vga ? add_tag(info, INFO_FRAME_BUFFER, pixels ? 38 : 32) : NULL;
	u32 width = w->width ? w->width : DEFAULT_WIDTH, height = w->height ? w->height : DEFAULT_HEIGHT;

	if (!p)
		return;
	if (!pixels) {
		st64(p + 8, TEXT_GPA);
		st32(p + 16, 160);
		st32(p + 20, 80);
		st32(p + 24, 25);
		p[28] = 16;
		p[29] = 2; /* EGA text */
		return;
	}
	/* A preference: the nearest there is. */
	width = ALIGN_DOWN(MIN(MAX(width, 64u), (u32)BOOT_MAX_WIDTH), 8u);
	height = MIN(MAX(height, 64u), (u32)BOOT_MAX_HEIGHT);
	*tgt->video = (struct boot_video){ width, height };
	st64(p + 8, tgt->frame_buffer);
	st32(p + 16, width * 4);
	st32(p + 20, width);
	st32(p + 24, height);
	p[28] = 32;
	p[29] = 1; /* RGB */
	memcpy(p + 32, rgb, sizeof(rgb));
}

struct sections {
	const u8 *at;
	u32 nr, size, names;
	bool is64;
};

/* The section headers, if they are all in the file. */
static bool find_sections(const struct boot_file *k, struct sections *s)
{
	const u8 *d = k->data;
	u64 offset;

	if (!elf_match(k) || k->len < sizeof(Elf64_Ehdr))
		return false;
	s->is64 = d[EI_CLASS] == ELFCLASS64;
	offset = s->is64 ? ld64(d + offsetof(Elf64_Ehdr, e_shoff)) : ld32(d + offsetof(Elf32_Ehdr, e_shoff));
	s->nr = ld16(d + (s->is64 ? offsetof(Elf64_Ehdr, e_shnum) : offsetof(Elf32_Ehdr, e_shnum)));
	s->size = ld16(d + (s->is64 ? offsetof(Elf64_Ehdr, e_shentsize) : offsetof(Elf32_Ehdr, e_shentsize)));
	s->names = ld16(d + (s->is64 ? offsetof(Elf64_Ehdr, e_shstrndx) : offsetof(Elf32_Ehdr, e_shstrndx)));
	s->at = d + offset;
	return s->nr && s->size == (s->is64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr)) && offset < k->len &&
	       (u64)s->nr * s->size <= k->len - offset;
}

/* One field of either class. */
#define SECTION(s, h, field) \
	((s)->is64 ? ld64((h) + offsetof(Elf64_Shdr, field)) : ld32((h) + offsetof(Elf32_Shdr, field)))

/* How much of the file belongs to a section that no segment has loaded: symbols, names, debug information. */
static u64 unloaded(const struct boot_file *k, const struct sections *s, const u8 *h, u64 *ret_offset)
{
	u64 len = SECTION(s, h, sh_size);
	u32 type = ld32(h + offsetof(Elf64_Shdr, sh_type));

	_Static_assert(offsetof(Elf64_Shdr, sh_type) == offsetof(Elf32_Shdr, sh_type), "sh_type");
	*ret_offset = SECTION(s, h, sh_offset);
	if (SECTION(s, h, sh_addr) || type == SHT_NULL || type == SHT_NOBITS || *ret_offset > k->len ||
	    len > k->len - *ret_offset)
		return 0;
	return len;
}

/* Sections without an address get one, in one piece of memory; where that is not to be had they stay without. */
static void add_sections(struct info *info, const struct boot_file *k, struct boot_space *space)
{
	struct sections s;
	u64 total = 0, offset;
	gpa_t at = 0;
	u8 *p;

	if (!find_sections(k, &s))
		return;
	p = add_tag(info, INFO_ELF_SECTIONS, 20 + (size_t)s.nr * s.size);
	if (!p)
		return;
	st32(p + 8, s.nr);
	st32(p + 12, s.size);
	st32(p + 16, s.names);
	p += 20;
	memcpy(p, s.at, (size_t)s.nr * s.size);
	for (u32 i = 0; i < s.nr; i++)
		total += ALIGN_UP(unloaded(k, &s, p + (size_t)i * s.size, &offset), 16ull);
	if (!total || boot_alloc(space, MiB, RAM_HOLE_END, total, RAM_PAGE_SIZE, false, &at) < 0)
		return;
	for (u32 i = 0; i < s.nr; i++) {
		u8 *h = p + (size_t)i * s.size;
		u64 len = unloaded(k, &s, h, &offset);

		if (!len)
			continue;
		boot_copy(space, at, k->data + offset, len);
		if (s.is64)
			st64(h + offsetof(Elf64_Shdr, sh_addr), at);
		else
			st32(h + offsetof(Elf32_Shdr, sh_addr), (u32)at);
		at += ALIGN_UP(len, 16ull);
	}
}

static int make_info(struct info *info, const struct boot_source *src, const struct wants *w,
		     struct boot_space *space, gpa_t end, gpa_t base, struct err *err)
{
	const struct boot_target *tgt = space->tgt;
	u8 *p;
	int r;

	info->len = 8; /* the total size comes before the first tag */
	r = add_modules(info, src, space, end, err);
	if (r < 0)
		return r;
	add_cmdline(info, src);
	add_text(info, INFO_LOADER_NAME, MULTIBOOT_LOADER_NAME);
	add_map(info, tgt->map);
	add_frame_buffer(info, w, tgt);
	if (!w->addresses)
		add_sections(info, &src->kernel, space);
	add_root_pointers(info, tgt);
	p = w->relocatable ? add_tag(info, INFO_LOAD_BASE, 12) : NULL;
	if (p)
		st32(p + 8, (u32)base);
	add_tag(info, INFO_END, TAG_HEADER);
	if (info->failed)
		return err_set(err, -ENOMEM, "no memory for the boot information of kernel %s",
			       src->kernel.path);
	st32(info->data, (u32)info->len);
	st32(info->data + 4, 0);
	return 0;
}

int multiboot2_load(const struct boot_source *src, struct boot_space *space, struct x86_state *ret_state,
		    struct err *err)
{
	const struct boot_file *k = &src->kernel;
	struct wants w = { .offset = (u32)find(k) };
	struct info info = { 0 };
	gpa_t end = 0, base = 0, at;
	int r = read_header(k, &w, err);

	if (r < 0)
		return r;
	if (w.console && !space->tgt->vga)
		return err_set(
			err, -ENOTSUP,
			"kernel %s requires a screen, which this machine does not have; leave out --vga none",
			k->path);
	if (w.addresses) {
		r = load_addressed(k, &w, space, &end, err);
		base = w.where.load_addr;
	} else {
		r = load_elf(k, &w, space, &end, &base, err);
	}
	if (r == 0)
		r = boot_flat_state(space, false, ret_state, err);
	if (r == 0)
		r = make_info(&info, src, &w, space, end, base, err);
	if (r == 0 && boot_alloc(space, 0, RAM_HOLE_END, info.len, ALIGNMENT, false, &at) < 0)
		r = err_set(err, -ENOMEM,
			    "no guest memory is left for the Multiboot information of kernel %s", k->path);
	if (r == 0) {
		boot_copy(space, at, info.data, info.len);
		multiboot_write_bios_data(space);
		/* [MB2 3.3] */
		ret_state->cr0 = CR0_PE | CR0_ET;
		ret_state->gpr[R_AX] = LOADER_MAGIC;
		ret_state->gpr[R_BX] = at;
		ret_state->rip = w.entry_addr;
	}
	free(info.data);
	return r;
}
