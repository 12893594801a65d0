/* The page walk: linear address -> guest-physical address and rights, with the accessed and dirty bits
 * set. */
#pragma once

#include "cpu/soft/soft.h"

struct walk {
	gpa_t gpa;   /* of the byte at la */
	u8 rights;   /* ACC_*: what the page allows in this mode (D aside) */
	u8 shift;    /* log2 of the page size: 12, 21, 22, 30 */
	bool dirty;  /* nothing is left to be done at a write: D is set, or cannot be */
	bool global; /* G, and CR4.PGE is on */
	u32 error;   /* #PF error code, when the walk failed */
};

/* acc: ACC_* that must be allowed, 0: look only, whatever the rights, and change nothing. false: #PF with
 * ret->error; then no table entry was changed. la is canonical, or below 4 GiB outside long mode. */
bool walk_page(struct soft_cpu *c, gva_t la, enum tlb_mode mode, unsigned acc, struct walk *ret);

static inline u64 walk_code_word(const struct ram *ram, gpa_t gpa)
{
	return atomic_load_explicit(&ram->code_map[gpa / RAM_PAGE_SIZE], memory_order_relaxed);
}

/* After a write of [gpa, gpa + len), inside one page of RAM: drops the code that was made of these bytes. */
static inline void walk_code_written(struct soft_cpu *c, gpa_t gpa, unsigned len)
{
	if (likely(!walk_code_word(c->ram, gpa)))
		return; /* the first mark comes when no vCPU is in a block */
	/* The bytes must be visible before we look for marks: see ram.c. */
	atomic_thread_fence(memory_order_seq_cst);
	u64 word = walk_code_word(c->ram, gpa);
	unsigned first = gpa / 64 % 64, last = (gpa + len - 1) / 64 % 64;
	if (word & (~0ull << first) & (~0ull >> (63 - last)))
		code_invalidate(c, gpa, len);
	else
		code_beside(c, gpa);
}
