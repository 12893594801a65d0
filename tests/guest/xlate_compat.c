/* Warm code of 64-bit and of compatibility mode at the same addresses: bytes that mean different things, by turns, with direct and
 * indirect jumps, calls and returns in them; each way from one mode to the other; what 64-bit code leaves in the upper halves of
 * registers; data segments that are null, then flat; and the ends of the address spaces. [SDM3 5.8.1, 5.8.6; SDM1 3.3.7, 3.4.1.1] */
#include "lib/emit.h"
#include "lib/irq.h"
#include "lib/paging.h"

#define WARM      60
#define AREA      ((uptr)0x2000000)
#define DATA      0x3000000u
#define PHYS      0x4000000ul
#define LAST64    0xfffffffffffff000ul
#define LAST32    0xfffff000ul
#define LOWER     0x7ffffffff000ul /* the last page of the lower half */
#define SEL_LIMIT 0x40
#define SEL_BASE  0x48
#define RUBBISH   0x123400000000ul

static u64 table_4g[512] __attribute__((aligned(4096)));
static u64 pd_above[512] __attribute__((aligned(4096)));
static u64 table_above[512] __attribute__((aligned(4096)));
static u64 high_pdpt[512] __attribute__((aligned(4096)));
static u64 high_pd[512] __attribute__((aligned(4096)));
static u64 high_table[512] __attribute__((aligned(4096)));
static u64 lower_pdpt[512] __attribute__((aligned(4096)));
static u64 lower_pd[512] __attribute__((aligned(4096)));
static u64 lower_table[512] __attribute__((aligned(4096)));

/* Memory at an address that the compiler does not know, such as 0. */
static volatile u32 *at(uptr where)
{
	__asm__("" : "+r"(where));
	return (volatile u32 *)where;
}

static void map_ends(void)
{
	for (u64 k = 0; k < 512; k++)
		table_4g[k] = (0xffe00000 + k * 4096) | P | W | U;
	table_4g[511] = PHYS | P | W | U;
	guest_pd[2047] = (uptr)table_4g | P | W | U;
	table_above[0] = (PHYS + 0x1000) | P | W | U;
	pd_above[0] = (uptr)table_above | P | W | U;
	guest_pdpt[4] = (uptr)pd_above | P | W | U;
	high_table[511] = (PHYS + 0x2000) | P | W | U;
	high_pd[511] = (uptr)high_table | P | W | U;
	high_pdpt[511] = (uptr)high_pd | P | W | U;
	guest_pml4[511] = (uptr)high_pdpt | P | W | U;
	lower_table[511] = (PHYS + 0x3000) | P | W | U;
	lower_pd[511] = (uptr)lower_table | P | W | U;
	lower_pdpt[511] = (uptr)lower_pd | P | W | U;
	guest_pml4[255] = (uptr)lower_pdpt | P | W | U;
	write_cr3(read_cr3());
}

/* --- from 64-bit code into 32-bit code and back --- */
struct regs {
	u64 rax, rcx, rdx, rbx, rbp, rsi, rdi;
};
struct far32 {
	u32 off;
	u16 sel;
} __attribute__((packed));

/* Each calls the 32-bit code at EBP and comes back; its selectors for DS and ES are loaded by 32-bit code. */
void by_far_call(struct regs *r, u32 code, u32 sel);
void by_far_jump(struct regs *r, u32 code, u32 sel);
void by_iret(struct regs *r, u32 code, u32 sel);
void by_far_return(struct regs *r, u32 code, u32 sel);
void by_64(struct regs *r, u32 code, u32 sel); /* as 64-bit code */
u64 compat_sp, compat_call_target, compat_code;
u32 compat_sel;
extern const struct far32 compat_call, compat_jump;

#define LOAD_REGS                                                                                                               \
	"push %rbx; push %rbp; push %r12; push %rdi; mov %esi, compat_code; mov %edx, compat_sel; mov %rdi, %r12\n"             \
	"mov (%r12), %rax; mov 8(%r12), %rcx; mov 16(%r12), %rdx; mov 24(%r12), %rbx; mov 40(%r12), %rsi; mov 48(%r12), %rdi\n" \
	"mov 32(%r12), %rbp; mov %rsp, compat_sp\n"
#define SAVE_REGS                                                                                                                          \
	"mov compat_sp, %rsp; pop %r12; mov %rax, (%r12); mov %rcx, 8(%r12); mov %rdx, 16(%r12); mov %rbx, 24(%r12); mov %rbp, 32(%r12)\n" \
	"mov %rsi, 40(%r12); mov %rdi, 48(%r12); mov $0x10, %edx; mov %edx, %ds; mov %edx, %es; pop %r12; pop %rbp; pop %rbx; ret\n"
/* DS and ES are loaded before the code is called, and before that they are null. */
#define ENTER_32 \
	"pushl %eax; mov %cs:compat_sel, %eax; mov %eax, %ds; mov %eax, %es; popl %eax; mov %cs:compat_code, %ebp; call *%ebp\n"
#define NO_DATA "push %rax; xor %eax, %eax; mov %eax, %ds; mov %eax, %es; pop %rax\n"

__asm__(".pushsection .text; .code64\n"
	"by_far_call:" LOAD_REGS NO_DATA "lcall *compat_call\n" SAVE_REGS "by_far_jump:" LOAD_REGS NO_DATA
	"ljmp *compat_jump; compat_back:" SAVE_REGS "by_iret:" LOAD_REGS NO_DATA
	"push $0x10; push compat_sp; pushf; push $0x38; push $compat_in_jump; iretq\n"
	"by_far_return:" LOAD_REGS NO_DATA "push $0x38; push $compat_in_jump; lretq\n"
	"by_64:" LOAD_REGS "call *compat_code\n" SAVE_REGS ".code32\n"
	"compat_in_call:" ENTER_32 "lret\n"
	"compat_in_jump:" ENTER_32 "ljmp $0x08, $compat_back\n"
	".code64; .balign 8; compat_call: .long compat_in_call; .word 0x38; compat_jump: .long compat_in_jump; .word 0x38\n"
	".popsection");

static const struct {
	const char *name;
	void (*enter)(struct regs *r, u32 code, u32 sel);
} ways[] = {
	{ "far CALL", by_far_call },
	{ "far JMP", by_far_jump },
	{ "IRET", by_iret },
	{ "far RET", by_far_return },
};
#define WAYS 4

/* --- bytes that mean different things --- */
/* How code from f on gets to g and back; 64-bit code adds 5 and 16 to RAX, 32-bit code 4 and 15; each DEC EAX is a REX prefix. */
enum link {
	CALLS,
	JUMPS,
	CONDITION,
	REGISTER_CALLS,
	REGISTER_JUMPS,
	MEMORY_CALLS,
	STACK_JUMPS,
	FALLS,
	LINKS
};
static const char *const link_names[] = { "CALL",
					  "JMP",
					  "Jcc",
					  "CALL of a register",
					  "JMP to a register",
					  "CALL through memory",
					  "PUSH and RET",
					  "falling through" };

static void put(enum link how, uptr f, uptr g)
{
	unsigned calls = how == CALLS || how == REGISTER_CALLS || how == MEMORY_CALLS;

	if (how == FALLS)
		f = g - 4;
	emit_at(f);
	emit("\x48\x83\xc0\x05", 4); /* add $5, %rax */
	switch (how) {
	case CALLS: emit_call(g); break;
	case JUMPS: emit_jmp(g); break;
	case CONDITION:
		emit("\x39\xc0", 2);
		emit_jcc(4, g);
		break;
	case REGISTER_CALLS: emit("\xff\xd3", 2); break; /* call *%rbx */
	case REGISTER_JUMPS: emit("\xff\xe3", 2); break;
	case MEMORY_CALLS: emit("\xff\x16", 2); break; /* call *(%rsi) */
	case STACK_JUMPS: emit("\x53\xc3", 2); break;  /* push %rbx; ret */
	default: break;
	}
	if (calls)
		emit("\x48\x8d\x49\x01\xc3", 5); /* lea 1(%rcx), %rcx */
	emit_at(g);
	emit("\x48\x8d\x40\x10\xc3", 5); /* lea 16(%rax), %rax; ret */
}

static unsigned call_both(enum link how, unsigned way, uptr f, uptr g, unsigned n, bool as_64, u32 sel)
{
	unsigned calls = how == CALLS || how == REGISTER_CALLS || how == MEMORY_CALLS;
	unsigned bad = 0;

	for (unsigned k = 0; k < n; k++) {
		struct regs r = { .rax = 0x100, .rcx = 7, .rbx = g, .rsi = DATA };

		*(volatile u64 *)(uptr)DATA = g;
		if (as_64) {
			by_64(&r, (u32)f, 0);
			bad += r.rax != 0x115 || r.rcx != 7 + calls;
		} else {
			r.rax |= RUBBISH;
			r.rbx |= RUBBISH;
			r.rcx |= RUBBISH;
			r.rsi |= RUBBISH;
			ways[way].enter(&r, (u32)f, sel);
			bad += (u32)r.rax != 0x113 - calls || (u32)r.rcx != 7 + calls;
		}
	}
	return bad;
}

static void by_turns(void)
{
	for (enum link how = 0; how < LINKS; how++)
		for (unsigned way = 0; way < WAYS; way++) {
			unsigned bad = 0;

			for (unsigned far = 0; far < 2; far++) {
				uptr f = AREA + (how * WAYS + way) * 0x8000 + 0x100,
				     g = f + (far ? 0x1f00 : 0x40);
				uptr start = how == FALLS ? g - 4 : f;

				put(how, f, g);
				/* one mode warm, then the other, then often by turns */
				bad += call_both(how, way, start, g, WARM, way & 1, SEL_DATA);
				bad += call_both(how, way, start, g, WARM, !(way & 1), SEL_DATA);
				for (unsigned k = 0; k < 2 * WARM; k++) {
					bad += call_both(how, way, start, g, 1, true, SEL_DATA);
					bad += call_both(how, way, start, g, 1 + k % 3, false, SEL_DATA);
				}
				/* the second half of the code alone, in one mode; the whole in the other */
				for (unsigned k = 0; k < WARM; k++) {
					struct regs r = { .rax = 1 };

					by_64(&r, (u32)g, 0);
					bad += r.rax != 17;
					bad += call_both(how, way, start, g, 1, false, SEL_DATA);
					r.rax = 1;
					ways[way].enter(&r, (u32)g, SEL_DATA);
					bad += (u32)r.rax != 16;
					bad += call_both(how, way, start, g, 1, true, SEL_DATA);
				}
			}
			check(!bad, "the same code of both modes, %s, entered by %s: %u wrong",
			      link_names[how], ways[way].name, bad);
		}
}

/* --- returns to what the other mode has called --- */
/* 64-bit code calls what goes to 32-bit code, and that returns by RET, of 4 bytes; and the other way round. After the CALL:
 * add $5, %rax or dec %eax; add $5, %eax; then by far jumps to the end, whose bytes are the same in both modes (FF /5 of RSI). */
void return_from_32(struct regs *r, u32 code, u32 sel);
void return_from_64(struct regs *r, u32 code, u32 sel);
struct far32 end_of_return, to_ret_32, to_ret_64;
__asm__(".pushsection .text; .code64\n"
	"return_from_32:" LOAD_REGS
	"mov $end_of_return, %esi; cmp $1, %ecx; je 1f; call 2f; .byte 0x48, 0x83, 0xc0, 0x05, 0xff, 0x2e; 1: call 3f; .byte 0x48, 0x83, 0xc0, 0x05, 0xff, 0x2e\n"
	"2: ljmp *to_ret_32; 3: ret; .code32; ret_in_32: ret; .code64; return_end:" SAVE_REGS
	"return_from_64:" LOAD_REGS "mov $end_of_return, %esi; ljmp *6f; 6: .long 4f; .word 0x38\n"
	".code32; 4: pushl $0; call 5f; .byte 0x48, 0x83, 0xc0, 0x05, 0xff, 0x2e; 5: cmp $1, %ecx; jne 7f; ret; 7: ljmp *to_ret_64\n"
	".code64; ret_in_64: ret\n"
	".popsection");
extern const u8 ret_in_32[], ret_in_64[], return_end[];

static void returns_to_others(void)
{
	unsigned bad = 0, bad2 = 0;

	end_of_return = (struct far32){ (u32)(uptr)return_end, SEL_CODE };
	to_ret_32 = (struct far32){ (u32)(uptr)ret_in_32, SEL_CODE32 };
	to_ret_64 = (struct far32){ (u32)(uptr)ret_in_64, SEL_CODE };
	for (unsigned k = 0; k < 8 * WARM; k++) {
		/* rarely, often; RCX 1: in its own mode */
		bool own = k < 4 * WARM ? k % 40 != 39 : k % 3 == 0;
		struct regs r = { .rax = 0x100, .rcx = own };

		return_from_32(&r, 0, 0);
		bad += (u32)r.rax != (own ? 0x105 : 0x104);
		r = (struct regs){ .rax = 0x100, .rcx = own };
		return_from_64(&r, 0, 0);
		bad2 += (u32)r.rax != (own ? 0x104 : 0x105);
	}
	check(!bad, "RET of 32-bit code to what 64-bit code called: %u wrong", bad);
	check(!bad2, "RET of 64-bit code to what 32-bit code called: %u wrong", bad2);
}

/* --- upper halves, and data segments --- */
/* Everything by registers whose upper halves are rubbish. */
extern const u8 rubbish_code[];
__asm__(".pushsection .text; .code32; rubbish_code:\n"
	"mov (%ebx), %edx; add 4(%ebx,%ecx,4), %edx; push %edx; mov %edx, 8(%ebx); lea 16(%ebx), %edi; lea (%ebx), %esi; mov $3, %ecx; rep movsl\n"
	"mov $2, %ecx; 1: inc %eax; loop 1b; cmp %eax, %edx; sbb %ebp, %ebp; mov -4(%esi), %ecx; add $-16, %esi; mov 4(%esi), %ebp; dec %esi\n"
	"inc %esi; add %ebp, (%esi); mov $2f, %ebp; jmp *%ebp; ud2; 2: mov $3f, %esi; call *%esi; pop %edx; jmp 4f; 3: ret; 4: xchg %eax, %ebp; xchg %eax, %ebp\n"
	"push %esp; pop %esi; sub %esp, %esi; jecxz 5f; mov %cs, %ecx; 5: ret; .code64; .popsection");

static void upper_halves(void)
{
	for (unsigned way = 0; way < WAYS; way++) {
		unsigned bad = 0;

		for (u32 k = 0; k < 4 * WARM; k++) {
			volatile u32 *p = (volatile u32 *)(uptr)DATA;
			u64 upper = (u64)(k * 0x9e3779b9u) << 32;
			struct regs r = { .rax = upper | k,
					  .rbx = upper | DATA,
					  .rcx = upper | 1,
					  .rdx = ~0ul,
					  .rbp = upper,
					  .rsi = ~upper,
					  .rdi = ~0ul };

			for (u32 n = 0; n < 16; n++)
				p[n] = 0x1000 * n + k;
			ways[way].enter(&r, (u32)(uptr)rubbish_code, SEL_DATA);
			/* p[0] and p[2] are added; the three words are copied to p[4] on */
			bad += p[2] != 0x2000 + 2 * k || (u32)r.rdx != p[2] || p[4] != k ||
			       p[5] != 0x1000 + k || p[6] != p[2];
			bad += (u32)r.rax != k + 2 || (u32)r.rsi != 0 || (u32)r.rcx != SEL_CODE32 ||
			       (u32)r.rbx != DATA || (u32)r.rdi != DATA + 28;
		}
		check(!bad, "registers with rubbish above, entered by %s: %u wrong", ways[way].name, bad);
	}
}

/* String instructions by such registers. */
extern const u8 rubbish_strings[];
__asm__(".pushsection .text; .code32; rubbish_strings: rep movsl; mov $3, %cl; rep stosl; mov $2, %cl; lodsl; scasl; movsb; xlat; ret; .code64; .popsection");

static void strings(void)
{
	unsigned bad = 0;

	for (u32 k = 0; k < 4 * WARM; k++) {
		volatile u32 *p = (volatile u32 *)(uptr)DATA;
		u64 upper = (u64)(k * 0x9e3779b9u) << 32;
		struct regs r = { .rax = upper | 0x11110000,
				  .rcx = upper | 4,
				  .rbx = upper | DATA,
				  .rsi = upper | DATA,
				  .rdi = upper | (DATA + 0x100) };

		for (u32 n = 0; n < 0x80; n++)
			p[n] = 0x1000 * n + k;
		ways[k % WAYS].enter(&r, (u32)(uptr)rubbish_strings, SEL_DATA);
		for (u32 n = 0; n < 4; n++)
			bad += p[0x40 + n] != 0x1000 * n + k;
		for (u32 n = 4; n < 7; n++)
			bad += p[0x40 + n] != 0x11110000;
		/* LODS has read word 4; SCAS has passed word 47H; MOVSB a byte of word 5 to 48H */
		bad += (u32)r.rsi != DATA + 21 || (u32)r.rdi != DATA + 0x121 ||
		       p[0x48] != (((0x48000 + k) & ~0xffu) | ((0x5000 + k) & 0xff));
		bad += (u32)r.rcx != 2 || ((u32)r.rax & ~0xffu) != ((0x4000 + k) & ~0xffu);
	}
	check(!bad, "string instructions by registers with rubbish above: %u wrong", bad);
}

/* A stack that wraps at 4 GiB, then an interrupt: pushed where ESP says. */
extern const u8 wrapping_stack[];
static volatile u32 wraps;
static volatile uptr wrap_sp[3];

static void on_wrap(struct frame *f)
{
	wrap_sp[wraps++ % 3] = f->sp;
}

__asm__(".pushsection .text; .code32; wrapping_stack:\n"
	"mov %esp, %esi; mov $8, %esp; push %eax; push %ecx; push %edx; int3; pop %ecx; pop %ecx; pop %edx\n"
	"mov $0xfffffff0, %esp; pop %edi; call 1f; leave; int3; lea -8(%esp), %esp; add $4, %esp; int3; mov %esi, %esp; mov $0, %ebp; ret\n"
	"1: mov $0xfffffffc, %ebp; ret; .code64; .popsection");

static void stack_wraps(void)
{
	unsigned bad = 0;

	interrupt_handler[BP] = on_wrap;
	for (u32 k = 0; k < 2 * WARM; k++) {
		struct regs r = { .rax = RUBBISH | 7, .rcx = RUBBISH | 9, .rdx = RUBBISH | 11 };

		wraps = 0;
		ways[k % WAYS].enter(&r, (u32)(uptr)wrapping_stack, SEL_DATA);
		bad += wraps != 3 || wrap_sp[0] != 0xfffffffc || wrap_sp[1] || wrap_sp[2] != 0xfffffffc ||
		       (u32)r.rcx != 9 || (u32)r.rdx != 7;
	}
	interrupt_handler[BP] = NULL;
	check(!bad, "interrupts of 32-bit code on a stack that has wrapped: %u wrong", bad);
}

static void data_segments(void)
{
	static const u16 sel[] = { SEL_DATA, SEL_BASE, SEL_LIMIT, SEL_BASE };

	gdt[SEL_LIMIT / 8] = make_desc(0, 0xfffff - 1, 0x93, 0xc);
	gdt[SEL_BASE / 8] = make_desc(0x1000, 0xfffff, 0x93, 0xc);
	for (enum link how = 0; how < LINKS; how++) {
		unsigned bad = 0;
		uptr f = AREA + 0x400000 + how * 0x4000 + 0x100, g = f + 0x40,
		     start = how == FALLS ? g - 4 : f;

		put(how, f, g);
		for (unsigned k = 0; k < 6 * WARM; k++) {
			unsigned s = k / 5 % 4;

			/* what CALL reads through DS is elsewhere with another base */
			if (sel[s] == SEL_BASE && how == MEMORY_CALLS)
				continue;
			*(volatile u64 *)(uptr)(DATA + 0x1000) = g;
			for (unsigned way = 0; way < WAYS; way++) {
				bad += call_both(how, way, start, g, 1 + k % 2, false, sel[s]);
				bad += call_both(how, way, start, g, k % 2, true, sel[s]);
			}
		}
		check(!bad, "%s in both modes, data segments flat and not: %u wrong", link_names[how], bad);
	}
}

/* --- the ends of the address spaces --- */
static void at_4g(void)
{
	unsigned bad = 0;

	/* add $5, %rax (or dec %eax; add $5, %eax) at the end; then it goes on at 4 GiB or at 0 */
	emit_at(LAST32 + 0xffc);
	emit("\x48\x83\xc0\x05", 4);
	emit_at(0x100000000ul);
	emit("\x83\xc1\x40\xc3", 4); /* add $64, %ecx */
	emit_at(0);
	emit("\x83\xc1\x20\xc3", 4);
	for (unsigned k = 0; k < 4 * WARM; k++) {
		struct regs r = { .rax = 0x100 };

		if (k < 2 * WARM ? k & 1 : k & 16) {
			by_64(&r, 0xfffffffc, 0);
			bad += r.rax != 0x105 || r.rcx != 0x40;
		} else {
			ways[k / 2 % WAYS].enter(&r, 0xfffffffc, SEL_DATA);
			bad += (u32)r.rax != 0x104 || (u32)r.rcx != 0x20;
		}
	}
	check(!bad, "code over the end of 4 GiB: %u wrong", bad);

	/* mov 16(%rbx), %eax; mov %eax, -16(%rsi); lea 8(%rbx), %ecx; mov 8(%rcx), %edx; ret: data */
	bad = 0;
	emit_at(AREA + 0x600000);
	emit("\x8b\x43\x10\x89\x46\xf0\x8d\x4b\x08\x8b\x51\x08\x8b\x7b\x14\xc3", 16);
	for (unsigned k = 0; k < 4 * WARM; k++) {
		struct regs r = { .rbx = 0xfffffff8, .rsi = 0x100000020 };
		bool as_64 = k < 2 * WARM ? k & 1 : k & 16;

		*at(0x100000008) = 0x6400 + k;
		*at(0x10000000c) = 0x6440 + k;
		*at(0x100000010) = 0;
		*at(8) = 0x3200 + k;
		*at(12) = 0x3220 + k;
		*at(16) = 0;
		if (as_64) {
			by_64(&r, (u32)AREA + 0x600000, 0);
			/* LEA of 32 bits cuts */
			bad += (u32)r.rax != 0x6400 + k || *at(0x100000010) != 0x6400 + k ||
			       (u32)r.rdi != 0x6440 + k || (u32)r.rdx != 0x3200 + k;
		} else {
			ways[k / 2 % WAYS].enter(&r, (u32)AREA + 0x600000, SEL_DATA);
			bad += (u32)r.rax != 0x3200 + k || *at(16) != 0x3200 + k ||
			       (u32)r.rdi != 0x3220 + k || (u32)r.rdx != 0x3200 + k;
		}
	}
	check(!bad, "data over the end of 4 GiB: %u wrong", bad);
}

static volatile u32 ticks;
static volatile uptr tick_ip;
static uptr tick_jump[10];

static void on_tick(struct frame *f)
{
	pic_eoi(0);
	if (++ticks < 4)
		return;
	tick_ip = f->ip;
	pic_mask(0);
	guest_longjmp(tick_jump);
}

static void loop_at_end(const char *name, const void *end, unsigned n, const void *start, unsigned m)
{
	memcpy_((void *)(0ul - n), end, n);
	emit_at(0);
	emit(start, m);
	ticks = 0;
	pic_mask(1);
	if (!guest_setjmp(tick_jump))
		__asm__ volatile("mov %%rsp, %%rbp; sti; jmp *%0"
				 :
				 : "r"(0ul - n), "S"(0ul - n), "b"(DATA + 0ul)
				 : "memory", "rax", "rcx", "rdx");
	check(ticks >= 4, "%s: interrupted at %lx", name, tick_ip);
}
#define LOOP(name, end, start) loop_at_end(name, end, sizeof(end) - 1, start, sizeof(start) - 1)

static void endless_loops(void)
{
	pic_init(1);
	interrupt_handler[IRQ_BASE] = on_tick;
	outb(0x43, 0x34);
	outb(0x40, 0x50);
	outb(0x40, 9);
	LOOP("falling over the end of 64 bits, JMP back", "\x90\x90\x90\x90", "\xeb\xfa");
	LOOP("a jump that is not taken at the end", "\x90\x39\xc0\x75\xfb", "\xeb\xf9");
	LOOP("a CALL at the end", "\xe8\x10\x00\x00\x00",
	     "\xeb\xf9\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b\x90\xc3");
	LOOP("a CALL of what lies before, at the end", "\xeb\x01\xc3\xe8\xfa\xff\xff\xff", "\xeb\xf6");
	LOOP("a CALL of a register at the end", "\xeb\x01\xc3\x48\x8d\x46\x02\xff\xd0", "\xeb\xf5");
	LOOP("an access to memory at the end", "\x90\xff\x03", "\xeb\xfb");
	LOOP("an instruction across the end", "\x90\xb8", "\x11\x22\x33\x44\xeb\xf8");
	LOOP("an indirect JMP back", "\x90\x90", "\xff\xe6");
	pic_mask(0);
}

static void end_of_lower_half(void)
{
	static const struct {
		const char *name;
		const char *bytes;
		unsigned n, at; /* at: the fault's RIP */
	} ends[] = {
		{ "falling out of the lower half", "\x48\x83\xc0\x05", 4, 4 },
		{ "a jump out of it that is not taken", "\x39\xc0\x75\x00", 4, 4 },
		{ "a jump out of it", "\x48\x83\xc0\x05\xeb\x00", 6, 4 },
		{ "a conditional jump out of it", "\x39\xc0\x74\x00", 4, 2 },
		{ "an access at its end", "\x8b\x07", 2, 2 },
		{ "a CALL out of it", "\xe8\x00\x00\x00\x00", 5, 0 },
	};

	if (!off_tcg("code that leaves the canonical addresses"))
		return;
	for (unsigned n = 0; n < sizeof(ends) / sizeof(ends[0]); n++) {
		uptr code = LOWER + 0x1000 - ends[n].n;
		unsigned bad = 0;

		memcpy_((void *)code, ends[n].bytes, ends[n].n);
		for (unsigned k = 0; k < WARM; k++) {
			bad += !guest_try((void (*)(uptr))code, 0) || fault.vector != GP || fault.error ||
			       fault.ip != code + ends[n].at;
		}
		check(!bad, "%s: #GP at %lx, %u wrong", ends[n].name, fault.ip, bad);
	}
}

void guest_main(void)
{
	map_ends();
	by_turns();
	returns_to_others();
	upper_halves();
	strings();
	stack_wraps();
	data_segments();
	at_4g();
	endless_loops();
	end_of_lower_half();
}
