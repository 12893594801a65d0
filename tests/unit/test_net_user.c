/* The user network without a guest: an answer from its router, a guest that takes nothing and one that sends too much,
 * ports of the host, and a thread that sleeps when nothing happens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/os.h"
#include "host/net_user.h"
#include "openfiles.h"

static struct net *net;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool refuse;                         /* the guest has no buffers */
static unsigned frames, answers, writables; /* answers: of ARP */
static u8 last[NET_MAX_FRAME];

static bool receive(void *opaque, const u8 *frame, size_t len)
{
	assert_int_equal(pthread_mutex_trylock(&lock), EBUSY);
	if (refuse)
		return false;
	memcpy(last, frame, len);
	frames++;
	answers += len > 21 && frame[12] == 8 && frame[13] == 6 && frame[21] == 2;
	return true;
}

static void received(void *opaque)
{
}

static void writable(void *opaque)
{
	writables++;
}

static int open_net(const char *forward, struct err *err)
{
	const struct net_user_conf conf = { .mtu = 1500,
					    .forward = &forward,
					    .nr_forwards = forward ? 1 : 0 };

	return net_user_open(&conf, &net, err);
}

static int setup(void **state)
{
	struct err err = { 0 };
	int r = open_net(NULL, &err);

	if (r == -ENOSYS) {
		net = NULL;
		return 0;
	}
	assert_int_equal(r, 0);
	net->lock = &lock;
	net->receive = receive;
	net->received = received;
	net->writable = writable;
	refuse = false;
	frames = answers = writables = 0;
	net->ops->start(net);
	net->ops->start(net); /* no second thread */
	return 0;
}

static int teardown(void **state)
{
	if (!net)
		return 0;
	net->ops->stop(net);
	net->ops->stop(net);
	net->ops->close(net);
	return 0;
}

/* Who has 10.0.2.2? */
static bool ask(void)
{
	static const u8 request[60] = {
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0,    0x12, 0x34, 0x56, 8,    6,
		0,    1,    8,    0,    6,    4,    0,    1,    0x52, 0x54, 0,    0x12, 0x34, 0x56,
		10,   0,    2,    15,   0,    0,    0,    0,    0,    0,    10,   0,    2,    2,
	};
	bool ok;

	pthread_mutex_lock(&lock);
	ok = net->ops->send(net, NULL, request, sizeof(request));
	pthread_mutex_unlock(&lock);
	return ok;
}

static unsigned count(const unsigned *what)
{
	unsigned n;

	pthread_mutex_lock(&lock);
	n = *what;
	pthread_mutex_unlock(&lock);
	return n;
}

static bool wait_for(const unsigned *what, unsigned n)
{
	for (unsigned i = 0; i < 1000; i++) {
		if (count(what) >= n)
			return true;
		usleep(10000);
	}
	return false;
}

static void set_refuse(bool on)
{
	pthread_mutex_lock(&lock);
	refuse = on;
	if (!on)
		net->ops->ready(net);
	pthread_mutex_unlock(&lock);
}

/* Not where this was built without the library: it says so. */
static bool there(void)
{
	if (!net)
		print_message("there is no libslirp; nothing was tested\n");
	return net;
}

static void test_answer(void **state)
{
	if (!there())
		return;
	assert_true(ask());
	assert_true(wait_for(&frames, 1));
	assert_memory_equal(last, "\x52\x54\x00\x12\x34\x56", 6);
	assert_memory_equal(last + 28, "\x0a\x00\x02\x02", 4); /* it is at */
	/* stopped: nothing comes; started again: it goes on */
	net->ops->stop(net);
	assert_true(ask());
	usleep(50000);
	assert_int_equal(frames, 1);
	net->ops->start(net);
	assert_true(wait_for(&frames, 2));
}

static void test_guest_takes_nothing(void **state)
{
	if (!there())
		return;
	set_refuse(true);
	for (unsigned i = 0; i < 10; i++)
		assert_true(ask());
	usleep(100000);
	assert_int_equal(count(&frames), 0);
	set_refuse(false);
	assert_true(wait_for(&frames, 10));
	/* more than anybody keeps: the sender is held, then goes on */
	set_refuse(true);
	unsigned sent = 0;
	while (sent < 100000 && ask())
		sent++;
	assert_in_range(sent, 1000, 99999);
	set_refuse(false);
	assert_true(wait_for(&writables, 1));
	assert_true(ask());
}

static u64 cpu_us(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return (u64)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000 +
	       (u64)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec);
}

/* A word of new buffers that nobody waits for is heard once. */
static void test_sleeps(void **state)
{
	if (!there())
		return;
	for (unsigned i = 0; i < 2; i++) {
		u64 before;

		set_refuse(false);
		usleep(20000);
		before = cpu_us();
		usleep(500000);
		assert_in_range(cpu_us() - before, 0, 100000);
		/* and with a frame that waits */
		set_refuse(true);
		ask();
	}
}

static void test_forwards(void **state)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	int s = socket(AF_INET, SOCK_STREAM, 0);
	struct net *first = net;
	struct err err = { 0 };
	char text[64];

	if (!there()) {
		close(s);
		return;
	}
	assert_int_equal(bind(s, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(s, 1), 0);
	assert_int_equal(getsockname(s, (struct sockaddr *)&addr, &len), 0);
	snprintf(text, sizeof(text), "tcp:127.0.0.1:%u-:22", ntohs(addr.sin_port));
	assert_int_equal(open_net(text, &err), -EADDRINUSE);
	assert_non_null(strstr(err.msg, "is taken"));
	close(s);
	assert_int_equal(open_net(text, &err), 0);
	net->ops->close(net);
	snprintf(text, sizeof(text), "udp:127.0.0.1:%u-10.0.2.20:53", ntohs(addr.sin_port));
	assert_int_equal(open_net(text, &err), 0);
	net->ops->close(net);
	static const char *const bad[] = { "",
					   "tcp",
					   "tcp:",
					   "tcp:1-2",
					   "tcp::1",
					   "icmp::1-:2",
					   "tcp::1-:65536",
					   "tcp::-1-:5",
					   "tcp:1.2.3.4.5:1-:2",
					   "tcp::1-1.2.3.400:5",
					   "tcp::1 -:2",
					   "tcp:::1-:2" };
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(open_net(bad[i], &err), -EINVAL);
		assert_non_null(strstr(err.msg, bad[i]));
	}
	net = first;
}

/* When the network's thread has seen all that was sent: it answers in order. */
static unsigned settled(void)
{
	unsigned n = count(&answers), same = 0;

	while (!ask())
		usleep(1000);
	assert_true(wait_for(&answers, n + 1));
	n = open_files();
	for (unsigned i = 0; i < 1000 && same < 30; i++) {
		unsigned now;

		usleep(10000);
		now = open_files();
		same = now == n ? same + 1 : 0;
		n = now;
	}
	return n;
}

static u16 sum16(const u8 *p, size_t len, u32 sum)
{
	for (size_t i = 0; i < len; i++)
		sum += i & 1 ? p[i] : (u32)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (u16)~sum;
}

/* To 10.0.2.2: a datagram, or the first packet of a connection. */
static void send_from(u16 port, bool tcp, u16 to)
{
	static u8 frame[14 + 20 + 20] = { 0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 0 };
	u8 *ip = frame + 14, *l4 = ip + 20;
	u16 len = tcp ? 20 : 12;
	u16 sum;
	bool ok;

	memset(ip, 0, 40);
	memcpy(ip, (const u8[]){ 0x45, 0, 0, (u8)(20 + len), 0, 1, 0, 0, 64, tcp ? 6 : 17 }, 10);
	memcpy(ip + 12, (const u8[]){ 10, 0, 2, 15, 10, 0, 2, 2 }, 8);
	sum = sum16(ip, 20, 0);
	ip[10] = (u8)(sum >> 8);
	ip[11] = (u8)sum;
	l4[0] = (u8)(port >> 8);
	l4[1] = (u8)port;
	l4[2] = (u8)(to >> 8);
	l4[3] = (u8)to;
	if (tcp) {
		l4[12] = 0x50;
		l4[13] = 2; /* SYN */
		l4[14] = 0x20;
		sum = sum16(l4, 20, 6 + 20 + (10u << 8) + (2u << 8 | 15) + (10u << 8) + (2u << 8 | 2));
		l4[16] = (u8)(sum >> 8);
		l4[17] = (u8)sum;
	} else {
		l4[5] = (u8)len;
	}
	do {
		pthread_mutex_lock(&lock);
		ok = net->ops->send(net, NULL, frame, 34u + len);
		pthread_mutex_unlock(&lock);
		if (!ok)
			usleep(1000);
	} while (!ok);
}

/* A guest that opens as many connections as it can leaves the process half of its descriptors. */
static void test_sockets_are_bounded(void **state)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	int s = socket(AF_INET, SOCK_STREAM, 0);
	unsigned before, connections;
	struct rlimit limit;

	if (!there()) {
		close(s);
		return;
	}
	getrlimit(RLIMIT_NOFILE, &limit);
	assert_int_equal(bind(s, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(s, 4096), 0);
	getsockname(s, (struct sockaddr *)&addr, &len);
	before = open_files();
	for (u16 port = 10000; port < 13000; port++)
		send_from(port, true, ntohs(addr.sin_port));
	connections = settled() - before;
	print_message("%u descriptors for connections, of %u\n", connections, (unsigned)limit.rlim_cur);
	assert_in_range(connections, 100, limit.rlim_cur / 2);
	/* Datagrams: a few more. */
	for (u16 port = 20000; port < 21000; port++)
		send_from(port, false, 9);
	assert_in_range(settled() - before - connections, 1, 64);
	/* When they are closed there is room again. */
	close(s);
	net->ops->stop(net);
	net->ops->close(net);
	assert_int_equal(setup(state), 0);
	assert_true(open_files() < before + 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_answer),   T(test_guest_takes_nothing), T(test_sleeps),
		T(test_forwards), T(test_sockets_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
