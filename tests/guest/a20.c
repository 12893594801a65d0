/* The gate of A20: with bit 20 of all addresses held at 0, each odd megabyte is the one before it, for data, code and page tables,
 * from the instruction after the one that closes the gate. By port 92H and by the keyboard controller. This image lies at an
 * even megabyte, or it would vanish. */
#include "lib/guest.h"
#include "lib/paging.h"

#define LOW   0x8000ul
#define HIGH  (LOW + 0x100000ul)
#define EVEN  0x600000ul
#define ODD   0x700000ul
#define TABLE 0xa000ul
#define VIEW  0x1000000ul /* through a page table */

#define WORD(at) (*(volatile u32 *)(at))

static void wait_8042(void)
{
	while (inb(0x64) & 2)
		;
}

static void by_port92(bool on)
{
	outb(0x92, on ? 2 : 0);
}

static void by_output_port(bool on)
{
	wait_8042();
	outb(0x64, 0xd1);
	wait_8042();
	outb(0x60, on ? 0xdf : 0xdd);
}

static void by_command(bool on)
{
	wait_8042();
	outb(0x64, on ? 0xdf : 0xdd);
}

static void test_data(const char *what, void (*a20)(bool on))
{
	WORD(LOW) = 0x10;
	WORD(HIGH) = 0x20;
	WORD(EVEN) = 0x30;
	WORD(ODD) = 0x40;
	check(WORD(LOW) == 0x10 && WORD(EVEN) == 0x30, "%s, open: the megabytes are apart", what);
	a20(false);
	u32 high = WORD(HIGH), odd = WORD(ODD);
	WORD(HIGH + 4) = 0x50;
	WORD(HIGH - 2) = 0x12345678; /* across a page */
	u32 through = WORD(LOW + 4), across = WORD(LOW - 2);
	a20(true);
	check(high == 0x10, "%s, closed: the second megabyte is the first: %x", what, high);
	check(odd == 0x30, "%s, closed: so is the eighth the seventh: %x", what, odd);
	check(through == 0x50, "%s, closed: stores too: %x", what, through);
	check(across == 0x12345678, "%s, closed: and what crosses a page: %x", what, across);
	check(WORD(HIGH) == 0x20 && WORD(ODD) == 0x40, "%s, open again: nothing was lost", what);
}

static void test_at_once(void)
{
	u32 closed, open;

	WORD(LOW) = 1;
	WORD(HIGH) = 2;
	__asm__ volatile(
		"outb %%al, $0x92\n\tmov (%3), %1\n\tmov $2, %%al\n\toutb %%al, $0x92\n\tmov (%3), %2"
		: "+a"((u32){ 0 }), "=&r"(closed), "=&r"(open)
		: "r"(HIGH)
		: "memory");
	check(closed == 1 && open == 2, "the next instruction goes by it: %x, %x", closed, open);
}

/* mov $VALUE, %eax; ret */
static void put_code(uptr at, u32 value)
{
	*(volatile u8 *)at = 0xb8;
	*(volatile u8 *)(at + 1) = (u8)value;
	for (unsigned i = 2; i < 5; i++)
		*(volatile u8 *)(at + i) = 0;
	*(volatile u8 *)(at + 5) = 0xc3;
}

static u32 call(uptr at)
{
	u32 sum = 0;

	for (unsigned i = 0; i < 100; i++)
		sum += ((u32(*)(void))at)();
	return sum / 100;
}

static void test_code(void)
{
	put_code(LOW, 1);
	put_code(HIGH, 2);
	for (unsigned round = 0; round < 3; round++) {
		u32 open = call(HIGH), closed, low;

		by_port92(false);
		closed = call(HIGH);
		put_code(HIGH, 7);
		low = call(LOW);
		put_code(LOW, 1);
		by_port92(true);
		check(open == 2 && closed == 1, "code: %u, closed %u", open, closed);
		check(low == 7, "code that is changed through the other address: %u", low);
	}
	check(call(LOW) == 1 && call(HIGH) == 2, "code, open again");
}

#if BITS == 64
static void test_page_table(void)
{
	u64 *entry = &guest_pd[VIEW >> 21];
	u64 old = *entry;
	u32 open, closed;

	WORD(EVEN) = 3;
	WORD(LOW) = 5;
	*(volatile u64 *)TABLE = LOW | P | W;
	*(volatile u64 *)(TABLE + 0x100000) = EVEN | P | W;
	*entry = (TABLE + 0x100000) | P | W;
	write_cr3(read_cr3());
	open = WORD(VIEW);
	by_port92(false);
	closed = WORD(VIEW);
	by_port92(true);
	check(open == 3 && closed == 5, "a page table in an odd megabyte: %u, closed %u", open, closed);
	check(*(volatile u64 *)TABLE & A, "its entry is marked where it is");
	*entry = old;
	write_cr3(read_cr3());
}
#endif

void guest_main(void)
{
	check(inb(0x92) & 2, "the gate is open after a reset");
	test_data("port 92H", by_port92);
	test_data("output port", by_output_port);
	test_data("command", by_command);
	test_at_once();
	test_code();
#if BITS == 64
	test_page_table();
#endif
}
