/* Multiboot 2 images: what is loaded where, each piece of boot information, and headers that ask for what is not there [A11]. */
#include <setjmp.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "boot_images.h"

#define PADDR 0x400000

static u8 image[65536];
static u32 header_at, header_end;

static void begin(u32 at)
{
	memset(image + at, 0, 512);
	header_at = at;
	header_end = at + 16;
}

static void tag(u16 type, u16 flags, unsigned nr, const u32 *values)
{
	st16(image + header_end, type);
	st16(image + header_end + 2, flags);
	st32(image + header_end + 4, 8 + 4 * nr);
	for (unsigned i = 0; i < nr; i++)
		st32(image + header_end + 8 + 4 * i, values[i]);
	header_end += ALIGN_UP(8 + 4 * nr, 8u);
}
#define TAG(type, flags, ...) \
	tag(type, flags, sizeof((u32[]){ __VA_ARGS__ }) / 4, (const u32[]){ __VA_ARGS__ })

static void seal(void)
{
	put_multiboot2(image, header_at, header_end - header_at);
}

static void finish(void)
{
	tag(0, 0, 0, NULL);
	seal();
}

static u8 *at(struct guest *g, gpa_t gpa, u64 len)
{
	u8 *p = ram_ptr(&g->ram, gpa, len);

	assert_non_null(p);
	return p;
}

/* The n-th piece of information of a type, counted from 0, or NULL. */
static u8 *info(struct guest *g, u32 type, unsigned n)
{
	u64 base = g->state.gpr[R_BX];
	u32 total = ld32(at(g, base, 8)), off = 8;

	assert_int_equal(base % 8, 0);
	assert_int_equal(ld32(at(g, base, 8) + 4), 0);
	while (off < total) {
		u8 *p = at(g, base + off, 8);

		if (ld32(p) == 0) {
			assert_int_equal(ld32(p + 4), 8);
			assert_int_equal(off + 8, total);
			return NULL;
		}
		if (ld32(p) == type && n-- == 0)
			return at(g, base + off, ld32(p + 4));
		off += ALIGN_UP(ld32(p + 4), 8u);
	}
	fail_msg("the boot information has no end");
	return NULL;
}

static struct boot_video video;

static void up(struct guest *g)
{
	assert_int_equal(guest_init(g, 16 * MiB), 0);
	g->target.frame_buffer = 0xdf000000;
	g->target.video = &video;
	video = (struct boot_video){ 0 };
	memcpy(at(g, GUEST_RSDP, 36), "RSD PTR 0123456789abcdefghijklmnopqr", 36);
}

static void loads_elf(void **state)
{
	for (unsigned is64 = 0; is64 < 2; is64++) {
		static u8 module[5000];
		size_t len = make_elf(image, is64, PADDR, 0);
		struct guest g;
		u8 *p;

		begin((u32)ALIGN_UP(len, 8ul));
		TAG(1, 0, 1, 2, 3, 4, 5, 6, 8, 14, 15);
		TAG(1, 1, 11, 99); /* optional: what there is not */
		finish();
		up(&g);
		g.source.append = "a=b c";
		memset(module, 'm', sizeof(module));
		g.source.initrd[0] = guest_file("mod", module, sizeof(module));
		g.source.initrd[1] = guest_file("other", module, 10);
		g.source.text[1] = "other with=arguments";
		g.source.nr_initrds = 2;
		assert_int_equal(guest_load(&g, image, header_end), 0);
		assert_int_equal(g.state.gpr[R_AX], 0x36d76289);
		assert_int_equal(g.state.cr0 & (CR0_PE | CR0_PG), CR0_PE);
		assert_int_equal(g.state.rip, PADDR + 16);
		assert_memory_equal(at(&g, PADDR, 64), image + ELF_CODE_OFFSET, 64);

		assert_string_equal((char *)info(&g, 1, 0) + 8, "kernel a=b c");
		assert_string_equal((char *)info(&g, 2, 0) + 8, "bothy");
		p = info(&g, 3, 0);
		assert_string_equal((char *)p + 16, "mod");
		assert_int_equal(ld32(p + 8) % 4096, 0);
		assert_int_equal(ld32(p + 12) - ld32(p + 8), sizeof(module));
		assert_memory_equal(at(&g, ld32(p + 8), sizeof(module)), module, sizeof(module));
		assert_string_equal((char *)info(&g, 3, 1) + 16, "other with=arguments");
		assert_null(info(&g, 3, 2));
		p = info(&g, 4, 0);
		assert_int_equal(ld32(p + 8), 0x9f000 / 1024);
		assert_int_equal(ld32(p + 12), 15 * 1024);
		p = info(&g, 6, 0);
		assert_int_equal(ld32(p + 4), 16 + 24 * g.map.nr);
		assert_int_equal(ld32(p + 8), 24);
		for (unsigned i = 0; i < g.map.nr; i++) {
			assert_int_equal(ld64(p + 16 + 24 * i), g.map.entry[i].start);
			assert_int_equal(ld64(p + 24 + 24 * i), g.map.entry[i].len);
			assert_int_equal(ld32(p + 32 + 24 * i), g.map.entry[i].type);
		}
		p = info(&g, 8, 0); /* text */
		assert_int_equal(ld64(p + 8), 0xb8000);
		assert_int_equal(p[29], 2);
		assert_int_equal(video.width, 0);
		assert_memory_equal(info(&g, 14, 0) + 8, "RSD PTR 0123456789ab", 20);
		assert_memory_equal(info(&g, 15, 0) + 8, "RSD PTR 0123456789abcdefghijklmnopqr", 36);
		assert_int_equal(ld32(info(&g, 15, 0) + 4), 44);
		assert_null(info(&g, 21, 0));
		assert_null(info(&g, 11, 0));
		/* What a BIOS's loader leaves: memory size, and calls that are refused. */
		assert_int_equal(ld16(at(&g, 0x413, 2)), 0x9f000 / 1024);
		assert_int_equal(*at(&g, ld16(at(&g, 4 * 0x15, 2)), 1), 0x55);
		guest_fini(&g);
	}
}

static void loads_by_addresses(void **state)
{
	struct guest g;

	memset(image, 0x11, 32768);
	begin(32768 - 512);
	TAG(2, 0, MiB + 32768 - 512, MiB, MiB + 33000, MiB + 40000);
	TAG(3, 0, MiB + 8);
	finish();
	up(&g);
	assert_int_equal(guest_load(&g, image, 40000), 0);
	assert_int_equal(g.state.rip, MiB + 8);
	assert_memory_equal(at(&g, MiB, 33000), image, 33000);
	assert_int_equal(*at(&g, MiB + 33001, 1), 0);
	assert_null(info(&g, 9, 0));
	guest_fini(&g);
}

static void relocates(void **state)
{
	static const struct {
		u32 min, max, align, preference, base;
	} rows[] = {
		{ 0x100000, 0xffffffff, 0x1000, 0, PADDR },      /* where it is linked */
		{ 0x100000, 0xffffffff, 0x1000, 1, 0x100000 },   /* low */
		{ 0x100000, 0xffffffff, 0x200000, 2, 0xe00000 }, /* high: the end of 16 MiB */
		{ 0x800000, 0xffffffff, 0x200000, 0, 0x800000 }, /* it cannot stay */
		{ 0x100000, 0x4fffff, 0x100000, 2, 0x400000 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		size_t len = make_elf(image, false, PADDR, 0);
		struct guest g;

		begin((u32)ALIGN_UP(len, 8ul));
		TAG(10, 0, rows[i].min, rows[i].max, rows[i].align, rows[i].preference);
		finish();
		up(&g);
		assert_int_equal(guest_load(&g, image, header_end), 0);
		assert_int_equal(ld32(info(&g, 21, 0) + 8), rows[i].base);
		assert_int_equal(g.state.rip, rows[i].base + 16);
		assert_memory_equal(at(&g, rows[i].base, 64), image + ELF_CODE_OFFSET, 64);
		guest_fini(&g);
	}
}

static void gives_a_frame_buffer(void **state)
{
	static const struct {
		u32 width, height, depth, console;
		u32 want_width, want_height; /* 0: text */
	} rows[] = {
		{ 800, 600, 32, 2, 800, 600 },
		{ 0, 0, 32, 2, 1024, 768 },
		{ 0, 0, 0, 2, 0, 0 },              /* no preference, and text is fine */
		{ 0, 0, 0, 1, 1024, 768 },         /* a console is required, text is not understood */
		{ 1023, 5000, 16, 0, 1016, 1200 }, /* the nearest there is */
		{ 0xffffffff, 1, 24, 0, 1920, 64 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		size_t len = make_elf(image, false, PADDR, 0);
		struct guest g;
		u8 *p;

		begin((u32)ALIGN_UP(len, 8ul));
		TAG(4, 0, rows[i].console);
		TAG(5, 0, rows[i].width, rows[i].height, rows[i].depth);
		finish();
		up(&g);
		assert_int_equal(guest_load(&g, image, header_end), 0);
		p = info(&g, 8, 0);
		assert_int_equal(video.width, rows[i].want_width);
		assert_int_equal(video.height, rows[i].want_height);
		assert_int_equal(p[29], rows[i].want_width ? 1 : 2);
		if (rows[i].want_width) {
			assert_int_equal(ld64(p + 8), 0xdf000000);
			assert_int_equal(ld32(p + 16), video.width * 4);
			assert_int_equal(p[28], 32);
			assert_memory_equal(p + 32, "\x10\x08\x08\x08\x00\x08", 6);
		}
		guest_fini(&g);
	}
}

static void board_without_a_screen(void **state)
{
	/* A kernel that does not insist, and one that does. */
	for (u32 required = 0; required < 2; required++) {
		size_t len = make_elf(image, false, PADDR, 0);
		struct guest g;

		begin((u32)ALIGN_UP(len, 8ul));
		TAG(4, 0, 2 | required);
		TAG(5, 0, 800, 600, 32);
		finish();
		up(&g);
		g.target.vga = false;
		g.target.frame_buffer = 0;
		assert_int_equal(guest_load(&g, image, header_end), required ? -ENOTSUP : 0);
		if (required) {
			assert_non_null(strstr(g.err.msg, "--vga none"));
		} else {
			assert_null(info(&g, 8, 0));
			assert_int_equal(*at(&g, 0x449, 1), 0); /* BIOS data: the mode */
		}
		guest_fini(&g);
	}
}

/* Symbols, which no segment loads, are loaded and told about. */
static void loads_sections(void **state)
{
	size_t len = ALIGN_UP(make_elf(image, false, PADDR, 0), 8ul);
	Elf32_Shdr sections[3] = {
		{ 0 },
		{ .sh_type = SHT_PROGBITS, .sh_addr = PADDR, .sh_offset = ELF_CODE_OFFSET, .sh_size = 64 },
		{ .sh_type = SHT_STRTAB, .sh_offset = (u32)len + 256, .sh_size = 20 },
	};
	struct guest g;
	u8 *p;

	begin((u32)len);
	finish();
	memcpy(image + len + 256, "symbols and strings", 20);
	memcpy(image + len + 512, sections, sizeof(sections));
	st32(image + offsetof(Elf32_Ehdr, e_shoff), (u32)len + 512);
	st16(image + offsetof(Elf32_Ehdr, e_shentsize), sizeof(Elf32_Shdr));
	st16(image + offsetof(Elf32_Ehdr, e_shnum), 3);
	st16(image + offsetof(Elf32_Ehdr, e_shstrndx), 2);
	up(&g);
	assert_int_equal(guest_load(&g, image, len + 512 + sizeof(sections)), 0);
	p = info(&g, 9, 0);
	assert_int_equal(ld32(p + 8), 3);
	assert_int_equal(ld32(p + 12), sizeof(Elf32_Shdr));
	assert_int_equal(ld32(p + 16), 2);
	memcpy(sections, p + 20, sizeof(sections));
	assert_int_equal(sections[1].sh_addr, PADDR);
	assert_string_equal((char *)at(&g, sections[2].sh_addr, 20), "symbols and strings");
	/* A table that is not all in the file is not given. */
	guest_fini(&g);
	up(&g);
	assert_int_equal(guest_load(&g, image, len + 512 + sizeof(sections) - 1), 0);
	assert_null(info(&g, 9, 0));
	guest_fini(&g);
}

static void refuse(size_t len, const char *why)
{
	struct guest g;

	up(&g);
	if (guest_load(&g, image, len) == 0)
		fail_msg("taken, not refused because of '%s'", why);
	if (!strstr(g.err.msg, why))
		fail_msg("'%s' does not say '%s'", g.err.msg, why);
	guest_fini(&g);
}

static void refuses_a11(void **state)
{
	size_t len = ALIGN_UP(make_elf(image, false, PADDR, 0), 8ul);

#define REFUSED(why, ...)                \
	do {                             \
		begin((u32)len);         \
		__VA_ARGS__;             \
		finish();                \
		refuse(header_end, why); \
	} while (0)
	REFUSED("boot information of type 99", TAG(1, 0, 4, 99));
	REFUSED("type 12, which bothy does not have (it is EFI's)", TAG(1, 0, 12));
	REFUSED("header tag 11", TAG(11, 0, 0));
	REFUSED("too short for its type", TAG(2, 0, 1));
	REFUSED("no entry address", TAG(2, 0, 0x100000, 0x100000, 0x100100, 0));
	REFUSED("no power of two", TAG(10, 0, 0, 0xffffffff, 3, 0));
	REFUSED("above the highest", TAG(10, 0, 0x200000, 0x1fffff, 4096, 0));
	REFUSED("no such memory free", TAG(10, 0, 0x1000000, 0xffffffff, 4096, 1));
	REFUSED("no RAM of the guest", TAG(2, 0, 0xf0000000, 0xf0000000, 0, 0xf0001000),
		TAG(3, 0, 0xf0000000));
	REFUSED("puts itself at", TAG(2, 0, 0x100000, 0x100004, 0, 0), TAG(3, 0, 0x100000));

	begin((u32)len);
	TAG(6, 0, 0);
	seal();
	refuse(header_end, "the end tag is missing");
	begin((u32)len);
	finish();
	st32(image + len + 20, 7); /* the end tag's size */
	refuse(header_end, "impossible length");
	st32(image + len + 20, 8);
	st32(image + len + 4, 4); /* MIPS */
	st32(image + len + 12, 0 - 0xe85250d6 - 4 - ld32(image + len + 8));
	refuse(header_end, "architecture 4");
	begin((u32)len);
	finish();
	put_multiboot2(image, (u32)len, 100000);
	refuse(header_end, "length reaches beyond");
	memset(image, 0, sizeof(image)); /* no ELF file, which could be started by its PVH entry */
	begin(64);
	finish();
	image[64 + 12] ^= 1;
	refuse(4096, "check sum is wrong");
	/* Where no loader looks. */
	memset(image, 0, sizeof(image));
	begin(4);
	finish();
	refuse(4096, "offset 0x4 of the file, which is no multiple of 8");
	memset(image, 0, sizeof(image));
	begin(32768);
	finish();
	refuse(40000, "first 32 KiB");
	memset(image, 0, sizeof(image));
	begin(64);
	finish();
	refuse(4096, "no ELF file");
}

/* The newer version is taken; a header of the older one alone still is. */
static void prefers_the_newer(void **state)
{
	size_t len = ALIGN_UP(make_elf(image, false, PADDR, 0), 8ul);
	struct guest g;

	put_multiboot(image, (u32)len, 0, NULL);
	begin((u32)len + 16);
	finish();
	put_multiboot(image, (u32)len, 0, NULL);
	up(&g);
	assert_int_equal(guest_load(&g, image, header_end), 0);
	assert_int_equal(g.state.gpr[R_AX], 0x36d76289);
	guest_fini(&g);
	image[len + 16] ^= 1;
	up(&g);
	assert_int_equal(guest_load(&g, image, header_end), 0);
	assert_int_equal(g.state.gpr[R_AX], 0x2badb002);
	guest_fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loads_elf),
		cmocka_unit_test(loads_by_addresses),
		cmocka_unit_test(relocates),
		cmocka_unit_test(gives_a_frame_buffer),
		cmocka_unit_test(board_without_a_screen),
		cmocka_unit_test(loads_sections),
		cmocka_unit_test(refuses_a11),
		cmocka_unit_test(prefers_the_newer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
