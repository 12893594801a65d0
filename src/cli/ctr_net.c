/* eth0 of a container.
 *
 * User network: a tap device is made in the container's namespace by a hook, this same program, for only there has a user
 * without privileges the right to, and nobody can join the namespace of a process that has not begun its program. Its descriptor
 * comes here through a socket. Frames go between it and host/net_user.c, the network of virtual machines: the container is
 * 10.0.2.15, its gateway 10.0.2.2, its name server 10.0.2.3. Needs no rights on the host.
 *
 * Bridge: one message of rtnetlink(7) makes a pair of veth, one end in the host's namespace and in the bridge, the other one
 * in the container's; the pair ends with the container's namespace. The bridge is made with the first and stays. It connects
 * containers and this host; nothing here changes the host's forwarding or its packet filter.
 *
 * Threads: ctr_net_* on the main thread; receive() and writable() on the user network's.
 */
#include "cli/ctr_net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <net/if.h>
#include <net/route.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/net_user.h"
#include "jail/ns.h"
#include "oci/wire.h"

#define BRIDGE       "bothy0"
#define USER_MTU     65520
#define USER_ADDRESS 0x0a00020fu /* 10.0.2.15 */
#define USER_GATEWAY 0x0a000202u
#define BATCH        64

struct ctr_net {
	struct net *net;
	pthread_mutex_t lock;
	int tap, space; /* space: an eventfd that rings when send() has room again */
	bool full;      /* frame waits for that */
	size_t len;
	u8 frame[NET_MAX_FRAME];
};

/* --- interfaces, by ioctl [netdevice(7)] --- */

static void set_address(struct sockaddr *a, u32 address)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(address) };

	memcpy(a, &in, sizeof(in));
}

/* Address, 24 bits of network, up; gateway 0: none. mtu 0: as it is. */
static int configure(const char *name, u32 address, u32 gateway, int mtu, struct err *err)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = 0;
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
	struct ifreq r = { 0 };

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	r.ifr_mtu = mtu;
	if (fd < 0 || (mtu && ioctl(fd, SIOCSIFMTU, &r) < 0))
		rc = -errno;
	set_address(&r.ifr_addr, address);
	if (!rc && ioctl(fd, SIOCSIFADDR, &r) < 0)
		rc = -errno;
	set_address(&r.ifr_netmask, 0xffffff00);
	if (!rc && ioctl(fd, SIOCSIFNETMASK, &r) < 0)
		rc = -errno;
	r.ifr_flags = IFF_UP | IFF_RUNNING;
	if (!rc && ioctl(fd, SIOCSIFFLAGS, &r) < 0)
		rc = -errno;
	set_address(&route.rt_gateway, gateway);
	set_address(&route.rt_dst, 0);
	set_address(&route.rt_genmask, 0);
	if (!rc && gateway && ioctl(fd, SIOCADDRT, &route) < 0)
		rc = -errno;
	if (fd >= 0)
		close(fd);
	return rc ? err_sys(err, rc, "--network: cannot set up the interface %s", name) : 0;
}

/* --- bridge --- */

struct request {
	struct nlmsghdr head;
	struct ifinfomsg info;
	u8 attributes[512];
};

static struct rtattr *put(struct request *q, u16 type, const void *data, size_t len)
{
	struct rtattr *a = (void *)((u8 *)q + NLMSG_ALIGN(q->head.nlmsg_len));

	*a = (struct rtattr){ .rta_len = (u16)RTA_LENGTH(len), .rta_type = type };
	if (len)
		memcpy(RTA_DATA(a), data, len);
	q->head.nlmsg_len = NLMSG_ALIGN(q->head.nlmsg_len) + RTA_ALIGN(a->rta_len);
	return a;
}

/* Everything since `a` is in it. */
static void end(struct request *q, struct rtattr *a)
{
	a->rta_len = (u16)((u8 *)q + q->head.nlmsg_len - (u8 *)a);
}

static int ask(struct request *q)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), rc = -EIO;
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		u8 more[1024];
	} answer;

	if (fd < 0)
		return -errno;
	q->head.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	if (send(fd, q, q->head.nlmsg_len, 0) < 0)
		rc = -errno;
	else if (recv(fd, &answer, sizeof(answer), 0) >= (ssize_t)NLMSG_LENGTH(sizeof(answer.error)) &&
		 answer.head.nlmsg_type == NLMSG_ERROR)
		rc = answer.error.error;
	close(fd);
	return rc;
}

static void begin(struct request *q)
{
	memset(q, 0, sizeof(*q));
	q->head.nlmsg_len = NLMSG_LENGTH(sizeof(q->info));
	q->head.nlmsg_type = RTM_NEWLINK;
	q->head.nlmsg_flags = NLM_F_CREATE | NLM_F_EXCL;
}

static int make_bridge(struct err *err)
{
	struct request q;
	struct rtattr *link;
	int rc;

	begin(&q);
	put(&q, IFLA_IFNAME, BRIDGE, sizeof(BRIDGE));
	link = put(&q, IFLA_LINKINFO, NULL, 0);
	put(&q, IFLA_INFO_KIND, "bridge", sizeof("bridge"));
	end(&q, link);
	rc = ask(&q);
	if (rc == -EEXIST)
		return 0;
	if (rc)
		return err_sys(err, rc, "--network private: cannot make the bridge " BRIDGE);
	return configure(BRIDGE, CTR_NET_GATEWAY, 0, 0, err);
}

static int make_pair(pid_t pid, struct err *err)
{
	struct ifinfomsg info = { 0 };
	struct rtattr *link, *data, *peer;
	char name[IFNAMSIZ];
	u32 bridge = if_nametoindex(BRIDGE), number = (u32)pid;
	struct request q;
	int rc;

	snprintf(name, sizeof(name), "bothy%d", (int)pid);
	begin(&q);
	q.info.ifi_flags = q.info.ifi_change = IFF_UP;
	put(&q, IFLA_IFNAME, name, strlen(name) + 1);
	put(&q, IFLA_MASTER, &bridge, sizeof(bridge));
	link = put(&q, IFLA_LINKINFO, NULL, 0);
	put(&q, IFLA_INFO_KIND, "veth", sizeof("veth"));
	data = put(&q, IFLA_INFO_DATA, NULL, 0);
	peer = put(&q, VETH_INFO_PEER, &info, sizeof(info));
	put(&q, IFLA_IFNAME, "eth0", sizeof("eth0"));
	put(&q, IFLA_NET_NS_PID, &number, sizeof(number));
	end(&q, peer);
	end(&q, data);
	end(&q, link);
	rc = ask(&q);
	return rc ? err_sys(err, rc, "--network private: cannot make a pair of interfaces") : 0;
}

/* In the container's network namespace. */
static int configure_inside(pid_t pid, u32 address, struct err *err)
{
	int fds[NS_KINDS], rc;
	char path[64];

	for (unsigned k = 0; k < NS_KINDS; k++)
		fds[k] = -1;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	rc = ns_open(NS_NET, path, &fds[NS_NET], err);
	if (!rc)
		rc = ns_join(fds, err);
	return rc ? rc : configure("eth0", address, CTR_NET_GATEWAY, 0, err);
}

int ctr_net_join_bridge(pid_t pid, u32 address, struct err *err)
{
	int ends[2], rc = make_bridge(err);
	pid_t child;

	if (!rc)
		rc = make_pair(pid, err);
	if (!rc)
		rc = wire_pair(ends, err);
	if (rc)
		return rc;
	child = fork();
	if (child == 0) {
		struct err theirs = { 0 };

		if (configure_inside(pid, address, &theirs))
			wire_send_error(ends[1], &theirs);
		else
			wire_send(ends[1], WIRE_READY, NULL, 0);
		_exit(0);
	}
	close(ends[1]);
	rc = child < 0 ? err_sys(err, -errno, "--network: cannot make a process")
		       : wire_expect(ends[0], WIRE_READY, NULL, 0, NULL, err);
	close(ends[0]);
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	return rc;
}

/* --- the user network --- */

static int make_tap(int *ret_fd, struct err *err)
{
	struct ifreq r = { .ifr_name = "eth0", .ifr_flags = IFF_TAP | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return err_sys(
			err, -errno,
			"--network user: cannot open /dev/net/tun; use --network none, host or private");
	if (ioctl(fd, TUNSETIFF, &r) < 0) {
		int rc = err_sys(err, -errno, "--network user: cannot make a tap device");

		close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

static bool receive(void *opaque, const u8 *frame, size_t len)
{
	struct ctr_net *n = opaque;

	/* What the container does not take is lost, as on a wire. */
	return write(n->tap, frame, len) >= 0 || true;
}

static void received(void *opaque)
{
}

static void writable(void *opaque)
{
	struct ctr_net *n = opaque;
	u64 one = 1;
	ssize_t done = write(n->space, &one, sizeof(one));

	(void)done; /* it fails only when it has rung already */
}

int ctr_net_hook(const char *socket, struct err *err)
{
	struct err failure = { 0 };
	int tap = -1, conn, rc = wire_connect(socket, &conn, err);

	if (rc)
		return rc;
	rc = make_tap(&tap, &failure);
	if (!rc)
		rc = configure("eth0", USER_ADDRESS, USER_GATEWAY, USER_MTU, &failure);
	/* A failure is told by the supervisor, to whom it matters. */
	if (rc)
		wire_send_error(conn, &failure);
	else
		rc = wire_send_fd(conn, tap, "tap", 3, err);
	if (tap >= 0)
		close(tap);
	close(conn);
	return failure.code ? 0 : rc;
}

int ctr_net_receive(int listen, int *ret_tap, struct err *err)
{
	struct {
		u32 head;
		struct err err;
	} theirs;
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = { &theirs, sizeof(theirs) };
	struct msghdr m = { .msg_iov = &part,
			    .msg_iovlen = 1,
			    .msg_control = control.room,
			    .msg_controllen = sizeof(control.room) };
	int conn = accept4(listen, NULL, NULL, SOCK_CLOEXEC), rc = 0;
	ssize_t n = conn < 0 ? -1 : recvmsg(conn, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int))) {
		memcpy(ret_tap, CMSG_DATA(c), sizeof(int));
	} else if (n == (ssize_t)sizeof(theirs) && theirs.err.code < 0) {
		theirs.err.msg[sizeof(theirs.err.msg) - 1] = 0;
		rc = err_set(err, theirs.err.code, "%s", theirs.err.msg);
	} else {
		rc = err_set(err, -EIO, "--network user: the tap device has not come");
	}
	if (conn >= 0)
		close(conn);
	return rc;
}

int ctr_net_open(int tap, const char *const *forward, unsigned nr_forwards, struct ctr_net **ret_net,
		 struct err *err)
{
	const struct net_user_conf user = { .mtu = USER_MTU, .forward = forward, .nr_forwards = nr_forwards };
	struct ctr_net *n = calloc(1, sizeof(*n));
	int rc;

	if (!n) {
		close(tap);
		return err_set(err, -ENOMEM, "no memory for the container's network");
	}
	n->tap = tap;
	n->space = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = n->space < 0 ? err_sys(err, -errno, "cannot make an eventfd")
			  : net_user_open(&user, &n->net, err);
	if (rc) {
		if (n->space >= 0)
			close(n->space);
		close(tap);
		free(n);
		return rc;
	}
	pthread_mutex_init(&n->lock, NULL);
	n->net->lock = &n->lock;
	n->net->receive = receive;
	n->net->received = received;
	n->net->writable = writable;
	n->net->opaque = n;
	n->net->ops->start(n->net);
	*ret_net = n;
	return 0;
}

void ctr_net_close(struct ctr_net *n)
{
	if (!n)
		return;
	n->net->ops->stop(n->net);
	n->net->ops->close(n->net);
	pthread_mutex_destroy(&n->lock);
	close(n->tap);
	close(n->space);
	free(n);
}

void ctr_net_fds(struct ctr_net *n, int ret_fds[2])
{
	ret_fds[0] = n && !n->full ? n->tap : -1;
	ret_fds[1] = n ? n->space : -1;
}

void ctr_net_serve(struct ctr_net *n)
{
	u64 count;
	bool room = read(n->space, &count, sizeof(count)) > 0;

	if (n->full && !room)
		return;
	for (unsigned i = 0; i < BATCH; i++) {
		if (!n->full) {
			ssize_t len = read(n->tap, n->frame, sizeof(n->frame));

			if (len <= 0)
				return;
			n->len = (size_t)len;
		}
		pthread_mutex_lock(&n->lock);
		n->full = !n->net->ops->send(n->net, NULL, n->frame, n->len);
		pthread_mutex_unlock(&n->lock);
		if (n->full)
			return;
	}
}
