/* The lock-step mode (--engine soft,lockstep=on): the interpreter tests the translator, on whatever a guest
 * does.
 *
 * Every block that has a translation is run twice from the same state: by the interpreter, and, after its
 * stores have been taken back, by the translation. Registers, flags, vector state, faults and memory must be
 * the same. Translations are not linked and not found by address (jit.c), so that one run is one block; a
 * translation that repeats its block (xloop.c) is compared with as many rounds of the interpreter.
 *
 * While the interpreter runs, the TLB in use is an empty one, so that all stores come to mmu.c, which notes
 * the bytes that they replace. Page tables' accessed and dirty bits are left as the first run set them.
 *
 * What cannot be done twice is not compared: exits to devices, time, random numbers, changes of the TLB and
 * of code. The interpreter's result stands then; otherwise both are the same.
 *
 * What a translation does depends on what it finds: the way in (flags in RFLAGS or saved), vector state in
 * the host's registers or not, TLB hit or miss, the stack's page known or not. Each comparison draws one
 * combination.
 *
 * Translations may stop early, after any instruction, when something waits for the loop. Then the
 * interpreter does the block again up to there. STI is the other way round: the interpreter leaves the block
 * for its shadow, a translation with nothing pending goes on, and so does the interpreter here.
 *
 * A difference counts when it is there each time of several, so with page tables and TLB as both leave them.
 *
 * Not covered: links between translations, returns by the host's stack, and what several vCPUs do to each
 * other.
 *
 * On the vCPU's thread, with the guest's vector state perhaps in the host's registers. */
#include "cpu/soft/jit/lockstep.h"

#include "cpu/soft/fpu.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/ops.h"

#define MAX_TRIES  4
#define MAX_ROUNDS 1000 /* of a loop */
#define MARGIN     64   /* bytes around stores that are compared too */
#define WHOLE      16   /* every so many times whole pages are */

/* clang-format off */
#define GPR(name, n) { name, offsetof(struct soft_cpu, gpr) + 8 * (n), 8 }
#define FIELD(f) { #f, offsetof(struct soft_cpu, f), sizeof(((struct soft_cpu *)0)->f) }
#define SEGREG(name, f) \
	{ name, offsetof(struct soft_cpu, f.sel), 2 }, { name " base", offsetof(struct soft_cpu, f.base), 8 }, \
	{ name " limit", offsetof(struct soft_cpu, f.limit), 4 }, \
	{ name " attributes", offsetof(struct soft_cpu, f.attr), 4 }

const struct lockstep_field lockstep_fields[] = {
	GPR("rax", 0), GPR("rcx", 1), GPR("rdx", 2), GPR("rbx", 3), GPR("rsp", 4), GPR("rbp", 5), GPR("rsi", 6),
	GPR("rdi", 7), GPR("r8", 8), GPR("r9", 9), GPR("r10", 10), GPR("r11", 11), GPR("r12", 12), GPR("r13", 13),
	GPR("r14", 14), GPR("r15", 15), FIELD(rip), { "arithmetic flags", offsetof(struct soft_cpu, fl), 2 },
	{ "other flags", offsetof(struct soft_cpu, flags), 4 }, GPR("the register that is 0", RZERO),
	FIELD(cpl), FIELD(key), FIELD(attention), FIELD(activity), FIELD(nmi_blocked), FIELD(nmi_pending),
	SEGREG("es", seg[SEG_ES]), SEGREG("cs", seg[SEG_CS]), SEGREG("ss", seg[SEG_SS]), SEGREG("ds", seg[SEG_DS]),
	SEGREG("fs", seg[SEG_FS]), SEGREG("gs", seg[SEG_GS]), SEGREG("no segment", seg[SEG_FLAT]),
	SEGREG("ldtr", ldtr), SEGREG("tr", tr),
	FIELD(gdtr.base), FIELD(gdtr.limit), FIELD(idtr.base), FIELD(idtr.limit),
	FIELD(cr0), FIELD(cr2), FIELD(cr3), FIELD(cr4), FIELD(efer), FIELD(xcr0),
	FIELD(dr[0]), FIELD(dr[1]), FIELD(dr[2]), FIELD(dr[3]), FIELD(dr6), FIELD(dr7),
	FIELD(star), FIELD(lstar), FIELD(cstar), FIELD(sfmask), FIELD(kernel_gs_base), FIELD(tsc_aux),
	FIELD(sysenter_cs), FIELD(sysenter_esp), FIELD(sysenter_eip), FIELD(pat), FIELD(mtrr_def_type),
	FIELD(mtrr_fixed), FIELD(mtrr_base), FIELD(mtrr_mask), FIELD(misc_enable), FIELD(spec_ctrl), FIELD(xss),
	FIELD(tsc_adjust), FIELD(pdpte), FIELD(exc.vector), FIELD(exc.has_error), FIELD(exc.error), FIELD(exc.rip),
	FIELD(x87_fcs), FIELD(x87_fds),
};
/* clang-format on */
const unsigned lockstep_nr_fields = ARRAY_SIZE(lockstep_fields);

/* --- states --- */
/* Everything up to the engine's own fields; and the x87 pointers. */
#define REGS_END offsetof(struct soft_cpu, in_run)
#define X87      offsetof(struct soft_cpu, x87_fip)
#define X87_END  offsetof(struct soft_cpu, mxcsr_host)

/* Vector state is in c->xsave. */
static void save(struct soft_cpu *c, struct lockstep_state *s)
{
	soft_copy(&s->c, c, REGS_END);
	soft_copy((u8 *)&s->c + X87, (u8 *)c + X87, X87_END - X87);
	soft_copy(s->xsave, c->xsave, sizeof(s->xsave));
}

static void restore(struct soft_cpu *c, const struct lockstep_state *s)
{
	soft_copy(c, &s->c, REGS_END);
	soft_copy((u8 *)c + X87, (const u8 *)&s->c + X87, X87_END - X87);
	soft_copy(c->xsave, s->xsave, sizeof(s->xsave));
	soft_mode_changed(c);
}

static bool same_bytes(const void *a, const void *b, u64 n)
{
	const u8 *p = a, *q = b;
	u64 k = 0;

	for (; k + 8 <= n; k += 8)
		if (ld64(p + k) != ld64(q + k))
			return false;
	for (; k < n; k++)
		if (p[k] != q[k])
			return false;
	return true;
}

/* What is not the guest's is made equal: only the copies are concerned. */
static void level(struct lockstep_state *to, const struct lockstep_state *from)
{
	const struct soft_cpu *f = &from->c;
	struct soft_cpu *t = &to->c;

	t->gpr[RIPB] = f->gpr[RIPB];
	t->tlb[0] = f->tlb[0];
	t->tlb[1] = f->tlb[1];
	t->vec_live = f->vec_live;
	t->sse_gate = f->sse_gate;
	t->avx_gate = f->avx_gate;
	t->avx512_gate = f->avx512_gate;
	t->budget = f->budget;
	t->icount = f->icount;
	t->pause_first = f->pause_first;
	t->pause_last = f->pause_last;
	t->cur = f->cur;
	soft_copy(t->trail, f->trail, sizeof(t->trail));
	t->trail_next = f->trail_next;
	if (!to->fault)
		soft_copy(&t->exc, &f->exc, sizeof(t->exc));
}

/* Padding between fields may differ, so the table has the last word. */
static bool same_fields(const struct soft_cpu *a, const struct soft_cpu *b)
{
	if (same_bytes(a, b, REGS_END) && a->x87_fcs == b->x87_fcs && a->x87_fds == b->x87_fds)
		return true;
	for (unsigned k = 0; k < lockstep_nr_fields; k++) {
		const struct lockstep_field *f = &lockstep_fields[k];

		if (!same_bytes((const u8 *)a + f->offset, (const u8 *)b + f->offset, f->size))
			return false;
	}
	return true;
}

/* MXCSR_MASK is the host's, and XSTATE_BV no more than a hint. */
static bool same_xsave(const u8 *a, const u8 *b)
{
	return same_bytes(a, b, FPU_MXCSR_MASK) && same_bytes(a + FPU_ST, b + FPU_ST, FPU_XMM_END - FPU_ST) &&
	       same_bytes(a + FPU_YMMH, b + FPU_YMMH, LOCKSTEP_XSAVE - FPU_YMMH);
}

/* --- the two runs --- */
/* Calls fn; true: it raised a fault. Not inlined: __builtin_setjmp() saves this frame. */
static __attribute__((noinline)) bool guarded(struct soft_cpu *c, void (*fn)(struct soft_cpu *c))
{
	if (__builtin_setjmp(c->jb))
		return true;
	fn(c);
	return false;
}

static bool is_loop(const struct xblock *x)
{
	return x->loop_bail[0] != NULL;
}

/* The instruction of b that begins at RIP, b->n: none. */
static unsigned insn_at(const struct lockstep *l, u64 rip)
{
	const struct block *b = l->block;

	for (unsigned k = 0; k < b->n; k++)
		if (l->before.c.rip + b->insn[k].off == rip)
			return k;
	return b->n;
}

/* STI, by its handler, has ended the block with nothing pending: on to what follows. */
static void pass_sti(struct soft_cpu *c)
{
	struct lockstep *l = c->lockstep;
	struct block *b = l->block;

	while (unlikely(c->attention == ATT_SHADOW) && !c->activity) {
		unsigned k = insn_at(l, c->rip);

		if (c->rip == l->before.c.rip + b->bytes && b->insn[b->n - 1].fn == op_sti) {
			c->attention = 0;
			l->shadow = ATT_SHADOW;
			return;
		}
		if (k == b->n || k == 0 || b->insn[k - 1].fn != op_sti)
			return;
		c->attention = 0;
		if (k == l->limit)
			return;
		b->insn[k].fn(c, &b->insn[k]);
	}
}

static void interpret(struct soft_cpu *c)
{
	struct lockstep *l = c->lockstep;
	struct block *b = l->block;

	for (l->rounds = 1;; l->rounds++) {
		c->cur = b;
		c->gpr[RIPB] = c->rip;
		c->icount += b->n;
		c->trail[c->trail_next++ % SOFT_TRAIL] = c->rip;
		b->insn[0].fn(c, &b->insn[0]);
		pass_sti(c);
		if (!is_loop(l->xblock) || c->rip != l->before.c.rip || c->once || l->log.full)
			return;
		if (l->rounds == MAX_ROUNDS) {
			l->long_loop = true;
			return;
		}
	}
}

static void run_interpreter(struct soft_cpu *c)
{
	struct lockstep *l = c->lockstep;
	struct insn *stop = &l->block->insn[l->limit];
	insn_fn fn = stop->fn;

	storelog_clear(&l->log);
	l->long_loop = false;
	l->shadow = 0;
	c->once = c->loaded = false;
	c->log = &l->log;
	mmu_select(c);
	stop->fn = op_end_of_block;
	l->interpreted.fault = guarded(c, interpret);
	if (stop->fn == op_end_of_block) /* else the block has been dropped */
		stop->fn = fn;
	c->log = NULL;
	l->vec_used = c->loaded;
	fpu_spill(c);
	save(c, &l->interpreted);
}

/* The page of each register's value into that register's window, as far as the TLB allows. */
static void fill_windows(struct soft_cpu *c)
{
	for (unsigned r = 0; !c->windows_held && r < X86_NR_GPR; r++) {
		const struct tlb_entry *e = tlb_slot(c, c->gpr[r]);
		struct window *w = &c->window[c->rip >> 63][r];
		u64 page = c->gpr[r] & ~(RAM_PAGE_SIZE - 1);

		w->r = e->r == page ? page : WINDOW_NONE;
		w->w = e->w == page ? page : WINDOW_NONE;
		w->addend = e->addend;
	}
}

/* A translated loop may come back after each round. */
static void enter(struct soft_cpu *c)
{
	struct lockstep *l = c->lockstep;
	struct jit *j = c->jit;
	u64 end, fl = c->fl;

	jit_set_page(c);
	if (l->how & LOCKSTEP_A) {
		c->fl = (u16)~fl; /* not to be looked at */
		end = j->enter_host(c, l->xblock->entry_a, fl);
	} else {
		end = j->enter(c, l->xblock->entry_b);
	}
	jit_left(c, (enum jit_end)end);
	pass_sti(c);
	for (unsigned k = 1; k < l->rounds && c->rip == l->before.c.rip && !c->once; k++) {
		c->jit_rec = NULL;
		jit_left(c, (enum jit_end)j->enter(c, l->xblock->entry_b));
	}
}

static void run_translation(struct soft_cpu *c)
{
	struct lockstep *l = c->lockstep;
	struct xblock *x = l->xblock;
	u16 bails = x->nr_bails;
	bool recalled = soft_recalled(c);

	soft_let_go(c);
	if (l->vec_used && !(l->how & LOCKSTEP_DEAD))
		fpu_load(c);
	if (l->how & LOCKSTEP_MISS) {
		c->tlb[0] = c->tlb[1] = c->no_tlb;
		x->nr_bails = 0;
	} else if (l->how & LOCKSTEP_WINDOW) {
		fill_windows(c);
	}
	c->jit_rec = NULL;
	c->jit_stop = 0;
	c->once = false;
	l->crashed = false;
	l->running = true;
	l->translated.fault = guarded(c, enter);
	l->running = false;
	l->other_exit = c->once;
	c->jit_rec = NULL;
	if (l->how & LOCKSTEP_MISS)
		x->nr_bails = bails;
	if (recalled)
		soft_recall(c);
	fpu_spill(c);
	save(c, &l->translated);
}

bool lockstep_fault(struct soft_cpu *c, u64 rip, u64 addr)
{
	struct lockstep *l = c->lockstep;

	if (!l || !l->running || rip - (u64)(uintptr_t)c->jit->rx >= JIT_CODE_SIZE)
		return false;
	l->crashed = true;
	l->crash_rip = rip;
	l->crash_addr = addr;
	return true;
}

_Noreturn void lockstep_recover(struct soft_cpu *c)
{
	__builtin_longjmp(c->jb, 1);
}

/* --- judgement --- */
static bool cannot_be_repeated(const struct block *b)
{
	for (unsigned k = 0; k < b->n; k++) {
		const struct insn *i = &b->insn[k];

		if (i->fn == op_rdtsc || i->fn == op_rdtscp || i->fn == op_rdmsr || i->fn == op_wrmsr)
			return true;
		if (i->map == 1 && i->opcode == 0xc7 && !i->mem &&
		    (i->modrm & 0x30) == 0x30) /* RDRAND, RDSEED */
			return true;
	}
	return false;
}

static bool was_repeatable(const struct soft_cpu *c, const struct lockstep *l)
{
	const struct soft_cpu *a = &l->before.c, *b = &l->interpreted.c;

	return !c->once && a->cr0 == b->cr0 && a->cr3 == b->cr3 && a->cr4 == b->cr4 && a->efer == b->efer &&
	       a->xcr0 == b->xcr0 && a->dr7 == b->dr7;
}

/* But for memory. */
static bool same_states(struct lockstep *l)
{
	struct lockstep_state *s1 = &l->interpreted, *s2 = &l->translated;

	if (l->crashed || l->other_exit || s1->fault != s2->fault)
		return false;
	level(s2, s1);
	return same_fields(&s1->c, &s2->c) && same_xsave(s1->xsave, s2->xsave);
}

/* Has the translation stopped at an instruction in the block? Of a loop also at the first. */
static bool stopped_early(const struct lockstep *l)
{
	u64 rip = l->translated.c.rip;

	return !l->crashed && !l->translated.fault && insn_at(l, rip) < l->block->n &&
	       (is_loop(l->xblock) || rip != l->before.c.rip);
}

static bool is_wanted(const struct soft_cpu *c)
{
	return c->attention || atomic_load_explicit(&c->vcpu->requests, memory_order_relaxed) ||
	       soft_recalled(c);
}

/* One of many. */
static unsigned draw(u64 n)
{
	u64 h = n * 0x9e3779b97f4a7c15ull >> 40;

	return (h & 1 ? LOCKSTEP_A : 0) | (h >> 1 & 7 ? 0 : LOCKSTEP_DEAD) |
	       (h >> 4 & 7 ? 0 : LOCKSTEP_MISS) | (h >> 7 & 1 ? LOCKSTEP_WINDOW : 0);
}

/* Everything as it was before the interpreter ran. */
static void go_back(struct soft_cpu *c)
{
	struct lockstep *l = c->lockstep;

	storelog_undo(&l->log);
	restore(c, &l->before);
}

static void interpret_and_keep(struct soft_cpu *c)
{
	struct lockstep *l = c->lockstep;

	run_interpreter(c);
	storelog_keep(&l->log, l->nr_equal % WHOLE ? MARGIN : RAM_PAGE_SIZE);
}

/* Runs both until they agree; false: they do not. Then memory and c are as the interpreter leaves them. */
static bool compare(struct soft_cpu *c)
{
	struct lockstep *l = c->lockstep;

	for (unsigned tries = 1;; tries++) {
		l->limit = l->block->n;
		interpret_and_keep(c);
		if (!was_repeatable(c, l)) {
			l->nr_once++;
			return true;
		}
		if (l->log.full || l->long_loop) {
			l->nr_long++;
			return true;
		}
		go_back(c);
		run_translation(c);
		if (same_states(l) && storelog_same(&l->log))
			break;
		storelog_copy(&l->log, &l->seen);
		storelog_redo(&l->log);
		if (stopped_early(l) && is_wanted(c)) {
			if (is_loop(l->xblock)) { /* in which round? */
				l->nr_interrupted++;
				return true;
			}
			go_back(c);
			l->limit = insn_at(l, l->translated.c.rip);
			interpret_and_keep(c);
			if (same_states(l) && storelog_same(&l->seen))
				break;
		}
		if (tries == MAX_TRIES)
			return false;
		l->nr_again++;
		go_back(c);
	}
	l->nr_equal++;
	return true;
}

/* Blocks are not on trial here, but grow as they would after it. */
static void grow(struct soft_cpu *c)
{
	struct lockstep *l = c->lockstep;

	if (l->block->hva && !l->xblock->dead && l->nr_equal % 4 == 0 &&
	    l->translated.c.rip == l->before.c.rip + l->block->bytes)
		jit_again(c, l->xblock, true);
}

bool lockstep_block(struct soft_cpu *c, struct block *b, struct xblock *x)
{
	struct lockstep *l = c->lockstep;
	bool same;

	if (cannot_be_repeated(b)) {
		l->nr_once++;
		return false;
	}
	l->block = b;
	l->xblock = x;
	l->how = draw(l->nr_equal);
	fpu_spill(c);
	save(c, &l->before);
	soft_copy(l->jb, c->jb, sizeof(l->jb));
	same = compare(c);
	soft_copy(c->jb, l->jb, sizeof(l->jb));
	restore(c, &l->interpreted);
	c->attention |= l->shadow;
	if (!same) {
		lockstep_report(c);
		c->activity = X86_SHUTDOWN;
		return true;
	}
	if (!l->interpreted.fault)
		grow(c);
	if (l->interpreted.fault) {
		c->cur = b;
		__builtin_longjmp(c->jb, 1);
	}
	return true;
}
