/* Pages that keep changing, to whose writes an engine may find another way than to look at each: data in the 64 bytes of a loop;
 * code that a device writes; stores by the code itself to what it is about to execute; pages that come to rest again and do
 * not; more versions of one function than fit into any cache. */
#include "lib/emit.h"
#include "lib/irq.h"
#include "lib/restless.h"

#define AREA           ((uptr)0x2000000ul)
#define MSR_WALL_CLOCK 0x4b564d00u

typedef u64 (*code_fn)(u64 a, u64 b);

static u64 call(uptr at, u64 a, u64 b)
{
	return ((code_fn)at)(a, b);
}

/* A loop that adds to a counter in its own 64 bytes, and to one elsewhere in the page. */
static void data_beside(void)
{
	uptr loop = AREA, near = loop + 48, far = loop + 0x800;
	unsigned bad = 0;

	emit_at(loop);
	emit("\x48\xff\x04\x25", 4); /* incq near */
	emit32((u32)near);
	emit("\x48\x83\x04\x25", 4); /* addq $3, far */
	emit32((u32)far);
	emit("\x03\x48\xff\xcf", 4); /* dec %rdi; jnz */
	emit_jcc(5, loop);
	emit8(0xc3);
	*(u64 *)near = *(u64 *)far = 0;
	for (unsigned k = 1; k <= 20; k++) {
		call(loop, 20000, 0);
		bad += *(u64 *)near != k * 20000ull || *(u64 *)far != k * 60000ull;
	}
	check(!bad, "400000 stores of data in the page of their loop: %u wrong", bad);
}

/* The same, and between two runs the loop's constant is patched. */
static void data_and_patches(void)
{
	uptr loop = AREA + 0x1000, imm, data = loop + 0x400;
	u64 want = 0;
	unsigned bad = 0;

	emit_at(loop);
	emit("\x48\x81\x04\x25", 4); /* addq $imm, data */
	emit32((u32)data);
	imm = emit_here();
	emit32(0);
	emit("\x48\xff\xcf", 3);
	emit_jcc(5, loop);
	emit8(0xc3);
	*(u64 *)data = 0;
	for (u32 k = 1; k <= 2000; k++) {
		*(volatile u32 *)imm = k;
		call(loop, 100, 0);
		want += k * 100ull;
		bad += *(u64 *)data != want;
	}
	check(!bad, "2000 changes of a loop that stores to its own page: %u late", bad);
}

/* A function that changes the constant it returns next: by the store right before, and by one in between. */
static void own_next(void)
{
	static const u8 forms[][2] = { { 0, 0 }, { 1, 0 }, { 0, 1 }, { 1, 1 }, { 6, 3 } };
	unsigned bad = 0;

	for (unsigned f = 0; f < sizeof(forms) / 2; f++) {
		uptr code = AREA + 0x2000 + f * 0x1000, field, imm;

		restless(code);
		emit_at(code);
		for (unsigned k = 0; k < forms[f][0]; k++)
			emit("\x48\x8d\x52\x01", 4); /* lea 1(%rdx), %rdx */
		emit("\x89\x3c\x25", 3);             /* mov %edi, imm */
		field = emit_here();
		emit32(0);
		for (unsigned k = 0; k < forms[f][1]; k++)
			emit("\x48\x8d\x52\x01", 4);
		emit8(0xb8);
		imm = emit_here();
		emit32(0);
		emit8(0xc3);
		*(u32 *)field = (u32)imm;
		for (u32 n = 1; n < 20000; n++)
			bad += call(code, n, 0) != n;
	}
	check(!bad, "a function that changes its next instruction: %u late", bad);
}

/* The wall clock of KVM's clock is 12 bytes that WRMSR has a device write: a version that counts on, seconds,
 * nanoseconds. Here: mov $version, %cl; nop; movabs $seconds and nanoseconds, %rax; ret. */
static void by_device(bool tracked)
{
	uptr code = AREA + (tracked ? 0x10000 : 0x11000), clock = code + 4;
	unsigned bad = 0;
	u64 first, changes = 0;

	if (!tracked)
		restless(code);
	memset_((void *)code, 0x90, 4);
	*(u8 *)(code + 3) = 0xb1;
	*(u32 *)clock = 0xb8489000;
	*(u8 *)(clock + 12) = 0xc3;
	for (unsigned k = 0; k < 100; k++)
		call(code, 0, 0);
	first = *(u64 *)(clock + 4);
	for (unsigned k = 0; k < 100; k++) {
		wrmsr(MSR_WALL_CLOCK, clock);
		bad += call(code, 0, 0) != *(volatile u64 *)(clock + 4);
		changes += *(volatile u64 *)(clock + 4) != first;
		for (unsigned n = 0; n < 40; n++)
			bad += call(code, 0, 0) != *(volatile u64 *)(clock + 4);
		if (!tracked)
			restless_stores(code + 0x100, 1);
	}
	check(!bad && changes, "code that a device writes, %s: %u old, %llu changes",
	      tracked ? "quiet before" : "in a page that keeps changing", bad, changes);
}

/* Restless, at rest, restless: the function is another one each time. */
static void to_rest_and_back(void)
{
	uptr code = AREA + 0x12000;
	unsigned bad = 0;

	for (u32 round = 1; round <= 12; round++) {
		restless(code);
		emit_at(code);
		emit8(0xb8);
		emit32(round);
		emit8(0xc3);
		for (u32 n = 0; n < 12000; n++)
			bad += call(code, 0, 0) != round;
		*(volatile u32 *)(code + 1) = round + 100;
		for (u32 n = 0; n < 100; n++)
			bad += call(code, 0, 0) != round + 100;
	}
	check(!bad, "a page that comes to rest and changes again: %u wrong", bad);
}

/* Each version is executed once; all of them together fill any cache many times. Every address of a page. */
static void versions(void)
{
	uptr code = AREA + 0x13000;
	unsigned bad = 0;

	restless(code);
	for (u32 n = 0; n < 200000; n++) {
		uptr at = code + (n * 7) % 4000;

		emit_at(at);
		emit8(0xb8);
		emit32(n);
		emit8(0xc3);
		bad += call(at, 0, 0) != n;
		if (n % 10000 == 0)
			restless(code);
	}
	check(!bad, "200000 functions in a page, each once: %u wrong", bad);
}

void guest_main(void)
{
	cli();
	data_beside();
	data_and_patches();
	own_next();
	by_device(true);
	by_device(false);
	to_rest_and_back();
	versions();
}
