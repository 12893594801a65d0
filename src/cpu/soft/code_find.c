/* Finding the block at an address, and making it: by the hash, by decoding, or, for an instruction that no list can
 * hold, by comparing bytes each time.
 *
 * What has to be done alone (share.h) is done between two attempts; each begins at the fetch.
 *
 * On the vCPU's own thread. */
#include "cpu/soft/code_keep.h"

#include "cpu/soft/decode.h"
#include "cpu/soft/ops.h"
#include "cpu/soft/ops_int.h"
#include "cpu/soft/thunk.h"

static void finish(struct block *b, unsigned n, unsigned bytes)
{
	struct insn *end = &b->insn[n];

	soft_zero(end, INSN_END);
	end->fn = op_end_of_block;
	end->off = (u16)bytes;
	b->n = (u16)n;
	b->bytes = (u16)bytes;
	b->x = NULL;
	b->no_groups = b->split = b->tried = b->extend = b->loop = false;
	b->trials = 0;
	b->inner = 0;
	b->no_window = b->target = 0;
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

/* Others may be writing there: what they store in one aligned word is seen whole, or not at all, as a processor does that
 * fetches. */
static void copy_bytes(u8 *to, const u8 *from, unsigned n)
{
	for (unsigned k = 0; k < n;) {
		unsigned at = (u64)(from + k) & 7;
		u64 word = *(const volatile any_u64 *)(from + k - at) >> 8 * at;

		for (; at < 8 && k < n; at++, word >>= 8)
			to[k++] = (u8)word;
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
	t->len = p ? MIN(t->have, t->want) : 0;
	copy_bytes(t->byte, p, t->len);
}

/* Where the page begins, or NULL. */
static const u8 *second_page(struct soft_cpu *c, struct temp_bytes *t, gva_t la, u32 key, const u8 *p)
{
	gva_t next = la + t->len;
	/* All-ones are an instruction's end soon; and a page that another vCPU maps just now is
	 * not one's beginning. */
	const u8 *q = p ? mmu_fetch(c, (key & KEY_MODE) == MODE_64 ? next : (u32)next) : NULL;

	if (q)
		copy_bytes(t->byte + t->len, q, t->want - t->len);
	for (unsigned k = t->len; !q && k < t->want; k++)
		t->byte[k] = 0xff;
	t->len = t->want;
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

static bool is_translatable(u32 key)
{
	return !(key & KEY_SINGLE) && soft_translates(key);
}

/* Can it be a block for all, that is translated some time? */
static bool is_crossing(const struct code_temp *e, u32 key)
{
	return e->second && e->len > e->in_first && is_translatable(key);
}

/* The block for all of e, whose first byte is at p. */
static enum found share_temp(struct soft_cpu *c, struct code_temp *e, const u8 *p, struct block **ret)
{
	struct soft_vm *s = c->svm;
	struct block *b = code_lookup(s->code, (u64)p, temp_block(e)->key | KEY_CHECKS);

	if (b && (b->bytes != e->len || code_source(b)->second != e->second ||
		  !code_same_bytes(code_source(b)->byte, e->bytes, 0, e->len))) {
		code_drop(s, NULL, b);
		b = NULL;
	}
	if (!b) {
		if (!code_has_room(s->code))
			return NO_ROOM;
		b = code_free_block(s->code);
		soft_copy(b, e->block, sizeof(e->block));
		b->hva = (u64)p;
		b->key |= KEY_CHECKS;
		b->heat = 0;
		code_source(b)->second = e->second;
		code_source(b)->in_first = e->in_first;
		soft_copy(code_source(b)->byte, e->bytes, e->len);
		code_insert(s->code, b);
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
	       code_same_bytes(e->bytes, t.byte, 0, MIN(t.len, (unsigned)e->len));
	if (same && t.len < e->len) {
		unsigned n = t.len;

		same = second_page(c, &t, la, key, p) == e->second &&
		       code_same_bytes(e->bytes, t.byte, n, e->len);
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

/* Decodes at p, what the CS limit leaves room for, so many instructions at most. Goes on after so many conditional jumps
 * forward: inner. */
static enum found build(struct soft_cpu *c, u32 key, const u8 *p, u64 limit_room, unsigned most,
			unsigned inner, struct block **ret)
{
	struct code_cache *code = c->code;
	gpa_t gpa = (gpa_t)(p - c->ram->base);
	unsigned room = (unsigned)(RAM_PAGE_SIZE - (gpa & (RAM_PAGE_SIZE - 1)));
	struct code_page *page = &code->page[gpa / RAM_PAGE_SIZE];
	bool checks = page->restless;
	unsigned max = key & KEY_SINGLE ? 1 : checks ? MIN(CODE_MAX_CHECKED, most) : most, n = 0, off = 0;
	struct block *b = code_free_block(code);
	struct decode_info info = { .ends_block = false };
	unsigned jumps = 0;
	/* Of one that checks all bytes are kept. */
	u8 copy[(CODE_MAX_CHECKED + 1) * 15], *bytes = copy;

	if (!code_has_room(code))
		return NO_ROOM;
	if (checks && page->nr >= page->most)
		code_sweep(c->svm, page, gpa / RAM_PAGE_SIZE);
	if (page->dropped) {
		page->dropped = false;
		code_weigh(c, gpa / RAM_PAGE_SIZE, WEIGHT_CODE);
	}
	while (n < max && off < room && !info.ends_block) {
		unsigned look = MIN(room - off, 15u);
		enum decode_result result;

		if (checks)
			bytes = copy + off;
		else if (!code_mark(code, gpa + off, look))
			return NO_MARK;
		copy_bytes(bytes, p + off, look);
		result = decode_insn(bytes, look, key, c->features, &b->insn[n], &info);
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
		info.ends_block |= checks && code_store_possible(&b->insn[n], key);
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
	b->heat = is_translatable(key) ? 0 : BLOCK_COLD;
	code_insert(code, b);
	*ret = b;
	return FOUND;
}

/* Another one in place of b. */
static struct block *rebuild(struct soft_cpu *c, struct block *b, unsigned most, unsigned inner)
{
	struct block *other;

	if (code_checks(b) || code_page_of(c->code, b)->restless ||
	    build(c, b->key, (const u8 *)(uintptr_t)b->hva, ~0ull, most, inner, &other) != FOUND)
		return b;
	other->heat = b->heat;
	code_page_remove(c->code, b);
	code_drop(c->svm, NULL, b);
	return other;
}

struct block *code_find_longer(struct soft_cpu *c, struct block *b)
{
	struct block *longer;
	u16 n = b->n;

	b->extend = false;
	if (b->inner == CODE_MAX_INNER || n == CODE_MAX_INSNS || !jumps_forward(&b->insn[n - 1]))
		return b;
	longer = rebuild(c, b, CODE_MAX_INSNS, b->inner + 1u);
	if (longer != b)
		longer->tried = longer->n == n; /* at the page's end, for instance */
	return longer;
}

/* The instruction to which the last one jumps back, 0: none, or the first. */
static unsigned loop_in(const struct block *b)
{
	const struct insn *last = &b->insn[b->n - 1];
	s64 to = last->off + last->len + (s64)last->imm;
	unsigned n = 0;

	if (last->fn != jcc[last->aux & 15])
		return 0;
	while (n < b->n && b->insn[n].off < to)
		n++;
	return n < b->n && b->insn[n].off == to ? n : 0;
}

struct block *code_find_shorter(struct soft_cpu *c, struct block *b)
{
	unsigned n = loop_in(b);
	const struct block *loop = n ? code_lookup(c->code, b->hva + b->insn[n].off, b->key) : NULL;

	return loop && loop->loop && loop->tried ? rebuild(c, b, n, b->inner) : b;
}

/* The block at p, of a restless page, if it is still what it was made of. */
static struct block *find_checked(struct soft_vm *s, const u8 *p, u32 key)
{
	struct block *b = code_lookup(s->code, (u64)p, key | KEY_CHECKS);
	struct code_page *page;

	if (!b || code_crosses(b))
		return NULL;
	page = code_page_of(s->code, b);
	if (!code_same_bytes(code_source(b)->byte, p, 0, b->bytes)) {
		code_drop_changed(s, b);
		return NULL;
	}
	if (page->left-- == 0) {
		code_calm(s, code_gpa(s->code, b) / RAM_PAGE_SIZE);
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

	/* A carrier is told of no writes. */
	if (!p || c->svm->only)
		return build_temp(c, la, key, p, p ? room : 0, ret);
	if ((key & KEY_MODE) != MODE_64) {
		if (c->rip > c->seg[SEG_CS].limit)
			soft_gp(c, NULL, 0);
		limit_room = c->seg[SEG_CS].limit - c->rip + 1;
	}
	share_lock(c->svm);
	*ret = c->code->page[(p - c->ram->base) / RAM_PAGE_SIZE].restless ? find_checked(c->svm, p, key)
									  : code_lookup(c->code, (u64)p, key);
	if (*ret && (*ret)->bytes > limit_room)
		found = TEMP;
	else if (!*ret)
		found = met_crossing(c, la) ? TEMP : build(c, key, p, limit_room, CODE_MAX_INSNS, 0, ret);
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
		code_make_possible(c, found, p);
	}
}
