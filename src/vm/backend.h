/* The host ends of devices. */
#pragma once

#include "base/err.h"
#include "base/types.h"

/* A character back end: a terminal, a file, a pty. Output never blocks: it goes to a bounded ring that is
 * drained by the main loop; when full, chr_write() takes less and calls
 * on_writable later. */
struct chr {
	const struct chr_ops *ops;
	/* Set by the device. Main thread, no lock held: bytes typed; how many it can take now; space
	 * again. */
	void (*on_input)(void *opaque, const u8 *buf, size_t len);
	size_t (*can_input)(void *opaque);
	void (*on_writable)(void *opaque);
	void (*on_break)(void *opaque); /* a break condition on the line (Ctrl-a b); NULL: ignored */
	void *opaque;
};

struct chr_ops {
	/* Any thread. Returns how many bytes were taken (0..len). After a short write on_writable() is called
	 * once the ring is half empty. */
	size_t (*write)(struct chr *chr, const u8 *buf, size_t len);
	/* Any thread: can_input() may have grown; look for waiting input. */
	void (*input_ready)(struct chr *chr);
	/* Main thread: everything written so far to the host, at most ms milliseconds; then close. */
	void (*close)(struct chr *chr);
};

static inline size_t chr_write(struct chr *chr, const u8 *buf, size_t len)
{
	return chr ? chr->ops->write(chr, buf, len) : len;
}
