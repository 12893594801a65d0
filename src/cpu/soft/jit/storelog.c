/* Stores to RAM, noted so that they can be taken back.
 *
 * mmu.c reports each store while soft_cpu.log is set. Of the places stored to, and some bytes around them,
 * the state afterwards is kept by page, so that whoever does the same again can be compared, stray stores
 * nearby included.
 *
 * On the vCPU's thread; compiled with general registers only. */
#include "cpu/soft/jit/storelog.h"

void storelog_clear(struct storelog *l)
{
	l->nr_stores = l->nr_pages = 0;
	l->full = false;
}

static void add_page(struct storelog *l, u8 *host, unsigned size)
{
	u8 *base = (u8 *)((u64)(uintptr_t)host & ~(RAM_PAGE_SIZE - 1));
	u16 lo = (u16)(host - base), hi = (u16)(lo + size);
	struct storelog_page *p = l->page + l->nr_pages;

	while (p > l->page)
		if ((--p)->host == base) {
			p->lo = MIN(p->lo, lo);
			p->hi = MAX(p->hi, hi);
			return;
		}
	if (l->nr_pages == STORELOG_PAGES) {
		l->full = true;
		return;
	}
	p = &l->page[l->nr_pages++];
	p->host = base;
	p->lo = lo;
	p->hi = hi;
}

void storelog_add(struct storelog *l, u8 *host, unsigned size)
{
	add_page(l, host, size);
	for (unsigned k = 0, n; k < size; k += n) {
		struct storelog_store *s = &l->store[l->nr_stores];

		n = MIN(size - k, 8u);
		if (l->nr_stores == STORELOG_STORES) {
			l->full = true;
			return;
		}
		s->host = host + k;
		s->size = (u8)n;
		for (unsigned b = 0; b < n; b++)
			s->old[b] = host[k + b];
		l->nr_stores++;
	}
}

void storelog_keep(struct storelog *l, unsigned margin)
{
	for (u32 k = 0; k < l->nr_pages; k++) {
		struct storelog_page *p = &l->page[k];

		p->lo = p->lo < margin ? 0 : (u16)((p->lo - margin) & ~7u);
		p->hi = p->hi + margin > RAM_PAGE_SIZE ? (u16)RAM_PAGE_SIZE
						       : (u16)ALIGN_UP(p->hi + margin, 8u);
		soft_copy(p->after + p->lo, p->host + p->lo, (u64)(p->hi - p->lo));
	}
}

void storelog_undo(struct storelog *l)
{
	for (u32 k = l->nr_stores; k-- > 0;)
		soft_copy(l->store[k].host, l->store[k].old, l->store[k].size);
}

void storelog_redo(struct storelog *l)
{
	for (u32 k = 0; k < l->nr_pages; k++) {
		struct storelog_page *p = &l->page[k];

		soft_copy(p->host + p->lo, p->after + p->lo, (u64)(p->hi - p->lo));
	}
}

bool storelog_same(const struct storelog *l)
{
	for (u32 k = 0; k < l->nr_pages; k++) {
		const struct storelog_page *p = &l->page[k];

		for (unsigned at = p->lo; at < p->hi; at += 8)
			if (ld64(p->host + at) != ld64(p->after + at))
				return false;
	}
	return true;
}

void storelog_copy(const struct storelog *from, struct storelog *to)
{
	storelog_clear(to);
	for (u32 k = 0; k < from->nr_pages; k++) {
		const struct storelog_page *p = &from->page[k];
		struct storelog_page *q = &to->page[to->nr_pages++];

		q->host = p->host;
		q->lo = p->lo;
		q->hi = p->hi;
		soft_copy(q->after + q->lo, q->host + q->lo, (u64)(q->hi - q->lo));
	}
}

void storelog_before(const struct storelog *l, const struct storelog_page *p, u8 ret[RAM_PAGE_SIZE])
{
	soft_copy(ret, p->after, RAM_PAGE_SIZE);
	for (u32 k = l->nr_stores; k-- > 0;) {
		u64 at = (u64)(l->store[k].host - p->host);

		if (at < RAM_PAGE_SIZE)
			soft_copy(ret + at, l->store[k].old, l->store[k].size);
	}
}
