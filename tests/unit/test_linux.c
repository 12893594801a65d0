/* The bzImage loader: what lands where, the first state, and images that lie. */
#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "boot_images.h"

#define KERNEL_LEN 0x10000

static u8 image[BZ_SETUP + KERNEL_LEN];

static u8 *at(struct guest *g, gpa_t gpa, u64 len)
{
	u8 *p = ram_ptr(&g->ram, gpa, len);

	assert_non_null(p);
	return p;
}

/* Translates a linear address by the page tables that the loader built (2 MiB pages). */
static u64 walk(struct guest *g, u64 gva)
{
	u64 table = g->state.cr3, e = 0;

	for (int level = 3; level >= 1; level--) {
		e = ld64(at(g, (table & ~0xfffull) + (gva >> (12 + 9 * level) & 511) * 8, 8));
		assert_true(e & PTE_P);
		assert_true(e & PTE_W);
		table = e & 0x000ffffffffff000ull;
	}
	assert_true(e & PTE_PS);
	return table | (gva & 0x1fffff);
}

static void loads_64_bit(void **state)
{
	struct guest g;
	size_t len = make_bzimage(image, KERNEL_LEN);
	u8 *zp, *p;

	assert_int_equal(guest_init(&g, 64 * MiB), 0);
	assert_int_equal(guest_load(&g, image, len), 0);
	assert_int_equal(g.state.rip, BZ_PREF + 0x200);
	assert_memory_equal(at(&g, BZ_PREF, KERNEL_LEN), image + BZ_SETUP, KERNEL_LEN);

	assert_int_equal(g.state.seg[SEG_CS].sel, 0x10);
	assert_true(g.state.seg[SEG_CS].attr & SA_L);
	assert_false(g.state.seg[SEG_CS].attr & SA_DB);
	for (unsigned i = 0; i < X86_NR_SEG; i++)
		if (i != SEG_CS)
			assert_int_equal(g.state.seg[i].sel, 0x18);
	assert_int_equal(g.state.cr0 & (CR0_PE | CR0_PG), CR0_PE | CR0_PG);
	assert_true(g.state.cr4 & CR4_PAE);
	assert_int_equal(g.state.efer, EFER_LME | EFER_LMA);
	assert_int_equal(g.state.rflags, FL_RES1);
	assert_int_equal(g.state.activity, X86_ACTIVE);
	for (u64 gva = 0; gva < 4 * GiB; gva += 2 * MiB)
		assert_int_equal(walk(&g, gva + 0x1234), gva + 0x1234);

	/* The descriptors in memory say the same as the hidden parts. */
	p = at(&g, g.state.gdtr.base, g.state.gdtr.limit + 1u);
	assert_int_equal(ld64(p), 0);
	assert_int_equal(ld64(p + 0x10), 0x00af9b000000ffff);
	assert_int_equal(ld64(p + 0x18), 0x00cf93000000ffff);
	assert_int_equal(g.state.tr.sel, 0x20);
	assert_int_equal(ld64(p + 0x20) >> 16 & 0xffffff, g.state.tr.base);

	zp = at(&g, g.state.gpr[R_SI], 4096);
	assert_memory_equal(zp + 0x202, "HdrS", 4);
	assert_int_equal(zp[0x210], 0xff);
	assert_string_equal((char *)at(&g, ld32(zp + 0x228), 14), "console=ttyS0");
	assert_int_equal(ld64(zp + 0x70), GUEST_RSDP);
	/* Mode 3, 80 columns, an EGA or VGA, 25 lines, a VGA, 16 scan lines in a character. */
	assert_memory_equal(zp, "\0\0\0\0\0\0\3\120\0\0\3\0\0\0\31\1\20\0", 18);
	assert_int_equal(zp[0x1e8], g.map.nr);
	for (unsigned i = 0; i < g.map.nr; i++) {
		assert_int_equal(ld64(zp + 0x2d0 + 20 * i), g.map.entry[i].start);
		assert_int_equal(ld64(zp + 0x2d0 + 20 * i + 8), g.map.entry[i].len);
		assert_int_equal(ld32(zp + 0x2d0 + 20 * i + 16), g.map.entry[i].type);
	}
	assert_int_equal(ld32(zp + 0x218), 0);
	/* The seed for random numbers: one entry of type 9, 32 bytes. */
	p = at(&g, ld64(zp + 0x250), 48);
	assert_int_equal(ld64(p), 0);
	assert_int_equal(ld32(p + 8), 9);
	assert_int_equal(ld32(p + 12), 32);
	/* The command line of the header is the only part of it that may point anywhere. */
	for (unsigned i = 0x290; i < 0x2d0; i++)
		assert_int_equal(zp[i], 0);
	guest_fini(&g);
}

static void loads_32_bit(void **state)
{
	struct guest g;
	size_t len = make_bzimage(image, KERNEL_LEN);

	/* A CPU without long mode, then a kernel without the entry and a board without a VGA. */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(guest_init(&g, 64 * MiB), 0);
		if (i == 0)
			g.target.long_mode = false;
		else
			st16(image + 0x236, 0);
		g.target.vga = i == 0;
		assert_int_equal(guest_load(&g, image, len), 0);
		assert_int_equal(g.state.rip, BZ_PREF);
		assert_int_equal(g.state.cr0 & (CR0_PE | CR0_PG), CR0_PE);
		assert_int_equal(g.state.efer, 0);
		assert_true(g.state.seg[SEG_CS].attr & SA_DB);
		assert_false(g.state.seg[SEG_CS].attr & SA_L);
		assert_int_equal(g.state.gpr[R_BP] | g.state.gpr[R_DI] | g.state.gpr[R_BX], 0);
		assert_int_equal(ld64(at(&g, g.state.gdtr.base + 0x10, 8)), 0x00cf9b000000ffff);
		assert_memory_equal(at(&g, g.state.gpr[R_SI], 4096) + 0x202, "HdrS", 4);
		assert_int_equal(at(&g, g.state.gpr[R_SI], 4096)[0xf], i == 0); /* orig_video_isVGA */
		guest_fini(&g);
	}
}

static void loads_old_protocol(void **state)
{
	struct guest g;
	size_t len = make_bzimage(image, KERNEL_LEN);
	u8 *zp;

	/* Protocol 2.03 has neither syssize of 32 bits nor a preferred address, and its header ends early. */
	st16(image + 0x206, 0x203);
	image[0x201] = 0x2e;
	st32(image + 0x1f4, 0xffffffff);
	assert_int_equal(guest_init(&g, 16 * MiB), 0);
	assert_int_equal(guest_load(&g, image, len), 0);
	assert_int_equal(g.state.rip, MiB);
	zp = at(&g, g.state.gpr[R_SI], 4096);
	assert_int_equal(ld64(zp + 0x250), 0);
	assert_int_equal(ld32(zp + 0x230), 0); /* not copied: behind its end */
	guest_fini(&g);
}

static void places_initrds(void **state)
{
	struct guest g;
	size_t len = make_bzimage(image, KERNEL_LEN);
	static u8 a[5001], b[300];
	u32 start, size;
	u8 *zp, *p;

	memset(a, 1, sizeof(a));
	memset(b, 2, sizeof(b));
	assert_int_equal(guest_init(&g, 64 * MiB), 0);
	g.source.initrd[0] = guest_file("a", a, sizeof(a));
	g.source.initrd[1] = guest_file("b", b, sizeof(b));
	g.source.nr_initrds = 2;
	assert_int_equal(guest_load(&g, image, len), 0);
	zp = at(&g, g.state.gpr[R_SI], 4096);
	start = ld32(zp + 0x218);
	size = ld32(zp + 0x21c);
	assert_int_equal(size, 5004 + 300);
	assert_int_equal(start % 4096, 0);
	assert_int_equal(start, 64 * MiB - 8192);
	p = at(&g, start, size);
	assert_memory_equal(p, a, sizeof(a));
	assert_int_equal(p[5001] | p[5002] | p[5003], 0);
	assert_memory_equal(p + 5004, b, sizeof(b));
	guest_fini(&g);

	/* The kernel's limit holds, wherever memory ends. */
	st32(image + 0x22c, 0x1fffff + BZ_PREF + BZ_INIT);
	assert_int_equal(guest_init(&g, 64 * MiB), 0);
	g.source.initrd[0] = guest_file("a", a, sizeof(a));
	g.source.nr_initrds = 1;
	assert_int_equal(guest_load(&g, image, len), 0);
	start = ld32(at(&g, g.state.gpr[R_SI], 4096) + 0x218);
	assert_int_equal(start, BZ_PREF + BZ_INIT + 0x200000 - 8192);
	guest_fini(&g);
}

/* As places_initrds, but the images are in files. */
static void leaves_images_in_files(void **state)
{
	struct guest g;
	size_t len = make_bzimage(image, KERNEL_LEN);
	int fd = memfd_create("kernel", MFD_CLOEXEC), initrd = memfd_create("initrd", MFD_CLOEXEC);
	u32 start;

	assert_int_equal(write(fd, image, len), len);
	assert_int_equal(write(initrd, "an initrd", 9), 9);
	assert_int_equal(guest_init(&g, 64 * MiB), 0);
	g.source.kernel = (struct boot_file){ "kernel", image, len, true, fd };
	g.source.initrd[0] = (struct boot_file){ "initrd", NULL, 9, true, initrd };
	g.source.nr_initrds = 1;
	assert_true(boot_head_is_enough(&g.source.kernel));
	/* Nothing behind the head is looked at. */
	memset(image + BOOT_HEAD, 0, sizeof(image) - BOOT_HEAD);
	assert_int_equal(boot_load(&g.source, &g.target, &g.state, &g.err), 0);
	make_bzimage(image, KERNEL_LEN);
	assert_memory_equal(at(&g, BZ_PREF, KERNEL_LEN), image + BZ_SETUP, KERNEL_LEN);
	start = ld32(at(&g, g.state.gpr[R_SI], 4096) + 0x218);
	assert_memory_equal(at(&g, start, 9), "an initrd", 9);
	guest_fini(&g);

	assert_int_equal(ftruncate(initrd, 5), 0);
	assert_int_equal(guest_init(&g, 64 * MiB), 0);
	g.source.kernel = (struct boot_file){ "kernel", image, len, true, fd };
	g.source.initrd[0] = (struct boot_file){ "initrd", NULL, 9, true, initrd };
	g.source.nr_initrds = 1;
	assert_int_equal(boot_load(&g.source, &g.target, &g.state, &g.err), -ENODATA);
	assert_non_null(strstr(g.err.msg, "'initrd' became shorter"));
	guest_fini(&g);
	close(fd);
	close(initrd);
}

/* What each refusal must name, and the change that provokes it. */
struct refusal {
	const char *name, *says;
	void (*spoil)(struct guest *g, size_t *len);
};

static void no_memory(struct guest *g, size_t *len)
{
	st32(image + 0x260, 0x7fffffff);
}
static void init_size_wraps(struct guest *g, size_t *len)
{
	st32(image + 0x260, 0xffffffff);
}
static void pref_high(struct guest *g, size_t *len)
{
	st64(image + 0x258, 0xfffffffffffff000ull);
}
static void pref_rom(struct guest *g, size_t *len)
{
	st64(image + 0x258, 0xe0000);
	image[0x234] = 0;
}
static void pref_zero_page(struct guest *g, size_t *len)
{
	/* All of low memory: nothing is left for the tables. */
	st64(image + 0x258, 0);
	st32(image + 0x260, 0x9f000);
	image[0x234] = 0;
}
static void alignment(struct guest *g, size_t *len)
{
	st32(image + 0x230, 0x30000);
}
static void alignment_zero(struct guest *g, size_t *len)
{
	st32(image + 0x230, 0);
}
static void cut_setup(struct guest *g, size_t *len)
{
	*len = 0x240;
}
static void cut_kernel(struct guest *g, size_t *len)
{
	*len = BZ_SETUP + KERNEL_LEN - 17;
}
static void cut_all(struct guest *g, size_t *len)
{
	*len = BZ_SETUP;
}
static void many_sectors(struct guest *g, size_t *len)
{
	image[0x1f1] = 255;
}
static void syssize_wraps(struct guest *g, size_t *len)
{
	st32(image + 0x1f4, 0xffffffff);
}
static void syssize_zero(struct guest *g, size_t *len)
{
	st32(image + 0x1f4, 0);
}
static void too_small_for_entry(struct guest *g, size_t *len)
{
	st32(image + 0x1f4, 0x20);
}
static void zimage(struct guest *g, size_t *len)
{
	image[0x211] = 0;
}
static void protocol(struct guest *g, size_t *len)
{
	st16(image + 0x206, 0x201);
}
static void cmdline(struct guest *g, size_t *len)
{
	st32(image + 0x238, 12);
}
static void initrd_big(struct guest *g, size_t *len)
{
	static u8 big[64 * MiB];

	g->source.initrd[0] = guest_file("big", big, sizeof(big));
	g->source.nr_initrds = 1;
}
static void initrd_limit(struct guest *g, size_t *len)
{
	static u8 small[100];

	st32(image + 0x22c, 0);
	g->source.initrd[0] = guest_file("small", small, sizeof(small));
	g->source.nr_initrds = 1;
}

static const struct refusal refusals[] = {
	{ "init_size beyond memory", "needs memory up to 2064 MiB", no_memory },
	{ "init_size wraps", "needs memory up to", init_size_wraps },
	{ "preferred address beyond 4 GiB", "prefers the address", pref_high },
	{ "preferred address in ROM", "needs memory", pref_rom },
	{ "takes all low memory", "below 640 KiB is left", pref_zero_page },
	{ "alignment", "no power of two", alignment },
	{ "alignment 0", "no power of two", alignment_zero },
	{ "ends in the header", "truncated", cut_setup },
	{ "ends in the kernel", "truncated: 68079 bytes of 68096", cut_kernel },
	{ "ends behind the setup", "truncated", cut_all },
	{ "setup longer than the file", "truncated", many_sectors },
	{ "syssize wraps", "truncated", syssize_wraps },
	{ "syssize zero", "size is zero", syssize_zero },
	{ "no room for the 64-bit entry", "64-bit entry", too_small_for_entry },
	{ "zImage", "zImage", zimage },
	{ "protocol", "protocol 2.01", protocol },
	{ "command line", "takes at most 12", cmdline },
	{ "initrd too big", "initrd big (64 MiB) does not fit", initrd_big },
	{ "initrd below its limit", "initrd small", initrd_limit },
};

static void refuses_a11(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(refusals); i++) {
		struct guest g;
		size_t len = make_bzimage(image, KERNEL_LEN);
		int r;

		assert_int_equal(guest_init(&g, 64 * MiB), 0);
		refusals[i].spoil(&g, &len);
		r = guest_load(&g, image, len);
		if (r >= 0 || !strstr(g.err.msg, refusals[i].says))
			fail_msg("%s: %d \"%s\", wanted \"%s\"", refusals[i].name, r, g.err.msg,
				 refusals[i].says);
		guest_fini(&g);
	}
}

/* Files that are no bzImage at all. */
static void names_other_files(void **state)
{
	static const struct {
		u32 offset;
		const char *bytes;
		unsigned len;
		const char *says;
	} files[] = {
		{ 0, "hello", 5, "not a kernel that bothy knows" },
		{ 0x38, "ARM\x64", 4, "an arm64 Linux kernel" },
		{ 0x24, "\x18\x28\x6f\x01", 4, "32-bit ARM" },
		{ 0x38, "RSC\x05", 4, "RISC-V" },
		{ 0, "\x1f\x8b\x08", 3, "gzip" },
		{ 0, "070701", 6, "cpio archive" },
		{ 0, "QFI\xfb", 4, "qcow2" },
		{ 0, "#!/bin/sh\n", 10, "script" },
		{ 0x1fe, "\x55\xaa", 2, "boot sector" },
		{ 0, "MZ\x90", 3, "EFI program" },
	};
	static u8 file[1024];
	struct guest g;

	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		memset(file, 0, sizeof(file));
		memcpy(file + files[i].offset, files[i].bytes, files[i].len);
		assert_int_equal(guest_init(&g, 4 * MiB), 0);
		assert_true(guest_load(&g, file, sizeof(file)) < 0);
		if (!strstr(g.err.msg, files[i].says))
			fail_msg("\"%s\", wanted \"%s\"", g.err.msg, files[i].says);
		guest_fini(&g);
	}

	/* An arm64 kernel that is an EFI program which unpacks itself. */
	memset(file, 0, sizeof(file));
	memcpy(file, "MZ\0\0zimg", 8);
	st32(file + 0x3c, 0x80);
	memcpy(file + 0x80, "PE\0\0\x64\xaa", 6);
	assert_int_equal(guest_init(&g, 4 * MiB), 0);
	assert_true(guest_load(&g, file, sizeof(file)) < 0);
	assert_non_null(strstr(g.err.msg, "arm64"));
	/* Its header offset is a stranger's too. */
	st32(file + 0x3c, 0xfffffffe);
	assert_true(guest_load(&g, file, sizeof(file)) < 0);
	assert_true(guest_load(&g, file, 64) < 0);
	assert_true(guest_load(&g, file, 0) < 0);
	assert_non_null(strstr(g.err.msg, "empty"));
	guest_fini(&g);
}

static void fits_where_it_just_fits(void **state)
{
	struct guest g;
	size_t len = make_bzimage(image, KERNEL_LEN);

	assert_int_equal(guest_init(&g, BZ_PREF + BZ_INIT), 0);
	assert_int_equal(guest_load(&g, image, len), 0);
	guest_fini(&g);
	assert_int_equal(guest_init(&g, BZ_PREF + BZ_INIT - 4096), 0);
	assert_int_equal(guest_load(&g, image, len), -ENOMEM);
	guest_fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loads_64_bit),           cmocka_unit_test(loads_32_bit),
		cmocka_unit_test(loads_old_protocol),     cmocka_unit_test(places_initrds),
		cmocka_unit_test(leaves_images_in_files), cmocka_unit_test(refuses_a11),
		cmocka_unit_test(names_other_files),      cmocka_unit_test(fits_where_it_just_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
