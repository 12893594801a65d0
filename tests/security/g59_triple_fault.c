/* Ways to end in a triple fault, one per image (HOW) [G59]: bothy ends with status 2 and says what the guest did. */
#include "hostile.h"

#if HOW == 3
/* #AC whose delivery is unaligned itself: not even a double fault, and on a processor it never ends. */
static void unaligned(uptr arg)
{
	__asm__ volatile("inc %%esp\n\tpushl %%eax\n\tpushl %%eax\n\tmovl (%%esp), %%eax"
			 :
			 :
			 : "eax", "memory");
}
#endif

void guest_main(void)
{
	cli();
	print("READY\n");
#if HOW == 0 /* no descriptor table for exceptions */
	load_idt(idt, 0);
	__asm__ volatile("ud2");
#elif HOW == 1 /* page tables where nothing is */
	write_cr3(HOLE);
	*(volatile u32 *)HOLE = 0;
#elif HOW == 2 /* a stack that cannot be, and a gate for #DF that uses it */
	__asm__ volatile("movabs $0x8000000000000000, %%rsp\n\tpush %%rax\n\tud2" : : : "memory");
#elif HOW == 3
	write_cr0(read_cr0() | 1u << 18);
	set_idt(AC, (uptr)unaligned, SEL_UCODE, 0x8e, 0);
	guest_try_user(unaligned, 0, 1u << 18);
#elif HOW == \
	4 /* gates to a code segment that is not there, beyond the GDT's limit, and a task gate to no task */
	set_idt(GP, 0, 0xfff8, 0x85, 0);
	set_idt(DF, 0, 0x7ff8, 0x85, 0);
	set_idt(NP, 0, 0x7ff8, 0x8e, 0);
	load_gdt(0x17);
	__asm__ volatile("mov %w0, %%fs" : : "r"(0x1000));
#endif
	check(false, "still there");
}
