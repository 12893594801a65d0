/* virtio-vsock: stream sockets between the guest and programs of the host.
 *
 * Document: virtio 1.2, [virtio 5.10].
 *
 * How it works: a table of connections, found by the pair of ports. What the guest sends goes from its memory to the host's
 * socket; what that does not take at once waits here, as far as the guest has credit, and one that sends more than that is
 * reset. What the host sends is read from its socket straight into a buffer of the guest, when there are credit, buffer and
 * data: so data waits where it comes from. Answers of the protocol are bits of the connection until a buffer takes them; resets
 * for what is no connection are a short queue, and when that is full the guest's packets wait in their ring. Connections with
 * something to say take turns, one packet each.
 *
 * Nothing that a guest does makes more grow than the table (hostile cases G34, G35): a connection that finds no place is reset.
 *
 * Shutdown: each side says that it will send or receive no more. The host's end of file is the one, its disappearance both.
 * A connection that both sides have given up is ended by a reset, as the document has it [virtio 5.10.6.5].
 *
 * Omitted: sequenced packets, datagrams; the event of a transport reset, as connections do not move to another host.
 *
 * Threads: vCPUs and the host end's, under the device's lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/iov.h"
#include "base/log.h"
#include "dev/virtio/virtio.h"
#include "dev/virtio/virtio_pci.h"
#include "vm/dma.h"
#include "vm/vm.h"
#include "vm/vsock.h"

#define RX         0
#define TX         1
#define EVENT      2
#define NR_QUEUES  3
#define CLASS_CODE 0x078000 /* simple communications, other */

#define F_STREAM BIT(0)

#define TYPE_STREAM 1

/* [virtio 5.10.6] */
#define OP_REQUEST        1
#define OP_RESPONSE       2
#define OP_RST            3
#define OP_SHUTDOWN       4
#define OP_RW             5
#define OP_CREDIT_UPDATE  6
#define OP_CREDIT_REQUEST 7
#define NO_RECEIVE        BIT(0) /* flags of SHUTDOWN */
#define NO_SEND           BIT(1)

#define BUF_ALLOC  (64u << 10) /* bytes of the guest's that wait here, per connection */
#define MAX_PACKET (64u << 10)
#define FIRST_PORT (1u << 30) /* of ours, where the host connects */
#define NR_RESETS  64         /* for what is no connection */
#define BUDGET     256        /* packets to the guest before others get their turn */
#define NR_HASH    256
#define NONE       0xffff

struct header {
	u64 src_cid, dst_cid;
	u32 src_port, dst_port, len;
	u16 type, op;
	u32 flags, buf_alloc, fwd_cnt;
} packed_struct;

_Static_assert(sizeof(struct header) == 44, "header");

enum state { FREE, ASKED, OPEN }; /* ASKED: the guest has not answered yet */

/* What a connection has to say. */
#define SAY_REQUEST  BIT(0)
#define SAY_RESPONSE BIT(1)
#define SAY_SHUTDOWN BIT(2)
#define SAY_CREDIT   BIT(3)
#define SAY_RST      BIT(4) /* and is free then */
#define SAY_DATA     BIT(5) /* the host may have some */

struct conn {
	u8 state, say;
	u8 shut_by_guest, shut_by_host; /* NO_* */
	u8 shut_told;
	bool has_stream;
	u16 next; /* of the same hash */
	u32 host_port, guest_port;
	u32 guest_alloc, guest_fwd; /* the guest's room, what it has taken of it */
	u32 sent;                   /* bytes to the guest */
	u32 taken, told;            /* bytes that the host has taken, and that the guest knows of */
	u8 *wait;                   /* BUF_ALLOC bytes, a ring; NULL: nothing waits for the host */
	u32 wait_at, wait_len;
};

struct reset {
	u32 host_port, guest_port;
};

enum { C_CONNECTIONS, C_FROM_GUEST, C_TO_GUEST, C_RESETS, NR_COUNTERS };

struct virtio_vsock {
	struct device dev;
	struct virtio v;
	struct virtio_pci pci;
	u64 config; /* the guest's CID */
	struct vsock *vs;
	u32 next_port;
	struct conn conn[VSOCK_MAX_STREAMS];
	u16 hash[NR_HASH];
	u64 busy[VSOCK_MAX_STREAMS / 64]; /* bit: conn[].say is not 0 */
	unsigned turn;                    /* the slot after the last one that spoke */
	struct reset resets[NR_RESETS];
	unsigned nr_resets;
	bool starved; /* there is more to say than there are buffers */
	bool blocked; /* a packet of the guest waits for room in resets[] */
	u64 count[NR_COUNTERS];
};

static void count(struct virtio_vsock *s, unsigned what, u64 n)
{
	__atomic_store_n(&s->count[what], s->count[what] + n, __ATOMIC_RELAXED);
}

/* ---- the table ---- */

static u16 *bucket(struct virtio_vsock *s, u32 host_port, u32 guest_port)
{
	return &s->hash[(host_port * 31 + guest_port) * 0x9e3779b1u >> 24];
}

static unsigned slot_of(const struct virtio_vsock *s, const struct conn *c)
{
	return (unsigned)(c - s->conn);
}

static struct conn *find(struct virtio_vsock *s, u32 host_port, u32 guest_port)
{
	u16 i = *bucket(s, host_port, guest_port);

	while (i != NONE && (s->conn[i].host_port != host_port || s->conn[i].guest_port != guest_port))
		i = s->conn[i].next;
	return i == NONE ? NULL : &s->conn[i];
}

static void say(struct virtio_vsock *s, struct conn *c, unsigned what)
{
	unsigned slot = slot_of(s, c);

	c->say |= (u8)what;
	if (c->say)
		s->busy[slot / 64] |= BIT(slot % 64);
}

static struct conn *add(struct virtio_vsock *s, u32 host_port, u32 guest_port, enum state state)
{
	for (unsigned i = 0; i < VSOCK_MAX_STREAMS; i++) {
		struct conn *c = &s->conn[i];
		u16 *at = bucket(s, host_port, guest_port);

		if (c->state != FREE)
			continue;
		*c = (struct conn){
			.state = (u8)state, .next = *at, .host_port = host_port, .guest_port = guest_port
		};
		*at = (u16)i;
		count(s, C_CONNECTIONS, 1);
		return c;
	}
	log_guest("%s: %u connections are the most, another one was refused", s->dev.id, VSOCK_MAX_STREAMS);
	return NULL;
}

static void close_stream(struct virtio_vsock *s, struct conn *c)
{
	if (c->has_stream)
		s->vs->ops->close(s->vs, slot_of(s, c));
	c->has_stream = false;
	free(c->wait);
	c->wait = NULL;
	c->wait_len = 0;
}

static void del(struct virtio_vsock *s, struct conn *c)
{
	u16 *at = bucket(s, c->host_port, c->guest_port);
	unsigned slot = slot_of(s, c);

	close_stream(s, c);
	while (*at != slot)
		at = &s->conn[*at].next;
	*at = c->next;
	*c = (struct conn){ .state = FREE };
	s->busy[slot / 64] &= ~BIT(slot % 64);
}

static void del_all(struct virtio_vsock *s)
{
	for (unsigned i = 0; i < VSOCK_MAX_STREAMS; i++)
		if (s->conn[i].state != FREE)
			del(s, &s->conn[i]);
	s->nr_resets = 0;
	s->starved = s->blocked = false;
}

/* Ends it from this side: the guest is told when there is room. */
static void reset(struct virtio_vsock *s, struct conn *c)
{
	close_stream(s, c);
	c->say = 0;
	say(s, c, SAY_RST);
	count(s, C_RESETS, 1);
}

/* ---- from the host to the guest ---- */

/* Bytes for which the guest says it has room; what cannot be is none. */
static u32 credit(const struct conn *c)
{
	u32 on_way = c->sent - c->guest_fwd;

	return on_way > c->guest_alloc ? 0 : c->guest_alloc - on_way;
}

/* Into buf, which is in the guest's memory; true: it is the guest's again. */
static void put_packet(struct virtio_vsock *s, const struct virtq_buf *buf, const struct header *h)
{
	const struct virtq_used used = { buf->token, (u32)sizeof(*h) + h->len };

	virtq_write(s->dev.vm, buf->iov + buf->nr_out, buf->nr_in, 0, h, sizeof(*h));
	virtq_push(&s->v, RX, &used, 1);
}

static struct header header_to(const struct virtio_vsock *s, u32 host_port, u32 guest_port, u16 op)
{
	return (struct header){
		.src_cid = VSOCK_HOST_CID,
		.dst_cid = s->vs->cid,
		.src_port = host_port,
		.dst_port = guest_port,
		.type = TYPE_STREAM,
		.op = op,
	};
}

static void put_control(struct virtio_vsock *s, struct conn *c, const struct virtq_buf *buf, u16 op,
			u32 flags)
{
	struct header h = header_to(s, c->host_port, c->guest_port, op);

	h.flags = flags;
	h.buf_alloc = BUF_ALLOC;
	h.fwd_cnt = c->told = c->taken;
	put_packet(s, buf, &h);
}

/* The host sends no more, or is gone. */
static void host_shuts(struct virtio_vsock *s, struct conn *c, u8 what)
{
	c->shut_by_host |= what;
	if (c->shut_by_host != c->shut_told)
		say(s, c, SAY_SHUTDOWN);
}

/* False: the buffer was not needed. */
static bool put_data(struct virtio_vsock *s, struct conn *c, const struct virtq_buf *buf)
{
	struct header h = header_to(s, c->host_port, c->guest_port, OP_RW);
	struct iovec iov[VIRTIO_MAX_SEGS];
	u64 room = MIN(MIN(buf->in_len - sizeof(h), (u64)credit(c)), (u64)MAX_PACKET);
	unsigned nr = iov_cut(buf->iov + buf->nr_out, buf->nr_in, sizeof(h), room, iov);
	ssize_t n = s->vs->ops->recv(s->vs, slot_of(s, c), iov, nr);

	if (n > 0) {
		for (unsigned i = 0; i < nr; i++)
			dma_written(s->dev.vm, iov[i].iov_base, iov[i].iov_len);
		h.len = (u32)n;
		h.buf_alloc = BUF_ALLOC;
		h.fwd_cnt = c->told = c->taken;
		c->sent += (u32)n;
		c->say &= (u8)~SAY_CREDIT;
		count(s, C_TO_GUEST, (u64)n);
		put_packet(s, buf, &h);
		return true;
	}
	c->say &= (u8)~SAY_DATA;
	if (n == 0)
		host_shuts(s, c, NO_SEND);
	else if (n != -EAGAIN)
		host_shuts(s, c, NO_SEND | NO_RECEIVE);
	return false;
}

/* What the connection has to say now; 0: nothing. */
static unsigned sayable(const struct conn *c)
{
	unsigned what = c->say;

	/* Data waits for room in the guest, and for the answer to a request. */
	if (c->state != OPEN || !credit(c) || !c->has_stream || c->shut_by_host & NO_SEND ||
	    c->shut_by_guest & NO_RECEIVE)
		what &= ~SAY_DATA;
	return what;
}

/* One packet of the connection; false: buf was not used. */
static bool speak(struct virtio_vsock *s, struct conn *c, const struct virtq_buf *buf)
{
	static const struct {
		u8 bit;
		u16 op;
	} control[] = {
		{ SAY_RST, OP_RST },
		{ SAY_REQUEST, OP_REQUEST },
		{ SAY_RESPONSE, OP_RESPONSE },
		{ SAY_CREDIT, OP_CREDIT_UPDATE },
	};
	unsigned what = sayable(c);

	for (unsigned i = 0; i < ARRAY_SIZE(control); i++) {
		if (!(what & control[i].bit))
			continue;
		c->say &= (u8)~control[i].bit;
		put_control(s, c, buf, control[i].op, 0);
		if (control[i].bit == SAY_RST)
			del(s, c);
		return true;
	}
	/* What was sent before the end comes before it. */
	if (what & SAY_DATA && put_data(s, c, buf))
		return true;
	if (!(c->say & SAY_SHUTDOWN))
		return false;
	c->say &= (u8)~SAY_SHUTDOWN;
	c->shut_told = c->shut_by_host;
	put_control(s, c, buf, OP_SHUTDOWN, c->shut_by_host);
	if (c->shut_by_host == (NO_SEND | NO_RECEIVE))
		close_stream(s, c);
	return true;
}

/* The next slot from `from` on, round and round, that may speak; -1: none. */
static int next_speaker(struct virtio_vsock *s, unsigned from)
{
	for (unsigned k = 0; k <= VSOCK_MAX_STREAMS / 64; k++) {
		unsigned word = (from / 64 + k) % (VSOCK_MAX_STREAMS / 64);
		u64 bits = s->busy[word];

		if (k == 0)
			bits &= ~0ull << from % 64;
		for (; bits; bits &= bits - 1) {
			unsigned slot = word * 64 + (unsigned)__builtin_ctzll(bits);

			if (sayable(&s->conn[slot]))
				return (int)slot;
			/* It is looked at again when something changes. */
			if (!s->conn[slot].say)
				s->busy[word] &= ~BIT(slot % 64);
		}
	}
	return -1;
}

/* A buffer that can hold a header and a byte; false: there is none. */
static bool get_buffer(struct virtio_vsock *s, struct virtq_buf *buf)
{
	if (!virtq_pop(&s->v, RX, buf))
		return false;
	if (buf->in_len > sizeof(struct header))
		return true;
	virtq_unpop(&s->v, RX, &buf->token, 1);
	virtio_broken(&s->v, "a buffer too small for a packet");
	return false;
}

/* All that is to be said, as far as there are buffers. */
static void talk(struct virtio_vsock *s)
{
	struct virtq_buf *buf = &s->v.buf;
	unsigned budget = BUDGET;
	int slot = -1;

	s->starved = false;
	if (!virtio_running(&s->v) || s->v.quiet)
		return;
	while (budget && (s->nr_resets || (slot = next_speaker(s, s->turn)) >= 0)) {
		if (!get_buffer(s, buf)) {
			s->starved = true;
			break;
		}
		budget--;
		if (s->nr_resets) {
			const struct reset r = s->resets[--s->nr_resets];
			struct header h = header_to(s, r.host_port, r.guest_port, OP_RST);

			put_packet(s, buf, &h);
			continue;
		}
		s->turn = ((unsigned)slot + 1) % VSOCK_MAX_STREAMS;
		if (!speak(s, &s->conn[slot], buf))
			virtq_unpop(&s->v, RX, &buf->token, 1);
	}
	virtq_notify(&s->v, RX);
	/* New buffers are of interest only when something waits for them. */
	if (virtq_listen(&s->v, RX, s->starved) || !budget || (s->blocked && s->nr_resets < NR_RESETS))
		s->vs->ops->again(s->vs);
}

/* ---- from the guest to the host ---- */

/* The host has taken n bytes: the guest is told when half of its room is free again. */
static void has_taken(struct virtio_vsock *s, struct conn *c, u32 n)
{
	c->taken += n;
	count(s, C_FROM_GUEST, n);
	if (c->taken - c->told >= BUF_ALLOC / 2)
		say(s, c, SAY_CREDIT);
}

/* The guest sends no more, and all that it has sent is with the host. */
static void pass_shutdown(struct virtio_vsock *s, struct conn *c)
{
	if (c->wait_len || !c->shut_by_guest)
		return;
	if (c->shut_by_guest == (NO_SEND | NO_RECEIVE))
		reset(s, c);
	else if (c->has_stream)
		s->vs->ops->shut(s->vs, slot_of(s, c), c->shut_by_guest & NO_SEND,
				 c->shut_by_guest & NO_RECEIVE);
}

/* Of len bytes to the host: how many are done with, or negative: the connection is reset. */
static ssize_t give(struct virtio_vsock *s, struct conn *c, const struct iovec *iov, unsigned nr, u32 len)
{
	ssize_t n = s->vs->ops->send(s->vs, slot_of(s, c), iov, nr);

	if (n == -EAGAIN)
		return 0;
	/* Nobody reads it. What the host has sent before is the guest's all the same. */
	if (n == -EPIPE) {
		host_shuts(s, c, NO_RECEIVE);
		return len;
	}
	if (n < 0)
		reset(s, c);
	return n;
}

/* What waits for the host. */
static void send_waiting(struct virtio_vsock *s, struct conn *c)
{
	while (c->wait_len) {
		u32 first = MIN(c->wait_len, BUF_ALLOC - c->wait_at);
		const struct iovec iov[2] = { { c->wait + c->wait_at, first },
					      { c->wait, c->wait_len - first } };
		ssize_t n = give(s, c, iov, iov[1].iov_len ? 2 : 1, c->wait_len);

		if (n <= 0)
			return;
		c->wait_at = (c->wait_at + (u32)n) % BUF_ALLOC;
		c->wait_len -= (u32)n;
		has_taken(s, c, (u32)n);
	}
	free(c->wait);
	c->wait = NULL;
	pass_shutdown(s, c);
}

/* Copies len bytes of the buffer behind what waits; false: no memory. */
static bool keep(struct conn *c, const struct virtq_buf *buf, u64 from, u32 len)
{
	u32 at, first;

	if (!c->wait) {
		c->wait = malloc(BUF_ALLOC);
		c->wait_at = 0;
	}
	if (!c->wait)
		return false;
	at = (c->wait_at + c->wait_len) % BUF_ALLOC;
	first = MIN(len, BUF_ALLOC - at);
	virtq_read(buf->iov, buf->nr_out, from, c->wait + at, first);
	virtq_read(buf->iov, buf->nr_out, from + first, c->wait, len - first);
	c->wait_len += len;
	return true;
}

static void got_data(struct virtio_vsock *s, struct conn *c, const struct header *h,
		     const struct virtq_buf *buf)
{
	struct iovec iov[VIRTIO_MAX_SEGS];
	ssize_t n = 0;

	/* More than it had credit for, than there is, or after it had said that no more comes. */
	if (h->len > BUF_ALLOC - c->wait_len || h->len > buf->out_len - sizeof(*h) ||
	    c->shut_by_guest & NO_SEND || !c->has_stream) {
		reset(s, c);
		return;
	}
	if (!h->len)
		return;
	if (!c->wait_len)
		n = give(s, c, iov, iov_cut(buf->iov, buf->nr_out, sizeof(*h), h->len, iov), h->len);
	if (n < 0)
		return;
	has_taken(s, c, (u32)n);
	if ((u32)n < h->len && !keep(c, buf, sizeof(*h) + (u64)n, h->len - (u32)n))
		reset(s, c);
}

static void refuse(struct virtio_vsock *s, const struct header *h)
{
	if (h->op != OP_RST)
		s->resets[s->nr_resets++] = (struct reset){ h->dst_port, h->src_port };
}

static void got_request(struct virtio_vsock *s, const struct header *h)
{
	struct conn *c = add(s, h->dst_port, h->src_port, OPEN);

	if (!c) {
		refuse(s, h);
		return;
	}
	c->guest_alloc = h->buf_alloc;
	c->guest_fwd = h->fwd_cnt;
	if (s->vs->ops->connect(s->vs, slot_of(s, c), h->dst_port) < 0) {
		reset(s, c);
		return;
	}
	c->has_stream = true;
	say(s, c, SAY_RESPONSE | SAY_DATA);
}

static void got_packet(struct virtio_vsock *s, struct conn *c, const struct header *h,
		       const struct virtq_buf *buf)
{
	c->guest_alloc = h->buf_alloc;
	c->guest_fwd = h->fwd_cnt;
	switch (h->op) {
	case OP_RESPONSE:
		if (c->state != ASKED) {
			reset(s, c);
			return;
		}
		c->state = OPEN;
		s->vs->ops->accepted(s->vs, slot_of(s, c), c->host_port);
		break;
	case OP_RST: del(s, c); return;
	case OP_SHUTDOWN:
		c->shut_by_guest |= (u8)(h->flags & (NO_RECEIVE | NO_SEND));
		if (c->state == ASKED)
			reset(s, c);
		else
			pass_shutdown(s, c);
		return;
	case OP_RW:
		if (c->state == OPEN)
			got_data(s, c, h, buf);
		else
			reset(s, c);
		break;
	case OP_CREDIT_UPDATE: break;
	case OP_CREDIT_REQUEST: say(s, c, SAY_CREDIT); break;
	default: reset(s, c);
	}
}

/* One packet of the guest. False: there is no room for what may have to be answered. */
static bool request(struct virtio *v, unsigned q, const struct virtq_buf *buf)
{
	struct virtio_vsock *s = container_of(v, struct virtio_vsock, v);
	const struct virtq_used used = { buf->token, 0 };
	struct header h;
	struct conn *c;

	if (s->nr_resets == NR_RESETS) {
		s->blocked = true;
		return false;
	}
	/* What is not from this guest, or not for the host, goes nowhere. */
	if (virtq_read(buf->iov, buf->nr_out, 0, &h, sizeof(h)) == sizeof(h) && h.src_cid == s->vs->cid &&
	    h.dst_cid == VSOCK_HOST_CID) {
		c = find(s, h.dst_port, h.src_port);
		if (h.type != TYPE_STREAM)
			refuse(s, &h);
		else if (!c && h.op == OP_REQUEST)
			got_request(s, &h);
		else if (!c)
			refuse(s, &h);
		else if (!(c->say & SAY_RST))
			got_packet(s, c, &h, buf);
	}
	virtq_push(v, q, &used, 1);
	return true;
}

static void taken(struct virtio *v, unsigned q)
{
	talk(container_of(v, struct virtio_vsock, v));
}

/* The driver has put buffers into a queue that is filled from here. */
static void buffers(struct virtio *v, unsigned q)
{
	struct virtio_vsock *s = container_of(v, struct virtio_vsock, v);

	if (q == RX)
		s->vs->ops->again(s->vs);
}

static void stopped(struct virtio *v)
{
	del_all(container_of(v, struct virtio_vsock, v));
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_VSOCK,
	.class_code = CLASS_CODE,
	.request = request,
	.taken = taken,
	.buffers = buffers,
	.stopped = stopped,
};

/* ---- the host's end ---- */

static int incoming(void *opaque, u32 port)
{
	struct virtio_vsock *s = opaque;
	struct conn *c;

	if (!virtio_running(&s->v))
		return -1;
	do
		s->next_port = MAX(s->next_port + 1, FIRST_PORT);
	while (find(s, s->next_port, port));
	c = add(s, s->next_port, port, ASKED);
	if (!c)
		return -1;
	c->has_stream = true;
	say(s, c, SAY_REQUEST | SAY_DATA);
	return (int)slot_of(s, c);
}

static void ready(void *opaque, unsigned slot, unsigned what)
{
	struct virtio_vsock *s = opaque;
	struct conn *c = &s->conn[slot];

	if (c->state == ASKED && what & VSOCK_GONE) {
		/* Who has asked does not wait any more. Where the guest knows nothing yet, it need not. */
		if (c->say & SAY_REQUEST)
			del(s, c);
		else
			reset(s, c);
		return;
	}
	if (what & VSOCK_READABLE)
		say(s, c, SAY_DATA);
	if (what & VSOCK_GONE)
		host_shuts(s, c, NO_RECEIVE);
	if (what & VSOCK_WRITABLE)
		send_waiting(s, c);
}

static void idle(void *opaque)
{
	struct virtio_vsock *s = opaque;

	talk(s);
	if (!s->blocked || s->nr_resets == NR_RESETS)
		return;
	s->blocked = false;
	virtio_run(&s->v, TX);
}

/* ---- the device ---- */

static int virtio_vsock_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct virtio_vsock *s = container_of(dev, struct virtio_vsock, dev);
	int r;

	if (!conf->vsock)
		return err_set(err, -EINVAL, "a vsock device needs a back end");
	memset(s->hash, 0xff, sizeof(s->hash));
	s->config = conf->vsock->cid;
	virtio_init(&s->v, dev, &ops, F_STREAM, conf->packed, NR_QUEUES, &s->config, sizeof(s->config));
	virtio_fill_queue(&s->v, RX);
	virtio_fill_queue(&s->v, EVENT);
	s->vs = conf->vsock;
	r = virtio_pci_init(&s->pci, &s->v, err);
	if (r < 0)
		return r;
	s->vs->lock = dev->lock;
	s->vs->incoming = incoming;
	s->vs->ready = ready;
	s->vs->idle = idle;
	s->vs->opaque = s;
	return 0;
}

static void stop_host(struct virtio_vsock *s)
{
	if (s->vs && s->vs->lock)
		s->vs->ops->stop(s->vs);
}

/* What the host sends meanwhile waits in its sockets. */
static void virtio_vsock_quiesce(struct device *dev)
{
	struct virtio_vsock *s = container_of(dev, struct virtio_vsock, dev);

	virtio_quiesce(&s->v);
	stop_host(s);
}

static void virtio_vsock_resume(struct device *dev)
{
	struct virtio_vsock *s = container_of(dev, struct virtio_vsock, dev);

	virtio_resume(&s->v);
	s->vs->ops->start(s->vs);
}

static unsigned virtio_vsock_stats(struct device *dev, struct device_stat ret[DEVICE_MAX_STATS])
{
	static const char *const names[NR_COUNTERS] = {
		[C_CONNECTIONS] = "connections",
		[C_FROM_GUEST] = "bytes_from_guest",
		[C_TO_GUEST] = "bytes_to_guest",
		[C_RESETS] = "resets",
	};
	struct virtio_vsock *s = container_of(dev, struct virtio_vsock, dev);

	for (unsigned i = 0; i < NR_COUNTERS; i++)
		ret[i] = (struct device_stat){ names[i], __atomic_load_n(&s->count[i], __ATOMIC_RELAXED) };
	return NR_COUNTERS;
}

static void virtio_vsock_reset(struct device *dev, enum reset_kind kind)
{
	struct virtio_vsock *s = container_of(dev, struct virtio_vsock, dev);

	stop_host(s);
	pthread_mutex_lock(dev->lock);
	del_all(s);
	pthread_mutex_unlock(dev->lock);
	virtio_pci_reset(&s->pci);
	s->vs->ops->start(s->vs);
}

static const struct state_field virtio_vsock_state[] = {
	VIRTIO_STATE(virtio_vsock, v),
	VIRTIO_PCI_STATE(virtio_vsock, pci),
	STATE_END,
};

static int virtio_vsock_post_load(struct device *dev, struct err *err)
{
	return virtio_pci_post_load(&container_of(dev, struct virtio_vsock, dev)->pci, err);
}

static void virtio_vsock_fini(struct device *dev)
{
	struct virtio_vsock *s = container_of(dev, struct virtio_vsock, dev);

	stop_host(s);
	if (s->vs)
		del_all(s);
	virtio_pci_fini(&s->pci);
}

const struct device_ops virtio_vsock_device = {
	.name = "virtio-vsock",
	.size = sizeof(struct virtio_vsock),
	.init = virtio_vsock_init,
	.reset = virtio_vsock_reset,
	.quiesce = virtio_vsock_quiesce,
	.resume = virtio_vsock_resume,
	.stats = virtio_vsock_stats,
	.state = virtio_vsock_state,
	.post_load = virtio_vsock_post_load,
	.fini = virtio_vsock_fini,
};
