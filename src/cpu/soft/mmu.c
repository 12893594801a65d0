/* Memory as instructions see it: the TLB, and the slow path of every access [SDM3 chapter 4].
 *
 * Models: translation with caching (TLB), PCIDs, global pages, INVLPG, INVPCID, MOV to CR3; accesses that cross a page,
 * go to memory-mapped I/O, to ROM, or write bytes that were decoded as code; data breakpoints.
 *
 * How: one direct-mapped table of 4 KiB translations per kind of access (user, supervisor, supervisor with AC), half of
 * the address space and, in the lower half, PCID; struct tlb_entry says what its tags mean. The upper half has one
 * set for all PCIDs, in which the entries that are not global are listed and dropped when CR3 is
 * written. A PCID that is not current is flushed by being marked invalid; its tables are cleared when it is
 * next used. Entries hold the rights of the control bits that they were made under, so
 * mmu_select() flushes when these change.
 *
 * Behind these tables is a second level (struct tlb2), much larger, that keeps results of walks: a miss of the first level
 * that hits there costs a tenth of a walk. Its flushes are new generation numbers.
 *
 * When a page gets its first decoded instruction, the w tags of that physical page must go, in every table, and
 * cheaply. So each w tag is also entered in a small two-way table by physical page (struct
 * tlb_rev), and a page that is pushed out of it loses its w tags: what is not in there has none.
 *
 * A write to marked code is done first and then reported (code_invalidate); the page gets its w tag back at the
 * first write after the last mark is gone.
 *
 * Omitted: caching of upper-level entries, and memory types (all RAM is write-back; PAT and MTRRs have no effect).
 *
 * On the vCPU's thread; compiled with general registers only, because guest vector state may be live. */
#include "cpu/soft/mmu.h"

#include "cpu/soft/walk.h"

#define PAGE_MASK 0xfffull

/* Where the part of an access that lies in one page goes. */
struct place {
	u8 *host; /* of the first byte; NULL: to the bus */
	gpa_t gpa;
	bool rom; /* valid for writes: they are dropped */
};

/* --- the reverse table --- */

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
			set[w] = set[w - 1];
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

void mmu_write_protect(struct soft_cpu *c, gpa_t page)
{
	struct tlb_rev *set = rev_set(c, page / RAM_PAGE_SIZE);
	for (unsigned w = 0; w < TLB_REV_WAYS; w++)
		if (set[w].page == page / RAM_PAGE_SIZE)
			rev_drop(c, &set[w]);
}

/* --- tables --- */

static enum tlb_mode current_mode(const struct soft_cpu *c)
{
	return c->cpl == 3 ? TLB_USER : c->cr4 & CR4_SMAP && !(c->flags & FL_AC) ? TLB_SUP : TLB_SUP_AC;
}

static enum tlb_mode implicit_mode(const struct soft_cpu *c)
{
	return c->cr4 & CR4_SMAP ? TLB_SUP : TLB_SUP_AC;
}

static u16 current_pcid(const struct soft_cpu *c)
{
	return c->cr4 & CR4_PCIDE ? c->cr3 & 0xfff : 0;
}

static void entry_clear(struct tlb_entry *e)
{
	e->r = e->w = e->x = TLB_NEVER;
}

static void table_flush(struct tlb_table *t)
{
	if (!t->used)
		return;
	u64 n = sizeof(t->e) / 8;
	void *p = t->e;
	__asm__ volatile("rep stosq" : "+D"(p), "+c"(n) : "a"(TLB_NEVER) : "memory");
	t->used = 0;
}

static void tables_flush(struct tlb_table t[TLB_NR_MODES], struct tlb_large *large)
{
	for (unsigned m = 0; m < TLB_NR_MODES; m++)
		table_flush(&t[m]);
	large->nr = 0;
}

static void upper_flush_all(struct soft_cpu *c)
{
	tables_flush(c->upper, &c->upper_large);
	c->nr_nonglobal = 0;
}

static void upper_flush_nonglobal(struct soft_cpu *c)
{
	if (c->nr_nonglobal > TLB_MAX_NONGLOBAL) {
		upper_flush_all(c);
		return;
	}
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

/* Does a data breakpoint lie in the page? Then it gets no r and w tags. */
static bool page_watched(const struct soft_cpu *c, gva_t la)
{
	for (unsigned n = 0; n < 4; n++)
		if (c->dr7 >> (2 * n) & 3 && c->dr7 >> (16 + 4 * n) & 1 && !((c->dr[n] ^ la) & ~PAGE_MASK))
			return true;
	return false;
}

static void fill(struct soft_cpu *c, gva_t la, enum tlb_mode mode, const struct walk *w, struct place *ret)
{
	gva_t tag = la & ~PAGE_MASK;
	gpa_t gpa = w->gpa & ~PAGE_MASK;
	u8 *host = ram_ptr(c->ram, gpa, RAM_PAGE_SIZE);
	bool upper = la >> 63;
	struct tlb_table *t = upper ? &c->upper[mode] : &c->asid->half[mode];
	unsigned slot = la >> 12 & (TLB_SIZE - 1);
	struct tlb_entry *e = &t->e[slot];

	ret->gpa = w->gpa;
	ret->host = host ? host + (la & PAGE_MASK) : NULL;
	ret->rom = host && walk_is_rom(c->ram, gpa);
	entry_clear(e);
	if (!host)
		return;
	e->addend = (u64)host - tag;
	if (w->rights & ACC_X)
		e->x = tag;
	if (likely(!(c->dr7 & 0xff) || !page_watched(c, la))) {
		if (w->rights & ACC_R)
			e->r = tag;
		if (w->rights & ACC_W && w->dirty && !ret->rom && !walk_code_word(c->ram, gpa)) {
			unsigned id = upper ? TLB_NR_ASIDS * TLB_NR_MODES + mode
					    : (unsigned)(c->asid - c->asids) * TLB_NR_MODES + mode;
			rev_add(c, gpa / RAM_PAGE_SIZE, (u16)(id << TLB_BITS | slot));
			e->w = tag;
		}
	}
	t->used++;
	if (w->shift > 12)
		note_large(upper ? &c->upper_large : &c->asid->large, la, w->shift);
	if (upper && !w->global)
		note_nonglobal(c, (u16)(mode << TLB_BITS | slot));
	if (!upper && w->global)
		c->lower_global = true;
}

/* --- the second level --- */

static struct tlb2 *tlb2_slot(const struct soft_cpu *c, gva_t la, enum tlb_mode mode)
{
	return &c->tlb2[(la >> 12 ^ (u64)mode << (TLB2_BITS - 2)) & ((1u << TLB2_BITS) - 1)];
}

static void tlb2_insert(struct soft_cpu *c, gva_t la, enum tlb_mode mode, const struct walk *w)
{
	*tlb2_slot(c, la, mode) = (struct tlb2){
		.key = (la & ~PAGE_MASK) | mode,
		.gpa = w->gpa & ~PAGE_MASK,
		.gen = w->global ? c->gen_global : c->asid->gen,
		.rights = w->rights,
		.shift = w->shift,
		.dirty = w->dirty,
		.global = w->global,
	};
}

static bool tlb2_find(const struct soft_cpu *c, gva_t la, enum tlb_mode mode, unsigned acc, struct walk *ret)
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

static u32 new_generation(struct soft_cpu *c)
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
static void tlb2_drop(struct soft_cpu *c, gva_t la)
{
	for (unsigned m = 0; m < TLB_NR_MODES; m++) {
		struct tlb2 *e = tlb2_slot(c, la, m);

		if ((e->key ^ la) <= PAGE_MASK)
			e->gen = 0;
	}
}

/* --- invalidation --- */

void mmu_select(struct soft_cpu *c)
{
	u64 role = (c->cr0 & (CR0_PG | CR0_WP)) | (c->efer & (EFER_NXE | EFER_LMA)) |
		   (c->cr4 & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)) << 32;
	if (unlikely(role != c->tlb_role)) {
		c->tlb_role = role;
		mmu_flush_all(c);
	}
	enum tlb_mode mode = current_mode(c);
	/* Alignment checks are the slow path's [SDM3 6.15, interrupt 17]: then no access may take the fast one. */
	c->align_checks = c->cpl == 3 && c->cr0 & CR0_AM && c->flags & FL_AC;
	if (unlikely(c->align_checks)) {
		c->tlb[0] = c->tlb[1] = c->no_tlb;
		return;
	}
	c->tlb[0] = &c->asid->half[mode];
	c->tlb[1] = &c->upper[mode];
}

static void lower_flush(struct soft_cpu *c)
{
	for (unsigned k = 0; k < TLB_NR_ASIDS; k++) {
		if (&c->asids[k] != c->asid)
			c->asids[k].valid = false;
		c->asids[k].gen = new_generation(c);
	}
	c->asid->pcid = current_pcid(c);
	tables_flush(c->asid->half, &c->asid->large);
	c->lower_global = false;
	c->nr_flushes++;
}

void mmu_flush_all(struct soft_cpu *c)
{
	lower_flush(c);
	upper_flush_all(c);
	c->gen_global = new_generation(c);
}

void mmu_flush_nonglobal(struct soft_cpu *c)
{
	lower_flush(c);
	upper_flush_nonglobal(c);
}

static struct tlb_asid *asid_find(struct soft_cpu *c, u16 pcid)
{
	for (unsigned k = 0; k < TLB_NR_ASIDS; k++)
		if (c->asids[k].valid && c->asids[k].pcid == pcid)
			return &c->asids[k];
	return NULL;
}

void mmu_set_cr3(struct soft_cpu *c, u64 cr3)
{
	u16 old = c->asid->pcid;
	c->cr3 = cr3 & ~CR3_NOFLUSH;
	u16 pcid = current_pcid(c);
	bool keep = c->cr4 & CR4_PCIDE && cr3 & CR3_NOFLUSH;

	struct tlb_asid *a = asid_find(c, pcid);
	if (!a) {
		a = &c->asids[0];
		for (unsigned k = 0; k < TLB_NR_ASIDS && a->valid; k++)
			if (!c->asids[k].valid || c->asids[k].last_used < a->last_used)
				a = &c->asids[k];
		a->pcid = pcid;
		a->valid = true;
		keep = false; /* so it gets a new generation, too */
	}
	if (!keep) {
		tables_flush(a->half, &a->large);
		a->gen = new_generation(c);
		c->nr_flushes++;
	}
	if (!keep || pcid != old)
		upper_flush_nonglobal(c);
	a->last_used = ++c->tlb_clock;
	c->asid = a;
	mmu_select(c);
}

static void drop_large(struct tlb_table tables[TLB_NR_MODES], gva_t la, unsigned shift)
{
	unsigned n = shift == 21 ? TLB_SIZE / 2 : TLB_SIZE;
	unsigned first = shift == 21 ? la >> 12 & (TLB_SIZE / 2) : 0;
	for (unsigned m = 0; m < TLB_NR_MODES; m++) {
		for (unsigned k = 0; tables[m].used && k < n; k++) {
			struct tlb_entry *e = &tables[m].e[first + k];
			u64 tag = e->r != TLB_NEVER ? e->r : e->w != TLB_NEVER ? e->w : e->x;
			if (tag != TLB_NEVER && tag >> shift == la >> shift)
				entry_clear(e);
		}
	}
}

/* The second level has the pieces of a large page all over: it is given up as a whole. */
static void forget_large(struct soft_cpu *c)
{
	for (unsigned k = 0; k < TLB_NR_ASIDS; k++)
		c->asids[k].gen = new_generation(c);
	c->gen_global = new_generation(c);
}

static void drop_page(struct soft_cpu *c, struct tlb_table tables[TLB_NR_MODES], struct tlb_large *large,
		      gva_t la)
{
	gva_t tag = la & ~PAGE_MASK;
	for (unsigned m = 0; m < TLB_NR_MODES; m++) {
		struct tlb_entry *e = &tables[m].e[la >> 12 & (TLB_SIZE - 1)];
		if (e->r == tag || e->w == tag || e->x == tag)
			entry_clear(e);
	}
	tlb2_drop(c, la);
	if (unlikely(large->nr > TLB_MAX_LARGE)) {
		drop_large(tables, la, 30);
		forget_large(c);
		return;
	}
	for (unsigned k = 0; k < large->nr;) {
		unsigned shift = large->page[k] & 63;
		if ((large->page[k] ^ la) >> shift) {
			k++;
			continue;
		}
		drop_large(tables, la, shift);
		forget_large(c);
		large->page[k] = large->page[--large->nr];
	}
}

void mmu_invlpg(struct soft_cpu *c, gva_t la)
{
	if (la >> 63) {
		drop_page(c, c->upper, &c->upper_large, la);
		return;
	}
	if (!c->lower_global) {
		drop_page(c, c->asid->half, &c->asid->large, la);
		return;
	}
	for (unsigned k = 0; k < TLB_NR_ASIDS; k++)
		if (c->asids[k].valid)
			drop_page(c, c->asids[k].half, &c->asids[k].large, la);
}

void mmu_invpcid(struct soft_cpu *c, unsigned type, u16 pcid, gva_t la)
{
	struct tlb_asid *a = asid_find(c, pcid);
	switch (type) {
	case 0: /* one address; global entries may go too [SDM2 INVPCID] */
		tlb2_drop(c, la);
		if (la >> 63) {
			if (a == c->asid)
				drop_page(c, c->upper, &c->upper_large, la);
		} else if (a) {
			drop_page(c, a->half, &a->large, la);
		}
		break;
	case 1: /* one PCID */
		if (a == c->asid) {
			tables_flush(a->half, &a->large);
			upper_flush_nonglobal(c);
			a->gen = new_generation(c);
		} else if (a) {
			a->valid = false;
		}
		c->nr_flushes++;
		break;
	case 2: mmu_flush_all(c); break;
	default: mmu_flush_nonglobal(c); break;
	}
}

bool mmu_load_pdptes(struct soft_cpu *c, u64 cr3)
{
	u64 v[4];
	for (unsigned k = 0; k < 4; k++) {
		const void *p = ram_ptr(c->ram, (cr3 & 0xffffffe0) + 8 * k, 8);
		v[k] = p ? __atomic_load_n((const u64 *)p, __ATOMIC_RELAXED) : ~0ull;
		/* [SDM3 table 4-8] */
		if (v[k] & PTE_P && v[k] & (c->maxphy_mask | 0xfff00000000001e6ull))
			return false;
	}
	for (unsigned k = 0; k < 4; k++)
		c->pdpte[k] = v[k];
	return true;
}

/* --- translation for an access --- */

/* PUSH, POP, CALL, RET, ENTER, LEAVE and the like. */
static bool is_stack_op(const struct insn *i)
{
	u8 op = i->opcode;
	if (i->map == 1)
		return op == 0xa0 || op == 0xa1 || op == 0xa8 || op == 0xa9;
	if (i->map != 0)
		return false;
	return (op >= 0x50 && op <= 0x5f) || op == 0x68 || op == 0x6a || op == 0x8f || op == 0x9c ||
	       op == 0x9d || op == 0xc2 || op == 0xc3 || (op >= 0xc8 && op <= 0xcb) || op == 0xcf ||
	       op == 0xe8 ||
	       (op == 0xff && (i->modrm & 0x38) >= 0x10 && (i->modrm & 0x38) != 0x20 &&
		(i->modrm & 0x38) != 0x28);
}

/* Does the access of la go through SS? In 64-bit mode SS has no base and may be decoded as SEG_FLAT. */
static bool uses_ss(const struct soft_cpu *c, const struct insn *i, gva_t la)
{
	if (!i)
		return false;
	if (is_stack_op(i) && (!i->mem || la - c->gpr[R_SP] + 16 < 32))
		return true;
	return i->seg == SEG_SS || (i->seg == SEG_FLAT && i->mem && (i->base == R_SP || i->base == R_BP));
}

/* Whether addresses are 32 bits wide: outside 64-bit mode; for the processor's own accesses outside IA-32e mode. */
static bool is_narrow(const struct soft_cpu *c, bool implicit)
{
	return implicit ? !soft_long(c) : !soft_mode64(c);
}

static bool is_canonical(gva_t la)
{
	return (u64)((s64)(la << 16) >> 16) == la;
}

static gva_t check_linear(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len, bool narrow)
{
	if (narrow)
		return (u32)la;
	if (unlikely(!is_canonical(la) || !is_canonical(la + len - 1)))
		soft_raise(c, i, uses_ss(c, i, la) ? EXC_SS : EXC_GP, 0);
	return la;
}

/* The address after la + n, where an access goes on in the next page. */
static gva_t next_page(gva_t la, unsigned n, bool narrow)
{
	return narrow ? (u32)(la + n) : la + n;
}

static void translate(struct soft_cpu *c, const struct insn *i, gva_t la, enum tlb_mode mode, unsigned acc,
		      struct place *ret)
{
	const struct tlb_table *t = la >> 63 ? &c->upper[mode] : &c->asid->half[mode];
	const struct tlb_entry *e = &t->e[la >> 12 & (TLB_SIZE - 1)];
	if ((acc & ACC_X ? e->x : acc & ACC_W ? e->w : e->r) == (la & ~PAGE_MASK)) {
		ret->host = (u8 *)(la + e->addend);
		ret->gpa = (gpa_t)(ret->host - c->ram->base);
		ret->rom = false; /* reads do not ask */
		return;
	}
	struct walk w;
	c->nr_misses++;
	if (!tlb2_find(c, la, mode, acc, &w)) {
		c->nr_walks++;
		if (unlikely(!walk_page(c, la, mode, acc, &w))) {
			c->cr2 = la;
			soft_raise(c, i, EXC_PF, w.error);
		}
		tlb2_insert(c, la, mode, &w);
	}
	fill(c, la, mode, &w, ret);
}

/* Translates [la, la + len), len 1..4096, into one or two places; returns the bytes in the first. */
static unsigned translate_range(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len,
				unsigned acc, bool implicit, struct place ret[2])
{
	bool narrow = is_narrow(c, implicit);
	enum tlb_mode mode = implicit ? implicit_mode(c) : current_mode(c);
	la = check_linear(c, i, la, len, narrow);
	if (unlikely(c->align_checks) && !implicit && len <= 16 && bits_is_pow2(len) && la & (len - 1))
		soft_raise(c, i, EXC_AC, 0);
	unsigned n = MIN(len, (unsigned)(RAM_PAGE_SIZE - (la & PAGE_MASK)));
	translate(c, i, la, mode, acc, &ret[0]);
	if (n < len)
		translate(c, i, next_page(la, n, narrow), mode, acc, &ret[1]);
	return n;
}

/* --- the access itself --- */

static u64 bus_load(struct soft_cpu *c, gpa_t gpa, unsigned size)
{
	struct vm_exit exit = { .reason = EXIT_EPT_VIOLATION, .size = (u8)size, .addr = gpa };
	soft_exit(c, &exit);
	return exit.data & bits_mask(size);
}

static void bus_store(struct soft_cpu *c, gpa_t gpa, unsigned size, u64 val)
{
	struct vm_exit exit = { .reason = EXIT_EPT_VIOLATION,
				.write = true,
				.size = (u8)size,
				.addr = gpa,
				.data = val & bits_mask(size) };
	soft_exit(c, &exit);
}

/* size 1, 2, 4, 8, within a page; to RAM one access. */
static u64 load_unit(struct soft_cpu *c, const struct place *p, unsigned offset, unsigned size)
{
	if (unlikely(!p->host))
		return bus_load(c, p->gpa + offset, size);
	const u8 *h = p->host + offset;
	switch (size) {
	case 1: return *(const volatile u8 *)h;
	case 2: return *(const volatile any_u16 *)h;
	case 4: return *(const volatile any_u32 *)h;
	default: return *(const volatile any_u64 *)h;
	}
}

/* Without looking whether code was hit. */
static void store_unit(struct soft_cpu *c, const struct place *p, unsigned offset, unsigned size, u64 val)
{
	if (unlikely(!p->host)) {
		bus_store(c, p->gpa + offset, size, val);
		return;
	}
	u8 *h = p->host + offset;
	switch (size) {
	case 1: *(volatile u8 *)h = (u8)val; break;
	case 2: *(volatile any_u16 *)h = (u16)val; break;
	case 4: *(volatile any_u32 *)h = (u32)val; break;
	default: *(volatile any_u64 *)h = val; break;
	}
}

/* The largest unit for n bytes at gpa: all of them when that is a size an access can have, else what is aligned. */
static unsigned unit_size(gpa_t gpa, unsigned n)
{
	if (n <= 8 && bits_is_pow2(n))
		return n;
	unsigned u = 8;
	while (u > n || gpa & (u - 1))
		u /= 2;
	return u;
}

/* len bytes of one place, at most 4096. */
static void load_bytes(struct soft_cpu *c, const struct place *p, u8 *buf, unsigned len)
{
	for (unsigned k = 0, u; k < len; k += u) {
		u = unit_size(p->gpa + k, len - k);
		u64 v = load_unit(c, p, k, u);
		for (unsigned b = 0; b < u; b++)
			buf[k + b] = (u8)(v >> (8 * b));
	}
}

static void store_bytes(struct soft_cpu *c, const struct place *p, const u8 *buf, unsigned len)
{
	if (p->host && p->rom)
		return;
	for (unsigned k = 0, u; k < len; k += u) {
		u = unit_size(p->gpa + k, len - k);
		u64 v = 0;
		for (unsigned b = 0; b < u; b++)
			v |= (u64)buf[k + b] << (8 * b);
		store_unit(c, p, k, u, v);
	}
	if (p->host)
		walk_code_written(c, p->gpa, len);
}

static void check_breakpoints(struct soft_cpu *c, gva_t la, unsigned len, bool write)
{
	if (likely(!(c->dr7 & 0xff)))
		return;
	u64 hit = excp_data_breakpoint(c, la, len, write);
	if (hit) {
		c->dr6 |= hit;
		c->attention |= ATT_DB;
	}
}

static u64 load(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, unsigned acc,
		bool implicit)
{
	struct place p[2];
	unsigned n = translate_range(c, i, la, size, acc, implicit, p);
	u64 v = 0;
	if (likely(n == size && bits_is_pow2(size))) {
		v = load_unit(c, &p[0], 0, size);
	} else {
		u8 bytes[8] = { 0 };
		load_bytes(c, &p[0], bytes, n);
		if (n < size)
			load_bytes(c, &p[1], bytes + n, size - n);
		for (unsigned k = 0; k < size; k++)
			v |= (u64)bytes[k] << (8 * k);
	}
	if (!implicit)
		check_breakpoints(c, la, size, false);
	return v;
}

static void store(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, u64 val, bool implicit)
{
	struct place p[2];
	unsigned n = translate_range(c, i, la, size, ACC_W, implicit, p);
	if (likely(n == size && bits_is_pow2(size))) {
		if (!p[0].rom)
			store_unit(c, &p[0], 0, size, val);
		if (p[0].host)
			walk_code_written(c, p[0].gpa, size);
	} else {
		u8 bytes[8] = { 0 };
		for (unsigned k = 0; k < size; k++)
			bytes[k] = (u8)(val >> (8 * k));
		store_bytes(c, &p[0], bytes, n);
		if (n < size)
			store_bytes(c, &p[1], bytes + n, size - n);
	}
	if (!implicit)
		check_breakpoints(c, la, size, true);
}

u64 mmu_load(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, unsigned acc)
{
	return load(c, i, la, size, acc, false);
}

void mmu_store(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, u64 val)
{
	store(c, i, la, size, val, false);
}

void *mmu_atomic(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, gpa_t *ret_gpa)
{
	struct place p[2];
	if (translate_range(c, i, la, size, ACC_R | ACC_W, false, p) < size || !p[0].host || p[0].rom)
		return NULL;
	*ret_gpa = p[0].gpa;
	check_breakpoints(c, la, size, true);
	return p[0].host;
}

void mmu_atomic_done(struct soft_cpu *c, gpa_t gpa, unsigned size)
{
	walk_code_written(c, gpa, size);
}

void mmu_probe(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len, unsigned acc)
{
	struct place p[2];
	if (len)
		translate_range(c, i, la, len, acc, false, p);
}

u64 mmu_sys_load(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size)
{
	return load(c, i, la, size, ACC_R, true);
}

void mmu_sys_store(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, u64 val)
{
	store(c, i, la, size, val, true);
}

void mmu_sys_probe(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len, unsigned acc)
{
	struct place p[2];
	if (len)
		translate_range(c, i, la, len, acc, true, p);
}

void mmu_read_buf(struct soft_cpu *c, const struct insn *i, gva_t la, void *buf, unsigned len)
{
	struct place p[2];
	if (!len)
		return;
	unsigned n = translate_range(c, i, la, len, ACC_R, false, p);
	load_bytes(c, &p[0], buf, n);
	if (n < len)
		load_bytes(c, &p[1], (u8 *)buf + n, len - n);
	check_breakpoints(c, la, len, false);
}

void mmu_write_buf(struct soft_cpu *c, const struct insn *i, gva_t la, const void *buf, unsigned len)
{
	struct place p[2];
	if (!len)
		return;
	unsigned n = translate_range(c, i, la, len, ACC_W, false, p);
	store_bytes(c, &p[0], buf, n);
	if (n < len)
		store_bytes(c, &p[1], (const u8 *)buf + n, len - n);
	check_breakpoints(c, la, len, true);
}

const u8 *mmu_fetch(struct soft_cpu *c, gva_t la)
{
	struct place p;
	la = check_linear(c, NULL, la, 1, is_narrow(c, false));
	translate(c, NULL, la, current_mode(c), ACC_X, &p);
	return p.host;
}

bool mmu_peek(struct soft_cpu *c, gva_t la, void *buf, unsigned len)
{
	for (unsigned k = 0; k < len; k++) {
		struct walk w;
		gva_t a = is_narrow(c, true) ? (u32)(la + k) : la + k;
		const u8 *p;
		if (!is_canonical(a) || !walk_page(c, a, TLB_SUP_AC, 0, &w) ||
		    !(p = ram_ptr(c->ram, w.gpa, 1)))
			return false;
		((u8 *)buf)[k] = *p;
	}
	return true;
}
