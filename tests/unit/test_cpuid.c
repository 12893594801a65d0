/* CPU models and the reset state. */
#include <cpuid.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "x86/cpuid.h"
#include "x86/regs.h"

static const u64 everything[4] = { ~0ull, ~0ull, ~0ull, ~0ull };

static struct cpuid_table table;

static int build(const char *model, u32 nr_vcpus, u64 tsc_khz, const u64 *features, struct err *err)
{
	struct cpuid_params p = {
		.model = model,
		.nr_vcpus = nr_vcpus,
		.tsc_khz = tsc_khz,
		.engine_features = features,
	};

	return cpuid_build(&table, &p, err);
}

static const u32 *query(u32 leaf, u32 subleaf)
{
	static u32 r[4];

	memset(r, 0x55, sizeof(r));
	cpuid_query(&table, leaf, subleaf, 0, 0, 1, 0, r);
	return r;
}

static bool zero(const u32 *r)
{
	return !(r[0] | r[1] | r[2] | r[3]);
}

static const char *host_vendor(void)
{
	static char v[13];
	u32 a, b, c, d;

	__cpuid(0, a, b, c, d);
	st32(v, b);
	st32(v + 4, d);
	st32(v + 8, c);
	return v;
}

static bool host_is_amd(void)
{
	return !strcmp(host_vendor(), "AuthenticAMD") || !strcmp(host_vendor(), "HygonGenuine");
}

/* Skips what the machine under the tests cannot serve. */
static bool try_model(const char *model)
{
	return build(model, 4, 2500000, everything, NULL) == 0;
}

static void test_models(void **state)
{
	struct err err = { 0 };

	assert_int_equal(build("v5", 1, 2500000, everything, &err), -EINVAL);
	assert_string_equal(err.msg, "unknown CPU model 'v5'; the models are v1, v2, v3, v4 and host");
	assert_int_equal(build("", 1, 2500000, everything, &err), -EINVAL);
	assert_int_equal(build(NULL, 1, 2500000, everything, &err), 0);
	assert_string_equal(table.model, "host");
	assert_string_equal(cpuid_model_names[4], "host");
	assert_null(cpuid_model_names[5]);
	/* An engine that lacks something a level promises: refused, by name. */
	u64 less[4] = { ~0ull, ~0ull, ~0ull, ~0ull };
	less[X86_FEATURE_FMA / 64] &= ~BIT(X86_FEATURE_FMA % 64);
	less[X86_FEATURE_ABM / 64] &= ~BIT(X86_FEATURE_ABM % 64);
	assert_int_equal(build("v3", 1, 2500000, less, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, " FMA"));
	assert_non_null(strstr(err.msg, " ABM"));
	less[X86_FEATURE_AVX512VL / 64] &= ~BIT(X86_FEATURE_AVX512VL % 64);
	assert_int_equal(build("v4", 1, 2500000, less, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, " AVX512VL"));
	assert_int_equal(build("v2", 1, 2500000, less, &err), 0);
	assert_int_equal(build("host", 1, 2500000, less, &err), 0);
	assert_false(cpuid_has(&table, X86_FEATURE_FMA));
	u64 none[4] = { 0 };
	assert_int_equal(build("host", 1, 2500000, none, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, " SSE2"));
}

/* Each bit in the leaves is in the bitmap, and the other way round. */
static void check_bits(void)
{
#define CHECK_(name, leaf, sub, reg, bit, level)   \
	if (X86_FEATURE_##name != X86_FEATURE_HTT) \
		assert_int_equal(query(leaf, sub)[reg] >> bit & 1, cpuid_has(&table, X86_FEATURE_##name));
	X86_FEATURES(CHECK_)
#undef CHECK_
}

/* SVM of AMD's, with its leaf, VMX of others', in any model, if the engine has it. */
static void test_nested(void **state)
{
	u64 less[4] = { ~0ull, ~0ull, ~0ull, ~0ull };
	char names[400];
	bool amd = host_is_amd();

	assert_true(try_model("v1"));
	assert_true(cpuid_has(&table, X86_FEATURE_SVM) == amd);
	assert_true(cpuid_has(&table, X86_FEATURE_VMX) == !amd);
	if (amd) {
		assert_int_equal(query(0x8000000a, 0)[0], 1);
		assert_true(query(0x8000000a, 0)[1] >= 2);
		assert_true(query(0x8000000a, 0)[3] & 1);
	}
	for (unsigned f = 0; f < X86_NR_FEATURES; f++)
		if (cpuid_runs_guests(f))
			less[f / 64] &= ~BIT(f % 64);
	assert_true(cpuid_missing(&table, less, names, sizeof(names)) > 0);
	assert_non_null(strstr(names, amd ? " SVM " : " VMX"));
	/* Without it, no part of it. */
	less[X86_FEATURE_SVM_NPT / 64] |= BIT(X86_FEATURE_SVM_NPT % 64);
	assert_int_equal(build("host", 1, 2500000, less, NULL), 0);
	for (unsigned f = 0; f < X86_NR_FEATURES; f++)
		assert_false(cpuid_runs_guests(f) && cpuid_has(&table, f));
	assert_true(zero(query(0x8000000a, 0)));
}

static void test_levels(void **state)
{
	assert_true(try_model("v1"));
	check_bits();
	assert_true(cpuid_has(&table, X86_FEATURE_SSE2));
	assert_true(cpuid_has(&table, X86_FEATURE_PCID));
	assert_false(cpuid_has(&table, X86_FEATURE_SSE3));
	assert_false(cpuid_has(&table, X86_FEATURE_XSAVE));
	assert_int_equal(table.xcr0_mask, 0);
	assert_true(zero(query(0xd, 0)));
	if (!try_model("v2"))
		skip();
	check_bits();
	assert_true(cpuid_has(&table, X86_FEATURE_SSE4_2));
	assert_false(cpuid_has(&table, X86_FEATURE_AVX));
	if (!try_model("v3"))
		skip();
	check_bits();
	assert_true(cpuid_has(&table, X86_FEATURE_AVX2));
	assert_false(cpuid_has(&table, X86_FEATURE_AES));
	assert_false(cpuid_has(&table, X86_FEATURE_RDRAND));
	assert_int_equal(table.xcr0_mask, 7);
	/* Never more than asked: each level holds those below. */
	for (unsigned f = 0; f < X86_NR_FEATURES; f++) {
		bool v3 = cpuid_has(&table, (enum x86_feature)f);

		assert_true(try_model("v1"));
		if (cpuid_has(&table, (enum x86_feature)f))
			assert_true(v3);
		assert_true(try_model("v3"));
	}
}

static void test_avx512(void **state)
{
	u64 less[4] = { ~0ull, ~0ull, ~0ull, ~0ull };
	u32 r[4], a, b, c, d;
	bool amd = host_is_amd();

	if (!try_model("v4"))
		skip();
	check_bits();
	assert_int_equal(table.xcr0_mask, 0xe7);
	assert_false(cpuid_has(&table, X86_FEATURE_AVX512_VBMI));
	assert_false(cpuid_has(&table, X86_FEATURE_AVX512IFMA));
	assert_true(cpuid_has(&table, X86_FEATURE_AVX512VL));
	/* Where the components are in the standard format, and how large areas are. */
	cpuid_query(&table, 0xd, 5, 0, 0, 0xe7, 0, r);
	assert_true(r[0] == 64 && r[1] == (amd ? 832 : 1088) && !r[2] && !r[3]);
	cpuid_query(&table, 0xd, 6, 0, 0, 0xe7, 0, r);
	assert_true(r[0] == 512 && r[1] == (amd ? 896 : 1152) && !r[2] && !r[3]);
	cpuid_query(&table, 0xd, 7, 0, 0, 0xe7, 0, r);
	assert_true(r[0] == 1024 && r[1] == (amd ? 1408 : 1664) && !r[2] && !r[3]);
	cpuid_query(&table, 0xd, 0, 0, 0, 0xe7, 0, r);
	assert_true(r[0] == 0xe7 && r[1] == (amd ? 2432 : 2688) && r[2] == r[1] && !r[3]);
	cpuid_query(&table, 0xd, 0, 0, 0, 7, 0, r);
	assert_true(r[1] == 832 && r[2] == (amd ? 2432 : 2688));
	cpuid_query(&table, 0xd, 1, 0, 0, 0xe7, 0, r);
	assert_int_equal(r[1], 2432); /* compacted */
	cpuid_query(&table, 0xd, 1, 0, 0, 7, 0, r);
	assert_int_equal(r[1], 832);

	/* Of all that the host has, nothing more. */
	assert_true(try_model("host"));
	__cpuid_count(7, 0, a, b, c, d);
	assert_int_equal(query(7, 0)[1] & ~b & 0xd0230000, 0);
	assert_int_equal(query(7, 0)[2] & ~c & 0x5842, 0);
	assert_int_equal(query(7, 0)[3] & ~d & BIT(8), 0);
	assert_int_equal(query(7, 0)[3] & BIT(23), 0); /* AVX512_FP16 */
	/* All goes with the foundation. */
	less[X86_FEATURE_AVX512F / 64] &= ~BIT(X86_FEATURE_AVX512F % 64);
	assert_int_equal(build("host", 1, 2500000, less, NULL), 0);
	assert_int_equal(table.xcr0_mask, 7);
	assert_int_equal(query(7, 0)[1] & 0xd0230000, 0);
	assert_int_equal(query(7, 0)[2] & 0x5842, 0);
	assert_int_equal(query(7, 0)[3] & BIT(8), 0);
	assert_int_equal(query(7, 1)[0] & BIT(5), 0);
	cpuid_query(&table, 0xd, 0, 0, 0, 7, 0, r);
	assert_true(r[0] == 7 && r[1] == 832 && r[2] == 832);
	assert_true(zero(query(0xd, 5)) && zero(query(0xd, 6)) && zero(query(0xd, 7)));
}

static void test_host(void **state)
{
	u32 a, b, c, d;

	assert_true(try_model("host"));
	check_bits();
	/* Nothing that the host would have to execute and cannot. */
	__cpuid_count(7, 0, a, b, c, d);
	assert_int_equal(query(7, 0)[1] & BIT(29) & ~b, 0);
	assert_int_equal(query(7, 0)[1] & BIT(5) & ~b, 0);
	__cpuid(1, a, b, c, d);
	assert_int_equal(query(1, 0)[0], a);
	assert_int_equal(table.signature, a);
	assert_int_equal(query(1, 0)[2] & (BIT(25) | BIT(30) | BIT(28) | BIT(12)) & ~c, 0);
	/* PKU, TSX, MONITOR, CET stay hidden; VMX where the host's maker has SVM. */
	assert_int_equal(query(7, 0)[1] & (BIT(4) | BIT(11)), 0);
	assert_int_equal(query(7, 0)[2] & (BIT(3) | BIT(7)), 0);
	assert_int_equal(query(1, 0)[2] & (BIT(3) | (host_is_amd() ? BIT(5) : 0)), 0);
	assert_true(zero(query(5, 0)));
	assert_true(zero(query(0xa, 0)));
	__cpuid(0x80000002, a, b, c, d);
	assert_int_equal(query(0x80000002, 0)[0], a);
}

static void test_prerequisites(void **state)
{
	u64 less[4] = { ~0ull, ~0ull, ~0ull, ~0ull };

	less[X86_FEATURE_XSAVE / 64] &= ~BIT(X86_FEATURE_XSAVE % 64);
	assert_int_equal(build("host", 1, 2500000, less, NULL), 0);
	assert_false(cpuid_has(&table, X86_FEATURE_AVX));
	assert_false(cpuid_has(&table, X86_FEATURE_AVX2));
	assert_false(cpuid_has(&table, X86_FEATURE_FMA));
	assert_false(cpuid_has(&table, X86_FEATURE_VAES));
	assert_false(cpuid_has(&table, X86_FEATURE_XSAVES));
	assert_int_equal(table.xcr0_mask, 0);
	check_bits();
}

static void test_identity(void **state)
{
	char brand[49] = { 0 }, vendor[13] = { 0 };

	assert_true(try_model("v1"));
	st32(vendor, query(0, 0)[1]);
	st32(vendor + 4, query(0, 0)[3]);
	st32(vendor + 8, query(0, 0)[2]);
	assert_string_equal(vendor, host_vendor());
	assert_int_equal(query(0, 0)[0], 0x1f);
	assert_int_equal(query(1, 0)[0], host_is_amd() ? 0x660f51 : 0x306c3);
	assert_int_equal(table.signature, query(1, 0)[0]);
	for (u32 i = 0; i < 12; i++)
		st32(brand + 4 * i, query(0x80000002 + i / 4, 0)[i % 4]);
	assert_string_equal(brand, "bothy vCPU (v1)");
	assert_in_range(table.maxphyaddr, 36, 48);
	assert_int_equal(query(0x80000008, 0)[0], table.maxphyaddr | 48 << 8);
	if (host_is_amd()) {
		assert_int_equal(query(0x80000001, 0)[0], table.signature);
		assert_int_equal(query(0x80000000, 0)[1], query(0, 0)[1]);
		/* Leaf 1's bits again, without SEP's place, which SYSCALL has. */
		assert_int_equal(query(0x80000001, 0)[3] & 0x3ff, query(1, 0)[3] & 0x3ff);
		assert_int_equal(query(0x80000001, 0)[2] & BIT(22), 0); /* no topology extensions */
	} else {
		assert_int_equal(query(0x80000000, 0)[0], 0x80000008);
	}
}

static void test_dynamic(void **state)
{
	u32 r[4];

	u64 no_avx512[4] = { ~0ull, ~0ull, ~0ull, ~0ull };
	no_avx512[X86_FEATURE_AVX512F / 64] &= ~BIT(X86_FEATURE_AVX512F % 64);
	assert_int_equal(build("host", 3, 2500000, no_avx512, NULL), 0);
	cpuid_query(&table, 1, 0, 0x102, 0, 1, 0, r);
	assert_int_equal(r[1] >> 24, 2);
	assert_int_equal(r[1] >> 8 & 0xff, 8);
	assert_int_equal(r[1] >> 16 & 0xff, host_is_amd() ? 3 : 4);
	assert_int_equal(r[2] >> 27 & 1, 0);
	assert_int_equal(r[3] >> 28 & 1, 1);
	cpuid_query(&table, 1, 0, 2, CR4_OSXSAVE, 1, 0, r);
	assert_int_equal(r[2] >> 27 & 1, 1);
	/* The subleaf is ignored where there is none. */
	u32 same[4];
	cpuid_query(&table, 1, 77, 2, CR4_OSXSAVE, 1, 0, same);
	assert_memory_equal(r, same, sizeof(r));

	if (table.xcr0_mask & XFEATURE_AVX) {
		cpuid_query(&table, 0xd, 0, 0, 0, 1, 0, r);
		assert_true(r[0] == 7 && r[1] == 576 && r[2] == 832 && r[3] == 0);
		cpuid_query(&table, 0xd, 0, 0, 0, 7, 0, r);
		assert_int_equal(r[1], 832);
		cpuid_query(&table, 0xd, 1, 0, 0, 7, 0, r);
		assert_int_equal(r[1], 832);
		cpuid_query(&table, 0xd, 2, 0, 0, 7, 0, r);
		assert_true(r[0] == 256 && r[1] == 576 && r[2] == 0 && r[3] == 0);
		assert_true(zero(query(0xd, 3)) && zero(query(0xd, 62)));
	}
	assert_int_equal(build("host", 1, 2500000, everything, NULL), 0);
	assert_int_equal(query(1, 0)[3] >> 28 & 1, 0);
}

static void test_topology(void **state)
{
	static const u32 bits[][2] = {
		{ 1, 0 }, { 2, 1 }, { 3, 2 }, { 4, 2 }, { 5, 3 }, { 33, 6 }, { 64, 6 }
	};
	u32 r[4];

	for (size_t i = 0; i < ARRAY_SIZE(bits); i++) {
		assert_int_equal(build("v1", bits[i][0], 2500000, everything, NULL), 0);
		for (u32 leaf = 0xb; leaf <= 0x1f; leaf += 0x14) {
			cpuid_query(&table, leaf, 0, 5, 0, 1, 0, r);
			assert_true(r[0] == 0 && r[1] == 1 && r[2] == 0x100 && r[3] == 5);
			cpuid_query(&table, leaf, 1, 5, 0, 1, 0, r);
			assert_true(r[0] == bits[i][1] && r[1] == bits[i][0] && r[2] == 0x201 && r[3] == 5);
			cpuid_query(&table, leaf, 0x102, 5, 0, 1, 0, r);
			assert_true(r[0] == 0 && r[1] == 0 && r[2] == 2 && r[3] == 5);
		}
		if (host_is_amd()) {
			assert_int_equal(query(0x80000008, 0)[2], (bits[i][0] - 1) | bits[i][1] << 12);
			assert_int_equal(query(0x80000001, 0)[2] >> 1 & 1, bits[i][0] > 1);
			assert_true(zero(query(4, 0)));
		} else {
			assert_int_equal(query(4, 0)[0] >> 26, (1u << bits[i][1]) - 1);
			assert_int_equal(query(4, 3)[0] >> 14 & 0xfff, (1u << bits[i][1]) - 1);
			assert_true(zero(query(4, 4)));
		}
	}
}

static void test_time_leaves(void **state)
{
	static const u64 khz[] = { 800000,  1000000, 1999999, 2596122, 2400000,
				   2494140, 3791234, 4294000, 5123456 };

	for (size_t i = 0; i < ARRAY_SIZE(khz); i++) {
		const u32 *r;
		u32 linux_khz;

		assert_int_equal(build("v1", 1, khz[i], everything, NULL), 0);
		r = query(0x15, 0);
		assert_int_equal(r[2], 1000000000);
		assert_true(r[0] > 0 && r[1] > 0);
		/* In the arithmetic of guests: 32 bits, from kHz. */
		linux_khz = r[2] / 1000 * r[1] / r[0];
		assert_in_range(linux_khz, khz[i] - 1 - khz[i] / 1000000, khz[i] + 1 + khz[i] / 1000000);
		assert_int_equal(query(0x40000010, 0)[0], khz[i]);
		assert_int_equal(query(0x40000010, 0)[1], 1000000);
	}
	assert_int_equal(query(6, 0)[0], 4);
	assert_int_equal(query(0x80000007, 0)[3], 0x100);
}

static void test_hypervisor(void **state)
{
	assert_true(try_model("v1"));
	assert_true(query(1, 0)[2] >> 31);
	assert_int_equal(query(0x40000000, 0)[0], 0x40000010);
	assert_int_equal(query(0x40000000, 0)[1], 0x4b4d564b);
	assert_int_equal(query(0x40000000, 0)[2], 0x564b4d56);
	assert_int_equal(query(0x40000000, 0)[3], 0x4d);
	assert_int_equal(query(0x40000001, 0)[0], 0x01002aeb);
	assert_true(zero(query(0x40000002, 0)));
	assert_true(zero(query(0x40000011, 0)));
}

static void test_out_of_range(void **state)
{
	static const u32 leaves[] = {
		3, 0x12, 0x14, 0x20, 0x7fffffff, 0x80000022, 0x8fffffff, 0xc0000000, ~0u
	};

	assert_true(try_model("host"));
	assert_true(table.nr <= CPUID_MAX_ENTRIES);
	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		for (u32 sub = 0; sub < 70; sub++)
			assert_true(zero(query(leaves[i], sub)));
	assert_true(zero(query(7, 2)));
	assert_int_equal(query(7, 0)[0], 1);
	/* No two entries answer the same question. */
	for (u32 i = 0; i < table.nr; i++)
		for (u32 k = 0; k < i; k++)
			assert_false(table.entry[i].leaf == table.entry[k].leaf &&
				     table.entry[i].subleaf == table.entry[k].subleaf);
}

/* ---- reset ---- */

static void check_common(const struct x86_state *s)
{
	assert_true(s->rip == 0xfff0 && s->rflags == 2);
	assert_true(s->seg[SEG_CS].sel == 0xf000 && s->seg[SEG_CS].base == 0xffff0000);
	assert_true(s->seg[SEG_CS].limit == 0xffff && s->seg[SEG_CS].attr == 0x9b);
	assert_true(s->seg[SEG_SS].sel == 0 && s->seg[SEG_SS].base == 0 && s->seg[SEG_SS].attr == 0x93);
	assert_true(s->tr.attr == 0x8b && s->ldtr.attr == 0x82 && s->tr.limit == 0xffff);
	assert_true(s->gdtr.limit == 0xffff && s->idtr.limit == 0xffff && s->gdtr.base == 0);
	assert_true(s->gpr[R_DX] == 0x306c3 && s->gpr[R_AX] == 0 && s->gpr[R_SP] == 0);
	assert_true(s->cr2 == 0 && s->cr3 == 0 && s->cr4 == 0 && s->efer == 0);
	assert_true(s->dr6 == 0xffff0ff0 && s->dr7 == 0x400 && s->dr[3] == 0);
	assert_false(s->nmi_pending || s->nmi_blocked || s->exc_pending || s->sti_shadow || s->movss_shadow);
}

static void test_reset(void **state)
{
	struct x86_state s;

	memset(&s, 0xff, sizeof(s));
	x86_state_reset(&s, false, true, 0x306c3);
	assert_int_equal(s.virt.tsc_ratio, BIT(32));
	assert_null(s.virt.nested);
	check_common(&s);
	assert_true(s.cr0 == 0x60000010);
	assert_true(s.pat == 0x0007040600070406 && s.xcr0 == 1 && s.mtrr_def_type == 0);
	assert_true(ld16(s.xsave) == 0x40 && ld16(s.xsave + 2) == 0 && s.xsave[4] == 0xff);
	assert_true(ld32(s.xsave + 24) == 0x1f80 && s.xsave[32] == 0);
	assert_true(s.activity == X86_ACTIVE && s.tsc_offset == 0 && s.star == 0);
	x86_state_reset(&s, false, false, 0);
	assert_int_equal(s.activity, X86_WAIT_SIPI);
}

static void test_init(void **state)
{
	struct x86_state s;

	memset(&s, 0x5a, sizeof(s));
	s.cr0 = CR0_PG | CR0_PE | CR0_WP | CR0_NW;
	s.virt = (struct x86_virt){ .vm_hsave_pa = 0x1000, .nested = &s, .nested_size = 1 };
	x86_state_reset(&s, true, false, 0x306c3);
	/* INIT ends what the processor was in, and keeps MSRs. */
	assert_null(s.virt.nested);
	assert_int_equal(s.virt.nested_size, 0);
	assert_int_equal(s.virt.vm_hsave_pa, 0x1000);
	check_common(&s);
	/* CD and NW stay, ET is set. */
	assert_true(s.cr0 == (CR0_NW | CR0_ET));
	assert_true(s.pat == 0x5a5a5a5a5a5a5a5a && s.xcr0 == 0x5a5a5a5a5a5a5a5a &&
		    s.lstar == 0x5a5a5a5a5a5a5a5a);
	assert_true(s.tsc_offset == 0x5a5a5a5a5a5a5a5a && s.mtrr_base[7] == 0x5a5a5a5a5a5a5a5a);
	assert_true(s.xsave[0] == 0x5a && s.xsave[X86_XSAVE_SIZE - 1] == 0x5a);
	assert_int_equal(s.activity, X86_WAIT_SIPI);
	s.cr0 = CR0_CD;
	x86_state_reset(&s, true, true, 0x306c3);
	assert_true(s.cr0 == (CR0_CD | CR0_ET) && s.activity == X86_ACTIVE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_models),     cmocka_unit_test(test_nested),
		cmocka_unit_test(test_levels),     cmocka_unit_test(test_avx512),
		cmocka_unit_test(test_host),       cmocka_unit_test(test_prerequisites),
		cmocka_unit_test(test_identity),   cmocka_unit_test(test_dynamic),
		cmocka_unit_test(test_topology),   cmocka_unit_test(test_time_leaves),
		cmocka_unit_test(test_hypervisor), cmocka_unit_test(test_out_of_range),
		cmocka_unit_test(test_reset),      cmocka_unit_test(test_init),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
