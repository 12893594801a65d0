/* Checks of what a kernel gives to its programs: /proc, memory, files, timers, signals, processes, pipes,
 * threads. Each one leans on a part of the machine: timers on the interrupt controllers and clocks, fork
 * on copy-on-write faults, pipes on context switches.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define MiB (1ul << 20)

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* The start of a file, as a string. */
static void slurp(const char *path, char *buf, size_t len)
{
	size_t n = 0;
	ssize_t got;
	int fd = open(path, O_RDONLY);

	need(fd >= 0, "%s: %s", path, strerror(errno));
	while (n < len - 1 && (got = read(fd, buf + n, len - 1 - n)) > 0)
		n += (size_t)got;
	buf[n] = '\0';
	close(fd);
}

static int join(pid_t pid)
{
	int status = 0;

	need(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
	return status;
}

static void check_proc(void)
{
	static char buf[65536];
	struct utsname un;
	int pid = -1;

	need(!uname(&un), "uname: %s", strerror(errno));
	need(!strcmp(un.sysname, "Linux") && !strcmp(un.machine, "x86_64"), "this is %s on %s", un.sysname,
	     un.machine);
	slurp("/proc/version", buf, sizeof(buf));
	need(strstr(buf, un.release), "/proc/version does not name %s", un.release);
	slurp("/proc/self/stat", buf, sizeof(buf));
	sscanf(buf, "%d", &pid);
	need(pid == getpid(), "/proc/self/stat says pid %d, getpid() %d", pid, getpid());
	slurp("/proc/cpuinfo", buf, sizeof(buf));
	need(strstr(buf, "processor\t: 0"), "/proc/cpuinfo has no processor 0");
	need(strstr(buf, " lm ") && strstr(buf, " nx "), "/proc/cpuinfo has no lm or no nx");
	slurp("/proc/self/maps", buf, sizeof(buf));
	need(strstr(buf, "[stack]") && strstr(buf, "[vdso]"), "/proc/self/maps has no stack or no vdso");
	slurp("/proc/interrupts", buf, sizeof(buf));
	need(strstr(buf, "LOC:"), "/proc/interrupts has no local timer line");
}

static unsigned long meminfo(const char *field)
{
	static char buf[8192];
	unsigned long kib = 0;
	const char *p;

	slurp("/proc/meminfo", buf, sizeof(buf));
	p = strstr(buf, field);
	need(p && sscanf(p + strlen(field), ": %lu", &kib) == 1, "/proc/meminfo has no %s", field);
	return kib;
}

static void check_memory(void)
{
	size_t len = 48 * MiB;
	uint64_t x = 88172645463325252ull;
	uint64_t *p;

	need(meminfo("MemTotal") > 16 * 1024, "MemTotal is %lu KiB", meminfo("MemTotal"));
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(p != MAP_FAILED, "mmap: %s", strerror(errno));
	for (size_t i = 0; i < len / 8; i += 512)
		need(!p[i], "fresh memory at %zu is %#lx", i * 8, (unsigned long)p[i]);
	/* Each word of every page's first and last line holds its own address, mixed. */
	for (size_t i = 0; i < len / 8; i++) {
		if ((i & 511) < 8 || (i & 511) >= 504)
			p[i] = i * 0x9e3779b97f4a7c15ull;
	}
	for (unsigned n = 0; n < 100000; n++) {
		size_t i;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		i = (size_t)(x % (len / 8)) & ~504ul;
		need(p[i] == i * 0x9e3779b97f4a7c15ull, "word %zu is %#lx", i, (unsigned long)p[i]);
	}
	need(!madvise(p, 4 * MiB, MADV_DONTNEED), "madvise: %s", strerror(errno));
	need(!p[0] && !p[4 * MiB / 8 - 1], "memory given back is not zero");
	need(p[4 * MiB / 8] == 4 * MiB / 8 * 0x9e3779b97f4a7c15ull, "memory kept has changed");
	p = mremap(p, len, 2 * len, MREMAP_MAYMOVE);
	need(p != MAP_FAILED, "mremap: %s", strerror(errno));
	need(p[len / 8 - 1] == (len / 8 - 1) * 0x9e3779b97f4a7c15ull && !p[len / 8], "mremap lost data");
}

static void check_copy_on_write(void)
{
	size_t len = 4 * MiB;
	char *mine = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *shared = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;
	int status;

	need(mine != MAP_FAILED && shared != MAP_FAILED, "mmap: %s", strerror(errno));
	memset(mine, 'm', len);
	memset(shared, 's', len);
	pid = fork();
	need(pid >= 0, "fork: %s", strerror(errno));
	if (!pid) {
		for (size_t i = 0; i < len; i += 1024) {
			if (mine[i] != 'm' || shared[i] != 's')
				_exit(1);
			mine[i] = 'c';
			shared[i] = 'c';
		}
		_exit(0);
	}
	status = join(pid);
	need(!status, "the child saw other memory than its parent had; status %#x", status);
	for (size_t i = 0; i < len; i++) {
		need(mine[i] == 'm', "the child's write reached private memory at %zu", i);
		need(shared[i] == (i % 1024 ? 's' : 'c'), "shared memory at %zu is %c", i, shared[i]);
	}
}

static void check_files(void)
{
	char path[] = "/tmp/file-XXXXXX", buf[4096];
	int fd = mkstemp(path);
	char *p;

	need(fd >= 0, "mkstemp: %s", strerror(errno));
	for (unsigned i = 0; i < 512; i++) {
		memset(buf, (int)(i & 0xff), sizeof(buf));
		need(write(fd, buf, sizeof(buf)) == sizeof(buf), "write: %s", strerror(errno));
	}
	p = mmap(NULL, 512 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	need(p != MAP_FAILED, "mmap: %s", strerror(errno));
	for (unsigned i = 0; i < 512; i++)
		need((unsigned char)p[i * 4096 + 77] == (i & 0xff), "page %u holds %d", i, p[i * 4096 + 77]);
	p[300 * 4096] = 'Q';
	need(pread(fd, buf, 1, 300 * 4096) == 1 && buf[0] == 'Q',
	     "a write to the mapping is not in the file");
	unlink(path);
	need(access(path, F_OK) && errno == ENOENT, "%s is still there", path);
}

static volatile sig_atomic_t alarms;

static void on_alarm(int sig)
{
	alarms++;
}

static void check_timers(void)
{
	struct itimerval it = { { 0, 10000 }, { 0, 10000 } };
	struct timespec pause_20ms = { 0, 20000000 }, rt, rt2;
	struct itimerspec tfd_time = { { 0, 5000000 }, { 0, 5000000 } };
	uint64_t t0, t1, ticks = 0;
	int tfd;

	for (unsigned i = 0; i < 5; i++) {
		t0 = now_ns();
		need(!nanosleep(&pause_20ms, NULL), "nanosleep: %s", strerror(errno));
		t1 = now_ns();
		need(t1 - t0 >= 20000000, "20 ms of sleep took %lu ns", (unsigned long)(t1 - t0));
		need(t1 - t0 < 2000000000, "20 ms of sleep took %lu ms",
		     (unsigned long)((t1 - t0) / 1000000));
	}
	need(signal(SIGALRM, on_alarm) != SIG_ERR, "signal: %s", strerror(errno));
	setitimer(ITIMER_REAL, &it, NULL);
	t0 = now_ns();
	while (alarms < 10) {
		pause();
		need(now_ns() - t0 < 20000000000ull, "%d of 10 alarms came in 20 s", (int)alarms);
	}
	need(now_ns() - t0 >= 90000000, "10 alarms of 10 ms came in %lu ns", (unsigned long)(now_ns() - t0));
	memset(&it, 0, sizeof(it));
	setitimer(ITIMER_REAL, &it, NULL);
	tfd = timerfd_create(CLOCK_MONOTONIC, 0);
	need(tfd >= 0 && !timerfd_settime(tfd, 0, &tfd_time, NULL), "timerfd: %s", strerror(errno));
	t0 = now_ns();
	while (ticks < 20) {
		uint64_t n;

		need(read(tfd, &n, 8) == 8, "reading a timerfd: %s", strerror(errno));
		ticks += n;
	}
	need(now_ns() - t0 >= 90000000, "20 ticks of 5 ms came in %lu ns", (unsigned long)(now_ns() - t0));
	/* Wall clock and monotonic clock run at the same rate. */
	clock_gettime(CLOCK_REALTIME, &rt);
	t0 = now_ns();
	nanosleep(&(struct timespec){ 0, 200000000 }, NULL);
	clock_gettime(CLOCK_REALTIME, &rt2);
	t1 = now_ns();
	int64_t wall = (rt2.tv_sec - rt.tv_sec) * 1000000000ll + (rt2.tv_nsec - rt.tv_nsec);
	int64_t drift = wall - (int64_t)(t1 - t0);

	need(drift > -50000000 && drift < 50000000, "the clocks drifted by %ld ns in 200 ms", (long)drift);
}

/* Never backwards, and the vDSO's time lies between two readings by system call. */
static void check_clock(void)
{
	uint64_t last = now_ns();

	for (unsigned i = 0; i < 100000; i++) {
		uint64_t t = now_ns();

		need(t >= last, "the clock went back by %lu ns", (unsigned long)(last - t));
		last = t;
	}
	for (unsigned i = 0; i < 1000; i++) {
		struct timespec a, b;
		uint64_t v;

		syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &a);
		v = now_ns();
		syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b);
		need(v >= (uint64_t)a.tv_sec * 1000000000 + (uint64_t)a.tv_nsec &&
			     v <= (uint64_t)b.tv_sec * 1000000000 + (uint64_t)b.tv_nsec,
		     "vDSO and system call disagree about the time");
	}
}

static volatile sig_atomic_t queued, queued_sum, on_alternate;
static char alternate_stack[65536];

static void on_queue(int sig, siginfo_t *info, void *context)
{
	char here;

	queued++;
	queued_sum += info->si_value.sival_int;
	on_alternate = &here >= alternate_stack && &here < alternate_stack + sizeof(alternate_stack);
}

static void check_signals(void)
{
	struct sigaction sa = { .sa_sigaction = on_queue, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t ss = { .ss_sp = alternate_stack, .ss_size = sizeof(alternate_stack) };
	sigset_t set, old;
	pid_t pid;
	int status;

	need(!sigaltstack(&ss, NULL), "sigaltstack: %s", strerror(errno));
	need(!sigaction(SIGRTMIN, &sa, NULL), "sigaction: %s", strerror(errno));
	for (int i = 1; i <= 100; i++)
		need(!sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = i }), "sigqueue: %s",
		     strerror(errno));
	need(queued == 100 && queued_sum == 5050, "%d signals came with sum %d", (int)queued,
	     (int)queued_sum);
	need(on_alternate, "the handler did not run on the alternate stack");
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, &old);
	for (int i = 0; i < 10; i++)
		sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = 0 });
	need(queued == 100, "a blocked signal came through");
	sigprocmask(SIG_SETMASK, &old, NULL);
	need(queued == 110, "%d of 10 pending signals came", (int)queued - 100);
	pid = fork();
	need(pid >= 0, "fork: %s", strerror(errno));
	if (!pid) {
		for (;;)
			pause();
	}
	need(!kill(pid, SIGTERM), "kill: %s", strerror(errno));
	status = join(pid);
	need(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "status %#x after SIGTERM", status);
	/* A loop without system calls is interrupted all the same. */
	pid = fork();
	need(pid >= 0, "fork: %s", strerror(errno));
	if (!pid) {
		for (;;)
			__asm__ volatile("");
	}
	nanosleep(&(struct timespec){ 0, 30000000 }, NULL);
	need(!kill(pid, SIGKILL), "kill: %s", strerror(errno));
	status = join(pid);
	need(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %#x after SIGKILL", status);
}

static void check_fork_exec(void)
{
	pid_t pids[16];

	for (int round = 0; round < 8; round++) {
		for (int i = 0; i < 16; i++) {
			pids[i] = fork();
			need(pids[i] >= 0, "fork: %s", strerror(errno));
			if (!pids[i])
				_exit(i + round);
		}
		for (int i = 15; i >= 0; i--) {
			int status = join(pids[i]);

			need(WIFEXITED(status) && WEXITSTATUS(status) == i + round, "child %d ended with %#x",
			     i, status);
		}
	}
	for (int i = 0; i < 20; i++) {
		char code[16];
		int status;
		pid_t pid = vfork();

		need(pid >= 0, "vfork: %s", strerror(errno));
		if (!pid) {
			snprintf(code, sizeof(code), "%d", 100 + i);
			execl("/proc/self/exe", "init_check", "--exit", code, NULL);
			_exit(99);
		}
		status = join(pid);
		need(WIFEXITED(status) && WEXITSTATUS(status) == 100 + i,
		     "the program started ended with %#x", status);
	}
}

static void check_pipes(void)
{
	static unsigned char buf[65536];
	int there[2], back[2], status;
	uint64_t sum = 0, expect = 0;
	pid_t pid;

	need(!pipe(there) && !pipe(back), "pipe: %s", strerror(errno));
	pid = fork();
	need(pid >= 0, "fork: %s", strerror(errno));
	if (!pid) {
		unsigned v;

		close(there[1]);
		close(back[0]);
		while (read(there[0], &v, sizeof(v)) == sizeof(v) && v != ~0u) {
			v = v * 3 + 1;
			if (write(back[1], &v, sizeof(v)) != sizeof(v))
				_exit(1);
		}
		for (unsigned i = 0; i < 64; i++) {
			for (unsigned k = 0; k < sizeof(buf); k++)
				buf[k] = (unsigned char)(i * 7 + k * 13);
			for (size_t done = 0; done < sizeof(buf);) {
				ssize_t n = write(back[1], buf + done, sizeof(buf) - done);

				if (n <= 0)
					_exit(2);
				done += (size_t)n;
			}
		}
		_exit(0);
	}
	close(there[0]);
	close(back[1]);
	for (unsigned i = 0; i < 2000; i++) {
		unsigned v = i;

		need(write(there[1], &v, sizeof(v)) == sizeof(v), "write: %s", strerror(errno));
		need(read(back[0], &v, sizeof(v)) == sizeof(v), "read: %s", strerror(errno));
		need(v == i * 3 + 1, "round %u brought back %u", i, v);
	}
	need(write(there[1], &(unsigned){ ~0u }, sizeof(unsigned)) == sizeof(unsigned), "write: %s",
	     strerror(errno));
	for (;;) {
		ssize_t n = read(back[0], buf, sizeof(buf));

		need(n >= 0, "read: %s", strerror(errno));
		if (!n)
			break;
		for (ssize_t i = 0; i < n; i++)
			sum += buf[i];
	}
	for (unsigned i = 0; i < 64; i++) {
		for (unsigned k = 0; k < sizeof(buf); k++)
			expect += (unsigned char)(i * 7 + k * 13);
	}
	need(sum == expect, "4 MiB through a pipe add up to %lu, not %lu", (unsigned long)sum,
	     (unsigned long)expect);
	status = join(pid);
	need(!status, "the other end of the pipe ended with %#x", status);
}

static void check_epoll(void)
{
	int ep = epoll_create1(0), ev = eventfd(0, EFD_NONBLOCK), sv[2];
	struct epoll_event got;
	uint64_t n = 3;

	need(ep >= 0 && ev >= 0, "epoll_create1, eventfd: %s", strerror(errno));
	need(!socketpair(AF_UNIX, SOCK_STREAM, 0, sv), "socketpair: %s", strerror(errno));
	need(!epoll_ctl(ep, EPOLL_CTL_ADD, ev, &(struct epoll_event){ .events = EPOLLIN, .data.fd = ev }) &&
		     !epoll_ctl(ep, EPOLL_CTL_ADD, sv[0],
				&(struct epoll_event){ .events = EPOLLIN, .data.fd = sv[0] }),
	     "epoll_ctl: %s", strerror(errno));
	need(epoll_wait(ep, &got, 1, 10) == 0, "epoll reports what did not happen");
	need(write(ev, &n, 8) == 8 && epoll_wait(ep, &got, 1, 1000) == 1 && got.data.fd == ev,
	     "epoll misses an eventfd");
	need(read(ev, &n, 8) == 8 && n == 3, "an eventfd holds %lu", (unsigned long)n);
	need(write(sv[1], "x", 1) == 1 && epoll_wait(ep, &got, 1, 1000) == 1 && got.data.fd == sv[0],
	     "epoll misses a socket");
}

#define NR_THREADS 4
#define NR_ROUNDS  20000

static pthread_mutex_t count_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned locked_count;
static unsigned atomic_count;
static __thread unsigned own_count;

static void *count_up(void *opaque)
{
	for (unsigned i = 0; i < NR_ROUNDS; i++) {
		pthread_mutex_lock(&count_lock);
		locked_count++;
		pthread_mutex_unlock(&count_lock);
		__atomic_fetch_add(&atomic_count, 1, __ATOMIC_SEQ_CST);
		own_count++;
		if (!(i % 1000))
			sched_yield();
	}
	return (void *)(uintptr_t)own_count;
}

static void check_threads(void)
{
	pthread_t t[NR_THREADS];

	for (unsigned i = 0; i < NR_THREADS; i++)
		need(!pthread_create(&t[i], NULL, count_up, NULL), "pthread_create fails");
	for (unsigned i = 0; i < NR_THREADS; i++) {
		void *own;

		need(!pthread_join(t[i], &own), "pthread_join fails");
		need((uintptr_t)own == NR_ROUNDS, "a thread's own counter is %lu",
		     (unsigned long)(uintptr_t)own);
	}
	need(locked_count == NR_THREADS * NR_ROUNDS, "the locked counter is %u", locked_count);
	need(atomic_count == NR_THREADS * NR_ROUNDS, "the atomic counter is %u", atomic_count);
	need(!own_count, "the main thread's own counter is %u", own_count);
}

const struct check check_os_table[] = {
	{ "proc", check_proc, NULL },
	{ "memory", check_memory, NULL },
	{ "copy-on-write", check_copy_on_write, NULL },
	{ "files", check_files, NULL },
	{ "clock", check_clock, NULL },
	{ "timers", check_timers, NULL },
	{ "signals", check_signals, NULL },
	{ "fork-exec", check_fork_exec, NULL },
	{ "pipes", check_pipes, NULL },
	{ "epoll", check_epoll, NULL },
	{ "threads", check_threads, NULL },
	{ NULL, NULL, NULL },
};
