/* A long sum under interrupts, for machines that are moved from one engine to another while it runs: integer, x87 and SSE2
 * registers, XMM15, memory, the stack, debug registers, MSRs, and ticks of the local APIC's timer. It goes on until a byte
 * comes on the UART, then does the same once more with interrupts off, and compares. */
#include "lib/irq.h"

#define TIMER_VECTOR 0x50
#define UART         0x3f8
#define UART_LSR     (UART + 5)
#define WORDS        64
#define MSR_LSTAR    0xc0000082
#define MSR_TSC_AUX  0xc0000103

struct sums {
	u64 hash, x87, sse, high;
	u64 mem[WORDS];
};

static volatile u32 ticks;

/* What a handler does to vector registers it gives back. */
static void on_timer(struct frame *f)
{
	u64 save[2];

	__asm__ volatile("movdqu %%xmm0, (%0); pcmpeqd %%xmm0, %%xmm0; movdqu (%0), %%xmm0"
			 :
			 : "r"(save)
			 : "memory");
	ticks++;
	apic_write(APIC_EOI, 0);
}

static void begin(struct sums *s)
{
	u64 seed = 0x9e3779b97f4a7c15;

	memset_(s, 0, sizeof(*s));
	s->hash = 1;
	__asm__ volatile("fninit; fldpi; fld1\n\t"
			 "movq %0, %%xmm1; movq %0, %%xmm15"
			 :
			 : "r"(seed));
}

/* One round: registers stay live from round to round. */
static void round_of(struct sums *s, u64 n)
{
	u64 *m = &s->mem[n % WORDS];

	s->hash = (s->hash ^ n) * 0x100000001b3 + *m;
	*m = s->hash >> 7;
	/* st1 = pi stays, st0 = st0 * pi / 2 + 1, kept small by FPREM. */
	__asm__ volatile("fmul %%st(1), %%st; fld1; faddp; fprem\n\t"
			 "paddq %%xmm1, %%xmm15; movq %%xmm15, %0; psrlq $3, %%xmm1; pxor %%xmm15, %%xmm1"
			 : "=r"(s->high));
	__asm__ volatile("push %0; pop %0" : "+r"(s->high));
}

static void end(struct sums *s)
{
	__asm__ volatile("fstpl %0; fstp %%st; movq %%xmm1, %1" : "=m"(s->x87), "=r"(s->sse));
}

static bool same(const struct sums *a, const struct sums *b)
{
	for (unsigned i = 0; i < WORDS; i++)
		if (a->mem[i] != b->mem[i])
			return false;
	return a->hash == b->hash && a->x87 == b->x87 && a->sse == b->sse && a->high == b->high;
}

void guest_main(void)
{
	static struct sums first, second;
	u64 rounds = 0, n, dr0, last_tsc = 0, tsc_back = 0;
	u32 r[4], old;

	cpuid(0x80000001, 0, r);
	write_cr0((read_cr0() & ~0xcul) | 2);
	write_cr4(read_cr4() | 0x600);
	interrupt_handler[TIMER_VECTOR] = on_timer;
	pic_init(0);
	apic_enable();
	apic_write(APIC_TIMER_DIV, 0xb);
	apic_write(APIC_LVT_TIMER, 1u << 17 | TIMER_VECTOR);
	apic_write(APIC_TIMER_INIT, 2000000); /* ns */
	wrmsr(MSR_LSTAR, 0xffff8000deadb000);
	if (r[3] >> 27 & 1)
		wrmsr(MSR_TSC_AUX, 0x1234567);
	__asm__ volatile("mov %0, %%dr0; mov %0, %%dr1" : : "r"(0x123450ul));

	print("PASS begin\n");
	begin(&first);
	sti();
	while (!(inb(UART_LSR) & 1)) {
		u64 tsc = rdtsc();

		tsc_back += tsc < last_tsc;
		last_tsc = tsc;
		for (unsigned k = 0; k < 16; k++)
			round_of(&first, rounds++);
		if (rounds % 256 == 0)
			__asm__ volatile("hlt");
	}
	cli();
	end(&first);
	inb(UART);
	old = ticks;

	begin(&second);
	for (n = 0; n < rounds; n++)
		round_of(&second, n);
	end(&second);

	check(same(&first, &second), "the same sums after %llu rounds: %llx %llx, %llx %llx, %llx %llx",
	      rounds, first.hash, second.hash, first.x87, second.x87, first.sse, second.sse);
	check(rounds > 0 && old > 1, "%u ticks came", old);
	check(!tsc_back, "the TSC went back %llu times", tsc_back);
	__asm__ volatile("mov %%dr0, %0" : "=r"(dr0));
	check(dr0 == 0x123450, "DR0 is %llx", dr0);
	check(rdmsr(MSR_LSTAR) == 0xffff8000deadb000, "LSTAR is %llx", rdmsr(MSR_LSTAR));
	if (r[3] >> 27 & 1)
		check(rdmsr(MSR_TSC_AUX) == 0x1234567, "TSC_AUX is %llx", rdmsr(MSR_TSC_AUX));
}
