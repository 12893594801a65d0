/* Hostile rings for one virtio device (FUZZ_TYPE): descriptors, tables, indexes, events and data written at random, and
 * nearly right; notifications, register accesses, resets, completions and time in any order [G01-G22, G26-G31, G34-G36].
 *
 * Whatever came before, a reset gives a device that starts again. What is read and written outside of the guest's memory
 * is the sanitizers' business; fakeblock.c checks what reaches a disk.
 *
 * The input is a script; where it ends within a step, it ends there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "dev/virtio/virtio_balloon.h"
#include "vdriver.h"
#include "wholeboard.h"

#define RAM             VDRIVER_RAM
#define FIRST_HOST_PORT ((1u << 30) + 1)

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);

static const u8 *at, *end;
static u8 frame[NET_MAX_FRAME];

static u64 take(unsigned bytes)
{
	u64 v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (u64)(at < end ? *at++ : 0) << 8 * i;
	return v;
}

/* Mostly small offsets into the data, else edges or anything. */
static u64 take_addr(void)
{
	static const u64 edges[] = {
		0,
		VDRIVER_RINGS,
		VDRIVER_RINGS + 0x4000,
		VDRIVER_RINGS + 0x8000,
		RAM - 1,
		RAM,
		0xe0000,
		0xc0000000,
		0xc0010000,
		0xfee00000,
		~0ull,
		~0ull << 12,
	};
	u64 kind = take(1);

	if (kind < 160)
		return VDRIVER_DATA + take(2) * 4;
	if (kind < 240)
		return edges[kind % ARRAY_SIZE(edges)] + (take(1) & 0x3f);
	return take(8);
}

static u32 take_len(void)
{
	u64 kind = take(1);

	if (kind < 64)
		return (u32)(kind % 18);
	if (kind < 160)
		return 512u * (kind % 17);
	if (kind < 224)
		return (u32)take(2);
	return (u32)take(4);
}

static void put_desc(struct vdriver *d, unsigned q, bool table)
{
	struct vdriver save = *d;
	unsigned i = (unsigned)take(1);
	u64 addr = take_addr();
	u32 len = take_len();
	u16 flags = (u16)(take(1) & 7), next = (u16)take(1);

	if (flags & VDRIVER_TABLE) {
		addr = VDRIVER_DATA + 0x20000 + (addr & 0xff0);
		len = 16 * (len % 20);
		flags &= take(1) & 1 ? 7 : (u16)~VDRIVER_NEXT;
	}
	if (d->packed)
		flags |= (u16)(d->q[q].wrap ? BIT(7) : BIT(15));
	if (table) {
		d->q[q].desc = VDRIVER_DATA + 0x20000;
		flags &= (u16)(take(1) & 15 ? ~VDRIVER_TABLE : ~0u);
	}
	vdriver_desc(d, q, i % (table ? 64 : MAX(d->q[q].size, 1)), addr, len, flags, next % 64);
	*d = save;
}

/* A buffer that is right, with contents that may be. */
static void put_buffer(struct vdriver *d, unsigned q)
{
	struct vdriver_seg segs[6] = { { 0, 0, false } };
	unsigned n = 1 + (unsigned)take(1) % 6, out = (unsigned)take(1) % (n + 1);

	for (unsigned i = 0; i < n; i++)
		segs[i] =
			(struct vdriver_seg){ VDRIVER_DATA + (take(1) << 9), take_len() % 0x10000, i >= out };
	/* A header: type, sector; flags, kind of segment; class, command */
	st32(vdriver_mem(d, segs[0].addr), (u32)take(1) % 16);
	st64(vdriver_mem(d, segs[0].addr + 8), take(1));
	if (out > 1 && take(1) & 1)
		segs[0].len = 16;
	vdriver_add(d, q, segs, n);
}

/* A packet for the vsock device, mostly of one of a few connections. */
static void put_vsock(struct vdriver *d)
{
	u64 pick = take(4);
	u8 *p = vdriver_mem(d, VDRIVER_DATA + 0x8000);
	const struct vdriver_seg seg = { VDRIVER_DATA + 0x8000, 44 + (u32)(pick >> 8 & 0xff) * 300, false };

	st64(p, pick & BIT(30) ? take(1) : 3);
	st64(p + 8, pick & BIT(31) ? take(1) : 2);
	st32(p + 16, (u32)pick & 3);
	st32(p + 20, pick & 4 ? FIRST_HOST_PORT + (pick >> 3 & 3) : pick >> 3 & 3);
	st32(p + 24, pick & BIT(29) ? take_len() : seg.len - 44);
	st16(p + 28, (u16)(pick & BIT(28) ? take(2) : 1));
	st16(p + 30, (u16)(pick >> 16 & 7));
	st32(p + 32, (u32)(pick >> 20 & 3));
	st32(p + 36, pick & BIT(27) ? (u32)take(4) : 4096);
	st32(p + 40, pick & BIT(26) ? (u32)take(4) : 0);
	vdriver_add(d, 1, &seg, 1);
}

/* What the host's end does, which may be anything that the contract allows. */
static void vsock_event(struct wholeboard *w)
{
	u64 pick = take(3);
	unsigned slot = pick & 7;
	struct fake_stream *s = &w->vsock.stream[slot];

	w->vsock.refuse = pick & 8;
	w->vsock.room = pick & 16 ? 1000 : ~(size_t)0;
	s->have = pick >> 12;
	s->room = pick & 32 ? 0 : pick >> 10;
	s->eof |= (pick & 0xc0) == 0xc0;
	s->broken |= (pick & 0x300) == 0x300;
	if (pick & BIT(11))
		fake_vsock_call(&w->vsock, (u32)pick & 3);
	fake_vsock_ready(&w->vsock, slot, (unsigned)(pick >> 8) & 7);
	fake_vsock_idle(&w->vsock);
}

static void start(struct vdriver *d)
{
	static const u16 sizes[] = { 1, 2, 4, 16, 64, 256 };
	u64 pick = take(2), features = vdriver_offered(d);

	if (!(pick & 1))
		features &= ~VIRTIO_F_RING_PACKED;
	if (!(pick & 2))
		features &= ~VIRTIO_F_EVENT_IDX;
	if (!(pick & 4))
		features &= ~VIRTIO_F_INDIRECT_DESC;
	features &= pick & 8 ? ~0ull : take(8) | ~0xffffffull;
	vdriver_negotiate(d, features);
	for (unsigned q = 0; q < d->nr_queues; q++)
		vdriver_queue(d, q, sizes[(pick >> 4) % ARRAY_SIZE(sizes)]);
	vdriver_set_status(d, 0xf);
}

static void step(struct wholeboard *w, struct vdriver *d)
{
	u64 op = take(1);
	unsigned q = (unsigned)(op >> 5) % d->nr_queues;
	u64 val;

	switch (op & 31) {
	case 0:
	case 1:
	case 2: put_desc(d, q, false); break;
	case 3:
	case 4: put_desc(d, q, true); break;
	case 5:
	case 6:
	case 7:
	case 8:
		if (FUZZ_TYPE == VIRTIO_ID_VSOCK && q == 1)
			put_vsock(d);
		else
			put_buffer(d, q);
		break;
	case 9:
	case 10:
		if (!d->packed && d->q[q].size)
			vdriver_offer(d, q, (u16)(take(1) % (d->q[q].size + 1u)));
		break;
	case 11:
	case 12:
	case 13:
	case 14: vdriver_kick(d, q); break;
	case 15: {
		/* What somebody outside asks for, who may ask for anything. */
		struct device *balloon = virtio_balloon_find(&w->b.vm);
		struct balloon_info info;

		virtio_balloon_set_target(balloon, take(2) << 12);
		virtio_balloon_query(balloon, &info);
		if (info.actual > RAM || info.target > RAM)
			abort();
		break;
	}
	case 16: st16(vdriver_mem(d, d->q[q].driver + take(1)), (u16)take(2)); break;
	case 17: st16(vdriver_mem(d, d->q[q].device + take(1)), (u16)take(2)); break;
	case 18: st64(vdriver_mem(d, VDRIVER_DATA + take(2)), take(8)); break;
	case 19:
		val = take(1);
		fake_block_run(&w->disk, (unsigned)val, take(2));
		fake_fs_run(&w->fs, (unsigned)val);
		break;
	case 20: w->fs.hold = w->disk.hold = take(1) & 1; break;
	case 21:
		val = take(2);
		w->net.full = val & 1;
		if (!(val & 1))
			fake_net_room(&w->net);
		/* What a back end has is its own memory. */
		val = val & 2 ? val : val >> 6;
		memcpy(frame, vdriver_mem(d, VDRIVER_DATA), val);
		fake_net_give(&w->net, frame, val);
		break;
	case 22:
		val = take(2);
		vdriver_write(d, (unsigned)val & 0x3fff, 1u << (val >> 14), take(4));
		break;
	case 23:
		val = take(2);
		vdriver_read(d, (unsigned)val & 0x3fff, 1u << (val >> 14));
		break;
	case 24: start(d); break;
	case 25: vdriver_set_status(d, (u8)take(1)); break;
	case 26: board_advance(&w->b, take(2) * 1000); break;
	case 27:
		w->console.room = take(1) & 1 ? SIZE_MAX : take(1);
		vsock_event(w);
		break;
	case 28: {
		u8 typed[32] = { 0 };

		fake_chr_type(&w->console, typed, take(1) & 31);
		break;
	}
	case 29: bus_write(&w->b.vm.bus, BUS_MMIO, d->ecam + take(1), 4, take(4)); break;
	case 30: device_reset_all(&w->b.vm, RESET_WARM); break;
	default: {
		u32 id, used;

		/* The driver's own view is of use only while it is right. */
		if (!d->packed)
			vdriver_used(d, q, &id, &used);
	}
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static struct wholeboard w;
	struct vdriver d;

	wholeboard_init(&w, RAM, 1);
	vdriver_find(&d, &w.b, FUZZ_TYPE, 0);
	at = data;
	end = data + len;
	start(&d);
	while (at < end)
		step(&w, &d);
	w.fs.hold = w.disk.hold = false;
	fake_fs_run(&w.fs, ~0u);
	fake_block_run(&w.disk, ~0u, 1);
	wholeboard_place_bars(&w);
	vdriver_find(&d, &w.b, FUZZ_TYPE, 0);
	vdriver_start(&d, VIRTIO_F_EVENT_IDX, 16);
	wholeboard_fini(&w);
	return 0;
}
