/* Buffers in several parts: see iov.h. */
#include "base/iov.h"

#include <string.h>

/* Looks at an entry once, so that iov_cut() may put the parts where the entries are. */
bool iov_next(struct iov_walk *w, struct iovec *ret)
{
	while (w->nr && w->len) {
		const struct iovec here = *w->iov++;
		u64 from = w->from;

		w->nr--;
		if (from >= here.iov_len) {
			w->from -= here.iov_len;
			continue;
		}
		*ret = (struct iovec){ (u8 *)here.iov_base + from, MIN(here.iov_len - from, w->len) };
		w->from = 0;
		w->len -= ret->iov_len;
		return true;
	}
	return false;
}

unsigned iov_cut(const struct iovec *iov, unsigned nr, u64 from, u64 len, struct iovec *ret)
{
	struct iov_walk w = { iov, nr, from, len };
	unsigned n = 0;

	while (iov_next(&w, &ret[n]))
		n++;
	return n;
}

size_t iov_get(const struct iovec *iov, unsigned nr, u64 from, void *buf, size_t len)
{
	struct iov_walk w = { iov, nr, from, len };
	struct iovec part;
	size_t done = 0;

	for (; iov_next(&w, &part); done += part.iov_len)
		memcpy((u8 *)buf + done, part.iov_base, part.iov_len);
	return done;
}

void iov_put(const struct iovec *iov, unsigned nr, u64 from, const void *buf, u64 len)
{
	struct iov_walk w = { iov, nr, from, len };
	struct iovec part;

	for (const u8 *p = buf; iov_next(&w, &part); p += part.iov_len)
		memcpy(part.iov_base, p, part.iov_len);
}

void iov_zero(const struct iovec *iov, unsigned nr, u64 from, u64 len)
{
	struct iov_walk w = { iov, nr, from, len };
	struct iovec part;

	while (iov_next(&w, &part))
		memset(part.iov_base, 0, part.iov_len);
}
