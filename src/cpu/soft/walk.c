/* The page walk [SDM3 chapter 4].
 *
 * Models: no paging, 32-bit paging with 4 MiB pages and PSE-36, PAE paging (its four PDPTEs come from
 * registers), 4-level paging with 2 MiB and 1 GiB pages; the rights by U/S, R/W, XD, CR0.WP, SMEP, SMAP;
 * reserved bits; accessed and dirty bits.
 *
 * How: the entries are read top down, each once, by one aligned load; nothing is written until present,
 * reserved and protection checks have all passed, so a walk that faults changes nothing [SDM3 4.8 leaves that
 * open]. Then the missing A and D bits are set by compare-and-swap, top down; an entry that changed
 * meanwhile (another processor, or a device) starts the walk again, as it would in hardware.
 *
 * A table entry that does not lie in RAM reads as all ones, as where no device answers, and is not written:
 * page tables in a device's registers do not work on this machine. All addresses pass the gate of A20 here, behind which they
 * are kept in TLBs; it costs what runs from there nothing, and whoever moves it has all of that flushed. An entry in ROM keeps its A and D bits and
 * is used as if they were set. Omitted: 5-level paging and protection keys, which CPUID does not offer.
 *
 * On the vCPU's thread; compiled with general registers only. */
#include "cpu/soft/walk.h"

#include "x86/cpuid.h"

#define ADDR_MASK 0x000ffffffffff000ull

struct entry {
	void *host; /* NULL: not in RAM */
	gpa_t gpa;
	u64 val;
};

/* What one of the three formats is made of. */
struct format {
	unsigned levels;
	unsigned index_bits;
	unsigned size; /* bytes of an entry */
	u64 rsvd;      /* at every level */
};

static void entry_read(const struct soft_cpu *c, struct entry *e, gpa_t gpa, unsigned size)
{
	gpa = ram_gate(c->ram, gpa);
	e->gpa = gpa;
	e->host = ram_ptr(c->ram, gpa, size);
	if (unlikely(!e->host))
		e->val = bits_mask(size);
	else if (size == 8)
		e->val = __atomic_load_n((u64 *)e->host, __ATOMIC_RELAXED);
	else
		e->val = __atomic_load_n((u32 *)e->host, __ATOMIC_RELAXED);
}

/* Sets bits in the entry; false when it is not any more what was read. */
static bool entry_mark(struct soft_cpu *c, const struct entry *e, unsigned size, u64 bits)
{
	if (likely((e->val & bits) == bits) || !e->host || ram_is_rom(c->ram, e->gpa))
		return true;
	u64 want = e->val | bits;
	u64 old64 = e->val;
	u32 old32 = (u32)e->val;
	bool same = size == 8 ? __atomic_compare_exchange_n((u64 *)e->host, &old64, want, false,
							    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)
			      : __atomic_compare_exchange_n((u32 *)e->host, &old32, (u32)want, false,
							    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	if (same) {
		ram_mark_dirty(c->ram, e->gpa, size);
		walk_code_written(c, e->gpa, size);
	}
	return same;
}

/* Is this entry at level (0 = page table) the last one; *rsvd grows by what must then be 0, or
 * may not be set at all. */
static bool is_leaf(const struct soft_cpu *c, const struct format *f, unsigned level, u64 val, u64 *rsvd)
{
	if (level == 0)
		return true;
	if (f->size == 4) { /* [SDM3 table 4-4] */
		if (!(val & PTE_PS) || !(c->cr4 & CR4_PSE))
			return false;
		/* Bits 20..13 are address bits 39..32 as far as there are such; bit 21 is reserved. */
		u64 high = soft_has(c, X86_FEATURE_PSE36) ? ~c->maxphy_mask >> 32 & 0xff : 0;
		*rsvd |= BIT(21) | ((0xff & ~high) << 13);
		return true;
	}
	if (level == 3 || (level == 2 && !soft_has(c, X86_FEATURE_PDPE1GB))) {
		*rsvd |= PTE_PS;
		return false;
	}
	if (!(val & PTE_PS))
		return false;
	*rsvd |= level == 2 ? 0x3fffe000 : 0x1fe000; /* bit 12 is PAT */
	return true;
}

static unsigned page_rights(const struct soft_cpu *c, enum tlb_mode mode, u64 all, bool nx)
{
	unsigned r = 0;
	if (mode == TLB_USER) {
		if (all & PTE_U)
			r = ACC_R | (all & PTE_W ? ACC_W : 0) | (nx ? 0 : ACC_X);
		return r;
	}
	if (!(all & PTE_U) || mode != TLB_SUP || !(c->cr4 & CR4_SMAP))
		r = ACC_R | (all & PTE_W || !(c->cr0 & CR0_WP) ? ACC_W : 0);
	if (!nx && !(all & PTE_U && c->cr4 & CR4_SMEP))
		r |= ACC_X;
	return r;
}

static void fault(const struct soft_cpu *c, enum tlb_mode mode, unsigned acc, u32 error, struct walk *ret)
{
	if (acc & ACC_W)
		error |= PFEC_W;
	if (mode == TLB_USER)
		error |= PFEC_U;
	if (acc & ACC_X && (c->cr4 & CR4_SMEP || (c->cr4 & CR4_PAE && c->efer & EFER_NXE)))
		error |= PFEC_I;
	ret->error = error;
}

static gpa_t leaf_address(const struct format *f, u64 val, unsigned shift, gva_t la)
{
	u64 low = la & (BIT(shift) - 1);
	if (shift == 22)
		return (val & 0xffc00000) | (val >> 13 & 0xff) << 32 | low;
	return (val & (f->size == 4 ? 0xfffff000 : ADDR_MASK) & ~(BIT(shift) - 1)) | low;
}

enum outcome { FAILED, DONE, AGAIN };

static enum outcome walk_tables(struct soft_cpu *c, const struct format *f, gpa_t table, gva_t la,
				enum tlb_mode mode, unsigned acc, struct walk *ret)
{
	struct entry path[4];
	unsigned n = 0, level = f->levels, shift = 0;
	u64 all = PTE_U | PTE_W;
	bool nx = false, leaf = false;

	while (!leaf) {
		struct entry *e = &path[n++];
		level--;
		shift = 12 + level * f->index_bits;
		entry_read(c, e, table + (la >> shift & (BIT(f->index_bits) - 1)) * f->size, f->size);
		if (!(e->val & PTE_P)) {
			fault(c, mode, acc, 0, ret);
			return FAILED;
		}
		u64 rsvd = f->rsvd;
		leaf = is_leaf(c, f, level, e->val, &rsvd);
		if (unlikely(e->val & rsvd)) {
			fault(c, mode, acc, PFEC_P | PFEC_RSVD, ret);
			return FAILED;
		}
		all &= e->val;
		/* Without NXE bit 63 is reserved, and with 32-bit entries not there. */
		nx |= e->val >> 63;
		table = e->val & (f->size == 4 ? 0xfffff000 : ADDR_MASK);
	}
	u64 val = path[n - 1].val;
	ret->rights = page_rights(c, mode, all, nx);
	if (acc & ~ret->rights) {
		fault(c, mode, acc, PFEC_P, ret);
		return FAILED;
	}
	for (unsigned k = 0; acc && k < n; k++) {
		u64 bits = k == n - 1 && acc & ACC_W ? PTE_A | PTE_D : PTE_A;
		if (unlikely(!entry_mark(c, &path[k], f->size, bits)))
			return AGAIN;
	}
	ret->gpa = ram_gate(c->ram, leaf_address(f, val, shift, la));
	ret->shift = shift;
	ret->dirty = acc & ACC_W || val & PTE_D;
	ret->global = val & PTE_G && c->cr4 & CR4_PGE;
	return DONE;
}

bool walk_page(struct soft_cpu *c, gva_t la, enum tlb_mode mode, unsigned acc, struct walk *ret)
{
	ret->error = 0;
	if (!(c->cr0 & CR0_PG)) {
		ret->gpa = ram_gate(c->ram, la);
		ret->rights = ACC_R | ACC_W | ACC_X;
		ret->shift = 12;
		ret->dirty = true;
		ret->global = false;
		return true;
	}

	u64 xd = c->efer & EFER_NXE ? 0 : PTE_NX;
	struct format f;
	gpa_t table;
	if (soft_long(c)) {
		f = (struct format){ .levels = 4, .index_bits = 9, .size = 8, .rsvd = c->maxphy_mask | xd };
		table = c->cr3 & ADDR_MASK & ~c->maxphy_mask;
	} else if (c->cr4 & CR4_PAE) {
		u64 pdpte = c->pdpte[la >> 30 & 3];
		if (!(pdpte & PTE_P)) {
			fault(c, mode, acc, 0, ret);
			return false;
		}
		f = (struct format){ .levels = 2,
				     .index_bits = 9,
				     .size = 8,
				     .rsvd = c->maxphy_mask | 0x7ff0000000000000ull | xd };
		table = pdpte & ADDR_MASK;
	} else {
		f = (struct format){ .levels = 2, .index_bits = 10, .size = 4, .rsvd = 0 };
		table = c->cr3 & 0xfffff000;
	}
	enum outcome o;
	do
		o = walk_tables(c, &f, table, la, mode, acc, ret);
	while (unlikely(o == AGAIN));
	return o == DONE;
}
