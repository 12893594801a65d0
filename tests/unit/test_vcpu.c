/* vCPU threads with an engine of the test: mailbox, HLT, local timer, INIT and SIPI, stop; and how a VM ends. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/os.h"
#include "vm/vm.h"

static struct vm vm;
static struct vcpu cpu[4];

/* What the fake engine keeps per vCPU, and what its "guest" does. */
struct fake {
	struct x86_state state;
	enum { HALTS, SPINS, CRASHES, REFUSES } guest;
	_Atomic u64 runs, intr, nmi, timer, kicks, sets;
	_Atomic u64 rip, cs_base, edx;
	_Atomic int activity;
	_Atomic bool in_run;
	sigset_t mask;
	struct vcpu *self;
	u64 sent; /* by this vCPU to its peer, see ping-pong */
};

static struct fake fake[4];

static struct fake *fake_of(struct vcpu *vcpu)
{
	return vcpu->engine;
}

static int fake_get_state(struct vcpu *vcpu, struct x86_state *ret_state, struct err *err)
{
	*ret_state = fake_of(vcpu)->state;
	return 0;
}

static int fake_set_state(struct vcpu *vcpu, const struct x86_state *state, struct err *err)
{
	struct fake *f = fake_of(vcpu);

	if (f->guest == REFUSES)
		return err_set(err, -EINVAL, "CR0 is bad");
	f->state = *state;
	f->rip = state->rip;
	f->cs_base = state->seg[SEG_CS].base;
	f->edx = state->gpr[R_DX];
	f->activity = state->activity;
	f->sets++;
	return 0;
}

static void fake_kick(struct vcpu *vcpu)
{
	fake_of(vcpu)->kicks++;
}

static void (*on_intr)(struct vcpu *vcpu);

static enum run_end fake_run(struct vcpu *vcpu)
{
	struct fake *f = fake_of(vcpu);

	f->runs++;
	f->self = vcpu_self();
	pthread_sigmask(SIG_SETMASK, NULL, &f->mask);
	f->in_run = true;
	for (;;) {
		if (vcpu_take(vcpu, VCPU_REQ_TIMER))
			f->timer++;
		if (vcpu_take(vcpu, VCPU_REQ_NMI))
			f->nmi++;
		if (vcpu_take(vcpu, VCPU_REQ_INTR)) {
			f->intr++;
			if (on_intr)
				on_intr(vcpu);
		}
		vcpu_timer_check(vcpu);
		if (f->guest == CRASHES) {
			vm_crash(vcpu->vm, "triple fault at 0");
			return RUN_SHUTDOWN;
		}
		if (atomic_load(&vcpu->requests)) {
			f->in_run = false;
			return RUN_REQUEST;
		}
		if (f->guest == HALTS) {
			f->in_run = false;
			return RUN_HLT;
		}
	}
}

static const struct engine_ops fake_engine = {
	.name = "fake",
	.run = fake_run,
	.kick = fake_kick,
	.get_state = fake_get_state,
	.set_state = fake_set_state,
};

static int setup(void **state)
{
	memset(&vm, 0, sizeof(vm));
	memset(cpu, 0, sizeof(cpu));
	memset(fake, 0, sizeof(fake));
	on_intr = NULL;
	vm.engine = &fake_engine;
	vm.tsc_khz = os_tsc_khz();
	vm.cpuid.signature = 0x306c3;
	vm.nr_vcpus = 4;
	for (u32 i = 0; i < 4; i++) {
		cpu[i].vm = &vm;
		cpu[i].id = i;
		cpu[i].engine = &fake[i];
		cpu[i].timer_tsc = ~0ull;
		vm.vcpu[i] = &cpu[i];
	}
	return loop_new(&vm.loop, NULL);
}

static int teardown(void **state)
{
	for (u32 i = 0; i < 4; i++)
		vcpu_join(&cpu[i]);
	loop_free(vm.loop);
	return 0;
}

static void start(u32 i, bool bsp)
{
	struct x86_state s;
	struct err err = { 0 };

	x86_state_reset(&s, false, bsp, vm.cpuid.signature);
	assert_int_equal(vcpu_start(&cpu[i], &s, &err), 0);
}

/* Waits until it holds, at most ten seconds. */
#define eventually(cond)                                 \
	do {                                             \
		u64 end_ = os_now_ns() + 10000000000ull; \
		while (!(cond) && os_now_ns() < end_)    \
			usleep(50);                      \
		assert_true(cond);                       \
	} while (0)

static void test_start_stop(void **state)
{
	struct x86_state s;
	sigset_t before, after;
	struct err err = { 0 };

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	fake[0].guest = SPINS;
	start(0, true);
	eventually(fake[0].in_run);
	assert_null(vcpu_self());
	vcpu_join(&cpu[0]);
	assert_false(cpu[0].thread_started);
	assert_ptr_equal(fake[0].self, &cpu[0]);
	assert_true(cpu[0].stats.start_tsc && cpu[0].stats.stop_tsc > cpu[0].stats.start_tsc);
	vcpu_join(&cpu[0]); /* again: nothing */

	/* Signals: only what instructions raise gets through; ours are as before. */
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	for (int sig = 1; sig < 32; sig++) {
		bool open = sig == SIGSEGV || sig == SIGFPE || sig == SIGILL || sig == SIGBUS ||
			    sig == SIGTRAP || sig == SIGKILL || sig == SIGSTOP;

		assert_int_equal(sigismember(&fake[0].mask, sig), !open);
		assert_int_equal(sigismember(&before, sig), sigismember(&after, sig));
	}

	/* It starts again where it was told to; its time adds up. */
	u64 wall = cpu[0].stats.stop_tsc - cpu[0].stats.start_tsc;
	usleep(20000);
	fake[0].in_run = false;
	start(0, true);
	eventually(fake[0].in_run);
	vcpu_join(&cpu[0]);
	assert_true(cpu[0].stats.stop_tsc - cpu[0].stats.start_tsc > wall);

	fake[0].guest = REFUSES;
	x86_state_reset(&s, false, true, 0);
	assert_int_equal(vcpu_start(&cpu[0], &s, &err), -EINVAL);
	assert_string_equal(err.msg, "vCPU 0 cannot start: CR0 is bad");
	assert_false(cpu[0].thread_started);
}

static void test_requests_while_running(void **state)
{
	fake[0].guest = SPINS;
	start(0, true);
	eventually(fake[0].in_run);
	vcpu_post(&cpu[0], VCPU_REQ_NMI);
	eventually(fake[0].nmi == 1);
	vcpu_post(&cpu[0], VCPU_REQ_TIMER);
	vcpu_post(&cpu[0], VCPU_REQ_INTR);
	eventually(fake[0].intr == 1 && fake[0].timer == 1);
	assert_int_equal(fake[0].kicks, 3);
	/* A SIPI to a running processor is ignored. */
	atomic_store(&cpu[0].sipi_vector, 9);
	vcpu_post(&cpu[0], VCPU_REQ_SIPI);
	eventually(!(atomic_load(&cpu[0].requests) & VCPU_REQ_SIPI));
	assert_int_equal(fake[0].sets, 1);
}

static void test_halt_and_wake(void **state)
{
	u64 idle, runs;

	start(0, true);
	for (u32 bit = 0; bit < 3; bit++) {
		static const u32 bits[] = { VCPU_REQ_INTR, VCPU_REQ_NMI, VCPU_REQ_TIMER };

		eventually(atomic_load(&cpu[0].sleeping));
		vcpu_post(&cpu[0], bits[bit]);
		eventually(fake[0].intr + fake[0].nmi + fake[0].timer == bit + 1);
	}
	assert_int_equal(fake[0].kicks, 0);
	/* Nothing to do: it sleeps and does not run. */
	eventually(atomic_load(&cpu[0].sleeping));
	runs = fake[0].runs;
	idle = os_now_ns();
	usleep(30000);
	assert_int_equal(fake[0].runs, runs);
	vcpu_join(&cpu[0]);
	idle = (os_now_ns() - idle) / 1000000;
	assert_in_range(cpu[0].stats.idle_tsc / vm.tsc_khz, 25, idle + 1000);
	assert_in_range(cpu[0].stats.reason[EXIT_HLT].count, 3, 5);
	assert_true(cpu[0].stats.reason[EXIT_HLT].tsc >= cpu[0].stats.idle_tsc);
}

static _Atomic u64 ticks;
static u64 tick_period;

static void on_timer(void *opaque)
{
	struct vcpu *vcpu = opaque;

	assert_ptr_equal(vcpu_self(), vcpu);
	assert_true(vcpu->timer_tsc == ~0ull);
	ticks++;
	if (tick_period)
		vcpu->timer_tsc = vcpu_rdtsc() + tick_period;
}

static void test_timer_in_halt(void **state)
{
	u64 t0 = os_now_ns();

	ticks = 0;
	tick_period = vm.tsc_khz; /* 1 ms */
	cpu[0].timer_fn = on_timer;
	cpu[0].timer_opaque = &cpu[0];
	cpu[0].timer_tsc = vcpu_rdtsc() + tick_period;
	start(0, true);
	eventually(ticks >= 20);
	assert_true(os_now_ns() - t0 >= 19000000);
	vcpu_join(&cpu[0]);
	/* It slept in between rather than poll: once round the loop for each tick. */
	assert_in_range(fake[0].runs, 20, ticks + 3);
	/* Far away, and without a function. */
	ticks = 0;
	cpu[0].timer_tsc = ~0ull - 1;
	start(0, true);
	eventually(atomic_load(&cpu[0].sleeping));
	vcpu_join(&cpu[0]);
	assert_int_equal(ticks, 0);
	cpu[0].timer_fn = NULL;
	cpu[0].timer_tsc = 0;
	vcpu_timer_check(&cpu[0]);
	assert_true(cpu[0].timer_tsc == ~0ull);
}

static void test_init_sipi(void **state)
{
	start(1, false);
	eventually(atomic_load(&cpu[1].sleeping));
	/* Interrupts do not start it; nor does an INIT. */
	vcpu_post(&cpu[1], VCPU_REQ_INTR | VCPU_REQ_NMI);
	vcpu_post(&cpu[1], VCPU_REQ_INIT);
	eventually(fake[1].sets == 2);
	assert_int_equal(fake[1].activity, X86_WAIT_SIPI);
	assert_int_equal(fake[1].runs, 0);
	atomic_store(&cpu[1].sipi_vector, 0x9a);
	vcpu_post(&cpu[1], VCPU_REQ_SIPI);
	eventually(fake[1].runs > 0);
	assert_int_equal(fake[1].activity, X86_ACTIVE);
	assert_int_equal(fake[1].rip, 0);
	assert_int_equal(fake[1].cs_base, 0x9a000);
	assert_int_equal(fake[1].edx, 0x306c3);
	/* INIT puts it back; a second SIPI that comes along at once starts it elsewhere. */
	atomic_store(&cpu[1].sipi_vector, 0xff);
	vcpu_post(&cpu[1], VCPU_REQ_INIT | VCPU_REQ_SIPI);
	eventually(fake[1].cs_base == 0xff000);
	vcpu_join(&cpu[1]);
	assert_int_equal(fake[1].state.seg[SEG_CS].sel, 0xff00);
	assert_int_equal(cpu[1].stats.reason[EXIT_INIT].count, 2);
	assert_int_equal(cpu[1].stats.reason[EXIT_SIPI].count, 2);
}

static void test_init_bsp(void **state)
{
	fake[0].guest = SPINS;
	start(0, true);
	eventually(fake[0].in_run);
	vcpu_post(&cpu[0], VCPU_REQ_INIT);
	eventually(fake[0].sets == 2 && fake[0].in_run);
	assert_int_equal(fake[0].rip, 0xfff0);
	assert_int_equal(fake[0].activity, X86_ACTIVE);
}

static void test_shutdown(void **state)
{
	fake[0].guest = CRASHES;
	start(0, true);
	assert_int_equal(loop_run(vm.loop), VM_REQ_CRASH);
	assert_string_equal(vm.crash, "triple fault at 0");
	assert_int_equal(atomic_load(&vm.request), VM_REQ_CRASH);
	/* It stays down, whatever comes, and can be joined. */
	eventually(atomic_load(&cpu[0].sleeping));
	vcpu_post(&cpu[0], VCPU_REQ_INTR | VCPU_REQ_NMI | VCPU_REQ_SIPI);
	usleep(2000);
	assert_int_equal(fake[0].runs, 1);
}

/* A parked vCPU does nothing, keeps what is posted, and goes on where it was. */
static void test_pause(void **state)
{
	fake[0].guest = SPINS;
	fake[1].guest = HALTS;
	start(0, true);
	start(1, true);
	eventually(fake[0].in_run && atomic_load(&cpu[1].sleeping));
	for (unsigned round = 0; round < 200; round++) {
		u64 runs[2], intr = fake[0].intr, halted = fake[1].intr;

		vcpu_pause(&cpu[0]);
		vcpu_pause(&cpu[1]);
		vcpu_pause(&cpu[1]); /* twice is once */
		runs[0] = fake[0].runs;
		runs[1] = fake[1].runs;
		vcpu_post(&cpu[0], VCPU_REQ_INTR);
		vcpu_post(&cpu[1], VCPU_REQ_INTR);
		usleep(round ? 50 : 20000);
		assert_true(fake[0].runs == runs[0] && fake[1].runs == runs[1]);
		assert_true(fake[0].intr == intr && fake[1].intr == halted);
		assert_true(cpu[0].stats.stop_tsc != 0);
		vcpu_resume(&cpu[0]);
		vcpu_resume(&cpu[1]);
		vcpu_resume(&cpu[1]);
		eventually(fake[0].intr == intr + 1 && fake[1].intr == halted + 1);
	}
	assert_true(vcpu_cpu_ns(&cpu[0]) > 0);
	/* The end finds it wherever it is. */
	vcpu_pause(&cpu[0]);
	vcpu_join(&cpu[0]);
	assert_int_equal(vcpu_cpu_ns(&cpu[0]), 0);
	vcpu_pause(&cpu[0]);
	vcpu_resume(&cpu[0]);
}

/* One that waits for a start-up IPI can be paused too; time in a pause is none of the vCPU's. */
static void test_pause_waiting(void **state)
{
	u64 wall;

	start(1, false);
	vcpu_pause(&cpu[1]);
	wall = cpu[1].stats.stop_tsc - cpu[1].stats.start_tsc;
	vcpu_post(&cpu[1], VCPU_REQ_SIPI);
	usleep(100000);
	assert_int_equal(fake[1].runs, 0);
	vcpu_resume(&cpu[1]);
	eventually(fake[1].runs);
	vcpu_join(&cpu[1]);
	assert_true(cpu[1].stats.stop_tsc - cpu[1].stats.start_tsc - wall < vm.tsc_khz * 90);
}

static void test_G59_first_request_wins(void **state)
{
	char big[20000];

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	vm_request(&vm, VM_REQ_RESET);
	vm_request(&vm, VM_REQ_POWEROFF);
	vm_crash(&vm, big);
	assert_int_equal(atomic_load(&vm.request), VM_REQ_RESET);
	assert_int_equal(vm.crash[0], 0);
	assert_int_equal(loop_run(vm.loop), VM_REQ_RESET);
	/* The machine has dealt with it: the next one counts again. */
	atomic_store(&vm.request, VM_REQ_NONE);
	vm_crash(&vm, big);
	assert_int_equal(strlen(vm.crash), sizeof(vm.crash) - 1);
	assert_int_equal(loop_run(vm.loop), VM_REQ_CRASH);
}

/* ---- no lost wake-ups ---- */

#define ROUNDS 20000

static void ping(struct vcpu *vcpu)
{
	struct fake *f = fake_of(vcpu);
	struct vcpu *peer = &cpu[vcpu->id ^ 1];

	/* Each interrupt is answered by one to the peer; one lost ends the game. */
	if (++f->sent <= ROUNDS)
		vcpu_post(peer, VCPU_REQ_INTR);
	else
		vm_request(&vm, VM_REQ_EXIT);
}

static void too_slow(void *opaque)
{
	vm_request(&vm, VM_REQ_QUIT);
}

static void test_ping_pong(void **state)
{
	struct loop_timer *guard = loop_timer_new(vm.loop, too_slow, NULL);

	loop_timer_arm(guard, os_now_ns() + 20000000000ull);
	on_intr = ping;
	start(0, true);
	start(1, true);
	vcpu_post(&cpu[0], VCPU_REQ_INTR);
	assert_int_equal(loop_run(vm.loop), VM_REQ_EXIT);
	vcpu_join(&cpu[0]);
	vcpu_join(&cpu[1]);
	assert_true(fake[0].intr >= ROUNDS && fake[1].intr >= ROUNDS);
	loop_timer_free(guard);
}

static void test_poll_limit(void **state)
{
	u32 us = 0;

	/* Woken a little later than it looked: longer, up to a limit. */
	for (unsigned k = 0; k < 10; k++)
		us = vcpu_poll_us(us, us + 1);
	assert_in_range(us, 100, 200);
	/* Woken while it looked: as before. */
	assert_int_equal(vcpu_poll_us(us, 0), us);
	assert_int_equal(vcpu_poll_us(us, us), us);
	/* An idle guest does not look for long, then not at all. */
	for (unsigned k = 0; k < 10 && us; k++) {
		u32 less = vcpu_poll_us(us, 4000);

		assert_true(less < us);
		us = less;
	}
	assert_int_equal(us, 0);
	assert_int_equal(vcpu_poll_us(0, ~0ull), 0);
}

/* However long the waits were. */
static void look_for_20_us(struct vcpu *vcpu)
{
	vcpu->poll_us = 20;
}

/* Posts at random distances around the moment in which the vCPU falls asleep; each must be seen. */
static void test_post_against_sleep(void **state)
{
	u64 enough = os_now_ns() + 6000000000ull; /* a busy machine does fewer */
	unsigned seed = 1;

	on_intr = look_for_20_us;
	start(0, true);
	for (u64 i = 1; i <= 30000 && os_now_ns() < enough; i++) {
		/* In nanoseconds, around the time for which it looks before it sleeps. */
		u64 end = vcpu_rdtsc() + (u64)(rand_r(&seed) % 12000 + 16000) * vm.tsc_khz / 1000000;
		u64 give_up = os_now_ns() + 5000000000ull;

		while (vcpu_rdtsc() < end)
			;
		vcpu_post(&cpu[0], VCPU_REQ_INTR);
		while (fake[0].intr < i && os_now_ns() < give_up)
			;
		assert_int_equal(fake[0].intr, i);
	}
}

/* Four vCPUs and INIT, SIPI, INTR from all sides at once (hostile case G61); then all are stopped. */
static void *bully(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (int i = 0; i < 5000; i++) {
		struct vcpu *v = &cpu[rand_r(&seed) % 4];

		atomic_store(&v->sipi_vector, (u8)rand_r(&seed));
		vcpu_post(v, 1u << rand_r(&seed) % 4); /* INTR, NMI, INIT, SIPI */
		if (i % 64 == 0)
			usleep(50);
	}
	return NULL;
}

static void test_G61_init_races(void **state)
{
	pthread_t t[2];

	for (u32 i = 0; i < 4; i++) {
		fake[i].guest = i == 3 ? SPINS : HALTS;
		start(i, i == 0);
	}
	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, bully, (void *)(i + 1));
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	for (u32 i = 0; i < 4; i++)
		vcpu_join(&cpu[i]);
	assert_true(fake[0].runs > 0 && fake[1].sets > 1);
	assert_true(cpu[0].stats.reason[EXIT_INIT].count > 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_start_stop),    T(test_requests_while_running),
		T(test_halt_and_wake), T(test_timer_in_halt),
		T(test_init_sipi),     T(test_init_bsp),
		T(test_shutdown),      T(test_G59_first_request_wins),
		T(test_pause),         T(test_pause_waiting),
		T(test_ping_pong),     T(test_post_against_sleep),
		T(test_poll_limit),    T(test_G61_init_races),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
