/* struct x86_state into a vCPU of KVM's, and out of it.
 *
 * Whatever is set comes back the same; two things need more than copying:
 *
 * - The XSAVE image has the host's layout at KVM, a fixed one in struct x86_state.
 * - Events in flight: an interrupt that was taken from the controller and given to KVM, but not delivered because the
 *   run ended before, is in KVM's queue. It goes into the state (intr_taken), since the controller has counted it. An
 *   NMI goes back to "pending". Of exceptions only a debug trap is kept: the instruction
 *   that caused another one, INT n included, is at RIP and causes it again. Those of a guest's guest are with what else there is of
 *   that (kvm_nested.c).
 *
 * On the vCPU's thread, or while it is stopped.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/kvm/kvm.h"
#include "vm/irq.h"
#include "x86/defs.h"

#define LEGACY_USED 416 /* what follows is reserved, or software's */
#define XSTATE_BV   512
#define COMPONENTS                                                                           \
	(XFEATURE_X87 | XFEATURE_SSE | XFEATURE_AVX | XFEATURE_OPMASK | XFEATURE_ZMM_HI256 | \
	 XFEATURE_HI16_ZMM)

#define TSC_PATIENCE_MS 20000

#define DR6_TRAPS      15ull
#define DR6_ACTIVE_LOW 0xffff0ff0ull

#define SHADOW_MOVSS 1
#define SHADOW_STI   2

#define APIC_BASE     0xfee00000ull
#define APIC_BASE_BSP BIT(8)
#define APIC_BASE_EN  BIT(11)

/* --- segments --- */
static struct kvm_segment to_kvm(const struct x86_segreg *s)
{
	return (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->sel,
		.type = s->attr & SA_TYPE,
		.s = !!(s->attr & SA_S),
		.dpl = s->attr >> SA_DPL_SHIFT & 3,
		.present = !!(s->attr & SA_P),
		.avl = !!(s->attr & SA_AVL),
		.l = !!(s->attr & SA_L),
		.db = !!(s->attr & SA_DB),
		.g = !!(s->attr & SA_G),
		.unusable = !!(s->attr & SA_UNUSABLE),
	};
}

static struct x86_segreg from_kvm(const struct kvm_segment *s)
{
	return (struct x86_segreg){
		.base = s->base,
		.limit = s->limit,
		.sel = s->selector,
		/* One that cannot be used has no type; with VMX, KVM gives it back accessed. */
		.attr = (u32)((s->type & SA_TYPE) | (s->unusable ? 1 : 0) | (s->s ? SA_S : 0) |
			      (u32)(s->dpl & 3) << SA_DPL_SHIFT | (s->present ? SA_P : 0) |
			      (s->avl ? SA_AVL : 0) | (s->l ? SA_L : 0) | (s->db ? SA_DB : 0) |
			      (s->g ? SA_G : 0) | (s->unusable ? SA_UNUSABLE : 0)),
	};
}

/* The same thing in both structures. */
/* clang-format off */
#define SEGMENTS(X)                                                                                            \
	X(seg[SEG_ES], es) X(seg[SEG_CS], cs) X(seg[SEG_SS], ss) X(seg[SEG_DS], ds) X(seg[SEG_FS], fs)         \
	X(seg[SEG_GS], gs) X(ldtr, ldt) X(tr, tr)
#define CONTROLS(X) X(cr0) X(cr2) X(cr3) X(cr4) X(efer)
#define GENERALS(X)                                                                                            \
	X(R_AX, rax) X(R_CX, rcx) X(R_DX, rdx) X(R_BX, rbx) X(R_SP, rsp) X(R_BP, rbp) X(R_SI, rsi)             \
	X(R_DI, rdi) X(R_8, r8) X(R_9, r9) X(R_10, r10) X(R_11, r11) X(R_12, r12) X(R_13, r13) X(R_14, r14)    \
	X(R_15, r15)
/* clang-format on */

static int get_regs(struct kvm_cpu *k, struct x86_state *s, struct err *err)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_debugregs debug;
	int r = KVM_CALL(k->fd, KVM_GET_REGS, &regs, err);

	if (r >= 0)
		r = KVM_CALL(k->fd, KVM_GET_SREGS, &sregs, err);
	if (r >= 0)
		r = KVM_CALL(k->fd, KVM_GET_DEBUGREGS, &debug, err);
	if (r < 0)
		return r;
#define GET_GENERAL_(nr, name) s->gpr[nr] = regs.name;
#define GET_SEGMENT_(f, name)  s->f = from_kvm(&sregs.name);
#define GET_CONTROL_(name)     s->name = sregs.name;
	GENERALS(GET_GENERAL_)
	SEGMENTS(GET_SEGMENT_)
	CONTROLS(GET_CONTROL_)
	s->rip = regs.rip;
	s->rflags = regs.rflags;
	s->gdtr = (struct x86_dtr){ sregs.gdt.limit, sregs.gdt.base };
	s->idtr = (struct x86_dtr){ sregs.idt.limit, sregs.idt.base };
	memcpy(s->dr, debug.db, sizeof(s->dr));
	s->dr6 = debug.dr6;
	s->dr7 = debug.dr7;
	return 0;
}

/* What of a local APIC is in there: of the device's, or as KVM has its own. */
static int set_apic(struct kvm_cpu *k, struct kvm_sregs *sregs, struct err *err)
{
	struct kvm_sregs now;
	int r = k->kvm->split ? KVM_CALL(k->fd, KVM_GET_SREGS, &now, err) : 0;

	if (r < 0)
		return r;
	if (k->kvm->split) {
		sregs->cr8 = now.cr8;
		sregs->apic_base = now.apic_base;
	} else {
		sregs->cr8 = irq_get_cr8(k->vcpu);
		sregs->apic_base = APIC_BASE | (k->vcpu->id ? 0 : APIC_BASE_BSP) |
				   (k->vcpu->apic_off ? 0 : APIC_BASE_EN);
	}
	return 0;
}

/* What of s KVM has to be told: all, or, where it has `before`, what differs from that. */
struct change {
	const struct x86_state *before; /* NULL: it has anything */
	const struct x86_state *s;
};

static bool differs(const struct change *c, size_t from, size_t to)
{
	return !c->before || memcmp((const char *)c->before + from, (const char *)c->s + from, to - from);
}
/* One of the fields from first up to, but not, end. */
#define DIFFER(c, first, end) differs(c, offsetof(struct x86_state, first), offsetof(struct x86_state, end))

static int set_controls(struct kvm_cpu *k, const struct change *c, struct err *err)
{
	const struct x86_state *s = c->s;
	struct kvm_sregs sregs = {
		.gdt = { .base = s->gdtr.base, .limit = s->gdtr.limit },
		.idt = { .base = s->idtr.base, .limit = s->idtr.limit },
	};
	int r;

#define SET_SEGMENT_(f, name) sregs.name = to_kvm(&s->f);
#define SET_CONTROL_(name)    sregs.name = s->name;
	SEGMENTS(SET_SEGMENT_)
	CONTROLS(SET_CONTROL_)
	if (!DIFFER(c, seg, dr) && !DIFFER(c, efer, star) && k->apic_off == k->vcpu->apic_off)
		return 0;
	r = set_apic(k, &sregs, err);
	if (r >= 0)
		r = KVM_CALL(k->fd, KVM_SET_SREGS, &sregs, err);
	k->apic_off = k->vcpu->apic_off;
	return r;
}

static int set_regs(struct kvm_cpu *k, const struct change *c, struct err *err)
{
	const struct x86_state *s = c->s;
	struct kvm_regs regs = { .rip = s->rip, .rflags = s->rflags };
	struct kvm_debugregs debug = { .dr6 = s->dr6, .dr7 = s->dr7 };
	int r = 0;

#define SET_GENERAL_(nr, name) regs.name = s->gpr[nr];
	GENERALS(SET_GENERAL_)
	memcpy(debug.db, s->dr, sizeof(s->dr));
	if (DIFFER(c, gpr, seg))
		r = KVM_CALL(k->fd, KVM_SET_REGS, &regs, err);
	if (r >= 0 && DIFFER(c, dr, efer))
		r = KVM_CALL(k->fd, KVM_SET_DEBUGREGS, &debug, err);
	return r;
}

/* --- vector and x87 registers --- */
static const struct component {
	u64 bit;
	u32 offset, size; /* in struct x86_state */
} components[] = {
	{ XFEATURE_AVX, X86_XSAVE_AVX_OFFSET, 256 },
	{ XFEATURE_OPMASK, X86_XSAVE_OPMASK_OFFSET, 64 },
	{ XFEATURE_ZMM_HI256, X86_XSAVE_ZMM_HI256_OFFSET, 512 },
	{ XFEATURE_HI16_ZMM, X86_XSAVE_HI16_ZMM_OFFSET, 1024 },
};

/* Where KVM has the component: as the processor, as far as the guest has it (kvm_cpuid_check()). */
static u32 kvm_offset(const struct kvm_cpu *k, u64 bit)
{
	const struct x86_xsave_layout *l = &k->vcpu->vm->cpuid.xsave;

	switch (bit) {
	case XFEATURE_AVX: return X86_XSAVE_AVX_OFFSET;
	case XFEATURE_OPMASK: return l->opmask;
	case XFEATURE_ZMM_HI256: return l->zmm_hi256;
	default: return l->hi16_zmm;
	}
}

static u64 usable(const struct kvm_cpu *k)
{
	return (k->vcpu->vm->cpuid.xcr0_mask | XFEATURE_X87 | XFEATURE_SSE) & COMPONENTS;
}

static int get_vectors(struct kvm_cpu *k, struct x86_state *s, struct err *err)
{
	int r = k->kvm->xsave2 ? KVM_CALL(k->fd, KVM_GET_XSAVE2, k->xsave, err)
			       : KVM_CALL(k->fd, KVM_GET_XSAVE, k->xsave, err);
	u64 bv = r < 0 ? 0 : ld64(k->xsave + XSTATE_BV) & usable(k);

	if (r < 0)
		return r;
	memcpy(s->xsave, k->xsave, LEGACY_USED);
	st64(s->xsave + XSTATE_BV, bv);
	for (unsigned i = 0; i < ARRAY_SIZE(components); i++) {
		const struct component *c = &components[i];

		if (bv & c->bit)
			memcpy(s->xsave + c->offset, k->xsave + kvm_offset(k, c->bit), c->size);
	}
	return 0;
}

static int set_vectors(struct kvm_cpu *k, const struct x86_state *s, struct err *err)
{
	u64 bv = ld64(s->xsave + XSTATE_BV) & usable(k);

	memset(k->xsave, 0, k->kvm->xsave_size);
	memcpy(k->xsave, s->xsave, LEGACY_USED);
	st64(k->xsave + XSTATE_BV, bv);
	for (unsigned i = 0; i < ARRAY_SIZE(components); i++) {
		const struct component *c = &components[i];

		if (bv & c->bit)
			memcpy(k->xsave + kvm_offset(k, c->bit), s->xsave + c->offset, c->size);
	}
	return KVM_CALL(k->fd, KVM_SET_XSAVE, k->xsave, err);
}

static int get_xcr0(struct kvm_cpu *k, struct x86_state *s, struct err *err)
{
	struct kvm_xcrs xcrs;
	int r;

	s->xcr0 = XFEATURE_X87;
	if (!k->kvm->xcrs)
		return 0;
	r = KVM_CALL(k->fd, KVM_GET_XCRS, &xcrs, err);
	for (u32 i = 0; r >= 0 && i < MIN(xcrs.nr_xcrs, (u32)KVM_MAX_XCRS); i++)
		if (xcrs.xcrs[i].xcr == 0)
			s->xcr0 = xcrs.xcrs[i].value;
	return r;
}

static int set_xcr0(struct kvm_cpu *k, const struct x86_state *s, struct err *err)
{
	const struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0] = { .xcr = 0, .value = s->xcr0 } };

	return k->kvm->xcrs ? KVM_CALL(k->fd, KVM_SET_XCRS, &xcrs, err) : 0;
}

/* --- events --- */
/* DR6 when a debug trap is delivered that KVM has only just noted: the causes as bits that are 1, those of DR6 that are 0 for it
 * among them [KVM api 7.13, SDM3 17.2.3]. */
static u64 with_payload(u64 dr6, u64 payload)
{
	return ((dr6 & ~DR6_TRAPS) | DR6_ACTIVE_LOW | (payload & ~BIT(12))) ^ (payload & DR6_ACTIVE_LOW);
}

static int get_events(struct kvm_cpu *k, struct x86_state *s, struct err *err)
{
	struct kvm_vcpu_events e;
	int r = KVM_CALL(k->fd, KVM_GET_VCPU_EVENTS, &e, err);

	if (r < 0)
		return r;
	s->sti_shadow = e.interrupt.shadow & SHADOW_STI;
	s->movss_shadow = e.interrupt.shadow & SHADOW_MOVSS;
	s->nmi_pending =
		vcpu_nmis(e.nmi.injected ? VCPU_REQ_NMI : 0, e.nmi.pending, e.nmi.masked && !e.nmi.injected);
	s->nmi_blocked = e.nmi.masked && !e.nmi.injected;
	s->exc_pending = (e.exception.injected || e.exception.pending) && e.exception.nr == EXC_DB;
	s->exc_vector = s->exc_pending ? EXC_DB : 0;
	if (s->exc_pending && e.exception_has_payload && !kvm_nested_events(s))
		s->dr6 = with_payload(s->dr6, e.exception_payload);
	s->intr_taken = e.interrupt.injected && !e.interrupt.soft;
	s->intr_vector = s->intr_taken ? e.interrupt.nr : 0;
	return 0;
}

static int set_events(struct kvm_cpu *k, const struct x86_state *s, struct err *err)
{
	const struct kvm_vcpu_events own = {
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
		.exception = { .injected = s->exc_pending, .nr = s->exc_vector },
		.interrupt = { .injected = s->intr_taken,
			       .nr = s->intr_vector,
			       .shadow = (u8)((s->sti_shadow ? SHADOW_STI : 0) |
					      (s->movss_shadow ? SHADOW_MOVSS : 0)) },
		.nmi = { .pending = s->nmi_pending, .masked = s->nmi_blocked },
	}, *inner = kvm_nested_events(s);

	return KVM_CALL(k->fd, KVM_SET_VCPU_EVENTS, inner ? inner : &own, err);
}

/* --- the TSC --- */
int kvm_state_set_tsc(struct kvm_cpu *k, struct err *err)
{
	s64 offset = k->vcpu->tsc_offset;
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (u64)(uintptr_t)&offset,
	};
	union kvm_msr_args tsc = { .room = { 0 } };
	int r;

	tsc.head.nmsrs = 1;
	tsc.head.entries[0].index = MSR_TSC;
	if (k->vcpu->vm->tsc_fixed) {
		r = 0;
	} else if (k->tsc_exact) {
		r = KVM_CALL(k->fd, KVM_SET_DEVICE_ATTR, &attr, err);
	} else {
		tsc.head.entries[0].data = vcpu_rdtsc() + (u64)offset;
		r = KVM_CALL(k->fd, KVM_SET_MSRS, &tsc, err);
		if (r == 0)
			r = err_set(err, -EINVAL, "the host's KVM refuses to set the TSC");
	}
	if (r < 0)
		return r;
	k->tsc_offset = offset;
	k->tsc_known = true;
	return kvm_apic_rearm(k, err);
}

int kvm_state_try_tsc(struct kvm_cpu *k, struct err *err)
{
	union kvm_msr_args tsc = { .room = { 0 } };
	struct vcpu *vcpu = k->vcpu;
	s64 before = vcpu->tsc_offset;
	int r;

	if (vcpu->id)
		return 0;
	tsc.head.nmsrs = 1;
	tsc.head.entries[0].index = MSR_TSC;
	vcpu->tsc_offset = (s64)(0 - vcpu_rdtsc());
	r = kvm_state_set_tsc(k, err);
	if (r >= 0)
		r = KVM_CALL(k->fd, KVM_GET_MSRS, &tsc, err);
	/* Now it is near 0, or KVM has only pretended (an emulator with the host's TSC). */
	if (r >= 0 && tsc.head.entries[0].data > vcpu->vm->tsc_khz * TSC_PATIENCE_MS)
		vcpu->vm->tsc_fixed = true;
	vcpu->tsc_offset = before;
	k->tsc_known = false;
	return r;
}

/* --- all of it --- */
int kvm_state_get(struct kvm_cpu *k, struct x86_state *ret_state, struct err *err)
{
	int r = kvm_vcpu_finish(k, err);

	if (r < 0)
		return r;
	memset(ret_state, 0, sizeof(*ret_state));
	r = get_regs(k, ret_state, err);
	if (r >= 0)
		r = kvm_nested_get(k, ret_state, err);
	if (r >= 0)
		r = kvm_msr_get(k, ret_state, err);
	if (r >= 0)
		r = get_xcr0(k, ret_state, err);
	if (r >= 0)
		r = get_vectors(k, ret_state, err);
	if (r >= 0)
		r = get_events(k, ret_state, err);
	if (r >= 0)
		r = kvm_apic_get_activity(k, err);
	ret_state->activity = k->activity;
	ret_state->tsc_offset = (u64)k->vcpu->tsc_offset;
	return MIN(r, 0);
}

int kvm_state_set(struct kvm_cpu *k, const struct x86_state *s, struct err *err)
{
	return kvm_state_change(k, NULL, s, err);
}

int kvm_state_change(struct kvm_cpu *k, const struct x86_state *before, const struct x86_state *s,
		     struct err *err)
{
	const struct change c = { before, s };
	int r = kvm_vcpu_finish(k, err);

	if (r >= 0)
		r = x86_state_check(s, err);
	if (r < 0)
		return r;
	if (k->vcpu->vm->tsc_fixed && s->tsc_offset)
		return err_set(
			err, -ENOTSUP,
			"this host's KVM has no TSC for guests but the host's own, and the guest has another one "
			"already; a machine that began with --engine kvm can move");
	/* What KVM says there includes signals that have come; none of an earlier life is to start the vCPU. */
	if (!before)
		r = kvm_apic_get_activity(k, err);
	if (r >= 0 && DIFFER(&c, virt, xsave))
		r = kvm_nested_leave(k, err);
	/* Control registers first: they say what the others may be. */
	if (r >= 0)
		r = set_controls(k, &c, err);
	if (r >= 0 && (DIFFER(&c, efer, xcr0) || DIFFER(&c, tsc_adjust, activity) || DIFFER(&c, virt, xsave)))
		r = kvm_msr_set(k, s, err);
	if (r >= 0 && DIFFER(&c, virt, xsave))
		r = kvm_nested_set(k, s, err);
	if (r >= 0)
		r = set_regs(k, &c, err);
	if (r >= 0 && DIFFER(&c, xcr0, tsc_offset))
		r = set_xcr0(k, s, err);
	if (r >= 0 && differs(&c, offsetof(struct x86_state, xsave), sizeof(*s)))
		r = set_vectors(k, s, err);
	/* Always: KVM may have an exception that kvm_state_get() leaves out, since its instruction causes it again. */
	if (r >= 0)
		r = set_events(k, s, err);
	if (r < 0)
		return r;
	k->vcpu->tsc_offset = (s64)s->tsc_offset;
	if (DIFFER(&c, activity, sti_shadow)) {
		k->activity = s->activity;
		r = kvm_apic_set_activity(k, err);
		if (r < 0)
			return r;
	}
	k->look = true;
	/* As KVM says it at the end of a run. */
	k->run->if_flag = !!(s->rflags & FL_IF);
	k->run->ready_for_interrupt_injection = k->run->if_flag && !s->sti_shadow && !s->movss_shadow &&
						!s->intr_taken && !s->exc_pending && !s->virt.nested;
	return DIFFER(&c, tsc_offset, tsc_adjust) ? kvm_state_set_tsc(k, err) : 0;
}
