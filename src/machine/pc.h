/* The board: a PC's devices, its memory map, and what its firmware would have left behind. */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "boot/boot.h"
#include "dev/intc.h"
#include "dev/pci.h"
#include "dev/vga.h"
#include "x86/regs.h"

struct chr;
struct vm;

/* Where video_start() puts the frame buffer that a loader has promised. */
#define PC_FRAME_BUFFER 0xdf000000u

/* The caller's memory, for as long as the VM. */
struct pc {
	struct vm *vm;
	struct intc intc;
	struct boot_map map;
	u32 rsdp;
	bool firmware; /* it boots by firmware, which makes the map and places the tables */
	bool vga;      /* it has a display adapter; before pc_init() */
	struct device *kvmclock, *pm;
	const u8 *vga_rom; /* the caller's, before pc_add_devices(); NULL: none */
	size_t vga_rom_len;
};

/* All for the main thread, no vCPU running. */

/* vm->ram exists: marks ROM, makes the memory map. A machine whose RAM has firmware ROM boots by it. */
int pc_init(struct pc *pc, struct vm *vm, struct err *err);

struct acpi_board;
/* What ACPI tables tell about the board, with ECAM where it is now. Any thread. */
void pc_describe(const struct pc *pc, struct acpi_board *ret_board);

struct smbios_board;
/* What SMBIOS tells about it. */
void pc_describe_smbios(const struct pc *pc, struct smbios_board *ret_board);

/* Writes the ACPI tables and SMBIOS; after pc_init(), and again whenever RAM was cleared. */
int pc_write_tables(struct pc *pc, struct err *err);

/* vm->vcpu[] exist: creates and connects all devices; vm frees them. There are nr_serials ports, 1 to 4; those whose back end is
 * NULL are connected to nothing. */
int pc_add_devices(struct pc *pc, struct chr *const *serial, unsigned nr_serials, struct err *err);

/* The registers that firmware sets on every processor and no boot protocol mentions: memory types. */
void pc_set_memory_types(const struct pc *pc, struct x86_state *state);

/* What firmware allows of VMX, in its register. */
void pc_open_virtualization(const struct pc *pc, struct x86_state *state);

/* Programs the 8259A pair as firmware does. Main thread, after a reset of the devices. */
void pc_program_pics(struct pc *pc);

/* Where a machine without firmware goes on after a sleep: at the waking vector that the guest has left in the FACS. False: there is
 * none, so it starts anew. */
bool pc_wake_state(const struct pc *pc, struct x86_state *ret_state);

/* The vCPUs' TSC offsets have changed. */
void pc_tsc_changed(struct pc *pc);
