/* Thunks and the vector state in C, against the host's processor: random native instructions with random registers, flags,
 * vector and x87 state and memory are executed once directly and once through decode_insn(), thunk_attach() and
 * the handler; registers, flags, memory, the XSAVE image and the fault, if any, must be equal.
 *
 * The direct run is a page of generated code that loads all sixteen registers, executes the instruction and stores them.
 * Operands lie at any alignment, also across the page boundary, in pages that are in the TLB and in others.
 *
 *   test_thunk [SEED [COUNT]]
 */
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include "thunkcpu.h"

#define CODE_ADDRESS 0x20010000ull

static u64 first_seed, count = 200000;

/* --- the host's processor ---------------------------------------------------------------- */
struct direct {
	u64 gpr[X86_NR_GPR];
	u64 flags;
	u64 host_rsp;
	int vector; /* of the fault, -1: none */
	u8 image[X86_XSAVE_SIZE] __attribute__((aligned(64)));
};

static struct direct *direct; /* one page behind the code */
static u8 *code, *code_exit;  /* where a fault goes on */

static void on_fault(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;
	u64 rip = (u64)uc->uc_mcontext.gregs[REG_RIP];

	if (rip - (u64)(uintptr_t)code >= PAGE)
		abort();
	direct->vector = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)code_exit;
}

static u8 *emit(u8 *p, unsigned n, ...)
{
	va_list ap;

	va_start(ap, n);
	while (n--)
		*p++ = (u8)va_arg(ap, int);
	va_end(ap);
	return p;
}

/* The last 4 bytes of an instruction whose operand is at target. */
static u8 *emit_rel(u8 *p, const void *target)
{
	st32(p, (u32)((const u8 *)target - (p + 4)));
	return p + 4;
}

static void make_code(const u8 *insn, unsigned len)
{
	u8 *p = code;

	p = emit(p, 10, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41,
		 0x57); /* push rbx rbp r12-r15 */
	p = emit_rel(emit(p, 3, 0x48, 0x89, 0x25), &direct->host_rsp);
	p = emit_rel(emit(p, 2, 0xff, 0x35), &direct->flags);
	p = emit(p, 1, 0x9d);
	for (unsigned r = 0; r < X86_NR_GPR; r++)
		p = emit_rel(emit(p, 3, r & 8 ? 0x4c : 0x48, 0x8b, 0x05 | (r & 7) << 3), &direct->gpr[r]);
	memcpy(p, insn, len);
	p += len;
	code_exit = p;
	for (unsigned r = 0; r < X86_NR_GPR; r++)
		p = emit_rel(emit(p, 3, r & 8 ? 0x4c : 0x48, 0x89, 0x05 | (r & 7) << 3), &direct->gpr[r]);
	p = emit_rel(emit(p, 3, 0x48, 0x8b, 0x25), &direct->host_rsp);
	p = emit(p, 1, 0x9c);
	p = emit_rel(emit(p, 2, 0x8f, 0x05), &direct->flags);
	p = emit(p, 11, 0xfc, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b);
	emit(p, 1, 0xc3);
}

static void run_direct(const u8 *insn, unsigned len)
{
	u32 mxcsr = FPU_MXCSR_INIT;

	make_code(insn, len);
	direct->vector = -1;
	__asm__ volatile("xrstor64 (%[image])\n\t"
			 "push %[image]\n\t"
			 "push %[image]\n\t"
			 "call *%[code]\n\t"
			 "pop %[image]\n\t"
			 "pop %[image]\n\t"
			 "mov %[mask], %%eax\n\t"
			 "xor %%edx, %%edx\n\t"
			 "xsave64 (%[image])\n\t"
			 "vzeroupper\n\t"
			 "fninit\n\t"
			 "ldmxcsr %[mxcsr]"
			 :
			 : [image] "b"(direct->image), [code] "r"(code), "a"(thunkcpu_components),
			   "d"(0), [mask] "m"(thunkcpu_components), [mxcsr] "m"(mxcsr)
			 : "memory", "cc", "rcx", "rsi", "rdi", "r8", "r9", "r10", "r11");
}

/* --- random cases ------------------------------------------------------------------------ */
/* Bytes of an instruction that might be native. */
static unsigned random_bytes(u8 *b)
{
	static const u8 one_byte[] = { 0xf6, 0xf7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf };
	static const u8 two_bytes[] = { 0xa4, 0xa5, 0xac, 0xad, 0xb0, 0xb1, 0xc0,
					0xc1, 0xbc, 0xbd, 0xb8, 0xae, 0xc7 };
	unsigned n = 0, map = 1 + (unsigned)(rnd() % 3);

	for (unsigned k = 0; k < 24; k++)
		b[k] = (u8)rnd();
	switch (rnd() % 4) {
	case 0:
		b[n] = 0xc4;
		b[n + 1] = (u8)((b[n + 1] & 0xe0) | map);
		n += 4;
		break;
	case 1:
		if (!(rnd() % 4))
			b[n++] = 0x66;
		if (!(rnd() % 8))
			b[n++] = 0xf0;
		if (rnd() % 2)
			b[n++] = (u8)(0x40 | (rnd() & 15));
		if (rnd() % 2) {
			b[n++] = one_byte[rnd() % ARRAY_SIZE(one_byte)];
		} else {
			b[n++] = 0x0f;
			b[n++] = two_bytes[rnd() % ARRAY_SIZE(two_bytes)];
		}
		break;
	default:
		switch (rnd() % 4) {
		case 0: b[n++] = 0x66; break;
		case 1: b[n++] = 0xf2; break;
		case 2: b[n++] = 0xf3; break;
		}
		if (rnd() % 2)
			b[n++] = (u8)(0x40 | (rnd() & 15));
		b[n++] = 0x0f;
		if (map > 1)
			b[n++] = map == 2 ? 0x38 : 0x3a;
		n++;
	}
	/* Memory operands with a base register and a small displacement, mostly. */
	if (rnd() % 2)
		b[n] = (u8)((b[n] & 0x3f) | (rnd() % 2 ? 0x40 : 0xc0));
	return n;
}

enum kind { KIND_THUNK, KIND_GATHER, KIND_MASKMOV, KIND_IMAGE, KIND_ENV, KIND_MXCSR, KIND_OTHER };

static enum kind kind_of(const struct insn *i)
{
	static const insn_fn image[] = { op_fxsave, op_fxrstor, op_xsave, op_xrstor, op_xsaveopt, op_xsavec };
	static const insn_fn env[] = { op_x87_ldenv, op_x87_stenv, op_x87_save, op_x87_rstor };

	if (i->fn == op_x87_init || i->thunk) {
		const struct native_row *row = i->thunk;

		/* Different every time. */
		return i->map == 1 && i->opcode == 0xc7 && row->flags & NR_REG_ONLY ? KIND_OTHER : KIND_THUNK;
	}
	if (i->fn == op_simd_gather)
		return KIND_GATHER;
	if (i->fn == op_simd_vmaskmov_load || i->fn == op_simd_vmaskmov_store)
		return KIND_THUNK;
	if (i->fn == op_simd_maskmovdqu || i->fn == op_simd_maskmovq)
		return KIND_MASKMOV;
	if (i->fn == op_ldmxcsr || i->fn == op_stmxcsr)
		return KIND_MXCSR;
	for (unsigned k = 0; k < ARRAY_SIZE(image); k++)
		if (i->fn == image[k])
			return KIND_IMAGE;
	for (unsigned k = 0; k < ARRAY_SIZE(env); k++)
		if (i->fn == env[k])
			return KIND_ENV;
	return KIND_OTHER;
}

/* Registers, so that the operand is at target; false: not possible. */
static bool aim(const struct insn *i, enum kind kind, u64 target)
{
	if (kind == KIND_MASKMOV) {
		cpu.gpr[R_DI] = target;
		return i->seg == SEG_FLAT;
	}
	if (!i->mem)
		return true;
	if (i->base >= X86_NR_GPR || i->seg != SEG_FLAT)
		return false;
	if (kind == KIND_GATHER) {
		/* 0..63 as index, in both widths */
		unsigned index = i->index == RZERO ? 4 : i->index;
		bool wide = i->opcode & 1;

		for (unsigned b = 0; b < 32; b += wide ? 8 : 4) {
			u8 *p = cpu.xsave + (b < 16 ? FPU_XMM : FPU_YMMH) + 16 * index + (b & 15);

			if (wide)
				st64(p, rnd() & 63);
			else
				st32(p, rnd() & 63);
		}
		st64(cpu.xsave + FPU_XSTATE_BV, thunkcpu_components);
		cpu.gpr[i->base] = target - (u64)(s64)i->disp;
		return true;
	}
	if (i->index == i->base)
		return false;
	cpu.gpr[i->base] = target - (cpu.gpr[i->index] << i->scale) - (u64)(s64)i->disp;
	return true;
}

/* Bytes that a restore reads. */
static void make_restorable(u8 *p)
{
	random_image(p);
	if (rnd() % 8 == 0)
		st32(p + FPU_MXCSR, (u32)rnd());
	st64(p + FPU_XSTATE_BV, rnd() % 8 ? rnd() & thunkcpu_components : rnd() & 15);
	if (rnd() % 2)
		st64(p + FPU_XCOMP_BV, 1ull << 63 | (rnd() % 4 ? 7 : rnd() & 7));
	if (rnd() % 16 == 0)
		p[FPU_XCOMP_BV + 8 + rnd() % 48] = 1;
}

/* Where the host's own pointers (into the direct code) and masks are: not compared. */
static void blot_pointers(u8 *image)
{
	memset(image + FPU_FOP, 0, FPU_MXCSR - FPU_FOP);
	memset(image + FPU_MXCSR_MASK, 0, 4);
}

/* A processor may say of XMM registers which are all zero that they are in use, and whether it does hangs on when the host last
 * switched to this process [SDM1 13.6]: they are not, then, and what is not saved is initial. */
static void blot_in_use(u8 *image, insn_fn fn)
{
	static const u8 initial[FPU_XMM_END - FPU_XMM];
	u64 in_use = ld64(image + FPU_XSTATE_BV);

	if (in_use & XFEATURE_SSE) {
		if (!memcmp(image + FPU_XMM, initial, sizeof(initial)))
			st64(image + FPU_XSTATE_BV, in_use & ~(u64)XFEATURE_SSE);
		return;
	}
	if (fn != op_xsave)
		memset(image + FPU_XMM, 0, sizeof(initial));
	if (fn == op_xsavec)
		st32(image + FPU_MXCSR, FPU_MXCSR_INIT);
}

static void blot_memory(const struct insn *i, enum kind kind, u64 target, u64 mask)
{
	u8 *p = (u8 *)target;

	if (kind == KIND_IMAGE && i->fn != op_fxrstor && i->fn != op_xrstor)
		blot_pointers(p);
	if (mask & XFEATURE_SSE && (i->fn == op_xsave || i->fn == op_xsaveopt || i->fn == op_xsavec))
		blot_in_use(p, i->fn);
	if (i->fn == op_x87_stenv || i->fn == op_x87_save)
		memset(p + (i->osz == 2 ? 6 : 12), 0, i->osz == 2 ? 8 : 16);
}

static const char *difference(const u64 *gpr, u64 flags, int vector, const u8 *memory)
{
	static char text[200];

	if (vector != direct->vector) {
		snprintf(text, sizeof(text), "fault %d instead of %d", vector, direct->vector);
		return text;
	}
	for (unsigned r = 0; r < X86_NR_GPR; r++) {
		if (gpr[r] != direct->gpr[r]) {
			snprintf(text, sizeof(text), "register %u is %#llx instead of %#llx", r,
				 (unsigned long long)gpr[r], (unsigned long long)direct->gpr[r]);
			return text;
		}
	}
	if ((flags ^ direct->flags) & FL_ARITH) {
		snprintf(text, sizeof(text), "flags %#llx instead of %#llx",
			 (unsigned long long)(flags & FL_ARITH),
			 (unsigned long long)(direct->flags & FL_ARITH));
		return text;
	}
	for (unsigned k = 0; k < 2 * PAGE; k++) {
		if (data[k] != memory[k]) {
			snprintf(text, sizeof(text), "memory at %#x is %02x instead of %02x", k, data[k],
				 memory[k]);
			return text;
		}
	}
	for (unsigned k = 0; k < IMAGE_SIZE; k++) {
		if (cpu.xsave[k] != direct->image[k] && k != FPU_XSTATE_BV) {
			snprintf(text, sizeof(text), "image at %u is %02x instead of %02x", k, cpu.xsave[k],
				 direct->image[k]);
			return text;
		}
	}
	return NULL;
}

static unsigned done_of_kind[KIND_OTHER], faults[32];

/* MXCSR.MM (misaligned exceptions), which a processor may have and no guest is offered [APM1 4.2.2]: with it set, what loads
 * MXCSR faults in the engine alone. */
static void clear_mm(u8 *memory, u64 at)
{
	if (at + 4 <= 2 * PAGE)
		st32(memory + at, ld32(memory + at) & ~(u32)BIT(17));
}

/* False: not a case. */
static bool one_case(void)
{
	static u8 before[2 * PAGE], after[2 * PAGE];
	struct decode_info info;
	struct insn i;
	u8 bytes[24];
	bool fast = rnd() % 4;
	u64 gpr[X86_NR_GPR], flags, target, mask;
	enum kind kind;
	const char *diff;
	int vector;

	random_bytes(bytes);
	if (decode_insn(bytes, 15, MODE_64, thunkcpu_features, &i, &info) != DECODE_OK)
		return false;
	kind = kind_of(&i);
	if (kind == KIND_OTHER)
		return false;

	random_image(cpu.xsave);
	for (unsigned r = 0; r < X86_NR_GPR; r++)
		cpu.gpr[r] = interesting();
	/* Small counts and divisors that do not always overflow. */
	if (rnd() % 2)
		cpu.gpr[R_DX] = 0;
	target = (u64)(uintptr_t)data + 1024 + rnd() % 4096;
	if (rnd() % 2)
		target &= ~63ull;
	if (kind == KIND_IMAGE) {
		cpu.gpr[R_AX] = rnd() & thunkcpu_components;
		cpu.gpr[R_DX] = 0;
	}
	if (!aim(&i, kind, target))
		return false;
	/* The registers of an image's mask may be its address as well. */
	if (kind == KIND_IMAGE && (i.base == R_AX || i.base == R_DX || i.index == R_AX || i.index == R_DX))
		return false;
	for (unsigned k = 0; k < 2 * PAGE; k += 8)
		st64(before + k, interesting());
	if (kind == KIND_IMAGE && target + 1024 <= (u64)(uintptr_t)data + 2 * PAGE)
		make_restorable(before + (target - (u64)(uintptr_t)data));
	if (i.fn == op_ldmxcsr && rnd() % 4)
		st32(before + (target - (u64)(uintptr_t)data), (u32)(rnd() & fpu_mxcsr_mask()));
	clear_mm(before, target - (u64)(uintptr_t)data + (kind == KIND_IMAGE ? FPU_MXCSR : 0));
	flags = rnd() & FL_ARITH;
	mask = cpu.gpr[R_AX];

	memcpy(direct->gpr, cpu.gpr, sizeof(direct->gpr));
	direct->flags = flags | FL_RES1;
	memcpy(direct->image, cpu.xsave, X86_XSAVE_SIZE);
	memcpy(data, before, 2 * PAGE);
	run_direct(bytes, i.len);
	blot_memory(&i, kind, target, mask);
	memcpy(after, data, 2 * PAGE);

	memcpy(data, before, 2 * PAGE);
	fpu_image_loaded(&cpu);
	soft_set_arith(&cpu, flags);
	map_tlb(fast);
	vector = run_engine(&i);
	blot_memory(&i, kind, target, mask);
	flags = soft_get_flags(&cpu);
	memcpy(gpr, cpu.gpr, sizeof(gpr));
	blot_pointers(cpu.xsave);
	blot_pointers(direct->image);
	/* An XRSTOR that faults has loaded some of the components on Intel's processors, none on AMD's. */
	if (i.fn == op_xrstor && vector >= 0 && __builtin_cpu_is("intel"))
		memcpy(cpu.xsave, direct->image, IMAGE_SIZE);
	diff = difference(gpr, flags, vector, after);
	if (diff) {
		print_error("%s (%s):", diff, fast ? "direct memory" : "copied memory");
		for (unsigned k = 0; k < i.len; k++)
			print_error(" %02x", bytes[k]);
		print_error("\n");
		fail();
	}
	done_of_kind[kind]++;
	if (vector >= 0)
		faults[vector & 31]++;
	return true;
}

static void test_random(void **state)
{
	if (!thunkcpu_components)
		skip();
	take_signals();
	thunkcpu_seed = first_seed;
	print_message("seed %llu, %llu instructions\n", (unsigned long long)thunkcpu_seed,
		      (unsigned long long)count);
	for (u64 n = 0; n < count;)
		n += one_case();
	/* Each kind was there, and the faults that the signal handler turns into the guest's. */
	for (unsigned k = 0; k < KIND_OTHER; k++)
		assert_true(done_of_kind[k] > count / 100000);
	assert_true(faults[EXC_DE] && faults[EXC_GP] && faults[EXC_MF] && faults[EXC_XM]);
	print_message("#DE %u, #UD %u, #GP %u, #MF %u, #XM %u\n", faults[EXC_DE], faults[EXC_UD],
		      faults[EXC_GP], faults[EXC_MF], faults[EXC_XM]);
}

/* --- particular cases -------------------------------------------------------------------- */
/* 16- and 32-bit code is encoded anew for 64-bit mode. */
static void test_modes(void **state)
{
	struct insn i;

	take_signals();
	/* DIV CX in 16-bit code; with 66: ECX */
	DECODE(&i, MODE_16, "\xf7\xf1");
	cpu.gpr[R_AX] = 0x1111222233330064;
	cpu.gpr[R_DX] = 0x4444555566660000;
	cpu.gpr[R_CX] = 0x7777888899990007;
	assert_int_equal(run_engine(&i), -1);
	assert_true(cpu.gpr[R_AX] == 0x111122223333000e && cpu.gpr[R_DX] == 0x4444555566660002);
	DECODE(&i, MODE_16, "\x66\xf7\xf1");
	cpu.gpr[R_AX] = 100;
	cpu.gpr[R_DX] = 0;
	cpu.gpr[R_CX] = 7;
	assert_int_equal(run_engine(&i), -1);
	assert_true(cpu.gpr[R_AX] == 14 && cpu.gpr[R_DX] == 2);
	DECODE(&i, MODE_32, "\x66\xf7\xf1");
	cpu.gpr[R_AX] = 0xffff0064;
	cpu.gpr[R_DX] = 0xffff0000;
	cpu.gpr[R_CX] = 0xffff0007;
	assert_int_equal(run_engine(&i), -1);
	assert_true(cpu.gpr[R_AX] == 0xffff000e && cpu.gpr[R_DX] == 0xffff0002);
	/* DIV AH */
	DECODE(&i, MODE_32, "\xf6\xf4");
	cpu.gpr[R_AX] = 0x0205;
	assert_int_equal(run_engine(&i), EXC_DE);
	assert_true(cpu.gpr[R_AX] == 0x0205);
	cpu.gpr[R_AX] = 0x0200;
	assert_int_equal(run_engine(&i), EXC_DE); /* 200H / 2 = 100H does not fit */
	/* XADD SP, BP and CMPXCHG on the stack pointer */
	DECODE(&i, MODE_32, "\x0f\xc1\xec");
	cpu.gpr[R_SP] = 10;
	cpu.gpr[R_BP] = 5;
	assert_int_equal(run_engine(&i), -1);
	assert_true(cpu.gpr[R_SP] == 15 && cpu.gpr[R_BP] == 10);
}

/* Never one mapping that is both; equal instructions share; full is told, and a reset helps. */
static void test_arena(void **state)
{
	struct insn i;
	thunk_fn a, b;
	u64 made = 0;
	char line[300];
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned maps = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (!strstr(line, "bothy-thunks"))
			continue;
		maps++;
		assert_false(strstr(line, "rwx") || strstr(line, "-wx"));
	}
	fclose(f);
	assert_int_equal(maps, 2);

	thunk_reset(thunkcpu_arena);
	DECODE(&i, MODE_64, "\x66\x0f\x70\xc1\x00");
	a = thunk_get(thunkcpu_arena, &i, i.thunk);
	assert_non_null(a);
	assert_ptr_equal(a, thunk_get(thunkcpu_arena, &i, i.thunk));
	for (unsigned imm = 1; imm < 256; imm++) {
		i.imm = imm;
		b = thunk_get(thunkcpu_arena, &i, i.thunk);
		assert_ptr_not_equal(a, b);
	}
	/* Until it is full: PSHUFD, 256 x 256 different ones. */
	while (thunk_get(thunkcpu_arena, &i, i.thunk)) {
		made++;
		assert_true(made < 256 * 256);
		i.imm = made & 255;
		i.reg = made >> 8 & 15;
		i.rm = made >> 12 & 15;
	}
	assert_true(made > 10000);
	thunk_reset(thunkcpu_arena);
	assert_non_null(thunk_get(thunkcpu_arena, &i, i.thunk));
}

static int setup(void **state)
{
	static const int signals[] = { SIGFPE, SIGSEGV, SIGILL };
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	code = mmap((void *)CODE_ADDRESS, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	assert_true(code != MAP_FAILED);
	direct = (struct direct *)(code + PAGE);
	/* The engine's handler passes on what is not in a thunk. */
	for (unsigned k = 0; k < ARRAY_SIZE(signals); k++)
		sigaction(signals[k], &sa, NULL);
	return thunkcpu_setup(state);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_arena),
		cmocka_unit_test(test_random),
	};

	first_seed = argc > 1 ? strtoull(argv[1], NULL, 0) | 1 : (u64)time(NULL) * 2 + 1;
	count = argc > 2 ? strtoull(argv[2], NULL, 0) : count;
	return cmocka_run_group_tests(tests, setup, thunkcpu_teardown);
}
