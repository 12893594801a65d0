/* Network by a TAP interface, which an administrator has made and put on a bridge or a route.
 *
 * Document: Linux Documentation/networking/tuntap.rst, and virtio 1.2 for the header in front of each frame (IFF_VNET_HDR).
 *
 * How it works: what the guest sends is written to the interface on the thread that brings it, with the work that is left on
 * it (a checksum, cutting into segments) in the header, so that it is done by the kernel, late or never. What arrives is read
 * on the main loop, whole and checked: the kernel is not asked to leave work on it (TUNSETOFFLOAD 0). A frame for which
 * the guest has no room is kept, and no other is read until it has.
 *
 * An interface that goes away takes the guest's network with it: said once, the machine goes on.
 *
 * Omitted: several queues; making interfaces, since one that is only just made leads nowhere.
 *
 * Threads: as in vm/net.h.
 */
#include "host/net_tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/os.h"

#define DEVICE "/dev/net/tun"
#define BATCH  64 /* frames of the host before others get their turn */

/* [virtio 5.1.6], without the number of buffers */
struct header {
	u8 flags, gso_type;
	u16 hdr_len, gso_size, csum_start, csum_offset;
};
#define H_NEEDS_CSUM 1

struct net_tap {
	struct net net;
	struct loop *loop;
	struct loop_fd *watch; /* NULL: stopped, or the interface is gone */
	int fd;
	char name[IFNAMSIZ];

	/* Under *net.lock */
	bool rx_stopped; /* the guest has no room */
	bool tx_starved;
	u64 refused; /* frames that the kernel would not take */

	/* The main thread's: a frame that waits for room. */
	size_t held;
	u8 frame[sizeof(struct header) + NET_MAX_FRAME];
};

/* ---- watching ---- */

static void gone(struct net_tap *t, int code)
{
	log_error("network: TAP %s fails (errno %d), the guest has no network any more", t->name, code);
	loop_fd_del(t->watch);
	t->watch = NULL;
}

/* To the guest; false: there is no room, or nothing held. */
static bool give(struct net_tap *t)
{
	bool taken;

	taken = t->net.receive(t->net.opaque, t->frame + sizeof(struct header), t->held);
	if (taken)
		t->held = 0;
	else
		t->rx_stopped = true;
	return taken;
}

static void read_frames(struct net_tap *t)
{
	pthread_mutex_lock(t->net.lock);
	for (unsigned n = 0; n < BATCH && t->watch && !t->rx_stopped; n++) {
		if (!t->held) {
			ssize_t len = read(t->fd, t->frame, sizeof(t->frame));

			if (len < 0 && errno != EAGAIN && errno != EINTR)
				gone(t, errno);
			if (len <= (ssize_t)sizeof(struct header))
				break;
			t->held = (size_t)len - sizeof(struct header);
		}
		give(t);
	}
	t->net.received(t->net.opaque);
	pthread_mutex_unlock(t->net.lock);
}

static u32 wanted(struct net_tap *t)
{
	return (t->rx_stopped ? 0u : (u32)EPOLLIN) | (t->tx_starved ? (u32)EPOLLOUT : 0u);
}

static void watch_anew(void *opaque)
{
	struct net_tap *t = opaque;

	if (!t->watch)
		return;
	/* What is held comes without an event. */
	if (t->held)
		read_frames(t);
	pthread_mutex_lock(t->net.lock);
	if (t->watch)
		loop_fd_mod(t->watch, wanted(t));
	pthread_mutex_unlock(t->net.lock);
}

static void on_event(void *opaque, u32 events)
{
	struct net_tap *t = opaque;

	if (events & EPOLLOUT) {
		pthread_mutex_lock(t->net.lock);
		t->tx_starved = false;
		t->net.writable(t->net.opaque);
		pthread_mutex_unlock(t->net.lock);
	}
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		read_frames(t);
	watch_anew(t);
}

/* ---- the contract ---- */

static bool tap_send(struct net *net, const struct net_work *work, const void *frame, size_t len)
{
	struct net_tap *t = container_of(net, struct net_tap, net);
	struct header h = { 0 };
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)frame, len } };

	if (work)
		h = (struct header){ .flags = H_NEEDS_CSUM,
				     .gso_type = work->gso_type,
				     .hdr_len = work->hdr_len,
				     .gso_size = work->gso_size,
				     .csum_start = work->csum_start,
				     .csum_offset = work->csum_offset };
	if (writev(t->fd, iov, 2) >= 0)
		return true;
	if (errno == EAGAIN || errno == ENOBUFS) {
		t->tx_starved = true;
		loop_post(t->loop, watch_anew, t);
		return false;
	}
	/* The interface is down, or the frame is nonsense: lost, as on a wire. */
	t->refused++;
	log_guest("network: TAP %s has not taken %llu frames so far (errno %d)", t->name,
		  (unsigned long long)t->refused, errno);
	return true;
}

static void tap_ready(struct net *net)
{
	struct net_tap *t = container_of(net, struct net_tap, net);

	if (!t->rx_stopped)
		return;
	t->rx_stopped = false;
	loop_post(t->loop, watch_anew, t);
}

static void tap_start(struct net *net)
{
	struct net_tap *t = container_of(net, struct net_tap, net);
	struct err err;

	if (t->watch)
		return;
	t->rx_stopped = t->tx_starved = false;
	t->held = 0;
	if (loop_fd_add(t->loop, t->fd, EPOLLIN, on_event, t, &t->watch, &err) < 0)
		log_error("network: %s", err.msg);
}

static void tap_stop(struct net *net)
{
	struct net_tap *t = container_of(net, struct net_tap, net);

	loop_fd_del(t->watch);
	t->watch = NULL;
}

static void tap_close(struct net *net)
{
	struct net_tap *t = container_of(net, struct net_tap, net);

	if (t->fd >= 0)
		close(t->fd);
	free(t);
}

static const struct net_ops tap_ops = { tap_send, tap_ready, tap_start, tap_stop, tap_close };

/* ---- opening ---- */

#define MAKE_IT "an administrator makes one with: ip tuntap add dev %s mode tap user NAME; ip link set %s up"

/* What the kernel would take for a pattern or a path is no name. */
static bool is_name(const char *name)
{
	size_t len = strlen(name);

	if (!len || len >= IFNAMSIZ || !strcmp(name, ".") || !strcmp(name, ".."))
		return false;
	for (const char *p = name; *p; p++)
		if (*p <= ' ' || *p >= 0x7f || strchr("/:%", *p))
			return false;
	return true;
}

static int attach(struct net_tap *t, struct err *err)
{
	struct ifreq req = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int header_len = sizeof(struct header);

	t->fd = open(DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (t->fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
		return err_set(err, -errno,
			       "--net tap=%s: this host has no TAP interfaces (" DEVICE
			       " is not there; the kernel's module is called tun); use --net user",
			       t->name);
	if (t->fd < 0 && (errno == EACCES || errno == EPERM))
		return err_set(
			err, -errno,
			"--net tap=%s: this user may not open " DEVICE
			"; have an administrator allow it (most systems give it mode 666), or use --net user",
			t->name);
	if (t->fd < 0)
		return err_sys(err, -errno, "--net tap=%s: " DEVICE " cannot be opened", t->name);
	memcpy(req.ifr_name, t->name, sizeof(t->name));
	if (ioctl(t->fd, TUNSETIFF, &req) < 0) {
		switch (errno) {
		case EPERM:
			return err_set(err, -EPERM,
				       "--net tap=%s: it is not this user's; " MAKE_IT ", or use --net user",
				       t->name, t->name, t->name);
		case EBUSY:
			return err_set(
				err, -EBUSY,
				"--net tap=%s: another program, perhaps another machine, has it; use another one",
				t->name);
		case EINVAL:
			return err_set(err, -EINVAL, "--net tap=%s: this interface is no TAP; " MAKE_IT,
				       t->name, "NEW", "NEW");
		default: return err_sys(err, -errno, "--net tap=%s cannot be used", t->name);
		}
	}
	if (ioctl(t->fd, TUNSETVNETHDRSZ, &header_len) < 0 || ioctl(t->fd, TUNSETOFFLOAD, 0ul) < 0)
		return err_sys(err, -errno, "--net tap=%s cannot be set up", t->name);
	return 0;
}

static int read_mtu(struct net_tap *t, struct err *err)
{
	struct ifreq req = { 0 };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r = 0;

	memcpy(req.ifr_name, t->name, sizeof(t->name));
	if (s < 0 || ioctl(s, SIOCGIFMTU, &req) < 0)
		r = err_sys(err, -errno, "--net tap=%s: its MTU cannot be read", t->name);
	else
		t->net.mtu = (u16)MIN(req.ifr_mtu, 65520);
	if (s >= 0)
		close(s);
	return r;
}

int net_tap_open(const char *name, struct loop *loop, struct net **ret_net, struct err *err)
{
	struct net_tap *t;
	int r;

	if (!is_name(name))
		return err_set(err, -EINVAL,
			       "--net: '%.64s' is no name of a TAP interface; give one, as in tap=tap0",
			       name);
	/* TUNSETIFF would make a new one where it may, which leads nowhere. */
	if (!if_nametoindex(name) && errno == ENODEV)
		return err_set(err, -ENODEV, "--net tap=%s: there is no such interface; " MAKE_IT, name, name,
			       name);
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(err, -ENOMEM, "--net tap=%s: no memory", name);
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->net.ops = &tap_ops;
	t->net.does_work = true;
	t->loop = loop;
	t->fd = -1;
	r = attach(t, err);
	if (r == 0)
		r = read_mtu(t, err);
	if (r < 0) {
		tap_close(&t->net);
		return r;
	}
	*ret_net = &t->net;
	return 0;
}
