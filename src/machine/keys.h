/* From what a terminal sends to keys of a PC's keyboard. Main thread. */
#pragma once

#include "base/types.h"

#define KEYS_SHIFT BIT(0)
#define KEYS_ALT   BIT(1)
#define KEYS_CTRL  BIT(2)

struct key_press {
	u8 key;  /* as ps2_key(); 0: no key has this meaning */
	u8 mods; /* those that are held meanwhile */
};

/* The first key press of the len bytes, len > 0: how many of them it takes. 0: they may go on (an escape sequence), which
 * with `all` they do not. */
size_t keys_parse(const u8 *buf, size_t len, bool all, struct key_press *ret);
