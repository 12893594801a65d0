/* Stores of the interpreter to RAM: noted, taken back, and compared with another's. For lockstep.c. */
#pragma once

#include "cpu/soft/soft.h"

#define STORELOG_STORES 16384
#define STORELOG_PAGES  64

/* Bytes of RAM before a store. */
struct storelog_store {
	u8 *host;
	u8 size, old[8];
};

/* A page with stores in [lo, hi); [lo, hi) after all of them, once storelog_keep() has widened it. */
struct storelog_page {
	u8 *host;
	u16 lo, hi;
	u8 after[RAM_PAGE_SIZE];
};

struct storelog {
	bool full; /* there were more stores or pages than there is room for: of no use */
	u32 nr_stores, nr_pages;
	struct storelog_store store[STORELOG_STORES];
	struct storelog_page page[STORELOG_PAGES];
};

void storelog_clear(struct storelog *l);
/* A store of size bytes at host follows; it crosses no page. */
void storelog_add(struct storelog *l, u8 *host, unsigned size);
/* After the last one: remembers what is in memory where stores were, `margin` bytes around included. */
void storelog_keep(struct storelog *l, unsigned margin);
/* Memory as it was before the stores. */
void storelog_undo(struct storelog *l);
/* Memory, where it was remembered, as it was then. */
void storelog_redo(struct storelog *l);
/* Is it like that? */
bool storelog_same(const struct storelog *l);
/* What is in memory now, at the places remembered in `from`, becomes what `to` remembers; it has no stores. */
void storelog_copy(const struct storelog *from, struct storelog *to);
/* The bytes of page p before the stores, where they were remembered. */
void storelog_before(const struct storelog *l, const struct storelog_page *p, u8 ret[RAM_PAGE_SIZE]);
