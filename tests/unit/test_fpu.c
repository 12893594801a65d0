/* The vector and x87 state in C: control bits, x87 pointers and environment, XSAVE and its kin, XCR0, and the vector
 * instructions that are interpreted. What user mode can try on the host is compared with it in test_thunk.c.
 */
#include "thunkcpu.h"

#define RIP_OF_GUEST 0x123456789000ull

/* In every class the control bits decide first. */
static void test_off(void **state)
{
	static const struct {
		const char *bytes;
		unsigned len;
		u64 cr0, cr4; /* changed bits */
		u64 xcr0;
		int vector;
	} cases[] = {
		{ "\x0f\x58\xc1", 3, 0, 0, 0, -1 },
		{ "\x0f\x58\xc1", 3, CR0_TS, 0, 0, EXC_NM },
		{ "\x0f\x58\xc1", 3, CR0_EM, 0, 0, EXC_UD },
		{ "\x0f\x58\xc1", 3, CR0_EM | CR0_TS, 0, 0, EXC_UD },
		{ "\x0f\x58\xc1", 3, 0, CR4_OSFXSR, 0, EXC_UD },
		{ "\xc5\xf8\x58\xc1", 4, 0, 0, 0, -1 },
		{ "\xc5\xf8\x58\xc1", 4, CR0_EM, 0, 0, -1 },
		{ "\xc5\xf8\x58\xc1", 4, CR0_TS, 0, 0, EXC_NM },
		{ "\xc5\xf8\x58\xc1", 4, 0, CR4_OSXSAVE, 0, EXC_UD },
		{ "\xc5\xf8\x58\xc1", 4, 0, 0, XFEATURE_AVX, EXC_UD },
		{ "\x0f\xfc\xc1", 3, 0, 0, 0, -1 },
		{ "\x0f\xfc\xc1", 3, CR0_EM, 0, 0, EXC_UD },
		{ "\x0f\xfc\xc1", 3, CR0_TS, 0, 0, EXC_NM },
		{ "\x0f\xfc\xc1", 3, 0, CR4_OSFXSR, 0, -1 },
		{ "\xd9\xe8", 2, 0, 0, 0, -1 },
		{ "\xd9\xe8", 2, CR0_EM, 0, 0, EXC_NM },
		{ "\xd9\xe8", 2, CR0_TS, 0, 0, EXC_NM },
		{ "\x9b", 1, CR0_TS, 0, 0, EXC_NM },
		{ "\x9b", 1, CR0_TS | CR0_MP, 0, 0, -1 },
		{ "\xdb\xe3", 2, CR0_TS, 0, 0, EXC_NM },
		/* ANDN: no vector state */
		{ "\xc4\xe2\x78\xf2\xc1", 5, CR0_TS | CR0_EM, CR4_OSXSAVE, 0, -1 },
	};
	struct insn i;

	take_signals();
	for (unsigned k = 0; k < ARRAY_SIZE(cases); k++) {
		if (cases[k].bytes[0] == '\xc5' && !has(X86_FEATURE_AVX))
			continue;
		decode(&i, cases[k].bytes, cases[k].len, MODE_64);
		random_image(cpu.xsave);
		st32(cpu.xsave + FPU_MXCSR, FPU_MXCSR_INIT);
		st32(cpu.xsave + FPU_FCW, FPU_FCW_INIT);
		fpu_image_loaded(&cpu);
		cpu.cr0 ^= cases[k].cr0;
		cpu.cr4 ^= cases[k].cr4;
		cpu.xcr0 ^= cases[k].xcr0;
		fpu_mode_changed(&cpu);
		if (run_engine(&i) != cases[k].vector)
			fail_msg("case %u: fault %d", k, cpu.exc.vector);
		cpu.cr0 ^= cases[k].cr0;
		cpu.cr4 ^= cases[k].cr4;
		cpu.xcr0 ^= cases[k].xcr0;
		fpu_mode_changed(&cpu);
	}
	/* Unmasked SSE exceptions without OSXMMEXCPT: #UD. 1 / 0 */
	decode(&i, "\xf3\x0f\x5e\xc1", 4, MODE_64);
	random_image(cpu.xsave);
	st32(cpu.xsave + FPU_MXCSR, 0);
	st32(cpu.xsave + FPU_XMM, 0x3f800000);
	st32(cpu.xsave + FPU_XMM + 16, 0);
	st64(cpu.xsave + FPU_XSTATE_BV, thunkcpu_components);
	fpu_image_loaded(&cpu);
	assert_int_equal(run_engine(&i), EXC_XM);
	assert_int_equal(ld32(cpu.xsave + FPU_MXCSR), 4); /* ZE, from the hardware */
	cpu.cr4 ^= CR4_OSXMMEXCPT;
	assert_int_equal(run_engine(&i), EXC_UD);
	cpu.cr4 ^= CR4_OSXMMEXCPT;
}

/* The x87 pointers are the guest's, never the host's. */
static void test_x87_pointers(void **state)
{
	struct insn i;
	u8 *p = data + 128;

	random_image(cpu.xsave);
	st32(cpu.xsave + FPU_FCW, FPU_FCW_INIT);
	fpu_image_loaded(&cpu);
	map_tlb(true);
	cpu.gpr[RIPB] = RIP_OF_GUEST;
	cpu.gpr[R_BX] = (u64)(uintptr_t)data;
	DECODE(&i, MODE_64, "\xd8\x03"); /* FADD dword [rbx] */
	i.off = 0x10;
	assert_int_equal(run_engine(&i), -1);
	assert_true(ld64(cpu.xsave + FPU_FIP) == RIP_OF_GUEST + 0x10);
	assert_true(ld64(cpu.xsave + FPU_FDP) == cpu.gpr[R_BX]);
	assert_int_equal(ld16(cpu.xsave + FPU_FOP), 0x003);
	/* FNSTCW does not change them, FLD1 not the data pointer. */
	DECODE(&i, MODE_64, "\xd9\x3b");
	i.off = 0x20;
	assert_int_equal(run_engine(&i), -1);
	assert_true(ld64(cpu.xsave + FPU_FIP) == RIP_OF_GUEST + 0x10);
	DECODE(&i, MODE_64, "\xd9\xe8");
	i.off = 0x30;
	assert_int_equal(run_engine(&i), -1);
	assert_true(ld64(cpu.xsave + FPU_FIP) == RIP_OF_GUEST + 0x30);
	assert_true(ld64(cpu.xsave + FPU_FDP) == cpu.gpr[R_BX]);
	assert_int_equal(ld16(cpu.xsave + FPU_FOP), 0x1e8);
	/* FNSTENV: the low halves; FXSAVE64: all of them. */
	cpu.gpr[R_BX] = (u64)(uintptr_t)p;
	DECODE(&i, MODE_64, "\xd9\x33");
	assert_int_equal(run_engine(&i), -1);
	assert_int_equal(ld32(p + 12), (u32)(RIP_OF_GUEST + 0x30));
	assert_int_equal(ld32(p + 16) >> 16, 0x1e8);
	assert_int_equal(ld32(p + 20), (u32)(uintptr_t)data);
	DECODE(&i, MODE_64, "\x48\x0f\xae\x03");
	assert_int_equal(run_engine(&i), -1);
	assert_true(ld64(p + FPU_FIP) == RIP_OF_GUEST + 0x30);
	assert_true(ld64(p + FPU_FDP) == (u64)(uintptr_t)data);
	DECODE(&i, MODE_64, "\xdb\xe3"); /* FNINIT */
	assert_int_equal(run_engine(&i), -1);
	assert_true(!ld64(cpu.xsave + FPU_FIP) && !ld64(cpu.xsave + FPU_FDP) && !ld16(cpu.xsave + FPU_FOP));
}

/* FNSTENV's four layouts, and FLDENV reads what it wrote. */
static void test_env_layouts(void **state)
{
	struct insn st, ld;
	u8 *p = data + 256, image[FPU_XMM];

	for (unsigned k = 0; k < 4; k++) {
		bool small = k & 1, real = k & 2;
		unsigned step = small ? 2 : 4;

		random_image(cpu.xsave);
		st16(cpu.xsave + FPU_FCW, FPU_FCW_INIT);
		st16(cpu.xsave + FPU_FSW, 0x3800);
		st16(cpu.xsave + FPU_FOP, 0x5a5);
		st64(cpu.xsave + FPU_FIP, 0x1234);
		st64(cpu.xsave + FPU_FDP, 0x9876);
		st64(cpu.xsave + FPU_XSTATE_BV, thunkcpu_components);
		fpu_image_loaded(&cpu);
		cpu.x87_fcs = 0x3000;
		cpu.x87_fds = 0x4000;
		memcpy(image, cpu.xsave, sizeof(image));
		if (real)
			cpu.cr0 &= ~CR0_PE;
		cpu.key = MODE_32;
		cpu.gpr[R_BX] = (u64)(uintptr_t)p;
		if (small) {
			DECODE(&st, MODE_32, "\x66\xd9\x33");
			DECODE(&ld, MODE_32, "\x66\xd9\x23");
		} else {
			DECODE(&st, MODE_32, "\xd9\x33");
			DECODE(&ld, MODE_32, "\xd9\x23");
		}
		memset(p, 0xcc, 32);
		assert_int_equal(run_engine(&st), -1);
		assert_int_equal(p[small ? 14 : 28], 0xcc);
		assert_int_equal(ld16(p), FPU_FCW_INIT);
		assert_int_equal(ld16(p + step), 0x3800);
		if (real) {
			assert_int_equal(ld16(p + 3 * step), 0x1234);
			assert_int_equal(ld16(p + 4 * step), 0x3000 | 0x5a5); /* 31234H >> 16 << 12 */
			assert_int_equal(ld16(p + 5 * step), 0x9876);
			assert_int_equal(ld16(p + 6 * step), 0x4000);
		} else {
			assert_int_equal(ld16(p + 3 * step), 0x1234);
			assert_int_equal(ld16(p + 4 * step), 0x3000);
			assert_int_equal(ld16(p + 5 * step), 0x9876);
			assert_int_equal(ld16(p + 6 * step), 0x4000);
			if (!small)
				assert_int_equal(ld16(p + 18), 0x5a5);
		}
		/* The same tags, status and control word again. */
		assert_int_equal(run_engine(&ld), -1);
		assert_memory_equal(cpu.xsave, image, FPU_FOP);
		if (!real)
			assert_true(cpu.x87_fcs == 0x3000 && cpu.x87_fds == 0x4000);
		assert_true(ld64(cpu.xsave + FPU_FIP) == (real ? 0x31234 : 0x1234));
		cpu.cr0 |= CR0_PE;
		cpu.key = MODE_64;
	}
}

/* A gather that meets an absent page: what came before stays, with its mask clear, and it can begin again. */
static void test_gather_fault(void **state)
{
	struct insn i;
	u64 second = (u64)(uintptr_t)data + PAGE;

	if (!has(X86_FEATURE_AVX2))
		skip();
	DECODE(&i, MODE_64, "\xc4\xe2\x69\x90\x0c\x83"); /* VPGATHERDD xmm1, [rbx + xmm0 * 4], xmm2 */
	random_image(cpu.xsave);
	st64(cpu.xsave + FPU_XSTATE_BV, thunkcpu_components);
	for (unsigned k = 0; k < 4; k++) {
		st32(cpu.xsave + FPU_XMM + 4 * k, k == 2 ? 1024 : k);
		st32(cpu.xsave + FPU_XMM + 16 + 4 * k, 0x11111111);
		st32(cpu.xsave + FPU_XMM + 32 + 4 * k, k == 1 ? 0 : 0x80000000);
		st32(data + 4 * k, 0xaaaa0000 + k);
	}
	st32(data + PAGE, 0xbbbb0000);
	fpu_image_loaded(&cpu);
	map_tlb(true);
	thunkcpu_table.e[second >> 12 & (TLB_SIZE - 1)].r = TLB_NEVER;
	hole = second;
	cpu.gpr[R_BX] = (u64)(uintptr_t)data;
	assert_int_equal(run_engine(&i), EXC_PF);
	assert_int_equal(ld32(cpu.xsave + FPU_XMM + 16), 0xaaaa0000);
	assert_int_equal(ld32(cpu.xsave + FPU_XMM + 32), 0);
	assert_int_equal(ld32(cpu.xsave + FPU_XMM + 32 + 8), 0x80000000);
	hole = 0;
	map_tlb(true);
	assert_int_equal(run_engine(&i), -1);
	assert_int_equal(ld32(cpu.xsave + FPU_XMM + 16 + 4), 0x11111111);
	assert_int_equal(ld32(cpu.xsave + FPU_XMM + 16 + 8), 0xbbbb0000);
	assert_int_equal(ld32(cpu.xsave + FPU_XMM + 16 + 12), 0xaaaa0003);
	assert_int_equal(ld32(cpu.xsave + FPU_XMM + 32 + 12), 0);
	/* Destination, index and mask must differ. */
	DECODE(&i, MODE_64, "\xc4\xe2\x69\x90\x14\x83");
	assert_int_equal(run_engine(&i), EXC_UD);
}

static void test_xcr(void **state)
{
	struct insn get, set;

	DECODE(&get, MODE_64, "\x0f\x01\xd0");
	DECODE(&set, MODE_64, "\x0f\x01\xd1");
	for (unsigned v = 0; v < 16; v++) {
		bool ok = (v & 1) && (v & 6) != 4 && !(v & ~cpu.vcpu->vm->cpuid.xcr0_mask);

		cpu.gpr[R_AX] = v;
		cpu.gpr[R_DX] = cpu.gpr[R_CX] = 0;
		assert_int_equal(run_engine(&set), ok ? -1 : EXC_GP);
		if (ok)
			assert_int_equal(cpu.xcr0, v);
	}
	cpu.gpr[R_AX] = cpu.vcpu->vm->cpuid.xcr0_mask;
	cpu.gpr[R_CX] = 1;
	assert_int_equal(run_engine(&set), EXC_GP);
	cpu.gpr[R_CX] = 0;
	cpu.cpl = 3;
	assert_int_equal(run_engine(&set), EXC_GP);
	cpu.cpl = 0;
	assert_int_equal(run_engine(&set), -1);
	assert_int_equal(run_engine(&get), -1);
	assert_int_equal(cpu.gpr[R_AX], cpu.vcpu->vm->cpuid.xcr0_mask);
	cpu.gpr[R_CX] = 2;
	assert_int_equal(run_engine(&get), EXC_GP);
	/* XINUSE */
	random_image(cpu.xsave);
	st64(cpu.xsave + FPU_XSTATE_BV, XFEATURE_SSE);
	st32(cpu.xsave + FPU_MXCSR, FPU_MXCSR_INIT);
	fpu_image_loaded(&cpu);
	cpu.gpr[R_CX] = 1;
	assert_int_equal(run_engine(&get), -1);
	assert_int_equal(cpu.gpr[R_AX], XFEATURE_SSE);
	cpu.cr4 &= ~CR4_OSXSAVE;
	fpu_mode_changed(&cpu);
	assert_int_equal(run_engine(&get), EXC_UD);
	assert_int_equal(run_engine(&set), EXC_UD);
	cpu.cr4 |= CR4_OSXSAVE;
	fpu_mode_changed(&cpu);
}

/* XSAVES and XRSTORS, which user mode cannot try: compacted form only, CPL 0 only; else as XSAVEC and XRSTOR. */
static void test_xsaves(void **state)
{
	struct insn saves, savec, rstors;
	u8 *p = data + 512, *q = data + 2048, image[X86_XSAVE_SIZE];

	thunkcpu_features[X86_FEATURE_XSAVES / 64] |= BIT(X86_FEATURE_XSAVES % 64);
	thunkcpu_features[X86_FEATURE_XSAVEC / 64] |= BIT(X86_FEATURE_XSAVEC % 64);
	DECODE(&saves, MODE_64, "\x48\x0f\xc7\x2b");
	DECODE(&savec, MODE_64, "\x48\x0f\xc7\x21");
	DECODE(&rstors, MODE_64, "\x48\x0f\xc7\x1b");
	random_image(cpu.xsave);
	st64(cpu.xsave + FPU_XSTATE_BV, XFEATURE_SSE);
	fpu_image_loaded(&cpu);
	memset(data, 0x5a, 2 * PAGE);
	memset(p + FPU_XSTATE_BV, 0, 64); /* software's part: the restore asks for zeros */
	memset(q + FPU_XSTATE_BV, 0, 64);
	map_tlb(true);
	cpu.gpr[R_BX] = (u64)(uintptr_t)p;
	cpu.gpr[R_CX] = (u64)(uintptr_t)q;
	cpu.gpr[R_AX] = ~0ull;
	cpu.gpr[R_DX] = ~0ull;
	memcpy(image, cpu.xsave, sizeof(image));
	assert_int_equal(run_engine(&saves), -1);
	assert_int_equal(run_engine(&savec), -1);
	assert_memory_equal(p, q, 1024);
	assert_true(ld64(p + FPU_XSTATE_BV) == XFEATURE_SSE);
	assert_true(ld64(p + FPU_XCOMP_BV) == (BIT(63) | cpu.xcr0));
	assert_int_equal(p[0], 0x5a); /* x87 is in its initial state: not written */
	assert_int_equal(p[FPU_YMMH], 0x5a);
	random_image(cpu.xsave);
	fpu_image_loaded(&cpu);
	assert_int_equal(run_engine(&rstors), -1);
	assert_true(ld64(cpu.xsave + FPU_XSTATE_BV) == XFEATURE_SSE);
	assert_memory_equal(cpu.xsave + FPU_XMM, image + FPU_XMM, 256);
	assert_int_equal(ld32(cpu.xsave + FPU_MXCSR), ld32(image + FPU_MXCSR));
	assert_int_equal(ld16(cpu.xsave + FPU_FCW), FPU_FCW_INIT);
	/* Standard form, CPL 3, misaligned, TS, no OSXSAVE. */
	st64(p + FPU_XCOMP_BV, 0);
	assert_int_equal(run_engine(&rstors), EXC_GP);
	st64(p + FPU_XCOMP_BV, BIT(63) | cpu.xcr0);
	cpu.cpl = 3;
	assert_int_equal(run_engine(&rstors), EXC_GP);
	assert_int_equal(run_engine(&saves), EXC_GP);
	cpu.cpl = 0;
	cpu.gpr[R_BX] += 32;
	assert_int_equal(run_engine(&saves), EXC_GP);
	cpu.gpr[R_BX] -= 32;
	cpu.cr0 |= CR0_TS;
	fpu_mode_changed(&cpu);
	assert_int_equal(run_engine(&saves), EXC_NM);
	cpu.cr0 &= ~CR0_TS;
	cpu.cr4 &= ~CR4_OSXSAVE;
	fpu_mode_changed(&cpu);
	assert_int_equal(run_engine(&rstors), EXC_UD);
	cpu.cr4 |= CR4_OSXSAVE;
	fpu_mode_changed(&cpu);
}

/* Outside 64-bit mode registers 8 to 15 are neither saved nor changed; the pointers have selectors. */
static void test_narrow(void **state)
{
	struct insn i;
	u8 *p = data + 512, image[X86_XSAVE_SIZE];

	random_image(cpu.xsave);
	st16(cpu.xsave + FPU_FCW, FPU_FCW_INIT);
	st64(cpu.xsave + FPU_XSTATE_BV, thunkcpu_components);
	fpu_image_loaded(&cpu);
	memcpy(image, cpu.xsave, sizeof(image));
	cpu.key = MODE_32;
	cpu.x87_fcs = 0x10;
	cpu.x87_fds = 0x18;
	memset(data, 0x5a, 2 * PAGE);
	map_tlb(true);
	cpu.gpr[R_BX] = (u64)(uintptr_t)p;
	DECODE(&i, MODE_32, "\x0f\xae\x03"); /* FXSAVE [ebx] */
	assert_int_equal(run_engine(&i), -1);
	assert_memory_equal(p + FPU_XMM, image + FPU_XMM, 8 * 16);
	assert_int_equal(p[FPU_XMM + 8 * 16], 0x5a);
	assert_int_equal(ld16(p + FPU_FIP + 4), 0x10);
	assert_int_equal(ld16(p + FPU_FDP + 4), 0x18);
	memset(p + FPU_XMM, 0x77, 256);
	st16(p + FPU_FIP + 4, 0x20);
	DECODE(&i, MODE_32, "\x0f\xae\x0b"); /* FXRSTOR */
	assert_int_equal(run_engine(&i), -1);
	assert_int_equal(cpu.xsave[FPU_XMM], 0x77);
	assert_memory_equal(cpu.xsave + FPU_XMM + 128, image + FPU_XMM + 128, 128);
	assert_int_equal(cpu.x87_fcs, 0x20);
	assert_true(ld64(cpu.xsave + FPU_FIP) == 0x1000);
	st32(p + FPU_MXCSR, 0x10000);
	assert_int_equal(run_engine(&i), EXC_GP);
	if (has(X86_FEATURE_AVX)) {
		DECODE(&i, MODE_32, "\xc5\xfc\x77"); /* VZEROALL */
		assert_int_equal(run_engine(&i), -1);
		for (unsigned k = 0; k < 128; k++)
			assert_false(cpu.xsave[FPU_XMM + k] | cpu.xsave[FPU_YMMH + k]);
		assert_memory_equal(cpu.xsave + FPU_XMM + 128, image + FPU_XMM + 128, 128);
		assert_memory_equal(cpu.xsave + FPU_YMMH + 128, image + FPU_YMMH + 128, 128);
	}
	cpu.key = MODE_64;
}

/* The state of AVX-512 as guests of both makers see it, whatever layout the host has: gates, XCR0, XSAVE areas. */
static void test_avx512(void **state)
{
	static const struct x86_xsave_layout layouts[] = { { 832, 896, 1408, 2432 },
							   { 1088, 1152, 1664, 2688 } };
	struct cpuid_table *table = &cpu.vcpu->vm->cpuid;
	const u64 old_mask = table->xcr0_mask, old_xcr0 = cpu.xcr0;
	struct insn save, restore, savec, set, evex;
	static u8 image[X86_XSAVE_SIZE], back[X86_XSAVE_SIZE];
	u8 *p = data + 512;

	if (!fpu_has_avx512())
		skip();
	thunkcpu_features[X86_FEATURE_XSAVEC / 64] |= BIT(X86_FEATURE_XSAVEC % 64);
	DECODE(&save, MODE_64, "\x48\x0f\xae\x23");
	DECODE(&restore, MODE_64, "\x48\x0f\xae\x2b");
	DECODE(&savec, MODE_64, "\x48\x0f\xc7\x23");
	DECODE(&set, MODE_64, "\x0f\x01\xd1");
	thunkcpu_features[X86_FEATURE_AVX512F / 64] |= BIT(X86_FEATURE_AVX512F % 64);
	DECODE(&evex, MODE_64, "\x62\xf1\x7d\x48\xfe\xc1"); /* VPADDD zmm0, zmm0, zmm1 */
	thunkcpu_features[X86_FEATURE_AVX512F / 64] &= ~BIT(X86_FEATURE_AVX512F % 64);
	cpu.gpr[R_DX] = cpu.gpr[R_CX] = 0;

	/* Not the guest's: neither in XCR0 nor as instructions. */
	cpu.gpr[R_AX] = 0xe7;
	assert_int_equal(run_engine(&set), EXC_GP);
	assert_int_equal(run_engine(&evex), EXC_UD);
	table->xcr0_mask = 0xe7;
	for (unsigned v = 0; v < 256; v++) {
		bool ok = (v & 1) && (v & 6) != 4 && !(v & ~0xe7u) && (!(v & 0xe0) || v == 0xe7);

		cpu.gpr[R_AX] = v;
		assert_int_equal(run_engine(&set), ok ? -1 : EXC_GP);
		if (ok)
			assert_int_equal(run_engine(&evex), v == 0xe7 ? -1 : EXC_UD);
	}
	cpu.gpr[R_AX] = 0xe7;
	assert_int_equal(run_engine(&set), -1);
	cpu.cr0 |= CR0_TS;
	fpu_mode_changed(&cpu);
	assert_int_equal(run_engine(&evex), EXC_NM);
	cpu.cr0 &= ~CR0_TS;
	fpu_mode_changed(&cpu);

	cpu.gpr[R_BX] = (u64)(uintptr_t)p;
	for (unsigned l = 0; l < 2; l++) {
		const struct x86_xsave_layout *layout = &layouts[l];

		table->xsave = *layout;
		random_image(image);
		for (unsigned k = FPU_YMMH; k < X86_XSAVE_SIZE; k++)
			image[k] = k < FPU_YMMH + 256 || k >= X86_XSAVE_OPMASK_OFFSET ? (u8)rnd() : 0;
		memset(image + X86_XSAVE_OPMASK_OFFSET - 256, 0, 256);
		st64(image + FPU_XSTATE_BV, 0xe7);
		fpu_import(&cpu, image);
		fpu_image_loaded(&cpu);
		fpu_export(&cpu, back);
		assert_memory_equal(back + FPU_YMMH, image + FPU_YMMH, X86_XSAVE_SIZE - FPU_YMMH);
		memset(data, 0x5a, 2 * PAGE);
		memset(p + FPU_XSTATE_BV, 0, 64);
		map_tlb(true);
		cpu.gpr[R_AX] = ~0ull;
		fpu_load(&cpu); /* through the host's registers */
		assert_int_equal(run_engine(&save), -1);
		assert_int_equal(ld64(p + FPU_XSTATE_BV), 0xe7);
		assert_memory_equal(p + FPU_YMMH, image + FPU_YMMH, 256);
		assert_memory_equal(p + layout->opmask, image + X86_XSAVE_OPMASK_OFFSET, 64);
		assert_memory_equal(p + layout->zmm_hi256, image + X86_XSAVE_ZMM_HI256_OFFSET, 512);
		assert_memory_equal(p + layout->hi16_zmm, image + X86_XSAVE_HI16_ZMM_OFFSET, 1024);
		assert_int_equal(p[layout->size], 0x5a);
		/* Back: some of it, some to its initial state, the rest stays. */
		memset(cpu.xsave + FPU_YMMH, 0x77, X86_XSAVE_SIZE - FPU_YMMH);
		p[FPU_XSTATE_BV] = 0xa7; /* without ZMM_Hi256 */
		cpu.gpr[R_AX] = 0x64;
		assert_int_equal(run_engine(&restore), -1);
		fpu_export(&cpu, back);
		assert_memory_equal(back + X86_XSAVE_OPMASK_OFFSET, image + X86_XSAVE_OPMASK_OFFSET, 64);
		for (unsigned k = 0; k < 512; k++)
			assert_int_equal(back[X86_XSAVE_ZMM_HI256_OFFSET + k], 0);
		for (unsigned k = 0; k < 1024; k++)
			assert_int_equal(back[X86_XSAVE_HI16_ZMM_OFFSET + k], 0x77);
		/* Compacted: the same for both, one after the other. */
		memset(p + FPU_XSTATE_BV, 0, 64);
		cpu.gpr[R_AX] = 0xa2;
		st64(cpu.xsave + FPU_XSTATE_BV, 0xe7);
		assert_int_equal(run_engine(&savec), -1);
		assert_true(ld64(p + FPU_XCOMP_BV) == (BIT(63) | 0xa2));
		assert_memory_equal(p + FPU_HDR_END, image + X86_XSAVE_OPMASK_OFFSET, 64);
		assert_int_equal(p[FPU_HDR_END + 64], 0x77);
		assert_int_equal(p[FPU_HDR_END + 64 + 1023], 0x77);
		/* A component that XCR0 has not. */
		st64(p + FPU_XCOMP_BV, 0);
		p[FPU_XSTATE_BV] = 0x10;
		assert_int_equal(run_engine(&restore), EXC_GP);
	}
	table->xcr0_mask = old_mask;
	cpu.xcr0 = old_xcr0;
	fpu_mode_changed(&cpu);
}

/* A pending x87 exception comes before what the operand may raise; the non-waiting instructions do not look. */
static void test_pending(void **state)
{
	struct insn i;

	random_image(cpu.xsave);
	st16(cpu.xsave + FPU_FCW, 0x340);
	st16(cpu.xsave + FPU_FSW, 0x8081);
	st64(cpu.xsave + FPU_XSTATE_BV, XFEATURE_X87);
	fpu_image_loaded(&cpu);
	map_tlb(false);
	cpu.gpr[R_BX] = (u64)(uintptr_t)data;
	nr_slow = 0;
	take_signals();
	DECODE(&i, MODE_64, "\xd9\x03"); /* FLD */
	assert_int_equal(run_engine(&i), EXC_MF);
	DECODE(&i, MODE_64, "\x0f\x6f\x03"); /* MOVQ mm */
	assert_int_equal(run_engine(&i), EXC_MF);
	DECODE(&i, MODE_64, "\xd9\x2b"); /* FLDCW */
	assert_int_equal(run_engine(&i), EXC_MF);
	DECODE(&i, MODE_64, "\xd9\x23"); /* FLDENV */
	assert_int_equal(run_engine(&i), EXC_MF);
	DECODE(&i, MODE_64, "\x9b");
	assert_int_equal(run_engine(&i), EXC_MF);
	assert_int_equal(nr_slow, 0);    /* the operand was not looked at */
	DECODE(&i, MODE_64, "\xdd\x3b"); /* FNSTSW */
	assert_int_equal(run_engine(&i), -1);
	assert_int_equal(ld16(data) & 0xff, 0x81);
	DECODE(&i, MODE_64, "\xd9\x33"); /* FNSTENV masks */
	assert_int_equal(run_engine(&i), -1);
	DECODE(&i, MODE_64, "\x9b");
	assert_int_equal(run_engine(&i), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_off),         cmocka_unit_test(test_x87_pointers),
		cmocka_unit_test(test_env_layouts), cmocka_unit_test(test_gather_fault),
		cmocka_unit_test(test_xcr),         cmocka_unit_test(test_xsaves),
		cmocka_unit_test(test_narrow),      cmocka_unit_test(test_pending),
		cmocka_unit_test(test_avx512),
	};

	return cmocka_run_group_tests(tests, thunkcpu_setup, thunkcpu_teardown);
}
