/* How much memory a cache of code takes: decoded blocks (code.c) and translations (jit/jit.c) each have one.
 *
 * A cache fills one region after the other. When one is full, the region that was begun first is given up and filled anew. A
 * cache too small for what the guest executes thus makes again what it gave up a moment ago. Where that is much of what it
 * makes, it takes a further region instead, up to a bound; what is executed once, as in a boot, does not count.
 * A guest that halts now and then and has needed no other region for a while gives regions back, down to those that
 * every cache has.
 *
 * Of all blocks every sixteenth by a hash of its address is looked at. What was given up of these is remembered by one bit of
 * the hash, so what comes back may be mistaken for it now and then.
 *
 * Under the lock of share.h; regions change while one vCPU is alone. */
#pragma once

#include "cpu/soft/soft.h"

#define REGIONS_MOST      32u
#define REGIONS_GONE_BITS 16

struct regions {
	u32 at;                  /* being filled */
	u32 nr, least, most;     /* in use; bounds of that, least >= 2 */
	u64 begun[REGIONS_MOST]; /* the how-many-th it was, from 1; 0: not in use */
	u64 nr_begun, nr_grown, nr_given_back;
	u32 made, made_again; /* since `at` was begun */
	u32 small;            /* so many regions one after the other showed that there are too few */
	u32 nr_gone;
	u64 gone[1 << (REGIONS_GONE_BITS - 6)];
};

/* From all 0: all empty, the first is being filled. A bound below least is least. */
void regions_init(struct regions *r, u32 least, u32 most);
/* The block at this host address is made; is given up with its region. */
void regions_made(struct regions *r, u64 hva);
void regions_gone(struct regions *r, u64 hva);
/* The one being filled is full: which is to be filled from now on, in r->at. What it holds is the caller's to give up. */
u32 regions_next(struct regions *r);
/* Are there more than the least? */
static inline bool regions_can_give_back(const struct regions *r)
{
	return r->nr > r->least;
}

/* One that is not in use from now on: its contents and its memory are the caller's to give up. REGIONS_MOST: none. */
u32 regions_give_back(struct regions *r);
