/* As many processors as a machine may have: each is started by INIT and start-up IPI from real mode, has the APIC ID it was called
 * by, answers interrupts sent to it alone and to all, and takes its turn at a lock. */
#define SMP_MAX 64u
#include "lib/smp.h"

static volatile u32 ids_seen[SMP_MAX], answers[SMP_MAX], quit;
static volatile u32 lock_next, lock_serving;
static volatile u64 under_lock;

static u32 my_id(void)
{
	return apic_read(APIC_ID) >> 24;
}

static void on_ipi(struct frame *f)
{
	answers[my_id()]++;
	apic_write(APIC_EOI, 0);
}

static void count_me(void)
{
	u32 r[4];

	cpuid(0xb, 0, r);
	if (r[3] == my_id())
		ids_seen[my_id()]++;
}

static void listen(void)
{
	sti();
	while (!quit)
		__asm__ volatile("pause");
	cli();
}

static void sleep_and_listen(void)
{
	while (!quit)
		sti_hlt();
}

/* How many have answered n times. */
static u32 answered(u32 n)
{
	u32 sum = 0;

	for (u32 k = 1; k < SMP_MAX; k++)
		sum += answers[k] == n;
	return sum;
}

/* Do all answer n times? A slow host with other work needs seconds for a turn of 64 processors. */
static bool all_answer(u32 n)
{
	u64 begin = rdtsc();

	while (answered(n) != SMP_MAX - 1 && rdtsc() - begin < 100000000000ull)
		__asm__ volatile("pause");
	return answered(n) == SMP_MAX - 1;
}

static void call_all(void)
{
	bool all;

	for (u32 k = 1; k < SMP_MAX; k++) {
		apic_write(APIC_ICR2, k << 24);
		apic_write(APIC_ICR, 0x4061);
	}
	all = all_answer(1);
	check(all, "%u answer an interrupt for each", answered(1));
	for (u32 n = 2; n <= 20 && all; n++) {
		apic_write(APIC_ICR, 0xc4061); /* all but this one */
		all = all_answer(n);
	}
	check(answered(20) == SMP_MAX - 1, "%u answer nineteen for all", answered(20));
	quit = 1;
	apic_write(APIC_ICR, 0xc4061);
}

static void take_turns(void)
{
	for (u32 n = 0; n < 100; n++) {
		u32 mine = __atomic_fetch_add(&lock_next, 1, __ATOMIC_SEQ_CST);

		while (lock_serving != mine)
			__asm__ volatile("pause");
		under_lock++;
		lock_serving = mine + 1;
	}
}

void guest_main(void)
{
	u32 all = 0;
	bool ended;

	cli();
	interrupt_handler[0x61] = on_ipi;
	if (!aps_begin(SMP_MAX - 1)) {
		check(false, "only %u other processors start", ap_alive);
		return;
	}
	ended = ap_together(count_me, count_me);
	for (u32 k = 0; k < SMP_MAX; k++)
		all += ids_seen[k] == 1;
	check(ended && all == SMP_MAX, "%u processors, each with an APIC ID of its own", all);
	check(ap_together(listen, call_all), "and all come back");
	for (u32 k = 0; k < SMP_MAX; k++)
		answers[k] = 0;
	quit = 0;
	check(ap_together(sleep_and_listen, call_all), "the same from HLT");
	ended = ap_together(take_turns, take_turns);
	check(ended && under_lock == 100ull * SMP_MAX, "a lock in turns: %llu of %u", under_lock,
	      100 * SMP_MAX);
}
