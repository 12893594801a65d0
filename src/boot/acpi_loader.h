/* The ACPI tables as files for firmware that places them itself: "etc/acpi/tables", "etc/acpi/rsdp", and the script
 * "etc/table-loader" that says how. */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "boot/acpi.h"

#define ACPI_LOADER_TABLES 16384u /* bytes of each file */
#define ACPI_LOADER_RSDP   36u
#define ACPI_LOADER_SCRIPT 4096u

struct acpi_files {
	u8 tables[ACPI_LOADER_TABLES];
	u8 rsdp[ACPI_LOADER_RSDP];
	u8 script[ACPI_LOADER_SCRIPT];
};

/* The same board gives the same bytes, another one files of the same lengths. Any thread. */
int acpi_loader_build(const struct acpi_board *board, struct acpi_files *ret_files, struct err *err);
