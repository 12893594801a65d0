/* insn_random [--count N] [--seed S] [--only K] [--cpu MODEL] [--failures N] [--without MNEMONIC]...: random sequences of instructions (gen.c) on the host CPU and on the engine,
 * until at least N instructions have run. The first difference is cut down to one instruction where that is
 * possible, and printed with the command that shows it again.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../engine_env.h"
#include "base/os.h"
#include "gen.h"

static struct gen_seq seqs[INSN_BATCH];

static u64 case_seed(u64 seed, u64 k)
{
	return seed * 0x9e3779b97f4a7c15ull + k;
}

/* How many instructions of the sequence were begun, as far as the end tells. */
static unsigned executed(const struct insn_case *c, const struct gen_seq *s)
{
	u64 at = c->native.state.rip - INSN_CODE;
	unsigned n = 0;
	while (n < s->n && s->body[n] < at)
		n++;
	return n ? n : 1;
}

static void print_code(const struct insn_case *c, unsigned from)
{
	for (unsigned at = from; at < c->len;) {
		char text[128];
		unsigned n =
			insn_disasm(c->code + at, c->len - at, c->mode, INSN_CODE + at, text, sizeof(text));
		printf("  %08llx ", INSN_CODE + at);
		n = n ? n : 1;
		for (unsigned k = 0; k < 15; k++)
			printf(k < n ? "%02x" : "  ", k < n ? c->code[at + k] : 0);
		printf(" %s\n", text);
		at += n;
	}
}

/* Runs one case of its own, in place 0 of the batch. */
static bool agrees(const struct insn_case *c)
{
	insn_batch[0] = *c;
	insn_run(1);
	return insn_compare(&insn_batch[0], NULL);
}

static void print_failure(const struct insn_case *bad, const struct gen_seq *s)
{
	static struct insn_case original, c, single;
	unsigned n = 1;

	original = c = *bad;
	for (; n < s->n; n++) { /* the shortest beginning that differs */
		c.len = s->end[n - 1];
		if (!agrees(&c))
			break;
	}
	c.len = s->end[n - 1];
	/* The same from the state right before its last instruction, at the same address. */
	single = c;
	single.len = s->body[n - 1];
	bool before = agrees(&single) && insn_batch[0].native.vector == INSN_END &&
		      insn_batch[0].native.state.rip == INSN_CODE + single.len + 1;
	if (before) {
		single.in = insn_batch[0].native.state;
		single.in.flags &= FL_ARITH | FL_DF;
		single.len = c.len;
		memset(single.code, 0x90, s->body[n - 1]);
		before = !agrees(&single);
	}
	bool again = before || !agrees(&c);
	const struct insn_case *shown = &insn_batch[0];
	if (!again) {
		printf("a second run of the same agrees; the first:\n");
		shown = &original;
	}
	printf("%u-bit code, instruction %u of the sequence%s:\n", c.mode == INSN_64 ? 64 : 32, n,
	       before ? ", alone" : "; it takes the ones before");
	print_code(shown, before ? s->body[n - 1] : 0);
	insn_compare(shown, stdout);
	printf("both from:\n");
	insn_print_state(&shown->in, stdout);
	printf("host after (vector %d):\n", shown->native.vector);
	insn_print_state(&shown->native.state, stdout);
}

int main(int argc, char **argv)
{
	u64 count = 1000000, seed = os_realtime_ns() / 1000, only = ~0ull, done = 0, k = 0, faults = 0;
	const char *model = "host";
	unsigned failed = 0, max_failed = 1;
	u64 t0 = os_now_ns();

	for (int a = 1; a + 1 < argc; a += 2) {
		u64 v = strtoull(argv[a + 1], NULL, 0);
		if (!strcmp(argv[a], "--count"))
			count = v;
		else if (!strcmp(argv[a], "--seed"))
			seed = v;
		else if (!strcmp(argv[a], "--only"))
			only = v;
		else if (!strcmp(argv[a], "--cpu"))
			model = argv[a + 1];
		else if (!strcmp(argv[a], "--failures"))
			max_failed = (unsigned)v;
	}
	printf("seed %" PRIu64 "\n", seed);
	fflush(stdout);
	insn_start(model, 100);
	gen_init();
	for (int a = 1; a + 1 < argc; a += 2)
		if (!strcmp(argv[a], "--without") && !gen_exclude(argv[a + 1])) {
			fprintf(stderr, "insn_random: \"%s\" is no instruction\n", argv[a + 1]);
			return 1;
		}
	if (only != ~0ull)
		k = only;
	while (done < count && failed < max_failed) {
		unsigned n = only != ~0ull ? 1 : INSN_BATCH;
		u64 first = k;
		for (unsigned b = 0; b < n; b++)
			gen_case(case_seed(seed, k++), &insn_batch[b], &seqs[b]);
		int dead = insn_run(n);
		if (dead >= 0) {
			printf("sequence %" PRIu64
			       " ends the process that runs it: BOTHY_ENGINE=%s insn_random --cpu %s --seed %" PRIu64
			       " --only %" PRIu64 "\n",
			       first + (unsigned)dead, engine_env(), model, seed, first + (unsigned)dead);
			print_code(&insn_batch[dead], 0);
			return 1;
		}
		unsigned bad = n;
		for (unsigned b = 0; b < n; b++) {
			done += executed(&insn_batch[b], &seqs[b]);
			faults += insn_batch[b].native.vector != INSN_END;
			if (bad == n && !insn_compare(&insn_batch[b], NULL))
				bad = b;
		}
		if (bad < n) {
			failed++;
			printf("sequence %" PRIu64
			       " differs; again with: BOTHY_ENGINE=%s insn_random --cpu %s --seed %" PRIu64
			       " --only %" PRIu64 "\n",
			       first + bad, engine_env(), model, seed, first + bad);
			print_failure(&insn_batch[bad], &seqs[bad]);
		}
		if (only != ~0ull)
			break;
	}
	insn_stop();
	printf("%" PRIu64 " instructions in %" PRIu64 " sequences (%" PRIu64
	       " ended by a fault), %u differ, %.1f s\n",
	       done, k, faults, failed, (double)(os_now_ns() - t0) / 1e9);
	return failed != 0;
}
