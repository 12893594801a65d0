/* Model-specific registers under KVM: which leave the guest, and which are part of its state.
 *
 * KVM keeps most by itself, under rules that the CPUID leaves decide. The filter [KVM api 4.97] sends here
 * those that are the machine's (local APIC, KVM clock, stolen time), so that they are the same on both engines, and
 * writes of the TSC, so that vcpu->tsc_offset stays the truth. Whatever KVM itself would refuse comes here too and is
 * asked of the machine, which says #GP where nobody is home. KVM does not filter x2APIC registers, but has none
 * as long as it has no local APIC, so they come here as refused; where it has (kvm_apic.c) nothing of that leaves the guest.
 *
 * State: what KVM keeps of `rows` is asked of it; the others do not exist for a guest there, and stay as they were given.
 *
 * On the vCPU's thread, or while it is stopped.
 */
#include <errno.h>
#include <string.h>

#include "cpu/kvm/kvm.h"
#include "x86/defs.h"

struct row {
	u32 nr;
	u16 offset; /* of a u64 in struct x86_state */
	/* NESTED: for a guest with SVM or VMX only. CONSTANT: and 0 in a state stands for what KVM has. */
	enum { ALWAYS, NESTED, CONSTANT } kind;
};

#define ROW(number, f, k)                                \
	{                                                \
		number, offsetof(struct x86_state, f), k \
	}
#define FIELD(number, f) ROW(number, f, ALWAYS)
#define FIXED(i, number) FIELD(number, mtrr_fixed[i])
#define VARIABLE(i)                                        \
	FIELD(MSR_MTRR_PHYSBASE0 + 2 * (i), mtrr_base[i]), \
		FIELD(MSR_MTRR_PHYSBASE0 + 2 * (i) + 1, mtrr_mask[i])

#define VMX(i) ROW(MSR_VMX_BASIC + (i), virt.vmx[i], CONSTANT)

static const struct row rows[] = {
	FIELD(MSR_SYSENTER_CS, sysenter_cs),
	FIELD(MSR_SYSENTER_ESP, sysenter_esp),
	FIELD(MSR_SYSENTER_EIP, sysenter_eip),
	FIELD(MSR_STAR, star),
	FIELD(MSR_LSTAR, lstar),
	FIELD(MSR_CSTAR, cstar),
	FIELD(MSR_SFMASK, sfmask),
	FIELD(MSR_KERNEL_GS_BASE, kernel_gs_base),
	FIELD(MSR_TSC_AUX, tsc_aux),
	FIELD(MSR_PAT, pat),
	FIELD(MSR_MISC_ENABLE, misc_enable),
	FIELD(MSR_SPEC_CTRL, spec_ctrl),
	FIELD(MSR_XSS, xss),
	FIELD(MSR_TSC_ADJUST, tsc_adjust),
	FIELD(MSR_MTRR_DEF_TYPE, mtrr_def_type),
	FIXED(0, MSR_MTRR_FIX64K),
	FIXED(1, MSR_MTRR_FIX16K_80),
	FIXED(2, MSR_MTRR_FIX16K_A0),
	FIXED(3, MSR_MTRR_FIX4K_C0),
	FIXED(4, MSR_MTRR_FIX4K_C0 + 1),
	FIXED(5, MSR_MTRR_FIX4K_C0 + 2),
	FIXED(6, MSR_MTRR_FIX4K_C0 + 3),
	FIXED(7, MSR_MTRR_FIX4K_C0 + 4),
	FIXED(8, MSR_MTRR_FIX4K_C0 + 5),
	FIXED(9, MSR_MTRR_FIX4K_C0 + 6),
	FIXED(10, MSR_MTRR_FIX4K_C0 + 7),
	VARIABLE(0),
	VARIABLE(1),
	VARIABLE(2),
	VARIABLE(3),
	VARIABLE(4),
	VARIABLE(5),
	VARIABLE(6),
	VARIABLE(7),
	ROW(MSR_FEATURE_CONTROL, virt.feature_control, NESTED),
	ROW(MSR_VM_CR, virt.vm_cr, NESTED),
	ROW(MSR_VM_HSAVE_PA, virt.vm_hsave_pa, NESTED),
	ROW(MSR_TSC_RATIO, virt.tsc_ratio, NESTED),
	VMX(0),
	VMX(1),
	VMX(2),
	VMX(3),
	VMX(4),
	VMX(5),
	VMX(6),
	VMX(7),
	VMX(8),
	VMX(9),
	VMX(10),
	VMX(11),
	VMX(12),
	VMX(13),
	VMX(14),
	VMX(15),
	VMX(16),
	VMX(17),
};
_Static_assert(ARRAY_SIZE(rows) <= KVM_MAX_MSRS, "MSRs");

static u64 *field(struct x86_state *s, const struct row *row)
{
	return (u64 *)(void *)((char *)s + row->offset);
}

int kvm_msr_learn(struct kvm_cpu *k, struct err *err)
{
	struct kvm_vm *kvm = k->kvm;

	if (kvm->msrs_known)
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		union kvm_msr_args m = { .room = { 0 } };
		int r;

		if (rows[i].kind != ALWAYS && !kvm->nested)
			continue;
		m.head.nmsrs = 1;
		m.head.entries[0].index = rows[i].nr;
		r = KVM_CALL(k->fd, KVM_GET_MSRS, &m, err);
		if (r < 0)
			return r;
		/* What it reads it must take back, too. */
		if (r == 1 && kvm_sys_ioctl(k->fd, KVM_SET_MSRS, &m, "KVM_SET_MSRS", NULL) == 1)
			kvm->msr[kvm->nr_msrs++] = (u8)i;
	}
	kvm->msrs_known = true;
	return 0;
}

/* KVM says how many it has done, that is up to the first that it refuses. */
static int all_done(const union kvm_msr_args *m, int done, const char *verb, struct err *err)
{
	if (done < 0)
		return done;
	if ((u32)done < m->head.nmsrs)
		return err_set(err, -EINVAL, "the host's KVM refuses to %s MSR %#x (%#llx)", verb,
			       m->head.entries[done].index, (unsigned long long)m->head.entries[done].data);
	return 0;
}

int kvm_msr_get(struct kvm_cpu *k, struct x86_state *s, struct err *err)
{
	const struct kvm_vm *kvm = k->kvm;
	union kvm_msr_args m = { .room = { 0 } };
	int r;

	m.head.nmsrs = kvm->nr_msrs;
	for (u32 i = 0; i < kvm->nr_msrs; i++)
		m.head.entries[i].index = rows[kvm->msr[i]].nr;
	for (u32 i = 0; i < ARRAY_SIZE(rows); i++)
		*field(s, &rows[i]) = k->msr_given[i];
	r = all_done(&m, KVM_CALL(k->fd, KVM_GET_MSRS, &m, err), "read", err);
	for (u32 i = 0; r >= 0 && i < kvm->nr_msrs; i++)
		*field(s, &rows[kvm->msr[i]]) = m.head.entries[i].data;
	s->tsc_adjust = k->tsc_adjust;
	return r;
}

int kvm_msr_set(struct kvm_cpu *k, const struct x86_state *s, struct err *err)
{
	const struct kvm_vm *kvm = k->kvm;
	union kvm_msr_args m = { .room = { 0 } };

	for (u32 i = 0; i < kvm->nr_msrs; i++) {
		const struct row *row = &rows[kvm->msr[i]];
		u64 val = *field((struct x86_state *)s, row);

		if (row->kind == CONSTANT && !val)
			continue;
		m.head.entries[m.head.nmsrs].index = row->nr;
		m.head.entries[m.head.nmsrs++].data = val;
	}
	for (u32 i = 0; i < ARRAY_SIZE(rows); i++)
		k->msr_given[i] = *field((struct x86_state *)s, &rows[i]);
	k->tsc_adjust = s->tsc_adjust;
	return all_done(&m, KVM_CALL(k->fd, KVM_SET_MSRS, &m, err), "take", err);
}

/* --- what leaves the guest --- */
#define BOTH (KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE)

static const struct {
	u32 first, count, flags;
	enum owner { MACHINE, APIC, STEAL } owner; /* who has it, if that is not the machine */
} leaving[] = {
	{ MSR_TSC, 1, KVM_MSR_FILTER_WRITE, MACHINE },
	{ MSR_KVM_WALL_CLOCK, 2, BOTH, MACHINE }, /* and SYSTEM_TIME */
	{ MSR_APIC_BASE, 1, BOTH, APIC },
	{ MSR_TSC_ADJUST, 1, BOTH, MACHINE },
	{ MSR_TSC_DEADLINE, 1, BOTH, APIC },
	/* Hyper-V's and Xen's, which KVM has for guests of theirs. */
	{ 0x40000000, 0x1000, BOTH, MACHINE },
	{ MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_STEAL_TIME - MSR_KVM_WALL_CLOCK_NEW, BOTH, MACHINE },
	{ MSR_KVM_STEAL_TIME, 1, BOTH, STEAL },
	{ MSR_KVM_PV_EOI, 1, BOTH, APIC },
	{ MSR_KVM_PV_EOI + 1, 0xfb, BOTH, MACHINE },
};

int kvm_msr_filter(const struct kvm_vm *kvm, struct err *err)
{
	static const u8 denied[0x1000 / 8]; /* a bit per MSR; 0: leaves the guest */
	const struct kvm_enable_cap exits = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args[0] =
			KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER,
	};
	struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW };
	int r = KVM_CALL(kvm->fd, KVM_ENABLE_CAP, &exits, err);
	const bool own[] = { [APIC] = kvm->split, [STEAL] = kvm->steal };
	unsigned n = 0;

	if (r < 0)
		return r;
	for (unsigned i = 0; i < ARRAY_SIZE(leaving); i++)
		if (!own[leaving[i].owner])
			filter.ranges[n++] = (struct kvm_msr_filter_range){
				.flags = leaving[i].flags,
				.nmsrs = leaving[i].count,
				.base = leaving[i].first,
				.bitmap = (u8 *)denied,
			};
	return KVM_CALL(kvm->fd, KVM_X86_SET_MSR_FILTER, &filter, err);
}

/* A deadline in guest time is another one now: the local APIC looks again.
 * DEVIATION: where KVM cannot move the TSC the write is forgotten. */
static void move_tsc(struct kvm_cpu *k, u64 delta)
{
	if (k->vcpu->vm->tsc_fixed)
		return;
	k->vcpu->tsc_offset = (s64)((u64)k->vcpu->tsc_offset + delta);
	k->vcpu->timer_tsc = 0;
	k->tsc_adjust += delta;
}

/* This engine's own: the TSC moves IA32_TSC_ADJUST with it, and the other way round [SDM3 17.17.3]. False: another. */
static bool own_write(struct kvm_cpu *k, u32 nr, u64 val)
{
	u64 t0 = vcpu_rdtsc();

	if (nr == MSR_TSC)
		move_tsc(k, val - vcpu_rdtsc() - (u64)k->vcpu->tsc_offset);
	else if (nr == MSR_TSC_ADJUST && cpuid_has(&k->vcpu->vm->cpuid, X86_FEATURE_TSC_ADJUST))
		move_tsc(k, val - k->tsc_adjust);
	else
		return false;
	exit_account(k->vcpu, EXIT_WRMSR, nr, t0);
	return true;
}

static bool own_read(struct kvm_cpu *k, u32 nr, u64 *ret_val)
{
	if (nr != MSR_TSC_ADJUST || !cpuid_has(&k->vcpu->vm->cpuid, X86_FEATURE_TSC_ADJUST))
		return false;
	*ret_val = k->tsc_adjust;
	exit_account(k->vcpu, EXIT_RDMSR, nr, 0);
	return true;
}

void kvm_msr_exit(struct kvm_cpu *k)
{
	struct kvm_run *run = k->run;
	bool write = run->exit_reason == KVM_EXIT_X86_WRMSR;
	struct vm_exit exit = {
		.reason = write ? EXIT_WRMSR : EXIT_RDMSR,
		.write = write,
		.addr = run->msr.index,
		.data = write ? run->msr.data : 0,
	};
	u64 val;

	run->msr.error = 0;
	if (write ? own_write(k, run->msr.index, run->msr.data) : own_read(k, run->msr.index, &val)) {
		if (!write)
			run->msr.data = val;
		return;
	}
	exit_dispatch(k->vcpu, &exit);
	run->msr.error = exit.fault;
	if (!write)
		run->msr.data = exit.data;
	k->look = true; /* it may have been an EOI, or the timer */
}
