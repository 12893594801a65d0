/* What the vCPUs of a VM share, and how they keep out of each other's way.
 *
 * Decoded blocks, thunks and translations exist once per VM. They change under one lock and are used without it,
 * so three things are said of each change:
 *
 * - The lock (share_lock()) is held for each change of the cache: decoding, translating, linking, dropping. Whoever
 *   holds it waits for nobody, raises nothing and touches no guest page table, so it can be taken anywhere, also
 *   in the middle of an instruction, and by threads that are not a vCPU's (DMA).
 * - What is published (a hash chain's head, a block's list of translations, the table of a region's translations) is
 *   complete before a release store makes it visible; what is unpublished stays readable. A reader without the lock
 *   may so use, once, what has just been dropped. That is as if it had run a moment earlier: it sees
 *   what has been dropped no more after it has seen, by a load, anything that the writer stored after its write.
 * - Memory is used anew only while one vCPU is alone (share_alone()): all others are between two blocks, hold no
 *   pointer to a block or a translation, and have nothing on their stacks for calls. The one that is alone changes what
 *   it likes of theirs: TLB, cache of addresses, the record of the exit they left by.
 *
 * Being alone is also how a page gets its first mark in ram->code_map: then nobody has a way to write to it that
 * does not look at the mark.
 *
 * A vCPU is inside of the engine (c->in_run) but for share_leave() to share_enter(). share_alone() is called inside,
 * between two blocks, without the lock. It first leaves, so that two who want to be alone at the same time do not wait
 * for each other; takes turns by `alone`; asks the others out by soft_recall(), which the loop sees before its next
 * block and translated code at its next jump backward or indirect jump; and waits until they are. One that is outside and wants in
 * stores in_run and then loads `alone`, the one that is alone stores `alone` and then loads in_run, in
 * one order for all: one of them sees the other.
 *
 * Waiting yields the processor, since there may be more vCPUs than the host has processors. */
#pragma once

#include "cpu/soft/soft.h"

struct code_cache;
struct jit;
struct thunk_arena;

struct soft_vm {
	struct vm *vm;
	/* Of a carrier (soft_engine.c): its one CPU, which executes an instruction of another engine's vCPU now and then. */
	struct soft_cpu *only;
	u64 features[4]; /* and what it executes: all that this engine can */
	struct code_cache *code;
	struct jit *jit; /* NULL: interpret only */
	struct thunk_arena *thunks;
	u32 most_regions; /* of each of the two caches: see regions.h */
	/* For giving regions back (soft_engine.c): when to look next, and since when the caches have begun none. */
	_Atomic u64 look_ns;
	u64 begun, begun_ns;
	_Atomic u32 lock;
	_Atomic u32 alone; /* 1: somebody is alone, or about to be */
	/* Counts what has been taken back that a vCPU may still be about to use; see share_settled(). */
	_Atomic u64 epoch;
};

/* Any thread. */
void share_lock(struct soft_vm *s);
/* False: it is held. For what can as well be done another time. */
static inline bool share_trylock(struct soft_vm *s)
{
	return !atomic_load_explicit(&s->lock, memory_order_relaxed) &&
	       !atomic_exchange_explicit(&s->lock, 1, memory_order_acquire);
}
static inline void share_unlock(struct soft_vm *s)
{
	atomic_store_explicit(&s->lock, 0, memory_order_release);
}

/* On the vCPU's own thread. */
void share_enter(struct soft_cpu *c);
void share_leave(struct soft_cpu *c);
/* Between two blocks, when jit_go was 0: lets one be alone who wants to. */
void share_pass(struct soft_cpu *c);
void share_alone(struct soft_cpu *c);
void share_together(struct soft_cpu *c);

/* Makes the other vCPUs (c NULL: all) come to their loop soon. Any thread. */
void share_kick(const struct soft_vm *s, const struct soft_cpu *c);

/* The k-th vCPU; NULL: none yet. */
static inline struct soft_cpu *share_cpu(const struct soft_vm *s, u32 k)
{
	if (s->only)
		return k ? NULL : s->only;
	return s->vm->vcpu[k] ? s->vm->vcpu[k]->engine : NULL;
}

/* While alone: memory that was executed is going to be written anew; everybody serializes before going on
 * [SDM3 8.1.3]. */
void share_refetch(const struct soft_vm *s);

/* Once per round of the loop: what has been taken back up to now is not in use by c any more. */
static inline void share_seen(struct soft_cpu *c)
{
	u64 epoch = atomic_load_explicit(&c->svm->epoch, memory_order_acquire);

	if (unlikely(atomic_load_explicit(&c->seen, memory_order_relaxed) != epoch))
		atomic_store_explicit(&c->seen, epoch, memory_order_release);
}

/* Has every vCPU but c been between two blocks since s->epoch was counted up to this? */
bool share_settled(const struct soft_vm *s, const struct soft_cpu *c, u64 epoch);
