/* The vsock device against a driver and a host's end that do as they are told: connections both ways, credit, shutdown, and
 * what no driver should send [G34, G35].
 */
#include "fakevm.h"

#include "base/bits.h"
#include "vdriver.h"
#include "wholeboard.h"

#define RX    0
#define TX    1
#define DATA  VDRIVER_DATA
#define RXBUF (VDRIVER_DATA + 0x80000)
#define SLOT  0x1000 /* of RXBUF, per buffer */

enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, UPDATE, ASK };

struct packet {
	u64 src_cid, dst_cid;
	u32 src_port, dst_port, len;
	u16 type, op;
	u32 flags, buf_alloc, fwd_cnt;
} packed_struct;

static struct wholeboard w;
static struct vdriver d;
static u16 size;
static u32 got_bytes; /* data from the host so far */
static u64 where[VIRTIO_QUEUE_SIZE];

static void give_buffer(unsigned i)
{
	const struct vdriver_seg seg = { RXBUF + (u64)i * SLOT, SLOT, true };
	u16 id = vdriver_add(&d, RX, &seg, 1);

	where[id] = seg.addr;
}

static void up_with(u16 n, unsigned buffers, u64 features)
{
	wholeboard_init(&w, VDRIVER_RAM, 1);
	vdriver_find(&d, &w.b, VIRTIO_ID_VSOCK, 0);
	vdriver_start(&d, features, n);
	size = n;
	for (unsigned i = 0; i < buffers; i++)
		give_buffer(i);
	vdriver_kick(&d, RX);
	fake_vsock_idle(&w.vsock);
}

static void up(void)
{
	up_with(64, 64, 0);
}

static void down(void)
{
	assert_int_equal(vdriver_status(&d), 0xf);
	wholeboard_fini(&w);
	assert_int_equal(w.vsock.opened, w.vsock.closed);
}

static void send_raw(const struct packet *p, u32 data)
{
	const struct vdriver_seg seg = { DATA, (u32)sizeof(*p) + data, false };
	u32 id, len;

	memcpy(vdriver_mem(&d, DATA), p, sizeof(*p));
	memset(vdriver_mem(&d, DATA + sizeof(*p)), 'g', data);
	vdriver_add(&d, TX, &seg, 1);
	vdriver_kick(&d, TX);
	vdriver_used(&d, TX, &id, &len);
}

static struct packet packet(u32 guest_port, u32 host_port, u16 op)
{
	return (struct packet){ .src_cid = 3,
				.dst_cid = 2,
				.src_port = guest_port,
				.dst_port = host_port,
				.type = 1,
				.op = op,
				.buf_alloc = 100000,
				.fwd_cnt = got_bytes };
}

static void send(u32 guest_port, u32 host_port, u16 op, u32 flags)
{
	struct packet p = packet(guest_port, host_port, op);

	p.flags = flags;
	send_raw(&p, 0);
}

static void send_data(u32 guest_port, u32 host_port, u32 len)
{
	struct packet p = packet(guest_port, host_port, RW);

	p.len = len;
	send_raw(&p, len);
}

/* The next packet from the host; op 0: there is none. */
static struct packet receive(void)
{
	struct packet p = { .op = 0 };
	u32 id, len;

	fake_vsock_idle(&w.vsock);
	if (!vdriver_used(&d, RX, &id, &len))
		return p;
	memcpy(&p, vdriver_mem(&d, where[id]), sizeof(p));
	assert_int_equal(len, sizeof(p) + p.len);
	assert_true(p.src_cid == 2 && p.dst_cid == 3 && p.type == 1);
	got_bytes += p.len;
	give_buffer((unsigned)((where[id] - RXBUF) / SLOT));
	vdriver_kick(&d, RX);
	return p;
}

static struct packet expect(u16 op, u32 guest_port, u32 host_port)
{
	struct packet p = receive();

	assert_int_equal(p.op, op);
	assert_int_equal(p.dst_port, guest_port);
	assert_int_equal(p.src_port, host_port);
	return p;
}

static void nothing(void)
{
	assert_int_equal(receive().op, 0);
}

/* From the guest; its slot is 0 where it is the first. */
static void connect_out(u32 guest_port, u32 host_port)
{
	got_bytes = 0;
	send(guest_port, host_port, REQUEST, 0);
	assert_int_equal(expect(RESPONSE, guest_port, host_port).buf_alloc, 65536);
}

static void test_from_guest(void **state)
{
	static const u64 features[] = { 0, VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED,
					VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX };

	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		struct fake_stream *s = &w.vsock.stream[0];

		up_with(64, 64, features[i]);
		connect_out(5000, 80);
		assert_int_equal(s->port, 80);
		send_data(5000, 80, 1000);
		assert_int_equal(s->took, 1000);
		assert_int_equal(s->last, 'g');
		nothing();
		s->have = 10000;
		fake_vsock_ready(&w.vsock, 0, VSOCK_READABLE);
		assert_int_equal(expect(RW, 5000, 80).len, SLOT - sizeof(struct packet));
		assert_int_equal(expect(RW, 5000, 80).fwd_cnt, 1000);
		expect(RW, 5000, 80);
		nothing();
		assert_int_equal(got_bytes, 10000);
		/* Half closed by the host, then by the guest. */
		s->eof = true;
		fake_vsock_ready(&w.vsock, 0, VSOCK_READABLE);
		assert_int_equal(expect(SHUTDOWN, 5000, 80).flags, 2);
		send_data(5000, 80, 50);
		assert_int_equal(s->took, 1050);
		send(5000, 80, SHUTDOWN, 2);
		assert_true(s->open && s->shut_send && !s->shut_recv);
		send(5000, 80, SHUTDOWN, 1);
		expect(RST, 5000, 80);
		assert_false(s->open);
		/* It is forgotten. */
		send(5000, 80, RST, 0);
		nothing();
		send_data(5000, 80, 1);
		expect(RST, 5000, 80);
		down();
	}
}

static void test_from_host(void **state)
{
	struct packet p;
	u32 port;
	int slot;

	up();
	slot = fake_vsock_call(&w.vsock, 22);
	assert_int_equal(slot, 0);
	p = receive();
	assert_int_equal(p.op, REQUEST);
	assert_int_equal(p.dst_port, 22);
	port = p.src_port;
	/* What the host says meanwhile waits. */
	w.vsock.stream[0].have = 10;
	fake_vsock_ready(&w.vsock, 0, VSOCK_READABLE);
	nothing();
	got_bytes = 0;
	send(22, port, RESPONSE, 0);
	assert_int_equal(w.vsock.stream[0].accepted, port);
	assert_int_equal(expect(RW, 22, port).len, 10);
	/* Nobody is there any more: both directions, and the guest's reset ends it. */
	w.vsock.stream[0].eof = w.vsock.stream[0].broken = true;
	fake_vsock_ready(&w.vsock, 0, VSOCK_READABLE | VSOCK_WRITABLE | VSOCK_GONE);
	assert_int_equal(expect(SHUTDOWN, 22, port).flags, 3);
	assert_false(w.vsock.stream[0].open);
	send(22, port, RST, 0);
	nothing();
	/* A second one has another port; the guest refuses. */
	assert_int_equal(fake_vsock_call(&w.vsock, 23), 0);
	p = receive();
	assert_true(p.op == REQUEST && p.src_port != port);
	send(23, p.src_port, RST, 0);
	assert_false(w.vsock.stream[0].open);
	/* Who has asked goes before there is an answer. */
	assert_int_equal(fake_vsock_call(&w.vsock, 24), 0);
	p = receive();
	fake_vsock_ready(&w.vsock, 0, VSOCK_READABLE | VSOCK_GONE);
	expect(RST, 24, p.src_port);
	assert_false(w.vsock.stream[0].open);
	down();
}

static void test_credit(void **state)
{
	struct fake_stream *s = &w.vsock.stream[0];
	struct packet p;

	up();
	w.vsock.room = 0;
	connect_out(1, 2);
	/* 64 KiB wait for a host that takes nothing. */
	for (unsigned i = 0; i < 16; i++)
		send_data(1, 2, 4096);
	nothing();
	s->room = 40000;
	fake_vsock_ready(&w.vsock, 0, VSOCK_WRITABLE);
	assert_int_equal(s->took, 40000);
	assert_int_equal(expect(UPDATE, 1, 2).fwd_cnt, 40000);
	send_data(1, 2, 40000);
	s->room = 1000000;
	fake_vsock_ready(&w.vsock, 0, VSOCK_WRITABLE);
	assert_int_equal(s->took, 105536);
	assert_int_equal(expect(UPDATE, 1, 2).fwd_cnt, 105536);
	send(1, 2, ASK, 0);
	assert_int_equal(expect(UPDATE, 1, 2).fwd_cnt, 105536);
	/* The end comes after what waits. */
	s->room = 0;
	send_data(1, 2, 100);
	send(1, 2, SHUTDOWN, 2);
	assert_false(s->shut_send);
	s->room = 1000;
	fake_vsock_ready(&w.vsock, 0, VSOCK_WRITABLE);
	assert_true(s->shut_send);
	/* To the guest no more than it has room for. */
	p = packet(1, 2, UPDATE);
	p.buf_alloc = 500;
	p.fwd_cnt = got_bytes;
	send_raw(&p, 0);
	s->have = 2000;
	fake_vsock_ready(&w.vsock, 0, VSOCK_READABLE);
	assert_int_equal(expect(RW, 1, 2).len, 500);
	nothing();
	p.fwd_cnt += 500;
	send_raw(&p, 0);
	assert_int_equal(expect(RW, 1, 2).len, 500);
	nothing();
	/* More than the credit: the connection, and nothing else, is lost. */
	w.vsock.room = 0;
	connect_out(3, 4);
	send_data(3, 4, 60000);
	send_data(3, 4, 60000);
	expect(RST, 3, 4);
	assert_false(w.vsock.stream[1].open);
	assert_true(s->open);
	down();
}

static void test_G34_lies(void **state)
{
	static const u32 values[] = { 0, 1, 0x7fffffff, 0x80000000, ~0u, ~0u - 1, 44, 65536, 65537 };
	struct packet p;

	up();
	/* Credit that wraps: nothing is sent but to its own buffers. */
	for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
		for (unsigned k = 0; k < ARRAY_SIZE(values); k++) {
			connect_out(1, 2);
			p = packet(1, 2, UPDATE);
			p.buf_alloc = values[i];
			p.fwd_cnt = values[k];
			send_raw(&p, 0);
			w.vsock.stream[0].have = 5000;
			fake_vsock_ready(&w.vsock, 0, VSOCK_READABLE);
			while (receive().op)
				;
			/* Lengths that are not there. */
			p = packet(1, 2, RW);
			p.len = MAX(values[i], 5u);
			send_raw(&p, 4);
			expect(RST, 1, 2);
			assert_false(w.vsock.stream[0].open);
		}
	}
	/* Unknown operations, of connections and of none; unknown types. */
	for (u16 op = 0; op < 300; op += 1 + op / 9) {
		if (op >= REQUEST && op <= ASK)
			continue;
		connect_out(1, 2);
		send(1, 2, op, ~0u);
		expect(RST, 1, 2);
		send(1, 2, op, ~0u);
		expect(RST, 1, 2);
		p = packet(1, 2, REQUEST);
		p.type = op;
		if (op == 1)
			continue;
		send_raw(&p, 0);
		expect(RST, 1, 2);
	}
	/* Operations that do not fit the state. */
	connect_out(1, 2);
	send(1, 2, REQUEST, 0);
	expect(RST, 1, 2);
	connect_out(1, 2);
	send(1, 2, RESPONSE, 0);
	expect(RST, 1, 2);
	connect_out(1, 2);
	send(1, 2, SHUTDOWN, 2);
	send_data(1, 2, 1);
	expect(RST, 1, 2);
	send(1, 2, RESPONSE, 0);
	expect(RST, 1, 2);
	/* From somebody else, to somebody else, shorter than a header: nowhere. */
	p = packet(1, 2, REQUEST);
	p.src_cid = 4;
	send_raw(&p, 0);
	p = packet(1, 2, REQUEST);
	p.src_cid |= BIT(32);
	send_raw(&p, 0);
	p = packet(1, 2, REQUEST);
	p.dst_cid = 3;
	send_raw(&p, 0);
	const struct vdriver_seg part = { DATA, 43, false };
	vdriver_add(&d, TX, &part, 1);
	vdriver_kick(&d, TX);
	nothing();
	/* The host's end fails in the middle. */
	connect_out(1, 2);
	w.vsock.stream[0].broken = true;
	send_data(1, 2, 10);
	assert_int_equal(expect(SHUTDOWN, 1, 2).flags, 1);
	w.vsock.stream[0].have = 10;
	fake_vsock_ready(&w.vsock, 0, VSOCK_READABLE);
	assert_int_equal(expect(RW, 1, 2).len, 10);
	w.vsock.refuse = true;
	send(9, 2, REQUEST, 0);
	expect(RST, 9, 2);
	down();
}

/* A flood of what has to be refused, while there are no buffers: it waits in its ring, and is answered in the end. */
static void test_G34_flood(void **state)
{
	unsigned resets = 0;

	up_with(256, 0, 0);
	for (unsigned i = 0; i < 200; i++) {
		const struct packet p = packet(i + 1, 7, RW);
		const struct vdriver_seg seg = { DATA + i * 64, sizeof(p), false };

		memcpy(vdriver_mem(&d, seg.addr), &p, sizeof(p));
		vdriver_add(&d, TX, &seg, 1);
	}
	vdriver_kick(&d, TX);
	for (unsigned round = 0; round < 50; round++) {
		u32 id, len;

		for (unsigned i = 0; i < 8; i++)
			give_buffer(i);
		vdriver_kick(&d, RX);
		fake_vsock_idle(&w.vsock);
		while (vdriver_used(&d, RX, &id, &len)) {
			struct packet p;

			memcpy(&p, vdriver_mem(&d, where[id]), sizeof(p));
			assert_int_equal(p.op, RST);
			resets++;
		}
	}
	assert_int_equal(resets, 200);
	down();
}

/* As many connections as there are ports: the table does not grow. */
static void test_G35_many(void **state)
{
	unsigned accepted = 0, refused = 0;

	up();
	for (u32 i = 0; i < 100000; i++) {
		u16 op;

		send(i + 1, 7, REQUEST, 0);
		op = receive().op;
		accepted += op == RESPONSE;
		refused += op == RST;
	}
	assert_int_equal(accepted, VSOCK_MAX_STREAMS);
	assert_int_equal(refused, 100000 - VSOCK_MAX_STREAMS);
	assert_int_equal(fake_vsock_call(&w.vsock, 1), -1);
	/* One that ends makes room for one. */
	send(5, 7, SHUTDOWN, 3);
	expect(RST, 5, 7);
	connect_out(200000, 7);
	/* Those that the host begins, and the guest never answers. */
	vdriver_set_status(&d, 0);
	assert_int_equal(w.vsock.opened, w.vsock.closed);
	vdriver_start(&d, 0, size);
	for (unsigned i = 0; i < size; i++)
		give_buffer(i);
	vdriver_kick(&d, RX);
	for (unsigned i = 0; i < 2000; i++)
		assert_int_equal(fake_vsock_call(&w.vsock, 22) >= 0, i < VSOCK_MAX_STREAMS);
	down();
}

/* Connections with much to say take turns. */
static void test_fair(void **state)
{
	unsigned turns[8] = { 0 };

	up_with(64, 16, 0);
	for (u32 i = 0; i < ARRAY_SIZE(turns); i++) {
		connect_out(i + 1, 7);
		w.vsock.stream[i].have = 90000;
	}
	for (u32 i = 0; i < ARRAY_SIZE(turns); i++)
		fake_vsock_ready(&w.vsock, i, VSOCK_READABLE);
	for (unsigned i = 0; i < 64; i++) {
		struct packet p = receive();

		assert_int_equal(p.op, RW);
		turns[p.dst_port - 1]++;
	}
	for (u32 i = 0; i < ARRAY_SIZE(turns); i++)
		assert_true(turns[i] >= 4);
	down();
}

static void test_small_buffer(void **state)
{
	const struct vdriver_seg seg = { RXBUF, 44, true };

	up_with(64, 0, 0);
	vdriver_add(&d, RX, &seg, 1);
	vdriver_kick(&d, RX);
	send(1, 2, REQUEST, 0);
	fake_vsock_idle(&w.vsock);
	assert_int_equal(vdriver_status(&d), 0x4f);
	vdriver_set_status(&d, 0);
	vdriver_start(&d, 0, 64);
	give_buffer(0);
	vdriver_kick(&d, RX);
	connect_out(1, 2);
	down();
}

/* In a pause memory does not change. */
static void test_pause(void **state)
{
	up();
	connect_out(1, 2);
	device_quiesce_all(&w.b.vm);
	assert_false(w.vsock.started);
	w.vsock.stream[0].have = 10;
	send_data(1, 2, 10);
	assert_int_equal(w.vsock.stream[0].took, 0);
	device_resume_all(&w.b.vm);
	fake_vsock_ready(&w.vsock, 0, VSOCK_READABLE);
	assert_int_equal(w.vsock.stream[0].took, 10);
	assert_int_equal(expect(RW, 1, 2).len, 10);
	down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_from_guest), cmocka_unit_test(test_from_host),
		cmocka_unit_test(test_credit),     cmocka_unit_test(test_G34_lies),
		cmocka_unit_test(test_G34_flood),  cmocka_unit_test(test_G35_many),
		cmocka_unit_test(test_fair),       cmocka_unit_test(test_small_buffer),
		cmocka_unit_test(test_pause),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
