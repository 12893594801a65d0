/* SMBIOS: what a machine tells about itself to people and inventories, by way of dmidecode and the like. */
#pragma once

#include "base/err.h"
#include "base/types.h"

#define SMBIOS_ANCHOR 31 /* bytes of the entry point [SMBIOS 5.2.1] */
#define SMBIOS_MAX    2048

struct smbios_board {
	u32 nr_cpus;    /* cores of the one package */
	u64 memory;     /* bytes, of which below the hole: */
	u64 low_memory; /* the rest begins at 4 GiB */
	u32 signature;  /* CPUID leaf 1: EAX and EDX */
	u32 features;
	u32 mhz;
	const char *bios; /* the version of what stands in for firmware; NULL: firmware describes itself */
};

/* Writes the entry point and the structures, which will lie at gpa (below 4 GiB), SMBIOS_MAX bytes at most. Firmware copies them
 * to where it wants them and writes address and checksums anew. Any thread. Returns the length of the structures. */
u32 smbios_build(const struct smbios_board *board, u32 gpa, u8 anchor[SMBIOS_ANCHOR], u8 tables[SMBIOS_MAX]);
