/* The PCI host bridge "pci", bus 0, and the contract for the functions on it.
 *
 * No conf needed: ports CF8H-CFFH, the ECAM window and the windows below are its own. It brings functions
 * 00:00.0 (host bridge) and 00:1f.0 (ISA bridge). Another device is a function by keeping a struct
 * pci_dev: pci_dev_init(), pci_dev_add_bar(), pci_dev_add_cap(), then pci_add(); all of that in its init,
 * on the main thread, vCPUs not running, and pci_del() in its fini. Its state list has STATE_U8S(s,
 * pci.config) (the member being named pci), its post_load calls pci_dev_post_load(), its reset calls
 * pci_dev_reset().
 *
 * Interrupts: pin INTA..INTD of slot s is GSI PCI_GSI(s, pin), level. The ACPI _PRT must say the same.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/err.h"
#include "base/types.h"
#include "vm/bus.h"
#include "vm/device.h"

/* For the MCFG and the host bridge's _CRS. ECAM must be reserved (PNP0C02) and in the e820 map. It lies in the window for
 * BARs, at this address until firmware moves it. RAM may cover the first part of the window; an engine asks the bus only
 * where there is none. */
#define PCI_ECAM_BASE 0xe0000000ull /* with room for buses 0..255 */
#define PCI_ECAM_SIZE 0x10000000ull
/* There are no others: a kernel asks every device number of every bus that it is told of, two exits each. */
#define PCI_LAST_BUS  0
#define PCI_MMIO_BASE 0x80000000ull
#define PCI_MMIO_SIZE 0x7ec00000ull
/* A second one for BARs of 64 bits: from here, or where RAM ends, to what the processor can address. */
#define PCI_HIGH_BASE   (4 * GiB)
#define PCI_IO_BASE     0xc000 /* window of assignable ports; below it are fixed devices */
#define PCI_IO_SIZE     0x4000
#define PCI_CONFIG_PORT 0xcf8 /* 8 ports, not for assignment */

#define PCI_GSI_BASE       16
#define PCI_GSI(slot, pin) (PCI_GSI_BASE + (((slot) + (pin)) & 3)) /* pin 0 = INTA# */

#define PCI_DEVFN(slot, fn) ((slot) << 3 | (fn))
#define PCI_CONFIG_SIZE     256
#define PCI_NR_BARS         6

/* Configuration registers [PCI 6.1] */
#define PCI_VENDOR_ID           0x00
#define PCI_DEVICE_ID           0x02
#define PCI_COMMAND             0x04
#define PCI_STATUS              0x06
#define PCI_REVISION            0x08
#define PCI_CLASS_PROG          0x09
#define PCI_HEADER_TYPE         0x0e
#define PCI_BAR0                0x10
#define PCI_SUBSYSTEM_VENDOR_ID 0x2c
#define PCI_SUBSYSTEM_ID        0x2e
#define PCI_ROM                 0x30
#define PCI_CAP_PTR             0x34
#define PCI_INT_LINE            0x3c
#define PCI_INT_PIN             0x3d

#define PCI_COMMAND_IO       BIT(0)
#define PCI_COMMAND_MEM      BIT(1)
#define PCI_COMMAND_MASTER   BIT(2)
#define PCI_COMMAND_INTX_OFF BIT(10)
#define PCI_STATUS_INTX      BIT(3)
#define PCI_STATUS_CAPS      BIT(4)

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_ROM };

struct pci_bar {
	enum pci_bar_kind kind;
	u64 size;                     /* a power of two; ports: 4..256, memory: 16 and more */
	const struct region_ops *ops; /* called with the owner's dev->lock held, as from the bus */
	void *opaque;
	_Atomic u64 addr; /* where it answers now, ~0: nowhere */
};

struct pci_dev {
	struct device *owner;
	struct device *bus; /* the "pci" device once added */
	u8 devfn;
	u8 config[PCI_CONFIG_SIZE];
	u8 init[PCI_CONFIG_SIZE];            /* config after reset */
	u8 wmask[PCI_CONFIG_SIZE];           /* bits the guest can write */
	u8 w1c[PCI_CONFIG_SIZE];             /* bits cleared by writing 1 */
	struct pci_bar bar[PCI_NR_BARS + 1]; /* the last is the expansion ROM's */
	u8 cap_end;                          /* where the next capability goes */
	u8 last_cap;
	bool intx, intx_off,
		intx_out;    /* wanted by the owner, forbidden by the guest or replaced by messages, driven;
			   * bus's intx_lock */
	struct pci_msi *msi; /* what pci_msi.h added, NULL: none */
	struct pci_msix *msix;
	/* The guest has written [offset, offset+len) (already applied). vCPU thread, owner's dev->lock
	 * held. NULL: none. */
	void (*config_written)(struct pci_dev *pd, unsigned offset, unsigned len);
	/* The guest is about to read [offset, offset+len): config[] may be brought up to date. As above. */
	void (*config_reading)(struct pci_dev *pd, unsigned offset, unsigned len);
};

struct pci_id {
	u16 vendor, device;
	u16 subsystem_vendor, subsystem;
	u32 class_code; /* base class, subclass, interface: 24 bits */
	u8 revision;
	u8 int_pin; /* 0: none, 1..4: INTA#..INTD# */
};

/* A fresh type 0 header. */
void pci_dev_init(struct pci_dev *pd, struct device *owner, const struct pci_id *id);

/* Memory BARs of 64 bits take two numbers. ops are called with offsets into the BAR. Returns 0 or -EINVAL. */
int pci_dev_add_bar(struct pci_dev *pd, unsigned nr, enum pci_bar_kind kind, u64 size,
		    const struct region_ops *ops, void *opaque);

/* An expansion ROM of size bytes (2 KiB to 16 MiB, a power of two), for firmware to run. Returns 0 or -EINVAL. */
int pci_dev_add_rom(struct pci_dev *pd, u64 size, const struct region_ops *ops, void *opaque);

/* Puts a capability of len bytes (header included) at the end of the list; its body is zero and read-only
 * until the caller fills init[] and wmask[]. Returns its offset or -ENOSPC. Before pci_add(). */
int pci_dev_add_cap(struct pci_dev *pd, u8 id, unsigned len);

/* The VM's "pci" device, NULL when it has none. */
struct device *pci_find(struct vm *vm);

/* The end of the window above 4 GiB. Any thread. */
u64 pci_high_end(const struct vm *vm);

/* Where ECAM is now; 0: nowhere. Any thread. */
u64 pci_ecam(struct device *bus);

/* The slot and function of a device that is on the bus, as PCI_DEVFN() has them; -1: it is not. */
int pci_devfn_of(const struct device *bus, const struct device *dev);

/* Puts pd at slot.fn; slot < 0: the first free slot. -EEXIST, -ENOSPC, -EINVAL with a sentence. */
int pci_add(struct device *bus, struct pci_dev *pd, int slot, unsigned fn, struct err *err);
void pci_del(struct pci_dev *pd); /* allowed for one that was never added, or all-zero */

/* Configuration space as after reset, BARs nowhere, INTx low, no message pending. vCPUs not running. */
void pci_dev_reset(struct pci_dev *pd);

/* Checks that a loaded config[] keeps the read-only bits, and the messages; maps the BARs. */
int pci_dev_post_load(struct pci_dev *pd, struct err *err);

/* The level of the function's INTx pin. Any thread, with the owner's lock held or not. Does nothing
 * before pci_add(). */
void pci_set_intx(struct pci_dev *pd, bool level);
