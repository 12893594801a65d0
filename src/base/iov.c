/* Buffers in several parts: see iov.h. */
#include "base/iov.h"

#include <string.h>

unsigned iov_cut(const struct iovec *iov, unsigned nr, u64 from, u64 len, struct iovec *ret)
{
	unsigned n = 0;

	for (unsigned i = 0; i < nr && len; i++) {
		u64 here;

		if (from >= iov[i].iov_len) {
			from -= iov[i].iov_len;
			continue;
		}
		here = MIN(iov[i].iov_len - from, len);
		ret[n++] = (struct iovec){ (u8 *)iov[i].iov_base + from, here };
		len -= here;
		from = 0;
	}
	return n;
}

/* Copies, or zeroes where buf is NULL. */
static void fill(const struct iovec *iov, unsigned nr, u64 from, const u8 *buf, u64 len)
{
	for (unsigned i = 0; i < nr && len; i++) {
		u64 here;

		if (from >= iov[i].iov_len) {
			from -= iov[i].iov_len;
			continue;
		}
		here = MIN(iov[i].iov_len - from, len);
		if (buf) {
			memcpy((u8 *)iov[i].iov_base + from, buf, here);
			buf += here;
		} else {
			memset((u8 *)iov[i].iov_base + from, 0, here);
		}
		len -= here;
		from = 0;
	}
}

void iov_put(const struct iovec *iov, unsigned nr, u64 from, const void *buf, u64 len)
{
	fill(iov, nr, from, buf, len);
}

void iov_zero(const struct iovec *iov, unsigned nr, u64 from, u64 len)
{
	fill(iov, nr, from, NULL, len);
}
