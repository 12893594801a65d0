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

/* Second-level TLB: results of walks, behind the tables of struct tlb_entry and much larger. An entry belongs to a generation:
 * that of its PCID's, or c->gen_global for a global page. A flush is a new generation number. */
#define TLB2_BITS 15
struct tlb2 {
	gva_t key; /* linear page address | mode */
	gpa_t gpa; /* of the page */
	u32 gen;   /* 0: free */
	u8 rights, shift;
	bool dirty, global;
};
