/* Bytes as a script of what a guest, a host and time do to the devices of a board. */
#pragma once

#include "fakeboard.h"

/* Runs the script to its end. chr: the serial port's back end, may be NULL. What must hold, or the process
 * aborts: timers do not fire without end, nor faster than any device's shortest period; the number of regions
 * and timers stays bounded. */
void device_traffic(struct board *b, struct fake_chr *chr, const u8 *script, size_t len);
