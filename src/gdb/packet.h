/* Frames of the GDB remote serial protocol [GDB E.1]: $data#checksum, acknowledged by + or -, and the byte 3 for an interrupt.
 * Plain memory in and out; no socket. Main thread.
 */
#pragma once

#include "base/types.h"

#define PACKET_MAX     16384u         /* what a frame may hold, after unescaping; as told to the client */
#define PACKET_OUT_MAX (1024 * 1024u) /* what may wait to be sent */

enum packet_event {
	PACKET_NONE, /* nothing complete yet */
	PACKET_GOOD, /* in->data has in->len bytes and a 0 behind them */
	PACKET_BAD,  /* the checksum is wrong, or it was no frame */
	PACKET_LONG, /* more than PACKET_MAX; skipped */
	PACKET_BREAK,
	PACKET_ACK,
	PACKET_NAK,
};

struct packet_in {
	u8 state;
	bool escaped, too_long;
	u8 sum, want;
	u32 len;
	char data[PACKET_MAX + 1];
};

/* Takes bytes until something is complete; returns how many it took, at least one when there are any. */
size_t packet_feed(struct packet_in *in, const u8 *bytes, size_t len, enum packet_event *ret_event);

/* What is to be sent. Zeroed is empty; free data. Once something does not fit any more, `failed` is set and stays. */
struct packet_out {
	u8 *data;
	size_t len, size;
	u8 sum;
	bool failed;
};

void packet_put_raw(struct packet_out *out, char c); /* + and - */
void packet_begin(struct packet_out *out);
/* Into the frame that was begun. bytes: what has a meaning to the frame is escaped. */
void packet_put(struct packet_out *out, const void *bytes, size_t len);
void packet_text(struct packet_out *out, const char *fmt, ...) printf_like(2, 3);
void packet_hex(struct packet_out *out, const void *bytes, size_t len); /* two digits each */
void packet_end(struct packet_out *out);
/* The first len bytes have been sent. */
void packet_sent(struct packet_out *out, size_t len);

/* Numbers of a command's text. *p moves behind what was taken; false, with *p unmoved: there are no digits there, or more than
 * 64 bits of them. */
bool packet_number(const char **p, u64 *ret);
/* len bytes from 2 * len digits. */
bool packet_unhex(const char **p, void *ret_bytes, size_t len);
