/* The host: its clocks, its memory, its files.
 *
 * The rate of the time-stamp counter comes from where the processor or the hypervisor below
 * us states it: CPUID 15H and 16H [SDM2 CPUID], or leaf 40000010H as several hypervisors
 * define it. Where nobody states it, it is measured over 2 ms at least; readings of the two clocks are bracketed
 * and the tightest bracket of several is used, so preemption does not spoil the figure.
 * Everything here may be called from any thread.
 */
#include "base/os.h"

#include <assert.h>
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static u64 os_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (u64)ts.tv_sec * 1000000000ull + (u64)ts.tv_nsec;
}

u64 os_now_ns(void)
{
	return os_clock(CLOCK_MONOTONIC);
}

u64 os_realtime_ns(void)
{
	return os_clock(CLOCK_REALTIME);
}

void os_random(void *buf, size_t len)
{
	/* It only fails for arguments that these are not; above 256 bytes a signal may cut it short. */
	for (size_t done = 0; done < len;) {
		ssize_t n = getrandom((u8 *)buf + done, len - done, 0);

		if (n > 0)
			done += (size_t)n;
	}
}

u64 os_page_size(void)
{
	return (u64)sysconf(_SC_PAGESIZE);
}

u64 os_memory_total(void)
{
	return (u64)sysconf(_SC_PHYS_PAGES) * os_page_size();
}

static u64 os_tsc_stated(void)
{
	u32 a, b, c, d, max, num, den, crystal;

	__cpuid(0, max, b, c, d);
	if (max >= 0x15) {
		__cpuid(0x15, den, num, crystal, d);
		if (den && num && crystal)
			return (u64)crystal * num / den / 1000;
		/* Without the crystal's rate, the base frequency stands for the TSC's. */
		if (den && num && max >= 0x16) {
			__cpuid(0x16, a, b, c, d);
			if (a & 0xffff)
				return (u64)(a & 0xffff) * 1000;
		}
	}
	__cpuid(1, a, b, c, d);
	if (c >> 31) {
		__cpuid(0x40000000, max, b, c, d);
		if (max >= 0x40000010 && max < 0x40010000) {
			__cpuid(0x40000010, a, b, c, d);
			if (a)
				return a;
		}
	}
	return 0;
}

static void os_tsc_and_ns(u64 *ret_tsc, u64 *ret_ns)
{
	u64 best = ~0ull;

	for (int i = 0; i < 16; i++) {
		u64 t0 = __builtin_ia32_rdtsc();
		u64 ns = os_now_ns();
		u64 t1 = __builtin_ia32_rdtsc();

		if (t1 - t0 < best) {
			best = t1 - t0;
			*ret_tsc = t0 + best / 2;
			*ret_ns = ns;
		}
	}
}

/* Where the processor states no rate it is measured, from when that began to when it is asked for. Reading both clocks
 * is good to some ten nanoseconds, which over the shortest time are five millionths. */
#define TSC_MEASURE_NS (2 * 1000 * 1000u)

static u64 os_tsc_rate, os_tsc_first, os_tsc_first_ns;

static void os_tsc_start(void)
{
	os_tsc_rate = os_tsc_stated();
	if (!os_tsc_rate)
		os_tsc_and_ns(&os_tsc_first, &os_tsc_first_ns);
}

static void os_tsc_measure(void)
{
	u64 now = os_now_ns(), tsc = 0, ns = 0, wait;
	struct timespec pause;

	if (os_tsc_rate)
		return;
	wait = MIN(now - os_tsc_first_ns, TSC_MEASURE_NS);
	pause = (struct timespec){ .tv_nsec = (long)(TSC_MEASURE_NS - wait) };
	while (nanosleep(&pause, &pause) < 0 && errno == EINTR)
		;
	os_tsc_and_ns(&tsc, &ns);
	os_tsc_rate = (u64)((unsigned __int128)(tsc - os_tsc_first) * 1000000 / (ns - os_tsc_first_ns));
}

void os_tsc_begin(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, os_tsc_start);
}

u64 os_tsc_khz(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	os_tsc_begin();
	pthread_once(&once, os_tsc_measure);
	return os_tsc_rate;
}

static const char *os_file_kind(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR: return "a directory";
	case S_IFIFO: return "a pipe";
	case S_IFSOCK: return "a socket";
	case S_IFCHR:
	case S_IFBLK: return "a device";
	default: return "not a regular file";
	}
}

static int os_check_regular(int fd, const char *path, u64 max, size_t *ret_len, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "cannot examine '%s'", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL,
			       "'%s' is %s; a regular file is needed", path, os_file_kind(st.st_mode));
	if (st.st_size <= 0)
		return err_set(err, -ENODATA, "'%s' is empty", path);
	if ((u64)st.st_size > max)
		return err_set(err, -EFBIG, "'%s' has %llu bytes; at most %llu are accepted here", path,
			       (unsigned long long)st.st_size, (unsigned long long)max);
	*ret_len = (size_t)st.st_size;
	return 0;
}

int os_open_regular(const char *path, u64 max, int *ret_fd, size_t *ret_len, struct err *err)
{
	/* O_NONBLOCK: opening a pipe must not wait for a writer; without effect on regular files. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int rc;

	if (fd < 0)
		return err_sys(err, -errno, "cannot open '%s'", path);
	rc = os_check_regular(fd, path, max, ret_len, err);
	if (rc < 0)
		close(fd);
	else
		*ret_fd = fd;
	return rc;
}

int os_pread_all(int fd, const char *path, void *buf, size_t len, u64 offset, struct err *err)
{
	u8 *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, -errno, "cannot read '%s'", path);
		if (n == 0)
			return err_set(err, -EIO, "'%s' became shorter while it was read", path);
		p += n;
		len -= (size_t)n;
		offset += (u64)n;
	}
	return 0;
}

int os_read_file(const char *path, u64 max, void **ret_data, size_t *ret_len, struct err *err)
{
	size_t len = 0;
	u8 *data;
	int fd = -1, rc;

	rc = os_open_regular(path, max, &fd, &len, err);
	if (rc < 0)
		return rc;
	assert(len); /* an empty one was refused */
	data = malloc(len);
	if (data)
		rc = os_pread_all(fd, path, data, len, 0, err);
	else
		rc = err_set(err, -ENOMEM, "no memory for the %zu bytes of '%s'", len, path);
	close(fd);
	if (rc < 0) {
		free(data);
		return rc;
	}
	*ret_data = data;
	*ret_len = len;
	return 0;
}

int os_write_all(int fd, const void *buf, size_t len)
{
	const u8 *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

u64 os_fd_limit(u64 wanted)
{
	struct rlimit limit, more = { wanted, wanted };

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 256;
	if (limit.rlim_cur >= wanted)
		return limit.rlim_cur;
	/* Many systems give a process few at first, and more when it asks; beyond that, only some may. */
	more.rlim_max = MAX(limit.rlim_max, (rlim_t)wanted);
	if (setrlimit(RLIMIT_NOFILE, &more) < 0) {
		more.rlim_cur = more.rlim_max = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &more);
	}
	return getrlimit(RLIMIT_NOFILE, &limit) < 0 ? 256 : limit.rlim_cur;
}

int os_cloexec_from(int first)
{
	if (!close_range((unsigned)first, ~0u, CLOSE_RANGE_CLOEXEC))
		return 0;
	if (errno != ENOSYS && errno != EINVAL)
		return -errno;
	/* Before Linux 5.11, one by one. The limit of now says nothing about what was opened before it; this one is the system's. */
	for (int fd = first; fd < 1 << 20; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	return 0;
}
