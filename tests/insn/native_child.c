/* insn_native FD: runs cases on the host CPU for the test that started it; nothing the code does can hurt that. A program of
 * its own, built without sanitizers, so that there is as little as possible at the addresses that random code may hit.
 *
 * There is no assembly: to enter a case the child executes INT3, and its SIGTRAP handler swaps the
 * registers, flags and vector state in the signal frame for those of the case, so that the return from the signal starts it. The
 * signal that ends the case (INT3 again, or a fault) brings its final state in the frame, and the handler swaps the child's own back.
 *
 * It has its own mappings of the code and data pages, at the fixed addresses; it writes them through others.
 */
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <ucontext.h>

#include "native.h"

static u8 *code_rw, *data_rw;
static u32 patience;

#define XSAVE_HEADER 512
#define SW_RESERVED  464 /* the kernel's, inside the legacy part */
#define MAX_FRAME    16384

static struct {
	bool inside;
	struct insn_case *c;
	u32 ticks; /* in this case */
	gregset_t gregs;
	_Alignas(64) u8 fp[MAX_FRAME];
} own;

static const int reg_index[X86_NR_GPR] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
					   REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
					   REG_R12, REG_R13, REG_R14, REG_R15 };

/* The parts of the state that lie elsewhere in the host's frame. */
static struct part {
	u64 bit;
	u32 ours, theirs, size;
} parts[] = {
	{ XFEATURE_AVX, X86_XSAVE_AVX_OFFSET, X86_XSAVE_AVX_OFFSET, 256 },
	{ XFEATURE_OPMASK, X86_XSAVE_OPMASK_OFFSET, 0, 64 },
	{ XFEATURE_ZMM_HI256, X86_XSAVE_ZMM_HI256_OFFSET, 0, 512 },
	{ XFEATURE_HI16_ZMM, X86_XSAVE_HI16_ZMM_OFFSET, 0, 1024 },
};
static u64 components = XFEATURE_X87 | XFEATURE_SSE;

static void find_parts(void)
{
	u32 xcr0, high, a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & BIT(27)))
		return;
	__asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
	for (unsigned k = 0; k < ARRAY_SIZE(parts); k++) {
		if (!(xcr0 & parts[k].bit))
			continue;
		__cpuid_count(0xd, (u32)__builtin_ctzll(parts[k].bit), a, parts[k].theirs, c, d);
		components |= parts[k].bit;
	}
}

static u32 frame_size(const u8 *fp)
{
	u32 size = ld32(fp + SW_RESERVED + 16); /* xstate_size */
	return size > MAX_FRAME ? MAX_FRAME : size;
}

static void enter(ucontext_t *uc, const struct insn_case *c)
{
	greg_t *g = uc->uc_mcontext.gregs;
	u8 *fp = (u8 *)uc->uc_mcontext.fpregs;

	memcpy(own.gregs, g, sizeof(own.gregs));
	memcpy(own.fp, fp, frame_size(fp));
	for (unsigned r = 0; r < X86_NR_GPR; r++)
		g[reg_index[r]] = (greg_t)c->in.gpr[r];
	g[REG_RIP] = INSN_CODE;
	g[REG_EFL] = (greg_t)(c->in.flags | FL_RES1 | FL_IF);
	u64 cs = c->mode == INSN_64 ? INSN_CS64 : INSN_CS32;
	g[REG_CSGSFS] = (greg_t)(((u64)g[REG_CSGSFS] & ~0xffffull) | cs);
	memcpy(fp, c->in.xsave, SW_RESERVED);
	st64(fp + XSAVE_HEADER, components);
	for (unsigned k = 0; k < ARRAY_SIZE(parts); k++)
		if (components & parts[k].bit)
			memcpy(fp + parts[k].theirs, c->in.xsave + parts[k].ours, parts[k].size);
	own.inside = true;
}

static void leave(ucontext_t *uc, struct insn_case *c)
{
	greg_t *g = uc->uc_mcontext.gregs;
	u8 *fp = (u8 *)uc->uc_mcontext.fpregs;
	struct insn_result *res = &c->native;

	res->vector = (int)g[REG_TRAPNO];
	res->error = (u32)g[REG_ERR];
	res->cr2 = (u64)g[REG_CR2];
	for (unsigned r = 0; r < X86_NR_GPR; r++)
		res->state.gpr[r] = (u64)g[reg_index[r]];
	res->state.rip = (u64)g[REG_RIP];
	res->state.flags = (u64)g[REG_EFL];
	memset(res->state.xsave, 0, INSN_XSAVE);
	memcpy(res->state.xsave, fp, SW_RESERVED);
	memcpy(res->state.xsave + XSAVE_HEADER, fp + XSAVE_HEADER, 8);
	for (unsigned k = 0; k < ARRAY_SIZE(parts); k++)
		if (components & parts[k].bit)
			memcpy(res->state.xsave + parts[k].ours, fp + parts[k].theirs, parts[k].size);
	memcpy(fp, own.fp, frame_size(fp));
	memcpy(g, own.gregs, sizeof(own.gregs));
	own.inside = false;
}

static void on_signal(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;
	/* The kernel lets AC stand. */
	__asm__ volatile(
		"lea -128(%%rsp), %%rsp\n\tpushfq\n\tandq $~0x40000, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp"
		:
		:
		: "cc", "memory");
	if (sig == SIGALRM) {
		if (own.inside && ++own.ticks >= patience) {
			leave(uc, own.c);
			own.c->native.vector = INSN_ENDLESS;
		}
	} else if (own.inside) {
		leave(uc, own.c);
	} else if (sig == SIGTRAP) {
		enter(uc, own.c);
	} else { /* a fault of the child's own */
		signal(sig, SIG_DFL);
		raise(sig);
	}
}

static __attribute__((noinline)) void run_case(struct insn_case *c)
{
	memset(code_rw, 0xcc, INSN_CODE_SIZE);
	memcpy(code_rw, c->code, c->len);
	memcpy(data_rw, c->in.data, INSN_DATA_SIZE);
	own.c = c;
	own.ticks = 0;
	__asm__ volatile("int3" ::: "memory", "cc");
	memcpy(c->native.state.data, data_rw, INSN_DATA_SIZE);
}

static void map_fixed(u64 la, size_t size, int prot, int fd, off_t off)
{
	void *p = mmap((void *)la, size, prot, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, off);
	if (p != (void *)la) {
		fprintf(stderr, "insn: cannot map the test's memory at %#llx\n", (unsigned long long)la);
		_exit(1);
	}
}

static _Noreturn void serve(struct native_shared *shared, struct insn_case *cases)
{
	static const int signals[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM };
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	int fd = memfd_create("insn", MFD_CLOEXEC);
	size_t stack = 256 * KiB;
	stack_t ss = { .ss_size = stack };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	find_parts();
	if (fd < 0 || ftruncate(fd, INSN_CODE_SIZE + INSN_DATA_SIZE) < 0)
		_exit(1);
	map_fixed(INSN_CODE, INSN_CODE_SIZE, PROT_READ | PROT_EXEC, fd, 0);
	map_fixed(INSN_DATA, INSN_DATA_RW, PROT_READ | PROT_WRITE, fd, INSN_CODE_SIZE);
	map_fixed(INSN_DATA + INSN_DATA_RW, INSN_DATA_SIZE - INSN_DATA_RW, PROT_READ, fd,
		  INSN_CODE_SIZE + INSN_DATA_RW);
	code_rw = mmap(NULL, INSN_CODE_SIZE + INSN_DATA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ss.ss_sp = mmap(NULL, stack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code_rw == MAP_FAILED || ss.ss_sp == MAP_FAILED || sigaltstack(&ss, NULL) < 0)
		_exit(1);
	data_rw = code_rw + INSN_CODE_SIZE;
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGALRM); /* not in the middle of a swap */
	for (unsigned k = 0; k < ARRAY_SIZE(signals); k++)
		if (sigaction(signals[k], &sa, NULL) < 0)
			_exit(1);
	/* 32-bit code needs data segments. GS has a base and no selector. */
	__asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(INSN_DS));
	if (syscall(SYS_arch_prctl, ARCH_SET_GS, INSN_GS_BASE) < 0)
		_exit(1);
	const struct itimerval tick = { .it_interval.tv_usec = NATIVE_TICK_US,
					.it_value.tv_usec = NATIVE_TICK_US };
	patience = shared->patience;
	if (setitimer(ITIMER_REAL, &tick, NULL) < 0)
		_exit(1);
	for (u32 served = 0;;) {
		while (atomic_load(&shared->go) == served)
			native_wait(&shared->go, served, 1000);
		/* All pages present, so that error codes are those of a protection fault where one is due. */
		for (unsigned p = 0; p < INSN_DATA_SIZE; p += 4096)
			(void)*(volatile u8 *)(INSN_DATA + p);
		for (u32 k = 0; k < shared->n; k++) {
			atomic_store_explicit(&shared->at, k, memory_order_relaxed);
			run_case(&cases[k]);
		}
		served++;
		atomic_store(&shared->done, served);
		native_wake(&shared->done);
	}
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr,
			"insn_native is a part of the instruction tests; it is not started by hand\n");
		return 1;
	}
	u8 *p = mmap(NULL, NATIVE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[1]), 0);
	if (p == MAP_FAILED) {
		perror("insn_native: mmap");
		return 1;
	}
	serve((struct native_shared *)p, (struct insn_case *)(p + NATIVE_CASES));
}
