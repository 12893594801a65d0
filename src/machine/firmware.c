/* Firmware: finding it, and telling it about the machine.
 *
 * The image is the distribution's: SeaBIOS, OVMF, or whatever the user names. It is read into memory once, so that a file
 * that changes does no harm, and put at the end of the ROM that ends at 4 GiB; the first instruction is 16 bytes before that
 * [SDM3 9.1.4].
 *
 * UEFI firmware keeps variables in flash, whose contents lie before the code. Distributions have them as a second file, a
 * template, beside the first. Each machine has its own copy: in memory only, or in the file that the user names.
 *
 * What it is told, by fw_cfg: memory (etc/e820), processors, SMBIOS, ACPI tables with the script that places them, and how to behave on
 * a machine whose only screen is a serial line. The ACPI tables are made when they are asked for, since firmware moves ECAM.
 * Files that only one firmware reads are harmless to others.
 *
 * Main thread, but for the tables: vCPUs, under fw_cfg's lock.
 */
#include "machine/firmware.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "base/os.h"
#include "boot/acpi_map.h"
#include "boot/boot.h"
#include "boot/smbios.h"
#include "dev/fwcfg.h"
#include "dev/pflash.h"
#include "dev/pm.h"
#include "dev/rtc.h"
#include "machine/bootorder.h"
#include "machine/machine.h"
#include "machine/pc.h"
#include "vm/device.h"
#include "vm/vm.h"

#define CMOS_NR_CPUS 0x5f /* minus one */

/* Where distributions keep them, best first. */
static const struct {
	const char *name, *path, *package;
} known[] = {
	{ "bios", "/usr/share/seabios/bios-256k.bin", "seabios" },
	{ "bios", "/usr/share/qemu/bios-256k.bin", "seabios" },
	{ "uefi", "/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf" },
	{ "uefi", "/usr/share/OVMF/OVMF_CODE.fd", "ovmf" },
};

/* iPXE, for a BIOS, which cannot boot from a network by itself. */
#define NET_ROM     "/usr/lib/ipxe/qemu/pxe-virtio.rom"
#define NET_ROM_MAX MiB

/* In the names of files with code, and with the variables that go with it. */
#define CODE "CODE"
#define VARS "VARS"

/* --- the image --- */
static int find_known(const char *name, const char **ret_path, struct err *err)
{
	const char *first = NULL, *package = NULL;

	for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
		if (strcmp(known[i].name, name) != 0)
			continue;
		if (access(known[i].path, R_OK) == 0) {
			*ret_path = known[i].path;
			return 0;
		}
		if (!first) {
			first = known[i].path;
			package = known[i].package;
		}
	}
	if (first)
		return err_set(
			err, -ENOENT,
			"--firmware %s: there is no %s; install the package %s, or name a file of your own",
			name, first, package);
	*ret_path = name;
	return 0;
}

static int check_size(const char *path, size_t len, size_t max, struct err *err)
{
	char text[32];

	if (len % RAM_PAGE_SIZE)
		return err_set(
			err, -EINVAL,
			"'%s' is no firmware image: its %zu bytes are not a multiple of 4096; it may be truncated",
			path, len);
	if (len > max)
		return err_set(err, -EFBIG,
			       "'%s' is no firmware image: it is larger than the %s that fit below 4 GiB",
			       path, boot_size_text(max, text));
	return 0;
}

static int read_image(const char *path, size_t max, u8 **ret_data, size_t *ret_len, struct err *err)
{
	void *data;
	size_t len;
	int r = os_read_file(path, 2 * RAM_ROM_MAX, &data, &len, err);

	if (r < 0)
		return r;
	r = check_size(path, len, max, err);
	if (r < 0) {
		free(data);
		return r;
	}
	*ret_data = data;
	*ret_len = len;
	return 0;
}

/* --- variables --- */
/* The name of the template beside the code, to be freed; NULL: there is none. */
static char *template_of(const char *code)
{
	const char *slash = strrchr(code, '/'), *at = strstr(slash ? slash : code, CODE);
	char *path;

	if (!at || asprintf(&path, "%.*s%s%s", (int)(at - code), code, VARS, at + strlen(CODE)) < 0)
		return NULL;
	if (access(path, F_OK) == 0)
		return path;
	free(path);
	return NULL;
}

static int lock_vars(struct firmware *f, struct err *err)
{
	if (flock(f->vars_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return err_set(err, -EBUSY, "'%s' is in use by another machine", f->vars_path);
	return err_sys(err, -errno, "cannot lock '%s'", f->vars_path);
}

/* The user's file, which has the size of the template if there is one, and gets its contents if it is new. */
static int open_vars(struct firmware *f, const char *path, struct err *err)
{
	struct stat st;
	int r;

	f->vars_path = strdup(path);
	if (!f->vars_path)
		return err_set(err, -ENOMEM, "no memory for a file's name");
	f->vars_fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (f->vars ? O_CREAT : 0), 0600);
	if (f->vars_fd < 0)
		return err_sys(err, -errno, "cannot open '%s'", path);
	r = lock_vars(f, err);
	if (r < 0)
		return r;
	if (fstat(f->vars_fd, &st) < 0)
		return err_sys(err, -errno, "cannot look at '%s'", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "'%s' is not a regular file", path);
	if (st.st_size == 0 && f->vars) {
		r = os_write_all(f->vars_fd, f->vars, f->vars_len);
		return r < 0 ? err_sys(err, r, "cannot write '%s'", path) : 0;
	}
	if (f->vars && (u64)st.st_size != f->vars_len)
		return err_set(err, -EINVAL, "'%s' is not for this firmware: it has %lld bytes, not %zu",
			       path, (long long)st.st_size, f->vars_len);
	free(f->vars);
	f->vars = NULL;
	return read_image(path, RAM_ROM_MAX - f->len, &f->vars, &f->vars_len, err);
}

/* What the guest has changed; a failure is told once, at the end. */
static void save_vars(void *opaque, u64 offset, const u8 *data, u64 len)
{
	struct firmware *f = opaque;

	while (len && !f->vars_error) {
		ssize_t n = pwrite(f->vars_fd, data, len, (off_t)offset);

		if (n < 0 && errno != EINTR)
			f->vars_error = -errno;
		if (n > 0) {
			data += n;
			len -= (u64)n;
			offset += (u64)n;
		}
	}
}

/* --- open and close --- */
int firmware_open(struct firmware *ret_firmware, const char *name, const char *vars, struct err *err)
{
	struct firmware *f = ret_firmware;
	const char *path = NULL, *option = "--firmware";
	char *template = NULL;
	int r = find_known(name, &path, err);

	f->vars_fd = -1;
	if (r < 0)
		return r;
	r = read_image(path, RAM_ROM_MAX, &f->image, &f->len, err);
	if (r == 0) {
		f->path = strdup(path);
		template = template_of(path);
		if (!f->path)
			r = err_set(err, -ENOMEM, "no memory for the firmware's name");
	}
	if (r == 0 && template)
		r = read_image(template, RAM_ROM_MAX - f->len, &f->vars, &f->vars_len, err);
	free(template);
	if (r == 0 && vars) {
		option = "--firmware-vars";
		r = open_vars(f, vars, err);
	}
	return r < 0 ? err_wrap(err, "%s", option), r : 0;
}

void firmware_close(struct firmware *f)
{
	if (f->vars_path && f->vars_fd >= 0) {
		if (!f->vars_error && fdatasync(f->vars_fd) < 0)
			f->vars_error = -errno;
		if (f->vars_error)
			log_error("the firmware's variables are not all in '%s': %s", f->vars_path,
				  strerror(-f->vars_error));
		close(f->vars_fd);
	}
	free(f->path);
	free(f->image);
	free(f->vars);
	free(f->vars_path);
	memset(f, 0, sizeof(*f));
}

u64 firmware_rom_size(const struct firmware *f)
{
	return f->path ? MAX(f->len + f->vars_len, RAM_ROM_MIN) : 0;
}

/* QUIRK(OVMF): it makes page tables for all that the processor can address, by pages of 2 MiB, which takes minutes for what
 * large servers have. Twice what there is, since kernels want the upper half unused (L1TF). */
u32 firmware_phys_bits(u64 memory)
{
	u32 bits = 37;

	while (BIT(bits - 1) < RAM_HOLE_END + memory)
		bits++;
	return bits;
}

void firmware_load(const struct firmware *f, struct ram *ram)
{
	memcpy(ram->rom_ptr + ram->rom_size - f->len, f->image, f->len);
	if (f->vars)
		memcpy(ram->rom_ptr, f->vars, f->vars_len);
}

static int add_flash(struct firmware *f, struct vm *vm, struct err *err)
{
	struct device *flash;
	int r;

	if (!f->vars)
		return 0;
	r = device_new(vm, "pflash", &(const struct device_conf){ .base = f->vars_len }, &flash, err);
	if (r == 0 && f->vars_path)
		pflash_set_store(flash, save_vars, f);
	return r;
}

/* --- what it is told --- */
static void fill_tables(void *opaque, u8 *data)
{
	struct firmware *f = opaque;
	struct acpi_board board;

	/* It cannot fail: it did not when the files were made, and they are as long as then. */
	pc_describe(f->pc, &board);
	acpi_loader_build(&board, &f->acpi, NULL);
	memcpy(data, f->acpi.tables, sizeof(f->acpi.tables));
}

static void fill_rsdp(void *opaque, u8 *data)
{
	struct firmware *f = opaque;

	memcpy(data, f->acpi.rsdp, sizeof(f->acpi.rsdp));
}

static void fill_script(void *opaque, u8 *data)
{
	struct firmware *f = opaque;

	memcpy(data, f->acpi.script, sizeof(f->acpi.script));
}

static int tell_tables(struct firmware *f, struct device *fwcfg, struct err *err)
{
	struct acpi_board board;
	int r;

	pc_describe(f->pc, &board);
	r = acpi_loader_build(&board, &f->acpi, err);
	if (r == 0)
		r = fwcfg_add_live_file(fwcfg, "etc/acpi/tables", sizeof(f->acpi.tables), fill_tables, f,
					err);
	if (r == 0)
		r = fwcfg_add_live_file(fwcfg, "etc/acpi/rsdp", sizeof(f->acpi.rsdp), fill_rsdp, f, err);
	if (r == 0)
		r = fwcfg_add_live_file(fwcfg, "etc/table-loader", sizeof(f->acpi.script), fill_script, f,
					err);
	return r;
}

/* Firmware puts its own structure in front, and all of it where it wants. */
static int tell_smbios(const struct pc *pc, struct device *fwcfg, struct err *err)
{
	u8 anchor[SMBIOS_ANCHOR], tables[SMBIOS_MAX];
	struct smbios_board board;
	u32 len;
	int r;

	pc_describe_smbios(pc, &board);
	len = smbios_build(&board, 0, anchor, tables);
	r = fwcfg_add_file(fwcfg, "etc/smbios/smbios-tables", tables, len, err);
	return r < 0 ? r : fwcfg_add_file(fwcfg, "etc/smbios/smbios-anchor", anchor, sizeof(anchor), err);
}

/* Start, length and type of each range, 20 bytes. */
static int tell_memory(const struct ram *ram, struct device *fwcfg, struct err *err)
{
	u8 map[2 * 20] = { 0 };
	u32 len = 20;
	int r;

	st64(map + 8, ram->low_size);
	st32(map + 16, BOOT_MAP_RAM);
	if (ram->size > ram->low_size) {
		st64(map + 20, RAM_HOLE_END);
		st64(map + 28, ram->size - ram->low_size);
		st32(map + 36, BOOT_MAP_RAM);
		len = 40;
	}
	r = fwcfg_add_file(fwcfg, "etc/e820", map, len, err);
	return r < 0 ? r : fwcfg_add_number(fwcfg, FWCFG_RAM_SIZE, 8, ram->size, err);
}

int firmware_tell(struct firmware *f, const struct pc *pc, const struct machine_config *config,
		  struct err *err)
{
	struct vm *vm = pc->vm;
	struct device *fwcfg = device_find(vm, "fwcfg");
	const struct {
		u16 key;
		u8 size;
		u64 val;
	} numbers[] = {
		{ FWCFG_NR_CPUS, 2, vm->nr_vcpus },
		{ FWCFG_MAX_CPUS, 2, vm->nr_vcpus },
		{ FWCFG_NUMA, 8, 0 },          /* nodes */
		{ FWCFG_BOOT_MENU, 2, 0 },     /* nobody is asked, and nobody waited for */
		{ FWCFG_IRQ0_OVERRIDE, 4, 1 }, /* as the ACPI tables say, too */
	};
	const struct {
		const char *name;
		u64 val;
	} files[] = {
		{ "etc/sercon-port", MAP_COM1_PORT },
		/* The display adapter lost its mode in a sleep, and its ROM can set it again. */
		{ "etc/s3-resume-vga-init", pc->vga },
		/* In milliseconds, then the machine is reset; all-ones: never. */
		{ "etc/boot-fail-wait", config->no_reboot ? 0 : 0xffffffff },
	};
	/* By number of the sleeping state: whether there is one, and its SLP_TYP. */
	const u8 states[] = { 0x80, 0, 0, 0x80 | PM_SLP_TYP_S3, 0, 0x80 | PM_SLP_TYP_S5 };
	int r;

	f->pc = pc;
	r = add_flash(f, vm, err);
	if (r < 0)
		return r;
	rtc_set_byte(device_find(vm, "rtc"), CMOS_NR_CPUS, (u8)(vm->nr_vcpus - 1));
	r = tell_memory(&vm->ram, fwcfg, err);
	if (r == 0)
		r = tell_tables(f, fwcfg, err);
	if (r == 0)
		r = tell_smbios(pc, fwcfg, err);
	if (r == 0)
		r = fwcfg_add_file(fwcfg, "etc/system-states", states, sizeof(states), err);
	for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(numbers); i++)
		r = fwcfg_add_number(fwcfg, numbers[i].key, numbers[i].size, numbers[i].val, err);
	for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(files); i++)
		r = fwcfg_add_number_file(fwcfg, files[i].name, files[i].val, err);
	return r;
}

/* Only where the user wants it: it takes its time. */
static int tell_net_rom(struct device *fwcfg, struct err *err)
{
	size_t len;
	void *rom;
	int r = os_read_file(NET_ROM, NET_ROM_MAX, &rom, &len, err);

	if (r < 0)
		return err_wrap(err, "--boot net (install the package ipxe-qemu)"), r;
	r = fwcfg_add_file(fwcfg, BOOTORDER_NET_ROM, rom, (u32)len, err);
	free(rom);
	return r;
}

int firmware_tell_order(const struct bootorder *order, struct vm *vm, struct err *err)
{
	struct device *fwcfg = device_find(vm, "fwcfg");
	char list[BOOTORDER_MAX];
	int r = bootorder_list(order, vm, list, err);

	if (r == 0 && order->asked_for && bootorder_has(order, BOOT_NET))
		r = tell_net_rom(fwcfg, err);
	return r < 0 ? r : fwcfg_add_file(fwcfg, "bootorder", list, (u32)strlen(list) + 1, err);
}
