/* See thunkcpu.h. */
#include "thunkcpu.h"

#include <signal.h>
#include <sys/mman.h>

#include <cpuid.h>

#define DATA_ADDRESS 0x20000000ull

struct soft_cpu cpu __attribute__((aligned(64)));
struct tlb_table thunkcpu_table;
struct thunk_arena *thunkcpu_arena;
u64 thunkcpu_features[4], thunkcpu_seed = 1;
u32 thunkcpu_components;
u8 *data;
unsigned nr_slow;
gva_t hole;
static struct vm *vm;
static u8 *bounce;

/* As the real ones do for MMIO: the state is spilled on the way. */
void __wrap_mmu_probe(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len, unsigned acc);
void __wrap_mmu_probe(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned len, unsigned acc)
{
	nr_slow++;
}

/* Half of the LOCKed operands are RAM after all, in the rest a load and a store have to do. */
void *__wrap_mmu_atomic(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, gpa_t *ret_gpa);
void *__wrap_mmu_atomic(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, gpa_t *ret_gpa)
{
	nr_slow++;
	*ret_gpa = la;
	return la / 64 & 1 ? (void *)la : NULL;
}

void __wrap_mmu_atomic_done(struct soft_cpu *c, gpa_t gpa, unsigned size);
void __wrap_mmu_atomic_done(struct soft_cpu *c, gpa_t gpa, unsigned size)
{
}

void __wrap_mmu_read_buf(struct soft_cpu *c, const struct insn *i, gva_t la, void *buf, unsigned len);
void __wrap_mmu_read_buf(struct soft_cpu *c, const struct insn *i, gva_t la, void *buf, unsigned len)
{
	fpu_spill(c);
	memcpy(buf, (const void *)la, len);
}

void __wrap_mmu_write_buf(struct soft_cpu *c, const struct insn *i, gva_t la, const void *buf, unsigned len);
void __wrap_mmu_write_buf(struct soft_cpu *c, const struct insn *i, gva_t la, const void *buf, unsigned len)
{
	fpu_spill(c);
	memcpy((void *)la, buf, len);
}

u64 __wrap_mmu_load(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, unsigned acc);
u64 __wrap_mmu_load(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, unsigned acc)
{
	u64 v = 0;

	if (hole && la >> 12 == hole >> 12)
		soft_raise(c, i, EXC_PF, 4);
	fpu_spill(c);
	memcpy(&v, (const void *)la, size);
	return v;
}

void __wrap_mmu_store(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, u64 val);
void __wrap_mmu_store(struct soft_cpu *c, const struct insn *i, gva_t la, unsigned size, u64 val)
{
	fpu_spill(c);
	memcpy((void *)la, &val, size);
}

static void stop(struct soft_cpu *c, const struct insn *i)
{
}

void map_tlb(bool fast)
{
	for (unsigned k = 0; k < TLB_SIZE; k++)
		thunkcpu_table.e[k] = (struct tlb_entry){ TLB_NEVER, TLB_NEVER, 0, 0 };
	for (unsigned k = 0; fast && k < 2; k++) {
		u64 la = (u64)(uintptr_t)data + k * PAGE;

		thunkcpu_table.e[la >> 12 & (TLB_SIZE - 1)] = (struct tlb_entry){ la, la, 0, 0 };
	}
}

int run_engine(struct insn *i)
{
	struct insn pair[2] = { *i, { .fn = stop } };
	volatile int vector = -1;

	if (!thunk_attach(thunkcpu_arena, &pair[0])) {
		thunk_reset(thunkcpu_arena);
		assert_true(thunk_attach(thunkcpu_arena, &pair[0]));
	}
	if (__builtin_setjmp(cpu.jb)) {
		vector = cpu.exc.vector;
	} else {
		pair[0].fn(&cpu, &pair[0]);
	}
	fpu_spill(&cpu);
	return vector;
}

/* --- random state ------------------------------------------------------------------------ */
u64 rnd(void)
{
	thunkcpu_seed ^= thunkcpu_seed << 13;
	thunkcpu_seed ^= thunkcpu_seed >> 7;
	thunkcpu_seed ^= thunkcpu_seed << 17;
	return thunkcpu_seed * 0x2545f4914f6cdd1dull;
}

u64 interesting(void)
{
	static const u64 values[] = { 0,      1,          ~0ull,      0x80,       0x7f,
				      0x8000, 0x80000000, 0x7fffffff, 1ull << 63, 0xffffffff };

	return rnd() % 4 ? rnd() : values[rnd() % ARRAY_SIZE(values)];
}

void random_image(u8 *x)
{
	unsigned fsw, fcw;

	memset(x, 0, X86_XSAVE_SIZE);
	for (unsigned k = 0; k < IMAGE_SIZE; k += 8) {
		/* Floating-point numbers of ordinary size among random bits. */
		float f = (float)(s32)rnd() / 65536;
		double d = (double)(s64)rnd() / 1e12;

		switch (rnd() % 4) {
		case 0: memcpy(x + k, &d, 8); break;
		case 1:
			memcpy(x + k, &f, 4);
			memcpy(x + k + 4, &f, 4);
			break;
		case 2: st64(x + k, interesting()); break;
		default: st64(x + k, rnd()); break;
		}
	}
	fcw = rnd() % 8 ? 0x37f | (rnd() & 0xc00) : 0x340 | (rnd() & 0xf3f);
	fsw = (unsigned)(rnd() & 0x7f7f);
	if (rnd() % 8)
		fsw &= ~0x3fu;
	if (fsw & ~fcw & 0x3f)
		fsw |= 0x8080;
	st16(x + FPU_FCW, (u16)fcw);
	st16(x + FPU_FSW, (u16)fsw);
	st16(x + FPU_FTW, rnd() % 2 ? 0xff : rnd() & 0xff);
	st16(x + FPU_FOP, rnd() & 0x7ff);
	st64(x + FPU_FIP, 0x1000);
	st64(x + FPU_FDP, 0x2000);
	for (unsigned k = 0; k < 8; k++) {
		u8 *st = x + FPU_ST + 16 * k;

		memset(st + 10, 0, 6);
		if (rnd() % 2) /* a number near 1 */
			st16(st + 8, (u16)(0x3ff0 + rnd() % 32)), st64(st, rnd() | 1ull << 63);
	}
	st32(x + FPU_MXCSR,
	     (rnd() % 8 ? 0x1f80 : (u32)(rnd() & 0x1f80)) | (u32)(rnd() & 0xe07f & fpu_mxcsr_mask()));
	st32(x + FPU_MXCSR_MASK, 0);
	memset(x + FPU_XMM_END, 0, FPU_HDR_END - FPU_XMM_END);
	st64(x + FPU_XSTATE_BV, thunkcpu_components & (rnd() % 4 ? 7 : rnd()));
}

/* --- set-up ------------------------------------------------------------------------------ */
static const int signals[] = { SIGFPE, SIGSEGV, SIGILL };
static struct sigaction engine_action[3];

void take_signals(void)
{
	for (unsigned k = 0; k < ARRAY_SIZE(signals); k++)
		sigaction(signals[k], &engine_action[k], NULL);
}

bool has(unsigned feature)
{
	return thunkcpu_features[feature / 64] >> (feature % 64) & 1;
}

void decode(struct insn *i, const char *bytes, unsigned len, unsigned mode)
{
	struct decode_info info;

	assert_int_equal(decode_insn((const u8 *)bytes, len, mode, thunkcpu_features, i, &info), DECODE_OK);
	assert_int_equal(i->len, len);
}

static void host_features(void)
{
	u32 regs[4];

#define TEST_FEATURE_(name, leaf, sub, reg, bit, level)                                                   \
	if (__get_cpuid_count(leaf, sub, &regs[0], &regs[1], &regs[2], &regs[3]) && regs[reg] >> (bit)&1) \
		thunkcpu_features[X86_FEATURE_##name / 64] |= BIT(X86_FEATURE_##name % 64);
	X86_FEATURES(TEST_FEATURE_)
#undef TEST_FEATURE_
	/* A guest without it, on a host that may have it: tests/insn has the other. */
	thunkcpu_features[X86_FEATURE_AVX512F / 64] &= ~BIT(X86_FEATURE_AVX512F % 64);
}

int thunkcpu_setup(void **state)
{
	static struct vcpu vcpu;
	struct err err = { 0 };
	u32 eax = 0, edx;

	host_features();
	if (has(X86_FEATURE_AVX)) {
		__asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
		thunkcpu_components = eax & 7;
	}
	assert_int_equal(thunk_init(&err), 0);
	assert_int_equal(thunk_arena_new(&thunkcpu_arena, &err), 0);
	thunk_thread_init(&cpu);
	for (unsigned k = 0; k < ARRAY_SIZE(signals); k++)
		sigaction(signals[k], NULL, &engine_action[k]);

	data = mmap((void *)DATA_ADDRESS, 2 * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	bounce = aligned_alloc(64, 2 * PAGE);
	cpu.xsave = aligned_alloc(64, ALIGN_UP(X86_XSAVE_SIZE, 64));
	vm = calloc(1, sizeof(*vm));
	assert_true(data != MAP_FAILED && bounce && cpu.xsave && vm);

	vcpu.vm = vm;
	vm->cpuid.xcr0_mask = thunkcpu_components ? thunkcpu_components : 3;
	cpu.vcpu = &vcpu;
	cpu.bounce = bounce;
	cpu.features = thunkcpu_features;
	cpu.delivering = -1;
	cpu.tlb[0] = cpu.tlb[1] = &thunkcpu_table;
	cpu.key = MODE_64;
	cpu.flags = FL_RES1;
	cpu.cr0 = CR0_PE | CR0_NE | CR0_MP;
	cpu.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	cpu.xcr0 = vm->cpuid.xcr0_mask;
	for (unsigned s = 0; s < X86_NR_SEG; s++)
		cpu.seg[s] = (struct x86_segreg){ .attr = SA_P | SA_S | SA_DB | SA_G | 3, .limit = ~0u };
	fpu_mode_changed(&cpu);
	return 0;
}

int thunkcpu_teardown(void **state)
{
	thunk_thread_fini();
	thunk_arena_free(thunkcpu_arena);
	free(bounce);
	free(cpu.xsave);
	free(vm);
	return 0;
}
