/* The 16550A at COM1: registers, FIFO, loopback with modem lines, interrupts of each kind. Output of the test itself goes to
 * the same port, so each check saves what it changes. [16550 8.0] */
#include "lib/irq.h"

#define COM1 0x3f8
#define RBR  0
#define THR  0
#define IER  1
#define IIR  2
#define FCR  2
#define LCR  3
#define MCR  4
#define LSR  5
#define MSR  6
#define SCR  7

static volatile u32 irqs;
static volatile u8 last_iir;

static u8 in(unsigned r)
{
	return inb((u16)(COM1 + r));
}
static void out(unsigned r, u8 v)
{
	outb((u16)(COM1 + r), v);
}

static void on_irq4(struct frame *f)
{
	irqs++;
	last_iir = in(IIR);
	if ((last_iir & 0xf) != 2)
		out(IER, 0); /* level: the cause stays */
	pic_eoi(4);
}

static void drain(void)
{
	while (!(in(LSR)&0x40))
		;
}

static bool received(void)
{
	for (u64 start = rdtsc(); rdtsc() - start < 4000000000ull;)
		if (in(LSR)&1)
			return true;
	return false;
}

static void test_registers(void)
{
	u8 lcr, dll, dlm, iir;

	out(SCR, 0x5a);
	u8 scratch = in(SCR);
	out(SCR, 0xa5);
	check(scratch == 0x5a && in(SCR) == 0xa5, "scratch register");

	drain();
	lcr = in(LCR);
	out(LCR, lcr | 0x80);
	out(0, 0x0c);
	out(1, 0x00);
	dll = in(0);
	dlm = in(1);
	out(0, 1);
	out(LCR, 3);
	check(dll == 0x0c && dlm == 0 && lcr == 3, "divisor latch behind LCR.DLAB");
	check((in(IER)&0xf0) == 0, "IER's upper bits are 0");
	out(FCR, 7);
	iir = in(IIR);
	check((iir & 0xc0) == 0xc0, "IIR shows the FIFO: %x", iir);
	drain();
	check((in(LSR)&0x60) == 0x60, "transmitter empty: LSR %x", in(LSR));
}

static void test_loopback(void)
{
	u8 got[20], lsr, msr[4];
	unsigned bad = 0;
	bool ok = true;

	drain();
	out(MCR, 0x10);
	while (in(LSR)&1)
		(void)in(RBR);
	for (unsigned v = 0; v < 256 && ok; v += 15) {
		out(THR, (u8)v);
		ok = received();
		bad += in(RBR) != v;
	}
	lsr = in(LSR);
	/* the receive FIFO takes 16 */
	for (unsigned k = 0; k < 16; k++) {
		out(THR, (u8)(k * 3));
		while (!(in(LSR)&0x20))
			;
	}
	while (!(in(LSR)&0x40))
		;
	unsigned n = 0;
	while (n < 20 && in(LSR)&1)
		got[n++] = in(RBR);
	out(MCR, 0x10 | 1);
	msr[0] = in(MSR);
	out(MCR, 0x10 | 2);
	msr[1] = in(MSR);
	out(MCR, 0x10 | 4);
	msr[2] = in(MSR);
	out(MCR, 0x10 | 8);
	msr[3] = in(MSR);
	out(MCR, 3);
	check(ok && !bad, "loopback returns every byte: %u wrong", bad);
	check(!(lsr & 1), "and no more than that");
	check(n == 16 && got[0] == 0 && got[15] == 45, "the FIFO holds 16 bytes in order: %u", n);
	check(msr[0] >> 4 == 2 && msr[1] >> 4 == 1 && msr[2] >> 4 == 4 && msr[3] >> 4 == 8,
	      "loopback: DTR-DSR, RTS-CTS, OUT1-RI, OUT2-DCD: %x %x %x %x", msr[0], msr[1], msr[2], msr[3]);
}

static void test_interrupts(void)
{
	u8 iir, iir2;

	pic_init(1 << 4);
	interrupt_handler[IRQ_BASE + 4] = on_irq4;
	drain();
	irqs = 0;
	out(MCR, 8 | 3); /* OUT2 opens the gate to the line */
	out(IER, 2);
	bool came = wait_for(&irqs, 1);
	out(IER, 0);
	iir = last_iir;
	let_in(1000000);
	u32 n = irqs;
	check(came && (iir & 0xf) == 2, "transmitter-empty interrupt when it is enabled: IIR %x", iir);
	check(n == 1, "reading IIR took it away: %u", n);

	drain();
	irqs = 0;
	out(IER, 2);
	came = wait_for(&irqs, 1);
	out(THR, '\n');
	came &= wait_for(&irqs, 2);
	out(IER, 0);
	check(came, "and after each byte");

	/* received data, in loopback, where the line is cut off: by IIR */
	drain();
	out(MCR, 0x10);
	out(FCR, 1 | 2 | 4);
	out(IER, 1);
	out(THR, 0x77);
	received();
	for (u64 start = rdtsc(); rdtsc() - start < 4000000000ull && in(IIR)&1;)
		;
	iir = in(IIR);
	(void)in(RBR);
	iir2 = in(IIR);
	out(IER, 0);
	out(MCR, 3);
	check((iir & 0xf) == 4 || (iir & 0xf) == 0xc, "received-data indication: IIR %x", iir);
	check((iir2 & 0xf) == 1, "gone when read: IIR %x", iir2);

	/* modem status by loopback */
	out(MCR, 0x10);
	(void)in(MSR);
	out(IER, 8);
	out(MCR, 0x12);
	iir = in(IIR);
	u8 msr = in(MSR);
	iir2 = in(IIR);
	out(IER, 0);
	out(MCR, 3);
	if (off_tcg("modem-status changes in loopback"))
		check((iir & 0xf) == 0 && (msr & 0x11) == 0x11 && (iir2 & 0xf) == 1,
		      "modem-status indication: IIR %x, MSR %x, IIR %x", iir, msr, iir2);
}

void guest_main(void)
{
	test_registers();
	test_loopback();
	test_interrupts();
}
