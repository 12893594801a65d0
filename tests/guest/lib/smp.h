/* Further processors for 64-bit images: they run what they are told with the tables of the first. */
#pragma once

#include "irq.h"

#define AP_START 0x8000ul
#ifndef SMP_MAX
#define SMP_MAX 8u
#endif

static u8 ap_stack[SMP_MAX][16384] __attribute__((used, aligned(16)));
static volatile u32 ap_started __attribute__((used)); /* how many have taken a stack */
static void (*volatile ap_job)(void);
static volatile u32 ap_jobs, ap_jobs_done, ap_alive;

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
	"ap_start64: mov $1, %eax\n"
	"	lock xadd %eax, ap_started(%rip)\n"
	"	shl $14, %eax\n"
	"	lea ap_stack + 16384 - 64(%rip), %rsp\n"
	"	add %rax, %rsp\n"
	"	fninit\n"
	"	call ap_main\n"
	"1:	hlt\n"
	"	jmp 1b\n");

__attribute__((noreturn)) void ap_main(void)
{
	u32 job = 0;

	load_idt(idt, sizeof(idt) - 1);
	apic_enable();
	__atomic_fetch_add(&ap_alive, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		while (ap_jobs == job)
			__asm__ volatile("pause");
		job = ap_jobs;
		ap_job();
		__atomic_fetch_add(&ap_jobs_done, 1, __ATOMIC_SEQ_CST);
	}
}

static bool ap_wait_for(volatile u32 *what, u32 value, u64 ticks)
{
	u64 begin = rdtsc();

	while (*what != value && rdtsc() - begin < ticks)
		__asm__ volatile("pause");
	return *what == value;
}

static inline bool ap_wait(volatile u32 *what, u32 value)
{
	return ap_wait_for(what, value, 20000000000ull);
}

/* The processor with this APIC ID, after those before it. */
static bool aps_start(u32 id, u64 ticks)
{
	struct {
		u16 limit;
		u32 base;
	} __attribute__((packed)) gdtr = { sizeof(gdt) - 1, (u32)(uptr)gdt };

	memcpy_((void *)AP_START, ap_start, (uptr)(ap_start_end - ap_start));
	memcpy_((void *)(AP_START + 0x100), &gdtr, sizeof(gdtr));
	apic_enable();
	apic_write(APIC_ICR2, id << 24);
	apic_write(APIC_ICR, 0x4500); /* INIT */
	for (unsigned k = 0; k < 2 && ap_alive < id; k++) {
		for (u64 t = rdtsc(); rdtsc() - t < 1000000;)
			;
		apic_write(APIC_ICR2, id << 24);
		apic_write(APIC_ICR, 0x4600 | AP_START >> 12);
	}
	return ap_wait_for(&ap_alive, id, ticks);
}

/* The processors with APIC IDs 1 to n; false: not all of them are there. */
static inline bool aps_begin(u32 n)
{
	for (u32 id = 1; id <= n; id++)
		if (!aps_start(id, 20000000000ull))
			return false;
	return true;
}

/* All there are; within half a second of most hosts. */
static inline void aps_begin_all(void)
{
	for (u32 id = 1; id < SMP_MAX; id++)
		if (!aps_start(id, 1000000000ull))
			return;
}

static inline bool ap_begin(void)
{
	return aps_begin(1);
}

/* Waits until n processors have come here. */
static inline void ap_barrier(u32 n)
{
	static volatile u32 count, phase;
	u32 now = phase;

	if (__atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) == n) {
		count = 0;
		phase = now + 1;
	} else {
		while (phase == now)
			__asm__ volatile("pause");
	}
}

/* All processors, at the same time as far as possible: the others do `job`, this one `here`. */
static bool ap_together(void (*job)(void), void (*here)(void))
{
	u32 done = ap_jobs_done;

	ap_job = job;
	ap_jobs++;
	here();
	return ap_wait(&ap_jobs_done, done + ap_alive);
}
