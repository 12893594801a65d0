/* Ports, MMIO and MSRs: sorted tables and a binary search.
 *
 * An access is decoded by its first byte. It is cut into pieces, lowest address first, each a power of
 * two, at most the device's max_size and inside the region; what lies past the region's end reads
 * all-ones and is not written. The device's lock is held over all pieces of one access.
 *
 * Omitted: an access that begins outside every region but ends in one finds nobody home (on a
 * real ISA bus the bytes would be decoded one by one); no driver of a decoded chip does that.
 *
 * Lookups and accesses: vCPU threads. Changes: main thread, no vCPU running.
 */
#include "vm/bus.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bits.h"

#define BUS_PIO_END 0x10000ull
#define BUS_SLOT    sizeof(void *) /* of the tables */

/* Index of the last region with base <= addr, or -1. */
static int bus_search(const struct bus *bus, enum bus_space space, u64 addr)
{
	int lo = 0, hi = (int)bus->nr[space];

	while (lo < hi) {
		int mid = (lo + hi) / 2;

		if (bus->space[space][mid]->base <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo - 1;
}

int bus_add(struct bus *bus, struct region *region)
{
	unsigned n = bus->nr[region->space];
	struct region **table = bus->space[region->space];
	u64 last = region->base + region->len - 1;
	unsigned max = region->ops->max_size;
	int at;

	if (!region->len || last < region->base || !bits_is_pow2(max) || max > 8)
		return -EINVAL;
	if (region->space == BUS_PIO && last >= BUS_PIO_END)
		return -EINVAL;
	at = bus_search(bus, region->space, last);
	if (at >= 0 && table[at]->base + (table[at]->len - 1) >= region->base)
		return -EEXIST;
	if (n == BUS_MAX_REGIONS)
		return -ENOSPC;
	at++;
	memmove(&table[at + 1], &table[at], (n - (unsigned)at) * BUS_SLOT);
	table[at] = region;
	bus->nr[region->space]++;
	bus_changed(bus);
	return 0;
}

void bus_del(struct bus *bus, struct region *region)
{
	struct region **table = bus->space[region->space];

	for (unsigned i = 0; i < bus->nr[region->space]; i++) {
		if (table[i] != region)
			continue;
		bus->nr[region->space]--;
		memmove(&table[i], &table[i + 1], (bus->nr[region->space] - i) * BUS_SLOT);
		bus_changed(bus);
		return;
	}
}

int bus_add_msr(struct bus *bus, struct msr_region *region)
{
	unsigned at;

	if (region->first > region->last)
		return -EINVAL;
	for (at = 0; at < bus->nr_msr; at++) {
		if (region->first <= bus->msr[at]->last && bus->msr[at]->first <= region->last)
			return -EEXIST;
		if (region->last < bus->msr[at]->first)
			break;
	}
	if (bus->nr_msr == BUS_MAX_MSR_REGIONS)
		return -ENOSPC;
	/* The rest cannot overlap: it is sorted. */
	memmove(&bus->msr[at + 1], &bus->msr[at], (bus->nr_msr - at) * BUS_SLOT);
	bus->msr[at] = region;
	bus->nr_msr++;
	return 0;
}

void bus_del_msr(struct bus *bus, struct msr_region *region)
{
	for (unsigned i = 0; i < bus->nr_msr; i++) {
		if (bus->msr[i] != region)
			continue;
		bus->nr_msr--;
		memmove(&bus->msr[i], &bus->msr[i + 1], (bus->nr_msr - i) * BUS_SLOT);
		return;
	}
}

const struct region *bus_find(const struct bus *bus, enum bus_space space, u64 addr)
{
	int at = bus_search(bus, space, addr);
	const struct region *r;

	if (at < 0)
		return NULL;
	r = bus->space[space][at];
	return addr - r->base < r->len ? r : NULL;
}

static inline void bus_lock(pthread_mutex_t *lock)
{
	if (lock)
		pthread_mutex_lock(lock);
}

static inline void bus_unlock(pthread_mutex_t *lock)
{
	if (lock)
		pthread_mutex_unlock(lock);
}

/* The size of the next piece: `left` bytes of the access are to do at this offset. */
static unsigned bus_piece(const struct region *r, u64 offset, unsigned left)
{
	unsigned n = MIN(left, r->ops->max_size);

	while (n > left || n > r->len - offset || !bits_is_pow2(n))
		n--;
	return n;
}

bool bus_late(const struct bus *bus, enum bus_space space, u64 addr, struct bus_late *ret_late)
{
	const struct region *r = bus_find(bus, space, addr);
	bool late;

	*ret_late = (struct bus_late){ 0 };
	if (!r || !r->ops->late)
		return false;
	bus_lock(r->lock);
	late = r->ops->late(r->opaque, addr - r->base, ret_late);
	bus_unlock(r->lock);
	ret_late->at += r->base;
	return late;
}

void bus_changed(struct bus *bus)
{
	atomic_fetch_add(&bus->changes, 1);
}

u64 bus_read(struct bus *bus, enum bus_space space, u64 addr, unsigned size)
{
	const struct region *r = bus_find(bus, space, addr);
	u64 val = bits_mask(size), offset;

	if (!r)
		return val;
	offset = addr - r->base;
	bus_lock(r->lock);
	if (likely(size <= r->ops->max_size && size <= r->len - offset)) {
		val &= r->ops->read(r->opaque, offset, size);
	} else {
		for (unsigned done = 0; done < size && offset + done < r->len;) {
			unsigned n = bus_piece(r, offset + done, size - done);
			u64 piece = r->ops->read(r->opaque, offset + done, n) & bits_mask(n);

			val &= ~(bits_mask(n) << (8 * done));
			val |= piece << (8 * done);
			done += n;
		}
	}
	bus_unlock(r->lock);
	return val;
}

void bus_write(struct bus *bus, enum bus_space space, u64 addr, unsigned size, u64 val)
{
	const struct region *r = bus_find(bus, space, addr);
	u64 offset;

	if (!r)
		return;
	offset = addr - r->base;
	bus_lock(r->lock);
	if (likely(size <= r->ops->max_size && size <= r->len - offset)) {
		r->ops->write(r->opaque, offset, size, val & bits_mask(size));
	} else {
		for (unsigned done = 0; done < size && offset + done < r->len;) {
			unsigned n = bus_piece(r, offset + done, size - done);

			r->ops->write(r->opaque, offset + done, n, (val >> (8 * done)) & bits_mask(n));
			done += n;
		}
	}
	bus_unlock(r->lock);
}

static const struct msr_region *bus_find_msr(const struct bus *bus, u32 msr)
{
	for (unsigned i = 0; i < bus->nr_msr; i++)
		if (msr >= bus->msr[i]->first && msr <= bus->msr[i]->last)
			return bus->msr[i];
	return NULL;
}

bool bus_read_msr(struct bus *bus, struct vcpu *vcpu, u32 msr, u64 *ret_val)
{
	const struct msr_region *r = bus_find_msr(bus, msr);
	bool ok;

	if (!r)
		return false;
	bus_lock(r->lock);
	ok = r->ops->read(r->opaque, vcpu, msr, ret_val);
	bus_unlock(r->lock);
	return ok;
}

bool bus_write_msr(struct bus *bus, struct vcpu *vcpu, u32 msr, u64 val)
{
	const struct msr_region *r = bus_find_msr(bus, msr);
	bool ok;

	if (!r)
		return false;
	bus_lock(r->lock);
	ok = r->ops->write(r->opaque, vcpu, msr, val);
	bus_unlock(r->lock);
	return ok;
}
