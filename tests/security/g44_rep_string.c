/* Repeated string instructions with a count of 2^64-1 on RAM, MMIO, ROM and nothing, forward and backward, are
 * interrupted by a timer in the middle; and a fault in the middle leaves what was done and no more [G44]. */
#include "hostile.h"

#define VECTOR 0x70

static volatile u32 ticks;

/* Ends the repetition: all of them look at RCX when they go on. */
static void on_timer(struct frame *f)
{
	ticks++;
	f->rcx = 1;
	apic_write(APIC_EOI, 0);
}

#define REP(name, insn)                                          \
	static u64 name(uptr di, uptr si, u16 port)              \
	{                                                        \
		u64 n = ~0ull;                                   \
		__asm__ volatile("sti\n\t" insn "\n\tcli\n\tcld" \
				 : "+D"(di), "+S"(si), "+c"(n)   \
				 : "a"(~0ull), "d"((u64)port)    \
				 : "memory", "cc");              \
		return n;                                        \
	}
REP(movsb, "rep movsb")
REP(movsq_back, "std\n\trep movsq")
REP(stosb, "rep stosb")
REP(stosq, "rep stosq")
REP(lodsb, "rep lodsb")
REP(cmpsb, "repe cmpsb")
REP(scasb, "repe scasb")
REP(insb, "rep insb")
REP(insl, "rep insl")
REP(outsb, "rep outsb")
REP(outsl, "rep outsl")

static void try_one(const char *what, u64 (*fn)(uptr, uptr, u16), uptr di, uptr si)
{
	ticks = 0;
	apic_write(APIC_TIMER_INIT, 20000000); /* 20 ms: the timer counts nanoseconds or faster */
	fn(di, si, 0xe0);
	check(ticks == 1, "%s is interrupted", what);
	apic_write(APIC_TIMER_INIT, 0);
}

static u64 left, reached;

static void stos_into(uptr a)
{
	u64 n = ~0ull;

	__asm__ volatile("movq $0, left\n\trep stosb" : "+D"(a), "+c"(n) : "a"(0x5a) : "memory");
}

static void on_fault(struct frame *f)
{
	left = f->rcx;
	reached = f->rdi;
	guest_pd[RAM_END / 2 >> 21] |= 1;
	invlpg((void *)(RAM_END / 2));
	f->rcx = 0;
}

static void on_tick(struct frame *f)
{
	ticks++;
	apic_write(APIC_EOI, 0);
}

/* A code breakpoint that is never reached has the processor look at each instruction, and keeps no timer away. */
static void breakpoint_armed(void)
{
	interrupt_handler[VECTOR] = on_tick;
	ticks = 0;
	__asm__ volatile("mov %0, %%dr0" : : "r"(HOLE));
	__asm__ volatile("mov %0, %%dr7" : : "r"(0x402ul));
	apic_write(APIC_TIMER_INIT, 1000000);
	check(wait_for(&ticks, 1), "the timer comes while a breakpoint is armed");
	__asm__ volatile("mov %0, %%dr7" : : "r"(0x400ul));
}

void guest_main(void)
{
	pic_init(0);
	apic_enable();
	interrupt_handler[VECTOR] = on_timer;
	apic_write(APIC_TIMER_DIV, 0xb);
	apic_write(APIC_LVT_TIMER, VECTOR);
	try_one("REP MOVSB, nothing to nothing", movsb, HOLE, HOLE + 0x1000000);
	try_one("REP MOVSB, ROM to nothing", movsb, HOLE, ROM);
	try_one("REP MOVSQ backward, nothing", movsq_back, HOLE, HOLE - 1);
	try_one("REP STOSB, nothing", stosb, HOLE + 3, 0);
	try_one("REP STOSQ across pages, nothing", stosq, HOLE + 0xffc, 0);
	try_one("REP LODSB, nothing", lodsb, 0, HOLE);
	try_one("REPE CMPSB, nothing", cmpsb, HOLE, HOLE + 5);
	try_one("REPE SCASB, nothing", scasb, HOLE, 0);
	try_one("REP INSB to nothing", insb, HOLE, 0);
	try_one("REP INSD across pages to nothing", insl, HOLE + 0xffd, 0);
	try_one("REP OUTSB from nothing", outsb, 0, HOLE);
	try_one("REP OUTSD from nothing", outsl, 0, HOLE + 0xffd);

	/* a page that is missing in the middle of RAM */
	interrupt_handler[PF] = on_fault;
	guest_pd[RAM_END / 2 >> 21] &= ~1ull;
	invlpg((void *)(RAM_END / 2));
	stos_into(RAM_END / 2 - 100);
	check(reached == RAM_END / 2 && left == ~0ull - 100, "a fault after 100 of 2^64-1: %llx, %llx",
	      reached, left);
	check(*(volatile u8 *)(RAM_END / 2 - 1) == 0x5a, "what was before it is written");
	breakpoint_armed();
}
