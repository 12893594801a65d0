/* The window of the kernel's direct map.
 *
 * Models nothing: a cache like the TLB, of one translation that is very large. Kernels map all memory in one range of
 * linear addresses, at a constant distance from the physical ones, by global pages that stay. What code of the upper
 * half reads by other registers than RSP is mostly there, on pages that change all the time: translated code compares
 * the address with the bounds of the range, and adds a constant.
 *
 * How: when the TLB has been filled often enough from large pages outside of the range, the neighbours of such a page
 * are walked in both directions for as long as the distance stays the same. The longest range found is kept. How long
 * the next search is put off grows with what the last one cost, so that searching is a fraction of all filling.
 *
 * Exact as the TLB is: only what a supervisor may read, all A bits set already, RAM; for reads only, for a page with
 * code is tracked by its writes; dropped by whatever invalidates one of its pages, where alignment checks or the
 * lock-step mode want each access on the slow path, and once code of both privileges runs in one half. (While there are
 * breakpoints nothing is translated.)
 *
 * On the vCPU's thread; compiled with general registers only. */
#include "cpu/soft/mmu.h"

#define MAX_STEPS 2048 /* of a search, either way */

/* The end of the range around la that is distance from its physical addresses: the first address after it, or, down, the
 * first of it. */
static gva_t find_end(struct soft_cpu *c, gva_t la, u64 distance, bool down)
{
	gva_t end = la;

	for (unsigned k = 0; k < MAX_STEPS; k++) {
		gva_t at = down ? end - 1 : end;
		struct walk w;
		u64 size;

		if (!(at >> 63) || !walk_page(c, at, TLB_SUP, 0, &w) || !w.accessed || !w.global ||
		    !(w.rights & ACC_R) || at - w.gpa != distance)
			break;
		size = BIT(w.shift);
		if (!ram_ptr(c->ram, w.gpa & ~(size - 1), size))
			break;
		end = down ? at & ~(size - 1) : (at | (size - 1)) + 1;
	}
	return end;
}

void direct_missed(struct soft_cpu *c, gva_t la, gpa_t gpa)
{
	struct direct_map *d = &c->direct;
	gva_t start, end;
	u64 t0, t1;

	/* Searching takes a small part of the time, whatever the guest's tables are like. */
	if (++d->misses % 64 || (t0 = vcpu_rdtsc()) < d->not_before)
		return;
	if (!c->jit || c->align_checks || c->lockstep || c->cpl == 3)
		return;
	start = find_end(c, la, la - gpa, true);
	end = find_end(c, la, la - gpa, false);
	t1 = vcpu_rdtsc();
	d->not_before = t1 + 64 * (t1 - t0);
	if (end - start <= d->span + DIRECT_MARGIN)
		return;
	d->start = start;
	d->span = end - start - DIRECT_MARGIN;
	d->addend = (u64)c->ram->base - (la - gpa);
	c->nr_direct++;
}

void direct_drop(struct soft_cpu *c, gva_t la, u64 mask)
{
	struct direct_map *d = &c->direct;

	if (d->span && (la & mask) <= d->start + d->span + DIRECT_MARGIN - 1 && (la | ~mask) >= d->start)
		d->span = 0;
}
