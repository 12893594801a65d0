/* The only way from a device to RAM. A later IOMMU stands behind these calls.
 *
 * Only RAM is reached: an address in MMIO, ROM (for writes), a hole or past the end
 * fails with -EFAULT, so that no DMA can re-enter a device.
 */
#pragma once

#include "base/types.h"

struct vm;

int dma_read(struct vm *vm, iova_t addr, void *buf, u64 len);
int dma_write(struct vm *vm, iova_t addr, const void *buf, u64 len);
