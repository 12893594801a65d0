/* The kernels: each leans on another habit of integer code, so that an engine cannot be good at one thing
 * only. No libc, no floating point, no vectors.
 *
 *   alu    dependent shifts, xors and multiplications in registers
 *   crc    a table look-up per byte: loads on the critical path
 *   sort   shell sort: loads, stores and branches that depend on data
 *   calls  recursive fib: CALL, RET and the stack
 *   switch a small bytecode machine: indirect jumps
 *   sieve  byte stores with a stride, then counting
 *   strings hashing and comparing words of text
 */
#include "kernels.h"

#include <stddef.h>

static uint32_t table[256];
static uint32_t numbers[4096];
static uint8_t bytes[65536];

static uint64_t xorshift(uint64_t x)
{
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static uint64_t alu(uint32_t rounds)
{
	uint64_t x = 88172645463325252ull, sum = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		x = xorshift(x);
		sum += x * 0x9e3779b97f4a7c15ull >> (i & 31);
	}
	return sum;
}

static uint64_t crc(uint32_t rounds)
{
	uint32_t c = ~0u;

	for (uint32_t i = 0; i < 256; i++) {
		uint32_t v = i;

		for (int k = 0; k < 8; k++)
			v = v >> 1 ^ (v & 1 ? 0xedb88320u : 0);
		table[i] = v;
	}
	for (uint32_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + (i >> 8));
	for (uint32_t r = 0; r < rounds; r++) {
		for (uint32_t i = 0; i < 16384; i++)
			c = table[(uint8_t)(c ^ bytes[i])] ^ c >> 8;
	}
	return c;
}

static uint64_t sort(uint32_t rounds)
{
	uint64_t x = 1, sum = 0;

	for (uint32_t r = 0; r < rounds; r++) {
		for (uint32_t i = 0; i < 4096; i++) {
			x = xorshift(x);
			numbers[i] = (uint32_t)x;
		}
		for (uint32_t gap = 1821; gap; gap = gap == 2 ? 1 : gap * 5 / 11) {
			for (uint32_t i = gap; i < 4096; i++) {
				uint32_t v = numbers[i], k = i;

				for (; k >= gap && numbers[k - gap] > v; k -= gap)
					numbers[k] = numbers[k - gap];
				numbers[k] = v;
			}
		}
		sum = sum * 31 + numbers[r & 4095] + numbers[2048];
	}
	return sum;
}

static __attribute__((noinline)) uint64_t fib(uint32_t n)
{
	/* The empty statement keeps the compiler from turning the recursion into loops. */
	__asm__ volatile("" : "+r"(n));
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t calls(uint32_t rounds)
{
	uint64_t sum = 0;

	for (uint32_t r = 0; r < rounds; r++)
		sum += fib(20 + (r & 1));
	return sum;
}

enum op { ADD, XOR, MUL, ROT, LOAD, STORE, COUNT, JUMP };

static uint64_t interpret(uint32_t rounds)
{
	static const uint8_t program[] = {
		ADD, XOR, LOAD, MUL, ROT, STORE, XOR, LOAD, ADD, COUNT, MUL, JUMP
	};
	static const void *const target[] = { &&add, &&xor, &&mul, &&rot, &&load, &&store, &&count, &&jump };
	uint64_t a = 1, b = 0x9e3779b9, left = rounds;
	const uint8_t *pc = program;

#define NEXT goto *target[*pc++]
	NEXT;
add:
	a += b;
	NEXT;
	xor : a ^= b;
	NEXT;
mul:
	a *= 0x5851f42d4c957f2dull;
	NEXT;
rot:
	a = a << 7 | a >> 57;
	NEXT;
load:
	b += numbers[a & 4095];
	NEXT;
store:
	numbers[b & 4095] = (uint32_t)a;
	NEXT;
count:
	left--;
	NEXT;
jump:
	if (left) {
		pc = program;
		NEXT;
	}
#undef NEXT
	return a ^ b;
}

static uint64_t dispatch(uint32_t rounds)
{
	for (uint32_t i = 0; i < 4096; i++)
		numbers[i] = i * 2654435761u;
	return interpret(rounds);
}

static uint64_t sieve(uint32_t rounds)
{
	uint64_t found = 0;

	for (uint32_t r = 0; r < rounds; r++) {
		for (uint32_t i = 0; i < sizeof(bytes); i++) {
			bytes[i] = 1;
			__asm__ volatile("" ::: "memory"); /* one by one, not a call of memset */
		}
		for (uint32_t i = 2; i * i < sizeof(bytes); i++) {
			for (uint32_t k = i * i; bytes[i] && k < sizeof(bytes); k += i)
				bytes[k] = 0;
		}
		for (uint32_t i = 2; i < sizeof(bytes); i++)
			found += bytes[i];
	}
	return found;
}

static uint64_t strings(uint32_t rounds)
{
	static const char text[] =
		"the quick brown fox jumps over the lazy dog while the guest counts its steps ";
	uint64_t h = 14695981039346656037ull, same = 0;

	for (uint32_t r = 0; r < rounds; r++) {
		size_t word = 0;

		for (size_t i = 0; i < sizeof(text) - 1; i++) {
			h = (h ^ (uint8_t)text[i]) * 1099511628211ull;
			if (text[i] != ' ')
				continue;
			for (size_t k = 0; k < 16 && text[word + k] == text[k]; k++)
				same++;
			word = i + 1;
		}
	}
	return h + same;
}

const struct kernel kernels[] = {
	{ "alu", alu, 4000000 },        { "crc", crc, 400 },
	{ "sort", sort, 50 },           { "calls", calls, 300 },
	{ "switch", dispatch, 900000 }, { "sieve", sieve, 60 },
	{ "strings", strings, 80000 },  { NULL, NULL, 0 },
};
