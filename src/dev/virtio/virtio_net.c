/* virtio-net: a network adapter with one pair of queues and a control queue.
 *
 * Document: virtio 1.2, [virtio 5.1].
 *
 * How it works: a frame that the guest sends is copied out of its memory first, then its header is looked at and a checksum
 * that was left to the device is filled in, in the copy; so the guest cannot change what was checked (hostile cases
 * G11, G30); a back end that does such work itself gets it undone. TCP segments that the guest left whole go on whole:
 * see vm/net.h. A frame for the guest passes the filters that the
 * guest has set, and goes into one buffer, or into as many as it takes where mergeable buffers were negotiated
 * [virtio 5.1.6.4]. Buffers that cannot hold it are left where they are, and the frame is dropped when no other could
 * come (G31).
 *
 * Omitted, features that are not offered: large frames to the guest (GUEST_TSO; a large MTU does the same for TCP),
 * several pairs of queues, VLAN filters, announcements, RSS, notification coalescing.
 *
 * Threads: vCPUs and the back end's, under the device's lock.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "dev/virtio/virtio.h"
#include "dev/virtio/virtio_pci.h"
#include "vm/net.h"
#include "vm/vm.h"

#define RX         0
#define TX         1
#define CTRL       2
#define NR_QUEUES  3
#define CLASS_CODE 0x020000 /* Ethernet */

/* Features [virtio 5.1.3] */
#define F_CSUM          BIT(0)
#define F_GUEST_CSUM    BIT(1)
#define F_MTU           BIT(3)
#define F_MAC           BIT(5)
#define F_HOST_TSO4     BIT(11)
#define F_HOST_TSO6     BIT(12)
#define F_MRG_RXBUF     BIT(15)
#define F_STATUS        BIT(16)
#define F_CTRL_VQ       BIT(17)
#define F_CTRL_RX       BIT(18)
#define F_CTRL_RX_EXTRA BIT(20)
#define F_CTRL_MAC_ADDR BIT(23)

/* In front of every frame [virtio 5.1.6] */
struct net_header {
	u8 flags, gso_type;
	u16 hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
#define HEADER_LEN   12
#define H_NEEDS_CSUM BIT(0)
#define H_DATA_VALID BIT(1)
#define GSO_NONE     0
#define GSO_TCPV4    1
#define GSO_TCPV6    4
#define GSO_ECN      0x80
#define MIN_FRAME    14

/* [virtio 5.1.4] */
struct net_config {
	u8 mac[NET_MAC_LEN];
	u16 status, max_virtqueue_pairs, mtu;
} packed_struct;
#define S_LINK_UP 1

/* Control commands [virtio 5.1.6.5] */
#define CTRL_RX_CLASS  0
#define CTRL_MAC_CLASS 1
#define CTRL_TABLE_SET 0
#define CTRL_ADDR_SET  1
#define CTRL_OK        0
#define CTRL_ERR       1
#define NR_RX_MODES    6
/* Bits of rx_mode, by command */
#define RX_PROMISC  BIT(0)
#define RX_ALLMULTI BIT(1)
#define RX_ALLUNI   BIT(2)
#define RX_NOMULTI  BIT(3)
#define RX_NOUNI    BIT(4)
#define RX_NOBCAST  BIT(5)
/* and by a table that was too long */
#define RX_ALLUNI_BY_TABLE   BIT(6)
#define RX_ALLMULTI_BY_TABLE BIT(7)
#define TABLE_SIZE           64 /* addresses; a longer table is as good as all of its kind */

enum { C_SENT, C_SENT_BYTES, C_RECEIVED, C_RECEIVED_BYTES, C_LOST, NR_COUNTERS };

struct virtio_net {
	struct device dev;
	struct virtio v;
	struct virtio_pci pci;
	struct net_config config;
	struct net *net;
	bool starved;                         /* the back end has a frame for which there was no room */
	u8 frame[HEADER_LEN + NET_MAX_FRAME]; /* the one on its way out */
	u64 count[NR_COUNTERS];

	/* State */
	u8 mac[NET_MAC_LEN]; /* what frames are filtered by */
	u8 rx_mode;
	u8 nr_uni, nr_multi; /* entries of table, first the unicast ones */
	u8 table[TABLE_SIZE * NET_MAC_LEN];
};

_Static_assert(sizeof(struct net_header) == HEADER_LEN, "header");

static void count(struct virtio_net *n, unsigned what, u64 by)
{
	__atomic_store_n(&n->count[what], n->count[what] + by, __ATOMIC_RELAXED);
}

/* ---- sending ---- */

/* Ones' complement sum over what the header names, inside the frame, which the driver has begun with the pseudo header's
 * [virtio 5.1.6.2]. */
static void fill_checksum(u8 *frame, size_t len, const struct net_header *h)
{
	size_t at = (size_t)h->csum_start + h->csum_offset, i;
	u64 sum = 0;
	u16 csum;

	/* Sums of wider words fold to the same; 64 KiB of them do not carry out of 64 bits. */
	for (i = h->csum_start; i + 4 <= len; i += 4)
		sum += ld32(frame + i);
	for (; i + 2 <= len; i += 2)
		sum += ld16(frame + i);
	if (i < len)
		sum += frame[i];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	csum = (u16)~sum;
	/* In UDP 0 says that there is none; both are the same number. */
	st16(frame + at, csum ? csum : 0xffff);
}

static bool header_is_good(const struct virtio_net *n, const struct net_header *h)
{
	u64 need = 0;

	if (h->flags & H_NEEDS_CSUM)
		need |= F_CSUM;
	switch (h->gso_type & ~GSO_ECN) {
	case GSO_NONE: break;
	case GSO_TCPV4: need |= F_HOST_TSO4; break;
	case GSO_TCPV6: need |= F_HOST_TSO6; break;
	default: return false;
	}
	if (h->gso_type != GSO_NONE && (!h->gso_size || !(h->flags & H_NEEDS_CSUM)))
		return false;
	return (n->v.features & need) == need;
}

/* False: the back end has no room. What is no frame is dropped, as on a wire. */
static bool transmit(struct virtio_net *n, const struct virtq_buf *buf)
{
	u8 *frame = n->frame + HEADER_LEN;
	struct net_header h;
	size_t len;
	bool sent;

	if (buf->out_len < HEADER_LEN + MIN_FRAME || buf->out_len > sizeof(n->frame))
		return true;
	virtq_read(buf->iov, buf->nr_out, 0, n->frame, sizeof(n->frame));
	memcpy(&h, n->frame, sizeof(h));
	len = (size_t)buf->out_len - HEADER_LEN;
	if (!n->net || !header_is_good(n, &h) ||
	    (h.flags & H_NEEDS_CSUM && (size_t)h.csum_start + h.csum_offset + 2 > len))
		return true;
	if (h.flags & H_NEEDS_CSUM && n->net->does_work) {
		const struct net_work work = { h.gso_type, h.hdr_len, h.gso_size, h.csum_start,
					       h.csum_offset };

		sent = n->net->ops->send(n->net, &work, frame, len);
	} else {
		if (h.flags & H_NEEDS_CSUM)
			fill_checksum(frame, len, &h);
		sent = n->net->ops->send(n->net, NULL, frame, len);
	}
	if (!sent)
		return false;
	count(n, C_SENT, 1);
	count(n, C_SENT_BYTES, len);
	return true;
}

/* ---- control ---- */

static bool set_rx_mode(struct virtio_net *n, u8 command, const struct virtq_buf *buf)
{
	u8 on;

	if (command >= NR_RX_MODES || buf->out_len != 3)
		return false;
	virtq_read(buf->iov, buf->nr_out, 2, &on, 1);
	if (on > 1)
		return false;
	n->rx_mode = (u8)((n->rx_mode & ~(1u << command)) | (unsigned)on << command);
	return true;
}

/* Two tables, of unicast and of multicast addresses, each behind its number of entries. */
static bool set_table(struct virtio_net *n, const struct virtq_buf *buf)
{
	u64 at = 2;
	u32 nr[2];
	u64 where[2];

	for (unsigned i = 0; i < 2; i++) {
		if (virtq_read(buf->iov, buf->nr_out, at, &nr[i], 4) != 4)
			return false;
		where[i] = at + 4;
		at = where[i] + (u64)nr[i] * NET_MAC_LEN;
		if (at > buf->out_len)
			return false;
	}
	if (at != buf->out_len)
		return false;
	n->rx_mode &= (u8) ~(RX_ALLUNI_BY_TABLE | RX_ALLMULTI_BY_TABLE);
	if ((u64)nr[0] > TABLE_SIZE) {
		n->rx_mode |= RX_ALLUNI_BY_TABLE;
		nr[0] = 0;
	}
	if ((u64)nr[0] + nr[1] > TABLE_SIZE) {
		n->rx_mode |= RX_ALLMULTI_BY_TABLE;
		nr[1] = 0;
	}
	memset(n->table, 0, sizeof(n->table));
	n->nr_uni = (u8)nr[0];
	n->nr_multi = (u8)nr[1];
	virtq_read(buf->iov, buf->nr_out, where[0], n->table, nr[0] * NET_MAC_LEN);
	virtq_read(buf->iov, buf->nr_out, where[1], n->table + nr[0] * NET_MAC_LEN, nr[1] * NET_MAC_LEN);
	return true;
}

static bool control(struct virtio_net *n, const struct virtq_buf *buf)
{
	u8 what[2];

	if (virtq_read(buf->iov, buf->nr_out, 0, what, sizeof(what)) != sizeof(what))
		return false;
	if (what[0] == CTRL_RX_CLASS)
		return set_rx_mode(n, what[1], buf);
	if (what[0] == CTRL_MAC_CLASS && what[1] == CTRL_TABLE_SET)
		return set_table(n, buf);
	if (what[0] == CTRL_MAC_CLASS && what[1] == CTRL_ADDR_SET && buf->out_len == 2 + NET_MAC_LEN) {
		virtq_read(buf->iov, buf->nr_out, 2, n->mac, NET_MAC_LEN);
		return true;
	}
	return false;
}

static bool request(struct virtio *v, unsigned q, const struct virtq_buf *buf)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);
	struct virtq_used used = { .token = buf->token };

	if (q == CTRL) {
		u8 ack;

		if (!buf->in_len) {
			virtio_broken(v, "a control command without a byte for its answer");
			return false;
		}
		ack = control(n, buf) ? CTRL_OK : CTRL_ERR;
		virtq_write(n->dev.vm, buf->iov + buf->nr_out, buf->nr_in, 0, &ack, 1);
		used.written = 1;
	} else if (!transmit(n, buf)) {
		return false;
	}
	virtq_push(v, q, &used, 1);
	return true;
}

/* ---- receiving ---- */

static bool in_table(const struct virtio_net *n, const u8 *mac, unsigned first, unsigned nr)
{
	for (unsigned i = first; i < first + nr; i++)
		if (!memcmp(n->table + i * NET_MAC_LEN, mac, NET_MAC_LEN))
			return true;
	return false;
}

static bool wanted(const struct virtio_net *n, const u8 *mac)
{
	static const u8 broadcast[NET_MAC_LEN] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	if (n->rx_mode & RX_PROMISC)
		return true;
	if (!memcmp(mac, broadcast, NET_MAC_LEN))
		return !(n->rx_mode & RX_NOBCAST);
	if (mac[0] & 1)
		return !(n->rx_mode & RX_NOMULTI) && (n->rx_mode & (RX_ALLMULTI | RX_ALLMULTI_BY_TABLE) ||
						      in_table(n, mac, n->nr_uni, n->nr_multi));
	return !(n->rx_mode & RX_NOUNI) &&
	       (n->rx_mode & (RX_ALLUNI | RX_ALLUNI_BY_TABLE) || !memcmp(mac, n->mac, NET_MAC_LEN) ||
		in_table(n, mac, 0, n->nr_uni));
}

/* The parts of the first buffer that take the header: HEADER_LEN at most, as none is empty. */
struct first {
	struct iovec iov[HEADER_LEN];
	unsigned nr;
};

static bool receive(void *opaque, const u8 *frame, size_t len)
{
	struct virtio_net *n = opaque;
	struct virtio *v = &n->v;
	struct virtq_buf *buf = &v->buf;
	struct virtq_used used[VIRTIO_QUEUE_SIZE];
	struct virtq_token tokens[VIRTIO_QUEUE_SIZE];
	struct net_header h = { .flags = virtio_has(v, F_GUEST_CSUM) ? H_DATA_VALID : 0 };
	struct first first = { .nr = 0 };
	bool merge = virtio_has(v, F_MRG_RXBUF);
	size_t done = 0;
	unsigned nr = 0, most = merge ? v->q_size[RX] : 1;

	n->starved = false;
	if (!virtio_running(v) || len < MIN_FRAME || !wanted(n, frame)) {
		count(n, C_LOST, 1);
		return true;
	}
	while (done < len || !nr) {
		u64 skip = nr ? 0 : HEADER_LEN;
		bool there = nr < most && virtq_pop(v, RX, buf);

		if (!there || buf->in_len < skip || (!merge && buf->in_len < HEADER_LEN + len)) {
			bool hopeless = there || nr == most || !virtio_running(v);

			if (there)
				tokens[nr++] = buf->token;
			virtq_unpop(v, RX, tokens, nr);
			/* Buffers that are too small will not grow: the frame is lost. Else more may come. */
			n->starved = !hopeless;
			if (hopeless)
				count(n, C_LOST, 1);
			return hopeless;
		}
		if (!nr)
			for (first.nr = 0; first.nr < MIN(buf->nr_in, (unsigned)HEADER_LEN); first.nr++)
				first.iov[first.nr] = buf->iov[buf->nr_out + first.nr];
		size_t here = virtq_write(n->dev.vm, buf->iov + buf->nr_out, buf->nr_in, skip, frame + done,
					  len - done);
		tokens[nr] = buf->token;
		used[nr++] = (struct virtq_used){ buf->token, (u32)(skip + here) };
		done += here;
	}
	h.num_buffers = (u16)nr;
	virtq_write(n->dev.vm, first.iov, first.nr, 0, &h, sizeof(h));
	virtq_push(v, RX, used, nr);
	count(n, C_RECEIVED, 1);
	count(n, C_RECEIVED_BYTES, len);
	return true;
}

static void received(void *opaque)
{
	struct virtio_net *n = opaque;

	virtq_notify(&n->v, RX);
	/* New buffers are of interest only when a frame waits for them. */
	if (virtq_listen(&n->v, RX, n->starved))
		n->net->ops->ready(n->net);
}

static void writable(void *opaque)
{
	struct virtio_net *n = opaque;

	virtio_run(&n->v, TX);
}

static void buffers(struct virtio *v, unsigned q)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	if (n->net)
		n->net->ops->ready(n->net);
}

/* ---- the device ---- */

static void stopped(struct virtio *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	memcpy(n->mac, n->config.mac, NET_MAC_LEN);
	n->rx_mode = 0;
	n->nr_uni = n->nr_multi = 0;
	memset(n->table, 0, sizeof(n->table));
}

/* A driver that cannot set the mode wants everything [virtio 5.1.6.5.1]. */
static void started(struct virtio *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);

	if (!virtio_has(v, F_CTRL_RX))
		n->rx_mode |= RX_PROMISC;
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_NET,
	.class_code = CLASS_CODE,
	.request = request,
	.buffers = buffers,
	.started = started,
	.stopped = stopped,
};

static int virtio_net_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	static const u8 none[NET_MAC_LEN];
	struct virtio_net *n = container_of(dev, struct virtio_net, dev);
	const u8 *mac = conf->mac ? conf->mac : none;
	u64 features = F_CSUM | F_GUEST_CSUM | F_MTU | F_MAC | F_HOST_TSO4 | F_HOST_TSO6 | F_MRG_RXBUF |
		       F_STATUS | F_CTRL_VQ | F_CTRL_RX | F_CTRL_RX_EXTRA | F_CTRL_MAC_ADDR;
	int r;

	if (mac[0] & 1 || !memcmp(mac, none, NET_MAC_LEN))
		return err_set(err, -EINVAL,
			       "a network adapter needs an address of its own, not one of a group or none");
	memcpy(n->config.mac, mac, NET_MAC_LEN);
	n->config.status = conf->net ? S_LINK_UP : 0;
	n->config.max_virtqueue_pairs = 1;
	n->config.mtu = conf->net ? conf->net->mtu : 1500;
	virtio_init(&n->v, dev, &ops, features, conf->packed, NR_QUEUES, &n->config, sizeof(n->config));
	virtio_fill_queue(&n->v, RX);
	r = virtio_pci_init(&n->pci, &n->v, err);
	if (r < 0 || !conf->net)
		return r;
	n->net = conf->net;
	n->net->lock = dev->lock;
	n->net->receive = receive;
	n->net->received = received;
	n->net->writable = writable;
	n->net->opaque = n;
	return 0;
}

static void stop_net(struct virtio_net *n)
{
	if (n->net)
		n->net->ops->stop(n->net);
}

/* Frames that come meanwhile wait at the back end, and those of the guest in its ring. */
static void virtio_net_quiesce(struct device *dev)
{
	struct virtio_net *n = container_of(dev, struct virtio_net, dev);

	virtio_quiesce(&n->v);
	stop_net(n);
}

static void virtio_net_resume(struct device *dev)
{
	struct virtio_net *n = container_of(dev, struct virtio_net, dev);

	virtio_resume(&n->v);
	if (n->net)
		n->net->ops->start(n->net);
}

static unsigned virtio_net_stats(struct device *dev, struct device_stat ret[DEVICE_MAX_STATS])
{
	static const char *const names[NR_COUNTERS] = {
		[C_SENT] = "sent_frames",         [C_SENT_BYTES] = "sent_bytes",
		[C_RECEIVED] = "received_frames", [C_RECEIVED_BYTES] = "received_bytes",
		[C_LOST] = "lost_frames",
	};
	struct virtio_net *n = container_of(dev, struct virtio_net, dev);

	for (unsigned i = 0; i < NR_COUNTERS; i++)
		ret[i] = (struct device_stat){ names[i], __atomic_load_n(&n->count[i], __ATOMIC_RELAXED) };
	return NR_COUNTERS;
}

static void virtio_net_reset(struct device *dev, enum reset_kind kind)
{
	struct virtio_net *n = container_of(dev, struct virtio_net, dev);

	stop_net(n);
	stopped(&n->v);
	virtio_pci_reset(&n->pci);
	if (n->net)
		n->net->ops->start(n->net);
}

static const struct state_field virtio_net_state[] = {
	VIRTIO_STATE(virtio_net, v),  VIRTIO_PCI_STATE(virtio_net, pci),
	STATE_U8S(virtio_net, mac),   STATE_U8(virtio_net, rx_mode),
	STATE_U8(virtio_net, nr_uni), STATE_U8(virtio_net, nr_multi),
	STATE_U8S(virtio_net, table), STATE_END,
};

static int virtio_net_post_load(struct device *dev, struct err *err)
{
	struct virtio_net *n = container_of(dev, struct virtio_net, dev);
	int r;

	if (n->nr_uni + n->nr_multi > TABLE_SIZE)
		return err_set(err, -EINVAL, "the state of device %s has %u addresses in a table of %u",
			       dev->id, n->nr_uni + n->nr_multi, TABLE_SIZE);
	r = virtio_pci_post_load(&n->pci, err);
	if (r == 0 && n->net)
		n->net->ops->start(n->net);
	return r;
}

static void virtio_net_fini(struct device *dev)
{
	struct virtio_net *n = container_of(dev, struct virtio_net, dev);

	stop_net(n);
	virtio_pci_fini(&n->pci);
}

const struct device_ops virtio_net_device = {
	.name = "virtio-net",
	.size = sizeof(struct virtio_net),
	.init = virtio_net_init,
	.reset = virtio_net_reset,
	.quiesce = virtio_net_quiesce,
	.resume = virtio_net_resume,
	.stats = virtio_net_stats,
	.state = virtio_net_state,
	.post_load = virtio_net_post_load,
	.fini = virtio_net_fini,
};
