/* Segments: LAR, LSL, VERR, VERW, ARPL, accessed bits, call gates with and without a change of privilege, RETF and IRET to an
 * outer level, conforming code; system calls (64-bit); virtual-8086 mode (32-bit). [SDM3 chapter 5, 20.2-20.3] */
#include "lib/guest.h"

/* Selectors of this test; the high gates are 16 bytes in 64-bit images. */
#define SEL_RO     0x40 /* read-only data, DPL 0 */
#define SEL_XO     0x48 /* execute-only code, DPL 0 */
#define SEL_CONF   0x50 /* conforming code, DPL 0 */
#define SEL_RING3  0x58 /* data, DPL 3, limit in bytes */
#define SEL_NP     0x60
#define SEL_GATE   0x68
#define SEL_GATE16 0x78
#define SEL_SS16   0x80 /* data whose stack pointer is SP */
#define SEL_CODE16 0x88

static bool zf;

static u32 lar(u16 sel)
{
	u32 v = 0xffffffff;
	__asm__ volatile("lar %w2, %0" : "+r"(v), "=@ccz"(zf) : "r"(sel));
	return v;
}

static u32 lsl(u16 sel)
{
	u32 v = 0xffffffff;
	__asm__ volatile("lsl %w2, %0" : "+r"(v), "=@ccz"(zf) : "r"(sel));
	return v;
}

static bool verr(u16 sel)
{
	bool ok;
	__asm__ volatile("verr %w1" : "=@ccz"(ok) : "r"(sel));
	return ok;
}

static bool verw(u16 sel)
{
	bool ok;
	__asm__ volatile("verw %w1" : "=@ccz"(ok) : "r"(sel));
	return ok;
}

static volatile u32 user_result[16];
/* At CPL 3: what of DPL 0 is visible. */
static void look(uptr arg)
{
	user_result[0] = lar(SEL_DATA);
	user_result[1] = zf;
	user_result[2] = lar(SEL_CONF);
	user_result[3] = zf;
	user_result[4] = verr(SEL_UDATA);
	user_result[5] = verw(SEL_UDATA);
	user_result[6] = verr(SEL_RO);
	user_result[7] = verr(SEL_CONF);
}

static void test_look(void)
{
	u32 v;

	gdt[SEL_RO / 8] = make_desc(0, 0xfffff, 0x90, 0xc);
	gdt[SEL_XO / 8] = make_desc(0, 0xfffff, 0x98, BITS == 64 ? 0xa : 0xc);
	gdt[SEL_CONF / 8] = make_desc(0, 0xfffff, 0x9e, BITS == 64 ? 0xa : 0xc);
	gdt[SEL_RING3 / 8] = make_desc(0x1000, 0x1234, 0xf2, 0x4);
	gdt[SEL_NP / 8] = make_desc(0, 0xfffff, 0x12, 0xc);

	v = lar(SEL_DATA);
	check(zf && v == 0x00c09300, "LAR of data: %x", v);
	v = lar(SEL_NP);
	check(zf && v == 0x00c01200, "LAR of a not present segment: %x", v);
	v = lar(SEL_TSS);
	check(zf && (v & 0xff00) == 0x8b00, "LAR of the TSS: %x", v);
	v = lar(0);
	check(!zf && v == 0xffffffff, "LAR of null");
	v = lar(8 * GDT_ENTRIES);
	check(!zf && v == 0xffffffff, "LAR beyond the GDT");
	v = lsl(SEL_RING3);
	check(zf && v == 0x1234, "LSL in bytes: %x", v);
	v = lsl(SEL_DATA);
	check(zf && v == 0xffffffff, "LSL in pages: %x", v);
	v = lsl(SEL_RING3);
	check(zf && lsl(SEL_DATA | 3) == 0xffffffff && !zf, "LSL obeys RPL");
	check(verr(SEL_RO) && !verw(SEL_RO), "VERR, VERW of read-only data");
	check(!verr(SEL_XO) && !verw(SEL_XO), "VERR, VERW of execute-only code");
	check(verr(SEL_CONF) && !verw(SEL_CONF), "VERR, VERW of readable code");
	check(verw(SEL_RING3) && !verr(SEL_TSS), "VERW of data, VERR of a TSS");

	check(!guest_try_user(look, 0, 0), "LAR, VERR, VERW at CPL 3");
	check(!user_result[1] && user_result[0] == 0xffffffff, "LAR of DPL 0 at CPL 3");
	check(user_result[3], "LAR of conforming DPL 0 code at CPL 3");
	check(user_result[4] && user_result[5] && !user_result[6] && user_result[7], "VERR, VERW at CPL 3");

	check(!(gdt[SEL_RING3 / 8] >> 40 & 1), "not accessed yet");
	__asm__ volatile("mov %w0, %%es; mov %w1, %%es" : : "r"(SEL_RING3), "r"(SEL_DATA));
	check(gdt[SEL_RING3 / 8] >> 40 & 1, "a load sets the accessed bit");
#if BITS == 32
	u32 dst = 0x40;
	bool z;
	__asm__ volatile("arpl %w2, %w0" : "+r"(dst), "=@ccz"(z) : "r"(3));
	check(z && dst == 0x43, "ARPL raises RPL");
	__asm__ volatile("arpl %w2, %w0" : "+r"(dst), "=@ccz"(z) : "r"(1));
	check(!z && dst == 0x43, "but does not lower it");
#endif
}

/* --- call gates --- */

volatile uptr gate_cs, gate_ss, gate_sp, gate_ret, gate_param, gate_param2, back_sp, back_cs, back_ss,
	before_sp;
void gate_target(void);
void gate_target16(void);

#if BITS == 64
__asm__(".globl gate_target; gate_target:\n"
	"mov %cs, %rax; mov %rax, gate_cs; mov %ss, %rax; mov %rax, gate_ss; mov %rsp, gate_sp\n"
	"mov (%rsp), %rax; mov %rax, gate_ret; lretq\n");
static void call_it(uptr sel)
{
	struct {
		u32 off;
		u16 sel;
	} __attribute__((packed)) target = { 0, (u16)sel };

	__asm__ volatile(
		"mov %%rsp, before_sp; lcall *(%0); mov %%rsp, back_sp; mov %%cs, %%rax; mov %%rax, back_cs\n"
		"mov %%ss, %%rax; mov %%rax, back_ss"
		:
		: "r"(&target)
		: "rax", "memory");
}
#else
__asm__(".globl gate_target; gate_target:\n"
	"mov %cs, %eax; mov %eax, gate_cs; mov %ss, %eax; mov %eax, gate_ss; mov %esp, gate_sp\n"
	"mov (%esp), %eax; mov %eax, gate_ret; mov 8(%esp), %eax; mov %eax, gate_param\n"
	"mov 12(%esp), %eax; mov %eax, gate_param2; lret $8\n");
static void call_it(uptr sel)
{
	struct {
		u32 off;
		u16 sel;
	} __attribute__((packed)) target = { 0, (u16)sel };

	__asm__ volatile("mov %%esp, before_sp; push $0x1111; push $0x2222; lcall *(%0); mov %%esp, back_sp\n"
			 "mov %%cs, %%eax; mov %%eax, back_cs; mov %%ss, %%eax; mov %%eax, back_ss"
			 :
			 : "r"(&target)
			 : "eax", "memory");
}
#endif

static void set_gate(unsigned sel, uptr handler, u16 code, u8 access, unsigned params)
{
	gdt[sel / 8] = (handler & 0xffff) | (u64)code << 16 | (u64)params << 32 | (u64)access << 40 |
		       (u64)(handler >> 16 & 0xffff) << 48;
#if BITS == 64
	gdt[sel / 8 + 1] = handler >> 32;
#endif
}

static void test_gates(void)
{
	uptr top;

	memcpy_(&top, tss + 4, sizeof(top));
	set_gate(SEL_GATE, (uptr)gate_target, SEL_CODE, 0xec, BITS == 64 ? 0 : 2);

	check(!guest_try_user(call_it, SEL_GATE | 3, 0), "call gate from CPL 3 and RETF back");
	check(gate_cs == SEL_CODE && (gate_ss & 3) == 0, "the target runs at CPL 0: %lx, %lx", gate_cs,
	      gate_ss);
	check(gate_sp == top - (BITS == 64 ? 32 : 24), "on the stack of the TSS: %lx", gate_sp);
	check(back_cs == SEL_UCODE && back_ss == SEL_UDATA && back_sp == before_sp,
	      "RETF goes back to CPL 3: %lx %lx", back_sp, before_sp);
#if BITS == 32
	check(gate_param == 0x2222 && gate_param2 == 0x1111, "parameters are copied: %lx, %lx", gate_param,
	      gate_param2);
#else
	check(gate_ss == 0, "SS is null in 64-bit mode");
#endif
	check(!guest_try(call_it, SEL_GATE), "call gate without a change of privilege");
	check(gate_cs == SEL_CODE && back_sp == before_sp, "same stack");
	set_gate(SEL_GATE, (uptr)gate_target, SEL_CONF, 0xec, BITS == 64 ? 0 : 2);
	check(!guest_try_user(call_it, SEL_GATE | 3, 0), "call gate to conforming code");
	if (off_tcg("RPL of conforming code behind a gate"))
		check(gate_cs == (SEL_CONF | 3), "stays at CPL 3: %lx", gate_cs);
	set_gate(SEL_GATE, (uptr)gate_target, SEL_CODE, 0x8c, 0);
	expect("call gate with DPL 0 at CPL 3", guest_try_user(call_it, SEL_GATE | 3, 0), GP, SEL_GATE);
	set_gate(SEL_GATE, (uptr)gate_target, SEL_DATA, 0xec, 0);
	expect("call gate to data", guest_try_user(call_it, SEL_GATE | 3, 0), GP, SEL_DATA);
	set_gate(SEL_GATE, (uptr)gate_target, 0, 0xec, 0);
	expect("call gate to null", guest_try_user(call_it, SEL_GATE | 3, 0), GP, 0);
#if BITS == 64
	set_gate(SEL_GATE, (uptr)gate_target, SEL_CODE32, 0xec, 0);
	expect("call gate to 32-bit code", guest_try_user(call_it, SEL_GATE | 3, 0), GP, SEL_CODE32);
	if (off_tcg("non-canonical gate")) {
		set_gate(SEL_GATE, 1ul << 63, SEL_CODE, 0xec, 0);
		expect("call gate to a non-canonical address", guest_try_user(call_it, SEL_GATE | 3, 0), GP,
		       0);
	}
	set_gate(SEL_GATE16, (uptr)gate_target, SEL_CODE, 0xe4, 0);
	expect("16-bit call gate in long mode", guest_try_user(call_it, SEL_GATE16 | 3, 0), GP, SEL_GATE16);
#endif
}

/* --- data segments that a return to an outer level takes away --- */

static volatile u16 left[4];
static void note_segments(uptr arg)
{
	u16 ds, es, fs, gs;

	__asm__ volatile("mov %%ds, %0; mov %%es, %1; mov %%fs, %2; mov %%gs, %3"
			 : "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
	__asm__ volatile("mov %w0, %%ds; mov %w0, %%es" : : "r"(SEL_UDATA));
	left[0] = ds;
	left[1] = es;
	left[2] = fs;
	left[3] = gs;
}

static void test_drop(void)
{
	__asm__ volatile("mov %w0, %%fs; mov %w1, %%gs" : : "r"(SEL_DATA), "r"(SEL_CONF));
	check(!guest_try_user(note_segments, 0, 0), "IRET to CPL 3");
	check(left[2] == 0 && left[3] == SEL_CONF,
	      "FS of DPL 0 is null then, GS of conforming code stays: %x, %x", left[2], left[3]);
	__asm__ volatile("mov %w0, %%fs; mov %w1, %%gs" : : "r"(2), "r"(3));
	check(!guest_try_user(note_segments, 0, 0), "IRET to CPL 3 with null selectors");
	if (off_tcg("RPL of null selectors"))
		check(left[2] == 0 && left[3] == 0, "null selectors lose their RPL: %x, %x", left[2],
		      left[3]);
	__asm__ volatile("mov %w0, %%fs; mov %w0, %%gs" : : "r"(0));
}

#if BITS == 64
/* --- SYSCALL, SYSRET --- */

volatile uptr sys_rcx, sys_r11, sys_cs, sys_ss, sys_flags, user_flags, user_cs, user_ss, sys_rip;
void syscall_entry(void);
__asm__(".globl syscall_entry; syscall_entry:\n"
	"mov %rcx, sys_rcx; mov %r11, sys_r11; pushfq; pop sys_flags\n"
	"mov %cs, %rax; mov %rax, sys_cs; mov %ss, %rax; mov %rax, sys_ss; sysretq\n");

static void do_syscall(uptr arg)
{
	__asm__ volatile(
		"movq $1f, sys_rip; stc; syscall; 1: pushfq; pop user_flags; mov %%cs, %%rax; mov %%rax, user_cs\n"
		"mov %%ss, %%rax; mov %%rax, user_ss"
		:
		:
		: "rax", "rcx", "r11", "memory", "cc");
}
static void do_sysret(uptr arg)
{
	__asm__ volatile("sysretq" : : "c"(arg), "a"(0) : "r11", "memory");
}
static void do_swapgs(uptr arg)
{
	__asm__ volatile("swapgs");
}
static void do_wrfsbase(uptr v)
{
	__asm__ volatile("wrfsbase %0" : : "r"(v));
}

static void test_syscall(void)
{
	uptr v;

	/* SYSRET: CS = base + 16, SS = base + 8. No descriptors are read, so SS need not exist. */
	wrmsr(0xc0000081, (u64)(SEL_UCODE - 16) << 48 | (u64)SEL_CODE << 32);
	wrmsr(0xc0000082, (uptr)syscall_entry);
	wrmsr(0xc0000084, 0x601);
	check(!guest_try_user(do_syscall, 0, 0x600), "SYSCALL and SYSRET");
	check(sys_rcx == sys_rip && (sys_r11 & 0x601) == 0x601,
	      "RCX is the return address, R11 the flags: %lx", sys_r11);
	check((sys_flags & 0x601) == 0, "SFMASK clears flags: %lx", sys_flags);
	check(sys_cs == SEL_CODE && sys_ss == SEL_DATA, "CS and SS by STAR");
	check((user_flags & 0x601) == 0x601 && user_cs == SEL_UCODE, "and back: %lx, %lx", user_flags,
	      user_cs);
	wrmsr(0xc0000080, rdmsr(0xc0000080) & ~1ull);
	expect("SYSCALL without EFER.SCE", guest_try_user(do_syscall, 0, 0), UD, -1);
	wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
	expect("SYSRET at CPL 3", guest_try_user(do_sysret, 0, 0), GP, 0);
	if (off_tcg("SYSRET to a non-canonical address"))
		expect("SYSRET to a non-canonical address", guest_try(do_sysret, 1ul << 63), GP, 0);
	expect("SWAPGS at CPL 3", guest_try_user(do_swapgs, 0, 0), GP, 0);

	wrmsr(0xc0000101, 0x1234);
	wrmsr(0xc0000102, 0xffff800000005678);
	__asm__ volatile("swapgs");
	check(rdmsr(0xc0000101) == 0xffff800000005678 && rdmsr(0xc0000102) == 0x1234, "SWAPGS");
	__asm__ volatile("swapgs");
	expect("WRFSBASE without CR4.FSGSBASE", guest_try(do_wrfsbase, 1), UD, -1);
	write_cr4(read_cr4() | 1ul << 16);
	__asm__ volatile("wrfsbase %1; rdfsbase %0" : "=r"(v) : "r"(0x7fff12345678ul));
	check(v == 0x7fff12345678ul && rdmsr(0xc0000100) == v, "WRFSBASE, RDFSBASE, MSR");
	if (off_tcg("WRFSBASE of a non-canonical address"))
		expect("WRFSBASE of a non-canonical address", guest_try(do_wrfsbase, 1ul << 63), GP, 0);
	__asm__ volatile("mov %w0, %%fs" : : "r"(0));
	write_cr4(read_cr4() & ~(1ul << 16));
}
#else
/* --- virtual-8086 mode --- */

#define V86_CODE  0x20000 /* linear */
#define V86_STACK 0x30000

static uptr v86_recover[10];
static volatile struct {
	u32 vector, error, ip, cs, flags, sp, ss, es, ds, fs, gs;
} v86;

static void on_v86(struct frame *f)
{
	/* GS..ES were pushed by the processor behind SS */
	const uptr *more = &f->ss + 1;

	v86.vector = f->vector;
	v86.error = f->error;
	v86.ip = f->ip;
	v86.cs = f->cs & 0xffff;
	v86.flags = f->flags;
	v86.sp = f->sp;
	v86.ss = f->ss & 0xffff;
	v86.es = more[0] & 0xffff;
	v86.ds = more[1] & 0xffff;
	v86.fs = more[2] & 0xffff;
	v86.gs = more[3] & 0xffff;
	guest_longjmp(v86_recover);
}

/* Runs code in virtual-8086 mode until something interrupts. */
static void run_v86(const void *code, unsigned len, uptr flags)
{
	memcpy_((void *)V86_CODE, code, len);
	*(volatile u8 *)(V86_CODE + len) = 0xcc;
	for (unsigned v = 0; v < 0x50; v++)
		interrupt_handler[v] = on_v86;
	if (!guest_setjmp(v86_recover))
		__asm__ volatile("push $0x1114; push $0x1113; push $0x1112; push $0x1111\n" /* GS FS DS ES */
				 "push %0; push $0x100; push %1; push %2; push $4; iret"
				 :
				 : "r"(V86_STACK >> 4), "r"(flags | 0x20002), "r"(V86_CODE >> 4)
				 : "memory");
	for (unsigned v = 0; v < 0x50; v++)
		interrupt_handler[v] = NULL;
}
#define V86(flags, ...)                                                            \
	do {                                                                       \
		static const u8 code_[] = { 0x90, 0x90, 0x90, 0x90, __VA_ARGS__ }; \
		run_v86(code_, sizeof(code_), flags);                              \
	} while (0)
#define IOPL3 0x3000

static void test_v86(void)
{
	u16 ds, fs;

	V86(0, 0x90); /* falls into INT3 */
	__asm__ volatile("mov %%ds, %0; mov %%fs, %1" : "=r"(ds), "=r"(fs));
	check(v86.vector == BP && v86.ip == 6 && v86.cs == V86_CODE >> 4,
	      "INT3 in virtual-8086 mode: #%u, ip %x", v86.vector, v86.ip);
	check(v86.flags & 0x20000, "VM in the pushed flags: %x", v86.flags);
	check(v86.ss == V86_STACK >> 4 && v86.sp == 0x100, "SS:SP pushed: %x:%x", v86.ss, v86.sp);
	check(v86.es == 0x1111 && v86.ds == 0x1112 && v86.fs == 0x1113 && v86.gs == 0x1114,
	      "ES, DS, FS, GS pushed");
	check(fs == 0, "and null in the handler: %x", fs);

	V86(0, 0xcd, 0x21);
	check(v86.vector == GP && v86.error == 0 && v86.ip == 4, "INT n with IOPL 0: #%u(%x)", v86.vector,
	      v86.error);
	V86(IOPL3, 0xcd, 0x04);
	check(v86.vector == OF && v86.ip == 6, "INT n with IOPL 3 goes through its gate: #%u", v86.vector);
	V86(IOPL3, 0xcd, 0x21);
	check(v86.vector == GP && v86.error == 0x21 * 8 + 2, "a gate with DPL 0: #%u(%x)", v86.vector,
	      v86.error);
	V86(0, 0xfa);
	check(v86.vector == GP && v86.error == 0, "CLI with IOPL 0");
	V86(0, 0x9c);
	check(v86.vector == GP && v86.error == 0, "PUSHF with IOPL 0");
	V86(0, 0xcf);
	check(v86.vector == GP && v86.error == 0, "IRET with IOPL 0");
	V86(IOPL3, 0xfb, 0xfa, 0x9c, 0x58);
	check(v86.vector == BP && !(v86.flags & 0x200), "STI, CLI, PUSHF with IOPL 3");
	V86(0, 0xf4);
	check(v86.vector == GP && v86.error == 0, "HLT");
	V86(0, 0x0f, 0x20, 0xc0);
	check(v86.vector == GP && v86.error == 0, "MOV from CR0");
	V86(0, 0x0f, 0x00, 0xc0);
	check(v86.vector == UD, "SLDT is #UD");
	V86(0, 0x0f, 0x02, 0xc0);
	check(v86.vector == UD, "LAR is #UD");
	V86(0, 0x63, 0xc0);
	check(v86.vector == UD, "ARPL is #UD");
	V86(IOPL3, 0xe4, 0x80);
	check(v86.vector == GP && v86.error == 0, "IN obeys the TSS's map even with IOPL 3");
	tss[0x80 + 0x10] = 0xfe;
	V86(0, 0xe4, 0x80);
	check(v86.vector == BP, "and is allowed by it with IOPL 0: #%u", v86.vector);
	tss[0x80 + 0x10] = 0xff;

	/* mov ax, 1234; mov ds, ax; mov byte [10], 5a */
	*(volatile u8 *)(0x12340 + 0x10) = 0;
	V86(0, 0xb8, 0x34, 0x12, 0x8e, 0xd8, 0xc6, 0x06, 0x10, 0x00, 0x5a);
	check(v86.vector == BP && *(volatile u8 *)(0x12340 + 0x10) == 0x5a && v86.ds == 0x1234,
	      "DS := paragraph");
	V86(0, 0x9a, 0x0a, 0x00, 0x00, 0x20, 0xf4, 0x1e, 0x1f,
	    0xcb); /* call 2000:000A; hlt; push ds; pop ds; retf */
	check(v86.vector == GP && v86.ip == 9 && v86.sp == 0x100, "far CALL and RETF: #%u ip %x sp %x",
	      v86.vector, v86.ip, v86.sp);
	if (off_tcg("segment limits")) {
		V86(0, 0xa1, 0xff, 0xff);
		check(v86.vector == GP && v86.ip == 4, "a word at FFFFH");
	}
	/* pushd 0; push cs; push 0C; nop; iret; nop */
	V86(IOPL3, 0x66, 0x6a, 0x00, 0x0e, 0x6a, 0x0c, 0x90, 0xcf, 0x90);
	check(v86.vector == BP && v86.ip == 0xe && (v86.flags & 0x23000) == 0x23000,
	      "IRET inside virtual-8086 mode keeps VM and IOPL: %x", v86.flags);
}
#endif

#if BITS == 32
/* ENTER with operands of 32 bits on a stack of 16: SP addresses it, and EBP becomes ESP, whole. */
#define ENTER16(start, level, ret_esp, ret_ebp)                                                           \
	__asm__ volatile("push %%ebp; mov %%esp, %%esi; mov %%ss, %%edi; mov %4, %%ss; mov %3, %%esp\n"   \
			 "mov %%eax, %%ebp; enter $16, $" #level "; mov %%esp, %%eax; mov %%ebp, %%ecx\n" \
			 "mov %%edi, %%ss; mov %%esi, %%esp; pop %%ebp"                                   \
			 : "=&a"(ret_esp), "=&c"(ret_ebp)                                                 \
			 : "0"(0x12340200), "i"(start), "d"(SEL_SS16)                                     \
			 : "esi", "edi", "memory")

static void test_enter(void)
{
	volatile u32 *stack = (volatile u32 *)0x400000;
	u32 esp, ebp;

	gdt[SEL_SS16 / 8] = make_desc(0x400000, 0xffff, 0x93, 0);
	ENTER16(0xabcd0100, 2, esp, ebp);
	check(esp == 0xabcd00e4 && stack[0xfc / 4] == 0x12340200, "ENTER on a 16-bit stack: %x, %x", esp,
	      stack[0xfc / 4]);
	check(stack[0xf4 / 4] == 0xabcd00fc, "the frame's address on it is that of ESP: %x", stack[0xf4 / 4]);
	if (off_tcg("ENTER's EBP"))
		check(ebp == 0xabcd00fc, "and so is EBP: %x", ebp);
	ENTER16(0x10000, 0, esp, ebp);
	if (off_tcg("ENTER's EBP"))
		check(ebp == 0x1fffc && esp == 0x1ffec, "SP alone wraps around: %x, %x", ebp, esp);
}
#endif

#if BITS == 32
/* Counts in AX, and returns with operands of 32 bits. */
extern char code16[];
__asm__(".code16\n"
	"code16: incw %ax; incw %ax; incw %ax; incw %ax; incw %ax; incw %ax; incw %ax; incw %ax; lretl\n"
	".code32");

static volatile u32 counted;
static void call_code16(uptr offset)
{
	struct {
		u32 offset;
		u16 sel;
	} __attribute__((packed)) far = { offset, SEL_CODE16 };
	u32 ax = 0x100;

	__asm__ volatile("lcall *%1" : "+a"(ax) : "m"(far) : "memory", "cc");
	counted = ax;
}

/* 16-bit code has an EIP of 32 bits and a limit, like other code. [SDM3 5.3] */
static void test_code16(void)
{
	static const u32 offset[] = { 0x12340000, 0xfffc };

	for (unsigned i = 0; i < 2; i++) {
		gdt[SEL_CODE16 / 8] = make_desc((u32)code16 - offset[i], 0xfffff, 0x9b, 0x8);
		counted = 0;
		check(!guest_try(call_code16, offset[i]) && counted == 0x108, "16-bit code at %x: %x",
		      offset[i], counted);
	}
	gdt[SEL_CODE16 / 8] = make_desc((u32)code16 - offset[1], 0xffff, 0x9b, 0);
	if (off_tcg("the limit of code that runs into it"))
		expect("16-bit code that runs into its limit", guest_try(call_code16, offset[1]), GP, 0);
}
#endif

void guest_main(void)
{
	test_look();
	test_gates();
	test_drop();
#if BITS == 64
	test_syscall();
#else
	test_enter();
	test_code16();
	test_v86();
#endif
}
