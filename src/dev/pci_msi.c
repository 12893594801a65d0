/* MSI and MSI-X.
 *
 * Document: PCI Local Bus Specification 3.0, [PCI 6.8.1] (MSI, with 64-bit addresses and masks per vector) and
 * [PCI 6.8.2] (MSI-X).
 *
 * How it works: what a guest programs is kept as it reads it, in configuration space and in the table; a notification
 * looks there whether its message may leave. If not (vector or function masked, bus mastering off), a pending
 * bit is set, and every write that could open the way sends what waits [PCI 6.8.3.4]. A message goes to irq_msi()
 * and nowhere else: an address outside the APICs' window is no interrupt, and no write to memory either
 * (hostile case G23).
 *
 * Omitted, and why that is safe: accesses to the table narrower than 32 bits are undefined [PCI 6.8.2.6]; here they
 * write their bytes. Steering tags and the like of PCI Express are not offered.
 *
 * Threads: vCPUs and the owner's, under the owner's lock.
 */
#include "dev/pci_msi.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "dev/pci.h"
#include "vm/irq.h"

/* Both capabilities */
#define CAP_MSI  0x05
#define CAP_MSIX 0x11
#define CONTROL  2

/* MSI [PCI 6.8.1.3] */
#define MSI_ENABLE    BIT(0)
#define MSI_CAPABLE   1 /* shift of log2 of the vectors asked for */
#define MSI_GRANTED   4 /* shift of log2 of those granted */
#define MSI_64        BIT(7)
#define MSI_MASKING   BIT(8)
#define MSI_ADDR      0x04
#define MSI_DATA      0x0c
#define MSI_MASK      0x10
#define MSI_PENDING   0x14
#define MSI_LEN       0x18
#define MSI_FULL_MASK 0xffffffffu

/* MSI-X [PCI 6.8.2.3 ff.] */
#define MSIX_ENABLE   BIT(15)
#define MSIX_FMASK    BIT(14)
#define MSIX_TABLE    4
#define MSIX_PBA      8
#define MSIX_LEN      12
#define MSIX_BAR_SIZE 0x1000
#define MSIX_PBA_AT   0x800
#define ENTRY_SIZE    16
#define ENTRY_DATA    8
#define ENTRY_CONTROL 12
#define ENTRY_MASKED  BIT(0)

_Static_assert(PCI_MSIX_MAX *ENTRY_SIZE <= MSIX_PBA_AT, "the table ends before the pending bits");

static bool is_master(const struct pci_dev *pd)
{
	return ld16(pd->config + PCI_COMMAND) & PCI_COMMAND_MASTER;
}

static void send(const struct pci_dev *pd, u64 addr, u32 data)
{
	irq_msi(pd->owner->vm, addr, data);
}

/* ---- MSI ---- */

int pci_msi_init(struct pci_msi *m, struct pci_dev *pd, unsigned nr)
{
	unsigned log2 = 0;
	u8 *init, *wmask;
	int cap;

	if (!bits_is_pow2(nr) || nr > PCI_MSI_MAX)
		return -EINVAL;
	while (1u << log2 < nr)
		log2++;
	cap = pci_dev_add_cap(pd, CAP_MSI, MSI_LEN);
	if (cap < 0)
		return cap;
	*m = (struct pci_msi){ .pd = pd, .cap = (u8)cap, .nr = (u8)nr };
	init = pd->init + cap;
	wmask = pd->wmask + cap;
	st16(init + CONTROL, (u16)(MSI_64 | MSI_MASKING | log2 << MSI_CAPABLE));
	st16(wmask + CONTROL, MSI_ENABLE | 7 << MSI_GRANTED);
	st32(wmask + MSI_ADDR, ~3u);
	st32(wmask + MSI_ADDR + 4, ~0u);
	st16(wmask + MSI_DATA, 0xffff);
	st32(wmask + MSI_MASK, MSI_FULL_MASK >> (32 - nr));
	memcpy(pd->config, pd->init, sizeof(pd->config));
	pd->msi = m;
	return 0;
}

bool pci_msi_enabled(const struct pci_msi *m)
{
	return m->pd && ld16(m->pd->config + m->cap + CONTROL) & MSI_ENABLE;
}

/* A guest may grant fewer vectors than there are, and write a number that is reserved. */
static unsigned msi_granted(const struct pci_msi *m)
{
	unsigned log2 = ld16(m->pd->config + m->cap + CONTROL) >> MSI_GRANTED & 7;

	return MIN(1u << log2, (unsigned)m->nr);
}

static void msi_send_pending(struct pci_msi *m)
{
	const u8 *cap = m->pd->config + m->cap;
	u32 ready = m->pending & ~ld32(cap + MSI_MASK), granted = msi_granted(m);

	if (!ready || !pci_msi_enabled(m) || !is_master(m->pd))
		return;
	m->pending &= ~ready;
	for (unsigned v = 0; v < m->nr; v++) {
		u32 data = ld16(cap + MSI_DATA);

		/* The low bits of the data are the vector's number [PCI 6.8.1.6]. */
		if (ready >> v & 1 && v < granted)
			send(m->pd, ld64(cap + MSI_ADDR), (data & ~(granted - 1)) | v);
	}
}

void pci_msi_notify(struct pci_msi *m, unsigned vector)
{
	if (!pci_msi_enabled(m))
		return;
	if (vector >= msi_granted(m))
		vector = 0;
	m->pending |= 1u << vector;
	msi_send_pending(m);
}

/* ---- MSI-X ---- */

static u8 *entry_of(struct pci_msix *m, unsigned vector)
{
	return m->table + vector * ENTRY_SIZE;
}

bool pci_msi_enabled_x(const struct pci_msix *m)
{
	return m->pd && ld16(m->pd->config + m->cap + CONTROL) & MSIX_ENABLE;
}

static void msix_send_pending(struct pci_msix *m)
{
	u16 control = ld16(m->pd->config + m->cap + CONTROL);

	if (!m->pending || !(control & MSIX_ENABLE) || control & MSIX_FMASK || !is_master(m->pd))
		return;
	for (unsigned v = 0; v < m->nr; v++) {
		const u8 *e = entry_of(m, v);

		if (!(m->pending >> v & 1) || ld32(e + ENTRY_CONTROL) & ENTRY_MASKED)
			continue;
		m->pending &= ~(1u << v);
		send(m->pd, ld64(e), ld32(e + ENTRY_DATA));
	}
}

void pci_msi_notify_x(struct pci_msix *m, unsigned vector)
{
	if (vector >= m->nr || !pci_msi_enabled_x(m))
		return;
	m->pending |= 1u << vector;
	msix_send_pending(m);
}

/* Bits that are reserved read 0. */
static void entry_tidy(u8 *e)
{
	e[0] &= (u8)~3;
	st32(e + ENTRY_CONTROL, ld32(e + ENTRY_CONTROL) & ENTRY_MASKED);
}

static u64 msix_read(void *opaque, u64 offset, unsigned size)
{
	struct pci_msix *m = opaque;
	u64 v = 0;

	for (unsigned i = 0; i < size; i++) {
		u64 at = offset + i;
		u8 byte = 0;

		if (at < (u64)m->nr * ENTRY_SIZE)
			byte = m->table[at];
		else if (at >= MSIX_PBA_AT && at < MSIX_PBA_AT + sizeof(m->pending))
			byte = (u8)(m->pending >> 8 * (at - MSIX_PBA_AT));
		v |= (u64)byte << 8 * i;
	}
	return v;
}

static void msix_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct pci_msix *m = opaque;

	for (unsigned i = 0; i < size && offset + i < (u64)m->nr * ENTRY_SIZE; i++) {
		m->table[offset + i] = (u8)(val >> 8 * i);
		entry_tidy(entry_of(m, (unsigned)(offset + i) / ENTRY_SIZE));
	}
	msix_send_pending(m);
}

static const struct region_ops msix_ops = { .read = msix_read, .write = msix_write, .max_size = 8 };

static void msix_reset(struct pci_msix *m)
{
	m->pending = 0;
	memset(m->table, 0, sizeof(m->table));
	for (unsigned v = 0; v < m->nr; v++)
		st32(entry_of(m, v) + ENTRY_CONTROL, ENTRY_MASKED);
}

int pci_msi_init_x(struct pci_msix *m, struct pci_dev *pd, unsigned nr, unsigned bar)
{
	int cap, r;

	if (nr < 1 || nr > PCI_MSIX_MAX)
		return -EINVAL;
	r = pci_dev_add_bar(pd, bar, PCI_BAR_MEM32, MSIX_BAR_SIZE, &msix_ops, m);
	if (r < 0)
		return r;
	cap = pci_dev_add_cap(pd, CAP_MSIX, MSIX_LEN);
	if (cap < 0)
		return cap;
	m->pd = pd;
	m->cap = (u8)cap;
	m->nr = (u8)nr;
	st16(pd->init + cap + CONTROL, (u16)(nr - 1));
	st16(pd->wmask + cap + CONTROL, MSIX_ENABLE | MSIX_FMASK);
	st32(pd->init + cap + MSIX_TABLE, bar);
	st32(pd->init + cap + MSIX_PBA, MSIX_PBA_AT | bar);
	memcpy(pd->config, pd->init, sizeof(pd->config));
	pd->msix = m;
	msix_reset(m);
	return 0;
}

/* ---- for pci.c ---- */

bool pci_msi_on(const struct pci_dev *pd)
{
	return (pd->msi && pci_msi_enabled(pd->msi)) || (pd->msix && pci_msi_enabled_x(pd->msix));
}

void pci_msi_config_written(struct pci_dev *pd)
{
	if (pd->msi)
		msi_send_pending(pd->msi);
	if (pd->msix)
		msix_send_pending(pd->msix);
}

void pci_msi_reset(struct pci_dev *pd)
{
	if (pd->msi)
		pd->msi->pending = 0;
	if (pd->msix)
		msix_reset(pd->msix);
}

u8 pci_msi_config_byte(const struct pci_dev *pd, unsigned off, u8 stored)
{
	const struct pci_msi *m = pd->msi;

	if (!m || off < m->cap + (unsigned)MSI_PENDING || off >= m->cap + (unsigned)MSI_LEN)
		return stored;
	return (u8)(m->pending >> 8 * (off - m->cap - MSI_PENDING));
}

int pci_msi_post_load(struct pci_dev *pd, struct err *err)
{
	struct pci_msix *m = pd->msix;
	bool bad = pd->msi && (u64)pd->msi->pending >> pd->msi->nr;

	if (m) {
		bad |= (u64)m->pending >> m->nr != 0;
		for (unsigned v = 0; v < PCI_MSIX_MAX; v++) {
			const u8 *e = entry_of(m, v);
			u8 tidy[ENTRY_SIZE] = { 0 };

			if (v < m->nr)
				memcpy(tidy, e, sizeof(tidy));
			entry_tidy(tidy);
			bad |= memcmp(tidy, e, sizeof(tidy)) != 0;
		}
	}
	if (bad)
		return err_set(err, -EINVAL,
			       "the state of device %s has message interrupts that it does not have",
			       pd->owner->id);
	return 0;
}
