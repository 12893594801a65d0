/* What tests/system/gdb debugs; by itself an ordinary test. It looks whether it can tell that it is debugged: by its own bytes, its
 * debug registers, its single steps, and its flags. Names with `at_` are places that the debugger stops at. */
#include "lib/smp.h"

#define ROUNDS 2000000u

/* The debugger writes here. */
volatile u32 rounds_wanted = 3;
/* The debugger watches these; each in a page of its own. */
struct page {
	volatile u64 value, neighbour;
	u8 fill[4096 - 16];
};
struct page at_write __attribute__((aligned(4096)));
struct page at_read __attribute__((aligned(4096)));
struct page at_vector __attribute__((aligned(4096)));
u8 at_string[4096] __attribute__((aligned(4096)));
volatile u32 ap_rounds, ap_stop, steps_seen, own_hits;

/* In a page of its own, with a loop, a call, and registers that can be told in advance. */
__asm__(".text\n"
	".balign 4096\n"
	".globl at_target, at_second, at_end, at_callee\n"
	"at_target:\n"
	"	mov $0x1234, %eax\n"
	"at_second:\n"
	"	lea 1(%rax), %rcx\n"
	"	pushfq\n"
	"	pop %rdx\n"
	"	call at_callee\n"
	"	add %rcx, %rax\n"
	"at_end:\n"
	"	ret\n"
	"at_callee:\n"
	"	mov $3, %esi\n"
	"1:	dec %esi\n"
	"	jnz 1b\n"
	"	ret\n"
	".balign 4096\n");
extern const u8 at_target[], at_second[], at_end[], at_callee[];

static u64 call_target(u64 *ret_flags)
{
	u64 rax, rdx;

	__asm__ volatile("call at_target" : "=a"(rax), "=d"(rdx) : : "rcx", "rsi", "cc", "memory");
	*ret_flags = rdx;
	return rax;
}

static u32 sum(const u8 *from, const u8 *to)
{
	u32 s = 0;

	for (; from < to; from++)
		s = s * 31 + *from;
	return s;
}

/* Code that has no breakpoint and is to run at full speed. */
__attribute__((noinline, aligned(4096))) u64 at_hot(u64 n)
{
	u64 s = 1;

	for (u64 k = 0; k < n; k++)
		s = s * 6364136223846793005ull + k;
	return s;
}

__attribute__((noinline, aligned(4096))) void at_data(void)
{
	at_write.neighbour = 1;
	at_write.value = 0x11;
	at_write.value = 0x22;
	at_write.neighbour = at_read.neighbour;
	(void)at_read.value;
	__asm__ volatile("lock addq $5, %0" : "+m"(at_write.value));
	__asm__ volatile("movups %%xmm0, %0" : "=m"(*(u64(*)[2]) & at_vector.value));
	__asm__ volatile("rep stosb" : : "D"(at_string), "c"(sizeof(at_string)), "a"(7) : "memory");
}

static void on_debug(struct frame *f)
{
	u64 dr6;

	__asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
	if (dr6 & 0x4000)
		steps_seen++;
	if (dr6 & 1) {
		own_hits++;
		f->flags |= 1u << 16;
	}
	__asm__ volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ull));
}

/* The guest's own debugging, of the same code. */
static void own_debugging(void)
{
	u64 flags;

	interrupt_handler[DB] = on_debug;
	__asm__ volatile(
		"pushfq; orl $0x100, (%%rsp); popfq; call at_target; pushfq; andl $~0x100, (%%rsp); popfq"
		:
		:
		: "rax", "rcx", "rdx", "rsi", "cc", "memory");
	/* call; mov, lea, pushfq, pop, call; mov, 3 x (dec, jnz), ret; add, ret; pushfq, andl, popfq. POPFQ that sets TF traps after the next. */
	check(steps_seen == 1 + 5 + 8 + 2 + 3, "%u single steps", steps_seen);
	__asm__ volatile("mov %0, %%dr0; mov %1, %%dr7" : : "r"((u64)at_second), "r"(0x401ull));
	for (unsigned k = 0; k < 5; k++)
		call_target(&flags);
	__asm__ volatile("mov %0, %%dr7" : : "r"(0x400ull));
	check(own_hits == 5, "%u of its own breakpoints", own_hits);
}

void at_work(void);
void at_work(void)
{
	u64 flags;

	while (!ap_stop) {
		call_target(&flags);
		ap_rounds++;
	}
}

static void let_work(void)
{
	for (u64 begin = rdtsc(); ap_rounds < 1000 && rdtsc() - begin < 20000000000ull;)
		__asm__ volatile("pause");
	check(ap_rounds >= 1000, "%u rounds on the other one", ap_rounds);
	ap_stop = 1;
}

__attribute__((noinline)) void at_done(void)
{
	__asm__ volatile("");
}

void guest_main(void)
{
	u32 before = sum(at_target, at_callee + 16), bad = 0;
	u64 flags, dr7;

	__asm__ volatile("mov %%cr4, %0; or $0x600, %0; mov %0, %%cr4" : "=&r"(flags));
	for (u32 k = 0; k < rounds_wanted; k++)
		bad += call_target(&flags) != 0x1234 + 0x1235 || flags & 0x100;
	check(!bad, "%u rounds", rounds_wanted);
	check(sum(at_target, at_callee + 16) == before, "the code is what it was");
	check(at_hot(ROUNDS) != 0, "a loop");
	at_data();
	check(at_write.value == 0x27 && at_string[4095] == 7, "data");
	own_debugging();
	__asm__ volatile("mov %%dr7, %0" : "=r"(dr7));
	check(dr7 == 0x400, "DR7 is %llx", dr7);
	check(ap_begin(), "a second processor");
	check(ap_together(at_work, let_work), "which works");
	at_done();
}
