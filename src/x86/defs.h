/* Architectural constants, by their names in the Intel SDM (volumes 3 and 4) and AMD's APM. */
#pragma once

#include "base/types.h"

/* General registers, by their number in ModRM/REX. */
/* clang-format off */
enum x86_gpr {
	R_AX, R_CX, R_DX, R_BX, R_SP, R_BP, R_SI, R_DI,
	R_8, R_9, R_10, R_11, R_12, R_13, R_14, R_15,
	X86_NR_GPR
};
/* clang-format on */

/* Segment registers, by their number in ModRM.reg. */
enum x86_seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, X86_NR_SEG };

/* RFLAGS [SDM1 3.4.3] */
#define FL_CF         BIT(0)
#define FL_RES1       BIT(1)
#define FL_PF         BIT(2)
#define FL_AF         BIT(4)
#define FL_ZF         BIT(6)
#define FL_SF         BIT(7)
#define FL_TF         BIT(8)
#define FL_IF         BIT(9)
#define FL_DF         BIT(10)
#define FL_OF         BIT(11)
#define FL_IOPL       (3ull << 12)
#define FL_IOPL_SHIFT 12
#define FL_NT         BIT(14)
#define FL_RF         BIT(16)
#define FL_VM         BIT(17)
#define FL_AC         BIT(18)
#define FL_VIF        BIT(19)
#define FL_VIP        BIT(20)
#define FL_ID         BIT(21)
#define FL_ARITH      (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

/* Control registers [SDM3 2.5] */
#define CR0_PE         BIT(0)
#define CR0_MP         BIT(1)
#define CR0_EM         BIT(2)
#define CR0_TS         BIT(3)
#define CR0_ET         BIT(4)
#define CR0_NE         BIT(5)
#define CR0_WP         BIT(16)
#define CR0_AM         BIT(18)
#define CR0_NW         BIT(29)
#define CR0_CD         BIT(30)
#define CR0_PG         BIT(31)
#define CR3_NOFLUSH    BIT(63)
#define CR4_VME        BIT(0)
#define CR4_PVI        BIT(1)
#define CR4_TSD        BIT(2)
#define CR4_DE         BIT(3)
#define CR4_PSE        BIT(4)
#define CR4_PAE        BIT(5)
#define CR4_MCE        BIT(6)
#define CR4_PGE        BIT(7)
#define CR4_PCE        BIT(8)
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP       BIT(11)
#define CR4_LA57       BIT(12)
#define CR4_VMXE       BIT(13)
#define CR4_FSGSBASE   BIT(16)
#define CR4_PCIDE      BIT(17)
#define CR4_OSXSAVE    BIT(18)
#define CR4_SMEP       BIT(20)
#define CR4_SMAP       BIT(21)
#define CR4_PKE        BIT(22)

/* Exceptions [SDM3 6.3.1] */
/* clang-format off */
enum x86_vector {
	EXC_DE = 0, EXC_DB = 1, EXC_NMI = 2, EXC_BP = 3, EXC_OF = 4, EXC_BR = 5, EXC_UD = 6, EXC_NM = 7,
	EXC_DF = 8, EXC_TS = 10, EXC_NP = 11, EXC_SS = 12, EXC_GP = 13, EXC_PF = 14, EXC_MF = 16,
	EXC_AC = 17, EXC_MC = 18, EXC_XM = 19, EXC_VE = 20, EXC_CP = 21,
};
/* clang-format on */

/* #PF error code [SDM3 4.7] */
#define PFEC_P    BIT(0)
#define PFEC_W    BIT(1)
#define PFEC_U    BIT(2)
#define PFEC_RSVD BIT(3)
#define PFEC_I    BIT(4)

/* Page-table entries [SDM3 4.5] */
#define PTE_P   BIT(0)
#define PTE_W   BIT(1)
#define PTE_U   BIT(2)
#define PTE_PWT BIT(3)
#define PTE_PCD BIT(4)
#define PTE_A   BIT(5)
#define PTE_D   BIT(6)
#define PTE_PS  BIT(7)
#define PTE_G   BIT(8)
#define PTE_NX  BIT(63)

/* Segment attributes, as in the high dword of a descriptor shifted right by 8
 * (so also as VMX's access rights) [SDM3 3.4.5] */
#define SA_TYPE      0x000fu
#define SA_S         BIT(4) /* code or data, not system */
#define SA_DPL_SHIFT 5
#define SA_DPL       (3u << SA_DPL_SHIFT)
#define SA_P         BIT(7)
#define SA_AVL       BIT(12)
#define SA_L         BIT(13)
#define SA_DB        BIT(14)
#define SA_G         BIT(15)
#define SA_UNUSABLE  BIT(16) /* null selector loaded; as in VMX */

/* EFER */
#define EFER_SCE  BIT(0)
#define EFER_LME  BIT(8)
#define EFER_LMA  BIT(10)
#define EFER_NXE  BIT(11)
#define EFER_SVME BIT(12)

/* MSRs [SDM4] */
#define MSR_TSC                   0x10
#define MSR_PLATFORM_ID           0x17
#define MSR_APIC_BASE             0x1b
#define MSR_FEATURE_CONTROL       0x3a
#define MSR_TSC_ADJUST            0x3b
#define MSR_SPEC_CTRL             0x48
#define MSR_PRED_CMD              0x49
#define MSR_BIOS_SIGN_ID          0x8b
#define MSR_MTRRCAP               0xfe
#define MSR_ARCH_CAPABILITIES     0x10a
#define MSR_MISC_FEATURES_ENABLES 0x140
#define MSR_SYSENTER_CS           0x174
#define MSR_SYSENTER_ESP          0x175
#define MSR_SYSENTER_EIP          0x176
#define MSR_MCG_CAP               0x179
#define MSR_MCG_STATUS            0x17a
#define MSR_MCG_CTL               0x17b
#define MSR_PERF_STATUS           0x198
#define MSR_MISC_ENABLE           0x1a0
#define MSR_DEBUGCTL              0x1d9
#define MSR_MTRR_PHYSBASE0        0x200
#define MSR_MTRR_FIX64K           0x250
#define MSR_MTRR_FIX16K_80        0x258
#define MSR_MTRR_FIX16K_A0        0x259
#define MSR_MTRR_FIX4K_C0         0x268
#define MSR_PAT                   0x277
#define MSR_MTRR_DEF_TYPE         0x2ff
#define MSR_MC0_CTL               0x400
#define MSR_VMX_BASIC             0x480 /* to 491H, IA32_VMX_VMFUNC */
#define MSR_TSC_DEADLINE          0x6e0
#define MSR_X2APIC_BASE           0x800
#define MSR_X2APIC_LAST           0x8ff
#define MSR_XSS                   0xda0
#define MSR_EFER                  0xc0000080
#define MSR_STAR                  0xc0000081
#define MSR_LSTAR                 0xc0000082
#define MSR_CSTAR                 0xc0000083
#define MSR_SFMASK                0xc0000084
#define MSR_FS_BASE               0xc0000100
#define MSR_GS_BASE               0xc0000101
#define MSR_KERNEL_GS_BASE        0xc0000102
#define MSR_TSC_AUX               0xc0000103
#define MSR_TSC_RATIO             0xc0000104
#define MSR_VM_CR                 0xc0010114
#define MSR_VM_HSAVE_PA           0xc0010117
#define MSR_KVM_WALL_CLOCK_NEW    0x4b564d00
#define MSR_KVM_SYSTEM_TIME_NEW   0x4b564d01
#define MSR_KVM_STEAL_TIME        0x4b564d03
#define MSR_KVM_PV_EOI            0x4b564d04
#define MSR_KVM_WALL_CLOCK        0x11
#define MSR_KVM_SYSTEM_TIME       0x12

/* XSAVE state components [SDM1 13.1] */
#define XFEATURE_X87       BIT(0)
#define XFEATURE_SSE       BIT(1)
#define XFEATURE_AVX       BIT(2)
#define XFEATURE_OPMASK    BIT(5)
#define XFEATURE_ZMM_HI256 BIT(6)
#define XFEATURE_HI16_ZMM  BIT(7)
