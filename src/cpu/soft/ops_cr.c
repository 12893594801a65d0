/* Control and debug registers: MOV, CLTS, LMSW, INVLPG, INVPCID, WBINVD, INVD.
 *
 * After [SDM2 MOV to/from control registers, debug registers], [SDM3 2.5, 4.1, 4.4.1, 4.10.4, 9.8.5,
 * 17.2]. What a CPU model does not have is a reserved bit of CR4, so VME, PVI, LA57, VMXE, PKE and CET
 * are always refused. Caching controls (CD, NW, PWT, PCD) are kept, and mean nothing here.
 *
 * Translations that hang on control bits are flushed by mmu_select(), through soft_mode_changed().
 * Threads: the vCPU's own.
 */
#include "cpu/soft/ops.h"
#include "cpu/soft/seg.h"

#define CR0_KNOWN  (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR4_PAGING (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP)

#define DR7_GD    BIT(13)
#define DR7_FIXED BIT(10)
#define DR7_KNOWN 0xffff23ffull
#define DR6_FIXED 0xffff0ff0ull
#define DR6_KNOWN 0x0000e00full
#define DR6_BD    BIT(13)

static void need_cpl0(struct soft_cpu *c, const struct insn *i)
{
	if (c->cpl != 0)
		soft_gp(c, i, 0);
}

static u64 source(const struct soft_cpu *c, const struct insn *i)
{
	return soft_mode64(c) ? c->gpr[i->rm] : (u32)c->gpr[i->rm];
}

/* PAE paging without long mode keeps four PDPTEs in registers. */
static bool uses_pdptes(u64 cr0, u64 cr4, u64 efer)
{
	return cr0 & CR0_PG && cr4 & CR4_PAE && !(efer & EFER_LMA);
}

/* --- CR0 --- */

static void set_cr0(struct soft_cpu *c, const struct insn *i, u64 val)
{
	u64 old = c->cr0, efer = c->efer;

	if (val >> 32)
		soft_gp(c, i, 0);
	val = (val & CR0_KNOWN) | CR0_ET;
	if ((val & CR0_PG && !(val & CR0_PE)) || (val & CR0_NW && !(val & CR0_CD)))
		soft_gp(c, i, 0);
	if (!(val & CR0_PG) && c->cr4 & CR4_PCIDE)
		soft_gp(c, i, 0);

	if (val & CR0_PG && !(old & CR0_PG) && efer & EFER_LME) {
		unsigned tr = c->tr.attr & SA_TYPE;

		if (!(c->cr4 & CR4_PAE) || c->seg[SEG_CS].attr & SA_L || tr == DT_TSS16 ||
		    tr == DT_TSS16_BUSY)
			soft_gp(c, i, 0);
		efer |= EFER_LMA;
	} else if (!(val & CR0_PG) && old & CR0_PG && efer & EFER_LMA) {
		if (soft_mode64(c))
			soft_gp(c, i, 0);
		efer &= ~EFER_LMA;
	}
	if (uses_pdptes(val, c->cr4, efer) && (old ^ val) & (CR0_PG | CR0_CD | CR0_NW) &&
	    !mmu_load_pdptes(c, c->cr3))
		soft_gp(c, i, 0);

	if ((old ^ val) & CR0_PE)
		c->cpl = 0;
	c->cr0 = val;
	c->efer = efer;
	soft_mode_changed(c);
}

/* --- CR3, CR4 --- */

static void set_cr3(struct soft_cpu *c, const struct insn *i, u64 val)
{
	u64 reserved = ~0ull << c->vcpu->vm->cpuid.maxphyaddr;

	if (c->cr4 & CR4_PCIDE)
		reserved &= ~CR3_NOFLUSH;
	if (val & reserved)
		soft_gp(c, i, 0);
	if (uses_pdptes(c->cr0, c->cr4, c->efer) && !mmu_load_pdptes(c, val))
		soft_gp(c, i, 0);
	mmu_set_cr3(c, val);
}

static u64 cr4_allowed(const struct soft_cpu *c)
{
	static const struct {
		u32 bit;
		u8 feature;
	} bits[] = {
		{ CR4_TSD, X86_FEATURE_TSC },     { CR4_DE, X86_FEATURE_DE },
		{ CR4_PSE, X86_FEATURE_PSE },     { CR4_PAE, X86_FEATURE_PAE },
		{ CR4_MCE, X86_FEATURE_MCE },     { CR4_PGE, X86_FEATURE_PGE },
		{ CR4_OSFXSR, X86_FEATURE_FXSR }, { CR4_OSXMMEXCPT, X86_FEATURE_SSE },
		{ CR4_UMIP, X86_FEATURE_UMIP },   { CR4_FSGSBASE, X86_FEATURE_FSGSBASE },
		{ CR4_PCIDE, X86_FEATURE_PCID },  { CR4_OSXSAVE, X86_FEATURE_XSAVE },
		{ CR4_SMEP, X86_FEATURE_SMEP },   { CR4_SMAP, X86_FEATURE_SMAP },
	};
	u64 mask = CR4_PCE;

	for (unsigned k = 0; k < ARRAY_SIZE(bits); k++)
		if (soft_has(c, bits[k].feature))
			mask |= bits[k].bit;
	return mask;
}

static void set_cr4(struct soft_cpu *c, const struct insn *i, u64 val)
{
	u64 old = c->cr4;

	if (val & ~cr4_allowed(c))
		soft_gp(c, i, 0);
	if (soft_long(c) && !(val & CR4_PAE))
		soft_gp(c, i, 0);
	if (val & ~old & CR4_PCIDE && (!soft_long(c) || c->cr3 & 0xfff))
		soft_gp(c, i, 0);
	if (uses_pdptes(c->cr0, val, c->efer) && (old ^ val) & CR4_PAGING && !mmu_load_pdptes(c, c->cr3))
		soft_gp(c, i, 0);
	c->cr4 = val;
	soft_mode_changed(c);
}

static void set_cr8(struct soft_cpu *c, const struct insn *i, u64 val)
{
	if (val >> 4)
		soft_gp(c, i, 0);
	soft_out_set_cr8(c, val);
	c->attention |= ATT_INTR;
}

/* CR1, CR5-7, CR9-15 do not exist; CR8 only with REX. */
static bool cr_exists(unsigned n)
{
	return n == 0 || (n >= 2 && n <= 4) || n == 8;
}

void op_mov_r_cr(struct soft_cpu *c, const struct insn *i)
{
	u64 v, t0 = vcpu_rdtsc();

	if (!cr_exists(i->reg))
		soft_ud(c, i);
	need_cpl0(c, i);
	switch (i->reg) {
	case 0: v = c->cr0; break;
	case 2: v = c->cr2; break;
	case 3: v = c->cr3; break;
	case 4: v = c->cr4; break;
	default: v = soft_out_get_cr8(c); break;
	}
	c->gpr[i->rm] = soft_mode64(c) ? v : (u32)v;
	soft_account(c, EXIT_CR, i->reg, t0);
	NEXT(c, i);
}

void op_mov_cr_r(struct soft_cpu *c, const struct insn *i)
{
	u64 next = soft_next_rip(c, i), v, t0 = vcpu_rdtsc();

	if (!cr_exists(i->reg))
		soft_ud(c, i);
	need_cpl0(c, i);
	v = source(c, i);
	switch (i->reg) {
	case 0: set_cr0(c, i, v); break;
	case 2: c->cr2 = v; break;
	case 3: set_cr3(c, i, v); break;
	case 4: set_cr4(c, i, v); break;
	default: set_cr8(c, i, v); break;
	}
	soft_account(c, EXIT_CR, i->reg, t0);
	c->rip = next;
}

void op_clts(struct soft_cpu *c, const struct insn *i)
{
	need_cpl0(c, i);
	c->cr0 &= ~CR0_TS;
	soft_account(c, EXIT_CR, 0, 0);
	soft_mode_changed(c);
	END(c, i);
}

/* Bits 3..0 of CR0; PE can be set, not cleared. */
void op_lmsw(struct soft_cpu *c, const struct insn *i)
{
	u64 next = soft_next_rip(c, i);
	u16 v;

	need_cpl0(c, i);
	v = i->mem ? ld16_la(c, i, insn_la(c, i, 2, ACC_R)) : (u16)c->gpr[i->rm];
	set_cr0(c, i, (c->cr0 & ~(CR0_MP | CR0_EM | CR0_TS)) | (v & 0xf));
	soft_account(c, EXIT_CR, 0, 0);
	c->rip = next;
}

/* --- debug registers --- */

/* DR4 and DR5 are DR6 and DR7 unless CR4.DE. Returns the number. */
static unsigned dr_number(struct soft_cpu *c, const struct insn *i)
{
	unsigned n = i->reg;

	if (n > 7 || (c->cr4 & CR4_DE && (n == 4 || n == 5)))
		soft_ud(c, i);
	need_cpl0(c, i);
	if (c->dr7 & DR7_GD) {
		c->dr6 = (c->dr6 & ~0xfull) | DR6_BD;
		c->flags |= FL_RF; /* pushed set: a fault, see excp.c */
		soft_raise(c, i, EXC_DB, NO_ERROR);
	}
	return n == 4 || n == 5 ? n + 2 : n;
}

void op_mov_r_dr(struct soft_cpu *c, const struct insn *i)
{
	unsigned n = dr_number(c, i);
	u64 v = n < 4    ? c->dr[n]
		: n == 6 ? (c->dr6 & DR6_KNOWN) | DR6_FIXED
			 : (c->dr7 & DR7_KNOWN) | DR7_FIXED;

	c->gpr[i->rm] = soft_mode64(c) ? v : (u32)v;
	soft_account(c, EXIT_DR, n, 0);
	NEXT(c, i);
}

void op_mov_dr_r(struct soft_cpu *c, const struct insn *i)
{
	unsigned n = dr_number(c, i);
	u64 v = source(c, i);

	if (n >= 6 && v >> 32)
		soft_gp(c, i, 0);
	if (n < 4) {
		c->dr[n] = v;
	} else if (n == 6) {
		c->dr6 = (v & DR6_KNOWN) | DR6_FIXED;
	} else {
		c->dr7 = (v & DR7_KNOWN) | DR7_FIXED;
	}
	if (n != 6)
		excp_debug_changed(c);
	soft_account(c, EXIT_DR, n, 0);
	END(c, i);
}

/* --- invalidation --- */

void op_invlpg(struct soft_cpu *c, const struct insn *i)
{
	u64 t0 = vcpu_rdtsc();
	gva_t la;

	need_cpl0(c, i);
	la = insn_ea(c, i);
	if (soft_mode64(c))
		la += i->seg == SEG_FS || i->seg == SEG_GS ? c->seg[i->seg].base : 0;
	else
		la = (u32)(la + c->seg[i->seg].base);
	/* A non-canonical address is a NOP [SDM2 INVLPG]. */
	if (seg_canonical(la))
		mmu_invlpg(c, la);
	soft_account(c, EXIT_INVLPG, EXIT_NO_KEY, t0);
	END(c, i);
}

/* [SDM2 INVPCID]; the descriptor: PCID in bits 11..0, 63..12 zero, then the address. */
void op_invpcid(struct soft_cpu *c, const struct insn *i)
{
	u64 type, lo, addr, t0 = vcpu_rdtsc();
	gva_t la;

	if (soft_vm86(c))
		soft_gp(c, i, 0);
	need_cpl0(c, i);
	type = soft_mode64(c) ? c->gpr[i->reg] : (u32)c->gpr[i->reg];
	la = insn_la(c, i, 16, ACC_R);
	lo = ld64_la(c, i, la);
	addr = ld64_la(c, i, soft_mode64(c) ? la + 8 : (u32)(la + 8));
	if (type > 3)
		soft_gp(c, i, 0);
	if (type < 2) {
		if (lo >> 12 || (lo && !(c->cr4 & CR4_PCIDE)))
			soft_gp(c, i, 0);
		if (type == 0 && !seg_canonical(addr))
			soft_gp(c, i, 0);
	}
	mmu_invpcid(c, (unsigned)type, (u16)lo, addr);
	soft_account(c, EXIT_INVPCID, EXIT_NO_KEY, t0);
	END(c, i);
}

void op_wbinvd(struct soft_cpu *c, const struct insn *i)
{
	need_cpl0(c, i);
	soft_account(c, EXIT_WBINVD, EXIT_NO_KEY, 0);
	NEXT(c, i);
}

void op_invd(struct soft_cpu *c, const struct insn *i)
{
	op_wbinvd(c, i);
}
