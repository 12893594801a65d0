/* Framing of the GDB remote serial protocol [GDB E.1].
 *
 * A frame's bytes are collected into a buffer of fixed size; one that does not fit is skipped to its end, so that the client
 * can go on. Outside of frames only the acknowledgements and the interrupt mean anything; what else is there, garbage, is skipped
 * up to the next frame and reported once.
 *
 * Omitted: run-length encoding of what is sent (a client has to understand it, none needs it).
 */
#include "gdb/packet.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUTSIDE, GARBAGE, INSIDE, SUM_HIGH, SUM_LOW };

static int digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* ---- in ---- */

static void begin(struct packet_in *in)
{
	in->state = INSIDE;
	in->escaped = in->too_long = false;
	in->sum = 0;
	in->len = 0;
}

static enum packet_event outside(struct packet_in *in, u8 c)
{
	bool known = in->state == OUTSIDE;

	switch (c) {
	case '$': begin(in); return PACKET_NONE;
	case 3: in->state = OUTSIDE; return PACKET_BREAK;
	case '+': return PACKET_ACK;
	case '-': return PACKET_NAK;
	default: in->state = GARBAGE; return known ? PACKET_BAD : PACKET_NONE;
	}
}

static void inside(struct packet_in *in, u8 c)
{
	if (c == '#') {
		in->state = SUM_HIGH;
		return;
	}
	if (c == '$') { /* it cannot be in a frame: the last one was not finished */
		begin(in);
		return;
	}
	in->sum = (u8)(in->sum + c);
	if (c == '}' && !in->escaped) {
		in->escaped = true;
		return;
	}
	if (in->len < PACKET_MAX)
		in->data[in->len++] = (char)(in->escaped ? c ^ 0x20 : c);
	else
		in->too_long = true;
	in->escaped = false;
}

static enum packet_event finish(struct packet_in *in, int low)
{
	in->state = OUTSIDE;
	if (low < 0 || in->want == 0xff || (u8)(in->want << 4 | low) != in->sum)
		return PACKET_BAD;
	if (in->too_long)
		return PACKET_LONG;
	in->data[in->len] = 0;
	return PACKET_GOOD;
}

size_t packet_feed(struct packet_in *in, const u8 *bytes, size_t len, enum packet_event *ret_event)
{
	*ret_event = PACKET_NONE;
	for (size_t k = 0; k < len; k++) {
		u8 c = bytes[k];

		switch (in->state) {
		case INSIDE: inside(in, c); break;
		case SUM_HIGH:
			in->want = (u8)digit((char)c); /* -1: ffH, which is no digit */
			in->state = SUM_LOW;
			break;
		case SUM_LOW: *ret_event = finish(in, digit((char)c)); break;
		default: *ret_event = outside(in, c); break;
		}
		if (*ret_event != PACKET_NONE)
			return k + 1;
	}
	return len;
}

/* ---- out ---- */

static void append(struct packet_out *out, u8 c)
{
	if (out->failed)
		return;
	if (out->len == out->size) {
		size_t size = out->size ? 2 * out->size : 1024;
		u8 *data = size <= PACKET_OUT_MAX ? realloc(out->data, size) : NULL;

		if (!data) {
			out->failed = true;
			return;
		}
		out->data = data;
		out->size = size;
	}
	out->data[out->len++] = c;
}

void packet_put_raw(struct packet_out *out, char c)
{
	append(out, (u8)c);
}

void packet_begin(struct packet_out *out)
{
	append(out, '$');
	out->sum = 0;
}

void packet_put(struct packet_out *out, const void *bytes, size_t len)
{
	const u8 *b = bytes;

	for (size_t k = 0; k < len; k++) {
		u8 c = b[k];

		if (c == '$' || c == '#' || c == '}' || c == '*') {
			append(out, '}');
			out->sum = (u8)(out->sum + '}');
			c ^= 0x20;
		}
		append(out, c);
		out->sum = (u8)(out->sum + c);
	}
}

void packet_text(struct packet_out *out, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n > 0)
		packet_put(out, text, MIN((size_t)n, sizeof(text) - 1));
}

void packet_hex(struct packet_out *out, const void *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const u8 *b = bytes;

	for (size_t k = 0; k < len; k++) {
		const char two[2] = { digits[b[k] >> 4], digits[b[k] & 15] };

		packet_put(out, two, 2);
	}
}

void packet_end(struct packet_out *out)
{
	static const char digits[] = "0123456789abcdef";

	append(out, '#');
	append(out, (u8)digits[out->sum >> 4]);
	append(out, (u8)digits[out->sum & 15]);
}

void packet_sent(struct packet_out *out, size_t len)
{
	out->len -= len;
	if (out->len)
		memmove(out->data, out->data + len, out->len);
}

/* ---- numbers ---- */

bool packet_number(const char **p, u64 *ret)
{
	const char *s = *p;
	u64 v = 0;

	for (; digit(*s) >= 0; s++) {
		if (v >> 60)
			return false;
		v = v << 4 | (u64)digit(*s);
	}
	if (s == *p)
		return false;
	*p = s;
	*ret = v;
	return true;
}

bool packet_unhex(const char **p, void *ret_bytes, size_t len)
{
	const char *s = *p;
	u8 *b = ret_bytes;

	for (size_t k = 0; k < len; k++, s += 2) {
		if (digit(s[0]) < 0 || digit(s[1]) < 0)
			return false;
		b[k] = (u8)(digit(s[0]) << 4 | digit(s[1]));
	}
	*p = s;
	return true;
}
