/* Notes of written pages: starting, collecting, stopping.
 *
 * One bitmap per VM, in struct ram, which writers mark. An engine marks a page when a write to it takes its slow way and leaves the
 * fast one open from then on (the software engine: a tag of the TLB), or has the host's kernel note it (KVM). To learn of
 * the next write the fast way must be closed again, on all vCPUs, after the bit was taken and before the caller copies the
 * page: so vCPUs are paused, bits taken, VCPU_REQ_FLUSH posted, which each takes before its next instruction, and then they go
 * on. An instruction that has marked its page and not yet written ends before its vCPU is paused.
 *
 * A device marks after it has written: what was marked too late for one call is in the next. The last one is made when
 * devices are quiet.
 *
 * Main thread.
 */
#include "vm/dirty.h"

#include "vm/vm.h"

/* Stops the vCPUs that run; their bits, for let_go(). */
static u64 hold(struct vm *vm)
{
	u64 held = 0;

	for (u32 i = 0; i < vm->nr_vcpus; i++)
		if (vm->vcpu[i]->thread_started && !vm->vcpu[i]->paused) {
			held |= BIT(i);
			vcpu_post(vm->vcpu[i], VCPU_REQ_PAUSE);
		}
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		if (held >> i & 1)
			vcpu_pause(vm->vcpu[i]);
	return held;
}

static void let_go(struct vm *vm, u64 held)
{
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		if (!vm->engine->dirty_sync)
			vcpu_post(vm->vcpu[i], VCPU_REQ_FLUSH);
		if (held >> i & 1)
			vcpu_resume(vm->vcpu[i]);
	}
}

u64 dirty_words(const struct vm *vm)
{
	return (vm->ram.end / RAM_PAGE_SIZE + 63) / 64;
}

static u64 take(struct ram *ram, u64 words, u64 *bits)
{
	u64 n = 0;

	for (u64 w = 0; w < words; w++) {
		u64 fresh;

		if (!atomic_load_explicit(&ram->dirty_map[w], memory_order_relaxed))
			continue;
		fresh = atomic_exchange(&ram->dirty_map[w], 0) & ~bits[w];
		bits[w] |= fresh;
		n += (u64)__builtin_popcountll(fresh);
	}
	return n;
}

int dirty_start(struct vm *vm, struct err *err)
{
	u64 held = hold(vm);
	int r = 0;

	for (u64 w = 0; w < dirty_words(vm); w++)
		atomic_store_explicit(&vm->ram.dirty_map[w], 0, memory_order_relaxed);
	atomic_store(&vm->ram.dirty_on, true);
	if (vm->engine->dirty_set)
		r = vm->engine->dirty_set(vm, true, err);
	if (r < 0)
		atomic_store(&vm->ram.dirty_on, false);
	let_go(vm, held);
	return r;
}

s64 dirty_collect(struct vm *vm, u64 *bits, struct err *err)
{
	u64 held = hold(vm);
	s64 n = 0;

	if (vm->engine->dirty_sync)
		n = vm->engine->dirty_sync(vm, err);
	if (n >= 0)
		n = (s64)take(&vm->ram, dirty_words(vm), bits);
	let_go(vm, held);
	return n;
}

void dirty_stop(struct vm *vm)
{
	u64 held = hold(vm);

	if (vm->engine->dirty_set)
		vm->engine->dirty_set(vm, false, NULL);
	atomic_store(&vm->ram.dirty_on, false);
	let_go(vm, held);
}
