/* System instructions: fast system calls, flags, time, identification, MSRs, hypercalls.
 *
 * After the pseudo code of each in [SDM2]. Where Intel and AMD differ both ways work, because the CPU
 * identifies as the host's: SYSCALL and SYSRET in compatibility and legacy mode (AMD: [APM3 SYSCALL]),
 * SYSENTER in long mode (Intel).
 *
 * There are no performance counters, so RDPMC is #GP. Virtual-8086 mode extensions and protected-mode virtual
 * interrupts are not offered. Threads: the vCPU's own.
 */
#include "cpu/soft/msr.h"
#include "cpu/soft/ops.h"
#include "cpu/soft/seg.h"

/* Flat segments that fast system calls load, as attributes: present, S, accessed. */
#define ATTR_CODE64(dpl) (0xa09bu | (dpl) << SA_DPL_SHIFT)
#define ATTR_CODE32(dpl) (0xc09bu | (dpl) << SA_DPL_SHIFT)
#define ATTR_DATA(dpl)   (0xc093u | (dpl) << SA_DPL_SHIFT)

#define KVM_EPERM 1ll

static void need_cpl0(struct soft_cpu *c, const struct insn *i)
{
	if (c->cpl != 0)
		soft_gp(c, i, 0);
}

static void flat_segment(struct x86_segreg *s, unsigned sel, u32 attr)
{
	s->sel = (u16)sel;
	s->attr = attr;
	s->limit = 0xffffffff;
	s->base = 0;
}

/* --- SYSCALL, SYSRET [SDM2; APM3 for legacy and compatibility mode] --- */

static void check_syscall(struct soft_cpu *c, const struct insn *i)
{
	if (!(c->efer & EFER_SCE) || soft_real_or_vm86(c))
		soft_ud(c, i);
}

/* SYSCALL and SYSRET trap when TF is set after them, whatever it was before [AMD APM2 13.1.4]: interp.c
 * leaves it to them. */
static void trap_by_new_tf(struct soft_cpu *c)
{
	if (c->flags & FL_TF) {
		c->dr6 |= BIT(14);
		c->attention |= ATT_DB;
	}
}

void op_syscall(struct soft_cpu *c, const struct insn *i)
{
	u64 next = soft_next_rip(c, i), flags = soft_get_flags(c), rip;
	unsigned sel = c->star >> 32 & 0xfffc;

	check_syscall(c, i);
	if (soft_long(c)) {
		rip = soft_mode64(c) ? c->lstar : c->cstar;
		c->gpr[R_CX] = next;
		c->gpr[R_11] = flags & ~FL_RF;
		flags &= ~(c->sfmask | FL_RF);
		flat_segment(&c->seg[SEG_CS], sel, ATTR_CODE64(0));
	} else {
		rip = (u32)c->star;
		c->gpr[R_CX] = next;
		flags &= ~(FL_IF | FL_RF | FL_VM);
		flat_segment(&c->seg[SEG_CS], sel, ATTR_CODE32(0));
	}
	flat_segment(&c->seg[SEG_SS], sel + 8, ATTR_DATA(0));
	c->cpl = 0;
	c->rip = rip;
	soft_set_flags(c, flags | FL_RES1);
	soft_mode_changed(c);
	trap_by_new_tf(c);
}

void op_sysret(struct soft_cpu *c, const struct insn *i)
{
	unsigned sel = c->star >> 48;
	u64 flags, rip;

	check_syscall(c, i);
	need_cpl0(c, i);
	if (i->osz == 8) {
		rip = c->gpr[R_CX];
		if (!seg_canonical(rip))
			soft_gp(c, i, 0);
		flat_segment(&c->seg[SEG_CS], (sel + 16) | 3, ATTR_CODE64(3u));
	} else {
		rip = (u32)c->gpr[R_CX];
		flat_segment(&c->seg[SEG_CS], sel | 3, ATTR_CODE32(3u));
	}
	if (soft_long(c))
		flags = (c->gpr[R_11] & 0x3c7fd7) | FL_RES1;
	else
		flags = soft_get_flags(c) | FL_IF;
	flat_segment(&c->seg[SEG_SS], (sel + 8) | 3, ATTR_DATA(3u));
	c->cpl = 3;
	c->rip = rip;
	soft_set_flags(c, flags);
	soft_mode_changed(c);
	trap_by_new_tf(c);
}

/* --- SYSENTER, SYSEXIT --- */

void op_sysenter(struct soft_cpu *c, const struct insn *i)
{
	unsigned sel = c->sysenter_cs & 0xfffc;
	bool is_long = soft_long(c);

	if (soft_real(c) || !sel)
		soft_gp(c, i, 0);
	flat_segment(&c->seg[SEG_CS], sel, is_long ? ATTR_CODE64(0) : ATTR_CODE32(0));
	flat_segment(&c->seg[SEG_SS], sel + 8, ATTR_DATA(0));
	c->cpl = 0;
	c->gpr[R_SP] = is_long ? c->sysenter_esp : (u32)c->sysenter_esp;
	c->rip = is_long ? c->sysenter_eip : (u32)c->sysenter_eip;
	soft_set_flags(c, soft_get_flags(c) & ~(FL_VM | FL_IF | FL_RF));
	soft_mode_changed(c);
}

void op_sysexit(struct soft_cpu *c, const struct insn *i)
{
	unsigned sel = c->sysenter_cs & 0xfffc;
	u64 rip = c->gpr[R_DX], rsp = c->gpr[R_CX];

	if (!sel || soft_real(c) || c->cpl != 0)
		soft_gp(c, i, 0);
	if (i->osz == 8) {
		if (!seg_canonical(rip) || !seg_canonical(rsp))
			soft_gp(c, i, 0);
		flat_segment(&c->seg[SEG_CS], (sel + 32) | 3, ATTR_CODE64(3u));
		flat_segment(&c->seg[SEG_SS], (sel + 40) | 3, ATTR_DATA(3u));
	} else {
		rip = (u32)rip;
		rsp = (u32)rsp;
		flat_segment(&c->seg[SEG_CS], (sel + 16) | 3, ATTR_CODE32(3u));
		flat_segment(&c->seg[SEG_SS], (sel + 24) | 3, ATTR_DATA(3u));
	}
	c->cpl = 3;
	c->gpr[R_SP] = rsp;
	c->rip = rip;
	soft_set_flags(c, soft_get_flags(c) & ~FL_RF);
	soft_mode_changed(c);
}

/* --- bases of FS and GS --- */

void op_swapgs(struct soft_cpu *c, const struct insn *i)
{
	u64 base = c->seg[SEG_GS].base;

	if (!soft_mode64(c))
		soft_ud(c, i);
	need_cpl0(c, i);
	c->seg[SEG_GS].base = c->kernel_gs_base;
	c->kernel_gs_base = base;
	NEXT(c, i);
}

static void check_fsgsbase(struct soft_cpu *c, const struct insn *i)
{
	if (!soft_mode64(c) || !(c->cr4 & CR4_FSGSBASE))
		soft_ud(c, i);
}

static void write_base(struct soft_cpu *c, const struct insn *i, unsigned seg)
{
	u64 v = i->osz == 8 ? c->gpr[i->rm] : (u32)c->gpr[i->rm];

	check_fsgsbase(c, i);
	if (!seg_canonical(v))
		soft_gp(c, i, 0);
	c->seg[seg].base = v;
}

static void read_base(struct soft_cpu *c, const struct insn *i, unsigned seg)
{
	check_fsgsbase(c, i);
	c->gpr[i->rm] = i->osz == 8 ? c->seg[seg].base : (u32)c->seg[seg].base;
}

void op_rdfsbase(struct soft_cpu *c, const struct insn *i)
{
	read_base(c, i, SEG_FS);
	NEXT(c, i);
}

void op_rdgsbase(struct soft_cpu *c, const struct insn *i)
{
	read_base(c, i, SEG_GS);
	NEXT(c, i);
}

void op_wrfsbase(struct soft_cpu *c, const struct insn *i)
{
	write_base(c, i, SEG_FS);
	NEXT(c, i);
}

void op_wrgsbase(struct soft_cpu *c, const struct insn *i)
{
	write_base(c, i, SEG_GS);
	NEXT(c, i);
}

/* --- flags --- */

void op_pushf(struct soft_cpu *c, const struct insn *i)
{
	if (soft_vm86(c) && soft_iopl(c) < 3)
		soft_gp(c, i, 0);
	seg_stack_store(c, i, -(s64)i->osz, i->osz, soft_get_flags(c) & ~(FL_VM | FL_RF));
	soft_set_sp(c, c->gpr[R_SP] - i->osz);
	NEXT(c, i);
}

void op_popf(struct soft_cpu *c, const struct insn *i)
{
	u64 mask = FL_ARITH | FL_TF | FL_DF | FL_NT, v, old = soft_get_flags(c);

	if (soft_vm86(c) && soft_iopl(c) < 3)
		soft_gp(c, i, 0);
	v = seg_stack_load(c, i, 0, i->osz);
	if (i->osz > 2)
		mask |= FL_AC | FL_ID;
	if (c->cpl <= soft_iopl(c))
		mask |= FL_IF;
	if (c->cpl == 0)
		mask |= FL_IOPL;
	soft_set_sp(c, c->gpr[R_SP] + i->osz);
	soft_set_flags(c, (old & ~(mask | FL_RF)) | (v & mask) | FL_RES1);
	/* TF and IF count from the next instruction on. */
	if ((old ^ v) & mask & ~FL_ARITH)
		END(c, i);
	NEXT(c, i);
}

static void check_iopl(struct soft_cpu *c, const struct insn *i)
{
	if (c->cpl > soft_iopl(c))
		soft_gp(c, i, 0);
}

void op_cli(struct soft_cpu *c, const struct insn *i)
{
	check_iopl(c, i);
	c->flags &= ~(u32)FL_IF;
	NEXT(c, i);
}

void op_sti(struct soft_cpu *c, const struct insn *i)
{
	check_iopl(c, i);
	if (c->flags & FL_IF)
		NEXT(c, i);
	c->flags |= FL_IF;
	c->attention |= ATT_SHADOW;
	END(c, i);
}

static void check_smap_insn(struct soft_cpu *c, const struct insn *i)
{
	if (c->cpl != 0)
		soft_ud(c, i);
}

void op_clac(struct soft_cpu *c, const struct insn *i)
{
	check_smap_insn(c, i);
	soft_set_flags(c, soft_get_flags(c) & ~FL_AC);
	NEXT(c, i);
}

void op_stac(struct soft_cpu *c, const struct insn *i)
{
	check_smap_insn(c, i);
	soft_set_flags(c, soft_get_flags(c) | FL_AC);
	NEXT(c, i);
}

/* --- time, identification --- */

static void put_edx_eax(struct soft_cpu *c, u64 v)
{
	c->gpr[R_AX] = (u32)v;
	c->gpr[R_DX] = v >> 32;
}

static u64 guest_tsc(struct soft_cpu *c, const struct insn *i)
{
	if (c->cr4 & CR4_TSD && c->cpl != 0)
		soft_gp(c, i, 0);
	return vcpu_rdtsc() + (u64)c->vcpu->tsc_offset;
}

void op_rdtsc(struct soft_cpu *c, const struct insn *i)
{
	put_edx_eax(c, guest_tsc(c, i));
	NEXT(c, i);
}

void op_rdtscp(struct soft_cpu *c, const struct insn *i)
{
	put_edx_eax(c, guest_tsc(c, i));
	c->gpr[R_CX] = (u32)c->tsc_aux;
	NEXT(c, i);
}

void op_rdpid(struct soft_cpu *c, const struct insn *i)
{
	c->gpr[i->rm] = c->tsc_aux;
	NEXT(c, i);
}

void op_rdpmc(struct soft_cpu *c, const struct insn *i)
{
	soft_gp(c, i, 0);
}

void op_cpuid(struct soft_cpu *c, const struct insn *i)
{
	u64 t0 = vcpu_rdtsc();
	u32 leaf = (u32)c->gpr[R_AX], r[4];

	fpu_spill(c);
	cpuid_query(&c->vcpu->vm->cpuid, leaf, (u32)c->gpr[R_CX], c->vcpu->id, c->cr4, c->xcr0, c->xss, r);
	if (leaf == 1 && c->vcpu->apic_off)
		r[3] &= ~(u32)BIT(9);
	c->gpr[R_AX] = r[0];
	c->gpr[R_BX] = r[1];
	c->gpr[R_CX] = r[2];
	c->gpr[R_DX] = r[3];
	soft_account(c, EXIT_CPUID, leaf, t0);
	NEXT(c, i);
}

/* --- MSRs, HLT, hypercalls --- */

void op_rdmsr(struct soft_cpu *c, const struct insn *i)
{
	u64 v;

	need_cpl0(c, i);
	if (!msr_read(c, (u32)c->gpr[R_CX], &v))
		soft_gp(c, i, 0);
	put_edx_eax(c, v);
	NEXT(c, i);
}

void op_wrmsr(struct soft_cpu *c, const struct insn *i)
{
	need_cpl0(c, i);
	if (!msr_write(c, (u32)c->gpr[R_CX], (u32)c->gpr[R_AX] | c->gpr[R_DX] << 32))
		soft_gp(c, i, 0);
	END(c, i);
}

void op_hlt(struct soft_cpu *c, const struct insn *i)
{
	need_cpl0(c, i);
	c->activity = X86_HLT;
	END(c, i);
}

/* VMCALL and VMMCALL: KVM's hypercall protocol. */
void op_vmcall(struct soft_cpu *c, const struct insn *i)
{
	u64 mask = soft_mode64(c) ? ~0ull : 0xffffffff;
	struct vm_exit exit = { .reason = EXIT_VMCALL,
				.addr = c->gpr[R_AX] & mask,
				.arg = { c->gpr[R_BX] & mask, c->gpr[R_CX] & mask, c->gpr[R_DX] & mask,
					 c->gpr[R_SI] & mask },
				.is_long = soft_mode64(c) };

	if (c->cpl == 0) {
		soft_exit(c, &exit);
	} else {
		exit.data = (u64)-KVM_EPERM;
		soft_account(c, EXIT_VMCALL, exit.addr, 0);
	}
	c->gpr[R_AX] = exit.data & mask;
	/* Ends the block: the mailbox may have something for this very vCPU. */
	END(c, i);
}
