/* Virtqueues: split and packed rings in guest memory, read and written as the device.
 *
 * Document: virtio 1.2, [virtio 2.6] to [virtio 2.8].
 *
 * How it works: when the driver enables a queue, its three areas are found in RAM once, and stay there. Every field
 * of a descriptor is read once, into a register, and checked there; what another vCPU writes meanwhile is then
 * too late (hostile case G10). A chain is followed for as many steps as the ring or the indirect table has entries
 * (G01), through one level of indirection (G05), and its parts must be RAM (G06), first those to read, then those
 * to write (G09), 4 GiB in all (G07). Everything else breaks the device: virtio_broken().
 *
 * The used ring is written before its index, and the index before the driver's wish for interrupts is read; the
 * wish for notifications is written before the available ring is looked at again. dma_written() is the full barrier
 * in between [virtio 2.7.13.4.1].
 *
 * Parts of no length are skipped. Buffers are given back in any order: VIRTIO_F_IN_ORDER is not offered.
 *
 * Threads: any, under the device's lock.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/bits.h"
#include "base/iov.h"
#include "dev/virtio/virtio.h"
#include "vm/dma.h"

/* Flags of descriptors [virtio 2.7.5] [virtio 2.8.13] */
#define DESC_NEXT     BIT(0)
#define DESC_WRITE    BIT(1)
#define DESC_INDIRECT BIT(2)
#define DESC_AVAIL    BIT(7)
#define DESC_USED     BIT(15)
#define DESC_SIZE     16u

/* Split: flags and index begin both rings [virtio 2.7.6] [virtio 2.7.8] */
#define RING_FLAGS   0
#define RING_IDX     2
#define RING_ENTRIES 4
#define NO_INTERRUPT 1 /* in the available ring's flags */
#define NO_NOTIFY    1 /* in the used ring's */
#define USED_ELEM    8u
#define AVAIL_LEN(n) (6 + 2 * (u64)(n))
#define USED_LEN(n)  (6 + (u64)USED_ELEM * (n))

/* Packed: event suppression [virtio 2.8.14] */
#define EVENT_OFF     0
#define EVENT_FLAGS   2
#define EVENT_ENABLE  0
#define EVENT_DISABLE 1
#define EVENT_DESC    2
#define EVENT_LEN     4
#define WRAP          BIT(15)

#define MAX_BUFFER (4 * GiB)

static bool is_packed(const struct virtio *v)
{
	return virtio_has(v, VIRTIO_F_RING_PACKED);
}

/* One read, whatever the compiler would like. */
static u64 read64(const void *p)
{
	u64 val = ld64(p);

	__asm__ volatile("" : "+r"(val) : : "memory");
	return val;
}

static u16 read16(const void *p)
{
	u16 val = ld16(p);

	__asm__ volatile("" : "+r"(val) : : "memory");
	return val;
}

static void write16(u8 *p, u16 val)
{
	__asm__ volatile("" : : : "memory");
	st16(p, val);
	__asm__ volatile("" : : : "memory");
}

static struct vm *vm_of(const struct virtio *v)
{
	return v->dev->vm;
}

static bool broken(struct virtio *v, const char *why)
{
	virtio_broken(v, why);
	return false;
}

/* ---- mapping ---- */

bool virtq_map(struct virtio *v, unsigned n)
{
	struct virtq *q = &v->q[n];
	u16 size = v->q_size[n];
	u64 desc_len = (u64)size * DESC_SIZE;
	u64 driver_len = is_packed(v) ? EVENT_LEN : AVAIL_LEN(size);
	u64 device_len = is_packed(v) ? EVENT_LEN : USED_LEN(size);
	u64 driver_align = is_packed(v) ? 4 : 2;

	/* Alignment [virtio 2.7] [virtio 2.8]; a split ring's size is a power of two. */
	if (!size || (!is_packed(v) && !bits_is_pow2(size)))
		return false;
	if (v->q_desc[n] % 16 || v->q_driver[n] % driver_align || v->q_device[n] % 4)
		return false;
	u8 *desc = dma_map(vm_of(v), v->q_desc[n], desc_len, is_packed(v));
	u8 *driver = dma_map(vm_of(v), v->q_driver[n], driver_len, false);
	u8 *device = dma_map(vm_of(v), v->q_device[n], device_len, true);
	if (!desc || !driver || !device)
		return false;
	q->desc = desc;
	q->driver = driver;
	q->device = device;
	q->inflight = 0;
	q->signalled_valid = false;
	return true;
}

void virtq_start(struct virtio *v, unsigned n)
{
	/* Both wrap counters begin with 1 [virtio 2.8.1]. */
	v->q_avail[n] = v->q_used[n] = is_packed(v) ? WRAP : 0;
	v->q[n].signalled = v->q_used[n];
	v->q[n].signalled_valid = true;
}

/* ---- buffers ---- */

static bool add_seg(struct virtio *v, struct virtq_buf *buf, u64 addr, u32 len, bool write)
{
	u64 *sum = write ? &buf->in_len : &buf->out_len;
	void *p;

	if (!len)
		return true;
	if (!write && buf->nr_in)
		return broken(v, "a part to read comes after one to write");
	if (buf->nr_out + buf->nr_in == VIRTIO_MAX_SEGS)
		return broken(v, "a buffer of too many parts");
	p = dma_map(vm_of(v), addr, len, write);
	if (!p)
		return broken(v, "a part of a buffer is not in memory");
	if (buf->out_len + buf->in_len + len > MAX_BUFFER)
		return broken(v, "a buffer of more than 4 GiB");
	buf->iov[buf->nr_out + buf->nr_in] = (struct iovec){ p, len };
	*(write ? &buf->nr_in : &buf->nr_out) += 1;
	*sum += len;
	return true;
}

/* An indirect table: entries follow each other in packed rings, and are chained in split ones. */
static bool add_indirect(struct virtio *v, struct virtq_buf *buf, u64 addr, u32 len)
{
	unsigned nr = len / DESC_SIZE, at = 0;
	const u8 *table;

	if (!virtio_has(v, VIRTIO_F_INDIRECT_DESC))
		return broken(v, "an indirect descriptor that was not negotiated");
	if (!len || len % DESC_SIZE || nr > VIRTIO_MAX_SEGS)
		return broken(v, "an indirect table of an impossible length");
	table = dma_map(vm_of(v), addr, len, false);
	if (!table)
		return broken(v, "an indirect table is not in memory");
	for (unsigned steps = 0;; steps++) {
		u64 hi;
		u16 flags;

		if (steps == nr)
			return is_packed(v) ? true : broken(v, "a loop in an indirect table");
		hi = read64(table + (size_t)at * DESC_SIZE + 8);
		flags = is_packed(v) ? (u16)(hi >> 48) : (u16)(hi >> 32);
		if (flags & DESC_INDIRECT)
			return broken(v, "an indirect table in an indirect table");
		if (!add_seg(v, buf, read64(table + (size_t)at * DESC_SIZE), (u32)hi, flags & DESC_WRITE))
			return false;
		if (is_packed(v)) {
			at++;
		} else if (flags & DESC_NEXT) {
			at = (u16)(hi >> 48);
			if (at >= nr)
				return broken(v, "the next entry of an indirect table is outside of it");
		} else {
			return true;
		}
	}
}

/* One descriptor of the ring. */
static bool add_desc(struct virtio *v, struct virtq_buf *buf, u64 addr, u32 len, u16 flags)
{
	if (!(flags & DESC_INDIRECT))
		return add_seg(v, buf, addr, len, flags & DESC_WRITE);
	if (flags & DESC_NEXT)
		return broken(v, "an indirect descriptor with a next one");
	return add_indirect(v, buf, addr, len);
}

static bool split_pop(struct virtio *v, unsigned n, struct virtq_buf *buf)
{
	struct virtq *q = &v->q[n];
	u16 size = v->q_size[n], avail = v->q_avail[n];
	u16 idx = read16(q->driver + RING_IDX);
	u16 at;

	if (idx == avail)
		return false;
	if ((u16)(idx - avail) > size)
		return broken(v, "the index of the available ring jumps");
	if (q->inflight >= size)
		return broken(v, "more buffers are available than the ring has entries");
	/* x86 does not move the loads that follow in front of the index's. */
	at = read16(q->driver + RING_ENTRIES + 2 * (size_t)(avail & (size - 1)));
	buf->token = (struct virtq_token){ at, 1, v->epoch };
	for (unsigned steps = 0;; steps++) {
		const u8 *d = q->desc + (size_t)at * DESC_SIZE;
		u64 hi;
		u16 flags;

		if (at >= size)
			return broken(v, "a descriptor outside of the table");
		if (steps == size)
			return broken(v, "a loop of descriptors");
		hi = read64(d + 8);
		flags = (u16)(hi >> 32);
		if (!add_desc(v, buf, read64(d), (u32)hi, flags))
			return false;
		if (!(flags & DESC_NEXT))
			break;
		at = (u16)(hi >> 48);
	}
	v->q_avail[n] = (u16)(avail + 1);
	return true;
}

/* A position in a packed ring, some entries on or back. */
static u16 packed_move(u16 pos, int entries, u16 size)
{
	int at = (pos & 0x7fff) + entries;
	u16 wrap = pos & WRAP;

	if (at >= size) {
		at -= size;
		wrap ^= WRAP;
	} else if (at < 0) {
		at += size;
		wrap ^= WRAP;
	}
	return (u16)at | wrap;
}

/* Available: the driver's bit is its wrap counter, the device's bit is not [virtio 2.8.1]. */
static bool packed_is_avail(u16 flags, u16 pos)
{
	bool wrap = pos & WRAP;

	return !!(flags & DESC_AVAIL) == wrap && !!(flags & DESC_USED) != wrap;
}

static bool packed_pop(struct virtio *v, unsigned n, struct virtq_buf *buf)
{
	struct virtq *q = &v->q[n];
	u16 size = v->q_size[n], pos = v->q_avail[n];

	for (u16 entries = 1;; entries++) {
		const u8 *d = q->desc + (size_t)(pos & 0x7fff) * DESC_SIZE;
		u64 hi = read64(d + 8); /* with the flags, before the address */
		u16 flags = (u16)(hi >> 48);

		if (entries == 1 && !packed_is_avail(flags, pos))
			return false;
		if (q->inflight + entries > size)
			return broken(v, "a chain longer than the ring has free entries");
		if (!add_desc(v, buf, read64(d), (u32)hi, flags))
			return false;
		pos = packed_move(pos, 1, size);
		if (!(flags & DESC_NEXT)) {
			buf->token = (struct virtq_token){ (u16)(hi >> 32), entries, v->epoch };
			break;
		}
	}
	v->q_avail[n] = pos;
	return true;
}

bool virtq_pop(struct virtio *v, unsigned n, struct virtq_buf *buf)
{
	struct virtq *q = &v->q[n];

	if (!virtio_running(v) || v->dma_off || !q->desc)
		return false;
	buf->nr_out = buf->nr_in = 0;
	buf->out_len = buf->in_len = 0;
	if (is_packed(v) ? !packed_pop(v, n, buf) : !split_pop(v, n, buf))
		return false;
	q->inflight = (u16)(q->inflight + buf->token.entries);
	v->inflight++;
	return true;
}

void virtq_unpop(struct virtio *v, unsigned n, const struct virtq_token *tokens, unsigned nr)
{
	struct virtq *q = &v->q[n];

	for (unsigned i = 0; i < nr; i++) {
		v->inflight--;
		q->inflight = (u16)(q->inflight - tokens[i].entries);
		if (is_packed(v))
			v->q_avail[n] = packed_move(v->q_avail[n], -(int)tokens[i].entries, v->q_size[n]);
		else
			v->q_avail[n]--;
	}
}

/* ---- giving back ---- */

static void split_push(struct virtio *v, unsigned n, const struct virtq_used *used, unsigned nr)
{
	struct virtq *q = &v->q[n];
	u16 size = v->q_size[n];

	for (unsigned i = 0; i < nr; i++) {
		u8 *e = q->device + RING_ENTRIES + (size_t)USED_ELEM * (v->q_used[n] & (size - 1));

		st32(e, used[i].token.id);
		st32(e + 4, used[i].written);
		v->q_used[n]++;
	}
	write16(q->device + RING_IDX, v->q_used[n]);
	dma_written(vm_of(v), q->device, USED_LEN(size));
}

static void packed_push(struct virtio *v, unsigned n, const struct virtq_used *used, unsigned nr)
{
	struct virtq *q = &v->q[n];
	u8 *first = NULL;
	u16 first_flags = 0;

	for (unsigned i = 0; i < nr; i++) {
		u16 pos = v->q_used[n];
		u8 *d = q->desc + (size_t)(pos & 0x7fff) * DESC_SIZE;
		u16 flags =
			(u16)((pos & WRAP ? DESC_AVAIL | DESC_USED : 0) | (used[i].written ? DESC_WRITE : 0));

		st32(d + 8, used[i].written);
		st16(d + 12, used[i].token.id);
		/* The first one's flags come last: then all are there [virtio 2.8.21]. */
		if (i == 0) {
			first = d;
			first_flags = flags;
		} else {
			write16(d + 14, flags);
		}
		v->q_used[n] = packed_move(pos, used[i].token.entries, v->q_size[n]);
		/* A position of the next round cannot be compared with the old one. */
		if ((v->q_used[n] ^ pos) & WRAP)
			q->signalled_valid = false;
	}
	if (first)
		write16(first + 14, first_flags);
	dma_written(vm_of(v), q->desc, (u64)v->q_size[n] * DESC_SIZE);
}

void virtq_push(struct virtio *v, unsigned n, const struct virtq_used *used, unsigned nr)
{
	struct virtq *q = &v->q[n];

	if (!nr)
		return;
	v->inflight -= nr;
	/* All of one call were taken in one epoch. */
	if (used[0].token.epoch != v->epoch) {
		if (v->resetting && !v->inflight)
			virtio_write_status(v, 0);
		return;
	}
	for (unsigned i = 0; i < nr; i++)
		q->inflight = (u16)(q->inflight - used[i].token.entries);
	if (!virtio_running(v))
		return;
	if (is_packed(v))
		packed_push(v, n, used, nr);
	else
		split_push(v, n, used, nr);
}

/* ---- who tells whom ---- */

/* Has the index passed the event on its way from old to now? [virtio 2.7.7.2] */
static bool passed(u16 event, u16 now, u16 old)
{
	return (u16)(now - event - 1) < (u16)(now - old);
}

static bool wants_interrupt(struct virtio *v, unsigned n)
{
	struct virtq *q = &v->q[n];
	u16 old = q->signalled, now = v->q_used[n];
	bool valid = q->signalled_valid;

	q->signalled = now;
	q->signalled_valid = true;
	if (is_packed(v)) {
		u16 flags = read16(q->driver + EVENT_FLAGS), off = read16(q->driver + EVENT_OFF);
		u16 at = off & 0x7fff;

		if (flags != EVENT_DESC || !virtio_has(v, VIRTIO_F_EVENT_IDX))
			return flags != EVENT_DISABLE;
		if ((off ^ now) & WRAP)
			at = (u16)(at - v->q_size[n]);
		return !valid || passed(at, now & 0x7fff, old & 0x7fff);
	}
	if (virtio_has(v, VIRTIO_F_EVENT_IDX)) {
		u16 event = read16(q->driver + RING_ENTRIES + 2 * (size_t)v->q_size[n]);

		return !valid || passed(event, now, old);
	}
	return !(read16(q->driver + RING_FLAGS) & NO_INTERRUPT);
}

void virtq_notify(struct virtio *v, unsigned n)
{
	struct virtq *q = &v->q[n];

	if (!virtio_running(v) || !q->desc || (q->signalled_valid && q->signalled == v->q_used[n]))
		return;
	if (wants_interrupt(v, n))
		v->transport->queue_interrupt(v->transport_opaque, n);
}

static bool waiting(struct virtio *v, unsigned n)
{
	const struct virtq *q = &v->q[n];

	if (!is_packed(v))
		return read16(q->driver + RING_IDX) != v->q_avail[n];
	return packed_is_avail(read16(q->desc + (size_t)(v->q_avail[n] & 0x7fff) * DESC_SIZE + 14),
			       v->q_avail[n]);
}

bool virtq_listen(struct virtio *v, unsigned n, bool on)
{
	struct virtq *q = &v->q[n];
	bool event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX);

	/* What cannot be taken does not wait. */
	if (!virtio_running(v) || v->dma_off || !q->desc)
		return false;
	if (is_packed(v)) {
		if (on && event_idx)
			write16(q->device + EVENT_OFF, v->q_avail[n]);
		write16(q->device + EVENT_FLAGS,
			on ? (event_idx ? EVENT_DESC : EVENT_ENABLE) : EVENT_DISABLE);
		dma_written(vm_of(v), q->device, EVENT_LEN);
	} else if (event_idx) {
		/* An event that lies behind is as good as none: nothing to write for "off". */
		if (on) {
			u8 *event = q->device + RING_ENTRIES + (size_t)USED_ELEM * v->q_size[n];

			write16(event, v->q_avail[n]);
			dma_written(vm_of(v), event, 2);
		}
	} else {
		write16(q->device + RING_FLAGS, on ? 0 : NO_NOTIFY);
		dma_written(vm_of(v), q->device, 2);
	}
	return on && waiting(v, n);
}

/* ---- contents ---- */

size_t virtq_read(const struct iovec *iov, unsigned nr, u64 offset, void *buf, size_t len)
{
	return iov_get(iov, nr, offset, buf, len);
}

size_t virtq_write(struct vm *vm, const struct iovec *iov, unsigned nr, u64 offset, const void *buf,
		   size_t len)
{
	struct iov_walk w = { iov, nr, offset, len };
	struct iovec part;
	size_t done = 0;

	for (; iov_next(&w, &part); done += part.iov_len) {
		memcpy(part.iov_base, (const u8 *)buf + done, part.iov_len);
		dma_written(vm, part.iov_base, part.iov_len);
	}
	return done;
}
