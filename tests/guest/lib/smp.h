/* A second processor for 64-bit images: it runs what it is told with the tables of the first. */
#pragma once

#include "irq.h"

#define AP_START 0x8000ul

static u8 ap_stack[16384] __attribute__((used, aligned(16)));
static void (*volatile ap_job)(void);
static volatile u32 ap_jobs_done, ap_alive;

void ap_main(void);
extern const u8 ap_start[], ap_start_end[];

/* At AP_START, with the operand of LGDT at AP_START + 100H: real mode, 32-bit and 64-bit code. */
__asm__(".pushsection .rodata\n"
	".code16\n"
	"ap_start: cli\n"
	"	xor %ax, %ax\n"
	"	mov %ax, %ds\n"
	"	lgdtl 0x8100\n"
	"	mov %cr0, %eax\n"
	"	or $1, %al\n"
	"	mov %eax, %cr0\n"
	"	ljmpl $0x38, $ap_start32\n"
	"ap_start_end:\n"
	".popsection\n"
	".text\n"
	".code32\n"
	"ap_start32: mov $0x10, %eax\n"
	"	mov %eax, %ds\n"
	"	mov %eax, %es\n"
	"	mov %eax, %ss\n"
	"	mov %cr4, %eax\n"
	"	or $0x620, %eax\n"
	"	mov %eax, %cr4\n"
	"	mov $guest_pml4, %eax\n"
	"	mov %eax, %cr3\n"
	"	mov $0xc0000080, %ecx\n"
	"	rdmsr\n"
	"	or $0x901, %eax\n"
	"	wrmsr\n"
	"	mov $0x80010033, %eax\n"
	"	mov %eax, %cr0\n"
	"	ljmp $0x08, $ap_start64\n"
	".code64\n"
	"ap_start64: lea ap_stack + 16384 - 64(%rip), %rsp\n"
	"	fninit\n"
	"	call ap_main\n"
	"1:	hlt\n"
	"	jmp 1b\n");

__attribute__((noreturn)) void ap_main(void)
{
	load_idt(idt, sizeof(idt) - 1);
	apic_enable();
	ap_alive = 1;
	for (;;) {
		void (*job)(void) = ap_job;
		if (!job) {
			__asm__ volatile("pause");
			continue;
		}
		ap_job = NULL;
		job();
		ap_jobs_done++;
	}
}

static bool ap_wait(volatile u32 *what, u32 value)
{
	u64 begin = rdtsc();

	while (*what != value && rdtsc() - begin < 20000000000ull)
		__asm__ volatile("pause");
	return *what == value;
}

/* The processor with APIC ID 1; false: there is none. */
static bool ap_begin(void)
{
	struct {
		u16 limit;
		u32 base;
	} __attribute__((packed)) gdtr = { sizeof(gdt) - 1, (u32)(uptr)gdt };

	memcpy_((void *)AP_START, ap_start, (uptr)(ap_start_end - ap_start));
	memcpy_((void *)(AP_START + 0x100), &gdtr, sizeof(gdtr));
	apic_enable();
	apic_write(APIC_ICR2, 1u << 24);
	apic_write(APIC_ICR, 0x4500); /* INIT */
	for (unsigned k = 0; k < 2; k++) {
		for (u64 t = rdtsc(); rdtsc() - t < 1000000;)
			;
		apic_write(APIC_ICR2, 1u << 24);
		apic_write(APIC_ICR, 0x4600 | AP_START >> 12);
	}
	return ap_wait(&ap_alive, 1);
}

/* Both processors, at the same time as far as possible. */
static bool ap_together(void (*job)(void), void (*here)(void))
{
	u32 done = ap_jobs_done;

	ap_job = job;
	while (ap_job)
		__asm__ volatile("pause");
	here();
	return ap_wait(&ap_jobs_done, done + 1);
}
