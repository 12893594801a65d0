/* Every exception class: vector, error code, and where RIP points (faults at the instruction, traps after it).
 * Built for 32 and for 64 bits. [SDM3 6.15] */
#include "lib/guest.h"

#if BITS == 64
#define STORE_IP   "movq $1f, fault_at\n1: "
#define STORE_NEXT "movq $2f, fault_at\n"
#else
#define STORE_IP   "movl $1f, fault_at\n1: "
#define STORE_NEXT "movl $2f, fault_at\n"
#endif

#if BITS == 64
#define BITS_SP "rsp"
#define BITS_AX "rax"
#else
#define BITS_SP "esp"
#define BITS_AX "eax"
#endif

uptr fault_at;
static volatile u32 scratch[64] __attribute__((aligned(64)));

/* A function that executes one instruction which faults (FAULT), or traps (TRAP), and notes where. */
#define FAULT(name, insn, ...)                                                    \
	static void name(uptr arg)                                                \
	{                                                                         \
		(void)arg;                                                        \
		__asm__ volatile(STORE_IP insn : : __VA_ARGS__ : "memory", "cc"); \
	}
#define TRAP(name, insn, ...)                                                                  \
	static void name(uptr arg)                                                             \
	{                                                                                      \
		(void)arg;                                                                     \
		__asm__ volatile(STORE_NEXT insn "\n2: nop" : : __VA_ARGS__ : "memory", "cc"); \
	}

static void expect_at(const char *what, bool faulted, unsigned vector, long error)
{
	expect(what, faulted, vector, error);
	if (faulted && fault.vector == vector && fault.ip != fault_at)
		check(false, "%s: ip %lx instead of %lx", what, fault.ip, fault_at);
}

static void at_0(const char *what, void (*fn)(uptr), uptr arg, unsigned vector, long error)
{
	expect_at(what, guest_try(fn, arg), vector, error);
}

static void at_3(const char *what, void (*fn)(uptr), uptr arg, unsigned vector, long error)
{
	expect_at(what, guest_try_user(fn, arg, 0), vector, error);
	if (fault.happened && fault.cs != SEL_UCODE)
		check(false, "%s: cs %lx", what, fault.cs);
}

/* --- arithmetic, debugging, coprocessor --- */
FAULT(div_zero, "divl %%ecx", "a"(1), "d"(0), "c"(0))
FAULT(div_overflow, "divl %%ecx", "a"(0), "d"(2), "c"(1))
FAULT(idiv_overflow, "idivl %%ecx", "a"(0x80000000), "d"(0xffffffff), "c"(-1))
FAULT(div8_overflow, "divb %%cl", "a"(0x100), "c"(1))
TRAP(breakpoint, "int3")
TRAP(breakpoint_long, ".byte 0xcd, 3")
TRAP(icebp, ".byte 0xf1")
FAULT(undefined, "ud2")
FAULT(lock_register, ".byte 0xf0, 0x01, 0xc8") /* lock add eax, ecx */
FAULT(lock_nop, ".byte 0xf0, 0x90")
FAULT(mov_to_cs, ".byte 0x8e, 0xc8")
FAULT(mov_from_cr1, ".byte 0x0f, 0x20, 0xc8")
FAULT(x87_insn, "fldz")
FAULT(sse_insn, "addps %%xmm0, %%xmm0")
FAULT(x87_wait, "fwait")

static void test_arithmetic(void)
{
	at_0("DIV by zero", div_zero, 0, DE, -1);
	at_0("DIV overflow", div_overflow, 0, DE, -1);
	at_0("IDIV overflow", idiv_overflow, 0, DE, -1);
	at_0("8-bit DIV overflow", div8_overflow, 0, DE, -1);
	at_3("DIV by zero at CPL 3", div_zero, 0, DE, -1);
	at_0("INT3", breakpoint, 0, BP, -1);
	at_3("INT 3 at CPL 3", breakpoint_long, 0, BP, -1);
	if (off_tcg("INT1"))
		at_0("INT1", icebp, 0, DB, -1);
	if (off_tcg("INT1 at CPL 3, gate with DPL 0"))
		at_3("INT1 at CPL 3, gate with DPL 0", icebp, 0, DB, -1);
	at_0("UD2", undefined, 0, UD, -1);
	at_0("LOCK ADD register", lock_register, 0, UD, -1);
	at_0("LOCK NOP", lock_nop, 0, UD, -1);
	at_0("MOV to CS", mov_to_cs, 0, UD, -1);
	at_0("MOV from CR1", mov_from_cr1, 0, UD, -1);
}

static void test_coprocessor(void)
{
	uptr cr0 = read_cr0(), cr4 = read_cr4();
	u16 cw = 0x037b; /* zero divide unmasked */
	u32 mxcsr = 0x1f80 & ~0x200u, mxcsr_default = 0x1f80;

	write_cr0(cr0 | 8);
	at_0("x87 with CR0.TS", x87_insn, 0, NM, -1);
	at_0("SSE with CR0.TS", sse_insn, 0, NM, -1);
	write_cr0(cr0 | 8 | 2);
	at_0("FWAIT with CR0.TS and MP", x87_wait, 0, NM, -1);
	write_cr0((cr0 | 4) & ~8ul);
	at_0("x87 with CR0.EM", x87_insn, 0, NM, -1);
	at_0("SSE with CR0.EM", sse_insn, 0, UD, -1);
	write_cr0(cr0);
	write_cr4(cr4 & ~0x200ul);
	at_0("SSE without CR4.OSFXSR", sse_insn, 0, UD, -1);
	write_cr4(cr4);

	__asm__ volatile("fninit; fldcw %0; fldz; fld1; fdiv %%st(1), %%st" : : "m"(cw));
	at_0("pending x87 exception", x87_wait, 0, MF, -1);
	__asm__ volatile("fninit");

	__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
	scratch[0] = 0x3f800000;
	__asm__ volatile("movss %0, %%xmm0; xorps %%xmm1, %%xmm1" : : "m"(scratch[0]));
	extern void sse_divide(uptr arg);
	if (off_tcg("unmasked SSE division by zero"))
		at_0("unmasked SSE division by zero", sse_divide, 0, XM, -1);
	__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr_default));
}
void sse_divide(uptr arg);
void sse_divide(uptr arg)
{
	__asm__ volatile(STORE_IP "divss %%xmm1, %%xmm0" : : : "memory");
}

/* --- debug registers --- */
static void single_step(uptr arg)
{
	__asm__ volatile(STORE_NEXT "pushf; orl $0x100, (%%" BITS_SP "); popf; nop; 2: nop"
			 :
			 :
			 : "memory", "cc");
}
FAULT(code_breakpoint, "nop")
TRAP(write_watched, "movl $1, %0", "m"(scratch[8]))
TRAP(read_watched, "testl $1, %0", "m"(scratch[8]))
static u16 watched_ss;
TRAP(mov_ss_int1, "mov %0, %%ss; .byte 0xf1", "m"(watched_ss))
TRAP(mov_ss_nop, "mov %0, %%ss", "m"(watched_ss))
FAULT(read_dr7, "mov %%dr7, %%" BITS_AX)
FAULT(read_dr4, "mov %%dr4, %%" BITS_AX)

#define DR(n)                                                     \
	static void write_dr##n(uptr v)                           \
	{                                                         \
		__asm__ volatile("mov %0, %%dr" #n : : "r"(v));   \
	}                                                         \
	static uptr read_dr##n##_(void)                           \
	{                                                         \
		uptr v;                                           \
		__asm__ volatile("mov %%dr" #n ", %0" : "=r"(v)); \
		return v;                                         \
	}
DR(0)
DR(1)
DR(6)
DR(7)

static void test_debug(void)
{
	uptr cr4 = read_cr4();

	(void)read_dr0_;
	(void)read_dr1_;
	(void)read_dr7_;
	write_dr6(0);
	at_0("single step", single_step, 0, DB, -1);
	check((read_dr6_() & 0x400f) == 0x4000, "DR6.BS after a single step: %lx", read_dr6_());

	write_dr6(0);
	write_dr0((uptr)&scratch[8]);
	write_dr7(0x00010002 | 0x000c0000);
	at_0("data breakpoint, write", write_watched, 0, DB, -1);
	check((read_dr6_() & 0x400f) == 1, "DR6.B0 after a data breakpoint: %lx", read_dr6_());
	fault.happened = guest_try(read_watched, 0);
	check(!fault.happened, "a write breakpoint ignores reads");
	write_dr7(0x00030002 | 0x000c0000);
	at_0("data breakpoint, read", read_watched, 0, DB, -1);
	write_dr7(0x400);

	/* The code breakpoint is put on the NOP, whose address the first run tells. */
	fault.happened = guest_try(code_breakpoint, 0);
	check(!fault.happened, "no breakpoint, no #DB");
	write_dr6(0);
	write_dr0(fault_at);
	write_dr7(0x2);
	at_0("code breakpoint", code_breakpoint, 0, DB, -1);
	check((read_dr6_() & 0x400f) == 1, "DR6.B0 after a code breakpoint: %lx", read_dr6_());
	write_dr7(0x400);

	/* MOV SS holds its data breakpoint back; what comes next is #DB itself, and there is one #DB for both. */
	watched_ss = SEL_DATA;
	write_dr6(0);
	write_dr0((uptr)&watched_ss);
	write_dr7(0x70002);
	if (off_tcg("MOV SS before INT1")) {
		at_0("MOV SS with a data breakpoint, INT1", mov_ss_int1, 0, DB, -1);
		check((read_dr6_() & 0x400f) == 1, "DR6.B0 after INT1: %lx", read_dr6_());
		write_dr7(0x400);
		check(!guest_try(mov_ss_nop, 0), "MOV SS without breakpoints");
		/* Intel's processors hold code breakpoints off too, AMD's do not. */
		write_dr1(fault_at);
		write_dr7(0x7000a);
		check(guest_try(mov_ss_nop, 0) && fault.vector == DB && fault.ip - fault_at <= 1,
		      "MOV SS with a data breakpoint before a code breakpoint: #%u at %lx", fault.vector,
		      fault.ip);
		check(read_dr6_() & 1, "DR6.B0 then: %lx", read_dr6_());
	}

	write_dr6(0);
	write_dr7(0x2000 | 0x400);
	if (off_tcg("general detect")) {
		at_0("general detect", read_dr7, 0, DB, -1);
		check(read_dr6_() & 0x2000, "DR6.BD after general detect: %lx", read_dr6_());
		check(!(read_dr7_() & 0x2000), "DR7.GD is cleared by #DB");
	}
	write_dr7(0x400);
	write_dr6(0);

	write_cr4(cr4 | 8);
	at_0("DR4 with CR4.DE", read_dr4, 0, UD, -1);
	write_cr4(cr4);
	check(!guest_try(read_dr4, 0), "DR4 without CR4.DE");
}

/* --- general protection --- */
FAULT(load_ds, "mov %w0, %%ds", "r"((u16)arg))
FAULT(load_ss, "mov %w0, %%ss", "r"((u16)arg))
FAULT(load_tr, "ltr %w0", "r"((u16)arg))
FAULT(load_ldt, "lldt %w0", "r"((u16)arg))
FAULT(int_40, "int $0x40")
FAULT(int_f0, "int $0xf0")
FAULT(read_bad_msr, "rdmsr", "c"(0x12345))
FAULT(write_bad_efer, "wrmsr", "c"(0xc0000080), "a"(0x10000000), "d"(0))
FAULT(write_bad_cr4, "mov %0, %%cr4", "r"(read_cr4() | 1ul << 31))
FAULT(clear_pe_with_pg, "mov %0, %%cr0", "r"((read_cr0() | 0x80000000ul) & ~1ul))
FAULT(nw_without_cd, "mov %0, %%cr0", "r"((read_cr0() | 0x20000000ul) & ~0x40000000ul))
FAULT(do_hlt, "hlt")
FAULT(do_cli, "cli")
FAULT(do_clts, "clts")
FAULT(do_invlpg, "invlpg (%0)", "r"(&scratch))
FAULT(do_wbinvd, "wbinvd")
FAULT(do_rdmsr, "rdmsr", "c"(0x10))
FAULT(do_read_cr0, "mov %%cr0, %0", "r"(0ul))
FAULT(do_read_dr0, "mov %%dr0, %0", "r"(0ul))
FAULT(do_lgdt, "lgdt %0", "m"(scratch[0]))
FAULT(do_lidt, "lidt %0", "m"(scratch[0]))
FAULT(do_lmsw, "lmsw %w0", "r"(1))
FAULT(do_in, "inb $0x80, %%al", "a"(0))
FAULT(do_out, "outb %%al, $0x81", "a"(0))
FAULT(do_insb, "insb", "d"(0x80), "D"(&scratch))

static void far_jump(uptr sel)
{
	struct {
		uptr off;
		u16 sel;
	} __attribute__((packed)) target = { 0, (u16)sel };
#if BITS == 64
	__asm__ volatile("movq $1f, fault_at; 1: .byte 0x48; ljmp *(%0)" : : "D"(&target) : "memory");
#else
	__asm__ volatile("movl $1f, fault_at; 1: ljmp *%0" : : "m"(target) : "memory");
#endif
}

static void test_protection(void)
{
	/* 40: not present data, 48: execute-only code, 50: read-only data, 58: not present code, 60: data with DPL 3,
	 * 68: not present TSS, 78: not present LDT, 88: data, DPL 0, beyond nothing */
	gdt[8] = make_desc(0, 0xfffff, 0x13, 0xc);
	gdt[9] = make_desc(0, 0xfffff, 0x99, BITS == 64 ? 0xa : 0xc);
	gdt[10] = make_desc(0, 0xfffff, 0x91, 0xc);
	gdt[11] = make_desc(0, 0xfffff, 0x1b, BITS == 64 ? 0xa : 0xc);
	gdt[12] = make_desc(0, 0xfffff, 0xf3, 0xc);
	gdt[13] = make_desc(0, 0x67, 0x09, 0);
	gdt[14] = 0;
	gdt[15] = make_desc(0, 0x67, 0x02, 0);
	gdt[16] = 0;

	__asm__ volatile("lldt %w0" : : "r"(0));
	at_0("DS := not present", load_ds, 0x40, NP, 0x40);
	at_0("SS := not present", load_ss, 0x40, SS, 0x40);
	at_0("DS := execute-only code", load_ds, 0x48, GP, 0x48);
	at_0("SS := read-only data", load_ss, 0x50, GP, 0x50);
	at_0("SS := wrong DPL", load_ss, 0x60, GP, 0x60);
	at_0("SS := wrong RPL", load_ss, 0x13, GP, 0x10);
	if (off_tcg("SS := null with RPL 3"))
		at_0("SS := null with RPL 3", load_ss, 3, GP, 0);
	at_0("DS := beyond the GDT", load_ds, 8 * GDT_ENTRIES, GP, 8 * GDT_ENTRIES);
	at_0("DS := TSS", load_ds, SEL_TSS, GP, SEL_TSS);
	at_0("DS := LDT selector without LDT", load_ds, 0x0c, GP, 0x0c);
	at_3("DS := DPL 0 at CPL 3", load_ds, SEL_DATA, GP, SEL_DATA);
	at_0("JMP to not present code", far_jump, 0x58, NP, 0x58);
	at_0("JMP to data", far_jump, SEL_DATA, GP, SEL_DATA);
	at_0("JMP to null", far_jump, 0, GP, 0);
	at_0("JMP to CPL 3 code", far_jump, SEL_UCODE, GP, SEL_UCODE & ~3);
	at_3("JMP to DPL 0 code at CPL 3", far_jump, SEL_CODE, GP, SEL_CODE);
	at_0("LTR of a not present TSS", load_tr, 0x68, NP, 0x68);
	at_0("LTR of the busy TSS", load_tr, SEL_TSS, GP, SEL_TSS);
	if (off_tcg("LTR of null"))
		at_0("LTR of null", load_tr, 0, GP, 0);
	at_0("LTR of data", load_tr, SEL_DATA, GP, SEL_DATA);
	at_0("LLDT of a not present LDT", load_ldt, 0x78, NP, 0x78);
	at_0("LLDT of data", load_ldt, SEL_DATA, GP, SEL_DATA);

	set_idt(0x40, guest_vector_table[0x40], SEL_CODE, 0x0e, 0);
	if (off_tcg("INT through a not present gate"))
		at_0("INT through a not present gate", int_40, 0, NP, 0x40 * 8 + 2);
	set_idt(0x40, guest_vector_table[0x40], SEL_DATA, 0x8e, 0);
	at_0("INT through a gate to data", int_40, 0, GP, SEL_DATA);
	set_idt(0x40, guest_vector_table[0x40], 0, 0x8e, 0);
	at_0("INT through a gate to null", int_40, 0, GP, 0);
	set_idt(0x40, guest_vector_table[0x40], 0x58, 0x8e, 0);
	at_0("INT through a gate to not present code", int_40, 0, NP, 0x58);
	set_idt(0x40, guest_vector_table[0x40], SEL_CODE, 0x89, 0);
	if (off_tcg("INT through something else"))
		at_0("INT through something else", int_40, 0, GP, 0x40 * 8 + 2);
	set_idt(0x40, guest_vector_table[0x40], SEL_CODE, 0x8e, 0);
	if (off_tcg("INT through a DPL 0 gate at CPL 3"))
		at_3("INT through a DPL 0 gate at CPL 3", int_40, 0, GP, 0x40 * 8 + 2);
	load_idt(idt, 0x80 * BITS / 4 - 1);
	if (off_tcg("INT beyond the IDT"))
		at_0("INT beyond the IDT", int_f0, 0, GP, 0xf0 * 8 + 2);
	reset_idt();

	if (off_tcg("reserved MSR and control-register bits")) {
		at_0("RDMSR of no MSR", read_bad_msr, 0, GP, 0);
		at_0("WRMSR of a reserved EFER bit", write_bad_efer, 0, GP, 0);
		at_0("reserved bit of CR4", write_bad_cr4, 0, GP, 0);
		at_0("CR0.PG without PE", clear_pe_with_pg, 0, GP, 0);
		at_0("CR0.NW without CD", nw_without_cd, 0, GP, 0);
	}

	at_3("HLT at CPL 3", do_hlt, 0, GP, 0);
	at_3("CLI at CPL 3", do_cli, 0, GP, 0);
	at_3("CLTS at CPL 3", do_clts, 0, GP, 0);
	at_3("INVLPG at CPL 3", do_invlpg, 0, GP, 0);
	at_3("WBINVD at CPL 3", do_wbinvd, 0, GP, 0);
	at_3("RDMSR at CPL 3", do_rdmsr, 0, GP, 0);
	at_3("MOV from CR0 at CPL 3", do_read_cr0, 0, GP, 0);
	at_3("MOV from DR0 at CPL 3", do_read_dr0, 0, GP, 0);
	at_3("LGDT at CPL 3", do_lgdt, 0, GP, 0);
	at_3("LIDT at CPL 3", do_lidt, 0, GP, 0);
	at_3("LMSW at CPL 3", do_lmsw, 0, GP, 0);
	at_3("LTR at CPL 3", load_tr, SEL_TSS, GP, 0);
	at_3("LLDT at CPL 3", load_ldt, 0, GP, 0);
	at_3("IN of a forbidden port at CPL 3", do_in, 0, GP, 0);
	at_3("OUT to a forbidden port at CPL 3", do_out, 0, GP, 0);
	at_3("INSB of a forbidden port at CPL 3", do_insb, 0, GP, 0);
	tss[0x80 + 0x10] = 0xfe; /* port 80H allowed */
	check(!guest_try_user(do_in, 0, 0), "IN of a port that the TSS allows");
	at_3("OUT to the port after it", do_out, 0, GP, 0);
	check(!guest_try_user(do_out, 0, 3 << 12), "OUT with IOPL 3");
	check(!guest_try_user(do_cli, 0, 3 << 12), "CLI with IOPL 3");
	tss[0x80 + 0x10] = 0xff;
}

/* --- stacks, double faults, #TS --- */
#if BITS == 64
FAULT(read_noncanonical, "mov (%0), %%eax", "r"(0x8000000000000000ul))
FAULT(read_noncanonical_stack, "mov %%rsp, %%rbx; mov %0, %%rbp; movq $1f, fault_at; 1: mov (%%rbp), %%eax",
      "r"(0x8000000000000000ul))
FAULT(jump_noncanonical, "jmp *%0", "r"(0x8000000000000000ul))
FAULT(read_far_page, "movl (%0), %%eax", "r"(0x7ffffffff000ul))
static void push_noncanonical(uptr arg)
{
	__asm__ volatile(
		"mov %%rsp, %%rbx; mov %0, %%rsp; movq $1f, fault_at; 1: push %%rax; mov %%rbx, %%rsp"
		:
		: "r"(0x8000000000000100ul)
		: "rbx", "memory");
}
static void iret_null_cs(uptr arg)
{
	__asm__ volatile("push $0x10; push %%rsp; pushf; push $0; push $0; movq $1f, fault_at; 1: iretq"
			 :
			 :
			 : "memory");
}
#else
TRAP(overflow, "movl $0x7fffffff, %%eax; addl $1, %%eax; into", "a"(0))
FAULT(bound, "bound %%eax, %0", "m"(scratch[16]), "a"(5))
FAULT(read_beyond_limit, "mov %w0, %%fs; movl $1f, fault_at; 1: movl %%fs:0x1000, %%eax", "r"(arg))
FAULT(read_null_segment, "mov %w0, %%fs; movl $1f, fault_at; 1: movl %%fs:0, %%eax", "r"(arg))
FAULT(write_code, "movl %%eax, %%cs:%0", "m"(scratch[0]))
static void iret_null_cs(uptr arg)
{
	__asm__ volatile("pushf; push $0; push $0; movl $1f, fault_at; 1: iret" : : : "memory");
}
#endif

static void test_memory(void)
{
#if BITS == 64
	at_0("non-canonical read", read_noncanonical, 0, GP, 0);
	if (off_tcg("non-canonical read by RBP"))
		at_0("non-canonical read by RBP", read_noncanonical_stack, 0, SS, 0);
	if (off_tcg("non-canonical jump"))
		at_0("non-canonical jump", jump_noncanonical, 0, GP, 0);
	/* #SS cannot be pushed on that stack: IST 1. */
	uptr top = (uptr)user_stack + sizeof(user_stack);
	memcpy_(tss + 0x24, &top, 8);
	set_idt(SS, guest_vector_table[SS], SEL_CODE, 0x8e, 1);
	if (off_tcg("push on a non-canonical stack"))
		at_0("push on a non-canonical stack", push_noncanonical, 0, SS, 0);
	reset_idt();
	at_0("IRETQ to null CS", iret_null_cs, 0, GP, 0);
	at_0("read of an unmapped page", read_far_page, 0, PF, 0);
	check(fault.cr2 == 0x7ffffffff000ul, "CR2 %lx", fault.cr2);
	at_3("the same at CPL 3", read_far_page, 0, PF, 4);
#else
	scratch[16] = 1;
	scratch[17] = 4;
	at_0("INTO", overflow, 0, OF, -1);
	at_0("BOUND", bound, 0, BR, -1);
	gdt[8] = make_desc(0, 0xfff, 0x93, 0x4);
	gdt[9] = make_desc(0, 0xfff, 0x97, 0x4); /* expand-down: from 1000H up */
	if (off_tcg("segment limits and types")) {
		at_0("read beyond a limit", read_beyond_limit, 0x40, GP, 0);
		check(!guest_try(read_beyond_limit, 0x48), "read above the limit of an expand-down segment");
		gdt[9] = make_desc(0, 0x1000, 0x97, 0x4);
		at_0("read below the limit of an expand-down segment", read_beyond_limit, 0x48, GP, 0);
		at_0("read through a null segment", read_null_segment, 0, GP, 0);
		at_0("write through CS", write_code, 0, GP, 0);
	}
	at_0("IRET to null CS", iret_null_cs, 0, GP, 0);
#endif
}

/* CALL through a gate to ring 1 (32-bit; stack segment null) or ring 2 (64-bit; TSS too short). */
static void call_gate(uptr sel)
{
	struct {
		u32 off;
		u16 sel;
	} __attribute__((packed)) target = { 0, (u16)sel };
#if BITS == 64
	__asm__ volatile("movq $1f, fault_at; 1: lcall *%0" : : "m"(target) : "memory");
#else
	__asm__ volatile("movl $1f, fault_at; 1: lcall *%0" : : "m"(target) : "memory");
#endif
}

FAULT(gp_in_delivery, "int $0x41")

static void test_double_fault(void)
{
	/* #GP whose own gate is not present: #NP while #GP is delivered */
	set_idt(GP, guest_vector_table[GP], SEL_CODE, 0x0e, 0);
	expect("#NP while #GP is delivered", guest_try(load_ds, 8 * GDT_ENTRIES), DF, 0);
	/* a software interrupt is benign: its #NP is just that */
	set_idt(0x41, guest_vector_table[0x41], SEL_CODE, 0x0e, 0);
	if (off_tcg("#NP while INT n is delivered"))
		at_0("#NP while INT n is delivered", gp_in_delivery, 0, NP, 0x41 * 8 + 2);
	reset_idt();
	/* benign first: #UD whose gate is not present gives #NP with EXT */
	set_idt(UD, guest_vector_table[UD], SEL_CODE, 0x0e, 0);
	if (off_tcg("#NP while #UD is delivered"))
		at_0("#NP while #UD is delivered", undefined, 0, NP, UD * 8 + 2 + 1);
	reset_idt();
}

static void test_ts(void)
{
#if BITS == 64
	gdt[8] = make_desc(0, 0xfffff, 0xdb, 0xa);     /* 40: code, DPL 2 */
	gdt[10] = (u64)0xec00 << 32 | (u64)0x42 << 16; /* 50: call gate, DPL 3, to it */
	gdt[11] = 0;
	gdt[5] = make_desc((u32)(uptr)tss, 20, 0x89, 0); /* RSP2 ends at 27 */
	__asm__ volatile("ltr %w0" : : "r"(SEL_TSS));
	if (off_tcg("call gate, TSS too short"))
		at_3("call gate, TSS too short", call_gate, 0x53, TS, SEL_TSS);
	gdt[5] = make_desc((u32)(uptr)tss, sizeof(tss) - 1, 0x89, 0);
	__asm__ volatile("ltr %w0" : : "r"(SEL_TSS));
#else
	u32 ss1 = 0;

	gdt[8] = make_desc(0, 0xfffff, 0xbb, 0xc); /* 40: code, DPL 1 */
	gdt[10] = (u64)0xec00 << 32 | (u64)0x41 << 16;
	gdt[11] = make_desc(0, 0xfffff, 0xb3, 0xc); /* 58: data, DPL 1 */
	memcpy_(tss + 16, &ss1, 4);
	at_3("call gate, inner SS null", call_gate, 0x53, TS, 0);
	ss1 = 0x58; /* RPL 0 */
	memcpy_(tss + 16, &ss1, 4);
	at_3("call gate, inner SS with the wrong RPL", call_gate, 0x53, TS, 0x58);
	ss1 = 8 * GDT_ENTRIES + 1;
	memcpy_(tss + 16, &ss1, 4);
	at_3("call gate, inner SS beyond the GDT", call_gate, 0x53, TS, 8 * GDT_ENTRIES);
	gdt[11] = make_desc(0, 0xfffff, 0x33, 0xc);
	ss1 = 0x59;
	memcpy_(tss + 16, &ss1, 4);
	if (off_tcg("call gate, inner SS not present"))
		at_3("call gate, inner SS not present", call_gate, 0x53, SS, 0x58);
#endif
	gdt[10] &= ~((u64)0x8000 << 32);
	at_3("call gate not present", call_gate, 0x53, NP, 0x50);
}

FAULT(misaligned, "movl %0, %%eax", "m"(*(volatile u32 *)((uptr)scratch + 1)))

static void test_alignment(void)
{
	if (!off_tcg("#AC"))
		return;
	write_cr0(read_cr0() | 0x40000);
	expect_at("misaligned read at CPL 3 with AM and AC", guest_try_user(misaligned, 0, 0x40000), AC, 0);
	check(!guest_try_user(misaligned, 0, 0), "misaligned read without AC");
	check(!guest_try(misaligned, 0), "misaligned read at CPL 0");
	write_cr0(read_cr0() & ~0x40000ul);
}

void guest_main(void)
{
	test_arithmetic();
	test_coprocessor();
	test_debug();
	test_protection();
	test_memory();
	test_double_fault();
	test_ts();
	test_alignment();
}
