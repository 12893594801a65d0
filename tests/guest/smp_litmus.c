/* The order of memory accesses between processors [SDM3 8.2]: litmus tests, a million rounds each. What total store order forbids
 * must not be seen; what it allows (a load that passes an older store) is counted and said, and forbidden again with a
 * fence or a LOCKed instruction between the two.
 *
 * A round has variables of its own. All processors go through the rounds of a batch at the same time, without
 * waiting for each other, and drift: so they meet in all ways. */
#include "lib/smp.h"

#define CPUS    4u
#define BATCH   8192u
#define BATCHES (1048576u / BATCH)
#define CELLS   ((struct cell *)0x2000000ul)

/* Each variable in a line of its own. */
struct cell {
	u64 x, pad_x[7], y, pad_y[7], r[4], pad_r[4];
};

#define X  "0(%0)"
#define Y  "64(%0)"
#define R0 "128(%0)"
#define R1 "136(%0)"
#define R2 "144(%0)"
#define R3 "152(%0)"

#define STORE(var, value) "movq $" #value ", " var ";"
#define LOAD(var, result) "movq " var ", %%rax; movq %%rax, " result ";"
#define SWAP(var, value)  "movl $" #value ", %%eax; xchgq %%rax, " var ";"
#define MFENCE            "mfence;"
#define LOCKED            "lock orl $0, (%%rsp);"

#define BODY(name, text)                                                           \
	static void name(struct cell *c)                                           \
	{                                                                          \
		for (struct cell *end = c + BATCH; c < end; c++)                   \
			__asm__ volatile(text : : "r"(c) : "rax", "cc", "memory"); \
	}

/* Two loads into registers first, so that the stores of the results are not between them. */
#define LOADS(a, b, first, second) \
	"movq " a ", %%rax; movq " b ", %%rdx; movq %%rax, " first "; movq %%rdx, " second ";"
#define BODY2(name, text)                                                                 \
	static void name(struct cell *c)                                                  \
	{                                                                                 \
		for (struct cell *end = c + BATCH; c < end; c++)                          \
			__asm__ volatile(text : : "r"(c) : "rax", "rdx", "cc", "memory"); \
	}

BODY(sb_0, STORE(X, 1) LOAD(Y, R0))
BODY(sb_1, STORE(Y, 1) LOAD(X, R1))
BODY(sb_mfence_0, STORE(X, 1) MFENCE LOAD(Y, R0))
BODY(sb_mfence_1, STORE(Y, 1) MFENCE LOAD(X, R1))
BODY(sb_lock_0, STORE(X, 1) LOCKED LOAD(Y, R0))
BODY(sb_lock_1, STORE(Y, 1) LOCKED LOAD(X, R1))
BODY(sb_xchg_0, SWAP(X, 1) LOAD(Y, R0))
BODY(sb_xchg_1, SWAP(Y, 1) LOAD(X, R1))
BODY(mp_0, STORE(X, 1) STORE(Y, 1))
BODY2(mp_1, LOADS(Y, X, R0, R1))
BODY(lb_0, "movq " X ", %%rax; movq $1, " Y "; movq %%rax, " R0 ";")
BODY(lb_1, "movq " Y ", %%rax; movq $1, " X "; movq %%rax, " R1 ";")
BODY(s_0, STORE(X, 2) STORE(Y, 1))
BODY(s_1, "movq " Y ", %%rax; movq $1, " X "; movq %%rax, " R0 ";")
BODY(w22_0, STORE(X, 1) STORE(Y, 2))
BODY(w22_1, STORE(Y, 1) STORE(X, 2))
BODY(w22_lock_0, STORE(X, 1) LOCKED STORE(Y, 2))
BODY(w22_lock_1, STORE(Y, 1) LOCKED STORE(X, 2))
BODY(iriw_0, STORE(X, 1))
BODY(iriw_1, STORE(Y, 1))
BODY2(iriw_2, LOADS(X, Y, R0, R1))
BODY2(iriw_3, LOADS(Y, X, R2, R3))

static bool both_old(const struct cell *c)
{
	return !c->r[0] && !c->r[1];
}

static bool new_then_old(const struct cell *c)
{
	return c->r[0] == 1 && !c->r[1];
}

static bool both_new(const struct cell *c)
{
	return c->r[0] && c->r[1];
}

static bool overtaken(const struct cell *c)
{
	return c->r[0] == 1 && c->x == 2;
}

static bool both_first(const struct cell *c)
{
	return c->x == 1 && c->y == 1;
}

static bool readers_disagree(const struct cell *c)
{
	return c->r[0] == 1 && !c->r[1] && c->r[2] == 1 && !c->r[3];
}

static const struct litmus {
	const char *name;
	void (*body[CPUS])(struct cell *c);
	bool (*seen)(const struct cell *c);
	bool allowed;
} tests[] = {
	{ "SB", { sb_0, sb_1 }, both_old, true },
	{ "SB with MFENCE", { sb_mfence_0, sb_mfence_1 }, both_old, false },
	{ "SB with LOCK OR", { sb_lock_0, sb_lock_1 }, both_old, false },
	{ "SB with XCHG", { sb_xchg_0, sb_xchg_1 }, both_old, false },
	{ "SB with a fence on one side only", { sb_mfence_0, sb_1 }, both_old, true },
	{ "MP", { mp_0, mp_1 }, new_then_old, false },
	{ "LB", { lb_0, lb_1 }, both_new, false },
	{ "S", { s_0, s_1 }, overtaken, false },
	{ "2+2W", { w22_0, w22_1 }, both_first, false },
	{ "2+2W with LOCK OR", { w22_lock_0, w22_lock_1 }, both_first, false },
	{ "IRIW", { iriw_0, iriw_1, iriw_2, iriw_3 }, readers_disagree, false },
};

static const struct litmus *test;
static volatile u32 next_index;

static u64 seen;

static void job(void)
{
	u32 me = __atomic_fetch_add(&next_index, 1, __ATOMIC_SEQ_CST);

	for (u32 batch = 0; batch < BATCHES; batch++) {
		/* Who does what changes: no processor is always the first. */
		void (*body)(struct cell *) = test->body[(me + batch) % CPUS];

		if (me == 0)
			memset_(CELLS, 0, BATCH * sizeof(struct cell));
		ap_barrier(CPUS);
		if (body)
			body(CELLS);
		ap_barrier(CPUS);
		for (u32 k = 0; me == 0 && k < BATCH; k++)
			seen += test->seen(&CELLS[k]);
	}
}

void guest_main(void)
{
	cli();
	if (!aps_begin(CPUS - 1)) {
		check(false, "the other processors do not start");
		return;
	}
	for (unsigned k = 0; k < sizeof(tests) / sizeof(tests[0]); k++) {
		test = &tests[k];
		next_index = 0;
		seen = 0;
		bool ended = ap_together(job, job);

		if (test->allowed)
			print("%s: the relaxed result, which is allowed, in %llu of %u rounds\n", test->name,
			      seen, BATCH * BATCHES);
		check(ended && (test->allowed || !seen), "%s: %u rounds, %llu with a forbidden result",
		      test->name, BATCH * BATCHES, test->allowed ? 0ull : seen);
	}
}
