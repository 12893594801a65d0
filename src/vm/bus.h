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

struct region_ops {
	/* offset < region length; size 1, 2, 4 or 8, at most max_size; on a vCPU's thread. */
	u64 (*read)(void *opaque, u64 offset, unsigned size);
	void (*write)(void *opaque, u64 offset, unsigned size, u64 val);
	unsigned max_size; /* 1, 2, 4 or 8 */
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
};

/* The caller keeps the region; -EEXIST when it overlaps another, -ENOSPC when full. */
int bus_add(struct bus *bus, struct region *region);
void bus_del(struct bus *bus, struct region *region);
int bus_add_msr(struct bus *bus, struct msr_region *region);
void bus_del_msr(struct bus *bus, struct msr_region *region);

const struct region *bus_find(const struct bus *bus, enum bus_space space, u64 addr);

/* size 1, 2, 4 or 8. */
u64 bus_read(struct bus *bus, enum bus_space space, u64 addr, unsigned size);
void bus_write(struct bus *bus, enum bus_space space, u64 addr, unsigned size, u64 val);
bool bus_read_msr(struct bus *bus, struct vcpu *vcpu, u32 msr, u64 *ret_val);
bool bus_write_msr(struct bus *bus, struct vcpu *vcpu, u32 msr, u64 val);
