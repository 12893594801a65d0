/* What mmu.c, tlb.c and their set-up share; the rest of the engine sees the functions in soft.h. */
#pragma once

#include "cpu/soft/soft.h"
#include "cpu/soft/walk.h"

/* Where physical page `page` has w tags: table << TLB_BITS | slot; tables are counted asid by asid, mode
 * by mode, then the upper ones. A place may be stale: the entry itself tells. */
#define TLB_REV_BITS 11
#define TLB_REV_WAYS 2u
#define TLB_REV_FREE 0xffff
struct tlb_rev {
	u64 page; /* ~0: none */
	u16 loc[4];
};

/* Second-level TLB: results of walks, behind the tables of struct tlb_entry and much larger. An entry
 * belongs to a generation: that of its PCID's, or c->gen_global for a global page. A flush is a new
 * generation number. */
#define TLB2_BITS 15
struct tlb2 {
	gva_t key; /* linear page address | mode */
	gpa_t gpa; /* of the page */
	u32 gen;   /* 0: free */
	u8 rights, shift;
	bool dirty, global;
};

/* Where the part of an access that lies in one page goes. */
struct tlb_place {
	u8 *host; /* of the first byte; NULL: to the bus */
	gpa_t gpa;
	bool rom; /* valid for writes: they are dropped */
};

/* Enters what a walk of la for mode found into the first level, of code for ACC_X, else of data, and says where la
 * is. */
void tlb_fill(struct soft_cpu *c, gva_t la, enum tlb_mode mode, unsigned acc, const struct walk *w,
	      struct tlb_place *ret);
/* The second level: results of walks; found only when they allow acc without another walk. */
void tlb_insert2(struct soft_cpu *c, gva_t la, enum tlb_mode mode, const struct walk *w);
bool tlb_find2(const struct soft_cpu *c, gva_t la, enum tlb_mode mode, unsigned acc, struct walk *ret);

/* What entries of jcache say of what was executable in that half, and that the mode was this one: an address may be code
 * of 64-bit mode and of 32-bit mode. */
static inline u64 mmu_code_gen(const struct soft_cpu *c, unsigned half)
{
	return c->tlb_code[half]->gen << 1 | (c->key & KEY_FLAT ? 1 : 0);
}

/* After a change of these. */
static inline void mmu_set_code_gen(struct soft_cpu *c)
{
	c->code_gen[0] = mmu_code_gen(c, 0);
	c->code_gen[1] = mmu_code_gen(c, 1);
}

/* Takes from the windows the pages that are la's in the bits of mask; 0: all. */
void tlb_drop_windows(struct soft_cpu *c, gva_t la, u64 mask);
void tlb_flush_tables(struct soft_cpu *c, struct tlb_table t[TLB_NR_MODES], struct tlb_code code[2]);
/* A key of t is gone, or t is new. */
void tlb_code_changed(struct soft_cpu *c, struct tlb_code *t);
void tlb_flush_upper(struct soft_cpu *c);
void tlb_flush_upper_nonglobal(struct soft_cpu *c);
u32 tlb_new_generation(struct soft_cpu *c);
/* This page, and all of the large page it may be in; the second level's whatever the PCID. */
void tlb_drop_page(struct soft_cpu *c, struct tlb_table tables[TLB_NR_MODES], struct tlb_code code[2],
		   struct tlb_large *large, gva_t la);
void tlb_drop2(struct soft_cpu *c, gva_t la);
void tlb_write_protect(struct soft_cpu *c, gpa_t page);
