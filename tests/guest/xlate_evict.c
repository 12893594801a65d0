/* More warm code than any cache holds: 40000 different functions of several blocks each, which call and jump into each other, all of
 * them executed often; one after the other, in turns, in chains of jumps through all of them, in calls so deep that what is
 * returned to has long been thrown out. Then all of them become others. Every result is compared. */
#include "lib/guest.h"
#include "lib/emit.h"

#define CODE     0x2000000ul
#define STRIDE   120ul /* so that they lie over the ends of pages, too */
#define N        40000u
#define COUNTERS 0x5000000ul
#define STACK    0xa000000ul

enum { ENTRY = 0, LEAF = 48, CHAIN = 64, DEEP = 80 };

static u32 version;

/* --- a function, and what it has to do --- */

struct constants {
	int add, xor, leaf; /* 32 bits, sign-extended */
	signed char small, mask, deep;
	u8 rotate;
};

static struct constants constants(u32 k)
{
	u64 x = (k + 1) * 0x9e3779b97f4a7c15ull + version * 0xd1342543de82ef95ull;
	struct constants c;

	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 32;
	c.add = (int)x;
	c.xor = (int)(x >> 32);
	c.leaf = (int)(x >> 16);
	c.small = (signed char)(x >> 7);
	c.mask = (signed char)(x >> 40 | 1);
	c.deep = (signed char)(x >> 50);
	c.rotate = (u8)(1 + (x >> 58) % 63);
	return c;
}

static u32 leaf_of(u32 k)
{
	return (k * 31u + 17) % N;
}

static u32 next_of(u32 k)
{
	return (k + 7919u) % N;
}

static uptr at(u32 k)
{
	return CODE + k * STRIDE;
}

static void put(u32 k)
{
	struct constants c = constants(k);

	emit_at(at(k) + ENTRY);
	emit("\x48\x8d\x44\xbf", 4); /* lea small(%rdi, %rdi, 4), %rax */
	emit8((u8)c.small);
	emit8(0xa8); /* test $mask, %al; jz over the add */
	emit8((u8)c.mask);
	emit("\x74\x06\x48\x05", 4);
	emit32((u32)c.add);
	emit("\x48\x35", 2);
	emit32((u32)c.xor);
	emit("\xff\x04\x25", 3); /* incl counter */
	emit32((u32)(COUNTERS + k * 4));
	emit("\x48\x89\xc7", 3);
	emit_call(at(leaf_of(k)) + LEAF);
	emit("\x48\x29\xf8\x73\x04\x48\xc1\xc0", 8); /* sub %rdi, %rax; jnc over; rol $rotate, %rax */
	emit8(c.rotate);
	emit8(0xc3);
	emit_at(at(k) + LEAF);
	emit("\x48\x8d\x87", 3); /* lea leaf(%rdi), %rax; imul %rdi, %rax; ret */
	emit32((u32)c.leaf);
	emit("\x48\x0f\xaf\xc7\xc3", 5);
	emit_at(at(k) + CHAIN);
	emit("\x48\x8d\x44\x80", 4); /* lea small(%rax, %rax, 4), %rax; dec %rdi; jz over; jmp; ret */
	emit8((u8)c.small);
	emit("\x48\xff\xcf\x74\x05", 5);
	emit_jmp(at(next_of(k)) + CHAIN);
	emit8(0xc3);
	emit_at(at(k) + DEEP);
	emit("\x48\xff\xcf\x74\x0f\x57", 6); /* dec %rdi; jz to the end; push %rdi; call */
	emit_call(at(next_of(k)) + DEEP);
	emit("\x5f\x48\x01\xf8\x48\x83\xf0", 7); /* pop %rdi; add %rdi, %rax; xor $deep, %rax; ret */
	emit8((u8)c.deep);
	emit("\xc3\x31\xc0\xc3", 4);
}

static u64 model(u32 k, u64 x)
{
	struct constants c = constants(k);
	u64 v = x * 5 + (u64)(long)c.small, r;

	if (v & (u8)c.mask)
		v += (u64)(long)c.add;
	v ^= (u64)(long)c.xor ;
	r = (v + (u64)(long)constants(leaf_of(k)).leaf) * v;
	if (r >= v)
		return r - v;
	r -= v;
	return r << c.rotate | r >> (64 - c.rotate);
}

static u64 call(u32 k, u64 x)
{
	return ((u64(*)(u64))(at(k) + ENTRY))(x);
}

/* --- orders --- */

static u32 expected[N]; /* of the counters */

static unsigned one(u32 k, u64 x)
{
	expected[k]++;
	return call(k, x) != model(k, x);
}

static unsigned counters(void)
{
	unsigned bad = 0;

	for (u32 k = 0; k < N; k++)
		bad += ((u32 *)COUNTERS)[k] != expected[k];
	return bad;
}

/* Each one until it is warm. */
static void one_by_one(void)
{
	unsigned bad = 0;

	for (u32 k = 0; k < N; k++) {
		u64 x = k * 3, v;
		bad += one(k, x);
		v = call(k, x);
		for (unsigned n = 0; n < 38; n++)
			bad += call(k, x) != v;
		expected[k] += 39;
	}
	check(!bad && !counters(), "%u functions, 40 times each: %u wrong", N, bad);
}

static void in_turns(void)
{
	unsigned bad = 0;

	for (unsigned n = 0; n < 3; n++)
		for (u32 k = 0; k < N; k++)
			bad += one(k, k ^ n);
	check(!bad && !counters(), "and all of them in turns: %u wrong", bad);
}

/* A few thousand are in use, and slowly others. */
static void in_windows(void)
{
	u64 x = 88172645463325252ull;
	unsigned bad = 0;

	for (u32 n = 0; n < 200000; n++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		bad += one((u32)((n / 4 + (x >> 20) % (n & 0x10000 ? 2000 : 100)) % N), x);
	}
	check(!bad && !counters(), "in a window that moves: %u wrong", bad);
}

static u64 run_chain(u32 k, u64 start, u64 n)
{
	u64 v = start;

	__asm__ volatile("call *%2" : "+a"(v), "+D"(n) : "r"(at(k) + CHAIN) : "memory", "cc");
	return v;
}

static void chains(void)
{
	unsigned bad = 0;

	for (unsigned turn = 0; turn < 20; turn++) {
		u32 k = turn * 1234 % N, first = k;
		u64 n = turn % 8 ? 3000 + turn : 2 * N + turn, want = turn;

		for (u64 m = 0; m < n; m++, k = next_of(k))
			want = want * 5 + (u64)(long)constants(k).small;
		for (unsigned again = 0; again < 6; again++)
			bad += run_chain(first, turn, n) != want;
	}
	check(!bad, "chains of jumps through all of them: %u wrong", bad);
}

/* On a stack of its own. */
static u64 run_deep(u32 k, u64 n)
{
	u64 v;

	__asm__ volatile("mov %%rsp, %%r12\n\tmov %3, %%rsp\n\tcall *%2\n\tmov %%r12, %%rsp"
			 : "=a"(v), "+D"(n)
			 : "r"(at(k) + DEEP), "r"(STACK)
			 : "memory", "cc", "r12");
	return v;
}

static void depths(void)
{
	static const u32 depth[] = { 2, 30, 60, 500, 3000, N, 2 * N + 500 };
	unsigned bad = 0;

	for (unsigned d = 0; d < sizeof(depth) / 4; d++) {
		u32 n = depth[d], k = d * 777;
		u64 want = 0;

		/* from the innermost outwards: the one that gets n - m is m calls deep */
		for (u32 m = n - 1; m-- > 0;) {
			u32 kk = (u32)((k + (u64)m * 7919u) % N);
			want = (want + (n - m - 1)) ^ (u64)(long)constants(kk).deep;
		}
		for (unsigned again = 0; again < 2 + (n < N) * 30; again++)
			bad += run_deep(k, n) != want;
	}
	check(!bad, "calls up to %u deep: %u wrong", 3 * N, bad);
}

void guest_main(void)
{
	cli();
	for (version = 0; version < 2; version++) {
		for (u32 k = 0; k < N; k++)
			put(k);
		memset_((void *)COUNTERS, 0, N * 4);
		memset_(expected, 0, sizeof(expected));
		if (version == 0) {
			in_turns();
			depths(); /* the first time cold */
		}
		one_by_one();
		in_turns();
		depths();
		chains();
		in_windows();
	}
}
