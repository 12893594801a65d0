/* What keeps blocks (code.c), for what finds and makes them (code_find.c). Under the lock of share.h, unless said otherwise. */
#pragma once

#include "cpu/soft/code.h"

/* How a search for a block ended. */
enum found {
	FOUND,
	TEMP, /* it is one for build_temp() */
	/* There is something to be done alone, then everything is to be looked at again: */
	NO_MARK,
	NO_ROOM,
	NO_THUNK,
};

/* Does that. Between two blocks, without the lock; p: where is to be decoded. */
void code_make_possible(struct soft_cpu *c, enum found why, const u8 *p);

/* Before bytes of a tracked page are looked at, to decode them. False: it would be the page's first mark. */
bool code_mark(struct code_cache *code, gpa_t gpa, u64 len);
/* The block with this identity, NULL: none. Found, it becomes the first of its bucket. */
struct block *code_lookup(struct code_cache *code, u64 hva, u32 key);
/* Is there room for any block at code_free_block()? */
bool code_has_room(const struct code_cache *code);
struct block *code_free_block(const struct code_cache *code);
/* The block there is complete: it is for all from now on. */
void code_insert(struct code_cache *code, struct block *b);
/* Takes b from the list of its page, which is tracked. */
void code_page_remove(struct code_cache *code, struct block *b);
/* Drops b, which is in no list of a page, on behalf of c (NULL: of no vCPU in a block). */
void code_drop(struct soft_vm *s, struct soft_cpu *c, struct block *b);

/* --- restless pages --- */
/* A store to a tracked page, or what weighs as much as several. Without the lock, too. */
void code_weigh(struct soft_cpu *c, u64 pfn, unsigned weight);
#define WEIGHT_STORE 1
#define WEIGHT_CODE  128 /* its code is executed again after it was written to */
/* A block that is not what it was made of is dropped; all such of a page with many blocks; the page is tracked again. */
void code_drop_changed(struct soft_vm *s, struct block *b);
void code_sweep(struct soft_vm *s, struct code_page *p, u64 pfn);
void code_calm(struct soft_vm *s, u64 pfn);

static inline gpa_t code_gpa(const struct code_cache *code, const struct block *b)
{
	return (gpa_t)(b->hva - (u64)code->ram->base);
}

static inline struct code_page *code_page_of(const struct code_cache *code, const struct block *b)
{
	return &code->page[code_gpa(code, b) / RAM_PAGE_SIZE];
}

/* Some of them may be changing. */
static inline bool code_same_bytes(const u8 *a, const u8 *b, unsigned from, unsigned to)
{
	for (unsigned k = from; k < to; k++)
		if (a[k] != ((const volatile u8 *)b)[k])
			return false;
	return true;
}
