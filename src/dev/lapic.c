/* The local APIC of each vCPU, in xAPIC and x2APIC mode.
 *
 * Documents: Intel SDM volume 3, chapter 10 (APIC; 11 in some later revisions), cited as [SDM3 10.x];
 * MultiProcessor Specification 1.4, [MP 3.6.2].
 *
 * How it works: one device per vCPU holds its registers; vcpu->lapic points to it. A message (IPI, I/O
 * APIC, MSI) goes through lapic_deliver(), which compares it with every local APIC and sets request bits
 * or posts NMI, INIT and SIPI to the vCPU's mailbox. lapic_pending() is a pure function of the registers;
 * whoever may have made a vector deliverable calls notify(). The one-shot and periodic timer counts guest
 * nanoseconds (the bus clock is 1 GHz), the TSC-deadline timer guest TSC ticks; both set vcpu->timer_tsc
 * on the vCPU's own thread. timer_fn may come early or without cause: it looks at the registers and arms
 * again.
 *
 * The page is on the bus at its first address only. Where IA32_APIC_BASE says otherwise, exit_dispatch() looks for the accesses of
 * that processor.
 *
 * Omitted, and why that is safe: an APIC moved to where there is RAM answers to MSRs and messages only (no operating system
 * moves it); SMI and remote read are dropped (there
 * is no SMM, and the read is gone from processors since the Pentium 4); arbitration priorities do not
 * exist on a bus without arbitration. EOI broadcast suppression and CMCI are not offered by the version
 * register.
 *
 * EOI without an exit [KVM msr, MSR_KVM_PV_EOI_EN]: the guest names a word in its memory. When the only vector in service is an
 * edge-triggered one and no other waits, bit 0 is set there (`eoi_lent`); a guest that finds it clears it, and need not write the
 * EOI register. Whether it did is looked at only on the vCPU's own thread, between two instructions (settle_eoi()), because
 * the guest's test-and-clear is no locked operation: before the next vector is chosen, or a register shows what is in service.
 * Until then the vector counts as in service; a request that arrives meanwhile brings the thread here, and what was not
 * used by then is taken back.
 *
 * DEVIATION: after a reset LINT0 and LINT1 of vCPU 0 are set up as firmware leaves them for virtual wire
 * mode [MP 3.6.2.2], since a directly booted kernel finds no firmware that would.
 * DEVIATION: a periodic timer shorter than LAPIC_MIN_PERIOD_NS fires at that period, so that a guest
 * cannot spend the host's time on nothing but timer interrupts.
 *
 * Threads: registers are accessed on the owning vCPU's thread, messages come from any thread; all under
 * vm->intc_lock.
 */
#include "dev/lapic.h"

#include <errno.h>
#include <stdio.h>

#include "base/bits.h"
#include "base/log.h"
#include "vm/bus.h"
#include "vm/clock.h"
#include "vm/dma.h"
#include "vm/vcpu.h"
#include "vm/vm.h"

#define LAPIC_MIN_PERIOD_NS 100000ull

/* Registers: MMIO offset / 16, and MSR number - 800H [SDM3 table 10-1, table 10-6] */
enum {
	R_ID = 0x02,
	R_VERSION = 0x03,
	R_TPR = 0x08,
	R_APR = 0x09,
	R_PPR = 0x0a,
	R_EOI = 0x0b,
	R_RRD = 0x0c,
	R_LDR = 0x0d,
	R_DFR = 0x0e,
	R_SVR = 0x0f,
	R_ISR = 0x10,
	R_TMR = 0x18,
	R_IRR = 0x20,
	R_ESR = 0x28,
	R_ICR = 0x30,
	R_ICR2 = 0x31,
	R_LVT = 0x32,
	R_INIT_COUNT = 0x38,
	R_CUR_COUNT = 0x39,
	R_DCR = 0x3e,
	R_SELF_IPI = 0x3f,
};

enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, NR_LVT };

#define LAPIC_VERSION (0x14 | (NR_LVT - 1) << 16)

#define BASE_BSP  BIT(8)
#define BASE_EXTD BIT(10)
#define BASE_EN   BIT(11)
#define BASE_MODE (BASE_EXTD | BASE_EN)

#define SVR_ENABLE   BIT(8)
#define SVR_WRITABLE 0x3ffu

#define LVT_MODE_SHIFT 8
#define LVT_STATUS     BIT(12)
#define LVT_RIRR       BIT(14)
#define LVT_LEVEL      BIT(15)
#define LVT_MASKED     BIT(16)

#define TIMER_MODE     (3u << 17)
#define TIMER_ONESHOT  (0u << 17)
#define TIMER_PERIODIC (1u << 17)
#define TIMER_DEADLINE (2u << 17)

#define ICR_LOGICAL   BIT(11)
#define ICR_STATUS    BIT(12)
#define ICR_ASSERT    BIT(14)
#define ICR_LEVEL     BIT(15)
#define ICR_SHORTHAND (3u << 18)
#define ICR_SELF      (1u << 18)
#define ICR_ALL       (2u << 18)
#define ICR_OTHERS    (3u << 18)
#define ICR_WRITABLE  0x000ccfffu /* without the delivery status */

/* ESR [SDM3 10.5.3] */
#define ESR_SEND_VECTOR BIT(5)
#define ESR_RECV_VECTOR BIT(6)
#define ESR_REGISTER    BIT(7)

#define DCR_WRITABLE 0x0bu

#define X2APIC_BROADCAST 0xffffffffu
#define XAPIC_BROADCAST  0xffu

/* MSI address and data [SDM3 10.11] */
#define MSI_DEST_SHIFT 12
#define MSI_RH         BIT(3)
#define MSI_LOGICAL    BIT(2)
#define MSI_MODE_SHIFT 8
#define MSI_ASSERT     BIT(14)
#define MSI_LEVEL      BIT(15)

/* Bits of each LVT entry that hold something; mask, vector, mode, trigger, polarity, timer mode. */
static const u32 lvt_writable[NR_LVT] = {
	[LVT_TIMER] = 0x000700ff, [LVT_THERMAL] = 0x000107ff, [LVT_PERF] = 0x000107ff,
	[LVT_LINT0] = 0x0001a7ff, [LVT_LINT1] = 0x0001a7ff,   [LVT_ERROR] = 0x000100ff,
};

enum { MSRS_BASE, MSRS_DEADLINE, MSRS_X2APIC, MSRS_EOI, NR_MSRS };

#define EOI_ENABLE   BIT(0) /* of the MSR */
#define EOI_RESERVED BIT(1) /* the word is aligned */
#define EOI_WORD_LEN 4
#define EOI_LENT     1 /* in the word */

struct lapic {
	struct device dev;
	struct vcpu *vcpu;
	const struct lapic_board *board;
	struct region mmio; /* of vCPU 0's only, as msr */
	struct msr_region msr[NR_MSRS];
	bool mmio_added, msr_added[NR_MSRS];

	u64 apic_base; /* the MSR */
	u32 tpr, ldr, dfr, svr;
	u32 isr[8], tmr[8], irr[8];
	u32 esr;    /* as last latched by a write */
	u32 errors; /* since then */
	u64 icr;
	u32 lvt[NR_LVT];
	u32 init_count, dcr;
	bool counting;   /* one-shot or periodic timer runs */
	u64 timer_end;   /* guest time, ns, at which the count reaches zero */
	u64 deadline;    /* IA32_TSC_DEADLINE, 0: not armed */
	bool lint[2];    /* levels of the pins */
	bool extint;     /* an ExtINT message waits for its INTA cycle */
	u64 eoi_msr;     /* where the guest has its word */
	bool eoi_lent;   /* the guest may clear the word instead of an EOI */
	u32 next_lowest; /* vCPU 0's only: where the search for the lowest priority begins */
};

static struct lapic *lapic_of(const struct vm *vm, u32 id)
{
	return id < vm->nr_vcpus && vm->vcpu[id] ? vm->vcpu[id]->lapic : NULL;
}

static bool hw_enabled(const struct lapic *l)
{
	return l->apic_base & BASE_EN;
}

static bool sw_enabled(const struct lapic *l)
{
	return l->svr & SVR_ENABLE;
}

static bool x2apic(const struct lapic *l)
{
	return l->apic_base & BASE_EXTD;
}

/* [SDM3 10.12.10.2] */
static u32 x2apic_ldr(const struct vcpu *vcpu)
{
	return (vcpu->id >> 4) << 16 | 1u << (vcpu->id & 15);
}

static int highest(const u32 v[8])
{
	for (int i = 7; i >= 0; i--)
		if (v[i])
			return i * 32 + 31 - __builtin_clz(v[i]);
	return -1;
}

static void vec_set(u32 v[8], unsigned vector, bool on)
{
	if (on)
		v[vector / 32] |= 1u << vector % 32;
	else
		v[vector / 32] &= ~(1u << vector % 32);
}

static bool vec_test(const u32 v[8], unsigned vector)
{
	return v[vector / 32] >> vector % 32 & 1;
}

/* [SDM3 10.8.3.1] */
static u32 ppr(const struct lapic *l)
{
	int isrv = highest(l->isr);
	u32 serving = isrv < 0 ? 0 : (u32)isrv & 0xf0;
	return (l->tpr & 0xf0) >= serving ? l->tpr : serving;
}

/* The request that may interrupt what is in service, or -1. */
static int deliverable(const struct lapic *l)
{
	int irrv = highest(l->irr);
	return irrv >= 0 && ((u32)irrv & 0xf0) > (ppr(l) & 0xf0) ? irrv : -1;
}

static u32 lvt_mode(u32 lvt)
{
	return lvt >> LVT_MODE_SHIFT & 7;
}

/* Does the processor listen to the external controller? With the APIC off LINT0 is the INTR pin
 * [SDM3 10.4.3]. */
static bool takes_extint(const struct lapic *l)
{
	if (!hw_enabled(l))
		return true;
	if (l->extint)
		return true;
	return !(l->lvt[LVT_LINT0] & LVT_MASKED) && lvt_mode(l->lvt[LVT_LINT0]) == APIC_EXTINT;
}

static int pending(const struct lapic *l)
{
	int v = hw_enabled(l) ? deliverable(l) : -1;

	if (v < 0 && l->board && takes_extint(l))
		v = l->board->extint_pending(l->board->opaque);
	return v;
}

static void notify(struct lapic *l)
{
	if (pending(l) >= 0 || (l->eoi_lent && highest(l->irr) >= 0))
		vcpu_post(l->vcpu, VCPU_REQ_INTR);
}

static void lvt_deliver(struct lapic *l, unsigned entry);

/* An error that is noted already raises no second interrupt, which also ends the recursion
 * through an error entry that has an illegal vector itself. */
static void error(struct lapic *l, u32 bit)
{
	if (l->errors & bit)
		return;
	l->errors |= bit;
	lvt_deliver(l, LVT_ERROR);
}

/* A fixed interrupt arrives [SDM3 10.8.4]; false when it is not taken. */
static bool accept(struct lapic *l, u8 vector, bool level)
{
	if (!hw_enabled(l) || !sw_enabled(l))
		return false;
	if (vector < 16) {
		error(l, ESR_RECV_VECTOR);
		return false;
	}
	vec_set(l->irr, vector, true);
	vec_set(l->tmr, vector, level);
	notify(l);
	return true;
}

/* What power-up and INIT leave [SDM3 10.4.7]; the mode, and the levels of the pins, stay. */
static void reset_regs(struct lapic *l)
{
	l->tpr = 0;
	l->ldr = 0;
	l->dfr = 0xffffffff;
	l->svr = 0xff;
	memset(l->isr, 0, sizeof(l->isr));
	memset(l->tmr, 0, sizeof(l->tmr));
	memset(l->irr, 0, sizeof(l->irr));
	l->esr = 0;
	l->errors = 0;
	l->icr = 0;
	for (unsigned i = 0; i < NR_LVT; i++)
		l->lvt[i] = LVT_MASKED;
	l->init_count = 0;
	l->dcr = 0;
	l->counting = false;
	l->timer_end = 0;
	l->deadline = 0;
	l->extint = false;
	l->eoi_msr = 0;
	l->eoi_lent = false;
	if (x2apic(l))
		l->ldr = x2apic_ldr(l->vcpu);
}

/* The timer may stay armed in the vCPU, which belongs to another thread; its callback copes. */
static void init_signal(struct lapic *l)
{
	reset_regs(l);
	vcpu_post(l->vcpu, VCPU_REQ_INIT);
}

static void lint_level(struct lapic *l, unsigned pin)
{
	u32 *lvt = &l->lvt[LVT_LINT0 + pin];

	if (!l->lint[pin] || *lvt & (LVT_MASKED | LVT_RIRR) || !(*lvt & LVT_LEVEL) ||
	    lvt_mode(*lvt) != APIC_FIXED)
		return;
	if (accept(l, (u8)*lvt, true))
		*lvt |= LVT_RIRR;
}

static void lvt_deliver(struct lapic *l, unsigned entry)
{
	u32 lvt = l->lvt[entry];

	if (lvt & LVT_MASKED || !hw_enabled(l))
		return;
	switch (lvt_mode(lvt)) {
	case APIC_FIXED: accept(l, (u8)lvt, false); break;
	case APIC_NMI: vcpu_nmi(l->vcpu); break;
	case APIC_INIT: init_signal(l); break;
	default: /* SMI, ExtINT (a level, see takes_extint()), reserved */ break;
	}
}

void lapic_set_lint(struct vm *vm, u32 vcpu_id, unsigned pin, bool level)
{
	struct lapic *l = lapic_of(vm, vcpu_id);

	if (!l || pin > 1 || l->lint[pin] == level)
		return;
	l->lint[pin] = level;
	if (!level)
		return;
	if (vm->apics) {
		vcpu_post(l->vcpu, VCPU_REQ_INTR);
		return;
	}
	u32 lvt = l->lvt[LVT_LINT0 + pin];
	if (lvt_mode(lvt) == APIC_FIXED && lvt & LVT_LEVEL)
		lint_level(l, pin);
	else
		lvt_deliver(l, LVT_LINT0 + pin);
	if (pin == 0)
		notify(l);
}

/* Messages */

/* [SDM3 10.6.2] */
static bool matches(const struct lapic *l, const struct apic_msg *msg)
{
	u32 dest = msg->dest;

	if (!hw_enabled(l))
		return false;
	if (dest == (msg->wide ? X2APIC_BROADCAST : XAPIC_BROADCAST))
		return true;
	if (!msg->logical)
		return dest == l->vcpu->id;
	if (x2apic(l))
		return dest >> 16 == l->ldr >> 16 && dest & l->ldr & 0xffff;
	if (dest > 0xff)
		return false;
	u32 ldr = l->ldr >> 24;
	switch (l->dfr >> 28) {
	case 0xf: /* flat */ return dest & ldr;
	case 0x0: /* cluster; cluster 15 is all of them */
		return (dest >> 4 == 0xf || dest >> 4 == ldr >> 4) && dest & ldr & 0xf;
	default: return false;
	}
}

static bool deliver_one(struct lapic *l, u8 mode, u8 vector, bool level)
{
	switch (mode) {
	case APIC_FIXED:
	case APIC_LOWEST: return accept(l, vector, level);
	case APIC_NMI: vcpu_nmi(l->vcpu); return true;
	case APIC_INIT: init_signal(l); return true;
	case APIC_SIPI:
		atomic_store(&l->vcpu->sipi_vector, vector);
		vcpu_post(l->vcpu, VCPU_REQ_SIPI);
		return true;
	case APIC_EXTINT:
		l->extint = true;
		notify(l);
		return true;
	default: /* SMI, reserved */ return false;
	}
}

/* Narrows targets to the one with the lowest priority; equals take turns [SDM3 10.6.2.4]. */
static u64 lowest_priority(struct vm *vm, u64 targets)
{
	struct lapic *first = lapic_of(vm, 0);
	u32 start = first ? first->next_lowest : 0, best_ppr = ~0u, best = 0;
	bool found = false;

	for (u32 n = 0; n < vm->nr_vcpus; n++) {
		u32 id = (start + n) % vm->nr_vcpus;
		struct lapic *l = targets >> id & 1 ? lapic_of(vm, id) : NULL;

		if (!l || !sw_enabled(l) || (found && ppr(l) >> 4 >= best_ppr))
			continue;
		found = true;
		best = id;
		best_ppr = ppr(l) >> 4;
	}
	if (!found)
		return 0;
	if (first)
		first->next_lowest = (best + 1) % vm->nr_vcpus;
	return BIT(best);
}

_Static_assert(VM_MAX_VCPUS <= 64, "targets are a u64");

static unsigned deliver_to(struct vm *vm, u64 targets, u8 mode, u8 vector, bool level, bool one)
{
	unsigned taken = 0;

	if (mode == APIC_LOWEST || (one && mode == APIC_FIXED))
		targets = lowest_priority(vm, targets);
	for (u32 id = 0; id < vm->nr_vcpus; id++)
		if (targets >> id & 1)
			taken += deliver_one(lapic_of(vm, id), mode, vector, level);
	return taken;
}

static u64 all_targets(struct vm *vm)
{
	u64 targets = 0;

	for (u32 id = 0; id < vm->nr_vcpus; id++) {
		struct lapic *l = lapic_of(vm, id);
		if (l && hw_enabled(l))
			targets |= BIT(id);
	}
	return targets;
}

u64 lapic_msi_addr(const struct apic_msg *msg)
{
	return LAPIC_BASE | (u64)(msg->dest & 0xff) << MSI_DEST_SHIFT | (msg->one ? MSI_RH : 0) |
	       (msg->logical ? MSI_LOGICAL : 0);
}

u32 lapic_msi_data(const struct apic_msg *msg)
{
	return (u32)(msg->vector | (u32)msg->mode << MSI_MODE_SHIFT |
		     (msg->level ? MSI_LEVEL | MSI_ASSERT : 0));
}

unsigned lapic_deliver(struct vm *vm, const struct apic_msg *msg)
{
	u64 targets = 0;

	if (vm->apics)
		return vm->apics->send(vm, lapic_msi_addr(msg), lapic_msi_data(msg));
	for (u32 id = 0; id < vm->nr_vcpus; id++) {
		struct lapic *l = lapic_of(vm, id);
		if (l && matches(l, msg))
			targets |= BIT(id);
	}
	return deliver_to(vm, targets, msg->mode, msg->vector, msg->level, msg->one);
}

unsigned lapic_deliver_ids(struct vm *vm, u64 ids, u8 mode, u8 vector)
{
	unsigned taken = 0;

	if (!vm->apics)
		return deliver_to(vm, ids & all_targets(vm), mode, vector, false, false);
	for (u32 id = 0; id < vm->nr_vcpus; id++)
		if (ids >> id & 1)
			taken += lapic_deliver(vm, &(const struct apic_msg){
							   .dest = id, .mode = mode, .vector = vector });
	return taken;
}

/* [SDM3 10.6.1] An IPI is edge-triggered whatever the ICR says; only INIT knows a de-assert, which
 * since the Pentium 4 does nothing. */
static void send_ipi(struct lapic *l)
{
	struct vm *vm = l->dev.vm;
	u8 mode = l->icr >> 8 & 7, vector = (u8)l->icr;
	u64 self = BIT(l->vcpu->id);
	struct apic_msg msg = {
		.dest = x2apic(l) ? (u32)(l->icr >> 32) : (u32)(l->icr >> 56),
		.wide = x2apic(l),
		.logical = l->icr & ICR_LOGICAL,
		.mode = mode,
		.vector = vector,
	};

	if (mode == APIC_INIT && l->icr & ICR_LEVEL && !(l->icr & ICR_ASSERT))
		return;
	if ((mode == APIC_FIXED || mode == APIC_LOWEST) && vector < 16) {
		error(l, ESR_SEND_VECTOR);
		return;
	}
	if (mode == APIC_EXTINT) /* reserved in the ICR */
		return;
	switch (l->icr & ICR_SHORTHAND) {
	case ICR_SELF: deliver_to(vm, self, mode, vector, false, false); break;
	case ICR_ALL: deliver_to(vm, all_targets(vm), mode, vector, false, false); break;
	case ICR_OTHERS: deliver_to(vm, all_targets(vm) & ~self, mode, vector, false, false); break;
	default: lapic_deliver(vm, &msg);
	}
}

static void eoi(struct lapic *l)
{
	int v = highest(l->isr);

	if (v < 0)
		return;
	vec_set(l->isr, (unsigned)v, false);
	if (vec_test(l->tmr, (unsigned)v)) {
		for (unsigned pin = 0; pin < 2; pin++) {
			u32 *lvt = &l->lvt[LVT_LINT0 + pin];
			if (*lvt & LVT_RIRR && (u8)*lvt == v) {
				*lvt &= ~LVT_RIRR;
				lint_level(l, pin);
			}
		}
		if (l->board)
			l->board->eoi(l->board->opaque, (u8)v);
	}
	notify(l);
}

/* EOI without an exit; all of this on the vCPU's own thread. */

/* NULL: the guest has none, or it is not in RAM any more. */
static u8 *eoi_word(const struct lapic *l)
{
	return l->eoi_msr & EOI_ENABLE ? dma_map(l->dev.vm, l->eoi_msr & ~EOI_ENABLE, EOI_WORD_LEN, true)
				       : NULL;
}

static void write_eoi_word(const struct lapic *l, u8 *word, u8 val)
{
	__atomic_store_n(word, val, __ATOMIC_RELAXED);
	dma_written(l->dev.vm, word, 1);
}

static void settle_eoi(struct lapic *l)
{
	u8 *word;

	if (!l->eoi_lent)
		return;
	l->eoi_lent = false;
	word = eoi_word(l);
	if (!word)
		return;
	if (__atomic_load_n(word, __ATOMIC_RELAXED) & EOI_LENT)
		write_eoi_word(l, word, 0);
	else
		eoi(l);
}

/* A vector has just been taken. */
static void lend_eoi(struct lapic *l)
{
	int serving = highest(l->isr);
	u8 *word = serving >= 0 ? eoi_word(l) : NULL;
	unsigned n = 0;

	if (!word || highest(l->irr) >= 0 || vec_test(l->tmr, (unsigned)serving))
		return;
	for (unsigned i = 0; i < 8; i++)
		n += (unsigned)__builtin_popcount(l->isr[i]);
	if (n != 1)
		return;
	write_eoi_word(l, word, EOI_LENT);
	l->eoi_lent = true;
}

/* The timer [SDM3 10.5.4]; all of this on the vCPU's own thread or while it does not run. */

static u32 timer_mode(const struct lapic *l)
{
	return l->lvt[LVT_TIMER] & TIMER_MODE;
}

static unsigned timer_shift(const struct lapic *l)
{
	return ((l->dcr >> 1 & 4) + (l->dcr & 3) + 1) & 7;
}

static u64 guest_tsc(const struct lapic *l)
{
	return vcpu_rdtsc() + (u64)l->vcpu->tsc_offset;
}

/* Brings the timer up to now: what has run out fires, once. */
static void timer_settle(struct lapic *l)
{
	bool fire = false;

	if (l->deadline && guest_tsc(l) >= l->deadline) {
		l->deadline = 0;
		fire = true;
	}
	if (l->counting) {
		u64 now = clock_now(l->dev.vm);
		if (now >= l->timer_end) {
			fire = true;
			if (timer_mode(l) == TIMER_PERIODIC) {
				u64 period = MAX((u64)l->init_count << timer_shift(l), LAPIC_MIN_PERIOD_NS);
				l->timer_end += ((now - l->timer_end) / period + 1) * period;
			} else {
				l->counting = false;
			}
		}
	}
	if (fire)
		lvt_deliver(l, LVT_TIMER);
}

static void timer_arm(struct lapic *l)
{
	u64 host = vcpu_rdtsc(), ticks = ~0ull;

	if (l->lvt[LVT_TIMER] & LVT_MASKED) {
		ticks = ~0ull; /* the counter is computed when it is read */
	} else if (l->deadline) {
		u64 now = host + (u64)l->vcpu->tsc_offset;
		ticks = now < l->deadline ? l->deadline - now : 0;
	} else if (l->counting) {
		u64 now = clock_now(l->dev.vm);
		u64 ns = now < l->timer_end ? l->timer_end - now : 0;
		/* At most 2^39 ns; rounded up, so that the timer has run out when it is looked at. */
		ticks = ns * l->dev.vm->tsc_khz / 1000000 + 1;
	}
	l->vcpu->timer_tsc = ticks < ~0ull - host ? host + ticks : ~0ull;
}

static void timer_due(void *opaque)
{
	struct lapic *l = opaque;

	pthread_mutex_lock(l->dev.lock);
	timer_settle(l);
	timer_arm(l);
	pthread_mutex_unlock(l->dev.lock);
}

static u32 timer_count(struct lapic *l)
{
	timer_settle(l);
	timer_arm(l);
	if (!l->counting)
		return 0;
	u64 left = l->timer_end - MIN(clock_now(l->dev.vm), l->timer_end);
	unsigned shift = timer_shift(l);
	return (u32)MIN((left + BIT(shift) - 1) >> shift, l->init_count);
}

static void timer_start(struct lapic *l, u32 count)
{
	if (timer_mode(l) == TIMER_DEADLINE)
		return;
	timer_settle(l);
	l->init_count = count;
	l->counting = count != 0 && timer_mode(l) <= TIMER_PERIODIC;
	if (l->counting) {
		u64 ns = (u64)count << timer_shift(l);
		if (timer_mode(l) == TIMER_PERIODIC)
			ns = MAX(ns, LAPIC_MIN_PERIOD_NS);
		l->timer_end = clock_now(l->dev.vm) + ns;
	}
	timer_arm(l);
}

static void timer_divide(struct lapic *l, u32 dcr)
{
	u32 left = timer_count(l);

	l->dcr = dcr & DCR_WRITABLE;
	if (l->counting)
		l->timer_end = clock_now(l->dev.vm) + ((u64)left << timer_shift(l));
	timer_arm(l);
}

/* Registers */

static void lvt_write(struct lapic *l, unsigned entry, u32 val)
{
	u32 old = l->lvt[entry];

	if (entry == LVT_TIMER)
		timer_settle(l);
	val &= lvt_writable[entry];
	if (!sw_enabled(l))
		val |= LVT_MASKED;
	if (val & LVT_LEVEL && lvt_mode(val) == APIC_FIXED)
		val |= old & LVT_RIRR;
	l->lvt[entry] = val;
	if (entry == LVT_TIMER) {
		/* Into or out of TSC-deadline mode disarms [SDM3 10.5.4.1]. */
		if ((old ^ val) & TIMER_MODE && ((old | val) & TIMER_MODE) >= TIMER_DEADLINE) {
			l->counting = false;
			l->init_count = 0;
			l->deadline = 0;
		}
		timer_arm(l);
	} else if (entry == LVT_LINT0 || entry == LVT_LINT1) {
		lint_level(l, entry - LVT_LINT0);
		notify(l);
	}
}

static void svr_write(struct lapic *l, u32 val)
{
	l->svr = val & SVR_WRITABLE;
	if (!sw_enabled(l)) {
		timer_settle(l);
		for (unsigned i = 0; i < NR_LVT; i++)
			l->lvt[i] |= LVT_MASKED;
		timer_arm(l);
	}
	notify(l);
}

/* False for a register that does not exist or cannot be read in this mode. */
static bool reg_read(struct lapic *l, unsigned reg, u64 *ret_val)
{
	u64 v = 0;

	switch (reg) {
	case R_ID: v = x2apic(l) ? l->vcpu->id : l->vcpu->id << 24; break;
	case R_VERSION: v = LAPIC_VERSION; break;
	case R_TPR: v = l->tpr; break;
	case R_PPR:
		settle_eoi(l);
		v = ppr(l);
		break;
	case R_LDR: v = l->ldr; break;
	case R_APR: /* not in x2APIC mode, as the next three */
	case R_RRD:
	case R_EOI:
		if (x2apic(l))
			return false;
		break;
	case R_DFR:
		if (x2apic(l))
			return false;
		v = l->dfr;
		break;
	case R_SVR: v = l->svr; break;
	case R_ISR ... R_ISR + 7:
		settle_eoi(l);
		v = l->isr[reg - R_ISR];
		break;
	case R_TMR ... R_TMR + 7: v = l->tmr[reg - R_TMR]; break;
	case R_IRR ... R_IRR + 7: v = l->irr[reg - R_IRR]; break;
	case R_ESR: v = l->esr; break;
	case R_ICR: v = x2apic(l) ? l->icr : (u32)l->icr; break;
	case R_ICR2:
		if (x2apic(l))
			return false;
		v = l->icr >> 32;
		break;
	case R_LVT ... R_LVT + NR_LVT - 1: v = l->lvt[reg - R_LVT]; break;
	case R_INIT_COUNT: v = l->init_count; break;
	case R_CUR_COUNT: v = timer_count(l); break;
	case R_DCR: v = l->dcr; break;
	default: return false;
	}
	*ret_val = v;
	return true;
}

/* Registers that are written alike in both modes; false for others. */
static bool reg_write(struct lapic *l, unsigned reg, u32 val)
{
	switch (reg) {
	case R_TPR:
		l->tpr = val & 0xff;
		notify(l);
		return true;
	case R_EOI:
		settle_eoi(l);
		eoi(l);
		return true;
	case R_SVR: svr_write(l, val); return true;
	case R_ESR: /* latches what has gathered [SDM3 10.5.3] */
		l->esr = l->errors;
		l->errors = 0;
		return true;
	case R_LVT ... R_LVT + NR_LVT - 1: lvt_write(l, reg - R_LVT, val); return true;
	case R_INIT_COUNT: timer_start(l, val); return true;
	case R_DCR: timer_divide(l, val); return true;
	default: return false;
	}
}

static void xapic_write(struct lapic *l, unsigned reg, u32 val)
{
	switch (reg) {
	case R_ID: /* read-only, as are the next ones */
	case R_VERSION:
	case R_APR:
	case R_PPR:
	case R_RRD:
	case R_ISR ... R_ISR + 7:
	case R_TMR ... R_TMR + 7:
	case R_IRR ... R_IRR + 7:
	case R_CUR_COUNT: break;
	case R_LDR: l->ldr = val & 0xff000000; break;
	case R_DFR: l->dfr = val | 0x0fffffff; break;
	case R_ICR:
		l->icr = (l->icr & ~0xffffffffull) | (val & ICR_WRITABLE);
		send_ipi(l);
		break;
	case R_ICR2: l->icr = (u32)l->icr | (u64)(val & 0xff000000) << 32; break;
	default:
		if (!reg_write(l, reg, val))
			error(l, ESR_REGISTER);
	}
}

/* Bits that must be zero in x2APIC mode [SDM3 10.12.1.2]; the delivery status is ignored. */
static u64 x2apic_reserved(unsigned reg)
{
	switch (reg) {
	case R_TPR:
	case R_SELF_IPI: return ~0xffull;
	case R_EOI:
	case R_ESR: return ~0ull;
	case R_SVR: return ~(u64)SVR_WRITABLE;
	case R_ICR: return 0xffffffffull & ~(ICR_WRITABLE | ICR_STATUS);
	case R_LVT + LVT_LINT0:
	case R_LVT + LVT_LINT1: return ~(lvt_writable[reg - R_LVT] | LVT_STATUS | LVT_RIRR);
	case R_LVT + LVT_TIMER:
	case R_LVT + LVT_THERMAL:
	case R_LVT + LVT_PERF:
	case R_LVT + LVT_ERROR: return ~(lvt_writable[reg - R_LVT] | LVT_STATUS);
	case R_INIT_COUNT: return ~0xffffffffull;
	case R_DCR: return ~(u64)DCR_WRITABLE;
	default: return 0;
	}
}

static bool x2apic_write(struct lapic *l, unsigned reg, u64 val)
{
	if (val & x2apic_reserved(reg))
		return false;
	switch (reg) {
	case R_ICR:
		l->icr = (val & ~0xffffffffull) | (val & ICR_WRITABLE);
		send_ipi(l);
		return true;
	case R_SELF_IPI: /* [SDM3 10.12.11] */
		if (val < 16)
			error(l, ESR_SEND_VECTOR);
		else
			accept(l, (u8)val, false);
		return true;
	default: return reg_write(l, reg, (u32)val);
	}
}

/* NULL: there is none, or the engine has it: what comes here then, that has refused. */
static struct lapic *own_lapic(const struct vcpu *vcpu)
{
	return vcpu && !vcpu->vm->apics ? vcpu->lapic : NULL;
}

/* The local APIC whose page the calling vCPU sees, NULL when there is none to see. */
static struct lapic *mmio_self(void)
{
	struct lapic *l = own_lapic(vcpu_self());

	return l && (l->apic_base & BASE_MODE) == BASE_EN ? l : NULL;
}

static u64 lapic_mmio_read(void *opaque, u64 offset, unsigned size)
{
	struct lapic *l = mmio_self();
	unsigned pos = offset & 15;
	u64 v = 0;

	if (!l)
		return bits_mask(size);
	if (pos + size > 4) /* not of any register */
		return 0;
	if (!reg_read(l, (unsigned)(offset >> 4), &v))
		error(l, ESR_REGISTER);
	return v >> 8 * pos & bits_mask(size);
}

static void lapic_mmio_write(void *opaque, u64 offset, unsigned size, u64 val)
{
	struct lapic *l = mmio_self();

	if (l && size == 4 && !(offset & 15)) /* [SDM3 10.4.1]: anything else is undefined */
		xapic_write(l, (unsigned)(offset >> 4), (u32)val);
}

static const struct region_ops lapic_mmio_ops = {
	.read = lapic_mmio_read,
	.write = lapic_mmio_write,
	.max_size = 4,
};

static bool x2apic_msr_read(void *opaque, struct vcpu *vcpu, u32 msr, u64 *ret_val)
{
	struct lapic *l = own_lapic(vcpu);

	return l && x2apic(l) && reg_read(l, msr - MSR_X2APIC_BASE, ret_val);
}

static bool x2apic_msr_write(void *opaque, struct vcpu *vcpu, u32 msr, u64 val)
{
	struct lapic *l = own_lapic(vcpu);

	return l && x2apic(l) && x2apic_write(l, msr - MSR_X2APIC_BASE, val);
}

static bool base_read(void *opaque, struct vcpu *vcpu, u32 msr, u64 *ret_val)
{
	struct lapic *l = own_lapic(vcpu);

	if (!l)
		return false;
	*ret_val = l->apic_base;
	return true;
}

static bool base_valid(const struct lapic *l, u64 val)
{
	const struct cpuid_table *cpuid = &l->dev.vm->cpuid;
	u64 allowed = BASE_BSP | BASE_EN | ALIGN_DOWN(BIT(MIN(cpuid->maxphyaddr, 52u)) - 1, LAPIC_SIZE);

	if (cpuid_has(cpuid, X86_FEATURE_X2APIC))
		allowed |= BASE_EXTD;
	return !(val & ~allowed) && (val & BASE_MODE) != BASE_EXTD;
}

static void set_base(struct lapic *l, u64 val)
{
	l->apic_base = val;
	l->vcpu->apic_off = !(val & BASE_EN);
	l->vcpu->apic_home = LAPIC_BASE;
	l->vcpu->apic_page = ALIGN_DOWN(val, LAPIC_SIZE);
}

/* The state machine of [SDM3 10.12.5]. */
static bool base_write(void *opaque, struct vcpu *vcpu, u32 msr, u64 val)
{
	struct lapic *l = own_lapic(vcpu);

	if (!l || !base_valid(l, val))
		return false;
	u64 from = l->apic_base & BASE_MODE, to = val & BASE_MODE;
	if ((from == 0 && to == BASE_MODE) || (from == BASE_MODE && to == BASE_EN))
		return false;
	set_base(l, val);
	if (from != to) {
		if (to == 0) {
			reset_regs(l);
			timer_arm(l);
		} else if (to == BASE_MODE) {
			l->ldr = x2apic_ldr(vcpu);
			l->icr = (u32)l->icr;
		}
		notify(l);
	}
	if (ram_ptr(&l->dev.vm->ram, vcpu->apic_page, LAPIC_SIZE))
		log_guest("vCPU %u moves its local APIC to %#llx, where there is memory, which stays",
			  vcpu->id, (unsigned long long)vcpu->apic_page);
	return true;
}

static bool deadline_read(void *opaque, struct vcpu *vcpu, u32 msr, u64 *ret_val)
{
	struct lapic *l = own_lapic(vcpu);

	if (!l || !cpuid_has(&l->dev.vm->cpuid, X86_FEATURE_TSC_DEADLINE))
		return false;
	timer_settle(l);
	timer_arm(l);
	*ret_val = l->deadline;
	return true;
}

static bool deadline_write(void *opaque, struct vcpu *vcpu, u32 msr, u64 val)
{
	struct lapic *l = own_lapic(vcpu);

	if (!l || !cpuid_has(&l->dev.vm->cpuid, X86_FEATURE_TSC_DEADLINE))
		return false;
	if (!hw_enabled(l) || timer_mode(l) != TIMER_DEADLINE)
		return true; /* ignored */
	l->deadline = val;
	timer_settle(l); /* one that has passed fires here, and only once */
	timer_arm(l);
	return true;
}

static bool eoi_read(void *opaque, struct vcpu *vcpu, u32 msr, u64 *ret_val)
{
	struct lapic *l = own_lapic(vcpu);

	if (!l)
		return false;
	*ret_val = l->eoi_msr;
	return true;
}

static bool eoi_write(void *opaque, struct vcpu *vcpu, u32 msr, u64 val)
{
	struct lapic *l = own_lapic(vcpu);

	if (!l || val & EOI_RESERVED ||
	    (val & EOI_ENABLE && !dma_map(l->dev.vm, val & ~EOI_ENABLE, EOI_WORD_LEN, true)))
		return false;
	settle_eoi(l);
	l->eoi_msr = val;
	return true;
}

static const struct {
	struct msr_ops ops;
	u32 first, last;
} lapic_msrs[NR_MSRS] = {
	[MSRS_BASE] = { { base_read, base_write }, MSR_APIC_BASE, MSR_APIC_BASE },
	[MSRS_DEADLINE] = { { deadline_read, deadline_write }, MSR_TSC_DEADLINE, MSR_TSC_DEADLINE },
	[MSRS_X2APIC] = { { x2apic_msr_read, x2apic_msr_write }, MSR_X2APIC_BASE, MSR_X2APIC_LAST },
	[MSRS_EOI] = { { eoi_read, eoi_write }, MSR_KVM_PV_EOI, MSR_KVM_PV_EOI },
};

/* What the engine asks */

int lapic_pending(struct vcpu *vcpu)
{
	struct lapic *l = vcpu->lapic;

	if (!l)
		return -1;
	if (vcpu->vm->apics) /* has the rest, and says whether the processor listens */
		return l->board ? l->board->extint_pending(l->board->opaque) : -1;
	if (highest(l->irr) >= 0)
		settle_eoi(l);
	return pending(l);
}

int lapic_ack(struct vcpu *vcpu)
{
	struct lapic *l = vcpu->lapic;
	int v;

	if (!l)
		return -1;
	if (vcpu->vm->apics)
		return lapic_pending(vcpu) < 0 ? -1 : l->board->extint_ack(l->board->opaque);
	settle_eoi(l);
	v = hw_enabled(l) ? deliverable(l) : -1;
	if (v >= 0) {
		vec_set(l->irr, (unsigned)v, false);
		vec_set(l->isr, (unsigned)v, true);
		lend_eoi(l);
	} else if (l->board && takes_extint(l) && l->board->extint_pending(l->board->opaque) >= 0) {
		v = l->board->extint_ack(l->board->opaque);
		l->extint = false;
	} else {
		return -1;
	}
	notify(l); /* the other source may have one too */
	return v;
}

u64 lapic_get_cr8(struct vcpu *vcpu)
{
	const struct lapic *l = vcpu->lapic;

	return l ? l->tpr >> 4 : 0;
}

/* [SDM3 10.8.6.1] */
void lapic_set_cr8(struct vcpu *vcpu, u64 cr8)
{
	struct lapic *l = vcpu->lapic;

	if (!l)
		return;
	l->tpr = (u32)(cr8 & 15) << 4;
	notify(l);
}

/* To and from an engine that has local APICs itself. What that does not know stays here: errors that no write has latched, the
 * pins. The timer of an engine's APIC that ran out after the vCPU was stopped, in one-shot mode, is gone. */

static void get_vectors(u32 *reg, const u32 v[8])
{
	memcpy(reg, v, 8 * sizeof(*v));
}

static void set_vectors(u32 v[8], const u32 *reg)
{
	memcpy(v, reg, 8 * sizeof(*v));
	v[0] &= ~0xffffu; /* no vectors */
}

void lapic_get_apic(struct vcpu *vcpu, struct apic_state *ret_apic)
{
	struct lapic *l = vcpu->lapic;
	u32 *reg = ret_apic->reg;

	settle_eoi(l);
	reg[R_CUR_COUNT] = timer_count(l);
	reg[R_ID] = vcpu->id << 24;
	reg[R_VERSION] = LAPIC_VERSION;
	reg[R_TPR] = l->tpr;
	reg[R_LDR] = l->ldr;
	reg[R_DFR] = l->dfr;
	reg[R_SVR] = l->svr;
	get_vectors(reg + R_ISR, l->isr);
	get_vectors(reg + R_TMR, l->tmr);
	get_vectors(reg + R_IRR, l->irr);
	reg[R_ESR] = l->esr;
	reg[R_ICR] = (u32)l->icr;
	reg[R_ICR2] = (u32)(l->icr >> 32);
	for (unsigned i = 0; i < NR_LVT; i++)
		reg[R_LVT + i] = l->lvt[i];
	reg[R_INIT_COUNT] = l->init_count;
	reg[R_DCR] = l->dcr;
	ret_apic->base = l->apic_base;
	ret_apic->deadline = l->deadline;
	ret_apic->eoi_msr = l->eoi_msr;
	vcpu->timer_tsc = ~0ull;
}

void lapic_set_apic(struct vcpu *vcpu, const struct apic_state *apic)
{
	struct lapic *l = vcpu->lapic;
	const u32 *reg = apic->reg;

	set_base(l, apic->base);
	l->tpr = reg[R_TPR] & 0xff;
	l->ldr = x2apic(l) ? x2apic_ldr(vcpu) : reg[R_LDR] & 0xff000000;
	l->dfr = reg[R_DFR] | 0x0fffffff;
	l->svr = reg[R_SVR] & SVR_WRITABLE;
	set_vectors(l->isr, reg + R_ISR);
	set_vectors(l->tmr, reg + R_TMR);
	set_vectors(l->irr, reg + R_IRR);
	l->esr = reg[R_ESR];
	l->icr = (u64)reg[R_ICR2] << 32 | (reg[R_ICR] & ICR_WRITABLE);
	for (unsigned i = 0; i < NR_LVT; i++)
		l->lvt[i] = reg[R_LVT + i] & lvt_writable[i];
	l->init_count = reg[R_INIT_COUNT];
	l->dcr = reg[R_DCR] & DCR_WRITABLE;
	l->deadline = timer_mode(l) == TIMER_DEADLINE ? apic->deadline : 0;
	l->counting = l->init_count && timer_mode(l) <= TIMER_PERIODIC &&
		      (reg[R_CUR_COUNT] || timer_mode(l) == TIMER_PERIODIC);
	if (l->counting) {
		u64 left = reg[R_CUR_COUNT] ? MIN(reg[R_CUR_COUNT], l->init_count) : l->init_count;

		l->timer_end = clock_now(l->dev.vm) + (left << timer_shift(l));
	}
	l->eoi_msr = apic->eoi_msr;
	l->eoi_lent = false;
	if (!eoi_word(l))
		l->eoi_msr = 0;
	timer_arm(l);
	notify(l);
}

void lapic_connect(struct vm *vm, const struct lapic_board *board)
{
	for (u32 id = 0; id < vm->nr_vcpus; id++)
		if (lapic_of(vm, id))
			lapic_of(vm, id)->board = board;
}

/* The device */

static int lapic_init(struct device *dev, const struct device_conf *conf, struct err *err)
{
	struct lapic *l = container_of(dev, struct lapic, dev);
	struct vm *vm = dev->vm;
	int r;

	dev->lock = &vm->intc_lock;
	if (conf->index >= vm->nr_vcpus || conf->index >= VM_MAX_VCPUS || !vm->vcpu[conf->index])
		return err_set(err, -EINVAL, "there is no vCPU %u for a local APIC", conf->index);
	if (vm->vcpu[conf->index]->lapic)
		return err_set(err, -EEXIST, "vCPU %u has a local APIC already", conf->index);
	l->vcpu = vm->vcpu[conf->index];
	l->vcpu->lapic = l;
	l->vcpu->timer_tsc = ~0ull;
	l->vcpu->timer_opaque = l;
	l->vcpu->timer_fn = timer_due;
	if (conf->index != 0)
		return 0;

	l->mmio = (struct region){ "local APIC", &lapic_mmio_ops, l,         dev->lock,
				   BUS_MMIO,     LAPIC_BASE,      LAPIC_SIZE };
	r = bus_add(&vm->bus, &l->mmio);
	if (r < 0)
		return err_sys(err, r, "the local APIC's page %#llx cannot be added", LAPIC_BASE);
	l->mmio_added = true;
	for (unsigned i = 0; i < NR_MSRS; i++) {
		l->msr[i] = (struct msr_region){ "local APIC", &lapic_msrs[i].ops,  l,
						 dev->lock,    lapic_msrs[i].first, lapic_msrs[i].last };
		r = bus_add_msr(&vm->bus, &l->msr[i]);
		if (r < 0)
			return err_sys(err, r, "the local APIC's MSR %#x cannot be added",
				       lapic_msrs[i].first);
		l->msr_added[i] = true;
	}
	return 0;
}

static void lapic_reset(struct device *dev, enum reset_kind kind)
{
	struct lapic *l = container_of(dev, struct lapic, dev);

	pthread_mutex_lock(dev->lock);
	set_base(l, LAPIC_BASE | BASE_EN | (l->vcpu->id == 0 ? BASE_BSP : 0));
	reset_regs(l);
	l->next_lowest = 0;
	if (l->vcpu->id == 0) {
		l->lvt[LVT_LINT0] = APIC_EXTINT << LVT_MODE_SHIFT;
		l->lvt[LVT_LINT1] = APIC_NMI << LVT_MODE_SHIFT;
	}
	timer_arm(l);
	pthread_mutex_unlock(dev->lock);
}

static const struct state_field lapic_state[] = {
	STATE_U64(lapic, apic_base),
	STATE_U32(lapic, tpr),
	STATE_U32(lapic, ldr),
	STATE_U32(lapic, dfr),
	STATE_U32(lapic, svr),
	STATE_U32S(lapic, isr),
	STATE_U32S(lapic, tmr),
	STATE_U32S(lapic, irr),
	STATE_U32(lapic, esr),
	STATE_U32(lapic, errors),
	STATE_U64(lapic, icr),
	STATE_U32S(lapic, lvt),
	STATE_U32(lapic, init_count),
	STATE_U32(lapic, dcr),
	STATE_BOOL(lapic, counting),
	STATE_U64(lapic, timer_end),
	STATE_U64(lapic, deadline),
	STATE_FIELD_(lapic, lint, 2, STATE_BOOL_),
	STATE_BOOL(lapic, extint),
	STATE_U64(lapic, eoi_msr),
	STATE_BOOL(lapic, eoi_lent),
	STATE_U32(lapic, next_lowest),
	STATE_END,
};

static int lapic_post_load(struct device *dev, struct err *err)
{
	struct lapic *l = container_of(dev, struct lapic, dev);
	const char *bad = NULL;

	pthread_mutex_lock(dev->lock);
	if (!base_valid(l, l->apic_base))
		bad = "apic_base";
	else if (l->tpr > 0xff || l->svr & ~SVR_WRITABLE || l->dcr & ~DCR_WRITABLE)
		bad = "tpr, svr or dcr";
	else if ((l->isr[0] | l->irr[0] | l->tmr[0]) & 0xffff)
		bad = "isr, irr or tmr (a vector below 16)";
	else if (l->next_lowest >= VM_MAX_VCPUS)
		bad = "next_lowest";
	else if (l->deadline && (timer_mode(l) != TIMER_DEADLINE || l->counting))
		bad = "deadline";
	else if (l->counting &&
		 (timer_mode(l) > TIMER_PERIODIC ||
		  (l->timer_end > clock_now(dev->vm) && l->timer_end - clock_now(dev->vm) > BIT(40))))
		bad = "timer_end";
	if (!bad && (l->eoi_msr & EOI_RESERVED ||
		     (l->eoi_lent && (!(l->eoi_msr & EOI_ENABLE) || highest(l->isr) < 0)) ||
		     (l->eoi_msr & EOI_ENABLE && !eoi_word(l))))
		bad = "eoi_msr or eoi_lent";
	for (unsigned i = 0; i < NR_LVT && !bad; i++)
		if (l->lvt[i] & ~(lvt_writable[i] | (i == LVT_LINT0 || i == LVT_LINT1 ? LVT_RIRR : 0)))
			bad = "lvt";
	if (!bad) {
		set_base(l, l->apic_base);
		timer_arm(l);
		notify(l);
	}
	pthread_mutex_unlock(dev->lock);
	return bad ? err_set(err, -EINVAL, "the state of device %s has an impossible value in %s", dev->id,
			     bad)
		   : 0;
}

static void lapic_fini(struct device *dev)
{
	struct lapic *l = container_of(dev, struct lapic, dev);

	for (unsigned i = 0; i < NR_MSRS; i++)
		if (l->msr_added[i])
			bus_del_msr(&dev->vm->bus, &l->msr[i]);
	if (l->mmio_added)
		bus_del(&dev->vm->bus, &l->mmio);
	if (l->vcpu) {
		l->vcpu->timer_fn = NULL;
		l->vcpu->timer_tsc = ~0ull;
		l->vcpu->lapic = NULL;
	}
}

const struct device_ops lapic_device = {
	.name = "lapic",
	.size = sizeof(struct lapic),
	.init = lapic_init,
	.reset = lapic_reset,
	.state = lapic_state,
	.post_load = lapic_post_load,
	.fini = lapic_fini,
};
