/* The parts of the board that software cannot find by itself [ACPI 6]: the PCI root with its windows and
 * interrupt routing, the devices at fixed ports, and the sleeping states: suspend to RAM, and off. Processors are
 * in an SSDT of their own, since their number varies. The power button is the fixed one of PM1. */
#include "acpi_map.h"

DefinitionBlock ("", "DSDT", 2, "BOTHY ", "BOTHYPC ", 1)
{
	/* Interrupts are routed by the I/O APIC, whatever model the guest announces through \_PIC. */
	Name (\_S3, Package () { MAP_S3_TYPE, MAP_S3_TYPE, 0, 0 })
	Name (\_S5, Package () { MAP_S5_TYPE, MAP_S5_TYPE, 0, 0 })

	/* Of the SSDT, since firmware may choose: where ECAM is, and where memory for PCI devices begins. */
	External (\_SB.ECAM, IntObj)
	External (\_SB.PMEM, IntObj)
	/* Above 4 GiB, from HMEM up to, not including, HEND. */
	External (\_SB.HMEM, IntObj)
	External (\_SB.HEND, IntObj)

	Scope (\_SB)
	{
		Device (PCI0)
		{
			Name (_HID, EisaId ("PNP0A08"))
			Name (_CID, EisaId ("PNP0A03"))
			Name (_UID, 0)
			Name (_SEG, 0)
			Name (_BBN, 0)

			Name (FIX, ResourceTemplate ()
			{
				WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
					0, 0, MAP_PCI_LAST_BUS, 0, MAP_PCI_BUSES)
				IO (Decode16, MAP_PCI_CONFIG, MAP_PCI_CONFIG, 1, 8)
				/* What the bridge to the ISA devices decodes, then what PCI devices may be given. */
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
					0, 0, 0xcf7, 0, 0xcf8)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
					0, MAP_PCI_IO, MAP_PCI_IO_LAST, 0, MAP_PCI_IO_LEN)
			})

			/* Memory from Arg0 up to, not including, Arg1. */
			Method (MEM, 2, Serialized)
			{
				Name (BUF, ResourceTemplate ()
				{
					DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
						0, 0, 0, 0, 1, , , WIN)
				})
				CreateDWordField (BUF, WIN._MIN, FRST)
				CreateDWordField (BUF, WIN._MAX, LAST)
				CreateDWordField (BUF, WIN._LEN, SIZE)
				FRST = Arg0
				LAST = Arg1 - 1
				SIZE = Arg1 - Arg0
				Return (BUF)
			}

			Method (HIGH, 0, Serialized)
			{
				Name (BUF, ResourceTemplate ()
				{
					QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
						0, 0, 0, 0, 1, , , WIN)
				})
				CreateQWordField (BUF, WIN._MIN, FRST)
				CreateQWordField (BUF, WIN._MAX, LAST)
				CreateQWordField (BUF, WIN._LEN, SIZE)
				FRST = \_SB.HMEM
				LAST = \_SB.HEND - 1
				SIZE = \_SB.HEND - \_SB.HMEM
				Return (BUF)
			}

			/* ECAM divides it in two, of which the first may be empty. */
			Method (_CRS, 0, Serialized)
			{
				Local0 = ConcatenateResTemplate (FIX, MEM (\_SB.ECAM + MAP_ECAM_LEN, MAP_PCI_MEM_END))
				If (\_SB.PMEM < \_SB.ECAM)
				{
					Local0 = ConcatenateResTemplate (Local0, MEM (\_SB.PMEM, \_SB.ECAM))
				}
				If (\_SB.HMEM < \_SB.HEND)
				{
					Local0 = ConcatenateResTemplate (Local0, HIGH ())
				}
				Return (Local0)
			}

			/* Pin p of slot s is global interrupt MAP_PCI_GSI + ((s + p) & 3), for all 32 slots. */
			Method (_PRT, 0, Serialized)
			{
				Local0 = Package (128) {}
				Local1 = 0
				While (Local1 < 128)
				{
					Local2 = Package (4) { 0, 0, 0, 0 }
					Local3 = Local1 >> 2
					Local4 = Local1 & 3
					Local2[0] = (Local3 << 16) | 0xffff
					Local2[1] = Local4
					Local2[3] = ((Local3 + Local4) & 3) + MAP_PCI_GSI
					Local0[Local1] = Local2
					Local1++
				}
				Return (Local0)
			}

			/* The bridge at 1FH to the old bus. */
			Device (ISA)
			{
				Name (_ADR, 0x001f0000)

				Device (PIC)
				{
					Name (_HID, EisaId ("PNP0000"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x20, 0x20, 1, 2)
						IO (Decode16, 0xa0, 0xa0, 1, 2)
						IO (Decode16, 0x4d0, 0x4d0, 1, 2)
						IRQNoFlags () { 2 }
					})
				}

				Device (PIT)
				{
					Name (_HID, EisaId ("PNP0100"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x40, 0x40, 1, 4)
						IRQNoFlags () { 0 }
					})
				}

				Device (SPKR)
				{
					Name (_HID, EisaId ("PNP0800"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x61, 0x61, 1, 1)
					})
				}

				Device (KBD)
				{
					Name (_HID, EisaId ("PNP0303"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x60, 0x60, 1, 1)
						IO (Decode16, 0x64, 0x64, 1, 1)
						IRQNoFlags () { 1 }
					})
				}

				Device (RTC)
				{
					Name (_HID, EisaId ("PNP0B00"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x70, 0x70, 1, 2)
						IRQNoFlags () { 8 }
					})
				}

				Device (COM1)
				{
					Name (_HID, EisaId ("PNP0501"))
					Name (_UID, 1)
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, MAP_COM1_PORT, MAP_COM1_PORT, 1, 8)
						IRQNoFlags () { MAP_COM1_IRQ }
					})
				}
			}
		}

		Device (HPET)
		{
			Name (_HID, EisaId ("PNP0103"))
			Name (_UID, 0)
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadOnly, MAP_HPET, MAP_HPET_LEN)
			})
		}

		/* What belongs to the board, so that nothing else is put there. */
		Device (BRD)
		{
			Name (_HID, EisaId ("PNP0C02"))
			Name (_UID, 0)
			Name (BUF, ResourceTemplate ()
			{
				IO (Decode16, MAP_PM_PORT, MAP_PM_PORT, 1, MAP_PM_LEN)
				Memory32Fixed (ReadWrite, 0, MAP_ECAM_LEN, WIN)
				Memory32Fixed (ReadWrite, MAP_IOAPIC, MAP_IOAPIC_LEN)
				Memory32Fixed (ReadWrite, MAP_LAPIC, MAP_LAPIC_LEN)
			})
			Method (_CRS, 0, Serialized)
			{
				CreateDWordField (BUF, ^WIN._BAS, BASE)
				BASE = \_SB.ECAM
				Return (BUF)
			}
		}
	}
}
