/* virtio-net: frames both ways, checksums and whole segments, mergeable buffers, filters, the control queue; what a driver
 * may get wrong [G30-G32]. */
#include "fakevm.h"

#include "base/bits.h"
#include "vdriver.h"
#include "wholeboard.h"

#define RX   0
#define TX   1
#define CTRL 2
#define DATA VDRIVER_DATA
#define ANS  (VDRIVER_DATA + 0x80000)

#define F_CSUM       BIT(0)
#define F_GUEST_CSUM BIT(1)
#define F_MAC        BIT(5)
#define F_TSO4       BIT(11)
#define F_MRG        BIT(15)
#define F_CTRL       BIT(17)
#define F_CTRL_RX    BIT(18)
#define F_CTRL_MAC   BIT(23)
#define ALL          (F_CSUM | F_GUEST_CSUM | F_MAC | F_TSO4 | F_MRG | F_CTRL | F_CTRL_RX | F_CTRL_MAC)

static struct wholeboard w;
static struct vdriver d;

static const u64 variants[] = { 0, VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED,
				VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX };

static void up(u64 features, u16 size)
{
	wholeboard_init(&w, VDRIVER_RAM, 1);
	vdriver_find(&d, &w.b, VIRTIO_ID_NET, 0);
	vdriver_start(&d, features, size);
}

static void down(void)
{
	wholeboard_fini(&w);
}

/* Sends len bytes that are at DATA + 12, behind a header of the test's; true: they went out. */
static bool send(u32 len)
{
	const struct vdriver_seg segs[] = { { DATA, 12, false }, { DATA + 12, len, false } };
	unsigned before = w.net.sent;
	u32 id, used;

	vdriver_add(&d, TX, segs, 2);
	vdriver_kick(&d, TX);
	assert_true(vdriver_used(&d, TX, &id, &used));
	assert_int_equal(used, 0);
	assert_in_range(w.net.sent - before, 0, 1);
	return w.net.sent > before;
}

static void header(u8 flags, u8 gso, u16 gso_size, u16 start, u16 offset)
{
	u8 *h = vdriver_mem(&d, DATA);

	memset(h, 0, 12);
	h[0] = flags;
	h[1] = gso;
	st16(h + 4, gso_size);
	st16(h + 6, start);
	st16(h + 8, offset);
}

static void test_config(void **state)
{
	up(ALL, 16);
	assert_int_equal(d.nr_queues, 3);
	assert_int_equal(vdriver_read(&d, 0x2000, 4), 0x12005452); /* 52:54:00:12 .. */
	assert_int_equal(vdriver_read(&d, 0x2006, 2), 1);          /* link up */
	assert_int_equal(vdriver_read(&d, 0x200a, 2), 1500);
	assert_true(w.net.started);
	down();
	assert_false(w.net.started);
}

static void test_send(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		up(ALL | variants[v], 16);
		for (unsigned i = 0; i < 60; i++) {
			u32 len = i < 50 ? 14 + i * 29 : 1514;
			u8 *p = vdriver_mem(&d, DATA + 12);

			header(0, 0, 0, 0, 0);
			for (u32 k = 0; k < len; k++)
				p[k] = (u8)(k * 3 + i);
			assert_true(send(len));
			assert_int_equal(w.net.len, len);
			assert_memory_equal(w.net.frame, p, len);
		}
		/* no room: it stays with the guest, and comes when there is */
		const struct vdriver_seg seg = { DATA, 112, false };
		u32 id, used;
		w.net.full = true;
		unsigned before = w.net.sent;
		for (unsigned i = 0; i < 5; i++)
			vdriver_add(&d, TX, &seg, 1);
		vdriver_kick(&d, TX);
		assert_false(vdriver_used(&d, TX, &id, &used));
		fake_net_room(&w.net);
		assert_int_equal(w.net.sent, before + 5);
		for (unsigned i = 0; i < 5; i++)
			assert_true(vdriver_used(&d, TX, &id, &used));
		down();
	}
}

static u16 sum16(const u8 *p, size_t len)
{
	u32 sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += i & 1 ? p[i] : (u32)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (u16)sum;
}

static void test_checksum(void **state)
{
	up(ALL, 16);
	for (u32 len = 60; len < 70; len++) { /* odd ones too */
		u8 *p = vdriver_mem(&d, DATA + 12);

		for (u32 k = 0; k < len; k++)
			p[k] = (u8)fake_random();
		p[34 + 16] = 0x12; /* the pseudo header's sum */
		p[34 + 17] = 0x34;
		header(1, 0, 0, 34, 16);
		assert_true(send(len));
		assert_int_equal(w.net.len, len);
		/* With the sum in its place everything adds up to the pseudo header's negative. */
		u32 all = sum16(w.net.frame + 34, len - 34);
		assert_int_equal((u16)(all + 0x1234 + ((all + 0x1234) >> 16)), 0xffff);
		assert_memory_equal(w.net.frame, p, 34 + 16);
		assert_memory_equal(w.net.frame + 52, p + 52, len - 52);
		assert_int_equal(p[34 + 16], 0x12); /* in the guest's memory nothing changes */
	}
	/* whole segments */
	header(1, 1, 1460, 34, 16);
	assert_true(send(60000));
	assert_int_equal(w.net.len, 60000);
	header(1, 0x81, 1460, 34, 16);
	assert_true(send(60000));
	down();
}

/* A back end that does the work itself gets the frame as it is and the guest's header, if that lies inside of the frame. */
static void test_work(void **state)
{
	up(ALL, 16);
	w.net.net.does_work = true;
	memset(vdriver_mem(&d, DATA + 12), 0x5a, 60000);
	header(1, 0x81, 1460, 34, 16);
	st16(vdriver_mem(&d, DATA) + 2, 54);
	assert_true(send(60000));
	assert_int_equal(w.net.len, 60000);
	assert_memory_equal(w.net.frame, vdriver_mem(&d, DATA + 12), 60000);
	assert_true(w.net.worked);
	assert_int_equal(w.net.work.gso_type, 0x81);
	assert_int_equal(w.net.work.hdr_len, 54);
	assert_int_equal(w.net.work.gso_size, 1460);
	assert_int_equal(w.net.work.csum_start, 34);
	assert_int_equal(w.net.work.csum_offset, 16);
	header(0, 0, 0, 0, 0);
	assert_true(send(100));
	assert_false(w.net.worked);
	unsigned before = w.net.sent;
	header(1, 0, 0, 98, 1);
	assert_false(send(100));
	header(1, 0, 0, 0xffff, 0xffff);
	assert_false(send(100));
	header(0, 1, 1460, 34, 16);
	assert_false(send(100));
	assert_int_equal(w.net.sent, before);
	header(1, 0, 0, 98, 0);
	assert_true(send(100));
	assert_int_equal(w.net.sent, before + 1);
	down();
}

static void test_G30_bad_frames(void **state)
{
	up(ALL, 16);
	header(0, 0, 0, 0, 0);
	assert_false(send(0));
	assert_false(send(13));
	assert_true(send(65550));
	assert_false(send(65551));
	assert_false(send(0x100000));
	static const struct {
		u8 flags, gso;
		u16 size, start, offset;
	} bad[] = {
		{ 1, 1, 0, 34, 16 },         { 0, 1, 1460, 0, 0 },   { 1, 3, 1460, 34, 16 },
		{ 1, 5, 1460, 34, 16 },      { 1, 4, 1460, 54, 16 }, { 1, 0xff, 1460, 34, 16 },
		{ 1, 0, 0, 101, 0 },         { 1, 0, 0, 99, 0 },     { 1, 0, 0, 34, 65 },
		{ 1, 0, 0, 0xffff, 0xffff }, { 1, 0, 0, 0, 0xffff }, { 1, 0, 0, 0xffff, 0 },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		header(bad[i].flags, bad[i].gso, bad[i].size, bad[i].start, bad[i].offset);
		if (send(100))
			fail_msg("bad frame %u goes out", i);
	}
	header(1, 0, 0, 98, 0);
	assert_true(send(100));
	/* many parts, the header in pieces */
	struct vdriver_seg many[16];
	u32 id, used;
	header(0, 0, 0, 0, 0);
	for (unsigned i = 0; i < 16; i++)
		many[i] = (struct vdriver_seg){ DATA + 5 * i, 5, false };
	vdriver_add(&d, TX, many, 16);
	vdriver_kick(&d, TX);
	assert_true(vdriver_used(&d, TX, &id, &used));
	assert_int_equal(w.net.len, 68);
	down();
	/* offloads that were not negotiated */
	up(F_MAC, 16);
	header(1, 0, 0, 34, 16);
	assert_false(send(100));
	header(1, 1, 1460, 34, 16);
	assert_false(send(100));
	header(0, 0, 0, 34, 16);
	assert_true(send(100));
	down();
}

static const u8 own[6] = { 0x52, 0x54, 0x00, 0x12, 0x34, 0x56 },
		other[6] = { 0x52, 0x54, 0x00, 0x12, 0x34, 0x57 };
static const u8 multi[6] = { 0x01, 0x00, 0x5e, 0x00, 0x00, 0x01 },
		multi2[6] = { 0x01, 0x00, 0x5e, 0x00, 0x00, 0x02 };
static const u8 everybody[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
static u8 frame[NET_MAX_FRAME];

static void make_frame(size_t len)
{
	for (size_t k = 0; k < len; k++)
		frame[k] = (u8)fake_random();
	memcpy(frame, own, sizeof(own));
}

static void add_rx(u32 len, unsigned i)
{
	const struct vdriver_seg seg = { DATA + i * 0x1000, len, true };

	vdriver_add(&d, RX, &seg, 1);
}

static void test_receive(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		u32 id, len;

		up((ALL & ~F_MRG) | variants[v], 16);
		for (unsigned i = 0; i < 40; i++) {
			make_frame(14 + i * 30);
			add_rx(1526, 0);
			vdriver_kick(&d, RX);
			assert_true(fake_net_give(&w.net, frame, 14 + i * 30));
			assert_true(vdriver_used(&d, RX, &id, &len));
			assert_int_equal(len, 12 + 14 + i * 30);
			const u8 *h = vdriver_mem(&d, DATA);
			assert_int_equal(h[0], 2); /* checksums are good */
			assert_int_equal(ld16(h + 10), 1);
			assert_memory_equal(h + 12, frame, 14 + i * 30);
		}
		/* none there: it waits, and the back end is told when there is one */
		assert_false(fake_net_give(&w.net, frame, 100));
		unsigned before = w.net.ready;
		add_rx(1526, 0);
		vdriver_kick(&d, RX);
		assert_true(w.net.ready > before);
		assert_true(fake_net_give(&w.net, frame, 100));
		assert_true(vdriver_used(&d, RX, &id, &len));
		down();
	}
}

static void test_mergeable(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		u32 id, len;

		up(ALL | variants[v], 32);
		for (unsigned round = 0; round < 40; round++) {
			size_t size = 2000 + (size_t)(fake_random() % 10000), want = size + 12, got = 0;
			unsigned n = 0;
			u8 *all = malloc(want + 1000);

			make_frame(size);
			for (unsigned i = 0; i < 26; i++)
				add_rx(500, i);
			vdriver_kick(&d, RX);
			assert_true(fake_net_give(&w.net, frame, size));
			while (vdriver_used(&d, RX, &id, &len)) {
				assert_int_equal(len, MIN(want - got, 500u));
				memcpy(all + got, vdriver_mem(&d, DATA + n * 0x1000), len);
				got += len;
				n++;
			}
			assert_int_equal(got, want);
			assert_int_equal(ld16(all + 10), n);
			assert_memory_equal(all + 12, frame, size);
			free(all);
			/* the others are still there */
			for (unsigned i = n; i < 26; i++) {
				assert_true(fake_net_give(&w.net, frame, 100));
				assert_true(vdriver_used(&d, RX, &id, &len));
				assert_int_equal(len, 112);
			}
			assert_false(fake_net_give(&w.net, frame, 100));
		}
		/* not enough at first: nothing is used up meanwhile */
		make_frame(5000);
		for (unsigned i = 0; i < 5; i++)
			add_rx(1000, i);
		vdriver_kick(&d, RX);
		assert_false(fake_net_give(&w.net, frame, 5000));
		assert_false(vdriver_used(&d, RX, &id, &len));
		add_rx(1000, 5);
		vdriver_kick(&d, RX);
		assert_true(fake_net_give(&w.net, frame, 5000));
		for (unsigned i = 0; i < 6; i++)
			assert_true(vdriver_used(&d, RX, &id, &len));
		assert_int_equal(len, 12);
		down();
	}
}

static void test_G31_bad_buffers(void **state)
{
	for (unsigned v = 0; v < ARRAY_SIZE(variants); v++) {
		for (unsigned merge = 0; merge < 2; merge++) {
			u32 id, len;

			up((merge ? ALL : ALL & ~F_MRG) | variants[v], 16);
			make_frame(200);
			/* smaller than the header: frames are lost, nothing waits or spins */
			add_rx(11, 0);
			vdriver_kick(&d, RX);
			for (unsigned i = 0; i < 10; i++)
				assert_true(fake_net_give(&w.net, frame, 200));
			assert_false(vdriver_used(&d, RX, &id, &len));
			assert_int_equal(vdriver_status(&d), 0xf);
			vdriver_start(&d, (merge ? ALL : ALL & ~F_MRG) | variants[v], 16);
			if (merge) { /* all there can be, and still too small */
				for (unsigned i = 0; i < 16; i++)
					add_rx(i ? 0 : 12, i);
				vdriver_kick(&d, RX);
				assert_true(fake_net_give(&w.net, frame, 200));
			} else {
				add_rx(211, 0);
				vdriver_kick(&d, RX);
				assert_true(fake_net_give(&w.net, frame, 200));
				assert_true(fake_net_give(&w.net, frame, 199));
				assert_true(vdriver_used(&d, RX, &id, &len));
			}
			/* for the device to read */
			vdriver_start(&d, (merge ? ALL : ALL & ~F_MRG) | variants[v], 16);
			const struct vdriver_seg seg = { DATA, 1526, false };
			vdriver_add(&d, RX, &seg, 1);
			vdriver_kick(&d, RX);
			assert_true(fake_net_give(&w.net, frame, 200));
			assert_int_equal(vdriver_status(&d), 0xf);
			down();
		}
	}
}

static int control(u8 class, u8 command, const void *arg, u32 len)
{
	const struct vdriver_seg segs[] = { { DATA, 2, false }, { DATA + 2, len, false }, { ANS, 1, true } };
	const struct vdriver_seg bare[] = { segs[0], segs[2] };
	u32 id, used;

	*vdriver_mem(&d, DATA) = class;
	*vdriver_mem(&d, DATA + 1) = command;
	if (arg)
		memcpy(vdriver_mem(&d, DATA + 2), arg, len);
	*vdriver_mem(&d, ANS) = 0x55;
	vdriver_add(&d, CTRL, len ? segs : bare, len ? 3 : 2);
	vdriver_kick(&d, CTRL);
	assert_true(vdriver_used(&d, CTRL, &id, &used));
	assert_int_equal(used, 1);
	return *vdriver_mem(&d, ANS);
}

/* Does a frame for this address get through? */
static bool passes(const u8 *mac)
{
	u32 id, len;

	make_frame(60);
	memcpy(frame, mac, 6);
	add_rx(1526, 64);
	vdriver_kick(&d, RX);
	assert_true(fake_net_give(&w.net, frame, 60));
	if (vdriver_used(&d, RX, &id, &len))
		return true;
	/* use the buffer up */
	memset(frame, 0xff, 6);
	vdriver_start(&d, 0, 16);
	return false;
}

static void test_filters(void **state)
{
	static const struct {
		int command; /* of class 0; -1: none */
		bool own, other, multi, all;
	} cases[] = {
		{ -1, true, false, false, true }, { 0, true, true, true, true },
		{ 1, true, false, true, true },   { 2, true, true, false, true },
		{ 3, true, false, false, true },  { 4, false, false, false, true },
		{ 5, true, false, false, false },
	};
	const u8 *macs[] = { own, other, multi, everybody };

	up(ALL, 16);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const bool want[] = { cases[i].own, cases[i].other, cases[i].multi, cases[i].all };

		for (unsigned k = 0; k < 4; k++) {
			vdriver_start(&d, ALL, 16);
			if (cases[i].command >= 0)
				assert_int_equal(control(0, (u8)cases[i].command, "\1", 1), 0);
			if (passes(macs[k]) != want[k])
				fail_msg("command %d, address %u", cases[i].command, k);
		}
	}
	/* off again */
	vdriver_start(&d, ALL, 16);
	assert_int_equal(control(0, 0, "\1", 1), 0);
	assert_int_equal(control(0, 0, "\0", 1), 0);
	assert_false(passes(other));
	/* tables */
	for (unsigned k = 0; k < 4; k++) {
		u8 t[8 + 12];

		vdriver_start(&d, ALL, 16);
		st32(t, 1);
		memcpy(t + 4, other, 6);
		st32(t + 10, 1);
		memcpy(t + 14, multi, 6);
		assert_int_equal(control(1, 0, t, 20), 0);
		const u8 *mac[] = { own, other, multi, multi2 };
		assert_int_equal(passes(mac[k]), k < 3);
	}
	/* another address of its own, until a reset */
	vdriver_start(&d, ALL, 16);
	assert_int_equal(control(1, 1, other, 6), 0);
	assert_true(passes(other));
	assert_false(passes(own));
	vdriver_start(&d, ALL, 16);
	assert_true(passes(own));
	/* a driver without filters gets everything */
	vdriver_start(&d, F_MAC, 16);
	assert_true(passes(other));
	assert_true(passes(multi));
	down();
}

static void test_G32_bad_commands(void **state)
{
	static u8 big[8 + 6 * 200];

	up(ALL, 16);
	for (unsigned class = 0; class < 8; class ++)
		for (unsigned command = 0; command < 16; command++)
			for (u32 len = 0; len < 3; len++) {
				int ack = control((u8) class, (u8)command, "\1\1", len);

				assert_int_equal(ack, class == 0 && command < 6 && len == 1 ? 0 : 1);
			}
	assert_int_equal(control(0, 0, "\2", 1), 1);
	assert_int_equal(control(0, 0, "\xff", 1), 1);
	st32(big, 1u << 31); /* entries: 2^31, more than there are, more than fit the command */
	assert_int_equal(control(1, 0, big, 8), 1);
	st32(big, 0xffffffff);
	assert_int_equal(control(1, 0, big, 1000), 1);
	st32(big, 0);
	st32(big + 4, 1u << 31);
	assert_int_equal(control(1, 0, big, 8), 1);
	for (u32 len = 0; len < 8; len++)
		assert_int_equal(control(1, 0, big, len), 1);
	assert_int_equal(control(1, 1, big, 5), 1);
	assert_int_equal(control(1, 1, big, 7), 1);
	assert_int_equal(control(2, 0, "\xff\xff", 2), 1); /* VLAN */
	assert_int_equal(control(4, 0, "\x02\x00", 2), 1); /* pairs of queues */
	/* too many addresses are as good as all */
	memset(big, 2, sizeof(big));
	st32(big, 100);
	st32(big + 604, 100);
	assert_int_equal(control(1, 0, big, 8 + 1200), 0);
	assert_true(passes(other));
	assert_true(passes(multi2));
	/* without a byte for the answer */
	const struct vdriver_seg seg = { DATA, 3, false };
	vdriver_add(&d, CTRL, &seg, 1);
	vdriver_kick(&d, CTRL);
	assert_int_equal(vdriver_status(&d), 0x4f);
	down();
}

/* In a pause the cable is silent both ways; what waits comes at the resume. */
static void test_pause(void **state)
{
	const struct vdriver_seg segs[] = { { DATA, 12, false }, { DATA + 12, 100, false } };
	struct device_stat stat[DEVICE_MAX_STATS];
	struct device *dev;
	u32 id, len;

	up(ALL & ~F_MRG, 16);
	dev = w.b.vm.devices;
	while (dev && strcmp(dev->ops->name, "virtio-net") != 0)
		dev = dev->next;
	if (!dev) {
		fail();
		return;
	}
	header(0, 0, 0, 0, 0);
	assert_true(send(100));
	make_frame(100);
	device_quiesce_all(&w.b.vm);
	assert_false(w.net.started);
	vdriver_add(&d, TX, segs, 2);
	vdriver_kick(&d, TX);
	assert_int_equal(w.net.sent, 1);
	assert_false(vdriver_used(&d, TX, &id, &len));
	device_resume_all(&w.b.vm);
	assert_true(w.net.started);
	assert_int_equal(w.net.sent, 2);
	assert_true(vdriver_used(&d, TX, &id, &len));
	add_rx(1526, 1);
	vdriver_kick(&d, RX);
	assert_true(fake_net_give(&w.net, frame, 100));
	assert_true(vdriver_used(&d, RX, &id, &len));
	assert_int_equal(dev->ops->stats(dev, stat), 5);
	assert_int_equal(stat[0].value, 2);
	assert_int_equal(stat[1].value, 200);
	assert_int_equal(stat[2].value, 1);
	assert_int_equal(stat[3].value, 100);
	down();
}

static void test_state(void **state)
{
	u8 t[8] = { 0 };

	up(ALL, 16);
	assert_int_equal(control(0, 1, "\1", 1), 0);
	assert_int_equal(control(1, 0, t, 8), 0);
	fake_state(device_find(&w.b.vm, "virtio-net"));
	assert_true(passes(multi));
	down();
}

static void test_refused(void **state)
{
	struct err err = { 0 };
	const struct device_conf conf = { .id = "n", .mac = (const u8 *)"\1\0\0\0\0\0" };

	up(ALL, 16);
	assert_true(device_new(&w.b.vm, "virtio-net", &conf, NULL, &err) < 0);
	assert_true(device_new(&w.b.vm, "virtio-net", &(const struct device_conf){ .id = "n" }, NULL, &err) <
		    0);
	assert_non_null(strstr(err.msg, "address"));
	down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config),         cmocka_unit_test(test_send),
		cmocka_unit_test(test_checksum),       cmocka_unit_test(test_work),
		cmocka_unit_test(test_G30_bad_frames), cmocka_unit_test(test_receive),
		cmocka_unit_test(test_mergeable),      cmocka_unit_test(test_G31_bad_buffers),
		cmocka_unit_test(test_filters),        cmocka_unit_test(test_G32_bad_commands),
		cmocka_unit_test(test_state),          cmocka_unit_test(test_refused),
		cmocka_unit_test(test_pause),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
