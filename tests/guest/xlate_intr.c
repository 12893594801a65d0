/* Interrupts in warm code: timers at a high rate while loops with every kind of branch compute (xlate_bodies.S), whose results must
 * be those of a run without; loops that never end and must be left by an interrupt; regions where none may come. */
#include "xlate_bodies.h"
#include "lib/emit.h"

#define TIMER_VECTOR 0x50
#define AREA         0x2000000ul
#define SECOND       2000000000ull /* TSC ticks, about */

static volatile u32 ticks, wrong;
static volatile u32 inhibited; /* set where no interrupt may come */
static volatile uptr last_ip;
static u64 period = 100000, jitter = 88172645463325252ull; /* in ticks of the timer */
static bool rearm;

/* Where the code is that is looked at; which places in it were seen, and how often at all. */
static uptr range_begin, range_end;
static u8 seen[16384];
static volatile u32 inside;
static volatile bool leave;
static uptr outside[10];

static void (*look)(const struct frame *f);

static u8 fx[512] __attribute__((aligned(16)));

static void arm(u64 after)
{
	apic_write(APIC_TIMER_INIT, (u32)after);
}

static void on_interrupt(struct frame *f)
{
	ticks++;
	last_ip = f->ip;
	wrong += inhibited != 0;
	if (look)
		look(f);
	if (f->ip >= range_begin && f->ip < range_end) {
		if (f->ip - range_begin < sizeof(seen))
			seen[f->ip - range_begin]++;
		inside++;
	}
	/* Vector state of the handler's own. */
	__asm__ volatile(
		"fxsave %0\n\tfninit\n\tfldpi\n\tpcmpeqd %%xmm0, %%xmm0\n\tmovdqa %%xmm0, %%xmm5\n\tpxor %%xmm9, %%xmm9\n\t"
		"movdqa %%xmm0, %%xmm15\n\tpaddd %%xmm0, %%xmm2\n\tfxrstor %0"
		: "+m"(fx));
	if (f->vector == IRQ_BASE) {
		pic_eoi(0);
	} else {
		apic_write(APIC_EOI, 0);
		if (rearm)
			arm(period / 2 + body_random(&jitter) % period);
	}
	if (leave && inside >= 5)
		guest_longjmp(outside);
}

static void pit(unsigned count)
{
	outb(0x43, 0x34);
	outb(0x40, (u8)count);
	outb(0x40, (u8)(count >> 8));
}

/* So fast that code between interrupts takes a few times as long as they do. */
static void calibrate(void)
{
	u64 t, cost;

	for (unsigned k = 0; k < 200; k++) {
		t = rdtsc();
		__asm__ volatile("int %0" : : "i"(TIMER_VECTOR) : "memory");
		cost = rdtsc() - t;
	}
	apic_write(APIC_TIMER_DIV, 0xb); /* by 1 */
	apic_write(APIC_LVT_TIMER, LVT_MASKED | TIMER_VECTOR);
	arm(0xffffffff);
	for (t = rdtsc(); rdtsc() - t < 10000000;)
		;
	u64 rate = 0xffffffff - apic_read(APIC_TIMER_CUR); /* per 10000000 */
	period = (30000 + cost * 8) * rate / 10000000;
	print("an interrupt takes %llu, the period is %llu\n", cost, period);
	apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
}

static void start(uptr begin, uptr end)
{
	range_begin = begin;
	range_end = end;
	memset_(seen, 0, sizeof(seen));
	ticks = wrong = inside = 0;
	rearm = true;
	arm(period);
}

static void stop(void)
{
	cli();
	rearm = false;
	arm(0);
	for (unsigned k = 0; k < 20; k++)
		__asm__ volatile("sti; nop; nop; cli" : : : "memory");
	range_begin = range_end = 0;
}

static unsigned places(uptr size)
{
	unsigned n = 0;

	for (unsigned k = 0; k < size && k < sizeof(seen); k++)
		n += seen[k] != 0;
	return n;
}

/* --- results --- */

static u8 steps[sizeof(seen)]; /* where an instruction begins, as single steps say */

static void on_step(struct frame *f)
{
	if (f->ip >= range_begin && f->ip < range_end && f->ip - range_begin < sizeof(steps))
		steps[f->ip - range_begin] = 1;
}

static void computation(const struct body *b, unsigned *ret_places)
{
	static struct state in, out;
	u64 want[4], begin;
	u64 rounds = b->name[0] == 's' ? 60 : 2000;
	unsigned bad = 0, runs = 0, odd = 0, n;

	for (unsigned seed = 0; seed < 4; seed++) {
		body_state(&in, seed, rounds, seed & 1);
		run_body(b->begin, &in, &out);
		want[seed] = body_sum(&out);
	}
	memset_(steps, 0, sizeof(steps));
	range_begin = b->begin;
	range_end = b->end;
	for (unsigned seed = 0; seed < 4; seed++) {
		body_state(&in, seed, b->name[0] == 's' ? 4 : 80, (seed & 1) | FL_TF);
		run_body(b->begin, &in, &out);
	}
	start(b->begin, b->end);
	begin = rdtsc();
	while ((inside < 60 || runs < 8) && rdtsc() - begin < 5 * SECOND) {
		body_state(&in, runs & 3, rounds, (runs & 1) | FL_IF);
		run_body(b->begin, &in, &out);
		bad += body_sum(&out) != want[runs & 3];
		runs++;
	}
	u32 got = inside;
	stop();
	for (unsigned k = 0; k < b->end - b->begin; k++)
		odd += seen[k] && !steps[k];
	n = places(b->end - b->begin);
	*ret_places += n;
	check(!bad && got >= 60, "%s: %u runs, %u wrong, %u interrupts at %u places", b->name, runs, bad, got,
	      n);
	check(!odd, "%s: all of them between instructions", b->name);
}

/* --- loops without end --- */

#define ENDLESS(name, text)                                        \
	__asm__(".text\n" #name ": " text "\n" #name "_end: nop"); \
	extern const u8 name[], name##_end[];
ENDLESS(e_short, "1: jmp 1b")
ENDLESS(e_near, ".byte 0xe9, 0xfb, 0xff, 0xff, 0xff")
ENDLESS(e_jz, "xor %eax, %eax; 1: jz 1b")
ENDLESS(e_jnz_near, "or $1, %eax; 1: .byte 0x0f, 0x85, 0xfa, 0xff, 0xff, 0xff")
ENDLESS(e_loop, "mov $-1, %rcx; 1: loop 1b")
ENDLESS(e_jrcxz, "xor %ecx, %ecx; 1: jrcxz 1b")
ENDLESS(e_register, "lea 1f(%rip), %rax; 1: jmp *%rax")
ENDLESS(e_memory, "lea 1f(%rip), %rax; push %rax; 1: jmp *(%rsp)")
ENDLESS(e_ret, "lea 1f(%rip), %rax; 1: push %rax; ret")
ENDLESS(e_call, "1: call 2f; jmp 1b; 2: ret")
ENDLESS(e_call_call, "1: call 2f; call 2f; call 3f; jmp 1b; 3: call 2f; ret; 2: ret")
ENDLESS(e_dropped, "1: call 2f; 2: add $8, %rsp; jmp 1b")
ENDLESS(e_call_back, "jmp 2f; 1: add $8, %rsp; nop; 2: call 1b")
ENDLESS(e_call_register,
	"lea 1f(%rip), %rax; 1: pop %rdx; push %rdx; mov %rsp, %rdx; sub $8, %rsp; mov %rdx, %rsp; call 2f; jmp *%rax; 2: ret")
ENDLESS(e_pause, "1: pause; jmp 1b")
ENDLESS(e_two, "1: inc %eax; jmp 2f; 3: dec %edx; jmp 1b; 2: jmp 3b")
ENDLESS(e_indirect_two,
	"lea 1f(%rip), %rax; lea 2f(%rip), %rcx; 1: inc %edx; jmp *%rcx; nop; 2: dec %ebx; jmp *%rax")
ENDLESS(e_ret_two, "lea 1f(%rip), %rax; lea 2f(%rip), %rcx; 1: push %rax; push %rcx; ret; 2: ret")
ENDLESS(e_conditions, "1: inc %eax; test $1, %al; jz 1b; test $2, %al; jnz 1b; js 2f; jmp 1b; 2: jmp 1b")
ENDLESS(e_load, "1: mov (%rsp), %rax; cmp (%rsp), %rax; je 1b")
ENDLESS(e_store, "1: incl -64(%rsp); jmp 1b")
ENDLESS(e_recursion, "mov %rsp, %rdx; 1: mov $50, %ecx; call 2f; jmp 1b; 2: dec %ecx; jz 3f; call 2b; 3: ret")
ENDLESS(e_flags, "stc; 1: adc $0, %rax; stc; jc 1b")
ENDLESS(e_syscalls, "1: pushf; popf; jmp 1b")
ENDLESS(e_vectors, "1: paddd %xmm1, %xmm2; movups %xmm2, -64(%rsp); jmp 1b")

static const struct {
	const char *name;
	const u8 *begin, *end;
} endless[] = {
#define ROW(name)                       \
	{                               \
#name, name, name##_end \
	}
	ROW(e_short),     ROW(e_near),         ROW(e_jz),        ROW(e_jnz_near),      ROW(e_loop),
	ROW(e_jrcxz),     ROW(e_register),     ROW(e_memory),    ROW(e_ret),           ROW(e_call),
	ROW(e_call_call), ROW(e_dropped),      ROW(e_call_back), ROW(e_call_register), ROW(e_pause),
	ROW(e_two),       ROW(e_indirect_two), ROW(e_ret_two),   ROW(e_conditions),    ROW(e_load),
	ROW(e_store),     ROW(e_recursion),    ROW(e_flags),     ROW(e_syscalls),      ROW(e_vectors),
};

static void run_endless(const char *name, uptr begin, uptr end)
{
	start(begin, end);
	leave = true;
	if (!guest_setjmp(outside)) {
		sti();
		((void (*)(void))begin)();
	}
	leave = false;
	u32 got = inside;
	stop();
	check(got >= 5, "%s is left by an interrupt", name);
}

static void loops_without_end(void)
{
	for (unsigned k = 0; k < sizeof(endless) / sizeof(endless[0]); k++)
		run_endless(endless[k].name, (uptr)endless[k].begin, (uptr)endless[k].end);
	/* Between two pages, by direct and by indirect jumps, and around the end of a page. */
	emit_at(AREA + 0x10);
	emit_jmp(AREA + 0x1010);
	emit_at(AREA + 0x1010);
	emit_jmp(AREA + 0x10);
	run_endless("jmp between two pages", AREA + 0x10, AREA + 0x1015);
	emit_at(AREA + 0x10);
	emit("\x48\xc7\xc0", 3);
	emit32(AREA + 0x1010);
	emit("\xff\xe0", 2);
	emit_at(AREA + 0x1010);
	emit("\x48\xc7\xc0", 3);
	emit32(AREA + 0x10);
	emit("\xff\xe0", 2);
	run_endless("indirect jmp between two pages", AREA + 0x10, AREA + 0x1020);
	emit_at(AREA + 0x1ffe);
	emit("\xff\xc0\xff\xca\xeb\xfa", 6); /* inc %eax; dec %edx; jmp */
	run_endless("a loop over the end of a page", AREA + 0x1ffe, AREA + 0x2004);
	emit_at(AREA + 0x1ffe);
	emit("\x48\x83\xc0\x01\xeb\xfa", 6);
	run_endless("an instruction over the end of a page", AREA + 0x1ffe, AREA + 0x2004);
	/* A chain of forward jumps that comes round by one backward one, far away. */
	for (unsigned k = 0; k < 300; k++) {
		emit_at(AREA + k * 0x400);
		emit("\xff\xc0", 2);
		emit_jmp(AREA + (k + 1) % 300 * 0x400);
	}
	run_endless("a chain of 300 jumps", AREA, AREA + 300 * 0x400);
	/* A long string instruction. */
	u64 left = 64 << 20, began = rdtsc();
	uptr at;
	start((uptr)fx, (uptr)fx); /* nothing */
	__asm__ volatile("sti; lea 1f(%%rip), %1; 1: rep stosb; cli"
			 : "+c"(left), "=&r"(at)
			 : "D"(AREA + 0x1000000), "a"(0x5a)
			 : "memory");
	u32 got = ticks;
	stop();
	check(left == 0 && got >= 2 && last_ip && *(u8 *)(AREA + 0x1000000 + (64 << 20) - 1) == 0x5a,
	      "64 MiB by REP STOSB, interrupted %u times, in %llu", got, rdtsc() - began);
}

/* --- no interrupt here --- */

/* %rcx rounds. */
__asm__(".text\n"
	"r_cli: 1: cli; movl $1, inhibited; mov $50, %edx; 2: dec %edx; jnz 2b; call 4f; lea 5f(%rip), %rax; jmp *%rax;"
	"5: movl $0, inhibited; sti; mov $20, %edx; 3: dec %edx; jnz 3b; dec %rcx; jnz 1b; cli; ret; 4: ret; r_cli_end: nop\n"
	"r_popf: 1: pushf; cli; incl inhibited; mov $30, %edx; 2: dec %edx; jnz 2b; decl inhibited; popf; mov $20, %edx; 3: dec %edx; jnz 3b;"
	"dec %rcx; jnz 1b; cli; ret; r_popf_end: nop\n"
	"r_short: 1: cli; movl $1, inhibited; movl $0, inhibited; sti; nop; dec %rcx; jnz 1b; cli; ret; r_short_end: nop\n"
	"r_iret: 1: cli; movl $1, inhibited; mov $9, %edx; 2: dec %edx; jnz 2b; mov %ss, %eax; mov %rsp, %r8; push %rax; push %r8; push $0x202; mov %cs, %eax; push %rax;"
	"lea 3f(%rip), %rax; push %rax; movl $0, inhibited; iretq; 3: mov $9, %edx; 2: dec %edx; jnz 2b; dec %rcx; jnz 1b; cli; ret; r_iret_end: nop\n"
	"r_cr8: 1: mov $15, %eax; mov %rax, %cr8; movl $1, inhibited; mov $30, %edx; 2: dec %edx; jnz 2b; movl $0, inhibited; xor %eax, %eax; mov %rax, %cr8;"
	"mov $20, %edx; 3: dec %edx; jnz 3b; dec %rcx; jnz 1b; cli; ret; r_cr8_end: nop\n");
extern const u8 r_cli[], r_cli_end[], r_popf[], r_popf_end[], r_short[], r_short_end[], r_iret[],
	r_iret_end[], r_cr8[], r_cr8_end[];

static void region(const char *what, const u8 *code, const u8 *end)
{
	u64 begin = rdtsc();

	start((uptr)code, (uptr)end);
	while (inside < 100 && rdtsc() - begin < 5 * SECOND) {
		u64 rounds = 500;
		__asm__ volatile("sti; call *%1"
				 : "+c"(rounds)
				 : "r"(code)
				 : "rax", "rdx", "r8", "memory", "cc");
	}
	u32 got = inside;
	stop();
	check(got >= 100 && !wrong, "%s: %u interrupts outside, %u inside", what, got, wrong);
}

/* An interrupt is pending. */
static bool pending(void)
{
	u64 begin = rdtsc();

	rearm = false;
	arm(1);
	while (!apic_bit(APIC_IRR, TIMER_VECTOR) && rdtsc() - begin < SECOND)
		;
	return apic_bit(APIC_IRR, TIMER_VECTOR);
}

__asm__(".text\n"
	"s_sti: sti\ns_sti1: nop\ns_sti2: nop; cli\n ret\n"
	"s_sti_ret: call 1f\ns_sti_ret2: nop; cli; ret; 1: sti\ns_sti_ret1: ret\n"
	"s_sti_jmp: sti\ns_sti_jmp1: jmp s_sti_jmp2; ud2\ns_sti_jmp2: nop; cli; ret\n"
	"s_sti_load: sti\ns_sti_load1: mov (%rsp), %rax\ns_sti_load2: mov (%rsp), %rax; cli; ret\n"
	"s_popf: push $0x202; popf\ns_popf2: nop; cli; ret\n");
extern const u8 s_sti[], s_sti1[], s_sti2[], s_sti_ret[], s_sti_ret1[], s_sti_ret2[], s_sti_jmp[],
	s_sti_jmp1[], s_sti_jmp2[], s_sti_load[], s_sti_load1[], s_sti_load2[], s_popf[], s_popf2[];

/* A pending interrupt comes at that very place. */
static void comes_at(const char *what, const u8 *code, const u8 *place)
{
	unsigned bad = 0, late = 0;

	for (unsigned n = 0; n < 1500; n++) {
		bool due = n % 4 == 3;

		if (due && !pending()) {
			check(false, "%s: the timer's bit in IRR does not come", what);
			return;
		}
		ticks = 0;
		((void (*)(void))code)();
		bad += ticks != due;
		late += due && ticks && last_ip != (uptr)place;
	}
	check(!bad && !late, "%s: a pending interrupt comes, %u not, %u elsewhere", what, bad, late);
}

static void shadows(void)
{
	comes_at("STI", s_sti, s_sti2);
	comes_at("STI, RET", s_sti_ret, s_sti_ret2);
	comes_at("STI, JMP", s_sti_jmp, s_sti_jmp2);
	comes_at("STI, a load", s_sti_load, s_sti_load2);
	comes_at("POPF", s_popf, s_popf2);

	/* never between MOV SS and what follows it */
	static volatile uptr after;
	u64 begin = rdtsc();
	unsigned bad = 0;
	__asm__ volatile("lea m_ss2(%%rip), %0" : "=r"(after));
	start(after - 16, after + 16);
	while (inside < 100 && rdtsc() - begin < 5 * SECOND)
		__asm__ volatile(
			"sti; mov $300, %%ecx; mov %%ss, %%eax; 1: mov %%eax, %%ss\nm_ss2: nop; dec %%ecx; jnz 1b; cli"
			:
			:
			: "rax", "rcx", "memory", "cc");
	bad = seen[16];
	u32 got = inside;
	stop();
	check(got >= 100 && !bad, "MOV SS: %u interrupts, %u right behind it", got, bad);
}

/* --- flags at the beginning of blocks that do not want them --- */

#define LINKS 400u /* of a chain, at most; six bytes each: comparison, store, jump to the next */
#define LONG  30u  /* blocks of divisions before it, so that the interrupt has come when it begins */
#define SOME  (FL_CF | 0x40ul | 0x80ul)

static unsigned odd_flags;

/* cmp %eax, %eax in even ones, cmp %ecx, %edx in odd ones, where ECX is more */
static uptr link_flags(unsigned n)
{
	return n & 1 ? FL_CF | 0x80 : 0x40;
}

static void look_at_chain(const struct frame *f)
{
	uptr at = f->ip - range_begin;
	unsigned n = (unsigned)(at / 6), part = at % 6;

	if (f->ip < range_end && at < LINKS * 6 && (part || n))
		odd_flags += (f->flags & SOME) != link_flags(part ? n : n - 1);
}

/* The loop begins with what its last round or what comes before it leaves. */
static void look_at_loop(const struct frame *f)
{
	uptr flags = f->flags & SOME;

	if (f->ip == range_begin)
		odd_flags += flags != 0 && flags != (FL_CF | 0x80);
}

static void put_divisions(void)
{
	emit("\x31\xc0\x31\xd2", 4); /* xor %eax, %eax; xor %edx, %edx */
	for (unsigned k = 0; k < LONG * 60; k++)
		emit("\x49\xf7\xf0", 3);                      /* div %r8 */
	emit("\x39\xc0\x0f\xa2", 4);                          /* cmp %eax, %eax; cpuid */
	emit("\xb9\x05\x00\x00\x00\xba\x03\x00\x00\x00", 10); /* mov $5, %ecx; mov $3, %edx */
}

static void run_divided(uptr code)
{
	__asm__ volatile("mov $1, %%r8d; sti; call *%0; cli"
			 :
			 : "S"(code), "D"(AREA + 0x80000)
			 : "rax", "rbx", "rcx", "rdx", "r8", "memory", "cc");
}

/* Each block is entered by a jump from one that leaves other flags. Later ones have run once more than those before them, so
 * whatever an engine does after a number of runs, it does in one block at a time. */
static void chain(uptr area, unsigned links, unsigned runs)
{
	uptr begin = area + 0x8000, at = begin + links * 6;

	emit_at(begin);
	for (unsigned n = 0; n < links; n++)
		emit(n & 1 ? "\x39\xca\x89\x07\xeb\x00" : "\x39\xc0\x89\x07\xeb\x00", 6);
	emit8(0xc3);
	emit_at(area);
	put_divisions();
	emit_jmp(begin);
	cli();
	for (unsigned n = links; n--;)
		__asm__ volatile("call *%0"
				 :
				 : "r"(begin + n * 6), "D"(AREA + 0x80000), "c"(5), "d"(3)
				 : "memory", "cc");
	start(begin, at);
	look = look_at_chain;
	for (unsigned n = 0; n < runs; n++)
		run_divided(area);
	stop();
	look = NULL;
}

/* A loop whose first instruction sets all flags. */
static void entered_loop(uptr area)
{
	emit_at(area);
	put_divisions();
	emit("\x39\xca", 2);
	emit("\xeb\x00\x48\x83\xc7\x08\x89\x07\xff\xc9\x75\xf6\xc3", 13);
	start(emit_here() - 11, emit_here());
	look = look_at_loop;
	for (unsigned n = 0; n < 800; n++)
		run_divided(area);
	stop();
	look = NULL;
}

static void flags(void)
{
	for (unsigned n = 0; n < 4; n++)
		chain(AREA + 0x10000 * n, LINKS, 800);
	for (unsigned n = 0; n < 60; n++) /* what is done sooner */
		chain(AREA, 18, 40);
	check(!odd_flags, "a chain of blocks: %u interrupts with the flags of another place", odd_flags);
	odd_flags = 0;
	for (unsigned n = 0; n < 4; n++)
		entered_loop(AREA + 0x8000 * n);
	check(!odd_flags, "loops: %u interrupts with the flags of another place", odd_flags);
}

void guest_main(void)
{
	unsigned all = 0;

	cli();
	interrupt_handler[TIMER_VECTOR] = on_interrupt;
	interrupt_handler[IRQ_BASE] = on_interrupt;
	interrupt_handler[DB] = on_step;
	apic_enable();
	pic_init(0);
	calibrate();
	shadows();
	region("CLI, STI", r_cli, r_cli_end);
	region("CLI, POPF", r_popf, r_popf_end);
	region("CLI, STI at once", r_short, r_short_end);
	region("CLI, IRET", r_iret, r_iret_end);
	region("CR8", r_cr8, r_cr8_end);
	flags();
	loops_without_end();
	/* the 8254 in addition */
	pic_init(1);
	pit(211);
	for (const struct body *b = bodies; b->name; b++)
		computation(b, &all);
	check(all >= 16, "interrupts at %u places", all);
}
