/* Buffers in several parts [readv(2)]. Any thread. */
#pragma once

#include <sys/uio.h>

#include "base/types.h"

/* What is left of a walk over `len` bytes of iov[] from `from` on. */
struct iov_walk {
	const struct iovec *iov;
	unsigned nr;
	u64 from, len;
};

/* The next part, never an empty one; false: there is none, and *ret is as it was. */
bool iov_next(struct iov_walk *w, struct iovec *ret);

/* The parts of iov[] that hold `len` bytes from `from` on, into ret[], which has room for nr; returns how many. Ends
 * early where iov[] does. */
unsigned iov_cut(const struct iovec *iov, unsigned nr, u64 from, u64 len, struct iovec *ret);

/* Copies what is there of len bytes from `from` on into buf; returns how many. */
size_t iov_get(const struct iovec *iov, unsigned nr, u64 from, void *buf, size_t len);
/* Copies len bytes of buf, or zeroes, to what begins `from` bytes into iov[], which is long enough. */
void iov_put(const struct iovec *iov, unsigned nr, u64 from, const void *buf, u64 len);
void iov_zero(const struct iovec *iov, unsigned nr, u64 from, u64 len);
