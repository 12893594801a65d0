/* The cache of translations: finding, linking, dropping them, and running them from the interpreter's loop.
 *
 * A block that has been interpreted often enough is translated for the linear address it runs at; physical code
 * at several addresses has several translations. From the loop a translation is found by address (struct jcache,
 * checked against the TLB), else through its block. Way out and way in are linked when the one has just led
 * to the other.
 *
 * Memory for code and for data about it is handed out in order and taken back as a whole; what is dropped stays
 * readable until then, since a RET may still come back to it: its ways out lead to the loop. jit_flush()
 * happens between blocks only, when the stack for calls holds nothing.
 *
 * All on the vCPU's thread, with the guest's vector state perhaps in the host's registers. */
#include "cpu/soft/jit/jit.h"

#include "cpu/soft/jit/lockstep.h"
#include "cpu/soft/ops.h"

/* Failures of a check for several accesses after which they are checked one by one. */
#define MAX_BAILS 24

/* --- links --- */
static void unlink_exit(struct jit *j, struct xexit *x)
{
	s64 rx_off = j->rx - j->rw;

	if (!x->to)
		return;
	if (x->key)
		st64(x->key, TLB_NEVER - 1);
	emit_set_jump(x->jump, rx_off, x->stub);
	for (struct xexit **p = &x->to->in; *p; p = &(*p)->next_in)
		if (*p == x) {
			*p = x->next_in;
			break;
		}
	x->to = NULL;
}

static void link_exit(struct jit *j, struct xexit *x, struct xblock *to, u64 key)
{
	if (!x->jump || x->from->dead || to->dead || x->rip != to->rip)
		return;
	/* Without a check only into the same memory: a fault in between may have brought another page. */
	if (!x->key && (x->from->block->hva ^ to->block->hva) >> 12)
		return;
	unlink_exit(j, x);
	x->to = to;
	x->next_in = to->in;
	to->in = x;
	emit_set_jump(x->jump, j->rx - j->rw, x->saved ? to->entry_b : to->entry_a);
	if (x->key)
		st64(x->key, key);
	j->nr_links++;
}

static void forget_address(struct jit *j, const struct xblock *x)
{
	struct jcache *e = &j->jcache[jcache_hash(x->rip)];

	if (e->x == x)
		*e = JCACHE_FREE;
}

static void drop(struct jit *j, struct xblock *x)
{
	x->dead = true;
	while (x->in)
		unlink_exit(j, x->in);
	for (u32 k = 0; k < x->nr_exits; k++)
		unlink_exit(j, x->exit[k]);
	forget_address(j, x);
	j->nr_dropped++;
}

void jit_drop(struct soft_cpu *c, struct block *b)
{
	for (struct xblock *x = b->x; x; x = x->next)
		drop(c->jit, x);
	b->x = NULL;
	if (b == c->cur)
		c->jit_stop = 1;
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
			*p = x->next;
			return;
		}
}

void jit_again(struct soft_cpu *c, struct xblock *x, bool extend)
{
	if (x->dead)
		return;
	x->block->extend = extend;
	detach(x);
	drop(c->jit, x);
}

/* --- trials of windows --- */
static void end_trial(struct soft_cpu *c, struct xblock *x)
{
	struct block *b = x->block;

	if (x->dead)
		return;
	b->tried = true;
	for (u32 k = 0; k < x->nr_windows; k++)
		if (x->windows[k].misses > x->trial_misses)
			b->no_window |= BIT(x->windows[k].k);
	/* A conditional jump has two ways out, the second where it is not taken. */
	jit_again(c, x, x->nr_exits >= 2 && x->exit[x->nr_exits - 1]->to);
}

/* Windows have missed often meanwhile. */
static void begin_trial(struct soft_cpu *c, struct xblock *x)
{
	if (x->dead)
		return;
	x->block->tried = false;
	x->block->no_window = 0;
	jit_again(c, x, false);
}

/* Memory that was executed is written anew through another address [SDM3 8.1.3]. */
static void serialize(void)
{
	u32 eax = 0, ebx, ecx = 0, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx) : : "memory");
}

static void empty(struct jit *j, u32 region)
{
	struct jit_region *r = &j->regions[region];

	r->code_used = region ? 0 : j->glue_used;
	r->data_used = 0;
	r->nr_blocks = 0;
}

void jit_flush(struct soft_cpu *c)
{
	struct jit *j = c->jit;

	for (u32 k = 0; k < 1u << JCACHE_BITS; k++)
		j->jcache[k] = JCACHE_FREE;
	for (u32 k = 0; k < JIT_REGIONS; k++)
		empty(j, k);
	j->region = 0;
	serialize();
	c->jit_rec = NULL;
}

/* --- by address --- */
static u64 key_of(const struct soft_cpu *c, const struct xblock *x)
{
	return tlb_key(x->rip, x->block->hva - (u64)c->ram->base);
}

/* What the cache has for RIP, if that means the memory that was translated; NULL: nothing. */
static struct jcache *find_address(struct soft_cpu *c)
{
	struct jcache *e = &c->jit->jcache[jcache_hash(c->rip)];
	u64 gen = c->code_gen[c->rip >> 63];

	if (e->rip != c->rip || !e->x || !soft_mode64(c))
		return NULL;
	if (e->gen != gen) {
		if (tlb_code_key(c, c->rip) != key_of(c, e->x))
			return NULL;
		e->gen = gen;
	}
	return e;
}

/* --- one instruction for translated code --- */
/* The translation at RIP after an instruction that transferred control, if it is at hand; NULL: leave. What returns
 * the stack for calls knows were made under other rights, perhaps, or in another address space. */
static const u8 *go_on(struct soft_cpu *c)
{
	const struct jcache *e = find_address(c);

	if (!e || soft_recalled(c))
		return NULL;
	c->jit_rsp = c->jit_stack;
	return e->code;
}

const u8 *jit_step(struct soft_cpu *c, const struct xrec *rec)
{
	struct block *b = rec->x->block;
	struct insn *i = c->jit_insn;
	u32 stop;

	c->jit->nr_steps++;
	if (unlikely(!rec->x->left))
		begin_trial(c, rec->x);
	c->cur = b;
	c->icount += b->n - rec->k;
	c->gpr[RIPB] = rec->x->rip;
	soft_copy(i, &b->insn[rec->k], sizeof(*i));
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
	return rec->resume;
}

void jit_op_stepped(struct soft_cpu *c, const struct insn *i)
{
	c->jit_stepped = true;
}

/* --- faults of the host --- */
static struct xblock *block_at(struct jit *j, const u8 *rx)
{
	const struct jit_region *r = &j->regions[(u64)(rx - j->rx) / JIT_CODE];
	u32 lo = 0, hi = r->nr_blocks;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (r->blocks[mid]->code_end <= rx)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < r->nr_blocks && rx >= r->blocks[lo]->code ? r->blocks[lo] : NULL;
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
		x->fault.x = x;
		x->fault.k = f->k;
		c->jit_rec = &x->fault;
		return (u64)(uintptr_t)(f->loop    ? x->loop_bail[f->saved]
					: f->saved ? j->bail_saved
						   : j->bail_host);
	}
	for (u32 k = x->nr_windows; k-- > 0;)
		if (rx >= x->code + x->windows[k].from)
			return (u64)(uintptr_t)(x->code + x->windows[k].to);
	return 0;
}

u64 jit_stack_full(struct soft_cpu *c, u64 addr)
{
	struct jit *j = c->jit;
	const u8 *rx = (const u8 *)(uintptr_t)addr;
	const struct xblock *x = rx >= j->rx && rx < j->rx + JIT_CODE_SIZE ? block_at(j, rx) : NULL;

	for (u32 k = 0; x && k < x->nr_exits; k++)
		if (x->exit[k]->jump && rx + 1 == x->exit[k]->jump + (j->rx - j->rw))
			return (u64)(uintptr_t)x->exit[k]->stub;
	return 0;
}

/* --- running --- */
/* From instruction k of its block to the block's end, as the interpreter would. */
static void interpret(struct soft_cpu *c, struct xblock *x, unsigned k)
{
	struct block *b = x->block;

	c->cur = b;
	c->icount += b->n - k;
	c->gpr[RIPB] = x->rip;
	b->insn[k].fn(c, &b->insn[k]);
}

static void count_bail(struct soft_cpu *c, const struct xrec *rec)
{
	struct xblock *x = rec->x;

	c->jit->nr_bails++;
	if (!x->left)
		begin_trial(c, x);
	if (!rec->group || x->dead || ++x->nr_bails < MAX_BAILS)
		return;
	/* Too often: the next translation does without. */
	x->block->no_groups = true;
	detach(x);
	drop(c->jit, x);
}

/* An indirect jump or RET to an address that is not known: RIP is set, or the instruction is done again so
 * that it faults. */
static void jumped(struct soft_cpu *c, const struct xrec *rec, bool ret)
{
	const struct insn *i = &rec->x->block->insn[rec->k];

	c->jit->nr_misses++;
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
		const struct xexit *exit = c->jit_rec;

		c->rip = exit->rip;
		if (exit == exit->from->again)
			end_trial(c, exit->from);
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
	c->jit->nr_entries++;
	jit_left(c, (enum jit_end)c->jit->enter(c, x->entry_b));
}

/* Translation x is about to run at c->rip: the exit that led here is linked to it. */
static void enter(struct soft_cpu *c, struct xblock *x)
{
	if (c->jit_rec)
		link_exit(c->jit, c->jit_rec, x, key_of(c, x));
	c->jit_rec = NULL;
	run(c, x);
}

bool jit_try(struct soft_cpu *c)
{
	const struct jcache *e = find_address(c);

	if (!e)
		return false;
	enter(c, e->x);
	return true;
}

static bool is_full(const struct jit_region *r)
{
	return r->code_used + JIT_BLOCK_CODE > JIT_CODE || r->data_used + JIT_BLOCK_DATA > JIT_DATA ||
	       r->nr_blocks == JIT_MAX_BLOCKS;
}

/* The next region gives up what it has. No translated code is running. */
static void next_region(struct soft_cpu *c)
{
	struct jit *j = c->jit;
	u32 n = j->region = (j->region + 1) % JIT_REGIONS;
	struct jit_region *r = &j->regions[n];

	if (!r->nr_blocks)
		return;
	for (u32 k = 0; k < r->nr_blocks; k++) {
		struct xblock *x = r->blocks[k];

		if (!x->dead) {
			detach(x);
			drop(j, x);
		}
	}
	empty(j, n);
	serialize();
	c->jit_rec = NULL; /* perhaps an exit of the region */
	j->nr_evicted++;
}

bool jit_block(struct soft_cpu *c, struct block *b)
{
	struct jit *j = c->jit;
	struct xblock *x;

	if (b->heat == BLOCK_COLD || !b->hva)
		return false;
	for (x = b->x; x; x = x->next)
		if (x->rip == c->rip)
			break;
	if (!x) {
		if (++b->heat < j->warm)
			return false;
		if (b->extend)
			b = code_extend(c, b);
		if (unlikely(is_full(&j->regions[j->region])))
			next_region(c);
		x = translate_block(c, b, c->rip);
		if (!x) {
			b->heat = BLOCK_COLD;
			return false;
		}
		x->next = b->x;
		b->x = x;
		j->regions[j->region].blocks[j->regions[j->region].nr_blocks++] = x;
		if (unlikely(j->perf_map)) {
			fpu_spill(c);
			jit_host_map(c, x);
		}
		b->heat = (u16)(j->warm - 1); /* at another address soon, too */
	}
	if (unlikely(j->lockstep))
		return lockstep_block(c, b, x);
	/* One that checks for itself comes back here when that fails: not at once to itself. And the TLB may have lost the
	 * page again, while other vCPUs were waited for. */
	if (!b->crosses && tlb_code_key(c, c->rip) == key_of(c, x))
		c->jit->jcache[jcache_hash(x->rip)] = (struct jcache){
			.rip = x->rip, .gen = c->code_gen[x->rip >> 63], .code = x->entry_b, .x = x
		};
	enter(c, x);
	return true;
}
