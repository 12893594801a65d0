/* A device's state as one list of fields, walked in both directions: save, load, dump, fuzz.
 *
 * Encoding (little-endian): for each field its name (u8 length, bytes), type u8, count u32, then the values.
 * Loading is strict: same fields, same order, same types and counts, or -EINVAL with a
 * sentence naming the field; then post_load() of the device checks the values.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

enum state_type { STATE_END_, STATE_BOOL_, STATE_U8_, STATE_U16_, STATE_U32_, STATE_U64_ };

struct state_field {
	const char *name;
	u32 offset;
	u32 count;
	enum state_type type;
};

/* clang-format off */
#define STATE_FIELD_(s, f, n, t)                                                                   \
	{ #f, offsetof(struct s, f), n, t }
#define STATE_BOOL(s, f) STATE_FIELD_(s, f, 1, STATE_BOOL_)
#define STATE_U8(s, f)   STATE_FIELD_(s, f, 1, STATE_U8_)
#define STATE_U16(s, f)  STATE_FIELD_(s, f, 1, STATE_U16_)
#define STATE_U32(s, f)  STATE_FIELD_(s, f, 1, STATE_U32_)
#define STATE_U64(s, f)  STATE_FIELD_(s, f, 1, STATE_U64_)
#define STATE_U8S(s, f)  STATE_FIELD_(s, f, sizeof(((struct s *)0)->f), STATE_U8_)
#define STATE_U16S(s, f) STATE_FIELD_(s, f, sizeof(((struct s *)0)->f) / 2, STATE_U16_)
#define STATE_U32S(s, f) STATE_FIELD_(s, f, sizeof(((struct s *)0)->f) / 4, STATE_U32_)
#define STATE_U64S(s, f) STATE_FIELD_(s, f, sizeof(((struct s *)0)->f) / 8, STATE_U64_)
#define STATE_END        { NULL, 0, 0, STATE_END_ }
/* clang-format on */

/* Bytes that state_save() writes for this list. */
size_t state_size(const struct state_field *fields);
void state_save(const struct state_field *fields, const void *obj, u8 *ret_buf);
/* obj is untouched on failure. */
int state_load(const struct state_field *fields, void *obj, const u8 *buf, size_t len, struct err *err);
