/* Debug traps in warm code: single steps (one #DB for each instruction, and the same results), breakpoints on code and on data, set
 * after the code has run hundreds of times, and gone again when they are cleared. [SDM3 18.3] */
#include "xlate_bodies.h"

#define WARM 300

#define DR6_B0 1ul
#define DR6_B1 2ul
#define DR6_BS 0x4000ul

static volatile u32 traps;     /* in the range */
static volatile u32 elsewhere; /* and not */
static volatile uptr last_ip, last_dr6;
static uptr range_begin, range_end;
static u32 count[16384]; /* by place */
static bool resume;      /* set RF, as for faults */

static uptr read_dr6(void)
{
	uptr v;
	__asm__ volatile("mov %%dr6, %0" : "=r"(v));
	return v;
}

static void write_dr(unsigned n, uptr v)
{
	switch (n) {
	case 0: __asm__ volatile("mov %0, %%dr0" : : "r"(v)); break;
	case 1: __asm__ volatile("mov %0, %%dr1" : : "r"(v)); break;
	case 2: __asm__ volatile("mov %0, %%dr2" : : "r"(v)); break;
	case 3: __asm__ volatile("mov %0, %%dr3" : : "r"(v)); break;
	case 6: __asm__ volatile("mov %0, %%dr6" : : "r"(v)); break;
	default: __asm__ volatile("mov %0, %%dr7" : : "r"(v));
	}
}

static void on_debug(struct frame *f)
{
	last_ip = f->ip;
	last_dr6 = read_dr6();
	write_dr(6, 0xffff0ff0);
	if (f->ip >= range_begin && f->ip < range_end) {
		traps++;
		count[f->ip - range_begin]++;
	} else {
		elsewhere++;
	}
	if (resume)
		f->flags |= FL_RF;
}

static void watch(uptr begin, uptr end)
{
	range_begin = begin;
	range_end = end;
	traps = elsewhere = 0;
	memset_(count, 0, sizeof(count));
}

/* --- single steps --- */

static struct state in, out;

/* How often each instruction of a body is executed in that many rounds, by stepping from the start. */
static void step_body(const struct body *b)
{
	u64 want, rounds = b->name[0] == 's' ? 3 : 40;
	u32 first, bad = 0;
	static u32 before[sizeof(count) / 4];

	body_state(&in, 1, rounds, 0);
	run_body(b->begin, &in, &out);
	want = body_sum(&out);
	body_state(&in, 1, rounds, FL_TF);
	watch(b->begin, b->end);
	run_body(b->begin, &in, &out);
	bad += body_sum(&out) != want;
	first = traps;
	memcpy_(before, count, sizeof(count));
	for (unsigned n = 0; n < 3; n++) {
		body_state(&in, 1, 4000, 0);
		if (b->name[0] != 's')
			run_body(b->begin, &in, &out); /* warm */
		body_state(&in, 1, rounds, 0);
		run_body(b->begin, &in, &out);
		bad += body_sum(&out) != want;
		body_state(&in, 1, rounds, FL_TF);
		watch(b->begin, b->end);
		run_body(b->begin, &in, &out);
		bad += body_sum(&out) != want;
		bad += traps != first;
		for (unsigned k = 0; k < b->end - b->begin; k++)
			bad += count[k] != before[k];
	}
	check(!bad && first >= rounds, "%s: %u single steps, when cold and when warm: %u differences",
	      b->name, first, bad);
}

/* Code whose number of instructions is known: each place, and how often. */
__asm__(".text\n"
	"t_loop: mov $30, %ecx\nt_loop1: add %rax, %rdx\nt_loop2: mov %rdx, -8(%rsp)\nt_loop3: adc -8(%rsp), %rax\nt_loop4: dec %ecx\n"
	"t_loop5: jnz t_loop1\nt_loop6: ret\nt_loop_end: nop\n"
	/* TF set and cleared by POPF inside */
	"t_popf: mov $40, %ecx\nt_popf1: pushf\nt_popf2: orl $0x100, (%rsp)\nt_popf3: popf\nt_popf4: nop\nt_popf5: mov (%rsp), %rax\nt_popf6: call t_popf12\nt_popf7: pushf\n"
	"t_popf8: andl $~0x100, (%rsp)\nt_popf9: popf\nt_popf10: nop\nt_popf11: dec %ecx; jnz t_popf1; ret\nt_popf12: ret\nt_popf_end: nop\n");
extern const u8 t_loop[], t_loop1[], t_loop2[], t_loop3[], t_loop4[], t_loop5[], t_loop6[], t_loop_end[];
extern const u8 t_popf[], t_popf3[], t_popf4[], t_popf5[], t_popf6[], t_popf7[], t_popf8[], t_popf9[],
	t_popf10[], t_popf11[], t_popf12[], t_popf_end[];

static void run_with(const u8 *code, u64 flags)
{
	body_state(&in, 2, 1, flags);
	run_body((uptr)code, &in, &out);
}

static void steps(void)
{
	static const u8 *const loop[] = { t_loop1, t_loop2, t_loop3, t_loop4, t_loop5 };
	static const u8 *const set[] = { t_popf5, t_popf6, t_popf7, t_popf8, t_popf9, t_popf12 };
	bool ok = true;

	resume = false;
	for (unsigned n = 0; n < 20; n++) {
		for (unsigned k = 0; k < WARM / 4; k++)
			run_with(t_loop, 0);
		watch((uptr)t_loop, (uptr)t_loop_end);
		run_with(t_loop, FL_TF);
		for (unsigned k = 0; k < 5; k++)
			ok &= count[loop[k] - t_loop] == 30;
		/* the trap comes behind the instruction: before RET, and at the first one behind the CALL */
		ok &= count[t_loop6 - t_loop] == 1 && count[0] == 1 && traps == 152 && last_dr6 & DR6_BS;
	}
	check(ok, "single steps of a loop: %u", traps);

	ok = true;
	for (unsigned n = 0; n < 30; n++) {
		watch((uptr)t_popf, (uptr)t_popf_end);
		run_with(t_popf, 0);
		for (unsigned k = 0; k < 6; k++)
			ok &= count[set[k] - t_popf] == 40;
		/* POPF that sets TF does not trap; that which clears it does */
		ok &= count[t_popf4 - t_popf] == 0 && count[t_popf10 - t_popf] == 40;
		ok &= count[t_popf11 - t_popf] == 0 && traps == 7 * 40;
	}
	check(ok, "TF set by POPF in a warm loop: %u", traps);
	for (const struct body *b = bodies; b->name; b++)
		step_body(b);
}

/* --- breakpoints on code --- */

/* The instruction's address and how often a run of the code executes it. */
static void code_breakpoint(const char *what, const u8 *code, const u8 *end, const u8 *place, u32 times)
{
	bool ok = true;

	resume = true;
	for (unsigned n = 0; n < 6; n++) {
		unsigned dr = n % 4;

		watch((uptr)code, (uptr)end);
		for (unsigned k = 0; k < WARM; k++)
			run_with(code, 0);
		ok &= traps == 0 && elsewhere == 0;
		write_dr(dr, (uptr)place);
		write_dr(7, 0x400 | (n & 1 ? 2u : 1u) << dr * 2);
		for (unsigned k = 1; k <= 30; k++) {
			run_with(code, 0);
			ok &= traps == times * k;
		}
		ok &= count[place - code] == times * 30 && elsewhere == 0;
		ok &= !times || (last_dr6 >> dr & 1);
		write_dr(7, 0x400);
	}
	check(ok, "a breakpoint at %s: %u", what, traps);
	resume = false;
}

/* --- breakpoints on data --- */

static u8 data[4096 * 2] __attribute__((aligned(4096)));
/* RBX: data + 4096 - 64. The first and the last access lie in different pages. */
__asm__(".text\n"
	"d_code: mov $20, %ecx\n1: mov %rax, (%rbx)\nd_mov: mov 8(%rbx), %rdx\nd_load: addl $1, 16(%rbx)\nd_rmw: mov %al, 24(%rbx)\nd_byte: movups %xmm1, 32(%rbx)\nd_vector: push 48(%rbx)\n"
	"d_push: popq 120(%rbx)\nd_pop: mov %edx, 62(%rbx)\nd_across: lock xadd %rdx, 72(%rbx)\nd_xadd: fildll 80(%rbx)\nd_fild: fistpll 88(%rbx)\nd_fist: setc 96(%rbx)\nd_setc: cmp %rax, 104(%rbx)\nd_cmp:\n"
	"lea 112(%rbx), %rdi; stosl\nd_stos: dec %ecx; jnz 1b; ret\nd_code_end: nop\n");
/* The stack's top is data + 2048. */
__asm__(".text\n"
	"d_stack: mov %rsp, %r8; lea data + 2048(%rip), %rsp; mov $20, %ecx\n1: push %rax\nd_pushed: call 2f; pop %rdx; mov %rcx, 8(%rsp); dec %ecx; jnz 1b;"
	"mov %r8, %rsp; ret\n2:\nd_called: nop; ret\nd_stack_end: nop\n");
extern const u8 d_stack[], d_stack_end[], d_pushed[], d_called[];
extern const u8 d_code[], d_code_end[], d_mov[], d_load[], d_rmw[], d_byte[], d_vector[], d_push[], d_pop[],
	d_across[], d_xadd[], d_fild[], d_fist[], d_setc[], d_cmp[], d_stos[];

static bool on_stack; /* d_stack, not d_code */

static void run_data(void)
{
	body_state(&in, 3, 1, 0);
	in.rbx = (uptr)data + 4096 - 64;
	run_body(on_stack ? (uptr)d_stack : (uptr)d_code, &in, &out);
}

/* dr7's R/W and LEN: 1 writes, 3 both; 0, 1, 3, 2: 1, 2, 4, 8 bytes. */
static void data_breakpoint(const char *what, int offset, unsigned rw, unsigned len, const u8 *behind)
{
	bool ok = true;
	u32 times = behind ? 20 : 0;
	const u8 *begin = on_stack ? d_stack : d_code, *end = on_stack ? d_stack_end : d_code_end;
	uptr where = on_stack ? (uptr)data + 2048 : (uptr)data + 4096 - 64;

	for (unsigned n = 0; n < 4; n++) {
		watch((uptr)begin, (uptr)end);
		for (unsigned k = 0; k < WARM / 4; k++)
			run_data();
		ok &= traps == 0;
		write_dr(n, where + (uptr)(long)offset);
		write_dr(7, 0x400 | 1u << n * 2 | (rw | len << 2) << (16 + n * 4));
		for (unsigned k = 1; k <= 10; k++) {
			run_data();
			ok &= traps == times * k;
		}
		ok &= !behind || count[behind - begin] == times * 10;
		ok &= !behind || (last_dr6 >> n & 1);
		write_dr(7, 0x400);
	}
	check(ok, "a breakpoint on data: %s: %u", what, traps);
}

static void breakpoints(void)
{
	code_breakpoint("the head of a loop", t_loop, t_loop_end, t_loop1, 30);
	code_breakpoint("a store in a loop", t_loop, t_loop_end, t_loop2, 30);
	code_breakpoint("a load in a loop", t_loop, t_loop_end, t_loop3, 30);
	code_breakpoint("the end of a loop", t_loop, t_loop_end, t_loop5, 30);
	code_breakpoint("a RET", t_loop, t_loop_end, t_loop6, 1);
	code_breakpoint("the entry", t_loop, t_loop_end, t_loop, 1);
	code_breakpoint("the middle of an instruction", t_loop, t_loop_end, t_loop2 + 1, 0);

	data_breakpoint("a store", 0, 1, 2, d_mov);
	data_breakpoint("a part of a store", 4, 1, 1, d_mov);
	data_breakpoint("a load, writes only", 8, 1, 2, NULL);
	data_breakpoint("a load", 8, 3, 2, d_load);
	data_breakpoint("a read-modify-write", 16, 1, 3, d_rmw);
	data_breakpoint("a byte", 24, 3, 0, d_byte);
	data_breakpoint("the byte behind", 25, 3, 0, NULL);
	data_breakpoint("16 bytes", 44, 1, 3, d_vector);
	data_breakpoint("what is pushed", 48, 3, 2, d_push);
	data_breakpoint("what is popped", 120, 1, 0, d_pop);
	data_breakpoint("a store over the end of a page, first part", 63, 1, 0, d_across);
	data_breakpoint("a store over the end of a page, second part", 64, 1, 1, d_across);
	data_breakpoint("LOCK XADD", 72, 1, 2, d_xadd);
	data_breakpoint("the x87's load", 80, 3, 2, d_fild);
	data_breakpoint("the x87's store", 88, 1, 2, d_fist);
	data_breakpoint("SETC", 96, 1, 0, d_setc);
	data_breakpoint("CMP, writes only", 104, 1, 2, NULL);
	data_breakpoint("CMP", 104, 3, 2, d_cmp);
	data_breakpoint("STOS", 112, 1, 2, d_stos);
	data_breakpoint("nothing", 200, 3, 2, NULL);
	on_stack = true;
	/* not where the frame of #DB goes, which lies on the same stack */
	data_breakpoint("what is pushed on the stack", -8, 1, 2, d_pushed);
	data_breakpoint("what a CALL pushes", -16, 1, 2, d_called);
	data_breakpoint("nothing on the stack", 16, 3, 2, NULL);
}

void guest_main(void)
{
	cli();
	interrupt_handler[DB] = on_debug;
	write_dr(6, 0xffff0ff0);
	write_dr(7, 0x400);
	steps();
	breakpoints();
}
