/* One processor changes code while another executes it, without any of the ceremony that the manual asks for [G55, G57]: aligned
 * stores to an immediate, to an opcode and to data next to them. The one that executes sees old or new bytes, never a mixture, and new ones in the end. */
#include "hostile.h"

#define START  0x8000ul
#define CODE   0x2000000ul
#define ROUNDS 30000u

static u8 ap_stack[8192] __attribute__((used, aligned(16)));
static volatile u32 done, mixed, backward, last, quit, executed;
volatile uptr ap_sp = (uptr)ap_stack + sizeof(ap_stack) - 64;

void ap_main(void);
void ap_entry(void);

/* Flat segments and a stack. */
__asm__(".globl ap_entry\n"
	"ap_entry: movl $0x10, %eax\n"
	"	movl %eax, %ds\n"
	"	movl %eax, %es\n"
	"	movl %eax, %ss\n"
	"	movl ap_sp, %esp\n"
	"	call ap_main\n"
	"1:	cli\n"
	"	hlt\n"
	"	jmp 1b\n");

/* From the start-up message to ap_entry(). */
static const u8 start[] = {
	0xfa,                                           /* cli */
	0x31, 0xc0, 0x8e, 0xd8,                         /* ds = 0 */
	0x66, 0x0f, 0x01, 0x16, 0x00, 0x81,             /* lgdt [8100H] */
	0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, /* CR0.PE */
	0x66, 0xea,                                     /* jmp 8:ap_entry */
};

void ap_main(void)
{
	u32 (*code)(u32) = (u32(*)(u32))CODE;
	u32 seen = 0, v;

	while (!quit) {
		v = code(0);
		executed++;
		/* every byte of it the same, or it is a mixture */
		if (v != (v & 0xff) * 0x01010101)
			mixed++;
		else if ((v & 0xff) < seen)
			backward++;
		seen = v & 0xff;
		last = v;
	}
	done = 1;
}

static bool wait(volatile u32 *flag)
{
	u64 begin = rdtsc();

	while (!*flag && rdtsc() - begin < 20000000000ull)
		__asm__ volatile("pause");
	return *flag;
}

static void start_ap(void)
{
	struct {
		u16 limit;
		u32 base;
	} __attribute__((packed)) gdtr = { 0x17, (u32)(uptr)gdt };
	struct {
		u32 at;
		u16 sel;
	} __attribute__((packed)) target = { (u32)(uptr)ap_entry, SEL_CODE };

	memcpy_((void *)START, start, sizeof(start));
	memcpy_((void *)(START + sizeof(start)), &target, sizeof(target));
	memcpy_((void *)(START + 0x100), &gdtr, sizeof(gdtr));
	apic_enable();
	apic_write(APIC_ICR2, 1u << 24);
	apic_write(APIC_ICR, 0x4500); /* INIT */
	for (unsigned k = 0; k < 2; k++) {
		apic_write(APIC_ICR2, 1u << 24);
		apic_write(APIC_ICR, 0x4600 | START >> 12);
	}
}

void guest_main(void)
{
	volatile u8 *p = (volatile u8 *)CODE;

	cli();
	/* nops up to an aligned immediate: mov eax, imm32; ret */
	memset_((void *)CODE, 0x90, 64);
	p[7] = 0xb8;
	*(volatile u32 *)(p + 8) = 0;
	p[12] = 0xc3;
	start_ap();
	if (!wait(&executed)) {
		check(false, "the other processor does not start");
		return;
	}
	for (u32 n = 1; n <= ROUNDS; n++) {
		*(volatile u32 *)(p + 8) = n / (ROUNDS / 250) * 0x01010101;
		/* other code on the same page, and data */
		p[64 + n % 1024] = (u8)n;
		if (n % 3 == 0)
			p[5] = n & 1 ? 0x90 : 0xf8; /* NOP or CLC */
	}
	*(volatile u32 *)(p + 8) = 0xfefefefe;
	u64 begin = rdtsc();
	while (last != 0xfefefefe && rdtsc() - begin < 20000000000ull)
		__asm__ volatile("pause");
	check(last == 0xfefefefe, "the last change is seen");
	quit = 1;
	check(wait(&done), "the other processor ends");
	check(executed > 1, "it has executed the code");
	check(!mixed, "%u of %u results are a mixture", mixed, executed);
	check(!backward, "%u go back in time", backward);
}
