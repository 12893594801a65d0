/* ELF images and the PVH entry: what lands where, the start info, and images that lie. */
#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

#include "boot_images.h"

#define PADDR 0x200000

static u8 image[8192];

static u8 *at(struct guest *g, gpa_t gpa, u64 len)
{
	u8 *p = ram_ptr(&g->ram, gpa, len);

	assert_non_null(p);
	return p;
}

static void loads_pvh(void **state)
{
	static const u8 zeros[4096];
	static u8 mods[2][5000];

	for (int is64 = 0; is64 < 2; is64++) {
		struct guest g;
		size_t len = make_elf(image, is64, PADDR, 0);
		u8 *info, *p;

		memset(mods[0], 3, sizeof(mods[0]));
		memset(mods[1], 4, sizeof(mods[1]));
		assert_int_equal(guest_init(&g, 8 * MiB), 0);
		g.source.initrd[0] = guest_file("m0", mods[0], 5000);
		g.source.initrd[1] = guest_file("m1", mods[1], 10);
		g.source.nr_initrds = 2;
		assert_int_equal(guest_load(&g, image, len), 0);
		assert_int_equal(g.state.rip, PADDR + 32);
		assert_memory_equal(at(&g, PADDR, 64), image + ELF_CODE_OFFSET, 64);
		assert_memory_equal(at(&g, PADDR + 64, 4096), zeros, 4096);

		assert_int_equal(g.state.cr0 & (CR0_PE | CR0_PG), CR0_PE);
		assert_int_equal(g.state.cr4, 0);
		assert_int_equal(g.state.rflags, FL_RES1);
		assert_true(g.state.seg[SEG_CS].attr & SA_DB);
		assert_int_equal(g.state.seg[SEG_CS].limit, 0xffffffff);
		assert_int_equal(g.state.tr.limit, 0x67);

		info = at(&g, g.state.gpr[R_BX], 56);
		assert_int_equal(ld32(info), 0x336ec578);
		assert_int_equal(ld32(info + 4), 1);
		assert_int_equal(ld32(info + 8), 0);
		assert_int_equal(ld32(info + 12), 2);
		assert_string_equal((char *)at(&g, ld64(info + 24), 14), "console=ttyS0");
		assert_int_equal(ld64(info + 32), GUEST_RSDP);
		assert_int_equal(ld32(info + 48), g.map.nr);
		for (unsigned i = 0; i < 2; i++) {
			p = at(&g, ld64(info + 16) + 32 * i, 32);
			assert_int_equal(ld64(p) % 4096, 0);
			assert_int_equal(ld64(p + 8), g.source.initrd[i].len);
			assert_memory_equal(at(&g, ld64(p), ld64(p + 8)), mods[i], ld64(p + 8));
		}
		for (unsigned i = 0; i < g.map.nr; i++) {
			p = at(&g, ld64(info + 40) + 24 * i, 24);
			assert_int_equal(ld64(p), g.map.entry[i].start);
			assert_int_equal(ld64(p + 8), g.map.entry[i].len);
			assert_int_equal(ld32(p + 16), g.map.entry[i].type);
		}
		guest_fini(&g);
	}
}

static void notes_may_stand_anywhere(void **state)
{
	struct guest g;
	u8 *n = image + ELF_NOTE_OFFSET;
	size_t len = make_elf(image, true, PADDR, 0);

	/* Another note in front, whose name and content need padding. */
	memset(n, 0, 64);
	st32(n, 3);
	st32(n + 4, 5);
	st32(n + 8, 18);
	memcpy(n + 12, "XY", 3);
	st32(n + 24, 4);
	st32(n + 28, 4);
	st32(n + 32, 18);
	memcpy(n + 36, "Xen", 4);
	st32(n + 40, PADDR + 48);
	st64(image + sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, p_filesz), 44);
	assert_int_equal(guest_init(&g, 8 * MiB), 0);
	assert_int_equal(guest_load(&g, image, len), 0);
	assert_int_equal(g.state.rip, PADDR + 48);
	guest_fini(&g);
}

static u8 *eh(size_t field)
{
	return image + field;
}

static u8 *ph(unsigned i, size_t field)
{
	return image + sizeof(Elf64_Ehdr) + i * sizeof(Elf64_Phdr) + field;
}

struct refusal {
	const char *name, *says;
	void (*spoil)(size_t *len);
};

static void tiny(size_t *len)
{
	*len = 40;
}
static void tiny64(size_t *len)
{
	*len = 60;
}
static void class(size_t *len)
{
	image[EI_CLASS] = 3;
}
static void big_endian(size_t *len)
{
	image[EI_DATA] = ELFDATA2MSB;
}
static void arm64(size_t *len)
{
	st16(eh(offsetof(Elf64_Ehdr, e_machine)), EM_AARCH64);
}
static void arm(size_t *len)
{
	st16(eh(offsetof(Elf64_Ehdr, e_machine)), EM_ARM);
}
static void alpha(size_t *len)
{
	st16(eh(offsetof(Elf64_Ehdr, e_machine)), 0x9026);
}
static void object(size_t *len)
{
	st16(eh(offsetof(Elf64_Ehdr, e_type)), ET_REL);
}
static void no_phdrs(size_t *len)
{
	st16(eh(offsetof(Elf64_Ehdr, e_phnum)), 0);
}
static void all_phdrs(size_t *len)
{
	st16(eh(offsetof(Elf64_Ehdr, e_phnum)), 0xffff);
}
static void many_phdrs(size_t *len)
{
	st16(eh(offsetof(Elf64_Ehdr, e_phnum)), 0xfffe);
}
static void phentsize(size_t *len)
{
	st16(eh(offsetof(Elf64_Ehdr, e_phentsize)), 55);
}
static void phoff(size_t *len)
{
	st64(eh(offsetof(Elf64_Ehdr, e_phoff)), ~0ull - 7);
}
static void offset(size_t *len)
{
	st64(ph(0, offsetof(Elf64_Phdr, p_offset)), ~0ull - 10);
}
static void filesz(size_t *len)
{
	st64(ph(0, offsetof(Elf64_Phdr, p_filesz)), ~0ull);
}
static void cut(size_t *len)
{
	*len = ELF_CODE_OFFSET + 63;
}
static void filesz_memsz(size_t *len)
{
	st64(ph(0, offsetof(Elf64_Phdr, p_memsz)), 63);
}
static void memsz(size_t *len)
{
	st64(ph(0, offsetof(Elf64_Phdr, p_memsz)), ~0ull - PADDR + 1);
}
static void memsz_ram(size_t *len)
{
	st64(ph(0, offsetof(Elf64_Phdr, p_memsz)), 6 * MiB + 1);
}
static void paddr_high(size_t *len)
{
	st64(ph(0, offsetof(Elf64_Phdr, p_paddr)), 4 * GiB);
}
static void paddr_rom(size_t *len)
{
	st64(ph(0, offsetof(Elf64_Phdr, p_paddr)), 0xe0000);
}
static void paddr_tables(size_t *len)
{
	st64(ph(0, offsetof(Elf64_Phdr, p_paddr)), 0x9f000 - 4096 - 63);
}
static void overlap(size_t *len)
{
	st16(eh(offsetof(Elf64_Ehdr, e_phnum)), 3);
	memcpy(ph(2, 0), ph(0, 0), sizeof(Elf64_Phdr));
	st64(ph(2, offsetof(Elf64_Phdr, p_paddr)), PADDR + 4096 + 63);
}
static void nothing_to_load(size_t *len)
{
	st32(ph(0, 0), PT_NOTE);
}
static void no_note(size_t *len)
{
	st32(ph(1, 0), PT_NULL);
}
static void note_name(size_t *len)
{
	image[ELF_NOTE_OFFSET + 12] = 'x';
}
static void note_type(size_t *len)
{
	image[ELF_NOTE_OFFSET + 8] = 17;
}
static void note_namesz(size_t *len)
{
	st32(image + ELF_NOTE_OFFSET, 0xffffffff);
}
static void note_descsz(size_t *len)
{
	st32(image + ELF_NOTE_OFFSET + 4, 0xfffffff8);
}
static void note_cut(size_t *len)
{
	st64(ph(1, offsetof(Elf64_Phdr, p_filesz)), 23);
}
static void segments(size_t *len)
{
	st64(eh(offsetof(Elf64_Ehdr, e_phoff)), 0x300);
	st16(eh(offsetof(Elf64_Ehdr, e_phnum)), 65);
	for (unsigned i = 0; i < 65; i++) {
		u8 *p = image + 0x300 + i * sizeof(Elf64_Phdr);

		memset(p, 0, sizeof(Elf64_Phdr));
		st32(p, PT_LOAD);
		st64(p + offsetof(Elf64_Phdr, p_paddr), PADDR + 16 * i);
		st64(p + offsetof(Elf64_Phdr, p_memsz), 16);
	}
	*len = 0x300 + 65 * sizeof(Elf64_Phdr);
}

static const struct refusal refusals[] = {
	{ "40 bytes", "truncated", tiny },
	{ "60 bytes of 64-bit ELF", "truncated", tiny64 },
	{ "class", "class is 3", class },
	{ "big-endian", "big-endian", big_endian },
	{ "arm64", "an ELF file for arm64", arm64 },
	{ "arm", "32-bit ARM", arm },
	{ "alpha", "machine 36902", alpha },
	{ "object file", "no executable", object },
	{ "no program headers", "0 program headers", no_phdrs },
	{ "PN_XNUM", "65535 program headers", all_phdrs },
	{ "program headers beyond the end", "truncated", many_phdrs },
	{ "size of program headers", "of 55 bytes", phentsize },
	{ "offset of program headers", "truncated", phoff },
	{ "offset of a segment", "truncated", offset },
	{ "size of a segment", "truncated", filesz },
	{ "ends within a segment", "truncated", cut },
	{ "more in the file than in memory", "damaged", filesz_memsz },
	{ "memory size wraps", "above 4 GiB", memsz },
	{ "memory size beyond RAM", "the guest has only 8 MiB there", memsz_ram },
	{ "address above 4 GiB", "above 4 GiB", paddr_high },
	{ "address in ROM", "no RAM", paddr_rom },
	{ "one byte into the ACPI area", "no RAM", paddr_tables },
	{ "segments overlap by a byte", "overlaps", overlap },
	{ "65 segments", "more than 64", segments },
	{ "nothing to load", "without a segment", nothing_to_load },
	{ "no note", "without a PVH entry", no_note },
	{ "note of another name", "without a PVH entry", note_name },
	{ "note of another type", "without a PVH entry", note_type },
	{ "note with an endless name", "without a PVH entry", note_namesz },
	{ "note with endless content", "without a PVH entry", note_descsz },
	{ "note cut short", "without a PVH entry", note_cut },
};

static void refuses_a11(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(refusals); i++) {
		struct guest g;
		size_t len = make_elf(image, true, PADDR, 0);
		u8 *exact;
		int r;

		assert_int_equal(guest_init(&g, 8 * MiB), 0);
		refusals[i].spoil(&len);
		/* In memory of its own size, so that a sanitizer sees a read past the end. */
		exact = malloc(len);
		memcpy(exact, image, len);
		r = guest_load(&g, exact, len);
		if (r >= 0 || !strstr(g.err.msg, refusals[i].says))
			fail_msg("%s: %d \"%s\", wanted \"%s\"", refusals[i].name, r, g.err.msg,
				 refusals[i].says);
		free(exact);
		guest_fini(&g);
	}
}

static void cmdline_has_a_limit(void **state)
{
	struct guest g;
	size_t len = make_elf(image, true, PADDR, 0);
	char *text = malloc(70000);

	memset(text, 'a', 69999);
	text[69999] = 0;
	assert_int_equal(guest_init(&g, 8 * MiB), 0);
	g.source.append = text;
	assert_int_equal(guest_load(&g, image, len), -E2BIG);
	text[65535] = 0;
	assert_int_equal(guest_load(&g, image, len), 0);
	free(text);
	guest_fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loads_pvh),
		cmocka_unit_test(notes_may_stand_anywhere),
		cmocka_unit_test(refuses_a11),
		cmocka_unit_test(cmdline_has_a_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
