/* The KVM paravirtual clock "kvmclock": the wall clock and the per-vCPU time structures that a guest asks
 * for through MSRs 11H, 12H, 4B564D00H and 4B564D01H. No conf needed; one device for all vCPUs, to be
 * created after the vCPUs exist. CPUID must offer it: leaf 40000001H EAX bits 0 (old MSRs), 3 (new MSRs)
 * and 24 (the clock is stable between vCPUs).
 */
#pragma once

#include "base/types.h"
#include "vm/device.h"

#define KVMCLOCK_FEATURES (BIT(0) | BIT(3) | BIT(24)) /* for CPUID 40000001H:EAX */

/* Main thread, vCPUs stopped: guest time or the TSC offsets have been changed (resume, restore). */
void kvmclock_refresh(struct device *dev);
