/* The only way from a device to RAM. A later IOMMU stands behind these calls.
 *
 * Only RAM is reached: an address in MMIO, ROM (for writes), a hole or past the end
 * fails with -EFAULT, so that no DMA can re-enter a device. Any thread.
 */
#pragma once

#include "base/types.h"

struct vm;

int dma_read(struct vm *vm, iova_t addr, void *buf, u64 len);
int dma_write(struct vm *vm, iova_t addr, const void *buf, u64 len);

/* The len bytes at addr as memory of this process; NULL unless all of them are RAM, and for writing none ROM. It stays
 * where it is as long as the VM, and changes under the reader whenever a vCPU likes. */
void *dma_map(struct vm *vm, iova_t addr, u64 len, bool write);

/* Gives the memory of whole pages back to the host; they read zero from then on. -EFAULT where not all of it is RAM that may be
 * written, -EINVAL where it is no whole pages, or the host's reason. */
int dma_discard(struct vm *vm, iova_t addr, u64 len);

/* To be called after writing len bytes at p, inside what dma_map() gave, and before the guest is told. A full memory
 * barrier. */
void dma_written(struct vm *vm, const void *p, u64 len);
