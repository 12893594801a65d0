/* Rates by a moving due time: each unit moves it on by 1/rate, and time that was not used counts back for a tenth
 * of a second at most. So the average holds exactly, however requests are sized, and a burst is short.
 */
#include "vm/throttle.h"

#define NS_PER_S 1000000000ull
#define BURST_NS (NS_PER_S / 10)

u64 throttle_wait(const struct throttle *t, u64 now)
{
	return t->rate && t->free > now ? t->free - now : 0;
}

void throttle_take(struct throttle *t, u64 now, u64 units)
{
	u64 oldest = now > BURST_NS ? now - BURST_NS : 0;

	if (!t->rate)
		return;
	t->free = MAX(t->free, oldest) + units * NS_PER_S / t->rate;
}
