/* The loop: find the block at RIP, run it, look at events between blocks.
 *
 * Events are looked at when cpu->attention, the vCPU's mailbox or the activity state is not 0; the clock
 * every BUDGET blocks. Order between instructions [SDM3 table 6-2]: debug traps of the last instruction,
 * NMI, external interrupts, then code breakpoints and faults of the next. A fault anywhere comes back to
 * the setjmp of soft_run() with c->exc filled in and c->rip at the faulting instruction.
 *
 * On the vCPU's thread only.
 */
#include "cpu/soft/interp.h"

#include "cpu/soft/code.h"
#include "cpu/soft/fpu.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/ops.h"
#include "vm/irq.h"

#define BUDGET 128

/* --- derived state --- */
static bool is_wide(const struct x86_segreg *s)
{
	return s->limit == ~0u && !(s->attr & SA_UNUSABLE);
}

/* Writable data that does not expand down [SDM3 3.4.5.1]. */
static bool is_wide_data(const struct x86_segreg *s)
{
	return is_wide(s) && (s->attr & (SA_S | 0xe)) == (SA_S | 2);
}

static bool is_flat_data(const struct x86_segreg *s)
{
	return !s->base && is_wide_data(s);
}

/* KEY_FLAT, or 0, to be added to the key. */
static u32 flat_key(struct soft_cpu *c, u32 key)
{
	const struct x86_segreg *s = c->seg;

	if ((key & (KEY_MODE | KEY_SS32)) != (MODE_32 | KEY_SS32) || soft_real(c) || s[SEG_CS].base ||
	    !is_wide(&s[SEG_CS]) || !is_flat_data(&s[SEG_SS]) || !is_flat_data(&s[SEG_DS]) ||
	    !is_flat_data(&s[SEG_ES]))
		return 0;
	c->wide = (is_wide_data(&s[SEG_FS]) ? BIT(SEG_FS) : 0) | (is_wide_data(&s[SEG_GS]) ? BIT(SEG_GS) : 0);
	return KEY_FLAT;
}

/* Translated code goes back to the loop when its mode is another one. */
static void set_key(struct soft_cpu *c, u32 key)
{
	c->jit_stop |= key ^ c->key;
	c->key = key;
}

void soft_data_changed(struct soft_cpu *c)
{
	u32 key = c->key & ~(u32)KEY_FLAT;

	set_key(c, key | flat_key(c, key));
	mmu_set_code_gen(c);
}

void soft_mode_changed(struct soft_cpu *c)
{
	u32 mode = MODE_16, ss32 = 0;

	if (soft_long(c) && c->seg[SEG_CS].attr & SA_L) {
		mode = MODE_64;
	} else {
		if (c->seg[SEG_CS].attr & SA_DB)
			mode = MODE_32;
		if (c->seg[SEG_SS].attr & SA_DB)
			ss32 = KEY_SS32;
	}
	set_key(c, mode | ss32 | flat_key(c, mode | ss32));
	c->seg[SEG_FLAT].base = 0;
	fpu_mode_changed(c);
	mmu_select(c);
}

void soft_set_flags(struct soft_cpu *c, u64 flags)
{
	u32 old = c->flags;

	soft_set_arith(c, flags);
	c->flags = (u32)((flags & ~FL_ARITH) | FL_RES1);
	/* RF only matters with code breakpoints; without them it is dropped at once. */
	if (c->flags & FL_RF && !(c->dr7 & 0xff))
		c->flags &= ~(u32)FL_RF;
	if (c->flags & FL_TF)
		c->attention |= ATT_TF;
	else
		c->attention &= ~(u32)ATT_TF;
	if ((old ^ c->flags) & FL_VM)
		soft_mode_changed(c);
	else if ((old ^ c->flags) & FL_AC)
		mmu_select(c);
}

/* --- leaving the engine --- */
void soft_exit(struct soft_cpu *c, struct vm_exit *exit)
{
	c->once = true;
	fpu_spill(c);
	exit_dispatch(c->vcpu, exit);
}

void soft_account(struct soft_cpu *c, enum exit_reason reason, u64 key, u64 t0)
{
	fpu_spill(c);
	exit_account(c->vcpu, reason, key, t0);
}

int soft_out_irq_pending(struct soft_cpu *c)
{
	c->once = true;
	fpu_spill(c);
	return irq_pending(c->vcpu);
}

int soft_out_irq_ack(struct soft_cpu *c)
{
	c->once = true;
	fpu_spill(c);
	return irq_ack(c->vcpu);
}

u64 soft_out_get_cr8(struct soft_cpu *c)
{
	c->once = true;
	fpu_spill(c);
	return irq_get_cr8(c->vcpu);
}

void soft_out_set_cr8(struct soft_cpu *c, u64 cr8)
{
	c->once = true;
	fpu_spill(c);
	irq_set_cr8(c->vcpu, cr8);
}

void soft_out_timeline(struct soft_cpu *c, enum timeline_event event)
{
	if (!timeline_wants(&c->vcpu->vm->timeline, event))
		return;
	fpu_spill(c);
	timeline_happened(c->vcpu->vm, event);
}

void soft_out_yield(struct soft_cpu *c)
{
	c->once = true;
	fpu_spill(c);
	vcpu_yield(c->vcpu);
}

/* --- events --- */
enum { GO_ON = -1, STEP = -2, SHUT_DOWN = -3, LOOK_AGAIN = -4 };

static void take_nmis(struct soft_cpu *c, u32 bits)
{
	if (!(bits & VCPU_REQ_NMIS))
		return;
	c->nmi_pending = vcpu_nmis(bits, c->nmi_pending, c->nmi_blocked);
	c->attention |= ATT_NMI;
}

void soft_unblock_nmi(struct soft_cpu *c)
{
	u32 bits = 0;

	if (!c->nmi_blocked)
		return;
	if (atomic_load_explicit(&c->vcpu->requests, memory_order_relaxed) & VCPU_REQ_NMIS)
		bits = atomic_fetch_and(&c->vcpu->requests, ~(u32)VCPU_REQ_NMIS);
	if (bits & VCPU_REQ_NMIS)
		c->once = true;
	take_nmis(c, bits);
	c->nmi_blocked = false;
}

static void take_requests(struct soft_cpu *c)
{
	u32 bits = VCPU_REQ_INTR | VCPU_REQ_NMIS | VCPU_REQ_TIMER | VCPU_REQ_KICK | VCPU_REQ_FLUSH;

	bits &= atomic_fetch_and(&c->vcpu->requests, ~bits);
	if (bits & VCPU_REQ_INTR)
		c->attention |= ATT_INTR;
	take_nmis(c, bits);
	if (bits & VCPU_REQ_TIMER)
		c->budget = 0;
	if (bits & VCPU_REQ_KICK)
		c->vcpu->kicked = true;
	if (bits & VCPU_REQ_FLUSH)
		mmu_flush_all(c);
}

/* --- a debugger's (vm/debug.h) --- */
static inline gva_t linear_rip(const struct soft_cpu *c)
{
	return likely(soft_mode64(c)) ? c->rip : (u32)(c->rip + c->seg[SEG_CS].base);
}

static bool debug_steps(const struct soft_cpu *c)
{
	return c->attention & ATT_DEBUG && c->vcpu->debug.action == DEBUG_STEP;
}

/* Is there a reason to stop between two blocks? */
static bool debug_due(struct soft_cpu *c)
{
	struct debug_vcpu *d = &c->vcpu->debug;

	if (!d->why && c->debug_begun)
		d->why = DEBUG_STEPPED;
	return d->why;
}

/* Does a breakpoint stop the instruction at la? One that is stepped is begun from there. */
static bool debug_at_code(struct soft_cpu *c, gva_t la)
{
	if (!c->debug || debug_steps(c) || !debug_has_code(c->debug, la))
		return false;
	c->vcpu->debug.why = DEBUG_AT_CODE;
	c->vcpu->debug.addr = la;
	return true;
}

/* Is the instruction at la to be executed by itself, because it is in a page with breakpoints, or may end there? Neither page
 * is in the TLB for code then, so no other way leads there. */
static bool debug_alone(const struct soft_cpu *c, gva_t la)
{
	return debug_code_in_page(c->debug, la) || debug_code_in_page(c->debug, la + 14);
}

/* What of the attention flags there is to look at. Firmware and boot loaders run for long with an interrupt that waits for IF. */
static u32 wanted(const struct soft_cpu *c)
{
	return c->attention & (c->flags & FL_IF ? ~0u : ~(u32)ATT_INTR);
}

/* Between two blocks. GO_ON, STEP (run one instruction, then look again), SHUT_DOWN or an enum run_end. */
static int look(struct soft_cpu *c)
{
	u32 shadow, dr6_hit;
	u64 dr6;
	int vector;

	if (atomic_load_explicit(&c->vcpu->requests, memory_order_relaxed))
		take_requests(c);
	if (atomic_load_explicit(&c->vcpu->requests, memory_order_relaxed) &
	    (VCPU_REQ_STOP | VCPU_REQ_PAUSE | VCPU_REQ_OFF | VCPU_REQ_INIT | VCPU_REQ_SIPI))
		return RUN_REQUEST;
	if (c->activity == X86_SHUTDOWN)
		return SHUT_DOWN;
	if (c->activity == X86_WAIT_SIPI)
		return RUN_HLT;

	if (unlikely(c->attention & ATT_TAKEN)) {
		c->attention &= ~(u32)ATT_TAKEN;
		c->activity = X86_ACTIVE;
		return excp_deliver_async(c, c->taken_vector, EXCP_INTR) ? GO_ON : SHUT_DOWN;
	}
	shadow = c->attention & (ATT_SHADOW | ATT_MOVSS);
	if (c->attention & ATT_DB && !(shadow & ATT_MOVSS)) {
		c->attention &= ~(u32)ATT_DB;
		c->activity = X86_ACTIVE;
		excp_debug_trap(c, 0);
	}
	/* Else a step would end in the handler of a timer, again and again. */
	if (!shadow && !(debug_steps(c) && c->activity == X86_ACTIVE)) {
		if (c->nmi_pending && !c->nmi_blocked) {
			if (!--c->nmi_pending)
				c->attention &= ~(u32)ATT_NMI;
			c->activity = X86_ACTIVE;
			return excp_deliver_async(c, EXC_NMI, EXCP_NMI) ? GO_ON : SHUT_DOWN;
		}
		if (c->attention & ATT_INTR && c->flags & FL_IF) {
			u64 t0 = vcpu_rdtsc();

			vector = soft_out_irq_ack(c);
			if (vector >= 0) {
				c->activity = X86_ACTIVE;
				soft_account(c, EXIT_EXTINT, (u64)vector, t0);
				return excp_deliver_async(c, (unsigned)vector, EXCP_INTR) ? GO_ON : SHUT_DOWN;
			}
			c->attention &= ~(u32)ATT_INTR;
		}
	}
	if (c->activity == X86_HLT) {
		/* HLT in the shadow of STI: interrupts are let in while it waits. */
		if (shadow) {
			c->attention &= ~(u32)(ATT_SHADOW | ATT_MOVSS);
			return look(c);
		}
		if (!c->vcpu->kicked)
			return RUN_HLT;
		c->vcpu->kicked = false;
		c->activity = X86_ACTIVE;
	}
	c->attention &= ~(u32)(ATT_SHADOW | ATT_MOVSS);
	if (c->attention & ATT_BREAK) {
		/* MOV SS holds code breakpoints off on Intel's processors, not on AMD's. */
		if (!(c->flags & FL_RF) && (!(shadow & ATT_MOVSS) || c->amd) &&
		    excp_code_breakpoint(c, &dr6)) {
			c->dr6 |= dr6;
			c->cur = NULL;
			soft_raise(c, NULL, EXC_DB, NO_ERROR);
		}
		return STEP;
	}
	dr6_hit = c->attention & (ATT_TF | ATT_DB);
	return shadow || dr6_hit || debug_steps(c) ? STEP : GO_ON;
}

static int events(struct soft_cpu *c)
{
	int what;

	if (likely(!(c->attention & ATT_DEBUG)))
		return look(c);
	if (debug_due(c))
		return RUN_DEBUG;
	/* What is delivered, or executed, is the step. */
	c->debug_begun = debug_steps(c);
	what = look(c);
	if (what == RUN_HLT || what == RUN_REQUEST)
		c->debug_begun = false;
	return what == GO_ON && c->debug_begun ? LOOK_AGAIN : what;
}

static inline void run_block(struct soft_cpu *c, struct block *b)
{
	c->cur = b;
	c->gpr[RIPB] = c->rip;
	c->icount += b->n;
	c->trail[c->trail_next++ % SOFT_TRAIL] = c->rip;
	b->insn[0].fn(c, &b->insn[0]);
}

/* One instruction; then its single-step trap. */
static void step(struct soft_cpu *c)
{
	bool tf = c->flags & FL_TF;
	struct block *b = code_find(c, linear_rip(c), c->key | KEY_SINGLE);

	insn_fn fn = b->insn[0].fn;

	c->flags &= ~(u32)FL_RF; /* before: IRET may set it for the next one */
	c->stopped_at = NULL;
	run_block(c, b);
	c->cur = NULL;
	if (unlikely(c->stopped_at == &b->insn[0])) {
		c->debug_begun = false; /* another vCPU has dropped the block before its instruction began */
		return;
	}
	/* SYSCALL and SYSRET see to it themselves; INT n and its like have cleared TF, and with it the
	 * trap, if they went through the IDT. */
	if (fn == op_syscall || fn == op_sysret ||
	    ((fn == op_int_n || fn == op_int3 || fn == op_into || fn == op_int1) && !(c->flags & FL_TF)))
		tf = false;
	if (tf && !(c->attention & ATT_MOVSS))
		excp_debug_trap(c, BIT(14)); /* DR6.BS */
}

/* The block at RIP, when the TLB and the hash know it. */
static inline struct block *find_fast(struct soft_cpu *c, gva_t la)
{
	const u8 *p = tlb_exec(c, la);
	struct block *b;

	if (unlikely(!p))
		return NULL;
	b = code_first(c->code, (u64)p);
	return likely(b && code_hva(b) == (u64)p && b->key == c->key &&
		      (soft_mode64(c) || c->rip + b->bytes - 1 <= c->seg[SEG_CS].limit))
		       ? b
		       : NULL;
}

static void arm_timer(struct soft_cpu *c)
{
	fpu_spill(c);
	jit_host_arm(c);
}

/* Translated code came back because somebody asked it to: from now on it runs again, and what was asked for is
 * in the mailbox, or the timer is due, or somebody wants to be alone. */
static void go_again(struct soft_cpu *c)
{
	soft_let_go(c);
	share_pass(c);
	if (c->restless)
		code_settle(c);
	if (c->jit_alarm) {
		c->jit_alarm = 0;
		c->armed_tsc = ~0ull;
	}
	c->budget = 0;
}

/* Not inlined: a compiler may give what it keeps there the places of what interp_run() needs after a fault. */
static __attribute__((noinline)) enum run_end loop(struct soft_cpu *c)
{
	struct vcpu *vcpu = c->vcpu;
	struct block *b;
	gva_t la;
	bool jit;
	int what;

	for (;;) {
		if (unlikely(soft_recalled(c)))
			go_again(c);
		share_seen(c);
		/* First, since a guest may be single-stepped for ever: by code breakpoints that it has
		 * armed. */
		if (unlikely(--c->budget < 0)) {
			c->budget = BUDGET;
			if (vcpu_rdtsc() >= vcpu->timer_tsc) {
				fpu_spill(c);
				vcpu_timer_check(vcpu);
			}
		}
		if (unlikely(wanted(c) | c->activity |
			     atomic_load_explicit(&vcpu->requests, memory_order_relaxed))) {
			c->cur = NULL;
			what = events(c);
			if (what == LOOK_AGAIN)
				continue;
			if (what == STEP) {
				if (unlikely(debug_at_code(c, linear_rip(c))))
					return RUN_DEBUG;
				step(c);
				continue;
			}
			if (what == SHUT_DOWN) {
				interp_crash(c);
				return RUN_SHUTDOWN;
			}
			if (what != GO_ON)
				return (enum run_end)what;
		}
		if (c->jit && unlikely(vcpu->timer_tsc < c->armed_tsc))
			arm_timer(c);
		jit = c->jit && soft_translates(c->key);
		if (jit && jit_try(c))
			continue;
		la = linear_rip(c);
		b = find_fast(c, la);
		if (unlikely(!b)) {
			if (unlikely(c->debug) && debug_alone(c, la)) {
				if (debug_at_code(c, la))
					return RUN_DEBUG;
				step(c);
				continue;
			}
			b = code_find(c, la, c->key);
		}
		if (jit && jit_block(c, b))
			continue;
		c->jit_rec = NULL;
		run_block(c, b);
	}
}

/* Instructions of the interrupted block that were booked but not begun. */
static void unbook(struct soft_cpu *c)
{
	const struct block *b = c->cur;

	c->cur = NULL;
	if (!b)
		return;
	for (u32 k = 0; k < b->n; k++)
		if (soft_rip_mask(c, soft_rip(c, &b->insn[k])) == c->rip) {
			c->icount -= b->n - k;
			return;
		}
}

/* Delivers what has come back to the setjmp of a run; false: a triple fault, and it is described. */
static bool deliver(struct soft_cpu *c)
{
	unbook(c);
	c->activity = X86_ACTIVE; /* a single-step trap after HLT ends the waiting */
	if (likely(excp_deliver_pending(c)))
		return true;
	interp_crash(c);
	return false;
}

static enum run_end leave(struct soft_cpu *c, enum run_end end)
{
	fpu_spill(c);
	share_leave(c);
	return end;
}

enum run_end interp_run(struct soft_cpu *c)
{
	struct soft_cpu *volatile self = c;

	share_enter(c);
	if (__builtin_setjmp(self->jb) && !deliver(self))
		return leave(self, RUN_SHUTDOWN);
	return leave(self, loop(self));
}

enum run_end interp_carry(struct soft_cpu *c)
{
	struct soft_cpu *volatile self = c;

	share_enter(c);
	if (__builtin_setjmp(self->jb)) {
		if (!deliver(self))
			return leave(self, RUN_SHUTDOWN);
	} else {
		self->attention &= ~(u32)(ATT_SHADOW | ATT_MOVSS);
		step(self);
	}
	return leave(self, self->activity == X86_HLT ? RUN_HLT : RUN_REQUEST);
}
