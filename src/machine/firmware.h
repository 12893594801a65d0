/* Firmware: which image a machine starts with, and what it is told. Main thread. */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "boot/acpi_loader.h"

struct machine_config;
struct pc;
struct ram;
struct vm;

struct firmware {
	char *path; /* NULL: none */
	u8 *image;
	size_t len;
	/* Variables, in flash that lies before the image. */
	u8 *vars; /* NULL: none */
	size_t vars_len;
	char *vars_path; /* where they are kept; NULL: nowhere */
	int vars_fd;
	int vars_error; /* the last one of the host */
	const struct pc *pc;
	struct acpi_files acpi; /* as last asked for */
};

/* name: bios, uefi, or a file. Reads it; the sentence names what is missing, or what is wrong with the file. vars: the file with
 * the variables, made from the firmware's template if it is not there; NULL: what is in the template, and changes are lost. */
int firmware_open(struct firmware *ret_firmware, const char *name, const char *vars, struct err *err);
/* After the devices are gone; says on standard error if variables could not be kept. */
void firmware_close(struct firmware *firmware); /* accepts one that was never opened */

/* How much of ROM it needs; 0: there is no firmware. */
u64 firmware_rom_size(const struct firmware *firmware);
/* How wide physical addresses should be, in bits. */
u32 firmware_phys_bits(u64 memory);
/* Into the ROM of ram, which has that much. */
void firmware_load(const struct firmware *firmware, struct ram *ram);

/* The board's devices exist: adds the flash, fills fw_cfg and CMOS. firmware must stay where it is as long as the devices. */
int firmware_tell(struct firmware *firmware, const struct pc *pc, const struct machine_config *config,
		  struct err *err);

struct bootorder;
/* All devices exist: what to boot from. */
int firmware_tell_order(const struct bootorder *order, struct vm *vm, struct err *err);
