/* Message-signalled interrupts of a PCI function: the MSI and MSI-X capabilities.
 *
 * A function keeps a struct pci_msi or pci_msix beside its struct pci_dev and calls the init function between
 * pci_dev_init() and pci_add(). Configuration writes, resets and loading are then pci.c's to pass on. Its
 * state list has PCI_MSI_STATE() or PCI_MSIX_STATE(). The notify functions and the guest's accesses run with the
 * owner's lock held; the message itself goes through irq_msi().
 */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "vm/state.h"

struct pci_dev;

#define PCI_MSI_MAX  32
#define PCI_MSIX_MAX 32

struct pci_msi {
	struct pci_dev *pd;
	u8 cap; /* where the capability is */
	u8 nr;
	u32 pending;
};

struct pci_msix {
	struct pci_dev *pd;
	u8 cap;
	u8 nr;
	u32 pending;
	u8 table[PCI_MSIX_MAX * 16];
};

#define PCI_MSI_STATE(s, m)  STATE_U32(s, m.pending)
#define PCI_MSIX_STATE(s, m) STATE_U32(s, m.pending), STATE_U8S(s, m.table)

/* nr: how many vectors, a power of two, 1..PCI_MSI_MAX. 0, -EINVAL or -ENOSPC. */
int pci_msi_init(struct pci_msi *m, struct pci_dev *pd, unsigned nr);

/* nr: 1..PCI_MSIX_MAX; table and pending bits are put into a memory BAR of 4 KiB of their own, number bar. */
int pci_msi_init_x(struct pci_msix *m, struct pci_dev *pd, unsigned nr, unsigned bar);

/* The guest has chosen messages: INTx stays low, and notifications have an effect. */
bool pci_msi_enabled(const struct pci_msi *m);
bool pci_msi_enabled_x(const struct pci_msix *m);

/* Sends the message of a vector, or keeps it pending while it is masked. A vector that the guest has not enabled
 * (MSI: beyond those granted: the first; MSI-X: beyond nr) has none. With the owner's lock held. */
void pci_msi_notify(struct pci_msi *m, unsigned vector);
void pci_msi_notify_x(struct pci_msix *m, unsigned vector);

/* For pci.c. The guest wrote configuration space; a reset; a state was loaded; is any kind of message on? */
void pci_msi_config_written(struct pci_dev *pd);
void pci_msi_reset(struct pci_dev *pd);
int pci_msi_post_load(struct pci_dev *pd, struct err *err);
bool pci_msi_on(const struct pci_dev *pd);
/* What a byte of configuration space reads where it is not a stored one: the pending bits of MSI. */
u8 pci_msi_config_byte(const struct pci_dev *pd, unsigned off, u8 stored);
