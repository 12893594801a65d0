/* Code that changes: what a program with a compiler of its own, or a kernel that patches itself, asks of an
 * engine.
 *
 * The cold code is new in every run: its instructions, registers and constants follow from a number that
 * never comes again, so that nothing can be kept from an earlier run. Only executing it counts, not writing it.
 */
#include "cpu.h"

#include <string.h>
#include <sys/mman.h>

#define PAGE 4096

static uint8_t *page;

static uint8_t *map_code(uint64_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		cpu_die("memory to execute code in");
	return p;
}

static uint64_t call(const uint8_t *code, void *arg)
{
	return ((uint64_t(*)(void *))(uintptr_t)code)(arg);
}

/* mov eax, 0; ret */
static const uint8_t mov_ret[] = { 0xb8, 0, 0, 0, 0, 0xc3 };

static const char *page_setup(void)
{
	page = map_code(PAGE);
	memcpy(page, mov_ret, sizeof(mov_ret));
	return NULL;
}

static void page_teardown(void)
{
	munmap(page, PAGE);
}

static uint64_t patch_once(uint32_t value)
{
	memcpy(page + 1, &value, sizeof(value));
	__asm__ volatile("" ::: "memory");
	return call(page, NULL);
}

static void patch_run(uint64_t n)
{
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < n; i++)
		wrong |= patch_once((uint32_t)i) ^ (uint32_t)i;
	if (wrong)
		cpu_die("patched code ran as it was before");
}

static uint64_t patch_check(void)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < 100; i++)
		sum = sum * 3 + patch_once(i * 0x01010101);
	return sum;
}

#define DATA_STORES 64

/* Data on the other half of the page; the code is called once for all stores, so that it stays in use. */
static uint64_t data_once(uint64_t value)
{
	volatile uint64_t *data = (volatile uint64_t *)(page + PAGE / 2);

	for (unsigned i = 0; i < DATA_STORES; i++)
		data[i * 4] = value + i;
	return call(page, NULL) + data[0] + data[(DATA_STORES - 1) * 4];
}

static void data_run(uint64_t n)
{
	while (n--)
		cpu_sink = data_once(n);
}

static uint64_t data_check(void)
{
	patch_once(1000);
	return data_once(7);
}

/* --- cold code --- */

#define COLD_INSNS 4096
#define COLD_BYTES (COLD_INSNS * 8 + PAGE)
#define COLD_DATA  PAGE

struct cold {
	uint8_t *p;
	uint64_t random;
	unsigned left; /* instructions, the last RET not among them */
};

static uint64_t cold_seed = 0x243f6a8885a308d3;
static uint8_t cold_data[COLD_DATA] __attribute__((aligned(PAGE)));

static unsigned cold_pick(struct cold *c, unsigned below)
{
	return (unsigned)((cpu_random(&c->random) >> 32) % below);
}

static void cold_byte(struct cold *c, unsigned v)
{
	*c->p++ = (uint8_t)v;
}

static void cold_u32(struct cold *c, uint32_t v)
{
	memcpy(c->p, &v, 4);
	c->p += 4;
}

/* A register that a callee may change: rax, rcx, rdx, rsi, r8 to r11. RDI points to the data. */
static unsigned cold_reg(struct cold *c)
{
	static const uint8_t regs[] = { 0, 1, 2, 6, 8, 9, 10, 11 };

	return regs[cold_pick(c, sizeof(regs))];
}

/* REX.W, the opcode, and ModRM of two registers. */
static void cold_regs(struct cold *c, unsigned op, unsigned reg, unsigned rm)
{
	cold_byte(c, 0x48 | (reg >> 3) << 2 | rm >> 3);
	if (op > 0xff)
		cold_byte(c, op >> 8);
	cold_byte(c, op & 0xff);
	cold_byte(c, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* The same with memory at RDI plus a displacement. */
static void cold_mem(struct cold *c, unsigned op, unsigned reg)
{
	cold_byte(c, 0x48 | (reg >> 3) << 2);
	cold_byte(c, op);
	cold_byte(c, 0x80 | (reg & 7) << 3 | 7);
	cold_u32(c, cold_pick(c, COLD_DATA / 8) * 8);
}

/* One instruction that goes on to the next one. */
static void cold_plain(struct cold *c)
{
	static const uint8_t alu[] = { 0x01, 0x29, 0x31, 0x21, 0x09, 0x11, 0x39, 0x85, 0x89 };
	unsigned reg = cold_reg(c), rm = cold_reg(c);

	c->left--;
	switch (cold_pick(c, 10)) {
	default: /* add, sub, xor, and, or, adc, cmp, test, mov */
		cold_regs(c, alu[cold_pick(c, sizeof(alu))], reg, rm);
		break;
	case 4: /* imul */ cold_regs(c, 0x0faf, reg, rm); break;
	case 5: /* rol rm, imm8 */
		cold_regs(c, 0xc1, 0, rm);
		cold_byte(c, 1 + cold_pick(c, 31));
		break;
	case 6: /* add rm, imm32 */
		cold_regs(c, 0x81, 0, rm);
		cold_u32(c, (uint32_t)cpu_random(&c->random));
		break;
	case 7: /* mov reg, [rdi + disp32] */ cold_mem(c, 0x8b, reg); break;
	case 8: /* mov [rdi + disp32], reg */ cold_mem(c, 0x89, reg); break;
	case 9: /* add reg, [rdi + disp32] */ cold_mem(c, 0x03, reg); break;
	}
}

/* The end of a run of plain instructions. */
static void cold_branch(struct cold *c)
{
	unsigned gap;

	switch (cold_pick(c, 4)) {
	case 0: /* jmp over bytes that are no code */
		c->left--;
		gap = 1 + cold_pick(c, 8);
		cold_byte(c, 0xeb);
		cold_byte(c, gap);
		memset(c->p, 0xcc, gap);
		c->p += gap;
		break;
	case 1: /* call 1f; jmp 2f; 1: plain; ret; 2: */
		if (c->left >= 4) {
			uint8_t *jump;

			c->left -= 3;
			cold_byte(c, 0xe8);
			cold_u32(c, 2);
			cold_byte(c, 0xeb);
			jump = c->p;
			cold_byte(c, 0);
			cold_plain(c);
			cold_byte(c, 0xc3);
			*jump = (uint8_t)(c->p - jump - 1);
			break;
		}
		/* fall through */
	default: /* a condition, whose two ways are the same */
		c->left--;
		cold_byte(c, 0x70 | cold_pick(c, 16));
		cold_byte(c, 0);
		break;
	}
}

/* Writes COLD_INSNS instructions, each of which is executed once. */
static void cold_write(uint8_t *at, uint64_t seed)
{
	static const uint8_t regs[] = { 0, 1, 2, 6, 8, 9, 10, 11 };
	struct cold c = { .p = at, .random = seed, .left = COLD_INSNS - 1 };

	/* Every register gets a known value: mov reg, imm32. */
	for (unsigned i = 0; i < sizeof(regs); i++, c.left--) {
		cold_byte(&c, 0x48 | regs[i] >> 3);
		cold_byte(&c, 0xc7);
		cold_byte(&c, 0xc0 | (regs[i] & 7));
		cold_u32(&c, (uint32_t)cpu_random(&c.random));
	}
	while (c.left) {
		for (unsigned run = 2 + cold_pick(&c, 8); run && c.left; run--)
			cold_plain(&c);
		if (c.left)
			cold_branch(&c);
	}
	cold_byte(&c, 0xc3);
}

static uint64_t cold_once(uint64_t seed, uint64_t *ret_ns)
{
	uint8_t *at = map_code(COLD_BYTES);
	uint64_t start, result;

	cold_write(at, seed);
	start = cpu_now_ns();
	result = call(at, cold_data);
	*ret_ns = cpu_now_ns() - start;
	munmap(at, COLD_BYTES);
	return result;
}

static uint64_t cold_timed(uint64_t n)
{
	uint64_t total = 0, ns;

	while (n--) {
		cpu_sink = cold_once(cpu_random(&cold_seed), &ns);
		total += ns;
	}
	return total;
}

static uint64_t cold_check(void)
{
	uint64_t sum = 0, ns;

	memset(cold_data, 0x5a, sizeof(cold_data));
	for (uint64_t seed = 1; seed <= 8; seed++)
		sum = sum * 3 + cold_once(seed * 0x9e3779b97f4a7c15, &ns);
	return sum ^ cpu_hash(cold_data, sizeof(cold_data));
}

const struct cpu_test cpu_code_tests[] = {
	{ .name = "patch",
	  .group = "changing code",
	  .label = "patch an immediate, call it",
	  .ops = 1,
	  .setup = page_setup,
	  .check = patch_check,
	  .run = patch_run,
	  .teardown = page_teardown },
	{ .name = "code-page",
	  .group = "changing code",
	  .label = "write data on a page of code",
	  .ops = DATA_STORES,
	  .setup = page_setup,
	  .check = data_check,
	  .run = data_run,
	  .teardown = page_teardown },
	{ .name = "cold",
	  .group = "changing code",
	  .label = "cold code, an instruction",
	  .ops = COLD_INSNS,
	  .check = cold_check,
	  .timed = cold_timed },
	{ .name = NULL },
};
