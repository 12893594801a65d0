/* What the software engine counts, as rows for the table of exits. What the vCPUs share is counted once, and shown
 * with the first. Any thread: figures may be slightly old. */
#include "cpu/soft/code.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/jit/lockstep.h"
#include "cpu/soft/soft_stats.h"
#include "vm/engine.h"

struct rows {
	struct engine_stat *row;
	unsigned n;
};

static void add(struct rows *r, const char *name, u64 value)
{
	if (r->n < ENGINE_MAX_STATS)
		r->row[r->n++] = (struct engine_stat){ name, value };
}

static void add_shared(struct rows *r, const struct soft_vm *s)
{
	const struct code_cache *code = s->code;
	const struct jit *j = s->jit;

	add(r, "blocks_decoded", code->nr_blocks);
	add(r, "blocks_dropped_by_writes", code->nr_invalidated);
	add(r, "block_regions_evicted", code->nr_evicted);
	add(r, "block_regions", code->use.nr);
	add(r, "block_regions_added", code->use.nr_grown);
	add(r, "all_blocks_dropped", code->nr_flushes);
	add(r, "pages_no_longer_tracked", code->nr_restless);
	add(r, "pages_tracked_again", code->nr_calm);
	add(r, "blocks_found_changed", code->nr_changed);
	if (!j)
		return;

	add(r, "translations", j->nr_translated);
	add(r, "instructions_translated", j->nr_insns);
	add(r, "translations_dropped", j->nr_dropped);
	add(r, "regions_evicted", j->nr_evicted);
	add(r, "regions", j->use.nr);
	add(r, "regions_added", j->use.nr_grown);
	add(r, "translated_code_bytes", jit_code_bytes(j));
	add(r, "jumps_linked", j->nr_links);
}

static void add_jit(struct rows *r, const struct jit_cpu *j)
{
	add(r, "entries_to_translated_code", j->nr_entries);
	add(r, "single_instructions_interpreted", j->nr_steps);
	add(r, "block_ends_interpreted", j->nr_bails);
	add(r, "indirect_jumps_not_found", j->nr_misses);
}

unsigned soft_stats(struct vcpu *vcpu, struct engine_stat ret[ENGINE_MAX_STATS])
{
	const struct soft_cpu *c = vcpu->engine;
	struct rows r = { .row = ret };

	if (vcpu->id == 0)
		add_shared(&r, c->svm);
	/* Hits of the first level are not counted: that would cost as much as they do. */
	add(&r, "tlb_level1_misses", c->nr_misses);
	add(&r, "tlb_level2_hits", c->nr_misses - c->nr_walks);
	add(&r, "page_walks", c->nr_walks);
	add(&r, "tlb_flushes", c->nr_flushes);
	add(&r, "windows_moved", c->nr_windows);
	if (c->jit)
		add_jit(&r, c->jit_cpu);
	if (c->lockstep) {
		add(&r, "lockstep_compared", c->lockstep->nr_equal);
		add(&r, "lockstep_compared_again", c->lockstep->nr_again);
		add(&r, "lockstep_not_repeatable", c->lockstep->nr_once);
		add(&r, "lockstep_long_loops", c->lockstep->nr_long);
		add(&r, "lockstep_interrupted", c->lockstep->nr_interrupted);
	}
	return r.n;
}
