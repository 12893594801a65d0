/* Thin wrappers over the host: time, memory, files. */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"

u64 os_now_ns(void);      /* CLOCK_MONOTONIC */
u64 os_realtime_ns(void); /* CLOCK_REALTIME */
u64 os_page_size(void);
u64 os_memory_total(void); /* bytes of RAM in the host */

/* How many descriptors this process may have; the limit is raised to `wanted` where it is lower, as far as that is allowed. Main
 * thread. */
u64 os_fd_limit(u64 wanted);

void os_random(void *buf, size_t len); /* of the kernel's generator; any thread */

/* The rate of RDTSC in kHz: from CPUID 15H/16H or the hypervisor's leaf where they
 * say, else measured once against CLOCK_MONOTONIC, from os_tsc_begin() on but for 2 ms at least: who
 * calls that early has to wait less. Any thread. */
void os_tsc_begin(void);
u64 os_tsc_khz(void);

/* Reads a whole regular file into fresh memory (free()). Refuses what is not a
 * regular file, is empty or is larger than max; the sentence names path and reason. */
int os_read_file(const char *path, u64 max, void **ret_data, size_t *ret_len, struct err *err);
/* The same in two steps, for who wants parts of the file, or them somewhere else. The caller closes *ret_fd. */
int os_open_regular(const char *path, u64 max, int *ret_fd, size_t *ret_len, struct err *err);
int os_pread_all(int fd, const char *path, void *buf, size_t len, u64 offset, struct err *err);

/* Writes all of buf, retrying short writes and EINTR. Returns 0 or -errno. */
int os_write_all(int fd, const void *buf, size_t len);

/* Every descriptor from `first` on closes with the next execve(2). -errno. */
int os_cloexec_from(int first);
