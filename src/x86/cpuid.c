/* CPU models as tables: what CPUID tells a guest [SDM2 CPUID], [APM3 appendix E].
 *
 * Which features. A model names its features by the x86-64 level of the psABI; "host" names all. Of
 * these a guest gets what the engine can execute; where the engine lets the host execute the guest's own
 * instruction (vectors, bit manipulation, random numbers, ...) also the host must have it. Then features
 * go whose prerequisite is missing (AVX without XSAVE). v1 to v4 promise a level, so a host that lacks
 * part of it is refused with the missing names; "host" promises nothing beyond v1.
 *
 * Identity. The vendor is always the host's: a guest picks code by it (SYSENTER and SYSCALL differ), and
 * that code meets the host's instructions. "host" takes family, model, stepping and brand string
 * from the host. v1 to v4 say family 6 model 60 stepping 3 (Intel) or family 21 model 101 stepping 1
 * (AMD): the first of each vendor with all of v3, so that no guest expects more of the family (v4 adds
 * features, which guests ask for one by one), and with no workaround in common kernels that touches
 * model-specific registers.
 *
 * Topology and caches are invented, the same for all models: one core per vCPU, one package, no
 * hyper-threads; 32 KiB L1, 1 MiB L2 per core, 16 MiB L3 shared. AMD's topology extensions are hidden, so
 * leaf 80000008H and the older cache leaves count there.
 *
 * Omitted: MONITOR (5), performance counters (AH), PT, SGX, RDT, AMX (their leaves are zero), AVX512_FP16,
 * and the "highest basic leaf's data" for leaves out of range (zeros, as AMD has it).
 *
 * cpuid_build: main thread. cpuid_query reads only: any thread.
 */
#include "x86/cpuid.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "x86/defs.h"
#include "x86/regs.h"

#define CPUID_MAX_BASIC     0x1f
#define CPUID_MAX_EXT_INTEL 0x80000008u
#define CPUID_MAX_EXT_AMD   0x80000021u
#define CPUID_HV_BASE       0x40000000u
#define CPUID_HV_TSC        0x40000010u

/* As KVM has them for each processor. */
#define CPUID_SVM_REVISION 1
#define CPUID_SVM_ASIDS    8

#define CPUID_APIC_BUS_KHZ 1000000u /* the local APIC's timer counts nanoseconds */

#define CPUID_SIG_INTEL 0x000306c3u /* family 6, model 60, stepping 3 */
#define CPUID_SIG_AMD   0x00660f51u /* family 21, model 101, stepping 1 */

#define CPUID_XSAVE_LEGACY 576
#define CPUID_AVX_SIZE     256

/* AVX-512's components [SDM1 13.5.5]. Intel's processors have room for MPX before them, AMD's not. */
static const struct x86_xsave_layout cpuid_xsave_intel = { 1088, 1152, 1664, 2688 };
static const struct x86_xsave_layout cpuid_xsave_amd = { 832, 896, 1408, 2432 };
#define CPUID_OPMASK_SIZE    64
#define CPUID_ZMM_HI256_SIZE 512
#define CPUID_HI16_ZMM_SIZE  1024

enum { REG_EAX, REG_EBX, REG_ECX, REG_EDX };

const char *const cpuid_model_names[] = { "v1", "v2", "v3", "v4", "host", NULL };

struct cpuid_feature {
	const char *name;
	u32 leaf, subleaf;
	u8 reg, bit, level;
};

static const struct cpuid_feature cpuid_feature[X86_NR_FEATURES] = {
#define CPUID_FEATURE_(NAME, l, s, r, b, lvl) { #NAME, l, s, r, b, lvl },
	X86_FEATURES(CPUID_FEATURE_)
#undef CPUID_FEATURE_
};

#define F(name) X86_FEATURE_##name

/* Executed by the host's processor on behalf of the guest, so the host must have them. */
/* clang-format off */
static const u8 cpuid_native[] = {
	F(CMOV), F(MMX), F(SSE), F(SSE2), F(SSE3), F(PCLMULQDQ), F(SSSE3), F(FMA), F(CX16), F(SSE4_1),
	F(SSE4_2), F(MOVBE), F(POPCNT), F(AES), F(AVX), F(F16C), F(RDRAND), F(BMI1), F(AVX2), F(BMI2),
	F(RDSEED), F(ADX), F(CLFLUSHOPT), F(CLWB), F(SHA), F(GFNI), F(VAES), F(VPCLMULQDQ), F(AVX_VNNI),
	F(ABM), F(AVX512F), F(AVX512DQ), F(AVX512CD), F(AVX512BW), F(AVX512VL), F(AVX512IFMA), F(AVX512_VBMI),
	F(AVX512_VBMI2), F(AVX512_VNNI), F(AVX512_BITALG), F(AVX512_VPOPCNTDQ), F(AVX512_VP2INTERSECT),
	F(AVX512_BF16),
};
/* clang-format on */

/* The machine's rather than the engine's: there whatever the engine says. */
static const u8 cpuid_machine[] = { F(APIC), F(HYPERVISOR) };

/* What the psABI's levels consist of; a model without them would be a lie. */
static const struct {
	u8 feature, level;
} cpuid_required[] = {
	{ F(FPU), 1 },     { F(CX8), 1 },      { F(CMOV), 1 },     { F(MMX), 1 },      { F(FXSR), 1 },
	{ F(SSE), 1 },     { F(SSE2), 1 },     { F(LM), 1 },       { F(SYSCALL), 1 },  { F(SSE3), 2 },
	{ F(SSSE3), 2 },   { F(SSE4_1), 2 },   { F(SSE4_2), 2 },   { F(POPCNT), 2 },   { F(CX16), 2 },
	{ F(LAHF_LM), 2 }, { F(AVX), 3 },      { F(AVX2), 3 },     { F(BMI1), 3 },     { F(BMI2), 3 },
	{ F(F16C), 3 },    { F(FMA), 3 },      { F(ABM), 3 },      { F(MOVBE), 3 },    { F(XSAVE), 3 },
	{ F(AVX512F), 4 }, { F(AVX512DQ), 4 }, { F(AVX512CD), 4 }, { F(AVX512BW), 4 }, { F(AVX512VL), 4 },
};

/* feature needs prerequisite; in an order that one pass settles. */
/* clang-format off */
static const struct {
	u8 feature, needs;
} cpuid_needs[] = {
	{ F(SSE2), F(SSE) }, { F(SSE3), F(SSE2) }, { F(SSSE3), F(SSE3) }, { F(SSE4_1), F(SSSE3) },
	{ F(SSE4_2), F(SSE4_1) }, { F(PCLMULQDQ), F(SSE2) }, { F(AES), F(SSE2) }, { F(SHA), F(SSSE3) },
	{ F(GFNI), F(SSE2) }, { F(XSAVE), F(FXSR) }, { F(XSAVEOPT), F(XSAVE) }, { F(XSAVEC), F(XSAVE) },
	{ F(XGETBV1), F(XSAVE) }, { F(XSAVES), F(XSAVEC) }, { F(AVX), F(XSAVE) }, { F(F16C), F(AVX) },
	{ F(FMA), F(AVX) }, { F(AVX2), F(AVX) }, { F(VAES), F(AVX) }, { F(VPCLMULQDQ), F(AVX) },
	{ F(AVX_VNNI), F(AVX2) }, { F(X2APIC), F(APIC) }, { F(TSC_DEADLINE), F(APIC) },
	{ F(AVX512F), F(AVX2) }, { F(AVX512F), F(FMA) }, { F(AVX512F), F(F16C) },
	{ F(AVX512DQ), F(AVX512F) }, { F(AVX512CD), F(AVX512F) }, { F(AVX512BW), F(AVX512F) },
	{ F(AVX512VL), F(AVX512F) }, { F(AVX512IFMA), F(AVX512F) }, { F(AVX512_VBMI), F(AVX512BW) },
	{ F(AVX512_VBMI2), F(AVX512BW) }, { F(AVX512_VNNI), F(AVX512F) }, { F(AVX512_BITALG), F(AVX512BW) },
	{ F(AVX512_VPOPCNTDQ), F(AVX512F) }, { F(AVX512_VP2INTERSECT), F(AVX512F) },
	{ F(AVX512_BF16), F(AVX512BW) }, { F(SVM_NPT), F(SVM) }, { F(SVM_NRIPS), F(SVM) },
	{ F(SVM_TSC_RATE), F(SVM) }, { F(SVM_VMCB_CLEAN), F(SVM) }, { F(SVM_FLUSH_BY_ASID), F(SVM) },
	{ F(SVM_DECODE_ASSISTS), F(SVM) }, { F(SVM_PAUSE_FILTER), F(SVM) }, { F(SVM_PF_THRESHOLD), F(SVM) },
	{ F(SVM_VVMLOAD), F(SVM) }, { F(SVM_VGIF), F(SVM) }, { F(SVM_VNMI), F(SVM) }, { F(SVM_ADDR_CHECK), F(SVM) },
};
/* clang-format on */

struct cpuid_host {
	char vendor[13];
	bool amd;
	u32 max_basic, max_ext;
	u32 signature;
	u32 brand[12];
	u32 phys_bits;
};

static void cpuid_host_leaf(const struct cpuid_host *h, u32 leaf, u32 subleaf, u32 ret_regs[4])
{
	u32 max = leaf >> 31 ? h->max_ext : h->max_basic;

	memset(ret_regs, 0, 4 * sizeof(u32));
	if (leaf <= max)
		__cpuid_count(leaf, subleaf, ret_regs[0], ret_regs[1], ret_regs[2], ret_regs[3]);
}

static void cpuid_host_read(struct cpuid_host *h)
{
	u32 r[4];

	memset(h, 0, sizeof(*h));
	__cpuid(0, h->max_basic, r[REG_EBX], r[REG_ECX], r[REG_EDX]);
	st32(h->vendor, r[REG_EBX]);
	st32(h->vendor + 4, r[REG_EDX]);
	st32(h->vendor + 8, r[REG_ECX]);
	h->amd = !strcmp(h->vendor, "AuthenticAMD") || !strcmp(h->vendor, "HygonGenuine");
	__cpuid(0x80000000u, h->max_ext, r[REG_EBX], r[REG_ECX], r[REG_EDX]);
	cpuid_host_leaf(h, 1, 0, r);
	h->signature = r[REG_EAX];
	for (u32 i = 0; i < 3; i++)
		cpuid_host_leaf(h, 0x80000002u + i, 0, h->brand + 4 * i);
	cpuid_host_leaf(h, 0x80000008u, 0, r);
	h->phys_bits = r[REG_EAX] & 0xff;
	if (h->phys_bits < 36 || h->phys_bits > 48)
		h->phys_bits = h->phys_bits < 36 ? 36 : 48;
}

static void cpuid_set(u64 *map, unsigned f, bool on)
{
	if (on)
		map[f / 64] |= BIT(f % 64);
	else
		map[f / 64] &= ~BIT(f % 64);
}

static void cpuid_host_features(const struct cpuid_host *h, u64 ret_map[4])
{
	u32 leaf = ~0u, subleaf = 0, r[4];

	memset(ret_map, 0, 4 * sizeof(u64));
	for (unsigned f = 0; f < X86_NR_FEATURES; f++) {
		/* Neighbours share a leaf; executing CPUID is expensive in a virtual machine. */
		if (cpuid_feature[f].leaf != leaf || cpuid_feature[f].subleaf != subleaf) {
			leaf = cpuid_feature[f].leaf;
			subleaf = cpuid_feature[f].subleaf;
			cpuid_host_leaf(h, leaf, subleaf, r);
		}
		cpuid_set(ret_map, f, r[cpuid_feature[f].reg] >> cpuid_feature[f].bit & 1);
	}
}

static bool cpuid_listed(const u8 *list, size_t n, unsigned f)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == f)
			return true;
	return false;
}

/* The model's number in cpuid_model_names, or -1. */
static int cpuid_model(const char *name)
{
	for (int i = 0; cpuid_model_names[i]; i++)
		if (!strcmp(cpuid_model_names[i], name))
			return i;
	return -1;
}

static void cpuid_choose_features(struct cpuid_table *t, const struct cpuid_params *p,
				  const struct cpuid_host *h, unsigned max_level)
{
	u64 host[4];

	cpuid_host_features(h, host);
	for (unsigned f = 0; f < X86_NR_FEATURES; f++) {
		bool on = cpuid_feature[f].level <= max_level && cpuid_bit(p->engine_features, f);

		if (cpuid_listed(cpuid_native, ARRAY_SIZE(cpuid_native), f))
			on = on && cpuid_bit(host, f);
		if (cpuid_listed(cpuid_machine, ARRAY_SIZE(cpuid_machine), f))
			on = true;
		if (f == F(HTT))
			on = p->nr_vcpus > 1;
		if (f == (h->amd ? F(VMX) : F(SVM)))
			on = false;
		cpuid_set(t->features, f, on);
	}
	for (size_t i = 0; i < ARRAY_SIZE(cpuid_needs); i++)
		if (!cpuid_bit(t->features, cpuid_needs[i].needs))
			cpuid_set(t->features, cpuid_needs[i].feature, false);
}

static int cpuid_check_level(const struct cpuid_table *t, unsigned level, struct err *err)
{
	char missing[400] = "";
	size_t len = 0;

	for (size_t i = 0; i < ARRAY_SIZE(cpuid_required); i++) {
		if (cpuid_required[i].level > level || cpuid_bit(t->features, cpuid_required[i].feature))
			continue;
		len += (size_t)snprintf(missing + len, sizeof(missing) - len, " %s",
					cpuid_feature[cpuid_required[i].feature].name);
	}
	if (!len)
		return 0;
	return err_set(err, -ENOTSUP,
		       "CPU model '%s' needs features that this host or engine lacks:%s; try --cpu host",
		       t->model, missing);
}

unsigned cpuid_missing(const struct cpuid_table *t, const u64 engine_features[4], char *ret_names, size_t len)
{
	unsigned missing = 0;
	size_t n = 0;

	if (len)
		*ret_names = 0;
	for (unsigned f = 0; f < X86_NR_FEATURES; f++) {
		if (!cpuid_bit(t->features, f) || cpuid_bit(engine_features, f) || f == F(HTT) ||
		    cpuid_listed(cpuid_machine, ARRAY_SIZE(cpuid_machine), f))
			continue;
		missing++;
		if (n < len)
			n += (size_t)snprintf(ret_names + n, len - n, " %s", cpuid_feature[f].name);
	}
	return missing;
}

/* ---- the leaves ---- */

static struct cpuid_entry *cpuid_add(struct cpuid_table *t, u32 leaf, u32 a, u32 b, u32 c, u32 d)
{
	struct cpuid_entry *e = &t->entry[t->nr++];

	*e = (struct cpuid_entry){ .leaf = leaf, .eax = a, .ebx = b, .ecx = c, .edx = d };
	return e;
}

static void cpuid_add_sub(struct cpuid_table *t, u32 leaf, u32 subleaf, u32 a, u32 b, u32 c, u32 d)
{
	struct cpuid_entry *e = cpuid_add(t, leaf, a, b, c, d);

	e->subleaf = subleaf;
	e->by_subleaf = true;
}

/* The feature bits that go into one register of a leaf. */
static u32 cpuid_word(const struct cpuid_table *t, u32 leaf, u32 subleaf, unsigned reg)
{
	u32 word = 0;

	for (unsigned f = 0; f < X86_NR_FEATURES; f++)
		if (cpuid_feature[f].leaf == leaf && cpuid_feature[f].subleaf == subleaf &&
		    cpuid_feature[f].reg == reg && cpuid_bit(t->features, f))
			word |= 1u << cpuid_feature[f].bit;
	return word;
}

/* Bits that a number below n needs. */
static u32 cpuid_id_bits(u32 n)
{
	u32 bits = 0;

	while ((1ull << bits) < n)
		bits++;
	return bits;
}

/* One cache of leaf 4: type 1 data, 2 instruction, 3 unified; sharing: ids that share it, a power of two. */
static void cpuid_add_cache(struct cpuid_table *t, u32 index, u32 type, u32 level, u32 ways, u32 sets,
			    u32 sharing, u32 cores)
{
	cpuid_add_sub(t, 4, index, type | level << 5 | 1u << 8 | (sharing - 1) << 14 | (cores - 1) << 26,
		      (64 - 1) | 0 << 12 | (ways - 1) << 22, sets - 1, 0);
}

/* EAX and EBX with EBX/EAX closest to tsc_khz / 1 GHz. Guests compute (crystal kHz) * EBX in 32 bits,
 * which holds for EBX up to 4294. */
static void cpuid_tsc_ratio(u64 tsc_khz, u32 *ret_den, u32 *ret_num)
{
	u64 best = ~0ull;

	*ret_den = 1;
	*ret_num = 1;
	for (u64 den = 1; den <= 4294; den++) {
		u64 num = (tsc_khz * den + CPUID_APIC_BUS_KHZ / 2) / CPUID_APIC_BUS_KHZ, khz, off;

		if (!num || num > 4294)
			continue;
		/* In mHz, so that the smallest differences count. */
		khz = num * CPUID_APIC_BUS_KHZ * 1000000 / den;
		off = khz > tsc_khz * 1000000 ? khz - tsc_khz * 1000000 : tsc_khz * 1000000 - khz;
		if (off < best) {
			best = off;
			*ret_den = (u32)den;
			*ret_num = (u32)num;
		}
	}
}

/* Bytes of an area in the standard format. XCR0 has all components of AVX-512 or none. */
static u32 cpuid_xsave_size(const struct cpuid_table *t, u64 components)
{
	if (components & XFEATURE_HI16_ZMM)
		return t->xsave.size;
	return CPUID_XSAVE_LEGACY + (components & XFEATURE_AVX ? CPUID_AVX_SIZE : 0);
}

static void cpuid_add_basic(struct cpuid_table *t, const struct cpuid_params *p, const struct cpuid_host *h)
{
	u32 id_bits = cpuid_id_bits(p->nr_vcpus), ids = 1u << id_bits, den, num;

	cpuid_add(t, 0, CPUID_MAX_BASIC, ld32(h->vendor), ld32(h->vendor + 8), ld32(h->vendor + 4));
	/* CLFLUSH works on 64 bytes; the APIC id is put in by cpuid_query(). */
	cpuid_add(t, 1, t->signature, (64 / 8) << 8 | (h->amd ? p->nr_vcpus : ids) << 16,
		  cpuid_word(t, 1, 0, REG_ECX), cpuid_word(t, 1, 0, REG_EDX));
	if (!h->amd) {
		/* "See leaf 4"; 64-byte prefetch. */
		cpuid_add(t, 2, 0x0000ff01, 0, 0, 0x000000f0);
		cpuid_add_cache(t, 0, 1, 1, 8, 64, 1, ids);
		cpuid_add_cache(t, 1, 2, 1, 8, 64, 1, ids);
		cpuid_add_cache(t, 2, 3, 2, 16, 1024, 1, ids);
		cpuid_add_cache(t, 3, 3, 3, 16, 16384, ids, ids);
	}
	cpuid_add(t, 6, BIT(2), 0, 0, 0); /* ARAT: the APIC's timer never stops */
	cpuid_add_sub(t, 7, 0, 1, cpuid_word(t, 7, 0, REG_EBX), cpuid_word(t, 7, 0, REG_ECX),
		      cpuid_word(t, 7, 0, REG_EDX));
	cpuid_add_sub(t, 7, 1, cpuid_word(t, 7, 1, REG_EAX), 0, 0, 0);
	/* Level, type << 8; EDX is the x2APIC id, put in by cpuid_query(). */
	for (u32 leaf = 0xb; leaf <= 0x1f; leaf += 0x14) {
		cpuid_add_sub(t, leaf, 0, 0, 1, 0 | 1 << 8, 0);
		cpuid_add_sub(t, leaf, 1, id_bits, p->nr_vcpus, 1 | 2 << 8, 0);
	}
	if (cpuid_has(t, F(XSAVE))) {
		u32 size = cpuid_xsave_size(t, t->xcr0_mask);

		/* EBX of subleaves 0 and 1: by cpuid_query(). */
		cpuid_add_sub(t, 0xd, 0, (u32)t->xcr0_mask, 0, size, (u32)(t->xcr0_mask >> 32));
		cpuid_add_sub(t, 0xd, 1, cpuid_word(t, 0xd, 1, REG_EAX), 0, 0, 0);
		if (t->xcr0_mask & XFEATURE_AVX)
			cpuid_add_sub(t, 0xd, 2, CPUID_AVX_SIZE, X86_XSAVE_AVX_OFFSET, 0, 0);
		if (t->xcr0_mask & XFEATURE_OPMASK) {
			cpuid_add_sub(t, 0xd, 5, CPUID_OPMASK_SIZE, t->xsave.opmask, 0, 0);
			cpuid_add_sub(t, 0xd, 6, CPUID_ZMM_HI256_SIZE, t->xsave.zmm_hi256, 0, 0);
			cpuid_add_sub(t, 0xd, 7, CPUID_HI16_ZMM_SIZE, t->xsave.hi16_zmm, 0, 0);
		}
	}
	cpuid_tsc_ratio(p->tsc_khz, &den, &num);
	cpuid_add(t, 0x15, den, num, CPUID_APIC_BUS_KHZ * 1000, 0);
	cpuid_add(t, 0x16, (u32)(p->tsc_khz / 1000) & 0xffff, (u32)(p->tsc_khz / 1000) & 0xffff, 100, 0);
}

/* The interface that guests know as KVM's [Linux Documentation/virt/kvm/x86/cpuid.rst]. */
static void cpuid_add_hypervisor(struct cpuid_table *t, const struct cpuid_params *p)
{
	static const char signature[12] = "KVMKVMKVM";
	/* Clock source (old and new MSRs), no I/O delays, the clock is stable across vCPUs; stolen time; EOI without an
	 * exit (dev/lapic.c); halting for a spinlock, TLB flushes, interrupts and yielding by hypercall (dev/kvmpv.c). */
	u32 features = (u32)(BIT(0) | BIT(1) | BIT(3) | BIT(24) | BIT(5) | BIT(6) | BIT(9)) |
		       cpuid_word(t, CPUID_HV_BASE + 1, 0, REG_EAX);

	cpuid_add(t, CPUID_HV_BASE, CPUID_HV_TSC, ld32(signature), ld32(signature + 4), ld32(signature + 8));
	cpuid_add(t, CPUID_HV_BASE + 1, features, 0, 0, 0);
	cpuid_add(t, CPUID_HV_TSC, (u32)p->tsc_khz, CPUID_APIC_BUS_KHZ, 0, 0);
}

static void cpuid_add_extended(struct cpuid_table *t, const struct cpuid_params *p,
			       const struct cpuid_host *h, bool is_host)
{
	u32 ecx = cpuid_word(t, 0x80000001u, 0, REG_ECX), edx = cpuid_word(t, 0x80000001u, 0, REG_EDX);
	u32 brand[12] = { 0 };

	if (h->amd) {
		/* AMD repeats part of leaf 1; CMP_LEGACY: HTT means cores, not threads. */
		edx |= cpuid_word(t, 1, 0, REG_EDX) & 0x0183f3ff;
		if (p->nr_vcpus > 1)
			ecx |= BIT(1);
	}
	cpuid_add(t, 0x80000000u, h->amd ? CPUID_MAX_EXT_AMD : CPUID_MAX_EXT_INTEL,
		  h->amd ? ld32(h->vendor) : 0, h->amd ? ld32(h->vendor + 8) : 0,
		  h->amd ? ld32(h->vendor + 4) : 0);
	cpuid_add(t, 0x80000001u, h->amd ? t->signature : 0, 0, ecx, edx);
	if (is_host)
		memcpy(brand, h->brand, sizeof(brand));
	else
		snprintf((char *)brand, sizeof(brand), "bothy vCPU (%s)", t->model);
	for (u32 i = 0; i < 3; i++)
		cpuid_add(t, 0x80000002u + i, brand[4 * i], brand[4 * i + 1], brand[4 * i + 2],
			  brand[4 * i + 3]);
	if (h->amd)
		/* L1 data and instruction: KiB, ways, lines per tag, line size. TLBs: not told. */
		cpuid_add(t, 0x80000005u, 0, 0, 32u << 24 | 8 << 16 | 1 << 8 | 64,
			  32u << 24 | 8 << 16 | 1 << 8 | 64);
	/* L2 in KiB; AMD also L3 in 512 KiB. Associativity 8 stands for 16 ways. */
	cpuid_add(t, 0x80000006u, 0, 0, 1024u << 16 | 8 << 12 | (h->amd ? 1 << 8 : 0) | 64,
		  h->amd ? 32u << 18 | 8 << 12 | 1 << 8 | 64 : 0);
	cpuid_add(t, 0x80000007u, 0, 0, 0, cpuid_word(t, 0x80000007u, 0, REG_EDX));
	if (cpuid_has(t, F(SVM)))
		cpuid_add(t, 0x8000000au, CPUID_SVM_REVISION, CPUID_SVM_ASIDS, 0,
			  cpuid_word(t, 0x8000000au, 0, REG_EDX));
	cpuid_add(t, 0x80000008u, t->maxphyaddr | 48 << 8, 0,
		  h->amd ? (p->nr_vcpus - 1) | cpuid_id_bits(p->nr_vcpus) << 12 : 0, 0);
	if (!h->amd)
		return;
	/* LFENCE serializes; else a guest would look for an MSR that makes it so. */
	cpuid_add(t, 0x80000021u, BIT(2), 0, 0, 0);
	if (!cpuid_has(t, F(ARCH_CAPABILITIES)))
		return;
	/* "Not affected", for what AMD reports here rather than in IA32_ARCH_CAPABILITIES: speculative store
	 * bypass and branch type confusion; return stack overflow and transient scheduler attacks. */
	t->entry[t->nr - 2].ebx = BIT(26) | BIT(29);
	t->entry[t->nr - 1].eax |= BIT(29);
	t->entry[t->nr - 1].ecx = BIT(1) | BIT(2);
}

int cpuid_build(struct cpuid_table *t, const struct cpuid_params *p, struct err *err)
{
	const char *name = p->model ? p->model : "host";
	int model = cpuid_model(name);
	struct cpuid_host h;
	bool is_host;
	int rc;

	if (model < 0)
		return err_set(err, -EINVAL, "unknown CPU model '%s'; the models are v1, v2, v3, v4 and host",
			       name);
	is_host = !strcmp(name, "host");
	memset(t, 0, sizeof(*t));
	t->model = cpuid_model_names[model];
	cpuid_host_read(&h);
	cpuid_choose_features(t, p, &h, is_host ? 9 : (unsigned)model + 1);
	rc = cpuid_check_level(t, is_host ? 1 : (unsigned)model + 1, err);
	if (rc)
		return rc;
	t->xcr0_mask = cpuid_has(t, F(XSAVE)) ? XFEATURE_X87 | XFEATURE_SSE : 0;
	if (cpuid_has(t, F(AVX)))
		t->xcr0_mask |= XFEATURE_AVX;
	if (cpuid_has(t, F(AVX512F)))
		t->xcr0_mask |= XFEATURE_OPMASK | XFEATURE_ZMM_HI256 | XFEATURE_HI16_ZMM;
	t->xsave = h.amd ? cpuid_xsave_amd : cpuid_xsave_intel;
	t->maxphyaddr = p->max_phys_bits ? MIN(h.phys_bits, p->max_phys_bits) : h.phys_bits;
	t->signature = is_host ? h.signature : h.amd ? CPUID_SIG_AMD : CPUID_SIG_INTEL;
	cpuid_add_basic(t, p, &h);
	cpuid_add_hypervisor(t, p);
	cpuid_add_extended(t, p, &h, is_host);
	return 0;
}

/* ---- the instruction ---- */

/* The compacted format has the components one after the other. */
static u32 cpuid_xsave_compact(u64 components)
{
	return CPUID_XSAVE_LEGACY + (components & XFEATURE_AVX ? CPUID_AVX_SIZE : 0) +
	       (components & XFEATURE_OPMASK ? CPUID_OPMASK_SIZE : 0) +
	       (components & XFEATURE_ZMM_HI256 ? CPUID_ZMM_HI256_SIZE : 0) +
	       (components & XFEATURE_HI16_ZMM ? CPUID_HI16_ZMM_SIZE : 0);
}

void cpuid_query(const struct cpuid_table *t, u32 leaf, u32 subleaf, u32 apic_id, u64 cr4, u64 xcr0, u64 xss,
		 u32 ret_regs[4])
{
	const struct cpuid_entry *e = NULL;

	for (u32 i = 0; i < t->nr && !e; i++)
		if (t->entry[i].leaf == leaf && (!t->entry[i].by_subleaf || t->entry[i].subleaf == subleaf))
			e = &t->entry[i];
	ret_regs[REG_EAX] = e ? e->eax : 0;
	ret_regs[REG_EBX] = e ? e->ebx : 0;
	ret_regs[REG_ECX] = e ? e->ecx : 0;
	ret_regs[REG_EDX] = e ? e->edx : 0;
	switch (leaf) {
	case 1:
		ret_regs[REG_EBX] |= apic_id << 24;
		if (cr4 & CR4_OSXSAVE)
			ret_regs[REG_ECX] |= 1u << 27;
		break;
	case 0xb:
	case 0x1f:
		/* Also for a level that does not exist: its number back in CL, the id in EDX. */
		ret_regs[REG_ECX] |= subleaf & 0xff;
		ret_regs[REG_EDX] = apic_id;
		break;
	case 0xd:
		if (e && subleaf == 0)
			ret_regs[REG_EBX] = cpuid_xsave_size(t, xcr0);
		else if (e && subleaf == 1 && (e->eax & (BIT(1) | BIT(3))))
			ret_regs[REG_EBX] = cpuid_xsave_compact(xcr0 | xss);
		break;
	default: break;
	}
}
