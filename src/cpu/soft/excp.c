/* Exceptions and interrupts: raising, combining, delivering; debug registers.
 *
 * After [SDM3 chapter 6], the pseudo code of INT n in [SDM2], [SDM3 17.2-17.3] and, for virtual-8086 mode,
 * [SDM3 20.3].
 *
 * soft_raise() notes the fault and jumps back to the loop, which calls excp_deliver_pending(). While an
 * event is delivered, c->delivering says so, faults jump back to deliver() here, and are combined with
 * the first one by [SDM3 table 6-5]: a second fault is delivered instead, or #DF, or the processor shuts
 * down. INT n and its like are executed by their handlers through excp_deliver(): a fault there is an
 * ordinary one of that instruction. A delivery probes the whole frame before it writes it and changes
 * registers last, so that the state under a nested fault is the old one.
 *
 * RF: faults push it set; traps, interrupts and code breakpoints push it as it is. What raises #DB as a
 * fault of the other kind (general detect) sets RF beforehand.
 *
 * Not offered: VME (so INT n in virtual-8086 mode obeys IOPL alone), shadow stacks, user interrupts,
 * BTF, RTM. Threads: the vCPU's own.
 */
#include "cpu/soft/seg.h"

#define DR6_B(n) BIT(n)
#define DR6_HITS 0xfull
#define DR7_GD   BIT(13)

#define DELIVERING_DF (-2)

_Noreturn void soft_raise(struct soft_cpu *c, const struct insn *i, unsigned vector, s64 error)
{
	if (i)
		c->rip = soft_rip_mask(c, soft_rip(c, i));
	c->exc.vector = (u8)vector;
	c->exc.has_error = error != NO_ERROR;
	c->exc.error = error != NO_ERROR ? (u32)error : 0;
	c->exc.rip = c->rip;
	if (c->delivering != -1)
		__builtin_longjmp(c->jb_deliver, 1);
	__builtin_longjmp(c->jb, 1);
}

/* B0-B3 tell about this #DB only; the other bits of DR6 stay until software clears them. Between the hit and
 * its #DB there is ATT_DB. */
static void note_hits(struct soft_cpu *c, u64 bits)
{
	if (bits && !(c->attention & ATT_DB))
		c->dr6 &= ~DR6_HITS;
}

_Noreturn void excp_debug_trap(struct soft_cpu *c, u64 dr6_bits)
{
	note_hits(c, dr6_bits);
	c->attention &= ~(u32)ATT_DB;
	c->dr6 |= dr6_bits;
	soft_raise(c, NULL, EXC_DB, NO_ERROR);
}

/* --- delivery --- */

struct event {
	unsigned vector;
	enum excp_kind kind;
	unsigned ext; /* EXT of error codes about this delivery */
	s64 error;
	u64 rip;
	u64 flags; /* as pushed */
};

/* An error code that names the event's gate. */
static s64 idt_err(const struct event *e)
{
	return e->vector * 8 + 2 + e->ext;
}

static s64 sel_err(const struct event *e, u16 sel)
{
	return (sel & 0xfffc) | e->ext;
}

static bool checks_dpl(const struct event *e)
{
	return e->kind == EXCP_SOFT_INT || e->kind == EXCP_INT3_INTO;
}

/* [SDM2 INT n: REAL-ADDRESS-MODE] */
static void deliver_real(struct soft_cpu *c, const struct insn *i, const struct event *e)
{
	u64 frame[3] = { e->flags, c->seg[SEG_CS].sel, e->rip };
	struct seg_stack st;
	u32 vec;

	if (e->vector * 4 + 3 > c->idtr.limit)
		soft_gp(c, i, idt_err(e));
	vec = (u32)mmu_sys_load(c, i, seg_la(c, c->idtr.base + e->vector * 4), 4);
	if ((vec & 0xffff) > c->seg[SEG_CS].limit)
		soft_gp(c, i, e->ext);
	seg_stack_current(c, &st);
	seg_stack_push(c, i, &st, frame, 3, 2, e->ext);

	c->gpr[R_SP] = st.sp;
	seg_set_real(c, SEG_CS, (u16)(vec >> 16));
	c->rip = vec & 0xffff;
	soft_set_flags(c, soft_get_flags(c) & ~(FL_IF | FL_TF | FL_AC | FL_RF));
	soft_mode_changed(c);
}

/* The code segment that a gate names. */
static u64 gate_code(struct soft_cpu *c, const struct insn *i, const struct event *e, u16 sel)
{
	u64 d;

	if (seg_is_null(sel))
		soft_gp(c, i, e->ext);
	if (!seg_desc_read(c, i, sel, &d) || !desc_is_code(d) || desc_dpl(d) > c->cpl)
		soft_gp(c, i, sel_err(e, sel));
	if (soft_long(c) && (!desc_l(d) || desc_db(d)))
		soft_gp(c, i, sel_err(e, sel));
	if (!desc_present(d))
		soft_raise(c, i, EXC_NP, sel_err(e, sel));
	return d;
}

/* What all protected-mode gates do last. */
static void enter(struct soft_cpu *c, bool interrupt_gate, u16 sel, u64 desc, unsigned cpl, u64 rip)
{
	u64 clear = FL_TF | FL_NT | FL_RF | FL_VM;

	seg_set_cs(c, sel, desc, cpl);
	c->rip = rip;
	soft_set_flags(c, soft_get_flags(c) & ~(interrupt_gate ? clear | FL_IF : clear));
	soft_mode_changed(c);
}

static unsigned push_error(const struct event *e, u64 *frame, unsigned n)
{
	if (e->error != NO_ERROR)
		frame[n++] = (u64)e->error;
	return n;
}

/* [SDM2 INT n: PROTECTED-MODE, outside IA-32e mode] */
static void deliver_protected(struct soft_cpu *c, const struct insn *i, const struct event *e)
{
	u64 frame[SEG_MAX_FRAME], gate, d, rip;
	unsigned n = 0, type, size, dpl, k;
	bool vm86 = soft_vm86(c), inner;
	struct seg_stack st;
	s64 ss_err;
	u16 sel;

	if (e->vector * 8 + 7 > c->idtr.limit)
		soft_gp(c, i, idt_err(e));
	gate = mmu_sys_load(c, i, seg_la(c, c->idtr.base + e->vector * 8), 8);
	type = desc_type(gate);
	if (desc_is_user(gate) || ((type & 7) != DT_INT16 && (type & 7) != DT_TRAP16 && type != DT_TASK))
		soft_gp(c, i, idt_err(e));
	if (checks_dpl(e) && desc_dpl(gate) < c->cpl)
		soft_gp(c, i, idt_err(e));
	if (!desc_present(gate))
		soft_raise(c, i, EXC_NP, idt_err(e));
	sel = gate_sel(gate);
	if (type == DT_TASK) {
		if (e->kind == EXCP_FAULT)
			c->flags = (u32)(c->flags | (e->flags & FL_RF));
		seg_task_switch(c, i, sel, TASK_EXC, e->error, e->rip);
		return;
	}

	d = gate_code(c, i, e, sel);
	dpl = desc_dpl(d);
	size = type & 8 ? 4 : 2;
	rip = size == 4 ? gate_off(gate) : gate & 0xffff;
	inner = !desc_is_conforming(d) && dpl < c->cpl;
	if (vm86 && (!inner || dpl != 0))
		soft_gp(c, i, sel_err(e, sel));
	if (inner) {
		seg_stack_inner(c, i, dpl, e->ext, &st);
		ss_err = sel_err(e, st.ss.sel);
		if (vm86)
			for (k = 0; k < 4; k++) {
				static const u8 data[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };

				frame[n++] = c->seg[data[k]].sel;
			}
		frame[n++] = c->seg[SEG_SS].sel;
		frame[n++] = c->gpr[R_SP];
	} else {
		seg_stack_current(c, &st);
		ss_err = e->ext;
		dpl = c->cpl;
	}
	frame[n++] = e->flags;
	frame[n++] = c->seg[SEG_CS].sel;
	frame[n++] = e->rip;
	n = push_error(e, frame, n);
	seg_check_rip(c, i, d, rip, e->ext);
	seg_desc_accessed(c, i, sel, &d);
	seg_stack_push(c, i, &st, frame, n, size, ss_err);

	if (inner) {
		c->seg[SEG_SS] = st.ss;
		if (vm86) {
			seg_cache_null(&c->seg[SEG_ES], 0);
			seg_cache_null(&c->seg[SEG_DS], 0);
			seg_cache_null(&c->seg[SEG_FS], 0);
			seg_cache_null(&c->seg[SEG_GS], 0);
		}
	}
	c->gpr[R_SP] = st.sp;
	enter(c, (type & 1) == 0, sel, d, dpl, rip);
}

/* [SDM3 6.14; SDM2 INT n: IA-32e mode] */
static void deliver_long(struct soft_cpu *c, const struct insn *i, const struct event *e)
{
	u64 frame[6], gate, hi, d, rip;
	unsigned n = 0, type, dpl, ist;
	gva_t la = c->idtr.base + e->vector * 16;
	struct seg_stack st;
	bool inner;
	u16 sel;

	if (e->vector * 16 + 15 > c->idtr.limit)
		soft_gp(c, i, idt_err(e));
	gate = mmu_sys_load(c, i, la, 8);
	type = desc_type(gate);
	if (desc_is_user(gate) || (type != DT_INT32 && type != DT_TRAP32))
		soft_gp(c, i, idt_err(e));
	if (checks_dpl(e) && desc_dpl(gate) < c->cpl)
		soft_gp(c, i, idt_err(e));
	if (!desc_present(gate))
		soft_raise(c, i, EXC_NP, idt_err(e));
	hi = mmu_sys_load(c, i, la + 8, 8);
	rip = gate_off(gate) | hi << 32;
	ist = gate >> 32 & 7;
	sel = gate_sel(gate);

	d = gate_code(c, i, e, sel);
	dpl = desc_dpl(d);
	inner = !desc_is_conforming(d) && dpl < c->cpl;
	if (!inner)
		dpl = c->cpl;
	if (ist)
		st.sp = seg_stack_tss64(c, i, ist + 2, e->ext);
	else if (inner)
		st.sp = seg_stack_tss64(c, i, dpl, e->ext);
	else
		st.sp = c->gpr[R_SP];
	st.sp &= ~0xfull;
	st.mask = ~0ull;
	st.flat = true;
	st.sys = inner || (c->cpl < 3 && !soft_mode64(c)); /* an access of 32-bit code would cut RSP */

	frame[n++] = c->seg[SEG_SS].sel;
	frame[n++] = c->gpr[R_SP];
	frame[n++] = e->flags;
	frame[n++] = c->seg[SEG_CS].sel;
	frame[n++] = e->rip;
	n = push_error(e, frame, n);
	if (!seg_canonical(rip))
		soft_gp(c, i, e->ext);
	seg_desc_accessed(c, i, sel, &d);
	seg_stack_push(c, i, &st, frame, n, 8, e->ext);

	if (inner) {
		seg_cache_null(&c->seg[SEG_SS], (u16)dpl);
		c->seg[SEG_SS].attr |= dpl << SA_DPL_SHIFT;
	}
	c->gpr[R_SP] = st.sp;
	enter(c, type == DT_INT32, sel, d, dpl, rip);
}

void excp_deliver(struct soft_cpu *c, const struct insn *i, unsigned vector, enum excp_kind kind, s64 error,
		  u64 return_rip)
{
	struct event e = {
		.vector = vector,
		.kind = kind,
		.ext = kind != EXCP_SOFT_INT && kind != EXCP_INT3_INTO,
		.error = error,
		.rip = return_rip,
		.flags = soft_get_flags(c),
	};

	if (kind == EXCP_FAULT && vector != EXC_DB)
		e.flags |= FL_RF;
	/* One #DB reports all that DR6 has: also a data breakpoint held back by MOV SS, when INT1 or a
	 * code breakpoint or the single step comes first. Another one on top would overwrite the frame
	 * on the handler's IST stack. */
	if (vector == EXC_DB && kind != EXCP_SOFT_INT)
		c->attention &= ~(u32)ATT_DB;
	if (soft_real(c))
		deliver_real(c, i, &e);
	else if (soft_long(c))
		deliver_long(c, i, &e);
	else
		deliver_protected(c, i, &e);
	if (kind == EXCP_FAULT && vector == EXC_DB)
		c->dr7 &= ~DR7_GD;
}

/* --- double and triple faults --- */

/* Benign exceptions one in the delivery of the other, such as #AC by an unaligned stack for #AC, go on
 * for ever. The processor does too, and hears nothing any more; here it ends as a triple fault does. */
#define MAX_SERIAL 32

enum excp_class { BENIGN, CONTRIBUTORY, PAGE_FAULT };

static enum excp_class class_of(unsigned vector)
{
	switch (vector) {
	case EXC_DE:
	case EXC_TS:
	case EXC_NP:
	case EXC_SS:
	case EXC_GP:
	case EXC_CP: return CONTRIBUTORY;
	case EXC_PF:
	case EXC_VE: return PAGE_FAULT;
	default: return BENIGN;
	}
}

/* Replaces the fault in c->exc, that came up while `first` was delivered, by what is to be delivered;
 * false: nothing any more. */
static bool combine(struct soft_cpu *c, int first, enum excp_kind kind)
{
	enum excp_class a = kind == EXCP_FAULT && first >= 0 ? class_of((unsigned)first) : BENIGN;
	enum excp_class b = class_of(c->exc.vector);

	if (first == DELIVERING_DF)
		return false;
	if ((a == CONTRIBUTORY && b == CONTRIBUTORY) || (a == PAGE_FAULT && b != BENIGN)) {
		c->exc.vector = EXC_DF;
		c->exc.has_error = true;
		c->exc.error = 0;
	}
	return true;
}

static void book(struct soft_cpu *c, enum excp_kind kind, unsigned vector, u64 t0)
{
	if (kind != EXCP_INTR) /* which the loop has booked */
		soft_account(c, EXIT_EXCEPTION, vector, t0);
}

/* Delivers c->exc. Not inlined: __builtin_setjmp() saves this frame. */
static __attribute__((noinline)) bool deliver(struct soft_cpu *c, enum excp_kind first_kind)
{
	volatile int kind = (int)first_kind;
	volatile unsigned rounds = 0;
	u64 first_rip = c->exc.rip;
	u32 first_error = c->exc.error;
	u8 first_vector = c->exc.vector;
	bool first_has_error = c->exc.has_error;

	for (;;) {
		volatile u64 t0 = vcpu_rdtsc();
		volatile u8 vector = c->exc.vector;

		c->rip = c->exc.rip;
		c->delivering = kind == EXCP_FAULT && vector == EXC_DF ? DELIVERING_DF : (s16)vector;
		if (!__builtin_setjmp(c->jb_deliver)) {
			excp_deliver(c, NULL, vector, (enum excp_kind)kind,
				     c->exc.has_error ? (s64)c->exc.error : NO_ERROR, c->exc.rip);
			c->delivering = -1;
			c->activity = X86_ACTIVE; /* a trap of HLT itself */
			book(c, (enum excp_kind)kind, vector, t0);
			return true;
		}
		book(c, (enum excp_kind)kind, vector, t0);
		if (!combine(c, c->delivering, (enum excp_kind)kind) || ++rounds == MAX_SERIAL)
			break;
		kind = EXCP_FAULT;
	}

	c->delivering = -1;
	c->exc.vector = first_vector;
	c->exc.error = first_error;
	c->exc.has_error = first_has_error;
	c->exc.rip = first_rip;
	c->rip = first_rip;
	c->activity = X86_SHUTDOWN;
	soft_account(c, EXIT_TRIPLE_FAULT, EXIT_NO_KEY, 0);
	return false;
}

bool excp_deliver_pending(struct soft_cpu *c)
{
	return deliver(c, EXCP_FAULT);
}

bool excp_deliver_async(struct soft_cpu *c, unsigned vector, enum excp_kind kind)
{
	c->exc.vector = (u8)vector;
	c->exc.has_error = false;
	c->exc.error = 0;
	c->exc.rip = c->rip;
	if (kind == EXCP_NMI)
		c->nmi_blocked = true;
	return deliver(c, kind);
}

/* --- breakpoints [SDM3 17.2] --- */

static bool enabled(const struct soft_cpu *c, unsigned n)
{
	return c->dr7 >> (2 * n) & 3;
}

static unsigned type_of(const struct soft_cpu *c, unsigned n)
{
	return c->dr7 >> (16 + 4 * n) & 3;
}

static unsigned length_of(const struct soft_cpu *c, unsigned n)
{
	static const u8 length[4] = { 1, 2, 8, 4 };

	return length[c->dr7 >> (18 + 4 * n) & 3];
}

/* Bits of the enabled breakpoints whose type is in types (a bit map) and that overlap [la, la+len). */
static u64 hits(const struct soft_cpu *c, gva_t la, unsigned len, unsigned types)
{
	u64 dr6 = 0;

	for (unsigned n = 0; n < 4; n++) {
		unsigned size = length_of(c, n);
		u64 at = c->dr[n] & ~(u64)(size - 1);

		if (enabled(c, n) && types >> type_of(c, n) & 1 && (at - la < len || la - at < size))
			dr6 |= DR6_B(n);
	}
	return dr6;
}

bool excp_code_breakpoint(struct soft_cpu *c, u64 *ret_dr6)
{
	gva_t la = soft_mode64(c) ? c->rip : (u32)(c->seg[SEG_CS].base + c->rip);
	u64 dr6 = 0;

	if (!(c->dr7 & 0xff) || c->flags & FL_RF)
		return false;
	for (unsigned n = 0; n < 4; n++)
		if (enabled(c, n) && type_of(c, n) == 0 && c->dr[n] == la)
			dr6 |= DR6_B(n);
	note_hits(c, dr6);
	if (dr6)
		*ret_dr6 = dr6;
	return dr6;
}

u64 excp_data_breakpoint(struct soft_cpu *c, gva_t la, unsigned len, bool write)
{
	u64 dr6 = hits(c, la, len, write ? 1u << 1 | 1u << 3 : 1u << 3);

	note_hits(c, dr6);
	return dr6;
}

u64 excp_io_breakpoint(struct soft_cpu *c, u16 port, unsigned len)
{
	u64 dr6 = c->cr4 & CR4_DE && c->dr7 & 0xff ? hits(c, port, len, 1u << 2) : 0;

	note_hits(c, dr6);
	return dr6;
}

void excp_debug_changed(struct soft_cpu *c)
{
	bool armed = false; /* data breakpoints too: their trap comes right after the instruction */

	for (unsigned n = 0; n < 4; n++)
		armed |= enabled(c, n);
	if (armed)
		c->attention |= ATT_BREAK;
	else
		c->attention &= ~(u32)ATT_BREAK;
	mmu_flush_all(c);
}
