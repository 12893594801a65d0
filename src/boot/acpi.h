/* The ACPI tables of the board. */
#pragma once

#include "base/err.h"
#include "base/types.h"

/* Where the board has what the tables tell about; 0 lengths mean: not there. */
struct acpi_board {
	u32 nr_cpus; /* APIC ids 0..nr_cpus-1, below 255 */
	u64 lapic;
	u64 ioapic;
	u8 ioapic_id;
	u8 timer_pin; /* I/O APIC pin of ISA interrupt 0 */
	u8 sci_irq;   /* level, active high */
	u16 pm_event, pm_control, pm_timer, gpe0;
	u8 gpe0_len;
	u16 reset_port;
	u8 reset_value;
	u64 hpet;
	u32 hpet_id;
	u16 hpet_min_tick;
	u64 ecam;
	u8 ecam_last_bus;
	u32 pci_mem; /* PCI devices may be given memory from here on, to MAP_PCI_MEM_LAST, but for what ECAM takes */
	u64 pci_high, pci_high_end; /* the same above 4 GiB; equal: nothing there */
	u8 century;                 /* index of the century in the CMOS, 0: none */
	bool vga;
};

#define ACPI_FACS_SIZE   64
#define ACPI_FACS_WAKING 12 /* where it has the firmware waking vector, 4 bytes [ACPI 5.2.10] */

/* What has to be done again where somebody else places the tables: at which offsets in the area there are addresses, and which
 * bytes a checksum is over. */
#define ACPI_MAX_POINTERS 24
#define ACPI_MAX_SUMS     12

struct acpi_links {
	struct {
		u32 at;
		u8 size; /* bytes */
	} pointer[ACPI_MAX_POINTERS];
	unsigned nr_pointers;
	struct {
		u32 start, len, at;
	} sum[ACPI_MAX_SUMS]; /* of the RSDP first the shorter one */
	unsigned nr_sums;
	u32 used; /* bytes of the area */
};

/* Writes all tables into area, which the guest sees at area_gpa (a multiple of 16), the root pointer first, and the FACS, which
 * must be writable for the guest and lie at a multiple of 64. So that the root pointer is found by searching, the area has
 * to lie between E0000H and FFFFFH. -ENOSPC when len is too small. ret_links may be NULL. Any thread. */
int acpi_build(const struct acpi_board *board, u8 *area, u32 area_gpa, u32 len, u8 *facs, u32 facs_gpa,
	       u32 *ret_rsdp, struct acpi_links *ret_links, struct err *err);
