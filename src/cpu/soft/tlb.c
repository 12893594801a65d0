/* The TLB's tables: looking up, filling, and dropping entries; mmu.c says when.
 *
 * First level: one direct-mapped table of 4 KiB translations per kind of access (user, supervisor,
 * supervisor with AC), half of the address space and, in the lower half, PCID; struct tlb_entry says
 * what its tags mean. The upper half has one set for all PCIDs, in which the entries that are not global
 * are listed, to be dropped when CR3 is written.
 *
 * Behind these tables is a second level (struct tlb2), much larger, that keeps results of walks: a miss
 * of the first level that hits there costs a tenth of a walk. Its flushes are new generation numbers.
 *
 * Large pages are listed where they have entries (struct tlb_large), so that all of these can be dropped
 * together. The lists are as old as the oldest entry of either level: only what gives up both empties
 * them.
 *
 * When a page gets its first decoded instruction, the w tags of that physical page must go, in every
 * table, and cheaply. So each w tag is also entered in a small two-way table by physical page (struct
 * tlb_rev), and a page that is pushed out of it loses its w tags: what is not in there has none.
 *
 * In front of all are the windows (struct window): what is dropped from the tables is dropped from them. A table that
 * gives an entry up for another may leave it to them: they are emptied by the same events, whatever they hold.
 *
 * On the vCPU's thread; compiled with general registers only. */
#include "cpu/soft/mmu.h"

#define PAGE_MASK 0xfffull

/* --- the reverse table --- */

_Static_assert((TLB_NR_ASIDS + 1) * TLB_NR_MODES << TLB_BITS < TLB_REV_FREE, "a place has 16 bits");

static struct tlb_table *table_by_id(const struct soft_cpu *c, unsigned id)
{
	if (id >= TLB_NR_ASIDS * TLB_NR_MODES)
		return &c->upper[id - TLB_NR_ASIDS * TLB_NR_MODES];
	return &c->asids[id / TLB_NR_MODES].half[id % TLB_NR_MODES];
}

/* The entry at loc if it (still) has a w tag for the page of rev. */
static struct tlb_entry *rev_entry(const struct soft_cpu *c, u64 page, u16 loc)
{
	if (loc == TLB_REV_FREE)
		return NULL;
	struct tlb_entry *e = &table_by_id(c, loc >> TLB_BITS)->e[loc & (TLB_SIZE - 1)];
	return e->w != TLB_NEVER && e->w + e->addend == (u64)c->ram->base + page * RAM_PAGE_SIZE ? e : NULL;
}

static struct tlb_rev *rev_set(const struct soft_cpu *c, u64 page)
{
	return &c->rev[(page * 0x9e3779b97f4a7c15ull >> (64 - TLB_REV_BITS)) * TLB_REV_WAYS];
}

static void rev_drop(struct soft_cpu *c, struct tlb_rev *r)
{
	for (unsigned k = 0; k < ARRAY_SIZE(r->loc); k++) {
		struct tlb_entry *e = rev_entry(c, r->page, r->loc[k]);
		if (e)
			e->w = TLB_NEVER;
		r->loc[k] = TLB_REV_FREE;
	}
}

/* Says that the entry at loc is about to get a w tag for page. */
static void rev_add(struct soft_cpu *c, u64 page, u16 loc)
{
	struct tlb_rev *set = rev_set(c, page), *r = NULL;
	for (unsigned w = 0; w < TLB_REV_WAYS; w++)
		if (set[w].page == page)
			r = &set[w];
	if (!r) {
		/* Way 0 is the youngest. */
		rev_drop(c, &set[TLB_REV_WAYS - 1]);
		for (unsigned w = TLB_REV_WAYS - 1; w > 0; w--)
			soft_copy(&set[w], &set[w - 1], sizeof(*set)); /* no memcpy under sanitizers */
		r = &set[0];
		r->page = page;
		for (unsigned k = 0; k < ARRAY_SIZE(r->loc); k++)
			r->loc[k] = TLB_REV_FREE;
	}
	unsigned use = ARRAY_SIZE(r->loc);
	for (unsigned k = 0; k < ARRAY_SIZE(r->loc); k++) {
		if (r->loc[k] == loc)
			return;
		if (use == ARRAY_SIZE(r->loc) && !rev_entry(c, page, r->loc[k]))
			use = k;
	}
	if (use == ARRAY_SIZE(r->loc)) { /* mapped writable in many places: one of them must go */
		use = c->nr_walks % ARRAY_SIZE(r->loc);
		rev_entry(c, page, r->loc[use])->w = TLB_NEVER;
	}
	r->loc[use] = loc;
}

void tlb_write_protect(struct soft_cpu *c, gpa_t page)
{
	struct tlb_rev *set = rev_set(c, page / RAM_PAGE_SIZE);
	for (unsigned w = 0; w < TLB_REV_WAYS; w++)
		if (set[w].page == page / RAM_PAGE_SIZE)
			rev_drop(c, &set[w]);
}

/* --- windows --- */

void tlb_drop_windows(struct soft_cpu *c, gva_t la, u64 mask)
{
	struct window *w = c->window[0];

	for (unsigned k = 0; k < 2 * NR_WINDOWS; k++) {
		if (!((w[k].r ^ la) & mask))
			w[k].r = WINDOW_NONE;
		if (!((w[k].w ^ la) & mask))
			w[k].w = WINDOW_NONE;
	}
}

/* --- tables --- */

static void entry_clear(struct tlb_entry *e)
{
	e->r = e->w = TLB_NEVER;
}

/* The page it is about; TLB_NEVER: none. */
static gva_t entry_page(const struct tlb_entry *e)
{
	return e->r != TLB_NEVER ? e->r : e->w;
}

static void table_flush(struct tlb_table *t)
{
	if (t->used <= TLB_LIST) {
		for (u32 k = 0; k < t->used; k++)
			entry_clear(&t->e[t->list[k]]);
	} else {
		u64 n = sizeof(t->e) / 8;
		void *p = t->e;
		__asm__ volatile("rep stosq" : "+D"(p), "+c"(n) : "a"(TLB_NEVER) : "memory");
	}
	t->used = 0;
}

void tlb_code_changed(struct soft_cpu *c, struct tlb_code *t)
{
	t->gen = ++c->code_gens;
	t->lost = false;
	for (unsigned half = 0; half < 2; half++)
		if (c->tlb_code[half] == t)
			c->code_gen[half] = mmu_code_gen(c, half);
}

static void code_flush_table(struct soft_cpu *c, struct tlb_code *t)
{
	if (!t->nr)
		return;
	if (t->nr <= TLB_CODE_LIST) {
		for (u32 k = 0; k < t->nr; k++)
			t->key[t->list[k]] = TLB_NEVER;
	} else {
		u64 n = TLB_CODE_SIZE;
		void *p = t->key;
		__asm__ volatile("rep stosq" : "+D"(p), "+c"(n) : "a"(TLB_NEVER) : "memory");
	}
	t->nr = 0;
	tlb_code_changed(c, t);
}

static void code_add(struct soft_cpu *c, struct tlb_code *t, gva_t la, u64 key)
{
	unsigned slot = la >> 12 & (TLB_CODE_SIZE - 1);
	u64 old = t->key[slot];

	if (old != TLB_NEVER && old != key) {
		if ((old ^ key) >> TLB_KEY_PFN_BITS)
			t->lost = true;
		else
			tlb_code_changed(c, t);
	}
	if (t->key[slot] == TLB_NEVER && t->nr <= TLB_CODE_LIST) {
		if (t->nr < TLB_CODE_LIST)
			t->list[t->nr] = (u16)slot;
		t->nr++;
	}
	t->key[slot] = key;
}

void tlb_flush_tables(struct soft_cpu *c, struct tlb_table t[TLB_NR_MODES], struct tlb_code code[2])
{
	for (unsigned m = 0; m < TLB_NR_MODES; m++)
		table_flush(&t[m]);
	code_flush_table(c, &code[0]);
	code_flush_table(c, &code[1]);
}

void tlb_flush_upper(struct soft_cpu *c)
{
	tlb_drop_windows(c, BIT(63), BIT(63));
	tlb_flush_tables(c, c->upper, c->upper_code);
	c->nr_nonglobal = 0;
	c->upper_code_nonglobal = false;
}

void tlb_flush_upper_nonglobal(struct soft_cpu *c)
{
	if (c->nr_nonglobal > TLB_MAX_NONGLOBAL) {
		tlb_flush_upper(c);
		return;
	}
	if (c->upper_code_nonglobal) {
		code_flush_table(c, &c->upper_code[0]);
		code_flush_table(c, &c->upper_code[1]);
		c->upper_code_nonglobal = false;
	}
	if (c->nr_nonglobal)
		tlb_drop_windows(c, BIT(63), BIT(63));
	for (unsigned k = 0; k < c->nr_nonglobal; k++)
		entry_clear(&c->upper[c->nonglobal[k] >> TLB_BITS].e[c->nonglobal[k] & (TLB_SIZE - 1)]);
	c->nr_nonglobal = 0;
}

static void note_nonglobal(struct soft_cpu *c, u16 where)
{
	if (c->nr_nonglobal > TLB_MAX_NONGLOBAL)
		return;
	for (unsigned k = 0; k < c->nr_nonglobal; k++)
		if (c->nonglobal[k] == where)
			return;
	if (c->nr_nonglobal < TLB_MAX_NONGLOBAL)
		c->nonglobal[c->nr_nonglobal] = where;
	c->nr_nonglobal++;
}

static void note_large(struct tlb_large *l, gva_t la, unsigned shift)
{
	u64 page = (la & ~(BIT(shift) - 1)) | shift;
	if (l->nr > TLB_MAX_LARGE)
		return;
	for (unsigned k = l->nr; k-- > 0;)
		if (l->page[k] == page)
			return;
	if (l->nr < TLB_MAX_LARGE)
		l->page[l->nr] = page;
	l->nr++;
}

/* Does a data breakpoint, the guest's or a debugger's, lie in the page? Then it gets no r and w tags. */
static bool page_watched(const struct soft_cpu *c, gva_t la)
{
	if (c->debug && debug_find_data(c->debug, la & ~PAGE_MASK, RAM_PAGE_SIZE, DEBUG_ACCESS))
		return true;
	for (unsigned n = 0; n < 4; n++)
		if (c->dr7 >> (2 * n) & 3 && c->dr7 >> (16 + 4 * n) & 1 && !((c->dr[n] ^ la) & ~PAGE_MASK))
			return true;
	return false;
}

void tlb_fill(struct soft_cpu *c, gva_t la, enum tlb_mode mode, unsigned acc, const struct walk *w,
	      struct tlb_place *ret)
{
	gva_t tag = la & ~PAGE_MASK;
	gpa_t gpa = w->gpa & ~PAGE_MASK;
	u8 *host = ram_ptr(c->ram, gpa, RAM_PAGE_SIZE);
	bool upper = la >> 63, write = acc & ACC_W;

	ret->gpa = w->gpa;
	ret->host = host ? host + (la & PAGE_MASK) : NULL;
	ret->rom = host && ram_is_rom(c->ram, gpa);
	if (host && write && !ret->rom)
		ram_mark_dirty(c->ram, gpa, 1);
	if (host && acc & ACC_X) {
		/* UEFI and its loaders run where addresses are physical ones. */
		if (upper && unlikely(timeline_wants(&c->vcpu->vm->timeline, TIMELINE_KERNEL)))
			soft_out_timeline(c, TIMELINE_KERNEL);
		/* Of a page with breakpoints nothing is known here, so that all of it comes to the loop. */
		if (likely(!c->debug || !debug_code_in_page(c->debug, la)))
			code_add(c, &(upper ? c->upper_code : c->asid->code)[mode == TLB_USER], la,
				 tlb_key(tag, gpa));
		if (upper && !w->global)
			c->upper_code_nonglobal = true;
		if (unlikely(upper == (mode == TLB_USER)) && c->windows_mixed != WINDOWS_MIXED) {
			c->windows_mixed = WINDOWS_MIXED;
			tlb_drop_windows(c, 0, 0);
		}
	} else {
		struct tlb_table *t = upper ? &c->upper[mode] : &c->asid->half[mode];
		unsigned slot = la >> 12 & (TLB_SIZE - 1);
		struct tlb_entry *e = &t->e[slot];

		entry_clear(e);
		if (!host)
			return;
		e->addend = (u64)host - tag;
		if (likely((!(c->dr7 & 0xff) && !c->debug) || !page_watched(c, la))) {
			if (w->rights & ACC_R)
				e->r = tag;
			/* While written pages are noted, not before the first write. */
			if (w->rights & ACC_W && w->dirty && !ret->rom && !walk_code_word(c->ram, gpa) &&
			    (write ||
			     likely(!atomic_load_explicit(&c->ram->dirty_on, memory_order_relaxed)))) {
				unsigned id = upper ? TLB_NR_ASIDS * TLB_NR_MODES + mode
						    : (unsigned)(c->asid - c->asids) * TLB_NR_MODES + mode;
				rev_add(c, gpa / RAM_PAGE_SIZE, (u16)(id << TLB_BITS | slot));
				e->w = tag;
			}
		}
		if (t->used < TLB_LIST)
			t->list[t->used] = (u16)slot;
		if (t->used <= TLB_LIST)
			t->used++;
		if (upper && !w->global)
			note_nonglobal(c, (u16)(mode << TLB_BITS | slot));
	}
	if (!host)
		return;
	if (w->shift > 12)
		note_large(upper ? &c->upper_large : &c->asid->large, la, w->shift);
	if (!upper && w->global)
		c->lower_global = true;
}

/* --- the second level --- */

static struct tlb2 *tlb2_slot(const struct soft_cpu *c, gva_t la, enum tlb_mode mode)
{
	return &c->tlb2[(la >> 12 ^ (u64)mode << (TLB2_BITS - 2)) & ((1u << TLB2_BITS) - 1)];
}

void tlb_insert2(struct soft_cpu *c, gva_t la, enum tlb_mode mode, const struct walk *w)
{
	struct tlb2 *e = tlb2_slot(c, la, mode);

	e->key = (la & ~PAGE_MASK) | mode;
	e->gpa = w->gpa & ~PAGE_MASK;
	/* The large pages of the lower half are listed by PCID, so what is global there is not so here. */
	e->gen = w->global && la >> 63 ? c->gen_global : c->asid->gen;
	e->rights = w->rights;
	e->shift = w->shift;
	e->dirty = w->dirty;
	e->global = w->global;
}

bool tlb_find2(const struct soft_cpu *c, gva_t la, enum tlb_mode mode, unsigned acc, struct walk *ret)
{
	const struct tlb2 *e = tlb2_slot(c, la, mode);

	if (e->key != ((la & ~PAGE_MASK) | mode) || (e->gen != c->asid->gen && e->gen != c->gen_global) ||
	    acc & ~e->rights || (acc & ACC_W && !e->dirty))
		return false;
	ret->gpa = e->gpa | (la & PAGE_MASK);
	ret->rights = e->rights;
	ret->shift = e->shift;
	ret->dirty = e->dirty;
	ret->global = e->global;
	return true;
}

u32 tlb_new_generation(struct soft_cpu *c)
{
	if (unlikely(++c->gen == 0)) { /* numbers are used up: nothing may look like one of the past */
		soft_zero(c->tlb2, sizeof(*c->tlb2) << TLB2_BITS);
		for (unsigned k = 0; k < TLB_NR_ASIDS; k++)
			c->asids[k].gen = ++c->gen;
		c->gen_global = ++c->gen;
		++c->gen;
	}
	return c->gen;
}

/* Of this page, whichever PCID and mode. */
void tlb_drop2(struct soft_cpu *c, gva_t la)
{
	for (unsigned m = 0; m < TLB_NR_MODES; m++) {
		struct tlb2 *e = tlb2_slot(c, la, m);

		if ((e->key ^ la) <= PAGE_MASK)
			e->gen = 0;
	}
}

/* --- dropping pages --- */

static void drop_large(struct soft_cpu *c, struct tlb_table tables[TLB_NR_MODES], struct tlb_code code[2],
		       gva_t la, unsigned shift)
{
	code_flush_table(c, &code[0]);
	code_flush_table(c, &code[1]);
	unsigned n = shift == 21 ? TLB_SIZE / 2 : TLB_SIZE;
	unsigned first = shift == 21 ? la >> 12 & (TLB_SIZE / 2) : 0;
	for (unsigned m = 0; m < TLB_NR_MODES; m++) {
		for (unsigned k = 0; tables[m].used && k < n; k++) {
			struct tlb_entry *e = &tables[m].e[first + k];
			u64 tag = entry_page(e);
			if (tag != TLB_NEVER && tag >> shift == la >> shift)
				entry_clear(e);
		}
	}
}

/* The second level has the pieces of a large page all over: it is given up as a whole. */
static void forget_large(struct soft_cpu *c)
{
	for (unsigned k = 0; k < TLB_NR_ASIDS; k++)
		c->asids[k].gen = tlb_new_generation(c);
	c->gen_global = tlb_new_generation(c);
}

void tlb_drop_page(struct soft_cpu *c, struct tlb_table tables[TLB_NR_MODES], struct tlb_code code[2],
		   struct tlb_large *large, gva_t la)
{
	gva_t tag = la & ~PAGE_MASK;
	for (unsigned m = 0; m < 2; m++) {
		u64 *key = &code[m].key[la >> 12 & (TLB_CODE_SIZE - 1)];
		bool same = !((*key ^ tlb_key(la, 0)) >> TLB_KEY_PFN_BITS);
		if (same)
			*key = TLB_NEVER; /* its place in the list stays taken */
		if (same || code[m].lost)
			tlb_code_changed(c, &code[m]);
	}
	for (unsigned m = 0; m < TLB_NR_MODES; m++) {
		struct tlb_entry *e = &tables[m].e[la >> 12 & (TLB_SIZE - 1)];
		if (entry_page(e) == tag)
			entry_clear(e);
	}
	tlb_drop2(c, la);
	tlb_drop_windows(c, la, ~PAGE_MASK);
	if (unlikely(large->nr > TLB_MAX_LARGE)) {
		tlb_drop_windows(c, la, ~(BIT(30) - 1));
		drop_large(c, tables, code, la, 30);
		forget_large(c);
		return;
	}
	for (unsigned k = 0; k < large->nr;) {
		unsigned shift = large->page[k] & 63;
		if ((large->page[k] ^ la) >> shift) {
			k++;
			continue;
		}
		tlb_drop_windows(c, la, ~(BIT(shift) - 1));
		drop_large(c, tables, code, la, shift);
		forget_large(c);
		large->page[k] = large->page[--large->nr];
	}
}
