/* From one engine to another: what the vCPUs are in, out of the one and into the other.
 *
 * The new engine is built first, next to the old one, which keeps everything until the new one has taken all states: a
 * failure on the way leaves the machine where it was. The vCPUs' threads end and begin anew in between, since
 * engines keep things of theirs (signals, a stack, a timer) with the thread. What was posted to a vCPU meanwhile stays
 * in its mailbox; what an engine had taken out of that is in the state.
 *
 * A `seat` is everything by which a machine knows its engine.
 *
 * Main thread; all vCPUs are paused, and the devices quiet, so nobody kicks a vCPU meanwhile.
 */
#include "vm/handover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vm/vm.h"
#include "x86/cpuid.h"

struct seat {
	const struct engine_ops *ops;
	void *vm;
	void *cpu[VM_MAX_VCPUS];
	void (*code_written)(void *opaque, gpa_t gpa, u64 len);
	void *code_opaque;
};

static struct seat seat_of(const struct vm *vm)
{
	struct seat s = {
		.ops = vm->engine,
		.vm = vm->engine_vm,
		.code_written = vm->ram.code_written,
		.code_opaque = vm->ram.code_opaque,
	};

	for (u32 i = 0; i < vm->nr_vcpus; i++)
		s.cpu[i] = vm->vcpu[i]->engine;
	return s;
}

static void sit(struct vm *vm, const struct seat *s)
{
	vm->engine = s->ops;
	vm->engine_vm = s->vm;
	vm->ram.code_written = s->code_written;
	vm->ram.code_opaque = s->code_opaque;
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		vm->vcpu[i]->engine = s->cpu[i];
}

/* Takes apart the engine that the machine sits on, half-built or whole, and leaves it on `next`. */
static void leave(struct vm *vm, const struct seat *next)
{
	for (u32 i = 0; i < vm->nr_vcpus; i++)
		vm->engine->vcpu_fini(vm->vcpu[i]);
	vm->engine->vm_fini(vm);
	sit(vm, next);
}

static int build(struct vm *vm, const struct engine_ops *to, struct err *err)
{
	const struct seat empty = { .ops = to };
	int r;

	sit(vm, &empty);
	r = to->vm_init(vm, err);
	for (u32 i = 0; i < vm->nr_vcpus && r >= 0; i++)
		r = to->vcpu_init(vm->vcpu[i], err);
	if (r >= 0 && to->dirty_set && atomic_load(&vm->ram.dirty_on))
		r = to->dirty_set(vm, true, err);
	return r;
}

/* Threads in these states, on the engine that the machine sits on, each paused before it executes anything. */
static int begin(struct vm *vm, const struct x86_state *state, struct err *err)
{
	int r = 0;

	for (u32 i = 0; i < vm->nr_vcpus && r >= 0; i++) {
		vcpu_post(vm->vcpu[i], VCPU_REQ_PAUSE);
		r = vcpu_start(vm->vcpu[i], &state[i], err);
		if (r >= 0)
			vcpu_pause(vm->vcpu[i]);
	}
	return r;
}

static void end(struct vm *vm)
{
	for (u32 i = 0; i < vm->nr_vcpus; i++) {
		vcpu_join(vm->vcpu[i]);
		atomic_fetch_and(&vm->vcpu[i]->requests, ~(u32)VCPU_REQ_STOP);
	}
}

static int save(struct vm *vm, struct x86_state *ret_state, struct err *err)
{
	int r = 0;

	for (u32 i = 0; i < vm->nr_vcpus && r >= 0; i++)
		r = vm->engine->get_state(vm->vcpu[i], &ret_state[i], err);
	return r;
}

/* The states of the vCPUs are in state; the machine sits on old. */
static int move(struct vm *vm, const struct seat *old, const struct seat *new, const struct x86_state *state,
		struct err *err)
{
	struct err again = { 0 };
	int r;

	end(vm);
	sit(vm, new);
	r = begin(vm, state, err);
	if (r >= 0)
		return 0;
	end(vm);
	sit(vm, old);
	if (begin(vm, state, &again) < 0) {
		vm_crash(vm, "the vCPUs are on no engine any more\n");
		return err_set(err, -EIO, "neither engine takes the vCPUs: %s", again.msg);
	}
	return r;
}

int handover_check(struct vm *vm, const struct engine_ops *to, struct err *err)
{
	static const struct {
		enum x86_feature feature;
		const char *name;
	} nested[] = { { X86_FEATURE_SVM, "SVM" }, { X86_FEATURE_VMX, "VMX" } };
	u64 features[4];
	char missing[400];

	to->features(&vm->engine_conf, features);
	if (!cpuid_missing(&vm->cpuid, features, missing, sizeof(missing)))
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(nested); i++)
		if (cpuid_has(&vm->cpuid, nested[i].feature) && !cpuid_bit(features, nested[i].feature))
			return err_set(
				err, -ENOTSUP,
				"the guest's processor has %s (nested=on), which the %s engine does not have; a "
				"machine that is to move begins without nested=on",
				nested[i].name, to->name);
	return err_set(
		err, -ENOTSUP,
		"the guest was promised features that the %s engine does not have on this host:%s; a machine "
		"that is to move begins with --engine %s and a CPU model that both offer, as --cpu v1 to v4",
		to->name, missing, to->name);
}

int handover_run(struct vm *vm, const struct engine_ops *to, struct err *err)
{
	struct x86_state *state =
		aligned_alloc(_Alignof(struct x86_state), vm->nr_vcpus * sizeof(struct x86_state));
	const struct seat old = seat_of(vm);
	struct seat new;
	int r;

	if (!state)
		return err_set(err, -ENOMEM, "no memory for the states of %u vCPUs", vm->nr_vcpus);
	r = build(vm, to, err);
	if (r < 0) {
		leave(vm, &old);
		free(state);
		return r;
	}
	new = seat_of(vm);
	sit(vm, &old);
	r = save(vm, state, err);
	/* What the old one has noted of written pages goes with it. */
	if (r >= 0 && old.ops->dirty_sync && atomic_load(&vm->ram.dirty_on))
		r = old.ops->dirty_sync(vm, err);
	if (r >= 0)
		r = move(vm, &old, &new, state, err);
	/* Whichever it is not on goes. */
	sit(vm, r < 0 ? &new : &old);
	leave(vm, r < 0 ? &old : &new);
	free(state);
	return r;
}
