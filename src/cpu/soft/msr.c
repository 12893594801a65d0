/* Model-specific registers: one table of every MSR that exists here; all others are #GP.
 *
 * After [SDM4 table 2-2], [SDM3 11.11 (MTRR), 11.12 (PAT), 17.17 (TSC)], [AMD BKDG/PPR] for C001xxxxH. A
 * row says how a register reads and writes: a field of the CPU with a mask of valid bits, a constant, a
 * function, or the machine (local APIC, KVM clock), reached as an exit. AMD's rows exist on every host:
 * a guest on Intel does not look there, and Linux on AMD reads some of them without expecting a fault.
 *
 * Memory types are checked and kept, and mean nothing here. Not offered, so #GP: SPEC_CTRL, PRED_CMD,
 * performance counters, machine-check banks (MCG_CAP says 0), power and thermal registers, SVM and VMX.
 * Threads: the vCPU's own.
 */
#include "cpu/soft/msr.h"

#include "cpu/soft/seg.h"

#define MTRRCAP_WC  BIT(10)
#define MTRRCAP_FIX BIT(8)

#define MSR_P5_MC_ADDR       0x00
#define MSR_P5_MC_TYPE       0x01
#define MSR_EBL_CR_POWERON   0x2a
#define MSR_PLATFORM_INFO    0xce
#define MSR_AMD_K7_EVNTSEL0  0xc0010000
#define MSR_AMD_SYSCFG       0xc0010010
#define MSR_AMD_HWCR         0xc0010015
#define MSR_AMD_IORR_BASE0   0xc0010016
#define MSR_AMD_TOP_MEM      0xc001001a
#define MSR_AMD_TOP_MEM2     0xc001001d
#define MSR_AMD_NB_CFG       0xc001001f
#define MSR_AMD_PATCH_LOADER 0xc0010020
#define MSR_AMD_INT_PENDING  0xc0010055
#define MSR_AMD_MMIO_CFG     0xc0010058
#define MSR_AMD_PSTATE_LIMIT 0xc0010061
#define MSR_AMD_SMM_ADDR     0xc0010112
#define MSR_AMD_VM_CR        0xc0010114
#define MSR_AMD_OSVW_LENGTH  0xc0010140
#define MSR_AMD_LS_CFG       0xc0011020
#define MSR_AMD_DE_CFG       0xc0011029
#define MSR_AMD_EX_CFG       0xc001102c

#define HWCR_TSC_FREQ_SEL BIT(24) /* the TSC counts at the P0 frequency: it is constant */
#define DE_CFG_LFENCE     BIT(1)  /* LFENCE serializes */

/* Immune to all that is listed, by what the engine is: it runs no guest code speculatively on guest data. */
#define ARCH_CAPS                                                                                       \
	(BIT(0) /* RDCL_NO */ | BIT(3) /* SKIP_L1DFL_VMENTRY */ | BIT(4) /* SSB_NO */ |                 \
	 BIT(5) /* MDS_NO */ | BIT(6) /* PSCHANGE_MC_NO */ | BIT(8) /* TAA_NO */ |                      \
	 BIT(13) /* SBDR_SSDP_NO */ | BIT(14) /* FBSDP_NO */ | BIT(15) /* PSDP_NO */ |                  \
	 BIT(20) /* BHI_NO */ | BIT(24) /* PBRSB_NO */ | BIT(26) /* GDS_NO */ | BIT(27) /* RFDS_NO */ | \
	 BIT(62) /* ITS_NO */)

/* FAST_STRINGS, TM1, PERFMON, BTS and PEBS unavailable, TM2/EIST, MWAIT, CPUID limit, xTPR, XD disable. */
#define MISC_ENABLE_BITS (0x400c51889ull | BIT(12))

struct msr;
typedef bool (*msr_read_fn)(struct soft_cpu *c, const struct msr *m, u32 nr, u64 *ret_val);
typedef bool (*msr_write_fn)(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val);

struct msr {
	u32 nr, count;
	const char *name;
	msr_read_fn read;
	msr_write_fn write; /* NULL: read-only */
	u64 mask;           /* valid bits of a write */
	u64 val;            /* of a constant */
	u16 field;          /* offset of a u64 in struct soft_cpu */
	u8 feature;         /* enum x86_feature it hangs on; 0: none */
};

static u64 *field_of(struct soft_cpu *c, const struct msr *m, u32 nr)
{
	return (u64 *)((char *)c + m->field) + (nr - m->nr);
}

static bool read_field(struct soft_cpu *c, const struct msr *m, u32 nr, u64 *ret_val)
{
	*ret_val = *field_of(c, m, nr);
	return true;
}

static bool write_field(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	if (val & ~m->mask)
		return false;
	*field_of(c, m, nr) = val;
	return true;
}

/* A linear address. */
static bool write_address(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	if (!seg_canonical(val))
		return false;
	*field_of(c, m, nr) = val;
	return true;
}

static bool read_const(struct soft_cpu *c, const struct msr *m, u32 nr, u64 *ret_val)
{
	*ret_val = m->val;
	return true;
}

/* Valid bits are taken and forgotten. */
static bool write_ignore(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	return !(val & ~m->mask);
}

/* --- time --- */

static bool read_tsc(struct soft_cpu *c, const struct msr *m, u32 nr, u64 *ret_val)
{
	*ret_val = vcpu_rdtsc() + (u64)c->vcpu->tsc_offset;
	return true;
}

/* Moves TSC_ADJUST with it [SDM3 17.17.3]. */
static bool write_tsc(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	u64 delta = val - vcpu_rdtsc() - (u64)c->vcpu->tsc_offset;

	c->vcpu->tsc_offset = (s64)((u64)c->vcpu->tsc_offset + delta);
	c->vcpu->timer_tsc = 0; /* a deadline in guest time is another one now: the APIC looks again */
	c->tsc_adjust += delta;
	return true;
}

static bool write_tsc_adjust(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	c->vcpu->tsc_offset = (s64)((u64)c->vcpu->tsc_offset + (val - c->tsc_adjust));
	c->vcpu->timer_tsc = 0;
	c->tsc_adjust = val;
	return true;
}

/* --- EFER --- */

static bool write_efer(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	u64 allowed = EFER_LMA;

	if (soft_has(c, X86_FEATURE_SYSCALL))
		allowed |= EFER_SCE;
	if (soft_has(c, X86_FEATURE_LM))
		allowed |= EFER_LME;
	if (soft_has(c, X86_FEATURE_NX))
		allowed |= EFER_NXE;
	if (val & ~allowed)
		return false;
	if (c->cr0 & CR0_PG && (val ^ c->efer) & EFER_LME)
		return false;
	c->efer = (val & ~EFER_LMA) | (c->efer & EFER_LMA);
	soft_mode_changed(c);
	return true;
}

/* --- memory types [SDM3 11.11, 11.12] --- */

static bool mtrr_type_ok(u64 type)
{
	return type <= 6 && type != 2 && type != 3;
}

static bool write_mtrr_def_type(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	if (val & ~0xcffull || !mtrr_type_ok(val & 0xff))
		return false;
	c->mtrr_def_type = val;
	return true;
}

static bool write_mtrr_fixed(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	for (unsigned k = 0; k < 64; k += 8)
		if (!mtrr_type_ok(val >> k & 0xff))
			return false;
	*field_of(c, m, nr) = val;
	return true;
}

/* Bases at even, masks at odd numbers. */
static u64 *mtrr_variable(struct soft_cpu *c, u32 nr)
{
	unsigned n = (nr - MSR_MTRR_PHYSBASE0) / 2;

	return nr & 1 ? &c->mtrr_mask[n] : &c->mtrr_base[n];
}

static bool read_mtrr_variable(struct soft_cpu *c, const struct msr *m, u32 nr, u64 *ret_val)
{
	*ret_val = *mtrr_variable(c, nr);
	return true;
}

static bool write_mtrr_variable(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	u64 reserved = ~0ull << c->vcpu->vm->cpuid.maxphyaddr;

	if (val & (reserved | (nr & 1 ? 0x7ff : 0xf00)))
		return false;
	if (!(nr & 1) && !mtrr_type_ok(val & 0xff))
		return false;
	*mtrr_variable(c, nr) = val;
	return true;
}

static bool write_pat(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	for (unsigned k = 0; k < 64; k += 8) {
		u64 type = val >> k & 0xff;

		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	c->pat = val;
	return true;
}

/* --- bases of FS and GS --- */

static struct x86_segreg *base_owner(struct soft_cpu *c, u32 nr)
{
	return &c->seg[nr == MSR_FS_BASE ? SEG_FS : SEG_GS];
}

static bool read_base(struct soft_cpu *c, const struct msr *m, u32 nr, u64 *ret_val)
{
	*ret_val = base_owner(c, nr)->base;
	return true;
}

static bool write_base(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	if (!seg_canonical(val))
		return false;
	base_owner(c, nr)->base = val;
	return true;
}

static bool write_tsc_aux(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	if (val >> 32)
		return false;
	c->tsc_aux = val;
	return true;
}

/* Reads 0 until a write says which microcode update to look for [SDM3 9.11.7.1]. Nothing is loaded here. */
static bool write_any(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	return true;
}

/* --- the machine's --- */

static bool read_exit(struct soft_cpu *c, const struct msr *m, u32 nr, u64 *ret_val)
{
	struct vm_exit exit = { .reason = EXIT_RDMSR, .addr = nr };

	soft_exit(c, &exit);
	*ret_val = exit.data;
	return !exit.fault;
}

static bool write_exit(struct soft_cpu *c, const struct msr *m, u32 nr, u64 val)
{
	struct vm_exit exit = { .reason = EXIT_WRMSR, .write = true, .addr = nr, .data = val };

	soft_exit(c, &exit);
	if (exit.fault)
		return false;
	/* It may have been an EOI, or the timer. */
	c->attention |= ATT_INTR;
	return true;
}

/* --- the table --- */

#define FIELD(number, f, valid)                                                                             \
	.nr = number, .count = 1, .name = #number, .read = read_field, .write = write_field, .mask = valid, \
	.field = offsetof(struct soft_cpu, f)
#define ADDRESS(number, f)                                                                     \
	.nr = number, .count = 1, .name = #number, .read = read_field, .write = write_address, \
	.field = offsetof(struct soft_cpu, f)
#define CONST(number, n, value) .nr = number, .count = n, .name = #number, .read = read_const, .val = value
#define QUIET(number, n, value) CONST(number, n, value), .write = write_ignore, .mask = ~0ull
#define FIXED_MTRR(number, n, index)                                                              \
	.nr = number, .count = n, .name = #number, .read = read_field, .write = write_mtrr_fixed, \
	.field = offsetof(struct soft_cpu, mtrr_fixed) + 8 * (index), .feature = X86_FEATURE_MTRR
#define EXIT(number, n) .nr = number, .count = n, .name = #number, .read = read_exit, .write = write_exit

/* Sorted by number. */
static const struct msr table[] = {
	{ QUIET(MSR_P5_MC_ADDR, 1, 0) },
	{ QUIET(MSR_P5_MC_TYPE, 1, 0) },
	{ .nr = MSR_TSC, .count = 1, .name = "MSR_TSC", .read = read_tsc, .write = write_tsc },
	{ EXIT(MSR_KVM_WALL_CLOCK, 2) }, /* and SYSTEM_TIME */
	{ CONST(MSR_PLATFORM_ID, 1, 0) },
	{ EXIT(MSR_APIC_BASE, 1) },
	{ QUIET(MSR_EBL_CR_POWERON, 1, 0) },
	{ CONST(MSR_FEATURE_CONTROL, 1, 1) }, /* locked, everything off */
	{ .nr = MSR_TSC_ADJUST,
	  .count = 1,
	  .name = "MSR_TSC_ADJUST",
	  .read = read_field,
	  .write = write_tsc_adjust,
	  .field = offsetof(struct soft_cpu, tsc_adjust),
	  .feature = X86_FEATURE_TSC_ADJUST },
	{ .nr = MSR_BIOS_SIGN_ID,
	  .count = 1,
	  .name = "MSR_BIOS_SIGN_ID",
	  .read = read_const,
	  .write = write_any,
	  .val = 0x100000000 },
	{ CONST(MSR_PLATFORM_INFO, 1, 0) },
	{ CONST(MSR_MTRRCAP, 1, MTRRCAP_WC | MTRRCAP_FIX | X86_NR_MTRR_VAR), .feature = X86_FEATURE_MTRR },
	{ CONST(MSR_ARCH_CAPABILITIES, 1, ARCH_CAPS), .feature = X86_FEATURE_ARCH_CAPABILITIES },
	{ CONST(MSR_MISC_FEATURES_ENABLES, 1, 0), .write = write_ignore, .mask = 0 },
	{ FIELD(MSR_SYSENTER_CS, sysenter_cs, 0xffffffff), .feature = X86_FEATURE_SEP },
	{ ADDRESS(MSR_SYSENTER_ESP, sysenter_esp), .feature = X86_FEATURE_SEP },
	{ ADDRESS(MSR_SYSENTER_EIP, sysenter_eip), .feature = X86_FEATURE_SEP },
	{ CONST(MSR_MCG_CAP, 1, 0), .feature = X86_FEATURE_MCA },
	{ CONST(MSR_MCG_STATUS, 1, 0), .write = write_ignore, .mask = 0x7, .feature = X86_FEATURE_MCA },
	{ CONST(MSR_PERF_STATUS, 1, 0) },
	{ FIELD(MSR_MISC_ENABLE, misc_enable, MISC_ENABLE_BITS) },
	{ CONST(MSR_DEBUGCTL, 1, 0), .write = write_ignore,
	  .mask = 0x3 }, /* LBR, BTF: as if none were there */
	{ .nr = MSR_MTRR_PHYSBASE0,
	  .count = 2 * X86_NR_MTRR_VAR,
	  .name = "MSR_MTRR_PHYSBASE0",
	  .read = read_mtrr_variable,
	  .write = write_mtrr_variable,
	  .feature = X86_FEATURE_MTRR },
	{ FIXED_MTRR(MSR_MTRR_FIX64K, 1, 0) },
	{ FIXED_MTRR(MSR_MTRR_FIX16K_80, 2, 1) },
	{ FIXED_MTRR(MSR_MTRR_FIX4K_C0, 8, 3) },
	{ .nr = MSR_PAT,
	  .count = 1,
	  .name = "MSR_PAT",
	  .read = read_field,
	  .write = write_pat,
	  .field = offsetof(struct soft_cpu, pat),
	  .feature = X86_FEATURE_PAT },
	{ .nr = MSR_MTRR_DEF_TYPE,
	  .count = 1,
	  .name = "MSR_MTRR_DEF_TYPE",
	  .read = read_field,
	  .write = write_mtrr_def_type,
	  .field = offsetof(struct soft_cpu, mtrr_def_type),
	  .feature = X86_FEATURE_MTRR },
	{ EXIT(MSR_TSC_DEADLINE, 1), .feature = X86_FEATURE_TSC_DEADLINE },
	{ EXIT(MSR_X2APIC_BASE, MSR_X2APIC_LAST - MSR_X2APIC_BASE + 1), .feature = X86_FEATURE_X2APIC },
	{ FIELD(MSR_XSS, xss, 0), .feature = X86_FEATURE_XSAVES },
	{ EXIT(MSR_KVM_WALL_CLOCK_NEW, 0x100) },
	{ .nr = MSR_EFER,
	  .count = 1,
	  .name = "MSR_EFER",
	  .read = read_field,
	  .write = write_efer,
	  .field = offsetof(struct soft_cpu, efer) },
	{ FIELD(MSR_STAR, star, ~0ull), .feature = X86_FEATURE_SYSCALL },
	{ ADDRESS(MSR_LSTAR, lstar), .feature = X86_FEATURE_SYSCALL },
	{ ADDRESS(MSR_CSTAR, cstar), .feature = X86_FEATURE_SYSCALL },
	{ FIELD(MSR_SFMASK, sfmask, 0xffffffff), .feature = X86_FEATURE_SYSCALL },
	{ .nr = MSR_FS_BASE,
	  .count = 2,
	  .name = "MSR_FS_BASE",
	  .read = read_base,
	  .write = write_base,
	  .feature = X86_FEATURE_LM },
	{ ADDRESS(MSR_KERNEL_GS_BASE, kernel_gs_base), .feature = X86_FEATURE_LM },
	{ .nr = MSR_TSC_AUX,
	  .count = 1,
	  .name = "MSR_TSC_AUX",
	  .read = read_field,
	  .write = write_tsc_aux,
	  .field = offsetof(struct soft_cpu, tsc_aux),
	  .feature = X86_FEATURE_RDTSCP },
	{ QUIET(MSR_AMD_K7_EVNTSEL0, 8,
		0) }, /* the counters exist on every AMD processor; these do not count */
	{ QUIET(MSR_AMD_SYSCFG, 1, 0) },
	{ QUIET(MSR_AMD_HWCR, 1, HWCR_TSC_FREQ_SEL) },
	{ QUIET(MSR_AMD_IORR_BASE0, 4, 0) },
	{ QUIET(MSR_AMD_TOP_MEM, 1, 0) },
	{ QUIET(MSR_AMD_TOP_MEM2, 1, 0) },
	{ QUIET(MSR_AMD_NB_CFG, 1, 0) },
	{ .nr = MSR_AMD_PATCH_LOADER,
	  .count = 1,
	  .name = "MSR_AMD_PATCH_LOADER",
	  .read = NULL,
	  .write = write_any },
	{ QUIET(MSR_AMD_INT_PENDING, 1, 0) },
	{ QUIET(MSR_AMD_MMIO_CFG, 1, 0) },
	{ CONST(MSR_AMD_PSTATE_LIMIT, 11, 0) }, /* limit, control, status, eight definitions: none valid */
	{ QUIET(MSR_AMD_SMM_ADDR, 2, 0) },
	{ CONST(MSR_AMD_VM_CR, 1, 0x18) }, /* SVM disabled and locked */
	{ QUIET(MSR_AMD_OSVW_LENGTH, 2, 0) },
	{ QUIET(MSR_AMD_LS_CFG, 3, 0) },             /* LS_CFG, IC_CFG, DC_CFG */
	{ QUIET(MSR_AMD_DE_CFG, 2, DE_CFG_LFENCE) }, /* DE_CFG, BU_CFG2 */
	{ QUIET(MSR_AMD_EX_CFG, 1, 0) },
};

static const struct msr *find(const struct soft_cpu *c, u32 nr)
{
	unsigned lo = 0, hi = ARRAY_SIZE(table);

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		const struct msr *m = &table[mid];

		if (nr < m->nr)
			hi = mid;
		else if (nr - m->nr >= m->count)
			lo = mid + 1;
		else
			return !m->feature || soft_has(c, m->feature) ? m : NULL;
	}
	return NULL;
}

bool msr_read(struct soft_cpu *c, u32 nr, u64 *ret_val)
{
	const struct msr *m = find(c, nr);
	u64 t0 = vcpu_rdtsc();
	bool ok = m && m->read && m->read(c, m, nr, ret_val);

	if (!m || m->read != read_exit)
		soft_account(c, EXIT_RDMSR, nr, t0);
	return ok;
}

bool msr_write(struct soft_cpu *c, u32 nr, u64 val)
{
	const struct msr *m = find(c, nr);
	u64 t0 = vcpu_rdtsc();
	bool ok = m && m->write && m->write(c, m, nr, val);

	if (!m || m->write != write_exit)
		soft_account(c, EXIT_WRMSR, nr, t0);
	return ok;
}
