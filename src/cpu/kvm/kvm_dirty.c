/* Which pages the guest has written, under KVM: by its dirty rings, or by its dirty log.
 *
 * A ring per vCPU [KVM api 8.29] is read in proportion to what was written; the log [KVM api 4.8], which all KVMs have, is a
 * bitmap of a whole slot at each reading. Rings must be asked for before there are vCPUs, and cost nothing but their memory until
 * slots are to be logged; so they are made wherever the host has them. A full one ends KVM_RUN, and the vCPU's own thread
 * empties it. An entry that was read is given back by the flag RESET; KVM_RESET_DIRTY_RINGS then notes the next write to its page.
 *
 * A slot that goes away while pages are noted counts as written, all of it (kvm_memory.c): those are the segments of a
 * chip set's shadow, four pages each. An entry of a ring may then name a slot that is another one by now: it marks pages that
 * were not written.
 *
 * What vCPUs have in the processor (a page-modification log) reaches ring or log when they leave KVM_RUN; the contract has
 * them paused.
 *
 * Threads: main thread; a vCPU's for a full ring; under memory_lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/kvm/kvm.h"

#define RING_ENTRIES 4096u
#define RING_BYTES   (RING_ENTRIES * (u32)sizeof(struct kvm_dirty_gfn))

/* --- rings --- */
int kvm_dirty_init(struct kvm_vm *kvm, struct err *err)
{
	const struct kvm_enable_cap cap = { .cap = KVM_CAP_DIRTY_LOG_RING, .args[0] = RING_BYTES };

	if ((u32)kvm_sys_cap(kvm->fd, cap.cap) < RING_BYTES)
		return 0;
	kvm->rings = true;
	return KVM_CALL(kvm->fd, KVM_ENABLE_CAP, &cap, err);
}

int kvm_dirty_vcpu_init(struct kvm_cpu *k, struct err *err)
{
	void *p;

	if (!k->kvm->rings)
		return 0;
	p = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd,
		 (off_t)(KVM_DIRTY_LOG_PAGE_OFFSET * RAM_PAGE_SIZE));
	if (p == MAP_FAILED)
		return err_sys(err, -errno, "cannot map the dirty ring of vCPU %u", k->vcpu->id);
	k->ring = p;
	return 0;
}

void kvm_dirty_vcpu_fini(struct kvm_cpu *k)
{
	if (k->ring)
		munmap(k->ring, RING_BYTES);
	k->ring = NULL;
}

/* The page is of the slot, whatever the slot was when it was noted. */
static void mark(struct kvm_vm *kvm, u32 slot, u64 page)
{
	const struct kvm_slot *s = slot < KVM_MAX_SLOTS ? &kvm->slot[slot] : NULL;

	if (s && page < (s->end - s->start) / RAM_PAGE_SIZE)
		ram_mark_dirty(&kvm->vm->ram, s->start + page * RAM_PAGE_SIZE, RAM_PAGE_SIZE);
}

static void empty(struct kvm_cpu *k)
{
	for (;; k->ring_at = (k->ring_at + 1) % RING_ENTRIES) {
		struct kvm_dirty_gfn *g = &k->ring[k->ring_at];

		if (!(__atomic_load_n(&g->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			return;
		mark(k->kvm, g->slot, g->offset);
		__atomic_store_n(&g->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
}

int kvm_dirty_ring_full(struct kvm_cpu *k, struct err *err)
{
	struct kvm_vm *kvm = k->kvm;
	int r;

	pthread_mutex_lock(&kvm->memory_lock);
	empty(k);
	r = KVM_CALL(kvm->fd, KVM_RESET_DIRTY_RINGS, NULL, err);
	pthread_mutex_unlock(&kvm->memory_lock);
	return MIN(r, 0);
}

/* --- the log --- */
static int read_log(struct kvm_vm *kvm, u32 nr, struct err *err)
{
	u64 pages = (kvm->slot[nr].end - kvm->slot[nr].start) / RAM_PAGE_SIZE, words = (pages + 63) / 64;
	u64 *bits = calloc(words, sizeof(u64));
	const struct kvm_dirty_log log = { .slot = nr, .dirty_bitmap = bits };
	int r;

	if (!bits)
		return err_set(err, -ENOMEM, "no memory for the dirty log of %llu pages",
			       (unsigned long long)pages);
	r = KVM_CALL(kvm->fd, KVM_GET_DIRTY_LOG, &log, err);
	for (u64 w = 0; r >= 0 && w < words; w++)
		for (u64 left = bits[w]; left; left &= left - 1)
			mark(kvm, nr, w * 64 + (u64)__builtin_ctzll(left));
	free(bits);
	return MIN(r, 0);
}

/* --- the contract --- */
int kvm_dirty_sync(struct kvm_vm *kvm, struct err *err)
{
	int r = 0;

	pthread_mutex_lock(&kvm->memory_lock);
	if (kvm->rings) {
		for (u32 i = 0; i < kvm->vm->nr_vcpus; i++)
			empty(kvm->vm->vcpu[i]->engine);
		r = KVM_CALL(kvm->fd, KVM_RESET_DIRTY_RINGS, NULL, err);
	} else {
		for (u32 nr = 0; nr < KVM_MAX_SLOTS && r >= 0; nr++)
			if (kvm->slot[nr].start < kvm->slot[nr].end && !kvm->slot[nr].rom)
				r = read_log(kvm, nr, err);
	}
	pthread_mutex_unlock(&kvm->memory_lock);
	return MIN(r, 0);
}

int kvm_dirty_set(struct kvm_vm *kvm, bool on, struct err *err)
{
	int r;

	pthread_mutex_lock(&kvm->memory_lock);
	kvm->dirty_on = on;
	r = kvm_memory_set_flags(kvm, err);
	if (r < 0 && on) {
		kvm->dirty_on = false;
		kvm_memory_set_flags(kvm, NULL);
	}
	pthread_mutex_unlock(&kvm->memory_lock);
	return r;
}
