/* Computation: integer work, calls, indirect jumps, loads that depend on each other, floating point, vectors.
 *
 * Compiled without automatic vectorization: the three matrix products differ in nothing but the instructions
 * that they use, and only the one for SSE2 and the one for AVX2 name vectors.
 */
#include "cpu.h"

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SEED 0x9e3779b97f4a7c15

/* The compiler can neither look through this nor move memory accesses across it. */
#define barrier() __asm__ volatile("" ::: "memory")

/* --- integer --- */

#define CRC_BYTES 16384

static uint8_t crc_data[CRC_BYTES];
static uint32_t crc_table[256];

static const char *crc_setup(void)
{
	uint64_t x = SEED;

	for (unsigned i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
		crc_table[i] = c;
	}
	for (unsigned i = 0; i < CRC_BYTES; i++)
		crc_data[i] = (uint8_t)cpu_random(&x);
	return NULL;
}

static uint64_t crc_check(void)
{
	uint32_t c = 0xffffffff;

	barrier();
	for (unsigned i = 0; i < CRC_BYTES; i++)
		c = c >> 8 ^ crc_table[(c ^ crc_data[i]) & 255];
	return ~c;
}

static void crc_run(uint64_t n)
{
	while (n--)
		cpu_sink = crc_check();
}

/* The steps of cpu_random(), here to stay in registers. */
static uint64_t alu_once(uint64_t x)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < 10000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		sum += x * 0x2545f4914f6cdd1d;
	}
	return sum;
}

static uint64_t alu_check(void)
{
	return alu_once(SEED);
}

static void alu_run(uint64_t n)
{
	while (n--)
		cpu_sink = alu_once(SEED + (n << 1));
}

#define SORT_INTS 4096

static int sort_from[SORT_INTS], sort_ints[SORT_INTS];

static const char *sort_setup(void)
{
	uint64_t x = SEED;

	for (unsigned i = 0; i < SORT_INTS; i++)
		sort_from[i] = (int)(cpu_random(&x) >> 32);
	return NULL;
}

static int sort_compare(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

static void sort_run(uint64_t n)
{
	while (n--) {
		for (unsigned i = 0; i < SORT_INTS; i++) {
			sort_ints[i] = sort_from[i];
			barrier();
		}
		qsort(sort_ints, SORT_INTS, sizeof(int), sort_compare);
	}
}

static uint64_t sort_check(void)
{
	sort_run(1);
	return cpu_hash(sort_ints, sizeof(sort_ints));
}

static __attribute__((noinline)) uint64_t fib(uint64_t n)
{
	uint64_t a, b;

	if (n < 2)
		return n;
	/* Two real calls: neither turned into a loop. */
	a = fib(n - 1);
	__asm__ volatile("" : "+r"(a));
	b = fib(n - 2);
	__asm__ volatile("" : "+r"(b));
	return a + b;
}

static uint64_t fib_check(void)
{
	return fib(24);
}

static void fib_run(uint64_t n)
{
	while (n--)
		cpu_sink = fib(24);
}

/* A program of a little machine: an operation and an operand each; the last one loops. */
#define CODE_OPS   255
#define CODE_LOOPS 64

static uint8_t code[(CODE_OPS + 1) * 2];

static const char *code_setup(void)
{
	uint64_t x = SEED;

	for (unsigned i = 0; i < CODE_OPS; i++) {
		code[2 * i] = (uint8_t)((cpu_random(&x) >> 32) % 15);
		code[2 * i + 1] = (uint8_t)(cpu_random(&x) >> 40);
	}
	code[2 * CODE_OPS] = 15;
	return NULL;
}

static uint64_t code_check(void)
{
	static const void *const go[16] = { &&add, &&sub, &&eor, &&mul, &&rol, &&load,  &&store, &&swap,
					    &&neg, &&inc, &&mix, &&and, &&low, &&shift, &&less,  &&loop };
	uint64_t a = 1, b = 2, mem[16] = { 0 }, loops = CODE_LOOPS;
	const uint8_t *p = code;
	unsigned k;

	barrier();
#define NEXT()                   \
	do {                     \
		k = p[1];        \
		p += 2;          \
		goto *go[p[-2]]; \
	} while (0)
	NEXT();
add:
	a += b + k;
	NEXT();
sub:
	a -= b ^ k;
	NEXT();
eor:
	b ^= a;
	NEXT();
mul:
	a *= k | 1;
	NEXT();
rol:
	a = a << 7 | a >> 57;
	NEXT();
load:
	b += mem[k & 15];
	NEXT();
store:
	mem[k & 15] = a;
	NEXT();
swap:
	mem[0] = a;
	a = b;
	b = mem[0];
	NEXT();
neg:
	b = -b;
	NEXT();
inc:
	b += k;
	NEXT();
mix:
	a ^= b >> 3;
	NEXT();
	and : b &= a | k;
	NEXT();
low:
	b = (uint32_t)b ^ a;
	NEXT();
shift:
	a ^= a >> (k & 31);
	NEXT();
less:
	a += a < b;
	NEXT();
loop:
	if (--loops) {
		p = code;
		NEXT();
	}
#undef NEXT
	return a ^ b;
}

static void code_run(uint64_t n)
{
	while (n--)
		cpu_sink = code_check();
}

/* --- memory --- */

#define LINE        64
#define CHASE_SMALL (16 << 10)
#define CHASE_LARGE (64 << 20)
#define CHASE_LOADS 1024

static void *chase_mem, *chase_at;
static uint64_t chase_len;

/* All lines in one cycle of random order [Sattolo 1986]: each line holds the address of the next. */
static const char *chase_make(uint64_t len)
{
	uint64_t lines = len / LINE, x = SEED;
	uint32_t *order = malloc(lines * sizeof(*order));

	chase_len = len;
	chase_mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!order || chase_mem == MAP_FAILED)
		cpu_die("memory for the pointer chase");
	/* Pages of one size on every machine. */
	madvise(chase_mem, len, MADV_NOHUGEPAGE);
	for (uint64_t i = 0; i < lines; i++)
		order[i] = (uint32_t)i;
	for (uint64_t i = lines - 1; i > 0; i--) {
		uint64_t j = (cpu_random(&x) >> 32) * i >> 32;
		uint32_t swap = order[i];

		order[i] = order[j];
		order[j] = swap;
	}
	for (uint64_t i = 0; i < lines; i++)
		*(void **)((char *)chase_mem + i * LINE) = (char *)chase_mem + (uint64_t)order[i] * LINE;
	free(order);
	chase_at = chase_mem;
	return NULL;
}

static const char *chase_small_setup(void)
{
	return chase_make(CHASE_SMALL);
}

static const char *chase_large_setup(void)
{
	return chase_make(CHASE_LARGE);
}

static void chase_run(uint64_t n)
{
	void *p = chase_at;

	while (n--) {
		for (unsigned i = 0; i < CHASE_LOADS / 8; i++) {
			p = *(void **)p;
			p = *(void **)p;
			p = *(void **)p;
			p = *(void **)p;
			p = *(void **)p;
			p = *(void **)p;
			p = *(void **)p;
			p = *(void **)p;
			barrier();
		}
	}
	chase_at = p;
}

static uint64_t chase_check(void)
{
	chase_run(4);
	/* Not a whole number of times around the small ring. */
	for (unsigned i = 0; i < 77; i++)
		chase_at = *(void **)chase_at;
	return (uint64_t)((char *)chase_at - (char *)chase_mem);
}

static void chase_teardown(void)
{
	munmap(chase_mem, chase_len);
}

#define COPY_BYTES (64 << 10)

static uint8_t copy_from[COPY_BYTES], copy_to[COPY_BYTES];

static const char *copy_setup(void)
{
	uint64_t x = SEED;

	for (unsigned i = 0; i < COPY_BYTES; i++)
		copy_from[i] = (uint8_t)cpu_random(&x);
	return NULL;
}

static void copy_run(uint64_t n)
{
	while (n--) {
		memcpy(copy_to, copy_from, COPY_BYTES);
		barrier();
	}
}

static uint64_t copy_check(void)
{
	copy_run(1);
	return cpu_hash(copy_to, COPY_BYTES);
}

/* --- floating point --- */

#define N 64

static float ma[N][N] __attribute__((aligned(64)));
static float mb[N][N] __attribute__((aligned(64)));
static float mc[N][N] __attribute__((aligned(64)));

static const char *matmul_setup(void)
{
	uint64_t x = SEED;

	for (unsigned i = 0; i < N; i++) {
		for (unsigned j = 0; j < N; j++) {
			ma[i][j] = (float)((int)(cpu_random(&x) >> 40) - (1 << 23)) / (float)(1 << 20);
			mb[i][j] = (float)((int)(cpu_random(&x) >> 40) - (1 << 23)) / (float)(1 << 20);
		}
	}
	return NULL;
}

static const char *matmul_avx2_setup(void)
{
	__builtin_cpu_init();
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
		return "this CPU offers no AVX2 with FMA";
	return matmul_setup();
}

static void matmul_scalar_run(uint64_t n)
{
	while (n--) {
		for (unsigned i = 0; i < N; i++) {
			for (unsigned j = 0; j < N; j++)
				mc[i][j] = ma[i][0] * mb[0][j];
			for (unsigned k = 1; k < N; k++) {
				float a = ma[i][k];

				for (unsigned j = 0; j < N; j++)
					mc[i][j] += a * mb[k][j];
			}
		}
		barrier();
	}
}

static void matmul_sse2_run(uint64_t n)
{
	while (n--) {
		for (unsigned i = 0; i < N; i++) {
			for (unsigned j = 0; j < N; j += 4)
				_mm_store_ps(&mc[i][j],
					     _mm_mul_ps(_mm_set1_ps(ma[i][0]), _mm_load_ps(&mb[0][j])));
			for (unsigned k = 1; k < N; k++) {
				__m128 a = _mm_set1_ps(ma[i][k]);

				for (unsigned j = 0; j < N; j += 4)
					_mm_store_ps(&mc[i][j],
						     _mm_add_ps(_mm_load_ps(&mc[i][j]),
								_mm_mul_ps(a, _mm_load_ps(&mb[k][j]))));
			}
		}
		barrier();
	}
}

static __attribute__((target("avx2,fma"))) void matmul_avx2_run(uint64_t n)
{
	while (n--) {
		for (unsigned i = 0; i < N; i++) {
			for (unsigned j = 0; j < N; j += 8)
				_mm256_store_ps(&mc[i][j], _mm256_mul_ps(_mm256_set1_ps(ma[i][0]),
									 _mm256_load_ps(&mb[0][j])));
			for (unsigned k = 1; k < N; k++) {
				__m256 a = _mm256_set1_ps(ma[i][k]);

				for (unsigned j = 0; j < N; j += 8)
					_mm256_store_ps(&mc[i][j],
							_mm256_fmadd_ps(a, _mm256_load_ps(&mb[k][j]),
									_mm256_load_ps(&mc[i][j])));
			}
		}
		barrier();
	}
}

static uint64_t matmul_scalar_check(void)
{
	matmul_scalar_run(1);
	return cpu_hash(mc, sizeof(mc));
}

static uint64_t matmul_sse2_check(void)
{
	matmul_sse2_run(1);
	return cpu_hash(mc, sizeof(mc));
}

static uint64_t matmul_avx2_check(void)
{
	matmul_avx2_run(1);
	return cpu_hash(mc, sizeof(mc));
}

static volatile long double x87_by = 1.0000001234L, x87_over = 1.0000001233L;
static long double x87_result;

static void x87_run(uint64_t n)
{
	while (n--) {
		long double x = 1, by = x87_by, over = x87_over;

		for (unsigned i = 0; i < 2000; i++)
			x = x * by / over;
		x87_result = x;
		barrier();
	}
}

static uint64_t x87_check(void)
{
	x87_run(1);
	return cpu_hash(&x87_result, 10);
}

const struct cpu_test cpu_compute_tests[] = {
	{ .name = "crc32",
	  .group = "integer",
	  .label = "CRC32 by table, 16 KiB",
	  .ops = 1,
	  .setup = crc_setup,
	  .check = crc_check,
	  .run = crc_run },
	{ .name = "alu",
	  .group = "integer",
	  .label = "xorshift and multiply, 10,000",
	  .ops = 1,
	  .check = alu_check,
	  .run = alu_run },
	{ .name = "qsort",
	  .group = "integer",
	  .label = "qsort of 4096 ints",
	  .ops = 1,
	  .setup = sort_setup,
	  .check = sort_check,
	  .run = sort_run },
	{ .name = "fib",
	  .group = "integer",
	  .label = "fib(24): call and return",
	  .ops = 1,
	  .check = fib_check,
	  .run = fib_run },
	{ .name = "bytecode",
	  .group = "integer",
	  .label = "bytecode, 16k indirect jumps",
	  .ops = 1,
	  .setup = code_setup,
	  .check = code_check,
	  .run = code_run },
	{ .name = "chase-l1",
	  .group = "memory",
	  .label = "pointer chase in 16 KiB, a load",
	  .ops = CHASE_LOADS,
	  .setup = chase_small_setup,
	  .check = chase_check,
	  .run = chase_run,
	  .teardown = chase_teardown },
	{ .name = "chase-64m",
	  .group = "memory",
	  .label = "pointer chase in 64 MiB, a load",
	  .ops = CHASE_LOADS,
	  .setup = chase_large_setup,
	  .check = chase_check,
	  .run = chase_run,
	  .teardown = chase_teardown },
	{ .name = "memcpy",
	  .group = "memory",
	  .label = "memcpy of 64 KiB",
	  .ops = 1,
	  .setup = copy_setup,
	  .check = copy_check,
	  .run = copy_run },
	{ .name = "matmul-scalar",
	  .group = "floating point",
	  .label = "matrix 64x64, scalar SSE2",
	  .ops = 1,
	  .setup = matmul_setup,
	  .check = matmul_scalar_check,
	  .run = matmul_scalar_run },
	{ .name = "matmul-sse2",
	  .group = "floating point",
	  .label = "matrix 64x64, packed SSE2",
	  .ops = 1,
	  .setup = matmul_setup,
	  .check = matmul_sse2_check,
	  .run = matmul_sse2_run },
	{ .name = "matmul-avx2",
	  .group = "floating point",
	  .label = "matrix 64x64, AVX2 and FMA",
	  .ops = 1,
	  .setup = matmul_avx2_setup,
	  .check = matmul_avx2_check,
	  .run = matmul_avx2_run },
	{ .name = "x87",
	  .group = "floating point",
	  .label = "x87 multiply and divide, 2000",
	  .ops = 1,
	  .check = x87_check,
	  .run = x87_run },
	{ .name = NULL },
};
