/* Multiboot 1 images: by addresses and by ELF, the boot information, modules, and headers that lie. */
#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

#include "boot_images.h"

#define PADDR 0x400000

static u8 image[16384];

static u8 *at(struct guest *g, gpa_t gpa, u64 len)
{
	u8 *p = ram_ptr(&g->ram, gpa, len);

	assert_non_null(p);
	return p;
}

static void check_state(struct guest *g)
{
	assert_int_equal(g->state.gpr[R_AX], 0x2badb002);
	assert_int_equal(g->state.cr0 & (CR0_PE | CR0_PG), CR0_PE);
	assert_int_equal(g->state.cr4, 0);
	assert_int_equal(g->state.efer, 0);
	assert_int_equal(g->state.rflags & (FL_IF | FL_VM), 0);
	for (unsigned i = 0; i < X86_NR_SEG; i++) {
		assert_int_equal(g->state.seg[i].base, 0);
		assert_int_equal(g->state.seg[i].limit, 0xffffffff);
		assert_int_equal(g->state.seg[i].attr & SA_TYPE, i == SEG_CS ? 0xb : 0x3);
		assert_true(g->state.seg[i].attr & SA_DB);
	}
}

static void loads_elf(void **state)
{
	static u8 env[100], second[4097];

	/* The third one is linked for high virtual addresses: the entry is a physical one all the same. */
	for (int i = 0; i < 3; i++) {
		u64 shift = i == 2 ? 0xffffffff80000000ull : 0;
		struct guest g;
		size_t len = make_elf(image, i > 0, PADDR, shift);
		u8 *info, *p;
		u32 mmap, off;
		unsigned n = 0;

		memset(image + len, 0, 64);
		put_multiboot(image, (u32)len, 0, NULL);
		len += 64;
		memset(env, 'e', sizeof(env));
		memset(second, 's', sizeof(second));
		assert_int_equal(guest_init(&g, 16 * MiB), 0);
		g.source.append = "a b";
		g.source.initrd[0] = guest_file("env", env, sizeof(env));
		g.source.initrd[1] = guest_file("second", second, sizeof(second));
		g.source.nr_initrds = 2;
		assert_int_equal(guest_load(&g, image, len), 0);
		check_state(&g);
		assert_int_equal(g.state.rip, PADDR + 16);
		assert_memory_equal(at(&g, PADDR, 64), image + ELF_CODE_OFFSET, 64);

		info = at(&g, g.state.gpr[R_BX], 120);
		assert_int_equal(ld32(info), 1 | 4 | 8 | 0x40 | 0x200);
		assert_int_equal(ld32(info + 4), 0x9f000 / 1024);
		assert_int_equal(ld32(info + 8), 15 * 1024);
		assert_string_equal((char *)at(&g, ld32(info + 16), 11), "kernel a b");
		assert_int_equal(ld32(info + 20), 2);
		assert_string_equal((char *)at(&g, ld32(info + 64), 6), "bothy");

		/* Modules right behind the kernel, on page boundaries. */
		p = at(&g, ld32(info + 24), 32);
		assert_int_equal(ld32(p), PADDR + 0x2000);
		assert_int_equal(ld32(p + 4) - ld32(p), 100);
		assert_memory_equal(at(&g, ld32(p), 100), env, 100);
		assert_string_equal((char *)at(&g, ld32(p + 8), 4), "env");
		assert_int_equal(ld32(p + 16), PADDR + 0x3000);
		assert_memory_equal(at(&g, ld32(p + 16), 4097), second, 4097);
		assert_string_equal((char *)at(&g, ld32(p + 24), 7), "second");

		mmap = ld32(info + 48);
		for (off = 0; off < ld32(info + 44); off += ld32(p) + 4, n++) {
			p = at(&g, mmap + off, 24);
			assert_int_equal(ld32(p), 20);
			assert_int_equal(ld64(p + 4), g.map.entry[n].start);
			assert_int_equal(ld64(p + 12), g.map.entry[n].len);
			assert_int_equal(ld32(p + 20), g.map.entry[n].type);
		}
		assert_int_equal(off, ld32(info + 44));
		assert_int_equal(n, g.map.nr);
		guest_fini(&g);
	}
}

static void loads_by_addresses(void **state)
{
	/* The header at file offset 100 says that it is at load + 36, so loading starts at offset 64. */
	const u32 addr[5] = { MiB + 36, MiB, MiB + 1000, MiB + 9000, MiB + 77 };
	const u32 open_end[5] = { MiB + 36, MiB, 0, 0, MiB + 77 };
	struct guest g;
	u8 *info;

	for (unsigned i = 0; i < sizeof(image); i++)
		image[i] = (u8)(i * 5);
	put_multiboot(image, 100, BIT(16) | 7, addr);
	assert_int_equal(guest_init(&g, 4 * MiB), 0);
	g.source.append = "";
	assert_int_equal(guest_load(&g, image, 5000), 0);
	check_state(&g);
	assert_int_equal(g.state.rip, MiB + 77);
	assert_memory_equal(at(&g, MiB, 1000), image + 64, 1000);
	assert_int_equal(*at(&g, MiB + 1000, 1), 0);
	info = at(&g, g.state.gpr[R_BX], 120);
	assert_string_equal((char *)at(&g, ld32(info + 16), 7), "kernel");
	assert_int_equal(ld32(info + 20), 0);
	guest_fini(&g);

	put_multiboot(image, 100, BIT(16), open_end);
	assert_int_equal(guest_init(&g, 4 * MiB), 0);
	assert_int_equal(guest_load(&g, image, 5000), 0);
	assert_memory_equal(at(&g, MiB, 5000 - 64), image + 64, 5000 - 64);
	guest_fini(&g);
}

/* A kernel that fills low memory pushes everything else elsewhere. */
static void gives_way_in_low_memory(void **state)
{
	const u32 addr[5] = { 0x1000, 0x1000, 0x9000, 0x9d000, 0x1000 };
	struct guest g;
	u8 *info;

	memset(image, 0x55, sizeof(image));
	put_multiboot(image, 0, BIT(16), addr);
	assert_int_equal(guest_init(&g, 4 * MiB), 0);
	assert_int_equal(guest_load(&g, image, sizeof(image)), -ENOEXEC); /* shorter than it says */
	st32(image + 20, 0x1000 + sizeof(image));
	assert_int_equal(guest_load(&g, image, sizeof(image)), 0);
	info = at(&g, g.state.gpr[R_BX], 120);
	assert_true(g.state.gpr[R_BX] >= 0x9d000);
	assert_true(ld32(info + 16) >= 0x9d000);
	assert_true(g.state.gdtr.base >= 0x9d000);
	assert_memory_equal(at(&g, 0x1000, sizeof(image)), image, sizeof(image));
	guest_fini(&g);
}

static int load_addresses(const u32 addr[5], u32 flags, size_t len, char *ret_msg)
{
	struct guest g;
	int r;

	memset(image, 0x11, sizeof(image));
	put_multiboot(image, 64, flags, addr);
	assert_int_equal(guest_init(&g, 4 * MiB), 0);
	r = guest_load(&g, image, len);
	strcpy(ret_msg, g.err.msg);
	guest_fini(&g);
	return r;
}

static void refuses_a11(void **state)
{
	static const struct {
		const char *name, *says;
		u32 addr[5];
		u32 flags;
	} rows[] = {
		{ "header below load", "damaged", { MiB, MiB + 4, 0, 0, MiB }, BIT(16) },
		{ "begins before the file", "damaged", { MiB + 65, MiB, 0, 0, MiB }, BIT(16) },
		{ "load end below load", "truncated", { MiB, MiB, MiB - 1, 0, MiB }, BIT(16) },
		{ "load end behind the file", "truncated", { MiB, MiB, MiB + 4096 - 63, 0, MiB }, BIT(16) },
		{ "load end at the top", "truncated", { MiB, MiB, 0xffffffff, 0, MiB }, BIT(16) },
		{ "bss before data", "bss", { MiB, MiB, MiB + 100, MiB + 99, MiB }, BIT(16) },
		{ "bss below load", "bss", { MiB, MiB, MiB + 100, 5, MiB }, BIT(16) },
		{ "bss beyond RAM", "no RAM", { MiB, MiB, MiB + 100, 4 * MiB + 1, MiB }, BIT(16) },
		{ "in ROM", "no RAM", { 0xe0000, 0xe0000, 0xe0010, 0, 0xe0000 }, BIT(16) },
		{ "at the top", "no RAM", { 0xfffffff0, 0xfffffff0, 0, 0, 0xfffffff0 }, BIT(16) },
		{ "unknown requirement", "requires Multiboot features", { 0 }, BIT(5) },
		{ "no addresses, no ELF", "no ELF file", { 0 }, 0 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		char msg[sizeof(((struct err *)0)->msg)];
		int r = load_addresses(rows[i].flags & BIT(16) ? rows[i].addr : NULL, rows[i].flags, 4096,
				       msg);

		if (r >= 0 || !strstr(msg, rows[i].says))
			fail_msg("%s: %d \"%s\", wanted \"%s\"", rows[i].name, r, msg, rows[i].says);
	}
}

static void header_is_found_where_it_counts(void **state)
{
	const u32 addr[5] = { 4 * MiB, 4 * MiB, 0, 0, 4 * MiB };
	struct guest g;

	assert_int_equal(guest_init(&g, 16 * MiB), 0);
	/* The last place in the first 8 KiB that holds all of it, and the one behind. */
	for (int i = 0; i < 2; i++) {
		int r;

		memset(image, 0, sizeof(image));
		put_multiboot(image, 8192 - 32 + 4 * i, BIT(16), addr);
		r = guest_load(&g, image, sizeof(image));
		assert_int_equal(r, i ? -ENOEXEC : 0);
	}
	guest_fini(&g);
	/* A wrong checksum, an odd place. */
	assert_int_equal(guest_init(&g, 16 * MiB), 0);
	memset(image, 0, sizeof(image));
	put_multiboot(image, 16, BIT(16), addr);
	image[24]++;
	assert_true(guest_load(&g, image, sizeof(image)) < 0);
	memset(image, 0, sizeof(image));
	put_multiboot(image, 18, BIT(16), addr);
	assert_true(guest_load(&g, image, sizeof(image)) < 0);
	guest_fini(&g);
}

static void module_must_fit(void **state)
{
	const u32 addr[5] = { MiB, MiB, 0, 0, MiB };
	static u8 module[3 * MiB];
	struct guest g;

	memset(image, 0, sizeof(image));
	put_multiboot(image, 0, BIT(16), addr);
	assert_int_equal(guest_init(&g, 4 * MiB), 0);
	g.source.initrd[0] = guest_file("mod", module, sizeof(module));
	g.source.nr_initrds = 1;
	assert_int_equal(guest_load(&g, image, 4096), -ENOMEM);
	assert_non_null(strstr(g.err.msg, "module mod (3 MiB)"));
	guest_fini(&g);
	assert_int_equal(guest_init(&g, 4 * MiB), 0);
	g.source.initrd[0] = guest_file("mod", module, sizeof(module) - 4096);
	g.source.nr_initrds = 1;
	assert_int_equal(guest_load(&g, image, 4096), 0);
	guest_fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loads_elf),
		cmocka_unit_test(loads_by_addresses),
		cmocka_unit_test(gives_way_in_low_memory),
		cmocka_unit_test(refuses_a11),
		cmocka_unit_test(header_is_found_where_it_counts),
		cmocka_unit_test(module_must_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
