/* The cache of decoded blocks; see code.h, and share.h for how vCPUs share it.
 *
 * Self-modifying code: ram->code_map has a bit for every 64-byte granule from which something was
 * decoded, and a page with any bit set has no writable TLB entry in any vCPU, so every store there comes to
 * mmu_store(), which calls code_invalidate() when its granules are marked. That drops just the blocks
 * that overlap the bytes written. If the block being executed is among them, its instructions are
 * replaced by op_stop: the storing instruction completes and what follows is fetched anew, as the
 * processor guarantees for a store by itself [SDM3 8.1.3].
 *
 * A page gets its first bit while one vCPU is alone, which takes the writable entries from the TLBs of all; its
 * further bits under the lock, and before bytes are read. Who writes there writes first and then looks, with a
 * barrier between the two, so it sees the mark, or the decoder has read the new bytes. The last block gone, under the
 * lock, the bits are cleared.
 *
 * Restless pages have no bits, and none is cleared there. A page becomes restless while one vCPU is alone: nobody is in a
 * block of it that would not notice a store.
 *
 * On the vCPU's own thread, but for code_written().
 */
#include "cpu/soft/code.h"

#include "cpu/soft/decode.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/ops.h"
#include "cpu/soft/ops_int.h"
#include "cpu/soft/thunk.h"

#define ARENA_ALIGN 16

/* A page is restless that gets stores of this weight within one tick. More than it takes to write all of a page anew,
 * byte by byte: that is no reason, afterwards its code is gone. */
#define RESTLESS      6000
#define WEIGHT_STORE  1
#define WEIGHT_CODE   128 /* its code is executed again after it was written to */
#define TICK_SHIFT    24  /* of the TSC: some milliseconds */
#define FIRST_ENTRIES 4096
#define MAX_DOUBLINGS 10
#define FIRST_MOST    64

static u64 granule_mask(gpa_t gpa, u64 len)
{
	unsigned first = gpa >> 6 & 63, last = (gpa + len - 1) >> 6 & 63;

	return (~0ull << first) & (~0ull >> (63 - last));
}

/* --- marks --- */
/* The page gets its first mark. */
static void protect(struct soft_cpu *c, gpa_t gpa, u64 len)
{
	struct soft_vm *s = c->svm;

	share_alone(c);
	atomic_fetch_or(&c->ram->code_map[gpa / RAM_PAGE_SIZE], granule_mask(gpa, len));
	for (u32 k = 0; k < s->vm->nr_vcpus; k++)
		if (share_cpu(s, k))
			mmu_write_protect(share_cpu(s, k), gpa & ~(RAM_PAGE_SIZE - 1));
	share_together(c);
}

/* False: it would be the first of the page. */
static bool mark(struct code_cache *code, gpa_t gpa, u64 len)
{
	u64 mask = granule_mask(gpa, len);
	_Atomic u64 *word = &code->ram->code_map[gpa / RAM_PAGE_SIZE];
	u64 now = atomic_load(word);

	if (!now)
		return false;
	if ((now & mask) != mask)
		atomic_fetch_or(word, mask);
	return true;
}

static void unmark(struct code_cache *code, u64 pfn)
{
	if (atomic_load_explicit(&code->ram->code_map[pfn], memory_order_relaxed))
		atomic_store(&code->ram->code_map[pfn], 0);
}

/* --- lists --- */
static struct block *page_first(const struct code_cache *code, u64 pfn)
{
	u32 head = code->page_head[pfn];

	return head ? (struct block *)(code->arena + (u64)(head - 1) * 8) : NULL;
}

static void page_set_first(struct code_cache *code, u64 pfn, const struct block *b)
{
	code->page_head[pfn] = b ? (u32)(((const u8 *)b - code->arena) / 8 + 1) : 0;
}

static gpa_t block_gpa(const struct code_cache *code, const struct block *b)
{
	return (gpa_t)(b->hva - (u64)code->ram->base);
}

static void set_first(struct code_cache *code, u64 hva, struct block *b)
{
	__atomic_store_n(&code->hash[code_hash(hva)], b, __ATOMIC_RELEASE);
}

static void hash_remove(struct code_cache *code, const struct block *b)
{
	struct block *prev = code_first(code, b->hva);

	if (prev == b) {
		set_first(code, b->hva, b->hash_next);
		return;
	}
	while (prev->hash_next != b)
		prev = prev->hash_next;
	prev->hash_next = b->hash_next;
}

/* Found, it becomes the first: without the lock only that one is looked at. */
static struct block *lookup(struct code_cache *code, u64 hva, u32 key)
{
	struct block *b = code_first(code, hva);

	while (b && (b->hva != hva || b->key != key))
		b = b->hash_next;
	if (b && b != code_first(code, hva)) {
		hash_remove(code, b);
		b->hash_next = code_first(code, hva);
		set_first(code, hva, b);
	}
	return b;
}

/* Drops b, which is out of its page's list, on behalf of c (NULL: of no vCPU in a block). */
static void drop(struct soft_vm *s, struct soft_cpu *c, struct block *b)
{
	hash_remove(s->code, b);
	__atomic_store_n(&b->hva, 0, __ATOMIC_RELAXED);
	jit_drop(s, b);
	if (c && b == c->cur) {
		c->jit_stop = 1;
		for (unsigned k = 0; k <= b->n; k++)
			__atomic_store_n(&b->insn[k].fn, op_stop, __ATOMIC_RELAXED);
	}
}

/* --- regions --- */
static u8 *region_start(const struct code_cache *code, u32 region)
{
	return code->arena + region * CODE_REGION;
}

static u64 block_size(struct block *b)
{
	u64 size = sizeof(*b) + (b->n + 1u) * sizeof(struct insn);

	if (code_checks(b))
		size += sizeof(struct code_source) + b->bytes;
	return ALIGN_UP(size, (u64)ARENA_ALIGN);
}

static bool has_room(const struct code_cache *code)
{
	return CODE_REGION - code->used[code->region] >=
	       sizeof(struct block) + (CODE_MAX_INSNS + 1) * sizeof(struct insn) +
		       sizeof(struct code_source) + CODE_MAX_INSNS * 15 + ARENA_ALIGN;
}

/* Where the next block goes. */
static struct block *free_block(const struct code_cache *code)
{
	return (struct block *)(region_start(code, code->region) + code->used[code->region]);
}

/* The block at free_block(), complete, is there for all. */
static void insert(struct code_cache *code, struct block *b)
{
	if (!code_crosses(b)) {
		u64 pfn = block_gpa(code, b) / RAM_PAGE_SIZE;

		b->page_next = page_first(code, pfn);
		page_set_first(code, pfn, b);
		code->page[pfn].nr++;
	}
	code->used[code->region] += block_size(b);
	code->nr_blocks++;
	b->hash_next = code_first(code, b->hva);
	set_first(code, b->hva, b);
}

static void page_remove(struct code_cache *code, struct block *b)
{
	u64 pfn = block_gpa(code, b) / RAM_PAGE_SIZE;
	struct block *first = page_first(code, pfn), **link = &first;

	while (*link && *link != b)
		link = &(*link)->page_next;
	if (*link)
		*link = b->page_next;
	page_set_first(code, pfn, first);
	code->page[pfn].nr--;
	if (!first)
		unmark(code, pfn);
}

/* What points to b points to its new place from now on. */
static void move(struct code_cache *code, struct block *b, struct block *to)
{
	struct block *prev = code_first(code, b->hva);
	u64 pfn = block_gpa(code, b) / RAM_PAGE_SIZE;

	if (b == to)
		return;
	if (prev == b) {
		set_first(code, b->hva, to);
	} else {
		while (prev->hash_next != b)
			prev = prev->hash_next;
		prev->hash_next = to;
	}
	if (!code_crosses(b)) {
		struct block *first = page_first(code, pfn);

		if (first == b) {
			page_set_first(code, pfn, to);
		} else {
			while (first->page_next != b)
				first = first->page_next;
			first->page_next = to;
		}
	}
	jit_moved(b->x, to);
	soft_copy(to, b, block_size(b)); /* downward: may overlap */
}

/* No vCPU is in a block. */
static void forget_current(const struct soft_vm *s)
{
	for (u32 k = 0; k < s->vm->nr_vcpus; k++)
		if (share_cpu(s, k))
			share_cpu(s, k)->cur = NULL;
}

/* Blocks go to the next region from now on. What it held is given up, but for what is so warm that it is
 * translated, unless that leaves too little room. */
static void next_region(struct soft_vm *s)
{
	struct code_cache *code = s->code;
	u32 r = code->region = (code->region + 1) % CODE_REGIONS;
	u8 *start = region_start(code, r);
	u64 kept = 0, size;

	if (code->used[r])
		code->nr_evicted++;
	for (u64 pos = 0; pos < code->used[r]; pos += size) {
		struct block *b = (struct block *)(start + pos);

		size = block_size(b);
		if (!b->hva)
			continue;
		if (b->x && kept + size <= CODE_REGION / 2) {
			move(code, b, (struct block *)(start + kept));
			kept += size;
		} else {
			if (!code_crosses(b))
				page_remove(code, b);
			drop(s, NULL, b);
		}
	}
	code->used[r] = kept;
}

static void make_room(struct soft_cpu *c)
{
	struct soft_vm *s = c->svm;

	share_alone(c);
	share_lock(s);            /* not all who change the cache are vCPUs */
	if (!has_room(s->code)) { /* another one may have made room meanwhile */
		forget_current(s);
		next_region(s);
	}
	share_unlock(s);
	share_together(c);
}

/* Everything, and the thunks with it, whose arena is full. */
static void flush(struct soft_cpu *c)
{
	struct soft_vm *s = c->svm;
	struct code_cache *code = s->code;

	share_alone(c);
	share_lock(s);
	forget_current(s);
	for (u32 r = 0; r < CODE_REGIONS; r++) {
		for (u64 pos = 0; pos < code->used[r];) {
			struct block *b = (struct block *)(region_start(code, r) + pos);

			if (b->hva && !code_crosses(b)) {
				u64 pfn = block_gpa(code, b) / RAM_PAGE_SIZE;

				code->page_head[pfn] = 0;
				code->page[pfn].nr = 0;
				unmark(code, pfn);
			}
			pos += block_size(b);
		}
		code->used[r] = 0;
	}
	soft_zero(code->hash, sizeof(code->hash[0]) << CODE_HASH_BITS);
	for (u32 k = 0; k < s->vm->nr_vcpus; k++)
		for (u32 n = 0; share_cpu(s, k) && n < 1u << CODE_TEMP_BITS; n++)
			share_cpu(s, k)->temp[n].len = 0;
	code->nr_flushes++;
	jit_flush(s);
	thunk_reset(s->thunks);
	share_refetch(s);
	share_unlock(s);
	share_together(c);
}

u32 code_insns_from(const struct block *b, const struct insn *i)
{
	return b ? (u32)(&b->insn[b->n] - i) : 0;
}

/* --- restless pages --- */
/* Some of them may be changing. */
static bool same_bytes(const u8 *a, const u8 *b, unsigned from, unsigned to)
{
	for (unsigned k = from; k < to; k++)
		if (a[k] != ((const volatile u8 *)b)[k])
			return false;
	return true;
}

static void copy_bytes(u8 *to, const u8 *from, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		to[k] = ((const volatile u8 *)from)[k];
}

static struct code_page *page_of(const struct code_cache *code, const struct block *b)
{
	return &code->page[block_gpa(code, b) / RAM_PAGE_SIZE];
}

static u32 entries(const struct code_page *p)
{
	return FIRST_ENTRIES << MIN(p->times, (u8)MAX_DOUBLINGS);
}

u32 code_entries(const struct code_cache *code, const struct block *b)
{
	return entries(page_of(code, b));
}

/* A store to a tracked page. Others count, too: about. */
static void weigh(struct soft_cpu *c, u64 pfn, unsigned weight)
{
	struct code_page *p = &c->code->page[pfn];
	u8 tick = (u8)(vcpu_rdtsc() >> TICK_SHIFT);

	if (__atomic_load_n(&p->tick, __ATOMIC_RELAXED) == tick)
		weight += __atomic_load_n(&p->weight, __ATOMIC_RELAXED);
	__atomic_store_n(&p->tick, tick, __ATOMIC_RELAXED);
	__atomic_store_n(&p->weight, (u16)weight, __ATOMIC_RELAXED);
	if (weight >= RESTLESS && !c->restless) {
		c->restless = pfn + 1;
		soft_recall(c);
	}
}

void code_beside(struct soft_cpu *c, gpa_t gpa)
{
	weigh(c, gpa / RAM_PAGE_SIZE, WEIGHT_STORE);
}

static void drop_page(struct soft_vm *s, u64 pfn)
{
	struct block *b;

	while ((b = page_first(s->code, pfn))) {
		page_remove(s->code, b);
		drop(s, NULL, b);
	}
	unmark(s->code, pfn);
}

void code_settle(struct soft_cpu *c)
{
	struct soft_vm *s = c->svm;
	u64 pfn = c->restless - 1;
	struct code_page *p = &s->code->page[pfn];

	c->restless = 0;
	share_alone(c);
	share_lock(s);
	if (!p->restless) {
		drop_page(s, pfn);
		p->restless = true;
		p->weight = 0;
		p->dropped = false;
		p->left = entries(p);
		p->most = FIRST_MOST;
		s->code->nr_restless++;
	}
	share_unlock(s);
	share_together(c);
}

static void calm(struct soft_vm *s, u64 pfn)
{
	struct code_page *p = &s->code->page[pfn];

	drop_page(s, pfn);
	p->restless = false;
	if (p->times < MAX_DOUBLINGS)
		p->times++;
	s->code->nr_calm++;
}

static void changed(struct soft_vm *s, struct block *b)
{
	struct code_page *p = page_of(s->code, b);

	p->left = entries(p);
	page_remove(s->code, b);
	drop(s, NULL, b);
	s->code->nr_changed++;
}

/* What has changed and is not executed again would stay for ever. */
static void sweep(struct soft_vm *s, struct code_page *p, u64 pfn)
{
	struct block *next;

	for (struct block *b = page_first(s->code, pfn); b; b = next) {
		next = b->page_next;
		if (!same_bytes(code_source(b)->byte, (const u8 *)b->hva, 0, b->bytes)) {
			page_remove(s->code, b);
			drop(s, NULL, b);
			s->code->nr_changed++;
		}
	}
	p->most = (u16)MIN(MAX(FIRST_MOST, 2 * p->nr), 0xffff);
}

void code_changed(struct soft_cpu *c, struct block *b)
{
	share_lock(c->svm);
	if (b->hva)
		changed(c->svm, b);
	share_unlock(c->svm);
}

void code_quiet(struct soft_cpu *c, struct block *b)
{
	share_lock(c->svm);
	if (b->hva)
		calm(c->svm, block_gpa(c->code, b) / RAM_PAGE_SIZE);
	share_unlock(c->svm);
}

/* --- building --- */
static void finish(struct block *b, unsigned n, unsigned bytes)
{
	struct insn *end = &b->insn[n];

	soft_zero(end, sizeof(*end));
	end->fn = op_end_of_block;
	end->off = (u16)bytes;
	b->n = (u16)n;
	b->bytes = (u16)bytes;
	b->x = NULL;
	b->no_groups = b->tried = b->extend = false;
	b->inner = 0;
	b->no_window = 0;
}

/* Puts what cannot be decoded in place of an instruction. */
static void set_fault(struct insn *i, enum decode_result result, unsigned off)
{
	soft_zero(i, sizeof(*i));
	i->fn = result == DECODE_GP ? op_gp0 : op_ud;
	i->off = (u16)off;
	i->len = 1;
	i->base = i->index = RZERO;
	i->seg = SEG_FLAT;
}

/* Completes a decoded instruction; false: no room for its thunk. */
static bool place(struct soft_vm *s, struct insn *i, unsigned off)
{
	i->off = (u16)off;
	if (i->base == RIPB)
		i->disp += off + i->len;
	return thunk_attach(s->thunks, i);
}

/* How a search for a block ended. */
enum found {
	FOUND,
	TEMP, /* it is one for build_temp() */
	/* There is something to be done alone, then everything is to be looked at again: */
	NO_MARK,
	NO_ROOM,
	NO_THUNK,
};

static void make_possible(struct soft_cpu *c, enum found why, const u8 *p)
{
	switch (why) {
	case NO_MARK: protect(c, (gpa_t)(p - c->ram->base), 1); break;
	case NO_ROOM: make_room(c); break;
	default: flush(c); break;
	}
}

/* The bytes of an instruction at la: `have` of them are in the page at p (NULL: outside RAM), the others in the next
 * page, where they are looked for when the first `have` do not make an instruction. */
struct temp_bytes {
	u8 byte[16];
	unsigned len, have, want;
};

static void first_page(struct temp_bytes *t, const u8 *p)
{
	while (p && t->len < t->have && t->len < t->want) {
		t->byte[t->len] = *(const volatile u8 *)(p + t->len);
		t->len++;
	}
}

/* Where the page begins, or NULL. */
static const u8 *second_page(struct soft_cpu *c, struct temp_bytes *t, gva_t la, u32 key, const u8 *p)
{
	gva_t next = la + t->len;
	/* All-ones are an instruction's end soon; and a page that another vCPU maps just now is
	 * not one's beginning. */
	const u8 *q = p ? mmu_fetch(c, (key & KEY_MODE) == MODE_64 ? next : (u32)next) : NULL;

	for (unsigned k = 0; t->len < t->want; k++)
		t->byte[t->len++] = q ? *(const volatile u8 *)(q + k) : 0xff;
	return q;
}

static struct code_temp *temp_of(const struct soft_cpu *c, gva_t la)
{
	return &c->temp[(la ^ la >> 12) & ((1u << CODE_TEMP_BITS) - 1)];
}

static struct block *temp_block(struct code_temp *e)
{
	return (struct block *)(void *)e->block;
}

/* Can it be a block for all, that is translated some time? */
static bool is_crossing(const struct code_temp *e, u32 key)
{
	return e->second && e->len > e->in_first && (key & (KEY_MODE | KEY_SINGLE)) == MODE_64;
}

/* The block for all of e, whose first byte is at p. */
static enum found share_temp(struct soft_cpu *c, struct code_temp *e, const u8 *p, struct block **ret)
{
	struct soft_vm *s = c->svm;
	struct block *b = lookup(s->code, (u64)p, temp_block(e)->key | KEY_CHECKS);

	if (b && (b->bytes != e->len || code_source(b)->second != e->second ||
		  !same_bytes(code_source(b)->byte, e->bytes, 0, e->len))) {
		drop(s, NULL, b);
		b = NULL;
	}
	if (!b) {
		if (!has_room(s->code))
			return NO_ROOM;
		b = free_block(s->code);
		soft_copy(b, e->block, sizeof(e->block));
		b->hva = (u64)p;
		b->key |= KEY_CHECKS;
		b->heat = 0;
		code_source(b)->second = e->second;
		code_source(b)->in_first = e->in_first;
		soft_copy(code_source(b)->byte, e->bytes, e->len);
		insert(s->code, b);
	}
	*ret = b;
	return FOUND;
}

/* One instruction at la that crosses into the next page, ends beyond the CS limit, or lies outside RAM. `have` bytes are
 * in the page at p. Nothing tracks writes to it: it is decoded again unless all its bytes are what they were. */
static enum found build_temp(struct soft_cpu *c, gva_t la, u32 key, const u8 *p, unsigned have,
			     struct block **ret)
{
	struct code_temp *e = temp_of(c, la);
	struct temp_bytes t = { .have = have, .want = 15 };
	struct block *b = *ret = temp_block(e);
	enum found found = FOUND;
	struct decode_info info;
	enum decode_result result = DECODE_OK;
	bool same;

	if ((key & KEY_MODE) != MODE_64) {
		u64 limit = c->seg[SEG_CS].limit;

		if (c->rip > limit)
			soft_gp(c, NULL, 0);
		t.want = (unsigned)MIN(15ull, limit - c->rip + 1);
	}
	first_page(&t, p);
	same = e->len && e->la == la && e->len <= t.want && b->key == key &&
	       same_bytes(e->bytes, t.byte, 0, MIN(t.len, (unsigned)e->len));
	if (same && t.len < e->len) {
		unsigned n = t.len;

		same = second_page(c, &t, la, key, p) == e->second && same_bytes(e->bytes, t.byte, n, e->len);
		t.len = n;
	}
	if (!same) {
		e->len = 0;
		e->la = la;
		e->in_first = (u8)t.len;
		e->second = NULL;
		result = decode_insn(t.byte, t.len, key, c->features, &b->insn[0], &info);
		if (result == DECODE_MORE && t.len < t.want) {
			e->second = second_page(c, &t, la, key, p);
			result = decode_insn(t.byte, t.len, key, c->features, &b->insn[0], &info);
		}
		if (result == DECODE_MORE)
			result = DECODE_GP; /* it does not end within the limit */
		if (result != DECODE_OK)
			set_fault(&b->insn[0], result, 0);
	}
	share_lock(c->svm);
	if (!same && result == DECODE_OK) {
		if (place(c->svm, &b->insn[0], 0)) {
			e->len = b->insn[0].len;
			soft_copy(e->bytes, t.byte, sizeof(e->bytes));
		} else {
			found = NO_THUNK;
		}
	}
	if (!same) {
		finish(b, 1, b->insn[0].len);
		b->hva = 1; /* is in no list, and not "dropped" */
		b->key = key;
		b->heat = BLOCK_COLD;
	}
	if (found == FOUND && is_crossing(e, key))
		found = share_temp(c, e, p, ret);
	share_unlock(c->svm);
	return found;
}

static bool jumps_forward(const struct insn *i)
{
	return i->fn == jcc[i->aux & 15] && (s64)i->imm > 0;
}

/* Decodes at p, what the CS limit leaves room for. Goes on after so many conditional jumps forward: inner. */
static enum found build(struct soft_cpu *c, u32 key, const u8 *p, u64 limit_room, unsigned inner,
			struct block **ret)
{
	struct code_cache *code = c->code;
	gpa_t gpa = (gpa_t)(p - c->ram->base);
	unsigned room = (unsigned)(RAM_PAGE_SIZE - (gpa & (RAM_PAGE_SIZE - 1)));
	struct code_page *page = &code->page[gpa / RAM_PAGE_SIZE];
	bool checks = page->restless;
	unsigned max = key & KEY_SINGLE ? 1 : checks ? CODE_MAX_CHECKED : CODE_MAX_INSNS, n = 0, off = 0;
	struct block *b = free_block(code);
	struct decode_info info = { .ends_block = false };
	unsigned jumps = 0;
	u8 copy[(CODE_MAX_CHECKED + 1) * 15];

	if (!has_room(code))
		return NO_ROOM;
	if (checks && page->nr >= page->most)
		sweep(c->svm, page, gpa / RAM_PAGE_SIZE);
	if (page->dropped) {
		page->dropped = false;
		weigh(c, gpa / RAM_PAGE_SIZE, WEIGHT_CODE);
	}
	while (n < max && off < room && !info.ends_block) {
		unsigned look = MIN(room - off, 15u);
		enum decode_result result;

		if (checks)
			copy_bytes(copy + off, p + off, look);
		else if (!mark(code, gpa + off, look))
			return NO_MARK;
		result = decode_insn(checks ? copy + off : p + off, look, key, c->features, &b->insn[n],
				     &info);
		if (result == DECODE_MORE || (result == DECODE_OK && off + b->insn[n].len > limit_room)) {
			if (!n)
				return TEMP;
			break;
		}
		if (result != DECODE_OK) {
			/* It hangs on all bytes that were there to be looked at. */
			set_fault(&b->insn[n], result, off);
			n++;
			off += look;
			break;
		}
		if (!place(c->svm, &b->insn[n], off))
			return NO_THUNK;
		if (info.ends_block && jumps < inner && jumps_forward(&b->insn[n])) {
			info.ends_block = false;
			jumps++;
		}
		off += b->insn[n].len;
		info.ends_block |= checks && code_may_store(&b->insn[n], key);
		n++;
	}
	finish(b, n, off);
	b->inner = (u8)jumps;
	b->hva = (u64)p;
	b->key = key;
	if (checks) {
		b->key |= KEY_CHECKS;
		code_source(b)->second = NULL;
		code_source(b)->in_first = (u16)off;
		soft_copy(code_source(b)->byte, copy, off);
	}
	b->heat = (key & KEY_MODE) == MODE_64 && !(key & KEY_SINGLE) ? 0 : BLOCK_COLD;
	insert(code, b);
	*ret = b;
	return FOUND;
}

/* The block at p, of a restless page, if it is still what it was made of. */
static struct block *find_checked(struct soft_vm *s, const u8 *p, u32 key)
{
	struct block *b = lookup(s->code, (u64)p, key | KEY_CHECKS);
	struct code_page *page;

	if (!b || code_crosses(b))
		return NULL;
	page = page_of(s->code, b);
	if (!same_bytes(code_source(b)->byte, p, 0, b->bytes)) {
		changed(s, b);
		return NULL;
	}
	if (page->left-- == 0) {
		calm(s, block_gpa(s->code, b) / RAM_PAGE_SIZE);
		return NULL;
	}
	return b;
}

/* An instruction that crosses into the next page was met at la before: there is nothing else to decode. */
static bool met_crossing(const struct soft_cpu *c, gva_t la)
{
	const struct code_temp *e = temp_of(c, la);

	return e->len && e->la == la && (la & (RAM_PAGE_SIZE - 1)) + e->len > RAM_PAGE_SIZE;
}

static enum found find(struct soft_cpu *c, gva_t la, u32 key, const u8 *p, struct block **ret)
{
	unsigned room = (unsigned)(RAM_PAGE_SIZE - (la & (RAM_PAGE_SIZE - 1)));
	u64 limit_room = ~0ull;
	enum found found = FOUND;

	if (!p)
		return build_temp(c, la, key, NULL, 0, ret);
	if ((key & KEY_MODE) != MODE_64) {
		if (c->rip > c->seg[SEG_CS].limit)
			soft_gp(c, NULL, 0);
		limit_room = c->seg[SEG_CS].limit - c->rip + 1;
	}
	share_lock(c->svm);
	*ret = c->code->page[(p - c->ram->base) / RAM_PAGE_SIZE].restless ? find_checked(c->svm, p, key)
									  : lookup(c->code, (u64)p, key);
	if (*ret && (*ret)->bytes > limit_room)
		found = TEMP;
	else if (!*ret)
		found = met_crossing(c, la) ? TEMP : build(c, key, p, limit_room, 0, ret);
	share_unlock(c->svm);
	return found == TEMP ? build_temp(c, la, key, p, room, ret) : found;
}

struct block *code_find(struct soft_cpu *c, gva_t la, u32 key)
{
	struct block *b;

	c->cur = NULL; /* a fault here belongs to no instruction */
	for (;;) {
		const u8 *p = mmu_fetch(c, la);
		enum found found = find(c, la, key, p, &b);

		if (found == FOUND)
			return b;
		make_possible(c, found, p);
	}
}

struct block *code_extend(struct soft_cpu *c, struct block *b)
{
	struct code_cache *code = c->code;
	u64 pfn = block_gpa(code, b) / RAM_PAGE_SIZE;
	struct block *longer;

	b->extend = false;
	if (code_checks(b) || code->page[pfn].restless || b->inner == CODE_MAX_INNER ||
	    b->n == CODE_MAX_INSNS || !jumps_forward(&b->insn[b->n - 1]) ||
	    build(c, b->key, (const u8 *)(uintptr_t)b->hva, ~0ull, b->inner + 1u, &longer) != FOUND)
		return b;
	longer->heat = b->heat;
	longer->tried = longer->n == b->n; /* at the page's end, for instance */
	page_remove(code, b);
	drop(c->svm, NULL, b);
	return longer;
}

/* --- writes --- */
/* True: translations were dropped. */
static bool invalidate_page(struct soft_vm *s, struct soft_cpu *c, u64 pfn, gpa_t start, gpa_t end)
{
	struct code_cache *code = s->code;
	struct block *b = page_first(code, pfn), *first = NULL, **tail = &first;
	bool translated = false;
	u64 left = 0;
	u16 nr = 0;

	while (b) {
		struct block *next = b->page_next;
		gpa_t gpa = block_gpa(code, b);

		if (gpa < end && gpa + b->bytes > start) {
			translated |= b->x != NULL;
			drop(s, c, b);
			code->nr_invalidated++;
			code->page[pfn].dropped = true;
		} else {
			*tail = b;
			tail = &b->page_next;
			nr++;
			left |= granule_mask(gpa, b->bytes);
		}
		b = next;
	}
	*tail = NULL;
	page_set_first(code, pfn, first);
	code->page[pfn].nr = nr;
	/* The map is what the page's blocks cover. */
	if (!first)
		unmark(code, pfn);
	else if (!code->page[pfn].restless)
		atomic_store(&code->ram->code_map[pfn], left);
	return translated;
}

static bool invalidate(struct soft_vm *s, struct soft_cpu *c, gpa_t gpa, u64 len)
{
	gpa_t end = gpa + len;
	bool translated = false;

	share_lock(s);
	while (gpa < end) {
		gpa_t page_end = (gpa | (RAM_PAGE_SIZE - 1)) + 1;

		if (s->code->page_head[gpa / RAM_PAGE_SIZE])
			translated |= invalidate_page(s, c, gpa / RAM_PAGE_SIZE, gpa, MIN(end, page_end));
		else
			unmark(s->code, gpa / RAM_PAGE_SIZE);
		gpa = page_end;
	}
	share_unlock(s);
	return translated;
}

void code_invalidate(struct soft_cpu *c, gpa_t gpa, u64 len)
{
	c->once = true;
	/* Those in a loop of one translation would not leave it. */
	if (invalidate(c->svm, c, gpa, len))
		share_kick(c->svm, c);
	weigh(c, gpa / RAM_PAGE_SIZE, WEIGHT_STORE);
}

void code_written(struct soft_vm *s, gpa_t gpa, u64 len)
{
	if (invalidate(s, NULL, gpa, len))
		share_kick(s, NULL);
}
