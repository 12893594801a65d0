/* 8259A pair and local APIC, for the interrupt tests. */
#pragma once

#include "guest.h"

#define IRQ_BASE 0x20 /* vector of IRQ 0; IRQ 8 is 28H */

/* Resets the pair with vectors IRQ_BASE..., all lines masked but those in `lines`. */
static inline void pic_init(u16 lines)
{
	outb(0x20, 0x11);
	outb(0xa0, 0x11);
	outb(0x21, IRQ_BASE);
	outb(0xa1, IRQ_BASE + 8);
	outb(0x21, 4);
	outb(0xa1, 2);
	outb(0x21, 1);
	outb(0xa1, 1);
	outb(0x21, (u8) ~(lines | (lines >> 8 ? 4 : 0)));
	outb(0xa1, (u8) ~(lines >> 8));
}

static inline void pic_mask(u16 lines)
{
	outb(0x21, (u8)~lines);
	outb(0xa1, (u8) ~(lines >> 8));
}

static inline u16 pic_read(u8 ocw3) /* 0AH: IRR, 0BH: ISR */
{
	outb(0x20, ocw3);
	outb(0xa0, ocw3);
	return (u16)(inb(0x20) | inb(0xa0) << 8);
}

static inline void pic_eoi(unsigned irq)
{
	if (irq >= 8)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

#define APIC_BASE       0xfee00000ul
#define APIC_ID         0x20
#define APIC_VER        0x30
#define APIC_TPR        0x80
#define APIC_PPR        0xa0
#define APIC_EOI        0xb0
#define APIC_SVR        0xf0
#define APIC_ISR        0x100
#define APIC_IRR        0x200
#define APIC_ESR        0x280
#define APIC_ICR        0x300
#define APIC_ICR2       0x310
#define APIC_LVT_TIMER  0x320
#define APIC_LVT_LINT0  0x350
#define APIC_LVT_ERROR  0x370
#define APIC_TIMER_INIT 0x380
#define APIC_TIMER_CUR  0x390
#define APIC_TIMER_DIV  0x3e0
#define LVT_MASKED      (1u << 16)

static inline u32 apic_read(unsigned reg)
{
	return *(volatile u32 *)(APIC_BASE + reg);
}
static inline void apic_write(unsigned reg, u32 v)
{
	*(volatile u32 *)(APIC_BASE + reg) = v;
}
static inline bool apic_bit(unsigned reg, unsigned vector)
{
	return apic_read(reg + vector / 32 * 16) >> (vector % 32) & 1;
}
static inline void apic_enable(void)
{
	wrmsr(0x1b, rdmsr(0x1b) | 0x800);
	apic_write(APIC_SVR, 0x1ff);
	apic_write(APIC_TPR, 0);
}

/* TSC ticks, about two seconds of any host: what has not come by then does not come any more. */
#define PATIENCE 8000000000ull

/* Both of these leave interrupts on while they wait: some hosts' KVM looks for a window only now and then. */

/* Until *count >= n; false: not within PATIENCE. */
static inline bool wait_for(volatile u32 *count, u32 n)
{
	u64 start = rdtsc();

	sti();
	while (*count < n && rdtsc() - start < PATIENCE)
		__asm__ volatile("pause");
	cli();
	return *count >= n;
}

/* For that many TSC ticks, and some times at least, for hosts that are slow. */
static inline void let_in(u64 ticks)
{
	u64 start = rdtsc();

	sti();
	for (u32 n = 0; n < 500 || rdtsc() - start < ticks; n++)
		__asm__ volatile("pause");
	cli();
}
