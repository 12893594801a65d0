/* The lock of what vCPUs share, and being alone; see share.h. */
#include "cpu/soft/share.h"

#define PATIENCE 64 /* rounds of waiting after which another thread gets the processor */

/* Round n of waiting. */
static void pause_round(u32 n)
{
	__builtin_ia32_pause();
	if (n % PATIENCE == 0) /* who is waited for may have been put off for this thread */
		soft_yield();
}

void share_lock(struct soft_vm *s)
{
	u32 n = 0;

	while (atomic_exchange_explicit(&s->lock, 1, memory_order_acquire))
		while (atomic_load_explicit(&s->lock, memory_order_relaxed))
			pause_round(++n);
}

static void serialize(void)
{
	u32 eax = 0, ebx, ecx = 0, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx) : : "memory");
}

static void refetch(struct soft_cpu *c)
{
	if (unlikely(c->refetch)) {
		c->refetch = false;
		serialize();
	}
}

void share_enter(struct soft_cpu *c)
{
	struct soft_vm *s = c->svm;

	for (u32 n = 0;;) {
		atomic_store(&c->in_run, true);
		if (likely(!atomic_load(&s->alone)))
			break;
		atomic_store(&c->in_run, false);
		while (atomic_load_explicit(&s->alone, memory_order_relaxed))
			pause_round(++n);
	}
	refetch(c);
}

void share_leave(struct soft_cpu *c)
{
	atomic_store(&c->in_run, false);
}

void share_pass(struct soft_cpu *c)
{
	if (likely(!atomic_load(&c->svm->alone)))
		return;
	share_leave(c);
	share_enter(c);
}

void share_kick(const struct soft_vm *s, const struct soft_cpu *c)
{
	for (u32 k = 0; k < s->vm->nr_vcpus; k++) {
		struct soft_cpu *other = share_cpu(s, k);

		if (other && other != c)
			soft_recall(other);
	}
}

void share_alone(struct soft_cpu *c)
{
	struct soft_vm *s = c->svm;
	u32 n = 0;

	share_leave(c);
	while (atomic_exchange(&s->alone, 1))
		while (atomic_load_explicit(&s->alone, memory_order_relaxed))
			pause_round(++n);
	share_kick(s, c);
	for (u32 k = 0; k < s->vm->nr_vcpus; k++) {
		struct soft_cpu *other = share_cpu(s, k);

		while (other && other != c && atomic_load(&other->in_run))
			pause_round(++n);
	}
}

void share_together(struct soft_cpu *c)
{
	refetch(c);
	atomic_store(&c->in_run, true);
	atomic_store(&c->svm->alone, 0);
}

void share_refetch(const struct soft_vm *s)
{
	for (u32 k = 0; k < s->vm->nr_vcpus; k++) {
		struct soft_cpu *c = share_cpu(s, k);

		if (c)
			c->refetch = true;
	}
}

bool share_settled(const struct soft_vm *s, const struct soft_cpu *c, u64 epoch)
{
	for (u32 k = 0; k < s->vm->nr_vcpus; k++) {
		const struct soft_cpu *other = share_cpu(s, k);

		if (other && other != c && atomic_load(&other->in_run) &&
		    atomic_load_explicit(&other->seen, memory_order_acquire) < epoch)
			return false;
	}
	return true;
}
