/* How many regions a cache has; see regions.h. Freestanding: runs while guest vector state is live. */
#include "cpu/soft/regions.h"

/* There are too few when at least one of so many blocks is made again: a further one, when so many regions showed it. */
#define AGAIN 2
#define SMALL 2

/* What is remembered for longer says little. */
#define MOST_GONE (1u << (REGIONS_GONE_BITS - 2))

/* False: the block is not among those that are looked at. */
static bool hash(u64 hva, u32 *ret)
{
	u32 h = (u32)(hva * 0x9e3779b97f4a7c15u >> (60 - REGIONS_GONE_BITS));

	*ret = h >> 4;
	return !(h & 15);
}

static void begin(struct regions *r, u32 k)
{
	r->at = k;
	r->begun[k] = ++r->nr_begun;
	r->made = r->made_again = 0;
}

void regions_init(struct regions *r, u32 least, u32 most)
{
	r->least = least;
	r->most = MAX(least, most);
	while (r->nr < least)
		r->begun[r->nr++] = ++r->nr_begun; /* empty, in order */
	begin(r, 0);
}

void regions_made(struct regions *r, u64 hva)
{
	u32 h;

	if (!hash(hva, &h))
		return;
	r->made++;
	r->made_again += r->gone[h / 64] >> h % 64 & 1;
}

void regions_gone(struct regions *r, u64 hva)
{
	u32 h;

	if (!hash(hva, &h))
		return;
	if (r->nr_gone++ == MOST_GONE) {
		soft_zero(r->gone, sizeof(r->gone));
		r->nr_gone = 1;
	}
	r->gone[h / 64] |= BIT(h % 64);
}

/* Of those in use, but for the one being filled, the one that was begun first; REGIONS_MOST: there is none. */
static u32 oldest(const struct regions *r)
{
	u32 found = REGIONS_MOST;

	for (u32 k = 0; k < REGIONS_MOST; k++)
		if (r->begun[k] && k != r->at && (found == REGIONS_MOST || r->begun[k] < r->begun[found]))
			found = k;
	return found;
}

u32 regions_next(struct regions *r)
{
	bool small = r->made && r->made_again * AGAIN >= r->made;
	u32 k = 0;

	r->small = small ? r->small + 1 : 0;
	if (r->small >= SMALL && r->nr < r->most) {
		r->small = 0;
		while (r->begun[k])
			k++;
		r->nr++;
		r->nr_grown++;
	} else {
		k = oldest(r);
	}
	begin(r, k);
	return k;
}

u32 regions_give_back(struct regions *r)
{
	u32 k = regions_can_give_back(r) ? oldest(r) : REGIONS_MOST;

	if (k < REGIONS_MOST) {
		r->begun[k] = 0;
		r->nr--;
		r->nr_given_back++;
	}
	return k;
}
