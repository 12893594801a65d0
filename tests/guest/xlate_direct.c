/* A kernel in the upper half that reads all over a direct map of memory, and then a change of what is mapped there: a page, its
 * rights, its accessed bit, who reads, what is watched. The next read must do what the processor does, whatever an
 * engine keeps of a range of addresses that are physical ones plus a constant. [SDM3 4.6, 4.8, 4.10, 17.2] */
#include "lib/irq.h"
#include "lib/paging.h"

/* NR large pages, of the memory from PHYS on. */
#define MAP   0xffff888000000000ul
#define PHYS  0x4000000ul
#define NR    32u
#define LARGE 0x200000ul
/* All of the first GiB, where the supervisor's code runs; all of it the user's. */
#define KERNEL 0xffff900000000000ul
#define USER   0x80000000ul

#define WORD(n, offset) (*(volatile u64 *)(PHYS + (n)*LARGE + (offset)))

static u64 map_pdpt[512] __attribute__((aligned(4096)));
static u64 map_pd[512] __attribute__((aligned(4096)));
static u64 small[512] __attribute__((aligned(4096)));
static bool has_smap;

/* The sum of count words, step bytes apart: by a base register, with an index, by a segment, several by one register. The jumps
 * are lest it be a loop of one block. */
struct walk {
	uptr from;
	u64 count, step, sum;
};
static struct walk walk;

#define WALK(name, body)                                                                                 \
	__asm__(".text\n" name ": mov (%rdi),%rsi; mov 8(%rdi),%rcx; mov 16(%rdi),%rdx; xor %eax,%eax\n" \
		"1: " body "; jmp 2f; 2: add %rdx,%rsi; dec %rcx; jnz 1b; mov %rax,24(%rdi); ret\n")
WALK("walk_base", "add (%rsi),%rax");
WALK("walk_index", "mov $-8,%r8; add 8(%rsi,%r8),%rax");
WALK("walk_r9", "mov %rsi,%r9; add (%r9),%rax");
WALK("walk_segment", "mov %gs:0(%rsi),%r8; add %r8,%rax");
WALK("walk_group", "mov (%rsi),%r10; mov 8(%rsi),%r8; mov 16(%rsi),%r8; add %r10,%rax");
WALK("walk_push", "pushq (%rsi); pop %r8; add %r8,%rax");
WALK("walk_vector", "addb $0,(%rdi); cmpq $0,(%rsi); je 3f; add (%rsi),%rax; 3:");
__asm__(".text\nwalk_nothing: ret\n");
void walk_base(uptr), walk_index(uptr), walk_r9(uptr), walk_segment(uptr), walk_group(uptr), walk_push(uptr),
	walk_vector(uptr), walk_nothing(uptr);

static const struct {
	const char *name;
	void (*fn)(uptr walk);
	unsigned span;
} ways[] = {
	{ "a base register", walk_base, 8 }, { "base and index", walk_index, 8 }, { "R9", walk_r9, 8 },
	{ "a segment", walk_segment, 8 },    { "a group", walk_group, 24 },       { "PUSH", walk_push, 8 },
	{ "CMP and ADD", walk_vector, 8 },
};
static unsigned way;

/* True: it faulted. */
static bool reads(uptr from, u64 count, u64 step)
{
	walk.from = from;
	walk.count = count;
	walk.step = step;
	return guest_try((void (*)(uptr))((uptr)ways[way].fn + KERNEL), (uptr)&walk);
}

static bool reads_word(uptr at, u64 want)
{
	return !reads(at, 1, 0) && walk.sum == want;
}

static bool faults(uptr at, uptr error, uptr cr2)
{
	return reads(at, 1, 0) && fault.vector == PF && fault.error == error && fault.cr2 == cr2;
}

static void set(unsigned n, u64 entry)
{
	((volatile u64 *)map_pd)[n] = entry;
}

static u64 large(unsigned n)
{
	return (PHYS + n * LARGE) | PS | G | D | A | P | W;
}

/* Everything anew, global pages too. */
static void flush(void)
{
	write_cr4(read_cr4() & ~CR4_PGE);
	write_cr4(read_cr4() | CR4_PGE);
}

/* Reads a word of each 4 KiB from large page `first` on until an engine has seen enough of them. */
static bool heat(unsigned first, unsigned end)
{
	u64 want = 0;
	bool ok = true;

	for (unsigned n = first; n < end; n++)
		want += 512 * (n + 1);
	for (unsigned k = 0; first < end && k < 3; k++)
		ok &= !reads(MAP + first * LARGE, (end - first) * 512, 4096) && walk.sum == want;
	return ok;
}

static bool elsewhere(void)
{
	bool ok = heat(0, NR);

	for (unsigned n = 0; n < NR; n += 7) {
		set(n, large(n ^ 1));
		invlpg((void *)(MAP + n * LARGE + (n & 1 ? 0x1ff000 : 0)));
		ok &= reads_word(MAP + n * LARGE + 0x1000, (n ^ 1) + 1);
		ok &= reads_word(MAP + (n ^ 1) * LARGE + 0x1000, (n ^ 1) + 1);
		set(n, large(n));
		flush();
		ok &= reads_word(MAP + n * LARGE + 0x1000, n + 1) && heat(0, NR);
	}
	/* A large page in small ones, one of which is another's; a change of the tables that is not told yet is. */
	for (unsigned k = 0; k < 512; k++)
		small[k] = (large(5) & ~PS) + (k == 100 ? LARGE : k * 4096ul);
	set(5, (uptr)small | P | W | A);
	flush();
	for (unsigned k = 0; k < 3; k++)
		ok &= !reads(MAP, NR * 512, 4096);
	ok &= reads_word(MAP + 5 * LARGE + 99 * 4096, 6) && reads_word(MAP + 5 * LARGE + 100 * 4096, 7);
	small[100] = (large(5) & ~PS) + 100 * 4096ul;
	invlpg((void *)(MAP + 5 * LARGE + 100 * 4096));
	ok &= heat(0, NR) && reads_word(MAP + 5 * LARGE + 100 * 4096, 6);
	set(5, large(5));
	flush();
	return ok;
}

static bool forbidden(void)
{
	bool ok = heat(0, NR);

	for (unsigned n = 1; n < NR; n += 9) {
		set(n, large(n) & ~P);
		invlpg((void *)(MAP + n * LARGE));
		ok &= faults(MAP + n * LARGE + 0x2000, 0, MAP + n * LARGE + 0x2000);
		ok &= faults(MAP + n * LARGE - 1, 0, MAP + n * LARGE);
		ok &= heat(n + 1, NR) && heat(0, n);
		ok &= faults(MAP + n * LARGE + LARGE - 8, 0, MAP + n * LARGE + LARGE - 8);
		set(n, large(n));
		ok &= reads_word(MAP + n * LARGE + 0x2000, n + 1) && heat(0, NR);
	}
	return ok;
}

/* The words at both ends, and what reaches over them. */
static bool ends(void)
{
	uptr end = MAP + NR * LARGE;
	bool ok = heat(0, NR);

	for (unsigned k = ways[way].span; k <= 600; k++)
		ok &= !reads(end - k, 1, 0);
	for (unsigned k = 1; k < ways[way].span; k++)
		ok &= faults(end - k, 0, end);
	for (unsigned k = 0; k < 8; k++)
		ok &= faults(MAP - 8 + k, 0, MAP - 8 + k);
	return ok && reads_word(MAP, 1) && faults(end, 0, end);
}

/* The accessed bit is set by the first read of the page, and by no other. */
static bool accessed(void)
{
	bool ok = true;

	for (unsigned n = 0; n < NR; n += 5) {
		set(n, large(n) & ~A);
		flush();
		ok &= heat(0, n) && heat(n + 1, NR) && !(((volatile u64 *)map_pd)[n] & A);
		ok &= reads_word(MAP + n * LARGE + 0x3000, n + 1) && ((volatile u64 *)map_pd)[n] & A;
		ok &= heat(0, NR);
	}
	return ok;
}

static bool smap(void)
{
	bool ok = heat(0, NR);

	if (!has_smap)
		return true;
	map_pdpt[0] |= U;
	set(4, large(4) | U);
	flush();
	ok &= heat(0, NR);
	write_cr4(read_cr4() | CR4_SMAP);
	ok &= heat(0, 4) && heat(5, NR);
	ok &= faults(MAP + 4 * LARGE + 0x1000, 1, MAP + 4 * LARGE + 0x1000);
	write_cr4(read_cr4() & ~CR4_SMAP);
	ok &= heat(0, NR) && reads_word(MAP + 4 * LARGE + 0x1000, 5);
	set(4, large(4));
	flush();
	return ok;
}

/* The same code at CPL 3, in the upper half too. */
static bool user(void)
{
	bool ok = true;

	for (unsigned k = 0; k < 4; k++) {
		/* First the user keeps to the lower half. */
		if (k % 2 == 0) {
			flush();
			user_alias = USER;
			ok &= !guest_try_user(walk_nothing, 0, 0);
			user_alias = KERNEL + USER;
		}
		ok &= heat(0, NR);
		walk.from = k == 2 ? MAP + 0x1000 : (uptr)&walk + KERNEL + USER;
		walk.count = 50; /* enough to be translated, too little for a verdict on what it misses */
		walk.step = 0;
		ok &= guest_try_user(ways[way].fn, (uptr)&walk + KERNEL + USER, 0) == (k == 2);
		ok &= heat(0, NR);
		walk.from = MAP + 0x1000;
		walk.count = 1;
		ok &= guest_try_user(ways[way].fn, (uptr)&walk + KERNEL + USER, 0) && fault.vector == PF &&
		      fault.error == 5;
	}
	return ok;
}

static bool watched(void)
{
	uptr at = MAP + 9 * LARGE + 0x4000, none = 0x400;
	bool ok = true;

	for (unsigned n = 0; n < 3; n++) {
		uptr dr7 = 0x402 | 8ul << 16 << 2 | 3ul << 16;

		ok &= heat(0, NR);
		__asm__ volatile("mov %0, %%dr6; mov %1, %%dr0; mov %2, %%dr7"
				 :
				 : "r"(0xffff0ff0ul), "r"(at), "r"(dr7));
		ok &= heat(0, 9) && heat(10, NR);
		ok &= reads(at, 1, 0) && fault.vector == DB;
		ok &= !reads(at + 0x100, 1, 0);
		__asm__ volatile("mov %0, %%dr7" : : "r"(none));
		ok &= heat(0, NR);
	}
	return ok;
}

/* What was stored to where code was read from, and the other way around. */
static bool written(void)
{
	bool ok = heat(0, NR);

	for (unsigned n = 0; n < NR; n++) {
		WORD(n, 0x5000) = 1000 + n;
		ok &= reads_word(MAP + n * LARGE + 0x5000, 1000 + n);
		WORD(n, 0x5000) = n + 1;
	}
	return ok;
}

static void build(void)
{
	u32 r[4];

	cpuid(7, 0, r);
	has_smap = r[1] & 1u << 20;
	for (unsigned k = 0; k < 512; k++) {
		guest_pd[k] &= ~U;
		guest_pd[(USER >> 21) + k] = (u64)k << 21 | PS | P | W | U;
	}
	guest_pml4[288] = guest_pml4[0] | U;
	guest_pml4[(MAP >> 39) & 511] = (uptr)map_pdpt | P | W | U | A;
	map_pdpt[0] = (uptr)map_pd | P | W | A;
	for (unsigned n = 0; n < NR; n++) {
		set(n, large(n));
		for (unsigned k = 0; k < 512; k++)
			WORD(n, k * 4096ul) = n + 1;
	}
	write_cr3((uptr)guest_pml4);
	flush();
	wrmsr(0xc0000101, 0);
}

static void all(void)
{
	static const struct {
		const char *name;
		bool (*fn)(void);
	} tests[] = {
		{ "mapped elsewhere", elsewhere },
		{ "forbidden", forbidden },
		{ "its ends", ends },
		{ "accessed bits", accessed },
		{ "SMAP", smap },
		{ "CPL 3", user },
		{ "watched", watched },
		{ "written", written },
	};

	for (way = 0; way < sizeof(ways) / sizeof(ways[0]); way++)
		for (unsigned k = 0; k < sizeof(tests) / sizeof(tests[0]); k++)
			/* Not at its address in the lower half. */
			check(((bool (*)(void))((uptr)tests[k].fn + KERNEL))(), "%s: %s", ways[way].name,
			      tests[k].name);
}

void guest_main(void)
{
	cli();
	user_alias = KERNEL + USER;
	build();
	for (unsigned v = 0; v < 256; v++)
		set_idt(v, guest_vector_table[v] + KERNEL, SEL_CODE, v == VECTOR_USER_RETURN ? 0xee : 0x8e,
			0);
	((void (*)(void))((uptr)all + KERNEL))();
	reset_idt();
}
