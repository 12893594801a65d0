/* Linux kernels in bzImage form, by the Linux/x86 boot protocol.
 *
 * Document: Documentation/x86/boot.rst of Linux 6.1 ("[boot]") and its zero-page.rst, protocol 2.02 to
 * 2.15.
 *
 * A bzImage is a real-mode setup part, whose header says how to load the rest, and the protected-mode
 * kernel behind it. As a 64-bit loader bothy skips the setup part: it copies the setup header into a page
 * of boot parameters (the "zero page"), adds what the setup code would have asked the firmware for (the
 * memory map, where the ACPI tables are, the screen's mode), and enters the protected-mode kernel: at its start in 32-bit
 * mode, or 200H behind it in 64-bit mode when the kernel has that entry and the CPU model long mode. The
 * kernel goes to the address it prefers; initrds go behind each other as high as it allows. From protocol
 * 2.09 on the kernel also gets a seed for its random numbers.
 *
 * Every field of the header is a stranger's: sizes are compared with the file, addresses with the guest's
 * memory, before they are used. The header is copied to a zero-filled buffer first, so that fields of a
 * short header read as zero.
 *
 * Omitted: zImages (loaded low; nobody has made them since 2.6.30), the real-mode and EFI entries, loading
 * above 4 GiB. Main thread only.
 */
#include "boot/linux.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#include "base/bits.h"

/* Offsets in the file and in the zero page alike [boot: the real-mode kernel header]. */
enum {
	HDR_SETUP_SECTS = 0x1f1,
	HDR_SYSSIZE = 0x1f4,
	HDR_VID_MODE = 0x1fa,
	HDR_BOOT_FLAG = 0x1fe,
	HDR_JUMP_LEN = 0x201, /* the header ends this many bytes behind 202H */
	HDR_MAGIC = 0x202,
	HDR_VERSION = 0x206,
	HDR_TYPE_OF_LOADER = 0x210,
	HDR_LOADFLAGS = 0x211,
	HDR_CODE32_START = 0x214,
	HDR_RAMDISK_IMAGE = 0x218,
	HDR_RAMDISK_SIZE = 0x21c,
	HDR_CMD_LINE_PTR = 0x228,
	HDR_INITRD_ADDR_MAX = 0x22c,
	HDR_KERNEL_ALIGNMENT = 0x230,
	HDR_RELOCATABLE = 0x234,
	HDR_XLOADFLAGS = 0x236,
	HDR_CMDLINE_SIZE = 0x238,
	HDR_SETUP_DATA = 0x250,
	HDR_PREF_ADDRESS = 0x258,
	HDR_INIT_SIZE = 0x260,
	HDR_END = 0x290, /* of the room for it in the zero page */
};

/* In the zero page only; SI is struct screen_info. */
enum {
	ZP_SI_VIDEO_MODE = 0x006,
	ZP_SI_COLUMNS = 0x007,
	ZP_SI_EGA_BX = 0x00a,
	ZP_SI_LINES = 0x00e,
	ZP_SI_IS_VGA = 0x00f,
	ZP_SI_POINTS = 0x010,
	ZP_ACPI_RSDP_ADDR = 0x070,
	ZP_E820_ENTRIES = 0x1e8,
	ZP_E820_TABLE = 0x2d0, /* entries of 20 bytes */
};

#define HDR_MAGIC_VALUE      0x53726448 /* "HdrS" */
#define LOADED_HIGH          BIT(0)
#define XLF_KERNEL_64        BIT(0)
#define XLF_ABOVE_4G         BIT(1)
#define LOADER_UNDEFINED     0xff
#define VID_MODE_NORMAL      0xffff
#define KERNEL_LOW           MiB
#define ENTRY_64             0x200
#define SETUP_RNG_SEED       9
#define RNG_SEED_LEN         32
#define DEFAULT_CMDLINE_SIZE 255
#define DEFAULT_INITRD_MAX   0x37ffffff

bool linux_match(const struct boot_file *k)
{
	return k->len >= HDR_MAGIC + 4 && ld32(k->data + HDR_MAGIC) == HDR_MAGIC_VALUE &&
	       ld16(k->data + HDR_BOOT_FLAG) == 0xaa55;
}

/* Where the protected-mode kernel goes. */
static int place_kernel(const struct boot_file *k, const u8 *hdr, u64 size, struct boot_space *space,
			gpa_t *ret_load, struct err *err)
{
	u16 version = ld16(hdr + HDR_VERSION);
	u64 align = 1, need = size, at = KERNEL_LOW;
	char need_text[32], have_text[32];

	if (version >= 0x205 && hdr[HDR_RELOCATABLE]) {
		align = ld32(hdr + HDR_KERNEL_ALIGNMENT);
		if (!bits_is_pow2(align))
			return err_set(err, -ENOEXEC,
				       "kernel %s is damaged: its alignment is %#llx, no power of two",
				       k->path, (unsigned long long)align);
	}
	if (version >= 0x20a) {
		at = ld64(hdr + HDR_PREF_ADDRESS);
		need = MAX(need, ld32(hdr + HDR_INIT_SIZE));
		if (at >= RAM_HOLE_END)
			return err_set(err, -ENOEXEC, "kernel %s is damaged: it prefers the address %#llx",
				       k->path, (unsigned long long)at);
	}
	if (boot_take(space, at, need) == 0) {
		*ret_load = at;
		return 0;
	}
	/* A relocatable kernel moves itself up to its preferred address when it is loaded below, so only
	 * places above help. */
	if (align > 1 && boot_alloc(space, at, RAM_HOLE_END, need, align, false, ret_load) == 0)
		return 0;
	return err_set(
		err, -ENOMEM,
		"kernel %s needs memory up to %s, the guest has only %s there; give it more with --memory",
		k->path, boot_size_text(at + need, need_text),
		boot_size_text(boot_space_end(space), have_text));
}

/* All initrds behind each other on 4-byte boundaries, as the kernel takes joined archives. */
static int place_initrds(const struct boot_source *src, u8 *hdr, struct boot_space *space, struct err *err)
{
	u16 version = ld16(hdr + HDR_VERSION);
	u64 max = DEFAULT_INITRD_MAX, total = 0;
	char need_text[32], have_text[32];
	gpa_t at;
	int r;

	if (src->nr_initrds == 0)
		return 0;
	if (version >= 0x203)
		max = ld32(hdr + HDR_INITRD_ADDR_MAX);
	if (version >= 0x20c && (ld16(hdr + HDR_XLOADFLAGS) & XLF_ABOVE_4G))
		max = 0xffffffff;
	for (unsigned i = 0; i < src->nr_initrds; i++)
		total += ALIGN_UP((u64)src->initrd[i].len, 4);
	if (total > 0xffffffff || boot_alloc(space, KERNEL_LOW, max + 1, total, RAM_PAGE_SIZE, true, &at) < 0)
		return err_set(
			err, -ENOMEM,
			"initrd %s (%s) does not fit into the guest's memory below %s beside the kernel; give "
			"it more with --memory",
			src->initrd[0].path, boot_size_text(total, need_text),
			boot_size_text(MIN(max + 1, boot_space_end(space)), have_text));
	st32(hdr + HDR_RAMDISK_IMAGE, (u32)at);
	st32(hdr + HDR_RAMDISK_SIZE, (u32)total);
	for (unsigned i = 0; i < src->nr_initrds; i++) {
		r = boot_copy_file(space, at, &src->initrd[i], 0, src->initrd[i].len, err);
		if (r < 0)
			return r;
		at += ALIGN_UP((u64)src->initrd[i].len, 4);
	}
	return 0;
}

static int place_cmdline(const struct boot_source *src, u8 *hdr, struct boot_space *space, struct err *err)
{
	u64 max = DEFAULT_CMDLINE_SIZE, len = strlen(src->append);
	gpa_t at;

	if (ld16(hdr + HDR_VERSION) >= 0x206)
		max = ld32(hdr + HDR_CMDLINE_SIZE);
	if (len > max)
		return err_set(err, -E2BIG,
			       "the command line has %llu characters, kernel %s takes at most %llu",
			       (unsigned long long)len, src->kernel.path, (unsigned long long)max);
	if (boot_alloc(space, 0, 0xa0000, len + 1, 16, false, &at) < 0)
		return err_set(err, -ENOMEM,
			       "the command line has %llu characters, too many for memory below 640 KiB",
			       (unsigned long long)len);
	boot_copy(space, at, src->append, len + 1);
	st32(hdr + HDR_CMD_LINE_PTR, (u32)at);
	return 0;
}

/* struct setup_data: next u64, type u32, len u32, data. Without a seed the kernel does as well, later. */
static void place_seed(u8 *hdr, struct boot_space *space)
{
	u8 data[16 + RNG_SEED_LEN] = { 0 };
	gpa_t at;

	if (ld16(hdr + HDR_VERSION) < 0x209)
		return;
	st32(data + 8, SETUP_RNG_SEED);
	st32(data + 12, RNG_SEED_LEN);
	if (getrandom(data + 16, RNG_SEED_LEN, GRND_NONBLOCK) != RNG_SEED_LEN)
		return;
	if (boot_alloc(space, 0, 0xa0000, sizeof(data), 16, false, &at) < 0)
		return;
	boot_copy(space, at, data, sizeof(data));
	st64(hdr + HDR_SETUP_DATA, at);
}

static void fill_e820(u8 *zero_page, const struct boot_map *map)
{
	u8 *p = zero_page + ZP_E820_TABLE;

	for (unsigned i = 0; i < map->nr; i++, p += 20) {
		st64(p, map->entry[i].start);
		st64(p + 8, map->entry[i].len);
		st32(p + 16, map->entry[i].type);
	}
	zero_page[ZP_E820_ENTRIES] = (u8)map->nr;
}

/* What the setup code would have heard from the video BIOS: mode 3. All zeros: there is no screen. */
static void fill_screen_info(u8 *zero_page)
{
	zero_page[ZP_SI_VIDEO_MODE] = 3;
	zero_page[ZP_SI_COLUMNS] = 80;
	st16(zero_page + ZP_SI_EGA_BX, 3); /* an EGA or VGA with colours and 256 KiB */
	zero_page[ZP_SI_LINES] = 25;
	zero_page[ZP_SI_IS_VGA] = 1;
	st16(zero_page + ZP_SI_POINTS, 16);
}

int linux_load(const struct boot_source *src, struct boot_space *space, struct x86_state *ret_state,
	       struct err *err)
{
	const struct boot_file *k = &src->kernel;
	u8 zero_page[RAM_PAGE_SIZE] = { 0 };
	u64 header_end, setup_len, size;
	gpa_t load = 0, params;
	u16 version;
	bool entry64;
	int r;

	/* Everything of the image that the zero page needs is in the setup header, within BOOT_HEAD. */
	header_end = MIN((u64)HDR_MAGIC + k->data[HDR_JUMP_LEN], HDR_END);
	if (header_end > k->len)
		return err_set(err, -ENOEXEC, "kernel %s is truncated: it ends within its setup header",
			       k->path);
	memcpy(zero_page + HDR_SETUP_SECTS, k->data + HDR_SETUP_SECTS, header_end - HDR_SETUP_SECTS);
	version = ld16(zero_page + HDR_VERSION);
	if (version < 0x202)
		return err_set(err, -ENOEXEC, "kernel %s speaks boot protocol %u.%02u, bothy 2.02 and later",
			       k->path, version >> 8, version & 0xff);
	if (!(zero_page[HDR_LOADFLAGS] & LOADED_HIGH))
		return err_set(err, -ENOEXEC, "kernel %s is a zImage; bothy boots bzImages", k->path);

	/* Zero sectors mean four [boot: setup_sects]; the boot sector comes on top. */
	setup_len = 512ull * (1 + (zero_page[HDR_SETUP_SECTS] ? zero_page[HDR_SETUP_SECTS] : 4));
	if (setup_len >= k->len)
		return err_set(err, -ENOEXEC,
			       "kernel %s is truncated: %zu bytes, its setup code alone has %llu", k->path,
			       k->len, (unsigned long long)setup_len);
	size = k->len - setup_len;
	if (version >= 0x204) {
		/* In units of 16 bytes; what follows is a signature or padding. */
		u64 syssize = 16ull * ld32(zero_page + HDR_SYSSIZE);

		/* The last unit need not be whole. */
		if (syssize > ALIGN_UP(size, 16))
			return err_set(err, -ENOEXEC, "kernel %s is truncated: %zu bytes of %llu", k->path,
				       k->len, (unsigned long long)setup_len + syssize);
		if (syssize == 0)
			return err_set(err, -ENOEXEC, "kernel %s is damaged: it says that its size is zero",
				       k->path);
		size = MIN(size, syssize);
	}
	entry64 = version >= 0x20c && (ld16(zero_page + HDR_XLOADFLAGS) & XLF_KERNEL_64) &&
		  space->tgt->long_mode;
	if (entry64 && size <= ENTRY_64)
		return err_set(err, -ENOEXEC, "kernel %s is damaged: it ends before its 64-bit entry",
			       k->path);

	r = place_kernel(k, zero_page, size, space, &load, err);
	if (r < 0)
		return r;
	r = boot_copy_file(space, load, k, setup_len, size, err);
	if (r < 0)
		return r;
	r = boot_flat_state(space, entry64, ret_state, err);
	if (r < 0)
		return r;
	r = place_cmdline(src, zero_page, space, err);
	if (r < 0)
		return r;
	r = place_initrds(src, zero_page, space, err);
	if (r < 0)
		return r;
	place_seed(zero_page, space);

	zero_page[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
	st16(zero_page + HDR_VID_MODE, VID_MODE_NORMAL);
	st32(zero_page + HDR_CODE32_START, (u32)load);
	st64(zero_page + ZP_ACPI_RSDP_ADDR, space->tgt->rsdp);
	fill_e820(zero_page, space->tgt->map);
	if (space->tgt->vga)
		fill_screen_info(zero_page);
	if (boot_alloc(space, 0, 0xa0000, sizeof(zero_page), RAM_PAGE_SIZE, false, &params) < 0)
		return err_set(err, -ENOMEM, "no guest memory below 640 KiB is left for the boot parameters");
	boot_copy(space, params, zero_page, sizeof(zero_page));

	ret_state->gpr[R_SI] = params;
	ret_state->rip = load + (entry64 ? ENTRY_64 : 0);
	return 0;
}
