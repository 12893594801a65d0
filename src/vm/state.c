/* Device state to bytes and back, by its list of fields (encoding: state.h).
 *
 * Loading walks the bytes twice: first to check everything, then to copy; so a bad state leaves
 * the object as it was. The bytes are hostile: every length is checked against what is left, and
 * only what the list itself names is ever written. A boolean must be 0 or 1.
 * The caller provides the locking.
 */
#include "vm/state.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bits.h"

static size_t state_width(enum state_type type)
{
	switch (type) {
	case STATE_BOOL_:
	case STATE_U8_: return 1;
	case STATE_U16_: return 2;
	case STATE_U32_: return 4;
	case STATE_U64_: return 8;
	case STATE_END_: break;
	}
	assert(!"a state field has no such type");
	return 0;
}

/* Name length, name, type, count. */
static size_t state_head_size(const struct state_field *f)
{
	return 1 + strlen(f->name) + 1 + 4;
}

size_t state_size(const struct state_field *fields)
{
	size_t size = 0;

	for (const struct state_field *f = fields; f && f->name; f++)
		size += state_head_size(f) + f->count * state_width(f->type);
	return size;
}

void state_save(const struct state_field *fields, const void *obj, u8 *ret_buf)
{
	u8 *p = ret_buf;

	for (const struct state_field *f = fields; f && f->name; f++) {
		size_t name_len = strlen(f->name), len = f->count * state_width(f->type);

		assert(name_len <= 255);
		*p++ = (u8)name_len;
		memcpy(p, f->name, name_len);
		p += name_len;
		*p++ = (u8)f->type;
		st32(p, f->count);
		p += 4;
		/* The host is little-endian, like the encoding. */
		memcpy(p, (const u8 *)obj + f->offset, len);
		p += len;
	}
}

/* Checks one field at buf; returns the length of all of it in *ret_used. */
static int state_check(const struct state_field *f, const u8 *buf, size_t left, size_t *ret_used,
		       struct err *err)
{
	size_t name_len = strlen(f->name), head = state_head_size(f);
	size_t len = f->count * state_width(f->type);

	if (left < head)
		return err_set(err, -EINVAL, "the state ends before or in the head of field '%s'", f->name);
	if (buf[0] != name_len || memcmp(buf + 1, f->name, name_len))
		return err_set(err, -EINVAL, "the state has another field where '%s' is expected", f->name);
	if (buf[1 + name_len] != (u8)f->type)
		return err_set(err, -EINVAL, "field '%s' has type %u in the state; %u is expected", f->name,
			       buf[1 + name_len], (unsigned)f->type);
	if (ld32(buf + 2 + name_len) != f->count)
		return err_set(err, -EINVAL, "field '%s' has %u values in the state; %u are expected",
			       f->name, ld32(buf + 2 + name_len), f->count);
	if (left - head < len)
		return err_set(err, -EINVAL, "the state ends in the values of field '%s'", f->name);
	if (f->type == STATE_BOOL_)
		for (size_t i = 0; i < len; i++)
			if (buf[head + i] > 1)
				return err_set(err, -EINVAL,
					       "field '%s' has %u in the state; 0 or 1 is expected", f->name,
					       buf[head + i]);
	*ret_used = head + len;
	return 0;
}

int state_load(const struct state_field *fields, void *obj, const u8 *buf, size_t len, struct err *err)
{
	size_t at = 0, used = 0;
	int rc;

	for (const struct state_field *f = fields; f && f->name; f++) {
		rc = state_check(f, buf + at, len - at, &used, err);
		if (rc)
			return rc;
		at += used;
	}
	if (at != len)
		return err_set(err, -EINVAL, "the state has %zu bytes after its last field", len - at);
	at = 0;
	for (const struct state_field *f = fields; f && f->name; f++) {
		size_t bytes = f->count * state_width(f->type);

		at += state_head_size(f);
		memcpy((u8 *)obj + f->offset, buf + at, bytes);
		at += bytes;
	}
	return 0;
}
