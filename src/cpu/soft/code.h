/* Decoded blocks: where they are kept, found and dropped.
 *
 * A block is a straight run of instructions inside one page of guest RAM, out of which conditional jumps forward may lead
 * (only where it has been extended: code_find_longer()). It is identified by the host address
 * of its first byte (so by physical address: shared by all address spaces) and the mode bits of KEY_*.
 * Every block is in two lists: a hash bucket, and the list of its page, which code_invalidate() walks.
 * Memory comes from one arena per VM, region by region; a dropped block stays readable until its region
 * is given up.
 *
 * All vCPUs use the same blocks. share.h has the rules; here they mean:
 *
 * - Lists change under the lock. Without it only the first block of a hash bucket is looked at.
 * - A block's instructions never change, but for one thing: when the block that a vCPU is in is dropped by its own
 *   store, each handler becomes op_stop, by one store. Another vCPU in the same block stops there as well, and
 *   finds the new code a little sooner than it would have to.
 * - A vCPU that is in a block which another's store has dropped goes on to the block's end, as a processor does that
 *   has not serialized [SDM3 8.1.3]. From then on nothing leads there.
 * - A region is given up, and its memory used anew, by one vCPU alone.
 *
 * A page that is stored to often while it has code, beside the code or again and again to it, is restless: writes to it are
 * not tracked, so they are as fast as any, and its blocks check their own bytes whenever they are entered. Such a block
 * ends after the first instruction that may write to memory, so that a store by itself is noticed by the next
 * instruction. When its blocks have been entered often enough with nothing changed, the page is tracked again;
 * each time it becomes restless that takes twice as long.
 */
#pragma once

#include "cpu/soft/regions.h"
#include "cpu/soft/share.h"

#define CODE_MAX_INSNS   64
#define CODE_MAX_CHECKED 16 /* of a block that checks its bytes */
#define CODE_MAX_INNER   5
#define CODE_HASH_BITS   18
#define CODE_LEAST       4u /* regions */
#define CODE_REGION      (3 * MiB)

struct xblock;

/* Where in the arena a block begins, in units of 8 bytes, plus 1; 0: none. */
typedef u32 block_ref;

struct block {
	u64 hva; /* of the first byte; 0 once dropped */
	u32 key; /* KEY_CHECKS: writes to it are not tracked, it has a struct code_source */
	u16 n;   /* instructions */
	u16 bytes;
	struct xblock *x; /* its translations */
	u64 target;    /* where its indirect jump or call has always gone; 0: not known, or not one place */
	u64 no_window; /* instructions whose accesses are seldom where those by the same register were last */
	block_ref hash_next, page_next, page_prev;
	u16 heat;         /* how often it was interpreted, about, or: */
#define BLOCK_COLD 0xffff /* it is not to be translated */
	u8 trials;        /* how often tried has become false again */
#define BLOCK_TRIALS 6    /* at most */
	u8 inner; /* jumps inside: conditional ones, forward, that are not taken while the block goes on */
	bool split : 1;     /* ranges of several accesses cross a page at times: translated for both */
	bool no_groups : 1; /* they often do, too often for that */
	bool tried : 1;     /* no_window is known */
	bool extend : 1;    /* what follows its last jump is often reached by it */
	bool loop : 1;      /* it jumps back to its beginning, and was translated as a loop */
	/* n, then INSN_END bytes of one with op_end_of_block; then the struct code_source, if any */
	struct insn insn[];
};

/* Of a block to which writes are not tracked, so that whoever runs it compares first: what it was made of. */
struct code_source {
	const u8 *second; /* where the bytes from in_first on are, in the next page; NULL: there are none */
	u16 in_first;
	u8 byte[];
};

/* Beside KEY_* of soft.h: no mode has it, so that such a block is never found without its bytes being looked at. */
#define KEY_CHECKS BIT(4)

static inline bool code_checks(const struct block *b)
{
	return b->key & KEY_CHECKS;
}

static inline struct code_source *code_source(struct block *b)
{
	return (struct code_source *)(void *)((u8 *)&b->insn[b->n] + INSN_END);
}

/* Its one instruction ends in the next page; it is in no list of a page. */
static inline bool code_crosses(struct block *b)
{
	return code_checks(b) && code_source(b)->second;
}

/* One instruction that the cache cannot hold, or not yet: a vCPU's own, good while the bytes there are these. */
#define CODE_TEMP_BITS 8
struct code_temp {
	u8 bytes[16];
	u8 len;           /* 0: free */
	u8 in_first;      /* bytes in the first page */
	const u8 *second; /* where the others are; NULL: nowhere, or not wanted */
	gva_t la;
	_Alignas(8) u8 block[sizeof(struct block) + 2 * sizeof(struct insn)];
};

/* What is known of a page with code; all 0 at first. */
struct code_page {
	u32 left;      /* restless: entries without a change, after which it is tracked again, about */
	u16 weight;    /* tracked: of the stores in the last tick, about */
	u8 tick;       /* when that was */
	bool dropped;  /* tracked: blocks were, and none has been decoded since */
	bool restless; /* its blocks check their bytes; changes under the lock */
	bool pic;      /* it was met at several addresses: translations are for any; under the lock */
	u8 times;      /* it has become so */
	u16 nr, most; /* restless: blocks; how many may be there before those are dropped that have changed */
};

struct code_cache {
	struct ram *ram;
	struct block **hash;  /* 1 << CODE_HASH_BITS */
	block_ref *page_head; /* by page frame number */
	struct code_page *page;
	u8 *arena;
	struct regions use; /* of its regions */
	u64 used[REGIONS_MOST];

	/* statistics */
	u64 nr_blocks, nr_invalidated, nr_evicted, nr_flushes, nr_restless, nr_calm, nr_changed;
};

static inline struct block *code_block(const struct code_cache *code, block_ref ref)
{
	return ref ? (struct block *)(void *)(code->arena + (u64)(ref - 1) * 8) : NULL;
}

static inline block_ref code_ref(const struct code_cache *code, const struct block *b)
{
	return b ? (block_ref)(((const u8 *)b - code->arena) / 8 + 1) : 0;
}

static inline u32 code_hash(u64 hva)
{
	return (u32)((hva ^ hva >> 15) & ((1u << CODE_HASH_BITS) - 1));
}

/* The block that was found last in the bucket of hva; perhaps another one. */
static inline struct block *code_first(const struct code_cache *code, u64 hva)
{
	return __atomic_load_n(&code->hash[code_hash(hva)], __ATOMIC_ACQUIRE);
}

/* 0 once it is dropped: by another vCPU at any time. */
static inline u64 code_hva(const struct block *b)
{
	return __atomic_load_n(&b->hva, __ATOMIC_RELAXED);
}

/* The block at c->rip (linear address la), decoded if need be. May raise what the fetch raises. Never
 * NULL. Between two blocks only; the caller runs it before it comes between two blocks again. */
struct block *code_find(struct soft_cpu *c, gva_t la, u32 key);

/* In place of b, one that goes on after its last jump, if there can be one now; else b. Under the lock. */
struct block *code_find_longer(struct soft_cpu *c, struct block *b);

/* In place of b, if it ends with a loop that has a block of its own and is translated, one without; else b. Under the lock. */
struct block *code_find_shorter(struct soft_cpu *c, struct block *b);

/* Instructions of b from i on (those not executed when i is where it stopped). */
u32 code_insns_from(const struct block *b, const struct insn *i);

/* [gpa, gpa + len) of RAM has been written by somebody who is not a vCPU in a block: DMA, the loader. Any thread. */
void code_written(struct soft_vm *s, gpa_t gpa, u64 len);

/* The page of b is met at several addresses: its translations are dropped, and the next ones are for any. Under the lock. */
void code_pic(struct soft_vm *s, struct block *b);
bool code_is_pic(const struct code_cache *code, const struct block *b);

/* May it write to memory? Key: of its block. */
bool code_store_possible(const struct insn *i, u32 key);

/* Between two blocks, when c->restless is set: that page is not tracked any more. */
void code_settle(struct soft_cpu *c);
/* Translated code has found that b is not what it was made of; that it has been entered code_entries() times. */
void code_changed(struct soft_cpu *c, struct block *b);
void code_quiet(struct soft_cpu *c, struct block *b);
/* How often a block that checks may be entered before code_quiet(). */
u32 code_entries(const struct code_cache *code, const struct block *b);

/* Gives back a region's memory where there are more than the guest needs. Alone, outside of blocks. */
void code_give_back(struct soft_vm *s);
/* What a region holds is given up. Alone, under the lock. */
void code_give_up(struct soft_vm *s, u32 region);

/* Host code. */
int code_vm_init(struct soft_vm *s, struct err *err);
void code_vm_fini(struct soft_vm *s); /* accepts a half-built one */
int code_init(struct soft_cpu *c, struct err *err);
void code_fini(struct soft_cpu *c);
