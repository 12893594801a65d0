/* The keyboard of the 8042 "ps2", as somebody types on it. */
#pragma once

#include "base/types.h"

struct device;

#define PS2_EXTENDED \
	0x80 /* or'ed to a key's number: the keys that came with the 101-key keyboard, behind E0H */

/* A key goes down or up. key: its number on the PC/AT's keyboard, which is its code in set 1, 1 to 58H. False: the keyboard's
 * buffer has no room, try again later. Any thread, without the device's lock. */
bool ps2_key(struct device *dev, u8 key, bool down);

/* Whether the guest has taken everything that was typed. As above. */
bool ps2_idle(struct device *dev);
