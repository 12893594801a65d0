/* The addresses that the DSDT and the board agree on. Included by dsdt.asl through iasl's preprocessor, so
 * nothing but plain definitions here; machine/pc.c checks them against what the devices have. */
#ifndef ACPI_MAP_H
#define ACPI_MAP_H

#define MAP_COM1_PORT    0x3f8
#define MAP_COM1_IRQ     4
#define MAP_SCI_IRQ      9
#define MAP_PM_PORT      0x600
#define MAP_PM_LEN       0x30
#define MAP_RESET_PORT   0xcf9
#define MAP_S3_TYPE      1
#define MAP_S5_TYPE      7
#define MAP_PCI_CONFIG   0xcf8
#define MAP_PCI_BUSES    1
#define MAP_PCI_LAST_BUS 0
#define MAP_PCI_IO       0xc000
#define MAP_PCI_IO_LEN   0x4000
#define MAP_PCI_IO_LAST  0xffff
#define MAP_PCI_MEM_LAST 0xfebfffff
#define MAP_PCI_MEM_END  0xfec00000
#define MAP_PCI_GSI      16
#define MAP_ECAM_LEN     0x10000000
#define MAP_IOAPIC       0xfec00000
#define MAP_IOAPIC_LEN   0x1000
#define MAP_HPET         0xfed00000
#define MAP_HPET_LEN     0x400
#define MAP_LAPIC        0xfee00000
#define MAP_LAPIC_LEN    0x1000

#endif
