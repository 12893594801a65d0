/* Checks that the state of AVX-512 survives switches between processes, preemption and signals: all 32 vector registers
 * of 512 bits and the mask registers, beside processes that use less of them. Run only where the processor has AVX-512 and the
 * kernel lets programs use it.
 */
#include <cpuid.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"

struct zmm_state {
	uint8_t reg[32][64];
	uint64_t k[8];
} __attribute__((aligned(64)));

enum what { YIELD, SPIN };

/* Loads s, yields n times or counts to n without leaving the program, stores to *ret_s. The compiler knows nothing of
 * the registers that it does not use. */
static __attribute__((noinline)) void hold_zmm(const struct zmm_state *s, struct zmm_state *ret_s,
					       enum what what, long n)
{
	__asm__ volatile(".altmacro\n\t"
			 ".macro zmm_load n\n\tvmovdqu64 64*\\n(%[s]), %%zmm\\n\n\t.endm\n\t"
			 ".macro zmm_store n\n\tvmovdqu64 %%zmm\\n, 64*\\n(%[o])\n\t.endm\n\t"
			 ".macro k_load n\n\tkmovq 2048+8*\\n(%[s]), %%k\\n\n\t.endm\n\t"
			 ".macro k_store n\n\tkmovq %%k\\n, 2048+8*\\n(%[o])\n\t.endm\n\t"
			 ".set r, 0\n\t.rept 32\n\tzmm_load %%r\n\t.set r, r + 1\n\t.endr\n\t"
			 ".set r, 0\n\t.rept 8\n\tk_load %%r\n\t.set r, r + 1\n\t.endr\n\t"
			 "test %[what], %[what]\n\tjnz 2f\n"
			 "1:\tmov %[yield], %%eax\n\tsyscall\n\tdec %[n]\n\tjnz 1b\n\tjmp 3f\n"
			 "2:\tdec %[n]\n\tjnz 2b\n3:\n\t"
			 ".set r, 0\n\t.rept 32\n\tzmm_store %%r\n\t.set r, r + 1\n\t.endr\n\t"
			 ".set r, 0\n\t.rept 8\n\tk_store %%r\n\t.set r, r + 1\n\t.endr\n\t"
			 ".purgem zmm_load\n\t.purgem zmm_store\n\t.purgem k_load\n\t.purgem k_store\n\t"
			 ".noaltmacro\n\tvzeroupper"
			 : [n] "+r"(n)
			 : [s] "r"(s), [o] "r"(ret_s), [what] "r"(what), [yield] "i"(SYS_sched_yield)
			 : "rax", "rcx", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
			   "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
			   "xmm14", "xmm15");
}

static void make_state(struct zmm_state *s, unsigned seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;

	for (size_t k = 0; k < sizeof(*s); k++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		((uint8_t *)s)[k] = (uint8_t)(x >> 56);
	}
}

static void hold(const char *where, unsigned seed, enum what what, long n)
{
	struct zmm_state before, after;

	make_state(&before, seed);
	memset(&after, 0, sizeof(after));
	hold_zmm(&before, &after, what, n);
	for (unsigned r = 0; r < 32; r++)
		need(!memcmp(before.reg[r], after.reg[r], 64), "%s: zmm%u changed", where, r);
	for (unsigned k = 0; k < 8; k++)
		need(before.k[k] == after.k[k], "%s: k%u changed from %#lx to %#lx", where, k,
		     (unsigned long)before.k[k], (unsigned long)after.k[k]);
}

static bool have_avx512(void)
{
	uint32_t a, b, c, d, lo, hi;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1 << 27)))
		return false;
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 16 & 1 && b >> 30 & 1 && (lo & 0xe6) == 0xe6;
}

/* Three processes on one processor, of which one clears the upper halves again and again. */
static void compete(const char *where, enum what what, long n, unsigned rounds)
{
	cpu_set_t one;
	int status;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_setaffinity(0, sizeof(one), &one);
	for (unsigned p = 0; p < 3; p++) {
		pid_t pid = fork();

		need(pid >= 0, "fork: %s", strerror(errno));
		if (pid)
			continue;
		for (unsigned i = 0; i < rounds; i++) {
			if (p == 2)
				__asm__ volatile(
					"vzeroall; vpxord %%zmm20, %%zmm20, %%zmm20; kxorq %%k3, %%k3, %%k3" ::
						: "memory");
			if (p == 2)
				sched_yield();
			hold(where, p * 1000 + i, what, n);
		}
		_exit(0);
	}
	for (unsigned p = 0; p < 3; p++)
		need(wait(&status) > 0 && !status, "%s: a process ended with %#x", where, status);
}

static void check_switch(void)
{
	compete("AVX-512 across yields", YIELD, 20, 150);
}

static void check_preempt(void)
{
	compete("AVX-512 across preemption", SPIN, 4000000, 4);
}

static volatile sig_atomic_t spoils;

static void on_spoil(int sig, siginfo_t *info, void *context)
{
	struct zmm_state other, dump;

	spoils++;
	make_state(&other, 4711 + (unsigned)spoils);
	hold_zmm(&other, &dump, SPIN, 10);
}

static void check_signal(void)
{
	struct sigaction sa = { .sa_sigaction = on_spoil, .sa_flags = SA_SIGINFO };
	struct itimerval it = { { 0, 3000 }, { 0, 3000 } };

	need(!sigaction(SIGALRM, &sa, NULL), "sigaction: %s", strerror(errno));
	setitimer(ITIMER_REAL, &it, NULL);
	for (unsigned i = 0; i < 200 && (i < 4 || spoils < 10); i++)
		hold("AVX-512 across signals", i, SPIN, 2000000);
	need(spoils >= 10, "only %d signals came", (int)spoils);
}

/* The frame of a signal is where the handler may change the interrupted program's registers. */
static uint32_t zmm_hi256_at;

static void on_change(int sig, siginfo_t *info, void *context)
{
	uint8_t *fp = (uint8_t *)((ucontext_t *)context)->uc_mcontext.fpregs;

	memset(fp + zmm_hi256_at + 32 * 5, 0x5a, 32); /* the upper half of zmm5 */
	*(uint64_t *)(void *)(fp + 512) |= 0x40;
}

static void check_frame(void)
{
	struct sigaction sa = { .sa_sigaction = on_change, .sa_flags = SA_SIGINFO };
	uint8_t out[64], half[32];
	uint32_t a, c, d;

	__cpuid_count(0xd, 6, a, zmm_hi256_at, c, d);
	need(a == 512 && zmm_hi256_at >= 832, "CPUID has ZMM_Hi256 of %u bytes at %u", a, zmm_hi256_at);
	need(!sigaction(SIGUSR1, &sa, NULL), "sigaction: %s", strerror(errno));
	memset(half, 0x5a, sizeof(half));
	__asm__ volatile("vpternlogd $0xff, %%zmm5, %%zmm5, %%zmm5\n\t"
			 "mov %[kill], %%eax\n\tsyscall\n\t"
			 "vmovdqu64 %%zmm5, (%[out])\n\tvzeroupper"
			 :
			 : [kill] "i"(SYS_kill), "D"(getpid()), "S"(SIGUSR1), [out] "r"(out)
			 : "rax", "rcx", "r11", "memory", "cc", "xmm5");
	need(!memcmp(out + 32, half, 32), "what a handler left of zmm5 in its frame did not arrive");
	need(out[0] == 0xff && out[31] == 0xff, "the lower half of zmm5 changed");
}

const struct check check_avx512_table[] = {
	{ "avx512-switch", check_switch, have_avx512 },
	{ "avx512-preempt", check_preempt, have_avx512 },
	{ "avx512-signal", check_signal, have_avx512 },
	{ "avx512-frame", check_frame, have_avx512 },
	{ NULL, NULL, NULL },
};
