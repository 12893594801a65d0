/* Decoded blocks: where they are kept, found and dropped.
 *
 * A block is a straight run of instructions inside one page of guest RAM, out of which conditional jumps forward may lead
 * (only where it has been extended: code_extend()). It is identified by the host address
 * of its first byte (so by physical address: shared by all address spaces) and the mode bits of KEY_*.
 * Every block is in two lists: a hash bucket, and the list of its page, which code_invalidate() walks.
 * Memory comes from one arena per vCPU, region by region; a dropped block stays readable until its region
 * is given up.
 */
#pragma once

#include "cpu/soft/soft.h"

#define CODE_MAX_INSNS 64
#define CODE_HASH_BITS 16
#define CODE_MAX_INNER 5
#define CODE_QUEUE     32
#define CODE_REGIONS   8u
#define CODE_REGION    (2 * MiB)

struct xblock;

struct block {
	u64 hva; /* of the first byte; 0 once dropped */
	u32 key;
	u16 n; /* instructions */
	u16 bytes;
	struct block *hash_next;
	struct block *page_next;
	struct xblock *x; /* its translations */
	u16 heat;         /* how often it was interpreted, or: */
#define BLOCK_COLD 0xffff /* it is not to be translated */
	bool no_groups;   /* ranges of several accesses often cross a page */
	bool tried;       /* no_window is known */
	bool extend;      /* what follows its last jump is often reached by it */
	u8 inner; /* jumps inside: conditional ones, forward, that are not taken while the block goes on */
	u64 no_window; /* instructions whose accesses are seldom where those by the same register were last */
	bool crosses;  /* the only instruction ends in the next page: part of a struct code_temp */
	struct insn insn[]; /* n, then one with op_end_of_block */
};

#define CODE_TEMP_BITS 8
struct code_temp {
	u8 bytes[16];
	u8 len;           /* 0: free */
	u8 in_first;      /* bytes in the first page */
	const u8 *second; /* where the others are; NULL: nowhere, or not wanted */
	gva_t la;
	_Alignas(8) u8 block[sizeof(struct block) + 2 * sizeof(struct insn)];
};

static inline struct block *code_temp_block(struct code_temp *e)
{
	return (struct block *)(void *)e->block;
}

static inline const struct code_temp *code_temp_of(const struct block *b)
{
	return (const struct code_temp *)(const void *)((const u8 *)b - offsetof(struct code_temp, block));
}

struct code_range {
	gpa_t gpa;
	u64 len;
};

struct code_cache {
	struct block **hash; /* 1 << CODE_HASH_BITS */
	u32 *page_head;      /* by page frame number: arena offset / 8 + 1, 0 = none */
	u8 *arena;
	/* The arena's regions are filled one after the other; a full one makes room by giving up the next. */
	u32 region;
	u64 used[CODE_REGIONS];
	/* Blocks of one instruction that crosses into the next page, ends beyond the segment limit, or lies outside
	 * RAM: by address, and good only while the bytes there are these. In no list; a translation of one checks
	 * for itself. */
	struct code_temp *temp;

	/* Ranges written by others than this vCPU (DMA, other vCPUs), taken on VCPU_REQ_FLUSH. */
	_Atomic u32 queue_lock;
	u32 nr_queued; /* > CODE_QUEUE: overflow, drop everything */
	struct code_range queue[CODE_QUEUE];
	/* Pages that another vCPU is about to decode from: it waits until this one has no writable
	 * translation of them. */
	u32 nr_protect; /* > CODE_QUEUE: overflow, drop every translation */
	gpa_t protect[CODE_QUEUE];
	_Atomic bool protect_pending;

	u64 nr_blocks, nr_invalidated, nr_evicted, nr_flushes; /* statistics */
};

static inline u32 code_hash(u64 hva)
{
	return (u32)((hva ^ hva >> 15) & ((1u << CODE_HASH_BITS) - 1));
}

/* The block at c->rip (linear address la), decoded if need be. May raise what the fetch raises. Never
 * NULL. */
struct block *code_find(struct soft_cpu *c, gva_t la, u32 key);

/* In place of b, which begins at c->rip, a block that goes on after its last jump, if it can be. No block is executing. */
struct block *code_extend(struct soft_cpu *c, struct block *b);

/* Instructions of b from i on (those not executed when i is where it stopped). */
u32 code_insns_from(const struct block *b, const struct insn *i);

void code_do_flush(struct soft_cpu *c); /* now; no block may be executing */

/* Takes what others queued. */
void code_take_queue(struct soft_cpu *c);

/* What the vCPUs of a VM share (vm->engine_vm). */
struct soft_vm {
	/* By page: which vCPUs have blocks there. When the last one has none, the page's word in
	 * ram->code_map is cleared. */
	_Atomic u64 *code_users;
	u64 nr_pages;
};

/* Any thread: queues the range for c (not executing it itself) and leaves the posting of VCPU_REQ_FLUSH
 * to the caller. */
void code_queue(struct code_cache *code, gpa_t gpa, u64 len);

/* Host code. */
int code_init(struct soft_cpu *c, struct err *err);
void code_fini(struct soft_cpu *c);
