/* The controllers that lines come to: 8259A pair (cascade, priorities, edge and level inputs, masks, automatic EOI) and I/O APIC (edge
 * and level pins, remote IRR, masks), each driven by the UART, whose line stays high until it is asked why, and by the RTC.
 * Nothing here depends on whose they are. [8259A; 82371AB ELCR; 82093AA 3.2.4] */
#include "lib/irq.h"

#define COM1     0x3f8
#define COM1_IRQ 4
#define RTC_IRQ  8
#define ELCR     0x4d0

#define IOAPIC    0xfec00000ul
#define RED(pin)  (0x10 + 2 * (pin))
#define RED_RIRR  (1u << 14)
#define RED_LEVEL (1u << 15)
#define RED_MASK  (1u << 16)
#define PIN_EDGE  0x71
#define PIN_LEVEL 0x82

static volatile u32 count[256];
static volatile u32 stop_at = 1; /* the how many-th interrupt of a vector takes its cause away */
static volatile u16 isr_seen;
static volatile u32 red_seen;
static bool pic_auto, rtc_within;

static u32 ioapic_read(u32 r)
{
	*(volatile u32 *)IOAPIC = r;
	return *(volatile u32 *)(IOAPIC + 0x10);
}

static void ioapic_write(u32 r, u32 v)
{
	*(volatile u32 *)IOAPIC = r;
	*(volatile u32 *)(IOAPIC + 0x10) = v;
}

/* The transmitter is empty: with its interrupt enabled the line goes high, and reading why takes it back. */
static void raise_line(void)
{
	while (!(inb(COM1 + 5) & 0x40))
		;
	outb(COM1 + 4, 8); /* OUT2, as on the PC */
	outb(COM1 + 1, 2);
}

static void lower_line(void)
{
	(void)inb(COM1 + 2);
	outb(COM1 + 1, 0);
}

static u8 cmos(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void rtc_on(void)
{
	outb(0x70, 0x0a);
	outb(0x71, 0x26); /* 1024 Hz */
	outb(0x70, 0x0b);
	outb(0x71, 0x42);
	(void)cmos(0x0c);
}

static void rtc_off(void)
{
	outb(0x70, 0x0b);
	outb(0x71, 0x02);
	(void)cmos(0x0c);
}

static void on_uart(struct frame *f)
{
	u32 n = ++count[f->vector];

	isr_seen = pic_read(0x0b);
	if (n >= stop_at)
		lower_line();
	if (rtc_within) {
		rtc_within = false;
		let_in(100000);
	}
	if (!pic_auto)
		pic_eoi(COM1_IRQ);
}

static void on_rtc(struct frame *f)
{
	count[f->vector]++;
	isr_seen = pic_read(0x0b);
	(void)cmos(0x0c);
	pic_eoi(RTC_IRQ);
}

static void on_pin(struct frame *f)
{
	u32 n = ++count[f->vector];

	red_seen = ioapic_read(RED(COM1_IRQ));
	if (n >= stop_at)
		lower_line();
	apic_write(APIC_EOI, 0);
}

static u32 uart_irqs(void)
{
	return count[IRQ_BASE + COM1_IRQ];
}

static void again(u32 stop)
{
	count[IRQ_BASE + COM1_IRQ] = count[IRQ_BASE + RTC_IRQ] = count[PIN_EDGE] = count[PIN_LEVEL] = 0;
	isr_seen = 0;
	red_seen = 0;
	stop_at = stop;
}

static void test_edge_input(void)
{
	bool came;

	pic_init(1u << COM1_IRQ);
	again(1);
	raise_line();
	came = wait_for(&count[IRQ_BASE + COM1_IRQ], 1);
	let_in(1000000);
	lower_line();
	check(came && uart_irqs() == 1, "8259A, an edge input: once for a line that goes high: %u",
	      uart_irqs());
	check(isr_seen == 1u << COM1_IRQ, "in service meanwhile: ISR %x", isr_seen);
	check(pic_read(0x0b) == 0, "and not after the EOI");
	again(2); /* it stays high */
	raise_line();
	let_in(1000000);
	u32 n = uart_irqs();
	lower_line();
	check(n == 1, "nor again while it stays high: %u", n);

	pic_mask(0);
	again(1);
	raise_line();
	u16 irr = pic_read(0x0a);
	let_in(1000000);
	check((irr & 1u << COM1_IRQ) && uart_irqs() == 0, "a masked one is in IRR only: %x", irr);
	pic_mask(1u << COM1_IRQ);
	came = wait_for(&count[IRQ_BASE + COM1_IRQ], 1);
	check(came, "and comes when it is not masked any more");
}

static void test_level_input(void)
{
	u8 elcr = inb(ELCR);
	bool came;

	outb(ELCR, (u8)(elcr | 1u << COM1_IRQ));
	u8 now = inb(ELCR);
	pic_init(1u << COM1_IRQ);
	again(5);
	raise_line();
	came = wait_for(&count[IRQ_BASE + COM1_IRQ], 5);
	let_in(1000000);
	u32 n = uart_irqs();
	lower_line();
	check(now == (elcr | 1u << COM1_IRQ), "ELCR keeps what may be level: %x", now);
	check(came && n == 5, "8259A, a level input: until the line goes low: %u", n);
	pic_mask(0);
	raise_line();
	u16 irr = pic_read(0x0a);
	lower_line();
	u16 after = pic_read(0x0a);
	check(irr & 1u << COM1_IRQ && !(after & 1u << COM1_IRQ), "its request is its line: IRR %x, %x", irr,
	      after);
	outb(ELCR, elcr);
}

static void test_cascade(void)
{
	bool came;

	pic_init(1u << COM1_IRQ | 1u << RTC_IRQ);
	again(1);
	rtc_on();
	came = wait_for(&count[IRQ_BASE + RTC_IRQ], 3);
	u16 isr = isr_seen;
	check(came && isr == (1u << RTC_IRQ | 4), "the second 8259A interrupts through the first: ISR %x",
	      isr);
	/* Higher priority, into the lower one's service. */
	again(1);
	rtc_within = true;
	raise_line();
	came = wait_for(&count[IRQ_BASE + RTC_IRQ], 3) && uart_irqs() == 1;
	check(came && !rtc_within, "a line of lower priority lets it in");
	rtc_off();
	check(pic_read(0x0b) == 0, "nothing is in service in the end");
}

static void test_auto_eoi(void)
{
	pic_init(0);
	outb(0x20, 0x11);
	outb(0x21, IRQ_BASE);
	outb(0x21, 4);
	outb(0x21, 3); /* automatic EOI */
	outb(0x21, (u8) ~(1u << COM1_IRQ));
	pic_auto = true;
	again(1);
	for (u32 i = 1; i <= 3; i++) {
		raise_line();
		wait_for(&count[IRQ_BASE + COM1_IRQ], i);
	}
	check(uart_irqs() == 3 && isr_seen == 0, "automatic EOI: %u interrupts, ISR %x", uart_irqs(),
	      isr_seen);
	pic_auto = false;
	pic_init(0);
}

static void test_edge_pin(void)
{
	bool came;

	ioapic_write(RED(COM1_IRQ) + 1, 0);
	ioapic_write(RED(COM1_IRQ), PIN_EDGE);
	again(2);
	raise_line();
	came = wait_for(&count[PIN_EDGE], 1);
	let_in(1000000);
	u32 n = count[PIN_EDGE];
	lower_line();
	check(came && n == 1 && !(red_seen & RED_RIRR), "I/O APIC, an edge pin: once: %u, entry %x", n,
	      red_seen);
	raise_line();
	came = wait_for(&count[PIN_EDGE], 2);
	check(came, "and for the next edge again");
	ioapic_write(RED(COM1_IRQ), PIN_EDGE | RED_MASK);
	again(1);
	raise_line();
	let_in(1000000);
	lower_line();
	ioapic_write(RED(COM1_IRQ), PIN_EDGE);
	let_in(1000000);
	check(count[PIN_EDGE] == 0, "one while it is masked is forgotten: %u", count[PIN_EDGE]);
	ioapic_write(RED(COM1_IRQ), PIN_EDGE | RED_MASK);
}

static void test_level_pin(void)
{
	bool came;

	ioapic_write(RED(COM1_IRQ), PIN_LEVEL | RED_LEVEL);
	again(5);
	raise_line();
	came = wait_for(&count[PIN_LEVEL], 5);
	let_in(1000000);
	u32 n = count[PIN_LEVEL], after;
	lower_line();
	after = ioapic_read(RED(COM1_IRQ));
	check(came && n == 5, "I/O APIC, a level pin: until it goes low: %u", n);
	check(red_seen & RED_RIRR && !(after & RED_RIRR), "remote IRR from the message to the EOI: %x, %x",
	      red_seen, after);
	ioapic_write(RED(COM1_IRQ), PIN_LEVEL | RED_LEVEL | RED_MASK);
	again(1);
	raise_line();
	let_in(1000000);
	n = count[PIN_LEVEL];
	ioapic_write(RED(COM1_IRQ), PIN_LEVEL | RED_LEVEL);
	came = wait_for(&count[PIN_LEVEL], 1);
	check(n == 0 && came, "one that is masked waits: %u", n);
	ioapic_write(RED(COM1_IRQ), PIN_LEVEL | RED_LEVEL | RED_MASK);
	again(1);
	raise_line();
	lower_line();
	ioapic_write(RED(COM1_IRQ), PIN_LEVEL | RED_LEVEL);
	let_in(1000000);
	check(count[PIN_LEVEL] == 0, "unless its line goes low: %u", count[PIN_LEVEL]);
	ioapic_write(RED(COM1_IRQ), RED_MASK);
	u32 id = ioapic_read(0);
	ioapic_write(0, 0x05000000);
	u32 now = ioapic_read(0);
	ioapic_write(0, id);
	check(now == 0x05000000, "its id is what was written: %x", now);
}

void guest_main(void)
{
	interrupt_handler[IRQ_BASE + COM1_IRQ] = on_uart;
	interrupt_handler[IRQ_BASE + RTC_IRQ] = on_rtc;
	interrupt_handler[PIN_EDGE] = on_pin;
	interrupt_handler[PIN_LEVEL] = on_pin;
	apic_enable();
	test_edge_input();
	test_level_input();
	test_cascade();
	test_auto_eoi();
	test_edge_pin();
	test_level_pin();
}
