/* The PCI transport of virtio: a function with the registers of [virtio 4.1] in BAR 0, MSI-X in BAR 2.
 *
 * A device type keeps one beside its struct virtio and calls these from its own init, reset, post_load and fini; its
 * state list has VIRTIO_PCI_STATE(). Main thread, vCPUs not running.
 */
#pragma once

#include "dev/pci.h"
#include "dev/pci_msi.h"
#include "dev/virtio/virtio.h"

struct virtio_pci {
	struct virtio *v;
	struct pci_dev fn;
	struct pci_msix msix;
	u8 access_cap; /* where the capability for access through configuration space is */

	/* State */
	u32 device_feature_select, driver_feature_select;
	u16 queue_select;
	u8 isr;
	u16 config_vector;
	u16 vector[VIRTIO_MAX_QUEUES];
};

#define VIRTIO_PCI_STATE(s, p)                                                                           \
	STATE_U8S(s, p.fn.config), PCI_MSIX_STATE(s, p.msix), STATE_U32(s, p.device_feature_select),     \
		STATE_U32(s, p.driver_feature_select), STATE_U16(s, p.queue_select), STATE_U8(s, p.isr), \
		STATE_U16(s, p.config_vector), STATE_U16S(s, p.vector)

/* After virtio_init(). Puts the function into the first free slot of the VM's bus; -ENODEV when there is none. */
int virtio_pci_init(struct virtio_pci *p, struct virtio *v, struct err *err);
void virtio_pci_fini(struct virtio_pci *p); /* accepts a half-built one */
/* Both reset and check the struct virtio too. */
void virtio_pci_reset(struct virtio_pci *p);
int virtio_pci_post_load(struct virtio_pci *p, struct err *err);
