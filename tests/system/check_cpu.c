/* Checks of the processor as a program sees it: faults with their addresses and codes, restartable
 * accesses, single-step, watchpoints, self-modifying code, 32-bit code, and above all that x87, SSE and AVX
 * state survives switches between processes, preemption and signals.
 */
#include <cpuid.h>
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"

#define PAGE 4096ul

/* --- faults --- */

static sigjmp_buf fault_jump;
static volatile sig_atomic_t fault_armed;
static siginfo_t fault_info;
static gregset_t fault_regs;

/* The kernel leaves AC as it was; the C library's own misaligned accesses would fault. */
static inline void clear_ac(void)
{
	__asm__ volatile("pushfq; andl $~0x40000, (%%rsp); popfq" ::: "memory", "cc");
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;

	clear_ac();
	if (!fault_armed)
		_exit(3);
	fault_armed = 0;
	fault_info = *info;
	memcpy(fault_regs, uc->uc_mcontext.gregs, sizeof(fault_regs));
	siglongjmp(fault_jump, sig);
}

/* Runs fn(arg); returns the signal it ended in (details in fault_info), 0 when it came back. */
static int fault_of(void (*fn)(void *arg), void *arg)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	int sig;

	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &sa, NULL);
	memset(&fault_info, 0, sizeof(fault_info));
	sig = sigsetjmp(fault_jump, 1);
	if (sig)
		return sig;
	fault_armed = 1;
	fn(arg);
	fault_armed = 0;
	return 0;
}

static void do_load(void *p)
{
	(void)*(volatile int *)p;
}

static void do_store(void *p)
{
	*(volatile int *)p = 0x5a5a5a5a;
}

static void do_call(void *p)
{
	((void (*)(void))p)();
}

static void do_noncanonical(void *p)
{
	__asm__ volatile("movabs $0x8000000000000000, %%rax; mov (%%rax), %%eax" ::: "rax", "memory");
}

static void do_hlt(void *p)
{
	__asm__ volatile("hlt");
}

static void do_misaligned(void *p)
{
	__asm__ volatile("movaps (%0), %%xmm0" ::"r"((char *)p + 4) : "xmm0");
}

static void do_divide(void *p)
{
	__asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; div %%ecx" ::
				 : "rax", "rcx", "rdx");
}

static void do_divide_overflow(void *p)
{
	__asm__ volatile("mov $0x80000000, %%eax; cltd; mov $-1, %%ecx; idiv %%ecx" ::: "rax", "rcx", "rdx");
}

static void do_ud2(void *p)
{
	__asm__ volatile("ud2");
}

static void do_int3(void *p)
{
	__asm__ volatile("int3");
}

static void do_sse_divide(void *p)
{
	uint32_t mxcsr = 0x1f80 & ~0x200u; /* zero divide unmasked */

	__asm__ volatile("ldmxcsr %0; pxor %%xmm1, %%xmm1; movss %1, %%xmm0; divss %%xmm1, %%xmm0" ::"m"(
				 mxcsr),
			 "m"((float){ 1.0f })
			 : "xmm0", "xmm1");
}

static void do_x87_divide(void *p)
{
	uint16_t cw = 0x37f & ~4u;

	__asm__ volatile("fninit; fldcw %0; fld1; fldz; fdivrp; fwait" ::"m"(cw));
}

static void do_alignment(void *p)
{
	static char buf[16] __attribute__((aligned(16)));

	__asm__ volatile("pushfq; orl $0x40000, (%%rsp); popfq; movl 1(%0), %%eax" ::"r"(buf)
			 : "rax", "memory", "cc");
}

static void expect_fault(const char *what, void (*fn)(void *), void *arg, int sig, int code, const void *addr)
{
	int got = fault_of(fn, arg);

	/* A fault leaves flags and control words as they were; the next one starts afresh. */
	clear_ac();
	__asm__ volatile("fninit; ldmxcsr %0" ::"m"((uint32_t){ 0x1f80 }));
	need(got == sig, "%s gave signal %d instead of %d", what, got, sig);
	need(fault_info.si_code == code, "%s gave code %d instead of %d", what, fault_info.si_code, code);
	need(addr == (void *)-1 || fault_info.si_addr == addr, "%s gave address %p instead of %p", what,
	     fault_info.si_addr, addr);
}

static char *map(size_t len, int prot)
{
	void *p = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need(p != MAP_FAILED, "mmap: %s", strerror(errno));
	return p;
}

static void check_faults(void)
{
	char *ro = map(PAGE, PROT_READ), *nx = map(PAGE, PROT_READ | PROT_WRITE),
	     *none = map(PAGE, PROT_NONE);
	char *gone = map(PAGE, PROT_READ);
	void *any = (void *)-1;

	nx[0] = (char)0xc3;
	munmap(gone, PAGE);
	expect_fault("a load from an unmapped page", do_load, gone + 12, SIGSEGV, SEGV_MAPERR, gone + 12);
	expect_fault("a store to an unmapped page", do_store, gone + 16, SIGSEGV, SEGV_MAPERR, gone + 16);
	expect_fault("a store to a read-only page", do_store, ro + 8, SIGSEGV, SEGV_ACCERR, ro + 8);
	expect_fault("a load from a closed page", do_load, none, SIGSEGV, SEGV_ACCERR, none);
	expect_fault("a call of data", do_call, nx, SIGSEGV, SEGV_ACCERR, nx);
	expect_fault("a non-canonical load", do_noncanonical, NULL, SIGSEGV, SI_KERNEL, NULL);
	expect_fault("HLT", do_hlt, NULL, SIGSEGV, SI_KERNEL, NULL);
	expect_fault("a misaligned MOVAPS", do_misaligned, nx, SIGSEGV, SI_KERNEL, NULL);
	expect_fault("a division by zero", do_divide, NULL, SIGFPE, FPE_INTDIV, any);
	expect_fault("a division that overflows", do_divide_overflow, NULL, SIGFPE, FPE_INTDIV, any);
	expect_fault("UD2", do_ud2, NULL, SIGILL, ILL_ILLOPN, any);
	expect_fault("INT3", do_int3, NULL, SIGTRAP, SI_KERNEL, any);
	expect_fault("an SSE division by zero", do_sse_divide, NULL, SIGFPE, FPE_FLTDIV, any);
	expect_fault("an x87 division by zero", do_x87_divide, NULL, SIGFPE, FPE_FLTDIV, any);
	expect_fault("a misaligned load with AC set", do_alignment, NULL, SIGBUS, BUS_ADRALN, any);
}

static void do_crossing_store(void *p)
{
	__asm__ volatile("movq %1, (%0)" ::"r"(p), "r"(~0ull) : "memory");
}

static void do_movs(void *p)
{
	static char source[3 * 4096];

	memset(source, 'x', sizeof(source));
	__asm__ volatile("rep movsb" ::"D"(p), "S"(source), "c"(sizeof(source)) : "memory");
}

static void do_push(void *p)
{
	__asm__ volatile("mov %%rsp, %%rbx; mov %0, %%rsp; push $1; mov %%rbx, %%rsp" ::"r"(p)
			 : "rbx", "memory");
}

/* A fault leaves everything as it was before the instruction, or where a string instruction had got to. */
static void check_precise(void)
{
	char *p = map(2 * PAGE, PROT_READ | PROT_WRITE);

	munmap(p + PAGE, PAGE);
	memset(p, 'a', PAGE);
	expect_fault("a store across the end", do_crossing_store, p + PAGE - 3, SIGSEGV, SEGV_MAPERR,
		     p + PAGE);
	need(p[PAGE - 3] == 'a' && p[PAGE - 1] == 'a', "a store that faulted wrote its first part");
	expect_fault("REP MOVSB across the end", do_movs, p + 100, SIGSEGV, SEGV_MAPERR, p + PAGE);
	need(fault_regs[REG_RCX] == (greg_t)(3 * PAGE - (PAGE - 100)), "RCX was %lld after %lu bytes",
	     fault_regs[REG_RCX], PAGE - 100);
	need((char *)fault_regs[REG_RDI] == p + PAGE, "RDI was %#llx", fault_regs[REG_RDI]);
	need(p[99] == 'a' && p[100] == 'x' && p[PAGE - 1] == 'x', "REP MOVSB did not write what it had done");
}

static void check_push(void)
{
	static char alternate[65536];
	stack_t ss = { .ss_sp = alternate, .ss_size = sizeof(alternate) };
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	char *p = map(2 * PAGE, PROT_READ | PROT_WRITE);

	munmap(p, PAGE);
	sigaltstack(&ss, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	if (!sigsetjmp(fault_jump, 1)) {
		fault_armed = 1;
		do_push(p + PAGE);
		check_fail(__FILE__, __LINE__, "a push to an unmapped page went through");
	}
	need((char *)fault_regs[REG_RSP] == p + PAGE, "a push that faulted left RSP at %#llx, not %p",
	     fault_regs[REG_RSP], (void *)(p + PAGE));
	need(fault_info.si_addr == p + PAGE - 8, "a push faulted at %p", fault_info.si_addr);
}

static char *lazy;
static volatile sig_atomic_t lazy_faults;

static void on_lazy(int sig, siginfo_t *info, void *context)
{
	char *page = (char *)((uintptr_t)info->si_addr & ~(PAGE - 1));

	lazy_faults++;
	if (mprotect(page, PAGE, PROT_READ | PROT_WRITE))
		_exit(4);
	memset(page, (int)((page - lazy) / (long)PAGE), PAGE);
}

/* Closed pages that the handler opens and fills: each access is restarted and then finds its value. */
static void check_restart(void)
{
	struct sigaction sa = { .sa_sigaction = on_lazy, .sa_flags = SA_SIGINFO };
	unsigned nr = 256;

	lazy = map(nr * PAGE, PROT_NONE);
	sigaction(SIGSEGV, &sa, NULL);
	for (unsigned i = 0; i < nr; i++) {
		unsigned n = i * 97 % nr;
		unsigned char got = ((volatile unsigned char *)lazy)[n * PAGE + i];

		need(got == (unsigned char)n, "page %u held %u", n, got);
	}
	need(lazy_faults == (int)nr, "%d faults on %u pages", (int)lazy_faults, nr);
	for (unsigned i = 0; i < nr; i++) {
		need(!mprotect(lazy + i * PAGE, PAGE, i & 1 ? PROT_READ : PROT_NONE), "mprotect: %s",
		     strerror(errno));
		((volatile char *)lazy)[i * PAGE + 1]++;
	}
	need(lazy_faults == 2 * (int)nr, "%d faults after closing %u pages again", (int)lazy_faults, nr);
}

static __attribute__((noinline)) unsigned deep(unsigned n)
{
	volatile char frame[4096];

	frame[0] = (char)n;
	frame[4095] = (char)(n >> 8);
	return n ? deep(n - 1) + (unsigned)(frame[0] == (char)n) : 0;
}

static void check_stack(void)
{
	need(deep(1000) == 1000, "a stack of 4 MiB lost data");
}

/* --- debugging --- */

static volatile sig_atomic_t steps;
static volatile greg_t step_rip;
static volatile sig_atomic_t steps_back;

static void on_step(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;

	steps++;
	if (uc->uc_mcontext.gregs[REG_RIP] <= step_rip || info->si_code != TRAP_TRACE)
		steps_back++;
	step_rip = uc->uc_mcontext.gregs[REG_RIP];
}

static void check_single_step(void)
{
	struct sigaction sa = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };

	sigaction(SIGTRAP, &sa, NULL);
	__asm__ volatile("pushfq\n\t"
			 "orl $0x100, (%%rsp)\n\t"
			 "popfq\n\t"
			 "nop\n\t"
			 "xor %%eax, %%eax\n\t"
			 "cpuid\n\t"
			 "mov $4, %%ecx\n\t"
			 "rep lodsb\n\t"
			 "pushfq\n\t"
			 "andl $~0x100, (%%rsp)\n\t"
			 "popfq\n\t"
			 :
			 : "S"("abcdefgh")
			 : "rax", "rbx", "rcx", "rdx", "memory", "cc");
	/* NOP, XOR, CPUID, MOV, PUSHF, AND and POPF once each, LODSB once per iteration. */
	need(steps == 11, "%d single-step traps instead of 11", (int)steps);
	need(steps_back == 3, "%d traps without progress or with another code, instead of 3",
	     (int)steps_back);
}

static volatile uint32_t watched[4];

static void check_watchpoint(void)
{
	int status;
	long dr6;
	pid_t pid = fork();

	need(pid >= 0, "fork: %s", strerror(errno));
	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		watched[0] = 1;
		watched[2] = watched[1];
		watched[1] = 7; /* this one */
		watched[3] = 2;
		_exit(0);
	}
	need(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "the child did not stop: %#x", status);
	need(!ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[0]), &watched[1]) &&
		     !ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[7]), 0xd0001ul),
	     "setting a watchpoint: %s", strerror(errno));
	ptrace(PTRACE_CONT, pid, NULL, NULL);
	need(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP,
	     "the watchpoint did not hit: %#x", status);
	need(ptrace(PTRACE_PEEKDATA, pid, &watched[1], NULL) << 32 >> 32 == 7,
	     "it hit before the write was done");
	dr6 = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, u_debugreg[6]), NULL);
	need((dr6 & 0xf) == 1, "DR6 is %#lx", dr6);
	ptrace(PTRACE_CONT, pid, NULL, NULL);
	need(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status),
	     "after the watchpoint the child ended with %#x", status);
}

/* --- code --- */

/* mov $N, %eax; ret */
static void put_code(unsigned char *p, uint32_t n)
{
	p[0] = 0xb8;
	memcpy(p + 1, &n, 4);
	p[5] = 0xc3;
}

static void check_new_code(void)
{
	unsigned char *p = (unsigned char *)map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
	unsigned char *w, *x;
	int fd = memfd_create("code", 0);

	for (uint32_t i = 0; i < 2000; i++) {
		put_code(p + 64 * (i % 3), i);
		need(((uint32_t(*)(void))(void *)(p + 64 * (i % 3)))() == i,
		     "patched code returns an old value");
	}
	need(fd >= 0 && !ftruncate(fd, PAGE), "memfd: %s", strerror(errno));
	w = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	x = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	need(w != MAP_FAILED && x != MAP_FAILED, "mmap: %s", strerror(errno));
	for (uint32_t i = 0; i < 1000; i++) {
		put_code(w, i);
		need(((uint32_t(*)(void))(void *)x)() == i, "code written through another mapping is stale");
	}
	for (uint32_t i = 0; i < 100; i++) {
		need(!mprotect(p, PAGE, PROT_READ | PROT_WRITE), "mprotect: %s", strerror(errno));
		put_code(p, i);
		need(!mprotect(p, PAGE, PROT_READ | PROT_EXEC), "mprotect: %s", strerror(errno));
		need(((uint32_t(*)(void))(void *)p)() == i, "code is stale after mprotect");
	}
}

static void do_int80(void *p)
{
	long rax = 20; /* getpid of the 32-bit table */

	__asm__ volatile("int $0x80" : "+a"(rax)::"memory", "r8", "r9", "r10", "r11");
	*(long *)p = rax;
}

static bool have_int80(void)
{
	long pid;

	return !fault_of(do_int80, &pid);
}

/* A far call into a 32-bit code segment and back. */
static void check_compat_mode(void)
{
	/* mov %ebx, %eax; add %ecx, %eax; inc %eax (a REX prefix in 64-bit mode); push %eax; pop %edx; lret */
	static const unsigned char code[] = { 0x89, 0xd8, 0x01, 0xc8, 0x40, 0x50, 0x5a, 0xcb };
	char *low = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	struct {
		uint32_t offset;
		uint16_t selector;
	} __attribute__((packed)) target;
	uint64_t a, d;
	long pid = 0;

	need(low != MAP_FAILED, "mmap: %s", strerror(errno));
	memcpy(low, code, sizeof(code));
	target.offset = (uint32_t)(uintptr_t)low;
	target.selector = 0x23; /* the kernel's 32-bit user code segment */
	__asm__ volatile("mov %%rsp, %%r12\n\t"
			 "mov %[stack], %%rsp\n\t"
			 "lcall *(%[target])\n\t"
			 "mov %%r12, %%rsp\n\t"
			 : "=a"(a), "=d"(d)
			 : [stack] "r"(low + 2 * PAGE - 16), [target] "r"(&target), "b"(0xfffffff0ul),
			   "c"(0x20ul)
			 : "r12", "memory", "cc");
	need(a == 0x11 && d == 0x11, "32-bit code returned %#lx and %#lx", (unsigned long)a,
	     (unsigned long)d);
	need(!fault_of(do_int80, &pid) && pid == getpid(), "INT 80H says pid %ld, not %d", pid, getpid());
}

static void check_cpuid(void)
{
	uint32_t a, b, c, d, lo, hi, aux;
	uint64_t last = 0;

	need(__get_cpuid(1, &a, &b, &c, &d), "CPUID has no leaf 1");
	need((d & (1 << 25)) && (d & (1 << 26)), "CPUID offers no SSE2");
	if (c & (1 << 27)) {
		__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
		need((lo & 3) == 3, "XCR0 is %#x", lo);
	}
	for (int i = 0; i < 20000; i++) {
		uint64_t t;

		__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
		t = (uint64_t)hi << 32 | lo;
		need(t > last, "the TSC went from %#lx to %#lx", (unsigned long)last, (unsigned long)t);
		last = t;
	}
	if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !(d & (1 << 27)))
		return;
	__asm__ volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
	need((aux & 0xfff) < 64, "RDTSCP says CPU %u", aux & 0xfff);
}

/* --- arithmetic --- */

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void check_integers(void)
{
	static uint32_t v[20000];
	uint32_t crc = ~0u, x = 1;
	uint64_t h = 1;

	for (unsigned i = 0; i < 20000; i++) {
		x = x * 1664525 + 1013904223;
		v[i] = x;
		crc ^= x & 0xff;
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	need(~crc == 0x30e0a56c, "a CRC is %#x", ~crc);
	qsort(v, 20000, sizeof(v[0]), compare);
	for (unsigned i = 1; i < 20000; i++)
		need(v[i - 1] <= v[i], "sorting left %u before %u", v[i - 1], v[i]);
	for (uint64_t i = 1; i < 20000; i++) {
		unsigned __int128 p = (unsigned __int128)(h | 1) * (i * 0x9e3779b97f4a7c15ull | 1);
		uint64_t q = i * 77 + 1;

		need((uint64_t)(p / q) * q + (uint64_t)(p % q) == (uint64_t)p,
		     "a division of 128 bits is wrong");
		h = (h << 13 | h >> 51) ^ (uint64_t)(p >> 64) ^ (uint64_t)p;
	}
	need(h == 0x540d3caf2e60ec98ull, "a hash is %#lx", (unsigned long)h);
}

static void check_floats(void)
{
	volatile double two = 2, tenth = 0.1, sum = 0;
	volatile long double one = 1, three = 3;
	long double third;
	uint64_t bits;
	double d;

	d = sqrt(two);
	memcpy(&bits, &d, 8);
	need(bits == 0x3ff6a09e667f3bcdull, "sqrt(2) is %#lx", (unsigned long)bits);
	for (int i = 0; i < 1000000; i++)
		sum += tenth;
	d = sum;
	memcpy(&bits, &d, 8);
	need(bits == 0x40f86a00000165cbull, "a million tenths are %#lx", (unsigned long)bits);
	third = one / three;
	memcpy(&bits, &third, 8);
	need(bits == 0xaaaaaaaaaaaaaaabull, "1/3 on the x87 is %#lx", (unsigned long)bits);
	need(fabs(sin(1.0) * sin(1.0) + cos(1.0) * cos(1.0) - 1) < 1e-15, "sin and cos disagree");
	need(fabs(exp(log(10.0)) - 10) < 1e-14, "exp and log disagree");
	need((int64_t)(float)16777217 == 16777216, "a float holds too much");
}

/* --- vector state --- */

struct vec_state {
	uint8_t x87[108]; /* as FNSAVE lays it out [SDM1 8.1.10]: 28 bytes of environment, 8 registers */
	uint32_t mxcsr;
	uint8_t reg[16][32];
} __attribute__((aligned(32)));

enum what { YIELD, SPIN };

/* Loads s, yields n times or counts to n without leaving the program, stores to *ret_s. */
#define DEFINE_HOLD(name, mov, size)                                                                         \
	static void name(const struct vec_state *s, struct vec_state *ret_s, enum what what, long n)         \
	{                                                                                                    \
		uint32_t mxcsr;                                                                              \
		__asm__ volatile("stmxcsr %0" : "=m"(mxcsr));                                                \
		__asm__ volatile("frstor (%[s])\n\tldmxcsr 108(%[s])\n\t" mov " 112(%[s]), " size            \
				 "0\n\t" mov " 144(%[s]), " size "1\n\t" mov " 176(%[s]), " size "2\n\t" mov \
				 " 208(%[s]), " size "3\n\t" mov " 240(%[s]), " size "4\n\t" mov             \
				 " 272(%[s]), " size "5\n\t" mov " 304(%[s]), " size "6\n\t" mov             \
				 " 336(%[s]), " size "7\n\t" mov " 368(%[s]), " size "8\n\t" mov             \
				 " 400(%[s]), " size "9\n\t" mov " 432(%[s]), " size "10\n\t" mov            \
				 " 464(%[s]), " size "11\n\t" mov " 496(%[s]), " size "12\n\t" mov           \
				 " 528(%[s]), " size "13\n\t" mov " 560(%[s]), " size "14\n\t" mov           \
				 " 592(%[s]), " size "15\n\t"                                                \
				 "test %[what], %[what]\n\tjnz 2f\n"                                         \
				 "1:\tmov %[yield], %%eax\n\tsyscall\n\tdec %[n]\n\tjnz 1b\n\tjmp 3f\n"      \
				 "2:\tdec %[n]\n\tjnz 2b\n3:\n\t" mov " " size "0, 112(%[o])\n\t" mov        \
				 " " size "1, 144(%[o])\n\t" mov " " size "2, 176(%[o])\n\t" mov " " size    \
				 "3, 208(%[o])\n\t" mov " " size "4, 240(%[o])\n\t" mov " " size             \
				 "5, 272(%[o])\n\t" mov " " size "6, 304(%[o])\n\t" mov " " size             \
				 "7, 336(%[o])\n\t" mov " " size "8, 368(%[o])\n\t" mov " " size             \
				 "9, 400(%[o])\n\t" mov " " size "10, 432(%[o])\n\t" mov " " size            \
				 "11, 464(%[o])\n\t" mov " " size "12, 496(%[o])\n\t" mov " " size           \
				 "13, 528(%[o])\n\t" mov " " size "14, 560(%[o])\n\t" mov " " size           \
				 "15, 592(%[o])\n\t"                                                         \
				 "stmxcsr 108(%[o])\n\tfnsave (%[o])\n\tldmxcsr %[mxcsr]\n\t"                \
				 : [n] "+r"(n)                                                               \
				 : [s] "r"(s), [o] "r"(ret_s), [what] "r"(what), [mxcsr] "m"(mxcsr),         \
				   [yield] "i"(SYS_sched_yield)                                              \
				 : "rax", "rcx", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3",      \
				   "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",         \
				   "xmm12", "xmm13", "xmm14", "xmm15");                                      \
	}

/* clang-format off */
DEFINE_HOLD(hold_sse, "movdqu", "%%xmm")
DEFINE_HOLD(hold_avx, "vmovdqu", "%%ymm")
/* clang-format on */

static void make_state(struct vec_state *s, unsigned seed, bool avx)
{
	/* Rounding and precision control; all exceptions masked. */
	uint16_t cw = (uint16_t)(0x007f | (seed & 3) << 10 | (seed & 1 ? 0x300 : 0x200));
	uint32_t x = seed * 2654435761u + 1;

	memset(s, 0, sizeof(*s));
	for (unsigned i = 0; i < 16; i++) {
		for (unsigned k = 0; k < (avx ? 32 : 16); k++) {
			x = x * 1664525 + 1013904223;
			s->reg[i][k] = (uint8_t)(x >> 24);
		}
	}
	s->mxcsr = 0x1f80 | (seed & 3) << 13 | (seed & 4 ? 0x8000 : 0) | (seed & 0x3f);
	/* An odd number of values on the x87 stack, so that tags and top differ. */
	__asm__ volatile("fninit; fldcw %0; fldpi; fldl2e; fld1; fildl %1; fildl %2; fnsave %3" ::"m"(cw),
			 "m"((int){ (int)(seed * 1000 + 1) }), "m"((int){ -(int)seed }), "m"(s->x87));
}

static void compare_state(const char *where, const struct vec_state *a, const struct vec_state *b)
{
	need(a->mxcsr == b->mxcsr, "%s: MXCSR changed from %#x to %#x", where, a->mxcsr, b->mxcsr);
	for (unsigned i = 0; i < 16; i++) {
		need(!memcmp(a->reg[i], b->reg[i], 16), "%s: xmm%u changed", where, i);
		need(!memcmp(a->reg[i], b->reg[i], 32), "%s: the upper half of ymm%u changed", where, i);
	}
	/* Control, status and tag word; the pointers between are not kept by every CPU. */
	need(!memcmp(a->x87, b->x87, 2) && !memcmp(a->x87 + 4, b->x87 + 4, 2) &&
		     !memcmp(a->x87 + 8, b->x87 + 8, 2),
	     "%s: the x87 control, status or tag word changed", where);
	need(!memcmp(a->x87 + 28, b->x87 + 28, 80), "%s: an x87 register changed", where);
}

static void hold(const char *where, unsigned seed, bool avx, enum what what, long n)
{
	struct vec_state before, after;

	make_state(&before, seed, avx);
	after = before;
	(avx ? hold_avx : hold_sse)(&before, &after, what, n);
	compare_state(where, &before, &after);
}

static bool have_avx(void)
{
	return __builtin_cpu_supports("avx");
}

static void compete(const char *where, bool avx, enum what what, long n, unsigned rounds)
{
	cpu_set_t one;
	int status;

	/* All on one CPU, so that they take turns. */
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_setaffinity(0, sizeof(one), &one);
	for (unsigned p = 0; p < 3; p++) {
		pid_t pid = fork();

		need(pid >= 0, "fork: %s", strerror(errno));
		if (!pid) {
			for (unsigned i = 0; i < rounds; i++)
				hold(where, p * 1000 + i, avx && (p != 2 || i % 2), what, n);
			_exit(0);
		}
	}
	for (unsigned p = 0; p < 3; p++)
		need(wait(&status) > 0 && !status, "%s: a process ended with %#x", where, status);
}

static void check_sse_switch(void)
{
	compete("SSE and x87 across yields", false, YIELD, 20, 150);
}

static void check_avx_switch(void)
{
	compete("AVX and x87 across yields", true, YIELD, 20, 150);
}

static void check_fpu_preempt(void)
{
	compete("vector state across preemption", have_avx(), SPIN, 4000000, 4);
}

static volatile sig_atomic_t spoils, spoil_avx;

static void on_spoil(int sig)
{
	struct vec_state other, dump;

	spoils++;
	make_state(&other, 4711 + (unsigned)spoils, spoil_avx);
	(spoil_avx ? hold_avx : hold_sse)(&other, &dump, SPIN, 10);
}

static void check_fpu_signal(void)
{
	struct itimerval it = { { 0, 3000 }, { 0, 3000 } };

	spoil_avx = have_avx();
	need(signal(SIGALRM, on_spoil) != SIG_ERR, "signal: %s", strerror(errno));
	setitimer(ITIMER_REAL, &it, NULL);
	for (unsigned i = 0; i < 200 && (i < 4 || spoils < 10); i++)
		hold("vector state across signals", i, have_avx(), SPIN, 2000000);
	need(spoils >= 10, "only %d signals came", (int)spoils);
}

const struct check check_cpu_table[] = {
	{ "cpuid", check_cpuid, NULL },
	{ "integers", check_integers, NULL },
	{ "floats", check_floats, NULL },
	{ "faults", check_faults, NULL },
	{ "precise-faults", check_precise, NULL },
	{ "push-fault", check_push, NULL },
	{ "restart", check_restart, NULL },
	{ "stack-growth", check_stack, NULL },
	{ "single-step", check_single_step, NULL },
	{ "watchpoint", check_watchpoint, NULL },
	{ "new-code", check_new_code, NULL },
	{ "compat-mode", check_compat_mode, have_int80 },
	{ "sse-switch", check_sse_switch, NULL },
	{ "avx-switch", check_avx_switch, have_avx },
	{ "fpu-preempt", check_fpu_preempt, NULL },
	{ "fpu-signal", check_fpu_signal, NULL },
	{ NULL, NULL, NULL },
};
