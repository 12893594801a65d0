/* The cache of decoded blocks; see code.h.
 *
 * Self-modifying code: ram->code_map has a bit for every 64-byte granule from which something was
 * decoded, and a page with any bit set has no writable TLB entry, so every store there comes to
 * mmu_store(), which calls code_invalidate() when its granules are marked. That drops just the blocks
 * that overlap the bytes written. If the block being executed is among them, its instructions are
 * replaced by op_stop: the storing instruction completes and what follows is fetched anew, as the
 * processor guarantees for a store by itself [SDM3 8.1.3].
 *
 * Bits are set before bytes are read and cleared only when the page's last block is gone. With several
 * vCPUs the first mark of a page takes its writable translations from all of them before a byte is
 * decoded (protect()), and a store to marked granules queues the invalidation for the others; they take
 * it before their next block.
 *
 * All functions on the vCPU's own thread except code_queue().
 */
#include "cpu/soft/code.h"

#include "cpu/soft/decode.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/ops.h"
#include "cpu/soft/ops_int.h"
#include "cpu/soft/thunk.h"

#define ARENA_ALIGN 16

static u64 granule_mask(gpa_t gpa, u64 len)
{
	unsigned first = gpa >> 6 & 63, last = (gpa + len - 1) >> 6 & 63;

	return (~0ull << first) & (~0ull >> (63 - last));
}

static _Atomic u64 *users(const struct soft_cpu *c, u64 pfn)
{
	const struct soft_vm *svm = c->vcpu->vm->engine_vm;

	return &svm->code_users[pfn];
}

static void queue_lock(struct code_cache *code)
{
	while (atomic_exchange_explicit(&code->queue_lock, 1, memory_order_acquire))
		__builtin_ia32_pause();
}

static void queue_unlock(struct code_cache *code)
{
	atomic_store_explicit(&code->queue_lock, 0, memory_order_release);
}

static void take_protects(struct soft_cpu *c)
{
	struct code_cache *code = c->code;
	gpa_t pages[CODE_QUEUE];
	u32 n;

	if (!atomic_load(&code->protect_pending))
		return;
	queue_lock(code);
	n = code->nr_protect;
	code->nr_protect = 0;
	for (u32 k = 0; k < MIN(n, (u32)CODE_QUEUE); k++)
		pages[k] = code->protect[k];
	queue_unlock(code);
	if (n > CODE_QUEUE)
		mmu_flush_all(c);
	else
		for (u32 k = 0; k < n; k++)
			mmu_write_protect(c, pages[k]);
	queue_lock(code);
	if (!code->nr_protect)
		atomic_store(&code->protect_pending, false);
	queue_unlock(code);
}

/* Takes the writable translations of a page from all vCPUs, and returns when none of them can be in use:
 * a vCPU that executes acknowledges between two blocks, one that does not will look at its mailbox
 * before its next block. Two vCPUs that wait for each other serve each other's request meanwhile. */
static void protect(struct soft_cpu *c, gpa_t page)
{
	struct vm *vm = c->vcpu->vm;

	mmu_write_protect(c, page);
	if (vm->nr_vcpus == 1)
		return;
	for (u32 k = 0; k < vm->nr_vcpus; k++) {
		struct soft_cpu *other = vm->vcpu[k] ? vm->vcpu[k]->engine : NULL;

		if (!other || other == c)
			continue;
		queue_lock(other->code);
		if (other->code->nr_protect < CODE_QUEUE)
			other->code->protect[other->code->nr_protect] = page;
		if (other->code->nr_protect <= CODE_QUEUE)
			other->code->nr_protect++;
		atomic_store(&other->code->protect_pending, true);
		queue_unlock(other->code);
		soft_request(other, VCPU_REQ_FLUSH);
	}
	for (u32 k = 0; k < vm->nr_vcpus; k++) {
		struct soft_cpu *other = vm->vcpu[k] ? vm->vcpu[k]->engine : NULL;

		if (!other || other == c)
			continue;
		for (u32 n = 1; atomic_load(&other->in_run) && atomic_load(&other->code->protect_pending);
		     n++) {
			take_protects(c);
			__builtin_ia32_pause();
			if (n % 256 == 0) /* its thread may have been put off for this one */
				soft_yield();
		}
	}
}

static void mark(struct soft_cpu *c, gpa_t gpa, u64 len)
{
	u64 pfn = gpa / RAM_PAGE_SIZE, mask = granule_mask(gpa, len), me = BIT(c->vcpu->id);
	_Atomic u64 *word = &c->ram->code_map[pfn];

	if (!(atomic_load_explicit(users(c, pfn), memory_order_relaxed) & me))
		atomic_fetch_or(users(c, pfn), me);
	if ((atomic_load(word) & mask) == mask)
		return;
	if (atomic_fetch_or(word, mask) == 0)
		protect(c, gpa & ~(RAM_PAGE_SIZE - 1));
}

/* This vCPU's last block of the page is gone. The last vCPU clears the page's marks; one that starts to
 * use the page at that moment is seen in `users` and gets all marks back. */
static void unmark(struct soft_cpu *c, u64 pfn)
{
	u64 me = BIT(c->vcpu->id);

	if (atomic_fetch_and(users(c, pfn), ~me) & ~me)
		return;
	atomic_store(&c->ram->code_map[pfn], 0);
	if (atomic_load(users(c, pfn))) {
		atomic_store(&c->ram->code_map[pfn], ~0ull);
		protect(c, pfn * RAM_PAGE_SIZE);
	}
}

static struct block *page_first(const struct code_cache *code, u64 pfn)
{
	u32 head = code->page_head[pfn];

	return head ? (struct block *)(code->arena + (u64)(head - 1) * 8) : NULL;
}

static void page_set_first(struct code_cache *code, u64 pfn, const struct block *b)
{
	code->page_head[pfn] = b ? (u32)(((const u8 *)b - code->arena) / 8 + 1) : 0;
}

static gpa_t block_gpa(const struct soft_cpu *c, const struct block *b)
{
	return (gpa_t)(b->hva - (u64)c->ram->base);
}

static void drop(struct soft_cpu *c, struct block *b)
{
	struct block **link = &c->code->hash[code_hash(b->hva)];

	while (*link && *link != b)
		link = &(*link)->hash_next;
	if (*link)
		*link = b->hash_next;
	b->hva = 0;
	if (c->jit) /* without translations, too: one that was given up may be executing */
		jit_drop(c, b);
	if (b == c->cur)
		for (unsigned k = 0; k <= b->n; k++)
			b->insn[k].fn = op_stop;
	c->code->nr_invalidated++;
}

/* --- regions --- */
static u8 *region_start(const struct code_cache *code, u32 region)
{
	return code->arena + region * CODE_REGION;
}

static u64 block_size(const struct block *b)
{
	return ALIGN_UP(sizeof(*b) + (b->n + 1u) * sizeof(struct insn), (u64)ARENA_ALIGN);
}

static void evict(struct soft_cpu *c, struct block *b)
{
	struct code_cache *code = c->code;
	u64 pfn = block_gpa(c, b) / RAM_PAGE_SIZE;
	struct block *first = page_first(code, pfn), **link = &first;

	while (*link && *link != b)
		link = &(*link)->page_next;
	if (*link)
		*link = b->page_next;
	page_set_first(code, pfn, first);
	if (!first)
		unmark(c, pfn);
	drop(c, b);
	code->nr_invalidated--; /* not by a write */
}

/* What points to b points to its new place from now on. */
static void move(struct soft_cpu *c, struct block *b, struct block *to)
{
	struct code_cache *code = c->code;
	u64 pfn = block_gpa(c, b) / RAM_PAGE_SIZE;
	struct block **link = &code->hash[code_hash(b->hva)], *first = page_first(code, pfn);

	if (b == to)
		return;
	while (*link != b)
		link = &(*link)->hash_next;
	*link = to;
	if (first == b) {
		page_set_first(code, pfn, to);
	} else {
		while (first->page_next != b)
			first = first->page_next;
		first->page_next = to;
	}
	jit_moved(b->x, to);
	soft_copy(to, b, sizeof(*b) + (b->n + 1u) * sizeof(struct insn)); /* downward: may overlap */
}

/* Blocks go to the next region from now on. What it held is given up, but for what is so warm that it is
 * translated, unless that leaves too little room. No block may be executing. */
static void next_region(struct soft_cpu *c)
{
	struct code_cache *code = c->code;
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
			move(c, b, (struct block *)(start + kept));
			kept += size;
		} else {
			evict(c, b);
		}
	}
	code->used[r] = kept;
}

u32 code_insns_from(const struct block *b, const struct insn *i)
{
	return b ? (u32)(&b->insn[b->n] - i) : 0;
}

static void finish(struct block *b, unsigned n, unsigned bytes)
{
	struct insn *end = &b->insn[n];

	soft_zero(end, sizeof(*end));
	end->fn = op_end_of_block;
	end->off = (u16)bytes;
	b->n = (u16)n;
	b->bytes = (u16)bytes;
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
static bool place(struct insn *i, unsigned off)
{
	i->off = (u16)off;
	if (i->base == RIPB)
		i->disp += off + i->len;
	return thunk_attach(i);
}

/* Empties the thunks too: their arena is full. */
static void flush_thunks(struct soft_cpu *c)
{
	code_do_flush(c);
	thunk_reset();
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

static bool same_bytes(const struct code_temp *e, const struct temp_bytes *t, unsigned from, unsigned to)
{
	for (unsigned k = from; k < to; k++)
		if (e->bytes[k] != t->byte[k])
			return false;
	return true;
}

/* One instruction at la that the cache cannot hold: it crosses into the next page, ends beyond the CS
 * limit, or lies outside RAM. `have` bytes are in the page at p. Nothing tracks writes to it: it is decoded
 * again unless all its bytes are what they were. */
static struct code_temp *temp_of(const struct soft_cpu *c, gva_t la)
{
	return &c->code->temp[(la ^ la >> 12) & ((1u << CODE_TEMP_BITS) - 1)];
}

static struct block *build_temp(struct soft_cpu *c, gva_t la, u32 key, const u8 *p, unsigned have)
{
	struct code_temp *e = temp_of(c, la);
	struct temp_bytes t = { .have = have, .want = 15 };
	struct block *b = code_temp_block(e);
	struct decode_info info;
	enum decode_result result;

	if ((key & KEY_MODE) != MODE_64) {
		u64 limit = c->seg[SEG_CS].limit;

		if (c->rip > limit)
			soft_gp(c, NULL, 0);
		t.want = (unsigned)MIN(15ull, limit - c->rip + 1);
	}
	first_page(&t, p);
	if (e->len && e->la == la && e->len <= t.want && b->key == key && (!b->crosses || b->hva == (u64)p) &&
	    same_bytes(e, &t, 0, MIN(t.len, (unsigned)e->len))) {
		unsigned n = t.len;

		if (n >= e->len)
			return b;
		if (second_page(c, &t, la, key, p) == e->second && same_bytes(e, &t, n, e->len))
			return b;
		t.len = n;
	}
	if (b->x)
		jit_drop(c, b);
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
	if (result != DECODE_OK) {
		set_fault(&b->insn[0], result, 0);
	} else {
		if (!place(&b->insn[0], 0)) {
			flush_thunks(c);
			thunk_attach(&b->insn[0]);
		}
		e->len = b->insn[0].len;
		soft_copy(e->bytes, t.byte, sizeof(e->bytes));
	}
	b->crosses = e->second && e->len > e->in_first && (key & (KEY_MODE | KEY_SINGLE)) == MODE_64;
	b->hva = b->crosses ? (u64)p : 1; /* is in no list, and not "dropped" */
	b->heat = b->crosses ? 0 : BLOCK_COLD;
	b->no_groups = b->tried = b->extend = false;
	b->inner = 0;
	b->no_window = 0;
	b->key = key;
	finish(b, 1, b->insn[0].len);
	return b;
}

static bool jumps_forward(const struct insn *i)
{
	return i->fn == jcc[i->aux & 15] && (s64)i->imm > 0;
}

/* Goes on after so many conditional jumps forward: inner. */
static struct block *build(struct soft_cpu *c, gva_t la, u32 key, const u8 *p, unsigned inner)
{
	struct code_cache *code = c->code;
	unsigned room = (unsigned)(RAM_PAGE_SIZE - (la & (RAM_PAGE_SIZE - 1)));
	unsigned max = key & KEY_SINGLE ? 1 : CODE_MAX_INSNS, n = 0, off = 0;
	gpa_t gpa = (gpa_t)(p - c->ram->base);
	u64 limit_room = ~0ull;
	struct block *b;
	struct decode_info info = { .ends_block = false };
	unsigned jumps = 0;

	if ((key & KEY_MODE) != MODE_64) {
		if (c->rip > c->seg[SEG_CS].limit)
			soft_gp(c, NULL, 0);
		limit_room = c->seg[SEG_CS].limit - c->rip + 1;
	}
	if (CODE_REGION - code->used[code->region] <
	    sizeof(*b) + (CODE_MAX_INSNS + 1) * sizeof(struct insn) + ARENA_ALIGN)
		next_region(c);
	b = (struct block *)(region_start(code, code->region) + code->used[code->region]);

	while (n < max && off < room && !info.ends_block) {
		unsigned look = MIN(room - off, 15u);
		enum decode_result result;

		mark(c, gpa + off, look);
		result = decode_insn(p + off, look, key, c->features, &b->insn[n], &info);
		if (result == DECODE_MORE || (result == DECODE_OK && off + b->insn[n].len > limit_room)) {
			if (!n)
				return build_temp(c, la, key, p, room);
			break;
		}
		if (result != DECODE_OK) {
			/* It hangs on all bytes that were there to be looked at. */
			set_fault(&b->insn[n], result, off);
			n++;
			off += look;
			break;
		}
		if (!place(&b->insn[n], off)) {
			/* Nothing of this block is linked yet: empty everything and begin again. */
			flush_thunks(c);
			return build(c, la, key, p, inner);
		}
		if (info.ends_block && jumps < inner && jumps_forward(&b->insn[n])) {
			info.ends_block = false;
			jumps++;
		}
		off += b->insn[n].len;
		n++;
	}
	finish(b, n, off);
	b->inner = (u8)jumps;
	b->hva = (u64)p;
	b->key = key;
	b->x = NULL;
	b->heat = (key & KEY_MODE) == MODE_64 && !(key & KEY_SINGLE) ? 0 : BLOCK_COLD;
	b->no_groups = b->tried = b->extend = b->crosses = false;
	b->no_window = 0;
	b->hash_next = code->hash[code_hash(b->hva)];
	code->hash[code_hash(b->hva)] = b;
	b->page_next = page_first(code, gpa / RAM_PAGE_SIZE);
	page_set_first(code, gpa / RAM_PAGE_SIZE, b);
	code->used[code->region] += block_size(b);
	code->nr_blocks++;
	return b;
}

struct block *code_find(struct soft_cpu *c, gva_t la, u32 key)
{
	struct code_cache *code = c->code;
	const u8 *p;
	struct block **link, *b;
	const struct code_temp *e;

	c->cur = NULL; /* a fault here belongs to no instruction */
	p = mmu_fetch(c, la);
	if (!p)
		return build_temp(c, la, key, NULL, 0);
	link = &code->hash[code_hash((u64)p)];
	for (; (b = *link); link = &b->hash_next) {
		if (b->hva != (u64)p || b->key != key)
			continue;
		if ((key & KEY_MODE) != MODE_64 && c->rip + b->bytes - 1 > c->seg[SEG_CS].limit)
			return build_temp(c, la, key, p,
					  (unsigned)(RAM_PAGE_SIZE - (la & (RAM_PAGE_SIZE - 1))));
		/* To the front: the loop looks at the first one only. */
		*link = b->hash_next;
		b->hash_next = code->hash[code_hash((u64)p)];
		code->hash[code_hash((u64)p)] = b;
		return b;
	}
	/* An instruction that crosses into the next page was met here before: there is nothing to decode. */
	e = temp_of(c, la);
	if (e->len && e->la == la && (la & (RAM_PAGE_SIZE - 1)) + e->len > RAM_PAGE_SIZE)
		return build_temp(c, la, key, p, (unsigned)(RAM_PAGE_SIZE - (la & (RAM_PAGE_SIZE - 1))));
	return build(c, la, key, p, 0);
}

struct block *code_extend(struct soft_cpu *c, struct block *b)
{
	u64 hva = b->hva, pfn = block_gpa(c, b) / RAM_PAGE_SIZE;
	struct block *longer;
	u32 n = b->n;

	b->extend = false;
	if (b->crosses || b->inner == CODE_MAX_INNER || !jumps_forward(&b->insn[b->n - 1]) ||
	    b->n == CODE_MAX_INSNS)
		return b;
	/* A region of blocks may be given up for it: b is looked for anew. */
	longer = build(c, c->rip, b->key, (const u8 *)(uintptr_t)hva, b->inner + 1u);
	for (b = page_first(c->code, pfn); b; b = b->page_next)
		if (b != longer && b->hva == hva && b->key == longer->key) {
			evict(c, b);
			break;
		}
	longer->heat = (u16)(c->jit->warm - 1);
	longer->tried = longer->n == n; /* at the page's end, for instance */
	return longer;
}

static void invalidate_page(struct soft_cpu *c, u64 pfn, gpa_t start, gpa_t end)
{
	struct code_cache *code = c->code;
	struct block *b = page_first(code, pfn), *first = NULL, **tail = &first;
	u64 left = 0;

	while (b) {
		struct block *next = b->page_next;
		gpa_t gpa = block_gpa(c, b);

		if (gpa < end && gpa + b->bytes > start) {
			drop(c, b);
		} else {
			*tail = b;
			tail = &b->page_next;
			left |= granule_mask(gpa, b->bytes);
		}
		b = next;
	}
	*tail = NULL;
	page_set_first(code, pfn, first);
	/* With one vCPU the map is exactly what its blocks cover; with more it stays an upper bound. */
	if (!first)
		unmark(c, pfn);
	else if (c->vcpu->vm->nr_vcpus == 1)
		atomic_store_explicit(&c->ram->code_map[pfn], left, memory_order_relaxed);
}

static void invalidate(struct soft_cpu *c, gpa_t gpa, u64 len)
{
	gpa_t end = gpa + len;

	while (gpa < end) {
		gpa_t page_end = (gpa | (RAM_PAGE_SIZE - 1)) + 1;

		if (c->code->page_head[gpa / RAM_PAGE_SIZE])
			invalidate_page(c, gpa / RAM_PAGE_SIZE, gpa, MIN(end, page_end));
		else
			unmark(c, gpa / RAM_PAGE_SIZE);
		gpa = page_end;
	}
}

void code_invalidate(struct soft_cpu *c, gpa_t gpa, u64 len)
{
	struct vm *vm = c->vcpu->vm;

	c->once = true;
	invalidate(c, gpa, len);
	if (vm->nr_vcpus > 1)
		for (u32 k = 0; k < vm->nr_vcpus; k++) {
			struct soft_cpu *other = vm->vcpu[k] ? vm->vcpu[k]->engine : NULL;

			if (!other || other == c)
				continue;
			code_queue(other->code, gpa, len);
			soft_request(other, VCPU_REQ_FLUSH);
		}
}

void code_flush(struct soft_cpu *c)
{
	c->once = true;
	c->attention |= ATT_FLUSH;
}

void code_do_flush(struct soft_cpu *c)
{
	struct code_cache *code = c->code;

	for (u32 r = 0; r < CODE_REGIONS; r++) {
		for (u64 pos = 0; pos < code->used[r];) {
			struct block *b = (struct block *)(region_start(code, r) + pos);

			if (b->hva) {
				u64 pfn = block_gpa(c, b) / RAM_PAGE_SIZE;

				if (code->page_head[pfn]) {
					code->page_head[pfn] = 0;
					unmark(c, pfn);
				}
			}
			pos += block_size(b);
		}
		code->used[r] = 0;
	}
	soft_zero(code->hash, sizeof(code->hash[0]) << CODE_HASH_BITS);
	for (u32 k = 0; k < 1u << CODE_TEMP_BITS; k++) {
		code->temp[k].len = 0;
		code_temp_block(&code->temp[k])->x = NULL;
	}
	code->nr_flushes++;
	c->attention &= ~(u32)ATT_FLUSH;
	if (c->jit)
		jit_flush(c);
}

void code_queue(struct code_cache *code, gpa_t gpa, u64 len)
{
	queue_lock(code);
	if (code->nr_queued < CODE_QUEUE) {
		code->queue[code->nr_queued].gpa = gpa;
		code->queue[code->nr_queued].len = len;
	}
	if (code->nr_queued <= CODE_QUEUE)
		code->nr_queued++;
	queue_unlock(code);
}

void code_take_queue(struct soft_cpu *c)
{
	struct code_cache *code = c->code;
	struct code_range ranges[CODE_QUEUE];
	u32 n;

	take_protects(c);
	queue_lock(code);
	n = code->nr_queued;
	code->nr_queued = 0;
	for (u32 k = 0; k < MIN(n, (u32)CODE_QUEUE); k++)
		ranges[k] = code->queue[k];
	queue_unlock(code);
	if (n > CODE_QUEUE)
		code_do_flush(c);
	else
		for (u32 k = 0; k < n; k++)
			invalidate(c, ranges[k].gpa, ranges[k].len);
}
