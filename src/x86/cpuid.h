/* CPU models: what CPUID tells a guest, as tables.
 *
 * A model is a list of leaves built once per VM from (model, host, engine, vCPU count).
 * Each engine executes CPUID from this table, never from the host. Feature bits have one
 * name here (enum x86_feature), a leaf/register/bit, and the x86-64 level they belong to.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "x86/regs.h"

struct cpuid_entry {
	u32 leaf, subleaf;
	bool by_subleaf; /* the subleaf (ECX) selects; else it is ignored */
	u32 eax, ebx, ecx, edx;
};

#define CPUID_MAX_ENTRIES 80

struct cpuid_table {
	const char *model; /* "v1" "v2" "v3" "v4" "host" */
	u32 nr;
	struct cpuid_entry entry[CPUID_MAX_ENTRIES];
	u64 features[4]; /* enum x86_feature bitmap, for the engine's #UD checks */
	u64 xcr0_mask;   /* XCR0 bits the guest may set */
	struct x86_xsave_layout xsave;
	u32 maxphyaddr;
	u32 signature; /* CPUID.1:EAX, also EDX at reset */
};

/* Every feature that the table or an engine asks about. X(name, leaf, subleaf, reg, bit, level),
 * reg 0..3 = EAX EBX ECX EDX; level 1..4 = x86-64-v1..v4, 9 = only in "host". */
/* clang-format off */
#define X86_FEATURES(X)                                                                            \
	X(FPU, 1, 0, 3, 0, 1) X(VME, 1, 0, 3, 1, 9) X(DE, 1, 0, 3, 2, 1) X(PSE, 1, 0, 3, 3, 1)     \
	X(TSC, 1, 0, 3, 4, 1) X(MSR, 1, 0, 3, 5, 1) X(PAE, 1, 0, 3, 6, 1) X(MCE, 1, 0, 3, 7, 1)    \
	X(CX8, 1, 0, 3, 8, 1) X(APIC, 1, 0, 3, 9, 1) X(SEP, 1, 0, 3, 11, 1)                        \
	X(MTRR, 1, 0, 3, 12, 1) X(PGE, 1, 0, 3, 13, 1) X(MCA, 1, 0, 3, 14, 1)                      \
	X(CMOV, 1, 0, 3, 15, 1) X(PAT, 1, 0, 3, 16, 1) X(PSE36, 1, 0, 3, 17, 1)                    \
	X(CLFSH, 1, 0, 3, 19, 1) X(MMX, 1, 0, 3, 23, 1) X(FXSR, 1, 0, 3, 24, 1)                    \
	X(SSE, 1, 0, 3, 25, 1) X(SSE2, 1, 0, 3, 26, 1) X(HTT, 1, 0, 3, 28, 9)                      \
	X(SSE3, 1, 0, 2, 0, 2) X(PCLMULQDQ, 1, 0, 2, 1, 9) X(SSSE3, 1, 0, 2, 9, 2)                 \
	X(FMA, 1, 0, 2, 12, 3) X(CX16, 1, 0, 2, 13, 2) X(PCID, 1, 0, 2, 17, 1)                     \
	X(SSE4_1, 1, 0, 2, 19, 2) X(SSE4_2, 1, 0, 2, 20, 2) X(X2APIC, 1, 0, 2, 21, 1)              \
	X(MOVBE, 1, 0, 2, 22, 3) X(POPCNT, 1, 0, 2, 23, 2) X(TSC_DEADLINE, 1, 0, 2, 24, 1)         \
	X(AES, 1, 0, 2, 25, 9) X(XSAVE, 1, 0, 2, 26, 3) X(AVX, 1, 0, 2, 28, 3)                     \
	X(F16C, 1, 0, 2, 29, 3) X(RDRAND, 1, 0, 2, 30, 9) X(HYPERVISOR, 1, 0, 2, 31, 1)            \
	X(FSGSBASE, 7, 0, 1, 0, 1) X(TSC_ADJUST, 7, 0, 1, 1, 1) X(BMI1, 7, 0, 1, 3, 3)             \
	X(AVX2, 7, 0, 1, 5, 3) X(SMEP, 7, 0, 1, 7, 1) X(BMI2, 7, 0, 1, 8, 3)                       \
	X(ERMS, 7, 0, 1, 9, 1) X(INVPCID, 7, 0, 1, 10, 1) X(RDSEED, 7, 0, 1, 18, 9)                \
	X(AVX512F, 7, 0, 1, 16, 4) X(AVX512DQ, 7, 0, 1, 17, 4) X(AVX512IFMA, 7, 0, 1, 21, 9)       \
	X(AVX512CD, 7, 0, 1, 28, 4) X(AVX512BW, 7, 0, 1, 30, 4) X(AVX512VL, 7, 0, 1, 31, 4)        \
	X(ADX, 7, 0, 1, 19, 9) X(SMAP, 7, 0, 1, 20, 1) X(PCOMMIT, 7, 0, 1, 22, 9)                    \
	X(CLFLUSHOPT, 7, 0, 1, 23, 9)                                                             \
	X(CLWB, 7, 0, 1, 24, 9) X(SHA, 7, 0, 1, 29, 9) X(UMIP, 7, 0, 2, 2, 1)                      \
	X(AVX512_VBMI, 7, 0, 2, 1, 9) X(AVX512_VBMI2, 7, 0, 2, 6, 9)                               \
	X(AVX512_VNNI, 7, 0, 2, 11, 9) X(AVX512_BITALG, 7, 0, 2, 12, 9)                            \
	X(AVX512_VPOPCNTDQ, 7, 0, 2, 14, 9) X(AVX512_VP2INTERSECT, 7, 0, 3, 8, 9)                  \
	X(AVX512_BF16, 7, 1, 0, 5, 9)                                                              \
	X(GFNI, 7, 0, 2, 8, 9) X(VAES, 7, 0, 2, 9, 9) X(VPCLMULQDQ, 7, 0, 2, 10, 9)                \
	X(RDPID, 7, 0, 2, 22, 9) X(FSRM, 7, 0, 3, 4, 9) X(ARCH_CAPABILITIES, 7, 0, 3, 29, 1)       \
	X(AVX_VNNI, 7, 1, 0, 4, 9)                                                                 \
	X(XSAVEOPT, 0xd, 1, 0, 0, 3) X(XSAVEC, 0xd, 1, 0, 1, 3) X(XGETBV1, 0xd, 1, 0, 2, 3)        \
	X(XSAVES, 0xd, 1, 0, 3, 9)                                                                 \
	X(LAHF_LM, 0x80000001, 0, 2, 0, 1) X(ABM, 0x80000001, 0, 2, 5, 3)                          \
	X(PREFETCHW, 0x80000001, 0, 2, 8, 9)                                                       \
	X(SYSCALL, 0x80000001, 0, 3, 11, 1) X(NX, 0x80000001, 0, 3, 20, 1)                         \
	X(PDPE1GB, 0x80000001, 0, 3, 26, 1) X(RDTSCP, 0x80000001, 0, 3, 27, 1)                     \
	X(LM, 0x80000001, 0, 3, 29, 1) X(INVTSC, 0x80000007, 0, 3, 8, 1)                           \
	/* Of KVM's interface: those that a guest makes hypercalls for. */                         \
	X(PV_UNHALT, 0x40000001, 0, 0, 7, 1) X(PV_SEND_IPI, 0x40000001, 0, 0, 11, 1)               \
	X(PV_SCHED_YIELD, 0x40000001, 0, 0, 13, 1)                                                 \
	/* For guests that run guests; from SVM to VMX, cpuid_runs_guests(). */                    \
	X(SVM, 0x80000001, 0, 2, 2, 1) X(SVM_NPT, 0x8000000a, 0, 3, 0, 1)                          \
	X(SVM_NRIPS, 0x8000000a, 0, 3, 3, 1) X(SVM_TSC_RATE, 0x8000000a, 0, 3, 4, 1)               \
	X(SVM_VMCB_CLEAN, 0x8000000a, 0, 3, 5, 1) X(SVM_FLUSH_BY_ASID, 0x8000000a, 0, 3, 6, 1)     \
	X(SVM_DECODE_ASSISTS, 0x8000000a, 0, 3, 7, 1) X(SVM_PAUSE_FILTER, 0x8000000a, 0, 3, 10, 1) \
	X(SVM_PF_THRESHOLD, 0x8000000a, 0, 3, 12, 1) X(SVM_VVMLOAD, 0x8000000a, 0, 3, 15, 1)       \
	X(SVM_VGIF, 0x8000000a, 0, 3, 16, 1) X(SVM_VNMI, 0x8000000a, 0, 3, 25, 1)                  \
	X(SVM_ADDR_CHECK, 0x8000000a, 0, 3, 28, 1) X(VMX, 1, 0, 2, 5, 1)
/* clang-format on */

/* clang-format off */
enum x86_feature {
#define X86_FEATURE_ENUM_(name, leaf, sub, reg, bit, level) X86_FEATURE_##name,
	X86_FEATURES(X86_FEATURE_ENUM_)
#undef X86_FEATURE_ENUM_
	X86_NR_FEATURES
};
/* clang-format on */

/* Is f in a bitmap of features, of 4 words? */
static inline bool cpuid_bit(const u64 *map, unsigned f)
{
	return map[f / 64] >> (f % 64) & 1;
}

static inline bool cpuid_has(const struct cpuid_table *t, enum x86_feature f)
{
	return cpuid_bit(t->features, f);
}

/* SVM, a part of it, or VMX? An engine offers them where its settings say so. */
static inline bool cpuid_runs_guests(unsigned feature)
{
	return feature >= X86_FEATURE_SVM && feature <= X86_FEATURE_VMX;
}

struct cpuid_params {
	const char *model; /* NULL: "host" */
	u32 nr_vcpus;
	u64 tsc_khz;
	u32 max_phys_bits; /* physical addresses are no wider; 0: as wide as the host's */
	/* Bitmap of X86_NR_FEATURES bits that the engine can execute; the host's are ANDed. */
	const u64 *engine_features;
};

/* Builds the table. An unknown model is refused with the valid ones listed; a model that the
 * host cannot serve (v3 on a host without AVX2) is refused naming the missing features. */
int cpuid_build(struct cpuid_table *t, const struct cpuid_params *p, struct err *err);

/* The features of t that are not among engine_features, as " NAME NAME" into ret_names (cut at len); how many. */
unsigned cpuid_missing(const struct cpuid_table *t, const u64 engine_features[4], char *ret_names,
		       size_t len);

/* What CPUID returns for vCPU (its APIC id) in EAX..EDX order; out-of-range leaves behave as on hardware
 * (the highest basic leaf's data on Intel; zeros here, as AMD does). Dynamic bits (OSXSAVE, APIC id,
 * XSAVE size for the current xcr0/xss) come from the last three arguments. */
void cpuid_query(const struct cpuid_table *t, u32 leaf, u32 subleaf, u32 apic_id, u64 cr4, u64 xcr0, u64 xss,
		 u32 ret_regs[4]);

/* The names of the models, NULL-terminated, for help texts. */
extern const char *const cpuid_model_names[];
