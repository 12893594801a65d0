/* Task switches: CALL, JMP and INT through TSS descriptors and task gates, IRET with NT, 32- and 16-bit TSS, what is saved and
 * loaded, busy bits, faults before and after the switch. [SDM3 7.2, 7.3] */
#include "lib/guest.h"

struct tss32 {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u32 es, cs, ss, ds, fs, gs, ldt;
	u16 trap, io_map;
};

struct tss16 {
	u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds,
		ldt;
};

#define SEL_TASK     0x40
#define SEL_TASK16   0x48
#define SEL_GATE     0x50
#define SEL_BAD      0x58
#define SEL_CODE_LOW 0x60 /* 16-bit code and data over the image's first 64 KiB */
#define SEL_DATA_LOW 0x68
#define FL_NT        0x4000

static struct tss32 task __attribute__((aligned(128)));
static struct tss16 task16 __attribute__((aligned(128)));
static u8 task_stack[4096] __attribute__((aligned(16)));

volatile u32 seen_flags, seen_tr, seen_cr0, seen_error, seen_sp, seen_count, seen_eax;
void task_entry(void);
void task_exit_jmp(void);
void task_error(void);
void task16_entry(void);
void task_catch(void);

/* Notes what it finds and returns by IRET; when it is entered again it goes on behind the IRET. */
__asm__(".globl task_entry; task_entry:\n"
	"movl %eax, seen_eax; pushfl; popl seen_flags; xorl %eax, %eax; str %ax; movl %eax, seen_tr\n"
	"movl %cr0, %eax; movl %eax, seen_cr0; movl %esp, seen_sp; incl seen_count; movl $0x2222, %ecx; clts\n"
	"iret; movl $0x3333, %eax; jmp task_entry\n"
	/* leaves by JMP to the first task */
	".globl task_exit_jmp; task_exit_jmp: incl seen_count; ljmp $0x28, $0; jmp task_exit_jmp\n"
	/* entered with an error code on its stack */
	".globl task_error; task_error: popl seen_error; incl seen_count; movl task_new_eip, %eax; movl %eax, tss + 0x20\n"
	"iret; jmp task_error\n"
	/* 16-bit */
	".code16; .globl task16_entry; task16_entry: movl $seen_count, %ebx; incl (%ebx); movw $0x4444, %ax; iretw; jmp task16_entry; .code32\n"
	/* a handler that is a task of its own: notes the error code, goes to the first task */
	".globl task_catch; task_catch: popl seen_error; ljmp $0x28, $0; jmp task_catch\n");
u32 task_new_eip;

static u8 busy(unsigned sel)
{
	return gdt[sel / 8] >> 41 & 1;
}

static void reset_task(void (*entry)(void))
{
	memset_(&task, 0, sizeof(task));
	task.cr3 = read_cr3();
	task.eip = (uptr)entry;
	task.eflags = 2;
	task.eax = 0x1111;
	task.esp = (uptr)task_stack + sizeof(task_stack);
	task.es = task.ss = task.ds = task.fs = task.gs = SEL_DATA;
	task.cs = SEL_CODE;
	task.io_map = 0x68;
	gdt[SEL_TASK / 8] = make_desc((uptr)&task, 0x67, 0x89, 0);
	seen_count = 0;
}

static void call_task(uptr sel)
{
	struct {
		u32 off;
		u16 sel;
	} __attribute__((packed)) target = { 0, (u16)sel };

	__asm__ volatile("lcall *%0" : : "m"(target) : "memory", "cc");
}

static void jmp_task(uptr sel)
{
	struct {
		u32 off;
		u16 sel;
	} __attribute__((packed)) target = { 0, (u16)sel };

	__asm__ volatile("ljmp *%0" : : "m"(target) : "memory", "cc");
}

static void do_int(uptr arg)
{
	__asm__ volatile("int $0x44" : : : "memory");
}
static void iret_nt(uptr arg)
{
	__asm__ volatile("pushfl; orl $0x4000, (%%esp); popfl; iret" : : : "memory", "cc");
}

static u32 call_and_check_registers(unsigned sel)
{
	struct {
		u32 off;
		u16 sel;
	} __attribute__((packed)) target = { 0, (u16)sel };
	u32 bx = 0xb, cx = 0xc, dx = 0xd, si = 0x51, di = 0xd1;

	__asm__ volatile("stc; lcall *%5; pushfl; popl tss + 0x1c"
			 : "+b"(bx), "+c"(cx), "+d"(dx), "+S"(si), "+D"(di)
			 : "m"(target)
			 : "memory", "cc");
	return bx == 0xb && cx == 0xc && dx == 0xd && si == 0x51 && di == 0xd1;
}

static void test_call(void)
{
	const struct tss32 *own = (const struct tss32 *)tss;
	bool ok;

	reset_task(task_entry);
	write_cr0(read_cr0() & ~8ul);
	ok = call_and_check_registers(SEL_TASK);
	check(ok && seen_count == 1, "CALL to a TSS, and IRET back, with all registers");
	check(seen_tr == SEL_TASK && seen_eax == 0x1111, "the task runs with its TR and registers");
	check(seen_flags & FL_NT, "NT is set in the called task");
	check(seen_cr0 & 8, "CR0.TS is set by the switch");
	check(task.link == SEL_TSS, "back link");
	check(!busy(SEL_TASK) && busy(SEL_TSS), "busy bits after the return");
	check(task.ecx == 0x2222 && !(task.eflags & FL_NT), "the task was saved; NT clear: %x", task.eflags);
	check(own->ebx == 0xb && own->eip && own->cs == SEL_CODE && own->ss == SEL_DATA, "so was the caller");
	call_task(SEL_TASK);
	check(seen_count == 2 && seen_eax == 0x3333, "a second CALL goes on where the task was");
	check(!(read_flags() & FL_NT), "the caller's NT is clear");
	write_cr0(read_cr0() & ~8ul);
}

static void test_gates(void)
{
	gdt[SEL_GATE / 8] = (u64)0x8500 << 32 | (u64)SEL_TASK << 16;
	reset_task(task_entry);
	call_task(SEL_GATE);
	check(seen_count == 1, "CALL through a task gate");

	reset_task(task_entry);
	set_idt(0x44, 0, SEL_TASK, 0x85, 0);
	do_int(0);
	check(seen_count == 1 && seen_flags & FL_NT, "INT through a task gate");
	expect("INT through a task gate with DPL 0 at CPL 3", guest_try_user(do_int, 0, 0), GP, 0x44 * 8 + 2);

	/* a fault with an error code: pushed on the task's stack; the task moves the caller on */
	extern u8 after_fault[];
	reset_task(task_error);
	set_idt(GP, 0, SEL_TASK, 0x85, 0);
	task_new_eip = (uptr)after_fault;
	__asm__ volatile("mov %w0, %%ds; .globl after_fault; after_fault: nop"
			 :
			 : "r"(SEL_TASK)
			 : "eax", "memory");
	reset_idt();
	check(seen_count == 1 && seen_error == SEL_TASK, "#GP through a task gate, error code %x",
	      seen_error);

	reset_task(task_exit_jmp);
	jmp_task(SEL_TASK);
	check(seen_count == 1 && !busy(SEL_TASK) && busy(SEL_TSS), "JMP there and back");
	check(!(read_flags() & FL_NT), "JMP sets no NT");

	memset_(&task16, 0, sizeof(task16));
	task16.ip = (u16)((uptr)task16_entry - 0x100000);
	task16.flags = 2;
	task16.sp = 0xff00;
	task16.cs = SEL_CODE_LOW;
	task16.ss = task16.es = SEL_DATA_LOW;
	task16.ds = SEL_DATA;
	gdt[SEL_CODE_LOW / 8] = make_desc(0x100000, 0xffff, 0x9b, 0);
	gdt[SEL_DATA_LOW / 8] = make_desc(0x100000, 0xffff, 0x93, 0);
	gdt[SEL_TASK16 / 8] = make_desc((uptr)&task16, 0x2b, 0x81, 0);
	seen_count = 0;
	call_task(SEL_TASK16);
	check(seen_count == 1 && task16.ax == 0x4444 && task16.link == SEL_TSS,
	      "a 16-bit TSS, called and left");
	check(!busy(SEL_TASK16) && busy(SEL_TSS), "its busy bit is clear again");
}

static void test_faults(void)
{
	reset_task(task_entry);
	gdt[SEL_TASK / 8] |= 2ull << 40;
	expect("CALL to a busy TSS", guest_try(call_task, SEL_TASK), GP, SEL_TASK);
	expect("JMP to a busy TSS", guest_try(jmp_task, SEL_TASK), GP, SEL_TASK);
	reset_task(task_entry);
	gdt[SEL_TASK / 8] &= ~(0x80ull << 40);
	expect("CALL to a TSS that is not present", guest_try(call_task, SEL_TASK), NP, SEL_TASK);
	reset_task(task_entry);
	gdt[SEL_TASK / 8] = make_desc((uptr)&task, 0x66, 0x89, 0);
	expect("CALL to a TSS that is too short", guest_try(call_task, SEL_TASK), TS, SEL_TASK);
	reset_task(task_entry);
	expect("CALL to a DPL 0 TSS at CPL 3", guest_try_user(call_task, SEL_TASK, 0), GP, SEL_TASK);
	gdt[SEL_GATE / 8] = (u64)0x0500 << 32 | (u64)SEL_TASK << 16;
	expect("CALL through a task gate that is not present", guest_try(call_task, SEL_GATE), NP, SEL_GATE);
	gdt[SEL_GATE / 8] = (u64)0x8500 << 32 | (u64)SEL_DATA << 16;
	expect("CALL through a task gate to data", guest_try(call_task, SEL_GATE), GP, SEL_DATA);
	memcpy_(tss, &(u16){ SEL_TASK }, 2);
	expect("IRET with NT to a TSS that is not busy", guest_try(iret_nt, 0), TS, SEL_TASK);
	check(busy(SEL_TSS), "the old task is still the current one");

	/* These are faults of the new task. The handler needs a good stack whatever is wrong, so it is a task. */
	static const struct {
		const char *what;
		unsigned offset, sel, vector;
	} bad[] = {
		{ "CS null", __builtin_offsetof(struct tss32, cs), 0, TS },
		{ "CS data", __builtin_offsetof(struct tss32, cs), SEL_DATA, TS },
		{ "SS null", __builtin_offsetof(struct tss32, ss), 0, TS },
		{ "SS code", __builtin_offsetof(struct tss32, ss), SEL_CODE, TS },
		{ "SS not present", __builtin_offsetof(struct tss32, ss), SEL_BAD, SS },
		{ "DS not present", __builtin_offsetof(struct tss32, ds), SEL_BAD, NP },
		{ "ES beyond the GDT", __builtin_offsetof(struct tss32, es), 8 * GDT_ENTRIES, TS },
		{ "LDT not an LDT", __builtin_offsetof(struct tss32, ldt), SEL_DATA, TS },
	};
	if (!off_tcg("faults after the switch"))
		return;
	gdt[SEL_BAD / 8] = make_desc(0, 0xfffff, 0x13, 0xc);
	for (unsigned k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
		u16 tr;
		u32 sel = bad[k].sel;

		static struct tss32 handler;

		reset_task(task_entry);
		memcpy_((u8 *)&task + bad[k].offset, &sel, 4);
		handler = task;
		handler.es = handler.ss = handler.ds = handler.fs = handler.gs = SEL_DATA;
		handler.cs = SEL_CODE;
		handler.ldt = 0;
		gdt[14] = make_desc((uptr)&handler, 0x67, 0x89, 0);
		handler.eip = (uptr)task_catch;
		set_idt(TS, 0, 0x70, 0x85, 0);
		set_idt(NP, 0, 0x70, 0x85, 0);
		set_idt(SS, 0, 0x70, 0x85, 0);
		seen_error = 0xffffffff;
		jmp_task(SEL_TASK);
		__asm__ volatile("str %0" : "=r"(tr));
		check(tr == SEL_TSS && seen_error == (sel & 0xfffc) &&
			      task.cs == (bad[k].offset == 0x4c ? sel : SEL_CODE),
		      "new task, %s: error code %x in the new task", bad[k].what, seen_error);
		reset_idt();
	}
}

static void test_trap(void)
{
	bool faulted;
	uptr dr6;

	if (!off_tcg("the T flag"))
		return;
	reset_task(task_entry);
	task.trap = 1;
	faulted = guest_try(call_task, SEL_TASK);
	__asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
	check(faulted && fault.vector == DB && fault.ip == (uptr)task_entry && dr6 & 0x8000,
	      "the T flag raises #DB before the first instruction: #%u, DR6 %lx", fault.vector, dr6);
}

void guest_main(void)
{
	test_call();
	test_gates();
	test_faults();
	test_trap();
}
