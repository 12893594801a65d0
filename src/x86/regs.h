/* The whole architectural state of one logical processor, the same for every engine,
 * so that a vCPU can move between engines, into a snapshot and to another host.
 *
 * Fixed-width fields only; a snapshot names each field (see x86_regs.c). Engines keep
 * what they like while they run and fill this on request.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "x86/defs.h"

struct x86_segreg {
	u16 sel;
	u32 attr;  /* SA_* */
	u32 limit; /* in bytes, granularity applied */
	u64 base;
};

struct x86_dtr {
	u16 limit;
	u64 base;
};

enum x86_activity {
	X86_ACTIVE,   /* executes */
	X86_HLT,      /* waits for an interrupt */
	X86_SHUTDOWN, /* triple fault */
	X86_WAIT_SIPI,
};

/* The XSAVE image, standard format [SDM1 13.4.1]: x87 and SSE 0-511, header 512-575,
 * AVX 576, opmask 1088 (832 on AMD; the image here has this layout whatever the host's
 * is), ZMM_Hi256, Hi16_ZMM. */
#define X86_XSAVE_SIZE             2688
#define X86_XSAVE_AVX_OFFSET       576
#define X86_XSAVE_OPMASK_OFFSET    1088
#define X86_XSAVE_ZMM_HI256_OFFSET 1152
#define X86_XSAVE_HI16_ZMM_OFFSET  1664

/* Where AVX-512's components are in the standard format: processors differ. */
struct x86_xsave_layout {
	u16 opmask, zmm_hi256, hi16_zmm;
	u16 size; /* of the whole area */
};

#define X86_NR_MTRR_VAR 8

#define X86_NR_VMX_MSRS 18

/* What a processor that runs guests of its own has beyond the rest, by SVM or by VMX. A processor with neither keeps it as it is after
 * a reset. */
struct x86_virt {
	u64 feature_control;               /* IA32_FEATURE_CONTROL */
	u64 vm_cr, vm_hsave_pa, tsc_ratio; /* SVM's [APM2 15.30] */
	u64 vmx[X86_NR_VMX_MSRS];          /* from IA32_VMX_BASIC on: what VMX can; 0: as the engine has it */
	/* What is in no register (GIF, VMXON, the guest that runs and how), nested_size bytes in a form of the engine's; NULL: nothing, that
	 * is GIF = 1, no VMX operation, no guest. The engine's, until that vCPU runs, or its state is given, the next time; who keeps
	 * the state for longer copies it. */
	const void *nested;
	u32 nested_size;
};

struct x86_state {
	u64 gpr[X86_NR_GPR];
	u64 rip;
	u64 rflags;
	struct x86_segreg seg[X86_NR_SEG], ldtr, tr;
	struct x86_dtr gdtr, idtr;
	u64 cr0, cr2, cr3, cr4; /* CR8 lives in the local APIC */
	u64 dr[4], dr6, dr7;
	u64 efer, star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 pat, mtrr_def_type, mtrr_fixed[11], mtrr_base[X86_NR_MTRR_VAR], mtrr_mask[X86_NR_MTRR_VAR];
	u64 misc_enable, spec_ctrl, xss, xcr0;
	u64 tsc_offset; /* guest TSC = host TSC + tsc_offset */
	u64 tsc_adjust;

	u8 activity;       /* enum x86_activity */
	bool sti_shadow;   /* interrupts held off for one instruction by STI */
	bool movss_shadow; /* likewise, and debug traps, by MOV SS / POP SS */
	bool nmi_blocked;  /* between an NMI and the next IRET */
	u8 nmi_pending;    /* how many: 0 to 2, and at most 1 while nmi_blocked [SDM3 6.7.1] */
	bool exc_pending;  /* an exception chosen but not delivered yet */
	u8 exc_vector;
	bool exc_has_error;
	u32 exc_error;
	bool intr_taken; /* an interrupt taken from the controller but not delivered yet */
	u8 intr_vector;
	struct x86_virt virt;

	u8 xsave[X86_XSAVE_SIZE] __attribute__((aligned(64)));
};

/* The state after power-up reset or INIT [SDM3 table 9-1]. INIT keeps x87/SSE state,
 * CR0.CD/NW, the TSC and most MSRs; bsp says whether the processor then executes
 * from FFFFFFF0H or waits for a start-up IPI. family_model_stepping goes to EDX. */
void x86_state_reset(struct x86_state *s, bool init, bool bsp, u32 family_model_stepping);

/* What no engine takes, whatever the rest is: -EINVAL with a sentence. */
int x86_state_check(const struct x86_state *s, struct err *err);

/* General, segment and control registers as lines of text; how many characters (cut at len). Any thread. */
size_t x86_state_describe(const struct x86_state *s, char *ret_text, size_t len);
