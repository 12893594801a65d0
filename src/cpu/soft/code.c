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
#include "cpu/soft/code_keep.h"

#include "cpu/soft/jit/jit.h"
#include "cpu/soft/ops.h"
#include "cpu/soft/thunk.h"

#define ARENA_ALIGN 8

/* A page is restless that gets stores of this weight within one tick. More than it takes to write all of a page anew,
 * byte by byte: that is no reason, afterwards its code is gone. */
#define RESTLESS      6000
#define TICK_SHIFT    24 /* of the TSC: some milliseconds */
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
	if (s->code->page[gpa / RAM_PAGE_SIZE].restless) { /* meanwhile: it has no marks */
		share_together(c);
		return;
	}
	atomic_fetch_or(&c->ram->code_map[gpa / RAM_PAGE_SIZE], granule_mask(gpa, len));
	for (u32 k = 0; k < s->vm->nr_vcpus; k++)
		if (share_cpu(s, k))
			mmu_write_protect(share_cpu(s, k), gpa & ~(RAM_PAGE_SIZE - 1));
	share_together(c);
}

/* False: it would be the first of the page. */
bool code_mark(struct code_cache *code, gpa_t gpa, u64 len)
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
	return code_block(code, code->page_head[pfn]);
}

/* b is the one behind prev now (NULL: the page's first). */
static void page_link(struct code_cache *code, u64 pfn, struct block *prev, struct block *b)
{
	block_ref ref = code_ref(code, b);

	if (prev)
		prev->page_next = ref;
	else
		code->page_head[pfn] = ref;
	if (b)
		b->page_prev = code_ref(code, prev);
}

static void set_first(struct code_cache *code, u64 hva, struct block *b)
{
	__atomic_store_n(&code->hash[code_hash(hva)], b, __ATOMIC_RELEASE);
}

/* In place of b in the bucket of hva: to. */
static void hash_replace(struct code_cache *code, u64 hva, const struct block *b, struct block *to)
{
	struct block *prev = code_first(code, hva);
	block_ref ref = code_ref(code, b);

	if (prev == b) {
		set_first(code, hva, to);
		return;
	}
	while (prev->hash_next != ref)
		prev = code_block(code, prev->hash_next);
	prev->hash_next = code_ref(code, to);
}

static void hash_remove(struct code_cache *code, const struct block *b)
{
	hash_replace(code, b->hva, b, code_block(code, b->hash_next));
}

/* Found, it becomes the first: without the lock only that one is looked at. */
struct block *code_lookup(struct code_cache *code, u64 hva, u32 key)
{
	struct block *b = code_first(code, hva);

	while (b && (b->hva != hva || b->key != key))
		b = code_block(code, b->hash_next);
	if (b && b != code_first(code, hva)) {
		hash_remove(code, b);
		b->hash_next = code_ref(code, code_first(code, hva));
		set_first(code, hva, b);
	}
	return b;
}

/* Drops b, which is out of its page's list, on behalf of c (NULL: of no vCPU in a block). */
void code_drop(struct soft_vm *s, struct soft_cpu *c, struct block *b)
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

static u64 block_size(const struct block *b)
{
	u64 size = sizeof(*b) + b->n * sizeof(struct insn) + INSN_END;

	if (code_checks(b))
		size += sizeof(struct code_source) + b->bytes;
	return ALIGN_UP(size, (u64)ARENA_ALIGN);
}

bool code_has_room(const struct code_cache *code)
{
	return CODE_REGION - code->used[code->use.at] >=
	       sizeof(struct block) + (CODE_MAX_INSNS + 1) * sizeof(struct insn) +
		       sizeof(struct code_source) + CODE_MAX_INSNS * 15 + ARENA_ALIGN;
}

/* Where the next block goes. */
struct block *code_free_block(const struct code_cache *code)
{
	return (struct block *)(region_start(code, code->use.at) + code->used[code->use.at]);
}

/* The block at code_free_block(), complete, is there for all. */
void code_insert(struct code_cache *code, struct block *b)
{
	if (!code_crosses(b)) {
		u64 pfn = code_gpa(code, b) / RAM_PAGE_SIZE;

		page_link(code, pfn, b, page_first(code, pfn));
		page_link(code, pfn, NULL, b);
		code->page[pfn].nr++;
	}
	code->used[code->use.at] += block_size(b);
	regions_made(&code->use, b->hva);
	code->nr_blocks++;
	b->hash_next = code_ref(code, code_first(code, b->hva));
	set_first(code, b->hva, b);
}

/* The page keeps its marks: most pages are decoded again, before they are written to. */
void code_page_remove(struct code_cache *code, struct block *b)
{
	u64 pfn = code_gpa(code, b) / RAM_PAGE_SIZE;

	page_link(code, pfn, code_block(code, b->page_prev), code_block(code, b->page_next));
	code->page[pfn].nr--;
}

/* What points to b points to its new place from now on. */
static void move(struct code_cache *code, const struct block *b, struct block *to)
{
	u64 pfn = code_gpa(code, b) / RAM_PAGE_SIZE;

	if (b == to)
		return;
	soft_copy(to, b, block_size(b)); /* downward: may overlap */
	hash_replace(code, to->hva, b, to);
	if (!code_crosses(to)) {
		page_link(code, pfn, code_block(code, to->page_prev), to);
		page_link(code, pfn, to, code_block(code, to->page_next));
	}
	jit_moved(to->x, to);
}

/* No vCPU is in a block. */
static void forget_current(const struct soft_vm *s)
{
	for (u32 k = 0; k < s->vm->nr_vcpus; k++)
		if (share_cpu(s, k))
			share_cpu(s, k)->cur = NULL;
}

/* What region r holds is given up, but for `keep` bytes of what is so warm that it is translated. */
static void give_up(struct soft_vm *s, u32 r, u64 keep)
{
	struct code_cache *code = s->code;
	u8 *start = region_start(code, r);
	u64 kept = 0, size;

	code->nr_evicted += code->used[r] != 0;
	for (u64 pos = 0; pos < code->used[r]; pos += size) {
		struct block *b = (struct block *)(start + pos);

		size = block_size(b);
		if (!b->hva)
			continue;
		if (b->x && kept + size <= keep) {
			move(code, b, (struct block *)(start + kept));
			kept += size;
		} else {
			regions_gone(&code->use, b->hva);
			if (!code_crosses(b))
				code_page_remove(code, b);
			code_drop(s, NULL, b);
		}
	}
	code->used[r] = kept;
}

void code_give_up(struct soft_vm *s, u32 region)
{
	forget_current(s);
	give_up(s, region, 0);
}

static void make_room(struct soft_cpu *c)
{
	struct soft_vm *s = c->svm;

	share_alone(c);
	share_lock(s);                 /* not all who change the cache are vCPUs */
	if (!code_has_room(s->code)) { /* another one may have made room meanwhile */
		forget_current(s);
		give_up(s, regions_next(&s->code->use), CODE_REGION / 2);
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
	for (u32 r = 0; r < REGIONS_MOST; r++) {
		for (u64 pos = 0; pos < code->used[r];) {
			struct block *b = (struct block *)(region_start(code, r) + pos);

			if (b->hva && !code_crosses(b)) {
				u64 pfn = code_gpa(code, b) / RAM_PAGE_SIZE;

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

void code_make_possible(struct soft_cpu *c, enum found why, const u8 *p)
{
	switch (why) {
	case NO_MARK: protect(c, (gpa_t)(p - c->ram->base), 1); break;
	case NO_ROOM: make_room(c); break;
	default: flush(c); break;
	}
}

void code_pic(struct soft_vm *s, struct block *b)
{
	struct code_cache *code = s->code;
	u64 pfn = code_gpa(code, b) / RAM_PAGE_SIZE;

	code->page[pfn].pic = true;
	for (b = page_first(code, pfn); b; b = code_block(code, b->page_next))
		jit_drop(s, b);
}

bool code_is_pic(const struct code_cache *code, const struct block *b)
{
	return code_page_of(code, b)->pic;
}

u32 code_insns_from(const struct block *b, const struct insn *i)
{
	return b ? (u32)(&b->insn[b->n] - i) : 0;
}

/* --- restless pages --- */
static u32 entries(const struct code_page *p)
{
	return FIRST_ENTRIES << MIN(p->times, (u8)MAX_DOUBLINGS);
}

u32 code_entries(const struct code_cache *code, const struct block *b)
{
	return entries(code_page_of(code, b));
}

/* A store to a tracked page. Others count, too: about. */
void code_weigh(struct soft_cpu *c, u64 pfn, unsigned weight)
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
	code_weigh(c, gpa / RAM_PAGE_SIZE, WEIGHT_STORE);
}

static void drop_page(struct soft_vm *s, u64 pfn)
{
	struct block *b;

	while ((b = page_first(s->code, pfn))) {
		code_page_remove(s->code, b);
		code_drop(s, NULL, b);
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

void code_calm(struct soft_vm *s, u64 pfn)
{
	struct code_page *p = &s->code->page[pfn];

	drop_page(s, pfn);
	p->restless = false;
	if (p->times < MAX_DOUBLINGS)
		p->times++;
	s->code->nr_calm++;
}

void code_drop_changed(struct soft_vm *s, struct block *b)
{
	struct code_page *p = code_page_of(s->code, b);

	p->left = entries(p);
	code_page_remove(s->code, b);
	code_drop(s, NULL, b);
	s->code->nr_changed++;
}

/* What has changed and is not executed again would stay for ever. */
void code_sweep(struct soft_vm *s, struct code_page *p, u64 pfn)
{
	struct block *next;

	for (struct block *b = page_first(s->code, pfn); b; b = next) {
		next = code_block(s->code, b->page_next);
		if (!code_same_bytes(code_source(b)->byte, (const u8 *)b->hva, 0, b->bytes)) {
			code_page_remove(s->code, b);
			code_drop(s, NULL, b);
			s->code->nr_changed++;
		}
	}
	p->most = (u16)MIN(MAX(FIRST_MOST, 2 * p->nr), 0xffff);
}

void code_changed(struct soft_cpu *c, struct block *b)
{
	share_lock(c->svm);
	if (b->hva)
		code_drop_changed(c->svm, b);
	share_unlock(c->svm);
}

void code_quiet(struct soft_cpu *c, struct block *b)
{
	share_lock(c->svm);
	if (b->hva)
		code_calm(c->svm, code_gpa(c->code, b) / RAM_PAGE_SIZE);
	share_unlock(c->svm);
}

/* --- writes --- */
/* True: translations were dropped. */
static bool invalidate_page(struct soft_vm *s, struct soft_cpu *c, u64 pfn, gpa_t start, gpa_t end)
{
	struct code_cache *code = s->code;
	struct block *next;
	bool translated = false;
	u64 left = 0;

	for (struct block *b = page_first(code, pfn); b; b = next) {
		gpa_t gpa = code_gpa(code, b);

		next = code_block(code, b->page_next);
		if (gpa < end && gpa + b->bytes > start) {
			translated |= b->x != NULL;
			code_page_remove(code, b);
			code_drop(s, c, b);
			code->nr_invalidated++;
			code->page[pfn].dropped = true;
		} else {
			left |= granule_mask(gpa, b->bytes);
		}
	}
	/* The map is what the page's blocks cover. */
	if (!left) {
		unmark(code, pfn);
		code->page[pfn].pic = false; /* it becomes another one, as a rule */
	} else if (!code->page[pfn].restless) {
		atomic_store(&code->ram->code_map[pfn], left);
	}
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
	code_weigh(c, gpa / RAM_PAGE_SIZE, WEIGHT_STORE);
}

/* It is dropped for that, and decoded again when it is next run: stops are rare. */
void code_stop(struct soft_cpu *c)
{
	struct block *b = c->cur;

	if (!b || b->n == 1)
		return;
	share_lock(c->svm);
	if (b->hva) {
		if (!code_crosses(b))
			code_page_remove(c->code, b);
		code_drop(c->svm, c, b);
	}
	share_unlock(c->svm);
}

void code_written(struct soft_vm *s, gpa_t gpa, u64 len)
{
	if (invalidate(s, NULL, gpa, len))
		share_kick(s, NULL);
}
