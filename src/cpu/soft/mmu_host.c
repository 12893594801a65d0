/* Memory for the TLBs of one vCPU (mmu.c): allocated once, of fixed size. Main thread, while the vCPU
 * does not run. */
#include "cpu/soft/mmu.h"

#include <errno.h>
#include <stdlib.h>

#include "base/err.h"

static void table_init(struct tlb_table *t)
{
	for (unsigned k = 0; k < TLB_SIZE; k++)
		t->e[k] = (struct tlb_entry){ TLB_NEVER, TLB_NEVER, 0, 0 };
}

static void code_init_tables(struct soft_cpu *c, struct tlb_code t[2])
{
	for (unsigned m = 0; m < 2; m++) {
		tlb_code_changed(c, &t[m]);
		for (unsigned k = 0; k < TLB_CODE_SIZE; k++)
			t[m].key[k] = TLB_NEVER;
	}
}

int mmu_init(struct soft_cpu *c, struct err *err)
{
	c->asids = calloc(TLB_NR_ASIDS, sizeof(*c->asids));
	c->upper = calloc(TLB_NR_MODES, sizeof(*c->upper));
	c->upper_code = calloc(2, sizeof(*c->upper_code));
	c->no_tlb = calloc(1, sizeof(*c->no_tlb));
	c->tlb2 = calloc(1u << TLB2_BITS, sizeof(*c->tlb2));
	c->rev = calloc((1u << TLB_REV_BITS) * TLB_REV_WAYS, sizeof(*c->rev));
	if (!c->asids || !c->upper || !c->upper_code || !c->no_tlb || !c->tlb2 || !c->rev) {
		mmu_fini(c);
		return err_set(err, -ENOMEM, "no memory for the translation caches of a virtual CPU");
	}
	table_init(c->no_tlb);
	code_init_tables(c, c->upper_code);
	code_init_tables(c, c->asids[0].code);
	for (unsigned m = 0; m < TLB_NR_MODES; m++) {
		table_init(&c->upper[m]);
		table_init(&c->asids[0].half[m]);
	}
	/* Few guests use them all: the others are made by the flush before their first use, which is to clear everything. */
	for (unsigned k = 1; k < TLB_NR_ASIDS; k++) {
		for (unsigned m = 0; m < TLB_NR_MODES; m++)
			c->asids[k].half[m].used = TLB_LIST + 1;
		for (unsigned m = 0; m < 2; m++)
			c->asids[k].code[m].nr = TLB_CODE_LIST + 1;
	}
	for (unsigned k = 0; k < (1u << TLB_REV_BITS) * TLB_REV_WAYS; k++) {
		c->rev[k].page = ~0ull;
		for (unsigned n = 0; n < ARRAY_SIZE(c->rev[k].loc); n++)
			c->rev[k].loc[n] = TLB_REV_FREE;
	}
	for (unsigned k = 0; k < TLB_NR_ASIDS; k++)
		c->asids[k].gen = ++c->gen;
	c->gen_global = ++c->gen;
	c->asid = &c->asids[0];
	c->asid->valid = true;
	c->maxphy_mask = BIT(52) - BIT(c->vcpu->vm->cpuid.maxphyaddr);
	tlb_drop_windows(c, 0, 0);
	mmu_select(c);
	return 0;
}

void mmu_fini(struct soft_cpu *c)
{
	free(c->asids);
	free(c->upper);
	free(c->upper_code);
	free(c->no_tlb);
	free(c->tlb2);
	free(c->rev);
	c->asids = c->asid = NULL;
	c->upper = c->no_tlb = NULL;
	c->upper_code = NULL;
	c->rev = NULL;
	c->tlb2 = NULL;
	c->tlb[0] = c->tlb[1] = NULL;
}
