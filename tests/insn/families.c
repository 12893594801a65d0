/* insn_families [--seed S] [--states N] [FAMILY]...: runs families of instruction tests, all by default. */
#include <stdlib.h>
#include <string.h>

#include "../engine_env.h"
#include "families.h"

static const struct insn_family families[] = {
#define FAMILY_(name) { #name, family_##name },
	INSN_FAMILIES(FAMILY_)
#undef FAMILY_
};

void insn_try(struct insn_test *t, const char *text, const u8 *code, unsigned len)
{
	unsigned shown = 0;

	if (len > INSN_MAX_CODE) {
		fprintf(stderr, "insn: \"%s\" is too long\n", text);
		exit(1);
	}
	for (unsigned done = 0; done < t->states;) {
		unsigned n = MIN(t->states - done, (unsigned)INSN_BATCH);
		for (unsigned k = 0; k < n; k++) {
			struct insn_case *c = &insn_batch[k];
			static const u8 pointers[] = { R_SI, R_DI, R_BP };
			c->mode = t->mode;
			c->len = len;
			c->loose_cr2 = t->loose_cr2;
			memcpy(c->code, code, len);
			insn_random_state(&t->rng, &c->in);
			for (unsigned p = 0; p < ARRAY_SIZE(pointers); p++) {
				u64 v = insn_rnd(&t->rng);
				c->in.gpr[pointers[p]] = INSN_DATA + 1024 + p * 2048 + (v & 0x3c0) +
							 (v & 0x30000 ? 0 : v >> 20 & 63);
			}
			if (t->setup)
				t->setup(&t->rng, &c->in);
		}
		if (insn_run(n) >= 0)
			exit(1);
		for (unsigned k = 0; k < n; k++) {
			struct insn_case *c = &insn_batch[k];
			t->tried++;
			t->faulted += c->native.vector != INSN_END;
			if (c->native.vector != INSN_ENDLESS && insn_compare(c, NULL))
				continue;
			t->failed++;
			if (shown++ > 0)
				continue;
			printf("%s\n", text);
			insn_compare(c, stdout);
			insn_print_state(&c->in, stdout);
		}
		done += n;
	}
	if (shown)
		printf("%s: %u of %u states differ\n", text, shown, t->states);
}

int main(int argc, char **argv)
{
	u64 seed = 1;
	unsigned states = 48, failed = 0, run = 0;
	int k = 1;

	for (; k + 1 < argc && argv[k][0] == '-'; k += 2) {
		if (!strcmp(argv[k], "--seed"))
			seed = strtoull(argv[k + 1], NULL, 0);
		else if (!strcmp(argv[k], "--states"))
			states = (unsigned)strtoul(argv[k + 1], NULL, 0);
	}
	/* All of it ends; a loop of accesses under a bus lock, which some hosts hold up, only after a second. */
	insn_start("host", 5000);
	for (unsigned f = 0; f < ARRAY_SIZE(families); f++) {
		bool wanted = k >= argc;
		for (int a = k; a < argc; a++)
			wanted |= !strcmp(argv[a], families[f].name);
		if (!wanted)
			continue;
		struct insn_test t = { .mode = INSN_64, .states = states };
		insn_seed(&t.rng, seed);
		families[f].run(&t);
		printf("%-8s %6u runs, %5u of them fault, %u differ (seed %llu, BOTHY_ENGINE=%s)\n",
		       families[f].name, t.tried, t.faulted, t.failed, (unsigned long long)seed,
		       engine_env());
		failed += t.failed;
		run++;
	}
	insn_stop();
	if (!run) {
		fprintf(stderr, "insn: no such family; there are:");
		for (unsigned f = 0; f < ARRAY_SIZE(families); f++)
			fprintf(stderr, " %s", families[f].name);
		fprintf(stderr, "\n");
	}
	return failed || !run;
}
