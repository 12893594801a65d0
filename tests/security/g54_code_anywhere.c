/* Code in devices, in nothing, in ROM, across the end of RAM; instructions of sixteen bytes [G54]. */
#include "hostile.h"

static u8 buffer[64] __attribute__((aligned(64)));

/* It must fault, by one of two vectors. */
static void faults(const char *what, uptr at, unsigned a, unsigned b)
{
	bool happened = guest_try(try_call, at);

	check(happened && (fault.vector == a || fault.vector == b), "%s: %s %u", what,
	      happened ? "vector" : "no fault", fault.vector);
}

void guest_main(void)
{
	volatile u8 *end = (volatile u8 *)RAM_END;

	cli();
	faults("code where nothing is", HOLE, UD, UD);
	faults("the same, across a page", HOLE + 0xfff, UD, UD);
	faults("code in the local APIC", 0xfee00000, UD, GP);
	faults("code behind all memory", 0xfffffff0, UD, GP);
	for (unsigned off = 0; off < 0x400; off += 0x20) {
		guest_try(try_call, HPET + 0x200 + off);
		if (!fault.happened)
			check(false, "code in a timer returns");
	}
	/* RET in RAM that ends right there; then instructions whose end would lie outside */
	end[-1] = 0xc3;
	check(!guest_try(try_call, RAM_END - 1), "RET as the last byte of RAM");
	end[-1] = 0xb8; /* MOV EAX, FFFFFFFF: then FF FF */
	faults("across the end of RAM", RAM_END - 1, UD, UD);
	for (unsigned n = 2; n < 15; n++) {
		for (unsigned k = 1; k <= n; k++)
			end[-(int)k] = 0x66;
		faults("prefixes across the end of RAM", RAM_END - n, UD, GP);
	}
	/* written again, it is new code at once, at the end of RAM too */
	end[-1] = 0xc3;
	check(!guest_try(try_call, RAM_END - 1), "changed back");
	/* sixteen bytes */
	memset_(buffer, 0x66, 15);
	buffer[15] = 0x90;
	buffer[16] = 0xc3;
	faults("sixteen bytes", (uptr)buffer, GP, GP);
	check(fault.error == 0, "error code %lx", fault.error);
	buffer[14] = 0x90;
	buffer[15] = 0xc3;
	bool faulted = guest_try(try_call, (uptr)buffer);
	check(!faulted, "fifteen are well: vector %u at %lx", fault.vector, fault.ip - (uptr)buffer);
	memset_(buffer, 0x2e, sizeof(buffer));
	faults("only prefixes", (uptr)buffer, GP, GP);
	/* LOCK before what cannot be locked, and each opcode that does not exist, with all prefixes */
	for (unsigned op = 0; op < 256; op++) {
		static const u8 never[] = { 0x04, 0x0a, 0x0c, 0x24, 0x25, 0x26, 0x27,
					    0x36, 0x39, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f };

		for (unsigned k = 0; k < sizeof(never); k++) {
			if (never[k] != op)
				continue;
			buffer[0] = op & 1 ? 0xf0 : 0xf3;
			buffer[1] = 0x0f;
			buffer[2] = (u8)op;
			buffer[3] = 0xc3;
			faults("an opcode that does not exist", (uptr)buffer, UD, UD);
		}
	}
	/* ROM: may be executed, and what is written there is lost */
	end = (volatile u8 *)0xff000;
	u8 old = *end;
	*end = (u8)~old;
	check(*end == old, "ROM does not change");
}
