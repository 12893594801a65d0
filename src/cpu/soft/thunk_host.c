/* Thunks, the host's part: executable memory, and the signals of instructions that fault.
 *
 * One memfd for the process, mapped once to be written and once to be executed, never both in one
 * mapping; each VM claims a part (sparse: untouched pages cost nothing). The sizes bound what a
 * guest can make of it.
 *
 * SIGFPE, SIGSEGV and SIGILL at an address in that memory are the guest's: the handler makes the
 * interrupted thread go on in thunk_recover(). The vector and MXCSR state that the kernel saved comes
 * back with the signal's return, so the guest finds its exception flags as the hardware left them. All
 * other signals go where they went before.
 *
 * thunk_init() and the arenas on the main thread, the rest on each vCPU's own.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/asan.h"
#include "cpu/soft/fpu.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/jit/lockstep.h"
#include "cpu/soft/thunk.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010u
#endif
#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

#define NR_ARENAS  64 /* one bit each in claimed */
#define SLOTS_SIZE (THUNK_SLOTS * sizeof(struct thunk_slot))

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
static bool initialized;
static u8 *code_rw;
static const u8 *code_rx;
static struct thunk_slot *all_slots;
static _Atomic u64 claimed;

static _Thread_local struct soft_cpu *this_cpu;
static _Thread_local stack_t this_stack;

static const int signals[] = { SIGFPE, SIGSEGV, SIGILL };
static struct sigaction old_action[ARRAY_SIZE(signals)];

/* --- signals ----------------------------------------------------------------------------- */
/* The guest's vector, or -1: not the guest's doing. */
static int fault_vector(int sig, const siginfo_t *si, const ucontext_t *uc)
{
	long trap = uc->uc_mcontext.gregs[REG_TRAPNO];

	switch (sig) {
	case SIGFPE:
		return si->si_code == FPE_INTDIV || trap == EXC_DE ? EXC_DE
		       : trap == EXC_XM                            ? EXC_XM
								   : EXC_MF;
	case SIGILL: return EXC_UD;
	case SIGSEGV: return trap == EXC_GP ? EXC_GP : -1; /* a page fault in here is bothy's own bug */
	default: return -1;
	}
}

/* A fault in translated code: the interpreter does the instruction again, and faults as the guest should. Or more
 * CALLs than the host's stack for them has room for. */
static bool jit_signal(struct soft_cpu *c, int vector, u64 addr, greg_t *g)
{
	const u8 *guard = c->jit_cpu->stack;
	u64 to;

	if (addr - (u64)(uintptr_t)guard < JIT_GUARD_SIZE) {
		g[REG_RSP] = (greg_t)c->jit_stack;
		g[REG_RIP] = (greg_t)jit_stack_full(c, (u64)g[REG_RIP], soft_recalled(c));
		return true;
	}
	to = vector >= 0 ? jit_fault(c, (u64)g[REG_RIP]) : 0;
	if (!to && lockstep_fault(c, (u64)g[REG_RIP], addr)) {
		g[REG_RDI] = (greg_t)(uintptr_t)c;
		g[REG_RSP] = (greg_t)(((c->jit_c_rsp - 256) & ~15ull) - 8); /* as if called */
		g[REG_RIP] = (greg_t)(uintptr_t)lockstep_recover;
		g[REG_EFL] &= ~(greg_t)(FL_DF | FL_AC);
		return true;
	}
	if (!to)
		return false;
	g[REG_R9] = (greg_t)(uintptr_t)c->jit_rec; /* T0 */
	g[REG_RIP] = (greg_t)to;
	return true;
}

static void on_alarm(int sig)
{
	if (!this_cpu)
		return;
	this_cpu->jit_alarm = 1;
	soft_recall(this_cpu);
}

static void on_signal(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	u64 rip = (u64)g[REG_RIP], rx = (u64)(uintptr_t)code_rx;
	int vector = fault_vector(sig, si, uc);

	if (rip - rx < NR_ARENAS * THUNK_CODE_SIZE && this_cpu && vector >= 0) {
		g[REG_RDI] = (greg_t)(uintptr_t)this_cpu;
		g[REG_RSI] = (greg_t)(uintptr_t)this_cpu->native;
		g[REG_RDX] = vector;
		/* As if called: RSP is 8 off a multiple of 16. The thunk has no red zone. */
		g[REG_RSP] = (greg_t)((((u64)g[REG_RSP] - 256) & ~15ull) - 8);
		g[REG_RIP] = (greg_t)(uintptr_t)thunk_recover;
		g[REG_EFL] &= ~(greg_t)(FL_DF | FL_AC);
		return;
	}
	if (this_cpu && this_cpu->jit && jit_signal(this_cpu, vector, (u64)(uintptr_t)si->si_addr, g))
		return;
	for (unsigned k = 0; k < ARRAY_SIZE(signals); k++) {
		if (signals[k] != sig)
			continue;
		if (old_action[k].sa_flags & SA_SIGINFO && old_action[k].sa_sigaction) {
			old_action[k].sa_sigaction(sig, si, context);
			return;
		}
		/* The default: the instruction faults again and ends the process. */
		sigaction(sig, &old_action[k], NULL);
	}
}

#ifdef ADDRESS_SANITIZER
/* The sanitizer's own code uses vector registers: ZMM16 and up are the guest's, perhaps, where a handler raises a fault. */
static void spill_for_sanitizer(void)
{
	fpu_spill(this_cpu);
}
#endif

/* --- memory ------------------------------------------------------------------------------ */
static int map_code(struct err *err)
{
	size_t size = NR_ARENAS * THUNK_CODE_SIZE;
	int fd = memfd_create("bothy-thunks", MFD_CLOEXEC | MFD_EXEC), code;
	void *rw, *rx;

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("bothy-thunks", MFD_CLOEXEC);
	if (fd < 0)
		return err_sys(err, -errno, "cannot make the memory for native instructions");
	if (ftruncate(fd, (off_t)size) < 0) {
		code = err_sys(err, -errno, "cannot size the memory for native instructions");
		close(fd);
		return code;
	}
	rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	rx = rw == MAP_FAILED ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	code = errno;
	close(fd);
	if (rx == MAP_FAILED) {
		if (rw != MAP_FAILED)
			munmap(rw, size);
		return err_sys(err, -code,
			       "this host refuses executable memory (memfd), which the software engine "
			       "needs for vector and x87 instructions");
	}
	all_slots = mmap(NULL, NR_ARENAS * SLOTS_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (all_slots == MAP_FAILED) {
		code = errno;
		munmap(rw, size);
		munmap(rx, size);
		return err_sys(err, -code, "no memory for the table of native instructions");
	}
	code_rw = rw;
	code_rx = rx;
	return 0;
}

int thunk_init(struct err *err)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	int code = 0;

	pthread_mutex_lock(&init_lock);
	if (!initialized) {
		fpu_init();
		code = map_code(err);
		sigemptyset(&sa.sa_mask);
		for (unsigned k = 0; !code && k < ARRAY_SIZE(signals); k++)
			if (sigaction(signals[k], &sa, &old_action[k]) < 0)
				code = err_sys(err, -errno, "cannot handle signal %d", signals[k]);
		sa = (struct sigaction){ .sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART };
		if (!code && sigaction(JIT_SIGNAL, &sa, NULL) < 0)
			code = err_sys(err, -errno, "cannot handle signal %d", JIT_SIGNAL);
		initialized = !code;
	}
	pthread_mutex_unlock(&init_lock);
	return code;
}

int thunk_arena_new(struct thunk_arena **ret_arena, struct err *err)
{
	struct thunk_arena *a = calloc(1, sizeof(*a));
	u64 old = atomic_load(&claimed);

	if (!a)
		return err_set(err, -ENOMEM, "no memory for native instructions");
	do {
		if (!~old) {
			free(a);
			return err_set(err, -EBUSY, "this process runs %d machines already", NR_ARENAS);
		}
		a->index = (unsigned)__builtin_ctzll(~old);
	} while (!atomic_compare_exchange_weak(&claimed, &old, old | BIT(a->index)));
	a->rw = code_rw + (u64)a->index * THUNK_CODE_SIZE;
	a->rx = code_rx + (u64)a->index * THUNK_CODE_SIZE;
	a->slots = all_slots + (u64)a->index * THUNK_SLOTS;
	thunk_reset(a);
	*ret_arena = a;
	return 0;
}

void thunk_arena_free(struct thunk_arena *a)
{
	if (!a)
		return;
	atomic_fetch_and(&claimed, ~BIT(a->index));
	free(a);
}

void thunk_thread_init(struct soft_cpu *c)
{
	this_cpu = c;
#ifdef ADDRESS_SANITIZER
	asan_before = spill_for_sanitizer;
#endif
	if (!this_stack.ss_sp) {
		size_t size = ALIGN_UP(getauxval(AT_MINSIGSTKSZ) + 64 * KiB, 4 * KiB);
		void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK,
			       -1, 0);

		if (p != MAP_FAILED) {
			this_stack = (stack_t){ .ss_sp = p, .ss_size = size };
			sigaltstack(&this_stack, NULL);
		}
	}
}

void thunk_thread_forget(const struct soft_cpu *c)
{
	if (this_cpu != c)
		return;
#ifdef ADDRESS_SANITIZER
	asan_before = NULL;
#endif
	this_cpu = NULL;
}

void thunk_thread_fini(void)
{
	stack_t off = { .ss_flags = SS_DISABLE };

	thunk_thread_forget(this_cpu);
	if (this_stack.ss_sp) {
		sigaltstack(&off, NULL);
		munmap(this_stack.ss_sp, this_stack.ss_size);
		this_stack = (stack_t){ .ss_sp = NULL };
	}
}
