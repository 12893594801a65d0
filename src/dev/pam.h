/* The programmable attribute map of the host bridge: where below 1 MiB the guest sees RAM and where ROM.
 *
 * Registers 90H-96H [Q35 5.1.19]. They are there on machines with firmware ROM only; else they read 0 and do nothing. All
 * with the bridge's owner's lock held, or while no vCPU runs.
 */
#pragma once

#include "dev/pci.h"

#define PAM_REG 0x90 /* in the configuration space */
#define PAM_NR  7

/* After pci_dev_init(). */
void pam_init(struct pci_dev *bridge);
/* The registers have changed, or were reset or loaded. */
void pam_update(struct pci_dev *bridge);

/* For a region over [RAM_SHADOW_START, RAM_SHADOW_END), whose opaque is the VM: a store where ROM is read and RAM written
 * arrives here, since for an engine it is one to ROM. */
extern const struct region_ops pam_shadow_ops;
