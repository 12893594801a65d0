/* A library, as many processes have it: the same two pages of code at several addresses, each time with other data behind
 * them. What is relative to RIP, and where calls, jumps and returns between the pages lead, hangs on the address.
 * Then code at one address that leads to it, code that changes, deep calls, and returns into another copy. [SDM1 3.5.1] */
#include "lib/guest.h"
#include "lib/emit.h"
#include "lib/paging.h"

#define WINDOW 0x40000000ul
#define PHYS   0x4000000ul
#define VA(n)  (WINDOW + (n)*4096ul)
#define PA(n)  (PHYS + (n)*4096ul)

#define COPIES 6u
#define WARM   200

/* Pages of a copy: code, code, data. */
#define BASE(copy) VA(8 * (copy))
#define DATA       8192u /* from the copy's beginning */

static u64 page_table[512] __attribute__((aligned(4096)));

/* Offsets of the functions in the code. */
enum {
	LOAD = 0x040,  /* a number from the data */
	STORE = 0x080, /* RSI to it; the old one */
	FAR = 0x0c0,   /* calls FAR_END in the other page, which adds its own number */
	TABLE = 0x100, /* the same by a pointer in the data */
	LOOP = 0x140,  /* adds the number RDI times */
	LESS = 0x180,  /* is RDI less than RSI: by a jump to the other page, the flags with it */
	DEEP = 0x1c0,  /* calls itself RDI times */
	RETURN =
		0x200, /* calls RETURN_END, which returns RSI bytes further; then a number from the data there */
	ADDRESS = 0x240,
	CROSS = 0xff9, /* falls through to the other page in the middle of an instruction */
	FAR_END = 0x1040,
	LESS_END = 0x1080,
	RETURN_END = 0x10c0,
	BACK = 0x1100, /* loops across the two pages, RDI times */
	BACK_BODY = 0x280,
};

static void put(unsigned offset)
{
	emit_to(PA(0) + offset, VA(0) + offset);
}

/* An instruction with ModRM for [RIP + to data]; nothing follows. */
static void put_data(const char *opcode, unsigned n, unsigned data)
{
	emit(opcode, n);
	emit_relative(VA(0) + DATA + data);
}

static void put_library(u32 constant)
{
	put(LOAD);
	put_data("\x48\x8b\x05", 3, 0); /* mov data, %rax */
	emit8(0xc3);
	put(STORE);
	put_data("\x48\x8b\x05", 3, 0);
	put_data("\x48\x89\x35", 3, 0); /* mov %rsi, data */
	emit8(0xc3);
	put(FAR);
	put_data("\x48\x8b\x05", 3, 0);
	emit_call(VA(0) + FAR_END);
	emit("\x48\xff\xc0\xc3", 4); /* inc %rax; ret */
	put(FAR_END);
	put_data("\x48\x03\x05", 3, 8); /* add data + 8, %rax */
	emit("\x48\x05", 2);            /* add $constant, %rax */
	emit32(constant);
	emit8(0xc3);
	put(TABLE);
	put_data("\x48\x8b\x05", 3, 0);
	put_data("\xff\x15", 2, 16); /* call *data + 16 */
	emit("\x48\xff\xc0\xc3", 4);
	put(LOOP);
	emit("\x31\xc0", 2);
	uptr top = emit_here();
	put_data("\x48\x03\x05", 3, 0);
	emit("\x48\xff\xcf", 3); /* dec %rdi */
	emit_jcc(5, top);
	emit8(0xc3);
	put(LESS);
	emit("\x48\x39\xf7", 3); /* cmp %rsi, %rdi */
	emit_jmp(VA(0) + LESS_END);
	put(LESS_END);
	emit("\x0f\x9c\xc0\x0f\xb6\xc0\xc3", 7); /* setl %al; movzx %al, %eax; ret */
	put(DEEP);
	emit("\x31\xc0\x48\x85\xff", 5); /* xor %eax, %eax; test %rdi, %rdi */
	emit("\x74\x0f", 2);             /* je to the RET */
	emit("\x48\xff\xcf", 3);
	emit_call(VA(0) + DEEP);
	put_data("\x48\x03\x05", 3, 0);
	emit8(0xc3);
	put(RETURN);
	emit_call(VA(0) + RETURN_END);
	put_data("\x48\x8b\x05", 3, 0);
	emit8(0xc3);
	put(RETURN_END);
	emit("\x48\x01\x34\x24\xc3", 5); /* add %rsi, (%rsp); ret */
	put(ADDRESS);
	put_data("\x48\x8d\x05", 3, 0); /* lea data, %rax */
	emit8(0xc3);
	put(CROSS);
	emit("\x31\xc0", 2);
	put_data("\x48\x03\x05", 3, 0); /* add data, %rax: five bytes here, two there */
	emit8(0xc3);
	put(BACK);
	emit("\x31\xc0", 2);
	emit_jmp(VA(0) + BACK_BODY);
	put(BACK_BODY);
	put_data("\x48\x03\x05", 3, 0);
	emit("\x48\xff\xcf", 3);
	emit_jcc(4, VA(0) + BACK + 0x20); /* je */
	emit_jmp(VA(0) + BACK + 0x10);
	put(BACK + 0x10);
	put_data("\x48\x03\x05", 3, 8);
	emit_jmp(VA(0) + BACK_BODY);
	put(BACK + 0x20);
	emit8(0xc3);
}

static volatile u64 *data_of(unsigned copy)
{
	return (volatile u64 *)(BASE(copy) + DATA);
}

static u64 number(unsigned copy)
{
	return 1000003ul * (copy + 1);
}

static void map_copies(void)
{
	for (unsigned k = 0; k < COPIES; k++) {
		page_table[8 * k] = PA(0) | P | W;
		page_table[8 * k + 1] = PA(1) | P | W;
		page_table[8 * k + 2] = PA(16 + k) | P | W;
	}
	write_cr3(read_cr3());
	for (unsigned k = 0; k < COPIES; k++) {
		data_of(k)[0] = number(k);
		data_of(k)[1] = 7 * number(k);
		data_of(k)[2] = BASE(k) + FAR_END;
	}
}

static u64 call(uptr code, u64 a, u64 b)
{
	return ((u64(*)(u64, u64))code)(a, b);
}

/* With much room. */
static u64 call_deep(uptr code, u64 depth)
{
	static u8 stack[1 << 20] __attribute__((aligned(16)));
	u64 got;

	__asm__ volatile("mov %%rsp, %%rbx\n\tmov %2, %%rsp\n\tcall *%3\n\tmov %%rbx, %%rsp"
			 : "=a"(got), "+D"(depth)
			 : "r"(stack + sizeof(stack)), "r"(code)
			 : "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
	return got;
}

static u64 want_far(unsigned copy, u32 constant)
{
	return 8 * number(copy) + (u64)(long)(int)constant + 1;
}

/* All functions of a copy. */
static unsigned use(unsigned copy, u32 constant)
{
	uptr base = BASE(copy);
	u64 n = number(copy);
	unsigned other = (copy + 1) % COPIES, bad = 0;

	bad += call(base + LOAD, 0, 0) != n;
	bad += call(base + STORE, 0, n) != n;
	bad += call(base + FAR, 0, 0) != want_far(copy, constant);
	bad += call(base + TABLE, 0, 0) != want_far(copy, constant);
	bad += call(base + LOOP, 9, 0) != 9 * n;
	bad += call(base + LESS, 3, 4) != 1 || call(base + LESS, 4, 3) != 0 ||
	       call(base + LESS, -1ul, 0) != 1;
	bad += call(base + RETURN, 0, 0) != n;
	bad += call(base + RETURN, 0, BASE(other) - base) != number(other);
	bad += call(base + ADDRESS, 0, 0) != base + DATA;
	bad += call(base + CROSS, 0, 0) != n;
	bad += call(base + BACK, 5, 0) != 5 * n + 4 * 7 * n;
	return bad;
}

static void in_turns(void)
{
	for (unsigned first = 1; first <= COPIES; first++) {
		unsigned bad = 0;

		for (unsigned k = 0; k < WARM; k++)
			for (unsigned copy = 0; copy < first; copy++)
				bad += use(copy, 5);
		check(!bad, "%u copies in turns: %u wrong", first, bad);
	}
	for (unsigned copy = 0; copy < COPIES; copy++) {
		unsigned bad = 0;

		for (unsigned k = 0; k < WARM; k++)
			bad += use(copy, 5);
		check(!bad, "copy %u alone: %u wrong", copy, bad);
	}
}

/* From a page at one address, by a jump that keeps the flags. */
static void from_elsewhere(void)
{
	for (unsigned copy = 0; copy < COPIES; copy++) {
		unsigned page = 64 + copy, bad = 0;

		emit_to(PA(page), VA(page));
		emit("\x48\x39\xf7", 3); /* cmp %rsi, %rdi */
		emit_jmp(BASE(copy) + LESS_END);
		emit_to(PA(page) + 0x40, VA(page) + 0x40);
		emit_call(BASE(copy) + LOAD);
		emit("\x48\xff\xc0\xc3", 4);
		for (unsigned k = 0; k < WARM; k++) {
			bad += call(VA(page), k, WARM / 2) != (k < WARM / 2);
			bad += call(VA(page) + 0x40, 0, 0) != number(copy) + 1;
		}
		check(!bad, "from elsewhere to copy %u: %u wrong", copy, bad);
	}
}

static void deep(void)
{
	static const u64 depths[] = { 1, 100, 4000, 20000, 50000 };

	for (unsigned d = 0; d < sizeof(depths) / sizeof(depths[0]); d++) {
		unsigned bad = 0;

		for (unsigned k = 0; k < 20; k++)
			for (unsigned copy = 0; copy < COPIES; copy++)
				bad += call_deep(BASE(copy) + DEEP, depths[d]) != depths[d] * number(copy);
		check(!bad, "%lu calls deep: %u wrong", (unsigned long)depths[d], bad);
	}
}

/* Through a copy, and through the memory that they are. */
static void changed(void)
{
	unsigned bad = 0;

	for (u32 k = 1; k < 40; k++) {
		uptr at = (k & 1 ? PA(0) : BASE(k % COPIES)) + FAR_END + 9;

		*(volatile u32 *)at = k * 0x10001;
		for (unsigned n = 0; n < 60; n++)
			for (unsigned copy = 0; copy < COPIES; copy++)
				bad += use(copy, k * 0x10001);
	}
	check(!bad, "code that changes: %u wrong", bad);
}

/* Another library where copies were. */
static void moved(void)
{
	unsigned bad = 0;

	put_library(5);
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned k = 0; k < COPIES; k++) {
			unsigned data = (k + round) % COPIES;

			page_table[8 * k + 2] = PA(16 + data) | P | W;
			invlpg((void *)(BASE(k) + DATA));
			bad += call(BASE(k) + LOAD, 0, 0) != number(data);
		}
		for (unsigned n = 0; n < 60; n++)
			for (unsigned k = 0; k < COPIES; k++)
				bad += call(BASE(k) + LOOP, 3, 0) != 3 * number((k + round) % COPIES);
	}
	map_copies();
	check(!bad, "data that is mapped elsewhere: %u wrong", bad);

	bad = 0;
	for (unsigned round = 0; round < 10; round++) {
		page_table[8] = PA(round & 1 ? 0 : 32) | P | W;
		page_table[9] = PA(round & 1 ? 1 : 33) | P | W;
		if (!round) { /* the copy of the copy: with another constant */
			memcpy_((void *)PA(32), (void *)PA(0), 8192);
			*(volatile u32 *)(PA(32) + FAR_END + 9) = 77;
		}
		write_cr3(read_cr3());
		for (unsigned n = 0; n < WARM; n++) {
			bad += use(0, 5);
			bad += use(1, round & 1 ? 5 : 77);
			bad += use(2, 5);
		}
	}
	check(!bad, "code that is mapped elsewhere: %u wrong", bad);
}

void guest_main(void)
{
	cli();
	for (unsigned k = 0; k < 512; k++)
		page_table[k] = PA(k) | P | W;
	guest_pd[WINDOW >> 21] = (uptr)page_table | P | W;
	write_cr3((uptr)guest_pml4);
	put_library(5);
	map_copies();
	in_turns();
	from_elsewhere();
	deep();
	changed();
	moved();
	in_turns();
}
