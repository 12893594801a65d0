/* The board: which device sits where, and who is connected to whom.
 *
 * It is a PC of the kind that has no chipset of its own character: the devices that every operating system
 * for the PC knows, at the addresses where it looks for them, a PCI bus with ECAM, and ACPI tables for the
 * rest. The table of devices below is the only place with addresses and interrupt lines; that the tables
 * tell the guest the same is checked at compile time.
 *
 *	00000000 RAM                     80000000 PCI memory window, behind RAM
 *	0009f000 ACPI NVS: the FACS      e0000000 PCI ECAM, within
 *	000a0000 VGA memory              fec00000 I/O APIC
 *	000e0000 ROM: ACPI, SMBIOS       fed00000 HPET
 *	00100000 RAM, to b0000000        fee00000 local APICs
 *	         at most                 ff000000 firmware ROM, up to ffffffff
 *	                                100000000 the rest of RAM
 *
 * There is RAM behind c0000-dffff too (guest memory is one piece), but the map does not offer it. Ports
 * without a device, among them the diagnostic port 80H, read all-ones. A machine with firmware has ROM and RAM over each
 * other at c0000-fffff (dev/pam.c), neither tables nor a map before firmware makes them, and fw_cfg, by which it learns how
 * (machine/firmware.c).
 *
 * Omitted: floppy, parallel port, DMA
 * controller; the tables do not promise them. Main thread only.
 */
#include "machine/pc.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "boot/acpi.h"
#include "boot/acpi_map.h"
#include "boot/smbios.h"
#include "dev/hpet.h"
#include "dev/ioapic.h"
#include "dev/kvmclock.h"
#include "dev/lapic.h"
#include "dev/pci.h"
#include "dev/pm.h"
#include "dev/rtc.h"
#include "dev/vga.h"
#include "vm/device.h"
#include "vm/vm.h"
#include "x86/defs.h"

#define FACS_GPA    0x9f000
#define TABLES_GPA  0xe0000
#define TABLES_LEN  0x20000
#define SMBIOS_GPA  0xf0000 /* where it is looked for: ACPI has what is before */
#define RTC_CENTURY 0x32

#define SMBIOS_ALIGN 32 /* the entry point's room */

/* One row per device, in order of creation. The interrupt controllers come first; what raises interrupts
 * follows after they have been connected. */
struct pc_slot {
	const char *type;
	const char *id; /* NULL: the type's name */
	u64 base;
	unsigned gsi;
	bool per_vcpu;
	u8 serial; /* gets the back end of that number, counted from 1, and is not there without */
};

static const struct pc_slot controllers[] = {
	{ "pic", NULL, 0x20, 0, false, 0 },
	{ "ioapic", NULL, IOAPIC_BASE, 0, false, 0 },
	{ "lapic", NULL, LAPIC_BASE, 0, true, 0 },
};

static const struct pc_slot devices[] = {
	{ "kvmclock", NULL, 0, 0, false, 0 },
	{ "kvmpv", NULL, 0, 0, false, 0 },
	{ "pit", NULL, 0x40, INTC_ISA_TIMER, false, 0 },
	{ "rtc", NULL, 0x70, INTC_ISA_RTC, false, 0 },
	{ "ps2", NULL, 0x60, 1, false, 0 },
	{ "serial", "com1", MAP_COM1_PORT, MAP_COM1_IRQ, false, 1 },
	{ "serial", "com2", 0x2f8, 3, false, 2 },
	{ "serial", "com3", 0x3e8, MAP_COM1_IRQ, false, 3 },
	{ "serial", "com4", 0x2e8, 3, false, 4 },
	{ "hpet", NULL, HPET_BASE, 0, false, 0 },
	{ "pm", NULL, PM_BASE, PM_SCI_GSI, false, 0 },
	{ "pci", NULL, 0, 0, false, 0 },
};

static const struct pc_slot vga = { "vga", NULL, 0, 0, false, 0 };
static const struct pc_slot fwcfg = { "fwcfg", NULL, 0, 0, false, 0 };

/* What dsdt.asl says must be what the devices do. */
_Static_assert(MAP_SCI_IRQ == PM_SCI_GSI, "SCI");
_Static_assert(MAP_PM_PORT == PM_BASE && MAP_PM_LEN == PM_SIZE, "PM ports");
_Static_assert(MAP_S3_TYPE == PM_SLP_TYP_S3 && MAP_S5_TYPE == PM_SLP_TYP_S5, "sleeping states");
_Static_assert(MAP_PCI_CONFIG == PCI_CONFIG_PORT, "PCI configuration ports");
_Static_assert(MAP_PCI_IO == PCI_IO_BASE && MAP_PCI_IO_LEN == PCI_IO_SIZE, "PCI ports");
_Static_assert(MAP_PCI_IO_LAST == PCI_IO_BASE + PCI_IO_SIZE - 1, "PCI ports");
_Static_assert(MAP_PCI_MEM_END == PCI_MMIO_BASE + PCI_MMIO_SIZE, "PCI memory");
_Static_assert(PC_FRAME_BUFFER >= RAM_LOW_MAX && PC_FRAME_BUFFER >= PCI_MMIO_BASE &&
		       PC_FRAME_BUFFER + VGA_MEMORY_SIZE <= PCI_ECAM_BASE,
	       "frame buffer");
_Static_assert(MAP_ECAM_LEN == PCI_ECAM_SIZE, "ECAM");
_Static_assert(MAP_PCI_LAST_BUS == PCI_LAST_BUS && MAP_PCI_BUSES == PCI_LAST_BUS + 1, "buses");
_Static_assert(MAP_PCI_GSI == PCI_GSI_BASE && PCI_GSI(1, 3) == PCI_GSI_BASE, "PCI interrupts");
_Static_assert(MAP_IOAPIC == IOAPIC_BASE && MAP_IOAPIC_LEN == IOAPIC_SIZE, "I/O APIC");
_Static_assert(MAP_HPET == HPET_BASE && MAP_HPET_LEN == HPET_SIZE, "HPET");
_Static_assert(MAP_LAPIC == LAPIC_BASE && MAP_LAPIC_LEN == LAPIC_SIZE, "local APIC");
_Static_assert(RAM_LOW_MAX <= PCI_ECAM_BASE, "RAM below ECAM");

static void map_add(struct boot_map *map, gpa_t start, gpa_t end, u32 type)
{
	if (start < end)
		map->entry[map->nr++] = (struct boot_map_entry){ start, end - start, type };
}

int pc_init(struct pc *pc, struct vm *vm, struct err *err)
{
	const struct ram *ram = &vm->ram;
	struct boot_map *map = &pc->map;

	pc->vm = vm;
	map->nr = 0;
	pc->firmware = ram->rom_size;
	if (ram->low_size <= TABLES_GPA + TABLES_LEN)
		return err_set(err, -EINVAL, "a machine needs more than 1 MiB of memory");
	if (ram_set_hole(&vm->ram, VGA_WINDOW_BASE, VGA_WINDOW_BASE + VGA_WINDOW_SIZE) < 0)
		return err_set(err, -EINVAL, "the display adapter's memory lies outside the machine's");
	if (pc->firmware)
		return 0;
	map_add(map, 0, FACS_GPA, BOOT_MAP_RAM);
	map_add(map, FACS_GPA, VGA_WINDOW_BASE, BOOT_MAP_NVS);
	map_add(map, TABLES_GPA, TABLES_GPA + TABLES_LEN, BOOT_MAP_RESERVED);
	map_add(map, TABLES_GPA + TABLES_LEN, ram->low_size, BOOT_MAP_RAM);
	map_add(map, PCI_ECAM_BASE, PCI_ECAM_BASE + PCI_ECAM_SIZE, BOOT_MAP_RESERVED);
	map_add(map, RAM_HOLE_END, ram->end, BOOT_MAP_RAM);
	return ram_add_rom(&vm->ram, TABLES_GPA, TABLES_GPA + TABLES_LEN);
}

void pc_describe(const struct pc *pc, struct acpi_board *ret_board)
{
	struct device *pci =
		pci_find(pc->vm); /* it is made after the first tables of a machine without firmware */
	u64 ecam = pci ? pci_ecam(pci) : 0;

	*ret_board = (struct acpi_board){
		.nr_cpus = pc->vm->nr_vcpus,
		.lapic = LAPIC_BASE,
		.ioapic = IOAPIC_BASE,
		.ioapic_id = IOAPIC_ID,
		.timer_pin = INTC_TIMER_PIN,
		.sci_irq = PM_SCI_GSI,
		.pm_event = PM_EVT_PORT,
		.pm_control = PM_CNT_PORT,
		.pm_timer = PM_TMR_PORT,
		.gpe0 = PM_GPE0_PORT,
		.gpe0_len = PM_GPE0_LEN,
		.reset_port = PM_RESET_PORT,
		.reset_value = PM_RESET_VALUE,
		.hpet = HPET_BASE,
		.hpet_id = HPET_ID,
		.hpet_min_tick = HPET_MIN_TICK,
		.ecam = ecam ? ecam : PCI_ECAM_BASE,
		.ecam_last_bus = PCI_LAST_BUS,
		/* As firmware divides it; without, as the memory types do. */
		.pci_mem = (u32)(pc->firmware ? MAX(PCI_MMIO_BASE, pc->vm->ram.low_size) : RAM_LOW_MAX),
		.pci_high = MAX(PCI_HIGH_BASE, pc->vm->ram.end),
		.pci_high_end = pci_high_end(pc->vm),
		.century = RTC_CENTURY,
		.vga = pc->vga,
	};
}

void pc_describe_smbios(const struct pc *pc, struct smbios_board *ret_board)
{
	const struct vm *vm = pc->vm;
	u32 leaf1[4];

	cpuid_query(&vm->cpuid, 1, 0, 0, 0, 0, 0, leaf1);
	*ret_board = (struct smbios_board){
		.nr_cpus = vm->nr_vcpus,
		.memory = vm->ram.size,
		.low_memory = vm->ram.low_size,
		.signature = vm->cpuid.signature,
		.features = leaf1[3],
		.mhz = (u32)(vm->tsc_khz / 1000),
		.bios = pc->firmware ? NULL : "direct boot",
	};
}

static void write_smbios(const struct pc *pc)
{
	u8 anchor[SMBIOS_ANCHOR], tables[SMBIOS_MAX], *p;
	struct smbios_board board;
	u32 len;

	pc_describe_smbios(pc, &board);
	len = smbios_build(&board, SMBIOS_GPA + SMBIOS_ALIGN, anchor, tables);
	p = ram_ptr(&pc->vm->ram, SMBIOS_GPA, SMBIOS_ALIGN + len);
	memcpy(p, anchor, sizeof(anchor));
	memcpy(p + SMBIOS_ALIGN, tables, len);
}

int pc_write_tables(struct pc *pc, struct err *err)
{
	struct ram *ram = &pc->vm->ram;
	struct acpi_board board;

	if (pc->firmware)
		return 0;
	pc_describe(pc, &board);
	write_smbios(pc);
	return acpi_build(&board, ram_ptr(ram, TABLES_GPA, TABLES_LEN), TABLES_GPA, SMBIOS_GPA - TABLES_GPA,
			  ram_ptr(ram, FACS_GPA, ACPI_FACS_SIZE), FACS_GPA, &pc->rsdp, NULL, err);
}

static int add_slot(struct pc *pc, const struct pc_slot *slot, struct chr *serial, struct err *err)
{
	unsigned n = slot->per_vcpu ? pc->vm->nr_vcpus : 1;
	int r = 0;

	for (unsigned i = 0; i < n && r == 0; i++) {
		const struct device_conf conf = {
			.id = slot->id,
			.base = slot->base,
			.gsi = slot->gsi,
			.index = i,
			.chr = serial,
			.rom = pc->vga_rom, /* nobody else looks */
			.rom_len = pc->vga_rom_len,
		};

		r = device_new(pc->vm, slot->type, &conf, NULL, err);
	}
	return r;
}

int pc_add_devices(struct pc *pc, struct chr *const *serial, unsigned nr_serials, struct err *err)
{
	int r;

	for (unsigned i = 0; i < ARRAY_SIZE(controllers); i++) {
		r = add_slot(pc, &controllers[i], NULL, err);
		if (r < 0)
			return r;
	}
	intc_init(&pc->intc, pc->vm, device_find(pc->vm, "pic"), device_find(pc->vm, "ioapic"));
	for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
		unsigned port = devices[i].serial;

		if (port > nr_serials)
			continue;
		r = add_slot(pc, &devices[i], port ? serial[port - 1] : NULL, err);
		if (r < 0)
			return r;
	}
	r = pc->vga ? add_slot(pc, &vga, NULL, err) : 0;
	if (r == 0 && pc->firmware)
		r = add_slot(pc, &fwcfg, NULL, err);
	if (r < 0)
		return r;
	pc->kvmclock = device_find(pc->vm, "kvmclock");
	pc->pm = device_find(pc->vm, "pm");
	rtc_set_alarm(device_find(pc->vm, "rtc"), pm_rtc_alarm, pc->pm);
	rtc_set_memory(device_find(pc->vm, "rtc"), pc->vm->ram.low_size,
		       pc->vm->ram.size - pc->vm->ram.low_size);
	return 0;
}

void pc_set_memory_types(const struct pc *pc, struct x86_state *s)
{
	u64 phys_mask = BIT(pc->vm->cpuid.maxphyaddr) - 1;

	/* Everything write-back but what is behind RAM below 4 GiB, as far as two ranges say it [SDM3 11.11.2]. */
	s->mtrr_def_type = BIT(11) | 6;
	s->mtrr_base[0] = 3 * GiB | 0;
	s->mtrr_mask[0] = (phys_mask & ~(GiB - 1)) | BIT(11);
	s->mtrr_base[1] = RAM_LOW_MAX | 0;
	s->mtrr_mask[1] = (phys_mask & ~(3 * GiB - RAM_LOW_MAX - 1)) | BIT(11);
}

/* VMXON is allowed, outside of SMX, and that for good [SDM3 23.7]. */
void pc_open_virtualization(const struct pc *pc, struct x86_state *s)
{
	if (cpuid_has(&pc->vm->cpuid, X86_FEATURE_VMX))
		s->virt.feature_control = BIT(0) | BIT(2);
}

/* The 8259A pair as a PC's firmware leaves it: vectors 08H and 70H; of the first one only the cascade is
 * open, behind it the lines that nothing drives before a driver asks for it. A kernel of its own
 * programs them anew; a real-mode one may not. */
void pc_program_pics(struct pc *pc)
{
	static const struct {
		u8 port, value;
	} program[] = {
		{ 0x20, 0x11 }, { 0x21, 0x08 }, { 0x21, 0x04 }, { 0x21, 0x01 }, { 0x21, 0xfb },
		{ 0xa0, 0x11 }, { 0xa1, 0x70 }, { 0xa1, 0x02 }, { 0xa1, 0x01 }, { 0xa1, 0x00 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(program); i++)
		bus_write(&pc->vm->bus, BUS_PIO, program[i].port, 1, program[i].value);
}

/* [ACPI 5.2.10]: real mode, and A20 open. The rest is as a PC's firmware leaves it. */
bool pc_wake_state(const struct pc *pc, struct x86_state *ret_state)
{
	u32 vector = ld32(ram_ptr(&pc->vm->ram, FACS_GPA + ACPI_FACS_WAKING, 4));

	if (!vector || vector >= MiB) {
		log_guest("the guest has slept without a waking vector (%#x): it starts over", vector);
		return false;
	}
	x86_state_reset(ret_state, false, true, pc->vm->cpuid.signature);
	ret_state->cr0 &= ~(CR0_CD | CR0_NW);
	ret_state->seg[SEG_CS].sel = (u16)(vector >> 4);
	ret_state->seg[SEG_CS].base = vector & ~15u;
	ret_state->rip = vector & 15;
	pc_set_memory_types(pc, ret_state);
	return true;
}

void pc_tsc_changed(struct pc *pc)
{
	if (pc->kvmclock)
		kvmclock_refresh(pc->kvmclock);
}
