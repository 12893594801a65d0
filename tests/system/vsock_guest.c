/* Both ends of vsock connections inside a guest, for tests/system/vsock. The other side gives every byte back, changed by FLIP,
 * and ends when this side has said that it sends no more.
 *
 *	vsock_guest connect N PORT BYTES	N connections at once to the host's PORT; checks what comes back
 *	vsock_guest serve PORT N		accepts N connections, and gives back
 *	vsock_guest refused PORT		the host must refuse
 */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define FLIP  0x5a
#define CHUNK 20000

static unsigned port, bytes;

static void die(const char *what)
{
	printf("job: FAIL: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	exit(1);
}

static struct sockaddr_vm address(unsigned cid)
{
	return (struct sockaddr_vm){ .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port };
}

static int host(void)
{
	struct sockaddr_vm a = address(VMADDR_CID_HOST);
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0)
		die("socket");
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	close(fd);
	return -1;
}

static uint8_t byte_at(unsigned seed, unsigned i)
{
	return (uint8_t)((seed * 7919 + i) * 2654435761u >> 24);
}

struct end {
	int fd;
	unsigned seed;
};

static void *send_all(void *opaque)
{
	const struct end *e = opaque;
	uint8_t buf[CHUNK];

	for (unsigned at = 0; at < bytes;) {
		unsigned n = bytes - at < CHUNK ? bytes - at : CHUNK;

		for (unsigned i = 0; i < n; i++)
			buf[i] = byte_at(e->seed, at + i);
		for (unsigned done = 0; done < n;) {
			ssize_t r = send(e->fd, buf + done, n - done, MSG_NOSIGNAL);

			if (r <= 0)
				die("send");
			done += (unsigned)r;
		}
		at += n;
	}
	shutdown(e->fd, SHUT_WR);
	return NULL;
}

static void *client(void *opaque)
{
	struct end *e = opaque;
	uint8_t buf[CHUNK];
	pthread_t sender;
	unsigned at = 0;
	ssize_t n;

	e->fd = host();
	if (e->fd < 0)
		die("connect");
	pthread_create(&sender, NULL, send_all, e);
	while ((n = recv(e->fd, buf, sizeof(buf), 0)) > 0)
		for (ssize_t i = 0; i < n; i++, at++)
			if (buf[i] != (byte_at(e->seed, at) ^ FLIP))
				errno = EIO, die("another byte comes back");
	if (n < 0)
		die("recv");
	if (at != bytes)
		errno = EIO, die("not all comes back");
	pthread_join(sender, NULL);
	close(e->fd);
	return NULL;
}

static void *give_back(void *opaque)
{
	int fd = (int)(intptr_t)opaque;
	uint8_t buf[CHUNK];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			buf[i] ^= FLIP;
		for (ssize_t done = 0; done < n;) {
			ssize_t r = send(fd, buf + done, (size_t)(n - done), MSG_NOSIGNAL);

			if (r <= 0)
				die("send back");
			done += r;
		}
	}
	if (n < 0)
		die("recv");
	close(fd);
	return NULL;
}

static void run(unsigned n, void *(*fn)(void *), void *(*arg)(unsigned i))
{
	pthread_t *thread = calloc(n, sizeof(*thread));
	pthread_attr_t small;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 128 << 10);
	for (unsigned i = 0; i < n; i++)
		if (pthread_create(&thread[i], &small, fn, arg(i)))
			die("thread");
	for (unsigned i = 0; i < n; i++)
		pthread_join(thread[i], NULL);
}

static int listener;

static void *accepted(unsigned i)
{
	int fd = accept(listener, NULL, NULL);

	if (fd < 0)
		die("accept");
	return (void *)(intptr_t)fd;
}

static void *numbered(unsigned i)
{
	struct end *e = calloc(1, sizeof(*e));

	e->seed = i;
	return e;
}

int main(int argc, char **argv)
{
	struct sockaddr_vm a;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 5 && !strcmp(argv[1], "connect")) {
		port = (unsigned)atoi(argv[3]);
		bytes = (unsigned)atoi(argv[4]);
		run((unsigned)atoi(argv[2]), client, numbered);
		return 0;
	}
	port = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
	if (argc == 3 && !strcmp(argv[1], "refused")) {
		if (host() >= 0 || errno != ECONNRESET)
			die("refused");
		return 0;
	}
	if (argc != 4 || strcmp(argv[1], "serve"))
		return 2;
	a = address(VMADDR_CID_ANY);
	listener = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(listener, 128) < 0)
		die("listen");
	printf("job: listening\n");
	run((unsigned)atoi(argv[3]), give_back, accepted);
	return 0;
}
