/* What mmu.c and its set-up share; the rest of the engine sees the functions in soft.h. */
#pragma once

#include "cpu/soft/soft.h"

/* Where physical page `page` has w tags: table << TLB_BITS | slot; tables are counted asid by asid, mode by mode, then
 * the upper ones. A place may be stale: the entry itself tells. */
#define TLB_REV_BITS 11
#define TLB_REV_WAYS 2u
#define TLB_REV_FREE 0xffff
struct tlb_rev {
	u64 page; /* ~0: none */
	u16 loc[4];
};
