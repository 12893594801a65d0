/* A guest that runs a guest of its own, by SVM or by VMX, whichever CPUID says: exits and their counts, injected events, faults,
 * interrupts that come meanwhile, paging of its own, nested paging. The inner guest is 64-bit code of this image, with its memory and
 * descriptor tables. [APM2 15; SDM3 23 to 28] */
#include "lib/irq.h"
#include "lib/virt.h"

#define TIMER_VECTOR 0x50
#define INNER_VECTOR 0x81
#define PORT_OUT     0x99
#define PORT_IN      0x9a
#define LEAF         0x4fff0000u
#define ROUNDS       50u
#define WINDOW       0x8000000000ul /* an address that only the inner guest's page tables have */
#define PAGE_2M      0x200000ul

static volatile u32 apic_ticks, inner_hits, inner_error, inner_ticks;
static volatile bool stop;
static u64 inner_pml4[512] __attribute__((aligned(4096))), inner_pdpt[512] __attribute__((aligned(4096)));
static u64 inner_pd[512] __attribute__((aligned(4096)));
static u8 page[2][4096] __attribute__((aligned(4096)));

/* --- the inner guest --- */
static u64 call(u64 nr, u64 arg)
{
	if (virt_is_svm)
		__asm__ volatile("vmmcall" : "+a"(nr) : "b"(arg) : "memory");
	else
		__asm__ volatile("vmcall" : "+a"(nr) : "b"(arg) : "memory");
	return nr;
}

static void inner_tour(void)
{
	u32 r[4];
	u64 sum = 0;

	for (u32 i = 0; i < ROUNDS; i++) {
		cpuid(LEAF + i, 0, r);
		sum += r[0] + r[3];
		outb(PORT_OUT, (u8)i);
		sum += inb(PORT_IN);
		sum = call(1, sum);
		__asm__ volatile("hlt");
	}
	call(2, sum);
}

static void inner_spin(void)
{
	while (!stop)
		__asm__ volatile("pause");
	call(3, 0);
}

static void inner_open(void)
{
	sti();
	while (inner_ticks < 5)
		__asm__ volatile("pause");
	cli();
	call(4, inner_ticks);
}

static void inner_invalid(void)
{
	__asm__ volatile("ud2");
	call(5, inner_hits);
}

static void inner_read(void)
{
	for (;;)
		call(6, *(volatile u64 *)virt_arg);
}

static void inner_write(void)
{
	*(volatile u64 *)virt_arg = 77;
	call(7, *(volatile u64 *)virt_arg);
}

/* On the inner guest's stack, through the tables of both. */
static void on_inner(struct frame *f)
{
	inner_hits++;
	inner_error = (u32)f->error;
	if (f->vector == UD)
		f->ip += 2;
}

static void on_timer(struct frame *f)
{
	apic_ticks++;
	if (virt_inside)
		inner_ticks++;
	apic_write(APIC_EOI, 0);
}

/* --- the tests --- */
static void test_exits(void)
{
	u32 n[VIRT_NR_EXITS] = { 0 }, wrong = 0;
	u64 sum = 0, theirs = 0;
	bool done = false;

	virt_begin(inner_tour);
	while (!done) {
		enum virt_exit exit = virt_run();
		u32 i = n[VIRT_CPUID] - 1;

		n[exit]++;
		switch (exit) {
		case VIRT_CPUID:
			wrong += (u32)virt.rax != LEAF + i + 1;
			virt.rax = 3 * i + 3;
			virt.rbx = virt.rcx = 0;
			virt.rdx = 7;
			sum += 3 * i + 3 + 7;
			break;
		case VIRT_IO:
			if (virt.port == PORT_OUT) {
				wrong += virt.in || (u8)virt.rax != (u8)i;
			} else {
				wrong += !virt.in || virt.port != PORT_IN;
				virt.rax = (virt.rax & ~0xffull) | (u8)(5 * i);
				sum += (u8)(5 * i);
			}
			break;
		case VIRT_CALL:
			if (virt.rax == 1)
				virt.rax = virt.rbx;
			else
				theirs = virt.rbx, done = true;
			break;
		case VIRT_HLT: break;
		default: done = true;
		}
		virt_skip();
	}
	check(n[VIRT_CPUID] == ROUNDS, "CPUID is left for: %u times", n[VIRT_CPUID]);
	check(n[VIRT_IO] == 2 * ROUNDS, "ports are: %u times", n[VIRT_IO]);
	check(n[VIRT_CALL] == ROUNDS + 1, "%s is: %u times", virt_ops->call, n[VIRT_CALL]);
	check(n[VIRT_HLT] == ROUNDS, "HLT is: %u times", n[VIRT_HLT]);
	check(!wrong && !n[VIRT_OTHER], "each with what it is about (%u wrong, %u others: %lx)", wrong,
	      n[VIRT_OTHER], virt.reason);
	check(sum == theirs, "and what it is answered is what the inner guest gets: %llx, %llx", sum, theirs);
}

/* To the inner guest's next call; whether it was that one. */
static bool until_call(u64 nr)
{
	enum virt_exit exit = virt_run();

	if (exit != VIRT_CALL || virt.rax != nr) {
		print("exit %d (%lx) at %llx, rax %llx\n", exit, virt.reason, virt.rip, virt.rax);
		return false;
	}
	virt_skip();
	return true;
}

static void test_injected(void)
{
	bool ok;

	interrupt_handler[INNER_VECTOR] = on_inner;
	interrupt_handler[GP] = on_inner;
	stop = true;

	inner_hits = 0;
	virt_begin(inner_spin);
	virt_ops->set_flags(0x202); /* IF, or VMX refuses */
	virt_inject(VIRT_INTERRUPT, INNER_VECTOR, 0);
	ok = until_call(3);
	check(ok && inner_hits == 1, "an injected interrupt is delivered: %u", inner_hits);

	inner_hits = 0;
	virt_begin(inner_spin);
	virt_inject(VIRT_EXCEPTION, GP, 0x1230);
	ok = until_call(3);
	check(ok && inner_hits == 1 && inner_error == 0x1230, "so is an exception: %u, error %x", inner_hits,
	      inner_error);
	interrupt_handler[GP] = NULL;
}

static void test_faults(void)
{
	enum virt_exit exit;
	bool ok;

	interrupt_handler[UD] = on_inner;
	inner_hits = 0;
	virt_begin(inner_invalid);
	ok = until_call(5);
	check(ok && inner_hits == 1, "the inner guest handles its own fault");

	inner_hits = 0;
	virt_begin(inner_invalid);
	virt_ops->intercept(UD);
	exit = virt_run();
	check(exit == VIRT_FAULT && virt.vector == UD && inner_hits == 0, "or it is left for: #%u",
	      virt.vector);
	virt_inject(VIRT_EXCEPTION, UD, 0);
	ok = until_call(5);
	check(ok && inner_hits == 1, "and given back");

	virt_begin(inner_invalid);
	virt_ops->set_idt(0, 0);
	exit = virt_run();
	check(exit == VIRT_SHUTDOWN, "a triple fault of its own ends the inner guest only: %d (%lx)", exit,
	      virt.reason);
	interrupt_handler[UD] = NULL;
	inner_hits = 0;
	stop = true;
	virt_begin(inner_spin);
	check(until_call(3), "which can begin anew");
}

static void timer(u32 lvt, u32 count)
{
	apic_write(APIC_TIMER_DIV, 3);
	apic_write(APIC_LVT_TIMER, lvt | TIMER_VECTOR);
	apic_write(APIC_TIMER_INIT, count);
}

static void test_interrupts(void)
{
	u32 exits = 0, others = 0;
	bool ok;

	interrupt_handler[TIMER_VECTOR] = on_timer;
	apic_enable();
	stop = false;
	apic_ticks = inner_ticks = 0;
	virt_begin(inner_spin); /* with IF = 0 */
	while (exits < 20 && others < 20) {
		if (apic_read(APIC_TIMER_CUR) == 0)
			timer(0, 300000);
		if (virt_run() != VIRT_INTR) {
			others++;
			continue;
		}
		exits++;
		__asm__ volatile("sti; nop; nop; cli");
	}
	check(exits == 20 && !others, "the inner guest is left for interrupts: %u", exits);
	check(apic_ticks >= 19 && !inner_ticks, "which come to the outer one: %u, %u", apic_ticks,
	      inner_ticks);
	apic_write(APIC_TIMER_INIT, 0);
	stop = true;
	for (exits = 0; exits < 3 && virt_run() == VIRT_INTR; exits++)
		__asm__ volatile("sti; nop; nop; cli");
	check(virt.rax == 3, "then it goes on");

	inner_ticks = 0;
	virt_begin(inner_open);
	virt_ops->let_interrupts_in();
	timer(1 << 17, 300000);
	ok = until_call(4);
	check(ok && inner_ticks >= 5, "or they come to the inner one: %u", inner_ticks);
	apic_write(APIC_TIMER_INIT, 0);
	let_in(1000000);
}

/* With page tables of its own, which the outer guest's have not. */
static void test_paging(bool nested)
{
	enum virt_exit exit;
	bool ok;

	for (unsigned i = 0; i < 512; i++)
		inner_pml4[i] = guest_pml4[i];
	inner_pml4[1] = (uptr)inner_pdpt | P | W | U;
	inner_pdpt[0] = (uptr)inner_pd | P | W | U;
	inner_pd[0] = ((uptr)page[0] & ~(PAGE_2M - 1)) | P | W | U | PS;
	inner_pd[1] = 0;
	*(volatile u64 *)page[0] = 0x1122334455667788;
	virt_arg = WINDOW + ((uptr)page[0] & (PAGE_2M - 1));
	virt_begin(inner_read);
	virt_ops->set_cr3((uptr)inner_pml4);
	ok = until_call(6);
	check(ok && virt.rbx == 0x1122334455667788, "the inner guest's page tables: %llx", virt.rbx);
	*(volatile u64 *)page[0] = 99;
	ok = until_call(6);
	check(ok && virt.rbx == 99, "see what the outer guest writes: %llx", virt.rbx);

	virt_arg = WINDOW + PAGE_2M + 0x88;
	virt_begin(inner_write);
	virt_ops->set_cr3((uptr)inner_pml4);
	virt_ops->intercept(PF);
	exit = virt_run();
	check(exit == VIRT_FAULT && virt.vector == PF && virt.fault_address == virt_arg &&
		      (virt.error & 3) == 2,
	      "its page fault is left for: address %llx, error %llx", virt.fault_address, virt.error);
	inner_pd[1] = ((uptr)page[0] & ~(PAGE_2M - 1)) | P | W | U | PS;
	ok = until_call(7);
	check(ok && virt.rbx == 77, "and it goes on when the page is there");

	if (!nested)
		return;
	*(volatile u64 *)page[0] = 1;
	*(volatile u64 *)page[1] = 2;
	virt_arg = (uptr)page[0];
	virt_begin(inner_read);
	ok = until_call(6);
	check(ok && virt.rbx == 1, "nested paging, one to one");
	virt_map((uptr)page[0], (uptr)page[1]);
	ok = until_call(6);
	check(ok && virt.rbx == 2, "to another page: %llx", virt.rbx);
	virt_map((uptr)page[0], 0);
	exit = virt_run();
	check(exit == VIRT_NPF && (virt.fault_address & ~0xfffull) == (uptr)page[0],
	      "to nowhere: left for %llx", virt.fault_address);
	virt_map((uptr)page[0], (uptr)page[0]);
	ok = until_call(6);
	check(ok && virt.rbx == 1, "and back: %llx", virt.rbx);
}

void guest_main(void)
{
	pic_init(0);
	if (!virt_init())
		return;
	for (unsigned nested = 0; nested < 2; nested++) {
		if (nested && !virt_ops->has_nested_paging()) {
			skip("nested paging: not offered");
			break;
		}
		print("%s paging\n", nested ? "nested" : "shadow");
		virt_nested_paging = nested;
		test_exits();
		test_injected();
		test_faults();
		test_interrupts();
		test_paging(nested);
	}
	virt_ops->fini();
}
