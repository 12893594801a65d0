/* The cache of translations: finding, linking, dropping them, and running them from the interpreter's loop.
 *
 * A block that has been interpreted often enough is translated for the linear address it runs at; physical code
 * at several addresses has several translations. From the loop a translation is found by address (struct jcache,
 * checked against the TLB), else through its block. Way out and way in are linked when the one has just led
 * to the other.
 *
 * Memory for code and for data about it is handed out in order and taken back as a whole, by one vCPU alone, when no
 * stack for calls holds anything; what is dropped stays readable until then, since a RET may still come back to it: its
 * ways out lead to the loop.
 *
 * All on a vCPU's thread, with the guest's vector state perhaps in the host's registers, but for jit_drop(). */
#include "cpu/soft/jit/jit.h"

#include "cpu/soft/jit/lockstep.h"
#include "cpu/soft/ops.h"

/* Failures of a check for several accesses after which they are checked one by one. */
#define MAX_BAILS 24
/* Translations of one block of 32-bit code. */
#define MAX_ADDRESSES 8

/* --- links --- */
/* See jit.h for why others may be executing what is changed here. */
static void unlink_exit(struct soft_vm *s, struct xexit *x)
{
	struct jit *j = s->jit;

	if (!x->to)
		return;
	if (x->key)
		__atomic_store_n((u64 *)(void *)x->key->place, TLB_NEVER - 1, __ATOMIC_RELEASE);
	emit_set_jump(x->jump, j->rx - j->rw, x->stub);
	for (struct xexit **p = &x->to->in; *p; p = &(*p)->next_in)
		if (*p == x) {
			*p = x->next_in;
			break;
		}
	__atomic_store_n(&x->to, NULL, __ATOMIC_RELAXED);
	if (x->key)
		x->key->epoch = atomic_fetch_add(&s->epoch, 1) + 1;
}

/* May an exit to another page get this key now? */
static bool may_have_key(struct soft_cpu *c, struct xexit *x, u64 key)
{
	if (x->key->last == key || x->key->last == TLB_NEVER - 1)
		return true;
	unlink_exit(c->svm, x);
	return share_settled(c->svm, c, x->key->epoch);
}

static const u8 *way_in(const struct xexit *x, const struct xblock *to)
{
	if (to->pic && x->key)
		return x->saved ? to->pic->by_key : to->pic->by_key_a;
	return x->saved ? to->entry_b : to->entry_a;
}

static void link_exit(struct soft_cpu *c, struct xexit *x, struct xblock *to, u64 key)
{
	struct jit *j = c->jit;

	if (!x->jump || jit_rip(c, x->from, x->rip) != c->rip)
		return;
	/* Without a check only into the same memory: a fault in between may have brought another page. */
	if (!x->key && (x->from->hva ^ to->hva) >> 12)
		return;
	if (x->from->mode != to->mode)
		return;
	/* One of them was made before the page was met at another address. */
	if (!x->key && !x->from->pic != !to->pic) {
		jit_again(c, x->from->pic ? to : x->from, false);
		return;
	}
	/* It left by the stub for another reason: that somebody wanted the loop. */
	if (__atomic_load_n(&x->to, __ATOMIC_RELAXED) == to &&
	    (!x->key || __atomic_load_n(&x->key->last, __ATOMIC_RELAXED) == key))
		return;
	if (!share_trylock(c->svm))
		return;
	if (!x->from->dead && !to->dead && (!x->key || may_have_key(c, x, key))) {
		unlink_exit(c->svm, x);
		__atomic_store_n(&x->to, to, __ATOMIC_RELAXED);
		x->next_in = to->in;
		to->in = x;
		emit_set_jump(x->jump, j->rx - j->rw, way_in(x, to));
		if (x->key) {
			__atomic_store_n(&x->key->last, key, __ATOMIC_RELAXED);
			__atomic_store_n((u64 *)(void *)x->key->place, key, __ATOMIC_RELEASE);
		}
		j->nr_links++;
	}
	share_unlock(c->svm);
}

/* No vCPU finds x by its address any more, but for one that has just found it. One that enters x into its jcache
 * at this moment, in set_gen(), sees that it is dead, or is seen here. */
static void forget_address(const struct soft_vm *s, const struct xblock *x)
{
	if (x->pic) { /* it may be there by many: what finds it there is led away */
		emit_set_jump(x->pic->jump, s->jit->rx - s->jit->rw, s->jit->dead);
		return;
	}
	for (u32 k = 0; k < s->vm->nr_vcpus; k++) {
		const struct soft_cpu *c = share_cpu(s, k);
		struct jcache *e = c ? &c->jit_cpu->jcache[jcache_hash(x->rip)] : NULL;

		/* Not both at once for one who looks: it checks x and gen, and a generation is never 0. */
		if (e && __atomic_load_n(&e->x, __ATOMIC_RELAXED) == x) {
			__atomic_store_n(&e->gen, 0, __ATOMIC_RELAXED);
			__atomic_store_n(&e->x, NULL, __ATOMIC_RELAXED);
		}
	}
}

static void drop(struct soft_vm *s, struct xblock *x)
{
	__atomic_store_n(&x->dead, true, __ATOMIC_RELAXED);
	atomic_thread_fence(memory_order_seq_cst);
	while (x->in)
		unlink_exit(s, x->in);
	for (struct xexit *e = x->exits; e; e = e->next)
		unlink_exit(s, e);
	forget_address(s, x);
	s->jit->nr_dropped++;
}

void jit_drop(struct soft_vm *s, struct block *b)
{
	struct xblock *x = b->x;

	__atomic_store_n(&b->x, NULL, __ATOMIC_RELAXED);
	for (; x; x = x->next)
		drop(s, x);
}

void jit_moved(struct xblock *x, struct block *to)
{
	for (; x; x = x->next)
		x->block = to;
}

/* Takes a translation from its block's list. */
static void detach(struct xblock *x)
{
	for (struct xblock **p = &x->block->x; *p; p = &(*p)->next)
		if (*p == x) {
			__atomic_store_n(p, x->next, __ATOMIC_RELEASE);
			return;
		}
}

/* Under the lock. */
static void again(struct soft_vm *s, struct xblock *x, bool extend)
{
	x->block->extend = extend;
	detach(x);
	drop(s, x);
}

void jit_again(struct soft_cpu *c, struct xblock *x, bool extend)
{
	share_lock(c->svm);
	if (!x->dead)
		again(c->svm, x, extend);
	share_unlock(c->svm);
}

/* --- trials of windows --- */
static void end_trial(struct soft_cpu *c, struct xblock *x)
{
	struct block *b = x->block;

	share_lock(c->svm);
	if (!x->dead) {
		b->tried = true;
		/* From elsewhere than a canonical address it does not come back. */
		b->target = x->nr_targets == 1 && bits_sext(x->target, 48) == x->target ? x->target : 0;
		for (u32 k = 0; k < x->nr_windows; k++)
			if (x->windows[k].misses > x->trial_misses)
				b->no_window |= BIT(x->windows[k].k);
		/* A conditional jump has two ways out, the second where it is not taken. */
		again(c->svm, x, x->exits && x->exits->next && x->exits->to);
	}
	share_unlock(c->svm);
}

/* Windows have missed often meanwhile. */
static void begin_trial(struct soft_cpu *c, struct xblock *x)
{
	share_lock(c->svm);
	if (!x->dead) {
		x->block->tried = false;
		x->block->trials = (u8)MIN(x->block->trials + 1, BLOCK_TRIALS);
		x->block->no_window = x->block->target = 0;
		again(c->svm, x, false);
	}
	share_unlock(c->svm);
}

static void empty(struct jit *j, u32 region)
{
	struct jit_region *r = &j->regions[region];

	r->code_used = region ? 0 : j->glue_used;
	r->data_used = 0;
	atomic_store_explicit(&r->nr_blocks, 0, memory_order_relaxed);
}

void jit_forget(struct soft_cpu *c)
{
	for (u32 k = 0; k < 1u << JCACHE_BITS; k++)
		c->jit_cpu->jcache[k] = JCACHE_FREE;
	c->jit_rec = NULL;
}

void jit_flush(struct soft_vm *s)
{
	struct jit *j = s->jit;

	if (!j)
		return;
	for (u32 k = 0; k < s->vm->nr_vcpus; k++)
		if (share_cpu(s, k))
			jit_forget(share_cpu(s, k));
	for (u32 k = 0; k < REGIONS_MOST; k++)
		empty(j, k);
}

/* --- by address --- */
/* The entry says that gen's translations still lead to x, unless x is dropped at this moment: see forget_address(). */
static void set_gen(struct jcache *e, const struct xblock *x, u64 gen)
{
	__atomic_store_n(&e->gen, gen, __ATOMIC_RELAXED);
	atomic_thread_fence(memory_order_seq_cst);
	if (__atomic_load_n(&x->dead, __ATOMIC_RELAXED))
		__atomic_store_n(&e->gen, 0, __ATOMIC_RELAXED);
}

/* What the cache has for RIP, if that means the memory that was translated; NULL: nothing. */
static struct xblock *find_address(struct soft_cpu *c)
{
	struct jcache *e = &c->jit_cpu->jcache[jcache_hash(c->rip)];
	struct xblock *x = __atomic_load_n(&e->x, __ATOMIC_RELAXED);
	u64 gen = c->code_gen[c->rip >> 63];

	if (e->rip != c->rip || !x || (c->key & (KEY_MODE | KEY_FLAT)) != x->mode ||
	    __atomic_load_n(&x->dead, __ATOMIC_RELAXED))
		return NULL;
	/* Also where gen is right: the exit that led here is about to be linked with the key. */
	if (tlb_code_key(c, c->rip) != tlb_key(c->rip, x->hva - (u64)c->ram->base))
		return NULL;
	if (__atomic_load_n(&e->gen, __ATOMIC_RELAXED) != gen)
		set_gen(e, x, gen);
	return x;
}

/* Enters x, which is to run at c->rip. One that crosses comes back here when its check fails: not at once to
 * itself. */
static void remember(struct soft_cpu *c, struct xblock *x)
{
	struct jcache *e = &c->jit_cpu->jcache[jcache_hash(c->rip)];

	/* The key may be gone again, and with it what a change of the generation would say. */
	if (code_crosses(x->block) || tlb_code_key(c, c->rip) != tlb_key(c->rip, x->hva - (u64)c->ram->base))
		return;
	e->rip = c->rip;
	e->code = x->pic ? x->pic->by_address : x->entry_b;
	__atomic_store_n(&e->x, x, __ATOMIC_RELAXED);
	set_gen(e, x, c->code_gen[c->rip >> 63]);
}

/* --- one instruction for translated code --- */
/* The translation at RIP after an instruction that transferred control, if it is at hand; NULL: leave. What returns
 * the stack for calls knows were made under other rights, perhaps, or in another address space. */
static const u8 *go_on(struct soft_cpu *c)
{
	const struct xblock *x = find_address(c);

	if (!x || soft_recalled(c))
		return NULL;
	c->jit_rsp = c->jit_stack;
	jit_set_page(c);
	return x->entry_b;
}

/* Word by word: what a string instruction has stored cannot be forwarded to the loads of the handler. */
static inline void copy_insn(struct insn *to, const struct insn *from)
{
	any_u64 *d = (any_u64 *)(void *)to;
	const any_u64 *s = (const any_u64 *)(const void *)from;

	_Static_assert(sizeof(*to) % sizeof(*d) == 0, "whole words");
#pragma GCC unroll 8
	for (unsigned k = 0; k < sizeof(*to) / sizeof(*d); k++)
		d[k] = s[k];
}

const u8 *jit_step(struct soft_cpu *c, const struct xrec *rec)
{
	struct block *b = rec->x->block;
	struct insn *i = c->jit_insn;
	u32 stop;

	c->jit_cpu->nr_steps++;
	if (unlikely(!rec->x->left))
		begin_trial(c, rec->x);
	c->cur = b;
	c->icount += b->n - rec->k;
	c->gpr[RIPB] = jit_rip(c, rec->x, rec->x->rip);
	copy_insn(i, &b->insn[rec->k]);
	i->fn = __atomic_load_n(&b->insn[rec->k].fn, __ATOMIC_RELAXED);
	if (unlikely(i->fn == op_stop)) { /* another vCPU has dropped the block */
		c->icount -= b->n - rec->k;
		c->rip = soft_rip(c, i);
		return NULL;
	}
	c->jit_stepped = false;
	i->fn(c, i);
	c->icount -= b->n - rec->k - 1u;
	/* A deadline that became sooner is the loop's to arm. */
	stop = soft_attention(c) | c->jit_stop | c->activity | (c->vcpu->timer_tsc < c->armed_tsc) |
	       atomic_load_explicit(&c->vcpu->requests, memory_order_relaxed);
	c->jit_stop = 0;
	if (!c->jit_stepped) /* it set RIP: control flow, or it is to be resumed */
		return unlikely(stop) ? NULL : go_on(c);
	if (unlikely(stop)) {
		c->rip = soft_next_rip(c, i);
		return NULL;
	}
	if (rec->vec && !c->vec_live)
		fpu_load(c);
	return rec->resume ? c->jit->rx + rec->resume : NULL;
}

void jit_op_stepped(struct soft_cpu *c, const struct insn *i)
{
	c->jit_stepped = true;
}

/* --- faults of the host --- */
static struct xblock *block_at(struct jit *j, const u8 *rx)
{
	const struct jit_region *r = &j->regions[(u64)(rx - j->rx) / JIT_CODE];
	u32 lo = 0, n = atomic_load_explicit(&r->nr_blocks, memory_order_acquire), hi = n;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (r->blocks[mid]->code_end <= rx)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && rx >= r->blocks[lo]->code ? r->blocks[lo] : NULL;
}

u64 jit_fault(struct soft_cpu *c, u64 addr)
{
	struct jit *j = c->jit;
	const u8 *rx = (const u8 *)(uintptr_t)addr;
	struct xblock *x;

	if (!j || rx < j->rx || rx >= j->rx + JIT_CODE_SIZE || !(x = block_at(j, rx)))
		return 0;
	for (u32 k = 0; k < x->nr_faults; k++) {
		const struct xfault *f = &x->faults[k];

		if (x->code + f->off != rx)
			continue;
		c->jit_cpu->fault = (struct xrec){ .x = x, .k = f->k };
		c->jit_rec = &c->jit_cpu->fault;
		return (u64)(uintptr_t)(f->loop    ? x->loop_bail[f->saved]
					: f->saved ? j->bail_saved
						   : j->bail_host);
	}
	for (u32 k = x->nr_windows; k-- > 0;)
		if (rx >= x->code + x->windows[k].from)
			return (u64)(uintptr_t)(x->code + x->windows[k].to);
	return 0;
}

/* A translation for any address has a PUSH in front of each CALL, with the same prefix and opcode as one of the CALLs. */
static bool is_push(const u8 *rx)
{
	return rx[0] == 0x65 && rx[1] == 0xff && (rx[2] >> 3 & 7) == 6;
}

u64 jit_stack_full(struct soft_cpu *c, u64 addr, bool leave)
{
	struct jit *j = c->jit;
	const u8 *rx = (const u8 *)(uintptr_t)addr;
	const struct xblock *x = rx >= j->rx && rx < j->rx + JIT_CODE_SIZE ? block_at(j, rx) : NULL;
	unsigned push = x && x->pic ? JIT_PUSH_NEXT : 0;

	if (push && !is_push(rx)) /* what it pushed is not on the empty stack */
		rx -= push;
	for (const struct xexit *e = leave && x ? x->exits : NULL; e; e = e->next)
		if (e->jump && rx + push + 1 == e->jump + (j->rx - j->rw))
			return (u64)(uintptr_t)e->stub;
	return (u64)(uintptr_t)rx;
}

/* --- running --- */
/* From instruction k of its block to the block's end, as the interpreter would. */
static void interpret(struct soft_cpu *c, struct xblock *x, unsigned k)
{
	struct block *b = x->block;

	c->cur = b;
	c->icount += b->n - k;
	c->gpr[RIPB] = jit_rip(c, x, x->rip);
	b->insn[k].fn(c, &b->insn[k]);
}

static void count_bail(struct soft_cpu *c, const struct xrec *rec)
{
	struct xblock *x = rec->x;
	u16 n;

	c->jit_cpu->nr_bails++;
	if (!x->left)
		begin_trial(c, x);
	if (!rec->group)
		return;
	/* About: others count, too. */
	n = (u16)(__atomic_load_n(&x->nr_bails, __ATOMIC_RELAXED) + 1);
	__atomic_store_n(&x->nr_bails, n, __ATOMIC_RELAXED);
	if (n < MAX_BAILS)
		return;
	/* The next translation goes on by itself; or, if that one has others, does without. */
	share_lock(c->svm);
	if (!x->dead) {
		if (x->block->n <= X_SPLIT_MOST && !x->block->split)
			x->block->split = true;
		else
			x->block->no_groups = true;
		detach(x);
		drop(c->svm, x);
	}
	share_unlock(c->svm);
}

/* An indirect jump or RET to an address that is not known: RIP is set, or the instruction is done again so
 * that it faults. */
static void jumped(struct soft_cpu *c, const struct xrec *rec, bool ret)
{
	const struct insn *i = &rec->x->block->insn[rec->k];

	c->jit_cpu->nr_misses++;
	if (likely(bits_sext(c->jit_target, 48) == c->jit_target)) {
		c->rip = c->jit_target;
		return;
	}
	if (ret)
		c->gpr[R_SP] -= 8 + i->imm;
	interpret(c, rec->x, rec->k);
}

void jit_left(struct soft_cpu *c, enum jit_end end)
{
	struct jit *j = c->jit;
	const struct xrec *rec;

	if (end == JIT_EXIT) { /* the exit stays in jit_rec: to be linked */
		const struct xexit *x = c->jit_rec;

		c->rip = jit_rip(c, x->from, x->rip);
		if (unlikely(x->why != XEXIT_GO)) {
			c->jit_rec = NULL;
			if (x->why == XEXIT_CHANGED)
				code_changed(c, x->from->block);
			else if (x->why == XEXIT_QUIET)
				code_quiet(c, x->from->block);
			else
				end_trial(c, x->from);
		}
		return;
	}
	rec = end == JIT_RET ? (const struct xrec *)(j->data + c->jit_ret) : c->jit_rec;
	c->jit_rec = NULL; /* what follows may fault, and not return here */
	if (end == JIT_BAIL) {
		count_bail(c, rec);
		interpret(c, rec->x, rec->k);
	} else if (end != JIT_STEP) {
		jumped(c, rec, end == JIT_RET);
	}
}

static void run(struct soft_cpu *c, struct xblock *x)
{
	c->jit_cpu->nr_entries++;
	jit_set_page(c);
	jit_left(c, (enum jit_end)c->jit->enter(c, x->entry_b));
}

/* Translation x is about to run at c->rip: the exit that led here is linked to it. */
static void enter(struct soft_cpu *c, struct xblock *x)
{
	if (c->jit_rec)
		link_exit(c, c->jit_rec, x, tlb_code_key(c, c->rip));
	c->jit_rec = NULL;
	run(c, x);
}

bool jit_try(struct soft_cpu *c)
{
	struct xblock *x = find_address(c);

	if (!x)
		return false;
	enter(c, x);
	return true;
}

static bool is_full(const struct jit_region *r)
{
	return r->code_used + JIT_BLOCK_CODE > JIT_CODE || r->data_used + JIT_BLOCK_DATA > JIT_DATA ||
	       r->nr_blocks == JIT_MAX_BLOCKS;
}

/* By an address there may be what is for any, and its memory is about to be used anew. */
static void forget_dropped(struct soft_cpu *c)
{
	for (u32 k = 0; c && k < 1u << JCACHE_BITS; k++) {
		struct jcache *e = &c->jit_cpu->jcache[k];

		if (e->x && e->x->dead)
			*e = JCACHE_FREE;
	}
}

void jit_give_up(struct soft_vm *s, u32 region)
{
	struct jit *j = s->jit;
	struct jit_region *r = &j->regions[region];

	for (u32 k = 0; k < r->nr_blocks; k++) {
		struct xblock *x = r->blocks[k];

		if (!x->dead) {
			regions_gone(&j->use, x->block->hva);
			detach(x);
			drop(s, x);
		}
	}
	/* Exits by which vCPUs came out are perhaps of the region. */
	for (u32 k = 0; k < s->vm->nr_vcpus; k++)
		if (share_cpu(s, k))
			share_cpu(s, k)->jit_rec = NULL;
	for (u32 k = 0; k < s->vm->nr_vcpus; k++)
		forget_dropped(share_cpu(s, k));
	j->nr_evicted += r->nr_blocks != 0;
	empty(j, region);
	share_refetch(s);
}

static void next_region(struct soft_cpu *c)
{
	struct soft_vm *s = c->svm;
	struct jit *j = s->jit;

	share_alone(c);
	share_lock(s);                       /* not all who change the cache are vCPUs */
	if (is_full(&j->regions[j->use.at])) /* else another one has done it meanwhile */
		jit_give_up(s, regions_next(&j->use));
	share_unlock(s);
	share_together(c);
}

static struct xblock *find(struct block *b, gva_t rip)
{
	struct xblock *x = __atomic_load_n(&b->x, __ATOMIC_ACQUIRE);

	while (x && !(x->pic ? !(rip >> 63) : x->rip == rip))
		x = x->next;
	return x;
}

/* Is the translation of b at this address to be one for any? If it is another address than that of one which is there, the
 * page's others are dropped, so that they lead to each other again. Under the lock. */
static bool for_any_address(struct soft_vm *s, struct block *b, gva_t rip)
{
	if (rip >> 63)
		return false;
	/* Its addresses would have to be cut, so there are translations for each; but not ever more. */
	if (b->key & KEY_FLAT) {
		unsigned n = 0;

		for (const struct xblock *x = b->x; x; x = x->next)
			n++;
		if (n >= MAX_ADDRESSES)
			jit_drop(s, b);
		return false;
	}
	for (const struct xblock *x = b->x; x; x = x->next)
		if (!(x->rip >> 63)) {
			code_pic(s, b);
			jit_drop(s, b); /* one that crosses is not among the page's */
			break;
		}
	return s->jit->pic || code_is_pic(s->code, b);
}

/* The translation of b at c->rip, made now or by another vCPU meanwhile. NULL: there is none, or no room. Under the
 * lock. */
static struct xblock *make(struct soft_cpu *c, struct block *b)
{
	struct jit *j = c->jit;
	struct jit_region *r = &j->regions[j->use.at];
	struct xblock *x = find(b, c->rip);
	u32 n;

	if (x || !b->hva || is_full(r))
		return x;
	b = b->extend ? code_find_longer(c, b) : code_find_shorter(c, b);
	x = translate_block(c, b, c->rip, for_any_address(c->svm, b, c->rip));
	if (!x) {
		__atomic_store_n(&b->heat, BLOCK_COLD, __ATOMIC_RELAXED);
		return NULL;
	}
	regions_made(&j->use, b->hva);
	n = r->nr_blocks;
	r->blocks[n] = x;
	atomic_store_explicit(&r->nr_blocks, n + 1, memory_order_release);
	x->next = b->x;
	__atomic_store_n(&b->x, x, __ATOMIC_RELEASE);
	if (unlikely(j->perf_map)) {
		fpu_spill(c);
		jit_host_map(j, x, c->rip);
	}
	__atomic_store_n(&b->heat, 0, __ATOMIC_RELAXED); /* at another address: anew */
	return x;
}

bool jit_block(struct soft_cpu *c, struct block *b)
{
	struct jit *j = c->jit;
	u16 heat = __atomic_load_n(&b->heat, __ATOMIC_RELAXED);
	struct xblock *x;
	bool full;

	if (heat == BLOCK_COLD || !code_hva(b))
		return false;
	x = find(b, c->rip);
	if (!x) {
		/* About: others count, too. */
		__atomic_store_n(&b->heat, ++heat, __ATOMIC_RELAXED);
		if (heat < j->warm)
			return false;
		if (!share_trylock(c->svm))
			return false;
		x = make(c, b);
		full = is_full(&j->regions[j->use.at]);
		share_unlock(c->svm);
		if (!x && !full)
			return false;
		if (!x) {
			next_region(c);
			return true; /* b is perhaps no more: look again */
		}
	}
	if (unlikely(j->lockstep))
		return lockstep_block(c, x->block, x);
	remember(c, x);
	enter(c, x);
	return true;
}
