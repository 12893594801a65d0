/* Direct boot: recognising images, handing out guest memory, the first CPU state.
 *
 * A kernel image comes in one of four forms: a bzImage ("HdrS" in its setup header), a Multiboot 2 image (a magic number in its
 * first 32 KiB), a Multiboot 1 image (one with checksum in its first 8 KiB), an ELF file with a PVH entry. They are looked for
 * in this order, so that an ELF file that is both PVH and Multiboot is taken as Multiboot, the older
 * promise, and as Multiboot 2 where it is both, since that tells it more. Anything else gets a sentence that says what it looks like.
 *
 * Guest memory is handed out by a list of taken ranges: what does not lie in RAM of the memory map
 * or overlaps something placed before is refused, so images cannot overwrite each other or the
 * ACPI tables. Only memory below 4 GiB is used, since all four protocols start there.
 *
 * Omitted: firmware boot, network boot, decompression of kernels (no boot protocol asks for it).
 * Called on the main thread only, while no vCPU runs.
 */
#include "boot/boot.h"

#include <errno.h>
#include <stdio.h>

#include "base/bits.h"
#include "boot/elf.h"
#include "boot/linux.h"
#include "boot/multiboot.h"
#include "boot/multiboot2.h"

/* Nothing is placed on the first page: a null pointer should not find anything there. */
#define SPACE_MIN RAM_PAGE_SIZE
#define LOW_END   0xa0000

const char *boot_size_text(u64 bytes, char buf[32])
{
	if (bytes >= MiB)
		snprintf(buf, 32, "%llu MiB", (unsigned long long)(bytes / MiB + (bytes % MiB != 0)));
	else
		snprintf(buf, 32, "%llu KiB", (unsigned long long)(bytes / KiB + (bytes % KiB != 0)));
	return buf;
}

void boot_space_init(struct boot_space *space, const struct boot_target *tgt)
{
	space->tgt = tgt;
	space->nr = 0;
}

gpa_t boot_space_end(const struct boot_space *space)
{
	const struct boot_map *map = space->tgt->map;
	gpa_t end = 0;

	for (unsigned i = 0; i < map->nr; i++) {
		const struct boot_map_entry *e = &map->entry[i];

		if (e->type == BOOT_MAP_RAM && e->start < RAM_HOLE_END)
			end = MIN(e->start + e->len, RAM_HOLE_END);
	}
	return end;
}

/* The entry of RAM that holds [gpa, gpa+len) whole, or NULL. */
static const struct boot_map_entry *space_ram(const struct boot_space *space, gpa_t gpa, u64 len)
{
	const struct boot_map *map = space->tgt->map;

	for (unsigned i = 0; i < map->nr; i++) {
		const struct boot_map_entry *e = &map->entry[i];

		if (e->type != BOOT_MAP_RAM || e->start >= RAM_HOLE_END || gpa < e->start)
			continue;
		if (gpa - e->start < e->len && len <= e->len - (gpa - e->start))
			return e;
	}
	return NULL;
}

static const struct boot_map_entry *space_overlap(const struct boot_space *space, gpa_t gpa, u64 len)
{
	for (unsigned i = 0; i < space->nr; i++) {
		const struct boot_map_entry *t = &space->taken[i];

		if (gpa < t->start + t->len && t->start < gpa + len)
			return t;
	}
	return NULL;
}

int boot_take(struct boot_space *space, gpa_t gpa, u64 len)
{
	if (len == 0)
		return 0;
	if (!space_ram(space, gpa, len) || !ram_ptr(space->tgt->ram, gpa, len))
		return -ENOSPC;
	if (space_overlap(space, gpa, len) || space->nr == BOOT_MAX_TAKEN)
		return -ENOSPC;
	space->taken[space->nr++] = (struct boot_map_entry){ .start = gpa, .len = len };
	return 0;
}

static int alloc_in(struct boot_space *space, gpa_t lo, gpa_t hi, u64 len, u64 align, bool top_down,
		    gpa_t *ret_gpa)
{
	const struct boot_map_entry *t;
	gpa_t at;

	lo = ALIGN_UP(lo, align);
	if (lo > hi || hi - lo < len)
		return -ENOSPC;
	/* Every turn moves past one taken range, so there are at most BOOT_MAX_TAKEN. */
	at = top_down ? ALIGN_DOWN(hi - len, align) : lo;
	while ((t = space_overlap(space, at, len))) {
		if (top_down) {
			if (t->start < lo || t->start - lo < len)
				return -ENOSPC;
			at = ALIGN_DOWN(t->start - len, align);
		} else {
			at = ALIGN_UP(t->start + t->len, align);
			if (at > hi || hi - at < len)
				return -ENOSPC;
		}
	}
	if (boot_take(space, at, len) < 0)
		return -ENOSPC;
	*ret_gpa = at;
	return 0;
}

int boot_alloc(struct boot_space *space, gpa_t min, gpa_t max, u64 len, u64 align, bool top_down,
	       gpa_t *ret_gpa)
{
	const struct boot_map *map = space->tgt->map;

	min = MAX(min, SPACE_MIN);
	max = MIN(max, RAM_HOLE_END);
	if (len == 0)
		len = 1;
	for (unsigned i = 0; i < map->nr; i++) {
		const struct boot_map_entry *e = &map->entry[top_down ? map->nr - 1 - i : i];
		gpa_t lo, hi;

		if (e->type != BOOT_MAP_RAM || e->start >= RAM_HOLE_END)
			continue;
		lo = MAX(e->start, min);
		hi = MIN(e->start + e->len, max);
		if (lo < hi && alloc_in(space, lo, hi, len, align, top_down, ret_gpa) == 0)
			return 0;
	}
	return -ENOSPC;
}

void boot_copy(const struct boot_space *space, gpa_t gpa, const void *data, u64 len)
{
	u8 *p = ram_ptr(space->tgt->ram, gpa, len);

	if (p && len) {
		memcpy(p, data, len);
		ram_code_written(space->tgt->ram, gpa, len);
	}
}

int boot_copy_file(const struct boot_space *space, gpa_t gpa, const struct boot_file *file, u64 offset,
		   u64 len, struct err *err)
{
	int r;

	if (!file->in_file) {
		boot_copy(space, gpa, file->data + offset, len);
		return 0;
	}
	r = ram_read_file(space->tgt->ram, gpa, file->fd, offset, len);
	if (r == -ENODATA)
		return err_set(err, r, "'%s' became shorter while it was in use; start again", file->path);
	return r < 0 ? err_sys(err, r, "cannot read '%s'", file->path) : 0;
}

bool boot_head_is_enough(const struct boot_file *kernel)
{
	return linux_match(kernel);
}

static void flat_segment(struct x86_segreg *seg, u16 sel, u32 attr)
{
	*seg = (struct x86_segreg){ .sel = sel, .attr = attr, .limit = 0xffffffff };
}

/* PML4, one page-directory-pointer table, four page directories of 2 MiB pages. */
static int identity_map(struct boot_space *space, gpa_t *ret_cr3)
{
	u64 page[512] = { 0 };
	gpa_t pml4;

	if (boot_alloc(space, SPACE_MIN, LOW_END, 6 * RAM_PAGE_SIZE, RAM_PAGE_SIZE, false, &pml4) < 0)
		return -ENOSPC;
	page[0] = (pml4 + RAM_PAGE_SIZE) | PTE_P | PTE_W;
	boot_copy(space, pml4, page, sizeof(page));
	for (unsigned i = 0; i < 4; i++)
		page[i] = (pml4 + (2 + i) * RAM_PAGE_SIZE) | PTE_P | PTE_W;
	boot_copy(space, pml4 + RAM_PAGE_SIZE, page, sizeof(page));
	for (unsigned i = 0; i < 4; i++) {
		for (u64 k = 0; k < 512; k++)
			page[k] = i * GiB + k * 2 * MiB + (PTE_P | PTE_W | PTE_PS);
		boot_copy(space, pml4 + (2 + i) * RAM_PAGE_SIZE, page, sizeof(page));
	}
	*ret_cr3 = pml4;
	return 0;
}

int boot_flat_state(struct boot_space *space, bool long_mode, struct x86_state *ret_state, struct err *err)
{
	/* The TSS stays all zeros: nothing switches to it, but the task register must be usable. */
	const u64 gdt[6] = {
		0,
		0,
		long_mode ? 0x00af9b000000ffff : 0x00cf9b000000ffff, /* BOOT_CS */
		0x00cf93000000ffff,                                  /* BOOT_DS */
		0x00008b0000000067,                                  /* BOOT_TR, and its upper half */
		0,
	};
	u64 bytes[ARRAY_SIZE(gdt) + 13]; /* the 104 bytes of the TSS behind it */
	struct x86_state *s = ret_state;
	gpa_t at, cr3 = 0;

	memset(bytes, 0, sizeof(bytes));
	memcpy(bytes, gdt, sizeof(gdt));
	if (boot_alloc(space, SPACE_MIN, LOW_END, sizeof(bytes), 16, false, &at) < 0 ||
	    (long_mode && identity_map(space, &cr3) < 0))
		return err_set(err, -ENOSPC, "no guest memory below 640 KiB is left for the boot tables");
	/* The base of the TSS, in bits 16-39 and 56-63 of its descriptor. */
	bytes[4] |= ((at + sizeof(gdt)) & 0xffffff) << 16;
	boot_copy(space, at, bytes, sizeof(bytes));

	x86_state_reset(s, false, true, space->tgt->signature);
	memset(s->gpr, 0, sizeof(s->gpr));
	s->rflags = FL_RES1;
	flat_segment(&s->seg[SEG_CS], BOOT_CS, 0xb | SA_S | SA_P | SA_G | (long_mode ? SA_L : SA_DB));
	for (unsigned i = 0; i < X86_NR_SEG; i++)
		if (i != SEG_CS)
			flat_segment(&s->seg[i], BOOT_DS, 0x3 | SA_S | SA_P | SA_G | SA_DB);
	s->tr = (struct x86_segreg){
		.sel = BOOT_TR, .attr = 0xb | SA_P, .limit = 0x67, .base = at + sizeof(gdt)
	};
	s->ldtr = (struct x86_segreg){ .attr = 0x2 | SA_UNUSABLE };
	s->gdtr = (struct x86_dtr){ .limit = sizeof(gdt) - 1, .base = at };
	s->idtr = (struct x86_dtr){ .limit = 0, .base = 0 };
	s->cr0 = CR0_PE | CR0_ET | CR0_NE;
	s->cr4 = 0;
	s->efer = 0;
	if (long_mode) {
		s->cr0 |= CR0_PG;
		s->cr3 = cr3;
		s->cr4 = CR4_PAE;
		s->efer = EFER_LME | EFER_LMA;
	}
	s->activity = X86_ACTIVE;
	return 0;
}

/* What the first bytes of a file that is no kernel of ours say it is, or NULL. */
static const char *name_format(const struct boot_file *f)
{
	static const struct {
		u32 offset;
		u8 len;
		const char *magic;
		const char *what;
	} formats[] = {
		{ 0x38, 4, "ARM\x64", "an arm64 Linux kernel" },
		{ 0x24, 4, "\x18\x28\x6f\x01", "a 32-bit ARM Linux kernel (zImage)" },
		{ 0x38, 4, "RSC\x05", "a RISC-V Linux kernel" },
		{ 0x38, 4, "\xcd\x23\x82\x81", "a LoongArch Linux kernel" },
		{ 0, 4, "\x27\x05\x19\x56", "a U-Boot image" },
		{ 0, 2, "\x1f\x8b", "gzip-compressed (perhaps an ARM kernel or an initrd)" },
		{ 0, 6,
		  "\xfd"
		  "7zXZ\x00",
		  "xz-compressed" },
		{ 0, 4, "\x28\xb5\x2f\xfd", "zstd-compressed (perhaps an initrd)" },
		{ 0, 3, "BZh", "bzip2-compressed" },
		{ 0, 4, "\x02\x21\x4c\x18", "LZ4-compressed" },
		{ 0, 6, "070701", "a cpio archive (an initrd)" },
		{ 0, 6, "070702", "a cpio archive (an initrd)" },
		{ 0, 4, "QFI\xfb", "a qcow2 disk image" },
		{ 0, 2, "#!", "a script" },
		{ 0x8001, 5, "CD001", "an ISO 9660 image" },
		{ 0, 8, "!<arch>\n", "an archive (perhaps a Debian package)" },
		{ 0x1fe, 2, "\x55\xaa", "a boot sector or disk image without a Linux setup header" },
		{ 0, 2, "MZ", "an EFI program without a Linux setup header" },
	};

	/* EFI programs that unpack a kernel (Linux's zboot) are not for x86; they say which by the
	 * machine field of their PE header. */
	if (f->len >= 64 && memcmp(f->data, "MZ\0\0zimg", 8) == 0) {
		u32 pe = ld32(f->data + 0x3c);

		if (pe <= f->len - 6 && memcmp(f->data + pe, "PE\0\0", 4) == 0) {
			u16 machine = ld16(f->data + pe + 4);

			if (machine == 0xaa64)
				return "an arm64 Linux kernel (compressed EFI program)";
			if (machine == 0x5064)
				return "a RISC-V Linux kernel (compressed EFI program)";
		}
	}
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
		if (f->len >= formats[i].offset + formats[i].len &&
		    memcmp(f->data + formats[i].offset, formats[i].magic, formats[i].len) == 0)
			return formats[i].what;
	return NULL;
}

int boot_load(const struct boot_source *src, const struct boot_target *tgt, struct x86_state *ret_state,
	      struct err *err)
{
	const struct boot_file *k = &src->kernel;
	struct multiboot_header mb;
	struct boot_space space;
	const char *what;
	int r;

	boot_space_init(&space, tgt);
	if (k->len == 0)
		return err_set(err, -ENOEXEC, "kernel %s is empty", k->path);
	if (linux_match(k))
		return linux_load(src, &space, ret_state, err);
	if (multiboot2_match(k))
		return multiboot2_load(src, &space, ret_state, err);
	if (multiboot_find(k, &mb))
		return multiboot_load(src, &mb, &space, ret_state, err);
	r = elf_match(k) ? elf_load_pvh(src, &space, ret_state, err) : -ENOEXEC;
	if (r != -ENOEXEC || multiboot2_explain(k, err) || elf_match(k))
		return r;
	what = name_format(k);
	if (what)
		return err_set(
			err, -ENOEXEC,
			"kernel %s is %s; bothy boots x86 kernels as bzImage, ELF with a PVH entry, or "
			"Multiboot image",
			k->path, what);
	return err_set(
		err, -ENOEXEC,
		"kernel %s is not a kernel that bothy knows (bzImage, ELF with a PVH entry, Multiboot image)%s",
		k->path, k->len < 0x290 ? "; it may be truncated" : "");
}
