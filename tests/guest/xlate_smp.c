/* Four processors on the same code, which a translator has once for all of them: all meet the same new code at once; one changes what
 * the others execute, with a handshake and a serializing instruction [SDM3 8.1.3], from afar while they are in it, by
 * interrupts; each changes its own among that of the others; and more code than any cache holds, in four orders at once. */
#include "lib/emit.h"
#include "lib/restless.h"
#include "lib/smp.h"

/* Built with RESTLESS, the pages whose code changes are such that keep changing. */
#ifdef RESTLESS
#define EMIT_CHANGING(where) emit_at(restless(where))
#else
#define EMIT_CHANGING(where) emit_at(where)
#endif

#define AREA ((uptr)0x2000000ul)
#define CPUS 4u
#ifndef ROUNDS
#define ROUNDS 10000u
#endif

typedef u64 (*code_fn)(u64 a, u64 b);

static volatile u32 next_index, wrong[CPUS];

static u32 take_index(void)
{
	return __atomic_fetch_add(&next_index, 1, __ATOMIC_SEQ_CST);
}

static bool all(void (*job)(void))
{
	next_index = 0;
	for (u32 k = 0; k < CPUS; k++)
		wrong[k] = 0;
	return ap_together(job, job);
}

static u32 sum_wrong(void)
{
	u32 sum = 0;

	for (u32 k = 0; k < CPUS; k++)
		sum += wrong[k];
	return sum;
}

static void pause(void)
{
	__asm__ volatile("pause");
}

static void serialize(void)
{
	u32 r[4];

	cpuid(0, 0, r);
}

/* --- the same new code at once --- */
#define NEW_FUNCTIONS 3000u
#define NEW_STRIDE    72u /* over the ends of pages, too */

static uptr new_at(u32 k)
{
	return AREA + k * NEW_STRIDE;
}

/* Jumps, calls the one before, and has an instruction that is a vector's. RAX = k + RDI, or twice that if odd. */
static void put_new(u32 k)
{
	emit_at(new_at(k));
	emit("\x48\x8d\x87", 3); /* lea k(%rdi), %rax */
	emit32(k);
	emit("\xa8\x01\x74\x03\x48\x01\xc0", 7); /* test $1, %al; jz +3; add %rax, %rax */
	emit("\x66\x48\x0f\x6e\xc0\x31\xc0\x66\x48\x0f\x7e\xc0",
	     12); /* movq %rax, %xmm0; xor %eax, %eax; movq %xmm0, %rax */
	emit8(0xc3);
}

static void run_new(void)
{
	u32 me = take_index();

	write_cr4(read_cr4() | 0x600);
	for (u32 from = 0; from < NEW_FUNCTIONS; from += 100) {
		ap_barrier(CPUS);
		for (u32 turn = 0; turn < 60; turn++)
			for (u32 k = from; k < from + 100; k++) {
				u64 v = k + turn;

				wrong[me] += ((code_fn)new_at(k))(turn, 0) != (v & 1 ? 2 * v : v);
			}
	}
}

static void same_code(void)
{
	for (u32 k = 0; k < NEW_FUNCTIONS; k++)
		put_new(k);
	bool ended = all(run_new);

	check(ended && !sum_wrong(), "four processors meet %u new functions at once: %u wrong", NEW_FUNCTIONS,
	      sum_wrong());
}

/* --- a handshake --- */
static volatile u32 version, acknowledged;
static uptr patched, patched_imm;
static u32 rounds;

static void shake(void)
{
	u32 me = take_index();

	if (me == 0) {
		for (u32 n = 1; n <= rounds; n++) {
			*(volatile u32 *)patched_imm = n;
			version = n;
			while (acknowledged != (CPUS - 1) * n)
				pause();
			wrong[0] += ((code_fn)patched)(0, 0) != n;
		}
		return;
	}
	for (u32 n = 1; n <= rounds; n++) {
		while (version != n)
			pause();
		serialize();
		wrong[me] += ((code_fn)patched)(0, 0) != n;
		__atomic_fetch_add(&acknowledged, 1, __ATOMIC_SEQ_CST);
	}
}

static void handshake(uptr at, u32 n, const char *where)
{
	version = acknowledged = 0;
	rounds = n;
	patched = at;
	EMIT_CHANGING(at);
	emit("\x90\xb8\x00\x00\x00\x00\xc3", 7); /* nop; mov $imm, %eax; ret */
	patched_imm = at + 2;
	bool ended = all(shake);

	check(ended && !sum_wrong(), "%u changes %s, each seen by three others: %u wrong", n, where,
	      sum_wrong());
}

/* --- by interrupts --- */
static volatile u32 ipi_seen[CPUS], quit;

static u32 apic_number(void)
{
	return apic_read(APIC_ID) >> 24;
}

/* IRET serializes. */
static void on_ipi(struct frame *f)
{
	ipi_seen[apic_number()]++;
	apic_write(APIC_EOI, 0);
}

static void interrupted(void)
{
	u32 me = apic_number();

	if (me == 0) {
		for (u32 n = 1; n <= 150; n++) {
			*(volatile u32 *)patched_imm = n;
			apic_write(APIC_ICR, 0xc0000 | 0x61); /* all but this one */
			for (u32 k = 1; k < CPUS; k++)
				while (ipi_seen[k] != n)
					pause();
		}
		quit = 1;
		return;
	}
	sti();
	while (!quit) {
		u32 before = ipi_seen[me], v = (u32)((code_fn)patched)(0, 0);

		wrong[me] += v < before || v > 150;
	}
	cli();
}

static void by_interrupts(void)
{
	interrupt_handler[0x61] = on_ipi;
	quit = 0;
	*(volatile u32 *)patched_imm = 0;
	bool ended = all(interrupted);

	check(ended && !sum_wrong(), "150 changes, each with an interrupt to all others: %u old",
	      sum_wrong());
}

/* --- in it --- */
static volatile u32 slot[CPUS][64], leave;

/* 1: movl $imm, (%rdi); cmpl $0, (%rsi); je 1b; ret. The loop never leaves the code that changes. */
static void put_loop(uptr at, bool calls)
{
	EMIT_CHANGING(at);
	emit("\xc7\x07", 2);
	emit32(0);
	if (calls)
		emit_call(at + 0x1040);
	emit("\x83\x3e\x00", 3);
	emit_jcc(4, at);
	emit8(0xc3);
	emit_at(at + 0x1040);
	emit8(0xc3);
}

static void inside(void)
{
	u32 me = take_index();

	if (me) {
		((code_fn)patched)((uptr)slot[me], (uptr)&leave);
		return;
	}
	for (u32 n = 1; n <= rounds; n++) {
		*(volatile u32 *)patched_imm = n;
		for (u32 k = 1; k < CPUS; k++) {
			u64 begin = rdtsc();

			while (slot[k][0] != n && rdtsc() - begin < 20000000000ull)
				pause();
			wrong[0] += slot[k][0] != n;
		}
	}
	leave = 1;
}

static void dropped_inside(bool calls)
{
	patched = AREA + 0x300000;
	put_loop(patched, calls);
	patched_imm = patched + 2;
	leave = 0;
	rounds = 60;
	bool ended = all(inside);

	check(ended && !sum_wrong(), "%u changes to a loop that three others are in, %s: %u not seen", rounds,
	      calls ? "with a call to another page" : "of one block", sum_wrong());
}

/* --- each its own --- */
static volatile u32 owned[CPUS];

static void own(void)
{
	u32 me = take_index();
	uptr mine = AREA + 0x400000 + me * 64;

	for (u32 n = 1; n <= 30000; n++) {
		u32 k = (me + n) % CPUS, low = owned[k], v;

		*(volatile u32 *)(mine + 1) = n;
		wrong[me] += ((code_fn)mine)(0, 0) != n;
		owned[me] = n;
		/* old ones may be seen without ceremony, but no others; after it, no older ones */
		serialize();
		v = (u32)((code_fn)(AREA + 0x400000 + k * 64))(0, 0);
		wrong[me] += v < low || v > 30000;
	}
}

static void each_its_own(void)
{
	for (u32 k = 0; k < CPUS; k++) {
		owned[k] = 0;
		EMIT_CHANGING(AREA + 0x400000 + k * 64);
		emit("\xb8\x00\x00\x00\x00\xc3", 6);
	}
	bool ended = all(own);

	check(ended && !sum_wrong(), "each changes its own of four functions in a page: %u wrong",
	      sum_wrong());
}

#ifndef RESTLESS
/* --- more than the caches hold --- */
#define MANY        60000u
#define MANY_STRIDE 96u

static uptr many_at(u32 k)
{
	return AREA + 0x800000 + k * MANY_STRIDE;
}

static void put_many(u32 k)
{
	emit_at(many_at(k));
	emit("\x48\x8d\x87", 3); /* lea k(%rdi), %rax; test $1, %al; jz +6 */
	emit32(k);
	emit("\xa8\x01\x74\x06\x48\x05", 6); /* add $k * 3, %rax */
	emit32(k * 3);
	emit("\xa8\x02\x75\x06\x48\x35", 6); /* test $2, %al; jnz +6; xor $0x55aa, %rax */
	emit32(0x55aa);
	emit("\x53\x48\x89\xc3", 4); /* push %rbx; mov %rax, %rbx */
	emit_call(many_at(k) + 64);
	emit("\x48\x01\xd8\x5b\xc3", 5); /* add %rbx, %rax; pop %rbx; ret */
	emit_at(many_at(k) + 64);
	emit("\x48\x8d\x04\x7f\xc3", 5); /* lea (%rdi, %rdi, 2), %rax; ret */
}

static u64 many_model(u32 k, u64 x)
{
	u64 v = x + k;

	if (v & 1)
		v += k * 3;
	if (!(v & 2))
		v ^= 0x55aa;
	return v + 3 * x;
}

static void run_many(void)
{
	static const u32 steps[CPUS] = { 1, MANY - 1, 7919, 104729 % MANY };
	u32 me = take_index(), k = me * (MANY / CPUS);

	for (u32 n = 0; n < MANY; n++, k = (k + steps[me]) % MANY)
		for (u32 turn = 0; turn < 3; turn++)
			wrong[me] += ((code_fn)many_at(k))(turn + n, 0) != many_model(k, turn + n);
}

static void evicted(void)
{
	for (u32 k = 0; k < MANY; k++)
		put_many(k);
	bool ended = all(run_many);

	check(ended && !sum_wrong(), "%u functions in four orders: %u wrong", MANY, sum_wrong());
}
#endif

void guest_main(void)
{
	cli();
	if (!aps_begin(CPUS - 1)) {
		check(false, "the other processors do not start");
		return;
	}
	same_code();
	handshake(AREA + 0x200000, ROUNDS, "of an immediate");
	handshake(AREA + 0x200ffb, ROUNDS / 10, "of an immediate over the end of a page");
	handshake(AREA + 0x200fa0, ROUNDS / 10, "near the end of a page");
	by_interrupts();
	dropped_inside(false);
	dropped_inside(true);
	each_its_own();
#ifndef RESTLESS
	evicted();
#endif
}
