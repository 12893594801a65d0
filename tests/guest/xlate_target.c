/* Indirect calls and jumps that go to one place for long, so that an engine may expect them there, and then elsewhere: to
 * another place in their page, before or after it, in another page, to what is not canonical [SDM1 3.3.7.1]; targets that are
 * written to, or mapped elsewhere, meanwhile. And the same to what is not canonical from the beginning. */
#include "lib/guest.h"
#include "lib/emit.h"
#include "lib/paging.h"

#define AREA 0x4000000ul
/* A page that is mapped by itself. */
#define WINDOW 0x40000000ul
#define WARM   200

static u64 page_table[512] __attribute__((aligned(4096)));

/* The target; what the stack pointer was before the CALL that faults. */
static volatile u64 target;
static u64 number;

/* --- sites: functions that go to `target`, whose address is in RDI, and return what that returns, perhaps plus 1 --- */

static const struct site {
	const char *name, *code;
	u8 bytes, at, one; /* at: where the jump or call is; one: it adds 1 */
} sites[] = {
	{ "CALL of memory", "\x53\xff\x17\x83\xc0\x01\x5b\xc3", 8, 1, 1 },
	{ "CALL of a register", "\x48\x8b\x07\xff\xd0\x83\xc0\x01\xc3", 9, 3, 1 },
	{ "CALL of R9 after pushes", "\x53\x55\x4c\x8b\x0f\x41\xff\xd1\x5d\x5b\xc3", 11, 5, 0 },
	{ "JMP through memory", "\x48\x89\xf8\xff\x27", 5, 3, 0 },
	{ "JMP to a register", "\x48\x8b\x07\xff\xe0", 5, 3, 0 },
	{ "flags across a CALL", "\x39\xc0\xff\x17\x0f\x93\xc2\x0f\xb6\xd2\x01\xd0\xc3", 13, 2, 1 },
};

#define SITE (AREA + 0x800)

static void put_site(const struct site *s)
{
	emit_at(SITE);
	emit(s->code, s->bytes);
}

static void put_target(uptr at, u32 returns)
{
	emit_at(at);
	emit8(0xb8); /* mov $returns, %eax */
	emit32(returns);
	emit8(0xc3);
}

static u64 go(u64 to)
{
	target = to;
	return ((u64(*)(volatile u64 *))SITE)(&target) & 0xffffffff;
}

static void try_it(uptr to)
{
	number = go(to);
}

/* --- */

/* In its page before and after the site, in others; each returns its own number. */
static const uptr places[] = { AREA + 0x10, AREA + 0xc00, AREA + 0x1800, AREA - 0x1000, WINDOW + 0x40 };
static const u64 wild[] = { 0x0000800000000000, 0xffff7fffffffffff, 0x12345678abcdef00 };
#define NR(a) (sizeof(a) / sizeof((a)[0]))

static void put_all(const struct site *s)
{
	put_site(s);
	for (unsigned k = 0; k < NR(places); k++)
		put_target(places[k] == WINDOW + 0x40 ? AREA + 0x3040 : places[k], 100 * k + 7);
}

static bool goes(const struct site *s, unsigned place, unsigned times)
{
	bool ok = true;

	while (times--)
		ok &= go(places[place]) == 100 * place + 7 + s->one;
	return ok;
}

static bool faults(const struct site *s, u64 to)
{
	return guest_try(try_it, to) && fault.vector == GP && fault.error == 0 && fault.ip == SITE + s->at;
}

static void one_site(const struct site *s)
{
	bool ok = true;

	for (unsigned first = 0; first < NR(places); first++) {
		for (unsigned second = 0; second < NR(places); second++) {
			put_all(s);
			ok &= goes(s, first, WARM) && goes(s, second, 1) && goes(s, first, 2) &&
			      goes(s, second, WARM) && goes(s, first, 3);
		}
	}
	check(ok, "%s: to one place for long, then to another", s->name);

	ok = true;
	for (unsigned first = 0; first < NR(places); first++) {
		for (unsigned k = 0; k < NR(wild); k++) {
			put_all(s);
			ok &= goes(s, first, WARM) && faults(s, wild[k]) && goes(s, first, 2);
		}
	}
	check(ok, "%s: to one place for long, then to what is not canonical", s->name);

	ok = true;
	for (unsigned k = 0; k < NR(wild); k++) {
		put_all(s);
		for (unsigned n = 0; n < WARM; n++)
			ok &= faults(s, wild[k]);
		ok &= goes(s, 0, 2);
	}
	check(ok, "%s: to what is not canonical each time", s->name);

	ok = true;
	for (unsigned place = 0; place < NR(places) - 1; place++) {
		put_all(s);
		ok &= goes(s, place, WARM);
		put_target(places[place], 5555);
		ok &= go(places[place]) == 5555u + s->one;
	}
	check(ok, "%s: the target is written to", s->name);

	put_all(s);
	put_target(AREA + 0x4040, 7777);
	ok = goes(s, 4, WARM);
	for (unsigned n = 0; n < 20; n++) {
		((volatile u64 *)page_table)[0] = (n & 1 ? AREA + 0x3000 : AREA + 0x4000) | P | W;
		invlpg((void *)WINDOW);
		ok &= go(WINDOW + 0x40) == (n & 1 ? 407u : 7777u) + s->one;
	}
	check(ok, "%s: the target is mapped elsewhere", s->name);
}

void guest_main(void)
{
	((volatile u64 *)page_table)[0] = (AREA + 0x3000) | P | W;
	guest_pd[WINDOW >> 21] = (u64)(uptr)page_table | P | W;
	write_cr3(read_cr3());
	for (unsigned k = 0; k < NR(sites); k++)
		one_site(&sites[k]);
}
