/* What a guest with several processors gets from its hypervisor [KVM hypercalls, KVM msr]: a kick wakes one that halts with
 * interrupts off; interrupts for many by one call; the record of stolen time, which says who does not run, and where a
 * flush of its TLB may be left instead of an interrupt. */
#include "lib/smp.h"

#define HC_KICK     5u
#define HC_SEND_IPI 10u
#define HC_YIELD    11u
#define MSR_STEAL   0x4b564d03
#define MSR_EOI     0x4b564d04
#define WINDOW      0x40000000ul
#define FRAME_A     0x2000000ul
#define FRAME_B     0x2200000ul
#define ROUNDS      2000u
#define VECTOR      0x61

static u64 hypercall(u64 nr, u64 a, u64 b, u64 c, u64 d)
{
	u64 ret;

	__asm__ volatile("vmcall" : "=a"(ret) : "0"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return ret;
}

static u32 me(void)
{
	return apic_read(APIC_ID) >> 24;
}

static bool feature(unsigned bit)
{
	u32 r[4];

	cpuid(0x40000001, 0, r);
	return r[0] >> bit & 1;
}

static bool wait_until(const volatile u32 *what, u32 n)
{
	u64 begin = rdtsc();

	while (*what != n && rdtsc() - begin < PATIENCE)
		__asm__ volatile("pause");
	return *what == n;
}

/* --- kicks --- */
static volatile u32 turn, halts;

/* As a waiter for a lock: looks, halts, looks again; interrupts stay off. */
static void wait_by_halting(void)
{
	cli();
	if (me() != 1)
		return;
	for (u32 n = 1; n <= ROUNDS; n++) {
		while (turn != n) {
			halts++;
			__asm__ volatile("hlt");
		}
		turn = n + 0x10000;
	}
}

static volatile u32 lost;

static void kick(void)
{
	for (u32 n = 1; n <= ROUNDS; n++) {
		/* Now and then it has certainly halted. */
		if (n % 64 == 0)
			for (u64 begin = rdtsc(); rdtsc() - begin < 300000;)
				;
		turn = n;
		lost += hypercall(HC_KICK, 0, 1, 0, 0) != 0;
		if (!wait_until(&turn, n + 0x10000)) {
			lost++;
			hypercall(HC_KICK, 0, 1, 0, 0);
		}
	}
}

/* --- interrupts --- */
static volatile u32 got[4], quit;

static void on_ipi(struct frame *f)
{
	got[me()]++;
	apic_write(APIC_EOI, 0);
}

static void listen(void)
{
	sti();
	while (!quit)
		__asm__ volatile("pause");
	cli();
}

static void call_by_hypercall(void)
{
	u32 wrong = 0;

	for (u32 mask = 1; mask < 8; mask++) { /* of processors 1 to 3 */
		u32 want = (mask & 1) + (mask >> 1 & 1) + (mask >> 2 & 1);
		u64 begin = rdtsc();

		got[1] = got[2] = got[3] = 0;
		wrong += hypercall(HC_SEND_IPI, mask, 0, 1, VECTOR) != want;
		while (got[1] + got[2] + got[3] != want && rdtsc() - begin < PATIENCE)
			__asm__ volatile("pause");
		for (u32 k = 0; k < 3; k++)
			wrong += got[k + 1] != (mask >> k & 1);
	}
	check(!wrong, "interrupts by hypercall: %u wrong", wrong);
	quit = 1;
}

/* --- EOI without an exit --- */
static struct {
	volatile u32 word, got, lent, pad[13];
} eoi[2] __attribute__((aligned(64)));
static volatile u32 late;

/* By whom it is for, since a look at the local APIC may be an exit, and an exit ends the loan. */
static u32 eoi_vector(u32 id, u32 kind)
{
	return VECTOR + 2 + id + 16 * kind;
}

static void on_eoi_ipi(struct frame *f)
{
	u32 id = (u32)(f->vector - VECTOR - 2) & 1;
	u8 lent;

	__asm__ volatile("btrl $0, %1; setc %0" : "=r"(lent), "+m"(eoi[id].word) : : "cc");
	if (!lent)
		apic_write(APIC_EOI, 0);
	eoi[id].lent += lent;
	eoi[id].got++;
}

static void send(u32 id, u32 vector)
{
	apic_write(APIC_ICR2, id << 24);
	apic_write(APIC_ICR, 0x4000 | vector);
}

static bool reached(const volatile u32 *what, u32 n)
{
	u64 begin = rdtsc();

	while ((int)(*what - n) < 0 && rdtsc() - begin < PATIENCE)
		__asm__ volatile("pause");
	return (int)(*what - n) >= 0;
}

/* Each sends the other one interrupt, of two vectors in turn, and one to itself now and then, and waits for both to have come. */
static void exchange(void)
{
	u32 id = me(), other = !id, mine = 0;

	if (id > 1)
		return;
	wrmsr(MSR_EOI, (uptr)&eoi[id].word | 1);
	sti();
	for (u32 n = 1; n <= ROUNDS; n++) {
		send(other, eoi_vector(other, n & 1));
		if (n % 8 == 0) {
			send(id, eoi_vector(id, 2));
			mine++;
		}
		late += !reached(&eoi[id].got, n + mine);
	}
	cli();
	wrmsr(MSR_EOI, 0);
}

/* --- the record --- */
static struct {
	u64 ns;
	u32 version, flags;
	u8 off, pad[47];
} record __attribute__((aligned(64)));
static volatile u32 asleep, woken, stale;

/* Sleeps with a translation cached, and reads through it when it is awake, without having flushed anything. */
static void sleep_and_look(void)
{
	if (me() != 1)
		return;
	wrmsr(MSR_STEAL, (uptr)&record | 1);
	cli();
	for (u32 n = 1; n <= ROUNDS; n++) {
		stale += *(volatile u32 *)WINDOW > n;
		asleep = n;
		while (woken != n)
			sti_hlt();
		stale += *(volatile u32 *)WINDOW != n;
	}
	wrmsr(MSR_STEAL, 0);
}

static volatile u32 spared, torn;

static void change(void)
{
	for (u32 n = 1; n <= ROUNDS; n++) {
		uptr frame = n & 1 ? FRAME_B : FRAME_A;
		u8 was = 1;
		u64 begin;

		if (!wait_until(&asleep, n))
			return;
		*(volatile u32 *)frame = n;
		*(volatile u64 *)&guest_pd[WINDOW >> 21] = frame | 0x83;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		/* It says that it is asleep, some microseconds after it has halted; else it is not spared. */
		begin = rdtsc();
		while (record.off != 1 && rdtsc() - begin < 400000)
			__asm__ volatile("pause");
		torn += record.version & 1 && record.off == 1;
		if (__atomic_compare_exchange_n(&record.off, &was, 3, false, __ATOMIC_SEQ_CST,
						__ATOMIC_SEQ_CST)) {
			spared++;
		} else {
			/* Awake for some reason: told by an interrupt, whose handler flushes. */
			apic_write(APIC_ICR2, 1u << 24);
			apic_write(APIC_ICR, 0x4062);
		}
		woken = n;
		apic_write(APIC_ICR2, 1u << 24);
		apic_write(APIC_ICR, 0x4000 | VECTOR);
	}
}

static void on_flush(struct frame *f)
{
	invlpg((void *)WINDOW);
	apic_write(APIC_EOI, 0);
}

void guest_main(void)
{
	u64 old = guest_pd[WINDOW >> 21];

	/* What needs hypercalls is not there on every KVM. */
	bool calls = feature(7) && feature(11) && feature(13);

	cli();
	if (!feature(5) || !feature(6) || !feature(9)) {
		skip("not under this hypervisor");
		return;
	}
	interrupt_handler[VECTOR] = on_ipi;
	interrupt_handler[0x62] = on_flush;
	for (u32 n = 0; n < 6; n++)
		interrupt_handler[eoi_vector(n & 1, n >> 1)] = on_eoi_ipi;
	if (!aps_begin(3)) {
		check(false, "the other processors do not start");
		return;
	}
	bool ended = ap_together(exchange, exchange);
	check(ended && !late, "%u interrupts there and back, with the EOI in memory: %u lost", 2 * ROUNDS,
	      late);
	check(eoi[0].lent > ROUNDS / 4 && eoi[1].lent > ROUNDS / 4,
	      "most without a write to the EOI register: %u, %u", eoi[0].lent, eoi[1].lent);
	if (!calls)
		return;
	ended = ap_together(wait_by_halting, kick);
	check(ended && !lost && halts, "%u kicks of one that halts with interrupts off: %u lost", ROUNDS,
	      lost);
	hypercall(HC_KICK, 0, 0, 0, 0);
	for (u64 begin = rdtsc(); rdtsc() - begin < 300000;)
		;
	__asm__ volatile("hlt");
	check(true, "a kick that comes before the HLT is kept for it");
	check((long)hypercall(HC_YIELD, 1, 0, 0, 0) == 0, "yielding");
	check((long)hypercall(HC_KICK, 0, 99, 0, 0) < 0, "a kick of nobody");

	*(volatile u32 *)FRAME_A = *(volatile u32 *)FRAME_B = 0;
	guest_pd[WINDOW >> 21] = FRAME_A | 0x83;
	invlpg((void *)WINDOW);
	ended = ap_together(sleep_and_look, change);
	check(ended && !stale, "%u changes of a translation that a sleeping processor has: %u stale reads",
	      ROUNDS, stale);
	check(spared > ROUNDS / 4, "most of the time it was asleep, and spared an interrupt: %u", spared);
	check(!torn && record.version && !(record.version & 1),
	      "the record's version is even when it is at rest");
	guest_pd[WINDOW >> 21] = old;

	check(ap_together(listen, call_by_hypercall), "all come back");
}
