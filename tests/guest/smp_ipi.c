/* Interrupts between processors [SDM3 10.6]: every destination mode, shorthand and delivery mode, in xAPIC and x2APIC mode; all at
 * once; INIT and start-up; and what they are mostly for: translations that another processor has cached. */
#include "lib/smp.h"

#define CPUS          4u
#define MSR_APIC_BASE 0x1b
#define VECTOR        0x61
#define TIMES         10u
#define WINDOW        0x40000000ul /* two megabytes, mapped now here, now there */
#define FRAME_A       0x2000000ul
#define FRAME_B       0x2200000ul

static volatile u32 got[CPUS], nmis[CPUS], quit, listening;
static bool x2apic, cluster;

static u32 my_id(void)
{
	u32 r[4];

	cpuid(0xb, 0, r);
	return r[3];
}

static void end_of_interrupt(void)
{
	if (x2apic)
		wrmsr(0x80b, 0);
	else
		apic_write(APIC_EOI, 0);
}

static void on_ipi(struct frame *f)
{
	got[my_id()]++;
	end_of_interrupt();
}

static void on_nmi(struct frame *f)
{
	nmis[my_id()]++;
}

/* icr without a destination. */
static void send(u32 dest, u32 icr)
{
	if (x2apic) {
		wrmsr(0x830, (u64)dest << 32 | icr);
		return;
	}
	apic_write(APIC_ICR2, dest << 24);
	apic_write(APIC_ICR, icr);
}

/* Flat: bit n. Cluster: two clusters of two. */
static u32 logical_id(u32 id)
{
	return cluster ? (id / 2) << 4 | 1u << id % 2 : 1u << id;
}

static void set_up(void)
{
	u32 id = my_id();

	if (x2apic) {
		wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0xc00);
		wrmsr(0x80f, 0x1ff);
		wrmsr(0x808, 0);
		return;
	}
	apic_enable();
	apic_write(0xe0, cluster ? 0x0fffffff : 0xffffffff);
	apic_write(0xd0, logical_id(id) << 24);
}

static void listen(void)
{
	set_up();
	__atomic_fetch_add(&listening, 1, __ATOMIC_SEQ_CST);
	sti();
	while (!quit)
		__asm__ volatile("pause");
	cli();
}

static void clear(volatile u32 *what)
{
	for (u32 k = 0; k < CPUS; k++)
		what[k] = 0;
}

static u32 sum(const volatile u32 *what)
{
	u32 n = 0;

	for (u32 k = 0; k < CPUS; k++)
		n += what[k];
	return n;
}

/* Until so many have come, and a little longer in case that there are more; with interrupts on, for this one's. */
static void settle(const volatile u32 *what, u32 n)
{
	u64 begin = rdtsc();

	sti();
	while (sum(what) < n && rdtsc() - begin < PATIENCE)
		__asm__ volatile("pause");
	let_in(300000);
}

/* Sent TIMES times, each time exactly those in mask get it; no more where one does not. */
static void expect_mask(const char *what, u32 dest, u32 icr, u32 mask, volatile u32 *counts)
{
	u32 wrong = 0, targets = 0;

	for (u32 k = 0; k < CPUS; k++)
		targets += mask >> k & 1;
	for (u32 n = 0; n < TIMES && !wrong; n++) {
		clear(counts);
		send(dest, icr);
		settle(counts, targets);
		for (u32 k = 0; k < CPUS; k++)
			wrong += counts[k] != (mask >> k & 1);
	}
	check(!wrong, "%s %s: %u wrong", x2apic ? "x2APIC" : cluster ? "cluster" : "xAPIC", what, wrong);
}

#define LOGICAL (1u << 11)
#define SELF    (1u << 18)
#define ALL     (2u << 18)
#define OTHERS  (3u << 18)
#define LOWEST  (1u << 8)
#define NMI_    (4u << 8)

static void modes(void)
{
	u32 all = (1u << CPUS) - 1, everybody = x2apic ? 0xffffffff : 0xff;

	set_up();
	ap_wait(&listening, CPUS - 1);
	for (u32 k = 0; k < CPUS; k++)
		expect_mask("physical destination", k, VECTOR, 1u << k, got);
	expect_mask("physical broadcast", everybody, VECTOR, all, got);
	expect_mask("a processor that is not there", 77, VECTOR, 0, got);
	for (u32 mask = 1; mask <= all; mask++) {
		u32 dest = mask;

		if (cluster) { /* one cluster in a message */
			if ((mask & 3) && (mask & 12))
				continue;
			dest = mask & 3 ? mask & 3 : 0x10 | mask >> 2;
		}
		expect_mask("logical destination", dest, VECTOR | LOGICAL, mask, got);
	}
	expect_mask("logical broadcast", everybody, VECTOR | LOGICAL, all, got);
	expect_mask("to itself", 2, VECTOR | SELF, 1, got);
	expect_mask("to all", 2, VECTOR | ALL, all, got);
	expect_mask("to all others", 2, VECTOR | OTHERS, all & ~1u, got);
	expect_mask("NMI", 2, NMI_, 4, nmis);
	expect_mask("NMI to all others", 0, NMI_ | OTHERS, all & ~1u, nmis);
	clear(got);
	for (u32 n = 1; n <= 50 && sum(got) >= n - 1; n++) {
		send(cluster ? 0x13 : 0xe, VECTOR | LOGICAL | LOWEST);
		settle(got, n);
	}
	check(sum(got) == 50 && !got[0], "lowest priority: %u of 50 came, %u to one who was not asked",
	      sum(got), got[0]);
	if (x2apic) {
		clear(got);
		wrmsr(0x83f, VECTOR);
		settle(got, 1);
		check(got[0] == 1 && sum(got) == 1, "x2APIC SELF IPI");
	}
	quit = 1;
}

static void all_modes(void)
{
	quit = 0;
	listening = 0;
	check(ap_together(listen, modes), "all come back");
}

/* --- all to all --- */
static volatile u32 asked[CPUS][CPUS], ring_count, ring_phase;

static void barrier(void)
{
	u32 now = ring_phase;

	if (__atomic_add_fetch(&ring_count, 1, __ATOMIC_SEQ_CST) == CPUS) {
		ring_count = 0;
		ring_phase = now + 1;
	} else {
		while (ring_phase == now)
			__asm__ volatile("pause");
	}
}

/* Vector 70H + n is from processor n. */
static void on_question(struct frame *f)
{
	__atomic_fetch_add(&asked[my_id()][f->vector - 0x70], 1, __ATOMIC_SEQ_CST);
	end_of_interrupt();
}

#define QUESTIONS 500u
static volatile u32 late; /* number << 16 | from << 8 | to */

static void ask_all(void)
{
	u32 me = my_id();

	set_up();
	sti();
	barrier();
	for (u32 n = 1; n <= QUESTIONS && !late; n++) {
		u64 begin = rdtsc();

		send(0, (0x70 + me) | OTHERS);
		for (u32 k = 0; k < CPUS; k++)
			while (k != me && asked[k][me] < n && rdtsc() - begin < PATIENCE)
				__asm__ volatile("pause");
		for (u32 k = 0; k < CPUS; k++)
			if (k != me && asked[k][me] != n)
				late = n << 16 | me << 8 | k;
	}
	barrier();
	cli();
}

static void all_to_all(void)
{
	for (u32 k = 0; k < CPUS; k++) {
		interrupt_handler[0x70 + k] = on_question;
		for (u32 i = 0; i < CPUS; i++)
			asked[k][i] = 0;
	}
	late = 0;
	check(ap_together(ask_all, ask_all) && !late,
	      "%u questions of each to all others at once (number %u, from %u to %u)", QUESTIONS, late >> 16,
	      late >> 8 & 0xff, late & 0xff);
}

/* --- translations --- */
static volatile u32 version, flushed[CPUS], looking[CPUS], stale, late_flushes;

static void on_flush(struct frame *f)
{
	invlpg((void *)WINDOW);
	flushed[my_id()] = version;
	end_of_interrupt();
}

static void look(void)
{
	u32 me = my_id();

	set_up();
	sti();
	looking[me] = 1;
	while (!quit) {
		u32 before = flushed[me], seen = *(volatile u32 *)WINDOW;

		/* Each version is in the one frame or the other; older than what was flushed may not be seen. */
		stale += seen < before;
	}
	looking[me] = 2;
	cli();
}

#define CHANGES 500u

/* Processor k has not flushed version n in time: does it ever, and where was it meanwhile? */
static void explain(u32 k, u32 n)
{
	static const char *const where[] = { "has not come to look", "looks", "has left" };
	u32 was = looking[k];
	u64 begin = rdtsc();

	while (flushed[k] != n && rdtsc() - begin < 3 * PATIENCE)
		__asm__ volatile("pause");
	check(false, "processor %u, which %s, flushes number %u %s", k, where[was], n,
	      flushed[k] == n ? "late" : "never");
}

static void change(void)
{
	set_up();
	for (u32 n = 1; n <= CHANGES && !stale && !late_flushes; n++) {
		uptr frame = n & 1 ? FRAME_B : FRAME_A;
		u64 begin;

		*(volatile u32 *)frame = n;
		*(volatile u64 *)&guest_pd[WINDOW >> 21] = frame | 0x83;
		invlpg((void *)WINDOW);
		version = n;
		send(0, 0x62 | OTHERS);
		begin = rdtsc();
		for (u32 k = 1; k < CPUS; k++)
			while (flushed[k] != n && rdtsc() - begin < PATIENCE)
				__asm__ volatile("pause");
		for (u32 k = 1; k < CPUS; k++)
			if (flushed[k] != n) {
				late_flushes++;
				explain(k, n);
			}
		stale += *(volatile u32 *)WINDOW != n;
	}
	quit = 1;
}

static void shoot_downs(void)
{
	u64 old = guest_pd[WINDOW >> 21];
	bool back;

	interrupt_handler[0x62] = on_flush;
	*(volatile u32 *)FRAME_A = *(volatile u32 *)FRAME_B = 0;
	guest_pd[WINDOW >> 21] = FRAME_A | 0x83;
	quit = version = stale = late_flushes = 0;
	clear(flushed);
	clear(looking);
	invlpg((void *)WINDOW);
	back = ap_together(look, change);
	check(back && !stale && !late_flushes,
	      "%u shoot-downs of three others: %u stale reads, %u not done%s", CHANGES, stale, late_flushes,
	      back ? "" : ", some do not come back");
	guest_pd[WINDOW >> 21] = old;
}

/* --- INIT and start-up --- */
static volatile u32 beats[CPUS];

static void beat(void)
{
	u32 me = my_id();

	for (;;)
		beats[me]++;
}

static void wait_ticks(u64 ticks)
{
	for (u64 begin = rdtsc(); rdtsc() - begin < ticks;)
		__asm__ volatile("pause");
}

/* Whether processor k runs. */
static bool beats_now(u32 k)
{
	u32 before = beats[k];
	u64 begin = rdtsc();

	while (beats[k] == before && rdtsc() - begin < 2000000000ull)
		__asm__ volatile("pause");
	return beats[k] != before;
}

static void init_and_start(void)
{
	u32 alive = ap_alive, before;

	ap_job = beat;
	ap_jobs++;
	for (u32 k = 1; k < CPUS; k++)
		check(beats_now(k), "processor %u runs", k);
	send(2, 0x4600 | AP_START >> 12);
	wait_ticks(50000000);
	check(ap_alive == alive && beats_now(2), "a start-up IPI to one that runs is ignored");
	send(2, 0x4500);
	wait_ticks(200000000);
	before = beats[2];
	wait_ticks(200000000);
	check(beats[2] == before && beats_now(1) && beats_now(3), "INIT stops the one, and no other");
	send(2, VECTOR);
	wait_ticks(50000000);
	check(beats[2] == before, "an interrupt does not start it");
	/* De-assert, which does nothing; then it starts anew, from real mode, on a stack of its own. */
	send(2, 0x8500);
	ap_started = 1;
	send(2, 0x4600 | AP_START >> 12);
	check(ap_wait(&ap_alive, alive + 1), "a start-up IPI does");
	check(beats_now(2), "and it does what the others do");
}

void guest_main(void)
{
	cli();
	interrupt_handler[VECTOR] = on_ipi;
	interrupt_handler[NMI] = on_nmi;
	if (!aps_begin(CPUS - 1)) {
		check(false, "the other processors do not start");
		return;
	}
	all_modes();
	cluster = true;
	all_modes();
	cluster = false;
	all_to_all();
	shoot_downs();
	x2apic = true;
	all_modes();
	all_to_all();
	shoot_downs();
	init_and_start();
}
