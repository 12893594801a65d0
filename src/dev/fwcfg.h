/* The firmware configuration device "fwcfg": what firmware is told about the machine, as numbered and named items.
 *
 * No conf needed: ports 510H-51BH are its own. The board fills it after it was made. All functions: main thread, no vCPU
 * running.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct device;

#define FWCFG_MAX_NAME 56 /* with the zero that ends it */

/* Numbers that firmware knows [fw_cfg, Selector]. */
enum fwcfg_key {
	FWCFG_SIGNATURE = 0x00,
	FWCFG_ID = 0x01,
	FWCFG_RAM_SIZE = 0x03,
	FWCFG_NR_CPUS = 0x05,
	FWCFG_NUMA = 0x0d,
	FWCFG_BOOT_MENU = 0x0e,
	FWCFG_MAX_CPUS = 0x0f,
	FWCFG_FILE_DIR = 0x19,
	FWCFG_FILE_FIRST = 0x20,
	FWCFG_IRQ0_OVERRIDE = 0x8002,
};

/* The bytes are copied; what was there under this key or name is replaced. -ENOSPC, -ENOMEM, -EINVAL with a sentence. */
int fwcfg_add(struct device *dev, u16 key, const void *data, u32 len, struct err *err);
int fwcfg_add_file(struct device *dev, const char *name, const void *data, u32 len, struct err *err);

/* One number, little-endian, of 2, 4 or 8 bytes. */
int fwcfg_add_number(struct device *dev, u16 key, unsigned size, u64 val, struct err *err);
int fwcfg_add_number_file(struct device *dev, const char *name, u64 val, struct err *err);

/* A file whose contents hang on what firmware has done so far: fill() is called each time that it is selected, on a vCPU's
 * thread under the device's lock, and writes len bytes. */
int fwcfg_add_live_file(struct device *dev, const char *name, u32 len, void (*fill)(void *opaque, u8 *data),
			void *opaque, struct err *err);
