/* Ports, memory-mapped I/O and MSRs: who answers at which address.
 *
 * Regions are added before the vCPUs run, or while all of them are stopped; lookups take no lock.
 * The bus takes the device's lock around each call, so device code does not lock. Nobody
 * home reads all-ones and ignores writes (MSR: #GP). An access that is wider than
 * max_size is split into max_size pieces, lowest address first; one that runs over the end of a
 * region reads all-ones for the rest. Accesses a device does not decode: it returns all-ones itself.
 */
#pragma once

#include <pthread.h>

#include "base/types.h"

struct vcpu;

enum bus_space { BUS_PIO, BUS_MMIO, BUS_NR_SPACES };

/* What the kernel may do with a write instead of having it at once. */
struct bus_late {
	/* Writes in [at, at + len) may come later, in their order, but before any other access of a vCPU, and before whoever looks at
	 * the device from outside has called vm_settle(). Else: a doorbell. A write at at, of any size and value, says that
	 * there is something to do, and may come later as one of val, 2 bytes, on the main thread. */
	bool posted;
	u64 at, len;
	u64 val;
};

struct region_ops {
	/* offset < region length; size 1, 2, 4 or 8, at most max_size; on a vCPU's thread. */
	u64 (*read)(void *opaque, u64 offset, unsigned size);
	void (*write)(void *opaque, u64 offset, unsigned size, u64 val);
	unsigned max_size; /* 1, 2, 4 or 8 */
	/* May writes at offset come late? ret_late is relative to the region. Any thread, with the device's lock where it has one.
	 * What it says stays true until bus_changed(). NULL: none may. */
	bool (*late)(void *opaque, u64 offset, struct bus_late *ret_late);
};

struct region {
	const char *name; /* for the exit table and messages */
	const struct region_ops *ops;
	void *opaque;
	pthread_mutex_t *lock; /* the device's; NULL: none needed */
	enum bus_space space;
	u64 base, len;
};

struct msr_ops {
	/* Return false for #GP. On vcpu's thread. */
	bool (*read)(void *opaque, struct vcpu *vcpu, u32 msr, u64 *ret_val);
	bool (*write)(void *opaque, struct vcpu *vcpu, u32 msr, u64 val);
};

struct msr_region {
	const char *name;
	const struct msr_ops *ops;
	void *opaque;
	pthread_mutex_t *lock;
	u32 first, last;
};

#define BUS_MAX_REGIONS     128
#define BUS_MAX_MSR_REGIONS 16

struct bus {
	struct region *space[BUS_NR_SPACES][BUS_MAX_REGIONS]; /* sorted by base */
	unsigned nr[BUS_NR_SPACES];
	struct msr_region *msr[BUS_MAX_MSR_REGIONS];
	unsigned nr_msr;
	_Atomic u32 changes; /* counted, of what bus_late() says */
};

/* The caller keeps the region; -EEXIST when it overlaps another, -ENOSPC when full. */
int bus_add(struct bus *bus, struct region *region);
void bus_del(struct bus *bus, struct region *region);
int bus_add_msr(struct bus *bus, struct msr_region *region);
void bus_del_msr(struct bus *bus, struct msr_region *region);

const struct region *bus_find(const struct bus *bus, enum bus_space space, u64 addr);

/* May writes to addr come late? ret_late has addresses. Any thread. */
bool bus_late(const struct bus *bus, enum bus_space space, u64 addr, struct bus_late *ret_late);
/* What bus_late() said of some addresses is not true any more. Any thread. */
void bus_changed(struct bus *bus);

/* size 1, 2, 4 or 8. */
u64 bus_read(struct bus *bus, enum bus_space space, u64 addr, unsigned size);
void bus_write(struct bus *bus, enum bus_space space, u64 addr, unsigned size, u64 val);
bool bus_read_msr(struct bus *bus, struct vcpu *vcpu, u32 msr, u64 *ret_val);
bool bus_write_msr(struct bus *bus, struct vcpu *vcpu, u32 msr, u64 val);
