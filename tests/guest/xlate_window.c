/* Hot accesses through every base register, then a change of what they may reach: the page, the rights, the privilege, what is
 * watched, what is code. The next access through the same register must do what the processor does, whatever an engine
 * keeps by register for accesses that went where the last ones went. [SDM3 4.6, 4.10, 17.2] */
#include "lib/emit.h"
#include "lib/irq.h"
#include "lib/paging.h"

#define FL_AC 0x40000ul

/* The window of 4 KiB pages, in both halves; page n is physical page n at first. Code lies in the first pages. */
#define LOW  0x40000000ul
#define HIGH 0xffff800040000000ul
#define PHYS 0x4000000ul
#define DATA 16u
/* Two large pages of physical memory, and where one of them is mapped. */
#define LARGE      0x50000000ul
#define LARGE_PHYS 0x6000000ul
/* The image is a supervisor's at its own address and the user's here. */
#define ALIAS 0x80000000ul
/* All of the first GiB again: where the supervisor's code runs when it keeps to the upper half. */
#define KERNEL 0xffff900000000000ul

#define PA(n)   (PHYS + (n)*4096ul)
#define SEGBASE 0x12345000ul
#define OFFSET  0x100 /* of the operand in its page */

#define HOT   1100 /* more than an engine may want for a verdict on a loop */
#define SHORT 2

static u64 page_table[512] __attribute__((aligned(4096)));
static u64 high_pdpt[512] __attribute__((aligned(4096)));
static u64 high_pd[512] __attribute__((aligned(4096)));
static bool has_smap, has_invpcid;
static uptr kernel; /* added to addresses of the supervisor's code: 0 or KERNEL */

/* --- routines: one access in a loop --- */

enum kind { READ, WRITE, ADD, GROUP, KINDS };
static const char *const kind_names[] = { "read", "write", "add", "group" };

enum { BASE_RIP = 16, BASE_ABS, BASE_FS, BASE_GS, BASES };
static const char *const base_names[] = {
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9",
	"r10", "r11", "r12", "r13", "r14", "r15", "rip", "abs", "fs", "gs"
};

/* What a routine is given, by RDI. */
struct args {
	u64 pointer, value, count, result;
	uptr code;
};
static struct args args;

/* Enters the code at 32(%rdi); keeps the registers of C. */
__asm__(".text\n"
	"wn_enter: push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"call *32(%rdi)\n"
	"pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"wn_nothing: ret\n");
void wn_enter(uptr args);
void wn_nothing(uptr args);

static u32 routine[KINDS][BASES]; /* offsets in the code */
static uptr at[KINDS][BASES];     /* of the access */

static void rex_w(unsigned reg, unsigned base)
{
	emit8((u8)(0x48 | (reg & 8 ? 4 : 0) | (base & 8 ? 1 : 0)));
}

static void move(unsigned to, unsigned from)
{
	rex_w(from, to);
	emit8(0x89);
	emit8((u8)(0xc0 | (from & 7) << 3 | (to & 7)));
}

/* op reg, disp(base), for a real register */
static void op_disp(u8 op, unsigned reg, unsigned base, u8 disp)
{
	rex_w(reg, base);
	emit8(op);
	emit8((u8)(0x40 | (reg & 7) << 3 | (base & 7)));
	if ((base & 7) == 4)
		emit8(0x24);
	emit8(disp);
}

/* op reg, the operand + disp. The page of data follows the code at the same distance in both halves. */
static void op_data(u8 op, unsigned reg, unsigned base, u8 disp)
{
	if (base < 16) {
		op_disp(op, reg, base, disp);
		return;
	}
	if (base == BASE_FS || base == BASE_GS) {
		emit8(base == BASE_FS ? 0x64 : 0x65);
		op_disp(op, reg, 6, disp); /* RSI */
		return;
	}
	rex_w(reg, 0);
	emit8(op);
	if (base == BASE_RIP) {
		emit8((u8)(5 | (reg & 7) << 3));
		emit_relative(LOW + DATA * 4096 + OFFSET + disp);
	} else {
		emit8((u8)(4 | (reg & 7) << 3));
		emit8(0x25);
		emit32((u32)(LOW + DATA * 4096 + OFFSET + disp));
	}
}

static unsigned other(unsigned base, unsigned reg, unsigned instead)
{
	return base == reg ? instead : reg;
}

static void put_routine(enum kind kind, unsigned base)
{
	unsigned arg = other(base, 7, 8), value = other(base, 2, 3), count = other(base, 1, 12),
		 result = other(base, 0, 13), pointer = base < 16 ? base : 6;
	uptr loop;

	routine[kind][base] = (u32)(emit_here() - LOW);
	if (arg != 7)
		move(arg, 7);
	move(11 + (base == 11) * 4, 4); /* the stack's pointer to R11, or R15 */
	op_disp(0x8b, value, arg, 8);
	op_disp(0x8b, count, arg, 16);
	op_disp(0x8b, pointer, arg, 0);
	emit("\xeb\x00", 2);
	loop = emit_here();
	at[kind][base] = loop - LOW;
	if (kind == READ || kind == GROUP)
		op_data(0x8b, result, base, 0);
	if (kind == WRITE)
		op_data(0x89, value, base, 0);
	if (kind == ADD)
		op_data(0x01, value, base, 0);
	if (kind == GROUP) {
		op_data(0x01, value, base, 8);
		op_data(0x89, value, base, 16);
	}
	emit("\xeb\x00", 2); /* lest it be a loop of one block */
	rex_w(0, count);
	emit8(0xff);
	emit8((u8)(0xc8 | (count & 7))); /* dec */
	emit_jcc(0x5, loop);
	move(4, 11 + (base == 11) * 4);
	op_disp(0x89, result, arg, 24);
	emit8(0xc3);
	while (emit_here() & 15)
		emit8(0x90);
}

static void put_routines(void)
{
	emit_to(PA(0), LOW);
	for (unsigned k = 0; k < KINDS; k++)
		for (unsigned b = 0; b < BASES; b++)
			put_routine(k, b);
}

/* --- running them --- */

struct way {
	enum kind kind;
	unsigned base;
	uptr code, data; /* LOW or HIGH */
};

static uptr data_address(const struct way *w)
{
	if (w->base == BASE_RIP)
		return w->code + DATA * 4096 + OFFSET;
	return (w->base == BASE_ABS ? LOW : w->data) + DATA * 4096 + OFFSET;
}

/* True: it faulted. */
static bool run_at(const struct way *w, bool user, u64 count, u64 value, uptr address)
{
	bool segment = w->base == BASE_FS || w->base == BASE_GS;

	if (segment) {
		u32 msr = w->base == BASE_FS ? 0xc0000100 : 0xc0000101;
		__asm__ volatile("mov %0, %%fs; mov %0, %%gs" : : "r"(0));
		wrmsr(msr, address - SEGBASE);
	}
	args.pointer = segment ? SEGBASE : address;
	args.value = value;
	args.count = count;
	args.result = 0;
	args.code = w->code + routine[w->kind][w->base];
	if (user)
		return guest_try_user(wn_enter, (uptr)&args + ALIAS, 0) && fault.vector != VECTOR_USER_RETURN;
	return guest_try((void (*)(uptr))((uptr)wn_enter + kernel), (uptr)&args);
}

static bool run(const struct way *w, bool user, u64 count, u64 value)
{
	return run_at(w, user, count, value, data_address(w));
}

static volatile u64 *word(unsigned physical, unsigned n)
{
	return (volatile u64 *)(PA(physical) + OFFSET) + n;
}

static void map(unsigned physical, u64 bits)
{
	((volatile u64 *)page_table)[DATA] = PA(physical) | bits;
}

static void fill(unsigned physical, u64 v)
{
	for (unsigned k = 0; k < 3; k++)
		*word(physical, k) = v;
}

/* Is the page, which fill() has given v, what `count` accesses of a value leave? */
static bool is_done(const struct way *w, unsigned physical, u64 v, u64 count, u64 value)
{
	switch (w->kind) {
	case READ: return args.result == v && *word(physical, 0) == v;
	case WRITE: return *word(physical, 0) == value;
	case ADD: return *word(physical, 0) == v + count * value;
	default:
		return args.result == v && *word(physical, 0) == v &&
		       *word(physical, 1) == v + count * value && *word(physical, 2) == value;
	}
}

static bool is_untouched(unsigned physical, u64 v)
{
	return *word(physical, 0) == v && *word(physical, 1) == v && *word(physical, 2) == v;
}

/* The loop has run often on physical page 20, or twice. */
static bool heat(const struct way *w, bool user, u64 count)
{
	bool ok;

	fill(20, 0x1000);
	ok = !run(w, user, count, 3) && is_done(w, 20, 0x1000, count, 3);
	fill(20, 0x2000);
	return ok;
}

/* The access faults at once with that error code, and has done nothing. For a group: of its second access, if only
 * writing is forbidden. */
static bool faults(const struct way *w, bool user, unsigned error)
{
	uptr address = data_address(w), ip = w->code + at[w->kind][w->base];
	bool second = w->kind == GROUP && (error & 3) == 3 && !(error & 0x100);

	error &= 0xff;
	if (w->kind == WRITE || w->kind == ADD)
		error |= 2;
	if (second)
		address += 8;
	else if (w->kind == GROUP || w->kind == READ)
		error &= ~2u;
	fill(20, 0x2000);
	if (!run(w, user, 1, 5) || fault.vector != PF || fault.cr2 != address)
		return false;
	if (w->kind == ADD && on_tcg()) /* which reads first */
		fault.error |= 2;
	if (fault.error != error)
		return false;
	return (second ? fault.ip > ip : fault.ip == ip) && is_untouched(20, 0x2000);
}

static bool works(const struct way *w, bool user)
{
	fill(20, 0x3000);
	return !run(w, user, 1, 7) && is_done(w, 20, 0x3000, 1, 7);
}

static void invpcid(u64 type, u64 address)
{
	struct {
		u64 pcid, address;
	} d = { 0, address };
	__asm__ volatile("invpcid %0, %1" : : "m"(d), "r"(type) : "memory");
}

enum { DROPS = 7 };
static void drop(unsigned how, uptr va)
{
	if (how == 1) {
		write_cr3(read_cr3());
	} else if (how == 2) {
		write_cr4(read_cr4() ^ CR4_PGE);
		write_cr4(read_cr4() ^ CR4_PGE);
	} else if (how > 2 && has_invpcid) {
		invpcid(how - 3, va);
	} else {
		invlpg((void *)va);
	}
}

/* Of what code of either privilege has done in which half, an engine knows nothing any more, once the supervisor is in the
 * upper one. */
static void forget(void)
{
	drop(2, 0);
	guest_try_user(wn_nothing, 0, 0);
}

/* --- what may change --- */

/* RSP as the base: a fault of the supervisor's would push its frame there. */
static bool can_fault(const struct way *w, bool user)
{
	return user || w->base != 4;
}

static bool elsewhere(const struct way *w, bool user, u64 count)
{
	u64 bits = P | W | (user ? U : 0);
	bool ok = true;

	forget();
	for (unsigned d = 0; d < DROPS; d++) {
		map(20, bits);
		drop(d, data_address(w));
		ok &= heat(w, user, count);
		fill(21, 0x4000);
		map(21, bits);
		drop(d, data_address(w));
		ok &= !run(w, user, 1, 9) && is_done(w, 21, 0x4000, 1, 9) && is_untouched(20, 0x2000);
	}
	return ok;
}

static bool forbidden(const struct way *w, bool user, u64 count)
{
	bool ok = true;

	forget();
	if (!can_fault(w, user))
		return true;
	for (unsigned d = 0; d < DROPS; d++) {
		map(20, P | W | U);
		drop(d, data_address(w));
		ok &= heat(w, user, count);
		map(20, W | U);
		drop(d, data_address(w));
		ok &= faults(w, user, user ? 4 : 0);
		map(20, P | U); /* CR0.WP is set */
		ok &= w->kind == READ ? works(w, user) : faults(w, user, user ? 7 : 3);
		map(20, P | W | U);
		drop(d, data_address(w));
		ok &= heat(w, user, count);
		map(20, P | U);
		drop(d, data_address(w));
		ok &= w->kind == READ ? works(w, user) : faults(w, user, user ? 7 : 3);
		map(20, P | W | U); /* a fault has dropped what forbade it [SDM3 4.10.4.1] */
		ok &= works(w, user);
	}
	return ok;
}

static bool write_protect(const struct way *w, u64 count)
{
	bool ok = true;

	forget();
	if (!can_fault(w, false))
		return true;
	for (unsigned n = 0; n < 2; n++) {
		write_cr0(read_cr0() & ~CR0_WP);
		map(20, P);
		drop(0, data_address(w));
		ok &= heat(w, false, count);
		write_cr0(read_cr0() | CR0_WP);
		ok &= w->kind == READ ? works(w, false) : faults(w, false, 3);
	}
	map(20, P | W);
	drop(0, data_address(w));
	return ok;
}

/* The same code and register at CPL 0 and CPL 3. */
static bool privilege(const struct way *w, u64 count)
{
	bool ok = true;

	forget();
	map(20, P | W);
	drop(0, data_address(w));
	for (unsigned n = 0; n < 3; n++) {
		ok &= heat(w, false, count);
		ok &= faults(w, true, 0x105);
		ok &= works(w, false);
	}
	map(20, P | W | U);
	drop(0, data_address(w));
	ok &= heat(w, true, count);
	map(20, P | W);
	drop(1, data_address(w));
	ok &= heat(w, false, count) && faults(w, true, 0x105);
	return ok;
}

static void set_ac(bool on)
{
	if (on)
		__asm__ volatile("stac" : : : "memory");
	else
		__asm__ volatile("clac" : : : "memory");
}

static bool smap(const struct way *w, u64 count)
{
	bool ok = true;

	forget();
	if (!has_smap || !can_fault(w, false))
		return true;
	map(20, P | W | U);
	drop(0, data_address(w));
	write_cr4(read_cr4() | CR4_SMAP);
	for (unsigned n = 0; n < 3; n++) {
		ok &= heat(w, true, count); /* the user's */
		ok &= faults(w, false, 0x101);
		set_ac(true);
		ok &= heat(w, false, count);
		set_ac(false);
		ok &= faults(w, false, 0x101);
		ok &= works(w, true);
		/* The supervisor's own page, then the user's again. */
		map(20, P | W);
		drop(0, data_address(w));
		set_ac(n & 1);
		ok &= heat(w, false, count);
		set_ac(false);
		ok &= works(w, false) && faults(w, true, 0x105);
		map(20, P | W | U);
		drop(0, data_address(w));
		ok &= faults(w, false, 0x101);
	}
	write_cr4(read_cr4() & ~CR4_SMAP);
	ok &= heat(w, false, count);
	write_cr4(read_cr4() | CR4_SMAP);
	ok &= faults(w, false, 0x101);
	write_cr4(read_cr4() & ~CR4_SMAP);
	return ok;
}

/* The accessed and dirty bits are set by the next access that wants them, and by no other. */
static bool bits(const struct way *w, bool user, u64 count)
{
	volatile u64 *entry = &page_table[DATA];
	u64 rights = P | W | (user ? U : 0), want = w->kind == READ ? A : A | D;
	bool ok = true;

	forget();
	map(20, rights);
	drop(0, data_address(w));
	for (unsigned n = 0; n < 2 * DROPS; n++) {
		ok &= heat(w, user, count) && (*entry & (A | D)) == want;
		*entry &= ~(n & 1 ? D : A | D);
		drop(n / 2, data_address(w));
		ok &= (*entry & (A | D)) == (n & 1 ? A : 0);
		ok &= works(w, user) && (*entry & (A | D)) == want;
	}
	return ok;
}

/* A data breakpoint on what is hot, of both kinds, on the page and beside the operand. */
static bool watched(const struct way *w, bool user, u64 count)
{
	uptr address = data_address(w), zero = 0;
	bool ok = true;

	forget();
	if (!can_fault(w, user))
		return true;
	map(20, P | W | (user ? U : 0));
	drop(0, address);
	for (unsigned n = 0; n < 3; n++) {
		/* any access to it; writes; any access to the next operand but one's end */
		uptr dr0 = address + (n == 2 ? 24 : 0),
		     dr7 = 0x402 | 8ul << 16 << 2 | (n == 1 ? 1ul : 3ul) << 16;
		bool want = n < 2 && (n == 0 || w->kind == WRITE || w->kind == ADD);

		ok &= heat(w, user, count);
		__asm__ volatile("mov %0, %%dr6; mov %1, %%dr0; mov %2, %%dr7"
				 :
				 : "r"(0xffff0ff0ul), "r"(dr0), "r"(dr7));
		bool hit = run(w, user, 1, 5);
		__asm__ volatile("mov %0, %%dr7" : : "r"(zero | 0x400));
		ok &= want ? hit && fault.vector == DB && fault.ip > w->code + at[w->kind][w->base] : !hit;
		ok &= heat(w, user, count);
	}
	return ok;
}

/* The page is executed through its own address and then written through the register. */
static bool code(const struct way *w, bool user, u64 count)
{
	typedef u64 (*code_fn)(void);
	code_fn fn = (code_fn)(kernel + PA(20) + OFFSET - 2);
	bool ok = true;

	forget();
	if (w->kind == READ || w->kind == GROUP)
		return true;
	map(20, P | W | (user ? U : 0));
	drop(0, data_address(w));
	for (u64 n = 1; n < 4; n++) {
		ok &= heat(w, user, count);
		/* mov $imm64, %rax; ret */
		emit_at(PA(20) + OFFSET - 2);
		emit("\x48\xb8\x00\x20\x00\x00\x00\x00\x00\x00\xc3", 11);
		for (unsigned k = 0; k < (n & 1 ? 100u : 1u); k++)
			ok &= fn() == 0x2000;
		ok &= !run(w, user, 1, 0x55 * n);
		ok &= fn() == (w->kind == ADD ? 0x2000 : 0) + 0x55 * n;
		ok &= !run(w, user, 1, 0x77 * n);
		ok &= fn() == (w->kind == ADD ? 0x2000 + 0x55 * n : 0) + 0x77 * n;
	}
	return ok;
}

/* A 2 MiB page that is mapped elsewhere: INVLPG of another address in it drops all of it. */
static bool large(const struct way *w, bool user, u64 count)
{
	volatile u64 *entry = &guest_pd[LARGE >> 21];
	uptr address = LARGE + 0x5000 + OFFSET;
	volatile u64 *here = (volatile u64 *)(LARGE_PHYS + 0x5000 + OFFSET), *there = here + 0x200000 / 8;
	u64 b = PS | P | W | (user ? U : 0);
	bool ok = true;

	forget();
	if (w->base == BASE_RIP || w->base == BASE_ABS || w->kind == GROUP)
		return true;
	for (unsigned n = 0; n < 4; n++) {
		*entry = LARGE_PHYS | b;
		drop(1, 0);
		*here = 0x1000;
		*there = 0x2000;
		ok &= !run_at(w, user, count, 3, address);
		*entry = (LARGE_PHYS + 0x200000) | b;
		invlpg((void *)(LARGE + (n & 1 ? 0x1ff000 : 0)));
		*here = 0x1000;
		ok &= !run_at(w, user, 1, 5, address) && *here == 0x1000;
		ok &= w->kind == READ  ? args.result == 0x2000
		      : w->kind == ADD ? *there == 0x2005
				       : *there == 5;
	}
	*entry = 0;
	drop(1, 0);
	return ok;
}

static void way(const struct way *w)
{
	const char *half = w->code == LOW ? "low" : "high", *to = data_address(w) >> 63 ? "high" : "low";
	unsigned changes = 0, bad[10] = { 0 };

	for (unsigned k = 0; k < 2; k++) {
		u64 count = k ? SHORT : HOT;

		for (unsigned user = 0; user < 2; user++) {
			bad[0] += !elsewhere(w, user, count);
			bad[1] += !forbidden(w, user, count);
			bad[2] += !bits(w, user, count);
			bad[3] += !watched(w, user, count);
			bad[4] += !code(w, user, count);
			bad[5] += w->data == LOW && !large(w, user, count);
		}
		bad[6] += !write_protect(w, count);
		bad[7] += !privilege(w, count);
		bad[8] += !smap(w, count);
	}
	for (unsigned k = 0; k < 9; k++)
		changes += bad[k];
	check(!changes,
	      "%s by %s, %s code, %s data, %s kernel: mapped elsewhere %u, forbidden %u, A and D %u, watched %u, code %u, large %u, WP %u, CPL %u, SMAP %u wrong",
	      kind_names[w->kind], base_names[w->base], half, to, kernel ? "high" : "low", bad[0], bad[1],
	      bad[2], bad[3], bad[4], bad[5], bad[6], bad[7], bad[8]);
}

/* --- code that changes itself when it has gone elsewhere often --- */

/* An engine may give up what it made of code whose accesses go to and fro, in the middle of it. With the access that makes
 * it do so, the code is changed behind the access; which one that is it is to be found out. */
static void fickle(void)
{
	typedef u64 (*code_fn)(uptr to, u32 v);
	unsigned bad = 0;

	/* around what engine options make of it */
	for (unsigned k = 0; k < 8; k++) {
		uptr here = PHYS + 0x100000 + k * 256;
		unsigned often = (k < 4 ? 4096 : 24 * 4096) - 2 + k % 4;
		code_fn fn = (code_fn)here;

		emit_at(here);
		emit("\x89\x37\x90\xb8\x00\x00\x00\x00\xc3",
		     9); /* mov %esi, (%rdi); nop; mov $imm, %eax; ret */
		for (unsigned n = 0; n < 2000; n++)
			bad += fn(PA(20), n) != 0;
		for (unsigned n = 0; n < often; n++)
			bad += fn(PA(20 + n % 2), n) != 0;
		bad += fn(here + 4, 77) != 77;
		bad += fn(PA(20), 1) != 77;
	}
	check(!bad, "code that goes to and fro and then changes itself: %u wrong", bad);
}

/* --- */

static void build(void)
{
	u32 r[4];

	cpuid(7, 0, r);
	has_smap = r[1] & 1u << 20;
	has_invpcid = r[1] & 1u << 10;
	for (unsigned k = 0; k < 512; k++) {
		guest_pd[k] &= ~U;
		guest_pd[(ALIAS >> 21) + k] = (u64)k << 21 | PS | P | W | U;
		page_table[k] = PA(k) | P | W | (k < DATA ? U : 0);
	}
	guest_pd[LOW >> 21] = (uptr)page_table | P | W | U;
	high_pd[0] = (uptr)page_table | P | W | U;
	high_pdpt[1] = (uptr)high_pd | P | W | U;
	guest_pml4[256] = (uptr)high_pdpt | P | W | U;
	guest_pml4[288] = guest_pml4[0];
	write_cr3((uptr)guest_pml4);
	write_cr0(read_cr0() | CR0_WP);
}

static void ways(void)
{
	static const uptr halves[] = { LOW, HIGH };

	for (unsigned b = 0; b < BASES; b++)
		for (unsigned k = 0; k < KINDS; k++)
			for (unsigned h = 0; h < 4; h++) {
				struct way w = { k, b, halves[h & 1], halves[h >> 1] };

				if (h >= 2 && b >= 16)
					continue;
				way(&w);
			}
}

void guest_main(void)
{
	cli();
	user_alias = ALIAS;
	build();
	put_routines();
	ways();
	/* Linux and its like */
	kernel = KERNEL;
	for (unsigned v = 0; v < 256; v++)
		set_idt(v, guest_vector_table[v] + KERNEL, SEL_CODE, v == VECTOR_USER_RETURN ? 0xee : 0x8e,
			0);
	((void (*)(void))((uptr)ways + KERNEL))();
	kernel = 0;
	reset_idt();
	fickle();
}
